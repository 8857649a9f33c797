//! Data that rules can work on: series for every selector of rule files.
//!
//! Each value is a function of its series' labels and the time, so that any
//! number of servers, now or in a unit test, see the same.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use narthex::rules::file::{FileOptions, GroupSpec, RuleFile, RuleSpec, SpecKind, parse_rules};
use narthex_query::ast::{Expr, ExprKind, VectorSelector};
use narthex_storage::labels::{MatchOp, Matcher};

/// What a series says when it ends.
pub const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Values that stand for a label that nobody demands anything of.
const VARIANTS: usize = 4;

const BOUNDS: [&str; 5] = ["0.1", "0.5", "1", "5", "+Inf"];

/// The rule files beside the tests and, where there are any, those of the
/// shared material. Objects of the operator count as what they hold.
pub fn rule_files() -> Vec<RuleFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> =
        ["alerts.yml", "corners.yml"].map(|name| root.join("tests/rules").join(name)).into();
    let shared = std::fs::read_dir(root.join("../shared/rules")).into_iter().flatten().flatten();
    let is_yaml = |path: &PathBuf| path.extension().is_some_and(|e| e == "yaml" || e == "yml");
    paths.extend(shared.map(|entry| entry.path()).filter(is_yaml));
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).expect("a text");
            let name = path.file_stem().expect("a name").to_string_lossy();
            parse_rules(&name, &unwrapped(&text), &FileOptions::default()).expect("valid rules")
        })
        .collect()
}

/// The specification of an object of the operator; a rule file as it is.
fn unwrapped(text: &str) -> String {
    match text.split_once("\nspec:\n") {
        Some((_, spec)) => {
            spec.lines().map(|l| l.strip_prefix("  ").unwrap_or(l).to_owned() + "\n").collect()
        }
        None => text.to_owned(),
    }
}

/// A rule file of one group, as JSON, which is YAML. `for` and
/// `keep_firing_for` are divided by `hurry`; alerts are labelled with the
/// group's number, as several files may have an alert of one name, and its
/// series then depends on who is faster.
pub fn group_file(group: &GroupSpec, number: usize, hurry: i64) -> String {
    let rule = |rule: &RuleSpec| {
        let mut out = serde_json::json!({"expr": rule.expr_text, "labels": rule.labels});
        match &rule.kind {
            SpecKind::Record => out["record"] = rule.name.clone().into(),
            SpecKind::Alert { for_ms, keep_firing_for_ms, annotations } => {
                out["alert"] = rule.name.clone().into();
                out["labels"]["from"] = number.to_string().into();
                out["for"] = format!("{}ms", for_ms / hurry).into();
                out["keep_firing_for"] = format!("{}ms", keep_firing_for_ms / hurry).into();
                out["annotations"] = serde_json::json!(annotations);
            }
        }
        out
    };
    let mut out = serde_json::json!({
        "name": group.name,
        "limit": group.limit,
        "labels": group.labels,
        "rules": group.rules.iter().map(rule).collect::<Vec<_>>(),
    });
    for (name, ms) in [("interval", group.interval_ms), ("query_offset", group.query_offset_ms)] {
        if let Some(ms) = ms {
            out[name] = format!("{ms}ms").into();
        }
    }
    serde_json::json!({"groups": [out]}).to_string()
}

/// A series and how it goes.
pub struct Series {
    /// Sorted, the name among them.
    pub labels: Vec<(String, String)>,
    seed: u64,
    /// Of a histogram's bucket: which part of all observations it has.
    share: f64,
}

/// Series for all selectors of these rules, but for what rules write.
pub fn series_for(files: &[RuleFile]) -> Vec<Series> {
    let rules = || files.iter().flat_map(|file| &file.groups).flat_map(|group| &group.rules);
    let recorded: BTreeSet<&str> = rules()
        .filter(|rule| rule.kind == SpecKind::Record)
        .map(|rule| rule.name.as_str())
        .chain(["ALERTS", "ALERTS_FOR_STATE"])
        .collect();
    // Metrics that meet in one rule have the labels that this rule names.
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut selectors = Vec::new();
    for rule in rules() {
        let mut labels = template_labels(rule);
        visit(&rule.expr, &mut |_| {}, &mut |names| labels.extend(names.iter().cloned()));
        let mut found = Vec::new();
        visit(&rule.expr, &mut |selector| found.push(selector), &mut |_| {});
        for selector in found {
            for name in names(selector) {
                if !recorded.contains(name.as_str()) {
                    wanted.entry(name.clone()).or_default().extend(labels.iter().cloned());
                    selectors.push((name, selector));
                }
            }
        }
    }
    let mut all = BTreeSet::new();
    for (name, selector) in selectors {
        for variant in 0..VARIANTS {
            let labels = labels_of(&name, selector, &wanted[&name], variant);
            if name.ends_with("_bucket") && !labels.contains_key("le") {
                all.extend(BOUNDS.map(|bound| {
                    let mut labels = labels.clone();
                    labels.insert("le".to_owned(), bound.to_owned());
                    labels
                }));
            } else {
                all.insert(labels);
            }
        }
    }
    all.into_iter().map(Series::new).collect()
}

/// Names behind `$labels.` in the templates of a rule.
fn template_labels(rule: &RuleSpec) -> BTreeSet<String> {
    let SpecKind::Alert { annotations, .. } = &rule.kind else { return BTreeSet::new() };
    let texts = annotations.values().chain(rule.labels.values());
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    texts
        .flat_map(|text| text.split("$labels.").skip(1))
        .map(|part| part.split(|c| !is_name(c)).next().unwrap_or_default().to_owned())
        .collect()
}

