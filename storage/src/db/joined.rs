//! What is kept of columns that are read again and again?
//!
//! Panels and alerts ask for the same series, each at other times or through
//! another function, and decoding is most of what a long range costs. So the
//! floats of a series in the stripes of one layout and day are kept decoded and
//! joined once they were asked for twice, within a share of the caches. Columns
//! of one value, half of all, keep it once. A [`Joined`] grows at both ends: a
//! new stripe costs its own decoding only. What is much longer than what is
//! asked for is cut then, so that alerts do not keep days.
//!
//! Only floats without start timestamps are kept: histograms are shared by
//! reference anyway.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU32, Ordering};

/// A stripe, and which of its rows a column has.
pub(super) type PieceName = (u64, u32);

/// A series, and the first stripe of its layout's day.
pub(super) type Key = (u32, u64);

/// The floats of a series in consecutive stripes.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// The stripes, and how many rows there are up to the end of each.
    parts: Vec<(PieceName, u32)>,
    values: Values,
    integral: bool,
    may_be_stale: bool,
}

#[derive(Debug)]
enum Values {
    Each(Vec<f64>),
    /// As often as there are rows.
    All(f64),
}

impl Default for Values {
    fn default() -> Self {
        Self::Each(Vec::new())
    }
}

/// How wanted stripes lie to those that are kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overlap {
    /// They are there, from this part on.
    Inside(usize),
    /// The first so many are missing, then come all that are kept, then the
    /// last so many are missing.
    Around(usize, usize),
    /// All that are kept from this part on are the first that are wanted.
    Behind(usize),
    None,
}

impl Joined {
    /// How `wanted` stripes, not empty, lie to those that are here.
    pub(super) fn overlap(&self, wanted: &[PieceName]) -> Overlap {
        let names = || self.parts.iter().map(|(name, _)| name);
        let Some((kept, _)) = self.parts.first() else { return Overlap::None };
        if let Some(from) = names().position(|name| *name == wanted[0]) {
            let same = names().skip(from).zip(wanted).take_while(|(a, b)| a == b).count();
            return if same == wanted.len() {
                Overlap::Inside(from)
            } else if same == self.parts.len() - from {
                Overlap::Behind(from)
            } else {
                Overlap::None
            };
        }
        let Some(before) = wanted.iter().position(|name| name == kept) else {
            return Overlap::None;
        };
        let same = names().zip(&wanted[before..]).take_while(|(a, b)| a == b).count();
        if same == self.parts.len() || same == wanted.len() - before {
            Overlap::Around(before, wanted.len() - before - same)
        } else {
            Overlap::None
        }
    }

    /// How many stripes are here.
    pub(super) const fn len(&self) -> usize {
        self.parts.len()
    }

    /// Takes over another one, from this part on.
    pub(super) fn push_all(&mut self, other: &Self, from: usize) {
        if self.parts.is_empty() {
            (self.integral, self.may_be_stale) = (true, false);
        }
        let (rows, before) = (self.rows(), other.rows_before(from));
        let count = (other.rows() - before) as usize;
        let floats = self.floats();
        match &other.values {
            Values::Each(values) => floats.extend_from_slice(&values[before as usize..]),
            Values::All(value) => floats.resize(floats.len() + count, *value),
        }
        let parts = other.parts[from..].iter();
        self.parts.extend(parts.map(|(name, end)| (*name, rows + end - before)));
        self.note(other.integral, other.may_be_stale);
    }

    /// Adds a stripe whose floats `decode` appends; it says whether they are
    /// integral, and whether one may be a staleness marker.
    pub(super) fn push(
        &mut self,
        name: PieceName,
        decode: impl FnOnce(&mut Vec<f64>) -> Option<(bool, bool)>,
    ) -> Option<()> {
        if self.parts.is_empty() {
            (self.integral, self.may_be_stale) = (true, false);
        }
        let (integral, may_be_stale) = decode(self.floats())?;
        self.note(integral, may_be_stale);
        let rows = u32::try_from(self.floats().len()).ok()?;
        self.parts.push((name, rows));
        Some(())
    }

    fn note(&mut self, integral: bool, may_be_stale: bool) {
        self.integral &= integral;
        self.may_be_stale |= may_be_stale;
    }

    fn floats(&mut self) -> &mut Vec<f64> {
        if let Values::All(value) = self.values {
            self.values = Values::Each(vec![value; self.rows() as usize]);
        }
        match &mut self.values {
            Values::Each(values) => values,
            Values::All(_) => unreachable!("BUG: just replaced"),
        }
    }

    /// Rows before a part.
    fn rows_before(&self, part: usize) -> u32 {
        part.checked_sub(1).map_or(0, |before| self.parts[before].1)
    }

    fn rows(&self) -> u32 {
        self.parts.last().map_or(0, |(_, end)| *end)
    }

