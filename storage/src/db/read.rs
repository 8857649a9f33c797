//! How does a query see the storage?
//!
//! A [`DbQuerier`] holds the stripes there were when it was opened. A series
//! is the concatenation of its pieces: columns of sealed stripes, and columns
//! of open rows. Series with the same pieces share one joined axis.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use roaring::RoaringBitmap;

use super::tombstones::Tombstones;
use super::{Damage, Inner, View, lock};
use crate::axis::{AxisTable, Layout};
use crate::day::catalog::Stripe;
use crate::day::stripe::{DecodedColumn, Header};
use crate::head::open::{OpenRows, OpenStripe};
use crate::histogram::{Histogram, settle_hints};
use crate::index::Index;
use crate::labels::{Labels, Matcher};
use crate::read::{Axis, Column, Querier, ReadError, SeriesRef};
use crate::sample::{Exemplar, Metadata};
use crate::series::SeriesTable;

/// A snapshot of a time range.
pub(super) struct DbQuerier {
    inner: Arc<Inner>,
    view: Arc<View>,
    commit: u64,
    start_ms: i64,
    end_ms: i64,
    open: OnceLock<Vec<OpenPart>>,
    ids: OnceLock<RoaringBitmap>,
    axes: Mutex<Axes>,
    tombstones: Arc<Tombstones>,
}

/// An open stripe as this snapshot sees it.
struct OpenPart {
    stripe: Arc<OpenStripe>,
    layout: Arc<Layout>,
    rows: OnceLock<Arc<OpenRows>>,
}

#[derive(Default)]
struct Axes {
    by_pieces: HashMap<Vec<(u64, u32)>, Axis>,
    by_content: AxisTable,
}

/// A part of a series.
enum Piece<'a> {
    Sealed { stripe: &'a Stripe, column: usize, header: Arc<Header> },
    Open { id: u64, rows: Arc<OpenRows>, column: usize },
}

/// The series with columns in open stripes.
pub(super) fn series_of_head(view: &View) -> RoaringBitmap {
    let mut ids = RoaringBitmap::new();
    for open in &view.open {
        for &id in &open.lock().ids {
            ids.insert(id);
        }
    }
    ids
}

impl Inner {
    /// Calls `f` with an index that knows all series.
    pub(super) fn with_index<T>(&self, f: impl FnOnce(&Index, &SeriesTable) -> T) -> T {
        let table = self.series.read().unwrap_or_else(PoisonError::into_inner);
        {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            if !index.is_behind(&table) {
                return f(&index, &table);
            }
        }
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.catch_up(&table, u32::MAX);
        f(&index, &table)
    }
}

impl DbQuerier {
    pub(super) fn new(inner: Arc<Inner>, start_ms: i64, end_ms: i64) -> Self {
        let snapshot = inner.snapshot();
        let start_ms = start_ms.max(inner.retention_floor_ms());
        let tombstones = inner.tombstones();
        Self {
            inner,
            view: snapshot.view,
            commit: snapshot.commit,
            start_ms,
            end_ms,
            open: OnceLock::new(),
            ids: OnceLock::new(),
            axes: Mutex::default(),
            tombstones,
        }
    }

    /// The open stripes that may have samples in the range.
    fn open(&self) -> &[OpenPart] {
        self.open.get_or_init(|| {
            let mut parts = Vec::new();
            for stripe in &self.view.open {
                let mut rows = stripe.lock();
                let (Some(&first), Some(&last)) = (rows.times.first(), rows.times.last()) else {
                    continue;
                };
                if first <= self.end_ms && last >= self.start_ms {
                    let layout = rows.layout();
                    drop(rows);
                    let stripe = Arc::clone(stripe);
                    parts.push(OpenPart { stripe, layout, rows: OnceLock::new() });
                }
            }
            parts
        })
    }

    /// All series that may have samples in the range.
    fn ids(&self) -> &RoaringBitmap {
        self.ids.get_or_init(|| {
            let mut ids = RoaringBitmap::new();
            let mut add = |layout: &Layout| {
                for (first, len) in layout.id_runs() {
                    ids.insert_range(first..first.saturating_add(len));
                }
            };
            for day in self.view.catalog.days_in(self.start_ms, self.end_ms) {
                for list in &day.layouts {
                    let overlaps = list.min_ms <= self.end_ms && list.max_ms >= self.start_ms;
                    if overlaps && list.stripes_in(self.start_ms, self.end_ms).next().is_some() {
                        add(&list.layout);
                    }
                }
            }
            self.open().iter().for_each(|part| add(&part.layout));
            ids
        })
    }

