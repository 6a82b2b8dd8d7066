//! Images, through crate `images`, whose blocking calls are made here.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Write as _};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use images::{
    AbsentLayers, Change, Dangling, Force, Image, Intermediate, ListFilters, LoadEvent, LoadRequest, ParentImages,
    Pinning, Removal, RemoveRequest,
};
use oci::{DiffId, Reference};
use tokio::sync::mpsc;

use crate::containers::Pieces;
use crate::engine::{Engine, blocking};
use crate::model::{
    AttestationStatement, AttestationView, EngineError, ErrorKind, EventKind, HistoryView, ImageProgress,
    ImagePruneReport, ImageQuery, ImageRemoval, ImageSummary, ImageView, ImportRequest, InspectQuery, LabelFilter,
    ManifestView, PruneFilters,
};

/// Bytes on their way out: a tar. An error ends it.
pub type ByteStream = mpsc::Receiver<Result<Bytes, EngineError>>;

/// What a load or an import tells while it works; ends with the work. An error ends it.
pub type ProgressStream = mpsc::Receiver<Result<ImageProgress, EngineError>>;

/// Bytes on their way in.
pub type InputStream = mpsc::Receiver<io::Result<Bytes>>;

/// Messages that may wait for the client.
pub(crate) const PROGRESS_QUEUE: usize = 64;
/// Pieces of a tar that may wait for the client.
pub(crate) const PIECE_QUEUE: usize = 8;

impl Engine {
    /// Images, newest first.
    pub fn images(&self, query: &ImageQuery) -> Result<Vec<ImageSummary>, EngineError> {
        let usage = query.shared_size.then(|| self.inner.images.usage());
        self.images_with(query, usage.as_ref())
    }

    /// The same where it is known what images take.
    pub(crate) fn images_with(
        &self,
        query: &ImageQuery,
        usage: Option<&images::Usage>,
    ) -> Result<Vec<ImageSummary>, EngineError> {
        let filters = ListFilters {
            dangling: query.dangling,
            labels: query.label.iter().map(label).collect(),
            references: query.reference.clone(),
            before: query.before.clone(),
            since: query.since.clone(),
            until: query.until,
        };
        let intermediate = if query.all { Intermediate::Shown } else { Intermediate::Hidden };
        let listed = self.inner.images.list(&filters, intermediate).map_err(|error| failed(error.kind(), &error))?;
        let (uses, record) = (self.image_uses(), self.inner.images.use_record());
        let summaries = listed.into_iter().map(|listed| {
            let mut summary = summary(&listed.image, &uses, &record);
            let of_image = usage.and_then(|usage| usage.images.get(&listed.image.id));
            summary.shared_bytes = of_image.map(|usage| usage.shared_bytes);
            if query.manifests {
                summary.manifests = self.manifests_of(&listed.image);
            }
            summary.repo_tags = listed.tags.iter().map(Reference::familiar).collect();
            summary.repo_digests = listed.digests.iter().map(Reference::familiar).collect();
            summary
        });
        Ok(summaries.collect())
    }

    /// An image by name, digest or id, which must be for the platform where one is given.
    pub fn image(&self, reference: &str, query: &InspectQuery) -> Result<ImageView, EngineError> {
        let image = self.resolve_image(reference)?;
        check_platform(&image, reference, query.platform.as_deref())?;
        Ok(ImageView {
            origins: image.origins().to_vec(),
            policy: self.inner.policy_view(&image),
            manifests: if query.manifests { self.manifests_of(&image) } else { Vec::new() },
            attestations: attestations_of(&image),
            summary: summary(&image, &self.image_uses(), &self.inner.images.use_record()),
            config: oci::image::ImageConfig::clone(&image.config),
            last_tagged: image.last_tagged,
            driver: self.inner.host.storage_driver.into(),
        })
    }

    /// The id of the image that a name, digest or id means.
    pub fn image_id(&self, reference: &str) -> Result<oci::Digest, EngineError> {
        Ok(*self.resolve_image(reference)?.id.digest())
    }

    /// The image of this name, in the store's own form.
    pub(crate) fn resolve_image(&self, reference: &str) -> Result<Arc<Image>, EngineError> {
        self.inner.images.resolve(reference).map_err(|error| failed(error.kind(), &error))
    }

