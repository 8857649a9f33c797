//! Names of meta labels.

use std::collections::BTreeMap;

use super::object::Meta;

/// Labels on their way into a target or group.
pub type LabelMap = BTreeMap<String, String>;

/// What every label begins with.
const PREFIX: &str = "__meta_kubernetes_";

/// Sets `__meta_kubernetes_NAME`.
pub fn set(labels: &mut LabelMap, name: &str, value: impl Into<String>) {
    labels.insert(format!("{PREFIX}{name}"), value.into());
}

/// Sets `__meta_kubernetes_NAME` if there is a value.
pub fn set_some(labels: &mut LabelMap, name: &str, value: Option<impl Into<String>>) {
    if let Some(value) = value {
        set(labels, name, value);
    }
}

/// Every character outside `[a-zA-Z0-9_]` becomes one underscore.
pub fn sanitize(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Sets `KIND_PART_KEY` and `KIND_PARTpresent_KEY` for each entry, such as
/// `pod_label_app` and `pod_labelpresent_app`.
pub fn set_map(labels: &mut LabelMap, kind: &str, part: &str, map: &BTreeMap<String, String>) {
    for (key, value) in map {
        let key = sanitize(key);
        set(labels, &format!("{kind}_{part}_{key}"), value);
        set(labels, &format!("{kind}_{part}present_{key}"), "true");
    }
}

/// Sets the labels and annotations of an object.
pub fn set_labels_and_annotations(labels: &mut LabelMap, kind: &str, meta: &Meta) {
    set_map(labels, kind, "label", &meta.labels);
    set_map(labels, kind, "annotation", &meta.annotations);
}

/// Sets name, labels and annotations of an object.
pub fn set_metadata(labels: &mut LabelMap, kind: &str, meta: &Meta) {
    set(labels, &format!("{kind}_name"), &meta.name);
    set_labels_and_annotations(labels, kind, meta);
}

/// `host:port`, IPv6 in brackets.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A set of labels with only an address.
pub fn target(address: String) -> LabelMap {
    LabelMap::from([("__address__".to_owned(), address)])
}
