//! Which rows have which buckets, and which lanes those make.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;

use super::{
    CUSTOM_BUCKETS_SCHEMA, CodecError, Encoder, Histogram, Input, PART_CELLS, Span, codec,
    push_signed, push_varint,
};
use crate::histogram::validate::{BUCKETS_MAX, Side, check_spans};

/// The zero threshold of most clients: 2^-128.
const USUAL_THRESHOLD: f64 = f64::from_bits(0x37f0_0000_0000_0000);

/// What rows have in common.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) positive_spans: Vec<Span>,
    pub(super) negative_spans: Vec<Span>,
    pub(super) custom_values: Arc<[f64]>,
}

impl Layout {
    fn of(h: &Histogram) -> Self {
        let sides = [
            (Side::Positive, &h.positive_spans, &h.positive_buckets),
            (Side::Negative, &h.negative_spans, &h.negative_buckets),
        ];
        for (side, spans, counts) in sides {
            let checked = check_spans(side, spans, counts.len());
            assert_eq!(checked, Ok(()), "BUG: a histogram that nobody checked");
        }
        Self {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            positive_spans: h.positive_spans.clone(),
            negative_spans: h.negative_spans.clone(),
            custom_values: Arc::clone(&h.custom_values),
        }
    }

    /// Whether this is the layout of `h`, to the bit.
    pub(super) fn is_that_of(&self, h: &Histogram) -> bool {
        self.schema == h.schema
            && self.zero_threshold.to_bits() == h.zero_threshold.to_bits()
            && self.positive_spans == h.positive_spans
            && self.negative_spans == h.negative_spans
            && same_bounds(&self.custom_values, &h.custom_values)
    }

    /// A key for looking layouts up.
    fn key(h: &Histogram) -> Vec<u64> {
        let mut key = vec![h.schema as u64, h.zero_threshold.to_bits()];
        key.push(h.positive_spans.len() as u64);
        let spans = h.positive_spans.iter().chain(&h.negative_spans);
        key.extend(spans.map(|s| u64::from(s.offset as u32) << 32 | u64::from(s.length)));
        key.push(h.negative_spans.len() as u64);
        key.extend(h.custom_values.iter().map(|b| b.to_bits()));
        key
    }

    pub(super) fn positive_buckets(&self) -> usize {
        self.positive_spans.iter().map(|s| s.length as usize).sum()
    }

    fn buckets(&self) -> usize {
        self.positive_buckets()
            + self.negative_spans.iter().map(|s| s.length as usize).sum::<usize>()
    }

    pub(super) fn write(&self, encoder: &mut Encoder, out: &mut Vec<u8>) {
        push_signed(self.schema, out);
        match self.zero_threshold.to_bits() {
            0 => out.push(0),
            b if b == USUAL_THRESHOLD.to_bits() => out.push(1),
            bits => {
                out.push(2);
                out.extend_from_slice(&bits.to_le_bytes());
            }
        }
        for spans in [&self.positive_spans, &self.negative_spans] {
            push_varint(spans.len() as u64, out);
            for span in spans {
                push_signed(span.offset, out);
                push_varint(u64::from(span.length), out);
            }
        }
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            push_varint(self.custom_values.len() as u64, out);
            encoder.encode(&self.custom_values, None, out);
        }
    }

    fn read(input: &mut Input<'_>) -> Result<Self, CodecError> {
        let schema = input.signed("schema")?;
        let zero_threshold = match input.byte()? {
            0 => 0.0,
            1 => USUAL_THRESHOLD,
            2 => input.bits()?,
            _ => return Err(input.invalid("zero threshold")),
        };
        let positive_spans = read_spans(input, Side::Positive)?;
        let negative_spans = read_spans(input, Side::Negative)?;
        let mut custom_values = Vec::new();
        if schema == CUSTOM_BUCKETS_SCHEMA {
            let length = input.varint()?;
            let length = usize::try_from(length).ok().filter(|l| *l <= BUCKETS_MAX);
            let length = length.ok_or_else(|| input.invalid("custom bounds"))?;
            let used = codec::decode(input.rest(), length, None, &mut custom_values)?;
            input.skip(used)?;
        }
        let custom_values = custom_values.into();
        Ok(Self { schema, zero_threshold, positive_spans, negative_spans, custom_values })
    }
}

fn read_spans(input: &mut Input<'_>, side: Side) -> Result<Vec<Span>, CodecError> {
    let length = input.length("spans")?;
    let mut spans = Vec::with_capacity(length);
    for _ in 0..length {
        let offset = input.signed("span offset")?;
        let length = u32::try_from(input.varint()?).map_err(|_| input.invalid("span length"))?;
        spans.push(Span { offset, length });
    }
    let covered: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    let fits = usize::try_from(covered).is_ok_and(|c| check_spans(side, &spans, c).is_ok());
    if fits { Ok(spans) } else { Err(input.invalid("spans")) }
}

fn same_bounds(a: &Arc<[f64]>, b: &Arc<[f64]>) -> bool {
    Arc::ptr_eq(a, b)
        || (a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.to_bits() == b.to_bits()))
}

