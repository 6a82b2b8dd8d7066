//! The files of an image or stage, looked at through a view that nobody can leave: names are resolved by the kernel inside it.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use archive::tar::{Metadata, Timestamp};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// The largest of the files that name users.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// Linux follows at most so many symbolic links in one name.
const SYMLINKS_MAX: usize = 40;

/// A root file system.
#[derive(Debug)]
pub(crate) struct Root {
    view: OwnedFd,
}

/// What is at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Directory(Metadata),
    Symlink(String),
    Other,
}

impl Root {
    pub(crate) fn new(view: OwnedFd) -> Root {
        Root { view }
    }

    pub(crate) fn view(&self) -> &OwnedFd {
        &self.view
    }

    /// Looks at a path without following its last part.
    pub(crate) fn look(&self, path: &str) -> io::Result<Found> {
        let file = match self.open(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => return Ok(Found::Nothing),
            Err(error) if error.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let stat = rustix::fs::fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let directory = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
                Ok(Found::Directory(metadata(&stat, &directory)?))
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&file, c"", Vec::new())?;
                Ok(Found::Symlink(target.to_string_lossy().into_owned()))
            }
            _ => Ok(Found::Other),
        }
    }

    /// The place that a path means once all symbolic links in it are followed; parts that are not there stay as they are.
    pub(crate) fn resolve(&self, path: &str) -> io::Result<String> {
        let mut done: Vec<String> = Vec::new();
        let mut rest: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
        let mut symlinks = 0;
        while let Some(part) = rest.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => {}
            }
            let here = format!("/{}", [done.as_slice(), std::slice::from_ref(&part)].concat().join("/"));
            match self.look(&here)? {
                Found::Symlink(target) => {
                    symlinks += 1;
                    if symlinks > SYMLINKS_MAX {
                        return Err(Errno::LOOP.into());
                    }
                    if target.starts_with('/') {
                        done.clear();
                    }
                    rest.extend(target.rsplit('/').map(str::to_owned));
                }
                _ => done.push(part),
            }
        }
        Ok(format!("/{}", done.join("/")))
    }

    /// A small text file; `None` when it is not there.
    pub(crate) fn text(&self, path: &str) -> io::Result<Option<String>> {
        let file = match self.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { "." } else { path };
        Ok(rustix::fs::openat2(self.view.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }
}

fn metadata(stat: &Stat, file: &OwnedFd) -> io::Result<Metadata> {
    Ok(Metadata {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Timestamp { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        xattrs: archive::attributes::read_xattrs(file.as_fd())?,
    })
}
