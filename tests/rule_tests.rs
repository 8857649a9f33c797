//! Do `narthex test rules` and the real promtool agree? Skipped, with the
//! reason printed, where there is no promtool.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where promtool is: `$NARTHEX_PEERS`, or `target/peers/usr/bin`.
fn promtool() -> Option<PathBuf> {
    let directory = std::env::var_os("NARTHEX_PEERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/usr/bin"),
        PathBuf::from,
    );
    let path = directory.join("promtool");
    path.is_file().then_some(path)
}

/// Exit code and what was said, without white space at the ends of lines and
/// empty lines.
fn run(program: &Path, file: &Path) -> (Option<i32>, Vec<String>) {
    let output = Command::new(program).args(["test", "rules"]).arg(file).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    (output.status.code(), lines.map(ToOwned::to_owned).collect())
}

#[test]
fn both_say_the_same() {
    let Some(promtool) = promtool() else {
        eprintln!("skipped: there is no promtool in $NARTHEX_PEERS or target/peers/usr/bin");
        return;
    };
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    for name in ["alerts_test.yml", "corners_test.yml", "failing_test.yml"] {
        let file = directory.join(name);
        let ours = run(Path::new(env!("CARGO_BIN_EXE_narthex")), &file);
        let theirs = run(&promtool, &file);
        assert_eq!(ours, theirs, "{name}");
    }
}
