//! Datagrams of UDP passed on: each caller speaks to the container by a socket of his own, and is answered from where he called.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use linux::datagram::{self, Passage};
use monitor_protocol::{Failure, Relay};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with};

use super::callers::Callers;
use crate::failure;
use crate::passed::PassedFds;

/// How many callers of one container are remembered at once.
const MAX_CALLERS: usize = 1024;
/// How many datagrams are passed on before others have their turn: what is left is told of again.
const ROUNDS: usize = 64;

/// The ports of one container at which datagrams are taken, and who sends them.
#[derive(Debug)]
pub(super) struct Conversations {
    ports: Vec<Port>,
    /// Each with a socket that is connected to the container.
    callers: Callers<Key, OwnedFd>,
}

/// What a descriptor is to the conversations.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ConversationEvent {
    /// Somebody sends to a port.
    Port(usize),
    /// The container answers a caller.
    Caller(usize),
}

/// A caller: one end of the host may speak with several ports, and by several of the host's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    port: usize,
    passage: Passage,
}

#[derive(Debug)]
struct Port {
    socket: OwnedFd,
    target: SocketAddr,
}

impl Default for Conversations {
    fn default() -> Self {
        Self { ports: Vec::new(), callers: Callers::new(MAX_CALLERS) }
    }
}

impl Conversations {
    /// Bound sockets as a daemon passed them.
    pub(super) fn take(relays: &[Relay], fds: &mut PassedFds) -> Result<Self, Failure> {
        let port = |relay: &Relay| {
            let socket = fds.take(relay.listener)?;
            datagram::tell_passages(socket.as_fd()).map_err(|error| failure::other("relay", &error))?;
            Ok(Port { socket, target: relay.target })
        };
        Ok(Self { ports: relays.iter().map(port).collect::<Result<_, Failure>>()?, ..Self::default() })
    }

    /// Tells what to wait for.
    pub(super) fn interests<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>, PollFlags, ConversationEvent)) {
        for (index, port) in self.ports.iter().enumerate() {
            add(port.socket.as_fd(), PollFlags::IN, ConversationEvent::Port(index));
        }
        for (place, socket) in self.callers.iter().enumerate() {
            add(socket.as_fd(), PollFlags::IN, ConversationEvent::Caller(place));
        }
    }

    /// When to call [`Conversations::settle`] at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.callers.deadline()
    }

    /// A descriptor is ready.
    pub(super) fn on(&mut self, event: ConversationEvent, scratch: &mut [u8], now: Instant) {
        match event {
            ConversationEvent::Port(index) => self.pass_to_container(index, scratch, now),
            ConversationEvent::Caller(place) => self.pass_to_caller(place, scratch, now),
        }
    }

    /// Forgets who was silent for too long.
    pub(super) fn settle(&mut self, now: Instant) {
        self.callers.forget(now);
    }

    /// What cannot be passed on is lost, as datagrams are.
    fn pass_to_container(&mut self, index: usize, scratch: &mut [u8], now: Instant) {
        let Some(port) = self.ports.get(index) else { return };
        for _ in 0..ROUNDS {
            match datagram::receive(port.socket.as_fd(), scratch) {
                Ok((length, passage)) => {
                    let key = Key { port: index, passage };
                    if let Ok(socket) = self.callers.called(key, now, || open(port.target)) {
                        send_on(socket, &scratch[..length]);
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn pass_to_caller(&mut self, place: usize, scratch: &mut [u8], now: Instant) {
        for _ in 0..ROUNDS {
            let Some((Key { port, passage }, socket)) = self.callers.at(place) else { return };
            match recv(socket, &mut *scratch, RecvFlags::DONTWAIT) {
                Ok((_, length)) => {
                    if let Some(port) = self.ports.get(port) {
                        // A caller who is gone is not told of.
                        let _ = datagram::answer(port.socket.as_fd(), &scratch[..length], &passage);
                    }
                    self.callers.answered(place, now);
                }
                // That nobody in the container listens is said once for each datagram.
                Err(Errno::INTR | Errno::CONNREFUSED) => {}
                Err(_) => return,
            }
        }
    }
}

/// A socket that speaks with the container alone.
fn open(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    connect(&socket, &target)?;
    Ok(socket)
}

/// That nobody listened to the datagram before is told at the next one, which is then not sent: it gets a second chance.
fn send_on(socket: &OwnedFd, bytes: &[u8]) {
    let send = || send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    if matches!(send(), Err(Errno::CONNREFUSED | Errno::INTR)) {
        let _ = send();
    }
}
