//! `docker push`.

use std::sync::Arc;

use bytes::Bytes;
use images::{Bundle, Image, Member, PulledIndex, PulledManifest, Source};
use oci::image::{Descriptor, Index, Manifest, media_type};
use oci::{Digest, Reference};
use registry::{Credentials, Document, Fetched, Name};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::offer::{self, Target};
use super::{Told, failure, named};
use crate::engine::{Engine, blocking};
use crate::images::{PROGRESS_QUEUE, ProgressStream, parse_platform};
use crate::model::{EngineError, ErrorKind, ImageProgress, PushRequest};

/// Layers that are compressed and sent at one time.
const LAYERS_AT_ONCE: usize = 3;

impl Engine {
    /// Sends an image, or all tags of a repository. An error ends the messages.
    pub fn push_image(&self, request: PushRequest) -> Result<ProgressStream, EngineError> {
        let reference = named(&request.image, &request.tag)?;
        if reference.digest().is_some() {
            return Err(EngineError::invalid("cannot push a digest reference"));
        }
        let platform = parse_platform(request.platform.as_deref())?;
        let (sink, stream) = mpsc::channel(PROGRESS_QUEUE);
        let push = Push { engine: self.clone(), platform, credentials: request.credentials, told: Told(sink.clone()) };
        tokio::spawn(async move {
            let pushed = tokio::select! {
                pushed = push.run(&reference) => pushed,
                () = sink.closed() => Ok(()),
            };
            if let Err(error) = pushed {
                let _ = sink.send(Err(error)).await;
            }
        });
        Ok(stream)
    }
}

struct Push {
    engine: Engine,
    platform: Option<oci::image::Platform>,
    credentials: Credentials,
    told: Told,
}

impl Push {
    async fn run(&self, reference: &Reference) -> Result<(), EngineError> {
        self.told.status(format!("The push refers to repository [{}]", reference.canonical_name())).await;
        let tagged = self.tagged(reference)?;
        let client = self.engine.inner.registries.client();
        let session = client.open_registry_of(reference, self.credentials.clone()).await;
        let session = session.map_err(|error| failure::of_push(&error))?;
        let repository = session.repository(reference.path());
        let target = Target { repository, domain: reference.domain().to_owned() };
        for (name, image) in tagged {
            self.one(&target, &name, &image).await?;
        }
        Ok(())
    }

    /// What is to be sent, by its names.
    fn tagged(&self, reference: &Reference) -> Result<Vec<(Reference, Arc<Image>)>, EngineError> {
        let catalogue = self.engine.inner.images.catalogue();
        let names: Vec<Reference> = match reference.tag() {
            Some(_) => vec![reference.clone()],
            None => {
                let all = catalogue.images().flat_map(|image| image.tags.iter());
                all.filter(|tag| is_of(tag, reference)).cloned().collect()
            }
        };
        let is_known = || catalogue.images().flat_map(|image| &image.tags).any(|tag| is_of(tag, reference));
        // As in Docker it makes a difference whether the repository has any tag.
        let missing = || match reference.tag().is_some() && is_known() {
            true => EngineError::not_found(format!("tag does not exist: {}", reference.familiar())),
            false => {
                let name = reference.familiar_name();
                EngineError::not_found(format!("An image does not exist locally with the tag: {name}"))
            }
        };
        if names.is_empty() {
            return Err(missing());
        }
        let image_of = |name: Reference| match catalogue.find_reference(&name).and_then(|id| catalogue.get(&id)) {
            None => Err(missing()),
            Some(image) => {
                match self.platform.as_ref().filter(|wanted| !images::is_platform(wanted, &image.config.platform())) {
                    None => Ok((name, Arc::clone(image))),
                    Some(wanted) => Err(EngineError::not_found(format!(
                        "image with reference {} was found but does not provide the specified platform ({})",
                        name.familiar(),
                        images::platform_name(wanted)
                    ))),
                }
            }
        };
        names.into_iter().map(image_of).collect()
    }

