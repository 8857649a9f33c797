//! How long to wait after a failure? Exponentially longer, with full jitter,
//! so that a thousand clients of one server do not come back at once.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

/// The pause after the first failure is at most this.
const FIRST: Duration = Duration::from_millis(800);

/// No pause of our own is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// What a server asks for is believed up to this.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// So long after a failure the next one is the first again.
const PEACE: Duration = Duration::from_secs(120);

/// Passing time, so that an hour of an outage can be a matter of
/// milliseconds.
#[derive(Clone)]
pub struct Clock {
    /// Since some fixed moment.
    pub now: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// Waits.
    pub sleep: Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Clock {
    /// The runtime's.
    #[must_use]
    pub fn real() -> Self {
        let started = Instant::now();
        Self {
            now: Arc::new(move || started.elapsed()),
            sleep: Arc::new(|pause| Box::pin(tokio::time::sleep(pause))),
        }
    }
}

/// Pauses between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    until: Option<Duration>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST, until: None }
    }
}

impl Backoff {
    /// The pause after a failure at `now`; at least what the server asked for.
    pub fn pause(&mut self, now: Duration, asked: Option<Duration>) -> Duration {
        if self.until.is_some_and(|until| now.saturating_sub(until) >= PEACE) {
            self.next = FIRST;
        }
        let own = self.next.mul_f64(random());
        self.next = (self.next * 2).min(LONGEST);
        let pause = own.max(asked.unwrap_or_default().min(LONGEST_ASKED));
        self.until = Some(now + pause);
        pause
    }
}

/// Uniform in `0.0..1.0`; not for secrets.
pub fn random() -> f64 {
    let bits = RandomState::new().hash_one(0) >> 11;
    #[allow(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let fraction = bits as f64 / (1_u64 << 53) as f64;
    fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_again_after_peace() {
        let mut backoff = Backoff::default();
        let (mut limit, mut now) = (FIRST, Duration::ZERO);
        for _ in 0..10 {
            let pause = backoff.pause(now, None);
            now += pause;
            assert!(pause <= limit, "{pause:?} > {limit:?}");
            limit = (limit * 2).min(LONGEST);
        }
        assert_eq!(backoff.next, LONGEST);
        let asked = Duration::from_secs(40);
        assert_eq!(backoff.pause(now, Some(asked)), asked);
        assert_eq!(backoff.pause(now, Some(Duration::MAX)), LONGEST_ASKED);
        now += LONGEST_ASKED + PEACE;
        assert!(backoff.pause(now, None) <= FIRST);
        let drawn: Vec<f64> = (0..100).map(|_| random()).collect();
        assert!(drawn.iter().all(|r| (0.0..1.0).contains(r)));
        assert!(drawn.iter().any(|r| *r < 0.5) && drawn.iter().any(|r| *r > 0.5));
    }
}
