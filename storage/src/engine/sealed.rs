//! Where do sealed stripes live? Behind this seam, of which there is one
//! implementation per engine.
//!
//! A [`Sealed`] adds stripes to *volumes*: a file, or whatever else an engine
//! keeps the stripes of one day in. A [`Volume`] is read as long as anybody
//! holds it, superseded or not, without the engine. Log, series and small
//! files are no sealed data: they are files whatever the engine.
//!
//! What was appended may be lost until [`Sealed::sync`] says that it is
//! durable; the log holds its rows that long. All stripes of a volume that a
//! [`Successor`] wrote count from one moment on, and then none of the volumes
//! of that day that were there when it was begun.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::day::catalog::{Catalog, Stripe};
use crate::day::stripe::{Encoded, Header, RunRange};
use crate::engine::fs::FileSystem;

/// Which engine keeps the sealed data of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Engine {
    /// Files of stripes, one directory per day.
    #[default]
    Files,
    /// A RocksDB database, a column family per day.
    #[cfg(feature = "rocksdb")]
    RocksDb,
}

/// All engines there may be, compiled in or not: names and folders.
const FOLDERS: [(&str, &str); 2] = [("rocksdb", "rocksdb"), ("files", "days")];

impl Engine {
    /// The engine of this name, `files` or `rocksdb`; `None` if this build has
    /// none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Files,
            #[cfg(feature = "rocksdb")]
            Self::RocksDb,
        ];
        all.into_iter().find(|engine| engine.name() == name)
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            #[cfg(feature = "rocksdb")]
            Self::RocksDb => "rocksdb",
        }
    }

    /// The folder of the data directory that it keeps everything in. It is
    /// there before anything else, and says whose the directory is.
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::Files => super::files::FOLDER,
            #[cfg(feature = "rocksdb")]
            Self::RocksDb => super::rocksdb::FOLDER,
        }
    }

    /// The name of the engine that wrote a data directory.
    pub(crate) fn name_in(fs: &dyn FileSystem, root: &Path) -> Option<&'static str> {
        let is_there = |(_, folder): &&(&str, &str)| fs.exists(&root.join(folder));
        FOLDERS.iter().find(is_there).map(|(name, _)| *name)
    }

    /// Finds what is in a data directory.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn open(self, fs: &Arc<dyn FileSystem>, root: &Path) -> io::Result<Found> {
        match self {
            Self::Files => super::files::open(fs, root),
            #[cfg(feature = "rocksdb")]
            Self::RocksDb => super::rocksdb::open(root),
        }
    }
}

/// Writes stripes. Used by one thread at a time.
pub(crate) trait Sealed: Send + Debug {
    /// Adds a stripe to the open volume of its day; it can be read at once.
    ///
    /// # Errors
    ///
    /// What the system says; the stripe is then not there.
    fn append(&mut self, id: u64, encoded: &Encoded) -> io::Result<Stripe>;

    /// Makes all that was appended durable.
    ///
    /// Returns the days of which something could not be made so, and is perhaps
    /// in memory only: the caller writes them to a successor while it is.
    ///
    /// # Errors
    ///
    /// What the system says, if trying again is all that it takes.
    fn sync(&mut self) -> io::Result<Vec<i64>>;

    /// Makes the open volume of a day durable; the next stripe of the day
    /// begins another.
    ///
    /// # Errors
    ///
    /// What the system says; the day is then one that [`Sealed::sync`] would
    /// return.
    fn close(&mut self, day: i64) -> io::Result<()>;

    /// Begins a volume that supersedes all that the day has now, and takes no
    /// more stripes then. Stripes that come meanwhile go to another.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn successor(&mut self, day: i64) -> io::Result<Box<dyn Successor>>;

    /// Gives back the space of superseded volumes, once nobody reads them.
    ///
    /// # Errors
    ///
    /// What the system says; a start gives it back then.
    fn retire(&mut self, volumes: Volumes) -> io::Result<()>;

