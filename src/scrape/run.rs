//! The loop of one target: wait, fetch, write, until told to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::failure_log::FailureLog;
use super::fetch::{Buffers, FetchError, Fetcher};
use super::negotiation::{Format, format_of};
use super::target::Target;
use super::timing::{Schedule, offset};
use super::write::{Memory, Scraped, Writer};
use crate::config::ScrapeProtocol;
use crate::metrics::Summary;

/// Pages from this size on are read while other tasks of the thread move on.
const LARGE_PAGE_BYTES: usize = 1 << 20;

/// Everything that one loop needs.
pub(super) struct Loop {
    pub(super) target: Arc<Target>,
    pub(super) fetcher: Fetcher,
    pub(super) writer: Writer,
    pub(super) buffers: Buffers,
    pub(super) fallback: Option<ScrapeProtocol>,
    pub(super) failure_log: Option<Arc<FailureLog>>,
    pub(super) job: Arc<str>,
    pub(super) interval_length: Summary,
    /// Keys the offset within the interval.
    pub(super) offset_hash: u64,
    /// An error of the pool that fails every scrape, such as its target limit.
    pub(super) forced_error: Arc<Mutex<Option<String>>>,
    pub(super) control: Control,
    pub(super) memory: Arc<tokio::sync::Mutex<Memory>>,
}

/// How a loop is stopped.
#[derive(Debug, Clone, Default)]
pub(super) struct Control {
    /// No further scrape.
    pub(super) stop: CancellationToken,
    /// Nothing at all, not even staleness markers: the process or the whole
    /// pool ends.
    pub(super) shutdown: CancellationToken,
    /// Another loop goes on with the memory, so the series do not end.
    pub(super) replaced: Arc<AtomicBool>,
}

fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos())
}

impl Loop {
    /// Runs until stopped; then writes the markers of a target that is gone.
    pub(super) async fn run(self) {
        let interval = self.target.spec.interval;
        let first = Instant::now() + offset(self.offset_hash, now_ns(), interval);
        tokio::select! {
            () = tokio::time::sleep_until(first) => {}
            () = self.control.stop.cancelled() => return,
        }
        // Made once: each poll of a new one would join the list of those who wait.
        let (stop, shutdown) = (self.control.stop.cancelled(), self.control.shutdown.cancelled());
        tokio::pin!(stop, shutdown);
        // A loop that is replaced lets go of the memory when its scrape is over.
        let mut memory = tokio::select! {
            biased;
            () = &mut stop => return,
            memory = Arc::clone(&self.memory).lock_owned() => memory,
        };
        // Not from now: loops that wake together go on waking together.
        let mut ticker = tokio::time::interval_at(first, interval);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticker.tick().await;
        let mut schedule = Schedule::new(now_ns(), interval);
        let mut last: Option<Instant> = None;
        loop {
            let started = Instant::now();
            if let Some(last) = last.replace(started) {
                self.interval_length.observe(started.duration_since(last).as_secs_f64());
            }
            let timestamp_ms = schedule.timestamp_ms(now_ns());
            tokio::select! {
                biased;
                // A reload lets a scrape end, a shutdown does not.
                () = &mut shutdown => return,
                () = self.scrape(&mut memory, started, timestamp_ms) => {}
            }
            tokio::select! {
                biased;
                () = &mut stop => break,
                _ = ticker.tick() => {}
            }
        }
        if !self.control.replaced.load(Ordering::Acquire) {
            self.end(&mut memory, ticker, interval).await;
        }
    }

    async fn scrape(&self, memory: &mut Memory, started: Instant, timestamp_ms: i64) {
        let forced = self.forced_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut page = self.buffers.take();
        let mut body_bytes = 0.0;
        let fetched = match forced {
            Some(error) => Err(error),
            None => match self.fetcher.fetch(&mut page, &self.buffers).await {
                Ok(content_type) => Ok(content_type),
                Err(e) => {
                    if matches!(e, FetchError::TooLarge) {
                        self.writer.metrics.exceeded_body_size_limit.inc();
                        body_bytes = -1.0;
                    }
                    let message = e.to_string();
                    if let Some(log) = &self.failure_log {
                        log.write(&self.job, &self.target.spec.url, &message);
                    }
                    Err(message)
                }
            },
        };
        let format = fetched.and_then(|content_type| {
            #[allow(clippy::cast_precision_loss, reason = "pages are far below 2^53 bytes")]
            let length = page.len() as f64;
            body_bytes = length;
            if page.is_empty() { Ok(Format::Text) } else { format_of(&content_type, self.fallback) }
        });
        if format == Ok(Format::Text) && !page.is_empty() {
            page.push(b'\n');
        }
        let scraped = Scraped {
            page: format.map(|format| (page.as_slice(), format)),
            body_bytes,
            timestamp_ms,
            started,
        };
        let error = if page.len() >= LARGE_PAGE_BYTES && may_block_in_place() {
            tokio::task::block_in_place(|| self.writer.write(memory, &self.target, &scraped))
        } else {
            self.writer.write(memory, &self.target, &scraped)
        };
        if let Some(error) = error {
            tracing::debug!(url = self.target.spec.url, error, "scrape failed");
        }
        self.buffers.put(page);
    }

    /// The target is gone. It may come back at once, with another identity
    /// and the same series: markers are written after two more ticks and a
    /// tenth of the interval, with the time of the first tick.
    async fn end(
        &self,
        memory: &mut Memory,
        mut ticker: tokio::time::Interval,
        interval: Duration,
    ) {
        let mut stale_ms = 0;
        let wait = async {
            ticker.tick().await;
            stale_ms = i64::try_from(now_ns() / 1_000_000).unwrap_or(i64::MAX);
            ticker.tick().await;
            tokio::time::sleep(interval / 10).await;
        };
        tokio::select! {
            () = wait => {}
            () = self.control.shutdown.cancelled() => return,
        }
        if !self.control.replaced.load(Ordering::Acquire) {
            self.writer.write_end(memory, stale_ms);
        }
    }
}

fn may_block_in_place() -> bool {
    tokio::runtime::Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread)
}
