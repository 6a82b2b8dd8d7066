//! Loading seccomp filters.

use std::os::fd::{FromRawFd, OwnedFd};

use crate::raw::check;
use crate::{Errno, Result};

/// Synchronise all threads to the filter.
pub const FLAG_TSYNC: u64 = 1;
/// Log all actions but allow.
pub const FLAG_LOG: u64 = 2;
/// Do not turn on speculative store bypass mitigation.
pub const FLAG_SPEC_ALLOW: u64 = 4;
/// Return a descriptor for notifications.
pub const FLAG_NEW_LISTENER: u64 = 8;
/// With TSYNC and a listener: report failure as ESRCH.
pub const FLAG_TSYNC_ESRCH: u64 = 16;
/// A process waiting for a received notification is only killable.
pub const FLAG_WAIT_KILLABLE_RECV: u64 = 32;

const SET_MODE_FILTER: libc::c_uint = 1;
const GET_ACTION_AVAIL: libc::c_uint = 2;

/// Loads a filter: classic BPF instructions of eight bytes each, in the machine's byte order. Returns the listener when
/// [`FLAG_NEW_LISTENER`] was among the flags.
///
/// Needs `no_new_privs` or CAP_SYS_ADMIN.
pub fn load_filter(program: &[u8], flags: u64) -> Result<Option<OwnedFd>> {
    if program.is_empty() || !program.len().is_multiple_of(8) || program.len() / 8 > usize::from(u16::MAX) {
        return Err(Errno::INVAL);
    }
    // The kernel copies from the user's pointer bytewise, so alignment does not matter; the structure only carries it.
    let raw = libc::sock_fprog { len: (program.len() / 8) as u16, filter: program.as_ptr() as *mut libc::sock_filter };
    // SAFETY: `raw` describes `program`, which the kernel reads (never writes) within its length.
    let value =
        check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags as libc::c_uint, &raw const raw) })?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag the value is a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(value as i32) }))
}

/// Whether the kernel knows this return action.
pub fn action_available(action: u32) -> bool {
    // SAFETY: the kernel reads one u32, which lives over the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) }).is_ok()
}
