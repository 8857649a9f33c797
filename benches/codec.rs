//! How many bytes does a sample take, and how many nanoseconds?
//!
//! `cargo bench -p narthex-storage --bench codec` measures synthetic columns of
//! the kinds that exporters have, made from a seed, and compares them with
//! Gorilla's XOR codec (Pelkonen et al., VLDB 2015).
//!
//! With `NARTHEX_COLUMNS=FILE[:FILE...]` it measures captured columns instead
//! and prints a table by codec. A file holds, little-endian: `u32` columns, `u32`
//! rows, then per column `i32` the index of its sibling or -1, and the rows as
//! `f64`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use narthex_storage::codec::{self, Encoder};

/// Columns of one source in the same rows.
struct Table {
    name: String,
    columns: Vec<Column>,
}

struct Column {
    sibling: Option<usize>,
    values: Vec<f64>,
}

fn main() {
    match std::env::var("NARTHEX_COLUMNS") {
        Ok(files) => {
            for file in files.split(':') {
                let table = load(file);
                for rows in [120, 4096] {
                    report(&table, rows);
                }
            }
        }
        Err(_) => {
            let mut criterion = Criterion::default().configure_from_args();
            for table in synthetic::tables() {
                report(&table, 120);
                report(&table, 4096);
                bench(&mut criterion, &table);
            }
            criterion.final_summary();
        }
    }
}

fn load(file: &str) -> Table {
    let bytes = std::fs::read(file).expect("NARTHEX_COLUMNS names files");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let (columns, rows) = (word(0) as usize, word(4) as usize);
    let column = |index: usize| {
        let at = 8 + index * (4 + 8 * rows);
        let values = bytes[at + 4..at + 4 + 8 * rows].chunks_exact(8);
        Column {
            sibling: usize::try_from(word(at).cast_signed()).ok(),
            values: values.map(|v| f64::from_le_bytes(v.try_into().expect("8 bytes"))).collect(),
        }
    };
    Table { name: file.to_owned(), columns: (0..columns).map(column).collect() }
}

/// The codec behind a chunk's first byte, as docs/format-chunks.md lists them.
fn codec_of(chunk: &[u8]) -> &'static str {
    match chunk[0] & 0x7f {
        0x00..0x20 => "constant",
        0x20..0x30 => "integers",
        0x30..0x40 => "integers, sibling",
        0x40..0x50 => match chunk[1] >> 4 {
            0 => "decimals",
            1 => "ticks",
            2 => "binary",
            _ => "bits",
        },
        0x50..0x60 => "other form, sibling",
        0x60..0x70 => "sums of decimals",
        0x70 => "pco",
        0x78 => "raw",
        _ => "?",
    }
}

#[derive(Default)]
struct Figures {
    chunks: usize,
    samples: usize,
    bytes: usize,
    gorilla_bytes: usize,
    encoding: Duration,
    decoding: Duration,
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.chunks += other.chunks;
        self.samples += other.samples;
        self.bytes += other.bytes;
        self.gorilla_bytes += other.gorilla_bytes;
        self.encoding += other.encoding;
        self.decoding += other.decoding;
    }

    fn print(&self, name: &str, all: usize) {
        let samples = self.samples as f64;
        println!(
            "  {name:20} {:7} chunks  {:8.3} B/sample  {:7.4} of all  {:6.1} B/chunk  \
             gorilla {:6.3} ({:5.2}x)  encode {:6.1} ns  decode {:7.1} M/s",
            self.chunks,
            self.bytes as f64 / samples,
            self.bytes as f64 / all as f64,
            self.bytes as f64 / self.chunks as f64,
            self.gorilla_bytes as f64 / samples,
            self.gorilla_bytes as f64 / self.bytes as f64,
            self.encoding.as_nanos() as f64 / samples,
            samples / self.decoding.as_secs_f64() / 1e6,
        );
    }
}

/// What reading the clock twice takes.
fn clock_cost() -> Duration {
    (0..1000).map(|_| Instant::now().elapsed()).min().unwrap_or_default()
}

