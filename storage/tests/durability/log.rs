//! A log that is cut or damaged at every byte.

use std::collections::BTreeMap;

use narthex_storage::db::Db;

use crate::disk::Disk;
use crate::model::{Answer, read_all};
use crate::world::{DAY_MS, ROOT, World};

const START_MS: i64 = 19_700 * DAY_MS + 3_600_000;
const LOG: &str = "data/narthex/wal/00000001.log";
/// Rows of a stripe from one key row to the next.
const KEY_INTERVAL: usize = 64;

/// Files with a log of 75 rows of one target, and where each row ends in it.
fn files_with_log(is_synced: bool) -> (BTreeMap<String, Vec<u8>>, Vec<usize>, World) {
    let mut world = World::new(START_MS);
    let db = world.open();
    let mut ends = Vec::new();
    for _ in 0..75 {
        world.pass(1000);
        assert!(world.scrape(&db, 0, 3));
        ends.push(world.disk.files()[LOG].len());
    }
    if is_synced {
        // Says so in the log, too.
        db.close().expect("close");
    }
    world.kill(db);
    (world.disk.files(), ends, world)
}

/// What a start with this log says.
fn with_log(files: &BTreeMap<String, Vec<u8>>, log: Vec<u8>, world: &mut World) -> (Answer, Db) {
    let mut files = files.clone();
    files.insert(LOG.to_owned(), log);
    world.disk = Disk::with_files(&files);
    let db = Db::open(world.options(ROOT)).expect("a damaged log starts");
    (read_all(&db).expect("read"), db)
}

fn rows_of(found: &Answer, whole: &Answer) -> usize {
    for (id, samples) in found {
        assert!(samples.iter().all(|s| whole[id].contains(s)), "a sample that nobody wrote");
    }
    found.values().next().map_or(0, Vec::len)
}

#[test]
fn a_cut_at_any_byte_leaves_all_whole_rows() {
    for is_synced in [false, true] {
        let (files, ends, mut world) = files_with_log(is_synced);
        let whole = world.model.answer();
        for cut in 0..files[LOG].len() {
            let (found, _) = with_log(&files, files[LOG][..cut].to_vec(), &mut world);
            let expected = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(rows_of(&found, &whole), expected, "cut at {cut}");
        }
    }
}

#[test]
fn a_flip_in_what_is_durable_costs_the_rows_up_to_the_next_key_row() {
    let (files, ends, mut world) = files_with_log(true);
    let whole = world.model.answer();
    for at in 0..files[LOG].len() {
        for mask in [1u8, 0x80, 0xff] {
            let mut log = files[LOG].clone();
            log[at] ^= mask;
            let (found, db) = with_log(&files, log, &mut world);
            let kept = match ends.iter().position(|end| *end > at) {
                _ if at < 8 => 75,
                Some(hit) if hit < KEY_INTERVAL => hit + 75 - KEY_INTERVAL,
                Some(hit) => hit,
                None => 75,
            };
            // The last record says how much is durable; without it the tail is
            // what a power cut may have left, and nothing is lost.
            assert_eq!(rows_of(&found, &whole), kept, "flip at {at}");
            let replay = db.stats().replay;
            assert!(replay.damaged_bytes + replay.torn_bytes > 0, "flip at {at}: not noticed");
            if at < *ends.last().expect("rows") {
                let damages = db.damages();
                assert_eq!(damages.len(), 1, "flip at {at}: {damages:?}");
                let hit = damages[0].offset..damages[0].offset + damages[0].bytes;
                assert!(hit.contains(&(at as u64)), "flip at {at}: {damages:?}");
                assert_eq!(damages[0].file, "wal/00000001.log");
            }
        }
    }
}

#[test]
fn a_flip_in_what_is_not_durable_leaves_a_beginning() {
    let (files, ends, mut world) = files_with_log(false);
    let whole = world.model.answer();
    for at in 8..files[LOG].len() {
        let mut log = files[LOG].clone();
        log[at] ^= 4;
        let (found, db) = with_log(&files, log, &mut world);
        let hit = ends.iter().position(|end| *end > at).expect("in a row");
        assert_eq!(rows_of(&found, &whole), hit, "flip at {at}");
        assert!(db.stats().replay.torn_bytes > 0, "flip at {at}: not noticed");
        drop(db);
        // What was left out does not come back with the next start.
        let db = Db::open(world.options(ROOT)).expect("open");
        assert_eq!(read_all(&db).expect("read"), found, "flip at {at}");
    }
}

#[test]
fn an_idle_log_is_as_long_as_its_rows() {
    let mut world = World::new(START_MS);
    world.log_slack_bytes = 100;
    let db = world.open();
    let mut shorter = 0;
    for _ in 0..40 {
        // Some of these end just behind the end of a stripe.
        for _ in 0..23 {
            world.pass(1000);
            assert!(world.scrape(&db, 0, 3));
            world.maintain(&db).expect("maintenance");
        }
        let (bytes, chunks) = (db.stats().wal_bytes, db.stats().chunks_sealed);
        world.pass(4000);
        world.maintain(&db).expect("maintenance");
        assert_eq!(db.stats().chunks_sealed, chunks);
        shorter += u32::from(db.stats().wal_bytes < bytes / 2);
        assert!(world.disk.files().keys().filter(|n| n.contains("/wal/")).count() <= 2);
    }
    assert!(shorter >= 3, "{shorter} times");
    world.compare(&db);
    world.kill(db);
    let db = world.open();
    world.compare(&db);
    assert_eq!(db.damages(), []);
    // A log that was just written is not written again for nothing.
    let written = db.stats().wal_written_bytes;
    for _ in 0..5 {
        world.pass(4000);
        world.maintain(&db).expect("maintenance");
    }
    assert_eq!(db.stats().wal_written_bytes, written);
}
