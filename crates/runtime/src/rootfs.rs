//! The container's root: a detached mount, attached in the container's mount namespace and made its root.

use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::mount_attr::{MountAttr, Reach, set_attributes, set_attributes_at};
use linux::{Errno, credentials};
use oci::runtime::{Linux, RootfsPropagation};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree, unmount,
};

use crate::error::{Context, Error, Result, Stage};
use crate::id_maps;
use crate::mount_options::{PROPAGATION_PRIVATE, PROPAGATION_SHARED, PROPAGATION_SLAVE, PROPAGATION_UNBINDABLE};
use crate::mounts::{attach_at, clone_tree};
use crate::request::Rootfs;

/// `fsconfig` takes no longer value.
const MAX_FSCONFIG_VALUE: usize = 255;

/// A container's root before it is attached.
#[derive(Debug)]
pub(crate) enum PreparedRoot<'a> {
    /// Made already: an overlay, and where the kernel allows it a second mount of it that nothing will be mounted into.
    Detached { mount: OwnedFd, pristine: Option<OwnedFd> },
    /// To be bound by init, in its own namespaces.
    Directory(&'a Path),
    /// To be mounted by init with `mount(2)`, for kernels whose `fsconfig` cannot take many layers.
    LegacyOverlay(String),
}

/// The ids with which an overlay's layers are mounted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mapped<'a> {
    /// A user namespace that has the mapping.
    pub(crate) user_namespace: BorrowedFd<'a>,
    /// A user of the host that the mapping has.
    pub(crate) uid: u32,
    /// A group of the host that the mapping has.
    pub(crate) gid: u32,
}

/// Makes what can be made of the root before the container's namespaces are there.
pub(crate) fn prepare<'r>(rootfs: &'r Rootfs, mapped: Option<Mapped<'_>>) -> Result<PreparedRoot<'r>> {
    match rootfs {
        Rootfs::Directory { path } => Ok(PreparedRoot::Directory(path)),
        Rootfs::Overlay { lower, upper, work, options } => {
            let overlay = Overlay { lower, upper: upper.as_deref(), work: work.as_deref(), options };
            match mapped {
                None => overlay.mount(),
                Some(mapped) => overlay.mount_mapped(mapped),
            }
        }
    }
}

/// A detached mount of an overlay as a container with these mappings has it, for a runtime that cannot make it.
pub fn mapped_overlay(rootfs: &Rootfs, linux: &Linux) -> Result<OwnedFd> {
    let user_namespace = id_maps::namespace_with(&linux.uid_mappings, &linux.gid_mappings)?;
    match prepare(rootfs, Some(Mapped::first(linux, user_namespace.as_fd())?))? {
        PreparedRoot::Detached { mount, .. } => Ok(mount),
        PreparedRoot::Directory(_) | PreparedRoot::LegacyOverlay(_) => {
            Err(Error::new(Stage::Rootfs, "only an overlay can be mounted with mapped ids"))
        }
    }
}

/// A detached copy of the mount at a path, in which files belong to whom these mappings make of their owners.
pub fn mapped_bind(path: &Path, linux: &Linux) -> Result<OwnedFd> {
    let user_namespace = id_maps::namespace_with(&linux.uid_mappings, &linux.gid_mappings)?;
    map_folder(path, Mapped::first(linux, user_namespace.as_fd())?)
}

impl<'a> Mapped<'a> {
    fn first(linux: &Linux, user_namespace: BorrowedFd<'a>) -> Result<Mapped<'a>> {
        match (linux.uid_mappings.first(), linux.gid_mappings.first()) {
            (Some(uids), Some(gids)) => Ok(Mapped { user_namespace, uid: uids.host_id, gid: gids.host_id }),
            _ => Err(Error::new(Stage::Rootfs, "there are no id mappings")),
        }
    }
}

struct Overlay<'a> {
    lower: &'a [PathBuf],
    upper: Option<&'a Path>,
    work: Option<&'a Path>,
    options: &'a [String],
}

