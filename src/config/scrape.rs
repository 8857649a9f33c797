//! `global`, `scrape_configs` and relabel rules.

use std::time::Duration;

use narthex_storage::labels::{Labels, anchored};

use super::discovery::{check_static_targets, discovery};
use super::error::ConfigError;
use super::http::http_client;
use super::section::{Field, Section};
use super::{
    GlobalConfig, NameEscaping, NameValidation, RelabelAction, RelabelConfig, ScrapeConfig,
    ScrapeLimits, ScrapeProtocol,
};

impl ScrapeProtocol {
    /// All formats, the most wanted first.
    pub const ALL: [Self; 5] = [
        Self::PrometheusProto,
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// The name in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrometheusProto => "PrometheusProto",
            Self::PrometheusText0_0_4 => "PrometheusText0.0.4",
            Self::PrometheusText1_0_0 => "PrometheusText1.0.0",
            Self::OpenMetricsText0_0_1 => "OpenMetricsText0.0.1",
            Self::OpenMetricsText1_0_0 => "OpenMetricsText1.0.0",
        }
    }
}

impl NameValidation {
    /// The name in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Legacy => "legacy",
        }
    }
}

impl NameEscaping {
    /// The name in the file and in the `Accept` header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    const fn of(validation: NameValidation) -> Self {
        match validation {
            NameValidation::Utf8 => Self::AllowUtf8,
            NameValidation::Legacy => Self::Underscores,
        }
    }
}

impl GlobalConfig {
    /// The formats that a scrape configuration without its own asks for.
    #[must_use]
    pub fn default_protocols(&self, native_histograms: bool) -> Vec<ScrapeProtocol> {
        let all = &ScrapeProtocol::ALL;
        let built_in = if native_histograms { &all[..] } else { &all[1..] };
        self.scrape_protocols.clone().unwrap_or_else(|| built_in.to_vec())
    }
}

impl ScrapeConfig {
    /// A scrape configuration with nothing but a name.
    #[must_use]
    pub fn named(job_name: &str, global: &GlobalConfig) -> Self {
        Self {
            job_name: job_name.to_owned(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            scrape_interval: global.scrape_interval,
            scrape_timeout: global.scrape_timeout.min(global.scrape_interval),
            scrape_protocols: global.default_protocols(global.scrape_native_histograms),
            fallback_scrape_protocol: None,
            scrape_native_histograms: global.scrape_native_histograms,
            always_scrape_classic_histograms: global.always_scrape_classic_histograms,
            convert_classic_histograms_to_nhcb: global.convert_classic_histograms_to_nhcb,
            extra_scrape_metrics: global.extra_scrape_metrics,
            native_histogram_bucket_limit: 0,
            native_histogram_min_bucket_factor: 0.0,
            metrics_path: "/metrics".to_owned(),
            scheme: "http".to_owned(),
            params: std::collections::BTreeMap::new(),
            enable_compression: true,
            limits: global.limits,
            metric_name_validation: global.metric_name_validation,
            metric_name_escaping: global.metric_name_escaping,
            scrape_failure_log_file: global.scrape_failure_log_file.clone(),
            http: super::HttpClientConfig::default(),
            discovery: super::DiscoveryConfigs::default(),
            relabel_configs: Vec::new(),
            metric_relabel_configs: Vec::new(),
            origin: None,
        }
    }
}

/// Reads `global` over `defaults`, which flags may have changed.
pub fn global(
    mut section: Section<'_>,
    defaults: &GlobalConfig,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<GlobalConfig, ConfigError> {
    let validation =
        section.get("metric_name_validation_scheme", validation)?.flatten().unwrap_or_default();
    let escaping = section.get("metric_name_escaping_scheme", escaping)?.flatten();
    let (scrape_interval, scrape_timeout) =
        interval_and_timeout(&mut section, defaults.scrape_interval, defaults.scrape_timeout)?;
    let positive = |d: Option<Duration>, default| d.filter(|d| !d.is_zero()).unwrap_or(default);
    let evaluation = section.get("evaluation_interval", Field::duration)?;
    let external = section.get("external_labels", Field::labels)?.unwrap_or_default();
    if let Some(name) = external.keys().find(|name| !validation.is_valid_label_name(name)) {
        let message = format!("{name:?} is not a label name");
        return Err(section.field_error("external_labels", message));
    }
    let expanded = external.iter().map(|(name, value)| (name, expand(value, environment)));
    let global = GlobalConfig {
        scrape_interval,
        scrape_timeout,
        evaluation_interval: positive(evaluation, defaults.evaluation_interval),
        rule_query_offset: section.get("rule_query_offset", Field::duration)?.unwrap_or_default(),
        external_labels: Labels::from_pairs(expanded),
        query_log_file: section.path("query_log_file")?,
        scrape_failure_log_file: section.path("scrape_failure_log_file")?,
        limits: limits(&mut section, &ScrapeLimits::default())?,
        metric_name_validation: validation,
        metric_name_escaping: escaping.unwrap_or(NameEscaping::of(validation)),
        scrape_protocols: protocols(&mut section)?.or_else(|| defaults.scrape_protocols.clone()),
        scrape_native_histograms: section
            .bool_or("scrape_native_histograms", defaults.scrape_native_histograms)?,
        always_scrape_classic_histograms: section
            .bool_or("always_scrape_classic_histograms", false)?,
        convert_classic_histograms_to_nhcb: section
            .bool_or("convert_classic_histograms_to_nhcb", false)?,
        extra_scrape_metrics: section
            .bool_or("extra_scrape_metrics", defaults.extra_scrape_metrics)?,
    };
    check_escaping(&section, &global.metric_name_validation, global.metric_name_escaping)?;
    section.finish()?;
    Ok(global)
}

/// Replaces `$name` and `${name}` by the environment's values, as in a shell;
/// `$$` is `$`, unknown names are empty.
fn expand(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, next) = if let Some(braced) = after.strip_prefix('{') {
            braced.split_once('}').unwrap_or((braced, ""))
        } else if after.starts_with('$') {
            after.split_at(1)
        } else {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len()))
        };
        if name == "$" {
            out.push('$');
        } else if name.is_empty() {
            // A `$` before anything else stays, as in Go.
            out.push('$');
        } else {
            out.push_str(&environment(name).unwrap_or_default());
        }
        rest = next;
    }
    out + rest
}

