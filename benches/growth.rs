//! How does the cost of a query grow with series and with time?
//!
//! `sum by (mode) (rate(cpu_seconds_total[5m]))` through the whole engine and
//! storage, on sealed days and open rows, with simulated time: over an hour of
//! 100 to 50,000 series, and over 1 hour to 15 days of 100 series, 240 steps
//! each. Prints the table of docs/query-growth.md and draws
//! docs/query-growth.svg:
//!
//! ```text
//! cargo bench -p narthex-query --bench growth
//! ```
//!
//! Filling syncs thousands of stripes: `TMPDIR=/dev/shm` makes that quick.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails shall stop")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use narthex_query::engine::{Engine, QueryOptions};
use narthex_query::parse::{ParseOptions, parse};
use narthex_storage::append::{Appendable as _, SourceId, SyncClass};
use narthex_storage::db::{Db, DbOptions};
use narthex_storage::labels::Labels;
use narthex_storage::read::SeriesRef;

const QUERY: &str = "sum by (mode) (rate(cpu_seconds_total[5m]))";
/// 2026-01-01, 00:00.
const T0: i64 = 1_767_225_600_000;
const INTERVAL_MS: i64 = 15_000;
const HOUR_MS: i64 = 3_600_000;
const STEPS: i64 = 240;
/// Series of one target: 16 CPUs in 8 modes, so that a row has 128 values.
const MODES: [&str; 8] = ["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"];
const CPUS: usize = 16;
const PER_TARGET: usize = MODES.len() * CPUS;

/// Of a server with a memory limit of a gigabyte.
const CACHE_BYTES: usize = 128 << 20;

/// What was measured: along the axis, milliseconds of the first run and the
/// median of the others.
type Curve = Vec<(f64, [f64; 2])>;

fn main() {
    // Cargo asks benchmarks for their tests, too.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    println!("| series | range | first run, ms | later runs, ms |\n|---|---|---|---|");
    let mut by_series = Curve::new();
    for series in [100, 1_000, 10_000, 50_000] {
        let took = measure(series, 2 * HOUR_MS, &[HOUR_MS])[0];
        println!("| {series} | 1 h | {:.2} | {:.2} |", took[0], took[1]);
        by_series.push((f64::from(u32::try_from(series).unwrap()), took));
    }
    let spans = [1, 6, 24, 72, 168, 360];
    let spans_ms: Vec<i64> = spans.iter().map(|h| h * HOUR_MS).collect();
    let mut by_time = Curve::new();
    for (hours, took) in spans.into_iter().zip(measure(100, 361 * HOUR_MS, &spans_ms)) {
        println!("| 100 | {} | {:.2} | {:.2} |", hours_text(hours as f64), took[0], took[1]);
        by_time.push((hours as f64, took));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/query-growth.svg");
    std::fs::write(path, plot(&by_series, &by_time)).unwrap();
}

/// Fills a storage with `series` series over `filled_ms`; for each range, the
/// milliseconds of the first run and the median of the others.
fn measure(series: usize, filled_ms: i64, ranges_ms: &[i64]) -> Vec<[f64; 2]> {
    let directory = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(T0));
    let mut options = DbOptions::new(directory.path());
    let clock = Arc::clone(&now);
    options.clock = Arc::new(move || clock.load(Ordering::Relaxed));
    options.background = false;
    options.retention_time_ms = 0;
    options.cache_limit_bytes = CACHE_BYTES;
    let db = Db::open(options).unwrap();
    fill(&db, &now, series, filled_ms);
    let end_ms = T0 + filled_ms;
    let expr = parse(QUERY, &ParseOptions::default()).unwrap();
    let engine = Engine::default();
    let run = |range_ms: i64, earlier_ms: i64| {
        let (start, end) = (end_ms - range_ms - earlier_ms, end_ms - earlier_ms);
        let (step, options) = (range_ms / STEPS, QueryOptions::default());
        let began = Instant::now();
        engine.range(&db, &expr, QUERY, start, end, step, &options).unwrap();
        began.elapsed().as_secs_f64() * 1e3
    };
    let ranges = ranges_ms.iter().map(|&range_ms| {
        let first = run(range_ms, 0);
        // Each run asks for other steps: nothing can be an answer kept.
        let mut warm: Vec<f64> = (1..=9).map(|i| run(range_ms, i)).collect();
        warm.sort_by(f64::total_cmp);
        [first, warm[warm.len() / 2]]
    });
    ranges.collect()
}

