use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> LabelsBuilder {
    Labels::from_pairs(pairs.iter().copied()).to_builder()
}

fn rule(action: RelabelAction, source: &[&str]) -> RelabelConfig {
    RelabelConfig {
        action,
        source_labels: source.iter().map(|s| (*s).to_owned()).collect(),
        ..RelabelConfig::default()
    }
}

fn run(configs: &[RelabelConfig], input: &[(&str, &str)]) -> Option<String> {
    let rules = Rules::compile(configs).expect("valid rules");
    let mut builder = labels(input);
    rules.apply(&mut builder).then(|| builder.build().to_string())
}

#[test]
fn replace_expands_target_and_replacement() {
    let config = RelabelConfig {
        regex: "(r)-(\\d)@(?P<ns>.*)".into(),
        separator: "@".into(),
        target_label: "x_${1}".into(),
        replacement: "${ns}/$1$2/${2}x/$2x/$$".into(),
        ..rule(RelabelAction::Replace, &["pod", "ns"])
    };
    let out = run(std::slice::from_ref(&config), &[("pod", "r-1"), ("ns", "default")]);
    assert_eq!(out.as_deref(), Some(r#"{ns="default", pod="r-1", x_r="default/r1/1x//$"}"#));
    let other = run(&[config], &[("pod", "q-1"), ("ns", "default")]);
    assert_eq!(other.as_deref(), Some(r#"{ns="default", pod="q-1"}"#), "no match: no change");
}

#[test]
fn replace_with_nothing_removes_and_absent_sources_are_empty() {
    let to = |target: &str, replacement: &str, source: &[&str]| RelabelConfig {
        target_label: target.into(),
        replacement: replacement.into(),
        ..rule(RelabelAction::Replace, source)
    };
    assert_eq!(run(&[to("a", "", &[])], &[("a", "1")]).as_deref(), Some("{}"));
    assert_eq!(run(&[to("a", "always", &["no"])], &[]).as_deref(), Some(r#"{a="always"}"#));
    assert_eq!(run(&[to("a", "$1", &["no"])], &[("a", "1")]).as_deref(), Some("{}"));
    let never = RelabelConfig { regex: "(.+)".into(), ..to("a", "x", &["no"]) };
    assert_eq!(run(&[never], &[]).as_deref(), Some("{}"));
    let empty_regex = RelabelConfig { regex: String::new(), ..to("a", "x", &["b"]) };
    assert_eq!(run(&[empty_regex], &[("b", "1")]).as_deref(), Some(r#"{b="1"}"#));
}

#[test]
fn a_target_name_that_comes_out_invalid_changes_nothing() {
    let config = RelabelConfig {
        target_label: "$1".into(),
        replacement: "x".into(),
        ..rule(RelabelAction::Replace, &["a"])
    };
    assert_eq!(run(std::slice::from_ref(&config), &[]).as_deref(), Some("{}"));
    let legacy = Rules::compile_for(&[config], NameValidation::Legacy).expect("valid");
    let mut builder = labels(&[("a", "b.c")]);
    assert!(legacy.apply(&mut builder));
    assert_eq!(builder.build().to_string(), r#"{a="b.c"}"#);
}

#[test]
fn keep_and_drop_are_anchored_and_dot_matches_line_ends() {
    let with = |action, regex: &str| RelabelConfig { regex: regex.into(), ..rule(action, &["a"]) };
    assert!(run(&[with(RelabelAction::Keep, "lph")], &[("a", "alpha")]).is_none());
    assert!(run(&[with(RelabelAction::Keep, "a.b|c")], &[("a", "a\nb")]).is_some());
    assert!(run(&[with(RelabelAction::Drop, "x|alpha")], &[("a", "alpha")]).is_none());
    assert!(run(&[with(RelabelAction::Drop, "alph")], &[("a", "alpha")]).is_some());
}

#[test]
fn equal_compares_with_the_target_label() {
    let with = |action| RelabelConfig { target_label: "b".into(), ..rule(action, &["a"]) };
    let same = [("a", "1"), ("b", "1")];
    let other = [("a", "1")];
    assert!(run(&[with(RelabelAction::KeepEqual)], &same).is_some());
    assert!(run(&[with(RelabelAction::KeepEqual)], &other).is_none());
    assert!(run(&[with(RelabelAction::DropEqual)], &same).is_none());
    assert!(run(&[with(RelabelAction::DropEqual)], &other).is_some());
}

/// Computed with another implementation of MD5 (Python's hashlib).
#[test]
fn hashmod_agrees_with_the_reference_table() {
    let table = [
        ("", 7, "1"),
        ("r-1", 7, "3"),
        ("10.0.0.1:9100", 1000, "645"),
        ("foo;bar", u64::MAX, "15973639978189266750"),
        ("ü", 1, "0"),
    ];
    for (value, modulus, expected) in table {
        let config = RelabelConfig {
            modulus,
            target_label: "h".into(),
            ..rule(RelabelAction::HashMod, &["a"])
        };
        let rules = Rules::compile(&[config]).expect("valid");
        let mut builder = labels(&[("a", value)]);
        assert!(rules.apply(&mut builder));
        assert_eq!(builder.get("h"), expected, "{value:?} mod {modulus}");
    }
}

#[test]
fn names_are_mapped_dropped_and_kept() {
    let with = |action, regex: &str, replacement: &str| RelabelConfig {
        regex: regex.into(),
        replacement: replacement.into(),
        ..rule(action, &[])
    };
    let input = [("meta_a", "1"), ("meta_b", "2"), ("c", "3")];
    let map = with(RelabelAction::LabelMap, "meta_(.+)", "$1");
    assert_eq!(
        run(&[map], &input).as_deref(),
        Some(r#"{a="1", b="2", c="3", meta_a="1", meta_b="2"}"#)
    );
    let chain = with(RelabelAction::LabelMap, "(.)", "${1}x");
    assert_eq!(run(&[chain], &[("c", "3")]).as_deref(), Some(r#"{c="3", cx="3"}"#));
    let drop = with(RelabelAction::LabelDrop, "meta_.", "$1");
    assert_eq!(run(&[drop], &input).as_deref(), Some(r#"{c="3"}"#));
    let keep = with(RelabelAction::LabelKeep, "meta_.", "$1");
    assert_eq!(run(&[keep], &input).as_deref(), Some(r#"{meta_a="1", meta_b="2"}"#));
}

#[test]
fn steps_show_the_labels_after_each_rule() {
    let set = RelabelConfig {
        target_label: "b".into(),
        replacement: "2".into(),
        ..rule(RelabelAction::Replace, &[])
    };
    let drop = RelabelConfig { regex: "2".into(), ..rule(RelabelAction::Drop, &["b"]) };
    let rules = Rules::compile(&[set.clone(), drop, set]).expect("valid");
    let steps = rules.steps(&Labels::from_pairs([("a", "1")]));
    let shown: Vec<(String, bool)> =
        steps.into_iter().map(|s| (s.output.to_string(), s.keep)).collect();
    assert_eq!(
        shown,
        [
            (r#"{a="1", b="2"}"#.to_owned(), true),
            ("{}".to_owned(), false),
            ("{}".to_owned(), false)
        ]
    );
}

#[test]
fn errors_name_rule_and_field() {
    let good = rule(RelabelAction::Keep, &["a"]);
    let bad = RelabelConfig { regex: "(".into(), ..good.clone() };
    let error = Rules::compile(&[good, bad]).expect_err("unclosed group");
    assert_eq!((error.index, error.field), (1, "regex"));
}

proptest! {
    #[test]
    fn no_rule_panics_whatever_its_text(
        action in proptest::sample::select(RelabelAction::ALL.to_vec()),
        regex in "[a-z().*+?|$^\\[\\]{}\\\\]{0,12}",
        replacement in "[a-z0-9${}é]{0,8}",
        target in "[a-z0-9${}é]{0,8}",
        value in "\\PC{0,12}",
        modulus in 0u64..4,
    ) {
        let config = RelabelConfig {
            regex, replacement, modulus, target_label: target, ..rule(action, &["a", "b"])
        };
        if let Ok(rules) = Rules::compile(&[config]) {
            let mut builder = labels(&[("a", &value), ("b", "1")]);
            let _ = rules.apply(&mut builder);
            let built = builder.build();
            prop_assert!(built.iter().all(|(n, v)| !n.is_empty() && !v.is_empty()));
        }
    }

    #[test]
    fn hashmod_stays_below_its_modulus(value in ".{0,20}", modulus in 1u64..) {
        let n = hash(&value) % modulus;
        prop_assert!(n < modulus);
    }
}
