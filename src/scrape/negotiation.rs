//! Which format? What we ask for, and what an answer is read as.

use crate::config::{NameEscaping, ScrapeConfig, ScrapeProtocol};

/// How a page is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain`
    Text,
    /// `application/openmetrics-text`
    OpenMetrics,
    /// `application/vnd.google.protobuf`
    Protobuf,
}

/// Number of protocols that Prometheus knows; weights start above it.
const KNOWN_PROTOCOLS: usize = 5;

/// The `Accept` header of a scrape configuration.
#[must_use]
pub fn accept(config: &ScrapeConfig) -> String {
    let escaping = match config.metric_name_escaping {
        NameEscaping::AllowUtf8 => "allow-utf-8",
        NameEscaping::Underscores => "underscores",
        NameEscaping::Dots => "dots",
        NameEscaping::Values => "values",
    };
    let mut out = String::new();
    let mut weight = KNOWN_PROTOCOLS + 1;
    for protocol in &config.scrape_protocols {
        let (kind, escapes) = match protocol {
            ScrapeProtocol::PrometheusProto => (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
                false,
            ),
            ScrapeProtocol::PrometheusText0_0_4 => ("text/plain;version=0.0.4", false),
            ScrapeProtocol::PrometheusText1_0_0 => ("text/plain;version=1.0.0", true),
            ScrapeProtocol::OpenMetricsText0_0_1 => {
                ("application/openmetrics-text;version=0.0.1", false)
            }
            ScrapeProtocol::OpenMetricsText1_0_0 => {
                ("application/openmetrics-text;version=1.0.0", true)
            }
        };
        out.push_str(kind);
        if escapes {
            out.push_str(";escaping=");
            out.push_str(escaping);
        }
        out.push_str(&format!(";q=0.{weight},"));
        weight = weight.saturating_sub(1).max(1);
    }
    out.push_str(&format!("*/*;q=0.{weight}"));
    out
}

/// The format of an answer: that of its media type, else `fallback`.
///
/// # Errors
///
/// Prometheus' message, if neither says what the page is.
pub fn format_of(content_type: &str, fallback: Option<ScrapeProtocol>) -> Result<Format, String> {
    let fallback = fallback.map(|protocol| match protocol {
        ScrapeProtocol::PrometheusProto => Format::Protobuf,
        ScrapeProtocol::PrometheusText0_0_4 | ScrapeProtocol::PrometheusText1_0_0 => Format::Text,
        ScrapeProtocol::OpenMetricsText0_0_1 | ScrapeProtocol::OpenMetricsText1_0_0 => {
            Format::OpenMetrics
        }
    });
    if content_type.is_empty() {
        return fallback.ok_or_else(|| {
            "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target".to_owned()
        });
    }
    let Some(media_type) = media_type(content_type) else {
        return fallback.ok_or_else(|| {
            format!("cannot parse Content-Type {content_type:?} and no fallback_scrape_protocol for target")
        });
    };
    match media_type.as_str() {
        "text/plain" => Ok(Format::Text),
        "application/openmetrics-text" => Ok(Format::OpenMetrics),
        "application/vnd.google.protobuf" => Ok(Format::Protobuf),
        _ => fallback.ok_or_else(|| {
            format!("received unsupported Content-Type {content_type:?} and no fallback_scrape_protocol specified for target")
        }),
    }
}

/// The media type in lower case; `None` if type or parameters are malformed.
fn media_type(content_type: &str) -> Option<String> {
    let is_token = |s: &str| {
        !s.is_empty()
            && s.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
    };
    let (kind, mut rest) = content_type.split_once(';').unwrap_or((content_type, ""));
    let kind = kind.trim().to_ascii_lowercase();
    let valid = match kind.split_once('/') {
        Some((main, sub)) => is_token(main) && is_token(sub),
        None => is_token(&kind),
    };
    if !valid {
        return None;
    }
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some(kind);
        }
        let (name, value) = rest.split_once('=')?;
        if !is_token(name.trim()) {
            return None;
        }
        rest = if let Some(quoted) = value.strip_prefix('"') {
            let mut escaped = false;
            let end = quoted.find(|c| {
                let closes = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                closes
            })?;
            quoted.get(end + 1..)?.trim_start()
        } else {
            let end = value.find(';').unwrap_or(value.len());
            if !is_token(value.get(..end)?.trim()) {
                return None;
            }
            value.get(end..)?
        };
        rest = rest.strip_prefix(';').or_else(|| rest.is_empty().then_some(""))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_header_is_that_of_prometheus() {
        let mut config = super::super::testing::scrape_config("a");
        assert_eq!(
            accept(&config),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        config.scrape_protocols = vec![ScrapeProtocol::PrometheusProto];
        assert_eq!(
            accept(&config),
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,*/*;q=0.5"
        );
    }

    #[test]
    fn the_media_type_alone_decides() {
        for (header, format) in [
            ("text/plain; version=0.0.4; charset=utf-8", Some(Format::Text)),
            ("TEXT/PLAIN", Some(Format::Text)),
            ("text/plain;", Some(Format::Text)),
            ("application/openmetrics-text; version=\"1.0.0\"", Some(Format::OpenMetrics)),
            ("application/vnd.google.protobuf;encoding=delimited", Some(Format::Protobuf)),
            ("", None),
            ("text/html", None),
            ("text/plain; =", None),
            ("text/", None),
            ("a b", None),
        ] {
            assert_eq!(format_of(header, None).ok(), format, "{header}");
        }
        let fallback = Some(ScrapeProtocol::PrometheusText0_0_4);
        assert_eq!(format_of("text/html", fallback), Ok(Format::Text));
    }
}
