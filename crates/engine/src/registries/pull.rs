//! `docker pull`.

use std::sync::{Arc, Mutex, PoisonError};

use images::{ImageId, NewImage, Origin, Pulled, PulledManifest, Signature, Source};
use oci::image::{Descriptor, ImageConfig, Index, Manifest, Platform, media_type};
use oci::{DiffId, Digest, Reference};
use registry::{Credentials, Document, Endpoint, Fetched, Name, Repository};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::failure::Failure;
use super::fetch::{self, Wanted, Working};
use super::flow::Total;
use super::provenance::{self, Attested};
use super::{Told, named, signatures};
use crate::engine::{Engine, blocking};
use crate::images::{PROGRESS_QUEUE, ProgressStream, parse_platform};
use crate::model::{EngineError, ErrorKind, FlowReports, ImageProgress, PullFlow, PullRequest, chain};
use crate::policy;

/// Layers of one image that come at one time, as in Docker.
const LAYERS_AT_ONCE: usize = 3;
/// The largest configuration that is read.
const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// How deep indexes may nest.
const INDEX_DEPTH_MAX: u32 = 3;
/// Configurations of what Docker calls AI models.
const MODEL_CONFIG: &str = "application/vnd.docker.ai.model.config.";

impl Engine {
    /// Fetches an image, or all tags of a repository. The first message says whether anything was found; an error ends the messages.
    pub fn pull_image(&self, request: PullRequest) -> Result<ProgressStream, EngineError> {
        let reference = named(&request.image, &request.tag)?;
        let platform = parse_platform(request.platform.as_deref())?;
        let (sink, stream) = mpsc::channel(PROGRESS_QUEUE);
        let (working, worked) = mpsc::channel(1);
        let pull = Pull {
            engine: self.clone(),
            platform,
            exactly: None,
            credentials: request.credentials,
            told: Told(sink.clone()),
            flows: request.flows,
            touched: Mutex::default(),
            working,
        };
        tokio::spawn(async move {
            let pulled = tokio::select! {
                pulled = pull.run(&reference) => Some(pulled),
                () = sink.closed() => None,
            };
            pull.end(worked).await;
            match pulled {
                Some(Ok(())) => {}
                Some(Err(error)) => drop(sink.send(Err(error)).await),
                None => tracing::debug!("the client that pulled {reference} is gone"),
            }
        });
        Ok(stream)
    }
}

pub(super) struct Pull {
    engine: Engine,
    platform: Option<Platform>,
    /// No other image is taken, and which platform it is for does not matter.
    exactly: Option<ImageId>,
    credentials: Credentials,
    told: Told,
    flows: FlowReports,
    /// Layers that may have come without becoming part of an image.
    touched: Mutex<Vec<DiffId>>,
    working: Working,
}

/// One image, known but for its layers.
struct Found {
    /// The index that led to the manifest.
    index: Option<Fetched>,
    manifest: Fetched,
    config: Vec<u8>,
    layers: Vec<Wanted>,
}

/// Whether something new came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    None,
    Newer,
}

/// Ends when nothing works for a pull any more.
type Worked = mpsc::Receiver<std::convert::Infallible>;

impl Pull {
    /// A pull of which nobody hears and that takes one image only.
    pub(super) fn exactly(engine: &Engine, image: ImageId, credentials: Credentials) -> (Pull, Worked) {
        let (working, worked) = mpsc::channel(1);
        let pull = Pull {
            engine: engine.clone(),
            platform: None,
            exactly: Some(image),
            credentials,
            told: Told::nobody(),
            flows: FlowReports::Untold,
            touched: Mutex::default(),
            working,
        };
        (pull, worked)
    }

