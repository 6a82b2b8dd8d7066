//! Containers, volumes, networks, images and events: what Conex knows and does, without HTTP.
//!
//! [`Engine`] is the front door: cheap to clone, async, in the types of [`model`]. Faces (Docker's API, later CRI) map their own
//! types onto it.
//!
//! ```text
//! Engine ─▶ index ─▶ handle ─▶ view (published; readers take it without waiting)
//!                       │
//!                       └────▶ actor (one task per container) ─▶ life (pure) ─▶ monitor, network, layers, database
//! ```
//!
//! What must not be known here: HTTP, Docker's JSON, exit codes. The runtime is not linked either: every container is owned by a
//! monitor process, which this crate starts and talks to.

mod apparmor;
mod builds;
mod caller;
mod cdi;
mod containers;
mod engine;
mod events;
mod execs;
mod filters;
mod host;
mod image_uses;
mod images;
mod logs;
mod memory;
pub mod model;
mod moment;
mod monitors;
mod networks;
mod options;
mod policy;
mod quota;
mod registries;
mod rootfs;
mod runtimes;
mod settings;
mod space;
mod spec;
mod store;
mod system;
mod userns;
mod verification;
mod volumes;

pub use ::images::{AbsentLayers, ManifestKind, Origin, Pinning, Source};
pub use builds::{
    BuildControl, BuildOutline, BuildOutput, BuildResult, BuildStream, BuiltFiles, BuiltTree, TreeOptions,
    shared_folder, write_trees,
};
pub use caller::{Caller, as_caller};
pub use containers::{PendingAttach, Waiter};
pub use engine::{Engine, OpenError};
pub use events::EventStream;
pub use execs::PendingExec;
pub use images::{ByteStream, InputStream, ProgressStream};
pub use logs::LogStream;
pub use network::{AddressPool, PortCaller, PublishPolicy, Reached};
pub use networks::PortView;
pub use options::{ContainerDefaults, EngineOptions, NetworkOptions, RegistryOptions, Settings, StorageBackend};
pub use registry::{Credentials, Found, Insecure, Mirror};
pub use runtimes::RuntimeOptions;
pub use space::{SpaceOptions, StorageBudget};
pub use spec::{MASKED_PATHS, READONLY_PATHS};
pub use verification::{CheckStream, ImageRepair, Logins};

/// A random name of so many bytes, as lower-case hexadecimal digits.
pub(crate) fn random_name<const LENGTH: usize>() -> String {
    random_bytes::<LENGTH>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Random bytes for ids and names.
pub(crate) fn random_bytes<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let mut filled = 0;
    while filled < LENGTH {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => unreachable!("the kernel gives random bytes: {error}"),
        }
    }
    bytes
}