impl Overlay<'_> {
    fn mount<'r>(&self) -> Result<PreparedRoot<'r>> {
        if self.lower.is_empty() || self.upper.is_some() != self.work.is_some() {
            return Err(Error::new(
                Stage::Rootfs,
                "an overlay needs a layer, and either both of upper and work or none",
            ));
        }
        match self.mount_by_fsconfig() {
            Ok(mount) => {
                // Cloning a mount that is attached nowhere works from Linux 6.15 on; init makes the clone elsewhere.
                let pristine = clone_tree(mount.as_fd(), Reach::One).ok();
                Ok(PreparedRoot::Detached { mount, pristine })
            }
            // Before Linux 6.5 there is no `lowerdir+`.
            Err(Errno::INVAL) => Ok(PreparedRoot::LegacyOverlay(self.legacy_data()?)),
            Err(errno) => {
                Err(Error::os(Stage::Rootfs, format!("cannot mount the overlay of {}", self.subject()), errno))
            }
        }
    }

    /// With layers that are id-mapped, the container's own included: overlayfs itself cannot be, but looks through those of its layers.
    fn mount_mapped<'r>(&self, mapped: Mapped<'_>) -> Result<PreparedRoot<'r>> {
        let mut held = Vec::new();
        let mut map = |folder: &Path| -> Result<PathBuf> {
            let tree = map_folder(folder, mapped)?;
            let name = format!("/proc/self/fd/{}", tree.as_raw_fd());
            held.push(tree);
            Ok(PathBuf::from(name))
        };
        let lower = self.lower.iter().map(|layer| map(layer)).collect::<Result<Vec<_>>>()?;
        let (upper, work) = match (self.upper, self.work) {
            (Some(upper), Some(work)) => {
                // Both must be in one mount.
                let (Some(parent), Some(upper_name), Some(work_name)) = (
                    upper.parent().filter(|parent| work.parent() == Some(parent)),
                    upper.file_name(),
                    work.file_name(),
                ) else {
                    return Err(Error::new(Stage::Rootfs, "upper and work of an id-mapped overlay are in one folder"));
                };
                let parent = map(parent)?;
                (Some(parent.join(upper_name)), Some(parent.join(work_name)))
            }
            _ => (None, None),
        };
        let overlay = Overlay { lower: &lower, upper: upper.as_deref(), work: work.as_deref(), options: self.options };
        let mount = overlay
            .mount_as(Some(mapped))
            .context(Stage::Rootfs, || format!("cannot mount the overlay of {} with mapped ids", self.subject()))?;
        let pristine = clone_tree(mount.as_fd(), Reach::One).ok();
        Ok(PreparedRoot::Detached { mount, pristine })
    }

    fn mount_by_fsconfig(&self) -> linux::Result<OwnedFd> {
        self.mount_as(None)
    }

    /// overlayfs works in its upper layer with the ids and the rights of who has mounted it; an id that the layer's mapping lacks could
    /// make nothing there.
    fn mount_as(&self, mapped: Option<Mapped<'_>>) -> linux::Result<OwnedFd> {
        let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let fd = context.as_fd();
        let mut held = Vec::new();
        let mut set = |key: &str, path: &Path| match short_path(path)? {
            Some((short, place)) => {
                held.push(place);
                fsconfig_set_string(fd, key, short)
            }
            None => fsconfig_set_string(fd, key, path),
        };
        for layer in self.lower {
            set("lowerdir+", layer)?;
        }
        if let (Some(upper), Some(work)) = (self.upper, self.work) {
            set("upperdir", upper)?;
            set("workdir", work)?;
        }
        for option in self.options {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(fd, key, value)?,
                None => fsconfig_set_flag(fd, option.as_str())?,
            }
        }
        fsconfig_set_string(fd, "source", "overlay")?;
        match mapped {
            None => fsconfig_create(fd)?,
            Some(mapped) => with_file_system_ids(mapped, || fsconfig_create(fd))?,
        }
        fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// Everything in one text of at most a page, colons and commas of paths escaped.
    fn legacy_data(&self) -> Result<String> {
        let escaped = |path: &Path| {
            let text =
                path.to_str().ok_or_else(|| Error::new(Stage::Rootfs, format!("{} is not UTF-8", path.display())))?;
            Ok(text.chars().fold(String::new(), |mut escaped, letter| {
                if matches!(letter, '\\' | ':' | ',') {
                    escaped.push('\\');
                }
                escaped.push(letter);
                escaped
            }))
        };
        let lower = self.lower.iter().map(|path| escaped(path)).collect::<Result<Vec<_>>>()?.join(":");
        let mut data = format!("lowerdir={lower}");
        if let (Some(upper), Some(work)) = (self.upper, self.work) {
            let _infallible = write!(data, ",upperdir={},workdir={}", escaped(upper)?, escaped(work)?);
        }
        for option in self.options {
            let _infallible = write!(data, ",{option}");
        }
        if data.len() >= rustix::param::page_size() {
            return Err(Error::new(Stage::Rootfs, format!("this kernel cannot mount {} layers", self.lower.len())));
        }
        Ok(data)
    }

    fn subject(&self) -> String {
        self.upper.unwrap_or(&self.lower[0]).display().to_string()
    }
}

