//! Taking a container away: its name and record first, then its files.

use std::path::Path;
use std::sync::Arc;

use super::record::ContainerRecord;
use crate::engine::{Engine, blocking};
use crate::model::{EngineError, Status};
use crate::store::{Change, Durability};
use crate::volumes::remove_tree;

/// Whether a container's size is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Free,
    /// It is, or nobody knows.
    Limited,
}

impl Size {
    fn of(record: &ContainerRecord) -> Self {
        if record.spec.storage_options.is_empty() { Self::Free } else { Self::Limited }
    }
}

/// Removes a container's folder; one that is not there is no error.
pub(super) fn remove_files(folder: &Path, size: Size) -> Result<(), EngineError> {
    if size == Size::Limited {
        crate::quota::release(&folder.join("upper"));
    }
    remove_tree(folder)
}

/// Removes everything, and reports what could not be.
pub(super) async fn remove(engine: &Engine, record: &ContainerRecord, volumes: bool) -> Result<(), EngineError> {
    // The files first: as long as they are there, the container is, so that a failure can be seen and tried again.
    let (folder, size) = (engine.inner.container_dir(&record.id), Size::of(record));
    blocking(move || remove_files(&folder, size)).await?;
    forget(engine, record, Durability::Machine).await?;
    clean(engine, record, volumes).await
}

/// Removes the record and the name; the files are left, and would be swept at the next start.
pub(super) async fn forget(
    engine: &Engine,
    record: &ContainerRecord,
    durability: Durability,
) -> Result<(), EngineError> {
    let change = Change::RemoveContainer { id: record.id.to_string() };
    match durability {
        // Nobody would miss a `--rm` container that came back for a moment after a crash of the machine: it would be removed again.
        Durability::Daemon => engine.inner.store.write_behind(change),
        Durability::Machine => {
            let written = engine.inner.store.write(vec![change], durability).await;
            written.map_err(|error| EngineError::system("cannot store the removal", error))?;
        }
    }
    engine.inner.index.remove(&record.id, &record.name);
    engine.inner.forwarders.forget(&record.id);
    Ok(())
}

/// Removes the files, anonymous volumes and layers that nothing needs any more.
pub(super) async fn clean(engine: &Engine, record: &ContainerRecord, volumes: bool) -> Result<(), EngineError> {
    if volumes {
        remove_volumes(engine, record).await?;
    }
    let (inner, record) = (Arc::clone(&engine.inner), record.clone());
    inner.image_used(&record.image_id);
    engine.may_shrink();
    blocking(move || {
        remove_files(&inner.container_dir(&record.id), Size::of(&record))?;
        let image = images::ImageId::new(record.image_id);
        if inner.images.catalogue().get(&image).is_none() {
            inner
                .images
                .container_gone(&record.layers)
                .map_err(|error| EngineError::system("cannot remove layers", error))?;
        }
        Ok(())
    })
    .await
}

/// The container's own anonymous volumes, unless another container has taken them over.
async fn remove_volumes(engine: &Engine, record: &ContainerRecord) -> Result<(), EngineError> {
    let used = engine.used_volumes();
    for mount in &record.mounts {
        let Some(name) = mount.volume() else { continue };
        let by_others = used.get(name).is_some_and(|users| users.iter().any(|user| user != record.id.as_str()));
        let own = mount.origin != super::plan::Origin::Inherited;
        if own && !by_others && engine.inner.volumes.is_anonymous(name) {
            engine.forget_volume(name).await?;
        }
    }
    Ok(())
}

/// Whether a container may be pruned.
pub(super) fn is_prunable(status: Status) -> bool {
    matches!(status, Status::Created | Status::Exited | Status::Dead)
}
