//! What rules does a file hold? Rule files as checked groups.
//!
//! The checks and their words are Prometheus'; each error names file, line
//! and column. What comes out is ready to be evaluated: expressions and
//! templates are parsed once, here.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use narthex_query::ast::Expr;
use narthex_query::parse::{ParseOptions, parse};

use crate::config::yaml::{self, Entry, Node, Position, Value};
use crate::template::{Template, duration, quote};

/// The groups of one file, in its order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RuleFile {
    /// How the file is called in errors and in the API.
    pub name: String,
    /// The groups.
    pub groups: Vec<GroupSpec>,
}

/// One of `groups`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupSpec {
    /// Unique within its file.
    pub name: String,
    /// Between two evaluations, in milliseconds; `None` is the global one.
    pub interval_ms: Option<i64>,
    /// How much older the data that rules see is, in milliseconds; `None` is
    /// the global one.
    pub query_offset_ms: Option<i64>,
    /// Most alerts or series of one rule; 0 is no limit.
    pub limit: usize,
    /// Added to all rules that do not set them.
    pub labels: BTreeMap<String, String>,
    /// The rules, in order of evaluation.
    pub rules: Vec<RuleSpec>,
}

/// One of `rules`.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleSpec {
    /// `record` or `alert`.
    pub kind: SpecKind,
    /// The metric that is recorded, or the alert's name.
    pub name: String,
    /// The expression as written.
    pub expr_text: String,
    /// The expression.
    pub expr: Expr,
    /// Labels as written: texts of recording rules, templates of alerts.
    pub labels: BTreeMap<String, String>,
    /// Where the rule stands: line and column, from 1.
    pub at: (u32, u32),
}

/// What a rule is for.
#[derive(Debug, Clone, PartialEq)]
pub enum SpecKind {
    /// Records its result under its name.
    Record,
    /// Alerts for each series of its result.
    Alert {
        /// How long a series must be there before its alert fires, in
        /// milliseconds.
        for_ms: i64,
        /// How long an alert fires on without its series, in milliseconds.
        keep_firing_for_ms: i64,
        /// Templates.
        annotations: BTreeMap<String, String>,
    },
}

/// Something wrong in a rule file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RuleFileError {
    /// The file.
    pub file: String,
    /// Line from 1; 0 if the file as a whole is meant.
    pub line: u32,
    /// Column from 1.
    pub column: u32,
    /// What is wrong, in Prometheus' words.
    pub message: String,
}

impl fmt::Display for RuleFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: {}", self.file, self.message);
        }
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

/// Most errors that are collected from one file.
const MAX_ERRORS: usize = 1_000;

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileOptions {
    /// Which experimental parts of PromQL are understood.
    pub parse: ParseOptions,
    /// Fields that rule files do not have are passed over.
    pub ignore_unknown_fields: bool,
}

/// Reads the rules in `text`; `name` is shown in errors.
///
/// # Errors
///
/// Everything that is wrong, in the order of the file.
pub fn parse_rules(
    name: &str,
    text: &str,
    options: &FileOptions,
) -> Result<RuleFile, Vec<RuleFileError>> {
    let mut reader = Reader { file: name, options, errors: Vec::new() };
    let file = match yaml::parse(text) {
        Ok(root) => reader.file(&root),
        Err(error) => {
            reader.error(error.at, error.message);
            RuleFile::default()
        }
    };
    if reader.errors.is_empty() { Ok(file) } else { Err(reader.errors) }
}

/// Reads a rule file from disk.
///
/// # Errors
///
/// As [`parse_rules`], or that the file cannot be read.
pub fn read_rules(
    path: &std::path::Path,
    options: &FileOptions,
) -> Result<RuleFile, Vec<RuleFileError>> {
    let name = path.to_string_lossy();
    let fail = |message: String| {
        vec![RuleFileError { file: name.to_string(), line: 0, column: 0, message }]
    };
    let size = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
    if size > yaml::MAX_FILE_BYTES as u64 {
        return Err(fail(format!("the file is larger than {} bytes", yaml::MAX_FILE_BYTES)));
    }
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    parse_rules(&name, &text, options)
}

struct Reader<'a> {
    file: &'a str,
    options: &'a FileOptions,
    errors: Vec<RuleFileError>,
}

/// The raw fields of a rule, before they are checked against each other.
#[derive(Default)]
struct Fields {
    record: (String, Position),
    alert: (String, Position),
    expr: (String, Position),
    for_ms: i64,
    keep_firing_for_ms: i64,
    labels: Vec<(String, String, Position)>,
    annotations: Vec<(String, String, Position)>,
}