fn fill(db: &Db, now: &AtomicI64, series: usize, filled_ms: i64) {
    let targets = series.div_ceil(PER_TARGET);
    let mut fleet: Vec<(Vec<SeriesRef>, Vec<f64>)> = Vec::new();
    for target in 0..targets {
        let mut appender = db.appender(SourceId(target as u64), SyncClass::Scrape);
        let columns = PER_TARGET.min(series - target * PER_TARGET);
        let ids = (0..columns).map(|i| {
            let (cpu, instance) = ((i / MODES.len()).to_string(), format!("host-{target:06}:9100"));
            let labels = Labels::from_pairs([
                ("__name__", "cpu_seconds_total"),
                ("cpu", &cpu),
                ("instance", &instance),
                ("job", "node"),
                ("mode", MODES[i % MODES.len()]),
            ]);
            appender.series(&labels).unwrap()
        });
        fleet.push((ids.collect(), vec![0.0; columns]));
        appender.commit().unwrap();
    }
    let mut state = 1u64;
    let mut refused = Vec::new();
    for row in 0..=filled_ms / INTERVAL_MS {
        for (target, (ids, values)) in fleet.iter_mut().enumerate() {
            // Hundredths of seconds, as the kernel counts.
            for value in values.iter_mut() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *value = ((*value * 100.0).round() + ((state >> 33) % 1500) as f64) / 100.0;
            }
            let spread = target as i64 * INTERVAL_MS / targets as i64;
            let at = T0 + row * INTERVAL_MS + spread;
            now.store(at, Ordering::Relaxed);
            let mut appender = db.appender(SourceId(target as u64), SyncClass::Scrape);
            appender.append_row(at, ids, values, &mut refused);
            appender.commit().unwrap();
        }
        db.run_maintenance(now.load(Ordering::Relaxed)).unwrap();
    }
    assert!(refused.is_empty());
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 330.0;

/// Two panels, both axes logarithmic.
fn plot(by_series: &Curve, by_time: &Curve) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"20\" y=\"22\" font-size=\"14\">{QUERY}, 240 steps, one thread</text>\n\
         <text x=\"{WIDTH}\" dx=\"-30\" y=\"22\" text-anchor=\"end\"><tspan fill=\"#888\">first \
         run</tspan>, <tspan fill=\"#c33\">later runs</tspan></text>\n"
    );
    panel(&mut svg, 60.0, "series, over 1 hour", by_series, |x| x.to_string());
    panel(&mut svg, 430.0, "range, of 100 series", by_time, hours_text);
    svg.push_str("</svg>\n");
    svg
}

fn hours_text(hours: f64) -> String {
    if hours < 24.0 { format!("{hours} h") } else { format!("{} d", hours / 24.0) }
}

fn panel(svg: &mut String, left: f64, title: &str, curve: &Curve, name: impl Fn(f64) -> String) {
    let (width, top, height) = (300.0, 50.0, 220.0);
    let (low, high) = (-2.0, 3.0);
    let (first, last) = (curve[0].0.log10(), curve[curve.len() - 1].0.log10());
    let x_of = |x: f64| left + (x.log10() - first) / (last - first) * width;
    let y_of = |ms: f64| top + height - (ms.log10() - low) / (high - low) * height;
    for exponent in -2..=3 {
        let ms = 10f64.powi(exponent);
        let y = y_of(ms);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {y:.1}h{width}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ms} ms</text>",
            left - 6.0,
            y + 4.0
        );
    }
    for (run, colour) in ["#888", "#c33"].into_iter().enumerate() {
        let mut line = String::new();
        for (x, took) in curve {
            let (px, py) = (x_of(*x), y_of(took[run]));
            let _ = write!(line, "{}{px:.1} {py:.1}", if line.is_empty() { "M" } else { "L" });
            let _ =
                writeln!(svg, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let _ = writeln!(svg, "<path d=\"{line}\" fill=\"none\" stroke=\"{colour}\"/>");
    }
    for (x, [_, warm]) in curve {
        let _ = writeln!(
            svg,
            "<text x=\"{px:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{warm:.2}</text>\
             <text x=\"{px:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            y_of(*warm) + 16.0,
            top + height + 18.0,
            name(*x),
            px = x_of(*x)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{title}</text>",
        left + width / 2.0,
        top + height + 40.0
    );
}
