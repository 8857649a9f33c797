//! `narthex rules backfill`: records for the past what recording rules would
//! have recorded.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use narthex_query::engine::{Engine, EngineOptions};
use narthex_query::parse::ParseOptions;
use narthex_storage::db::{Db, DbOptions};

use super::Subcommand;
use crate::api::parse_time_ms;
use crate::rules::file::{FileOptions, read_rules};
use crate::rules::{Backfill, Filled, Group, GroupOptions};
use crate::template::duration;

/// The subcommand.
pub const SUBCOMMAND: Subcommand = Subcommand { command, run };

/// How late a sample may be: as late as anybody wants.
const WINDOW_MS: i64 = i64::MAX / 4;

fn command() -> Command {
    Command::new("backfill")
        .about(
            "Fill in what recording rules would have recorded. The server must not run on this \
             data directory; a snapshot is one, too",
        )
        .arg(
            Arg::new("files")
                .value_name("FILE")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
                .help("Rule files, named as in rule_files: their names decide on which slots"),
        )
        .arg(
            Arg::new("start")
                .long("start")
                .value_name("TIME")
                .required(true)
                .help("First time, as RFC 3339 or in seconds since 1970"),
        )
        .arg(
            Arg::new("end")
                .long("end")
                .value_name("TIME")
                .required(true)
                .help("Last time; slots on it are filled in as well"),
        )
        .arg(
            Arg::new("interval")
                .long("eval-interval")
                .value_name("DURATION")
                .default_value("60s")
                .help("The interval of groups that name none: global.evaluation_interval"),
        )
        .arg(
            Arg::new("data")
                .long("storage.tsdb.path")
                .value_name("DIRECTORY")
                .default_value("data/")
                .value_parser(value_parser!(PathBuf))
                .help("The data directory"),
        )
}

/// What is to be filled in.
struct Wanted {
    files: Vec<PathBuf>,
    start_ms: i64,
    end_ms: i64,
    interval_ms: i64,
    data: PathBuf,
}

impl Wanted {
    fn read(matches: &ArgMatches) -> Result<Self, String> {
        let text = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
        let time = |name: &str| {
            parse_time_ms(text(name))
                .ok_or_else(|| format!("--{name}: {:?} is not a time", text(name)))
        };
        let wanted = Self {
            files: matches.get_many("files").into_iter().flatten().cloned().collect(),
            start_ms: time("start")?,
            end_ms: time("end")?,
            interval_ms: duration::parse_ms(text("interval"))
                .map_err(|error| format!("--eval-interval: {error}"))?,
            data: matches.get_one::<PathBuf>("data").cloned().unwrap_or_default(),
        };
        if wanted.interval_ms <= 0 {
            return Err("--eval-interval must be above 0".to_owned());
        }
        if wanted.end_ms < wanted.start_ms {
            return Err("--end is before --start".to_owned());
        }
        Ok(wanted)
    }
}

