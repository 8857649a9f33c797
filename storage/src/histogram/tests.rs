//! Laws that hold for all histograms.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::bounds::reduced_index;
use super::*;

fn spans_for(raw: &[(i32, u32)], custom: bool) -> Vec<Span> {
    let span = |(i, &(offset, length)): (usize, &(i32, u32))| Span {
        offset: if i == 0 && !custom { offset } else { offset.abs() },
        length,
    };
    raw.iter().enumerate().map(span).collect()
}

fn side(custom: bool) -> impl Strategy<Value = (Vec<Span>, Vec<f64>)> {
    vec((-4i32..5, 0u32..4), 0..4).prop_flat_map(move |raw| {
        let spans = spans_for(&raw, custom);
        let n = spans.iter().map(|s| s.length as usize).sum::<usize>();
        (Just(spans), vec((0u32..6).prop_map(f64::from), n))
    })
}

fn hint() -> impl Strategy<Value = CounterResetHint> {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    prop_oneof![Just(Unknown), Just(Reset), Just(NotReset), Just(Gauge)]
}

fn total(h: &Histogram) -> f64 {
    h.zero_count + h.positive_buckets.iter().chain(&h.negative_buckets).sum::<f64>()
}

pub(crate) fn exponential() -> impl Strategy<Value = Histogram> {
    let width = prop_oneof![Just(0.0), Just(0.5), Just(1e-3), Just(1.7)];
    (-4i32..=8, width).prop_flat_map(|(schema, width)| exponential_of(schema, width))
}

prop_compose! {
    fn exponential_of(schema: i32, width: f64)(
        zero_count in 0u32..4,
        positive in side(false),
        negative in side(false),
        hint in hint(),
    ) -> Histogram {
        let mut h = Histogram {
            counter_reset_hint: hint,
            schema,
            zero_count: f64::from(zero_count),
            positive_spans: positive.0,
            positive_buckets: positive.1,
            negative_spans: negative.0,
            negative_buckets: negative.1,
            ..Histogram::default()
        };
        h.count = total(&h);
        h.sum = h.count * 1.5;
        // No observation in a bucket that the zero bucket covers: such a
        // histogram is valid, but nobody makes it, and sums drop those buckets.
        (h.zero_count, h.zero_threshold, _) = h.widened_zero(width, None);
        h.clear_within_zero(None);
        h
    }
}

prop_compose! {
    pub(crate) fn custom()(
        bounds in proptest::collection::btree_set(-20i32..20, 0..12),
        side in side(true),
        hint in hint(),
    ) -> Histogram {
        let mut bounds: Vec<f64> = bounds.into_iter().map(f64::from).collect();
        let reach = side.0.iter().map(|s| s.offset as usize + s.length as usize).sum::<usize>();
        while bounds.len() + 1 < reach {
            bounds.push(bounds.last().map_or(0.0, |b| b + 1.0));
        }
        let mut h = Histogram {
            counter_reset_hint: hint,
            schema: CUSTOM_BUCKETS_SCHEMA,
            positive_spans: side.0,
            positive_buckets: side.1,
            custom_values: Arc::from(bounds),
            ..Histogram::default()
        };
        h.count = total(&h);
        h.sum = h.count * 2.0;
        h
    }
}

/// What nobody checked: spans, counts and bounds that contradict each other.
pub(crate) fn unchecked() -> impl Strategy<Value = Histogram> {
    let number = || {
        prop_oneof![
            any::<f64>(),
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(0.0),
            Just(-1.0),
            Just(1.0),
        ]
    };
    let spans = || {
        let offset = prop_oneof![any::<i32>(), -3i32..4];
        vec((offset, prop_oneof![any::<u32>(), 0u32..4]), 0..4).prop_map(|raw| {
            raw.into_iter().map(|(offset, length)| Span { offset, length }).collect::<Vec<_>>()
        })
    };
    let schema = prop_oneof![-6i32..10, Just(CUSTOM_BUCKETS_SCHEMA), any::<i32>()];
    let numbers = (number(), number(), number(), number());
    let counts = || vec(number(), 0..6);
    (hint(), schema, numbers, spans(), spans(), counts(), counts(), counts()).prop_map(
        |(hint, schema, numbers, positive_spans, negative_spans, positive, negative, bounds)| {
            Histogram {
                counter_reset_hint: hint,
                schema,
                zero_threshold: numbers.0,
                zero_count: numbers.1,
                count: numbers.2,
                sum: numbers.3,
                positive_spans,
                negative_spans,
                positive_buckets: positive,
                negative_buckets: negative,
                custom_values: Arc::from(bounds),
            }
        },
    )
}

