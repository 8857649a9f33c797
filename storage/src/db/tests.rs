mod repeats;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;

use super::*;
use crate::append::AppendError;
use crate::histogram::{CounterResetHint, Histogram, Span};
use crate::labels::{Labels, MatchOp, Matcher};
use crate::read::{Column, SeriesRef};
use crate::sample::{Exemplar, Metadata, MetricKind, stale_nan};

/// A start that is not near midnight.
pub(super) const T0: i64 = 1_700_000_000_000;

pub(super) struct Fixture {
    pub(super) dir: tempfile::TempDir,
    pub(super) now_ms: Arc<AtomicI64>,
    pub(super) change: fn(&mut DbOptions),
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: fn(&mut DbOptions)) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        Self { dir, now_ms: Arc::new(AtomicI64::new(T0)), change }
    }

    pub(super) fn open(&self) -> Db {
        Db::open(self.options()).expect("open")
    }

    pub(super) fn options(&self) -> DbOptions {
        let mut options = DbOptions::new(self.dir.path());
        let now_ms = Arc::clone(&self.now_ms);
        options.clock = Arc::new(move || now_ms.load(Ordering::SeqCst));
        options.background = false;
        options.engine = Some(ENGINE);
        (self.change)(&mut options);
        options
    }

    pub(super) fn at(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }
}

/// Ends a storage as kill -9 does: nothing is synced, closed or sealed.
pub(super) fn kill(db: Db) {
    #[cfg(feature = "rocksdb")]
    if ENGINE == Engine::RocksDb {
        return kill_by_copy(db);
    }
    drop(db.inner.write.lock().map(|mut w| w.sync_due_ms = None));
    // The lock file must go with the process.
    let inner = Arc::clone(&db.inner);
    std::mem::forget(db);
    drop(lock(&inner._lock).take());
}

/// The same for what writes when it is dropped: all files are put back.
#[cfg(feature = "rocksdb")]
fn kill_by_copy(db: Db) {
    let root = db.inner.options.path.clone();
    let copy = tempfile::tempdir().expect("temporary directory");
    copy_all(&root, copy.path());
    drop(db);
    std::fs::remove_dir_all(&root).expect("remove");
    copy_all(copy.path(), &root);
}

#[cfg(feature = "rocksdb")]
fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("mkdir");
    for entry in std::fs::read_dir(from).expect("list") {
        let entry = entry.expect("entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copy");
        }
    }
}

/// The column families of days.
#[cfg(feature = "rocksdb")]
pub(super) fn families(root: &std::path::Path) -> Vec<String> {
    let path = root.join("rocksdb");
    let names = rocksdb::DB::list_cf(&rocksdb::Options::default(), path).expect("list");
    names.into_iter().filter(|name| name != "default").collect()
}

/// Days that take space on disk.
fn days_on_disk(root: &std::path::Path) -> usize {
    #[cfg(feature = "rocksdb")]
    if ENGINE == Engine::RocksDb {
        return families(root).len();
    }
    std::fs::read_dir(root.join("days")).expect("list").count()
}

pub(super) fn set(name: &str, i: usize) -> Labels {
    Labels::from_pairs([("__name__", name.to_owned()), ("i", i.to_string())])
}

pub(super) fn append(db: &Db, source: u64, t: i64, samples: &[(Labels, f64)]) -> Committed {
    let mut appender = db.appender(SourceId(source), SyncClass::Scrape);
    let ids: Vec<SeriesRef> =
        samples.iter().map(|(l, _)| appender.series(l).expect("series")).collect();
    let values: Vec<f64> = samples.iter().map(|(_, v)| *v).collect();
    let mut refused = Vec::new();
    appender.append_row(t, &ids, &values, &mut refused);
    assert_eq!(refused, []);
    appender.commit().expect("commit")
}

use crate::append::Committed;

pub(super) type Answer = BTreeMap<String, Vec<(i64, u64)>>;

/// All floats of the matching series.
fn answer(db: &Db, start_ms: i64, end_ms: i64, matchers: &[Matcher]) -> Answer {
    let querier = db.querier(start_ms, end_ms).expect("querier");
    let mut found = Answer::new();
    let mut column = Column::new();
    for series in querier.select(matchers, true).expect("select") {
        querier.read(series, start_ms, end_ms, &mut column).expect("read");
        let samples: Vec<(i64, u64)> = column
            .timestamps()
            .iter()
            .zip(&column.floats)
            .map(|(t, v)| (*t, v.to_bits()))
            .collect();
        assert_eq!(column.floats.len(), column.len());
        if !samples.is_empty() {
            found.insert(querier.labels(series).expect("labels").to_string(), samples);
        }
    }
    found
}

pub(super) fn all(db: &Db) -> Answer {
    answer(db, i64::MIN / 2, i64::MAX / 2, &[])
}