    /// Gives back the space of all volumes of a day.
    ///
    /// # Errors
    ///
    /// What the system says; to be called again.
    fn remove_day(&mut self, day: i64) -> io::Result<()>;

    /// Makes these volumes, all durable, part of the data directory `target`,
    /// without copying them. They are never changed from now on.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn link_to(&mut self, target: &Path, volumes: &[Arc<dyn Volume>]) -> io::Result<()>;

    /// Gives back the space of what somebody read when it was retired or removed.
    ///
    /// # Errors
    ///
    /// What the system says; to be called again.
    fn tidy(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Heap that the engine uses for itself, in bytes.
    fn memory_bytes(&self) -> u64 {
        0
    }

    /// Bytes on disk beyond those of the stripes in the catalog, all in all
    /// `stripe_bytes`, if they are worth counting.
    fn overhead_bytes(&self, stripe_bytes: u64) -> u64 {
        let _ = stripe_bytes;
        0
    }
}

/// A volume that is written to supersede others. Dropped before its end it
/// leaves nothing.
pub(crate) trait Successor {
    /// Adds a stripe. Its volume is another when all is there.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn append(&mut self, id: u64, encoded: &Encoded) -> io::Result<Stripe>;

    /// Makes it durable, then the one that counts.
    ///
    /// # Errors
    ///
    /// What the system says; it then does not count, or the same as before
    /// can be read from it.
    fn finish(self: Box<Self>) -> io::Result<Arc<dyn Volume>>;
}

/// Some volumes, each once.
pub(crate) type Volumes = Vec<Arc<dyn Volume>>;

/// Reads the stripes of one day that are kept together.
pub(crate) trait Volume: Send + Sync + Debug {
    /// Unique in the data directory, ascending in order of creation.
    fn number(&self) -> u64;

    /// Relative to the data directory.
    fn name(&self) -> &str;

    /// The day its stripes begin on.
    fn day(&self) -> i64;

    /// Whether a [`Successor`] wrote it.
    fn is_merged(&self) -> bool;

    /// Makes durable what a process before this one perhaps did not.
    ///
    /// # Errors
    ///
    /// What the system says; all is then as with [`Sealed::sync`].
    fn sync(&self) -> io::Result<()>;

    /// Reads and checks the header of a stripe.
    ///
    /// # Errors
    ///
    /// `InvalidData` or `UnexpectedEof` if it is damaged; else what the system
    /// says.
    fn read_header(&self, stripe: &Stripe) -> io::Result<Header>;

    /// Reads and checks a run of chunks: one read.
    ///
    /// # Errors
    ///
    /// `InvalidData` or `UnexpectedEof` if it is damaged; else what the system
    /// says.
    fn read_run(&self, stripe: &Stripe, run: &RunRange) -> io::Result<Vec<u8>>;

    /// How a person finds the byte `at` of a stripe: a name relative to the
    /// data directory, and an offset.
    fn place(&self, stripe: &Stripe, at: u64) -> (String, u64);
}

/// What an engine found in a data directory.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) sealed: Box<dyn Sealed>,
    pub(crate) catalog: Catalog,
    /// Days with something that cannot be read.
    pub(crate) unread: BTreeSet<i64>,
    pub(crate) damages: Vec<Damaged>,
}

/// What is left out because it cannot be read.
#[derive(Debug)]
pub(crate) struct Damaged {
    /// Relative to the data directory.
    pub(crate) file: String,
    pub(crate) offset: u64,
    /// 0: all of it.
    pub(crate) bytes: u64,
    pub(crate) what: String,
}

/// The error of a checksum.
pub(crate) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: wrong checksum"))
}

/// Bytes of a run, if their checksum is right.
pub(crate) fn checked(bytes: Vec<u8>, run: &RunRange) -> io::Result<Vec<u8>> {
    if crc32fast::hash(&bytes) == run.crc { Ok(bytes) } else { Err(damaged("chunks")) }
}
