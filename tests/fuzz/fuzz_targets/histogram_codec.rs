//! Any bytes decode to histograms or an error, and what they decode to, if it
//! is valid, survives encoding to the bit.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use narthex_storage::histogram::{Histogram, codec};

fuzz_target!(|bytes: &[u8]| {
    let Some((&count, bytes)) = bytes.split_first() else { return };
    let count = usize::from(count);
    let mut histograms: Vec<Arc<Histogram>> = Vec::new();
    let Ok(used) = codec::decode(bytes, count, &mut histograms) else {
        assert!(histograms.is_empty());
        return;
    };
    assert!(used <= bytes.len());
    assert_eq!(histograms.len(), count);
    for pair in histograms.windows(2) {
        let mut sum = Histogram::clone(&pair[0]);
        let _ = sum.add(&pair[1]);
        let _ = (pair[1].is_reset_after(&pair[0]), pair[1].to_string());
    }
    if histograms.iter().any(|h| h.validate().is_err()) {
        return;
    }
    let (mut again, mut back) = (Vec::new(), Vec::new());
    codec::encode(&histograms, &mut again);
    let used = codec::decode(&again, count, &mut back).expect("encoded by ourselves");
    assert_eq!(used, again.len());
    for (a, b) in histograms.iter().zip(&back) {
        assert!(a.same_data(b) && a.counter_reset_hint == b.counter_reset_hint, "{a} {b}");
    }
});