    /// Gives back memory that is not needed.
    pub(super) fn shrink(&mut self) {
        let Values::Each(values) = &mut self.values else { return };
        values.shrink_to_fit();
        if let Some((first, rest)) = values.split_first()
            && rest.iter().all(|v| v.to_bits() == first.to_bits())
        {
            self.values = Values::All(*first);
        }
    }

    /// Appends the floats of `count` stripes from part `from` on, less the
    /// first `skip` and the last `leave`; says whether they are integral, and
    /// whether one may be a staleness marker.
    pub(super) fn append(
        &self,
        from: usize,
        count: usize,
        (skip, leave): (usize, usize),
        out: &mut Vec<f64>,
    ) -> (bool, bool) {
        let start = self.rows_before(from) as usize + skip;
        let end = self.rows_before(from + count) as usize - leave;
        match &self.values {
            Values::Each(values) => out.extend_from_slice(&values[start..end]),
            Values::All(value) => out.resize(out.len() + (end - start), *value),
        }
        (self.integral, self.may_be_stale)
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let values = match &self.values {
            Values::Each(values) => values.capacity() * size_of::<f64>(),
            Values::All(_) => 0,
        };
        values + self.parts.capacity() * size_of::<(PieceName, u32)>() + size_of::<Self>()
    }
}

/// Which keys were asked for lately: what is read once is not kept.
#[derive(Debug)]
pub(super) struct Asked {
    /// Hashes by their remainder: of two with one place the later is remembered.
    places: Box<[AtomicU32]>,
    hasher: std::hash::RandomState,
}

/// Keys that are remembered.
const PLACES: usize = 1 << 14;

impl Default for Asked {
    fn default() -> Self {
        let places = (0..PLACES).map(|_| AtomicU32::new(0)).collect();
        Self { places, hasher: std::hash::RandomState::new() }
    }
}

impl Asked {
    /// Whether it was asked for before; from now on it was.
    pub(super) fn again(&self, key: Key) -> bool {
        let hash = self.hasher.hash_one(key);
        let place = &self.places[hash as usize % PLACES];
        let tag = (hash >> 32) as u32 | 1;
        place.swap(tag, Ordering::Relaxed) == tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(stripes: std::ops::Range<u64>) -> Joined {
        let mut joined = Joined::default();
        for id in stripes {
            joined.push((id, 0), |out| {
                out.extend([id as f64, id as f64 + 0.5]);
                Some((id != 7, id == 8))
            });
        }
        joined
    }

    #[test]
    fn one_value_is_kept_once() {
        let mut joined = Joined::default();
        for id in 0..3 {
            joined.push((id, 0), |out| {
                out.resize(out.len() + 100, 5.0);
                Some((true, false))
            });
        }
        joined.shrink();
        assert!(joined.heap_bytes() < 300);
        let mut out = vec![1.0];
        assert_eq!(joined.append(1, 2, (10, 20), &mut out), (true, false));
        assert_eq!((out.len(), out[0], out[170]), (171, 1.0, 5.0));
        joined.push((3, 0), |out| {
            out.push(6.0);
            Some((true, false))
        });
        out.clear();
        joined.append(2, 2, (99, 0), &mut out);
        assert_eq!(out, [5.0, 6.0]);
    }

    #[test]
    fn a_key_is_known_the_second_time() {
        let asked = Asked::default();
        assert!(!asked.again((1, 2)));
        assert!(asked.again((1, 2)));
        assert!(!asked.again((2, 2)));
    }

    proptest! {
        /// Whatever is kept and wanted, what comes out is what was wanted.
        #[test]
        fn stripes_are_found_and_completed(a in 0u64..12, n in 0u64..6, c in 0u64..12, m in 1u64..6) {
            let kept = joined(a..a + n);
            let wanted: Vec<PieceName> = (c..c + m).map(|id| (id, 0)).collect();
            let (mut whole, from) = match kept.overlap(&wanted) {
                Overlap::Inside(from) => (joined(a..a + n), from),
                Overlap::Around(before, after) => {
                    let mut whole = joined(c..c + before as u64);
                    whole.push_all(&kept, 0);
                    whole.push_all(&joined(c + m - after as u64..c + m), 0);
                    (whole, 0)
                }
                Overlap::Behind(from) => {
                    let mut whole = Joined::default();
                    whole.push_all(&kept, from);
                    whole.push_all(&joined(a + n - 1..c + m), 1);
                    (whole, 0)
                }
                Overlap::None => {
                    prop_assert!(n == 0 || a + n <= c || c + m <= a);
                    (joined(c..c + m), 0)
                }
            };
            whole.shrink();
            let (mut out, mut plain) = (Vec::new(), Vec::new());
            let (integral, stale) = whole.append(from, m as usize, (1, 1), &mut out);
            joined(c..c + m).append(0, m as usize, (1, 1), &mut plain);
            prop_assert_eq!(out, plain);
            prop_assert!(!integral || !(c..c + m).contains(&7));
            prop_assert!(stale || !(c..c + m).contains(&8));
        }
    }
}
