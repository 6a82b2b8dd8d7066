//! One task per container: the only writer of its state.
//!
//! Commands and the monitor's events come in over channels; each is a [`Happening`] for the pure machine in [`super::life`], whose
//! [`Action`]s are carried out here. Everything that readers see is published before anybody is answered.

mod launch;
mod networks;
mod told;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dns::Serving;
use monitor_protocol::{Event as MonitorEvent, FailureKind, KillScope, Request, Response, Target};
use network::Place;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Sleep;

use super::handle::{Handle, Live};
use super::life::{Action, Happening, Life, Phase, Policy, Refusal};
use super::record::{ContainerRecord, LifeRecord, RECORD_VERSION};
use super::start::HeldAttach;
use super::{health, remove, resolver, view};
use crate::engine::{Engine, blocking};
use crate::model::{
    ContainerName, ContainerView, EndRequest, EndpointSpec, EngineError, Health, HealthNote, RestartPolicy, Signal,
    UpdateRequest,
};
use crate::monitors::{Connection, Incoming, MonitorError};
use crate::store::{Change, Durability};
use crate::volumes::HeldVolumes;

/// How long freezing, thawing and changing limits may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Clients that may wait for a start; the frame that launches can carry 64 descriptors.
const HELD_ATTACHES: usize = 32;

/// Requests for an end that are remembered of one run.
const MAX_ASKED: usize = 16;

/// Where an answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, EngineError>>;

/// What an actor is asked. `reference` is what the user called the container, for messages.
#[derive(Debug)]
pub(crate) enum Command {
    Start {
        answer: Answer<()>,
    },
    /// Marks it as being stopped; the signals come as [`Command::Kill`].
    Stop {
        keep: Keep,
        asked: EndRequest,
        answer: Answer<()>,
    },
    Kill {
        signal: Signal,
        by: KilledBy,
        /// Who wants it, where that is not known yet.
        asked: Option<EndRequest>,
        reference: String,
        answer: Answer<()>,
    },
    Pause {
        answer: Answer<()>,
    },
    Unpause {
        answer: Answer<()>,
    },
    Rename {
        name: ContainerName,
        answer: Answer<()>,
    },
    /// Removes a link of the default bridge.
    Unlink {
        alias: String,
        answer: Answer<()>,
    },
    Connect {
        network: String,
        endpoint: Box<EndpointSpec>,
        answer: Answer<()>,
    },
    Disconnect {
        network: String,
        answer: Answer<()>,
    },
    Update {
        request: Box<UpdateRequest>,
        answer: Answer<()>,
    },
    Remove {
        volumes: bool,
        reference: String,
        answer: Answer<()>,
    },
    Attach {
        held: Box<HeldAttach>,
        answer: Answer<()>,
    },
    /// Answers when nothing of its last run is mounted any more.
    Settle {
        answer: Answer<()>,
    },
    /// The healthcheck has something new.
    Health {
        health: Box<Health>,
    },
}

/// Whether `--rm` counts for this exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It is stopped for good.
    AsConfigured,
    /// It is restarted: `--rm` must not take it away in between.
    ForRestart,
}

/// Who sends a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KilledBy {
    /// `docker kill`.
    User,
    /// A stop that has been asked already.
    Stop,
}

/// The task's own things.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) engine: Engine,
    pub(super) handle: Arc<Handle>,
    pub(super) record: ContainerRecord,
    pub(super) life: Life,
    pub(super) place: Place,
    /// Volumes with options that are mounted because it runs.
    volumes: HeldVolumes,
    /// Its own name server, on networks with names.
    names: Option<Serving>,
    pub(super) health: Option<Health>,
    connection: Option<Connection>,
    incoming: Option<mpsc::Receiver<Incoming>>,
    /// The monitor has told the exit and not yet that it has cleaned up.
    cleaning: bool,
    held: Vec<HeldAttach>,
    restart: Option<Pin<Box<Sleep>>>,
    keep: Keep,
    probe: Option<health::Watch>,
}

/// A container that runs already when its actor starts.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) connection: Connection,
    pub(super) incoming: mpsc::Receiver<Incoming>,
}

/// Whether a container outlived what its daemon missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remains {
    There,
    Gone,
}

/// What the loop does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    End,
}

