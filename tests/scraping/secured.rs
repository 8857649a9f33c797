//! A TLS server that lets in clients of one authority only, and shows on its
//! page what it was sent.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A private authority.
pub struct Authority {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
    params: rcgen::CertificateParams,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signs");
        Self { certificate, key, params }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Certificate and key for a name, PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("valid");
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).expect("signs").pem();
        (certificate, key.serialize_pem())
    }
}

/// Serves on loopback with a certificate for `name`.
pub fn serve(own: &Authority, name: &str, clients: &Authority) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(clients.certificate.der().clone()).expect("valid");
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        roots.into(),
        Arc::clone(&provider),
    );
    let (certificate, key) = own.issue(name);
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_client_cert_verifier(verifier.build().expect("has roots"))
        .with_single_cert(
            chain.collect::<Result<_, _>>().expect("PEM"),
            PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"),
        )
        .expect("key and certificate fit");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || {
                let connection = rustls::ServerConnection::new(config).expect("a connection");
                let _ = show(rustls::StreamOwned::new(connection, stream));
            });
        }
    });
    address
}

/// A proxy for plain requests: it answers itself and shows the URL.
pub fn proxy() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = show(stream);
            });
        }
    });
    address
}

/// Answers requests with a page that shows each one's target and credentials.
fn show(stream: impl Read + Write) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut target, mut authorization) = (String::new(), String::new());
        for n in 0.. {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if n == 0 {
                target = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            let line = line.trim_end();
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("authorization")
            {
                authorization = value.trim().to_owned();
            }
            if line.is_empty() {
                break;
            }
        }
        let page = format!("seen{{target=\"{target}\",authorization=\"{authorization}\"}} 1\n");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
        let answer = format!("{head}Content-Length: {}\r\n\r\n{page}", page.len());
        reader.get_mut().write_all(answer.as_bytes())?;
        reader.get_mut().flush()?;
    }
}
