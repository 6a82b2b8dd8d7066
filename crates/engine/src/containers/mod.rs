//! Containers: one actor each, an index over all, and the façade's methods.
//!
//! | file | what |
//! |---|---|
//! | `life` | every state and transition; pure |
//! | `actor` | the task that owns a container |
//! | `handle`, `index` | what readers hold |
//! | `create`, `plan`, `validate`, `names` | from a request to a record |
//! | `attachments` | networks: joining, leaving, publishing |
//! | `start`, `ports`, `shared_memory` | the blocking part of a start |
//! | `resolver` | names of containers |
//! | `relay` | ports of IPv6 addresses for containers without |
//! | `recover` | taking up what runs |
//! | `list`, `view`, `top`, `stats`, `files`, `users` | what readers get |
//! | `copy`, `root`, `owner` | files in and out of containers |
//! | `trees` | folders inside volumes and images, as mounts |
//! | `probe` | health checks without a process |
//! | `health`, `update`, `remove`, `commit` | what their names say |

mod actor;
mod attachments;
mod commit;
mod copy;
mod create;
mod files;
mod handle;
mod health;
mod index;
mod life;
pub(crate) mod links;
mod list;
mod names;
mod owner;
mod plan;
mod ports;
mod probe;
mod record;
mod recover;
mod relay;
mod remove;
mod resolver;
mod root;
mod shared_memory;
mod start;
mod stats;
mod top;
mod trees;
mod update;
mod users;
mod validate;
mod view;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use monitor_protocol::{Attach, AttachId, FdIndex, Framing, Request, Streams, Target, WindowSize};
use tokio::sync::{OwnedRwLockReadGuard, oneshot, watch};

use actor::{Answer, Command, Keep, KilledBy};
pub(crate) use actor::{limited, monitor_error};
pub(crate) use files::{Pieces, changed_files};
pub(crate) use handle::{Handle, Progress};
pub(crate) use index::Index;
pub(crate) use plan::{create_of, refuse_driver};
pub(crate) use record::ContainerRecord;
pub(crate) use recover::{Recorded, find_exec_exit};
pub(crate) use resolver::Names;
use start::HeldAttach;
pub(crate) use start::log_path;
pub(crate) use validate::parse_set;

use crate::engine::{Engine, blocking};
use crate::model::{
    AttachRequest, AttachTarget, ContainerName, ContainerQuery, ContainerSizes, ContainerView, EndRequest, EndVerb,
    EndpointSpec, EngineError, EventKind, IpcMode, LogQuery, NetworkMode, OutputStream, PidMode, PruneFilters,
    PruneReport, RemoveOptions, Signal, StopOptions, TerminalSize, UpdateRequest, WaitCondition, WaitResult, Why,
};
use crate::spec::JoinedNamespaces;

/// Docker's grace before SIGKILL.
const DEFAULT_STOP_SECONDS: i64 = 10;
/// How long SIGKILL may take: a process in an uninterruptible call of a dead disk takes for ever.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How often a forced removal ends a container that is started again.
const FORCED_ATTEMPTS: usize = 5;

/// A namespace for functions about all containers.
#[derive(Debug)]
pub(crate) struct Containers;

/// A wait that is registered: answer the client's header, then [`Waiter::result`].
#[derive(Debug)]
pub struct Waiter {
    progress: watch::Receiver<Progress>,
    condition: WaitCondition,
    exits: u64,
}

impl Waiter {
    /// How it ended.
    pub async fn result(mut self) -> Result<WaitResult, EngineError> {
        let (condition, exits) = (self.condition, self.exits);
        let done = move |progress: &Progress| match condition {
            WaitCondition::NotRunning => !progress.running,
            WaitCondition::NextExit => progress.exits > exits || progress.removed,
            WaitCondition::Removed => progress.removed || progress.removal_error.is_some(),
        };
        let progress =
            self.progress.wait_for(done).await.map_err(|_| EngineError::unavailable("the engine is shutting down"))?;
        let error = if condition == WaitCondition::Removed { progress.removal_error.clone() } else { None };
        Ok(WaitResult { exit_code: progress.exit_code, error })
    }
}

