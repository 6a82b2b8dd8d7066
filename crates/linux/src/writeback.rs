//! Writing dirty pages before somebody waits for them.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::Result;
use crate::raw::check;

/// Asks the kernel to begin writing these bytes of a file to the disk, and does not wait until it has.
///
/// It promises nothing about durability; it makes the fsync that does promise short.
pub fn start(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<()> {
    let (offset, length) = (offset as libc::off64_t, length as libc::off64_t);
    // SAFETY: the call takes numbers only.
    let value = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
    check(libc::c_long::from(value)).map(drop)
}
