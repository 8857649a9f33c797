//! Which series is this line? The positional cache of one target.
//!
//! A page is mostly the page before with other numbers. The cache holds one
//! [`Line`] of 16 bytes per line of the last good page, in the page's order:
//! length and keyed hash of the line's series text, and what it stood for. A
//! [`Walk`] compares each line of a new page with the line at the same
//! position. The first one that differs starts a new order: from then on lines are also
//! looked up by hash, and lines that are not found are new.
//!
//! Hashes are keyed with a number of this process and 64 bits wide; that two
//! texts of one target collide is left to chance (2^-64 per pair).

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use narthex_storage::read::SeriesRef;

/// The text that identifies a line: that of its series, or a whole comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineText {
    /// Keyed.
    pub hash: u64,
    /// Bytes from the start of the line on; 0 if it does not stand there, or
    /// is longer than this can say.
    pub len: u16,
}

impl LineText {
    /// A text at the start of its line.
    #[must_use]
    pub fn new(hash: u64, len: usize) -> Self {
        Self { hash, len: u16::try_from(len).unwrap_or(0) }
    }

    /// A text of which only the hash is known.
    #[must_use]
    pub const fn hashed(hash: u64) -> Self {
        Self { hash, len: 0 }
    }
}

/// What a line of the last page was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Of the series text, or of the whole comment.
    pub hash: u64,
    /// The series; for comments a type, see [`super::page`].
    pub series: SeriesRef,
    /// See the constants of [`Line`]; 0 is a series that goes stale when it
    /// is missing, the common case.
    pub flags: u16,
    /// [`LineText::len`]
    pub len: u16,
}

impl Line {
    /// Dropped by metric relabeling.
    pub const DROPPED: u16 = 1;
    /// A comment.
    pub const COMMENT: u16 = 2;
    /// The second line with this text on a page.
    pub const DUPLICATE: u16 = 4;
    /// Has an exposed timestamp, so it does not go stale.
    pub const UNTRACKED: u16 = 8;
    /// Seen again in the page that is being walked.
    const TAKEN: u16 = 16;
    /// Another text of a series that the page has before.
    const RESPELLED: u16 = 32;

    /// A line with this text.
    #[must_use]
    pub const fn new(text: LineText, series: SeriesRef, flags: u16) -> Self {
        Self { hash: text.hash, series, flags, len: text.len }
    }
}

/// The lines of the last good page of one target.
#[derive(Debug, Default)]
pub struct Cache {
    lines: Box<[Line]>,
    /// Whether the last scrape was good: only then can series go stale.
    live: bool,
    /// Lines that only failed pages had since then: they are not new again.
    failed: HashSet<u64, BuildHasherDefault<Identity>>,
    /// Of lines with an exemplar, the hash of what was last offered to the
    /// storage: it is offered once.
    exemplars: HashMap<u64, u64, BuildHasherDefault<Identity>>,
}

/// What the cache says of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Was on the last good page, or is a comment.
    Known(Line),
    /// Was already on this page.
    Again(Line),
    /// Neither.
    Nothing,
}

/// Buffers of a walk, kept by the caller.
#[derive(Debug, Default)]
pub struct WalkBuffers {
    next: Vec<Line>,
    index: HashMap<u64, u32, BuildHasherDefault<Identity>>,
}

/// Marks an index into the new order.
const NEW: u32 = 1 << 31;

impl Cache {
    /// Number of lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Starts a page.
    pub fn walk<'a>(&'a mut self, buffers: &'a mut WalkBuffers) -> Walk<'a> {
        Walk { cache: self, buffers, cursor: 0, changed: None, respelled: false }
    }

    /// The scrape failed: appends the series that go stale to `stale`. `true`
    /// if failed pages brought so many different lines that they are forgotten.
    pub fn fail(&mut self, stale: &mut Vec<SeriesRef>) -> bool {
        if std::mem::take(&mut self.live) {
            stale.extend(self.lines.iter().filter(|l| l.flags == 0).map(|l| l.series));
        }
        let too_many = self.failed.len() > self.failed_limit();
        if too_many {
            self.failed = HashSet::default();
        }
        too_many
    }

    /// Takes note of exemplars that are offered to the storage, as hashes of
    /// line and exemplar.
    pub fn offered(&mut self, exemplars: &[(u64, u64)]) {
        // Lines come and go; what is still there is offered once more then.
        if self.exemplars.len() + exemplars.len() > 2 * self.lines.len() {
            self.exemplars.clear();
        }
        self.exemplars.extend(exemplars.iter().copied());
    }

    /// How many lines of failed pages are remembered, as in Prometheus.
    fn failed_limit(&self) -> usize {
        self.lines.len() * 2 + 1000
    }
}

/// One page on its way through the cache.
#[derive(Debug)]
pub struct Walk<'a> {
    cache: &'a mut Cache,
    buffers: &'a mut WalkBuffers,
    /// The next line of the old order.
    cursor: usize,
    /// Where the order changed.
    changed: Option<usize>,
    /// Lines were met that are another text of a series.
    respelled: bool,
}

