//! Who are we? The authorization header of a request.

use std::time::{Duration, Instant};

use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{ClientError, HttpClient, Request, secret_file};
use crate::config::{
    Authorization, BasicAuth, HeaderConfig, HttpClientConfig, OAuth2, SecretSource,
};

/// A token is renewed this much before its end, as Go's oauth2 does.
const RENEW_BEFORE: Duration = Duration::from_secs(10);
/// Largest answer of a token endpoint.
const TOKEN_ANSWER_LIMIT_BYTES: u64 = 1 << 20;
/// Longest wait for a token where the request itself may wait longer.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(60);

/// The ways to authorize of one client; at most one is configured.
pub(super) enum Auth {
    None,
    Basic(BasicAuth),
    Plain(Authorization),
    OAuth2(Box<TokenSource>),
}

impl Auth {
    pub(super) fn new(config: &HttpClientConfig) -> Result<Self, ClientError> {
        Ok(if let Some(basic) = &config.basic_auth {
            Self::Basic(basic.clone())
        } else if let Some(authorization) = &config.authorization {
            Self::Plain(authorization.clone())
        } else if let Some(oauth2) = &config.oauth2 {
            Self::OAuth2(Box::new(TokenSource::new(oauth2)?))
        } else {
            Self::None
        })
    }

    /// The value of the authorization header. Reads the files of secrets.
    pub(super) async fn header(&self) -> Result<Option<HeaderValue>, ClientError> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Basic(basic) => {
                let user = secret_file::expose(&basic.username)?;
                let password = optional(basic.password.as_ref())?;
                basic_header(&user, &password)
            }
            Self::Plain(authorization) => {
                let credentials = optional(authorization.credentials.as_ref())?;
                format!("{} {credentials}", authorization.scheme).trim_end().to_owned()
            }
            Self::OAuth2(source) => format!("Bearer {}", source.token().await?),
        };
        sensitive(&text).map(Some)
    }
}

fn optional(source: Option<&SecretSource>) -> Result<String, ClientError> {
    source.map_or_else(|| Ok(String::new()), secret_file::expose)
}

fn basic_header(user: &str, password: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {pair}")
}

fn sensitive(text: &str) -> Result<HeaderValue, ClientError> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| ClientError::Header("Authorization".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Adds the `http_headers` of a configuration. Reads their files.
pub(super) fn add_headers(
    configured: &std::collections::BTreeMap<String, HeaderConfig>,
    headers: &mut HeaderMap,
) -> Result<(), ClientError> {
    for (name, config) in configured {
        let bad = || ClientError::Header(name.clone());
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let plain = config.values.iter().map(|v| Ok::<_, ClientError>((v.clone(), false)));
        let secrets = config.secrets.iter().map(|s| Ok((s.expose().to_owned(), true)));
        let files =
            config.files.iter().map(|f| Ok((secret_file::read(f)?.trim().to_owned(), true)));
        for item in plain.chain(secrets).chain(files) {
            let (text, secret) = item?;
            let mut value = HeaderValue::from_str(&text).map_err(|_| bad())?;
            value.set_sensitive(secret);
            headers.append(&key, value);
        }
    }
    Ok(())
}

/// Client credentials (RFC 6749, section 4.4), with the token kept until
/// shortly before it ends.
pub(super) struct TokenSource {
    config: OAuth2,
    client: HttpClient,
    token: tokio::sync::Mutex<Option<Token>>,
}

struct Token {
    text: String,
    until: Option<Instant>,
    /// The secret that it was asked with.
    secret: String,
}

#[derive(serde::Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

impl TokenSource {
    fn new(config: &OAuth2) -> Result<Self, ClientError> {
        let http = HttpClientConfig {
            tls: config.tls.clone(),
            proxy: config.proxy.clone(),
            ..HttpClientConfig::default()
        };
        let client = HttpClient::new(&http)?;
        Ok(Self { config: config.clone(), client, token: tokio::sync::Mutex::default() })
    }

    async fn token(&self) -> Result<String, ClientError> {
        let secret = optional(self.config.client_secret.as_ref())?;
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref()
            && token.secret == secret
            && token.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(token.text.clone());
        }
        // Go asks with a header first, then with parameters.
        let answer = match self.ask(&secret, true).await {
            Ok(answer) => answer,
            Err(_) => self.ask(&secret, false).await?,
        };
        let seconds = match &answer.expires_in {
            Some(serde_json::Value::Number(n)) => n.as_u64(),
            Some(serde_json::Value::String(s)) => s.parse().ok(),
            _ => None,
        };
        let until = seconds.filter(|s| *s > 0).and_then(|s| {
            Instant::now().checked_add(Duration::from_secs(s).saturating_sub(RENEW_BEFORE))
        });
        *held = Some(Token { text: answer.access_token.clone(), until, secret });
        Ok(answer.access_token)
    }

    /// The request for a token; apart from `ask`, as the form cannot be held
    /// while waiting.
    fn token_request(&self, secret: &str, by_header: bool) -> Result<Request, ClientError> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !self.config.scopes.is_empty() {
            form.append_pair("scope", &self.config.scopes.join(" "));
        }
        for (name, value) in &self.config.endpoint_params {
            form.append_pair(name, value);
        }
        let mut request = Request::new(Method::POST, super::parse_url(&self.config.token_url)?);
        request.timeout = TOKEN_TIMEOUT;
        if by_header {
            let encode = |s: &str| -> String {
                url::form_urlencoded::byte_serialize(s.as_bytes()).collect()
            };
            let value = sensitive(&basic_header(&encode(&self.config.client_id), &encode(secret)))?;
            request.set_header(header::AUTHORIZATION, value);
        } else {
            form.append_pair("client_id", &self.config.client_id);
            if !secret.is_empty() {
                form.append_pair("client_secret", secret);
            }
        }
        request.set_header(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        request.body = form.finish().into();
        Ok(request)
    }

    async fn ask(&self, secret: &str, by_header: bool) -> Result<TokenAnswer, ClientError> {
        let request = self.token_request(secret, by_header)?;
        let mut response = Box::pin(self.client.send(request)).await?;
        let status = response.status;
        let body = response.read(TOKEN_ANSWER_LIMIT_BYTES).await?;
        if !status.is_success() {
            return Err(ClientError::OAuth2(format!("cannot fetch token: {status}")));
        }
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| ClientError::OAuth2("cannot parse the token answer".to_owned()))?;
        if answer.access_token.is_empty() {
            return Err(ClientError::OAuth2("server response missing access_token".to_owned()));
        }
        Ok(answer)
    }
}
