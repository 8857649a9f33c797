//! From a page to the storage: samples, staleness markers and the report of
//! the scrape, as one row.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use narthex_storage::append::{AppendError, Appendable, Appender, SourceId, SyncClass};
use narthex_storage::labels::{Labels, METRIC_NAME};
use narthex_storage::read::SeriesRef;
use narthex_storage::sample::stale_nan;

use super::cache::Cache;
use super::exposed::{ExposedRules, protobuf_metadata};
use super::metadata::{self, Interner};
use super::metrics::ScrapeMetrics;
use super::negotiation::Format;
use super::page::{Counts, PageError, PageRules, Reading, Rows};
use super::target::Target;

/// Buffers of a thread larger than this many samples are not kept.
const KEPT_SAMPLES: usize = 1 << 18;

/// The series that report on each scrape, with their help.
const REPORT: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];

/// How many of them are always there.
const REPORT_ALWAYS: usize = 5;

/// Which one counts new series.
const REPORT_ADDED: usize = 4;

thread_local! {
    /// A page is read without waiting, so each thread needs one set of buffers.
    static BUFFERS: RefCell<(Rows, Vec<(usize, AppendError)>)> = RefCell::default();
}

/// What a loop remembers from scrape to scrape, and hands to the loop that
/// replaces it.
#[derive(Debug, Default)]
pub struct Memory {
    cache: Cache,
    report: Vec<SeriesRef>,
    /// When the last scrape started, milliseconds since the epoch.
    pub last_ms: Option<i64>,
}

/// How the scrapes of one target are written.
pub struct Writer {
    pub(super) appendable: Arc<dyn Appendable>,
    pub(super) source: SourceId,
    pub(super) rules: PageRules,
    pub(super) metrics: ScrapeMetrics,
    pub(super) interner: Arc<Interner>,
    /// `scrape_timeout_seconds` and its like are written, too.
    pub(super) extra: bool,
    pub(super) timeout: Duration,
    /// What is read besides plain samples.
    pub(super) exposed: ExposedRules,
}

/// A scrape that is to be written.
pub struct Scraped<'a> {
    /// The page and what it is read as, or why there is none.
    pub page: Result<(&'a [u8], Format), String>,
    /// `scrape_body_size_bytes`.
    pub body_bytes: f64,
    /// The timestamp of all samples, milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// When the scrape started.
    pub started: tokio::time::Instant,
}

impl Writer {
    /// Writes a scrape: its samples if it was good, markers for what is gone,
    /// and the report. Gives the error that makes it a failed scrape.
    pub fn write(
        &self,
        memory: &mut Memory,
        target: &Target,
        scraped: &Scraped<'_>,
    ) -> Option<String> {
        BUFFERS.with_borrow_mut(|(rows, refused)| {
            let error = self.write_with(memory, target, scraped, rows, refused);
            if rows.series.capacity() > KEPT_SAMPLES || rows.timed.capacity() > KEPT_SAMPLES {
                *rows = Rows::default();
            }
            error
        })
    }

