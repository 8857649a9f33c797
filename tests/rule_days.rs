//! Do `narthex test rules` and the real promtool agree over a long time? Every
//! rule file at hand over two simulated hours, or `NARTHEX_RULE_HOURS`, on made
//! up data: first with expectations that are wrong, so that both show all
//! they have got, then with what they have got. Skipped, with the reason
//! printed, where there is no promtool.

mod common;

#[path = "common/rule_data.rs"]
mod rule_data;

use std::collections::{BTreeMap, BTreeSet};

use common::{peer, test_rules};
use narthex::rules::file::{GroupSpec, RuleFile, SpecKind};
use rule_data::{STALE, group_file, rule_files, series_for};
use serde_json::{Value, json};

/// Between two samples and two evaluations.
const STEP_S: i64 = 60;
/// Between two times that are looked at.
const LOOK_S: i64 = 1_800;
/// Durations of alerts are divided by this, so that they change more often.
const HURRY: i64 = 3;

/// What is expected of an expression at a time in seconds.
type Numbers = BTreeMap<(String, i64), f64>;

/// The values of a series as test files note them.
fn notation(series: &rule_data::Series, seconds: i64) -> String {
    let value = |at_s| match series.value(at_s, STEP_S) {
        None => "_".to_owned(),
        Some(value) if value.to_bits() == STALE.to_bits() => "stale".to_owned(),
        Some(value) => value.to_string(),
    };
    (0..=seconds / STEP_S).map(|i| value(i * STEP_S)).collect::<Vec<_>>().join(" ")
}

/// Expressions that tell what the rules of a group have written.
fn expressions(group: &GroupSpec) -> Vec<String> {
    let mut all = vec![
        "count(ALERTS) or vector(0)".to_owned(),
        "count(ALERTS{alertstate='firing'}) or vector(0)".to_owned(),
        "max(ALERTS_FOR_STATE) or vector(0)".to_owned(),
    ];
    for rule in group.rules.iter().filter(|rule| rule.kind == SpecKind::Record) {
        for what in ["count", "max", "min"] {
            all.push(format!("{what}({}) or vector(0)", rule.name));
        }
    }
    all
}

/// A file with one test of one group. Alerts are expected nowhere, at times
/// that are not in `firing`.
fn test_file(
    group: &GroupSpec,
    rules: &str,
    seconds: i64,
    numbers: &Numbers,
    firing: &BTreeSet<(String, String)>,
) -> Value {
    let times: Vec<i64> = (1..=seconds / LOOK_S).map(|i| i * LOOK_S).collect();
    let alone = RuleFile { name: String::new(), groups: vec![group.clone()] };
    let inputs = series_for(std::slice::from_ref(&alone));
    let input = |series: &rule_data::Series| {
        let name = |(n, v): &(String, String)| format!("{n}={v:?}");
        let labels: Vec<String> = series.labels.iter().map(name).collect();
        json!({"series": format!("{{{}}}", labels.join(",")), "values": notation(series, seconds)})
    };
    let alerts = group.rules.iter().filter(|rule| rule.kind != SpecKind::Record);
    let names: BTreeSet<&str> = alerts.map(|rule| rule.name.as_str()).collect();
    let alert_tests: Vec<Value> = names
        .iter()
        .flat_map(|name| times.iter().map(move |time_s| (name, format!("{}m", time_s / 60))))
        .filter(|(name, time)| !firing.contains(&((*name).to_string(), time.clone())))
        .map(|(name, time)| json!({"eval_time": time, "alertname": name, "exp_alerts": []}))
        .collect();
    let expr_tests: Vec<Value> = expressions(group)
        .into_iter()
        .flat_map(|expr| times.iter().map(move |time_s| (expr.clone(), *time_s)))
        .map(|(expr, time_s)| {
            let value = numbers.get(&(expr.clone(), time_s)).copied().unwrap_or(-1.0);
            let value = if value.is_finite() { json!(value) } else { json!(format!("@{value}@")) };
            let samples = json!([{"labels": "{}", "value": value}]);
            json!({"expr": expr, "eval_time": format!("{}m", time_s / 60), "exp_samples": samples})
        })
        .collect();
    json!({
        "rule_files": [rules],
        "evaluation_interval": format!("{STEP_S}s"),
        "fuzzy_compare": true,
        "tests": [{
            "interval": format!("{STEP_S}s"),
            "external_labels": {"region": "eu"},
            "input_series": inputs.iter().map(input).collect::<Vec<_>>(),
            "alert_rule_test": alert_tests,
            "promql_expr_test": expr_tests,
        }],
    })
}

