//! Every call fails once, and for a while.

use std::path::PathBuf;

use narthex_storage::append::{AppendError, Appendable, SourceId, SyncClass};
use narthex_storage::db::{Db, day_of_ms};
use narthex_storage::labels::Matcher;

use crate::disk::{EINTR, EIO, ENOSPC, EROFS, Errors, Only};
use crate::model::{labels_of, read_all};
use crate::rng::Rng;
use crate::world::{DAY_MS, ROOT, World};

/// A start not far from midnight.
const START_MS: i64 = 19_701 * DAY_MS - 1_500_000;

/// A short life with everything in it; what was asked of the storage and
/// failed, was said to have failed.
fn live(world: &mut World, db: &Db) -> u64 {
    let mut failures = 0;
    let mut note = |is_ok: bool| failures += u64::from(!is_ok);
    for round in 0..14u32 {
        for target in 0..2 {
            world.pass(5000);
            note(world.scrape(db, target, 3 + round / 4));
        }
        let ids = (0..3).map(|i| 5000 + i + round).collect();
        let row = (world.now_ms, ids);
        note(world.append(db, SourceId(9), SyncClass::RemoteWrite, &[row]).is_ok());
        match round {
            3 | 9 => world.pass(31 * 60_000),
            4 => note(db.seal_all().is_ok()),
            6 => {
                let matcher = Matcher::equal("__name__", "m1");
                let end_ms = world.now_ms;
                let deleted = db.delete(&[vec![matcher]], 0, end_ms);
                world.model.delete(|id, t| id % 5 == 1 && t <= end_ms, deleted.is_ok());
                note(deleted.is_ok());
            }
            7 => note(db.merge_day(day_of_ms(START_MS)).is_ok()),
            8 => note(db.snapshot(&PathBuf::from(format!("{ROOT}/snapshots/one"))).is_ok()),
            10 => note(db.clean_tombstones().is_ok()),
            12 => world.pass(4 * 3_600_000),
            _ => {}
        }
        world.pass(1000);
        note(world.maintain(db).is_ok());
    }
    failures
}

/// Lives while calls fail, then without; says how many calls failed.
fn survive(errors: Errors) -> u64 {
    let mut world = World::new(START_MS);
    world.has_segments = errors.call % 2 == 1;
    let db = world.open();
    world.disk.fail(Some(errors));
    let noticed = live(&mut world, &db);
    let failed = world.disk.failed();
    world.disk.fail(None);
    let stats = db.stats();
    let is_told = noticed > 0 || stats.write_failures > 0;
    // A call that only tidies up may fail in silence.
    assert!(failed < 3 || is_told, "{errors:?}: {failed} calls failed, nobody was told");
    // The fault is over: within two ticks all is as it should be.
    world.pass(1000);
    let _ = world.maintain(&db);
    world.pass(15_000);
    world.maintain(&db).unwrap_or_else(|e| panic!("{errors:?}: still failing: {e}"));
    assert!(!db.stats().log_lags);
    assert!(world.scrape(&db, 0, 4));
    world.pass(16_000);
    world.maintain(&db).expect("maintenance");
    let found = read_all(&db).unwrap_or_else(|e| panic!("{errors:?}: {e}"));
    world.model.compare(&found);
    assert_eq!(db.damages(), [], "{errors:?}");
    // All of it is durable.
    world.disk.cut_power_at(Some(0));
    drop(db);
    world.disk = world.disk.after_power_cut(&mut Rng::new(errors.call));
    let db = world.open();
    let found = read_all(&db).expect("read");
    world.model.settle(&found, false, world.now_ms);
    failed
}

fn every_call(count: u64, only: Only, errno: i32) {
    let mut call = 0;
    while survive(Errors { call, count, errno, only }) > 0 {
        call += 1;
    }
    assert!(call > 150, "only {call} calls");
}

#[test]
fn any_call_fails_once() {
    for errno in [EIO, ENOSPC, EROFS, EINTR] {
        every_call(1, Only::Any, errno);
    }
}

#[test]
fn calls_that_write_fail_for_a_while() {
    for (errno, count) in [(ENOSPC, 4), (EROFS, 25), (EIO, 70)] {
        every_call(count, Only::Writes, errno);
    }
}

#[test]
fn syncs_fail_and_what_they_gave_up_is_written_again() {
    for count in [1, 2, 5] {
        let mut call = 0;
        while survive(Errors { call, count, errno: EIO, only: Only::Syncs }) > 0 {
            call += 1;
        }
    }
}

