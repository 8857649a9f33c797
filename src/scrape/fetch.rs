//! One request to a target: from URL to page, within time and size.

use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};
use url::Url;

use crate::client::{ClientError, HttpClient, Request};

/// Largest page, and largest compressed page, whatever is configured.
pub const PAGE_LIMIT_BYTES: u64 = 512 << 20;
/// Buffers up to this size are kept for the next scrape ...
const KEPT_BUFFER_BYTES: usize = 4 << 20;
/// ... and so many of them.
const KEPT_BUFFERS: usize = 8;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The request failed.
    #[error("Get \"{url}\": {source}")]
    Request {
        /// What was asked for.
        url: Arc<Url>,
        /// Why it failed.
        #[source]
        source: ClientError,
    },
    /// The answer broke off.
    #[error("{0}")]
    Body(ClientError),
    /// Any status but 200.
    #[error("server returned HTTP status {0}")]
    Status(String),
    /// The page has `body_size_limit` bytes or more.
    #[error("body size limit exceeded")]
    TooLarge,
    /// The page is not gzip, though it says so, or is cut off.
    #[error("{0}")]
    Gzip(String),
}

/// Buffers for pages, shared by all loops: few scrapes run at once, so few
/// buffers are needed, however many targets there are.
#[derive(Debug, Clone, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty buffer.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Gives a buffer back.
    pub fn put(&self, mut buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.capacity() <= KEPT_BUFFER_BYTES && kept.len() < KEPT_BUFFERS {
            buffer.clear();
            kept.push(buffer);
        }
    }
}

/// How one target is asked.
#[derive(Debug)]
pub struct Fetcher {
    client: HttpClient,
    request: Request,
    limit_bytes: u64,
}

impl Fetcher {
    /// `socket` is where to connect instead of the URL's host; `limit_bytes`
    /// is `body_size_limit`; 0 is no limit but our own.
    #[must_use]
    pub fn new(
        client: HttpClient,
        url: Url,
        socket: Option<Arc<Path>>,
        accept: &HeaderValue,
        compression: bool,
        timeout: Duration,
        limit_bytes: u64,
    ) -> Self {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::ACCEPT, accept.clone());
        let encoding = if compression { "gzip" } else { "identity" };
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(crate::client::USER_AGENT));
        if let Ok(seconds) = HeaderValue::from_str(&timeout.as_secs_f64().to_string()) {
            headers.insert("x-prometheus-scrape-timeout-seconds", seconds);
        }
        let limit_bytes = if limit_bytes == 0 { PAGE_LIMIT_BYTES } else { limit_bytes };
        let limit_bytes = limit_bytes.min(PAGE_LIMIT_BYTES);
        let mut request = Request::new(Method::GET, url);
        request.headers = headers.into();
        request.timeout = timeout;
        if let Some(socket) = socket {
            request.set_socket(socket);
        }
        Self { client, request, limit_bytes }
    }

    /// Writes the page to `page` and gives its content type.
    ///
    /// # Errors
    ///
    /// [`FetchError`]; what is in `page` then has no meaning.
    pub async fn fetch(&self, page: &mut Vec<u8>, buffers: &Buffers) -> Result<String, FetchError> {
        let mut response = self.client.send(self.request.clone()).await.map_err(|source| {
            FetchError::Request { url: Arc::clone(self.request.url()), source }
        })?;
        if response.status != http::StatusCode::OK {
            // Read a little, so that the connection may be used again.
            let _ = response.read_into(page, 64 << 10).await;
            return Err(FetchError::Status(response.status.to_string()));
        }
        let text = |name| {
            response.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or("")
        };
        let content_type = text(header::CONTENT_TYPE).to_owned();
        let body = |e| match e {
            ClientError::TooLarge { .. } => FetchError::TooLarge,
            e => FetchError::Body(e),
        };
        page.clear();
        if text(header::CONTENT_ENCODING) == "gzip" {
            let mut compressed = buffers.take();
            let read = response.read_into(&mut compressed, self.limit_bytes).await;
            let inflated = read.map_err(body).and_then(|()| self.inflate(&compressed, page));
            buffers.put(compressed);
            inflated?;
        } else {
            response.read_into(page, self.limit_bytes - 1).await.map_err(body)?;
        }
        Ok(content_type)
    }

    fn inflate(&self, compressed: &[u8], page: &mut Vec<u8>) -> Result<(), FetchError> {
        if compressed.is_empty() {
            return Err(FetchError::Gzip("EOF".to_owned()));
        }
        // The last four bytes claim the size; a lie costs nothing but growing.
        if let Some(claim) = compressed.last_chunk::<4>() {
            let claim = u64::from(u32::from_le_bytes(*claim)).min(self.limit_bytes);
            let likely = claim.min(compressed.len() as u64 * 64);
            page.reserve(usize::try_from(likely).unwrap_or(0));
        }
        flate2::bufread::MultiGzDecoder::new(compressed)
            .take(self.limit_bytes)
            .read_to_end(page)
            .map_err(|e| FetchError::Gzip(gzip_error(&e)))?;
        if page.len() as u64 >= self.limit_bytes { Err(FetchError::TooLarge) } else { Ok(()) }
    }
}

/// As Go says it where it has the same words.
fn gzip_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
        _ if error.to_string().contains("header") => "gzip: invalid header".to_owned(),
        _ => format!("gzip: {error}"),
    }
}
