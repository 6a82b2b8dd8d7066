//! Attributes of mounts: `mount_setattr`, which rustix lacks.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::Result;
use crate::raw::check;

/// What to change on a mount.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttr<'a> {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 to leave propagation as it is.
    pub propagation: u64,
    /// The user namespace whose mappings the mount gets (with `MOUNT_ATTR_IDMAP` in `set`).
    pub user_namespace: Option<BorrowedFd<'a>>,
}

/// Which mounts a change reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This one mount.
    One,
    /// This mount and all below it.
    Recursive,
}

/// Changes the attributes of the mount that `mount` is open on (its root, or a place in it given by an empty path).
pub fn set_attributes(mount: BorrowedFd<'_>, reach: Reach, attr: &MountAttr<'_>) -> Result<()> {
    set_attributes_at(mount, c"", reach, attr)
}

/// As [`set_attributes`], for the mount at `path` below `directory`. The last component is not followed.
pub fn set_attributes_at(directory: BorrowedFd<'_>, path: &CStr, reach: Reach, attr: &MountAttr<'_>) -> Result<()> {
    let raw = libc::mount_attr {
        attr_set: attr.set,
        attr_clr: attr.clear,
        propagation: attr.propagation,
        userns_fd: attr.user_namespace.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let mut flags = libc::AT_SYMLINK_NOFOLLOW;
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    if reach == Reach::Recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let size = size_of::<libc::mount_attr>();
    // SAFETY: `raw` is a valid mount_attr of the size given, the path a NUL-terminated string.
    let value = unsafe {
        libc::syscall(libc::SYS_mount_setattr, directory.as_raw_fd(), path.as_ptr(), flags, &raw const raw, size)
    };
    check(value).map(drop)
}
