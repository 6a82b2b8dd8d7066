//! `docker save`: images as one tar that Docker, containerd, Podman and Conex load.
//!
//! The layout is that of Docker 25 and later, an OCI layout and a docker-archive in one. The same images give the same
//! bytes, whenever and wherever they are saved: every time is 1970, the order is that of the names asked for, and what
//! describes the archive comes first, so that a reader of the stream knows what to expect.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, Read, Write};
use std::sync::Arc;

use archive::tar::{EntryKind, Header, Metadata, Writer};
use oci::image::{ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, ImageLayout, Index, Manifest, media_type};
use oci::{DiffId, Digest, Reference};
use serde::Serialize;

use crate::catalogue::{Catalogue, ResolveError};
use crate::{Bundle, ErrorKind, Image, ImageId, ImageStore, PulledManifest};

const COPY_BYTES: usize = 1 << 20;
const BLOBS: &str = "blobs/sha256";
/// The member that lists layers that are left out because the receiver has them: a list of diff-ids.
pub(crate) const ABSENT_LAYERS: &str = "conex-absent-layers.json";

/// Why images are not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// There is no such image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No name was given.
    #[error("no image to save was named")]
    Nothing,
    /// A description cannot be written down.
    #[error("cannot describe the images")]
    Json(#[source] serde_json::Error),
    /// A layer cannot be read.
    #[error("cannot read layer {layer}")]
    Layer {
        /// Which.
        layer: DiffId,
        /// Why not.
        source: snapshots::Error,
    },
    /// A layer is not as long as it was when it came.
    #[error("layer {layer} is damaged: it has {actual_bytes} bytes instead of {expected_bytes}")]
    LayerSize {
        /// Which.
        layer: DiffId,
        /// What it has.
        actual_bytes: u64,
        /// What it had.
        expected_bytes: u64,
    },
    /// The receiver has gone, or a layer's file failed while it was read.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

impl SaveError {
    /// What it means to a caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SaveError::Resolve(error) => error.kind(),
            SaveError::Nothing => ErrorKind::InvalidParameter,
            _ => ErrorKind::Internal,
        }
    }
}

/// An image and the tags that were asked for.
struct Saved {
    image: Arc<Image>,
    tags: Vec<Reference>,
}

impl ImageStore {
    /// Says whether every name means something, before the first byte is written.
    pub fn check_saveable(&self, names: &[String]) -> Result<(), SaveError> {
        select(&self.catalogue(), names).map(drop)
    }

    /// Writes the images that `names` mean as one tar. A name without a tag means all tags of its repository.
    pub fn save(&self, names: &[String], output: &mut dyn Write) -> Result<(), SaveError> {
        self.save_without(names, &HashSet::new(), output)
    }

    /// The same without some layers, which the receiver has. The archive lists them, and is whole for a receiver that has them alone:
    /// see [`LoadRequest::absent`](crate::LoadRequest::absent).
    pub fn save_without(
        &self,
        names: &[String],
        without: &HashSet<DiffId>,
        output: &mut dyn Write,
    ) -> Result<(), SaveError> {
        let _lease = self.lease();
        self.write_archive(&select(&self.catalogue(), names)?, without, output)
    }

    /// The same for an image that is not in the store as long as its layers are; the caller holds a lease.
    pub fn save_unnamed(
        &self,
        image: Arc<Image>,
        tags: Vec<Reference>,
        output: &mut dyn Write,
    ) -> Result<(), SaveError> {
        self.write_archive(&[Saved { image, tags }], &HashSet::new(), output)
    }

    /// Writes images that are not in the store as one index, in OCI's layout; the caller holds a lease.
    pub fn save_bundle(
        &self,
        images: &[Arc<Image>],
        bundle: &Bundle,
        tags: &[Reference],
        output: &mut dyn Write,
    ) -> Result<(), SaveError> {
        let mut archive = ArchiveWriter { tar: Writer::new(output), written: HashSet::new() };
        archive.file("oci-layout", &json(&ImageLayout::default())?)?;
        archive.file("index.json", &json(&index_of_tags(&bundle.index, tags))?)?;
        archive.directory("blobs")?;
        archive.directory(BLOBS)?;
        archive.blob(bundle.index.document.as_bytes())?;
        for image in images {
            archive.blob(image.own_manifest().document.as_bytes())?;
            archive.blob(&image.config_bytes)?;
        }
        bundle.attestations.iter().try_for_each(|manifest| archive.blob(manifest.document.as_bytes()))?;
        bundle.blobs.iter().try_for_each(|blob| archive.blob(blob))?;
        for image in images {
            for (layer, size_bytes) in image.layers.iter().zip(&image.layer_sizes) {
                archive.layer(self, layer, *size_bytes)?;
            }
        }
        archive.tar.finish().map_err(SaveError::Write)?;
        Ok(())
    }

