//! Containers, volumes, networks, images and events: what Conex knows and does, without HTTP.
//!
//! [`Engine`] is the front door: cheap to clone, async, in the types of [`model`]. Faces (Docker's API, later CRI) map their own
//! types onto it.
//!
//! What must not be known here: HTTP, Docker's JSON, exit codes. The runtime is not linked either: every container is owned by a
//! monitor process, which this crate starts and talks to.

mod containers;
mod store;
mod spec;
mod engine;
mod events;
mod execs;
mod images;
pub mod model;
mod moment;
mod networks;
mod options;
mod system;
mod volumes;

pub use containers::{LogStream, PendingAttach, Waiter};
pub use engine::{Engine, OpenError};
pub use events::EventStream;
pub use execs::PendingExec;
pub use images::{ByteStream, ProgressStream};
pub use options::{EngineOptions, NetworkOptions, StorageBackend};