/// Hands out the selectors of an expression and the labels it groups or
/// matches by.
fn visit<'e>(
    expr: &'e Expr,
    selector: &mut dyn FnMut(&'e VectorSelector),
    labels: &mut dyn FnMut(&'e [String]),
) {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => {}
        ExprKind::Vector(found) => selector(found),
        ExprKind::Matrix(matrix) => selector(&matrix.selector),
        ExprKind::Subquery(subquery) => visit(&subquery.expr, selector, labels),
        ExprKind::Call(call) => call.args.iter().for_each(|arg| visit(arg, selector, labels)),
        ExprKind::Aggregate(aggregate) => {
            if !aggregate.grouping.without {
                labels(&aggregate.grouping.labels);
            }
            visit(&aggregate.expr, selector, labels);
            aggregate.param.iter().for_each(|param| visit(param, selector, labels));
        }
        ExprKind::Binary(binary) => {
            if let Some(matching) = &binary.matching {
                if matching.on {
                    labels(&matching.labels);
                }
                labels(&matching.include);
            }
            visit(&binary.lhs, selector, labels);
            visit(&binary.rhs, selector, labels);
        }
        ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => visit(inner, selector, labels),
    }
}

fn names(selector: &VectorSelector) -> Vec<String> {
    let matcher = selector.matchers.iter().find(|m| m.name == "__name__");
    selector
        .name
        .clone()
        .map_or_else(|| matcher.map_or_else(Vec::new, candidates), |name| vec![name])
}

/// Texts that a matcher takes.
fn candidates(matcher: &Matcher) -> Vec<String> {
    match matcher.op {
        MatchOp::Equal => vec![matcher.value.clone()],
        MatchOp::NotEqual | MatchOp::NotRegex => Vec::new(),
        MatchOp::Regex => {
            let inner = matcher.value.trim_start_matches("^").trim_end_matches('$');
            let inner = inner.strip_prefix('(').and_then(|i| i.strip_suffix(')')).unwrap_or(inner);
            let simple = |alternative: &str| {
                let text = alternative.replace(".*", "").replace(".+", "x").replace("[0-9]", "1");
                text.replace(['+', '?', '*', '(', ')', '\\'], "")
            };
            let found = inner.split('|').map(simple).filter(|text| matcher.matches(text));
            found.collect()
        }
    }
}

fn labels_of(
    name: &str,
    selector: &VectorSelector,
    wanted: &BTreeSet<String>,
    variant: usize,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([("__name__".to_owned(), name.to_owned())]);
    for label in wanted.iter().filter(|label| *label != "le") {
        labels.insert(label.clone(), format!("{label}-{variant}"));
    }
    for matcher in selector.matchers.iter().filter(|matcher| matcher.name != "__name__") {
        let texts = candidates(matcher);
        if let Some(text) = texts.get(variant % texts.len().max(1)) {
            labels.insert(matcher.name.clone(), text.clone());
        }
    }
    labels.retain(|_, value| !value.is_empty());
    labels
}

/// FNV-1a.
fn hash<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let mixed = texts.flat_map(str::bytes).fold(0xcbf2_9ce4_8422_2325, add);
    (mixed ^ mixed >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

impl Series {
    fn new(labels: BTreeMap<String, String>) -> Self {
        // Buckets of one histogram rise together.
        let parts = labels.iter().filter(|(name, _)| *name != "le");
        let seed = hash(parts.flat_map(|(name, value)| [name.as_str(), value.as_str()]));
        let share = match labels.get("le").map(String::as_str) {
            None | Some("+Inf") => 1.0,
            Some(bound) => bound.parse().map_or(1.0, |bound: f64| bound / (bound + 1.0)),
        };
        Self { labels: labels.into_iter().collect(), seed, share }
    }

    fn name(&self) -> &str {
        self.labels.iter().find(|(name, _)| name == "__name__").map_or("", |(_, name)| name)
    }

    /// The value at a time in seconds; [`STALE`] where it ends for a while,
    /// `None` where there is none. `step_s` is the time between two samples.
    pub fn value(&self, time_s: i64, step_s: i64) -> Option<f64> {
        // Some series go away for two of ten minutes.
        let gone_s = (time_s + (self.seed % 600) as i64) % 600;
        if self.seed % 11 == 3 && gone_s < 120 {
            return (gone_s < step_s).then_some(STALE);
        }
        let period_s = 60 + (self.seed / 7 % 240) as i64;
        let phase_s = (time_s + (self.seed % 991) as i64).rem_euclid(period_s);
        let name = self.name();
        let is_counter =
            ["_total", "_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end));
        let value = if is_counter {
            // Rises faster in the first half of each period; some are reset.
            let wrap_s = if self.seed.is_multiple_of(5) { 1_500 } else { 86_400 };
            let at_s = time_s % wrap_s;
            let busy_s = at_s / period_s * (period_s / 2) + (at_s % period_s).min(period_s / 2);
            let rate = (self.seed % 13) as f64 / 4.0;
            ((rate * at_s as f64 + 7.5 * busy_s as f64) * self.share * 8.0).floor() / 8.0
        } else if name.contains("timestamp") || name.ends_with("_time") {
            (time_s - (self.seed % 5_000) as i64) as f64
        } else {
            let part = phase_s as f64 / period_s as f64;
            match self.seed % 7 {
                0 | 1 => f64::from(u8::from(part < 0.5)),
                2 => 1.0,
                3 => (part * 100.0).floor() + 0.25,
                4 => (self.seed % 1_000_000_007) as f64,
                5 => (part * 64.0).floor() / 64.0,
                _ => 1e6 * (1.0 - (part * 100.0).floor() / 100.0),
            }
        };
        Some(value)
    }
}
