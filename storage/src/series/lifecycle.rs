//! How do series come to disk, leave memory, and end?

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use roaring::RoaringBitmap;

use super::file::{DIRECTORY, OpenFailure, number_of};
use super::segment::{self, EXTENSION, Segment, name_of};
use super::{Between, Series, SeriesDamage, SeriesTable, is_damage};
use crate::engine::fs::FileSystem;
use crate::index::Index;

/// So many segments of about one size are merged.
const MERGED: usize = 4;
/// Series that are copied under one lock.
const STEP: usize = 4096;
/// Parts of a segment that must be of no use before it is rewritten: one in so
/// many.
const UNUSED_SHARE: u64 = 8;

/// Segments with series that ended, and what is left of each.
pub(crate) type Ended = Vec<(Arc<Segment>, RoaringBitmap)>;

/// Opens all segments, ascending; those that a merge superseded are removed,
/// those that cannot be used are set aside. Says which number is free.
pub(super) fn open_segments(
    fs: &dyn FileSystem,
    root: &Path,
    damages: &mut Vec<SeriesDamage>,
) -> Result<(Vec<Arc<Segment>>, u64), OpenFailure> {
    let mut numbers = Vec::new();
    for name in fs.list(&root.join(DIRECTORY))? {
        if number_of(&name, "tmp").is_some() {
            // What cannot be removed now is in nobody's way.
            let _ = fs.remove_file(&root.join(DIRECTORY).join(name));
        } else if let Some(number) = number_of(&name, EXTENSION) {
            numbers.push(number);
        }
    }
    // The newest first: it may supersede others.
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let next = numbers.first().map_or(1, |n| n.saturating_add(1));
    let mut segments: Vec<Arc<Segment>> = Vec::new();
    for number in numbers {
        let path = root.join(name_of(number, EXTENSION));
        match Segment::open(fs, root, number) {
            Ok(segment) => {
                let is_within =
                    |s: &Arc<Segment>| s.first_id <= segment.first_id && segment.end_id <= s.end_id;
                let damage = |(offset, bytes, what): &(u64, u64, &str)| SeriesDamage {
                    file: segment.name.clone(),
                    offset: *offset,
                    bytes: *bytes,
                    what: format!("{what} is damaged; nothing is lost"),
                };
                damages.extend(segment.healed.iter().map(damage));
                if segments.iter().any(is_within) {
                    let _ = fs.remove_file(&path);
                } else {
                    segments.push(Arc::new(segment));
                }
            }
            Err(e) if is_damage(&e) => {
                let (offset, bytes) = segment::place_of(&e);
                let file = name_of(number, EXTENSION);
                let what = format!("{e}; labels of series are lost");
                damages.push(SeriesDamage { file, offset, bytes, what });
                fs.rename(&path, &root.join(name_of(number, "damaged")))?;
            }
            Err(source) => {
                return Err(OpenFailure { file: name_of(number, EXTENSION), source });
            }
        }
    }
    segments.sort_unstable_by_key(|s| s.first_id);
    Ok((segments, next))
}

impl Series {
    /// Writes the tail to a segment and forgets what is not in use, if that is
    /// worth while; says whether. `in_use` is asked for the series with open
    /// rows. Those that are new since the last call stay. Unless it `counts` those
    /// out of use, only a long tail is reason enough.
    ///
    /// `between` is called again and again, so that others need not wait; its
    /// error ends the work, here and below.
    ///
    /// Cost: some microseconds for each new series, less for each in use. New
    /// series wait for a copy of some thousand others at most.
    ///
    /// # Errors
    ///
    /// What the system says; everything is then as it was.
    pub(crate) fn collect(
        &self,
        in_use: impl FnOnce() -> RoaringBitmap,
        counts: bool,
        between: Between<'_>,
    ) -> io::Result<bool> {
        let (tail, in_memory) = {
            let table = self.table();
            (table.tail(), table.len() as u64)
        };
        let is_long = tail.len() as u32 >= self.limits.tail;
        if !is_long && (!counts || in_memory < self.limits.unused) {
            return Ok(false);
        }
        let mut keep = in_use();
        let recent = self.recent.swap(tail.end, Ordering::Relaxed);
        keep.insert_range(recent..);
        let alive = {
            let table = self.table();
            table.ids().filter(|id| keep.contains(*id)).count() as u64
        };
        let dead = in_memory.saturating_sub(alive);
        if !is_long && dead < self.limits.unused.max(alive / 4) {
            return Ok(false);
        }
        // An attempt before this one may have ended between the two.
        let first = self.segments().last().map_or(tail.start, |s| s.end_id.max(tail.start));
        if first < tail.end {
            self.write_tail(first..tail.end, between)?;
        }
        self.replace_table(tail.end, &keep, between)?;
        Ok(true)
    }

