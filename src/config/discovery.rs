//! `static_configs`, `file_sd_configs`, ...: where targets come from.

use std::collections::BTreeSet;
use std::time::Duration;

use super::error::ConfigError;
use super::http::{http_client, http_url};
use super::section::{Field, Section};
use super::{
    DiscoveryConfigs, DnsRecordType, DnsSdConfig, FileSdConfig, HttpClientConfig, HttpSdConfig,
    KubernetesRole, KubernetesSdConfig, KubernetesSelector, StaticConfig,
};

/// Discoveries of Prometheus that narthex does not have.
const UNSUPPORTED: [&str; 34] = [
    "aws",
    "azure",
    "consul",
    "digitalocean",
    "docker",
    "dockerswarm",
    "ec2",
    "ecs",
    "elasticache",
    "eureka",
    "gce",
    "hetzner",
    "ionos",
    "kuma",
    "lightsail",
    "linode",
    "marathon",
    "msk",
    "nerve",
    "nomad",
    "oci",
    "openstack",
    "outscale",
    "ovhcloud",
    "puppetdb",
    "rds",
    "scaleway",
    "serverset",
    "stackit",
    "triton",
    "uyuni",
    "vultr",
    "xds",
    "zookeeper",
];

/// Takes all discoveries out of a section that has other fields, too.
pub fn discovery(section: &mut Section<'_>) -> Result<DiscoveryConfigs, ConfigError> {
    for name in UNSUPPORTED {
        let message = format!(
            "narthex does not support the discovery {name}; it has static_configs, \
             file_sd_configs, http_sd_configs, dns_sd_configs and kubernetes_sd_configs"
        );
        section.refuse(&format!("{name}_sd_configs"), &message)?;
    }
    Ok(DiscoveryConfigs {
        static_configs: section.sections("static_configs", static_config)?,
        file: section.sections("file_sd_configs", file)?,
        http: section.sections("http_sd_configs", http)?,
        dns: section.sections("dns_sd_configs", dns)?,
        kubernetes: section.sections("kubernetes_sd_configs", kubernetes)?,
    })
}

/// Refuses addresses with a `/`, as of URLs that were pasted; relabeling may
/// still make something of them.
pub fn check_static_targets(
    section: &mut Section<'_>,
    configs: &DiscoveryConfigs,
) -> Result<(), ConfigError> {
    for (i, config) in configs.static_configs.iter().enumerate() {
        if let Some(target) = config.targets.iter().find(|t| t.contains('/')) {
            let message = format!(
                "static_configs[{i}]: {target:?} is not host:port; a path belongs into \
                 metrics_path, https into scheme"
            );
            return Err(section.field_error("static_configs", message));
        }
    }
    Ok(())
}

fn static_config(mut section: Section<'_>) -> Result<StaticConfig, ConfigError> {
    let config = StaticConfig {
        targets: section.get("targets", Field::texts)?.unwrap_or_default(),
        labels: section.get("labels", Field::labels)?.unwrap_or_default(),
    };
    section.finish()?;
    Ok(config)
}

/// Reads a list of target groups in YAML, as discovery files hold them.
///
/// # Errors
///
/// [`ConfigError`] names the place of the first mistake.
pub fn parse_target_groups(text: &str, file: &str) -> Result<Vec<StaticConfig>, ConfigError> {
    let node = super::yaml::parse(text).map_err(|e| ConfigError::new(file, e.at, "", e.message))?;
    let directory = std::path::Path::new("");
    let source = super::section::Source { file, directory, warnings: Vec::new().into() };
    source.root(&node).sections(static_config)
}

fn refresh_interval(section: &mut Section<'_>, default_s: u64) -> Result<Duration, ConfigError> {
    let given = section.get("refresh_interval", Field::positive_duration)?;
    Ok(given.unwrap_or(Duration::from_secs(default_s)))
}

fn file(mut section: Section<'_>) -> Result<FileSdConfig, ConfigError> {
    let files = section.field("files").map_or_else(|| Ok(Vec::new()), |f| f.list())?;
    if files.is_empty() {
        return Err(section.error("files is missing"));
    }
    for field in &files {
        if !is_file_pattern(&field.text()?) {
            let message = "must end in .json, .yml or .yaml and may have one * in its last part";
            return Err(field.error(message));
        }
    }
    let config = FileSdConfig {
        files: files.iter().map(Field::path).collect::<Result<_, _>>()?,
        refresh_interval: refresh_interval(&mut section, 300)?,
    };
    section.finish()?;
    Ok(config)
}

fn is_file_pattern(text: &str) -> bool {
    let endings = [".json", ".yml", ".yaml", ".JSON", ".YML", ".YAML"];
    endings.iter().any(|e| text.ends_with(e)) && has_star_in_last_part_only(text)
}

