//! `narthex check config FILE...`: would it start with these?

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::Subcommand;
use crate::config::{self, Config, GlobalConfig};

/// The subcommand.
pub const SUBCOMMAND: Subcommand = Subcommand { command, run };

fn command() -> Command {
    Command::new("config")
        .about("Check configuration files; the exit code is 1 if one of them is refused")
        .arg(
            Arg::new("files")
                .value_name("FILE")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf)),
        )
}

fn run(matches: &ArgMatches) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for path in matches.get_many::<PathBuf>("files").into_iter().flatten() {
        match check(path) {
            Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
            Err(message) => {
                eprintln!("error: {message}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// What to say of a file that can be used.
fn check(path: &Path) -> Result<Vec<String>, String> {
    let config = config::load(path, &GlobalConfig::default()).map_err(|e| e.to_string())?;
    let mut lines: Vec<String> = config.warnings.iter().map(|w| format!("warning: {w}")).collect();
    let mut rule_files = 0;
    for pattern in &config.rule_files {
        let found = config::glob::glob(pattern);
        if found.is_empty() {
            lines.push(format!("warning: rule_files: {} matches no file", pattern.display()));
        }
        rule_files += found.len();
    }
    lines.extend(missing_files(&config).map(|f| format!("warning: {f} does not exist yet")));
    lines.push(format!(
        "{}: ok: {}, {}, {}",
        path.display(),
        several(config.scrape_configs.len(), "scrape configuration"),
        several(rule_files, "rule file"),
        several(config.alerting.alertmanagers.len(), "Alertmanager section"),
    ));
    Ok(lines)
}

fn several(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Files with secrets or certificates that are not there: they are read when
/// they are needed, so that this is no error.
fn missing_files(config: &Config) -> impl Iterator<Item = String> {
    let clients = config.scrape_configs.iter().map(|s| (&s.job_name[..], &s.http));
    let alertmanagers = config.alerting.alertmanagers.iter().map(|a| ("alertmanager", &a.http));
    clients.chain(alertmanagers).flat_map(|(owner, http)| {
        let files = http.secret_files();
        let missing = files.into_iter().filter(|f| !f.exists());
        missing.map(|f| format!("{owner}: {}", f.display())).collect::<Vec<_>>()
    })
}
