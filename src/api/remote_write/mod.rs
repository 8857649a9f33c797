//! Who else brings samples? The receiver of remote write 1.0.
//!
//! A request is a snappy block of protobuf. It is read in place: no tree is
//! built, labels go straight into one reused buffer. Samples that cannot be
//! taken do not harm the others; the answer names the first.

mod histogram;
mod known;
mod wire;

use std::sync::{Arc, PoisonError};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use narthex_storage::append::{AppendError, Appender, CommitError, SourceId, SyncClass};
use narthex_storage::labels::{Labels, LabelsBuilder, METRIC_NAME};
use narthex_storage::read::SeriesRef;
use narthex_storage::sample::{Exemplar, Metadata, MetricKind};

pub use self::known::KnownSeries;
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
            Self::Commit(_) | Self::Refused { error: AppendError::Storage, .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
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
    let mut request = vec![0; size];
    let size = snap::raw::Decoder::new().decompress(body, &mut request)?;
    let request = &request[..size];
    let now_ms = api.clock.now_ms();
    let known = api.known_series.read().unwrap_or_else(PoisonError::into_inner);
    let mut batch = Batch {
        appender: api.appendable.appender(SourceId(0), SyncClass::RemoteWrite),
        max_time_ms: now_ms.saturating_add(MAX_AHEAD_MS),
        labels: LabelsBuilder::new(),
        known: &known,
        cursor: 0,
        learned: Vec::new(),
        row: Row::default(),
        first_refused: None,
        refused: 0,
        invalid_labels: 0,
    };
    let mut fields = Fields::new(request);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => batch.series(field.bytes())?,
            3 => batch.metadata(field.bytes())?,
            _ => {}
        }
    }
    batch.end_row()?;
    let Batch { appender, learned, first_refused, refused, invalid_labels, .. } = batch;
    drop(known);
    if !learned.is_empty() {
        let mut known = api.known_series.write().unwrap_or_else(PoisonError::into_inner);
        known.learn(&learned, now_ms);
    }
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
struct Batch<'a> {
    appender: Box<dyn Appender>,
    max_time_ms: i64,
    labels: LabelsBuilder,
    known: &'a KnownSeries,
    /// Where in `known` the next series probably is.
    cursor: usize,
    /// What `known` did not know.
    learned: Vec<(u64, SeriesRef)>,
    row: Row<'a>,
    first_refused: Option<(AppendError, Labels)>,
    refused: usize,
    invalid_labels: usize,
}

/// Samples of one timestamp that follow each other in the request.
#[derive(Default)]
struct Row<'a> {
    timestamp_ms: i64,
    series: Vec<SeriesRef>,
    values: Vec<f64>,
    /// The message of each series, for whoever is refused.
    messages: Vec<&'a [u8]>,
    refused: Vec<(usize, AppendError)>,
}

impl<'a> Batch<'a> {
    /// One `TimeSeries`: labels, then samples, exemplars and histograms.
    fn series(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        let (hash, rest) = self.labels_first(message)?;
        let known = hash.and_then(|hash| self.known.find(hash, &mut self.cursor));
        let Some(series) = known.map_or_else(|| self.resolve(message, hash), |s| Ok(Some(s)))?
        else {
            return Ok(());
        };
        let mut fields = Fields::new(rest);
        while let Some((number, field)) = fields.next()? {
            let outcome = match number {
                2 => {
                    self.sample(series, message, field.bytes())?;
                    continue;
                }
                3 => self.exemplar(series, field.bytes())?,
                4 => self.histogram(series, field.bytes())?,
                _ => Ok(()),
            };
            if let Err(error) = outcome {
                self.refuse(error, message)?;
            }
        }
        Ok(())
    }

    /// The hash of the labels that a series starts with, and what follows
    /// them. Labels that stand elsewhere are rare: no hash, so never looked up.
    fn labels_first(&self, message: &'a [u8]) -> Result<(Option<u64>, &'a [u8]), WireError> {
        let (labels, rest) = message.split_at(labels_end(message)?);
        Ok(((!has_labels(rest)?).then(|| self.known.hash(labels)), rest))
    }

