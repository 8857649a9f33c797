//! The engine: expressions to answers.
//!
//! [`Engine`] owns the settings and nothing else; each query gets a plan, a
//! snapshot of the storage and a budget of its own. An answer depends on the
//! expression, the data and the settings only: never on the number of cores,
//! other queries, or where the data lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use narthex_storage::read::Queryable;
use narthex_storage::sample::Value;

use crate::ast::{Expr, ExprKind, ValueType};
use crate::eval::lanes::{
    Batch, Frame, Point, Series, drop_reserved, has_duplicates, is_present, merge_equal,
};
use crate::eval::notes::Notes;
use crate::eval::{Budget, Eval};
use crate::memory_pool::{Lease, Pool};
use crate::plan::{self, Context, Node, Plan};
use crate::steps::{Key, Reach, StepCache, Steps};
use crate::value::{MatrixSeries, QueryResult, QueryStats, QueryValue, VectorSample};

pub use crate::eval::QueryError;
pub use crate::steps::StepCacheStats;

/// Settings of an engine, with Prometheus' defaults.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How far back an instant vector looks for a sample, in milliseconds; a
    /// sample exactly this old is not found.
    pub lookback_ms: i64,
    /// Most samples that a query may hold at one time.
    pub max_samples: u64,
    /// Most bytes of samples and answers that all queries of the engine may hold
    /// at one time.
    pub max_bytes: usize,
    /// Most bytes of steps that are kept for queries that are asked again; 0:
    /// none are.
    pub step_cache_bytes: usize,
    /// How long a query may take.
    pub timeout: Option<Duration>,
    /// The step of subqueries without one, in milliseconds, until
    /// [`Engine::set_default_subquery_step`] changes it.
    pub default_subquery_step_ms: i64,
    /// Metric names are dropped at the end of the query, not at each function
    /// (feature `promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
    /// Series carry `__type__` and `__unit__` (feature `type-and-unit-labels`).
    pub type_and_unit_labels: bool,
    /// `rate` and the like look at start timestamps.
    pub use_start_timestamps: bool,
    /// Threads that one query may use while no other runs, its own counted. The
    /// answer does not depend on it.
    pub threads: usize,
    /// A selector is shared out among them from about so many samples on: some
    /// milliseconds, a hundred times what starting a thread costs.
    pub share_from_samples: usize,
    /// Warns that sorting has no effect in range queries, as Prometheus does
    /// from 3.11 on; 3.5, which answers are compared with, does not.
    pub warn_sort_in_range: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            lookback_ms: 300_000,
            max_samples: 50_000_000,
            max_bytes: usize::MAX,
            step_cache_bytes: 0,
            timeout: Some(Duration::from_secs(120)),
            default_subquery_step_ms: 60_000,
            delayed_name_removal: false,
            type_and_unit_labels: false,
            use_start_timestamps: false,
            threads: 1,
            share_from_samples: 4_000_000,
            warn_sort_in_range: false,
        }
    }
}

/// Settings of one query.
#[derive(Debug, Clone, Default)]
pub struct QueryOptions {
    /// Overrides [`EngineOptions::lookback_ms`].
    pub lookback_ms: Option<i64>,
    /// A time limit of its own; the engine's holds as well.
    pub timeout: Option<Duration>,
    /// Whether the samples that each step looked at are counted.
    pub per_step: bool,
    /// Whether all steps are evaluated, also those that are known: statistics
    /// shall tell what the query costs.
    pub fresh: bool,
    /// Stops the query from outside.
    pub cancel: CancelToken,
}

/// Stops a query from outside; clones stop the same query.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that nobody has used yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the query to stop; it does within some thousand steps.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::cancel`] was called.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Expressions higher than this are evaluated on a stack of their own.
const HIGH: usize = 48;

/// What a float of an answer takes, as a sample and as text.
const ANSWER_BYTES: usize = 16 + 32;

/// Size of that stack, in bytes; memory is taken as it is used.
const STACK_BYTES: usize = 256 << 20;