    pub(super) async fn run(&self, reference: &Reference) -> Result<(), EngineError> {
        let client = self.engine.inner.registries.client();
        let endpoints = client.places().to_pull(reference).map_err(|error| EngineError::invalid(error.to_string()))?;
        let Some((last, mirrors)) = endpoints.split_last() else { return Ok(()) };
        for mirror in mirrors {
            match self.from(mirror, reference).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!("mirror {}: {}", mirror.url(), chain(&error)),
            }
        }
        self.from(last, reference).await.map_err(|failure| failure.of_pull(reference))
    }

    async fn from(&self, endpoint: &Endpoint, reference: &Reference) -> Result<(), Failure> {
        let session = self.engine.inner.registries.client().open(endpoint, self.credentials.clone()).await?;
        let repository = session.repository(reference.path());
        let server = endpoint.url().to_string();
        let mut news = News::None;
        if reference.is_name_only() {
            for tag in repository.tags().await? {
                // A registry may have tags that are none.
                if let Ok(tagged) = reference.with_tag(&tag) {
                    news = news.max(self.one(&repository, &tagged, &server).await?);
                }
            }
        } else {
            news = self.one(&repository, reference, &server).await?;
        }
        let name = reference.familiar();
        self.told
            .status(match news {
                News::Newer => format!("Status: Downloaded newer image for {name}"),
                News::None => format!("Status: Image is up to date for {name}"),
            })
            .await;
        Ok(())
    }

    async fn one(&self, repository: &Repository, reference: &Reference, server: &str) -> Result<News, Failure> {
        self.admit_scope(reference)?;
        let known = match reference.digest() {
            Some(digest) => Some(*digest),
            None => {
                let tag = Name::Tag(reference.tag().unwrap_or_default());
                repository.head_manifest(tag).await?.map(|known| known.digest)
            }
        };
        let (digest, news) = match known {
            // Nothing is fetched, and nothing counts against anybody's limit, where all is here.
            Some(digest) if self.is_here(reference, &digest).await? => {
                self.head(repository, reference).await;
                (digest, News::None)
            }
            _ => self.fetch(repository, reference, known.as_ref(), server).await?,
        };
        self.told.status(format!("Digest: {digest}")).await;
        self.engine.tell_image("pull", &reference.familiar(), &reference.familiar_name());
        Ok(news)
    }

    /// The first line: its id is the tag or the digest.
    async fn head(&self, repository: &Repository, reference: &Reference) {
        let digest = reference.digest().map(ToString::to_string);
        let id = digest.unwrap_or_else(|| reference.tag().unwrap_or_default().to_owned());
        self.told.line(ImageProgress::Heading { id, status: format!("Pulling from {}", repository.path()) }).await;
    }

    /// Whether the image that the registry means is here, for the platform that is wanted; gives it the tag if it has lost it.
    async fn is_here(&self, reference: &Reference, digest: &Digest) -> Result<bool, EngineError> {
        let images = &self.engine.inner.images;
        let Some(id) = images.catalogue().find_reference(&reference.with_digest(*digest)) else { return Ok(false) };
        let Ok(image) = images.resolve(&id.to_string()) else { return Ok(false) };
        let wanted = self.platform.clone().unwrap_or_else(Platform::host);
        // A layer that was found corrupt counts as missing: pulling heals it.
        let is_whole = image.layers.iter().all(|layer| images.has_layer(layer));
        // One that the policy does not admit as it came before may have been signed since.
        let is_whole = is_whole && self.engine.inner.is_admitted(&image);
        if !is_whole || !images::is_platform(&wanted, &image.config.platform()) {
            return Ok(false);
        }
        if reference.digest().is_none() && images.catalogue().find_reference(reference) != Some(id) {
            let (images, target) = (Arc::clone(images), reference.clone());
            let tagged = blocking(move || {
                let tagged = images.tag(&id.to_string(), &target);
                tagged.map_err(|error| EngineError::system("cannot tag the image", error))
            });
            tagged.await?;
        }
        self.engine.inner.image_used(image.id.digest());
        Ok(true)
    }

    async fn fetch(
        &self,
        repository: &Repository,
        reference: &Reference,
        known: Option<&Digest>,
        server: &str,
    ) -> Result<(Digest, News), Failure> {
        let name = match known {
            Some(digest) => Name::Digest(digest),
            None => Name::Tag(reference.tag().unwrap_or_default()),
        };
        let top = repository.manifest(name).await?;
        let digest = top.digest;
        let found = self.find(repository, reference, top).await?;
        let origin = self.admit(repository, &found, reference, digest, server).await?;
        self.head(repository, reference).await;
        let _lease = self.engine.inner.images.lease();
        // Of an image that is here under another name Docker says nothing of layers.
        if !self.has_whole(&ImageId::of_config(&found.config)) {
            self.fetch_layers(repository, &found.layers).await?;
        }
        let attested = provenance::attested_by(repository, found.index.as_ref(), &found.manifest.digest).await;
        let news = self.store(&found, attested, reference, origin).await?;
        self.engine.grown();
        Ok((digest, news))
    }

    fn has_whole(&self, image: &ImageId) -> bool {
        let images = &self.engine.inner.images;
        images.catalogue().get(image).is_some_and(|image| image.layers.iter().all(|layer| images.has_layer(layer)))
    }

    /// Follows a manifest, or an index to the best of its manifests, to the configuration.
    async fn find(&self, repository: &Repository, reference: &Reference, top: Fetched) -> Result<Found, Failure> {
        let (mut fetched, mut index, mut depth) = (top, None, 0);
        let manifest = loop {
            match fetched.document()? {
                Document::Manifest(manifest) => break manifest,
                Document::Index(_) if depth == INDEX_DEPTH_MAX => {
                    return Err(Failure::Image(format!("indexes are nested more than {INDEX_DEPTH_MAX} deep")));
                }
                Document::Index(document) => {
                    let inner = self.choose(repository, &document).await?;
                    // Of nested ones the innermost, which names the image.
                    index = Some(std::mem::replace(&mut fetched, inner));
                    depth += 1;
                }
            }
        };
        if self.exactly.is_some_and(|image| *image.digest() != manifest.config.digest) {
            return Err(Failure::Image("it is another image there".to_owned()));
        }
        let config = self.config(repository, &manifest, reference).await?;
        let (config_bytes, diff_ids) = config;
        let origin = reference.canonical_name();
        let layers = wanted_layers(manifest, diff_ids, &origin)?;
        Ok(Found { index, manifest: fetched, config: config_bytes, layers })
    }

    async fn choose(&self, repository: &Repository, index: &Index) -> Result<Fetched, Failure> {
        let Some(image) = self.exactly else {
            let chosen = choose(index, self.platform.as_ref())?;
            return Ok(repository.manifest(Name::Digest(&chosen.digest)).await?);
        };
        for descriptor in index.manifests.iter().filter(|descriptor| is_image(descriptor)) {
            let fetched = repository.manifest(Name::Digest(&descriptor.digest)).await?;
            match fetched.document()? {
                Document::Manifest(manifest) if manifest.config.digest == *image.digest() => return Ok(fetched),
                _ => {}
            }
        }
        Err(Failure::Image("the image is not among those of the index".to_owned()))
    }

    async fn config(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        reference: &Reference,
    ) -> Result<(Vec<u8>, Vec<DiffId>), Failure> {
        let Descriptor { media_type, digest, size, .. } = &manifest.config;
        if media_type.starts_with(MODEL_CONFIG) {
            return Err(Failure::Model);
        }
        if !matches!(media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
            return Err(Failure::NoImage(media_type.clone()));
        }
        let bytes = repository.small_blob(digest, *size, CONFIG_BYTES_MAX).await?;
        let config: ImageConfig = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::Image(format!("invalid image configuration: {error}")))?;
        if !config.os.is_empty() && config.os != "linux" {
            let words = "cannot be used on this platform: operating system is not supported";
            return Err(Failure::Image(format!("image operating system {:?} {words}", config.os)));
        }
        if let Some(wanted) = self.platform.as_ref().filter(|wanted| !images::is_platform(wanted, &config.platform())) {
            let (wanted, actual) = (images::platform_name(wanted), images::platform_name(&config.platform()));
            return Err(Failure::OtherPlatform { name: reference.familiar(), wanted, actual });
        }
        Ok((bytes, config.rootfs.diff_ids))
    }

    /// Fetches what is not here, some layers at a time. Tasks end with this future.
    async fn fetch_layers(&self, repository: &Repository, layers: &[Wanted]) -> Result<(), Failure> {
        let images = &self.engine.inner.images;
        let mut missing = Vec::new();
        for wanted in layers {
            let is_here = images.has_layer(&wanted.layer);
            self.told.step(&wanted.id(), if is_here { "Already exists" } else { "Pulling fs layer" }).await;
            if !is_here {
                missing.push(wanted.clone());
                self.touched.lock().unwrap_or_else(PoisonError::into_inner).push(wanted.layer);
            }
        }
        for wanted in missing.iter().skip(LAYERS_AT_ONCE) {
            self.told.step(&wanted.id(), "Waiting").await;
        }
        let places = Arc::new(Semaphore::new(LAYERS_AT_ONCE));
        let mut tasks = JoinSet::new();
        for wanted in missing {
            let (engine, repository, told) = (self.engine.clone(), repository.clone(), self.told.clone());
            let (places, working) = (Arc::clone(&places), self.working.clone());
            tasks.spawn(async move {
                let _place = places.acquire().await.expect("it is never closed");
                let flow = fetch::fetch(&engine, &repository, &wanted, &told, working).await;
                flow.map(|flow| (wanted, flow))
            });
        }
        let mut total = Total::begin();
        while let Some(ended) = tasks.join_next().await {
            let (wanted, flow) =
                ended.map_err(|error| EngineError::system("a task of the engine ended early", error))??;
            if let Some(flow) = flow {
                self.tell_flow(flow.of_layer(wanted.id())).await;
                total.add(flow);
            }
        }
        if let Some(flow) = total.end() {
            self.tell_flow(flow).await;
        }
        Ok(())
    }

    async fn tell_flow(&self, flow: PullFlow) {
        if self.flows == FlowReports::Told {
            self.told.line(ImageProgress::Flow(flow)).await;
        }
    }

    /// Refuses a name that the image policy rejects before anything is asked of anybody.
    fn admit_scope(&self, reference: &Reference) -> Result<(), EngineError> {
        let Some(policy) = &self.engine.inner.policy else { return Ok(()) };
        if policy.rule(trust::Transport::Registry, Some(reference)).wants_signatures() {
            return Ok(());
        }
        let origin = trust::Origin { transport: trust::Transport::Registry, reference: Some(reference), digests: &[] };
        let refused = |refused: trust::Refused| {
            let words = format!("image {} is not admitted by the image policy: {refused}", reference.familiar());
            EngineError::new(ErrorKind::Forbidden, words)
        };
        policy.judge(&origin, &[]).map(drop).map_err(refused)
    }

    /// Where the image comes from, with its signatures where the image policy asks for them; refuses what it does not admit.
    async fn admit(
        &self,
        repository: &Repository,
        found: &Found,
        reference: &Reference,
        digest: Digest,
        server: &str,
    ) -> Result<Origin, Failure> {
        let manifest = found.manifest.digest;
        let (reference_text, server) = (reference.canonical(), server.to_owned());
        let source = Source::Registry { reference: reference_text, digest, manifest, server };
        let mut origin = Origin { source, time: jiff::Timestamp::now(), signatures: Vec::new() };
        if let Some(policy) = &self.engine.inner.policy {
            // The digest that was pulled must be signed: that of the manifest, or of the index that named it.
            let digests = if digest == manifest { vec![digest] } else { vec![digest, manifest] };
            origin.signatures = admit(policy, repository, (reference, &digests), &origin.source).await?;
        }
        Ok(origin)
    }

    async fn store(
        &self,
        found: &Found,
        attested: Attested,
        reference: &Reference,
        origin: Origin,
    ) -> Result<News, EngineError> {
        let Source::Registry { digest, .. } = origin.source else { unreachable!("a pull is from a registry") };
        let images = Arc::clone(&self.engine.inner.images);
        let names = match reference.digest() {
            Some(_) => vec![reference.with_digest(digest)],
            None => vec![reference.clone(), reference.with_digest(digest)],
        };
        let new = NewImage { config: found.config.clone(), references: names, parent: None };
        let Fetched { media_type, bytes, .. } = found.manifest.clone();
        blocking(move || {
            let document =
                String::from_utf8(bytes).map_err(|error| EngineError::system("the manifest is not UTF-8", error))?;
            let id = ImageId::of_config(&new.config);
            let catalogue = images.catalogue();
            let is_news = new.references.iter().any(|name| catalogue.find_reference(name) != Some(id));
            let manifest = PulledManifest { media_type, document };
            let pulled = Pulled { manifest, index: attested.index, blobs: attested.blobs, origin };
            let made = images.create_pulled(new, pulled);
            made.map_err(|error| EngineError::system("cannot store the image", error))?;
            Ok(if is_news { News::Newer } else { News::None })
        })
        .await
    }

    /// Layers of an image that was not made after all go again, unless others need them.
    pub(super) async fn end(self, mut worked: Worked) {
        let Pull { engine, touched, working, .. } = self;
        // A layer that is nearly there would be there afterwards.
        drop(working);
        worked.recv().await;
        // Not only this pull's: it may be the last of several that kept each other's from going.
        let layers = touched.into_inner().unwrap_or_else(PoisonError::into_inner);
        engine.doubt_layers(layers).await;
    }
}

