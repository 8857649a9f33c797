//! How are other servers talked to? One HTTP client for scrapes, discovery,
//! notifications, remote writes and whoever else sends requests.
//!
//! [`HttpClient`] is built from an [`HttpClientConfig`] and is cheap to clone.
//! It keeps connections, follows redirects, reads secrets for each request and
//! certificates again when their files change. Credentials and configured
//! headers go to the host that was asked for, and to no other that a redirect
//! names. A request's timeout covers everything up to the last byte of the
//! answer; the size of an answer is limited by whoever reads it.
//!
//! HTTP/1.1 is our own (`h1`): a scrape needs no more, and pays for no task,
//! no copy and no idle buffer. HTTP/2 is hyper's.

mod auth;
mod connect;
mod error;
mod h1;
mod pool;
mod proxy;
mod secret_file;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::Instant;
use url::Url;

pub use error::ClientError;
pub use tls::{install_provider, provider};

use crate::config::{HeaderConfig, HttpClientConfig};
use auth::Auth;
use h1::{Connection, Framing};
use pool::{Destination, Pool};
use proxy::Proxies;
use tls::TlsSource;

/// Redirects that are followed, as in Go.
const REDIRECT_LIMIT: usize = 10;
/// Timeout of a request that sets none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends requests as one configuration says. Cloning shares connections.
#[derive(Clone)]
pub struct HttpClient(Arc<Inner>);

struct Inner {
    tls: TlsSource,
    proxies: Proxies,
    auth: Auth,
    headers: BTreeMap<String, HeaderConfig>,
    follow_redirects: bool,
    pool: Pool,
}

/// One request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Request {
    /// GET, POST, ...
    pub method: Method,
    url: Arc<Url>,
    /// Further headers. `Host`, `Content-Length` and what the configuration
    /// says are added, `User-Agent` if it is not there.
    pub headers: Arc<HeaderMap>,
    /// Sent with its length.
    pub body: Bytes,
    /// From now to the last byte of the answer. Default 30 s.
    pub timeout: Duration,
    socket: Option<Arc<Path>>,
    /// Of `url` and `socket`.
    to: Destination,
}

impl Request {
    /// A request without body and headers. The URL's scheme is http or https;
    /// user and password in it become basic auth.
    #[must_use]
    pub fn new(method: Method, url: Url) -> Self {
        let (headers, body, to) = (Arc::default(), Bytes::new(), destination(&url, None));
        let (url, timeout, socket) = (Arc::new(url), DEFAULT_TIMEOUT, None);
        Self { method, url, headers, body, timeout, socket, to }
    }

    /// Where it goes.
    #[must_use]
    pub const fn url(&self) -> &Arc<Url> {
        &self.url
    }

    /// Connects to this Unix socket instead of the URL's host, past proxies;
    /// a redirect to another host does not.
    pub fn set_socket(&mut self, socket: Arc<Path>) {
        self.to = destination(&self.url, Some(&socket));
        self.socket = Some(socket);
    }

    /// Adds a header, or replaces it.
    pub fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        Arc::make_mut(&mut self.headers).insert(name, value);
    }
}

/// An answer whose body is still to be read.
pub struct Response {
    /// Any status: only transport failures are errors.
    pub status: StatusCode,
    /// As sent.
    pub headers: HeaderMap,
    deadline: Instant,
    body: Body,
}

enum Body {
    Http1 { connection: Connection, framing: Framing, keep: Option<Keep> },
    Http2(hyper::body::Incoming),
    Done,
}

/// Where a connection goes when its answer was read.
struct Keep {
    client: Arc<Inner>,
    to: Destination,
    absolute_form: bool,
    generation: u64,
}

impl Keep {
    fn new(client: &Arc<Inner>, to: &Destination, absolute_form: bool, generation: u64) -> Self {
        Self { client: Arc::clone(client), to: Arc::clone(to), absolute_form, generation }
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

/// Parses a URL that must be http or https and have a host.
///
/// # Errors
///
/// [`ClientError::Url`].
pub fn parse_url(text: &str) -> Result<Url, ClientError> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(ClientError::Url(text.to_owned())),
    }
}

