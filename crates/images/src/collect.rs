//! Which images and what of the build cache go when there is too little space: those that were used longest ago.
//!
//! [`plan_collection`] is pure. The store carries a plan out ([`ImageStore::collect`](crate::ImageStore::collect)) and looks again at
//! each image, because somebody may have come to use it meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use oci::{DiffId, Digest};

use crate::prune::{Dangling, remove_unused};
use crate::remove::{ContainerUse, Removing};
use crate::uses::UseRecord;
use crate::{Catalogue, Image, ImageId};

/// One step of the build cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedLayer {
    /// What the cache calls it.
    pub key: Digest,
    /// Its layer.
    pub layer: DiffId,
    /// The layer's size.
    pub size_bytes: u64,
    /// When it was used last.
    pub last_used: Timestamp,
}

/// What is wanted of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectionRequest {
    /// So much must become free.
    pub wanted_bytes: u64,
    /// What was used since stays.
    pub used_before: Timestamp,
}

/// What goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collection {
    /// Steps of the build cache.
    pub cache: Vec<Digest>,
    /// Images, in the order in which they go.
    pub images: Vec<ImageId>,
    /// The sizes of the layers that nothing needs any more then.
    pub freed_bytes: u64,
}

/// Decides what goes, and no more than is needed: first what of the build cache no image and no container has, then images that no
/// container uses and nobody has pinned, with what of the build cache is theirs.
pub fn plan_collection(
    catalogue: &Catalogue,
    containers: &[ContainerUse],
    uses: &UseRecord,
    cache: &[CachedLayer],
    request: CollectionRequest,
) -> Collection {
    let mut plan = Planning {
        layers: Layers::count(catalogue, containers, cache),
        cache,
        request,
        collection: Collection::default(),
    };
    plan.take_cache();
    plan.take_images(catalogue, containers, uses);
    plan.spare_the_useless(catalogue);
    plan.collection
}

/// Removes these images with all their names unless they are in use, pinned, or were used lately.
pub(crate) fn remove_all<'a>(
    catalogue: &'a Catalogue,
    containers: &'a [ContainerUse],
    images: &[ImageId],
    used_before: Timestamp,
    uses: &UseRecord,
) -> Removing<'a> {
    let mut removing = Removing::sparing(catalogue, containers, uses);
    for image in images.iter().filter_map(|id| catalogue.get(id)) {
        if may_go(image, containers, uses, used_before) {
            remove_unused(&mut removing, image, Dangling::AllUnused);
        }
    }
    removing
}

fn may_go(image: &Image, containers: &[ContainerUse], uses: &UseRecord, used_before: Timestamp) -> bool {
    !uses.is_pinned(image) && uses.last_use(image) < used_before && containers.iter().all(|user| user.image != image.id)
}

/// Who needs each layer.
struct Layers(HashMap<DiffId, Need>);

#[derive(Debug, Default)]
struct Need {
    size_bytes: u64,
    images: usize,
    containers: usize,
    cached: usize,
}

impl Layers {
    fn count(catalogue: &Catalogue, containers: &[ContainerUse], cache: &[CachedLayer]) -> Layers {
        let mut layers: HashMap<DiffId, Need> = HashMap::new();
        for image in catalogue.images() {
            for (layer, size_bytes) in distinct(image) {
                let need = layers.entry(layer).or_default();
                need.images += 1;
                need.size_bytes = size_bytes;
            }
        }
        for layer in containers.iter().flat_map(|user| &user.layers) {
            layers.entry(*layer).or_default().containers += 1;
        }
        for step in cache {
            let need = layers.entry(step.layer).or_default();
            need.cached += 1;
            need.size_bytes = step.size_bytes;
        }
        Layers(layers)
    }
}

/// Every layer of an image once.
fn distinct(image: &Image) -> impl Iterator<Item = (DiffId, u64)> {
    let mut seen = HashSet::new();
    image.layers.iter().copied().zip(image.layer_sizes.iter().copied()).filter(move |(layer, _)| seen.insert(*layer))
}