#[test]
fn a_start_that_fails_changes_nothing() {
    let mut world = World::new(START_MS);
    let db = world.open();
    live(&mut world, &db);
    world.kill(db);
    let disk = world.disk.clone();
    for (errno, only) in [(EIO, Only::Any), (EROFS, Only::Writes), (ENOSPC, Only::Writes)] {
        let mut call = 0;
        loop {
            world.disk = disk.after_kill();
            world.disk.fail(Some(Errors { call, count: 1, errno, only }));
            // It may go on without what it could not read.
            drop(Db::open(world.options(ROOT)));
            let failed = world.disk.failed();
            world.disk.fail(None);
            let db = world.open();
            assert_eq!(db.damages(), [], "call {call}");
            world.compare(&db);
            drop(db);
            if failed == 0 {
                break;
            }
            call += 1;
        }
        assert!(call > 10);
    }
}

/// What a writer is told of a series that nobody asked for yet.
fn ask_for_new(db: &Db, id: u32) -> Result<(), AppendError> {
    let mut appender = db.appender(SourceId(1), SyncClass::RemoteWrite);
    appender.series(&labels_of(10_000_000 + id)).map(drop)
}

fn lasting(only: Only) -> Option<Errors> {
    Some(Errors { call: 0, count: u64::MAX, errno: EIO, only })
}

#[test]
fn a_series_that_cannot_be_looked_up_is_not_said_to_be_one_too_many() {
    let mut world = World::new(START_MS);
    world.has_segments = true;
    let db = world.open();
    live(&mut world, &db);
    assert!(db.stats().series_segments > 0);
    world.kill(db);
    let db = world.open();
    world.disk.fail(lasting(Only::Reads));
    for id in 0..3 {
        assert_eq!(ask_for_new(&db, id), Err(AppendError::Storage));
    }
    let stats = db.stats();
    assert_eq!((stats.series_failed, stats.series_refused), (3, 0));
    world.disk.fail(None);
    assert_eq!(ask_for_new(&db, 0), Ok(()));
}

#[test]
fn memory_that_is_short_for_want_of_a_disk_is_said_to_be_so() {
    let mut world = World::new(START_MS);
    world.has_segments = true;
    let mut options = world.options(ROOT);
    options.head_limit_bytes = 100_000;
    let db = Db::open(options).expect("open");
    world.disk.fail(lasting(Only::Writes));
    for round in 0.. {
        world.pass(15_000);
        let _ = world.scrape(&db, round, 20);
        let _ = db.run_maintenance(world.now_ms);
        if let Err(error) = ask_for_new(&db, round) {
            assert_eq!(error, AppendError::Storage);
            break;
        }
        assert!(round < 1000, "memory is never short");
    }
    let stats = db.stats();
    assert!(stats.series_failed > 0);
    assert_eq!(stats.series_refused, 0);
    world.disk.fail(None);
    for _ in 0..10 {
        // Series out of use leave memory.
        world.pass(5 * 60_000);
        db.run_maintenance(world.now_ms).expect("maintenance");
    }
    assert_eq!(ask_for_new(&db, u32::MAX >> 1), Ok(()));
    world.compare(&db);
}

/// A power cut could leave the stripe and take the older rows from the log.
#[test]
fn stripes_are_not_written_before_their_rows_are_durable() {
    // Far from midnight: a new day would need a sync by itself.
    let mut world = World::new(START_MS + DAY_MS / 2);
    let db = world.open();
    let fill = |world: &mut World| {
        for _ in 0..20 {
            world.pass(5000);
            assert!(world.scrape(&db, 0, 4));
        }
        world.pass(31 * 60_000);
    };
    fill(&mut world);
    db.run_maintenance(world.now_ms).expect("maintenance");
    let sealed = db.stats().stripes_sealed;
    assert!(sealed > 0, "the file of the day is there");
    fill(&mut world);
    world.disk.fail(lasting(Only::Syncs));
    assert!(db.run_maintenance(world.now_ms).is_err());
    assert_eq!(db.stats().stripes_sealed, sealed);
    world.disk.fail(None);
    db.run_maintenance(world.now_ms).expect("maintenance");
    assert!(db.stats().stripes_sealed > sealed);
    world.compare(&db);
}
