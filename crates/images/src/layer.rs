//! One layer on its way into the store: decompressed, hashed, indexed and written in one pass.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use oci::DiffId;
use snapshots::Selection;

use crate::{ErrorKind, ImageStore};

/// The size of the pieces that go from a stream to the layer.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// Why a layer is not stored.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its stream broke off, or its compression is damaged.
    #[error("cannot read the layer")]
    Input(#[source] io::Error),
    /// Its tar is refused, is another one than was announced, or cannot be written.
    #[error(transparent)]
    Store(#[from] snapshots::Error),
}

impl LayerError {
    /// What it means to a caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LayerError::Input(_)
            | LayerError::Store(snapshots::Error::Refused(_) | snapshots::Error::WrongDigest { .. }) => {
                ErrorKind::InvalidParameter
            }
            LayerError::Store(_) => ErrorKind::Internal,
        }
    }
}

/// A layer that has been stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedLayer {
    /// Its name.
    pub diff_id: DiffId,
    /// The size of its uncompressed tar.
    pub tar_bytes: u64,
    /// How long its stream had to wait for the disk.
    pub waited_for_disk: Duration,
}

impl ImageStore {
    /// Stores the layer that `input` gives, compressed or not. Hold a [`Lease`](crate::Lease) until an image has it.
    ///
    /// It is decompressed and indexed here, straight into the memory that it is hashed and written from on threads of its own.
    pub fn add_layer(
        &self,
        input: Box<dyn BufRead + Send + '_>,
        expected: Option<&DiffId>,
    ) -> Result<AddedLayer, LayerError> {
        let mut tar = archive::compression::decompress_here(input).map_err(LayerError::Input)?;
        let mut writer = self.snapshotter.stage()?;
        writer.read_from(&mut *tar).map_err(LayerError::Input)?;
        let waited_for_disk = writer.waited_for_disk();
        let layer = writer.finish(expected)?;
        Ok(AddedLayer { diff_id: layer.diff_id, tar_bytes: layer.tar_bytes, waited_for_disk })
    }

    /// Stores what is selected of an overlay's upper directory as a layer. Hold a [`Lease`](crate::Lease) until an image has it.
    pub fn add_changes(&self, upper: &Path, selection: Selection) -> Result<DiffId, LayerError> {
        let tar = BufReader::with_capacity(PIECE_BYTES, self.snapshotter.diff(upper, selection)?);
        Ok(self.add_layer(Box::new(tar), None)?.diff_id)
    }

    /// Whether the layer is here.
    pub fn has_layer(&self, layer: &DiffId) -> bool {
        self.snapshotter.has(layer)
    }

    /// The layer's uncompressed tar, and its size.
    pub fn open_layer(&self, layer: &DiffId) -> Result<(Box<dyn Read + Send>, u64), snapshots::Error> {
        Ok((self.snapshotter.open_tar(layer)?, self.snapshotter.size(layer)?))
    }
}

/// Reads until the buffer is full or the stream ends.
pub(crate) fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
