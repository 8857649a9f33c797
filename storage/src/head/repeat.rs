//! Is a sample that is not newer than all of its series there already?
//!
//! A sender that got no answer sends again, so that a sample equal to the newest
//! of its series is taken, which changes nothing; one with another value is a
//! duplicate. The writer knows most newest floats. The others (of columns that the
//! newest key row lacks, of stripes that are full, of histograms, and all of
//! series without open rows behind a start) are read as a query would, which is
//! rare.

use crate::append::AppendError;
use crate::histogram::Histogram;
use crate::sample::Value;

/// Reads the newest sample of series from a time on, in the order of their ids.
pub(crate) type ReadFrom<'a> = &'a dyn Fn(&[u32], i64) -> Vec<Found>;

/// The newest sample of a series from a time on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Found {
    /// There is none, or it was deleted.
    Nothing,
    /// Milliseconds since the Unix epoch.
    Newest(i64, Value),
    /// The disk does not say.
    Unreadable,
}

/// What becomes of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is taken, or is there already.
    Taken,
    /// It is not.
    Refused(AppendError),
    /// What the series has from its time on must be read.
    Unsure,
}

/// A sample that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sent<'a> {
    Float(f64),
    Histogram(&'a Histogram),
}

impl Sent<'_> {
    /// Compares with the newest float, which has the same time, if that is known.
    pub(crate) fn compare(self, newest: Option<f64>) -> Verdict {
        match (self, newest) {
            (_, None) => Verdict::Unsure,
            (Self::Float(value), Some(newest)) if value.to_bits() == newest.to_bits() => {
                Verdict::Taken
            }
            _ => Verdict::Refused(AppendError::Duplicate),
        }
    }

    /// Compares with what has the same time.
    pub(crate) fn is_repetition(self, stored: &Value) -> bool {
        match (self, stored) {
            (Self::Float(value), Value::Float(stored)) => value.to_bits() == stored.to_bits(),
            (Self::Histogram(sent), Value::Histogram(stored)) => sent.same_data(stored),
            _ => false,
        }
    }
}
