//! What comes to ports of the host that the kernel cannot translate, passed on to the container: by IPv6 to a container that has IPv4
//! alone, and at IPv6's loopback. It outlives the daemon as the container does.
//!
//! | module | what it holds |
//! |---|---|
//! | `calls` | connections of TCP |
//! | `conversations` | datagrams of UDP, and who sent them |
//! | `callers` | who is remembered for how long; pure |

mod callers;
mod calls;
mod conversations;

use std::os::fd::BorrowedFd;
use std::time::Instant;

use monitor_protocol::{Failure, Relay};
use rustix::event::PollFlags;

use crate::passed::PassedFds;
use calls::{CallEvent, Calls};
use conversations::{ConversationEvent, Conversations};

/// The ports of one container that are relayed.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    calls: Calls,
    conversations: Conversations,
}

/// What a descriptor is to the relays.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RelayEvent {
    /// Something of TCP.
    Call(CallEvent),
    /// Something of UDP.
    Conversation(ConversationEvent),
}

impl Relays {
    /// Sockets as a daemon passed them: `streams` listen, `datagrams` are bound.
    pub(crate) fn take(streams: &[Relay], datagrams: &[Relay], fds: &mut PassedFds) -> Result<Relays, Failure> {
        Ok(Relays { calls: Calls::take(streams, fds)?, conversations: Conversations::take(datagrams, fds)? })
    }

    /// Puts other sockets in the place of these. Calls go on; who sends datagrams is led to the new place at once.
    pub(crate) fn replace(&mut self, other: Relays) {
        self.calls.replace(other.calls);
        self.conversations = other.conversations;
    }

    /// Tells what to wait for.
    pub(crate) fn interests<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>, PollFlags, RelayEvent)) {
        self.calls.interests(&mut |fd, flags, event| add(fd, flags, RelayEvent::Call(event)));
        self.conversations.interests(&mut |fd, flags, event| add(fd, flags, RelayEvent::Conversation(event)));
    }

    /// When to call [`Relays::settle`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.conversations.deadline()
    }

    /// A descriptor is ready. Which one may have changed since: nothing here waits, so that does no harm.
    pub(crate) fn on(&mut self, event: RelayEvent, scratch: &mut [u8], now: Instant) {
        match event {
            RelayEvent::Call(event) => self.calls.on(event, scratch),
            RelayEvent::Conversation(event) => self.conversations.on(event, scratch, now),
        }
    }

    /// Forgets what has ended.
    pub(crate) fn settle(&mut self, now: Instant) {
        self.calls.settle();
        self.conversations.settle(now);
    }
}
