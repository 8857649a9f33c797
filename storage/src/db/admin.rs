//! What does an administrator ask of the storage? To delete series, to clean
//! up behind that, to copy the data directory, to make days small.
//!
//! A merge writes all stripes of a day into one new volume, as long stripes and
//! without deleted samples; see [`crate::engine::sealed::Successor`].

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::maintain::DayFiles;
use super::stats::Counters;
use super::{Db, Inner, lock};
use crate::day::catalog::{Catalog, Day, LayoutStripes, Stripe};
use crate::day::stripe::{DecodedColumn, Encoded, Header, RunRange, Samples, StripeBuilder};
use crate::day::{DAY_MS, day_of};
use crate::engine::fs::{FileSystem, read_all, write_atomically};
use crate::engine::sealed::Successor;
use crate::labels::Matcher;
use crate::read::ReadError;
use crate::series::file as series_file;

/// Most rows of a stripe that a merge writes.
const MERGED_ROWS: usize = 5760;
/// A day is merged so long after its end.
const MERGE_DELAY_MS: i64 = 2 * 3_600_000;

/// A merge that failed is tried again after this: it writes much for nothing.
const MERGE_RETRY_MS: i64 = 10 * 60_000;

/// Folders of small files, which a snapshot copies.
const SMALL: [&str; 2] = ["state", "state/alerts"];

impl Db {
    /// Deletes the samples of all series that match one of `selectors` in
    /// `start_ms..=end_ms` (milliseconds since the Unix epoch), durably. They
    /// are not returned from now on, and leave the disk with the next merge
    /// of their day or [`Db::clean_tombstones`].
    ///
    /// # Errors
    ///
    /// [`ReadError::Io`] if the deletion cannot be written; nothing is deleted.
    pub fn delete(
        &self,
        selectors: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<(), ReadError> {
        self.inner.delete(selectors, start_ms, end_ms)
    }

    /// Takes deleted samples out of the files. Seals everything, then rewrites
    /// the days that hold some.
    ///
    /// # Errors
    ///
    /// What the system says; what was not cleaned stays hidden.
    pub fn clean_tombstones(&self) -> io::Result<()> {
        self.inner.clean_tombstones()
    }

    /// Makes `target`, which must not exist, a data directory with everything
    /// committed so far: open rows are sealed, then closed files are linked
    /// and small ones copied. Must be on the same file system.
    ///
    /// # Errors
    ///
    /// What the system says; `target` is then removed.
    pub fn snapshot(&self, target: &Path) -> io::Result<()> {
        self.inner.snapshot_to(target)
    }

    /// Rewrites a day (UTC, since the epoch) as one file of long stripes.
    ///
    /// # Errors
    ///
    /// What the system says; the day is then as it was.
    pub fn merge_day(&self, day: i64) -> io::Result<()> {
        self.inner.merge_day(day)
    }
}

impl Inner {
    fn delete(
        &self,
        selectors: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<(), ReadError> {
        let mut ids = roaring::RoaringBitmap::new();
        let mut all = roaring::RoaringBitmap::new();
        all.insert_range(..self.series.next_id());
        for matchers in selectors {
            ids |= self.series.select(matchers, &all).map_err(super::read::series_error)?;
        }
        if ids.is_empty() || start_ms > end_ms {
            return Ok(());
        }
        let io_error = |source| ReadError::Io { file: "state/tombstones".to_owned(), source };
        // They name series.
        self.series.sync().map_err(io_error)?;
        let mut current = self.tombstones.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = (**current).clone();
        next.add(ids, start_ms, end_ms);
        next.save(&*self.options.file_system, &self.options.path).map_err(io_error)?;
        *current = Arc::new(next);
        self.changes.begin_epoch();
        Ok(())
    }

    /// The deletions there are.
    pub(super) fn tombstones(&self) -> Arc<super::tombstones::Tombstones> {
        Arc::clone(&self.tombstones.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn clean_tombstones(&self) -> io::Result<()> {
        let tombstones = self.tombstones();
        if tombstones.is_empty() {
            return Ok(());
        }
        self.seal_all()?;
        let days: Vec<i64> = {
            let catalog = Arc::clone(&lock(&self.write).catalog);
            let hit = |d: &&Arc<Day>| d.bounds().is_some_and(|(a, b)| tombstones.touches(a, b));
            catalog.days.iter().filter(hit).map(|d| d.day).collect()
        };
        for day in days {
            self.merge_day(day)?;
        }
        if !lock(&self.day_files).unread.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "some days are damaged: their deleted samples stay hidden",
            ));
        }
        let mut current = self.tombstones.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, &tombstones) {
            let none = super::tombstones::Tombstones::default();
            none.save(&*self.options.file_system, &self.options.path)?;
            *current = Arc::new(none);
            self.changes.begin_epoch();
        }
        Ok(())
    }

