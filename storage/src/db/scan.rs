//! How are many series of one snapshot read one after the other?
//!
//! A [`Scan`] belongs to a snapshot and a time range. A series is the
//! concatenation of its *pieces*: columns of sealed stripes, and columns of
//! open rows. What neighbouring series have in common is kept from one to the
//! next: headers, runs of chunks, chains of buckets that build on one another,
//! and the joined axes, so that what is left per series and stripe is to find
//! a chunk and to decode it. Guarded by `benches/storage_figures.rs`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::Inner;
use super::joined::{Joined, Overlap, PieceName};
use super::read::{DbQuerier, OpenPart, damage_of};
use crate::day::catalog::{LayoutStripes, Stripe};
use crate::day::stripe::{DecodedColumn, Header, RunRange};
use crate::head::open::OpenRows;
use crate::histogram::{Histogram, settle_hints};
use crate::read::{Axis, Column, ReadError};

/// Most bytes of decoded chains that one scan keeps.
const MAX_CHAIN_BYTES: usize = 8 << 20;

/// Runs that are kept per stripe: series are read in order of their labels,
/// which goes to and fro within a metric's chunks.
const RUNS: usize = 4;

/// What is kept of a column is cut when it is more than so many times longer
/// than what is asked for.
const MUCH: usize = 4;

/// What a reader looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Everything.
    Values,
    /// Which samples there are, of which kind, and which are staleness markers.
    Presence,
}

/// What reading series after series needs, and keeps.
pub(super) struct Scan {
    start_ms: i64,
    end_ms: i64,
    sources: Vec<Source>,
    axes: Vec<(Vec<PieceName>, Axis)>,
    axis_places: HashMap<Vec<PieceName>, usize>,
    /// The axis of the series read before.
    axis: usize,
    chain_bytes: usize,
    /// Bytes of columns that this scan has kept for others.
    kept_bytes: usize,
    /// The series that is read now.
    pieces: Vec<Piece>,
    parts: Vec<Part>,
    names: Vec<PieceName>,
    /// The stripes of a run of pieces.
    wanted: Vec<PieceName>,
    open_times: Vec<i64>,
    decoded: DecodedColumn,
    /// Its first histogram, with the hint that the one before the range gives.
    first: Option<Arc<Histogram>>,
}

/// The stripes of one day with the same columns.
struct Source {
    list: Arc<LayoutStripes>,
    /// Those of the range, once a series asked for them.
    stripes: Option<Vec<ScanStripe>>,
    /// The joined axis of the series read before from here.
    axis: usize,
}

/// A sealed stripe with what was loaded of it.
struct ScanStripe {
    stripe: Stripe,
    header: Arc<Header>,
    /// The rows within the scan's range.
    rows: Range<usize>,
    runs: [Option<(RunRange, Arc<Vec<u8>>)>; RUNS],
    next_run: usize,
    /// By their columns.
    chains: HashMap<usize, Arc<Chain>>,
}

/// Decoded columns that build on one another.
struct Chain {
    columns: Vec<usize>,
    decoded: Vec<DecodedColumn>,
}

/// Where a piece of the series is.
#[derive(Clone, Copy)]
struct Piece {
    first_ms: i64,
    column: usize,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    /// Source and stripe.
    Sealed(usize, usize),
    /// Open part.
    Open(usize),
}

/// Samples that were appended, and where their times are.
enum Part {
    Sealed {
        source: usize,
        stripe: usize,
        column: usize,
        rows: Range<usize>,
    },
    /// In [`Scan::open_times`].
    Open(Range<usize>),
}

impl Scan {
    /// A scan of this range, both ends included.
    pub(super) fn new(querier: &DbQuerier, start_ms: i64, end_ms: i64) -> Self {
        let days = querier.view.catalog.days_in(start_ms, end_ms);
        let lists = days.iter().flat_map(|d| &d.layouts);
        let overlaps = |l: &&Arc<LayoutStripes>| l.min_ms <= end_ms && l.max_ms >= start_ms;
        let source = |list: &Arc<LayoutStripes>| Source {
            list: Arc::clone(list),
            stripes: None,
            axis: usize::MAX,
        };
        Self {
            start_ms,
            end_ms,
            sources: lists.filter(overlaps).map(source).collect(),
            axes: Vec::new(),
            axis_places: HashMap::new(),
            axis: usize::MAX,
            chain_bytes: 0,
            kept_bytes: 0,
            pieces: Vec::new(),
            parts: Vec::new(),
            names: Vec::new(),
            wanted: Vec::new(),
            open_times: Vec::new(),
            decoded: DecodedColumn::default(),
            first: None,
        }
    }

