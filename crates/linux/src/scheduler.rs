//! CPU and I/O scheduling of the calling process.

use crate::Result;
use crate::raw::check;

/// Scheduling attributes as `sched_setattr` takes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerAttributes {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`, or'ed.
    pub flags: u64,
    /// The nice value of SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// The priority of SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// Of SCHED_DEADLINE, in nanoseconds.
    pub runtime_ns: u64,
    /// Of SCHED_DEADLINE, in nanoseconds.
    pub deadline_ns: u64,
    /// Of SCHED_DEADLINE, in nanoseconds.
    pub period_ns: u64,
}

#[repr(C)]
struct RawAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets policy and parameters of this thread.
pub fn set_scheduler(attributes: &SchedulerAttributes) -> Result<()> {
    let raw = RawAttributes {
        size: size_of::<RawAttributes>() as u32,
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime_ns,
        deadline: attributes.deadline_ns,
        period: attributes.period_ns,
    };
    // SAFETY: `raw` states its own size and lives over the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) }).map(drop)
}

/// Sets the I/O priority of this process: `class << 13 | level`.
pub fn set_io_priority(priority: i32) -> Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: integer arguments.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) }).map(drop)
}

/// The CPUs that this thread may run on, as [`set_affinity`] takes them.
pub fn affinity() -> Result<Vec<u64>> {
    /// As many CPUs as any kernel is built for.
    const WORDS: usize = 128;
    let mut mask = vec![0u64; WORDS];
    let size = size_of_val(mask.as_slice());
    // SAFETY: the kernel writes at most the size given.
    let written = check(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size, mask.as_mut_ptr()) })?;
    mask.truncate((written as usize).div_ceil(size_of::<u64>()));
    Ok(mask)
}

/// Lets this thread run on these CPUs only; bit N of the mask, in words of 64, is CPU N.
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    // SAFETY: pointer and size of one slice.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) }).map(drop)
}
