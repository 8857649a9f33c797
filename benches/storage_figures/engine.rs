//! What does an engine cost? A day of six targets at 15 s, as it happens, is
//! sealed, read, merged, read again, and deleted.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use narthex_storage::append::{Appendable as _, SourceId, SyncClass};
use narthex_storage::db::{Db, day_of_ms};
use narthex_storage::labels::Matcher;
use narthex_storage::read::{Column, Queryable as _};

use super::{T0, Target, cpu_s, disk_bytes, open, proc_field};

const TARGETS: usize = 6;
const INTERVAL_MS: i64 = 15_000;
const DAY_MS: i64 = 86_400_000;
const ROWS: i64 = DAY_MS / INTERVAL_MS;
const START_MS: i64 = T0 / DAY_MS * DAY_MS;
const END_MS: i64 = START_MS + DAY_MS;

pub(crate) fn run() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = Arc::new(AtomicI64::new(START_MS));
    let db = open(dir.path(), &now);
    let mut fleet: Vec<Target> = (0..TARGETS).map(|t| Target::new(&db, t)).collect();
    let mut lap = Lap::new();
    let (mut samples, mut refused) = (0, Vec::new());
    for row in 0..ROWS {
        for (t, target) in fleet.iter_mut().enumerate() {
            target.step(row as usize);
            let at = START_MS + row * INTERVAL_MS + t as i64 * INTERVAL_MS / TARGETS as i64;
            now.store(at, Ordering::Relaxed);
            let mut appender = db.appender(SourceId(t as u64), SyncClass::Scrape);
            appender.append_row(at, &target.ids, &target.values, &mut refused);
            samples += appender.commit().expect("commit").samples;
        }
        let at = now.load(Ordering::Relaxed);
        // As often as it looks for what is due, and makes the log short.
        db.run_maintenance(at).expect("maintenance");
    }
    assert!(refused.is_empty());
    lap.print("a day", dir.path(), samples);
    db.seal_all().expect("seal");
    lap.print("sealed", dir.path(), samples);
    let db = again(db, dir.path(), &now);
    read(&db);
    lap.skip();
    db.merge_day(day_of_ms(START_MS)).expect("merge");
    // What readers held may go now.
    now.store(END_MS, Ordering::Relaxed);
    db.run_maintenance(END_MS).expect("maintenance");
    lap.print("merged", dir.path(), samples);
    let db = again(db, dir.path(), &now);
    read(&db);
    let started = Instant::now();
    let late_ms = END_MS + 20 * DAY_MS;
    now.store(late_ms, Ordering::Relaxed);
    let mut appender = db.appender(SourceId(0), SyncClass::Scrape);
    appender.append_row(late_ms, &fleet[0].ids, &fleet[0].values, &mut refused);
    appender.commit().expect("commit");
    db.run_maintenance(late_ms).expect("maintenance");
    println!("    deleted    {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    assert!(db.stats().time_retentions > 0);
    assert_eq!(db.damages(), []);
}

/// What the process used since the last line.
struct Lap {
    cpu_s: f64,
    written: u64,
}

impl Lap {
    fn new() -> Self {
        Self { cpu_s: process_cpu_s(), written: proc_field("/proc/self/io", "write_bytes:") }
    }

    fn skip(&mut self) {
        *self = Self::new();
    }

    fn print(&mut self, what: &str, path: &Path, samples: u64) {
        let now = Self::new();
        println!(
            "    {what:10} CPU {:.4} us, written {:.3} B, on disk {:.3} B a sample; {} samples",
            (now.cpu_s - self.cpu_s) / samples as f64 * 1e6,
            (now.written - self.written) as f64 / samples as f64,
            disk_bytes(path) as f64 / samples as f64,
            samples
        );
        *self = now;
    }
}

/// The same once more, with nothing kept in memory.
fn again(db: Db, path: &Path, now: &Arc<AtomicI64>) -> Db {
    drop(db);
    let started = Instant::now();
    let db = open(path, now);
    println!("    ready      {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    db
}

/// Reads a day of series one by one, in no order: more than the caches hold.
fn read(db: &Db) {
    let querier = db.querier(START_MS, END_MS).expect("querier");
    let mut found = querier.select(&[Matcher::equal("job", "node")], true).expect("select");
    found.sort_by_key(|id| id.0.wrapping_mul(2_654_435_761));
    found.truncate(1000);
    let (mut column, mut samples, started) = (Column::new(), 0, cpu_s());
    for &id in &found {
        let querier = db.querier(START_MS, END_MS).expect("querier");
        querier.read(id, START_MS, END_MS, &mut column).expect("read");
        samples += column.len();
    }
    let micros = (cpu_s() - started) * 1e6 / found.len() as f64;
    println!("    read       CPU {micros:.1} us a series of {} samples", samples / found.len());
}

/// Seconds that all threads were on a CPU.
fn process_cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}
