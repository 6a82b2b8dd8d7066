//! What both back ends do alike: lower directories in order, upper directories, their differences.

use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use archive::changes::Change;
use archive::export::Selection;
use oci::DiffId;

use crate::{Error, Upper};

/// Lower directories, topmost first. An image may have one layer twice, which overlayfs refuses: what the lower of the two adds or
/// hides, the upper one adds or hides as well, so the upper one is enough.
pub(crate) fn lower_dirs(
    layers: &[DiffId],
    empty: &Path,
    mut place: impl FnMut(&DiffId) -> Result<PathBuf, Error>,
) -> Result<Vec<PathBuf>, Error> {
    let mut seen = Vec::new();
    for layer in layers.iter().rev() {
        if !seen.contains(layer) {
            seen.push(*layer);
        }
    }
    if seen.is_empty() {
        return Ok(vec![empty.to_owned()]);
    }
    seen.iter().map(&mut place).collect()
}

/// Makes the root of what has no layers: open to all, and the same on every machine, because layers that are built on it begin with it.
pub(crate) fn make_empty(dir: &Path) -> Result<(), durable::PathError> {
    let wrong = |error: std::io::Error| durable::PathError::new(durable::Operation::Create, dir, error);
    // What it lies in is nobody's to enter.
    durable::create_dir(dir.parent().unwrap_or(dir), 0o700)?;
    durable::create_dir(dir, 0o755)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(wrong)?;
    let beginning = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: beginning, last_modification: beginning };
    rustix::fs::utimensat(rustix::fs::CWD, dir, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| wrong(error.into()))
}

/// Makes `upper` and `work`. The root of a container is the upper directory's inode: its mode, owner and attributes must be the image's.
pub(crate) fn create(container_dir: &Path, topmost: &Path) -> Result<Upper, Error> {
    let upper = Upper { upper: container_dir.join("upper"), work: container_dir.join("work") };
    for dir in [&upper.upper, &upper.work] {
        DirBuilder::new().mode(0o700).create(dir).map_err(Error::io("create", dir))?;
    }
    let like = File::open(topmost).map_err(Error::io("open", topmost))?;
    let metadata = like.metadata().map_err(Error::io("inspect", topmost))?;
    let dir = File::open(&upper.upper).map_err(Error::io("open", &upper.upper))?;
    let change = Error::io("change", &upper.upper);
    rustix::fs::fchown(
        dir.as_fd(),
        rustix::fs::Uid::from_raw(metadata.uid()).into(),
        rustix::fs::Gid::from_raw(metadata.gid()).into(),
    )
    .map_err(std::io::Error::from)
    .and_then(|()| fs::set_permissions(&upper.upper, fs::Permissions::from_mode(metadata.mode() & 0o7777)))
    .and_then(|()| archive::attributes::copy_xattrs(like.as_fd(), dir.as_fd()))
    .map_err(change)?;
    Ok(upper)
}

/// The upper directory as a layer's tar.
pub(crate) fn diff(upper: &Path, selection: Selection) -> Result<Box<dyn Read + Send>, Error> {
    let dir = File::open(upper).map_err(Error::io("open", upper))?;
    let tar =
        archive::pipe::produce("layer-diff", move |output| archive::export::layer(dir.as_fd(), selection, output));
    Ok(Box::new(tar.map_err(Error::io("start a thread for", upper))?))
}

/// What the upper directory changes.
pub(crate) fn changes(upper: &Path, lowers: &[PathBuf]) -> Result<Vec<Change>, Error> {
    let open = |path: &Path| File::open(path).map_err(Error::io("open", path));
    let dir = open(upper)?;
    let lowers = lowers.iter().map(|lower| open(lower)).collect::<Result<Vec<_>, _>>()?;
    let lowers: Vec<_> = lowers.iter().map(|lower| lower.as_fd()).collect();
    archive::changes::changes(dir.as_fd(), &lowers).map_err(Error::io("compare", upper))
}