impl Engine {
    /// Deletes those of these layers, and of all that were doubted before, that nobody needs.
    pub(super) async fn doubt_layers(&self, layers: Vec<DiffId>) {
        let images = Arc::clone(&self.inner.images);
        let doubted = blocking(move || {
            linux::allocator::give_back();
            let doubted = images.doubt_layers(layers.into_iter());
            doubted.map_err(|error| EngineError::system("cannot clean up after a pull", error))
        });
        if let Err(error) = doubted.await {
            tracing::warn!("{error}");
        }
    }
}

/// Whether an entry of an index may be an image. Attestations are none.
fn is_image(descriptor: &Descriptor) -> bool {
    let is_known = media_type::is_index(&descriptor.media_type) || media_type::is_manifest(&descriptor.media_type);
    let is_attestation = descriptor.annotations.contains_key("vnd.docker.reference.type")
        || descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
    is_known && !is_attestation
}

/// The best manifest of an index for what is wanted, or else for this machine.
fn choose<'a>(index: &'a Index, wanted: Option<&Platform>) -> Result<&'a Descriptor, Failure> {
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|descriptor| is_image(descriptor)).collect();
    let best = images::best_platform(wanted, images.iter().map(|descriptor| descriptor.platform.as_ref()));
    best.map(|at| images[at]).ok_or_else(|| {
        let present: Vec<String> =
            images.iter().filter_map(|descriptor| descriptor.platform.as_ref().map(images::platform_name)).collect();
        let host = Platform::host();
        let wanted = images::platform_name(wanted.unwrap_or(&host));
        Failure::Platform { wanted, present: if present.is_empty() { "none".to_owned() } else { present.join(", ") } }
    })
}

