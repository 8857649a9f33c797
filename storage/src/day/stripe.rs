//! How are the rows of one axis written as columns?
//!
//! ```text
//! stripe   = "NXST", u32 header length, u32 CRC-32 of the header, header, payload
//! header   = u8 version (2), u8 flags (0), varint stripe id,
//!            varint rows, varint columns, varint payload length,
//!            varint axis length, axis (codec::encode_axis),
//!            id runs: series of the columns,
//!            varint patterns, per pattern presence runs (codec::encode_runs),
//!            column kinds: until all columns are named, varint columns,
//!                          varint pattern << 3 | flags
//!            per column: varint chunk length
//!            varint checksums, per checksum varint columns, u32 CRC-32 of their chunks
//! payload  = the chunks, in order of the columns
//! chunk    = [histograms] [starts] floats
//! histograms (flag 2) = presence runs within the samples, histogram::codec::encode
//! starts (flag 4)     = per sample signed difference to the start before
//! floats   = codec::encode of the other samples; with flag 1 against those of
//!            its sibling: the nearest column to the left under the same checksum
//!            that has no flag 2 or 4 and suits (codec::suits_as_sibling)
//! ```
//!
//! Pattern 0 is "in every row" and not written. Integers are little-endian.
//! Columns are in the order of the exposition, so that buckets of a histogram
//! are neighbours, and its count is not far from the last of them. In version 1
//! the sibling was always the column before.

use std::ops::Range;
use std::sync::Arc;

use crate::axis::Layout;
use crate::codec;
use crate::engine::varint;
use crate::head::open::OpenRows;
use crate::histogram::{self, Histogram};
use crate::read::Axis;

/// First bytes of a stripe.
pub(crate) const MAGIC: [u8; 4] = *b"NXST";
/// Bytes before the header: magic, length, checksum.
pub(crate) const PREFIX_BYTES: usize = 12;
/// Largest header.
pub(crate) const MAX_HEADER_BYTES: usize = 16 << 20;
/// Most rows of one stripe.
pub(crate) const MAX_ROWS: usize = 1 << 18;
/// Most columns of one stripe.
pub(crate) const MAX_COLUMNS: usize = 1 << 16;
/// Largest payload.
const MAX_PAYLOAD_BYTES: usize = 1 << 30;
const VERSION: u8 = 2;
/// Chunks under one checksum: until they are this long.
const RUN_BYTES: usize = 4 << 10;
/// The same where columns could go on building on those before.
const MAX_RUN_BYTES: usize = 2 * RUN_BYTES;
/// Longest chain of chunks that build on each other.
const MAX_CHAIN: usize = 16;

const SIBLING: u64 = 1;
const HISTOGRAMS: u64 = 2;
const STARTS: u64 = 4;

/// The samples of one series in one stripe, before encoding.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples {
    /// Rows with a sample, ascending.
    pub(crate) rows: Vec<u32>,
    /// Floats of the samples that are no histograms.
    pub(crate) floats: Vec<f64>,
    /// Position within `rows` and histogram.
    pub(crate) histograms: Vec<(u32, Arc<Histogram>)>,
    /// Start timestamps, one per sample; empty if none is known.
    pub(crate) starts_ms: Vec<i64>,
}

impl Samples {
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.floats.clear();
        self.histograms.clear();
        self.starts_ms.clear();
    }

    /// Notes the start timestamp of the sample whose row is pushed next.
    pub(crate) fn push_start(&mut self, start_ms: i64) {
        if start_ms != 0 && self.starts_ms.is_empty() {
            self.starts_ms.resize(self.rows.len(), 0);
        }
        if start_ms != 0 || !self.starts_ms.is_empty() {
            self.starts_ms.push(start_ms);
        }
    }
}

/// A stripe as bytes, and what the catalog says of it.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) layout: Layout,
    pub(crate) times: Vec<i64>,
    pub(crate) header_bytes: u32,
    pub(crate) samples: u64,
    pub(crate) chunks: u64,
}

/// Builds a stripe column by column.
#[derive(Debug)]
pub(crate) struct StripeBuilder {
    times: Vec<i64>,
    ids: Vec<u32>,
    patterns: Vec<Vec<u32>>,
    kinds: Vec<u64>,
    lengths: Vec<u32>,
    checksums: Vec<(u32, u32)>,
    payload: Vec<u8>,
    run_start: usize,
    run_columns: u32,
    left: Option<Left>,
    left_floats: Vec<f64>,
    samples: u64,
    encoder: codec::Encoder,
}

