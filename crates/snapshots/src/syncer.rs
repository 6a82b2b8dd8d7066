//! Layers reach the disk behind the answer, and what a crash took is found out.
//!
//! Syncing a layer takes as long as the disk takes to write it, several times longer than receiving it. A layer may therefore be used
//! as soon as its bytes have been hashed and named, while a thread syncs it. Beside each layer stands how far that is:
//!
//! ```text
//! <hex>.sync    "synced"        tar and index are on the disk for good
//!               a boot's id     they are in this kernel's memory, whole, as long as this boot lasts
//!               anything else   the machine went down before they were synced: only the tar's digest can tell what is left
//! ```
//!
//! So after a crash a layer is either right, or found to be damaged and taken away, never silently wrong. The mark is written by the
//! kernel in any order with the rest: losing it costs one hash and nothing else.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use durable::PathError;
use oci::DiffId;

const SYNCED: &[u8] = b"synced";

/// How far a layer has come to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// For good.
    Synced,
    /// Written since the machine was started: whole, though not on the disk yet.
    InMemory,
    /// The machine may have gone down in between.
    Unknown,
}

/// Syncs layers on a thread of its own. Dropped, it finishes what it was given.
pub(crate) struct Syncer {
    dir: PathBuf,
    queue: Option<Sender<DiffId>>,
    thread: Option<JoinHandle<()>>,
    pending: Arc<Pending>,
}

/// How many layers are still to be synced, and why one could not be.
#[derive(Debug, Default)]
struct Pending {
    state: Mutex<PendingState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PendingState {
    layers: usize,
    failure: Option<PathError>,
}

impl Syncer {
    pub(crate) fn start(dir: &Path) -> Result<Self, PathError> {
        let (queue, layers) = channel();
        let pending = Arc::new(Pending::default());
        let thread = {
            let (dir, pending) = (dir.to_owned(), pending.clone());
            std::thread::Builder::new().name("layer-sync".to_owned()).spawn(move || sync_all(&dir, &layers, &pending))
        };
        let thread = thread.map_err(PathError::with(durable::Operation::Sync, dir))?;
        Ok(Syncer { dir: dir.to_owned(), queue: Some(queue), thread: Some(thread), pending })
    }

    /// Marks a layer as whole in memory, to be called before the layer is named.
    pub(crate) fn mark_in_memory(&self, layer: &DiffId) -> Result<(), PathError> {
        durable::write_volatile(&self.dir, &mark_name(layer), &boot_id())
    }

    /// Syncs a layer, some time soon.
    pub(crate) fn sync_soon(&self, layer: DiffId) {
        self.pending.state.lock().unwrap_or_else(PoisonError::into_inner).layers += 1;
        if let Some(queue) = &self.queue {
            queue.send(layer).expect("the thread ends only after its queue");
        }
    }

    /// Waits until every layer given so far is on the disk; the first failure since the last wait is returned.
    pub(crate) fn wait(&self) -> Result<(), PathError> {
        let mut state = self.pending.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.layers > 0 {
            state = self.pending.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.take().map_or(Ok(()), Err)
    }

    pub(crate) fn durability(&self, layer: &DiffId) -> Durability {
        match fs::read(self.dir.join(mark_name(layer))) {
            Ok(mark) if mark == SYNCED => Durability::Synced,
            Ok(mark) if !mark.is_empty() && mark == boot_id() => Durability::InMemory,
            _ => Durability::Unknown,
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; here is nobody to tell.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Syncer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Syncer").field("dir", &self.dir).field("pending", &self.pending).finish_non_exhaustive()
    }
}

/// Syncs a layer's files, then says so beside them.
///
/// The layer may be removed meanwhile, or removed and stored again: then nothing is said, because what was synced is not what is there.
/// Since a removal takes the tar away before the mark, looking after writing leaves no mark behind in any order of the two.
pub(crate) fn sync_layer(dir: &Path, layer: &DiffId) -> Result<(), PathError> {
    let (index, tar) = (dir.join(format!("{}.erofs", layer.hex())), dir.join(format!("{}.tar", layer.hex())));
    sync_file(&index)?;
    let synced = sync_file(&tar)?;
    durable::write_atomic(dir, &mark_name(layer), SYNCED)?;
    if is_named(&synced, &tar)? { Ok(()) } else { durable::remove(dir, &mark_name(layer)) }
}

fn sync_file(path: &Path) -> Result<File, PathError> {
    let file = File::open(path).map_err(PathError::with(durable::Operation::Open, path))?;
    file.sync_all().map_err(PathError::with(durable::Operation::Sync, path))?;
    Ok(file)
}

/// Says whether `path` still names `file`.
fn is_named(file: &File, path: &Path) -> Result<bool, PathError> {
    let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    let opened = file.metadata().map_err(PathError::with(durable::Operation::Stat, path))?;
    match fs::metadata(path) {
        Ok(named) => Ok(identity(&named) == identity(&opened)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(PathError::new(durable::Operation::Stat, path, error)),
    }
}

pub(crate) fn mark_name(layer: &DiffId) -> String {
    format!("{}.sync", layer.hex())
}

fn sync_all(dir: &Path, layers: &Receiver<DiffId>, pending: &Pending) {
    for layer in layers {
        let outcome = match sync_layer(dir, &layer) {
            // The layer was removed meanwhile.
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        };
        let mut state = pending.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.layers -= 1;
        if let Err(error) = outcome {
            state.failure.get_or_insert(error);
        }
        pending.changed.notify_all();
    }
}

fn boot_id() -> Vec<u8> {
    // Without it no mark matches, and every layer that is not synced is hashed again: slow, but right.
    fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}
