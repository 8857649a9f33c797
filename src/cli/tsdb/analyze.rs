//! `narthex tsdb analyze [DB_PATH]`: which labels have the most series?

use std::io::Write;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use narthex_storage::db::Db;

use super::{open, path_argument, path_of, time_text, with_output};
use crate::cli::Subcommand;

/// The subcommand.
pub(super) const SUBCOMMAND: Subcommand = Subcommand { command, run };

fn command() -> Command {
    Command::new("analyze")
        .about("Show which labels have the most series, and what a sample takes")
        .arg(path_argument())
        .arg(
            Arg::new("limit")
                .long("limit")
                .value_name("N")
                .default_value("20")
                .value_parser(value_parser!(usize))
                .help("How many entries of each list are shown"),
        )
}

fn run(matches: &ArgMatches) -> ExitCode {
    with_output(|out| {
        let db = open(&path_of(matches))?;
        let limit = matches.get_one::<usize>("limit").copied().unwrap_or(20);
        analyze(&db, limit, out).map_err(|e| e.to_string())?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Prints sums, then lists of labels.
pub(super) fn analyze(db: &Db, limit: usize, out: &mut dyn Write) -> std::io::Result<()> {
    let stats = db.stats();
    let found = db.cardinality_between(i64::MIN, i64::MAX, limit);
    let (Some(min_ms), Some(max_ms)) = (stats.min_time_ms, stats.max_time_ms) else {
        return writeln!(out, "There are no samples.");
    };
    let chunks: u64 = stats.days.iter().map(|d| d.chunks).sum();
    let per = |bytes: u64, count: u64| bytes as f64 / count.max(1) as f64;
    writeln!(out, "Times: {} to {}", time_text(min_ms), time_text(max_ms))?;
    writeln!(out, "Total Series: {}", found.series)?;
    writeln!(out, "Label pairs: {}", found.pairs)?;
    writeln!(out, "Samples in days: {}", stats.days_samples)?;
    writeln!(out, "Samples per chunk: {:.1}", per(stats.days_samples, chunks))?;
    writeln!(out, "Bytes per sample: {:.3}", per(stats.days_bytes, stats.days_samples))?;
    writeln!(out, "Of these, not chunks: {:.3}", per(stats.days_header_bytes, stats.days_samples))?;
    writeln!(out, "Bytes of series: {}", stats.series_file_bytes)?;
    writeln!(out, "Bytes of the log: {}", stats.wal_bytes)?;
    let lists = [
        ("Highest cardinality labels:", &found.values_by_name),
        ("Highest cardinality metric names:", &found.series_by_metric),
        ("Most common label pairs:", &found.series_by_pair),
        ("Label names with highest cumulative label value length:", &found.bytes_by_name),
    ];
    for (heading, list) in lists {
        writeln!(out, "\n{heading}")?;
        for (name, count) in list {
            writeln!(out, "{count} {name}")?;
        }
    }
    Ok(())
}