/// Scrapes of two targets with some gaps, markers and churn.
pub(super) fn scrape(db: &Db, expected: &mut Answer, from: usize, to: usize) {
    for step in from..to {
        for target in 0..2u64 {
            let t = T0 + step as i64 * 15_000 + target as i64 * 700;
            let mut samples = Vec::new();
            for i in 0..40usize {
                if (step / 7 + i) % 11 == 0 {
                    continue;
                }
                let value = match i % 4 {
                    0 => 1.0,
                    1 => (step * i) as f64,
                    2 => (step * 7 % 13) as f64 / 10.0,
                    _ if step % 9 == 0 => stale_nan(),
                    _ => (step as f64).sqrt(),
                };
                samples.push((set(&format!("m{target}"), i + step / 50), value));
            }
            for (labels, value) in &samples {
                expected.entry(labels.to_string()).or_default().push((t, value.to_bits()));
            }
            let committed = append(db, target, t, &samples);
            assert_eq!(committed, Committed { samples: samples.len() as u64, refused: 0 });
        }
    }
}

#[test]
fn what_was_committed_is_read_from_head_stripes_and_after_restarts() {
    let fixture = Fixture::new();
    let mut expected = Answer::new();
    let mut db = fixture.open();
    for round in 0..6 {
        fixture.at(T0 + (round + 1) * 100 * 15_000);
        scrape(&db, &mut expected, round as usize * 100, (round as usize + 1) * 100);
        assert_eq!(all(&db), expected, "round {round}");
        match round {
            0 => db.run_maintenance(T0).expect("maintenance"),
            1 => {
                db.close().expect("close");
                drop(db);
                db = fixture.open();
            }
            2 => {
                kill(db);
                db = fixture.open();
            }
            3 => db.seal_all().expect("seal"),
            _ => db.run_maintenance(fixture.now_ms.load(Ordering::SeqCst)).expect("maintenance"),
        }
        assert_eq!(all(&db), expected, "round {round}, after");
    }
    let stats = db.stats();
    assert_eq!(stats.quarantined, 0);
    assert!(stats.stripes_sealed > 0 && stats.days_samples > 0, "{stats:?}");
    let (from, to) = (T0 + 1_000_000, T0 + 3_000_000);
    let clipped: Answer = expected
        .iter()
        .map(|(l, s)| {
            (l.clone(), s.iter().copied().filter(|(t, _)| (from..=to).contains(t)).collect())
        })
        .filter(|(_, s): &(String, Vec<_>)| !s.is_empty())
        .collect();
    assert_eq!(answer(&db, from, to, &[]), clipped);
}

#[test]
fn the_log_is_cut_when_its_rows_are_in_days() {
    let fixture = Fixture::new();
    let db = fixture.open();
    let mut expected = Answer::new();
    scrape(&db, &mut expected, 0, 150);
    db.seal_all().expect("seal");
    assert!(db.stats().wal_bytes < 100, "{}", db.stats().wal_bytes);
    kill(db);
    let db = fixture.open();
    assert_eq!(db.stats().replay.samples, 0);
    assert_eq!(all(&db), expected);
}

#[test]
fn series_of_one_scrape_share_their_axis() {
    let fixture = Fixture::new();
    let db = fixture.open();
    for step in 0..200 {
        let samples: Vec<(Labels, f64)> = (0..30).map(|i| (set("m", i), step as f64)).collect();
        append(&db, 1, T0 + step * 1000, &samples);
    }
    db.run_maintenance(T0).expect("maintenance");
    let querier = db.querier(T0, T0 + 200_000).expect("querier");
    let ids = querier.select(&[Matcher::equal("__name__", "m")], false).expect("select");
    assert_eq!(ids.len(), 30);
    let (mut first, mut other) = (Column::new(), Column::new());
    querier.read(ids[0], T0 + 5000, T0 + 190_000, &mut first).expect("read");
    assert_eq!(first.len(), 186);
    assert!(first.integral && !first.may_be_stale);
    for id in ids {
        querier.read(id, T0 + 5000, T0 + 190_000, &mut other).expect("read");
        assert!(Arc::ptr_eq(&first.axis, &other.axis));
    }
}

