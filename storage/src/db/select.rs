//! Which series match, in order of their labels?
//!
//! Dashboards and rules ask for the same selectors again and again, and the
//! series table grows slowly. So what a selector found among all series is
//! kept, sorted and with labels, within a share of the caches; new series are
//! merged in when they have come, and a query takes those that may have
//! samples in its range. Nothing is kept where most of the matching series are
//! of other times: there the few are sorted anew.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64;

use super::Inner;
use crate::labels::{Labels, Matcher};
use crate::read::{SeriesRef, SeriesSet};
use crate::series::Series;

/// Most series of a selection that is kept.
const MAX_KEPT: u64 = 1 << 14;

/// What a selector found among the first series.
#[derive(Debug)]
pub(super) struct Selection {
    /// The matchers: a hash finds the entry, this tells that it is the one.
    text: String,
    /// Series with smaller ids were looked at.
    upto: u32,
    ids: RoaringBitmap,
    set: Arc<SeriesSet>,
}

impl Inner {
    /// The series of `within` that match, sorted by labels.
    pub(super) fn select_sorted(
        &self,
        matchers: &[Matcher],
        within: &RoaringBitmap,
    ) -> io::Result<Arc<SeriesSet>> {
        let text = text_of(matchers);
        let key = xxh3_64(text.as_bytes());
        let kept = self.selections.get(key).filter(|kept| kept.text == text);
        let upto = self.series.next_id();
        let selection = match kept {
            Some(kept) if kept.upto == upto => kept,
            kept => {
                let ids = look(&self.series, matchers, upto, kept.as_deref())?;
                let wanted = &ids & within;
                if !is_worth_keeping(ids.len(), wanted.len()) {
                    return set_of(&self.series, &wanted);
                }
                let set = match kept {
                    Some(kept) if kept.ids.len() == ids.len() => Arc::clone(&kept.set),
                    _ => set_of(&self.series, &ids)?,
                };
                let selection = Arc::new(Selection { text, upto, ids, set });
                self.selections.insert(key, Arc::clone(&selection), selection.heap_bytes());
                selection
            }
        };
        selection.within(&self.series, within)
    }
}

/// All series below `upto` that match; those that were found before are not
/// looked at again.
fn look(
    series: &Series,
    matchers: &[Matcher],
    upto: u32,
    kept: Option<&Selection>,
) -> io::Result<RoaringBitmap> {
    let mut new = RoaringBitmap::new();
    new.insert_range(kept.map_or(0, |k| k.upto)..upto);
    let mut ids = series.select(matchers, &new)?;
    if let Some(kept) = kept {
        ids |= &kept.ids;
    }
    Ok(ids)
}

/// Whether few enough series match, and most of them are wanted, so that
/// queries do not walk through series of other times.
const fn is_worth_keeping(all: u64, wanted: u64) -> bool {
    all <= MAX_KEPT && all <= wanted * 2 + 64
}

impl Selection {
    fn within(&self, series: &Series, within: &RoaringBitmap) -> io::Result<Arc<SeriesSet>> {
        if self.ids.is_subset(within) {
            return Ok(Arc::clone(&self.set));
        }
        let wanted = &self.ids & within;
        if !is_worth_keeping(self.ids.len(), wanted.len()) {
            return set_of(series, &wanted);
        }
        let some = self.set.series.iter().filter(|(s, _)| wanted.contains(s.0)).cloned();
        Ok(Arc::new(SeriesSet { series: some.collect(), is_typed: self.set.is_typed }))
    }

    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize {
        const SHARED: usize = 2 * size_of::<usize>();
        let labels: usize = self.set.series.iter().map(|(_, l)| l.as_bytes().len() + SHARED).sum();
        labels
            + self.set.series.len() * size_of::<(SeriesRef, Labels)>()
            + self.ids.serialized_size()
            + self.text.len()
            + size_of::<Self>()
    }
}

/// These series, sorted by labels.
fn set_of(series: &Series, ids: &RoaringBitmap) -> io::Result<Arc<SeriesSet>> {
    let sorted = series.labelled(ids)?.into_iter().map(|(id, labels)| (SeriesRef(id), labels));
    Ok(Arc::new(SeriesSet::new(sorted.collect())))
}

/// A text that only these matchers have.
fn text_of(matchers: &[Matcher]) -> String {
    let mut text = String::new();
    for matcher in matchers {
        // Lengths, as names and values may hold anything.
        let (name, value) = (&matcher.name, &matcher.value);
        let _ = write!(text, "{}{}{}:{name}{value}", name.len(), matcher.op.as_str(), value.len());
    }
    text
}
