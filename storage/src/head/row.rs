//! How is a row written as differences from the row before?
//!
//! An *item* is what one commit adds to one open stripe. The same bytes are in
//! the log and in memory.
//!
//! ```text
//! item      = u8 kind (bits 0..2) and flags
//!   kind 0  columns added:   id runs
//!   kind 1  new row:         varint milliseconds after the row before, cells
//!   kind 2  more of a row:   varint milliseconds before the newest row, cells
//!   kind 3  key row:         id runs of all columns, signed milliseconds since
//!                            the epoch, cells; forgets all values before
//! cells     = [columns, floats] [histograms] [starts], as the flags say
//! columns   = varint runs, per run varint gap, varint length - 1
//!             (missing with flag ALL: every column)
//! floats    = one bit per cell, whether it differs from the column's value
//!             before (with flag SPARSE: a bit per byte of these bits, whether it
//!             differs from that of the row before, then those that do, XORed
//!             with them); then for each cell that does:
//!             varint zigzag(mantissa - mantissa before), never 0, or
//!             0, u8 scale 0..=12, varint zigzag(mantissa): value * 10^scale, or
//!             0, 15, u64 bits; from then on differences of that column are
//!             u8 leading << 4 | trailing zero bytes, the bytes between: XOR
//! histograms= varint count, per histogram varint column gap, varint length, bytes
//! starts    = varint count, per start varint column gap, signed milliseconds
//!             before the row
//! ```
//!
//! In a key row all values before are 0 and all scales 0. SPARSE is for rows of
//! every column; the bits before are 0 in a key row and behind any other row of
//! floats. Whether a column changes seldom changes itself, so that this takes a
//! third of the plain bits.
//! Encoder and decoder walk the same [`RowState`].

use crate::budget::grow;
use crate::engine::varint;

/// Most columns of one axis.
pub(crate) const MAX_COLUMNS: usize = 4096;

const KIND_MASK: u8 = 0x03;
const ALL: u8 = 0x04;
const FLOATS: u8 = 0x08;
const HISTOGRAMS: u8 = 0x10;
const STARTS: u8 = 0x20;
const SPARSE: u8 = 0x40;

const RAW_SCALE: u8 = 15;
const MAX_SCALE: u8 = 12;
const POWERS: [f64; MAX_SCALE as usize + 1] =
    [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12];
/// Adding and subtracting this rounds to an integer, below 2^51.
const ROUND: f64 = 6_755_399_441_055_744.0;
const MAX_MANTISSA: f64 = (1u64 << 50) as f64;

/// What an item does to its stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Appends columns.
    Columns = 0,
    /// Starts a row.
    Row = 1,
    /// Adds cells to a row that is there.
    Amend = 2,
    /// Starts a row that needs nothing before it.
    Key = 3,
}

/// The values that differences refer to, one per column.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowState {
    /// The newest float of each column.
    pub(crate) last: Vec<f64>,
    scale: Vec<u8>,
    /// Which columns changed in the row before, if it had all of them; else
    /// empty.
    changed: Vec<u8>,
    /// The same of the row that is being written.
    changing: Vec<u8>,
}

impl RowState {
    /// Makes room for `columns` columns.
    pub(crate) fn grow(&mut self, columns: usize) {
        if columns > self.last.len() {
            let more = columns - self.last.len();
            grow(&mut self.last, more);
            self.last.resize(columns, 0.0);
            grow(&mut self.scale, more);
            self.scale.resize(columns, 0);
        }
    }

    /// Forgets all values, as a key row does.
    fn reset(&mut self) {
        self.last.fill(0.0);
        self.scale.fill(0);
        self.changed.clear();
    }

    /// Bytes on the heap.
    pub(crate) const fn heap_bytes(&self) -> usize {
        self.last.capacity() * 8
            + self.scale.capacity()
            + self.changed.capacity()
            + self.changing.capacity()
    }
}

/// The cells of one row that belong to one axis.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    /// Ascending.
    pub(crate) columns: Vec<u16>,
    /// The float of each column in `columns`.
    pub(crate) values: Vec<f64>,
    /// Columns with an encoded histogram, ascending; not in `columns`.
    pub(crate) histograms: Vec<(u16, Vec<u8>)>,
    /// Start timestamps, ascending by column.
    pub(crate) starts: Vec<(u16, i64)>,
}

impl Cells {
    pub(crate) fn clear(&mut self) {
        self.columns.clear();
        self.values.clear();
        self.histograms.clear();
        self.starts.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.columns.len() + self.histograms.len()
    }
}

