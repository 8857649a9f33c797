//! Which queries ran when the process was killed?
//!
//! ```text
//! queries.active   slots of 1,024 bytes: a query in UTF-8, cut at the end of
//!                  the slot, behind it zeros; a free slot begins with a zero
//! ```
//!
//! A query takes a slot while it runs, with a write that stays in the page
//! cache: the file outlives the process, not the machine, and is never
//! synced. Rules take none: they run in any case, and an idle box does not
//! write for them.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Bytes of a slot.
const SLOT_BYTES: usize = 1024;

/// Largest file that is read: it may be that of a run with more slots.
const MAX_BYTES: u64 = 16 << 20;

/// The queries that run.
#[derive(Debug)]
pub struct ActiveQueries {
    file: File,
    free: Mutex<Vec<usize>>,
}

impl ActiveQueries {
    /// Opens the file in the directory `data` with `slots` slots, all free;
    /// gives the queries that a process before this one did not end.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(data: &Path, slots: usize) -> io::Result<(Self, Vec<String>)> {
        let mut options = File::options();
        let file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(data.join("queries.active"))?;
        let mut bytes = Vec::new();
        (&file).take(MAX_BYTES).read_to_end(&mut bytes)?;
        let unfinished = bytes.chunks(SLOT_BYTES).filter_map(text_of).collect();
        file.set_len(0)?;
        Ok((Self { file, free: Mutex::new((0..slots).rev().collect()) }, unfinished))
    }

    /// Notes that a query runs, until the guard is dropped. If there is no
    /// slot or it cannot be written, the query runs unnoted.
    pub fn insert(&self, text: &str) -> ActiveQuery<'_> {
        let slot = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(slot) = slot {
            let mut bytes = [0; SLOT_BYTES];
            let text = text.as_bytes();
            let len = text.len().min(SLOT_BYTES);
            bytes[..len].copy_from_slice(&text[..len]);
            let _ = self.file.write_all_at(&bytes, offset_of(slot));
        }
        ActiveQuery { queries: self, slot }
    }
}

/// A query that runs.
#[derive(Debug)]
pub struct ActiveQuery<'a> {
    queries: &'a ActiveQueries,
    slot: Option<usize>,
}

impl Drop for ActiveQuery<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let _ = self.queries.file.write_all_at(&[0], offset_of(slot));
            self.queries.free.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        }
    }
}

const fn offset_of(slot: usize) -> u64 {
    (slot * SLOT_BYTES) as u64
}

/// The query in a slot; `None` if it is free.
fn text_of(slot: &[u8]) -> Option<String> {
    let text = slot.split(|b| *b == 0).next().filter(|text| !text.is_empty())?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_end_is_found_by_the_next_process() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (queries, before) = ActiveQueries::open(directory.path(), 2).expect("opens");
        assert!(before.is_empty());
        let long = format!("{}é", "x".repeat(SLOT_BYTES - 1));
        std::mem::forget(queries.insert("up"));
        drop(queries.insert("ended"));
        std::mem::forget(queries.insert(&long));
        drop(queries.insert("without a slot"));
        let (queries, before) = ActiveQueries::open(directory.path(), 2).expect("opens");
        assert_eq!(before[0], "up");
        assert!(before[1].starts_with("xxx") && before.len() == 2, "{before:?}");
        drop(queries.insert("up"));
        let (_, before) = ActiveQueries::open(directory.path(), 1).expect("opens");
        assert!(before.is_empty());
    }
}
