//! Do `narthex test rules` and the real promtool agree? Skipped, with the
//! reason printed, where there is no promtool.

mod common;

use std::path::Path;

use common::{peer, test_rules};

#[test]
fn both_say_the_same() {
    let Some(promtool) = peer("promtool") else { return };
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    for name in ["alerts_test.yml", "corners_test.yml", "failing_test.yml"] {
        let file = directory.join(name);
        let ours = test_rules(&common::narthex(), &file);
        let theirs = test_rules(&promtool, &file);
        assert_eq!(ours, theirs, "{name}");
    }
}