/// The nearest column that can be a sibling; its floats are kept beside.
#[derive(Debug, Clone, Copy)]
struct Left {
    pattern: u64,
    /// Columns that it builds on.
    chain: usize,
}

impl StripeBuilder {
    /// A stripe over these timestamps.
    pub(crate) fn new(times: Vec<i64>) -> Self {
        Self {
            times,
            ids: Vec::new(),
            patterns: Vec::new(),
            kinds: Vec::new(),
            lengths: Vec::new(),
            checksums: Vec::new(),
            payload: Vec::new(),
            run_start: 0,
            run_columns: 0,
            left: None,
            left_floats: Vec::new(),
            samples: 0,
            encoder: codec::Encoder::new(),
        }
    }

    /// Adds a column; one without samples is left out.
    pub(crate) fn add(&mut self, id: u32, samples: &Samples) {
        if samples.rows.is_empty() {
            return;
        }
        let pattern = self.pattern(&samples.rows);
        let start = self.payload.len();
        if start - self.run_start >= MAX_RUN_BYTES {
            self.end_run(start);
        }
        let mut flags = 0;
        if !samples.histograms.is_empty() {
            flags |= HISTOGRAMS;
            put_histograms(&samples.histograms, &mut self.payload);
        }
        if !samples.starts_ms.is_empty() {
            flags |= STARTS;
            let mut before = 0i64;
            for &start_ms in &samples.starts_ms {
                varint::put_signed(&mut self.payload, start_ms.wrapping_sub(before));
                before = start_ms;
            }
        }
        let floats = self.payload.len();
        let left = self.left.filter(|l| {
            flags == 0 && l.pattern == pattern && l.chain < MAX_CHAIN && samples.floats.len() > 1
        });
        let sibling = left.map(|_| &self.left_floats[..]);
        self.encoder.encode(&samples.floats, sibling, &mut self.payload);
        let chunk = &self.payload[floats..];
        let mut chain = 0;
        if codec::needs_sibling(chunk) {
            flags |= SIBLING;
            chain = left.map_or(0, |l| l.chain) + 1;
        }
        let is_left = flags & !SIBLING == 0 && codec::suits_as_sibling(chunk);
        if flags & SIBLING == 0 && start - self.run_start >= RUN_BYTES {
            self.end_run(start);
        }
        if is_left {
            self.left = Some(Left { pattern, chain });
            self.left_floats.clear();
            self.left_floats.extend_from_slice(&samples.floats);
        }
        self.run_columns += 1;
        self.ids.push(id);
        self.kinds.push(pattern << 3 | flags);
        self.lengths.push((self.payload.len() - start) as u32);
        self.samples += samples.rows.len() as u64;
    }

    fn pattern(&mut self, rows: &[u32]) -> u64 {
        if rows.len() == self.times.len() {
            return 0;
        }
        // Recent patterns first: neighbours come and go together.
        if let Some(at) = self.patterns.iter().rposition(|p| p == rows) {
            return at as u64 + 1;
        }
        self.patterns.push(rows.to_vec());
        self.patterns.len() as u64
    }

    fn end_run(&mut self, end: usize) {
        if self.run_columns > 0 {
            let crc = crc32fast::hash(&self.payload[self.run_start..end]);
            self.checksums.push((self.run_columns, crc));
        }
        self.run_columns = 0;
        self.run_start = end;
        // A column builds on others under its own checksum only.
        self.left = None;
    }

