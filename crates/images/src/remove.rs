//! What `docker rmi` removes: Docker's rules, as a pure decision.
//!
//! [`Removing`] works on a [`Catalogue`] and remembers what is gone already, so that one decision can follow another
//! (`prune` removes many) and the disk is touched once, at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use oci::{DiffId, Digest, Reference};

use crate::catalogue::{Catalogue, ResolveError, looked_up};
use crate::image::chain_ids;
use crate::store::StoreError;
use crate::uses::UseRecord;
use crate::{ErrorKind, Image, ImageId};

/// Whether conflicts that Docker calls soft are overridden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// They are not.
    No,
    /// They are (`rmi --force`).
    Yes,
}

/// What becomes of parents that nothing else needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentImages {
    /// They go too.
    Remove,
    /// They stay (`rmi --no-prune`).
    Keep,
}

/// How to remove an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoveRequest {
    /// Whether to override soft conflicts.
    pub force: Force,
    /// What becomes of its parents.
    pub parents: ParentImages,
}

/// Whether a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// A container, as far as images are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUse {
    /// Its id, 64 hexadecimal digits.
    pub container: String,
    /// The image that it was made from.
    pub image: ImageId,
    /// The layers that it needs, lowest first.
    pub layers: Vec<DiffId>,
    /// Whether it runs.
    pub running: Running,
}

/// Who uses images. It is asked while the store holds its lock, so it must not call the store.
pub trait ImageUsers: Send + Sync + Debug {
    /// All containers there are.
    fn containers(&self) -> Vec<ContainerUse>;

    /// Layers that somebody else needs.
    fn other_layers(&self) -> Vec<DiffId> {
        Vec::new()
    }

    /// When images were used last, and which labels pin them.
    fn use_record(&self) -> UseRecord {
        UseRecord::default()
    }
}

/// One line of what was removed, in Docker's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// A name.
    Untagged {
        /// The name.
        reference: Reference,
        /// What it named.
        image: ImageId,
    },
    /// An image.
    Deleted {
        /// Which.
        image: ImageId,
    },
    /// A layer that nothing needs any more.
    DeletedLayer {
        /// The layer and all below it, by Docker's chain id.
        chain: Digest,
        /// Its size.
        size_bytes: u64,
    },
}

/// Why an image is not removed; the messages are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The last name of an image that a container uses.
    #[error(
        "conflict: unable to remove repository reference {name:?} (must force) - container {container} is using its referenced image {image}"
    )]
    NameInUse {
        /// The name as given.
        name: String,
        /// The container's short id.
        container: String,
        /// The image's short id.
        image: String,
    },
    /// The image cannot go.
    #[error("conflict: unable to delete {image} ({force}) - {conflict}")]
    Conflict {
        /// The image's short id.
        image: String,
        /// Whether force would help, in Docker's words.
        force: &'static str,
        /// What stands in the way.
        conflict: Conflict,
    },
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What stands in the way of deleting an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Others were built upon it.
    #[error("image has dependent child images")]
    Children,
    /// A container runs on it.
    #[error("image is being used by running container {0}")]
    Running(String),
    /// It has names in several repositories, or several tags.
    #[error("image is referenced in multiple repositories")]
    References,
    /// A stopped container was made from it.
    #[error("image is being used by stopped container {0}")]
    Stopped(String),
}

impl Conflict {
    /// Says whether force does not help.
    fn is_hard(&self) -> bool {
        matches!(self, Conflict::Children | Conflict::Running(_))
    }

    fn is_use(&self) -> bool {
        matches!(self, Conflict::Running(_) | Conflict::Stopped(_))
    }
}

impl RemoveError {
    /// What it means to a caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RemoveError::Resolve(error) => error.kind(),
            RemoveError::NameInUse { .. } | RemoveError::Conflict { .. } => ErrorKind::Conflict,
            RemoveError::Store(_) => ErrorKind::Internal,
        }
    }
}

/// Which conflicts matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conflicts {
    Hard,
    HardAndSoft,
    /// All but other names, because those go first.
    HardAndStopped,
}

/// Whether a conflict ends the removal as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quiet {
    /// The name is gone already, or the image is only a parent: what cannot go simply stays.
    Yes,
    No,
}

/// A removal in the making.
#[derive(Debug)]
pub(crate) struct Removing<'a> {
    catalogue: &'a Catalogue,
    containers: &'a [ContainerUse],
    references: BTreeMap<ImageId, BTreeSet<Reference>>,
    children: HashMap<ImageId, usize>,
    chains: HashMap<Digest, usize>,
    /// Images that stay whatever was built upon them.
    kept: BTreeSet<ImageId>,
    /// Names that are gone.
    pub(crate) untagged: BTreeSet<Reference>,
    /// Images that are gone.
    pub(crate) deleted: Vec<Arc<Image>>,
    /// The lines for the user.
    pub(crate) removals: Vec<Removal>,
}

