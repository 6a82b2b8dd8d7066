//! A procfs of our own: detached from every mount namespace, so that nothing a container mounts over `/proc` is in the way.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use linux::{Errno, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags, fstatfs, openat2};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// The inode number of the root of every procfs.
const PROC_ROOT_INODE: u64 = 1;

/// The procfs of the pid namespace of whoever opened it.
#[derive(Debug)]
pub(crate) struct Procfs {
    root: OwnedFd,
}

impl Procfs {
    /// Mounts a procfs without attaching it. In a user namespace where that is not allowed, `/proc` serves after a check that it
    /// is one; lookups in it never cross into what is mounted over its files.
    pub(crate) fn open() -> Result<Procfs> {
        Procfs::mount().or_else(|_| Procfs::from_path())
    }

    fn mount() -> Result<Procfs> {
        let context = fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(context.as_fd())?;
        let root = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        Ok(Procfs { root })
    }

    fn from_path() -> Result<Procfs> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(c"/proc", flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&root)?;
        if fstatfs(&root)?.f_type as u64 != PROC_SUPER_MAGIC || stat.st_ino != PROC_ROOT_INODE {
            return Err(Errno::INVAL);
        }
        Ok(Procfs { root })
    }

    /// Opens a file of procfs; no link is followed and no mount crossed.
    pub(crate) fn open_file(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        // `self` and `thread-self` are ordinary links of procfs itself.
        let fd = openat2(&self.root, path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty(), resolve)?;
        if fstatfs(&fd)?.f_type as u64 != PROC_SUPER_MAGIC {
            return Err(Errno::XDEV);
        }
        Ok(fd)
    }

    /// Writes a whole value to a file of procfs in one call.
    pub(crate) fn write(&self, path: &Path, value: &[u8]) -> Result<()> {
        let file = self.open_file(path, OFlags::WRONLY)?;
        match rustix::io::write(&file, value)? {
            count if count == value.len() => Ok(()),
            _ => Err(Errno::IO),
        }
    }
}

/// Makes a detached mount of a file system type with options given as (key, value) pairs; no value is a flag.
pub(crate) fn detached(kind: &CStr, options: &[(&str, Option<&str>)], attributes: MountAttrFlags) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?,
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), *key)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_open_and_links_out_do_not() {
        let procfs = Procfs::open().unwrap();
        procfs.open_file(Path::new("self/status"), OFlags::RDONLY).unwrap();
        assert_eq!(procfs.open_file(Path::new("self/cwd"), OFlags::RDONLY).unwrap_err(), Errno::LOOP);
        assert_eq!(procfs.open_file(Path::new("../etc/passwd"), OFlags::RDONLY).unwrap_err(), Errno::XDEV);
    }
}
