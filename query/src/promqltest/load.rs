//! Samples of a script into the storage.

use std::collections::BTreeMap;

use narthex_storage::append::{AppendError, Appendable, Appender, SourceId, SyncClass};
use narthex_storage::histogram::{ClassicHistogram, Histogram};
use narthex_storage::labels::{Labels, METRIC_NAME};

use crate::duration;
use crate::memory::MemoryStorage;
use crate::parse::series::{MAX_POSITIONS, SequenceValue, parse_metric, parse_series};

/// A block of series.
#[derive(Debug, Default)]
pub(super) struct Load {
    interval_ms: i64,
    /// Whether classic histograms are also stored with custom buckets.
    with_custom_buckets: bool,
    series: BTreeMap<Labels, Loaded>,
}

/// What stands at the positions of a series.
#[derive(Debug)]
struct Loaded {
    values: Vec<SequenceValue>,
    /// Start timestamps relative to the samples, in milliseconds; empty if
    /// none are given.
    starts: Vec<Option<i64>>,
}

impl Load {
    pub(super) fn parse(
        interval_ms: i64,
        with_custom_buckets: bool,
        block: &[&str],
    ) -> Result<Self, String> {
        let mut load = Self { interval_ms, with_custom_buckets, ..Self::default() };
        let mut pending: Option<(Labels, Vec<Option<i64>>)> = None;
        for line in block {
            if let Some((metric, offsets)) = start_line(line) {
                if pending.is_some() {
                    return Err("@st line has no following sample line".to_owned());
                }
                let labels = parse_metric(metric).map_err(|e| format!("{line}: {e}"))?;
                pending = Some((labels, start_offsets(offsets)?));
                continue;
            }
            let series = parse_series(line).map_err(|e| format!("{line}: {e}"))?;
            let starts = match pending.take() {
                None => Vec::new(),
                Some((labels, _)) if labels != series.labels => {
                    return Err("@st metric does not match the following sample line".to_owned());
                }
                Some((_, starts)) if starts.len() != series.values.len() => {
                    return Err(format!(
                        "@st line has {} values but sample line has {}",
                        starts.len(),
                        series.values.len()
                    ));
                }
                Some((_, starts)) => starts,
            };
            load.series.insert(series.labels, Loaded { values: series.values, starts });
        }
        match pending {
            Some(_) => Err("@st line has no following sample line".to_owned()),
            None => Ok(load),
        }
    }

    /// Stores everything, or nothing.
    pub(super) fn append_to(&self, storage: &MemoryStorage) -> Result<(), String> {
        let mut appender = storage.appender(SourceId(0), SyncClass::Scrape);
        for (labels, loaded) in &self.series {
            append_series(appender.as_mut(), labels, loaded, self.interval_ms)
                .map_err(|e| format!("loading {labels}: {e}"))?;
        }
        if self.with_custom_buckets {
            self.append_custom_buckets(appender.as_mut())?;
        }
        appender.commit().map(|_| ()).map_err(|e| e.to_string())
    }

    fn append_custom_buckets(&self, appender: &mut dyn Appender) -> Result<(), String> {
        let mut found: BTreeMap<Labels, BTreeMap<i64, ClassicHistogram>> = BTreeMap::new();
        for (labels, loaded) in &self.series {
            let Some((base, part)) = part_of_classic(labels) else { continue };
            let histograms = found.entry(base).or_default();
            for (i, value) in loaded.values.iter().enumerate() {
                let SequenceValue::Float(value) = value else { continue };
                let histogram = histograms.entry(time_ms(i, self.interval_ms)).or_default();
                let added = match part {
                    Part::Bucket(bound) => histogram.bucket(bound, *value),
                    Part::Count => histogram.set_count(*value),
                    Part::Sum => {
                        histogram.set_sum(*value);
                        Ok(())
                    }
                };
                added.map_err(|e| format!("converting {labels}: {e}"))?;
            }
        }
        for (labels, histograms) in found {
            let fail = |e: String| format!("converting {labels}: {e}");
            let series = appender.series(&labels).map_err(|e| fail(e.to_string()))?;
            for (time_ms, classic) in histograms {
                let histogram: Histogram =
                    classic.to_histogram().map_err(|e| fail(e.to_string()))?;
                histogram.validate().map_err(|e| fail(e.to_string()))?;
                appender
                    .append_histogram(series, time_ms, 0, &histogram)
                    .map_err(|e| fail(e.to_string()))?;
            }
        }
        Ok(())
    }
}

