//! What a container sees at `/sys/fs/cgroup`.
//!
//! On v2 it is the one hierarchy, from the root of the container's cgroup namespace. On v1 it is a tmpfs with a directory for each
//! hierarchy, in which the container's own directory of that hierarchy is bound, and a link for each controller of a shared one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use linux::Errno;
use linux::mount_attr::{MountAttr, Reach, set_attributes};
use rustix::fs::{CWD, Mode, mkdirat, symlinkat};
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use crate::error::errno_text;
use crate::mount_options::{ATTR_READ_ONLY, AttributeChange};
use crate::mounts::attach_at;
use crate::procfs::detached;
use crate::root::open_new_directory;

/// The hierarchies to show.
#[derive(Debug, Default)]
pub(crate) struct CgroupView {
    /// The mount point of the only hierarchy, where that is a v2 one.
    pub(crate) unified: Option<PathBuf>,
    /// The v1 hierarchies.
    pub(crate) v1: Vec<V1View>,
    /// Whose they are.
    pub(crate) shown: Shown,
}

/// Whose cgroups a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Shown {
    /// Its own.
    #[default]
    Own,
    /// Its creator's, as it has none: to look at, never to write to (CVE-2023-25809).
    Callers,
}

/// A v1 hierarchy.
#[derive(Debug)]
pub(crate) struct V1View {
    /// The name of its directory, as `memory` or `cpu,cpuacct`.
    pub(crate) name: String,
    /// The container's directory in it, on the host.
    pub(crate) path: PathBuf,
}

/// A hierarchy could not be shown.
#[derive(Debug, thiserror::Error)]
#[error("{subject}: {}", errno_text(*.errno))]
pub(crate) struct CgroupMountError {
    subject: String,
    errno: Errno,
}

/// Attaches the hierarchies at `place`; returns the topmost mount.
pub(crate) fn mount(
    place: BorrowedFd<'_>,
    attributes: AttributeChange,
    view: &CgroupView,
) -> Result<OwnedFd, CgroupMountError> {
    let attributes = match view.shown {
        Shown::Own => attributes,
        Shown::Callers => read_only(attributes),
    };
    match &view.unified {
        Some(mount_point) => mount_v2(place, attributes, mount_point),
        None => mount_v1(place, attributes, view),
    }
}

fn mount_v2(
    place: BorrowedFd<'_>,
    change: AttributeChange,
    host: &std::path::Path,
) -> Result<OwnedFd, CgroupMountError> {
    let failed = |errno| CgroupMountError { subject: "cgroup2".to_owned(), errno };
    let attributes = MountAttrFlags::from_bits_retain(change.set as _);
    let mount = match detached(c"cgroup2", &[], attributes) {
        // A user namespace that does not own the cgroup namespace sees what the host shows.
        Err(Errno::PERM | Errno::BUSY) => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
            let tree = open_tree(CWD, host, flags).map_err(failed)?;
            set(tree.as_fd(), Reach::Recursive, read_only(change)).map_err(failed)?;
            tree
        }
        other => other.map_err(failed)?,
    };
    attach_at(mount.as_fd(), place).map_err(failed)?;
    Ok(mount)
}

fn mount_v1(place: BorrowedFd<'_>, change: AttributeChange, view: &CgroupView) -> Result<OwnedFd, CgroupMountError> {
    let failed = |subject: &str| {
        let subject = subject.to_owned();
        move |errno| CgroupMountError { subject, errno }
    };
    let later = AttributeChange { set: change.set & !ATTR_READ_ONLY, clear: change.clear };
    let attributes = MountAttrFlags::from_bits_retain(later.set as _);
    let folder = detached(c"tmpfs", &[("mode", Some("755"))], attributes).map_err(failed("tmpfs"))?;
    attach_at(folder.as_fd(), place).map_err(failed("tmpfs"))?;
    for hierarchy in &view.v1 {
        show_v1(folder.as_fd(), change, hierarchy).map_err(failed(&hierarchy.name))?;
    }
    if change.set & ATTR_READ_ONLY != 0 {
        set(folder.as_fd(), Reach::One, AttributeChange { set: ATTR_READ_ONLY, clear: 0 }).map_err(failed("tmpfs"))?;
    }
    Ok(folder)
}

fn show_v1(folder: BorrowedFd<'_>, change: AttributeChange, hierarchy: &V1View) -> linux::Result<()> {
    mkdirat(folder, &hierarchy.name, Mode::from_raw_mode(0o755))?;
    let place = open_new_directory(folder, hierarchy.name.as_ref())?;
    let tree = open_tree(CWD, &hierarchy.path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    set(tree.as_fd(), Reach::One, change)?;
    attach_at(tree.as_fd(), place.as_fd())?;
    if hierarchy.name.contains(',') {
        for controller in hierarchy.name.split(',') {
            symlinkat(&hierarchy.name, folder, controller)?;
        }
    }
    Ok(())
}

fn read_only(change: AttributeChange) -> AttributeChange {
    AttributeChange { set: change.set | ATTR_READ_ONLY, clear: change.clear & !ATTR_READ_ONLY }
}

fn set(mount: BorrowedFd<'_>, reach: Reach, change: AttributeChange) -> linux::Result<()> {
    if change.is_empty() {
        return Ok(());
    }
    set_attributes(mount, reach, &MountAttr { set: change.set, clear: change.clear, ..MountAttr::default() })
}
