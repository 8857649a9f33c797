//! Which series match?
//!
//! An [`Index`] knows for each label name and value the series that have it,
//! as bitmaps over the persistent ids. It is brought up to date from the
//! series table when somebody asks.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use crate::labels::{MatchOp, Matcher};
use crate::series::SeriesTable;

/// Label names and values to series.
#[derive(Debug, Default)]
pub(crate) struct Index {
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

    fn meets(&self, bitmap: &RoaringBitmap) -> bool {
        match self {
            Self::One(id) => bitmap.contains(*id),
            Self::Many(many) => !many.is_disjoint(bitmap),
        }
    }
}

impl Index {
    /// Whether series are missing.
    pub(crate) fn is_behind(&self, table: &SeriesTable) -> bool {
        self.indexed < table.len()
    }

    /// Adds the series that are missing, at most `max` of them.
    pub(crate) fn catch_up(&mut self, table: &SeriesTable, max: u32) {
        let end = table.len().min(self.indexed.saturating_add(max));
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

    /// The series of `within` that match all of `matchers`.
    pub(crate) fn select(
        &self,
        table: &SeriesTable,
        matchers: &[Matcher],
        within: RoaringBitmap,
    ) -> RoaringBitmap {
        let mut selected = within;
        // Those that must have the label first: they narrow most.
        let (empty, full): (Vec<&Matcher>, Vec<&Matcher>) =
            matchers.iter().partition(|m| m.matches_empty());
        for matcher in full {
            if selected.is_empty() {
                return selected;
            }
            selected &= self.with_value(table, matcher, |value| matcher.matches(value));
        }
        for matcher in empty {
            if selected.is_empty() {
                return selected;
            }
            selected -= self.without_value(table, matcher);
        }
        selected
    }

    /// Series whose label has a value that the matcher, which does not take
    /// the empty value, takes.
    fn with_value(
        &self,
        table: &SeriesTable,
        matcher: &Matcher,
        takes: impl Fn(&str) -> bool,
    ) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        let symbols = table.symbols();
        let Some(name) = symbols.find(&matcher.name).and_then(|n| self.names.get(&n)) else {
            return found;
        };
        let mut add = |value: &str| {
            if let Some(postings) = symbols.find(value).and_then(|v| name.values.get(&v)) {
                postings.add_to(&mut found);
            }
        };
        match matcher.op {
            MatchOp::Equal => add(&matcher.value),
            // `x!=""`, `x=~".+"`: all that have the label.
            MatchOp::NotEqual if matcher.value.is_empty() => return name.any.clone(),
            MatchOp::Regex if matcher.value == ".+" => return name.any.clone(),
            MatchOp::Regex if literal_set(&matcher.value).is_some() => {
                literal_set(&matcher.value).into_iter().flatten().for_each(add);
            }
            _ => {
                for (value, postings) in &name.values {
                    if takes(symbols.get(*value)) {
                        postings.add_to(&mut found);
                    }
                }
            }
        }
        found
    }

    /// Series whose label has a value that the matcher, which takes the empty
    /// value, does not take.
    fn without_value(&self, table: &SeriesTable, matcher: &Matcher) -> RoaringBitmap {
        match matcher.op {
            // The opposite takes no empty value, so its set is the complement.
            MatchOp::NotEqual => {
                let equal = Matcher::equal(matcher.name.as_str(), matcher.value.as_str());
                self.with_value(table, &equal, |_| false)
            }
            MatchOp::Regex if matcher.value == ".*" => RoaringBitmap::new(),
            MatchOp::NotRegex if literal_set(&matcher.value).is_some() => {
                let mut found = RoaringBitmap::new();
                for value in literal_set(&matcher.value).into_iter().flatten() {
                    let equal = Matcher::equal(matcher.name.as_str(), value);
                    found |= self.with_value(table, &equal, |_| false);
                }
                found
            }
            MatchOp::Equal => table
                .symbols()
                .find(&matcher.name)
                .and_then(|n| self.names.get(&n))
                .map_or_else(RoaringBitmap::new, |name| name.any.clone()),
            _ => {
                let mut found = RoaringBitmap::new();
                let name = table.symbols().find(&matcher.name).and_then(|n| self.names.get(&n));
                for (value, postings) in name.iter().flat_map(|n| &n.values) {
                    if !matcher.matches(table.symbols().get(*value)) {
                        postings.add_to(&mut found);
                    }
                }
                found
            }
        }
    }

