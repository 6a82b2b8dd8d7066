//! The container: its first process, its exec sessions, its log, and what happens to them.
//!
//! The order at the end is what matters here. The first process's exit is seen → its pipes are read out → the log is written →
//! `exit.json` is written → daemons are told → only then, behind the reply, cgroup and root file system are given back.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use cgroups::Host;
use monitor_protocol::{
    Attach, AttachId, ContainerStatus, Event, Exec, ExecId, Exit, Failure, KillScope, Launch, Phase, Relay, Response,
    RunningExec, Target, WindowSize,
};
use oci::runtime::LinuxResources;
use rustix::event::PollFlags;
use rustix::process::WaitStatus;

use crate::backend::{self, Backend};
use crate::listener::Listener;
use crate::log::{Ended, Log};
use crate::passed::PassedFds;
use crate::process::{Process, exit_of};
use crate::records::Records;
use crate::relay::{RelayEvent, Relays};
use crate::stdio::{self, Audience};
use crate::streams::{StreamEvent, Surroundings};
use crate::{clock, failure};

/// How long a log writer or compressor may keep an ended container's monitor.
const LOG_LIMIT: Duration = Duration::from_secs(30);
/// How long a container runs before its monitor spends time on anything but it. Until then a new daemon finds the socket.
const INTRODUCTION_DELAY: Duration = Duration::from_millis(10);
/// How many exec sessions may run at once.
const MAX_EXECS: usize = 1024;
/// The longest id of an exec session: it is a file name.
const MAX_EXEC_ID_BYTES: usize = 128;

/// A container that was started.
#[derive(Debug)]
pub(crate) struct Container {
    id: String,
    records: Records,
    /// `None` once everything is given back.
    backend: Option<Backend>,
    listener: Option<Listener>,
    init: Process,
    execs: Vec<Session>,
    log: Log,
    relays: Relays,
    paused: bool,
    oom_killed: bool,
    /// How it ended, once that is recorded.
    exit: Option<Exit>,
    log_patience: Patience,
    /// When to do what the start could do without; `None` once it is done.
    introduce_at: Option<Instant>,
    news: VecDeque<Event>,
}

/// An exec session.
#[derive(Debug)]
struct Session {
    id: ExecId,
    process: Process,
}

/// How long an ended container's log is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// The container has not ended.
    NotNeeded,
    /// Until then.
    Until(Instant),
    /// It is not waited for any more.
    Over,
}

impl Patience {
    fn begin(&mut self, now: Instant) {
        if *self == Patience::NotNeeded {
            *self = Patience::Until(now + LOG_LIMIT);
        }
    }

    fn tick(&mut self, now: Instant) {
        if matches!(*self, Patience::Until(moment) if now >= moment) {
            *self = Patience::Over;
        }
    }

    /// `None` once it is over: a moment that has passed would keep the loop from sleeping.
    fn deadline(self) -> Option<Instant> {
        match self {
            Patience::Until(moment) => Some(moment),
            Patience::NotNeeded | Patience::Over => None,
        }
    }
}

/// What a descriptor is to a container.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ContainerEvent {
    /// One of the first process's streams.
    Init(StreamEvent),
    /// One of an exec session's streams.
    Exec(usize, StreamEvent),
    /// A port that is passed on.
    Relay(RelayEvent),
    /// The log's writer takes more.
    Log,
    /// The kernel has killed somebody for want of memory.
    OutOfMemory,
}

/// What steps of a container need from the loop.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    /// Room for one read.
    pub(crate) scratch: &'a mut [u8],
    /// Now.
    pub(crate) now: Instant,
}

impl Turn<'_> {
    fn around<'b>(&'b mut self, log: &'b mut Log) -> Surroundings<'b> {
        Surroundings { log, scratch: self.scratch, time: clock::now(), now: self.now }
    }
}