/// A checked attach: answer the client's header, then [`PendingAttach::connect`].
#[derive(Debug)]
pub struct PendingAttach {
    /// Whether the stream is raw (a terminal) or in frames.
    pub tty: bool,
    engine: Engine,
    handle: Arc<Handle>,
    request: AttachRequest,
    /// A start that is asked for after the client's answer comes after its attach.
    _place: OwnedRwLockReadGuard<()>,
}

impl PendingAttach {
    /// Whether bytes may come as soon as the client is connected: it runs, or there is a log.
    pub fn speaks_at_once(&self) -> bool {
        let status = self.handle.view().state.status;
        self.handle.live().is_some() || self.request.logs && status == crate::model::Status::Exited
    }

    /// Connects the client; returns when it is connected. The streams go on by themselves.
    pub async fn connect(self, target: AttachTarget) -> Result<(), EngineError> {
        let mut socket = target.socket;
        if self.request.logs {
            socket = self.replay(socket).await?;
        }
        if !self.request.stream {
            return Ok(());
        }
        let stdin = self.request.stdin && self.handle.record().spec.open_stdin;
        let keys = if self.tty {
            self.request.detach_keys.unwrap_or_default().into_protocol()
        } else {
            monitor_protocol::DetachKeys::NONE
        };
        let attach = Attach {
            id: AttachId(u64::from_le_bytes(crate::random_bytes())),
            target: Target::Container,
            socket: FdIndex(0),
            streams: Streams { stdin, stdout: self.request.stdout, stderr: self.request.stderr },
            framing: if self.tty { Framing::Raw } else { Framing::Multiplexed },
            detach_keys: keys,
            early_input: target.early_input.to_vec(),
        };
        let held = Box::new(HeldAttach { attach, socket });
        ask(&self.handle, |answer| Command::Attach { held, answer }).await
    }

    /// Writes what the log holds already.
    async fn replay(&self, socket: OwnedFd) -> Result<OwnedFd, EngineError> {
        let query = LogQuery {
            stdout: self.request.stdout,
            stderr: self.request.stderr,
            follow: false,
            since: None,
            until: None,
            timestamps: false,
            tail: None,
            details: false,
        };
        let mut entries = self.engine.log_so_far(&self.handle.record(), query).await;
        let tty = self.tty;
        blocking(move || {
            let mut stream = UnixStream::from(socket);
            let _ = stream.set_nonblocking(false);
            while let Some(entry) = entries.blocking_recv() {
                let entry = entry?;
                let number = if entry.stream == OutputStream::Stderr { 2 } else { 1 };
                let length = u32::try_from(entry.payload.len()).unwrap_or(u32::MAX).to_be_bytes();
                let header = [number, 0, 0, 0, length[0], length[1], length[2], length[3]];
                let written = if tty { Ok(()) } else { stream.write_all(&header) };
                if written.and_then(|()| stream.write_all(&entry.payload)).is_err() {
                    break;
                }
            }
            Ok(OwnedFd::from(stream))
        })
        .await
    }
}