/// A detached mount of a folder, in which files belong to whom the mapping makes of their owners.
fn map_folder(path: &Path, mapped: Mapped<'_>) -> Result<OwnedFd> {
    let failed = |what: &str| format!("cannot {what} {} for id mapping", path.display());
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).context(Stage::Rootfs, || failed("open"))?;
    let attr = MountAttr {
        set: MountAttrFlags::MOUNT_ATTR_IDMAP.bits() as u64,
        propagation: PROPAGATION_PRIVATE,
        user_namespace: Some(mapped.user_namespace),
        ..MountAttr::default()
    };
    // EINVAL: a file system without id-mapped mounts, or a kernel older than 5.12.
    set_attributes(tree.as_fd(), Reach::One, &attr).context(Stage::Rootfs, || failed("set up"))?;
    Ok(tree)
}

/// Does something with other ids for files and with all rights over them.
fn with_file_system_ids<T>(mapped: Mapped<'_>, work: impl FnOnce() -> linux::Result<T>) -> linux::Result<T> {
    let before = credentials::capabilities()?;
    credentials::set_file_system_ids(mapped.uid, mapped.gid)?;
    let raised = credentials::Capabilities { effective: before.permitted, ..before };
    let done = credentials::set_capabilities(&raised).and_then(|()| work());
    credentials::set_file_system_ids(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())?;
    credentials::set_capabilities(&before)?;
    done
}

/// A short name for a path that is too long, and the descriptor that keeps it valid.
fn short_path(path: &Path) -> linux::Result<Option<(String, OwnedFd)>> {
    if path.as_os_str().len() <= MAX_FSCONFIG_VALUE {
        return Ok(None);
    }
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(Some((format!("/proc/self/fd/{}", place.as_raw_fd()), place)))
}

/// Cuts the new mount namespace off from the host's, as far as the container's root is to be.
pub(crate) fn isolate_mounts(propagation: Option<RootfsPropagation>) -> Result<()> {
    let Some(flags) = isolation(propagation) else { return Ok(()) };
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context(Stage::Rootfs, || "cannot open /")?;
    set_attributes(root.as_fd(), Reach::Recursive, &MountAttr { propagation: flags, ..MountAttr::default() })
        .context(Stage::Rootfs, || "cannot change the propagation of /")
}

/// What becomes of the propagation of the host's mounts in the container's namespace; `None` leaves it.
pub(crate) fn isolation(propagation: Option<RootfsPropagation>) -> Option<u64> {
    match propagation {
        Some(RootfsPropagation::Private | RootfsPropagation::Rprivate) => Some(PROPAGATION_PRIVATE),
        // Mounts of the host stay peers of the container's binds; the root's own parent is made private when it is attached.
        Some(RootfsPropagation::Shared | RootfsPropagation::Rshared) => None,
        _ => Some(PROPAGATION_SLAVE),
    }
}

/// The root attached in the container's mount namespace, and one more mount of it where that was made.
#[derive(Debug)]
pub(crate) struct AttachedRoot {
    pub(crate) mount: OwnedFd,
    /// Made here for the creator, who could not make it before.
    pub(crate) pristine: Option<OwnedFd>,
}

/// Attaches the root: a directory on itself, where hooks expect it, anything else on `/`.
pub(crate) fn attach(prepared: PreparedRoot<'_>, propagation: Option<RootfsPropagation>) -> Result<AttachedRoot> {
    let failed = |what: &'static str| move || what;
    let shared = matches!(propagation, Some(RootfsPropagation::Shared | RootfsPropagation::Rshared));
    if shared {
        let attr = MountAttr { propagation: PROPAGATION_PRIVATE, ..MountAttr::default() };
        set_attributes_at(CWD, c"/", Reach::One, &attr).context(Stage::Rootfs, failed("cannot make / private"))?;
    }
    let (mount, mut pristine, place) = match prepared {
        PreparedRoot::Detached { mount, pristine } => {
            // The creator has its own descriptor of the clone.
            let made_before = pristine.is_some();
            drop(pristine);
            (mount, !made_before, None)
        }
        PreparedRoot::Directory(path) => (bind_directory(path)?, false, Some(path)),
        PreparedRoot::LegacyOverlay(data) => {
            let mount = legacy_overlay(&data)?;
            let pristine = clone_tree(mount.as_fd(), Reach::One).ok();
            return Ok(AttachedRoot { mount, pristine });
        }
    };
    let place = match place {
        Some(path) if !shared => {
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        }
        _ => rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()),
    };
    let place = place.context(Stage::Rootfs, failed("cannot open the place of the root"))?;
    attach_at(mount.as_fd(), place.as_fd()).context(Stage::Rootfs, failed("cannot attach the root"))?;
    let pristine = if std::mem::take(&mut pristine) { clone_tree(mount.as_fd(), Reach::One).ok() } else { None };
    Ok(AttachedRoot { mount, pristine })
}