    /// An image's history, newest first.
    pub fn image_history(&self, reference: &str, platform: Option<&str>) -> Result<Vec<HistoryView>, EngineError> {
        let image = self.resolve_image(reference)?;
        check_platform(&image, reference, platform)?;
        let entries = self.inner.images.history(reference).map_err(|error| failed(error.kind(), &error))?;
        let view = |entry: images::HistoryEntry| HistoryView {
            id: entry.id.map(|id| *id.digest()),
            created: entry.created,
            created_by: entry.created_by,
            tags: entry.tags,
            size_bytes: entry.size_bytes,
            comment: entry.comment,
        };
        Ok(entries.into_iter().map(view).collect())
    }

    /// Gives an image another name.
    pub async fn tag_image(&self, reference: &str, repository: &str, tag: &str) -> Result<(), EngineError> {
        let target = named(repository, tag)?;
        let (inner, source, wanted) = (Arc::clone(&self.inner), reference.to_owned(), target.clone());
        let image =
            blocking(move || inner.images.tag(&source, &wanted).map_err(|error| failed(error.kind(), &error))).await?;
        self.tell_image("tag", &image.id.to_string(), &target.familiar());
        Ok(())
    }

    /// Removes a name, and the image with its last one.
    pub async fn remove_image(
        &self,
        reference: &str,
        force: bool,
        prune_parents: bool,
    ) -> Result<Vec<ImageRemoval>, EngineError> {
        let request = RemoveRequest {
            force: if force { Force::Yes } else { Force::No },
            parents: if prune_parents { ParentImages::Remove } else { ParentImages::Keep },
        };
        let (inner, name) = (Arc::clone(&self.inner), reference.to_owned());
        let removals =
            blocking(move || inner.images.remove(&name, &request).map_err(|error| failed(error.kind(), &error)))
                .await?;
        Ok(self.tell_removals(&removals, None))
    }

    /// What [`Engine::prune_images`] would remove now.
    pub fn plan_prune_images(&self, filters: &PruneFilters) -> ImagePruneReport {
        let planned = self.inner.images.plan_prune(&prune_filters(filters));
        let removed = planned.removals.iter().map(removal_line).collect();
        ImagePruneReport { removed, reclaimed_bytes: planned.reclaimed_bytes, cached: Vec::new() }
    }

    /// Removes unused images.
    pub async fn prune_images(&self, filters: PruneFilters) -> Result<ImagePruneReport, EngineError> {
        let wanted = prune_filters(&filters);
        let inner = Arc::clone(&self.inner);
        let pruned = blocking(move || {
            inner.images.prune(&wanted).map_err(|error| EngineError::system("cannot prune images", error))
        })
        .await?;
        let removed = self.tell_removals(&pruned.removals, Some("prune"));
        let attributes = BTreeMap::from([("reclaimed".to_owned(), pruned.reclaimed_bytes.to_string())]);
        self.tell(EventKind::Image, "prune", "", attributes);
        Ok(ImagePruneReport { removed, reclaimed_bytes: pruned.reclaimed_bytes, cached: Vec::new() })
    }

    /// Keeps an image from going by itself, or no longer; says what pins it then.
    pub async fn pin_image(&self, name: &str, pinning: Pinning) -> Result<Vec<String>, EngineError> {
        let (inner, wanted) = (Arc::clone(&self.inner), name.to_owned());
        let pinned = blocking(move || inner.images.pin(&wanted, pinning).map_err(|error| failed(error.kind(), &error)));
        let image = pinned.await?;
        let action = if pinning == Pinning::On { "pin" } else { "unpin" };
        self.tell_image(action, &image.id.to_string(), name);
        Ok(self.inner.images.use_record().pins(&image).iter().map(ToString::to_string).collect())
    }