#[test]
fn repeated_and_late_samples_are_told_apart() {
    let fixture = Fixture::new();
    let db = fixture.open();
    append(&db, 1, T0, &[(set("a", 0), 1.0), (set("a", 1), 2.0)]);
    append(&db, 1, T0 + 10, &[(set("a", 0), 1.5)]);
    let mut appender = db.appender(SourceId(1), SyncClass::RemoteWrite);
    let (a, b) =
        (appender.series(&set("a", 0)).expect("a"), appender.series(&set("a", 1)).expect("b"));
    assert_eq!(appender.append(a, T0 + 10, 0, 1.5), Ok(()));
    assert_eq!(appender.append(a, T0 + 10, 0, 1.6), Err(AppendError::Duplicate));
    assert_eq!(appender.append(a, T0 + 5, 0, 1.6), Err(AppendError::OutOfOrder));
    assert_eq!(appender.append(b, T0 + 5, 0, 7.0), Ok(()));
    assert_eq!(appender.append(SeriesRef(99), T0, 0, 7.0), Err(AppendError::UnknownSeries));
    assert_eq!(
        appender.append(b, T0 + 3 * crate::day::DAY_MS, 0, 7.0),
        Err(AppendError::TooFarInFuture)
    );
    assert_eq!(
        appender.append(b, T0 - 16 * crate::day::DAY_MS, 0, 7.0),
        Err(AppendError::OutOfBounds)
    );
    assert_eq!(appender.commit().expect("commit"), Committed { samples: 2, refused: 0 });
    let found = all(&db);
    assert_eq!(
        found[r#"{__name__="a", i="0"}"#],
        [(T0, 1f64.to_bits()), (T0 + 10, 1.5f64.to_bits())]
    );
    assert_eq!(found[r#"{__name__="a", i="1"}"#], [(T0, 2f64.to_bits()), (T0 + 5, 7f64.to_bits())]);
    let stats = db.stats();
    assert_eq!(
        (stats.duplicate_samples, stats.out_of_order_samples, stats.out_of_bounds_samples),
        (1, 1, 2)
    );
}

#[test]
fn samples_within_the_window_are_taken_late() {
    let fixture = Fixture::with(|o| o.out_of_order_window_ms = 600_000);
    let mut db = fixture.open();
    let mut expected: BTreeMap<i64, u64> = BTreeMap::new();
    for t in [0, 100, 50, 70, 60, 200, 10, 150, 61, 190, 300] {
        append(&db, 1, T0 + t * 1000, &[(set("a", 0), t as f64)]);
        expected.insert(T0 + t * 1000, (t as f64).to_bits());
        let found = all(&db);
        let wanted: Vec<(i64, u64)> = expected.iter().map(|(t, v)| (*t, *v)).collect();
        assert_eq!(found.values().next(), Some(&wanted));
        if t == 200 {
            kill(db);
            db = fixture.open();
        }
    }
    assert!(db.stats().late_samples > 0);
    let mut appender = db.appender(SourceId(1), SyncClass::Scrape);
    let id = appender.series(&set("a", 0)).expect("series");
    assert_eq!(appender.append(id, T0 - 301_000, 0, 1.0), Err(AppendError::TooOld));
    drop(appender);
    db.seal_all().expect("seal");
    let wanted: Vec<(i64, u64)> = expected.iter().map(|(t, v)| (*t, *v)).collect();
    assert_eq!(all(&db).values().next(), Some(&wanted));
}

#[test]
fn histograms_starts_exemplars_and_metadata_survive() {
    let fixture = Fixture::new();
    let mut db = fixture.open();
    let histogram = |n: f64| Histogram {
        schema: 3,
        count: n + 1.0,
        sum: n * 1.5,
        positive_spans: vec![Span { offset: -2, length: 2 }],
        positive_buckets: vec![n, 1.0],
        ..Histogram::default()
    };
    let exemplar = |t: i64| Exemplar {
        labels: Labels::from_pairs([("trace_id", t.to_string())]),
        value: 0.5,
        timestamp_ms: T0 + t,
    };
    let help =
        Metadata { kind: MetricKind::Histogram, help: "Durations.".into(), unit: "seconds".into() };
    for step in 0..300i64 {
        let mut appender = db.appender(SourceId(1), SyncClass::RemoteWrite);
        let h = appender.series(&set("h", 0)).expect("series");
        let f = appender.series(&set("f", 0)).expect("series");
        let t = T0 + step * 1000;
        appender.append(f, t, T0 - 5, step as f64).expect("float");
        if step % 50 == 49 {
            appender.append(h, t, 0, stale_nan()).expect("marker");
        } else {
            appender.append_histogram(h, t, T0 - 7, &histogram(step as f64)).expect("histogram");
        }
        appender.append_exemplar(h, &exemplar(step)).expect("exemplar");
        appender.set_metadata("h", &help);
        appender.commit().expect("commit");
    }
    for round in 0..3 {
        let querier = db.querier(T0 + 10_000, T0 + 299_000).expect("querier");
        let mut column = Column::new();
        let h = querier.select(&[Matcher::equal("__name__", "h")], false).expect("select")[0];
        querier.read(h, T0 + 10_000, T0 + 298_000, &mut column).expect("read");
        assert_eq!((column.len(), column.floats.len()), (289, 289));
        assert!(column.may_be_stale);
        let mut histograms = column.histograms.iter().peekable();
        for (i, t) in column.timestamps().iter().enumerate() {
            let step = (t - T0) / 1000;
            if step % 50 == 49 {
                assert!(crate::sample::is_stale(column.floats[i]), "round {round}");
                assert_eq!(column.starts_ms[i], 0);
            } else {
                let (at, found) = histograms.next().expect("a histogram");
                // A marker is a float here; behind it nothing is known.
                let counter_reset_hint = match step % 50 {
                    0 => CounterResetHint::Unknown,
                    _ => CounterResetHint::NotReset,
                };
                let expected = Histogram { counter_reset_hint, ..histogram(step as f64) };
                assert_eq!((*at as usize, &**found), (i, &expected), "round {round}");
                assert_eq!(column.starts_ms[i], T0 - 7);
            }
        }
        assert_eq!(querier.metadata(), [("h".to_owned(), vec![help.clone()])]);
        if round < 2 {
            let found = querier
                .exemplars(&[vec![Matcher::equal("__name__", "h")]], T0 + 3, T0 + 5)
                .expect("exemplars");
            assert_eq!(found, [(set("h", 0), vec![exemplar(3), exemplar(4), exemplar(5)])]);
        }
        drop(querier);
        if round == 0 {
            db.close().expect("close");
            drop(db);
            db = fixture.open();
        } else {
            db.seal_all().expect("seal");
        }
    }
}

#[test]
fn matchers_names_and_values() {
    let fixture = Fixture::new();
    let db = fixture.open();
    let one = |n: &str, job: &str| Labels::from_pairs([("__name__", n), ("job", job)]);
    append(&db, 1, T0, &[(one("up", "a"), 1.0), (one("up", "b"), 1.0), (one("x", ""), 2.0)]);
    db.seal_all().expect("seal");
    append(&db, 1, T0 + crate::day::DAY_MS / 2, &[(one("up", "c"), 1.0)]);
    let querier = db.querier(T0 - 10, T0 + 10).expect("querier");
    let regex = Matcher::new(MatchOp::Regex, "job", "a|c|").expect("valid");
    let found = querier.select(std::slice::from_ref(&regex), true).expect("select");
    let labels: Vec<Labels> = found.iter().map(|s| querier.labels(*s).expect("labels")).collect();
    assert_eq!(labels, [one("up", "a"), one("x", "")]);
    assert_eq!(querier.label_values("job", &[], 0).expect("values"), ["a", "b"]);
    assert_eq!(querier.label_values("job", &[], 1).expect("values"), ["a"]);
    assert_eq!(
        querier.label_names(&[Matcher::equal("__name__", "x")], 0).expect("names"),
        ["__name__"]
    );
    let cardinality = db.cardinality(10);
    assert_eq!(cardinality.series_by_metric, [("up".to_owned(), 1)]);
}

#[test]
fn a_snapshot_does_not_see_later_commits() {
    let fixture = Fixture::new();
    let db = fixture.open();
    append(&db, 1, T0, &[(set("a", 0), 1.0)]);
    let querier = db.querier(T0 - 1000, T0 + 1000).expect("querier");
    append(&db, 1, T0 + 1, &[(set("a", 0), 2.0), (set("a", 1), 2.0)]);
    let later = db.querier(T0 - 1000, T0 + 1000).expect("querier");
    let mut column = Column::new();
    later.read(SeriesRef(0), T0, T0 + 10, &mut column).expect("read");
    assert_eq!(column.floats, [1.0, 2.0]);
    db.seal_all().expect("seal");
    querier.read(SeriesRef(0), T0, T0 + 10, &mut column).expect("read");
    assert_eq!(column.floats, [1.0]);
    querier.read(SeriesRef(1), T0, T0 + 10, &mut column).expect("read");
    assert!(column.is_empty());
}

#[test]
fn retention_clamps_reads_and_deletes_days() {
    let fixture = Fixture::with(|o| o.retention_time_ms = 2 * crate::day::DAY_MS);
    let db = fixture.open();
    for hour in 0..72 {
        let t = T0 + hour * 3_600_000;
        fixture.at(t);
        append(&db, 1, t, &[(set("a", 0), hour as f64)]);
        db.run_maintenance(t).expect("maintenance");
    }
    let found = all(&db);
    assert_eq!(found.values().map(Vec::len).sum::<usize>(), 49);
    let stats = db.stats();
    assert!(stats.time_retentions >= 1, "{stats:?}");
    let days = days_on_disk(fixture.dir.path());
    assert_eq!(days, stats.days.len());
    assert!(days <= 3);
}

#[test]
fn directories_that_are_not_ours_are_refused_untouched() {
    let fixture = Fixture::new();
    let db = fixture.open();
    assert!(matches!(Db::open(fixture.options()), Err(OpenError::Locked { .. })));
    drop(db);
    for foreign in ["wal/00000000", "chunks_head/000001", "01BKGV7JBM69T2G1BGBGM6KB12/meta.json"] {
        let fixture = Fixture::new();
        let path = fixture.dir.path().join(foreign);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        std::fs::write(&path, b"x").expect("write");
        let before = std::fs::read_dir(fixture.dir.path()).expect("list").count();
        assert!(
            matches!(Db::open(fixture.options()), Err(OpenError::Prometheus { .. })),
            "{foreign}"
        );
        assert_eq!(std::fs::read_dir(fixture.dir.path()).expect("list").count(), before);
    }
    for newer in ["series/00000001.series", "wal/00000001.log", "days/2023-11-14/00000001.stripes"]
    {
        if newer.starts_with("days") && ENGINE != Engine::Files {
            continue;
        }
        let fixture = Fixture::new();
        let db = fixture.open();
        append(&db, 1, T0, &[(set("a", 0), 1.0)]);
        db.close().expect("close");
        drop(db);
        let db = fixture.open();
        db.seal_all().expect("seal");
        append(&db, 1, T0 + 1, &[(set("a", 0), 1.0)]);
        drop(db);
        let path = fixture.dir.path().join(newer);
        let path = if path.exists() {
            path
        } else {
            let directory = path.parent().expect("parent");
            std::fs::read_dir(directory)
                .expect("list")
                .next()
                .expect("a file")
                .expect("entry")
                .path()
        };
        let mut bytes = std::fs::read(&path).expect("read");
        let letters = *bytes.first_chunk().expect("a header");
        bytes[..8].copy_from_slice(&crate::engine::header::of(letters, 9));
        std::fs::write(&path, bytes).expect("write");
        assert!(matches!(Db::open(fixture.options()), Err(OpenError::Newer { .. })), "{newer}");
    }
}

#[test]
fn deleted_samples_are_hidden_then_gone() {
    let fixture = Fixture::new();
    let mut db = fixture.open();
    let mut expected = Answer::new();
    scrape(&db, &mut expected, 0, 250);
    let (from, to) = (T0 + 100_000, T0 + 2_500_000);
    db.delete(&[vec![Matcher::equal("__name__", "m0")]], from, to).expect("delete");
    for (labels, samples) in &mut expected {
        if labels.contains("\"m0\"") {
            samples.retain(|(t, _)| !(from..=to).contains(t));
        }
    }
    expected.retain(|_, s| !s.is_empty());
    assert_eq!(all(&db), expected);
    db.close().expect("close");
    drop(db);
    db = fixture.open();
    assert_eq!(all(&db), expected);
    let before = db.stats();
    db.clean_tombstones().expect("clean");
    assert_eq!(all(&db), expected);
    let after = db.stats();
    let kept: usize = expected.values().map(Vec::len).sum();
    assert_eq!(after.days_samples as usize, kept, "{before:?}");
    kill(db);
    assert_eq!(all(&fixture.open()), expected);
}

#[test]
fn merged_days_give_the_same_answer() {
    let fixture = Fixture::new();
    let db = fixture.open();
    let mut expected = Answer::new();
    scrape(&db, &mut expected, 0, 700);
    fixture.at(T0 + 700 * 15_000);
    db.seal_all().expect("seal");
    let before = db.stats();
    db.merge_day(day_of_ms(T0)).expect("merge");
    assert_eq!(all(&db), expected);
    let after = db.stats();
    assert_eq!(before.days_samples, after.days_samples);
    assert!(after.days_bytes <= before.days_bytes, "{} to {}", before.days_bytes, after.days_bytes);
    // Rows that come later join it, and are merged with it again.
    scrape(&db, &mut expected, 700, 720);
    assert_eq!(all(&db), expected);
    kill(db);
    let db = fixture.open();
    assert_eq!(all(&db), expected);
    fixture.at(T0 + 2 * crate::day::DAY_MS);
    db.seal_all().expect("seal");
    db.run_maintenance(T0 + 2 * crate::day::DAY_MS).expect("maintenance");
    assert_eq!(all(&db), expected);
    assert_eq!(db.stats().quarantined, 0);
}

#[test]
fn a_snapshot_is_a_data_directory() {
    let fixture = Fixture::new();
    let db = fixture.open();
    let mut expected = Answer::new();
    scrape(&db, &mut expected, 0, 150);
    let target = fixture.dir.path().join("snapshots/one");
    db.snapshot(&target).expect("snapshot");
    let mut later = expected.clone();
    scrape(&db, &mut later, 150, 300);
    db.seal_all().expect("seal");
    assert_eq!(all(&db), later);
    assert!(db.snapshot(&target).is_err(), "a target that exists is left alone");
    let mut options = fixture.options();
    options.path = target;
    let copy = Db::open(options).expect("open the snapshot");
    assert!(copy.stats().days_samples > 0, "{:?}", copy.stats());
    assert_eq!(all(&copy), expected);
}

/// What a querier's own way to sorted series with labels gives.
fn series(db: &Db, start_ms: i64, end_ms: i64, matchers: &[Matcher]) -> Vec<(SeriesRef, Labels)> {
    let querier = db.querier(start_ms, end_ms).expect("querier");
    querier.series(matchers).expect("series").series.clone()
}

#[test]
fn kept_selections_grow_with_the_series_and_follow_the_range() {
    let fixture = Fixture::new();
    let db = fixture.open();
    let matchers = [
        vec![Matcher::equal("__name__", "m")],
        vec![Matcher::new(MatchOp::Regex, "i", "1.*").expect("valid")],
        vec![Matcher::new(MatchOp::NotEqual, "i", "3").expect("valid")],
        vec![],
    ];
    for round in 0..6i64 {
        let from = if round == 4 { 200 } else { 0 };
        let samples: Vec<_> = (from..from + 40 * round as usize + 1)
            .map(|i| (set(if i % 3 == 0 { "other" } else { "m" }, i), 1.0))
            .collect();
        // Days apart, so that early ranges do not see later series.
        let t = T0 + round * 86_400_000;
        fixture.at(t);
        append(&db, 0, t, &samples);
        db.seal_all().expect("seal");
        for end_ms in [T0, t - 86_400_000, t] {
            for start_ms in [i64::MIN / 2, end_ms - 1000] {
                for matchers in &matchers {
                    let querier = db.querier(start_ms, end_ms).expect("querier");
                    let plain: Vec<_> = querier
                        .select(matchers, true)
                        .expect("select")
                        .into_iter()
                        .map(|s| (s, querier.labels(s).expect("labels")))
                        .collect();
                    // The second asks what the first may have kept.
                    for _ in 0..2 {
                        assert_eq!(series(&db, start_ms, end_ms, matchers), plain);
                    }
                }
            }
        }
    }
}

#[test]
fn presence_is_that_of_the_values() {
    let fixture = Fixture::new();
    let db = fixture.open();
    let mut expected = Answer::new();
    for part in 0..3 {
        scrape(&db, &mut expected, part * 80, part * 80 + 80);
        if part < 2 {
            db.seal_all().expect("seal");
        }
    }
    let querier = db.querier(i64::MIN / 2, i64::MAX / 2).expect("querier");
    let (mut column, mut presence) = (Column::new(), Column::new());
    for series in querier.select(&[], true).expect("select") {
        for (start_ms, end_ms) in [(i64::MIN / 2, i64::MAX / 2), (T0 + 300_500, T0 + 2_000_000)] {
            querier.read(series, start_ms, end_ms, &mut column).expect("read");
            querier.read_presence(series, start_ms, end_ms, &mut presence).expect("read");
            assert_eq!(column.timestamps(), presence.timestamps());
            let stale = |c: &Column| -> Vec<bool> {
                c.floats.iter().map(|v| crate::sample::is_stale(*v)).collect()
            };
            assert_eq!(stale(&column), stale(&presence));
        }
    }
}

/// Columns are kept decoded from the second time on, and grow with the stripes.
#[test]
fn kept_columns_are_those_that_are_decoded() {
    let fixture = Fixture::new();
    let db = fixture.open();
    let (mut expected, mut buckets) = (Answer::new(), [0.0f64; 6]);
    for from in (0..1400).step_by(100) {
        scrape(&db, &mut expected, from, from + 100);
        for step in from..from + 100 {
            let t = T0 + step as i64 * 15_000 + 300;
            let le = |i: usize| if i == 5 { "+Inf".to_owned() } else { i.to_string() };
            let row: Vec<(Labels, f64)> = (0..6)
                .map(|i| {
                    buckets[i] += (step * 7 % (i + 3)) as f64 + i as f64 * 20.0;
                    (
                        Labels::from_pairs([("__name__", "d_bucket".to_owned()), ("le", le(i))]),
                        buckets[i],
                    )
                })
                .collect();
            fixture.at(t);
            append(&db, 7, t, &row);
            for (labels, value) in row {
                expected.entry(labels.to_string()).or_default().push((t, value.to_bits()));
            }
        }
        db.seal_all().expect("seal");
        let newest = T0 + (from as i64 + 100) * 15_000;
        for (start_ms, end_ms) in [
            (newest - 900_000, newest),
            (newest - 3_600_000, newest - 1_000_000),
            (T0 - 5, newest + 5),
            (newest - 2_000_000, newest),
            (T0 + 777_000, T0 + 1_777_000),
        ] {
            let mut within = expected.clone();
            within.values_mut().for_each(|s| s.retain(|(t, _)| (start_ms..=end_ms).contains(t)));
            within.retain(|_, s| !s.is_empty());
            for time in 0..3 {
                assert_eq!(answer(&db, start_ms, end_ms, &[]), within, "time {time} at {from}");
            }
        }
        if from == 900 {
            db.merge_day(crate::day::day_of(T0)).expect("merge");
        }
    }
    let (bytes, hits, _) = db.inner.columns.figures();
    assert!(bytes > 0 && hits > 1000, "{hits} hits");
}

/// Rows of an overlapped stripe behind the range were returned from what was kept.
#[test]
fn kept_columns_are_cut_where_late_stripes_overlap() {
    let fixture = Fixture::with(|options| options.out_of_order_window_ms = 3_600_000);
    let db = fixture.open();
    let mut expected = Answer::new();
    let mut rows = |first: i64, count: i64, offset_ms: i64| {
        for step in first..first + count {
            let t = T0 + step * 15_000 + offset_ms;
            fixture.now_ms.fetch_max(t, Ordering::SeqCst);
            let row: Vec<_> =
                (0..3).map(|i| (set("m", i), (t % 1000) as f64 + step as f64)).collect();
            append(&db, 1, t, &row);
            for (labels, value) in row {
                expected.entry(labels.to_string()).or_default().push((t, value.to_bits()));
            }
        }
    };
    rows(0, 100, 0);
    rows(50, 20, 7);
    db.seal_all().expect("seal");
    expected.values_mut().for_each(|samples| samples.sort_unstable());
    for (from, to) in [(40, 60), (55, 65), (0, 52), (60, 90), (0, 100)] {
        let (start_ms, end_ms) = (T0 + from * 15_000, T0 + to * 15_000);
        let mut within = expected.clone();
        within.values_mut().for_each(|s| s.retain(|(t, _)| (start_ms..=end_ms).contains(t)));
        for time in 0..3 {
            assert_eq!(answer(&db, start_ms, end_ms, &[]), within, "time {time}, {from} to {to}");
        }
    }
}

#[test]
fn threads_that_share_a_querier_read_the_same() {
    let fixture = Fixture::new();
    let db = fixture.open();
    for i in 0..400 {
        let t = T0 + i * 15_000;
        fixture.at(t);
        let value = |s: usize| (i as usize * (s % 7) + s) as f64;
        let samples: Vec<_> = (0..60).map(|s| (set("m", s), value(s))).collect();
        append(&db, 1, t, &samples);
        if i == 130 || i == 260 {
            db.run_maintenance(t).expect("maintenance");
        }
    }
    let querier = db.querier(0, i64::MAX).expect("querier");
    let series = querier.select(&[], true).expect("select");
    assert_eq!(series.len(), 60);
    let read = |series: SeriesRef, column: &mut Column| {
        querier.read(series, T0 + 60_000, T0 + 5_500_000, column).expect("read");
        (column.timestamps().to_vec(), column.floats.clone())
    };
    let expected: Vec<_> = series.iter().map(|s| read(*s, &mut Column::new())).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (series, expected) = (&series, &expected);
            scope.spawn(move || {
                let mut column = Column::new();
                for i in (0..3 * series.len()).map(|i| (i * (thread + 1) + thread) % series.len()) {
                    assert_eq!(read(series[i], &mut column), expected[i]);
                }
            });
        }
    });
}

