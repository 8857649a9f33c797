//! Which series share a sequence of timestamps?
//!
//! A [`Layout`] says which series the columns of an axis are; an
//! [`AxisTable`] makes equal sequences of timestamps the same allocation, so
//! that readers can tell by the pointer.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::read::Axis;

/// The series of the columns of an axis, findable by id.
///
/// Columns are assigned on first sight, so ids come in runs, and a layout of
/// a thousand columns is usually one run. Where series come and go, runs are
/// short, but columns are still in order of ids: then a bitmap is smaller.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout(Columns);

#[derive(Debug, Clone, PartialEq)]
enum Columns {
    /// Sorted by id, not overlapping.
    Runs { runs: Box<[Run]>, columns: u32 },
    /// Columns are in this order.
    Sorted(RoaringBitmap),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first_id: u32,
    len: u32,
    first_column: u32,
}

/// More runs are a bitmap, where they can be.
const MAX_RUNS: usize = 16;

impl Layout {
    /// The layout of columns that hold these series, each once.
    pub(crate) fn new(ids: &[u32]) -> Self {
        let of_runs = || ids.chunk_by(|a, b| a.checked_add(1) == Some(*b));
        if of_runs().nth(MAX_RUNS).is_some()
            && let Ok(mut sorted) = RoaringBitmap::from_sorted_iter(ids.iter().copied())
            && sorted.len() == ids.len() as u64
        {
            sorted.optimize();
            return Self(Columns::Sorted(sorted));
        }
        let mut runs = Vec::new();
        let mut column = 0;
        for run in of_runs() {
            let len = run.len() as u32;
            runs.push(Run { first_id: run[0], len, first_column: column });
            column += len;
        }
        runs.sort_unstable_by_key(|r| r.first_id);
        Self(Columns::Runs { runs: runs.into(), columns: column })
    }

    /// The column of a series.
    pub(crate) fn column(&self, id: u32) -> Option<usize> {
        match &self.0 {
            Columns::Runs { runs, .. } => {
                let run = runs[runs.partition_point(|r| r.first_id <= id).checked_sub(1)?];
                let offset = id - run.first_id;
                (offset < run.len).then(|| (run.first_column + offset) as usize)
            }
            Columns::Sorted(ids) => {
                // The rank is that of the largest id up to this one.
                ids.contains(id).then(|| (ids.rank(id) - 1) as usize)
            }
        }
    }

    /// Whether a series has a column.
    pub(crate) fn contains(&self, id: u32) -> bool {
        match &self.0 {
            Columns::Runs { .. } => self.column(id).is_some(),
            Columns::Sorted(ids) => ids.contains(id),
        }
    }

    /// Number of columns.
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Columns::Runs { columns, .. } => *columns as usize,
            Columns::Sorted(ids) => ids.len() as usize,
        }
    }

    /// The greatest id of a series.
    pub(crate) fn max_id(&self) -> Option<u32> {
        match &self.0 {
            Columns::Runs { runs, .. } => runs.last().map(|run| run.first_id + (run.len - 1)),
            Columns::Sorted(ids) => ids.max(),
        }
    }

    /// Adds the series of all columns.
    pub(crate) fn add_ids(&self, to: &mut RoaringBitmap) {
        match &self.0 {
            Columns::Runs { runs, .. } => {
                for run in runs {
                    to.insert_range(run.first_id..run.first_id.saturating_add(run.len));
                }
            }
            Columns::Sorted(ids) => *to |= ids,
        }
    }

    /// The series of each column, in order of the columns.
    pub(crate) fn ids(&self) -> Vec<u32> {
        let runs = match &self.0 {
            Columns::Runs { runs, .. } => runs,
            Columns::Sorted(ids) => return ids.iter().collect(),
        };
        let mut ids = vec![0; self.len()];
        for run in runs {
            let first = run.first_column as usize;
            for (slot, id) in ids[first..].iter_mut().zip(run.first_id..run.first_id + run.len) {
                *slot = id;
            }
        }
        ids
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Columns::Runs { runs, .. } => size_of_val::<[Run]>(runs),
            // Containers have a header of their own.
            Columns::Sorted(ids) => {
                ids.serialized_size() + ids.statistics().n_containers as usize * 40
            }
        }
    }
}

/// Makes equal timestamp sequences the same allocation.
#[derive(Debug, Default)]
pub(crate) struct AxisTable {
    by_hash: HashMap<u64, Vec<Axis>>,
}

impl AxisTable {
    /// The one axis with these timestamps.
    pub(crate) fn intern(&mut self, timestamps: &[i64]) -> Axis {
        let bucket = self.by_hash.entry(hash_of(timestamps)).or_default();
        if let Some(axis) = bucket.iter().find(|a| a[..] == *timestamps) {
            return Arc::clone(axis);
        }
        let axis: Axis = Arc::from(timestamps);
        bucket.push(Arc::clone(&axis));
        axis
    }
}

/// A hash of timestamps. Four at a time, as each step waits for the one before.
fn hash_of(timestamps: &[i64]) -> u64 {
    let mix =
        |hash: u64, t: i64| (hash ^ t as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    let mut lanes = [0xcbf2_9ce4_8422_2325u64, 1, 2, 3];
    let (fours, rest) = timestamps.as_chunks::<4>();
    for four in fours {
        for (lane, t) in lanes.iter_mut().zip(four) {
            *lane = mix(*lane, *t);
        }
    }
    let hash = rest.iter().fold(timestamps.len() as u64, |hash, t| mix(hash, *t));
    lanes.iter().fold(hash, |hash, lane| mix(hash, lane.cast_signed()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_layout_finds_every_column(
            ids in proptest::collection::hash_set(0u32..60, 0..50),
            sorted in any::<bool>(),
        ) {
            let mut ids: Vec<u32> = ids.into_iter().collect();
            if sorted {
                ids.sort_unstable();
            }
            let layout = Layout::new(&ids);
            prop_assert_eq!(layout.ids(), ids.clone());
            let mut all = RoaringBitmap::new();
            layout.add_ids(&mut all);
            prop_assert_eq!(layout.max_id(), ids.iter().copied().max());
            prop_assert_eq!((all.len(), layout.len()), (ids.len() as u64, ids.len()));
            for id in 0..70 {
                prop_assert_eq!(layout.column(id), ids.iter().position(|&i| i == id));
            }
        }
    }

    #[test]
    fn equal_axes_are_one() {
        let mut table = AxisTable::default();
        let (a, b) = (table.intern(&[1, 2]), table.intern(&[1, 2]));
        assert!(Arc::ptr_eq(&a, &b));
        assert!(!Arc::ptr_eq(&a, &table.intern(&[1, 3])));
    }
}
