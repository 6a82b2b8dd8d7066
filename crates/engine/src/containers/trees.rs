//! Folders inside volumes and images as mounts that are attached nowhere yet.
//!
//! A subpath is looked up by the kernel inside its volume or image and held by a descriptor: whoever changes the volume's files
//! meanwhile cannot lead the mount out of it (as in CVE-2024-23651 and its kin).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use archive::place;
use linux::mount_attr::{MountAttr, Reach, set_attributes};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

/// A folder or file inside a folder of the host.
pub(super) fn below(folder: &Path, subpath: &str) -> io::Result<OwnedFd> {
    let folder =
        rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    let inside = place::locate(folder.as_fd(), subpath.as_bytes(), OFlags::PATH)?;
    clone(inside.as_fd())
}

/// The merged layers of an image, or a folder or file in them, read-only. `lower` is topmost first.
pub(super) fn image(lower: &[PathBuf], subpath: Option<&str>) -> io::Result<OwnedFd> {
    let view = crate::rootfs::view(lower)?;
    let tree = match (subpath, lower) {
        (Some(subpath), _) => clone(place::locate(view.as_fd(), subpath.as_bytes(), OFlags::PATH)?.as_fd()),
        // A view of one layer is its folder, where it is mounted.
        (None, [_]) => clone(view.as_fd()),
        (None, _) => Ok(view),
    };
    let tree = tree.map_err(|error| match error.raw_os_error() {
        Some(number) if number == Errno::INVAL.raw_os_error() && lower.len() > 1 => {
            io::Error::other("a path inside an image of several layers needs Linux 6.15")
        }
        _ => error,
    })?;
    set_read_only(tree.as_fd(), Reach::Recursive)?;
    Ok(tree)
}

/// What is mounted at a path of the host, with everything below it.
pub(super) fn host(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(CWD, path, flags)?)
}

fn clone(place: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(place, "", flags)?)
}

/// Makes a detached mount read-only.
pub(super) fn set_read_only(mount: BorrowedFd<'_>, reach: Reach) -> io::Result<()> {
    let attr = MountAttr { set: u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()), ..Default::default() };
    Ok(set_attributes(mount, reach, &attr)?)
}

/// Mounts that are made ready for one start, at paths that its monitor finds. They go with this value: by then the container has
/// mounts of its own.
#[derive(Debug)]
pub(super) struct Staged {
    folder: PathBuf,
    places: Vec<PathBuf>,
}

impl Staged {
    /// Nothing yet; `folder` is made with the first.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, places: Vec::new() }
    }

    /// Attaches a detached mount, and returns where.
    pub(super) fn put(&mut self, tree: BorrowedFd<'_>) -> io::Result<PathBuf> {
        std::fs::create_dir_all(&self.folder)?;
        let place = self.folder.join(self.places.len().to_string());
        match FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode) {
            FileType::Directory => std::fs::create_dir(&place)?,
            _ => drop(File::create_new(&place)?),
        }
        self.places.push(place.clone());
        move_mount(tree, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(place)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for place in &self.places {
            take_down(place);
        }
        if !self.places.is_empty() {
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

fn take_down(place: &Path) {
    // What was never mounted is no mount point.
    let _ = unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    let _ = std::fs::remove_dir(place).or_else(|_| std::fs::remove_file(place));
}

/// Takes down what starts left that a crash cut short.
pub(crate) fn sweep_staged(folder: &Path) {
    for container in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        for place in std::fs::read_dir(container.path()).into_iter().flatten().flatten() {
            take_down(&place.path());
        }
        let _ = std::fs::remove_dir(container.path());
    }
}