    fn write_archive(
        &self,
        images: &[Saved],
        without: &HashSet<DiffId>,
        output: &mut dyn Write,
    ) -> Result<(), SaveError> {
        let mut archive = ArchiveWriter { tar: Writer::new(output), written: HashSet::new() };
        let absent: BTreeSet<DiffId> = images
            .iter()
            .flat_map(|saved| &saved.image.layers)
            .filter(|layer| without.contains(layer))
            .copied()
            .collect();
        if !absent.is_empty() {
            archive.file(ABSENT_LAYERS, &json(&absent)?)?;
            archive.written.extend(absent.iter().map(|layer| *layer.digest()));
        }
        archive.describe(images)?;
        for saved in images {
            for (layer, size_bytes) in saved.image.layers.iter().zip(&saved.image.layer_sizes) {
                archive.layer(self, layer, *size_bytes)?;
            }
        }
        archive.tar.finish().map_err(SaveError::Write)?;
        Ok(())
    }
}

/// The images that `names` mean, each once, in the order in which they are named first.
fn select(catalogue: &Catalogue, names: &[String]) -> Result<Vec<Saved>, SaveError> {
    let mut selected: Vec<Saved> = Vec::new();
    for name in names {
        for (id, tag) in meanings(catalogue, name)? {
            let image = catalogue.get(&id).ok_or_else(|| ResolveError::NotFound(name.clone()))?;
            let at = selected.iter().position(|saved| saved.image.id == id).unwrap_or_else(|| {
                selected.push(Saved { image: image.clone(), tags: Vec::new() });
                selected.len() - 1
            });
            let tags = &mut selected[at].tags;
            if let Some(tag) = tag.filter(|tag| !tags.contains(tag)) {
                tags.push(tag);
            }
        }
    }
    if selected.is_empty() { Err(SaveError::Nothing) } else { Ok(selected) }
}

/// A name without tag and digest means its whole repository where there is one, as for Docker.
fn meanings(catalogue: &Catalogue, name: &str) -> Result<Vec<(ImageId, Option<Reference>)>, ResolveError> {
    let reference = Reference::parse(name).ok();
    if let Some(repository) = reference.as_ref().filter(|reference| reference.is_name_only()) {
        let tags: Vec<_> = catalogue
            .in_repository(repository)
            .filter(|(reference, _)| reference.tag().is_some())
            .map(|(reference, id)| (*id, Some(reference.clone())))
            .collect();
        if !tags.is_empty() {
            return Ok(tags);
        }
    }
    // Docker's message for a name that is not there has no `:latest` here.
    let without_tag = |error| match error {
        ResolveError::NotFound(_) => ResolveError::NotFound(name.to_owned()),
        error => error,
    };
    let image = catalogue.resolve(name).map_err(without_tag)?;
    let tag = reference.filter(|reference| catalogue.find_reference(reference) == Some(image.id));
    Ok(vec![(image.id, tag.filter(|tag| tag.tag().is_some() && tag.digest().is_none()))])
}

/// One image in `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestItem {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    layer_sources: BTreeMap<DiffId, Descriptor>,
}

struct ArchiveWriter<'a> {
    tar: Writer<&'a mut dyn Write>,
    written: HashSet<Digest>,
}

impl ArchiveWriter<'_> {
    /// Writes everything but the layers.
    fn describe(&mut self, images: &[Saved]) -> Result<(), SaveError> {
        let manifests = images.iter().map(|saved| json(&manifest_of(&saved.image))).collect::<Result<Vec<_>, _>>()?;
        let layout = ImageLayout::default();
        let items: Vec<ManifestItem> = images.iter().map(manifest_item).collect();
        self.file("oci-layout", &json(&layout)?)?;
        self.file("index.json", &json(&index_of(images, &manifests))?)?;
        self.file("manifest.json", &json(&items)?)?;
        let repositories = repositories_of(images);
        if !repositories.is_empty() {
            self.file("repositories", &json(&repositories)?)?;
        }
        self.directory("blobs")?;
        self.directory(BLOBS)?;
        for (saved, manifest) in images.iter().zip(&manifests) {
            self.blob(manifest)?;
            self.blob(&saved.image.config_bytes)?;
        }
        Ok(())
    }

    fn directory(&mut self, path: &str) -> Result<(), SaveError> {
        let metadata = Metadata { mode: 0o755, ..Metadata::default() };
        let header = Header { path: path.as_bytes(), metadata: &metadata, kind: &EntryKind::Directory };
        self.tar.start(&header).map_err(SaveError::Write)
    }

    fn file(&mut self, path: &str, contents: &[u8]) -> Result<(), SaveError> {
        self.tar.file(path.as_bytes(), &file_metadata(), contents).map_err(SaveError::Write)
    }

    fn blob(&mut self, contents: &[u8]) -> Result<(), SaveError> {
        let digest = Digest::of(contents);
        if self.written.insert(digest) { self.file(&blob_path(&digest), contents) } else { Ok(()) }
    }

    /// Copies a layer as it lies on the disk.
    fn layer(&mut self, store: &ImageStore, layer: &DiffId, size_bytes: u64) -> Result<(), SaveError> {
        if !self.written.insert(*layer.digest()) {
            return Ok(());
        }
        let failed = |source| SaveError::Layer { layer: *layer, source };
        let tar = store.snapshotter.open_tar(layer).map_err(failed)?;
        let (path, metadata) = (blob_path(layer.digest()), file_metadata());
        let kind = EntryKind::File { size: size_bytes, sparse: None };
        let header = Header { path: path.as_bytes(), metadata: &metadata, kind: &kind };
        self.tar.start(&header).map_err(SaveError::Write)?;
        // One byte more than expected, so that a file that has grown is noticed.
        let actual_bytes = copy(&mut tar.take(size_bytes.saturating_add(1)), &mut self.tar, size_bytes)?;
        if actual_bytes == size_bytes {
            return Ok(());
        }
        Err(SaveError::LayerSize { layer: *layer, actual_bytes, expected_bytes: size_bytes })
    }
}

