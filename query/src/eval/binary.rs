//! Operators between two vectors.

use std::collections::HashMap;

use narthex_storage::labels::Labels;

use crate::ast::{BinaryOp, Cardinality, VectorMatching};
use crate::plan::Binary;

use super::lanes::{ABSENT, Batch, Frame, Point, Series, is_present, merge_equal};
use super::matching::{Groups, combine, match_labels, result_labels};
use super::{Eval, QueryError, arith};

impl Eval<'_> {
    pub(super) fn binary_vectors(&mut self, b: &Binary, frame: Frame) -> Result<Batch, QueryError> {
        let lhs = self.eval(&b.lhs, frame)?;
        let rhs = self.eval(&b.rhs, frame)?;
        for series in lhs.iter().chain(&rhs) {
            self.release(series);
        }
        let default;
        let matching = match &b.matching {
            Some(matching) => matching,
            None => {
                default = VectorMatching {
                    cardinality: if arith::is_set(b.op) {
                        Cardinality::ManyToMany
                    } else {
                        Cardinality::OneToOne
                    },
                    on: false,
                    labels: Vec::new(),
                    include: Vec::new(),
                    fill_left: None,
                    fill_right: None,
                };
                &default
            }
        };
        let out = if arith::is_set(b.op) {
            set_operation(b.op, lhs, rhs, matching, frame)
        } else {
            Operation { b, matching, frame, ev: self }.run(lhs, rhs)?
        };
        merge_equal(out, frame.count)
    }
}

/// A set of steps.
#[derive(Debug, Clone)]
struct Steps(Vec<u64>);

impl Steps {
    fn none(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn has(&self, step: usize) -> bool {
        self.0[step / 64] >> (step % 64) & 1 == 1
    }

    /// Adds a step; whether it was there before.
    fn add(&mut self, step: usize) -> bool {
        let before = self.has(step);
        self.0[step / 64] |= 1 << (step % 64);
        before
    }

    /// Adds the steps at which the series has a value.
    fn add_all(&mut self, series: &Series) {
        for (step, value) in series.floats.iter().enumerate() {
            if is_present(*value) {
                self.add(step);
            }
        }
        for (step, _) in &series.histograms {
            self.add(*step as usize);
        }
    }
}

/// and, or, unless.
fn set_operation(
    op: BinaryOp,
    lhs: Batch,
    rhs: Batch,
    matching: &VectorMatching,
    frame: Frame,
) -> Batch {
    let mut groups = Groups::default();
    let (left, right) = (groups.of(&lhs, matching), groups.of(&rhs, matching));
    let mut present: Vec<Option<Steps>> = vec![None; groups.count()];
    // `or` adds what the left side lacks, the others look up the right side.
    let (deciding, of) = if op == BinaryOp::Or { (&lhs, &left) } else { (&rhs, &right) };
    for (series, group) in deciding.iter().zip(of) {
        present[*group].get_or_insert_with(|| Steps::none(frame.count)).add_all(series);
    }
    let keep = |mut series: Series, group: usize, wanted: bool| -> Option<Series> {
        let Some(steps) = &present[group] else { return (!wanted).then_some(series) };
        for (step, value) in series.floats.iter_mut().enumerate() {
            if steps.has(step) != wanted {
                *value = ABSENT;
            }
        }
        series.histograms.retain(|(step, _)| steps.has(*step as usize) == wanted);
        (!series.is_vacant()).then_some(series)
    };
    match op {
        BinaryOp::Or => {
            let mut out = lhs;
            out.extend(rhs.into_iter().zip(right).filter_map(|(s, g)| keep(s, g, false)));
            out
        }
        op => {
            let wanted = op == BinaryOp::And;
            lhs.into_iter().zip(left).filter_map(|(s, g)| keep(s, g, wanted)).collect()
        }
    }
}

/// An arithmetic operation or comparison between vectors. The "many" side is
/// the left one unless the matching is one to many.
struct Operation<'o, 'e, 'q> {
    b: &'o Binary,
    matching: &'o VectorMatching,
    frame: Frame,
    ev: &'e mut Eval<'q>,
}