impl Actor {
    pub(super) fn new(engine: Engine, handle: Arc<Handle>, life: Life, place: Place) -> Self {
        let record = ContainerRecord::clone(&handle.record());
        Self {
            engine,
            handle,
            record,
            life,
            place,
            volumes: HeldVolumes::default(),
            names: None,
            health: None,
            connection: None,
            incoming: None,
            cleaning: false,
            held: Vec::new(),
            restart: None,
            keep: Keep::AsConfigured,
            probe: None,
        }
    }

    /// Takes up a container that runs.
    pub(super) async fn recover(&mut self, recovered: Recovered) {
        self.announce();
        self.names = self.engine.inner.names.take_reopened(&self.record.id);
        if let (None, Some(pid)) = (&self.names, self.life.pid()) {
            self.serve_names(pid).await;
            self.persist();
        }
        if let Some(pid) = self.life.pid() {
            self.handle.publish_live(Some(Live { connection: recovered.connection.clone(), pid }));
        }
        self.connection = Some(recovered.connection);
        self.incoming = Some(recovered.incoming);
        self.hold_volumes().await;
        self.watch_health();
        self.publish();
    }

    /// Says that what is mounted on its volumes is needed, after a restart of the daemon.
    async fn hold_volumes(&mut self) {
        if self.record.mounts.iter().all(|mount| mount.volume().is_none()) {
            return;
        }
        let (inner, record) = (Arc::clone(&self.engine.inner), self.record.clone());
        let held = blocking(move || {
            let names = record.mounts.iter().filter_map(|mount| mount.volume());
            HeldVolumes::hold(&inner, record.id.to_string(), names)
        });
        match held.await {
            Ok(held) => self.volumes = held,
            Err(error) => tracing::warn!("container {}: {error}", self.handle.id),
        }
    }

    /// Before the loop: lets a happening happen that the daemon missed, and removes a `--rm` container that has ended. Returns
    /// whether the container is still there.
    pub(super) async fn catch_up(&mut self, missed: Option<Happening>) -> Remains {
        if missed.is_none() && self.life.pid().is_none() {
            // A start that was cut short had been given these.
            self.give_back_place();
        }
        let next = match missed {
            Some(happening) => self.ended(happening).await,
            None if self.record.spec.auto_remove && self.life.phase == Phase::Exited => self.auto_remove().await,
            None => Next::Continue,
        };
        if next == Next::End { Remains::Gone } else { Remains::There }
    }

