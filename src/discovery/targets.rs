//! What is scraped? From target groups to targets with their final labels.
//!
//! [`Builder`] does for each target what Prometheus does, in its order: group
//! labels, defaults of the scrape configuration, relabeling, checks. Equal
//! targets of one pool are one target. A group that is the same as before is
//! not looked at again: in a cluster of thousands of pods, a few change at a
//! time. Labels before relabeling are many and long, and hardly ever asked
//! for: they are made from the group when they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use narthex_storage::labels::{Labels, LabelsBuilder};

use super::TargetGroup;
use super::url::target_url;
use crate::config::ScrapeConfig;
use crate::config::units::{format_duration, parse_duration};
use crate::relabel::Rules;

const ADDRESS: &str = "__address__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const CONVERT: &str = "__convert_classic_histograms_to_nhcb__";
const ALWAYS_CLASSIC: &str = "__always_scrape_classic_histograms__";
const NATIVE: &str = "__scrape_native_histograms__";

/// One target that is to be scraped.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetSpec {
    /// All labels but the `__meta_` ones: the public ones that go on samples,
    /// and the internal ones that begin with `__`.
    pub labels: Labels,
    /// Where to scrape, parameters included.
    pub url: String,
    /// Goes to this socket instead of the URL's host (`__unix_socket__`).
    pub unix_socket: Option<String>,
    /// Between two scrapes; above zero.
    pub interval: Duration,
    /// Above zero, at most `interval`.
    pub timeout: Duration,
    /// Store classic histograms as native ones with custom buckets.
    pub convert_classic_histograms_to_nhcb: bool,
    /// Keep classic series beside native histograms.
    pub always_scrape_classic_histograms: bool,
    /// Store native histograms.
    pub scrape_native_histograms: bool,
    /// Equal for equal `labels` and `url`, in every process: a target that
    /// keeps it keeps its loop.
    pub identity: u64,
}

impl TargetSpec {
    /// The labels that go on samples: those that do not begin with `__`.
    #[must_use]
    pub fn public_labels(&self) -> Labels {
        Labels::from_sorted(self.labels.iter().filter(|(name, _)| !name.starts_with("__")))
    }

    /// Whether any label goes on samples; allocates nothing.
    #[must_use]
    pub fn has_public_labels(&self) -> bool {
        self.labels.iter().any(|(name, _)| !name.starts_with("__"))
    }
}

/// Where a target was found: one of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    group: Arc<TargetGroup>,
    index: usize,
}

impl Discovered {
    /// The labels before relabeling, for those who ask where a target comes
    /// from. Makes them anew; `config` is the pool's.
    #[must_use]
    pub fn labels(&self, config: &ScrapeConfig) -> Labels {
        discovered_labels(config, &self.group, self.index).build()
    }
}

/// A target that is to be scraped, and where it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The target.
    pub spec: Arc<TargetSpec>,
    /// Of equal targets, the one seen last.
    pub discovered: Discovered,
}

/// The targets of one pool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Built {
    /// What is scraped, in order of discovery.
    pub active: Vec<Found>,
    /// What relabeling dropped, at most `keep_dropped_targets` of it (0: all).
    pub dropped: Vec<Discovered>,
    /// How many relabeling dropped.
    pub dropped_count: usize,
    /// Why others are neither active nor dropped; counted in
    /// `prometheus_target_sync_failed_total`.
    pub errors: Vec<TargetError>,
}

/// A target that cannot be scraped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("target {index} of group {source_key}: {reason}")]
pub struct TargetError {
    /// The group's source.
    pub source_key: String,
    /// Position in the group, from 0.
    pub index: usize,
    /// What is wrong.
    pub reason: String,
}

/// Makes the targets of one pool once. `rules` are the compiled
/// `relabel_configs` of `config`. Cost: linear in targets, rules and labels.
#[must_use]
pub fn build(config: &ScrapeConfig, rules: &Rules, groups: &[Arc<TargetGroup>]) -> Built {
    Builder::default().build(config, rules, groups)
}

/// What became of a target; `None` was dropped by relabeling.
type Outcome = Result<Option<Arc<TargetSpec>>, String>;

/// A group, and what became of each of its targets.
struct Known {
    /// Held, so that no other group gets its address.
    group: Arc<TargetGroup>,
    outcomes: Box<[Outcome]>,
}

/// Makes the targets of one pool again and again, with one configuration.
#[derive(Default)]
pub struct Builder {
    /// By the groups' addresses.
    known: HashMap<usize, Known>,
}

