//! How do alerts look on the wire? The JSON of Alertmanager's API v2 and of
//! its webhooks.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use narthex_storage::labels::Labels;
use serde::Serialize;

use super::{Alert, Annotations};

/// What Go writes for no time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

fn map(labels: &Labels) -> BTreeMap<&str, &str> {
    labels.iter().collect()
}

/// A time with milliseconds, as the API wants it.
pub(super) fn time(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms)
        .map_or_else(|| NO_TIME.to_owned(), |t| t.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PostableAlert<'a> {
    annotations: &'a Annotations,
    ends_at: String,
    starts_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
}

/// The body of `POST /api/v2/alerts`.
pub(super) fn postable(alerts: &[Alert]) -> Vec<u8> {
    let alerts: Vec<PostableAlert<'_>> = alerts
        .iter()
        .map(|alert| PostableAlert {
            annotations: &alert.annotations,
            ends_at: time(alert.ends_at_ms),
            starts_at: time(alert.starts_at_ms),
            generator_url: &alert.generator_url,
            labels: map(&alert.labels),
        })
        .collect();
    serde_json::to_vec(&alerts).expect("maps of texts are always JSON")
}

/// A notification of a group of alerts.
pub(super) struct Notification {
    pub(super) receiver: String,
    pub(super) external_url: String,
    pub(super) group_labels: Labels,
    /// Sorted by labels, none twice, at least one.
    pub(super) alerts: Vec<Alert>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    receiver: &'a str,
    status: &'static str,
    alerts: Vec<PayloadAlert<'a>>,
    group_labels: BTreeMap<&'a str, &'a str>,
    common_labels: BTreeMap<&'a str, &'a str>,
    common_annotations: BTreeMap<&'a str, &'a str>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    version: &'static str,
    group_key: String,
    truncated_alerts: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PayloadAlert<'a> {
    status: &'static str,
    labels: BTreeMap<&'a str, &'a str>,
    annotations: &'a Annotations,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    fingerprint: String,
}

fn status(is_resolved: bool) -> &'static str {
    if is_resolved { "resolved" } else { "firing" }
}

/// The body of a webhook.
pub(super) fn webhook(notification: &Notification) -> Vec<u8> {
    let alerts = &notification.alerts;
    let payload = Payload {
        receiver: &notification.receiver,
        status: status(alerts.iter().all(|alert| alert.is_resolved)),
        alerts: alerts
            .iter()
            .map(|alert| PayloadAlert {
                status: status(alert.is_resolved),
                labels: map(&alert.labels),
                annotations: &alert.annotations,
                starts_at: time(alert.starts_at_ms),
                ends_at: if alert.is_resolved {
                    time(alert.ends_at_ms)
                } else {
                    NO_TIME.to_owned()
                },
                generator_url: &alert.generator_url,
                fingerprint: format!("{:016x}", fingerprint(&alert.labels)),
            })
            .collect(),
        group_labels: map(&notification.group_labels),
        common_labels: common(alerts.iter().map(|alert| map(&alert.labels))),
        common_annotations: common(alerts.iter().map(|alert| {
            alert.annotations.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect()
        })),
        external_url: &notification.external_url,
        version: "4",
        group_key: format!("{{}}:{}", notification.group_labels),
        truncated_alerts: 0,
    };
    serde_json::to_vec(&payload).expect("maps of texts are always JSON")
}

/// What all maps have in common.
fn common<'a>(
    maps: impl Iterator<Item = BTreeMap<&'a str, &'a str>>,
) -> BTreeMap<&'a str, &'a str> {
    let both = |mut a: BTreeMap<&'a str, &'a str>, b: BTreeMap<&'a str, &'a str>| {
        a.retain(|name, value| b.get(name) == Some(value));
        a
    };
    maps.reduce(both).unwrap_or_default()
}

/// The fingerprint by which Alertmanager names an alert: FNV-1a.
fn fingerprint(labels: &Labels) -> u64 {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for (name, value) in labels {
        hash = name.bytes().chain([0xff]).chain(value.bytes()).chain([0xff]).fold(hash, add);
    }
    hash
}
