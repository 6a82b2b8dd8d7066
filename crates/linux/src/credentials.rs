//! Who a process is: users, groups, and what ptrace may see of it.

use crate::Result;
use crate::raw::check;

/// Sets real, effective, saved and file system group id of this thread.
pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: three integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets real, effective, saved and file system user id of this thread.
pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: three integers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets user and group id for file access alone. Away from 0 the capabilities over files go from the effective set.
pub fn set_file_system_ids(uid: u32, gid: u32) -> Result<()> {
    for (call, id) in [(libc::SYS_setfsgid, gid), (libc::SYS_setfsuid, uid)] {
        // The calls have no error: they return the id before, so that a second one tells whether the first was obeyed.
        // SAFETY: an integer argument.
        unsafe { libc::syscall(call, id) };
        // SAFETY: as above.
        if unsafe { libc::syscall(call, id) } as u32 != id {
            return Err(crate::Errno::PERM);
        }
    }
    Ok(())
}

/// Replaces the supplementary groups of this thread.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the pointer and the length describe one slice of gid_t.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Makes the process not dumpable (`PR_SET_DUMPABLE`): no ptrace, no core, `/proc/PID` owned by root of the initial user namespace.
pub fn set_not_dumpable() -> Result<()> {
    set_dumpable(0)
}

/// Undoes [`set_not_dumpable`].
pub fn set_dumpable_again() -> Result<()> {
    set_dumpable(1)
}

fn set_dumpable(value: libc::c_ulong) -> Result<()> {
    // SAFETY: an integer argument.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, value, 0usize, 0usize, 0usize) }).map(drop)
}

/// Keeps the permitted capabilities over a change of the user id away from 0.
pub fn keep_capabilities() -> Result<()> {
    // SAFETY: an integer argument.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1usize, 0usize, 0usize, 0usize) }).map(drop)
}

/// Makes this process the one that gets the orphans among its descendants.
pub fn become_subreaper() -> Result<()> {
    // SAFETY: an integer argument.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1usize, 0usize, 0usize, 0usize) })
        .map(drop)
}

/// Makes execve give no privilege any more, for ever.
pub fn set_no_new_privileges() -> Result<()> {
    // SAFETY: an integer argument.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1usize, 0usize, 0usize, 0usize) })
        .map(drop)
}

/// Makes the kernel send `signal` to this process when its parent ends; 0 for none.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    // SAFETY: an integer argument.
    check(unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0usize, 0usize, 0usize)
    })
    .map(drop)
}

/// The five capability sets of a thread; bit N is capability number N.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Reads the capabilities of this thread.
pub fn capabilities() -> Result<Capabilities> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 reads a header and writes two data elements, which both live here.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Capabilities {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// Sets the capabilities of this thread.
pub fn set_capabilities(sets: &Capabilities) -> Result<()> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads a header and two data elements, which both live here.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Whether capability `number` is in the bounding set; an error (EINVAL) for one that the kernel does not know.
pub fn in_bounding_set(number: u32) -> Result<bool> {
    // SAFETY: an integer argument.
    let value = check(unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0usize, 0usize, 0usize)
    })?;
    Ok(value == 1)
}

/// Drops capability `number` from the bounding set.
pub fn drop_from_bounding_set(number: u32) -> Result<()> {
    // SAFETY: an integer argument.
    check(unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0usize, 0usize, 0usize)
    })
    .map(drop)
}

/// Clears the ambient set.
pub fn clear_ambient() -> Result<()> {
    // SAFETY: integer arguments.
    check(unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
            0usize,
            0usize,
            0usize,
        )
    })
    .map(drop)
}

/// Adds capability `number`, which must be permitted and inheritable, to the ambient set.
pub fn raise_ambient(number: u32) -> Result<()> {
    let (raise, number) = (libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, libc::c_ulong::from(number));
    // SAFETY: integer arguments.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAP_AMBIENT, raise, number, 0usize, 0usize) }).map(drop)
}
