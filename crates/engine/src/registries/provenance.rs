//! What a registry says about an image besides the image: attestations in its index.

use images::{PulledIndex, PulledManifest, attested};
use oci::Digest;
use oci::image::Index;
use registry::{Document, Fetched, Name, Repository};

use super::failure::Failure;

/// Manifests of attestations about one image that are kept.
const ATTESTATIONS_MAX: usize = 16;
/// The largest statement that is kept, and all of one image.
const STATEMENT_BYTES_MAX: u64 = 16 << 20;
const STATEMENTS_BYTES_MAX: u64 = 32 << 20;

/// An index with what it attests about one of its manifests, and the blobs of that.
#[derive(Debug, Default)]
pub(super) struct Attested {
    pub(super) index: Option<PulledIndex>,
    pub(super) blobs: Vec<Vec<u8>>,
}

/// Fetches the attestations about `manifest` that `index` names. The image is whole without them: what cannot be had, or is too large,
/// is left out.
pub(super) async fn attested_by(repository: &Repository, index: Option<&Fetched>, manifest: &Digest) -> Attested {
    let Some(fetched) = index else { return Attested::default() };
    let Ok(Document::Index(parsed)) = fetched.document() else { return Attested::default() };
    let Ok(document) = String::from_utf8(fetched.bytes.clone()) else { return Attested::default() };
    let mut index = PulledIndex::new(media_type(fetched, &parsed), document);
    let mut blobs = Vec::new();
    let mut left_bytes = STATEMENTS_BYTES_MAX;
    let about = parsed.manifests.iter().filter(|entry| attested(entry) == Some(*manifest)).take(ATTESTATIONS_MAX);
    for entry in about {
        match fetch(repository, &entry.digest, &mut left_bytes).await {
            Ok((manifest, more)) => {
                index.attestations.push(manifest);
                blobs.extend(more);
            }
            Err(error) => tracing::warn!("attestation {} is not kept: {}", entry.digest, crate::model::chain(&error)),
        }
    }
    Attested { index: Some(index), blobs }
}

fn media_type(fetched: &Fetched, index: &Index) -> String {
    if fetched.media_type.is_empty() { index.media_type.clone() } else { fetched.media_type.clone() }
}

/// One attestation: its manifest and every blob that it names.
async fn fetch(
    repository: &Repository,
    digest: &Digest,
    left_bytes: &mut u64,
) -> Result<(PulledManifest, Vec<Vec<u8>>), Failure> {
    let fetched = repository.manifest(Name::Digest(digest)).await?;
    let Document::Manifest(manifest) = fetched.document()? else {
        return Err(Failure::Image("it is an index".to_owned()));
    };
    let mut blobs = Vec::new();
    for named in std::iter::once(&manifest.config).chain(&manifest.layers) {
        if named.size > *left_bytes {
            return Err(Failure::Image(format!("the statements take more than {STATEMENTS_BYTES_MAX} bytes")));
        }
        *left_bytes -= named.size;
        blobs.push(repository.small_blob(&named.digest, named.size, STATEMENT_BYTES_MAX).await?);
    }
    let Fetched { media_type, bytes, .. } = fetched;
    let document = String::from_utf8(bytes).map_err(|_| Failure::Image("it is not UTF-8".to_owned()))?;
    Ok((PulledManifest { media_type, document }, blobs))
}
