//! `basic_auth`, `tls_config`, `proxy_url`, ...: how a server is talked to.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::section::{Field, Section};
use super::{
    Authorization, BasicAuth, HeaderConfig, HttpClientConfig, OAuth2, ProxyConfig, Secret,
    SecretSource, TlsConfig, TlsVersion,
};

/// Headers that narthex sets itself, or that other fields set.
const RESERVED_HEADERS: [&str; 18] = [
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-prometheus-scrape-timeout-seconds",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

const NO_SECRET_MANAGER: &str = "narthex has no secret manager; use the field that names a file";

/// Takes the HTTP client options out of a section that has others, too.
pub fn http_client(section: &mut Section<'_>) -> Result<HttpClientConfig, ConfigError> {
    let defaults = HttpClientConfig::default();
    let http = HttpClientConfig {
        basic_auth: section.get("basic_auth", basic_auth)?,
        authorization: authorization_or_bearer(section)?,
        oauth2: section.get("oauth2", oauth2)?.map(Box::new),
        tls: section.get("tls_config", tls)?.unwrap_or_default(),
        follow_redirects: section.bool_or("follow_redirects", defaults.follow_redirects)?,
        enable_http2: section.bool_or("enable_http2", defaults.enable_http2)?,
        proxy: proxy(section)?,
        headers: section.get("http_headers", headers)?.unwrap_or_default(),
    };
    let given = [
        (http.basic_auth.is_some(), "basic_auth"),
        (http.authorization.is_some(), "authorization"),
        (http.oauth2.is_some(), "oauth2"),
    ];
    let mut given = given.iter().filter(|(is_given, _)| *is_given);
    if let (Some((_, first)), Some((_, second))) = (given.next(), given.next()) {
        let message = format!(
            "at most one of basic_auth, authorization (or bearer_token) and oauth2 may be given, \
             found {first} and {second}"
        );
        return Err(section.field_error(second, message));
    }
    Ok(http)
}

/// Takes `name` or `name_file`.
fn secret(section: &mut Section<'_>, name: &str) -> Result<Option<SecretSource>, ConfigError> {
    let file_name = format!("{name}_file");
    section.refuse(&format!("{name}_ref"), NO_SECRET_MANAGER)?;
    match (section.text(name)?, section.path(&file_name)?) {
        (Some(_), Some(_)) => Err(section.field_error(
            &file_name,
            format!("at most one of {name} and {name}_file may be given"),
        )),
        (Some(text), None) => Ok(Some(SecretSource::Inline(Secret::new(text)))),
        (None, Some(path)) => Ok(Some(SecretSource::File(path))),
        (None, None) => Ok(None),
    }
}

fn basic_auth(field: &Field<'_>) -> Result<BasicAuth, ConfigError> {
    let mut section = field.section()?;
    let none = SecretSource::Inline(Secret::default());
    let username = secret(&mut section, "username")?.unwrap_or(none);
    let password = secret(&mut section, "password")?;
    section.finish()?;
    Ok(BasicAuth { username, password })
}

fn authorization_or_bearer(
    section: &mut Section<'_>,
) -> Result<Option<Authorization>, ConfigError> {
    let old = secret(section, "bearer_token")?;
    let new = section.get("authorization", authorization)?;
    match (new, old) {
        (Some(_), Some(_)) => {
            let message = "authorization and bearer_token(_file) exclude each other";
            Err(section.field_error("authorization", message))
        }
        (Some(new), None) => Ok(Some(new)),
        (None, old) => Ok(old.map(|credentials| Authorization {
            scheme: "Bearer".to_owned(),
            credentials: Some(credentials),
        })),
    }
}

fn authorization(field: &Field<'_>) -> Result<Authorization, ConfigError> {
    let mut section = field.section()?;
    let scheme = section.text("type")?.unwrap_or_default().trim().to_owned();
    if scheme.eq_ignore_ascii_case("basic") {
        return Err(section.field_error("type", "use basic_auth for the type Basic"));
    }
    let credentials = secret(&mut section, "credentials")?;
    section.finish()?;
    let scheme = if scheme.is_empty() { "Bearer".to_owned() } else { scheme };
    Ok(Authorization { scheme, credentials })
}

fn oauth2(field: &Field<'_>) -> Result<OAuth2, ConfigError> {
    let mut section = field.section()?;
    for name in [
        "client_certificate_key_id",
        "client_certificate_key",
        "client_certificate_key_file",
        "client_certificate_key_ref",
        "signature_algorithm",
        "iss",
        "audience",
        "claims",
    ] {
        section
            .refuse(name, "not supported yet: narthex knows the grant client_credentials only")?;
    }
    if let Some(grant) = section.text("grant_type")?
        && grant != "client_credentials"
    {
        let message = "not supported yet: narthex knows the grant client_credentials only";
        return Err(section.field_error("grant_type", message));
    }
    let missing = |section: &Section<'_>, name| section.error(format!("{name} is missing"));
    let client_id = section.text("client_id")?.ok_or_else(|| missing(&section, "client_id"))?;
    let token_url = section.text("token_url")?.ok_or_else(|| missing(&section, "token_url"))?;
    http_url(&token_url).map_err(|message| section.field_error("token_url", message))?;
    let config = OAuth2 {
        client_id,
        client_secret: secret(&mut section, "client_secret")?,
        token_url,
        scopes: section.get("scopes", Field::texts)?.unwrap_or_default(),
        endpoint_params: section.get("endpoint_params", Field::text_map)?.unwrap_or_default(),
        tls: section.get("tls_config", tls)?.unwrap_or_default(),
        proxy: proxy(&mut section)?,
    };
    section.finish()?;
    Ok(config)
}

/// Reads a `tls_config`.
pub fn tls(field: &Field<'_>) -> Result<TlsConfig, ConfigError> {
    let mut section = field.section()?;
    let config = TlsConfig {
        ca: secret(&mut section, "ca")?,
        cert: secret(&mut section, "cert")?,
        key: secret(&mut section, "key")?,
        server_name: section.text("server_name")?,
        insecure_skip_verify: section.bool_or("insecure_skip_verify", false)?,
        min_version: section.get("min_version", tls_version)?,
        max_version: section.get("max_version", tls_version)?,
    };
    if config.cert.is_some() != config.key.is_some() {
        let missing = if config.cert.is_some() { "key" } else { "cert" };
        let message = format!("cert and key go together: {missing} or {missing}_file is missing");
        return Err(section.error(message));
    }
    if let (Some(min), Some(max)) = (config.min_version, config.max_version)
        && min > max
    {
        return Err(section.field_error("max_version", "is below min_version"));
    }
    section.finish()?;
    Ok(config)
}

fn tls_version(field: &Field<'_>) -> Result<TlsVersion, ConfigError> {
    match field.text()?.as_str() {
        "TLS12" => Ok(TlsVersion::Tls12),
        "TLS13" => Ok(TlsVersion::Tls13),
        old @ ("TLS10" | "TLS11") => {
            Err(field.error(format!("narthex does not speak {old}; TLS12 and TLS13 it does")))
        }
        other => Err(field.error(format!("{other:?} is not a TLS version (TLS12 or TLS13)"))),
    }
}

fn proxy(section: &mut Section<'_>) -> Result<ProxyConfig, ConfigError> {
    let config = ProxyConfig {
        url: section.text("proxy_url")?.map(Secret::new),
        no_proxy: section.text("no_proxy")?.unwrap_or_default(),
        from_environment: section.bool_or("proxy_from_environment", false)?,
        connect_headers: section.get("proxy_connect_header", connect_headers)?.unwrap_or_default(),
    };
    if let Some(url) = &config.url
        && let Err(error) = url::Url::parse(url.expose())
    {
        return Err(section.field_error("proxy_url", format!("is not a URL: {error}")));
    }
    if config.from_environment && config.url.is_some() {
        let message = "proxy_url and proxy_from_environment exclude each other";
        return Err(section.field_error("proxy_url", message));
    }
    if !config.no_proxy.is_empty() && config.url.is_none() {
        return Err(section.field_error("no_proxy", "needs proxy_url"));
    }
    if !config.connect_headers.is_empty() && config.url.is_none() && !config.from_environment {
        let message = "needs proxy_url or proxy_from_environment";
        return Err(section.field_error("proxy_connect_header", message));
    }
    Ok(config)
}

fn connect_headers(field: &Field<'_>) -> Result<BTreeMap<String, Vec<Secret>>, ConfigError> {
    let header = |(entry, values): (&super::yaml::Entry, Field<'_>)| {
        let values = values.texts()?.into_iter().map(Secret::new).collect();
        Ok((entry.key.clone(), values))
    };
    field.map()?.into_iter().map(header).collect()
}

fn headers(field: &Field<'_>) -> Result<BTreeMap<String, HeaderConfig>, ConfigError> {
    let mut headers = BTreeMap::new();
    for (entry, value) in field.map()? {
        let name = &entry.key;
        if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(value.error("this header may not be set here"));
        }
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(value.error("is not a header name"));
        }
        let mut section = value.section()?;
        let secrets = section.get("secrets", Field::texts)?.unwrap_or_default();
        let files = section.get("files", |f| f.list()?.iter().map(Field::path).collect())?;
        let header = HeaderConfig {
            values: section.get("values", Field::texts)?.unwrap_or_default(),
            secrets: secrets.into_iter().map(Secret::new).collect(),
            files: files.unwrap_or_default(),
        };
        section.finish()?;
        headers.insert(name.clone(), header);
    }
    Ok(headers)
}