fn bind_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let mount =
        open_tree(CWD, path, flags).context(Stage::Rootfs, || format!("cannot open the root {}", path.display()))?;
    // Neither pivot_root nor attaching below it works with a shared mount.
    let attr = MountAttr { propagation: PROPAGATION_PRIVATE, ..MountAttr::default() };
    set_attributes(mount.as_fd(), Reach::One, &attr).context(Stage::Rootfs, || "cannot make the root private")?;
    Ok(mount)
}

/// Mounts over `/` and takes a descriptor of what is on top there now.
fn legacy_overlay(data: &str) -> Result<OwnedFd> {
    let failed = || "cannot mount the overlay";
    let data = std::ffi::CString::new(data).map_err(|_| Error::new(Stage::Rootfs, "a path has a NUL in it"))?;
    rustix::mount::mount(c"overlay", c"/", c"overlay", MountFlags::empty(), Some(&*data))
        .context(Stage::Rootfs, failed)?;
    // `/` is still the old root, but its parent directory is looked up through what is mounted on it.
    rustix::fs::open(c"/..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(Stage::Rootfs, failed)
}

/// How the attached root becomes the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RootChange {
    /// `pivot_root`.
    PivotRoot,
    /// Moving the mount over `/` and `chroot`.
    MoveMount,
    /// `chroot` alone, in a mount namespace that is not the container's.
    Chroot,
}

/// Makes the attached root the root of this process and its namespace, and lets the host's tree go.
pub(crate) fn change_root(root: BorrowedFd<'_>, change: RootChange) -> Result<()> {
    match change {
        RootChange::PivotRoot => pivot_root(root),
        RootChange::MoveMount => move_root(root),
        RootChange::Chroot => enter_root(root),
    }
}

fn pivot_root(root: BorrowedFd<'_>) -> Result<()> {
    let old = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context(Stage::Rootfs, || "cannot open /")?;
    rustix::process::fchdir(root).context(Stage::Rootfs, || "cannot enter the root")?;
    rustix::process::pivot_root(c".", c".").context(Stage::Rootfs, || "pivot_root")?;
    // The old root now lies over the new one; its unmounting must not reach the host.
    set_attributes(
        old.as_fd(),
        Reach::Recursive,
        &MountAttr { propagation: PROPAGATION_SLAVE, ..MountAttr::default() },
    )
    .context(Stage::Rootfs, || "cannot cut off the old root")?;
    drop(old);
    unmount(c".", UnmountFlags::DETACH).context(Stage::Rootfs, || "cannot detach the old root")?;
    rustix::process::chdir(c"/").context(Stage::Rootfs, || "cannot enter /")
}

fn move_root(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root).context(Stage::Rootfs, || "cannot enter the root")?;
    let place = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context(Stage::Rootfs, || "cannot open /")?;
    match attach_at(root, place.as_fd()) {
        // It is there already.
        Ok(()) | Err(Errno::INVAL | Errno::BUSY | Errno::LOOP) => {}
        Err(errno) => return Err(Error::os(Stage::Rootfs, "cannot move the root to /", errno)),
    }
    enter_root(root)
}

fn enter_root(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root).context(Stage::Rootfs, || "cannot enter the root")?;
    rustix::process::chroot(c".").context(Stage::Rootfs, || "chroot")?;
    rustix::process::chdir(c"/").context(Stage::Rootfs, || "cannot enter /")
}

/// Sets the propagation that the configuration asks for on the container's root.
pub(crate) fn set_propagation(root: BorrowedFd<'_>, propagation: Option<RootfsPropagation>) -> Result<()> {
    use RootfsPropagation::{Private, Rprivate, Rshared, Rslave, Runbindable, Shared, Slave, Unbindable};
    let Some(wanted) = propagation else { return Ok(()) };
    let flag = match wanted {
        Shared | Rshared => PROPAGATION_SHARED,
        Slave | Rslave => PROPAGATION_SLAVE,
        Private | Rprivate => PROPAGATION_PRIVATE,
        Unbindable | Runbindable => PROPAGATION_UNBINDABLE,
    };
    let reach = if matches!(wanted, Rshared | Rslave | Rprivate | Runbindable) { Reach::Recursive } else { Reach::One };
    set_attributes(root, reach, &MountAttr { propagation: flag, ..MountAttr::default() })
        .context(Stage::Rootfs, || "cannot set the propagation of the root")
}
