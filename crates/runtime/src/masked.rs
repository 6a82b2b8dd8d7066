//! Paths that a container must not read, and paths that it must not write.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use linux::Errno;
use linux::mount_attr::Reach;
use rustix::fs::FileType;
use rustix::mount::MountAttrFlags;

use crate::devices::open_null;
use crate::error::{Context, Error, Result, Stage};
use crate::mounts::{attach_at, clone_tree, located, make_read_only};
use crate::procfs::detached;
use crate::root::{Root, file_type};

/// Hides each path: a file behind the null device, a directory behind an empty read-only one. Paths that do not exist are left out.
pub(crate) fn mask(root: Root<'_>, paths: &[String]) -> Result<()> {
    let (mut null, mut empty) = (None, None);
    for path in paths {
        let failed = || format!("cannot mask path {path}");
        let Some(place) = located(root, Path::new(path))? else { continue };
        let cover = if file_type(place.as_fd()).context(Stage::Mounts, failed)? == FileType::Directory {
            empty_directory(&mut empty).context(Stage::Mounts, failed)?
        } else {
            if null.is_none() {
                null = Some(open_null(root)?);
            }
            let null = null.as_ref().map(OwnedFd::as_fd).unwrap_or(place.as_fd());
            clone_tree(null, Reach::One).context(Stage::Mounts, failed)?
        };
        attach_at(cover.as_fd(), place.as_fd()).context(Stage::Mounts, failed)?;
    }
    Ok(())
}

/// A read-only mount of one empty file system: the first is made, the others are copies of it.
fn empty_directory(made: &mut Option<OwnedFd>) -> linux::Result<OwnedFd> {
    if let Some(first) = made {
        match clone_tree(first.as_fd(), Reach::One) {
            Err(Errno::INVAL) => {}
            other => return other,
        }
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = detached(c"tmpfs", &[("nr_blocks", Some("1")), ("nr_inodes", Some("1"))], attributes)?;
    *made = Some(rustix::io::fcntl_dupfd_cloexec(&mount, 3)?);
    Ok(mount)
}

/// Makes each path, with what is mounted below it, read-only. Paths that do not exist are left out.
pub(crate) fn make_paths_read_only(root: Root<'_>, paths: &[String]) -> Result<()> {
    for path in paths {
        let failed = || format!("cannot make path {path} read-only");
        let Some(place) = located(root, Path::new(path))? else { continue };
        let tree = clone_tree(place.as_fd(), Reach::Recursive).context(Stage::Mounts, failed)?;
        make_read_only(tree.as_fd(), Reach::Recursive).context(Stage::Mounts, failed)?;
        attach_at(tree.as_fd(), place.as_fd()).context(Stage::Mounts, failed)?;
    }
    Ok(())
}

/// Refuses paths that are not absolute: where they would lead is not said anywhere.
pub(crate) fn check(paths: &[String]) -> Result<()> {
    match paths.iter().find(|path| !path.starts_with('/')) {
        None => Ok(()),
        Some(path) => Err(Error::new(Stage::Spec, format!("masked or read-only path {path:?} is not absolute"))),
    }
}
