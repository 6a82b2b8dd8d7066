//! The old way to create a process, for programs that run where `clone3` is refused: Docker's seccomp profile does that inside
//! containers, because it cannot look at that call's arguments.

use rustix::process::Pid;

use crate::Result;
use crate::raw::check;

/// In which of the two processes the call returned.
#[derive(Debug)]
pub enum Forked {
    /// In the new process.
    Child,
    /// In the caller: the child's pid.
    Parent(Pid),
}

/// Creates a process that continues after this call with a copy of the caller's memory.
///
/// The caller must be single-threaded, or at least the other threads must hold no lock (as the allocator's) that the child
/// will need: no `atfork` handler runs.
pub fn fork() -> Result<Forked> {
    // SAFETY: without CLONE_VM and with no stack the child runs on a copy of this stack, as after fork(2); all pointers are
    // null, so that their order, which differs between architectures, does not matter.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone, libc::SIGCHLD as libc::c_ulong, 0usize, 0usize, 0usize, 0usize)
    })?;
    Ok(Pid::from_raw(pid as i32).map_or(Forked::Child, Forked::Parent))
}
