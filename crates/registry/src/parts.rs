//! The rest of a blob in parts that come side by side, where one connection alone is slower than what waits for it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use oci::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::repository::Repository;

/// How a blob is taken apart.
#[derive(Debug, Clone)]
pub struct Split {
    /// The size of a part, which is kept in memory until its turn comes.
    pub part_bytes: u64,
    /// Parts of one blob at one time, and so connections.
    pub at_once: usize,
    /// A permit for each part in memory, of all blobs together.
    pub permits: Arc<Semaphore>,
}

/// The parts of one blob from some byte on.
#[derive(Debug)]
pub(crate) struct Parts {
    repository: Repository,
    digest: Digest,
    size_bytes: u64,
    split: Split,
    /// Where the next part to be asked for begins.
    next: u64,
    /// Parts on their way, in order.
    coming: VecDeque<Task>,
    /// The part whose turn it is.
    current: Option<Part>,
}

/// A part that is here.
#[derive(Debug)]
struct Part {
    pieces: VecDeque<Bytes>,
    _permit: OwnedSemaphorePermit,
}

/// A task that ends with whoever waits for it.
#[derive(Debug)]
struct Task(JoinHandle<Result<Part, Error>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Parts {
    pub(crate) fn new(repository: Repository, digest: Digest, size_bytes: u64, position: u64, split: Split) -> Parts {
        Parts { repository, digest, size_bytes, split, next: position, coming: VecDeque::new(), current: None }
    }

    /// The next piece, in order; nothing at the end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(piece) = self.current.as_mut().and_then(|part| part.pieces.pop_front()) {
                return Ok(Some(piece));
            }
            // Its memory goes back before another takes its place.
            self.current = None;
            self.ask();
            let Some(mut task) = self.coming.pop_front() else { return Ok(None) };
            let part = (&mut task.0).await.expect("it is aborted only when this waits no more, and does not panic");
            self.current = Some(part?);
        }
    }

    /// Asks for as many parts as may come at one time.
    fn ask(&mut self) {
        while self.coming.len() < self.split.at_once && self.next < self.size_bytes {
            let end = self.next.saturating_add(self.split.part_bytes.max(1)).min(self.size_bytes);
            let fetching = fetch(
                self.repository.clone(),
                self.digest,
                self.size_bytes,
                self.next..end,
                self.split.permits.clone(),
            );
            self.coming.push_back(Task(tokio::spawn(fetching)));
            self.next = end;
        }
    }
}

async fn fetch(
    repository: Repository,
    digest: Digest,
    size_bytes: u64,
    range: std::ops::Range<u64>,
    permits: Arc<Semaphore>,
) -> Result<Part, Error> {
    // They are given in the order in which they are asked for, so that of each blob the part whose turn it is comes first.
    let permit = permits.acquire_owned().await.expect("it is never closed");
    let mut stream = repository.blob_range(&digest, size_bytes, range).await?;
    let mut pieces = VecDeque::new();
    while let Some(piece) = stream.piece().await? {
        pieces.push_back(piece);
    }
    Ok(Part { pieces, _permit: permit })
}
