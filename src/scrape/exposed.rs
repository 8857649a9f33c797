//! Pages that are not read by position: protobuf, and text whose classic
//! histograms become native ones.
//!
//! Each sample comes with its labels; their bytes are hashed in place of a
//! line, and from there on the cache works as for text.

use std::collections::{BTreeMap, HashMap};

use narthex_storage::histogram::{ClassicHistogram, Histogram};
use narthex_storage::labels::{Labels, LabelsBuilder, METRIC_NAME};
use narthex_storage::sample::{Exemplar, Metadata, MetricKind};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::cache::{Found, LineText};
use super::family::{has_created, start_key, starts_of, suffix_of};
use super::labels::LabelError;
use super::metadata::{Interner, TargetMetadata, collect};
use super::negotiation::Format;
use super::page::{EXEMPLAR_CHARS, Intake, PageError, Reading, Value, hash_of};
use super::scanner::float::parse_float;
use super::scanner::protobuf::{Exposed, ExposedValue, HistogramRules, families};
use super::scanner::{Entry, ParseError, RawLabels, openmetrics, text};

/// The lowest schema that resolution is reduced to.
const SCHEMA_MIN: i32 = -4;
/// The highest schema.
const SCHEMA_MAX: i32 = 8;

/// What is read of pages besides plain samples.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ExposedRules {
    /// What is read of protobuf pages.
    pub read: HistogramRules,
    /// Classic histograms become native ones with custom buckets.
    pub convert_classic: bool,
    /// Most buckets; 0 is no limit.
    pub bucket_limit: u64,
    /// Smallest growth factor; 0 is no limit.
    pub min_bucket_factor: f64,
    /// Type and unit of its family become labels of a series.
    pub type_and_unit_labels: bool,
    /// Samples keep since when they count; in text, series that say so are
    /// not samples.
    pub start_timestamps: bool,
}

impl ExposedRules {
    /// Whether pages of a format are read by [`Reading::samples`].
    #[must_use]
    pub const fn apply_to(&self, format: Format) -> bool {
        match format {
            Format::Text => self.convert_classic || self.type_and_unit_labels,
            Format::OpenMetrics => {
                self.convert_classic || self.type_and_unit_labels || self.start_timestamps
            }
            Format::Protobuf => true,
        }
    }

    /// The highest schema that the growth factor allows.
    fn max_schema(&self) -> i32 {
        if self.min_bucket_factor <= 1.0 {
            return SCHEMA_MAX;
        }
        let schema = (-self.min_bucket_factor.log2().log2()).floor();
        #[allow(clippy::cast_possible_truncation, reason = "clamped")]
        let schema = schema.clamp(f64::from(SCHEMA_MIN), f64::from(SCHEMA_MAX)) as i32;
        schema
    }

    /// Reduces a histogram to what is allowed; `false` if it cannot be.
    fn reduce(&self, histogram: &mut Histogram) -> bool {
        if !histogram.uses_custom_buckets() && histogram.schema > self.max_schema() {
            histogram.reduce_resolution(self.max_schema());
        }
        let over = |h: &Histogram| {
            let buckets = h.positive_buckets.len() + h.negative_buckets.len();
            self.bucket_limit > 0 && buckets as u64 > self.bucket_limit
        };
        while over(histogram) {
            if histogram.uses_custom_buckets() || histogram.schema <= SCHEMA_MIN {
                return false;
            }
            histogram.reduce_resolution(histogram.schema - 1);
        }
        true
    }
}

impl Reading<'_> {
    /// Reads a page in any format, sample by sample. Text must end with a line
    /// end.
    ///
    /// # Errors
    ///
    /// [`PageError`].
    pub fn samples(
        self,
        page: &[u8],
        format: Format,
        rules: ExposedRules,
    ) -> Result<(), PageError> {
        self.take_in(|intake| {
            let mut sink = Sink {
                intake,
                rules,
                collecting: None,
                family: None,
                unit: None,
                too_many_buckets: false,
            };
            match format {
                Format::Protobuf => sink.protobuf(page)?,
                Format::Text | Format::OpenMetrics => sink.text(page, format)?,
            }
            if sink.too_many_buckets { Err(PageError::BucketLimit) } else { Ok(()) }
        })
    }
}

