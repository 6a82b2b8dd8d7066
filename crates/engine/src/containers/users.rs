//! Which containers use which images.

use std::sync::Arc;

use images::{ContainerUse, ImageId, ImageUsers, Running};

use super::index::Index;

/// What the image store asks before it removes anything.
#[derive(Debug)]
pub(crate) struct Users {
    index: Arc<Index>,
    cache: Arc<builder::Cache>,
}

impl Users {
    pub(crate) fn new(index: Arc<Index>, cache: Arc<builder::Cache>) -> Self {
        Self { index, cache }
    }
}

impl ImageUsers for Users {
    fn containers(&self) -> Vec<ContainerUse> {
        let users = self.index.all().into_iter().map(|handle| {
            let record = handle.record();
            ContainerUse {
                container: handle.id.to_string(),
                image: ImageId::new(record.image_id),
                layers: record.all_layers(),
                running: if handle.live().is_some() { Running::Yes } else { Running::No },
            }
        });
        users.collect()
    }

    /// Those that builds may use again.
    fn other_layers(&self) -> Vec<oci::DiffId> {
        self.cache.layers()
    }
}