    async fn one(&self, target: &Target, name: &Reference, image: &Arc<Image>) -> Result<(), EngineError> {
        // Nothing of it may be deleted meanwhile.
        let _lease = self.engine.inner.images.lease();
        let failed = |error: registry::Error| failure::of_push(&error);
        let tag = name.tag().unwrap_or_default();
        let top = match image.index.as_deref().filter(|_| is_made_here(image)) {
            Some(index) => self.bundle(target, name, image, index).await?,
            None => {
                let original = image.manifest.as_deref().and_then(parse);
                let manifest = self.parts(target, image, original, Words::TheirOwn).await?;
                match self.attestations(image, &manifest).await {
                    Some(attested) => attested.push(target, &manifest).await.map_err(failed)?,
                    None => manifest,
                }
            }
        };
        let document = top.document.as_bytes();
        let put = target.repository.put_manifest(Name::Tag(tag), &top.media_type, document);
        let (digest, size_bytes) = (put.await.map_err(failed)?, document.len() as u64);
        self.add_digest(image, &name.with_digest(digest)).await?;
        self.told.status(format!("{tag}: digest: {digest} size: {size_bytes}")).await;
        self.told.line(ImageProgress::Pushed { tag: tag.to_owned(), digest, size_bytes }).await;
        self.engine.tell_image("push", &name.familiar(), &name.familiar_name());
        Ok(())
    }

    /// Sends everything that a manifest of an image names; gives the manifest.
    async fn parts(
        &self,
        target: &Target,
        image: &Arc<Image>,
        original: Option<Manifest>,
        words: Words,
    ) -> Result<PulledManifest, EngineError> {
        let failed = |error: registry::Error| failure::of_push(&error);
        let layers = self.layers(target, image, original.as_ref()).await?;
        let config = Digest::of(&image.config_bytes);
        if !target.repository.has_blob(&config).await.map_err(failed)? {
            target.repository.put_blob(Bytes::copy_from_slice(&image.config_bytes)).await.map_err(failed)?;
        }
        manifest_of(image, original, layers, words)
    }

    /// Sends an index that was made here with all its images. Its layers are compressed on their way, so the manifests are others
    /// than those that it names, and what is said about them is said anew.
    async fn bundle(
        &self,
        target: &Target,
        name: &Reference,
        image: &Arc<Image>,
        index: &PulledIndex,
    ) -> Result<PulledManifest, EngineError> {
        let failed = |error: registry::Error| failure::of_push(&error);
        let catalogue = self.engine.inner.images.catalogue();
        let mut own: Vec<Arc<Image>> = vec![Arc::clone(image)];
        own.extend(index.images.iter().filter_map(|id| catalogue.get(id).cloned()));
        let places: Vec<Digest> = serde_json::from_str::<Index>(&index.document)
            .map(|index| index.manifests.iter().map(|entry| entry.digest).collect())
            .unwrap_or_default();
        own.sort_by_key(|image| places.iter().position(|digest| *digest == image.own_manifest().digest()));
        let mut members = Vec::new();
        for image in own {
            let manifest = self.parts(target, &image, None, Words::Oci).await?;
            let digest = manifest.digest();
            let document = manifest.document.as_bytes();
            let put = target.repository.put_manifest(Name::Digest(&digest), &manifest.media_type, document);
            put.await.map_err(failed)?;
            let (images, index, about) =
                (Arc::clone(&self.engine.inner.images), index.clone(), image.own_manifest().digest());
            let said = blocking(move || Ok(images::predicates(&index, &about, &|digest| images.blob(digest).ok())));
            members.push(Member { manifest, platform: image.config.platform(), predicates: said.await? });
        }
        let Bundle { index, attestations, blobs } = images::bundle(&members, std::slice::from_ref(name));
        for bytes in blobs {
            target.repository.put_blob(Bytes::from(bytes)).await.map_err(failed)?;
        }
        for manifest in &attestations {
            let (digest, document) = (manifest.digest(), manifest.document.as_bytes());
            let put = target.repository.put_manifest(Name::Digest(&digest), &manifest.media_type, document);
            put.await.map_err(failed)?;
        }
        Ok(index)
    }

