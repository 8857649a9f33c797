use std::sync::{Arc, Mutex};

use narthex_query::engine::{Engine, EngineOptions};
use narthex_query::memory::MemoryStorage;
use narthex_query::parse::ParseOptions;
use narthex_storage::labels::Labels;
use narthex_storage::sample::is_stale;

use super::file::{FileOptions, RuleFile, parse_rules};
use super::*;
use crate::notify::{self, Notify};

const MINUTE: i64 = 60_000;

/// Keeps what was sent.
#[derive(Default)]
struct Sent(Mutex<Vec<notify::Alert>>);

impl Notify for Sent {
    fn send(&self, mut alerts: Vec<notify::Alert>) {
        self.0.lock().unwrap().append(&mut alerts);
    }
}

impl Sent {
    fn take(&self) -> Vec<notify::Alert> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Bench {
    storage: MemoryStorage,
    sent: Arc<Sent>,
    context: Context,
}

fn bench() -> Bench {
    let storage = MemoryStorage::new();
    let sent = Arc::new(Sent::default());
    let query = EngineQuery {
        engine: Arc::new(Engine::new(EngineOptions::default())),
        queryable: Arc::new(storage.clone()),
        parse: ParseOptions::default(),
        log: None,
    };
    let context = Context {
        query: Arc::new(query),
        appendable: Arc::new(storage.clone()),
        notify: sent.clone(),
        external_labels: Labels::from_pairs([("region", "eu")]),
        external_url: "http://narthex:9090".to_owned(),
        template_url: None,
        query_offset_ms: 0,
        resend_delay_ms: MINUTE,
        outage_tolerance_ms: 60 * MINUTE,
        for_grace_ms: 10 * MINUTE,
        concurrent_rules: None,
        metrics: RuleMetrics::default(),
    };
    Bench { storage, sent, context }
}

fn file(text: &str) -> RuleFile {
    parse_rules("rules.yml", text, &FileOptions::default()).expect("valid rules")
}

fn group(text: &str) -> Group {
    let options = GroupOptions { file: "rules.yml".to_owned(), default_interval_ms: MINUTE };
    Group::new(&file(text).groups[0], &options).expect("valid group")
}

impl Bench {
    fn add(&self, labels: &[(&str, &str)], time_ms: i64, value: f64) {
        let labels = Labels::from_pairs(labels.iter().copied());
        self.storage.add(&labels, time_ms, value).expect("in order");
    }

    /// The newest sample of each series with these labels.
    fn newest(&self, labels: &[(&str, &str)]) -> Vec<(String, i64, f64)> {
        let labels = Labels::from_pairs(labels.iter().copied());
        let mut found = self.context.query.newest(&labels, i64::MIN / 4, i64::MAX / 4).unwrap();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found.into_iter().map(|(labels, time, value)| (labels.to_string(), time, value)).collect()
    }
}

const DOWN: &str = r#"
groups:
- name: nodes
  rules:
  - alert: Down
    expr: up == 0
    for: 2m
    keep_firing_for: 3m
    labels: {severity: "{{ if eq $labels.job `db` }}critical{{ else }}warning{{ end }}"}
    annotations: {summary: "{{ $labels.instance }} is down: {{ $value }}", empty: ""}
"#;

/// State of the only alert and what was sent for it, minute by minute.
fn run(bench: &Bench, group: &Group, minutes: std::ops::Range<i64>, up: &[f64]) -> Vec<String> {
    minutes
        .zip(up)
        .map(|(minute, &up)| {
            let at_ms = minute * MINUTE;
            if up >= 0.0 {
                bench.add(&[("__name__", "up"), ("job", "db"), ("instance", "a")], at_ms, up);
            }
            group.evaluate(at_ms, &bench.context);
            let alerts = group.alerts(0);
            let state = alerts.first().map_or("-", |alert| alert.state.as_str());
            let sent = bench.sent.take();
            let sent = match sent.first() {
                None => "",
                Some(alert) if alert.is_resolved => " resolved",
                Some(_) => " sent",
            };
            format!("{minute} {state}{sent}")
        })
        .collect()
}

#[test]
fn an_alert_goes_through_its_states() {
    let (bench, group) = (bench(), group(DOWN));
    let up = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0];
    assert_eq!(
        run(&bench, &group, 0..13, &up),
        [
            "0 -",
            "1 pending",
            "2 pending",
            "3 firing sent",
            "4 firing",
            "5 firing sent",
            "6 firing",
            "7 firing sent",
            "8 firing",
            "9 firing sent",
            "10 firing",
            "11 inactive resolved",
            "12 pending",
        ]
    );
}