    fn write_tail(&self, tail: Range<u32>, between: Between<'_>) -> io::Result<()> {
        let mut copy = SeriesTable::starting_at(tail.start);
        copy.reserve(tail.len());
        let mut ids: Vec<u32> = Vec::with_capacity(tail.len());
        for start in tail.clone().step_by(STEP) {
            between()?;
            let table = self.table();
            for id in start..tail.end.min(start.saturating_add(STEP as u32)) {
                if let Some(labels) = table.labels(id)
                    && copy.insert_as(id, &labels)
                {
                    ids.push(id);
                }
            }
        }
        let number = self.next_segment.fetch_add(1, Ordering::Relaxed);
        let segment = self.write_copy(number, &copy, &ids, tail, between).inspect_err(|_| {
            let _ = self.fs.remove_file(&self.root.join(name_of(number, "tmp")));
        })?;
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = segments.to_vec();
        next.push(Arc::new(segment));
        *segments = Arc::new(next);
        Ok(())
    }

    /// Begins a table whose tail starts at `tail`, with what is to be kept.
    fn replace_table(
        &self,
        tail: u32,
        keep: &RoaringBitmap,
        between: Between<'_>,
    ) -> io::Result<()> {
        let keeps = |id: u32| id >= tail || keep.contains(id);
        let mut next = SeriesTable::starting_at(tail);
        next.reserve_kept(&self.table(), keeps);
        let mut copied = 0;
        while copied < self.table().len() {
            between()?;
            copied = self.table().copy_to(&mut next, copied, STEP, keeps);
        }
        let mut file = self.file();
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.copy_to(&mut next, copied, usize::MAX, keeps);
        *table = next;
        self.generation.fetch_add(1, Ordering::AcqRel);
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Index::starting_at(tail);
        // If this fails the file holds more than it must.
        file.begin_anew(&*self.fs, &table)
    }

    /// Merges segments of about one size; says whether there were some.
    ///
    /// # Errors
    ///
    /// What the system says; the segments are then as they were.
    pub(crate) fn merge_segments(&self, between: Between<'_>) -> io::Result<bool> {
        let segments = self.segments();
        let Some(from) = mergeable(&segments) else { return Ok(false) };
        let mut all = RoaringBitmap::new();
        all.insert_range(..);
        self.rewrite(&segments[from..], &all, between).map(|()| true)
    }

