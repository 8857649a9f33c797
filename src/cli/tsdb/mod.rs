//! `narthex tsdb ...`: what is in a data directory?
//!
//! A directory is opened as the server does, so its log is read, too, and one that
//! is in use is refused: take a snapshot and look at that. Names of commands and
//! flags, and what they print, are promtool's where the same can be said.

mod analyze;
mod create;
mod dump;
mod list;
mod progress;
#[cfg(test)]
mod tests;
mod verify;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, value_parser};
use narthex_storage::db::{Db, DbOptions};

use super::Subcommand;

/// The subcommands.
pub const SUBCOMMANDS: &[Subcommand] = &[
    list::SUBCOMMAND,
    analyze::SUBCOMMAND,
    dump::SUBCOMMAND,
    dump::OPENMETRICS,
    verify::SUBCOMMAND,
    create::SUBCOMMAND,
];

/// promtool's.
const DEFAULT_PATH: &str = "data/";

fn path_argument() -> Arg {
    Arg::new("path")
        .value_name("DB_PATH")
        .help("The data directory")
        .default_value(DEFAULT_PATH)
        .value_parser(value_parser!(PathBuf))
}

fn path_of(matches: &ArgMatches) -> PathBuf {
    matches.get_one::<PathBuf>("path").cloned().unwrap_or_else(|| PathBuf::from(DEFAULT_PATH))
}

/// Options under which nothing is deleted, merged or refused for its age.
fn options_of(path: &Path) -> DbOptions {
    DbOptions {
        retention_time_ms: 0,
        merge_days: false,
        background: false,
        future_limit_ms: i64::MAX,
        ..DbOptions::new(path)
    }
}

/// Opens a directory that is there.
fn open(path: &Path) -> Result<Db, String> {
    if !path.is_dir() {
        return Err(format!("{} is not a directory", path.display()));
    }
    Db::open(options_of(path)).map_err(|e| e.to_string())
}

/// Runs `f` with standard output; says what went wrong.
fn with_output(f: impl FnOnce(&mut dyn std::io::Write) -> Result<ExitCode, String>) -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let result = f(&mut out).and_then(|code| out.flush().map(|()| code).map_err(|e| e.to_string()));
    result.unwrap_or_else(|message| {
        eprintln!("error: {message}");
        ExitCode::FAILURE
    })
}

/// A time as Prometheus' tools print it: `2024-02-29 00:00:00 +0000 UTC`.
fn time_text(timestamp_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(timestamp_ms).map_or_else(
        || timestamp_ms.to_string(),
        |time| time.format("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string(),
    )
}
