//! What does one axis hold until its stripe is written?
//!
//! An [`OpenStripe`] keeps items as the log has them and appends to them;
//! readers see those of the commits up to their snapshot, decoded to
//! [`OpenRows`]. Decoded rows are kept while somebody reads them, and grow by
//! the new items only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::row::{self, Cells, ItemTime, Kind, RowState, RowTime, Sink};
use crate::axis::Layout;
use crate::budget::grow;
use crate::histogram::Histogram;

/// Rows of an axis that are not in a stripe yet.
#[derive(Debug)]
pub(crate) struct OpenStripe {
    /// Never given to another stripe of this directory.
    pub(crate) id: u64,
    rows: Mutex<Rows>,
}

/// The content of an open stripe.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Series of each column.
    pub(crate) ids: Vec<u32>,
    /// Timestamp of each row, ascending.
    pub(crate) times: Vec<i64>,
    /// Time of the newest sample of each column, in this stripe or before it;
    /// `i64::MIN` if there is none.
    pub(crate) last_ms: Vec<i64>,
    /// The newest float of each column; but see [`Rows::newest_float`].
    pub(crate) state: RowState,
    /// Time of the newest key row, behind which `state` is what was written.
    key_ms: i64,
    has_histograms: bool,
    /// Cells of the newest row.
    pub(crate) newest_cells: usize,
    /// No column had a sample after this before the stripe began.
    pub(crate) base_ms: i64,
    /// The first and the newest log segment with an item of this stripe.
    pub(crate) first_segment: u64,
    pub(crate) newest_segment: u64,
    /// The newest commit that touched it.
    pub(crate) touched: u64,
    /// When something was appended, by the wall clock.
    pub(crate) touched_ms: i64,
    /// The next row must be a key row.
    pub(crate) force_key: bool,
    /// Nothing is appended any more.
    pub(crate) frozen: bool,
    rows_since_key: usize,
    /// Columns that items name; more may wait for the next row.
    written_ids: usize,
    bytes: Vec<u8>,
    items: Vec<ItemEnd>,
    layout: Option<Arc<Layout>>,
    decoded: Option<Arc<OpenRows>>,
    /// Somebody read since [`Rows::age_decoded`].
    was_read: bool,
}

#[derive(Debug, Clone, Copy)]
struct ItemEnd {
    commit: u64,
    end: usize,
}

/// Rows from one key row to the next.
const KEY_INTERVAL: usize = 64;

/// How long an open stripe was before a commit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    bytes: usize,
    items: usize,
    times: usize,
    ids: usize,
    written_ids: usize,
    newest_cells: usize,
    rows_since_key: usize,
}

impl OpenStripe {
    /// An empty stripe.
    pub(crate) fn new(id: u64, rows: Rows) -> Self {
        Self { id, rows: Mutex::new(rows) }
    }

    /// Its content. The lock is held for an append or a decode of new items.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of all commits up to `commit`, decoded.
    pub(crate) fn snapshot(&self, commit: u64) -> Arc<OpenRows> {
        self.lock().snapshot(commit)
    }
}

impl Rows {
    /// An empty stripe that continues the columns of another one.
    pub(crate) fn continuing(
        ids: Vec<u32>,
        last_ms: Vec<i64>,
        base_ms: i64,
        first_segment: u64,
    ) -> Self {
        let mut state = RowState::default();
        state.grow(ids.len());
        Self {
            ids,
            last_ms,
            base_ms,
            first_segment,
            newest_segment: first_segment,
            state,
            key_ms: i64::MAX,
            ..Self::default()
        }
    }

    /// The float of a column at its `last_ms`, if it is known without decoding.
    pub(crate) fn newest_float(&self, column: usize) -> Option<f64> {
        let last_ms = self.last_ms[column];
        let is_here = last_ms > self.base_ms && last_ms >= self.key_ms;
        (is_here && !self.has_histograms).then(|| self.state.last[column])
    }

    /// Where the stripe ends now, for [`Rows::roll_back`].
    pub(crate) const fn mark(&self) -> Mark {
        Mark {
            written_ids: self.written_ids,
            bytes: self.bytes.len(),
            items: self.items.len(),
            times: self.times.len(),
            ids: self.ids.len(),
            newest_cells: self.newest_cells,
            rows_since_key: self.rows_since_key,
        }
    }

