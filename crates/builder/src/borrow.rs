//! Steps that others made: of caches from elsewhere, whose layers come when somebody needs their files, and of images that a build may be
//! like. And the list of all steps, for those who take this build as their cache.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use images::Image;
use oci::{DiffId, Digest};

use crate::build::Build;
use crate::cache::{CacheEntry, CacheKind};
use crate::config::State;
use crate::error::BuildError;
use crate::host::Imported;
use crate::portable::BuiltStep;
use crate::single::Single;
use crate::stage::Place;

/// What a build has of others, and what others can have of it.
#[derive(Debug, Default)]
pub(crate) struct Borrowed {
    known: Mutex<BTreeMap<Digest, CacheEntry>>,
    steps: Mutex<Vec<BuiltStep>>,
    images: Mutex<Vec<Arc<Image>>>,
    fetched: Single<DiffId, ()>,
    /// Whether a layer was needed that cannot be had.
    is_short: AtomicBool,
}

impl Borrowed {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Digest, CacheEntry>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn steps(&self) -> MutexGuard<'_, Vec<BuiltStep>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn images(&self) -> MutexGuard<'_, Vec<Arc<Image>>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a step is done, upon these layers.
    pub(crate) fn note(&self, place: &Place, key: Digest, entry: &CacheEntry, below: &[DiffId]) {
        let layers = below.iter().copied().chain(entry.layer).collect();
        let place = (place.index, place.position);
        self.steps().push(BuiltStep { key, entry: entry.clone(), place, layers });
    }

    /// Whether a step ends with this error because the build begins anew.
    pub(crate) fn begins_anew(&self, error: &BuildError) -> bool {
        match error {
            BuildError::LayerGone(_) => {
                self.is_short.store(true, Ordering::Relaxed);
                true
            }
            BuildError::Stopped => self.is_short.load(Ordering::Relaxed),
            _ => false,
        }
    }

    /// All steps, in the Dockerfile's order.
    pub(crate) fn into_steps(self) -> Vec<BuiltStep> {
        let mut steps = self.steps.into_inner().unwrap_or_else(PoisonError::into_inner);
        steps.sort_by_key(|step| step.place);
        steps
    }
}

impl Build<'_> {
    /// Reads the caches from elsewhere. One that cannot be read is told of, and the build goes on without it.
    pub(crate) fn import(&self) {
        for (number, title) in self.request.caches.iter().enumerate() {
            let read = self.internal_step(title.clone(), |step| Ok(self.host.import(number, step, self.events)?));
            let Imported { steps, images } = read.unwrap_or_default();
            for (key, entry) in steps {
                // What came first was named first.
                self.borrowed.known().entry(key).or_insert(entry);
            }
            self.borrowed.images().extend(images);
        }
    }

    /// What is known of a step.
    pub(crate) fn known(&self, key: &Digest, state: &State) -> Option<CacheEntry> {
        let own = self.cache.find(key, self.snapshotter);
        let own = own.filter(|entry| self.request.like.as_ref().is_none_or(|like| is_in(like, state, entry.layer)));
        own.or_else(|| self.borrowed.known().get(key).cloned())
    }

    /// Sees to it that these layers are here.
    pub(crate) fn require(&self, layers: &[DiffId]) -> Result<(), BuildError> {
        for layer in layers.iter().filter(|layer| !self.snapshotter.has(layer)) {
            if !self.host.can_fetch(layer) {
                return Err(BuildError::LayerGone(*layer));
            }
            let title = format!("[internal] fetching layer {} of an imported cache", layer.digest().short());
            let fetch = || self.internal_step(title, |step| Ok(self.host.fetch(layer, step, self.events)?));
            if let Err(error) = self.borrowed.fetched.get(*layer, fetch) {
                if self.host.cancelled() {
                    return Err(error);
                }
                return Err(BuildError::LayerGone(*layer));
            }
        }
        Ok(())
    }

    /// Forgets what caches have said about layers that cannot be had.
    pub(crate) fn forget_borrowed(&self, gone: DiffId) {
        let can_be_had = |layer: DiffId| self.snapshotter.has(&layer) || layer != gone && self.host.can_fetch(&layer);
        self.borrowed.known().retain(|_, entry| entry.layer.is_none_or(can_be_had));
        self.borrowed.images().retain(|image| image.layers.iter().copied().all(can_be_had));
        self.borrowed.steps().clear();
        self.borrowed.is_short.store(false, Ordering::Relaxed);
    }

    /// Keeps what was taken from elsewhere and is here now: the next build needs no other cache for it.
    pub(crate) fn keep_borrowed(&self) -> Result<(), BuildError> {
        let known = self.borrowed.known();
        for step in self.borrowed.steps().iter().filter(|step| known.contains_key(&step.key)) {
            let is_here = step.entry.layer.is_none_or(|layer| self.snapshotter.has(&layer));
            if is_here && self.cache.find(&step.key, self.snapshotter).is_none() {
                self.cache.store(&step.key, step.entry.clone())?;
            }
        }
        Ok(())
    }

    /// What an image that the build may be like has in this step's place, where all before it is the same.
    pub(crate) fn step_of_image(&self, state: &State, kind: CacheKind, text: &str) -> Option<CacheEntry> {
        let of_image = |image: &Arc<Image>| {
            let entry = step_of_image(image, state, kind, text)?;
            let can_be_had = |layer| self.snapshotter.has(&layer) || self.host.can_fetch(&layer);
            entry.layer.is_none_or(can_be_had).then_some(entry)
        };
        let given = self.request.like.iter().flatten();
        given.chain(self.borrowed.images().iter()).find_map(of_image)
    }
}

