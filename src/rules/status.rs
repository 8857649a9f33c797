//! What can be told of the rules? Plain values for the API.

use narthex_storage::labels::Labels;

use super::alert::AlertState;
use crate::notify::Annotations;

/// One group, as it is now. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupStatus {
    /// Its name, unique within the file.
    pub name: String,
    /// The file, or the object it comes from.
    pub file: String,
    /// Seconds between two evaluations.
    pub interval_s: f64,
    /// Most alerts or series of one rule; 0 is no limit.
    pub limit: usize,
    /// Seconds that the last evaluation took.
    pub evaluation_s: f64,
    /// When the last evaluation began; `None` before the first.
    pub last_evaluation_ms: Option<i64>,
    /// The rules, as written.
    pub rules: Vec<RuleStatus>,
}

/// One rule, as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleStatus {
    /// The metric that is recorded, or the alert's name.
    pub name: String,
    /// The canonical text of the expression.
    pub query: String,
    /// Labels of group and rule, as written.
    pub labels: Labels,
    /// How the last evaluation went.
    pub health: RuleHealth,
    /// What was wrong with it.
    pub last_error: Option<String>,
    /// Seconds that it took.
    pub evaluation_s: f64,
    /// When it began; `None` before the first.
    pub last_evaluation_ms: Option<i64>,
    /// What only alerting rules have.
    pub alerting: Option<AlertingStatus>,
}

/// What only alerting rules have.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertingStatus {
    /// The greatest state of its alerts.
    pub state: AlertState,
    /// `for`, in seconds.
    pub for_s: f64,
    /// `keep_firing_for`, in seconds.
    pub keep_firing_for_s: f64,
    /// The annotations, as written.
    pub annotations: Annotations,
    /// Pending and firing alerts, sorted by labels.
    pub alerts: Vec<AlertStatus>,
}

/// One pending or firing alert.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertStatus {
    /// Labels of the series and of the rule, and `alertname`.
    pub labels: Labels,
    /// The annotations, expanded.
    pub annotations: Annotations,
    /// Pending or firing.
    pub state: AlertState,
    /// Since when it is seen.
    pub active_at_ms: i64,
    /// Since when it fires on although it is not seen.
    pub keep_firing_since_ms: Option<i64>,
    /// The value at the last evaluation that saw it.
    pub value: f64,
}

/// How the last evaluation of a rule went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuleHealth {
    /// There was none yet.
    #[default]
    Unknown,
    /// Well.
    Ok,
    /// With an error.
    Err,
}

impl RuleHealth {
    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Err => "err",
        }
    }
}