    fn matching(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let within = self.ids().clone();
        self.inner.with_index(|index, table| {
            let mut found = index.select(table, matchers, within);
            if table.has_nameless() {
                // Their labels are lost; what is left is no series.
                found = found.iter().filter(|id| !table.record(*id).is_empty()).collect();
            }
            found
        })
    }

    /// The pieces of a series that may have samples in the range, by first
    /// timestamp.
    fn pieces(&self, id: u32, start_ms: i64, end_ms: i64) -> Result<Vec<Piece<'_>>, ReadError> {
        let mut pieces = Vec::new();
        for day in self.view.catalog.days_in(start_ms, end_ms) {
            for list in &day.layouts {
                if list.min_ms > end_ms || list.max_ms < start_ms {
                    continue;
                }
                let Some(column) = list.layout.column(id) else { continue };
                for stripe in list.stripes_in(start_ms, end_ms) {
                    if let Some(header) = self.inner.header_of(stripe)? {
                        pieces.push(Piece::Sealed { stripe, column, header });
                    }
                }
            }
        }
        for part in self.open() {
            let Some(column) = part.layout.column(id) else { continue };
            let rows = part.rows.get_or_init(|| part.stripe.snapshot(self.commit));
            let (Some(&first), Some(&last)) = (rows.times.first(), rows.times.last()) else {
                continue;
            };
            if first <= end_ms && last >= start_ms {
                pieces.push(Piece::Open { id: part.stripe.id, rows: Arc::clone(rows), column });
            }
        }
        Ok(pieces)
    }

    /// The one axis with the timestamps of these pieces.
    fn axis_of(&self, key: Vec<(u64, u32)>, times: &[i64], is_shared: bool) -> Axis {
        let mut axes = lock(&self.axes);
        if is_shared && let Some(axis) = axes.by_pieces.get(&key) {
            return Arc::clone(axis);
        }
        let axis = axes.by_content.intern(times);
        if is_shared {
            axes.by_pieces.insert(key, Arc::clone(&axis));
        }
        axis
    }
}

/// Samples of a series while they are put together.
#[derive(Default)]
struct Joined {
    times: Vec<i64>,
    decoded: DecodedColumn,
    /// Which pieces, and which of their rows; `None` if it cannot be named.
    key: Vec<(u64, u32)>,
    is_named: bool,
    overlaps: bool,
}

impl Piece<'_> {
    /// Appends the samples; `false` if they were damaged and left out.
    fn append_to(
        &self,
        inner: &Inner,
        joined: &mut Joined,
        out: &mut Column,
    ) -> Result<(), ReadError> {
        match self {
            Self::Sealed { stripe, column, header } => {
                if !inner.load_column(stripe, header, *column, &mut joined.decoded)? {
                    joined.is_named = false;
                    return Ok(());
                }
                let axis = header.axis_of(*column);
                joined.add_times(axis);
                joined.key.push((stripe.id, header.pattern_of(*column)));
                let base = out.floats.len() as u32;
                let decoded = &mut joined.decoded;
                out.floats.extend_from_slice(&decoded.floats);
                out.histograms.extend(decoded.histograms.drain(..).map(|(at, h)| (base + at, h)));
                if !decoded.starts_ms.is_empty() {
                    out.starts_ms.resize(base as usize, 0);
                    out.starts_ms.extend_from_slice(&decoded.starts_ms);
                }
                out.may_be_stale |= decoded.may_be_stale;
                out.integral &= decoded.integral;
            }
            Self::Open { id, rows, column } => joined.add_open(*id, rows, *column, out),
        }
        Ok(())
    }

    fn first_ms(&self) -> i64 {
        match self {
            Self::Sealed { stripe, .. } => stripe.min_ms,
            Self::Open { rows, .. } => rows.times.first().copied().unwrap_or(i64::MAX),
        }
    }
}

impl Joined {
    fn add_times(&mut self, times: &[i64]) {
        self.overlaps |= matches!((self.times.last(), times.first()), (Some(l), Some(f)) if l >= f);
        self.times.extend_from_slice(times);
    }

