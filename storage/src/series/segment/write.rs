//! How is a segment written? Front to back, each kind of page in its order, so
//! that a merge of segments of any size needs little memory.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::terms::{NameEntry, Postings};
use super::{BLOCK, EXTENSION, LETTERS, Pages, Segment, VERSION, name_of, put_runs};
use crate::engine::fs::{File, FileSystem, OpenMode};
use crate::engine::{header, varint};
use crate::labels::Labels;
use crate::series::Between;
use crate::series::symbols::{Symbols, tag_of};

/// Values to a page.
const VALUES: usize = 64;
/// Up to so many series of a value stand beside it.
const FEW: u64 = 16;
/// About as many series to a bucket.
const BUCKET: u64 = 256;
/// Series or values from one call of `between` to the next.
const STEP: u32 = 4096;
/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 20;

/// Writes one segment: all series, then all tags, then all terms.
pub(super) struct Writer {
    file: Arc<dyn File>,
    number: u64,
    buffer: Vec<u8>,
    /// Bytes in the file, without the buffer.
    flushed: u64,
    ids: RoaringBitmap,
    strings: Symbols,
    block: Vec<u8>,
    in_block: usize,
    blocks: Vec<u64>,
    buckets: Vec<u64>,
    bucket_count: u64,
    bucket: Vec<u8>,
    names: Vec<u8>,
    name_count: u64,
    name: Option<OpenName>,
}

/// The label name whose values are being written.
struct OpenName {
    name: String,
    any: RoaringBitmap,
    pages: Vec<u64>,
    page: Vec<u8>,
    in_page: usize,
    values: u64,
    before: String,
}

impl Writer {
    /// Starts a segment of about `series` series under a temporary name.
    pub(crate) fn create(
        fs: &dyn FileSystem,
        root: &Path,
        number: u64,
        series: u64,
    ) -> io::Result<Self> {
        let file = fs.open(&root.join(name_of(number, "tmp")), OpenMode::Create)?;
        Ok(Self {
            file,
            number,
            buffer: header::of(LETTERS, VERSION).to_vec(),
            flushed: 0,
            ids: RoaringBitmap::new(),
            strings: Symbols::default(),
            block: Vec::new(),
            in_block: 0,
            blocks: Vec::new(),
            buckets: Vec::new(),
            bucket_count: (series / BUCKET).clamp(1, u64::from(u32::MAX)),
            bucket: Vec::new(),
            names: Vec::new(),
            name_count: 0,
            name: None,
        })
    }

