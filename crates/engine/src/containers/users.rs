//! Which containers use which images.

use std::sync::Arc;

use images::{ContainerUse, ImageId, ImageUsers, LabelFilter, Running, UseRecord};

use super::index::Index;
use crate::engine::Inner;
use crate::image_uses::LastUses;

/// What the image store asks before it removes anything.
#[derive(Debug)]
pub(crate) struct Users {
    index: Arc<Index>,
    cache: Arc<builder::Cache>,
    last_uses: Arc<LastUses>,
    pin_labels: Vec<LabelFilter>,
}

impl Users {
    pub(crate) fn new(inner: &Inner) -> Self {
        let labels = inner.options.space.pin_labels.iter();
        Self {
            index: Arc::clone(&inner.index),
            cache: Arc::clone(&inner.builds.cache),
            last_uses: Arc::clone(&inner.last_uses),
            pin_labels: labels.map(crate::images::label).collect(),
        }
    }
}

impl Inner {
    /// Every container, as far as images are concerned.
    pub(crate) fn image_containers(&self) -> Vec<ContainerUse> {
        uses_in(&self.index)
    }
}

fn uses_in(index: &Index) -> Vec<ContainerUse> {
    let users = index.all().into_iter().map(|handle| {
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

impl ImageUsers for Users {
    fn containers(&self) -> Vec<ContainerUse> {
        uses_in(&self.index)
    }

    /// Those that builds may use again.
    fn other_layers(&self) -> Vec<oci::DiffId> {
        self.cache.layers()
    }

    fn use_record(&self) -> UseRecord {
        UseRecord { last_uses: self.last_uses.all(), pin_labels: self.pin_labels.clone() }
    }
}
