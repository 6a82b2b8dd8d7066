//! One monitor's socket, made async: requests with their replies, and events.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use monitor_protocol::{
    Decoder, Event, Failure, FailureKind, FromMonitor, Hello, Outbox, Request, RequestId, Response, ToMonitor, Waiting,
    socket,
};
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};

use super::pool::{LAUNCH_ID, Launched};

/// Requests that may wait for one monitor.
const REQUEST_QUEUE: usize = 64;
/// Events that may wait for one container's actor; more are kept in the connection's own list.
pub(super) const EVENT_QUEUE: usize = 64;
/// How long a monitor that was found again may take to greet.
const HELLO_LIMIT: Duration = Duration::from_secs(60);

/// What arrives unasked.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Something happened.
    Event(Event),
    /// The monitor is gone.
    Closed,
}

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MonitorError {
    /// The monitor refused.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// It is gone, or does not speak our language.
    #[error("the container's monitor is gone")]
    Gone,
    /// It cannot be reached.
    #[error("cannot reach the container's monitor")]
    Unreachable(#[source] io::Error),
}

impl MonitorError {
    /// What kind of refusal it was.
    pub(crate) fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Refused(failure) => Some(failure.kind),
            Self::Gone | Self::Unreachable(_) => None,
        }
    }
}

type Answer = Result<(Response, Vec<OwnedFd>), MonitorError>;

#[derive(Debug)]
struct Outgoing {
    request: Request,
    fds: Vec<OwnedFd>,
    answer: oneshot::Sender<Answer>,
}

/// A handle to a monitor; cheap to clone. The socket closes when the last one is gone, which a monitor does not mind.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    requests: mpsc::Sender<Outgoing>,
}

impl Connection {
    /// Takes over a monitor that has just been given its container; also returns the answer to that.
    pub(crate) fn adopt(launched: Launched) -> io::Result<(Connection, mpsc::Receiver<Incoming>, LaunchAnswer)> {
        let (answer, started) = oneshot::channel();
        let waiting = HashMap::from([(LAUNCH_ID, answer)]);
        let Launched { socket, decoder, child } = launched;
        let (connection, events) = spawn(socket, decoder, Some(child), waiting)?;
        Ok((connection, events, LaunchAnswer(started)))
    }

    /// Finds a monitor again after a restart of the daemon.
    pub(crate) async fn connect(
        path: &Path,
    ) -> Result<(Connection, mpsc::Receiver<Incoming>, Box<Hello>), MonitorError> {
        let path = path.to_owned();
        let connected = tokio::task::spawn_blocking(move || greet(&path)).await.map_err(|_| MonitorError::Gone)?;
        let (socket, decoder, hello) = connected.map_err(MonitorError::Unreachable)?;
        let (connection, events) = spawn(socket, decoder, None, HashMap::new()).map_err(MonitorError::Unreachable)?;
        Ok((connection, events, hello))
    }

    /// Asks for something that is answered without descriptors.
    pub(crate) async fn request(&self, request: Request, fds: Vec<OwnedFd>) -> Result<Response, MonitorError> {
        self.request_fds(request, fds).await.map(|(response, _)| response)
    }

    /// Asks for something that is answered with descriptors.
    pub(crate) async fn request_fds(&self, request: Request, fds: Vec<OwnedFd>) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Outgoing { request, fds, answer }).await.map_err(|_| MonitorError::Gone)?;
        answered.await.map_err(|_| MonitorError::Gone)?
    }

    /// Asks without wanting to know.
    pub(crate) fn tell(&self, request: Request) {
        let (answer, _) = oneshot::channel();
        let _ = self.requests.try_send(Outgoing { request, fds: Vec::new(), answer });
    }
}

/// The answer to a launch.
#[derive(Debug)]
pub(crate) struct LaunchAnswer(oneshot::Receiver<Answer>);

impl LaunchAnswer {
    /// Waits for it.
    pub(crate) async fn get(self) -> Result<Response, MonitorError> {
        self.0.await.map_err(|_| MonitorError::Gone)?.map(|(response, _)| response)
    }
}

