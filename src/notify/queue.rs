//! What has a receiver not heard yet? Alerts in order, each once.

use std::collections::{HashMap, VecDeque};

use narthex_storage::labels::Labels;

use super::Alert;

/// Alerts that wait. Of each alert only the newest state is kept, at the
/// place of the first.
#[derive(Debug)]
pub(super) struct Queue {
    alerts: HashMap<Labels, Alert>,
    /// The keys of `alerts`, each once.
    order: VecDeque<Labels>,
    capacity: usize,
}

impl Queue {
    /// An empty queue of at most `capacity` alerts.
    pub(super) fn new(capacity: usize) -> Self {
        Self { alerts: HashMap::new(), order: VecDeque::new(), capacity: capacity.max(1) }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Adds alerts; the oldest go when there are too many. Returns how many.
    pub(super) fn push(&mut self, alerts: impl IntoIterator<Item = Alert>) -> u64 {
        let mut dropped = 0;
        for alert in alerts {
            if let Some(waiting) = self.alerts.get_mut(&alert.labels) {
                *waiting = alert;
                continue;
            }
            if self.order.len() >= self.capacity
                && let Some(oldest) = self.order.pop_front()
            {
                self.alerts.remove(&oldest);
                dropped += 1;
            }
            self.order.push_back(alert.labels.clone());
            self.alerts.insert(alert.labels.clone(), alert);
        }
        dropped
    }

    /// Takes the first alerts out, at most `count`.
    pub(super) fn take(&mut self, count: usize) -> Vec<Alert> {
        let count = count.min(self.order.len());
        let keys = self.order.drain(..count);
        keys.filter_map(|key| self.alerts.remove(&key)).collect()
    }

    /// Puts alerts back that could not be sent, in front; those that have a
    /// newer state by now stay out. Returns how many found no room.
    pub(super) fn put_back(&mut self, alerts: Vec<Alert>) -> u64 {
        let mut dropped = 0;
        for alert in alerts.into_iter().rev() {
            if self.alerts.contains_key(&alert.labels) {
                continue;
            }
            if self.order.len() >= self.capacity {
                dropped += 1;
                continue;
            }
            self.order.push_front(alert.labels.clone());
            self.alerts.insert(alert.labels.clone(), alert);
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alert(name: u8, is_resolved: bool) -> Alert {
        Alert {
            labels: Labels::from_pairs([("alertname", name.to_string())]),
            annotations: Default::default(),
            starts_at_ms: 0,
            ends_at_ms: 0,
            is_resolved,
            generator_url: String::new(),
        }
    }

    #[test]
    fn the_newest_state_wins() {
        let mut queue = Queue::new(10);
        queue.push([alert(1, false), alert(2, false), alert(1, true)]);
        let batch = queue.take(1);
        assert_eq!(batch, [alert(1, true)]);
        // It fires again while it is on its way, and sending fails.
        queue.push([alert(1, false)]);
        assert_eq!(queue.put_back(batch), 0);
        assert_eq!(queue.take(9), [alert(2, false), alert(1, false)]);
    }

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let mut queue = Queue::new(2);
        assert_eq!(queue.push([alert(1, false), alert(2, false), alert(3, false)]), 1);
        let batch = queue.take(1);
        assert_eq!(queue.push([alert(4, false)]), 0);
        assert_eq!(queue.put_back(batch), 1);
        assert_eq!(queue.take(9), [alert(3, false), alert(4, false)]);
    }

    proptest! {
        /// Whatever the receiver does, what it knows in the end is the newest
        /// state of each alert.
        #[test]
        fn nothing_is_lost(steps in proptest::collection::vec((0_u8..5, any::<bool>(), any::<bool>()), 0..60)) {
            let mut queue = Queue::new(100);
            let mut newest = HashMap::new();
            let mut heard = HashMap::new();
            for (name, is_resolved, works) in steps {
                queue.push([alert(name, is_resolved)]);
                newest.insert(name.to_string(), is_resolved);
                let batch = queue.take(2);
                if works {
                    heard.extend(batch.iter().map(|a| (a.labels.get("alertname").unwrap().to_owned(), a.is_resolved)));
                } else {
                    queue.put_back(batch);
                }
            }
            let rest = queue.take(100);
            heard.extend(rest.iter().map(|a| (a.labels.get("alertname").unwrap().to_owned(), a.is_resolved)));
            prop_assert_eq!(heard, newest);
        }
    }
}
