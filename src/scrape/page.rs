//! How does a page become rows? One pass over its lines, with the cache of
//! its target beside it.
//!
//! A known line costs a hash of its series text, whose length is known, and
//! the parsing of its number; that is what dominates, and `benches/scanner.rs`
//! guards it. Everything else (new series, comments, odd spelling, exposed
//! timestamps, errors) goes through the exact parsers of [`super::scanner`].
//!
//! Nothing reaches the storage before the page was read to its end: a page
//! that fails leaves no sample, only ids of series.

use std::collections::HashSet;

use narthex_storage::append::{AppendError, Appender};
use narthex_storage::histogram::Histogram;
use narthex_storage::labels::LabelsBuilder;
use narthex_storage::read::SeriesRef;
use narthex_storage::sample::{Exemplar, MetricKind};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::cache::{Cache, Found, Line, LineText, Walk, WalkBuffers};
use super::labels::{LabelError, LabelRules, Resolved};
use super::scanner::{
    Entry, ParseError, RawLabels, RawSample, float::parse_float, openmetrics, text,
};

/// Explicit timestamps may be this far ahead of the clock.
pub const FUTURE_LIMIT_MS: i64 = 10 * 60 * 1000;

/// Most characters of an exemplar's labels, as OpenMetrics wants it.
pub(super) const EXEMPLAR_CHARS: usize = 128;

/// How the samples of a target are read.
#[derive(Debug)]
pub struct PageRules {
    /// What is done to labels.
    pub labels: LabelRules,
    /// Exposed timestamps are used.
    pub honor_timestamps: bool,
    /// Series with exposed timestamps go stale, too.
    pub track_timestamps_staleness: bool,
    /// Samples after metric relabeling; 0 is no limit.
    pub sample_limit: u64,
    /// Keys the hashes of the cache.
    pub hash_key: u64,
}

/// The samples of one page, and buffers for reading it. Kept by the caller.
#[derive(Debug, Default)]
pub struct Rows {
    /// Series with a sample at the scrape's own timestamp ...
    pub series: Vec<SeriesRef>,
    /// ... and their values.
    pub values: Vec<f64>,
    /// Samples with exposed timestamps.
    pub timed: Vec<(i64, SeriesRef, f64)>,
    /// Those of them that are the first of their series.
    pub first_timed: Vec<(i64, SeriesRef)>,
    /// Timestamps, and since when they count, of further samples ...
    pub started: Vec<(i64, i64, SeriesRef, f64)>,
    /// ... and of native histograms.
    pub histograms: Vec<(i64, i64, SeriesRef, Histogram)>,
    /// Exemplars of the samples above.
    pub exemplars: Vec<(SeriesRef, Exemplar)>,
    /// Series that are gone.
    pub stale: Vec<SeriesRef>,
    /// Hashes of lines with exemplars, and of these exemplars.
    offered: Vec<(u64, u64)>,
    walk: WalkBuffers,
    raw: RawLabels,
}

impl Rows {
    /// Forgets the samples, keeps the allocations.
    pub fn clear(&mut self) {
        self.series.clear();
        self.values.clear();
        self.timed.clear();
        self.first_timed.clear();
        self.started.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.offered.clear();
        self.stale.clear();
    }

    /// Removes second samples of a series at the scrape's own timestamp, and
    /// says how many there were.
    #[cold]
    fn keep_first_samples(&mut self) -> u64 {
        let mut seen = HashSet::new();
        let keep: Vec<bool> = self.series.iter().map(|s| seen.insert(*s)).collect();
        let kept = |i: &mut usize| {
            *i += 1;
            keep[*i - 1]
        };
        let (before, mut i, mut j) = (self.series.len(), 0, 0);
        self.series.retain(|_| kept(&mut i));
        self.values.retain(|_| kept(&mut j));
        (before - self.series.len()) as u64
    }
}

