//! Any bytes are a protobuf page or an error, and a second look through the
//! cache finds the same samples; histograms that come out are valid.

#![no_main]
#![allow(dead_code, reason = "the server uses the rest")]

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
use scrape::metadata::Interner;
use scrape::negotiation::Format;
use scrape::scanner::protobuf::HistogramRules;

fuzz_target!(|bytes: &[u8]| {
    let Some((&options, page)) = bytes.split_first() else { return };
    let bit = |n: u8| options >> n & 1 == 1;
    let native = ExposedRules {
        read: HistogramRules { native: bit(0), always_classic: bit(1) },
        convert_classic: bit(2),
        bucket_limit: if bit(3) { 4 } else { 0 },
        min_bucket_factor: if bit(4) { 2.0 } else { 0.0 },
        type_and_unit_labels: bit(5),
        start_timestamps: bit(6),
    };
    let mut names = Names::default();
    let mut target = Target::new(Format::Protobuf, Some(native), false, false);
    let first = target.scrape(page, &mut names);
    for (_, _, _, histogram) in &target.rows.histograms {
        histogram.validate().expect("what is stored is valid");
        let buckets = histogram.positive_buckets.len() + histogram.negative_buckets.len();
        assert!(native.bucket_limit == 0 || buckets <= 4);
    }
    assert_eq!(target.scrape(page, &mut names), first);
    let _ = scrape::exposed::protobuf_metadata(page, &Interner::default());
});
