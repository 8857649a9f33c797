//! How does the storage touch files? Through one small trait, so that tests
//! can fail any call and rebuild what a crash would leave.
//!
//! Files are only ever appended to, never changed in place, and a name is
//! given to a file or directory after its content was synced.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading only; must exist.
    Read,
    /// For reading and appending; created if missing.
    Append,
    /// For reading and appending; made empty if it exists.
    Create,
}

/// A place for files.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Creates a directory and its parents; succeeds if it exists.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Whether there is a file or directory; no if that cannot be told.
    fn exists(&self, path: &Path) -> bool;
    /// Names in a directory, sorted; empty if it does not exist.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Renames, replacing the target.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes names in a directory durable.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Locks a file, created if missing, until what is returned is dropped or
    /// the process ends.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if another holds it; else what the system says.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
}

/// A lock that is held.
pub trait Lock: Send + Sync + fmt::Debug {}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "an empty file is no case of its own")]
pub trait File: Send + Sync + fmt::Debug {
    /// Appends all of `bytes`. After an error any prefix may have been
    /// written; the caller cuts it off.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    ///
    /// What the system says; `UnexpectedEof` if the file is too short.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn len(&self) -> io::Result<u64>;
    /// Makes the content durable.
    ///
    /// # Errors
    ///
    /// What the system says. The state of unsynced bytes is then unknown.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// Whether a call failed because nothing can be written at the moment.
pub(crate) fn is_lack_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads a whole file, at most `limit` bytes.
///
/// # Errors
///
/// What the system says; `InvalidData` if it is larger.
pub fn read_all(fs: &dyn FileSystem, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = fs.open(path, OpenMode::Read)?;
    let len = file.len()?;
    if len > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "file is larger than its limit"));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Writes a file so that it is there whole or not at all: to a temporary
/// name, synced, then renamed, then the directory synced.
///
/// # Errors
///
/// What the system says.
pub fn write_atomically(fs: &dyn FileSystem, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let file = fs.open(&temporary, OpenMode::Create)?;
    file.append(bytes)?;
    file.sync()?;
    fs.rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |parent| fs.sync_dir(parent))
}

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

#[derive(Debug)]
struct DiskFile(fs::File);

impl FileSystem for Disk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Append => {
                options.append(true).create(true);
            }
            OpenMode::Create => {
                // Appending and truncating exclude each other in `open`.
                match fs::remove_file(path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => options.append(true).create(true),
                };
            }
        }
        Ok(Arc::new(DiskFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let here = Path::new(".");
        fs::File::open(if path.as_os_str().is_empty() { here } else { path })?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(DiskFile(file))),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }
}

impl Lock for DiskFile {}

impl File for DiskFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        use io::Write as _;
        (&self.0).write_all(bytes)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}
