//! Secrets and ConfigMaps that objects refer to.

use serde_json::Value;

/// Which kind of object holds a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SecretKind {
    /// A Secret; its data is base64.
    Secret,
    /// A ConfigMap; its data is text.
    ConfigMap,
}

/// Looks up texts that objects refer to.
pub trait SecretSource {
    /// The decoded text under `key`, not trimmed.
    ///
    /// # Errors
    ///
    /// The reason, such as a missing object, key or right.
    fn text(
        &self,
        kind: SecretKind,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<String, String>;
}

/// The text of a `{name, key}` selector of a Secret.
pub fn of_secret(
    source: &dyn SecretSource,
    namespace: &str,
    selector: &Value,
) -> Result<String, String> {
    let (name, key) = name_and_key(selector)?;
    source.text(SecretKind::Secret, namespace, name, key)
}

/// The text of a `{secret}` or `{configMap}` selector; `None` if it has
/// neither.
pub fn of_either(
    source: &dyn SecretSource,
    namespace: &str,
    selector: &Value,
) -> Result<Option<String>, String> {
    for (member, kind) in [("secret", SecretKind::Secret), ("configMap", SecretKind::ConfigMap)] {
        if let Some(inner) = selector.get(member).filter(|v| v.is_object()) {
            let (name, key) = name_and_key(inner)?;
            return source.text(kind, namespace, name, key).map(Some);
        }
    }
    Ok(None)
}

fn name_and_key(selector: &Value) -> Result<(&str, &str), String> {
    match (selector["name"].as_str(), selector["key"].as_str()) {
        (Some(name), Some(key)) if !name.is_empty() => Ok((name, key)),
        _ => Err("a reference needs name and key".to_owned()),
    }
}