    /// Reads images from a tar that arrives on `input`.
    pub fn load_images(&self, input: InputStream, platform: Option<String>, absent: AbsentLayers) -> ProgressStream {
        let (sink, stream) = mpsc::channel(PROGRESS_QUEUE);
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = engine.load(input, platform.as_deref(), absent, &sink) {
                let _ = sink.blocking_send(Err(error));
            }
        });
        stream
    }

    fn load(
        &self,
        input: InputStream,
        platform: Option<&str>,
        absent: AbsentLayers,
        sink: &mpsc::Sender<Result<ImageProgress, EngineError>>,
    ) -> Result<(), EngineError> {
        let platform = parse_platform(platform)?;
        let tell = |event: LoadEvent| {
            let event = match event {
                LoadEvent::Layer { id, current_bytes, total_bytes } => {
                    let status = "Loading layer".to_owned();
                    // Only for the eye: a slow client must not slow the load down.
                    let progress =
                        ImageProgress::Layer { id, status, current: current_bytes, total: Some(total_bytes) };
                    let _ = sink.try_send(Ok(progress));
                    return;
                }
                LoadEvent::Renamed { .. } => ImageProgress::Note(event.to_string()),
                LoadEvent::LoadedReference { reference, image } => {
                    self.tell_image("load", &image.to_string(), &reference.familiar());
                    ImageProgress::LoadedReference(reference.familiar())
                }
                LoadEvent::LoadedId { image } => {
                    self.tell_image("load", &image.to_string(), &image.to_string());
                    ImageProgress::LoadedId(*image.digest())
                }
            };
            let _ = sink.blocking_send(Ok(event));
        };
        let loaded = self.inner.images.load(Box::new(Incoming::new(input)), &LoadRequest { platform, absent }, &tell);
        self.grown();
        loaded.map(|_| ()).map_err(|error| failed(error.kind(), &error))
    }

    /// Writes images as a tar. Errors about names and about platforms that they are not for come at once.
    pub async fn save_images(&self, references: Vec<String>, platforms: &[String]) -> Result<ByteStream, EngineError> {
        self.save_images_without(references, platforms, HashSet::new()).await
    }

    /// Those of these layers that are not here.
    pub fn missing_layers(&self, layers: Vec<DiffId>) -> Vec<DiffId> {
        layers.into_iter().filter(|layer| !self.inner.images.has_layer(layer)).collect()
    }

    /// Writes images as a tar without layers that its receiver has.
    pub async fn save_images_without(
        &self,
        references: Vec<String>,
        platforms: &[String],
        without: HashSet<DiffId>,
    ) -> Result<ByteStream, EngineError> {
        let (inner, names) = (Arc::clone(&self.inner), references.clone());
        blocking(move || inner.images.check_saveable(&names).map_err(|error| failed(error.kind(), &error))).await?;
        for name in references.iter().filter(|_| !platforms.is_empty()) {
            if let Ok(image) = self.resolve_image(name) {
                check_platforms(&image, name, platforms)?;
            }
        }
        for name in &references {
            if let Ok(image) = self.resolve_image(name) {
                self.tell_image("save", &image.id.to_string(), name);
            }
        }
        let (sink, stream) = mpsc::channel(PIECE_QUEUE);
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            let mut output = Pieces::new(sink.clone());
            let saved = inner
                .images
                .save_without(&references, &without, &mut output)
                .map_err(|error| failed(error.kind(), &error));
            let flushed =
                saved.and_then(|()| output.flush().map_err(|error| EngineError::system("cannot save", error)));
            // A client that has gone does not read this either.
            if let Err(error) = flushed {
                let _ = sink.blocking_send(Err(error));
            }
        });
        Ok(stream)
    }

    /// What is behind an address of the web, `http://` where it names no scheme, for [`Engine::import_image`].
    pub async fn fetch_file(&self, address: &str) -> Result<InputStream, EngineError> {
        let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let found = self.inner.registries.client().web_file(&url, &registry::Validators::default()).await;
        let mut stream = match found {
            Ok(registry::WebFile::New(stream)) => stream,
            Ok(registry::WebFile::Unchanged) => return Err(EngineError::unavailable(format!("{url} sends nothing"))),
            Err(error) => return Err(EngineError::system(&format!("cannot fetch {url}"), error)),
        };
        let (sink, input) = mpsc::channel(PROGRESS_QUEUE);
        tokio::spawn(async move {
            while let Some(piece) = stream.piece().await.map_err(io::Error::other).transpose() {
                let is_last = piece.is_err();
                if sink.send(piece).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(input)
    }

    /// Makes an image of one layer from the tar that arrives on `input`.
    pub fn import_image(&self, input: InputStream, request: ImportRequest) -> Result<ProgressStream, EngineError> {
        let wanted = images::ImportRequest {
            reference: match request.reference.as_deref().filter(|text| !text.is_empty()) {
                None => None,
                Some(text) => Some(
                    Reference::parse(text).map_err(|error| EngineError::invalid(error.to_string()))?.with_default_tag(),
                ),
            },
            changes: changes(&request.changes)?,
            message: request.message,
            platform: parse_platform(request.platform.as_deref())?,
        };
        let (sink, stream) = mpsc::channel(PROGRESS_QUEUE);
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            let imported = engine.inner.images.import(Box::new(Incoming::new(input)), wanted);
            let message = imported.map_err(|error| failed(error.kind(), &error)).map(|image| {
                let name = image.tags.first().map_or_else(|| image.id.to_string(), Reference::familiar);
                engine.tell_image("import", &image.id.to_string(), &name);
                engine.grown();
                ImageProgress::Imported(*image.id.digest())
            });
            let _ = sink.blocking_send(message);
        });
        Ok(stream)
    }

    /// Tells of what is gone; `reason` says why, where nobody asked for exactly this.
    pub(crate) fn tell_removals(&self, removals: &[Removal], reason: Option<&str>) -> Vec<ImageRemoval> {
        let reason: Vec<(&str, &str)> = reason.map(|reason| ("reason", reason)).into_iter().collect();
        let tell = |action: &str, image: &images::ImageId| {
            self.tell_image_with(action, &image.to_string(), &image.to_string(), &reason);
        };
        for removal in removals {
            match removal {
                Removal::Untagged { image, .. } => tell("untag", image),
                Removal::Deleted { image } => {
                    self.inner.image_gone(image);
                    tell("delete", image);
                }
                Removal::DeletedLayer { .. } => {}
            }
        }
        removals.iter().map(removal_line).collect()
    }

    pub(crate) fn tell_image(&self, action: &str, id: &str, name: &str) {
        self.tell_image_with(action, id, name, &[]);
    }

    fn tell_image_with(&self, action: &str, id: &str, name: &str, more: &[(&str, &str)]) {
        let mut attributes = match self.inner.images.resolve(id) {
            Ok(image) => image.config.config.labels.clone().unwrap_or_default(),
            Err(_) => BTreeMap::new(),
        };
        attributes.insert("name".into(), name.into());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.tell(EventKind::Image, action, id, attributes);
    }

    /// The manifests of an image, with the containers that were made from it.
    fn manifests_of(&self, image: &Image) -> Vec<ManifestView> {
        let users = self.inner.image_containers().into_iter().filter(|user| user.image == image.id);
        let users: Vec<String> = users.map(|user| user.container).collect();
        let view = |entry: images::ManifestEntry| match (&entry.kind, entry.available) {
            (images::ManifestKind::Image(_), true) => {
                ManifestView { unpacked_bytes: image.size_bytes(), containers: users.clone(), entry }
            }
            _ => ManifestView { unpacked_bytes: 0, containers: Vec::new(), entry },
        };
        image.manifests().into_iter().map(view).collect()
    }

    /// How many containers were made from each image.
    fn image_uses(&self) -> BTreeMap<oci::Digest, usize> {
        let mut uses = BTreeMap::new();
        for handle in self.inner.index.all() {
            *uses.entry(handle.record().image_id).or_default() += 1;
        }
        uses
    }

    /// Says whether an image is for one of the platforms; any will do where none is given.
    pub fn check_image_platforms(&self, reference: &str, platforms: &[String]) -> Result<(), EngineError> {
        match platforms {
            [] => Ok(()),
            platforms => check_platforms(self.resolve_image(reference)?.as_ref(), reference, platforms),
        }
    }
}

