//! What is there? `series`, `labels`, `label/NAME/values`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use narthex_storage::labels::{Labels, Matcher};
use narthex_storage::read::{Querier, ReadError};

use super::envelope::{Answer, ApiError};
use super::json::{push_array, push_labels, push_string};
use super::params::Params;
use super::{Api, TRUNCATED};

/// `GET, POST /api/v1/series`.
pub async fn series(State(api): State<Arc<Api>>, params: Params) -> Result<Answer, ApiError> {
    let scope = Scope::read(&params)?;
    if scope.matchers.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    api.blocking(move |api| {
        let querier = api.queryable.querier(scope.start_ms, scope.end_ms)?;
        let mut found: Vec<Labels> = Vec::new();
        for matchers in &scope.matchers {
            for series in querier.select(matchers, false)? {
                found.push(querier.labels(series)?);
            }
        }
        found.sort_unstable();
        found.dedup();
        let truncated = cut(&mut found, scope.limit);
        let answer = Answer::with(|out| push_array(out, &found, push_labels));
        Ok(if truncated { answer.warning(TRUNCATED) } else { answer })
    })
    .await
}

/// `GET, POST /api/v1/labels`.
pub async fn label_names(State(api): State<Arc<Api>>, params: Params) -> Result<Answer, ApiError> {
    let scope = Scope::read(&params)?;
    api.blocking(move |api| scope.strings(api, |q, m, limit| q.label_names(m, limit))).await
}

/// `GET /api/v1/label/NAME/values`.
pub async fn label_values(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Answer, ApiError> {
    let name = unescape_name(&name).unwrap_or(name);
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    let scope = Scope::read(&params)?;
    api.blocking(move |api| scope.strings(api, |q, m, limit| q.label_values(&name, m, limit))).await
}

/// What a look-up is about.
struct Scope {
    start_ms: i64,
    end_ms: i64,
    limit: usize,
    matchers: Vec<Vec<Matcher>>,
}

impl Scope {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let scope = Self {
            start_ms: params.time_ms("start")?.unwrap_or(i64::MIN),
            end_ms: params.time_ms("end")?.unwrap_or(i64::MAX),
            limit: params.limit("limit")?,
            matchers: params.matchers()?,
        };
        Ok(scope)
    }

    /// The union over all selectors, sorted, cut at the limit.
    fn strings(
        &self,
        api: &Api,
        find: impl Fn(&dyn Querier, &[Matcher], usize) -> Result<Vec<String>, ReadError>,
    ) -> Result<Answer, ApiError> {
        let querier = api.queryable.querier(self.start_ms, self.end_ms)?;
        // One more than asked for shows whether there is more.
        let limit = if self.limit == 0 { 0 } else { self.limit + 1 };
        let mut found = match self.matchers.as_slice() {
            [] => find(&*querier, &[], limit)?,
            [matchers] => find(&*querier, matchers, limit)?,
            several => {
                let mut union = BTreeSet::new();
                for matchers in several {
                    union.extend(find(&*querier, matchers, limit)?);
                }
                union.into_iter().collect()
            }
        };
        let truncated = cut(&mut found, self.limit);
        let answer =
            Answer::with(|out| push_array(out, &found, |out, text| push_string(out, text)));
        Ok(if truncated { answer.warning(TRUNCATED) } else { answer })
    }
}

fn cut<T>(found: &mut Vec<T>, limit: usize) -> bool {
    let more = limit > 0 && found.len() > limit;
    if more {
        found.truncate(limit);
    }
    more
}

/// Undoes the `U__` escaping of names in URLs: `__` is an underscore, `_2e_`
/// the character with that hexadecimal code. `None` if it is not escaped.
fn unescape_name(name: &str) -> Option<String> {
    let mut rest = name.strip_prefix("U__")?;
    let mut out = String::with_capacity(rest.len());
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('_') {
            out.push('_');
            rest = after;
        } else {
            let end = rest.find('_')?;
            let code = u32::from_str_radix(&rest[..end], 16).ok()?;
            out.push(char::from_u32(code)?);
            rest = &rest[end + 1..];
        }
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::unescape_name;

    #[test]
    fn escaped_names_are_read() {
        assert_eq!(unescape_name("U__http_2e_status:code").as_deref(), Some("http.status:code"));
        assert_eq!(unescape_name("U__a__b").as_deref(), Some("a_b"));
        assert_eq!(unescape_name("plain"), None);
        assert_eq!(unescape_name("U__bad_zz_"), None);
    }
}
