//! Signal masks and dispositions, and signals read from a descriptor.

use std::os::fd::{FromRawFd, OwnedFd};

use crate::Result;
use crate::raw::{check, last_errno};

/// How many signals the kernel has.
pub const COUNT: i32 = 64;

/// A set of signals: bit N-1 is signal N.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SignalSet(pub u64);

impl SignalSet {
    /// No signal.
    pub const NONE: SignalSet = SignalSet(0);
    /// All signals (the kernel leaves out SIGKILL and SIGSTOP by itself).
    pub const ALL: SignalSet = SignalSet(u64::MAX);

    /// The set with `signal` in it too.
    #[must_use]
    pub fn with(self, signal: i32) -> SignalSet {
        SignalSet(self.0 | 1 << (signal - 1))
    }
}

/// Blocks exactly this set in this thread and returns what was blocked before.
pub fn set_mask(set: SignalSet) -> Result<SignalSet> {
    let mut old = 0u64;
    let new = set.0;
    // SAFETY: the kernel's set is 8 bytes, read from `new` and written to `old`.
    check(unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const new, &raw mut old, 8) })?;
    Ok(SignalSet(old))
}

/// Gives `signal` its default disposition.
pub fn set_default(signal: i32) -> Result<()> {
    // SAFETY: SIG_DFL installs no handler of ours.
    if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR { Err(last_errno()) } else { Ok(()) }
}

/// Gives every signal its default disposition, as a program expects that starts afresh.
///
/// execve resets handlers but keeps ignored signals ignored, and Rust's start-up ignores SIGPIPE.
pub fn reset_ignored() {
    // The kernel's structure: handler, flags, restorer, mask; all zero is SIG_DFL.
    let default = [0u64; 4];
    let mut old = [0u64; 4];
    for signal in 1..=COUNT {
        // SAFETY: asks for the disposition; `old` is as large as the kernel's structure of every architecture we build for.
        let asked = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, 0usize, &raw mut old, 8) };
        if asked == 0 && old[0] == libc::SIG_IGN as u64 {
            // SAFETY: SIG_DFL installs no handler of ours.
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, 0usize, 8) };
        }
    }
}

/// A descriptor from which the signals of `set`, which the caller has blocked, are read.
pub fn descriptor(set: SignalSet) -> Result<OwnedFd> {
    let raw = set.0;
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the kernel reads a set of 8 bytes.
    let fd = check(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const raw, 8, flags) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Reads one signal's number from a [`descriptor`]; `None` when none is pending.
pub fn read_descriptor(fd: std::os::fd::BorrowedFd<'_>) -> Result<Option<i32>> {
    // struct signalfd_siginfo is 128 bytes; its first four are the number.
    let mut record = [0u8; 128];
    match rustix::io::read(fd, &mut record) {
        Ok(_) => Ok(Some(i32::from_ne_bytes([record[0], record[1], record[2], record[3]]))),
        Err(crate::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends signal number `signal` (0 only asks) to the process that `pidfd` is of.
pub fn send_to_pidfd(pidfd: std::os::fd::BorrowedFd<'_>, signal: i32) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: no siginfo is given.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0usize, 0usize) }).map(drop)
}

/// Sends signal number `signal` (0 only asks) to process `pid`.
pub fn send(pid: rustix::process::Pid, signal: i32) -> Result<()> {
    // SAFETY: integer arguments.
    check(unsafe { libc::syscall(libc::SYS_kill, pid.as_raw_nonzero().get(), signal) }).map(drop)
}
