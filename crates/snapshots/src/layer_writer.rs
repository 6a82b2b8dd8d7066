//! A layer on its way into the store.

use std::io::{self, Write};

use oci::DiffId;

use crate::Error;

/// A layer that has been stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The SHA-256 of the uncompressed tar.
    pub diff_id: DiffId,
    /// The size of the uncompressed tar.
    pub tar_bytes: u64,
}

/// Takes the uncompressed tar of one layer, hashing and indexing it as it comes.
///
/// Write in large pieces (128 KiB and more): hashing runs on its own thread. A refusal of the tar's contents surfaces as an
/// [`io::Error`] of kind `InvalidData` from `write`, and again, typed, from [`finish`](LayerWriter::finish).
#[derive(Debug)]
pub struct LayerWriter {}

impl LayerWriter {
    /// Ends the tar and names the layer: everything is on the disk before its name is. A layer that was here already is kept as it
    /// was. With `expected`, any other digest is [`Error::WrongDigest`] and leaves nothing.
    pub fn finish(self, expected: Option<&DiffId>) -> Result<Layer, Error> {
        let _ = expected;
        Err(Error::Io { action: "finish", path: "layer".into(), source: io::Error::other("not built yet") })
    }
}

impl Write for LayerWriter {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("not built yet"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
