//! What do series cost that are gone? 100,000 series at 15 s, 5 % of them replaced
//! per minute, as of pods that come and go, for two simulated hours.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use narthex_storage::append::{Appendable as _, SourceId, SyncClass};
use narthex_storage::db::Db;
use narthex_storage::labels::{Labels, Matcher};
use narthex_storage::read::{Queryable as _, SeriesRef};

use super::{T0, anon_bytes, cpu_s, disk_bytes, open, restart};

const TARGETS: usize = 100;
const WIDTH: usize = 1000;
const ROWS: usize = 480;
/// Of each target, per minute.
const REPLACED: usize = WIDTH / 20;

pub(crate) fn run() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let now = Arc::new(AtomicI64::new(T0));
    let db = open(dir.path(), &now);
    let before = anon_bytes();
    let mut targets: Vec<Vec<SeriesRef>> =
        (0..TARGETS).map(|t| (0..WIDTH).map(|i| series(&db, t, i)).collect()).collect();
    let (mut next, mut cpu, mut samples) = (WIDTH, 0.0, 0);
    let (mut values, mut refused) = (Vec::new(), Vec::new());
    for row in 0..ROWS {
        let started = cpu_s();
        for (t, ids) in targets.iter_mut().enumerate() {
            let at_ms = T0 + row as i64 * 15_000 + t as i64 * 149;
            now.store(at_ms, Ordering::Relaxed);
            let mut gone = Vec::new();
            if row % 4 == 3 {
                for i in 0..REPLACED {
                    let slot = (row * 37 + i * 19) % WIDTH;
                    let new = series(&db, t, next + i);
                    gone.push(std::mem::replace(&mut ids[slot], new));
                }
            }
            values.clear();
            values.extend((0..WIDTH).map(|i| (i * 10 + row * (i % 3)) as f64));
            values.resize(WIDTH + gone.len(), narthex_storage::sample::stale_nan());
            let mut row_ids = ids.clone();
            row_ids.extend(gone);
            let mut appender = db.appender(SourceId(t as u64), SyncClass::Scrape);
            appender.append_row(at_ms, &row_ids, &values, &mut refused);
            samples += appender.commit().expect("commit").samples;
        }
        if row % 4 == 3 {
            next += REPLACED;
        }
        for second in 0..15 {
            db.run_maintenance(T0 + row as i64 * 15_000 + second * 1000).expect("maintenance");
        }
        cpu += cpu_s() - started;
        if row % 40 == 39 {
            print(&db, row / 4 + 1, anon_bytes() - before, disk_bytes(dir.path()));
        }
    }
    assert!(refused.is_empty());
    println!("  CPU us per sample      {:.3}", cpu / samples as f64 * 1e6);
    std::mem::forget(db);
    restart(dir.path(), &now);
}

fn series(db: &Db, target: usize, i: usize) -> SeriesRef {
    let labels = Labels::from_pairs([
        ("__name__", format!("container_metric_{}", i % 50)),
        ("container", format!("container-{}", i % 7)),
        ("instance", format!("node-{target:03}:10250")),
        ("namespace", format!("namespace-{}", i % 20)),
        ("pod", format!("deployment-{}-{:08x}-{:05x}", i % 20, i / 50 * 2_654_435, i / 50)),
    ]);
    let mut appender = db.appender(SourceId(target as u64), SyncClass::Scrape);
    appender.series(&labels).expect("series")
}

fn print(db: &Db, minutes: usize, anon_bytes: i64, disk_bytes: u64) {
    let querier = db.querier(T0, i64::MAX).expect("querier");
    let pods = [Matcher::equal("__name__", "container_metric_3")];
    let started = std::time::Instant::now();
    let found = querier.select(&pods, false).expect("select").len();
    let micros = started.elapsed().as_micros();
    let s = db.stats();
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "  {minutes:3} min: {:7} series, {:6} in memory, {} segments; anon {:5.1} MB; rows {:5.1}, series {:4.1}, \
         index {:4.1}, catalog {:4.1}, cache {:4.1}; series on disk {:5.1}, disk {:6.1} MB; {found} of a name in {micros} us",
        s.series,
        s.series_in_memory,
        s.series_segments,
        anon_bytes as f64 / 1e6,
        mb(s.rows_bytes),
        mb(s.series_bytes),
        mb(s.index_bytes),
        mb(s.catalog_bytes),
        mb(s.cache_bytes),
        mb(s.series_file_bytes),
        mb(disk_bytes),
    );
}
