//! Does it come out as expected? One test: samples in, evaluations, checks.

use std::sync::Arc;

use narthex_query::engine::{Engine, EngineOptions};
use narthex_query::memory::MemoryStorage;
use narthex_query::parse::ParseOptions;
use narthex_query::parse::series::{SequenceValue, parse_metric, parse_series};
use narthex_storage::append::{Appendable as _, SourceId, SyncClass};
use narthex_storage::histogram::Histogram;
use narthex_storage::labels::Labels;
use narthex_storage::sample::Value;

use super::TestOptions;
use super::file::{AlertTest, ExpectedSample, ExprTest, Test, TestFile};
use super::report::difference;
use crate::notify::{Annotations, Nobody};
use crate::rules::file::{FileOptions, read_rules};
use crate::rules::{AlertState, Context, EngineQuery, Group, GroupOptions, RuleMetrics};
use crate::template::duration::format_ms;
use crate::template::{format_float, quote};

/// Most evaluations of one test.
const MAX_EVALUATIONS: i64 = 10_000_000;

/// A series and what is still to be loaded of it.
struct Input {
    labels: Labels,
    values: Vec<SequenceValue>,
    next: usize,
}

struct Bench {
    storage: MemoryStorage,
    context: Context,
    inputs: Vec<Input>,
    interval_ms: i64,
    start_ms: i64,
}

/// Runs a test; what is wrong comes back.
pub(super) fn run(file: &TestFile, test: &Test, options: &TestOptions) -> Vec<String> {
    let groups = match load_groups(file, test, options) {
        Ok(groups) => groups,
        Err(errors) => return errors,
    };
    let mut bench = match Bench::new(file, test) {
        Ok(bench) => bench,
        Err(error) => return vec![error],
    };
    let mut failures = Vec::new();
    let interval_ms = file.evaluation_interval_ms;
    let times = test.alert_tests.iter().map(|alert| alert.eval_time_ms);
    let last_ms = times.chain(test.expr_tests.iter().map(|e| e.eval_time_ms)).max().unwrap_or(0);
    if last_ms / interval_ms > MAX_EVALUATIONS {
        return vec![format!("more than {MAX_EVALUATIONS} evaluations")];
    }
    let mut at_ms = 0;
    while at_ms <= last_ms {
        if let Err(error) = bench.load_until(at_ms) {
            failures.push(error);
        }
        let mut errors = Vec::new();
        for group in &groups {
            group.evaluate(test.start_ms.saturating_add(at_ms), &bench.context);
            errors.extend(group.errors().into_iter().map(|(rule, error)| {
                format!("    rule: {rule}, time: {}, err: {error}", go_duration(at_ms))
            }));
        }
        if !errors.is_empty() {
            failures.append(&mut errors);
            return failures;
        }
        let due = |alert: &&AlertTest| (at_ms..at_ms + interval_ms).contains(&alert.eval_time_ms);
        for alert in test.alert_tests.iter().filter(due) {
            failures.extend(check_alerts(alert, test, &groups, options));
        }
        at_ms += interval_ms;
    }
    for expr in &test.expr_tests {
        failures.extend(check_expr(expr, test.start_ms, &bench.context, file.fuzzy_compare));
    }
    failures
}

/// Milliseconds as Go prints a duration, for what promtool prints so.
fn go_duration(ms: i64) -> String {
    crate::template::go_duration(ms.saturating_mul(1_000_000))
}

fn load_groups(
    file: &TestFile,
    test: &Test,
    options: &TestOptions,
) -> Result<Vec<Group>, Vec<String>> {
    let read = FileOptions {
        parse: ParseOptions::default(),
        ignore_unknown_fields: options.ignore_unknown_fields,
    };
    let mut groups = Vec::new();
    for path in &file.rule_files {
        let rules = read_rules(path, &read)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let options = GroupOptions { file: rules.name, default_interval_ms: test.interval_ms };
        for spec in &rules.groups {
            groups.push(Group::new(spec, &options).map_err(|error| vec![error])?);
        }
    }
    let order = |group: &Group| {
        file.group_eval_order.iter().position(|name| name == group.name()).unwrap_or(0)
    };
    groups.sort_by_key(order);
    Ok(groups)
}