fn run(matches: &ArgMatches) -> ExitCode {
    let wanted = match Wanted::read(matches) {
        Ok(wanted) => wanted,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(super::USAGE);
        }
    };
    match fill(&wanted) {
        Ok(filled) if filled.failures.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Fills in group after group, and says what came of each.
fn fill(wanted: &Wanted) -> Result<Filled, String> {
    let groups = groups(wanted)?;
    if !wanted.data.is_dir() {
        return Err(format!("{} is no directory", wanted.data.display()));
    }
    let db = Db::open(DbOptions {
        retention_time_ms: 0,
        out_of_order_window_ms: WINDOW_MS,
        background: false,
        ..DbOptions::new(&wanted.data)
    });
    let db = Arc::new(db.map_err(|error| error.to_string())?);
    let backfill = Backfill {
        engine: Engine::new(EngineOptions {
            default_subquery_step_ms: wanted.interval_ms,
            timeout: None,
            ..EngineOptions::default()
        }),
        queryable: Arc::clone(&db) as _,
        appendable: Arc::clone(&db) as _,
        query_offset_ms: 0,
    };
    let mut total = Filled::default();
    for group in &groups {
        let mut filled = backfill.fill(group, wanted.start_ms, wanted.end_ms);
        println!("{}: {} samples, {} refused", group.key(), filled.samples, filled.refused);
        for failure in &filled.failures {
            eprintln!("  FAILED: {failure}");
        }
        total.samples += filled.samples;
        total.refused += filled.refused;
        total.failures.append(&mut filled.failures);
        // The open rows of one group are enough for memory to hold.
        db.seal_all().map_err(|error| error.to_string())?;
    }
    db.close().map_err(|error| error.to_string())?;
    Ok(total)
}

fn groups(wanted: &Wanted) -> Result<Vec<Group>, String> {
    let read = FileOptions { parse: ParseOptions::default(), ignore_unknown_fields: false };
    let mut groups = Vec::new();
    for path in &wanted.files {
        let file = read_rules(Path::new(path), &read).map_err(|errors| {
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        })?;
        let options =
            GroupOptions { file: file.name.clone(), default_interval_ms: wanted.interval_ms };
        for spec in &file.groups {
            groups.push(Group::new(spec, &options)?);
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use narthex_query::parse::parse;
    use narthex_storage::append::{Appendable as _, SourceId, SyncClass};
    use narthex_storage::labels::Labels;

    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const START_MS: i64 = 20_000 * DAY_MS;

    const RULES: &str = "groups: [{name: g, rules: [{record: 'x:sum', expr: sum(x)}, \
                         {record: 'x:twice', expr: 2 * x:sum, labels: {a: b}}, \
                         {alert: A, expr: x}]}]";

    /// Two days of `x`, with a gap of an hour, and something newer.
    fn data(path: &Path) {
        let options = DbOptions { background: false, ..DbOptions::new(path) };
        let db = Db::open(DbOptions { retention_time_ms: 0, ..options }).unwrap();
        let x = Labels::from_pairs([("__name__", "x"), ("i", "1")]);
        for minute in (0..2 * 1440).filter(|minute| !(600..660).contains(minute)) {
            let mut appender = db.appender(SourceId(1), SyncClass::RemoteWrite);
            let series = appender.series(&x).unwrap();
            appender.append(series, START_MS + minute * 60_000, 0, minute as f64).unwrap();
            appender.commit().unwrap();
        }
        db.close().unwrap();
    }

    fn count(path: &Path, query: &str, at_ms: i64) -> f64 {
        let db = Db::open(DbOptions { retention_time_ms: 0, ..DbOptions::new(path) }).unwrap();
        let expr = parse(query, &ParseOptions::default()).unwrap();
        let options = Default::default();
        let result = Engine::default().instant(&db, &expr, query, at_ms, &options).unwrap();
        let narthex_query::value::QueryValue::Vector(vector) = result.value else { panic!() };
        match vector.as_slice() {
            [] => 0.0,
            [only] => match only.value {
                narthex_storage::sample::Value::Float(value) => value,
                narthex_storage::sample::Value::Histogram(_) => panic!("a histogram"),
            },
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn the_past_is_filled_in_once() {
        let directory = tempfile::tempdir().unwrap();
        let (data_path, rules) = (directory.path().join("data"), directory.path().join("r.yml"));
        std::fs::create_dir(&data_path).unwrap();
        std::fs::write(&rules, RULES).unwrap();
        data(&data_path);
        let wanted = Wanted {
            files: vec![rules],
            start_ms: START_MS,
            end_ms: START_MS + 2 * DAY_MS - 1,
            interval_ms: 60_000,
            data: data_path.clone(),
        };
        let filled = fill(&wanted).unwrap();
        assert_eq!(filled.failures, Vec::<String>::new());
        // Within the look-back of five minutes the gap has values, too.
        let slots = 2 * 1440 - 56;
        assert!((2 * slots - 4..=2 * slots).contains(&i64::try_from(filled.samples).unwrap()));
        let end_ms = START_MS + 2 * DAY_MS - 60_000;
        let sums = count(&data_path, "count_over_time(x:sum[2d])", end_ms);
        assert_eq!(sums, count(&data_path, "count_over_time(x:twice{a='b'}[2d])", end_ms));
        assert_eq!(count(&data_path, "x:twice", end_ms), 2.0 * count(&data_path, "x:sum", end_ms));
        // In the gap the series has ended, with a marker.
        let gap_ms = START_MS + 610 * 60_000;
        assert_eq!(count(&data_path, "count_over_time(x[1m])", gap_ms), 0.0);
        assert_eq!(count(&data_path, "x:sum", gap_ms), 0.0);
        assert_eq!(count(&data_path, "ALERTS", end_ms), 0.0);

        // Again: nothing is doubled.
        fill(&wanted).unwrap();
        assert_eq!(count(&data_path, "count_over_time(x:sum[2d])", end_ms), sums);
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let matches = |arguments: &[&str]| {
            let all = ["backfill"].iter().chain(arguments);
            Wanted::read(&command().try_get_matches_from(all).unwrap()).map(|_| ())
        };
        let fail = |arguments: &[&str]| matches(arguments).unwrap_err();
        assert_eq!(fail(&["--start=5", "--end=x", "f"]), "--end: \"x\" is not a time");
        assert_eq!(fail(&["--start=5", "--end=4", "f"]), "--end is before --start");
        assert_eq!(matches(&["--start=2025-01-01T00:00:00Z", "--end=1.8e9", "f"]), Ok(()));
        let missing = Wanted {
            files: Vec::new(),
            start_ms: 0,
            end_ms: 1,
            interval_ms: 1,
            data: PathBuf::from("/nowhere/at/all"),
        };
        assert_eq!(fill(&missing).unwrap_err(), "/nowhere/at/all is no directory");
    }
}
