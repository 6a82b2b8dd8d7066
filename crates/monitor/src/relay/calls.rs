//! Connections of TCP passed on, each as two: the caller's, and one to the container.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use monitor_protocol::{Failure, Relay};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, connect, recv, send, shutdown,
    socket_with, sockopt,
};

use crate::passed::PassedFds;

/// How many calls are passed on at once; further ones wait in the listener's queue.
const MAX_CALLS: usize = 1024;

/// The listeners and calls of one container.
#[derive(Debug, Default)]
pub(super) struct Calls {
    listeners: Vec<Listener>,
    calls: Vec<Call>,
}

/// What a descriptor is to the calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CallEvent {
    /// Somebody calls.
    Listener(usize),
    /// Either end of a call.
    Call(usize),
}

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    target: SocketAddr,
}

/// A connection of a client's, and the one to the container.
#[derive(Debug)]
struct Call {
    client: OwnedFd,
    container: OwnedFd,
    to_container: Direction,
    to_client: Direction,
    /// Whether the container has answered yet.
    connected: bool,
    broken: bool,
}

/// What goes one way.
#[derive(Debug, Default)]
struct Direction {
    /// Read and not written yet.
    held: Vec<u8>,
    /// Whether nothing more will be read.
    ended: bool,
    /// Whether the reader knows that.
    told: bool,
}

impl Calls {
    /// Listeners as a daemon passed them.
    pub(super) fn take(relays: &[Relay], fds: &mut PassedFds) -> Result<Self, Failure> {
        let listener = |relay: &Relay| Ok(Listener { socket: fds.take(relay.listener)?, target: relay.target });
        Ok(Self { listeners: relays.iter().map(listener).collect::<Result<_, Failure>>()?, calls: Vec::new() })
    }

    /// Puts other listeners in the place of these. Calls go on.
    pub(super) fn replace(&mut self, other: Self) {
        self.listeners = other.listeners;
    }

    /// Tells what to wait for.
    pub(super) fn interests<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>, PollFlags, CallEvent)) {
        if self.calls.len() < MAX_CALLS {
            for (index, listener) in self.listeners.iter().enumerate() {
                add(listener.socket.as_fd(), PollFlags::IN, CallEvent::Listener(index));
            }
        }
        for (index, call) in self.calls.iter().enumerate() {
            for (fd, flags) in call.interests() {
                add(fd, flags, CallEvent::Call(index));
            }
        }
    }

    /// A descriptor is ready.
    pub(super) fn on(&mut self, event: CallEvent, scratch: &mut [u8]) {
        match event {
            CallEvent::Listener(index) => {
                if let Some(call) = self.listeners.get(index).and_then(Listener::accept) {
                    self.calls.push(call);
                }
            }
            CallEvent::Call(index) => {
                if let Some(call) = self.calls.get_mut(index) {
                    call.go_on(scratch);
                }
            }
        }
    }

    /// Forgets calls that have ended.
    pub(super) fn settle(&mut self) {
        self.calls.retain(|call| !call.is_done());
    }
}

impl Listener {
    /// The next call. A client whose container cannot be called sees the connection closed, as the container itself would do.
    fn accept(&self) -> Option<Call> {
        let client = accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()?;
        let family = if self.target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let container = socket_with(family, SocketType::STREAM, flags, None).ok()?;
        match connect(&container, &self.target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(_) => return None,
        }
        for end in [&client, &container] {
            // At worst small packets wait for company.
            let _ = sockopt::set_tcp_nodelay(end, true);
        }
        let (to_container, to_client) = (Direction::default(), Direction::default());
        Some(Call { client, container, to_container, to_client, connected: false, broken: false })
    }
}

impl Call {
    fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let flags = |writes: &Direction, reads: &Direction| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::OUT, !writes.held.is_empty());
            flags.set(PollFlags::IN, !reads.ended && reads.held.is_empty());
            flags
        };
        let (client, container) = if self.connected {
            (flags(&self.to_client, &self.to_container), flags(&self.to_container, &self.to_client))
        } else {
            (PollFlags::empty(), PollFlags::OUT)
        };
        // Even who waits for nothing is told that the other has hung up; one end that is quiet for good must not wake us for ever.
        let ends = [(self.client.as_fd(), client), (self.container.as_fd(), container)];
        ends.into_iter().filter(|(_, flags)| !flags.is_empty())
    }

    fn go_on(&mut self, scratch: &mut [u8]) {
        if !self.connected {
            match sockopt::socket_error(&self.container) {
                Ok(Ok(())) => self.connected = true,
                _ => self.broken = true,
            }
        }
        let done = self.to_container.pass(&self.client, &self.container, scratch);
        let done = done.and_then(|()| self.to_client.pass(&self.container, &self.client, scratch));
        self.broken |= done.is_err();
    }

    fn is_done(&self) -> bool {
        self.broken || (self.to_container.told && self.to_client.told)
    }
}

impl Direction {
    /// Passes on what there is, until the reader takes no more or the writer has no more.
    fn pass(&mut self, from: &OwnedFd, to: &OwnedFd, scratch: &mut [u8]) -> Result<(), Errno> {
        // Others have their turn too: what is left is told of again.
        const ROUNDS: usize = 16;
        for _ in 0..ROUNDS {
            if !self.held.is_empty() {
                let sent = send_some(to, &self.held)?;
                self.held.drain(..sent);
                if !self.held.is_empty() {
                    return Ok(());
                }
                self.held.shrink_to_fit();
            }
            if self.ended {
                if !self.told {
                    self.told = true;
                    let _ = shutdown(to, Shutdown::Write);
                }
                return Ok(());
            }
            match recv(from, &mut *scratch, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => self.ended = true,
                Ok((_, length)) => {
                    let sent = send_some(to, &scratch[..length])?;
                    self.held.extend_from_slice(&scratch[sent..length]);
                }
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Sends as much as is taken now.
fn send_some(to: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    match send(to, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        result => result,
    }
}
