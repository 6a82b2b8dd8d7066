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
//!   lock                                     <32 hex digits of a diff-id>/    a mounted layer (EROFS)
//!   sha256/<hex>.tar, <hex>.erofs            empty/                           for images without layers
//!   unpacked/<hex>/{root,skeleton}           (directories)
//! ```
//!
//! What must not be known here: images, manifests, containers, compression.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci::DiffId;

mod corrupt;
mod crowd;
mod directories;
mod erofs_store;
mod error;
mod index;
mod layer_writer;
mod mount;
mod open;
mod pipeline;
mod probe;
mod skeleton;
mod upper;

pub use archive::changes::{Change, ChangeKind};
pub use archive::export::Selection;
pub use error::{Error, OpenError};
pub use layer_writer::{Layer, LayerWriter};
pub use open::open;
pub use probe::{Probe, probe};

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

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Backend::ErofsFile => "erofs",
            Backend::ErofsLoop => "erofs-loop",
            Backend::Directories => "directories",
        })
    }
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

    /// Whether the layer is here, and not known to be corrupt.
    fn has(&self, layer: &DiffId) -> bool;

    /// The size of the layer's uncompressed tar.
    fn size(&self, layer: &DiffId) -> Result<u64, Error>;

    /// All layers that are here, in the order of their diff-ids.
    fn list(&self) -> Result<Vec<LayerUsage>, Error>;

    /// The layer's uncompressed tar, byte for byte as it came.
    fn open_tar(&self, layer: &DiffId) -> Result<Box<dyn Read + Send>, Error>;

    /// Hashes the layer's tar again, and makes its index again to compare. [`Error::Corrupt`] when the tar is not what it was: from
    /// then on the layer is not here ([`Snapshotter::has`]), so that it is fetched again, and storing it again replaces it; containers
    /// that use it go on. [`Error::DamagedIndex`] when only the index is wrong.
    fn verify(&self, layer: &DiffId) -> Result<(), Error>;

    /// Makes the index again from the tar.
    fn rebuild_index(&self, layer: &DiffId) -> Result<(), Error>;

    /// Forgets the layer; one that is not here is no error. The caller makes sure that no container uses it: a mounted layer lives on
    /// until the last overlay on it is gone, but an unpacked one is gone at once.
    fn remove(&self, layer: &DiffId) -> Result<(), Error>;

    /// The directories to give to overlayfs as lower layers, topmost first, for `layers` given bottom first (as in an image's
    /// `rootfs.diff_ids`). Mounts what is not mounted yet. No layers give one empty directory.
    fn lower_dirs(&self, layers: &[DiffId]) -> Result<Vec<PathBuf>, Error>;

    /// Unmounts every layer that is not in `keep`. An overlay already mounted holds its own reference and is not disturbed.
    fn unmount_except(&self, keep: &[DiffId]) -> Result<(), Error>;

    /// Makes `upper` and `work` in `container_dir`; the upper's mode, owner and extended attributes are those of the root
    /// directory of the topmost layer of `layers` (bottom first).
    fn create_upper(&self, container_dir: &Path, layers: &[DiffId]) -> Result<Upper, Error>;

    /// What is selected of the upper directory as a layer's tar, with OCI whiteouts. The thread that writes it ends with the stream.
    fn diff(&self, upper: &Path, selection: Selection) -> Result<Box<dyn Read + Send>, Error>;

    /// What the upper directory changes in the image of `layers` (bottom first), sorted by path.
    fn changes(&self, upper: &Path, layers: &[DiffId]) -> Result<Vec<Change>, Error>;
}