/// What was counted on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Samples on the page, up to the first error.
    pub scraped: u64,
    /// Those that metric relabeling kept.
    pub kept: u64,
    /// Series that were not known before.
    pub added: u64,
    /// Second samples of a series.
    pub duplicates: u64,
    /// Samples too far in the future.
    pub out_of_bounds: u64,
    /// New series that the storage refused for want of memory, or as it cannot
    /// be read or written.
    pub refused: u64,
    /// Types, helps or units may have changed.
    pub metadata_changed: bool,
}

/// Why a page is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The format is not kept.
    #[error("{0}")]
    Parse(ParseError),
    /// A label limit is exceeded.
    #[error("{0}")]
    LabelLimit(String),
    /// More samples than `sample_limit`.
    #[error("sample limit exceeded")]
    SampleLimit,
    /// A native histogram has too many buckets, also at the lowest resolution.
    #[error("histogram bucket limit exceeded")]
    BucketLimit,
    /// The format is not kept, and there are no lines to name.
    #[error("{0}")]
    Exposed(String),
}

/// One page's reading: what it needs, and where its samples go.
///
/// Each of its methods reads a page in one format; what was counted up to an
/// error is in `counts`, and the cache is then as it was before.
/// [`Cache::fail`] is the caller's.
pub struct Reading<'a> {
    /// The scrape's own timestamp, milliseconds since the epoch.
    pub now_ms: i64,
    /// How samples are read.
    pub rules: &'a PageRules,
    /// What the pages before said.
    pub cache: &'a mut Cache,
    /// Where new series come from; gets no samples.
    pub appender: &'a mut dyn Appender,
    /// The samples.
    pub rows: &'a mut Rows,
    /// What was counted.
    pub counts: &'a mut Counts,
}

impl Reading<'_> {
    /// Reads a page in the text format. The page must end with a line end.
    ///
    /// # Errors
    ///
    /// [`PageError`].
    pub fn text(self, page: &[u8]) -> Result<(), PageError> {
        self.lines::<Text>(page)
    }

    /// Reads a page in OpenMetrics text.
    ///
    /// # Errors
    ///
    /// [`PageError`].
    pub fn open_metrics(self, page: &[u8]) -> Result<(), PageError> {
        self.lines::<OpenMetrics>(page)
    }

    fn lines<D: Dialect>(self, page: &[u8]) -> Result<(), PageError> {
        let Self { now_ms, rules, cache, appender, rows, counts } = self;
        let mut raw = std::mem::take(&mut rows.raw);
        let reading = Reading { now_ms, rules, cache, appender, rows: &mut *rows, counts };
        let result = reading.take_in(|intake| intake.lines::<D>(page, &mut raw));
        rows.raw = raw;
        result
    }

    /// Has a page read by `read`; what it took in is kept only if it succeeds.
    pub(super) fn take_in(
        self,
        read: impl FnOnce(&mut Intake<'_>) -> Result<(), PageError>,
    ) -> Result<(), PageError> {
        let Self { now_ms, rules, cache, appender, rows, counts } = self;
        rows.clear();
        let mut buffers = std::mem::take(&mut rows.walk);
        let result = {
            let kind = MetricKind::Unknown;
            let walk = cache.walk(&mut buffers);
            let limited = false;
            let mut intake = Intake { walk, rules, now_ms, appender, rows, counts, kind, limited };
            match read(&mut intake).and_then(|()| intake.end()) {
                Ok(()) => {
                    let Intake { walk, rows, counts, .. } = intake;
                    // A series that got an exposed timestamp went stale, unless it has both.
                    if !rows.stale.is_empty() {
                        let sampled: HashSet<SeriesRef> = rows.series.iter().copied().collect();
                        rows.stale.retain(|s| !sampled.contains(s));
                    }
                    let finished = walk.finish(&mut rows.stale);
                    counts.metadata_changed = finished.comments_changed;
                    if finished.respelled {
                        counts.duplicates += rows.keep_first_samples();
                    }
                    Ok(())
                }
                Err(e) => {
                    intake.rows.clear();
                    Err(e)
                }
            }
        };
        rows.walk = buffers;
        if result.is_ok() && !rows.offered.is_empty() {
            cache.offered(&rows.offered);
        }
        result
    }
}

