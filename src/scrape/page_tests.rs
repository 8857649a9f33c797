//! Pages in sequence through a cache, against reading each one afresh.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use narthex_query::memory::MemoryStorage;
use narthex_storage::append::{Appendable as _, SourceId, SyncClass};
use narthex_storage::labels::Labels;
use proptest::prelude::*;

use super::*;
use crate::config::{NameValidation, ScrapeLimits};

fn rules() -> PageRules {
    PageRules {
        labels: LabelRules {
            target: Labels::from_pairs([("instance", "i")]),
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

/// A target and the series that its pages made.
struct Target {
    rules: PageRules,
    cache: Cache,
    rows: Rows,
    counts: Counts,
    names: BTreeMap<SeriesRef, String>,
    storage: MemoryStorage,
    flushed: bool,
}

fn open_metrics(reading: Reading<'_>, page: &[u8]) -> Result<(), PageError> {
    reading.open_metrics(page)
}

/// Remembers the labels of series.
struct Naming<'a> {
    inner: Box<dyn Appender>,
    names: &'a mut BTreeMap<SeriesRef, String>,
}

impl Appender for Naming<'_> {
    fn series(&mut self, labels: &Labels) -> Result<SeriesRef, AppendError> {
        let series = self.inner.series(labels)?;
        self.names.insert(series, labels.to_string());
        Ok(series)
    }
    fn append_row(
        &mut self,
        _: i64,
        _: &[SeriesRef],
        _: &[f64],
        _: &mut Vec<(usize, AppendError)>,
    ) {
        unreachable!("pages do not write")
    }
    fn append(&mut self, _: SeriesRef, _: i64, _: i64, _: f64) -> Result<(), AppendError> {
        unreachable!("pages do not write")
    }
    fn append_histogram(
        &mut self,
        _: SeriesRef,
        _: i64,
        _: i64,
        _: &Histogram,
    ) -> Result<(), AppendError> {
        unreachable!("pages do not write")
    }
    fn append_exemplar(&mut self, _: SeriesRef, _: &Exemplar) -> Result<(), AppendError> {
        unreachable!("pages do not write")
    }
    fn set_metadata(&mut self, _: &str, _: &narthex_storage::sample::Metadata) {}
    fn commit(
        self: Box<Self>,
    ) -> Result<narthex_storage::append::Committed, narthex_storage::append::CommitError> {
        unreachable!("pages do not write")
    }
}

impl Target {
    fn new(rules: PageRules) -> Self {
        Self {
            rules,
            cache: Cache::default(),
            rows: Rows::default(),
            counts: Counts::default(),
            names: BTreeMap::new(),
            storage: MemoryStorage::new(),
            flushed: false,
        }
    }

    /// Samples as `labels value time`, sorted; then the stale series.
    fn scrape(&mut self, page: &str) -> (Result<Vec<String>, String>, Vec<String>) {
        self.scrape_with(&format!("{page}\n"), |reading, page| reading.text(page))
    }

    fn scrape_with(
        &mut self,
        page: &str,
        read: impl FnOnce(Reading<'_>, &[u8]) -> Result<(), PageError>,
    ) -> (Result<Vec<String>, String>, Vec<String>) {
        self.counts = Counts::default();
        let inner = self.storage.appender(SourceId(0), SyncClass::Scrape);
        let mut appender = Naming { inner, names: &mut self.names };
        let reading = Reading {
            now_ms: 0,
            rules: &self.rules,
            cache: &mut self.cache,
            appender: &mut appender,
            rows: &mut self.rows,
            counts: &mut self.counts,
        };
        let result = read(reading, page.as_bytes());
        let rows = &mut self.rows;
        self.flushed = result.is_err() && self.cache.fail(&mut rows.stale);
        let name = |s: &SeriesRef| self.names[s].clone();
        let plain = rows.series.iter().zip(&rows.values).map(|(s, v)| format!("{} {v:?}", name(s)));
        let timed = rows.timed.iter().map(|(t, s, v)| format!("{} {v:?} {t}", name(s)));
        let mut samples: Vec<String> = plain.chain(timed).collect();
        samples.sort();
        let mut stale: Vec<String> = rows.stale.iter().map(name).collect();
        stale.sort();
        (result.map(|()| samples).map_err(|e| e.to_string()), stale)
    }
}

#[test]
fn known_lines_need_no_labels() {
    let mut target = Target::new(rules());
    let (samples, stale) = target.scrape("# TYPE a counter\na{x=\"1\"} 1\nb 2\nc 3 1000\n");
    let expected = [
        "{__name__=\"a\", instance=\"i\", x=\"1\"} 1.0",
        "{__name__=\"b\", instance=\"i\"} 2.0",
        "{__name__=\"c\", instance=\"i\"} 3.0 1000",
    ];
    assert_eq!((samples.as_deref(), stale.len()), (Ok(&expected.map(str::to_owned)[..]), 0));
    assert_eq!((target.counts.scraped, target.counts.added), (3, 3));
    let (samples, _) = target.scrape("# TYPE a counter\na{x=\"1\"} 1\nb 2\nc 3 1000\n");
    assert_eq!(samples.as_deref(), Ok(&expected.map(str::to_owned)[..]));
    assert_eq!((target.counts.scraped, target.counts.added), (3, 0));
    assert!(!target.counts.metadata_changed);
    // An untracked series does not go stale, a tracked one does.
    let (_, stale) = target.scrape("# TYPE a counter\na{x=\"1\"} 1");
    assert_eq!(stale, ["{__name__=\"b\", instance=\"i\"}"]);
}

#[test]
fn a_bad_line_fails_the_page_and_keeps_the_cache() {
    let mut target = Target::new(rules());
    assert!(target.scrape("a 1\nb 2").0.is_ok());
    let (result, stale) = target.scrape("b 2\na 1\nc 3\nbroken");
    assert_eq!(
        result,
        Err("expected value after metric, got \"\\n\" (\"INVALID\") while parsing: \"broken\\n\" (line 4)".to_owned())
    );
    assert_eq!(stale.len(), 2);
    assert_eq!((target.counts.scraped, target.counts.added), (3, 1));
    let (_, _) = target.scrape("b 2\na 1\nc 3\nbroken");
    assert_eq!(target.counts.added, 0, "it failed with them before");
    let (_, stale) = target.scrape("broken");
    assert!(stale.is_empty(), "they are stale already");
    let (samples, stale) = target.scrape("a 1");
    assert_eq!((samples.map(|s| s.len()), stale.len(), target.counts.added), (Ok(1), 0, 0));
}

#[test]
fn duplicates_keep_the_first_sample() {
    let mut target = Target::new(rules());
    for _ in 0..3 {
        let (samples, _) = target.scrape("a 1\nb 1\na 2\na 3 5");
        let expected = [
            "{__name__=\"a\", instance=\"i\"} 1.0",
            "{__name__=\"a\", instance=\"i\"} 3.0 5",
            "{__name__=\"b\", instance=\"i\"} 1.0",
        ];
        assert_eq!(samples.as_deref(), Ok(&expected.map(str::to_owned)[..]));
        assert_eq!((target.counts.duplicates, target.counts.kept), (1, 4));
    }
    let (samples, stale) = target.scrape("b 1\na 2");
    assert_eq!((samples.map(|s| s.len()), stale.len(), target.counts.duplicates), (Ok(2), 0, 0));
}

#[test]
fn the_sample_limit_counts_what_is_kept() {
    let mut target = Target::new(PageRules { sample_limit: 2, ..rules() });
    assert!(target.scrape("a 1\nb 2").0.is_ok());
    let (result, stale) = target.scrape("a 1\nb 2\nc 3\nd 4");
    assert_eq!(result, Err("sample limit exceeded".to_owned()));
    assert_eq!((target.counts.scraped, target.counts.kept, stale.len()), (4, 4, 2));
}

#[test]
fn lines_of_failed_pages_are_new_once_and_then_forgotten() {
    let mut target = Target::new(PageRules { sample_limit: 2, ..rules() });
    for (added, flushed) in [(2, false), (0, false)] {
        assert!(target.scrape("a 1\nb 2\nc 3").0.is_err());
        assert_eq!((target.counts.added, target.flushed), (added, flushed));
    }
    // Always other labels: what is remembered has its limit.
    let mut flushes = 0;
    for page in 0..12 {
        let lines: Vec<String> =
            (0..200).map(|i| format!("x{{p=\"{page}\",i=\"{i}\"}} 1")).collect();
        assert!(target.scrape(&lines.join("\n")).0.is_err());
        flushes += u32::from(target.flushed);
    }
    assert_eq!(flushes, 2);
    assert!(target.scrape("c 3").0.is_ok());
    assert!(target.scrape("a 1\nb 2\nc 3").0.is_err());
    assert_eq!(target.counts.added, 2, "a good page ends it");
}

/// Found by fuzzing: an empty text stood for all lines that begin with a blank.
#[test]
fn a_comment_behind_blanks_is_no_other_line() {
    let mut target = Target::new(rules());
    assert!(target.scrape(" # nothing").0.is_ok());
    assert!(target.scrape("   +").0.is_err());
    // As in Prometheus, blanks before a name belong to it.
    let (samples, _) = target.scrape(" a 1");
    assert_eq!(samples.expect("valid"), ["{__name__=\" a\", instance=\"i\"} 1.0"]);
}

/// Found by fuzzing.
#[test]
fn a_second_timed_sample_ends_nothing() {
    let mut target = Target::new(rules());
    for page in ["a 1 4\na 1 4\na 2\n", "b 1\na 1 2\na 1 4\n", "b 1\na 1 2\na 1 4\n"] {
        let (samples, stale) = target.scrape(page);
        assert!(samples.is_ok() && stale.is_empty(), "{page:?}: {stale:?}");
    }
}

/// Found by fuzzing: the second text was taken for a second sample.
#[test]
fn the_second_text_of_a_series_counts_where_the_first_has_a_time() {
    let mut target = Target::new(PageRules { track_timestamps_staleness: true, ..rules() });
    let (samples, _) = target.scrape("b{} 4\nb 21\n");
    assert_eq!(samples.expect("valid"), ["{__name__=\"b\", instance=\"i\"} 4.0"]);
    assert_eq!(target.counts.duplicates, 1);
    let (samples, _) = target.scrape("b{} 0 4\nb 21\n");
    let b = |end: &str| format!("{{__name__=\"b\", instance=\"i\"}} {end}");
    assert_eq!(samples.expect("valid"), [b("0.0 4"), b("21.0")]);
    assert_eq!(target.counts.duplicates, 0);
    let (samples, stale) = target.scrape("b{} 5\nb 22\n");
    assert_eq!((samples.expect("valid"), stale.len()), (vec![b("5.0")], 0));
    assert_eq!(target.counts.duplicates, 1);
}

/// Found by fuzzing.
#[test]
fn a_sample_that_is_left_out_keeps_no_series_alive() {
    let mut target = Target::new(rules());
    assert!(target.scrape("b{} 4\nb 20 4\nb 2\nc 1\n").0.is_ok());
    let (samples, stale) = target.scrape("c 1\nb 20 4\nb 2\n");
    assert_eq!(samples.expect("valid").len(), 2);
    assert_eq!(stale, ["{__name__=\"b\", instance=\"i\"}"]);
}

/// Found by fuzzing: such a line was taken for what comes behind it.
#[test]
fn lines_of_blanks_say_nothing() {
    let mut target = Target::new(rules());
    for value in [1, 2] {
        let (samples, _) = target.scrape(&format!(" \n# x\n \t\n \na {value}\n \nb {value}\n \n"));
        assert_eq!(samples.expect("valid").len(), 2);
        assert_eq!(target.counts.duplicates, 0);
    }
}

#[test]
fn the_far_future_is_out_of_bounds() {
    let mut target = Target::new(rules());
    let (samples, _) = target.scrape("a 1 600000\nb 1 600001");
    assert_eq!((samples.map(|s| s.len()), target.counts.out_of_bounds), (Ok(1), 1));
    let mut target = Target::new(PageRules { honor_timestamps: false, ..rules() });
    assert_eq!(target.scrape("a 1 600001").0.map(|s| s.len()), Ok(1));
}

#[test]
fn two_spellings_of_a_series_stay_known_when_the_order_changes() {
    let mut target = Target::new(rules());
    // The blanks, which Prometheus takes for a part of the name, keep the line
    // from being recognised at its position.
    let page = "  b 1\nsame 1\nsame{} 2\na{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 2";
    for round in 0..3 {
        let (samples, stale) = target.scrape(page);
        let expected = [
            "{__name__=\"  b\", instance=\"i\"} 1.0",
            "{__name__=\"a\", instance=\"i\", x=\"1\", y=\"2\"} 1.0",
            "{__name__=\"same\", instance=\"i\"} 1.0",
        ];
        assert_eq!(samples.as_deref(), Ok(&expected.map(str::to_owned)[..]));
        assert_eq!((stale.len(), target.counts.duplicates), (0, 2));
        // At first each spelling counts, as in Prometheus.
        assert_eq!(target.counts.added, if round == 0 { 5 } else { 0 });
    }
}

#[test]
fn one_series_under_two_spellings_is_not_stale() {
    let mut target = Target::new(rules());
    target.scrape("a{x=\"1\",y=\"2\"} 1").0.expect("valid");
    let (_, stale) = target.scrape("a{y=\"2\",x=\"1\"} 1");
    assert!(stale.is_empty());
    let (samples, _) = target.scrape("a{y=\"2\", x=\"1\"}   1\n{\"a\",x=\"1\n\"} 1\n");
    assert_eq!(samples.map(|s| s.len()), Ok(2));
    let (samples, stale) = target.scrape("a{y=\"2\", x=\"1\"}   1\n{\"a\",x=\"1\n\"} 1\n");
    assert_eq!((samples.map(|s| s.len()), stale.len(), target.counts.added), (Ok(2), 0, 0));
}

#[test]
fn openmetrics_pages_are_cached_alike() {
    let mut target = Target::new(rules());
    let page =
        "# TYPE a counter\na_total{x=\"}\"} 1 # {t=\"1\"} 2\na_total 2 1.5\nb{y=\"z\"} 3\n# EOF";
    for round in 0..3 {
        let (samples, stale) = target.scrape_with(page, open_metrics);
        let expected = [
            "{__name__=\"a_total\", instance=\"i\", x=\"}\"} 1.0",
            "{__name__=\"a_total\", instance=\"i\"} 2.0 1500",
            "{__name__=\"b\", instance=\"i\", y=\"z\"} 3.0",
        ];
        assert_eq!(samples.as_deref(), Ok(&expected.map(str::to_owned)[..]));
        // An exemplar is offered when it is new, not with every page.
        let exemplars: Vec<f64> = target.rows.exemplars.iter().map(|e| e.1.value).collect();
        assert_eq!(
            (stale.len(), exemplars.as_slice()),
            (0, if round == 0 { &[2.0][..] } else { &[] })
        );
        assert_eq!(target.counts.added, if round == 0 { 3 } else { 0 });
    }
    let other = page.replace("} 2\n", "} 7 1.25\n");
    for _ in 0..2 {
        // A page that fails has offered nothing.
        let cut = other.replace("# EOF", "");
        assert!(target.scrape_with(&cut, open_metrics).0.is_err());
        assert!(target.rows.exemplars.is_empty());
    }
    assert!(target.scrape_with(&other, open_metrics).0.is_ok());
    let exemplar = &target.rows.exemplars[0].1;
    assert_eq!((exemplar.value, exemplar.timestamp_ms), (7.0, 1250));
    let (error, stale) = target.scrape_with("b{y=\"z\"} 3\n", open_metrics);
    assert_eq!(error, Err("data does not end with # EOF (line 2)".to_owned()));
    assert_eq!(stale.len(), 2);
    let (error, _) = target.scrape_with("b{y=\"z\"} 3\n\n# EOF", open_metrics);
    assert!(error.is_err_and(|e| e.contains("(line 2)")));
    assert!(target.scrape_with("# EOF\n", open_metrics).0.is_ok());
}

fn line() -> impl Strategy<Value = String> {
    let spellings = ["{}", "{x=\"1\"}", "{x=\"}\"}", "{x=\"a b\",}", "{ y=\"\\\"\"}", "", ""];
    let values = ["1", "2.5", "NaN", "-Inf", "1e3", "0.1 5", "7  8", "\t9"];
    prop_oneof![
        10 => ("[a-d]", prop::sample::select(spellings.to_vec()), prop::sample::select(values.to_vec()))
            .prop_map(|(n, l, v)| format!("{n}{l} {v}")),
        1 => Just(String::new()),
        1 => Just("# TYPE a histogram".to_owned()),
        1 => Just("# HELP a some }".to_owned()),
        1 => Just("{\"u.8\"} 1".to_owned()),
        1 => Just("a{x=\"1\n2\"} 3".to_owned()),
        1 => Just("a{x=} 3".to_owned()),
    ]
}

proptest! {
    #[test]
    fn pages_through_a_cache_are_pages_read_afresh(
        pages in prop::collection::vec(prop::collection::vec(line(), 0..8), 1..6),
        track in any::<bool>(),
    ) {
        let rules = || PageRules { track_timestamps_staleness: track, ..rules() };
        let mut target = Target::new(rules());
        let mut live = BTreeSet::new();
        for page in pages {
            let page = page.join("\n");
            let mut fresh = Target::new(rules());
            let (expected, _) = fresh.scrape(&page);
            let (got, stale) = target.scrape(&page);
            prop_assert_eq!(&got, &expected);
            prop_assert_eq!(target.counts.scraped, fresh.counts.scraped);
            prop_assert_eq!(target.counts.duplicates, fresh.counts.duplicates);
            let tracked: BTreeSet<String> = got
                .unwrap_or_default()
                .iter()
                .filter(|s| track || !s.ends_with([' ', '5', '8']) || s.ends_with("2.5"))
                .filter_map(|s| s.rfind('}').map(|end| s[..=end].to_owned()))
                .collect();
            let gone: Vec<String> = live.difference(&tracked).cloned().collect();
            prop_assert_eq!(stale, gone);
            live = tracked;
        }
    }
}

/// Pages that prometheus-parse reads: no braces, commas, quotes or escapes in
/// values, types that do not regroup samples.
fn simple_page() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| format!("{v}")),
        any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| format!("{v:e}")),
        (any::<i32>(), 0..1000u32).prop_map(|(a, b)| format!("{a}.{b}")),
        Just("NaN".to_owned()),
        Just("+Inf".to_owned()),
    ];
    let labels = prop::collection::btree_map("[a-z_]{1,6}", "[a-zA-Z0-9 /:.-]{1,12}", 0..4);
    let line = ("[a-z_]{1,8}", labels, number).prop_map(|(name, labels, number)| {
        let labels: Vec<String> = labels.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
        if labels.is_empty() {
            return format!("{name} {number}");
        }
        format!("{name}{{{}}} {number}", labels.join(","))
    });
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn pages_that_prometheus_parse_reads_are_read_alike(page in simple_page()) {
        let mut rules = rules();
        rules.labels.target = Labels::empty();
        let mut target = Target::new(rules);
        let mut expected = BTreeMap::new();
        let lines = page.lines().map(|l| Ok(l.to_owned()));
        for sample in prometheus_parse::Scrape::parse(lines).expect("reads").samples {
            let pairs = sample.labels.iter().map(|(n, v)| (n.clone(), v.clone()));
            let labels = Labels::from_pairs(pairs.chain([("__name__".to_owned(), sample.metric)]));
            let prometheus_parse::Value::Untyped(value) = sample.value else {
                panic!("there are no types on the page")
            };
            // Of two samples of a series we keep the first.
            expected.entry(labels.to_string()).or_insert(format!("{value:?}"));
        }
        for _ in 0..2 {
            let (samples, _) = target.scrape(&page);
            let expected: Vec<String> = expected.iter().map(|(l, v)| format!("{l} {v}")).collect();
            let mut samples = samples.expect("valid");
            samples.sort();
            let mut expected = expected;
            expected.sort();
            prop_assert_eq!(samples, expected);
        }
    }
}
