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

/// Encodes, decodes, compares; returns the chunk.
fn check(values: &[f64], sibling: Option<&[f64]>) -> Vec<u8> {
    let mut bytes = vec![];
    encode(values, sibling, &mut bytes);
    let len = bytes.len();
    assert!(len <= raw::size_bytes(values.len()));
    bytes.extend([0xaa; 3]);
    let mut back = vec![1.0];
    let decoded = decode_chunk(&bytes, values.len(), sibling, &mut back).expect("own chunk");
    assert_eq!(decoded.used_bytes, len);
    assert_eq!(bits(&back[1..]), bits(values));
    if decoded.integral {
        assert!(values.iter().all(|v| v.fract() == 0.0 && v.abs() <= MAX_INTEGRAL));
    }
    assert!(decoded.may_be_stale || !values.iter().any(|v| sample::is_stale(*v)));
    bytes.truncate(len);
    bytes
}

/// Numbers that look random and are the same everywhere.
fn noise(count: u64) -> impl Iterator<Item = u64> {
    (1..=count).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33)
}

#[test]
fn constants_are_short() {
    let sizes = [(0.0, 1), (1.0, 2), (255.0, 2), (0.25, 3), (1.7e9, 5), (0.1, 3), (-0.0, 2)];
    for (value, size) in sizes {
        assert_eq!(check(&[value; 120], None).len(), size, "{value}");
    }
    for nan in [sample::NORMAL_NAN_BITS, sample::STALE_NAN_BITS] {
        assert_eq!(check(&[f64::from_bits(nan); 120], None).len(), 1);
    }
}

/// The first byte says the codec, the second the form.
#[test]
fn each_kind_of_column_gets_its_form() {
    let of = |step: &dyn Fn(u64) -> f64| -> Vec<f64> { noise(120).map(step).collect() };
    let integers = of(&|n| (n % 1000) as f64);
    assert_eq!(check(&integers, None)[0] & 0xf0, numbers::INTEGERS);
    let decimals = of(&|n| (n % 1000) as f64 / 100.0);
    assert_eq!(check(&decimals, None)[1], 0x02);
    let ticks = of(&|n| (n % 100_000) as f64 * 0.001);
    assert_eq!(check(&ticks, None)[1], 0x13);
    let reals = of(&|n| 8.0 + (n % 1000).isqrt() as f64 / 7.0);
    assert_eq!(check(&reals, None)[1] >> 4, 2);
    let powers = of(&|n| 2f64.powi((n % 100) as i32) / 3.0);
    assert_eq!(check(&powers, None)[1], 0x30);
    let any = of(&|n| f64::from_bits(n << 33 ^ n << 11 ^ n));
    assert_eq!(check(&any, None)[0], tag::RAW);
}

#[test]
fn sums_of_decimals_are_steps() {
    let mut sum = 4000.0 / 7.0;
    let column: Vec<f64> = noise(120)
        .map(|n| {
            sum += (n % 100_000) as f64 / 1e6;
            sum
        })
        .collect();
    let chunk = check(&column, None);
    assert_eq!((chunk[0] & 0xf0, chunk[1]), (0x60, 6));
    assert!(chunk.len() < 120 * 3, "{}", chunk.len());
}

#[test]
fn a_common_divisor_is_divided_out() {
    let pages: Vec<f64> = noise(120).map(|n| (n % 1000) as f64).collect();
    let bytes: Vec<f64> = pages.iter().map(|p| p * 4096.0).collect();
    assert!(check(&bytes, None).len() <= check(&pages, None).len() + 5);
    let odd: Vec<f64> = pages.iter().map(|p| p * 15_625.0 + 7.0).collect();
    assert!(check(&odd, None).len() <= check(&pages, None).len() + 5);
}

