//! Who else brings samples? The receiver of remote write 1.0.
//!
//! A request is a snappy block of protobuf. It is read in place: no tree is
//! built, labels go straight into one reused buffer. Samples that cannot be
//! taken do not harm the others; the answer names the first.

mod histogram;
mod wire;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use narthex_storage::append::{AppendError, Appender, CommitError, SourceId, SyncClass};
use narthex_storage::labels::{Labels, LabelsBuilder, METRIC_NAME};
use narthex_storage::read::SeriesRef;
use narthex_storage::sample::{Exemplar, Metadata, MetricKind};

use self::wire::{Field, Fields, WireError};
use super::Api;

/// Largest uncompressed request, in bytes.
const MAX_REQUEST_BYTES: usize = 128 << 20;

/// How far in the future samples may be, in milliseconds.
const MAX_AHEAD_MS: i64 = 600_000;

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("remote write receiver needs to be enabled with --web.enable-remote-write-receiver")]
    Disabled,
    #[error("snappy: {0}")]
    Snappy(#[from] snap::Error),
    #[error("request of {0} bytes is larger than {MAX_REQUEST_BYTES}")]
    TooLarge(usize),
    #[error("{0} is not supported: this receiver speaks remote write 1.0")]
    ContentType(String),
    #[error("proto: {0}")]
    Wire(#[from] WireError),
    #[error("{error} (first of {count}), series {labels}")]
    Refused { error: AppendError, count: usize, labels: Labels },
    #[error("{0}")]
    Commit(#[from] CommitError),
}

impl IntoResponse for WriteError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Disabled => StatusCode::NOT_FOUND,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            // The sender may try again.
            Self::Commit(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Snappy(_) | Self::Wire(_) | Self::Refused { .. } => StatusCode::BAD_REQUEST,
        };
        (status, format!("{self}\n")).into_response()
    }
}

/// `POST /api/v1/write`.
pub async fn receive(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    match accept(&api, &headers, &body) {
        Ok(samples) => {
            let written = [("X-Prometheus-Remote-Write-Samples-Written", samples.to_string())];
            (StatusCode::NO_CONTENT, written).into_response()
        }
        Err(error) => error.into_response(),
    }
}

fn accept(api: &Api, headers: &HeaderMap, body: &[u8]) -> Result<u64, WriteError> {
    if !api.options.web.enable_remote_write_receiver {
        return Err(WriteError::Disabled);
    }
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if content_type.contains("io.prometheus.write.v2") {
        return Err(WriteError::ContentType(content_type.to_owned()));
    }
    let size = snap::raw::decompress_len(body)?;
    if size > MAX_REQUEST_BYTES {
        return Err(WriteError::TooLarge(size));
    }
    let request = snap::raw::Decoder::new().decompress_vec(body)?;
    let max_time_ms = api.clock.now_ms().saturating_add(MAX_AHEAD_MS);
    let mut batch = Batch {
        appender: api.appendable.appender(SourceId(0), SyncClass::RemoteWrite),
        max_time_ms,
        labels: LabelsBuilder::new(),
        first_refused: None,
        refused: 0,
        invalid_labels: 0,
    };
    let mut fields = Fields::new(&request);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => batch.series(field.bytes())?,
            3 => batch.metadata(field.bytes())?,
            _ => {}
        }
    }
    let Batch { appender, first_refused, refused, invalid_labels, .. } = batch;
    let committed = appender.commit()?;
    if invalid_labels > 0 {
        tracing::warn!(
            series = invalid_labels,
            "remote write: series with invalid labels left out"
        );
    }
    match first_refused {
        Some((error, labels)) => Err(WriteError::Refused { error, count: refused, labels }),
        None => Ok(committed.samples),
    }
}

/// One request on its way into the storage.
struct Batch {
    appender: Box<dyn Appender>,
    max_time_ms: i64,
    labels: LabelsBuilder,
    first_refused: Option<(AppendError, Labels)>,
    refused: usize,
    invalid_labels: usize,
}

