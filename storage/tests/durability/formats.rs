//! Data directories of every version of the formats can be read.
//!
//! `formats/<name>/` holds files as that version wrote them, and in
//! `answer.txt` what they say: series, milliseconds, bits of the value. A new
//! version adds a folder: `NARTHEX_WRITE_FORMAT=<name>` writes one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use narthex_storage::append::{SourceId, SyncClass};
use narthex_storage::db::{Db, day_of_ms};
use narthex_storage::labels::Matcher;

use crate::disk::Disk;
use crate::model::{Answer, read_all};
use crate::world::{DAY_MS, ROOT, World};

const START_MS: i64 = 19_700 * DAY_MS + 23 * 3_600_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/durability/formats")
}

/// A merged day, an open one, series in a segment and not, a log with rows of
/// two sources, a deletion.
fn write(name: &str) {
    let mut world = World::new(START_MS);
    world.has_segments = true;
    let db = world.open();
    for round in 0..100u32 {
        world.pass(60_000);
        assert!(world.scrape(&db, round % 2, 4));
    }
    db.seal_all().expect("seal");
    db.merge_day(day_of_ms(START_MS)).expect("merge");
    for _ in 0..3 {
        world.pass(61_000);
        world.maintain(&db).expect("maintenance");
    }
    assert!(db.stats().series_segments > 0);
    let matcher = Matcher::equal("id", "1");
    db.delete(&[vec![matcher]], 0, START_MS + 600_000).expect("delete");
    world.model.delete(|id, t| id == 1 && t <= START_MS + 600_000, true);
    for round in 0..20 {
        world.pass(15_000);
        assert!(world.scrape(&db, 0, 4));
        let row = (world.now_ms, vec![7000 + round / 10, 7010]);
        world.append(&db, SourceId(9), SyncClass::RemoteWrite, &[row]).expect("append");
    }
    let whole = world.compare(&db);
    db.close().expect("close");
    let folder = folder().join(name);
    for (file, bytes) in world.disk.files() {
        let path = folder.join(file.strip_prefix("data/narthex/").expect("below the directory"));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        std::fs::write(path, bytes).expect("write");
    }
    let lines = whole.iter().flat_map(|(id, samples)| {
        samples.iter().map(move |(t, bits)| format!("{id} {t} {bits:x}\n"))
    });
    std::fs::write(folder.join("answer.txt"), lines.collect::<String>()).expect("write");
}

/// All files below a folder, named as in a data directory.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("the folder is there") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().is_some_and(|n| n != "answer.txt") {
                let name = path.strip_prefix(folder).expect("below it").to_str().expect("UTF-8");
                let bytes = std::fs::read(&path).expect("readable");
                found.insert(format!("data/narthex/{name}"), bytes);
            }
        }
    }
    found
}

fn answer(folder: &Path) -> Answer {
    let text = std::fs::read_to_string(folder.join("answer.txt")).expect("readable");
    let mut answer = Answer::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let mut next = || fields.next().expect("three fields");
        let (id, t, bits) = (next(), next(), next());
        answer
            .entry(id.parse().expect("a series"))
            .or_default()
            .push((t.parse().expect("milliseconds"), u64::from_str_radix(bits, 16).expect("bits")));
    }
    answer
}

#[test]
fn directories_of_all_versions_are_read() {
    if let Ok(name) = std::env::var("NARTHEX_WRITE_FORMAT") {
        write(&name);
    }
    let mut versions = 0;
    for entry in std::fs::read_dir(folder()).expect("the folder is there") {
        let folder = entry.expect("readable").path();
        let mut world = World::new(START_MS + DAY_MS / 2);
        world.disk = Disk::with_files(&files(&folder));
        let db = Db::open(world.options(ROOT)).expect("open");
        assert_eq!(db.damages(), [], "{}", folder.display());
        assert_eq!(read_all(&db).expect("read"), answer(&folder), "{}", folder.display());
        // And goes on as today's.
        world.pass(1000);
        assert!(world.scrape(&db, 0, 5));
        db.seal_all().expect("seal");
        versions += 1;
    }
    assert!(versions >= 2, "{versions} versions");
}
