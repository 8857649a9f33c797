//! What must come out of a query: the lines below an `eval`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use narthex_storage::labels::{self, Labels};

use crate::duration;
use crate::lex::unquote;
use crate::parse::series::{SequenceValue, parse_number, parse_series};
use crate::value::QueryResult;

static EXPECT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^expect\s+(ordered|fail|warn|no_warn|info|no_info)(?:\s+(regex|msg):(.+))?$")
        .expect("the pattern is a constant")
});
static RANGE_VECTOR: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^expect range vector\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+)$")
        .expect("the pattern is a constant")
});

/// What must come out of a query.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Series with their place among the lines of series, from 0.
    pub(super) series: BTreeMap<Labels, (usize, Vec<SequenceValue>)>,
    pub(super) scalar: Option<f64>,
    pub(super) string: Option<String>,
    /// Start, end and step of a range vector that an instant query gives.
    pub(super) range_vector: Option<(i64, i64, i64)>,
    /// Whether the order of the series counts.
    pub(super) ordered: bool,
    /// The query must fail, with such a message if there is one.
    fail: Option<Text>,
    warnings: Annotations,
    infos: Annotations,
}

/// What annotations of one kind must be there.
#[derive(Debug, Default)]
struct Annotations {
    /// Each must be there, and nothing else.
    wanted: Vec<Text>,
    /// At least one, whatever it says.
    some: bool,
    none: bool,
}

/// What a message must be like.
#[derive(Debug)]
enum Text {
    Any,
    Exactly(String),
    Matching(Regex),
}

impl Text {
    fn fits(&self, message: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(text) => text == message,
            Self::Matching(regex) => regex.is_match(message),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Any => "anything".to_owned(),
            Self::Exactly(text) => format!("{text:?}"),
            Self::Matching(regex) => format!("a match of {:?}", regex.as_str()),
        }
    }

    fn matching(pattern: &str) -> Result<Self, String> {
        labels::unanchored(pattern).map(Self::Matching).map_err(|e| e.to_string())
    }
}

impl Expected {
    /// Reads the lines of a case. `modifier` is the one of the command, such as
    /// `fail` in `eval_fail`. `taken` becomes the number of lines that belong
    /// to the case: a line that ends it may stand before the empty one.
    pub(super) fn parse(
        modifier: &str,
        instant: bool,
        block: &[&str],
        taken: &mut usize,
    ) -> Result<Self, String> {
        let mut expected = Self::default();
        match modifier {
            "fail" => expected.fail = Some(Text::Any),
            "warn" => expected.warnings.some = true,
            "info" => expected.infos.some = true,
            "ordered" => expected.ordered = true,
            _ => {}
        }
        let mut place = 0;
        for (i, line) in block.iter().enumerate() {
            let end = Some(i + 1);
            let ends = if let Some(text) = old_failure(modifier, line, "expected_fail_message") {
                expected.fail = Some(Text::Exactly(text.to_owned()));
                end
            } else if let Some(text) = old_failure(modifier, line, "expected_fail_regexp") {
                expected.fail = Some(Text::matching(text)?);
                end
            } else if line.starts_with("expect range vector") {
                expected.range_vector = Some(range_vector(line)?);
                None
            } else if let Some(literal) = line.strip_prefix("expect string") {
                let text = unquote(literal.trim()).ok_or("invalid quoted string literal")?;
                expected.string = Some(text);
                None
            } else if line.split(' ').next() == Some("expect") {
                expected.expect_line(line)?;
                None
            } else if let Some(number) = parse_number(line) {
                expected.scalar = Some(number);
                end
            } else {
                let series = parse_series(line).map_err(|e| format!("{line}: {e}"))?;
                if series.values.len() > 1 && instant && expected.range_vector.is_none() {
                    return Err("several values expected of an instant query".to_owned());
                }
                expected.series.insert(series.labels, (place, series.values));
                place += 1;
                None
            };
            if let Some(end) = ends {
                *taken = end;
                break;
            }
        }
        Ok(expected)
    }

