//! `alerting`, `storage`, `operator` and `webhooks`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::discovery::{Cluster, check_static_targets, cluster, discovery};
use super::error::ConfigError;
use super::http::{http_client, http_url};
use super::scrape::{relabel_configs, scheme_or_http};
use super::section::{Field, Section};
use super::{
    AlertingConfig, AlertmanagerConfig, KubernetesRole, LabelSelector, LabelSelectorOp,
    LabelSelectorTerm, NameValidation, ObjectSelector, OperatorConfig, Secret, StorageConfig,
    WebhookConfig, WebhooksConfig,
};

/// Reads `alerting`.
pub fn alerting(
    mut section: Section<'_>,
    names: NameValidation,
) -> Result<AlertingConfig, ConfigError> {
    let config = AlertingConfig {
        alert_relabel_configs: relabel_configs(&mut section, "alert_relabel_configs", names)?,
        alertmanagers: section.sections("alertmanagers", |s| alertmanager(s, names))?,
    };
    section.finish()?;
    Ok(config)
}

fn alertmanager(
    mut section: Section<'_>,
    names: NameValidation,
) -> Result<AlertmanagerConfig, ConfigError> {
    section.refuse("sigv4", "narthex does not support sigv4")?;
    if let Some(version) = section.text("api_version")?
        && version != "v2"
    {
        return Err(section.field_error("api_version", "narthex speaks v2 only"));
    }
    let timeout = section.get("timeout", Field::duration)?.filter(|t| !t.is_zero());
    let config = AlertmanagerConfig {
        scheme: scheme_or_http(&mut section)?,
        path_prefix: section.text("path_prefix")?.unwrap_or_default(),
        timeout: timeout.unwrap_or(Duration::from_secs(10)),
        http: http_client(&mut section)?,
        discovery: discovery(&mut section)?,
        relabel_configs: relabel_configs(&mut section, "relabel_configs", names)?,
        alert_relabel_configs: relabel_configs(&mut section, "alert_relabel_configs", names)?,
    };
    if config.relabel_configs.is_empty() {
        check_static_targets(&mut section, &config.discovery)?;
    }
    section.finish()?;
    Ok(config)
}

/// Reads `storage`.
pub fn storage(mut section: Section<'_>) -> Result<StorageConfig, ConfigError> {
    let mut config = StorageConfig::default();
    if let Some(mut tsdb) = section.get("tsdb", Field::section)? {
        config.out_of_order_window =
            tsdb.get("out_of_order_time_window", Field::duration)?.unwrap_or_default();
        if let Some(mut encoding) = tsdb.get("chunk_encoding", Field::section)? {
            if let Some(floats) = encoding.text("floats")?
                && !matches!(floats.as_str(), "xor" | "xor2")
            {
                return Err(encoding.field_error("floats", "is neither xor nor xor2"));
            }
            encoding.ignore("floats", "has no meaning here: narthex chooses codecs by itself");
            encoding.finish()?;
        }
        tsdb.ignore(
            "stale_series_compaction_threshold",
            "has no meaning here: stale series leave memory by themselves",
        );
        if let Some(retention) = tsdb.get("retention", Field::section)? {
            read_retention(retention, &mut config)?;
        }
        tsdb.finish()?;
    }
    if let Some(mut exemplars) = section.get("exemplars", Field::section)? {
        let max = exemplars.get("max_exemplars", Field::int)?;
        config.max_exemplars = max.map(|n| u64::try_from(n).unwrap_or(0));
        exemplars.finish()?;
    }
    section.finish()?;
    Ok(config)
}

fn read_retention(mut section: Section<'_>, config: &mut StorageConfig) -> Result<(), ConfigError> {
    let time = section.get("time", Field::duration)?;
    config.retention_time = time.filter(|t| !t.is_zero());
    config.retention_size_bytes = section.get("size", Field::size)?.filter(|s| *s > 0);
    let percentage = section.get("percentage", Field::float)?;
    if percentage.is_some_and(|p| !(0.0..=100.0).contains(&p)) {
        return Err(section.field_error("percentage", "must be from 0 to 100"));
    }
    config.retention_percentage = percentage.filter(|p| *p > 0.0);
    section.finish()
}

