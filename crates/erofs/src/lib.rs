//! A writer of EROFS images: the index of a layer's tar.

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("placeholder")]
pub struct Error {}