    fn offset(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    fn put_page(&mut self, content: &[u8]) -> io::Result<(u64, u64)> {
        let at = self.offset();
        self.buffer.extend_from_slice(content);
        self.buffer.extend_from_slice(&crc32fast::hash(content).to_le_bytes());
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok((at, content.len() as u64 + 4))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.append(&self.buffer)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Adds a series; ids ascend.
    pub(crate) fn add_series(&mut self, id: u32, labels: &Labels) -> io::Result<()> {
        if self.in_block == BLOCK {
            self.end_block()?;
        }
        self.ids.insert(id);
        varint::put(&mut self.block, labels.iter().count() as u64);
        for (name, value) in labels {
            for text in [name, value] {
                let string = self.strings.intern(text);
                varint::put(&mut self.block, u64::from(string));
            }
        }
        self.in_block += 1;
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.in_block == 0 {
            return Ok(());
        }
        let mut page = Vec::with_capacity(self.block.len() + self.strings.bytes() + 256);
        varint::put(&mut page, u64::from(self.strings.len()));
        for string in 0..self.strings.len() {
            let text = self.strings.get(string);
            varint::put(&mut page, text.len() as u64);
            page.extend_from_slice(text.as_bytes());
        }
        page.extend_from_slice(&self.block);
        let (at, _) = self.put_page(&page)?;
        self.blocks.push(at);
        self.block.clear();
        self.strings.clear();
        self.in_block = 0;
        Ok(())
    }

    /// Adds where a label set is; tags ascend.
    pub(crate) fn add_tag(&mut self, tag: u32, id: u32) -> io::Result<()> {
        if self.buckets.is_empty() {
            self.end_block()?;
            // Blocks end where buckets begin.
            self.buckets.push(self.offset());
        }
        let number = (u64::from(tag) * self.bucket_count) >> 32;
        self.end_buckets_before(number)?;
        self.bucket.extend_from_slice(&tag.to_le_bytes());
        self.bucket.extend_from_slice(&id.to_le_bytes());
        Ok(())
    }

    /// `buckets` holds the start of the open bucket last.
    fn end_buckets_before(&mut self, number: u64) -> io::Result<()> {
        while (self.buckets.len() as u64) <= number {
            let bucket = std::mem::take(&mut self.bucket);
            self.put_page(&bucket)?;
            self.buckets.push(self.offset());
        }
        Ok(())
    }

    /// Adds the series, at least one, of a label; labels ascend.
    pub(crate) fn add_term(
        &mut self,
        name: &str,
        value: &str,
        ids: &RoaringBitmap,
    ) -> io::Result<()> {
        if self.name.as_ref().is_none_or(|open| open.name != name) {
            self.end_name()?;
            self.name = Some(OpenName {
                name: name.to_owned(),
                any: RoaringBitmap::new(),
                pages: Vec::new(),
                page: Vec::new(),
                in_page: 0,
                values: 0,
                before: String::new(),
            });
        }
        let large = if ids.len() > FEW { Some(self.put_ids(ids)?) } else { None };
        let Some(mut open) = self.name.take() else { return Ok(()) };
        if open.in_page == VALUES {
            self.end_values(&mut open)?;
        }
        let same = open.before.bytes().zip(value.bytes()).take_while(|(a, b)| a == b).count();
        let shared = if open.in_page == 0 { 0 } else { same };
        let page = &mut open.page;
        varint::put(page, shared as u64);
        varint::put(page, (value.len() - shared) as u64);
        page.extend_from_slice(&value.as_bytes()[shared..]);
        match large {
            Some((at, len)) => {
                varint::put(page, len << 1 | 1);
                varint::put(page, at);
            }
            None => {
                varint::put(page, ids.len() << 1);
                let mut before = 0;
                for id in ids {
                    varint::put(page, u64::from(id - before));
                    before = id;
                }
            }
        }
        open.in_page += 1;
        open.values += 1;
        value.clone_into(&mut open.before);
        open.any |= ids;
        self.name = Some(open);
        Ok(())
    }

    fn put_ids(&mut self, ids: &RoaringBitmap) -> io::Result<(u64, u64)> {
        let mut ids = ids.clone();
        ids.optimize();
        let mut page = Vec::with_capacity(ids.serialized_size());
        ids.serialize_into(&mut page)?;
        self.put_page(&page)
    }

    fn end_values(&mut self, open: &mut OpenName) -> io::Result<()> {
        let (at, _) = self.put_page(&open.page)?;
        open.pages.push(at);
        // Postings may follow before the next page: each ends by its length.
        open.pages.push(self.offset());
        open.page.clear();
        open.in_page = 0;
        Ok(())
    }

    fn end_name(&mut self) -> io::Result<()> {
        let Some(mut open) = self.name.take() else { return Ok(()) };
        self.end_values(&mut open)?;
        let (any_at, any_len) = self.put_ids(&open.any)?;
        let offsets = self.offset();
        for at in &open.pages {
            self.buffer.extend_from_slice(&at.to_le_bytes());
        }
        let names = &mut self.names;
        varint::put(names, open.name.len() as u64);
        names.extend_from_slice(open.name.as_bytes());
        for field in [any_at, any_len, offsets, open.pages.len() as u64 / 2, open.values] {
            varint::put(names, field);
        }
        self.name_count += 1;
        Ok(())
    }

    /// Ends the segment and gives it its name, durably.
    pub(crate) fn finish(
        mut self,
        fs: &dyn FileSystem,
        root: &Path,
        range: Range<u32>,
    ) -> io::Result<Segment> {
        self.end_name()?;
        self.end_block()?;
        if self.buckets.is_empty() {
            self.buckets.push(self.offset());
        }
        let mut names = Vec::new();
        varint::put(&mut names, self.name_count);
        names.extend_from_slice(&self.names);
        let (names_at, names_len) = self.put_page(&names)?;
        let mut runs = Vec::new();
        put_runs(&self.ids, &mut runs);
        let (ids_at, ids_len) = self.put_page(&runs)?;
        let block_offsets = self.offset();
        let blocks = self.blocks.len() as u64;
        let ends = self.buckets.first().copied();
        for at in std::mem::take(&mut self.blocks).into_iter().chain(ends) {
            self.buffer.extend_from_slice(&at.to_le_bytes());
        }
        let bucket_offsets = self.offset();
        for at in std::mem::take(&mut self.buckets) {
            self.buffer.extend_from_slice(&at.to_le_bytes());
        }
        let (again_at, again_len) = self.put_page(&runs)?;
        let fields = [
            block_offsets,
            blocks,
            bucket_offsets,
            self.bucket_count,
            names_at,
            names_len,
            ids_at,
            ids_len,
            again_at,
            again_len,
            u64::from(range.start),
            u64::from(range.end),
        ];
        let footer: Vec<u8> = fields.iter().flat_map(|f| f.to_le_bytes()).collect();
        self.put_page(&footer)?;
        self.put_page(&footer)?;
        self.flush()?;
        self.file.sync()?;
        let name = |extension| root.join(name_of(self.number, extension));
        fs.rename(&name("tmp"), &name(EXTENSION))?;
        fs.sync_dir(&root.join("series"))?;
        Segment::open(fs, root, self.number)
    }

    /// Ends the tags: terms follow.
    pub(crate) fn end_tags(&mut self) -> io::Result<()> {
        if self.buckets.is_empty() {
            self.end_block()?;
            self.buckets.push(self.offset());
        }
        self.end_buckets_before(self.bucket_count)
    }
}

/// Writes one segment with those series of several, ascending by id, for which
/// `keep` has an entry.
pub(crate) fn merge(
    fs: &dyn FileSystem,
    root: &Path,
    number: u64,
    sources: &[Arc<Segment>],
    keep: &RoaringBitmap,
    pages: &Pages,
    between: Between<'_>,
) -> io::Result<Segment> {
    let count = sources.iter().map(|s| s.ids.intersection_len(keep)).sum();
    let mut out = Writer::create(fs, root, number, count)?;
    for source in sources {
        let mut seen = 0u32;
        let lost = source.each(pages, |id, labels| {
            seen = seen.wrapping_add(1);
            if seen.is_multiple_of(STEP) {
                between()?;
            }
            if keep.contains(id) { out.add_series(id, &labels) } else { Ok(()) }
        })?;
        if let Some(first) = lost.into_iter().next() {
            return Err(first);
        }
    }
    merge_tags(&mut out, sources, keep, pages, between)?;
    merge_terms(&mut out, sources, keep, pages, between)?;
    let first = sources.first().map_or(0, |s| s.first_id);
    let end = sources.last().map_or(first, |s| s.end_id);
    out.finish(fs, root, first..end)
}

fn merge_tags(
    out: &mut Writer,
    sources: &[Arc<Segment>],
    keep: &RoaringBitmap,
    pages: &Pages,
    between: Between<'_>,
) -> io::Result<()> {
    // A part of the tags at a time: as many as the source with the fewest
    // buckets has.
    let parts = sources.iter().map(|s| s.buckets.count).min().unwrap_or(1);
    for part in 0..parts {
        between()?;
        let first_of = |part: u64| (part << 32).div_ceil(parts);
        let range = first_of(part)..first_of(part + 1);
        let mut entries = Vec::new();
        for source in sources {
            let bucket_of = |tag: u64| (tag * source.buckets.count) >> 32;
            for number in bucket_of(range.start)..=bucket_of(range.end - 1) {
                let bucket = source.bucket(number, pages)?;
                let wanted = bucket
                    .into_iter()
                    .filter(|(tag, id)| range.contains(&u64::from(*tag)) && keep.contains(*id));
                entries.extend(wanted);
            }
        }
        entries.sort_unstable();
        for (tag, id) in entries {
            out.add_tag(tag, id)?;
        }
    }
    out.end_tags()
}

/// A source's values of one name, read one page after the other.
struct Values<'a> {
    source: &'a Segment,
    entry: NameEntry,
    loaded: std::vec::IntoIter<(String, RoaringBitmap)>,
    next_page: u64,
}

impl Values<'_> {
    fn next(
        &mut self,
        keep: &RoaringBitmap,
        pages: &Pages,
    ) -> io::Result<Option<(String, RoaringBitmap)>> {
        loop {
            if let Some(next) = self.loaded.next() {
                return Ok(Some(next));
            }
            let terms = self.source.terms(pages);
            let Some(one) = self.entry.page(self.next_page) else { return Ok(None) };
            self.next_page += 1;
            let mut values = Vec::new();
            terms.walk(one, |value, postings| {
                let mut ids = match postings {
                    Postings::Few(ids) => ids.iter().copied().collect(),
                    Postings::Page { at, len } => (*terms.bitmap(*at, *len)?).clone(),
                };
                ids &= keep;
                if !ids.is_empty() {
                    values.push((value.to_owned(), ids));
                }
                Ok(true)
            })?;
            self.loaded = values.into_iter();
        }
    }
}

