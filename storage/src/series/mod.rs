//! Which series has which id, and which ids have which labels?
//!
//! [`Series`] gives every label set a persistent id, ascending. What is new or in
//! use is in memory ([`table`]), the new also in an appended file ([`file`]); all
//! else is in immutable [`segment`]s on disk, in the manner of an LSM tree, and
//! costs memory only while somebody reads it.
//!
//! [`Series::collect`] writes what is new to a segment and forgets what is out of
//! use; segments of one size are merged; series without samples leave with the
//! days that had the last of them ([`Series::forget`]).
//!
//! Invariants: a label set has one id; segments hold ranges of ids that do not
//! overlap; a series is in memory or in a segment, perhaps in both. Readers look
//! into memory first: what leaves it is in a segment before.
//!
//! Locks, in the order they are taken: file, table, index, segments.

mod cardinality;
pub(crate) mod file;
mod lifecycle;
mod segment;
pub(crate) mod sparse;
mod symbols;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use roaring::RoaringBitmap;

use crate::append::AppendError;
use crate::budget::Cache;
use crate::engine::fs::FileSystem;
use crate::index::{Index, Terms as _, select};
use crate::labels::{Labels, Matcher};
use file::{DIRECTORY, OpenFailure, SeriesFile};
use segment::{Pages, Segment};
use symbols::tag_of;
pub(crate) use table::{MAX_LABELS_BYTES, SeriesTable};

/// All series of a directory.
#[derive(Debug)]
pub(crate) struct Series {
    fs: Arc<dyn FileSystem>,
    root: PathBuf,
    file: Mutex<SeriesFile>,
    table: RwLock<SeriesTable>,
    /// The terms of the tail of `table`.
    index: RwLock<Index>,
    segments: RwLock<Arc<Vec<Arc<Segment>>>>,
    pages: Pages,
    /// The id that the next series gets.
    next_id: AtomicU32,
    next_segment: AtomicU64,
    /// Changes whenever a series may have gone from memory.
    generation: AtomicU64,
    /// Series from here on were given an id since the last collection.
    recent: AtomicU32,
    /// Ids that were given and are no series any more.
    forgotten: RwLock<Arc<RoaringBitmap>>,
    limits: SeriesLimits,
    /// What failed its checksum and was not told yet.
    damages: Mutex<Vec<SeriesDamage>>,
}

/// What stays in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeriesLimits {
    /// A tail with more series is written to a segment, so that a start is quick.
    pub(crate) tail: u32,
    /// Fewer series out of use are left in memory.
    pub(crate) unused: u64,
    /// Bytes of what is kept of segments.
    pub(crate) cache_bytes: usize,
}

/// A part of a file of series that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeriesDamage {
    /// Relative to the data directory.
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) what: String,
}

/// Most damages that wait to be told.
const MAX_DAMAGES: usize = 1000;

/// Called between the steps of long work; see [`Series::collect`].
pub(crate) type Between<'a> = &'a dyn Fn() -> io::Result<()>;

/// What series cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SeriesFigures {
    /// Series there are.
    pub(crate) series: u64,
    /// Of these, in memory.
    pub(crate) in_memory: u64,
    /// Bytes of what is in memory, without the index and the cache.
    pub(crate) table_bytes: u64,
    pub(crate) index_bytes: u64,
    pub(crate) cache_bytes: u64,
    /// Bytes on disk.
    pub(crate) file_bytes: u64,
    pub(crate) segments: u64,
}

