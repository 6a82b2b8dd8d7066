//! Project quotas: how much the files of a directory tree may take, however many users write them.
//!
//! A tree belongs to a project by a number that its top directory has and what is made below inherits; the limit is the number's.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::Result;
use crate::raw::check;

/// `struct fsxattr` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FsXattr {
    xflags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// `struct if_dqblk` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IfDqblk {
    block_hard_limit: u64,
    block_soft_limit: u64,
    space: u64,
    inode_hard_limit: u64,
    inode_soft_limit: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
const PRJQUOTA: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const QIF_BLIMITS: u32 = 1;
/// Limits are told in these.
const BLOCK_BYTES: u64 = 1024;

/// What a project has and may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectQuota {
    /// Bytes that its files take.
    pub used_bytes: u64,
    /// Bytes that they may take; 0 for as many as there are.
    pub limit_bytes: u64,
}

/// The project that a directory belongs to; 0 is that of all files that nobody gave one. `ENOTTY` or `EOPNOTSUPP` where the file system
/// has no projects.
pub fn project_of(directory: BorrowedFd<'_>) -> Result<u32> {
    attributes(directory).map(|attributes| attributes.project)
}

/// Gives a directory, and what will be made in it, to a project.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> Result<()> {
    let before = attributes(directory)?;
    let wanted = FsXattr { project, xflags: before.xflags | FS_XFLAG_PROJINHERIT, ..before };
    // SAFETY: `wanted` is a valid fsxattr, alive during the call, and the kernel only reads it.
    let value = unsafe { libc::syscall(libc::SYS_ioctl, directory.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const wanted) };
    check(value).map(drop)
}

fn attributes(directory: BorrowedFd<'_>) -> Result<FsXattr> {
    let mut found = MaybeUninit::<FsXattr>::zeroed();
    // SAFETY: `found` has the size of an fsxattr, which the kernel fills, and every pattern of bits is a valid one.
    let value = unsafe { libc::syscall(libc::SYS_ioctl, directory.as_raw_fd(), FS_IOC_FSGETXATTR, found.as_mut_ptr()) };
    check(value)?;
    // SAFETY: zeroed before the call, and all its fields are integers.
    Ok(unsafe { found.assume_init() })
}

/// Limits a project of the file system that `place` is on, to whole KiB; 0 bytes is no limit. `ESRCH` where the file system keeps no
/// project quotas, `ENOSYS` before Linux 5.14.
pub fn limit_project(place: BorrowedFd<'_>, project: u32, bytes: u64) -> Result<()> {
    let mut wanted =
        IfDqblk { block_hard_limit: bytes.div_ceil(BLOCK_BYTES), valid: QIF_BLIMITS, ..IfDqblk::default() };
    quotactl(place, Q_SETQUOTA, project, &mut wanted)
}

/// What a project has and may have.
pub fn project_quota(place: BorrowedFd<'_>, project: u32) -> Result<ProjectQuota> {
    let mut found = IfDqblk::default();
    match quotactl(place, Q_GETQUOTA, project, &mut found) {
        // Nobody has ever written about this one.
        Err(crate::Errno::NOENT) => Ok(ProjectQuota { used_bytes: 0, limit_bytes: 0 }),
        result => result.map(|()| ProjectQuota {
            used_bytes: found.space,
            limit_bytes: found.block_hard_limit.saturating_mul(BLOCK_BYTES),
        }),
    }
}

fn quotactl(place: BorrowedFd<'_>, command: u32, project: u32, block: &mut IfDqblk) -> Result<()> {
    let command = (command << 8) | PRJQUOTA;
    // SAFETY: `block` is a valid if_dqblk, alive during the call, which is all that these two commands read or write.
    let value =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, place.as_raw_fd(), command, project, std::ptr::from_mut(block)) };
    check(value).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernel_s_sizes() {
        assert_eq!((size_of::<FsXattr>(), size_of::<IfDqblk>()), (28, 72));
    }
}
