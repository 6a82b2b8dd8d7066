//! Starting: a monitor is asked, and its answer happens.

use std::sync::Arc;
use std::time::Duration;

use monitor_protocol::{Event as MonitorEvent, FailureKind, KillScope, Request, Response};

use super::{Actor, Keep, Next, life_text, receive};
use crate::containers::handle::Live;
use crate::containers::life::{Action, Happening, Phase};
use crate::containers::start;
use crate::engine::blocking;
use crate::model::EngineError;
use crate::monitors::{Connection, Incoming, MonitorError};
use crate::store::{Change, Durability};

/// How long a monitor may take to start a container: a hanging network mount must not hold this container's actor for ever.
const LAUNCH_LIMIT: Duration = Duration::from_secs(120);
/// How long a monitor may take to clean up behind a container that has ended.
const CLEANUP_LIMIT: Duration = Duration::from_secs(30);
/// How long a start or a removal waits for a copy in or out of the container.
const FILES_LIMIT: Duration = Duration::from_secs(60);
/// Docker's exit code for failures that are not the program's.
const OTHER_FAILURE: i32 = 128;

impl Actor {
    pub(super) async fn start(&mut self) -> Result<(), EngineError> {
        self.happen(Happening::StartAsked).await.map_err(|refusal| self.refusal(refusal, "start", ""))?;
        self.launch().await
    }

    /// A start that failed removes a `--rm` container.
    pub(super) async fn removed_by_start(&mut self) -> Next {
        self.auto_remove().await
    }

    pub(super) async fn restart_due(&mut self) -> Next {
        self.restart = None;
        if self.happen(Happening::RestartDue).await.is_ok()
            && let Err(error) = self.launch().await
        {
            tracing::warn!("container {}: cannot be restarted: {error}", self.handle.id);
        }
        Next::Continue
    }

    /// Asks a monitor and lets its answer happen.
    async fn launch(&mut self) -> Result<(), EngineError> {
        self.wait_for_cleanup().await;
        self.keep = Keep::AsConfigured;
        let launched = match self.borrow_files().await {
            // Let go only when readers see that it runs.
            Ok(lent) => self.try_launch().await.map(|started| (started, lent)),
            Err(error) => Err((OTHER_FAILURE, error)),
        };
        match launched {
            Ok(((connection, pid, at), _lent)) => {
                self.handle.publish_live(Some(Live { connection: connection.clone(), pid }));
                self.connection = Some(connection);
                let _ = self.happen(Happening::Started { pid, at }).await;
                self.watch_health();
                Ok(())
            }
            Err((exit_code, error)) => {
                (self.connection, self.incoming) = (None, None);
                let failed = Happening::StartFailed { exit_code, message: error.message().to_owned() };
                if self.happen(failed).await.unwrap_or_default().contains(&Action::AutoRemove) {
                    self.life.phase = Phase::Removing;
                }
                Err(error)
            }
        }
    }

    async fn try_launch(&mut self) -> Result<(Connection, i32, jiff::Timestamp), (i32, EngineError)> {
        let other = |error| (OTHER_FAILURE, error);
        let joined = self.engine.joined_namespaces(&self.record).map_err(other)?;
        let (inner, record) = (Arc::clone(&self.engine.inner), self.record.clone());
        let attaches = std::mem::take(&mut self.held);
        let started = blocking(move || start::launch(&inner, &record, joined, attaches)).await.map_err(other)?;
        (self.place, self.names) = (started.place, started.serving);
        self.volumes = started.volumes;
        let staged = started.staged;
        let (connection, incoming, answer) = Connection::adopt(started.launched)
            .map_err(|error| other(EngineError::system("cannot talk to the container's monitor", error)))?;
        self.incoming = Some(incoming);
        // While the monitor works: a daemon that is killed after it has answered must know what the container was given.
        let (recorded, answer) = tokio::join!(self.record_place(), tokio::time::timeout(LAUNCH_LIMIT, answer.get()));
        // By now the container has mounts of its own.
        drop(staged);
        recorded.map_err(other)?;
        match answer {
            Ok(Ok(Response::Started { pid, at })) => Ok((connection, pid, crate::moment::from_monitor(at))),
            Ok(Ok(_)) => Err(other(EngineError::unavailable("the container's monitor gave a wrong answer"))),
            Ok(Err(error)) => Err(launch_failure(error)),
            Err(_) => {
                // Whatever is going on in there, it must not come to life later on.
                connection.tell(Request::Kill { signal: monitor_protocol::Signal(9), scope: KillScope::All });
                Err(other(EngineError::unavailable("the container did not start in time")))
            }
        }
    }

    async fn record_place(&self) -> Result<(), EngineError> {
        let Some(life) = life_text(&self.life, &self.place).filter(|_| !self.place.endpoints.is_empty()) else {
            return Ok(());
        };
        let change = Change::PutLife { id: self.handle.id.to_string(), life };
        let written = self.engine.inner.store.write(vec![change], Durability::Daemon).await;
        written.map_err(|error| EngineError::system("cannot store the container's state", error))
    }

    /// A container whose files are being copied cannot be started or removed.
    pub(super) async fn borrow_files(&self) -> Result<tokio::sync::OwnedMutexGuard<()>, EngineError> {
        let lent = tokio::time::timeout(FILES_LIMIT, self.handle.borrow_files()).await;
        lent.map_err(|_| EngineError::conflict(format!("the files of container {} are being copied", self.handle.id)))
    }

    /// The monitor of the last run may still be giving back its cgroup and mounts.
    pub(super) async fn wait_for_cleanup(&mut self) {
        let end = tokio::time::Instant::now() + CLEANUP_LIMIT;
        while self.cleaning {
            match tokio::time::timeout_at(end, receive(&mut self.incoming)).await {
                Ok(Incoming::Event(MonitorEvent::CleanedUp) | Incoming::Closed) | Err(_) => break,
                Ok(Incoming::Event(_)) => {}
            }
        }
        (self.cleaning, self.connection, self.incoming) = (false, None, None);
    }
}

/// Docker's exit codes and words for a start that failed.
fn launch_failure(error: MonitorError) -> (i32, EngineError) {
    let mut message = format!("failed to create task for container: {}", crate::model::chain(&error));
    if message.contains("error mounting") && message.contains("not a directory") {
        message += ": Are you trying to mount a directory onto a file (or vice-versa)? \
                    Check if the specified host path exists and is the expected type";
    }
    if error.kind() == Some(FailureKind::PermissionDenied) && !message.contains("permission denied") {
        // By this the docker command line knows its exit code, also where it is a directory that cannot be run.
        message += ": permission denied";
    }
    match error.kind() {
        Some(FailureKind::NotFound) => (127, EngineError::invalid(message)),
        Some(FailureKind::PermissionDenied) => (126, EngineError::invalid(message)),
        Some(FailureKind::Invalid) => (128, EngineError::invalid(message)),
        _ => (128, EngineError::new(crate::model::ErrorKind::System, message)),
    }
}
