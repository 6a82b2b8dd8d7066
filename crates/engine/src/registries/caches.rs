//! A repository that keeps a build's cache: layers and documents there and back.

use bytes::Bytes;
use images::Source;
use oci::image::Descriptor;
use oci::{DiffId, Digest, Reference};
use registry::{Credentials, Fetched, Name, Repository};
use tokio::sync::mpsc;

use super::fetch::{self, Wanted};
use super::offer::{self, Target};
use super::{Told, failure};
use crate::engine::Engine;
use crate::model::EngineError;

/// One repository, and the name in it.
#[derive(Debug, Clone)]
pub(crate) struct CacheRepository {
    reference: Reference,
    target: Target,
}

impl CacheRepository {
    /// Begins to speak with the repository of a name.
    pub(crate) async fn open(
        engine: &Engine,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<CacheRepository, EngineError> {
        let session = engine.inner.registries.client().open_registry_of(reference, credentials).await;
        let session = session.map_err(|error| failure::of_request(&error))?;
        let target = Target { repository: session.repository(reference.path()), domain: reference.domain().to_owned() };
        Ok(CacheRepository { reference: reference.clone(), target })
    }

    fn repository(&self) -> &Repository {
        &self.target.repository
    }

    /// Whether both are one repository, so that what is in one need not be sent to the other.
    pub(crate) fn is_same(&self, other: &CacheRepository) -> bool {
        self.reference.canonical_name() == other.reference.canonical_name()
    }

    /// What the name means now, where the image policy admits it: a build that takes steps from it is made of it as of a base image.
    pub(crate) async fn admitted_top(&self, engine: &Engine) -> Result<Fetched, EngineError> {
        let top = self.top().await?;
        if let Some(policy) = &engine.inner.policy {
            let (reference, digest) = (self.reference.canonical(), top.digest);
            let source = Source::Registry { reference, digest, manifest: digest, server: String::new() };
            let admitted = super::pull::admit(policy, self.repository(), (&self.reference, &[digest]), &source).await;
            admitted.map_err(|failure| failure.of_pull(&self.reference))?;
        }
        Ok(top)
    }

    /// What the name means now.
    pub(crate) async fn top(&self) -> Result<Fetched, EngineError> {
        let name = match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => Name::Digest(digest),
            (None, tag) => Name::Tag(tag.unwrap_or_default()),
        };
        self.repository().manifest(name).await.map_err(|error| failure::Failure::from(error).of_pull(&self.reference))
    }

    /// A manifest that an index names.
    pub(crate) async fn manifest(&self, digest: &Digest) -> Result<Fetched, EngineError> {
        let fetched = self.repository().manifest(Name::Digest(digest)).await;
        fetched.map_err(|error| failure::of_request(&error))
    }

    /// A small blob.
    pub(crate) async fn blob(&self, blob: &Descriptor, limit_bytes: u64) -> Result<Vec<u8>, EngineError> {
        let read = self.repository().small_blob(&blob.digest, blob.size, limit_bytes).await;
        read.map_err(|error| failure::of_request(&error))
    }

    /// Whether a blob is there.
    pub(crate) async fn has(&self, digest: &Digest) -> Result<bool, EngineError> {
        self.repository().has_blob(digest).await.map_err(|error| failure::of_push(&error))
    }

    /// Fetches a layer.
    pub(crate) async fn fetch(&self, engine: &Engine, blob: &Descriptor, layer: DiffId) -> Result<(), EngineError> {
        let wanted = Wanted { blob: blob.clone(), layer, origin: self.reference.canonical_name() };
        let (working, mut worked) = mpsc::channel(1);
        let fetched = fetch::fetch(engine, self.repository(), &wanted, &Told::nobody(), working).await;
        worked.recv().await;
        fetched.map(drop).map_err(|failure| failure.of_pull(&self.reference))
    }

    /// Sees to it that a layer is there.
    pub(crate) async fn offer(&self, engine: &Engine, layer: DiffId) -> Result<Descriptor, EngineError> {
        offer::offer(engine, &self.target, layer, None, &Told::nobody()).await
    }

    /// Sends a small blob.
    pub(crate) async fn put_blob(&self, bytes: Vec<u8>) -> Result<(), EngineError> {
        let sent = self.repository().put_blob(Bytes::from(bytes)).await;
        sent.map(drop).map_err(|error| failure::of_push(&error))
    }

    /// Gives a manifest the name.
    pub(crate) async fn put_manifest(&self, media_type: &str, document: &[u8]) -> Result<(), EngineError> {
        let tag = self.reference.tag().unwrap_or_default();
        let put = self.repository().put_manifest(Name::Tag(tag), media_type, document).await;
        put.map(drop).map_err(|error| failure::of_push(&error))
    }
}
