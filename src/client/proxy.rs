//! Which proxy, if any, a request goes through.

use std::net::IpAddr;

use url::{Host, Url};

use super::ClientError;
use crate::config::ProxyConfig;

/// `proxy_url`, `proxy_from_environment` and `no_proxy`, resolved.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    /// Who is reached without a proxy; `None` is nobody, not even localhost.
    except: Option<Exceptions>,
    pub(super) connect_headers: Vec<(String, String)>,
}

impl Proxies {
    pub(super) fn new(config: &ProxyConfig) -> Result<Self, ClientError> {
        let connect_headers = config
            .connect_headers
            .iter()
            .flat_map(|(name, values)| {
                values.iter().map(move |v| (name.clone(), v.expose().to_owned()))
            })
            .collect();
        if config.from_environment {
            let variable = |upper: &str| {
                std::env::var(upper)
                    .or_else(|_| std::env::var(upper.to_lowercase()))
                    .ok()
                    .filter(|v| !v.is_empty())
            };
            let url = |upper: &str| variable(upper).map(|v| parse(&v)).transpose();
            return Ok(Self {
                http: url("HTTP_PROXY")?,
                https: url("HTTPS_PROXY")?,
                except: Some(Exceptions::new(&variable("NO_PROXY").unwrap_or_default())),
                connect_headers,
            });
        }
        let Some(url) = &config.url else { return Ok(Self::default()) };
        let url = parse(url.expose())?;
        let except = (!config.no_proxy.is_empty()).then(|| Exceptions::new(&config.no_proxy));
        Ok(Self { http: Some(url.clone()), https: Some(url), except, connect_headers })
    }

    /// The proxy for a URL; `None` is a direct connection.
    pub(super) fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| self.except.as_ref().is_none_or(|e| !e.contains(url)))
    }
}

/// A proxy's URL; without a scheme it is an http proxy.
fn parse(text: &str) -> Result<Url, ClientError> {
    let url = match Url::parse(text) {
        Ok(url) if url.has_host() => Ok(url),
        _ => Url::parse(&format!("http://{text}")),
    };
    let url = url.map_err(|_| ClientError::Proxy("the proxy's URL is not valid".to_owned()))?;
    if !matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h") {
        return Err(ClientError::Proxy(format!("unsupported scheme {:?}", url.scheme())));
    }
    Ok(url)
}

/// `no_proxy`, as Go's httpproxy reads it: `*`, networks, addresses and
/// domains, each but the first two with an optional port. Localhost and
/// loopback addresses are always among them.
#[derive(Debug, Default)]
struct Exceptions {
    all: bool,
    networks: Vec<(IpAddr, u8)>,
    addresses: Vec<(IpAddr, Option<u16>)>,
    /// `.example.com`; `true` if `example.com` itself is meant, too.
    domains: Vec<(String, bool, Option<u16>)>,
}

impl Exceptions {
    fn new(text: &str) -> Self {
        let mut out = Self::default();
        for entry in text.split(',') {
            let entry = entry.trim().to_lowercase();
            if entry.is_empty() {
                continue;
            }
            if entry == "*" {
                out.all = true;
                continue;
            }
            if let Some((address, bits)) = entry.split_once('/')
                && let (Ok(address), Ok(bits)) = (address.parse(), bits.parse())
            {
                out.networks.push((address, bits));
                continue;
            }
            if let Ok(address) = entry.trim_matches(['[', ']']).parse() {
                out.addresses.push((address, None));
                continue;
            }
            let (host, port) = match entry.rsplit_once(':') {
                Some((host, port)) => match port.parse() {
                    Ok(port) => (host, Some(port)),
                    Err(_) => continue,
                },
                None => (entry.as_str(), None),
            };
            if let Ok(address) = host.trim_matches(['[', ']']).parse() {
                out.addresses.push((address, port));
            } else if let Some(domain) = host.strip_prefix("*.") {
                out.domains.push((format!(".{domain}"), false, port));
            } else if host.starts_with('.') {
                out.domains.push((host.to_owned(), false, port));
            } else if !host.is_empty() {
                out.domains.push((format!(".{host}"), true, port));
            }
        }
        out
    }

    fn contains(&self, url: &Url) -> bool {
        if self.all {
            return true;
        }
        let port = url.port_or_known_default();
        let port_fits = |wanted: &Option<u16>| wanted.is_none() || *wanted == port;
        let address = match url.host() {
            Some(Host::Ipv4(a)) => IpAddr::V4(a),
            Some(Host::Ipv6(a)) => IpAddr::V6(a),
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.').to_lowercase();
                return name == "localhost"
                    || self.domains.iter().any(|(suffix, itself, wanted)| {
                        port_fits(wanted)
                            && (name.ends_with(suffix.as_str())
                                || *itself && suffix.get(1..) == Some(name.as_str()))
                    });
            }
            None => return true,
        };
        address.is_loopback()
            || self.addresses.iter().any(|(a, wanted)| *a == address && port_fits(wanted))
            || self.networks.iter().any(|(network, bits)| within(address, *network, *bits))
    }
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |a: u128, n: u128, width: u8| {
        bits <= width && (bits == 0 || (a ^ n) >> (u32::from(width) - u32::from(bits)) == 0)
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => same(a.to_bits().into(), n.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => same(a.to_bits(), n.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_those_of_go() {
        let except =
            Exceptions::new("10.0.0.0/8, 192.0.2.1:80,example.com,.sub.org,*.star.org,h:9");
        let contains = |url: &str| except.contains(&Url::parse(url).expect("url"));
        for url in [
            "http://localhost",
            "http://127.0.0.9",
            "http://[::1]/",
            "http://10.255.0.1",
            "http://192.0.2.1",
            "http://example.com",
            "http://a.example.com",
            "http://x.sub.org",
            "http://x.star.org",
            "http://h:9",
        ] {
            assert!(contains(url), "{url}");
        }
        for url in [
            "http://11.0.0.1",
            "http://192.0.2.1:81",
            "http://notexample.com",
            "http://sub.org",
            "http://star.org",
            "http://h:8",
        ] {
            assert!(!contains(url), "{url}");
        }
    }

    #[test]
    fn a_proxy_url_alone_serves_localhost_too() {
        let config = ProxyConfig {
            url: Some(crate::config::Secret::new("proxy:3128".to_owned())),
            ..ProxyConfig::default()
        };
        let proxies = Proxies::new(&config).expect("valid");
        let url = Url::parse("http://localhost/").expect("url");
        assert_eq!(proxies.of(&url).map(Url::as_str), Some("http://proxy:3128/"));
    }
}
