//! Aggregations that choose among series: `topk`, `bottomk`, `limitk`,
//! `limit_ratio`; and `count_values`, which makes series of values.

use std::collections::HashMap;

use narthex_storage::histogram::GoFloat;
use narthex_storage::labels::{Labels, is_legacy_label_name};

use crate::ast::{AggregateOp, Span};
use crate::plan::{Aggregate, Node};

use super::aggregate::Grouper;
use super::arith::nan_first;
use super::lanes::{Batch, Frame, Point, Series, is_present, merge_equal};
use super::notes::Notes;
use super::scalar::Scalar;
use super::{Eval, QueryError};

impl Eval<'_> {
    /// topk, bottomk, limitk and limit_ratio.
    pub(super) fn ranked(&mut self, a: &Aggregate, frame: Frame) -> Result<Batch, QueryError> {
        let param = match &a.param {
            Some(param) => self.scalar(param, frame)?,
            None => Scalar::Constant(f64::NAN),
        };
        let batch = self.eval(&a.node, frame)?;
        for series in &batch {
            self.release(series);
        }
        if !check_param(a, &param, frame, &mut self.notes)? {
            return Ok(Batch::new());
        }
        let grouper = Grouper::new(&a.grouping);
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let groups: Vec<usize> = batch
            .iter()
            .map(|s| {
                let next = places.len();
                *places.entry(grouper.labels(s)).or_insert(next)
            })
            .collect();
        let count = places.len();
        let mut chosen = Chosen::new(&batch, frame.count);
        let hashes: Vec<f64> = if a.op == AggregateOp::LimitRatio {
            batch.iter().map(|s| ratio_offset(&s.labels)).collect()
        } else {
            Vec::new()
        };
        for step in 0..frame.count {
            if step % 256 == 0 {
                self.check_alive()?;
            }
            let value = param.at(step);
            if a.op == AggregateOp::LimitRatio {
                let ratio = value.clamp(-1.0, 1.0);
                for group in 0..count {
                    for (i, series) in batch.iter().enumerate() {
                        if groups[i] == group && series.has(step) && in_ratio(ratio, hashes[i]) {
                            chosen.take(i, step);
                        }
                    }
                }
                continue;
            }
            #[allow(clippy::cast_possible_truncation, reason = "checked against 2^63")]
            let k = (value as i64).min(i64::try_from(batch.len()).unwrap_or(i64::MAX));
            let Ok(k @ 1..) = usize::try_from(k) else { continue };
            let mut heaps: Vec<Heap> = (0..count).map(|_| Heap::new(a.op, k)).collect();
            for (i, series) in batch.iter().enumerate() {
                let float = series.float(step);
                let limited = a.op == AggregateOp::Limitk;
                if limited && series.has(step) {
                    heaps[groups[i]].limit(i);
                } else if is_present(float) {
                    heaps[groups[i]].offer(i, float);
                } else if series.histogram(step).is_some() {
                    a.op.note_ignored(&mut self.notes, a.span);
                }
            }
            for heap in heaps {
                heap.into_order().into_iter().for_each(|i| chosen.take(i, step));
            }
        }
        Ok(chosen.into_batch())
    }

    /// `count_values`: how many series have which value.
    pub(super) fn count_values(
        &mut self,
        a: &Aggregate,
        frame: Frame,
    ) -> Result<Batch, QueryError> {
        let Some(Node::String(label)) = &a.param else {
            return Err(QueryError::execution("count_values needs a label name"));
        };
        if !is_label_name(label) {
            return Err(QueryError::Execution(format!(
                "invalid label name {}",
                super::notes::quoted(label)
            )));
        }
        let mut grouping = a.grouping.clone();
        if !grouping.without {
            grouping.labels.push(label.clone());
        }
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let grouper = Grouper::new(&grouping);
        let mut out = Batch::new();
        // Values repeat from step to step, and so do their labels.
        self.stream(&a.node, frame, &mut |ev, series| {
            series.settle_name();
            let mut known: HashMap<String, usize> = HashMap::new();
            for step in 0..frame.count {
                let Some(point) = series.point(step) else { continue };
                let text = value_text(&point);
                let place = match known.get(&text) {
                    Some(place) => *place,
                    None => {
                        let mut builder = series.labels.to_builder();
                        builder.set(label, &text);
                        let key = grouper.labels(&Series::new(builder.build()));
                        let place = *places.entry(key.clone()).or_insert_with(|| {
                            out.push(Series::new(key));
                            out.len() - 1
                        });
                        ev.budget.check_size(out.len() as u64, out.len() * frame.count * 8)?;
                        known.insert(text, place);
                        place
                    }
                };
                let series = &mut out[place];
                let before = series.float(step);
                let count = if is_present(before) { before + 1.0 } else { 1.0 };
                series.set_float(step, frame.count, count);
            }
            Ok(())
        })?;
        merge_equal(out, frame.count)
    }
}