impl HttpClient {
    /// A client without connections. Reads the TLS files once, to refuse
    /// what cannot be used.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if certificates, keys or proxies cannot be used.
    pub fn new(config: &HttpClientConfig) -> Result<Self, ClientError> {
        let client = Self::new_lazy(config)?;
        if config.tls != crate::config::TlsConfig::default() {
            client.0.tls.current()?;
        }
        Ok(client)
    }

    /// As [`HttpClient::new`], but TLS files are first read by the first
    /// request: a scrape whose files are missing fails, its pool does not.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if proxies cannot be used.
    pub fn new_lazy(config: &HttpClientConfig) -> Result<Self, ClientError> {
        Ok(Self(Arc::new(Inner {
            tls: TlsSource::new(&config.tls, config.enable_http2),
            proxies: Proxies::new(&config.proxy)?,
            auth: Auth::new(config)?,
            headers: config.headers.clone(),
            follow_redirects: config.follow_redirects,
            pool: Pool::default(),
        })))
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; an answer of any status is not an error.
    pub async fn send(&self, request: Request) -> Result<Response, ClientError> {
        let deadline = Instant::now() + request.timeout;
        tokio::time::timeout_at(deadline, self.follow(request, deadline))
            .await
            .unwrap_or(Err(ClientError::Timeout))
    }

    async fn follow(
        &self,
        mut request: Request,
        deadline: Instant,
    ) -> Result<Response, ClientError> {
        let first = Arc::clone(&request.to);
        for _ in 0..=REDIRECT_LIMIT {
            let mut response = self.send_one(&request, request.to == first, deadline).await?;
            if !self.0.follow_redirects || !is_redirect(response.status) {
                return Ok(response);
            }
            let Some(location) = response.headers.get(header::LOCATION) else {
                return Ok(response);
            };
            let location = location
                .to_str()
                .ok()
                .and_then(|l| request.url.join(l).ok())
                .filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host())
                .ok_or_else(|| {
                    ClientError::Redirect("failed to parse Location header".to_owned())
                })?;
            // A short body is read so that the connection may be kept.
            let _ = response.read(16 << 10).await;
            redirect(&mut request, response.status, location);
            if request.to != first {
                let headers = Arc::make_mut(&mut request.headers);
                for name in [header::AUTHORIZATION, header::COOKIE, header::WWW_AUTHENTICATE] {
                    headers.remove(name);
                }
                request.socket = None;
                request.to = destination(&request.url, None);
            }
        }
        Err(ClientError::Redirect(format!("stopped after {REDIRECT_LIMIT} redirects")))
    }

    /// `trusted`: the configuration's credentials and headers are for where
    /// the request goes.
    async fn send_one(
        &self,
        request: &Request,
        trusted: bool,
        deadline: Instant,
    ) -> Result<Response, ClientError> {
        let inner = &self.0;
        let mut headers = Cow::Borrowed(&*request.headers);
        if trusted {
            if !headers.contains_key(header::AUTHORIZATION)
                && let Some(value) = inner.auth.header().await?
            {
                headers.to_mut().insert(header::AUTHORIZATION, value);
            }
            if !inner.headers.is_empty() {
                auth::add_headers(&inner.headers, headers.to_mut())?;
            }
        }
        if !headers.contains_key(header::AUTHORIZATION)
            && let Some(value) = connect::basic_of(&request.url)
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            headers.to_mut().insert(header::AUTHORIZATION, value);
        }
        if !headers.contains_key(header::USER_AGENT) {
            headers.to_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        }

