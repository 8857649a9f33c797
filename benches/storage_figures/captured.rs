//! What do captured pages take on disk after a day, and what was written for it?
//!
//! `NARTHEX_PAGES=FILE` names them. A file holds, little-endian: `u32`
//! instances; per instance `u32` series, `u32` rows, `i64` milliseconds of its
//! first row after the start; per series `u32` length and its labels, each a name
//! and a value, ended by a zero byte; then the rows as `f64`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use narthex_storage::append::{Appendable as _, SourceId, SyncClass};
use narthex_storage::db::Db;
use narthex_storage::labels::{Labels, Matcher};
use narthex_storage::read::{Column, Queryable as _, SeriesRef};

use super::{T0, cpu_s, disk_bytes, open, restart};

const INTERVAL_MS: i64 = 15_000;
const DAY_MS: i64 = 86_400_000;
/// Pages begin in the middle of a day.
const START_MS: i64 = T0 / DAY_MS * DAY_MS + DAY_MS * 6 / 10;

struct Instance {
    labels: Vec<Labels>,
    rows: usize,
    offset_ms: i64,
    values: Vec<f64>,
}

/// As it happens, then as fast as it can be sent.
pub(crate) fn run() {
    let Ok(file) = std::env::var("NARTHEX_PAGES") else {
        println!("  NARTHEX_PAGES names no file");
        return;
    };
    let instances = load(&std::fs::read(&file).expect("NARTHEX_PAGES names a file"));
    for (name, wall_ms) in [("in real time", DAY_MS), ("in a minute", 60_000)] {
        println!("  {name}:");
        figures(&instances, wall_ms);
    }
}

fn load(bytes: &[u8]) -> Vec<Instance> {
    let mut input = bytes;
    let mut take = |len: usize| {
        let (taken, rest) = input.split_at(len);
        input = rest;
        taken
    };
    let word = |b: &[u8]| u32::from_le_bytes(b.try_into().expect("4 bytes")) as usize;
    let count = word(take(4));
    (0..count)
        .map(|_| {
            let (series, rows) = (word(take(4)), word(take(4)));
            let offset_ms = i64::from_le_bytes(take(8).try_into().expect("8 bytes"));
            let labels = (0..series).map(|_| {
                let len = word(take(4));
                let text = String::from_utf8(take(len).to_vec()).expect("labels are UTF-8");
                let parts: Vec<&str> = text.split_terminator('\0').collect();
                Labels::from_pairs(parts.chunks_exact(2).map(|p| (p[0], p[1])))
            });
            let labels = labels.collect();
            let values = take(series * rows * 8).chunks_exact(8);
            let values = values.map(|v| f64::from_le_bytes(v.try_into().expect("8 bytes")));
            Instance { labels, rows, offset_ms, values: values.collect() }
        })
        .collect()
}

fn figures(instances: &[Instance], wall_ms: i64) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let rows = instances.iter().map(|i| i.rows).max().unwrap_or(0);
    let end_ms = START_MS + rows as i64 * INTERVAL_MS;
    let now = Arc::new(AtomicI64::new(end_ms - wall_ms));
    let db = open(dir.path(), &now);
    let ids: Vec<Vec<SeriesRef>> = instances
        .iter()
        .map(|i| {
            let mut appender = db.appender(SourceId(0), SyncClass::RemoteWrite);
            i.labels.iter().map(|l| appender.series(l).expect("series")).collect()
        })
        .collect();
    let (mut samples, mut refused) = (0u64, Vec::new());
    let started = cpu_s();
    for row in 0..rows {
        now.store(end_ms - wall_ms + wall_ms * row as i64 / rows as i64, Ordering::Relaxed);
        for (i, (instance, ids)) in instances.iter().zip(&ids).enumerate() {
            let width = instance.labels.len();
            let at_ms = START_MS + instance.offset_ms + row as i64 * INTERVAL_MS;
            let mut appender = db.appender(SourceId(i as u64), SyncClass::RemoteWrite);
            let values = &instance.values[row * width..(row + 1) * width];
            appender.append_row(at_ms, ids, values, &mut refused);
            samples += appender.commit().expect("commit").samples;
        }
        db.run_maintenance(now.load(Ordering::Relaxed)).expect("maintenance");
    }
    assert!(refused.is_empty());
    print(&db, dir.path(), "at the end", samples);
    for seconds in 0..60 {
        now.store(end_ms + seconds * 1000, Ordering::Relaxed);
        db.run_maintenance(end_ms + seconds * 1000).expect("maintenance");
    }
    print(&db, dir.path(), "a minute later", samples);
    println!("      CPU us per sample {:.3}", (cpu_s() - started) / samples as f64 * 1e6);
    read(&db);
    let merge_ms = end_ms + DAY_MS;
    now.store(merge_ms, Ordering::Relaxed);
    for round in 0..6 {
        db.run_maintenance(merge_ms + round * 10_000).expect("maintenance");
    }
    print(&db, dir.path(), "a day later", samples);
    read(&db);
    drop(db);
    restart(dir.path(), &now);
}

fn print(db: &Db, path: &Path, when: &str, samples: u64) {
    let stats = db.stats();
    let per = |bytes: u64| bytes as f64 / samples as f64;
    let parts: Vec<String> = ["wal", "series", "days", "state"]
        .iter()
        .filter(|p| path.join(p).is_dir())
        .map(|p| format!("{p} {:.3}", per(disk_bytes(&path.join(p)))))
        .collect();
    println!(
        "    {when:15} {:.3} B/sample on disk: {}; days {:.3} per sample in them, headers {:.3}; written {:.3}",
        per(disk_bytes(path)),
        parts.join(", "),
        stats.days_bytes as f64 / stats.days_samples.max(1) as f64,
        stats.days_header_bytes as f64 / stats.days_samples.max(1) as f64,
        per(stats.wal_written_bytes + stats.days_written_bytes + stats.series_file_bytes),
    );
}

/// Reads all there is of a thousand series.
fn read(db: &Db) {
    let querier = db.querier(START_MS, i64::MAX).expect("querier");
    let mut found = querier.select(&[Matcher::equal("job", "node")], true).expect("select");
    found.truncate(1000);
    let mut column = Column::new();
    for round in ["cold", "warm"] {
        let (started, mut samples) = (cpu_s(), 0);
        for &id in &found {
            querier.read(id, START_MS, i64::MAX, &mut column).expect("read");
            samples += column.len();
        }
        let micros = (cpu_s() - started) * 1e6 / found.len() as f64;
        println!(
            "      read {round}: CPU {micros:.1} us a series of {} samples",
            samples / found.len()
        );
    }
}