#[test]
fn what_is_sent_is_what_prometheus_sends() {
    let (bench, group) = (bench(), group(DOWN));
    bench.add(&[("__name__", "up"), ("job", "db"), ("instance", "a")], 0, 0.0);
    group.evaluate(0, &bench.context);
    assert!(bench.sent.take().is_empty());
    group.evaluate(2 * MINUTE, &bench.context);
    let expected = notify::Alert {
        labels: Labels::from_pairs([
            ("alertname", "Down"),
            ("job", "db"),
            ("instance", "a"),
            ("severity", "critical"),
        ]),
        annotations: [("empty", ""), ("summary", "a is down: 0")]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .into(),
        starts_at_ms: 2 * MINUTE,
        ends_at_ms: 6 * MINUTE,
        is_resolved: false,
        generator_url: "http://narthex:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1".to_owned(),
    };
    assert_eq!(bench.sent.take(), [expected]);
    let alerts = r#"{__name__="ALERTS", alertname="Down", alertstate="firing", instance="a", job="db", severity="critical"}"#;
    assert_eq!(
        bench.newest(&[("__name__", "ALERTS"), ("alertstate", "firing")]),
        [(alerts.to_owned(), 2 * MINUTE, 1.0)]
    );
    // The pending series has ended.
    let pending = bench.newest(&[("__name__", "ALERTS"), ("alertstate", "pending")]);
    assert!(pending[0].1 == 2 * MINUTE && is_stale(pending[0].2));
    assert_eq!(bench.newest(&[("__name__", "ALERTS_FOR_STATE")])[0].2, 0.0);
}

#[test]
fn resolved_alerts_are_kept_for_a_quarter_of_an_hour() {
    let text = "groups: [{name: g, rules: [{alert: A, expr: up == 0}]}]";
    let (bench, group) = (bench(), group(text));
    let mut up = vec![0.0];
    up.resize(20, 1.0);
    let states = run(&bench, &group, 0..20, &up);
    assert_eq!(states[0], "0 firing sent");
    assert_eq!(states[1], "1 inactive resolved");
    // Sent again while it is kept.
    assert_eq!(states[3], "3 inactive resolved");
    assert_eq!(states[16], "16 inactive");
    assert_eq!(states[17], "17 -");
}

