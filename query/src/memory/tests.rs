use super::*;
use narthex_storage::histogram::Span;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

fn histogram(buckets: &[f64], hint: CounterResetHint) -> Histogram {
    let count = buckets.iter().sum();
    Histogram {
        counter_reset_hint: hint,
        count,
        sum: 1.0,
        positive_spans: vec![Span { offset: 0, length: buckets.len() as u32 }],
        positive_buckets: buckets.to_vec(),
        ..Histogram::default()
    }
}

fn hints_of(histograms: &[Histogram]) -> Vec<CounterResetHint> {
    let storage = MemoryStorage::new();
    let mut appender = storage.begin();
    let series = appender.series(&labels(&[("a", "b")])).expect("labels are not empty");
    for (i, h) in histograms.iter().enumerate() {
        appender.append_histogram(series, i as i64 * 1000, 0, h).expect("in order");
    }
    appender.apply();
    let querier = storage.querier(0, 1 << 40).expect("memory");
    let mut column = Column::new();
    querier.read(series, 0, 1 << 40, &mut column).expect("memory");
    column.histograms.iter().map(|(_, h)| h.counter_reset_hint).collect()
}

#[test]
fn series_of_one_row_share_an_axis() {
    let storage = MemoryStorage::new();
    let mut appender = storage.begin();
    let a = appender.series(&labels(&[("a", "1")])).expect("labels");
    let b = appender.series(&labels(&[("a", "2")])).expect("labels");
    let mut refused = Vec::new();
    for t in 0..10 {
        appender.append_row(t * 1000, &[a, b], &[1.0, 2.0], &mut refused);
    }
    assert!(refused.is_empty());
    appender.apply();
    let querier = storage.querier(2000, 5000).expect("memory");
    let (mut x, mut y) = (Column::new(), Column::new());
    querier.read(a, 0, 4000, &mut x).expect("memory");
    querier.read(b, 0, 4000, &mut y).expect("memory");
    assert!(Arc::ptr_eq(&x.axis, &y.axis));
    assert_eq!(x.timestamps(), &[2000, 3000, 4000]);
    assert_eq!(y.floats, [2.0, 2.0, 2.0]);
    assert!(x.integral && !x.may_be_stale);
}

#[test]
fn samples_must_come_in_order() {
    let storage = MemoryStorage::new();
    let l = labels(&[("a", "1")]);
    storage.add(&l, 10, 1.0).expect("first");
    assert_eq!(storage.add(&l, 9, 1.0), Err(AppendError::OutOfOrder));
    assert_eq!(storage.add(&l, 10, 2.0), Err(AppendError::Duplicate));
    assert_eq!(storage.add(&l, 10, 1.0), Ok(()));
}

#[test]
fn what_is_not_committed_is_not_visible() {
    let storage = MemoryStorage::new();
    let mut appender = storage.begin();
    let series = appender.series(&labels(&[("a", "1")])).expect("labels");
    appender.append(series, 1, 0, 1.0).expect("first");
    drop(appender);
    let querier = storage.querier(0, 10).expect("memory");
    assert!(querier.select(&[], true).expect("memory").is_empty());
    assert_eq!(storage.series_count(), 0);
}

#[test]
fn hints_are_those_of_chunks() {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    // A chunk that begins with a reset does not say so: readers compare.
    let h = |buckets: &[f64]| histogram(buckets, Unknown);
    assert_eq!(
        hints_of(&[h(&[1.0]), h(&[2.0]), h(&[1.0]), h(&[1.0])]),
        [Unknown, NotReset, Unknown, NotReset]
    );
    // One bucket shrinks although the count grows.
    assert_eq!(hints_of(&[h(&[1.0, 0.0]), h(&[0.0, 5.0])]), [Unknown, Unknown]);
    let gauge = |buckets: &[f64]| histogram(buckets, Gauge);
    assert_eq!(hints_of(&[gauge(&[3.0]), gauge(&[1.0]), h(&[1.0])]), [Gauge, Gauge, Unknown]);
    assert_eq!(hints_of(&[histogram(&[1.0], Reset), histogram(&[2.0], Reset)]), [Unknown, Unknown]);
}

#[test]
fn a_marker_behind_a_histogram_is_a_histogram() {
    let storage = MemoryStorage::new();
    let mut appender = storage.begin();
    let series = appender.series(&labels(&[("a", "1")])).expect("labels");
    let h = histogram(&[1.0], CounterResetHint::Unknown);
    appender.append_histogram(series, 1, 0, &h).expect("first");
    appender.append(series, 2, 0, stale_nan()).expect("second");
    appender.append_histogram(series, 3, 0, &h).expect("third");
    appender.apply();
    let querier = storage.querier(0, 10).expect("memory");
    let mut column = Column::new();
    querier.read(series, 0, 10, &mut column).expect("memory");
    assert!(column.may_be_stale && column.histograms[1].1.is_stale());
    assert_eq!(column.histograms[2].1.counter_reset_hint, CounterResetHint::Unknown);
}
