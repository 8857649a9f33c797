use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

/// The series that `query` gives in these tests.
fn answer(query: &str) -> Result<Vec<VectorSample>, String> {
    let found = |labels: &[(&str, &str)], value| VectorSample {
        labels: Labels::from_pairs(labels.iter().copied()),
        timestamp_ms: 0,
        value: sample::Value::Float(value),
    };
    match query {
        "none" => Ok(Vec::new()),
        "bad" => Err("1:1: parse error: bad".to_owned()),
        _ => Ok(vec![
            found(&[("instance", "b:9100"), ("job", "node"), ("__value__", "x")], 2.5),
            found(&[("instance", "a:9100"), ("job", "node")], 11.0),
        ]),
    }
}

fn data() -> AlertData {
    AlertData {
        labels: Labels::from_pairs([
            ("instance", "web-1.example.org:9100"),
            ("job", "node"),
            ("empty_ish", " "),
        ]),
        external_labels: Labels::from_pairs([("region", "eu")]),
        external_url: "http://prom.example.org:9090/p".to_owned(),
        value: sample::Value::Float(12345.678),
    }
}

/// What a template gives, in the manner of the golden file.
fn outcome(text: &str) -> String {
    let template = match Template::parse("__alert_X", text) {
        Ok(template) => template,
        Err(error) => return format!("parse {}", quote(&error)),
    };
    let mut env = Environment {
        now_ms: 1_700_000_000_500,
        external_url: Some("http://prom.example.org:9090/p"),
        query: &mut |query| answer(query),
    };
    match template.expand(&data(), &mut env) {
        Ok(output) => quote(&output),
        Err(error) => {
            format!(
                "error {}",
                quote(error.trim_start_matches("error executing template __alert_X: "))
            )
        }
    }
}

