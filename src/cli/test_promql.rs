//! `narthex test promql FILE...`: does the engine answer as scripts expect?

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use narthex_query::promqltest::{Report, run as run_script, script_engine};

use super::Subcommand;

/// Largest script that is read, in bytes.
const MAX_SCRIPT_BYTES: u64 = 64 << 20;

/// The subcommand.
pub const SUBCOMMAND: Subcommand = Subcommand { command, run };

fn command() -> Command {
    Command::new("promql")
        .about("Run PromQL test scripts (Prometheus' format); the exit code is 1 if a case fails")
        .arg(
            Arg::new("files")
                .value_name("FILE")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf)),
        )
}

fn run(matches: &ArgMatches) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    let mut unreadable = false;
    for path in matches.get_many::<PathBuf>("files").into_iter().flatten() {
        match test(path) {
            Ok(report) => {
                for failure in &report.failures {
                    println!("{}: {failure}", report.name);
                }
                println!("{}: {} passed, {} failed", report.name, report.passed, report.failed);
                passed += report.passed;
                failed += report.failed;
            }
            Err(message) => {
                eprintln!("error: {}: {message}", path.display());
                unreadable = true;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 || unreadable { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn test(path: &Path) -> Result<Report, String> {
    let size_bytes = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size_bytes > MAX_SCRIPT_BYTES {
        return Err(format!("{size_bytes} bytes are more than {MAX_SCRIPT_BYTES}"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    Ok(run_script(&text, &path.display().to_string(), &script_engine()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falsified_case_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.test");
        let script = "load 1m\n  a 1 2\n\neval instant at 1m a + 1\n  {} 3\n\n";
        std::fs::write(&path, script).expect("written");
        let report = test(&path).expect("readable");
        assert_eq!((report.passed, report.failed), (1, 0), "{:?}", report.failures);
        std::fs::write(&path, script.replace("{} 3", "{} 4")).expect("written");
        let report = test(&path).expect("readable");
        assert_eq!((report.passed, report.failed), (0, 1));
        assert!(report.failures[0].to_string().contains("{} 3"), "{}", report.failures[0]);
        assert!(test(&folder.path().join("missing")).is_err());
    }
}
