//! To which axis does a sample belong, and may it be taken?
//!
//! The [`Writer`] holds a cursor per series: its axis and its column there. A
//! row is split by these cursors. A part whose timestamp is later than the
//! axis' newest row becomes a new row; one whose timestamp is that of a row
//! that is there joins it, as long as it is later than each series' own newest
//! sample. What fits neither leaves its axis ("forks") for one with that
//! timestamp of the same source, or for a new one.
//!
//! Invariants: a series has at most one cursor; within one stripe the samples
//! of a column are in order of time; a stripe lies within one day (UTC).

use std::collections::HashMap;
use std::sync::Arc;

use super::histogram;
use super::open::{Mark, OpenStripe, Rows};
use super::repeat::{Found, ReadFrom, Sent, Verdict};
use super::row::{Cells, MAX_COLUMNS};
use crate::append::{AppendError, SourceId};
use crate::day::catalog::Catalog;
use crate::day::day_of;
use crate::sample::Value;
use crate::series::sparse::Sparse;
use crate::wal;

/// Most rows of an open stripe.
const STRIPE_ROWS: usize = 120;
/// Longest time from first to last row of an open stripe.
pub(crate) const STRIPE_MS: i64 = 30 * 60 * 1000;
const NONE: u32 = u32::MAX;
/// Where no sample is known.
pub(crate) const NEVER: i64 = i64::MIN;
/// Entries of `recent` that are kept.
const RECENT_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    axis: u32,
    column: u16,
}

const NO_CURSOR: Cursor = Cursor { axis: NONE, column: 0 };

impl Default for Cursor {
    fn default() -> Self {
        NO_CURSOR
    }
}

#[derive(Debug)]
struct AxisState {
    open: Arc<OpenStripe>,
    /// Rows of the next stripe; the first is shorter, so that axes that began
    /// together do not end together.
    rows_max: usize,
    /// Holds late samples: no series has a cursor here.
    is_side: bool,
    group_stamp: u64,
    group: usize,
}

/// What bounds the samples that are taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Samples up to this much older than the newest are taken late; 0: none.
    pub(crate) out_of_order_ms: i64,
    /// Older samples are out of bounds.
    pub(crate) min_ms: i64,
    /// Newer samples are too far in the future.
    pub(crate) max_ms: i64,
    /// The wall clock.
    pub(crate) now_ms: i64,
}

/// What was committed before.
pub(crate) struct Past<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) read_from: ReadFrom<'a>,
}

/// The samples of one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSlices<'a> {
    pub(crate) timestamp_ms: i64,
    pub(crate) ids: &'a [u32],
    pub(crate) values: &'a [f64],
    /// Encoded histograms by position, ascending; their float has no meaning.
    pub(crate) histograms: &'a [(u32, Vec<u8>)],
    /// Start timestamps by position, ascending.
    pub(crate) starts: &'a [(u32, i64)],
}

/// What became of the samples of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    pub(crate) taken: u64,
    pub(crate) late: u64,
    pub(crate) duplicates: u64,
    pub(crate) out_of_order: u64,
    pub(crate) too_old: u64,
    pub(crate) out_of_bounds: u64,
    pub(crate) histograms: u64,
}

impl Outcome {
    pub(crate) const fn refused(&self) -> u64 {
        self.duplicates + self.out_of_order + self.too_old + self.out_of_bounds
    }

    pub(crate) fn refuse(&mut self, error: AppendError) {
        match error {
            AppendError::Duplicate => self.duplicates += 1,
            AppendError::TooOld => self.too_old += 1,
            AppendError::OutOfOrder => self.out_of_order += 1,
            _ => self.out_of_bounds += 1,
        }
    }
}

/// Decides where samples go; one at a time.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    cursors: Sparse<Cursor>,
    axes: Vec<Option<AxisState>>,
    free: Vec<u32>,
    /// The axis of a source that newly got a row at a time.
    recent: HashMap<(SourceId, i64), u32>,
    side: HashMap<SourceId, u32>,
    /// Newest samples of series that have no cursor any more.
    left: HashMap<u32, i64>,
    /// Series below this may have samples in the days.
    stored_before: u32,
    next_stripe_id: u64,
    /// The commit that is going on.
    commit: u64,
    segment: u64,
    /// The newest timestamp of all.
    pub(crate) newest_ms: Option<i64>,
    touched: Vec<(Arc<OpenStripe>, Mark)>,
    /// Full stripes, to be sealed.
    frozen: Vec<Arc<OpenStripe>>,
    /// Axes that began a stripe in this commit, and the stripe before it.
    rotated: Vec<(u32, Arc<OpenStripe>)>,
    /// Series that came to another axis in this commit: where their cursor
    /// was, and their newest sample then.
    moved: Vec<(u32, Cursor, i64)>,
    /// The set of open stripes changed.
    pub(crate) is_view_stale: bool,
    groups: Vec<Group>,
    group_count: usize,
    cells: Cells,
    loose: Vec<(u32, i64)>,
    late: Vec<u32>,
    /// Positions of samples as new as their column's newest, which must be read.
    repeats: Vec<u32>,
}

