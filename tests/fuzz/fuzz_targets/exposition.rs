//! Pages in sequence through the cache of a target say what each of them says
//! when it is read afresh, and a series that is gone goes stale once.

#![no_main]
#![allow(dead_code, reason = "the server uses the rest")]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;

#[path = "../scraping/config.rs"]
mod config;
#[path = "../scraping/reader.rs"]
mod reader;
#[path = "../../../src/relabel/mod.rs"]
mod relabel;
#[path = "../scraping/scrape.rs"]
mod scrape;

use reader::{Names, Target};
use scrape::exposed::ExposedRules;
use scrape::negotiation::Format;
use scrape::scanner::protobuf::HistogramRules;

/// Ends a page.
const SEPARATOR: u8 = 0xfe;

fuzz_target!(|bytes: &[u8]| {
    let Some((&options, pages)) = bytes.split_first() else { return };
    let bit = |n: u8| options >> n & 1 == 1;
    let format = if bit(0) { Format::OpenMetrics } else { Format::Text };
    let native = bit(1).then(|| ExposedRules {
        read: HistogramRules { native: true, always_classic: bit(4) },
        convert_classic: bit(5),
        type_and_unit_labels: bit(6),
        start_timestamps: bit(7),
        ..ExposedRules::default()
    });
    let (track, honor_labels) = (bit(2), bit(3));
    let target = || Target::new(format, native, track, honor_labels);
    let (mut names, mut known, mut live) = (Names::default(), target(), BTreeSet::new());
    for page in pages.split(|b| *b == SEPARATOR).take(8) {
        let mut fresh = target();
        let expected = fresh.scrape(page, &mut names);
        let got = known.scrape(page, &mut names);
        assert_eq!(got, expected);
        assert_eq!(known.counts.scraped, fresh.counts.scraped);
        assert_eq!(known.counts.kept, fresh.counts.kept);
        // Of a page that fails, other spellings of a series are only known by then
        // if the page before had them.
        assert!(got.is_err() || known.counts.duplicates == fresh.counts.duplicates);
        // An exemplar is offered once.
        assert!(known.rows.exemplars.iter().all(|e| fresh.rows.exemplars.contains(e)));
        if native.is_some() {
            continue;
        }
        let mut tracked: BTreeSet<_> = fresh.rows.series.iter().copied().collect();
        if track {
            tracked.extend(fresh.rows.timed.iter().map(|(_, s, _)| *s));
        }
        let stale: BTreeSet<_> = known.rows.stale.iter().copied().collect();
        assert_eq!(stale.len(), known.rows.stale.len(), "one marker for a series");
        assert_eq!(stale, live.difference(&tracked).copied().collect());
        live = tracked;
    }
});