impl Bench {
    fn new(file: &TestFile, test: &Test) -> Result<Self, String> {
        let mut inputs: Vec<Input> = Vec::new();
        for (series, values) in &test.input_series {
            let text = format!("{series} {values}");
            let parsed = parse_series(&text).map_err(|error| format!("{text}: {error}"))?;
            // As in a script, of a series given twice the last counts.
            inputs.retain(|input| input.labels != parsed.labels);
            inputs.push(Input { labels: parsed.labels, values: parsed.values, next: 0 });
        }
        let storage = MemoryStorage::new();
        let engine = Engine::new(EngineOptions {
            default_subquery_step_ms: file.evaluation_interval_ms,
            ..EngineOptions::default()
        });
        let query = EngineQuery {
            engine: Arc::new(engine),
            queryable: Arc::new(storage.clone()),
            parse: ParseOptions::default(),
            log: None,
        };
        let context = Context {
            query: Arc::new(query),
            appendable: Arc::new(storage.clone()),
            notify: Arc::new(Nobody),
            external_labels: test.external_labels.clone(),
            external_url: test.external_url.clone(),
            template_url: None,
            query_offset_ms: 0,
            resend_delay_ms: 0,
            outage_tolerance_ms: 0,
            for_grace_ms: 0,
            concurrent_rules: None,
            metrics: RuleMetrics::default(),
        };
        Ok(Self {
            storage,
            context,
            inputs,
            interval_ms: test.interval_ms,
            start_ms: test.start_ms,
        })
    }

    /// Stores all samples up to `until_ms` after the start that are not there
    /// yet.
    fn load_until(&mut self, until_ms: i64) -> Result<(), String> {
        let mut appender = self.storage.appender(SourceId(0), SyncClass::Scrape);
        let mut error = None;
        for input in &mut self.inputs {
            let fail = |e: &dyn std::fmt::Display| format!("loading {}: {e}", input.labels);
            let series = appender.series(&input.labels).map_err(|e| fail(&e))?;
            while let Some(value) = input.values.get(input.next) {
                let position = i64::try_from(input.next).unwrap_or(i64::MAX);
                let time_ms = position.saturating_mul(self.interval_ms);
                if time_ms > until_ms {
                    break;
                }
                input.next += 1;
                let time_ms = self.start_ms.saturating_add(time_ms);
                let appended = match value {
                    SequenceValue::Omitted => Ok(()),
                    SequenceValue::Float(value) => appender.append(series, time_ms, 0, *value),
                    SequenceValue::Histogram { value, .. } => {
                        appender.append_histogram(series, time_ms, 0, value)
                    }
                };
                if let Err(refused) = appended {
                    error.get_or_insert(fail(&refused));
                }
            }
        }
        appender.commit().map_err(|e| e.to_string())?;
        error.map_or(Ok(()), Err)
    }
}

type Found = Vec<(Labels, Annotations)>;

fn check_alerts(
    expected: &AlertTest,
    test: &Test,
    groups: &[Group],
    options: &TestOptions,
) -> Option<String> {
    let mut got: Found = Vec::new();
    for group in groups {
        for (i, _) in group
            .rules()
            .iter()
            .enumerate()
            .filter(|(_, r)| r.is_alerting() && r.name == expected.alertname)
        {
            let firing =
                group.alerts(i).into_iter().filter(|alert| alert.state == AlertState::Firing);
            got.extend(firing.map(|alert| (alert.labels, alert.annotations)));
        }
    }
    let mut wanted: Found = expected.expected.clone();
    got.sort();
    wanted.sort();
    if got == wanted {
        return None;
    }
    let name =
        if test.name.is_empty() { String::new() } else { format!("    name: {},\n", test.name) };
    let head = format!(
        "{name}    alertname: {}, time: {},",
        expected.alertname,
        format_ms(expected.eval_time_ms)
    );
    if options.diff {
        return Some(format!("{head}\n{}", difference(&lines(&wanted), &lines(&got))));
    }
    Some(format!("{head} \n        exp:{}, \n        got:{}", indented(&wanted), indented(&got)))
}