/// Whether the first `*`, if any, stands in the last part of the path.
pub fn has_star_in_last_part_only(text: &str) -> bool {
    text.find('*').is_none_or(|star| !text[star..].contains('/'))
}

fn http(mut section: Section<'_>) -> Result<HttpSdConfig, ConfigError> {
    let url = section.text("url")?.ok_or_else(|| section.error("url is missing"))?;
    http_url(&url).map_err(|message| section.field_error("url", message))?;
    let refresh_interval = refresh_interval(&mut section, 60)?;
    let http = http_client(&mut section)?;
    section.finish()?;
    Ok(HttpSdConfig { url, refresh_interval, http })
}

fn dns(mut section: Section<'_>) -> Result<DnsSdConfig, ConfigError> {
    let names = section.get("names", Field::texts)?.unwrap_or_default();
    if names.is_empty() {
        return Err(section.error("names is missing"));
    }
    let record_type = section.get("type", dns_type)?.unwrap_or_default();
    let port = section.get("port", port)?.unwrap_or(0);
    if port == 0 && record_type != DnsRecordType::Srv {
        return Err(section.error("port is missing; only SRV records have one of their own"));
    }
    let refresh_interval = refresh_interval(&mut section, 30)?;
    section.finish()?;
    Ok(DnsSdConfig { names, record_type, port, refresh_interval })
}

fn dns_type(field: &Field<'_>) -> Result<DnsRecordType, ConfigError> {
    let text = field.text()?;
    match text.to_ascii_uppercase().as_str() {
        "SRV" => Ok(DnsRecordType::Srv),
        "A" => Ok(DnsRecordType::A),
        "AAAA" => Ok(DnsRecordType::Aaaa),
        "MX" => Ok(DnsRecordType::Mx),
        "NS" => Ok(DnsRecordType::Ns),
        _ => Err(field.error(format!("{text:?} is none of SRV, A, AAAA, MX, NS"))),
    }
}

fn port(field: &Field<'_>) -> Result<u16, ConfigError> {
    u16::try_from(field.uint()?).map_err(|_| field.error("is not a port"))
}

impl KubernetesRole {
    /// All roles.
    pub const ALL: [Self; 6] =
        [Self::Node, Self::Pod, Self::Service, Self::Endpoints, Self::EndpointSlice, Self::Ingress];

    /// The name in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Endpoints => "endpoints",
            Self::EndpointSlice => "endpointslice",
            Self::Ingress => "ingress",
        }
    }

    /// The roles whose watches a selector of this role may narrow.
    #[must_use]
    pub const fn selector_roles(self) -> &'static [Self] {
        match self {
            Self::Node => &[Self::Node],
            Self::Pod => &[Self::Pod, Self::Node],
            Self::Service => &[Self::Service],
            Self::Ingress => &[Self::Ingress],
            Self::Endpoints => &[Self::Pod, Self::Service, Self::Endpoints],
            Self::EndpointSlice => &[Self::Pod, Self::Service, Self::EndpointSlice],
        }
    }
}

fn role(field: &Field<'_>) -> Result<KubernetesRole, ConfigError> {
    let text = field.text()?;
    KubernetesRole::ALL.into_iter().find(|r| r.as_str() == text).ok_or_else(|| {
        field.error(format!(
            "{text:?} is none of node, pod, service, endpoints, endpointslice, ingress"
        ))
    })
}

/// How the API server is reached: its URL, a kubeconfig, HTTP options.
pub struct Cluster {
    pub api_server: Option<String>,
    pub kubeconfig_file: Option<std::path::PathBuf>,
    pub http: HttpClientConfig,
}

/// Takes `api_server`, `kubeconfig_file` and the HTTP client options.
pub fn cluster(section: &mut Section<'_>) -> Result<Cluster, ConfigError> {
    let cluster = Cluster {
        api_server: section.text("api_server")?,
        kubeconfig_file: section.path("kubeconfig_file")?,
        http: http_client(section)?,
    };
    if let Some(url) = &cluster.api_server {
        http_url(url).map_err(|message| section.field_error("api_server", message))?;
    }
    if cluster.api_server.is_some() && cluster.kubeconfig_file.is_some() {
        let message = "api_server and kubeconfig_file exclude each other";
        return Err(section.field_error("kubeconfig_file", message));
    }
    if cluster.api_server.is_none() && cluster.http != HttpClientConfig::default() {
        return Err(section.error("HTTP client options need api_server"));
    }
    Ok(cluster)
}