impl Operation<'_, '_, '_> {
    fn run(&mut self, lhs: Batch, rhs: Batch) -> Result<Batch, QueryError> {
        let swapped = self.matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
        let mut groups = Groups::default();
        let (many_groups, one_groups) =
            (groups.of(&many, self.matching), groups.of(&one, self.matching));
        let mut ones: Vec<Vec<usize>> = vec![Vec::new(); groups.count()];
        for (i, group) in one_groups.iter().enumerate() {
            ones[*group].push(i);
        }
        self.check_one_side(&many, &one, &ones, swapped)?;
        let mut used = Used::new(groups.count(), self.frame.count, self.matching.cardinality);
        let mut out = Batch::new();
        for (series, &group) in many.iter().zip(&many_groups) {
            self.ev.check_alive()?;
            for &i in &ones[group] {
                self.pair(series, &one[i], group, &mut used, &mut out)?;
            }
            self.fill_one(series, group, &ones[group], &one, &mut used, &mut out)?;
        }
        self.fill_many(&one, &one_groups, &mut used, &mut out)?;
        Ok(out)
    }

    fn fills(&self) -> (Option<f64>, Option<f64>) {
        // Prometheus swaps the sides of one-to-many operations, not the fill
        // values: "left" fills what the many side lacks.
        (self.matching.fill_left, self.matching.fill_right)
    }

    /// Series of one group on the "one" side must not overlap.
    fn check_one_side(
        &self,
        many: &[Series],
        one: &[Series],
        ones: &[Vec<usize>],
        swapped: bool,
    ) -> Result<(), QueryError> {
        if ones.iter().all(|group| group.len() < 2) {
            return Ok(());
        }
        let any = |batch: &[Series]| {
            let mut steps = Steps::none(self.frame.count);
            batch.iter().for_each(|s| steps.add_all(s));
            steps
        };
        let filled = self.fills() != (None, None);
        let (many_steps, one_steps) = (any(many), any(one));
        let considered = |step| filled || many_steps.has(step) && one_steps.has(step);
        for group in ones.iter().filter(|g| g.len() > 1) {
            let mut owner: Vec<Option<usize>> = vec![None; self.frame.count];
            for &i in group {
                for step in (0..self.frame.count).filter(|s| considered(*s)) {
                    if !one[i].has(step) {
                        continue;
                    }
                    if let Some(other) = owner[step].replace(i) {
                        return Err(self.duplicate(&one[i].labels, &one[other].labels, swapped));
                    }
                }
            }
        }
        Ok(())
    }

    fn duplicate(&self, a: &Labels, b: &Labels, swapped: bool) -> QueryError {
        let group = match_labels(a, self.matching);
        let side = if swapped { "left" } else { "right" };
        let (mut first, mut second) = (a.to_string(), b.to_string());
        if first > second {
            std::mem::swap(&mut first, &mut second);
        }
        QueryError::Execution(format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side"
        ))
    }

    /// Combines two series where both have values.
    fn pair(
        &mut self,
        many: &Series,
        one: &Series,
        group: usize,
        used: &mut Used,
        out: &mut Batch,
    ) -> Result<(), QueryError> {
        let labels = self.labels(&many.labels, &one.labels);
        let mut result = self.empty(labels);
        let plain = many.histograms.is_empty() && one.histograms.is_empty();
        if plain && !arith::is_trim(self.b.op) {
            self.floats(&many.floats, &one.floats, &mut result);
            for step in 0..self.frame.count {
                if is_present(many.float(step)) && is_present(one.float(step)) {
                    used.claim(group, &result.labels, step)?;
                }
            }
        } else {
            for step in 0..self.frame.count {
                if let (Some(x), Some(y)) = (many.point(step), one.point(step)) {
                    self.step(x, y, group, step, used, &mut result)?;
                }
            }
        }
        if !result.is_vacant() {
            out.push(result);
        }
        Ok(())
    }

    fn empty(&self, labels: Labels) -> Series {
        Series { drop_name: self.b.return_bool, ..Series::new(labels) }
    }

    fn labels(&self, many: &Labels, one: &Labels) -> Labels {
        let drop_name =
            (!self.ev.delayed() && self.b.return_bool) || arith::changes_schema(self.b.op);
        result_labels(many, one, self.matching, drop_name)
    }

    fn is_swapped(&self) -> bool {
        self.matching.cardinality == Cardinality::OneToMany
    }

    /// Combines two float lanes.
    fn floats(&self, many: &[f64], one: &[f64], result: &mut Series) {
        let op = self.b.op;
        let (lhs, rhs) = if self.is_swapped() { (one, many) } else { (many, one) };
        let out = &mut result.floats;
        if arith::is_comparison(op) {
            let return_bool = self.b.return_bool;
            zip(lhs, rhs, out, |x, y| match (return_bool, arith::compare(op, x, y)) {
                (true, holds) => f64::from(u8::from(holds)),
                (false, true) => x,
                (false, false) => ABSENT,
            });
            return;
        }
        match op {
            BinaryOp::Add => zip(lhs, rhs, out, |x, y| x + y),
            BinaryOp::Sub => zip(lhs, rhs, out, |x, y| x - y),
            BinaryOp::Mul => zip(lhs, rhs, out, |x, y| x * y),
            BinaryOp::Div => zip(lhs, rhs, out, |x, y| x / y),
            op => zip(lhs, rhs, out, |x, y| arith::compute(op, x, y)),
        }
    }

    /// Combines two values at one step.
    fn step(
        &mut self,
        many: Point,
        one: Point,
        group: usize,
        step: usize,
        used: &mut Used,
        result: &mut Series,
    ) -> Result<(), QueryError> {
        let (x, y) = if self.is_swapped() { (one, many) } else { (many, one) };
        let Some((value, keep)) = combine(self.b, x, y, &mut self.ev.notes) else {
            return Ok(());
        };
        used.claim(group, &result.labels, step)?;
        if self.b.return_bool {
            result.set_float(step, self.frame.count, f64::from(u8::from(keep)));
        } else if keep {
            result.set(step, self.frame.count, value);
        }
        Ok(())
    }

    /// Combines a series with the fill value where its group has no partner.
    fn fill_one(
        &mut self,
        many: &Series,
        group: usize,
        ones: &[usize],
        one: &[Series],
        used: &mut Used,
        out: &mut Batch,
    ) -> Result<(), QueryError> {
        let Some(fill) = self.fills().1 else { return Ok(()) };
        let labels = self.labels(&many.labels, &match_labels(&many.labels, self.matching));
        let mut result = self.empty(labels);
        for step in 0..self.frame.count {
            if ones.iter().any(|i| one[*i].has(step)) {
                continue;
            }
            if let Some(x) = many.point(step) {
                self.step(x, Point::Float(fill), group, step, used, &mut result)?;
            }
        }
        if !result.is_vacant() {
            out.push(result);
        }
        Ok(())
    }

    /// Combines the fill value with series of the "one" side that found no
    /// partner.
    fn fill_many(
        &mut self,
        one: &[Series],
        groups: &[usize],
        used: &mut Used,
        out: &mut Batch,
    ) -> Result<(), QueryError> {
        let Some(fill) = self.fills().0 else { return Ok(()) };
        for (series, &group) in one.iter().zip(groups) {
            let labels = self.labels(&match_labels(&series.labels, self.matching), &series.labels);
            let mut result = self.empty(labels);
            for step in 0..self.frame.count {
                if used.is_used(group, step) {
                    continue;
                }
                if let Some(y) = series.point(step) {
                    self.step(Point::Float(fill), y, group, step, used, &mut result)?;
                }
            }
            if !result.is_vacant() {
                out.push(result);
            }
        }
        Ok(())
    }
}

