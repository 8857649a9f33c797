//! Quantiles and fractions of classic histograms: series with the label `le`.

/// One bucket of a classic histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassicBucket {
    /// The value of `le`; not NaN.
    pub upper_bound: f64,
    /// Observations up to the bound.
    pub cumulative: f64,
}

/// What had to be changed because a bucket held less than the one below it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correction {
    /// Lowest bound of a changed bucket.
    pub min_bound: f64,
    /// Highest bound of a changed bucket.
    pub max_bound: f64,
    /// Largest change.
    pub max_diff: f64,
}

/// Smallest relative difference between neighbours that is taken as real;
/// below it is rounding.
const TOLERANCE: f64 = 1e-12;

/// The `q`-quantile of classic buckets, linear within a bucket.
///
/// Sorts `buckets` and joins those with equal bounds. The lowest bucket begins
/// at 0 if its bound is above 0; in the highest, the bound below it is the
/// answer. NaN without a +Inf bucket, without a second bucket or without
/// observations; `q` outside 0 to 1 as for native histograms.
///
/// Source: Prometheus, `BucketQuantile`.
pub fn bucket_quantile(q: f64, buckets: &mut Vec<ClassicBucket>) -> (f64, Option<Correction>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !prepare(buckets) {
        return (f64::NAN, None);
    }
    let correction = make_monotonic(buckets);
    let [.., second, highest] = &buckets[..] else {
        return (f64::NAN, correction);
    };
    if highest.cumulative == 0.0 {
        return (f64::NAN, correction);
    }
    let mut rank = q * highest.cumulative;
    let below_highest = &buckets[..buckets.len() - 1];
    let at = below_highest
        .partition_point(|b| b.cumulative < rank || b.cumulative.is_nan() || rank.is_nan());
    let Some(bucket) = below_highest.get(at) else {
        return (second.upper_bound, correction);
    };
    if at == 0 && bucket.upper_bound <= 0.0 {
        return (bucket.upper_bound, correction);
    }
    let (mut begin, mut count) = (0.0, bucket.cumulative);
    if at > 0 {
        begin = buckets[at - 1].upper_bound;
        count -= buckets[at - 1].cumulative;
        rank -= buckets[at - 1].cumulative;
    }
    (begin + (bucket.upper_bound - begin) * (rank / count), correction)
}

/// The fraction of observations between two bounds, of classic buckets.
///
/// Sorts `buckets` and joins those with equal bounds, but does not make them
/// monotonic.
///
/// Source: Prometheus, `BucketFraction`.
pub fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<ClassicBucket>) -> f64 {
    if !prepare(buckets) {
        return f64::NAN;
    }
    let count = buckets.last().map_or(0.0, |b| b.cumulative);
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let first = buckets.first().map_or(0.0, |b| b.upper_bound);
    let mut begin = if first <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    let mut rank = 0.0;
    let mut ranks = [None; 2];
    for bucket in buckets.iter() {
        let end = bucket.upper_bound;
        let rank_at = |value: f64| {
            if begin == f64::NEG_INFINITY {
                return bucket.cumulative;
            }
            rank + (bucket.cumulative - rank) * (value - begin) / (end - begin)
        };
        for (bound, found) in [lower, upper].into_iter().zip(&mut ranks) {
            if found.is_none() && begin >= bound {
                *found = Some(rank);
            } else if found.is_none() && begin < bound && end > bound {
                *found = Some(rank_at(bound));
            }
        }
        if ranks.iter().all(Option::is_some) {
            break;
        }
        rank = bucket.cumulative;
        begin = end;
    }
    let at_most =
        |rank: Option<f64>| rank.map_or(count, |r: f64| if r > count { count } else { r });
    (at_most(ranks[1]) - at_most(ranks[0])) / count
}

/// Sorts, joins equal bounds; false without a +Inf bucket.
fn prepare(buckets: &mut Vec<ClassicBucket>) -> bool {
    buckets.sort_by(|a, b| a.upper_bound.total_cmp(&b.upper_bound));
    if buckets.last().is_none_or(|b| b.upper_bound != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|next, kept| {
        let same = next.upper_bound == kept.upper_bound;
        if same {
            kept.cumulative += next.cumulative;
        }
        same
    });
    true
}

/// Lifts every bucket to at least the one below it. Differences that are
/// rounding are removed silently, in both directions.
fn make_monotonic(buckets: &mut [ClassicBucket]) -> Option<Correction> {
    let mut correction: Option<Correction> = None;
    let mut previous = buckets.first()?.cumulative;
    for bucket in &mut buckets[1..] {
        let current = bucket.cumulative;
        if current == previous {
            continue;
        }
        if almost_equal(previous, current) {
            bucket.cumulative = previous;
            continue;
        }
        if current < previous {
            bucket.cumulative = previous;
            let c = correction.get_or_insert(Correction {
                min_bound: f64::INFINITY,
                max_bound: f64::NEG_INFINITY,
                max_diff: 0.0,
            });
            c.min_bound = c.min_bound.min(bucket.upper_bound);
            c.max_bound = c.max_bound.max(bucket.upper_bound);
            c.max_diff = c.max_diff.max(previous - current);
            continue;
        }
        previous = current;
    }
    correction
}

fn almost_equal(a: f64, b: f64) -> bool {
    use narthex_storage::sample::is_stale;
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}
