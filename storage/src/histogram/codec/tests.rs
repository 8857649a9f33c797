use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::histogram::tests::{custom, exponential};
use crate::sample::stale_nan;

fn check(histograms: &[Arc<Histogram>]) -> usize {
    let mut bytes = vec![7];
    encode(histograms, &mut bytes);
    let end = bytes.len();
    bytes.extend([1, 2, 3]);
    let mut back = vec![Arc::new(Histogram::default())];
    let used = decode(&bytes[1..], histograms.len(), &mut back).unwrap();
    assert_eq!(used, end - 1);
    assert_eq!(back.len(), histograms.len() + 1);
    for (a, b) in histograms.iter().zip(&back[1..]) {
        assert!(same(a, b), "{a:?} became {b:?}");
    }
    used
}

/// Equal to the bit, cuts of spans and hints included.
fn same(a: &Histogram, b: &Histogram) -> bool {
    let bounds = |h: &Histogram| h.custom_values.iter().map(|b| b.to_bits()).collect::<Vec<_>>();
    a.same_data(b)
        && a.counter_reset_hint == b.counter_reset_hint
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && bounds(a) == bounds(b)
}

fn stale() -> Histogram {
    Histogram { sum: stale_nan(), ..Histogram::default() }
}

/// Histograms as they come, one after another growing, with changes of layout,
/// markers and odd numbers between them.
fn column() -> impl Strategy<Value = Vec<Arc<Histogram>>> {
    let odd = prop_oneof![any::<u64>().prop_map(f64::from_bits), Just(-0.0), Just(f64::NAN)];
    let step = prop_oneof![
        4 => (1usize..6).prop_map(|n| (n, None)),
        1 => odd.prop_map(|x| (1, Some(x))),
    ];
    let one = prop_oneof![3 => exponential(), 2 => custom(), 1 => Just(stale())];
    vec((one, step), 0..12).prop_map(|parts| {
        let mut out = Vec::new();
        for (h, (times, odd)) in parts {
            let mut grown = h.clone();
            for _ in 0..times {
                out.push(Arc::new(grown.clone()));
                let _ = grown.add(&h);
            }
            if let Some(odd) = odd {
                grown.sum = odd;
                grown.zero_threshold = odd;
                grown.positive_buckets.iter_mut().take(2).for_each(|c| *c = odd);
                out.push(Arc::new(grown));
            }
        }
        out
    })
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(histograms in column()) {
        check(&histograms);
    }

    #[test]
    fn a_cut_or_changed_chunk_is_an_error_or_other_histograms(
        histograms in column(),
        cut in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bit in 0u32..8,
    ) {
        let mut bytes = Vec::new();
        encode(&histograms, &mut bytes);
        if !bytes.is_empty() {
            let mut out = Vec::new();
            let short = &bytes[..cut.index(bytes.len())];
            prop_assert!(decode(short, histograms.len(), &mut out).is_err());
            prop_assert!(out.is_empty());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = decode(&bytes, histograms.len(), &mut out);
        }
    }

    #[test]
    fn any_bytes_decode_to_something(bytes in vec(any::<u8>(), 0..200), count in 0usize..100) {
        let mut out = Vec::new();
        match decode(&bytes, count, &mut out) {
            Ok(used) => {
                prop_assert!(used <= bytes.len());
                prop_assert_eq!(out.len(), count);
            }
            Err(_) => prop_assert!(out.is_empty()),
        }
    }
}

#[test]
fn nothing_is_no_bytes() {
    assert_eq!(check(&[]), 0);
}

#[test]
fn a_repeated_histogram_is_shared() {
    let h = Histogram { count: 3.0, zero_count: 3.0, ..Histogram::default() };
    let rows: Vec<_> = std::iter::repeat_n(h, 120).map(Arc::new).collect();
    assert!(check(&rows) <= 16);
    let (mut bytes, mut back) = (Vec::new(), Vec::new());
    encode(&rows, &mut bytes);
    decode(&bytes, 120, &mut back).unwrap();
    assert!(back.iter().all(|h| Arc::ptr_eq(h, &back[0])));
}

/// A request latency as a client of Prometheus would keep it: schema 3, some
/// 40 buckets that appear over time, integer counts.
fn latencies(rows: usize) -> Vec<Arc<Histogram>> {
    let mut state = 1u64;
    let mut next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1u64 << 31) as f64
    };
    let mut counts = std::collections::BTreeMap::new();
    let (mut sum, mut out) = (0.0, Vec::new());
    for _ in 0..rows {
        for _ in 0..150 {
            let normal = (0..12).map(|_| next()).sum::<f64>() - 6.0;
            let value = 0.05 * (normal * 0.9).exp();
            *counts.entry((value.log2() * 8.0).ceil() as i32).or_insert(0.0) += 1.0;
            sum += value;
        }
        let mut h =
            Histogram { schema: 3, zero_threshold: 2f64.powi(-128), sum, ..Histogram::default() };
        let mut end = 0;
        for (&index, &count) in &counts {
            h.positive_buckets.push(count);
            h.count += count;
            match h.positive_spans.last_mut() {
                Some(span) if index == end => span.length += 1,
                _ => h.positive_spans.push(Span { offset: index - end, length: 1 }),
            }
            end = index + 1;
        }
        h.counter_reset_hint = CounterResetHint::NotReset;
        out.push(Arc::new(h));
    }
    out
}

#[test]
fn a_growing_histogram_costs_about_a_byte_per_bucket() {
    let rows = latencies(120);
    let buckets: usize = rows.iter().map(|h| h.positive_buckets.len()).sum();
    let bytes = check(&rows);
    println!("{bytes} bytes for {} rows with {buckets} buckets", rows.len());
    assert!(bytes < 2 * buckets, "{bytes} bytes for {buckets} buckets");
}

#[test]
fn large_columns_are_split_into_parts() {
    let wide = Histogram {
        positive_spans: vec![Span { offset: 0, length: 60_000 }],
        positive_buckets: vec![1.0; 60_000],
        count: 60_000.0,
        ..Histogram::default()
    };
    let rows: Vec<_> = std::iter::repeat_n(Arc::new(wide), 150).collect();
    check(&rows);
}