fn annotations_text(annotations: &Annotations) -> String {
    let pairs: Vec<String> =
        annotations.iter().map(|(name, text)| format!("{name}={}", quote(text))).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// Each label and annotation on a line of its own.
fn lines(found: &Found) -> String {
    let mut out = String::new();
    for (i, (labels, annotations)) in found.iter().enumerate() {
        out.push_str(&format!("alert {i}\n"));
        for (name, value) in labels {
            out.push_str(&format!("  label {name}={}\n", quote(value)));
        }
        for (name, value) in annotations {
            out.push_str(&format!("  annotation {name}={}\n", quote(value)));
        }
    }
    out
}

/// As promtool prints alerts.
fn indented(found: &Found) -> String {
    if found.is_empty() {
        return "[]".to_owned();
    }
    let pad = " ".repeat(12);
    let mut out = "[".to_owned();
    for (i, (labels, annotations)) in found.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let annotations = annotations_text(annotations);
        out.push_str(&format!(
            "{comma}\n{pad}{i}:\n{pad}  Labels:{labels}\n{pad}  Annotations:{annotations}"
        ));
    }
    out + "\n" + &pad + "]"
}

/// A sample as it is compared and shown.
#[derive(Debug, Clone, PartialEq)]
struct Shown {
    labels: Labels,
    value: f64,
    histogram: Option<Histogram>,
}

fn check_expr(test: &ExprTest, start_ms: i64, context: &Context, fuzzy: bool) -> Option<String> {
    let time = format_ms(test.eval_time_ms);
    let head = format!("    expr: {}, time: {time},", quote(&test.expr));
    let result = match context.query.text(&test.expr, start_ms.saturating_add(test.eval_time_ms)) {
        Ok(result) => result,
        Err(error) => return Some(format!("{head} err: {error}")),
    };
    let mut got: Vec<Shown> = result
        .into_iter()
        .map(|sample| match sample.value {
            Value::Float(value) => Shown { labels: sample.labels, value, histogram: None },
            Value::Histogram(histogram) => {
                Shown { labels: sample.labels, value: 0.0, histogram: Some(compact(&histogram)) }
            }
        })
        .collect();
    let mut wanted = Vec::new();
    for sample in &test.expected {
        match shown(sample) {
            Ok(shown) => wanted.push(shown),
            Err(error) => {
                let labels = quote(&sample.labels);
                return Some(format!("{head} err: labels {labels}: {error}"));
            }
        }
    }
    got.sort_by(|a, b| a.labels.cmp(&b.labels));
    wanted.sort_by(|a, b| a.labels.cmp(&b.labels));
    let equal = got.len() == wanted.len()
        && got.iter().zip(&wanted).all(|(a, b)| {
            a.labels == b.labels
                && a.histogram == b.histogram
                && same_number(a.value, b.value, fuzzy)
        });
    (!equal).then(|| {
        let (wanted, got) = (samples_text(&wanted), samples_text(&got));
        format!("{head}\n        exp: {wanted}\n        got: {got}")
    })
}

#[allow(clippy::float_cmp, reason = "tests ask for exactly this")]
fn same_number(a: f64, b: f64, fuzzy: bool) -> bool {
    a == b || (fuzzy && (a.next_up() == b || a.next_down() == b))
}

fn compact(histogram: &Histogram) -> Histogram {
    let mut histogram = histogram.clone();
    histogram.compact(0);
    histogram
}

fn shown(sample: &ExpectedSample) -> Result<Shown, String> {
    let labels = parse_metric(&sample.labels).map_err(|error| error.to_string())?;
    if sample.histogram.is_empty() {
        return Ok(Shown { labels, value: sample.value, histogram: None });
    }
    let text = format!("{{}} {}", sample.histogram);
    let values = parse_series(&text).map_err(|error| error.to_string())?.values;
    match values.as_slice() {
        [SequenceValue::Histogram { value, .. }] => {
            Ok(Shown { labels, value: 0.0, histogram: Some(compact(value)) })
        }
        [_] => Err(format!("expected histogram, got {}", sample.histogram)),
        values => Err(format!("expected 1 value, got {}", values.len())),
    }
}

fn samples_text(samples: &[Shown]) -> String {
    if samples.is_empty() {
        return "nil".to_owned();
    }
    let text = |sample: &Shown| match &sample.histogram {
        Some(histogram) => format!("{} {histogram}", sample.labels),
        None => format!("{} {}", sample.labels, format_float(sample.value, 'E', None)),
    };
    samples.iter().map(text).collect::<Vec<_>>().join(", ")
}