#[test]
fn rules_see_what_rules_before_them_wrote() {
    let text = "groups: [{name: g, labels: {team: a, from: group}, rules: [\
                {record: 'x:sum', expr: sum(x), labels: {from: rule}}, \
                {record: 'x:twice', expr: '2 * x:sum'}]}]";
    let (bench, group) = (bench(), group(text));
    bench.add(&[("__name__", "x"), ("i", "1")], 0, 1.0);
    bench.add(&[("__name__", "x"), ("i", "2")], 0, 2.0);
    let evaluated = group.evaluate(0, &bench.context);
    assert_eq!(evaluated.samples, 2);
    assert_eq!(
        bench.newest(&[("__name__", "x:twice")]),
        [(r#"{__name__="x:twice", from="group", team="a"}"#.to_owned(), 0, 6.0)]
    );
    // The series end when there is nothing to record any more.
    group.evaluate(6 * MINUTE, &bench.context);
    for name in ["x:sum", "x:twice"] {
        let (_, time_ms, value) = bench.newest(&[("__name__", name)])[0];
        assert!(time_ms == 6 * MINUTE && is_stale(value), "{name}");
    }
    assert_eq!(group.errors(), []);
}

#[test]
fn rules_beside_each_other_give_the_same() {
    let text = "groups: [{name: g, rules: [\
                {record: a, expr: vector(1)}, {record: b, expr: a + 1}, \
                {record: c, expr: b + 1}, {record: d, expr: vector(5)}]}]";
    let mut bench = bench();
    bench.context.concurrent_rules = Some(Arc::new(Permits::new(4)));
    group(text).evaluate(0, &bench.context);
    assert_eq!(bench.newest(&[("__name__", "c")])[0].2, 3.0);
    assert_eq!(bench.newest(&[("__name__", "d")])[0].2, 5.0);
}

#[test]
fn errors_and_limits_are_those_of_prometheus() {
    let text = "groups: [{name: g, limit: 1, rules: [\
                {record: many, expr: x}, {alert: Many, expr: x}, \
                {record: same, expr: 'label_replace(x, \"j\", \"$1\", \"i\", \"(.*)\")', labels: {i: a, j: b}}, \
                {alert: Same, expr: x, labels: {i: a}}]}]";
    let (bench, group) = (bench(), group(text));
    bench.add(&[("__name__", "x"), ("i", "1")], 0, 1.0);
    bench.add(&[("__name__", "x"), ("i", "2")], 0, 2.0);
    group.evaluate(0, &bench.context);
    let errors = group.errors();
    let expected = [
        ("many", "exceeded limit of 1 with 2 series"),
        ("Many", "exceeded limit of 1 with 2 alerts"),
        ("same", "vector contains metrics with the same labelset after applying rule labels"),
        ("Same", "vector contains metrics with the same labelset after applying alert labels"),
    ];
    assert_eq!(errors, expected.map(|(n, e)| (n.to_owned(), e.to_owned())));
    assert!(bench.sent.take().is_empty());
    let status = group.status();
    assert!(status.rules.iter().all(|rule| rule.health == status::RuleHealth::Err));
}

#[test]
fn a_reload_keeps_the_state_of_rules_that_stay() {
    let (bench, old) = (bench(), group(DOWN));
    run(&bench, &old, 0..4, &[0.0; 4]);
    let changed = DOWN
        .replace("keep_firing_for: 3m", "keep_firing_for: 1m")
        .replace("  rules:", "  rules:\n  - {record: 'up:count', expr: count(up)}");
    let new = group(&changed);
    assert!(!old.is_same(&new) && new.is_same(&group(&changed)));
    new.take_over(&old);
    let alert = &new.alerts(1)[0];
    assert_eq!((alert.state, alert.active_at_ms), (AlertState::Firing, 0));
    // A rule that is gone leaves its series to be marked stale.
    let without = group("groups: [{name: nodes, rules: [{record: y, expr: vector(1)}]}]");
    without.take_over(&new);
    without.evaluate(4 * MINUTE, &bench.context);
    assert!(is_stale(bench.newest(&[("__name__", "ALERTS_FOR_STATE")])[0].2));
}

#[test]
fn a_restart_forgets_nothing() {
    // The state before the crash, how long it took, and what comes after.
    let after = |minutes: i64, up: f64| {
        let (bench, group) = (bench(), group(DOWN));
        let directory = tempfile::tempdir().unwrap();
        let (store, existed) = StateStore::open(directory.path()).unwrap();
        assert!(!existed);
        for minute in 0..=minutes {
            let up = if minute > 4 { 1.0 } else { 0.0 };
            bench.add(&[("__name__", "up"), ("job", "db"), ("instance", "a")], minute * MINUTE, up);
            if group.evaluate(minute * MINUTE, &bench.context).alerts_changed {
                store.save(&group, minute * MINUTE).unwrap();
            }
        }
        let before = group.alerts(0);
        bench.sent.take();
        // Another process, ten minutes later.
        let now_ms = (minutes + 10) * MINUTE;
        let (store, existed) = StateStore::open(directory.path()).unwrap();
        assert!(existed);
        let again = self::group(DOWN);
        assert!(store.load(&again, now_ms, 60 * MINUTE).unwrap());
        let sent_apart = |mut alert: Alert| {
            alert.last_sent_ms = None;
            alert.valid_until_ms = 0;
            alert
        };
        let restored: Vec<Alert> = again.alerts(0).into_iter().map(sent_apart).collect();
        assert_eq!(restored, before.into_iter().map(sent_apart).collect::<Vec<_>>());
        again.hold_until(now_ms + MINUTE);
        // Nothing was scraped yet: nothing changes.
        again.evaluate(now_ms, &bench.context);
        bench.sent.take();
        run(&bench, &again, minutes + 11..minutes + 12, &[up])
    };
    assert_eq!(after(1, 0.0), ["12 firing sent"]);
    assert_eq!(after(1, 1.0), ["12 -"]);
    assert_eq!(after(4, 0.0), ["15 firing"]);
    // keep_firing_for began before the crash and is over.
    assert_eq!(after(5, 1.0), ["16 inactive resolved"]);
    // Back while it was kept firing.
    assert_eq!(after(5, 0.0), ["16 firing"]);
}

#[test]
fn without_state_files_alerts_come_back_from_their_series() {
    let text = "groups: [{name: g, rules: [{alert: A, expr: up == 0, for: 30m}]}]";
    let (bench, old) = (bench(), group(text));
    for minute in 0..=10 {
        bench.add(&[("__name__", "up")], minute * MINUTE, 0.0);
        old.evaluate(minute * MINUTE, &bench.context);
    }
    let new = group(text);
    new.await_series();
    for minute in [20, 21] {
        bench.add(&[("__name__", "up")], minute * MINUTE, 0.0);
        new.evaluate(minute * MINUTE, &bench.context);
    }
    new.restore_from_series(21 * MINUTE, &bench.context);
    // Pending for 10 minutes before the 11 that nobody saw.
    assert_eq!(new.alerts(0)[0].active_at_ms, 11 * MINUTE);
}

#[test]
fn a_clock_that_jumps_raises_no_storm() {
    let (bench, group) = (bench(), group(DOWN));
    run(&bench, &group, 0..2, &[0.0; 2]);
    let day_ms = 86_400_000;
    group.shift(day_ms);
    group.hold_until(day_ms + 4 * MINUTE);
    // No data at the new time yet: the pending alert neither fires nor goes.
    let minute = day_ms / MINUTE + 1;
    assert_eq!(
        run(&bench, &group, minute..minute + 2, &[0.0, 0.0]),
        [format!("{minute} pending"), format!("{} firing sent", minute + 1)]
    );
}

#[test]
fn missed_evaluations_of_recording_rules_are_made_up_for() {
    let text =
        "groups: [{name: g, interval: 1m, rules: [{record: r, expr: x}, {alert: A, expr: x}]}]";
    let (bench, group) = (bench(), group(text));
    for minute in 0..10 {
        bench.add(&[("__name__", "x")], minute * MINUTE, minute as f64);
    }
    group.evaluate(0, &bench.context);
    bench.sent.take();
    assert_eq!(group.last_recorded_ms(9 * MINUTE, &bench.context), Some(0));
    assert_eq!(group.catch_up(0, 9 * MINUTE, &bench.context), 8);
    assert!(bench.sent.take().is_empty());
    assert_eq!(bench.newest(&[("__name__", "r")])[0].1, 8 * MINUTE);
    let expr = narthex_query::parse::parse("count_over_time(r[20m])", &ParseOptions::default());
    let counted = bench.context.query.instant(&expr.unwrap(), "", 9 * MINUTE).unwrap();
    assert_eq!(counted[0].value, narthex_storage::sample::Value::Float(9.0));
}

#[test]
fn errors_in_files_are_named_with_their_place() {
    let text = "groups:\n- name: a\n  rules:\n  - record: b\n    expr: sum(\n  - alert: c\n    expr: up\n    \
                for: 5x\n    labels: {__name__: x}\n    annotations: {s: '{{ $x }}'}\n  - expr: up\n  - {record: 'a{}', expr: up, \
                for: 1m}\n- name: a\n  wrong: 1\n";
    let errors = parse_rules("f.yml", text, &FileOptions::default()).unwrap_err();
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "f.yml:5:11: group \"a\", rule 1, \"b\": could not parse expression: 1:5: parse error: unclosed left parenthesis",
            "f.yml:8:10: unknown unit \"x\" in duration \"5x\"",
            "f.yml:9:14: group \"a\", rule 2, \"c\": invalid label name: __name__",
            "f.yml:10:19: group \"a\", rule 2, \"c\": annotation \"s\": template: __alert_c:1: undefined variable \"$x\"",
            "f.yml:11:5: group \"a\", rule 3, \"\": one of 'record' or 'alert' must be set",
            "f.yml:12:14: group \"a\", rule 4, \"a{}\": invalid field 'for' in recording rule",
            "f.yml:12:14: group \"a\", rule 4, \"a{}\": braces present in the recording rule name; should it be in expr?: a{}",
            "f.yml:14:3: field wrong not found in type rulefmt.RuleGroup",
            "f.yml:13:3: groupname: \"a\" is repeated in the same file",
        ]
    );
}

