//! `docker load`: images out of a stream, in one pass and without a second copy.
//!
//! ```text
//!   input ─▶ decompress ─▶ tar entries ─┬─▶ a tar inside, plain or compressed ─▶ a worker ─▶ layer in the snapshotter
//!                                       └─▶ anything small ─▶ memory
//!   end of stream ─▶ layout::plan (which images, of which layers) ─▶ digests compared ─▶ images stored
//! ```
//!
//! Which entries are layers is known only at the end, so every entry that looks like a layer becomes one, by its own
//! digest; those that no image names are deleted again.

pub(crate) mod layout;
pub(crate) mod platform;
mod stream;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};

use oci::image::Platform;
use oci::{DiffId, Digest, Reference};

pub use layout::LayoutError;

use crate::create::CreateError;
use crate::store::StoreError;
use crate::{ErrorKind, ImageId, ImageStore, NewImage};
use layout::{Archive, Member, PlannedImage, PlannedLayer};

/// How to load.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadRequest {
    /// Only images for this platform; without it, the best one for this machine of each index, and everything else.
    pub platform: Option<Platform>,
    /// What becomes of layers that the archive says to have left out.
    pub absent: AbsentLayers,
}

/// What becomes of layers that an archive says to have left out because the receiver has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AbsentLayers {
    /// They are missing: an archive must bring everything that it names.
    #[default]
    Missing,
    /// Those that are here are taken. Whoever knows a layer's digest may so have an image of it: its contents he must know already, to
    /// have the digest, or have had from somebody who does.
    Taken,
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Which.
    pub image: ImageId,
    /// The names that it got.
    pub references: Vec<Reference>,
}

/// What happens while images are loaded. Its text is Docker's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadEvent {
    /// A layer is being read.
    Layer {
        /// Twelve characters of its name.
        id: String,
        /// How far.
        current_bytes: u64,
        /// Of how much.
        total_bytes: u64,
    },
    /// A name goes from one image to another.
    Renamed {
        /// The name.
        reference: Reference,
        /// The image that loses it.
        previous: ImageId,
    },
    /// An image is there, under this name.
    LoadedReference {
        /// The name.
        reference: Reference,
        /// The image.
        image: ImageId,
    },
    /// An image is there, without a name.
    LoadedId {
        /// The image.
        image: ImageId,
    },
}

impl fmt::Display for LoadEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadEvent::Layer { .. } => formatter.write_str("Loading layer"),
            LoadEvent::Renamed { reference, previous } => write!(
                formatter,
                "The image {} already exists, renaming the old one with ID {previous} to empty string",
                reference.familiar()
            ),
            LoadEvent::LoadedReference { reference, .. } => write!(formatter, "Loaded image: {}", reference.familiar()),
            LoadEvent::LoadedId { image } => write!(formatter, "Loaded image ID: {image}"),
        }
    }
}

/// Why an archive is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The stream broke off, or its compression is damaged.
    #[error("cannot read the archive")]
    Input(#[source] io::Error),
    /// It is no tar, or one that is refused.
    #[error("invalid archive")]
    Archive(#[source] io::Error),
    /// It holds too many or too large documents.
    #[error("the archive's documents take more than {limit_bytes} bytes")]
    TooManyDocuments {
        /// The limit.
        limit_bytes: u64,
    },
    /// It is a tar, but its images are not described, or described wrongly.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A layer's stream is damaged.
    #[error("cannot read layer {name}")]
    LayerInput {
        /// The member of the archive.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// A layer cannot be stored, or its tar is refused.
    #[error("cannot store layer {name}")]
    Layer {
        /// The member of the archive.
        name: String,
        /// Why not.
        source: snapshots::Error,
    },
    /// A layer is not the one that its image names.
    #[error("invalid diffID for layer {index}: expected \"{expected}\", got \"{actual}\"")]
    DiffId {
        /// Which layer of the image, from 0.
        index: usize,
        /// What the image says.
        expected: DiffId,
        /// What the bytes say.
        actual: DiffId,
    },
    /// An image cannot be stored.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoadError {
    /// What it means to a caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LoadError::Layer { source: snapshots::Error::Refused(_), .. } => ErrorKind::InvalidParameter,
            LoadError::Layer { .. } | LoadError::Store(_) => ErrorKind::Internal,
            LoadError::Create(error) => error.kind(),
            _ => ErrorKind::InvalidParameter,
        }
    }
}

/// Where a member of the archive is now that it turned out to be a layer.
#[derive(Debug)]
pub(crate) struct StagedLayer {
    /// The digest of the member's bytes.
    blob: Digest,
    /// What became of it. A damaged layer that no image names harms nobody.
    stored: Result<DiffId, LoadError>,
}

