//! Which series match?
//!
//! [`Terms`] know for each label name and value the series that have it, as
//! bitmaps over the persistent ids; [`select`] asks them. An [`Index`] is that of
//! the series in no segment yet, brought up to date from the series table when
//! somebody asks; segments have theirs on disk.

use std::collections::HashMap;
use std::io;

use roaring::RoaringBitmap;

use crate::labels::{MatchOp, Matcher};
use crate::series::SeriesTable;

/// Label names and values to series.
pub(crate) trait Terms {
    /// Series with a label of this name.
    ///
    /// # Errors
    ///
    /// What the system says, of this and all others; `InvalidData` for damage.
    fn any(&self, name: &str) -> io::Result<RoaringBitmap>;
    /// Adds the series with this label.
    fn add_equal(&self, name: &str, value: &str, to: &mut RoaringBitmap) -> io::Result<()>;
    /// Adds the series with a label of this name and a value that `takes`
    /// holds of.
    fn add_matching(
        &self,
        name: &str,
        takes: &dyn Fn(&str) -> bool,
        to: &mut RoaringBitmap,
    ) -> io::Result<()>;
    /// Calls `f` with each name, in any order, and the series that have it.
    fn names(&self, f: &mut dyn FnMut(&str, &RoaringBitmap)) -> io::Result<()>;
    /// Calls `f` with each value of a name that series in `within` have, in any
    /// order, and how many, while it returns `true`.
    fn values(
        &self,
        name: &str,
        within: &RoaringBitmap,
        f: &mut dyn FnMut(&str, u64) -> bool,
    ) -> io::Result<()>;
}

/// The series of `within` that match all of `matchers`.
///
/// # Errors
///
/// Those of the terms.
pub(crate) fn select(
    terms: &impl Terms,
    matchers: &[Matcher],
    within: RoaringBitmap,
) -> io::Result<RoaringBitmap> {
    let mut selected = within;
    // Those that must have the label first: they narrow most.
    let (empty, full): (Vec<&Matcher>, Vec<&Matcher>) =
        matchers.iter().partition(|m| m.matches_empty());
    for matcher in full {
        if selected.is_empty() {
            return Ok(selected);
        }
        selected &= with_value(terms, matcher)?;
    }
    for matcher in empty {
        if selected.is_empty() {
            return Ok(selected);
        }
        selected -= without_value(terms, matcher)?;
    }
    Ok(selected)
}

/// Series whose label has a value that the matcher, which does not take the
/// empty value, takes.
fn with_value(terms: &impl Terms, matcher: &Matcher) -> io::Result<RoaringBitmap> {
    let mut found = RoaringBitmap::new();
    let (name, wanted) = (matcher.name.as_str(), matcher.value.as_str());
    match matcher.op {
        MatchOp::Equal => terms.add_equal(name, wanted, &mut found)?,
        // `x!=""`, `x=~".+"`: all that have the label.
        MatchOp::NotEqual if wanted.is_empty() => return terms.any(name),
        MatchOp::Regex if wanted == ".+" => return terms.any(name),
        MatchOp::Regex if literal_set(wanted).is_some() => {
            for value in literal_set(wanted).into_iter().flatten() {
                terms.add_equal(name, value, &mut found)?;
            }
        }
        _ => terms.add_matching(name, &|value| matcher.matches(value), &mut found)?,
    }
    Ok(found)
}

/// Series whose label has a value that the matcher, which takes the empty
/// value, does not take.
fn without_value(terms: &impl Terms, matcher: &Matcher) -> io::Result<RoaringBitmap> {
    let mut found = RoaringBitmap::new();
    let (name, wanted) = (matcher.name.as_str(), matcher.value.as_str());
    match matcher.op {
        // The opposite takes no empty value, so its set is the complement.
        MatchOp::NotEqual => terms.add_equal(name, wanted, &mut found)?,
        MatchOp::Regex if wanted == ".*" => {}
        MatchOp::NotRegex if literal_set(wanted).is_some() => {
            for value in literal_set(wanted).into_iter().flatten() {
                terms.add_equal(name, value, &mut found)?;
            }
        }
        MatchOp::Equal => return terms.any(name),
        _ => terms.add_matching(name, &|value| !matcher.matches(value), &mut found)?,
    }
    Ok(found)
}