/// Reads `operator`.
pub fn operator(mut section: Section<'_>) -> Result<OperatorConfig, ConfigError> {
    let Cluster { api_server, kubeconfig_file, http } = cluster(&mut section)?;
    let role = section.get("service_discovery_role", |field| match field.text()?.as_str() {
        "EndpointSlice" => Ok(KubernetesRole::EndpointSlice),
        "Endpoints" => Ok(KubernetesRole::Endpoints),
        other => Err(field.error(format!("{other:?} is neither EndpointSlice nor Endpoints"))),
    })?;
    let config = OperatorConfig {
        api_server,
        kubeconfig_file,
        http,
        service_discovery_role: role.unwrap_or(KubernetesRole::EndpointSlice),
        service_monitors: object_selector(&mut section, "service_monitor")?,
        pod_monitors: object_selector(&mut section, "pod_monitor")?,
        probes: object_selector(&mut section, "probe")?,
        scrape_configs: object_selector(&mut section, "scrape_config")?,
        rules: object_selector(&mut section, "rule")?,
    };
    section.finish()?;
    Ok(config)
}

/// An absent selector selects all, a null one nothing (objects) or the own
/// namespace (namespaces).
fn object_selector(section: &mut Section<'_>, kind: &str) -> Result<ObjectSelector, ConfigError> {
    let mut selector = |name: String| match section.written(&name) {
        None => Ok(Some(LabelSelector::default())),
        Some(field) if field.is_null() => Ok(None),
        Some(field) => label_selector(&field).map(Some),
    };
    Ok(ObjectSelector {
        objects: selector(format!("{kind}_selector"))?,
        namespaces: selector(format!("{kind}_namespace_selector"))?,
    })
}

fn label_selector(field: &Field<'_>) -> Result<LabelSelector, ConfigError> {
    let mut section = field.section()?;
    let match_labels: BTreeMap<String, String> =
        section.get("matchLabels", Field::text_map)?.unwrap_or_default();
    let match_expressions = section.sections("matchExpressions", |mut term| {
        let key = term.text("key")?.ok_or_else(|| term.error("key is missing"))?;
        let operator = term.text("operator")?.unwrap_or_default();
        let values = term.get("values", Field::texts)?.unwrap_or_default();
        let operator = LabelSelectorOp::from_name(&operator, values.len())
            .map_err(|message| term.field_error("operator", message))?;
        term.finish()?;
        Ok(LabelSelectorTerm { key, operator, values })
    })?;
    section.finish()?;
    Ok(LabelSelector { match_labels, match_expressions })
}

impl LabelSelectorOp {
    /// The operator of this name, if it goes with that many values.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub fn from_name(name: &str, values: usize) -> Result<Self, String> {
        let operator = match name {
            "In" => Self::In,
            "NotIn" => Self::NotIn,
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            _ => return Err(format!("{name:?} is none of In, NotIn, Exists, DoesNotExist")),
        };
        match (operator, values) {
            (Self::In | Self::NotIn, 0) => Err(format!("{name} needs values")),
            (Self::Exists | Self::DoesNotExist, 1..) => Err(format!("{name} takes no values")),
            _ => Ok(operator),
        }
    }
}

/// Reads `webhooks`.
pub fn webhooks(mut section: Section<'_>) -> Result<WebhooksConfig, ConfigError> {
    let receivers = section.sections("receivers", webhook)?;
    let mut names: Vec<&str> = receivers.iter().map(|r| r.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("there are several named {:?}", pair[0]);
        return Err(section.field_error("receivers", message));
    }
    section.finish()?;
    Ok(WebhooksConfig { receivers })
}

fn webhook(mut section: Section<'_>) -> Result<WebhookConfig, ConfigError> {
    let name = section.text("name")?.ok_or_else(|| section.error("name is missing"))?;
    let url = section.text("url")?.ok_or_else(|| section.error("url is missing"))?;
    http_url(&url).map_err(|message| section.field_error("url", message))?;
    let mut wait = |name, default_s| {
        let given = section.get(name, Field::positive_duration)?;
        Ok(given.unwrap_or(Duration::from_secs(default_s)))
    };
    let group_wait = wait("group_wait", 30)?;
    let group_interval = wait("group_interval", 5 * 60)?;
    let repeat_interval = wait("repeat_interval", 4 * 3600)?;
    let config = WebhookConfig {
        name,
        url: Secret::new(url),
        http: http_client(&mut section)?,
        group_by: section.get("group_by", Field::texts)?.unwrap_or_default(),
        group_wait,
        group_interval,
        repeat_interval,
        send_resolved: section.bool_or("send_resolved", true)?,
        inhibit_equal: section.get("inhibit_equal", Field::texts)?.unwrap_or_default(),
    };
    section.finish()?;
    Ok(config)
}
