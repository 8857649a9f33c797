//! What does a log say after a restart?
//!
//! Records are read in order. A record that is damaged is skipped up to the
//! next that is good; what a reader builds from the entries must then wait for
//! key rows ([`Replayed::Gap`]). Damage without a good record after it is a
//! torn tail, which was never acknowledged.

use std::io;
use std::path::Path;

use super::{DIRECTORY, EXEMPLAR, FILE_HEADER, ITEM, RECORD_HEADER_BYTES, RECORD_MAGIC, name_of};
use crate::engine::fs::{FileSystem, read_all};
use crate::engine::varint;
use crate::labels::LabelsBuilder;
use crate::sample::Exemplar;

/// Largest segment that is read.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// One thing the log says.
pub(crate) enum Replayed<'a> {
    /// An item of a stripe.
    Item { segment: u64, stripe_id: u64, item: &'a [u8] },
    /// An exemplar of a series.
    Exemplar { series: u32, exemplar: Exemplar },
    /// Bytes were skipped: any stripe may miss items.
    Gap,
}

/// What reading the log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Report {
    pub(crate) segments: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Bytes that are no records, before good ones.
    pub(crate) damaged_bytes: u64,
    /// Bytes that are no records, at the end of a segment.
    pub(crate) torn_bytes: u64,
}

/// The segments there are, ascending.
pub(crate) fn segments(fs: &dyn FileSystem, root: &Path) -> io::Result<Vec<u64>> {
    let names = fs.list(&root.join(DIRECTORY))?;
    let number = |n: &String| n.strip_suffix(".log").and_then(|n| n.parse().ok());
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads one segment; says its good length.
pub(crate) fn read_segment(
    fs: &dyn FileSystem,
    root: &Path,
    number: u64,
    report: &mut Report,
    apply: &mut impl FnMut(Replayed<'_>),
) -> io::Result<u64> {
    let bytes = read_all(fs, &root.join(name_of(number)), MAX_SEGMENT_BYTES)?;
    report.segments += 1;
    report.bytes += bytes.len() as u64;
    if bytes.len() >= 8 && bytes[..4] == FILE_HEADER[..4] && bytes[4..8] != FILE_HEADER[4..] {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "log of a newer version of narthex",
        ));
    }
    let mut at = FILE_HEADER.len().min(bytes.len());
    let mut good = at;
    while at < bytes.len() {
        if let Some((payload, end)) = record_at(&bytes, at) {
            if at > good {
                report.damaged_bytes += (at - good) as u64;
                apply(Replayed::Gap);
            }
            report.records += 1;
            if apply_record(number, payload, apply).is_none() {
                apply(Replayed::Gap);
            }
            (at, good) = (end, end);
        } else {
            let next = memchr::memmem::find(&bytes[at + 1..], &RECORD_MAGIC);
            at = next.map_or(bytes.len(), |next| at + 1 + next);
        }
    }
    if good < bytes.len() {
        report.torn_bytes += (bytes.len() - good) as u64;
        apply(Replayed::Gap);
    }
    Ok(good as u64)
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

fn apply_record(
    segment: u64,
    mut input: &[u8],
    apply: &mut impl FnMut(Replayed<'_>),
) -> Option<()> {
    while !input.is_empty() {
        match varint::take_byte(&mut input)? {
            ITEM => {
                let stripe_id = varint::take(&mut input)?;
                let item = varint::take_sized(&mut input)?;
                apply(Replayed::Item { segment, stripe_id, item });
            }
            EXEMPLAR => {
                let series = u32::try_from(varint::take(&mut input)?).ok()?;
                let timestamp_ms = varint::take_signed(&mut input)?;
                let value = f64::from_bits(varint::take_u64(&mut input)?);
                let mut labels = LabelsBuilder::new();
                for _ in 0..varint::take_count(&mut input)? {
                    let (name, value) = (take_text(&mut input)?, take_text(&mut input)?);
                    labels.set(name, value);
                }
                let exemplar = Exemplar { labels: labels.build(), value, timestamp_ms };
                apply(Replayed::Exemplar { series, exemplar });
            }
            _ => return None,
        }
    }
    Some(())
}

fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(varint::take_sized(input)?).ok()
}