/// Copies, and counts what it finds beyond `limit_bytes` without writing it.
fn copy(from: &mut dyn Read, to: &mut dyn Write, limit_bytes: u64) -> Result<u64, SaveError> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut total = 0;
    loop {
        let length = crate::layer::read_full(from, &mut buffer).map_err(SaveError::Write)?;
        if length == 0 {
            return Ok(total);
        }
        let wanted = (length as u64).min(limit_bytes - total.min(limit_bytes)) as usize;
        to.write_all(&buffer[..wanted]).map_err(SaveError::Write)?;
        total += length as u64;
    }
}

fn file_metadata() -> Metadata {
    Metadata { mode: 0o644, ..Metadata::default() }
}

fn blob_path(digest: &Digest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, SaveError> {
    serde_json::to_vec(value).map_err(SaveError::Json)
}

fn layer_descriptor((layer, size_bytes): (&DiffId, &u64)) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, *layer.digest(), *size_bytes)
}

/// A manifest of our own: the layers as they lie here.
pub(crate) fn manifest_of(image: &Image) -> Manifest {
    let config = Descriptor::new(media_type::OCI_CONFIG, *image.id.digest(), image.config_bytes.len() as u64);
    let layers = image.layers.iter().zip(&image.layer_sizes).map(layer_descriptor);
    Manifest::new(media_type::OCI_MANIFEST, config, layers.collect())
}

/// One entry for each tag of an index, and one for an index without.
fn index_of_tags(index: &PulledManifest, tags: &[Reference]) -> Index {
    let entry = Descriptor::new(&index.media_type, index.digest(), index.document.len() as u64);
    let named = tags.iter().map(|tag| Descriptor { annotations: annotations_of(tag), ..entry.clone() });
    let manifests = if tags.is_empty() { vec![entry.clone()] } else { named.collect() };
    Index::new(media_type::OCI_INDEX, manifests)
}

/// One entry for each tag, and one for an image without.
fn index_of(images: &[Saved], manifests: &[Vec<u8>]) -> Index {
    let mut entries = Vec::new();
    for (saved, manifest) in images.iter().zip(manifests) {
        let entry = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(manifest), manifest.len() as u64);
        if saved.tags.is_empty() {
            entries.push(entry.clone());
        }
        entries.extend(saved.tags.iter().map(|tag| Descriptor { annotations: annotations_of(tag), ..entry.clone() }));
    }
    Index::new(media_type::OCI_INDEX, entries)
}

fn annotations_of(tag: &Reference) -> BTreeMap<String, String> {
    let name = (ANNOTATION_IMAGE_NAME.to_owned(), tag.canonical());
    let tag = (ANNOTATION_REF_NAME.to_owned(), tag.tag().unwrap_or_default().to_owned());
    BTreeMap::from([name, tag])
}

fn manifest_item(saved: &Saved) -> ManifestItem {
    let image = &saved.image;
    let tags: Vec<String> = saved.tags.iter().map(Reference::familiar).collect();
    let sources = image.layers.iter().zip(&image.layer_sizes);
    ManifestItem {
        config: blob_path(image.id.digest()),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: image.layers.iter().map(|layer| blob_path(layer.digest())).collect(),
        layer_sources: sources.map(|source| (*source.0, layer_descriptor(source))).collect(),
    }
}

/// The oldest description: repository, tag, topmost layer.
fn repositories_of(images: &[Saved]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for saved in images {
        let Some(top) = saved.image.layers.last() else { continue };
        for tag in &saved.tags {
            let tags = repositories.entry(tag.familiar_name()).or_default();
            tags.insert(tag.tag().unwrap_or_default().to_owned(), top.hex());
        }
    }
    repositories
}
