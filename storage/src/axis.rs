//! Which series share a sequence of timestamps?
//!
//! A [`Layout`] says which series the columns of an axis are; an
//! [`AxisTable`] makes equal sequences of timestamps the same allocation, so
//! that readers can tell by the pointer.

use std::collections::HashMap;
use std::sync::Arc;

use crate::read::Axis;

/// The series of the columns of an axis, findable by id.
///
/// Columns are assigned on first sight, so ids come in runs, and a layout of
/// a thousand columns is usually one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Sorted by id, not overlapping.
    runs: Vec<Run>,
    columns: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first_id: u32,
    len: u32,
    first_column: u32,
}

impl Layout {
    /// The layout of columns that hold these series, each once.
    pub(crate) fn new(ids: &[u32]) -> Self {
        let mut runs = Vec::new();
        let mut column = 0;
        for run in ids.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let len = run.len() as u32;
            runs.push(Run { first_id: run[0], len, first_column: column });
            column += len;
        }
        runs.sort_unstable_by_key(|r| r.first_id);
        runs.shrink_to_fit();
        Self { runs, columns: column }
    }

    /// The column of a series.
    pub(crate) fn column(&self, id: u32) -> Option<usize> {
        let i = self.runs.partition_point(|r| r.first_id <= id).checked_sub(1)?;
        let run = self.runs[i];
        let offset = id - run.first_id;
        (offset < run.len).then(|| (run.first_column + offset) as usize)
    }

    /// Number of columns.
    pub(crate) const fn len(&self) -> usize {
        self.columns as usize
    }

    /// Runs of ids, ascending: first and number.
    pub(crate) fn id_runs(&self) -> impl Iterator<Item = (u32, u32)> {
        self.runs.iter().map(|r| (r.first_id, r.len))
    }

    /// The series of each column, in order of the columns.
    pub(crate) fn ids(&self) -> Vec<u32> {
        let mut ids = vec![0; self.len()];
        for run in &self.runs {
            let first = run.first_column as usize;
            for (slot, id) in ids[first..].iter_mut().zip(run.first_id..run.first_id + run.len) {
                *slot = id;
            }
        }
        ids
    }

    /// Bytes on the heap.
    pub(crate) const fn heap_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run>()
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
        fn a_layout_finds_every_column(ids in proptest::collection::hash_set(0u32..60, 0..50)) {
            let ids: Vec<u32> = ids.into_iter().collect();
            let layout = Layout::new(&ids);
            prop_assert_eq!(layout.ids(), ids.clone());
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