/// The layouts of a part and the rows that have them.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) layouts: Vec<Layout>,
    /// Layout and number of rows, not 0.
    pub(super) runs: Vec<(usize, usize)>,
}

impl Table {
    pub(super) fn of<H: Borrow<Histogram>>(rows: &[H]) -> Self {
        let mut table = Self { layouts: Vec::new(), runs: Vec::new() };
        let mut ids: HashMap<Vec<u64>, usize> = HashMap::new();
        for h in rows {
            let h = h.borrow();
            if let Some((id, length)) = table.runs.last_mut()
                && table.layouts[*id].is_that_of(h)
            {
                *length += 1;
                continue;
            }
            let next = table.layouts.len();
            let id = *ids.entry(Layout::key(h)).or_insert(next);
            if id == next {
                table.layouts.push(Layout::of(h));
            }
            table.runs.push((id, 1));
        }
        table
    }

    pub(super) fn read(input: &mut Input<'_>, rows: usize) -> Result<Self, CodecError> {
        let length = input.length("layouts")?;
        if length == 0 || length > rows {
            return Err(input.invalid("layouts"));
        }
        let mut layouts = Vec::new();
        for _ in 0..length {
            layouts.push(Layout::read(input)?);
        }
        let mut runs = Vec::new();
        if length == 1 {
            runs.push((0, rows));
        } else {
            let (mut missing, mut used) = (rows, 0);
            while missing > 0 {
                let id = input.varint()?;
                let id = usize::try_from(id).ok().filter(|id| *id <= used && *id < length);
                let id = id.ok_or_else(|| input.invalid("layout"))?;
                used = used.max(id + 1);
                let run = input.varint()?.saturating_add(1);
                let run = usize::try_from(run).ok().filter(|run| *run <= missing);
                let run = run.ok_or_else(|| input.invalid("rows of a layout"))?;
                runs.push((id, run));
                missing -= run;
            }
            if used != length {
                return Err(input.invalid("layouts"));
            }
        }
        let cells = |&(id, rows): &(usize, usize)| layouts[id].buckets().saturating_mul(rows);
        let cells = runs.iter().map(cells).fold(0usize, usize::saturating_add);
        if rows > 1 && cells > PART_CELLS {
            return Err(input.invalid("buckets"));
        }
        Ok(Self { layouts, runs })
    }

    /// The layout of each row.
    pub(super) fn rows(&self) -> impl Iterator<Item = usize> {
        self.runs.iter().flat_map(|&(id, rows)| std::iter::repeat_n(id, rows))
    }

    /// The lanes that the layouts make.
    pub(super) fn lanes(&self) -> Lanes {
        let mut groups: Vec<usize> = Vec::new();
        let mut keys: Vec<(Key, usize)> = Vec::new();
        for (id, layout) in self.layouts.iter().enumerate() {
            let known = groups.iter().position(|&g| {
                let first = &self.layouts[g];
                first.schema == layout.schema
                    && same_bounds(&first.custom_values, &layout.custom_values)
            });
            let group = known.unwrap_or_else(|| {
                groups.push(id);
                groups.len() - 1
            });
            for (side, spans) in [&layout.positive_spans, &layout.negative_spans].iter().enumerate()
            {
                keys.extend(indexes(spans).map(|index| ((group, side, index), id)));
            }
        }
        let mut rows_of = vec![0; self.layouts.len()];
        self.runs.iter().for_each(|&(id, rows)| rows_of[id] += rows);

        // Sorted by key, then layout: each run of equal keys is a lane. Within
        // a layout the sorted order is that of its buckets.
        keys.sort_unstable();
        let mut lanes = Lanes {
            all: Vec::new(),
            of_layout: self.layouts.iter().map(|l| Vec::with_capacity(l.buckets())).collect(),
        };
        let mut left: &[(Key, usize)] = &[];
        for members in keys.chunk_by(|a, b| a.0 == b.0) {
            let lane = lanes.all.len();
            let mut rows = 0;
            for &(_, layout) in members {
                lanes.of_layout[layout].push(lane);
                rows += rows_of[layout];
            }
            let same_layouts = left.iter().map(|m| m.1).eq(members.iter().map(|m| m.1));
            let beside = match (left.first(), members.first()) {
                (Some((a, _)), Some((b, _))) => (a.0, a.1) == (b.0, b.1),
                _ => false,
            };
            let sibling = (beside && same_layouts).then(|| lane - 1);
            lanes.all.push(Lane { rows, sibling });
            left = members;
        }
        lanes
    }
}

/// Schema and bounds, side, index.
type Key = (usize, usize, i64);

/// The bucket lanes of a part.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) all: Vec<Lane>,
    /// For each layout the lanes of its buckets, positive before negative.
    pub(super) of_layout: Vec<Vec<usize>>,
}

/// One bucket over the rows that list it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) rows: usize,
    /// The lane of the lower neighbour, if it has the same rows.
    pub(super) sibling: Option<usize>,
}

fn indexes(spans: &[Span]) -> impl Iterator<Item = i64> {
    let mut end = 0i64;
    spans.iter().flat_map(move |span| {
        let first = end + i64::from(span.offset);
        end = first + i64::from(span.length);
        first..end
    })
}
