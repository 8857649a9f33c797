//! `--enable-feature`: which names are there, and what do they do here?

use std::fmt::Write as _;

/// What `--enable-feature` turned on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// `exemplar-storage`
    pub exemplar_storage: bool,
    /// `native-histograms`: the default of `scrape_native_histograms`.
    pub native_histograms: bool,
    /// `extra-scrape-metrics`: the default of `extra_scrape_metrics`.
    pub extra_scrape_metrics: bool,
    /// `auto-reload-config`, the old form of `--config.auto-reload`.
    pub auto_reload: bool,
    /// `concurrent-rule-eval`
    pub concurrent_rule_eval: bool,
    /// `promql-per-step-stats`
    pub per_step_stats: bool,
    /// `promql-experimental-functions`
    pub experimental_functions: bool,
    /// `promql-delayed-name-removal`
    pub delayed_name_removal: bool,
    /// `promql-extended-range-selectors`
    pub extended_range_selectors: bool,
    /// `promql-binop-fill-modifiers`
    pub binop_fill_modifiers: bool,
    /// `type-and-unit-labels`
    pub type_and_unit_labels: bool,
    /// `st-storage`: scraped samples keep since when they count.
    pub st_storage: bool,
    /// `use-start-timestamps`: `rate` and its like look at that.
    pub use_start_timestamps: bool,
}

/// Always on, or gone, in Prometheus 3.
const GRADUATED: &[&str] = &[
    "auto-gomaxprocs",
    "auto-gomemlimit",
    "delayed-compaction",
    "expand-external-labels",
    "fast-startup",
    "histograms-st-encoding",
    "memory-snapshot-on-shutdown",
    "metadata-wal-records",
    "new-service-discovery-manager",
    "no-default-scrape-port",
    "no-scrape-default-port",
    "old-ui",
    "ooo-native-histograms",
    "promql-at-modifier",
    "promql-duration-expr",
    "promql-negative-offset",
    "use-uncached-io",
    "utf8-names",
    "xor2-encoding",
];

/// Of Prometheus 3, not of narthex.
const NOT_YET: &[&str] = &[
    "agent",
    "created-timestamp-zero-ingestion",
    "otlp-deltatocumulative",
    "otlp-native-delta-ingestion",
    "search-api",
    "st-synthesis",
];

impl Features {
    /// Reads the values of the flag, each a comma separated list.
    ///
    /// # Errors
    ///
    /// A name that is not known or not supported yet, with those that are.
    pub fn parse(values: &[String], warnings: &mut Vec<String>) -> Result<Self, String> {
        let mut features = Self::default();
        for name in values.iter().flat_map(|v| v.split(',')).map(str::trim) {
            if name.is_empty() {
                continue;
            }
            if let Some(switch) = features.switch(name) {
                *switch = true;
            } else if GRADUATED.contains(&name) {
                warnings.push(format!("--enable-feature={name} has no effect here"));
            } else if NOT_YET.contains(&name) {
                return Err(format!("--enable-feature: narthex does not support {name} yet"));
            } else if name == "remote-write-receiver" {
                return Err("--enable-feature: remote-write-receiver became the flag \
                            --web.enable-remote-write-receiver"
                    .to_owned());
            } else {
                return Err(format!("--enable-feature: {name:?} is not known{}", known()));
            }
        }
        Ok(features)
    }

    fn switch(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "exemplar-storage" => &mut self.exemplar_storage,
            "native-histograms" => &mut self.native_histograms,
            "extra-scrape-metrics" => &mut self.extra_scrape_metrics,
            "auto-reload-config" => &mut self.auto_reload,
            "concurrent-rule-eval" => &mut self.concurrent_rule_eval,
            "promql-per-step-stats" => &mut self.per_step_stats,
            "promql-experimental-functions" => &mut self.experimental_functions,
            "promql-delayed-name-removal" => &mut self.delayed_name_removal,
            "promql-extended-range-selectors" => &mut self.extended_range_selectors,
            "promql-binop-fill-modifiers" => &mut self.binop_fill_modifiers,
            "st-storage" => &mut self.st_storage,
            "type-and-unit-labels" => &mut self.type_and_unit_labels,
            "use-start-timestamps" => &mut self.use_start_timestamps,
            _ => return None,
        })
    }
}

fn known() -> String {
    let mut text = "; these are:".to_owned();
    for name in [
        "auto-reload-config",
        "concurrent-rule-eval",
        "exemplar-storage",
        "extra-scrape-metrics",
        "native-histograms",
        "promql-binop-fill-modifiers",
        "promql-delayed-name-removal",
        "promql-experimental-functions",
        "promql-extended-range-selectors",
        "promql-per-step-stats",
        "st-storage",
        "type-and-unit-labels",
        "use-start-timestamps",
    ] {
        let _ = write!(text, " {name}");
    }
    text
}
