//! The name of an image: the digest of its configuration.

use std::fmt;
use std::str::FromStr;

use oci::Digest;
use serde::{Deserialize, Serialize};

/// The SHA-256 of an image's configuration, which is what `docker images` shows as IMAGE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(Digest);

impl ImageId {
    /// Names the image with this configuration digest.
    pub fn new(digest: Digest) -> ImageId {
        ImageId(digest)
    }

    /// The id of the image whose configuration is exactly these bytes.
    pub fn of_config(config: &[u8]) -> ImageId {
        ImageId(Digest::of(config))
    }

    /// The digest.
    pub fn digest(&self) -> &Digest {
        &self.0
    }

    /// The 64 hexadecimal digits, without `sha256:`.
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    /// The first twelve hexadecimal digits.
    pub fn short(&self) -> String {
        self.0.short()
    }

    /// Says whether `text` abbreviates this id, with or without the algorithm.
    pub(crate) fn has_prefix(&self, text: &str) -> bool {
        let whole = self.to_string();
        whole.starts_with(text) || whole["sha256:".len()..].starts_with(text)
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for ImageId {
    type Err = <Digest as FromStr>::Err;

    fn from_str(text: &str) -> Result<ImageId, Self::Err> {
        text.parse().map(ImageId)
    }
}