/// Zero counts as absent; an absent timeout shrinks to the interval.
fn interval_and_timeout(
    section: &mut Section<'_>,
    default_interval: Duration,
    default_timeout: Duration,
) -> Result<(Duration, Duration), ConfigError> {
    let given = |d: Option<Duration>| d.filter(|d| !d.is_zero());
    let interval = given(section.get("scrape_interval", Field::duration)?);
    let interval = interval.unwrap_or(default_interval);
    let timeout = given(section.get("scrape_timeout", Field::duration)?);
    match timeout {
        Some(timeout) if timeout > interval => {
            let message = format!(
                "is longer than the scrape interval of {}",
                super::units::format_duration(interval)
            );
            Err(section.field_error("scrape_timeout", message))
        }
        Some(timeout) => Ok((interval, timeout)),
        None => Ok((interval, default_timeout.min(interval))),
    }
}

fn limits(section: &mut Section<'_>, global: &ScrapeLimits) -> Result<ScrapeLimits, ConfigError> {
    let mut limit = |name, global| {
        let given = section.get(name, Field::uint)?.unwrap_or(0);
        Ok(if given == 0 { global } else { given })
    };
    let mut limits = ScrapeLimits {
        body_size_bytes: 0,
        samples: limit("sample_limit", global.samples)?,
        labels: limit("label_limit", global.labels)?,
        label_name_bytes: limit("label_name_length_limit", global.label_name_bytes)?,
        label_value_bytes: limit("label_value_length_limit", global.label_value_bytes)?,
        targets: limit("target_limit", global.targets)?,
        keep_dropped_targets: limit("keep_dropped_targets", global.keep_dropped_targets)?,
    };
    let body = section.get("body_size_limit", Field::size)?.unwrap_or(0);
    limits.body_size_bytes = if body == 0 { global.body_size_bytes } else { body };
    Ok(limits)
}

fn validation(field: &Field<'_>) -> Result<Option<NameValidation>, ConfigError> {
    match field.text()?.as_str() {
        "" => Ok(None),
        "utf8" => Ok(Some(NameValidation::Utf8)),
        "legacy" => Ok(Some(NameValidation::Legacy)),
        other => Err(field.error(format!("{other:?} is neither utf8 nor legacy"))),
    }
}

