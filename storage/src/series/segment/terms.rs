//! Which series of a segment have a label? Pages of sorted values, searched
//! page by page.

use std::io;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::{Page, PageList, Pages, Segment, damaged};
use crate::engine::varint;
use crate::index::Terms;

/// The terms of a segment, with the cache of its pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentTerms<'a> {
    segment: &'a Segment,
    pages: &'a Pages,
}

/// Where what is known of a label name is.
#[derive(Debug, Clone, Copy)]
pub(super) struct NameEntry {
    any: (u64, u64),
    values: PageList,
}

impl NameEntry {
    /// The same with one page of values.
    pub(super) fn page(self, number: u64) -> Option<Self> {
        self.values.only(number).map(|values| Self { values, ..self })
    }
}

/// Series with one label and value, as they are written.
#[derive(Debug)]
pub(super) enum Postings {
    Few(Vec<u32>),
    Page { at: u64, len: u64 },
}

impl Segment {
    /// Its terms.
    pub(crate) const fn terms<'a>(&'a self, pages: &'a Pages) -> SegmentTerms<'a> {
        SegmentTerms { segment: self, pages }
    }
}

impl SegmentTerms<'_> {
    /// The label names, ascending.
    pub(super) fn all_names(&self) -> io::Result<Vec<(String, NameEntry)>> {
        let (at, len) = self.segment.names;
        let page = self.segment.page_at(at, len, self.pages)?;
        take_names(&page).ok_or_else(|| damaged("a list of label names"))
    }

    fn name(&self, name: &str) -> io::Result<Option<NameEntry>> {
        let (at, len) = self.segment.names;
        let page = self.segment.page_at(at, len, self.pages)?;
        find_name(&page, name).ok_or_else(|| damaged("a list of label names"))
    }

    pub(super) fn bitmap(&self, at: u64, len: u64) -> io::Result<Arc<RoaringBitmap>> {
        let key = (self.segment.number, at);
        if let Some(Page::Ids(ids)) = self.pages.get(key) {
            return Ok(ids);
        }
        let page = self.segment.read(at, len)?;
        let ids = RoaringBitmap::deserialize_from(page.as_slice())
            .map_err(|_| damaged("a list of series"))?;
        let ids = Arc::new(ids);
        self.pages.insert(key, Page::Ids(Arc::clone(&ids)), page.len());
        Ok(ids)
    }

    fn add(&self, postings: &Postings, to: &mut RoaringBitmap) -> io::Result<()> {
        match postings {
            Postings::Few(ids) => to.extend(ids),
            Postings::Page { at, len } => *to |= &*self.bitmap(*at, *len)?,
        }
        Ok(())
    }

    /// Calls `f` with all values of a name, ascending, while it returns `true`.
    pub(super) fn walk(
        &self,
        entry: NameEntry,
        mut f: impl FnMut(&str, &Postings) -> io::Result<bool>,
    ) -> io::Result<()> {
        for number in 0..entry.values.count {
            let page = self.segment.page_of(entry.values, number, self.pages)?;
            let mut result = Ok(true);
            walk_values(&page, |value, postings| {
                result = f(value, postings);
                matches!(result, Ok(true))
            })
            .ok_or_else(|| damaged("a page of values"))?;
            if !result? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads all that is known of a name.
    pub(super) fn verify(&self, entry: NameEntry) -> io::Result<()> {
        self.bitmap(entry.any.0, entry.any.1)?;
        let mut ids = RoaringBitmap::new();
        self.walk(entry, |_, postings| self.add(postings, &mut ids).map(|()| true))
    }

    /// The page of values that may hold a value.
    fn search(&self, values: PageList, value: &str) -> io::Result<Option<Arc<Vec<u8>>>> {
        let (mut low, mut high) = (0, values.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let page = self.segment.page_of(values, middle, self.pages)?;
            let first = first_value(&page).ok_or_else(|| damaged("a page of values"))?;
            if first <= value {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1).map(|at| self.segment.page_of(values, at, self.pages)).transpose()
    }
}

impl Terms for SegmentTerms<'_> {
    fn any(&self, name: &str) -> io::Result<RoaringBitmap> {
        let Some(entry) = self.name(name)? else { return Ok(RoaringBitmap::new()) };
        self.bitmap(entry.any.0, entry.any.1).map(|ids| (*ids).clone())
    }

    fn add_equal(&self, name: &str, value: &str, to: &mut RoaringBitmap) -> io::Result<()> {
        let Some(entry) = self.name(name)? else { return Ok(()) };
        let Some(page) = self.search(entry.values, value)? else { return Ok(()) };
        let mut result = Ok(());
        walk_values(&page, |found, postings| {
            if found == value {
                result = self.add(postings, to);
            }
            found < value
        })
        .ok_or_else(|| damaged("a page of values"))?;
        result
    }

    fn add_matching(
        &self,
        name: &str,
        takes: &dyn Fn(&str) -> bool,
        to: &mut RoaringBitmap,
    ) -> io::Result<()> {
        let Some(entry) = self.name(name)? else { return Ok(()) };
        self.walk(entry, |value, postings| {
            if takes(value) {
                self.add(postings, to)?;
            }
            Ok(true)
        })
    }

    fn names(&self, f: &mut dyn FnMut(&str, &RoaringBitmap)) -> io::Result<()> {
        for (name, entry) in self.all_names()? {
            f(&name, &*self.bitmap(entry.any.0, entry.any.1)?);
        }
        Ok(())
    }

    fn values(
        &self,
        name: &str,
        within: &RoaringBitmap,
        f: &mut dyn FnMut(&str, u64) -> bool,
    ) -> io::Result<()> {
        let Some(entry) = self.name(name)? else { return Ok(()) };
        self.walk(entry, |value, postings| {
            let count = match postings {
                Postings::Few(ids) => ids.iter().filter(|id| within.contains(**id)).count() as u64,
                Postings::Page { at, len } => self.bitmap(*at, *len)?.intersection_len(within),
            };
            Ok(count == 0 || f(value, count))
        })
    }
}

fn take_name<'a>(input: &mut &'a [u8]) -> Option<(&'a str, NameEntry)> {
    let name = std::str::from_utf8(varint::take_sized(input)?).ok()?;
    let any = (varint::take(input)?, varint::take(input)?);
    let offsets = varint::take(input)?;
    let values = PageList::apart(offsets, varint::take(input)?);
    varint::take(input)?;
    Some((name, NameEntry { any, values }))
}

