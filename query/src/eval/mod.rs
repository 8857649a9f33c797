//! How is a plan evaluated? Operators over series × steps.
//!
//! [`Eval`] walks the plan. An operator that looks at one series at a time
//! (selectors, functions over ranges and elements, operations with a scalar)
//! *streams*: it hands each output series to a sink as soon as it is there, so
//! that an aggregation above never sees more than one input at a time. All
//! others take whole batches. Every operator defines what it does with floats,
//! with histograms and with their mixture.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use narthex_storage::labels::{Labels, Matcher};
use narthex_storage::read::{Querier, Queryable, ReadError, SeriesRef, SeriesSet};

use crate::engine::EngineOptions;
use crate::memory_pool::Lease;
use crate::plan::Node;

pub(crate) mod arith;
pub(crate) mod lanes;
pub(crate) mod notes;

mod absent;
mod aggregate;
mod ahead;
mod binary;
mod call;
mod classic;
mod element;
mod error;
mod extended;
mod hist;
mod info;
mod label;
mod matching;
mod native;
mod range_hist;
mod ranked;
mod rollup;
mod rollup_float;
mod samples;
mod scalar;
mod select;
mod sort;
mod subquery;
mod time;
mod windows;

pub(crate) use element::drops_name;
pub use error::QueryError;

use lanes::{Batch, Frame, Series};
use notes::Notes;

/// Takes the series of a stream one by one. It may take the lanes out.
pub(crate) type Sink<'s> = &'s mut dyn FnMut(&mut Eval<'_>, &mut Series) -> Result<(), QueryError>;

/// Short series between two looks at the clock, which costs a tenth of one.
const SERIES_PER_LOOK: u32 = 8;

/// What a query may cost, and what it did.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) deadline: Option<Instant>,
    /// Calls of `check_alive_at`.
    pub(crate) checks: u32,
    pub(crate) cancel: Arc<AtomicBool>,
    pub(crate) max_samples: u64,
    pub(crate) max_bytes: usize,
    /// Samples held now.
    pub(crate) samples: u64,
    /// Bytes held now, and the memory they are taken from.
    pub(crate) bytes: usize,
    pub(crate) lease: Lease,
    pub(crate) peak_samples: u64,
    pub(crate) total_samples: u64,
    /// Samples that each step of the query looked at, if somebody wants to
    /// know; set aside while other steps are evaluated.
    pub(crate) per_step: Option<Vec<u64>>,
    pub(crate) series: u64,
}

/// The series of one selector, with their labels.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) set: Arc<SeriesSet>,
    /// Whether dropping the name could make two of them equal.
    pub(crate) may_collide: bool,
}

/// The value of a node that occurs several times, and what it cost.
struct Kept {
    batch: Batch,
    samples: u64,
    per_step: Vec<u64>,
}

/// One evaluation of one query.
pub(crate) struct Eval<'a> {
    pub(crate) options: &'a EngineOptions,
    pub(crate) lookback_ms: i64,
    queryable: &'a dyn Queryable,
    /// The snapshot's range; `None` if the plan reads nothing.
    range: Option<(i64, i64)>,
    querier: Option<Arc<dyn Querier>>,
    pub(crate) notes: Notes,
    pub(crate) budget: Budget,
    selections: HashMap<String, Arc<Selection>>,
    shared: HashMap<(usize, Frame), Arc<Kept>>,
    pub(crate) scratch: select::Scratch,
    /// Whether what was read makes steps depend on one another: histograms
    /// carry hints from sample to sample, and labels for type and unit may
    /// fall away with the name.
    pub(crate) steps_are_linked: bool,
    /// Other threads that may help.
    pub(crate) helpers: usize,
}

impl Selection {
    /// The series, sorted by labels.
    pub(crate) fn series(&self) -> &[(SeriesRef, Labels)] {
        &self.set.series
    }
}

