//! What readers see of containers and execs: immutable, published whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use jiff::Timestamp;
use network::InRow;
use oci::{ContainerId, Digest};

use super::{ContainerName, ContainerSpec, EndpointSpec, ExecSpec, PortTable, Propagation, RunEnd};

/// Everything about one container at one moment.
#[derive(Debug, Clone)]
pub struct ContainerView {
    /// Its id.
    pub id: ContainerId,
    /// Its name, without a slash.
    pub name: ContainerName,
    /// When it was created.
    pub created: Timestamp,
    /// What it is, with the image's defaults and the engine's normalisations.
    pub spec: Arc<ContainerSpec>,
    /// The image's id.
    pub image_id: Digest,
    /// The program that starts: the first word of entrypoint and command.
    pub path: String,
    /// The rest of entrypoint and command.
    pub args: Vec<String>,
    /// How it is.
    pub state: ContainerState,
    /// How often the restart policy started it again.
    pub restart_count: u32,
    /// How its last run ended.
    pub end: Option<RunEnd>,
    /// Its mounts beyond the defaults.
    pub mounts: Vec<MountPoint>,
    /// Its networks.
    pub networks: ContainerNetworks,
    /// Running execs.
    pub exec_ids: Vec<String>,
    /// Host paths of the files made for it.
    pub files: ContainerFiles,
    /// Layer directories (lower, upper, work, merged) for `GraphDriver.Data`.
    pub graph: GraphPaths,
    /// The runtime's name: `conex` unless another was asked for.
    pub runtime: String,
    /// `linux`
    pub platform: String,
    /// Whether its namespaces of cgroup are private, as decided at create.
    pub cgroupns: &'static str,
    /// Whether a profile of AppArmor confines those that ask for none.
    pub apparmor_default: bool,
}

impl ContainerView {
    /// The AppArmor profile that confines it; empty where there is none.
    pub fn apparmor_profile(&self) -> &str {
        crate::apparmor::profile_of(&self.spec, self.apparmor_default)
    }
}

/// A container's state, as Docker's `State`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerState {
    /// The one word.
    pub status: Status,
    /// The first process on the host; 0 when it does not run.
    pub pid: i32,
    /// The last exit's code.
    pub exit_code: i32,
    /// Why the last start failed, or what went wrong since.
    pub error: String,
    /// Whether the kernel's OOM killer ended it.
    pub oom_killed: bool,
    /// The last start; none before the first.
    pub started_at: Option<Timestamp>,
    /// The last exit; none before the first.
    pub finished_at: Option<Timestamp>,
    /// Only with a healthcheck.
    pub health: Option<Health>,
}

impl ContainerState {
    /// `State.Running`: also true while paused, as in Docker.
    pub fn is_running(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused | Status::Restarting)
    }
}

/// `State.Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Never started.
    Created,
    /// Runs.
    Running,
    /// Frozen.
    Paused,
    /// Between an exit and the restart policy's next start.
    Restarting,
    /// Is being removed.
    Removing,
    /// Ended.
    Exited,
    /// Could not be removed whole.
    Dead,
}

impl Status {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Reads Docker's word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Created, Self::Running, Self::Paused, Self::Restarting, Self::Removing, Self::Exited, Self::Dead]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// `State.Health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What the probes say.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five probes, oldest first.
    pub log: Vec<HealthProbe>,
}

/// What the probes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthStatus {
    /// Too early to say.
    Starting,
    /// The last probe succeeded.
    Healthy,
    /// Too many failures in a row.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One probe's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthProbe {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0 is success.
    pub exit_code: i32,
    /// The first 4 KiB of what it printed.
    pub output: String,
}

/// One entry of inspect's `Mounts`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs` or `image`.
    pub kind: MountPointKind,
    /// The volume's name.
    pub name: Option<String>,
    /// The host's path, or the image's name; empty for tmpfs.
    pub source: String,
    /// The container's path.
    pub target: String,
    /// The volume's driver.
    pub driver: Option<String>,
    /// The mode part of a `-v`; for anonymous volumes empty.
    pub mode: String,
    /// Whether the container may write.
    pub writable: bool,
    /// Propagation; empty for volumes.
    pub propagation: String,
    /// Whether the engine made the volume for this container (removed with `-v` and `--rm`).
    pub anonymous: bool,
}

