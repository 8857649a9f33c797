//! What must hold of the codecs for any bytes; shared by the fuzz target and
//! by `examples/codec_seeds.rs`, which needs no nightly toolchain.

use narthex_storage::codec::{self, Summary};

/// # Panics
///
/// If something does not hold.
pub fn check(bytes: &[u8]) {
    let Some((&[low, high], bytes)) = bytes.split_first_chunk::<2>() else { return };
    let count = usize::from(u16::from_le_bytes([low, high]) % 1025);
    decoders_are_total(bytes, count);
    let words = bytes.as_chunks::<8>().0;
    let floats: Vec<f64> = words.iter().map(|w| f64::from_le_bytes(*w)).collect();
    // Bytes as small differences make columns as exporters have them.
    let power = 10f64.powi(i32::from(low % 12));
    let mut sum = f64::from(high);
    let steps: Vec<f64> = bytes
        .iter()
        .map(|b| {
            sum += f64::from(*b);
            sum / power
        })
        .collect();
    let shifted: Vec<f64> = steps.iter().map(|s| s + f64::from(low)).collect();
    survives(&floats, None);
    survives(&steps, None);
    survives(&steps, Some(&shifted));
}

fn decoders_are_total(bytes: &[u8], count: usize) {
    let sibling: Vec<f64> = (0..count).map(|i| i as f64).collect();
    let mut floats = Vec::new();
    match codec::decode_chunk(bytes, count, Some(&sibling), &mut floats) {
        Ok(decoded) => {
            assert!(decoded.used_bytes <= bytes.len());
            assert_eq!(floats.len(), count);
            survives(&floats, None);
            survives(&floats, Some(&sibling));
        }
        Err(_) => assert!(floats.is_empty()),
    }
    let mut axis = Vec::new();
    if let Ok(used) = codec::decode_axis(bytes, count, &mut axis) {
        assert!(used <= bytes.len());
        let (mut again, mut back) = (Vec::new(), Vec::new());
        codec::encode_axis(&axis, &mut again);
        assert_eq!(codec::decode_axis(&again, count, &mut back), Ok(again.len()));
        assert_eq!(axis, back);
    }
    let mut runs = Vec::new();
    if codec::decode_runs(bytes, count as u32, &mut runs).is_ok() {
        let (mut again, mut back) = (Vec::new(), Vec::new());
        codec::encode_runs(&runs, &mut again);
        assert_eq!(codec::decode_runs(&again, count as u32, &mut back), Ok(again.len()));
        assert_eq!(runs, back);
    }
    let _ = Summary::decode(bytes, count as u32);
}

fn survives(values: &[f64], sibling: Option<&[f64]>) {
    let (mut chunk, mut back) = (Vec::new(), Vec::new());
    codec::encode(values, sibling, &mut chunk);
    let used = codec::decode(&chunk, values.len(), sibling, &mut back);
    assert_eq!(used, Ok(chunk.len()));
    assert!(values.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
    assert!(chunk.len() <= 1 + 8 * values.len());
}
