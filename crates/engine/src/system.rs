//! The engine and its host.

use crate::engine::{Engine, unwritten};
use crate::model::{DiskUsage, EngineError, SystemInfo};

impl Engine {
    /// What `info` and `version` tell; never waits for a container.
    pub fn system_info(&self) -> SystemInfo {
        unreachable!("published before it is written")
    }

    /// What uses the disk.
    pub async fn disk_usage(&self) -> Result<DiskUsage, EngineError> {
        Err(unwritten())
    }
}
