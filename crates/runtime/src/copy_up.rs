//! Copying what a directory holds into a tmpfs that will be mounted over it (`tmpcopyup`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linux::Errno;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::fs::{chownat, fstat, mkdirat, mknodat, openat, readlinkat, statat, symlinkat, utimensat};

use crate::error::errno_text;

/// How deep the tree may be.
const MAX_DEPTH: usize = 256;

/// A part of the tree could not be copied.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy up {name:?}: {}", errno_text(*.errno))]
pub(crate) struct CopyUpError {
    name: String,
    errno: Errno,
}

/// Copies the content of the directory `from` into the directory `to`.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), CopyUpError> {
    let open = |directory| openat(directory, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let failed = |errno| CopyUpError { name: ".".to_owned(), errno };
    copy_directory(open(from).map_err(failed)?, open(to).map_err(failed)?, MAX_DEPTH)
}

fn copy_directory(from: OwnedFd, to: OwnedFd, depth: usize) -> Result<(), CopyUpError> {
    let failed = |name: &[u8]| {
        let name = String::from_utf8_lossy(name).into_owned();
        move |errno| CopyUpError { name, errno }
    };
    if depth == 0 {
        return Err(failed(b".")(Errno::NAMETOOLONG));
    }
    for entry in Dir::read_from(&from).map_err(failed(b"."))? {
        let entry = entry.map_err(failed(b"."))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(&from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(name.to_bytes()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            mkdirat(&to, name, mode_of(&stat)).map_err(failed(name.to_bytes()))?;
            let below_from = openat(&from, name, flags, Mode::empty()).map_err(failed(name.to_bytes()))?;
            let below_to = openat(&to, name, flags, Mode::empty()).map_err(failed(name.to_bytes()))?;
            copy_directory(below_from, below_to, depth - 1)?;
        } else {
            copy_entry(from.as_fd(), to.as_fd(), name, &stat).map_err(failed(name.to_bytes()))?;
        }
        copy_metadata(to.as_fd(), name, &stat).map_err(failed(name.to_bytes()))?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> linux::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => copy_file(from, to, name, stat),
        FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, name),
        FileType::Socket => Ok(()),
        kind => mknodat(to, name, kind, mode_of(stat), stat.st_rdev),
    }
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> linux::Result<()> {
    let source =
        openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(to, name, flags, mode_of(stat))?;
    if FileType::from_raw_mode(fstat(&source)?.st_mode) != FileType::RegularFile {
        return Err(Errno::AGAIN);
    }
    let copied = std::io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target));
    copied.map(drop).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn copy_metadata(to: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> linux::Result<()> {
    if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
        return Ok(());
    }
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        // Changing the owner clears the set-id bits.
        rustix::fs::chmodat(to, name, mode_of(stat), AtFlags::empty())?;
    }
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(stat.st_atime as _, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime as _, stat.st_mtime_nsec as _),
    };
    utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

fn mode_of(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    #[test]
    fn a_tree_is_copied_with_its_metadata() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(from.path().join("d")).unwrap();
        std::fs::write(from.path().join("d/file"), "content").unwrap();
        std::fs::set_permissions(from.path().join("d/file"), std::fs::Permissions::from_mode(0o4711)).unwrap();
        symlink("/nowhere", from.path().join("link")).unwrap();
        let open = |path: &Path| std::fs::File::open(path).unwrap();
        copy(open(from.path()).as_fd(), open(to.path()).as_fd()).unwrap();
        assert_eq!(std::fs::read_to_string(to.path().join("d/file")).unwrap(), "content");
        let (was, is) = (from.path().join("d/file").metadata().unwrap(), to.path().join("d/file").metadata().unwrap());
        assert_eq!((was.mode(), was.mtime_nsec()), (is.mode(), is.mtime_nsec()));
        assert_eq!(std::fs::read_link(to.path().join("link")).unwrap(), Path::new("/nowhere"));
    }
}
