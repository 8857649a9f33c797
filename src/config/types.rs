//! The validated values, one struct per section of the file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use narthex_storage::labels::Labels;

use super::Secret;

/// A whole configuration. Paths are resolved against the directory of the
/// file they were written in, and defaults are filled in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// `global`.
    pub global: GlobalConfig,
    /// `scrape_configs`, followed by those of `scrape_config_files`.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// How many of `scrape_configs` stand in the main file.
    pub main_scrape_configs: usize,
    /// `scrape_config_files`: glob patterns.
    pub scrape_config_files: Vec<PathBuf>,
    /// `rule_files`: glob patterns.
    pub rule_files: Vec<PathBuf>,
    /// `alerting`.
    pub alerting: AlertingConfig,
    /// `remote_write`.
    pub remote_write: Vec<RemoteWriteConfig>,
    /// `remote_read`.
    pub remote_read: Vec<RemoteReadConfig>,
    /// `storage`.
    pub storage: StorageConfig,
    /// `operator`: the Prometheus Operator's objects read directly.
    pub operator: Option<OperatorConfig>,
    /// `webhooks`: receivers of alerts without an Alertmanager.
    pub webhooks: WebhooksConfig,
    /// What is accepted although it has no meaning here, each with its place;
    /// to be logged once.
    pub warnings: Vec<String>,
}

/// `global`.
#[derive(Debug, Clone, PartialEq)]
pub struct GlobalConfig {
    /// Default 1m.
    pub scrape_interval: Duration,
    /// Default 10s, at most `scrape_interval`.
    pub scrape_timeout: Duration,
    /// Default 1m.
    pub evaluation_interval: Duration,
    /// Rules see data this much older. Default 0.
    pub rule_query_offset: Duration,
    /// Added to alerts, federation and remote writes.
    pub external_labels: Labels,
    /// Where queries are logged, if anywhere.
    pub query_log_file: Option<PathBuf>,
    /// Where failed scrapes are logged, if anywhere.
    pub scrape_failure_log_file: Option<PathBuf>,
    /// Defaults of the limits of each scrape configuration.
    pub limits: ScrapeLimits,
    /// Default of each scrape configuration.
    pub metric_name_validation: NameValidation,
    /// Default of each scrape configuration.
    pub metric_name_escaping: NameEscaping,
    /// Default of each scrape configuration; if absent, that depends on
    /// whether native histograms are asked for.
    pub scrape_protocols: Option<Vec<ScrapeProtocol>>,
    /// Default of each scrape configuration.
    pub scrape_native_histograms: bool,
    /// Default of each scrape configuration.
    pub always_scrape_classic_histograms: bool,
    /// Default of each scrape configuration.
    pub convert_classic_histograms_to_nhcb: bool,
    /// Default of each scrape configuration.
    pub extra_scrape_metrics: bool,
}

impl Default for GlobalConfig {
    fn default() -> Self {
        Self {
            scrape_interval: Duration::from_secs(60),
            scrape_timeout: Duration::from_secs(10),
            evaluation_interval: Duration::from_secs(60),
            rule_query_offset: Duration::ZERO,
            external_labels: Labels::empty(),
            query_log_file: None,
            scrape_failure_log_file: None,
            limits: ScrapeLimits::default(),
            metric_name_validation: NameValidation::Utf8,
            metric_name_escaping: NameEscaping::AllowUtf8,
            scrape_protocols: None,
            scrape_native_histograms: false,
            always_scrape_classic_histograms: false,
            convert_classic_histograms_to_nhcb: false,
            extra_scrape_metrics: false,
        }
    }
}

/// Limits of one scrape; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrapeLimits {
    /// Uncompressed bytes of a page.
    pub body_size_bytes: u64,
    /// Samples after metric relabeling.
    pub samples: u64,
    /// Labels of a series.
    pub labels: u64,
    /// Bytes of a label name.
    pub label_name_bytes: u64,
    /// Bytes of a label value.
    pub label_value_bytes: u64,
    /// Targets of the scrape configuration.
    pub targets: u64,
    /// Dropped targets that are remembered.
    pub keep_dropped_targets: u64,
}