impl Container {
    /// Makes the container and starts it.
    pub(crate) fn launch(mut launch: Launch, mut fds: PassedFds, host: Option<&Host>) -> Result<Container, Failure> {
        let network_namespace = launch.network_namespace.map(|index| fds.take(index)).transpose()?;
        let user_namespace = launch.user_namespace.map(|index| fds.take(index)).transpose()?;
        let clients = fds.take_clients(std::mem::take(&mut launch.attaches))?;
        let relays = Relays::take(&launch.relays, &launch.datagram_relays, &mut fds)?;
        let records = Records::new(launch.container_dir.clone());
        records.clear().map_err(|error| failure::other("record", &error))?;
        let log = Log::open(&launch.log).map_err(|error| failure::other("log", &error))?;
        let listener = Listener::bind(&launch.socket).map_err(|error| failure::other("socket", &error))?;
        let (ends, ours) =
            stdio::prepare(&launch.stdio, Audience::Some).map_err(|error| failure::other("stdio", &error))?;
        let surroundings = backend::Surroundings { ends, network_namespace, user_namespace, cgroup_host: host };
        let (backend, started) = Backend::launch(&mut launch, surroundings)?;
        let started_at = clock::now();
        let mut streams =
            ours.into_streams(&launch.stdio, started.console).map_err(|error| failure::other("stdio", &error))?;
        for (attach, socket) in clients {
            streams.attach(&attach, socket);
        }
        Ok(Container {
            id: launch.id,
            records,
            backend: Some(backend),
            listener: Some(listener),
            init: Process::new(started.pid, started_at, streams),
            execs: Vec::new(),
            log,
            relays,
            paused: false,
            oom_killed: false,
            exit: None,
            log_patience: Patience::NotNeeded,
            introduce_at: Some(Instant::now() + INTRODUCTION_DELAY),
            news: VecDeque::new(),
        })
    }

    /// What the reply to the launch says.
    pub(crate) fn started(&self) -> Response {
        Response::Started { pid: self.init.pid, at: self.init.started_at }
    }

    /// What a new connection is told.
    pub(crate) fn status(&self) -> ContainerStatus {
        let running = self.execs.iter().filter(|session| session.process.is_running());
        ContainerStatus {
            id: self.id.clone(),
            pid: self.init.pid,
            started_at: self.init.started_at,
            phase: match self.exit {
                Some(exit) => Phase::Exited(exit),
                None if self.paused => Phase::Paused,
                None => Phase::Running,
            },
            oom_killed: self.oom_killed,
            execs: running
                .map(|session| RunningExec {
                    id: session.id.clone(),
                    pid: session.process.pid,
                    started_at: session.process.started_at,
                })
                .collect(),
            attached: self.processes().flat_map(|process| process.streams.attached()).collect(),
        }
    }

    /// The socket for further daemons.
    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// What happened since the last call.
    pub(crate) fn take_news(&mut self) -> Option<Event> {
        self.news.pop_front()
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.init).chain(self.execs.iter().map(|session| &session.process))
    }

    fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        std::iter::once(&mut self.init).chain(self.execs.iter_mut().map(|session| &mut session.process))
    }
}

