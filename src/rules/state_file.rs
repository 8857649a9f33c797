//! How do alerts survive a restart? One small file per group with alerts.
//!
//! ```text
//! DATA/state/alerts/<hash of file and group>.json
//! ```
//!
//! A file is written whole beside its old one, synced, and renamed over it; a
//! crash leaves the old or the new one. Values are stored as bits, so that
//! every float comes back.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use narthex_storage::labels::Labels;
use serde::{Deserialize, Serialize};

use super::alert::{Alert, AlertState};
use super::group::Group;
use crate::notify::Annotations;

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Where the alerts of all groups are kept.
#[derive(Debug, Clone)]
pub struct StateStore {
    directory: PathBuf,
}

/// The alerts of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedGroup {
    pub(super) group: String,
    pub(super) saved_ms: i64,
    pub(super) rules: Vec<SavedRule>,
}

/// The alerts of one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedRule {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) alerts: Vec<SavedAlert>,
}

/// One alert; fields as in [`Alert`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedAlert {
    state: String,
    labels: BTreeMap<String, String>,
    annotations: Annotations,
    value_bits: u64,
    active_at_ms: i64,
    fired_at_ms: Option<i64>,
    resolved_at_ms: Option<i64>,
    last_sent_ms: Option<i64>,
    valid_until_ms: i64,
    keep_firing_since_ms: Option<i64>,
}

fn pairs(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

impl SavedAlert {
    pub(super) fn new(alert: &Alert) -> Self {
        Self {
            state: alert.state.as_str().to_owned(),
            labels: pairs(&alert.labels),
            annotations: alert.annotations.clone(),
            value_bits: alert.value.to_bits(),
            active_at_ms: alert.active_at_ms,
            fired_at_ms: alert.fired_at_ms,
            resolved_at_ms: alert.resolved_at_ms,
            last_sent_ms: alert.last_sent_ms,
            valid_until_ms: alert.valid_until_ms,
            keep_firing_since_ms: alert.keep_firing_since_ms,
        }
    }

    /// The alert; `None` if its state has an unknown name.
    pub(super) fn restore(self) -> Option<Alert> {
        let state = match self.state.as_str() {
            "inactive" => AlertState::Inactive,
            "pending" => AlertState::Pending,
            "firing" => AlertState::Firing,
            _ => return None,
        };
        Some(Alert {
            state,
            labels: Labels::from_pairs(&self.labels),
            annotations: self.annotations,
            value: f64::from_bits(self.value_bits),
            active_at_ms: self.active_at_ms,
            fired_at_ms: self.fired_at_ms,
            resolved_at_ms: self.resolved_at_ms,
            last_sent_ms: self.last_sent_ms,
            valid_until_ms: self.valid_until_ms,
            keep_firing_since_ms: self.keep_firing_since_ms,
        })
    }
}

impl StateStore {
    /// Opens the store below the data directory, and tells whether it was
    /// there: if not, alerts may be restored from their series.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made.
    pub fn open(data: &Path) -> io::Result<(Self, bool)> {
        let directory = data.join("state").join("alerts");
        let existed = directory.is_dir();
        fs::create_dir_all(&directory)?;
        Ok((Self { directory }, existed))
    }

    fn path(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{:016x}.json", xxhash_rust::xxh3::xxh3_64(key.as_bytes())))
    }

    /// Writes the alerts of a group; without any, its file goes away.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; the one before is then still there.
    pub fn save(&self, group: &Group, now_ms: i64) -> io::Result<()> {
        let saved = group.saved(now_ms);
        let path = self.path(group.key());
        if saved.rules.is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let text = serde_json::to_vec(&saved)?;
        let beside = path.with_extension("tmp");
        let mut file = fs::File::create(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        fs::File::open(&self.directory)?.sync_all()
    }

    /// Puts the saved alerts back into a group that was not evaluated yet.
    /// Whether there were any.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or understood.
    pub fn load(&self, group: &Group, now_ms: i64, outage_tolerance_ms: i64) -> io::Result<bool> {
        let path = self.path(group.key());
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
            Ok(metadata) if metadata.len() > MAX_BYTES => {
                return Err(io::Error::other(format!("{} is too large", path.display())));
            }
            Ok(_) => {}
        }
        let saved: SavedGroup = serde_json::from_slice(&fs::read(&path)?)?;
        if saved.group != group.key() {
            return Ok(false);
        }
        group.restore(saved, now_ms, outage_tolerance_ms);
        Ok(true)
    }

    /// Forgets a group that is gone.
    ///
    /// # Errors
    ///
    /// If its file cannot be removed.
    pub fn remove(&self, key: &str) -> io::Result<()> {
        match fs::remove_file(self.path(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
