//! Blobs from one repository to another, a piece at a time.

use std::io;

use oci::Digest;
use tokio::sync::mpsc;

use crate::body::Pieces;
use crate::error::Error;
use crate::repository::Repository;
use crate::upload::{Source, Upload};

/// Pieces on their way from one server to the other: what a blob of any size takes in memory.
const PIECE_QUEUE: usize = 8;

impl Repository {
    /// Sends a blob of this repository on as an upload to another one, whatever its size: little of it is here at any time. Where either
    /// side breaks off it goes on from there; the target checks the digest.
    pub async fn send_blob(&self, digest: &Digest, size_bytes: u64, mut upload: Upload) -> Result<(), Error> {
        let source = Carried { from: self.clone(), digest: *digest, size_bytes };
        match upload.send(&source).await {
            Ok(()) => upload.commit(digest).await,
            Err(error) => {
                upload.cancel().await;
                Err(error)
            }
        }
    }
}

struct Carried {
    from: Repository,
    digest: Digest,
    size_bytes: u64,
}

impl Source for Carried {
    fn open(&self, offset: u64) -> Pieces {
        let (sender, pieces) = mpsc::channel(PIECE_QUEUE);
        let (from, digest, size_bytes) = (self.from.clone(), self.digest, self.size_bytes);
        tokio::spawn(async move {
            let passing = async {
                let mut stream = from.blob_range(&digest, size_bytes, offset..size_bytes).await?;
                while let Some(piece) = stream.piece().await? {
                    if sender.send(Ok(piece)).await.is_err() {
                        break;
                    }
                }
                Ok::<(), Error>(())
            };
            if let Err(error) = passing.await {
                // Who does not listen any more knows why.
                let _ = sender.send(Err(io::Error::other(error.to_string()))).await;
            }
        });
        pieces
    }
}
