//! Locks between processes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::{Operation, PathError};

/// An exclusive `flock` on a file; it ends when the value is dropped or the process dies, however it dies.
///
/// The file stays: removing it would let two owners hold locks on two files of one name.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Waits until the lock is free and takes it.
    pub fn acquire(path: &Path) -> Result<Self, PathError> {
        let file = open(path)?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(PathError::new(Operation::Lock, path, error)),
                Ok(()) => return Ok(Self { file }),
            }
        }
    }

    /// Takes the lock if it is free, and says `None` if another holds it.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>, PathError> {
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file })),
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(PathError::new(Operation::Lock, path, error)),
        }
    }

    /// The locked file, in which the holder may note who it is.
    pub fn file(&self) -> &File {
        &self.file
    }
}

fn open(path: &Path) -> Result<File, PathError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(PathError::with(Operation::Open, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::acquire(&path).unwrap();
        assert!(Lock::try_acquire(&path).unwrap().is_none());
        drop(first);
        assert!(Lock::try_acquire(&path).unwrap().is_some());
    }

    #[test]
    fn the_next_one_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::acquire(&path).unwrap();
        let waiter = {
            let path = path.clone();
            std::thread::spawn(move || Lock::acquire(&path).map(drop))
        };
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!waiter.is_finished());
        drop(first);
        waiter.join().unwrap().unwrap();
    }
}
