//! What should an operator know now? Conditions that last, each with a key
//! that raises and clears it.
//!
//! The API shows them where Prometheus shows its own notifications. A notice
//! is for what needs a person; what heals within seconds is only a metric.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Notices that are kept at most; further ones are not raised. Keys come from
/// objects that others write.
const LIMIT: usize = 1000;

/// A condition that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// For people.
    pub text: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub since_ms: i64,
}

/// All notices of a process. Cloning shares them.
#[derive(Clone)]
pub struct Notices {
    now_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    raised: Arc<Mutex<BTreeMap<String, Notice>>>,
}

impl Default for Notices {
    fn default() -> Self {
        Self::with_clock(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
        })
    }
}

impl Notices {
    /// No notices; `now_ms` says when one begins.
    #[must_use]
    pub fn with_clock(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self { now_ms: Arc::new(now_ms), raised: Arc::default() }
    }

    /// Raises the notice of a key, or changes its text; it keeps the time at
    /// which it was first raised.
    pub fn raise(&self, key: &str, text: impl Into<String>) {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = raised.get_mut(key) {
            known.text = text.into();
        } else if raised.len() < LIMIT {
            let notice = Notice { text: text.into(), since_ms: (self.now_ms)() };
            raised.insert(key.to_owned(), notice);
        }
    }

    /// Ends the notice of a key, if there is one.
    pub fn clear(&self, key: &str) {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Makes the notices whose keys begin with `prefix` exactly these.
    pub fn replace(&self, prefix: &str, notices: impl IntoIterator<Item = (String, String)>) {
        let wanted: BTreeMap<String, String> =
            notices.into_iter().map(|(key, text)| (format!("{prefix}{key}"), text)).collect();
        self.raised
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|key, _| !key.starts_with(prefix) || wanted.contains_key(key));
        for (key, text) in wanted {
            self.raise(&key, text);
        }
    }

    /// All notices, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Notice> {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Notice> = raised.values().cloned().collect();
        all.sort_by_key(|notice| notice.since_ms);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[test]
    fn a_notice_keeps_its_beginning_and_others_stay() {
        let now = Arc::new(AtomicI64::new(1));
        let clock = Arc::clone(&now);
        let notices = Notices::with_clock(move || clock.load(Ordering::Relaxed));
        notices.raise("disk", "full");
        now.store(2, Ordering::Relaxed);
        notices.raise("disk", "read-only");
        notices.replace("object/", [("a".to_owned(), "bad".to_owned())]);
        let texts = |n: &Notices| n.list().into_iter().map(|n| n.text).collect::<Vec<_>>();
        assert_eq!(texts(&notices), ["read-only", "bad"]);
        assert_eq!(notices.list()[0].since_ms, 1);
        notices.replace("object/", []);
        assert_eq!(texts(&notices), ["read-only"]);
        notices.clear("disk");
        assert!(notices.list().is_empty());
    }
}
