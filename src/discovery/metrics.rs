//! What does discovery say of itself? Prometheus' names where the meaning is
//! the same.

use super::kubernetes::watch::WatchMetrics;
use crate::metrics::{Counter, Family, Gauge, Registry, Summary};
use crate::notices::Notices;

/// Metrics of all discoveries. Cloning shares them.
#[derive(Clone)]
pub struct DiscoveryMetrics {
    /// By manager (`scrape`, `notify`) and scrape configuration.
    pub discovered_targets: Family<Gauge>,
    /// By manager: what discoveries sent.
    pub received_updates: Family<Counter>,
    /// By manager: what was passed on.
    pub updates: Family<Counter>,
    /// By manager, seconds since the Unix epoch.
    pub last_update: Family<Gauge>,
    /// By mechanism and what is asked.
    pub refresh_failures: Family<Counter>,
    /// By mechanism and what is asked, in seconds.
    pub refresh_duration: Family<Summary>,
    /// Of files.
    pub file_read_errors: Counter,
    /// By file, seconds since the Unix epoch.
    pub file_mtime: Family<Gauge>,
    /// Seconds.
    pub file_scan_duration: Summary,
    /// Questions asked.
    pub dns_lookups: Counter,
    /// Questions without a usable answer.
    pub dns_lookup_failures: Counter,
    /// Requests without a usable answer.
    pub http_failures: Counter,
    /// Of watches.
    pub kubernetes: WatchMetrics,
}

fn quantiles() -> Summary {
    Summary::new(&[0.5, 0.9, 0.99])
}

impl DiscoveryMetrics {
    /// Registers them.
    ///
    /// # Panics
    ///
    /// If they are registered already.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let by_name =
            |name, help| registry.register(name, help, Family::new(&["name"], Counter::default));
        Self {
            discovered_targets: registry.register(
                "prometheus_sd_discovered_targets",
                "Current number of discovered targets.",
                Family::new(&["name", "config"], Gauge::default),
            ),
            received_updates: by_name(
                "prometheus_sd_received_updates_total",
                "Total number of update events received from the SD providers.",
            ),
            updates: by_name(
                "prometheus_sd_updates_total",
                "Total number of update events sent to the SD consumers.",
            ),
            last_update: registry.register(
                "prometheus_sd_last_update_timestamp_seconds",
                "Timestamp of the last update sent to the SD consumers.",
                Family::new(&["name"], Gauge::default),
            ),
            refresh_failures: registry.register(
                "prometheus_sd_refresh_failures_total",
                "Number of refresh failures for the given SD mechanism.",
                Family::new(&["mechanism", "config"], Counter::default),
            ),
            refresh_duration: registry.register(
                "prometheus_sd_refresh_duration_seconds",
                "The duration of a refresh in seconds for the given SD mechanism.",
                Family::new(&["mechanism", "config"], quantiles),
            ),
            file_read_errors: registry.counter(
                "prometheus_sd_file_read_errors_total",
                "The number of File-SD read errors.",
            ),
            file_mtime: registry.register(
                "prometheus_sd_file_mtime_seconds",
                "Timestamp (mtime) of files read by FileSD. Timestamp is set at read time.",
                Family::new(&["filename"], Gauge::default),
            ),
            file_scan_duration: registry.register(
                "prometheus_sd_file_scan_duration_seconds",
                "The duration of the File-SD scan in seconds.",
                quantiles(),
            ),
            dns_lookups: registry
                .counter("prometheus_sd_dns_lookups_total", "The number of DNS-SD lookups."),
            dns_lookup_failures: registry.counter(
                "prometheus_sd_dns_lookup_failures_total",
                "The number of DNS-SD lookup failures.",
            ),
            http_failures: registry.counter(
                "prometheus_sd_http_failures_total",
                "Number of HTTP service discovery refresh failures.",
            ),
            kubernetes: WatchMetrics {
                failures: registry.counter(
                    "prometheus_sd_kubernetes_failures_total",
                    "The number of failed WATCH/LIST requests.",
                ),
                events: registry.register(
                    "prometheus_sd_kubernetes_events_total",
                    "The number of Kubernetes events handled.",
                    Family::new(&["role", "event"], Counter::default),
                ),
                failing: registry.gauge(
                    "narthex_sd_kubernetes_watches_failing",
                    "Watches whose last request failed; the targets they found stay.",
                ),
                watches: registry
                    .gauge("narthex_sd_kubernetes_watches", "Watches that are followed."),
                notices: Notices::default(),
            },
        }
    }
}
