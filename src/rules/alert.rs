//! When does an alert fire, and when has it to be sent? One instance's state.
//!
//! ```text
//!             seen            for is over            not seen
//!   (nothing) ----> pending ----------------> firing ---------> resolved
//!                      |                        ^  |              |
//!                      | not seen               |  | not seen:    | seen: anew
//!                      v                        +--+ keep firing  v
//!                  (nothing)                                   pending
//! ```

use narthex_storage::labels::Labels;

use crate::notify::Annotations;

/// How long a resolved alert is kept, and sent again and again, in
/// milliseconds: an Alertmanager may lose it, or be away.
pub(super) const RESOLVED_RETENTION_MS: i64 = 15 * 60_000;

/// The state of an alert; the greater one counts for its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertState {
    /// Was firing, is resolved.
    Inactive,
    /// Seen, but not for long enough.
    Pending,
    /// Fires.
    Firing,
}

impl AlertState {
    /// The name in the API and in `alertstate`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// One alert of a rule: a label set that its expression gave. Times are in
/// milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Where it stands.
    pub state: AlertState,
    /// Its identity: labels of the series and of the rule, and `alertname`.
    pub labels: Labels,
    /// The annotations, expanded at the last evaluation that saw it.
    pub annotations: Annotations,
    /// The value at that evaluation.
    pub value: f64,
    /// Since when it is seen.
    pub active_at_ms: i64,
    /// Since when it fires.
    pub fired_at_ms: Option<i64>,
    /// When it was resolved.
    pub resolved_at_ms: Option<i64>,
    /// When it was last sent.
    pub last_sent_ms: Option<i64>,
    /// Until when receivers may take it for firing without hearing of it.
    pub valid_until_ms: i64,
    /// Since when it fires on although it is not seen.
    pub keep_firing_since_ms: Option<i64>,
}

impl Alert {
    /// Whether it has to be sent at `at_ms`.
    pub(super) fn needs_sending(&self, at_ms: i64, resend_delay_ms: i64) -> bool {
        if self.state == AlertState::Pending {
            return false;
        }
        let Some(sent_ms) = self.last_sent_ms else { return true };
        self.resolved_at_ms.is_some_and(|resolved_ms| resolved_ms > sent_ms)
            || sent_ms.saturating_add(resend_delay_ms) < at_ms
    }

    /// Notes that it is sent at `at_ms`.
    pub(super) fn mark_sent(&mut self, at_ms: i64, resend_delay_ms: i64, interval_ms: i64) {
        self.last_sent_ms = Some(at_ms);
        // Two evaluations or two sendings may fail.
        self.valid_until_ms = at_ms.saturating_add(4 * resend_delay_ms.max(interval_ms));
    }

    /// Moves all its times: the clock jumped.
    pub(super) fn shift(&mut self, delta_ms: i64) {
        let shift = |time_ms: &mut i64| *time_ms = time_ms.saturating_add(delta_ms);
        shift(&mut self.active_at_ms);
        shift(&mut self.valid_until_ms);
        for time_ms in [
            &mut self.fired_at_ms,
            &mut self.resolved_at_ms,
            &mut self.last_sent_ms,
            &mut self.keep_firing_since_ms,
        ] {
            time_ms.as_mut().map(shift);
        }
    }

    /// Goes on after an evaluation that did not see it. `None`: forget it.
    pub(super) fn not_seen(mut self, at_ms: i64, keep_firing_for_ms: i64) -> Option<Self> {
        match self.state {
            AlertState::Pending => None,
            AlertState::Firing => {
                if keep_firing_for_ms > 0 {
                    let since_ms = *self.keep_firing_since_ms.get_or_insert(at_ms);
                    if at_ms - since_ms < keep_firing_for_ms {
                        return Some(self);
                    }
                }
                self.state = AlertState::Inactive;
                self.resolved_at_ms = Some(at_ms);
                Some(self)
            }
            AlertState::Inactive => {
                let resolved_ms = self.resolved_at_ms.unwrap_or(at_ms);
                (at_ms - resolved_ms <= RESOLVED_RETENTION_MS).then_some(self)
            }
        }
    }

    /// Fires if it has been there for long enough.
    pub(super) fn advance(&mut self, at_ms: i64, for_ms: i64) {
        if self.state == AlertState::Pending && at_ms - self.active_at_ms >= for_ms {
            self.state = AlertState::Firing;
            self.fired_at_ms = Some(at_ms);
        }
    }
}