/// Whether one of some images begins with the layers of a state and one more.
fn is_in(images: &[Arc<Image>], state: &State, layer: Option<DiffId>) -> bool {
    let layers: Vec<DiffId> = state.layers().iter().copied().chain(layer).collect();
    images.iter().any(|image| image.layers.starts_with(&layers))
}

fn step_of_image(image: &Image, state: &State, kind: CacheKind, text: &str) -> Option<CacheEntry> {
    let (own, theirs) = (&state.image.history, &image.config.history);
    let same = own.len() < theirs.len()
        && image.layers.starts_with(state.layers())
        && own.iter().zip(theirs).all(|(a, b)| a.created_by == b.created_by && a.empty_layer == b.empty_layer);
    let next = theirs.get(own.len()).filter(|next| same && next.created_by == text)?;
    let created = next.created.as_ref().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let at = state.layers().len();
    let layer = if next.empty_layer { None } else { Some(*image.layers.get(at)?) };
    let created_s = created.unwrap_or_default().as_second();
    let size_bytes = layer.and_then(|_| image.layer_sizes.get(at)).copied().unwrap_or_default();
    let description = text.to_owned();
    Some(CacheEntry { layer, size_bytes, kind, description, created_s, last_used_s: created_s, uses: 0 })
}

#[cfg(test)]
mod tests {
    use images::ImageId;
    use oci::image::{History, ImageConfig, Platform};

    use super::*;

    #[test]
    fn a_step_is_that_of_an_image_where_all_before_it_is_the_same() {
        let layer = |name: &str| DiffId(Digest::of(name.as_bytes()));
        let history = |steps: &[(&str, bool)]| {
            let step = |(text, empty_layer): &(&str, bool)| History {
                created_by: (*text).to_owned(),
                created: Some("1970-01-01T00:01:00Z".to_owned()),
                empty_layer: *empty_layer,
                ..History::default()
            };
            steps.iter().map(step).collect::<Vec<_>>()
        };
        let steps = [("base", false), ("ENV A=1", true), ("RUN a", false), ("RUN nothing", true)];
        let config = ImageConfig { history: history(&steps), ..ImageConfig::default() };
        let image = Image::unnamed(ImageId::of_config(b""), config, (*b"").into(), vec![layer("base"), layer("a")]);
        let found = |base: &str, steps: &[(&str, bool)], layers: &[&str], text: &str| {
            let mut state = State::empty(&Platform::host());
            state.image.rootfs.diff_ids = std::iter::once(base).chain(layers.iter().copied()).map(layer).collect();
            state.image.history = history(steps);
            step_of_image(&image, &state, CacheKind::Command, text).map(|entry| (entry.layer, entry.created_s))
        };
        assert_eq!(found("base", &steps[..2], &[], "RUN a"), Some((Some(layer("a")), 60)));
        assert_eq!(found("base", &steps[..3], &["a"], "RUN nothing"), Some((None, 60)));
        assert_eq!(found("base", &steps[..2], &[], "RUN b"), None, "another command");
        assert_eq!(found("base", &[steps[0], ("ENV A=2", true)], &[], "RUN a"), None, "another variable");
        assert_eq!(found("other", &steps[..2], &[], "RUN a"), None, "another base");
        assert_eq!(found("base", &steps, &["a"], "RUN c"), None, "the image ends there");
    }
}