    /// Adds columns; they are written with the next row.
    pub(crate) fn stage_columns(&mut self, ids: &[u32], last_ms: &[i64]) {
        if ids.is_empty() {
            return;
        }
        grow(&mut self.ids, ids.len());
        self.ids.extend_from_slice(ids);
        grow(&mut self.last_ms, last_ms.len());
        self.last_ms.extend_from_slice(last_ms);
        self.state.grow(self.ids.len());
        self.layout = None;
    }

    /// Adds cells to the row at `timestamp_ms`, which may be later than all
    /// others, or one of them; returns the items for the log: new columns, if
    /// any, and cells.
    pub(crate) fn add_cells(
        &mut self,
        timestamp_ms: i64,
        cells: &Cells,
        commit: u64,
    ) -> (&[u8], &[u8]) {
        let newest = self.times.last().copied();
        let columns = self.bytes.len();
        let is_new = newest.is_none_or(|n| n < timestamp_ms);
        let is_key =
            is_new && (self.force_key || newest.is_none() || self.rows_since_key >= KEY_INTERVAL);
        // A key row names all columns.
        if !is_key && self.written_ids < self.ids.len() {
            row::encode_columns(&self.ids[self.written_ids..], &mut self.bytes);
            self.items.push(ItemEnd { commit, end: self.bytes.len() });
        }
        self.written_ids = self.ids.len();
        let start = self.bytes.len();
        let room = self.reserve_for(is_key, cells.len());
        let time = match newest {
            _ if is_key => RowTime::Key(&self.ids),
            Some(newest) if is_new => RowTime::After(timestamp_ms.abs_diff(newest)),
            Some(newest) => RowTime::Before(newest.abs_diff(timestamp_ms)),
            None => unreachable!("BUG: the first row is a key row"),
        };
        row::encode_row(
            time,
            timestamp_ms,
            cells,
            self.ids.len(),
            &mut self.state,
            &mut self.bytes,
        );
        if self.bytes.capacity() > room {
            self.bytes.shrink_to(self.bytes.len() + self.bytes.len() / 8);
        }
        grow(&mut self.items, 1);
        self.items.push(ItemEnd { commit, end: self.bytes.len() });
        if is_new {
            self.times.push(timestamp_ms);
            self.newest_cells = 0;
            self.rows_since_key = if is_key { 1 } else { self.rows_since_key + 1 };
            self.force_key &= !is_key;
            if is_key {
                self.key_ms = timestamp_ms;
            }
        }
        self.has_histograms |= !cells.histograms.is_empty();
        if self.times.last() == Some(&timestamp_ms) {
            self.newest_cells += cells.len();
        }
        if cells.columns.len() == self.last_ms.len() {
            self.last_ms.fill(timestamp_ms);
        } else {
            for &column in cells.columns.iter().chain(cells.histograms.iter().map(|(c, _)| c)) {
                self.last_ms[usize::from(column)] = timestamp_ms;
            }
        }
        (&self.bytes[columns..start], &self.bytes[start..])
    }

    /// Makes room for an item that will be about as long as the one before; what is
    /// longer doubles the room. Says how much there is.
    fn reserve_for(&mut self, is_key: bool, cells: usize) -> usize {
        let newest = match self.items.as_slice() {
            [.., before, newest] if !is_key => newest.end - before.end,
            _ => 3 * cells,
        };
        grow(&mut self.bytes, newest + newest / 4 + 64);
        self.bytes.capacity()
    }