fn escaping(field: &Field<'_>) -> Result<Option<NameEscaping>, ConfigError> {
    match field.text()?.as_str() {
        "" => Ok(None),
        "allow-utf-8" => Ok(Some(NameEscaping::AllowUtf8)),
        "underscores" => Ok(Some(NameEscaping::Underscores)),
        "dots" => Ok(Some(NameEscaping::Dots)),
        "values" => Ok(Some(NameEscaping::Values)),
        other => {
            Err(field.error(format!("{other:?} is none of allow-utf-8, underscores, dots, values")))
        }
    }
}

fn check_escaping(
    section: &Section<'_>,
    validation: &NameValidation,
    escaping: NameEscaping,
) -> Result<(), ConfigError> {
    if *validation == NameValidation::Legacy && escaping == NameEscaping::AllowUtf8 {
        let message = "allow-utf-8 does not go with metric_name_validation_scheme: legacy";
        return Err(section.field_error("metric_name_escaping_scheme", message));
    }
    Ok(())
}

fn protocol(field: &Field<'_>) -> Result<ScrapeProtocol, ConfigError> {
    let text = field.text()?;
    ScrapeProtocol::ALL.into_iter().find(|p| p.as_str() == text).ok_or_else(|| {
        let known = ScrapeProtocol::ALL.map(ScrapeProtocol::as_str).join(", ");
        field.error(format!("{text:?} is none of {known}"))
    })
}

fn protocols(section: &mut Section<'_>) -> Result<Option<Vec<ScrapeProtocol>>, ConfigError> {
    let Some(field) = section.field("scrape_protocols") else { return Ok(None) };
    let mut protocols = Vec::new();
    for item in field.list()? {
        let protocol = protocol(&item)?;
        if protocols.contains(&protocol) {
            return Err(item.error("is there twice"));
        }
        protocols.push(protocol);
    }
    if protocols.is_empty() {
        return Err(field.error("must not be empty"));
    }
    Ok(Some(protocols))
}

fn fallback_protocol(field: &Field<'_>) -> Result<Option<ScrapeProtocol>, ConfigError> {
    if field.text()?.is_empty() { Ok(None) } else { protocol(field).map(Some) }
}

fn scheme(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.text()?;
    match text.as_str() {
        "http" | "https" => Ok(text),
        _ => Err(field.error(format!("{text:?} is neither http nor https"))),
    }
}

/// Takes `scheme`; `http` if absent.
pub fn scheme_or_http(section: &mut Section<'_>) -> Result<String, ConfigError> {
    Ok(section.get("scheme", scheme)?.unwrap_or_else(|| "http".to_owned()))
}

/// Reads one of `scrape_configs`.
pub fn scrape_config(
    mut section: Section<'_>,
    global: &GlobalConfig,
) -> Result<ScrapeConfig, ConfigError> {
    let job_name = section.text("job_name")?.ok_or_else(|| section.error("job_name is missing"))?;
    let (scrape_interval, scrape_timeout) =
        interval_and_timeout(&mut section, global.scrape_interval, global.scrape_timeout)?;
    let (names, name_escaping) = names(&mut section, global)?;
    let native = section.bool_or("scrape_native_histograms", global.scrape_native_histograms)?;
    let always = section
        .bool_or("always_scrape_classic_histograms", global.always_scrape_classic_histograms)?;
    let convert = section
        .bool_or("convert_classic_histograms_to_nhcb", global.convert_classic_histograms_to_nhcb)?;
    let extra = section.bool_or("extra_scrape_metrics", global.extra_scrape_metrics)?;
    section.refuse(
        "scrape_classic_histograms",
        "was renamed to always_scrape_classic_histograms in Prometheus 3",
    )?;
    let protocols = protocols(&mut section)?.unwrap_or_else(|| global.default_protocols(native));
    let bucket_limit = section.get("native_histogram_bucket_limit", Field::uint)?;
    let bucket_factor = section.get("native_histogram_min_bucket_factor", Field::float)?;
    let failure_log = section.path("scrape_failure_log_file")?;
    let config = ScrapeConfig {
        honor_labels: section.bool_or("honor_labels", false)?,
        honor_timestamps: section.bool_or("honor_timestamps", true)?,
        track_timestamps_staleness: section.bool_or("track_timestamps_staleness", false)?,
        scrape_interval,
        scrape_timeout,
        scrape_protocols: protocols,
        fallback_scrape_protocol: section
            .get("fallback_scrape_protocol", fallback_protocol)?
            .flatten(),
        scrape_native_histograms: native,
        always_scrape_classic_histograms: always,
        convert_classic_histograms_to_nhcb: convert,
        extra_scrape_metrics: extra,
        native_histogram_bucket_limit: bucket_limit.unwrap_or(0),
        native_histogram_min_bucket_factor: bucket_factor.unwrap_or(0.0),
        metrics_path: section.text("metrics_path")?.unwrap_or_else(|| "/metrics".to_owned()),
        scheme: scheme_or_http(&mut section)?,
        params: section.get("params", params)?.unwrap_or_default(),
        enable_compression: section.bool_or("enable_compression", true)?,
        limits: limits(&mut section, &global.limits)?,
        metric_name_validation: names,
        metric_name_escaping: name_escaping,
        scrape_failure_log_file: failure_log.or_else(|| global.scrape_failure_log_file.clone()),
        http: http_client(&mut section)?,
        discovery: discovery(&mut section)?,
        relabel_configs: relabel_configs(&mut section, "relabel_configs", names)?,
        metric_relabel_configs: relabel_configs(&mut section, "metric_relabel_configs", names)?,
        origin: None,
        job_name,
    };
    if config.relabel_configs.is_empty() {
        check_static_targets(&mut section, &config.discovery)?;
    }
    section.finish()?;
    Ok(config)
}

