//! What does narthex say of itself? Counters, gauges, histograms and
//! summaries, and their text exposition.
//!
//! A room declares its metrics as fields, registers them once, and changes
//! them without a lock. Names are Prometheus' where the meaning is the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A count that only rises. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that rises and falls, or a sum of seconds. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds to the value; negative numbers subtract.
    pub fn add(&self, delta: f64) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            Some((f64::from_bits(bits) + delta).to_bits())
        });
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Observations in buckets with fixed upper bounds. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<HistogramInner>);

#[derive(Debug)]
struct HistogramInner {
    bounds: Vec<f64>,
    /// One per bound and one for +Inf; not cumulative.
    counts: Vec<AtomicU64>,
    sum: Gauge,
}

impl Histogram {
    /// A histogram with ascending upper `bounds`, without +Inf.
    #[must_use]
    pub fn new(bounds: &[f64]) -> Self {
        Self(Arc::new(HistogramInner {
            bounds: bounds.to_vec(),
            counts: bounds.iter().map(|_| AtomicU64::new(0)).chain([AtomicU64::new(0)]).collect(),
            sum: Gauge::default(),
        }))
    }

    /// Counts one observation.
    pub fn observe(&self, value: f64) {
        let bucket = self.0.bounds.partition_point(|b| *b < value);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum.add(value);
    }
}

/// Quantiles over the last observations. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Summary(Arc<SummaryInner>);

#[derive(Debug)]
struct SummaryInner {
    quantiles: Vec<f64>,
    count: Counter,
    sum: Gauge,
    recent: Mutex<Recent>,
}

/// The last observations, a ring.
#[derive(Debug, Default)]
struct Recent {
    values: Vec<f64>,
    next: usize,
}

/// How many observations a summary's quantiles are over.
const SUMMARY_WINDOW: usize = 512;

impl Summary {
    /// A summary that reports these quantiles (0 to 1, ascending).
    #[must_use]
    pub fn new(quantiles: &[f64]) -> Self {
        Self(Arc::new(SummaryInner {
            quantiles: quantiles.to_vec(),
            count: Counter::default(),
            sum: Gauge::default(),
            recent: Mutex::default(),
        }))
    }

    /// Counts one observation.
    pub fn observe(&self, value: f64) {
        self.0.count.inc();
        self.0.sum.add(value);
        let mut recent = self.0.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.values.len() < SUMMARY_WINDOW {
            recent.values.push(value);
        } else {
            let next = recent.next;
            recent.values[next] = value;
            recent.next = (next + 1) % SUMMARY_WINDOW;
        }
    }
}

/// Metrics of one name that differ in labels.
#[derive(Debug, Clone)]
pub struct Family<M> {
    label_names: Arc<[&'static str]>,
    new: fn() -> M,
    members: Arc<RwLock<BTreeMap<Vec<String>, M>>>,
}

impl<M: Clone> Family<M> {
    /// A family whose members have values for these labels.
    #[must_use]
    pub fn new(label_names: &[&'static str], new: fn() -> M) -> Self {
        Self { label_names: label_names.into(), new, members: Arc::default() }
    }

    /// The member with these label values, made on first use. Keep it where
    /// it is used often: this takes a lock.
    ///
    /// # Panics
    ///
    /// If there are not as many values as label names.
    #[must_use]
    pub fn with(&self, values: &[&str]) -> M {
        assert_eq!(
            values.len(),
            self.label_names.len(),
            "BUG: label values of {:?}",
            self.label_names
        );
        let key: Vec<String> = values.iter().map(|&v| v.to_owned()).collect();
        if let Some(found) = self.members.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return found.clone();
        }
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        members.entry(key).or_insert_with(self.new).clone()
    }

    /// Forgets the member with these label values.
    pub fn remove(&self, values: &[&str]) {
        let key: Vec<String> = values.iter().map(|&v| v.to_owned()).collect();
        self.members.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}

/// What a registry needs of a metric: its type and its lines.
pub trait Metric: Send + Sync {
    /// The type in the exposition format.
    fn kind(&self) -> &'static str;

    /// Writes the sample lines; `labels` is empty or `a="b",c="d"`.
    fn write(&self, name: &str, labels: &str, out: &mut String);
}

fn write_sample(out: &mut String, name: &str, suffix: &str, labels: &str, extra: &str, value: f64) {
    out.push_str(name);
    out.push_str(suffix);
    if !labels.is_empty() || !extra.is_empty() {
        out.push('{');
        out.push_str(labels);
        if !labels.is_empty() && !extra.is_empty() {
            out.push(',');
        }
        out.push_str(extra);
        out.push('}');
    }
    let text = if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        value.to_string()
    };
    let _ = writeln!(out, " {text}");
}

impl Metric for Counter {
    fn kind(&self) -> &'static str {
        "counter"
    }

    #[allow(clippy::cast_precision_loss, reason = "counters above 2^53 lose their last digits")]
    fn write(&self, name: &str, labels: &str, out: &mut String) {
        write_sample(out, name, "", labels, "", self.get() as f64);
    }
}

