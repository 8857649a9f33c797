//! The life of series, from their first sample to their last day.

use super::*;
use crate::engine::fs::Disk;

const GO_ON: fn() -> io::Result<()> = || Ok(());

const LIMITS: SeriesLimits =
    SeriesLimits { tail: 192 << 10, unused: 8 << 10, cache_bytes: 4 << 20 };

fn open(root: &Path) -> Series {
    Series::open(Arc::new(Disk), root, LIMITS).expect("open").0
}

/// Ends all series but these.
fn forget(series: &Series, used: &RoaringBitmap, between: Between<'_>) -> io::Result<()> {
    series.rewrite_ended(series.end_unused(used), between)
}

fn set(i: u32) -> Labels {
    Labels::from_pairs([("__name__", format!("m{}", i % 7)), ("pod", format!("pod-{}", i / 100))])
        .to_builder()
        .set("i", &i.to_string())
        .build()
}

fn create(series: &Series, range: std::ops::Range<u32>) {
    for i in range {
        assert_eq!(series.find_or_create(&set(i), true), Ok((i, true)));
    }
    series.append_new().expect("append");
    series.sync().expect("sync");
}

fn range(ids: std::ops::Range<u32>) -> RoaringBitmap {
    let mut all = RoaringBitmap::new();
    all.insert_range(ids);
    all
}

/// All series of a range are there, and found in each way.
fn check(series: &Series, ids: std::ops::Range<u32>) {
    for id in ids.clone().step_by(97) {
        assert_eq!(series.labels(id).expect("read"), set(id));
        assert_eq!(
            series.find_in_segments(&set(id)).expect("read").or(series.find_in_memory(&set(id), 0)),
            Some(id)
        );
    }
    let pod = Matcher::equal("pod", "pod-3");
    let found = series.select(std::slice::from_ref(&pod), &range(ids.clone())).expect("read");
    assert_eq!(found, &range(300..400) & &range(ids.clone()));
    let not = Matcher::new(crate::labels::MatchOp::NotRegex, "__name__", "m[1-6]").expect("valid");
    let found = series.select(&[not], &range(ids.clone())).expect("read");
    assert_eq!(found, ids.clone().filter(|i| i % 7 == 0).collect::<RoaringBitmap>());
    assert_eq!(series.label_names(&found, 0).expect("read"), ["__name__", "i", "pod"]);
    assert_eq!(
        series.label_values("pod", &range(ids.start + 90..ids.start + 110), 0).expect("read").len(),
        2
    );
    assert_eq!(
        series.label_values("pod", &range(ids.start + 90..ids.start + 110), 1).expect("read").len(),
        1
    );
}

#[test]
fn what_is_out_of_use_costs_no_memory_and_stays_known() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let series = open(dir.path());
    let (mut table_bytes, mut index_bytes) = (Vec::new(), Vec::new());
    // Of 10,000 series in use, all but 500 are others each time.
    for round in 0..12u32 {
        create(&series, round * 10_000..(round + 1) * 10_000);
        let in_use = &range(0..500) | &range(round * 10_000..(round + 1) * 10_000);
        series.collect(|| in_use.clone(), true, &GO_ON).expect("collect");
        while series.merge_segments(&GO_ON).expect("merge") {}
        let figures = series.figures();
        table_bytes.push(figures.table_bytes);
        index_bytes.push(figures.index_bytes);
        assert_eq!(figures.series, u64::from(round + 1) * 10_000);
        assert!(figures.in_memory <= 20_500, "{} in round {round}", figures.in_memory);
    }
    check(&series, 0..120_000);
    assert!(series.figures().segments <= 8, "{:?}", series.figures());
    let largest = |bytes: &[u64]| bytes.iter().copied().max().unwrap_or(0);
    assert!(largest(&table_bytes[6..]) <= largest(&table_bytes[..6]) * 11 / 10, "{table_bytes:?}");
    assert!(largest(&index_bytes[6..]) <= largest(&index_bytes[..6]) * 11 / 10, "{index_bytes:?}");
    // What comes back has its id, and is in memory again.
    assert_eq!(series.find_in_memory(&set(7_000), 0), None);
    assert_eq!(series.find_or_create(&set(7_000), false), Ok((7_000, false)));
    assert_eq!(series.find_in_memory(&set(7_000), 0), Some(7_000));
    assert_eq!(series.find_or_create(&set(999_999), false), Err(AppendError::SeriesLimit));
    drop(series);
    let again = open(dir.path());
    assert_eq!(again.next_id(), 120_000);
    check(&again, 0..120_000);
    assert_eq!(again.find_or_create(&set(120_000), true), Ok((120_000, true)));
}

