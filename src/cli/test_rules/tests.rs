use std::path::Path;

use super::*;

fn suite(name: &str) -> Suite {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules").join(name);
    test_file(&path, &TestOptions::default())
}

#[test]
fn our_own_files_pass() {
    for name in ["alerts_test.yml", "corners_test.yml"] {
        let suite = suite(name);
        assert_eq!(suite.errors().collect::<Vec<_>>(), Vec::<&String>::new(), "{name}");
        assert!(!suite.cases.is_empty());
    }
}

#[test]
fn what_is_wrong_fails() {
    let suite = suite("failing_test.yml");
    assert_eq!(suite.cases.len(), 6);
    assert!(suite.cases.iter().all(|case| case.failures.len() == 1), "{suite:?}");
    let xml = report::junit(&[suite]);
    assert!(xml.contains("tests=\"6\" failures=\"6\" errors=\"0\""), "{xml}");
}

#[test]
fn only_tests_that_match_are_run() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules/failing_test.yml");
    let run = Some(Regex::new("wrong|bad").unwrap());
    let suite = test_file(&path, &TestOptions { run, ..TestOptions::default() });
    let names: Vec<&str> = suite.cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["wrong annotation", "wrong value", "bad expression"]);
}

#[test]
fn time_may_start_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.yml");
    let text = |start: &str| {
        format!(
            "tests:\n- start_timestamp: {start}\n  input_series: [{{series: x, values: '1 2 3'}}]\n  \
             promql_expr_test:\n  - {{expr: 'timestamp(x)', eval_time: 2m, exp_samples: \
             [{{labels: '{{}}', value: 1609459320}}]}}\n"
        )
    };
    for start in ["1609459200", "2021-01-01T00:00:00Z"] {
        std::fs::write(&path, text(start)).unwrap();
        let suite = test_file(&path, &TestOptions::default());
        assert_eq!(suite.errors().collect::<Vec<_>>(), Vec::<&String>::new(), "{start}");
    }
    std::fs::write(&path, text("soon")).unwrap();
    let suite = test_file(&path, &TestOptions::default());
    assert!(suite.errors().next().unwrap().ends_with(":2:20: \"soon\" is not a time"), "{suite:?}");
}

#[test]
fn files_that_cannot_be_read_name_the_place() {
    for (text, expected) in [
        ("tests: [{wrong: 1}]", "f:1:10: field wrong not found in a test"),
        ("evaluation_interval: 5", "f:1:22: not a valid duration string: \"5\""),
        ("group_eval_order: [a, a]", "f:1:19: group name repeated in evaluation order: a"),
        (
            "tests: [{name: n, alert_rule_test: [{eval_time: 1m}]}]",
            "f:1:9: an item under alert_rule_test misses required attribute alertname at \
             eval_time 1m (in TestGroup n)",
        ),
    ] {
        assert_eq!(file::parse("f", text).unwrap_err(), expected);
    }
}

#[test]
fn a_difference_shows_lines() {
    let text = report::difference("a\nb\nc\n", "a\nx\nc\n");
    assert_eq!(text, "          a\n        - b\n        + x\n          c\n");
}
