//! Annotations: what the reader of an answer should know beside the value.
//!
//! Collected once per text; of equal texts at several places the last place
//! counts, as in Prometheus.

use std::collections::BTreeMap;

use crate::ast::Span;

/// Most different annotations one query keeps.
const MAX_NOTES: usize = 10_000;

/// Warnings and infos of one query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    warnings: BTreeMap<String, Note>,
    infos: BTreeMap<String, Note>,
}

#[derive(Debug, Clone)]
struct Note {
    span: Span,
    extra: Extra,
}

#[derive(Debug, Clone)]
enum Extra {
    None,
    /// How classic buckets had to be corrected.
    Monotonicity(Monotonicity),
    /// How often.
    Occurrences(usize),
}

/// What was corrected to make classic buckets monotonic.
#[derive(Debug, Clone)]
pub(crate) struct Monotonicity {
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
    pub(crate) min_bucket: f64,
    pub(crate) max_bucket: f64,
    pub(crate) max_diff: f64,
    pub(crate) samples: usize,
}

impl Notes {
    pub(crate) fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.infos.is_empty()
    }

    pub(crate) fn warn(&mut self, span: Span, text: impl Into<String>) {
        put(&mut self.warnings, text.into(), Note { span, extra: Extra::None });
    }

    pub(crate) fn info(&mut self, span: Span, text: impl Into<String>) {
        put(&mut self.infos, text.into(), Note { span, extra: Extra::None });
    }

    /// A warning that counts how often it was met.
    pub(crate) fn warn_counted(&mut self, span: Span, text: impl Into<String>) {
        put(&mut self.warnings, text.into(), Note { span, extra: Extra::Occurrences(1) });
    }

    /// The info about corrected classic buckets.
    pub(crate) fn monotonicity(&mut self, span: Span, name: &str, found: Monotonicity) {
        let text = with_name(
            "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
            name,
        );
        put(&mut self.infos, text, Note { span, extra: Extra::Monotonicity(found) });
    }

    /// Adds what another part of the query noted, after this.
    pub(crate) fn merge(&mut self, other: Self) {
        for (text, note) in other.warnings {
            put(&mut self.warnings, text, note);
        }
        for (text, note) in other.infos {
            put(&mut self.infos, text, note);
        }
    }

    /// The final texts: warnings and infos, each sorted.
    pub(crate) fn texts(&self, query: &str) -> (Vec<String>, Vec<String>) {
        let texts = |kind: &str, notes: &BTreeMap<String, Note>| -> Vec<String> {
            notes.iter().map(|(text, note)| note.text(kind, text, query)).collect()
        };
        (texts("PromQL warning: ", &self.warnings), texts("PromQL info: ", &self.infos))
    }
}

impl Note {
    fn text(&self, kind: &str, text: &str, query: &str) -> String {
        let place = position(query, self.span.start);
        match &self.extra {
            Extra::None | Extra::Occurrences(0..=1) => format!("{kind}{text} ({place})"),
            Extra::Occurrences(n) => format!("{kind}{text} ({n} occurrences) ({place})"),
            Extra::Monotonicity(m) => format!(
                "{kind}{text}, from buckets {} to {}, with a max diff of {}, over {} samples from {} to {} ({place})",
                go_g(m.min_bucket),
                go_g(m.max_bucket),
                go_g2(m.max_diff),
                m.samples,
                rfc3339(m.first_ms),
                rfc3339(m.last_ms),
            ),
        }
    }
}

fn put(notes: &mut BTreeMap<String, Note>, text: String, new: Note) {
    if let Some(old) = notes.get_mut(&text) {
        match (&mut old.extra, new.extra) {
            (Extra::Occurrences(n), Extra::Occurrences(more)) => *n += more,
            (Extra::Monotonicity(a), Extra::Monotonicity(b)) => a.widen(&b),
            (_, extra) => *old = Note { span: new.span, extra },
        }
    } else if notes.len() < MAX_NOTES {
        notes.insert(text, new);
    }
}

impl Monotonicity {
    fn widen(&mut self, other: &Self) {
        self.first_ms = self.first_ms.min(other.first_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
        self.min_bucket = self.min_bucket.min(other.min_bucket);
        self.max_bucket = self.max_bucket.max(other.max_bucket);
        self.max_diff = self.max_diff.max(other.max_diff);
        self.samples += other.samples;
    }
}

/// `text`, with the metric name if there is one.
pub(crate) fn with_name(text: &str, name: &str) -> String {
    if name.is_empty() {
        text.to_owned()
    } else {
        format!("{text} for metric name {}", quoted(name))
    }
}

/// `text` in double quotes with Go's escapes.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    narthex_storage::labels::write_quoted(&mut out, text).expect("writing to a string succeeds");
    out
}

/// `line:column` of a byte offset, both from 1.
fn position(query: &str, offset: usize) -> String {
    let Some(before) = query.as_bytes().get(..offset) else {
        return "invalid position".to_owned();
    };
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    format!("{line}:{}", offset - start + 1)
}

/// A float as Go's `%g` writes it.
pub(crate) fn go_g(value: f64) -> String {
    if let Some(text) = not_finite(value) {
        return text.to_owned();
    }
    let scientific = format!("{value:e}");
    let exponent: i32 =
        scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or_default();
    if (-4..6).contains(&exponent) { format!("{value}") } else { go_exponent(&scientific) }
}

/// A float as Go's `%.2g` writes it.
fn go_g2(value: f64) -> String {
    if let Some(text) = not_finite(value) {
        return text.to_owned();
    }
    let scientific = format!("{value:.1e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..2).contains(&exponent) {
        let decimals = usize::try_from(1 - exponent).unwrap_or_default();
        let text = format!("{value:.decimals$}");
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    } else {
        let mantissa = if mantissa.contains('.') {
            mantissa.trim_end_matches('0').trim_end_matches('.')
        } else {
            mantissa
        };
        go_exponent(&format!("{mantissa}e{exponent}"))
    }
}

/// Rewrites `1e7` as Go's `1e+07`.
fn go_exponent(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn not_finite(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("+Inf")
    } else if value == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

fn rfc3339(time_ms: i64) -> String {
    chrono::DateTime::from_timestamp(time_ms / 1000, 0)
        .map_or_else(|| time_ms.to_string(), |t| t.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_go_writes_them() {
        assert_eq!(go_g(0.1), "0.1");
        assert_eq!(go_g(1_500_000.0), "1.5e+06");
        assert_eq!(go_g(100_000.0), "100000");
        assert_eq!(go_g(f64::NEG_INFINITY), "-Inf");
        assert_eq!(go_g2(0.5), "0.5");
        assert_eq!(go_g2(123.0), "1.2e+02");
        assert_eq!(go_g2(12.0), "12");
        assert_eq!(go_g2(2.0), "2");
    }

    #[test]
    fn the_last_place_of_a_text_counts() {
        let mut notes = Notes::default();
        notes.info(Span { start: 0, end: 1 }, "x");
        notes.info(Span { start: 3, end: 4 }, "x");
        assert_eq!(notes.texts("a\nbc").1, ["PromQL info: x (2:2)"]);
    }
}
