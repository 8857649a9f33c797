//! `narthex check rules FILE...`: can these rules be used, and are they wise?
//!
//! Errors are what the server would refuse. Warnings are what it would take
//! and someone would regret; `--lint` says which are looked for.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use narthex_query::parse::ParseOptions;
use narthex_storage::labels::Labels;

use super::Subcommand;
use super::kept_labels::kept_labels;
use crate::rules::file::{
    FileOptions, RuleFile, RuleFileError, RuleSpec, SpecKind, parse_rules, read_rules,
};

/// The subcommand.
pub const SUBCOMMAND: Subcommand = Subcommand { command, run };

/// Exit code for warnings with `--lint-fatal`, as promtool's.
const LINT_ERROR: u8 = 3;

fn command() -> Command {
    Command::new("rules")
        .about("Check rule files; the exit code is 1 if one of them is refused")
        .arg(
            Arg::new("files")
                .value_name("FILE")
                .help("Rule files; standard input if there is none")
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("lint")
                .long("lint")
                .value_name("KIND")
                .default_value("duplicate-rules")
                .help("What to warn of: all, duplicate-rules, labels, none"),
        )
        .arg(
            Arg::new("lint-fatal")
                .long("lint-fatal")
                .action(ArgAction::SetTrue)
                .help("Exit with 3 if there is a warning"),
        )
        .arg(
            Arg::new("ignore-unknown-fields")
                .long("ignore-unknown-fields")
                .action(ArgAction::SetTrue)
                .help("Pass over fields that rule files do not have"),
        )
}

fn run(matches: &ArgMatches) -> ExitCode {
    let lint: Vec<&str> =
        matches.get_one::<String>("lint").map_or("", String::as_str).split(',').collect();
    if let Some(unknown) =
        lint.iter().find(|kind| !matches!(**kind, "all" | "duplicate-rules" | "labels" | "none"))
    {
        eprintln!("error: --lint: {unknown:?} is not one of all, duplicate-rules, labels, none");
        return ExitCode::from(super::USAGE);
    }
    let options = FileOptions {
        parse: ParseOptions::default(),
        ignore_unknown_fields: matches.get_flag("ignore-unknown-fields"),
    };
    let files: Vec<&PathBuf> = matches.get_many("files").into_iter().flatten().collect();
    let read: Vec<(String, Result<RuleFile, Vec<RuleFileError>>)> = if files.is_empty() {
        vec![("standard input".to_owned(), read_standard_input(&options))]
    } else {
        files.iter().map(|path| (path.display().to_string(), read_rules(path, &options))).collect()
    };
    let (mut refused, mut warned) = (false, false);
    for (name, result) in read {
        println!("Checking {name}");
        match result {
            Err(errors) => {
                refused = true;
                eprintln!("  FAILED:");
                errors.iter().for_each(|error| eprintln!("{error}"));
            }
            Ok(file) => {
                let warnings = warnings(&file, &lint);
                let count: usize = file.groups.iter().map(|group| group.rules.len()).sum();
                warned |= !warnings.is_empty();
                for warning in &warnings {
                    eprintln!("  WARNING: {warning}");
                }
                println!("  SUCCESS: {count} rules found");
            }
        }
        println!();
    }
    if refused {
        ExitCode::FAILURE
    } else if warned && matches.get_flag("lint-fatal") {
        ExitCode::from(LINT_ERROR)
    } else {
        ExitCode::SUCCESS
    }
}

fn read_standard_input(options: &FileOptions) -> Result<RuleFile, Vec<RuleFileError>> {
    let limit = crate::config::yaml::MAX_FILE_BYTES as u64 + 1;
    let mut text = String::new();
    if let Err(error) = std::io::stdin().take(limit).read_to_string(&mut text) {
        let (file, message) = ("standard input".to_owned(), error.to_string());
        return Err(vec![RuleFileError { file, line: 0, column: 0, message }]);
    }
    parse_rules(Path::new("standard input").to_string_lossy().as_ref(), &text, options)
}

/// What would be taken and regretted.
fn warnings(file: &RuleFile, lint: &[&str]) -> Vec<String> {
    let wants = |kind: &str| lint.contains(&"all") || lint.contains(&kind);
    let mut warnings = Vec::new();
    if wants("duplicate-rules") {
        duplicates(file, &mut warnings);
    }
    if wants("labels") {
        for group in &file.groups {
            for rule in &group.rules {
                missing_labels(file, &group.name, rule, &mut warnings);
            }
        }
    }
    warnings
}

/// Rules that write the same series.
fn duplicates(file: &RuleFile, warnings: &mut Vec<String>) {
    let mut seen: BTreeMap<(&str, Labels), (u32, u32)> = BTreeMap::new();
    for group in &file.groups {
        for rule in &group.rules {
            let labels = Labels::from_pairs(group.labels.iter().chain(&rule.labels));
            let (line, column) = rule.at;
            if let Some((first, _)) = seen.get(&(rule.name.as_str(), labels.clone())) {
                warnings.push(format!(
                    "{}:{line}:{column}: duplicate rule: {:?} with labels {labels} is also in \
                     line {first}; might cause inconsistency while recording expressions",
                    file.name, rule.name
                ));
            } else {
                seen.insert((&rule.name, labels), rule.at);
            }
        }
    }
}

/// Labels that a template asks for although the expression drops them.
fn missing_labels(file: &RuleFile, group: &str, rule: &RuleSpec, warnings: &mut Vec<String>) {
    let SpecKind::Alert { annotations, .. } = &rule.kind else { return };
    let kept = kept_labels(&rule.expr);
    let mut texts = annotations.iter().chain(&rule.labels);
    let mut told = Vec::new();
    for (_, text) in &mut texts {
        for name in used_labels(text) {
            if !kept.may_have(&name) && !told.contains(&name) {
                let (line, column) = rule.at;
                warnings.push(format!(
                    "{}:{line}:{column}: group {group:?}, alert {:?}: a template uses \
                     $labels.{name}, which the expression does not keep",
                    file.name, rule.name
                ));
                told.push(name);
            }
        }
    }
}

/// Names behind `$labels.` in a template.
fn used_labels(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in text.split("$labels.").skip(1) {
        let end = part.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(part.len());
        names.push(part[..end].to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_regretted_is_said() {
        let text = "groups: [{name: g, rules: [\
                    {record: a, expr: x}, {record: a, expr: y}, \
                    {alert: A, expr: '(sum by (job) (x)) > 1', annotations: {s: '{{ $labels.job }} {{ $labels.pod }}'}}, \
                    {alert: B, expr: 'topk(1, x)', annotations: {s: '{{ $labels.pod }}'}}]}]";
        let file = parse_rules("f", text, &FileOptions::default()).unwrap();
        let all = warnings(&file, &["all"]);
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[0].contains("duplicate rule: \"a\""), "{}", all[0]);
        assert!(all[1].contains("$labels.pod"), "{}", all[1]);
        assert_eq!(warnings(&file, &["none"]), Vec::<String>::new());
    }
}
