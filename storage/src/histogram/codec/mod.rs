//! How does a column of histograms become a few bytes, and exactly itself
//! again?
//!
//! The rows are transposed: what all rows of a *layout* (schema, zero
//! threshold, spans, custom bounds) have in common is written once, and each
//! number becomes a *lane* over the rows, encoded by the codec of floats. The
//! lane of a bucket goes on where the layout changes: it has the values of all
//! rows in which the bucket is listed, whatever other buckets there are.
//!
//! A chunk is a sequence of parts, until all rows are there:
//!
//! ```text
//! varint      rows of this part, more than 0
//! byte        flags: 1 counts are the sums of their buckets
//! varint*     hints: (rows - 1) << 2 | hint, until all rows have one
//! varint      number of layouts, each:
//!   signed    schema
//!   byte      0: threshold 0, 1: 2^-128 (the usual one), 2: 8 bytes follow
//!   varint    positive spans, each: signed offset, varint length
//!   varint    negative spans, likewise
//!   varint    custom bounds less 1, and their chunk; only with that schema:
//!             0 for none
//! (varint id, varint rows - 1)*   rows of layouts; left out if there is one
//! lanes       count (unless flagged), zero count, sum, then the buckets by
//!             schema and bounds (in the order of their first row), positive
//!             before negative, ascending by index
//! ```
//!
//! Layouts are numbered as they first occur. A bucket's lane may build on that
//! of its lower neighbour if both are in the same layouts. Signed varints are
//! zigzag; varints are LEB128.
//!
//! Invariants: `decode(encode(x))` is `x` to the bit, hints and cuts of spans
//! included; the number of rows is not in the chunk, the caller knows it;
//! decoding is total, and reserves no more than `8 * count` bytes for each byte
//! of the chunk.

use std::borrow::Borrow;
use std::sync::Arc;

use super::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram, Span};
use crate::codec::{self, CodecError, Encoder};

mod input;
mod layouts;
#[cfg(test)]
mod tests;

use input::{Input, push_signed, push_varint};
use layouts::{Layout, Table};

/// Most bucket values of a part with several rows.
const PART_CELLS: usize = 1 << 22;
/// Most rows of a part.
const PART_ROWS: usize = 1 << 16;
/// Flag: each count is the sum of the zero count and the buckets.
const COUNTS_ADD_UP: u8 = 1;

/// Appends one chunk of histograms to `out`.
///
/// Allocates scratch space; cost is that of the codec of floats over all
/// numbers.
///
/// # Panics
///
/// If the spans of a histogram do not cover its buckets: only valid
/// histograms are stored.
pub fn encode<H: Borrow<Histogram>>(histograms: &[H], out: &mut Vec<u8>) {
    let mut encoder = Encoder::new();
    let mut rest = histograms;
    while !rest.is_empty() {
        let mut cells = 0;
        let fits = |h: &H| {
            cells += buckets_of(h.borrow());
            cells <= PART_CELLS
        };
        let rows = rest.iter().take(PART_ROWS).take_while(fits_once(fits)).count();
        let (part, others) = rest.split_at(rows.max(1));
        encode_part(part, &mut encoder, out);
        rest = others;
    }
}

/// A predicate by reference, as `take_while` wants it.
fn fits_once<'h, H: 'h>(mut fits: impl FnMut(&H) -> bool) -> impl FnMut(&&'h H) -> bool {
    move |h| fits(h)
}

fn buckets_of(h: &Histogram) -> usize {
    h.positive_buckets.len() + h.negative_buckets.len()
}