impl Reader<'_> {
    fn error(&mut self, at: Position, message: impl Into<String>) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(RuleFileError {
                file: self.file.to_owned(),
                line: at.line,
                column: at.column,
                message: message.into(),
            });
        }
    }

    fn unknown(&mut self, entry: &Entry, type_name: &str) {
        if !self.options.ignore_unknown_fields {
            self.error(entry.at, format!("field {} not found in type {type_name}", entry.key));
        }
    }

    fn entries<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.error(node.at, format!("cannot unmarshal into {what}: expected a mapping"));
                &[]
            }
        }
    }

    fn items<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            Value::Null => &[],
            _ => {
                self.error(node.at, format!("cannot unmarshal into {what}: expected a list"));
                &[]
            }
        }
    }

    fn text(&mut self, node: &Node) -> String {
        match &node.value {
            Value::Scalar(text) => text.clone(),
            Value::Null => String::new(),
            _ => {
                self.error(node.at, "cannot unmarshal into string: expected a text");
                String::new()
            }
        }
    }

    fn duration_ms(&mut self, node: &Node) -> i64 {
        if let Value::Null = node.value {
            return 0;
        }
        let text = self.text(node);
        duration::parse_ms(&text).unwrap_or_else(|message| {
            self.error(node.at, message);
            0
        })
    }

    fn file(&mut self, root: &Node) -> RuleFile {
        let mut file = RuleFile { name: self.file.to_owned(), groups: Vec::new() };
        let mut names = HashSet::new();
        for entry in self.entries(root, "rulefmt.RuleGroups") {
            if entry.key != "groups" {
                self.unknown(entry, "rulefmt.RuleGroups");
                continue;
            }
            for node in self.items(&entry.value, "[]rulefmt.RuleGroup") {
                let group = self.group(node);
                if group.name.is_empty() {
                    self.error(node.at, "Groupname must not be empty");
                }
                if !names.insert(group.name.clone()) {
                    let name = &group.name;
                    self.error(
                        node.at,
                        format!("groupname: \"{name}\" is repeated in the same file"),
                    );
                }
                file.groups.push(group);
            }
        }
        file
    }

    fn group(&mut self, node: &Node) -> GroupSpec {
        let mut group = GroupSpec::default();
        let entries = self.entries(node, "rulefmt.RuleGroup");
        // Errors in rules name the group, whose name may stand after them.
        if let Some(name) = entries.iter().find(|e| e.key == "name") {
            group.name = self.text(&name.value);
        }
        for entry in entries {
            let value = &entry.value;
            match entry.key.as_str() {
                "name" => {}
                "interval" => {
                    group.interval_ms = Some(self.duration_ms(value)).filter(|ms| *ms > 0);
                }
                "query_offset" => group.query_offset_ms = self.optional_ms(value),
                "limit" => group.limit = self.limit(value),
                "labels" => {
                    for (name, text, at) in self.pairs(value) {
                        if let Some(message) = bad_label(&name) {
                            self.error(at, message);
                        }
                        group.labels.insert(name, text);
                    }
                }
                "rules" => {
                    for (i, node) in self.items(value, "[]rulefmt.Rule").iter().enumerate() {
                        let rule = self.rule(node, &group.name, i + 1);
                        group.rules.extend(rule);
                    }
                }
                // Thanos' and the operator's; without meaning here.
                "partial_response_strategy" if self.options.ignore_unknown_fields => {}
                _ => self.unknown(entry, "rulefmt.RuleGroup"),
            }
        }
        group
    }

    fn optional_ms(&mut self, node: &Node) -> Option<i64> {
        (!matches!(node.value, Value::Null)).then(|| self.duration_ms(node))
    }

    fn limit(&mut self, node: &Node) -> usize {
        let text = self.text(node);
        match text.replace('_', "").parse::<i64>() {
            // As in Prometheus, a negative limit is none.
            Ok(limit) => usize::try_from(limit).unwrap_or(0),
            Err(_) if text.is_empty() => 0,
            Err(_) => {
                self.error(node.at, format!("cannot unmarshal !!str `{text}` into int"));
                0
            }
        }
    }

    fn pairs(&mut self, node: &Node) -> Vec<(String, String, Position)> {
        let entries = self.entries(node, "map[string]string");
        entries.iter().map(|e| (e.key.clone(), self.text(&e.value), e.at)).collect()
    }

    /// One rule; `number` counts from 1. `None` if anything is wrong with it.
    fn rule(&mut self, node: &Node, group: &str, number: usize) -> Option<RuleSpec> {
        let errors_before = self.errors.len();
        let mut fields = Fields::default();
        for entry in self.entries(node, "rulefmt.Rule") {
            let value = &entry.value;
            match entry.key.as_str() {
                "record" => fields.record = (self.text(value), value.at),
                "alert" => fields.alert = (self.text(value), value.at),
                "expr" => fields.expr = (self.text(value), value.at),
                "for" => fields.for_ms = self.duration_ms(value),
                "keep_firing_for" => fields.keep_firing_for_ms = self.duration_ms(value),
                "labels" => fields.labels = self.pairs(value),
                "annotations" => fields.annotations = self.pairs(value),
                _ => self.unknown(entry, "rulefmt.Rule"),
            }
        }
        let name =
            if fields.alert.0.is_empty() { &fields.record.0 } else { &fields.alert.0 }.clone();
        let place = format!("group {}, rule {number}, {}: ", quote(group), quote(&name));
        let mut problems = Vec::new();
        let expr = check(&fields, node.at, self.options, &mut problems);
        for (at, message) in problems {
            self.error(at, format!("{place}{message}"));
        }
        let expr = expr.filter(|_| self.errors.len() == errors_before)?;
        let texts = |pairs: Vec<(String, String, Position)>| {
            pairs.into_iter().map(|(name, text, _)| (name, text)).collect()
        };
        let kind = if fields.alert.0.is_empty() {
            SpecKind::Record
        } else {
            SpecKind::Alert {
                for_ms: fields.for_ms,
                keep_firing_for_ms: fields.keep_firing_for_ms,
                annotations: texts(fields.annotations),
            }
        };
        Some(RuleSpec {
            kind,
            name,
            expr_text: fields.expr.0,
            expr,
            labels: texts(fields.labels),
            at: (node.at.line, node.at.column),
        })
    }
}

