//! How does a webhook hear of alerts? Groups, and a task that sends them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify as Wakeup;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::grouping::{Grouping, Groups};
use super::metrics::NotifyMetrics;
use super::sender::{accepted, post};
use super::wire::{Notification, webhook};
use super::{Alert, NotifyError};
use crate::client::{HttpClient, parse_url};
use crate::config::WebhookConfig;

/// Of one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest sleep, as the clock may jump.
const LONGEST_SLEEP_MS: i64 = 60_000;

/// One webhook receiver.
pub(super) struct Webhook {
    pub(super) config: WebhookConfig,
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Shared {
    name: String,
    url: Url,
    client: HttpClient,
    external_url: String,
    groups: Mutex<Groups>,
    more: Wakeup,
    metrics: NotifyMetrics,
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Webhook {
    /// Whether a receiver can be used.
    pub(super) fn check(config: &WebhookConfig) -> Result<(Url, HttpClient), NotifyError> {
        let fail = |message: String| {
            NotifyError(format!("webhooks: receiver {:?}: {message}", config.name))
        };
        // The URL may hold a token: it is not repeated.
        let url = parse_url(config.url.expose()).map_err(|_| fail("bad url".to_owned()))?;
        Ok((url, HttpClient::new(&config.http).map_err(|e| fail(e.to_string()))?))
    }

    /// Starts the task; within the runtime only.
    pub(super) fn start(
        config: &WebhookConfig,
        external_url: &str,
        metrics: NotifyMetrics,
    ) -> Result<Self, NotifyError> {
        let (url, client) = Self::check(config)?;
        let grouping = Grouping {
            group_by: config.group_by.clone(),
            group_wait_ms: milliseconds(config.group_wait),
            group_interval_ms: milliseconds(config.group_interval).max(1_000),
            repeat_interval_ms: milliseconds(config.repeat_interval),
            send_resolved: config.send_resolved,
            inhibit_equal: config.inhibit_equal.clone(),
        };
        let shared = Arc::new(Shared {
            name: format!("webhook/{}", config.name),
            url,
            client,
            external_url: external_url.to_owned(),
            groups: Mutex::new(Groups::new(grouping)),
            more: Wakeup::new(),
            metrics,
        });
        shared.metrics.add(&shared.name);
        let stop = CancellationToken::new();
        let task = tokio::spawn(shared.clone().run(stop.clone(), config.name.clone()));
        Ok(Self { config: config.clone(), shared, stop, task })
    }

    pub(super) fn push(&self, alerts: &[Alert]) {
        let now_ms = now_ms();
        let refused = self.shared.groups(|groups| {
            alerts.iter().filter(|alert| !groups.receive((*alert).clone(), now_ms)).count()
        });
        self.shared.metrics.dropped.add(refused as u64);
        self.shared.more.notify_one();
    }

    /// Stops the task; what was not sent yet is tried once if `drain`.
    pub(super) async fn stop(self, drain: bool) {
        self.stop.cancel();
        let _ = self.task.await;
        if drain {
            self.shared.groups(|groups| groups.flush(now_ms()));
            self.shared.send_due(&self.config.name).await;
        }
        self.shared.metrics.remove(&self.shared.name);
    }
}

impl Shared {
    fn groups<T>(&self, with: impl FnOnce(&mut Groups) -> T) -> T {
        with(&mut self.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn run(self: Arc<Self>, stop: CancellationToken, receiver: String) {
        loop {
            let wait_ms = self.groups(|groups| groups.next_ms()).map_or(LONGEST_SLEEP_MS, |at| {
                at.saturating_sub(now_ms()).clamp(0, LONGEST_SLEEP_MS)
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.more.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(wait_ms.unsigned_abs())) => {
                    self.send_due(&receiver).await;
                }
            }
        }
    }

    async fn send_due(&self, receiver: &str) {
        for (key, alerts) in self.groups(|groups| groups.due(now_ms())) {
            let count = alerts.len() as u64;
            let notification = Notification {
                receiver: receiver.to_owned(),
                external_url: self.external_url.clone(),
                group_labels: key.clone(),
                alerts,
            };
            let request = post(self.url.clone(), webhook(&notification), TIMEOUT);
            let name = [self.name.as_str()];
            self.metrics.sent.with(&name).add(count);
            match accepted(&self.client, request).await {
                Ok(()) => {
                    let alerts = &notification.alerts;
                    self.groups(|groups| groups.sent(&key, alerts, now_ms()));
                }
                Err(error) => {
                    tracing::error!(receiver = self.name, count, %error, "cannot send alerts");
                    self.metrics.errors.with(&name).add(count);
                    self.groups(|groups| groups.failed(&key, now_ms()));
                }
            }
        }
    }
}
