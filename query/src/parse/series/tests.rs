use super::*;
use narthex_storage::histogram::CounterResetHint;
use narthex_storage::sample::is_stale;

fn read(text: &str) -> SeriesDescription {
    parse_series(text).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn floats(text: &str) -> Vec<Option<f64>> {
    let value = |v: &SequenceValue| match v {
        SequenceValue::Omitted => None,
        SequenceValue::Float(v) => Some(*v),
        SequenceValue::Histogram { .. } => panic!("a histogram in {text:?}"),
    };
    read(text).values.iter().map(value).collect()
}

#[test]
fn numbers_repeat_and_progress() {
    assert_eq!(floats("a 1 -2.5 .5e1"), [Some(1.0), Some(-2.5), Some(5.0)]);
    assert_eq!(floats("a 3x2 _ _x2"), [Some(3.0), Some(3.0), Some(3.0), None, None, None]);
    assert_eq!(floats("a 1+2x2"), [Some(1.0), Some(3.0), Some(5.0)]);
    assert_eq!(floats("a 1-0.5x1 -Inf"), [Some(1.0), Some(0.5), Some(f64::NEG_INFINITY)]);
    assert_eq!(floats("a 1e2-1e1x1"), [Some(100.0), Some(90.0)]);
    // Steps really add up.
    assert_eq!(floats("a 0+0.1x3")[3], Some(0.1 + 0.1 + 0.1));
    assert!(floats("a nan")[0].is_some_and(f64::is_nan));
    let SequenceValue::Float(stale) = read("a stale").values[0] else { panic!("float") };
    assert!(is_stale(stale));
    assert_eq!(floats("a").len(), 0);
}

#[test]
fn names_may_be_keywords_and_quoted() {
    for (text, labels) in [
        (r#"sum{by="x"} 1"#, r#"{__name__="sum", by="x"}"#),
        (r#"offset 1"#, r#"{__name__="offset"}"#),
        (r#"{"a.b", "c.d"="e", f='g',} 1"#, r#"{__name__="a.b", "c.d"="e", f="g"}"#),
        (r#"{} 1"#, "{}"),
        (r#"a:b {{}}"#, r#"{__name__="a:b"}"#),
    ] {
        assert_eq!(read(text).labels.to_string(), labels, "{text}");
    }
}

#[test]
fn histograms_in_full() {
    let text = "a {{schema:2 sum:-1.5 count:9 z_bucket:1 z_bucket_w:0.01 buckets:[1 2 3] offset:-2 \
                n_buckets:[ 4 NaN ] n_offset:3 counter_reset_hint:gauge}} {{}}x1";
    let values = read(text).values;
    assert_eq!(values.len(), 3);
    let SequenceValue::Histogram { value, hint_written: true } = &values[0] else {
        panic!("{:?}", values[0])
    };
    assert_eq!((value.schema, value.sum, value.count), (2, -1.5, 9.0));
    assert_eq!(value.positive_spans.len(), 1);
    assert_eq!((value.positive_spans[0].offset, value.positive_spans[0].length), (-2, 3));
    assert_eq!(value.counter_reset_hint, CounterResetHint::Gauge);
    assert!(value.negative_buckets[1].is_nan());
}

#[test]
fn histograms_progress() {
    let values =
        read("a {{schema:1 count:2 buckets:[1 1]}}+{{schema:1 count:1 buckets:[1]}}x2").values;
    let SequenceValue::Histogram { value, hint_written: false } = &values[2] else {
        panic!("{:?}", values[2])
    };
    assert_eq!(value.count, 4.0);
    assert_eq!(value.positive_buckets, [3.0, 1.0]);
    assert!(parse_series("a {{schema:1}}+{{schema:0}}x1").is_err());
}

#[test]
fn what_is_wrong_is_said() {
    for text in [
        "a 1x",
        "a 1+1",
        "a b",
        "a{b=c} 1",
        "a {{",
        "a {{sum:}}",
        "a {{sum:1 sum:2}}",
        "a 1x99999999999",
        "1",
        "a 1b",
        "a 1{{}}",
    ] {
        assert!(parse_series(text).is_err(), "{text}");
    }
    assert_eq!(
        parse_series("a{b} 1").expect_err("no value").to_string(),
        r#"1:4: parse error: unexpected "}" in label set, expected "=""#
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_series_or_an_error(text in r#"a(\{b="c"\})?( |1|x3|\+|-|_|stale|\{\{|\}\}|sum:|buckets:|\[|\]){0,12}"#) {
        let _ = parse_series(&text);
    }
}
