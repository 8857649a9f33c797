//! Each byte of each file is wrong; each file is short, missing, forbidden.

use std::collections::{BTreeMap, BTreeSet};

use narthex_storage::append::{SourceId, SyncClass};
use narthex_storage::db::{Db, day_of_ms};
use narthex_storage::labels::Matcher;

use crate::disk::Disk;
use crate::model::{Answer, read_all};
use crate::world::{DAY_MS, ROOT, World};

const START_MS: i64 = 19_700 * DAY_MS + 20 * 3_600_000;
const PREFIX: &str = "data/narthex/";

struct Corpus {
    files: BTreeMap<String, Vec<u8>>,
    whole: Answer,
    world: World,
}

/// Two days of stripes, one merged, series in several batches, and with
/// `has_segments` in segments, a log, and a deletion.
fn corpus(has_segments: bool) -> Corpus {
    let mut world = World::new(START_MS);
    world.has_segments = has_segments;
    let db = world.open();
    for round in 0..300u32 {
        world.pass(60_000);
        assert!(world.scrape(&db, round % 3, 4 + round / 100));
        if round % 50 == 0 {
            world.maintain(&db).expect("maintenance");
        }
    }
    db.seal_all().expect("seal");
    db.merge_day(day_of_ms(START_MS)).expect("merge");
    // Chunks under several checksums in one stripe.
    for _ in 0..20 {
        world.pass(15_000);
        let ids = (0..80).map(|i| 5000 + 3 * i).collect();
        let row = (world.now_ms, ids);
        world.append(&db, SourceId(5), SyncClass::Scrape, &[row]).expect("append");
    }
    db.seal_all().expect("seal");
    let matcher = Matcher::equal("id", "1001");
    db.delete(&[vec![matcher]], 0, START_MS + 3_600_000).expect("delete");
    world.model.delete(|id, t| id == 1001 && t <= START_MS + 3_600_000, true);
    for _ in 0..10 {
        world.pass(15_000);
        assert!(world.scrape(&db, 0, 6));
    }
    world.compare(&db);
    db.close().expect("close");
    world.kill(db);
    let (files, whole) = (world.disk.files(), world.model.answer());
    Corpus { files, whole, world }
}

impl Corpus {
    fn open(&mut self, files: &BTreeMap<String, Vec<u8>>) -> Db {
        self.world.disk = Disk::with_files(files);
        Db::open(self.world.options(ROOT)).expect("damage does not keep it from starting")
    }

    /// Samples that are missing, by series; none may be there that were not
    /// written, but for those whose deletion was lost.
    fn missing(&self, found: &Answer, may_undelete: bool) -> BTreeMap<u32, usize> {
        for (id, samples) in found {
            let known = self.whole.get(id).map_or(&[][..], Vec::as_slice);
            let is_known = |s: &(i64, u64)| known.contains(s) || (may_undelete && *id == 1001);
            assert!(samples.iter().all(is_known), "series {id}: samples that nobody wrote");
        }
        let lost = |(id, samples): (&u32, &Vec<(i64, u64)>)| {
            let there = found.get(id).map_or(&[][..], Vec::as_slice);
            let count = samples.iter().filter(|s| !there.contains(s)).count();
            (count > 0).then_some((*id, count))
        };
        self.whole.iter().filter_map(lost).collect()
    }
}

/// Which bytes are tried: all of them, or every so many-th.
fn stride() -> usize {
    if std::env::var_os("NARTHEX_EVERY_BYTE").is_some() { 1 } else { 11 }
}

#[test]
fn a_flipped_byte_is_noticed_and_costs_what_it_hit() {
    flip_bytes(corpus(false), |_| true);
    flip_bytes(corpus(true), |name| name.contains("/series/"));
}

fn flip_bytes(mut corpus: Corpus, is_tried: impl Fn(&str) -> bool) {
    let files = corpus.files.clone();
    let whole: usize = corpus.whole.values().map(Vec::len).sum();
    let mut flips = 0;
    for (name, bytes) in files.iter().filter(|(name, _)| is_tried(name)) {
        for at in (0..bytes.len()).step_by(stride()) {
            let mut damaged = files.clone();
            damaged.get_mut(name).expect("there")[at] ^= 1 << (at % 8);
            let db = corpus.open(&damaged);
            let found = read_all(&db).expect("read");
            let place = format!("{name}, byte {at}");
            let damages = db.damages();
            let replay = db.stats().replay;
            // What nobody asked for is not read.
            let is_noticed = !damages.is_empty()
                || replay.damaged_bytes + replay.torn_bytes > 0
                || !db.verify(&mut |_, _| {}).expect("verify").problems.is_empty();
            assert!(is_noticed, "{place}: not noticed");
            assert!(damages.iter().all(|d| name.ends_with(&d.file)), "{place}: {damages:?}");
            let missing = corpus.missing(&found, name.ends_with("tombstones"));
            let lost: usize = missing.values().sum();
            // At most the largest stripe, if it is its header that is hit. All
            // series share symbols of the first batch.
            let most = if name.contains("/series/") { whole } else { 1600 };
            assert!(lost <= most, "{place}: {lost} of {whole} samples are lost");
            flips += 1;
        }
    }
    println!("{flips} bytes flipped one at a time, each noticed");
    assert!(flips > 150, "{flips} flips");
}