fn pair() -> impl Strategy<Value = (Histogram, Histogram)> {
    // Of one schema, or without zero buckets: in between, Prometheus counts
    // some observations twice (see `Histogram::add`).
    let widths = || prop_oneof![Just(0.0), Just(0.5), Just(1e-3), Just(1.7)];
    let one_schema = (-4i32..=8, widths(), widths())
        .prop_flat_map(|(s, a, b)| (exponential_of(s, a), exponential_of(s, b)));
    let no_width = (-4i32..=8, -4i32..=8)
        .prop_flat_map(|(a, b)| (exponential_of(a, 0.0), exponential_of(b, 0.0)));
    prop_oneof![one_schema, no_width, (custom(), custom())]
}

fn reduced(side: SideIter<'_>, from: i32, to: i32) -> BTreeMap<i64, f64> {
    let mut out = BTreeMap::new();
    for (index, count) in side {
        let index = if from == to { index } else { reduced_index(index, from, to) };
        *out.entry(index).or_insert(0.0) += count;
    }
    out
}

proptest! {
    #[test]
    fn sums_are_valid_and_lose_no_observation((a, b) in pair()) {
        prop_assert_eq!(a.validate(), Ok(()));
        let mut sum = a.clone();
        sum.add(&b).expect("same kind");
        prop_assert_eq!(sum.validate(), Ok(()));
        prop_assert_eq!(total(&sum), total(&a) + total(&b));
        prop_assert_eq!(sum.count, a.count + b.count);
        prop_assert!(a.uses_custom_buckets() || sum.schema == a.schema.min(b.schema));
        let mut other_way = b.clone();
        other_way.add(&a).expect("same kind");
        sum.compact(0);
        other_way.compact(0);
        prop_assert!(sum.same_data(&other_way), "{} {}", sum, other_way);
        prop_assert_eq!(sum.counter_reset_hint, other_way.counter_reset_hint);
    }

    #[test]
    fn sums_without_zero_buckets_are_those_of_the_buckets(mut a in exponential(), mut b in exponential()) {
        (a.zero_threshold, b.zero_threshold) = (0.0, 0.0);
        let schema = a.schema.min(b.schema);
        let mut expected = reduced(a.positive_side(), a.schema, schema);
        for (index, count) in reduced(b.positive_side(), b.schema, schema) {
            *expected.entry(index).or_insert(0.0) += count;
        }
        a.add(&b).expect("both exponential");
        prop_assert_eq!(a.positive_side().collect::<BTreeMap<_, _>>(), expected);
    }

    #[test]
    fn a_difference_undoes_a_sum((a, b) in pair()) {
        let mut there = a.clone();
        there.add(&b).expect("same kind");
        let mut expected = a.clone();
        let mut empty = b.clone();
        empty.mul(0.0);
        // The same reconciliation without the observations of `b`: its
        // populated buckets may still push the zero threshold up.
        there.sub(&b).expect("same kind");
        expected.add(&empty).expect("same kind");
        prop_assert_eq!(total(&there), total(&expected));
        prop_assert_eq!(there.count, a.count);
    }

    #[test]
    fn compensated_sums_of_integers_are_plain_sums(a in exponential(), others in vec(exponential(), 0..4)) {
        let (mut plain, mut kahan, mut c) = (a.clone(), a, Compensation::default());
        for other in &others {
            plain.add(other).expect("both exponential");
            kahan.add_compensated(other, &mut c).expect("both exponential");
        }
        kahan.settle(&c);
        plain.compact(0);
        kahan.compact(0);
        prop_assert!(plain.same_data(&kahan), "{} {}", plain, kahan);
    }

    #[test]
    fn compensated_custom_sums_are_plain_sums(a in custom(), others in vec(custom(), 0..4)) {
        let (mut plain, mut kahan, mut c) = (a.clone(), a, Compensation::default());
        for other in &others {
            plain.add(other).expect("both custom");
            kahan.add_compensated(other, &mut c).expect("both custom");
        }
        kahan.settle(&c);
        plain.compact(0);
        kahan.compact(0);
        prop_assert!(plain.same_data(&kahan), "{} {}", plain, kahan);
    }

    #[test]
    fn compaction_keeps_what_is_there(h in prop_oneof![exponential(), custom()], max_empty in 0usize..5) {
        let mut compact = h.clone();
        compact.compact(max_empty);
        prop_assert_eq!(compact.validate(), Ok(()));
        let populated = |h: &Histogram| -> Vec<(i64, f64)> {
            h.negative_side().chain(h.positive_side()).filter(|b| b.1 != 0.0).collect()
        };
        prop_assert_eq!(populated(&compact), populated(&h));
        let again = { let mut a = compact.clone(); a.compact(max_empty); a };
        prop_assert_eq!(&again, &compact);
        prop_assert_eq!(h.to_string(), compact.to_string());
    }

    #[test]
    fn growing_is_no_reset_and_shrinking_is((a, b) in pair()) {
        let unknown = |mut h: Histogram| { h.counter_reset_hint = CounterResetHint::Unknown; h };
        let (a, b) = (unknown(a), unknown(b));
        prop_assert!(!a.is_reset_after(&a));
        let mut grown = a.clone();
        grown.add(&b).expect("same kind");
        prop_assert!(!grown.is_reset_after(&a), "{} after {}", grown, a);
        if b.count > 0.0 {
            prop_assert!(a.is_reset_after(&grown));
        }
    }

    #[test]
    fn both_halves_of_a_cut_make_the_whole(h in exponential(), bound in -20.0f64..20.0) {
        let (mut below, mut above) = (h.clone(), h.clone());
        below.trim(bound, Keep::Below);
        above.trim(bound, Keep::Above);
        prop_assert!((below.count + above.count - h.count).abs() < 1e-9);
        let (mut all, mut none) = (h.clone(), h.clone());
        all.trim(f64::INFINITY, Keep::Below);
        none.trim(f64::INFINITY, Keep::Above);
        prop_assert_eq!(all.count, h.count);
        prop_assert_eq!(none.count, 0.0);
    }

    #[test]
    fn nothing_unchecked_panics_or_hangs(a in unchecked(), b in unchecked(), x in any::<f64>()) {
        let _ = (a.validate(), a.to_string(), a.is_reset_after(&b), a.continues_with(&b));
        let _ = (a.ascending().count(), a.descending().count(), a.same_data(&b));
        let _ = (a.to_literal(), a.to_classic_buckets(), a.has_overflow());
        for op in [Histogram::add, Histogram::sub] {
            let _ = op(&mut a.clone(), &b);
        }
        let mut c = Compensation::default();
        let mut sum = a.clone();
        let _ = sum.add_compensated(&b, &mut c);
        let _ = sum.add_compensated(&a, &mut c);
        sum.settle(&c);
        a.clone().trim(x, Keep::Below);
        a.clone().trim(x, Keep::Above);
        a.clone().reduce_resolution(-2);
        let _ = a.into_valid();
    }
}

