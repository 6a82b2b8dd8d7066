//! Making an image of a configuration and layers that are here.

use std::sync::Arc;

use jiff::Timestamp;
use oci::image::ImageConfig;
use oci::{DiffId, Reference};

use crate::disk::{ImageRecord, StoredImage};
use crate::origin::{Origin, Pulled, PulledIndex, Source};
use crate::store::{NewNames, StoreError};
use crate::{Bundle, ErrorKind, Image, ImageId, ImageStore, PulledManifest};

/// An image to be made. Hold a [`Lease`](crate::Lease) from before its layers come until it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewImage {
    /// The configuration, byte for byte.
    pub config: Vec<u8>,
    /// The names that it gets.
    pub references: Vec<Reference>,
    /// The image that it was built upon here.
    pub parent: Option<ImageId>,
}

/// Why an image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The configuration is not one.
    #[error("invalid image configuration")]
    Config(#[source] serde_json::Error),
    /// A layer that the configuration names is not here.
    #[error("layer {0} of the image is not here")]
    LayerMissing(DiffId),
    /// A layer cannot be read or written.
    #[error(transparent)]
    Layer(#[from] snapshots::Error),
    /// A layer's bytes cannot be written.
    #[error("cannot write a layer")]
    LayerWrite(#[source] std::io::Error),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CreateError {
    /// What it means to a caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CreateError::Config(_) => ErrorKind::InvalidParameter,
            _ => ErrorKind::Internal,
        }
    }
}

impl ImageStore {
    /// Makes an image of a configuration and of layers that are here. If it is here already, it only gets the names.
    pub fn create(&self, new: NewImage) -> Result<Arc<Image>, CreateError> {
        self.create_tagged(new, Arrival::of(Source::Build), Some(Timestamp::now()))
    }

    /// The same for an image of a tar of files.
    pub(crate) fn create_imported(&self, new: NewImage) -> Result<Arc<Image>, CreateError> {
        self.create_tagged(new, Arrival::of(Source::Import), Some(Timestamp::now()))
    }

    /// The same for an image that came with its names, which nobody gave it at any time.
    pub(crate) fn create_with_its_names(&self, new: NewImage) -> Result<Arc<Image>, CreateError> {
        self.create_tagged(new, Arrival::of(Source::Archive), None)
    }

    /// Makes an image that came from a registry. If it is here already, it gets the names, where it came from, and the manifest and
    /// index if it has none.
    pub fn create_pulled(&self, new: NewImage, pulled: Pulled) -> Result<Arc<Image>, CreateError> {
        let arrival = Arrival {
            manifest: Some(pulled.manifest),
            index: pulled.index,
            blobs: pulled.blobs,
            origin: pulled.origin,
        };
        self.create_tagged(new, arrival, Some(Timestamp::now()))
    }

    /// Makes an image that was built here as one of an index. The caller has made the others.
    pub fn create_bundled(
        &self,
        new: NewImage,
        manifest: PulledManifest,
        bundle: Bundle,
        others: Vec<ImageId>,
    ) -> Result<Arc<Image>, CreateError> {
        let Bundle { index, attestations, blobs } = bundle;
        let index =
            PulledIndex { media_type: index.media_type, document: index.document, attestations, images: others };
        let arrival = Arrival { manifest: Some(manifest), index: Some(index), blobs, ..Arrival::of(Source::Build) };
        self.create_tagged(new, arrival, Some(Timestamp::now()))
    }

    fn create_tagged(
        &self,
        new: NewImage,
        arrival: Arrival,
        tagged: Option<Timestamp>,
    ) -> Result<Arc<Image>, CreateError> {
        let config: ImageConfig = crate::json::object(&new.config).map_err(CreateError::Config)?;
        let layer_sizes = self.layer_sizes(&config.rootfs.diff_ids)?;
        let id = ImageId::of_config(&new.config);
        let parent = new.parent.filter(|parent| *parent != id);
        let record = ImageRecord {
            loaded: arrival.origin.time,
            parent,
            layer_sizes,
            manifest: arrival.manifest.map(Arc::new),
            index: arrival.index.map(Arc::new),
            origins: Some(Arc::new(vec![arrival.origin])),
            pinned: false,
        };
        let stored = StoredImage { record, config_bytes: new.config.into() };
        let names = NewNames { references: &new.references, tagged };
        Ok(self.add(id, stored, Arc::new(config), &arrival.blobs, names)?)
    }

    fn layer_sizes(&self, layers: &[DiffId]) -> Result<Vec<u64>, CreateError> {
        let mut sizes = Vec::with_capacity(layers.len());
        for layer in layers {
            if !self.snapshotter.has(layer) {
                return Err(CreateError::LayerMissing(*layer));
            }
            sizes.push(self.snapshotter.size(layer)?);
        }
        Ok(sizes)
    }
}

/// What is known about an image beyond its configuration, when it comes.
struct Arrival {
    manifest: Option<PulledManifest>,
    index: Option<PulledIndex>,
    blobs: Vec<Vec<u8>>,
    origin: Origin,
}

impl Arrival {
    /// One without a registry, now.
    fn of(source: Source) -> Arrival {
        let origin = Origin { source, time: Timestamp::now(), signatures: Vec::new() };
        Arrival { manifest: None, index: None, blobs: Vec::new(), origin }
    }
}
