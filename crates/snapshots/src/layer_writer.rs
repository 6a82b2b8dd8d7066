//! A layer on its way into the store.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use archive::Refusal;
use archive::layer::LayerTree;
use archive::tar::{Decoder, Event, Limits};
use durable::StagedFile;
use oci::DiffId;

use crate::Error;
use crate::crowd::{Crowd, Leave};
use crate::pipeline::Pipeline;

/// A layer that has been stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The SHA-256 of the uncompressed tar.
    pub diff_id: DiffId,
    /// The size of the uncompressed tar.
    pub tar_bytes: u64,
}

/// A layer whose bytes have all arrived.
#[derive(Debug)]
pub(crate) struct StagedLayer {
    pub(crate) file: StagedFile,
    pub(crate) tree: LayerTree,
    /// Goes with the tree.
    pub(crate) leave: Option<Leave>,
    pub(crate) diff_id: DiffId,
    pub(crate) tar_bytes: u64,
}

/// What a back end does with a layer that has arrived.
pub(crate) trait Commit: Send + Sync + fmt::Debug {
    /// Keeps the layer, under its digest, for good. One that is here already is left as it is.
    fn commit(&self, layer: StagedLayer) -> Result<(), Error>;
}

/// Takes the uncompressed tar of one layer, hashing and indexing it as it comes.
///
/// Write in pieces of any size; hashing and writing run on threads of their own. A refusal of the tar's contents surfaces as an [`io::Error`] of kind
/// `InvalidData` from `write`, and again, typed, from [`finish`](LayerWriter::finish).
#[derive(Debug)]
pub struct LayerWriter {
    store: Arc<dyn Commit>,
    /// Before the file, so that a writer that is dropped stops its threads before the file is removed.
    pipeline: Pipeline,
    file: StagedFile,
    decoder: Decoder,
    tree: LayerTree,
    crowd: Arc<Crowd>,
    leave: Option<Leave>,
    refused: Option<Refusal>,
}

impl LayerWriter {
    pub(crate) fn new(store: Arc<dyn Commit>, dir: &Path, crowd: &Arc<Crowd>) -> Result<Self, Error> {
        let file = StagedFile::create(dir)?;
        let pipeline = Pipeline::new(file.file(), file.path()).map_err(Error::io("open", file.path()))?;
        let (decoder, tree) = (Decoder::new(Limits::default()), LayerTree::new());
        Ok(LayerWriter { store, pipeline, file, decoder, tree, crowd: Arc::clone(crowd), leave: None, refused: None })
    }

    /// Ends the tar and names the layer: everything is on the disk before its name is. A layer that was here already is kept as it
    /// was. With `expected`, any other digest is [`Error::WrongDigest`] and leaves nothing.
    pub fn finish(self, expected: Option<&DiffId>) -> Result<Layer, Error> {
        if let Some(refusal) = self.refused {
            return Err(refusal.into());
        }
        let tar_bytes = self.pipeline.bytes();
        // Before the tar's end is looked at: a stream that stopped because the disk is full is cut, but that is not what is wrong.
        let diff_id = DiffId(self.pipeline.finish().map_err(Error::io("write", self.file.path()))?);
        self.decoder.end()?;
        if let Some(expected) = expected.filter(|expected| **expected != diff_id) {
            return Err(Error::WrongDigest { expected: *expected, actual: diff_id });
        }
        let (file, tree, leave) = (self.file, self.tree, self.leave);
        self.store.commit(StagedLayer { file, tree, leave, diff_id, tar_bytes })?;
        Ok(Layer { diff_id, tar_bytes })
    }

    /// Takes all that `source` gives, which it puts where the disk takes it from. The error is the source's own; where something is
    /// wrong with the layer the reading ends early, and [`finish`](LayerWriter::finish) says what.
    pub fn read_from(&mut self, source: &mut dyn Read) -> io::Result<()> {
        while self.refused.is_none() {
            let Ok(room) = self.pipeline.room() else { return Ok(()) };
            let length = match source.read(room) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.refused = parse(&mut self.decoder, &mut self.tree, &room[..length]).err();
            self.pipeline.advance(length);
            self.crowd.admit(self.tree.memory_bytes(), &mut self.leave);
        }
        Ok(())
    }

    /// How long the stream had to wait because the disk was behind.
    pub fn waited_for_disk(&self) -> Duration {
        self.pipeline.waited_for_disk()
    }
}

fn parse(decoder: &mut Decoder, tree: &mut LayerTree, mut bytes: &[u8]) -> Result<(), Refusal> {
    while !bytes.is_empty() {
        let step = decoder.decode(bytes)?;
        bytes = &bytes[step.consumed..];
        if let Some(Event::Entry(entry)) = step.event {
            tree.apply(*entry)?;
        }
    }
    Ok(())
}

impl Write for LayerWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(refusal) = &self.refused {
            return Err(refusal.clone().into());
        }
        let taken = self.pipeline.write(bytes)?;
        if let Err(refusal) = parse(&mut self.decoder, &mut self.tree, &bytes[..taken]) {
            self.refused = Some(refusal.clone());
            return Err(refusal.into());
        }
        self.crowd.admit(self.tree.memory_bytes(), &mut self.leave);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
