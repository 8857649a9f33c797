//! `narthex tsdb list [DB_PATH]`: which days are there?

use std::io::Write;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use narthex_storage::db::{Db, DbStats};

use super::{open, path_argument, path_of, time_text, with_output};
use crate::cli::Subcommand;
use crate::config::units::{format_duration, format_size};

/// The subcommand.
pub(super) const SUBCOMMAND: Subcommand = Subcommand { command, run };

const HEADINGS: [&str; 8] =
    ["DAY", "MIN TIME", "MAX TIME", "DURATION", "NUM SAMPLES", "NUM CHUNKS", "NUM STRIPES", "SIZE"];

fn command() -> Command {
    Command::new("list").about("List the days of a data directory").arg(path_argument()).arg(
        Arg::new("human-readable")
            .long("human-readable")
            .short('r')
            .action(ArgAction::SetTrue)
            .help("Print times and sizes for people"),
    )
}

fn run(matches: &ArgMatches) -> ExitCode {
    with_output(|out| {
        let db = open(&path_of(matches))?;
        list(&db, matches.get_flag("human-readable"), out).map_err(|e| e.to_string())?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Prints a table of the days, and a line for what is in none yet.
pub(super) fn list(db: &Db, is_readable: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let stats = db.stats();
    let rows: Vec<[String; 8]> = cells(&stats, is_readable);
    let mut widths = HEADINGS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let headings = HEADINGS.map(str::to_owned);
    for row in std::iter::once(&headings).chain(&rows) {
        let padded = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", padded.collect::<Vec<String>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn cells(stats: &DbStats, is_readable: bool) -> Vec<[String; 8]> {
    let time = |ms: i64| if is_readable { time_text(ms) } else { ms.to_string() };
    let size = |bytes: u64| if is_readable { format_size(bytes) } else { bytes.to_string() };
    let duration = |ms: i64| {
        let length = std::time::Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        format_duration(length)
    };
    stats
        .days
        .iter()
        .map(|day| {
            let date = time_text(day.day.saturating_mul(86_400_000));
            [
                date.split(' ').next().unwrap_or_default().to_owned(),
                time(day.min_time_ms),
                time(day.max_time_ms),
                duration(day.max_time_ms.saturating_sub(day.min_time_ms)),
                day.samples.to_string(),
                day.chunks.to_string(),
                day.stripes.to_string(),
                size(day.bytes),
            ]
        })
        .collect()
}