#[test]
fn a_bucket_is_small_beside_its_neighbour() {
    let mut total = 0.0;
    let bucket: Vec<f64> = noise(120)
        .map(|n| {
            total += (n % 1000) as f64;
            total
        })
        .collect();
    let next: Vec<f64> = bucket.iter().zip(noise(120)).map(|(b, n)| b + (n % 2) as f64).collect();
    let chunk = check(&next, Some(&bucket));
    assert!(chunk.len() < 40, "{}", chunk.len());
    assert_eq!(check(&bucket, Some(&bucket)).len(), 2);
    assert_eq!(decode(&chunk, 120, None, &mut vec![]), Err(CodecError::NoSibling));
    assert!(needs_sibling(&chunk) && suits_as_sibling(&chunk));
    let alone = check(&bucket, None);
    assert!(!needs_sibling(&alone) && suits_as_sibling(&alone));
    let halves: Vec<f64> = bucket.iter().map(|b| b + 0.5).collect();
    for other in [check(&[1.0; 9], None), check(&halves, None), vec![tag::RAW], vec![]] {
        assert!(!needs_sibling(&other) && !suits_as_sibling(&other));
    }
}

#[test]
fn a_step_in_a_level_column_costs_its_position_and_size() {
    let mut column = vec![7.0; 120];
    column[60..].fill(9.0);
    assert!(check(&column, None).len() <= 10, "{:?}", check(&column, None));
}

#[test]
fn marks_stand_beside_the_payload() {
    let numbers: Vec<f64> = noise(120).map(|n| (n % 100) as f64).collect();
    let plain = check(&numbers, None).len();
    let mut column = numbers.clone();
    column.push(stale_nan());
    assert!(check(&column, None).len() <= plain + 3);
    let mut bytes = vec![];
    encode(&column, None, &mut bytes);
    let decoded = decode_chunk(&bytes, 121, None, &mut vec![]).expect("own chunk");
    assert!(decoded.may_be_stale && !decoded.integral);
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0] {
        column[50] = odd;
        assert!(check(&column, None).len() <= plain + 5);
    }
}

#[test]
fn one_marks_payload_is_empty() {
    check(&[stale_nan(), f64::NAN], None);
    check(&[stale_nan(), 5.0], Some(&[1.0, 2.0]));
}

#[test]
fn regular_axes_are_ten_bytes_and_jitter_is_cheap() {
    let regular: Vec<i64> = (0..120).map(|i| 1_700_000_000_123 + i * 15_000).collect();
    let mut bytes = vec![];
    encode_axis(&regular, &mut bytes);
    assert!(bytes.len() <= 12, "{}", bytes.len());
    let late: Vec<i64> = regular.iter().zip(noise(120)).map(|(t, n)| t + (n % 4) as i64).collect();
    bytes.clear();
    encode_axis(&late, &mut bytes);
    assert!(bytes.len() <= 60, "{}", bytes.len());
}

#[test]
fn unknown_tags_are_named_with_their_place() {
    let unknown = |offset, tag| Err(CodecError::UnknownTag { offset, tag });
    assert_eq!(decode(&[0x7f, 0], 3, None, &mut vec![]), unknown(0, 0x7f));
    assert_eq!(decode(&[0x40, 0xf0], 3, None, &mut vec![]), unknown(1, 0xf0));
    assert_eq!(decode_axis(&[0x10], 3, &mut vec![]), unknown(0, 0x10));
}

#[test]
fn every_cut_is_an_error() {
    for column in [
        noise(120).map(|n| (n % 1000) as f64).collect::<Vec<_>>(),
        noise(300).map(|n| n as f64 / 1e3).collect(),
        noise(40).map(|n| (n as f64).sqrt()).collect(),
        vec![1.0, stale_nan(), 3.0, f64::from_bits(u64::MAX), 2.5],
    ] {
        let chunk = check(&column, None);
        for cut in 0..chunk.len() {
            let mut out = vec![];
            assert!(decode(&chunk[..cut], column.len(), None, &mut out).is_err(), "{cut}");
            assert!(out.is_empty());
        }
    }
}

