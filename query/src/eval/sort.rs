//! `sort`, `sort_desc` and sorting by labels.

use std::cmp::Ordering;

use narthex_storage::labels::Labels;

use super::arith::nan_first;
use super::lanes::{Batch, is_present};

/// Sorts an instant vector by value; NaN goes last. Histograms are left out.
pub(super) fn by_value(mut batch: Batch, descending: bool) -> Batch {
    batch.retain(|s| is_present(s.float(0)));
    batch.sort_by(|a, b| {
        let (a, b) = (a.float(0), b.float(0));
        match (a.is_nan(), b.is_nan()) {
            (false, false) if descending => nan_first(b, a),
            (false, false) => nan_first(a, b),
            (a, b) => a.cmp(&b),
        }
    });
    batch
}

/// Sorts by the values of some labels in natural order, then by all labels.
pub(super) fn by_labels(mut batch: Batch, names: &[&str], descending: bool) -> Batch {
    batch.sort_by(|a, b| {
        let order = names
            .iter()
            .map(|name| natural(value(&a.labels, name), value(&b.labels, name)))
            .find(|order| order.is_ne())
            .unwrap_or_else(|| a.labels.cmp(&b.labels));
        if descending { order.reverse() } else { order }
    });
    batch
}

fn value<'l>(labels: &'l Labels, name: &str) -> &'l str {
    labels.get(name).unwrap_or("")
}

/// Compares runs of digits as numbers, other runs as text.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a, b);
    loop {
        match (x.is_empty(), y.is_empty()) {
            (true, true) => return a.cmp(b),
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        let (run_x, rest_x) = run(x);
        let (run_y, rest_y) = run(y);
        let order = match (run_x.parse::<u64>(), run_y.parse::<u64>()) {
            (Ok(m), Ok(n)) => m.cmp(&n),
            _ => run_x.cmp(run_y),
        };
        if order.is_ne() {
            return order;
        }
        (x, y) = (rest_x, rest_y);
    }
}

/// The first run of digits or of anything else.
fn run(text: &str) -> (&str, &str) {
    let digit = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_within_texts_are_numbers() {
        assert_eq!(natural("cpu2", "cpu10"), Ordering::Less);
        assert_eq!(natural("cpu10b", "cpu10a"), Ordering::Greater);
        assert_eq!(natural("", "a"), Ordering::Less);
        assert_eq!(natural("1", "1"), Ordering::Equal);
    }
}
