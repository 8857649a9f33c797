use proptest::prelude::*;

use super::*;
use crate::sample::stale_nan;

/// Any bit pattern, with the special ones often.
fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (-1000i64..1000, 0u32..12).prop_map(|(m, e)| m as f64 / 10f64.powi(e as i32)),
        prop::sample::select(vec![
            0.0,
            -0.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            stale_nan(),
            f64::from_bits(crate::sample::NORMAL_NAN_BITS),
            f64::NAN,
            f64::MIN_POSITIVE / 4.0,
            f64::MAX,
        ]),
    ]
}

/// Columns as exporters write them, and columns of anything.
fn any_column() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![
        (any_value(), 0usize..300).prop_map(|(v, n)| vec![v; n]),
        prop::collection::vec(any_value(), 0..300),
        (prop::collection::vec(0i64..5000, 0..300), 0u32..10, any::<u32>()).prop_map(
            |(steps, e, start)| {
                let mut mantissa = i64::from(start);
                let power = 10f64.powi(e as i32);
                let step = |d| {
                    mantissa += d;
                    mantissa as f64 / power
                };
                steps.into_iter().map(step).collect()
            }
        ),
        (prop::collection::vec(0i64..9, 2..300), any_value(), any::<prop::sample::Index>())
            .prop_map(|(m, odd, at)| {
                let mut column: Vec<f64> = m.into_iter().map(|m| m as f64).collect();
                let at = at.index(column.len());
                column[at] = odd;
                column
            }),
    ]
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn check(values: &[f64], sibling: Option<&[f64]>) -> Vec<u8> {
    let mut bytes = vec![];
    encode(values, sibling, &mut bytes);
    let len = bytes.len();
    bytes.extend([0xaa; 3]);
    let mut back = vec![1.0];
    let decoded = decode_chunk(&bytes, values.len(), sibling, &mut back).expect("own chunk");
    assert_eq!(decoded.used_bytes, len);
    assert_eq!(bits(&back[1..]), bits(values));
    if decoded.integral {
        assert!(values.iter().all(|v| v.fract() == 0.0 && v.abs() <= MAX_INTEGRAL));
    }
    assert!(decoded.may_be_stale || !values.iter().any(|v| crate::sample::is_stale(*v)));
    bytes.truncate(len);
    bytes
}

#[test]
fn constants_are_short() {
    for (value, size) in [(0.0, 1), (1.0, 2), (255.0, 2), (0.25, 3), (1_700_000_000.0, 5), (0.1, 3)]
    {
        assert_eq!(check(&[value; 120], None).len(), size, "{value}");
    }
    assert_eq!(check(&[f64::from_bits(crate::sample::NORMAL_NAN_BITS); 120], None).len(), 1);
}

proptest! {
    #[test]
    fn chunks_are_identities(column in any_column()) {
        check(&column, None);
    }

    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0usize..300) {
        let mut out = vec![];
        if decode(&bytes, count, None, &mut out).is_err() {
            prop_assert!(out.is_empty());
        } else {
            prop_assert_eq!(out.len(), count);
        }
    }

    #[test]
    fn axes_are_identities(axis in prop::collection::vec(any::<i64>(), 0..200), step in 1i64..100_000) {
        let regular: Vec<i64> = (0..200).map(|i| 1_700_000_000_000 + i * step).collect();
        for axis in [axis, regular] {
            let mut bytes = vec![];
            encode_axis(&axis, &mut bytes);
            let mut back = vec![];
            prop_assert_eq!(decode_axis(&bytes, axis.len(), &mut back), Ok(bytes.len()));
            prop_assert_eq!(back, axis);
        }
    }

    #[test]
    fn runs_are_identities(gaps in prop::collection::vec((1u32..50, 1u32..50), 0..20)) {
        let (mut runs, mut at) = (vec![], 0);
        for (gap, len) in gaps {
            runs.push(at + gap..at + gap + len);
            at += gap + len;
        }
        let mut bytes = vec![];
        encode_runs(&runs, &mut bytes);
        let mut back = vec![];
        prop_assert_eq!(decode_runs(&bytes, at, &mut back), Ok(bytes.len()));
        prop_assert_eq!(back, runs);
    }

    #[test]
    fn summaries_are_identities(column in any_column()) {
        if let Some(summary) = Summary::of(&column) {
            let mut bytes = vec![];
            summary.encode(&mut bytes);
            let (back, used) = Summary::decode(&bytes, summary.count).expect("own summary");
            prop_assert_eq!(back, summary);
            prop_assert_eq!(used, bytes.len());
        } else {
            prop_assert!(column.is_empty() || column.iter().any(|v| v.is_nan()));
        }
    }
}