/// Evaluates expressions.
#[derive(Debug, Clone)]
pub struct Engine {
    options: EngineOptions,
    /// Shared by clones: it follows the configuration.
    subquery_step_ms: Arc<AtomicI64>,
    pool: Arc<Pool>,
    steps: Option<Arc<StepCache>>,
    /// Queries under way.
    running: Arc<AtomicUsize>,
}

/// A query that is counted as long as it runs.
struct Running<'e> {
    count: &'e AtomicUsize,
    /// Queries under way when it began, itself included.
    with: usize,
}

impl<'e> Running<'e> {
    fn new(count: &'e AtomicUsize) -> Self {
        Self { count, with: count.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new(EngineOptions::default())
    }
}

impl Engine {
    /// An engine with these settings.
    #[must_use]
    pub fn new(options: EngineOptions) -> Self {
        let subquery_step_ms = Arc::new(AtomicI64::new(options.default_subquery_step_ms));
        let bytes = options.step_cache_bytes;
        let steps = (bytes > 0).then(|| Arc::new(StepCache::new(bytes)));
        Self { options, subquery_step_ms, pool: Arc::default(), steps, running: Arc::default() }
    }

    /// What the cache of steps did so far. Takes a short lock.
    #[must_use]
    pub fn step_cache_stats(&self) -> StepCacheStats {
        self.steps.as_ref().map(|steps| steps.stats()).unwrap_or_default()
    }

    /// Bytes that queries under way, their answers and kept steps may hold now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.pool.leased_bytes() + self.step_cache_stats().bytes
    }

    /// From now on, subqueries without a step have this one, in milliseconds;
    /// at least 1. Prometheus takes the global evaluation interval.
    pub fn set_default_subquery_step(&self, step_ms: i64) {
        self.subquery_step_ms.store(step_ms.max(1), Ordering::Relaxed);
    }

