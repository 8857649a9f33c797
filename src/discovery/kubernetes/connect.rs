//! How is the API server reached? In-cluster, by kubeconfig, or by URL with
//! the HTTP options of the configuration.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;

use crate::client::{ClientError, HttpClient, Request, Response, parse_url};
use crate::config::{Authorization, HttpClientConfig, SecretSource, TlsConfig};

use super::kubeconfig;

/// Longer than any watch that we ask for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(900);

/// Where a pod finds its service account: `token`, `ca.crt`, `namespace`.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why the API server cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The process does not run in a cluster.
    #[error("not in a cluster: {0}")]
    InCluster(String),
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// The HTTP options cannot be used.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// kube-rs refused the settings.
    #[error("{0}")]
    Kube(#[source] Box<kube::Error>),
}

/// A client for one API server.
///
/// # Errors
///
/// [`ConnectError`]; the caller tries again, since tokens and certificates
/// may appear later.
pub async fn connect(
    api_server: Option<&str>,
    kubeconfig: Option<&Path>,
    http: &HttpClientConfig,
) -> Result<kube::Client, ConnectError> {
    match (api_server, kubeconfig) {
        (Some(url), _) => by_url(url, http),
        (None, Some(path)) => kubeconfig::client(path).await,
        (None, None) => {
            let variable = |name: &str| std::env::var(name).ok();
            let (url, http) = in_cluster(variable, Path::new(SERVICE_ACCOUNT))?;
            by_url(&url, &http)
        }
    }
}

/// Where the cluster around this process is, and how it is talked to. Token
/// and authority stay files: both are rotated while the process runs, and
/// files are read again.
///
/// # Errors
///
/// [`ConnectError::InCluster`] if the variables or the token are missing.
pub fn in_cluster(
    variable: impl Fn(&str) -> Option<String>,
    account: &Path,
) -> Result<(String, HttpClientConfig), ConnectError> {
    let given = |name: &str| {
        let value = variable(name).filter(|v| !v.is_empty());
        value.ok_or_else(|| ConnectError::InCluster(format!("{name} is not set")))
    };
    let (host, port) = (given("KUBERNETES_SERVICE_HOST")?, given("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let file = |name: &str| -> PathBuf { account.join(name) };
    std::fs::metadata(file("token"))
        .map_err(|e| ConnectError::InCluster(format!("{}: {e}", file("token").display())))?;
    let authority = file("ca.crt").is_file().then(|| SecretSource::File(file("ca.crt")));
    let http = HttpClientConfig {
        authorization: Some(Authorization {
            scheme: "Bearer".to_owned(),
            credentials: Some(SecretSource::File(file("token"))),
        }),
        tls: TlsConfig { ca: authority, ..TlsConfig::default() },
        ..HttpClientConfig::default()
    };
    Ok((format!("https://{host}:{port}"), http))
}

fn by_url(url: &str, http: &HttpClientConfig) -> Result<kube::Client, ConnectError> {
    let base = parse_url(url)?;
    // A connection for each watch: on one that they shared, all of them, and
    // every new request, would wait for ever once it is dead.
    let client = HttpClient::new(&HttpClientConfig { enable_http2: false, ..http.clone() })?;
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, base) = (client.clone(), base.clone());
        async move { send(&client, &base, request).await }
    });
    Ok(kube::Client::new(service, "default"))
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type AnswerBody =
    StreamBody<Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, ClientError>> + Send>>>;

async fn send(
    client: &HttpClient,
    base: &url::Url,
    request: http::Request<Body>,
) -> Result<http::Response<AnswerBody>, BoxError> {
    let (parts, body) = request.into_parts();
    let mut url = base.clone();
    // A base with a path, such as that of a proxy in front, keeps it.
    url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), parts.uri.path()));
    url.set_query(parts.uri.query());
    let mut request = Request::new(parts.method, url);
    request.headers = parts.headers.into();
    request.body = body.collect().await?.to_bytes();
    request.timeout = REQUEST_TIMEOUT;
    let answer = client.send(request).await?;
    let mut response = http::Response::builder().status(answer.status);
    if let Some(headers) = response.headers_mut() {
        *headers = answer.headers.clone();
    }
    let chunks = futures::stream::unfold(answer, |mut answer: Response| async move {
        match answer.chunk().await {
            Ok(Some(bytes)) => Some((Ok(Frame::data(Bytes::from(bytes))), answer)),
            Ok(None) => None,
            Err(error) => Some((Err(error), answer)),
        }
    });
    Ok(response.body(StreamBody::new(Box::pin(chunks) as Pin<Box<_>>))?)
}
