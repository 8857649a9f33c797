//! The protobuf format: delimited `io.prometheus.client.MetricFamily`.
//!
//! Families are walked on the wire, so that only one metric is in memory as
//! structs at a time, whatever a page claims to hold.

use narthex_storage::histogram::{CounterResetHint, Histogram, IntegerHistogram, Span};
use narthex_storage::labels::{Labels, LabelsBuilder, METRIC_NAME};
use narthex_storage::sample::MetricKind;

use super::float::open_metrics_float;

/// Largest encoded metric: a histogram of a hundred thousand buckets fits.
const METRIC_LIMIT_BYTES: usize = 4 << 20;

#[derive(Clone, PartialEq, prost::Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireExemplar {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Timestamp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Number {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(message, optional, tag = "2")]
    exemplar: Option<WireExemplar>,
    /// Of counters only.
    #[prost(message, optional, tag = "3")]
    created: Option<Timestamp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Quantile {
    #[prost(double, tag = "1")]
    quantile: f64,
    #[prost(double, tag = "2")]
    value: f64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireSummary {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    quantile: Vec<Quantile>,
    #[prost(message, optional, tag = "4")]
    created: Option<Timestamp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Bucket {
    #[prost(uint64, tag = "1")]
    cumulative_count: u64,
    #[prost(double, tag = "2")]
    upper_bound: f64,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<WireExemplar>,
    #[prost(double, tag = "4")]
    cumulative_count_float: f64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireHistogram {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(double, tag = "4")]
    sample_count_float: f64,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(double, tag = "8")]
    zero_count_float: f64,
    #[prost(message, repeated, tag = "9")]
    negative_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "10")]
    negative_delta: Vec<i64>,
    #[prost(double, repeated, tag = "11")]
    negative_count: Vec<f64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(double, repeated, tag = "14")]
    positive_count: Vec<f64>,
    #[prost(message, optional, tag = "15")]
    created: Option<Timestamp>,
    #[prost(message, repeated, tag = "16")]
    exemplars: Vec<WireExemplar>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "4")]
    summary: Option<WireSummary>,
    #[prost(message, optional, tag = "5")]
    untyped: Option<Number>,
    #[prost(int64, tag = "6")]
    timestamp_ms: i64,
    #[prost(message, optional, tag = "7")]
    histogram: Option<WireHistogram>,
}

impl Metric {
    fn created(&self) -> Option<&Timestamp> {
        let counter = self.counter.as_ref().and_then(|c| c.created.as_ref());
        let summary = self.summary.as_ref().and_then(|s| s.created.as_ref());
        let histogram = self.histogram.as_ref().and_then(|h| h.created.as_ref());
        counter.or(summary).or(histogram)
    }
}

impl Timestamp {
    fn milliseconds(&self) -> i64 {
        self.seconds.saturating_mul(1000).saturating_add(i64::from(self.nanos / 1_000_000))
    }
}

/// A sample whose labels stand by themselves.
#[derive(Debug, Clone)]
pub struct Exposed {
    /// With the metric name; empty values left out.
    pub labels: LabelsBuilder,
    /// Names that were exposed with an empty value.
    pub empty: Vec<String>,
    /// Float or native histogram.
    pub value: ExposedValue,
    /// The exposed timestamp in milliseconds.
    pub timestamp_ms: Option<i64>,
    /// Since when it counts, in milliseconds; 0 if the page does not say.
    pub start_ms: i64,
    /// Labels, value and timestamp in milliseconds of its exemplars.
    pub exemplars: Vec<(Labels, f64, Option<i64>)>,
}

/// The value of an [`Exposed`] sample.
#[derive(Debug, Clone, PartialEq)]
pub enum ExposedValue {
    /// A float, to the bit: a staleness marker is one here, too.
    Float(f64),
    /// A native histogram.
    Histogram(Box<Histogram>),
}

/// What is read of histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistogramRules {
    /// Native parts are read.
    pub native: bool,
    /// Classic series of native histograms are read, too.
    pub always_classic: bool,
}

