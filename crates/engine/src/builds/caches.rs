//! Caches of builds elsewhere, in BuildKit's form: a manifest whose layers are those of steps, and a document that says which (crate
//! `builder`, `portable`). Read before a build; layers come when somebody needs them. Written after it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use archive::compression::{Compression, Compressor};
use builder::{Blob, BuiltStep, CACHE_CONFIG, Description, Event, HostError, Imported, KnownSteps, StepId};
use images::{Image, ImageId, LayerBlob};
use oci::image::{Descriptor, ImageConfig, Index, Manifest, media_type};
use oci::{DiffId, Digest, Digester, Reference};
use registry::{Credentials, Document, Fetched, MANIFEST_BYTES_MAX};

use super::BuildResult;
use crate::engine::Engine;
use crate::model::build_cache::{
    BlobContents, BlobStore, CacheForm, CacheMode, CachePlace, CacheSource, CacheTarget, OpenFolder,
};
use crate::model::{BuildClient, EngineError, chain};
use crate::registries::CacheRepository;

/// The largest document of a cache, and configuration of an image.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// So many images of an index are asked about their steps.
const IMAGES_MAX: usize = 16;

/// Who asks at which registry.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    pub(super) given: BTreeMap<String, Credentials>,
    pub(super) client: Option<Arc<dyn BuildClient>>,
}

impl Keys {
    /// What the client said about this registry.
    pub(super) fn of(&self, domain: &str) -> Credentials {
        let docker = domain == "docker.io";
        let is_this = |key: &str| {
            let host = key.trim_start_matches("https://").trim_start_matches("http://");
            let host = host.split('/').next().unwrap_or_default();
            host == domain || docker && host == "index.docker.io"
        };
        if let Some((_, credentials)) = self.given.iter().find(|(key, _)| is_this(key)) {
            return credentials.clone();
        }
        let asked = if docker { "https://index.docker.io/v1/" } else { domain };
        self.client.as_ref().map(|client| client.credentials(asked)).unwrap_or_default()
    }
}

/// The caches that one build reads.
pub(super) struct Caches {
    pub(super) engine: Engine,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) sources: Vec<CacheSource>,
    pub(super) keys: Keys,
    blobs: Mutex<BTreeMap<DiffId, (Place, Descriptor)>>,
    fetched: Mutex<Vec<DiffId>>,
}

impl std::fmt::Debug for Caches {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Caches").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// Where blobs are.
#[derive(Debug, Clone)]
enum Place {
    Registry(CacheRepository),
    Folder(Arc<dyn BlobStore>),
}

/// What was read of one place.
#[derive(Debug, Default)]
struct Learned {
    imported: Imported,
    blobs: Vec<(DiffId, Descriptor)>,
}

impl Caches {
    pub(super) fn new(
        engine: &Engine,
        runtime: &tokio::runtime::Handle,
        sources: Vec<CacheSource>,
        keys: Keys,
    ) -> Caches {
        let (blobs, fetched) = (Mutex::default(), Mutex::default());
        Caches { engine: engine.clone(), runtime: runtime.clone(), sources, keys, blobs, fetched }
    }

    /// What one of them knows.
    pub(super) fn import(&self, number: usize) -> Result<Imported, HostError> {
        let (place, learned) = match &self.sources[number] {
            CacheSource::Registry(reference) => {
                if let Some(imported) = self.of_image_here(reference)? {
                    return Ok(imported);
                }
                let place = Place::Registry(self.open(reference).map_err(told)?);
                let Place::Registry(repository) = &place else { unreachable!("it was just made") };
                let top = self.runtime.block_on(repository.admitted_top(&self.engine)).map_err(told)?;
                let learned = self.learn(&place, &top)?;
                (place, learned)
            }
            CacheSource::Folder { manifest, store, .. } => {
                let place = Place::Folder(Arc::clone(store));
                let bytes = read_blob(store.as_ref(), manifest, MANIFEST_BYTES_MAX)?;
                let top = Fetched { digest: *manifest, media_type: String::new(), bytes };
                let learned = self.learn(&place, &top)?;
                (place, learned)
            }
        };
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        for (layer, blob) in learned.blobs {
            blobs.entry(layer).or_insert_with(|| (place.clone(), blob));
        }
        Ok(learned.imported)
    }

