//! Containers.

mod life;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::engine::{Engine, unwritten};
use crate::images::ByteStream;
use crate::model::{
    AttachRequest, AttachTarget, Change, ContainerName, ContainerQuery, ContainerSizes, ContainerView, CreateRequest,
    CreatedContainer, EngineError, LogEntry, LogQuery, ProcessTable, PruneFilters, PruneReport, RemoveOptions, Signal,
    StatsSample, StopOptions, TerminalSize, UpdateRequest, WaitCondition, WaitResult,
};

/// A wait that is registered: answer the client's header, then [`Waiter::result`].
#[derive(Debug)]
pub struct Waiter {}

impl Waiter {
    /// How it ended.
    pub async fn result(self) -> Result<WaitResult, EngineError> {
        Err(unwritten())
    }
}

/// A checked attach: answer the client's header, then [`PendingAttach::connect`].
#[derive(Debug)]
pub struct PendingAttach {
    /// Whether the stream is raw (a terminal) or in frames.
    pub tty: bool,
}

impl PendingAttach {
    /// Connects the client; returns when it is connected. The streams go on by themselves.
    pub async fn connect(self, target: AttachTarget) -> Result<(), EngineError> {
        let _ = target;
        Err(unwritten())
    }
}

/// A container's log lines.
#[derive(Debug)]
pub struct LogStream {
    /// Whether the container has a terminal: then its lines are sent raw.
    pub tty: bool,
    /// The lines; ends with the log, or with the container when following.
    pub entries: mpsc::Receiver<Result<LogEntry, EngineError>>,
}

impl Engine {
    /// Creates a container.
    pub async fn create_container(&self, request: CreateRequest) -> Result<CreatedContainer, EngineError> {
        let _ = request;
        Err(unwritten())
    }

    /// A container by id, unique prefix or name.
    pub fn container(&self, reference: &str) -> Result<Arc<ContainerView>, EngineError> {
        let _ = reference;
        Err(unwritten())
    }

    /// Containers, newest first.
    pub fn containers(&self, query: &ContainerQuery) -> Result<Vec<Arc<ContainerView>>, EngineError> {
        let _ = query;
        Err(unwritten())
    }

    /// How much disk a container uses.
    pub async fn container_sizes(&self, reference: &str) -> Result<ContainerSizes, EngineError> {
        let _ = reference;
        Err(unwritten())
    }

    /// Starts it; `NotModified` when it runs.
    pub async fn start_container(&self, reference: &str) -> Result<(), EngineError> {
        let _ = reference;
        Err(unwritten())
    }

    /// Stops it; `NotModified` when it does not run.
    pub async fn stop_container(&self, reference: &str, options: StopOptions) -> Result<(), EngineError> {
        let _ = (reference, options);
        Err(unwritten())
    }

    /// Stops and starts it.
    pub async fn restart_container(&self, reference: &str, options: StopOptions) -> Result<(), EngineError> {
        let _ = (reference, options);
        Err(unwritten())
    }

    /// Sends a signal; SIGKILL when none.
    pub async fn kill_container(&self, reference: &str, signal: Option<Signal>) -> Result<(), EngineError> {
        let _ = (reference, signal);
        Err(unwritten())
    }

    /// Freezes it.
    pub async fn pause_container(&self, reference: &str) -> Result<(), EngineError> {
        let _ = reference;
        Err(unwritten())
    }

    /// Thaws it.
    pub async fn unpause_container(&self, reference: &str) -> Result<(), EngineError> {
        let _ = reference;
        Err(unwritten())
    }

    /// Gives it another name.
    pub async fn rename_container(&self, reference: &str, name: ContainerName) -> Result<(), EngineError> {
        let _ = (reference, name);
        Err(unwritten())
    }

    /// Changes limits and restart policy; returns warnings.
    pub async fn update_container(&self, reference: &str, request: UpdateRequest) -> Result<Vec<String>, EngineError> {
        let _ = (reference, request);
        Err(unwritten())
    }

    /// Removes it.
    pub async fn remove_container(&self, reference: &str, options: RemoveOptions) -> Result<(), EngineError> {
        let _ = (reference, options);
        Err(unwritten())
    }

    /// Removes containers that do not run.
    pub async fn prune_containers(&self, filters: PruneFilters) -> Result<PruneReport, EngineError> {
        let _ = filters;
        Err(unwritten())
    }

    /// Registers a wait. From then on no exit is missed.
    pub async fn wait_container(&self, reference: &str, condition: WaitCondition) -> Result<Waiter, EngineError> {
        let _ = (reference, condition);
        Err(unwritten())
    }

    /// Resizes its terminal.
    pub async fn resize_container(&self, reference: &str, size: TerminalSize) -> Result<(), EngineError> {
        let _ = (reference, size);
        Err(unwritten())
    }

    /// Checks an attach.
    pub async fn attach_container(
        &self,
        reference: &str,
        request: AttachRequest,
    ) -> Result<PendingAttach, EngineError> {
        let _ = (reference, request);
        Err(unwritten())
    }

    /// Its log.
    pub async fn container_logs(&self, reference: &str, query: LogQuery) -> Result<LogStream, EngineError> {
        let _ = (reference, query);
        Err(unwritten())
    }

    /// Its numbers now; all zero with `read` none when it does not run.
    pub async fn container_stats(&self, reference: &str) -> Result<StatsSample, EngineError> {
        let _ = reference;
        Err(unwritten())
    }

    /// Its processes; `ps_args` as `ps` takes them, `-ef` when empty.
    pub async fn container_top(&self, reference: &str, ps_args: &str) -> Result<ProcessTable, EngineError> {
        let _ = (reference, ps_args);
        Err(unwritten())
    }

    /// What it changed in its image's files.
    pub async fn container_changes(&self, reference: &str) -> Result<Vec<Change>, EngineError> {
        let _ = reference;
        Err(unwritten())
    }

    /// Its whole file system as a tar.
    pub async fn export_container(&self, reference: &str) -> Result<ByteStream, EngineError> {
        let _ = reference;
        Err(unwritten())
    }
}
