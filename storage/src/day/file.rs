//! How do stripes get into files and out again?
//!
//! ```text
//! days/<year>-<month>-<day>/<number>.stripes = header "NXDY" version 1, stripes
//! ```
//!
//! Stripes are appended, one write each, and never changed. A start reads the
//! headers; what follows the last good stripe of a file is ignored, and a
//! damaged stripe in the middle is skipped up to the next that is good.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::catalog::Stripe;
use super::stripe::{self, Header, MAGIC, PREFIX_BYTES, RunRange};
use crate::engine::fs::{File, FileSystem, OpenMode};
use crate::engine::header;
use crate::engine::sealed::{Volume, checked, damaged};

/// First letters of a day file, and its version.
const LETTERS: [u8; 4] = *b"NXDY";
const VERSION: u8 = 1;
/// Ending of the names of day files.
pub(crate) const EXTENSION: &str = "stripes";
/// Ending of the names of files that a merge wrote; they supersede all files
/// of their directory with smaller numbers.
pub(crate) const MERGED_EXTENSION: &str = "merged";

/// An open day file.
#[derive(Debug)]
pub(crate) struct DayFile {
    day: i64,
    /// Unique in the data directory.
    number: u64,
    /// Relative to the data directory.
    name: String,
    file: Arc<dyn File>,
}

/// A stripe that was found in a file.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) header_bytes: u32,
    pub(crate) header: Header,
}

/// What a scan of a file found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) stripes: Vec<Found>,
    /// Offset and length of what is no stripe.
    pub(crate) damaged: Vec<(u64, u64)>,
}

impl DayFile {
    /// Makes a new file, with nothing but its header, whose name ends so.
    pub(crate) fn create(
        fs: &dyn FileSystem,
        root: &Path,
        day: i64,
        number: u64,
        extension: &str,
    ) -> io::Result<Self> {
        let directory = directory_of(day);
        let name = format!("{directory}/{number:08}.{extension}");
        fs.create_dir_all(&root.join(directory))?;
        let file = fs.open(&root.join(&name), OpenMode::Create)?;
        file.append(&header::of(LETTERS, VERSION))?;
        Ok(Self { day, number, name, file })
    }

    /// The same file, once it has the name that ends so.
    pub(crate) fn renamed(
        &self,
        fs: &dyn FileSystem,
        root: &Path,
        extension: &str,
    ) -> io::Result<Self> {
        let stem = self.name.rsplit_once('.').map_or(self.name.as_str(), |(stem, _)| stem);
        let name = format!("{stem}.{extension}");
        fs.rename(&root.join(&self.name), &root.join(&name))?;
        Ok(Self { day: self.day, number: self.number, name, file: Arc::clone(&self.file) })
    }