/// The kinds of [`MountPoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum MountPointKind {
    /// A path of the host.
    Bind,
    /// A volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// An image's files.
    Image,
}

impl MountPointKind {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
            Self::Image => "image",
        }
    }
}

impl MountPoint {
    /// `Propagation` as inspect shows it.
    pub fn propagation_of(propagation: Option<Propagation>) -> &'static str {
        propagation.map_or("rprivate", Propagation::as_str)
    }
}

/// `NetworkSettings`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerNetworks {
    /// The sandbox's id; empty when it does not run.
    pub sandbox_id: String,
    /// The file of the network namespace; empty when it does not run.
    pub sandbox_key: String,
    /// By network name (`bridge`, `none`, `host`).
    pub endpoints: BTreeMap<String, EndpointView>,
    /// Published ports, while it runs.
    pub ports: PortTable<HostPort>,
}

/// A port of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort {
    /// The host's address; unspecified is every one of its family.
    pub address: IpAddr,
    /// The port.
    pub number: u16,
}

impl InRow for HostPort {
    fn further(self, offset: u16) -> Self {
        Self { number: self.number.wrapping_add(offset), ..self }
    }
}

/// A container's place on one network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointView {
    /// What was asked for.
    pub requested: EndpointSpec,
    /// The network's id; empty before the first start.
    pub network_id: String,
    /// This endpoint's id; empty when it does not run.
    pub endpoint_id: String,
    /// Its address.
    pub ipv4: Option<Ipv4Addr>,
    /// The prefix length of its subnet.
    pub ipv4_prefix: u8,
    /// The gateway.
    pub gateway: Option<Ipv4Addr>,
    /// An IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// The prefix length of the IPv6 subnet.
    pub ipv6_prefix: u8,
    /// The IPv6 gateway.
    pub ipv6_gateway: Option<Ipv6Addr>,
    /// The interface's address, `02:42:…`.
    pub mac_address: String,
    /// Names under which others find it (user networks).
    pub dns_names: Vec<String>,
}

/// Host paths of the files made for a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerFiles {
    /// `/etc/hostname`
    pub hostname: String,
    /// `/etc/hosts`
    pub hosts: String,
    /// `/etc/resolv.conf`
    pub resolv_conf: String,
    /// The log; empty where the driver keeps none.
    pub log: String,
}

/// Where the layers are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GraphPaths {
    /// The storage driver's name.
    pub driver: String,
    /// The writable layer.
    pub upper: String,
    /// Overlay's work directory.
    pub work: String,
}

/// `SizeRw` and `SizeRootFs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerSizes {
    /// Bytes written by the container.
    pub rw_bytes: u64,
    /// Those and the image's.
    pub rootfs_bytes: u64,
}

/// One exec.
#[derive(Debug, Clone)]
pub struct ExecView {
    /// Its id, 64 hex digits.
    pub id: String,
    /// The container.
    pub container: ContainerId,
    /// What was asked for.
    pub spec: Arc<ExecSpec>,
    /// Its command's program.
    pub entrypoint: String,
    /// Its command's arguments.
    pub arguments: Vec<String>,
    /// How it is.
    pub state: ExecState,
}

/// How an exec is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecState {
    /// Created and not started.
    Created,
    /// Runs, as this process of the host (0 while it starts).
    Running {
        /// The process's id on the host.
        pid: i32,
    },
    /// Ended.
    Exited {
        /// The exit code.
        code: i32,
        /// The process's id on the host, while it ran.
        pid: i32,
    },
}

/// One process of `top`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessTable {
    /// The columns' names.
    pub titles: Vec<String>,
    /// One row per process.
    pub processes: Vec<Vec<String>>,
}

/// One entry of `changes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path in the container.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// 0
    Modified,
    /// 1
    Added,
    /// 2
    Deleted,
}

/// What a prune removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneReport {
    /// Ids or names.
    pub deleted: Vec<String>,
    /// Bytes that are free again.
    pub reclaimed_bytes: u64,
}
