//! `tls_config` as a rustls configuration that follows its files.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::ClientError;
use super::secret_file::{self, Stamp};
use crate::config::{SecretSource, TlsConfig, TlsVersion};

/// The one cryptography provider of the process.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

/// Makes [`provider`] the default of libraries that ask rustls for one.
/// Call it before anything else speaks TLS; later calls do nothing.
pub fn install_provider() {
    let _ = rustls::crypto::CryptoProvider::install_default((*provider()).clone());
}

/// The rustls configuration of a `tls_config`, built again when one of its
/// files changes.
#[derive(Debug)]
pub(super) struct TlsSource {
    config: TlsConfig,
    http2: bool,
    files: Vec<PathBuf>,
    built: Mutex<Option<Built>>,
}

#[derive(Debug)]
struct Built {
    stamp: Stamp,
    texts: Texts,
    tls: Arc<rustls::ClientConfig>,
    generation: u64,
}

/// What was read: certificates of authorities, own certificate, own key.
#[derive(Debug, PartialEq, Eq)]
struct Texts([Option<crate::config::Secret>; 3]);

impl TlsSource {
    pub(super) fn new(config: &TlsConfig, http2: bool) -> Self {
        let sources = [&config.ca, &config.cert, &config.key];
        let files = sources.into_iter().flatten().filter_map(|s| match s {
            SecretSource::File(file) => Some(file.clone()),
            SecretSource::Inline(_) => None,
        });
        Self { config: config.clone(), http2, files: files.collect(), built: Mutex::default() }
    }

    /// The configuration and its generation: connections of another
    /// generation were made with other certificates. Touches the files'
    /// metadata; reads them only if that changed.
    pub(super) fn current(&self) -> Result<(Arc<rustls::ClientConfig>, u64), ClientError> {
        let stamp = Stamp::of(&self.files);
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(b) = built.as_ref()
            && b.stamp == stamp
        {
            return Ok((Arc::clone(&b.tls), b.generation));
        }
        let texts = self.read()?;
        let generation = match built.as_mut() {
            Some(b) if b.texts == texts => {
                b.stamp = stamp;
                return Ok((Arc::clone(&b.tls), b.generation));
            }
            Some(b) => b.generation + 1,
            None => 0,
        };
        let tls = Arc::new(build(&self.config, &texts, self.http2)?);
        *built = Some(Built { stamp, texts, tls: Arc::clone(&tls), generation });
        Ok((tls, generation))
    }

    fn read(&self) -> Result<Texts, ClientError> {
        let text = |source: &Option<SecretSource>| -> Result<_, ClientError> {
            Ok(match source {
                Some(SecretSource::Inline(secret)) => Some(secret.clone()),
                Some(SecretSource::File(f)) => {
                    Some(crate::config::Secret::new(secret_file::read(f)?))
                }
                None => None,
            })
        };
        Ok(Texts([text(&self.config.ca)?, text(&self.config.cert)?, text(&self.config.key)?]))
    }

    /// The name that the server has to prove.
    pub(super) fn server_name(&self, host: &str) -> Result<ServerName<'static>, ClientError> {
        let name = self.config.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned())
            .map_err(|e| ClientError::Tls(format!("server name {name:?}: {e}")))
    }
}

fn build(
    config: &TlsConfig,
    texts: &Texts,
    http2: bool,
) -> Result<rustls::ClientConfig, ClientError> {
    let tls = |e: rustls::Error| ClientError::Tls(e.to_string());
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions(config)?)
        .map_err(tls)?;
    let Texts([ca, cert, key]) = texts;
    let builder = if config.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(VerifyNothing(provider())))
    } else {
        let roots = match ca {
            Some(pem) => Arc::new(roots_of(pem.expose())?),
            None => system_roots(),
        };
        builder.with_root_certificates(roots)
    };
    let mut built = match (cert, key) {
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(cert.expose().as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| ClientError::Tls(format!("client certificate: {e}")))?;
            let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
                .map_err(|e| ClientError::Tls(format!("client key: {e}")))?;
            builder.with_client_auth_cert(chain, key).map_err(tls)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => {
            return Err(ClientError::Tls("certificate and key are only used together".to_owned()));
        }
    };
    if http2 {
        built.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(built)
}

fn versions(
    config: &TlsConfig,
) -> Result<Vec<&'static rustls::SupportedProtocolVersion>, ClientError> {
    let lowest = config.min_version.unwrap_or(TlsVersion::Tls12);
    let highest = config.max_version.unwrap_or(TlsVersion::Tls13);
    let all = [
        (TlsVersion::Tls13, &rustls::version::TLS13),
        (TlsVersion::Tls12, &rustls::version::TLS12),
    ];
    let chosen: Vec<_> =
        all.into_iter().filter(|(v, _)| (lowest..=highest).contains(v)).map(|(_, v)| v).collect();
    if chosen.is_empty() {
        return Err(ClientError::Tls("min_version is above max_version".to_owned()));
    }
    Ok(chosen)
}

fn roots_of(pem: &str) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| ClientError::Tls(format!("CA: {e}")))?;
        roots.add(certificate).map_err(|e| ClientError::Tls(format!("CA: {e}")))?;
    }
    if roots.is_empty() {
        return Err(ClientError::Tls("CA: no certificate found".to_owned()));
    }
    Ok(roots)
}

/// The system's authorities, read once; unreadable ones are left out.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    Arc::clone(ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (_, ignored) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(kept = roots.len(), ignored, "read the system's certificate authorities");
        Arc::new(roots)
    }))
}

/// `insecure_skip_verify`.
#[derive(Debug)]
struct VerifyNothing(Arc<CryptoProvider>);

impl ServerCertVerifier for VerifyNothing {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