fn encode_part<H: Borrow<Histogram>>(rows: &[H], encoder: &mut Encoder, out: &mut Vec<u8>) {
    push_varint(rows.len() as u64, out);
    let adds_up = rows.iter().all(|h| {
        let h = h.borrow();
        sum_of_buckets(h.zero_count, &h.positive_buckets, &h.negative_buckets).to_bits()
            == h.count.to_bits()
    });
    out.push(if adds_up { COUNTS_ADD_UP } else { 0 });
    push_hints(rows, out);

    let table = Table::of(rows);
    push_varint(table.layouts.len() as u64, out);
    for layout in &table.layouts {
        layout.write(encoder, out);
    }
    if table.layouts.len() > 1 {
        for &(id, length) in &table.runs {
            push_varint(id as u64, out);
            push_varint(length as u64 - 1, out);
        }
    }

    let mut lane = |number: fn(&Histogram) -> f64| {
        let values: Vec<f64> = rows.iter().map(|h| number(h.borrow())).collect();
        encoder.encode(&values, None, out);
    };
    if !adds_up {
        lane(|h| h.count);
    }
    lane(|h| h.zero_count);
    lane(|h| h.sum);

    let lanes = table.lanes();
    let mut values: Vec<Vec<f64>> =
        lanes.all.iter().map(|lane| Vec::with_capacity(lane.rows)).collect();
    for (layout, h) in table.rows().zip(rows) {
        let h = h.borrow();
        let buckets = h.positive_buckets.iter().chain(&h.negative_buckets);
        for (&lane, &count) in lanes.of_layout[layout].iter().zip(buckets) {
            values[lane].push(count);
        }
    }
    for (i, lane) in lanes.all.iter().enumerate() {
        let sibling = lane.sibling.map(|left| &values[left][..]);
        encoder.encode(&values[i], sibling, out);
    }
}

/// In this order on both sides.
fn sum_of_buckets(zero_count: f64, positive: &[f64], negative: &[f64]) -> f64 {
    positive.iter().chain(negative).fold(zero_count, |sum, count| sum + count)
}

fn push_hints<H: Borrow<Histogram>>(rows: &[H], out: &mut Vec<u8>) {
    for run in rows.chunk_by(|a, b| hint_of(a) == hint_of(b)) {
        if let Some(first) = run.first() {
            push_varint((run.len() as u64 - 1) << 2 | hint_of(first), out);
        }
    }
}

fn hint_of(h: &impl Borrow<Histogram>) -> u64 {
    match h.borrow().counter_reset_hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    }
}

/// Appends the `count` histograms of the chunk at the start of `bytes` to
/// `out`, and says how many bytes the chunk had. Equal neighbours share one
/// allocation.
///
/// # Errors
///
/// [`CodecError`], with offsets from the start of `bytes` where this format is
/// at fault, and from that of a lane or list of bounds where that is; `out` is
/// then as it was.
pub fn decode(
    bytes: &[u8],
    count: usize,
    out: &mut Vec<Arc<Histogram>>,
) -> Result<usize, CodecError> {
    let start = out.len();
    let mut input = Input::new(bytes);
    decode_parts(&mut input, count, out).inspect_err(|_| out.truncate(start))?;
    Ok(input.offset())
}

fn decode_parts(
    input: &mut Input<'_>,
    count: usize,
    out: &mut Vec<Arc<Histogram>>,
) -> Result<(), CodecError> {
    let mut missing = count;
    while missing > 0 {
        let rows = input.varint()?;
        let rows = usize::try_from(rows).ok().filter(|r| (1..=missing).contains(r));
        let rows = rows.filter(|r| *r <= PART_ROWS).ok_or_else(|| input.invalid("rows"))?;
        decode_part(input, rows, out)?;
        missing -= rows;
    }
    Ok(())
}

