//! What does a log say after a restart?
//!
//! Records are read in order, as far as their segment counts. A record that is
//! damaged is skipped up to the next that is good; what a reader builds from
//! the entries must then wait for key rows ([`Replayed::Gap`]). In a segment of
//! which no later one says how much counts, damage behind what was synced is a
//! torn tail, which was never acknowledged as durable: it ends the segment.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use super::{
    CLOSED, DIRECTORY, DURABLE, EXEMPLAR, ITEM, LETTERS, RECORD_HEADER_BYTES, RECORD_MAGIC,
    RESTART, VERSION, name_of,
};
use crate::engine::fs::{FileSystem, OpenMode, read_all};
use crate::engine::{header, varint};
use crate::labels::LabelsBuilder;
use crate::sample::Exemplar;

/// Largest segment that is read.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;
/// Bytes of a segment that say what counts of others, nearly always.
const FIRST_BYTES: u64 = 4096;

/// One thing the log says.
pub(crate) enum Replayed<'a> {
    /// An item of a stripe.
    Item { segment: u64, stripe_id: u64, item: &'a [u8] },
    /// An exemplar of a series.
    Exemplar { series: u32, exemplar: Exemplar },
    /// What was said of a stripe is void.
    Restart { stripe_id: u64 },
    /// Bytes were skipped: any stripe may miss items.
    Gap,
}

/// What reading the log found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Report {
    pub(crate) segments: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Bytes that are no records, before good ones.
    pub(crate) damaged_bytes: u64,
    /// Bytes behind the first damage of what was not durable.
    pub(crate) torn_bytes: u64,
    /// File, offset and bytes of each damage.
    pub(crate) damages: Vec<(String, u64, u64)>,
}

/// The segments there are.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// Ascending.
    pub(crate) numbers: Vec<u64>,
    /// How much of a segment counts, where a later one says so.
    lengths: HashMap<u64, u64>,
    /// Segments that were begun to write rows once more and do not end so:
    /// what they repeat is in those before.
    unfinished: HashSet<u64>,
}

impl Segments {
    /// Lists the segments and reads what they say of each other. What cannot
    /// be read says nothing.
    ///
    /// # Errors
    ///
    /// If the directory cannot be listed.
    pub(crate) fn find(fs: &dyn FileSystem, root: &Path) -> io::Result<Self> {
        let names = fs.list(&root.join(DIRECTORY))?;
        let number = |n: &String| n.strip_suffix(".log").and_then(|n| n.parse().ok());
        let mut found =
            Self { numbers: names.iter().filter_map(number).collect(), ..Self::default() };
        found.numbers.sort_unstable();
        for i in 1..found.numbers.len() {
            let number = found.numbers[i];
            if let Ok(false) = found.read_lengths(fs, &root.join(name_of(number))) {
                found.unfinished.insert(number);
            }
        }
        Ok(found)
    }

    /// Notes what a segment says of others; whether it counts itself.
    fn read_lengths(&mut self, fs: &dyn FileSystem, path: &Path) -> io::Result<bool> {
        let file = fs.open(path, OpenMode::Read)?;
        let len = file.len()?;
        let mut bytes = vec![0; len.min(FIRST_BYTES) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        let start = header::BYTES.min(bytes.len());
        if bytes.get(4) == Some(&1) || self.note_record(&bytes, start).is_some_and(|r| r.1) {
            return Ok(true);
        }
        // Perhaps behind rows that were written once more.
        drop(file);
        let bytes = read_all(fs, path, MAX_SEGMENT_BYTES)?;
        let mut at = start;
        while let Some((end, is_closing)) = self.note_record(&bytes, at) {
            if is_closing {
                return Ok(true);
            }
            at = end;
        }
        Ok(durable_bytes(&bytes) > 0)
    }

    /// Notes what a record says of other segments: where it ends, and whether
    /// it says something.
    fn note_record(&mut self, bytes: &[u8], at: usize) -> Option<(usize, bool)> {
        let (mut payload, end) = record_at(bytes, at)?;
        let mut is_closing = false;
        while payload.first() == Some(&CLOSED) {
            let input = &mut &payload[1..];
            let (number, len) = (varint::take(input)?, varint::take(input)?);
            payload = input;
            is_closing = true;
            self.lengths.insert(number, len);
        }
        Some((end, is_closing))
    }
}

/// Reads one segment; says how much of it counts.
pub(crate) fn read_segment(
    fs: &dyn FileSystem,
    root: &Path,
    segments: &Segments,
    number: u64,
    report: &mut Report,
    apply: &mut impl FnMut(Replayed<'_>),
) -> io::Result<u64> {
    let mut bytes = read_all(fs, &root.join(name_of(number)), MAX_SEGMENT_BYTES)?;
    report.segments += 1;
    report.bytes += bytes.len() as u64;
    let mut segment = Segment { number, report, apply };
    match header::check(&bytes, LETTERS, VERSION) {
        header::Found::Newer => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "log of a newer version of narthex",
            ));
        }
        header::Found::Damaged if bytes.len() >= header::BYTES => {
            segment.damaged(0, header::BYTES as u64);
        }
        _ => {}
    }
    let is_first_version = bytes.get(4) == Some(&1);
    let counts = match segments.unfinished.contains(&number) {
        true => Some(header::BYTES as u64),
        false => segments.lengths.get(&number).copied(),
    };
    if let Some(counts) = counts {
        bytes.truncate(usize::try_from(counts).unwrap_or(usize::MAX));
    }
    // Damage up to here is skipped, and ends the segment behind it.
    let durable = || match counts {
        None if !is_first_version => durable_bytes(&bytes),
        _ => bytes.len(),
    };
    Ok(segment.read(&bytes, durable) as u64)
}