/// The time of the newest sample of a series without a cursor.
enum Newest {
    Exactly(i64),
    /// That of a stripe it has samples in.
    AtMost(i64),
}

/// The part of a row that belongs to one axis.
#[derive(Debug, Default)]
struct Group {
    axis: u32,
    columns: Vec<u16>,
    /// Positions in the row.
    positions: Vec<u32>,
    /// Cells can be written at the row's time.
    fits: bool,
}

impl Writer {
    /// A writer of a directory whose next stripe has this id.
    pub(crate) fn new(next_stripe_id: u64, stored_before: u32, segment: u64) -> Self {
        Self { next_stripe_id, stored_before, segment, ..Self::default() }
    }

    /// Starts a commit.
    pub(crate) fn begin(&mut self, commit: u64, segment: u64) {
        (self.commit, self.segment) = (commit, segment);
        self.touched.clear();
        self.rotated.clear();
        self.moved.clear();
    }

    /// Takes back what was added since [`Writer::begin`].
    #[cold]
    pub(crate) fn roll_back(&mut self) {
        for (open, mark) in std::mem::take(&mut self.touched) {
            let mut rows = open.lock();
            let before = rows.ids.clone();
            rows.roll_back(mark);
            let kept = rows.ids.len();
            drop(rows);
            for (column, &id) in before.iter().enumerate().skip(kept) {
                let cursor = self.cursor(id);
                let axis = self.axes.get(cursor.axis as usize).and_then(Option::as_ref);
                // A side axis has columns without a cursor.
                if usize::from(cursor.column) == column
                    && axis.is_some_and(|a| Arc::ptr_eq(&a.open, &open))
                {
                    self.cursors.set(id, NO_CURSOR);
                }
            }
        }
        for (id, cursor, last_ms) in std::mem::take(&mut self.moved).into_iter().rev() {
            let axis = self.axes.get(cursor.axis as usize).and_then(Option::as_ref);
            let is_there =
                |a: &AxisState| a.open.lock().ids.get(usize::from(cursor.column)) == Some(&id);
            if axis.is_some_and(is_there) {
                self.cursors.set(id, cursor);
            } else {
                self.cursors.set(id, NO_CURSOR);
                self.left.insert(id, last_ms);
            }
        }
        // Columns that went on to a new stripe are no newer than the old one.
        for (axis, before) in std::mem::take(&mut self.rotated) {
            let Some(Some(state)) = self.axes.get(axis as usize) else { continue };
            let newest = before.lock().times.last().copied().unwrap_or(NEVER);
            let mut rows = state.open.lock();
            rows.last_ms.iter_mut().for_each(|l| *l = newest.min(*l));
            rows.base_ms = newest.min(rows.base_ms);
        }
        self.recent.clear();
    }

    /// Full stripes since the last call.
    pub(crate) fn take_frozen(&mut self) -> Vec<Arc<OpenStripe>> {
        std::mem::take(&mut self.frozen)
    }

    /// All stripes that rows are added to.
    pub(crate) fn open_stripes(&self) -> impl Iterator<Item = &Arc<OpenStripe>> {
        self.axes.iter().flatten().map(|a| &a.open)
    }

