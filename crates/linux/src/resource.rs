//! Resource limits by the kernel's number.

use crate::Result;
use crate::raw::check;

/// A soft and a hard limit; `u64::MAX` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What binds.
    pub soft: u64,
    /// What the soft limit may be raised to.
    pub hard: u64,
}

/// Sets limit `resource` (`RLIMIT_*`) of this process.
pub fn set_limit(resource: u32, limit: Limit) -> Result<()> {
    let raw = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
    let old: *mut libc::rlimit64 = std::ptr::null_mut();
    // SAFETY: `raw` lives over the call; the kernel writes no old value to NULL.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const raw, old) }).map(drop)
}

/// Reads limit `resource` (`RLIMIT_*`) of this process.
pub fn limit(resource: u32) -> Result<Limit> {
    let mut raw = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let new: *const libc::rlimit64 = std::ptr::null();
    // SAFETY: `raw` lives over the call; nothing is set from NULL.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, &raw mut raw) })?;
    Ok(Limit { soft: raw.rlim_cur, hard: raw.rlim_max })
}

/// Reads limit `resource` (`RLIMIT_*`) of process `pid`.
pub fn limit_of(pid: rustix::process::Pid, resource: u32) -> Result<Limit> {
    let mut raw = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let new: *const libc::rlimit64 = std::ptr::null();
    let pid = pid.as_raw_nonzero().get();
    // SAFETY: `raw` lives over the call; nothing is set from NULL.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, new, &raw mut raw) })?;
    Ok(Limit { soft: raw.rlim_cur, hard: raw.rlim_max })
}

/// Sets limit `resource` (`RLIMIT_*`) of process `pid`.
pub fn set_limit_of(pid: rustix::process::Pid, resource: u32, limit: Limit) -> Result<()> {
    let raw = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
    let old: *mut libc::rlimit64 = std::ptr::null_mut();
    let pid = pid.as_raw_nonzero().get();
    // SAFETY: `raw` lives over the call; the kernel writes no old value to NULL.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const raw, old) }).map(drop)
}

/// The largest resident set in KiB that a child which was waited for, or one of its own such children, has had.
pub fn peak_of_children() -> Result<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to memory of a rusage's size, which the call fills in.
    check(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) }.into())?;
    // SAFETY: all zeroes would be a rusage already, and the call succeeded.
    Ok(unsafe { usage.assume_init() }.ru_maxrss.cast_unsigned())
}
