//! Which labels have the most series?

use std::collections::HashMap;
use std::io;

use roaring::RoaringBitmap;

use super::Series;
use crate::index::Terms;
use crate::labels::METRIC_NAME;

/// Counts per label name and value; unsorted.
#[derive(Debug, Default)]
pub(crate) struct Cardinality {
    pub(crate) series_by_metric: Vec<(String, u64)>,
    pub(crate) values_by_name: Vec<(String, u64)>,
    pub(crate) bytes_by_name: Vec<(String, u64)>,
    pub(crate) series_by_pair: Vec<(String, u64)>,
}

/// Series by value, by name.
type Counts = HashMap<String, HashMap<String, u64>>;

impl Series {
    /// For each label name the number of values, and the bytes they have; for
    /// each value of the metric name and each pair the number of series. Walks
    /// all terms.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn cardinality(&self, within: &RoaringBitmap) -> io::Result<Cardinality> {
        let mut counts = Counts::new();
        let tail = self.with_index(|index, table| {
            let tail = super::tail_of(table, within);
            count(&index.terms(table), &tail, &mut counts).map(|()| table.tail().start)
        })?;
        let mut older = within.clone();
        older.remove_range(tail..);
        for (segment, within) in self.segments_in(&older) {
            count(&segment.terms(&self.pages), &within, &mut counts)?;
        }
        Ok(summed(counts))
    }
}

fn count(terms: &impl Terms, within: &RoaringBitmap, counts: &mut Counts) -> io::Result<()> {
    let mut names = Vec::new();
    terms.names(&mut |name, series| {
        if !series.is_disjoint(within) {
            names.push(name.to_owned());
        }
    })?;
    for name in names {
        let of_name = counts.entry(name.clone()).or_default();
        terms.values(&name, within, &mut |value, series| {
            match of_name.get_mut(value) {
                Some(count) => *count += series,
                None => {
                    of_name.insert(value.to_owned(), series);
                }
            }
            true
        })?;
    }
    Ok(())
}

fn summed(counts: Counts) -> Cardinality {
    let mut found = Cardinality::default();
    for (name, values) in counts {
        let bytes = values.keys().map(|v| v.len() as u64).sum();
        found.values_by_name.push((name.clone(), values.len() as u64));
        found.bytes_by_name.push((name.clone(), bytes));
        for (value, series) in values {
            found.series_by_pair.push((format!("{name}={value}"), series));
            if name == METRIC_NAME {
                found.series_by_metric.push((value, series));
            }
        }
    }
    found
}