    /// Takes an item from the log, of a directory with `series` series, and
    /// says how many cells it had. `None` if it does not fit what is there;
    /// nothing is changed then but the values before, so that only a key row
    /// can follow.
    pub(crate) fn replay(
        &mut self,
        item: &[u8],
        series: u32,
        scratch: &mut Vec<u16>,
    ) -> Option<usize> {
        let kind = row::kind_of(*item.first()?);
        if self.force_key && kind != Kind::Key {
            return None;
        }
        let mark = self.mark();
        if kind == Kind::Key && self.is_own_start(item) {
            // After a failed sync all rows were written once more.
            *self = Self {
                first_segment: self.first_segment,
                newest_segment: self.newest_segment,
                ..Self::default()
            };
        }
        let ids_before = if kind == Kind::Key { self.ids.clone() } else { Vec::new() };
        let mut sink = ReplaySink::default();
        let mut input = item;
        let decoded =
            row::decode_item(&mut input, &mut self.ids, &mut self.state, scratch, &mut sink);
        let fits = decoded.is_some()
            && input.is_empty()
            && self.ids[mark.ids.min(self.ids.len())..].iter().all(|id| *id < series)
            && self.place_replayed(kind, &ids_before, &sink);
        if !fits {
            if kind == Kind::Key {
                self.ids = ids_before;
            } else {
                self.ids.truncate(mark.ids);
            }
            self.force_key = true;
            self.key_ms = i64::MAX;
            return None;
        }
        self.layout = None;
        self.written_ids = self.ids.len();
        self.bytes.extend_from_slice(item);
        self.items.push(ItemEnd { commit: 0, end: self.bytes.len() });
        Some(sink.columns.len() + sink.histograms.len())
    }

    /// Whether an item is the first of this stripe, which is there already.
    fn is_own_start(&self, item: &[u8]) -> bool {
        let first = self.items.first().map(|first| &self.bytes[..first.end]);
        first.is_some_and(|first| first == item)
    }

    fn place_replayed(&mut self, kind: Kind, ids_before: &[u32], sink: &ReplaySink) -> bool {
        self.last_ms.resize(self.ids.len(), i64::MIN);
        let newest = self.times.last().copied();
        let time = match (sink.time, newest) {
            (None, _) => return kind == Kind::Columns,
            (Some(ItemTime::Key(ms)), _) => {
                if newest.is_some_and(|n| n >= ms) || !self.ids.starts_with(ids_before) {
                    return false;
                }
                ms
            }
            (Some(ItemTime::After(ms)), Some(newest)) if ms > 0 => {
                let Some(time) = newest.checked_add_unsigned(ms) else { return false };
                time
            }
            (Some(ItemTime::Before(ms)), Some(newest)) => {
                let Some(time) = newest.checked_sub_unsigned(ms) else { return false };
                if self.times.binary_search(&time).is_err() {
                    return false;
                }
                time
            }
            _ => return false,
        };
        if newest.is_none_or(|n| n < time) {
            self.times.push(time);
            self.newest_cells = 0;
            self.rows_since_key = if kind == Kind::Key { 1 } else { self.rows_since_key + 1 };
            self.force_key &= kind != Kind::Key;
            if kind == Kind::Key {
                self.key_ms = time;
            }
        }
        self.has_histograms |= !sink.histograms.is_empty();
        if self.times.last() == Some(&time) {
            self.newest_cells += sink.columns.len() + sink.histograms.len();
        }
        for &column in sink.columns.iter().chain(&sink.histograms) {
            self.last_ms[usize::from(column)] = time;
        }
        true
    }

    /// Undoes all that was added since `mark`. Cold: decodes the stripe.
    pub(crate) fn roll_back(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        self.items.truncate(mark.items);
        self.times.truncate(mark.times);
        self.ids.truncate(mark.ids);
        self.written_ids = mark.written_ids;
        self.newest_cells = mark.newest_cells;
        self.rows_since_key = mark.rows_since_key;
        self.layout = None;
        self.decoded = None;
        self.force_key = true;
        let rows = self.snapshot(u64::MAX);
        self.decoded = None;
        self.last_ms.truncate(mark.ids);
        for (column, last_ms) in self.last_ms.iter_mut().enumerate() {
            let newest =
                rows.rows.iter().rposition(|r| r.has(column) || r.histogram(column).is_some());
            *last_ms = match newest {
                Some(row) => rows.times[row],
                None => (*last_ms).min(self.base_ms),
            };
        }
        self.state = rows.state.clone();
        self.state.grow(self.ids.len());
        self.key_ms = i64::MAX;
    }

    /// The series of the columns, findable.
    pub(crate) fn layout(&mut self) -> Arc<Layout> {
        Arc::clone(self.layout.get_or_insert_with(|| Arc::new(Layout::new(&self.ids))))
    }

