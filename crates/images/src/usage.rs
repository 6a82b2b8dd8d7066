//! `docker system df`: what images take on the disk.

use std::collections::{BTreeMap, HashMap, HashSet};

use oci::DiffId;

use crate::ImageId;
use crate::catalogue::Catalogue;
use crate::remove::ContainerUse;

/// What all images take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// All layers of all images, each counted once.
    pub layers_bytes: u64,
    /// Those of them that no container needs.
    pub reclaimable_bytes: u64,
    /// Each image.
    pub images: BTreeMap<ImageId, ImageUsage>,
}

/// What one image takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUsage {
    /// All its layers.
    pub size_bytes: u64,
    /// Those of its layers that another image has too.
    pub shared_bytes: u64,
    /// Containers that were made from it.
    pub containers: usize,
}

/// Adds it all up.
pub(crate) fn usage(catalogue: &Catalogue, containers: &[ContainerUse]) -> Usage {
    let mut layers: HashMap<DiffId, (u64, usize)> = HashMap::new();
    for image in catalogue.images() {
        let mut seen = HashSet::new();
        for (layer, size_bytes) in image.layers.iter().zip(&image.layer_sizes) {
            // The same layer twice in one image is shared with nobody.
            if seen.insert(layer) {
                layers.entry(*layer).or_insert((*size_bytes, 0)).1 += 1;
            }
        }
    }
    let shared = |layer: &DiffId| layers.get(layer).filter(|(_, users)| *users > 1).map_or(0, |(size, _)| *size);
    let of_image = |image: &std::sync::Arc<crate::Image>| {
        let usage = ImageUsage {
            size_bytes: image.size_bytes(),
            shared_bytes: image.layers.iter().map(shared).sum(),
            containers: containers.iter().filter(|container| container.image == image.id).count(),
        };
        (image.id, usage)
    };
    let needed: HashSet<&DiffId> = containers.iter().flat_map(|container| &container.layers).collect();
    let unneeded = layers.iter().filter(|(layer, _)| !needed.contains(layer));
    Usage {
        layers_bytes: layers.values().map(|(size, _)| size).sum(),
        reclaimable_bytes: unneeded.map(|(_, (size, _))| size).sum(),
        images: catalogue.images().map(of_image).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Running;
    use crate::testing::{catalogue, container, id, image};

    #[test]
    fn shared_layers_are_counted_once() {
        let images = vec![image("a", None, "xy", 0), image("b", None, "xz", 0), image("c", None, "w", 0)];
        let containers = [container('1', &images[1], Running::No), container('2', &images[1], Running::Yes)];
        let usage = usage(&catalogue(images, &[]), &containers);
        assert_eq!((usage.layers_bytes, usage.reclaimable_bytes), (40, 20));
        let of = |name: &str| usage.images[&id(name)].clone();
        assert_eq!(of("a"), ImageUsage { size_bytes: 20, shared_bytes: 10, containers: 0 });
        assert_eq!(of("b"), ImageUsage { size_bytes: 20, shared_bytes: 10, containers: 2 });
        assert_eq!(of("c"), ImageUsage { size_bytes: 10, shared_bytes: 0, containers: 0 });
    }
}
