//! How does one Alertmanager hear of alerts? A queue and a task that empties
//! it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use tokio::sync::Notify as Wakeup;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::metrics::NotifyMetrics;
use super::queue::Queue;
use super::{Alert, wire};
use crate::client::{HttpClient, Request};

/// Most alerts of one request.
const BATCH: usize = 64;
/// Waits between attempts, the last one again and again.
const BACK_OFF: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
];
/// Most bytes of an answer that are read.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// One Alertmanager.
pub(super) struct Sender {
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Shared {
    url: Url,
    /// The URL as metrics name it.
    name: String,
    client: HttpClient,
    timeout: Duration,
    queue: Mutex<Queue>,
    more: Wakeup,
    metrics: NotifyMetrics,
}

impl Sender {
    /// Starts the task; within the runtime only.
    pub(super) fn start(
        url: Url,
        client: HttpClient,
        timeout: Duration,
        capacity: usize,
        metrics: NotifyMetrics,
    ) -> Self {
        let name = url.to_string();
        metrics.add(&name);
        let shared = Arc::new(Shared {
            url,
            name,
            client,
            timeout,
            queue: Mutex::new(Queue::new(capacity)),
            more: Wakeup::new(),
            metrics,
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(shared.clone().run(stop.clone()));
        Self { shared, stop, task }
    }

    /// Queues alerts.
    pub(super) fn push(&self, alerts: &[Alert]) {
        let dropped = self.shared.queue(|queue| queue.push(alerts.iter().cloned()));
        self.shared.metrics.dropped.add(dropped);
        self.shared.more.notify_one();
    }

    /// Alerts that wait.
    pub(super) fn queued(&self) -> usize {
        self.shared.queue(|queue| queue.len())
    }

    /// Stops the task; what still waits is tried once more if `drain`.
    pub(super) async fn stop(self, drain: bool) {
        self.stop.cancel();
        let _ = self.task.await;
        if drain {
            while self.shared.send_batch().await == Sent::Some {}
        }
        let left = self.shared.queue(|queue| queue.len()) as u64;
        self.shared.metrics.dropped.add(left);
        if left > 0 {
            let alertmanager = &self.shared.name;
            tracing::warn!(alertmanager, left, "alerts were not sent before the end");
        }
        self.shared.metrics.remove(&self.shared.name);
    }
}

/// What came of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Nothing,
    Some,
    Failed,
}

impl Shared {
    fn queue<T>(&self, with: impl FnOnce(&mut Queue) -> T) -> T {
        with(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let sent = tokio::select! {
                () = stop.cancelled() => return,
                sent = self.send_batch() => sent,
            };
            let wait = match sent {
                Sent::Some => {
                    failures = 0;
                    continue;
                }
                Sent::Nothing => None,
                Sent::Failed => {
                    let wait = BACK_OFF[failures.min(BACK_OFF.len() - 1)];
                    failures += 1;
                    Some(wait)
                }
            };
            let waiting = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => self.more.notified().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = waiting => {}
            }
        }
    }

    /// Sends the first alerts of the queue. If the future is dropped on the
    /// way they are back in the queue.
    async fn send_batch(&self) -> Sent {
        let mut batch = Batch { shared: self, alerts: self.queue(|queue| queue.take(BATCH)) };
        if batch.alerts.is_empty() {
            return Sent::Nothing;
        }
        let name = [self.name.as_str()];
        let count = batch.alerts.len() as u64;
        let started = Instant::now();
        let result = self.post(wire::postable(&batch.alerts)).await;
        self.metrics.latency.with(&name).observe(started.elapsed().as_secs_f64());
        self.metrics.sent.with(&name).add(count);
        match result {
            Ok(()) => {
                batch.alerts.clear();
                Sent::Some
            }
            Err(error) => {
                tracing::error!(alertmanager = self.name, count, %error, "cannot send alerts");
                self.metrics.errors.with(&name).add(count);
                Sent::Failed
            }
        }
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), String> {
        let request = post(self.url.clone(), body, self.timeout);
        accepted(&self.client, request).await
    }
}

/// A request with JSON.
pub(super) fn post(url: Url, body: Vec<u8>, timeout: Duration) -> Request {
    let mut request = Request::new(Method::POST, url);
    request.set_header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.body = Bytes::from(body);
    request.timeout = timeout;
    request
}

/// Sends a request; any answer of 2xx is well.
pub(super) async fn accepted(client: &HttpClient, request: Request) -> Result<(), String> {
    let mut response = client.send(request).await.map_err(|error| error.to_string())?;
    let status = response.status;
    // Read, so that the connection is kept.
    let body = response.read(MAX_ANSWER_BYTES).await.unwrap_or_default();
    if status.is_success() {
        return Ok(());
    }
    let text: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
    Err(format!("bad response status {status}: {text}"))
}

/// Alerts that are on their way; what is left when it goes is put back.
struct Batch<'a> {
    shared: &'a Shared,
    alerts: Vec<Alert>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let alerts = std::mem::take(&mut self.alerts);
        if !alerts.is_empty() {
            let dropped = self.shared.queue(|queue| queue.put_back(alerts));
            self.shared.metrics.dropped.add(dropped);
        }
    }
}