    /// The stripe; `None` if no column has a sample.
    pub(crate) fn finish(mut self, stripe_id: u64) -> Option<Encoded> {
        if self.ids.is_empty() {
            return None;
        }
        self.end_run(self.payload.len());
        let mut header = vec![VERSION, 0];
        varint::put(&mut header, stripe_id);
        varint::put(&mut header, self.times.len() as u64);
        varint::put(&mut header, self.ids.len() as u64);
        varint::put(&mut header, self.payload.len() as u64);
        let mut axis = Vec::new();
        codec::encode_axis(&self.times, &mut axis);
        varint::put(&mut header, axis.len() as u64);
        header.extend_from_slice(&axis);
        varint::put_id_runs(&mut header, &self.ids);
        varint::put(&mut header, self.patterns.len() as u64);
        for pattern in &self.patterns {
            codec::encode_runs(&runs_of(pattern), &mut header);
        }
        for kinds in self.kinds.chunk_by(|a, b| a == b) {
            varint::put(&mut header, kinds.len() as u64);
            varint::put(&mut header, kinds[0]);
        }
        for &length in &self.lengths {
            varint::put(&mut header, u64::from(length));
        }
        varint::put(&mut header, self.checksums.len() as u64);
        for (columns, crc) in &self.checksums {
            varint::put(&mut header, u64::from(*columns));
            header.extend_from_slice(&crc.to_le_bytes());
        }
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + header.len() + self.payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&self.payload);
        Some(Encoded {
            bytes,
            layout: Layout::new(&self.ids),
            times: self.times,
            header_bytes: header.len() as u32,
            samples: self.samples,
            chunks: self.ids.len() as u64,
        })
    }
}

fn runs_of(rows: &[u32]) -> Vec<Range<u32>> {
    rows.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..run[run.len() - 1] + 1).collect()
}

fn put_histograms(histograms: &[(u32, Arc<Histogram>)], out: &mut Vec<u8>) {
    let at: Vec<u32> = histograms.iter().map(|(at, _)| *at).collect();
    codec::encode_runs(&runs_of(&at), out);
    let all: Vec<Arc<Histogram>> = histograms.iter().map(|(_, h)| Arc::clone(h)).collect();
    histogram::codec::encode(&all, out);
}

/// Columns that are taken out of the rows together, for the cache's sake.
const BLOCK: usize = 16;

/// Encodes open rows.
pub(crate) fn encode_rows(stripe_id: u64, rows: &OpenRows) -> Option<Encoded> {
    let mut builder = StripeBuilder::new(rows.times.clone());
    let mut block: Vec<Samples> = vec![Samples::default(); BLOCK];
    for (b, ids) in rows.ids.chunks(BLOCK).enumerate() {
        block.iter_mut().for_each(Samples::clear);
        for (i, row) in rows.rows.iter().enumerate() {
            for (column, samples) in (b * BLOCK..b * BLOCK + ids.len()).zip(&mut block) {
                let histogram = row.histogram(column);
                if let Some(h) = histogram {
                    samples.histograms.push((samples.rows.len() as u32, Arc::clone(h)));
                } else if row.has(column) {
                    samples.floats.push(row.value(column));
                } else {
                    continue;
                }
                samples.push_start(row.start_ms(column));
                samples.rows.push(i as u32);
            }
        }
        for (&id, samples) in ids.iter().zip(&block) {
            builder.add(id, samples);
        }
    }
    builder.finish(stripe_id)
}

/// A decoded header: where everything is in the payload.
#[derive(Debug)]
pub(crate) struct Header {
    version: u8,
    pub(crate) stripe_id: u64,
    /// All timestamps.
    pub(crate) times: Axis,
    /// The series of the columns.
    pub(crate) layout: Arc<Layout>,
    pub(crate) payload_bytes: u32,
    /// The timestamps of each pattern but the first.
    axes: Vec<Axis>,
    /// Pattern << 3 | flags of each column.
    kinds: Vec<u32>,
    /// Where each chunk starts in the payload, and the end of the last.
    offsets: Vec<u32>,
    /// First column, CRC-32.
    checksums: Vec<(u32, u32)>,
}

/// Which bytes of the payload must be loaded and checked for a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunRange {
    /// Within the payload.
    pub(crate) bytes: Range<u32>,
    pub(crate) crc: u32,
    /// The columns whose chunks they are.
    pub(crate) columns: Range<usize>,
}

/// Why a stripe cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StripeError {
    #[error("stripe header: {0}")]
    Header(&'static str),
    #[error("version {0} of stripes is not known")]
    Version(u8),
    #[error("chunk of column {0}")]
    Chunk(usize),
}