#[inline]
fn zip(lhs: &[f64], rhs: &[f64], out: &mut Vec<f64>, f: impl Fn(f64, f64) -> f64) {
    out.extend(
        lhs.iter().zip(rhs).map(
            |(&x, &y)| {
                if is_present(x) && is_present(y) { f(x, y) } else { ABSENT }
            },
        ),
    );
}

/// Which results exist already, to refuse ambiguous matches.
struct Used {
    one_to_one: bool,
    count: usize,
    /// One to one: the steps at which a group has its result.
    groups: Vec<Option<Steps>>,
    /// Otherwise: the same per group and labels.
    results: HashMap<(usize, Labels), Steps>,
}

impl Used {
    fn new(groups: usize, count: usize, cardinality: Cardinality) -> Self {
        Self {
            one_to_one: cardinality == Cardinality::OneToOne,
            count,
            groups: vec![None; groups],
            results: HashMap::new(),
        }
    }

    fn claim(&mut self, group: usize, labels: &Labels, step: usize) -> Result<(), QueryError> {
        let count = self.count;
        let before = self.groups[group].get_or_insert_with(|| Steps::none(count)).add(step);
        if self.one_to_one {
            if before {
                return Err(QueryError::execution(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                ));
            }
            return Ok(());
        }
        // The labels can only repeat where the group has a result already.
        let steps =
            self.results.entry((group, labels.clone())).or_insert_with(|| Steps::none(count));
        if steps.add(step) {
            return Err(QueryError::execution(
                "multiple matches for labels: grouping labels must ensure unique matches",
            ));
        }
        Ok(())
    }

    fn is_used(&self, group: usize, step: usize) -> bool {
        self.groups[group].as_ref().is_some_and(|steps| steps.has(step))
    }
}
