//! Who may connect, and how? `--web.config.file`: TLS and basic
//! authentication as in Prometheus.
//!
//! The file and the certificates are read again when they change, at the next
//! connection. A file that has become wrong keeps the settings before it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine as _;
use ring::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use crate::config::Secret;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebConfigError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not the YAML it should be.
    #[error("{path}: {reason}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Line, column and reason.
        reason: String,
    },
    /// A certificate or key cannot be used.
    #[error("{path}: TLS: {reason}")]
    Tls {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    tls_server_config: Option<RawTls>,
    http_server_config: RawHttp,
    basic_auth_users: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTls {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    cert: Option<String>,
    key: Option<String>,
    client_auth_type: Option<String>,
    client_ca_file: Option<PathBuf>,
    client_ca: Option<String>,
    min_version: Option<String>,
    max_version: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHttp {
    http2: bool,
    headers: BTreeMap<String, String>,
}

impl Default for RawHttp {
    fn default() -> Self {
        Self { http2: true, headers: BTreeMap::new() }
    }
}

/// The settings as they are now.
#[derive(Clone)]
pub struct WebConfig {
    /// TLS, if it is on.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// Added to each answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// User name to bcrypt hash; empty: no authentication.
    users: Arc<BTreeMap<String, Secret>>,
    /// Digests of credentials that were verified: bcrypt is slow on purpose.
    verified: Arc<Mutex<HashMap<String, [u8; 32]>>>,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            tls: None,
            http2: true,
            headers: Vec::new(),
            users: Arc::default(),
            verified: Arc::default(),
        }
    }
}

impl WebConfig {
    /// Reads the file and what it names.
    ///
    /// # Errors
    ///
    /// [`WebConfigError`] with the file and the reason.
    pub fn load(path: &Path) -> Result<Self, WebConfigError> {
        let text = read(path)?;
        let parse_error = |reason: String| WebConfigError::Parse { path: path.to_owned(), reason };
        let raw: Raw = if text.trim().is_empty() {
            Raw::default()
        } else {
            serde_saphyr::from_str(&text).map_err(|e| parse_error(e.to_string()))?
        };
        let directory = path.parent().unwrap_or(Path::new("."));
        let tls = raw
            .tls_server_config
            .map(|tls| server_config(&tls, directory, path, raw.http_server_config.http2))
            .transpose()?;
        let mut headers = Vec::new();
        for (name, value) in raw.http_server_config.headers {
            let wrong = |e: String| parse_error(format!("http_server_config.headers: {name}: {e}"));
            headers.push((
                HeaderName::try_from(&name).map_err(|e| wrong(e.to_string()))?,
                HeaderValue::try_from(&value).map_err(|e| wrong(e.to_string()))?,
            ));
        }
        for (user, hash) in &raw.basic_auth_users {
            if !hash.starts_with("$2") {
                return Err(parse_error(format!("basic_auth_users: {user}: not a bcrypt hash")));
            }
        }
        let users = raw.basic_auth_users.into_iter().map(|(u, h)| (u, Secret::new(h))).collect();
        Ok(Self {
            tls,
            http2: raw.http_server_config.http2,
            headers,
            users: Arc::new(users),
            verified: Arc::default(),
        })
    }

    /// Whether requests must name a user.
    #[must_use]
    pub fn needs_user(&self) -> bool {
        !self.users.is_empty()
    }

    /// Whether the request's credentials are those of a user. Slow the first
    /// time: call it off the runtime if [`WebConfig::knows`] says no.
    #[must_use]
    pub fn verify(&self, headers: &HeaderMap) -> bool {
        let Some((user, password)) = credentials(headers) else { return false };
        // A wrong name takes as long as a wrong password.
        const NOBODY: &str = "$2b$10$AAAAAAAAAAAAAAAAAAAAAOH8ZbZqIVmD3HiNqLHqNFvSk4ZCjNoxi";
        let known = self.users.get(&user);
        let hash = known.map_or(NOBODY, |hash| hash.expose());
        let matches = bcrypt::verify(&password, hash).unwrap_or(false);
        if matches && known.is_some() {
            let digest = self.digest(&user, &password);
            self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(user, digest);
            return true;
        }
        false
    }

    /// Whether the request's credentials were verified before.
    #[must_use]
    pub fn knows(&self, headers: &HeaderMap) -> bool {
        let Some((user, password)) = credentials(headers) else { return false };
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.get(&user).is_some_and(|known| *known == self.digest(&user, &password))
    }

