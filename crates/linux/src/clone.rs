//! Creating processes: `clone3` with namespaces, pidfd and cgroup in one call.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

use crate::Result;
use crate::raw::check;

/// libc's constant is an `int`, which this overflows.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a new process gets that `fork` would not give.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneArgs<'a> {
    /// `CLONE_NEW*` flags, or'ed: the namespaces that the child starts in.
    pub namespaces: u64,
    /// The cgroup v2 directory that the child starts in (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether the child becomes a sibling of the caller instead of its child.
    pub parent: Parentage,
}

/// Whose child the new process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parentage {
    /// The caller's.
    #[default]
    Caller,
    /// The caller's parent's (`CLONE_PARENT`), who has to wait for it.
    CallersParent,
}

/// In which of the two processes the call returned.
#[derive(Debug)]
pub enum Cloned {
    /// In the new process.
    Child,
    /// In the caller: the child's pid as the caller sees it, and a pidfd of it.
    Parent(Child),
}

/// A new process as its creator holds it.
#[derive(Debug)]
pub struct Child {
    /// The pid in the caller's pid namespace.
    pub pid: Pid,
    /// A handle that never means another process.
    pub pidfd: OwnedFd,
}

/// Creates a process that continues after this call with a copy of the caller's memory, as `fork` does.
///
/// The caller must be single-threaded, or at least the other threads must hold no lock (as the allocator's) that the child
/// will need: no `atfork` handler runs. The child should use pids only from system calls: glibc's cached thread id is stale.
pub fn clone3(args: &CloneArgs<'_>) -> Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = args.namespaces | libc::CLONE_PIDFD as u64;
    if args.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    if args.parent == Parentage::CallersParent {
        flags |= libc::CLONE_PARENT as u64;
    }
    let raw = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: if args.parent == Parentage::Caller { libc::SIGCHLD as u64 } else { 0 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: args.cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: without CLONE_VM and with no stack the child runs on a copy of this stack, as after fork. `raw` is a valid
    // clone_args of the size given, and `pidfd` lives until the call returns.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const raw, size_of::<libc::clone_args>()) })?;
    match Pid::from_raw(pid as i32) {
        None => Ok(Cloned::Child),
        Some(pid) => {
            // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent(Child { pid, pidfd }))
        }
    }
}

/// Ends the calling process at once: no destructor, no exit handler, no flush of buffers shared with the parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}
