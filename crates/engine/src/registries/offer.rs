//! One layer from the store to a registry, sent only if it has to be.

use std::io::{self, Read as _, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use archive::compression::{Compression, Compressor};
use bytes::Bytes;
use images::LayerBlob;
use oci::image::{Descriptor, media_type};
use oci::{DiffId, Digest, Digester};
use registry::{Error, Mount, Pieces, Repository, Source, Upload};
use tokio::sync::mpsc;

use super::Told;
use crate::engine::{Engine, blocking};
use crate::model::{EngineError, chain};

/// Pieces on their way from the disk to the network.
const PIECE_QUEUE: usize = 8;
const PIECE_BYTES: usize = 256 << 10;
/// Blobs of one layer that the registry is asked about.
const CANDIDATES_MAX: usize = 4;
/// How often the progress of one layer is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Where an image goes.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) repository: Repository,
    /// The registry, as it stands in names.
    pub(super) domain: String,
}

impl Target {
    /// The repository's name in full.
    fn name(&self) -> String {
        format!("{}/{}", self.domain, self.repository.path())
    }
}

/// Sees to it that the registry has a layer; says as which blob. `preferred` is the blob that the image's manifest names.
pub(super) async fn offer(
    engine: &Engine,
    target: &Target,
    layer: DiffId,
    preferred: Option<&Descriptor>,
    told: &Told,
) -> Result<Descriptor, EngineError> {
    let failed = |error: Error| super::failure::of_push(&error);
    let candidates = candidates(engine, layer, preferred).await?;
    let id = layer.digest().short();
    for blob in &candidates {
        if target.repository.has_blob(&blob.digest).await.map_err(failed)? {
            told.step(&id, "Layer already exists").await;
            return note(engine, target, layer, blob.clone()).await;
        }
    }
    let (mounted, upload) = mount(target, &candidates).await.map_err(failed)?;
    if let Some((blob, from)) = mounted {
        told.step(&id, &format!("Mounted from {from}")).await;
        return note(engine, target, layer, blob).await;
    }
    let upload = match upload {
        Some(upload) => upload,
        None => target.repository.start_upload().await.map_err(failed)?,
    };
    let compression = compression(&candidates, layer);
    let blob = send(engine, layer, compression, upload, told).await?;
    told.step(&id, "Pushed").await;
    note(engine, target, layer, blob).await
}

/// The blobs under which a registry may have a layer, the most likely first.
async fn candidates(
    engine: &Engine,
    layer: DiffId,
    preferred: Option<&Descriptor>,
) -> Result<Vec<LayerBlob>, EngineError> {
    let images = Arc::clone(&engine.inner.images);
    let noted = blocking(move || Ok(images.blobs_of(&layer))).await?;
    let repositories = |digest: &Digest| {
        let known = noted.iter().find(|blob| blob.digest == *digest);
        known.map(|blob| blob.repositories.clone()).unwrap_or_default()
    };
    let mut candidates: Vec<LayerBlob> = preferred
        .map(|blob| LayerBlob {
            digest: blob.digest,
            size_bytes: blob.size,
            media_type: blob.media_type.clone(),
            repositories: repositories(&blob.digest),
        })
        .into_iter()
        .collect();
    for blob in noted {
        if candidates.iter().all(|known| known.digest != blob.digest) {
            candidates.push(blob);
        }
    }
    candidates.truncate(CANDIDATES_MAX);
    Ok(candidates)
}

/// Tries to take one of the blobs from another repository of the same registry. A refusal has begun an upload.
async fn mount(
    target: &Target,
    candidates: &[LayerBlob],
) -> Result<(Option<(LayerBlob, String)>, Option<Upload>), Error> {
    let mut begun: Option<Upload> = None;
    for blob in candidates {
        let prefix = format!("{}/", target.domain);
        let here = blob.repositories.iter().filter_map(|name| name.strip_prefix(&prefix));
        for from in here.filter(|path| *path != target.repository.path()) {
            match target.repository.mount(&blob.digest, from).await? {
                Mount::Mounted => {
                    if let Some(upload) = begun {
                        upload.cancel().await;
                    }
                    return Ok((Some((blob.clone(), from.to_owned())), None));
                }
                Mount::Refused(upload) => {
                    if let Some(previous) = begun.replace(upload) {
                        previous.cancel().await;
                    }
                }
            }
        }
    }
    Ok((None, begun))
}