/// Pairs the blobs of a manifest with the layers of a configuration.
fn wanted_layers(manifest: Manifest, diff_ids: Vec<DiffId>, origin: &str) -> Result<Vec<Wanted>, Failure> {
    if manifest.layers.len() != diff_ids.len() {
        return Err(Failure::Image(format!(
            "layers from manifest don't match image configuration: {} and {}",
            manifest.layers.len(),
            diff_ids.len()
        )));
    }
    let pairs = manifest.layers.into_iter().zip(diff_ids);
    pairs
        .map(|(blob, layer)| {
            if blob.media_type.contains(".foreign.") || blob.media_type.contains(".nondistributable.") {
                return Err(Failure::Image(format!(
                    "layer {} must be fetched from elsewhere, which is not supported",
                    blob.digest
                )));
            }
            Ok(Wanted { blob, layer, origin: origin.to_owned() })
        })
        .collect()
}

/// The signatures with which the image policy admits what a registry has under these digests; refuses what it does not admit.
pub(super) async fn admit(
    policy: &trust::Policy,
    repository: &Repository,
    (reference, digests): (&Reference, &[Digest]),
    source: &Source,
) -> Result<Vec<Signature>, Failure> {
    let judge = |signatures: &[Signature]| policy::judge(policy, source, signatures);
    let mut found = Vec::new();
    if policy.rule(trust::Transport::Registry, Some(reference)).wants_signatures() {
        found = signatures::find(repository, digests, &|found| judge(found).is_ok()).await?;
    }
    match judge(&found) {
        Ok(_) => Ok(found),
        Err(refused) => Err(policy::not_admitted(&reference.familiar(), &digests[0], &refused).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(entries: &[(&str, &str)]) -> Index {
        let manifests = entries.iter().map(|(name, platform)| {
            let platform = images::parse_platform(platform).ok();
            serde_json::json!({
                "mediaType": media_type::OCI_MANIFEST, "size": 1, "digest": Digest::of(name.as_bytes()), "platform": platform,
            })
        });
        let manifests: Vec<_> = manifests.collect();
        serde_json::from_value(serde_json::json!({ "schemaVersion": 2, "manifests": manifests })).unwrap()
    }

    #[test]
    fn the_best_manifest_is_chosen() {
        let wanted = |text: &str| images::parse_platform(text).unwrap();
        let index = index(&[("arm", "linux/arm/v7"), ("amd", "linux/amd64"), ("windows", "windows/amd64")]);
        let chosen = |platform: Option<Platform>| choose(&index, platform.as_ref()).map(|found| found.digest);
        assert_eq!(chosen(Some(wanted("linux/arm/v7"))).unwrap(), Digest::of(b"arm"));
        assert_eq!(chosen(Some(wanted("linux/amd64"))).unwrap(), Digest::of(b"amd"));
        let error = chosen(Some(wanted("linux/s390x"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no matching manifest for linux/s390x in the manifest list entries: linux/arm/v7, linux/amd64, windows/amd64"
        );
    }

    #[test]
    fn attestations_are_no_images() {
        let mut index = index(&[("attestation", "none"), ("image", "none")]);
        index.manifests[0]
            .annotations
            .insert("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned());
        assert_eq!(choose(&index, None).unwrap().digest, Digest::of(b"image"));
    }
}
