//! From a URL to an open connection, through a proxy and TLS if need be.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use url::{Host, Url};

use super::h1::{Connection, Io};
use super::tls::TlsSource;
use super::{ClientError, proxy::Proxies};

/// An address that does not answer may cost this much when there is another.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_secs(2);

/// An open connection and what was agreed on.
pub(super) struct Opened {
    pub(super) io: Box<dyn Io>,
    /// The other side chose HTTP/2.
    pub(super) http2: bool,
    /// Requests name the whole URL, as an http proxy wants it.
    pub(super) absolute_form: bool,
}

/// Opens a connection for requests to `url`, over a Unix socket if one is given.
pub(super) async fn open(
    url: &Url,
    socket: Option<&Path>,
    proxies: &Proxies,
    tls: &TlsSource,
    tls_now: Option<Arc<rustls::ClientConfig>>,
) -> Result<Opened, ClientError> {
    let (host, port) = host_port(url)?;
    let io: Box<dyn Io> = match (socket, proxies.of(url)) {
        (Some(path), _) => Box::new(dial_socket(path).await?),
        (None, None) => Box::new(dial(&host, port).await?),
        (None, Some(proxy)) => {
            let (proxy_host, proxy_port) = host_port(proxy)?;
            let stream = dial(&proxy_host, proxy_port).await?;
            if proxy.scheme().starts_with("socks5") {
                Box::new(socks5(stream, proxy, &host, port).await?)
            } else {
                let io: Box<dyn Io> = if proxy.scheme() == "https" {
                    let (config, _) = tls.current()?;
                    let mut config = (*config).clone();
                    config.alpn_protocols.clear();
                    handshake(Box::new(stream), Arc::new(config), proxy_name(&proxy_host)?).await?.0
                } else {
                    Box::new(stream)
                };
                if url.scheme() == "http" {
                    return Ok(Opened { io, http2: false, absolute_form: true });
                }
                tunnel(io, proxy, proxies, &host, port).await?
            }
        }
    };
    let Some(config) = tls_now else {
        return Ok(Opened { io, http2: false, absolute_form: false });
    };
    let (io, http2) = handshake(io, config, tls.server_name(&host)?).await?;
    Ok(Opened { io, http2, absolute_form: false })
}

fn proxy_name(host: &str) -> Result<rustls::pki_types::ServerName<'static>, ClientError> {
    rustls::pki_types::ServerName::try_from(host.to_owned())
        .map_err(|e| ClientError::Proxy(e.to_string()))
}

/// Host without brackets, and port.
fn host_port(url: &Url) -> Result<(String, u16), ClientError> {
    let bad = || ClientError::Url(url.host_str().unwrap_or_default().to_owned());
    let host = match url.host().ok_or_else(bad)? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(a) => a.to_string(),
        Host::Ipv6(a) => a.to_string(),
    };
    let port =
        url.port_or_known_default().or_else(|| url.scheme().starts_with("socks5").then_some(1080));
    Ok((host, port.ok_or_else(bad)?))
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, ClientError> {
    let addresses: Vec<SocketAddr> = match host.parse() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => tokio::net::lookup_host((host, port))
            .await
            .map_err(|source| ClientError::Lookup { host: host.to_owned(), source })?
            .collect(),
    };
    let mut failed = ClientError::Lookup {
        host: host.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::NotFound, "no such host"),
    };
    let last = addresses.len().saturating_sub(1);
    for (i, address) in addresses.into_iter().enumerate() {
        let connecting = TcpStream::connect(address);
        let connected = if i < last {
            tokio::time::timeout(NEXT_ADDRESS_AFTER, connecting)
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        } else {
            connecting.await
        };
        match connected {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(source) => failed = ClientError::Dial { address: address.to_string(), source },
        }
    }
    Err(failed)
}

async fn dial_socket(path: &Path) -> Result<UnixStream, ClientError> {
    UnixStream::connect(path)
        .await
        .map_err(|source| ClientError::DialSocket { path: path.to_owned(), source })
}

