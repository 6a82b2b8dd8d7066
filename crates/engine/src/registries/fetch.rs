//! One layer from a registry into the store, in one pass.
//!
//! ```text
//! BlobStream (async) ─┬▶ a thread hashes the blob
//!                     └▶ a thread inflates and indexes ─▶ the layer's own threads hash the tar and write it
//! ```
//!
//! Both get the same pieces of the network's memory; nothing is copied before it is inflated, and nothing after.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use images::{AddedLayer, LayerBlob, LayerError};
use oci::image::Descriptor;
use oci::{DiffId, Digest, Digester};
use registry::{BlobStream, Repository, Split};
use tokio::sync::mpsc;

use super::Told;
use super::failure::Failure;
use super::flow::Flow;
use crate::engine::{Engine, blocking};
use crate::model::{EngineError, chain};

/// Pieces on their way from the network to each of the two threads.
const PIECE_QUEUE: usize = 8;
/// How long one connection is watched before others join it.
const PACE_INTERVAL: Duration = Duration::from_millis(1500);
/// Less is there before others have been asked for it.
const SPLIT_BYTES_MIN: u64 = 16 << 20;
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

/// Held by what works on a thread for a pull. Such work cannot be called off, only waited for: it ends with its stream.
pub(super) type Working = mpsc::Sender<std::convert::Infallible>;

/// Fetches a layer unless it is here, or comes meanwhile. Gives how its bytes flowed, if they did.
pub(super) async fn fetch(
    engine: &Engine,
    repository: &Repository,
    wanted: &Wanted,
    told: &Told,
    working: Working,
) -> Result<Option<Flow>, Failure> {
    let lock = engine.inner.registries.fetching(&wanted.layer);
    let _fetching = lock.lock().await;
    let id = wanted.id();
    if engine.inner.images.has_layer(&wanted.layer) {
        told.step(&id, "Already exists").await;
        return Ok(None);
    }
    let begun = Instant::now();
    let mut stream = repository.blob(&wanted.blob.digest, wanted.blob.size).await?;
    let (to_store, stored) = mpsc::channel(PIECE_QUEUE);
    let (to_hash, hashed) = mpsc::channel(PIECE_QUEUE);
    let split = engine.inner.registries.split();
    let receiving = receive(&mut stream, wanted, told, split, [to_hash, to_store]);
    let hashing = on_a_thread(working.clone(), move || hash(hashed));
    let storing = store(engine, BlobInput::new(stored, wanted.blob.size), wanted, working);
    let (received, hashed, stored) = tokio::join!(receiving, hashing, storing);
    // A stream that failed is why the layer could not be stored.
    received?;
    let (layer, waited_for_network) = stored?;
    if hashed? != wanted.blob.digest {
        let words = "filesystem layer verification failed for digest";
        return Err(Failure::Image(format!("{words} {}", wanted.blob.digest)));
    }
    note(engine, wanted).await;
    told.step(&id, "Pull complete").await;
    Ok(Some(Flow {
        fetched_bytes: wanted.blob.size,
        tar_bytes: layer.tar_bytes,
        elapsed: begun.elapsed(),
        waited_for_network,
        waited_for_disk: layer.waited_for_disk,
    }))
}

/// Passes the blob on as it comes.
async fn receive(
    stream: &mut BlobStream,
    wanted: &Wanted,
    told: &Told,
    split: Split,
    targets: [mpsc::Sender<Bytes>; 2],
) -> Result<(), Failure> {
    let (id, total) = (wanted.id(), wanted.blob.size);
    let mut progress = Bar { told, id: &id, current: 0, total, drawn: None };
    let (mut pace, mut split) = (Pace::default(), Some(split));
    loop {
        let asked = Instant::now();
        let Some(piece) = stream.piece().await? else { break };
        let came = Instant::now();
        progress.advance(piece.len());
        let [to_hash, to_store] = &targets;
        if to_hash.send(piece.clone()).await.is_err() || to_store.send(piece).await.is_err() {
            // The layer was refused; why, the other end says.
            break;
        }
        pace.add(came - asked, came.elapsed());
        if pace.is_starving()
            && stream.left() > SPLIT_BYTES_MIN
            && let Some(split) = split.take()
        {
            stream.split(split);
        }
    }
    drop(targets);
    told.step(&id, "Verifying Checksum").await;
    told.step(&id, "Download complete").await;
    told.bar(&id, "Extracting", total, total);
    Ok(())
}