    /// Whether this scan is of that range.
    pub(super) const fn is_of(&self, start_ms: i64, end_ms: i64) -> bool {
        self.start_ms == start_ms && self.end_ms == end_ms
    }

    /// Appends the samples of a series to `out`, which is empty.
    pub(super) fn read(
        &mut self,
        querier: &DbQuerier,
        id: u32,
        need: Need,
        out: &mut Column,
    ) -> Result<(), ReadError> {
        self.find_pieces(querier, id)?;
        if self.pieces.is_empty() {
            return Ok(());
        }
        self.parts.clear();
        self.names.clear();
        self.open_times.clear();
        self.first = None;
        let mut is_named = true;
        out.integral = true;
        let mut at = 0;
        while at < self.pieces.len() {
            let Piece { column, place, .. } = self.pieces[at];
            match place {
                Place::Sealed(source, stripe) => {
                    let stripes = stripe..stripe + self.run_len(at);
                    at += stripes.len();
                    if need == Need::Values
                        && self.append_joined(querier, id, source, stripes.clone(), column, out)?
                    {
                        continue;
                    }
                    for stripe in stripes {
                        self.append_sealed(&querier.inner, (source, stripe), column, need, out)?;
                    }
                }
                Place::Open(part) => {
                    is_named &= self.append_open(querier, &querier.open()[part], column, out);
                    at += 1;
                }
            }
        }
        if !out.starts_ms.is_empty() {
            out.starts_ms.resize(out.floats.len(), 0);
        }
        self.find_axis(querier, is_named, out);
        settle_hints(&mut out.histograms);
        if let (Some(first), Some((0, histogram))) = (&self.first, out.histograms.first_mut()) {
            *histogram = Arc::clone(first);
        }
        Ok(())
    }

    /// Finds where the series has samples, by first timestamp.
    fn find_pieces(&mut self, querier: &DbQuerier, id: u32) -> Result<(), ReadError> {
        self.pieces.clear();
        for (s, source) in self.sources.iter_mut().enumerate() {
            let Some(column) = source.list.layout.column(id) else { continue };
            let stripes = source.open(&querier.inner, self.start_ms, self.end_ms)?;
            self.pieces.extend(stripes.iter().enumerate().map(|(i, stripe)| Piece {
                first_ms: stripe.stripe.min_ms,
                column,
                place: Place::Sealed(s, i),
            }));
        }
        for (i, part) in querier.open().iter().enumerate() {
            let Some(column) = part.layout.column(id) else { continue };
            let rows = part.rows(querier.commit);
            let (Some(&first_ms), Some(&last)) = (rows.times.first(), rows.times.last()) else {
                continue;
            };
            if first_ms <= self.end_ms && last >= self.start_ms {
                self.pieces.push(Piece { first_ms, column, place: Place::Open(i) });
            }
        }
        if !self.pieces.is_sorted_by_key(|p| p.first_ms) {
            self.pieces.sort_by_key(|p| p.first_ms);
        }
        Ok(())
    }

    /// How many pieces from this one on are neighbouring stripes of one source.
    fn run_len(&self, at: usize) -> usize {
        let place = |piece: &Piece| match piece.place {
            Place::Sealed(source, stripe) => Some((source, stripe)),
            Place::Open(_) => None,
        };
        let follows = |pair: &[Piece]| match (place(&pair[0]), place(&pair[1])) {
            (Some((source, stripe)), Some(next)) => next == (source, stripe + 1),
            _ => false,
        };
        1 + self.pieces[at..].windows(2).take_while(|pair| follows(pair)).count()
    }

