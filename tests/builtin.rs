//! A newcomer starts the binary without any file.

mod common;

use common::{Server, wait_for};

#[test]
fn without_files_it_scrapes_itself_and_shows_a_page() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = Server::start(directory.path(), None, &[]);
    let up = wait_for("its own metrics", || server.scalar("count(up)", None).filter(|n| *n >= 1.0));
    assert!(up >= 1.0);
    let page = server.get("/").expect("an answer");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("assets/app.js"));
    for file in ["app.js", "style.css", "uPlot.iife.min.js", "uPlot.min.css"] {
        assert_eq!(
            server.get(&format!("/assets/{file}")).expect("an answer").status,
            200,
            "{file}"
        );
    }
    assert_eq!(server.get("/graph?g0.expr=up&g0.tab=1").expect("an answer").status, 200);
    assert_eq!(server.get("/nothing").expect("an answer").status, 404);
    assert_eq!(server.get("/-/healthy").expect("an answer").status, 200);
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let directory = tempfile::tempdir().expect("a folder");
    let first = Server::start(directory.path(), None, &[]);
    let mut second = Server::spawn(directory.path(), None, &[], common::free_port());
    let status = wait_for("its end", || second.child.try_wait().expect("a child"));
    assert!(!status.success());
    assert!(second.log().contains("in use by another process"), "{}", second.log());
    assert_eq!(first.get("/-/healthy").expect("an answer").status, 200);
}

#[test]
fn a_data_directory_of_prometheus_is_refused_and_untouched() {
    let directory = tempfile::tempdir().expect("a folder");
    let wal = directory.path().join("data/wal");
    std::fs::create_dir_all(&wal).expect("a folder");
    std::fs::create_dir_all(directory.path().join("data/chunks_head")).expect("a folder");
    std::fs::write(wal.join("00000000"), b"prometheus").expect("a file");
    let mut server = Server::spawn(directory.path(), None, &[], common::free_port());
    let status = wait_for("its end", || server.child.try_wait().expect("a child"));
    assert!(!status.success());
    assert!(server.log().contains("Prometheus"), "{}", server.log());
    let mut names: Vec<_> = std::fs::read_dir(directory.path().join("data"))
        .expect("still there")
        .map(|e| e.expect("readable").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["chunks_head", "wal"]);
}