impl Series {
    /// Opens the series of a data directory; says how many bytes at the end are
    /// no series. What is damaged waits for [`Series::take_damages`].
    ///
    /// # Errors
    ///
    /// What the system says; `Unsupported` if a file is of a newer version.
    pub(crate) fn open(
        fs: Arc<dyn FileSystem>,
        root: &Path,
        limits: SeriesLimits,
    ) -> Result<(Self, u64), OpenFailure> {
        fs.create_dir_all(&root.join(DIRECTORY))?;
        // What a start goes by must not be undone by a power cut behind it.
        fs.sync_dir(&root.join(DIRECTORY))?;
        let mut damages = Vec::new();
        let (segments, next_segment) = lifecycle::open_segments(&*fs, root, &mut damages)?;
        let first = segments.last().map_or(0, |s| s.end_id);
        let mut table = SeriesTable::starting_at(first);
        let (file, loaded) = SeriesFile::open(&*fs, root, &mut table)?;
        damages.extend(loaded.damaged.into_iter().map(|(file, offset, bytes)| {
            let what = "labels of series are lost".to_owned();
            SeriesDamage { file, offset, bytes, what }
        }));
        let series = Self {
            fs,
            root: root.to_owned(),
            file: Mutex::new(file),
            index: RwLock::new(Index::starting_at(first)),
            next_id: AtomicU32::new(table.next_id()),
            recent: AtomicU32::new(table.next_id()),
            table: RwLock::new(table),
            segments: RwLock::new(Arc::new(segments)),
            pages: Cache::new(limits.cache_bytes),
            limits,
            next_segment: AtomicU64::new(next_segment),
            generation: AtomicU64::new(0),
            forgotten: RwLock::default(),
            damages: Mutex::new(damages),
        };
        Ok((series, loaded.torn_bytes))
    }

    /// Gives ids below `next_id` to nobody, if they were not given: something
    /// names them, but what labels they had is lost.
    pub(crate) fn skip_to(&mut self, next_id: u32) {
        let table = self.table.get_mut().unwrap_or_else(PoisonError::into_inner);
        let file = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        if next_id > table.next_id() {
            let lost = next_id - table.next_id();
            let damages = self.damages.get_mut().unwrap_or_else(PoisonError::into_inner);
            damages.push(SeriesDamage {
                file: file.name(),
                offset: file.len(),
                bytes: 0,
                what: format!("labels of {lost} series at the end are lost"),
            });
        }
        table.skip_to(next_id);
        file.skip_to(table);
        self.next_id = AtomicU32::new(table.next_id());
        self.recent = AtomicU32::new(table.next_id());
    }