    /// What an image that is here tells, as Docker asks its own images first.
    fn of_image_here(&self, reference: &Reference) -> Result<Option<Imported>, HostError> {
        let Ok(image) = self.engine.resolve_image(&reference.canonical()) else { return Ok(None) };
        self.engine.inner.check_policy(&image, &reference.familiar()).map_err(told)?;
        match &image.config.build_cache {
            Some(text) => {
                let steps = builder::read_inline_cache(text).map_err(failed)?.steps;
                Ok(Some(Imported { steps, images: Vec::new() }))
            }
            None => Ok(Some(Imported { steps: Vec::new(), images: vec![image] })),
        }
    }

    fn open(&self, reference: &Reference) -> Result<CacheRepository, EngineError> {
        let credentials = self.keys.of(reference.domain());
        self.runtime.block_on(CacheRepository::open(&self.engine, reference, credentials))
    }

    /// Reads a cache, or an image that is one.
    fn learn(&self, place: &Place, top: &Fetched) -> Result<Learned, HostError> {
        match top.document().map_err(failed)? {
            Document::Index(index) => {
                match index.manifests.iter().find(|entry| entry.media_type == CACHE_CONFIG).cloned() {
                    Some(config) => self.learn_cache(place, &config, index.manifests),
                    None => self.learn_images(place, &index),
                }
            }
            Document::Manifest(manifest) if manifest.config.media_type == CACHE_CONFIG => {
                self.learn_cache(place, &manifest.config, manifest.layers)
            }
            Document::Manifest(manifest) => self.learn_image(place, manifest),
        }
    }

    fn learn_cache(&self, place: &Place, config: &Descriptor, layers: Vec<Descriptor>) -> Result<Learned, HostError> {
        let KnownSteps { steps, blobs } = builder::read_cache_config(&self.small(place, config)?).map_err(failed)?;
        let mut by_digest: BTreeMap<Digest, Descriptor> = layers.into_iter().map(|blob| (blob.digest, blob)).collect();
        let blobs = blobs.into_iter().filter_map(|(layer, digest)| Some((layer, by_digest.remove(&digest)?)));
        Ok(Learned { imported: Imported { steps, images: Vec::new() }, blobs: blobs.collect() })
    }

    fn learn_images(&self, place: &Place, index: &Index) -> Result<Learned, HostError> {
        let mut all = Learned::default();
        let is_image =
            |entry: &&Descriptor| media_type::is_manifest(&entry.media_type) && images::attested(entry).is_none();
        for entry in index.manifests.iter().filter(is_image).take(IMAGES_MAX) {
            let fetched = match place {
                Place::Registry(repository) => {
                    self.runtime.block_on(repository.manifest(&entry.digest)).map_err(told)?
                }
                Place::Folder(store) => {
                    let bytes = read_blob(store.as_ref(), &entry.digest, MANIFEST_BYTES_MAX)?;
                    Fetched { digest: entry.digest, media_type: entry.media_type.clone(), bytes }
                }
            };
            if let Document::Manifest(manifest) = fetched.document().map_err(failed)? {
                let learned = self.learn_image(place, manifest)?;
                all.imported.steps.extend(learned.imported.steps);
                all.imported.images.extend(learned.imported.images);
                all.blobs.extend(learned.blobs);
            }
        }
        Ok(all)
    }

    /// An image that tells of its steps, or has a history at least.
    fn learn_image(&self, place: &Place, manifest: Manifest) -> Result<Learned, HostError> {
        let bytes = self.small(place, &manifest.config)?;
        let config: ImageConfig = serde_json::from_slice(&bytes).map_err(failed)?;
        let layers = config.rootfs.diff_ids.clone();
        if layers.len() != manifest.layers.len() {
            return Err(HostError("the image's manifest and configuration name different layers".to_owned()));
        }
        let imported = match &config.build_cache {
            Some(text) => {
                Imported { steps: builder::read_inline_cache(text).map_err(failed)?.steps, images: Vec::new() }
            }
            None => {
                let image = Image::unnamed(ImageId::of_config(&bytes), config, bytes.into(), layers.clone());
                Imported { steps: Vec::new(), images: vec![Arc::new(image)] }
            }
        };
        Ok(Learned { imported, blobs: layers.into_iter().zip(manifest.layers).collect() })
    }

    fn small(&self, place: &Place, blob: &Descriptor) -> Result<Vec<u8>, HostError> {
        match place {
            Place::Registry(repository) => {
                self.runtime.block_on(repository.blob(blob, DOCUMENT_BYTES_MAX)).map_err(told)
            }
            Place::Folder(store) => read_blob(store.as_ref(), &blob.digest, DOCUMENT_BYTES_MAX),
        }
    }

