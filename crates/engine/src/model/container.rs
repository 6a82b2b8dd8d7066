//! What a container is to be: the create request in parsed form.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{
    Bind, Capability, CgroupnsMode, ContainerName, IpcMode, LogConfig, MountSpec, NetworkMode, PidMode, Port,
    PortBindings, PortSet, Resources, RestartPolicy, SecurityOption, Signal, UsernsMode, UtsMode, VolumesFrom,
};

/// A request to create a container.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// The name that was asked for; invented when none.
    pub name: Option<ContainerName>,
    /// `platform`, such as `linux/amd64`.
    pub platform: Option<String>,
    /// What it is to be.
    pub spec: ContainerSpec,
}

/// What `create` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedContainer {
    /// Its id.
    pub id: oci::ContainerId,
    /// What the user should know, such as a limit that this kernel lacks.
    pub warnings: Vec<String>,
}

/// Docker's `Config` and `HostConfig`. After create the image's defaults are merged in (env, command, labels, …).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// `Image` as given.
    pub image: String,
    /// `Hostname`; the short id when none.
    pub hostname: Option<String>,
    /// `Domainname`
    pub domainname: String,
    /// `User`: empty, `name`, `uid`, `user:group`.
    pub user: String,
    /// `AttachStdin`
    pub attach_stdin: bool,
    /// `AttachStdout`
    pub attach_stdout: bool,
    /// `AttachStderr`
    pub attach_stderr: bool,
    /// `Tty`
    pub tty: bool,
    /// `OpenStdin`
    pub open_stdin: bool,
    /// `StdinOnce`
    pub stdin_once: bool,
    /// `ExposedPorts`
    pub exposed_ports: PortSet,
    /// How those of them were written that could be written otherwise: `8080`, `8000-8010/udp`.
    pub exposed_as: BTreeMap<Port, String>,
    /// `Env`
    pub env: Vec<String>,
    /// `Cmd`; none takes the image's.
    pub command: Option<Vec<String>>,
    /// `Entrypoint`; none takes the image's, `Some` with one empty string clears it.
    pub entrypoint: Option<Vec<String>>,
    /// `Healthcheck`
    pub healthcheck: Option<Healthcheck>,
    /// `Volumes`: paths in the container that are anonymous volumes.
    pub volumes: BTreeSet<String>,
    /// `WorkingDir`
    pub working_dir: String,
    /// `NetworkDisabled`
    pub network_disabled: bool,
    /// `MacAddress` (before API 1.44).
    pub mac_address: Option<String>,
    /// `OnBuild`
    pub on_build: Vec<String>,
    /// `Labels`
    pub labels: BTreeMap<String, String>,
    /// `StopSignal`
    pub stop_signal: Option<Signal>,
    /// `StopTimeout` in seconds; -1 waits for ever.
    pub stop_timeout_seconds: Option<i64>,
    /// `Shell`
    pub shell: Option<Vec<String>>,

    /// `HostConfig.Binds`
    pub binds: Vec<Bind>,
    /// `HostConfig.Mounts`
    pub mounts: Vec<MountSpec>,
    /// `HostConfig.Tmpfs`: target and options (`size=1m,mode=1777`).
    pub tmpfs: BTreeMap<String, String>,
    /// `HostConfig.VolumesFrom`
    pub volumes_from: Vec<VolumesFrom>,
    /// `HostConfig.VolumeDriver`
    pub volume_driver: String,
    /// `HostConfig.ContainerIDFile`, shown again; the client writes it.
    pub container_id_file: String,
    /// `HostConfig.LogConfig`
    pub log: LogConfig,
    /// `HostConfig.NetworkMode`
    pub network: NetworkMode,
    /// `HostConfig.PortBindings`
    #[serde(with = "super::bindings_by_port")]
    pub port_bindings: PortBindings,
    /// `HostConfig.PublishAllPorts`
    pub publish_all_ports: bool,
    /// `HostConfig.RestartPolicy`
    pub restart: RestartPolicy,
    /// `HostConfig.AutoRemove`
    pub auto_remove: bool,
    /// `HostConfig.ConsoleSize`: height, width.
    pub console_size: Option<TerminalSize>,
    /// `HostConfig.Annotations`
    pub annotations: BTreeMap<String, String>,
    /// `HostConfig.CapAdd`
    pub cap_add: Vec<Capability>,
    /// `HostConfig.CapDrop`
    pub cap_drop: Vec<Capability>,
    /// `HostConfig.CgroupnsMode`
    pub cgroupns: CgroupnsMode,
    /// `HostConfig.Dns`
    pub dns: Vec<String>,
    /// `HostConfig.DnsOptions`
    pub dns_options: Vec<String>,
    /// `HostConfig.DnsSearch`
    pub dns_search: Vec<String>,
    /// `HostConfig.ExtraHosts`: `name:address`.
    pub extra_hosts: Vec<String>,
    /// `HostConfig.GroupAdd`
    pub group_add: Vec<String>,
    /// `HostConfig.IpcMode`
    pub ipc: IpcMode,
    /// `HostConfig.PidMode`
    pub pid: PidMode,
    /// `HostConfig.UTSMode`
    pub uts: UtsMode,
    /// `HostConfig.UsernsMode`
    pub userns: UsernsMode,
    /// `HostConfig.Privileged`
    pub privileged: bool,
    /// `HostConfig.ReadonlyRootfs`
    pub readonly_rootfs: bool,
    /// `HostConfig.SecurityOpt`
    pub security: Vec<SecurityOption>,
    /// `HostConfig.StorageOpt`
    pub storage_options: BTreeMap<String, String>,
    /// `HostConfig.ShmSize` in bytes; 0 is 64 MiB.
    pub shm_size_bytes: u64,
    /// `HostConfig.Sysctls`
    pub sysctls: BTreeMap<String, String>,
    /// `HostConfig.Init`; none is the daemon's default, which is no.
    pub init: Option<bool>,
    /// `HostConfig.OomScoreAdj`
    pub oom_score_adj: i32,
    /// `HostConfig.Runtime`; empty is Conex's own.
    pub runtime: String,
    /// `HostConfig.Isolation`, of which Linux has only `default`; shown again.
    pub isolation: String,
    /// `HostConfig.Links`
    pub links: Vec<String>,
    /// `HostConfig.DeviceRequests`: GPUs, and devices that CDI files describe.
    pub device_requests: Vec<super::DeviceRequest>,
    /// `HostConfig.MaskedPaths`; none is the default list.
    pub masked_paths: Option<Vec<String>>,
    /// `HostConfig.ReadonlyPaths`; none is the default list.
    pub readonly_paths: Option<Vec<String>>,
    /// The limits of `HostConfig`.
    pub resources: Resources,
    /// `NetworkingConfig.EndpointsConfig` by network.
    pub endpoints: BTreeMap<String, EndpointSpec>,
}