    /// What is attested about the manifest, where it is the one that the image came with: about another nothing is said.
    async fn attestations(&self, image: &Image, manifest: &PulledManifest) -> Option<Attestations> {
        let index = image.index.clone().filter(|index| !index.attestations.is_empty())?;
        image.manifest.as_ref().filter(|known| known.digest() == manifest.digest())?;
        let images = Arc::clone(&self.engine.inner.images);
        let read = blocking(move || {
            let blobs = index.blobs().into_iter().map(|blob| images.blob(&blob).map(|bytes| (blob, bytes)));
            let blobs =
                blobs.collect::<Result<Vec<_>, _>>().map_err(|reason| EngineError::new(ErrorKind::System, reason))?;
            Ok(Attestations { index, blobs })
        });
        // The image is whole without them.
        read.await.inspect_err(|error| tracing::warn!("attestations are not pushed: {error}")).ok()
    }

    /// The blobs of all layers, which the registry has afterwards, lowest first.
    async fn layers(
        &self,
        target: &Target,
        image: &Image,
        original: Option<&Manifest>,
    ) -> Result<Vec<Descriptor>, EngineError> {
        // Docker begins at the top.
        for layer in image.layers.iter().rev() {
            self.told.step(&layer.digest().short(), "Preparing").await;
        }
        for layer in image.layers.iter().rev().skip(LAYERS_AT_ONCE) {
            self.told.step(&layer.digest().short(), "Waiting").await;
        }
        let places = Arc::new(Semaphore::new(LAYERS_AT_ONCE));
        let mut tasks = JoinSet::new();
        for (at, layer) in image.layers.iter().copied().enumerate().rev() {
            let preferred = original.and_then(|manifest| manifest.layers.get(at)).cloned();
            let (engine, target, told) = (self.engine.clone(), target.clone(), self.told.clone());
            let places = Arc::clone(&places);
            tasks.spawn(async move {
                let _place = places.acquire().await.expect("it is never closed");
                let blob = offer::offer(&engine, &target, layer, preferred.as_ref(), &told).await?;
                // The manifest's own words about the blob count, where it is the same blob.
                Ok::<_, EngineError>((at, preferred.filter(|known| known.digest == blob.digest).unwrap_or(blob)))
            });
        }
        let mut blobs = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            blobs.push(ended.map_err(|error| EngineError::system("a task of the engine ended early", error))??);
        }
        blobs.sort_by_key(|(at, _)| *at);
        Ok(blobs.into_iter().map(|(_, blob)| blob).collect())
    }

    async fn add_digest(&self, image: &Image, reference: &Reference) -> Result<(), EngineError> {
        let (images, id, reference) = (Arc::clone(&self.engine.inner.images), image.id, reference.clone());
        blocking(move || {
            let added = images.add_digest(&id, &reference);
            added.map_err(|error| EngineError::system("cannot note the digest", error))
        })
        .await
    }
}

/// In whose words a manifest is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    /// As its layers have it.
    TheirOwn,
    /// OCI's, which an index of OCI's names.
    Oci,
}

/// Whether an index of an image was made here: no registry has said anything about it.
fn is_made_here(image: &Image) -> bool {
    !image.origins().is_empty() && image.origins().iter().all(|origin| origin.source == Source::Build)
}

/// What goes to a registry beside an image.
struct Attestations {
    index: Arc<PulledIndex>,
    blobs: Vec<(Digest, Vec<u8>)>,
}

impl Attestations {
    /// Sends them and the image's manifest under their digests; gives the index to be put under the tag.
    async fn push(&self, target: &Target, manifest: &PulledManifest) -> Result<PulledManifest, registry::Error> {
        for (digest, bytes) in &self.blobs {
            if !target.repository.has_blob(digest).await? {
                target.repository.put_blob(Bytes::copy_from_slice(bytes)).await?;
            }
        }
        for manifest in std::iter::once(manifest).chain(&self.index.attestations) {
            let (digest, document) = (manifest.digest(), manifest.document.as_bytes());
            target.repository.put_manifest(Name::Digest(&digest), &manifest.media_type, document).await?;
        }
        Ok(index_of(&self.index, manifest))
    }
}

