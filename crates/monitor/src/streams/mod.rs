//! One process's streams, and the clients attached to them.
//!
//! ```text
//!                  ┌─ client ◀─┐
//!   process ─▶ Output ─▶ log   ├─ 8-byte frames or raw
//!                  └─ client ◀─┘
//!   process ◀─ Stdin ◀─ client, client, …   (detach keys are taken out on the way)
//! ```
//!
//! Nothing here blocks and nothing grows: output is not read while a client still has some of it to take, and clients are
//! not read while the process still has input to take. So a slow client slows the process, as it does with Docker.
//!
//! ```text
//!   Running ──process_ended──▶ Draining ──▶ Drained ──release──▶ Released ──▶ is_done
//!                              (a grandchild    (the exit is     (clients get what
//!                               may hold the     recorded and     is left for them)
//!                               pipes open)      told)
//! ```

mod client;
mod detach;
mod output;
mod stdin;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use monitor_protocol::{Attach, AttachEnd, AttachId, StdinMode, UnixNanos, WindowSize};
use rustix::event::PollFlags;

use client::{Client, ClientInput, MAX_BACKLOG_BYTES};
use output::{Kind, Output, Read};
use stdin::Stdin;

use crate::log::{Log, Stream};

/// How long to go on reading at most after a process has ended; Docker's two seconds.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// When so long nothing came after the end, nothing more is waited for. What the process itself wrote has been read at
/// once; this is for children of it that are just writing their last words.
const DRAIN_QUIET: Duration = Duration::from_millis(100);
/// How long a client may take to fetch what is left for it.
const CLIENT_LIMIT: Duration = Duration::from_secs(600);
/// How many reads one drain makes in a row: more than the largest pipe holds.
const DRAIN_READS: usize = 64;

/// A process's streams.
#[derive(Debug)]
pub(crate) struct Streams {
    stdin: Stdin,
    terminal: bool,
    outputs: Vec<Output>,
    clients: Vec<Client>,
    life: Life,
}

/// How far the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Draining { limit: Instant, quiet: Instant },
    Drained,
    Released { limit: Instant },
}

/// What a descriptor is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEvent {
    /// Output can be read.
    Output(usize),
    /// The process takes input.
    Stdin,
    /// A client takes output, has input, or is gone.
    Client(usize),
}

/// What a step needs from outside.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    /// Where the output is kept.
    pub(crate) log: &'a mut Log,
    /// Room for one read.
    pub(crate) scratch: &'a mut [u8],
    /// The time for the log.
    pub(crate) time: UnixNanos,
    /// The time for deadlines.
    pub(crate) now: Instant,
}

/// A terminal's size cannot be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResizeError {
    /// There is none, or it is gone.
    #[error("cannot resize: the process has no terminal")]
    NoTerminal,
    /// The kernel refused.
    #[error("cannot resize the terminal")]
    Refused(#[from] rustix::io::Errno),
}

impl Streams {
    /// Nobody can be heard: for sessions that nobody attached to.
    pub(crate) fn null() -> Streams {
        Streams::new(Stdin::new(None, StdinMode::Null), Vec::new(), false)
    }

    /// The ends of three pipes; all are non-blocking.
    pub(crate) fn pipes(stdin: Option<OwnedFd>, mode: StdinMode, stdout: OwnedFd, stderr: OwnedFd) -> Streams {
        let stdout = Output::new(stdout, Stream::Stdout, Kind::Pipe);
        let stderr = Output::new(stderr, Stream::Stderr, Kind::Pipe);
        Streams::new(Stdin::new(stdin, mode), vec![stdout, stderr], false)
    }

    /// A terminal's master, twice; it is non-blocking.
    pub(crate) fn terminal(master: OwnedFd, input: OwnedFd, mode: StdinMode) -> Streams {
        let input = (mode != StdinMode::Null).then_some(input);
        let output = Output::new(master, Stream::Stdout, Kind::Terminal);
        Streams::new(Stdin::new(input, mode), vec![output], true)
    }