    /// The damages that were met since the last call.
    pub(crate) fn take_damages(&self) -> Vec<SeriesDamage> {
        std::mem::take(&mut *self.damages.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn table(&self) -> RwLockReadGuard<'_, SeriesTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn file(&self) -> MutexGuard<'_, SeriesFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id that the next series gets: all that were given are smaller.
    pub(crate) fn next_id(&self) -> u32 {
        self.next_id.load(Ordering::Acquire)
    }

    /// Ids that are no series any more, though they were given.
    pub(crate) fn forgotten(&self) -> Arc<RoaringBitmap> {
        Arc::clone(&self.forgotten.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The id of a label set if it is in memory; see [`SeriesTable::find_near`].
    pub(crate) fn find_in_memory(&self, labels: &Labels, hint: u32) -> Option<u32> {
        self.table().find_near(labels, hint)
    }

    /// The id of a label set that is not in memory: that of a segment, or, if
    /// `may_create`, a new one; then `true` stands beside it.
    ///
    /// Cost: a look into each segment, which reads a page if it is not cached.
    ///
    /// # Errors
    ///
    /// [`AppendError::SeriesLimit`] if there is no room or if no new one may be,
    /// [`AppendError::Storage`] if segments cannot be read.
    pub(crate) fn find_or_create(
        &self,
        labels: &Labels,
        may_create: bool,
    ) -> Result<(u32, bool), AppendError> {
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            let Ok(found) = self.find_in_segments(labels) else {
                // It would get a second id.
                return Err(AppendError::Storage);
            };
            if found.is_none() && !may_create {
                return Err(AppendError::SeriesLimit);
            }
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            if self.generation.load(Ordering::Acquire) != generation {
                // It may have been in memory, and is in a segment now.
                continue;
            }
            if let Some(id) = table.find(labels) {
                return Ok((id, false));
            }
            // One that ended meanwhile is another when it comes again.
            if let Some(id) = found.filter(|id| !self.forgotten().contains(*id)) {
                // In use again. If there is no room it is looked up each time.
                table.insert_as(id, labels);
                return Ok((id, false));
            }
            if !may_create {
                return Err(AppendError::SeriesLimit);
            }
            let id = table.insert(labels).ok_or(AppendError::SeriesLimit)?;
            self.next_id.store(table.next_id(), Ordering::Release);
            return Ok((id, true));
        }
    }

    fn find_in_segments(&self, labels: &Labels) -> io::Result<Option<u32>> {
        let tag = tag_of(labels.stable_hash());
        // The newest first: what comes back was there lately.
        for segment in self.segments().iter().rev() {
            let found = match segment.find(labels, tag, &self.pages) {
                Err(e) if is_damage(&e) => {
                    self.note(segment, &e);
                    self.find_by_labels(segment, labels)?
                }
                found => found?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// As [`Segment::find`], where that is damaged.
    #[cold]
    fn find_by_labels(&self, segment: &Segment, wanted: &Labels) -> io::Result<Option<u32>> {
        let mut found = None;
        let lost = segment.each(&self.pages, |id, labels| {
            found = found.or_else(|| (labels == *wanted).then_some(id));
            Ok(())
        })?;
        self.note_all(segment, &lost);
        Ok(found)
    }

    /// Notes damage of a segment.
    fn note(&self, segment: &Segment, error: &io::Error) {
        if !is_damage(error) {
            return;
        }
        let (offset, bytes) = segment::place_of(error);
        let what = error.to_string();
        let damage = SeriesDamage { file: segment.name.clone(), offset, bytes, what };
        let mut damages = self.damages.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody takes them soon.
        if damages.len() < MAX_DAMAGES && !damages.contains(&damage) {
            damages.push(damage);
        }
    }

    /// The same of each of several.
    fn note_all(&self, segment: &Segment, errors: &[io::Error]) {
        errors.iter().for_each(|e| self.note(segment, e));
    }

    /// The labels of a series; empty if it was never given or is lost.
    ///
    /// Cost: as [`Segment::labels`] if it is not in memory.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn labels(&self, id: u32) -> io::Result<Labels> {
        if let Some(labels) = self.table().labels(id) {
            return Ok(labels);
        }
        let segments = self.segments();
        let at = segments.partition_point(|s| s.end_id <= id);
        let Some(segment) = segments.get(at) else { return Ok(Labels::empty()) };
        match segment.labels(id, &self.pages) {
            Ok(labels) => Ok(labels.unwrap_or_default()),
            Err(e) if is_damage(&e) => {
                self.note(segment, &e);
                Ok(Labels::empty())
            }
            Err(e) => Err(e),
        }
    }

    /// These series with their labels, sorted by them, but for those whose labels
    /// are lost.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn labelled(&self, ids: &RoaringBitmap) -> io::Result<Vec<(u32, Labels)>> {
        let (mut found, others) = {
            let table = self.table();
            let (known, others) = table.split(ids);
            let mut known: Vec<u32> = known.iter().collect();
            known.sort_unstable_by(|a, b| table.compare(*a, *b));
            let labels = |id: u32| table.labels(id).unwrap_or_default();
            let known = known.into_iter().map(|id| (id, labels(id)));
            (known.collect::<Vec<(u32, Labels)>>(), others)
        };
        if !others.is_empty() {
            self.each_of(&others, |id, labels| found.push((id, labels())))?;
            found.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        }
        Ok(found)
    }

    /// Calls `f` with each of `ids`, which are not in memory, and what gives its
    /// labels; those whose labels are lost are left out.
    fn each_of(
        &self,
        ids: &RoaringBitmap,
        mut f: impl FnMut(u32, &dyn Fn() -> Labels),
    ) -> io::Result<()> {
        for (segment, within) in self.segments_in(ids) {
            let lost = segment.each_of(&within, &self.pages, &mut f)?;
            self.note_all(&segment, &lost);
        }
        Ok(())
    }

    /// These series without those whose labels are lost, perhaps sorted by labels.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn listed(&self, ids: &RoaringBitmap, sorted: bool) -> io::Result<Vec<u32>> {
        let (mut known, others) = {
            let table = self.table();
            let (known, others) = table.split(ids);
            if others.is_empty() {
                let mut listed: Vec<u32> = known.iter().collect();
                if sorted {
                    listed.sort_unstable_by(|a, b| table.compare(*a, *b));
                }
                return Ok(listed);
            }
            (known, others)
        };
        if sorted {
            return Ok(self.labelled(ids)?.into_iter().map(|(id, _)| id).collect());
        }
        self.each_of(&others, |id, _| {
            known.insert(id);
        })?;
        Ok(known.iter().collect())
    }

    /// Calls `f` with an index that knows all of the tail.
    fn with_index<T>(&self, f: impl FnOnce(&Index, &SeriesTable) -> T) -> T {
        let table = self.table();
        {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            if !index.is_behind(&table) {
                return f(&index, &table);
            }
        }
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.catch_up(&table, u32::MAX);
        f(&index, &table)
    }

    /// Brings the index nearer to the table by some series; `false` if it is up
    /// to date.
    pub(crate) fn index_some(&self, count: u32) -> bool {
        let table = self.table();
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.catch_up(&table, count);
        index.is_behind(&table)
    }

    /// The segments with series in `within`, and these.
    fn segments_in(
        &self,
        within: &RoaringBitmap,
    ) -> impl Iterator<Item = (Arc<Segment>, RoaringBitmap)> {
        let segments: Vec<_> = self.segments().iter().map(Arc::clone).collect();
        let within: Vec<RoaringBitmap> = segments.iter().map(|s| &s.ids & within).collect();
        segments.into_iter().zip(within).filter(|(_, within)| !within.is_empty())
    }

    /// The series of `within` that match all of `matchers`.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        within: &RoaringBitmap,
    ) -> io::Result<RoaringBitmap> {
        // Memory first: see the invariants.
        let mut found = self.with_index(|index, table| {
            select(&index.terms(table), matchers, tail_of(table, within))
        })?;
        for (segment, within) in self.segments_in(within) {
            match select(&segment.terms(&self.pages), matchers, within.clone()) {
                Ok(of_segment) => found |= of_segment,
                Err(e) if is_damage(&e) => {
                    self.note(&segment, &e);
                    self.select_by_labels(&segment, matchers, &within, &mut found)?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// As [`Series::select`], of a segment whose terms are damaged.
    #[cold]
    fn select_by_labels(
        &self,
        segment: &Segment,
        matchers: &[Matcher],
        within: &RoaringBitmap,
        found: &mut RoaringBitmap,
    ) -> io::Result<()> {
        let lost = segment.each(&self.pages, |id, labels| {
            let matches = |m: &Matcher| m.matches(labels.get(&m.name).unwrap_or(""));
            if within.contains(id) && matchers.iter().all(matches) {
                found.insert(id);
            }
            Ok(())
        })?;
        self.note_all(segment, &lost);
        Ok(())
    }

    /// Sorted names of the labels of the series in `within`, at most `limit` of
    /// them if it is not 0.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn label_names(
        &self,
        within: &RoaringBitmap,
        limit: usize,
    ) -> io::Result<Vec<String>> {
        let mut names = BTreeSet::new();
        self.with_index(|index, table| {
            index.terms(table).names(&mut |name, series| {
                if !series.is_disjoint(within) {
                    names.insert(name.to_owned());
                }
            })
        })?;
        for (segment, within) in self.segments_in(within) {
            let found = segment.terms(&self.pages).names(&mut |name, series| {
                if !series.is_disjoint(&within) && !names.contains(name) {
                    names.insert(name.to_owned());
                }
            });
            self.or_by_labels(&segment, &within, found, |labels| {
                names.extend(labels.iter().map(|(name, _)| name.to_owned()));
            })?;
        }
        Ok(names.into_iter().take(if limit == 0 { usize::MAX } else { limit }).collect())
    }

    /// What terms said, or, if they are damaged, what `f` makes of the labels of
    /// the series in `within`.
    fn or_by_labels(
        &self,
        segment: &Segment,
        within: &RoaringBitmap,
        found: io::Result<()>,
        mut f: impl FnMut(&Labels),
    ) -> io::Result<()> {
        let Err(error) = found else { return Ok(()) };
        if !is_damage(&error) {
            return Err(error);
        }
        self.note(segment, &error);
        let lost = segment.each(&self.pages, |id, labels| {
            if within.contains(id) {
                f(&labels);
            }
            Ok(())
        })?;
        self.note_all(segment, &lost);
        Ok(())
    }

    /// Sorted values of a label of the series in `within`, at most `limit` of
    /// them if it is not 0.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn label_values(
        &self,
        name: &str,
        within: &RoaringBitmap,
        limit: usize,
    ) -> io::Result<Vec<String>> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let mut values = BTreeSet::new();
        self.with_index(|index, table| {
            index.terms(table).values(name, within, &mut |value, _| {
                values.insert(value.to_owned());
                true
            })
        })?;
        for (segment, within) in self.segments_in(within) {
            // A segment's come in order.
            let mut count = 0;
            let found = segment.terms(&self.pages).values(name, &within, &mut |value, _| {
                if !values.contains(value) {
                    values.insert(value.to_owned());
                }
                count += 1;
                count < limit
            });
            self.or_by_labels(&segment, &within, found, |labels| {
                values.extend(labels.get(name).map(str::to_owned));
            })?;
        }
        Ok(values.into_iter().take(limit).collect())
    }

    /// Appends new series to the file, so that the log can name them.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn append_new(&self) -> io::Result<()> {
        let mut file = self.file();
        file.append_new(&*self.fs, &self.table())
    }

    /// Makes all series durable, so that rows may be that name them.
    ///
    /// # Errors
    ///
    /// What the system says; the next call writes anew what is not in segments.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut file = self.file();
        file.sync(&*self.fs, &self.table())
    }

    /// What series cost now.
    pub(crate) fn figures(&self) -> SeriesFigures {
        let segments = self.segments();
        let of_segments: u64 = segments.iter().map(|s| s.ids.len()).sum();
        let on_disk: u64 = segments.iter().map(|s| s.bytes).sum();
        let heap: usize = segments.iter().map(|s| s.heap_bytes()).sum();
        let file_bytes = self.file().len() + on_disk;
        let table = self.table();
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        SeriesFigures {
            series: of_segments + u64::from(table.tail().end - table.tail().start),
            in_memory: table.len() as u64,
            table_bytes: (table.heap_bytes() + heap + self.forgotten().serialized_size()) as u64,
            index_bytes: index.heap_bytes() as u64,
            cache_bytes: self.pages.figures().0 as u64,
            file_bytes,
            segments: segments.len() as u64,
        }
    }

    /// Drops pages that were not read since the last call.
    pub(crate) fn age_cache(&self) {
        self.pages.age();
    }
}

/// Whether a file does not say what it should.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Those of `within` that are in the tail and have labels.
fn tail_of(table: &SeriesTable, within: &RoaringBitmap) -> RoaringBitmap {
    let mut tail = within.clone();
    tail.remove_range(..table.tail().start);
    match table.named_tail() {
        Some(named) => tail & named,
        None => tail,
    }
}