    /// Reads the labels of a series that is not known, and keeps it under
    /// `hash`, if given. Nothing if they cannot name one or it is refused.
    #[cold]
    fn resolve(
        &mut self,
        message: &[u8],
        hash: Option<u64>,
    ) -> Result<Option<SeriesRef>, WireError> {
        let Some(labels) = self.read_labels(message)? else {
            self.invalid_labels += 1;
            return Ok(None);
        };
        match self.appender.series(&labels) {
            Ok(series) => {
                self.learned.extend(hash.map(|hash| (hash, series)));
                Ok(Some(series))
            }
            Err(error) => {
                self.refuse_labels(error, labels);
                Ok(None)
            }
        }
    }

    #[cold]
    fn refuse(&mut self, error: AppendError, message: &[u8]) -> Result<(), WireError> {
        let labels = self.read_labels(message)?.unwrap_or_default();
        self.refuse_labels(error, labels);
        Ok(())
    }

    fn refuse_labels(&mut self, error: AppendError, labels: Labels) {
        self.refused += 1;
        // What may be sent again decides: what was taken is no harm then.
        let is_told = |(first, _): &(AppendError, Labels)| {
            error != AppendError::Storage || *first == AppendError::Storage
        };
        if !self.first_refused.as_ref().is_some_and(is_told) {
            self.first_refused = Some((error, labels));
        }
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

    /// One `Sample`: joins the row, or ends it and starts the next.
    fn sample(
        &mut self,
        series: SeriesRef,
        message: &'a [u8],
        sample: &[u8],
    ) -> Result<(), WireError> {
        let (mut value, mut timestamp_ms) = (0.0, 0);
        let mut fields = Fields::new(sample);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => value = field.double(),
                2 => timestamp_ms = signed(field),
                _ => {}
            }
        }
        if timestamp_ms > self.max_time_ms {
            return self.refuse(AppendError::TooFarInFuture, message);
        }
        if timestamp_ms != self.row.timestamp_ms {
            self.end_row()?;
            self.row.timestamp_ms = timestamp_ms;
        }
        self.row.series.push(series);
        self.row.values.push(value);
        self.row.messages.push(message);
        Ok(())
    }

    /// Hands the row to the storage.
    fn end_row(&mut self) -> Result<(), WireError> {
        let mut row = std::mem::take(&mut self.row);
        self.appender.append_row(row.timestamp_ms, &row.series, &row.values, &mut row.refused);
        for (i, error) in std::mem::take(&mut row.refused) {
            let message = row.messages[i];
            if error == AppendError::UnknownSeries {
                self.append_anew(message, row.timestamp_ms, row.values[i])?;
            } else {
                self.refuse(error, message)?;
            }
        }
        row.series.clear();
        row.values.clear();
        row.messages.clear();
        self.row = row;
        Ok(())
    }

    /// A known series that the storage has dropped meanwhile comes again.
    #[cold]
    fn append_anew(
        &mut self,
        message: &'a [u8],
        timestamp_ms: i64,
        value: f64,
    ) -> Result<(), WireError> {
        let (hash, _) = self.labels_first(message)?;
        let Some(series) = self.resolve(message, hash)? else { return Ok(()) };
        match self.appender.append(series, timestamp_ms, 0, value) {
            Ok(()) => Ok(()),
            Err(error) => self.refuse(error, message),
        }
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

/// Where the labels end that stand at the start of a series.
fn labels_end(message: &[u8]) -> Result<usize, WireError> {
    let mut fields = Fields::new(message);
    loop {
        let end = fields.offset();
        match fields.next()? {
            Some((1, _)) => {}
            _ => return Ok(end),
        }
    }
}

fn has_labels(message: &[u8]) -> Result<bool, WireError> {
    let mut fields = Fields::new(message);
    while let Some((number, _)) = fields.next()? {
        if number == 1 {
            return Ok(true);
        }
    }
    Ok(false)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_refuses_may_be_sent_again() {
        let status = |error| {
            let error = WriteError::Refused { error, count: 1, labels: Labels::default() };
            error.into_response().status()
        };
        assert_eq!(status(AppendError::Storage), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(AppendError::SeriesLimit), StatusCode::BAD_REQUEST);
        assert_eq!(status(AppendError::Duplicate), StatusCode::BAD_REQUEST);
    }
}