/// Each of an image's attestations here: the type of what it says, and the blob.
fn attestations_of(image: &Image) -> Vec<AttestationView> {
    let manifests = image.index.iter().flat_map(|index| &index.attestations);
    let view = |manifest: &images::PulledManifest| {
        let layers = manifest.parse().map(|parsed| parsed.layers).unwrap_or_default();
        let statements = layers.into_iter().map(|layer| AttestationStatement {
            predicate_type: layer.annotations.get("in-toto.io/predicate-type").cloned().unwrap_or_default(),
            media_type: layer.media_type,
            blob: layer.digest,
            size_bytes: layer.size,
        });
        AttestationView { manifest: manifest.digest(), statements: statements.collect() }
    };
    manifests.map(view).collect()
}

/// Says that an image is not for a platform, as Docker does.
fn check_platform(image: &Image, name: &str, platform: Option<&str>) -> Result<(), EngineError> {
    match platform {
        None | Some("") => Ok(()),
        Some(platform) => check_platforms(image, name, std::slice::from_ref(&platform.to_owned())),
    }
}

/// The image must be for one of the platforms.
fn check_platforms(image: &Image, name: &str, platforms: &[String]) -> Result<(), EngineError> {
    let mut wanted = Vec::new();
    for text in platforms {
        wanted.extend(parse_platform(Some(text))?);
    }
    if wanted.iter().any(|wanted| images::is_platform(wanted, &image.config.platform())) {
        return Ok(());
    }
    let name = oci::Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.with_default_tag().familiar());
    Err(EngineError::not_found(format!(
        "image with reference {name} was found but does not provide the specified platform ({})",
        wanted.iter().map(images::platform_name).collect::<Vec<_>>().join(", ")
    )))
}