    /// Sorted names of the labels of the series in `within`.
    pub(crate) fn label_names(&self, table: &SeriesTable, within: &RoaringBitmap) -> Vec<String> {
        let used = self.names.iter().filter(|(_, n)| !n.any.is_disjoint(within));
        let mut names: Vec<String> =
            used.map(|(name, _)| table.symbols().get(*name).to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// Sorted values of a label of the series in `within`.
    pub(crate) fn label_values(
        &self,
        table: &SeriesTable,
        name: &str,
        within: &RoaringBitmap,
    ) -> Vec<String> {
        let symbols = table.symbols();
        let Some(name) = symbols.find(name).and_then(|n| self.names.get(&n)) else {
            return Vec::new();
        };
        let used = name.values.iter().filter(|(_, p)| p.meets(within));
        let mut values: Vec<String> = used.map(|(v, _)| symbols.get(*v).to_owned()).collect();
        values.sort_unstable();
        values
    }

    /// For each label name the number of values, and the bytes they have;
    /// for each value of the metric name and each pair the number of series.
    pub(crate) fn cardinality(&self, table: &SeriesTable, within: &RoaringBitmap) -> Cardinality {
        let symbols = table.symbols();
        let mut found = Cardinality::default();
        for (name_symbol, name) in &self.names {
            let name_text = symbols.get(*name_symbol);
            let (mut values, mut bytes) = (0u64, 0u64);
            for (value, postings) in &name.values {
                let series = match postings {
                    Postings::One(id) => u64::from(within.contains(*id)),
                    Postings::Many(many) => many.intersection_len(within),
                };
                if series == 0 {
                    continue;
                }
                let value = symbols.get(*value);
                values += 1;
                bytes += value.len() as u64;
                if name_text == crate::labels::METRIC_NAME {
                    found.series_by_metric.push((value.to_owned(), series));
                }
                found.series_by_pair.push((format!("{name_text}={value}"), series));
            }
            if values > 0 {
                found.values_by_name.push((name_text.to_owned(), values));
                found.bytes_by_name.push((name_text.to_owned(), bytes));
            }
        }
        found
    }

    /// Bytes on the heap, estimated.
    pub(crate) fn heap_bytes(&self) -> usize {
        // Two bytes per entry of a bitmap, twice; a term's entry and its share
        // of empty slots.
        self.pairs * 4 + self.terms * 40
    }
}

/// Counts per label name and value; unsorted.
#[derive(Debug, Default)]
pub(crate) struct Cardinality {
    pub(crate) series_by_metric: Vec<(String, u64)>,
    pub(crate) values_by_name: Vec<(String, u64)>,
    pub(crate) bytes_by_name: Vec<(String, u64)>,
    pub(crate) series_by_pair: Vec<(String, u64)>,
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
            let mut index = Index::default();
            for set in &sets {
                let labels = Labels::from_pairs(set);
                if table.find(&labels).is_none() {
                    table.insert(&labels).expect("room");
                }
            }
            index.catch_up(&table, u32::MAX);
            let mut all = RoaringBitmap::new();
            all.insert_range(0..table.len());
            let found: Vec<u32> = index.select(&table, &matchers, all).iter().collect();
            let expected: Vec<u32> = (0..table.len())
                .filter(|&id| {
                    let labels = table.labels(id);
                    matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")))
                })
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
