//! What the database keeps of a container.

use jiff::Timestamp;
use oci::{ContainerId, DiffId, Digest};
use serde::{Deserialize, Serialize};

use super::life::Life;
use super::plan::{PlannedMount, PlannedSource};
use crate::model::{ContainerName, ContainerSpec};
use crate::userns::IdMappings;

/// Version of both records; a newer one is refused, an older one would be converted here.
pub(crate) const RECORD_VERSION: u32 = 1;

/// What does not change with the container's state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) version: u32,
    pub(crate) id: ContainerId,
    pub(crate) name: ContainerName,
    #[serde(with = "crate::moment")]
    pub(crate) created: Timestamp,
    pub(crate) image_id: Digest,
    /// The image's layers, bottom first: enough to start again after the image lost its name.
    pub(crate) layers: Vec<DiffId>,
    pub(crate) spec: ContainerSpec,
    /// Entrypoint and command.
    pub(crate) command: Vec<String>,
    pub(crate) hostname: String,
    pub(crate) mounts: Vec<PlannedMount>,
    /// The users of its own user namespace, as decided at create; none in the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id_mappings: Option<IdMappings>,
    /// The cgroup namespace as decided at create: `private` or `host`.
    pub(crate) private_cgroup_namespace: bool,
}

impl ContainerRecord {
    /// The layers of its image, and those of the images that are mounted in it.
    pub(crate) fn all_layers(&self) -> Vec<DiffId> {
        let mounted = self.mounts.iter().flat_map(|mount| match &mount.source {
            PlannedSource::Image { layers, .. } => layers.as_slice(),
            _ => &[],
        });
        self.layers.iter().chain(mounted).copied().collect()
    }
}

/// What changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LifeRecord {
    pub(crate) version: u32,
    pub(crate) life: Life,
    /// What it has of the networks, while it runs.
    #[serde(default)]
    pub(crate) place: network::Place,
}
