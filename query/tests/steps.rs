//! Steps that are used again are those that a fresh evaluation gives, bit by
//! bit, whatever is appended (in order or late), deleted, sealed, merged or
//! forgotten in between, and on whichever grid is asked.

#![allow(clippy::unwrap_used, reason = "a test that fails shall stop")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use narthex_query::engine::{Engine, EngineOptions, QueryOptions};
use narthex_query::parse::{ParseOptions, parse};
use narthex_query::value::{MatrixSeries, QueryValue};
use narthex_storage::append::{Appendable as _, SourceId, SyncClass};
use narthex_storage::db::{Db, DbOptions};
use narthex_storage::labels::{Labels, MatchOp, Matcher};
use narthex_storage::read::SeriesRef;
use narthex_storage::sample::stale_nan;
use proptest::prelude::*;

/// 2026-01-01, 23:00: an hour before the day ends.
const T0: i64 = 1_767_308_400_000;
const INTERVAL_MS: i64 = 15_000;
const STEP_MS: i64 = 60_000;
const RETENTION_MS: i64 = 2 * 3_600_000;

/// Of each kind that qualifies, and of those that do not.
const QUERIES: &[&str] = &[
    "a_total",
    "sum by (x) (rate(a_total[5m]))",
    "sum(rate(a_total[3m])) / sum(b)",
    "avg(b)",
    "max_over_time(b[10m]) - min_over_time(b[10m] offset 3m)",
    "sum(b offset -2m)",
    "topk(2, b)",
    "limitk(2, b)",
    "topk(1, sum by (x) (b))",
    "sum(sum by (x, y) (b))",
    "count by (x) (b > 0)",
    "a_total * on (x, y) group_left () b",
    "sum(a_total * on (x, y) b)",
    "b or a_total",
    "b unless on (x) a_total",
    "max_over_time(sum by (x) (rate(a_total[2m]))[10m:1m])",
    "sum(max_over_time(b[5m:30s]))",
    "quantile(0.5, b)",
    "stddev by (y) (b)",
    "label_replace(b, \"z\", \"$1\", \"x\", \"(.*)\")",
    "sum(label_replace(b, \"x\", \"\", \"y\", \"p\"))",
    "absent(b{x=\"2\"})",
    "{__name__=~\"a_total|b\", x=\"1\"}",
    "abs({__name__=~\"a_total|b\", x=\"1\"})",
    "sum(abs({__name__=~\"a_total|b\", y=\"p\"}))",
    "rate({__name__=~\"a_total|b\", x=\"1\"}[5m])",
    "b - b @ end()",
    "sum(b) * range() / step()",
    "time() - timestamp(b)",
    "scalar(sum(b)) + 1",
    "max_over_time(b[5m:1m] @ 1767310200) * 0 or b",
    "predict_linear(b[5m], 60)",
    "-b",
    "deriv(b[5m])",
];

#[derive(Debug, Clone)]
enum Act {
    /// Rows go on for so many intervals; series take part by bits.
    Scrape {
        rows: i64,
        present: u8,
    },
    /// One sample this long before the newest row.
    Late {
        back_ms: i64,
        series: usize,
    },
    /// A series ends.
    Marker {
        series: usize,
    },
    Delete {
        back_ms: i64,
        length_ms: i64,
        name: &'static str,
    },
    Seal,
    Maintain,
    /// Time goes by without a sample.
    Wait {
        length_ms: i64,
    },
    /// The query of this number over so many steps up to so long ago.
    Ask {
        query: usize,
        steps: i64,
        back_steps: i64,
        phase_ms: i64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let ask = (0..QUERIES.len(), 1i64..40, 0i64..6, prop::sample::select(vec![0i64, 0, 0, 500]));
    prop_oneof![
        4 => (1i64..12, any::<u8>()).prop_map(|(rows, present)| Act::Scrape { rows, present }),
        2 => (0i64..1_800_000, 0usize..8).prop_map(|(back_ms, series)| Act::Late { back_ms, series }),
        1 => (0usize..8).prop_map(|series| Act::Marker { series }),
        1 => (0i64..1_800_000, 0i64..600_000, prop::sample::select(vec!["a_total", "b"]))
            .prop_map(|(back_ms, length_ms, name)| Act::Delete { back_ms, length_ms, name }),
        1 => Just(Act::Seal),
        1 => Just(Act::Maintain),
        1 => (0i64..3_600_000).prop_map(|length_ms| Act::Wait { length_ms }),
        12 => ask.prop_map(|(query, steps, back_steps, phase_ms)| Act::Ask {
            query, steps, back_steps, phase_ms
        }),
    ]
}

struct World {
    db: Db,
    now: Arc<AtomicI64>,
    series: Vec<SeriesRef>,
    values: Vec<f64>,
    newest_ms: i64,
    random: u64,
    cached: Engine,
    fresh: Engine,
    _directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicI64::new(T0));
        let mut options = DbOptions::new(directory.path());
        let clock = Arc::clone(&now);
        options.clock = Arc::new(move || clock.load(Ordering::Relaxed));
        options.background = false;
        options.retention_time_ms = RETENTION_MS;
        options.out_of_order_window_ms = 1_200_000;
        let db = Db::open(options).unwrap();
        let mut appender = db.appender(SourceId(1), SyncClass::Scrape);
        let mut series = Vec::new();
        for name in ["a_total", "b"] {
            for (x, y) in [("1", "p"), ("1", "q"), ("2", "p"), ("10", "")] {
                let labels = Labels::from_pairs([("__name__", name), ("x", x), ("y", y)]);
                series.push(appender.series(&labels).unwrap());
            }
        }
        appender.commit().unwrap();
        let engine = |bytes| {
            Engine::new(EngineOptions { step_cache_bytes: bytes, ..EngineOptions::default() })
        };
        Self {
            db,
            now,
            values: vec![0.0; series.len()],
            series,
            newest_ms: T0,
            random: 1,
            cached: engine(1 << 20),
            fresh: engine(0),
            _directory: directory,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % below
    }