    fn digest(&self, user: &str, password: &str) -> [u8; 32] {
        let hash = self.users.get(user).map_or("", |h| h.expose());
        let text = format!("{}:{user}{}:{password}{hash}", user.len(), password.len());
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        out
    }
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn read(path: &Path) -> Result<String, WebConfigError> {
    std::fs::read_to_string(path)
        .map_err(|source| WebConfigError::Read { path: path.to_owned(), source })
}

fn server_config(
    raw: &RawTls,
    directory: &Path,
    path: &Path,
    http2: bool,
) -> Result<Arc<ServerConfig>, WebConfigError> {
    let wrong = |reason: String| WebConfigError::Tls { path: path.to_owned(), reason };
    let pem = |inline: &Option<String>, file: &Option<PathBuf>, what: &str| match (inline, file) {
        (Some(_), Some(_)) => Err(wrong(format!("{what} and {what}_file exclude each other"))),
        (Some(text), None) => Ok(Some(text.clone())),
        (None, Some(file)) => read(&directory.join(file)).map(Some),
        (None, None) => Ok(None),
    };
    let cert =
        pem(&raw.cert, &raw.cert_file, "cert")?.ok_or_else(|| wrong("missing cert_file".into()))?;
    let key =
        pem(&raw.key, &raw.key_file, "key")?.ok_or_else(|| wrong("missing key_file".into()))?;
    let ca = pem(&raw.client_ca, &raw.client_ca_file, "client_ca")?;
    let certs: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| wrong(format!("certificate: {e}")))?;
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| wrong(format!("key: {e}")))?;
    let versions = versions(raw).map_err(&wrong)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|e| wrong(e.to_string()))?;
    let builder = match raw.client_auth_type.as_deref().unwrap_or("NoClientCert") {
        "" | "NoClientCert" => builder.with_no_client_auth(),
        kind @ ("RequireAndVerifyClientCert" | "VerifyClientCertIfGiven") => {
            let ca =
                ca.ok_or_else(|| wrong(format!("client_auth_type {kind} needs client_ca_file")))?;
            let mut roots = rustls::RootCertStore::empty();
            for cert in CertificateDer::pem_slice_iter(ca.as_bytes()) {
                let cert = cert.map_err(|e| wrong(format!("client_ca: {e}")))?;
                roots.add(cert).map_err(|e| wrong(format!("client_ca: {e}")))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if kind == "VerifyClientCertIfGiven" {
                verifier.allow_unauthenticated()
            } else {
                verifier
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| wrong(e.to_string()))?)
        }
        other => {
            return Err(wrong(format!(
                "client_auth_type {other:?} is not supported; there are NoClientCert, \
                 VerifyClientCertIfGiven and RequireAndVerifyClientCert"
            )));
        }
    };
    let mut config = builder.with_single_cert(certs, key).map_err(|e| wrong(e.to_string()))?;
    config.alpn_protocols =
        if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(Arc::new(config))
}

fn versions(raw: &RawTls) -> Result<Vec<&'static rustls::SupportedProtocolVersion>, String> {
    let number = |text: &Option<String>, default: u8| match text.as_deref() {
        None | Some("") => Ok(default),
        Some("TLS12") => Ok(2),
        Some("TLS13") => Ok(3),
        Some(other) => {
            Err(format!("version {other:?} is not supported; there are TLS12 and TLS13"))
        }
    };
    let (min, max) = (number(&raw.min_version, 2)?, number(&raw.max_version, 3)?);
    if min > max {
        return Err("min_version is above max_version".to_owned());
    }
    let all = [(2, &rustls::version::TLS12), (3, &rustls::version::TLS13)];
    Ok(all.iter().filter(|(n, _)| (min..=max).contains(n)).map(|(_, v)| *v).collect())
}

/// The settings, read again when a file changes.
pub struct WebConfigSource {
    path: Option<PathBuf>,
    state: Mutex<(WebConfig, Vec<Option<SystemTime>>)>,
}

impl WebConfigSource {
    /// Reads the file for the first time; without one there is neither TLS
    /// nor authentication.
    ///
    /// # Errors
    ///
    /// [`WebConfigError`]
    pub fn open(path: Option<PathBuf>) -> Result<Self, WebConfigError> {
        let config = path.as_deref().map(WebConfig::load).transpose()?.unwrap_or_default();
        let stamps = stamps(path.as_deref());
        Ok(Self { path, state: Mutex::new((config, stamps)) })
    }

    /// The settings as of now. Looks at the files' times of change.
    pub fn current(&self) -> WebConfig {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &self.path else { return state.0.clone() };
        let now = stamps(Some(path));
        if now != state.1 {
            match WebConfig::load(path) {
                Ok(config) => state.0 = config,
                Err(error) => tracing::error!(%error, "web configuration not reloaded"),
            }
            state.1 = now;
        }
        state.0.clone()
    }
}

/// Times of change of the file and of the files it may name beside it.
fn stamps(path: Option<&Path>) -> Vec<Option<SystemTime>> {
    let Some(path) = path else { return Vec::new() };
    let mut files = vec![path.to_owned()];
    if let Ok(text) = std::fs::read_to_string(path)
        && let Ok(Raw { tls_server_config: Some(tls), .. }) = serde_saphyr::from_str::<Raw>(&text)
    {
        let directory = path.parent().unwrap_or(Path::new("."));
        let named = [tls.cert_file, tls.key_file, tls.client_ca_file];
        files.extend(named.into_iter().flatten().map(|file| directory.join(file)));
    }
    files.iter().map(|file| std::fs::metadata(file).and_then(|m| m.modified()).ok()).collect()
}
