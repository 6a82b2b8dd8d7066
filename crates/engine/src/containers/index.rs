//! All containers, by id and by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use oci::ContainerId;

use super::handle::Handle;
use crate::model::{ContainerName, EngineError};

/// All containers. Locked for a look-up or a change only, never across anything that can wait.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: RwLock<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_id: BTreeMap<String, Arc<Handle>>,
    by_name: HashMap<String, ContainerId>,
}

impl Index {
    /// A container by full id, name or unique prefix, in Docker's order.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Handle>, EngineError> {
        let entries = self.read();
        if let Some(handle) = entries.by_id.get(reference) {
            return Ok(Arc::clone(handle));
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(handle) = entries.by_name.get(name).and_then(|id| entries.by_id.get(id.as_str())) {
            return Ok(Arc::clone(handle));
        }
        if reference.is_empty() {
            return Err(EngineError::invalid("No container name or ID supplied"));
        }
        let mut found = entries.by_id.range(reference.to_owned()..).take_while(|(id, _)| id.starts_with(reference));
        match (found.next(), found.next()) {
            (Some((_, handle)), None) => Ok(Arc::clone(handle)),
            (Some(_), Some(_)) => {
                Err(EngineError::invalid(format!("multiple IDs found with provided prefix: {reference}")))
            }
            (None, _) => Err(EngineError::no_such_container(reference)),
        }
    }

    /// Whose name this is, or whose id begins so: also of a container that is not findable yet.
    pub(crate) fn id_of(&self, reference: &str) -> Option<ContainerId> {
        let entries = self.read();
        let name = reference.strip_prefix('/').unwrap_or(reference);
        let named = entries.by_name.get(name).cloned();
        named.or_else(|| {
            let mut found = entries.by_name.values().filter(|id| id.as_str().starts_with(reference));
            found.next().filter(|_| found.next().is_none()).cloned()
        })
    }

    /// Every container, in the order of ids.
    pub(crate) fn all(&self) -> Vec<Arc<Handle>> {
        self.read().by_id.values().cloned().collect()
    }

    /// Keeps a name for a container that is being made.
    pub(crate) fn reserve_name(&self, name: &ContainerName, id: &ContainerId) -> Result<(), EngineError> {
        let mut entries = self.write();
        match entries.by_name.get(name.as_str()) {
            Some(other) => Err(EngineError::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{other}\". You have to remove (or rename) that container to be able to reuse that name."
            ))),
            None => {
                entries.by_name.insert(name.as_str().into(), id.clone());
                Ok(())
            }
        }
    }

    /// Gives a name back.
    pub(crate) fn release_name(&self, name: &ContainerName) {
        self.write().by_name.remove(name.as_str());
    }

    /// Makes a container findable; its name is reserved already.
    pub(crate) fn insert(&self, handle: Arc<Handle>) {
        self.write().by_id.insert(handle.id.to_string(), handle);
    }

    /// Forgets a container and its name.
    pub(crate) fn remove(&self, id: &ContainerId, name: &ContainerName) {
        let mut entries = self.write();
        entries.by_id.remove(id.as_str());
        if entries.by_name.get(name.as_str()) == Some(id) {
            entries.by_name.remove(name.as_str());
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}
