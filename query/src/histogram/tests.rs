//! Cases small enough to check by hand; the scripts hold the rest.

use std::sync::Arc;

use narthex_storage::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram, Span};
use proptest::prelude::*;

use super::*;

fn with_buckets(counts: &[f64]) -> Histogram {
    Histogram {
        count: counts.iter().sum(),
        sum: counts.iter().sum::<f64>() * 1.5,
        positive_spans: vec![Span { offset: 0, length: counts.len() as u32 }],
        positive_buckets: counts.to_vec(),
        ..Histogram::default()
    }
}

fn with_bounds(bounds: &[f64], counts: &[f64]) -> Histogram {
    Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        custom_values: Arc::from(bounds),
        ..with_buckets(counts)
    }
}

fn window<'a>(times_ms: &'a [i64], histograms: &'a [Arc<Histogram>]) -> Window<'a> {
    Window { times_ms, histograms, starts_ms: &[], start_ms: 0, end_ms: 60_000 }
}

const RATE: Rate = Rate { counter: true, per_second: true };
const INCREASE: Rate = Rate { counter: true, per_second: false };

#[test]
fn a_quantile_in_the_middle_of_an_octave_is_its_geometric_middle() {
    let h = with_buckets(&[0.0, 4.0]);
    let (value, effect) = quantile(0.5, &h);
    assert!((value - 2f64.sqrt()).abs() < 1e-12);
    assert_eq!(effect, None);
    assert_eq!(quantile(-1.0, &h).0, f64::NEG_INFINITY);
    assert_eq!(quantile(2.0, &h).0, f64::INFINITY);
    assert!(quantile(0.5, &Histogram::default()).0.is_nan());
}

#[test]
fn custom_buckets_interpolate_linearly_and_end_at_the_last_bound() {
    let h = with_bounds(&[1.0, 3.0], &[2.0, 2.0, 4.0]);
    assert_eq!(quantile(0.25, &h).0, 1.0);
    assert_eq!(quantile(0.375, &h).0, 2.0);
    assert_eq!(quantile(0.9, &h).0, 3.0);
    assert_eq!(fraction(0.0, 2.0, &h).0, 3.0 / 8.0);
}

#[test]
fn nan_observations_are_above_all_others() {
    let mut h = with_buckets(&[0.0, 4.0]);
    h.count = 8.0;
    h.sum = f64::NAN;
    let (value, effect) = quantile(0.9, &h);
    assert!(value.is_nan());
    assert_eq!(effect, Some(NanEffect::Result));
    assert_eq!(quantile(0.25, &h).1, Some(NanEffect::Skew));
    assert_eq!(fraction(f64::NEG_INFINITY, f64::INFINITY, &h), (0.5, Some(NanEffect::Excluded)));
}

#[test]
fn classic_buckets_are_sorted_joined_and_lifted() {
    let bucket = |upper_bound, cumulative| ClassicBucket { upper_bound, cumulative };
    let mut buckets =
        vec![bucket(f64::INFINITY, 8.0), bucket(1.0, 2.0), bucket(2.0, 1.0), bucket(1.0, 2.0)];
    let (value, correction) = bucket_quantile(0.25, &mut buckets);
    assert_eq!(value, 0.5);
    assert_eq!(correction, Some(Correction { min_bound: 2.0, max_bound: 2.0, max_diff: 3.0 }));
    assert!(bucket_quantile(0.5, &mut vec![bucket(1.0, 1.0)]).0.is_nan());
    assert!(bucket_quantile(0.5, &mut Vec::new()).0.is_nan());
    assert!(bucket_fraction(0.0, 1.0, &mut Vec::new()).is_nan());
}

#[test]
fn rates_extrapolate_to_the_ends() {
    let histograms: Vec<_> = [60.0, 120.0, 180.0].map(|c| Arc::new(with_buckets(&[c]))).into();
    let times = [15_000, 30_000, 45_000];
    let mut findings = Findings::default();
    let rate = extrapolated_rate(window(&times, &histograms), RATE, &mut findings).unwrap();
    assert_eq!(rate.counter_reset_hint, CounterResetHint::Gauge);
    assert_eq!(rate.positive_buckets, [4.0]);
    assert!(findings.is_empty());
    // One sample says nothing, unless its start is known.
    let one = Window { starts_ms: &[], ..window(&times[..1], &histograms[..1]) };
    assert_eq!(extrapolated_rate(one, INCREASE, &mut findings), None);
    let started = Window { starts_ms: &[5_000], ..one };
    let increase = extrapolated_rate(started, INCREASE, &mut findings).unwrap();
    assert_eq!(increase.positive_buckets, [60.0]);
}

#[test]
fn a_reset_in_one_bucket_is_added_up() {
    let histograms: Vec<_> =
        [&[5.0, 5.0], &[1.0, 9.0], &[2.0, 9.0]].map(|c| Arc::new(with_buckets(c))).into();
    let window = Window { end_ms: 40_000, ..window(&[10_000, 20_000, 30_000], &histograms) };
    let mut findings = Findings::default();
    let h = extrapolated_rate(window, INCREASE, &mut findings).unwrap();
    // 2 + 9 since the reset, and an interval of 20 s stretched to 40 s.
    assert_eq!(h.count, 22.0);
}