    /// Appends the floats of neighbouring stripes from what is kept of them;
    /// `false` if they are not kept, nor worth it.
    fn append_joined(
        &mut self,
        querier: &DbQuerier,
        id: u32,
        source: usize,
        places: Range<usize>,
        column: usize,
        out: &mut Column,
    ) -> Result<bool, ReadError> {
        let inner = &*querier.inner;
        let Source { list, stripes, .. } = &mut self.sources[source];
        let stripes = stripes.as_mut().expect("opened for its pieces");
        let stripes = &mut stripes[places.clone()];
        let last = stripes.len() - 1;
        // Rows are cut at both ends of all only: stripes with late samples overlap
        // others.
        let fits = |(i, s): (usize, &ScanStripe)| {
            let rows = s.rows_of(column, self.start_ms, self.end_ms);
            s.header.is_floats(column)
                && (i == 0 || rows.start == 0)
                && (i == last || rows.end == s.header.axis_of(column).len())
        };
        let Some(first_stripe) = list.stripes.first() else { return Ok(false) };
        if !stripes.iter().enumerate().all(fits) {
            return Ok(false);
        }
        self.wanted.clear();
        let names = stripes.iter().map(|s| (s.stripe.id, s.header.pattern_of(column)));
        self.wanted.extend(names);
        let key = (id, first_stripe.id);
        let kept = inner.columns.get(key);
        let overlap = kept.as_ref().map_or(Overlap::None, |kept| kept.overlap(&self.wanted));
        let (joined, from) = match (kept, overlap) {
            (Some(kept), Overlap::Inside(from)) => (kept, from),
            (kept, overlap) => {
                // A scan that would push out what it has kept itself keeps no more.
                let is_worth = || self.kept_bytes < inner.columns.limit_bytes() / 2;
                if kept.is_none() && !(is_worth() && inner.asked_columns.again(key)) {
                    return Ok(false);
                }
                let mut joined = Joined::default();
                let (before, behind, cut) = match overlap {
                    Overlap::Around(before, after) => (before, stripes.len() - after, 0),
                    Overlap::Behind(from) => {
                        let rest = kept.as_ref().map_or(0, |kept| kept.len() - from);
                        (0, rest, if from > MUCH * stripes.len() { from } else { 0 })
                    }
                    _ => (0, 0, 0),
                };
                let from = match overlap {
                    Overlap::Behind(from) => from - cut,
                    _ => 0,
                };
                let (chain_bytes, decoded) = (&mut self.chain_bytes, &mut self.decoded);
                for (i, stripe) in stripes.iter_mut().enumerate() {
                    if i == before
                        && let Some(kept) = kept.as_ref().filter(|_| behind > before)
                    {
                        joined.push_all(kept, cut);
                    }
                    if !(before..behind).contains(&i)
                        && stripe.join(inner, column, chain_bytes, decoded, &mut joined)?.is_none()
                    {
                        return Ok(false);
                    }
                }
                joined.shrink();
                let joined = Arc::new(joined);
                let bytes = joined.heap_bytes();
                self.kept_bytes += bytes;
                inner.columns.insert(key, Arc::clone(&joined), bytes);
                (joined, from)
            }
        };
        let (mut skip, mut leave) = (0, 0);
        for (i, scan) in stripes.iter().enumerate() {
            let rows = scan.rows_of(column, self.start_ms, self.end_ms);
            let all = scan.header.axis_of(column).len();
            skip += if i == 0 { rows.start } else { 0 };
            leave += if i == last { all - rows.end } else { 0 };
            if !rows.is_empty() {
                self.names.push(self.wanted[i]);
                let stripe = places.start + i;
                self.parts.push(Part::Sealed { source, stripe, column, rows });
            }
        }
        let found = joined.append(from, stripes.len(), (skip, leave), &mut out.floats);
        out.integral &= found.0;
        out.may_be_stale |= found.1;
        Ok(true)
    }

