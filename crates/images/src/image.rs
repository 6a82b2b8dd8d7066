//! An image as readers see it.

use std::sync::Arc;

use jiff::Timestamp;
use oci::image::ImageConfig;
use oci::{DiffId, Digest, Reference};

use crate::{ImageId, Origin, Pin, PulledIndex, PulledManifest};

/// An image. It never changes; a change of its names publishes another one.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The digest of its configuration.
    pub id: ImageId,
    /// The configuration, parsed.
    pub config: Arc<ImageConfig>,
    /// The configuration, byte for byte.
    pub config_bytes: Arc<[u8]>,
    /// Its layers, lowest first.
    pub layers: Vec<DiffId>,
    /// The sizes of their tars, in the same order.
    pub layer_sizes: Vec<u64>,
    /// Its names with tags, sorted.
    pub tags: Vec<Reference>,
    /// Its names with digests, sorted.
    pub digests: Vec<Reference>,
    /// The image that it was built upon here.
    pub parent: Option<ImageId>,
    /// When its configuration says that it was made.
    pub created: Option<Timestamp>,
    /// When it came here.
    pub loaded: Timestamp,
    /// The manifest that a registry had for it.
    pub manifest: Option<Arc<PulledManifest>>,
    /// The index that led to that manifest.
    pub index: Option<Arc<PulledIndex>>,
    /// Where it came from, the newest first; nothing for what came before that was noted.
    pub origins: Option<Arc<Vec<Origin>>>,
    /// What pins it, but for labels.
    pub pins: Vec<Pin>,
    /// When the newest of its tags was given here; tags that came with it do not count.
    pub last_tagged: Option<Timestamp>,
}

/// Whether images that are only the parents of others are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intermediate {
    /// They are not.
    Hidden,
    /// They are (`docker images --all`).
    Shown,
}

/// An image in a list: its names are those that passed the list's filters.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedImage {
    /// The image.
    pub image: Arc<Image>,
    /// Names with tags.
    pub tags: Vec<Reference>,
    /// Names with digests.
    pub digests: Vec<Reference>,
}

impl Image {
    /// An image that no store holds: it has no names, no origin and no parent, and the sizes of its layers are not said.
    pub fn unnamed(id: ImageId, config: ImageConfig, config_bytes: Arc<[u8]>, layers: Vec<DiffId>) -> Self {
        Self {
            id,
            config: Arc::new(config),
            config_bytes,
            layers,
            layer_sizes: Vec::new(),
            tags: Vec::new(),
            digests: Vec::new(),
            parent: None,
            created: None,
            loaded: Timestamp::UNIX_EPOCH,
            manifest: None,
            index: None,
            origins: None,
            pins: Vec::new(),
            last_tagged: None,
        }
    }

    /// The sum of its layers' sizes.
    pub fn size_bytes(&self) -> u64 {
        self.layer_sizes.iter().sum()
    }

    /// Where it came from, the newest first.
    pub fn origins(&self) -> &[Origin] {
        self.origins.as_deref().map(Vec::as_slice).unwrap_or_default()
    }

    /// The images that stay as long as this one does: the one that it was built upon, and those beside it in an index that was made here.
    pub(crate) fn needs(&self) -> impl Iterator<Item = ImageId> {
        let beside = self.index.iter().flat_map(|index| index.images.iter().copied());
        self.parent.into_iter().chain(beside)
    }

    /// All its names.
    pub(crate) fn references(&self) -> impl Iterator<Item = &Reference> {
        self.tags.iter().chain(&self.digests)
    }

    pub(crate) fn has_labels(&self, wanted: &[crate::LabelFilter]) -> bool {
        wanted.iter().all(|filter| self.has_label(filter))
    }

    pub(crate) fn has_label(&self, wanted: &crate::LabelFilter) -> bool {
        let value = self.config.config.labels.as_ref().and_then(|labels| labels.get(&wanted.key));
        value.is_some_and(|value| wanted.value.as_ref().is_none_or(|wanted| wanted == value))
    }
}

/// The identity of each prefix of a stack of layers, lowest first: what Docker shows as a deleted layer.
pub(crate) fn chain_ids(layers: &[DiffId]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(layers.len());
    for layer in layers {
        chain.push(match chain.last() {
            None => *layer.digest(),
            Some(below) => Digest::of(format!("{below} {layer}").as_bytes()),
        });
    }
    chain
}
