//! Extended attributes of open files.
//!
//! They are read and written through `/proc/self/fd/N`, which works for every kind of file, also for symbolic links and for
//! descriptors opened with `O_PATH`, and never follows anything.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::tar::{Xattr, is_overlay_xattr};

/// Linux's own limits for the list of names and for one value.
const LIST_BYTES: usize = 64 << 10;
/// Enough for nearly every file.
const USUAL_LIST_BYTES: usize = 256;
const VALUE_BYTES: usize = 64 << 10;

/// A file's attributes, sorted by name, overlayfs' own left out. A file system without attributes has none.
pub fn read_xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    let path = fd_path(file);
    let names = xattr_names(&path)?;
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !is_overlay_xattr(name));
    let mut xattrs: Vec<Xattr> = Vec::new();
    for name in names {
        if let Some(value) = read_xattr_at(&path, name)? {
            xattrs.push(Xattr { name: name.to_vec(), value });
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// The names of a file's attributes, each ended by a NUL.
fn xattr_names(path: &str) -> io::Result<Vec<u8>> {
    let mut names = vec![0; USUAL_LIST_BYTES];
    let length = match rustix::fs::listxattr(path, &mut names) {
        Err(Errno::RANGE) => {
            names.resize(LIST_BYTES, 0);
            rustix::fs::listxattr(path, &mut names)
        }
        result => result,
    };
    match length {
        Ok(length) => names.truncate(length),
        Err(Errno::OPNOTSUPP) => names.clear(),
        Err(error) => return Err(error.into()),
    }
    Ok(names)
}

/// One attribute; `None` when the file does not have it.
pub(crate) fn read_xattr(file: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    read_xattr_at(&fd_path(file), name)
}

fn read_xattr_at(path: &str, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; VALUE_BYTES];
    match rustix::fs::getxattr(path, name, &mut value) {
        Ok(length) => {
            value.truncate(length);
            value.shrink_to_fit();
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets one attribute.
pub(crate) fn write_xattr(file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    rustix::fs::setxattr(fd_path(file), name, value, XattrFlags::empty()).map_err(io::Error::from)
}

/// Gives a file the attributes of another, overlayfs' own left out.
pub fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    read_xattrs(from)?.iter().try_for_each(|xattr| write_xattr(to, &xattr.name, &xattr.value))
}

pub(crate) fn fd_path(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
