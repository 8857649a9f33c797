//! What does the storage say of itself, under Prometheus' names?

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use narthex_query::engine::{Engine, StepCacheStats};
use narthex_storage::db::{Db, DbStats};

use crate::api::PROMETHEUS_VERSION;
use crate::cli::Options;
use crate::metrics::{Family, Gauge, Registry};

/// Figures of one exposition come from one look at the storage.
const FRESH: Duration = Duration::from_millis(500);

/// The newest look at the storage.
struct Look {
    db: Arc<Db>,
    kept: Mutex<Option<(Instant, Arc<DbStats>)>>,
}

impl Look {
    fn stats(&self) -> Arc<DbStats> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((at, stats)) if at.elapsed() < FRESH => Arc::clone(stats),
            _ => {
                let stats = Arc::new(self.db.stats());
                *kept = Some((Instant::now(), Arc::clone(&stats)));
                stats
            }
        }
    }
}

type Figure = (&'static str, &'static str, &'static str, fn(&DbStats) -> f64);

#[allow(clippy::cast_precision_loss, reason = "counts above 2^53 lose their last digits")]
const fn float(n: u64) -> f64 {
    n as f64
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds since the epoch are exact")]
fn time(ms: Option<i64>) -> f64 {
    ms.map_or(f64::NAN, |ms| ms as f64)
}

/// Figures of the storage, each with name, help, type and where it stands.
const FIGURES: &[Figure] = &[
    ("prometheus_tsdb_head_series", "Total number of series in the head block.", "gauge", |s| {
        float(s.head_series)
    }),
    (
        "prometheus_tsdb_head_series_created_total",
        "Total number of series created in the head",
        "counter",
        |s| float(s.series_created),
    ),
    ("prometheus_tsdb_head_chunks", "Total number of chunks in the head block.", "gauge", |s| {
        float(s.head_chunks)
    }),
    (
        "prometheus_tsdb_head_chunks_created_total",
        "Total number of chunks created in the head",
        "counter",
        |s| float(s.chunks_sealed + s.head_chunks),
    ),
    (
        "prometheus_tsdb_head_min_time",
        "Minimum time bound of the head block. The unit is milliseconds.",
        "gauge",
        |s| time(s.head_min_time_ms),
    ),
    (
        "prometheus_tsdb_head_max_time",
        "Maximum timestamp of the head block. The unit is milliseconds.",
        "gauge",
        |s| time(s.max_time_ms),
    ),
    (
        "prometheus_tsdb_lowest_timestamp",
        "Lowest timestamp value stored in the database. The unit is milliseconds.",
        "gauge",
        |s| time(s.min_time_ms),
    ),
    (
        "prometheus_tsdb_out_of_bound_samples_total",
        "Total number of out of bound samples ingestion failed attempts.",
        "counter",
        |s| float(s.out_of_bounds_samples),
    ),
    (
        "prometheus_tsdb_too_old_samples_total",
        "Total number of out of order samples ingestion failed attempts beyond the window.",
        "counter",
        |s| float(s.too_old_samples),
    ),
    ("prometheus_tsdb_wal_storage_size_bytes", "Size of the write log directory.", "gauge", |s| {
        float(s.wal_bytes)
    }),
    (
        "prometheus_tsdb_wal_segment_current",
        "Write log segment index that is currently written to.",
        "gauge",
        |s| float(s.wal_segment),
    ),
    (
        "prometheus_tsdb_wal_writes_failed_total",
        "Total number of write log writes that failed.",
        "counter",
        |s| float(s.write_failures),
    ),
    (
        "prometheus_tsdb_storage_blocks_bytes",
        "The number of bytes that are currently used for local storage by all days.",
        "gauge",
        |s| float(s.days_bytes),
    ),
    ("prometheus_tsdb_blocks_loaded", "Number of days on disk.", "gauge", |s| {
        float(s.days.len() as u64)
    }),
    (
        "prometheus_tsdb_time_retentions_total",
        "The number of times that days were deleted because the maximum time limit was exceeded.",
        "counter",
        |s| float(s.time_retentions),
    ),
    (
        "prometheus_tsdb_size_retentions_total",
        "The number of times that days were deleted because the maximum number of bytes was exceeded.",
        "counter",
        |s| float(s.size_retentions),
    ),
    (
        "prometheus_tsdb_exemplar_exemplars_in_storage",
        "Number of exemplars currently in circular storage.",
        "gauge",
        |s| float(s.exemplars),
    ),
    (
        "prometheus_tsdb_exemplar_exemplars_appended_total",
        "Total number of appended exemplars.",
        "counter",
        |s| float(s.exemplars_appended),
    ),
    (
        "prometheus_tsdb_data_replay_duration_seconds",
        "Time taken to replay the data on disk.",
        "gauge",
        |s| float(s.replay.micros) / 1e6,
    ),
    ("narthex_storage_rows_bytes", "Memory of open rows.", "gauge", |s| float(s.rows_bytes)),
    ("narthex_storage_series_bytes", "Memory of the series table.", "gauge", |s| {
        float(s.series_bytes)
    }),
    ("narthex_storage_index_bytes", "Memory of the index.", "gauge", |s| float(s.index_bytes)),
    ("narthex_storage_cache_bytes", "Memory of what is kept for readers.", "gauge", |s| {
        float(s.cache_bytes)
    }),
    ("narthex_storage_series", "Series that have an id.", "gauge", |s| float(s.series)),
    (
        "narthex_storage_series_refused_total",
        "New series that were refused because memory is short.",
        "counter",
        |s| float(s.series_refused),
    ),
    (
        "narthex_storage_series_failed_total",
        "Series that were refused because the disk cannot be read or written.",
        "counter",
        |s| float(s.series_failed),
    ),
    (
        "narthex_storage_sources_refused",
        "Targets and senders whose new series are refused because memory is short.",
        "gauge",
        |s| float(s.sources_refused),
    ),
    (
        "narthex_storage_head_charged_bytes",
        "Memory of the head, and what no other account has.",
        "gauge",
        |s| float(s.head_charged_bytes),
    ),
    (
        "narthex_storage_head_limit_bytes",
        "The head's share of the memory limit; 0: none.",
        "gauge",
        |s| float(s.head_limit_bytes),
    ),
    ("narthex_storage_catalog_bytes", "Memory of what is known of stripes.", "gauge", |s| {
        float(s.catalog_bytes)
    }),
    ("narthex_storage_series_in_memory", "Series whose labels are in memory.", "gauge", |s| {
        float(s.series_in_memory)
    }),
    (
        "narthex_storage_quarantined_total",
        "Runs and stripes that failed their checksum.",
        "counter",
        |s| float(s.quarantined),
    ),
    (
        "narthex_storage_log_lags",
        "Whether rows are in memory only, because the log cannot be written.",
        "gauge",
        |s| f64::from(u8::from(s.log_lags)),
    ),
    ("narthex_storage_axes", "Open axes.", "gauge", |s| float(s.axes)),
];

/// Samples by type: float and histogram.
type ByType = (&'static str, &'static str, fn(&DbStats) -> [u64; 2]);

const BY_TYPE: &[ByType] = &[
    ("prometheus_tsdb_head_samples_appended_total", "Total number of appended samples.", |s| {
        [s.float_samples, s.histogram_samples]
    }),
    (
        "prometheus_tsdb_out_of_order_samples_total",
        "Total number of out of order samples ingestion failed attempts.",
        |s| [s.out_of_order_samples, 0],
    ),
];

type StepFigure = (&'static str, &'static str, &'static str, fn(&StepCacheStats) -> f64);

const STEP_FIGURES: &[StepFigure] = &[
    (
        "narthex_query_steps_reused_total",
        "Steps of range queries that were known from before.",
        "counter",
        |s| float(s.used_steps),
    ),
    (
        "narthex_query_steps_evaluated_total",
        "Steps that were evaluated, of range queries that are asked again.",
        "counter",
        |s| float(s.evaluated_steps),
    ),
    (
        "narthex_query_step_cache_evictions_total",
        "Queries whose steps were dropped to make room.",
        "counter",
        |s| float(s.evictions),
    ),
    ("narthex_query_step_cache_queries", "Queries whose steps are kept.", "gauge", |s| {
        float(s.entries as u64)
    }),
    ("narthex_query_step_cache_bytes", "Memory of steps that are kept.", "gauge", |s| {
        float(s.bytes as u64)
    }),
];

/// Registers what is known of steps that are used again.
pub fn register_steps(registry: &Registry, engine: &Arc<Engine>) {
    for (name, help, kind, figure) in STEP_FIGURES {
        let engine = Arc::clone(engine);
        registry.computed(name, help, kind, move || figure(&engine.step_cache_stats()));
    }
}

/// Registers all of them, and `prometheus_build_info`.
pub fn register(registry: &Registry, db: &Arc<Db>, options: &Options) {
    let look = Arc::new(Look { db: Arc::clone(db), kept: Mutex::default() });
    for (name, help, kind, figure) in FIGURES {
        let look = Arc::clone(&look);
        registry.computed(name, help, kind, move || figure(&look.stats()));
    }
    for (name, help, figures) in BY_TYPE {
        let look = Arc::clone(&look);
        registry.computed_family(name, help, "counter", move || {
            let [floats, histograms] = figures(&look.stats());
            vec![
                ("type=\"float\"".to_owned(), float(floats)),
                ("type=\"histogram\"".to_owned(), float(histograms)),
            ]
        });
    }
    let build = Family::new(
        &["branch", "goarch", "goos", "goversion", "revision", "tags", "version"],
        Gauge::default,
    );
    let branch = concat!("narthex-", env!("CARGO_PKG_VERSION"));
    let revision = option_env!("NARTHEX_REVISION").unwrap_or("unknown");
    build
        .with(&[branch, std::env::consts::ARCH, "linux", "", revision, "", PROMETHEUS_VERSION])
        .set(1.0);
    registry.register(
        "prometheus_build_info",
        "A metric with a constant '1' value labeled by version, revision, branch, goversion from \
         which prometheus was built, and the goos and goarch for the build.",
        build,
    );
    let limit = options.storage.retention_size_bytes.unwrap_or(0);
    registry
        .gauge(
            "prometheus_tsdb_retention_limit_bytes",
            "Max number of bytes to be retained in the tsdb blocks, configured 0 means disabled",
        )
        .set(float(limit));
    let concurrent = options.query.max_concurrency as u64;
    registry
        .gauge("prometheus_engine_queries_concurrent_max", "The max number of concurrent queries.")
        .set(float(concurrent));
}
