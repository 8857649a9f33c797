//! What is left when the power goes, and the sealed data are in RocksDB?
//!
//! The tests of `durability` where they make sense: log, series and small files
//! are on the simulated disk, the database is on the machine's. What RocksDB had
//! not flushed is lost with each life, what it had is there.

#[path = "../durability/disk.rs"]
#[allow(dead_code, reason = "some of its faults are for other tests")]
mod disk;
#[path = "../durability/model.rs"]
mod model;
#[path = "../durability/power.rs"]
mod power;
#[path = "../durability/rng.rs"]
mod rng;
#[path = "../durability/world.rs"]
#[allow(dead_code, reason = "some of it is for other tests")]
mod world;

use std::path::Path;

use narthex_storage::db::Db;
use narthex_storage::engine::Engine;

/// What keeps the sealed data.
const ENGINE: Engine = Engine::RocksDb;
/// Seeds of power cuts that are tried without further ado: each writes to a disk.
const POWER_SEEDS: u64 = 40;

/// Ends a process: RocksDB writes when it is closed, which is undone.
fn stop(db: Db, path: &Path) {
    let folder = path.join("rocksdb");
    let kept = tempfile::tempdir().expect("temporary directory");
    // Tables may come and go meanwhile: until nothing did.
    loop {
        let before = names_and_sizes(&folder);
        let copied = copy(&folder, kept.path());
        if copied.is_ok() && names_and_sizes(&folder) == before {
            break;
        }
    }
    drop(db);
    std::fs::remove_dir_all(&folder).expect("remove");
    std::fs::create_dir_all(&folder).expect("mkdir");
    copy(kept.path(), &folder).expect("copy");
}

/// Makes `to` hold the files of `from`, and no others.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::remove_dir_all(to)?;
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn names_and_sizes(folder: &Path) -> Vec<(std::ffi::OsString, u64)> {
    let entries = std::fs::read_dir(folder).expect("the database is there").flatten();
    let size = |e: &std::fs::DirEntry| e.metadata().map_or(0, |m| m.len());
    let mut all: Vec<_> = entries.map(|e| (e.file_name(), size(&e))).collect();
    all.sort_unstable();
    all
}
