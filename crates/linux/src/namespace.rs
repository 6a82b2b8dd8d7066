//! Joining and leaving namespaces.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::Result;
use crate::raw::check;

/// A new mount namespace.
pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
/// A new cgroup namespace.
pub const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
/// A new UTS namespace.
pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
/// A new IPC namespace.
pub const IPC: u64 = libc::CLONE_NEWIPC as u64;
/// A new user namespace.
pub const USER: u64 = libc::CLONE_NEWUSER as u64;
/// A root and working directory of the thread's own, which a thread needs before it joins a mount namespace.
pub const FILE_SYSTEM: u64 = libc::CLONE_FS as u64;
/// A new pid namespace.
pub const PID: u64 = libc::CLONE_NEWPID as u64;
/// A new network namespace.
pub const NETWORK: u64 = libc::CLONE_NEWNET as u64;
/// A new time namespace.
pub const TIME: u64 = 0x80;

/// Moves the thread into the namespace(s): of the one that `fd` is open on (`kinds` 0 or its kind), or, when `fd` is a pidfd,
/// into those of that process which `kinds` names.
pub fn join(fd: BorrowedFd<'_>, kinds: u64) -> Result<()> {
    // SAFETY: integer arguments.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), kinds as libc::c_int) }).map(drop)
}

/// Moves the thread into new namespaces of these kinds (new pid and time namespaces are for its children).
pub fn unshare(kinds: u64) -> Result<()> {
    // SAFETY: an integer argument; only namespace flags are meaningful to callers of this crate, and those
    // do not separate the descriptor table under other threads' feet.
    check(unsafe { libc::syscall(libc::SYS_unshare, kinds as libc::c_int) }).map(drop)
}

const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// The kind (`CLONE_NEW*`) of the namespace that `fd` is open on.
pub fn kind_of(fd: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: this request takes no argument.
    check(unsafe { libc::syscall(libc::SYS_ioctl, fd.as_raw_fd(), NS_GET_NSTYPE) }).map(|kind| kind as u64)
}

const NS_GET_USERNS: libc::c_ulong = 0xb701;

/// The user namespace that owns the namespace `fd` is open on.
pub fn owner_of(fd: BorrowedFd<'_>) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: this request takes no argument.
    let owner = check(unsafe { libc::syscall(libc::SYS_ioctl, fd.as_raw_fd(), NS_GET_USERNS) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(owner as i32) })
}

/// Sets the host name of this UTS namespace.
pub fn set_host_name(name: &[u8]) -> Result<()> {
    // SAFETY: pointer and length of one slice.
    check(unsafe { libc::syscall(libc::SYS_sethostname, name.as_ptr(), name.len()) }).map(drop)
}

/// Sets the NIS domain name of this UTS namespace.
pub fn set_domain_name(name: &[u8]) -> Result<()> {
    // SAFETY: pointer and length of one slice.
    check(unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.len()) }).map(drop)
}
