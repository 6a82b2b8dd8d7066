//! Reading a tar from a stream.

use std::io::{self, Read};

use super::Entry;

/// What a tar may ask for at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Number of entries.
    pub entries: u64,
    /// Bytes of one name or link target.
    pub path_bytes: usize,
    /// Components of one name.
    pub path_depth: usize,
    /// Bytes of one entry's PAX and GNU headers together.
    pub extension_bytes: u64,
    /// Bytes of one entry's extended attributes, names included.
    pub xattr_bytes: usize,
    /// Size of one sparse file, holes included.
    pub sparse_bytes: u64,
    /// Segments of one sparse file.
    pub sparse_segments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entries: 4_000_000,
            path_bytes: 4095,
            path_depth: 1024,
            extension_bytes: 1 << 20,
            xattr_bytes: 256 << 10,
            sparse_bytes: 8 << 40,
            sparse_segments: 100_000,
        }
    }
}

/// Reads entries one after the other. `Read` on it gives the stored bytes of the entry that `next_entry` returned last (of a sparse
/// file: its segments one after the other); what is not read is skipped.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
}

impl<R: Read> Reader<R> {
    /// Reads with the default limits.
    pub fn new(inner: R) -> Self {
        Reader { inner }
    }

    /// Reads with other limits.
    pub fn with_limits(inner: R, limits: Limits) -> Self {
        let _ = limits;
        Reader { inner }
    }

    /// The next entry, or `None` at the end of the tar. A refused tar is an error of kind `InvalidData` whose inner error is a
    /// [`Refusal`](crate::Refusal).
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        Err(io::Error::other("not built yet"))
    }

    /// The stream, at whatever place it was read to.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("not built yet"))
    }
}
