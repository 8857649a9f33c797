//! `scrape_failure_log_file`: why pages could not be fetched, one line of
//! JSON each.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// An open log file of one pool.
#[derive(Debug)]
pub struct FailureLog(Mutex<File>);

impl FailureLog {
    /// Opens a file for appending; makes it if it is not there.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self(Mutex::new(file)))
    }

    /// Adds a line. If it cannot be written it is lost: the error is shown
    /// with the target's state, too.
    pub fn write(&self, job: &str, target: &str, message: &str) {
        let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
        let line = serde_json::json!({
            "time": time, "level": "ERROR", "msg": message, "job_name": job, "target": target,
        });
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(file, "{line}") {
            tracing::debug!(%error, "scrape failure log not written");
        }
    }
}
