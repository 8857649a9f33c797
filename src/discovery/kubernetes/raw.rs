//! An object of a kind that is mapped rather than read: all that was written,
//! but for what changes by itself.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::object::{Meta, Object};

/// An object as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    metadata: Meta,
    /// The object without `status` and with the metadata that names it.
    pub value: Value,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let mut metadata =
            Meta::deserialize(&value["metadata"]).map_err(serde::de::Error::custom)?;
        // What changes by itself must not make an object look changed.
        metadata.annotations.clear();
        if let Some(members) = value.as_object_mut() {
            members.remove("status");
        }
        if let Some(meta) = value["metadata"].as_object_mut() {
            meta.retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "uid" | "labels"));
        }
        Ok(Self { metadata, value })
    }
}

impl Object for Raw {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut Meta {
        &mut self.metadata
    }
}