#[test]
fn a_zero_threshold_within_a_bucket_moves_to_its_end() {
    let a = Histogram { zero_threshold: 1.5, zero_count: 1.0, count: 1.0, ..Histogram::default() };
    let mut b = Histogram {
        count: 7.0,
        positive_spans: vec![Span { offset: 0, length: 3 }],
        positive_buckets: vec![1.0, 2.0, 4.0],
        ..Histogram::default()
    };
    b.add(&a).expect("both exponential");
    assert_eq!(b.to_string(), "{count:8, sum:0, [-2,2]:4, (2,4]:4}");
}

#[test]
fn hints_combine_and_collide() {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    for (a, b, sum, collision) in [
        (Unknown, Reset, Unknown, false),
        (NotReset, NotReset, NotReset, false),
        (NotReset, Unknown, Unknown, false),
        (Gauge, Reset, Gauge, false),
        (Reset, NotReset, Unknown, true),
    ] {
        for (a, b) in [(a, b), (b, a)] {
            let with = |hint| Histogram { counter_reset_hint: hint, ..Histogram::default() };
            let mut h = with(a);
            let reconciled = h.add(&with(b)).expect("both exponential");
            assert_eq!(
                (h.counter_reset_hint, reconciled.counter_reset_collision),
                (sum, collision)
            );
        }
    }
}

#[test]
fn tracked_hints_are_those_of_chunks() {
    use CounterResetHint::{Gauge, NotReset, Unknown};
    let of = |count: f64, hint| Histogram {
        counter_reset_hint: hint,
        count,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_buckets: vec![count],
        ..Histogram::default()
    };
    let stale = Histogram { sum: crate::sample::stale_nan(), ..Histogram::default() };
    let mut tracker = HintTracker::new();
    let shared = std::sync::Arc::new(of(9.0, Unknown));
    let mut column = vec![(0, Arc::clone(&shared)), (1, Arc::clone(&shared)), (2, shared)];
    column.push((4, Arc::new(of(9.0, NotReset))));
    settle_hints(&mut column);
    let hints: Vec<_> = column.iter().map(|(_, h)| h.counter_reset_hint).collect();
    assert_eq!(hints, [Unknown, NotReset, NotReset, Unknown]);
    assert!(Arc::ptr_eq(&column[1].1, &column[2].1));
    let steps = [
        (of(1.0, Unknown), Unknown),
        (of(2.0, Unknown), NotReset),
        (of(1.0, Unknown), Unknown),
        (of(1.0, CounterResetHint::Reset), Unknown),
        (of(2.0, Gauge), Gauge),
        (of(1.0, Gauge), Gauge),
        (of(3.0, NotReset), Unknown),
        (stale, NotReset),
        (of(3.0, Unknown), Unknown),
    ];
    for (i, (histogram, hint)) in steps.iter().enumerate() {
        assert_eq!(tracker.next(histogram), *hint, "step {i}");
    }
    let mut column: Vec<_> = (0..).zip(steps.iter().map(|(h, _)| Arc::new(h.clone()))).collect();
    settle_hints(&mut column);
    for ((i, h), (_, hint)) in column.iter().zip(&steps) {
        assert_eq!(h.counter_reset_hint, *hint, "step {i}");
    }
}
