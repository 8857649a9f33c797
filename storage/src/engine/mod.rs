//! Where do bytes live? Sealed data behind one seam, the file system behind
//! another, and how files begin and integers are written into them.

mod files;
pub mod fs;
pub(crate) mod header;
#[cfg(feature = "rocksdb")]
mod rocksdb;
pub(crate) mod sealed;
pub(crate) mod varint;

pub use sealed::Engine;
