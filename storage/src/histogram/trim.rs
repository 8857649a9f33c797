//! Cutting a histogram at a value: the operators `</` and `>/`.

use super::{Bucket, Histogram};

/// Which observations stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Those below the bound: `histogram </ bound`.
    Below,
    /// Those above the bound: `histogram >/ bound`.
    Above,
}

impl Histogram {
    /// Drops the observations on one side of `bound`, estimating how many of
    /// the bucket that holds it stay: linearly for custom and zero buckets, on
    /// a logarithmic scale for others.
    ///
    /// If anything was dropped, count and sum are estimated anew from the
    /// buckets (their middle times their count), and empty buckets removed.
    pub fn trim(&mut self, bound: f64, keep: Keep) {
        let (mut count, mut sum, mut trimmed) = (0.0, 0.0, false);
        let custom = self.uses_custom_buckets();
        let cut = |buckets: Vec<Bucket>, counts: &mut [f64], positive: bool| {
            let (mut cut_count, mut cut_sum, mut changed, mut any) = (0.0, 0.0, false, false);
            for (bucket, stored) in buckets.into_iter().zip(counts) {
                if bucket.count == 0.0 {
                    continue;
                }
                any = true;
                let (kept, middle) = keep_of(&bucket, bound, keep, positive, custom);
                cut_count += kept;
                cut_sum += middle * kept;
                if *stored != kept {
                    *stored = kept;
                    changed = true;
                }
            }
            (cut_count, cut_sum, changed, any)
        };
        let mut has = [false; 2];
        for positive in [true, false] {
            let buckets =
                if positive { self.positive().collect() } else { self.negative().collect() };
            let counts =
                if positive { &mut self.positive_buckets } else { &mut self.negative_buckets };
            let (more, more_sum, changed, any) = cut(buckets, counts, positive);
            count += more;
            sum += more_sum;
            trimmed |= changed;
            has[usize::from(positive)] = any;
        }
        if self.zero_count > 0.0 {
            let [negative, positive] = has;
            let (kept, middle) = keep_of_zero(&self.zero_bucket(), bound, keep, negative, positive);
            trimmed |= self.zero_count != kept;
            self.zero_count = kept;
            count += kept;
            sum += middle * kept;
        }
        if trimmed {
            self.count = count;
            self.sum = sum;
            self.compact(0);
        }
    }
}

/// How many observations of a bucket stay, and the value that stands for them.
fn keep_of(bucket: &Bucket, bound: f64, keep: Keep, positive: bool, custom: bool) -> (f64, f64) {
    let whole = || (bucket.count, middle(bucket.lower, bucket.upper, positive, custom));
    match keep {
        Keep::Below if bucket.upper <= bound => whole(),
        Keep::Below if bucket.lower < bound => split(bucket, bound, keep, positive, custom),
        Keep::Above if bucket.lower >= bound => whole(),
        Keep::Above if bucket.upper > bound => split(bucket, bound, keep, positive, custom),
        _ => (0.0, 0.0),
    }
}

/// As [`keep_of`], for a bucket around `bound`.
fn split(bucket: &Bucket, bound: f64, keep: Keep, positive: bool, custom: bool) -> (f64, f64) {
    if bucket.lower == f64::NEG_INFINITY || bucket.upper == f64::INFINITY {
        return split_infinite(bucket, bound, keep);
    }
    let below = if bound <= bucket.lower {
        0.0
    } else if bound >= bucket.upper {
        bucket.count
    } else {
        bucket.count * bucket.fraction_below(bound, custom)
    };
    match keep {
        Keep::Below => (below, middle(bucket.lower, bound, positive, custom)),
        Keep::Above => (bucket.count - below, middle(bound, bucket.upper, positive, custom)),
    }
}

/// Nobody knows where in an infinite bucket its observations are. What may lie
/// on the wrong side goes, except that a first custom bucket with a positive
/// bound is taken to begin at 0.
fn split_infinite(bucket: &Bucket, bound: f64, keep: Keep) -> (f64, f64) {
    let finite = |x: f64| if x.is_infinite() { 0.0 } else { x };
    let count = bucket.count;
    if bucket.lower == f64::NEG_INFINITY {
        let begins_at_zero = bucket.upper > 0.0 && bucket.upper != f64::INFINITY;
        return match keep {
            Keep::Below if bound >= bucket.upper => (count, 0.0),
            Keep::Below if bound > 0.0 && begins_at_zero => {
                (count * bound / bucket.upper, bound / 2.0)
            }
            Keep::Below if bucket.upper <= 0.0 => (count, bound),
            Keep::Above if bound == f64::NEG_INFINITY => (count, 0.0),
            Keep::Above if bound >= 0.0 && bucket.upper > bound && begins_at_zero => {
                (count * (1.0 - bound / bucket.upper), (bound + bucket.upper) / 2.0)
            }
            _ => (0.0, finite(bucket.upper)),
        };
    }
    match keep {
        Keep::Above if bound >= bucket.lower => (count, bound),
        _ => (0.0, finite(bucket.lower)),
    }
}

/// The zero bucket is split linearly; it reaches only to 0 on a side without
/// observations.
fn keep_of_zero(
    bucket: &Bucket,
    bound: f64,
    keep: Keep,
    has_negative: bool,
    has_positive: bool,
) -> (f64, f64) {
    let upper = if has_negative && !has_positive { 0.0 } else { bucket.upper };
    let lower = if has_positive && !has_negative { 0.0 } else { bucket.lower };
    let whole = (bucket.count, (lower + upper) / 2.0);
    match keep {
        Keep::Below if bound <= lower => (0.0, 0.0),
        Keep::Below if bound >= upper => whole,
        Keep::Below => (bucket.count * ((bound - lower) / (upper - lower)), (lower + bound) / 2.0),
        Keep::Above if bound <= lower => whole,
        Keep::Above if bound >= upper => (0.0, 0.0),
        Keep::Above => (bucket.count * ((upper - bound) / (upper - lower)), (bound + upper) / 2.0),
    }
}

/// The value that stands for observations in an interval.
fn middle(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        (false, false) if linear => (lower + upper) / 2.0,
        (false, false) => {
            let geometric = (lower * upper).abs().sqrt();
            if positive { geometric } else { -geometric }
        }
    }
}
