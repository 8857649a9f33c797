//! What is particular to an engine beside files?

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::tests::{Answer, Fixture, T0, all, append, families, kill, scrape, set};
use super::*;
use crate::labels::{Labels, Matcher};

/// What may happen to a storage.
#[derive(Debug, Clone)]
enum Event {
    /// So many rows of a target, so many seconds apart.
    Rows(u64, usize, i64),
    Seal,
    Maintain,
    Merge,
    Delete(usize),
    Clean,
    Restart,
    Kill,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..3u64, 1..60usize, 5..900i64).prop_map(|(t, rows, s)| Event::Rows(t, rows, s)),
        2 => Just(Event::Seal),
        2 => Just(Event::Maintain),
        1 => Just(Event::Merge),
        1 => (0..12usize).prop_map(Event::Delete),
        1 => Just(Event::Clean),
        1 => Just(Event::Restart),
        1 => Just(Event::Kill),
    ];
    proptest::collection::vec(event, 1..14)
}

/// One storage of each engine.
struct Pair {
    fixtures: [Fixture; 2],
    now_ms: i64,
}

impl Pair {
    fn new() -> Self {
        let mut fixtures = [Fixture::new(), Fixture::new()];
        fixtures[0].change = |o| o.engine = Some(Engine::Files);
        Self { fixtures, now_ms: T0 }
    }

    fn open(&self) -> [Db; 2] {
        [self.fixtures[0].open(), self.fixtures[1].open()]
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.fixtures.iter().for_each(|f| f.at(self.now_ms));
    }