    fn new(stdin: Stdin, outputs: Vec<Output>, terminal: bool) -> Streams {
        Streams { stdin, terminal, outputs, clients: Vec::new(), life: Life::Running }
    }

    /// Connects a client.
    pub(crate) fn attach(&mut self, attach: &Attach, socket: OwnedFd) {
        let mut client = Client::new(attach, socket, self.stdin.mode() != StdinMode::Null);
        client.pass(&attach.early_input, self.stdin.queue());
        self.stdin.flush();
        if matches!(self.life, Life::Released { .. }) {
            client.end_with(AttachEnd::ProcessEnded);
        }
        self.clients.push(client);
    }

    /// Hangs up on a client; says whether there was one.
    pub(crate) fn detach(&mut self, id: AttachId) -> bool {
        let client = self.clients.iter_mut().find(|client| client.id() == id);
        client.map(|client| client.end_with(AttachEnd::Requested)).is_some()
    }

    /// Who is attached.
    pub(crate) fn attached(&self) -> impl Iterator<Item = AttachId> {
        self.clients.iter().filter(|client| client.end().is_none()).map(Client::id)
    }

    /// Ends the process's input behind what is on its way.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin.close();
    }

    /// Sets the terminal's size.
    pub(crate) fn resize(&mut self, size: WindowSize) -> Result<(), ResizeError> {
        let terminal =
            self.outputs.first().filter(|_| self.terminal).and_then(Output::fd).ok_or(ResizeError::NoTerminal)?;
        Ok(linux::terminal::set_size(terminal, size.height, size.width)?)
    }

    /// Tells what to wait for.
    pub(crate) fn interests<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>, PollFlags, StreamEvent)) {
        for (index, output) in self.outputs.iter().enumerate() {
            if let Some(fd) = output.ready_fd().filter(|_| self.may_read(output.stream())) {
                add(fd, PollFlags::IN, StreamEvent::Output(index));
            }
        }
        if let Some(fd) = self.stdin.waiting_fd() {
            add(fd, PollFlags::OUT, StreamEvent::Stdin);
        }
        for (index, client) in self.clients.iter().enumerate() {
            if let Some(flags) = client.interest(self.stdin.accepts()) {
                add(client.socket(), flags, StreamEvent::Client(index));
            }
        }
    }

    /// When to call [`Streams::tick`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let of_life = match self.life {
            Life::Draining { limit, quiet } => Some(limit.min(quiet)),
            Life::Released { limit } if !self.clients.is_empty() => Some(limit),
            Life::Running | Life::Drained | Life::Released { .. } => None,
        };
        self.outputs.iter().filter_map(Output::not_before).chain(of_life).min()
    }

    /// A descriptor is ready.
    pub(crate) fn on(&mut self, event: StreamEvent, ready: PollFlags, around: &mut Surroundings<'_>) {
        match event {
            StreamEvent::Output(index) => drop(self.read_output(index, around)),
            StreamEvent::Stdin => self.stdin.flush(),
            StreamEvent::Client(index) => self.on_client(index, ready, around.scratch),
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.outputs.iter_mut().for_each(|output| output.tick(now));
        match self.life {
            Life::Released { limit } if now >= limit => self.clients.iter_mut().for_each(Client::hang_up),
            _ => {}
        }
    }

    /// The process has ended: reads what it has left.
    pub(crate) fn process_ended(&mut self, around: &mut Surroundings<'_>) {
        self.life = Life::Draining { limit: around.now + DRAIN_LIMIT, quiet: around.now + DRAIN_QUIET };
        self.stdin = Stdin::new(None, self.stdin.mode());
        for index in 0..self.outputs.len() {
            self.read_all(index, around);
        }
    }

    /// Whether all output has been read, or has been waited for long enough. Becomes true once and stays so.
    pub(crate) fn drained(&mut self, around: &mut Surroundings<'_>) -> bool {
        let Life::Draining { limit, quiet } = self.life else {
            return self.life != Life::Running;
        };
        let is_over = around.now >= limit.min(quiet) || self.outputs.iter().all(|output| !output.is_open());
        if is_over {
            for output in self.outputs.iter_mut().filter(|output| output.is_open()) {
                output.close();
                around.log.finish(output.stream(), around.time);
            }
            self.life = Life::Drained;
        }
        is_over
    }

    /// Lets clients leave: who asks for the exit code now, finds it.
    pub(crate) fn release(&mut self, now: Instant) {
        if self.life == Life::Drained {
            self.life = Life::Released { limit: now + CLIENT_LIMIT };
            self.clients.iter_mut().for_each(|client| client.end_with(AttachEnd::ProcessEnded));
        }
    }

    /// Lets go of the clients that are done, and tells which and why.
    pub(crate) fn take_ended(&mut self) -> Vec<(AttachId, AttachEnd)> {
        let done = self.clients.extract_if(.., |client| client.is_done());
        done.filter_map(|client| client.end().map(|why| (client.id(), why))).collect()
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.life, Life::Released { .. }) && self.clients.is_empty()
    }

    /// Whether output may be read: everybody has taken what was read before, or the process has ended and it must be fetched.
    fn may_read(&self, stream: Stream) -> bool {
        let allowed = if self.life == Life::Running { 1 } else { MAX_BACKLOG_BYTES };
        !self.clients.iter().any(|client| client.wants(stream) && client.backlog_bytes() >= allowed)
    }

    fn read_output(&mut self, index: usize, around: &mut Surroundings<'_>) -> Read {
        let output = &mut self.outputs[index];
        let stream = output.stream();
        let read = output.read(around.scratch, self.life == Life::Running);
        match read {
            Read::Bytes(count) => {
                let chunk = &around.scratch[..count];
                self.clients
                    .iter_mut()
                    .filter(|client| client.wants(stream))
                    .for_each(|client| client.deliver(stream, chunk));
                around.log.push(stream, chunk, around.time);
                self.stay_awake(around.now);
            }
            Read::End => around.log.finish(stream, around.time),
            Read::Nothing => {}
        }
        read
    }

    fn read_all(&mut self, index: usize, around: &mut Surroundings<'_>) {
        for _ in 0..DRAIN_READS {
            let stream = self.outputs[index].stream();
            if !self.outputs[index].is_open() || !self.may_read(stream) {
                return;
            }
            if !matches!(self.read_output(index, around), Read::Bytes(_)) {
                return;
            }
        }
    }

    fn stay_awake(&mut self, now: Instant) {
        if let Life::Draining { quiet, .. } = &mut self.life {
            *quiet = now + DRAIN_QUIET;
        }
    }

    fn on_client(&mut self, index: usize, ready: PollFlags, scratch: &mut [u8]) {
        let client = &mut self.clients[index];
        if ready.contains(PollFlags::OUT) {
            client.flush();
        }
        if ready.intersects(PollFlags::HUP | PollFlags::ERR) && client.has_no_input() {
            client.hang_up();
        } else if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !client.has_no_input() {
            self.read_client(index, scratch);
        }
    }

    fn read_client(&mut self, index: usize, scratch: &mut [u8]) {
        let client = &mut self.clients[index];
        let input = client.read(scratch, self.stdin.queue());
        self.stdin.flush();
        if input == ClientInput::End {
            self.client_input_ended(index);
        }
    }

    /// The input that may be given once ends with the client's. On a terminal, a client that cannot type any more leaves, as with
    /// Docker; otherwise it stays for the output.
    fn client_input_ended(&mut self, index: usize) {
        if self.terminal {
            self.clients[index].end_with(AttachEnd::InputEnded);
        } else if self.stdin.mode() == StdinMode::Once {
            self.stdin.close();
        }
    }
}

#[cfg(test)]
mod tests;
