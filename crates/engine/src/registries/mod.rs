//! Images from and to registries.
//!
//! ```text
//! pull ─▶ Session ─▶ manifest ─▶ configuration ─▶ layers, some at a time:
//!           stream of the blob ─┬▶ (thread) hash
//!                               └▶ (thread) images::add_layer: inflate, index ─▶ hash ─▶ write
//! push ─▶ layers: there already? mounted? else (blocking thread) tar ─▶ deflate ─▶ hash ─▶ Upload; then configuration, manifest
//! ```
//!
//! A task of its own works for each request, and ends when the client goes away.

mod again;
mod ask;
mod caches;
mod failure;
mod fetch;
mod flow;
mod offer;
mod provenance;
mod pull;
mod push;
mod signatures;

pub(crate) use caches::CacheRepository;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use oci::{DiffId, Reference};
use registry::{Client, Options, Split};
use tokio::sync::{Semaphore, mpsc};

use crate::model::{EngineError, ImageProgress};
use crate::options::RegistryOptions;

/// A part of a blob, and so what a connection beside others holds in memory.
const PART_BYTES: u64 = 4 << 20;
/// Connections for one blob.
const PARTS_AT_ONCE: usize = 4;
/// Parts of all blobs.
const PARTS_MAX: usize = 8;

/// What an engine needs to speak to registries.
#[derive(Debug)]
pub(crate) struct Registries {
    client: RwLock<Client>,
    /// Parts of blobs that are in memory at one time, of all pulls together.
    parts: Arc<Semaphore>,
    /// One lock for each layer that is being fetched: who needs the same one waits for it.
    fetching: Mutex<HashMap<DiffId, Weak<tokio::sync::Mutex<()>>>>,
}

impl Registries {
    pub(crate) fn new(options: &RegistryOptions) -> Registries {
        let parts = Arc::new(Semaphore::new(PARTS_MAX));
        Registries { client: RwLock::new(client(options)), parts, fetching: Mutex::default() }
    }

    /// Reaches registries in another way from now on; what has begun goes on as it did.
    pub(crate) fn reach(&self, options: &RegistryOptions) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client(options);
    }

    /// How a blob comes whose connection is slow.
    fn split(&self) -> Split {
        Split { part_bytes: PART_BYTES, at_once: PARTS_AT_ONCE, permits: Arc::clone(&self.parts) }
    }

    /// Also for files that no registry has.
    pub(crate) fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lock that whoever fetches a layer holds.
    fn fetching(&self, layer: &DiffId) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = fetching.get(layer).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        fetching.insert(*layer, Arc::downgrade(&lock));
        lock
    }
}

fn client(options: &RegistryOptions) -> Client {
    let places = registry::Places {
        insecure: options.insecure.clone(),
        mirrors: options.mirrors.clone(),
        certificates: options.certificates.clone(),
    };
    let proxies = registry::Proxies::read(|name| std::env::var(name).ok());
    let user_agent = format!("conex/{}", env!("CARGO_PKG_VERSION"));
    Client::new(Options { places, proxies, user_agent, ..Options::default() })
}

/// Tells a client how it goes.
#[derive(Debug, Clone)]
struct Told(mpsc::Sender<Result<ImageProgress, EngineError>>);

impl Told {
    /// Work of which no client hears.
    fn nobody() -> Told {
        // Its receiver is gone, so nothing is ever waited for.
        Told(mpsc::channel(1).0)
    }

    /// A line that must arrive. Who does not listen any more is noticed elsewhere.
    async fn line(&self, progress: ImageProgress) {
        let _ = self.0.send(Ok(progress)).await;
    }

    async fn step(&self, id: &str, status: &str) {
        self.line(ImageProgress::Step { id: id.to_owned(), status: status.to_owned() }).await;
    }

    async fn status(&self, text: String) {
        self.line(ImageProgress::Status(text)).await;
    }

    /// Only for the eye: a slow client must not slow the work down.
    fn bar(&self, id: &str, status: &str, current: u64, total: u64) {
        let progress =
            ImageProgress::Layer { id: id.to_owned(), status: status.to_owned(), current, total: Some(total) };
        let _ = self.0.try_send(Ok(progress));
    }
}

/// `name` with `tag`, which may be a tag, a digest, or nothing.
fn named(name: &str, tag: &str) -> Result<Reference, EngineError> {
    let invalid = |error: oci::ReferenceError| EngineError::invalid(error.to_string());
    let reference = Reference::parse(name).map_err(invalid)?;
    match oci::Digest::parse(tag) {
        _ if tag.is_empty() => Ok(reference),
        Ok(digest) => Ok(reference.with_digest(digest)),
        Err(_) => reference.with_tag(tag).map_err(|_| EngineError::invalid("invalid tag format")),
    }
}
