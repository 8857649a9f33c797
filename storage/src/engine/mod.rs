//! Where do bytes live? The file system behind a seam, and how integers are
//! written into files.

pub mod fs;
pub(crate) mod varint;