impl<'a> Eval<'a> {
    pub(crate) fn new(
        options: &'a EngineOptions,
        queryable: &'a dyn Queryable,
        lookback_ms: i64,
        range: Option<(i64, i64)>,
        budget: Budget,
    ) -> Self {
        Self {
            options,
            lookback_ms,
            queryable,
            range,
            querier: None,
            notes: Notes::default(),
            budget,
            selections: HashMap::new(),
            shared: HashMap::new(),
            scratch: select::Scratch::default(),
            steps_are_linked: false,
            helpers: 0,
        }
    }

    /// Whether names are dropped at the end of the query only.
    pub(crate) fn delayed(&self) -> bool {
        self.options.delayed_name_removal
    }

    /// The value of a vector node over all steps of the frame.
    pub(crate) fn eval(&mut self, node: &Node, frame: Frame) -> Result<Batch, QueryError> {
        self.check_alive()?;
        if frame.count == 0 {
            return Ok(Batch::new());
        }
        let batch = match node {
            Node::Aggregate(a) => self.aggregate(a, frame)?,
            Node::Binary(b) if b.is_between_vectors() => self.binary_vectors(b, frame)?,
            Node::Call(c) if !self.streams_call(c) => self.call(c, frame)?,
            Node::Rollup(r) if r.function == "absent_over_time" => {
                self.absent_over_time(r, frame)?
            }
            Node::Invariant(inner) => self.invariant(inner, frame)?,
            Node::Shared(number, inner) => return self.eval_shared(*number, inner, frame),
            _ => {
                let mut batch = Batch::new();
                self.stream(node, frame, &mut |ev, series| {
                    series.settle_name();
                    ev.hold(series)?;
                    batch.push(std::mem::take(series));
                    Ok(())
                })?;
                return Ok(batch);
            }
        };
        for series in &batch {
            self.hold(series)?;
        }
        Ok(batch)
    }

    /// Hands the series of a vector node to `sink`, one by one.
    pub(crate) fn stream(
        &mut self,
        node: &Node,
        frame: Frame,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        if frame.count == 0 {
            return Ok(());
        }
        match node {
            Node::Select(selector) => self.stream_select(selector, frame, sink),
            Node::Rollup(r) if r.function != "absent_over_time" => {
                self.stream_rollup(r, frame, sink)
            }
            Node::Call(c) if self.streams_call(c) => self.stream_call(c, frame, sink),
            Node::Negate(inner, false) => self.stream_negate(inner, frame, sink),
            Node::Binary(b) if b.has_scalar_side() => self.stream_with_scalar(b, frame, sink),
            node if node.is_scalar() => {
                let floats = self.scalar(node, frame)?.into_lane(frame.count);
                sink(self, &mut Series { floats, ..Series::default() })
            }
            node => {
                for mut series in self.eval(node, frame)? {
                    self.release(&series);
                    sink(self, &mut series)?;
                }
                Ok(())
            }
        }
    }

    /// Evaluates once, at the first step, and repeats the result.
    fn invariant(&mut self, inner: &Node, frame: Frame) -> Result<Batch, QueryError> {
        let before = self.budget.total_samples;
        let per_step = self.budget.per_step.take();
        let mut batch = self.eval(inner, Frame { count: 1, ..frame })?;
        // As if each step had looked at them.
        let seen = self.budget.total_samples - before;
        self.budget.total_samples = before;
        self.budget.per_step = per_step;
        self.budget.count_samples(frame.count as u64 * seen, |_| seen);
        for series in &mut batch {
            self.release(series);
            if let Some(&value) = series.floats.first() {
                series.floats.resize(frame.count, value);
            }
            if let Some((_, histogram)) = series.histograms.first().cloned() {
                series.histograms =
                    (0..frame.count).map(|i| (lanes::index(i), Arc::clone(&histogram))).collect();
            }
        }
        Ok(batch)
    }

