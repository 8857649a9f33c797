//! What can go wrong between a request and the end of its answer.

use std::path::PathBuf;

/// Why a request failed, or a client cannot be built.
///
/// Texts follow Go's where Prometheus shows them to operators; none contains
/// a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A file that the configuration names cannot be read.
    #[error("unable to read file {file}: {source}", file = .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Certificates, keys or versions that cannot be used, or a handshake that failed.
    #[error("tls: {0}")]
    Tls(String),
    /// The URL has no host, or another scheme than http and https.
    #[error("unsupported URL {0:?}")]
    Url(String),
    /// A header's name or value is not allowed.
    #[error("invalid header {0:?}")]
    Header(String),
    /// The host name has no address.
    #[error("dial tcp: lookup {host}: {source}")]
    Lookup {
        /// The host.
        host: String,
        /// What the resolver said.
        #[source]
        source: std::io::Error,
    },
    /// No connection could be made.
    #[error("dial tcp {address}: {}", go_connect_error(.source))]
    Dial {
        /// The address that was tried last.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// There is no such socket, or nobody listens.
    #[error("dial unix {path}: {}", go_connect_error(.source), path = .path.display())]
    DialSocket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The proxy refused, or its URL cannot be used.
    #[error("proxyconnect tcp: {0}")]
    Proxy(String),
    /// The connection broke.
    #[error("{}", go_io_error(.0))]
    Io(#[from] std::io::Error),
    /// The server does not speak HTTP.
    #[error("malformed HTTP response: {0}")]
    Protocol(&'static str),
    /// HTTP/2 failed.
    #[error("http2: {0}")]
    Http2(String),
    /// The answer was not complete in time.
    #[error("context deadline exceeded")]
    Timeout,
    /// The body has `limit` bytes or more.
    #[error("body size limit exceeded")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// More than ten redirects, or one without a usable location.
    #[error("{0}")]
    Redirect(String),
    /// The token endpoint did not give a token.
    #[error("oauth2: {0}")]
    OAuth2(String),
}

fn go_connect_error(error: &std::io::Error) -> String {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::ConnectionRefused => "connect: connection refused".to_owned(),
        K::HostUnreachable => "connect: no route to host".to_owned(),
        K::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        K::NotFound => "connect: no such file or directory".to_owned(),
        K::PermissionDenied => "connect: permission denied".to_owned(),
        K::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

fn go_io_error(error: &std::io::Error) -> String {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::UnexpectedEof => "unexpected EOF".to_owned(),
        K::ConnectionReset => "read: connection reset by peer".to_owned(),
        K::BrokenPipe => "write: broken pipe".to_owned(),
        _ => error.to_string(),
    }
}
