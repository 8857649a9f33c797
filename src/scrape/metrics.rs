//! What is counted, under Prometheus' names.

use crate::metrics::{Counter, Family, Gauge, Registry, Summary};

/// Metrics of all pools. Cloning shares them.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each is named as it is exposed")]
pub struct ScrapeMetrics {
    pub pools: Counter,
    pub pools_failed: Counter,
    pub pool_reloads: Counter,
    pub pool_reloads_failed: Counter,
    pub pool_syncs: Family<Counter>,
    pub pool_targets: Family<Gauge>,
    pub pool_target_limit: Family<Gauge>,
    pub exceeded_target_limit: Counter,
    pub exceeded_label_limits: Counter,
    pub exceeded_sample_limit: Counter,
    pub exceeded_body_size_limit: Counter,
    pub exceeded_bucket_limit: Counter,
    pub duplicates: Counter,
    pub out_of_order: Counter,
    pub out_of_bounds: Counter,
    pub exemplars_out_of_order: Counter,
    pub interval_length: Family<Summary>,
    pub reload_length: Family<Summary>,
    pub sync_length: Family<Summary>,
    pub sync_failed: Family<Counter>,
    pub refused_series: Counter,
    pub commit_failed: Counter,
    pub cache_flush_forced: Counter,
}

const QUANTILES: [f64; 5] = [0.01, 0.05, 0.5, 0.9, 0.99];

fn summary() -> Summary {
    Summary::new(&QUANTILES)
}

impl ScrapeMetrics {
    /// Registers them all.
    ///
    /// # Panics
    ///
    /// If they are registered already.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let counter = |name, help| registry.counter(name, help);
        let by_job = &["scrape_job"];
        let by_interval = &["interval"];
        Self {
            pools: counter(
                "prometheus_target_scrape_pools_total",
                "Total number of scrape pool creation attempts.",
            ),
            pools_failed: counter(
                "prometheus_target_scrape_pools_failed_total",
                "Total number of scrape pool creations that failed.",
            ),
            pool_reloads: counter(
                "prometheus_target_scrape_pool_reloads_total",
                "Total number of scrape pool reloads.",
            ),
            pool_reloads_failed: counter(
                "prometheus_target_scrape_pool_reloads_failed_total",
                "Total number of failed scrape pool reloads.",
            ),
            pool_syncs: registry.register(
                "prometheus_target_scrape_pool_sync_total",
                "Total number of syncs that were executed on a scrape pool.",
                Family::new(by_job, Counter::default),
            ),
            pool_targets: registry.register(
                "prometheus_target_scrape_pool_targets",
                "Current number of targets in this scrape pool.",
                Family::new(by_job, Gauge::default),
            ),
            pool_target_limit: registry.register(
                "prometheus_target_scrape_pool_target_limit",
                "Maximum number of targets allowed in this scrape pool.",
                Family::new(by_job, Gauge::default),
            ),
            exceeded_target_limit: counter(
                "prometheus_target_scrape_pool_exceeded_target_limit_total",
                "Total number of times scrape pools hit the target limit, during sync or config reload.",
            ),
            exceeded_label_limits: counter(
                "prometheus_target_scrape_pool_exceeded_label_limits_total",
                "Total number of times scrape pools hit the label limits, during sync or config reload.",
            ),
            exceeded_sample_limit: counter(
                "prometheus_target_scrapes_exceeded_sample_limit_total",
                "Total number of scrapes that hit the sample limit and were rejected.",
            ),
            exceeded_body_size_limit: counter(
                "prometheus_target_scrapes_exceeded_body_size_limit_total",
                "Total number of scrapes that hit the body size limit",
            ),
            cache_flush_forced: counter(
                "prometheus_target_scrapes_cache_flush_forced_total",
                "How many times a scrape cache was flushed due to getting big while scrapes are failing.",
            ),
            exceeded_bucket_limit: counter(
                "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit_total",
                "Total number of scrapes that hit the native histogram bucket limit and were rejected.",
            ),
            duplicates: counter(
                "prometheus_target_scrapes_sample_duplicate_timestamp_total",
                "Total number of samples rejected due to duplicate timestamps but different values.",
            ),
            out_of_order: counter(
                "prometheus_target_scrapes_sample_out_of_order_total",
                "Total number of samples rejected due to not being out of the expected order.",
            ),
            out_of_bounds: counter(
                "prometheus_target_scrapes_sample_out_of_bounds_total",
                "Total number of samples rejected due to timestamp falling outside of the time bounds.",
            ),
            exemplars_out_of_order: counter(
                "prometheus_target_scrapes_exemplar_out_of_order_total",
                "Total number of exemplar rejected due to not being out of the expected order.",
            ),
            interval_length: registry.register(
                "prometheus_target_interval_length_seconds",
                "Actual intervals between scrapes.",
                Family::new(by_interval, summary),
            ),
            reload_length: registry.register(
                "prometheus_target_reload_length_seconds",
                "Actual interval to reload the scrape pool with a given configuration.",
                Family::new(by_interval, summary),
            ),
            sync_length: registry.register(
                "prometheus_target_sync_length_seconds",
                "Actual interval to sync the scrape pool.",
                Family::new(by_job, summary),
            ),
            sync_failed: registry.register(
                "prometheus_target_sync_failed_total",
                "Total number of target sync failures.",
                Family::new(by_job, Counter::default),
            ),
            refused_series: counter(
                "narthex_target_scrapes_series_refused_total",
                "Total number of new series that were not made because memory is short.",
            ),
            commit_failed: counter(
                "narthex_target_scrapes_commit_failed_total",
                "Total number of scrapes whose samples could not be written to the log.",
            ),
        }
    }

    /// Forgets what is kept per pool.
    pub fn forget_pool(&self, job: &str) {
        self.pool_syncs.remove(&[job]);
        self.pool_targets.remove(&[job]);
        self.pool_target_limit.remove(&[job]);
        self.sync_length.remove(&[job]);
        self.sync_failed.remove(&[job]);
    }
}
