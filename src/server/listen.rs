//! How do connections come in? Sockets, TLS, limits, and an orderly end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::web_config::{WebConfig, WebConfigSource};

/// How long a client may take for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long open requests may go on after the stop.
const GRACE: Duration = Duration::from_secs(10);

/// Pause after an accept that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on all `listeners` until `stop`, then lets open requests
/// finish.
pub async fn serve(
    listeners: Vec<TcpListener>,
    router: Router,
    web: Arc<WebConfigSource>,
    max_connections: usize,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(max_connections));
    let accepting = listeners.into_iter().map(|listener| {
        let task =
            accept(listener, router.clone(), Arc::clone(&web), Arc::clone(&slots), stop.clone());
        tokio::spawn(task)
    });
    for task in accepting.collect::<Vec<_>>() {
        if let Err(error) = task.await {
            tracing::error!(%error, "listener ended");
        }
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    web: Arc<WebConfigSource>,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let (stream, peer, slot) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (listener.accept().await, slot)
            } => match accepted {
                (Ok((stream, peer)), Ok(slot)) => (stream, peer, slot),
                (Err(error), _) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
                (_, Err(_)) => break,
            },
        };
        let (router, web, watcher) = (router.clone(), web.current(), graceful.watcher());
        connections.spawn(async move {
            connection(stream, peer, router, web, watcher).await;
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    let finish = async {
        graceful.shutdown().await;
        connections.wait().await;
    };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        tracing::warn!("requests still open at the stop were cut off");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    web: WebConfig,
    watcher: Watcher,
) {
    let _ = stream.set_nodelay(true);
    match web.tls.clone() {
        None => requests(TokioIo::new(stream), peer, router, web, watcher).await,
        Some(tls) => {
            let handshake = tokio_rustls::TlsAcceptor::from(tls).accept(stream);
            match tokio::time::timeout(HEADER_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => {
                    requests(TokioIo::new(stream), peer, router, web, watcher).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
                Err(_) => tracing::debug!("TLS handshake took too long"),
            }
        }
    }
}

async fn requests<S>(
    io: TokioIo<S>,
    peer: SocketAddr,
    router: Router,
    web: WebConfig,
    watcher: Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let http2 = web.http2;
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let (router, web) = (router.clone(), web.clone());
        async move { Ok::<_, Infallible>(answer(router, web, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(200);
    let builder = if http2 { builder } else { builder.http1_only() };
    let watched = watcher.watch(builder.serve_connection(io, service).into_owned());
    if let Err(error) = watched.await {
        tracing::debug!(%error, "connection");
    }
}

async fn answer(router: Router, web: WebConfig, request: Request<Incoming>) -> Response<Body> {
    if web.needs_user() && !web.knows(request.headers()) {
        let (config, headers) = (web.clone(), request.headers().clone());
        let verified = tokio::task::spawn_blocking(move || config.verify(&headers)).await;
        if !verified.unwrap_or(false) {
            let basic = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"))];
            return (StatusCode::UNAUTHORIZED, basic, "Unauthorized\n").into_response();
        }
    }
    let mut response = match router.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    for (name, value) in &web.headers {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response
}

/// Binds all addresses; `:9090` means every interface.
///
/// # Errors
///
/// The address and what the system said.
pub async fn bind(addresses: &[String]) -> Result<Vec<TcpListener>, (String, std::io::Error)> {
    let mut listeners = Vec::new();
    for address in addresses {
        let full =
            if address.starts_with(':') { format!("[::]{address}") } else { address.clone() };
        let bound = match TcpListener::bind(&full).await {
            // A machine without IPv6.
            Err(_) if address.starts_with(':') => {
                TcpListener::bind(format!("0.0.0.0{address}")).await
            }
            other => other,
        };
        listeners.push(bound.map_err(|e| (address.clone(), e))?);
    }
    Ok(listeners)
}

/// The first address that listeners are bound to.
#[must_use]
pub fn first_address(listeners: &[TcpListener]) -> Option<SocketAddr> {
    listeners.first().and_then(|l| l.local_addr().ok())
}