    /// Number of series with a cursor, and bytes of what the writer holds
    /// beside the stripes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.cursors.heap_bytes()
            + self.axes.capacity() * size_of::<Option<AxisState>>()
            + self.left.capacity() * 17
            + self.recent.capacity() * 25
    }

    /// Whether a sample would be taken now. Does not see rows that are not
    /// committed.
    pub(crate) fn judge(
        &self,
        id: u32,
        timestamp_ms: i64,
        sent: Sent<'_>,
        bounds: &Bounds,
        catalog: &Catalog,
    ) -> Verdict {
        if let Err(e) = check_bounds(timestamp_ms, bounds) {
            return Verdict::Refused(e);
        }
        if self.newest_ms.is_none_or(|n| timestamp_ms > n) {
            return Verdict::Taken;
        }
        let cursor = self.cursor(id);
        let (last_ms, newest) = match self.axes.get(cursor.axis as usize) {
            Some(Some(axis)) => {
                let rows = axis.open.lock();
                let column = usize::from(cursor.column);
                (rows.last_ms[column], rows.newest_float(column))
            }
            _ => match self.newest_without_cursor(id, catalog) {
                Newest::Exactly(last_ms) => (last_ms, None),
                Newest::AtMost(last_ms) if timestamp_ms <= last_ms => return Verdict::Unsure,
                Newest::AtMost(last_ms) => (last_ms, None),
            },
        };
        if timestamp_ms > last_ms {
            return Verdict::Taken;
        }
        if timestamp_ms == last_ms {
            return sent.compare(newest);
        }
        match self.check_late(timestamp_ms, bounds) {
            Ok(()) => Verdict::Taken,
            Err(e) => Verdict::Refused(e),
        }
    }

    /// Judges the samples of one row, and tells which are not simply taken.
    ///
    /// Cost: the cursor of each series; more only where an axis already has a
    /// row at this time or later.
    pub(crate) fn judge_row(
        &self,
        timestamp_ms: i64,
        samples: impl Iterator<Item = (u32, f64)>,
        bounds: &Bounds,
        catalog: &Catalog,
        mut tell: impl FnMut(usize, Verdict),
    ) {
        let mut earlier = NONE;
        for (i, (id, value)) in samples.enumerate() {
            let axis = self.cursor(id).axis;
            if axis != NONE && axis == earlier {
                continue;
            }
            match self.judge(id, timestamp_ms, Sent::Float(value), bounds, catalog) {
                Verdict::Taken => {
                    if let Some(Some(state)) = self.axes.get(axis as usize) {
                        let rows = state.open.lock();
                        let newest = rows.times.last().copied().unwrap_or(rows.base_ms);
                        if newest < timestamp_ms {
                            earlier = axis;
                        }
                    }
                }
                other => tell(i, other),
            }
        }
    }

    /// Whether a sample is taken that is older than the newest of its series.
    pub(crate) fn check_late(&self, timestamp_ms: i64, bounds: &Bounds) -> Result<(), AppendError> {
        if bounds.out_of_order_ms == 0 {
            return Err(AppendError::OutOfOrder);
        }
        let oldest = self.newest_ms.unwrap_or(NEVER).saturating_sub(bounds.out_of_order_ms);
        if timestamp_ms < oldest { Err(AppendError::TooOld) } else { Ok(()) }
    }

    fn cursor(&self, id: u32) -> Cursor {
        self.cursors.get(id)
    }

    fn newest_without_cursor(&self, id: u32, catalog: &Catalog) -> Newest {
        if let Some(&last_ms) = self.left.get(&id) {
            return Newest::Exactly(last_ms);
        }
        if id >= self.stored_before {
            return Newest::Exactly(NEVER);
        }
        catalog.newest_of(id).map_or(Newest::Exactly(NEVER), Newest::AtMost)
    }

    /// Adds a row and the items for the log. Refused samples are counted.
    pub(crate) fn add_row(
        &mut self,
        source: SourceId,
        row: &RowSlices<'_>,
        bounds: &Bounds,
        past: &Past<'_>,
        record: &mut Vec<u8>,
        outcome: &mut Outcome,
    ) {
        if let Err(e) = check_bounds(row.timestamp_ms, bounds) {
            row.ids.iter().for_each(|_| outcome.refuse(e));
            return;
        }
        self.split(row);
        for g in 0..self.group_count {
            self.place(g, row, bounds, outcome);
        }
        self.settle_loose(source, row, bounds, past, outcome);
        for g in 0..self.group_count {
            self.write_group(g, source, row, bounds, record, outcome);
        }
        if !self.late.is_empty() {
            self.add_late(source, row, bounds, record, outcome);
        }
        if !self.repeats.is_empty() {
            self.settle_repeats(row, past.read_from, outcome);
        }
        self.newest_ms = self.newest_ms.max(Some(row.timestamp_ms));
    }

    /// Splits a row by the cursors of its series.
    ///
    /// Cost: one random access per series; dominates the routing.
    fn split(&mut self, row: &RowSlices<'_>) {
        self.group_count = 0;
        self.loose.clear();
        self.late.clear();
        self.repeats.clear();
        let stamp = self.commit;
        let mut current = NONE;
        let mut group = 0;
        for (position, &id) in row.ids.iter().enumerate() {
            let cursor = self.cursors.get(id);
            if cursor.axis == NONE {
                self.loose.push((position as u32, NEVER));
                continue;
            }
            if cursor.axis != current {
                current = cursor.axis;
                group = self.group_of(current, stamp);
            }
            let group = &mut self.groups[group];
            group.columns.push(cursor.column);
            group.positions.push(position as u32);
        }
        for g in 0..self.group_count {
            let axis = self.groups[g].axis;
            if let Some(Some(axis)) = self.axes.get_mut(axis as usize) {
                axis.group_stamp = 0;
            }
        }
    }

    fn group_of(&mut self, axis: u32, stamp: u64) -> usize {
        let next = self.group_count;
        if let Some(Some(state)) = self.axes.get_mut(axis as usize) {
            if state.group_stamp == stamp {
                return state.group;
            }
            (state.group_stamp, state.group) = (stamp, next);
        }
        self.new_group(axis)
    }

    fn new_group(&mut self, axis: u32) -> usize {
        let next = self.group_count;
        if next == self.groups.len() {
            self.groups.push(Group::default());
        }
        let group = &mut self.groups[next];
        group.axis = axis;
        group.columns.clear();
        group.positions.clear();
        group.fits = false;
        self.group_count += 1;
        next
    }

    fn open_of(&self, axis: u32) -> Arc<OpenStripe> {
        let state = self.axes.get(axis as usize).and_then(Option::as_ref);
        Arc::clone(&state.expect("BUG: a cursor on an axis that is gone").open)
    }

    /// Decides for the cells of a group whether they fit their axis.
    fn place(&mut self, g: usize, row: &RowSlices<'_>, bounds: &Bounds, outcome: &mut Outcome) {
        let axis = self.groups[g].axis;
        let open = self.open_of(axis);
        let mut rows = open.lock();
        let newest = rows.times.last().copied();
        if newest.is_some_and(|n| row.timestamp_ms <= n) {
            let has_row = rows.times.binary_search(&row.timestamp_ms).is_ok();
            self.sift(g, &mut rows, has_row, row, bounds, outcome);
            self.groups[g].fits = has_row;
            return;
        }
        // Every column's newest sample is at most the newest row's, but for
        // columns that came from elsewhere, which had none later than their row.
        let columns = rows.ids.len();
        let few = |cells: usize| cells * 2 < columns;
        if rows.times.len() >= 2 && few(self.groups[g].columns.len()) && few(rows.newest_cells) {
            let group = &mut self.groups[g];
            for (&column, &position) in group.columns.iter().zip(&group.positions) {
                self.loose.push((position, rows.last_ms[usize::from(column)]));
            }
            group.columns.clear();
            group.positions.clear();
            return;
        }
        self.groups[g].fits = true;
        if let (Some(&first), Some(state)) = (rows.times.first(), &self.axes[axis as usize])
            && (rows.times.len() >= state.rows_max
                || row.timestamp_ms - first >= STRIPE_MS
                || day_of(row.timestamp_ms) != day_of(first))
        {
            drop(rows);
            self.rotate(axis, bounds.now_ms);
            let group = &mut self.groups[g];
            group.columns.clear();
            let mut kept = Vec::with_capacity(group.positions.len());
            for &position in &group.positions {
                let id = row.ids[position as usize];
                let cursor = self.cursors.get(id);
                if cursor.axis == axis {
                    group.columns.push(cursor.column);
                    kept.push(position);
                } else {
                    let last_ms = self.left.get(&id).copied().unwrap_or(NEVER);
                    self.loose.push((position, last_ms));
                }
            }
            group.positions = kept;
        } else if rows.times.is_empty() && row.timestamp_ms <= rows.base_ms {
            // Just begun: its series may be ahead of this row.
            self.sift(g, &mut rows, true, row, bounds, outcome);
        }
    }

    /// Keeps of a group the cells that are later than their series' newest
    /// sample, if the axis has or gets the row; others fork, are duplicates or
    /// late.
    fn sift(
        &mut self,
        g: usize,
        rows: &mut Rows,
        has_row: bool,
        row: &RowSlices<'_>,
        bounds: &Bounds,
        outcome: &mut Outcome,
    ) {
        let mut group = std::mem::take(&mut self.groups[g]);
        let mut kept = 0;
        for i in 0..group.columns.len() {
            let (column, position) = (group.columns[i], group.positions[i]);
            let last_ms = rows.last_ms[usize::from(column)];
            if row.timestamp_ms > last_ms {
                if has_row {
                    (group.columns[kept], group.positions[kept]) = (column, position);
                    kept += 1;
                } else {
                    self.loose.push((position, last_ms));
                }
            } else if row.timestamp_ms == last_ms {
                self.repeat(row, position, rows.newest_float(usize::from(column)), outcome);
            } else {
                match self.check_late(row.timestamp_ms, bounds) {
                    Ok(()) => self.late.push(position),
                    Err(e) => outcome.refuse(e),
                }
            }
        }
        group.columns.truncate(kept);
        group.positions.truncate(kept);
        self.groups[g] = group;
    }

    /// Gives series without an axis for this row one.
    fn settle_loose(
        &mut self,
        source: SourceId,
        row: &RowSlices<'_>,
        bounds: &Bounds,
        past: &Past<'_>,
        outcome: &mut Outcome,
    ) {
        if self.loose.is_empty() {
            return;
        }
        let mut loose = std::mem::take(&mut self.loose);
        let mut unsure = Vec::new();
        loose.retain_mut(|(position, last_ms)| {
            if *last_ms == NEVER {
                let id = row.ids[*position as usize];
                *last_ms = match self.newest_without_cursor(id, past.catalog) {
                    Newest::AtMost(last_ms) if row.timestamp_ms <= last_ms => {
                        unsure.push(*position);
                        return false;
                    }
                    Newest::Exactly(last_ms) | Newest::AtMost(last_ms) => last_ms,
                };
            }
            if row.timestamp_ms > *last_ms {
                return true;
            }
            if row.timestamp_ms == *last_ms {
                self.repeats.push(*position);
                return false;
            }
            match self.check_late(row.timestamp_ms, bounds) {
                Ok(()) => self.late.push(*position),
                Err(e) => outcome.refuse(e),
            }
            false
        });
        if !unsure.is_empty() {
            self.settle_unsure(&unsure, row, bounds, past.read_from, &mut loose, outcome);
        }
        loose.sort_unstable();
        let mut rest = loose.as_slice();
        while !rest.is_empty() {
            let (g, room) = self.group_with_room(source, row.timestamp_ms, bounds);
            let (some, others) = rest.split_at(rest.len().min(room));
            self.adopt(g, row, some);
            rest = others;
        }
        loose.clear();
        self.loose = loose;
    }

    /// Decides for samples that may be older than the newest of their series, as
    /// the days say: `loose` gets what is not.
    #[cold]
    fn settle_unsure(
        &mut self,
        unsure: &[u32],
        row: &RowSlices<'_>,
        bounds: &Bounds,
        read_from: ReadFrom<'_>,
        loose: &mut Vec<(u32, i64)>,
        outcome: &mut Outcome,
    ) {
        let ids: Vec<u32> = unsure.iter().map(|&p| row.ids[p as usize]).collect();
        for (&position, found) in unsure.iter().zip(read_from(&ids, row.timestamp_ms)) {
            match found {
                Found::Nothing => loose.push((position, NEVER)),
                Found::Newest(at_ms, stored) if at_ms == row.timestamp_ms => {
                    row.settle(position, &stored, outcome);
                    self.learn(row.ids[position as usize], at_ms);
                }
                _ => match self.check_late(row.timestamp_ms, bounds) {
                    Ok(()) => self.late.push(position),
                    Err(e) => outcome.refuse(e),
                },
            }
        }
    }

    /// Keeps the time of the newest sample of a series without a cursor, so that it
    /// is not read for each sample that is sent late.
    #[cold]
    pub(crate) fn learn(&mut self, id: u32, newest_ms: i64) {
        if self.cursor(id).axis == NONE {
            self.left.entry(id).or_insert(newest_ms);
        }
    }

    /// A group whose axis has or gets the row and takes more columns.
    fn group_with_room(
        &mut self,
        source: SourceId,
        timestamp_ms: i64,
        bounds: &Bounds,
    ) -> (usize, usize) {
        let room = |axis: u32| MAX_COLUMNS - self.open_of(axis).lock().ids.len().min(MAX_COLUMNS);
        let fitting = (0..self.group_count).filter(|&g| self.groups[g].fits);
        let largest = fitting
            .map(|g| (self.groups[g].columns.len(), g, room(self.groups[g].axis)))
            .filter(|(_, _, room)| *room > 0)
            .max();
        if let Some((_, g, room)) = largest {
            return (g, room);
        }
        let recent = self.recent.get(&(source, timestamp_ms)).copied();
        let usable = recent.filter(|&axis| {
            let known = self.axes.get(axis as usize).is_some_and(Option::is_some);
            known
                && (0..self.group_count).all(|g| self.groups[g].axis != axis)
                && room(axis) > 0
                && self.open_of(axis).lock().times.binary_search(&timestamp_ms).is_ok()
        });
        let axis = usable.unwrap_or_else(|| self.new_axis(false, bounds.now_ms));
        let g = self.new_group(axis);
        self.groups[g].fits = true;
        let room = MAX_COLUMNS - self.open_of(axis).lock().ids.len();
        (g, room)
    }

    /// Gives series columns of a group's axis.
    fn adopt(&mut self, g: usize, row: &RowSlices<'_>, some: &[(u32, i64)]) {
        let axis = self.groups[g].axis;
        let open = self.open_of(axis);
        let mut rows = open.lock();
        self.touch(&open, &mut rows);
        let first = rows.ids.len();
        let (mut ids, mut lasts) = (Vec::with_capacity(some.len()), Vec::with_capacity(some.len()));
        for &(position, last_ms) in some {
            let id = row.ids[position as usize];
            let cursor = self.cursor(id);
            if cursor.axis == axis {
                // Twice in one row: compared when that is written.
                let group = &mut self.groups[g];
                group.columns.push(cursor.column);
                group.positions.push(position);
                continue;
            }
            if last_ms != NEVER {
                self.moved.push((id, cursor, last_ms));
            }
            // One that left the axis and is back has its column still.
            let own = if last_ms == NEVER { None } else { rows.layout().column(id) };
            let column = match own {
                Some(own) => {
                    rows.last_ms[own] = rows.last_ms[own].max(last_ms);
                    own
                }
                None => {
                    ids.push(id);
                    lasts.push(last_ms);
                    first + ids.len() - 1
                }
            } as u16;
            self.cursors.set(id, Cursor { axis, column });
            let group = &mut self.groups[g];
            group.columns.push(column);
            group.positions.push(position);
        }
        // Written together with the row, by `write_group`.
        rows.stage_columns(&ids, &lasts);
    }

    fn touch(&mut self, open: &Arc<OpenStripe>, rows: &mut Rows) {
        if rows.touched != self.commit {
            rows.touched = self.commit;
            self.touched.push((Arc::clone(open), rows.mark()));
        }
    }

    fn write_group(
        &mut self,
        g: usize,
        source: SourceId,
        row: &RowSlices<'_>,
        bounds: &Bounds,
        record: &mut Vec<u8>,
        outcome: &mut Outcome,
    ) {
        let mut group = std::mem::take(&mut self.groups[g]);
        if !group.columns.is_empty() {
            let open = self.open_of(group.axis);
            let mut rows = open.lock();
            self.touch(&open, &mut rows);
            group.sort(row, outcome);
            fill_cells(&group, row, &mut self.cells);
            self.append_cells(&open, &mut rows, row.timestamp_ms, bounds, record);
            outcome.taken += self.cells.len() as u64;
            outcome.histograms += self.cells.histograms.len() as u64;
            if self.recent.len() >= RECENT_MAX {
                self.recent.clear();
            }
            self.recent.insert((source, row.timestamp_ms), group.axis);
        }
        self.groups[g] = group;
    }

    /// Writes `self.cells` to a stripe and to the record.
    fn append_cells(
        &mut self,
        open: &OpenStripe,
        rows: &mut Rows,
        timestamp_ms: i64,
        bounds: &Bounds,
        record: &mut Vec<u8>,
    ) {
        rows.touched_ms = bounds.now_ms;
        if rows.times.is_empty() {
            rows.first_segment = self.segment;
        }
        if rows.newest_segment != self.segment {
            rows.newest_segment = self.segment;
            rows.force_key = true;
        }
        let (columns, cells) = rows.add_cells(timestamp_ms, &self.cells, self.commit);
        if !columns.is_empty() {
            wal::put_item(record, open.id, columns);
        }
        wal::put_item(record, open.id, cells);
    }

    /// Adds late samples to an axis beside the others.
    #[cold]
    fn add_late(
        &mut self,
        source: SourceId,
        row: &RowSlices<'_>,
        bounds: &Bounds,
        record: &mut Vec<u8>,
        outcome: &mut Outcome,
    ) {
        let mut late = std::mem::take(&mut self.late);
        let mut attempts = 0;
        while !late.is_empty() {
            attempts += 1;
            let axis = match self.side.get(&source) {
                Some(&axis) if attempts == 1 => axis,
                _ => {
                    if let Some(&before) = self.side.get(&source) {
                        self.retire(before);
                    }
                    let axis = self.new_axis(true, bounds.now_ms);
                    self.side.insert(source, axis);
                    axis
                }
            };
            let open = self.open_of(axis);
            let mut rows = open.lock();
            let first = rows.times.first().copied().unwrap_or(row.timestamp_ms);
            let newest = rows.times.last().copied();
            let fits_row = newest.is_none_or(|n| row.timestamp_ms > n)
                || rows.times.binary_search(&row.timestamp_ms).is_ok();
            if !fits_row
                || rows.times.len() >= STRIPE_ROWS
                || day_of(first) != day_of(row.timestamp_ms)
            {
                continue;
            }
            self.touch(&open, &mut rows);
            let layout = rows.layout();
            let mut group = Group { axis, ..Group::default() };
            let mut others = Vec::new();
            let mut new = Vec::new();
            for &position in &late {
                let id = row.ids[position as usize];
                match layout.column(id) {
                    Some(column) if rows.last_ms[column] < row.timestamp_ms => {
                        group.columns.push(column as u16);
                        group.positions.push(position);
                    }
                    Some(column) if rows.last_ms[column] == row.timestamp_ms => {
                        self.repeat(row, position, rows.newest_float(column), outcome);
                    }
                    Some(_) => others.push(position),
                    None if rows.ids.len() + new.len() < MAX_COLUMNS && !new.contains(&id) => {
                        group.columns.push((rows.ids.len() + new.len()) as u16);
                        group.positions.push(position);
                        new.push(id);
                    }
                    None => others.push(position),
                }
            }
            rows.stage_columns(&new, &vec![NEVER; new.len()]);
            group.sort(row, outcome);
            fill_cells(&group, row, &mut self.cells);
            if self.cells.len() > 0 {
                self.append_cells(&open, &mut rows, row.timestamp_ms, bounds, record);
                outcome.taken += self.cells.len() as u64;
                outcome.late += self.cells.len() as u64;
            }
            late = others;
        }
        self.late = late;
    }

    /// A sample of the newest timestamp of its column, whose float is `newest`, if
    /// that is known.
    fn repeat(
        &mut self,
        row: &RowSlices<'_>,
        position: u32,
        newest: Option<f64>,
        outcome: &mut Outcome,
    ) {
        let verdict = match row.histogram(position) {
            Some(_) if newest.is_none() => Verdict::Unsure,
            Some(_) => Verdict::Refused(AppendError::Duplicate),
            None => Sent::Float(row.values[position as usize]).compare(newest),
        };
        match verdict {
            Verdict::Taken => outcome.taken += 1,
            Verdict::Refused(e) => outcome.refuse(e),
            Verdict::Unsure => self.repeats.push(position),
        }
    }

    /// Compares samples with the newest of their series, which have the same time.
    /// What cannot be read, or was deleted, counts as equal.
    #[cold]
    fn settle_repeats(
        &mut self,
        row: &RowSlices<'_>,
        read_from: ReadFrom<'_>,
        outcome: &mut Outcome,
    ) {
        let ids: Vec<u32> = self.repeats.iter().map(|&p| row.ids[p as usize]).collect();
        let stored = read_from(&ids, row.timestamp_ms);
        for (position, stored) in self.repeats.drain(..).zip(&stored) {
            match stored {
                Found::Newest(_, stored) => row.settle(position, stored, outcome),
                _ => outcome.taken += 1,
            }
        }
    }

    fn new_axis(&mut self, is_side: bool, now_ms: i64) -> u32 {
        let id = self.next_id();
        let mut rows = Rows::continuing(Vec::new(), Vec::new(), NEVER, self.segment);
        rows.touched_ms = now_ms;
        self.add_axis(Arc::new(OpenStripe::new(id, rows)), is_side)
    }

    fn add_axis(&mut self, open: Arc<OpenStripe>, is_side: bool) -> u32 {
        self.is_view_stale = true;
        // 60 to 120 rows, spread by the golden ratio.
        let spread = (open.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize;
        let state = AxisState {
            open,
            rows_max: STRIPE_ROWS - spread.min(STRIPE_ROWS / 2),
            is_side,
            group_stamp: 0,
            group: 0,
        };
        match self.free.pop() {
            Some(axis) => {
                self.axes[axis as usize] = Some(state);
                axis
            }
            None => {
                self.axes.push(Some(state));
                self.axes.len() as u32 - 1
            }
        }
    }

    /// An id for a stripe that is written at once.
    pub(crate) fn take_stripe_id(&mut self) -> u64 {
        self.next_id()
    }

    fn next_id(&mut self) -> u64 {
        self.next_stripe_id += 1;
        self.next_stripe_id - 1
    }

    /// Freezes the stripe of an axis and begins another with the columns that
    /// had samples in it and did not end.
    fn rotate(&mut self, axis: u32, now_ms: i64) {
        let id = self.next_id();
        let open = self.open_of(axis);
        let mut rows = open.lock();
        let first = rows.times.first().copied().unwrap_or(NEVER);
        let base_ms = rows.times.last().copied().unwrap_or(rows.base_ms);
        let (mut ids, mut lasts) = (Vec::new(), Vec::new());
        for column in 0..rows.ids.len() {
            let (id, last_ms) = (rows.ids[column], rows.last_ms[column]);
            let cursor = self.cursor(id);
            if cursor.axis != axis || usize::from(cursor.column) != column {
                continue;
            }
            if last_ms < first || crate::sample::is_stale(rows.state.last[column]) {
                self.cursors.set(id, NO_CURSOR);
                self.left.insert(id, last_ms);
            } else {
                self.cursors.set(id, Cursor { axis, column: ids.len() as u16 });
                ids.push(id);
                lasts.push(last_ms);
            }
        }
        rows.freeze();
        drop(rows);
        let mut next = Rows::continuing(ids, lasts, base_ms, self.segment);
        next.touched_ms = now_ms;
        self.rotated.push((axis, Arc::clone(&open)));
        self.frozen.push(open);
        self.is_view_stale = true;
        if let Some(Some(state)) = self.axes.get_mut(axis as usize) {
            state.open = Arc::new(OpenStripe::new(id, next));
            state.rows_max = STRIPE_ROWS;
        }
    }

    /// Freezes the stripe of an axis and forgets the axis.
    fn retire(&mut self, axis: u32) {
        let Some(state) = self.axes.get_mut(axis as usize).and_then(Option::take) else { return };
        self.free.push(axis);
        self.is_view_stale = true;
        self.recent.retain(|_, a| *a != axis);
        self.side.retain(|_, a| *a != axis);
        let mut rows = state.open.lock();
        for (column, &id) in rows.ids.iter().enumerate() {
            let cursor = self.cursor(id);
            if !state.is_side && cursor.axis == axis && usize::from(cursor.column) == column {
                self.cursors.set(id, NO_CURSOR);
                self.left.insert(id, rows.last_ms[column]);
            }
        }
        let is_empty = rows.times.is_empty();
        rows.freeze();
        drop(rows);
        if !is_empty {
            self.frozen.push(state.open);
        }
    }

    /// Freezes what got no row for [`STRIPE_MS`], or all with `all`; gives
    /// back memory and forgets what is too old to matter.
    pub(crate) fn retire_idle(&mut self, now_ms: i64, all: bool) {
        for axis in 0..self.axes.len() as u32 {
            let Some(Some(state)) = self.axes.get(axis as usize) else { continue };
            let rows = state.open.lock();
            let idle = now_ms.saturating_sub(rows.touched_ms) >= STRIPE_MS;
            drop(rows);
            if idle || all {
                self.retire(axis);
            }
        }
        let keep_ms = self.newest_ms.unwrap_or(0) - 2 * STRIPE_MS;
        self.left.retain(|_, last_ms| *last_ms >= keep_ms);
        if self.left.capacity() > 4 * self.left.len() + 64 {
            self.left.shrink_to_fit();
        }
        self.cursors.shrink();
    }

    /// Takes a stripe that the log gave back; its series get cursors to it.
    pub(crate) fn restore(&mut self, open: Arc<OpenStripe>) {
        let mut rows = open.lock();
        rows.force_key = true;
        rows.shrink();
        let newest = rows.times.last().copied();
        self.newest_ms = self.newest_ms.max(newest);
        let axis = self.axes.len() as u32;
        for (column, &id) in rows.ids.iter().enumerate() {
            let before = self.cursors.get(id);
            let last_ms = rows.last_ms[column];
            // In two stripes: the one with the newer sample goes on.
            let newer = match self.axes.get(before.axis as usize) {
                Some(Some(other)) => {
                    other.open.lock().last_ms[usize::from(before.column)] < last_ms
                }
                _ => true,
            };
            if newer {
                self.cursors.set(id, Cursor { axis, column: column as u16 });
            }
        }
        drop(rows);
        self.add_axis(open, false);
    }

    /// Freezes stripes that no series has a cursor on: the log gave them back,
    /// but their axis has gone on.
    pub(crate) fn retire_unused(&mut self) {
        let mut used = vec![false; self.axes.len()];
        for cursor in self.cursors.values().filter(|c| c.axis != NONE) {
            used[cursor.axis as usize] = true;
        }
        for (axis, used) in used.into_iter().enumerate() {
            if !used {
                self.retire(axis as u32);
            }
        }
    }

    /// The first log segment that is still needed by a stripe that is open.
    pub(crate) fn first_segment(&self) -> u64 {
        let needed = self.open_stripes().map(|o| {
            let rows = o.lock();
            if rows.times.is_empty() { u64::MAX } else { rows.first_segment }
        });
        needed.min().unwrap_or(u64::MAX)
    }
}