impl Walk<'_> {
    /// Whether the last scrape was good.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.cache.live
    }

    /// The line at the same position of the last page, if the order is still
    /// the old one.
    #[inline]
    #[must_use]
    pub fn expected(&self) -> Option<Line> {
        if self.changed.is_some() {
            return None;
        }
        self.cache.lines.get(self.cursor).copied()
    }

    /// The line that was expected is there.
    #[inline]
    pub const fn advance(&mut self) {
        self.cursor += 1;
    }

    /// The line at the same position of the last page, if it has this hash
    /// and the order is still the old one.
    #[inline]
    pub fn step(&mut self, hash: u64) -> Option<&mut Line> {
        let line = self.cache.lines.get_mut(self.cursor)?;
        if line.hash != hash || self.changed.is_some() {
            return None;
        }
        self.cursor += 1;
        self.respelled |= line.flags & Line::RESPELLED != 0;
        Some(line)
    }

    /// Looks a line up that was not at its position; from then on the page
    /// has a new order. A line that is found is taken.
    #[cold]
    pub fn search(&mut self, hash: u64) -> Found {
        if self.changed.is_none() {
            self.change();
        }
        let lines = &mut self.cache.lines;
        // The old order goes on behind a line that was added or removed.
        let here = lines
            .get(self.cursor)
            .is_some_and(|l| l.hash == hash && l.flags & (Line::TAKEN | Line::DUPLICATE) == 0);
        let at = if here {
            self.cursor
        } else {
            match self.buffers.index.get(&hash) {
                None => return Found::Nothing,
                Some(at) if at & NEW != 0 => {
                    return self.again(self.buffers.next[(at & !NEW) as usize]);
                }
                Some(at) => *at as usize,
            }
        };
        let line = &mut lines[at];
        let marks = Line::TAKEN | Line::DUPLICATE | Line::RESPELLED;
        let mut found = Line { flags: line.flags & !marks, ..*line };
        let taken = line.flags & Line::TAKEN != 0 || self.changed.is_some_and(|from| at < from);
        if taken && found.flags & Line::COMMENT == 0 {
            found.flags &= !Line::UNTRACKED;
            return self.again(found);
        }
        line.flags |= Line::TAKEN;
        self.cursor = at + 1;
        self.buffers.next.push(found);
        Found::Known(found)
    }

    fn again(&mut self, line: Line) -> Found {
        self.buffers.next.push(Line { flags: line.flags | Line::DUPLICATE, ..line });
        Found::Again(line)
    }

    fn change(&mut self) {
        let (lines, buffers) = (&self.cache.lines, &mut *self.buffers);
        buffers.next.clear();
        buffers.next.extend_from_slice(&lines[..self.cursor]);
        buffers.index.clear();
        buffers.index.reserve(lines.len());
        for (line, at) in lines.iter().zip(0u32..) {
            // Another spelling of a series is a line of its own; of equal
            // lines the first one counts.
            buffers.index.entry(line.hash).or_insert(at);
        }
        self.changed = Some(self.cursor);
    }

    /// Whether this exemplar is the one that was last offered for a line.
    #[inline]
    #[must_use]
    pub fn has_exemplar(&self, line: u64, exemplar: u64) -> bool {
        self.cache.exemplars.get(&line) == Some(&exemplar)
    }

    /// Whether a line that is not known was not on the failed pages since the
    /// last good one either.
    #[must_use]
    pub fn is_new(&self, hash: u64) -> bool {
        !self.cache.failed.contains(&hash)
    }

    /// Takes note of a new line of a page that is going to fail.
    pub fn note_failed(&mut self, hash: u64) {
        if self.cache.failed.len() <= self.cache.failed_limit() {
            self.cache.failed.insert(hash);
        }
    }

    /// Adds a line that [`Walk::search`] did not find.
    pub fn insert(&mut self, line: Line) {
        if self.changed.is_none() {
            self.change();
        }
        let at = u32::try_from(self.buffers.next.len()).unwrap_or(u32::MAX) & !NEW;
        self.buffers.index.insert(line.hash, at | NEW);
        self.buffers.next.push(line);
    }

    /// Changes the flags of the line that was walked last, in a new order: a
    /// page that fails must not have changed the old one.
    pub fn flag_last(&mut self, set: u16, clear: u16) {
        if self.changed.is_none() {
            self.change();
        }
        if let Some(line) = self.buffers.next.last_mut() {
            line.flags = line.flags & !clear | set;
        }
    }

    /// The page was good: it is the last page now. Appends series that are
    /// missing from it to `stale`.
    pub fn finish(mut self, stale: &mut Vec<SeriesRef>) -> Finished {
        let complete = self.cursor == self.cache.lines.len();
        let was_live = std::mem::replace(&mut self.cache.live, true);
        if !self.cache.failed.is_empty() {
            self.cache.failed = HashSet::default();
        }
        if self.changed.is_none() {
            if complete {
                return Finished { comments_changed: false, respelled: self.respelled };
            }
            // The page is shorter: cut the rest.
            self.change();
        }
        self.replace(was_live, stale)
    }

    fn replace(&mut self, was_live: bool, stale: &mut Vec<SeriesRef>) -> Finished {
        let next = &mut self.buffers.next;
        // What stands for a second sample was taken only with a time of its own.
        let others = Line::DROPPED | Line::COMMENT | Line::UNTRACKED | Line::DUPLICATE;
        let is_tracked = |l: &&Line| l.flags & others == 0;
        // A series may be there under several texts.
        let mut present: Vec<SeriesRef> =
            next.iter().filter(is_tracked).map(|l| l.series).collect();
        present.sort_unstable();
        let from = self.changed.unwrap_or(0);
        let missing = self.cache.lines[from..].iter().filter(|l| was_live && l.flags == 0);
        stale.extend(missing.map(|l| l.series).filter(|s| present.binary_search(s).is_err()));
        stale.sort_unstable();
        stale.dedup();
        let repeated: Vec<SeriesRef> =
            present.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).collect();
        let mut finished = Finished { comments_changed: false, respelled: self.respelled };
        if !repeated.is_empty() {
            let mut seen = HashSet::new();
            for line in next.iter_mut().filter(|l| l.flags == 0) {
                if repeated.binary_search(&line.series).is_ok() && !seen.insert(line.series) {
                    line.flags |= Line::RESPELLED;
                    finished.respelled = true;
                }
            }
        }
        let comments = |lines: &[Line]| -> Vec<u64> {
            lines.iter().filter(|l| l.flags & Line::COMMENT != 0).map(|l| l.hash).collect()
        };
        finished.comments_changed = comments(&self.cache.lines) != comments(next);
        self.cache.lines = next.as_slice().into();
        self.changed = None;
        finished
    }
}

