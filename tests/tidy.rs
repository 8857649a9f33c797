//! The house rules that a compiler does not know.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("the folder is there") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn room_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).expect("below src");
    let first = inside.components().next().expect("a file").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Which rooms a room may import, besides storage and query.
fn allowed(room: &str) -> Option<&'static [&'static str]> {
    Some(match room {
        "config" | "metrics" | "notices" => &[],
        "relabel" | "client" => &["config", "metrics"],
        "template" => &["config"],
        // An API server that does not answer is for a person to know.
        "discovery" => &["config", "relabel", "client", "metrics", "notices"],
        "scrape" => &["config", "relabel", "client", "metrics", "discovery"],
        // Links in alerts escape queries as templates do.
        "notify" => &["config", "relabel", "client", "metrics", "discovery", "template"],
        "rules" => {
            &["config", "relabel", "metrics", "template", "notify", "discovery", "query_log"]
        }
        "web" => &[],
        // Heard of by both who ask: the API and rules.
        "query_log" => &["metrics"],
        // The state of scrape, rules and notify is read by the API; the
        // resolved flags are what status/flags answers.
        "api" => &[
            "config",
            "relabel",
            "metrics",
            "notices",
            "query_log",
            "web",
            "scrape",
            "rules",
            "notify",
            "discovery",
            "cli",
        ],
        "server" | "cli" | "main" | "lib" => return None,
        other => panic!("room {other} is not on the plan: add it to ARCHITECTURE.md and here"),
    })
}

#[test]
fn rooms_import_only_what_the_plan_allows() {
    let mut wrong = BTreeSet::new();
    for path in rust_files("src") {
        let room = room_of(&path);
        let Some(allowed) = allowed(&room) else { continue };
        let text = fs::read_to_string(&path).expect("UTF-8");
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for (at, _) in line.match_indices("crate::") {
                let target: String = line[at + 7..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                let is_room = root().join("src").join(&target).is_dir()
                    || root().join("src").join(format!("{target}.rs")).is_file();
                if is_room && target != room && !allowed.contains(&target.as_str()) {
                    wrong.insert(format!(
                        "{}:{}: {room} imports {target}",
                        path.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that are not on the plan:\n{wrong:#?}");
}

#[test]
fn query_knows_only_the_seams_of_storage() {
    for path in rust_files("query/src") {
        let text = fs::read_to_string(&path).expect("UTF-8");
        for (at, _) in text.match_indices("narthex_storage::") {
            let module: String = text[at + 17..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            let seam =
                ["labels", "sample", "histogram", "read", "append", ""].contains(&module.as_str());
            assert!(seam, "{} uses narthex_storage::{module}", path.display());
        }
    }
}

#[test]
fn modules_open_with_their_question() {
    for folder in ["src", "storage/src", "query/src"] {
        for path in rust_files(folder) {
            if path.ends_with("tests.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("UTF-8");
            assert!(text.starts_with("//!"), "{} has no module documentation", path.display());
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [
        concat!("to", "do!("),
        concat!("unimplem", "ented!("),
        concat!("#[ig", "nore"),
        concat!("FIX", "ME"),
    ];
    for folder in ["src", "storage", "query", "tests", "benches"] {
        for path in rust_files(folder) {
            let text = fs::read_to_string(&path).expect("UTF-8");
            for mark in marks {
                assert!(!text.contains(mark), "{}: {mark}", path.display());
            }
        }
    }
}

#[test]
fn architecture_names_every_room() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for entry in fs::read_dir(root().join("src")).expect("src") {
        let name = entry.expect("readable").file_name().to_string_lossy().into_owned();
        assert!(text.contains(&format!("src/{name}")), "ARCHITECTURE.md does not name src/{name}");
    }
}