async fn handshake(
    io: Box<dyn Io>,
    config: Arc<rustls::ClientConfig>,
    name: rustls::pki_types::ServerName<'static>,
) -> Result<(Box<dyn Io>, bool), ClientError> {
    let stream = tokio_rustls::TlsConnector::from(config)
        .connect(name, io)
        .await
        .map_err(|e| ClientError::Tls(e.to_string()))?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Box::new(stream), http2))
}

/// `user:password` of a URL as the value of an authorization header.
pub(super) fn basic_of(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decode = |s: &str| percent_encoding::percent_decode_str(s).decode_utf8_lossy().into_owned();
    let pair = format!("{}:{}", decode(url.username()), decode(url.password().unwrap_or_default()));
    Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
}

/// `CONNECT`: a tunnel through an http proxy.
async fn tunnel(
    io: Box<dyn Io>,
    proxy: &Url,
    proxies: &Proxies,
    host: &str,
    port: u16,
) -> Result<Box<dyn Io>, ClientError> {
    let authority =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(credentials) = basic_of(proxy) {
        request.push_str(&format!("Proxy-Authorization: {credentials}\r\n"));
    }
    for (name, value) in &proxies.connect_headers {
        if name.contains(['\r', '\n', ':']) || value.contains(['\r', '\n']) {
            return Err(ClientError::Header(name.clone()));
        }
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let mut connection = Connection::new(io);
    let head = connection
        .exchange(request.as_bytes(), true)
        .await
        .map_err(|e| ClientError::Proxy(e.to_string()))?;
    if !head.status.is_success() {
        return Err(ClientError::Proxy(head.status.to_string()));
    }
    Ok(connection.into_io())
}

/// RFC 1928 and 1929; names are resolved by the proxy.
async fn socks5(
    mut stream: TcpStream,
    proxy: &Url,
    host: &str,
    port: u16,
) -> Result<TcpStream, ClientError> {
    let refused = |what: &str| ClientError::Proxy(format!("socks5: {what}"));
    let login = !proxy.username().is_empty();
    stream.write_all(if login { &[5, 2, 0, 2] } else { &[5, 1, 0] }).await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    match answer {
        [5, 0] => {}
        [5, 2] if login => {
            let decode = |s: &str| percent_encoding::percent_decode_str(s).collect::<Vec<u8>>();
            let (user, password) =
                (decode(proxy.username()), decode(proxy.password().unwrap_or_default()));
            let length = |b: &[u8]| u8::try_from(b.len()).map_err(|_| refused("login is too long"));
            let mut message = vec![1, length(&user)?];
            message.extend(&user);
            message.push(length(&password)?);
            message.extend(&password);
            stream.write_all(&message).await?;
            stream.read_exact(&mut answer).await?;
            if answer[1] != 0 {
                return Err(refused("login failed"));
            }
        }
        _ => return Err(refused("no common authentication")),
    }
    let mut message = vec![5, 1, 0];
    match host.parse() {
        Ok(std::net::IpAddr::V4(a)) => {
            message.push(1);
            message.extend(a.octets());
        }
        Ok(std::net::IpAddr::V6(a)) => {
            message.push(4);
            message.extend(a.octets());
        }
        Err(_) => {
            message.push(3);
            message.push(u8::try_from(host.len()).map_err(|_| refused("name is too long"))?);
            message.extend(host.as_bytes());
        }
    }
    message.extend(port.to_be_bytes());
    stream.write_all(&message).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    if head[1] != 0 {
        return Err(refused(&format!("the proxy answered with code {}", head[1])));
    }
    let rest = match head[3] {
        1 => 4 + 2,
        4 => 16 + 2,
        3 => usize::from(stream.read_u8().await?) + 2,
        _ => return Err(refused("unknown type of address")),
    };
    let mut bound = vec![0; rest];
    stream.read_exact(&mut bound).await?;
    Ok(stream)
}
