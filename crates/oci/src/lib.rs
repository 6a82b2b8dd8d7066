//! Data types of the OCI runtime and image specifications, digests, image references and identifiers.
//!
//! Everything here is a value: parsing and printing, no files and no system calls. What is parsed once is not checked again
//! downstream: a [`Digest`] is 32 bytes, a [`Reference`] is normalised as Docker normalises it, a [`ContainerId`] is safe as a
//! file name.

mod digest;
mod id;
pub mod image;
mod json;
mod reference;
pub mod runtime;

pub use digest::{DiffId, Digest, DigestError, Digester};
pub use id::{ContainerId, IdError};
pub use reference::{Reference, ReferenceError};
