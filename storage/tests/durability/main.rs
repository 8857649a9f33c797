//! What is left when the power goes, a call fails, or a byte rots?
//!
//! The storage runs on a simulated disk, so that one of many lives takes a
//! millisecond. A failing seed prints itself; `NARTHEX_POWER_SEED=<seed>` runs
//! it alone, `NARTHEX_POWER_SEEDS=<count>` as many as there is time for.

mod damage;
mod disk;
mod errors;
mod formats;
mod full;
mod log;
mod model;
mod power;
mod rng;
mod world;

/// What keeps the sealed data.
const ENGINE: narthex_storage::engine::Engine = narthex_storage::engine::Engine::Files;
/// Seeds of power cuts that are tried without further ado.
const POWER_SEEDS: u64 = 300;

/// Ends a process: nothing of what this engine writes escapes the disk.
fn stop(db: narthex_storage::db::Db, _path: &std::path::Path) {
    drop(db);
}
