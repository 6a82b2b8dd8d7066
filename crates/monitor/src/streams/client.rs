//! One attached client: a socket that takes output and gives input.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use monitor_protocol::{Attach, AttachEnd, AttachId, Framing};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown};

use super::detach::{DetachFilter, Pressed};
use crate::log::Stream;

/// What waits for a client may grow to this once its process has ended; before that, one chunk waits at most.
pub(super) const MAX_BACKLOG_BYTES: usize = 1024 * 1024;
/// How much unread input is thrown away before a socket is closed, at most.
const MAX_DISCARD_READS: usize = 64;

/// An attached client.
#[derive(Debug)]
pub(super) struct Client {
    id: AttachId,
    socket: OwnedFd,
    framing: Framing,
    stdout: bool,
    stderr: bool,
    input: Input,
    filter: DetachFilter,
    /// Output that the socket did not take yet, and how much of it has been taken meanwhile.
    backlog: Vec<u8>,
    sent: usize,
    end: Option<AttachEnd>,
}

/// A client's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// It was not asked for.
    Unwanted,
    /// There may be more.
    Open,
    /// The client has shut its side down.
    Ended,
}

/// What a read from a client has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientInput {
    /// Nothing yet, or something that was passed on.
    Some,
    /// The client has ended its input.
    End,
}

impl Client {
    /// A client as the daemon describes it. The early input is to be passed on by the caller.
    pub(super) fn new(attach: &Attach, socket: OwnedFd, takes_input: bool) -> Client {
        let input = if attach.streams.stdin && takes_input { Input::Open } else { Input::Unwanted };
        Client {
            id: attach.id,
            socket,
            framing: attach.framing,
            stdout: attach.streams.stdout,
            stderr: attach.streams.stderr,
            input,
            filter: DetachFilter::new(attach.detach_keys.clone()),
            backlog: Vec::new(),
            sent: 0,
            end: None,
        }
    }

    pub(super) fn id(&self) -> AttachId {
        self.id
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Why the client is to leave, or has left.
    pub(super) fn end(&self) -> Option<AttachEnd> {
        self.end
    }

    /// Lets the client leave as soon as everything is delivered. The first reason stays.
    pub(super) fn end_with(&mut self, why: AttachEnd) {
        self.end.get_or_insert(why);
    }

    /// Whether nothing is left to do for a client that leaves.
    pub(super) fn is_done(&self) -> bool {
        self.end.is_some() && !self.has_backlog()
    }

    pub(super) fn has_backlog(&self) -> bool {
        self.sent < self.backlog.len()
    }

    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog.len() - self.sent
    }

    pub(super) fn wants(&self, stream: Stream) -> bool {
        self.end.is_none()
            && match stream {
                Stream::Stdout => self.stdout,
                Stream::Stderr => self.stderr,
            }
    }

    /// What to wait for; `None` while nothing may happen, not even a hang-up: it stands behind input that must wait.
    pub(super) fn interest(&self, accepts_input: bool) -> Option<PollFlags> {
        let output = if self.has_backlog() { PollFlags::OUT } else { PollFlags::empty() };
        match self.input {
            _ if self.end.is_some() => self.has_backlog().then_some(output),
            Input::Open if accepts_input => Some(output | PollFlags::IN),
            Input::Open => self.has_backlog().then_some(output),
            Input::Unwanted | Input::Ended => Some(output),
        }
    }

    /// Whether a hang-up means that the client is gone: all its input has been read.
    pub(super) fn has_no_input(&self) -> bool {
        self.input != Input::Open
    }

    /// Delivers output, or puts it aside until the socket takes it.
    pub(super) fn deliver(&mut self, stream: Stream, chunk: &[u8]) {
        let header = self.header(stream, chunk.len());
        let header = header.as_ref().map_or(&[][..], |header| &header[..]);
        if self.has_backlog() {
            self.put_aside(header, chunk, 0);
            return;
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let slices = [IoSlice::new(header), IoSlice::new(chunk)];
        match sendmsg(&self.socket, &slices, &mut SendAncillaryBuffer::default(), flags) {
            Ok(sent) => self.put_aside(header, chunk, sent),
            Err(Errno::AGAIN | Errno::INTR) => self.put_aside(header, chunk, 0),
            Err(_) => self.hang_up(),
        }
    }

    /// Gives the socket more of what was put aside.
    pub(super) fn flush(&mut self) {
        if !self.has_backlog() {
            return;
        }
        match send(&self.socket, &self.backlog[self.sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => self.sent += count,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.hang_up(),
        }
        if !self.has_backlog() {
            self.backlog = Vec::new();
            self.sent = 0;
        }
    }

    /// Reads input, and appends to `out` what the process should see of it.
    pub(super) fn read(&mut self, scratch: &mut [u8], out: &mut Vec<u8>) -> ClientInput {
        match recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.input = Input::Ended;
                ClientInput::End
            }
            Ok((count, _)) => {
                self.pass(&scratch[..count], out);
                ClientInput::Some
            }
            Err(Errno::AGAIN | Errno::INTR) => ClientInput::Some,
            Err(_) => {
                self.hang_up();
                ClientInput::End
            }
        }
    }

    /// Appends to `out` what the process should see of `input`.
    pub(super) fn pass(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if self.input == Input::Open && self.filter.pass(input, out) == Pressed::Detach {
            self.end_with(AttachEnd::DetachKeys);
        }
    }

    /// The client is gone: nothing can be delivered any more.
    pub(super) fn hang_up(&mut self) {
        self.backlog = Vec::new();
        self.sent = 0;
        self.input = Input::Ended;
        self.end_with(AttachEnd::HungUp);
    }

    fn header(&self, stream: Stream, length: usize) -> Option<[u8; 8]> {
        let number = match stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        let [a, b, c, d] = (length as u32).to_be_bytes();
        (self.framing == Framing::Multiplexed).then_some([number, 0, 0, 0, a, b, c, d])
    }

    fn put_aside(&mut self, header: &[u8], chunk: &[u8], sent: usize) {
        let of_header = sent.min(header.len());
        self.backlog.extend_from_slice(&header[of_header..]);
        self.backlog.extend_from_slice(&chunk[sent - of_header..]);
    }
}

impl Drop for Client {
    /// Ends the stream in an orderly way: the daemon may still hold a copy of the socket, so closing alone does not end it, and
    /// closing with unread input would reset the connection before the client has read its output.
    fn drop(&mut self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
        let mut scratch = [0; 4096];
        for _ in 0..MAX_DISCARD_READS {
            if !matches!(recv(&self.socket, &mut scratch[..], RecvFlags::DONTWAIT), Ok((1.., _))) {
                break;
            }
        }
    }
}
