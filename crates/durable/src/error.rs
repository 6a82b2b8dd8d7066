//! An I/O error that says what was done to which path.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An I/O error with its path and what was being done: `cannot rename /a/b: No space left on device`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct PathError {
    /// What was being done.
    pub operation: Operation,
    /// To which path.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

/// What was being done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Operation {
    Open,
    Create,
    Read,
    Write,
    Sync,
    Rename,
    Remove,
    List,
    Lock,
    Stat,
    Link,
    Mount,
}

impl PathError {
    /// Joins an error with its circumstances.
    pub fn new(operation: Operation, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { operation, path: path.to_owned(), source: source.into() }
    }

    /// Makes the function that [`Result::map_err`] wants.
    pub fn with<E: Into<io::Error>>(operation: Operation, path: &Path) -> impl FnOnce(E) -> Self + '_ {
        move |source| Self::new(operation, path, source)
    }

    /// The kind of the underlying error.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Says whether the path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::List => "list",
            Self::Lock => "lock",
            Self::Stat => "stat",
            Self::Link => "link",
            Self::Mount => "mount",
        })
    }
}