struct Segment<'a, F> {
    number: u64,
    report: &'a mut Report,
    apply: &'a mut F,
}

impl<F: FnMut(Replayed<'_>)> Segment<'_, F> {
    fn read(&mut self, bytes: &[u8], durable_bytes: impl FnOnce() -> usize) -> usize {
        let durable = LazyCell::new(durable_bytes);
        let mut at = header::BYTES.min(bytes.len());
        let mut good = at;
        while at < bytes.len() {
            if let Some((payload, end)) = record_at(bytes, at) {
                if at > good {
                    self.damaged(good as u64, (at - good) as u64);
                    (self.apply)(Replayed::Gap);
                }
                self.report.records += 1;
                if self.record(payload).is_none() {
                    (self.apply)(Replayed::Gap);
                }
                (at, good) = (end, end);
            } else if at < *durable {
                at = next_record(bytes, at);
                if at > *durable {
                    break;
                }
            } else {
                break;
            }
        }
        if good < bytes.len() {
            self.report.torn_bytes += (bytes.len() - good) as u64;
            if good < *durable {
                self.damaged(good as u64, (bytes.len() - good) as u64);
            }
            (self.apply)(Replayed::Gap);
        }
        good
    }

    fn damaged(&mut self, offset: u64, bytes: u64) {
        self.report.damaged_bytes += bytes;
        self.report.damages.push((name_of(self.number), offset, bytes));
    }

    fn record(&mut self, mut input: &[u8]) -> Option<()> {
        let segment = self.number;
        while !input.is_empty() {
            match varint::take_byte(&mut input)? {
                ITEM => {
                    let stripe_id = varint::take(&mut input)?;
                    let item = varint::take_sized(&mut input)?;
                    (self.apply)(Replayed::Item { segment, stripe_id, item });
                }
                EXEMPLAR => (self.apply)(take_exemplar(&mut input)?),
                RESTART => {
                    let stripe_id = varint::take(&mut input)?;
                    (self.apply)(Replayed::Restart { stripe_id });
                }
                DURABLE => {
                    varint::take(&mut input)?;
                }
                CLOSED => {
                    varint::take(&mut input)?;
                    varint::take(&mut input)?;
                }
                _ => return None,
            }
        }
        Some(())
    }
}

fn take_exemplar(input: &mut &[u8]) -> Option<Replayed<'static>> {
    let series = u32::try_from(varint::take(input)?).ok()?;
    let timestamp_ms = varint::take_signed(input)?;
    let value = f64::from_bits(varint::take_u64(input)?);
    let mut labels = LabelsBuilder::new();
    for _ in 0..varint::take_count(input)? {
        let (name, value) = (take_text(input)?, take_text(input)?);
        labels.set(name, value);
    }
    let exemplar = Exemplar { labels: labels.build(), value, timestamp_ms };
    Some(Replayed::Exemplar { series, exemplar })
}

/// The bytes that the segment itself calls durable: the newest record that
/// says so, wherever damage is.
fn durable_bytes(bytes: &[u8]) -> usize {
    let mut durable = 0;
    let mut at = header::BYTES.min(bytes.len());
    while at < bytes.len() {
        let Some((payload, end)) = record_at(bytes, at) else {
            at = next_record(bytes, at);
            continue;
        };
        // The last entry: one byte of kind, then one varint to the end.
        durable = durable.max(durable_entry(payload).unwrap_or(0));
        at = end;
    }
    durable.min(bytes.len() as u64) as usize
}

/// What the last entry of a record says, walking over the entries before it.
fn durable_entry(mut input: &[u8]) -> Option<u64> {
    while !input.is_empty() {
        match varint::take_byte(&mut input)? {
            ITEM => {
                varint::take(&mut input)?;
                varint::take_sized(&mut input)?;
            }
            EXEMPLAR => {
                take_exemplar(&mut input)?;
            }
            DURABLE => return varint::take(&mut input),
            RESTART => {
                varint::take(&mut input)?;
            }
            CLOSED => {
                varint::take(&mut input)?;
                varint::take(&mut input)?;
            }
            _ => return None,
        }
    }
    None
}

/// Where the next record may begin.
fn next_record(bytes: &[u8], at: usize) -> usize {
    let next = memchr::memmem::find(&bytes[at + 1..], &RECORD_MAGIC);
    next.map_or(bytes.len(), |next| at + 1 + next)
}

/// The payload of a record at `at` and where it ends, if there is one.
fn record_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let mut input = bytes.get(at..)?;
    if varint::take_bytes(&mut input, 2)? != RECORD_MAGIC {
        return None;
    }
    let len = varint::take_u32(&mut input)? as usize;
    let crc = varint::take_u32(&mut input)?;
    let payload = input.get(..len)?;
    (crc32fast::hash(payload) == crc).then_some((payload, at + RECORD_HEADER_BYTES + len))
}

fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(varint::take_sized(input)?).ok()
}