/// Whether a name can be a label's: UTF-8, not empty.
pub(super) fn is_label_name(name: &str) -> bool {
    is_legacy_label_name(name) || !name.is_empty()
}

/// A value as a label's text.
fn value_text(point: &Point) -> String {
    match point {
        Point::Float(v) if v.is_nan() => "NaN".to_owned(),
        Point::Float(v) if v.is_infinite() => if *v > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        Point::Float(v) => v.to_string(),
        Point::Histogram(h) => h.to_string(),
    }
}

/// The largest and smallest value of a parameter and whether any is NaN.
fn extremes(param: &Scalar, frame: Frame) -> (f64, f64, bool) {
    let values = (0..frame.count).map(|i| param.at(i));
    let (mut max, mut min, mut nan) = (f64::MIN, f64::MAX, false);
    for v in values {
        nan |= v.is_nan();
        max = max.max(v);
        min = min.min(v);
    }
    (max, min, nan)
}

/// Checks the parameter; false if nothing can be chosen.
fn check_param(
    a: &Aggregate,
    param: &Scalar,
    frame: Frame,
    notes: &mut Notes,
) -> Result<bool, QueryError> {
    let (max, min, nan) = extremes(param, frame);
    if a.op == AggregateOp::LimitRatio {
        if !nan && max == 0.0 && min == 0.0 {
            return Ok(false);
        }
        if nan {
            return Err(QueryError::execution("Ratio value is NaN"));
        }
        let mut note = |value: f64, to: f64| {
            notes.warn(
                a.param_span,
                format!(
                    "ratio value should be between -1 and 1, got {}, capping to {}",
                    GoFloat(value),
                    GoFloat(to)
                ),
            );
        };
        if max > 1.0 {
            note(max, 1.0);
        }
        if min < -1.0 {
            note(min, -1.0);
        }
        return Ok(true);
    }
    if !nan && max < 1.0 {
        return Ok(false);
    }
    if nan {
        return Err(QueryError::execution("Parameter value is NaN"));
    }
    if min <= -9_223_372_036_854_775_808.0 {
        return Err(QueryError::Execution(format!(
            "Scalar value {} underflows int64",
            GoFloat(min)
        )));
    }
    if max >= 9_223_372_036_854_774_784.0 {
        return Err(QueryError::Execution(format!(
            "Scalar value {} overflows int64",
            GoFloat(max)
        )));
    }
    Ok(true)
}

/// Notes quantiles outside 0..=1 among a parameter's values.
pub(super) fn note_quantile_range(param: &Scalar, frame: Frame, span: Span, notes: &mut Notes) {
    let (max, min, nan) = extremes(param, frame);
    if nan {
        super::rollup_float::note_quantile(notes, span, f64::NAN);
    }
    if max > 1.0 {
        super::rollup_float::note_quantile(notes, span, max);
    }
    if min < 0.0 {
        super::rollup_float::note_quantile(notes, span, min);
    }
}

/// The values that were chosen, by series in order of first choice.
struct Chosen<'b> {
    batch: &'b [Series],
    count: usize,
    places: HashMap<usize, usize>,
    out: Batch,
}

impl<'b> Chosen<'b> {
    fn new(batch: &'b [Series], count: usize) -> Self {
        Self { batch, count, places: HashMap::new(), out: Batch::new() }
    }

    fn take(&mut self, i: usize, step: usize) {
        let input = &self.batch[i];
        let place = *self.places.entry(i).or_insert_with(|| {
            self.out
                .push(Series { drop_name: input.drop_name, ..Series::new(input.labels.clone()) });
            self.out.len() - 1
        });
        if let Some(point) = input.point(step) {
            self.out[place].set(step, self.count, point);
        }
    }

    fn into_batch(self) -> Batch {
        self.out
    }
}

/// The k best of a group, as a binary heap with the worst on top: the same as
/// Go's, so that among equal values the same ones stay.
struct Heap {
    op: AggregateOp,
    k: usize,
    items: Vec<(usize, f64)>,
}

impl Heap {
    fn new(op: AggregateOp, k: usize) -> Self {
        Self { op, k, items: Vec::new() }
    }