#[test]
fn series_end_with_the_last_day_that_has_their_samples() {
    const DAY_MS: i64 = 86_400_000;
    let fixture = Fixture::with(|o| o.retention_time_ms = 3 * DAY_MS);
    let db = fixture.open();
    let all: Vec<Labels> = (0..12_000).map(|i| set("gone", i)).collect();
    let samples: Vec<(Labels, f64)> = all.iter().map(|l| (l.clone(), 1.0)).collect();
    append(&db, 1, T0, &samples);
    append(&db, 1, T0, &[(set("stays", 0), 1.0)]);
    let mut appender = db.appender(SourceId(1), SyncClass::Scrape);
    let held = appender.series(&all[7]).expect("known");
    drop(appender);
    let mut refused = Vec::new();
    for day in 0..6 {
        let at_ms = T0 + day * DAY_MS;
        fixture.at(at_ms);
        // Began before the series ends, and comes behind its end.
        let mut late = db.appender(SourceId(1), SyncClass::Scrape);
        late.append_row(at_ms + 300_000, &[held], &[1.0], &mut refused);
        if day != 4 {
            refused.clear();
            drop(late);
            late = db.appender(SourceId(1), SyncClass::Scrape);
        }
        for minute in 0..3 {
            fixture.at(at_ms + minute * 60_000);
            append(&db, 1, at_ms + minute * 60_000 + 1, &[(set("stays", 0), 2.0)]);
            db.run_maintenance(at_ms + minute * 60_000).expect("maintenance");
        }
        db.seal_all().expect("seal");
        let committed = late.commit().expect("commit");
        assert_eq!((committed.samples, committed.refused), (0, u64::from(day == 4)));
        let stats = db.stats();
        assert!(day == 0 || stats.series_in_memory < 100, "{stats:?}");
        assert_eq!(stats.series, if day < 4 { 12_001 } else { 1 }, "day {day}: {stats:?}");
        let querier = db.querier(T0, T0 + 10 * DAY_MS).expect("querier");
        let names = querier.label_values("__name__", &[], 0).expect("values");
        let is_in_retention = day * DAY_MS < 3 * DAY_MS;
        assert_eq!(names, if is_in_retention { vec!["gone", "stays"] } else { vec!["stays"] });
    }
    // Who held on to a series that ended is told so, and may ask for it anew.
    let at_ms = T0 + 6 * DAY_MS;
    fixture.at(at_ms);
    let mut appender = db.appender(SourceId(1), SyncClass::Scrape);
    appender.append_row(at_ms, &[held], &[1.0], &mut refused);
    assert_eq!(refused, [(0, AppendError::UnknownSeries)]);
    let again = appender.series(&all[7]).expect("new");
    assert!(again > held);
    appender.append_row(at_ms, &[again], &[3.0], &mut refused);
    appender.commit().expect("commit");
    let querier = db.querier(at_ms, at_ms).expect("querier");
    let found = querier.select(&[Matcher::equal("i", "7")], true).expect("select");
    assert_eq!(found, [again]);
    assert_eq!(querier.labels(again).expect("labels"), all[7]);
}

