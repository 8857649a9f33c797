//! The checks of the fuzz target `codec` on bytes made from seeds, without a
//! nightly toolchain:
//!
//! `cargo run --release --example codec_seeds -- [FIRST_SEED] [SEEDS]`

#[path = "../codec.rs"]
mod codec;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<u64>().expect("a number"));
    let (first, seeds) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(100_000));
    for seed in first..first + seeds {
        if std::panic::catch_unwind(|| codec::check(&bytes_of(seed))).is_err() {
            eprintln!("seed {seed} fails");
            std::process::exit(1);
        }
    }
    println!("{seeds} seeds from {first}: all hold");
}

/// Some hundred bytes: noise, or a chunk of small steps with some bytes changed.
fn bytes_of(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let count = next() % 300;
    let mut bytes = (count as u16).to_le_bytes().to_vec();
    if seed.is_multiple_of(2) {
        bytes.extend((0..next() % 600).map(|_| next() as u8));
        return bytes;
    }
    let (shift, power) = (next() % 64, 10f64.powi((next() % 10) as i32));
    let mut sum = 0u64;
    let column: Vec<f64> = (0..count)
        .map(|_| {
            sum = sum.wrapping_add(next() >> shift);
            sum as f64 / power
        })
        .collect();
    narthex_storage::codec::encode(&column, None, &mut bytes);
    for _ in 0..next() % 4 {
        let at = 2 + next() as usize % (bytes.len() - 2).max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = next() as u8;
        }
    }
    bytes
}
