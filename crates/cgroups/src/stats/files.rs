//! A cgroup's files, read again and again: each is opened once.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use crate::directory::{Directory, FileError, parse_number};

/// How much is read at once; most files are shorter.
const CHUNK: usize = 4096;

/// The files of one directory that have been asked for.
#[derive(Debug)]
pub(super) struct Files {
    directory: Directory,
    /// `None` for what this kernel does not have.
    open: Vec<(String, Option<OwnedFd>)>,
    bytes: Vec<u8>,
}

impl Files {
    pub(super) fn of(directory: &Directory) -> Result<Self, FileError> {
        let directory = directory.open_child("").map_err(|errno| directory.read_error(".", errno.into()))?;
        Ok(Self { directory, open: Vec::new(), bytes: Vec::new() })
    }

    /// Reads a whole file.
    pub(super) fn read(&mut self, file: &str) -> Result<String, FileError> {
        let found = self.read_if_exists(file)?;
        found.ok_or_else(|| self.directory.read_error(file, Errno::NOENT.into()))
    }

    /// Reads a file that may be missing on this kernel.
    pub(super) fn read_if_exists(&mut self, file: &str) -> Result<Option<String>, FileError> {
        let index = self.position(file).map_err(|errno| self.directory.read_error(file, errno.into()))?;
        let Some(fd) = &self.open[index].1 else { return Ok(None) };
        match read_whole(fd, &mut self.bytes) {
            // The kernel's files are ASCII; device and page size names in them too.
            Ok(()) => Ok(Some(String::from_utf8_lossy(&self.bytes).into_owned())),
            Err(errno) => Err(self.directory.read_error(file, errno.into())),
        }
    }

    /// Reads a single number; `max` is the greatest.
    pub(super) fn read_number(&mut self, file: &str) -> Result<u64, FileError> {
        let found = self.read_number_if_exists(file)?;
        found.ok_or_else(|| self.directory.read_error(file, Errno::NOENT.into()))
    }

    /// Reads a single number from a file that may be missing.
    pub(super) fn read_number_if_exists(&mut self, file: &str) -> Result<Option<u64>, FileError> {
        let Some(content) = self.read_if_exists(file)? else { return Ok(None) };
        let number = parse_number(content.trim_ascii());
        number.map(Some).ok_or_else(|| self.directory.content_error(file, content))
    }

    fn position(&mut self, file: &str) -> rustix::io::Result<usize> {
        if let Some(index) = self.open.iter().position(|(name, _)| name == file) {
            return Ok(index);
        }
        let fd = match self.directory.open_for_read(file) {
            Ok(fd) => Some(fd),
            // The second: booted without what the file is about (psi=0).
            Err(Errno::NOENT | Errno::OPNOTSUPP) => None,
            Err(errno) => return Err(errno),
        };
        self.open.push((file.to_owned(), fd));
        Ok(self.open.len() - 1)
    }
}

/// From the beginning, whatever was read before.
fn read_whole(fd: &OwnedFd, bytes: &mut Vec<u8>) -> rustix::io::Result<()> {
    bytes.clear();
    loop {
        let start = bytes.len();
        bytes.resize(start + CHUNK, 0);
        let length = rustix::io::retry_on_intr(|| rustix::io::pread(fd.as_fd(), &mut bytes[start..], start as u64))?;
        bytes.truncate(start + length);
        if length == 0 {
            return Ok(());
        }
    }
}