impl ImageStore {
    /// Loads all images of the archive that `input` gives, compressed or not.
    pub fn load(
        &self,
        input: Box<dyn Read + Send>,
        request: &LoadRequest,
        on_event: &(dyn Fn(LoadEvent) + Sync),
    ) -> Result<Vec<Loaded>, LoadError> {
        let lease = self.lease();
        let mut archive = Archive::new();
        let loaded = stream::read(input, self.snapshotter.as_ref(), &mut archive, on_event)
            .and_then(|()| self.take_absent(&mut archive, request.absent))
            .and_then(|()| self.store_images(&mut archive, request, on_event));
        drop(lease);
        // Hundreds of pieces have passed through; an idle daemon shall not keep them.
        linux::allocator::give_back();
        let stored = archive.into_layers().filter_map(|(_, layer)| layer.stored.ok());
        self.doubt_layers(stored)?;
        loaded
    }

    /// Takes the layers that the archive lists as left out and that are here.
    fn take_absent(&self, archive: &mut Archive<StagedLayer>, absent: AbsentLayers) -> Result<(), LoadError> {
        if absent == AbsentLayers::Missing {
            return Ok(());
        }
        for layer in layout::absent_layers(archive)? {
            if self.snapshotter.has(&layer) {
                let staged = StagedLayer { blob: layer.0, stored: Ok(layer) };
                archive.insert_missing(layout::blob_name(&layer.0), Member::Layer(staged));
            }
        }
        Ok(())
    }

    fn store_images(
        &self,
        archive: &mut Archive<StagedLayer>,
        request: &LoadRequest,
        on_event: &(dyn Fn(LoadEvent) + Sync),
    ) -> Result<Vec<Loaded>, LoadError> {
        let images = layout::plan(archive, request.platform.as_ref())?;
        for image in &images {
            check_layers(archive, image)?;
        }
        let parents = parents_of(&images);
        let store = |image: PlannedImage| self.store_image(image, &parents, on_event);
        images.into_iter().map(store).collect()
    }

    fn store_image(
        &self,
        image: PlannedImage,
        parents: &HashMap<ImageId, ImageId>,
        on_event: &(dyn Fn(LoadEvent) + Sync),
    ) -> Result<Loaded, LoadError> {
        let id = ImageId::of_config(&image.config_bytes);
        let catalogue = self.catalogue();
        for reference in &image.references {
            if let Some(previous) = catalogue.find_reference(reference).filter(|previous| *previous != id) {
                on_event(LoadEvent::Renamed { reference: reference.clone(), previous });
            }
        }
        let references = image.references;
        let parent = parents.get(&id).copied();
        self.create_with_its_names(NewImage { config: image.config_bytes, references: references.clone(), parent })?;
        if references.is_empty() {
            on_event(LoadEvent::LoadedId { image: id });
        }
        for reference in &references {
            on_event(LoadEvent::LoadedReference { reference: reference.clone(), image: id });
        }
        Ok(Loaded { image: id, references })
    }
}

/// Compares every digest that the archive states with the bytes that came.
fn check_layers(archive: &mut Archive<StagedLayer>, image: &PlannedImage) -> Result<(), LoadError> {
    for (index, PlannedLayer { member, blob, diff_id }) in image.layers.iter().enumerate() {
        let layer = archive.layer_mut(member).expect("the plan names layers alone");
        let actual = match &layer.stored {
            Ok(actual) => *actual,
            Err(_) => return Err(std::mem::replace(&mut layer.stored, Ok(*diff_id)).expect_err("it is one")),
        };
        if blob.is_some_and(|blob| blob != layer.blob) {
            return Err(LayoutError::Digest { name: member.clone(), actual: layer.blob }.into());
        }
        if actual != *diff_id {
            return Err(LoadError::DiffId { index, expected: *diff_id, actual });
        }
    }
    Ok(())
}

/// Which image is whose parent, as far as the archive can be believed: the parent is in it, and the child is the parent and
/// one step more. (Docker's rule; it also makes a circle of parents impossible, which nobody could delete.)
fn parents_of(images: &[PlannedImage]) -> HashMap<ImageId, ImageId> {
    let by_id: HashMap<ImageId, &PlannedImage> =
        images.iter().map(|image| (ImageId::of_config(&image.config_bytes), image)).collect();
    let is_parent = |parent: &PlannedImage, child: &PlannedImage| {
        let (parent, child) = (&parent.config, &child.config);
        child.history.len() == parent.history.len() + 1
            && child.history.starts_with(&parent.history)
            && child.rootfs.diff_ids.starts_with(&parent.rootfs.diff_ids)
    };
    let pair = |(id, image): (&ImageId, &&PlannedImage)| {
        let parent = image.parent.filter(|parent| parent != id)?;
        by_id.get(&parent).filter(|other| is_parent(other, image)).map(|_| (*id, parent))
    };
    by_id.iter().filter_map(pair).collect()
}

/// Reads the end of the input, so that a client that is still sending padding can finish.
fn drain(input: &mut dyn Read) {
    const DRAIN_BYTES_MAX: u64 = 16 << 20;
    // The images are all there; whatever is wrong with the padding is nobody's loss.
    let _ = io::copy(&mut input.take(DRAIN_BYTES_MAX), &mut io::sink());
}

/// Whom to tell how it goes.
type Progress<'a> = &'a (dyn Fn(LoadEvent) + Sync);