    /// Appends a sealed column; nothing if it is damaged.
    fn append_sealed(
        &mut self,
        inner: &Inner,
        (source, stripe): (usize, usize),
        column: usize,
        need: Need,
        out: &mut Column,
    ) -> Result<(), ReadError> {
        let stripes = self.sources[source].stripes.as_mut().expect("opened for its pieces");
        let scan = &mut stripes[stripe];
        let rows = scan.rows_of(column, self.start_ms, self.end_ms);
        if rows.is_empty() {
            return Ok(());
        }
        let is_partial = rows.len() < scan.header.axis_of(column).len();
        let name = (scan.stripe.id, scan.header.pattern_of(column));
        let Some(run) = scan.run(inner, column)? else { return Ok(()) };
        let base = out.floats.len();
        let (range, bytes) = scan.runs[run].as_ref().expect("just loaded");
        let place = range.bytes.clone();
        let is_read = if need == Need::Presence
            && scan.header.is_surely_present(column, range, bytes)
        {
            out.floats.resize(base + rows.len(), 0.0);
            true
        } else if scan.header.is_plain(column) {
            let decoded = scan.header.decode_plain(column, range, bytes, &mut out.floats);
            if let Ok(decoded) = decoded {
                out.integral &= decoded.integral;
                out.may_be_stale |= decoded.may_be_stale;
                if is_partial {
                    out.floats.truncate(base + rows.end);
                    out.floats.drain(base..base + rows.start);
                }
            }
            decoded.is_ok()
        } else if scan.header.has_sibling(column) {
            let column = scan.chained(run, column, &mut self.chain_bytes, &mut self.decoded);
            column.inspect(|c| append_decoded(c, &rows, &mut self.first, out)).is_some()
        } else {
            let decoded = scan.header.decode_column(column, range, bytes, &mut self.decoded);
            decoded.inspect(|()| append_decoded(&self.decoded, &rows, &mut self.first, out)).is_ok()
        };
        if is_read {
            self.names.push(name);
            self.parts.push(Part::Sealed { source, stripe, column, rows });
        } else {
            let at = scan.stripe.payload_at(place.start);
            let length = u64::from(place.end - place.start);
            inner.report(damage_of(&scan.stripe, at, length, "a column cannot be decoded"));
        }
        Ok(())
    }

    /// Appends a column of open rows; whether the series is in all of them.
    fn append_open(
        &mut self,
        querier: &DbQuerier,
        part: &OpenPart,
        column: usize,
        out: &mut Column,
    ) -> bool {
        let rows = part.rows(querier.commit);
        let within = rows_within(&rows.times, self.start_ms, self.end_ms);
        let before = self.open_times.len();
        if out.floats.is_empty() && within.start > 0 {
            let at = |row: usize| rows.rows.get(row)?.histogram(column);
            self.first = hinted(at(within.start - 1), at(within.start));
        }
        push_open(rows, within.clone(), column, &mut self.open_times, out);
        let times = before..self.open_times.len();
        let is_whole = times.len() == within.len();
        if !times.is_empty() {
            self.names.push((part.stripe.id, 0));
            self.parts.push(Part::Open(times));
        }
        is_whole
    }

    /// Gives the column its axis: the same for all series with the same pieces.
    fn find_axis(&mut self, querier: &DbQuerier, is_named: bool, out: &mut Column) {
        let first = self.pieces.first().and_then(|p| match p.place {
            Place::Sealed(source, _) => Some(source),
            Place::Open(_) => None,
        });
        if is_named {
            let hint = first.map_or(self.axis, |s| self.sources[s].axis);
            let place = match self.axes.get(hint) {
                Some((names, _)) if *names == self.names => Some(hint),
                _ => self.axis_places.get(&self.names).copied(),
            };
            if let Some(place) = place {
                match first {
                    Some(first) => self.sources[first].axis = place,
                    None => self.axis = place,
                }
                out.axis = Arc::clone(&self.axes[place].1);
                out.range = 0..out.axis.len();
                return;
            }
        }
        let mut times = self.joined_times();
        let overlaps = !times.is_sorted_by(|a, b| a < b);
        if overlaps {
            merge_overlaps(&mut times, out);
        }
        out.axis = querier.intern(&times);
        out.range = 0..out.axis.len();
        if is_named && !overlaps {
            self.axis_places.insert(self.names.clone(), self.axes.len());
            self.axes.push((self.names.clone(), Arc::clone(&out.axis)));
        }
    }