    fn expect_line(&mut self, line: &str) -> Result<(), String> {
        let parts = EXPECT.captures(line).ok_or(
            "invalid expect statement, must match `expect <type> <match_type>: <string>` format",
        )?;
        let part = |i| parts.get(i).map_or("", |m| m.as_str()).trim();
        let text = match part(2) {
            "msg" => Text::Exactly(part(3).to_owned()),
            "regex" => Text::matching(part(3))?,
            _ => Text::Any,
        };
        match part(1) {
            "ordered" => self.ordered = true,
            "no_warn" => self.warnings.none = true,
            "no_info" => self.infos.none = true,
            "warn" => self.warnings.wanted.push(text),
            "info" => self.infos.wanted.push(text),
            _ if matches!(self.fail, None | Some(Text::Any)) => self.fail = Some(text),
            _ => return Err("multiple expect fail lines are not allowed".to_owned()),
        }
        for annotations in [&self.warnings, &self.infos] {
            if annotations.none && !annotations.wanted.is_empty() {
                return Err("annotations both expected and excluded".to_owned());
            }
        }
        Ok(())
    }

    /// Whether the query is not asked as a range query as well.
    pub(super) const fn only_instant(&self) -> bool {
        self.range_vector.is_some() || self.string.is_some()
    }

    /// Checks whether the query failed as it should. `None` if it rightly did.
    pub(super) fn outcome(
        &self,
        result: Result<QueryResult, String>,
    ) -> Result<Option<QueryResult>, String> {
        match (result, &self.fail) {
            (Ok(result), None) => Ok(Some(result)),
            (Ok(_), Some(text)) => {
                Err(format!("expected an error ({}), got a result", text.describe()))
            }
            (Err(error), None) => Err(format!("expected a result, got the error: {error}")),
            (Err(error), Some(text)) if text.fits(&error) => Ok(None),
            (Err(error), Some(text)) => {
                Err(format!("expected the error {}\ngot {error:?}", text.describe()))
            }
        }
    }

    /// Checks warnings and infos.
    pub(super) fn annotations(&self, result: &QueryResult) -> Result<(), String> {
        self.warnings.check("warning", &result.warnings)?;
        self.infos.check("info", &result.infos)
    }
}

impl Annotations {
    fn check(&self, kind: &str, got: &[String]) -> Result<(), String> {
        if self.some && got.is_empty() {
            return Err(format!("expected a {kind} annotation, got none"));
        }
        if self.none && !got.is_empty() {
            return Err(format!("expected no {kind} annotation, got {got:?}"));
        }
        for wanted in &self.wanted {
            if !got.iter().any(|message| wanted.fits(message)) {
                let wanted = wanted.describe();
                return Err(format!("expected the {kind} annotation {wanted}\ngot {got:?}"));
            }
        }
        let wanted = |message: &&String| self.wanted.iter().any(|text| text.fits(message));
        match got.iter().find(|message| !wanted(message)) {
            Some(message) if !self.wanted.is_empty() => {
                Err(format!("expected no further {kind} annotation, got {message:?}"))
            }
            _ => Ok(()),
        }
    }
}

/// The text of a line of the old kind, which only `eval_fail` knows.
fn old_failure<'a>(modifier: &str, line: &'a str, word: &str) -> Option<&'a str> {
    if modifier == "fail" { line.strip_prefix(word).map(str::trim) } else { None }
}

fn range_vector(line: &str) -> Result<(i64, i64, i64), String> {
    let parts = RANGE_VECTOR
        .captures(line)
        .ok_or("expected: expect range vector from <start> to <end> step <step>")?;
    let milliseconds = |i| duration::parse(parts.get(i).map_or("", |m| m.as_str()));
    let (start_ms, end_ms, step_ms) = (milliseconds(1)?, milliseconds(2)?, milliseconds(3)?);
    if end_ms < start_ms {
        return Err("end of the range vector before its start".to_owned());
    }
    Ok((start_ms, end_ms, step_ms))
}
