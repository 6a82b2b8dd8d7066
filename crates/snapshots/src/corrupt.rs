//! Layers that were found corrupt and have not been stored again since.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oci::DiffId;

use crate::Error;

/// The layers that are on the disk, but not as they were.
#[derive(Debug, Default)]
pub(crate) struct Corrupt(Mutex<HashSet<DiffId>>);

impl Corrupt {
    pub(crate) fn contains(&self, layer: &DiffId) -> bool {
        self.layers().contains(layer)
    }

    /// Takes note of what a verification has found.
    pub(crate) fn note(&self, layer: &DiffId, found: &Result<(), Error>) {
        match found {
            Err(Error::Corrupt { .. }) => drop(self.layers().insert(*layer)),
            _ => self.forget(layer),
        }
    }

    /// The layer has been stored again, or is gone.
    pub(crate) fn forget(&self, layer: &DiffId) {
        self.layers().remove(layer);
    }

    fn layers(&self) -> MutexGuard<'_, HashSet<DiffId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