/// What follows a word, up to a comma.
fn after<'t>(line: &'t str, word: &str) -> Option<&'t str> {
    line.split_once(word)?.1.strip_suffix(',').map(str::trim)
}

/// Seconds of a time such as `1d1h30m`.
fn seconds(text: &str) -> i64 {
    let units = [('d', 86_400), ('h', 3_600), ('m', 60)];
    let add = |(rest, sum): (_, i64), (unit, seconds): &(char, i64)| {
        let (number, rest): (&str, &str) = str::split_once(rest, *unit).unwrap_or(("0", rest));
        (rest, sum + number.parse::<i64>().expect("a number") * seconds)
    };
    units.iter().fold((text, 0), add).1
}

/// Learns from what was said of wrong expectations.
fn learn(said: &[String]) -> (Numbers, BTreeSet<(String, String)>) {
    let (mut numbers, mut firing) = (Numbers::new(), BTreeSet::new());
    let mut expr = None;
    for line in said {
        if let Some(rest) = line.strip_prefix("alertname: ") {
            let (name, _) = rest.split_once(',').expect("a time");
            let time = after(rest, "time: ").expect("a time");
            firing.insert((name.to_owned(), format!("{}m", seconds(time) / 60)));
        } else if let Some(rest) = line.strip_prefix("expr: ") {
            let (text, _) = rest.rsplit_once(", time: ").expect("a time");
            let text: String = serde_json::from_str(text).expect("quoted");
            expr = Some((text, seconds(after(rest, "\", time: ").expect("a time"))));
        } else if let (Some(key), Some(got)) = (&expr, line.strip_prefix("got: {} ")) {
            numbers.insert(key.clone(), got.parse().unwrap_or(f64::NAN));
        }
    }
    (numbers, firing)
}

#[test]
fn both_agree_over_a_long_time() {
    let Some(promtool) = peer("promtool") else { return };
    let narthex = common::narthex();
    let hours: i64 = std::env::var("NARTHEX_RULE_HOURS")
        .map_or(2, |text| text.parse().expect("NARTHEX_RULE_HOURS is a number"));
    let directory = tempfile::tempdir().expect("a directory");
    let (mut failures, mut passes, mut groups) = (0, 0, 0);
    for (i, group) in rule_files().iter().flat_map(|file| &file.groups).enumerate() {
        let rules = directory.path().join(format!("{i}.yml"));
        std::fs::write(&rules, group_file(group, i, HURRY)).expect("written");
        let rules = rules.display().to_string();
        let path = directory.path().join(format!("{i}_test.yml"));
        let both = |numbers: &Numbers, firing: &BTreeSet<(String, String)>| {
            let file = test_file(group, &rules, hours * 3_600, numbers, firing);
            // JSON has no words for these.
            let mut text = file.to_string();
            for (word, number) in [("inf", ".inf"), ("-inf", "-.inf"), ("NaN", ".nan")] {
                text = text.replace(&format!("\"@{word}@\""), number);
            }
            std::fs::write(&path, text).expect("written");
            let (ours, theirs) = (test_rules(&narthex, &path), test_rules(&promtool, &path));
            let parted = ours.1.iter().zip(&theirs.1).position(|(a, b)| a != b);
            let shown = parted.map(|at| (&ours.1[at], &theirs.1[at]));
            assert!(ours == theirs, "group {}: {shown:?}", group.name);
            ours
        };
        let (code, said) = both(&Numbers::new(), &BTreeSet::new());
        assert_eq!(code, Some(1), "{said:?}");
        failures += said.iter().filter(|line| line.starts_with("got:")).count();
        groups += 1;
        if said.iter().any(|line| line.starts_with("rule: ")) {
            // A rule fails on this data, in both, and nothing more is run.
            println!("group {}: {said:?}", group.name);
            continue;
        }
        let (numbers, firing) = learn(&said);
        passes += numbers.len();
        let (code, said) = both(&numbers, &firing);
        if numbers.values().all(|number| !number.is_nan()) {
            assert_eq!(code, Some(0), "{said:?}");
        }
    }
    println!(
        "{hours} simulated hours, {groups} groups: {failures} answers shown by both, {passes} \
         expectations then met by both"
    );
    assert!(failures > 100 && passes > 100);
}
