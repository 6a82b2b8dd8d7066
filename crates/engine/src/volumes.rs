//! Volumes: folders that outlive containers.

use std::sync::Arc;

use crate::engine::{Engine, unwritten};
use crate::model::{EngineError, PruneFilters, PruneReport, VolumeQuery, VolumeRequest, VolumeView};

impl Engine {
    /// Creates a volume, or finds the one of that name.
    pub async fn create_volume(&self, request: VolumeRequest) -> Result<Arc<VolumeView>, EngineError> {
        let _ = request;
        Err(unwritten())
    }

    /// A volume by name.
    pub fn volume(&self, name: &str) -> Result<Arc<VolumeView>, EngineError> {
        let _ = name;
        Err(unwritten())
    }

    /// Volumes by name.
    pub fn volumes(&self, query: &VolumeQuery) -> Result<Vec<Arc<VolumeView>>, EngineError> {
        let _ = query;
        Err(unwritten())
    }

    /// Removes a volume; with `force` one that is not there is no error.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<(), EngineError> {
        let _ = (name, force);
        Err(unwritten())
    }

    /// Removes volumes that no container names: anonymous ones, or all.
    pub async fn prune_volumes(&self, filters: PruneFilters) -> Result<PruneReport, EngineError> {
        let _ = filters;
        Err(unwritten())
    }
}
