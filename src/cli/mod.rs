//! What did the operator type? Subcommands and flags.
//!
//! Without a subcommand narthex serves: [`parse`] then gives [`Options`]. A
//! subcommand is a file of this room with a [`Subcommand`], listed in
//! [`GROUPS`] under the word that stands before it.

mod backfill;
mod check_config;
mod check_metrics;
mod check_rules;
mod check_service_discovery;
pub mod features;
pub mod flags;
mod kept_labels;
pub mod options;
mod promql_format;
mod test_promql;
mod test_rules;
mod tsdb;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, Command};

pub use features::Features;
use flags::RawFlags;
pub use options::{ConfigSource, Options};

/// Something that narthex does instead of serving.
pub struct Subcommand {
    /// Its name, arguments and help.
    pub command: fn() -> Command,
    /// Does it; the exit code is 1 if what was checked is not right.
    pub run: fn(&ArgMatches) -> ExitCode,
}

/// The words before subcommands, with help.
const GROUPS: &[(&str, &str, &[Subcommand])] = &[
    (
        "check",
        "Check files before they are used",
        &[
            check_config::SUBCOMMAND,
            check_metrics::SUBCOMMAND,
            check_rules::SUBCOMMAND,
            check_service_discovery::SUBCOMMAND,
        ],
    ),
    ("promql", "Work with queries", &[promql_format::SUBCOMMAND]),
    ("rules", "Work with rules", &[backfill::SUBCOMMAND]),
    ("test", "Run tests written down in files", &[test_promql::SUBCOMMAND, test_rules::SUBCOMMAND]),
    ("tsdb", "Look at data directories, and import", tsdb::SUBCOMMANDS),
];

/// What to do.
pub enum Action {
    /// Serve with these options.
    Serve(Box<Options>),
    /// Nothing more: end with this code.
    Exit(ExitCode),
}

/// Exit code for what was typed wrong.
const USAGE: u8 = 2;

/// Reads the arguments, the program's name first, and runs a subcommand if
/// there is one. Writes help, version and errors itself.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Action {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // If the terminal is gone there is nobody to tell.
            let _ = error.print();
            let code = if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            return Action::Exit(code);
        }
    };
    if let Some((group, inner)) = matches.subcommand() {
        return Action::Exit(run(group, inner));
    }
    let raw = RawFlags::from_matches(&matches);
    match Options::resolve(&raw, &host_name(), Path::new("")) {
        Ok(options) => Action::Serve(Box::new(options)),
        Err(message) => {
            eprintln!("error: {message}");
            Action::Exit(ExitCode::from(USAGE))
        }
    }
}

fn command() -> Command {
    let mut command = flags::add_to(Command::new("narthex"))
        .version(env!("CARGO_PKG_VERSION"))
        .about("Scrapes, stores, queries, evaluates rules and sends alerts, as Prometheus does")
        .after_help(
            "Prometheus' other flags are accepted with a warning where they have no meaning \
             here, or refused by name.",
        )
        .next_line_help(true)
        .subcommand_value_name("COMMAND")
        .args_conflicts_with_subcommands(true);
    for (name, about, members) in GROUPS {
        let mut group = Command::new(*name).about(*about).subcommand_required(true);
        for member in *members {
            group = group.subcommand((member.command)());
        }
        command = command.subcommand(group);
    }
    command
}

fn run(group: &str, matches: &ArgMatches) -> ExitCode {
    let members = GROUPS.iter().find(|(name, ..)| *name == group).map_or(&[][..], |g| g.2);
    let Some((name, inner)) = matches.subcommand() else { return ExitCode::from(USAGE) };
    let member = members.iter().find(|m| (m.command)().get_name() == name);
    member.map_or(ExitCode::from(USAGE), |m| (m.run)(inner))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
