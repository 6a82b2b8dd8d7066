//! Which images an archive holds: decided from its documents alone, once they have all been seen.
//!
//! Two layouts are known. *docker-archive* has a `manifest.json` that names configurations and layers by path (before
//! Docker 25 `<hex>.json` and `<id>/layer.tar`, since then `blobs/sha256/<hex>`); an *OCI layout* has an `index.json` that
//! names manifests by digest. An archive that has both is read by its `manifest.json`, as Docker does.
//!
//! Nothing here touches a file: [`plan`] goes from [`Archive`] to [`PlannedImage`]s.

use std::collections::HashMap;

use oci::image::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, ImageConfig, Index, Manifest, Platform, media_type,
};
use oci::{DiffId, Digest, Reference};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::platform;
use crate::ImageId;
use crate::json::{self, Object};
use crate::save::ABSENT_LAYERS;

/// The largest manifest or index that is read.
pub(crate) const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// The largest configuration that is read, and so the largest document that is kept while the stream goes on.
pub(crate) const CONFIG_BYTES_MAX: usize = 8 << 20;
/// How deep indexes may nest. Buildx makes two levels.
const INDEX_DEPTH_MAX: u32 = 4;
/// How many symbolic links may lead to a layer. Docker before 25 made one.
const LINK_DEPTH_MAX: u32 = 8;
const MANIFEST_JSON: &str = "manifest.json";
const INDEX_JSON: &str = "index.json";
const ATTESTATION: (&str, &str) = ("vnd.docker.reference.type", "attestation-manifest");

/// What became of one entry of the archive.
#[derive(Debug)]
pub(crate) enum Member<L> {
    /// Something small that may be JSON.
    Document(Vec<u8>),
    /// A layer; `L` says where it is now.
    Layer(L),
    /// Another name.
    Link(String),
    /// Neither small nor a tar.
    Unknown {
        /// Its size.
        size_bytes: u64,
    },
}

/// All members of an archive by their normalised names.
#[derive(Debug)]
pub(crate) struct Archive<L> {
    members: HashMap<String, Member<L>>,
}

/// An image to be made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlannedImage {
    /// The configuration's bytes, which are the image's identity.
    pub(crate) config_bytes: Vec<u8>,
    /// The same, parsed.
    pub(crate) config: ImageConfig,
    /// As many as the configuration has diff-ids.
    pub(crate) layers: Vec<PlannedLayer>,
    /// The names it gets.
    pub(crate) references: Vec<Reference>,
    /// The image that it was built upon, where the archive says so.
    pub(crate) parent: Option<ImageId>,
}

/// A layer that an image needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedLayer {
    /// The member's name.
    pub(crate) member: String,
    /// What the member's stored bytes must hash to, where anything says so.
    pub(crate) blob: Option<Digest>,
    /// What its uncompressed tar must hash to.
    pub(crate) diff_id: DiffId,
}