/// What the loop does with a container.
impl Container {
    /// Tells what to wait for.
    pub(crate) fn interests<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>, PollFlags, ContainerEvent)) {
        self.init.streams.interests(&mut |fd, flags, event| add(fd, flags, ContainerEvent::Init(event)));
        for (index, session) in self.execs.iter().enumerate() {
            let streams = &session.process.streams;
            streams.interests(&mut |fd, flags, event| add(fd, flags, ContainerEvent::Exec(index, event)));
        }
        self.relays.interests(&mut |fd, flags, event| add(fd, flags, ContainerEvent::Relay(event)));
        if let Some(fd) = self.log.waiting_pipe() {
            add(fd, PollFlags::OUT, ContainerEvent::Log);
        }
        if let Some(fd) = self.backend.as_ref().and_then(Backend::oom_fd) {
            add(fd, PollFlags::IN, ContainerEvent::OutOfMemory);
        }
    }

    /// When to call [`Container::settle`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.processes()
            .filter_map(Process::deadline)
            .chain(self.log_patience.deadline())
            .chain(self.introduce_at)
            .chain(self.relays.deadline())
            .min()
    }

    /// A descriptor is ready.
    pub(crate) fn on(&mut self, event: ContainerEvent, ready: PollFlags, turn: &mut Turn<'_>) {
        match event {
            ContainerEvent::Init(event) => self.init.streams.on(event, ready, &mut turn.around(&mut self.log)),
            ContainerEvent::Exec(index, event) => {
                self.execs[index].process.streams.on(event, ready, &mut turn.around(&mut Log::None));
            }
            ContainerEvent::Relay(event) => self.relays.on(event, turn.scratch, turn.now),
            ContainerEvent::Log => self.log.pump(),
            ContainerEvent::OutOfMemory => self.check_oom(),
        }
    }

    /// A child of the monitor has ended.
    pub(crate) fn child_ended(&mut self, pid: i32, status: WaitStatus, turn: &mut Turn<'_>) {
        if self.init.pid == pid && self.init.is_running() {
            self.init_ended(status, turn);
        } else if let Some(session) =
            self.execs.iter_mut().find(|session| session.process.pid == pid && session.process.is_running())
        {
            session.process.exited(exit_of(status, clock::now()), &mut turn.around(&mut Log::None));
        } else {
            self.log.child_ended(pid, Ended::from(status));
        }
    }

    fn init_ended(&mut self, status: WaitStatus, turn: &mut Turn<'_>) {
        // Before anybody hears of it: the next container may want the same ports.
        self.relays = Relays::default();
        self.check_oom();
        // While the cgroup is there.
        let memory = self.backend.as_mut().filter(|_| self.oom_killed).and_then(Backend::memory_at_exit);
        let exit = Exit { oom_killed: self.oom_killed, memory, ..exit_of(status, clock::now()) };
        if let Some(backend) = &mut self.backend {
            backend.init_exited();
        }
        self.init.exited(exit, &mut turn.around(&mut self.log));
    }

    fn check_oom(&mut self) {
        if self.backend.as_mut().is_some_and(Backend::take_oom) {
            self.oom_killed = true;
            self.news.push_back(Event::OutOfMemory { at: clock::now() });
        }
    }

    /// The end of a turn: writes the log, and takes every step that has become possible.
    pub(crate) fn settle(&mut self, listeners: Daemons, turn: &mut Turn<'_>) {
        self.log.flush();
        self.relays.settle(turn.now);
        self.processes_mut().for_each(|process| process.tick(turn.now));
        self.log_patience.tick(turn.now);
        self.settle_execs(turn);
        self.settle_init(turn);
        if listeners == Daemons::None {
            self.processes_mut().for_each(|process| process.acknowledge(turn.now));
        }
        self.tell_of_clients();
        while let Some(trouble) = self.log.take_trouble() {
            let event = Event::LogTrouble { message: trouble.message, dropped_lines: trouble.dropped_lines };
            self.news.push_back(event);
        }
        self.execs.retain(|session| !session.process.is_done());
    }

    fn settle_execs(&mut self, turn: &mut Turn<'_>) {
        for session in &mut self.execs {
            if !session.process.is_drained(&mut turn.around(&mut Log::None)) {
                continue;
            }
            let Some(exit) = session.process.take_exit(turn.now) else { continue };
            if let Err(error) = self.records.exec_exited(&session.id, exit) {
                complain(&error);
            }
            self.news.push_back(Event::ExecExited { id: session.id.clone(), exit });
            if session.process.streams.attached().next().is_none() {
                session.process.acknowledge(turn.now);
            }
        }
    }

    fn settle_init(&mut self, turn: &mut Turn<'_>) {
        if self.exit.is_some() || !self.init.is_drained(&mut turn.around(&mut self.log)) {
            return;
        }
        self.log_patience.begin(turn.now);
        self.log.close();
        if !self.log.is_complete() {
            if self.log_patience != Patience::Over {
                return;
            }
            self.log.abandon();
        }
        self.introduce_at = None;
        let Some(exit) = self.init.take_exit(turn.now) else { return };
        if let Err(error) = self.records.exited(exit, self.init.started_at) {
            complain(&error);
        }
        self.exit = Some(exit);
        self.news.push_back(Event::Exited(exit));
        if self.init.streams.attached().next().is_none() {
            self.init.acknowledge(turn.now);
        }
    }

    fn tell_of_clients(&mut self) {
        for process in std::iter::once(&mut self.init).chain(self.execs.iter_mut().map(|session| &mut session.process))
        {
            let ended = process.streams.take_ended();
            self.news.extend(ended.into_iter().map(|(attach, why)| Event::AttachEnded { attach, why }));
        }
    }

    /// What can wait until daemons and clients have their answers.
    pub(crate) fn do_background_work(&mut self, now: Instant) {
        if self.exit.is_none() {
            self.introduce(now);
        } else if self.backend.is_some() && self.init.is_released() {
            self.clean_up();
        }
    }

    /// Tells the world whose monitor this is. A container that ends at once is told of by its exit alone.
    fn introduce(&mut self, now: Instant) {
        if self.introduce_at.take_if(|moment| *moment <= now).is_none() {
            return;
        }
        if let Err(error) = self.records.started(self.init.pid, self.init.started_at) {
            complain(&error);
        }
        crate::identity::take_container(&self.id);
        if let Some(backend) = &mut self.backend {
            backend.watch();
        }
    }

    /// Gives everything back but what clients still fetch.
    fn clean_up(&mut self) {
        self.listener = None;
        if let Some(Err(failure)) = self.backend.take().map(Backend::delete) {
            complain(&failure);
        }
        self.news.push_back(Event::CleanedUp);
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_done(&self) -> bool {
        let log_is_done = !self.log.is_busy() || self.log_patience == Patience::Over;
        self.backend.is_none() && self.execs.is_empty() && self.init.is_done() && log_is_done && self.news.is_empty()
    }
}

