//! Docker's wire types, routes and versions; no I/O.
//!
//! Field order, `null` against empty, and omission follow the Go structures of Docker 28.5 (API 1.51), because clients compare them.
//! What differs between API versions is a function of [`ApiVersion`] beside the type that differs. Requests and responses are read by
//! [`json`], which follows the rules of Go's `encoding/json`: keys match without regard to case and `null` leaves a field at its zero.

mod auth;
mod error;
mod filters;
mod port;
mod query;
mod route;
mod stream;
mod version;

pub mod container;
pub mod event;
pub mod exec;
pub mod image;
pub mod json;
pub mod mount;
pub mod network;
pub mod progress;
pub mod stats;
pub mod system;
pub mod volume;

pub use auth::{AuthConfig, AuthHeaderError, AuthResponse, REGISTRY_AUTH_HEADER, REGISTRY_CONFIG_HEADER};
pub use error::ErrorResponse;
pub use filters::{FilterError, Filters, Timestamp, TimestampError};
pub use port::{PortParseError, PortSpec, Protocol};
pub use query::{Query, QueryBuilder, encode_path_segment};
pub use route::{PluginRequest, Route, RouteError, SwarmRequest, route};
pub use stream::{FRAME_HEADER_LEN, FrameHeader, StreamKind};
pub use version::{ApiVersion, VersionError};

/// The media type of an unframed byte stream.
pub const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
/// The media type of a stream of frames with eight-byte headers.
pub const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";
/// Go's zero time, which Docker writes where nothing has happened yet.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";
/// Where a container's path is described in the answer of `HEAD` and `GET /containers/{id}/archive`.
pub const PATH_STAT_HEADER: &str = "X-Docker-Container-Path-Stat";

/// A JSON object whose keys are a set and whose values say nothing, as `ExposedPorts` and `Volumes` are written.
pub type Set = std::collections::BTreeMap<String, Empty>;

/// The value of a [`Set`]: `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Empty {}
