//! What can go wrong with layers.

use std::io;
use std::path::{Path, PathBuf};

use oci::DiffId;

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory of the store cannot be made or read.
    #[error("cannot open the layer store")]
    Root(#[from] durable::PathError),
    /// The chosen back end does not work here.
    #[error("layers cannot be kept as {backend} here: {reason}")]
    Unsupported {
        /// The back end asked for.
        backend: crate::Backend,
        /// What the probe found.
        reason: String,
    },
    /// Another engine uses this root.
    #[error("the layer store in {path} is in use by another engine", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// Why something could not be done with a layer or an upper directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such layer.
    #[error("layer {layer} is not here")]
    NotFound {
        /// The layer asked for.
        layer: DiffId,
    },
    /// The tar that arrived is another one than was announced.
    #[error("layer {expected} was announced, but {actual} arrived")]
    WrongDigest {
        /// What the image says.
        expected: DiffId,
        /// What the bytes say.
        actual: DiffId,
    },
    /// The stored tar does not hash to its name any more.
    #[error("layer {layer} is damaged on the disk: its bytes hash to {actual}")]
    Corrupt {
        /// The layer.
        layer: DiffId,
        /// What its bytes say.
        actual: DiffId,
    },
    /// The tar is whole, but its index is not what the tar says.
    #[error("the index of layer {layer} is damaged or missing; its tar is whole")]
    DamagedIndex {
        /// The layer.
        layer: DiffId,
    },
    /// The tar is malformed or hostile.
    #[error("refused layer: {0}")]
    Refused(#[from] archive::Refusal),
    /// The tar cannot be indexed.
    #[error("cannot index the layer")]
    Index(#[source] erofs::Error),
    /// A file of the store could not be written, named or removed.
    #[error(transparent)]
    Durable(#[from] durable::PathError),
    /// A system call failed.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: what was tried, on what.
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source: source.into() }
    }
}
