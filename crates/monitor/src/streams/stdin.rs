//! A process's standard input: what clients typed, on its way.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use monitor_protocol::StdinMode;
use rustix::io::{Errno, write};

/// What waits for the process, and the pipe or terminal it goes to.
#[derive(Debug)]
pub(super) struct Stdin {
    /// `None` once it is closed, by us or by the process.
    fd: Option<OwnedFd>,
    mode: StdinMode,
    queue: Vec<u8>,
    sent: usize,
    /// Close it when the queue is empty.
    closing: bool,
}

impl Stdin {
    /// Input that goes to `fd`, a non-blocking pipe or terminal.
    pub(super) fn new(fd: Option<OwnedFd>, mode: StdinMode) -> Stdin {
        Stdin { fd, mode, queue: Vec::new(), sent: 0, closing: false }
    }

    pub(super) fn mode(&self) -> StdinMode {
        self.mode
    }

    /// Whether a client may be read: nothing waits. Input for a process that does not listen is thrown away.
    pub(super) fn accepts(&self) -> bool {
        self.queue.is_empty()
    }

    /// The place to append input to; [`Stdin::flush`] afterwards.
    pub(super) fn queue(&mut self) -> &mut Vec<u8> {
        &mut self.queue
    }

    /// The descriptor while something waits for it.
    pub(super) fn waiting_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().filter(|_| !self.queue.is_empty()).map(AsFd::as_fd)
    }

    /// Closes it behind what waits.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.flush();
    }

    /// Gives the process what it takes now.
    pub(super) fn flush(&mut self) {
        while let Some(fd) = self.fd.as_ref().filter(|_| self.sent < self.queue.len()) {
            match write(fd, &self.queue[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The process has closed its end.
                Err(_) => self.fd = None,
            }
        }
        self.queue.clear();
        self.queue.shrink_to(0);
        self.sent = 0;
        if self.closing {
            self.fd = None;
        }
    }
}
