//! The store itself: one writer at a time, readers that never wait.
//!
//! Every change goes through [`State`], which the writer's lock guards: first the disk, then the state, then a new
//! [`Catalogue`] for readers. Layers are deleted last, and only while nobody holds a [`Lease`].

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use durable::{PathError, RecordError};
use jiff::Timestamp;
use oci::image::ImageConfig;
use oci::{DiffId, Digest, Reference};
use snapshots::Snapshotter;

use crate::blobs::{BlobNotes, LayerBlob};
use crate::catalogue::{Damage, ResolveError, looked_up};
use crate::disk::{Disk, ImageRecord, NamedImage, StoredImage};
use crate::filter::{ListError, ListFilters};
use crate::history::{HistoryEntry, HistoryError};
use crate::origin::{Origin, PulledIndex, Source, with_origin};
use crate::prune::{PruneFilters, Pruned};
use crate::remove::{ContainerUse, ImageUsers, Removal, RemoveError, RemoveRequest, Removing};
use crate::usage::Usage;
use crate::uses::{Pin, UseRecord};
use crate::{Catalogue, ErrorKind, Image, ImageId, Intermediate, ListedImage, time};

/// All images of one engine. Share it in an [`Arc`]; every method blocks, except those that only read.
#[derive(Debug)]
pub struct ImageStore {
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    disk: Disk,
    blobs: BlobNotes,
    catalogue: ArcSwap<Catalogue>,
    state: Mutex<State>,
    users: OnceLock<Arc<dyn ImageUsers>>,
    leases: Arc<Mutex<usize>>,
    problems: Vec<Damage>,
}

/// What the writer knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    images: BTreeMap<ImageId, (StoredImage, Arc<ImageConfig>)>,
    references: BTreeMap<Reference, NamedImage>,
    /// Set while the names on the disk may be others: a write of them has failed, perhaps only after it had replaced the file.
    references_unsure: bool,
    damaged: BTreeMap<ImageId, String>,
    /// Layers to look at when the next chance comes.
    doubtful_layers: HashSet<DiffId>,
}

/// While one lives, no layer is deleted, so that what was found stays until it is used.
#[derive(Debug)]
pub struct Lease {
    count: Arc<Mutex<usize>>,
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directories cannot be made or read.
    #[error("cannot open the image store")]
    Path(#[from] PathError),
}

/// Why a change could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A record cannot be written.
    #[error("cannot store images")]
    Record(#[from] RecordError),
    /// A file cannot be removed.
    #[error("cannot remove from the image store")]
    Path(#[from] PathError),
    /// A layer cannot be looked at or removed.
    #[error("cannot clean up layers")]
    Layer(#[from] snapshots::Error),
}

/// Why an image does not get a name; the messages are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// There is no such image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The new name has a digest.
    #[error("refusing to create a tag with a digest reference")]
    Digest,
    /// The new name is `sha256`.
    #[error("refusing to create an ambiguous tag using digest algorithm as name")]
    Ambiguous,
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TagError {
    /// What it means to a caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            TagError::Resolve(error) => error.kind(),
            TagError::Digest | TagError::Ambiguous => ErrorKind::InvalidParameter,
            TagError::Store(_) => ErrorKind::Internal,
        }
    }
}

impl ImageStore {
    /// Opens the store below `root`, makes it where it is missing, and looks at each image whether it is whole.
    pub fn open(root: &Path, snapshotter: Arc<dyn Snapshotter>) -> Result<ImageStore, OpenError> {
        let disk = Disk::open(root)?;
        let mut contents = disk.read()?;
        let mut state = State { references: contents.references, ..State::default() };
        for (id, stored) in contents.images {
            state.take(id, stored, snapshotter.as_ref());
        }
        state.forget_dangling_references(&mut contents.problems);
        let known = state.blobs();
        disk.remove_stray_blobs(|digest| known.contains(digest))?;
        let damage =
            |(id, reason): (&ImageId, &String)| Damage { subject: format!("image {id}"), reason: reason.clone() };
        contents.problems.extend(state.damaged.iter().map(damage));
        let blobs = BlobNotes::open(&root.join("images"), |layer| snapshotter.has(layer))?;
        Ok(ImageStore {
            snapshotter,
            disk,
            blobs,
            catalogue: ArcSwap::from_pointee(state.catalogue()),
            state: Mutex::new(state),
            users: OnceLock::new(),
            leases: Arc::default(),
            problems: contents.problems,
        })
    }

