//! The loop: one thread, one struct, one enum of events.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use linux::signal::{self, SignalSet};
use monitor_protocol::{
    Event as News, Failure, FailureKind, FdIndex, Frame, FromMonitor, Hello, Launch, PROTOCOL_VERSION, Reply, Request,
    Response, ToMonitor,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions};

use crate::connection::Connection;
use crate::container::{Container, ContainerEvent, Daemons, Turn};
use crate::passed::PassedFds;
use crate::{failure, identity};

/// How many daemons may be connected at once.
const MAX_CONNECTIONS: usize = 16;
/// How long daemons wait after one could not be accepted: without a free descriptor the next try would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How much is read from a pipe at once: what a pipe holds.
const SCRATCH_BYTES: usize = 64 * 1024;

/// The monitor.
#[derive(Debug)]
pub(crate) struct Monitor {
    signals: OwnedFd,
    connections: Vec<Connection>,
    container: Option<Container>,
    scratch: Vec<u8>,
    /// Daemons are not accepted before this moment.
    accept_again_at: Option<Instant>,
    /// The host's cgroup hierarchies, looked for while there is time; `None` leaves it to the launch, and to its error.
    cgroup_host: Option<cgroups::Host>,
    /// No container will come any more: the launch has failed, or the daemon said so.
    finished: bool,
}

/// What a descriptor is to the monitor.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A child has ended.
    Signal,
    /// A daemon wants to connect.
    Accept,
    /// A daemon says something, or can be told more.
    Connection(usize),
    /// Something of the container's.
    Container(ContainerEvent),
}

/// The monitor cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub(crate) struct MonitorError {
    action: &'static str,
    source: Errno,
}

impl Monitor {
    /// A monitor that waits for its launch on `socket`.
    pub(crate) fn new(socket: OwnedFd) -> Result<Monitor, MonitorError> {
        let signals = signal::descriptor(SignalSet::NONE.with(Signal::CHILD.as_raw()))
            .map_err(|source| MonitorError { action: "read signals", source })?;
        let mut monitor = Monitor {
            signals,
            connections: Vec::new(),
            container: None,
            scratch: vec![0; SCRATCH_BYTES],
            accept_again_at: None,
            cgroup_host: cgroups::Host::detect().ok(),
            finished: false,
        };
        monitor.welcome(socket);
        Ok(monitor)
    }

