//! One layer from a registry into the store, in one pass.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use images::{LayerBlob, LayerError};
use oci::image::Descriptor;
use oci::{DiffId, Digester};
use registry::Repository;
use tokio::sync::mpsc;

use super::Told;
use super::failure::Failure;
use crate::engine::{Engine, blocking};
use crate::model::{EngineError, chain};

/// Pieces on their way from the network to the disk.
const PIECE_QUEUE: usize = 8;
/// How often the progress of one layer is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// A layer that an image needs.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// As the registry keeps it.
    pub(super) blob: Descriptor,
    /// What its uncompressed tar must hash to.
    pub(super) layer: DiffId,
    /// The repository's name in full, for the notes.
    pub(super) origin: String,
}

impl Wanted {
    /// What the layer is called in progress lines.
    pub(super) fn id(&self) -> String {
        self.blob.digest.short()
    }
}

/// Fetches a layer unless it is here, or comes meanwhile.
pub(super) async fn fetch(
    engine: &Engine,
    repository: &Repository,
    wanted: &Wanted,
    told: &Told,
) -> Result<(), Failure> {
    let lock = engine.inner.registries.fetching(&wanted.layer);
    let _fetching = lock.lock().await;
    let id = wanted.id();
    if engine.inner.images.has_layer(&wanted.layer) {
        told.step(&id, "Already exists").await;
        return Ok(());
    }
    let mut stream = repository.blob(&wanted.blob.digest, wanted.blob.size).await?;
    let (pieces, incoming) = mpsc::channel(PIECE_QUEUE);
    let input = BlobInput::new(incoming, wanted.blob.size);
    let hash = Arc::clone(&input.hash);
    let storing = store(engine, input, wanted);
    let mut progress = Bar { told, id: &id, current: 0, total: wanted.blob.size, drawn: None };
    let receiving = async {
        while let Some(piece) = stream.piece().await? {
            progress.advance(piece.len());
            if pieces.send(piece).await.is_err() {
                // The layer was refused; why, the other end says.
                break;
            }
        }
        drop(pieces);
        told.step(&id, "Verifying Checksum").await;
        told.step(&id, "Download complete").await;
        told.bar(&id, "Extracting", wanted.blob.size, wanted.blob.size);
        Ok::<(), Failure>(())
    };
    let (received, stored) = tokio::join!(receiving, storing);
    // A stream that failed is why the layer could not be stored.
    received?;
    stored?;
    let actual = hash.lock().unwrap_or_else(PoisonError::into_inner).clone().finish();
    if actual != wanted.blob.digest {
        let words = "filesystem layer verification failed for digest";
        return Err(Failure::Image(format!("{words} {}", wanted.blob.digest)));
    }
    note(engine, wanted).await;
    told.step(&id, "Pull complete").await;
    Ok(())
}

async fn store(engine: &Engine, input: BlobInput, wanted: &Wanted) -> Result<(), Failure> {
    let (images, layer) = (Arc::clone(&engine.inner.images), wanted.layer);
    let stored = tokio::task::spawn_blocking(move || images.add_layer(Box::new(input), Some(&layer))).await;
    match stored.map_err(|error| EngineError::system("a task of the engine ended early", error))? {
        Ok(_) => Ok(()),
        Err(LayerError::Store(error @ snapshots::Error::WrongDigest { .. })) => {
            Err(Failure::Image(format!("layers from manifest don't match image configuration: {error}")))
        }
        Err(error @ (LayerError::Input(_) | LayerError::Store(snapshots::Error::Refused(_)))) => {
            Err(Failure::Image(format!("failed to register layer: {}", chain(&error))))
        }
        Err(error) => Err(EngineError::system("failed to register layer", error).into()),
    }
}

/// A note that cannot be written costs a later push some time, and this pull nothing.
async fn note(engine: &Engine, wanted: &Wanted) {
    let (images, wanted) = (Arc::clone(&engine.inner.images), wanted.clone());
    let blob = LayerBlob {
        digest: wanted.blob.digest,
        size_bytes: wanted.blob.size,
        media_type: wanted.blob.media_type,
        repositories: vec![wanted.origin],
    };
    let noted = blocking(move || {
        let noted = images.note_blob(&wanted.layer, blob);
        noted.map_err(|error| EngineError::system("cannot note where a layer came from", error))
    });
    if let Err(error) = noted.await {
        tracing::warn!("{error}");
    }
}

struct Bar<'a> {
    told: &'a Told,
    id: &'a str,
    current: u64,
    total: u64,
    drawn: Option<Instant>,
}

impl Bar<'_> {
    fn advance(&mut self, bytes: usize) {
        self.current += bytes as u64;
        if self.current == self.total || self.drawn.is_none_or(|drawn| drawn.elapsed() >= PROGRESS_INTERVAL) {
            self.drawn = Some(Instant::now());
            self.told.bar(self.id, "Downloading", self.current, self.total);
        }
    }
}

/// A blob as a reader on a blocking thread, hashed as it is read.
#[derive(Debug)]
struct BlobInput {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
    left: u64,
    hash: Arc<Mutex<Digester>>,
}

impl BlobInput {
    fn new(pieces: mpsc::Receiver<Bytes>, size_bytes: u64) -> BlobInput {
        BlobInput { pieces, piece: Bytes::new(), left: size_bytes, hash: Arc::default() }
    }
}

impl Read for BlobInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && self.left > 0 {
            // A sender that is gone before everything has come has failed, or was told to stop.
            let piece = self.pieces.blocking_recv().ok_or(io::ErrorKind::UnexpectedEof)?;
            self.hash.lock().unwrap_or_else(PoisonError::into_inner).update(&piece);
            self.left = self.left.saturating_sub(piece.len() as u64);
            self.piece = piece;
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use oci::Digest;

    use super::*;

    #[test]
    fn what_is_read_is_hashed_and_a_missing_end_is_seen() {
        let (sender, pieces) = mpsc::channel(4);
        sender.try_send(Bytes::from_static(b"con")).unwrap();
        sender.try_send(Bytes::from_static(b"ex")).unwrap();
        let mut input = BlobInput::new(pieces, 5);
        let hash = Arc::clone(&input.hash);
        let mut text = String::new();
        input.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), hash.lock().unwrap().clone().finish()), ("conex", Digest::of(b"conex")));

        let (sender, pieces) = mpsc::channel(4);
        sender.try_send(Bytes::from_static(b"con")).unwrap();
        drop(sender);
        let error = BlobInput::new(pieces, 5).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
