//! The engine and its host.

use std::path::PathBuf;

use super::{ContainerSizes, ContainerView, ImageSummary, VolumeUsage};
use std::sync::Arc;

/// What `info` and `version` are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemInfo {
    /// A stable id of this engine's root.
    pub id: String,
    /// The engine's name (`--name`).
    pub engine_name: String,
    /// The host's name.
    pub hostname: String,
    /// Conex's version.
    pub version: String,
    /// `6.18.0`
    pub kernel_version: String,
    /// `Debian GNU/Linux 12 (bookworm)`
    pub operating_system: String,
    /// `12`
    pub os_version: String,
    /// `x86_64`
    pub architecture: String,
    /// CPUs online.
    pub cpus: usize,
    /// The host's memory.
    pub memory_bytes: u64,
    /// `--root`
    pub root: PathBuf,
    /// The storage driver's name: `erofs`, `erofs-loop` or `directories`.
    pub storage_driver: String,
    /// Key and value lines about the storage driver.
    pub storage_status: Vec<(String, String)>,
    /// `cgroupfs`
    pub cgroup_driver: String,
    /// `1` or `2`
    pub cgroup_version: String,
    /// Which limits this host can set.
    pub limits: LimitSupport,
    /// Docker's strings: `name=seccomp,profile=builtin`, …
    pub security_options: Vec<String>,
    /// Names of runtimes: `conex` and those that were configured.
    pub runtimes: Vec<RuntimeView>,
    /// The one that is used unless another is asked for.
    pub default_runtime: String,
    /// Containers that run.
    pub running: usize,
    /// Containers that are paused.
    pub paused: usize,
    /// Containers that do not run.
    pub stopped: usize,
    /// Images.
    pub images: usize,
    /// Listeners on the event bus.
    pub event_listeners: usize,
    /// Whether IPv4 forwarding is on.
    pub ipv4_forwarding: bool,
    /// What this host cannot do, in sentences.
    pub warnings: Vec<String>,
    /// What was probed, for `conex info`.
    pub features: Vec<HostFeature>,
    /// Proxies from the daemon's environment: http, https, no.
    pub proxies: [String; 3],
    /// Open file descriptors of the daemon.
    pub file_descriptors: usize,
    /// Tasks of the daemon.
    pub tasks: usize,
    /// How registries are reached.
    pub registries: RegistriesView,
    /// What the engine is labelled with.
    pub labels: Vec<String>,
    /// Where output goes that is to go nowhere in particular.
    pub log_driver: String,
    /// Folders of descriptions of devices, least important first.
    pub cdi_spec_dirs: Vec<std::path::PathBuf>,
}

/// How registries are reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistriesView {
    /// Networks whose registries need not prove who they are, besides this machine's own.
    pub insecure_networks: Vec<String>,
    /// The same for single registries, `host[:port]`.
    pub insecure_hosts: Vec<String>,
    /// Mirrors, by the registries that they are asked before, in the order in which they are asked.
    pub mirrors: Vec<(String, String)>,
}

/// Which limits this host can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitSupport {
    /// `MemoryLimit`
    pub memory: bool,
    /// `SwapLimit`
    pub swap: bool,
    /// `CpuCfsPeriod` and `CpuCfsQuota`
    pub cpu_quota: bool,
    /// `CPUShares`
    pub cpu_shares: bool,
    /// `CPUSet`
    pub cpuset: bool,
    /// `PidsLimit`
    pub pids: bool,
    /// `OomKillDisable`
    pub oom_kill_disable: bool,
    /// `KernelMemoryTCP`
    pub kernel_memory_tcp: bool,
    /// blkio weights
    pub blkio_weight: bool,
}

/// A runtime by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeView {
    /// `conex`, `runc`
    pub name: String,
    /// Its executable.
    pub path: PathBuf,
}

/// One thing that was probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFeature {
    /// What, in a few words.
    pub name: String,
    /// Whether the host can.
    pub available: bool,
    /// How or why not.
    pub detail: String,
}

/// What uses the disk.
#[derive(Debug, Clone)]
pub struct DiskUsage {
    /// Bytes of all layers.
    pub layers_bytes: u64,
    /// Bytes of the layers that no container needs.
    pub reclaimable_layers_bytes: u64,
    /// Images.
    pub images: Vec<ImageSummary>,
    /// Containers with their sizes.
    pub containers: Vec<(Arc<ContainerView>, ContainerSizes)>,
    /// Volumes with their sizes.
    pub volumes: Vec<VolumeUsage>,
    /// How the storage budget is kept, where there is one.
    pub budget: Option<StorageState>,
}

/// How a storage budget is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageState {
    /// As it was given.
    pub budget: String,
    /// What it comes to.
    pub limit_bytes: u64,
    /// What is used of that.
    pub used_bytes: u64,
    /// What is used beyond it and may not go.
    pub excess_bytes: u64,
    /// Why it may not go.
    pub kept: String,
}
