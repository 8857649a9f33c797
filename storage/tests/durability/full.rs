//! The disk is full, and has room again.

use narthex_storage::append::{SourceId, SyncClass};
use narthex_storage::db::Db;

use crate::model::read_all;
use crate::rng::Rng;
use crate::world::{DAY_MS, ROOT, World};

const START_MS: i64 = 19_700 * DAY_MS + 3_600_000;

/// An hour of scrapes, then a full disk.
fn filled() -> (World, Db) {
    let mut world = World::new(START_MS);
    let db = world.open();
    for _ in 0..240 {
        world.pass(15_000);
        assert!(world.scrape(&db, 0, 5));
        world.maintain(&db).expect("maintenance");
    }
    world.disk.set_capacity(Some(world.disk.used() + 100));
    (world, db)
}

/// Ten minutes of scrapes that nothing can write.
fn ten_minutes(world: &mut World, db: &Db) {
    for round in 0..40 {
        world.pass(15_000);
        // New series come, too.
        assert!(world.scrape(db, 0, 5 + round / 10), "scrapes go on from memory");
        let _ = world.maintain(db);
        world.compare(db);
    }
    assert!(db.stats().log_lags);
}

#[test]
fn scrapes_go_on_from_memory_and_are_written_when_there_is_room() {
    let (mut world, db) = filled();
    ten_minutes(&mut world, &db);
    let row = (world.now_ms, vec![7000]);
    let refused =
        world.append(&db, SourceId(1), SyncClass::RemoteWrite, std::slice::from_ref(&row));
    assert!(refused.is_err(), "remote writes are kept by their sender");
    world.compare(&db);

    world.disk.set_capacity(None);
    world.pass(1000);
    world.maintain(&db).expect("one tick after there is room");
    assert!(!db.stats().log_lags);
    let accepted = world.append(&db, SourceId(1), SyncClass::RemoteWrite, &[row]);
    accepted.expect("remote writes are taken again");
    world.pass(15_000);
    world.maintain(&db).expect("maintenance");
    world.compare(&db);
    world.disk.cut_power_at(Some(0));
    drop(db);
    world.disk = world.disk.after_power_cut(&mut Rng::new(1));
    let db = world.open();
    world.model.settle(&read_all(&db).expect("read"), false, world.now_ms);
    assert_eq!(db.damages(), []);
}

#[test]
fn a_kill_on_a_full_disk_loses_what_was_in_memory_only() {
    let (mut world, db) = filled();
    let before = world.model.clone();
    ten_minutes(&mut world, &db);
    world.kill(db);
    world.disk.set_capacity(Some(world.disk.used()));
    world.model = before;
    let db = world.open();
    let found = read_all(&db).expect("read");
    for (id, samples) in world.model.answer() {
        assert!(samples.iter().all(|s| found[&id].contains(s)), "series {id}");
    }
    // It starts on the full disk, and scrapes from memory again.
    assert!(world.scrape(&db, 0, 5));
    assert!(db.stats().log_lags);
    world.disk.set_capacity(None);
    world.pass(1000);
    world.maintain(&db).expect("maintenance");
    assert!(!db.stats().log_lags);
}

#[test]
fn memory_bounds_what_is_not_written() {
    let mut world = World::new(START_MS);
    let mut options = world.options(ROOT);
    options.head_limit_bytes = 400_000;
    let db = Db::open(options).expect("open");
    assert!(world.scrape(&db, 0, 50));
    world.disk.set_capacity(Some(world.disk.used() + 10));
    let mut taken = 0;
    for _ in 0..20_000 {
        world.pass(15_000);
        let is_taken = world.scrape(&db, 0, 50);
        let _ = db.run_maintenance(world.now_ms);
        if !is_taken {
            break;
        }
        taken += 1;
    }
    assert!((100..20_000).contains(&taken), "{taken} rows were taken");
    let bytes = db.stats().rows_bytes + db.stats().series_bytes;
    assert!(bytes < 500_000, "{bytes} bytes in memory");
    world.disk.set_capacity(None);
    for _ in 0..3 {
        world.pass(10_000);
        db.run_maintenance(world.now_ms).expect("maintenance");
    }
    assert!(world.scrape(&db, 0, 50), "taken again");
    world.compare(&db);
}

#[test]
fn the_oldest_day_goes_first_if_there_is_a_retention_by_size() {
    let mut world = World::new(START_MS);
    let mut options = world.options(ROOT);
    options.retention_size_bytes = 1 << 40;
    let db = Db::open(options).expect("open");
    for _ in 0..3 * 96 {
        world.pass(15 * 60_000);
        assert!(world.scrape(&db, 0, 20));
        db.run_maintenance(world.now_ms).expect("maintenance");
    }
    db.seal_all().expect("seal");
    let days = db.stats().days.len();
    assert!(days >= 3, "{days} days");
    world.disk.set_capacity(Some(world.disk.used() + 50));
    for _ in 0..10 {
        world.pass(15_000);
        assert!(world.scrape(&db, 0, 20));
        let _ = db.run_maintenance(world.now_ms);
    }
    let stats = db.stats();
    assert!(!stats.log_lags, "there is room");
    assert_eq!((stats.days.len(), stats.size_retentions), (days - 1, 1));
}
