//! Opening the store with the right back end.

use std::path::Path;
use std::sync::Arc;

use durable::Lock;

use crate::directories::Directories;
use crate::erofs_store::ErofsStore;
use crate::probe::probe;
use crate::{Backend, Choice, OpenError, Snapshotter};

/// Opens the store below `<root>/layers`, with mounts below `<run>/layers`; clears what a crash left on its way, and goes on using
/// the mounts that an earlier daemon left.
pub fn open(root: &Path, run: &Path, choice: Choice) -> Result<Arc<dyn Snapshotter>, OpenError> {
    let probe = probe(root);
    let backend = match choice {
        Choice::Automatic => probe.best(),
        Choice::Only(backend) => backend,
    };
    if let Err(reason) = probe.of(backend) {
        return Err(OpenError::Unsupported { backend, reason: reason.clone() });
    }
    let (layers, mounts) = (root.join("layers"), run.join("layers"));
    let lock = Lock::try_acquire(&layers.join("lock"))?.ok_or(OpenError::InUse { path: layers.clone() })?;
    Ok(match backend {
        Backend::Directories => Arc::new(Directories::open(&layers, &mounts, lock)?),
        _ => Arc::new(ErofsStore::open(&layers, &mounts, backend, lock)?),
    })
}