impl<'a> Removing<'a> {
    pub(crate) fn new(catalogue: &'a Catalogue, containers: &'a [ContainerUse]) -> Removing<'a> {
        let mut references: BTreeMap<ImageId, BTreeSet<Reference>> = BTreeMap::new();
        for (reference, image) in catalogue.references() {
            references.entry(*image).or_default().insert(reference.clone());
        }
        let mut children = HashMap::new();
        for parent in catalogue.images().flat_map(|image| image.needs()) {
            *children.entry(parent).or_default() += 1;
        }
        let stacks = catalogue.images().map(|image| &image.layers).chain(containers.iter().map(|user| &user.layers));
        let mut chains = HashMap::new();
        for chain in stacks.flat_map(|layers| chain_ids(layers)) {
            *chains.entry(chain).or_default() += 1;
        }
        let (kept, untagged, deleted, removals) = (BTreeSet::new(), BTreeSet::new(), Vec::new(), Vec::new());
        Removing { catalogue, containers, references, children, chains, kept, untagged, deleted, removals }
    }

    /// The same for a removal that nobody asked for image by image: what is pinned stays.
    pub(crate) fn sparing(catalogue: &'a Catalogue, containers: &'a [ContainerUse], uses: &UseRecord) -> Removing<'a> {
        let kept = catalogue.images().filter(|image| uses.is_pinned(image)).map(|image| image.id).collect();
        Removing { kept, ..Removing::new(catalogue, containers) }
    }

    /// The sizes of the layers that nothing needs any more: neither an image that stays, nor a container, nor one of `others`.
    pub(crate) fn freed_bytes(&self, others: &[DiffId]) -> u64 {
        let gone: BTreeSet<ImageId> = self.deleted.iter().map(|image| image.id).collect();
        let staying = self.catalogue.images().filter(|image| !gone.contains(&image.id)).map(|image| &image.layers);
        let needed = staying.chain(self.containers.iter().map(|user| &user.layers)).flatten().chain(others);
        let mut counted: std::collections::HashSet<&DiffId> = needed.collect();
        let layers = self.deleted.iter().flat_map(|image| image.layers.iter().zip(&image.layer_sizes));
        layers.filter(|(layer, _)| counted.insert(layer)).map(|(_, size_bytes)| size_bytes).sum()
    }

    /// Removes what `name` names.
    pub(crate) fn remove(&mut self, name: &str, request: &RemoveRequest) -> Result<(), RemoveError> {
        let image = self.find(name)?;
        let quiet = if image.id.has_prefix(name) {
            self.untag_for_id(&image, request.force)?;
            Quiet::No
        } else {
            self.untag_name(&image, name, request.force)?;
            if !self.references_of(&image.id).is_empty() {
                return Ok(());
            }
            Quiet::Yes
        };
        self.delete(&image, request.force, request.parents, quiet)
    }

    /// The image that `name` still means.
    fn find(&self, name: &str) -> Result<Arc<Image>, ResolveError> {
        let image = self.catalogue.resolve(name)?;
        let is_gone = self.deleted.iter().any(|deleted| deleted.id == image.id)
            || Reference::parse(name).is_ok_and(|reference| self.untagged.contains(&looked_up(&reference)));
        if is_gone { Err(ResolveError::NotFound(name.to_owned())) } else { Ok(image.clone()) }
    }

    /// A name was given: it goes, unless it is the last one of an image in use.
    fn untag_name(&mut self, image: &Image, name: &str, force: Force) -> Result<(), RemoveError> {
        let references = self.references_of(&image.id);
        let needs_force = force == Force::No && is_single(&references);
        if let Some(user) = self.containers.iter().find(|user| needs_force && user.image == image.id) {
            let container = short(&user.container);
            return Err(RemoveError::NameInUse { name: name.to_owned(), container, image: image.id.short() });
        }
        let reference = Reference::parse(name).map(|reference| looked_up(&reference)).map_err(ResolveError::from)?;
        self.untag(image.id, &reference);
        if reference.digest().is_none() {
            self.untag_left_digests(image.id, &reference);
        }
        Ok(())
    }

    /// Digests of a repository mean nothing to a user once its last tag is gone.
    fn untag_left_digests(&mut self, image: ImageId, removed: &Reference) {
        let same: Vec<Reference> = self
            .references_of(&image)
            .into_iter()
            .filter(|reference| reference.canonical_name() == removed.canonical_name())
            .collect();
        if same.iter().all(|reference| reference.digest().is_some()) {
            for reference in same {
                self.untag(image, &reference);
            }
        }
    }

    /// An id was given: if all names are one name, they go with the image.
    fn untag_for_id(&mut self, image: &Image, force: Force) -> Result<(), RemoveError> {
        let references = self.references_of(&image.id);
        if !is_single(&references) {
            return Ok(());
        }
        let conflicts = if force == Force::Yes { Conflicts::Hard } else { Conflicts::HardAndStopped };
        if let Some(conflict) = self.conflict(&image.id, conflicts) {
            return Err(refusal(&image.id, conflict));
        }
        for reference in references {
            self.untag(image.id, &reference);
        }
        Ok(())
    }

    fn delete(
        &mut self,
        image: &Arc<Image>,
        force: Force,
        parents: ParentImages,
        quiet: Quiet,
    ) -> Result<(), RemoveError> {
        let conflicts = if force == Force::Yes { Conflicts::Hard } else { Conflicts::HardAndSoft };
        if let Some(conflict) = self.conflict(&image.id, conflicts) {
            let is_dangling = self.references_of(&image.id).is_empty() && !self.has_children(&image.id);
            let is_silent = quiet == Quiet::Yes && (!is_dangling || conflict.is_use());
            return if is_silent { Ok(()) } else { Err(refusal(&image.id, conflict)) };
        }
        for reference in self.references_of(&image.id) {
            self.untag(image.id, &reference);
        }
        self.removals.push(Removal::Deleted { image: image.id });
        self.release_layers(image);
        self.deleted.push(image.clone());
        for parent in image.needs() {
            self.children.entry(parent).and_modify(|count| *count -= 1);
            if let Some(parent) = self.catalogue.get(&parent).cloned()
                && parents == ParentImages::Remove
                && !self.kept.contains(&parent.id)
            {
                self.delete(&parent, Force::No, ParentImages::Remove, Quiet::Yes)?;
            }
        }
        Ok(())
    }

    /// Reports the layers that nothing needs any more, topmost first.
    fn release_layers(&mut self, image: &Image) {
        for (chain, size_bytes) in chain_ids(&image.layers).into_iter().zip(&image.layer_sizes).rev() {
            let users = self.chains.entry(chain).or_insert(1);
            *users -= 1;
            if *users == 0 {
                self.removals.push(Removal::DeletedLayer { chain, size_bytes: *size_bytes });
            }
        }
    }

    fn untag(&mut self, image: ImageId, reference: &Reference) {
        if self.references.get_mut(&image).is_some_and(|references| references.remove(reference)) {
            self.untagged.insert(reference.clone());
            self.removals.push(Removal::Untagged { reference: reference.clone(), image });
        }
    }

    /// All names that an image still has, sorted, those with tags of a repository before those with digests.
    pub(crate) fn references_of(&self, image: &ImageId) -> Vec<Reference> {
        let mut references: Vec<Reference> = self.references.get(image).into_iter().flatten().cloned().collect();
        references.sort_by_key(|reference| (reference.canonical_name(), reference.digest().is_some()));
        references
    }

    /// Says whether an image is still the parent of another.
    pub(crate) fn has_children(&self, image: &ImageId) -> bool {
        self.children.get(image).is_some_and(|count| *count > 0)
    }

    fn conflict(&self, image: &ImageId, conflicts: Conflicts) -> Option<Conflict> {
        let user = |running| self.containers.iter().find(|user| user.image == *image && user.running == running);
        if self.has_children(image) {
            return Some(Conflict::Children);
        }
        if let Some(user) = user(Running::Yes) {
            return Some(Conflict::Running(short(&user.container)));
        }
        if conflicts == Conflicts::HardAndSoft && !self.references_of(image).is_empty() {
            return Some(Conflict::References);
        }
        match user(Running::No) {
            Some(user) if conflicts != Conflicts::Hard => Some(Conflict::Stopped(short(&user.container))),
            _ => None,
        }
    }
}

fn refusal(image: &ImageId, conflict: Conflict) -> RemoveError {
    let force = if conflict.is_hard() { "cannot be forced" } else { "must be forced" };
    RemoveError::Conflict { image: image.short(), force, conflict }
}

fn short(container: &str) -> String {
    container.chars().take(12).collect()
}

/// Says whether all names are one: at most one tag, and digests of that tag's repository alone.
fn is_single(references: &[Reference]) -> bool {
    if references.len() <= 1 {
        return true;
    }
    let tags: Vec<&Reference> = references.iter().filter(|reference| reference.digest().is_none()).collect();
    let repositories: BTreeSet<String> = references.iter().map(Reference::canonical_name).collect();
    tags.len() <= 1 && repositories.len() == 1
}

#[cfg(test)]
mod tests;