/// Whether any daemon is there to acknowledge an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Daemons {
    /// Nobody listens.
    None,
    /// At least one.
    Some,
}

/// What daemons ask for.
impl Container {
    /// Connects a client.
    pub(crate) fn attach(&mut self, attach: Attach, fds: &mut PassedFds) -> Result<Response, Failure> {
        let socket = fds.take(attach.socket)?;
        let process = self.process(&attach.target)?;
        process.streams.attach(&attach, socket);
        Ok(Response::Done)
    }

    /// Hangs up on a client.
    pub(crate) fn detach(&mut self, id: AttachId) -> Result<Response, Failure> {
        match self.processes_mut().any(|process| process.streams.detach(id)) {
            true => Ok(Response::Done),
            false => Err(failure::not_running(format!("there is no attachment {}", id.0))),
        }
    }

    /// Passes on what comes to these ports, and to no others.
    pub(crate) fn relay(
        &mut self,
        streams: &[Relay],
        datagrams: &[Relay],
        fds: &mut PassedFds,
    ) -> Result<Response, Failure> {
        self.relays.replace(Relays::take(streams, datagrams, fds)?);
        Ok(Response::Done)
    }

    /// Starts another process.
    pub(crate) fn exec(&mut self, exec: Exec, fds: &mut PassedFds) -> Result<Response, Failure> {
        self.check_exec(&exec)?;
        let mut exec = exec;
        let clients = fds.take_clients(std::mem::take(&mut exec.attaches))?;
        let audience = if clients.is_empty() { Audience::Nobody } else { Audience::Some };
        let (ends, ours) = stdio::prepare(&exec.stdio, audience).map_err(|error| failure::other("stdio", &error))?;
        let started = self.running_backend()?.exec(&exec, ends)?;
        let at = clock::now();
        let mut streams =
            ours.into_streams(&exec.stdio, started.console).map_err(|error| failure::other("stdio", &error))?;
        for (attach, socket) in clients {
            streams.attach(&attach, socket);
        }
        self.execs.push(Session { id: exec.id, process: Process::new(started.pid, at, streams) });
        Ok(Response::ExecStarted { pid: started.pid, at })
    }

    fn check_exec(&self, exec: &Exec) -> Result<(), Failure> {
        let is_file_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let id = exec.id.0.as_str();
        if id.is_empty() || id.len() > MAX_EXEC_ID_BYTES || id.starts_with('.') || !id.bytes().all(is_file_name) {
            return Err(failure::invalid(format!("{id:?} is no id for an exec session")));
        }
        if self.execs.iter().any(|session| session.id == exec.id) {
            return Err(failure::conflict(format!("exec session {id} exists already")));
        }
        if self.execs.len() >= MAX_EXECS {
            return Err(failure::conflict(format!("there are {MAX_EXECS} exec sessions already")));
        }
        if self.paused {
            return Err(failure::conflict(format!(
                "container {} is paused, unpause the container before exec",
                self.id
            )));
        }
        Ok(())
    }

    /// Sets a terminal's size.
    pub(crate) fn resize(&mut self, target: &Target, size: WindowSize) -> Result<Response, Failure> {
        self.process(target)?.streams.resize(size).map_err(|error| failure::other("terminal", &error))?;
        Ok(Response::Done)
    }

    /// Sends a signal.
    pub(crate) fn kill(&mut self, signal: i32, scope: &KillScope) -> Result<Response, Failure> {
        if !(0..=linux::signal::COUNT).contains(&signal) {
            return Err(failure::invalid(format!("{signal} is no signal")));
        }
        match scope {
            KillScope::Init => self.running_backend()?.kill_init(signal)?,
            KillScope::All => self.running_backend()?.kill_all(signal)?,
            KillScope::Exec(id) => self.kill_exec(id, signal)?,
        }
        Ok(Response::Done)
    }