    /// Ends the series that are not in `used`, of those that are in segments and
    /// not in memory: from now on they are refused, and who comes with their
    /// labels gets another id. Says what is left of the segments, for
    /// [`Series::rewrite_ended`]. Few to a segment are left alone.
    ///
    /// Nobody may begin to use one meanwhile.
    pub(crate) fn end_unused(&self, used: &RoaringBitmap) -> Ended {
        // Who looks for a series looks once more behind this lock.
        let table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let mut ended = Vec::new();
        let mut all = RoaringBitmap::new();
        for segment in self.segments().iter() {
            let mut unused = &segment.ids - used;
            if unused.len() * UNUSED_SHARE < segment.ids.len() {
                continue;
            }
            // What is in memory may be used again.
            for id in table.ids() {
                unused.remove(id);
            }
            if unused.is_empty() || unused.len() * UNUSED_SHARE < segment.ids.len() {
                continue;
            }
            all |= &unused;
            ended.push((Arc::clone(segment), &segment.ids - unused));
        }
        if !all.is_empty() {
            let mut forgotten = self.forgotten.write().unwrap_or_else(PoisonError::into_inner);
            all |= &**forgotten;
            all.optimize();
            *forgotten = Arc::new(all);
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        ended
    }

    /// Takes series that ended off the disk.
    ///
    /// # Errors
    ///
    /// What the system says; some are on the disk still, until they end again
    /// behind a start.
    pub(crate) fn rewrite_ended(&self, ended: Ended, between: Between<'_>) -> io::Result<()> {
        ended.into_iter().try_for_each(|(segment, keep)| self.rewrite(&[segment], &keep, between))
    }

    /// Writes segments that follow each other as one, with those of `keep`.
    pub(super) fn rewrite(
        &self,
        sources: &[Arc<Segment>],
        keep: &RoaringBitmap,
        between: Between<'_>,
    ) -> io::Result<()> {
        let number = self.next_segment.fetch_add(1, Ordering::Relaxed);
        let (fs, root) = (&*self.fs, &self.root);
        let merged = match segment::merge(fs, root, number, sources, keep, &self.pages, between) {
            Err(e) if is_damage(&e) => {
                let hit = segment::segment_of(&e);
                let is_hit = |s: &&Arc<Segment>| hit.is_none_or(|number| number == s.number);
                sources.iter().find(is_hit).into_iter().for_each(|s| self.note(s, &e));
                self.rebuild(number, sources, keep, between)
            }
            merged => merged,
        };
        let merged = Arc::new(merged.inspect_err(|_| {
            let _ = fs.remove_file(&root.join(name_of(number, "tmp")));
        })?);
        {
            let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
            let is_source = |s: &Arc<Segment>| sources.iter().any(|o| o.number == s.number);
            let mut next: Vec<Arc<Segment>> =
                segments.iter().filter(|s| !is_source(s)).cloned().collect();
            let at = next.partition_point(|s| s.first_id < merged.first_id);
            next.insert(at, merged);
            *segments = Arc::new(next);
        }
        // Readers that hold the old ones keep them open.
        for source in sources {
            fs.remove_file(&root.join(&source.name))?;
        }
        Ok(())
    }

    /// As a merge, of what labels alone say: something else is damaged.
    #[cold]
    fn rebuild(
        &self,
        number: u64,
        sources: &[Arc<Segment>],
        keep: &RoaringBitmap,
        between: Between<'_>,
    ) -> io::Result<Segment> {
        let first = sources.first().map_or(0, |s| s.first_id);
        let end = sources.last().map_or(first, |s| s.end_id);
        let mut copy = SeriesTable::starting_at(first);
        let mut ids = Vec::new();
        for source in sources {
            let lost = source.each(&self.pages, |id, labels| {
                if keep.contains(id) && copy.insert_as(id, &labels) {
                    ids.push(id);
                }
                Ok(())
            })?;
            self.note_all(source, &lost);
        }
        self.write_copy(number, &copy, &ids, first..end, between)
    }

    /// Writes series that are in memory to a segment.
    fn write_copy(
        &self,
        number: u64,
        copy: &SeriesTable,
        ids: &[u32],
        range: Range<u32>,
        between: Between<'_>,
    ) -> io::Result<Segment> {
        let mut index = Index::starting_at(range.start);
        index.catch_up(copy, u32::MAX);
        let series = ids.iter().map(|id| (*id, copy.labels(*id).unwrap_or_default()));
        let terms = index.sorted(copy);
        segment::write_all(&*self.fs, &self.root, number, series, terms, range, between)
    }

    /// Reads all there is of the segments; says what is damaged.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn verify(&self) -> io::Result<Vec<SeriesDamage>> {
        let mut damages = Vec::new();
        for segment in self.segments().iter() {
            for error in segment.verify()? {
                let (offset, bytes) = segment::place_of(&error);
                let what = error.to_string();
                damages.push(SeriesDamage { file: segment.name.clone(), offset, bytes, what });
            }
        }
        Ok(damages)
    }

    /// The segments, which are never changed, and the file of the tail, relative
    /// to the data directory.
    pub(crate) fn files(&self) -> (Vec<String>, String) {
        let segments = self.segments().iter().map(|s| s.name.clone()).collect();
        (segments, self.file().name())
    }
}

/// The first of the last segments, if there are some of about one size.
fn mergeable(segments: &[Arc<Segment>]) -> Option<usize> {
    let tier = |s: &Arc<Segment>| s.ids.len().max(1).ilog(MERGED as u64);
    let last = segments.last().map(tier)?;
    let mut highest = last;
    loop {
        let from = segments.iter().rposition(|s| tier(s) > highest).map_or(0, |at| at + 1);
        if segments.len() - from >= MERGED {
            return Some(from);
        }
        highest = segments.get(from.checked_sub(1)?).map(tier)?;
    }
}
