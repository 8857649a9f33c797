//! How are series found that are not in memory?
//!
//! A segment holds the labels of a range of ids, where each label set is, and
//! which series have a label: everything in sorted pages, read when somebody
//! asks, and kept in an accounted cache only.
//!
//! ```text
//! series/<number>.segment = header "NXSS" version 1, pages and their offsets, two
//!            footers
//! page     = bytes, u32 CRC-32 of them
//! offsets  = per page u64 offset, then u64 end of the last; of values u64 offset
//!            and u64 end of each
//! blocks   = pages of 64 series, ascending by id:
//!              varint strings, per string varint length, text;
//!              per series varint labels, per label varint string of name, of value
//! buckets  = pages of (u32 tag, u32 id), ascending; the tag is the upper half of
//!            the hash of the labels, and tag * buckets >> 32 is its page
//! values   = pages of 64 values of one label name, ascending: per value
//!              varint bytes shared with the value before, varint length, rest,
//!              postings
//! postings = varint ids << 1, per id varint distance to the one before, or
//!            varint length << 1 | 1, varint offset of a page: a roaring bitmap
//! names    = one page: varint names, ascending, per name varint length, text,
//!            varint offset and length of the page of a roaring bitmap, varint
//!            offset of the offsets of its pages of values, varint these pages,
//!            varint values
//! ids      = one page: id runs; written twice
//! footer   = page of u64: offset of the offsets of blocks, blocks, the same of
//!            buckets, offset and length of names, of ids, of ids once more, the
//!            first id and the one behind the last that the segment stands for
//! ```
//!
//! Pages of values and postings lie where they were when they were known; all
//! offsets are from the start of the file. A roaring bitmap is in the portable
//! format of its project. What values say can be found out from blocks, too, and
//! what a start needs is there twice, so that a damaged page costs time, and only
//! a damaged block costs series.

mod terms;
mod write;

use std::io;
use std::path::Path;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::budget::Cache;
use crate::engine::fs::{File, FileSystem, OpenMode};
use crate::engine::{header, varint};
use crate::labels::Labels;
use crate::series::is_damage;
pub(crate) use write::{merge, write_all};

/// First letters of the file, and its version.
const LETTERS: [u8; 4] = *b"NXSS";
const VERSION: u8 = 1;
/// Ending of the names of segments.
pub(crate) const EXTENSION: &str = "segment";
/// Series to a block.
const BLOCK: usize = 64;
/// Fields of the footer.
const FOOTER_FIELDS: usize = 12;
const FOOTER_BYTES: usize = FOOTER_FIELDS * 8 + 4;
/// Largest page that is read.
const MAX_PAGE_BYTES: u64 = 1 << 30;

/// What was read of segments and may be needed again.
pub(crate) type Pages = Cache<(u64, u64), Page>;

/// A page that was checked.
#[derive(Debug, Clone)]
pub(crate) enum Page {
    Bytes(Arc<Vec<u8>>),
    Ids(Arc<RoaringBitmap>),
}

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Unique among the segments of the directory.
    pub(crate) number: u64,
    /// Relative to the data directory.
    pub(crate) name: String,
    /// Its series.
    pub(crate) ids: RoaringBitmap,
    /// The ids that it stands for: from this one.
    pub(crate) first_id: u32,
    /// To before this one.
    pub(crate) end_id: u32,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    file: Arc<dyn File>,
    blocks: PageList,
    buckets: PageList,
    names: (u64, u64),
    /// What was damaged when it was opened, and was there twice.
    pub(crate) healed: Vec<(u64, u64, &'static str)>,
}

/// Where pages of one kind are.
#[derive(Debug, Clone, Copy)]
struct PageList {
    /// Where their offsets are.
    offsets: u64,
    count: u64,
    /// Bytes from an offset to the next: an end may stand between them.
    stride: u64,
}

impl PageList {
    /// Of pages that follow each other.
    const fn dense(offsets: u64, count: u64) -> Self {
        Self { offsets, count, stride: 8 }
    }

    /// Of pages with others between them.
    const fn apart(offsets: u64, count: u64) -> Self {
        Self { offsets, count, stride: 16 }
    }

    /// One of them.
    fn only(&self, number: u64) -> Option<Self> {
        (number < self.count).then(|| Self {
            offsets: self.offsets.saturating_add(number.saturating_mul(self.stride)),
            count: 1,
            ..*self
        })
    }
}

/// Name of a segment, relative to the data directory.
pub(crate) fn name_of(number: u64, extension: &str) -> String {
    format!("series/{number:08}.{extension}")
}

/// What of a segment is damaged, and where, if that is known.
#[derive(Debug, thiserror::Error)]
#[error("{what} of series is damaged")]
struct SegmentDamage {
    what: &'static str,
    /// Number of the segment; 0 if not known.
    segment: u64,
    at: u64,
    bytes: u64,
}

