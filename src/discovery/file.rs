//! `file_sd_configs`: target groups from files that are looked at again.
//!
//! Files are found by their patterns once a second and read when their time,
//! size or inode changes: that sees replacing by rename and by symbolic link,
//! as editors and ConfigMaps do, without a watch per directory.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::http::parse_json;
use super::metrics::DiscoveryMetrics;
use super::refresh::{Published, publish};
use super::{TargetGroup, listed_group};
use crate::config::{FileSdConfig, glob, parse_target_groups};

/// How often files are looked at.
const POLL: Duration = Duration::from_secs(1);
/// Largest file, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// What tells one content of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    mtime_ns: i128,
    size: u64,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let mtime_ns =
            i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Self { mtime_ns, size: metadata.len(), inode: metadata.ino() }
    }
}

/// The files of one discovery and what was last read from them.
#[derive(Default)]
pub struct Files(BTreeMap<PathBuf, Known>);

struct Known {
    stamp: Option<Stamp>,
    groups: Vec<TargetGroup>,
}

impl Files {
    /// Looks for files and reads those that changed, or all of them. A file
    /// that cannot be read keeps its groups; one that is gone loses them.
    /// Blocks on the file system.
    pub fn scan(&mut self, config: &FileSdConfig, all: bool, metrics: &DiscoveryMetrics) {
        let started = Instant::now();
        let mut found: Vec<PathBuf> = config.files.iter().flat_map(|p| glob::glob(p)).collect();
        found.sort();
        found.dedup();
        self.0.retain(|path, _| {
            let stays = found.binary_search(path).is_ok();
            if !stays {
                metrics.file_mtime.remove(&[&path.to_string_lossy()]);
            }
            stays
        });
        for path in found {
            let metadata = std::fs::metadata(&path);
            let stamp = metadata.as_ref().ok().map(Stamp::of);
            let known = self.0.get(&path);
            if !all && known.is_some_and(|k| k.stamp == stamp) {
                continue;
            }
            let groups = match read(&path) {
                Ok(groups) => {
                    note_mtime(&path, metadata.ok(), metrics);
                    groups
                }
                Err(error) => {
                    metrics.file_read_errors.inc();
                    tracing::warn!("file_sd: {error}; the groups before stay");
                    self.0.remove(&path).map(|k| k.groups).unwrap_or_default()
                }
            };
            self.0.insert(path, Known { stamp, groups });
        }
        metrics.file_scan_duration.observe(started.elapsed().as_secs_f64());
    }

    /// All groups, by file and position in it.
    #[must_use]
    pub fn groups(&self) -> Vec<TargetGroup> {
        self.0.values().flat_map(|known| known.groups.iter().cloned()).collect()
    }
}

fn note_mtime(path: &Path, metadata: Option<Metadata>, metrics: &DiscoveryMetrics) {
    let mtime = metadata.and_then(|m| m.modified().ok());
    if let Some(age) = mtime.and_then(|t| t.duration_since(UNIX_EPOCH).ok()) {
        metrics.file_mtime.with(&[&path.to_string_lossy()]).set(age.as_secs_f64());
    }
}

fn read(path: &Path) -> Result<Vec<TargetGroup>, String> {
    let name = path.to_string_lossy();
    let open = File::open(path).map_err(|e| format!("{name}: {e}"))?;
    let mut bytes = Vec::new();
    open.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| format!("{name}: {e}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{name}: larger than {MAX_FILE_BYTES} bytes"));
    }
    let is_json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let configs = if is_json {
        parse_json(&bytes).map_err(|e| format!("{name}: {e}"))?
    } else {
        let text = String::from_utf8(bytes).map_err(|_| format!("{name}: not UTF-8"))?;
        parse_target_groups(&text, &name).map_err(|e| e.to_string())?
    };
    let group = |(i, config)| listed_group(config, format!("{name}:{i}"), "__meta_filepath", &name);
    Ok(configs.into_iter().enumerate().map(group).collect())
}

/// Follows the files of one discovery for ever.
pub async fn run(config: &FileSdConfig, metrics: &DiscoveryMetrics, sender: &Published) {
    let mut files = Files::default();
    let mut full: Option<Instant> = None;
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let all = full.is_none_or(|at| at.elapsed() >= config.refresh_interval);
        if all {
            full = Some(Instant::now());
        }
        let (config, metrics) = (config.clone(), metrics.clone());
        let scanned = tokio::task::spawn_blocking(move || {
            files.scan(&config, all, &metrics);
            files
        });
        // The task is only lost when the runtime stops.
        let Ok(back) = scanned.await else { return };
        files = back;
        publish(sender, files.groups());
    }
}