    /// Says who uses images, once, when that is known. Until then no layer is deleted; now, those go that a crash left.
    pub fn set_users(&self, users: Arc<dyn ImageUsers>) -> Result<(), StoreError> {
        let mut state = self.lock();
        if self.users.set(users).is_ok() {
            state.doubtful_layers.extend(self.snapshotter.list()?.into_iter().map(|layer| layer.diff_id));
            self.delete_doubtful_layers(&mut state)?;
        }
        Ok(())
    }

    /// All images at this moment.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }

    /// What was found broken when the store was opened.
    pub fn problems(&self) -> &[Damage] {
        &self.problems
    }

    /// The image that `name` means: a name, a name with a digest, an id, or a unique beginning of an id.
    pub fn resolve(&self, name: &str) -> Result<Arc<Image>, ResolveError> {
        self.catalogue.load().resolve(name).cloned()
    }

    /// Images, newest first.
    pub fn list(&self, filters: &ListFilters, intermediate: Intermediate) -> Result<Vec<ListedImage>, ListError> {
        crate::filter::list(&self.catalogue.load(), filters, intermediate)
    }

    /// How the image called `name` came to be, newest step first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>, HistoryError> {
        crate::history::history(&self.catalogue.load(), name)
    }

    /// What images take on the disk.
    pub fn usage(&self) -> Usage {
        crate::usage::usage(&self.catalogue.load(), &self.containers())
    }

    /// Reads an image's files again; why they are not what was stored.
    pub(crate) fn stored_config(&self, id: &ImageId) -> Result<(), String> {
        let stored = self.disk.read_image(id)?;
        stored.record.blobs().iter().try_for_each(|blob| self.disk.read_blob(blob).map(drop))
    }

    /// Writes an image's files anew; one that is gone meanwhile needs none.
    pub(crate) fn write_again(&self, id: &ImageId) -> Result<(), StoreError> {
        let state = self.lock();
        match state.images.get(id) {
            Some((stored, _)) => Ok(self.disk.write_image(id, stored)?),
            None => Ok(()),
        }
    }

    /// Keeps all layers that are here from being deleted, until it is dropped.
    pub fn lease(&self) -> Lease {
        *lock(&self.leases) += 1;
        Lease { count: self.leases.clone() }
    }