fn merge_terms(
    out: &mut Writer,
    sources: &[Arc<Segment>],
    keep: &RoaringBitmap,
    pages: &Pages,
    between: Between<'_>,
) -> io::Result<()> {
    let mut written = 0u32;
    let mut names: Vec<(String, &Segment, NameEntry)> = Vec::new();
    for source in sources {
        let of_source = source.terms(pages).all_names()?;
        names.extend(of_source.into_iter().map(|(name, entry)| (name, &**source, entry)));
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    for same in names.chunk_by(|a, b| a.0 == b.0) {
        let mut heads = Vec::new();
        for (_, source, entry) in same {
            let mut values =
                Values { source, entry: *entry, loaded: Vec::new().into_iter(), next_page: 0 };
            if let Some(head) = values.next(keep, pages)? {
                heads.push((head, values));
            }
        }
        while let Some(value) = heads.iter().map(|((v, _), _)| v).min().cloned() {
            let mut ids = RoaringBitmap::new();
            let mut rest = Vec::with_capacity(heads.len());
            for ((head, postings), mut values) in heads {
                if head != value {
                    rest.push(((head, postings), values));
                    continue;
                }
                ids |= postings;
                if let Some(next) = values.next(keep, pages)? {
                    rest.push((next, values));
                }
            }
            heads = rest;
            out.add_term(&same[0].0, &value, &ids)?;
            written = written.wrapping_add(1);
            if written.is_multiple_of(STEP) {
                between()?;
            }
        }
    }
    Ok(())
}

/// Writes a segment of series that are in memory: `terms` are their labels in
/// order, with the series of each.
pub(crate) fn write_all<'a>(
    fs: &dyn FileSystem,
    root: &Path,
    number: u64,
    series: impl ExactSizeIterator<Item = (u32, Labels)>,
    terms: impl Iterator<Item = (&'a str, &'a str, RoaringBitmap)>,
    range: Range<u32>,
    between: Between<'_>,
) -> io::Result<Segment> {
    let mut out = Writer::create(fs, root, number, series.len() as u64)?;
    let mut tags = Vec::with_capacity(series.len());
    for (id, labels) in series {
        tags.push((tag_of(labels.stable_hash()), id));
        out.add_series(id, &labels)?;
        if tags.len().is_multiple_of(STEP as usize) {
            between()?;
        }
    }
    tags.sort_unstable();
    for (tag, id) in tags {
        out.add_tag(tag, id)?;
    }
    out.end_tags()?;
    for (count, (name, value, ids)) in terms.enumerate() {
        out.add_term(name, value, &ids)?;
        if count.is_multiple_of(STEP as usize) {
            between()?;
        }
    }
    out.finish(fs, root, range)
}
