//! A process's output: a pipe's reading end, or a terminal's master.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::{Errno, read};

use crate::log::Stream;

/// How long to wait before a terminal that nobody has open is looked at again.
const HUNG_TERMINAL_PAUSE: Duration = Duration::from_millis(250);

/// What a process writes to.
#[derive(Debug)]
pub(super) struct Output {
    fd: Option<OwnedFd>,
    stream: Stream,
    kind: Kind,
    /// Not before this moment: the terminal has no process on it just now.
    not_before: Option<Instant>,
}

/// Pipes end for good, terminals may be opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pipe,
    Terminal,
}

/// What a read has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing, never again.
    End,
}

impl Output {
    /// Output read from `fd`, which is non-blocking.
    pub(super) fn new(fd: OwnedFd, stream: Stream, kind: Kind) -> Output {
        Output { fd: Some(fd), stream, kind, not_before: None }
    }

    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    pub(super) fn is_open(&self) -> bool {
        self.fd.is_some()
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// The descriptor, unless there is nothing to be had from it now.
    pub(super) fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().filter(|_| self.not_before.is_none()).map(AsFd::as_fd)
    }

    /// When to look at it again.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.fd.is_some())
    }

    /// Looks at it again if it is time.
    pub(super) fn tick(&mut self, now: Instant) {
        self.not_before = self.not_before.filter(|moment| *moment > now);
    }

    /// Reads once.
    pub(super) fn read(&mut self, scratch: &mut [u8], process_lives: bool) -> Read {
        let Some(fd) = &self.fd else { return Read::End };
        match read(fd, scratch) {
            Ok(count @ 1..) => Read::Bytes(count),
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            // No process has the terminal open. While ours lives, it may open it again (an init does that with its console).
            Err(Errno::IO) if self.kind == Kind::Terminal && process_lives => {
                self.not_before = Some(Instant::now() + HUNG_TERMINAL_PAUSE);
                Read::Nothing
            }
            Ok(0) | Err(_) => {
                self.close();
                Read::End
            }
        }
    }

    pub(super) fn close(&mut self) {
        self.fd = None;
    }
}
