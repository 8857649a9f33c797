//! How is something asked again and again? What a failed refresh leaves alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{TargetGroup, TargetGroups};
use crate::metrics::{Counter, Summary};

/// What a provider publishes; `None` before it knows anything.
pub type Published = watch::Sender<Option<TargetGroups>>;

/// Publishes groups if they differ from those before.
pub fn publish(sender: &Published, groups: Vec<TargetGroup>) {
    let groups = groups.into_iter().filter(|g| !g.targets.is_empty()).map(Arc::new).collect();
    let groups: TargetGroups = Arc::new(groups);
    sender.send_if_modified(|known| {
        let differs = known.as_ref() != Some(&groups);
        if differs {
            *known = Some(groups);
        }
        differs
    });
}

/// The rounds of something that is asked again and again, and their metrics.
pub struct Rounds {
    ticks: tokio::time::Interval,
    failures: Counter,
    duration: Summary,
}

impl Rounds {
    /// The first round is at once, the next ones every `interval`.
    pub fn new(interval: Duration, failures: Counter, duration: Summary) -> Self {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { ticks, failures, duration }
    }

    /// Waits for the next round.
    pub async fn next(&mut self) -> Instant {
        self.ticks.tick().await;
        Instant::now()
    }

    /// Publishes what a round found; what a failed one found before stays.
    pub fn finish(
        &self,
        started: Instant,
        found: Result<Vec<TargetGroup>, String>,
        sender: &Published,
    ) {
        match found {
            Ok(groups) => publish(sender, groups),
            Err(error) => {
                self.failures.inc();
                tracing::warn!("target groups not refreshed, those before stay: {error}");
            }
        }
        self.duration.observe(started.elapsed().as_secs_f64());
    }
}
