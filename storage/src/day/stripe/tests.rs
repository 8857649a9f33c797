use super::*;

const ROWS: usize = 120;

/// Buckets of a histogram, its sum, its count, and a constant now and then.
fn columns() -> Vec<Vec<f64>> {
    let mut all = Vec::new();
    for family in 0..40usize {
        let base = |row: usize| row as u64 * 977 + (row as u64 * row as u64 * 31) % 1009;
        for bucket in 0..6u64 {
            let value = |row| (base(row) * (bucket + 1) + (row as u64 * bucket) % 3) as f64;
            all.push((0..ROWS).map(value).collect());
            if family % 4 == bucket as usize {
                all.push(vec![family as f64; ROWS]);
            }
        }
        all.push((0..ROWS).map(|row| (base(row) as f64).sqrt()).collect());
        all.push((0..ROWS).map(|row| (base(row) * 6 + row as u64 % 3) as f64).collect());
    }
    all
}

fn stripe(columns: &[Vec<f64>]) -> Encoded {
    let times = (0..ROWS as i64).map(|row| row * 15_000).collect();
    let mut builder = StripeBuilder::new(times);
    for (id, column) in columns.iter().enumerate() {
        let rows = (0..ROWS as u32).collect();
        let samples = Samples { rows, floats: column.clone(), ..Samples::default() };
        builder.add(id as u32, &samples);
    }
    builder.finish(7).expect("has columns")
}

/// Header, as this version, and payload.
fn parts(encoded: &Encoded, version: u8) -> (Header, &[u8]) {
    let mut header = encoded.bytes[PREFIX_BYTES..][..encoded.header_bytes as usize].to_vec();
    header[0] = version;
    let payload = &encoded.bytes[PREFIX_BYTES + header.len()..];
    (Header::decode(&header).expect("own header"), payload)
}

fn decode(header: &Header, payload: &[u8], column: usize) -> Option<Vec<f64>> {
    let run = header.run_of(column)?;
    let bytes = &payload[run.bytes.start as usize..run.bytes.end as usize];
    let mut out = DecodedColumn::default();
    header.decode_column(column, &run, bytes, &mut out).ok()?;
    if header.has_sibling(column) {
        let chain = header.chain_of(column, &run, bytes)?;
        let at = chain.binary_search(&column).ok()?;
        let decoded = header.decode_chain(&chain, &run, bytes)?;
        assert_eq!(decoded[at].floats, out.floats, "column {column} alone and in its chain");
    }
    Some(out.floats)
}

#[test]
fn columns_build_on_the_nearest_that_suits() {
    let columns = columns();
    let encoded = stripe(&columns);
    let (header, payload) = parts(&encoded, VERSION);
    for (at, column) in columns.iter().enumerate() {
        assert_eq!(decode(&header, payload, at).as_ref(), Some(column), "column {at}");
    }
    let behind_others = (1..columns.len()).filter(|&c| {
        let run = header.run_of(c).expect("in a run");
        let bytes = &payload[run.bytes.start as usize..run.bytes.end as usize];
        header.has_sibling(c) && !header.is_foundation(c - 1, &run, bytes)
    });
    assert!(behind_others.count() > 40);
}

#[test]
fn in_version_1_columns_build_on_the_one_before() {
    // Without constants and sums between them, buckets are the same in both.
    let is_varying = |c: &&Vec<f64>| c[0] != c[1] && c.iter().all(|v| v.fract() == 0.0);
    let columns: Vec<Vec<f64>> = columns().iter().filter(is_varying).cloned().collect();
    let encoded = stripe(&columns);
    let (header, payload) = parts(&encoded, 1);
    assert!((0..columns.len()).any(|c| header.has_sibling(c)));
    for (at, column) in columns.iter().enumerate() {
        assert_eq!(decode(&header, payload, at).as_ref(), Some(column), "column {at}");
    }
}

#[test]
fn a_version_of_the_future_is_refused() {
    let encoded = stripe(&columns());
    let mut header = encoded.bytes[PREFIX_BYTES..][..encoded.header_bytes as usize].to_vec();
    for version in [0, VERSION + 1] {
        header[0] = version;
        assert_eq!(Header::decode(&header).err(), Some(StripeError::Version(version)));
    }
}

#[test]
fn any_flipped_bit_of_a_run_is_an_error_or_a_value() {
    let encoded = stripe(&columns()[..12]);
    let (header, payload) = parts(&encoded, VERSION);
    for bit in 0..payload.len() * 8 {
        let mut damaged = payload.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        // Checksums are looked at before: here nothing may panic or hang.
        for column in 0..12 {
            let run = header.run_of(column).expect("in a run");
            let bytes = &damaged[run.bytes.start as usize..run.bytes.end as usize];
            let mut out = DecodedColumn::default();
            let _ = header.decode_column(column, &run, bytes, &mut out);
            if let Some(chain) = header.chain_of(column, &run, bytes) {
                let _ = header.decode_chain(&chain, &run, bytes);
            }
        }
    }
}