fn decode_part(
    input: &mut Input<'_>,
    rows: usize,
    out: &mut Vec<Arc<Histogram>>,
) -> Result<(), CodecError> {
    let flags = input.byte()?;
    if flags & !COUNTS_ADD_UP != 0 {
        return Err(input.invalid("flags"));
    }
    let hints = read_hints(input, rows)?;
    let table = Table::read(input, rows)?;

    let adds_up = flags & COUNTS_ADD_UP != 0;
    let counts = if adds_up { Vec::new() } else { read_lane(input, rows, None)? };
    let zero_counts = read_lane(input, rows, None)?;
    let sums = read_lane(input, rows, None)?;

    // Every lane has a byte at least: the chunk bounds what is reserved.
    let lanes = table.lanes();
    if lanes.all.len() > input.rest().len() {
        return Err(input.truncated());
    }
    let mut values: Vec<Vec<f64>> = Vec::with_capacity(lanes.all.len());
    for lane in &lanes.all {
        let sibling = lane.sibling.and_then(|left| values.get(left)).map(|v| &v[..]);
        let lane = read_lane(input, lane.rows, sibling)?;
        values.push(lane);
    }

    let mut cursors = vec![0; lanes.all.len()];
    let mut previous: Option<Arc<Histogram>> = None;
    for (row, (id, hint)) in table.rows().zip(hints).enumerate() {
        let layout = &table.layouts[id];
        let of_layout = &lanes.of_layout[id];
        let mut take = |lanes: &[usize]| -> Vec<f64> {
            let next = |&lane: &usize| {
                cursors[lane] += 1;
                values[lane][cursors[lane] - 1]
            };
            lanes.iter().map(next).collect()
        };
        let (positive, negative) = of_layout.split_at(layout.positive_buckets());
        let mut h = Histogram {
            counter_reset_hint: hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: zero_counts[row],
            count: 0.0,
            sum: sums[row],
            positive_buckets: take(positive),
            negative_buckets: take(negative),
            positive_spans: Vec::new(),
            negative_spans: Vec::new(),
            custom_values: Arc::clone(&layout.custom_values),
        };
        h.count = match counts.get(row) {
            Some(count) => *count,
            None => sum_of_buckets(h.zero_count, &h.positive_buckets, &h.negative_buckets),
        };
        let repeats = previous.as_ref().is_some_and(|p| repeats(p, &h, layout));
        let h = match previous.take() {
            Some(p) if repeats => p,
            _ => {
                h.positive_spans.clone_from(&layout.positive_spans);
                h.negative_spans.clone_from(&layout.negative_spans);
                Arc::new(h)
            }
        };
        out.push(Arc::clone(&h));
        previous = Some(h);
    }
    Ok(())
}

/// Whether `next`, whose spans are those of `layout`, is `before` to the bit.
fn repeats(before: &Histogram, next: &Histogram, layout: &Layout) -> bool {
    let bits = |a: &[f64], b: &[f64]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
    };
    before.counter_reset_hint == next.counter_reset_hint
        && before.sum.to_bits() == next.sum.to_bits()
        && before.count.to_bits() == next.count.to_bits()
        && before.zero_count.to_bits() == next.zero_count.to_bits()
        && layout.is_that_of(before)
        && bits(&before.positive_buckets, &next.positive_buckets)
        && bits(&before.negative_buckets, &next.negative_buckets)
}

fn read_lane(
    input: &mut Input<'_>,
    count: usize,
    sibling: Option<&[f64]>,
) -> Result<Vec<f64>, CodecError> {
    let mut values = Vec::new();
    let used = codec::decode(input.rest(), count, sibling, &mut values)?;
    input.skip(used)?;
    Ok(values)
}

fn read_hints(input: &mut Input<'_>, rows: usize) -> Result<Vec<CounterResetHint>, CodecError> {
    let mut hints = Vec::with_capacity(rows);
    while hints.len() < rows {
        let field = input.varint()?;
        let hint = match field & 3 {
            0 => CounterResetHint::Unknown,
            1 => CounterResetHint::Reset,
            2 => CounterResetHint::NotReset,
            _ => CounterResetHint::Gauge,
        };
        let length = (field >> 2) + 1;
        if length > (rows - hints.len()) as u64 {
            return Err(input.invalid("hint"));
        }
        hints.resize(hints.len() + length as usize, hint);
    }
    Ok(hints)
}
