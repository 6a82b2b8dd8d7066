//! Writing a tar to a stream.

use std::io::{self, Write};

use super::{EntryKind, Metadata};

/// What to write of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name, without leading slash. Directories get their `/` by themselves.
    pub path: &'a [u8],
    /// Permissions, owner, time, attributes.
    pub metadata: &'a Metadata,
    /// What it is.
    pub kind: &'a EntryKind,
}

/// Writes entries one after the other: a plain ustar header where it can say everything, PAX before it where not.
#[derive(Debug)]
pub struct Writer<W: Write> {
    inner: W,
}

impl<W: Write> Writer<W> {
    /// Writes to `inner`.
    pub fn new(inner: W) -> Self {
        Writer { inner }
    }

    /// Writes an entry without contents, or the header of a file whose `size` bytes are then written by `Write`.
    pub fn start(&mut self, header: &Header<'_>) -> io::Result<()> {
        let _ = header;
        Err(io::Error::other("not built yet"))
    }

    /// Writes a file with its contents.
    pub fn file(&mut self, path: &[u8], metadata: &Metadata, contents: &[u8]) -> io::Result<()> {
        let kind = EntryKind::File { size: contents.len() as u64, sparse: None };
        self.start(&Header { path, metadata, kind: &kind })?;
        self.write_all(contents)
    }

    /// Writes the end of the tar and gives the inner writer back.
    pub fn finish(self) -> io::Result<W> {
        Ok(self.inner)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