#[test]
fn slots_differ_between_groups_and_not_between_processes() {
    let named = |name: &str| {
        group(&format!("groups: [{{name: {name}, interval: 1m, rules: []}}]")).slot_ms()
    };
    assert_eq!(named("a"), named("a"));
    let slots: std::collections::HashSet<i64> =
        (0..100).map(|i| named(&format!("g{i}")) / 1000).collect();
    assert!(slots.len() > 40, "{} of 60 seconds are used", slots.len());
}

#[test]
fn a_clock_that_jumps_either_way_resolves_nothing_and_repeats_nothing() {
    let day_ms = 86_400_000;
    for jump_ms in [day_ms, -day_ms] {
        let (bench, group) = (bench(), group(DOWN));
        let start = 2 * day_ms / MINUTE;
        let firing = run(&bench, &group, start..start + 3, &[0.0; 3]);
        assert_eq!(firing[2], format!("{} firing sent", start + 2));
        let before = group.alerts(0);
        group.shift(jump_ms);
        let now_ms = (start + 2) * MINUTE + jump_ms;
        group.hold_until(now_ms + 2 * MINUTE);
        // No data around the new time, as nothing was scraped since.
        for second in [1, 15, 30] {
            group.evaluate(now_ms + second * 1_000, &bench.context);
        }
        assert!(bench.sent.take().is_empty(), "jump of {jump_ms}");
        let after = group.alerts(0);
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].state, AlertState::Firing);
        assert_eq!(after[0].active_at_ms, before[0].active_at_ms + jump_ms);
        assert_eq!(after[0].last_sent_ms, before[0].last_sent_ms.map(|ms| ms + jump_ms));
    }
}
