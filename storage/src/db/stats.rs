//! What does the storage say of itself?

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Inner, lock};
use crate::head::write::Outcome;

/// What the storage holds and did since it was opened.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DbStats {
    /// Series with open rows (`prometheus_tsdb_head_series`).
    pub head_series: u64,
    /// Series that have an id, dead ones included.
    pub series: u64,
    /// Of these, those whose labels are in memory.
    pub series_in_memory: u64,
    /// Files of series that are not in memory.
    pub series_segments: u64,
    /// Series that got an id since the start (`..._head_series_created_total`).
    pub series_created: u64,
    /// New series that were refused for want of memory.
    pub series_refused: u64,
    /// Series that were refused because the disk cannot be read or written.
    pub series_failed: u64,
    /// Bytes charged to the head by the last look, and its share of the memory
    /// (0: no limit).
    pub head_charged_bytes: u64,
    /// See `head_charged_bytes`.
    pub head_limit_bytes: u64,
    /// Sources whose new series are refused by name.
    pub sources_refused: u64,
    /// Columns of open stripes (`..._head_chunks`).
    pub head_chunks: u64,
    /// Columns written into stripes (`..._head_chunks_created_total`).
    pub chunks_sealed: u64,
    /// Stripes written.
    pub stripes_sealed: u64,
    /// Open axes, stripes that wait to be written included.
    pub axes: u64,
    /// Float samples taken (`..._head_samples_appended_total{type="float"}`).
    pub float_samples: u64,
    /// Histogram samples taken.
    pub histogram_samples: u64,
    /// Samples refused as out of order.
    pub out_of_order_samples: u64,
    /// Samples refused as older than the out-of-order window.
    pub too_old_samples: u64,
    /// Samples refused as out of bounds.
    pub out_of_bounds_samples: u64,
    /// Samples refused as duplicates.
    pub duplicate_samples: u64,
    /// Samples taken late, within the out-of-order window.
    pub late_samples: u64,
    /// Oldest timestamp there is, in milliseconds; `None` if there is none.
    pub min_time_ms: Option<i64>,
    /// Newest timestamp there is, in milliseconds.
    pub max_time_ms: Option<i64>,
    /// Oldest timestamp of open rows, in milliseconds.
    pub head_min_time_ms: Option<i64>,
    /// Bytes of open rows and what appending needs.
    pub rows_bytes: u64,
    /// Bytes of the series table.
    pub series_bytes: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Bytes of what is known of stripes.
    pub catalog_bytes: u64,
    /// Bytes of rows and runs that are kept for readers.
    pub cache_bytes: u64,
    /// Look-ups of the caches that found something, and that did not.
    pub cache_hits: u64,
    /// See `cache_hits`.
    pub cache_misses: u64,
    /// Bytes of the log (`..._wal_storage_size_bytes`).
    pub wal_bytes: u64,
    /// Bytes written to the log.
    pub wal_written_bytes: u64,
    /// The log segment that is written to (`..._wal_segment_current`).
    pub wal_segment: u64,
    /// Log syncs, and those that failed.
    pub wal_syncs: u64,
    /// Writes or syncs that failed.
    pub write_failures: u64,
    /// Rows are in memory only, because the log cannot be written.
    pub log_lags: bool,
    /// Bytes of the files of series.
    pub series_file_bytes: u64,
    /// Bytes of all stripes (`..._storage_blocks_bytes`).
    pub days_bytes: u64,
    /// Of these, what is not chunks: axes, series, lengths, checksums.
    pub days_header_bytes: u64,
    /// Bytes written to the days, those of merges included.
    pub days_written_bytes: u64,
    /// Samples in all stripes.
    pub days_samples: u64,
    /// The days, oldest first.
    pub days: Vec<DayStats>,
    /// Days deleted by the retention, by time and by size.
    pub time_retentions: u64,
    /// See `time_retentions`.
    pub size_retentions: u64,
    /// Runs and stripes that failed their checksum.
    pub quarantined: u64,
    /// Exemplars kept, and series with one.
    pub exemplars: u64,
    /// See `exemplars`.
    pub exemplar_series: u64,
    /// Exemplars taken.
    pub exemplars_appended: u64,
    /// Oldest and newest exemplar, in milliseconds.
    pub exemplar_bounds_ms: Option<(i64, i64)>,
    /// What the start found in the log.
    pub replay: ReplayStats,
}