    fn append(&mut self, time_ms: i64, series: &[(usize, f64)]) {
        self.now.fetch_max(time_ms, Ordering::Relaxed);
        let mut appender = self.db.appender(SourceId(1), SyncClass::Scrape);
        for (place, value) in series {
            // What is too old or there already is refused: also a case.
            let _ = appender.append(self.series[*place], time_ms, 0, *value);
        }
        appender.commit().unwrap();
    }

    fn next_value(&mut self, place: usize) -> f64 {
        let step = self.random(9) as f64 * 0.1;
        self.values[place] = if place >= 4 {
            self.random(2000) as f64 / 7.0 - 100.0
        } else if self.random(20) == 0 {
            0.0
        } else {
            self.values[place] + step
        };
        self.values[place]
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Scrape { rows, present } => {
                for _ in 0..rows {
                    self.newest_ms =
                        (self.newest_ms + INTERVAL_MS).max(self.now.load(Ordering::Relaxed));
                    let row: Vec<(usize, f64)> = (0..self.series.len())
                        .filter(|place| present >> place & 1 == 1)
                        .map(|place| (place, self.next_value(place)))
                        .collect();
                    self.append(self.newest_ms, &row);
                }
            }
            Act::Late { back_ms, series } => {
                let value = self.next_value(series);
                self.append(self.newest_ms - back_ms, &[(series, value)]);
            }
            Act::Marker { series } => {
                self.newest_ms += 1;
                self.append(self.newest_ms, &[(series, stale_nan())]);
            }
            Act::Delete { back_ms, length_ms, name } => {
                let matcher = Matcher::new(MatchOp::Equal, "__name__", name).unwrap();
                let start_ms = self.newest_ms - back_ms;
                self.db.delete(&[vec![matcher]], start_ms, start_ms + length_ms).unwrap();
            }
            Act::Seal => self.db.seal_all().unwrap(),
            Act::Maintain => self.db.run_maintenance(self.now.load(Ordering::Relaxed)).unwrap(),
            Act::Wait { length_ms } => {
                self.now.fetch_add(length_ms, Ordering::Relaxed);
            }
            Act::Ask { query, steps, back_steps, phase_ms } => {
                let end =
                    self.newest_ms.div_euclid(STEP_MS) * STEP_MS - back_steps * STEP_MS + phase_ms;
                self.compare(QUERIES[query], end - steps * STEP_MS, end);
            }
        }
    }

    fn compare(&self, query: &str, start_ms: i64, end_ms: i64) {
        let fresh = self.ask(&self.fresh, query, start_ms, end_ms);
        let cached = self.ask(&self.cached, query, start_ms, end_ms);
        assert_eq!(cached, fresh, "{query} from {start_ms} to {end_ms}");
    }

    /// The answer with the bits of its floats, or the error.
    fn ask(
        &self,
        engine: &Engine,
        query: &str,
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Bits, String> {
        let expr =
            parse(query, &ParseOptions { experimental_functions: true, ..ParseOptions::default() })
                .unwrap();
        let options = QueryOptions::default();
        let answer = engine.range(&self.db, &expr, query, start_ms, end_ms, STEP_MS, &options);
        let answer = answer.map_err(|e| e.to_string())?;
        let QueryValue::Matrix(matrix) = answer.value else { panic!("a matrix") };
        let bits = |s: MatrixSeries| {
            let floats = s.floats.iter().map(|(t, v)| (*t, v.to_bits())).collect();
            (s.labels.to_string(), floats)
        };
        Ok((matrix.into_iter().map(bits).collect(), answer.warnings, answer.infos))
    }
}

type Bits = (Vec<(String, Vec<(i64, u64)>)>, Vec<String>, Vec<String>);

/// How many lives are tried; `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn used_steps_are_fresh_ones(acts in proptest::collection::vec(act(), 1..120)) {
        let mut world = World::new();
        world.act(&Act::Scrape { rows: 40, present: 0xff });
        for act in &acts {
            world.act(act);
        }
    }
}

/// What dashboards do: each query again and again, a little later each time.
#[test]
fn a_refresh_evaluates_new_steps_only() {
    let mut world = World::new();
    for _ in 0..30 {
        world.act(&Act::Scrape { rows: 4, present: 0xff });
        let end = world.newest_ms.div_euclid(STEP_MS) * STEP_MS;
        for query in QUERIES {
            world.compare(query, end - 20 * STEP_MS, end);
        }
    }
    let stats = world.cached.step_cache_stats();
    assert!(stats.used_steps > 10 * stats.evaluated_steps, "{stats:?}");
    assert!(stats.bytes > 0 && stats.entries > QUERIES.len() / 3, "{stats:?}");
    assert_eq!(world.fresh.step_cache_stats(), Default::default());
}