    /// Gives the image called `source` the name `target`, which another image loses if it has it.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<Arc<Image>, TagError> {
        check_tag(target)?;
        let mut state = self.lock();
        let id = self.resolve(source)?.id;
        self.add_references(&mut state, &id, std::slice::from_ref(target), Some(Timestamp::now()))?;
        Ok(self.publish(&state, &id))
    }

    /// Removes what `name` names, by Docker's rules.
    pub fn remove(&self, name: &str, request: &RemoveRequest) -> Result<Vec<Removal>, RemoveError> {
        let mut state = self.lock();
        let (catalogue, containers) = (self.catalogue(), self.containers());
        let mut removing = Removing::new(&catalogue, &containers);
        match removing.remove(name, request) {
            Err(RemoveError::Resolve(ResolveError::Damaged { image, .. })) => {
                Ok(self.remove_damaged(&mut state, name, &image)?)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(self.carry_out(&mut state, removing)?),
        }
    }

    /// Removes unused images.
    pub fn prune(&self, filters: &PruneFilters) -> Result<Pruned, StoreError> {
        let mut state = self.lock();
        let (catalogue, containers) = (self.catalogue(), self.containers());
        let removing = crate::prune::prune(&catalogue, &containers, filters, &self.use_record());
        self.carry_out_counting(&mut state, removing)
    }

    /// What [`ImageStore::prune`] would do now.
    pub fn plan_prune(&self, filters: &PruneFilters) -> Pruned {
        let (catalogue, containers) = (self.catalogue(), self.containers());
        let removing = crate::prune::prune(&catalogue, &containers, filters, &self.use_record());
        let reclaimed_bytes = removing.freed_bytes(&self.other_layers());
        Pruned { reclaimed_bytes, removals: removing.removals }
    }

    /// Removes these images with all their names, as far as nobody uses or has pinned them, or has used them since.
    pub fn collect(&self, images: &[ImageId], used_before: Timestamp) -> Result<Pruned, StoreError> {
        let mut state = self.lock();
        let (catalogue, containers) = (self.catalogue(), self.containers());
        let removing = crate::collect::remove_all(&catalogue, &containers, images, used_before, &self.use_record());
        self.carry_out_counting(&mut state, removing)
    }

    fn carry_out_counting(&self, state: &mut State, removing: Removing<'_>) -> Result<Pruned, StoreError> {
        let reclaimed_bytes = removing.freed_bytes(&self.other_layers());
        let removals = self.carry_out(state, removing)?;
        Ok(Pruned { removals, reclaimed_bytes })
    }

    /// Deletes layers that only a container used which is gone now.
    pub fn container_gone(&self, layers: &[DiffId]) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.doubtful_layers.extend(layers);
        self.delete_doubtful_layers(&mut state)
    }

    /// Stores an image whose layers are all here, under names that other images lose.
    pub(crate) fn add(
        &self,
        id: ImageId,
        stored: StoredImage,
        config: Arc<ImageConfig>,
        blobs: &[Vec<u8>],
        names: NewNames<'_>,
    ) -> Result<Arc<Image>, StoreError> {
        let mut state = self.lock();
        // Those that no record would name would lie there until the next start.
        let write_blobs = |record: &ImageRecord| {
            let named = record.blobs();
            let wanted = blobs.iter().filter(|blob| named.contains(&Digest::of(blob)));
            wanted.into_iter().try_for_each(|blob| self.disk.write_blob(blob))
        };
        // An image that is here keeps its record: when it came does not change because it comes again.
        match state.images.get(&id) {
            None => {
                write_blobs(&stored.record)?;
                let written = self.disk.write_image(&id, &stored);
                // A write that failed late may have left its record, which must not outlive the layers: it goes, or the image stays.
                if written.is_ok() || self.disk.remove_image(&id).is_err() {
                    state.damaged.remove(&id);
                    state.images.insert(id, (stored, config));
                }
                written?;
            }
            Some((known, _)) => {
                if let Some(record) = merged(&known.record, stored.record) {
                    write_blobs(&record)?;
                    self.disk.write_record(&id, &record)?;
                    let config_bytes = known.config_bytes.clone();
                    state.images.insert(id, (StoredImage { record, config_bytes }, config));
                }
            }
        }
        self.add_references(&mut state, &id, names.references, names.tagged)?;
        Ok(self.publish(&state, &id))
    }

    /// A blob that an image's attestations name; why it is not what was stored.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>, String> {
        self.disk.read_blob(digest)
    }

    pub(crate) fn write_name_pin(
        &self,
        state: &mut State,
        reference: &Reference,
        pinned: bool,
    ) -> Result<(), StoreError> {
        let mut next = state.references.clone();
        if let Some(named) = next.get_mut(reference) {
            named.pinned = pinned;
        }
        self.write_references(state, next)
    }

    pub(crate) fn write_image_pin(&self, state: &mut State, id: &ImageId, pinned: bool) -> Result<(), StoreError> {
        let Some((stored, _)) = state.images.get_mut(id) else { return Ok(()) };
        let record = ImageRecord { pinned, ..stored.record.clone() };
        self.disk.write_record(id, &record)?;
        stored.record = record;
        Ok(())
    }

    /// Notes that a registry has a layer as this blob.
    pub fn note_blob(&self, layer: &DiffId, blob: LayerBlob) -> Result<(), StoreError> {
        Ok(self.blobs.note(layer, blob)?)
    }

    /// The blobs that registries had of a layer, the newest first.
    pub fn blobs_of(&self, layer: &DiffId) -> Vec<LayerBlob> {
        self.blobs.of(layer)
    }

    /// Gives an image a name with a digest: what a registry calls it since it was pushed there.
    pub fn add_digest(&self, id: &ImageId, reference: &Reference) -> Result<(), StoreError> {
        let mut state = self.lock();
        // Somebody may have removed it meanwhile.
        if state.images.contains_key(id) {
            self.add_references(&mut state, id, std::slice::from_ref(reference), None)?;
            self.publish(&state, id);
        }
        Ok(())
    }

    /// Looks at layers again that came for an image which may not have been made after all.
    pub fn doubt_layers(&self, layers: impl Iterator<Item = DiffId>) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.doubtful_layers.extend(layers);
        self.delete_doubtful_layers(&mut state)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn containers(&self) -> Vec<ContainerUse> {
        self.users.get().map(|users| users.containers()).unwrap_or_default()
    }

    fn other_layers(&self) -> Vec<DiffId> {
        self.users.get().map(|users| users.other_layers()).unwrap_or_default()
    }

    /// When images were used last, and which labels pin them.
    pub fn use_record(&self) -> UseRecord {
        self.users.get().map(|users| users.use_record()).unwrap_or_default()
    }

    fn add_references(
        &self,
        state: &mut State,
        id: &ImageId,
        references: &[Reference],
        tagged: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        if references.is_empty() {
            return Ok(());
        }
        let mut next = state.references.clone();
        for reference in references {
            let name = looked_up(reference);
            // Who pins a name pins what it means, now and later.
            let pinned = next.get(&name).is_some_and(|named| named.pinned);
            next.insert(name, NamedImage { image: *id, tagged, pinned });
        }
        self.write_references(state, next)
    }

    fn write_references(&self, state: &mut State, next: BTreeMap<Reference, NamedImage>) -> Result<(), StoreError> {
        if let Err(error) = self.disk.write_references(&next) {
            // A write that failed late may have left the new names, of which its caller is told that they are not there.
            state.references_unsure = self.disk.write_references(&state.references).is_err();
            return Err(error.into());
        }
        state.references = next;
        state.references_unsure = false;
        Ok(())
    }

    /// Shows readers the new state, and gives back one image of it.
    pub(crate) fn publish(&self, state: &State, id: &ImageId) -> Arc<Image> {
        let catalogue = state.catalogue();
        let image = catalogue.get(id).cloned().expect("the image was just stored");
        self.catalogue.store(Arc::new(catalogue));
        image
    }

    /// Names go first and all at once, then images, then layers: a crash leaves images without a name, or layers without
    /// an image, and both are seen and can be removed.
    fn carry_out(&self, state: &mut State, removing: Removing<'_>) -> Result<Vec<Removal>, StoreError> {
        let Removing { untagged, deleted, removals, .. } = removing;
        if !untagged.is_empty() || state.references_unsure {
            let mut next = state.references.clone();
            next.retain(|reference, _| !untagged.contains(reference));
            self.write_references(state, next)?;
        }
        for image in &deleted {
            if let Err(error) = self.disk.remove_image(&image.id) {
                // What is still whole stays, without a name, and keeps its layers. Of anything else nobody knows what is left: removing
                // it again finishes it, loading it again writes it anew.
                if self.disk.read_image(&image.id).is_err() {
                    state.images.remove(&image.id);
                    state.damaged.insert(image.id, format!("its removal has failed: {error}"));
                }
                self.catalogue.store(Arc::new(state.catalogue()));
                return Err(error.into());
            }
            state.images.remove(&image.id);
            state.doubtful_layers.extend(&image.layers);
        }
        self.catalogue.store(Arc::new(state.catalogue()));
        self.remove_blobs_of(state, &deleted)?;
        self.delete_doubtful_layers(state)?;
        Ok(removals)
    }

    /// Removes the blobs of attestations about images that are gone, unless other images have the same.
    fn remove_blobs_of(&self, state: &State, gone: &[Arc<Image>]) -> Result<(), StoreError> {
        let blobs = gone.iter().filter_map(|image| image.index.as_deref()).flat_map(PulledIndex::blobs);
        let mut blobs: HashSet<Digest> = blobs.collect();
        if !blobs.is_empty() {
            let known = state.blobs();
            blobs.retain(|blob| !known.contains(blob));
        }
        for blob in blobs {
            self.disk.remove_blob(&blob)?;
        }
        Ok(())
    }

    /// A damaged image has no configuration to decide by: its names go, and with the last of them what is left of it.
    fn remove_damaged(&self, state: &mut State, name: &str, id: &ImageId) -> Result<Vec<Removal>, StoreError> {
        let by_id = id.has_prefix(name);
        let named = Reference::parse(name).ok().map(|reference| looked_up(&reference));
        let mut next = state.references.clone();
        let mut removals = Vec::new();
        for (reference, _) in state.references.iter().filter(|(_, named)| named.image == *id) {
            if by_id || named.as_ref() == Some(reference) {
                next.remove(reference);
                removals.push(Removal::Untagged { reference: reference.clone(), image: *id });
            }
        }
        self.write_references(state, next)?;
        if !state.references.values().any(|named| named.image == *id) {
            self.disk.remove_image(id)?;
            state.damaged.remove(id);
            removals.push(Removal::Deleted { image: *id });
        }
        self.catalogue.store(Arc::new(state.catalogue()));
        Ok(removals)
    }

    /// Deletes doubtful layers that no image and no container needs. It waits for nobody: while there is a lease, or while
    /// nobody knows the containers, the layers stay doubtful until the next call.
    fn delete_doubtful_layers(&self, state: &mut State) -> Result<(), StoreError> {
        let Some(users) = self.users.get().filter(|_| !state.doubtful_layers.is_empty()) else { return Ok(()) };
        let of_images = state.images.values().flat_map(|(_, config)| config.rootfs.diff_ids.iter().copied());
        let mut needed: HashSet<DiffId> = of_images.collect();
        needed.extend(users.containers().into_iter().flat_map(|user| user.layers));
        needed.extend(users.other_layers());
        state.doubtful_layers.retain(|layer| !needed.contains(layer));
        while let Some(layer) = state.doubtful_layers.iter().next().copied() {
            let leases = lock(&self.leases);
            if *leases > 0 {
                return Ok(());
            }
            self.snapshotter.remove(&layer)?;
            self.blobs.forget(&layer)?;
            drop(leases);
            state.doubtful_layers.remove(&layer);
        }
        Ok(())
    }
}

