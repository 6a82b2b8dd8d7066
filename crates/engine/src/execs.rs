//! Execs: processes added to running containers.

use std::sync::Arc;

use crate::engine::{Engine, unwritten};
use crate::model::{AttachTarget, EngineError, ExecSpec, ExecView, TerminalSize};

/// An exec that is claimed for one start: answer the client, then [`PendingExec::start`].
#[derive(Debug)]
pub struct PendingExec {
    /// Whether the stream is raw (a terminal) or in frames.
    pub tty: bool,
}

impl PendingExec {
    /// Starts it connected to the client. Returns when it runs or has failed; a failure has been written into the stream, as Docker
    /// does. The streams go on by themselves.
    pub async fn start(self, target: AttachTarget) -> Result<(), EngineError> {
        let _ = target;
        Err(unwritten())
    }
}

impl Engine {
    /// Prepares a process; returns its id.
    pub async fn create_exec(&self, container: &str, spec: ExecSpec) -> Result<String, EngineError> {
        let _ = (container, spec);
        Err(unwritten())
    }

    /// An exec by id (or unique prefix).
    pub fn exec(&self, id: &str) -> Result<Arc<ExecView>, EngineError> {
        let _ = id;
        Err(unwritten())
    }

    /// Claims an exec for an attached start: checks everything that must be an HTTP status.
    pub async fn prepare_exec(
        &self,
        id: &str,
        tty: bool,
        console_size: Option<TerminalSize>,
    ) -> Result<PendingExec, EngineError> {
        let _ = (id, tty, console_size);
        Err(unwritten())
    }

    /// Starts an exec without a client.
    pub async fn start_exec_detached(
        &self,
        id: &str,
        tty: bool,
        console_size: Option<TerminalSize>,
    ) -> Result<(), EngineError> {
        let _ = (id, tty, console_size);
        Err(unwritten())
    }

    /// Resizes an exec's terminal.
    pub async fn resize_exec(&self, id: &str, size: TerminalSize) -> Result<(), EngineError> {
        let _ = (id, size);
        Err(unwritten())
    }
}
