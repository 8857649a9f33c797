//! `check metrics`: does a page from standard input follow the naming rules?
//!
//! The rules and their wording are those of `promtool check metrics`; like it,
//! findings go to standard error and make the exit code 3.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use narthex_storage::labels::{LabelsBuilder, METRIC_NAME};
use narthex_storage::sample::MetricKind;

use super::Subcommand;
use crate::scrape::scanner::{Entry, RawLabels, text};

/// `narthex check metrics`.
pub const SUBCOMMAND: Subcommand = Subcommand { command, run };

/// Exit code for findings, promtool's.
const FINDINGS: u8 = 3;
/// Largest page that is read.
const PAGE_LIMIT_BYTES: u64 = 512 << 20;

fn command() -> Command {
    Command::new("metrics").about("Lint metrics given on standard input")
}

fn run(_: &ArgMatches) -> ExitCode {
    let mut page = Vec::new();
    if let Err(error) = std::io::stdin().take(PAGE_LIMIT_BYTES).read_to_end(&mut page) {
        eprintln!("error: reading standard input: {error}");
        return ExitCode::FAILURE;
    }
    match lint(page) {
        Err(message) => {
            eprintln!("error while linting: {message}");
            ExitCode::FAILURE
        }
        Ok(findings) => {
            for (metric, text) in &findings {
                eprintln!("{metric} {text}");
            }
            if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FINDINGS) }
        }
    }
}

/// One family of the page.
#[derive(Default)]
struct Family {
    kind: MetricKind,
    has_help: bool,
    label_names: BTreeSet<String>,
    repeated: bool,
}

/// Findings, as metric and text, sorted.
fn lint(mut page: Vec<u8>) -> Result<BTreeSet<(String, String)>, String> {
    page.push(b'\n');
    let mut findings = BTreeSet::new();
    for (name, family) in families(&page)? {
        for text in check(&name, &family) {
            findings.insert((name.clone(), text));
        }
    }
    Ok(findings)
}

fn families(page: &[u8]) -> Result<BTreeMap<String, Family>, String> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let (mut at, mut raw) = (0, RawLabels::default());
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    loop {
        let (entry, next) = text::entry(page, at, &mut raw).map_err(|e| e.to_string())?;
        at = next;
        match entry {
            Entry::End => return Ok(families),
            Entry::Type(family, kind) => families.entry(name(family)).or_default().kind = kind,
            Entry::Help(family, help) => {
                families.entry(name(family)).or_default().has_help = !help.is_empty();
            }
            Entry::Sample(_) => {
                let mut labels = LabelsBuilder::new();
                raw.resolve(page, MetricKind::Unknown, &mut labels)?;
                let labels = labels.build();
                let metric = labels.metric_name().unwrap_or_default();
                let key = family_of(metric, &families);
                let family = families.entry(key).or_default();
                family.label_names.extend(labels.iter().map(|(n, _)| n.to_owned()));
                family.label_names.remove(METRIC_NAME);
                family.repeated |= !seen.insert(labels);
            }
            Entry::Unit(..) | Entry::Comment => {}
        }
    }
}

/// The family of a sample: that of a histogram or summary whose part it is,
/// else its own name.
fn family_of(metric: &str, families: &BTreeMap<String, Family>) -> String {
    for suffix in ["_bucket", "_count", "_sum"] {
        if let Some(base) = metric.strip_suffix(suffix)
            && let Some(family) = families.get(base)
            && (family.kind == MetricKind::Histogram
                || family.kind == MetricKind::Summary && suffix != "_bucket")
        {
            return base.to_owned();
        }
    }
    metric.to_owned()
}