/// Whether a connection keeps up with what its bytes are for.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    handed_on: Duration,
}

impl Pace {
    fn add(&mut self, waited: Duration, handed_on: Duration) {
        self.waited += waited;
        self.handed_on += handed_on;
    }

    /// Whether it has been slower by far, and for so long that it may well stay so.
    fn is_starving(&self) -> bool {
        self.waited + self.handed_on >= PACE_INTERVAL && self.waited >= self.handed_on * 4
    }
}

fn hash(mut pieces: mpsc::Receiver<Bytes>) -> Digest {
    let mut digester = Digester::new();
    while let Some(piece) = pieces.blocking_recv() {
        digester.update(&piece);
    }
    digester.finish()
}

async fn on_a_thread<T: Send + 'static>(
    working: Working,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    let ended = tokio::task::spawn_blocking(move || {
        let result = work();
        drop(working);
        result
    });
    ended.await.map_err(|error| EngineError::system("a task of the engine ended early", error))
}

/// Stores the layer; gives also how long the network kept it waiting.
async fn store(
    engine: &Engine,
    mut input: BlobInput,
    wanted: &Wanted,
    working: Working,
) -> Result<(AddedLayer, Duration), Failure> {
    let (images, layer) = (Arc::clone(&engine.inner.images), wanted.layer);
    let stored = on_a_thread(working, move || {
        let stored = images.add_layer(Box::new(&mut input), Some(&layer));
        (stored, input.waited)
    });
    let (stored, waited) = stored.await?;
    match stored {
        Ok(layer) => Ok((layer, waited)),
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

/// A blob as a reader on a blocking thread.
#[derive(Debug)]
struct BlobInput {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
    left: u64,
    waited: Duration,
}

impl BlobInput {
    fn new(pieces: mpsc::Receiver<Bytes>, size_bytes: u64) -> BlobInput {
        BlobInput { pieces, piece: Bytes::new(), left: size_bytes, waited: Duration::ZERO }
    }
}

impl BufRead for BlobInput {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && self.left > 0 {
            let begun = Instant::now();
            // A sender that is gone before everything has come has failed, or was told to stop.
            let piece = self.pieces.blocking_recv().ok_or(io::ErrorKind::UnexpectedEof)?;
            self.waited += begun.elapsed();
            self.left = self.left.saturating_sub(piece.len() as u64);
            self.piece = piece;
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, length: usize) {
        self.piece.advance(length);
    }
}

impl Read for BlobInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = buffer.len().min(available.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_connection_is_told_from_a_slow_disk() {
        let pace = |waited, handed_on| {
            let mut pace = Pace::default();
            pace.add(Duration::from_millis(waited), Duration::from_millis(handed_on));
            pace.is_starving()
        };
        assert!(pace(1500, 0) && pace(4000, 1000));
        assert!(!pace(1000, 0) && !pace(1000, 1000) && !pace(0, 4000));
    }

    #[test]
    fn what_comes_is_read_and_a_missing_end_is_seen() {
        let (sender, pieces) = mpsc::channel(4);
        sender.try_send(Bytes::from_static(b"con")).unwrap();
        sender.try_send(Bytes::from_static(b"ex")).unwrap();
        let mut text = String::new();
        BlobInput::new(pieces, 5).read_to_string(&mut text).unwrap();
        assert_eq!(text, "conex");

        let (sender, pieces) = mpsc::channel(4);
        sender.try_send(Bytes::from_static(b"con")).unwrap();
        drop(sender);
        let error = BlobInput::new(pieces, 5).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
