//! `narthex test rules FILE...`: do rules do what their tests say?
//!
//! The files are those of promtool; each test is run over a storage in memory
//! by the same groups and the same engine that the server runs.

mod file;
mod report;
mod run;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use regex::Regex;

use super::Subcommand;
use report::{Case, Suite};

/// The subcommand.
pub const SUBCOMMAND: Subcommand = Subcommand { command, run: run_command };

fn command() -> Command {
    Command::new("rules")
        .about("Run unit tests of rules; the exit code is 1 if one of them fails")
        .arg(
            Arg::new("files")
                .value_name("FILE")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("run")
                .long("run")
                .value_name("REGEX")
                .action(ArgAction::Append)
                .help("Run only tests whose names match; may be repeated"),
        )
        .arg(
            Arg::new("junit")
                .long("junit")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write the results as JUnit XML"),
        )
        .arg(
            Arg::new("diff")
                .long("diff")
                .action(ArgAction::SetTrue)
                .help("Show what differs line by line"),
        )
        .arg(
            Arg::new("debug")
                .long("debug")
                .action(ArgAction::SetTrue)
                .help("Say which test begins and how long it took"),
        )
        .arg(
            Arg::new("ignore-unknown-fields")
                .long("ignore-unknown-fields")
                .action(ArgAction::SetTrue)
                .help("Pass over fields that rule files do not have"),
        )
}

/// How tests are run.
#[derive(Debug, Clone, Default)]
struct TestOptions {
    run: Option<Regex>,
    diff: bool,
    debug: bool,
    ignore_unknown_fields: bool,
}

fn run_command(matches: &ArgMatches) -> ExitCode {
    let patterns: Vec<&str> =
        matches.get_many::<String>("run").into_iter().flatten().map(String::as_str).collect();
    let run = match (patterns.is_empty(), Regex::new(&patterns.join("|"))) {
        (true, _) => None,
        (false, Ok(regex)) => Some(regex),
        (false, Err(error)) => {
            eprintln!("error: --run: {error}");
            return ExitCode::from(super::USAGE);
        }
    };
    let options = TestOptions {
        run,
        diff: matches.get_flag("diff"),
        debug: matches.get_flag("debug"),
        ignore_unknown_fields: matches.get_flag("ignore-unknown-fields"),
    };
    let mut suites = Vec::new();
    for path in matches.get_many::<PathBuf>("files").into_iter().flatten() {
        let suite = test_file(path, &options);
        let errors: Vec<&String> = suite.errors().collect();
        if errors.is_empty() {
            println!("  SUCCESS");
        } else {
            eprintln!("  FAILED:");
            errors.iter().for_each(|error| eprintln!("{error}\n"));
        }
        println!();
        suites.push(suite);
    }
    if let Some(path) = matches.get_one::<PathBuf>("junit")
        && let Err(error) = std::fs::write(path, report::junit(&suites))
    {
        eprintln!("error: {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    if suites.iter().all(|suite| suite.errors().next().is_none()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs all tests of one file.
fn test_file(path: &Path, options: &TestOptions) -> Suite {
    let mut suite = Suite { name: path.display().to_string(), ..Suite::default() };
    let file = match file::read(path) {
        Ok(file) => file,
        Err(error) => {
            suite.error = Some(error);
            return suite;
        }
    };
    for (i, test) in file.tests.iter().enumerate() {
        if options.run.as_ref().is_some_and(|run| !run.is_match(&test.name)) {
            continue;
        }
        let name = if test.name.is_empty() { format!("unnamed#{i}") } else { test.name.clone() };
        let started = std::time::Instant::now();
        if options.debug {
            println!("DEBUG: Starting test {name}");
        }
        let failures = run::run(&file, test, options);
        if options.debug {
            println!("DEBUG: Test {name} finished, took {:?}", started.elapsed());
        }
        suite.cases.push(Case { name, failures });
    }
    suite
}