    /// Lives until the container is removed or the engine closes.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut closing = self.engine.inner.closing.subscribe();
        loop {
            let next = tokio::select! {
                biased;
                incoming = receive(&mut self.incoming) => self.incoming(incoming).await,
                command = commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => Next::End,
                },
                () = due(&mut self.restart) => self.restart_due().await,
                () = closed(&mut closing) => Next::End,
            };
            if next == Next::End {
                return;
            }
        }
    }

    fn policy(&self) -> Policy {
        let auto_remove = self.record.spec.auto_remove && self.keep == Keep::AsConfigured;
        Policy { restart: self.record.spec.restart, auto_remove }
    }

    async fn command(&mut self, command: Command) -> Next {
        match command {
            Command::Start { answer } => {
                let result = self.start().await;
                let _ = answer.send(result);
                if self.life.phase == Phase::Removing { self.removed_by_start().await } else { Next::Continue }
            }
            Command::Stop { keep, asked, answer } => {
                self.keep = keep;
                self.note(Some(asked));
                let result =
                    self.happen(Happening::StopAsked).await.map_err(|refusal| self.refusal(refusal, "stop", ""));
                let _ = answer.send(result.map(|_| ()));
                Next::Continue
            }
            Command::Kill { signal, by, asked, reference, answer } => {
                self.note(asked);
                let _ = answer.send(self.kill(signal, by, &reference).await);
                Next::Continue
            }
            Command::Pause { answer } => {
                let _ = answer.send(self.freeze(Request::Pause, Happening::Paused, "pause").await);
                Next::Continue
            }
            Command::Unpause { answer } => {
                let _ = answer.send(self.freeze(Request::Unpause, Happening::Unpaused, "unpause").await);
                Next::Continue
            }
            Command::Rename { name, answer } => {
                let _ = answer.send(self.rename(name).await);
                Next::Continue
            }
            Command::Unlink { alias, answer } => {
                let _ = answer.send(self.unlink(&alias).await);
                Next::Continue
            }
            Command::Connect { network, endpoint, answer } => {
                let _ = answer.send(self.connect(network, *endpoint).await);
                Next::Continue
            }
            Command::Disconnect { network, answer } => {
                let _ = answer.send(self.disconnect(network).await);
                Next::Continue
            }
            Command::Update { request, answer } => {
                let _ = answer.send(self.update(*request).await);
                Next::Continue
            }
            Command::Remove { volumes, reference, answer } => self.remove(volumes, &reference, answer).await,
            Command::Attach { held, answer } => {
                let _ = answer.send(self.attach(*held).await);
                Next::Continue
            }
            Command::Settle { answer } => {
                if self.life.pid().is_none() {
                    self.wait_for_cleanup().await;
                }
                let _ = answer.send(Ok(()));
                Next::Continue
            }
            Command::Health { health } => {
                self.health_changed(*health);
                Next::Continue
            }
        }
    }

    /// Remembers who asks for the end; it is written down with what comes of it.
    fn note(&mut self, asked: Option<EndRequest>) {
        if self.life.pid().is_some() && self.life.asked.len() < MAX_ASKED {
            self.life.asked.extend(asked);
        }
    }

    /// What the monitor says.
    async fn incoming(&mut self, incoming: Incoming) -> Next {
        match incoming {
            Incoming::Event(MonitorEvent::Exited(exit)) => {
                self.cleaning = true;
                return self.ended(super::recover::exited(&exit)).await;
            }
            Incoming::Event(MonitorEvent::CleanedUp) => self.cleaning = false,
            Incoming::Event(MonitorEvent::ExecExited { id, exit }) => {
                self.engine.exec_exited(&self.handle, &id.0, exit.code);
                self.tell_monitor(Request::AcknowledgeExit { target: Target::Exec(id) });
            }
            Incoming::Event(MonitorEvent::AttachEnded { why, .. }) => {
                if why == monitor_protocol::AttachEnd::DetachKeys {
                    self.tell("detach", &[]);
                }
            }
            Incoming::Event(MonitorEvent::OutOfMemory { .. }) => {
                let _ = self.happen(Happening::OutOfMemory).await;
            }
            Incoming::Event(MonitorEvent::LogTrouble { message, dropped_lines }) => {
                tracing::warn!("container {}: log: {message} ({dropped_lines} lines lost)", self.handle.id);
                self.engine.inner.forwarders.lost_before_writing(&self.handle.id, dropped_lines);
            }
            // Pausing is published by who asked for it.
            Incoming::Event(_) => {}
            Incoming::Closed => return self.monitor_gone().await,
        }
        Next::Continue
    }

    /// The monitor's socket closed. After an exit that is its normal end; before one it is a crash.
    async fn monitor_gone(&mut self) -> Next {
        (self.connection, self.incoming, self.cleaning) = (None, None, false);
        if self.life.pid().is_none() {
            return Next::Continue;
        }
        tracing::error!("container {}: its monitor has ended before it", self.handle.id);
        let inner = Arc::clone(&self.engine.inner);
        let (folder, fallback) = (inner.container_dir(&self.handle.id), self.life.started_at);
        let happening = blocking(move || Ok(super::recover::find_exit(&folder, fallback))).await;
        let Ok(happening) = happening else { return Next::Continue };
        if let Err(error) = self.engine.tidy_up_after(&happening, &self.record).await {
            tracing::warn!("container {}: {error}", self.handle.id);
        }
        self.ended(happening).await
    }

    /// The container has ended: tell everybody, and remove it if that is how it was made.
    async fn ended(&mut self, exited: Happening) -> Next {
        let actions = self.happen(exited).await.unwrap_or_default();
        self.tell_monitor(Request::AcknowledgeExit { target: Target::Container });
        if actions.contains(&Action::AutoRemove) { self.auto_remove().await } else { Next::Continue }
    }

    async fn kill(&mut self, signal: Signal, by: KilledBy, reference: &str) -> Result<(), EngineError> {
        if by == KilledBy::User {
            self.happen(Happening::KillAsked).await.map_err(|refusal| self.refusal(refusal, "kill", reference))?;
        }
        let Some(connection) = self.connection.clone().filter(|_| self.life.pid().is_some()) else {
            return Err(self.refusal(Refusal::NotRunning, "kill", reference));
        };
        let paused = matches!(self.life.phase, Phase::Paused { .. });
        let request = Request::Kill { signal: monitor_protocol::Signal(signal.number()), scope: KillScope::Init };
        self.tell("kill", &[("signal", &signal.number().to_string())]);
        match limited(connection.request(request, Vec::new())).await {
            // It ended a moment ago: the exit is on its way.
            Err(error) if error.kind() != crate::model::ErrorKind::Conflict => return Err(error),
            _ => {}
        }
        // A frozen process cannot die of a signal; cgroup v1 keeps it until it is thawed.
        if paused && (signal == Signal::KILL || signal == stop_signal(&self.record)) {
            self.freeze(Request::Unpause, Happening::Unpaused, "unpause").await?;
        }
        Ok(())
    }

    async fn freeze(&mut self, request: Request, happening: Happening, verb: &str) -> Result<(), EngineError> {
        self.life.on(self.policy(), happening.clone()).map_err(|refusal| self.refusal(refusal, verb, ""))?;
        let connection = self.connection.clone().ok_or_else(|| self.refusal(Refusal::NotRunning, verb, ""))?;
        limited(connection.request(request, Vec::new())).await?;
        self.happen(happening).await.map(|_| ()).map_err(|refusal| self.refusal(refusal, verb, ""))
    }

    async fn attach(&mut self, held: HeldAttach) -> Result<(), EngineError> {
        if let Some(connection) = self.connection.clone().filter(|_| self.life.pid().is_some()) {
            let HeldAttach { mut attach, socket } = held;
            attach.socket = monitor_protocol::FdIndex(0);
            limited(connection.request(Request::Attach(attach), vec![socket])).await?;
        } else if self.held.len() < HELD_ATTACHES {
            self.held.push(held);
        } else {
            return Err(EngineError::unavailable("too many clients wait for this container to start"));
        }
        self.tell("attach", &[]);
        Ok(())
    }

    async fn rename(&mut self, name: ContainerName) -> Result<(), EngineError> {
        let index = &self.engine.inner.index;
        index.reserve_name(&name, &self.handle.id)?;
        let old = std::mem::replace(&mut self.record.name, name.clone());
        if let Err(error) = self.write_record(Durability::Machine).await {
            self.engine.inner.index.release_name(&name);
            self.record.name = old;
            return Err(error);
        }
        self.engine.inner.index.release_name(&old);
        self.announce();
        self.handle.publish_record(self.record.clone());
        self.publish();
        self.tell("rename", &[("oldName", &format!("/{old}"))]);
        Ok(())
    }

    async fn update(&mut self, request: UpdateRequest) -> Result<(), EngineError> {
        let mut spec = self.record.spec.clone();
        super::update::apply(&mut spec, &request, &self.engine.inner.host).map_err(|error| match error.kind() {
            crate::model::ErrorKind::Conflict => {
                EngineError::conflict(format!("Cannot update container {}: {}", self.handle.id, error.message()))
            }
            _ => error,
        })?;
        if let (Some(connection), true) = (self.connection.clone(), self.life.pid().is_some()) {
            let resources = crate::spec::update_resources(&spec.resources, &self.engine.inner.host.spec);
            limited(connection.request(Request::Update { resources: Box::new(resources) }, Vec::new())).await?;
        }
        self.record.spec = spec;
        self.write_record(Durability::Machine).await?;
        self.handle.publish_record(self.record.clone());
        self.publish();
        self.tell("update", &[]);
        Ok(())
    }

    async fn remove(&mut self, volumes: bool, reference: &str, answer: Answer<()>) -> Next {
        let removing = self.happen(Happening::RemoveAsked).await;
        if let Err(refusal) = removing {
            let _ = answer.send(Err(self.refusal(refusal, "remove", reference)));
            return Next::Continue;
        }
        self.wait_for_cleanup().await;
        let removed = match self.borrow_files().await {
            Ok(_lent) => remove::remove(&self.engine, &self.record, volumes).await,
            Err(error) => Err(error),
        };
        let next = self.after_removal(&removed).await;
        let _ = answer.send(removed);
        next
    }

    /// `--rm`: the name and the record go at once, the files behind everybody's back.
    async fn auto_remove(&mut self) -> Next {
        self.life.phase = Phase::Removing;
        self.publish();
        let removed = remove::forget(&self.engine, &self.record, Durability::Daemon).await;
        let next = self.after_removal(&removed).await;
        if removed.is_ok() {
            self.wait_for_cleanup().await;
            // Whoever copies files for a minute from a container that removes itself loses them.
            let _lent = self.borrow_files().await;
            if let Err(error) = remove::clean(&self.engine, &self.record, true).await {
                tracing::warn!("container {}: {error}", self.handle.id);
            }
        }
        next
    }

    async fn after_removal(&mut self, removed: &Result<(), EngineError>) -> Next {
        match removed {
            Ok(()) => {
                self.held.clear();
                self.tell("destroy", &[]);
                self.handle.publish_progress(|progress| progress.removed = true);
                Next::End
            }
            Err(error) => {
                let message = error.message().to_owned();
                let _ = self.happen(Happening::RemoveFailed { message: message.clone() }).await;
                self.handle.publish_progress(|progress| progress.removal_error = Some(message));
                Next::Continue
            }
        }
    }

    /// Lets something happen: decides, publishes, acts. Returns what was decided, for the actions that are the caller's.
    async fn happen(&mut self, happening: Happening) -> Result<Vec<Action>, Refusal> {
        let (life, actions) = self.life.on(self.policy(), happening)?;
        self.life = life;
        if self.life.pid().is_none() && actions.contains(&Action::LetGo) {
            self.handle.publish_live(None);
            self.probe = None;
            self.free_ports();
            resolver::retract(&self.engine.inner, &self.record);
        }
        self.publish();
        for action in &actions {
            self.act(*action);
        }
        Ok(actions)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::TellStarted => {
                self.tell_network("connect");
                self.tell_volumes("mount");
                // Its first line may be older than this moment, and Compose reads the log from the event's time on.
                let time = self.life.started_at.unwrap_or_else(jiff::Timestamp::now);
                self.engine.tell_container_at(&self.record, "start", &[], time);
                self.handle.publish_progress(|progress| (progress.active, progress.running) = (true, true));
            }
            Action::WakeWaiters => {
                let (exit_code, active) = (self.life.exit_code, self.life.phase == Phase::Restarting);
                self.handle.publish_progress(|progress| {
                    (progress.active, progress.running, progress.exit_code) = (active, false, exit_code);
                    progress.exits += 1;
                });
            }
            Action::LetGo => self.let_go(),
            Action::TellOutOfMemory => self.tell("oom", &[]),
            Action::TellStopped => self.tell("stop", &[]),
            Action::TellDied => {
                let duration = match (self.life.started_at, self.life.finished_at) {
                    (Some(start), Some(end)) => end.duration_since(start).as_secs().max(0),
                    _ => 0,
                };
                self.tell(
                    "die",
                    &[("exitCode", &self.life.exit_code.to_string()), ("execDuration", &duration.to_string())],
                );
            }
            Action::TellPaused => self.tell("pause", &[]),
            Action::TellUnpaused => self.tell("unpause", &[]),
            Action::RestartAfter(delay) => self.restart = Some(Box::pin(tokio::time::sleep(delay))),
            Action::ForgetRestart => self.restart = None,
            Action::Persist => self.persist(),
            // The caller's part.
            Action::Launch | Action::Remove | Action::AutoRemove => {}
        }
    }

    fn let_go(&mut self) {
        let ran = self.life.finished_at.is_some() && self.life.error.is_empty();
        if ran {
            self.tell_network("disconnect");
            self.tell_volumes("unmount");
        }
        self.give_back_place();
        self.volumes = HeldVolumes::default();
        super::shared_memory::release(&self.engine.inner, &self.record);
        self.engine.end_execs_of(&self.handle.id);
    }

    fn give_back_place(&mut self) {
        self.free_ports();
        self.names = None;
        resolver::retract(&self.engine.inner, &self.record);
        for endpoint in std::mem::take(&mut self.place).endpoints {
            self.engine.inner.networks.release(endpoint);
        }
    }

    /// Gives the ports on the host back, before anybody hears that it has ended: the next container may want the same.
    fn free_ports(&mut self) {
        let ports = std::mem::take(&mut self.place.ports);
        self.engine.inner.networks.unpublish(&ports);
        self.engine.tidy_after_ports(ports.len());
    }

    /// Publishes the view that belongs to this state.
    pub(super) fn publish(&self) {
        // What it takes to publish them is several times what is kept of them.
        self.engine.tidy_after_ports(self.place.ports.len());
        self.handle.publish_view(view::of(
            &self.engine.inner,
            &self.record,
            &self.life,
            &self.place,
            self.health.clone(),
        ));
    }

    fn persist(&self) {
        if let Some(life) = life_text(&self.life, &self.place) {
            self.engine.inner.store.write_behind(Change::PutLife { id: self.handle.id.to_string(), life });
        }
    }

    async fn write_record(&self, durability: Durability) -> Result<(), EngineError> {
        let change = put_container(&self.record, &self.life, &self.place)?;
        let written = self.engine.inner.store.write(vec![change], durability).await;
        written.map_err(|error| EngineError::system("cannot store the container", error))
    }

    fn refusal(&self, refusal: Refusal, verb: &str, reference: &str) -> EngineError {
        let reference = if reference.is_empty() { self.record.name.as_str() } else { reference };
        refusal.error(verb, self.handle.id.as_str(), reference)
    }

    fn tell_monitor(&self, request: Request) {
        if let Some(connection) = &self.connection {
            connection.tell(request);
        }
    }

    fn watch_health(&mut self) {
        self.probe = health::watch(&self.engine, &self.handle, &self.record);
        self.health = self.probe.as_ref().map(|_| health::starting());
        if self.health.is_some() {
            self.publish();
        }
    }

    fn health_changed(&mut self, health: Health) {
        if self.probe.is_none() {
            return;
        }
        let changed = self.health.as_ref().is_none_or(|before| before.status != health.status);
        let status = health.status;
        self.life.health = Some(HealthNote::of(&health));
        self.health = Some(health.clone());
        // Of all that a view is made of nothing else is new, and this comes again and again.
        let mut view = ContainerView::clone(&self.handle.view());
        view.state.health = Some(health);
        self.handle.publish_view(view);
        if changed {
            self.tell(&format!("health_status: {}", status.as_str()), &[]);
        }
    }
}