#[test]
fn series_without_samples_leave_the_disk() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let series = open(dir.path());
    create(&series, 0..20_000);
    series.collect(RoaringBitmap::new, true, &GO_ON).expect("too new");
    assert!(series.collect(RoaringBitmap::new, true, &GO_ON).expect("collect"));
    let before = series.figures();
    forget(&series, &range(15_000..20_000), &GO_ON).expect("forget");
    let after = series.figures();
    assert_eq!(after.series, 5_000);
    assert!(after.file_bytes < before.file_bytes / 3, "{before:?} {after:?}");
    assert_eq!(series.labels(3).expect("read"), Labels::empty());
    assert!(series.forgotten().contains(3) && !series.forgotten().contains(15_000));
    check(&series, 15_000..20_000);
    // Who comes again is a new series; ids are not used twice, not even after
    // a start.
    assert_eq!(series.find_or_create(&set(3), true), Ok((20_000, true)));
    series.append_new().expect("append");
    forget(&series, &RoaringBitmap::new(), &GO_ON).expect("forget");
    drop(series);
    let again = open(dir.path());
    assert_eq!((again.figures().series, again.next_id()), (1, 20_001));
}

#[test]
fn a_start_finds_its_way_whatever_was_left_half_done() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let series = open(dir.path());
    create(&series, 0..20_000);
    let tail = std::fs::read(dir.path().join(series.file().name())).expect("read");
    series.collect(RoaringBitmap::new, true, &GO_ON).expect("too new");
    assert!(series.collect(RoaringBitmap::new, true, &GO_ON).expect("collect"));
    create(&series, 20_000..20_100);
    let first = series.segments()[0].name.clone();
    let segment = std::fs::read(dir.path().join(&first)).expect("read");
    series.rewrite(&series.segments(), &range(0..20_000), &GO_ON).expect("rewrite");
    drop(series);
    // The file before the collection, the segment before the merge, and one
    // that was not finished.
    std::fs::write(dir.path().join("series/00000001.series"), tail).expect("write");
    std::fs::write(dir.path().join(&first), &segment).expect("write");
    std::fs::write(dir.path().join("series/00000009.tmp"), &segment[..1000]).expect("write");
    let again = open(dir.path());
    assert_eq!((again.next_id(), again.figures().series), (20_100, 20_100));
    check(&again, 0..20_100);
    let names = Disk.list(&dir.path().join("series")).expect("list");
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn damage_of_a_segment_is_worked_around() {
    let dir = tempfile::tempdir().expect("temporary directory");
    {
        let series = open(dir.path());
        create(&series, 0..10_000);
        series.collect(RoaringBitmap::new, true, &GO_ON).expect("too new");
        assert!(series.collect(RoaringBitmap::new, true, &GO_ON).expect("collect"));
    }
    let path = dir.path().join("series/00000001.segment");
    let bytes = std::fs::read(&path).expect("read");
    // Somewhere in the terms: behind blocks and buckets.
    let mut damaged = bytes.clone();
    for byte in &mut damaged[bytes.len() * 2 / 3..bytes.len() * 2 / 3 + 40_000] {
        *byte = 0xa5;
    }
    std::fs::write(&path, &damaged).expect("write");
    let series = open(dir.path());
    check_selects(&series);
    let damages = series.take_damages();
    assert!(!damages.is_empty());
    assert!(damages.iter().all(|d| d.file == "series/00000001.segment"), "{damages:?}");
    check(&series, 0..10_000);
    series.rewrite(&series.segments(), &range(0..10_000), &GO_ON).expect("rewrite from labels");
    series.take_damages();
    check(&series, 0..10_000);
    assert_eq!(series.take_damages(), []);
    // All of it.
    drop(series);
    let name = open(dir.path()).segments()[0].name.clone();
    std::fs::write(dir.path().join(&name), vec![0; 50_000]).expect("write");
    let series = open(dir.path());
    let damages = series.take_damages();
    assert_eq!((damages.len(), series.next_id()), (1, 10_000), "{damages:?}");
    assert_eq!(series.labels(1).expect("nothing"), Labels::empty());
}

fn check_selects(series: &Series) {
    for i in (0..10_000).step_by(501) {
        let one = Matcher::equal("i", i.to_string());
        let found = series.select(&[one], &range(0..10_000)).expect("read");
        assert_eq!(found.iter().collect::<Vec<u32>>(), [i]);
    }
}

#[test]
fn long_work_can_be_ended() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let series = open(dir.path());
    create(&series, 0..20_000);
    let stop = || Err(io::ErrorKind::Interrupted.into());
    series.collect(RoaringBitmap::new, true, &GO_ON).expect("too new");
    series.collect(RoaringBitmap::new, true, &stop).expect_err("ended");
    assert_eq!((series.figures().in_memory, series.figures().segments), (20_000, 0));
    assert!(series.collect(RoaringBitmap::new, true, &GO_ON).expect("collect"));
    forget(&series, &range(19_000..20_000), &stop).expect_err("ended");
    check(&series, 19_000..20_000);
    forget(&series, &range(19_000..20_000), &GO_ON).expect("forget");
    assert_eq!(series.figures().series, 1_000);
}