    /// The settings.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// The value of `expr` at `time_ms`, in milliseconds since the Unix epoch.
    ///
    /// `text` is what `expr` was parsed from: annotations name places in it.
    /// Blocks; reads the storage.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub fn instant(
        &self,
        queryable: &dyn Queryable,
        expr: &Expr,
        text: &str,
        time_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        let query = Query { text, frame: Frame::instant(time_ms), end_ms: time_ms, step_ms: 0 };
        self.run(queryable, expr, &query, options)
    }

    /// The value of `expr` at `start_ms`, `start_ms + step_ms` and so on, up
    /// to `end_ms` at most: a matrix sorted by labels. A scalar becomes a
    /// series without labels.
    ///
    /// Otherwise as [`Engine::instant`]. The caller limits the number of
    /// steps.
    ///
    /// # Errors
    ///
    /// [`QueryError`]; texts and range vectors cannot be evaluated at steps.
    #[allow(clippy::too_many_arguments, reason = "a range is three numbers")]
    pub fn range(
        &self,
        queryable: &dyn Queryable,
        expr: &Expr,
        text: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        if step_ms <= 0 {
            return Err(QueryError::Invalid("step must be greater than 0".to_owned()));
        }
        let kind = expr.value_type();
        if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
            return Err(QueryError::Invalid(format!(
                "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                kind.documented()
            )));
        }
        let frame = Frame::new(start_ms, end_ms, step_ms);
        if u32::try_from(frame.count).is_err() {
            return Err(QueryError::TooManySamples);
        }
        self.run(queryable, expr, &Query { text, frame, end_ms, step_ms }, options)
    }

    fn run(
        &self,
        queryable: &dyn Queryable,
        expr: &Expr,
        query: &Query<'_>,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        if !is_higher_than(expr, HIGH) {
            return self.run_here(queryable, expr, query, options);
        }
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("query".to_owned())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || self.run_here(queryable, expr, query, options))
                .map_err(|e| QueryError::Execution(format!("starting a thread: {e}")))?
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn run_here(
        &self,
        queryable: &dyn Queryable,
        expr: &Expr,
        query: &Query<'_>,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        let began = Instant::now();
        let lookback_ms = options.lookback_ms.unwrap_or(self.options.lookback_ms);
        let plan = plan::lower(
            expr,
            &Context {
                start_ms: query.frame.start_ms,
                end_ms: query.end_ms,
                step_ms: query.step_ms,
                default_subquery_step_ms: self.subquery_step_ms.load(Ordering::Relaxed),
                type_labels: self.options.type_and_unit_labels,
            },
        )?;
        let frame = query.frame;
        let range = (frame.count > 0)
            .then(|| plan::time_range(&plan.root, frame.start_ms, frame.end_ms(), lookback_ms))
            .flatten();
        let timeout = match (self.options.timeout, options.timeout) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let budget = Budget {
            deadline: timeout.and_then(|t| began.checked_add(t)),
            checks: 0,
            cancel: Arc::clone(&options.cancel.0),
            max_samples: self.options.max_samples,
            max_bytes: self.options.max_bytes,
            samples: 0,
            bytes: 0,
            lease: Lease::new(Arc::clone(&self.pool)),
            peak_samples: 0,
            total_samples: 0,
            per_step: options.per_step.then(|| vec![0; frame.count]),
            series: 0,
        };
        let mut eval = Eval::new(&self.options, queryable, lookback_ms, range, budget);
        let running = Running::new(&self.running);
        eval.helpers = self.options.threads.saturating_sub(running.with);
        let prepared = Instant::now();
        let value = if query.step_ms == 0 {
            self.instant_value(&mut eval, &plan, frame)?
        } else {
            let reuse = self.reuse(query, &plan, lookback_ms, options);
            QueryValue::Matrix(self.matrix(&mut eval, &plan, frame, reuse)?)
        };
        let (warnings, infos) = eval.notes.texts(query.text);
        let stats = QueryStats {
            total_samples: eval.budget.total_samples,
            peak_samples: eval.budget.peak_samples,
            series: eval.budget.series,
            prepare_s: (prepared - began).as_secs_f64(),
            eval_s: prepared.elapsed().as_secs_f64(),
        };
        let lease = std::mem::take(&mut eval.budget.lease);
        let per_step = eval.budget.per_step.take().unwrap_or_default();
        let samples_per_step = frame.times().zip(per_step).collect();
        Ok(QueryResult { value, warnings, infos, stats, samples_per_step, lease })
    }

    fn instant_value(
        &self,
        eval: &mut Eval<'_>,
        plan: &Plan,
        frame: Frame,
    ) -> Result<QueryValue, QueryError> {
        let time_ms = frame.start_ms;
        Ok(match (plan.kind, &plan.root) {
            (ValueType::String, Node::String(text)) => QueryValue::String(time_ms, text.clone()),
            (ValueType::Scalar, root) => {
                QueryValue::Scalar(time_ms, eval.scalar(root, frame)?.at(0))
            }
            (ValueType::Matrix, root) => {
                let mut series = eval.samples(root, frame)?;
                series.sort_by(|a, b| a.labels.cmp(&b.labels));
                QueryValue::Matrix(series)
            }
            (_, root) => {
                let batch = self.finished(eval.eval(root, frame)?, frame)?;
                let samples = batch.into_iter().filter_map(|series| {
                    let value = match series.point(0)? {
                        Point::Float(v) => Value::Float(v),
                        Point::Histogram(h) => Value::Histogram(h),
                    };
                    Some(VectorSample { labels: series.labels, timestamp_ms: time_ms, value })
                });
                QueryValue::Vector(samples.collect())
            }
        })
    }

    fn matrix(
        &self,
        eval: &mut Eval<'_>,
        plan: &Plan,
        frame: Frame,
        reuse: Option<Reuse<'_>>,
    ) -> Result<Vec<MatrixSeries>, QueryError> {
        if frame.count == 0 {
            return Ok(Vec::new());
        }
        let batch = match reuse {
            Some(reuse) => self.continued(eval, plan, frame, reuse)?,
            None => self.sorted(eval, plan, frame)?,
        };
        // Beside the lanes: samples with their times, and their text.
        let samples: usize = batch.iter().map(|s| s.floats.len()).sum();
        eval.budget.check_size(0, samples.saturating_mul(ANSWER_BYTES))?;
        Ok(batch.into_iter().filter_map(|series| matrix_series(series, frame)).collect())
    }

    /// The series of the answer, sorted by labels.
    fn sorted(&self, eval: &mut Eval<'_>, plan: &Plan, frame: Frame) -> Result<Batch, QueryError> {
        let batch = if frame.count == 0 {
            Batch::new()
        } else if plan.kind == ValueType::Scalar {
            let floats = eval.scalar(&plan.root, frame)?.into_lane(frame.count);
            vec![Series { floats, ..Series::default() }]
        } else {
            eval.eval(&plan.root, frame)?
        };
        let mut batch = self.finished(batch, frame)?;
        if !batch.is_sorted_by(|a, b| a.labels <= b.labels) {
            batch.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        Ok(batch)
    }

    /// What is needed to use steps again, if the query qualifies.
    fn reuse(
        &self,
        query: &Query<'_>,
        plan: &Plan,
        lookback_ms: i64,
        options: &QueryOptions,
    ) -> Option<Reuse<'_>> {
        let cache = self.steps.as_deref().filter(|_| !options.fresh && !options.per_step)?;
        let reach = plan::reach(plan, lookback_ms)?;
        let key = Key {
            text: query.text.to_owned(),
            step_ms: query.step_ms,
            phase_ms: query.frame.start_ms.rem_euclid(query.step_ms),
            lookback_ms,
            subquery_step_ms: self.subquery_step_ms.load(Ordering::Relaxed),
        };
        Some(Reuse { cache, key, reach })
    }

    /// As [`Self::sorted`], with the first steps from the cache, as far as they
    /// are known and still true.
    fn continued(
        &self,
        eval: &mut Eval<'_>,
        plan: &Plan,
        frame: Frame,
        Reuse { cache, key, reach }: Reuse<'_>,
    ) -> Result<Batch, QueryError> {
        let (kept, was_asked) = cache.get(&key);
        if !was_asked {
            return self.sorted(eval, plan, frame);
        }
        let querier = eval.querier()?;
        let Some(version) = querier.version() else { return self.sorted(eval, plan, frame) };
        let known = kept.and_then(|kept| {
            let unchanged_ms = querier.unchanged_since(&kept.version)?;
            let part = kept.usable(frame, reach, &unchanged_ms);
            (!part.is_empty()).then_some((kept, part))
        });
        let mut used = known.as_ref().map_or(0, |(_, part)| part.len());
        let mut batch = self.sorted(eval, plan, frame.after(used))?;
        let mut is_clean = !eval.steps_are_linked && eval.notes.is_empty();
        if used > 0 && !is_clean {
            eval.notes = Notes::default();
            used = 0;
            batch = self.sorted(eval, plan, frame)?;
            is_clean = false;
        } else if let Some((kept, part)) = known {
            batch = kept.continued(part, batch, frame);
            for series in &batch {
                eval.hold(series)?;
            }
        }
        cache.count(used, frame.count - used);
        if is_clean && batch.iter().all(|s| s.histograms.is_empty()) {
            cache.put(key, Steps::of(version, frame, &batch));
        }
        Ok(batch)
    }

    /// Drops names whose removal was delayed.
    fn finished(&self, mut batch: Batch, frame: Frame) -> Result<Batch, QueryError> {
        if self.options.delayed_name_removal {
            for series in batch.iter_mut().filter(|s| s.drop_name) {
                series.labels = drop_reserved(&series.labels);
            }
            return merge_equal(batch, frame.count);
        }
        debug_assert!(!has_duplicates(&batch), "BUG: an operator gave equal series");
        Ok(batch)
    }
}