#[test]
fn gives_what_go_gives() {
    let golden = include_str!("../../tests/golden/template.txt");
    let lines: Vec<&str> = golden.lines().filter(|l| !l.starts_with('#')).collect();
    let mut wrong = String::new();
    for case in lines.chunks(2) {
        let [text, expected] = case else { panic!("a template without its output") };
        let text = gofmt::unquote(text).expect("templates are quoted");
        let got = outcome(&text);
        if got != expected.trim() {
            let _ = writeln!(wrong, "{text}\n  expected {}\n  got      {got}", expected.trim());
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Expands with a query that answers nothing.
fn expand(text: &str) -> Result<String, String> {
    let template = Template::parse("t", text)?;
    let mut env = Environment { now_ms: 0, external_url: None, query: &mut |_| Ok(Vec::new()) };
    template.expand(&data(), &mut env)
}

fn expand_one(function: &str, value: &str) -> String {
    expand(&format!("{{{{ {function} {value} }}}}")).expect("valid")
}

#[test]
fn humanizes_as_prometheus() {
    for (function, value, expected) in [
        ("humanize", "1234567.0", "1.235M"),
        ("humanize", "0.00012", "120u"),
        ("humanize1024", "1048576.0", "1Mi"),
        ("humanize1024", "0.5", "0.5"),
        ("humanize1024", "-2048", "-2ki"),
        ("humanizeDuration", "0", "0s"),
        ("humanizeDuration", "1", "1s"),
        ("humanizeDuration", "12345678", "142d 21h 21m 18s"),
        ("humanizeDuration", "-60", "-1m 0s"),
        ("humanizeDuration", "3600", "1h 0m 0s"),
        ("humanizeDuration", "0.001", "1ms"),
        ("humanizeDuration", "60.5", "1m 0s"),
        ("humanizeDuration", "59.9999", "60s"),
        ("humanizeDuration", "`+Inf`", "+Inf"),
        ("humanizePercentage", "0.1234567", "12.35%"),
        ("humanizePercentage", "1", "100%"),
        ("humanizeTimestamp", "1435065584.128", "2015-06-23 13:19:44.128 +0000 UTC"),
        ("humanizeTimestamp", "`NaN`", "NaN"),
        ("parseDuration", "`1h30m`", "5400"),
        ("parseDuration", "`-1m`", "-60"),
    ] {
        assert_eq!(expand_one(function, value), expected, "{function} {value}");
    }
    let error = expand("{{ parseDuration `1m1h` }}").expect_err("wrong order");
    assert!(error.ends_with("not a valid duration string: \"1m1h\""), "{error}");
}

#[test]
fn durations_read_back() {
    for text in ["0s", "1ms", "1m30s", "90d", "2w", "1y", "1d2h3m4s5ms"] {
        assert_eq!(duration::format_ms(duration::parse_ms(text).expect("valid")), text);
    }
    for text in ["", "1", "m", "1m1h", "1x", "99999999999y", "-1m", "18446744073709551616s"] {
        assert!(duration::parse_ms(text).is_err(), "{text}");
    }
}

#[test]
fn hostile_templates_end() {
    let doubling = "{{ $x := `aaaaaaaaaaaaaaaa` }}".to_owned()
        + &"{{ $x = printf `%s%s` $x $x }}".repeat(40)
        + "{{ len $x }}";
    let nested = "{{if true}}".repeat(95) + &"{{end}}".repeat(95);
    for (text, expected) in [
        ("{{ define `a` }}{{ template `a` . }}{{ end }}{{ template `a` . }}", "template depth"),
        ("{{ range 9000000000000000000 }}{{ end }}", "steps"),
        ("{{ range 9000000 }}{{ range 9000000 }}x{{ end }}{{ end }}", "steps"),
        ("{{ range 900 }}{{ printf `%5000d` . }}{{ end }}", "maximum output"),
        ("{{ printf `%999999d %999999d` 1 1 }}", "too large"),
        ("{{ range 2000 }}{{ $x := query `up` }}{{ end }}", "queries"),
        (&doubling, "too large"),
        (
            &format!(
                "{{{{ define `a` }}}}{nested}{{{{ template `a` }}}}{{{{ end }}}}{{{{ template `a` }}}}"
            ),
            "depth",
        ),
    ] {
        let error = expand(text).expect_err(text);
        assert!(error.contains(expected) || error.contains("depth"), "{text}: {error}");
    }
    for text in ["{{if true}}".repeat(5000), "{{ ".to_owned() + &"(".repeat(100_000)] {
        assert!(Template::parse("t", &text).is_err());
    }
}

#[test]
fn sorting_sorts_for_all_who_hold_the_vector() {
    let text = "{{ $v := query `x` }}{{ $s := sortByLabel `instance` $v }}{{ range $v }}{{ .Value }} {{ end }}";
    assert_eq!(outcome(text), "\"11 2.5 \"");
}

#[test]
fn titles_begin_words() {
    let text = "`foo bar-baz it's a_b 1st foo.bar a:b x/y 3com \u{df} 'quoted' a1b 1.a o'neil-smith _x .y \
                a..b a.1 a@b \u{e9}a FOO tOO 2_a 2:a a2a 'a ::b a. b`";
    // What the real promtool prints for it.
    let expected = "Foo Bar-Baz It's A_b 1St Foo.bar A:b X/Y 3Com Ss 'Quoted' A1b 1.A O'neil-Smith _X .Y \
                    A..B A.1 A@B \u{c9}a FOO TOO 2_A 2:A A2a 'A ::B A. B";
    assert_eq!(expand_one("title", text), expected);
}

proptest! {
    #[test]
    fn any_text_ends(text in "(\\{\\{|\\}\\}|if |end|range |\\$labels|\\.|\\(|\\)|\\||len |printf |\"%v\"|:=|\\PC){0,40}") {
        let _ = expand(&text);
    }

    #[test]
    fn floats_are_printed_as_they_read(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        for verb in ['g', 'e', 'x'] {
            let text = format_float(value, verb, None);
            let read = gofmt::parse_float(&text).expect("own text");
            prop_assert_eq!(read.to_bits(), bits, "{}", text);
        }
    }

    #[test]
    fn quoted_texts_read_back(text in any::<String>()) {
        prop_assert_eq!(gofmt::unquote(&quote(&text)), Some(text));
    }
}