        let (url, to) = (&request.url, &request.to);
        let (tls, generation) = match url.scheme() {
            "https" => inner.tls.current().map(|(tls, g)| (Some(tls), g))?,
            _ => (None, 0),
        };
        if let Some(sender) = inner.pool.http2(to, generation) {
            return over_http2(sender, request, headers.into_owned(), deadline).await;
        }
        while let Some((connection, absolute_form)) = inner.pool.take(to, generation) {
            let keep = Keep::new(inner, to, absolute_form, generation);
            match over_http1(connection, request, &headers, keep, deadline).await {
                // Closed by the server while it was idle.
                Err(ClientError::Io(e)) if e.kind() == std::io::ErrorKind::ConnectionAborted => {}
                answered => return answered,
            }
        }
        let socket = request.socket.as_deref();
        let opened = connect::open(url, socket, &inner.proxies, &inner.tls, tls).await?;
        if opened.http2 {
            let (sender, connection) =
                hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                    .handshake(TokioIo::new(opened.io))
                    .await
                    .map_err(|e| ClientError::Http2(e.to_string()))?;
            tokio::spawn(async move {
                if let Err(e) = connection.await {
                    tracing::debug!(error = %e, "an HTTP/2 connection ended");
                }
            });
            inner.pool.put_http2(Arc::clone(to), sender.clone(), generation);
            return over_http2(sender, request, headers.into_owned(), deadline).await;
        }
        let keep = Keep::new(inner, to, opened.absolute_form, generation);
        match over_http1(Connection::new(opened.io), request, &headers, keep, deadline).await {
            Err(ClientError::Io(e)) if e.kind() == std::io::ErrorKind::ConnectionAborted => {
                Err(ClientError::Io(std::io::Error::other("EOF")))
            }
            answered => answered,
        }
    }
}

/// What we call ourselves where nothing else is asked for.
pub const USER_AGENT: &str = concat!("narthex/", env!("CARGO_PKG_VERSION"));

fn destination(url: &Url, socket: Option<&Path>) -> Destination {
    let port = url.port_or_known_default().unwrap_or(0);
    let mut to = format!("{}://{}:{port}", url.scheme(), url.host_str().unwrap_or_default());
    if let Some(path) = socket {
        let _ = write!(to, " {}", path.display());
    }
    to.into()
}

const fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn redirect(request: &mut Request, status: StatusCode, location: Url) {
    let keeps_method = matches!(status.as_u16(), 307 | 308)
        || matches!(request.method, Method::GET | Method::HEAD);
    if !keeps_method {
        request.method = Method::GET;
        request.body = Bytes::new();
        let headers = Arc::make_mut(&mut request.headers);
        headers.remove(header::CONTENT_TYPE);
        headers.remove(header::CONTENT_ENCODING);
    }
    request.to = destination(&location, request.socket.as_deref());
    request.url = Arc::new(location);
}

/// `/path?query`.
fn path_and_query(url: &Url) -> &str {
    &url[url::Position::BeforePath..url::Position::AfterQuery]
}

/// `host` or `host:port`, without user and password.
fn authority(url: &Url) -> &str {
    &url[url::Position::BeforeHost..url::Position::AfterPort]
}

async fn over_http1(
    mut connection: Connection,
    request: &Request,
    headers: &HeaderMap,
    keep: Keep,
    deadline: Instant,
) -> Result<Response, ClientError> {
    let mut bytes = Vec::with_capacity(512 + request.body.len());
    let mut put = |part: &[u8]| bytes.extend_from_slice(part);
    let url = &request.url;
    put(request.method.as_str().as_bytes());
    put(b" ");
    if keep.absolute_form {
        put(url.scheme().as_bytes());
        put(b"://");
        put(authority(url).as_bytes());
    }
    put(path_and_query(url).as_bytes());
    put(b" HTTP/1.1\r\nHost: ");
    put(authority(url).as_bytes());
    put(b"\r\n");
    if keep.absolute_form
        && let Some(value) = keep.client.proxies.of(url).and_then(connect::basic_of)
    {
        put(b"Proxy-Authorization: ");
        put(value.as_bytes());
        put(b"\r\n");
    }
    for (name, value) in headers {
        put(name.as_str().as_bytes());
        put(b": ");
        put(value.as_bytes());
        put(b"\r\n");
    }
    if !request.body.is_empty() || matches!(request.method, Method::POST | Method::PUT) {
        put(format!("Content-Length: {}\r\n", request.body.len()).as_bytes());
    }
    put(b"\r\n");
    put(&request.body);
    let head = connection.exchange(&bytes, request.method == Method::HEAD).await?;
    let keep = head.keep_alive.then_some(keep);
    let mut response = Response {
        status: head.status,
        headers: head.headers,
        deadline,
        body: Body::Http1 { connection, framing: head.framing, keep },
    };
    response.settle();
    Ok(response)
}