/// Appends an item that adds columns.
pub(crate) fn encode_columns(ids: &[u32], out: &mut Vec<u8>) {
    out.push(Kind::Columns as u8);
    varint::put_id_runs(out, ids);
}

/// Where the row of an item is in time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RowTime<'a> {
    /// Milliseconds after the row before.
    After(u64),
    /// Milliseconds before the newest row.
    Before(u64),
    /// A key row, and all columns.
    Key(&'a [u32]),
}

/// Appends a row item and moves `state` on.
///
/// Cost: one pass over the cells; about 1 ns for each that did not change and
/// 10 ns for each that did.
pub(crate) fn encode_row(
    time: RowTime<'_>,
    timestamp_ms: i64,
    cells: &Cells,
    column_count: usize,
    state: &mut RowState,
    out: &mut Vec<u8>,
) {
    let kind = match time {
        RowTime::After(_) => Kind::Row,
        RowTime::Before(_) => Kind::Amend,
        RowTime::Key(..) => Kind::Key,
    };
    let all = cells.columns.len() == column_count;
    let mut head = kind as u8;
    for (flag, set) in [
        (ALL, all),
        (FLOATS, !cells.columns.is_empty()),
        (HISTOGRAMS, !cells.histograms.is_empty()),
        (STARTS, !cells.starts.is_empty()),
    ] {
        head |= if set { flag } else { 0 };
    }
    let head_at = out.len();
    out.push(head);
    state.grow(column_count);
    match time {
        RowTime::After(ms) | RowTime::Before(ms) => varint::put(out, ms),
        RowTime::Key(ids) => {
            varint::put_id_runs(out, ids);
            varint::put_signed(out, timestamp_ms);
            state.reset();
        }
    }
    if !cells.columns.is_empty() {
        if all {
            out[head_at] |= encode_all(&cells.values, state, out);
        } else {
            put_column_runs(out, &cells.columns);
            encode_some(&cells.columns, &cells.values, state, out);
        }
    }
    if !cells.histograms.is_empty() {
        varint::put(out, cells.histograms.len() as u64);
        let mut next = 0;
        for (column, bytes) in &cells.histograms {
            varint::put(out, u64::from(*column - next));
            varint::put(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
            next = *column;
        }
    }
    if !cells.starts.is_empty() {
        varint::put(out, cells.starts.len() as u64);
        let mut next = 0;
        for (column, start_ms) in &cells.starts {
            varint::put(out, u64::from(*column - next));
            varint::put_signed(out, timestamp_ms.wrapping_sub(*start_ms));
            next = *column;
        }
    }
}

fn put_column_runs(out: &mut Vec<u8>, columns: &[u16]) {
    let runs = || columns.chunk_by(|a, b| *a + 1 == *b);
    varint::put(out, runs().count() as u64);
    let mut end = 0;
    for run in runs() {
        varint::put(out, u64::from(run[0] - end));
        varint::put(out, run.len() as u64 - 1);
        end = run[0] + run.len() as u16;
    }
}

/// Appends the floats of all columns; returns the flag that says how.
fn encode_all(values: &[f64], state: &mut RowState, out: &mut Vec<u8>) -> u8 {
    let RowState { last, scale, changed, changing } = state;
    changing.clear();
    changing.extend(values.chunks(8).zip(last.chunks(8)).map(|(values, last)| {
        let bits = values.iter().zip(last).enumerate();
        bits.fold(0, |byte, (i, (v, l))| byte | u8::from(v.to_bits() != l.to_bits()) << i)
    }));
    changed.resize(changing.len(), 0);
    let flips = || changing.iter().zip(&*changed).map(|(now, before)| now ^ before);
    let bitmap = changing.len().div_ceil(8);
    let is_sparse = bitmap + flips().filter(|f| *f != 0).count() < changing.len();
    if is_sparse {
        let start = out.len();
        out.resize(start + bitmap, 0);
        for (i, flip) in flips().enumerate().filter(|(_, f)| *f != 0) {
            out[start + i / 8] |= 1 << (i % 8);
            out.push(flip);
        }
    } else {
        out.extend_from_slice(changing);
    }
    for (i, &byte) in changing.iter().enumerate() {
        let mut bits = byte;
        while bits != 0 {
            let column = i * 8 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            let value = values[column];
            put_difference(last[column], value, &mut scale[column], out);
            last[column] = value;
        }
    }
    std::mem::swap(changed, changing);
    if is_sparse { SPARSE } else { 0 }
}

fn encode_some(columns: &[u16], values: &[f64], state: &mut RowState, out: &mut Vec<u8>) {
    state.changed.clear();
    let bitmap = out.len();
    out.resize(bitmap + values.len().div_ceil(8), 0);
    for (i, (&column, &value)) in columns.iter().zip(values).enumerate() {
        let column = usize::from(column);
        let last = &mut state.last[column];
        if value.to_bits() == last.to_bits() {
            continue;
        }
        out[bitmap + i / 8] |= 1 << (i % 8);
        put_difference(*last, value, &mut state.scale[column], out);
        *last = value;
    }
}

/// `value` as an integer over 10^`scale`, if that gives back its bits.
#[inline]
fn mantissa(value: f64, scale: u8) -> Option<i64> {
    if scale == 0 {
        let whole = value as i64;
        return (value.abs() < MAX_MANTISSA && (whole as f64).to_bits() == value.to_bits())
            .then_some(whole);
    }
    let power = POWERS[usize::from(scale)];
    let scaled = value * power;
    if scaled.is_nan() || scaled.abs() >= MAX_MANTISSA {
        return None;
    }
    let rounded = (scaled + ROUND) - ROUND;
    ((rounded / power).to_bits() == value.to_bits()).then_some(rounded as i64)
}

/// The mantissa of a value that [`mantissa`] accepted or that is 0.
#[inline]
fn mantissa_again(value: f64, scale: u8) -> i64 {
    if scale == 0 {
        return value as i64;
    }
    ((value * POWERS[usize::from(scale)] + ROUND) - ROUND) as i64
}

#[inline]
fn put_difference(last: f64, value: f64, scale: &mut u8, out: &mut Vec<u8>) {
    if *scale == RAW_SCALE {
        let xor = last.to_bits() ^ value.to_bits();
        let (leading, trailing) = (xor.leading_zeros() / 8, xor.trailing_zeros() / 8);
        out.push((leading << 4 | trailing) as u8);
        let len = (8 - leading - trailing) as usize;
        out.extend_from_slice(&(xor >> (8 * trailing)).to_le_bytes()[..len]);
        return;
    }
    if let Some(m) = mantissa(value, *scale) {
        let difference = m - mantissa_again(last, *scale);
        if difference != 0 {
            return varint::put_signed(out, difference);
        }
    }
    put_escaped(value, scale, out);
}

#[cold]
fn put_escaped(value: f64, scale: &mut u8, out: &mut Vec<u8>) {
    out.push(0);
    // Rising only, so that a column settles; a key row starts again at 0.
    for s in *scale..=MAX_SCALE {
        if let Some(m) = mantissa(value, s) {
            *scale = s;
            out.push(s);
            varint::put_signed(out, m);
            return;
        }
    }
    // One odd value (a staleness marker) must not make the column raw.
    if !value.is_nan() {
        *scale = RAW_SCALE;
    }
    out.push(if value.is_nan() { RAW_SCALE - 1 } else { RAW_SCALE });
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// What decoding an item tells.
pub(crate) trait Sink {
    /// The histogram of a column in the row that [`Sink::cells`] then names.
    fn histogram(&mut self, column: u16, bytes: &[u8]);
    /// The start timestamp of a column in that row, in ms before it.
    fn start(&mut self, column: u16, before_ms: i64);
    /// The time of the row, its float columns (`None`: all of `ids`), whose
    /// values are in `state.last`.
    fn cells(&mut self, time: ItemTime, columns: Option<&[u16]>, state: &RowState, ids: &[u32]);
}

/// The time of a decoded row item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ItemTime {
    /// Milliseconds after the row before.
    After(u64),
    /// Milliseconds before the newest row.
    Before(u64),
    /// A key row at this time.
    Key(i64),
}

/// The kind of an item, by its first byte.
pub(crate) const fn kind_of(first: u8) -> Kind {
    match first & KIND_MASK {
        0 => Kind::Columns,
        1 => Kind::Row,
        2 => Kind::Amend,
        _ => Kind::Key,
    }
}

/// Decodes one item off the front of `input`; `ids` and `state` move on.
/// `scratch` is for the columns.
///
/// `None` if the bytes are no item; `ids` and `state` may then be anything.
pub(crate) fn decode_item(
    input: &mut &[u8],
    ids: &mut Vec<u32>,
    state: &mut RowState,
    scratch: &mut Vec<u16>,
    sink: &mut impl Sink,
) -> Option<Kind> {
    let head = varint::take_byte(input)?;
    let kind = kind_of(head);
    let time = match kind {
        Kind::Columns => {
            varint::take_id_runs(input, MAX_COLUMNS.checked_sub(ids.len())?, ids)?;
            state.grow(ids.len());
            return Some(kind);
        }
        Kind::Row => ItemTime::After(varint::take(input)?),
        Kind::Amend => ItemTime::Before(varint::take(input)?),
        Kind::Key => {
            ids.clear();
            varint::take_id_runs(input, MAX_COLUMNS, ids)?;
            state.grow(ids.len());
            state.reset();
            ItemTime::Key(varint::take_signed(input)?)
        }
    };
    let count = ids.len();
    scratch.clear();
    let all = head & (ALL | FLOATS) == ALL | FLOATS;
    if all {
        take_changes(input, head & SPARSE != 0, count, state)?;
        decode_all(input, count, state)?;
    } else if head & FLOATS != 0 {
        take_column_runs(input, count, scratch)?;
        state.changed.clear();
        decode_some(input, scratch, state)?;
    }
    if head & HISTOGRAMS != 0 {
        let mut column = 0;
        for _ in 0..varint::take_at_most(input, count)? {
            column += varint::take_at_most(input, count)?;
            let bytes = varint::take_sized(input)?;
            sink.histogram(column_below(column, count)?, bytes);
        }
    }
    if head & STARTS != 0 {
        let mut column = 0;
        for _ in 0..varint::take_at_most(input, count)? {
            column += varint::take_at_most(input, count)?;
            sink.start(column_below(column, count)?, varint::take_signed(input)?);
        }
    }
    sink.cells(time, if all { None } else { Some(scratch) }, state, ids);
    Some(kind)
}

fn column_below(column: usize, count: usize) -> Option<u16> {
    u16::try_from(column).ok().filter(|_| column < count)
}

fn take_column_runs(input: &mut &[u8], count: usize, columns: &mut Vec<u16>) -> Option<()> {
    let mut end = 0;
    for _ in 0..varint::take_at_most(input, count)? {
        let first = end + varint::take_at_most(input, count)?;
        end = first + varint::take_at_most(input, count)? + 1;
        if end > count {
            return None;
        }
        columns.extend(first as u16..end as u16);
    }
    Some(())
}

/// Takes which of all columns changed.
fn take_changes(
    input: &mut &[u8],
    is_sparse: bool,
    count: usize,
    state: &mut RowState,
) -> Option<()> {
    let changed = &mut state.changed;
    let len = count.div_ceil(8);
    if !is_sparse {
        changed.clear();
        changed.extend_from_slice(varint::take_bytes(input, len)?);
        return Some(());
    }
    changed.resize(len, 0);
    let bitmap = varint::take_bytes(input, len.div_ceil(8))?;
    for (i, &byte) in bitmap.iter().enumerate() {
        let mut bits = byte;
        while bits != 0 {
            let at = i * 8 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            *changed.get_mut(at)? ^= varint::take_byte(input)?;
        }
    }
    Some(())
}

fn decode_all(input: &mut &[u8], count: usize, state: &mut RowState) -> Option<()> {
    let RowState { last, scale, changed, .. } = state;
    let (last, scale) = (last.get_mut(..count)?, scale.get_mut(..count)?);
    for (i, &byte) in changed.iter().enumerate() {
        let mut bits = byte;
        while bits != 0 {
            let column = i * 8 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            take_difference(input, last.get_mut(column)?, scale.get_mut(column)?)?;
        }
    }
    Some(())
}

fn decode_some(input: &mut &[u8], columns: &[u16], state: &mut RowState) -> Option<()> {
    let bitmap = varint::take_bytes(input, columns.len().div_ceil(8))?;
    for (i, &byte) in bitmap.iter().enumerate() {
        let mut bits = byte;
        while bits != 0 {
            let cell = i * 8 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            let column = usize::from(*columns.get(cell)?);
            take_difference(input, state.last.get_mut(column)?, state.scale.get_mut(column)?)?;
        }
    }
    Some(())
}

#[inline]
fn take_difference(input: &mut &[u8], last: &mut f64, scale: &mut u8) -> Option<()> {
    if *scale == RAW_SCALE {
        let shape = varint::take_byte(input)?;
        let (leading, trailing) = (usize::from(shape >> 4), usize::from(shape & 15));
        let len = 8usize.checked_sub(leading + trailing)?;
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(varint::take_bytes(input, len)?);
        let xor = u64::from_le_bytes(bytes).checked_shl(8 * trailing as u32)?;
        *last = f64::from_bits(last.to_bits() ^ xor);
        return Some(());
    }
    let difference = varint::take_signed(input)?;
    if difference == 0 {
        return take_escaped(input, last, scale);
    }
    let mantissa = mantissa_again(*last, *scale).wrapping_add(difference);
    *last = mantissa as f64 / POWERS[usize::from(*scale)];
    Some(())
}

#[cold]
fn take_escaped(input: &mut &[u8], last: &mut f64, scale: &mut u8) -> Option<()> {
    let form = varint::take_byte(input)?;
    if let Some(power) = POWERS.get(usize::from(form)) {
        *scale = form;
        *last = varint::take_signed(input)? as f64 / power;
        return Some(());
    }
    if form == RAW_SCALE {
        *scale = RAW_SCALE;
    } else if form != RAW_SCALE - 1 {
        return None;
    }
    *last = f64::from_bits(varint::take_u64(input)?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Seen(Vec<(u16, u64)>, Vec<(u16, Vec<u8>)>, Vec<(u16, i64)>);

    impl Sink for Seen {
        fn cells(&mut self, _: ItemTime, columns: Option<&[u16]>, state: &RowState, ids: &[u32]) {
            let one = |c: u16| (c, state.last[usize::from(c)].to_bits());
            self.0 = match columns {
                None => (0..ids.len() as u16).map(one).collect(),
                Some(columns) => columns.iter().map(|&c| one(c)).collect(),
            };
        }
        fn histogram(&mut self, column: u16, bytes: &[u8]) {
            self.1.push((column, bytes.to_vec()));
        }
        fn start(&mut self, column: u16, before_ms: i64) {
            self.2.push((column, before_ms));
        }
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-50i64..50).prop_map(|v| v as f64),
            3 => (-100_000i64..100_000).prop_map(|v| v as f64 / 100.0),
            1 => any::<u64>().prop_map(f64::from_bits),
            1 => Just(-0.0),
            1 => Just(crate::sample::stale_nan()),
            1 => any::<i64>().prop_map(|v| v as f64),
            1 => (0i64..1_000_000).prop_map(|v| v as f64 * 1e-9),
        ]
    }

    fn floats() -> impl Strategy<Value = std::collections::BTreeMap<u16, f64>> {
        prop_oneof![
            proptest::collection::btree_map(0u16..20, value(), 0..20),
            proptest::collection::vec(value(), 20).prop_map(|v| (0u16..).zip(v).collect()),
        ]
    }

    proptest! {
        #[test]
        fn rows_come_back_bit_by_bit(
            rows in proptest::collection::vec(
                (floats(), proptest::collection::btree_map(0u16..20, any::<i64>(), 0..3), any::<bool>()),
                1..12,
            ),
        ) {
            let ids: Vec<u32> = (100..120).collect();
            let (mut state, mut out) = (RowState::default(), Vec::new());
            let mut back_state = RowState::default();
            let mut back_ids = Vec::new();
            for (i, (cells, starts, key)) in rows.iter().enumerate() {
                let cells = Cells {
                    columns: cells.keys().copied().collect(),
                    values: cells.values().copied().collect(),
                    histograms: starts.iter().map(|(c, v)| (*c, v.to_le_bytes().to_vec())).collect(),
                    starts: starts.iter().map(|(c, v)| (*c, *v)).collect(),
                };
                let time = if i == 0 || *key { RowTime::Key(&ids) } else { RowTime::After(5) };
                out.clear();
                encode_row(time, 0, &cells, ids.len(), &mut state, &mut out);
                let mut seen = Seen::default();
                let mut input = out.as_slice();
                let kind = decode_item(&mut input, &mut back_ids, &mut back_state, &mut Vec::new(), &mut seen);
                prop_assert!(kind.is_some());
                prop_assert!(input.is_empty());
                let expected: Vec<(u16, u64)> =
                    cells.columns.iter().copied().zip(cells.values.iter().map(|v| v.to_bits())).collect();
                prop_assert_eq!(&seen.0, &expected);
                prop_assert_eq!(&seen.1, &cells.histograms);
                prop_assert_eq!(seen.2.len(), starts.len());
            }
        }

        #[test]
        fn any_bytes_are_an_item_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut ids = vec![1, 2, 3];
            let mut state = RowState::default();
            state.grow(3);
            let _ = decode_item(&mut bytes.as_slice(), &mut ids, &mut state, &mut Vec::new(), &mut Seen::default());
        }
    }
}
