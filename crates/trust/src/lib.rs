//! Which images may come and run: a policy, keys, and signatures over digests; pure.
//!
//! ```text
//! policy file ─▶ Policy ─▶ the requirements of a scope ─▶ judge(origin, signatures) ─▶ why it is admitted, or why not
//!                                                            │
//!                                       payload (simple signing) ─▶ PublicKey::verify ─▶ digest and identity compared
//! ```
//!
//! The format is that of containers-policy.json(5), read strictly: an unknown or repeated member refuses the whole file, and what
//! exists there and is not built here is refused by name. Signatures are those of cosign with keys: a payload that names a digest,
//! signed by ECDSA P-256 or P-384, Ed25519 or RSA. A tag proves nothing: what is compared is the digest that was pulled.
//!
//! What must not be known here: registries, files beyond the policy and its keys, images as they are kept.

mod der;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod identity;
mod key;
mod payload;
mod policy;
mod strict;
mod verdict;

pub use identity::SignedIdentity;
pub use key::{KeyError, PublicKey};
pub use payload::{PAYLOAD_BYTES_MAX, Payload, PayloadError};
pub use policy::{Policy, PolicyError, Requirement, Rule, Transport};
pub use verdict::{Admitted, Origin, Refused, Signed};
