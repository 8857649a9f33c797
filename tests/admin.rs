//! The storage's administration over HTTP.

mod common;

use common::remote_write::{Series, body, send};
use common::{Server, wait_for};

const RULES: &str =
    "groups: [{name: g, interval: 1s, rules: [{alert: Always, expr: vector(1)}]}]\n";

#[test]
fn a_snapshot_is_a_data_directory_without_what_was_deleted() {
    let directory = tempfile::tempdir().expect("a folder");
    std::fs::write(directory.path().join("rules.yml"), RULES).expect("a file");
    let flags = [
        "--config.file=prometheus.yml",
        "--web.enable-remote-write-receiver",
        "--web.enable-admin-api",
        "--storage.tsdb.retention.time=100y",
    ];
    let server = Server::start(directory.path(), Some("rule_files: [rules.yml]\n"), &flags);
    let time_ms = 1_767_261_600_000;
    for name in ["kept", "deleted"] {
        let labels = [("__name__", name)];
        let request = body(&[Series { labels: &labels, samples: &[(time_ms, 1.0)] }]);
        assert_eq!(send(server.address, &request).expect("an answer").status, 204);
    }
    let state = directory.path().join("data/state/alerts");
    let _ = wait_for("the state of the alert", || {
        std::fs::read_dir(&state).ok().and_then(|mut files| files.next())
    });
    let deleted = server.post_form("/api/v1/admin/tsdb/delete_series?match[]=deleted", "");
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    assert_eq!(server.post_form("/api/v1/admin/tsdb/clean_tombstones", "").status, 204);
    let answer = server.post_form("/api/v1/admin/tsdb/snapshot", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let name = answer.json()["data"]["name"].as_str().expect("a name").to_owned();

    let copy = tempfile::tempdir().expect("a folder");
    let from = directory.path().join("data/snapshots").join(name);
    std::fs::rename(from, copy.path().join("data")).expect("the same file system");
    let restored = Server::start(copy.path(), Some("global: {}\n"), &flags);
    let at = Some(time_ms as f64 / 1000.0);
    assert_eq!(restored.scalar("kept", at), Some(1.0));
    assert_eq!(restored.scalar("deleted", at), None);
}

#[test]
fn without_its_flag_there_is_no_administration() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = Server::start(directory.path(), None, &[]);
    assert_eq!(server.post_form("/api/v1/admin/tsdb/snapshot", "").status, 503);
    assert_eq!(server.post_form("/-/reload", "").status, 403);
    assert_eq!(server.post_form("/-/quit", "").status, 403);
}
