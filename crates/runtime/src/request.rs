//! What a caller asks for: a container, or another process in one.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci::runtime::{Process, Spec};

/// A container to create.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// The container's name, which the default cgroup path and the session keyring are named after.
    pub id: &'a str,
    /// The configuration. `spec.root.path` is not looked at: `rootfs` is.
    pub spec: &'a Spec,
    /// The bundle that hooks are told of; relative bind sources are taken from it.
    pub bundle: &'a Path,
    /// What becomes the container's root.
    pub rootfs: Rootfs,
    /// The standard streams of the first process.
    pub stdio: Stdio,
    /// A network namespace to join, in place of what the configuration says.
    pub network_namespace: Option<OwnedFd>,
    /// A user namespace to join, in place of what the configuration says; it must have the configuration's mappings.
    pub user_namespace: Option<OwnedFd>,
    /// A compiled filter, in place of `spec.linux.seccomp`.
    pub seccomp: Option<SeccompFilter>,
    /// How user and groups are found.
    pub identity: Identity,
    /// Who makes the cgroup.
    pub cgroup: CgroupManager,
    /// What happens where a cgroup may not be made.
    pub cgroup_access: CgroupAccess,
    /// The host's cgroup hierarchies where the caller knows them already.
    pub cgroup_host: Option<&'a cgroups::Host>,
    /// How many descriptors from 3 on the process keeps.
    pub preserve_fds: u32,
    /// How the root is changed.
    pub pivot: Pivot,
    /// Whether the container gets a session keyring of its own.
    pub keyring: Keyring,
}

/// A process to run in a container that exists.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The process.
    pub process: &'a Process,
    /// Its standard streams.
    pub stdio: Stdio,
    /// A compiled filter, in place of the container's.
    pub seccomp: Option<SeccompFilter>,
    /// How user and groups are found.
    pub identity: Identity,
    /// How many descriptors from 3 on the process keeps.
    pub preserve_fds: u32,
    /// A cgroup below the container's to join instead; `None` for the container's own.
    pub sub_cgroup: Option<&'a cgroups::SubCgroup>,
    /// Whether the process gets a session keyring of its own.
    pub keyring: Keyring,
}

/// What becomes the root of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rootfs {
    /// A directory; it is bound on itself, with the mounts in it.
    Directory {
        /// Its path on the host.
        path: PathBuf,
    },
    /// An overlay that is made for the container and attached nowhere else.
    ///
    /// In a container with id mappings the layers, the container's own among them, are mounted with these: files keep the owners
    /// on disk that they would have without a user namespace.
    Overlay {
        /// The read-only layers, topmost first.
        lower: Vec<PathBuf>,
        /// Where changes go; `None` (with `work`) for a read-only overlay.
        upper: Option<PathBuf>,
        /// overlayfs' own directory beside `upper`, on the same file system.
        work: Option<PathBuf>,
        /// Further options of overlayfs, as `volatile` or `index=off`.
        options: Vec<String>,
    },
}

/// The standard streams of a process.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// These three.
    Fds([OwnedFd; 3]),
    /// A new pseudo-terminal of the container's devpts, whose master the caller gets back.
    Terminal,
}

/// A seccomp program ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompFilter {
    /// Classic BPF instructions of eight bytes in the machine's byte order.
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`, or'ed.
    pub flags: u64,
}

/// How a process's user and groups are found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Identity {
    /// `process.user` has the numbers, as the specification says.
    #[default]
    Numbers,
    /// `process.user.username` holds Docker's form (`name`, `uid`, `name:group`, …), looked up in the container's own
    /// `/etc/passwd` and `/etc/group`, which give the supplementary groups too. Empty means user and group 0.
    Lookup {
        /// Further groups, by name or number.
        groups: Vec<String>,
    },
}

/// Who makes the container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupManager {
    /// This library, by files.
    #[default]
    Files,
    /// systemd, as a scope.
    Systemd,
    /// Nobody: the process stays in the caller's cgroup.
    None,
}

/// What happens where the caller has no right to make a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupAccess {
    /// Creation fails.
    #[default]
    Required,
    /// The container does without, unless limits are asked for: that of the rootless.
    WherePermitted,
}

/// How the container's root becomes the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pivot {
    /// `pivot_root`.
    #[default]
    PivotRoot,
    /// Moving the mount over `/` and `chroot`: weaker, for hosts that run from an initramfs.
    MoveMount,
}

/// The session keyring of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keyring {
    /// A new one.
    #[default]
    New,
    /// The caller's.
    Inherit,
}