    fn joined_times(&self) -> Vec<i64> {
        let mut times = Vec::new();
        for part in &self.parts {
            match part {
                Part::Sealed { source, stripe, column, rows } => {
                    let stripes = self.sources[*source].stripes.as_ref();
                    let stripe = &stripes.expect("opened for its pieces")[*stripe];
                    times.extend_from_slice(&stripe.header.axis_of(*column)[rows.clone()]);
                }
                Part::Open(range) => times.extend_from_slice(&self.open_times[range.clone()]),
            }
        }
        times
    }
}

impl Source {
    /// The stripes of the range; those with damaged headers are left out.
    fn open(
        &mut self,
        inner: &Inner,
        start_ms: i64,
        end_ms: i64,
    ) -> Result<&[ScanStripe], ReadError> {
        if self.stripes.is_none() {
            let mut stripes = Vec::new();
            for stripe in self.list.stripes_in(start_ms, end_ms) {
                if let Some(header) = inner.header_of(stripe)? {
                    stripes.push(ScanStripe {
                        stripe: stripe.clone(),
                        rows: rows_within(&header.times, start_ms, end_ms),
                        header,
                        runs: Default::default(),
                        next_run: 0,
                        chains: HashMap::new(),
                    });
                }
            }
            self.stripes = Some(stripes);
        }
        Ok(self.stripes.as_deref().unwrap_or_default())
    }
}

impl ScanStripe {
    /// The rows of a column within the scan's range.
    fn rows_of(&self, column: usize, start_ms: i64, end_ms: i64) -> Range<usize> {
        if self.header.pattern_of(column) == 0 {
            self.rows.clone()
        } else {
            rows_within(self.header.axis_of(column), start_ms, end_ms)
        }
    }

    /// Decodes all of a column of floats; `None` if it is damaged.
    fn join(
        &mut self,
        inner: &Inner,
        column: usize,
        chain_bytes: &mut usize,
        scratch: &mut DecodedColumn,
        joined: &mut Joined,
    ) -> Result<Option<()>, ReadError> {
        let name = (self.stripe.id, self.header.pattern_of(column));
        let Some(run) = self.run(inner, column)? else { return Ok(None) };
        if self.header.has_sibling(column) {
            let Some(decoded) = self.chained(run, column, chain_bytes, scratch) else {
                return Ok(None);
            };
            return Ok(joined.push(name, |out| {
                out.extend_from_slice(&decoded.floats);
                Some((decoded.integral, decoded.may_be_stale))
            }));
        }
        let (range, bytes) = self.runs[run].as_ref().expect("just loaded");
        Ok(joined.push(name, |out| {
            let decoded = self.header.decode_plain(column, range, bytes, out).ok()?;
            Some((decoded.integral, decoded.may_be_stale))
        }))
    }

    /// The place of the run with a column's chunk; `None` if it is damaged.
    fn run(&mut self, inner: &Inner, column: usize) -> Result<Option<usize>, ReadError> {
        let has = |run: &Option<(RunRange, _)>| {
            run.as_ref().is_some_and(|(range, _)| range.columns.contains(&column))
        };
        if let Some(place) = self.runs.iter().position(has) {
            return Ok(Some(place));
        }
        let Some(range) = self.header.run_of(column) else { return Ok(None) };
        let Some(bytes) = inner.load_run(&self.stripe, &range)? else {
            return Ok(None);
        };
        let place = self.next_run;
        self.runs[place] = Some((range, bytes));
        self.next_run = (place + 1) % RUNS;
        Ok(Some(place))
    }

