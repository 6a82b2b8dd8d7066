//! The socket on which the monitor waits for the next daemon.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use monitor_protocol::socket;
use rustix::net::{SocketFlags, accept_with};

/// A listening socket; dropped, its file goes too.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {path}")]
pub(crate) struct ListenError {
    path: PathBuf,
    source: io::Error,
}

impl Listener {
    /// Makes the socket, for this user alone, in place of one that an earlier run has left.
    pub(crate) fn bind(path: &Path) -> Result<Listener, ListenError> {
        let bound = remove_stale(path).and_then(|()| socket::listen(path));
        let socket = bound.map_err(|source| ListenError { path: path.to_owned(), source })?;
        Ok(Listener { socket, path: path.to_owned() })
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next daemon. That none waits is an error too.
    pub(crate) fn accept(&self) -> rustix::io::Result<OwnedFd> {
        accept_with(&self.socket, SocketFlags::CLOEXEC)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = fs::remove_file(&self.path);
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