    fn place_of(&self, layer: &DiffId) -> Option<(Place, Descriptor)> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).get(layer).cloned()
    }

    /// Whether one of them has a layer.
    pub(super) fn has(&self, layer: &DiffId) -> bool {
        self.place_of(layer).is_some()
    }

    /// Fetches a layer; its tar is checked against its name.
    pub(super) fn fetch(&self, layer: &DiffId) -> Result<(), HostError> {
        let (place, blob) =
            self.place_of(layer).ok_or_else(|| HostError(format!("no imported cache has layer {layer}")))?;
        match place {
            Place::Registry(repository) => {
                self.runtime.block_on(repository.fetch(&self.engine, &blob, *layer)).map_err(told)?;
            }
            Place::Folder(store) => {
                let input = BufReader::new(store.open(&blob.digest)?);
                self.engine.inner.images.add_layer(Box::new(input), Some(layer)).map_err(failed)?;
            }
        }
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).push(*layer);
        Ok(())
    }

    /// Lets layers go that were fetched for a build that failed, unless others need them.
    pub(super) fn doubt(&self) {
        let fetched = std::mem::take(&mut *self.fetched.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = self.engine.inner.images.doubt_layers(fetched.into_iter()) {
            tracing::warn!("cannot clean up after a build: {}", chain(&error));
        }
    }
}

/// The steps of writing caches are counted behind those of the build.
const FIRST_STEP: u32 = 1 << 30;