    /// Items with the bytes they have in the log.
    pub(crate) fn items(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.items.iter().map(|i| i.end));
        starts.zip(&self.items).map(|(start, item)| &self.bytes[start..item.end])
    }

    /// Bytes of the items.
    pub(crate) const fn item_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes on the heap, decoded rows apart.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.ids.capacity() * 4
            + self.times.capacity() * 8
            + self.last_ms.capacity() * 8
            + self.state.heap_bytes()
            + self.bytes.capacity()
            + self.items.capacity() * size_of::<ItemEnd>()
            + self.layout.as_ref().map_or(0, |l| l.heap_bytes())
            + size_of::<OpenStripe>()
    }

    /// Bytes of the decoded rows that are kept for readers.
    pub(crate) fn decoded_bytes(&self) -> usize {
        self.decoded.as_ref().map_or(0, |d| d.heap_bytes())
    }

    /// Forgets decoded rows that no reader holds.
    pub(crate) fn drop_decoded(&mut self) {
        self.decoded = None;
    }

    /// Takes no more rows; what only a writer needs is given back.
    pub(crate) fn freeze(&mut self) {
        self.frozen = true;
        self.state = RowState::default();
        self.last_ms = Vec::new();
        self.shrink();
    }

    /// Forgets decoded rows that nobody read since the last call.
    pub(crate) fn age_decoded(&mut self) {
        if !std::mem::take(&mut self.was_read) {
            self.decoded = None;
        }
    }

    /// Gives back memory that growing vectors reserved.
    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.items.shrink_to_fit();
        self.times.shrink_to_fit();
        self.ids.shrink_to_fit();
        self.last_ms.shrink_to_fit();
    }

    /// See [`OpenStripe::snapshot`].
    pub(crate) fn snapshot(&mut self, commit: u64) -> Arc<OpenRows> {
        let visible = self.items.partition_point(|i| i.commit <= commit);
        self.was_read = true;
        if let Some(decoded) = &self.decoded
            && decoded.items == visible
        {
            return Arc::clone(decoded);
        }
        let mut decoded = match self.decoded.take() {
            Some(d) if d.items < visible => d,
            kept => {
                let fresh = Arc::new(OpenRows::default());
                if let Some(newer) = kept {
                    // An older snapshot: decode for it alone.
                    self.decoded = Some(newer);
                    let mut own = OpenRows::default();
                    self.decode_into(&mut own, visible);
                    return Arc::new(own);
                }
                fresh
            }
        };
        self.decode_into(Arc::make_mut(&mut decoded), visible);
        self.decoded = Some(Arc::clone(&decoded));
        decoded
    }

    fn decode_into(&self, rows: &mut OpenRows, visible: usize) {
        let start = rows.items.checked_sub(1).map_or(0, |last| self.items[last].end);
        let end = visible.checked_sub(1).map_or(0, |last| self.items[last].end);
        let mut input = &self.bytes[start..end];
        let (mut ids, mut state) = (std::mem::take(&mut rows.ids), std::mem::take(&mut rows.state));
        let mut scratch = Vec::new();
        while !input.is_empty() {
            row::decode_item(&mut input, &mut ids, &mut state, &mut scratch, rows)
                .expect("items were encoded here or checked by `replay`");
        }
        (rows.ids, rows.state, rows.items) = (ids, state, visible);
    }
}

#[derive(Default)]
struct ReplaySink {
    columns: Vec<u16>,
    histograms: Vec<u16>,
    time: Option<ItemTime>,
}

impl Sink for ReplaySink {
    fn histogram(&mut self, column: u16, _: &[u8]) {
        self.histograms.push(column);
    }
    fn start(&mut self, _: u16, _: i64) {}
    fn cells(&mut self, time: ItemTime, columns: Option<&[u16]>, _: &RowState, ids: &[u32]) {
        self.time = Some(time);
        match columns {
            Some(columns) => self.columns.extend_from_slice(columns),
            None => self.columns.extend(0..ids.len() as u16),
        }
    }
}

/// Decoded rows of an open stripe.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenRows {
    /// Timestamp of each row, ascending.
    pub(crate) times: Vec<i64>,
    /// The rows.
    pub(crate) rows: Vec<Arc<Row>>,
    /// Series of each column.
    pub(crate) ids: Vec<u32>,
    items: usize,
    state: RowState,
    pending: Row,
}

/// One decoded row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// By column; as long as the row had columns.
    values: Vec<f64>,
    /// One bit per column that has a float; empty if all of `values` are there.
    present: Vec<u64>,
    histograms: Vec<(u16, Arc<Histogram>)>,
    /// Start timestamps in milliseconds.
    starts: Vec<(u16, i64)>,
}

