//! The socket between a container's creator and its init: whole messages, a tag first, sometimes a descriptor along.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linux::{Errno, scm};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::error::{Context, Error, Result, Stage};

/// The longest message: an error's text may hold paths and a hook's output.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// What goes over the channel.
#[derive(Debug)]
pub(crate) enum Message {
    /// From init: it failed.
    Failed(Error),
    /// From the intermediate process: init's pid, with its pidfd.
    InitIs(i32, OwnedFd),
    /// From init: its user namespace needs its mappings (and what only a process outside can do for it).
    MapIds,
    /// From init: it waits to be put into its cgroup.
    JoinCgroup,
    /// From init: the master of its terminal.
    Console(OwnedFd),
    /// From init: a mount of the root without what is mounted in it.
    Rootfs(OwnedFd),
    /// From init: the namespaces stand and the mounts are made; the hooks of the runtime may run.
    MountsMade,
    /// From init: everything is done that can be done before `start`.
    Ready,
    /// From init: the listener of seccomp notifications is descriptor N in init.
    SeccompListener(i32),
    /// To init: go on.
    Continue,
}

mod tag {
    pub(super) const FAILED: u8 = b'E';
    pub(super) const INIT_IS: u8 = b'I';
    pub(super) const CONSOLE: u8 = b'T';
    pub(super) const ROOTFS: u8 = b'F';
    pub(super) const MOUNTS_MADE: u8 = b'M';
    pub(super) const READY: u8 = b'R';
    pub(super) const SECCOMP_LISTENER: u8 = b'S';
    pub(super) const MAP_IDS: u8 = b'U';
    pub(super) const JOIN_CGROUP: u8 = b'G';
    pub(super) const CONTINUE: u8 = b'C';
}

/// One end of the channel.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Makes both ends.
    pub(crate) fn pair() -> Result<(Channel, Channel)> {
        let (one, two) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .context(Stage::Namespaces, || "cannot create a socket pair")?;
        Ok((Channel { socket: one }, Channel { socket: two }))
    }

    /// An end that was made elsewhere.
    pub(crate) fn new(socket: OwnedFd) -> Channel {
        Channel { socket }
    }

    /// Sends a message.
    pub(crate) fn send(&self, message: &Message) -> linux::Result<()> {
        let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
        let bytes = match message {
            Message::Failed(error) => {
                let mut bytes = vec![tag::FAILED];
                bytes.extend(error.to_bytes());
                bytes.truncate(MAX_MESSAGE_BYTES);
                bytes
            }
            Message::InitIs(pid, pidfd) => {
                fds.push(pidfd.as_fd());
                [&[tag::INIT_IS][..], &pid.to_ne_bytes()].concat()
            }
            Message::Console(fd) => {
                fds.push(fd.as_fd());
                vec![tag::CONSOLE]
            }
            Message::Rootfs(fd) => {
                fds.push(fd.as_fd());
                vec![tag::ROOTFS]
            }
            Message::MapIds => vec![tag::MAP_IDS],
            Message::JoinCgroup => vec![tag::JOIN_CGROUP],
            Message::MountsMade => vec![tag::MOUNTS_MADE],
            Message::Ready => vec![tag::READY],
            Message::SeccompListener(number) => [&[tag::SECCOMP_LISTENER][..], &number.to_ne_bytes()].concat(),
            Message::Continue => vec![tag::CONTINUE],
        };
        scm::send_fds(self.socket.as_fd(), &bytes, &fds).map(drop)
    }

    /// Waits for a message; `None` when the other side is gone.
    pub(crate) fn receive(&self) -> Result<Option<Message>> {
        let mut bytes = vec![0; MAX_MESSAGE_BYTES];
        let mut fds = Vec::new();
        let count = loop {
            match scm::receive_fds(self.socket.as_fd(), &mut bytes, &mut fds) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                other => break other.context(Stage::Namespaces, || "cannot hear from the container's init")?,
            }
        };
        match bytes[..count].split_first() {
            None => Ok(None),
            Some((tag, rest)) => match decode(*tag, rest, fds) {
                Some(message) => Ok(Some(message)),
                None => Err(Error::new(Stage::Namespaces, "the container's init sent a malformed message")),
            },
        }
    }

    /// Waits until the other side says to go on.
    pub(crate) fn wait_for_continue(&self) -> Result<()> {
        match self.receive()? {
            Some(Message::Continue) => Ok(()),
            _ => Err(Error::new(Stage::Namespaces, "the container's creator is gone")),
        }
    }

    /// The socket itself, to keep it over a `close_range`.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn decode(tag: u8, rest: &[u8], mut fds: Vec<OwnedFd>) -> Option<Message> {
    let number = || rest.try_into().ok().map(i32::from_ne_bytes);
    match tag {
        tag::FAILED => Error::from_bytes(rest).map(Message::Failed),
        tag::INIT_IS => Some(Message::InitIs(number()?, fds.pop()?)),
        tag::CONSOLE => fds.pop().map(Message::Console),
        tag::ROOTFS => fds.pop().map(Message::Rootfs),
        tag::MAP_IDS => Some(Message::MapIds),
        tag::JOIN_CGROUP => Some(Message::JoinCgroup),
        tag::MOUNTS_MADE => Some(Message::MountsMade),
        tag::READY => Some(Message::Ready),
        tag::SECCOMP_LISTENER => number().map(Message::SeccompListener),
        tag::CONTINUE => Some(Message::Continue),
        _ => None,
    }
}