impl State {
    /// Takes an image that was read back, whole or damaged.
    fn take(&mut self, id: ImageId, stored: Result<StoredImage, String>, snapshotter: &dyn Snapshotter) {
        match stored.and_then(|stored| whole_config(&stored, snapshotter).map(|config| (stored, config))) {
            Ok((stored, config)) => drop(self.images.insert(id, (stored, Arc::new(config)))),
            Err(reason) => drop(self.damaged.insert(id, reason)),
        }
    }

    /// A name whose image has left no trace names nothing; the order of writing makes it impossible, a disk does not.
    fn forget_dangling_references(&mut self, problems: &mut Vec<Damage>) {
        let (images, damaged) = (&self.images, &self.damaged);
        self.references.retain(|reference, named| {
            let is_known = images.contains_key(&named.image) || damaged.contains_key(&named.image);
            if !is_known {
                let reason = format!("its image {} is gone", named.image);
                problems.push(Damage { subject: reference.familiar(), reason });
            }
            is_known
        });
    }

    /// Every blob that a record speaks of.
    fn blobs(&self) -> HashSet<Digest> {
        let configs = self.images.keys().chain(self.damaged.keys()).map(|id| *id.digest());
        configs.chain(self.images.values().flat_map(|(stored, _)| stored.record.blobs())).collect()
    }

