//! Layers on this disk and the root file systems made of them.
//!
//! A layer is known by its diff-id, the SHA-256 of its uncompressed tar. Two back ends keep layers behind one trait,
//! [`Snapshotter`]:
//!
//! - [`Backend::ErofsFile`] and [`Backend::ErofsLoop`] keep the tar as it came, beside an EROFS index whose files are ranges of that
//!   tar. Nothing is unpacked; mounting is one system call. The first mounts both files as they are (Linux 6.12), the second through
//!   loop devices (Linux 6.4).
//! - [`Backend::Directories`] unpacks, for older kernels and for user namespaces, and keeps what is needed to give back the tar byte
//!   by byte.
//!
//! ```text
//! <root>/layers/                           <run>/layers/
//!   staging/                                 <32 hex digits of a diff-id>/    a mounted layer (EROFS only)
//!   sha256/<hex>.tar, <hex>.erofs          
//!   sha256/<hex>/{fs,skeleton,shadow}      (directories back end)
//! ```
//!
//! What must not be known here: images, manifests, containers, compression.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci::DiffId;

mod error;
mod layer_writer;

pub use archive::changes::{Change, ChangeKind};
pub use error::{Error, OpenError};
pub use layer_writer::{Layer, LayerWriter};

/// How layers are kept and mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The tar and its EROFS index, mounted as plain files.
    ErofsFile,
    /// The tar and its EROFS index, mounted through loop devices.
    ErofsLoop,
    /// Unpacked directories.
    Directories,
}

/// Which back end to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The best one that this kernel and these privileges allow.
    Automatic,
    /// This one, or an error that says why it cannot be.
    Only(Backend),
}

/// The extended attribute namespace in which overlayfs must keep its marks for these layers and uppers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`, the default.
    Trusted,
    /// `user.overlay.*`: mount the overlay with `userxattr` (user namespaces).
    User,
}

/// The writable part of one container's root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upper {
    /// `upperdir` of the overlay.
    pub upper: PathBuf,
    /// `workdir` of the overlay.
    pub work: PathBuf,
}

/// One layer as [`Snapshotter::list`] shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUsage {
    /// Which layer.
    pub diff_id: DiffId,
    /// Size of its uncompressed tar.
    pub tar_bytes: u64,
    /// What it really takes on the disk, index included.
    pub disk_bytes: u64,
}

/// A store of layers. Every method blocks; call it from a thread that may.
pub trait Snapshotter: Send + Sync + fmt::Debug {
    /// Which back end this is.
    fn backend(&self) -> Backend;

    /// Where overlayfs must keep its marks on top of these layers.
    fn overlay_xattrs(&self) -> OverlayXattrs;

    /// Starts a new layer: write its uncompressed tar, then call [`LayerWriter::finish`]. Dropping the writer forgets the layer.
    fn stage(&self) -> Result<LayerWriter, Error>;

    /// Whether the layer is here.
    fn has(&self, layer: &DiffId) -> bool;

    /// The size of the layer's uncompressed tar.
    fn size(&self, layer: &DiffId) -> Result<u64, Error>;

    /// All layers that are here, in the order of their diff-ids.
    fn list(&self) -> Result<Vec<LayerUsage>, Error>;

    /// The layer's uncompressed tar, byte for byte as it came.
    fn open_tar(&self, layer: &DiffId) -> Result<Box<dyn Read + Send>, Error>;

    /// Hashes the layer's tar again; [`Error::Corrupt`] when it is not what it was.
    fn verify(&self, layer: &DiffId) -> Result<(), Error>;

    /// Forgets the layer. Containers that run on it keep it until they end. A layer that is not here is no error.
    fn remove(&self, layer: &DiffId) -> Result<(), Error>;

    /// The directories to give to overlayfs as lower layers, topmost first, for `layers` given bottom first (as in an image's
    /// `rootfs.diff_ids`). Mounts what is not mounted yet. No layers give one empty directory.
    fn lower_dirs(&self, layers: &[DiffId]) -> Result<Vec<PathBuf>, Error>;

    /// Unmounts every layer that is not in `keep`. An overlay already mounted holds its own reference and is not disturbed.
    fn unmount_except(&self, keep: &[DiffId]) -> Result<(), Error>;

    /// Makes `upper` and `work` in `container_dir`; the upper's mode, owner and extended attributes are those of the root
    /// directory of the topmost layer of `layers` (bottom first).
    fn create_upper(&self, container_dir: &Path, layers: &[DiffId]) -> Result<Upper, Error>;

    /// The upper directory as a layer's tar, with OCI whiteouts. The thread that writes it ends with the stream.
    fn diff(&self, upper: &Path) -> Result<Box<dyn Read + Send>, Error>;

    /// What the upper directory changes in the image of `layers` (bottom first), sorted by path.
    fn changes(&self, upper: &Path, layers: &[DiffId]) -> Result<Vec<Change>, Error>;
}

/// What this machine can do, and why not.
#[derive(Debug, Clone)]
pub struct Probe {
    /// File-backed EROFS: `Err` has the reason.
    pub erofs_file: Result<(), String>,
    /// EROFS through loop devices.
    pub erofs_loop: Result<(), String>,
    /// Unpacked directories: needs only a file system.
    pub directories: Result<(), String>,
}

impl Probe {
    /// The back end that [`Choice::Automatic`] takes.
    pub fn best(&self) -> Backend {
        match (&self.erofs_file, &self.erofs_loop) {
            (Ok(()), _) => Backend::ErofsFile,
            (_, Ok(())) => Backend::ErofsLoop,
            _ => Backend::Directories,
        }
    }
}

/// Finds out by trying (a tiny image, mounted and unmounted again) which back ends work for `<root>` and `<run>`.
pub fn probe(root: &Path, run: &Path) -> Probe {
    let _ = (root, run);
    let untried = || Err("not tried yet".to_owned());
    Probe { erofs_file: untried(), erofs_loop: untried(), directories: Ok(()) }
}

/// Opens the store, clears what a crash left in staging, and recognises the mounts that an earlier daemon left.
pub fn open(root: &Path, run: &Path, choice: Choice) -> Result<std::sync::Arc<dyn Snapshotter>, OpenError> {
    let _ = (root, run, choice);
    Err(OpenError::Root { path: root.to_owned(), source: io::Error::other("not built yet") })
}