    fn add_open(&mut self, id: u64, rows: &OpenRows, column: usize, out: &mut Column) {
        let before = self.times.len();
        for (&time, row) in rows.times.iter().zip(&rows.rows) {
            let value = if row.has(column) {
                row.value(column)
            } else if let Some(histogram) = row.histogram(column) {
                out.may_be_stale |= histogram.is_stale();
                out.histograms.push((out.floats.len() as u32, Arc::clone(histogram)));
                0.0
            } else {
                continue;
            };
            self.overlaps |= self.times.last().is_some_and(|l| *l >= time);
            self.times.push(time);
            out.may_be_stale |= crate::sample::is_stale(value);
            out.integral &= is_integral(value);
            let start_ms = row.start_ms(column);
            if start_ms != 0 {
                out.starts_ms.resize(out.floats.len(), 0);
                out.starts_ms.push(start_ms);
            }
            out.floats.push(value);
        }
        // All rows: named by the stripe. Else two series may differ.
        self.is_named &= self.times.len() - before == rows.times.len();
        self.key.push((id, 0));
    }
}

/// Whether a float is an integer of at most 2^53.
fn is_integral(value: f64) -> bool {
    value.abs() <= 9_007_199_254_740_992.0 && value as i64 as f64 == value
}

impl Querier for DbQuerier {
    fn select(&self, matchers: &[Matcher], sorted: bool) -> Result<Vec<SeriesRef>, ReadError> {
        let found = self.matching(matchers);
        let mut ids: Vec<u32> = found.iter().collect();
        if sorted {
            let table = self.inner.series.read().unwrap_or_else(PoisonError::into_inner);
            ids.sort_by(|a, b| table.compare(*a, *b));
        }
        Ok(ids.into_iter().map(SeriesRef).collect())
    }

    fn labels(&self, series: SeriesRef) -> Result<Labels, ReadError> {
        Ok(self.inner.series.read().unwrap_or_else(PoisonError::into_inner).labels(series.0))
    }

    fn read(
        &self,
        series: SeriesRef,
        start_ms: i64,
        end_ms: i64,
        out: &mut Column,
    ) -> Result<(), ReadError> {
        out.clear();
        let (start_ms, end_ms) = (start_ms.max(self.start_ms), end_ms.min(self.end_ms));
        if start_ms > end_ms {
            return Ok(());
        }
        let mut pieces = self.pieces(series.0, start_ms, end_ms)?;
        if pieces.is_empty() {
            return Ok(());
        }
        pieces.sort_by_key(Piece::first_ms);
        let mut joined = Joined { is_named: true, ..Joined::default() };
        out.integral = true;
        for piece in &pieces {
            piece.append_to(&self.inner, &mut joined, out)?;
        }
        if !out.starts_ms.is_empty() {
            out.starts_ms.resize(out.floats.len(), 0);
        }
        if joined.overlaps {
            merge_overlaps(&mut joined.times, out);
        }
        settle_hints(&mut out.histograms);
        let is_shared = joined.is_named && !joined.overlaps;
        let axis = self.axis_of(joined.key, &joined.times, is_shared);
        clip(axis, start_ms, end_ms, out);
        if !self.tombstones.is_empty() {
            self.tombstones.apply(series.0, out);
        }
        Ok(())
    }

