//! What does a test file say? Promtool's format as checked values.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use narthex_storage::labels::Labels;

use crate::api::parse_time_ms;
use crate::config::glob::glob;
use crate::config::yaml::{self, Entry, Node, Position, Value};
use crate::template::{duration, quote};

/// One file of tests.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct TestFile {
    pub(super) rule_files: Vec<PathBuf>,
    pub(super) evaluation_interval_ms: i64,
    pub(super) group_eval_order: Vec<String>,
    pub(super) fuzzy_compare: bool,
    pub(super) tests: Vec<Test>,
}

/// One of `tests`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) interval_ms: i64,
    /// `start_timestamp`: when the first sample and evaluation are; times in
    /// tests count from there.
    pub(super) start_ms: i64,
    /// Series and values, in the notation of test scripts.
    pub(super) input_series: Vec<(String, String)>,
    pub(super) alert_tests: Vec<AlertTest>,
    pub(super) expr_tests: Vec<ExprTest>,
    pub(super) external_labels: Labels,
    pub(super) external_url: String,
}

/// One of `alert_rule_test`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct AlertTest {
    pub(super) eval_time_ms: i64,
    pub(super) alertname: String,
    /// Labels and annotations.
    pub(super) expected: Vec<(Labels, BTreeMap<String, String>)>,
}

/// One of `promql_expr_test`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ExprTest {
    pub(super) expr: String,
    pub(super) eval_time_ms: i64,
    pub(super) expected: Vec<ExpectedSample>,
}

/// One of `exp_samples`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ExpectedSample {
    pub(super) labels: String,
    pub(super) value: f64,
    /// Counts instead of the value if not empty.
    pub(super) histogram: String,
}

struct Reader<'a> {
    file: &'a str,
    errors: Vec<String>,
}

/// Reads a file of tests and finds its rule files.
pub(super) fn read(path: &Path) -> Result<TestFile, String> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let mut file = parse(&name, &text)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    for pattern in &file.rule_files {
        let pattern = directory.join(pattern);
        let files = glob(&pattern);
        if files.is_empty() {
            eprintln!("  WARNING: no file match pattern {}", pattern.display());
        }
        found.extend(files);
    }
    file.rule_files = found;
    Ok(file)
}

pub(super) fn parse(name: &str, text: &str) -> Result<TestFile, String> {
    let root = yaml::parse(text)
        .map_err(|e| format!("{name}:{}:{}: {}", e.at.line, e.at.column, e.message))?;
    let mut reader = Reader { file: name, errors: Vec::new() };
    let file = reader.file(&root);
    if reader.errors.is_empty() { Ok(file) } else { Err(reader.errors.join("\n")) }
}