fn damaged_at(what: &'static str, at: u64, bytes: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, SegmentDamage { what, segment: 0, at, bytes })
}

fn damaged(what: &'static str) -> io::Error {
    damaged_at(what, 0, 0)
}

/// Offset and bytes of the damage that an error tells of; 0 if not known.
pub(super) fn place_of(error: &io::Error) -> (u64, u64) {
    damage_of(error).map_or((0, 0), |d| (d.at, d.bytes))
}

/// The number of the segment whose damage an error tells of, if it is known.
pub(super) fn segment_of(error: &io::Error) -> Option<u64> {
    damage_of(error).map(|d| d.segment).filter(|number| *number > 0)
}

fn damage_of(error: &io::Error) -> Option<&SegmentDamage> {
    error.get_ref().and_then(|e| e.downcast_ref::<SegmentDamage>())
}

impl Segment {
    /// Opens a segment. Reads its footer and its ids.
    ///
    /// # Errors
    ///
    /// What the system says; `Unsupported` if it is of a newer version.
    pub(crate) fn open(fs: &dyn FileSystem, root: &Path, number: u64) -> io::Result<Self> {
        let name = name_of(number, EXTENSION);
        let file = fs.open(&root.join(&name), OpenMode::Read)?;
        let bytes = file.len()?;
        let mut start = [0; header::BYTES];
        if bytes < (header::BYTES + 2 * FOOTER_BYTES) as u64 {
            return Err(damaged("the length of a segment"));
        }
        file.read_exact_at(&mut start, 0)?;
        let mut healed = Vec::new();
        match header::check(&start, LETTERS, VERSION) {
            header::Found::Newer => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "series of a newer version of narthex",
                ));
            }
            header::Found::Damaged => healed.push((0, header::BYTES as u64, "the header")),
            header::Found::Known => {}
        }
        let mut first_good = |what: &'static str, places: [(u64, u64); 2]| {
            let [first, second] = places.map(|(at, len)| read_page(&*file, at, len));
            for (page, (at, len)) in [&first, &second].into_iter().zip(places) {
                if page.as_ref().is_err_and(is_damage) {
                    healed.push((at, len, what));
                }
            }
            if first.as_ref().is_err_and(is_damage) { second } else { first }
        };
        let footer_bytes = FOOTER_BYTES as u64;
        let footers = [bytes - footer_bytes, bytes - 2 * footer_bytes];
        let footer = first_good("a footer", footers.map(|at| (at, footer_bytes)))?;
        let mut fields = [0u64; FOOTER_FIELDS];
        let mut input = footer.as_slice();
        for field in &mut fields {
            *field = varint::take_u64(&mut input).ok_or_else(|| damaged("a footer"))?;
        }
        let [blocks_at, blocks, buckets_at, buckets, names, names_len, ids @ .., first, end] =
            fields;
        let page = first_good("a list of ids", [(ids[0], ids[1]), (ids[2], ids[3])])?;
        let ids = take_runs(&page).ok_or_else(|| damaged("a list of ids"))?;
        let id = |field: u64| u32::try_from(field).map_err(|_| damaged("a footer"));
        let (first_id, end_id) = (id(first)?, id(end)?);
        if buckets == 0 || buckets > u64::from(u32::MAX) {
            return Err(damaged("a footer"));
        }
        Ok(Self {
            number,
            name,
            ids,
            first_id,
            end_id,
            bytes,
            file,
            blocks: PageList::dense(blocks_at, blocks),
            buckets: PageList::dense(buckets_at, buckets),
            names: (names, names_len),
            healed,
        })
    }

    fn read(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        read_page(&*self.file, at, len).map_err(|e| match damage_of(&e) {
            Some(&SegmentDamage { what, at, bytes, .. }) => io::Error::new(
                io::ErrorKind::InvalidData,
                SegmentDamage { what, segment: self.number, at, bytes },
            ),
            None => e,
        })
    }

    /// The page with this number of a list.
    fn page_of(&self, list: PageList, number: u64, pages: &Pages) -> io::Result<Arc<Vec<u8>>> {
        // Where the offset of the page is names it.
        let Some(PageList { offsets: at, .. }) = list.only(number) else {
            return Err(damaged("the number of a page"));
        };
        if let Some(Page::Bytes(bytes)) = pages.get((self.number, at)) {
            return Ok(bytes);
        }
        let mut offsets = [0; 16];
        self.file.read_exact_at(&mut offsets, at)?;
        let mut input = offsets.as_slice();
        let from = varint::take_u64(&mut input).unwrap_or(0);
        let to = varint::take_u64(&mut input).unwrap_or(0);
        let bytes = Arc::new(self.read(from, to.saturating_sub(from))?);
        pages.insert((self.number, at), Page::Bytes(Arc::clone(&bytes)), bytes.len());
        Ok(bytes)
    }

    /// The page at an offset.
    fn page_at(&self, at: u64, len: u64, pages: &Pages) -> io::Result<Arc<Vec<u8>>> {
        if let Some(Page::Bytes(bytes)) = pages.get((self.number, at)) {
            return Ok(bytes);
        }
        let bytes = Arc::new(self.read(at, len)?);
        pages.insert((self.number, at), Page::Bytes(Arc::clone(&bytes)), bytes.len());
        Ok(bytes)
    }

    /// The labels of a series; `None` if it is not in this segment.
    ///
    /// Cost: one read if the block is not cached, then a walk over it.
    pub(crate) fn labels(&self, id: u32, pages: &Pages) -> io::Result<Option<Labels>> {
        if !self.ids.contains(id) {
            return Ok(None);
        }
        let position = self.ids.rank(id) - 1;
        let block = self.page_of(self.blocks, position / BLOCK as u64, pages)?;
        let mut found = None;
        let within = (position % BLOCK as u64) as usize;
        walk_block(&block, |i, labels| {
            if i == within {
                found = Some(labels());
            }
            i < within
        })
        .ok_or_else(|| damaged("a block"))?;
        found.map(Some).ok_or_else(|| damaged("a block"))
    }

    /// Calls `f` with each of `ids`, which are in this segment, and what gives its
    /// labels. Damaged blocks are left out; says which.
    ///
    /// Cost: each block with one of them is read, if it is not cached, and walked
    /// once.
    pub(crate) fn each_of(
        &self,
        ids: &RoaringBitmap,
        pages: &Pages,
        mut f: impl FnMut(u32, &dyn Fn() -> Labels),
    ) -> io::Result<Vec<io::Error>> {
        let mut lost = Vec::new();
        let mut places = ids.iter().map(|id| (self.ids.rank(id) - 1, id)).peekable();
        let mut wanted: Vec<(usize, u32)> = Vec::new();
        while let Some((position, id)) = places.next() {
            let block_of = |position: u64| position / BLOCK as u64;
            let within = |position: u64| (position % BLOCK as u64) as usize;
            wanted.clear();
            wanted.push((within(position), id));
            while let Some((p, id)) = places.next_if(|(p, _)| block_of(*p) == block_of(position)) {
                wanted.push((within(p), id));
            }
            let block = match self.page_of(self.blocks, block_of(position), pages) {
                Ok(block) => block,
                Err(e) if is_damage(&e) => {
                    lost.push(e);
                    continue;
                }
                Err(e) => return Err(e),
            };
            let mut next = wanted.iter().copied().peekable();
            let walked = walk_block(&block, |i, labels| {
                if let Some((_, id)) = next.next_if(|(at, _)| *at == i) {
                    f(id, labels);
                }
                next.peek().is_some()
            });
            if walked.is_none() || next.peek().is_some() {
                lost.push(damaged("a block"));
            }
        }
        Ok(lost)
    }

    /// All series with their labels, ascending by id. Damaged blocks are left
    /// out; says which.
    pub(crate) fn each(
        &self,
        pages: &Pages,
        mut f: impl FnMut(u32, Labels) -> io::Result<()>,
    ) -> io::Result<Vec<io::Error>> {
        let mut ids = self.ids.iter();
        let mut lost = Vec::new();
        for number in 0..self.blocks.count {
            let of_block: Vec<u32> = ids.by_ref().take(BLOCK).collect();
            let block = match self.page_of(self.blocks, number, pages) {
                Ok(block) => block,
                Err(e) if is_damage(&e) => {
                    lost.push(e);
                    continue;
                }
                Err(e) => return Err(e),
            };
            let mut result = Ok(());
            let walked = walk_block(&block, |i, labels| {
                if let Some(&id) = of_block.get(i) {
                    result = f(id, labels());
                }
                result.is_ok()
            });
            result?;
            if walked.is_none() {
                lost.push(damaged("a block"));
            }
        }
        Ok(lost)
    }

    /// Reads everything, past the cache; says what is damaged.
    pub(crate) fn verify(&self) -> io::Result<Vec<io::Error>> {
        let pages = Cache::new(0);
        let healed = self.healed.iter().map(|&(at, bytes, what)| damaged_at(what, at, bytes));
        let mut errors: Vec<io::Error> = healed.collect();
        errors.extend(self.each(&pages, |_, _| Ok(()))?);
        let mut note = |result: io::Result<()>| match result {
            Err(e) if !is_damage(&e) => Err(e),
            other => {
                errors.extend(other.err());
                Ok(())
            }
        };
        for number in 0..self.buckets.count {
            note(self.bucket(number, &pages).map(drop))?;
        }
        let terms = self.terms(&pages);
        let names = match terms.all_names() {
            Ok(names) => names,
            Err(e) => return note(Err(e)).map(|()| errors),
        };
        for (_, entry) in names {
            note(terms.verify(entry))?;
        }
        Ok(errors)
    }

    /// The id of a label set.
    ///
    /// Cost: one read if the bucket is not cached, and one more for each series
    /// in it with the same tag, nearly always none or the right one.
    pub(crate) fn find(&self, labels: &Labels, tag: u32, pages: &Pages) -> io::Result<Option<u32>> {
        let number = (u64::from(tag) * self.buckets.count) >> 32;
        let bucket = self.page_of(self.buckets, number, pages)?;
        for entry in bucket.chunks_exact(8) {
            let mut entry = entry;
            let (found, id) = (varint::take_u32(&mut entry), varint::take_u32(&mut entry));
            let Some(id) = id.filter(|_| found == Some(tag)) else { continue };
            if self.labels(id, pages)?.is_some_and(|l| l == *labels) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// The tags and ids of a bucket.
    fn bucket(&self, number: u64, pages: &Pages) -> io::Result<Vec<(u32, u32)>> {
        let bucket = self.page_of(self.buckets, number, pages)?;
        let entries = bucket.chunks_exact(8).filter_map(|mut entry| {
            Some((varint::take_u32(&mut entry)?, varint::take_u32(&mut entry)?))
        });
        Ok(entries.collect())
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.ids.serialized_size() + size_of::<Self>() + self.name.capacity()
    }
}

/// Reads bytes and checks the CRC-32 behind them.
fn read_page(file: &dyn File, at: u64, len: u64) -> io::Result<Vec<u8>> {
    if !(4..=MAX_PAGE_BYTES).contains(&len) {
        return Err(damaged_at("the length of a page", at, 0));
    }
    // An offset from a damaged list may be anywhere.
    if at.checked_add(len).is_none_or(|end| file.len().is_ok_and(|all| end > all)) {
        return Err(damaged_at("the offset of a page", at, 0));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, at)?;
    let content = bytes.len() - 4;
    let crc = bytes.get(content..).and_then(|mut b| varint::take_u32(&mut b));
    bytes.truncate(content);
    if Some(crc32fast::hash(&bytes)) != crc {
        return Err(damaged_at("a page", at, len));
    }
    Ok(bytes)
}

/// Calls `f` with the position of each series and a function that gives its
/// labels, while it returns `true`; `None` if the block is not one.
fn walk_block(
    mut block: &[u8],
    mut f: impl FnMut(usize, &dyn Fn() -> Labels) -> bool,
) -> Option<()> {
    let input = &mut block;
    let count = varint::take_count(input)?;
    let mut strings = Vec::with_capacity(count);
    for _ in 0..count {
        strings.push(std::str::from_utf8(varint::take_sized(input)?).ok()?);
    }
    let mut pairs = Vec::new();
    let mut at = 0;
    while !input.is_empty() {
        pairs.clear();
        for _ in 0..varint::take_count(input)? {
            let mut string = || strings.get(varint::take(input)? as usize).copied();
            pairs.push((string()?, string()?));
        }
        let sorted = pairs.is_sorted_by(|a, b| a.0 < b.0) && pairs.iter().all(|p| !p.1.is_empty());
        if !sorted {
            return None;
        }
        if !f(at, &|| Labels::from_sorted(pairs.iter().copied())) {
            return Some(());
        }
        at += 1;
    }
    Some(())
}

/// Ids from their runs.
fn take_runs(mut input: &[u8]) -> Option<RoaringBitmap> {
    let mut ids = RoaringBitmap::new();
    let mut end = 0u32;
    for _ in 0..varint::take_count(&mut input)? {
        let first = end.checked_add(u32::try_from(varint::take(&mut input)?).ok()?)?;
        end = first.checked_add(u32::try_from(varint::take(&mut input)?).ok()?)?;
        ids.insert_range(first..end);
    }
    ids.optimize();
    input.is_empty().then_some(ids)
}

/// Appends ids as runs.
fn put_runs(ids: &RoaringBitmap, out: &mut Vec<u8>) {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for id in ids {
        match runs.last_mut() {
            Some((first, len)) if *first + *len == id => *len += 1,
            _ => runs.push((id, 1)),
        }
    }
    varint::put(out, runs.len() as u64);
    let mut end = 0;
    for (first, len) in runs {
        varint::put(out, u64::from(first - end));
        varint::put(out, u64::from(len));
        end = first + len;
    }
}

#[cfg(test)]
mod tests;