/// One day on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DayStats {
    /// Days since the Unix epoch (UTC).
    pub day: i64,
    /// First timestamp, in milliseconds.
    pub min_time_ms: i64,
    /// Last timestamp, in milliseconds.
    pub max_time_ms: i64,
    /// Stripes.
    pub stripes: u64,
    /// Columns of all stripes.
    pub chunks: u64,
    /// Samples.
    pub samples: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a start found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplayStats {
    /// How long opening took, in microseconds.
    pub micros: u64,
    /// Log segments read.
    pub segments: u64,
    /// Records read.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Samples that are in open rows again.
    pub samples: u64,
    /// Items of stripes that had to be left out, behind damage.
    pub dropped_items: u64,
    /// Bytes that were no records, before good ones.
    pub damaged_bytes: u64,
    /// Bytes that were no records, at the end of a segment.
    pub torn_bytes: u64,
}

/// The largest counts, each list descending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CardinalityStats {
    /// Metric names and their series.
    pub series_by_metric: Vec<(String, u64)>,
    /// Label names and their values.
    pub values_by_name: Vec<(String, u64)>,
    /// Label names and the bytes of their values.
    pub bytes_by_name: Vec<(String, u64)>,
    /// `name=value` and its series.
    pub series_by_pair: Vec<(String, u64)>,
    /// Number of different label pairs.
    pub pairs: u64,
    /// Number of series.
    pub series: u64,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) series_created: AtomicU64,
    pub(super) series_refused: AtomicU64,
    pub(super) series_failed: AtomicU64,
    pub(super) float_samples: AtomicU64,
    pub(super) histogram_samples: AtomicU64,
    pub(super) out_of_order: AtomicU64,
    pub(super) too_old: AtomicU64,
    pub(super) out_of_bounds: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) chunks_sealed: AtomicU64,
    pub(super) stripes_sealed: AtomicU64,
    pub(super) days_written: AtomicU64,
    pub(super) wal_syncs: AtomicU64,
    pub(super) write_failures: AtomicU64,
    pub(super) quarantined: AtomicU64,
    pub(super) time_retentions: AtomicU64,
    pub(super) size_retentions: AtomicU64,
    pub(super) exemplars: AtomicU64,
    pub(super) replay: std::sync::OnceLock<ReplayStats>,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        if n > 0 {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    pub(super) fn count(&self, outcome: &Outcome) {
        Self::add(&self.float_samples, outcome.taken - outcome.histograms.min(outcome.taken));
        Self::add(&self.histogram_samples, outcome.histograms);
        Self::add(&self.out_of_order, outcome.out_of_order);
        Self::add(&self.too_old, outcome.too_old);
        Self::add(&self.out_of_bounds, outcome.out_of_bounds);
        Self::add(&self.duplicates, outcome.duplicates);
        Self::add(&self.late, outcome.late);
    }
}

