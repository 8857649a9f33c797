//! Which samples belong to a metric family, and since when do they count?

use std::collections::HashMap;

use narthex_storage::labels::{Labels, LabelsBuilder, METRIC_NAME};
use narthex_storage::sample::MetricKind;

use super::scanner::{Entry, RawLabels, openmetrics};

/// What a metric's name adds to that of its family; nothing if it is not part
/// of the family.
pub(super) fn suffix_of<'a>(metric: &'a str, family: &str, kind: MetricKind) -> Option<&'a str> {
    use MetricKind as K;
    let suffix = metric.strip_prefix(family)?;
    let is_part = match suffix {
        "" => true,
        "_total" => kind == K::Counter,
        "_created" => has_created(kind),
        "_info" => kind == K::Info,
        "_bucket" => matches!(kind, K::Histogram | K::GaugeHistogram),
        "_count" | "_sum" => matches!(kind, K::Histogram | K::Summary | K::GaugeHistogram),
        "_gcount" | "_gsum" => kind == K::GaugeHistogram,
        _ => false,
    };
    is_part.then_some(suffix)
}

/// The labels that a sample has in common with the line that says since when
/// it counts.
pub(super) fn start_key(labels: &LabelsBuilder, family: &str, kind: MetricKind) -> Option<Labels> {
    if !has_created(kind) || suffix_of(labels.get(METRIC_NAME), family, kind).is_none() {
        return None;
    }
    let mut labels = labels.clone();
    labels.set(METRIC_NAME, family).set("le", "").set("quantile", "");
    Some(labels.build())
}

/// Since when the samples of an OpenMetrics page count, in milliseconds, as
/// its `_created` lines say. Ends at the first line that cannot be read.
pub(super) fn starts_of(page: &[u8]) -> HashMap<Labels, i64> {
    let mut starts = HashMap::new();
    let (mut at, mut raw) = (0, RawLabels::default());
    let mut family = (String::new(), MetricKind::Unknown);
    while let Ok((entry, next)) = openmetrics::entry(page, at, &mut raw) {
        match entry {
            Entry::End => break,
            Entry::Type(name, kind) => family = (String::from_utf8_lossy(name).into_owned(), kind),
            Entry::Sample(sample) if raw.name_ends_with(page, b"_created") => {
                let mut labels = LabelsBuilder::new();
                let key = raw.resolve(page, family.1, &mut labels).ok();
                let key = key.and_then(|()| start_key(&labels, &family.0, family.1));
                #[allow(clippy::cast_possible_truncation, reason = "saturates")]
                starts.extend(key.map(|key| (key, (sample.value * 1000.0) as i64)));
            }
            _ => {}
        }
        at = next;
    }
    starts
}

/// Whether metrics of this type have a time of creation.
pub(super) const fn has_created(kind: MetricKind) -> bool {
    matches!(kind, MetricKind::Counter | MetricKind::Summary | MetricKind::Histogram)
}
