//! Any bytes are a page in OpenMetrics text or an error with a line; entries
//! stand one behind the other and their labels are label sets.

#![no_main]
#![allow(dead_code, reason = "the server uses the rest")]

use libfuzzer_sys::fuzz_target;
use narthex_storage::labels::LabelsBuilder;
use narthex_storage::sample::MetricKind;

#[path = "../../../src/scrape/scanner/mod.rs"]
mod scanner;

use scanner::{Entry, RawLabels, openmetrics};

fuzz_target!(|bytes: &[u8]| {
    let page = bytes;
    let (mut at, mut raw, mut kind) = (0, RawLabels::default(), MetricKind::Unknown);
    let lines = 1 + page.iter().filter(|b| **b == b'\n').count();
    loop {
        let (entry, next) = match openmetrics::entry(page, at, &mut raw) {
            Ok(found) => found,
            Err(error) => return assert!((1..=lines).contains(&error.line)),
        };
        match entry {
            Entry::End => return,
            Entry::Type(_, of_family) => kind = of_family,
            Entry::Sample(sample) => {
                assert!(sample.series.start >= at && sample.series.end <= next);
                let mut labels = LabelsBuilder::new();
                if raw.resolve(page, kind, &mut labels).is_ok() {
                    assert!(labels.build().metric_name().is_some_and(|n| !n.is_empty()) || raw.name.is_some());
                }
                let _ = raw.empty_names(page);
                if let Some(exemplar) = &raw.exemplar {
                    let _ = exemplar.labels(page);
                }
            }
            Entry::Help(..) | Entry::Unit(..) | Entry::Comment => {}
        }
        assert!(next > at && next <= page.len(), "an entry has bytes");
        at = next;
    }
});