fn bad_label(name: &str) -> Option<String> {
    (name.is_empty() || name == "__name__").then(|| format!("invalid label name: {name}"))
}

/// Everything that is wrong with a rule; the expression if it can be read.
fn check(
    fields: &Fields,
    at: Position,
    options: &FileOptions,
    problems: &mut Vec<(Position, String)>,
) -> Option<Expr> {
    let (record, record_at) = &fields.record;
    let (alert, alert_at) = &fields.alert;
    if !record.is_empty() && !alert.is_empty() {
        problems.push((*record_at, "only one of 'record' and 'alert' must be set".to_owned()));
    }
    if record.is_empty() && alert.is_empty() {
        let place = [*record_at, *alert_at].into_iter().find(|p| p.line > 0).unwrap_or(at);
        problems.push((place, "one of 'record' or 'alert' must be set".to_owned()));
    }
    let mut parsed = None;
    if fields.expr.0.is_empty() {
        problems.push((at, "field 'expr' must be set in rule".to_owned()));
    } else {
        match parse(&fields.expr.0, &options.parse) {
            Ok(expr) => parsed = Some(expr),
            Err(error) => {
                problems.push((fields.expr.1, format!("could not parse expression: {error}")));
            }
        }
    }
    if !record.is_empty() {
        let mut refuse = |message: String| problems.push((*record_at, message));
        if !fields.annotations.is_empty() {
            refuse("invalid field 'annotations' in recording rule".to_owned());
        }
        if fields.for_ms != 0 {
            refuse("invalid field 'for' in recording rule".to_owned());
        }
        if fields.keep_firing_for_ms != 0 {
            refuse("invalid field 'keep_firing_for' in recording rule".to_owned());
        }
        if record.contains(['{', '}']) {
            refuse(format!(
                "braces present in the recording rule name; should it be in expr?: {record}"
            ));
        }
    }
    for (name, _, at) in &fields.labels {
        problems.extend(bad_label(name).map(|message| (*at, message)));
    }
    for (name, _, at) in &fields.annotations {
        if name.is_empty() {
            problems.push((*at, format!("invalid annotation name: {name}")));
        }
    }
    if !alert.is_empty() {
        let kinds = [("label", &fields.labels), ("annotation", &fields.annotations)];
        for (what, pairs) in kinds {
            for (name, text, at) in pairs {
                if let Err(error) = Template::parse(&format!("__alert_{alert}"), text) {
                    problems.push((*at, format!("{what} {}: {error}", quote(name))));
                }
            }
        }
    }
    parsed
}