    fn write_with(
        &self,
        memory: &mut Memory,
        target: &Target,
        scraped: &Scraped<'_>,
        rows: &mut Rows,
        refused: &mut Vec<(usize, AppendError)>,
    ) -> Option<String> {
        rows.clear();
        refused.clear();
        let timestamp_ms = scraped.timestamp_ms;
        let mut counts = Counts::default();
        let mut appender = self.appender();
        let read = match &scraped.page {
            Err(message) => Err(message.clone()),
            // An empty page is a good one; all its series are gone.
            Ok(([], _)) => Ok(false),
            Ok((page, format)) => {
                let reading = Reading {
                    now_ms: timestamp_ms,
                    rules: &self.rules,
                    cache: &mut memory.cache,
                    appender: appender.as_mut(),
                    rows,
                    counts: &mut counts,
                };
                let read = self.read(page, *format, reading);
                read.map(|()| true).map_err(|e| self.page_error(&e))
            }
        };
        if !matches!(read, Ok(true)) {
            appender = self.appender();
            if memory.cache.fail(&mut rows.stale) {
                self.metrics.cache_flush_forced.inc();
            }
        }
        if counts.metadata_changed
            && let Ok((page, format)) = &scraped.page
        {
            self.note_metadata(target, page, *format, appender.as_mut());
        }
        self.count(&counts);

        let samples = rows.series.len();
        rows.series.extend_from_slice(&rows.stale);
        rows.values.resize(rows.series.len(), stale_nan());
        let duration = scraped.started.elapsed();
        #[allow(clippy::cast_precision_loss, reason = "counts are below 2^53")]
        let mut report = [
            f64::from(u8::from(read.is_ok())),
            duration.as_secs_f64(),
            counts.scraped as f64,
            counts.kept as f64,
            counts.added as f64,
            self.timeout.as_secs_f64(),
            self.rules.sample_limit as f64,
            scraped.body_bytes,
        ];
        self.intern_report(memory, appender.as_mut());
        // Whether the storage takes the first sample of a series decides if
        // the series counts as added; only exposed timestamps leave that open.
        let late = !rows.first_timed.is_empty();
        if !late {
            rows.series.extend_from_slice(&memory.report);
            rows.values.extend_from_slice(&report[..memory.report.len()]);
        }
        appender.append_row(timestamp_ms, &rows.series, &rows.values, refused);
        let not_added = self.append_odd(rows, appender.as_mut());
        if late {
            #[allow(clippy::cast_precision_loss, reason = "counts are below 2^53")]
            let added = counts.added.saturating_sub(not_added) as f64;
            report[REPORT_ADDED] = added;
            let values = &report[..memory.report.len()];
            appender.append_row(timestamp_ms, &memory.report, values, &mut Vec::new());
        }
        if self.count_refused(samples, refused) {
            memory.cache = Cache::default();
            memory.report.clear();
        }
        if let Err(e) = appender.commit() {
            self.metrics.commit_failed.inc();
            tracing::warn!(target_url = target.spec.url, error = %e, "scrape commit failed");
        }
        memory.last_ms = Some(timestamp_ms);
        let error = read.err();
        target.report(timestamp_ms, duration, error.clone());
        error
    }

    /// Writes markers for all series of a target that is gone, and for its
    /// report. Markers older than what a new loop wrote are refused: intended.
    pub fn write_end(&self, memory: &mut Memory, timestamp_ms: i64) {
        BUFFERS.with_borrow_mut(|(rows, refused)| {
            rows.clear();
            refused.clear();
            memory.cache.fail(&mut rows.stale);
            rows.stale.extend_from_slice(&memory.report);
            rows.values.resize(rows.stale.len(), stale_nan());
            let mut appender = self.appender();
            appender.append_row(timestamp_ms, &rows.stale, &rows.values, refused);
            if let Err(e) = appender.commit() {
                self.metrics.commit_failed.inc();
                tracing::warn!(error = %e, "writing the staleness markers of a target failed");
            }
        });
    }

    fn read(&self, page: &[u8], format: Format, reading: Reading<'_>) -> Result<(), PageError> {
        match format {
            _ if self.exposed.apply_to(format) => reading.samples(page, format, self.exposed),
            Format::OpenMetrics => reading.open_metrics(page),
            _ => reading.text(page),
        }
    }

    fn appender(&self) -> Box<dyn Appender> {
        self.appendable.appender(self.source, SyncClass::Scrape)
    }

    fn page_error(&self, error: &PageError) -> String {
        match error {
            PageError::LabelLimit(_) => self.metrics.exceeded_label_limits.inc(),
            PageError::SampleLimit => self.metrics.exceeded_sample_limit.inc(),
            PageError::BucketLimit => self.metrics.exceeded_bucket_limit.inc(),
            _ => {}
        }
        error.to_string()
    }