    /// Opens a file that is there.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        root: &Path,
        name: String,
        day: i64,
        number: u64,
    ) -> io::Result<Self> {
        let file = fs.open(&root.join(&name), OpenMode::Read)?;
        Ok(Self { day, number, name, file })
    }

    /// Bytes that a new file has.
    pub(crate) const fn start_bytes() -> u64 {
        header::BYTES as u64
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &dyn File {
        &*self.file
    }

    /// Reads all stripe headers.
    pub(crate) fn scan(&self) -> io::Result<Scan> {
        let len = self.file.len()?;
        let mut scan = Scan::default();
        let mut start = [0; header::BYTES];
        if len < header::BYTES as u64 {
            scan.damaged.extend((len > 0).then_some((0, len)));
            return Ok(scan);
        }
        self.file.read_exact_at(&mut start, 0)?;
        match header::check(&start, LETTERS, VERSION) {
            header::Found::Newer => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "stripes of a newer version of narthex",
                ));
            }
            header::Found::Damaged => scan.damaged.push((0, header::BYTES as u64)),
            header::Found::Known => {}
        }
        let mut offset = Self::start_bytes();
        while offset < len {
            match self.header_at(offset, len)? {
                Some(found) => {
                    offset += (PREFIX_BYTES as u64)
                        + u64::from(found.header_bytes)
                        + u64::from(found.header.payload_bytes);
                    scan.stripes.push(found);
                }
                None => {
                    let next = self.next_stripe(offset, len)?;
                    scan.damaged.push((offset, next - offset));
                    offset = next;
                }
            }
        }
        Ok(scan)
    }

    /// The stripe at an offset, if all of it can be in the file.
    fn header_at(&self, offset: u64, len: u64) -> io::Result<Option<Found>> {
        let mut prefix = [0; PREFIX_BYTES];
        if offset + PREFIX_BYTES as u64 > len {
            return Ok(None);
        }
        self.file.read_exact_at(&mut prefix, offset)?;
        let word = |at: usize| {
            u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]])
        };
        let header_bytes = word(4);
        let start = offset + PREFIX_BYTES as u64;
        if prefix[..4] != MAGIC
            || header_bytes as usize > stripe::MAX_HEADER_BYTES
            || start + u64::from(header_bytes) > len
        {
            return Ok(None);
        }
        let mut bytes = vec![0; header_bytes as usize];
        self.file.read_exact_at(&mut bytes, start)?;
        if crc32fast::hash(&bytes) != word(8) {
            return Ok(None);
        }
        let Ok(header) = Header::decode(&bytes) else { return Ok(None) };
        let end = start + u64::from(header_bytes) + u64::from(header.payload_bytes);
        Ok((end <= len).then_some(Found { offset, header_bytes, header }))
    }

    /// Where the next good stripe begins.
    fn next_stripe(&self, from: u64, len: u64) -> io::Result<u64> {
        let mut at = from;
        loop {
            at = self.next_magic(at + 1, len)?;
            if at >= len || self.header_at(at, len)?.is_some() {
                return Ok(at);
            }
        }
    }

    fn next_magic(&self, from: u64, len: u64) -> io::Result<u64> {
        let mut buffer = vec![0; 64 << 10];
        let mut at = from;
        while at + (MAGIC.len() as u64) < len {
            let take = ((len - at) as usize).min(buffer.len());
            let window = &mut buffer[..take];
            self.file.read_exact_at(window, at)?;
            if let Some(found) = memchr::memmem::find(window, &MAGIC) {
                return Ok(at + found as u64);
            }
            at += (take - (MAGIC.len() - 1)) as u64;
        }
        Ok(len)
    }
}

impl Volume for DayFile {
    fn number(&self) -> u64 {
        self.number
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn day(&self) -> i64 {
        self.day
    }

    fn is_merged(&self) -> bool {
        self.name.ends_with(MERGED_EXTENSION)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn read_header(&self, stripe: &Stripe) -> io::Result<Header> {
        let end = stripe.offset + PREFIX_BYTES as u64 + u64::from(stripe.header_bytes);
        match self.header_at(stripe.offset, u64::MAX - end)? {
            Some(found) if found.header_bytes == stripe.header_bytes => Ok(found.header),
            _ => Err(damaged("stripe header")),
        }
    }

    fn read_run(&self, stripe: &Stripe, run: &RunRange) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; (run.bytes.end - run.bytes.start) as usize];
        let at = stripe.offset + stripe.payload_at(run.bytes.start);
        self.file.read_exact_at(&mut bytes, at)?;
        checked(bytes, run)
    }

    fn place(&self, stripe: &Stripe, at: u64) -> (String, u64) {
        (self.name.clone(), stripe.offset + at)
    }
}

/// The directory of a day, relative to the data directory.
pub(crate) fn directory_of(day: i64) -> String {
    let (year, month, date) = civil(day);
    format!("days/{year:04}-{month:02}-{date:02}")
}

/// The day that a directory name stands for.
pub(crate) fn day_of_directory(name: &str) -> Option<i64> {
    let (rest, date) = name.rsplit_once('-')?;
    let (year, month) = rest.rsplit_once('-')?;
    let (year, month, date) = (year.parse().ok()?, month.parse().ok()?, date.parse().ok()?);
    let day = days_from_civil(year, month, date)?;
    (directory_of(day).strip_prefix("days/") == Some(name)).then_some(day)
}

/// Year, month and day of month of a day since the epoch (Hinnant's
/// algorithm: years begin in March, eras have 400 years).
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, date)
}

fn days_from_civil(year: i64, month: i64, date: i64) -> Option<i64> {
    if !(-300_000..300_000).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&date)
    {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + date - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn directories_are_dates() {
        assert_eq!(directory_of(0), "days/1970-01-01");
        assert_eq!(directory_of(19_782), "days/2024-02-29");
        assert_eq!(day_of_directory("2024-02-30"), None);
        assert_eq!(day_of_directory("01HZX"), None);
    }

    proptest! {
        #[test]
        fn days_come_back(day in -800_000i64..4_000_000) {
            let name = directory_of(day);
            prop_assert_eq!(day_of_directory(name.strip_prefix("days/").expect("made so")), Some(day));
        }
    }
}
