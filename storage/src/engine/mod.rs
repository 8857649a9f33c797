//! Where do bytes live? The file system behind a seam, how files begin, and
//! how integers are written into them.

pub mod fs;
pub(crate) mod header;
pub(crate) mod varint;