fn kubernetes(mut section: Section<'_>) -> Result<KubernetesSdConfig, ConfigError> {
    let role = section.get("role", role)?.ok_or_else(|| section.error("role is missing"))?;
    let Cluster { api_server, kubeconfig_file, http } = cluster(&mut section)?;
    let (namespaces, own_namespace) = section.get("namespaces", namespaces)?.unwrap_or_default();
    if own_namespace && (api_server.is_some() || kubeconfig_file.is_some()) {
        let message = "own_namespace is for in-cluster use, without api_server or kubeconfig_file";
        return Err(section.field_error("namespaces", message));
    }
    let selectors = selectors(&mut section, role)?;
    let mut attach = section.get("attach_metadata", Field::section)?;
    let mut attached = |name| attach.as_mut().map_or(Ok(false), |s| s.bool_or(name, false));
    let config = KubernetesSdConfig {
        role,
        api_server,
        kubeconfig_file,
        http,
        namespaces,
        own_namespace,
        selectors,
        attach_node: attached("node")?,
        attach_namespace: attached("namespace")?,
        attach_deployment: attached("deployment")?,
        attach_job: attached("job")?,
        attach_cronjob: attached("cronjob")?,
        shares_watches: false,
    };
    attach.map_or(Ok(()), Section::finish)?;
    section.finish()?;
    Ok(config)
}

fn namespaces(field: &Field<'_>) -> Result<(Vec<String>, bool), ConfigError> {
    let mut section = field.section()?;
    let names = section.get("names", Field::texts)?.unwrap_or_default();
    let own = section.bool_or("own_namespace", false)?;
    section.finish()?;
    Ok((names, own))
}

fn selectors(
    section: &mut Section<'_>,
    of: KubernetesRole,
) -> Result<Vec<KubernetesSelector>, ConfigError> {
    let mut seen = BTreeSet::new();
    section.sections("selectors", |mut section| {
        let given = section.get("role", role)?.ok_or_else(|| section.error("role is missing"))?;
        if !of.selector_roles().contains(&given) {
            let allowed: Vec<&str> = of.selector_roles().iter().map(|r| r.as_str()).collect();
            let message = format!("role {} takes selectors of {}", of.as_str(), allowed.join(", "));
            return Err(section.field_error("role", message));
        }
        if !seen.insert(given) {
            return Err(section.field_error("role", "there is another selector of this role"));
        }
        let selector = KubernetesSelector {
            role: given,
            label: section.text("label")?.unwrap_or_default(),
            field: section.text("field")?.unwrap_or_default(),
        };
        if !is_label_selector(&selector.label) {
            return Err(section.field_error("label", "is not a label selector"));
        }
        if !is_field_selector(&selector.field) {
            return Err(section.field_error("field", "is not a field selector"));
        }
        section.finish()?;
        Ok(selector)
    })
}

/// `a=b,c!=d`: each term has an operator and a field.
fn is_field_selector(text: &str) -> bool {
    text.is_empty()
        || text.split(',').all(|term| {
            let (name, _) =
                term.split_once("!=").or_else(|| term.split_once('=')).unwrap_or_default();
            term.is_empty() || !name.is_empty()
        })
}

/// `a=b,c in (d, e),!f,g>1`. The values' own rules are left to the server.
fn is_label_selector(text: &str) -> bool {
    let mut rest = text.trim();
    if rest.is_empty() {
        return true;
    }
    loop {
        let Some(after) = label_term(rest) else { return false };
        match after.trim_start().strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None => return after.trim().is_empty(),
        }
    }
}

/// Splits one term off; what follows it.
fn label_term(text: &str) -> Option<&str> {
    let (negated, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    let (key, rest) = word(text)?;
    let rest = rest.trim_start();
    if negated || rest.is_empty() || rest.starts_with(',') {
        return (!key.is_empty()).then_some(rest);
    }
    for operator in ["==", "!=", "=", ">", "<"] {
        if let Some(rest) = rest.strip_prefix(operator) {
            let rest = rest.trim_start();
            return Some(word(rest).map_or(rest, |(_, rest)| rest));
        }
    }
    let list = rest.strip_prefix("in").or_else(|| rest.strip_prefix("notin"))?.trim_start();
    let (values, rest) = list.strip_prefix('(')?.split_once(')')?;
    values.split(',').all(|v| v.trim().is_empty() || word(v.trim()).is_some()).then_some(rest)
}

fn word(text: &str) -> Option<(&str, &str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_checked_for_their_form() {
        for good in [
            "",
            "a=b",
            "a==b, c!=d",
            "a in (b, c),!d",
            "e",
            "x notin (y)",
            "app.io/n=1",
            "a=",
            "a>1",
        ] {
            assert!(is_label_selector(good), "{good}");
        }
        for bad in ["=", "a b", "a in b", "a in (b", "a=b=c", "!", "a,,b", "a=b;"] {
            assert!(!is_label_selector(bad), "{bad}");
        }
        assert!(is_field_selector("status.phase=Running,spec.nodeName!=a"));
        assert!(!is_field_selector("running") && !is_field_selector("=x"));
    }
}
