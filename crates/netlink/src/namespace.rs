//! Network namespaces: making them, and working inside them.
//!
//! The namespace of a thread decides where its sockets are opened and which `/proc/sys/net` it sees. Work inside another one is
//! done on a helper thread, so that no thread of the caller's is ever left in the wrong place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use linux::namespace::{NETWORK, join, unshare};
use thiserror::Error;

use crate::socket::Errno;

/// Why a namespace cannot be made or entered.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// The kernel makes no new one.
    #[error("cannot create a network namespace: {0}")]
    Create(#[source] Errno),
    /// It cannot be entered.
    #[error("cannot enter a network namespace: {0}")]
    Enter(#[source] Errno),
    /// Its descriptor cannot be had.
    #[error("cannot open the current network namespace: {0}")]
    Open(#[source] std::io::Error),
    /// There is no thread to do it on.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// Moves this thread into a new network namespace, of which it returns a descriptor. For threads that exist for this.
pub fn leave_for_new() -> Result<OwnedFd, NamespaceError> {
    unshare(NETWORK).map_err(NamespaceError::Create)?;
    current()
}

/// The network namespace of this thread.
pub fn current() -> Result<OwnedFd, NamespaceError> {
    Ok(std::fs::File::open("/proc/thread-self/ns/net").map_err(NamespaceError::Open)?.into())
}

/// A new network namespace, in which nothing is up.
pub fn create() -> Result<OwnedFd, NamespaceError> {
    on_thread(leave_for_new)?
}

/// Runs `work` in `namespace`.
pub fn within<R: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> R + Send) -> Result<R, NamespaceError> {
    on_thread(|| {
        join(namespace.as_fd(), NETWORK).map_err(NamespaceError::Enter)?;
        Ok(work())
    })?
}

fn on_thread<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, NamespaceError> {
    thread::scope(|scope| {
        let helper = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work);
        let helper = helper.map_err(NamespaceError::Thread)?;
        match helper.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
