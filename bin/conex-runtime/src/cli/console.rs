//! A container's terminal: handed over a socket, or joined to our own.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use linux::{Errno, scm};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use super::CommandError;

/// Sends a descriptor to who listens at a Unix socket. The text beside it is a name, as runc sends one.
pub(crate) fn send_to_socket(path: &str, fd: BorrowedFd<'_>, name: &str) -> Result<(), CommandError> {
    let socket = UnixStream::connect(path).map_err(CommandError::file(format!("cannot connect to {path}")))?;
    let sent = scm::send_fds(socket.as_fd(), name.as_bytes(), &[fd]);
    sent.map_err(CommandError::system(format!("cannot send a descriptor to {path}"))).map(drop)
}

/// Our own terminal in raw mode, given back as it was when this is dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    before: Option<Termios>,
}

impl RawTerminal {
    /// Makes standard input raw, when it is a terminal.
    pub(crate) fn enter() -> Result<RawTerminal, CommandError> {
        let input = rustix::stdio::stdin();
        if !isatty(input) {
            return Ok(RawTerminal { before: None });
        }
        let failed = "cannot make the terminal raw";
        let before = tcgetattr(input).map_err(CommandError::system(failed))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(input, OptionalActions::Now, &raw).map_err(CommandError::system(failed))?;
        Ok(RawTerminal { before: Some(before) })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _the_terminal_may_be_gone = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Gives the container's terminal the size of ours.
pub(crate) fn copy_size(master: BorrowedFd<'_>) {
    if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
        let _the_container_may_be_gone = linux::terminal::set_size(master, size.ws_row, size.ws_col);
    }
}

/// Moves what is there from one descriptor to the other; false at the end.
pub(crate) fn pump(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut bytes = [0; 8192];
    match rustix::io::read(from, &mut bytes) {
        Err(Errno::INTR | Errno::AGAIN) => true,
        // EIO: the last process has closed the other side of a terminal.
        Ok(0) | Err(_) => false,
        Ok(count) => write_all(to, &bytes[..count]),
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