/// Settings for a container on one network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSpec {
    /// `IPAMConfig.IPv4Address`
    pub ipv4: Option<Ipv4Addr>,
    /// `IPAMConfig.IPv6Address`
    pub ipv6: Option<Ipv6Addr>,
    /// `IPAMConfig.LinkLocalIPs`
    pub link_local: Vec<String>,
    /// `Links`
    pub links: Vec<String>,
    /// `Aliases`
    pub aliases: Vec<String>,
    /// `MacAddress`
    pub mac_address: Option<String>,
    /// `DriverOpts`
    pub driver_options: BTreeMap<String, String>,
    /// `GwPriority`
    pub gateway_priority: i64,
}

/// `Healthcheck`, times in nanoseconds; 0 is the default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `Test`: empty inherits, `["NONE"]` disables, `["CMD", …]`, `["CMD-SHELL", "…"]`.
    pub test: Vec<String>,
    /// `Interval`
    pub interval_ns: i64,
    /// `Timeout`
    pub timeout_ns: i64,
    /// `StartPeriod`
    pub start_period_ns: i64,
    /// `StartInterval`
    pub start_interval_ns: i64,
    /// `Retries`
    pub retries: i64,
}

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// What `update` changes; fields that are none (or 0, or empty) stay as they are, as in Docker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpdateRequest {
    /// New limits; zero and empty fields are unchanged.
    pub resources: Resources,
    /// `PidsLimit` when present, which has a meaning for 0 and -1 (unlimited).
    pub pids_limit: Option<i64>,
    /// A new restart policy.
    pub restart: Option<RestartPolicy>,
}

/// How to make an image of a container.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// `container`
    pub container: String,
    /// `repo`; without one the image gets no name.
    pub repository: String,
    /// `tag`
    pub tag: String,
    /// `author`
    pub author: String,
    /// `comment`
    pub comment: String,
    /// `changes`: Dockerfile instructions.
    pub changes: Vec<String>,
    /// Whether it is frozen meanwhile.
    pub pause: CommitPause,
    /// A configuration whose open fields are the container's; none is the container's own.
    pub config: Option<ContainerSpec>,
}

/// Whether a running container is frozen while it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitPause {
    /// It is.
    #[default]
    Frozen,
    /// It goes on changing its files.
    Running,
}

/// How to put a tar into a container.
#[derive(Debug, Clone)]
pub struct CopyIn {
    /// The directory, in the container.
    pub path: String,
    /// `noOverwriteDirNonDir`: a file never replaces a directory, nor a directory a file.
    pub keep_kinds: bool,
    /// `copyUIDGID`: files become the container's user's.
    pub copy_owner: bool,
}

/// What is at a path of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// The last component of the path.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Kind and permissions, as `stat` has them.
    pub mode: u32,
    /// Last change of its contents.
    pub mtime: jiff::Timestamp,
    /// Where a symbolic link leads; empty for everything else.
    pub link_target: String,
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StopOptions {
    /// Seconds until SIGKILL, -1 for never; none is the container's own `StopTimeout`, or 10.
    pub timeout_seconds: Option<i64>,
    /// The signal; none is the container's own `StopSignal`, or SIGTERM.
    pub signal: Option<Signal>,
}

/// How to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoveOptions {
    /// `v`: anonymous volumes as well.
    pub volumes: bool,
    /// `force`: kill it first.
    pub force: bool,
    /// `link`: remove a link, which Conex refuses by name.
    pub link: bool,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// `not-running`: answers at once when it does not run.
    #[default]
    NotRunning,
    /// `next-exit`
    NextExit,
    /// `removed`
    Removed,
}

impl WaitCondition {
    /// Reads Docker's word; empty is `not-running`.
    pub fn parse(text: &str) -> Result<Self, super::EngineError> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            _ => Err(super::EngineError::invalid(format!("invalid condition: \"{text}\""))),
        }
    }
}

/// How a waited-for container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitResult {
    /// `StatusCode`
    pub exit_code: i32,
    /// `Error.Message`, such as why removal failed.
    pub error: Option<String>,
}