impl Batch {
    /// One `TimeSeries`: labels, then samples, exemplars and histograms.
    fn series(&mut self, message: &[u8]) -> Result<(), WireError> {
        let Some(labels) = self.read_labels(message)? else {
            self.invalid_labels += 1;
            return Ok(());
        };
        let series = match self.appender.series(&labels) {
            Ok(series) => series,
            Err(error) => {
                self.refuse(error, &labels);
                return Ok(());
            }
        };
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            let outcome = match number {
                2 => self.sample(series, field.bytes())?,
                3 => self.exemplar(series, field.bytes())?,
                4 => self.histogram(series, field.bytes())?,
                _ => Ok(()),
            };
            if let Err(error) = outcome {
                self.refuse(error, &labels);
            }
        }
        Ok(())
    }

    #[cold]
    fn refuse(&mut self, error: AppendError, labels: &Labels) {
        self.refused += 1;
        self.first_refused.get_or_insert_with(|| (error, labels.clone()));
    }

    /// The labels of a series; `None` if they cannot name one.
    fn read_labels(&mut self, message: &[u8]) -> Result<Option<Labels>, WireError> {
        self.labels.clear();
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            if number != 1 {
                continue;
            }
            let Some((name, value)) = label(field.bytes())? else { return Ok(None) };
            if name.is_empty() || !self.labels.get(name).is_empty() {
                return Ok(None);
            }
            self.labels.set(name, value);
        }
        let named = !self.labels.get(METRIC_NAME).is_empty();
        Ok(named.then(|| self.labels.build()))
    }

    fn sample(
        &mut self,
        series: SeriesRef,
        message: &[u8],
    ) -> Result<Result<(), AppendError>, WireError> {
        let (mut value, mut timestamp_ms) = (0.0, 0);
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => value = field.double(),
                2 => timestamp_ms = signed(field),
                _ => {}
            }
        }
        if timestamp_ms > self.max_time_ms {
            return Ok(Err(AppendError::TooFarInFuture));
        }
        Ok(self.appender.append(series, timestamp_ms, 0, value))
    }

    fn exemplar(
        &mut self,
        series: SeriesRef,
        message: &[u8],
    ) -> Result<Result<(), AppendError>, WireError> {
        let mut labels = LabelsBuilder::new();
        let (mut value, mut timestamp_ms) = (0.0, 0);
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => {
                    if let Some((name, text)) = label(field.bytes())? {
                        labels.set(name, text);
                    }
                }
                2 => value = field.double(),
                3 => timestamp_ms = signed(field),
                _ => {}
            }
        }
        let exemplar = Exemplar { labels: labels.build(), value, timestamp_ms };
        // An exemplar that is refused never fails the request, as in Prometheus.
        let _ = self.appender.append_exemplar(series, &exemplar);
        Ok(Ok(()))
    }

    fn histogram(
        &mut self,
        series: SeriesRef,
        message: &[u8],
    ) -> Result<Result<(), AppendError>, WireError> {
        let Some((timestamp_ms, histogram)) = histogram::read(message)? else {
            return Ok(Err(AppendError::InvalidHistogram));
        };
        if timestamp_ms > self.max_time_ms {
            return Ok(Err(AppendError::TooFarInFuture));
        }
        Ok(self.appender.append_histogram(series, timestamp_ms, 0, &histogram))
    }

    /// One `MetricMetadata`.
    fn metadata(&mut self, message: &[u8]) -> Result<(), WireError> {
        let mut metadata = Metadata::default();
        let mut family = "";
        let mut fields = Fields::new(message);
        let text = |field: Field<'_>| String::from_utf8_lossy(field.bytes()).into_owned();
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => metadata.kind = metric_kind(field.integer()),
                2 => family = std::str::from_utf8(field.bytes()).unwrap_or(""),
                4 => metadata.help = text(field),
                5 => metadata.unit = text(field),
                _ => {}
            }
        }
        if !family.is_empty() {
            self.appender.set_metadata(family, &metadata);
        }
        Ok(())
    }
}

#[allow(clippy::cast_possible_wrap, reason = "int64 is sent as its two's complement")]
const fn signed(field: Field<'_>) -> i64 {
    field.integer() as i64
}

/// A `Label`; `None` if it is not UTF-8.
fn label(message: &[u8]) -> Result<Option<(&str, &str)>, WireError> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => name = field.bytes(),
            2 => value = field.bytes(),
            _ => {}
        }
    }
    Ok(std::str::from_utf8(name).ok().zip(std::str::from_utf8(value).ok()))
}

const fn metric_kind(number: u64) -> MetricKind {
    match number {
        1 => MetricKind::Counter,
        2 => MetricKind::Gauge,
        3 => MetricKind::Histogram,
        4 => MetricKind::GaugeHistogram,
        5 => MetricKind::Summary,
        6 => MetricKind::Info,
        7 => MetricKind::StateSet,
        _ => MetricKind::Unknown,
    }
}
