//! One target: what it is, and how its last scrape went.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use narthex_storage::labels::Labels;

use super::metadata::TargetMetadata;
use crate::config::ScrapeConfig;
use crate::discovery::targets::{Discovered, TargetSpec};

/// Whether the last scrape was good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// Not scraped yet.
    #[default]
    Unknown,
    /// The last scrape was good.
    Up,
    /// It was not.
    Down,
}

impl Health {
    /// The name in Prometheus' API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// How the last scrape went.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LastScrape {
    /// Its outcome.
    pub health: Health,
    /// Why it failed; empty if it did not.
    pub error: String,
    /// When it started, in milliseconds since the epoch; 0 is never.
    pub started_ms: i64,
    /// How long it took.
    pub duration: Duration,
}

/// A target that is scraped. Shared between its loop and whoever looks on.
#[derive(Debug)]
pub struct Target {
    /// Labels, URL, timing.
    pub spec: Arc<TargetSpec>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    discovered: Discovered,
    last: LastScrape,
    metadata: TargetMetadata,
}

impl Target {
    /// A target that was not scraped yet.
    #[must_use]
    pub fn new(spec: Arc<TargetSpec>, discovered: Discovered) -> Self {
        let state =
            State { discovered, last: LastScrape::default(), metadata: TargetMetadata::default() };
        Self { spec, state: Mutex::new(state) }
    }

    /// The labels before relabeling, as discovered last; `config` is the
    /// pool's.
    #[must_use]
    pub fn discovered(&self, config: &ScrapeConfig) -> Labels {
        let discovered = self.lock().discovered.clone();
        discovered.labels(config)
    }

    /// How the last scrape went.
    #[must_use]
    pub fn last(&self) -> LastScrape {
        self.lock().last.clone()
    }

    /// Types, helps and units on its last good page.
    #[must_use]
    pub fn metadata(&self) -> TargetMetadata {
        self.lock().metadata.clone()
    }

    /// Goes on where the target before a reload was.
    pub(super) fn take_state(&self, before: &Self) {
        let before = before.lock();
        let mut state = self.lock();
        state.last = before.last.clone();
        state.metadata = before.metadata.clone();
    }

    pub(super) fn rediscover(&self, discovered: Discovered) {
        self.lock().discovered = discovered;
    }

    pub(super) fn set_metadata(&self, metadata: TargetMetadata) {
        self.lock().metadata = metadata;
    }

    /// Takes note of a scrape. Allocates only for errors.
    pub(super) fn report(&self, started_ms: i64, duration: Duration, error: Option<String>) {
        let mut state = self.lock();
        let health = if error.is_some() { Health::Down } else { Health::Up };
        state.last = LastScrape { health, error: error.unwrap_or_default(), started_ms, duration };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