/// Why an archive is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Neither layout.
    #[error("no image in the archive: it has neither manifest.json nor index.json")]
    NoManifest,
    /// No image at all in the manifest or index.
    #[error("no image in the archive: {0} names none")]
    Empty(&'static str),
    /// A document is not JSON of its kind.
    #[error("invalid {name} in the archive")]
    Json {
        /// The member.
        name: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A document is implausibly large.
    #[error("{name} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The member.
        name: String,
        /// The limit.
        limit_bytes: usize,
    },
    /// Something is named but not there.
    #[error("{name} is named by the archive's {by} but missing from the archive")]
    Missing {
        /// The member.
        name: String,
        /// Who names it.
        by: String,
    },
    /// A name that leaves the archive.
    #[error("invalid path {path:?} in manifest.json")]
    Path {
        /// The name.
        path: String,
    },
    /// The named member is no layer.
    #[error("{name} is neither a tar nor a compressed tar")]
    NotALayer {
        /// The member.
        name: String,
    },
    /// A blob's bytes do not hash to its name.
    #[error("{name} hashes to {actual}")]
    Digest {
        /// The member.
        name: String,
        /// What its bytes say.
        actual: Digest,
    },
    /// Manifest and configuration disagree.
    #[error("invalid manifest, layers length mismatch: expected {expected}, got {actual}")]
    LayerCount {
        /// Diff-ids in the configuration.
        expected: usize,
        /// Layers in the manifest.
        actual: usize,
    },
    /// A tag that cannot be one.
    #[error("invalid tag {tag:?}")]
    Tag {
        /// The tag.
        tag: String,
        /// What is wrong with it, where it is more than a missing tag.
        source: Option<oci::ReferenceError>,
    },
    /// An image for another operating system.
    #[error("image operating system {0:?} cannot be used on this platform")]
    OperatingSystem(String),
    /// An index or manifest of an unknown kind.
    #[error("unsupported media type {media_type:?} of {digest}")]
    MediaType {
        /// The type.
        media_type: String,
        /// The blob.
        digest: Digest,
    },
    /// A layer that is somewhere else.
    #[error("layer {0} must be fetched from elsewhere, which is not supported")]
    Foreign(Digest),
    /// Indexes in indexes in indexes.
    #[error("indexes are nested more than {INDEX_DEPTH_MAX} deep")]
    Depth,
    /// Nothing for the platform.
    #[error("no image for {wanted} in the archive: it has {present}")]
    Platform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        present: String,
    },
}

