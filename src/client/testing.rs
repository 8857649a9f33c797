//! Servers on loopback for tests: raw answers, so that they can be hostile.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// What a test server does with a request.
pub(crate) enum Answer {
    /// These bytes, then the next request.
    Bytes(Vec<u8>),
    /// These bytes, then the end of the connection.
    Last(Vec<u8>),
    /// These bytes, then nothing, with the connection open.
    Hang(Vec<u8>),
    /// These bytes again and again.
    Endless(Vec<u8>, Vec<u8>),
}

/// An answer with status 200 and a length.
pub(crate) fn ok(content_type: &str, body: &[u8]) -> Answer {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    Answer::Bytes(bytes)
}

/// A server and what it was asked.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Heads of all requests, and of each connection its number, ascending.
    pub(crate) requests: Arc<Mutex<Vec<(usize, String)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) fn url(&self, path: &str) -> url::Url {
        url::Url::parse(&format!("http://{}{path}", self.address)).expect("valid")
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").iter().map(|(_, head)| head.clone()).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.requests.lock().expect("not poisoned").iter().map(|(c, _)| c + 1).max().unwrap_or(0)
    }
}

/// Answers requests, given head and body as text.
pub(crate) async fn serve(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Server {
    serve_over(answer, |stream| async { Some(stream) }).await
}

/// The same over TLS.
pub(crate) async fn serve_tls(
    config: Arc<Mutex<Arc<rustls::ServerConfig>>>,
    answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
) -> Server {
    serve_over(answer, move |stream: TcpStream| {
        let config = Arc::clone(&config.lock().expect("not poisoned"));
        async move { tokio_rustls::TlsAcceptor::from(config).accept(stream).await.ok() }
    })
    .await
}

/// A Unix socket that leads to a server.
pub(crate) fn socket_to(server: &Server, path: &std::path::Path) {
    let listener = UnixListener::bind(path).expect("a new path");
    let address = server.address;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Ok(mut inner) = TcpStream::connect(address).await else { return };
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
            });
        }
    });
}

async fn serve_over<A, W, F, S>(answer: A, wrap: W) -> Server
where
    A: Fn(&str) -> Answer + Send + Sync + 'static,
    W: Fn(TcpStream) -> F + Send + Sync + 'static,
    F: Future<Output = Option<S>> + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (log, answer, wrap) = (Arc::clone(&requests), Arc::new(answer), Arc::new(wrap));
    let task = tokio::spawn(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (log, answer, wrap) = (Arc::clone(&log), Arc::clone(&answer), Arc::clone(&wrap));
            tokio::spawn(async move {
                let Some(stream) = wrap(stream).await else { return };
                let log = |head: &str| {
                    log.lock().expect("not poisoned").push((number, head.to_owned()));
                };
                let _ = converse(stream, log, &*answer).await;
            });
        }
    });
    Server { address, requests, task }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    log: impl Fn(&str),
    answer: &(dyn Fn(&str) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut received = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&received, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&received[..at]).into_owned();
                let length = head
                    .lines()
                    .filter_map(|l| {
                        l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
                    })
                    .next()
                    .unwrap_or(0);
                if received.len() >= at + 4 + length {
                    break at + 4 + length;
                }
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        };
        let request = String::from_utf8_lossy(&received[..end]).into_owned();
        received.drain(..end);
        log(&request);
        match answer(&request) {
            Answer::Bytes(bytes) => stream.write_all(&bytes).await?,
            Answer::Last(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Answer::Hang(bytes) => {
                stream.write_all(&bytes).await?;
                std::future::pending::<()>().await;
            }
            Answer::Endless(first, again) => {
                stream.write_all(&first).await?;
                loop {
                    stream.write_all(&again).await?;
                }
            }
        }
    }
}

/// A private authority.
pub(crate) struct Authority {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
    params: rcgen::CertificateParams,
}

/// A certificate with its key, PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("ring");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signs");
        Self { certificate, key, params }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn issue(&self, name: &str) -> Issued {
        let key = rcgen::KeyPair::generate().expect("ring");
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("valid");
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).expect("signs").pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    /// A server's configuration; with `clients`, only clients with a
    /// certificate of that authority are let in.
    pub(crate) fn server(
        &self,
        name: &str,
        clients: Option<&Self>,
        h2: bool,
    ) -> rustls::ServerConfig {
        use rustls::pki_types::pem::PemObject as _;
        let issued = self.issue(name);
        let builder = rustls::ServerConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()
            .expect("ring has them");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(authority.certificate.der().clone()).expect("valid");
                let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                    roots.into(),
                    super::provider(),
                );
                builder.with_client_cert_verifier(verifier.build().expect("has roots"))
            }
        };
        let chain =
            rustls::pki_types::CertificateDer::pem_slice_iter(issued.certificate.as_bytes())
                .collect::<Result<_, _>>()
                .expect("PEM");
        let key =
            rustls::pki_types::PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("PEM");
        let mut config = builder.with_single_cert(chain, key).expect("fits");
        if h2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        config
    }
}
