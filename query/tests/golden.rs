//! The golden scripts: the language, case by case.

use std::path::Path;

use narthex_query::promqltest::{run, script_engine};

#[test]
fn golden_scripts_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut cases = 0;
    let mut failures = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the golden scripts are in the repository") {
        let path = entry.expect("a readable folder").path();
        if path.extension().is_none_or(|e| e != "test") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a readable script");
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let report = run(&text, &name, &script_engine());
        cases += report.passed + report.failed;
        failures.extend(report.failures.iter().map(|failure| format!("{name}: {failure}")));
    }
    assert!(failures.is_empty(), "{} of {cases} fail:\n{}", failures.len(), failures.join("\n"));
    assert!(cases >= 100, "only {cases} cases were found");
}
