//! A segment against what it was made of.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::engine::fs::Disk;
use crate::index::{Index, Terms as _, select};
use crate::labels::{MatchOp, Matcher};
use crate::series::SeriesTable;
use crate::series::symbols::tag_of;

fn pages() -> Pages {
    Cache::new(1 << 20)
}

fn write(root: &Path, number: u64, series: &BTreeMap<u32, Labels>, end: u32) -> Segment {
    std::fs::create_dir_all(root.join("series")).expect("directory");
    let first = series.keys().next().copied().unwrap_or(0);
    let mut table = SeriesTable::starting_at(first);
    for (id, labels) in series {
        assert!(table.insert_as(*id, labels));
    }
    let mut index = Index::starting_at(first);
    index.catch_up(&table, u32::MAX);
    let all: Vec<(u32, Labels)> = series.iter().map(|(id, l)| (*id, l.clone())).collect();
    let terms = index.sorted(&table);
    write_all(&Disk, root, number, all.into_iter(), terms, first..end, &|| Ok(())).expect("segment")
}

fn check(segment: &Segment, series: &BTreeMap<u32, Labels>, pages: &Pages) {
    for (id, labels) in series {
        let tag = tag_of(labels.stable_hash());
        assert_eq!(segment.labels(*id, pages).expect("read").as_ref(), Some(labels));
        assert_eq!(segment.find(labels, tag, pages).expect("read"), Some(*id));
    }
    assert_eq!(segment.labels(u32::MAX, pages).expect("read"), None);
    let nobody = Labels::from_pairs([("nobody", "1")]);
    assert_eq!(segment.find(&nobody, tag_of(nobody.stable_hash()), pages).expect("read"), None);
    let mut seen = BTreeMap::new();
    let lost = segment.each(pages, |id, labels| {
        seen.insert(id, labels);
        Ok(())
    });
    assert!(lost.expect("read").is_empty());
    assert_eq!(&seen, series);
}

fn set() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map("[xyz]", "[abc]{1,3}", 1..4).prop_map(Labels::from_pairs)
}

/// Label sets, each once, with ids that have gaps.
fn series(max: usize) -> impl Strategy<Value = BTreeMap<u32, Labels>> {
    let sets = proptest::collection::hash_set(set(), 1..max);
    (sets, proptest::collection::vec(1u32..4, max)).prop_map(|(sets, gaps)| {
        let ids = gaps.iter().scan(0, |id, gap| {
            *id += gap;
            Some(*id)
        });
        ids.zip(sets).collect()
    })
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let text = prop_oneof![
        Just(""),
        Just("a"),
        Just("ab"),
        Just("a|b"),
        Just("a|"),
        Just(".*"),
        Just(".+"),
        Just("a.*")
    ];
    let op = prop_oneof![
        Just(MatchOp::Equal),
        Just(MatchOp::NotEqual),
        Just(MatchOp::Regex),
        Just(MatchOp::NotRegex)
    ];
    ("[w-z]", op, text).prop_map(|(n, op, v)| Matcher::new(op, n, v).expect("valid"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn segments_and_merges_answer_as_their_series_do(
        all in series(400),
        cuts in proptest::collection::vec(0usize..400, 0..4),
        keep in any::<u64>(),
        matchers in proptest::collection::vec(matcher(), 1..4),
    ) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let pages = pages();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(all.len())).collect();
        cuts.extend([0, all.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let entries: Vec<(u32, Labels)> = all.clone().into_iter().collect();
        let mut sources = Vec::new();
        for (number, cut) in cuts.windows(2).enumerate() {
            let part = entries[cut[0]..cut[1]].iter().cloned().collect();
            let end = entries.get(cut[1]).map_or(u32::MAX, |e| e.0);
            let segment = write(dir.path(), number as u64 + 1, &part, end);
            check(&segment, &part, &pages);
            sources.push(Arc::new(segment));
        }
        let kept = |id: u32| keep >> (id % 64) & 1 == 1;
        let keep: RoaringBitmap = all.keys().copied().filter(|id| kept(*id)).collect();
        let merged = merge(&Disk, dir.path(), 99, &sources, &keep, &pages, &|| Ok(())).expect("merge");
        let expected: BTreeMap<u32, Labels> = all.into_iter().filter(|(id, _)| kept(*id)).collect();
        check(&merged, &expected, &pages);
        let found = select(&merged.terms(&pages), &matchers, merged.ids.clone()).expect("read");
        let matches = |labels: &Labels| {
            matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")))
        };
        let wanted: Vec<u32> = expected.iter().filter(|(_, l)| matches(l)).map(|(i, _)| *i).collect();
        prop_assert_eq!(found.iter().collect::<Vec<u32>>(), wanted);
        let mut values = Vec::new();
        merged.terms(&pages).values("x", &merged.ids, &mut |value, count| {
            values.push((value.to_owned(), count));
            true
        }).expect("read");
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for value in expected.values().filter_map(|l| l.get("x")) {
            *counted.entry(value.to_owned()).or_default() += 1;
        }
        prop_assert_eq!(values, counted.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_flipped_byte_is_seen_and_nothing_wrong_is_said() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let set = |i: u32| Labels::from_pairs([("a", (i % 3).to_string()), ("b", i.to_string())]);
    let series: BTreeMap<u32, Labels> = (5..90).map(|i| (i, set(i))).collect();
    write(dir.path(), 1, &series, 90);
    let path = dir.path().join(name_of(1, EXTENSION));
    let bytes = std::fs::read(&path).expect("read");
    let a = Matcher::equal("a", "1");
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x04;
        std::fs::write(&path, &damaged).expect("write");
        let pages = pages();
        let segment = Segment::open(&Disk, dir.path(), 1).expect("what it needs is there twice");
        let mut errors = segment.healed.len() as u32;
        for (id, labels) in &series {
            match segment.labels(*id, &pages) {
                Ok(found) => assert_eq!(found.as_ref(), Some(labels), "byte {at}"),
                Err(_) => errors += 1,
            }
            match segment.find(labels, tag_of(labels.stable_hash()), &pages) {
                Ok(found) => assert_eq!(found, Some(*id), "byte {at}"),
                Err(_) => errors += 1,
            }
        }
        let terms = segment.terms(&pages);
        for name in ["a", "b"] {
            errors += u32::from(terms.any(name).is_err());
            errors += u32::from(terms.values(name, &segment.ids, &mut |_, _| true).is_err());
        }
        match select(&terms, std::slice::from_ref(&a), segment.ids.clone()) {
            Ok(found) => assert!(found.iter().all(|id| id % 3 == 1) && found.len() == 28),
            Err(_) => errors += 1,
        }
        assert!(errors > 0, "byte {at} of {}", bytes.len());
    }
}