    /// Whether `a` is to leave before `b`.
    fn less(&self, a: f64, b: f64) -> bool {
        a.is_nan() || if self.op == AggregateOp::Bottomk { a > b } else { a < b }
    }

    fn limit(&mut self, i: usize) {
        if self.items.len() < self.k {
            self.items.push((i, 0.0));
        }
    }

    fn offer(&mut self, i: usize, value: f64) {
        if self.items.len() < self.k {
            self.items.push((i, value));
            self.up(self.items.len() - 1);
            return;
        }
        let top = self.items[0].1;
        let better = if self.op == AggregateOp::Bottomk { top > value } else { top < value };
        if better || top.is_nan() && !value.is_nan() {
            self.items[0] = (i, value);
            self.down(0);
        }
    }

    fn up(&mut self, mut j: usize) {
        while j > 0 {
            let parent = (j - 1) / 2;
            if !self.less(self.items[j].1, self.items[parent].1) {
                break;
            }
            self.items.swap(parent, j);
            j = parent;
        }
    }

    fn down(&mut self, mut i: usize) {
        loop {
            let left = 2 * i + 1;
            if left >= self.items.len() {
                break;
            }
            let right = left + 1;
            let child =
                if right < self.items.len() && self.less(self.items[right].1, self.items[left].1) {
                    right
                } else {
                    left
                };
            if !self.less(self.items[child].1, self.items[i].1) {
                break;
            }
            self.items.swap(i, child);
            i = child;
        }
    }

    /// The chosen series, best first.
    fn into_order(mut self) -> Vec<usize> {
        match self.op {
            AggregateOp::Topk => self.items.sort_by(|a, b| nan_first(b.1, a.1)),
            // Ascending, NaN last.
            AggregateOp::Bottomk => self.items.sort_by(|a, b| nan_first(-b.1, -a.1)),
            _ => {}
        }
        self.items.into_iter().map(|(i, _)| i).collect()
    }
}

/// Whether a series with this offset belongs to the share; a negative ratio
/// takes the complement.
fn in_ratio(ratio: f64, offset: f64) -> bool {
    if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio }
}

/// Where a series lies in 0..1, by the hash that Prometheus uses.
#[allow(clippy::cast_precision_loss, reason = "as in Prometheus")]
fn ratio_offset(labels: &Labels) -> f64 {
    let mut bytes = Vec::with_capacity(128);
    for text in labels.iter().flat_map(|(n, v)| [n, v]) {
        match u8::try_from(text.len()) {
            Ok(short) if short < u8::MAX => bytes.push(short),
            _ => {
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
                bytes.extend_from_slice(&[u8::MAX, length[0], length[1], length[2]]);
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    xxh64(&bytes) as f64 / u64::MAX as f64
}

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

/// XXH64 with seed 0.
fn xxh64(bytes: &[u8]) -> u64 {
    let round = |acc: u64, input: u64| {
        acc.wrapping_add(input.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
    };
    let word =
        |chunk: &[u8]| u64::from_le_bytes(chunk.try_into().expect("chunks of 8 have 8 bytes"));
    let mut hash;
    let mut blocks = bytes.chunks_exact(32);
    if bytes.len() >= 32 {
        let mut acc = [P1.wrapping_add(P2), P2, 0, P1.wrapping_neg()];
        for block in blocks.by_ref() {
            for (acc, chunk) in acc.iter_mut().zip(block.chunks_exact(8)) {
                *acc = round(*acc, word(chunk));
            }
        }
        hash = acc
            .iter()
            .zip([1, 7, 12, 18])
            .fold(0u64, |h, (a, by)| h.wrapping_add(a.rotate_left(by)));
        for a in acc {
            hash = (hash ^ round(0, a)).wrapping_mul(P1).wrapping_add(P4);
        }
    } else {
        hash = P5;
    }
    hash = hash.wrapping_add(bytes.len() as u64);
    let mut words = blocks.remainder().chunks_exact(8);
    for chunk in words.by_ref() {
        hash = (hash ^ round(0, word(chunk))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
    }
    let mut rest = words.remainder();
    if let [a, b, c, d, tail @ ..] = rest {
        let half = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
        hash = (hash ^ half.wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        rest = tail;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(P2);
    hash ^= hash >> 29;
    hash = hash.wrapping_mul(P3);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxh64_gives_the_published_values() {
        assert_eq!(xxh64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(xxh64(b"abc"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(
            xxh64(b"Call me Ishmael. Some years ago--never mind how long precisely-"),
            0x02a2_e854_70d6_fd96
        );
    }
}
