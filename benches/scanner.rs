//! How fast is a known page read? Bytes per second of the page reader with
//! its cache, of the exact parser alone, and of prometheus-parse.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use narthex::config::{NameValidation, ScrapeLimits};
use narthex::scrape::page::{Counts, PageRules, Reading, Rows};
use narthex::scrape::scanner::{Entry, RawLabels, text};
use narthex::scrape::{Cache, LabelRules};
use narthex_query::memory::MemoryStorage;
use narthex_storage::append::{Appendable as _, SourceId, SyncClass};
use narthex_storage::labels::Labels;

/// A page with the look of a node exporter's: `families` of ten series.
fn page(families: usize) -> Vec<u8> {
    let mut page = String::new();
    for f in 0..families {
        page.push_str(&format!("# HELP node_family_{f}_total What family {f} counts.\n"));
        page.push_str(&format!("# TYPE node_family_{f}_total counter\n"));
        for s in 0..10 {
            let value = match s {
                0..=5 => format!("{}", f * s),
                6..=7 => format!("{}.{}", f * 31, s * 17),
                _ => format!("{:e}", (f + s) as f64 * 1234.567),
            };
            page.push_str(&format!(
                "node_family_{f}_total{{device=\"device{s}\",mode=\"some_mode\"}} {value}\n"
            ));
        }
    }
    page.into_bytes()
}

fn rules() -> PageRules {
    PageRules {
        labels: LabelRules {
            target: Labels::from_pairs([("instance", "host:9100"), ("job", "node")]),
            honor_labels: false,
            relabel: Arc::default(),
            limits: ScrapeLimits::default(),
            validation: NameValidation::Utf8,
        },
        honor_timestamps: true,
        track_timestamps_staleness: false,
        sample_limit: 0,
        hash_key: 1,
    }
}

fn scanner(c: &mut Criterion) {
    let page = page(86);
    let mut group = c.benchmark_group("scanner");
    group.throughput(Throughput::Bytes(page.len() as u64));

    let (rules, mut cache, mut rows) = (rules(), Cache::default(), Rows::default());
    let storage = MemoryStorage::new();
    let mut appender = storage.appender(SourceId(0), SyncClass::Scrape);
    group.bench_function("known page", |b| {
        b.iter(|| {
            let mut counts = Counts::default();
            let reading = Reading {
                now_ms: 0,
                rules: &rules,
                cache: &mut cache,
                appender: appender.as_mut(),
                rows: &mut rows,
                counts: &mut counts,
            };
            reading.text(&page).expect("a valid page");
            black_box(rows.values.len())
        });
    });

    group.bench_function("exact parser", |b| {
        b.iter(|| {
            let (mut at, mut raw, mut sum) = (0, RawLabels::default(), 0.0);
            loop {
                let (entry, next) = text::entry(&page, at, &mut raw).expect("a valid page");
                at = next;
                match entry {
                    Entry::End => break sum,
                    Entry::Sample(sample) => sum += sample.value,
                    _ => {}
                }
            }
        });
    });

    let text = String::from_utf8(page.clone()).expect("ASCII");
    group.bench_function("prometheus-parse", |b| {
        b.iter(|| {
            let lines = text.lines().map(|l| Ok(l.to_owned()));
            prometheus_parse::Scrape::parse(lines).expect("a valid page").samples.len()
        });
    });
    group.finish();
}

criterion_group!(benches, scanner);
criterion_main!(benches);