/// Which metric and label names are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameValidation {
    /// Any non-empty UTF-8 text.
    #[default]
    Utf8,
    /// `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    Legacy,
}

/// How a target is asked to escape names that are not of the classic kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameEscaping {
    /// Not at all.
    #[default]
    AllowUtf8,
    /// To underscores.
    Underscores,
    /// Dots to `_dot_`.
    Dots,
    /// `U__` and hexadecimal values.
    Values,
}

/// Exposition formats, as named in `scrape_protocols`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScrapeProtocol {
    /// `PrometheusProto`
    PrometheusProto,
    /// `PrometheusText0.0.4`
    PrometheusText0_0_4,
    /// `PrometheusText1.0.0`
    PrometheusText1_0_0,
    /// `OpenMetricsText0.0.1`
    OpenMetricsText0_0_1,
    /// `OpenMetricsText1.0.0`
    OpenMetricsText1_0_0,
}

/// One of `scrape_configs`.
#[derive(Debug, Clone, PartialEq)]
pub struct ScrapeConfig {
    /// Unique; the pool's name and the default `job` label.
    pub job_name: String,
    /// Exposed labels win over target labels.
    pub honor_labels: bool,
    /// Exposed timestamps are used. Default true.
    pub honor_timestamps: bool,
    /// Series with exposed timestamps go stale, too.
    pub track_timestamps_staleness: bool,
    /// Between two scrapes of a target.
    pub scrape_interval: Duration,
    /// At most `scrape_interval`.
    pub scrape_timeout: Duration,
    /// Asked for, in this order.
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// Assumed when the target names no known format.
    pub fallback_scrape_protocol: Option<ScrapeProtocol>,
    /// Whether native histograms are asked for and stored.
    pub scrape_native_histograms: bool,
    /// Keep classic series beside native histograms.
    pub always_scrape_classic_histograms: bool,
    /// Store classic histograms as native ones with custom buckets.
    pub convert_classic_histograms_to_nhcb: bool,
    /// Write `scrape_timeout_seconds` and the like.
    pub extra_scrape_metrics: bool,
    /// Largest number of buckets of a native histogram; 0 is no limit.
    pub native_histogram_bucket_limit: u64,
    /// Smallest growth factor of native histograms; 0 is no limit.
    pub native_histogram_min_bucket_factor: f64,
    /// Default `/metrics`.
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// URL parameters.
    pub params: BTreeMap<String, Vec<String>>,
    /// Ask for gzip. Default true.
    pub enable_compression: bool,
    /// Limits, the global ones filled in.
    pub limits: ScrapeLimits,
    /// Which names are valid.
    pub metric_name_validation: NameValidation,
    /// How names are asked to be escaped.
    pub metric_name_escaping: NameEscaping,
    /// Overrides the global one.
    pub scrape_failure_log_file: Option<PathBuf>,
    /// How targets are talked to.
    pub http: HttpClientConfig,
    /// Where targets come from.
    pub discovery: DiscoveryConfigs,
    /// `relabel_configs`: applied to targets.
    pub relabel_configs: Vec<RelabelConfig>,
    /// `metric_relabel_configs`: applied to samples.
    pub metric_relabel_configs: Vec<RelabelConfig>,
    /// The operator's object that this comes from, such as
    /// `serviceMonitor/monitoring/web/0`; `None` if it stands in the file.
    pub origin: Option<String>,
}

/// Where targets or Alertmanagers come from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DiscoveryConfigs {
    /// `static_configs`.
    pub static_configs: Vec<StaticConfig>,
    /// `file_sd_configs`.
    pub file: Vec<FileSdConfig>,
    /// `http_sd_configs`.
    pub http: Vec<HttpSdConfig>,
    /// `dns_sd_configs`.
    pub dns: Vec<DnsSdConfig>,
    /// `kubernetes_sd_configs`.
    pub kubernetes: Vec<KubernetesSdConfig>,
}