impl Engine {
    /// Writes all caches that a request names into registries, telling of it as of steps.
    pub(super) fn export_caches(
        &self,
        results: &[Arc<BuildResult>],
        targets: &[CacheTarget],
        tell: builder::Sink<'_>,
    ) -> Result<(), HostError> {
        for (step, target) in (FIRST_STEP..).map(StepId).zip(targets) {
            let title = target.title().to_owned();
            let what = Description {
                stage: None,
                text: title.clone(),
                title,
                number: None,
                inputs: Vec::new(),
                makes_files: true,
            };
            tell(Event::Begin(step, what));
            let no_folder =
                |name: &str| Err(EngineError::invalid(format!("folder {name} is not served by the client")));
            let exported = self.export_build_cache(results, target, &no_folder, &|_| {});
            tell(Event::End(step, exported.as_ref().err().map(|error| error.message().to_owned())));
            match exported {
                Err(error) if !target.may_fail => return Err(told(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes what a build left as a cache; gives the descriptor of its manifest. What is done is told. Blocks.
    pub fn export_build_cache(
        &self,
        results: &[Arc<BuildResult>],
        target: &CacheTarget,
        open: OpenFolder<'_>,
        tell: &dyn Fn(&str),
    ) -> Result<Option<Descriptor>, EngineError> {
        tell("preparing build cache for export");
        match &target.place {
            CachePlace::Inline => Ok(None),
            CachePlace::Registry(reference) => {
                let repository = results[0].caches.open(reference)?;
                self.export_to(results, target, &Place::Registry(repository), tell).map(Some)
            }
            CachePlace::Folder(name) => self.export_to(results, target, &Place::Folder(open(name)?), tell).map(Some),
        }
    }

    fn export_to(
        &self,
        results: &[Arc<BuildResult>],
        target: &CacheTarget,
        to: &Place,
        tell: &dyn Fn(&str),
    ) -> Result<Descriptor, EngineError> {
        let mut layers: Vec<Descriptor> = Vec::new();
        let mut blobs = BTreeMap::new();
        for layer in wanted_layers(results, target.mode) {
            let Some(blob) = self.offer_layer(results, &layer, to)? else { continue };
            tell(&format!("writing layer {}", blob.digest));
            blobs.insert(
                layer,
                Blob { digest: blob.digest, size_bytes: blob.size, media_type: blob.media_type.clone() },
            );
            if layers.iter().all(|known| known.digest != blob.digest) {
                layers.push(blob);
            }
        }
        let config = builder::cache_config(&steps_of(results), &blobs);
        let named = Descriptor::new(CACHE_CONFIG, Digest::of(&config), config.len() as u64);
        tell(&format!("writing config {}", named.digest));
        put(results, to, config)?;
        let (kind, document) = manifest_of(target.form, layers, named);
        let digest = Digest::of(&document);
        let words = if target.form == CacheForm::ImageManifest { "cache image manifest" } else { "cache manifest" };
        tell(&format!("writing {words} {digest}"));
        let descriptor = Descriptor::new(kind, digest, document.len() as u64);
        match to {
            Place::Registry(repository) => {
                results[0].caches.runtime.block_on(repository.put_manifest(kind, &document))?
            }
            Place::Folder(_) => put(results, to, document)?,
        }
        Ok(descriptor)
    }

    /// Sees to it that a cache has a layer; nothing where it cannot be had any more.
    fn offer_layer(
        &self,
        results: &[Arc<BuildResult>],
        layer: &DiffId,
        to: &Place,
    ) -> Result<Option<Descriptor>, EngineError> {
        let caches = &results[0].caches;
        if !self.inner.images.has_layer(layer) {
            if let (Place::Registry(to), Some((Place::Registry(from), blob))) = (to, caches.place_of(layer))
                && to.is_same(&from)
                && caches.runtime.block_on(to.has(&blob.digest))?
            {
                return Ok(Some(blob));
            }
            if let Err(error) = caches.fetch(layer) {
                tracing::debug!("layer {layer} is not exported: {error}");
                return Ok(None);
            }
        }
        match to {
            Place::Registry(repository) => caches.runtime.block_on(repository.offer(self, *layer)).map(Some),
            Place::Folder(store) => self.write_layer(layer, store.as_ref()).map(Some),
        }
    }

    fn write_layer(&self, layer: &DiffId, store: &dyn BlobStore) -> Result<Descriptor, EngineError> {
        let images = &self.inner.images;
        let is_gzip = |blob: &LayerBlob| blob.media_type == media_type::DOCKER_LAYER_GZIP;
        for blob in images.blobs_of(layer).into_iter().filter(is_gzip) {
            if store.has(&blob.digest).map_err(refused)? {
                return Ok(Descriptor::new(media_type::OCI_LAYER_GZIP, blob.digest, blob.size_bytes));
            }
        }
        let mut made = None;
        let mut contents = |output: &mut dyn Write| {
            let (mut tar, _) = images.open_layer(layer).map_err(|error| io::Error::other(chain(&error)))?;
            let counting = Counting { output, digester: Digester::new() };
            let mut compressor = Compressor::new(counting, Compression::Gzip)?;
            io::copy(&mut tar, &mut compressor)?;
            let counting = compressor.finish()?;
            let size_bytes = counting.digester.size_bytes();
            let digest = counting.digester.finish();
            made = Some((digest, size_bytes));
            Ok(digest)
        };
        store.write(&mut contents).map_err(refused)?;
        let (digest, size_bytes) = made.ok_or_else(|| EngineError::invalid("the layer was not written"))?;
        let media_type = media_type::DOCKER_LAYER_GZIP.to_owned();
        let blob = LayerBlob { digest, size_bytes, media_type, repositories: Vec::new() };
        if let Err(error) = images.note_blob(layer, blob) {
            tracing::debug!("cannot note a layer's blob: {}", chain(&error));
        }
        Ok(Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size_bytes))
    }
}

/// The steps of all platforms, each with stages of its own.
fn steps_of(results: &[Arc<BuildResult>]) -> Vec<BuiltStep> {
    let mut steps: Vec<BuiltStep> = Vec::new();
    for result in results {
        let next = steps.last().map_or(0, |last| last.place.0 + 1);
        steps.extend(
            result
                .built
                .steps
                .iter()
                .map(|step| BuiltStep { place: (next + step.place.0, step.place.1), ..step.clone() }),
        );
    }
    steps
}

/// The layers that steps made: those of the image, or all. Those of base images are not among them: whoever builds has the base image.
fn wanted_layers(results: &[Arc<BuildResult>], mode: CacheMode) -> Vec<DiffId> {
    let of_images = results.iter().flat_map(|result| result.config.rootfs.diff_ids.iter().copied());
    let of_images: BTreeSet<DiffId> = of_images.collect();
    let mut layers: Vec<DiffId> = Vec::new();
    for layer in results.iter().flat_map(|result| &result.built.steps).filter_map(|step| step.entry.layer) {
        if !layers.contains(&layer) && (mode == CacheMode::Max || of_images.contains(&layer)) {
            layers.push(layer);
        }
    }
    layers
}

fn put(results: &[Arc<BuildResult>], to: &Place, bytes: Vec<u8>) -> Result<(), EngineError> {
    match to {
        Place::Registry(repository) => results[0].caches.runtime.block_on(repository.put_blob(bytes)),
        Place::Folder(store) => {
            let mut contents = |output: &mut dyn Write| {
                output.write_all(&bytes)?;
                Ok(Digest::of(&bytes))
            };
            store.write(&mut contents).map_err(refused)
        }
    }
}

/// The manifest of a cache, and what it is.
fn manifest_of(form: CacheForm, layers: Vec<Descriptor>, config: Descriptor) -> (&'static str, Vec<u8>) {
    let is_docker = form == CacheForm::DockerList;
    let layers = layers.into_iter().map(|layer| renamed(layer, is_docker));
    let json = |document: serde_json::Result<Vec<u8>>| document.expect("a manifest has text keys");
    if form == CacheForm::ImageManifest {
        let kind = media_type::OCI_MANIFEST;
        let manifest = Manifest::new(kind, config, layers.collect());
        return (kind, json(serde_json::to_vec(&manifest)));
    }
    let kind = if is_docker { media_type::DOCKER_MANIFEST_LIST } else { media_type::OCI_INDEX };
    let index = Index::new(kind, layers.chain([config]).collect());
    (kind, json(serde_json::to_vec(&index)))
}

/// OCI's or Docker's name for a kind of layer.
fn renamed(mut layer: Descriptor, is_docker: bool) -> Descriptor {
    const NAMES: &[(&str, &str)] = &[
        (media_type::OCI_LAYER, media_type::DOCKER_LAYER),
        (media_type::OCI_LAYER_GZIP, media_type::DOCKER_LAYER_GZIP),
        (media_type::OCI_LAYER_ZSTD, media_type::DOCKER_LAYER_ZSTD),
    ];
    let known = NAMES.iter().find(|(oci, docker)| layer.media_type == *oci || layer.media_type == *docker);
    if let Some((oci, docker)) = known {
        layer.media_type = (if is_docker { *docker } else { *oci }).to_owned();
    }
    layer
}

/// A folder of this machine in OCI's layout.
#[derive(Debug)]
pub(super) struct LayoutFolder {
    blobs: std::path::PathBuf,
    /// Where what is being written lies.
    temporary: std::path::PathBuf,
}

impl LayoutFolder {
    pub(super) fn new(folder: &std::path::Path) -> LayoutFolder {
        LayoutFolder { blobs: folder.join("blobs/sha256"), temporary: folder.join("ingest") }
    }
}

impl BlobStore for LayoutFolder {
    fn has(&self, digest: &Digest) -> Result<bool, HostError> {
        Ok(self.blobs.join(digest.hex()).is_file())
    }

    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, HostError> {
        let path = self.blobs.join(digest.hex());
        let file = std::fs::File::open(&path).map_err(|error| HostError(format!("{}: {error}", path.display())))?;
        Ok(Box::new(file))
    }

    fn write(&self, contents: BlobContents<'_>) -> Result<(), HostError> {
        std::fs::create_dir_all(&self.blobs).map_err(failed)?;
        let mut file = std::fs::File::create(&self.temporary).map_err(failed)?;
        let digest = contents(&mut file).map_err(failed)?;
        std::fs::rename(&self.temporary, self.blobs.join(digest.hex())).map_err(failed)
    }
}

/// A folder that a client of this machine names: it is only read, and everything in it is known by its digest.
pub fn shared_folder(path: &str) -> Result<Arc<dyn BlobStore>, EngineError> {
    match path.starts_with('/') {
        true => Ok(Arc::new(LayoutFolder::new(std::path::Path::new(path)))),
        false => Err(EngineError::invalid(format!("invalid folder {path}: it must be absolute"))),
    }
}

/// Hashes what passes.
struct Counting<'a> {
    output: &'a mut dyn Write,
    digester: Digester,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.output.write(bytes)?;
        self.digester.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Reads a small blob, and checks it.
fn read_blob(store: &dyn BlobStore, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, HostError> {
    let mut bytes = Vec::new();
    store.open(digest)?.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(HostError(format!("blob {digest} is larger than {limit_bytes} bytes")));
    }
    if Digest::of(&bytes) == *digest {
        Ok(bytes)
    } else {
        Err(HostError(format!("blob {digest} is not what it should be")))
    }
}

fn told(error: EngineError) -> HostError {
    HostError(error.message().to_owned())
}

fn failed(error: impl std::error::Error + 'static) -> HostError {
    HostError(chain(&error))
}

fn refused(error: HostError) -> EngineError {
    EngineError::new(crate::model::ErrorKind::System, error.0)
}
