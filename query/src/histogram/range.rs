//! `resets` and `changes` over windows of floats and histograms.

use std::sync::Arc;

use narthex_storage::histogram::Histogram;

use super::rate::is_start_reset;

/// The samples of a window, by kind, each ascending in time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Samples<'a> {
    /// Times of the floats.
    pub float_times_ms: &'a [i64],
    /// The floats.
    pub floats: &'a [f64],
    /// Start timestamps of the floats, 0 if unknown; may be empty.
    pub float_starts_ms: &'a [i64],
    /// Times of the histograms.
    pub histogram_times_ms: &'a [i64],
    /// The histograms.
    pub histograms: &'a [Arc<Histogram>],
    /// Start timestamps of the histograms, 0 if unknown; may be empty.
    pub histogram_starts_ms: &'a [i64],
}

/// One sample of a window.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Its time.
    pub time_ms: i64,
    /// Start timestamp, 0 if unknown.
    pub start_ms: i64,
    /// The histogram, or `None` for a float.
    pub histogram: Option<&'a Histogram>,
    /// The float, if it is one.
    pub float: f64,
}

impl<'a> Samples<'a> {
    /// All samples in the order of time.
    pub fn iter(self) -> impl Iterator<Item = Sample<'a>> {
        let (mut f, mut h) = (0, 0);
        std::iter::from_fn(move || {
            let float_ms = self.float_times_ms.get(f);
            let histogram_ms = self.histogram_times_ms.get(h);
            let take_float = match (float_ms, histogram_ms) {
                (Some(float), Some(histogram)) => float < histogram,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return None,
            };
            if take_float {
                let start_ms = self.float_starts_ms.get(f).copied().unwrap_or(0);
                let float = self.floats.get(f).copied()?;
                f += 1;
                return Some(Sample { time_ms: *float_ms?, start_ms, histogram: None, float });
            }
            let start_ms = self.histogram_starts_ms.get(h).copied().unwrap_or(0);
            let histogram = self.histograms.get(h).map(AsRef::as_ref);
            h += 1;
            histogram?;
            Some(Sample { time_ms: *histogram_ms?, start_ms, histogram, float: f64::NAN })
        })
    }

    /// The part that counts for an `anchored` selector: the newest sample at
    /// or before `start_ms`, of either kind, and all after it. `None` if none
    /// is after it.
    #[must_use]
    pub fn anchored(self, start_ms: i64) -> Option<Self> {
        let floats = self.float_times_ms.partition_point(|t| *t <= start_ms);
        let histograms = self.histogram_times_ms.partition_point(|t| *t <= start_ms);
        if floats >= self.float_times_ms.len() && histograms >= self.histogram_times_ms.len() {
            return None;
        }
        let newest = |times: &[i64], n: usize| n.checked_sub(1).and_then(|i| times.get(i)).copied();
        let float = newest(self.float_times_ms, floats);
        let histogram = newest(self.histogram_times_ms, histograms);
        let (from_float, from_histogram) = match (float, histogram) {
            (None, None) => (0, 0),
            (Some(f), Some(h)) if f >= h => (floats - 1, histograms),
            (Some(_), None) => (floats - 1, histograms),
            _ => (floats, histograms - 1),
        };
        Some(Self {
            float_times_ms: self.float_times_ms.get(from_float..)?,
            floats: self.floats.get(from_float..)?,
            float_starts_ms: self.float_starts_ms.get(from_float..).unwrap_or(&[]),
            histogram_times_ms: self.histogram_times_ms.get(from_histogram..)?,
            histograms: self.histograms.get(from_histogram..)?,
            histogram_starts_ms: self.histogram_starts_ms.get(from_histogram..).unwrap_or(&[]),
        })
    }
}

/// How often a counter was reset; a change between float and histogram is one.
#[must_use]
pub fn resets(samples: Samples<'_>) -> usize {
    count_between(samples, |before, now| {
        let restarted =
            || is_start_reset(before.start_ms, before.time_ms, now.start_ms, now.time_ms);
        match (before.histogram, now.histogram) {
            (None, None) => now.float < before.float || restarted(),
            (Some(a), Some(b)) => restarted() || b.is_reset_after(a),
            _ => true,
        }
    })
}

/// How often the value changed; a change between float and histogram is one.
#[must_use]
pub fn changes(samples: Samples<'_>) -> usize {
    count_between(samples, |before, now| match (before.histogram, now.histogram) {
        (None, None) => now.float != before.float && !(now.float.is_nan() && before.float.is_nan()),
        (Some(a), Some(b)) => !b.same_data(a),
        _ => true,
    })
}

fn count_between(samples: Samples<'_>, differ: impl Fn(&Sample<'_>, &Sample<'_>) -> bool) -> usize {
    let mut before = None;
    samples
        .iter()
        .filter(|now| before.replace(*now).is_some_and(|before| differ(&before, now)))
        .count()
}