    fn snapshot_to(&self, target: &Path) -> io::Result<()> {
        let fs = &*self.options.file_system;
        // Before anything that is removed after an error.
        if !fs.list(target)?.is_empty() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "snapshot target exists"));
        }
        self.seal_all()?;
        let mut files = lock(&self.day_files);
        self.sync_days(&mut files)?;
        let result = self.link_all(&mut files, target);
        if result.is_err() {
            let _ = fs.remove_dir_all(target);
        }
        result
    }

    fn link_all(&self, files: &mut DayFiles, target: &Path) -> io::Result<()> {
        let (fs, root) = (&*self.options.file_system, &self.options.path);
        let write = lock(&self.write);
        create_durably(fs, target)?;
        files.sealed.link_to(target, &write.catalog.volumes())?;
        fs.create_dir_all(&target.join(series_file::DIRECTORY))?;
        let (segments, tail) = self.series.files();
        for segment in segments {
            fs.hard_link(&root.join(&segment), &target.join(&segment))?;
        }
        fs.sync_dir(&target.join(series_file::DIRECTORY))?;
        copy(fs, root, target, &tail)?;
        // Below `state/` others keep files, too.
        for directory in SMALL {
            fs.create_dir_all(&target.join(directory))?;
            let names = fs.list(&root.join(directory))?;
            let paths: Vec<String> = names.iter().map(|n| format!("{directory}/{n}")).collect();
            let is_file = |path: &&String| !SMALL.contains(&path.as_str());
            for path in paths.iter().filter(is_file) {
                copy(fs, root, target, path)?;
            }
        }
        fs.sync_dir(&target.join("state"))?;
        fs.sync_dir(target)
    }

    /// Merges the newest day that ended long enough ago and has short stripes. One
    /// of full stripes would be a few percent smaller, for writing it twice.
    pub(super) fn merge_closed_day(&self, now_ms: i64) -> io::Result<()> {
        let closed = day_of(now_ms.saturating_sub(MERGE_DELAY_MS));
        let due = {
            let files = lock(&self.day_files);
            let wait_ms = files.merge_after_ms.map_or(0, |after| after.saturating_sub(now_ms));
            if (1..=MERGE_RETRY_MS).contains(&wait_ms) {
                return Ok(());
            }
            let catalog = Arc::clone(&lock(&self.write).catalog);
            let is_due = |d: &&Arc<Day>| {
                d.day < closed
                    && d.is_fragmented()
                    && !d.is_merged()
                    && !files.unread.contains(&d.day)
            };
            catalog.days.iter().rev().find(is_due).map(|d| d.day)
        };
        let Some(day) = due else { return Ok(()) };
        let merged = self.merge_day(day);
        lock(&self.day_files).merge_after_ms =
            merged.is_err().then(|| now_ms.saturating_add(MERGE_RETRY_MS));
        merged
    }

    fn merge_day(&self, day: i64) -> io::Result<()> {
        let mut files = lock(&self.day_files);
        let closed = files.sealed.close(day);
        if closed.is_err() {
            files.suspect.insert(day);
        }
        closed?;
        self.rewrite_day(&mut files, day)
    }

    /// Writes all stripes of a day, whose volumes are closed, into a new one.
    pub(super) fn rewrite_day(&self, files: &mut DayFiles, day: i64) -> io::Result<()> {
        let catalog = Arc::clone(&lock(&self.write).catalog);
        let Some(sources) = catalog.days.iter().find(|d| d.day == day).cloned() else {
            return Ok(());
        };
        if files.unread.contains(&day) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a day with damage is not rewritten",
            ));
        }
        let mut successor = files.sealed.successor(day)?;
        let stripes = self.write_merged(&sources, &mut *successor).inspect_err(|e| {
            if e.kind() == io::ErrorKind::InvalidData {
                files.unread.insert(day);
            }
        })?;
        let volume = successor.finish()?;
        {
            let mut write = lock(&self.write);
            let catalog: &mut Catalog = Arc::make_mut(&mut write.catalog);
            catalog.days.retain(|d| d.day != day);
            for (mut stripe, layout) in stripes {
                stripe.volume = Arc::clone(&volume);
                catalog.add(stripe, layout);
            }
            write.writer.is_view_stale = true;
            self.publish(&mut write);
        }
        files.suspect.remove(&day);
        files.sealed.retire(sources.volumes())
    }

    fn write_merged(
        &self,
        sources: &Day,
        target: &mut dyn Successor,
    ) -> io::Result<Vec<(Stripe, crate::axis::Layout)>> {
        let mut written = Vec::new();
        for list in &sources.layouts {
            let mut rest = list.stripes.as_slice();
            while !rest.is_empty() {
                self.between_steps()?;
                let count = joinable(rest);
                let (some, others) = rest.split_at(count);
                rest = others;
                let id = lock(&self.write).writer.take_stripe_id();
                let Some(encoded) = self.join_stripes(list, some, id)? else { continue };
                let stripe = target.append(id, &encoded)?;
                Counters::add(&self.counters.days_written, encoded.bytes.len() as u64);
                written.push((stripe, encoded.layout));
            }
        }
        Ok(written)
    }

    /// One stripe out of several with the same columns.
    fn join_stripes(
        &self,
        list: &LayoutStripes,
        stripes: &[Stripe],
        id: u64,
    ) -> io::Result<Option<Encoded>> {
        let tombstones = self.tombstones();
        let mut parts = Vec::with_capacity(stripes.len());
        let mut times = Vec::new();
        for stripe in stripes {
            let header = stripe.read_header()?;
            times.extend_from_slice(&header.times);
            parts.push(Part { stripe, header, run: None });
        }
        let mut builder = StripeBuilder::new(times.clone());
        let (mut samples, mut decoded) = (Samples::default(), DecodedColumn::default());
        for (column, &series) in list.layout.ids().iter().enumerate() {
            samples.clear();
            let mut first_row = 0;
            for part in &mut parts {
                part.load(column, &mut decoded)?;
                let rows = part.header.times.len();
                let axis = part.header.axis_of(column);
                let mut row = first_row;
                let mut histograms = decoded.histograms.iter().peekable();
                for (i, &time) in axis.iter().enumerate() {
                    while times[row] < time {
                        row += 1;
                    }
                    let histogram = histograms.next_if(|(at, _)| *at as usize == i);
                    if tombstones.covers(series, time) {
                        continue;
                    }
                    match histogram {
                        Some((_, h)) => {
                            samples.histograms.push((samples.rows.len() as u32, Arc::clone(h)));
                        }
                        None => samples.floats.push(decoded.floats[i]),
                    }
                    let start_ms = decoded.starts_ms.get(i).copied().unwrap_or(0);
                    samples.push_start(start_ms);
                    samples.rows.push(row as u32);
                }
                first_row += rows;
            }
            builder.add(series, &samples);
        }
        Ok(builder.finish(id))
    }
}