/// A family of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its help.
    pub help: &'a str,
    /// Its unit; empty if none.
    pub unit: &'a str,
    /// Its type.
    pub kind: MetricKind,
    body: &'a [u8],
}

/// The families of a page, in order.
pub struct Families<'a>(&'a [u8]);

/// The families of a page.
#[must_use]
pub const fn families(page: &[u8]) -> Families<'_> {
    Families(page)
}

impl<'a> Iterator for Families<'a> {
    type Item = Result<Family<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let family = message(&mut self.0).and_then(Family::parse);
        if family.is_err() {
            self.0 = &[];
        }
        Some(family)
    }
}

/// One field on the wire.
enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

const BROKEN: &str = "proto: illegal wireType or unexpected EOF";

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(BROKEN)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("proto: integer overflow".to_owned())
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], String> {
    let length = usize::try_from(length).map_err(|_| BROKEN)?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(BROKEN)?;
    *bytes = rest;
    Ok(taken)
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let length = varint(bytes)?;
    take(bytes, length)
}

/// As [`delimited`], with Prometheus' words for a page that is cut off.
fn message<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let whole = bytes.len();
    let length = varint(bytes)?;
    let prefix = (whole - bytes.len()) as u64;
    take(bytes, length).map_err(|_| {
        let expected = length.saturating_add(prefix);
        format!(
            "clientpb: insufficient length of buffer, expected at least {expected} bytes, got {whole} bytes"
        )
    })
}

fn field<'a>(bytes: &mut &'a [u8]) -> Result<(u64, Field<'a>), String> {
    let key = varint(bytes)?;
    let field = match key & 7 {
        0 => Field::Varint(varint(bytes)?),
        1 => take(bytes, 8).map(|_| Field::Other)?,
        2 => Field::Bytes(delimited(bytes)?),
        5 => take(bytes, 4).map(|_| Field::Other)?,
        _ => return Err(BROKEN.to_owned()),
    };
    Ok((key >> 3, field))
}