    /// Goes round until nothing is left to do.
    pub(crate) fn run(&mut self) -> Result<(), MonitorError> {
        while !self.is_done() {
            for (event, ready) in self.wait()? {
                self.on(event, ready);
            }
            self.settle();
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let nothing_to_tell = !self.connections.iter().any(Connection::has_waiting);
        match &self.container {
            Some(container) => container.is_done() && nothing_to_tell,
            None => self.connections.is_empty() || (self.finished && nothing_to_tell),
        }
    }

    /// Waits for something to happen, and returns all that has.
    fn wait(&self) -> Result<Vec<(Event, PollFlags)>, MonitorError> {
        let mut fds = Vec::with_capacity(16);
        let mut events = Vec::with_capacity(16);
        self.interests(&mut |fd, flags, event| {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            events.push(event);
        });
        match poll(&mut fds, self.timeout().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(source) => return Err(MonitorError { action: "wait for events", source }),
        }
        let ready = fds.iter().map(PollFd::revents).zip(events).filter(|(ready, _)| !ready.is_empty());
        Ok(ready.map(|(ready, event)| (event, ready)).collect())
    }

    fn interests<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>, PollFlags, Event)) {
        add(self.signals.as_fd(), PollFlags::IN, Event::Signal);
        for (index, connection) in self.connections.iter().enumerate() {
            add(connection.socket(), connection.interest(), Event::Connection(index));
        }
        let Some(container) = &self.container else { return };
        let accepts = self.connections.len() < MAX_CONNECTIONS && self.accept_again_at.is_none();
        if let Some(listener) = container.listener().filter(|_| accepts) {
            add(listener.socket(), PollFlags::IN, Event::Accept);
        }
        container.interests(&mut |fd, flags, event| add(fd, flags, Event::Container(event)));
    }

    fn timeout(&self) -> Option<Timespec> {
        let of_container = self.container.as_ref().and_then(Container::deadline);
        let deadline = of_container.into_iter().chain(self.accept_again_at).min()?;
        let left = deadline.saturating_duration_since(Instant::now());
        Some(Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() })
    }

    fn on(&mut self, event: Event, ready: PollFlags) {
        match event {
            Event::Signal => self.reap(),
            Event::Accept => self.accept(),
            Event::Connection(index) => self.on_connection(index, ready),
            Event::Container(event) => {
                if let Some(container) = &mut self.container {
                    let turn = &mut Turn { scratch: &mut self.scratch, now: Instant::now() };
                    container.on(event, ready, turn);
                }
            }
        }
    }

    fn reap(&mut self) {
        // One signal may stand for many children, so the number read does not matter.
        while let Ok(Some(_)) = signal::read_descriptor(self.signals.as_fd()) {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(container) = &mut self.container {
                let turn = &mut Turn { scratch: &mut self.scratch, now: Instant::now() };
                container.child_ended(pid.as_raw_nonzero().get(), status, turn);
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = self.container.as_ref().and_then(Container::listener) else { return };
        match listener.accept() {
            Ok(socket) => self.welcome(socket),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => self.accept_again_at = Some(Instant::now() + ACCEPT_PAUSE),
        }
    }

    fn welcome(&mut self, socket: OwnedFd) {
        let mut connection = Connection::new(socket);
        connection.push(&FromMonitor::Hello(Box::new(self.hello())), Vec::new());
        connection.flush();
        self.connections.push(connection);
    }

    fn hello(&self) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            monitor_pid: rustix::process::getpid().as_raw_nonzero().get(),
            container: self.container.as_ref().map(Container::status),
        }
    }

    fn on_connection(&mut self, index: usize, ready: PollFlags) {
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            for frame in self.connections[index].receive() {
                self.answer(index, frame);
            }
        }
        self.connections[index].flush();
    }

    fn answer(&mut self, index: usize, frame: Frame) {
        let (id, answer) = match ToMonitor::from_json(&frame.body) {
            Ok(message) => (message.id, self.handle(message.request, PassedFds::new(frame.fds))),
            Err(unreadable) => match unreadable.id {
                Some(id) => (id, Err(failure::of(FailureKind::Unsupported, "request", &unreadable))),
                None => return,
            },
        };
        let (result, fds) = match answer {
            Ok((response, fds)) => (Ok(response), fds),
            Err(failure) => (Err(failure), Vec::new()),
        };
        self.connections[index].push(&FromMonitor::Reply(Reply { id, result }), fds);
    }

    fn handle(&mut self, request: Request, mut fds: PassedFds) -> Result<(Response, Vec<OwnedFd>), Failure> {
        match request {
            Request::Launch(launch) => return Ok((self.launch(*launch, fds)?, Vec::new())),
            Request::Status => return Ok((Response::Status(Box::new(self.hello())), Vec::new())),
            Request::Shutdown => return Ok((self.shut_down()?, Vec::new())),
            _ => {}
        }
        let container = self.container.as_mut().ok_or_else(|| failure::not_running("there is no container yet"))?;
        if let Request::RootfsFd = request {
            return Ok((Response::Rootfs { fd: FdIndex(0) }, vec![container.rootfs()?]));
        }
        Ok((ask_container(container, request, &mut fds)?, Vec::new()))
    }

    fn launch(&mut self, launch: Launch, fds: PassedFds) -> Result<Response, Failure> {
        if self.container.is_some() || self.finished {
            return Err(failure::conflict("this monitor has a container already"));
        }
        identity::ignore_signals();
        match Container::launch(launch, fds, self.cgroup_host.as_ref()) {
            Ok(container) => {
                self.cgroup_host = None;
                Ok(self.container.insert(container).started())
            }
            Err(failure) => {
                self.finished = true;
                Err(failure)
            }
        }
    }

    fn shut_down(&mut self) -> Result<Response, Failure> {
        if self.container.is_some() {
            return Err(failure::conflict("the monitor has a container"));
        }
        self.finished = true;
        Ok(Response::Done)
    }

    /// The end of a turn: lets the container take its steps, and tells daemons what came of them.
    fn settle(&mut self) {
        self.accept_again_at = self.accept_again_at.filter(|moment| *moment > Instant::now());
        self.settle_container();
        self.connections.iter_mut().for_each(Connection::flush);
        if let Some(container) = &mut self.container {
            // The daemon has its answer by now; what follows is not in its way.
            container.do_background_work(Instant::now());
        }
        self.settle_container();
        self.connections.iter_mut().for_each(Connection::flush);
        self.connections.retain(Connection::is_open);
    }

    fn settle_container(&mut self) {
        let Some(container) = &mut self.container else { return };
        let any_open = self.connections.iter().any(Connection::is_open);
        let daemons = if any_open { Daemons::Some } else { Daemons::None };
        container.settle(daemons, &mut Turn { scratch: &mut self.scratch, now: Instant::now() });
        while let Some(news) = container.take_news() {
            broadcast(&mut self.connections, &news);
        }
    }
}

fn broadcast(connections: &mut [Connection], news: &News) {
    for connection in connections.iter_mut().filter(|connection| connection.is_open()) {
        connection.push(&FromMonitor::Event(news.clone()), Vec::new());
    }
}

fn ask_container(container: &mut Container, request: Request, fds: &mut PassedFds) -> Result<Response, Failure> {
    match request {
        Request::Attach(attach) => container.attach(attach, fds),
        Request::Detach { attach } => container.detach(attach),
        Request::Exec(exec) => container.exec(*exec, fds),
        Request::Resize { target, size } => container.resize(&target, size),
        Request::Kill { signal, scope } => container.kill(signal.0, &scope),
        Request::Pause => container.pause(),
        Request::Unpause => container.unpause(),
        Request::Update { resources } => container.update(&resources),
        Request::Top => container.top(),
        Request::Stats => container.stats(),
        Request::CloseStdin { target } => container.close_stdin(&target),
        Request::Relay { relays, datagram_relays } => container.relay(&relays, &datagram_relays, fds),
        Request::RotateLogs => container.rotate_log(),
        Request::AcknowledgeExit { target } => container.acknowledge(&target, Instant::now()),
        Request::Launch(_) | Request::Status | Request::Shutdown | Request::RootfsFd => {
            unreachable!("answered by the monitor itself")
        }
    }
}