/// The terms of series in memory.
#[derive(Debug)]
pub(crate) struct Index {
    /// The first id that is not in it.
    indexed: u32,
    pairs: usize,
    terms: usize,
    names: HashMap<u32, Name>,
}

#[derive(Debug, Default)]
struct Name {
    /// Series with this label.
    any: RoaringBitmap,
    /// By the symbol of the value.
    values: HashMap<u32, Postings>,
}

/// Series with one label and value. Most values of a label such as `id`
/// belong to one or a few series.
#[derive(Debug)]
enum Postings {
    One(u32),
    Many(Box<RoaringBitmap>),
}

impl Postings {
    fn push(&mut self, id: u32) {
        match self {
            Self::One(first) => {
                let both = RoaringBitmap::from_iter([*first, id]);
                *self = Self::Many(Box::new(both));
            }
            Self::Many(bitmap) => {
                bitmap.insert(id);
            }
        }
    }

    fn add_to(&self, bitmap: &mut RoaringBitmap) {
        match self {
            Self::One(id) => {
                bitmap.insert(*id);
            }
            Self::Many(many) => *bitmap |= &**many,
        }
    }

    fn count_in(&self, bitmap: &RoaringBitmap) -> u64 {
        match self {
            Self::One(id) => u64::from(bitmap.contains(*id)),
            Self::Many(many) => many.intersection_len(bitmap),
        }
    }
}

impl Index {
    /// An index of the series from this id on.
    pub(crate) fn starting_at(id: u32) -> Self {
        Self { indexed: id, pairs: 0, terms: 0, names: HashMap::new() }
    }

    /// Whether series are missing.
    pub(crate) const fn is_behind(&self, table: &SeriesTable) -> bool {
        self.indexed < table.next_id()
    }

    /// Adds the series that are missing, at most `max` of them.
    pub(crate) fn catch_up(&mut self, table: &SeriesTable, max: u32) {
        let end = table.next_id().min(self.indexed.saturating_add(max));
        for id in self.indexed..end {
            for (name, value) in table.pairs(id) {
                let name = self.names.entry(name).or_default();
                name.any.insert(id);
                self.pairs += 1;
                match name.values.entry(value) {
                    std::collections::hash_map::Entry::Occupied(mut e) => e.get_mut().push(id),
                    std::collections::hash_map::Entry::Vacant(e) => {
                        e.insert(Postings::One(id));
                        self.terms += 1;
                    }
                }
            }
        }
        self.indexed = end;
    }

    /// Its terms; `table` is the one that it was brought up to date from.
    pub(crate) const fn terms<'a>(&'a self, table: &'a SeriesTable) -> IndexTerms<'a> {
        IndexTerms { index: self, table }
    }

    /// All labels in order, with the series of each.
    pub(crate) fn sorted<'a>(
        &'a self,
        table: &'a SeriesTable,
    ) -> impl Iterator<Item = (&'a str, &'a str, RoaringBitmap)> {
        let text = |symbol: u32| table.symbols().get(symbol);
        let mut names: Vec<(&str, &Name)> = self.names.iter().map(|(n, v)| (text(*n), v)).collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        names.into_iter().flat_map(move |(name, entry)| {
            let mut values: Vec<(&str, &Postings)> =
                entry.values.iter().map(|(v, p)| (text(*v), p)).collect();
            values.sort_unstable_by_key(|(value, _)| *value);
            values.into_iter().map(move |(value, postings)| {
                let mut ids = RoaringBitmap::new();
                postings.add_to(&mut ids);
                (name, value, ids)
            })
        })
    }

    /// Bytes on the heap, estimated.
    pub(crate) fn heap_bytes(&self) -> usize {
        // Two bytes per entry of a bitmap, twice; a term's entry and its share
        // of empty slots.
        self.pairs * 4 + self.terms * 40
    }
}