/// Type, help and unit of the families of a protobuf page.
#[must_use]
pub fn protobuf_metadata(page: &[u8], interner: &Interner) -> TargetMetadata {
    let mut found: BTreeMap<String, Metadata> = BTreeMap::new();
    for family in families(page).map_while(Result::ok) {
        let (help, unit) = (family.help.to_owned(), family.unit.to_owned());
        found.insert(family.name.to_owned(), Metadata { kind: family.kind, help, unit });
    }
    collect(found, interner)
}

/// Why reading a family ended.
enum Stop {
    /// A sample of it cannot be read; it counts as scraped.
    Sample(String),
    /// The page is not taken.
    Page(PageError),
}

impl From<String> for Stop {
    fn from(message: String) -> Self {
        Self::Sample(message)
    }
}

impl From<PageError> for Stop {
    fn from(error: PageError) -> Self {
        Self::Page(error)
    }
}

struct Sink<'a, 'b> {
    intake: &'a mut Intake<'b>,
    rules: ExposedRules,
    /// Classic series of one histogram that become a native one.
    collecting: Option<Collecting>,
    /// Name and type of the last `TYPE`.
    family: Option<(String, MetricKind)>,
    /// Name and unit of the last family with a unit.
    unit: Option<(String, String)>,
    too_many_buckets: bool,
}

/// A classic histogram under way.
struct Collecting {
    /// Its labels without `le`, with the family's name.
    labels: Labels,
    empty: Vec<String>,
    timestamp_ms: Option<i64>,
    start_ms: i64,
    histogram: ClassicHistogram,
    /// A part did not fit the others: there is no such histogram.
    broken: bool,
    exemplars: Vec<(Labels, f64, Option<i64>)>,
}