fn summary(image: &Image, uses: &BTreeMap<oci::Digest, usize>, record: &images::UseRecord) -> ImageSummary {
    ImageSummary {
        id: *image.id.digest(),
        repo_tags: image.tags.iter().map(Reference::familiar).collect(),
        repo_digests: image.digests.iter().map(Reference::familiar).collect(),
        created: image.created,
        size_bytes: image.size_bytes(),
        labels: image.config.config.labels.clone().unwrap_or_default(),
        containers: uses.get(image.id.digest()).copied().unwrap_or(0),
        parent: image.parent.as_ref().map(|parent| *parent.digest()),
        shared_bytes: None,
        descriptor: image.descriptor(),
        manifests: Vec::new(),
        last_used: record.last_use(image),
        pins: record.pins(image).iter().map(ToString::to_string).collect(),
    }
}

/// One line of what a removal did, as the user is told.
fn removal_line(removal: &Removal) -> ImageRemoval {
    match removal {
        Removal::Untagged { reference, .. } => ImageRemoval::Untagged(reference.familiar()),
        Removal::Deleted { image } => ImageRemoval::Deleted(image.to_string()),
        Removal::DeletedLayer { chain, .. } => ImageRemoval::Deleted(chain.to_string()),
    }
}

fn prune_filters(filters: &PruneFilters) -> images::PruneFilters {
    images::PruneFilters {
        dangling: if filters.dangling == Some(false) { Dangling::AllUnused } else { Dangling::Only },
        labels: filters.label.iter().map(label).collect(),
        without_labels: filters.without_label.iter().map(label).collect(),
        until: filters.until,
        unused_since: filters.unused_since,
    }
}

/// The same filter, as the store has it.
pub(crate) fn label(filter: &LabelFilter) -> images::LabelFilter {
    images::LabelFilter { key: filter.key.clone(), value: filter.value.clone() }
}

/// `repository:tag`; the tag is `latest` when empty.
pub(crate) fn named(repository: &str, tag: &str) -> Result<Reference, EngineError> {
    let invalid = |error: oci::ReferenceError| EngineError::invalid(error.to_string());
    let name = Reference::parse(repository).map_err(invalid)?;
    if tag.is_empty() {
        Ok(name.with_default_tag())
    } else {
        name.with_tag(tag).map_err(|_| EngineError::invalid("invalid tag format"))
    }
}

/// A platform as a user writes it; none where he writes none.
pub(crate) fn parse_platform(text: Option<&str>) -> Result<Option<oci::image::Platform>, EngineError> {
    let text = text.filter(|text| !text.is_empty());
    let platform = text.map(images::parse_platform).transpose();
    platform.map_err(|error| EngineError::invalid(error.to_string()))
}

/// Instructions of `--change`.
pub(crate) fn changes(lines: &[String]) -> Result<Vec<Change>, EngineError> {
    let mut changes = Vec::new();
    for line in lines {
        changes.extend(Change::parse_all(line).map_err(|error| EngineError::invalid(error.to_string()))?);
    }
    Ok(changes)
}

/// An error of the image store as one of ours: its words are Docker's already, its causes are added.
pub(crate) fn failed(kind: images::ErrorKind, error: &dyn std::error::Error) -> EngineError {
    let kind = match kind {
        images::ErrorKind::NotFound => ErrorKind::NotFound,
        images::ErrorKind::InvalidParameter => ErrorKind::InvalidParameter,
        images::ErrorKind::Conflict => ErrorKind::Conflict,
        images::ErrorKind::Internal => ErrorKind::System,
    };
    EngineError::new(kind, crate::model::chain(error))
}

/// A reader on a blocking thread over pieces that arrive asynchronously.
#[derive(Debug)]
pub(crate) struct Incoming {
    pieces: InputStream,
    piece: Bytes,
}

impl Incoming {
    pub(crate) fn new(pieces: InputStream) -> Self {
        Self { pieces, piece: Bytes::new() }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
