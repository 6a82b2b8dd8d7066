//! A layer on its way into the store.
//!
//! ```text
//! caller's thread   parse names ─▶ collect 1 MiB ─▶ write to the file ─┐
//! hashing thread                                                       SHA-256 ◀┘
//! ```

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use archive::Refusal;
use archive::layer::LayerTree;
use archive::tar::{Decoder, Event, Limits};
use durable::StagedFile;
use oci::{DiffId, Digest};
use sha2::{Digest as _, Sha256};

use crate::Error;

/// Bytes that go through the pipeline together.
const BUFFER_BYTES: usize = 1 << 20;
/// Buffers between the two threads; with the two that the threads hold, memory stays below 8 MiB.
const BUFFERS_QUEUED: usize = 4;

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
/// Write in pieces of any size; hashing runs on its own thread. A refusal of the tar's contents surfaces as an [`io::Error`] of kind
/// `InvalidData` from `write`, and again, typed, from [`finish`](LayerWriter::finish).
#[derive(Debug)]
pub struct LayerWriter {
    store: Arc<dyn Commit>,
    file: StagedFile,
    decoder: Decoder,
    tree: LayerTree,
    buffer: Vec<u8>,
    hasher: Hasher,
    refused: Option<Refusal>,
    tar_bytes: u64,
}

impl LayerWriter {
    pub(crate) fn new(store: Arc<dyn Commit>, dir: &Path, limits: Limits) -> Result<Self, Error> {
        let file = StagedFile::create(dir)?;
        let hasher = Hasher::start().map_err(Error::io("start a thread for", file.path()))?;
        Ok(LayerWriter {
            store,
            file,
            decoder: Decoder::new(limits),
            tree: LayerTree::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            hasher,
            refused: None,
            tar_bytes: 0,
        })
    }

    /// Ends the tar and names the layer, which may be used from now on; [`Snapshotter::sync`](crate::Snapshotter::sync) waits until
    /// it is on the disk. A layer that was here already is kept as it was. With `expected`, any other digest is
    /// [`Error::WrongDigest`] and leaves nothing.
    pub fn finish(mut self, expected: Option<&DiffId>) -> Result<Layer, Error> {
        if let Some(refusal) = self.refused.take() {
            return Err(refusal.into());
        }
        self.decoder.end()?;
        self.pass_on().map_err(Error::io("write", self.file.path()))?;
        let diff_id = DiffId(self.hasher.finish());
        if let Some(expected) = expected.filter(|expected| **expected != diff_id) {
            return Err(Error::WrongDigest { expected: *expected, actual: diff_id });
        }
        let tar_bytes = self.tar_bytes;
        self.store.commit(StagedLayer { file: self.file, tree: self.tree, diff_id, tar_bytes })?;
        Ok(Layer { diff_id, tar_bytes })
    }

    fn parse(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            let step = self.decoder.decode(bytes)?;
            bytes = &bytes[step.consumed..];
            if let Some(Event::Entry(entry)) = step.event {
                self.tree.apply(*entry)?;
            }
        }
        Ok(())
    }

    /// Writes what has been collected and gives it to the hashing thread.
    fn pass_on(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.file.write_all(&self.buffer)?;
        let next = self.hasher.next_buffer();
        self.hasher.hash(std::mem::replace(&mut self.buffer, next));
        Ok(())
    }
}

impl Write for LayerWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(refusal) = &self.refused {
            return Err(refusal.clone().into());
        }
        let taken = bytes.len().min(BUFFER_BYTES - self.buffer.len());
        let bytes = &bytes[..taken];
        if let Err(refusal) = self.parse(bytes) {
            self.refused = Some(refusal.clone());
            return Err(refusal.into());
        }
        self.buffer.extend_from_slice(bytes);
        self.tar_bytes += taken as u64;
        if self.buffer.len() == BUFFER_BYTES {
            self.pass_on()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The hashing thread. Dropped, it ends with the channel to it.
#[derive(Debug)]
struct Hasher {
    full: Option<SyncSender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<Digest>>,
}

impl Hasher {
    fn start() -> io::Result<Self> {
        let (full, to_hash) = sync_channel(BUFFERS_QUEUED);
        let (hashed, empty) = sync_channel(BUFFERS_QUEUED);
        let thread =
            std::thread::Builder::new().name("layer-sha256".to_owned()).spawn(move || hash_all(&to_hash, &hashed))?;
        Ok(Hasher { full: Some(full), empty, thread: Some(thread) })
    }

    fn next_buffer(&self) -> Vec<u8> {
        match self.empty.try_recv() {
            Ok(buffer) => buffer,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => Vec::with_capacity(BUFFER_BYTES),
        }
    }

    fn hash(&self, buffer: Vec<u8>) {
        if let Some(full) = &self.full {
            full.send(buffer).expect("the hashing thread ends only after its channel");
        }
    }

    fn finish(&mut self) -> Digest {
        self.full = None;
        let thread = self.thread.take().expect("a hasher is finished once");
        thread.join().expect("hashing does not panic")
    }
}

fn hash_all(to_hash: &Receiver<Vec<u8>>, hashed: &SyncSender<Vec<u8>>) -> Digest {
    let mut sha256 = Sha256::new();
    for mut buffer in to_hash {
        sha256.update(&buffer);
        buffer.clear();
        // When the writer has buffers enough, this one is freed.
        let _ = hashed.try_send(buffer);
    }
    Digest::from_bytes(sha256.finalize().into())
}
