//! Lines to commands.

use std::sync::LazyLock;

use regex::Regex;

use super::expect::Expected;
use super::load::Load;
use crate::duration;
use crate::parse::{ParseOptions, parse as parse_query};

/// A command of a script.
pub(super) enum Command {
    /// Forget all samples.
    Clear,
    /// Store samples.
    Load(Load),
    /// Ask a query.
    Eval(Box<Eval>),
}

/// A query and what must come out.
pub(super) struct Eval {
    pub(super) query: String,
    pub(super) when: When,
    pub(super) expected: Expected,
}

/// When a query is evaluated, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Instant { time_ms: i64 },
    Range { start_ms: i64, end_ms: i64, step_ms: i64 },
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the patterns are constants")
}

static LOAD: LazyLock<Regex> = LazyLock::new(|| pattern(r"^load(?:_(with_nhcb))?\s+(.+?)$"));
static INSTANT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)$")
});
static RANGE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)$")
});

/// A command with its line (from 1) and text, or why it cannot be read.
pub(super) type Parsed = (usize, String, Result<Command, String>);

/// All commands of a script.
pub(super) fn parse(text: &str) -> Vec<Parsed> {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .map(|line| if line.starts_with('#') { "" } else { line })
        .collect();
    let mut commands = Vec::new();
    let mut next = 0;
    while let Some(line) = lines.get(next) {
        let at = next;
        next += 1;
        if line.is_empty() {
            continue;
        }
        let word = line.split([' ', '\t']).next().unwrap_or("").to_lowercase();
        let block = || {
            let rest = &lines[at + 1..];
            &rest[..rest.iter().position(|l| l.is_empty()).unwrap_or(rest.len())]
        };
        let parsed = if word == "clear" {
            Ok(Command::Clear)
        } else if word.starts_with("load") {
            next += block().len();
            load(line, block()).map(Command::Load)
        } else if word.starts_with("eval") {
            let mut taken = block().len();
            let eval = eval(line, block(), &mut taken);
            next += taken;
            eval.map(|eval| Command::Eval(Box::new(eval)))
        } else {
            Err(format!("invalid command {line:?}"))
        };
        commands.push((at + 1, (*line).to_owned(), parsed));
    }
    commands
}

fn load(line: &str, block: &[&str]) -> Result<Load, String> {
    let parts = LOAD.captures(line).ok_or("invalid load command, expected load <interval>")?;
    let interval = parts.get(2).map_or("", |m| m.as_str());
    let interval_ms =
        duration::parse(interval).map_err(|e| format!("invalid interval {interval:?}: {e}"))?;
    Load::parse(interval_ms, parts.get(1).is_some(), block)
}

/// `taken` becomes the number of lines of the block that belong to the case.
fn eval(line: &str, block: &[&str], taken: &mut usize) -> Result<Eval, String> {
    let milliseconds = |text: &str| {
        duration::parse(text).map_err(|e| format!("invalid time or step {text:?}: {e}"))
    };
    let (modifier, when, query) = if let Some(parts) = INSTANT.captures(line) {
        let part = |i| parts.get(i).map_or("", |m| m.as_str());
        (part(1), When::Instant { time_ms: milliseconds(part(2))? }, part(3))
    } else if let Some(parts) = RANGE.captures(line) {
        let part = |i| parts.get(i).map_or("", |m| m.as_str());
        let (start_ms, end_ms) = (milliseconds(part(2))?, milliseconds(part(3))?);
        if end_ms < start_ms {
            return Err("end of the range before its start".to_owned());
        }
        (part(1), When::Range { start_ms, end_ms, step_ms: milliseconds(part(4))? }, part(5))
    } else {
        return Err("invalid evaluation command, expected eval instant at <time> <query> or \
                    eval range from <start> to <end> step <step> <query>"
            .to_owned());
    };
    let instant = matches!(when, When::Instant { .. });
    let expected = Expected::parse(modifier, instant, block, taken)?;
    // A range vector is asked for at its end.
    let when = match expected.range_vector {
        Some((_, end_ms, _)) if instant => When::Instant { time_ms: end_ms },
        _ => when,
    };
    parse_query(query, &ParseOptions::all()).map_err(|e| e.to_string())?;
    Ok(Eval { query: query.to_owned(), when, expected })
}