#[test]
fn gauges_and_mixed_schemas_are_found() {
    let mut gauge = with_buckets(&[1.0]);
    gauge.counter_reset_hint = CounterResetHint::Gauge;
    let histograms = [Arc::new(gauge), Arc::new(with_buckets(&[2.0]))];
    let mut findings = Findings::default();
    let times = [10_000, 20_000];
    assert!(extrapolated_rate(window(&times, &histograms), RATE, &mut findings).is_some());
    assert!(findings.not_counter && !findings.not_gauge);
    let texts: Vec<_> = findings.texts("m").collect();
    let text = "this native histogram metric is not a counter: \"m\"";
    assert_eq!(texts, [(Level::Warning, text.to_owned())]);

    let mixed = [Arc::new(with_buckets(&[1.0])), Arc::new(with_bounds(&[1.0], &[2.0]))];
    let mut findings = Findings::default();
    assert_eq!(over_time(AggregationKind::Sum, &mixed, &mut findings), None);
    assert_eq!(findings, Findings::mixed());
}

#[test]
fn anchored_windows_count_from_the_sample_before() {
    let histograms: Vec<_> = [1.0, 4.0, 2.0, 8.0].map(|c| Arc::new(with_buckets(&[c]))).into();
    let times = [-10_000, 20_000, 40_000, 70_000];
    let mut findings = Findings::default();
    let anchored = window(&times[..3], &histograms[..3]);
    let h = extended_rate(anchored, INCREASE, false, &mut findings).unwrap();
    assert_eq!(h.positive_buckets, [2.0 - 1.0 + 4.0]);
    let h = extended_rate(window(&times, &histograms), INCREASE, true, &mut findings).unwrap();
    // 2 at the start, 6 at the end, and 4 lost in the reset.
    assert_eq!(h.positive_buckets, [8.0]);
}

#[test]
fn start_timestamps_tell_of_resets() {
    assert!(is_start_reset(5, 10, 15, 20));
    assert!(is_start_reset(5, 10, 10, 20));
    assert!(!is_start_reset(0, 10, 10, 20));
    assert!(!is_start_reset(10, 10, 10, 20));
    assert!(!is_start_reset(5, 10, 5, 20));
    assert!(!is_start_reset(5, 10, 20, 20));
    assert!(overlaps_previous(5, 10, 7));
    assert!(!overlaps_previous(5, 10, 5));
}

#[test]
fn resets_and_changes_see_both_kinds() {
    let histograms = [Arc::new(with_buckets(&[1.0])), Arc::new(with_buckets(&[1.0]))];
    let samples = Samples {
        float_times_ms: &[10, 40, 50],
        floats: &[1.0, 3.0, 2.0],
        histogram_times_ms: &[20, 30],
        histograms: &histograms,
        ..Samples::default()
    };
    assert_eq!((resets(samples), changes(samples)), (3, 3));
    let anchored = samples.anchored(25).unwrap();
    assert_eq!(anchored.iter().map(|s| s.time_ms).collect::<Vec<_>>(), [20, 30, 40, 50]);
    assert!(samples.anchored(50).is_none());
}

#[test]
fn a_mean_that_would_overflow_is_updated_step_by_step() {
    let big = with_buckets(&[f64::MAX]);
    let histograms: Vec<_> = std::iter::repeat_n(Arc::new(big), 3).collect();
    let mut findings = Findings::default();
    let mean = over_time(AggregationKind::Average, &histograms, &mut findings).unwrap();
    assert!((mean.positive_buckets[0] / f64::MAX - 1.0).abs() < 1e-15);
}

proptest! {
    #[test]
    fn a_fraction_below_a_quantile_is_the_quantile(
        counts in proptest::collection::vec(1u32..9, 1..6),
        q in 0.01f64..0.99,
    ) {
        let counts: Vec<f64> = counts.into_iter().map(f64::from).collect();
        let h = with_buckets(&counts);
        let (value, _) = quantile(q, &h);
        let (back, _) = fraction(f64::NEG_INFINITY, value, &h);
        prop_assert!((back - q).abs() < 1e-9, "{back} {q}");
    }

    #[test]
    fn means_are_sums_by_counts(counts in proptest::collection::vec(0u32..9, 1..6)) {
        let histograms: Vec<_> =
            counts.iter().map(|c| Arc::new(with_buckets(&[f64::from(*c)]))).collect();
        let mut findings = Findings::default();
        let sum = over_time(AggregationKind::Sum, &histograms, &mut findings).unwrap();
        let mean = over_time(AggregationKind::Average, &histograms, &mut findings).unwrap();
        prop_assert_eq!(sum.count / histograms.len() as f64, mean.count);
        prop_assert_eq!(sum.count, f64::from(counts.iter().sum::<u32>()));
    }
}