/// What is asked.
struct Query<'q> {
    text: &'q str,
    frame: Frame,
    end_ms: i64,
    /// 0 for instant queries.
    step_ms: i64,
}

/// What using steps again takes.
struct Reuse<'c> {
    cache: &'c StepCache,
    key: Key,
    reach: Reach,
}

fn matrix_series(series: Series, frame: Frame) -> Option<MatrixSeries> {
    let mut floats = Vec::with_capacity(series.floats.len());
    floats.extend(
        series
            .floats
            .iter()
            .enumerate()
            .filter(|(_, v)| is_present(**v))
            .map(|(i, v)| (frame.time(i), *v)),
    );
    if floats.is_empty() && series.histograms.is_empty() {
        return None;
    }
    let histograms =
        series.histograms.into_iter().map(|(i, h)| (frame.time(i as usize), h)).collect();
    Some(MatrixSeries { labels: series.labels, floats, histograms })
}

/// Whether the tree has more than `limit` levels.
fn is_higher_than(expr: &Expr, limit: usize) -> bool {
    let Some(rest) = limit.checked_sub(1) else { return true };
    let higher = |e: &Expr| is_higher_than(e, rest);
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Vector(_) | ExprKind::Matrix(_) => {
            false
        }
        ExprKind::Subquery(s) => higher(&s.expr),
        ExprKind::Call(c) => c.args.iter().any(higher),
        ExprKind::Aggregate(a) => higher(&a.expr) || a.param.as_deref().is_some_and(higher),
        ExprKind::Binary(b) => higher(&b.lhs) || higher(&b.rhs),
        ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => higher(inner),
    }
}

