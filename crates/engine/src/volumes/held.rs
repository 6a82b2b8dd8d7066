//! Who needs a volume's file system mounted.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::local::{self, LocalMount};
use crate::engine::Inner;
use crate::model::EngineError;

/// Users by volume. Each volume has a lock of its own: a file server that does not answer holds up nobody else's.
#[derive(Debug, Default)]
pub(super) struct Users(Mutex<HashMap<String, Arc<Mutex<BTreeSet<String>>>>>);

impl Users {
    pub(super) fn of(&self, name: &str) -> Arc<Mutex<BTreeSet<String>>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }

    pub(super) fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// Volumes whose file systems stay mounted as long as this lives; when the engine closes they stay, as containers do.
#[derive(Debug, Default)]
pub(crate) struct HeldVolumes {
    inner: Option<Arc<Inner>>,
    user: String,
    names: Vec<String>,
}

impl HeldVolumes {
    /// Mounts those of `names` that have options, unless they are. Blocking.
    pub(crate) fn hold<'a>(
        inner: &Arc<Inner>,
        user: String,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<Self, EngineError> {
        let mut held = Self { inner: Some(Arc::clone(inner)), user, names: Vec::new() };
        for name in names {
            if held.take(inner, name)? {
                held.names.push(name.to_owned());
            }
        }
        Ok(held)
    }

    fn take(&self, inner: &Inner, name: &str) -> Result<bool, EngineError> {
        let volume = inner.volumes.find(name);
        let Some(options) = volume.and_then(|volume| volume.options.clone()) else { return Ok(false) };
        let Some(wanted) = LocalMount::parse(&options)? else { return Ok(false) };
        let users = inner.volumes.users.of(name);
        let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
        let place = inner.volumes.mountpoint(name);
        let failed = |error| EngineError::system(&format!("error while mounting volume '{}'", place.display()), error);
        if !local::is_mounted_on(&place).map_err(failed)? {
            wanted.mount_on(&place).map_err(failed)?;
        }
        users.insert(self.user.clone());
        Ok(true)
    }
}

impl Drop for HeldVolumes {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take().filter(|inner| !*inner.closing.borrow()) else { return };
        for name in &self.names {
            let users = inner.volumes.users.of(name);
            let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
            users.remove(&self.user);
            if users.is_empty()
                && let Err(error) = local::unmount_all(&inner.volumes.mountpoint(name))
            {
                tracing::warn!("volume {name} stays mounted: {error}");
            }
        }
    }
}

/// Takes away what nobody uses of what an earlier engine mounted.
pub(crate) fn unmount_unused(inner: &Inner) {
    for volume in inner.volumes.all() {
        if volume.options.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
            continue;
        }
        let users = inner.volumes.users.of(volume.name.as_str());
        let users = users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.is_empty()
            && let Err(error) = local::unmount_all(volume.mountpoint.as_ref())
        {
            tracing::warn!("volume {} stays mounted: {error}", volume.name);
        }
    }
}