fn greet(path: &Path) -> io::Result<(UnixStream, Decoder, Box<Hello>)> {
    let socket = socket::connect(path)?;
    socket.set_read_timeout(Some(HELLO_LIMIT))?;
    let mut decoder = Decoder::new();
    let odd = |_| io::Error::new(io::ErrorKind::InvalidData, "the monitor does not greet");
    loop {
        if let Some(frame) = decoder.next_frame().map_err(|error| odd(error.to_string()))? {
            return match FromMonitor::from_json(&frame.body).map_err(|error| odd(error.to_string()))? {
                FromMonitor::Hello(hello) => Ok((socket, decoder, hello)),
                _ => Err(odd(String::new())),
            };
        }
        if socket::receive(socket.as_fd(), &mut decoder, Waiting::Block)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn spawn(
    socket: UnixStream,
    decoder: Decoder,
    child: Option<Child>,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
) -> io::Result<(Connection, mpsc::Receiver<Incoming>)> {
    socket.set_nonblocking(true)?;
    let (requests, queue) = mpsc::channel(REQUEST_QUEUE);
    let (events, incoming) = mpsc::channel(EVENT_QUEUE);
    let line = Line {
        socket: tokio::net::UnixStream::from_std(socket)?,
        decoder,
        outbox: Outbox::new(),
        waiting,
        next_id: LAUNCH_ID + 1,
        events,
        backlog: VecDeque::new(),
    };
    tokio::spawn(async move {
        line.run(queue).await;
        if let Some(mut child) = child {
            // It hangs up as its last act; this only collects it.
            let _ = tokio::task::spawn_blocking(move || child.wait()).await;
        }
    });
    Ok((Connection { requests }, incoming))
}

/// The task's side of a connection.
#[derive(Debug)]
struct Line {
    socket: tokio::net::UnixStream,
    decoder: Decoder,
    outbox: Outbox,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    next_id: u64,
    events: mpsc::Sender<Incoming>,
    backlog: VecDeque<Event>,
}

impl Line {
    async fn run(mut self, mut queue: mpsc::Receiver<Outgoing>) {
        // What came with the greeting.
        let mut alive = self.take_frames();
        let mut asking = true;
        let events = self.events.clone();
        while alive {
            let (sending, telling) = (self.outbox.waiting_bytes() > 0, !self.backlog.is_empty());
            tokio::select! {
                biased;
                ready = self.socket.readable() => {
                    alive = ready.is_ok() && self.receive();
                }
                outgoing = queue.recv(), if asking => match outgoing {
                    Some(outgoing) => alive = self.ask(outgoing),
                    // Without events to tell nobody listens any more either.
                    None => { asking = false; alive = !events.is_closed(); }
                },
                ready = self.socket.writable(), if sending => {
                    alive = ready.is_ok() && self.flush();
                }
                permit = events.reserve(), if telling => match permit {
                    Ok(permit) => if let Some(event) = self.backlog.pop_front() { permit.send(Incoming::Event(event)) },
                    Err(_) => self.backlog.clear(),
                },
            }
        }
        self.end().await;
    }

    fn ask(&mut self, outgoing: Outgoing) -> bool {
        let id = self.next_id;
        self.next_id += 1;
        let message = ToMonitor { id: RequestId(id), request: outgoing.request };
        if let Err(error) = self.outbox.push(&message, outgoing.fds) {
            let failure = Failure { kind: FailureKind::Invalid, stage: "message".into(), message: error.to_string() };
            let _ = outgoing.answer.send(Err(MonitorError::Refused(failure)));
            return true;
        }
        self.waiting.insert(id, outgoing.answer);
        self.flush()
    }

    /// Reads what is there; false when the connection is of no use any more.
    fn receive(&mut self) -> bool {
        let socket = &self.socket;
        let decoder = &mut self.decoder;
        match socket.try_io(Interest::READABLE, || socket::receive(socket.as_fd(), decoder, Waiting::DontWait)) {
            Ok(0) => false,
            Ok(_) => self.take_frames(),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Writes what the socket takes; false when the connection is of no use any more.
    fn flush(&mut self) -> bool {
        let socket = &self.socket;
        let outbox = &mut self.outbox;
        match socket.try_io(Interest::WRITABLE, || outbox.flush(socket.as_fd(), Waiting::DontWait)) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Hands on every whole message; false when the peer does not keep to the format.
    fn take_frames(&mut self) -> bool {
        loop {
            match self.decoder.next_frame() {
                Ok(None) => return true,
                Ok(Some(frame)) => self.take(&frame.body, frame.fds),
                Err(error) => {
                    tracing::error!("a monitor's message cannot be read: {error}");
                    return false;
                }
            }
        }
    }

    /// A message that this version does not know is skipped: monitors may be newer.
    fn take(&mut self, body: &[u8], fds: Vec<OwnedFd>) {
        match FromMonitor::from_json(body) {
            Ok(FromMonitor::Reply(reply)) => {
                if let Some(answer) = self.waiting.remove(&reply.id.0) {
                    let _ = answer.send(reply.result.map(|response| (response, fds)).map_err(MonitorError::Refused));
                }
            }
            Ok(FromMonitor::Event(event)) => self.tell(event),
            Ok(FromMonitor::Hello(_)) => {}
            Err(error) => tracing::warn!("a monitor's message is skipped: {error}"),
        }
    }

    fn tell(&mut self, event: Event) {
        if !self.backlog.is_empty() {
            self.backlog.push_back(event);
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(Incoming::Event(event))) =
            self.events.try_send(Incoming::Event(event))
        {
            self.backlog.push_back(event);
        }
    }

    async fn end(mut self) {
        for (_, answer) in self.waiting.drain() {
            let _ = answer.send(Err(MonitorError::Gone));
        }
        for event in self.backlog.drain(..) {
            let _ = self.events.send(Incoming::Event(event)).await;
        }
        let _ = self.events.send(Incoming::Closed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the run folder's path is long, a daemon that comes back must not take its containers for lost.
    #[test]
    fn a_monitor_is_found_at_a_path_that_is_longer_than_an_address() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("run".repeat(30));
        std::fs::create_dir(&long).unwrap();
        let path = long.join(format!("{}.sock", "a".repeat(64)));
        let listener = std::os::unix::net::UnixListener::from(socket::listen(&path).unwrap());
        listener.set_nonblocking(false).unwrap();
        let greeting = std::thread::spawn(move || greet(&path).map(drop));
        drop(listener.accept().unwrap());
        assert_eq!(greeting.join().unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
