//! The engine's own types: no HTTP, no Docker JSON, no wire format.
//!
//! Text from outside becomes one of these by a `parse` function, with Docker's messages, and nothing behind it checks again.

mod attach;
pub mod attest;
pub mod build;
pub mod build_cache;
mod container;
mod device;
mod end;
mod error;
mod event;
mod filter;
mod image;
mod limits;
mod log_config;
mod log_sink;
mod logs;
mod mounts;
mod name;
mod namespaces;
mod network;
mod ports;
mod security;
mod signal;
mod system;
mod view;
mod volume;

pub use attach::{AttachRequest, AttachTarget, DetachKeys, ExecSpec, StreamFraming};
pub use build::{
    BuildCacheKind, BuildCacheView, BuildClient, BuildEvent, BuildFolder, BuildPruneReport, BuildPruneRequest,
    BuildRequest, BuildSource, Secrets,
};
pub use container::{
    CommitPause, CommitRequest, ContainerSpec, CopyIn, CreateRequest, CreatedContainer, EndpointSpec, Healthcheck,
    PathStat, RemoveOptions, StopOptions, TerminalSize, UpdateRequest, WaitCondition, WaitResult,
};
pub use device::{Device, DeviceRequest, DeviceRule};
pub use end::{EndCause, EndMemory, EndRequest, EndVerb, HealthNote, RunEnd, Why};
pub use error::{EngineError, ErrorKind, chain};
pub use event::{Event, EventKind};
pub(crate) use filter::Patterns;
pub use filter::{
    ContainerFilters, ContainerQuery, EventFilters, EventQuery, ImageQuery, LabelFilter, NetworkQuery, PruneFilters,
    VolumeQuery,
};
pub use image::{
    AttestationStatement, AttestationView, CheckVerdict, CheckedKind, Distribution, FlowLimit, FlowReports,
    HistoryView, ImageCheck, ImageProgress, ImagePruneReport, ImageRemoval, ImageSummary, ImageView, ImportRequest,
    InspectQuery, ManifestView, PolicyView, PullFlow, PullRequest, PushRequest, SearchRequest,
};
pub use limits::{BlkioRate, BlkioWeight, Resources, RestartPolicy, Ulimit, parse_size};
pub use log_config::{LOG_DRIVERS, LogCompression, LogConfig, LogDelivery, LogDriver};
pub use log_sink::{Endpoint, FluentdSink, GelfCompression, GelfSink, LogSink, SyslogFormat, SyslogSink, TlsFiles};
pub use logs::{IoSample, LogEntry, LogForwarding, LogQuery, NetworkSample, OutputStream, PressureSample, StatsSample};
pub use mounts::{
    Access, Bind, BindRecursion, BindSource, CopyUp, MountKind, MountSpec, Propagation, VolumeName, VolumesFrom,
};
pub(crate) use mounts::{clean_path, container_path};
pub use name::ContainerName;
pub use namespaces::{CgroupnsMode, IpcMode, NetworkMode, PidMode, UsernsMode, UtsMode};
pub use network::{IpamPool, NetworkMember, NetworkRequest, NetworkView};
pub(crate) use ports::bindings_by_port;
pub use ports::{HostPortSpec, Port, PortBinding, PortBindings, PortSet, PortTable, Protocol, bindings_of};
pub(crate) use security::CAPABILITIES;
pub use security::{Capability, SecurityMeaning, SecurityOption};
pub use signal::Signal;
pub use system::{DiskUsage, HostFeature, LimitSupport, RegistriesView, RuntimeView, StorageState, SystemInfo};
pub use view::{
    Change, ChangeKind, ContainerFiles, ContainerNetworks, ContainerSizes, ContainerState, ContainerView, EndpointView,
    ExecState, ExecView, GraphPaths, Health, HealthProbe, HealthStatus, HostPort, MountPoint, MountPointKind,
    ProcessTable, PruneReport, Status,
};
pub use volume::{VolumeRequest, VolumeUsage, VolumeView};