impl Builder {
    /// The targets of these groups. Cost: as [`build`] for groups that were
    /// not there the last time, a look-up for each that was. The configuration
    /// must be that of the last time.
    pub fn build(
        &mut self,
        config: &ScrapeConfig,
        rules: &Rules,
        groups: &[Arc<TargetGroup>],
    ) -> Built {
        let mut before = std::mem::take(&mut self.known);
        self.known.reserve(groups.len());
        let mut built = Built::default();
        let mut places: HashMap<u64, usize> = HashMap::new();
        let keep = usize::try_from(config.limits.keep_dropped_targets).unwrap_or(usize::MAX);
        for group in groups {
            let address = Arc::as_ptr(group).addr();
            let known = self.known.entry(address).or_insert_with(|| {
                before.remove(&address).unwrap_or_else(|| Known {
                    group: Arc::clone(group),
                    outcomes: (0..group.targets.len())
                        .map(|index| target(config, rules, group, index))
                        .collect(),
                })
            });
            for (index, outcome) in known.outcomes.iter().enumerate() {
                let discovered = || Discovered { group: Arc::clone(&known.group), index };
                match outcome {
                    Ok(Some(spec)) => match places.get(&spec.identity) {
                        Some(&place) => built.active[place].discovered = discovered(),
                        None => {
                            places.insert(spec.identity, built.active.len());
                            let spec = Arc::clone(spec);
                            built.active.push(Found { spec, discovered: discovered() });
                        }
                    },
                    Ok(None) => {
                        built.dropped_count += 1;
                        if keep == 0 || built.dropped.len() < keep {
                            built.dropped.push(discovered());
                        }
                    }
                    Err(reason) => {
                        let (source_key, reason) = (group.source.clone(), reason.clone());
                        built.errors.push(TargetError { source_key, index, reason });
                    }
                }
            }
        }
        built
    }
}

fn target(config: &ScrapeConfig, rules: &Rules, group: &TargetGroup, index: usize) -> Outcome {
    let mut labels = discovered_labels(config, group, index);
    if !rules.apply(&mut labels) {
        return Ok(None);
    }
    let address = labels.get(ADDRESS).to_owned();
    if address.is_empty() {
        return Err("no address".to_owned());
    }
    if address.contains('/') {
        return Err(format!("{address:?} is not a valid hostname"));
    }
    let interval = positive_duration(&labels, INTERVAL, "interval")?;
    let timeout = positive_duration(&labels, TIMEOUT, "timeout")?;
    if timeout > interval {
        return Err(format!(
            "scrape timeout cannot be greater than scrape interval ({:?} > {:?})",
            labels.get(TIMEOUT),
            labels.get(INTERVAL)
        ));
    }
    let convert = switch(&labels, CONVERT, config.convert_classic_histograms_to_nhcb)?;
    let always = switch(&labels, ALWAYS_CLASSIC, config.always_scrape_classic_histograms)?;
    let native = switch(&labels, NATIVE, config.scrape_native_histograms)?;
    labels.retain(|name, _| !name.starts_with("__meta_"));
    if labels.get("instance").is_empty() {
        labels.set("instance", &address);
    }
    let unix_socket = Some(labels.get("__unix_socket__")).filter(|s| !s.is_empty());
    let unix_socket = unix_socket.map(str::to_owned);
    let url = target_url(&config.params, &labels);
    let labels = labels.build();
    Ok(Some(Arc::new(TargetSpec {
        identity: identity(&labels, &url),
        url,
        unix_socket,
        interval,
        timeout,
        convert_classic_histograms_to_nhcb: convert,
        always_scrape_classic_histograms: always,
        scrape_native_histograms: native,
        labels,
    })))
}

/// Labels before relabeling: a label of the target, even an empty one, wins
/// over that of the group; defaults fill what is empty.
#[must_use]
pub fn discovered_labels(
    config: &ScrapeConfig,
    group: &TargetGroup,
    index: usize,
) -> LabelsBuilder {
    let target = &group.targets[index];
    let mut labels = LabelsBuilder::new();
    for (name, value) in group.labels.iter().filter(|(name, _)| !target.contains_key(*name)) {
        labels.set(name, value);
    }
    for (name, value) in target {
        labels.set(name, value);
    }
    let bool_text = |b: bool| if b { "true" } else { "false" };
    let defaults = [
        ("job", config.job_name.as_str()),
        (INTERVAL, &format_duration(config.scrape_interval)),
        (TIMEOUT, &format_duration(config.scrape_timeout)),
        ("__metrics_path__", &config.metrics_path),
        ("__scheme__", &config.scheme),
        (CONVERT, bool_text(config.convert_classic_histograms_to_nhcb)),
        (ALWAYS_CLASSIC, bool_text(config.always_scrape_classic_histograms)),
        (NATIVE, bool_text(config.scrape_native_histograms)),
    ];
    for (name, value) in defaults {
        if labels.get(name).is_empty() {
            labels.set(name, value);
        }
    }
    for (name, values) in &config.params {
        let label = format!("__param_{name}");
        if let Some(first) = values.first().filter(|_| labels.get(&label).is_empty()) {
            labels.set(&label, first);
        }
    }
    labels
}

fn positive_duration(labels: &LabelsBuilder, name: &str, what: &str) -> Result<Duration, String> {
    let text = labels.get(name);
    let duration = parse_duration(text).map_err(|e| format!("error parsing scrape {what}: {e}"))?;
    if duration.is_zero() { Err(format!("scrape {what} cannot be 0")) } else { Ok(duration) }
}

/// A label that is true or false, or else the configuration's value.
fn switch(labels: &LabelsBuilder, name: &str, default: bool) -> Result<bool, String> {
    match labels.get(name) {
        "" => Ok(default),
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("error parsing {name}: {other:?} is neither true nor false")),
    }
}

fn identity(labels: &Labels, url: &str) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(labels.as_bytes());
    hasher.update(&[0xff]);
    hasher.update(url.as_bytes());
    hasher.digest()
}

#[cfg(test)]
mod tests;
