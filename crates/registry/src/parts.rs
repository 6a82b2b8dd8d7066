//! The rest of a blob in parts that come side by side, where one connection alone is slower than what waits for it.

use std::collections::VecDeque;
use std::ops::Range;
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

    /// The next piece, in order; nothing at the end. Nothing is lost if this is not awaited to its end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(piece) = self.current.as_mut().and_then(|part| part.pieces.pop_front()) {
                return Ok(Some(piece));
            }
            // Its memory goes back before another takes its place.
            self.current = None;
            self.ask().await;
            let Some(task) = self.coming.front_mut() else { return Ok(None) };
            let part = (&mut task.0).await.expect("it is aborted only when this waits no more, and does not panic");
            self.coming.pop_front();
            self.current = Some(part?);
        }
    }

    /// Asks for as many parts as may come at one time.
    ///
    /// Permits are taken here and not by the parts' tasks: were a later part to get the last one before an earlier, neither would end. Only
    /// who has none yet waits for one, so whoever has some can always go on and give them back.
    async fn ask(&mut self) {
        while self.coming.len() < self.split.at_once && self.next < self.size_bytes {
            let permits = Arc::clone(&self.split.permits);
            let permit = match self.coming.is_empty() {
                true => permits.acquire_owned().await.expect("it is never closed"),
                false => match permits.try_acquire_owned() {
                    Ok(permit) => permit,
                    Err(_) => return,
                },
            };
            self.start(permit);
        }
    }

    /// Asks for the next part.
    fn start(&mut self, permit: OwnedSemaphorePermit) {
        let end = self.next.saturating_add(self.split.part_bytes.max(1)).min(self.size_bytes);
        let (repository, digest) = (self.repository.clone(), self.digest);
        self.coming.push_back(Task(tokio::spawn(fetch(repository, digest, self.size_bytes, self.next..end, permit))));
        self.next = end;
    }
}

async fn fetch(
    repository: Repository,
    digest: Digest,
    size_bytes: u64,
    range: Range<u64>,
    permit: OwnedSemaphorePermit,
) -> Result<Part, Error> {
    let mut stream = repository.blob_range(&digest, size_bytes, range).await?;
    let mut pieces = VecDeque::new();
    while let Some(piece) = stream.piece().await? {
        pieces.push_back(piece);
    }
    Ok(Part { pieces, _permit: permit })
}