/// Brings a member's name into the form in which it is looked up; nothing for names that leave the archive.
pub(crate) fn normalised(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

impl<L> Archive<L> {
    pub(crate) fn new() -> Archive<L> {
        Archive { members: HashMap::new() }
    }

    /// Adds a member; as in every tar, a later one of the same name wins, and the earlier one is returned.
    pub(crate) fn insert(&mut self, name: String, member: Member<L>) -> Option<Member<L>> {
        self.members.insert(name, member)
    }

    /// Adds a member unless there is one of this name.
    pub(crate) fn insert_missing(&mut self, name: String, member: Member<L>) {
        self.members.entry(name).or_insert(member);
    }

    /// The layer called `name`.
    pub(crate) fn layer_mut(&mut self, name: &str) -> Option<&mut L> {
        match self.members.get_mut(name) {
            Some(Member::Layer(layer)) => Some(layer),
            _ => None,
        }
    }

    /// Every layer, named or not.
    pub(crate) fn into_layers(self) -> impl Iterator<Item = (String, L)> {
        self.members.into_iter().filter_map(|(name, member)| match member {
            Member::Layer(layer) => Some((name, layer)),
            _ => None,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    fn document(&self, name: &str, by: &str, limit_bytes: usize) -> Result<&[u8], LayoutError> {
        let too_large = || LayoutError::TooLarge { name: name.to_owned(), limit_bytes };
        match self.members.get(name) {
            Some(Member::Document(bytes)) if bytes.len() > limit_bytes => Err(too_large()),
            Some(Member::Document(bytes)) => Ok(bytes),
            Some(Member::Unknown { size_bytes }) if *size_bytes > limit_bytes as u64 => Err(too_large()),
            _ => Err(LayoutError::Missing { name: name.to_owned(), by: by.to_owned() }),
        }
    }

    /// A document below `blobs/`, checked against its digest.
    fn blob(&self, digest: &Digest, by: &str, limit_bytes: usize) -> Result<&[u8], LayoutError> {
        let name = blob_name(digest);
        let bytes = self.document(&name, by, limit_bytes)?;
        check_digest(&name, bytes, digest)?;
        Ok(bytes)
    }

    /// Follows symbolic links to a layer's real name.
    fn layer_name(&self, name: &str, by: &str) -> Result<String, LayoutError> {
        let mut current = name.to_owned();
        for _ in 0..LINK_DEPTH_MAX {
            match self.members.get(&current) {
                Some(Member::Layer(_)) => return Ok(current),
                Some(Member::Link(target)) => current.clone_from(target),
                Some(_) => return Err(LayoutError::NotALayer { name: current }),
                None => break,
            }
        }
        Err(LayoutError::Missing { name: name.to_owned(), by: by.to_owned() })
    }
}

/// The images of `archive`, for `wanted` or else for the best of what this machine can run.
pub(crate) fn plan<L>(archive: &Archive<L>, wanted: Option<&Platform>) -> Result<Vec<PlannedImage>, LayoutError> {
    if archive.has(MANIFEST_JSON) {
        plan_docker_archive(archive, wanted)
    } else if archive.has(INDEX_JSON) {
        plan_oci_layout(archive, wanted)
    } else {
        Err(LayoutError::NoManifest)
    }
}

/// The layers that an archive says to have left out.
pub(crate) fn absent_layers<L>(archive: &Archive<L>) -> Result<Vec<DiffId>, LayoutError> {
    if !archive.has(ABSENT_LAYERS) {
        return Ok(Vec::new());
    }
    let bytes = archive.document(ABSENT_LAYERS, ABSENT_LAYERS, MANIFEST_BYTES_MAX)?;
    serde_json::from_slice(bytes).map_err(|source| LayoutError::Json { name: ABSENT_LAYERS.to_owned(), source })
}

/// One image of `manifest.json`. `LayerSources` says what the files of `blobs/` are, which their bytes say better.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestItem {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    parent: Option<String>,
}

fn plan_docker_archive<L>(archive: &Archive<L>, wanted: Option<&Platform>) -> Result<Vec<PlannedImage>, LayoutError> {
    let bytes = archive.document(MANIFEST_JSON, MANIFEST_JSON, MANIFEST_BYTES_MAX)?;
    let items: Vec<Object<ManifestItem>> =
        serde_json::from_slice(bytes).map_err(|source| LayoutError::Json { name: MANIFEST_JSON.to_owned(), source })?;
    if items.is_empty() {
        return Err(LayoutError::Empty(MANIFEST_JSON));
    }
    let images = items.iter().map(|Object(item)| plan_item(archive, item)).collect::<Result<Vec<_>, _>>()?;
    match wanted {
        Some(wanted) => only_for(wanted, images),
        None => Ok(images),
    }
}

fn plan_item<L>(archive: &Archive<L>, item: &ManifestItem) -> Result<PlannedImage, LayoutError> {
    let config_name = member_path(&item.config)?;
    let config_bytes = archive.document(&config_name, MANIFEST_JSON, CONFIG_BYTES_MAX)?;
    if let Some(digest) = digest_in_name(&config_name) {
        check_digest(&config_name, config_bytes, &digest)?;
    }
    let mut layers = Vec::new();
    for path in item.layers.iter().flatten() {
        let member = archive.layer_name(&member_path(path)?, MANIFEST_JSON)?;
        layers.push((digest_in_name(&member), member));
    }
    let references = item.repo_tags.iter().flatten().map(|tag| parse_tag(tag)).collect::<Result<_, _>>()?;
    // Docker ignores a parent that is no id, so that an archive written by another tool still loads.
    let parent = item.parent.as_deref().and_then(|text| text.parse().ok());
    planned_image(&config_name, config_bytes, layers, references, parent)
}

fn member_path(path: &str) -> Result<String, LayoutError> {
    normalised(path).ok_or_else(|| LayoutError::Path { path: path.to_owned() })
}

fn parse_tag(tag: &str) -> Result<Reference, LayoutError> {
    let invalid = |source| LayoutError::Tag { tag: tag.to_owned(), source };
    let reference = Reference::parse(tag).map_err(|error| invalid(Some(error)))?;
    if reference.tag().is_none() || reference.digest().is_some() { Err(invalid(None)) } else { Ok(reference) }
}

fn only_for(wanted: &Platform, images: Vec<PlannedImage>) -> Result<Vec<PlannedImage>, LayoutError> {
    let present = platform::join(images.iter().map(|image| image.config.platform()));
    let matching: Vec<_> = images.into_iter().filter(|image| platform::is(wanted, &image.config.platform())).collect();
    if matching.is_empty() {
        return Err(LayoutError::Platform { wanted: platform::display(wanted), present });
    }
    Ok(matching)
}

fn plan_oci_layout<L>(archive: &Archive<L>, wanted: Option<&Platform>) -> Result<Vec<PlannedImage>, LayoutError> {
    let bytes = archive.document(INDEX_JSON, INDEX_JSON, MANIFEST_BYTES_MAX)?;
    let index: Index = parse(INDEX_JSON, bytes)?;
    let mut images: Vec<PlannedImage> = Vec::new();
    for (name, alternatives) in groups_of(&index)? {
        for descriptor in choose(archive, &alternatives, wanted)? {
            for image in plan_descriptor(archive, descriptor, INDEX_JSON, wanted, 1)? {
                add_named(&mut images, image, name.as_ref());
            }
        }
    }
    if images.is_empty() { Err(LayoutError::Empty(INDEX_JSON)) } else { Ok(images) }
}

/// What one name of an index may mean.
type Alternatives<'a> = Vec<&'a Descriptor>;

/// Puts together what is one image for several platforms: entries that have a platform, under one name. An entry without a
/// platform is an image by itself.
fn groups_of(index: &Index) -> Result<Vec<(Option<Reference>, Alternatives<'_>)>, LayoutError> {
    let mut groups: Vec<(Option<Reference>, Alternatives<'_>)> = Vec::new();
    for descriptor in index.manifests.iter().filter(|descriptor| !is_attestation(descriptor)) {
        let name = name_of(descriptor)?;
        let joins = |(other, members): &&mut (Option<Reference>, Alternatives<'_>)| {
            *other == name && members[0].platform.is_some() && descriptor.platform.is_some()
        };
        match groups.iter_mut().find(joins) {
            Some((_, members)) => members.push(descriptor),
            None => groups.push((name, vec![descriptor])),
        }
    }
    Ok(groups)
}

fn is_attestation(descriptor: &Descriptor) -> bool {
    let is_marked = descriptor.annotations.get(ATTESTATION.0).is_some_and(|kind| kind == ATTESTATION.1);
    is_marked || descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}

/// The image's name by containerd's annotation, else by OCI's where that holds a whole name. A mere tag names nothing.
fn name_of(descriptor: &Descriptor) -> Result<Option<Reference>, LayoutError> {
    if let Some(name) = descriptor.annotations.get(ANNOTATION_IMAGE_NAME) {
        let invalid = |source| LayoutError::Tag { tag: name.clone(), source: Some(source) };
        return Reference::parse(name).map(|reference| Some(reference.with_default_tag())).map_err(invalid);
    }
    let whole = descriptor.annotations.get(ANNOTATION_REF_NAME).filter(|name| name.contains([':', '/']));
    Ok(whole.and_then(|name| Reference::parse(name).ok()).map(Reference::with_default_tag))
}

/// The best of the alternatives; all of them if they are equally good, because then they are different images.
fn choose<'a, L>(
    archive: &Archive<L>,
    alternatives: &[&'a Descriptor],
    wanted: Option<&Platform>,
) -> Result<Alternatives<'a>, LayoutError> {
    // An archive of one platform out of many keeps the whole index; what it left out is no alternative.
    let present: Vec<&Descriptor> =
        alternatives.iter().copied().filter(|descriptor| archive.has(&blob_name(&descriptor.digest))).collect();
    let Some(first) = alternatives.first() else { return Ok(Vec::new()) };
    if present.is_empty() {
        return Err(LayoutError::Missing { name: blob_name(&first.digest), by: INDEX_JSON.to_owned() });
    }
    let rank = |descriptor: &&Descriptor| platform::rank(wanted, descriptor.platform.as_ref());
    match present.iter().filter_map(rank).min() {
        Some(best) => Ok(present.into_iter().filter(|descriptor| rank(descriptor) == Some(best)).collect()),
        None if present.len() == 1 && wanted.is_none() => Ok(present),
        None => Err(LayoutError::Platform {
            wanted: platform::display(wanted.unwrap_or(&Platform::host())),
            present: platform::join(present.iter().filter_map(|descriptor| descriptor.platform.clone())),
        }),
    }
}

fn plan_descriptor<L>(
    archive: &Archive<L>,
    descriptor: &Descriptor,
    by: &str,
    wanted: Option<&Platform>,
    depth: u32,
) -> Result<Vec<PlannedImage>, LayoutError> {
    if depth > INDEX_DEPTH_MAX {
        return Err(LayoutError::Depth);
    }
    let name = blob_name(&descriptor.digest);
    if media_type::is_manifest(&descriptor.media_type) {
        let bytes = archive.blob(&descriptor.digest, by, MANIFEST_BYTES_MAX)?;
        let image = plan_manifest(archive, &name, &parse(&name, bytes)?)?;
        return match wanted {
            Some(wanted) => only_for(wanted, vec![image]),
            None => Ok(vec![image]),
        };
    }
    if !media_type::is_index(&descriptor.media_type) {
        return Err(LayoutError::MediaType { media_type: descriptor.media_type.clone(), digest: descriptor.digest });
    }
    let index: Index = parse(&name, archive.blob(&descriptor.digest, by, MANIFEST_BYTES_MAX)?)?;
    let alternatives: Vec<&Descriptor> = index.manifests.iter().filter(|inner| !is_attestation(inner)).collect();
    let mut images = Vec::new();
    for inner in choose(archive, &alternatives, wanted)?.into_iter().take(1) {
        images.extend(plan_descriptor(archive, inner, &name, wanted, depth + 1)?);
    }
    Ok(images)
}

fn plan_manifest<L>(archive: &Archive<L>, name: &str, manifest: &Manifest) -> Result<PlannedImage, LayoutError> {
    let config = &manifest.config;
    if !matches!(config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
        return Err(LayoutError::MediaType { media_type: config.media_type.clone(), digest: config.digest });
    }
    let config_bytes = archive.blob(&config.digest, name, CONFIG_BYTES_MAX)?;
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        if layer.media_type.contains(".foreign.") || layer.media_type.contains(".nondistributable.") {
            return Err(LayoutError::Foreign(layer.digest));
        }
        layers.push((Some(layer.digest), archive.layer_name(&blob_name(&layer.digest), name)?));
    }
    planned_image(&blob_name(&config.digest), config_bytes, layers, Vec::new(), None)
}

fn planned_image(
    config_name: &str,
    config_bytes: &[u8],
    layers: Vec<(Option<Digest>, String)>,
    references: Vec<Reference>,
    parent: Option<ImageId>,
) -> Result<PlannedImage, LayoutError> {
    let config: ImageConfig = parse(config_name, config_bytes)?;
    if !config.os.is_empty() && config.os != "linux" {
        return Err(LayoutError::OperatingSystem(config.os));
    }
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        return Err(LayoutError::LayerCount { expected: diff_ids.len(), actual: layers.len() });
    }
    let planned = |((blob, member), diff_id): ((Option<Digest>, String), &DiffId)| PlannedLayer {
        member,
        blob,
        diff_id: *diff_id,
    };
    let layers = layers.into_iter().zip(diff_ids).map(planned).collect();
    Ok(PlannedImage { config_bytes: config_bytes.to_vec(), config, layers, references, parent })
}

/// Adds an image, or one more name for it: `docker save` lists an image once for each of its tags.
fn add_named(images: &mut Vec<PlannedImage>, image: PlannedImage, name: Option<&Reference>) {
    let known = images.iter().position(|other| other.config_bytes == image.config_bytes);
    let at = known.unwrap_or_else(|| {
        images.push(image);
        images.len() - 1
    });
    if let Some(name) = name.filter(|name| !images[at].references.contains(name)) {
        images[at].references.push(name.clone());
    }
}

pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The digest in a name like `blobs/sha256/<hex>`.
pub(crate) fn digest_in_name(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_prefix("blobs/sha256/")?).ok()
}

fn check_digest(name: &str, bytes: &[u8], expected: &Digest) -> Result<(), LayoutError> {
    let actual = Digest::of(bytes);
    if actual == *expected { Ok(()) } else { Err(LayoutError::Digest { name: name.to_owned(), actual }) }
}

fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, LayoutError> {
    json::object(bytes).map_err(|source| LayoutError::Json { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests;