/// Prints bytes and nanoseconds per sample by codec. Each chunk is timed alone,
/// as one of many; its time is the best of some passes over all of them.
fn report(table: &Table, rows: usize) {
    const PASSES: usize = 5;
    let (mut encoder, mut bytes, mut values) = (Encoder::new(), vec![], vec![]);
    let clock = clock_cost();
    let mut all: Vec<(&str, Figures)> = vec![];
    for pass in 0..PASSES {
        let mut index = 0;
        for column in &table.columns {
            let sibling = column.sibling.map(|i| &table.columns[i].values);
            for (part, chunk) in column.values.chunks(rows).enumerate() {
                let beside = sibling.map(|s| &s[part * rows..part * rows + chunk.len()]);
                bytes.clear();
                let start = Instant::now();
                encoder.encode(black_box(chunk), beside, &mut bytes);
                let encoding = start.elapsed().saturating_sub(clock);
                values.clear();
                let start = Instant::now();
                let used = codec::decode(black_box(&bytes), chunk.len(), beside, &mut values);
                let decoding = start.elapsed().saturating_sub(clock);
                assert_eq!(used, Ok(bytes.len()));
                assert!(values.iter().zip(chunk).all(|(a, b)| a.to_bits() == b.to_bits()));
                if pass == 0 {
                    let figures = Figures {
                        chunks: 1,
                        samples: chunk.len(),
                        bytes: bytes.len(),
                        gorilla_bytes: gorilla::encode(chunk).len(),
                        encoding,
                        decoding,
                    };
                    all.push((codec_of(&bytes), figures));
                }
                let figures = &mut all[index].1;
                figures.encoding = figures.encoding.min(encoding);
                figures.decoding = figures.decoding.min(decoding);
                index += 1;
            }
        }
    }
    let mut by_codec: BTreeMap<&str, Figures> = BTreeMap::new();
    let mut total = Figures::default();
    for (name, figures) in &all {
        by_codec.entry(name).or_default().add(figures);
        total.add(figures);
    }
    println!("{}, chunks of {rows}:", table.name);
    for (name, figures) in &by_codec {
        figures.print(name, total.samples);
    }
    total.print("total", total.samples);
}

fn bench(criterion: &mut Criterion, table: &Table) {
    let mut group = criterion.benchmark_group(&table.name);
    let chunks: Vec<(&[f64], Option<&[f64]>)> = table
        .columns
        .iter()
        .map(|c| (&c.values[..120], c.sibling.map(|i| &table.columns[i].values[..120])))
        .collect();
    group.throughput(Throughput::Elements(chunks.len() as u64 * 120));
    let (mut encoder, mut bytes) = (Encoder::new(), vec![]);
    group.bench_function("encode", |b| {
        b.iter(|| {
            bytes.clear();
            for (values, sibling) in &chunks {
                encoder.encode(values, *sibling, &mut bytes);
            }
            bytes.len()
        });
    });
    let mut values = vec![];
    group.bench_function("decode", |b| {
        b.iter(|| {
            let mut at = 0;
            for (_, sibling) in &chunks {
                values.clear();
                at += codec::decode(&bytes[at..], 120, *sibling, &mut values).expect("own chunks");
            }
            at
        });
    });
    let gorilla: Vec<_> = chunks.iter().map(|(values, _)| gorilla::encode(values)).collect();
    group.bench_function("gorilla encode", |b| {
        b.iter(|| chunks.iter().map(|(values, _)| gorilla::encode(values).len()).sum::<usize>());
    });
    group.bench_function("gorilla decode", |b| {
        b.iter(|| {
            for chunk in &gorilla {
                values.clear();
                gorilla::decode(chunk, 120, &mut values);
            }
            values.len()
        });
    });
    group.finish();
}

/// Columns of the kinds that exporters have, from a seed.
mod synthetic {
    use super::{Column, Table};

    const ROWS: usize = 4096;

    /// The generator of Steele et al., *Fast splittable pseudorandom number
    /// generators* (2014).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        /// In 0..1.
        fn unit(&mut self) -> f64 {
            (self.next() >> 11) as f64 / (1u64 << 53) as f64
        }

        /// About normal, of deviation 1.
        fn bell(&mut self) -> f64 {
            (0..6).map(|_| self.unit()).sum::<f64>() * 1.414 - 4.243
        }