impl RowSlices<'_> {
    fn histogram(&self, position: u32) -> Option<&[u8]> {
        if self.histograms.is_empty() {
            return None;
        }
        let at = self.histograms.binary_search_by_key(&position, |(p, _)| *p).ok()?;
        Some(&self.histograms[at].1)
    }

    /// Compares a sample with what is stored at its time.
    fn settle(&self, position: u32, stored: &Value, outcome: &mut Outcome) {
        let histogram = self.histogram(position).and_then(|mut b| histogram::decode(&mut b));
        let value = self.values[position as usize];
        let sent = histogram.as_ref().map_or(Sent::Float(value), Sent::Histogram);
        if sent.is_repetition(stored) {
            outcome.taken += 1;
        } else {
            outcome.refuse(AppendError::Duplicate);
        }
    }

    /// Whether two samples of the row have the same value.
    fn is_same(&self, a: u32, b: u32) -> bool {
        let bits = |position: u32| self.values[position as usize].to_bits();
        match (self.histogram(a), self.histogram(b)) {
            (None, None) => bits(a) == bits(b),
            (a, b) => a == b,
        }
    }

    fn start_ms(&self, position: u32) -> Option<i64> {
        if self.starts.is_empty() {
            return None;
        }
        let at = self.starts.binary_search_by_key(&position, |(p, _)| *p).ok()?;
        Some(self.starts[at].1)
    }
}