    fn happen(&mut self, mut dbs: [Db; 2], event: &Event) -> [Db; 2] {
        match event {
            Event::Rows(target, rows, seconds) => {
                for row in 0..*rows {
                    self.pass(seconds * 1000);
                    let value = |i: usize| match i % 3 {
                        0 => i as f64,
                        1 => (row * i) as f64 / 8.0,
                        _ => f64::from_bits((row as u64 + 1) << (i % 50)),
                    };
                    let samples: Vec<(Labels, f64)> = (0..12 + *target as usize)
                        .filter(|i| (i + row / 9) % 7 != 0)
                        .map(|i| (set("m", i + 100 * *target as usize), value(i)))
                        .collect();
                    dbs.iter().for_each(|db| {
                        let _ = append(db, *target, self.now_ms, &samples);
                    });
                }
            }
            Event::Seal => dbs.iter().for_each(|db| db.seal_all().expect("seal")),
            Event::Maintain => {
                self.pass(11_000);
                dbs.iter().for_each(|db| db.run_maintenance(self.now_ms).expect("maintenance"));
            }
            Event::Merge => {
                let day = day_of_ms(self.now_ms);
                dbs.iter().for_each(|db| db.merge_day(day).expect("merge"));
            }
            Event::Delete(i) => {
                let matchers = vec![Matcher::equal("i", i.to_string())];
                let range = (self.now_ms - 600_000, self.now_ms);
                let selectors = [matchers];
                dbs.iter().for_each(|db| db.delete(&selectors, range.0, range.1).expect("delete"));
            }
            Event::Clean => dbs.iter().for_each(|db| db.clean_tombstones().expect("clean")),
            Event::Restart => {
                drop(dbs);
                dbs = self.open();
            }
            Event::Kill => {
                let [files, other] = dbs;
                drop(files);
                kill(other);
                dbs = self.open();
            }
        }
        dbs
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn both_engines_give_the_same_answer(events in events()) {
        let mut pair = Pair::new();
        let mut dbs = pair.open();
        for event in &events {
            dbs = pair.happen(dbs, event);
            prop_assert_eq!(all(&dbs[0]), all(&dbs[1]), "after {:?}", event);
        }
        for db in &dbs {
            prop_assert_eq!(db.damages(), []);
            prop_assert_eq!(db.verify(&mut |_, _| {}).expect("verify").problems, []);
        }
        let [files, other] = dbs.map(|db| db.stats());
        prop_assert_eq!(files.days_samples, other.days_samples);
    }
}

#[test]
fn a_directory_stays_with_its_engine() {
    for (first, second) in [(Engine::RocksDb, Engine::Files), (Engine::Files, Engine::RocksDb)] {
        let fixture = Fixture::new();
        let options = |engine| DbOptions { engine, ..fixture.options() };
        let db = Db::open(options(Some(first))).expect("open");
        append(&db, 1, T0, &[(set("a", 0), 1.0)]);
        drop(db);
        let refused = Db::open(options(Some(second))).expect_err("another engine's").to_string();
        assert!(refused.contains(first.name()) && refused.contains(second.name()), "{refused}");
        // Who does not ask takes what is there.
        let db = Db::open(options(None)).expect("open");
        assert_eq!(all(&db).len(), 1);
    }
}

#[test]
fn space_of_what_is_superseded_returns_when_its_readers_are_gone() {
    let fixture = Fixture::new();
    let db = fixture.open();
    let mut expected = Answer::new();
    scrape(&db, &mut expected, 0, 300);
    db.seal_all().expect("seal");
    assert_eq!(families(fixture.dir.path()).len(), 1);
    let reader = db.querier(0, i64::MAX).expect("querier");
    let found = reader.select(&[], false).expect("select");
    db.merge_day(day_of_ms(T0)).expect("merge");
    assert_eq!(families(fixture.dir.path()).len(), 2, "somebody reads the first");
    let mut column = crate::read::Column::new();
    let mut samples = 0;
    for series in found {
        reader.read(series, 0, i64::MAX, &mut column).expect("read");
        samples += column.len();
    }
    assert_eq!(samples, expected.values().map(Vec::len).sum::<usize>());
    drop(reader);
    fixture.at(T0 + 86_400_000);
    db.run_maintenance(T0 + 86_400_000).expect("maintenance");
    let left = families(fixture.dir.path());
    assert!(matches!(&left[..], [one] if one.ends_with(".merged")), "{left:?}");
    assert_eq!(all(&db), expected);
}

#[test]
fn a_merge_that_did_not_finish_leaves_nothing() {
    let fixture = Fixture::new();
    let db = fixture.open();
    let mut expected = Answer::new();
    scrape(&db, &mut expected, 0, 150);
    db.seal_all().expect("seal");
    let successor = lock(&db.inner.day_files).sealed.successor(day_of_ms(T0)).expect("begin");
    scrape(&db, &mut expected, 150, 300);
    db.seal_all().expect("seal");
    assert_eq!(families(fixture.dir.path()).len(), 3);
    drop(db);
    drop(successor);
    let db = fixture.open();
    assert_eq!(families(fixture.dir.path()).len(), 2);
    assert_eq!(all(&db), expected);
}

#[test]
fn damage_is_named_and_the_rest_serves() {
    let fixture = Fixture::new();
    let db = fixture.open();
    let mut expected = Answer::new();
    scrape(&db, &mut expected, 0, 300);
    db.seal_all().expect("seal");
    drop(db);
    let tables = || {
        let names = std::fs::read_dir(fixture.dir.path().join("rocksdb")).expect("list");
        let paths = names.map(|n| n.expect("entry").path());
        paths.filter(|p| p.extension().is_some_and(|e| e == "sst")).collect::<Vec<_>>()
    };
    let table = tables().into_iter().max_by_key(|p| p.metadata().expect("metadata").len());
    let table = table.expect("a table");
    let whole = std::fs::read(&table).expect("read");
    let mut hits = 0;
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&table, &bytes).expect("write");
        let db = fixture.open();
        let found = all(&db);
        let lost = expected.iter().filter(|(name, samples)| found.get(*name) != Some(samples));
        let lost = lost.count();
        hits += usize::from(lost > 0);
        let is_named = !db.damages().is_empty()
            || !db.verify(&mut |_, _| {}).expect("verify").problems.is_empty();
        assert!(is_named || lost == 0, "byte {at}: lost without a word");
        for (name, samples) in &found {
            assert!(samples.iter().all(|s| expected[name].contains(s)), "byte {at}: {name}");
        }
        drop(db);
        std::fs::write(&table, &whole).expect("write");
    }
    assert!(hits > 20, "{hits} flips hit samples");
}

#[test]
fn a_newer_database_is_refused() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let path = fixture.dir.path().join("rocksdb");
    let names = rocksdb::DB::list_cf(&rocksdb::Options::default(), &path).expect("list");
    let raw = rocksdb::DB::open_cf(&rocksdb::Options::default(), &path, names).expect("open");
    raw.put("v", [9]).expect("put");
    drop(raw);
    assert!(matches!(Db::open(fixture.options()), Err(OpenError::Newer { .. })));
}

#[test]
fn what_was_sealed_and_not_flushed_is_in_the_log() {
    let fixture = Fixture::new();
    let mut db = fixture.open();
    let mut expected = Answer::new();
    for round in 0..6 {
        scrape(&db, &mut expected, round * 60, round * 60 + 60);
        let now_ms = fixture.now_ms.load(Ordering::SeqCst);
        if round % 2 == 0 {
            db.run_maintenance(now_ms).expect("maintenance");
        }
        assert!(lock(&db.inner.day_files).sealed.memory_bytes() > 0);
        kill(db);
        db = fixture.open();
        assert_eq!(all(&db), expected, "round {round}");
    }
}
