//! What did the client ask? Parameters from URL and form, read as Prometheus
//! reads them.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, header};
use narthex_query::parse;
use narthex_storage::labels::Matcher;
use url::form_urlencoded;

use super::envelope::ApiError;

/// The parameters of a request. Those of a form come before those of the
/// URL, so that the form wins where only one value counts.
#[derive(Debug, Clone, Default)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let url = request.uri().query().unwrap_or("").to_owned();
        let is_form = request.method() == Method::POST
            && request
                .headers()
                .get(header::CONTENT_TYPE)
                .and_then(|v| v.to_str().ok())
                .is_some_and(|v| v.starts_with("application/x-www-form-urlencoded"));
        let mut params = Vec::new();
        if is_form {
            let body = Bytes::from_request(request, state)
                .await
                .map_err(|e| ApiError::bad_data(format!("error parsing form values: {e}")))?;
            params.extend(form_urlencoded::parse(&body).into_owned());
        }
        params.extend(form_urlencoded::parse(url.as_bytes()).into_owned());
        Ok(Self(params))
    }
}

impl Params {
    /// The first value of a parameter; `None` if it is absent or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let first = self.0.iter().find(|(n, _)| n == name);
        first.map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A time in milliseconds; `None` if absent.
    ///
    /// # Errors
    ///
    /// If it is neither a number of seconds nor RFC 3339.
    pub fn time_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name).map(|text| self.parse_time(name, text)).transpose()
    }

    /// A time in milliseconds that must be there.
    ///
    /// # Errors
    ///
    /// As [`Params::time_ms`], and if it is absent.
    pub fn required_time_ms(&self, name: &str) -> Result<i64, ApiError> {
        self.parse_time(name, self.get(name).unwrap_or(""))
    }

    #[allow(clippy::unused_self, reason = "reads as a step of the other two")]
    fn parse_time(&self, name: &str, text: &str) -> Result<i64, ApiError> {
        parse_time_ms(text).ok_or_else(|| {
            ApiError::parameter(name, format!("cannot parse {text:?} to a valid timestamp"))
        })
    }

    /// A duration in milliseconds, given in seconds or as `5m`; `None` if
    /// absent.
    ///
    /// # Errors
    ///
    /// If it is neither, or too large.
    pub fn duration_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name).map(|text| duration_parameter(name, text)).transpose()
    }

    /// A duration that must be there.
    ///
    /// # Errors
    ///
    /// As [`Params::duration_ms`], and if it is absent.
    pub fn required_duration_ms(&self, name: &str) -> Result<i64, ApiError> {
        duration_parameter(name, self.get(name).unwrap_or(""))
    }

    /// A limit; 0 and absent are no limit.
    ///
    /// # Errors
    ///
    /// If it is no number or negative.
    pub fn limit(&self, name: &str) -> Result<usize, ApiError> {
        let Some(text) = self.get(name) else { return Ok(0) };
        let number: i64 = text.parse().map_err(|_| {
            ApiError::parameter(name, format!("cannot parse {text:?} to a valid limit"))
        })?;
        usize::try_from(number).map_err(|_| ApiError::parameter(name, "limit must be non-negative"))
    }

    /// A boolean; absent is `false`.
    ///
    /// # Errors
    ///
    /// If it is anything but Go's forms of booleans.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(text) => Err(ApiError::bad_data(format!(
                "error converting {name}: strconv.ParseBool: parsing {text:?}: invalid syntax"
            ))),
        }
    }

    /// The selectors of `match[]`; each must exclude at least the series that
    /// lack all its labels.
    ///
    /// # Errors
    ///
    /// If one does not parse or matches everything.
    pub fn matchers(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        self.all("match[]").map(parse_match).collect()
    }
}

pub fn parse_match(text: &str) -> Result<Vec<Matcher>, ApiError> {
    let matchers = parse::parse_selector(text).map_err(|e| ApiError::parameter("match[]", e))?;
    if matchers.iter().all(Matcher::matches_empty) {
        let reason = "match[] must contain at least one non-empty matcher";
        return Err(ApiError::parameter("match[]", reason));
    }
    Ok(matchers)
}

fn duration_parameter(name: &str, text: &str) -> Result<i64, ApiError> {
    let wrong = |more: &str| {
        ApiError::parameter(name, format!("cannot parse {text:?} to a valid duration{more}"))
    };
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = seconds * 1000.0;
        if ms.is_nan() || ms.abs() >= 9.2e15 {
            return Err(wrong(". It overflows int64"));
        }
        #[allow(clippy::cast_possible_truncation, reason = "within 2^53")]
        return Ok(ms as i64);
    }
    parse_duration_ms(text).ok_or_else(|| wrong(""))
}

/// A duration as Prometheus writes it (`1h30m`), in milliseconds: units in
/// descending order, each at most once; a bare 0 is allowed.
#[must_use]
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total, mut next) = (text, 0_i64, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let at = UNITS.iter().position(|(unit, _)| *unit == &rest[..letters])?;
        if at < next {
            return None;
        }
        next = at + 1;
        total = total.checked_add(number.checked_mul(UNITS[at].1)?)?;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(total)
}

/// The first and last times that the API names.
const MIN_TIME: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME: &str = "292277025-08-18T07:12:54.999999999Z";

/// A time in milliseconds, from seconds or RFC 3339. Times beyond what 64 bits
/// hold end there.
#[must_use]
pub fn parse_time_ms(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        if seconds.is_nan() {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, reason = "saturates, as documented")]
        return Some((seconds * 1000.0).round() as i64);
    }
    match text {
        MIN_TIME => Some(i64::MIN / 1_000_000),
        MAX_TIME => Some(i64::MAX / 1_000_000),
        _ => chrono::DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_dates() {
        assert_eq!(parse_time_ms("1763700000.123"), Some(1_763_700_000_123));
        assert_eq!(parse_time_ms("1970-01-01T00:00:04.5+00:00"), Some(4500));
        assert_eq!(parse_time_ms("1763698200000"), Some(1_763_698_200_000_000));
        assert_eq!(parse_time_ms("yesterday"), None);
        assert_eq!(parse_time_ms("NaN"), None);
        assert_eq!(parse_time_ms("1e300"), Some(i64::MAX));
    }

    #[test]
    fn durations_have_descending_units() {
        assert_eq!(parse_duration_ms("1h30m"), Some(5_400_000));
        assert_eq!(parse_duration_ms("10s53ms"), Some(10_053));
        assert_eq!(parse_duration_ms("30m1h"), None);
        assert_eq!(parse_duration_ms(""), None);
        assert_eq!(parse_duration_ms("5"), None);
    }
}