impl<'a> Family<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, String> {
        let text = |bytes: &'a [u8], what: &str| {
            std::str::from_utf8(bytes).map_err(|_| format!("invalid {what} of a metric family"))
        };
        let mut family = Self { name: "", help: "", unit: "", kind: MetricKind::Counter, body };
        let mut rest = body;
        while !rest.is_empty() {
            match field(&mut rest)? {
                (1, Field::Bytes(bytes)) => family.name = text(bytes, "name")?,
                (2, Field::Bytes(bytes)) => family.help = text(bytes, "help")?,
                (5, Field::Bytes(bytes)) => family.unit = text(bytes, "unit")?,
                (3, Field::Varint(kind)) => {
                    family.kind = match kind {
                        0 => MetricKind::Counter,
                        1 => MetricKind::Gauge,
                        2 => MetricKind::Summary,
                        3 => MetricKind::Unknown,
                        4 => MetricKind::Histogram,
                        5 => MetricKind::GaugeHistogram,
                        other => {
                            let name = family.name;
                            return Err(format!(
                                "unknown metric type for metric {name:?}: {other}"
                            ));
                        }
                    }
                }
                _ => {}
            }
        }
        if family.name.is_empty() {
            return Err("invalid metric name: ".to_owned());
        }
        Ok(family)
    }

    /// Hands the samples of the family to `each`.
    ///
    /// # Errors
    ///
    /// What is wrong with the page, or the error of `each`.
    pub fn samples<E: From<String>>(
        &self,
        rules: HistogramRules,
        mut each: impl FnMut(Exposed) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = self.body;
        while !rest.is_empty() {
            let (4, Field::Bytes(bytes)) = field(&mut rest)? else { continue };
            if bytes.len() > METRIC_LIMIT_BYTES {
                return Err(format!("a metric of {:?} is larger than 4 MiB", self.name).into());
            }
            let metric = <Metric as prost::Message>::decode(bytes)
                .map_err(|e| format!("{:?}: {e}", self.name))?;
            self.metric(&metric, rules, &mut each)?;
        }
        Ok(())
    }

    fn metric<E: From<String>>(
        &self,
        metric: &Metric,
        rules: HistogramRules,
        each: &mut impl FnMut(Exposed) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut labels = LabelsBuilder::new();
        let mut empty = Vec::new();
        for pair in &metric.label {
            if !labels.get(&pair.name).is_empty() {
                let name = &pair.name;
                return Err(format!("label name \"{name}\" is not unique: invalid sample").into());
            }
            labels.set(&pair.name, &pair.value);
            if pair.value.is_empty() {
                empty.push(pair.name.clone());
            }
        }
        let timestamp_ms = (metric.timestamp_ms != 0).then_some(metric.timestamp_ms);
        let start_ms = metric.created().map_or(0, Timestamp::milliseconds);
        let exposed = |suffix: &str, label: Option<(&str, f64)>, value, exemplars| {
            let mut labels = labels.clone();
            labels.set(METRIC_NAME, &format!("{}{suffix}", self.name));
            if let Some((name, bound)) = label {
                labels.set(name, &open_metrics_float(bound));
            }
            Exposed { labels, empty: empty.clone(), value, timestamp_ms, start_ms, exemplars }
        };
        let number = |n: &Option<Number>| float(n.as_ref().map_or(0.0, |n| n.value));
        match self.kind {
            MetricKind::Gauge => each(exposed("", None, number(&metric.gauge), vec![])),
            MetricKind::Unknown => each(exposed("", None, number(&metric.untyped), vec![])),
            MetricKind::Summary => {
                let summary = metric.summary.clone().unwrap_or_default();
                each(exposed("_count", None, count(summary.sample_count, 0.0), vec![]))?;
                each(exposed("_sum", None, float(summary.sample_sum), vec![]))?;
                for q in &summary.quantile {
                    each(exposed("", Some(("quantile", q.quantile)), float(q.value), vec![]))?;
                }
                Ok(())
            }
            MetricKind::Histogram | MetricKind::GaugeHistogram => {
                let Some(histogram) = &metric.histogram else {
                    return Err(format!("{:?} has no histogram", self.name).into());
                };
                let native = rules.native && histogram.is_native();
                if native {
                    let gauge = self.kind == MetricKind::GaugeHistogram;
                    let value = histogram
                        .native(gauge)
                        .map_err(|e| format!("histogram {:?}: {e}", self.name))?;
                    let value = ExposedValue::Histogram(Box::new(value));
                    each(exposed("", None, value, histogram.native_exemplars()))?;
                }
                if native && (!rules.always_classic || histogram.bucket.is_empty()) {
                    return Ok(());
                }
                let total = || count(histogram.sample_count, histogram.sample_count_float);
                each(exposed("_count", None, total(), vec![]))?;
                each(exposed("_sum", None, float(histogram.sample_sum), vec![]))?;
                let le = |bound| Some(("le", bound));
                for b in &histogram.bucket {
                    let value = count(b.cumulative_count, b.cumulative_count_float);
                    let exemplars = b.exemplar.iter().map(WireExemplar::read).collect();
                    each(exposed("_bucket", le(b.upper_bound), value, exemplars))?;
                }
                if histogram.bucket.last().is_none_or(|b| b.upper_bound != f64::INFINITY) {
                    each(exposed("_bucket", le(f64::INFINITY), total(), vec![]))?;
                }
                Ok(())
            }
            _ => {
                let exemplar = metric.counter.as_ref().and_then(|c| c.exemplar.as_ref());
                let exemplars = exemplar.into_iter().map(WireExemplar::read).collect();
                each(exposed("", None, number(&metric.counter), exemplars))
            }
        }
    }
}

const fn float(value: f64) -> ExposedValue {
    ExposedValue::Float(value)
}

#[allow(clippy::cast_precision_loss, reason = "as in Prometheus")]
fn count(integer: u64, over: f64) -> ExposedValue {
    float(if over == 0.0 { integer as f64 } else { over })
}

