//! What does the storage cost? CPU per sample, bytes per sample and series,
//! time to be ready, on pages like a node exporter's.
//!
//! `cargo bench -p narthex-storage --bench storage_figures -- [scrape] [edge] [cardinality] [backfill] [captured] [churn] [engine]`
//!
//! `NARTHEX_ENGINE=rocksdb` with `--features rocksdb`: of that engine.
//!
//! Prints figures instead of distributions: they are sums over a run, and
//! memory and restart need a process of their own.

#[path = "storage_figures/captured.rs"]
mod captured;
#[path = "storage_figures/churn.rs"]
mod churn;
#[path = "storage_figures/engine.rs"]
mod engine;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use narthex_storage::append::{Appendable as _, SourceId, SyncClass};
use narthex_storage::db::{Db, DbOptions};
use narthex_storage::engine::Engine;
use narthex_storage::labels::{Labels, Matcher};
use narthex_storage::read::{Column, Queryable as _, SeriesRef};

const T0: i64 = 1_700_000_000_000;
const PAGE: usize = 860;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let runs: [(&str, fn()); 7] = [
        ("scrape", scrape),
        ("edge", edge),
        ("cardinality", cardinality),
        ("backfill", backfill),
        ("captured", captured::run),
        ("churn", churn::run),
        ("engine", engine::run),
    ];
    for (name, run) in runs {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            println!("{name}:");
            run();
        }
    }
}

/// 100 targets at 1 s, six minutes.
fn scrape() {
    figures_of_scrapes(100, 1000, 360);
}

/// 3 targets at 15 s, two hours.
fn edge() {
    figures_of_scrapes(3, 15_000, 480);
}

/// 6 targets at 15 s, a day, sealed.
fn backfill() {
    figures_of_scrapes(6, 15_000, 5760);
}

fn figures_of_scrapes(targets: usize, interval_ms: i64, rows: usize) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = Arc::new(AtomicI64::new(T0));
    let db = open(dir.path(), &now);
    let mut fleet: Vec<Target> = (0..targets).map(|t| Target::new(&db, t)).collect();
    let before = anon_bytes();
    let (mut cpu, mut samples) = (0.0, 0u64);
    let mut refused = Vec::new();
    for row in 0..rows {
        for target in &mut fleet {
            target.step(row);
        }
        let started = cpu_s();
        for (t, target) in fleet.iter().enumerate() {
            let at = T0 + row as i64 * interval_ms + t as i64 * interval_ms / targets as i64;
            now.store(at, Ordering::Relaxed);
            let mut appender = db.appender(SourceId(t as u64), SyncClass::Scrape);
            appender.append_row(at, &target.ids, &target.values, &mut refused);
            samples += appender.commit().expect("commit").samples;
            db.run_maintenance(at).expect("maintenance");
        }
        cpu += cpu_s() - started;
    }
    assert!(refused.is_empty());
    let stats = db.stats();
    let per = |bytes: u64| bytes as f64 / samples as f64;
    println!("  samples                {samples}");
    println!("  CPU us per sample      {:.4}", cpu / samples as f64 * 1e6);
    println!("  log bytes per sample   {:.3}", per(stats.wal_written_bytes));
    println!(
        "  days bytes per sample  {:.3}",
        stats.days_bytes as f64 / stats.days_samples.max(1) as f64
    );
    println!("  disk bytes per sample  {:.3}", per(disk_bytes(dir.path())));
    println!(
        "  rows, series, index    {} {} {} B",
        stats.rows_bytes, stats.series_bytes, stats.index_bytes
    );
    println!(
        "  anon bytes per series  {:.0}",
        (anon_bytes() - before) as f64 / (targets * PAGE) as f64
    );
    query(&db, T0 + rows as i64 * interval_ms);
    std::mem::forget(db);
    restart(dir.path(), &now);
}

/// A million series, four samples each, by label sets.
fn cardinality() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = Arc::new(AtomicI64::new(T0));
    let db = open(dir.path(), &now);
    let before = anon_bytes();
    let series = 1_000_000;
    let labels = |i: usize| labels_of(i % 850, i / 850);
    for round in 0..4 {
        let (mut cpu, started_wall) = (0.0, Instant::now());
        for request in 0..series / 1700 {
            let sets: Vec<Labels> = (request * 1700..(request + 1) * 1700).map(labels).collect();
            let started = cpu_s();
            let mut appender = db.appender(SourceId(0), SyncClass::RemoteWrite);
            for (i, set) in sets.iter().enumerate() {
                let id = appender.series(set).expect("series");
                let instance = (request * 2 + i / 850) as i64;
                let at = T0 + round * 15_000 + instance * 7919 % 9900;
                appender.append(id, at, 0, (i + round as usize * (i % 3)) as f64).expect("sample");
            }
            appender.commit().expect("commit");
            cpu += cpu_s() - started;
        }
        let samples = (series / 1700 * 1700) as f64;
        println!(
            "  round {round}: CPU us per sample {:.3}, wall {:.2} s",
            cpu / samples * 1e6,
            started_wall.elapsed().as_secs_f64()
        );
    }
    let stats = db.stats();
    println!(
        "  rows, series, index    {} {} {} B",
        stats.rows_bytes, stats.series_bytes, stats.index_bytes
    );
    println!("  anon bytes per series  {:.0}", (anon_bytes() - before) as f64 / series as f64);
    println!("  axes                   {}", stats.axes);
    println!("  disk bytes per series  {:.0}", disk_bytes(dir.path()) as f64 / series as f64);
    let started = Instant::now();
    let querier = db.querier(T0, T0 + 100_000).expect("querier");
    let found = querier.select(&[Matcher::equal("job", "node")], false).expect("select").len();
    println!("  first select           {found} in {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    drop(querier);
    std::mem::forget(db);
    restart(dir.path(), &now);
}