    #[cold]
    fn note_metadata(
        &self,
        target: &Target,
        page: &[u8],
        format: Format,
        appender: &mut dyn Appender,
    ) {
        let before = target.metadata();
        let now = match format {
            Format::Protobuf => protobuf_metadata(page, &self.interner),
            _ => metadata::of_text(page, format, &self.interner),
        };
        for family in now.iter() {
            let known = before
                .binary_search_by(|f| f.family.cmp(&family.family))
                .is_ok_and(|at| Arc::ptr_eq(&before[at], family));
            if !known {
                appender.set_metadata(&family.family, &family.metadata);
            }
        }
        target.set_metadata(now);
    }

    fn intern_report(&self, memory: &mut Memory, appender: &mut dyn Appender) {
        let wanted = if self.extra { REPORT.len() } else { REPORT_ALWAYS };
        memory.report.truncate(wanted);
        for name in &REPORT[memory.report.len()..wanted] {
            let mut labels = self.rules.labels.target.to_builder();
            labels.set(METRIC_NAME, name);
            let labels: Labels = labels.build();
            match appender.series(&labels) {
                Ok(series) => memory.report.push(series),
                Err(e) => {
                    tracing::warn!(series = %labels, error = %e, "no series for the scrape report");
                    return;
                }
            }
        }
    }

    /// What does not fit into the row: exposed timestamps, histograms,
    /// exemplars. Gives the number of series whose first sample was refused.
    fn append_odd(&self, rows: &mut Rows, appender: &mut dyn Appender) -> u64 {
        let mut refused = Vec::new();
        let mut not_added = 0;
        if !rows.timed.is_empty() {
            // By time, in the page's order within one: a row for each.
            rows.timed.sort_by_key(|(t, _, _)| *t);
            rows.first_timed.sort_unstable();
            let (mut series, mut values) = (Vec::new(), Vec::new());
            for row in rows.timed.chunk_by(|(a, _, _), (b, _, _)| a == b) {
                series.clear();
                values.clear();
                for (_, s, v) in row {
                    series.push(*s);
                    values.push(*v);
                }
                let before = refused.len();
                appender.append_row(row[0].0, &series, &values, &mut refused);
                let first = |(at, _): &&(usize, AppendError)| {
                    rows.first_timed.binary_search(&(row[0].0, series[*at])).is_ok()
                };
                not_added += refused[before..].iter().filter(first).count() as u64;
            }
        }
        for (t, start_ms, series, value) in &rows.started {
            if let Err(e) = appender.append(*series, *t, *start_ms, *value) {
                refused.push((0, e));
            }
        }
        for (t, start_ms, series, histogram) in &rows.histograms {
            if let Err(e) = appender.append_histogram(*series, *t, *start_ms, histogram) {
                refused.push((0, e));
            }
        }
        for (series, exemplar) in &rows.exemplars {
            if appender.append_exemplar(*series, exemplar) == Err(AppendError::OutOfOrder) {
                self.metrics.exemplars_out_of_order.inc();
            }
        }
        if !refused.is_empty() {
            self.count_refused(usize::MAX, &refused);
        }
        not_added
    }

    fn count(&self, counts: &Counts) {
        if counts.duplicates > 0 {
            self.metrics.duplicates.add(counts.duplicates);
        }
        if counts.out_of_bounds > 0 {
            self.metrics.out_of_bounds.add(counts.out_of_bounds);
        }
        if counts.refused > 0 {
            self.metrics.refused_series.add(counts.refused);
        }
    }

    /// Counts refused samples; those behind `samples` are markers and reports.
    /// `true` if the storage no longer knows a series.
    fn count_refused(&self, samples: usize, refused: &[(usize, AppendError)]) -> bool {
        let mut unknown = false;
        for (position, error) in refused {
            let counter = match error {
                AppendError::UnknownSeries => {
                    unknown = true;
                    continue;
                }
                AppendError::OutOfOrder => &self.metrics.out_of_order,
                AppendError::Duplicate => &self.metrics.duplicates,
                _ => &self.metrics.out_of_bounds,
            };
            if *position < samples {
                counter.inc();
            }
        }
        unknown
    }
}