async fn over_http2(
    mut sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    request: &Request,
    headers: HeaderMap,
    deadline: Instant,
) -> Result<Response, ClientError> {
    let failed = |e: hyper::Error| ClientError::Http2(e.to_string());
    let uri = format!(
        "{}://{}{}",
        request.url.scheme(),
        authority(&request.url),
        path_and_query(&request.url)
    );
    let mut message = http::Request::new(Full::new(request.body.clone()));
    *message.method_mut() = request.method.clone();
    *message.uri_mut() = uri.parse().map_err(|_| ClientError::Url(uri))?;
    *message.headers_mut() = headers;
    sender.ready().await.map_err(failed)?;
    let (head, body) = sender.send_request(message).await.map_err(failed)?.into_parts();
    Ok(Response { status: head.status, headers: head.headers, deadline, body: Body::Http2(body) })
}

impl Response {
    /// The whole body.
    ///
    /// # Errors
    ///
    /// [`ClientError::TooLarge`] if it has more than `limit_bytes`, otherwise
    /// what broke the transport. The connection is then closed.
    pub async fn read(&mut self, limit_bytes: u64) -> Result<Vec<u8>, ClientError> {
        let mut out = Vec::new();
        self.read_into(&mut out, limit_bytes).await?;
        Ok(out)
    }

    /// Appends the whole body to `out`, otherwise as [`Response::read`].
    ///
    /// # Errors
    ///
    /// As [`Response::read`]; `out` then holds what was read.
    pub async fn read_into(
        &mut self,
        out: &mut Vec<u8>,
        limit_bytes: u64,
    ) -> Result<(), ClientError> {
        let too_large = ClientError::TooLarge { limit: limit_bytes };
        if let Body::Http1 { framing: Framing::Length(length), .. } = self.body
            && length > limit_bytes
        {
            self.body = Body::Done;
            return Err(too_large);
        }
        let before = out.len();
        let deadline = self.deadline;
        let read = async {
            while self.read_some(out).await? {
                if (out.len() - before) as u64 > limit_bytes {
                    return Err(too_large);
                }
            }
            Ok(())
        };
        let result =
            tokio::time::timeout_at(deadline, read).await.unwrap_or(Err(ClientError::Timeout));
        if result.is_err() {
            self.body = Body::Done;
        }
        result
    }

    /// The next part of the body; `None` at its end. For answers that are
    /// worked on while they arrive; the caller limits their size.
    ///
    /// # Errors
    ///
    /// [`ClientError::Timeout`] or what broke the transport.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let mut out = Vec::new();
        let deadline = self.deadline;
        match tokio::time::timeout_at(deadline, self.read_some(&mut out)).await {
            Ok(Ok(more)) => Ok(more.then_some(out)),
            Ok(Err(e)) => {
                self.body = Body::Done;
                Err(e)
            }
            Err(_) => {
                self.body = Body::Done;
                Err(ClientError::Timeout)
            }
        }
    }

    async fn read_some(&mut self, out: &mut Vec<u8>) -> Result<bool, ClientError> {
        let more = match &mut self.body {
            Body::Done => false,
            Body::Http1 { connection, framing, .. } => connection.read_body(framing, out).await?,
            Body::Http2(body) => loop {
                match body.frame().await {
                    None => break false,
                    Some(Err(e)) => return Err(ClientError::Http2(e.to_string())),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            out.extend_from_slice(&data);
                            break true;
                        }
                    }
                }
            },
        };
        if !more && matches!(self.body, Body::Http2(_)) {
            self.body = Body::Done;
        }
        self.settle();
        Ok(more)
    }

    /// Gives the connection back as soon as the body was read.
    fn settle(&mut self) {
        let Body::Http1 { framing, .. } = &mut self.body else { return };
        if *framing == Framing::Length(0) {
            *framing = Framing::Done;
        }
        if *framing != Framing::Done {
            return;
        }
        if let Body::Http1 { connection, keep: Some(keep), .. } =
            std::mem::replace(&mut self.body, Body::Done)
        {
            keep.client.pool.put(keep.to, connection, keep.absolute_form, keep.generation);
        }
    }
}