impl Sink<'_, '_> {
    fn protobuf(&mut self, page: &[u8]) -> Result<(), PageError> {
        for family in families(page) {
            let family = family?;
            // The family takes a comment's place in the cache: when it changes,
            // metadata are read again.
            let key =
                format!("\0{}\0{}\0{}\0{:?}", family.name, family.help, family.unit, family.kind);
            self.intake.mark(xxh3_64_with_seed(key.as_bytes(), self.intake.rules().hash_key));
            self.family = Some((family.name.to_owned(), family.kind));
            self.unit = Some((family.name.to_owned(), family.unit.to_owned()));
            let rules = self.rules.read;
            let mut native_seen = None;
            let read = family.samples::<Stop>(rules, |exposed| {
                if matches!(exposed.value, ExposedValue::Histogram(_)) {
                    self.flush()?;
                    native_seen = Some(exposed.labels.build().drop(&[METRIC_NAME]));
                    return Ok(self.sample(exposed)?);
                }
                let rest = exposed.labels.build().drop(&[METRIC_NAME, "le"]);
                if native_seen.as_ref() == Some(&rest) {
                    return Ok(self.sample(exposed)?);
                }
                Ok(self.classic_or_plain(exposed)?)
            });
            match read {
                Ok(()) => self.flush()?,
                Err(Stop::Page(e)) => return Err(e),
                Err(Stop::Sample(message)) => {
                    self.intake.skip();
                    return Err(PageError::Exposed(message));
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, page: &[u8], format: Format) -> Result<(), PageError> {
        let (mut at, mut raw) = (0, RawLabels::default());
        // Prometheus looks for the creation time of what it converts, and no
        // longer takes these lines for samples once it has done so.
        let starts = match format {
            Format::OpenMetrics if self.rules.start_timestamps => starts_of(page),
            _ => HashMap::new(),
        };
        let mut skips_created = !starts.is_empty();
        loop {
            let (entry, next) = match format {
                Format::OpenMetrics => openmetrics::entry(page, at, &mut raw),
                _ => text::entry(page, at, &mut raw),
            }
            .map_err(PageError::Parse)?;
            let mark = |this: &mut Self| {
                let key = this.intake.rules().hash_key;
                this.intake.mark(xxh3_64_with_seed(&page[at..next], key));
            };
            match entry {
                Entry::End => return self.flush(),
                Entry::Type(name, kind) => {
                    self.flush()?;
                    mark(self);
                    self.family = Some((String::from_utf8_lossy(name).into_owned(), kind));
                }
                Entry::Unit(name, unit) => {
                    mark(self);
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    self.unit = Some((text(name), text(unit)));
                }
                Entry::Help(..) => mark(self),
                Entry::Comment => {}
                Entry::Sample(sample) => {
                    let kind = self.family.as_ref().map_or(MetricKind::Unknown, |f| f.1);
                    let fail = |m: String| PageError::Parse(ParseError::at(page, at, m));
                    let mut labels = LabelsBuilder::new();
                    if let Err(message) = raw.resolve(page, kind, &mut labels) {
                        self.intake.skip();
                        return Err(fail(message));
                    }
                    if skips_created && raw.name_ends_with(page, b"_created") && has_created(kind) {
                        at = next;
                        continue;
                    }
                    let exemplar = raw.exemplar.as_ref();
                    let start_ms = match &self.family {
                        Some((family, kind)) if !starts.is_empty() => {
                            start_key(&labels, family, *kind).and_then(|key| starts.get(&key))
                        }
                        _ => None,
                    };
                    self.classic_or_plain(Exposed {
                        start_ms: start_ms.copied().unwrap_or(0),
                        labels,
                        empty: raw.empty_names(page),
                        value: ExposedValue::Float(sample.value),
                        timestamp_ms: sample.timestamp_ms,
                        exemplars: exemplar
                            .map(|e| (e.labels(page), e.value, e.timestamp_ms))
                            .into_iter()
                            .collect(),
                    })?;
                }
            }
            skips_created |= format == Format::OpenMetrics && self.collecting.is_some();
            at = next;
        }
    }

    /// A sample of a classic histogram is collected if it shall be converted.
    fn classic_or_plain(&mut self, exposed: Exposed) -> Result<(), PageError> {
        let Some((part, labels)) = self.part_of_histogram(&exposed) else {
            self.flush()?;
            return self.sample(exposed);
        };
        if self.collecting.as_ref().is_none_or(|c| c.labels != labels) {
            self.flush()?;
        }
        let collecting = self.collecting.get_or_insert_with(|| Collecting {
            labels,
            empty: exposed.empty.clone(),
            timestamp_ms: exposed.timestamp_ms,
            start_ms: exposed.start_ms,
            histogram: ClassicHistogram::new(),
            broken: false,
            exemplars: Vec::new(),
        });
        let ExposedValue::Float(value) = exposed.value else { return Ok(()) };
        let fits = match part {
            Part::Bucket(bound) => collecting.histogram.bucket(bound, value),
            Part::Count => collecting.histogram.set_count(value),
            Part::Sum => {
                collecting.histogram.set_sum(value);
                Ok(())
            }
        };
        collecting.broken |= fits.is_err();
        collecting.exemplars.extend(exposed.exemplars.iter().cloned());
        if self.rules.read.always_classic {
            return self.sample(exposed);
        }
        Ok(())
    }

    /// Which part of the current family's histogram this is, and the
    /// histogram's labels.
    fn part_of_histogram(&self, exposed: &Exposed) -> Option<(Part, Labels)> {
        let (family, kind) = self.family.as_ref()?;
        if !self.rules.convert_classic || *kind != MetricKind::Histogram {
            return None;
        }
        let suffix = exposed.labels.get(METRIC_NAME).strip_prefix(family.as_str())?;
        let part = match suffix {
            "_bucket" => {
                let le = exposed.labels.get("le");
                Part::Bucket(parse_float(le.as_bytes()).filter(|b| !b.is_nan())?)
            }
            "_count" => Part::Count,
            "_sum" => Part::Sum,
            _ => return None,
        };
        let mut labels = exposed.labels.clone();
        labels.set("le", "").set(METRIC_NAME, family);
        Some((part, labels.build()))
    }

    /// The histogram that was collected is complete.
    fn flush(&mut self) -> Result<(), PageError> {
        let Some(collected) = self.collecting.take() else { return Ok(()) };
        let Ok(histogram) = collected.histogram.to_histogram() else { return Ok(()) };
        if collected.broken || histogram.validate().is_err() {
            return Ok(());
        }
        self.sample(Exposed {
            labels: collected.labels.to_builder(),
            empty: collected.empty,
            value: ExposedValue::Histogram(Box::new(histogram)),
            timestamp_ms: collected.timestamp_ms,
            start_ms: collected.start_ms,
            exemplars: collected.exemplars.into_iter().filter(|(_, _, t)| t.is_some()).collect(),
        })
    }

    /// Adds type and unit of the family to the labels of one of its series.
    fn describe(&self, labels: &mut LabelsBuilder) {
        if !self.rules.type_and_unit_labels {
            return;
        }
        let metric = labels.get(METRIC_NAME).to_owned();
        let part_of = |family: &str, kind| suffix_of(&metric, family, kind).is_some();
        let kind = match &self.family {
            Some((family, kind)) if part_of(family, *kind) => *kind,
            _ => return,
        };
        if kind != MetricKind::Unknown {
            labels.set("__type__", kind.as_str());
        }
        if let Some((family, unit)) = &self.unit
            && !unit.is_empty()
            && part_of(family, kind)
        {
            labels.set("__unit__", unit);
        }
    }

    fn sample(&mut self, exposed: Exposed) -> Result<(), PageError> {
        let Exposed { mut labels, empty, value, timestamp_ms, start_ms, exemplars } = exposed;
        let start_ms = if self.rules.start_timestamps { start_ms } else { 0 };
        self.describe(&mut labels);
        let value = match value {
            ExposedValue::Float(value) if start_ms == 0 => Value::Float(value),
            ExposedValue::Float(value) => Value::Started(value, start_ms),
            ExposedValue::Histogram(mut histogram) => {
                if self.rules.reduce(&mut histogram) {
                    Value::Histogram(histogram, start_ms)
                } else {
                    self.too_many_buckets = true;
                    Value::TooLarge
                }
            }
        };
        let mut key = labels.build().as_bytes().to_vec();
        for name in &empty {
            key.push(0);
            key.extend_from_slice(name.as_bytes());
        }
        let hash = xxh3_64_with_seed(&key, self.intake.rules().hash_key);
        let found = self.intake.look_up(hash);
        let series = match (found, value) {
            (Found::Nothing, value) => self
                .intake
                .new_series(LineText::hashed(hash), labels, &empty, value, timestamp_ms)
                .map_err(|e| match e {
                    LabelError::Limit(m) => PageError::LabelLimit(m),
                    LabelError::Invalid(m) => PageError::Exposed(m),
                })?,
            (Found::Known(line) | Found::Again(line), value) => {
                self.intake.known(found, line, value, timestamp_ms)
            }
        };
        let Some(series) = series else { return Ok(()) };
        // Several exemplars of a histogram must come in this order.
        let mut exemplars = exemplars;
        exemplars
            .sort_by(|a, b| a.2.cmp(&b.2).then(a.1.total_cmp(&b.1)).then_with(|| a.0.cmp(&b.0)));
        for (labels, value, exemplar_ms) in exemplars {
            // Without a time of its own it is the same until it changes.
            if exemplar_ms.is_none() {
                let key = value.to_bits() ^ self.intake.rules().hash_key;
                if !self.intake.is_new_exemplar(hash, hash_of(labels.as_bytes(), key)) {
                    continue;
                }
            }
            let chars: usize =
                labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
            if chars <= EXEMPLAR_CHARS {
                let timestamp_ms =
                    exemplar_ms.or(timestamp_ms).unwrap_or_else(|| self.intake.now_ms());
                let exemplar = Exemplar { labels, value, timestamp_ms };
                self.intake.rows().exemplars.push((series, exemplar));
            }
        }
        Ok(())
    }
}

/// A part of a classic histogram.
enum Part {
    Bucket(f64),
    Count,
    Sum,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use narthex_query::memory::MemoryStorage;
    use narthex_storage::append::{Appendable as _, SourceId, SyncClass};

    use super::super::cache::Cache;
    use super::super::labels::LabelRules;
    use super::super::page::{Counts, PageRules, Rows};
    use super::*;
    use crate::config::{NameValidation, ScrapeLimits};

    fn rules() -> PageRules {
        PageRules {
            labels: LabelRules {
                target: Labels::empty(),
                honor_labels: false,
                relabel: Arc::default(),
                limits: ScrapeLimits::default(),
                validation: NameValidation::Utf8,
            },
            honor_timestamps: true,
            track_timestamps_staleness: false,
            sample_limit: 0,
            hash_key: 7,
        }
    }

    const PAGE: &str = "# TYPE h histogram\n\
        h_bucket{a=\"b\",le=\"1\"} 1\nh_bucket{a=\"b\",le=\"+Inf\"} 3\nh_sum{a=\"b\"} 5\nh_count{a=\"b\"} 3\n\
        h_bucket{a=\"c\",le=\"1\"} 2\nh_bucket{a=\"c\",le=\"+Inf\"} 1\nh_sum{a=\"c\"} 5\n\
        # TYPE g gauge\ng 1\n";

    /// A target's memory, and storage that gives out series.
    #[derive(Default)]
    struct Target {
        storage: MemoryStorage,
        cache: Cache,
        rows: Rows,
        counts: Counts,
    }

    impl Target {
        fn read(&mut self, page: &str, format: Format, how: ExposedRules) -> Result<(), PageError> {
            self.counts = Counts::default();
            let mut appender = self.storage.appender(SourceId(0), SyncClass::Scrape);
            let reading = Reading {
                now_ms: 9,
                rules: &rules(),
                cache: &mut self.cache,
                appender: appender.as_mut(),
                rows: &mut self.rows,
                counts: &mut self.counts,
            };
            reading.samples(page.as_bytes(), format, how)
        }
    }

    #[test]
    fn classic_histograms_become_native_ones() {
        let mut target = Target::default();
        let mut how = ExposedRules { convert_classic: true, ..ExposedRules::default() };
        for round in 0..3 {
            target.read(PAGE, Format::Text, how).expect("valid");
            let Target { rows, counts, .. } = &target;
            // The second one does not add up, and makes nothing.
            assert_eq!((rows.series.len(), rows.histograms.len(), rows.stale.len()), (1, 1, 0));
            let (t, _, _, histogram) = &rows.histograms[0];
            assert_eq!((*t, histogram.count, histogram.sum), (9, 3.0, 5.0));
            assert_eq!(&*histogram.custom_values, &[1.0]);
            assert_eq!(histogram.positive_buckets, [1.0, 2.0]);
            assert_eq!((counts.scraped, counts.added), (2, if round == 0 { 2 } else { 0 }));
            assert_eq!(counts.metadata_changed, round == 0);
        }
        how.read.always_classic = true;
        target.read(PAGE, Format::Text, how).expect("valid");
        let Target { rows, counts, .. } = &target;
        assert_eq!((rows.series.len(), rows.histograms.len(), counts.added), (8, 1, 7));
        how.bucket_limit = 1;
        assert_eq!(target.read(PAGE, Format::Text, how), Err(PageError::BucketLimit));
    }

    const OPEN_METRICS: &str = "# TYPE c_seconds counter\n# UNIT c_seconds seconds\n\
        c_seconds_total{a=\"b\"} 2\nc_seconds_created{a=\"b\"} 1.5\nc_seconds_total{a=\"c\"} 3\n\
        # TYPE h histogram\n\
        h_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 5\nh_count 3\nh_created 2\n\
        # TYPE u unknown\nu 1\nother 1\n# EOF\n";

    #[test]
    fn features_add_labels_and_start_timestamps() {
        let mut target = Target::default();
        let how = ExposedRules {
            type_and_unit_labels: true,
            start_timestamps: true,
            ..ExposedRules::default()
        };
        target.read(OPEN_METRICS, Format::OpenMetrics, how).expect("valid");
        let rows = &target.rows;
        let mut appender = target.storage.appender(SourceId(0), SyncClass::Scrape);
        let started: Vec<_> =
            rows.started.iter().map(|(t, start, _, v)| (*t, *start, *v)).collect();
        let of_histogram = [1.0, 3.0, 5.0, 3.0].map(|v| (9, 2000, v));
        assert_eq!(started[0], (9, 1500, 2.0));
        assert_eq!(started[1..], of_histogram);
        assert_eq!(rows.values, [3.0, 1.0, 1.0]);
        let mut has = |pairs: &[(&str, &str)], expected| {
            let labels = Labels::from_pairs(pairs.iter().copied());
            assert_eq!(appender.series(&labels).expect("there is room"), expected, "{labels}");
        };
        let counter =
            [("__name__", "c_seconds_total"), ("__type__", "counter"), ("__unit__", "seconds")];
        has(&[&counter[..], &[("a", "b")]].concat(), rows.started[0].2);
        has(&[("__name__", "h_sum"), ("__type__", "histogram")], rows.started[3].2);
        has(&[("__name__", "u")], rows.series[1]);
        has(&[("__name__", "other")], rows.series[2]);
    }

    #[test]
    fn factors_choose_schemas_as_in_prometheus() {
        let schema = |factor| {
            ExposedRules { min_bucket_factor: factor, ..ExposedRules::default() }.max_schema()
        };
        for (factor, expected) in
            [(0.0, 8), (1.0, 8), (1.0027, 8), (1.1, 2), (2.0, 0), (4.0, -1), (1e9, -4)]
        {
            assert_eq!(schema(factor), expected, "{factor}");
        }
    }
}
