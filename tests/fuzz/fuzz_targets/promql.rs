//! Any text is a query or an error; what a query prints as is the same query.

#![no_main]

use libfuzzer_sys::fuzz_target;
use narthex_query::parse::series::parse_series;
use narthex_query::parse::{ParseOptions, parse, parse_selector};
use narthex_query::print::{pretty, to_json};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = parse_selector(text);
    let _ = parse_series(text);
    let _ = parse(text, &ParseOptions::default()).map_err(|e| e.to_string());
    let Ok(expr) = parse(text, &ParseOptions::all()) else { return };
    let _ = to_json(&expr);
    let printed = expr.to_string();
    // As in Prometheus, infinity prints with a sign, which reads as an operator
    // of its own in front of `^`.
    if printed.contains("Inf") {
        return;
    }
    let again = match parse(&printed, &ParseOptions::all()) {
        Ok(again) => again,
        Err(error) => {
            assert!(may_be_unreadable(&printed), "{text:?} prints as {printed:?}: {error}");
            return;
        }
    };
    assert_eq!(again.to_string(), printed, "{text:?}");
    if printed.len() < 2000 {
        let lines = parse(&pretty(&expr), &ParseOptions::all()).expect("lines are a query");
        assert_eq!(lines.to_string(), printed, "{text:?}");
    }
});

/// As in Prometheus, ranges below a millisecond print as zero, and replacement
/// characters print as themselves; neither can be read.
fn may_be_unreadable(printed: &str) -> bool {
    printed.contains("0s") || printed.contains('\u{fffd}')
}