    fn catalogue(&self) -> Catalogue {
        let mut names: BTreeMap<ImageId, Vec<(&Reference, &NamedImage)>> = BTreeMap::new();
        for (reference, named) in &self.references {
            names.entry(named.image).or_default().push((reference, named));
        }
        let images = self.images.iter().map(|(id, (stored, config))| {
            let names = names.get(id).map(Vec::as_slice).unwrap_or_default();
            Arc::new(image_of(*id, stored, config, names))
        });
        let references = self.references.iter().map(|(reference, named)| (reference.clone(), named.image)).collect();
        Catalogue::new(images, references, self.damaged.clone())
    }
}

/// The names that an image gets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewNames<'a> {
    pub(crate) references: &'a [Reference],
    /// When somebody gave them; nothing for those that came with the image.
    pub(crate) tagged: Option<Timestamp>,
}

/// The record that is here with what it did not have yet; nothing where there is no news.
fn merged(known: &ImageRecord, new: ImageRecord) -> Option<ImageRecord> {
    let mut next = known.clone();
    let is_pulled =
        known.origins.iter().flat_map(|all| all.iter()).any(|origin| matches!(origin.source, Source::Registry { .. }));
    // Manifest and index belong together. What a registry said counts more than what is said here, and of that the newest.
    if !is_pulled && new.index.is_some() {
        (next.manifest, next.index) = (new.manifest, new.index);
    } else if next.manifest.is_none() || next.index.is_none() && next.manifest == new.manifest {
        (next.manifest, next.index) = (new.manifest.or(next.manifest), new.index.or(next.index));
    }
    let origins = known.origins.as_deref().cloned().unwrap_or_default();
    let is_new = |origin: &&Origin| {
        // That it was built or loaded here once more says nothing new.
        let same = origins.iter().find(|known| known.source == origin.source);
        same.is_none_or(|known| !origin.signatures.is_empty() && known.signatures != origin.signatures)
    };
    let news: Vec<Origin> = new.origins.iter().flat_map(|all| all.iter()).filter(is_new).cloned().collect();
    if !news.is_empty() {
        next.origins = Some(Arc::new(news.into_iter().fold(origins, with_origin)));
    }
    (next != *known).then_some(next)
}