impl Header {
    /// Decodes the first bytes of a stripe: magic, length, checksum, header.
    ///
    /// # Errors
    ///
    /// `InvalidData`.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn of_start(start: &[u8]) -> std::io::Result<Self> {
        let damaged = || crate::engine::sealed::damaged("stripe header");
        let (prefix, header) = start.split_at_checked(PREFIX_BYTES).ok_or_else(damaged)?;
        let mut fields = prefix;
        let magic = varint::take_bytes(&mut fields, MAGIC.len());
        let (len, crc) = (varint::take_u32(&mut fields), varint::take_u32(&mut fields));
        let is_whole = magic == Some(&MAGIC)
            && len == u32::try_from(header.len()).ok()
            && crc == Some(crc32fast::hash(header));
        let decoded = is_whole.then(|| Self::decode(header).ok()).flatten();
        decoded.ok_or_else(damaged)
    }

    /// Decodes a header whose checksum is right.
    pub(crate) fn decode(mut input: &[u8]) -> Result<Self, StripeError> {
        let version = varint::take_byte(&mut input).ok_or(StripeError::Header("empty"))?;
        if version == 0 || version > VERSION {
            return Err(StripeError::Version(version));
        }
        Self::decode_fields(version, &mut input).ok_or(StripeError::Header("fields"))
    }

    fn decode_fields(version: u8, input: &mut &[u8]) -> Option<Self> {
        varint::take_byte(input)?;
        let stripe_id = varint::take(input)?;
        let rows = varint::take_at_most(input, MAX_ROWS)?;
        let columns = varint::take_at_most(input, MAX_COLUMNS)?;
        let payload_bytes = varint::take_at_most(input, MAX_PAYLOAD_BYTES)? as u32;
        let axis_bytes = varint::take_count(input)?;
        let axis = varint::take_bytes(input, axis_bytes)?;
        let mut times = Vec::new();
        codec::decode_axis(axis, rows, &mut times).ok()?;
        if times.is_empty() || !times.is_sorted_by(|a, b| a < b) {
            return None;
        }
        let mut ids = Vec::new();
        varint::take_id_runs(input, columns, &mut ids)?;
        let mut axes = Vec::new();
        for _ in 0..varint::take_at_most(input, columns)? {
            let mut runs = Vec::new();
            let used = codec::decode_runs(input, rows as u32, &mut runs).ok()?;
            varint::take_bytes(input, used)?;
            let axis: Vec<i64> = runs
                .iter()
                .flat_map(|r| &times[r.start as usize..r.end as usize])
                .copied()
                .collect();
            axes.push(Axis::from(axis));
        }
        let mut kinds = Vec::with_capacity(columns);
        while kinds.len() < columns {
            let count = varint::take_at_most(input, columns - kinds.len())?;
            let kind = varint::take_at_most(input, (axes.len() << 3) + 7)?;
            if count == 0 {
                return None;
            }
            kinds.resize(kinds.len() + count, kind as u32);
        }
        let mut offsets = Vec::with_capacity(columns + 1);
        let mut end = 0u32;
        offsets.push(0);
        for _ in 0..columns {
            end += varint::take_at_most(input, (payload_bytes - end) as usize)? as u32;
            offsets.push(end);
        }
        let mut checksums = Vec::new();
        let mut first = 0;
        for _ in 0..varint::take_at_most(input, columns)? {
            let count = varint::take_at_most(input, columns - first)?;
            checksums.push((first as u32, varint::take_u32(input)?));
            first += count;
        }
        let layout = Arc::new(Layout::new(&ids));
        let fits = ids.len() == columns && first == columns && end == payload_bytes;
        (fits && input.is_empty()).then(|| Self {
            version,
            stripe_id,
            times: Axis::from(times),
            layout,
            payload_bytes,
            axes,
            kinds,
            offsets,
            checksums,
        })
    }

    /// Number of columns.
    pub(crate) const fn columns(&self) -> usize {
        self.kinds.len()
    }

    /// The run of chunks that holds a column and the columns it builds on.
    pub(crate) fn run_of(&self, column: usize) -> Option<RunRange> {
        let at = self.checksums.partition_point(|(first, _)| *first as usize <= column);
        let (first, crc) = *self.checksums.get(at.checked_sub(1)?)?;
        let end = self.checksums.get(at).map_or(self.columns(), |(first, _)| *first as usize);
        let bytes = *self.offsets.get(first as usize)?..*self.offsets.get(end)?;
        Some(RunRange { bytes, crc, columns: first as usize..end })
    }

    /// All runs, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = RunRange> {
        self.checksums.iter().filter_map(|(first, _)| self.run_of(*first as usize))
    }

    /// The timestamps of a column.
    pub(crate) fn axis_of(&self, column: usize) -> &Axis {
        match (self.kinds[column] >> 3).checked_sub(1) {
            None => &self.times,
            Some(pattern) => &self.axes[pattern as usize],
        }
    }

    /// The presence pattern of a column: equal for equal rows.
    pub(crate) fn pattern_of(&self, column: usize) -> u32 {
        self.kinds[column] >> 3
    }

    /// Samples of all columns.
    pub(crate) fn samples(&self) -> u32 {
        let count = (0..self.columns()).map(|c| self.axis_of(c).len()).sum::<usize>();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Decodes a column out of its run, which was checked. One value per
    /// timestamp of [`Header::axis_of`] is in `out`. Chunks that build on
    /// others are decoded with them, so for many columns see
    /// [`Header::chain_of`].
    pub(crate) fn decode_column(
        &self,
        column: usize,
        run: &RunRange,
        bytes: &[u8],
        out: &mut DecodedColumn,
    ) -> Result<(), StripeError> {
        let mut chain = || {
            let mut left = Vec::new();
            for c in self.foundations(column, run, bytes)?.into_iter().rev() {
                std::mem::swap(&mut left, &mut out.floats);
                let chunk = self.chunk(c, run, bytes)?;
                self.decode_chunk(c, chunk, self.has_sibling(c).then_some(&left), out)?;
            }
            Some(())
        };
        chain().ok_or(StripeError::Chunk(column))
    }

    /// Whether a column's chunk is floats alone that need no other column.
    pub(crate) fn is_plain(&self, column: usize) -> bool {
        self.kinds[column] & 7 == 0
    }

    /// Whether a column's chunk is floats without start timestamps.
    pub(crate) fn is_floats(&self, column: usize) -> bool {
        u64::from(self.kinds[column]) & (HISTOGRAMS | STARTS) == 0
    }

    /// Whether a column's chunk says without decoding that all its samples are
    /// floats and none a staleness marker.
    pub(crate) fn is_surely_present(&self, column: usize, run: &RunRange, bytes: &[u8]) -> bool {
        self.is_floats(column) && self.chunk(column, run, bytes).is_some_and(codec::has_no_marks)
    }

    /// Whether a column's chunk builds on another column.
    pub(crate) fn has_sibling(&self, column: usize) -> bool {
        u64::from(self.kinds[column]) & SIBLING != 0
    }

    /// Appends the floats of a column that [is plain](Header::is_plain).
    pub(crate) fn decode_plain(
        &self,
        column: usize,
        run: &RunRange,
        bytes: &[u8],
        out: &mut Vec<f64>,
    ) -> Result<codec::Decoded, StripeError> {
        let mut decode = || {
            let chunk = self.chunk(column, run, bytes)?;
            let decoded = codec::decode_chunk(chunk, self.axis_of(column).len(), None, out).ok()?;
            (decoded.used_bytes == chunk.len()).then_some(decoded)
        };
        decode().ok_or(StripeError::Chunk(column))
    }

    /// The columns that are built on one another, this one among them,
    /// ascending.
    pub(crate) fn chain_of(
        &self,
        column: usize,
        run: &RunRange,
        bytes: &[u8],
    ) -> Option<Vec<usize>> {
        let first = *self.foundations(column, run, bytes)?.last()?;
        let mut chain = vec![first];
        for c in first + 1..run.columns.end {
            if self.has_sibling(c) {
                chain.push(c);
            } else if self.is_foundation(c, run, bytes) {
                break;
            }
        }
        Some(chain)
    }

    /// A column, its sibling, the sibling of that, and so on.
    fn foundations(&self, column: usize, run: &RunRange, bytes: &[u8]) -> Option<Vec<usize>> {
        let mut all = vec![column];
        let mut first = column;
        while self.has_sibling(first) {
            let mut left = (run.columns.start..first).rev();
            first = left.find(|c| self.is_foundation(*c, run, bytes))?;
            if self.pattern_of(first) != self.pattern_of(column) || all.len() > MAX_CHAIN {
                return None;
            }
            all.push(first);
        }
        Some(all)
    }

    /// Whether columns to the right that have a sibling build on this one, or on
    /// one between.
    fn is_foundation(&self, column: usize, run: &RunRange, bytes: &[u8]) -> bool {
        self.version == 1
            || u64::from(self.kinds[column]) & (HISTOGRAMS | STARTS) == 0
                && self.chunk(column, run, bytes).is_some_and(codec::suits_as_sibling)
    }

    fn chunk<'b>(&self, column: usize, run: &RunRange, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let from = self.offsets[column].checked_sub(run.bytes.start)? as usize;
        let to = self.offsets[column + 1].checked_sub(run.bytes.start)? as usize;
        bytes.get(from..to)
    }

    /// Decodes the chunks of a [chain](Header::chain_of), one after the other.
    pub(crate) fn decode_chain(
        &self,
        chain: &[usize],
        run: &RunRange,
        bytes: &[u8],
    ) -> Option<Vec<DecodedColumn>> {
        let mut columns: Vec<DecodedColumn> = Vec::with_capacity(chain.len());
        let mut left: Option<usize> = None;
        for (i, &c) in chain.iter().enumerate() {
            let mut out = DecodedColumn::default();
            let sibling = left.filter(|_| self.has_sibling(c)).map(|l| &columns[l].floats);
            self.decode_chunk(c, self.chunk(c, run, bytes)?, sibling, &mut out)?;
            columns.push(out);
            if self.is_foundation(c, run, bytes) {
                left = Some(i);
            }
        }
        Some(columns)
    }

    fn decode_chunk(
        &self,
        column: usize,
        mut input: &[u8],
        left: Option<&Vec<f64>>,
        out: &mut DecodedColumn,
    ) -> Option<()> {
        let flags = u64::from(self.kinds[column]) & 7;
        let count = self.axis_of(column).len();
        out.clear();
        if flags & HISTOGRAMS != 0 {
            let mut runs = Vec::new();
            let used = codec::decode_runs(input, count as u32, &mut runs).ok()?;
            varint::take_bytes(&mut input, used)?;
            let at: Vec<u32> = runs.into_iter().flatten().collect();
            let mut histograms = Vec::new();
            let used = histogram::codec::decode(input, at.len(), &mut histograms).ok()?;
            varint::take_bytes(&mut input, used)?;
            out.may_be_stale |= histograms.iter().any(|h| h.is_stale());
            out.histograms.extend(at.into_iter().zip(histograms));
        }
        if flags & STARTS != 0 {
            let mut before = 0i64;
            for _ in 0..count {
                before = before.wrapping_add(varint::take_signed(&mut input)?);
                out.starts_ms.push(before);
            }
        }
        let plain = count - out.histograms.len();
        let decoded =
            codec::decode_chunk(input, plain, left.map(Vec::as_slice), &mut out.floats).ok()?;
        if decoded.used_bytes != input.len() {
            return None;
        }
        out.integral = decoded.integral;
        out.may_be_stale |= decoded.may_be_stale;
        if !out.histograms.is_empty() {
            spread(&mut out.floats, &out.histograms, count);
        }
        Some(())
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.times.len() * 8
            + self.layout.heap_bytes()
            + self.axes.iter().map(|a| a.len() * 8 + 64).sum::<usize>()
            + self.kinds.len() * 8
            + self.checksums.len() * 8
            + size_of::<Self>()
    }
}

/// Makes room in `floats` at the positions of histograms.
fn spread(floats: &mut Vec<f64>, histograms: &[(u32, Arc<Histogram>)], count: usize) {
    let mut all = Vec::with_capacity(count);
    let mut plain = floats.iter().copied();
    let mut next = histograms.iter().map(|(at, _)| *at as usize).peekable();
    for at in 0..count {
        all.push(if next.next_if_eq(&at).is_some() { 0.0 } else { plain.next().unwrap_or(0.0) });
    }
    *floats = all;
}

/// The samples of one column of a stripe.
#[derive(Debug, Default)]
pub(crate) struct DecodedColumn {
    pub(crate) floats: Vec<f64>,
    pub(crate) histograms: Vec<(u32, Arc<Histogram>)>,
    pub(crate) starts_ms: Vec<i64>,
    pub(crate) may_be_stale: bool,
    pub(crate) integral: bool,
}

impl DecodedColumn {
    pub(crate) fn clear(&mut self) {
        self.floats.clear();
        self.histograms.clear();
        self.starts_ms.clear();
        self.may_be_stale = false;
        self.integral = false;
    }
}

#[cfg(test)]
mod tests;