    /// A column that builds on others: all that do are decoded and kept, as
    /// they will be asked for. `None` if they are damaged.
    fn chained<'s>(
        &'s mut self,
        run: usize,
        column: usize,
        kept_bytes: &mut usize,
        scratch: &'s mut DecodedColumn,
    ) -> Option<&'s DecodedColumn> {
        if !self.chains.contains_key(&column) {
            let (range, bytes) = self.runs[run].as_ref()?;
            let columns = self.header.chain_of(column, range, bytes)?;
            let rows = self.header.axis_of(column).len();
            let size = columns.len() * (rows * 8 + size_of::<DecodedColumn>());
            if *kept_bytes + size > MAX_CHAIN_BYTES {
                self.header.decode_column(column, range, bytes, scratch).ok()?;
                return Some(scratch);
            }
            let decoded = self.header.decode_chain(&columns, range, bytes)?;
            *kept_bytes += size;
            let chain = Arc::new(Chain { columns, decoded });
            self.chains.extend(chain.columns.iter().map(|c| (*c, Arc::clone(&chain))));
        }
        let chain = self.chains.get(&column)?;
        chain.decoded.get(chain.columns.binary_search(&column).ok()?)
    }
}

/// The part of ascending times within a range whose ends are included.
fn rows_within(times: &[i64], start_ms: i64, end_ms: i64) -> Range<usize> {
    let from = times.partition_point(|t| *t < start_ms);
    from..times.partition_point(|t| *t <= end_ms).max(from)
}

/// Appends these rows of a decoded column.
fn append_decoded(
    decoded: &DecodedColumn,
    rows: &Range<usize>,
    first: &mut Option<Arc<Histogram>>,
    out: &mut Column,
) {
    let base = out.floats.len();
    if base == 0 && rows.start > 0 && !decoded.histograms.is_empty() {
        let at = |row: usize| {
            let found = decoded.histograms.binary_search_by_key(&row, |(at, _)| *at as usize);
            found.ok().map(|i| &decoded.histograms[i].1)
        };
        *first = hinted(at(rows.start - 1), at(rows.start));
    }
    out.floats.extend_from_slice(&decoded.floats[rows.clone()]);
    let histograms = decoded.histograms.iter().filter(|(at, _)| rows.contains(&(*at as usize)));
    out.histograms.extend(histograms.map(|(at, h)| {
        let place = base + *at as usize - rows.start;
        (place as u32, Arc::clone(h))
    }));
    if !decoded.starts_ms.is_empty() {
        out.starts_ms.resize(base, 0);
        out.starts_ms.extend_from_slice(&decoded.starts_ms[rows.clone()]);
    }
    out.may_be_stale |= decoded.may_be_stale;
    out.integral &= decoded.integral;
}

/// A histogram with the hint that it has behind the one before.
fn hinted(
    before: Option<&Arc<Histogram>>,
    histogram: Option<&Arc<Histogram>>,
) -> Option<Arc<Histogram>> {
    let mut both = [(0, Arc::clone(before?)), (1, Arc::clone(histogram?))];
    settle_hints(&mut both);
    let [_, (_, histogram)] = both;
    Some(histogram)
}

/// Appends these rows of a column of open rows, and their times.
fn push_open(
    rows: &OpenRows,
    within: Range<usize>,
    column: usize,
    times: &mut Vec<i64>,
    out: &mut Column,
) {
    times.reserve(within.len());
    out.floats.reserve(within.len());
    let (mut stale, mut integral) = (out.may_be_stale, out.integral);
    for (&time, row) in rows.times[within.clone()].iter().zip(&rows.rows[within]) {
        // Nearly all rows hold floats and nothing else.
        let value = if let Some(value) = row.plain_value(column) {
            value
        } else {
            let value = if row.has(column) {
                row.value(column)
            } else if let Some(histogram) = row.histogram(column) {
                stale |= histogram.is_stale();
                out.histograms.push((out.floats.len() as u32, Arc::clone(histogram)));
                0.0
            } else {
                continue;
            };
            let start_ms = row.start_ms(column);
            if start_ms != 0 {
                out.starts_ms.resize(out.floats.len(), 0);
                out.starts_ms.push(start_ms);
            }
            value
        };
        times.push(time);
        stale |= crate::sample::is_stale(value);
        integral &= is_integral(value);
        out.floats.push(value);
    }
    (out.may_be_stale, out.integral) = (stale, integral);
}

/// Whether a float is an integer of at most 2^53.
fn is_integral(value: f64) -> bool {
    value.abs() <= 9_007_199_254_740_992.0 && value as i64 as f64 == value
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