fn image_of(
    id: ImageId,
    stored: &StoredImage,
    config: &Arc<ImageConfig>,
    names: &[(&Reference, &NamedImage)],
) -> Image {
    let by_name = names.iter().filter(|(_, named)| named.pinned).map(|(name, _)| Pin::Name((*name).clone()));
    let by_id = stored.record.pinned.then_some(Pin::Image);
    let with = |has_digest: bool| {
        let of_kind = names.iter().filter(|(reference, _)| reference.digest().is_some() == has_digest);
        of_kind.map(|(reference, _)| (*reference).clone()).collect()
    };
    Image {
        id,
        config: config.clone(),
        config_bytes: stored.config_bytes.clone(),
        layers: config.rootfs.diff_ids.clone(),
        layer_sizes: stored.record.layer_sizes.clone(),
        tags: with(false),
        digests: with(true),
        parent: stored.record.parent,
        created: time::parse_created(config.created.as_deref()),
        loaded: stored.record.loaded,
        manifest: stored.record.manifest.clone(),
        index: stored.record.index.clone(),
        origins: stored.record.origins.clone(),
        pins: by_id.into_iter().chain(by_name).collect(),
        last_tagged: names.iter().filter_map(|(_, named)| named.tagged).max(),
    }
}

fn whole_config(stored: &StoredImage, snapshotter: &dyn Snapshotter) -> Result<ImageConfig, String> {
    let config: ImageConfig = crate::json::object(&stored.config_bytes).map_err(|error| error.to_string())?;
    if stored.record.layer_sizes.len() != config.rootfs.diff_ids.len() {
        return Err("its record does not fit its configuration".to_owned());
    }
    match config.rootfs.diff_ids.iter().find(|layer| !snapshotter.has(layer)) {
        Some(layer) => Err(format!("layer {layer} is missing")),
        None => Ok(config),
    }
}

pub(crate) fn check_tag(target: &Reference) -> Result<(), TagError> {
    if target.digest().is_some() {
        return Err(TagError::Digest);
    }
    if target.familiar_name() == "sha256" { Err(TagError::Ambiguous) } else { Ok(()) }
}

/// A panic while the lock was held leaves the disk at some step that the order of writing allows.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Lease {
    fn drop(&mut self) {
        *lock(&self.count) -= 1;
    }
}