/// What differs between the text formats.
trait Dialect {
    /// Where the series text of a line ends, if the line is what it seems.
    ///
    /// A wrong guess is harmless: only texts that the exact parser delimited
    /// get into the cache, and such a text is complete wherever it stands.
    fn series_end(line: &[u8]) -> usize;

    /// Splits the rest of a line into its numbers and its exemplar, from the
    /// `#` on; that is empty if there is none.
    fn split_exemplar(rest: &[u8]) -> (&[u8], &[u8]);

    /// Value, and timestamp if there is one. `None` if they are spelled in any
    /// but the usual way.
    fn number(rest: &[u8]) -> Option<(f64, Option<i64>)>;

    /// The exact parser.
    fn entry<'a>(
        page: &'a [u8],
        at: usize,
        raw: &mut RawLabels,
    ) -> Result<(Entry<'a>, usize), ParseError>;

    /// Whether this line must be left to the exact parser, known or not.
    fn is_special(line: &[u8]) -> bool;

    /// Whether this line says nothing, so that the exact parser would go on to
    /// the next.
    fn is_blank(line: &[u8]) -> bool;
}

struct Text;

impl Dialect for Text {
    fn series_end(line: &[u8]) -> usize {
        // Blanks before a text must not pass for an empty one.
        let blanks = line.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let text = &line[blanks..];
        if text.first() == Some(&b'#') {
            return line.len();
        }
        match memchr::memrchr(b'}', text) {
            Some(brace) => blanks + brace + 1,
            None => memchr::memchr2(b' ', b'\t', text).map_or(line.len(), |at| blanks + at),
        }
    }

    #[inline]
    fn split_exemplar(rest: &[u8]) -> (&[u8], &[u8]) {
        (rest, &[])
    }

    #[inline]
    fn number(rest: &[u8]) -> Option<(f64, Option<i64>)> {
        let rest = rest.strip_prefix(b" ")?;
        let Some(space) = memchr::memchr(b' ', rest) else {
            return Some((parse_float(rest)?, None));
        };
        let timestamp = &rest[space + 1..];
        if timestamp.is_empty() || timestamp.len() > 18 {
            return None;
        }
        let mut t = 0;
        for b in timestamp {
            let digit = b.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            t = t * 10 + i64::from(digit);
        }
        Some((parse_float(&rest[..space])?, Some(t)))
    }

    fn entry<'a>(
        page: &'a [u8],
        at: usize,
        raw: &mut RawLabels,
    ) -> Result<(Entry<'a>, usize), ParseError> {
        text::entry(page, at, raw)
    }

    fn is_special(_: &[u8]) -> bool {
        false
    }

    fn is_blank(line: &[u8]) -> bool {
        line.iter().all(|b| matches!(b, b' ' | b'\t'))
    }
}

struct OpenMetrics;

impl Dialect for OpenMetrics {
    fn series_end(line: &[u8]) -> usize {
        if line.first() == Some(&b'#') {
            return line.len();
        }
        // An exemplar brings braces of its own, behind those of the labels.
        match memchr::memchr2(b'{', b' ', line) {
            Some(at) if line[at] == b' ' => at,
            Some(at) => memchr::memchr(b'}', &line[at..]).map_or(line.len(), |n| at + n + 1),
            None => line.len(),
        }
    }

    #[inline]
    fn split_exemplar(rest: &[u8]) -> (&[u8], &[u8]) {
        match memchr::memchr(b'#', rest) {
            Some(at) if at > 0 && rest[at - 1] == b' ' => (&rest[..at - 1], &rest[at..]),
            _ => (rest, &[]),
        }
    }

