//! Configurations and readers for the tests of this room.

use std::collections::BTreeMap;
use std::time::Duration;

use narthex_query::memory::MemoryStorage;
use narthex_storage::labels::{MatchOp, Matcher};
use narthex_storage::read::{Column, Queryable as _};

use crate::config::{
    DiscoveryConfigs, HttpClientConfig, NameEscaping, NameValidation, ScrapeConfig, ScrapeLimits,
    ScrapeProtocol,
};

/// What `- job_name: NAME` means.
pub(crate) fn scrape_config(job: &str) -> ScrapeConfig {
    ScrapeConfig {
        job_name: job.to_owned(),
        honor_labels: false,
        honor_timestamps: true,
        track_timestamps_staleness: false,
        // Long enough that no scrape fails because the machine is busy.
        scrape_interval: Duration::from_millis(100),
        scrape_timeout: Duration::from_millis(100),
        scrape_protocols: vec![
            ScrapeProtocol::OpenMetricsText1_0_0,
            ScrapeProtocol::OpenMetricsText0_0_1,
            ScrapeProtocol::PrometheusText1_0_0,
            ScrapeProtocol::PrometheusText0_0_4,
        ],
        fallback_scrape_protocol: None,
        scrape_native_histograms: false,
        always_scrape_classic_histograms: false,
        convert_classic_histograms_to_nhcb: false,
        extra_scrape_metrics: false,
        native_histogram_bucket_limit: 0,
        native_histogram_min_bucket_factor: 0.0,
        metrics_path: "/metrics".to_owned(),
        scheme: "http".to_owned(),
        params: BTreeMap::new(),
        enable_compression: true,
        limits: ScrapeLimits::default(),
        metric_name_validation: NameValidation::Utf8,
        metric_name_escaping: NameEscaping::AllowUtf8,
        scrape_failure_log_file: None,
        http: HttpClientConfig::default(),
        discovery: DiscoveryConfigs::default(),
        relabel_configs: Vec::new(),
        metric_relabel_configs: Vec::new(),
        origin: None,
    }
}

/// All samples of the series of one metric, by labels without the name.
pub(crate) fn samples(storage: &MemoryStorage, metric: &str) -> BTreeMap<String, Vec<(i64, f64)>> {
    let querier = storage.querier(i64::MIN, i64::MAX).expect("reads");
    let matcher = Matcher::new(MatchOp::Equal, "__name__", metric).expect("valid");
    let mut out = BTreeMap::new();
    for series in querier.select(&[matcher], true).expect("reads") {
        let labels = querier.labels(series).expect("reads");
        let mut column = Column::new();
        querier.read(series, i64::MIN, i64::MAX, &mut column).expect("reads");
        let samples = column.timestamps().iter().copied().zip(column.floats.iter().copied());
        out.insert(labels.drop(&["__name__"]).to_string(), samples.collect());
    }
    out
}
