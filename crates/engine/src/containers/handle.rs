//! What everybody may hold of a container: its published view, its progress, and the way to its actor.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use oci::ContainerId;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, mpsc, watch};

use super::actor::Command;
use super::record::ContainerRecord;
use crate::model::{ContainerView, EngineError, Status};
use crate::monitors::Connection;

/// Commands that may wait for one actor; more wait at their sender, and only for this container.
pub(crate) const COMMAND_QUEUE: usize = 64;

/// How long a start waits for a client that was told that it is attached.
const ATTACH_LIMIT: Duration = Duration::from_secs(5);

/// One container, as the index holds it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) id: ContainerId,
    pub(crate) created: Timestamp,
    view: ArcSwap<ContainerView>,
    record: ArcSwap<ContainerRecord>,
    live: ArcSwapOption<Live>,
    progress: watch::Sender<Progress>,
    commands: mpsc::Sender<Command>,
    /// Who mounts its files: a start, a removal, or a copy in or out while it does not run.
    files: Arc<tokio::sync::Mutex<()>>,
    /// Read by clients that have been told that they are attached, until they are; a start waits for them.
    attaching: Arc<RwLock<()>>,
}

/// A running container's monitor.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) connection: Connection,
    pub(crate) pid: i32,
}

/// What waiters watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Runs, or will by its restart policy.
    pub(crate) active: bool,
    /// A process of it exists now.
    pub(crate) running: bool,
    /// How often it has ended.
    pub(crate) exits: u64,
    pub(crate) exit_code: i32,
    /// It is gone.
    pub(crate) removed: bool,
    /// Why the last removal failed.
    pub(crate) removal_error: Option<String>,
}

impl Handle {
    /// With its actor's queue.
    pub(crate) fn new(
        record: ContainerRecord,
        view: ContainerView,
        progress: Progress,
    ) -> (Arc<Handle>, mpsc::Receiver<Command>) {
        let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
        let handle = Handle {
            id: record.id.clone(),
            created: record.created,
            view: ArcSwap::from_pointee(view),
            record: ArcSwap::from_pointee(record),
            live: ArcSwapOption::empty(),
            progress: watch::Sender::new(progress),
            commands,
            files: Arc::default(),
            attaching: Arc::default(),
        };
        (Arc::new(handle), queue)
    }

    /// A place among those that the next start waits for.
    pub(crate) async fn place_before_start(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.attaching).read_owned().await
    }

    /// Waits until all who have such a place are attached, or gone: what the container says first is theirs too.
    pub(crate) async fn wait_for_attaches(&self) {
        // Somebody who does not come keeps nobody from starting it.
        let _ = tokio::time::timeout(ATTACH_LIMIT, self.attaching.write()).await;
    }

    /// The latest view.
    pub(crate) fn view(&self) -> Arc<ContainerView> {
        self.view.load_full()
    }

    /// The latest record.
    pub(crate) fn record(&self) -> Arc<ContainerRecord> {
        self.record.load_full()
    }

    /// Its monitor, while it runs.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    /// Its monitor, or Docker's refusal.
    pub(crate) fn running(&self) -> Result<Arc<Live>, EngineError> {
        self.live().ok_or_else(|| EngineError::conflict(format!("container {} is not running", self.id)))
    }

    /// As [`Handle::running`], and not frozen.
    pub(crate) fn running_unpaused(&self, reference: &str) -> Result<Arc<Live>, EngineError> {
        match self.view().state.status {
            Status::Paused => Err(EngineError::conflict(format!(
                "Container {reference} is paused, unpause the container before exec"
            ))),
            Status::Restarting => Err(EngineError::conflict(format!(
                "Container {reference} is restarting, wait until the container is running"
            ))),
            _ => self.running(),
        }
    }

    /// Watches exits and removal.
    pub(crate) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Keeps everybody else from mounting its files, until what is returned is dropped.
    pub(crate) async fn borrow_files(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.files).lock_owned().await
    }

    /// Sends a command; an actor that has ended means that the container is gone.
    pub(crate) async fn command(&self, command: Command) -> Result<(), EngineError> {
        self.commands.send(command).await.map_err(|_| EngineError::no_such_container(self.id.as_str()))
    }

    // For the actor alone.

    pub(super) fn publish_view(&self, view: ContainerView) {
        self.view.store(Arc::new(view));
    }

    pub(super) fn publish_record(&self, record: ContainerRecord) {
        self.record.store(Arc::new(record));
    }

    pub(super) fn publish_live(&self, live: Option<Live>) {
        self.live.store(live.map(Arc::new));
    }

    pub(super) fn publish_progress(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }
}