fn check(name: &str, family: &Family) -> Vec<String> {
    let mut out = Vec::new();
    let mut say = |text: String| out.push(text);
    let lower = name.to_lowercase();
    let holds =
        |word: &str| lower.contains(&format!("_{word}_")) || lower.ends_with(&format!("_{word}"));
    let is = |kind: MetricKind| family.kind == kind;
    if !family.has_help {
        say("no help text".to_owned());
    }
    if let Some((unit, base)) = unit_of(name)
        && unit != base
    {
        say(format!("use base unit \"{base}\" instead of \"{unit}\""));
    }
    match (is(MetricKind::Counter), name.ends_with("_total")) {
        (true, false) => say("counter metrics should have \"_total\" suffix".to_owned()),
        (false, true) if !is(MetricKind::Unknown) => {
            say("non-counter metrics should not have \"_total\" suffix".to_owned());
        }
        _ => {}
    }
    if !is(MetricKind::Unknown) {
        let (histogram, summary) = (is(MetricKind::Histogram), is(MetricKind::Summary));
        if !histogram && name.ends_with("_bucket") {
            say("non-histogram metrics should not have \"_bucket\" suffix".to_owned());
        }
        for suffix in ["_count", "_sum"] {
            if !histogram && !summary && name.ends_with(suffix) {
                say(format!(
                    "non-histogram and non-summary metrics should not have \"{suffix}\" suffix"
                ));
            }
        }
        if !histogram && family.label_names.contains("le") {
            say("non-histogram metrics should not have \"le\" label".to_owned());
        }
        if !summary && family.label_names.contains("quantile") {
            say("non-summary metrics should not have \"quantile\" label".to_owned());
        }
    }
    for kind in ["counter", "gauge", "summary", "histogram", "gauge_histogram"] {
        if holds(kind) {
            say(format!("metric name should not include type '{kind}'"));
        }
    }
    if name.contains(':') {
        say("metric names should not contain ':'".to_owned());
    }
    let camel = |text: &str| {
        text.as_bytes().windows(2).any(|w| w[0].is_ascii_lowercase() && w[1].is_ascii_uppercase())
    };
    if camel(name) {
        say("metric names should be written in 'snake_case' not 'camelCase'".to_owned());
    }
    if family.label_names.iter().any(|n| camel(n)) {
        say("label names should be written in 'snake_case' not 'camelCase'".to_owned());
    }
    if ABBREVIATIONS.iter().any(|a| holds(a)) {
        say("metric names should not contain abbreviated units".to_owned());
    }
    if family.repeated {
        say("metric not unique".to_owned());
    }
    out
}

const ABBREVIATIONS: [&str; 14] =
    ["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"];

const PREFIXES: [&str; 20] = [
    "pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi", "mega",
    "mibi", "mebi", "giga", "gibi", "tera", "tebi", "peta", "pebi", "exa",
];

const UNITS: [(&str, &str); 25] = [
    ("amperes", "amperes"),
    ("bytes", "bytes"),
    ("celsius", "celsius"),
    ("grams", "grams"),
    ("joules", "joules"),
    ("kelvin", "kelvin"),
    ("meters", "meters"),
    ("metres", "metres"),
    ("moles", "moles"),
    ("seconds", "seconds"),
    ("volts", "volts"),
    ("minutes", "seconds"),
    ("hours", "seconds"),
    ("days", "seconds"),
    ("weeks", "seconds"),
    ("kelvins", "kelvin"),
    ("fahrenheit", "celsius"),
    ("rankine", "celsius"),
    ("inches", "meters"),
    ("yards", "meters"),
    ("miles", "meters"),
    ("bits", "bytes"),
    ("calories", "joules"),
    ("pounds", "grams"),
    ("ounces", "grams"),
];

/// The unit in a name, and its base unit.
fn unit_of(name: &str) -> Option<(String, &'static str)> {
    for word in name.split('_') {
        for (unit, base) in UNITS {
            if word == unit {
                return Some((unit.to_owned(), base));
            }
            if word.strip_suffix(unit).is_some_and(|prefix| PREFIXES.contains(&prefix)) {
                return Some((word.to_owned(), base));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(page: &str) -> Vec<String> {
        let found = lint(page.as_bytes().to_vec()).expect("valid");
        found.into_iter().map(|(metric, text)| format!("{metric} {text}")).collect()
    }

    #[test]
    fn a_page_by_the_rules_has_no_findings() {
        let page = "# HELP a_seconds x\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"1\"} 1\n\
                    a_seconds_sum 1\na_seconds_count 1\n# HELP b_total x\n# TYPE b_total counter\nb_total 1\n";
        assert_eq!(findings(page), Vec::<String>::new());
    }

    #[test]
    fn each_rule_finds_what_it_is_for() {
        let page = "# TYPE requests counter\nrequests{someLabel=\"1\"} 1\n\
                    # HELP g_total x\n# TYPE g_total gauge\ng_total{le=\"1\"} 1\n\
                    # HELP x_milliseconds x\n# TYPE x_milliseconds gauge\nx_milliseconds 1\nx_milliseconds 1\n\
                    # HELP camelCase_ms x\n# TYPE camelCase_ms gauge\ncamelCase_ms 1\n";
        assert_eq!(
            findings(page),
            [
                "camelCase_ms metric names should be written in 'snake_case' not 'camelCase'",
                "camelCase_ms metric names should not contain abbreviated units",
                "g_total non-counter metrics should not have \"_total\" suffix",
                "g_total non-histogram metrics should not have \"le\" label",
                "requests counter metrics should have \"_total\" suffix",
                "requests label names should be written in 'snake_case' not 'camelCase'",
                "requests no help text",
                "x_milliseconds metric not unique",
                "x_milliseconds use base unit \"seconds\" instead of \"milliseconds\"",
            ]
        );
        assert!(lint(b"a b".to_vec()).is_err());
    }
}