    fn label_names(&self, matchers: &[Matcher], limit: usize) -> Result<Vec<String>, ReadError> {
        let found = self.matching(matchers);
        let mut names = self.inner.with_index(|index, table| index.label_names(table, &found));
        if limit > 0 {
            names.truncate(limit);
        }
        Ok(names)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<Vec<String>, ReadError> {
        let found = self.matching(matchers);
        let mut values =
            self.inner.with_index(|index, table| index.label_values(table, name, &found));
        if limit > 0 {
            values.truncate(limit);
        }
        Ok(values)
    }

    fn exemplars(
        &self,
        matchers: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, ReadError> {
        let mut by_series: HashMap<u32, Vec<Exemplar>> = HashMap::new();
        {
            let ring = lock(&self.inner.exemplars);
            for (series, exemplar) in ring.iter() {
                if (start_ms..=end_ms).contains(&exemplar.timestamp_ms) {
                    by_series.entry(*series).or_default().push(exemplar.clone());
                }
            }
        }
        let table = self.inner.series.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<(Labels, Vec<Exemplar>)> =
            by_series.into_iter().map(|(id, e)| (table.labels(id), e)).collect();
        found.retain(|(labels, _)| {
            let matches = |set: &Vec<Matcher>| {
                set.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")))
            };
            matchers.iter().any(matches)
        });
        found.sort_by(|a, b| a.0.cmp(&b.0));
        for (_, exemplars) in &mut found {
            exemplars.sort_by_key(|e| e.timestamp_ms);
        }
        Ok(found)
    }

    fn metadata(&self) -> Vec<(String, Vec<Metadata>)> {
        lock(&self.inner.metadata).all()
    }
}

/// Leaves the samples of `start_ms..=end_ms`.
fn clip(axis: Axis, start_ms: i64, end_ms: i64, out: &mut Column) {
    let from = axis.partition_point(|t| *t < start_ms);
    let to = axis.partition_point(|t| *t <= end_ms).max(from);
    out.floats.truncate(to);
    out.floats.drain(..from);
    if !out.starts_ms.is_empty() {
        out.starts_ms.truncate(to);
        out.starts_ms.drain(..from);
    }
    if !out.histograms.is_empty() {
        out.histograms.retain_mut(|(at, _)| {
            let keep = (from..to).contains(&(*at as usize));
            *at = at.wrapping_sub(from as u32);
            keep
        });
    }
    out.axis = axis;
    out.range = from..to;
}

/// Brings samples of pieces that overlap in time (late samples) in order. Of
/// two samples with one timestamp the first piece's counts.
#[cold]
fn merge_overlaps(times: &mut Vec<i64>, out: &mut Column) {
    let mut order: Vec<u32> = (0..times.len() as u32).collect();
    order.sort_by_key(|&i| times[i as usize]);
    order.dedup_by_key(|i| times[*i as usize]);
    let histograms: HashMap<u32, Arc<Histogram>> = out.histograms.drain(..).collect();
    let floats = order.iter().map(|&i| out.floats[i as usize]).collect();
    for (at, i) in order.iter().enumerate() {
        if let Some(histogram) = histograms.get(i) {
            out.histograms.push((at as u32, Arc::clone(histogram)));
        }
    }
    if !out.starts_ms.is_empty() {
        out.starts_ms = order.iter().map(|&i| out.starts_ms[i as usize]).collect();
    }
    out.floats = floats;
    *times = order.iter().map(|&i| times[i as usize]).collect();
}

impl Inner {
    /// The header of a stripe; `None` if it is damaged.
    fn header_of(&self, stripe: &Stripe) -> Result<Option<Arc<Header>>, ReadError> {
        let key = (stripe.file.number, stripe.offset);
        if let Some(header) = self.headers.get(key) {
            return Ok(Some(header));
        }
        match stripe.file.read_header(stripe.offset, stripe.header_bytes) {
            Ok(header) => {
                let header = Arc::new(header);
                self.headers.insert(key, Arc::clone(&header), header.heap_bytes());
                Ok(Some(header))
            }
            Err(e) => {
                let bytes = u64::from(stripe.header_bytes);
                self.quarantine(stripe, stripe.offset, bytes, e).map(|()| None)
            }
        }
    }

    /// Decodes a column; `false` if it is damaged.
    fn load_column(
        &self,
        stripe: &Stripe,
        header: &Header,
        column: usize,
        out: &mut DecodedColumn,
    ) -> Result<bool, ReadError> {
        let Some(run) = header.run_of(column) else { return Ok(false) };
        let offset = stripe.payload_offset() + u64::from(run.bytes.start);
        let key = (stripe.file.number, offset);
        let bytes = match self.runs.get(key) {
            Some(bytes) => bytes,
            None => match stripe.file.read_run(stripe.payload_offset(), &run) {
                Ok(bytes) => {
                    let bytes = Arc::new(bytes);
                    self.runs.insert(key, Arc::clone(&bytes), bytes.len());
                    bytes
                }
                Err(e) => {
                    let bytes = u64::from(run.bytes.end - run.bytes.start);
                    return self.quarantine(stripe, offset, bytes, e).map(|()| false);
                }
            },
        };
        if let Err(e) = header.decode_column(column, &run, &bytes, out) {
            self.report(damage_of(stripe, offset, bytes.len() as u64, &e.to_string()));
            return Ok(false);
        }
        Ok(true)
    }

    /// Reports damage; other errors are the reader's.
    fn quarantine(
        &self,
        stripe: &Stripe,
        offset: u64,
        bytes: u64,
        error: io::Error,
    ) -> Result<(), ReadError> {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                self.report(damage_of(stripe, offset, bytes, &error.to_string()));
                Ok(())
            }
            _ => Err(ReadError::Io { file: stripe.file.name.clone(), source: error }),
        }
    }
}

fn damage_of(stripe: &Stripe, offset: u64, bytes: u64, what: &str) -> Damage {
    Damage { file: stripe.file.name.clone(), offset, bytes, what: what.to_owned() }
}
