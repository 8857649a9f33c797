//! Any bytes are an axis, runs of rows, a summary and a chunk, or an error;
//! and any floats survive encoding to the bit.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../codec.rs"]
mod codec;

fuzz_target!(|bytes: &[u8]| codec::check(bytes));