#[cfg(test)]
mod tests {
    use narthex_storage::labels::Labels;

    use super::*;
    use crate::memory::MemoryStorage;
    use crate::parse::{ParseOptions, parse};

    /// Two counters every 15 s for ten minutes; the second restarts.
    fn storage() -> MemoryStorage {
        let storage = MemoryStorage::new();
        for (cpu, reset) in [("0", 1000), ("1", 20)] {
            let labels = Labels::from_pairs([("__name__", "cpu_total"), ("cpu", cpu)]);
            for i in 0..40 {
                let value = f64::from(if i < reset { i } else { i - reset }) * 3.0;
                storage.add(&labels, i64::from(i) * 15_000, value).unwrap();
            }
        }
        storage
    }

    fn instant(text: &str, time_ms: i64) -> Result<QueryResult, QueryError> {
        let expr = parse(text, &ParseOptions::default()).unwrap();
        let engine = Engine::default();
        engine.instant(&storage(), &expr, text, time_ms, &QueryOptions::default())
    }

    fn vector(text: &str, time_ms: i64) -> Vec<(String, f64)> {
        match instant(text, time_ms).unwrap().value {
            QueryValue::Vector(samples) => samples
                .into_iter()
                .map(|s| match s.value {
                    Value::Float(v) => (s.labels.to_string(), v),
                    Value::Histogram(h) => panic!("{h}"),
                })
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rates_survive_counter_resets() {
        let got = vector("rate(cpu_total[5m])", 585_000);
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].0, r#"{cpu="0"}"#);
        assert!((got[0].1 - 0.2).abs() < 1e-9 && got[1].1 > 0.18, "{got:?}");
    }

    #[test]
    fn aggregations_group() {
        assert_eq!(vector("sum(cpu_total)", 585_000), [("{}".to_owned(), 117.0 + 57.0)]);
        assert_eq!(vector("count by (cpu) (cpu_total)", 600_000).len(), 2);
        assert_eq!(vector("topk(1, cpu_total)", 585_000)[0].1, 117.0);
        assert_eq!(vector("cpu_total - on (cpu) cpu_total", 585_000)[0].1, 0.0);
    }

    #[test]
    fn a_range_query_has_the_points_of_its_grid() {
        let text = "sum(rate(cpu_total[1m])) * 2";
        let expr = parse(text, &ParseOptions::default()).unwrap();
        let result = Engine::default()
            .range(&storage(), &expr, text, 60_000, 310_000, 60_000, &QueryOptions::default())
            .unwrap();
        let QueryValue::Matrix(matrix) = result.value else { panic!() };
        let times: Vec<i64> = matrix[0].floats.iter().map(|p| p.0).collect();
        assert_eq!(times, [60_000, 120_000, 180_000, 240_000, 300_000]);
    }

    #[test]
    fn subqueries_without_a_step_follow_the_configuration() {
        let text = "count_over_time(cpu_total{cpu=\"0\"}[5m:])";
        let expr = parse(text, &ParseOptions::default()).unwrap();
        let engine = Engine::default();
        let count = |engine: &Engine| {
            let options = QueryOptions::default();
            match engine.instant(&storage(), &expr, text, 300_000, &options).unwrap().value {
                QueryValue::Vector(vector) => vector[0].value.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(count(&engine), Value::Float(5.0));
        engine.clone().set_default_subquery_step(30_000);
        assert_eq!(count(&engine), Value::Float(10.0));
    }

    #[test]
    fn a_canceled_query_says_so() {
        let expr = parse("cpu_total", &ParseOptions::default()).unwrap();
        let options = QueryOptions::default();
        options.cancel.cancel();
        let error = Engine::default().instant(&storage(), &expr, "cpu_total", 0, &options);
        assert!(matches!(error, Err(QueryError::Canceled)));
    }

    #[test]
    fn more_samples_than_allowed_are_an_error() {
        let engine = Engine::new(EngineOptions { max_samples: 30, ..EngineOptions::default() });
        let text = "sum_over_time(cpu_total[10m])";
        let expr = parse(text, &ParseOptions::default()).unwrap();
        let got = engine.instant(&storage(), &expr, text, 600_000, &QueryOptions::default());
        assert!(matches!(got, Err(QueryError::TooManySamples)), "{got:?}");
    }

    #[test]
    fn equal_labels_at_one_time_are_an_error() {
        let storage = storage();
        storage.add(&Labels::from_pairs([("__name__", "other"), ("cpu", "0")]), 0, 1.0).unwrap();
        let text = r#"abs({cpu="0"})"#;
        let expr = parse(text, &ParseOptions::default()).unwrap();
        let got = Engine::default().instant(&storage, &expr, text, 0, &QueryOptions::default());
        let text = got.map(|_| ()).unwrap_err().to_string();
        assert_eq!(text, "vector cannot contain metrics with the same labelset");
    }

    #[test]
    fn annotations_name_their_place() {
        let result = instant("1 + rate(cpu_total[5m]) + rate({cpu=\"0\"}[5m] offset 1s)", 300_000);
        assert!(result.unwrap().infos.is_empty());
        let storage = storage();
        let up = Labels::from_pairs([("__name__", "up")]);
        for i in 0..10 {
            storage.add(&up, i * 15_000, 1.0).unwrap();
        }
        let expr = parse("rate(up[5m])", &ParseOptions::default()).unwrap();
        let got = Engine::default()
            .instant(&storage, &expr, "rate(up[5m])", 300_000, &QueryOptions::default())
            .unwrap();
        assert_eq!(
            got.infos,
            [
                "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"up\" (1:6)"
            ]
        );
    }

    /// Unary minus refused series that become equal at one step only.
    #[test]
    fn unary_minus_looks_at_the_whole_range() {
        let storage = MemoryStorage::new();
        for (name, time_ms) in [("one", 0), ("two", 540_000)] {
            storage.add(&Labels::from_pairs([("__name__", name)]), time_ms, 1.0).expect("in order");
        }
        let ask = |text: &str| {
            let expr = parse(text, &ParseOptions::default()).expect("an expression");
            let options = QueryOptions::default();
            Engine::default().range(&storage, &expr, text, 0, 600_000, 300_000, &options)
        };
        let error = ask("-{__name__=~\"one|two\"}").expect_err("equal series");
        assert_eq!(error.to_string(), QueryError::same_labelset().to_string());
        let QueryValue::Matrix(matrix) = ask("abs({__name__=~\"one|two\"})").expect("one").value
        else {
            panic!("a matrix")
        };
        assert_eq!(matrix[0].floats, [(0, 1.0), (600_000, 1.0)]);
    }
}