/// One of `static_configs`, and the content of discovery files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StaticConfig {
    /// `host:port`.
    pub targets: Vec<String>,
    /// Labels of all of them.
    pub labels: BTreeMap<String, String>,
}

/// One of `file_sd_configs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSdConfig {
    /// Patterns ending in .json, .yml or .yaml.
    pub files: Vec<PathBuf>,
    /// Besides watching. Default 5m.
    pub refresh_interval: Duration,
}

/// One of `http_sd_configs`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpSdConfig {
    /// `http` or `https`.
    pub url: String,
    /// Default 1m.
    pub refresh_interval: Duration,
    /// How the URL is asked.
    pub http: HttpClientConfig,
}

/// One of `dns_sd_configs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSdConfig {
    /// Names to ask for.
    pub names: Vec<String>,
    /// Default SRV.
    pub record_type: DnsRecordType,
    /// Needed for all but SRV.
    pub port: u16,
    /// Default 30s.
    pub refresh_interval: Duration,
}

/// Record types of `dns_sd_configs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each is named as in DNS")]
pub enum DnsRecordType {
    A,
    Aaaa,
    #[default]
    Srv,
    Mx,
    Ns,
}

/// One of `kubernetes_sd_configs`.
#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesSdConfig {
    /// What is discovered.
    pub role: KubernetesRole,
    /// URL; `None` is in-cluster or `kubeconfig_file`.
    pub api_server: Option<String>,
    /// Excludes `api_server`.
    pub kubeconfig_file: Option<PathBuf>,
    /// Only with `api_server`.
    pub http: HttpClientConfig,
    /// Empty: all.
    pub namespaces: Vec<String>,
    /// Adds the namespace of the service account.
    pub own_namespace: bool,
    /// At most one per role.
    pub selectors: Vec<KubernetesSelector>,
    /// `attach_metadata.node`.
    pub attach_node: bool,
    /// `attach_metadata.namespace`.
    pub attach_namespace: bool,
    /// `attach_metadata.deployment`.
    pub attach_deployment: bool,
    /// `attach_metadata.job`.
    pub attach_job: bool,
    /// `attach_metadata.cronjob`.
    pub attach_cronjob: bool,
    /// Watches all namespaces and narrows in memory, so that entries that
    /// differ in namespaces share watches. Not a field of the file: set for
    /// what the operator's objects ask for, which are watched everywhere
    /// anyway.
    pub shares_watches: bool,
}

/// Roles of Kubernetes discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is named as in Kubernetes")]
pub enum KubernetesRole {
    Node,
    Pod,
    Service,
    Endpoints,
    EndpointSlice,
    Ingress,
}

/// A selector that is passed on to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesSelector {
    /// Which watch it narrows.
    pub role: KubernetesRole,
    /// labelSelector.
    pub label: String,
    /// fieldSelector.
    pub field: String,
}

/// One of `relabel_configs`, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelabelConfig {
    /// Values of these are joined.
    pub source_labels: Vec<String>,
    /// Default `;`.
    pub separator: String,
    /// Default `(.*)`; as written, not anchored.
    pub regex: String,
    /// For `hashmod`.
    pub modulus: u64,
    /// What is written.
    pub target_label: String,
    /// Default `$1`.
    pub replacement: String,
    /// Default `replace`.
    pub action: RelabelAction,
}

/// Actions of relabeling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each is named as in Prometheus")]
pub enum RelabelAction {
    #[default]
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

impl Default for RelabelConfig {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: ";".to_owned(),
            regex: "(.*)".to_owned(),
            modulus: 0,
            target_label: String::new(),
            replacement: "$1".to_owned(),
            action: RelabelAction::Replace,
        }
    }
}