impl Group {
    /// Orders by column, each once.
    fn sort(&mut self, row: &RowSlices<'_>, outcome: &mut Outcome) {
        if self.columns.is_sorted_by(|a, b| a < b) {
            return;
        }
        let mut pairs: Vec<(u16, u32)> =
            self.columns.iter().copied().zip(self.positions.iter().copied()).collect();
        pairs.sort_unstable();
        pairs.dedup_by(|later, first| {
            let twice = later.0 == first.0;
            if twice {
                if row.is_same(later.1, first.1) {
                    outcome.taken += 1;
                } else {
                    outcome.refuse(AppendError::Duplicate);
                }
            }
            twice
        });
        (self.columns, self.positions) = pairs.into_iter().unzip();
    }
}

/// Gathers the cells of a group.
fn fill_cells(group: &Group, row: &RowSlices<'_>, cells: &mut Cells) {
    cells.clear();
    if row.histograms.is_empty() && row.starts.is_empty() {
        cells.columns.extend_from_slice(&group.columns);
        cells.values.extend(group.positions.iter().map(|&p| row.values[p as usize]));
        return;
    }
    for (&column, &position) in group.columns.iter().zip(&group.positions) {
        match row.histogram(position) {
            Some(bytes) => cells.histograms.push((column, bytes.to_vec())),
            None => {
                cells.columns.push(column);
                cells.values.push(row.values[position as usize]);
            }
        }
        if let Some(start_ms) = row.start_ms(position) {
            cells.starts.push((column, start_ms));
        }
    }
}

fn check_bounds(timestamp_ms: i64, bounds: &Bounds) -> Result<(), AppendError> {
    if timestamp_ms < bounds.min_ms {
        return Err(AppendError::OutOfBounds);
    }
    if timestamp_ms > bounds.max_ms {
        return Err(AppendError::TooFarInFuture);
    }
    Ok(())
}
