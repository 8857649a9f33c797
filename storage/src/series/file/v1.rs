//! How were series kept in version 1?
//!
//! ```text
//! payload  = varint first symbol, varint symbols, per symbol varint length, text
//!            varint first series, varint series, per series
//!                u32 tag, varint labels, per label varint name, varint value
//! ```
//!
//! Symbols were numbered through the whole file, so that a damaged batch took
//! the later series with its symbols along.

use super::{MAX_LABELS, load_series};
use crate::engine::varint;
use crate::series::table::SeriesTable;

/// The symbols of a file: those of the table, `None` if they are lost.
pub(super) type Symbols = Vec<Option<u32>>;

/// Symbols of damaged batches, each of two bytes at least.
const MAX_LOST_SYMBOLS: usize = 1 << 27;

pub(super) fn load_batch(
    mut input: &[u8],
    symbols: &mut Symbols,
    table: &mut SeriesTable,
) -> Option<()> {
    let input = &mut input;
    let first = usize::try_from(varint::take(input)?).ok()?;
    if first < symbols.len() || first - symbols.len() > MAX_LOST_SYMBOLS {
        return None;
    }
    // Those of a damaged batch.
    symbols.resize(first, None);
    for _ in 0..varint::take_count(input)? {
        let text = std::str::from_utf8(varint::take_sized(input)?).ok()?;
        symbols.push(Some(table.intern(text)));
    }
    let first = u32::try_from(varint::take(input)?).ok()?;
    let count = u32::try_from(varint::take_count(input)?).ok()?;
    let end = first.checked_add(count).filter(|end| *end < u32::MAX - 1)?;
    table.skip_to(first);
    let mut pairs = Vec::new();
    for id in first..end {
        let tag = varint::take_u32(input)?;
        pairs.clear();
        let mut is_lost = false;
        for _ in 0..varint::take_at_most(input, MAX_LABELS)? {
            let mut symbol = || symbols.get(usize::try_from(varint::take(input)?).ok()?);
            match (symbol()?, symbol()?) {
                (Some(name), Some(value)) => pairs.push((*name, *value)),
                _ => is_lost = true,
            }
        }
        if is_lost {
            // Part of its labels would make it another series.
            pairs.clear();
        }
        load_series(id, tag, &pairs, table);
    }
    input.is_empty().then_some(())
}
