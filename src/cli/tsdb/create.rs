//! `narthex tsdb create-blocks-from openmetrics FILE [OUTPUT]`: how do samples of
//! another system get in?
//!
//! The file is read twice: for what is wrong in it, before anything is written,
//! then in the order of its lines, a batch at a time. Samples may be in any order
//! of time. The output may be a data directory that nobody uses; otherwise it is
//! made.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use narthex_storage::append::{Appendable as _, SourceId, SyncClass};
use narthex_storage::db::{Db, DbOptions};
use narthex_storage::labels::{Labels, LabelsBuilder};
use narthex_storage::sample::MetricKind;

use super::progress::Bar;
use super::{options_of, with_output};
use crate::cli::Subcommand;
use crate::scrape::scanner::{Entry, RawLabels, openmetrics};

/// The subcommand.
pub(super) const SUBCOMMAND: Subcommand = Subcommand { command, run };

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 30;
/// Samples of a batch.
const BATCH: usize = 100_000;

fn command() -> Command {
    Command::new("create-blocks-from").about("Import samples").subcommand_required(true).subcommand(
        Command::new("openmetrics")
            .about("Import samples from OpenMetrics text with timestamps")
            .arg(
                Arg::new("file")
                    .value_name("INPUT_FILE")
                    .required(true)
                    .value_parser(value_parser!(PathBuf)),
            )
            .arg(
                Arg::new("path")
                    .value_name("OUTPUT_DIRECTORY")
                    .help("The data directory")
                    .default_value(super::DEFAULT_PATH)
                    .value_parser(value_parser!(PathBuf)),
            ),
    )
}

fn run(matches: &ArgMatches) -> ExitCode {
    with_output(|out| {
        let Some((_, matches)) = matches.subcommand() else {
            return Err("from what?".to_owned());
        };
        let file = matches.get_one::<PathBuf>("file").ok_or("which file?")?;
        let taken = import(file, &super::path_of(matches))?;
        writeln!(out, "{taken} samples").map_err(|e| e.to_string())?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Imports a file; the number of samples that were taken.
pub(super) fn import(file: &Path, target: &Path) -> Result<u64, String> {
    let said = |e: std::io::Error| format!("{}: {e}", file.display());
    let size_bytes = std::fs::metadata(file).map_err(said)?.len();
    if size_bytes > MAX_FILE_BYTES {
        let file = file.display();
        return Err(format!("{file}: {size_bytes} bytes are more than {MAX_FILE_BYTES}"));
    }
    let page = std::fs::read(file).map_err(said)?;
    // First for what is wrong.
    let mut count = 0u64;
    each_sample(&page, &mut |_, _, _, _| {
        count += 1;
        Ok(())
    })
    .map_err(|message| format!("{}: {message}", file.display()))?;
    let db = Db::open(DbOptions {
        // As old as it may be.
        out_of_order_window_ms: i64::MAX,
        ..options_of(target)
    })
    .map_err(|e| e.to_string())?;
    let mut bar = Bar::new("importing");
    let (mut batch, mut taken) = (Vec::with_capacity(BATCH), 0);
    each_sample(&page, &mut |labels, value, timestamp_ms, at| {
        batch.push((timestamp_ms, labels, value));
        if batch.len() == BATCH {
            taken += write(&db, &mut batch)?;
            bar.set(at as u64, size_bytes);
        }
        Ok(())
    })
    .map_err(|message| format!("{}: {message}", file.display()))?;
    taken += write(&db, &mut batch)?;
    db.seal_all().map_err(|e| e.to_string())?;
    db.close().map_err(|e| e.to_string())?;
    bar.set(1, 1);
    Ok(taken)
}

/// Calls `f` with labels, value, time and position of each sample.
fn each_sample(
    page: &[u8],
    f: &mut dyn FnMut(Labels, f64, i64, usize) -> Result<(), String>,
) -> Result<(), String> {
    let (mut at, mut raw, mut kind) = (0, RawLabels::default(), MetricKind::Unknown);
    loop {
        let (entry, next) = openmetrics::entry(page, at, &mut raw).map_err(|e| e.to_string())?;
        match entry {
            Entry::End => return Ok(()),
            Entry::Type(_, of_family) => kind = of_family,
            Entry::Sample(sample) => {
                let series = String::from_utf8_lossy(&page[sample.series.clone()]);
                let mut labels = LabelsBuilder::new();
                raw.resolve(page, kind, &mut labels).map_err(|e| format!("{series}: {e}"))?;
                let timestamp_ms = sample
                    .timestamp_ms
                    .ok_or_else(|| format!("expected timestamp for series {series}"))?;
                f(labels.build(), sample.value, timestamp_ms, at)?;
            }
            Entry::Comment | Entry::Help(..) | Entry::Unit(..) => {}
        }
        at = next;
    }
}

/// Writes a batch in the order of time.
fn write(db: &Db, batch: &mut Vec<(i64, Labels, f64)>) -> Result<u64, String> {
    batch.sort_by_key(|(timestamp_ms, ..)| *timestamp_ms);
    let mut appender = db.appender(SourceId(0), SyncClass::RemoteWrite);
    let mut taken = 0;
    for (timestamp_ms, labels, value) in batch.drain(..) {
        let series = appender.series(&labels).map_err(|e| format!("{labels}: {e}"))?;
        match appender.append(series, timestamp_ms, 0, value) {
            Ok(()) => taken += 1,
            Err(e) => eprintln!("warning: {labels} at {timestamp_ms}: {e}"),
        }
    }
    let committed = appender.commit().map_err(|e| e.to_string())?;
    db.run_maintenance(0).map_err(|e| e.to_string())?;
    Ok(taken - committed.refused.min(taken))
}
