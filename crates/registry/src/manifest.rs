//! Manifests and indexes, taken with suspicion.

use oci::Digest;
use oci::image::{Index, Manifest, media_type};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The largest manifest or index that is read, as OCI has it.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// What is asked for, best first. Old kinds are named too, so that a registry gives them rather than a conversion or nothing, and
/// the user hears what is wrong.
pub(crate) const ACCEPTED: &[&str] = &[
    media_type::OCI_INDEX,
    media_type::DOCKER_MANIFEST_LIST,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_MANIFEST,
    SCHEMA_1_SIGNED,
    SCHEMA_1,
];
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const SCHEMA_1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// A manifest or index as it came: bytes that are what their digest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The digest of the bytes.
    pub digest: Digest,
    /// What the registry says that they are; may be empty.
    pub media_type: String,
    /// The document.
    pub bytes: Vec<u8>,
}

/// What a document is.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and not for long")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Several manifests.
    Index(Index),
    /// One image or artifact.
    Manifest(Manifest),
}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not JSON of its kind.
    #[error("invalid manifest")]
    Json(#[from] serde_json::Error),
    /// Docker's first manifests, which prove nothing about their content.
    #[error(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported: the image must be pushed again by a newer client"
    )]
    Schema1,
    /// It could be read as two different things.
    #[error("ambiguous manifest: it has both \"{0}\" and \"{1}\"")]
    Ambiguous(&'static str, &'static str),
    /// It says that it is something else than the registry says.
    #[error("the manifest's mediaType is {inside:?}, but the registry says {outside:?}")]
    Contradiction {
        /// What stands in it.
        inside: String,
        /// What the registry says.
        outside: String,
    },
    /// Something unknown.
    #[error("unsupported manifest media type {0:?}")]
    MediaType(String),
}

impl Fetched {
    /// Reads the document.
    pub fn document(&self) -> Result<Document, DocumentError> {
        parse(&self.media_type, &self.bytes)
    }
}

fn parse(outside: &str, bytes: &[u8]) -> Result<Document, DocumentError> {
    // As a map first: serde takes a list for a structure, and a document that is a list is somebody's trick.
    let members: Map<String, Value> = serde_json::from_slice(bytes)?;
    let inside = members.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    let is_known = |kind: &str| media_type::is_index(kind) || media_type::is_manifest(kind);
    if matches!(outside, SCHEMA_1 | SCHEMA_1_SIGNED) || members.get("schemaVersion").and_then(Value::as_u64) == Some(1)
    {
        return Err(DocumentError::Schema1);
    }
    if is_known(outside) && !inside.is_empty() && inside != outside {
        return Err(DocumentError::Contradiction { inside: inside.to_owned(), outside: outside.to_owned() });
    }
    for (one, other) in
        [("layers", "manifests"), ("config", "manifests"), ("fsLayers", "layers"), ("fsLayers", "manifests")]
    {
        if members.contains_key(one) && members.contains_key(other) {
            return Err(DocumentError::Ambiguous(one, other));
        }
    }
    let kind = if is_known(outside) { outside } else { inside };
    if media_type::is_index(kind) || kind.is_empty() && members.contains_key("manifests") {
        Ok(Document::Index(read(members)?))
    } else if media_type::is_manifest(kind) || kind.is_empty() && members.contains_key("layers") {
        Ok(Document::Manifest(read(members)?))
    } else {
        Err(DocumentError::MediaType(if kind.is_empty() { outside } else { kind }.to_owned()))
    }
}

fn read<T: DeserializeOwned>(members: Map<String, Value>) -> Result<T, serde_json::Error> {
    serde_json::from_value(Value::Object(members))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(outside: &str, document: &str, expected: &str) {
        let document = document.replace("DIGEST", DIGEST);
        let shown = match parse(outside, document.as_bytes()) {
            Ok(Document::Index(index)) => format!("index of {}", index.manifests.len()),
            Ok(Document::Manifest(manifest)) => format!("manifest of {}", manifest.layers.len()),
            Err(error) => error.to_string(),
        };
        assert!(shown.starts_with(expected), "{document}: {shown}");
    }

    #[test]
    fn documents_are_what_they_say() {
        let manifest = r#"{"schemaVersion":2,"config":{"mediaType":"a","digest":"DIGEST","size":1},"layers":[]}"#;
        check(media_type::OCI_MANIFEST, manifest, "manifest of 0");
        check("", manifest, "manifest of 0");
        check("text/plain; charset=utf-8", manifest, "manifest of 0");
        let index = r#"{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"DIGEST","size":1}]}"#;
        check(media_type::OCI_INDEX, index, "index of 1");
        check("", index, "index of 1");
        check(media_type::OCI_MANIFEST, index, "invalid manifest");
    }

    #[test]
    fn tricks_are_refused() {
        check("", r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#, "ambiguous manifest");
        check(
            media_type::OCI_MANIFEST,
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
            "the manifest's mediaType is",
        );
        check(SCHEMA_1_SIGNED, "{}", "Docker Image Format v1");
        check("", r#"{"schemaVersion":1,"fsLayers":[]}"#, "Docker Image Format v1");
        check(
            "",
            r#"{"schemaVersion":2,"mediaType":"application/x"}"#,
            "unsupported manifest media type \"application/x\"",
        );
        check("", "[]", "invalid manifest");
        check(
            "",
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"sha256:../../x","size":1}]}"#,
            "invalid manifest",
        );
        check(
            "",
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"DIGEST","size":-1}]}"#,
            "invalid manifest",
        );
    }

    proptest! {
        #[test]
        fn no_document_makes_it_panic(outside in ".{0,40}", document in "[\\[\\]{}\":,a-z0-9]{0,100}") {
            let _ = parse(&outside, document.as_bytes());
        }
    }
}