impl Row {
    /// Whether the column has a float.
    pub(crate) fn has(&self, column: usize) -> bool {
        column < self.values.len()
            && (self.present.is_empty() || self.present[column / 64] >> (column % 64) & 1 == 1)
    }

    /// The float of a column, if the row has floats without start timestamps
    /// only and this column one.
    #[inline]
    pub(crate) fn plain_value(&self, column: usize) -> Option<f64> {
        let is_plain = self.present.is_empty() && self.starts.is_empty();
        self.values.get(column).copied().filter(|_| is_plain)
    }

    /// The float of a column that has one.
    pub(crate) fn value(&self, column: usize) -> f64 {
        self.values[column]
    }

    /// The histogram of a column.
    pub(crate) fn histogram(&self, column: usize) -> Option<&Arc<Histogram>> {
        if self.histograms.is_empty() {
            return None;
        }
        let at = self.histograms.binary_search_by_key(&column, |(c, _)| usize::from(*c)).ok()?;
        Some(&self.histograms[at].1)
    }

    /// The start timestamp of a column's sample; 0 if unknown.
    pub(crate) fn start_ms(&self, column: usize) -> i64 {
        if self.starts.is_empty() {
            return 0;
        }
        self.starts
            .binary_search_by_key(&column, |(c, _)| usize::from(*c))
            .map_or(0, |at| self.starts[at].1)
    }

    fn heap_bytes(&self) -> usize {
        self.values.capacity() * 8 + self.present.capacity() * 8 + size_of::<Self>()
    }

    fn merge(&mut self, columns: Option<&[u16]>, last: &[f64]) {
        match columns {
            None => {
                self.values.clear();
                self.values.extend_from_slice(last);
                self.present.clear();
            }
            Some([]) => {}
            Some(columns) => {
                let width = usize::from(columns[columns.len() - 1]) + 1;
                let before = self.values.len();
                if self.present.is_empty() {
                    self.present.resize(before.div_ceil(64), 0);
                    for column in 0..before {
                        self.present[column / 64] |= 1 << (column % 64);
                    }
                }
                if width > before {
                    self.values.resize(width, 0.0);
                    self.present.resize(width.div_ceil(64), 0);
                }
                for &column in columns {
                    let column = usize::from(column);
                    self.values[column] = last[column];
                    self.present[column / 64] |= 1 << (column % 64);
                }
            }
        }
    }
}

impl OpenRows {
    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.rows.iter().map(|r| r.heap_bytes()).sum::<usize>()
            + self.times.capacity() * 8
            + self.ids.capacity() * 4
            + self.state.heap_bytes()
    }
}

impl Sink for OpenRows {
    fn histogram(&mut self, column: u16, mut bytes: &[u8]) {
        if let Some(histogram) = super::histogram::decode(&mut bytes) {
            self.pending.histograms.push((column, Arc::new(histogram)));
        }
    }

    fn start(&mut self, column: u16, before_ms: i64) {
        self.pending.starts.push((column, before_ms));
    }

    fn cells(&mut self, time: ItemTime, columns: Option<&[u16]>, state: &RowState, ids: &[u32]) {
        let mut pending = std::mem::take(&mut self.pending);
        let newest = self.times.last().copied().unwrap_or(0);
        let (time, is_new) = match time {
            ItemTime::After(ms) => (newest.wrapping_add_unsigned(ms), true),
            ItemTime::Before(ms) => (newest.wrapping_sub_unsigned(ms), false),
            ItemTime::Key(ms) => (ms, true),
        };
        for (_, start) in &mut pending.starts {
            *start = time.wrapping_sub(*start);
        }
        if is_new {
            self.times.push(time);
            pending.merge(columns, &state.last[..ids.len()]);
            self.rows.push(Arc::new(pending));
            return;
        }
        let at = self.times.partition_point(|t| *t < time).min(self.rows.len() - 1);
        let row = Arc::make_mut(&mut self.rows[at]);
        row.merge(columns, &state.last[..ids.len()]);
        row.histograms.append(&mut pending.histograms);
        row.histograms.sort_by_key(|(c, _)| *c);
        row.starts.append(&mut pending.starts);
        row.starts.sort_by_key(|(c, _)| *c);
    }
}
