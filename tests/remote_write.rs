//! Remote write through the binary: what is taken, and what a refusal says.

mod common;

use std::time::{SystemTime, UNIX_EPOCH};

use common::Server;
use common::remote_write::{Series, body, send};

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("it fits")
}

fn server(directory: &std::path::Path) -> Server {
    let flags = ["--web.enable-remote-write-receiver", "--config.file=prometheus.yml"];
    Server::start(directory, Some("global: {}\n"), &flags)
}

/// The values of the last minute, by the label `n`.
fn values(server: &Server, selector: &str, at_ms: i64) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<_> = server
        .query(&format!("{selector}[1m]"), Some(at_ms as f64 / 1000.0))
        .iter()
        .map(|series| {
            let name = series["metric"]["n"].as_str().unwrap_or("").to_owned();
            let samples = series["values"].as_array().expect("a matrix").iter();
            (name, samples.map(|v| v[1].as_str().expect("a value").to_owned()).collect())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn series_that_come_again_in_any_order_are_the_same_series() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = server(directory.path());
    let start_ms = now_ms() - 10_000;
    let names: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
    for request in 0..6_usize {
        let time_ms = start_ms + 1000 * request as i64;
        let labels: Vec<_> =
            names.iter().map(|n| [("__name__", "again"), ("n", n.as_str())]).collect();
        let samples: Vec<_> = (0..50).map(|n| [(time_ms, n as f64)]).collect();
        let mut series: Vec<_> = labels
            .iter()
            .zip(&samples)
            .map(|(labels, samples)| Series { labels, samples })
            .collect();
        // The same order twice, turned, backwards, and a part of it.
        match request {
            2 => series.rotate_left(17),
            3 => series.reverse(),
            4 => series.truncate(25),
            _ => {}
        }
        let answer = send(server.address, &body(&series)).expect("an answer");
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    let found = values(&server, "again", now_ms());
    assert_eq!(found.len(), 50);
    for (n, (name, samples)) in found.iter().enumerate() {
        let times = if n < 25 { 6 } else { 5 };
        assert_eq!(samples, &vec![n.to_string(); times], "series {name}");
    }
}

/// A cache of label bytes must not take what stands behind the samples for
/// part of nothing.
#[test]
fn labels_may_stand_behind_the_samples() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = server(directory.path());
    let time_ms = now_ms() - 5_000;
    // TimeSeries{labels: __name__=odd, samples: (value, time)[, labels: n=b]}
    let message = |value: f64, time_ms: i64, is_labelled: bool| {
        let mut series = b"\x0a\x0f\x0a\x08__name__\x12\x03odd".to_vec();
        let mut sample = vec![0x09];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        let mut n = time_ms.unsigned_abs();
        while n >= 0x80 {
            sample.push(n as u8 | 0x80);
            n >>= 7;
        }
        sample.push(n as u8);
        series.extend_from_slice(&[0x12, sample.len() as u8]);
        series.extend_from_slice(&sample);
        if is_labelled {
            series.extend_from_slice(b"\x0a\x06\x0a\x01n\x12\x01b");
        }
        let mut request = vec![0x0a, series.len() as u8];
        request.extend_from_slice(&series);
        snap::raw::Encoder::new().compress_vec(&request).expect("it fits")
    };
    for (value, at_ms, is_labelled) in
        [(1.0, time_ms, false), (2.0, time_ms, true), (3.0, time_ms + 1, true)]
    {
        let answer = send(server.address, &message(value, at_ms, is_labelled)).expect("an answer");
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    let found = values(&server, "odd", now_ms());
    let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    assert_eq!(found, [(String::new(), text(&["1"])), ("b".to_owned(), text(&["2", "3"]))]);
}

#[test]
fn what_is_refused_is_named_and_harms_nothing_else() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = server(directory.path());
    let time_ms = now_ms() - 5_000;
    let (a, b) = ([("__name__", "part"), ("n", "a")], [("__name__", "part"), ("n", "b")]);
    let write = |a_ms: i64, b_ms: i64| {
        let series = [
            Series { labels: &a, samples: &[(a_ms, 1.0)] },
            Series { labels: &b, samples: &[(b_ms, 1.0)] },
        ];
        send(server.address, &body(&series)).expect("an answer")
    };
    assert_eq!(write(time_ms, time_ms).status, 204);
    let answer = write(time_ms - 1000, time_ms + 1000);
    assert_eq!(answer.status, 400);
    let text = answer.text();
    assert!(text.contains("out of order") && text.contains("n=\"a\""), "{text}");
    assert_eq!(
        values(&server, "part", now_ms()),
        [
            ("a".to_owned(), vec!["1".to_owned()]),
            ("b".to_owned(), vec!["1".to_owned(), "1".to_owned()])
        ]
    );
    let ahead = write(now_ms() + 3_600_000, time_ms + 2000);
    assert_eq!(ahead.status, 400, "{}", ahead.text());
    let garbage = send(server.address, b"\xff\xff\xff").expect("an answer");
    assert_eq!(garbage.status, 400, "{}", garbage.text());
}