/// Sends a command and waits for its answer.
async fn ask<T>(handle: &Handle, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, EngineError> {
    let (answer, answered) = oneshot::channel();
    handle.command(command(answer)).await?;
    answered.await.map_err(|_| EngineError::no_such_container(handle.id.as_str()))?
}

impl Engine {
    /// A container by id, unique prefix or name.
    pub fn container(&self, reference: &str) -> Result<Arc<ContainerView>, EngineError> {
        let handle = self.inner.index.find(reference)?;
        let view = handle.view();
        let exec_ids = self.inner.execs.running_of(&handle.id);
        Ok(if exec_ids.is_empty() { view } else { Arc::new(ContainerView { exec_ids, ..ContainerView::clone(&view) }) })
    }

    /// Containers, newest first.
    pub fn containers(&self, query: &ContainerQuery) -> Result<Vec<Arc<ContainerView>>, EngineError> {
        list::list(self, query)
    }

    /// How much disk a container uses.
    pub async fn container_sizes(&self, reference: &str) -> Result<ContainerSizes, EngineError> {
        let record = self.inner.index.find(reference)?.record();
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let rw_bytes = crate::volumes::disk_bytes(&inner.container_dir(&record.id).join("upper"));
            let layers = record.layers.iter().filter_map(|layer| inner.snapshotter.size(layer).ok()).sum::<u64>();
            Ok(ContainerSizes { rw_bytes, rootfs_bytes: rw_bytes + layers })
        })
        .await
    }

    /// Starts it; `NotModified` when it runs.
    pub async fn start_container(&self, reference: &str) -> Result<(), EngineError> {
        let handle = self.inner.index.find(reference)?;
        handle.wait_for_attaches().await;
        ask(&handle, |answer| Command::Start { answer }).await
    }

    /// Stops it; `NotModified` when it does not run.
    pub async fn stop_container(&self, reference: &str, options: StopOptions) -> Result<(), EngineError> {
        let handle = self.inner.index.find(reference)?;
        self.stop(&handle, options, Keep::AsConfigured).await
    }

    /// Stops and starts it.
    pub async fn restart_container(&self, reference: &str, options: StopOptions) -> Result<(), EngineError> {
        let handle = self.inner.index.find(reference)?;
        match self.stop(&handle, options, Keep::ForRestart).await {
            Err(error) if error.kind() != crate::model::ErrorKind::NotModified => return Err(error),
            _ => {}
        }
        ask(&handle, |answer| Command::Start { answer }).await?;
        self.tell_container(&handle.record(), "restart", &[]);
        Ok(())
    }

    /// The signal, the grace, SIGKILL. The actor is free all the while.
    async fn stop(&self, handle: &Handle, options: StopOptions, keep: Keep) -> Result<(), EngineError> {
        let mut progress = handle.watch();
        let record = handle.record();
        let signal = options.signal.unwrap_or_else(|| actor::stop_signal(&record));
        let verb = if keep == Keep::ForRestart { EndVerb::Restart } else { EndVerb::Stop };
        let asked = end_request(verb, signal);
        ask(handle, |answer| Command::Stop { keep, asked, answer }).await?;
        let seconds = options.timeout_seconds.or(record.spec.stop_timeout_seconds).unwrap_or(DEFAULT_STOP_SECONDS);
        let by_stop = |signal| {
            move |answer| Command::Kill { signal, by: KilledBy::Stop, asked: None, reference: String::new(), answer }
        };
        ignore_ended(ask(handle, by_stop(signal)).await)?;
        let ended = progress.wait_for(|progress| !progress.running);
        match u64::try_from(seconds) {
            // A negative grace is without end.
            Err(_) => drop(ended.await),
            Ok(seconds) => {
                if tokio::time::timeout(Duration::from_secs(seconds), ended).await.is_ok() {
                    return Ok(());
                }
                ignore_ended(ask(handle, by_stop(Signal::KILL)).await)?;
                let ended = progress.wait_for(|progress| !progress.running);
                if tokio::time::timeout(KILL_LIMIT, ended).await.is_err() {
                    return Err(EngineError::unavailable(format!("container {} did not end after SIGKILL", handle.id)));
                }
            }
        }
        Ok(())
    }

    /// Sends a signal; SIGKILL when none. With SIGKILL it returns when the container has ended, as with Docker.
    pub async fn kill_container(&self, reference: &str, signal: Option<Signal>) -> Result<(), EngineError> {
        self.kill(reference, signal.unwrap_or(Signal::KILL), EndVerb::Kill).await
    }

    async fn kill(&self, reference: &str, signal: Signal, verb: EndVerb) -> Result<(), EngineError> {
        let handle = self.inner.index.find(reference)?;
        let mut progress = handle.watch();
        self.signal(&handle, reference, signal, verb).await?;
        if signal == Signal::KILL {
            let _ = tokio::time::timeout(KILL_LIMIT, progress.wait_for(|progress| !progress.running)).await;
        }
        Ok(())
    }

    async fn signal(&self, handle: &Handle, reference: &str, signal: Signal, verb: EndVerb) -> Result<(), EngineError> {
        let (reference, asked) = (reference.to_owned(), Some(end_request(verb, signal)));
        ask(handle, |answer| Command::Kill { signal, by: KilledBy::User, asked, reference, answer }).await
    }

    /// Why it is as it is: how its last run ended, and who asked for that.
    pub fn container_why(&self, reference: &str) -> Result<Why, EngineError> {
        let handle = self.inner.index.find(reference)?;
        let view = handle.view();
        Ok(Why {
            id: view.id.to_string(),
            name: view.name.to_string(),
            status: view.state.status,
            restart_count: view.restart_count,
            error: view.state.error.clone(),
            started_at: view.state.started_at,
            end: view.end.clone(),
            log: self.container_log_forwarding(&view.id),
        })
    }

    /// Freezes it.
    pub async fn pause_container(&self, reference: &str) -> Result<(), EngineError> {
        let handle = self.inner.index.find(reference)?;
        ask(&handle, |answer| Command::Pause { answer }).await
    }

    /// Thaws it.
    pub async fn unpause_container(&self, reference: &str) -> Result<(), EngineError> {
        let handle = self.inner.index.find(reference)?;
        ask(&handle, |answer| Command::Unpause { answer }).await
    }

    /// Connects it to a network.
    pub async fn connect_network(
        &self,
        reference: &str,
        container: &str,
        endpoint: EndpointSpec,
    ) -> Result<(), EngineError> {
        let found = self.find_network(reference)?;
        let handle = self.inner.index.find(container)?;
        attachments::check(Some(&found), found.name(), &endpoint)?;
        let (network, endpoint) = (found.name().to_owned(), Box::new(endpoint));
        ask(&handle, |answer| Command::Connect { network, endpoint, answer }).await
    }

    /// Disconnects it from a network.
    pub async fn disconnect_network(&self, reference: &str, container: &str, force: bool) -> Result<(), EngineError> {
        // With force a network or a container that is not there is not in the way.
        let found = self.find_network(reference)?;
        let handle = match self.inner.index.find(container) {
            Err(error) if force && error.kind() == crate::model::ErrorKind::NotFound => {
                return Err(EngineError::not_found(format!(
                    "endpoint {container} not found in network {}",
                    found.name()
                )));
            }
            found => found?,
        };
        let network = found.name().to_owned();
        ask(&handle, |answer| Command::Disconnect { network, answer }).await
    }

    /// Gives it another name.
    pub async fn rename_container(&self, reference: &str, name: ContainerName) -> Result<(), EngineError> {
        let handle = self.inner.index.find(reference)?;
        if handle.record().name == name {
            return Err(EngineError::invalid("Renaming a container with the same name as its current name"));
        }
        ask(&handle, |answer| Command::Rename { name, answer }).await
    }

    /// Changes limits and restart policy; returns warnings.
    pub async fn update_container(&self, reference: &str, request: UpdateRequest) -> Result<Vec<String>, EngineError> {
        let handle = self.inner.index.find(reference)?;
        ask(&handle, |answer| Command::Update { request: Box::new(request), answer }).await?;
        Ok(Vec::new())
    }

    /// Removes it.
    pub async fn remove_container(&self, reference: &str, options: RemoveOptions) -> Result<(), EngineError> {
        if options.link {
            return self.remove_link(reference).await;
        }
        let handle = self.inner.index.find(reference)?;
        for _ in 0..FORCED_ATTEMPTS {
            if options.force && handle.live().is_some() {
                self.end_for_removal(&handle).await?;
                if handle.record().spec.auto_remove {
                    return self.wait_removed(&handle).await;
                }
            }
            if options.force && handle.view().state.status == crate::model::Status::Restarting {
                // Its next start is forgotten.
                let asked = end_request(EndVerb::Remove, Signal::KILL);
                let stopped = ask(&handle, |answer| Command::Stop { keep: Keep::AsConfigured, asked, answer }).await;
                if stopped.is_ok() && handle.live().is_some() {
                    continue;
                }
            }
            let reference = reference.to_owned();
            match ask(&handle, |answer| Command::Remove { volumes: options.volumes, reference, answer }).await {
                // `--rm` was faster.
                Err(error) if error.kind() == crate::model::ErrorKind::NotFound && options.force => return Ok(()),
                // Somebody, or its restart policy, was starting it just then.
                Err(error)
                    if error.kind() == crate::model::ErrorKind::Conflict
                        && options.force
                        && handle.live().is_some() => {}
                result => return result,
            }
        }
        Err(EngineError::conflict(format!("container {reference} is started again and again")))
    }

    /// Removes a link of the default bridge, `CONTAINER/ALIAS`.
    async fn remove_link(&self, reference: &str) -> Result<(), EngineError> {
        let Some((container, alias)) = reference.trim_start_matches('/').split_once('/') else {
            return Err(EngineError::conflict("conflict, cannot remove the default link name of the container"));
        };
        let handle = self.inner.index.find(container)?;
        let alias = alias.to_owned();
        ask(&handle, |answer| Command::Unlink { alias, answer }).await
    }

    async fn end_for_removal(&self, handle: &Handle) -> Result<(), EngineError> {
        match self.signal(handle, handle.id.as_str(), Signal::KILL, EndVerb::Remove).await {
            Err(error) if error.kind() != crate::model::ErrorKind::Conflict => return Err(error),
            _ => {}
        }
        let mut progress = handle.watch();
        let ended = tokio::time::timeout(KILL_LIMIT, progress.wait_for(|progress| !progress.running)).await;
        match ended {
            Ok(_) => Ok(()),
            Err(_) => Err(EngineError::unavailable(format!(
                "cannot remove container {}: it did not end after SIGKILL",
                handle.id
            ))),
        }
    }

    async fn wait_removed(&self, handle: &Handle) -> Result<(), EngineError> {
        let mut progress = handle.watch();
        let removed = progress.wait_for(|progress| progress.removed || progress.removal_error.is_some()).await;
        match removed.map(|progress| progress.removal_error.clone()) {
            Ok(Some(error)) => Err(EngineError::new(crate::model::ErrorKind::System, error)),
            _ => Ok(()),
        }
    }

    /// Removes containers that do not run.
    pub async fn prune_containers(&self, filters: PruneFilters) -> Result<PruneReport, EngineError> {
        let mut report = PruneReport::default();
        for handle in self.inner.index.all() {
            let view = handle.view();
            let wanted = remove::is_prunable(view.state.status)
                && filters.label.iter().all(|label| label.matches(&view.spec.labels))
                && !filters.without_label.iter().any(|label| label.matches(&view.spec.labels))
                && filters.until.is_none_or(|until| view.created < until);
            if !wanted {
                continue;
            }
            let sizes = self.container_sizes(handle.id.as_str()).await;
            match self.remove_container(handle.id.as_str(), RemoveOptions::default()).await {
                Ok(()) => {
                    report.reclaimed_bytes += sizes.map_or(0, |sizes| sizes.rw_bytes);
                    report.deleted.push(handle.id.to_string());
                }
                // Started or removed by somebody meanwhile.
                Err(error) => tracing::debug!("container {} is not pruned: {error}", handle.id),
            }
        }
        let attributes = BTreeMap::from([("reclaimed".to_owned(), report.reclaimed_bytes.to_string())]);
        self.tell(EventKind::Container, "prune", "", attributes);
        Ok(report)
    }

    /// Registers a wait. From then on no exit is missed.
    pub async fn wait_container(&self, reference: &str, condition: WaitCondition) -> Result<Waiter, EngineError> {
        let handle = self.inner.index.find(reference)?;
        let progress = handle.watch();
        let exits = progress.borrow().exits;
        Ok(Waiter { progress, condition, exits })
    }

    /// Resizes its terminal.
    pub async fn resize_container(&self, reference: &str, size: TerminalSize) -> Result<(), EngineError> {
        let handle = self.inner.index.find(reference)?;
        let live = handle.running()?;
        if !handle.record().spec.tty {
            // There is nothing to resize, which is no error, as with Docker.
            return Ok(());
        }
        let size = WindowSize { height: size.height, width: size.width };
        let request = Request::Resize { target: Target::Container, size };
        limited(live.connection.request(request, Vec::new())).await.map(|_| ())
    }

    /// Checks an attach.
    pub async fn attach_container(
        &self,
        reference: &str,
        request: AttachRequest,
    ) -> Result<PendingAttach, EngineError> {
        let handle = self.inner.index.find(reference)?;
        match handle.view().state.status {
            crate::model::Status::Paused => {
                return Err(EngineError::conflict(format!(
                    "container {reference} is paused, unpause the container before attach"
                )));
            }
            crate::model::Status::Restarting => {
                return Err(EngineError::conflict(format!(
                    "container {reference} is restarting, wait until the container is running"
                )));
            }
            _ => {}
        }
        let place = handle.place_before_start().await;
        Ok(PendingAttach { tty: handle.record().spec.tty, engine: self.clone(), handle, request, _place: place })
    }

    /// The first processes of the containers whose namespaces are joined; each must run.
    pub(crate) fn joined_namespaces(&self, record: &ContainerRecord) -> Result<JoinedNamespaces, EngineError> {
        let pid_of = |reference: &str, what: &str| {
            let handle = self.inner.index.find(reference)?;
            let live = handle.live().ok_or_else(|| {
                EngineError::conflict(format!("cannot join {what} of a non running container: {}", handle.id))
            })?;
            Ok::<_, EngineError>((handle, live.pid))
        };
        let mut joined = JoinedNamespaces::default();
        if let NetworkMode::Container(reference) = &record.spec.network {
            joined.network = Some(pid_of(reference, "network")?.1);
        }
        if let PidMode::Container(reference) = &record.spec.pid {
            joined.pid = Some(pid_of(reference, "PID")?.1);
        }
        if let IpcMode::Container(reference) = &record.spec.ipc {
            let (donor, pid) = pid_of(reference, "IPC")?;
            if !matches!(donor.record().spec.ipc, IpcMode::Shareable) {
                return Err(EngineError::conflict(format!(
                    "cannot join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                    donor.id
                )));
            }
            joined.ipc = Some(pid);
        }
        Ok(joined)
    }

    /// An event about a container, with its labels, image and name.
    pub(crate) fn tell_container(&self, record: &ContainerRecord, action: &str, more: &[(&str, &str)]) {
        self.tell_container_at(record, action, more, jiff::Timestamp::now());
    }

    /// The same of something that happened at another time than now.
    pub(crate) fn tell_container_at(
        &self,
        record: &ContainerRecord,
        action: &str,
        more: &[(&str, &str)],
        time: jiff::Timestamp,
    ) {
        let mut attributes = record.spec.labels.clone();
        attributes.insert("image".into(), record.spec.image.clone());
        attributes.insert("name".into(), record.name.to_string());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let (kind, actor) = (EventKind::Container, record.id.to_string());
        self.inner.bus.tell_of(crate::model::Event { kind, action: action.into(), actor, attributes, time });
    }
}

/// A request for an end, by who calls now.
fn end_request(verb: EndVerb, signal: Signal) -> EndRequest {
    EndRequest { verb, signal: signal.number(), by: crate::caller::current(), at: jiff::Timestamp::now() }
}

/// A signal to a container that has just ended has reached its aim.
fn ignore_ended(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(error) if error.kind() == crate::model::ErrorKind::Conflict => Ok(()),
        result => result,
    }
}
