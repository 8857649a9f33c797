//! What do notifications say of themselves? Prometheus' metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::metrics::{Counter, Family, Registry, Summary};

/// The metrics of all receivers. Cloning shares them.
#[derive(Debug, Clone)]
pub struct NotifyMetrics {
    pub(super) latency: Family<Summary>,
    pub(super) errors: Family<Counter>,
    pub(super) sent: Family<Counter>,
    pub(super) dropped: Counter,
    /// Alerts in the fullest queue.
    queued: Arc<AtomicUsize>,
    discovered: Arc<AtomicUsize>,
}

impl Default for NotifyMetrics {
    /// Metrics that nobody sees.
    fn default() -> Self {
        let counters = || Family::new(&["alertmanager"], Counter::default);
        Self {
            latency: Family::new(&["alertmanager"], || Summary::new(&[0.5, 0.9, 0.99])),
            errors: counters(),
            sent: counters(),
            dropped: Counter::default(),
            queued: Arc::default(),
            discovered: Arc::default(),
        }
    }
}

impl NotifyMetrics {
    /// Metrics that `registry` exposes.
    ///
    /// # Panics
    ///
    /// If they are registered already.
    #[must_use]
    pub fn register(registry: &Registry, capacity: usize) -> Self {
        let metrics = Self::default();
        registry.register(
            "prometheus_notifications_latency_seconds",
            "Latency quantiles for sending alert notifications.",
            metrics.latency.clone(),
        );
        registry.register(
            "prometheus_notifications_errors_total",
            "Total number of sent alerts affected by errors.",
            metrics.errors.clone(),
        );
        registry.register(
            "prometheus_notifications_sent_total",
            "Total number of alerts sent.",
            metrics.sent.clone(),
        );
        registry.register(
            "prometheus_notifications_dropped_total",
            "Total number of alerts dropped due to errors when sending to Alertmanager.",
            metrics.dropped.clone(),
        );
        let count = |number: &AtomicUsize| {
            f64::from(u32::try_from(number.load(Ordering::Relaxed)).unwrap_or(u32::MAX))
        };
        let queued = metrics.queued.clone();
        registry.computed(
            "prometheus_notifications_queue_length",
            "The number of alert notifications in the queue.",
            "gauge",
            move || count(&queued),
        );
        registry
            .gauge(
                "prometheus_notifications_queue_capacity",
                "The capacity of the alert notifications queue.",
            )
            .set(f64::from(u32::try_from(capacity).unwrap_or(u32::MAX)));
        let discovered = metrics.discovered.clone();
        registry.computed(
            "prometheus_notifications_alertmanagers_discovered",
            "The number of alertmanagers discovered and active.",
            "gauge",
            move || count(&discovered),
        );
        metrics
    }

    pub(super) fn set_queued(&self, count: usize) {
        self.queued.store(count, Ordering::Relaxed);
    }

    pub(super) fn set_discovered(&self, count: usize) {
        self.discovered.store(count, Ordering::Relaxed);
    }

    /// Makes the members of a receiver, so that they are exposed from the
    /// start.
    pub(super) fn add(&self, receiver: &str) {
        let _ = (self.sent.with(&[receiver]), self.errors.with(&[receiver]));
    }

    /// Forgets a receiver.
    pub(super) fn remove(&self, receiver: &str) {
        self.sent.remove(&[receiver]);
        self.errors.remove(&[receiver]);
        self.latency.remove(&[receiver]);
    }
}