/// The index that the image came with, where all is here that it names; else the same without the rest, which registries demand.
fn index_of(index: &PulledIndex, manifest: &PulledManifest) -> PulledManifest {
    let own = std::iter::once(manifest).chain(&index.attestations).map(PulledManifest::digest);
    let here: Vec<Digest> = own.collect();
    let whole = || PulledManifest { media_type: index.media_type.clone(), document: index.document.clone() };
    let Ok(mut parsed) = serde_json::from_str::<Index>(&index.document) else { return whole() };
    let named = parsed.manifests.len();
    parsed.manifests.retain(|entry| here.contains(&entry.digest));
    match serde_json::to_string(&parsed) {
        Ok(document) if parsed.manifests.len() < named => PulledManifest { document, ..whole() },
        _ => whole(),
    }
}

fn parse(manifest: &PulledManifest) -> Option<Manifest> {
    let bytes = manifest.document.clone().into_bytes();
    let fetched = Fetched { digest: Digest::of(&bytes), media_type: manifest.media_type.clone(), bytes };
    match fetched.document() {
        Ok(Document::Manifest(manifest)) => Some(manifest),
        _ => None,
    }
}

/// The manifest to send: the one that the image came with, where all its blobs are the same; else one of our own.
fn manifest_of(
    image: &Image,
    original: Option<Manifest>,
    layers: Vec<Descriptor>,
    words: Words,
) -> Result<PulledManifest, EngineError> {
    if let (Some(original), Some(known)) = (&original, &image.manifest)
        && original.config.digest == Digest::of(&image.config_bytes)
        && original.layers == layers
    {
        return Ok(PulledManifest::clone(known));
    }
    let is_oci = words == Words::Oci
        || layers.iter().any(|layer| layer.media_type.starts_with("application/vnd.oci."))
        || original.as_ref().is_some_and(|original| original.media_type == media_type::OCI_MANIFEST);
    let (media_type, config_type) = match is_oci {
        true => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
        false => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
    };
    let layers = layers.into_iter().map(|layer| if is_oci { as_oci(layer) } else { layer }).collect();
    let config = Descriptor::new(config_type, Digest::of(&image.config_bytes), image.config_bytes.len() as u64);
    let manifest = Manifest {
        annotations: original.map(|original| original.annotations).unwrap_or_default(),
        ..Manifest::new(media_type, config, layers)
    };
    let document = serde_json::to_string(&manifest)
        .map_err(|error| EngineError::system("cannot write down the manifest", error))?;
    Ok(PulledManifest { media_type: media_type.to_owned(), document })
}

/// OCI's names for Docker's kinds of layers.
fn as_oci(mut layer: Descriptor) -> Descriptor {
    let kind = match layer.media_type.as_str() {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER_ZSTD => media_type::OCI_LAYER_ZSTD,
        _ => return layer,
    };
    kind.clone_into(&mut layer.media_type);
    layer
}

/// Whether two names are of one repository.
fn is_of(tag: &Reference, reference: &Reference) -> bool {
    tag.canonical_name() == reference.canonical_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_what_is_here() {
        let manifest = |text: &str| PulledManifest { media_type: "m".to_owned(), document: text.to_owned() };
        let (image, said) = (manifest("image"), manifest("said"));
        let entry = |digest: Digest| format!(r#"{{"mediaType":"m","size":1,"digest":"{digest}"}}"#);
        let index = |digests: &[Digest]| {
            let entries: Vec<String> = digests.iter().copied().map(entry).collect();
            let document = format!(r#"{{"schemaVersion":2,"extra":1,"manifests":[{}]}}"#, entries.join(","));
            PulledIndex { attestations: vec![said.clone()], ..PulledIndex::new("i".to_owned(), document) }
        };
        let whole = index(&[image.digest(), said.digest()]);
        assert_eq!(index_of(&whole, &image).document, whole.document);
        let partial = index(&[image.digest(), Digest::of(b"other"), said.digest()]);
        let left: Index = serde_json::from_str(&index_of(&partial, &image).document).unwrap();
        let digests: Vec<Digest> = left.manifests.iter().map(|entry| entry.digest).collect();
        assert_eq!(digests, [image.digest(), said.digest()]);
    }
}