    #[inline]
    fn number(rest: &[u8]) -> Option<(f64, Option<i64>)> {
        let rest = rest.strip_prefix(b" ")?;
        // A space would not be part of a number: timestamps fail here.
        Some((parse_float(rest)?, None))
    }

    fn entry<'a>(
        page: &'a [u8],
        at: usize,
        raw: &mut RawLabels,
    ) -> Result<(Entry<'a>, usize), ParseError> {
        openmetrics::entry(page, at, raw)
    }

    fn is_special(line: &[u8]) -> bool {
        line.is_empty() || line.starts_with(b"# EOF")
    }

    fn is_blank(_: &[u8]) -> bool {
        false
    }
}

/// The hash of an exemplar's text.
#[inline]
pub(super) fn hash_of(exemplar: &[u8], key: u64) -> u64 {
    xxh3_64_with_seed(exemplar, key)
}

impl From<String> for PageError {
    fn from(message: String) -> Self {
        Self::Exposed(message)
    }
}

/// What is appended for a sample.
#[derive(Debug)]
pub(super) enum Value {
    Float(f64),
    /// A number, and since when it counts, in milliseconds.
    Started(f64, i64),
    /// The same for a histogram; 0 if that is not known.
    Histogram(Box<Histogram>, i64),
    /// A histogram with too many buckets: it counts, and fails the page.
    TooLarge,
}

/// Reading of one page under way.
pub(super) struct Intake<'a> {
    walk: Walk<'a>,
    rules: &'a PageRules,
    now_ms: i64,
    appender: &'a mut dyn Appender,
    rows: &'a mut Rows,
    counts: &'a mut Counts,
    /// Of the last `TYPE` line.
    kind: MetricKind,
    /// A histogram was too large; from then on no series counts as added.
    limited: bool,
}