/// An [`Index`] with its symbols.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexTerms<'a> {
    index: &'a Index,
    table: &'a SeriesTable,
}

impl IndexTerms<'_> {
    fn name(&self, name: &str) -> Option<&Name> {
        self.table.symbols().find(name).and_then(|n| self.index.names.get(&n))
    }
}

impl Terms for IndexTerms<'_> {
    fn any(&self, name: &str) -> io::Result<RoaringBitmap> {
        Ok(self.name(name).map_or_else(RoaringBitmap::new, |n| n.any.clone()))
    }

    fn add_equal(&self, name: &str, value: &str, to: &mut RoaringBitmap) -> io::Result<()> {
        let value = self.table.symbols().find(value);
        if let (Some(name), Some(value)) = (self.name(name), value)
            && let Some(postings) = name.values.get(&value)
        {
            postings.add_to(to);
        }
        Ok(())
    }

    fn add_matching(
        &self,
        name: &str,
        takes: &dyn Fn(&str) -> bool,
        to: &mut RoaringBitmap,
    ) -> io::Result<()> {
        for (value, postings) in self.name(name).iter().flat_map(|n| &n.values) {
            if takes(self.table.symbols().get(*value)) {
                postings.add_to(to);
            }
        }
        Ok(())
    }

    fn names(&self, f: &mut dyn FnMut(&str, &RoaringBitmap)) -> io::Result<()> {
        for (name, entry) in &self.index.names {
            f(self.table.symbols().get(*name), &entry.any);
        }
        Ok(())
    }

    fn values(
        &self,
        name: &str,
        within: &RoaringBitmap,
        f: &mut dyn FnMut(&str, u64) -> bool,
    ) -> io::Result<()> {
        for (value, postings) in self.name(name).iter().flat_map(|n| &n.values) {
            let count = postings.count_in(within);
            if count > 0 && !f(self.table.symbols().get(*value), count) {
                break;
            }
        }
        Ok(())
    }
}

/// The alternatives of an expression that is nothing but literals between
/// bars, without an empty one.
fn literal_set(expression: &str) -> Option<impl Iterator<Item = &str>> {
    let plain =
        |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '/' | '-' | ' ' | '|' | ',');
    let set = !expression.is_empty()
        && expression.chars().all(plain)
        && expression.split('|').all(|a| !a.is_empty());
    set.then(|| expression.split('|'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;
    use proptest::prelude::*;

    fn matcher() -> impl Strategy<Value = Matcher> {
        let text = prop_oneof![
            Just(""),
            Just("a"),
            Just("b"),
            Just("a|b"),
            Just("a|"),
            Just(".*"),
            Just(".+"),
            Just("a.*"),
            Just("[ab]c?")
        ];
        let op = prop_oneof![
            Just(MatchOp::Equal),
            Just(MatchOp::NotEqual),
            Just(MatchOp::Regex),
            Just(MatchOp::NotRegex)
        ];
        ("[x-z]", op, text).prop_map(|(n, op, v)| Matcher::new(op, n, v).expect("valid"))
    }

    proptest! {
        #[test]
        fn postings_are_sets(
            sets in proptest::collection::vec(
                proptest::collection::btree_map("[xy]", "[abc]{1,2}", 1..3), 1..30),
            matchers in proptest::collection::vec(matcher(), 0..4),
        ) {
            let mut table = SeriesTable::default();
            let mut index = Index::starting_at(0);
            for set in &sets {
                let labels = Labels::from_pairs(set);
                if table.find(&labels).is_none() {
                    table.insert(&labels).expect("room");
                }
            }
            index.catch_up(&table, u32::MAX);
            let mut all = RoaringBitmap::new();
            all.insert_range(0..table.next_id());
            let found = select(&index.terms(&table), &matchers, all).expect("in memory");
            let found: Vec<u32> = found.iter().collect();
            let expected: Vec<u32> = (0..table.next_id())
                .filter(|&id| {
                    let labels = table.labels(id).expect("in the table");
                    matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")))
                })
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