/// What a good page brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Finished {
    /// Comments came, went or moved.
    pub comments_changed: bool,
    /// A series stands on the page twice, under two texts.
    pub respelled: bool,
}

impl Drop for Walk<'_> {
    /// A page that is given up leaves the last good one as it was.
    fn drop(&mut self) {
        if self.changed.is_none() {
            return;
        }
        for line in &mut self.cache.lines {
            line.flags &= !Line::TAKEN;
        }
        let limit = self.cache.failed_limit();
        for (hash, at) in &self.buffers.index {
            if self.cache.failed.len() > limit {
                break;
            }
            if at & NEW != 0 {
                self.cache.failed.insert(*hash);
            }
        }
    }
}

/// The keys are hashes already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Walks a page of series (their hashes); gives new ones and duplicates.
    fn walk(cache: &mut Cache, page: &[u64], good: bool) -> (Vec<u64>, Vec<u64>, Vec<SeriesRef>) {
        let (mut new, mut again, mut stale) = (vec![], vec![], vec![]);
        let mut buffers = WalkBuffers::default();
        let mut walk = cache.walk(&mut buffers);
        for &hash in page {
            if let Some(line) = walk.step(hash) {
                if line.flags & Line::DUPLICATE != 0 {
                    again.push(hash);
                }
                continue;
            }
            match walk.search(hash) {
                Found::Known(line) => assert_eq!(u64::from(line.series.0), hash),
                Found::Again(_) => again.push(hash),
                Found::Nothing => {
                    let series = SeriesRef(u32::try_from(hash).expect("small"));
                    walk.insert(Line::new(LineText::hashed(hash), series, 0));
                    new.push(hash);
                }
            }
        }
        if good {
            walk.finish(&mut stale);
        } else {
            drop(walk);
            cache.fail(&mut stale);
        }
        stale.sort_unstable();
        (new, again, stale)
    }

    proptest! {
        #[test]
        fn series_come_go_and_move_as_sets_say(
            pages in proptest::collection::vec((proptest::collection::vec(0u64..12, 0..12), any::<bool>()), 1..8),
            shuffle in any::<bool>(),
        ) {
            let mut cache = Cache::default();
            // What the last good page held, and whether the last scrape was good.
            let (mut known, mut live) = (BTreeSet::new(), false);
            for (mut page, good) in pages {
                if !shuffle {
                    page.sort_unstable();
                }
                let (new, again, stale) = walk(&mut cache, &page, good);
                let mut seen = BTreeSet::new();
                let (mut expected_new, mut expected_again) = (vec![], vec![]);
                for hash in page {
                    if !seen.insert(hash) {
                        expected_again.push(hash);
                    } else if !known.contains(&hash) {
                        expected_new.push(hash);
                    }
                }
                let gone: Vec<SeriesRef> = known
                    .iter()
                    .filter(|h| live && !(good && seen.contains(h)))
                    .map(|h| SeriesRef(u32::try_from(*h).expect("small")))
                    .collect();
                prop_assert_eq!((new, again, stale), (expected_new, expected_again, gone));
                live = good;
                if good {
                    known = seen;
                }
            }
        }
    }

    #[test]
    fn a_line_takes_sixteen_bytes() {
        assert_eq!(std::mem::size_of::<Line>(), 16);
    }
}
