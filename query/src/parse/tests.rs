use super::*;
use crate::ast::{AtModifier, BinaryOp, DurationExpr, ExprKind, ValueType};

fn parsed(text: &str) -> Expr {
    parse(text, &ParseOptions::all()).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn error(text: &str) -> String {
    match parse(text, &ParseOptions::all()) {
        Ok(expr) => panic!("{text:?} is {expr:?}"),
        Err(e) => e.to_string(),
    }
}

fn number(text: &str) -> f64 {
    match parsed(text).kind {
        ExprKind::Number(literal) => literal.value,
        other => panic!("{text:?} is {other:?}"),
    }
}

/// The operator at the top.
fn top(text: &str) -> BinaryOp {
    match parsed(text).kind {
        ExprKind::Binary(binary) => binary.op,
        other => panic!("{text:?} is {other:?}"),
    }
}

#[test]
fn numbers_in_all_forms() {
    for (text, value) in [
        ("1", 1.0),
        ("-0x1F", -31.0),
        ("017", 15.0),
        ("08", 8.0),
        ("1_000", 1000.0),
        (".5e-1", 0.05),
        ("+5.", 5.0),
        ("-InF", f64::NEG_INFINITY),
        ("1h30m", 5400.0),
        ("- -2", 2.0),
        ("10s53ms", 10.053),
    ] {
        assert_eq!(number(text), value, "{text}");
    }
    assert!(number("nAn").is_nan());
}

#[test]
fn operators_bind_as_in_prometheus() {
    assert_eq!(top("a + b * c"), BinaryOp::Add);
    assert_eq!(top("a or b and c"), BinaryOp::Or);
    assert_eq!(top("a ^ b ^ c == d"), BinaryOp::Eq);
    assert!(matches!(parsed("-a ^ 2").kind, ExprKind::Unary(..)));
    assert_eq!(top("-a * 2"), BinaryOp::Mul);
    let ExprKind::Binary(right) = parsed("a ^ b ^ c").kind else { panic!("binary") };
    assert!(matches!(right.rhs.kind, ExprKind::Binary(_)));
    let ExprKind::Binary(left) = parsed("a - b - c").kind else { panic!("binary") };
    assert!(matches!(left.lhs.kind, ExprKind::Binary(_)));
}

#[test]
fn modifiers_come_in_any_order() {
    for text in ["a @ 1.5 offset -5m", "a offset -5m @ 1.5", "a offset -300 @ 1s500ms"] {
        let ExprKind::Vector(selector) = parsed(text).kind else { panic!("vector") };
        assert_eq!(selector.offset, Some(DurationExpr::Literal(-300_000)));
        assert_eq!(selector.at, Some(AtModifier::At(1500)));
    }
    let ExprKind::Matrix(matrix) = parsed("a[1m0s] offset 1m @ end()").kind else {
        panic!("matrix")
    };
    assert_eq!(matrix.range, DurationExpr::Literal(60_000));
    assert_eq!(matrix.selector.at, Some(AtModifier::End));
}

#[test]
fn arithmetic_behind_offset_needs_parentheses() {
    assert_eq!(top("a offset 5m + b"), BinaryOp::Add);
    assert_eq!(top("a offset -2 ^ 2"), BinaryOp::Pow);
    assert!(matches!(parsed("a offset (5m * 2)").kind, ExprKind::Vector(_)));
    assert!(matches!(parsed("a offset (5m) * 2").kind, ExprKind::Vector(_)));
    assert_eq!(top("a offset -(5m) * 2"), BinaryOp::Mul);
    assert_eq!(top("a offset step() * 2"), BinaryOp::Mul);
}

#[test]
fn names_in_quotes() {
    let ExprKind::Vector(selector) = parsed(r#"{"http.requests", "k8s.pod"=~"a|b"}"#).kind else {
        panic!("vector")
    };
    assert_eq!(selector.name, None);
    assert_eq!(selector.matchers[0].to_string(), r#"__name__="http.requests""#);
    assert_eq!(selector.matchers[1].to_string(), r#""k8s.pod"=~"a|b""#);
    let ExprKind::Vector(selector) = parsed(r#"sum{by="x",}"#).kind else { panic!("vector") };
    assert_eq!(selector.name.as_deref(), Some("sum"));
}

#[test]
fn errors_say_what_prometheus_says() {
    for (text, message) in [
        ("up up", r#"1:4: parse error: unexpected identifier "up""#),
        ("", "unknown position: parse error: no expression found in input"),
        (" ", "1:1: parse error: no expression found in input"),
        ("a +\n", "2:1: parse error: unexpected end of input"),
        ("sum(a b)", r#"1:7: parse error: unexpected identifier "b" in aggregation"#),
        (
            "sum by a",
            r#"1:8: parse error: unexpected identifier "a" in grouping opts, expected "(""#,
        ),
        ("rate(a b)", r#"1:8: parse error: unexpected identifier "b""#),
        (
            "a{b}",
            r#"1:4: parse error: unexpected "}" in label matching, expected label matching operator"#,
        ),
        ("a{b=1}", "1:5: parse error: unexpected character inside braces: '1'"),
        ("a @ b", r#"1:5: parse error: unexpected identifier "b" in @, expected timestamp"#),
        ("a[5m", "1:5: parse error: unclosed left bracket"),
        (
            "a[5m 6m]",
            r#"1:6: parse error: unexpected duration "6m" in subquery or range, expected ":" or "]""#,
        ),
        (
            "rate(a)",
            r#"1:6: parse error: expected type range vector in call to function "rate", got instant vector"#,
        ),
        ("foo(a)", r#"1:1: parse error: unknown function with name "foo""#),
        ("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
        (
            "{a=~\".*\"}",
            "1:1: parse error: vector selector must contain at least one non-empty matcher",
        ),
        ("a{__name__=\"b\"}", r#"1:1: parse error: metric name must not be set twice: "a" or "b""#),
        ("a{b=~\"(\"}", "1:3: parse error: error parsing regexp: missing closing ): `(`"),
        (
            "topk(a)",
            "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
        ),
    ] {
        assert_eq!(error(text), message, "{text}");
    }
}

#[test]
fn experimental_parts_need_their_switch() {
    for text in [
        "mad_over_time(a[5m])",
        "limitk(2, a)",
        "a[5m * 2]",
        "rate(a[5m] anchored)",
        "a + fill(0) b",
    ] {
        assert!(parse(text, &ParseOptions::default()).is_err(), "{text}");
        parsed(text);
    }
}

#[test]
fn types_are_known() {
    assert_eq!(parsed("1 + scalar(a)").value_type(), ValueType::Scalar);
    assert_eq!(parsed("a[5m:1m]").value_type(), ValueType::Matrix);
}

#[test]
fn hostile_queries_end_in_errors() {
    let deep =
        |open: &str, close: &str, n: usize| format!("{}a{}", open.repeat(n), close.repeat(n));
    for n in [10_000, 100_000] {
        for (open, close) in
            [("(", ")"), ("abs(", ")"), ("sum(", ")"), ("-", ""), ("sum by (a) (", ")")]
        {
            let text = deep(open, close, n);
            let message = error(&text);
            assert!(message.contains("nested more than"), "{message:.200}");
        }
        assert!(error(&format!("a[{}5m{}]", "(".repeat(n), ")".repeat(n))).contains("nested"));
        assert!(error(&vec!["a"; n].join(" + ")).contains("levels high"));
        assert!(error(&vec!["a"; n].join(" ^ ")).contains("nested"));
    }
    assert!(error(&" ".repeat(MAX_LENGTH_BYTES + 1)).contains("longer than"));
    parsed(&deep("(", ")", MAX_NESTING));
    parsed(&deep("abs(", ")", MAX_NESTING));
    parsed(&vec!["a"; MAX_DEPTH].join(" + "));
    let many = format!("a{{b=~\"{}\"}}", vec!["some-value"; 20_000].join("|"));
    parsed(&many);
}

#[test]
fn selectors_alone() {
    assert_eq!(parse_selector(r#"up{job="a"}"#).expect("valid").len(), 2);
    assert_eq!(parse_selector("{}").expect("valid").len(), 0);
    assert_eq!(
        parse_selector("up[5m]").expect_err("a range").to_string(),
        r#"1:3: parse error: unexpected "[""#
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_query_or_an_error(text in r#"([a-c]|sum|rate|by|on|[(){}\[\],:@+*/^-]|5m|"x"|offset| |=~?|==|start|1){0,25}"#) {
        let _ = parse(&text, &ParseOptions::all());
    }
}
