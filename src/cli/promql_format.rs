//! `narthex promql format QUERY`: the query, broken into lines.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use narthex_query::parse::{ParseOptions, parse};
use narthex_query::print::pretty;

use super::Subcommand;

/// The subcommand.
pub const SUBCOMMAND: Subcommand = Subcommand { command, run };

fn command() -> Command {
    Command::new("format")
        .about("Print a query in its canonical form, broken into lines where it is long")
        .arg(Arg::new("query").value_name("QUERY").required(true))
}

fn run(matches: &ArgMatches) -> ExitCode {
    let query = matches.get_one::<String>("query").map_or("", String::as_str);
    match parse(query, &ParseOptions::all()) {
        Ok(expr) => {
            println!("{}", pretty(&expr));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
