//! Signatures of an image, where cosign puts them: under a tag made of the digest, and among the manifest's referrers.

use base64::Engine as _;
use images::Signature;
use oci::Digest;
use oci::image::{Descriptor, Manifest};
use registry::{Document, Name, Repository};

use super::failure::Failure;

/// What a layer of a signature's manifest is.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// What refers to a manifest that it signs.
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// The signature itself, in base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Referrers of one manifest that are looked at.
const REFERRERS_MAX: usize = 16;
/// Signatures of one manifest that are looked at: the newest, which stand last.
const SIGNATURES_MAX: usize = 32;
/// The longest signature that is kept: one of the largest RSA key takes 1.4 kB.
const SIGNATURE_BYTES_MAX: usize = 2048;
/// The largest payload that is fetched; one has some hundred bytes.
const PAYLOAD_BYTES_MAX: u64 = 16 << 10;

/// The signatures of the manifests with these digests, until `is_enough` of them. What is malformed or too large is no signature.
pub(super) async fn find(
    repository: &Repository,
    digests: &[Digest],
    is_enough: &(dyn Fn(&[Signature]) -> bool + Sync),
) -> Result<Vec<Signature>, Failure> {
    let mut found = Vec::new();
    for digest in digests {
        let mut manifests: Vec<Manifest> = tagged(repository, digest).await?.into_iter().collect();
        manifests.extend(referring(repository, digest).await?);
        let layers = manifests.iter().flat_map(|manifest| manifest.layers.iter().rev().take(SIGNATURES_MAX));
        for layer in layers.take(SIGNATURES_MAX) {
            let Some(signature) = signature_of(repository, layer).await? else { continue };
            if !found.contains(&signature) {
                found.push(signature);
            }
            if is_enough(&found) {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// What is under `sha256-<hex>.sig`.
async fn tagged(repository: &Repository, digest: &Digest) -> Result<Option<Manifest>, Failure> {
    let tag = format!("sha256-{}.sig", digest.hex());
    match repository.manifest(Name::Tag(&tag)).await {
        Ok(fetched) => Ok(manifest(fetched.document().ok())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn referring(repository: &Repository, digest: &Digest) -> Result<Vec<Manifest>, Failure> {
    let referrers = repository.referrers(digest).await?;
    let is_signature = |entry: &&Descriptor| entry.artifact_type.as_deref() == Some(ARTIFACT);
    let mut manifests = Vec::new();
    for entry in referrers.iter().filter(is_signature).rev().take(REFERRERS_MAX) {
        match repository.manifest(Name::Digest(&entry.digest)).await {
            Ok(fetched) => manifests.extend(manifest(fetched.document().ok())),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(manifests)
}

fn manifest(document: Option<Document>) -> Option<Manifest> {
    match document {
        Some(Document::Manifest(manifest)) => Some(manifest),
        _ => None,
    }
}

async fn signature_of(repository: &Repository, layer: &Descriptor) -> Result<Option<Signature>, Failure> {
    let signature = layer.annotations.get(SIGNATURE).filter(|text| text.len() <= SIGNATURE_BYTES_MAX);
    let Some(signature) = signature.filter(|_| layer.media_type == PAYLOAD && layer.size <= PAYLOAD_BYTES_MAX) else {
        return Ok(None);
    };
    let embedded = layer.data.as_deref().and_then(|data| base64::engine::general_purpose::STANDARD.decode(data).ok());
    let payload = match embedded.filter(|bytes| Digest::of(bytes) == layer.digest) {
        Some(bytes) => bytes,
        None => match repository.small_blob(&layer.digest, layer.size, PAYLOAD_BYTES_MAX).await {
            Ok(bytes) => bytes,
            // A signature whose payload is gone or another proves nothing; the next one may.
            Err(error) if error.is_not_found() || matches!(error, registry::Error::Digest { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        },
    };
    Ok(String::from_utf8(payload).ok().map(|payload| Signature { payload, signature: signature.clone() }))
}