fn query(db: &Db, end: i64) {
    for (what, range) in [("1 h", 3_600_000), ("24 h", 86_400_000)] {
        for round in ["cold", "warm"] {
            let started = Instant::now();
            let querier = db.querier(end - range, end).expect("querier");
            let found =
                querier.select(&[Matcher::equal("__name__", "metric_3")], true).expect("select");
            let (mut column, mut samples) = (Column::new(), 0);
            for &id in &found {
                querier.read(id, end - range, end, &mut column).expect("read");
                samples += column.len();
            }
            println!(
                "  read {what} {round}         {} series, {samples} samples, {:.0} us",
                found.len(),
                started.elapsed().as_secs_f64() * 1e6
            );
        }
    }
}

fn restart(path: &Path, now: &Arc<AtomicI64>) {
    let copy = tempfile::tempdir().expect("temporary directory");
    copy_dir(path, copy.path());
    let started = Instant::now();
    let db = open(copy.path(), now);
    println!(
        "  ready after a crash    {:.3} s, {:?}",
        started.elapsed().as_secs_f64(),
        db.stats().replay
    );
}

fn open(path: &Path, now: &Arc<AtomicI64>) -> Db {
    let mut options = DbOptions::new(path);
    let now = Arc::clone(now);
    options.clock = Arc::new(move || now.load(Ordering::Relaxed));
    options.background = false;
    let engine = std::env::var("NARTHEX_ENGINE").ok();
    options.engine = engine.map(|name| Engine::named(&name).expect("an engine of this build"));
    Db::open(options).expect("open")
}

fn labels_of(line: usize, instance: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("metric_{}", line / 9)),
        ("device", format!("device_{}", line % 9)),
        ("instance", format!("host-{instance:06}:9100")),
        ("job", "node".to_owned()),
        ("mode", format!("mode_{}", line % 3)),
    ])
}

struct Target {
    ids: Vec<SeriesRef>,
    values: Vec<f64>,
    seed: u64,
}

impl Target {
    fn new(db: &Db, target: usize) -> Self {
        let mut appender = db.appender(SourceId(target as u64), SyncClass::Scrape);
        let ids =
            (0..PAGE).map(|i| appender.series(&labels_of(i, target)).expect("series")).collect();
        let values = (0..PAGE).map(|i| (i * 977 % 10_000) as f64).collect();
        Self { ids, values, seed: target as u64 + 1 }
    }

    fn next(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below
    }

    /// Half of the lines never change; the others are counters of events, of
    /// centiseconds, of bytes, and gauges, some of which change rarely.
    fn step(&mut self, row: usize) {
        for i in 0..PAGE {
            let change = match i % 20 {
                0..11 => continue,
                11 | 12 if !(row + i).is_multiple_of(7) => continue,
                11 | 12 => self.next(3) as f64,
                13 | 14 => self.next(40) as f64,
                15 => {
                    let cents = (self.values[i] * 100.0).round() + self.next(120) as f64;
                    self.values[i] = cents / 100.0;
                    continue;
                }
                16 => self.next(200_000) as f64,
                17 => self.next(5000) as f64 * 4096.0 - 10_000_000.0,
                18 => self.next(9) as f64 - 4.0,
                _ => self.next(30) as f64,
            };
            self.values[i] += change;
        }
    }
}

fn proc_field(file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(key)).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn anon_bytes() -> i64 {
    proc_field("/proc/self/status", "RssAnon:") as i64 * 1024
}

/// Seconds this thread was on a CPU.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|v| v.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut total = 0;
    for entry in std::fs::read_dir(path).expect("list").flatten() {
        let meta = entry.metadata().expect("metadata");
        total += if meta.is_dir() { disk_bytes(&entry.path()) } else { meta.blocks() * 512 };
    }
    total
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("mkdir");
    for entry in std::fs::read_dir(from).expect("list").flatten() {
        let target = to.join(entry.file_name());
        if entry.metadata().expect("metadata").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}
