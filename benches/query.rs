//! Hot paths of the query engine: rates, windows, aggregations, matching.
//!
//! The data are those of 1,000 counters scraped every 15 s: one axis, columns
//! in memory, so that only the engine is measured.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails shall stop")]

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use narthex_query::engine::{Engine, QueryOptions};
use narthex_query::parse::{ParseOptions, parse};
use narthex_storage::labels::{Labels, Matcher};
use narthex_storage::read::{Axis, Column, Querier, Queryable, ReadError, SeriesRef};
use narthex_storage::sample::{Exemplar, Metadata};

const STEP_MS: i64 = 15_000;
const SAMPLES: usize = 7 * 3600 / 15 + 24 * 3600 / 15;

struct Fixture(Arc<Data>);

struct Data {
    axis: Axis,
    series: Vec<(Labels, Vec<f64>)>,
}

impl Fixture {
    /// `hosts` × 8 CPUs × 8 modes counters, and a gauge per host.
    fn new(hosts: usize) -> Self {
        let axis: Axis = (0..SAMPLES).map(|i| i as i64 * STEP_MS).collect();
        let mut series = Vec::new();
        let mut state = 1u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / 16_777_216.0
        };
        for host in 0..hosts {
            let instance = format!("host-{host:06}:9100");
            for cpu in 0..8 {
                for mode in ["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"]
                {
                    let cpu = cpu.to_string();
                    let labels = Labels::from_pairs([
                        ("__name__", "node_cpu_seconds_total"),
                        ("cpu", &cpu),
                        ("instance", &instance),
                        ("job", "node"),
                        ("mode", mode),
                    ]);
                    let mut total = 0.0;
                    let values = (0..SAMPLES).map(|_| {
                        total += (random() * 1500.0).round() / 100.0;
                        total
                    });
                    series.push((labels, values.collect()));
                }
            }
            let labels = Labels::from_pairs([
                ("__name__", "node_load1"),
                ("instance", &instance),
                ("job", "node"),
            ]);
            series
                .push((labels, (0..SAMPLES).map(|_| (random() * 400.0).round() / 100.0).collect()));
        }
        series.sort_by(|a, b| a.0.cmp(&b.0));
        Self(Arc::new(Data { axis, series }))
    }
}

impl Queryable for Fixture {
    fn querier(&self, _: i64, _: i64) -> Result<Arc<dyn Querier>, ReadError> {
        Ok(Arc::clone(&self.0) as Arc<dyn Querier>)
    }
}

impl Querier for Data {
    fn select(&self, matchers: &[Matcher], _: bool) -> Result<Vec<SeriesRef>, ReadError> {
        let fits = |l: &Labels| matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or("")));
        let places = (0u32..).zip(&self.series);
        Ok(places.filter(|(_, (l, _))| fits(l)).map(|(i, _)| SeriesRef(i)).collect())
    }

    fn labels(&self, series: SeriesRef) -> Result<Labels, ReadError> {
        Ok(self.series[series.0 as usize].0.clone())
    }

    fn read(
        &self,
        series: SeriesRef,
        start: i64,
        end: i64,
        out: &mut Column,
    ) -> Result<(), ReadError> {
        let first = self.axis.partition_point(|t| *t < start);
        let last = self.axis.partition_point(|t| *t <= end);
        let range: Range<usize> = first..last;
        out.clear();
        out.axis = Arc::clone(&self.axis);
        out.floats.extend_from_slice(&self.series[series.0 as usize].1[range.clone()]);
        out.range = range;
        Ok(())
    }

    fn label_names(&self, _: &[Matcher], _: usize) -> Result<Vec<String>, ReadError> {
        Ok(Vec::new())
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: usize) -> Result<Vec<String>, ReadError> {
        Ok(Vec::new())
    }

    fn exemplars(
        &self,
        _: &[Vec<Matcher>],
        _: i64,
        _: i64,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, ReadError> {
        Ok(Vec::new())
    }

    fn metadata(&self) -> Vec<(String, Vec<Metadata>)> {
        Vec::new()
    }
}

const QUERIES: &[(&str, &str)] = &[
    ("rate", "rate(node_cpu_seconds_total[5m])"),
    ("sum_rate", "sum by (mode) (rate(node_cpu_seconds_total[5m]))"),
    ("irate", "sum without (cpu) (irate(node_cpu_seconds_total[5m]))"),
    ("raw", "node_cpu_seconds_total"),
    ("ratio", "node_cpu_seconds_total / ignoring (nothing) node_cpu_seconds_total"),
    ("max_1h", "max_over_time(node_load1[1h])"),
    ("quantile_30m", "quantile_over_time(0.95, node_load1[30m])"),
    ("avg_1h", "avg(avg_over_time(node_load1[1h]))"),
    ("deriv", "deriv(node_load1[30m])"),
    ("topk", "topk(5, sum by (instance) (increase(node_cpu_seconds_total[10m])))"),
    ("subquery", "max_over_time(sum by (instance) (rate(node_cpu_seconds_total[2m]))[30m:1m])"),
];

fn queries(c: &mut Criterion) {
    let data = Fixture::new(16);
    let engine = Engine::default();
    let options = QueryOptions::default();
    let end = (SAMPLES as i64 - 1) * STEP_MS;
    for (range, length_ms, step_ms) in [("1h", 3_600_000, 15_000), ("24h", 86_400_000, 240_000)] {
        let mut group = c.benchmark_group(range);
        group.sample_size(10);
        for (name, text) in QUERIES {
            let expr = parse(text, &ParseOptions::default()).unwrap();
            group.bench_function(*name, |b| {
                b.iter(|| {
                    let answer =
                        engine.range(&data, &expr, text, end - length_ms, end, step_ms, &options);
                    black_box(answer.unwrap())
                });
            });
        }
        group.finish();
    }
    let mut group = c.benchmark_group("instant");
    for (name, text) in QUERIES {
        let expr = parse(text, &ParseOptions::default()).unwrap();
        group.bench_function(*name, |b| {
            b.iter(|| black_box(engine.instant(&data, &expr, text, end, &options).unwrap()));
        });
    }
    group.finish();
}

criterion_group!(benches, queries);
criterion_main!(benches);