    /// The session's process is our child and not reaped yet, so its pid means nobody else.
    fn kill_exec(&mut self, id: &ExecId, signal: i32) -> Result<(), Failure> {
        let process = self.process(&Target::Exec(id.clone()))?;
        let pid = Some(process)
            .filter(|process| process.is_running())
            .and_then(|process| rustix::process::Pid::from_raw(process.pid));
        let pid = pid.ok_or_else(|| failure::not_running(format!("exec session {} has ended", id.0)))?;
        linux::signal::send(pid, signal).map_err(|errno| failure::other("kill", &errno))
    }

    /// Freezes the container.
    pub(crate) fn pause(&mut self) -> Result<Response, Failure> {
        if self.paused {
            return Err(failure::conflict(format!("container {} is already paused", self.id)));
        }
        self.running_backend()?.pause()?;
        self.paused = true;
        self.news.push_back(Event::Paused);
        Ok(Response::Done)
    }

    /// Lets it go on.
    pub(crate) fn unpause(&mut self) -> Result<Response, Failure> {
        if !self.paused {
            return Err(failure::conflict(format!("container {} is not paused", self.id)));
        }
        self.running_backend()?.resume()?;
        self.paused = false;
        self.news.push_back(Event::Unpaused);
        Ok(Response::Done)
    }

    /// Changes its limits.
    pub(crate) fn update(&mut self, resources: &LinuxResources) -> Result<Response, Failure> {
        self.running_backend()?.update(resources)?;
        Ok(Response::Done)
    }

    /// Lists its processes.
    pub(crate) fn top(&mut self) -> Result<Response, Failure> {
        self.running_backend()?.pids().map(Response::Pids)
    }

    /// Reads its numbers.
    pub(crate) fn stats(&mut self) -> Result<Response, Failure> {
        let log_dropped_lines = self.log.dropped_lines();
        let stats = self.running_backend()?.stats()?;
        Ok(Response::Stats(Box::new(monitor_protocol::Stats { log_dropped_lines, ..stats })))
    }

    /// Hands its root file system over.
    pub(crate) fn rootfs(&mut self) -> Result<OwnedFd, Failure> {
        self.running_backend()?.rootfs()
    }

    /// Ends a process's input.
    pub(crate) fn close_stdin(&mut self, target: &Target) -> Result<Response, Failure> {
        self.process(target)?.streams.close_stdin();
        Ok(Response::Done)
    }

    /// Begins a new log file.
    pub(crate) fn rotate_log(&mut self) -> Result<Response, Failure> {
        self.log.rotate().map_err(|error| failure::other("log", &error))?;
        Ok(Response::Done)
    }

    /// A daemon knows that a process has ended.
    pub(crate) fn acknowledge(&mut self, target: &Target, now: Instant) -> Result<Response, Failure> {
        self.process(target)?.acknowledge(now);
        Ok(Response::Done)
    }

    fn process(&mut self, target: &Target) -> Result<&mut Process, Failure> {
        match target {
            Target::Container => Ok(&mut self.init),
            Target::Exec(id) => {
                let session = self.execs.iter_mut().find(|session| session.id == *id);
                let gone = || failure::not_running(format!("there is no exec session {}", id.0));
                session.map(|session| &mut session.process).ok_or_else(gone)
            }
        }
    }

    fn running_backend(&mut self) -> Result<&mut Backend, Failure> {
        let gone = || failure::not_running(format!("container {} is not running", self.id));
        if !self.init.is_running() {
            return Err(gone());
        }
        self.backend.as_mut().ok_or_else(|| failure::not_running("the container is gone"))
    }
}

/// Tells whoever reads the monitor's standard error; there is nobody else left to tell.
fn complain(error: &dyn std::error::Error) {
    eprintln!("conex-monitor: {}", failure::other("", error).message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_once_and_wakes_nobody_afterwards() {
        let now = Instant::now();
        let mut patience = Patience::NotNeeded;
        patience.tick(now);
        assert_eq!(patience.deadline(), None);
        patience.begin(now);
        patience.begin(now + LOG_LIMIT);
        assert_eq!(patience.deadline(), Some(now + LOG_LIMIT));
        patience.tick(now + LOG_LIMIT / 2);
        assert_ne!(patience, Patience::Over);
        patience.tick(now + LOG_LIMIT);
        assert_eq!((patience, patience.deadline()), (Patience::Over, None));
    }
}
