//! How is the API server reached? In-cluster, by kubeconfig, or by URL with
//! the HTTP options of the configuration.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::client::{ClientError, HttpClient, Request, Response, parse_url};
use crate::config::HttpClientConfig;

/// Longer than any watch that we ask for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(900);

/// Why the API server cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The process does not run in a cluster.
    #[error("in-cluster configuration: {0}")]
    InCluster(#[source] kube::config::InClusterError),
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
    let config = match (api_server, kubeconfig) {
        (Some(url), _) => return by_url(url, http),
        (None, Some(path)) => {
            let wrong =
                |source| ConnectError::Kubeconfig { path: path.display().to_string(), source };
            let file = Kubeconfig::read_from(path).map_err(wrong)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(wrong)?
        }
        (None, None) => kube::Config::incluster().map_err(ConnectError::InCluster)?,
    };
    crate::client::install_provider();
    kube::Client::try_from(config).map_err(|e| ConnectError::Kube(Box::new(e)))
}

fn by_url(url: &str, http: &HttpClientConfig) -> Result<kube::Client, ConnectError> {
    let base = parse_url(url)?;
    let client = HttpClient::new(http)?;
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
    let request = Request {
        headers: parts.headers,
        body: body.collect().await?.to_bytes(),
        timeout: REQUEST_TIMEOUT,
        ..Request::new(parts.method, url)
    };
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