fn append_series(
    appender: &mut dyn Appender,
    labels: &Labels,
    loaded: &Loaded,
    interval_ms: i64,
) -> Result<(), AppendError> {
    let series = appender.series(labels)?;
    for (i, value) in loaded.values.iter().enumerate() {
        let time_ms = time_ms(i, interval_ms);
        let start = loaded.starts.get(i).copied().flatten();
        let start_ms = start.map_or(0, |offset| time_ms.saturating_add(offset));
        match value {
            SequenceValue::Omitted => {}
            SequenceValue::Float(value) => appender.append(series, time_ms, start_ms, *value)?,
            SequenceValue::Histogram { value, .. } => {
                appender.append_histogram(series, time_ms, start_ms, value)?;
            }
        }
    }
    Ok(())
}

/// When the sample at a position was taken.
fn time_ms(position: usize, interval_ms: i64) -> i64 {
    interval_ms.saturating_mul(i64::try_from(position).unwrap_or(i64::MAX))
}

/// What a series of a classic histogram says.
#[derive(Clone, Copy)]
enum Part {
    Bucket(f64),
    Count,
    Sum,
}

/// The labels of the whole histogram and what this series says of it.
fn part_of_classic(labels: &Labels) -> Option<(Labels, Part)> {
    let name = labels.metric_name()?;
    let (base, part) = if let Some(base) = name.strip_suffix("_bucket") {
        let bound: f64 = labels.get("le")?.parse().ok()?;
        if bound.is_nan() {
            return None;
        }
        (base, Part::Bucket(bound))
    } else if let Some(base) = name.strip_suffix("_count") {
        (base, Part::Count)
    } else {
        (name.strip_suffix("_sum")?, Part::Sum)
    };
    let mut builder = labels.to_builder();
    builder.set(METRIC_NAME, base).remove("le");
    Some((builder.build(), part))
}

/// Metric and offsets of a line of start timestamps, if it is one.
fn start_line(line: &str) -> Option<(&str, &str)> {
    let (first, rest) = line.split_once([' ', '\t'])?;
    Some((first.strip_suffix("@st")?, rest))
}

fn start_offsets(items: &str) -> Result<Vec<Option<i64>>, String> {
    let mut offsets = Vec::new();
    for item in items.split_whitespace() {
        start_item(item, &mut offsets).map_err(|e| format!("invalid @st item {item:?}: {e}"))?;
        if offsets.len() > MAX_POSITIONS {
            return Err(format!("more than {MAX_POSITIONS} positions"));
        }
    }
    Ok(offsets)
}

fn start_item(item: &str, offsets: &mut Vec<Option<i64>>) -> Result<(), String> {
    let count = |text: &str| match text.parse::<usize>() {
        Ok(count) if count <= MAX_POSITIONS => Ok(count),
        _ => Err("invalid repeat count".to_owned()),
    };
    if let Some(rest) = item.strip_prefix('_') {
        let times = if rest.is_empty() { 1 } else { count(rest.strip_prefix('x').unwrap_or(""))? };
        if times == 0 {
            return Err("invalid repeat count".to_owned());
        }
        offsets.extend(std::iter::repeat_n(None, times));
        return Ok(());
    }
    let (mut offset, rest) = signed_duration(item)?;
    if rest.is_empty() {
        offsets.push(Some(offset));
        return Ok(());
    }
    let (step, rest) = if rest.starts_with('x') {
        (0, rest)
    } else {
        let (step, rest) = signed_duration(rest)?;
        (step, rest)
    };
    let times = count(rest.strip_prefix('x').ok_or("expected x and a count")?)?;
    for i in 0..=times {
        if i > 0 {
            offset = offset.saturating_add(step);
        }
        offsets.push(Some(offset));
    }
    Ok(())
}

/// A duration of a single unit with its sign, in milliseconds, and what is
/// behind it.
fn signed_duration(text: &str) -> Result<(i64, &str), String> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let unit =
        unsigned[digits..].bytes().take_while(|b| b.is_ascii_alphabetic() && *b != b'x').count();
    let (duration, rest) = unsigned.split_at(digits + unit);
    let milliseconds = duration::parse(duration)?;
    Ok((if negative { -milliseconds } else { milliseconds }, rest))
}