impl Inner {
    pub(super) fn stats(&self) -> DbStats {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let c = &self.counters;
        let mut s = DbStats {
            series_created: get(&c.series_created),
            series_refused: get(&c.series_refused),
            series_failed: get(&c.series_failed),
            chunks_sealed: get(&c.chunks_sealed),
            stripes_sealed: get(&c.stripes_sealed),
            days_written_bytes: get(&c.days_written),
            float_samples: get(&c.float_samples),
            histogram_samples: get(&c.histogram_samples),
            out_of_order_samples: get(&c.out_of_order),
            too_old_samples: get(&c.too_old),
            out_of_bounds_samples: get(&c.out_of_bounds),
            duplicate_samples: get(&c.duplicates),
            late_samples: get(&c.late),
            wal_syncs: get(&c.wal_syncs),
            write_failures: get(&c.write_failures),
            quarantined: get(&c.quarantined),
            time_retentions: get(&c.time_retentions),
            size_retentions: get(&c.size_retentions),
            exemplars_appended: get(&c.exemplars),
            replay: c.replay.get().copied().unwrap_or_default(),
            ..DbStats::default()
        };
        let view = {
            let write = lock(&self.write);
            s.rows_bytes = write.writer.heap_bytes() as u64;
            s.wal_bytes = write.wal.bytes();
            s.wal_written_bytes = write.wal.written_bytes;
            s.wal_segment = write.wal.segment();
            s.log_lags = write.lag.lags;
            drop(write);
            self.snapshot().view
        };
        s.axes = view.open.len() as u64;
        for open in &view.open {
            let rows = open.lock();
            s.head_series += if rows.frozen { 0 } else { rows.ids.len() as u64 };
            s.head_chunks += rows.ids.len() as u64;
            s.rows_bytes += rows.heap_bytes() as u64;
            s.cache_bytes += rows.decoded_bytes() as u64;
            s.head_min_time_ms = min(s.head_min_time_ms, rows.times.first().copied());
            s.max_time_ms = s.max_time_ms.max(rows.times.last().copied());
        }
        s.catalog_bytes = view.catalog.heap_bytes() as u64;
        s.min_time_ms = s.head_min_time_ms;
        for day in &view.catalog.days {
            let Some((min_time_ms, max_time_ms)) = day.bounds() else { continue };
            s.min_time_ms = min(s.min_time_ms, Some(min_time_ms));
            s.max_time_ms = s.max_time_ms.max(Some(max_time_ms));
            s.days_bytes += day.bytes;
            s.days_header_bytes += day.header_bytes();
            s.days_samples += day.samples;
            s.days.push(DayStats {
                day: day.day,
                min_time_ms,
                max_time_ms,
                stripes: day.stripe_count() as u64,
                chunks: day.chunks,
                samples: day.samples,
                bytes: day.bytes,
            });
        }
        let series = self.series.figures();
        s.series = series.series;
        s.series_in_memory = series.in_memory;
        s.series_bytes = series.table_bytes;
        s.series_file_bytes = series.file_bytes;
        s.series_segments = series.segments;
        s.index_bytes = series.index_bytes;
        s.cache_bytes += series.cache_bytes;
        let caches = [
            self.headers.figures(),
            self.runs.figures(),
            self.columns.figures(),
            self.selections.figures(),
        ];
        for (bytes, hits, misses) in caches {
            s.cache_bytes += bytes as u64;
            s.cache_hits += hits;
            s.cache_misses += misses;
        }
        let (charged, limit, refused) = self.admission.figures();
        (s.head_charged_bytes, s.head_limit_bytes) = (charged, limit);
        s.sources_refused = refused as u64;
        let ring = lock(&self.exemplars);
        let (exemplars, series) = ring.len();
        (s.exemplars, s.exemplar_series) = (exemplars as u64, series as u64);
        s.exemplar_bounds_ms = ring.bounds_ms();
        s
    }

    pub(super) fn cardinality(
        &self,
        limit: usize,
        within: Option<roaring::RoaringBitmap>,
    ) -> CardinalityStats {
        let within = within.unwrap_or_else(|| super::read::series_of_head(&self.snapshot().view));
        // Damage shows elsewhere; what is counted without it is still of use.
        let found = self.series.cardinality(&within).unwrap_or_default();
        let pairs = found.series_by_pair.len() as u64;
        let top = |mut list: Vec<(String, u64)>| {
            list.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            list.truncate(limit);
            list
        };
        CardinalityStats {
            series_by_metric: top(found.series_by_metric),
            values_by_name: top(found.values_by_name),
            bytes_by_name: top(found.bytes_by_name),
            series_by_pair: top(found.series_by_pair),
            pairs,
            series: within.len(),
        }
    }
}

fn min(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