    /// Evaluates a node that occurs several times, once per frame.
    fn eval_shared(
        &mut self,
        number: usize,
        inner: &Node,
        frame: Frame,
    ) -> Result<Batch, QueryError> {
        if let Some(kept) = self.shared.get(&(number, frame)) {
            let kept = Arc::clone(kept);
            for series in &kept.batch {
                self.hold(series)?;
            }
            let seen = |step: usize| kept.per_step.get(step).copied().unwrap_or(0);
            self.budget.count_samples(kept.samples, seen);
            return Ok(kept.batch.clone());
        }
        let before = std::mem::take(&mut self.notes);
        let samples_before = self.budget.total_samples;
        let steps_before = self.budget.per_step.clone().unwrap_or_default();
        let batch = self.eval(inner, frame);
        let own = std::mem::replace(&mut self.notes, before);
        // Annotations name a place, so what makes them is evaluated again.
        let keep = own.is_empty();
        self.notes.merge(own);
        let batch = batch?;
        if keep {
            for series in &batch {
                self.hold(series)?;
            }
            let now = self.budget.per_step.as_deref().unwrap_or_default();
            let kept = Kept {
                batch: batch.clone(),
                samples: self.budget.total_samples - samples_before,
                per_step: now.iter().zip(&steps_before).map(|(now, then)| now - then).collect(),
            };
            self.shared.insert((number, frame), Arc::new(kept));
        }
        Ok(batch)
    }

    /// The snapshot, opened at the first need.
    pub(crate) fn querier(&mut self) -> Result<Arc<dyn Querier>, QueryError> {
        if let Some(querier) = &self.querier {
            return Ok(Arc::clone(querier));
        }
        let (start, end) = self.range.unwrap_or((0, 0));
        let querier = self.queryable.querier(start, end)?;
        self.querier = Some(Arc::clone(&querier));
        Ok(querier)
    }

    /// The series that match, sorted by labels; asked once per query.
    pub(crate) fn selection(&mut self, matchers: &[Matcher]) -> Result<Arc<Selection>, QueryError> {
        let mut key = String::new();
        for matcher in matchers {
            key.push_str(&matcher.to_string());
            key.push('\u{0}');
        }
        if let Some(selection) = self.selections.get(&key) {
            return Ok(Arc::clone(selection));
        }
        let set = self.querier()?.series(matchers)?;
        self.check_alive()?;
        self.budget.series += set.series.len() as u64;
        let named = matchers.iter().any(|m| {
            m.op == narthex_storage::labels::MatchOp::Equal
                && m.name == narthex_storage::labels::METRIC_NAME
        });
        let may_collide = set.is_typed || !named;
        self.steps_are_linked |= set.is_typed;
        let selection = Arc::new(Selection { set, may_collide });
        self.selections.insert(key, Arc::clone(&selection));
        Ok(selection)
    }

    /// Whether dropping metric names from the node's series could make two of
    /// them equal.
    pub(crate) fn may_collide(&mut self, node: &Node) -> Result<bool, QueryError> {
        if self.delayed() {
            // Names stay, and so do differences.
            return Ok(false);
        }
        Ok(match node {
            Node::Select(selector) => self.selection(&selector.matchers)?.may_collide,
            // These have dropped the names themselves, and checked.
            Node::Rollup(r) => matches!(r.function, "last_over_time" | "first_over_time"),
            Node::Negate(..) => false,
            Node::Call(c) => !element::drops_name(c.function),
            Node::Binary(b) => !(b.has_scalar_side() && arith::changes_schema(b.op)),
            Node::Aggregate(a) => {
                has_reserved(&a.grouping.labels) || a.grouping.without || !a.op.is_plain()
            }
            node => !node.is_scalar(),
        })
    }

    /// Whether the query should stop: time is up, or nobody waits any more.
    pub(crate) fn check_alive(&self) -> Result<(), QueryError> {
        self.budget.check_alive()
    }

    /// How `count` series of about `samples` samples each are shared out, if
    /// others should help. Samples by step are counted by one thread.
    fn shares(&self, count: usize, samples: usize, steps: usize) -> Option<ahead::Shares> {
        let helpers = if self.budget.per_step.is_some() { 0 } else { self.helpers };
        ahead::Shares::of(count, samples, steps, helpers, self.options.share_from_samples)
    }

    /// Counts a series that is kept in memory.
    pub(crate) fn hold(&mut self, series: &Series) -> Result<(), QueryError> {
        self.budget.hold(series)
    }