struct Planning<'a> {
    layers: Layers,
    cache: &'a [CachedLayer],
    request: CollectionRequest,
    collection: Collection,
}

impl Planning<'_> {
    fn is_enough(&self) -> bool {
        self.collection.freed_bytes >= self.request.wanted_bytes
    }

    /// Lets the build cache go as far as nothing else has its layers.
    fn take_cache(&mut self) {
        let mut steps: Vec<&CachedLayer> =
            self.cache.iter().filter(|step| step.last_used < self.request.used_before).collect();
        steps.sort_by_key(|step| (step.last_used, step.key));
        for step in steps {
            if self.is_enough() {
                return;
            }
            let Some(need) = self.layers.0.get_mut(&step.layer) else { continue };
            if need.images == 0 && need.containers == 0 {
                need.cached -= 1;
                self.collection.cache.push(step.key);
                if need.cached == 0 {
                    self.collection.freed_bytes += need.size_bytes;
                }
            }
        }
    }

    fn take_images(&mut self, catalogue: &Catalogue, containers: &[ContainerUse], uses: &UseRecord) {
        let may_go = |image: &&Arc<Image>| may_go(image, containers, uses, self.request.used_before);
        let mut candidates: Vec<&Arc<Image>> = catalogue.images().filter(may_go).collect();
        candidates.sort_by_key(|image| (uses.last_use(image), image.id));
        let mut removing = Removing::sparing(catalogue, containers, uses);
        // What others were built upon can go only after them.
        let mut left = candidates.len() + 1;
        while !self.is_enough() && candidates.len() < left {
            left = candidates.len();
            candidates.retain(|image| {
                if self.is_enough() {
                    return true;
                }
                let before = removing.deleted.len();
                remove_unused(&mut removing, image, Dangling::AllUnused);
                removing.deleted[before..].iter().for_each(|gone| self.release(gone));
                removing.deleted.iter().all(|gone| gone.id != image.id)
            });
        }
    }

    fn release(&mut self, image: &Image) {
        self.collection.images.push(image.id);
        for (layer, size_bytes) in distinct(image) {
            let Some(need) = self.layers.0.get_mut(&layer) else { continue };
            need.images -= 1;
            if need.images > 0 || need.containers > 0 {
                continue;
            }
            // What the cache has of it has become useless with it: it would keep the layer for nobody.
            let theirs = self.cache.iter().filter(|step| step.layer == layer).map(|step| step.key);
            let new: Vec<Digest> = theirs.filter(|key| !self.collection.cache.contains(key)).collect();
            self.collection.cache.extend(new);
            need.cached = 0;
            self.collection.freed_bytes += size_bytes;
        }
    }

    /// An image whose layers all stay for others would go for nothing.
    fn spare_the_useless(&mut self, catalogue: &Catalogue) {
        let is_useful = |id: &ImageId| {
            let layers = catalogue.get(id).map(|image| image.layers.as_slice()).unwrap_or_default();
            layers.iter().filter_map(|layer| self.layers.0.get(layer)).any(|need| need.images + need.containers == 0)
        };
        self.collection.images.retain(is_useful);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{catalogue, container, id, image, layer};
    use crate::{Pin, Running};

    fn moment(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// An image with layers of 10 bytes that was used at a second.
    fn used(name: &str, layers: &str, second: i64) -> Image {
        Image { loaded: moment(second), ..image(name, None, layers, 0) }
    }

    fn step(name: &str, second: i64) -> CachedLayer {
        let (key, layer) = (Digest::of(name.as_bytes()), layer(name));
        CachedLayer { key, layer, size_bytes: 10, last_used: moment(second) }
    }

    fn request(wanted_bytes: u64) -> CollectionRequest {
        CollectionRequest { wanted_bytes, used_before: moment(100) }
    }

    fn names(collection: &Collection) -> Vec<&'static str> {
        const NAMES: &[&str] = &["a", "b", "c", "d"];
        let name = |image: &ImageId| *NAMES.iter().find(|name| id(name) == *image).unwrap();
        collection.images.iter().map(name).collect()
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_no_more_than_needed() {
        let images = vec![used("a", "x", 30), used("b", "y", 10), used("c", "z", 20), used("d", "w", 200)];
        let catalogue = catalogue(images, &[("b:1", "b"), ("b:2", "b")]);
        let plan = |wanted| plan_collection(&catalogue, &[], &UseRecord::default(), &[], request(wanted));
        assert_eq!((names(&plan(10)), plan(10).freed_bytes), (vec!["b"], 10));
        assert_eq!(names(&plan(11)), ["b", "c"]);
        let all = plan(1000);
        assert_eq!((names(&all), all.freed_bytes), (vec!["b", "c", "a"], 30), "the one used lately stays");
        let later = UseRecord { last_uses: [(id("b"), moment(50))].into(), ..UseRecord::default() };
        assert_eq!(names(&plan_collection(&catalogue, &[], &later, &[], request(10))), ["c"]);
    }

    #[test]
    fn containers_and_pins_keep_their_images() {
        let pinned = Image { pins: vec![Pin::Image], ..used("b", "y", 2) };
        let images = vec![used("a", "x", 1), pinned, used("c", "z", 3)];
        let containers = [container('1', &images[0], Running::No)];
        let catalogue = catalogue(images, &[]);
        let plan = plan_collection(&catalogue, &containers, &UseRecord::default(), &[], request(1000));
        assert_eq!((names(&plan), plan.freed_bytes), (vec!["c"], 10));
    }

    #[test]
    fn the_cache_goes_first_and_with_its_image() {
        let catalogue = catalogue(vec![used("a", "x", 1)], &[]);
        let cache = [step("q", 50), step("p", 40), step("x", 2), step("new", 500)];
        let plan = |wanted| plan_collection(&catalogue, &[], &UseRecord::default(), &cache, request(wanted));
        let keys = |names: &[&str]| names.iter().map(|name| Digest::of(name.as_bytes())).collect::<Vec<_>>();
        assert_eq!(plan(10), Collection { cache: keys(&["p"]), images: vec![], freed_bytes: 10 });
        let all = Collection { cache: keys(&["p", "q", "x"]), images: vec![id("a")], freed_bytes: 30 };
        assert_eq!(plan(1000), all);
    }

    #[test]
    fn an_image_whose_layers_stay_is_spared() {
        let pinned = Image { pins: vec![Pin::Image], ..used("b", "xy", 1) };
        let catalogue = catalogue(vec![used("a", "x", 1), pinned, used("c", "xz", 2)], &[]);
        let plan = plan_collection(&catalogue, &[], &UseRecord::default(), &[], request(10));
        assert_eq!((names(&plan), plan.freed_bytes), (vec!["c"], 10));
    }

    #[test]
    fn parents_go_after_their_children() {
        let parent = Image { loaded: moment(1), ..image("a", None, "x", 0) };
        let child = Image { loaded: moment(2), ..image("b", Some("a"), "xy", 0) };
        let catalogue = catalogue(vec![parent, child], &[("a:1", "a"), ("b:1", "b")]);
        let plan = plan_collection(&catalogue, &[], &UseRecord::default(), &[], request(20));
        assert_eq!((names(&plan), plan.freed_bytes), (vec!["b", "a"], 20));
    }

    #[test]
    fn what_came_to_be_used_meanwhile_stays() {
        let images = vec![used("a", "x", 1), used("b", "y", 2)];
        let containers = [container('1', &images[0], Running::Yes)];
        let catalogue = catalogue(images, &[("a:1", "a"), ("b:1", "b")]);
        let removing = remove_all(&catalogue, &containers, &[id("a"), id("b")], moment(100), &UseRecord::default());
        assert_eq!(removing.deleted.iter().map(|image| image.id).collect::<Vec<_>>(), [id("b")]);
    }
}
