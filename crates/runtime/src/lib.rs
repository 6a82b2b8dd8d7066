//! The OCI runtime: namespaces, mounts, root file system, capabilities, init, exec, hooks and state.
//!
//! [`create_and_start`] is the hot path: from a single-threaded caller one `clone3` makes the container's first process with all
//! namespaces. That process is a copy of the caller and needs nothing parsed or sent: it makes its mounts detached, attaches them to
//! places that descriptors hold, changes the root, drops what it may not keep and runs the program. A socket between the two carries
//! questions that only the creator can answer, and the error where there is one; its end tells that the program runs.
//!
//! | file | what is in it |
//! |---|---|
//! | `request.rs`, `container.rs`, `exec.rs` | what callers ask for and get |
//! | `creator.rs`, `init.rs` | both sides of a container's creation |
//! | `finish.rs` | the last steps of every process: user, capabilities, filter, program |
//! | `root.rs` | opening things inside a container's root: the only way to |
//! | `procfs.rs` | a procfs that nothing in a container can cover |
//! | `rootfs.rs`, `mounts.rs`, `mount_options.rs`, `cgroup_mount.rs`, `copy_up.rs`, `masked.rs`, `devices.rs` | its tree |
//! | `namespaces.rs`, `id_maps.rs`, `users.rs`, `properties.rs`, `sysctl.rs`, `labels.rs`, … | one part of the configuration each |
//! | `state.rs`, `checkpoint.rs` | containers of the command line on disk, and in CRIU's images |
//!
//! What this crate must not do: start threads, log, print, or resolve a path of a container otherwise than through `root.rs`.

mod capability_names;
mod cgroup_mount;
mod channel;
mod checkpoint;
mod container;
mod copy_up;
mod creator;
mod devices;
mod error;
mod exec;
mod features;
mod finish;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod hooks;
mod id_maps;
mod init;
mod intel_rdt;
mod labels;
mod masked;
mod mount_options;
mod mounts;
mod namespaces;
mod net_devices;
mod procfs;
mod properties;
mod request;
mod root;
mod rootfs;
mod seccomp_notify;
mod self_protection;
mod state;
mod sysctl;
mod users;

pub use capability_names::{capability_names, capability_number};
pub use checkpoint::{CriuOptions, RestoreRequest, checkpoint, restore};
pub use container::{Created, Running, create, create_and_start, create_with_listener};
pub use error::{Error, Kind, Result, Stage, errno_text};
pub use exec::{Executed, exec};
pub use features::features;
pub use finish::resolve_user;
pub use intel_rdt::has_resctrl;
pub use labels::{has_apparmor, has_selinux};
pub use mount_options::mount_option_names;
pub use request::{
    CgroupAccess, CgroupManager, CreateRequest, ExecRequest, Identity, Keyring, Pivot, Rootfs, SeccompFilter, Stdio,
};
pub use rootfs::{mapped_bind, mapped_overlay};
pub use self_protection::protect_self;
pub use state::{Saved, StateDirectory};