impl Reader<'_> {
    fn error(&mut self, at: Position, message: impl std::fmt::Display) {
        self.errors.push(format!("{}:{}:{}: {message}", self.file, at.line, at.column));
    }

    fn unknown(&mut self, entry: &Entry, what: &str) {
        self.error(entry.at, format!("field {} not found in {what}", entry.key));
    }

    fn entries<'n>(&mut self, node: &'n Node) -> &'n [Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.error(node.at, "expected a mapping");
                &[]
            }
        }
    }

    fn items<'n>(&mut self, node: &'n Node) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            Value::Null => &[],
            _ => {
                self.error(node.at, "expected a list");
                &[]
            }
        }
    }

    fn text(&mut self, node: &Node) -> String {
        match &node.value {
            Value::Scalar(text) => text.clone(),
            Value::Null => String::new(),
            _ => {
                self.error(node.at, "expected a text");
                String::new()
            }
        }
    }

    fn duration_ms(&mut self, node: &Node) -> i64 {
        let text = self.text(node);
        duration::parse_ms(&text).unwrap_or_else(|message| {
            self.error(node.at, message);
            0
        })
    }

    fn time_ms(&mut self, node: &Node) -> i64 {
        let text = self.text(node);
        parse_time_ms(&text).unwrap_or_else(|| {
            self.error(node.at, format!("{} is not a time", quote(&text)));
            0
        })
    }

    fn number(&mut self, node: &Node) -> f64 {
        let text = self.text(node);
        let number = match text.trim_start_matches('+').to_ascii_lowercase().as_str() {
            ".inf" => Some(f64::INFINITY),
            "-.inf" => Some(f64::NEG_INFINITY),
            ".nan" => Some(f64::NAN),
            number if number.contains(|c: char| c.is_ascii_digit()) => {
                number.replace('_', "").parse().ok()
            }
            _ => None,
        };
        number.unwrap_or_else(|| {
            self.error(node.at, format!("{} is not a number", quote(&text)));
            0.0
        })
    }

    fn pairs(&mut self, node: &Node) -> Vec<(String, String)> {
        let entries = self.entries(node);
        entries.iter().map(|entry| (entry.key.clone(), self.text(&entry.value))).collect()
    }

    fn file(&mut self, root: &Node) -> TestFile {
        let mut file = TestFile { evaluation_interval_ms: 60_000, ..TestFile::default() };
        let mut tests = Vec::new();
        for entry in self.entries(root) {
            let value = &entry.value;
            match entry.key.as_str() {
                "rule_files" => {
                    file.rule_files =
                        self.items(value).iter().map(|n| PathBuf::from(self.text(n))).collect();
                }
                "evaluation_interval" => {
                    let ms = self.duration_ms(value);
                    file.evaluation_interval_ms = if ms == 0 { 60_000 } else { ms };
                }
                "group_eval_order" => {
                    file.group_eval_order =
                        self.items(value).iter().map(|node| self.text(node)).collect();
                    let mut seen = HashSet::new();
                    if let Some(twice) = file.group_eval_order.iter().find(|n| !seen.insert(*n)) {
                        let message = format!("group name repeated in evaluation order: {twice}");
                        self.error(value.at, message);
                    }
                }
                "fuzzy_compare" => file.fuzzy_compare = self.text(value) == "true",
                "tests" => tests = self.items(value).to_vec(),
                _ => self.unknown(entry, "a test file"),
            }
        }
        file.tests = tests.iter().map(|node| self.test(node)).collect();
        for test in file.tests.iter_mut().filter(|test| test.interval_ms == 0) {
            test.interval_ms = file.evaluation_interval_ms;
        }
        file
    }

    fn test(&mut self, node: &Node) -> Test {
        let mut test = Test::default();
        for entry in self.entries(node) {
            let value = &entry.value;
            match entry.key.as_str() {
                "name" => test.name = self.text(value),
                "interval" => test.interval_ms = self.duration_ms(value),
                "start_timestamp" => test.start_ms = self.time_ms(value),
                "input_series" => {
                    test.input_series = self.items(value).iter().map(|n| self.series(n)).collect();
                }
                "alert_rule_test" => {
                    test.alert_tests =
                        self.items(value).iter().map(|node| self.alert_test(node)).collect();
                }
                "promql_expr_test" => {
                    test.expr_tests =
                        self.items(value).iter().map(|node| self.expr_test(node)).collect();
                }
                "external_labels" => test.external_labels = Labels::from_pairs(self.pairs(value)),
                "external_url" => test.external_url = self.text(value),
                _ => self.unknown(entry, "a test"),
            }
        }
        let name = &test.name;
        if let Some(wrong) = test.alert_tests.iter().find(|alert| alert.alertname.is_empty()) {
            let group =
                if name.is_empty() { String::new() } else { format!(" (in TestGroup {name})") };
            let time = duration::format_ms(wrong.eval_time_ms);
            self.error(
                node.at,
                format!(
                    "an item under alert_rule_test misses required attribute alertname at \
                     eval_time {time}{group}"
                ),
            );
        }
        test
    }

    fn series(&mut self, node: &Node) -> (String, String) {
        let mut series = (String::new(), String::new());
        for entry in self.entries(node) {
            match entry.key.as_str() {
                "series" => series.0 = self.text(&entry.value),
                "values" => series.1 = self.text(&entry.value),
                _ => self.unknown(entry, "a series"),
            }
        }
        series
    }

    fn alert_test(&mut self, node: &Node) -> AlertTest {
        let mut test = AlertTest::default();
        let mut expected = Vec::new();
        for entry in self.entries(node) {
            match entry.key.as_str() {
                "eval_time" => test.eval_time_ms = self.duration_ms(&entry.value),
                "alertname" => test.alertname = self.text(&entry.value),
                "exp_alerts" => expected = self.items(&entry.value).to_vec(),
                _ => self.unknown(entry, "an alert_rule_test"),
            }
        }
        for node in &expected {
            let (mut labels, mut annotations) = (Vec::new(), BTreeMap::new());
            for entry in self.entries(node) {
                match entry.key.as_str() {
                    "exp_labels" => labels = self.pairs(&entry.value),
                    "exp_annotations" => {
                        annotations = self.pairs(&entry.value).into_iter().collect();
                    }
                    _ => self.unknown(entry, "an expected alert"),
                }
            }
            labels.push(("alertname".to_owned(), test.alertname.clone()));
            test.expected.push((Labels::from_pairs(labels), annotations));
        }
        test
    }

    fn expr_test(&mut self, node: &Node) -> ExprTest {
        let mut test = ExprTest::default();
        for entry in self.entries(node) {
            match entry.key.as_str() {
                "expr" => test.expr = self.text(&entry.value),
                "eval_time" => test.eval_time_ms = self.duration_ms(&entry.value),
                "exp_samples" => {
                    let items = self.items(&entry.value);
                    test.expected = items.iter().map(|n| self.expected_sample(n)).collect();
                }
                _ => self.unknown(entry, "a promql_expr_test"),
            }
        }
        test
    }

    fn expected_sample(&mut self, node: &Node) -> ExpectedSample {
        let mut sample = ExpectedSample::default();
        for entry in self.entries(node) {
            match entry.key.as_str() {
                "labels" => sample.labels = self.text(&entry.value),
                "value" => sample.value = self.number(&entry.value),
                "histogram" => sample.histogram = self.text(&entry.value),
                _ => self.unknown(entry, "an expected sample"),
            }
        }
        sample
    }
}
