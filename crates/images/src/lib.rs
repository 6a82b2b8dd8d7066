//! The image store: references, manifests, configurations, load, save, import, garbage collection.
//!
//! An image is a configuration (a JSON document, kept byte for byte; its SHA-256 is the image's id) and a list of layers,
//! which the [`snapshots::Snapshotter`] keeps. This crate owns three things below the engine's root:
//!
//! ```text
//! <root>/
//!   blobs/sha256/<hex>         a configuration or part of an attestation, exactly as it came; named by its digest
//!   images/sha256/<hex>.json   what Conex adds to it: whence and when it came, its parent, the sizes of its layers
//!   images/references.json     which name means which image, since when, and whether it is pinned
//!   images/blobs/<hex>.json    which blobs of registries a layer came from or went to
//! ```
//!
//! They are written in that order, each synced before the next, and removed in the opposite order. So a crash leaves at
//! worst a layer or a configuration that nothing names, which the next start removes, or an image without a name, which
//! the user sees. What the disk has lost is reported ([`ImageStore::problems`]) and never used; loading it again heals it.
//!
//! Readers take an immutable [`Catalogue`] and never wait; one lock orders writers. Everything blocks; the engine calls it
//! from blocking threads. What must not be known here: containers (but for [`ImageUsers`]), HTTP, how layers are kept.

mod blobs;
mod builtin;
mod bundle;
mod catalogue;
mod change;
mod child;
mod collect;
mod create;
mod disk;
mod elf;
mod error;
mod filter;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod history;
mod id;
mod image;
mod import;
mod json;
mod layer;
mod load;
mod manifests;
mod origin;
mod path_match;
mod prune;
mod remove;
mod save;
mod store;
#[cfg(test)]
mod testing;
mod time;
mod usage;
mod uses;
mod verify;

pub use blobs::LayerBlob;
pub use builtin::HELLO;
pub use bundle::{Bundle, Member, Predicate, bundle, package_url, predicates, statement_about};
pub use catalogue::{Catalogue, Damage, ResolveError};
pub use change::{Change, ChangeError, Command, HealthcheckChange, HealthcheckOptions, is_signal};
pub use child::{Step, child};
pub use collect::{CachedLayer, Collection, CollectionRequest, plan_collection};
pub use create::{CreateError, NewImage};
pub use disk::PulledManifest;
pub use error::ErrorKind;
pub use filter::{LabelFilter, ListError, ListFilters};
pub use history::{HistoryEntry, HistoryError};
pub use id::ImageId;
pub use image::{Image, Intermediate, ListedImage};
pub use import::{ImportError, ImportRequest};
pub use layer::{AddedLayer, LayerError};
pub use load::platform::{PlatformError, best_platform, is_platform, parse_platform, platform_name};
pub use load::{AbsentLayers, LayoutError, LoadError, LoadEvent, LoadRequest, Loaded};
pub use manifests::{ManifestEntry, ManifestKind, attested};
pub use origin::{Origin, Pulled, PulledIndex, Signature, Source};
pub use prune::{Dangling, PruneFilters, Pruned};
pub use remove::{
    Conflict, ContainerUse, Force, ImageUsers, ParentImages, Removal, RemoveError, RemoveRequest, Running,
};
pub use save::SaveError;
pub use store::{ImageStore, Lease, OpenError, StoreError, TagError};
pub use usage::{ImageUsage, Usage};
pub use uses::{Pin, PinError, Pinning, UseRecord};
pub use verify::{Repair, Verdict, Verified, VerifySubject};