impl Metric for Gauge {
    fn kind(&self) -> &'static str {
        "gauge"
    }

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        write_sample(out, name, "", labels, "", self.get());
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts above 2^53 lose their last digits")]
impl Metric for Histogram {
    fn kind(&self) -> &'static str {
        "histogram"
    }

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        let mut total = 0;
        for (i, count) in self.0.counts.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let le = self.0.bounds.get(i).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            write_sample(out, name, "_bucket", labels, &format!("le=\"{le}\""), total as f64);
        }
        write_sample(out, name, "_sum", labels, "", self.0.sum.get());
        write_sample(out, name, "_count", labels, "", total as f64);
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts above 2^53 lose their last digits")]
impl Metric for Summary {
    fn kind(&self) -> &'static str {
        "summary"
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 <= rank < window"
    )]
    fn write(&self, name: &str, labels: &str, out: &mut String) {
        let mut values =
            self.0.recent.lock().unwrap_or_else(PoisonError::into_inner).values.clone();
        values.sort_by(f64::total_cmp);
        for q in &self.0.quantiles {
            let rank = (q * values.len().saturating_sub(1) as f64).round() as usize;
            let value = values.get(rank).copied().unwrap_or(f64::NAN);
            write_sample(out, name, "", labels, &format!("quantile=\"{q}\""), value);
        }
        write_sample(out, name, "_sum", labels, "", self.0.sum.get());
        write_sample(out, name, "_count", labels, "", self.0.count.get() as f64);
    }
}

impl<M: Metric + Clone> Metric for Family<M> {
    fn kind(&self) -> &'static str {
        (self.new)().kind()
    }

    fn write(&self, name: &str, _labels: &str, out: &mut String) {
        for (values, metric) in self.members.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels: Vec<String> = self
                .label_names
                .iter()
                .zip(values)
                .map(|(n, v)| {
                    let v = v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                    format!("{n}=\"{v}\"")
                })
                .collect();
            metric.write(name, &labels.join(","), out);
        }
    }
}

/// A value that is worked out when it is asked for.
struct Computed {
    kind: &'static str,
    compute: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl Metric for Computed {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        write_sample(out, name, "", labels, "", (self.compute)());
    }
}

/// Values by labels that are worked out when they are asked for.
struct ComputedFamily {
    kind: &'static str,
    compute: Box<dyn Fn() -> Vec<(String, f64)> + Send + Sync>,
}

impl Metric for ComputedFamily {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn write(&self, name: &str, _labels: &str, out: &mut String) {
        for (labels, value) in (self.compute)() {
            write_sample(out, name, "", &labels, "", value);
        }
    }
}

/// All metrics of the process. Cloning shares it.
#[derive(Clone, Default)]
pub struct Registry(Arc<RwLock<BTreeMap<&'static str, Entry>>>);

struct Entry {
    help: &'static str,
    metric: Box<dyn Metric>,
}

impl Registry {
    /// Registers a metric and gives it back.
    ///
    /// # Panics
    ///
    /// If the name is taken.
    pub fn register<M: Metric + Clone + 'static>(
        &self,
        name: &'static str,
        help: &'static str,
        metric: M,
    ) -> M {
        self.insert(name, Entry { help, metric: Box::new(metric.clone()) });
        metric
    }

    /// A new counter.
    ///
    /// # Panics
    ///
    /// If the name is taken.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.register(name, help, Counter::default())
    }

    /// A new gauge.
    ///
    /// # Panics
    ///
    /// If the name is taken.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// A gauge or counter (`kind`) that is worked out at each exposition.
    ///
    /// # Panics
    ///
    /// If the name is taken.
    pub fn computed(
        &self,
        name: &'static str,
        help: &'static str,
        kind: &'static str,
        compute: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let metric = Box::new(Computed { kind, compute: Box::new(compute) });
        self.insert(name, Entry { help, metric });
    }

    /// As [`Registry::computed`], with several values: each with its labels as
    /// they are written (`a="b"`).
    ///
    /// # Panics
    ///
    /// If the name is taken.
    pub fn computed_family(
        &self,
        name: &'static str,
        help: &'static str,
        kind: &'static str,
        compute: impl Fn() -> Vec<(String, f64)> + Send + Sync + 'static,
    ) {
        let metric = Box::new(ComputedFamily { kind, compute: Box::new(compute) });
        self.insert(name, Entry { help, metric });
    }

    fn insert(&self, name: &'static str, entry: Entry) {
        let before =
            self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, entry).is_some();
        assert!(!before, "BUG: metric {name} is registered twice");
    }

    /// All metrics in the text format 0.0.4, sorted by name.
    #[must_use]
    pub fn expose(&self) -> String {
        let mut out = String::with_capacity(32 << 10);
        for (name, entry) in self.0.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(out, "# HELP {name} {}", entry.help);
            let _ = writeln!(out, "# TYPE {name} {}", entry.metric.kind());
            entry.metric.write(name, "", &mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposes_every_kind() {
        let registry = Registry::default();
        registry.counter("a_total", "counts").add(3);
        let family = registry.register("b", "by x", Family::new(&["x"], Gauge::default));
        family.with(&["1\"2"]).set(-0.5);
        registry.register("c", "buckets", Histogram::new(&[1.0, 2.0])).observe(2.0);
        registry.register("d", "quantiles", Summary::new(&[0.5])).observe(7.0);
        assert_eq!(
            registry.expose(),
            "# HELP a_total counts\n# TYPE a_total counter\na_total 3\n\
             # HELP b by x\n# TYPE b gauge\nb{x=\"1\\\"2\"} -0.5\n\
             # HELP c buckets\n# TYPE c histogram\nc_bucket{le=\"1\"} 0\nc_bucket{le=\"2\"} 1\n\
             c_bucket{le=\"+Inf\"} 1\nc_sum 2\nc_count 1\n\
             # HELP d quantiles\n# TYPE d summary\nd{quantile=\"0.5\"} 7\nd_sum 7\nd_count 1\n"
        );
    }
}
