//! One connection to a daemon.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use monitor_protocol::{Decoder, Frame, FromMonitor, Outbox, Waiting, socket};
use rustix::event::PollFlags;

/// A daemon that lets so much lie is not listening any more. It finds everything on disk, should it come back.
const MAX_WAITING_BYTES: usize = 2 * 1024 * 1024;
/// How many frames are taken from one connection before others have their turn.
const FRAMES_PER_TURN: usize = 16;

/// A daemon.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    decoder: Decoder,
    outbox: Outbox,
    open: bool,
}

impl Connection {
    /// Over a connected stream socket.
    pub(crate) fn new(socket: OwnedFd) -> Connection {
        Connection { socket, decoder: Decoder::new(), outbox: Outbox::new(), open: true }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the daemon is still there.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether something waits to be sent.
    pub(crate) fn has_waiting(&self) -> bool {
        self.open && self.outbox.waiting_bytes() > 0
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> PollFlags {
        if self.has_waiting() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
    }

    /// Puts a message into the queue; [`Connection::flush`] sends it.
    pub(crate) fn push(&mut self, message: &FromMonitor, fds: Vec<OwnedFd>) {
        let too_much = self.outbox.waiting_bytes() > MAX_WAITING_BYTES;
        if too_much || self.outbox.push(message, fds).is_err() {
            self.open = false;
        }
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self) {
        if let Err(error) = self.outbox.flush(self.socket.as_fd(), Waiting::DontWait)
            && error.kind() != std::io::ErrorKind::WouldBlock
        {
            self.open = false;
        }
    }

    /// Reads once, and returns the whole messages that are there now.
    pub(crate) fn receive(&mut self) -> Vec<Frame> {
        match socket::receive(self.socket.as_fd(), &mut self.decoder, Waiting::DontWait) {
            Ok(0) => self.open = false,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => self.open = false,
            Ok(_) | Err(_) => {}
        }
        self.whole_frames()
    }

    fn whole_frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames.len() < FRAMES_PER_TURN {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => {
                    self.open = false;
                    break;
                }
            }
        }
        frames
    }
}
