//! Descriptors in bulk, and those inherited by number.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::raw::check;
use crate::{Errno, Result};

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: RawFd) -> Result<()> {
    close_on_exec_range(first, RawFd::MAX)
}

/// Marks every descriptor from `first` to `last`, both included, close-on-exec.
pub fn close_on_exec_range(first: RawFd, last: RawFd) -> Result<()> {
    call_close_range(first, last, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on, whoever thinks to own them: for a child that is about to run another program.
pub fn close_from(first: RawFd) -> Result<()> {
    call_close_range(first, RawFd::MAX, 0)
}

/// Closes every descriptor from `first` to `last`, both included, whoever thinks to own them.
pub fn close_range(first: RawFd, last: RawFd) -> Result<()> {
    call_close_range(first, last, 0)
}

fn call_close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> Result<()> {
    if first < 0 || last < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: integer arguments; descriptors are not memory.
    check(unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, last as libc::c_uint, flags) }).map(drop)
}

/// How much memory holds what the other side of a Unix socket has not read yet; 0 when it has read everything.
pub fn unread_by_peer(socket: BorrowedFd<'_>) -> Result<usize> {
    let mut waiting: libc::c_int = 0;
    // SAFETY: the kernel writes one int.
    check(unsafe { libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) })?;
    Ok(usize::try_from(waiting).unwrap_or(0))
}

/// Takes ownership of a descriptor that the process was started with; `None` when that number is not open.
///
/// To be called once for a number, before anything else could have opened it.
pub fn take_inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: fcntl with F_GETFD only asks.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return None;
    }
    // SAFETY: the number is open, and by the contract of this function nobody else in the process owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes `target` another name of `source`, without close-on-exec, closing what `target` was.
pub fn duplicate_onto(source: std::os::fd::BorrowedFd<'_>, target: RawFd) -> Result<()> {
    use std::os::fd::AsRawFd;
    if source.as_raw_fd() == target {
        // dup2 of a descriptor onto itself leaves close-on-exec as it was.
        // SAFETY: integer arguments.
        return check(unsafe { libc::fcntl(target, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: integer arguments.
    check(unsafe { libc::dup2(source.as_raw_fd(), target) }.into()).map(drop)
}
