use super::*;
use crate::parse::{ParseOptions, parse};

fn parsed(text: &str) -> Expr {
    parse(text, &ParseOptions::all()).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

/// Queries in canonical form.
const CANONICAL: [&str; 29] = [
    "a",
    r#"a{b="c",d!~"e"}"#,
    r#"{"k8s.pod"=~"x|y",__name__="http.requests"}"#,
    "sum by (a, \"b.c\") (d)",
    "sum without () (d)",
    "sum(d)",
    "topk by (a) (3, b)",
    r#"count_values("x", a)"#,
    "a[5m] @ 1.500 offset -1h30m",
    "a @ start() offset 5m",
    "rate(a[5m] smoothed)",
    "rate(a[5m] anchored @ end())",
    "a anchored",
    "max_over_time(rate(a[5m])[1h:1m] @ 0.000 offset 1m)",
    "max_over_time(a[1h:])",
    "a + on (b) group_left (c) d",
    "a == bool 1",
    "a and ignoring (b) c",
    "a - on () group_right () c",
    "a + fill (0) b",
    "a * on (x) fill_left (-1) fill_right (1e+30) b",
    "-a ^ 2",
    "-1 * -Inf",
    "(a)",
    "1h30m / 2",
    "a[(5m + step()) * 2]",
    "a offset (5m)",
    "a[-(2m - max_of(step(), 5m))]",
    r#"label_replace(a, "b", "$1\n\\", "c", "(.*)é")"#,
];

#[test]
fn canonical_text_prints_as_it_is() {
    for text in CANONICAL {
        assert_eq!(parsed(text).to_string(), text);
    }
}

#[test]
fn other_text_prints_as_canonical_text() {
    for (text, canonical) in [
        ("SUM(a)BY(b)", "sum by (b) (a)"),
        ("a{c='1',b=`2`,}offset 1m", r#"a{b="2",c="1"} offset 1m"#),
        ("a[90m]", "a[1h30m]"),
        ("a[1m0s]", "a[1m]"),
        ("a[600] offset 60", "a[10m] offset 1m"),
        ("0x10 + 1e3", "16 + 1000"),
        ("a @ 5 offset 0s", "a @ 5.000"),
        ("a[((5m))]", "a[(5m)]"),
        ("info(a,{})", "info(a, {})"),
    ] {
        assert_eq!(parsed(text).to_string(), canonical, "{text}");
    }
}

#[test]
fn long_queries_are_opened() {
    let long = "x".repeat(60);
    assert_eq!(
        pretty(&parsed(&format!("sum by (a) (rate({long}[5m])) / topk(3, -{long})"))),
        format!("  sum by (a) (rate({long}[5m]))\n/\n  topk(3, -{long})")
    );
    assert_eq!(
        pretty(&parsed(&format!("topk(3, ({long} + {long}))"))),
        format!("topk(\n  3,\n  (\n      {long}\n    +\n      {long}\n  )\n)")
    );
}

#[test]
fn the_tree_in_json() {
    assert_eq!(
        to_json(&parsed(r#"a{b!="<"} offset 1m"#)),
        concat!(
            r#"{"anchored":false,"matchers":[{"name":"b","type":"!=","value":"<"},"#,
            r#"{"name":"__name__","type":"=","value":"a"}],"name":"a","offset":60000,"#,
            r#""offsetExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":null,"#,
            r#""type":"vectorSelector"}"#
        )
    );
    assert_eq!(
        to_json(&parsed("-(1)")),
        concat!(
            r#"{"expr":{"expr":{"type":"numberLiteral","val":"1"},"type":"parenExpr"},"#,
            r#""op":"-","type":"unaryExpr"}"#
        )
    );
}