#[test]
fn a_flip_in_the_chunks_costs_one_run_of_columns() {
    let mut corpus = corpus(false);
    let files = corpus.files.clone();
    let (name, bytes) = files
        .iter()
        .filter(|(name, _)| name.contains("/days/"))
        .max_by_key(|(_, bytes)| bytes.len())
        .expect("a day");
    let mut costs = BTreeSet::new();
    // Random floats: chunks of some 160 bytes, 4 kB under one checksum.
    for at in (bytes.len() - 6000..bytes.len()).step_by(97) {
        let mut damaged = files.clone();
        damaged.get_mut(name).expect("there")[at] ^= 0x10;
        let db = corpus.open(&damaged);
        let missing = corpus.missing(&read_all(&db).expect("read"), false);
        assert!(missing.len() < 40, "flip at {at}: {} series are hit", missing.len());
        assert!(missing.keys().all(|id| *id >= 5000), "flip at {at}");
        costs.insert(missing.len());
        let damages = db.damages();
        assert_eq!(damages.len(), 1, "flip at {at}");
        let hit = damages[0].offset..damages[0].offset + damages[0].bytes;
        assert!(hit.contains(&(at as u64)), "flip at {at}: {damages:?}");
    }
    assert!(costs.iter().any(|c| *c > 0));
}

#[test]
fn short_and_missing_files_cost_what_was_in_them() {
    shorten_files(corpus(false));
    shorten_files(corpus(true));
}

fn shorten_files(mut corpus: Corpus) {
    let files = corpus.files.clone();
    for (name, bytes) in &files {
        for len in [Some(bytes.len() / 2), Some(bytes.len() - bytes.len().min(1)), Some(0), None] {
            let mut damaged = files.clone();
            match len {
                Some(len) => damaged.get_mut(name).expect("there").truncate(len),
                None => drop(damaged.remove(name)),
            }
            let db = corpus.open(&damaged);
            let found = read_all(&db).expect("read");
            corpus.missing(&found, name.ends_with("tombstones"));
            // It goes on.
            corpus.world.pass(1000);
            assert!(corpus.world.scrape(&db, 0, 3), "{name} with {len:?} bytes");
            corpus.world.maintain(&db).expect("maintenance");
        }
    }
}

#[test]
fn a_file_that_may_not_be_read_is_named_and_left_alone() {
    forbid_files(corpus(false));
    forbid_files(corpus(true));
}

fn forbid_files(mut corpus: Corpus) {
    let files = corpus.files.clone();
    for name in files.keys() {
        corpus.world.disk = Disk::with_files(&files);
        corpus.world.disk.forbid(name);
        let short = name.strip_prefix(PREFIX).expect("below the directory");
        match Db::open(corpus.world.options(ROOT)) {
            // Without labels or deletions it would do harm.
            Err(e) => {
                assert!(short.starts_with("series/") || short.starts_with("state/"), "{e}");
                assert!(e.to_string().contains(short), "{short}: {e}");
            }
            Ok(db) => {
                let damages = db.damages();
                assert_eq!(damages.len(), 1, "{short}");
                assert_eq!(damages[0].file, short);
                let _ = db.clean_tombstones();
                let _ = db.merge_day(day_of_ms(START_MS));
                let _ = db.run_maintenance(START_MS + 3 * DAY_MS);
            }
        }
        corpus.world.disk.cut_power_at(Some(0));
        corpus.world.disk = Disk::with_files(&corpus.world.disk.files());
        let db = corpus.world.open();
        assert_eq!(read_all(&db).expect("read"), corpus.whole, "{short} may be read again");
        corpus.world.kill(db);
    }
}

#[test]
fn a_stripe_that_the_log_replaced_is_no_damage_any_more() {
    let mut world = World::new(START_MS);
    let db = world.open();
    for _ in 0..20 {
        world.pass(5000);
        assert!(world.scrape(&db, 0, 4));
    }
    // Written into the day, and still in the log.
    world.pass(31 * 60_000);
    world.maintain(&db).expect("maintenance");
    world.kill(db);
    let mut files = world.disk.files();
    let (name, bytes) = files.iter_mut().find(|(name, _)| name.contains("/days/")).expect("a day");
    *bytes.last_mut().expect("chunks") ^= 1;
    let file = name.strip_prefix(PREFIX).expect("below the directory").to_owned();
    world.disk = Disk::with_files(&files);
    let db = world.open();
    world.compare(&db);
    db.seal_all().expect("seal");
    world.kill(db);
    assert!(world.disk.files().keys().any(|name| name.ends_with(&file)), "{file} is left");

    let db = world.open();
    world.compare(&db);
    assert_eq!(db.damages(), []);
    db.merge_day(day_of_ms(START_MS)).expect("merge");
    world.compare(&db);
    assert_eq!(db.damages(), []);
}
