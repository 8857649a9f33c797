//! `narthex tsdb verify [DB_PATH]`: is everything as it was written?

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use narthex_storage::db::Db;

use super::progress::Bar;
use super::{open, path_argument, path_of, with_output};
use crate::cli::Subcommand;

/// The subcommand.
pub(super) const SUBCOMMAND: Subcommand = Subcommand { command, run };

fn command() -> Command {
    Command::new("verify")
        .about("Read and decode everything; the exit code is 1 if something is damaged")
        .arg(path_argument())
}

fn run(matches: &ArgMatches) -> ExitCode {
    with_output(|out| {
        let db = open(&path_of(matches))?;
        let is_right = verify(&db, out).map_err(|e| e.to_string())?;
        Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Prints what is wrong, and a sum; says whether nothing is.
pub(super) fn verify(db: &Db, out: &mut dyn Write) -> std::io::Result<bool> {
    // What a start met is left out of what is read below.
    let met = db.damages();
    let mut bar = Bar::new("verifying");
    let report = db.verify(&mut |done, total| bar.set(done, total))?;
    drop(bar);
    for damage in &met {
        writeln!(out, "{damage}")?;
    }
    for problem in &report.problems {
        writeln!(out, "{problem}")?;
    }
    let replay = db.stats().replay;
    if replay.dropped_items > 0 {
        writeln!(out, "{} items of the log were left out", replay.dropped_items)?;
    }
    let problems = met.len() + report.problems.len() + usize::from(replay.dropped_items > 0);
    writeln!(
        out,
        "{} stripes, {} chunks, {} samples, {} series in days; {} samples in the log; {} problems",
        report.stripes, report.chunks, report.samples, report.series, replay.samples, problems,
    )?;
    Ok(problems == 0)
}
