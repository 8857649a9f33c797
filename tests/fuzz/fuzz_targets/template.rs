//! Any text is a template or an error, and expanding it ends, within its
//! limits, with a text or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use narthex_query::value::VectorSample;
use narthex_storage::labels::Labels;
use narthex_storage::sample::Value;

#[path = "../../../src/template/mod.rs"]
#[allow(dead_code, reason = "the server uses the rest")]
mod template;

fuzz_target!(|text: &str| {
    let Ok(template) = template::Template::parse("__alert_X", text) else { return };
    let labels = Labels::from_pairs([("instance", "a:9100"), ("job", "node")]);
    let data = template::AlertData {
        labels: labels.clone(),
        external_labels: Labels::from_pairs([("region", "eu")]),
        external_url: "http://n:9090".to_owned(),
        value: Value::Float(12.5),
    };
    let mut query = |text: &str| match text.len() {
        0 => Err("no query".to_owned()),
        len => Ok((0..len % 5)
            .map(|i| VectorSample {
                labels: labels.clone(),
                timestamp_ms: 0,
                value: Value::Float(i as f64),
            })
            .collect()),
    };
    let mut environment = template::Environment {
        now_ms: 1_700_000_000_000,
        external_url: Some("http://n:9090/p"),
        query: &mut query,
    };
    if let Ok(output) = template.expand(&data, &mut environment) {
        assert!(output.len() <= template::Limits::default().output_bytes.max(text.len()));
    }
});