impl HttpClientConfig {
    /// All files that are read when requests are made.
    #[must_use]
    pub fn secret_files(&self) -> Vec<&std::path::Path> {
        let mut sources: Vec<&SecretSource> = Vec::new();
        if let Some(basic) = &self.basic_auth {
            sources.push(&basic.username);
            sources.extend(&basic.password);
        }
        sources.extend(self.authorization.iter().filter_map(|a| a.credentials.as_ref()));
        sources.extend(self.oauth2.iter().filter_map(|o| o.client_secret.as_ref()));
        for tls in [Some(&self.tls), self.oauth2.as_ref().map(|o| &o.tls)].into_iter().flatten() {
            sources.extend([&tls.ca, &tls.cert, &tls.key].into_iter().flatten());
        }
        let files = sources.into_iter().filter_map(|source| match source {
            SecretSource::File(path) => Some(path.as_path()),
            SecretSource::Inline(_) => None,
        });
        let headers = self.headers.values().flat_map(|h| &h.files);
        files.chain(headers.map(|f| f.as_path())).collect()
    }
}

/// Checks that a text is an `http` or `https` URL with a host.
pub fn http_url(text: &str) -> Result<(), String> {
    let url = url::Url::parse(text).map_err(|e| format!("is not a URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("the URL's scheme must be http or https".to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the URL has no host".to_owned());
    }
    Ok(())
}