/// Whether a child goes on in a process that it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Successor {
    /// It does, and tells of it by [`Message::InitIs`].
    Expected,
    /// It does not, or has told of it.
    None,
}

/// What a creator hears from its child, in an order that makes sense.
///
/// A child and its successor speak on one channel, and the successor may be faster than the word of who it is. What it says then waits,
/// because it is about that process.
#[derive(Debug)]
pub(crate) struct Inbox<'a> {
    channel: &'a Channel,
    successor: Successor,
    early: VecDeque<Message>,
}

impl<'a> Inbox<'a> {
    pub(crate) fn new(channel: &'a Channel, successor: Successor) -> Self {
        Self { channel, successor, early: VecDeque::new() }
    }

    /// Waits for a message; `None` when nobody is there any more.
    pub(crate) fn receive(&mut self) -> Result<Option<Message>> {
        while self.successor == Successor::Expected {
            match self.channel.receive()? {
                // The child itself waits for the answer to this one.
                Some(Message::MapIds) => return Ok(Some(Message::MapIds)),
                Some(message @ Message::InitIs(..)) => {
                    self.successor = Successor::None;
                    return Ok(Some(message));
                }
                Some(message) => self.early.push_back(message),
                // There is no successor: what was said is the child's own.
                None => self.successor = Successor::None,
            }
        }
        match self.early.pop_front() {
            Some(message) => Ok(Some(message)),
            None => self.channel.receive(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn messages_and_descriptors_arrive() {
        let (here, there) = Channel::pair().unwrap();
        let error = Error::of_kind(Stage::Exec, Kind::NotFound, "exec: \"x\"");
        here.send(&Message::Failed(error.clone())).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        here.send(&Message::InitIs(7, file.into())).unwrap();
        assert!(matches!(there.receive().unwrap(), Some(Message::Failed(got)) if got == error));
        assert!(matches!(there.receive().unwrap(), Some(Message::InitIs(7, _))));
        drop(here);
        assert!(there.receive().unwrap().is_none());
    }

    #[test]
    fn a_successor_is_heard_after_the_word_of_it() {
        let (here, there) = Channel::pair().unwrap();
        for early in [Message::MapIds, Message::SeccompListener(3), Message::JoinCgroup] {
            there.send(&early).unwrap();
        }
        there.send(&Message::InitIs(7, std::fs::File::open("/dev/null").unwrap().into())).unwrap();
        there.send(&Message::Ready).unwrap();
        let mut inbox = Inbox::new(&here, Successor::Expected);
        let mut next = || inbox.receive().unwrap();
        assert!(matches!(next(), Some(Message::MapIds)) && matches!(next(), Some(Message::InitIs(7, _))));
        assert!(matches!(next(), Some(Message::SeccompListener(3))) && matches!(next(), Some(Message::JoinCgroup)));
        assert!(matches!(next(), Some(Message::Ready)));
        drop(there);
        assert!(next().is_none());
    }

    #[test]
    fn a_child_that_fails_before_it_has_a_successor_is_heard() {
        let (here, there) = Channel::pair().unwrap();
        there.send(&Message::Failed(Error::new(Stage::Exec, "no"))).unwrap();
        drop(there);
        let mut inbox = Inbox::new(&here, Successor::Expected);
        assert!(matches!(inbox.receive().unwrap(), Some(Message::Failed(_))));
        assert!(inbox.receive().unwrap().is_none());
    }
}