/// A layer that its image has uncompressed is sent so, which keeps its digest. Others cannot be compressed again as a stranger did:
/// they get gzip, and with it a new digest.
fn compression(candidates: &[LayerBlob], layer: DiffId) -> Compression {
    let is_plain = candidates.first().is_some_and(|blob| blob.digest == *layer.digest());
    if is_plain { Compression::None } else { Compression::Gzip }
}

async fn send(
    engine: &Engine,
    layer: DiffId,
    compression: Compression,
    mut upload: Upload,
    told: &Told,
) -> Result<LayerBlob, EngineError> {
    let source = LayerSource { engine: engine.clone(), layer, compression, told: told.clone(), result: Arc::default() };
    let sent = upload.send(&source).await;
    let result = *source.result.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = |error: Error| EngineError::system("cannot push a layer", error);
    let Some((digest, size_bytes)) = result.filter(|_| sent.is_ok()) else {
        upload.cancel().await;
        sent.map_err(|error| super::failure::of_push(&error))?;
        let early = io::Error::new(io::ErrorKind::UnexpectedEof, "the registry did not take the whole layer");
        return Err(failed(Error::Source(early)));
    };
    upload.commit(&digest).await.map_err(|error| super::failure::of_push(&error))?;
    let media_type = match compression {
        Compression::None => media_type::DOCKER_LAYER,
        _ => media_type::DOCKER_LAYER_GZIP,
    };
    Ok(LayerBlob { digest, size_bytes, media_type: media_type.to_owned(), repositories: Vec::new() })
}

/// Notes that the target has the blob.
async fn note(engine: &Engine, target: &Target, layer: DiffId, blob: LayerBlob) -> Result<Descriptor, EngineError> {
    let descriptor = Descriptor::new(&blob.media_type, blob.digest, blob.size_bytes);
    let images = Arc::clone(&engine.inner.images);
    let blob = LayerBlob { repositories: vec![target.name()], ..blob };
    let noted = blocking(move || {
        let noted = images.note_blob(&layer, blob);
        noted.map_err(|error| EngineError::system("cannot note where a layer went", error))
    });
    // It costs the next push some time, and this one nothing.
    if let Err(error) = noted.await {
        tracing::warn!("{error}");
    }
    Ok(descriptor)
}

/// A layer's tar, compressed as often as it has to be sent. The same tar gives the same bytes each time.
struct LayerSource {
    engine: Engine,
    layer: DiffId,
    compression: Compression,
    told: Told,
    /// Digest and size of the compressed bytes, once they were all made.
    result: Arc<Mutex<Option<(Digest, u64)>>>,
}

impl Source for LayerSource {
    fn open(&self, offset: u64) -> Pieces {
        let (sender, pieces) = mpsc::channel(PIECE_QUEUE);
        let images = Arc::clone(&self.engine.inner.images);
        let (layer, compression) = (self.layer, self.compression);
        let (told, result) = (self.told.clone(), Arc::clone(&self.result));
        *result.lock().unwrap_or_else(PoisonError::into_inner) = None;
        tokio::task::spawn_blocking(move || {
            let output = Outgoing { sender, skip: offset, piece: Vec::new(), hash: Digester::new() };
            let failure = output.sender.clone();
            match compress(&images, &layer, compression, output, &told) {
                Ok(made) => *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(made),
                // Who does not listen any more knows why.
                Err(error) => drop(failure.blocking_send(Err(error))),
            }
        });
        pieces
    }
}

fn compress(
    images: &images::ImageStore,
    layer: &DiffId,
    compression: Compression,
    output: Outgoing,
    told: &Told,
) -> io::Result<(Digest, u64)> {
    let (mut tar, total) = images.open_layer(layer).map_err(|error| io::Error::other(chain(&error)))?;
    let mut compressor = Compressor::new(output, compression)?;
    let (id, mut current, mut drawn) = (layer.digest().short(), 0, None::<Instant>);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = tar.read(&mut piece)?;
        if length == 0 {
            break;
        }
        compressor.write_all(&piece[..length])?;
        current += length as u64;
        if current == total || drawn.is_none_or(|drawn| drawn.elapsed() >= PROGRESS_INTERVAL) {
            drawn = Some(Instant::now());
            told.bar(&id, "Pushing", current, total);
        }
    }
    let mut output = compressor.finish()?;
    output.flush()?;
    let size_bytes = output.hash.size_bytes();
    Ok((output.hash.finish(), size_bytes))
}

/// Hashes everything, and sends what lies behind an offset.
struct Outgoing {
    sender: mpsc::Sender<io::Result<Bytes>>,
    skip: u64,
    piece: Vec<u8>,
    hash: Digester,
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        self.piece.extend_from_slice(&bytes[skipped..]);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