/// Copies a small file.
fn copy(fs: &dyn FileSystem, root: &Path, target: &Path, path: &str) -> io::Result<()> {
    let bytes = read_all(fs, &root.join(path), u64::MAX)?;
    write_atomically(fs, &target.join(path), &bytes)
}

/// Creates a directory and its parents, and makes their names durable.
pub(super) fn create_durably(fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
    fs.create_dir_all(path)?;
    // All of them: one that was killed may have created them just before.
    for parent in path.ancestors().skip(1) {
        match fs.sync_dir(parent) {
            // Then it is not ours, and was there before.
            Err(e) if e.kind() != io::ErrorKind::PermissionDenied => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// How many of the first stripes follow each other in time and are short
/// enough together.
fn joinable(stripes: &[Stripe]) -> usize {
    // Rows are not in the catalog; a stripe of a scrape each 15 s has 120.
    const MAX_STRIPES: usize = MERGED_ROWS / 120;
    let pairs = stripes.windows(2).take(MAX_STRIPES - 1);
    1 + pairs.take_while(|p| p[0].max_ms < p[1].min_ms).count()
}

struct Part<'a> {
    stripe: &'a Stripe,
    header: Header,
    /// The run that was loaded last.
    run: Option<(RunRange, Vec<u8>)>,
}

impl Part<'_> {
    fn load(&mut self, column: usize, out: &mut DecodedColumn) -> io::Result<()> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a chunk is damaged");
        let run = self.header.run_of(column).ok_or_else(damaged)?;
        if self.run.as_ref().is_none_or(|(loaded, _)| *loaded != run) {
            let bytes = self.stripe.read_run(&run)?;
            self.run = Some((run, bytes));
        }
        let Some((run, bytes)) = &self.run else { return Err(damaged()) };
        self.header.decode_column(column, run, bytes, out).map_err(|_| damaged())
    }
}

/// The day that a test or tool asks for by a time in it.
#[must_use]
pub const fn day_of_ms(timestamp_ms: i64) -> i64 {
    timestamp_ms.div_euclid(DAY_MS)
}
