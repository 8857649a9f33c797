//! `narthex check service-discovery FILE JOB`: which targets would it find?
//!
//! Like promtool's: every target with its labels before and after relabeling,
//! as JSON. One that relabeling drops has no labels after it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use narthex_storage::labels::Labels;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Subcommand;
use crate::config::units::parse_duration;
use crate::config::{self, Config, GlobalConfig, ScrapeConfig};
use crate::discovery::targets::{build, discovered_labels};
use crate::discovery::{Discovery, TargetGroups};
use crate::metrics::Registry;
use crate::relabel::Rules;

/// The subcommand.
pub const SUBCOMMAND: Subcommand = Subcommand { command, run };

fn command() -> Command {
    Command::new("service-discovery")
        .about("Discover the targets of a job and show them with their labels")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The configuration file"),
        )
        .arg(Arg::new("job").value_name("JOB").required(true).help("A job_name of it"))
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("DURATION")
                .default_value("30s")
                .value_parser(|text: &str| parse_duration(text).map_err(|e| e.to_string()))
                .help("How long discoveries other than static_configs are followed"),
        )
}

fn run(matches: &ArgMatches) -> ExitCode {
    let (Some(file), Some(job), Some(timeout)) = (
        matches.get_one::<PathBuf>("file"),
        matches.get_one::<String>("job"),
        matches.get_one::<Duration>("timeout"),
    ) else {
        return ExitCode::FAILURE;
    };
    let found = config::load(file, &GlobalConfig::default())
        .map_err(|e| e.to_string())
        .and_then(|config| {
            let scrape = job_of(&config, job)?;
            results(scrape, &discover(scrape, *timeout)?)
        })
        .and_then(|found| serde_json::to_string_pretty(&found).map_err(|e| e.to_string()));
    match found {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn job_of<'a>(config: &'a Config, job: &str) -> Result<&'a ScrapeConfig, String> {
    config.scrape_configs.iter().find(|s| s.job_name == job).ok_or_else(|| {
        let names: Vec<&str> = config.scrape_configs.iter().map(|s| s.job_name.as_str()).collect();
        format!("there is no job {job:?}; these are: {}", names.join(", "))
    })
}

/// What is known when the time is over; at once if everything is static.
fn discover(scrape: &ScrapeConfig, timeout: Duration) -> Result<TargetGroups, String> {
    crate::client::install_provider();
    let only_static = config::DiscoveryConfigs {
        static_configs: scrape.discovery.static_configs.clone(),
        ..config::DiscoveryConfigs::default()
    };
    let wait = if scrape.discovery == only_static { Duration::ZERO } else { timeout };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let _ends = stop.clone().drop_guard();
        let discovery = Discovery::new(&Registry::default(), stop);
        let groups = discovery.follow(&scrape.job_name, &scrape.discovery);
        tokio::time::sleep(wait).await;
        let found = groups.borrow().clone();
        Ok(found)
    })
}

/// Each different target once: active ones, dropped ones, impossible ones.
fn results(scrape: &ScrapeConfig, groups: &TargetGroups) -> Result<Vec<Value>, String> {
    let rules = Rules::compile_for(&scrape.relabel_configs, scrape.metric_name_validation)
        .map_err(|e| e.to_string())?;
    let mut scrape = scrape.clone();
    scrape.limits.keep_dropped_targets = 0;
    let built = build(&scrape, &rules, groups);
    let labels = |labels: &Labels| -> Value { labels.iter().collect() };
    let mut out: Vec<Value> = Vec::new();
    let mut add = |value: Value| {
        if !out.contains(&value) {
            out.push(value);
        }
    };
    for found in &built.active {
        let (before, after) = (found.discovered.labels(&scrape), &found.spec.labels);
        let (before, after) = (labels(&before), labels(after));
        add(json!({"discoveredLabels": before, "labels": after}));
    }
    for dropped in &built.dropped {
        add(json!({"discoveredLabels": labels(&dropped.labels(&scrape)), "labels": {}}));
    }
    for error in &built.errors {
        let group = groups.iter().find(|g| g.source == error.source_key);
        let before = group.map(|g| labels(&discovered_labels(&scrape, g, error.index).build()));
        add(json!({"discoveredLabels": before, "labels": {}, "error": error.reason}));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURATION: &str = "scrape_configs:
- job_name: a
  static_configs:
  - {targets: ['h:1', 'h:1', 'drop:1', 'bad:1'], labels: {x: y}}
  relabel_configs:
  - {source_labels: [__address__], regex: 'drop.*', action: drop}
  - {source_labels: [__address__], regex: 'bad.*', target_label: __address__, replacement: ''}
- job_name: b
";

    #[test]
    fn targets_are_shown_before_and_after_relabeling() {
        let config = config::parse(CONFIGURATION, "".as_ref(), "f", &GlobalConfig::default());
        let config = config.expect("valid");
        let scrape = job_of(&config, "a").expect("there");
        let groups = discover(scrape, Duration::from_secs(3600)).expect("static");
        let found = results(scrape, &groups).expect("rules");
        assert_eq!(found.len(), 3, "{found:#?}");
        assert_eq!(found[0]["labels"]["instance"], "h:1");
        assert_eq!(found[0]["labels"]["__address__"], "h:1");
        assert_eq!(found[0]["discoveredLabels"]["x"], "y");
        assert!(found[0]["discoveredLabels"]["instance"].is_null());
        assert_eq!(found[1]["discoveredLabels"]["__address__"], "drop:1");
        assert_eq!(found[1]["labels"], json!({}));
        assert_eq!(found[2]["discoveredLabels"]["__address__"], "bad:1");
        assert_eq!(found[2]["error"], "no address");
        let error = job_of(&config, "c").expect_err("no such job");
        assert_eq!(error, "there is no job \"c\"; these are: a, b");
    }
}