/// Own validation without own escaping gets the escaping that goes with it.
fn names(
    section: &mut Section<'_>,
    global: &GlobalConfig,
) -> Result<(NameValidation, NameEscaping), ConfigError> {
    let own = section.get("metric_name_validation_scheme", validation)?.flatten();
    let given = section.get("metric_name_escaping_scheme", escaping)?.flatten();
    let validation = own.unwrap_or(global.metric_name_validation);
    let inherited = own.map_or(global.metric_name_escaping, NameEscaping::of);
    let escaping = given.unwrap_or(inherited);
    check_escaping(section, &validation, escaping)?;
    Ok((validation, escaping))
}

fn params(
    field: &Field<'_>,
) -> Result<std::collections::BTreeMap<String, Vec<String>>, ConfigError> {
    field
        .map()?
        .into_iter()
        .map(|(entry, values)| Ok((entry.key.clone(), values.texts()?)))
        .collect()
}

/// Takes a list of relabel rules.
pub fn relabel_configs(
    section: &mut Section<'_>,
    name: &str,
    names: NameValidation,
) -> Result<Vec<RelabelConfig>, ConfigError> {
    section.sections(name, |section| relabel_config(section, names))
}

fn relabel_config(
    mut section: Section<'_>,
    names: NameValidation,
) -> Result<RelabelConfig, ConfigError> {
    let defaults = RelabelConfig::default();
    let source_labels = section.get("source_labels", Field::texts)?.unwrap_or_default();
    if source_labels.iter().any(String::is_empty) {
        return Err(section.field_error("source_labels", "a label name must not be empty"));
    }
    // Absent and empty differ for these three; null is the empty text.
    let mut text = |name, default| section.written(name).map_or(Ok(default), |f| f.text());
    let separator = text("separator", defaults.separator)?;
    let regex = text("regex", defaults.regex)?;
    let replacement = text("replacement", defaults.replacement)?;
    let config = RelabelConfig {
        source_labels,
        separator,
        regex,
        modulus: section.get("modulus", Field::uint)?.unwrap_or(0),
        target_label: section.text("target_label")?.unwrap_or_default(),
        replacement,
        action: section.get("action", action)?.unwrap_or_default(),
    };
    config.validate(names).map_err(|e| section.field_error(e.field, e.message))?;
    anchored(&config.regex).map_err(|e| {
        let message = e.to_string();
        section.field_error("regex", message.lines().last().unwrap_or_default().trim())
    })?;
    section.finish()?;
    Ok(config)
}

fn action(field: &Field<'_>) -> Result<RelabelAction, ConfigError> {
    let text = field.text()?;
    RelabelAction::from_name(&text).ok_or_else(|| {
        let known = RelabelAction::ALL.map(RelabelAction::as_str).join(", ");
        field.error(format!("{text:?} is none of {known}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_labels_take_the_environment() {
        let environment = |name: &str| (name == "HOST").then(|| "box".to_owned());
        let cases = [
            ("${HOST}-1", "box-1"),
            ("$HOST.x", "box.x"),
            ("$HOSTX", ""),
            ("$$HOST", "$HOST"),
            ("a$", "a$"),
            ("plain", "plain"),
            ("${NO}", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &environment), expected, "{text}");
        }
    }
}
