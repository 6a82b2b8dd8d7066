//! Names inside a root that somebody else may be changing.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often the kernel may ask to try again because somebody renames things on the way.
const RESOLVE_ATTEMPTS: usize = 100;

/// Opens a directory by its path inside the root.
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { b"." } else { path };
    for _ in 0..RESOLVE_ATTEMPTS {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            result => return result.map_err(io::Error::from),
        }
    }
    Err(Errno::AGAIN.into())
}