#[test]
fn series_that_are_known_are_taken_when_memory_is_short() {
    let mut fixture = Fixture::new();
    fixture.change = |o| o.head_limit_bytes = 10 << 20;
    let process = Arc::new(AtomicU64::new(0));
    let states = Arc::new(Mutex::new(Vec::new()));
    let mut options = fixture.options();
    options.process_memory = {
        let process = Arc::clone(&process);
        Arc::new(move || Some(process.load(Ordering::SeqCst)))
    };
    options.on_memory = {
        let states = Arc::clone(&states);
        Arc::new(move |state| lock(&states).push(state))
    };
    let db = Db::open(options).expect("open");
    let crowd: Vec<(Labels, f64)> = (0..500).map(|i| (set("crowd", i), 1.0)).collect();
    append(&db, 1, T0, &crowd);
    append(&db, 2, T0, &[(set("calm", 0), 1.0)]);
    let try_new = |source: u64, i: usize| {
        db.appender(SourceId(source), SyncClass::Scrape).series(&set("new", i)).map(|_| ())
    };
    let look = |bytes: u64, at_ms: i64| {
        process.store(bytes, Ordering::SeqCst);
        db.run_maintenance(at_ms).expect("maintenance");
    };
    look((10 << 20) * 92 / 100, T0);
    assert_eq!(try_new(1, 1), Err(AppendError::SeriesLimit));
    assert_eq!(try_new(2, 2), Ok(()));
    assert_eq!(append(&db, 1, T0 + 1000, &crowd).samples, 500);
    look(11 << 20, T0 + 1000);
    (2..8).for_each(|i| look(11 << 20, T0 + i * 1000));
    assert_eq!(try_new(2, 3), Err(AppendError::SeriesLimit));
    assert_eq!(append(&db, 2, T0 + 8000, &[(set("calm", 0), 2.0)]).samples, 1);
    assert_eq!(db.stats().series_refused, 2);
    look(5 << 20, T0 + 8000);
    assert_eq!(try_new(1, 1), Ok(()));
    let seen = lock(&states);
    assert!(matches!(seen[0], MemoryState::Short { limit_bytes: 0xa0_0000, .. }), "{seen:?}");
    assert!(matches!(seen[1], MemoryState::Full { .. }), "{seen:?}");
    assert_eq!(seen[2..], [MemoryState::Enough]);
}

