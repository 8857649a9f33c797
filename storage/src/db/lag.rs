//! What if the log cannot be written?
//!
//! Scrapes and rules go on from memory: their rows are visible and the log
//! *lags*. Remote writes are refused, for their senders keep what they have.
//! Every tick tries to catch up: a new segment takes, behind key rows, all
//! that is not in a stripe, and only when it is complete does it count.
//!
//! The same happens when a sync failed. The kernel may then have dropped
//! pages it could not write, and syncing again would say nothing of them; but
//! the rows are still in memory.
//!
//! Memory bounds it: when the head is over its share, commits fail.

use std::io;
use std::sync::Arc;

use super::{Inner, WriteSide, lock};
use crate::budget::Level;
use crate::head::open::OpenStripe;
use crate::wal;

/// How far the log is behind memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lag {
    /// Rows in memory are not in the log, or may leave it.
    pub(super) lags: bool,
    /// The open segment was begun to catch up.
    is_catching_up: bool,
}

impl Lag {
    /// The lag of a log whose first segment could not be created.
    pub(super) const fn from_start() -> Self {
        Self { lags: true, is_catching_up: false }
    }

    /// Notes that the log misses something.
    pub(super) const fn begin(&mut self) {
        self.lags = true;
    }
}

impl Inner {
    /// Writes what the log misses.
    ///
    /// Stripes are made durable first: the segment that is given up may be all
    /// that has their rows.
    pub(super) fn catch_up(&self) -> io::Result<()> {
        if !lock(&self.write).lag.lags {
            return Ok(());
        }
        self.rewrite_log()
    }

    /// Begins a segment with all that is not in a stripe, after which no other
    /// is needed. What fails is caught up with.
    pub(super) fn rewrite_log(&self) -> io::Result<()> {
        let mut files = lock(&self.day_files);
        self.sync_days(&mut files)?;
        let mut write = lock(&self.write);
        write.lag.begin();
        self.write_again(&mut write)?;
        write.lag = Lag::default();
        Ok(())
    }

    fn write_again(&self, write: &mut WriteSide) -> io::Result<()> {
        self.series.append_new()?;
        if write.lag.is_catching_up {
            write.wal.restart()?;
        } else {
            write.wal.abandon()?;
            write.lag.is_catching_up = true;
        }
        let stripes: Vec<Arc<OpenStripe>> =
            write.writer.open_stripes().chain(&write.sealing).cloned().collect();
        for open in &stripes {
            wal::begin(&mut write.record);
            wal::put_restart(&mut write.record, open.id);
            let rows = open.lock();
            if rows.times.is_empty() {
                continue;
            }
            rows.items().for_each(|item| wal::put_item(&mut write.record, open.id, item));
            drop(rows);
            write.wal.append(&mut write.record)?;
        }
        write.wal.conclude()?;
        let segment = write.wal.segment();
        for open in stripes {
            let mut rows = open.lock();
            (rows.first_segment, rows.newest_segment) = (segment, segment);
        }
        write.sync_due_ms = Some(i64::MIN);
        Ok(())
    }

    /// Whether rows may be kept that the log does not take.
    pub(super) fn has_room(&self) -> bool {
        self.admission.level() < Level::Closed
    }
}
