//! Reads pages as a target's loop does, with names in place of a storage.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use narthex_storage::append::{AppendError, Appender, CommitError, Committed};
use narthex_storage::histogram::Histogram;
use narthex_storage::labels::Labels;
use narthex_storage::read::SeriesRef;
use narthex_storage::sample::{Exemplar, Metadata};

use crate::config::{NameValidation, ScrapeLimits};
use crate::scrape::cache::Cache;
use crate::scrape::exposed::ExposedRules;
use crate::scrape::labels::LabelRules;
use crate::scrape::negotiation::Format;
use crate::scrape::scanner::float::{open_metrics_float, parse_float};
use crate::scrape::page::{Counts, PageRules, Reading, Rows};

/// Gives each label set a number. Bounds are one whether they were normalised
/// or not: like Prometheus, a target's cache keeps the labels of a line whose
/// family changes its type.
#[derive(Default)]
pub struct Names(HashMap<Labels, SeriesRef>);

impl Appender for Names {
    fn series(&mut self, labels: &Labels) -> Result<SeriesRef, AppendError> {
        let mut builder = labels.to_builder();
        for name in ["le", "quantile"] {
            if let Some(bound) = labels.get(name).and_then(|v| parse_float(v.as_bytes())) {
                builder.set(name, &open_metrics_float(bound));
            }
        }
        let next = SeriesRef(u32::try_from(self.0.len()).expect("pages are small"));
        Ok(*self.0.entry(builder.build()).or_insert(next))
    }
    fn append_row(&mut self, _: i64, _: &[SeriesRef], _: &[f64], _: &mut Vec<(usize, AppendError)>) {
        unreachable!("reading a page writes nothing")
    }
    fn append(&mut self, _: SeriesRef, _: i64, _: i64, _: f64) -> Result<(), AppendError> {
        unreachable!("reading a page writes nothing")
    }
    fn append_histogram(&mut self, _: SeriesRef, _: i64, _: i64, _: &Histogram) -> Result<(), AppendError> {
        unreachable!("reading a page writes nothing")
    }
    fn append_exemplar(&mut self, _: SeriesRef, _: &Exemplar) -> Result<(), AppendError> {
        unreachable!("reading a page writes nothing")
    }
    fn set_metadata(&mut self, _: &str, _: &Metadata) {}
    fn commit(self: Box<Self>) -> Result<Committed, CommitError> {
        unreachable!("reading a page writes nothing")
    }
}

/// One target: its rules and what it remembers.
pub struct Target {
    rules: PageRules,
    native: Option<ExposedRules>,
    format: Format,
    cache: Cache,
    pub rows: Rows,
    pub counts: Counts,
}

/// Samples without their order; values as bits.
pub type Samples = BTreeSet<(i64, SeriesRef, String)>;

impl Target {
    /// With `native`, pages are read sample by sample, else by position.
    pub fn new(format: Format, native: Option<ExposedRules>, track: bool, honor_labels: bool) -> Self {
        let labels = LabelRules {
            target: Labels::from_pairs([("instance", "i:1"), ("job", "j")]),
            honor_labels,
            relabel: Arc::default(),
            limits: ScrapeLimits::default(),
            validation: NameValidation::Utf8,
        };
        let rules = PageRules {
            labels,
            honor_timestamps: true,
            track_timestamps_staleness: track,
            sample_limit: 0,
            hash_key: 7,
        };
        let (cache, rows, counts) = (Cache::default(), Rows::default(), Counts::default());
        Self { rules, native, format, cache, rows, counts }
    }

    /// Reads a page; the clock stands at its end, so that no timestamp is too
    /// far ahead.
    pub fn scrape(&mut self, page: &[u8], names: &mut Names) -> Result<Samples, String> {
        let mut page = page.to_vec();
        if self.format == Format::Text {
            page.push(b'\n');
        }
        self.counts = Counts::default();
        let Self { rules, native, format, cache, rows, counts } = self;
        let reading = Reading { now_ms: i64::MAX, rules, cache, appender: names, rows, counts };
        let result = match (native, *format) {
            (None, Format::Text) => reading.text(&page),
            (None, Format::OpenMetrics) => reading.open_metrics(&page),
            (native, format) => reading.samples(&page, format, native.unwrap_or_default()),
        };
        if let Err(error) = result {
            assert!(rows.series.is_empty() && rows.timed.is_empty() && rows.histograms.is_empty());
            cache.fail(&mut rows.stale);
            return Err(error.to_string());
        }
        let plain = rows.series.iter().zip(&rows.values);
        let mut samples: Samples =
            plain.map(|(s, v)| (i64::MAX, *s, format!("{:x}", v.to_bits()))).collect();
        assert_eq!(samples.len(), rows.series.len(), "one sample for a series");
        samples.extend(rows.timed.iter().map(|(t, s, v)| (*t, *s, format!("{:x}", v.to_bits()))));
        let started = rows.started.iter();
        samples.extend(started.map(|(t, from, s, v)| (*t, *s, format!("{from} {:x}", v.to_bits()))));
        samples.extend(rows.histograms.iter().map(|(t, _, s, h)| (*t, *s, format!("{h:?}"))));
        Ok(samples)
    }
}
