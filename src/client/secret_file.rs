//! Secrets and the files they may come from.

use std::path::{Path, PathBuf};

use super::ClientError;
use crate::config::SecretSource;

/// Largest file that a secret, certificate or key is read from.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// The secret's text; a file is read anew, and its white space trimmed.
///
/// # Errors
///
/// [`ClientError::File`] if it cannot be read or is larger than 1 MiB.
pub(super) fn expose(source: &SecretSource) -> Result<String, ClientError> {
    match source {
        SecretSource::Inline(secret) => Ok(secret.expose().to_owned()),
        SecretSource::File(file) => Ok(read(file)?.trim().to_owned()),
    }
}

/// A whole text file.
///
/// # Errors
///
/// As [`expose`].
pub(super) fn read(file: &Path) -> Result<String, ClientError> {
    use std::io::Read as _;
    let fail = |source| ClientError::File { file: file.to_owned(), source };
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|f| f.take(FILE_LIMIT_BYTES + 1).read_to_string(&mut text))
        .map_err(fail)?;
    if text.len() as u64 > FILE_LIMIT_BYTES {
        return Err(fail(std::io::Error::other("larger than 1 MiB")));
    }
    Ok(text)
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Stamp(Vec<Option<FileState>>);

/// Device, inode, and the times and size that change with a file.
type FileState = (u64, u64, i64, i64, i64, i64);

impl Stamp {
    /// The state of these files now; a missing file has one, too.
    pub(super) fn of(files: &[PathBuf]) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let stamp = |file: &PathBuf| {
            let m = std::fs::metadata(file).ok()?;
            Some((m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))
        };
        Self(files.iter().map(stamp).collect())
    }
}
