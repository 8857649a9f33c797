//! From files to a [`Config`]: the main file and those it names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::discovery::has_star_in_last_part_only;
use super::error::ConfigError;
use super::glob::glob;
use super::scrape::{global, scrape_config};
use super::section::{Field, Section, Source};
use super::sections::{alerting, operator, storage, webhooks};
use super::yaml::{self, MAX_FILE_BYTES, Node};
use super::{Config, GlobalConfig, ScrapeConfig};

const NOT_YET: &str = "narthex does not support this section yet";

/// Reads a configuration file and those that its `scrape_config_files` name.
///
/// `defaults` is what `global` starts from; flags may change it.
///
/// # Errors
///
/// [`ConfigError`] names the place of the first mistake.
pub fn load(path: &Path, defaults: &GlobalConfig) -> Result<Config, ConfigError> {
    let name = path.to_string_lossy();
    let text = read(path).map_err(|message| ConfigError::file(&name, message))?;
    let directory = path.parent().unwrap_or(Path::new(""));
    parse(&text, directory, &name, defaults)
}

/// Reads the text of a configuration file.
///
/// Relative file names are resolved against `directory`; `file` names it in
/// errors. Reads the files of `scrape_config_files`, nothing else.
///
/// # Errors
///
/// [`ConfigError`] names the place of the first mistake.
pub fn parse(
    text: &str,
    directory: &Path,
    file: &str,
    defaults: &GlobalConfig,
) -> Result<Config, ConfigError> {
    let node = tree(text, file)?;
    let source = Source { file, directory, warnings: Vec::new().into() };
    let mut config = read_root(source.root(&node).section()?, defaults)?;
    config.warnings = source.warnings.take();
    config.main_scrape_configs = config.scrape_configs.len();
    add_scrape_config_files(&mut config, file)?;
    Ok(config)
}

fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n');
        format!("is not UTF-8 in line {}", line.count() + 1)
    })
}

fn tree(text: &str, file: &str) -> Result<Node, ConfigError> {
    yaml::parse(text).map_err(|e| ConfigError::new(file, e.at, "", e.message))
}

fn read_root(mut section: Section<'_>, defaults: &GlobalConfig) -> Result<Config, ConfigError> {
    let environment = |name: &str| std::env::var(name).ok();
    let mut config = Config { global: defaults.clone(), ..Config::default() };
    if let Some(field) = section.field("global") {
        config.global = global(field.section()?, defaults, &environment)?;
    }
    if let Some(mut runtime) = section.get("runtime", Field::section)? {
        runtime.ignore("gogc", "has no meaning here: narthex has no garbage collector");
        runtime.finish()?;
    }
    for name in ["remote_write", "remote_read", "tracing", "otlp"] {
        section.refuse_filled(name, NOT_YET)?;
    }
    let names = config.global.metric_name_validation;
    config.scrape_configs =
        section.sections("scrape_configs", |s| scrape_config(s, &config.global))?;
    check_unique(&section, &config.scrape_configs)?;
    config.rule_files = patterns(&mut section, "rule_files")?;
    config.scrape_config_files = patterns(&mut section, "scrape_config_files")?;
    if let Some(field) = section.field("alerting") {
        config.alerting = alerting(field.section()?, names)?;
    }
    if let Some(field) = section.field("storage") {
        config.storage = storage(field.section()?)?;
    }
    // `operator:` alone, with nothing in it, asks for the defaults.
    if let Some(field) = section.written("operator") {
        config.operator = Some(operator(field.section()?)?);
    }
    if let Some(field) = section.field("webhooks") {
        config.webhooks = webhooks(field.section()?)?;
    }
    section.finish()?;
    Ok(config)
}

fn patterns(section: &mut Section<'_>, name: &str) -> Result<Vec<PathBuf>, ConfigError> {
    let Some(field) = section.field(name) else { return Ok(Vec::new()) };
    let pattern = |item: Field<'_>| {
        if item.text()?.is_empty() || !has_star_in_last_part_only(&item.text()?) {
            return Err(item.error("a pattern may have * in its last part only"));
        }
        item.path()
    };
    field.list()?.into_iter().map(pattern).collect()
}

fn check_unique(section: &Section<'_>, configs: &[ScrapeConfig]) -> Result<(), ConfigError> {
    let mut first = BTreeMap::new();
    for (i, config) in configs.iter().enumerate() {
        if let Some(before) = first.insert(config.job_name.as_str(), i) {
            let message =
                format!("job name {:?} of [{i}] is that of [{before}], too", config.job_name);
            return Err(section.field_error("scrape_configs", message));
        }
    }
    Ok(())
}

/// Appends the scrape configurations of the files that match.
fn add_scrape_config_files(config: &mut Config, main: &str) -> Result<(), ConfigError> {
    let known = config.scrape_configs.iter().map(|c| (c.job_name.clone(), main.to_owned()));
    let mut names: BTreeMap<String, String> = known.collect();
    for pattern in &config.scrape_config_files {
        for path in glob(pattern) {
            let file = path.to_string_lossy();
            let text = read(&path).map_err(|message| ConfigError::file(&file, message))?;
            let node = tree(&text, &file)?;
            let directory = path.parent().unwrap_or(Path::new(""));
            let source = Source { file: &file, directory, warnings: Vec::new().into() };
            let mut section = source.root(&node).section()?;
            let configs =
                section.sections("scrape_configs", |s| scrape_config(s, &config.global))?;
            for added in &configs {
                let before = names.insert(added.job_name.clone(), file.to_string());
                if let Some(before) = before {
                    let message = format!("job name {:?} is in {before}, too", added.job_name);
                    return Err(section.field_error("scrape_configs", message));
                }
            }
            section.finish()?;
            config.warnings.append(&mut source.warnings.borrow_mut());
            config.scrape_configs.extend(configs);
        }
    }
    Ok(())
}