    /// Counts a series that is no longer kept.
    pub(crate) fn release(&mut self, series: &Series) {
        self.budget.release(series);
    }
}

/// What the budgets of helping threads begin with.
pub(crate) struct Helper {
    deadline: Option<Instant>,
    cancel: Arc<AtomicBool>,
}

impl Helper {
    /// A budget that only knows when to stop: what is held is counted by the
    /// query's own thread.
    pub(crate) fn start(&self) -> Budget {
        Budget {
            deadline: self.deadline,
            checks: 0,
            cancel: Arc::clone(&self.cancel),
            max_samples: u64::MAX,
            max_bytes: usize::MAX,
            samples: 0,
            bytes: 0,
            lease: Lease::default(),
            peak_samples: 0,
            total_samples: 0,
            per_step: None,
            series: 0,
        }
    }
}

impl Budget {
    pub(crate) fn helper(&self) -> Helper {
        Helper { deadline: self.deadline, cancel: Arc::clone(&self.cancel) }
    }

    pub(crate) fn check_alive(&self) -> Result<(), QueryError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(QueryError::Canceled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(QueryError::Timeout),
            _ => Ok(()),
        }
    }

    /// The same, for a series of `samples` samples: for each long one, and for
    /// some of many short ones.
    pub(crate) fn check_alive_at(&mut self, samples: usize) -> Result<(), QueryError> {
        self.checks = self.checks.wrapping_add(1);
        if samples > 1000 || self.checks.is_multiple_of(SERIES_PER_LOOK) {
            self.check_alive()
        } else {
            Ok(())
        }
    }

    fn hold(&mut self, series: &Series) -> Result<(), QueryError> {
        self.samples = self.samples.saturating_add(samples_of(series));
        self.bytes = self.bytes.saturating_add(series.size_bytes());
        self.peak_samples = self.peak_samples.max(self.samples);
        self.check_size(0, 0)
    }

    fn release(&mut self, series: &Series) {
        self.samples = self.samples.saturating_sub(samples_of(series));
        self.bytes = self.bytes.saturating_sub(series.size_bytes());
    }

    /// Counts samples that were looked at; `at` says how many of them by each
    /// step.
    pub(crate) fn count_samples(&mut self, total: u64, at: impl Fn(usize) -> u64) {
        self.total_samples += total;
        for (step, samples) in self.per_step.iter_mut().flatten().enumerate() {
            *samples += at(step);
        }
    }

    /// Counts bytes that are kept, whatever they hold.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), QueryError> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.check_size(0, 0)
    }

    /// Counts bytes that are no longer kept.
    pub(crate) const fn give_back(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Whether `samples` and `bytes` more are within the limits.
    pub(crate) fn check_size(&mut self, samples: u64, bytes: usize) -> Result<(), QueryError> {
        if self.samples.saturating_add(samples) > self.max_samples {
            return Err(QueryError::TooManySamples);
        }
        let (held, limit) = (self.bytes.saturating_add(bytes), self.max_bytes);
        let grown = self.lease.grow(held, limit);
        grown.map_err(|over| QueryError::TooManyBytes { held, over, limit })
    }
}

/// Whether one of the labels goes with the metric name.
pub(crate) fn has_reserved(labels: &[String]) -> bool {
    labels.iter().any(|l| lanes::RESERVED.contains(&l.as_str()))
}

/// How many samples the series has at a step.
fn samples_at(series: &Series, step: usize) -> u64 {
    let float = u64::from(lanes::is_present(series.float(step)));
    float + series.histogram(step).map_or(0, |h| lanes::histogram_samples(h))
}

fn samples_of(series: &Series) -> u64 {
    let histograms: u64 = series.histograms.iter().map(|(_, h)| lanes::histogram_samples(h)).sum();
    let floats = series.floats.iter().filter(|v| lanes::is_present(**v)).count();
    histograms + floats as u64
}

impl From<ReadError> for QueryError {
    fn from(error: ReadError) -> Self {
        Self::Storage(error)
    }
}
