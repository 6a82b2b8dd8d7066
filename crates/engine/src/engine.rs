//! The front door.

use std::sync::Arc;

use crate::model::EngineError;
use crate::options::EngineOptions;

/// A running engine; cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    #[expect(dead_code, reason = "the interface is published before what is behind it")]
    pub(crate) inner: Arc<Inner>,
}

/// What all clones share.
#[derive(Debug)]
pub(crate) struct Inner {}

/// Why an engine cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub(crate) EngineError);

impl Engine {
    /// Opens the stores, takes up running containers again and starts what works in the background.
    pub async fn open(options: EngineOptions) -> Result<Engine, OpenError> {
        let _ = options;
        Err(OpenError(unwritten()))
    }

    /// Lets go of everything: containers run on, what no container needs is unmounted and removed.
    pub async fn shutdown(&self) {}
}

pub(crate) fn unwritten() -> EngineError {
    EngineError::not_implemented("not written yet")
}