#[test]
fn counts_are_bounded() {
    let count = MAX_COUNT + 1;
    assert_eq!(decode(&[0], count, None, &mut vec![]), Err(CodecError::TooMany { count }));
    assert_eq!(decode_axis(&[0], count, &mut vec![]), Err(CodecError::TooMany { count }));
}

proptest! {
    #[test]
    fn chunks_are_identities(column in any_column()) {
        check(&column, None);
    }

    #[test]
    fn siblings_are_identities(
        (column, sibling) in (1usize..300).prop_flat_map(|n| {
            let columns = || any_column().prop_map(move |c| {
                c.iter().copied().cycle().chain(std::iter::repeat(1.5)).take(n).collect::<Vec<_>>()
            });
            (columns(), columns())
        }),
        shift in -3i64..3,
    ) {
        check(&column, Some(&sibling));
        let near: Vec<f64> = sibling.iter().map(|s| s + shift as f64).collect();
        check(&near, Some(&sibling));
    }

    #[test]
    fn integers_of_any_size_are_identities(
        values in prop::collection::vec((any::<i64>(), 0u32..64), 1..600),
    ) {
        let values: Vec<i64> = values.into_iter().map(|(v, shift)| v >> shift).collect();
        let mut bytes = vec![];
        encode_axis(&values, &mut bytes);
        let mut back = vec![];
        prop_assert_eq!(decode_axis(&bytes, values.len(), &mut back), Ok(bytes.len()));
        prop_assert_eq!(back, values);
    }

    #[test]
    fn damaged_chunks_decode_or_fail(column in any_column(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = vec![];
        encode(&column, None, &mut bytes);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = decode(&bytes, column.len(), None, &mut vec![]);
            let _ = decode(&bytes, column.len(), Some(&column), &mut vec![]);
        }
    }

    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0usize..600) {
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

/// Chunks as written by hand from docs/format-chunks.md: a change of the format
/// needs other tags, not other meanings.
#[test]
fn known_bytes_keep_their_meaning() {
    let known: [(&[f64], &[u8]); 7] = [
        (&[3.0, 5.0, 7.0, 12.0, 14.0, 16.0], &[0x25, 0x06, 0x04, 0x00, 0xe3]),
        (&[0.01, 0.02, 0.05, 0.06, 0.08, 0.1], &[0x41, 0x02, 0x02, 0x04, 0x00, 0xd2, 0x01]),
        (&[1.0, stale_nan()], &[0x81, 0x01, 0x08, 0x01]),
        (&[1.5; 4], &[0x09, 0x27, 0x0f]),
        (
            &[3e9, 3e9, 3e9, 4e9],
            &[0x2c, 0x80, 0x94, 0xeb, 0xdc, 3, 0x80, 0xf8, 0x82, 0xad, 0x16, 0x00, 0x17],
        ),
        (
            &[1e300, -1.0],
            &[0x78, 0x9c, 0x75, 0x00, 0x88, 0x3c, 0xe4, 0x37, 0x7e, 0, 0, 0, 0, 0, 0, 0xf0, 0xbf],
        ),
        // 1 + 0.1 + 0.1 + 0.1, with a correction of one float at the end.
        (
            &[1.0, 1.1, 1.2000000000000002, 1.3000000000000005],
            &[0x63, 1, 0x01, 1, 0x02, 0x00, 0x00, 0xff, 1, 2, 0x02],
        ),
    ];
    for (values, bytes) in &known[..6] {
        let mut chunk = vec![];
        encode(values, None, &mut chunk);
        assert_eq!(chunk, *bytes, "{values:?}");
    }
    for (values, bytes) in known {
        let mut back = vec![];
        assert_eq!(decode(bytes, values.len(), None, &mut back), Ok(bytes.len()), "{values:?}");
        assert_eq!(bits(&back), bits(values));
    }
    let mut back = vec![];
    assert_eq!(decode(&[0x33, 0x02], 3, Some(&[1.0, 2.0, 9.0]), &mut back), Ok(2));
    assert_eq!(back, [2.0, 3.0, 10.0]);
}
