//! `narthex tsdb dump` and `dump-openmetrics`: which samples are there?
//!
//! One line per sample, series after series in the order of their labels.
//! Histograms are in the first form only; OpenMetrics cannot say them.

use std::io::Write;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use narthex_query::parse::parse_selector;
use narthex_storage::db::Db;
use narthex_storage::labels::{
    Labels, METRIC_NAME, Matcher, is_legacy_label_name, is_legacy_metric_name,
};
use narthex_storage::read::{Column, Queryable as _};

use super::progress::Bar;
use super::{open, path_argument, path_of, with_output};
use crate::cli::Subcommand;
use narthex_query::quote::short_float;

/// `tsdb dump`.
pub(super) const SUBCOMMAND: Subcommand = Subcommand { command, run };
/// `tsdb dump-openmetrics`.
pub(super) const OPENMETRICS: Subcommand =
    Subcommand { command: openmetrics_command, run: run_openmetrics };

/// How a sample is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Labels, value, milliseconds.
    Lines,
    /// Metric, labels, value, seconds; `# EOF` at the end.
    OpenMetrics,
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) form: Form,
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    /// Series that match one of them; all, if there is none.
    pub(super) selectors: Vec<Vec<Matcher>>,
}

fn command() -> Command {
    arguments(Command::new("dump").about("Write the samples of a data directory, one per line"))
}

fn openmetrics_command() -> Command {
    let about = "Write the float samples of a data directory as OpenMetrics";
    arguments(Command::new("dump-openmetrics").about(about))
}

fn arguments(command: Command) -> Command {
    let time = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("MS")
            .allow_hyphen_values(true)
            .help(help)
            .value_parser(value_parser!(i64))
    };
    command
        .arg(path_argument())
        .arg(time("min-time", "Earliest timestamp, in milliseconds since the epoch"))
        .arg(time("max-time", "Latest timestamp, in milliseconds since the epoch"))
        .arg(
            Arg::new("match")
                .long("match")
                .value_name("SELECTOR")
                .action(ArgAction::Append)
                .help("Series to write; may be given several times [default: all]"),
        )
}

fn run(matches: &ArgMatches) -> ExitCode {
    run_as(Form::Lines, matches)
}

fn run_openmetrics(matches: &ArgMatches) -> ExitCode {
    run_as(Form::OpenMetrics, matches)
}

fn run_as(form: Form, matches: &ArgMatches) -> ExitCode {
    with_output(|out| {
        let time = |name| matches.get_one::<i64>(name).copied();
        let texts = matches.get_many::<String>("match").into_iter().flatten();
        let selectors = texts.map(|t| parse_selector(t).map_err(|e| format!("{t}: {e}")));
        let request = Request {
            form,
            min_ms: time("min-time").unwrap_or(i64::MIN),
            max_ms: time("max-time").unwrap_or(i64::MAX),
            selectors: selectors.collect::<Result<_, _>>()?,
        };
        let db = open(&path_of(matches))?;
        dump(&db, &request, out)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Writes what is asked for. Holds the ids of the series, and one of them.
pub(super) fn dump(db: &Db, request: &Request, out: &mut dyn Write) -> Result<(), String> {
    let querier = db.querier(request.min_ms, request.max_ms).map_err(|e| e.to_string())?;
    let all = [Vec::new()];
    let selectors = if request.selectors.is_empty() { &all[..] } else { &request.selectors };
    let mut series = Vec::new();
    for matchers in selectors {
        series.extend(querier.select(matchers, false).map_err(|e| e.to_string())?);
    }
    series.sort_unstable();
    series.dedup();
    let labels = series.iter().map(|s| querier.labels(*s).map(|l| (l, *s)));
    let mut sorted = labels.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    sorted.sort();
    let (mut column, mut bar) = (Column::new(), Bar::new("writing"));
    for (i, (labels, id)) in sorted.iter().enumerate() {
        querier
            .read(*id, request.min_ms, request.max_ms, &mut column)
            .map_err(|e| e.to_string())?;
        write_series(labels, &column, request.form, out).map_err(|e| e.to_string())?;
        bar.set(i as u64 + 1, sorted.len() as u64);
    }
    if request.form == Form::OpenMetrics {
        writeln!(out, "# EOF").map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn write_series(
    labels: &Labels,
    column: &Column,
    form: Form,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let head = match form {
        Form::Lines => labels.to_string(),
        Form::OpenMetrics => open_metrics_series(labels),
    };
    let mut histograms = column.histograms.iter().peekable();
    for (i, timestamp_ms) in column.timestamps().iter().enumerate() {
        let histogram = histograms.next_if(|(at, _)| *at as usize == i);
        match (form, histogram) {
            (Form::Lines, Some((_, histogram))) => {
                writeln!(out, "{head} {histogram} {timestamp_ms}")?;
            }
            (Form::Lines, None) => {
                let value = short_float(column.floats[i]);
                writeln!(out, "{head} {value} {timestamp_ms}")?;
            }
            (Form::OpenMetrics, Some(_)) => {}
            (Form::OpenMetrics, None) => {
                let value = short_float(column.floats[i]);
                let (seconds, rest) =
                    (timestamp_ms.div_euclid(1000), timestamp_ms.rem_euclid(1000));
                writeln!(out, "{head} {value} {seconds}.{rest:03}")?;
            }
        }
    }
    Ok(())
}

/// `name{a="b"}`; names that need quotes are within the braces.
fn open_metrics_series(labels: &Labels) -> String {
    let name = labels.metric_name().unwrap_or_default();
    let (mut out, mut parts) = (String::new(), Vec::new());
    if is_legacy_metric_name(name) {
        out.push_str(name);
    } else if !name.is_empty() {
        parts.push(quoted(name));
    }
    for (name, value) in labels.iter().filter(|(name, _)| *name != METRIC_NAME) {
        let name = if is_legacy_label_name(name) { name.to_owned() } else { quoted(name) };
        parts.push(format!("{name}={}", quoted(value)));
    }
    out + "{" + &parts.join(",") + "}"
}

/// As OpenMetrics quotes, which knows three escapes.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}
