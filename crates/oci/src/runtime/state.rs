//! What a runtime says about a container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::null_default;

/// The state of a container, as `state` prints it and hooks get it on their standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the specification that the state follows.
    pub oci_version: String,
    /// The container's identifier.
    pub id: String,
    /// Where the container is in its life.
    pub status: Status,
    /// The pid of the container's process, seen from the runtime; absent once it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The absolute path of the bundle.
    pub bundle: String,
    /// The annotations of the configuration.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made, the user's process not yet started.
    Created,
    /// The user's process runs.
    Running,
    /// The user's process has ended.
    Stopped,
    /// All processes are frozen (an extension that every runtime has).
    Paused,
}

/// What the listener of seccomp notifications gets with the descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProcessState {
    /// The version of the specification.
    pub oci_version: String,
    /// Names of the descriptors that come along, in their order.
    #[serde(default, deserialize_with = "null_default")]
    pub fds: Vec<String>,
    /// The pid of the process that is filtered.
    pub pid: i32,
    /// The filter's `listenerMetadata`.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// The container's state.
    pub state: State,
}