/// How an HTTP server is talked to, whatever for.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpClientConfig {
    /// At most one of these three is set.
    pub basic_auth: Option<BasicAuth>,
    /// `authorization`, or the old `bearer_token(_file)`.
    pub authorization: Option<Authorization>,
    /// `oauth2`.
    pub oauth2: Option<Box<OAuth2>>,
    /// `tls_config`.
    pub tls: TlsConfig,
    /// Default true.
    pub follow_redirects: bool,
    /// Default true.
    pub enable_http2: bool,
    /// Proxies.
    pub proxy: ProxyConfig,
    /// `http_headers`: name to values; files are read per request.
    pub headers: BTreeMap<String, HeaderConfig>,
}

impl Default for HttpClientConfig {
    fn default() -> Self {
        Self {
            basic_auth: None,
            authorization: None,
            oauth2: None,
            tls: TlsConfig::default(),
            follow_redirects: true,
            enable_http2: true,
            proxy: ProxyConfig::default(),
            headers: BTreeMap::new(),
        }
    }
}

/// A secret in the file or in another file, read for every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// Written in the configuration.
    Inline(Secret),
    /// Read from a file, white space trimmed.
    File(PathBuf),
}

/// `basic_auth`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// User name or the file that holds it.
    pub username: SecretSource,
    /// Password, if any.
    pub password: Option<SecretSource>,
}

/// `authorization`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Default `Bearer`.
    pub scheme: String,
    /// The credentials, if any.
    pub credentials: Option<SecretSource>,
}

/// `oauth2`.
#[derive(Debug, Clone, PartialEq)]
pub struct OAuth2 {
    /// The client's name.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Option<SecretSource>,
    /// Where tokens come from.
    pub token_url: String,
    /// Scopes asked for.
    pub scopes: Vec<String>,
    /// Further parameters of the token request.
    pub endpoint_params: BTreeMap<String, String>,
    /// TLS of the token request.
    pub tls: TlsConfig,
    /// Proxies of the token request.
    pub proxy: ProxyConfig,
}

/// `tls_config`. Files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// Certificates of the authorities, PEM; the system's if absent.
    pub ca: Option<SecretSource>,
    /// Client certificate, PEM.
    pub cert: Option<SecretSource>,
    /// Client key, PEM.
    pub key: Option<SecretSource>,
    /// Name to verify instead of the host's.
    pub server_name: Option<String>,
    /// Verify nothing.
    pub insecure_skip_verify: bool,
    /// Lowest version; default TLS 1.2.
    pub min_version: Option<TlsVersion>,
    /// Highest version.
    pub max_version: Option<TlsVersion>,
}

/// TLS versions that rustls speaks; older ones are refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `TLS12`
    Tls12,
    /// `TLS13`
    Tls13,
}

/// Proxies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyConfig {
    /// `proxy_url`.
    pub url: Option<Secret>,
    /// `no_proxy`: comma separated.
    pub no_proxy: String,
    /// `proxy_from_environment`.
    pub from_environment: bool,
    /// `proxy_connect_header`.
    pub connect_headers: BTreeMap<String, Vec<Secret>>,
}

/// One of `http_headers`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderConfig {
    /// Sent as they are.
    pub values: Vec<String>,
    /// Sent, never shown.
    pub secrets: Vec<Secret>,
    /// Contents are sent.
    pub files: Vec<PathBuf>,
}

/// `alerting`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AlertingConfig {
    /// `alert_relabel_configs`.
    pub alert_relabel_configs: Vec<RelabelConfig>,
    /// `alertmanagers`.
    pub alertmanagers: Vec<AlertmanagerConfig>,
}

/// One of `alertmanagers`.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertmanagerConfig {
    /// `http` or `https`.
    pub scheme: String,
    /// Prefix of `/api/v2/alerts`.
    pub path_prefix: String,
    /// Of one request. Default 10s.
    pub timeout: Duration,
    /// How they are talked to.
    pub http: HttpClientConfig,
    /// Where they come from.
    pub discovery: DiscoveryConfigs,
    /// Applied to the Alertmanagers as targets.
    pub relabel_configs: Vec<RelabelConfig>,
    /// Applied to alerts for these Alertmanagers.
    pub alert_relabel_configs: Vec<RelabelConfig>,
}