#[test]
fn days_go_when_they_take_more_than_their_part_of_the_disk() {
    const DAY_MS: i64 = 86_400_000;
    let fixture = Fixture::with(|o| {
        o.retention_percentage = 25.0;
        o.disk_capacity = Arc::new(|| Some(160_000));
        o.merge_days = false;
    });
    let db = fixture.open();
    let series: Vec<Labels> = (0..400).map(|i| set("m", i)).collect();
    for day in 0..8i64 {
        for row in 0..3 {
            let at_ms = T0 + day * DAY_MS + row * 1000;
            fixture.at(at_ms);
            let values = (0..400i64).map(|i| (i * 7919 + at_ms / 1000 * i * i % 1009) as f64 / 7.0);
            let samples: Vec<(Labels, f64)> = series.iter().cloned().zip(values).collect();
            append(&db, 1, at_ms, &samples);
        }
        db.seal_all().expect("seal");
        db.run_maintenance(T0 + day * DAY_MS + 20_000).expect("maintenance");
        let stats = db.stats();
        let bytes = stats.days_bytes + stats.wal_bytes + stats.series_file_bytes;
        assert!(bytes <= 40_000 || stats.days.len() == 1, "{bytes} bytes on day {day}");
    }
    assert!(db.stats().size_retentions > 0);
    assert!(db.stats().days.len() > 1, "{:?}", db.stats().days);
}
