//! Pseudo-terminals by descriptor, never by the name in `/dev/pts`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::Result;
use crate::raw::check;

/// Unlocks the other side of this master.
pub fn unlock(master: BorrowedFd<'_>) -> Result<()> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the kernel reads one int.
    check(unsafe { libc::syscall(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })
        .map(drop)
}

/// Opens the other side of this master, from the descriptor itself: no path that a container could replace.
pub fn open_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: an integer argument.
    let peer = check(unsafe { libc::syscall(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(peer as i32) })
}

/// Makes the terminal the controlling one of the calling session leader.
pub fn make_controlling(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: an integer argument.
    check(unsafe { libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Sets the window size.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one winsize.
    check(unsafe { libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}
