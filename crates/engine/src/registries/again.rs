//! Fetching again what is here no longer as it came.

use std::sync::Arc;

use images::{Image, ImageId};
use oci::image::{Descriptor, Manifest};
use oci::{DiffId, Reference};
use registry::Credentials;
use tokio::sync::mpsc;

use super::Told;
use super::failure::Failure;
use super::fetch::{self, Wanted};
use super::pull::Pull;
use crate::engine::{Engine, blocking};
use crate::model::{EngineError, chain};

/// Places that are tried for one layer.
const ORIGINS_MAX: usize = 8;

/// Where a layer may be had.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The repository, by its name alone.
    pub(crate) repository: Reference,
    wanted: Wanted,
}

impl Engine {
    /// Where a layer may have come from: what was noted when it came or went, then what manifests of images say that have it.
    pub(crate) async fn origins_of_layer(&self, layer: DiffId) -> Vec<Origin> {
        let images = Arc::clone(&self.inner.images);
        let noted = blocking(move || Ok(images.blobs_of(&layer))).await.unwrap_or_default();
        let noted = noted.into_iter().flat_map(|blob| {
            let descriptor = Descriptor::new(&blob.media_type, blob.digest, blob.size_bytes);
            blob.repositories.into_iter().map(move |name| (descriptor.clone(), name))
        });
        let catalogue = self.inner.images.catalogue();
        let described = catalogue.images().flat_map(|image| {
            let blob = blob_in_manifest(image, &layer);
            let names = image.digests.iter().map(Reference::canonical_name);
            blob.into_iter().flat_map(move |blob| names.clone().map(move |name| (blob.clone(), name)))
        });
        let mut origins: Vec<Origin> = Vec::new();
        for (blob, name) in noted.chain(described) {
            let Ok(repository) = Reference::parse(&name) else { continue };
            let wanted = Wanted { blob, layer, origin: name };
            let is_known =
                |known: &Origin| known.wanted.origin == wanted.origin && known.wanted.blob.digest == wanted.blob.digest;
            if !origins.iter().any(is_known) {
                origins.push(Origin { repository, wanted });
            }
        }
        origins.truncate(ORIGINS_MAX);
        origins
    }

    /// Fetches a layer that counts as missing.
    pub(crate) async fn fetch_from(&self, origin: &Origin, credentials: Credentials) -> Result<(), EngineError> {
        let failed = |failure: Failure| failure.of_pull(&origin.repository);
        let client = self.inner.registries.client();
        let endpoints =
            client.places().to_pull(&origin.repository).map_err(|error| failed(registry::Error::from(error).into()))?;
        let (working, mut worked) = mpsc::channel(1);
        let mut result = Ok(());
        for endpoint in endpoints {
            let fetched = async {
                let session = client.open(&endpoint, credentials.clone()).await?;
                let repository = session.repository(origin.repository.path());
                fetch::fetch(self, &repository, &origin.wanted, &Told::nobody(), working.clone()).await
            };
            result = fetched.await.map(drop);
            if result.is_ok() {
                break;
            }
        }
        drop(working);
        worked.recv().await;
        result.map_err(failed)
    }

    /// Pulls what a digest names if it is exactly this image, under that name alone.
    pub(crate) async fn pull_exactly(
        &self,
        reference: &Reference,
        image: ImageId,
        credentials: Credentials,
    ) -> Result<(), EngineError> {
        let (pull, worked) = Pull::exactly(self, image, credentials);
        let pulled = pull.run(reference).await;
        pull.end(worked).await;
        pulled?;
        let found = self.inner.images.resolve(&image.to_string());
        found.map(drop).map_err(|error| EngineError::not_found(chain(&error)))
    }
}

/// The blob of a layer, as the manifest of an image that came from a registry has it.
fn blob_in_manifest(image: &Image, layer: &DiffId) -> Option<Descriptor> {
    let at = image.layers.iter().position(|known| known == layer)?;
    let manifest: Manifest = serde_json::from_str(&image.manifest.as_ref()?.document).ok()?;
    (manifest.layers.len() == image.layers.len()).then(|| manifest.layers[at].clone())
}