/// The next message of the monitor; waits for ever without one.
async fn receive(incoming: &mut Option<mpsc::Receiver<Incoming>>) -> Incoming {
    match incoming {
        Some(receiver) => receiver.recv().await.unwrap_or(Incoming::Closed),
        None => std::future::pending().await,
    }
}

/// Returns when the engine closes. The guard of the watch must not live across another wait.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn due(restart: &mut Option<Pin<Box<Sleep>>>) {
    match restart {
        Some(sleep) => sleep.as_mut().await,
        None => std::future::pending().await,
    }
}

/// A monitor's answer with a time limit, as an error of ours.
pub(crate) async fn limited(
    request: impl Future<Output = Result<Response, MonitorError>>,
) -> Result<Response, EngineError> {
    match tokio::time::timeout(REQUEST_LIMIT, request).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(monitor_error(error)),
        Err(_) => Err(EngineError::unavailable("the container's monitor does not answer")),
    }
}

/// A monitor's refusal as an error of ours.
pub(crate) fn monitor_error(error: MonitorError) -> EngineError {
    match (error.kind(), error.to_string()) {
        (Some(FailureKind::NotRunning | FailureKind::Conflict), message) => EngineError::conflict(message),
        (Some(FailureKind::Invalid | FailureKind::NotFound | FailureKind::PermissionDenied), message) => {
            EngineError::invalid(message)
        }
        (Some(FailureKind::Unsupported), message) => EngineError::not_implemented(message),
        (Some(FailureKind::Other), message) => EngineError::new(crate::model::ErrorKind::System, message),
        (None, _) => EngineError::system("the container cannot be reached", error),
    }
}

/// The signal that stops this container.
pub(crate) fn stop_signal(record: &ContainerRecord) -> Signal {
    record.spec.stop_signal.unwrap_or(Signal::TERM)
}

/// Whether a policy makes a container come back.
pub(crate) fn comes_back(policy: RestartPolicy) -> bool {
    policy != RestartPolicy::No
}

fn life_text(life: &Life, place: &Place) -> Option<String> {
    let record = LifeRecord { version: RECORD_VERSION, life: life.clone(), place: place.clone() };
    serde_json::to_string(&record)
        .inspect_err(|error| tracing::error!("cannot write a container's state: {error}"))
        .ok()
}

/// The change that stores a container whole.
pub(super) fn put_container(record: &ContainerRecord, life: &Life, place: &Place) -> Result<Change, EngineError> {
    let spec = serde_json::to_string(record)
        .map_err(|error| EngineError::system("cannot write the container's record", error))?;
    let life = life_text(life, place).ok_or_else(|| EngineError::unavailable("cannot write the container's state"))?;
    Ok(Change::PutContainer { id: record.id.to_string(), spec, life })
}