impl WireExemplar {
    fn read(&self) -> (Labels, f64, Option<i64>) {
        let labels = Labels::from_pairs(self.label.iter().map(|l| (&l.name, &l.value)));
        let timestamp_ms = self.timestamp.as_ref().map(Timestamp::milliseconds);
        (labels, self.value, timestamp_ms)
    }
}

impl WireHistogram {
    fn is_native(&self) -> bool {
        !self.positive_span.is_empty()
            || !self.negative_span.is_empty()
            || self.zero_threshold > 0.0
            || self.zero_count > 0
    }

    /// Exemplars without a timestamp are not kept for native histograms.
    fn native_exemplars(&self) -> Vec<(Labels, f64, Option<i64>)> {
        let own = self.exemplars.iter();
        let of_buckets = self.bucket.iter().filter_map(|b| b.exemplar.as_ref());
        let all: Vec<_> = if self.exemplars.is_empty() {
            of_buckets.map(WireExemplar::read).collect()
        } else {
            own.map(WireExemplar::read).collect()
        };
        all.into_iter().filter(|(_, _, t)| t.is_some()).collect()
    }

    fn native(&self, gauge: bool) -> Result<Histogram, String> {
        let spans = |spans: &[BucketSpan]| -> Vec<Span> {
            spans.iter().map(|s| Span { offset: s.offset, length: s.length }).collect()
        };
        let hint = if gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
        let mut histogram = if self.sample_count_float > 0.0 || self.zero_count_float > 0.0 {
            Histogram {
                counter_reset_hint: hint,
                schema: self.schema,
                zero_threshold: self.zero_threshold,
                zero_count: self.zero_count_float,
                count: self.sample_count_float,
                sum: self.sample_sum,
                positive_spans: spans(&self.positive_span),
                negative_spans: spans(&self.negative_span),
                positive_buckets: self.positive_count.clone(),
                negative_buckets: self.negative_count.clone(),
                ..Histogram::default()
            }
            .into_valid()
        } else {
            IntegerHistogram {
                counter_reset_hint: hint,
                schema: self.schema,
                zero_threshold: self.zero_threshold,
                zero_count: self.zero_count,
                count: self.sample_count,
                sum: self.sample_sum,
                positive_spans: spans(&self.positive_span),
                negative_spans: spans(&self.negative_span),
                positive_deltas: self.positive_delta.clone(),
                negative_deltas: self.negative_delta.clone(),
                custom_values: std::sync::Arc::default(),
            }
            .into_histogram()
        }
        .map_err(|e| e.to_string())?;
        histogram.compact(0);
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    /// A family with one metric, delimited.
    pub(crate) fn family(name: &str, kind: u8, metric: &Metric) -> Vec<u8> {
        let mut body = vec![0x0a, u8::try_from(name.len()).expect("short")];
        body.extend(name.as_bytes());
        body.extend([0x18, kind, 0x22]);
        prost::encoding::encode_varint(metric.encoded_len() as u64, &mut body);
        metric.encode(&mut body).expect("grows");
        let mut page = Vec::new();
        prost::encoding::encode_varint(body.len() as u64, &mut page);
        page.extend(body);
        page
    }

    fn read(page: &[u8], rules: HistogramRules) -> Result<Vec<Exposed>, String> {
        let mut out = Vec::new();
        for family in families(page) {
            family?.samples(rules, |e| {
                out.push(e);
                Ok::<_, String>(())
            })?;
        }
        Ok(out)
    }

    fn shown(samples: &[Exposed]) -> Vec<String> {
        samples
            .iter()
            .map(|e| match &e.value {
                ExposedValue::Float(v) => format!("{} {v}", e.labels.build()),
                ExposedValue::Histogram(h) => format!("{} {}", e.labels.build(), h.count),
            })
            .collect()
    }

    fn histogram() -> Metric {
        Metric {
            label: vec![LabelPair { name: "a".to_owned(), value: "b".to_owned() }],
            histogram: Some(WireHistogram {
                sample_count: 3,
                sample_sum: 1.5,
                bucket: vec![Bucket { cumulative_count: 2, upper_bound: 1.0, ..Bucket::default() }],
                schema: 1,
                zero_threshold: 0.001,
                zero_count: 1,
                positive_span: vec![BucketSpan { offset: 0, length: 2 }],
                positive_delta: vec![1, 0],
                ..WireHistogram::default()
            }),
            ..Metric::default()
        }
    }

    #[test]
    fn classic_and_native_histograms_are_read_as_asked_for() {
        let page = family("h", 4, &histogram());
        let classic = [
            r#"{__name__="h_count", a="b"} 3"#,
            r#"{__name__="h_sum", a="b"} 1.5"#,
            r#"{__name__="h_bucket", a="b", le="1.0"} 2"#,
            r#"{__name__="h_bucket", a="b", le="+Inf"} 3"#,
        ];
        let rules = HistogramRules::default();
        assert_eq!(shown(&read(&page, rules).expect("valid")), classic);
        let rules = HistogramRules { native: true, always_classic: false };
        let native = read(&page, rules).expect("valid");
        assert_eq!(shown(&native), [r#"{__name__="h", a="b"} 3"#]);
        let ExposedValue::Histogram(h) = &native[0].value else { panic!("native") };
        assert_eq!((h.positive_buckets.as_slice(), h.zero_count), (&[1.0, 1.0][..], 1.0));
        let rules = HistogramRules { native: true, always_classic: true };
        assert_eq!(read(&page, rules).expect("valid").len(), 5);
    }

    #[test]
    fn counters_and_summaries_are_read() {
        let exemplar = WireExemplar {
            label: vec![LabelPair { name: "t".to_owned(), value: "1".to_owned() }],
            value: 7.0,
            timestamp: Some(Timestamp { seconds: 2, nanos: 500_000_000 }),
        };
        let counter = Metric {
            counter: Some(Number { value: 5.0, exemplar: Some(exemplar), created: None }),
            timestamp_ms: 9,
            ..Metric::default()
        };
        let summary = Metric {
            summary: Some(WireSummary {
                sample_count: 1,
                sample_sum: 2.0,
                quantile: vec![Quantile { quantile: 0.5, value: f64::NAN }],
                created: Some(Timestamp { seconds: 3, nanos: 4_999_999 }),
            }),
            ..Metric::default()
        };
        let page = [family("c", 0, &counter), family("s", 2, &summary)].concat();
        let samples = read(&page, HistogramRules::default()).expect("valid");
        assert_eq!(
            shown(&samples),
            [
                r#"{__name__="c"} 5"#,
                r#"{__name__="s_count"} 1"#,
                r#"{__name__="s_sum"} 2"#,
                r#"{__name__="s", quantile="0.5"} NaN"#,
            ]
        );
        assert_eq!(samples[0].timestamp_ms, Some(9));
        assert_eq!(samples[0].exemplars[0].2, Some(2500));
        assert_eq!((samples[0].start_ms, samples[3].start_ms), (0, 3004));
    }

    #[test]
    fn impossible_histograms_and_cut_pages_are_errors() {
        let mut metric = histogram();
        if let Some(h) = &mut metric.histogram {
            h.positive_delta = vec![1];
        }
        let page = family("h", 4, &metric);
        let rules = HistogramRules { native: true, always_classic: false };
        assert!(read(&page, rules).expect_err("spans").starts_with("histogram \"h\": "));
        let page = family("h", 4, &histogram());
        for cut in 1..page.len() {
            assert!(read(&page[..cut], rules).is_err(), "{cut}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(page in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), at in 0usize..80, byte in proptest::prelude::any::<u8>()) {
            let rules = HistogramRules { native: true, always_classic: true };
            let _ = read(&page, rules);
            let mut page = family("h", 4, &histogram());
            if let Some(b) = page.get_mut(at) {
                *b = byte;
            }
            let _ = read(&page, rules);
        }
    }
}