        /// Of a Poisson process with this mean.
        fn poisson(&mut self, mean: f64) -> f64 {
            if mean > 30.0 {
                return (mean + self.bell() * mean.sqrt()).round().max(0.0);
            }
            let (limit, mut product, mut count) = ((-mean).exp(), self.unit(), 0.0);
            while product > limit {
                product *= self.unit();
                count += 1.0;
            }
            count
        }
    }

    fn column(values: impl FnMut(usize) -> f64) -> Column {
        Column { sibling: None, values: (0..ROWS).map(values).collect() }
    }

    pub fn tables() -> Vec<Table> {
        vec![host(7), application(8)]
    }

    /// As a node exporter: half constants, counters of all rates, ticks, gauges.
    fn host(seed: u64) -> Table {
        let mut random = Random(seed);
        let mut columns = vec![];
        for i in 0..64 {
            let level = (random.unit() * 10f64.powi(i % 10)).round();
            columns.push(column(|_| level));
            let rate = 10f64.powf(random.unit() * 5.0 - 1.0);
            let mut total = random.unit() * 1e6;
            columns.push(match i % 4 {
                0 => column(|_| {
                    total += random.poisson(rate);
                    total.round()
                }),
                1 => column(|_| {
                    total += random.poisson(rate);
                    total.round() / 100.0
                }),
                2 => column(|_| {
                    total += random.poisson(rate);
                    total.round() * 0.001
                }),
                _ => column(|_| {
                    total = (total + random.bell() * rate).abs();
                    total.round() * 4096.0
                }),
            });
        }
        Table { name: "host".to_owned(), columns }
    }

    /// As an application: histograms with sums of real floats, and gauges.
    fn application(seed: u64) -> Table {
        let mut random = Random(seed);
        let mut columns = vec![];
        for _ in 0..16 {
            let rate = 10f64.powf(random.unit() * 3.0 - 1.0);
            let mut left: Option<usize> = None;
            for _ in 0..12 {
                let (mut own, share) = (0.0, random.unit());
                let mut bucket = column(|_| {
                    own += random.poisson(rate * share);
                    own
                });
                if let Some(left) = left {
                    let below: &Column = &columns[left];
                    bucket.values.iter_mut().zip(&below.values).for_each(|(v, b)| *v += b);
                }
                bucket.sibling = left;
                left = Some(columns.len());
                columns.push(bucket);
            }
            let mut sum = 1000.0 * random.unit();
            columns.push(column(|_| {
                sum += random.unit() * rate;
                sum
            }));
            let mut level = 50.0;
            columns.push(column(|_| {
                level = 50.0 + (level - 50.0) * 0.9 + random.bell();
                (level * 1000.0f64).round() / 1000.0
            }));
        }
        Table { name: "application".to_owned(), columns }
    }
}

/// The XOR codec of Gorilla, section 4.1.2 of the paper, values only.
mod gorilla {
    pub fn encode(values: &[f64]) -> Vec<u8> {
        let mut bits = Bits::default();
        let (mut before, mut leading, mut trailing) = (values[0].to_bits(), 65, 0);
        bits.push(before, 64);
        for value in &values[1..] {
            let xor = value.to_bits() ^ before;
            before = value.to_bits();
            if xor == 0 {
                bits.push(0, 1);
            } else if xor.leading_zeros() >= leading && xor.trailing_zeros() >= trailing {
                bits.push(0b10, 2);
                bits.push(xor >> trailing, 64 - leading - trailing);
            } else {
                (leading, trailing) = (xor.leading_zeros().min(31), xor.trailing_zeros());
                let len = 64 - leading - trailing;
                bits.push(0b11, 2);
                bits.push(u64::from(leading), 5);
                bits.push(u64::from(len & 63), 6);
                bits.push(xor >> trailing, len);
            }
        }
        bits.bytes
    }

    pub fn decode(bytes: &[u8], count: usize, out: &mut Vec<f64>) {
        let mut at = 0;
        let mut take = |len: usize| {
            let mut word = [0; 16];
            let part = &bytes[at / 8..bytes.len().min(at / 8 + 16)];
            word[..part.len()].copy_from_slice(part);
            let shifted = u128::from_be_bytes(word) << (at % 8);
            at += len;
            (shifted >> 64) as u64 >> (64 - len)
        };
        let (mut value, mut leading, mut len) = (take(64), 0, 64);
        out.push(f64::from_bits(value));
        for _ in 1..count {
            if take(1) == 1 {
                if take(1) == 1 {
                    leading = take(5) as usize;
                    len = match take(6) as usize {
                        0 => 64,
                        len => len,
                    };
                }
                value ^= take(len) << (64 - leading - len);
            }
            out.push(f64::from_bits(value));
        }
    }

    /// Bits, most significant first.
    #[derive(Default)]
    struct Bits {
        bytes: Vec<u8>,
        free: u32,
    }

    impl Bits {
        fn push(&mut self, value: u64, mut len: u32) {
            while len > 0 {
                if self.free == 0 {
                    self.bytes.push(0);
                    self.free = 8;
                }
                let part = len.min(self.free);
                let bits = (value >> (len - part)) as u8 & (0xffu16 >> (8 - part)) as u8;
                *self.bytes.last_mut().expect("pushed above") |= bits << (self.free - part);
                self.free -= part;
                len -= part;
            }
        }
    }
}