impl Intake<'_> {
    pub(super) const fn rules(&self) -> &PageRules {
        self.rules
    }

    pub(super) const fn now_ms(&self) -> i64 {
        self.now_ms
    }

    pub(super) const fn rows(&mut self) -> &mut Rows {
        self.rows
    }

    /// Counts a sample that is not taken.
    pub(super) const fn skip(&mut self) {
        self.counts.scraped += 1;
    }

    /// Notes something that belongs to the page, but is no sample.
    pub(super) fn mark(&mut self, hash: u64) {
        if self.walk.step(hash).is_none() && self.walk.search(hash) == Found::Nothing {
            self.walk.insert(Line::new(LineText::hashed(hash), NO_TYPE, Line::COMMENT));
        }
    }

    /// Finds a sample's series by the hash of its text.
    pub(super) fn look_up(&mut self, hash: u64) -> Found {
        match self.walk.step(hash).copied() {
            Some(line) if line.flags & Line::DUPLICATE != 0 => Found::Again(line),
            Some(line) => Found::Known(line),
            None => self.walk.search(hash),
        }
    }

    fn lines<D: Dialect>(&mut self, page: &[u8], raw: &mut RawLabels) -> Result<(), PageError> {
        let key = self.rules.hash_key;
        let mut at = 0;
        loop {
            while let Some(line) = self.walk.expected()
                && let Some(next) = self.expected::<D>(page, at, line, key)
            {
                self.walk.advance();
                at = next;
            }
            match self.odd::<D>(page, at, raw)? {
                Some(next) => at = next,
                None => return Ok(()),
            }
        }
    }

    /// Takes the line that was here on the last page, if it is a comment or a
    /// plain sample, and gives the start of the next.
    #[inline]
    fn expected<D: Dialect>(
        &mut self,
        page: &[u8],
        at: usize,
        known: Line,
        key: u64,
    ) -> Option<usize> {
        let end = at + usize::from(known.len);
        let is_sample = known.flags & !Line::DROPPED == 0;
        // A text that goes on behind its end is another one.
        let ends_with = if is_sample { b' ' } else { b'\n' };
        if known.len == 0 || page.get(end) != Some(&ends_with) {
            return None;
        }
        let text = &page[at..end];
        if xxh3_64_with_seed(text, key) != known.hash {
            return None;
        }
        if is_sample {
            let rest = &page[end..];
            let rest = &rest[..memchr::memchr(b'\n', rest)?];
            let (number, exemplar) = D::split_exemplar(rest);
            let (value, None) = D::number(number)? else { return None };
            if known.flags == 0 {
                if !self.has_exemplar(known.hash, exemplar) {
                    return None;
                }
                self.counts.kept += 1;
                self.rows.series.push(known.series);
                self.rows.values.push(value);
            }
            self.counts.scraped += 1;
            return Some(end + rest.len() + 1);
        }
        // Two lines of five are comments.
        if known.flags != Line::COMMENT || D::is_special(text) {
            return None;
        }
        self.comment(known);
        Some(end + 1)
    }

    /// Any line but those. Gives the start of the next entry, `None` at the
    /// end of the page.
    #[cold]
    fn odd<D: Dialect>(
        &mut self,
        page: &[u8],
        at: usize,
        raw: &mut RawLabels,
    ) -> Result<Option<usize>, PageError> {
        let length = memchr::memchr(b'\n', &page[at..]).unwrap_or(page.len() - at);
        let line = &page[at..at + length];
        let next = (at + length + 1).min(page.len());
        let end = D::series_end(line);
        let hash = xxh3_64_with_seed(&line[..end], self.rules.hash_key);
        if at < page.len() && D::is_blank(line) {
            return Ok(Some(next));
        }
        let mut found = Found::Nothing;
        if !D::is_special(line) && !line.is_empty() {
            found = self.look_up(hash);
        }
        match found {
            Found::Known(known) if known.flags & Line::COMMENT != 0 => {
                self.comment(known);
                return Ok(Some(next));
            }
            Found::Known(known) | Found::Again(known) => {
                if let Some((value, timestamp_ms)) = D::number(&line[end..]) {
                    self.known(found, known, Value::Float(value), timestamp_ms);
                    return Ok(Some(next));
                }
            }
            Found::Nothing => {}
        }
        let (entry, next) = D::entry(page, at, raw).map_err(PageError::Parse)?;
        match entry {
            Entry::End => return Ok(None),
            Entry::Type(_, kind) => {
                self.kind = kind;
                let series = SeriesRef(type_code(kind));
                self.walk.insert(Line::new(LineText::new(hash, end), series, Line::COMMENT));
            }
            Entry::Help(..) | Entry::Unit(..) | Entry::Comment => {
                self.walk.insert(Line::new(LineText::new(hash, end), NO_TYPE, Line::COMMENT));
            }
            Entry::Sample(sample) => {
                let rest = &page[sample.series.end..next];
                let exemplar = D::split_exemplar(rest.strip_suffix(b"\n").unwrap_or(rest)).1;
                self.sample(page, at, raw, &sample, found, exemplar)?;
            }
        }
        Ok(Some(next))
    }

    /// A sample whose spelling needed the exact parser.
    fn sample(
        &mut self,
        page: &[u8],
        at: usize,
        raw: &RawLabels,
        sample: &RawSample,
        found: Found,
        exemplar: &[u8],
    ) -> Result<(), PageError> {
        let hash = xxh3_64_with_seed(&page[sample.series.clone()], self.rules.hash_key);
        let found = if found == Found::Nothing { self.walk.search(hash) } else { found };
        match found {
            Found::Known(line) | Found::Again(line) => {
                let series =
                    self.known(found, line, Value::Float(sample.value), sample.timestamp_ms);
                self.exemplar(page, raw, series, sample.timestamp_ms, (hash, exemplar));
                Ok(())
            }
            Found::Nothing => {
                let fail = |message: String| PageError::Parse(ParseError::at(page, at, message));
                let mut labels = LabelsBuilder::new();
                if let Err(message) = raw.resolve(page, self.kind, &mut labels) {
                    self.counts.scraped += 1;
                    return Err(fail(message));
                }
                let empty = raw.empty_names(page);
                let starts_line = sample.series.start == at;
                let text = LineText::new(hash, if starts_line { sample.series.len() } else { 0 });
                let series = self
                    .new_series(
                        text,
                        labels,
                        &empty,
                        Value::Float(sample.value),
                        sample.timestamp_ms,
                    )
                    .map_err(|e| match e {
                        LabelError::Limit(message) => PageError::LabelLimit(message),
                        LabelError::Invalid(message) => fail(message),
                    })?;
                self.exemplar(page, raw, series, sample.timestamp_ms, (hash, exemplar));
                Ok(())
            }
        }
    }

    const fn comment(&mut self, known: Line) {
        if let Some(kind) = type_of(known.series.0) {
            self.kind = kind;
        }
    }

    /// Keeps the exemplar of a sample that was kept, unless it is the one
    /// that the same line had before; `text` is the line's hash and how the
    /// exemplar is spelled.
    fn exemplar(
        &mut self,
        page: &[u8],
        raw: &RawLabels,
        series: Option<SeriesRef>,
        timestamp_ms: Option<i64>,
        text: (u64, &[u8]),
    ) {
        let (Some(series), Some(exemplar)) = (series, &raw.exemplar) else { return };
        if !self.is_new_exemplar(text.0, hash_of(text.1, self.rules.hash_key)) {
            return;
        }
        let labels = exemplar.labels(page);
        let chars: usize = labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
        if chars > EXEMPLAR_CHARS {
            return;
        }
        let timestamp_ms = timestamp_ms.filter(|_| self.rules.honor_timestamps);
        let timestamp_ms = exemplar.timestamp_ms.or(timestamp_ms).unwrap_or(self.now_ms);
        self.rows
            .exemplars
            .push((series, Exemplar { labels, value: exemplar.value, timestamp_ms }));
    }

    /// Whether a line has no exemplar, or the one that it had before.
    #[inline]
    fn has_exemplar(&self, line: u64, exemplar: &[u8]) -> bool {
        exemplar.is_empty() || self.walk.has_exemplar(line, hash_of(exemplar, self.rules.hash_key))
    }

    /// Whether an exemplar differs from the one that a line had before; it is
    /// then taken for offered, if the page is good.
    pub(super) fn is_new_exemplar(&mut self, line: u64, exemplar: u64) -> bool {
        let is_new = !self.walk.has_exemplar(line, exemplar);
        if is_new {
            self.rows.offered.push((line, exemplar));
        }
        is_new
    }

    pub(super) fn known(
        &mut self,
        found: Found,
        line: Line,
        value: Value,
        timestamp_ms: Option<i64>,
    ) -> Option<SeriesRef> {
        self.counts.scraped += 1;
        if line.flags & Line::DROPPED != 0 {
            return None;
        }
        self.counts.kept += 1;
        let timestamp_ms = timestamp_ms.filter(|_| self.rules.honor_timestamps);
        if matches!(found, Found::Again(_)) && timestamp_ms.is_none() {
            self.counts.duplicates += 1;
            return None;
        }
        let untracked = timestamp_ms.is_some() && !self.rules.track_timestamps_staleness;
        if untracked != (line.flags & Line::UNTRACKED != 0) {
            let (set, clear) = if untracked { (Line::UNTRACKED, 0) } else { (0, Line::UNTRACKED) };
            self.walk.flag_last(set, clear);
            // Of a second sample it is not known what the last page had.
            if untracked && self.walk.is_live() && matches!(found, Found::Known(_)) {
                self.rows.stale.push(line.series);
            }
        }
        self.push(line.series, value, timestamp_ms);
        Some(line.series)
    }

    /// Takes a sample; `false` if it is refused.
    fn push(&mut self, series: SeriesRef, value: Value, timestamp_ms: Option<i64>) -> bool {
        if timestamp_ms.is_some_and(|t| t > self.now_ms.saturating_add(FUTURE_LIMIT_MS)) {
            self.counts.out_of_bounds += 1;
            return false;
        }
        match (value, timestamp_ms) {
            (Value::Float(value), None) => {
                self.rows.series.push(series);
                self.rows.values.push(value);
            }
            (Value::Float(value), Some(t)) => self.rows.timed.push((t, series, value)),
            (Value::Started(value, start_ms), t) => {
                self.rows.started.push((t.unwrap_or(self.now_ms), start_ms, series, value));
            }
            (Value::Histogram(histogram, start_ms), t) => {
                let t = t.unwrap_or(self.now_ms);
                self.rows.histograms.push((t, start_ms, series, *histogram));
            }
            (Value::TooLarge, _) => {
                self.limited = true;
                return false;
            }
        }
        true
    }

    pub(super) fn new_series(
        &mut self,
        text: LineText,
        labels: LabelsBuilder,
        empty: &[String],
        value: Value,
        timestamp_ms: Option<i64>,
    ) -> Result<Option<SeriesRef>, LabelError> {
        self.counts.scraped += 1;
        let labels = match self.rules.labels.resolve(labels, empty)? {
            Resolved::Series(labels) => labels,
            Resolved::Dropped => {
                self.walk.insert(Line::new(text, NO_TYPE, Line::DROPPED));
                return Ok(None);
            }
        };
        self.counts.kept += 1;
        let is_new = self.walk.is_new(text.hash);
        if self.over_limit() {
            self.walk.note_failed(text.hash);
            return Ok(None);
        }
        let series = match self.appender.series(&labels) {
            Ok(series) => series,
            // Tried again with the next page.
            Err(AppendError::SeriesLimit | AppendError::Storage) => {
                self.counts.refused += 1;
                return Ok(None);
            }
            Err(e) => return Err(LabelError::Invalid(format!("{e}: {labels}"))),
        };
        let timestamp_ms = timestamp_ms.filter(|_| self.rules.honor_timestamps);
        let untracked = timestamp_ms.is_some() && !self.rules.track_timestamps_staleness;
        let flags = if untracked { Line::UNTRACKED } else { 0 };
        self.walk.insert(Line::new(text, series, flags));
        let taken = self.push(series, value, timestamp_ms);
        if taken && is_new && !self.limited {
            self.counts.added += 1;
            if let Some(t) = timestamp_ms {
                self.rows.first_timed.push((t, series));
            }
        }
        Ok(Some(series))
    }

    /// Whether the samples so far are more than the scrape may have. New
    /// series are then no longer made; parsing goes on for the counts.
    const fn over_limit(&self) -> bool {
        let limit = self.rules.sample_limit;
        limit > 0 && self.counts.kept - self.counts.duplicates > limit
    }

    const fn end(&self) -> Result<(), PageError> {
        if self.over_limit() { Err(PageError::SampleLimit) } else { Ok(()) }
    }
}

/// In place of a series where a line has none.
const NO_TYPE: SeriesRef = SeriesRef(u32::MAX);

const KINDS: [MetricKind; 8] = [
    MetricKind::Counter,
    MetricKind::Gauge,
    MetricKind::Histogram,
    MetricKind::GaugeHistogram,
    MetricKind::Summary,
    MetricKind::Info,
    MetricKind::StateSet,
    MetricKind::Unknown,
];

fn type_code(kind: MetricKind) -> u32 {
    (0..).zip(KINDS).find(|(_, k)| *k == kind).map_or(u32::MAX, |(code, _)| code)
}

const fn type_of(code: u32) -> Option<MetricKind> {
    if (code as usize) < KINDS.len() { Some(KINDS[code as usize]) } else { None }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
