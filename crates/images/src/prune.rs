//! `docker image prune`.

use std::sync::Arc;

use jiff::Timestamp;

use crate::filter::LabelFilter;
use crate::remove::{ContainerUse, Force, ParentImages, Removal, RemoveRequest, Removing};
use crate::uses::UseRecord;
use crate::{Catalogue, Image};

/// Which unused images go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dangling {
    /// Those without a tag.
    Only,
    /// All that no container uses (`--all`).
    AllUnused,
}

/// Which images a prune is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneFilters {
    /// Whether tagged images may go.
    pub dangling: Dangling,
    /// `label`: all must be there.
    pub labels: Vec<LabelFilter>,
    /// `label!`: none may be there.
    pub without_labels: Vec<LabelFilter>,
    /// `until`: created before this moment.
    pub until: Option<Timestamp>,
    /// `unused-for`: neither used nor come here since this moment.
    pub unused_since: Option<Timestamp>,
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// What is gone.
    pub removals: Vec<Removal>,
    /// The sizes of the layers that are gone.
    pub reclaimed_bytes: u64,
}

/// Decides which images go. What is in use or pinned stays, silently.
pub(crate) fn prune<'a>(
    catalogue: &'a Catalogue,
    containers: &'a [ContainerUse],
    filters: &PruneFilters,
    uses: &UseRecord,
) -> Removing<'a> {
    let mut removing = Removing::sparing(catalogue, containers, uses);
    let passes = |image: &&Arc<Image>| filters.pass(image, uses);
    let mut candidates: Vec<&Arc<Image>> =
        catalogue.images().filter(|image| !catalogue.has_children(&image.id)).filter(passes).collect();
    if filters.dangling == Dangling::AllUnused {
        let named_parents = catalogue.images().filter(|image| catalogue.has_children(&image.id));
        candidates.extend(named_parents.filter(|image| image.references().next().is_some()).filter(passes));
    }
    for image in candidates {
        remove_unused(&mut removing, image, filters.dangling);
    }
    removing
}

/// Removes an image unless it is in use, and with [`Dangling::AllUnused`] its names.
pub(crate) fn remove_unused(removing: &mut Removing<'_>, image: &Image, dangling: Dangling) {
    for name in names_to_remove(removing, image, dangling) {
        let request = RemoveRequest { force: Force::No, parents: ParentImages::Remove };
        // A conflict means that the image is in use, and such images are left alone.
        let _ = removing.remove(&name, &request);
    }
}

/// The names by which an image is removed; its id if it has none.
fn names_to_remove(removing: &Removing<'_>, image: &Image, dangling: Dangling) -> Vec<String> {
    let references = removing.references_of(&image.id);
    if references.is_empty() {
        return vec![image.id.hex()];
    }
    let has_tag = references.iter().any(|reference| reference.tag().is_some());
    if has_tag && dangling == Dangling::Only {
        return Vec::new();
    }
    references.iter().map(oci::Reference::canonical).collect()
}

impl PruneFilters {
    fn pass(&self, image: &Image, uses: &UseRecord) -> bool {
        let old_enough = self.until.is_none_or(|until| image.created.is_some_and(|created| created <= until));
        let idle_enough = self.unused_since.is_none_or(|since| uses.last_use(image) <= since);
        let unwanted = self.without_labels.iter().any(|label| image.has_label(label)) || uses.is_pinned(image);
        old_enough && idle_enough && !unwanted && image.has_labels(&self.labels)
    }
}

#[cfg(test)]
mod tests;
