//! An open cgroup directory and its small files.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// A cgroup file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading failed.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Writing failed.
    #[error("cannot write {value:?} to {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What was to be written, or its beginning.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file's content has not the form that the kernel documents.
    #[error("cannot understand {content:?} in {}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What was read.
        content: String,
    },
}

impl FileError {
    /// The kernel's error, where there was one.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => Errno::from_io_error(source),
            Self::Content { .. } => None,
        }
    }

    /// Says that the file, or the whole cgroup, does not exist (`ENODEV`: it was removed while its file was open).
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT | Errno::NODEV))
    }
}

/// An open directory; its path is only for messages and for whoever must name it to others.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// How much of a value that was refused an error repeats.
const MESSAGE_VALUE_MAX: usize = 100;

const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

impl Directory {
    /// Opens a directory by its absolute path.
    pub(crate) fn open(path: &Path) -> rustix::io::Result<Self> {
        // The mount point itself may be reached through links (`/sys/fs/cgroup` in some chroots); below it there are none.
        let fd = rustix::fs::open(path, DIRECTORY_FLAGS.difference(OFlags::NOFOLLOW), Mode::empty())?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens a directory below this one; `path` has no leading slash and no `..`.
    pub(crate) fn open_child(&self, path: &str) -> rustix::io::Result<Self> {
        let here = if path.is_empty() { "." } else { path };
        let fd = rustix::fs::openat(&self.fd, here, DIRECTORY_FLAGS, Mode::empty())?;
        Ok(Self { fd, path: if path.is_empty() { self.path.clone() } else { self.path.join(path) } })
    }

    /// The descriptor alone.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// The absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file of the cgroup for writing.
    pub(crate) fn open_for_write(&self, file: &str) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(&self.fd, file, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
    }

    /// Opens a file of the cgroup for reading.
    pub(crate) fn open_for_read(&self, file: &str) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(&self.fd, file, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
    }

    /// Writes a value in one `write`, as the kernel's parsers want it.
    pub(crate) fn write(&self, file: &str, value: &str) -> Result<(), FileError> {
        self.open_for_write(file)
            .and_then(|fd| write_once(fd.as_fd(), value))
            .map_err(|errno| self.write_error(file, value, errno))
    }

    /// Reads a whole file.
    pub(crate) fn read(&self, file: &str) -> Result<String, FileError> {
        let mut content = String::new();
        self.read_into(file, &mut content)?;
        Ok(content)
    }

    /// Reads a whole file into a buffer that is used again and again.
    pub(crate) fn read_into(&self, file: &str, content: &mut String) -> Result<(), FileError> {
        let mut bytes = std::mem::take(content).into_bytes();
        bytes.clear();
        self.open_for_read(file)
            .and_then(|fd| read_to_end(fd.as_fd(), &mut bytes))
            .map_err(|errno| self.read_error(file, errno.into()))?;
        // The kernel's files are ASCII; device and page size names in them too.
        *content = String::from_utf8_lossy(&bytes).into_owned();
        Ok(())
    }

    /// Reads a file that may be missing on this kernel.
    pub(crate) fn read_if_exists(&self, file: &str) -> Result<Option<String>, FileError> {
        match self.read(file) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a single number; `max` is the greatest.
    pub(crate) fn read_number(&self, file: &str) -> Result<u64, FileError> {
        let content = self.read(file)?;
        parse_number(content.trim()).ok_or_else(|| self.content_error(file, content))
    }

    /// The names of the cgroups below this one.
    pub(crate) fn children(&self) -> rustix::io::Result<Vec<String>> {
        // A kernfs directory counts its subdirectories as links: two links mean none, which saves the listing.
        if rustix::fs::fstat(&self.fd)?.st_nlink == 2 {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            if entry.file_type() == rustix::fs::FileType::Directory
                && !matches!(entry.file_name().to_bytes(), b"." | b"..")
            {
                names.extend(entry.file_name().to_str().map(str::to_owned));
            }
        }
        Ok(names)
    }

    pub(crate) fn write_error(&self, file: &str, value: &str, errno: Errno) -> FileError {
        // The value is the user's and may be of any length; the message is for the user, too.
        let value = value.chars().take(MESSAGE_VALUE_MAX).collect();
        FileError::Write { path: self.path.join(file), value, source: errno.into() }
    }

    pub(crate) fn read_error(&self, file: &str, source: io::Error) -> FileError {
        FileError::Read { path: self.path.join(file), source }
    }

    pub(crate) fn content_error(&self, file: &str, content: String) -> FileError {
        FileError::Content { path: self.path.join(file), content }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads to the end without asking for a size first: these files say zero, or nothing that helps.
fn read_to_end(fd: BorrowedFd<'_>, bytes: &mut Vec<u8>) -> rustix::io::Result<()> {
    const CHUNK: usize = 4096;
    loop {
        let start = bytes.len();
        bytes.resize(start + CHUNK, 0);
        let length = rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut bytes[start..]))?;
        bytes.truncate(start + length);
        if length == 0 {
            return Ok(());
        }
    }
}

/// Writes a value whole; a signal may interrupt, a short write would be half a value and does not happen on these files.
pub(crate) fn write_once(fd: BorrowedFd<'_>, value: &str) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::io::write(fd, value.as_bytes())).map(drop)
}

/// Reads a number as cgroup files write them.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    match text {
        "max" | "-1" => Some(u64::MAX),
        digits => digits.parse().ok(),
    }
}