fn take_names(mut input: &[u8]) -> Option<Vec<(String, NameEntry)>> {
    let count = varint::take_count(&mut input)?;
    let mut names = Vec::with_capacity(count);
    for _ in 0..count {
        let (name, entry) = take_name(&mut input)?;
        names.push((name.to_owned(), entry));
    }
    Some(names)
}

fn find_name(mut input: &[u8], wanted: &str) -> Option<Option<NameEntry>> {
    for _ in 0..varint::take_count(&mut input)? {
        let (name, entry) = take_name(&mut input)?;
        if name == wanted {
            return Some(Some(entry));
        }
    }
    Some(None)
}

fn first_value(mut page: &[u8]) -> Option<&str> {
    (varint::take(&mut page)? == 0).then_some(())?;
    std::str::from_utf8(varint::take_sized(&mut page)?).ok()
}

/// Calls `f` with the values of a page while it returns `true`; `None` if the
/// page is not one.
fn walk_values(mut page: &[u8], mut f: impl FnMut(&str, &Postings) -> bool) -> Option<()> {
    let input = &mut page;
    let mut value = Vec::new();
    while !input.is_empty() {
        value.truncate(varint::take_at_most(input, value.len())?);
        value.extend_from_slice(varint::take_sized(input)?);
        let head = varint::take(input)?;
        let postings = if head & 1 == 1 {
            Postings::Page { len: head >> 1, at: varint::take(input)? }
        } else {
            let mut ids = Vec::new();
            let mut id = 0u32;
            for _ in 0..head >> 1 {
                id = id.checked_add(u32::try_from(varint::take(input)?).ok()?)?;
                ids.push(id);
            }
            Postings::Few(ids)
        };
        if !f(std::str::from_utf8(&value).ok()?, &postings) {
            return Some(());
        }
    }
    Some(())
}
