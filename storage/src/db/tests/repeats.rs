//! A sample as new as the newest of its series is taken if it is the same, and
//! refused if it is another, wherever the newest is.

use super::*;

/// The newest float of each series.
type Newest = BTreeMap<usize, (i64, f64)>;

fn value(step: i64, i: usize) -> f64 {
    (step * 31 + i as i64 * 7 % 13) as f64 / 10.0
}

/// One row of some series.
fn row(db: &Db, newest: &mut Newest, step: i64, ids: impl Iterator<Item = usize>) {
    let t = T0 + step * 15_000;
    let ids: Vec<usize> = ids.collect();
    let samples: Vec<_> = ids.iter().map(|&i| (set("m", i), value(step, i))).collect();
    append(db, 1, t, &samples);
    newest.extend(ids.into_iter().map(|i| (i, (t, value(step, i)))));
}

/// Sends the newest samples again, and others in their place.
fn send_again(db: &Db, newest: &Newest) {
    let before = all(db);
    let mut appender = db.appender(SourceId(2), SyncClass::RemoteWrite);
    for (i, (t, value)) in newest {
        let series = appender.series(&set("m", *i)).expect("series");
        assert_eq!(appender.append(series, *t, 0, *value), Ok(()), "series {i}");
        let other = appender.append(series, *t, 0, value + 1.0);
        assert_eq!(other, Err(AppendError::Duplicate), "series {i}");
        let mut refused = Vec::new();
        let twice = [series, series];
        appender.append_row(*t, &twice, &[*value, f64::NAN], &mut refused);
        assert_eq!(refused, [(1, AppendError::Duplicate)], "series {i}");
    }
    let committed = appender.commit().expect("commit");
    assert_eq!(committed, Committed { samples: 2 * newest.len() as u64, refused: 0 });
    assert_eq!(all(db), before);
}

#[test]
fn the_newest_sample_is_taken_again_and_no_other_in_its_place() {
    let fixture = Fixture::new();
    let mut db = fixture.open();
    let mut newest = Newest::new();
    for step in 0..300 {
        fixture.at(T0 + step * 15_000);
        // Some are missing here and there, some for long.
        let is_there =
            |i: &usize| !(step as usize / 3 + i).is_multiple_of(4) && (*i < 30 || step < 40);
        row(&db, &mut newest, step, (0..40).filter(is_there));
        match step {
            20 | 64 | 70 | 119 | 125 | 180 => send_again(&db, &newest),
            90 => db.seal_all().expect("seal"),
            91 | 150 => {
                send_again(&db, &newest);
                kill(db);
                db = fixture.open();
                send_again(&db, &newest);
            }
            _ => {}
        }
    }
    db.seal_all().expect("seal");
    send_again(&db, &newest);
    fixture.at(T0 + 300 * 15_000 + 3 * 3_600_000);
    db.run_maintenance(T0 + 300 * 15_000 + 3 * 3_600_000).expect("maintenance");
    send_again(&db, &newest);
}

#[test]
fn of_two_that_send_one_sample_at_once_the_later_is_compared() {
    let fixture = Fixture::new();
    let db = fixture.open();
    let mut newest = Newest::new();
    for step in 0..70 {
        row(&db, &mut newest, step, (0..6).filter(|i| *i < 3 || step < 50));
    }
    for (t, is_sealed) in [(T0 + 2_000_000, false), (T0 + 3_000_000, true)] {
        fixture.at(t);
        let appenders = [1.0, 1.0, 2.0].map(|value| {
            let mut appender = db.appender(SourceId(3), SyncClass::RemoteWrite);
            let series = [0, 5].map(|i| appender.series(&set("m", i)).expect("series"));
            appender.append_row(t, &series, &[value; 2], &mut Vec::new());
            appender
        });
        let [first, same, other] = appenders;
        assert_eq!(first.commit().expect("commit"), Committed { samples: 2, refused: 0 });
        if is_sealed {
            db.seal_all().expect("seal");
        }
        assert_eq!(same.commit().expect("commit"), Committed { samples: 2, refused: 0 });
        assert_eq!(other.commit().expect("commit"), Committed { samples: 0, refused: 2 });
    }
}

#[test]
fn histograms_are_compared_with_histograms() {
    let histogram = |sum: f64| Histogram {
        count: 3.0,
        sum,
        zero_threshold: 0.001,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![1.0, 2.0],
        ..Histogram::default()
    };
    let fixture = Fixture::new();
    let db = fixture.open();
    for is_sealed in [false, true] {
        let t = T0 + 1000 + i64::from(is_sealed);
        fixture.at(t);
        let mut appender = db.appender(SourceId(1), SyncClass::RemoteWrite);
        let series = ["h", "f"].map(|name| appender.series(&set(name, 0)).expect("series"));
        appender.append_histogram(series[0], t, 0, &histogram(5.0)).expect("taken");
        appender.append(series[1], t, 0, 5.0).expect("taken");
        appender.commit().expect("commit");
        if is_sealed {
            db.seal_all().expect("seal");
        }
        let mut again = db.appender(SourceId(2), SyncClass::RemoteWrite);
        let duplicate = Err(AppendError::Duplicate);
        assert_eq!(again.append_histogram(series[0], t, 0, &histogram(5.0)), Ok(()));
        assert_eq!(again.append_histogram(series[0], t, 0, &histogram(6.0)), duplicate);
        assert_eq!(again.append(series[0], t, 0, 5.0), duplicate);
        assert_eq!(again.append(series[1], t, 0, 5.0), Ok(()));
        assert_eq!(again.append_histogram(series[1], t, 0, &histogram(5.0)), duplicate);
        assert_eq!(again.commit().expect("commit"), Committed { samples: 2, refused: 0 });
        assert_eq!(db.stats().duplicate_samples, 3 * (1 + u64::from(is_sealed)));
    }
}
