//! What a signature says: the "simple signing" document.

use oci::Digest;
use serde::Deserialize;
use serde_json::Value;

/// The largest payload that is read.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// What cosign signs with keys.
const TYPE: &str = "cosign container image signature";

/// A payload that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The manifest or index that is signed.
    pub digest: Digest,
    /// The name under which it is signed: a repository, or one of its tags.
    pub identity: String,
}

/// Why a payload says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// More than a payload has.
    #[error("the signature's payload is larger than {PAYLOAD_BYTES_MAX} bytes")]
    TooLarge,
    /// Not JSON of its kind.
    #[error("the signature's payload is malformed: {0}")]
    Malformed(String),
    /// A statement of another kind.
    #[error("the signature's payload is of type {0:?}")]
    Type(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    critical: Critical,
    #[serde(default)]
    #[allow(dead_code, reason = "it is there, and means nothing")]
    optional: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

impl Payload {
    /// Reads a payload. What is critical must be known to the last member, as the format demands.
    pub fn parse(bytes: &[u8]) -> Result<Payload, PayloadError> {
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(PayloadError::TooLarge);
        }
        let malformed = |what: String| PayloadError::Malformed(what);
        let document: Document = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        let Critical { identity, image, r#type } = document.critical;
        if r#type != TYPE {
            return Err(PayloadError::Type(r#type));
        }
        let digest = Digest::parse(&image.docker_manifest_digest).map_err(|error| malformed(error.to_string()))?;
        Ok(Payload { digest, identity: identity.docker_reference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(digest: &str, more: &str, kind: &str) -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"r/x"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"{more}}},"optional":{{"a":1}}}}"#
        )
    }

    #[test]
    fn only_what_is_known_to_the_last_member_counts() {
        let digest = Digest::of(b"x");
        let read = |text: &str| Payload::parse(text.as_bytes());
        let good = document(&digest.to_string(), "", TYPE);
        assert_eq!(read(&good), Ok(Payload { digest, identity: "r/x".to_owned() }));
        assert!(matches!(read(&document("sha256:../x", "", TYPE)), Err(PayloadError::Malformed(_))));
        assert!(matches!(read(&document(&digest.to_string(), ",\"new\":1", TYPE)), Err(PayloadError::Malformed(_))));
        assert!(matches!(read(&document(&digest.to_string(), "", "atomic")), Err(PayloadError::Type(_))));
        assert!(matches!(read("[]"), Err(PayloadError::Malformed(_))));
        assert!(matches!(read("{}"), Err(PayloadError::Malformed(_))));
        assert_eq!(read(&" ".repeat(PAYLOAD_BYTES_MAX + 1)), Err(PayloadError::TooLarge));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Payload::parse(&bytes);
        }
    }
}
