//! Where an image came from, and what was found there that speaks for it.

use jiff::Timestamp;
use oci::Digest;
use oci::image::Manifest;
use serde::{Deserialize, Serialize};

use crate::disk::rfc3339;

/// Origins of one image that are remembered; the newest stay.
const ORIGINS_MAX: usize = 8;

/// How an image came here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Source {
    /// It was pulled.
    Registry {
        /// The name that was asked for, in full.
        reference: String,
        /// What that name meant: an index or a manifest.
        digest: Digest,
        /// The manifest of this image: the same, or one that the index names.
        manifest: Digest,
        /// The server that gave it: the registry itself or a mirror.
        server: String,
    },
    /// It was loaded from an archive, or copied from another engine.
    Archive,
    /// It was imported from a tar of files.
    Import,
    /// It was built or committed here.
    Build,
}

/// One way in which an image came here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// From where.
    pub source: Source,
    /// When.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// Signatures that were found with it. Who trusts them is decided when the image is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Signature>,
}

/// A signature as it was found: proven by nobody yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// What was signed: a document about a digest.
    pub payload: String,
    /// The signature in base64.
    pub signature: String,
}

/// An index as a registry had it, with those of its manifests that say something about the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledIndex {
    /// What it is.
    pub media_type: String,
    /// The document.
    pub document: String,
    /// Manifests of attestations about the image. The blobs that they name are kept by the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attestations: Vec<crate::PulledManifest>,
    /// Further images that it names and that are here: they stay as long as this one does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<crate::ImageId>,
}

impl PulledIndex {
    /// An index of which nothing else is here.
    pub fn new(media_type: String, document: String) -> PulledIndex {
        PulledIndex { media_type, document, attestations: Vec::new(), images: Vec::new() }
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        Digest::of(self.document.as_bytes())
    }

    /// The blobs that its attestations name.
    pub fn blobs(&self) -> Vec<Digest> {
        let manifests = self.attestations.iter().filter_map(crate::PulledManifest::parse);
        manifests
            .flat_map(|manifest| {
                let layers = manifest.layers.into_iter().map(|layer| layer.digest);
                std::iter::once(manifest.config.digest).chain(layers).collect::<Vec<_>>()
            })
            .collect()
    }
}

impl crate::PulledManifest {
    /// Its digest.
    pub fn digest(&self) -> Digest {
        Digest::of(self.document.as_bytes())
    }

    /// The document, parsed; nothing where it is none.
    pub fn parse(&self) -> Option<Manifest> {
        crate::json::object(self.document.as_bytes()).ok()
    }
}

/// What a pull knows about an image besides its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulled {
    /// The image's manifest.
    pub manifest: crate::PulledManifest,
    /// The index that led to it.
    pub index: Option<PulledIndex>,
    /// The blobs of the index's attestations.
    pub blobs: Vec<Vec<u8>>,
    /// From where.
    pub origin: Origin,
}

/// The newest first, each source once, not too many.
pub(crate) fn with_origin(mut origins: Vec<Origin>, mut origin: Origin) -> Vec<Origin> {
    if let Some(at) = origins.iter().position(|known| known.source == origin.source) {
        let known = origins.remove(at);
        if origin.signatures.is_empty() {
            origin.signatures = known.signatures;
        }
    }
    origins.insert(0, origin);
    origins.truncate(ORIGINS_MAX);
    origins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(name: &str, second: i64) -> Origin {
        let digest = Digest::of(name.as_bytes());
        let (reference, server) = (name.to_owned(), "s".to_owned());
        Origin {
            source: Source::Registry { reference, digest, manifest: digest, server },
            time: Timestamp::from_second(second).unwrap(),
            signatures: Vec::new(),
        }
    }

    #[test]
    fn each_origin_is_kept_once_with_its_signatures() {
        let signed =
            Origin { signatures: vec![Signature { payload: "p".into(), signature: "s".into() }], ..origin("a", 1) };
        let origins = with_origin(with_origin(vec![signed.clone()], origin("b", 2)), origin("a", 3));
        assert_eq!(origins, [Origin { signatures: signed.signatures, ..origin("a", 3) }, origin("b", 2)]);
        let many = (0..20).fold(Vec::new(), |all, at| with_origin(all, origin(&at.to_string(), at)));
        assert_eq!((many.len(), &many[0]), (ORIGINS_MAX, &origin("19", 19)));
    }

    #[test]
    fn an_index_names_the_blobs_of_its_attestations() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let document = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{}","size":1}},"layers":[{{"mediaType":"l","digest":"{}","size":1}}]}}"#,
            digest("c"),
            digest("l")
        );
        let manifest = |document: &str| crate::PulledManifest { media_type: "m".into(), document: document.into() };
        let attestations = vec![manifest(&document), manifest("[]")];
        let index = PulledIndex { attestations, ..PulledIndex::new("i".into(), "{}".into()) };
        assert_eq!(index.blobs(), [digest("c"), digest("l")]);
    }
}
