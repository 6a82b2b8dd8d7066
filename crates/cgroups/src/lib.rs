//! cgroup v1, hybrid and v2: creation, limits, statistics, freezer, devices, out-of-memory events.
//!
//! A [`Host`] is found once per process: which hierarchies are mounted where, and where this process is in them. A [`Cgroup`] is one
//! container's directory in each of those hierarchies, held open: every later read and write is relative to an open directory, so
//! nothing walks a path twice and a renamed or replaced mount cannot redirect a write.
//!
//! | file | what is in it |
//! |---|---|
//! | `controller.rs`, `host.rs` | controllers; detection from `/proc/self/mountinfo` and `/proc/self/cgroup` |
//! | `path.rs`, `sub_cgroup.rs` | paths that cannot leave the hierarchy, or a container's cgroup |
//! | `group.rs` | [`Cgroup`]: create, join, save, open, remove |
//! | `limits/` | [`oci::runtime::LinuxResources`] → a plan of writes (pure), and its execution |
//! | `devices/` | device rules: v1's lists, v2's eBPF program (pure), and their execution |
//! | `freezer.rs`, `processes.rs` | freeze, thaw, list, signal, kill |
//! | `stats/`, `oom.rs` | numbers, and the news that memory ran out |
//! | `systemd/` | a transient scope over D-Bus instead of `mkdir` |
//!
//! This crate does not know containers, processes' lives or configuration files; it never creates or waits for a process.

mod controller;
mod devices;
mod directory;
mod freezer;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod host;
mod limits;
mod oom;
mod path;
mod processes;
mod stats;
mod sub_cgroup;
mod systemd;

pub use controller::{Controller, ControllerSet, Version};
pub use devices::{DeviceError, default_rules as default_device_rules};
pub use directory::FileError;
pub use freezer::{FreezeError, FreezerState};
pub use group::{Cgroup, CreateError, Entry, HierarchyPath, OpenError, RemoveError, Saved};
pub use host::{DetectError, Hierarchy, Host, Layout};
pub use limits::{ApplyError, Ignored};
pub use oom::OomWatch;
pub use path::{CgroupPath, PathParseError};
pub use stats::{
    BlockIoEntry, BlockIoStats, CpuStats, HugetlbStats, Interest, MemoryStats, MemoryUse, PidsStats, Pressure,
    PressureLine, RdmaEntry, Stats, StatsReader,
};
pub use sub_cgroup::{JoinError, SubCgroup, SubCgroupError};
pub use systemd::{SystemdError, SystemdUnit};