/// `webhooks`: receivers in the Alertmanager's payload format.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WebhooksConfig {
    /// The receivers.
    pub receivers: Vec<WebhookConfig>,
}

/// One webhook receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookConfig {
    /// Shown as `receiver`.
    pub name: String,
    /// Posted to; may hold a token.
    pub url: Secret,
    /// How it is talked to.
    pub http: HttpClientConfig,
    /// Labels that make a group; `...` is all.
    pub group_by: Vec<String>,
    /// Before the first notification of a group. Default 30s.
    pub group_wait: Duration,
    /// Before the next one when a group changed. Default 5m.
    pub group_interval: Duration,
    /// Before an unchanged group is sent again. Default 4h.
    pub repeat_interval: Duration,
    /// Resolved alerts are sent, too. Default true.
    pub send_resolved: bool,
    /// Critical alerts suppress warnings with equal values of these labels.
    pub inhibit_equal: Vec<String>,
}

/// One of `remote_write`.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteWriteConfig {
    /// Where to.
    pub url: String,
    /// Shown in metrics.
    pub name: String,
    /// Of one request. Default 30s.
    pub remote_timeout: Duration,
    /// Applied to each sample's labels.
    pub write_relabel_configs: Vec<RelabelConfig>,
    /// How it is talked to.
    pub http: HttpClientConfig,
}

/// One of `remote_read`.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteReadConfig {
    /// Where from.
    pub url: String,
    /// Shown in metrics.
    pub name: String,
    /// Of one request. Default 1m.
    pub remote_timeout: Duration,
    /// How it is talked to.
    pub http: HttpClientConfig,
}

/// `storage`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StorageConfig {
    /// `tsdb.out_of_order_time_window`.
    pub out_of_order_window: Duration,
    /// `tsdb.retention.time`, over the flag.
    pub retention_time: Option<Duration>,
    /// `tsdb.retention.size` in bytes, over the flag.
    pub retention_size_bytes: Option<u64>,
    /// `tsdb.retention.percentage` of the disk.
    pub retention_percentage: Option<f64>,
    /// `exemplars.max_exemplars`. Default 100,000.
    pub max_exemplars: Option<u64>,
}

/// `operator`: reads the Prometheus Operator's objects without it.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorConfig {
    /// URL; `None` is in-cluster or `kubeconfig_file`.
    pub api_server: Option<String>,
    /// Excludes `api_server`.
    pub kubeconfig_file: Option<PathBuf>,
    /// Only with `api_server`.
    pub http: HttpClientConfig,
    /// Endpoints or EndpointSlice (default).
    pub service_discovery_role: KubernetesRole,
    /// `service_monitor_selector` and its namespace selector.
    pub service_monitors: ObjectSelector,
    /// `pod_monitor_*`.
    pub pod_monitors: ObjectSelector,
    /// `probe_*`.
    pub probes: ObjectSelector,
    /// `scrape_config_*`.
    pub scrape_configs: ObjectSelector,
    /// `rule_*`.
    pub rules: ObjectSelector,
}

/// Which objects of one kind count.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObjectSelector {
    /// On the objects' labels; `None` selects nothing.
    pub objects: Option<LabelSelector>,
    /// On the labels of their namespaces; `None` is the own namespace only.
    pub namespaces: Option<LabelSelector>,
}

/// A Kubernetes label selector; empty selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// All of them must be equal.
    pub match_labels: BTreeMap<String, String>,
    /// All of them must hold.
    pub match_expressions: Vec<LabelSelectorTerm>,
}

/// One term of `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSelectorTerm {
    /// The label.
    pub key: String,
    /// In, NotIn, Exists, DoesNotExist.
    pub operator: LabelSelectorOp,
    /// For In and NotIn.
    pub values: Vec<String>,
}

/// Operators of `matchExpressions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as in Kubernetes")]
pub enum LabelSelectorOp {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}
