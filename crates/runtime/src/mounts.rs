//! The mounts of a container: each is made detached, and then attached to a place that a descriptor holds.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::Errno;
use linux::mount_attr::{MountAttr, Reach, set_attributes};
use oci::runtime::Mount;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, fstatfs};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount, open_tree,
};

use crate::cgroup_mount::{self, CgroupView};
use crate::copy_up;
use crate::error::{Context, Error, Result, Stage, errno_text};
use crate::mount_options::{ATTR_READ_ONLY, AttributeChange, IdMapped, MountOptions, Source};
use crate::root::{Root, clean};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// `fsconfig` takes no longer value.
const MAX_FSCONFIG_VALUE: usize = 255;

/// Files of procfs over which something may be mounted: what programs as lxcfs present in the kernel's place.
const MOUNTABLE_IN_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// A mount of the configuration, understood.
#[derive(Debug)]
pub(crate) struct PlannedMount<'a> {
    pub(crate) mount: &'a Mount,
    pub(crate) options: MountOptions,
    /// Absolute in the container, without `.` and `..`.
    pub(crate) destination: PathBuf,
}

impl<'a> PlannedMount<'a> {
    /// Understands a mount and refuses what can be seen to be wrong without trying.
    pub(crate) fn plan(mount: &'a Mount) -> Result<PlannedMount<'a>> {
        let planned = PlannedMount {
            mount,
            options: MountOptions::parse(mount),
            destination: clean(Path::new(&mount.destination)),
        };
        if mount.destination.is_empty() || planned.destination == Path::new("/") {
            return Err(planned.error("the destination is the root itself"));
        }
        if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
            return Err(planned.error("uidMappings and gidMappings must be given together"));
        }
        if planned.options.id_mapped != IdMapped::No && !planned.is_bind() {
            return Err(planned.error("only binds can be id-mapped"));
        }
        if planned.options.copy_up && mount.kind != "tmpfs" {
            return Err(planned.error("tmpcopyup is for tmpfs only"));
        }
        Ok(planned)
    }

    pub(crate) fn is_bind(&self) -> bool {
        self.options.source != Source::FileSystem
    }

    /// Whether the runtime fills the mount with devices.
    pub(crate) fn is_fresh_dev(&self) -> bool {
        self.destination == Path::new("/dev") && self.mount.kind == "tmpfs" && !self.is_bind() && !self.options.remount
    }

    /// Options for a file system's own driver, which a bind does not ask: older engines write them, so they are told and not refused.
    pub(crate) fn options_without_effect(&self) -> Vec<String> {
        if !self.is_bind() || self.options.remount {
            return Vec::new();
        }
        let words = self.options.data.iter().map(String::as_str).chain(self.options.superblock.iter().copied());
        words.map(|word| format!("option {word:?} of the bind at {:?} has no effect", self.mount.destination)).collect()
    }

    fn error(&self, cause: impl std::fmt::Display) -> Error {
        let source = if self.mount.source.is_empty() { &self.mount.kind } else { &self.mount.source };
        Error::new(
            Stage::Mounts,
            format!("error mounting {source:?} to rootfs at {:?}: {cause}", self.mount.destination),
        )
    }

    fn os_error(&self, what: &str, errno: Errno) -> Error {
        self.error(format_args!("{what}: {}", errno_text(errno)))
    }
}

/// What making the mounts needs to know of the container.
#[derive(Debug)]
pub(crate) struct MountContext<'a> {
    pub(crate) root: Root<'a>,
    pub(crate) cgroups: &'a CgroupView,
    /// The SELinux label of file systems made for the container.
    pub(crate) label: &'a str,
}

/// A bind's source, opened before anything hides it.
pub(crate) type OpenedSource = Option<OwnedFd>;

/// Opens the source of a bind as a detached copy.
pub(crate) fn open_source(planned: &PlannedMount<'_>, bundle: &Path) -> Result<OpenedSource> {
    if !planned.is_bind() || planned.options.remount {
        return Ok(None);
    }
    let path = bundle.join(&planned.mount.source);
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if planned.options.source == Source::RecursiveBind {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, &path, flags).map(Some).map_err(|errno| planned.os_error(&format!("open {}", path.display()), errno))
}

/// Makes one mount and attaches it. Returns its descriptor when it must be made read-only once all is in place.
pub(crate) fn make(
    planned: &PlannedMount<'_>,
    source: OpenedSource,
    context: &MountContext<'_>,
) -> Result<Option<OwnedFd>> {
    if planned.options.remount {
        return remount(planned, context).map(|()| None);
    }
    if planned.mount.kind == "cgroup" || planned.mount.kind == "cgroup2" {
        let place = destination_for(planned, FileType::Directory, context)?;
        let mount = cgroup_mount::mount(place.as_fd(), planned.options.attributes, context.cgroups);
        return finish(planned, mount.map_err(|error| planned.error(error))?);
    }
    match source {
        Some(tree) => bind(planned, tree, context).map(|()| None),
        None => mount_file_system(planned, context),
    }
}

fn bind(planned: &PlannedMount<'_>, tree: OwnedFd, context: &MountContext<'_>) -> Result<()> {
    let kind = fstat(&tree).map(|stat| FileType::from_raw_mode(stat.st_mode));
    let kind = kind.map_err(|errno| planned.os_error("stat of the source", errno))?;
    let place = destination_for(planned, kind, context)?;
    check_proc(planned, place.as_fd(), is_procfs(tree.as_fd()))?;
    change(planned, tree.as_fd(), Reach::One, planned.options.attributes)?;
    attach(planned, tree.as_fd(), place.as_fd())?;
    finish(planned, tree).map(drop)
}

fn mount_file_system(planned: &PlannedMount<'_>, context: &MountContext<'_>) -> Result<Option<OwnedFd>> {
    let existed = context.root.locate(&planned.destination).ok();
    let place = destination_for(planned, FileType::Directory, context)?;
    check_proc(planned, place.as_fd(), planned.mount.kind == "proc")?;
    let mut data = planned.options.data.clone();
    if planned.mount.kind == "tmpfs" && !data.iter().any(|word| word.starts_with("mode=")) {
        // As on a host: a tmpfs over a directory has that directory's mode.
        if let Some(stat) = existed.and_then(|place| fstat(&place).ok()) {
            data.push(format!("mode={:o}", stat.st_mode & 0o7777));
        }
    }
    if !context.label.is_empty() && planned.mount.kind != "proc" && planned.mount.kind != "sysfs" {
        data.push(format!("context={}", context.label));
    }
    if data.iter().any(|word| word.len() > MAX_FSCONFIG_VALUE) {
        return legacy_mount(planned, place.as_fd(), &data, context).map(|()| None);
    }
    let mount = new_file_system(planned, &data)?;
    if planned.options.copy_up {
        copy_up::copy(place.as_fd(), mount.as_fd()).map_err(|error| planned.error(error))?;
    }
    attach(planned, mount.as_fd(), place.as_fd())?;
    finish(planned, mount)
}

/// A detached mount of a new instance (or of the one there is, as of sysfs).
fn new_file_system(planned: &PlannedMount<'_>, data: &[String]) -> Result<OwnedFd> {
    let kind = CString::new(planned.mount.kind.as_str()).map_err(|_| planned.error("the type has a NUL in it"))?;
    let failed = |what: &str, errno| planned.os_error(what, errno);
    let context = fsopen(&*kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| match errno {
        Errno::NODEV => planned.os_error(&format!("file system type {:?}", planned.mount.kind), errno),
        _ => failed("fsopen", errno),
    })?;
    let fd = context.as_fd();
    if !planned.mount.source.is_empty() {
        fsconfig_set_string(fd, "source", &planned.mount.source).map_err(|errno| failed("source", errno))?;
    }
    if sets_read_only_superblock(planned) {
        fsconfig_set_flag(fd, "ro").map_err(|errno| failed("ro", errno))?;
    }
    for flag in &planned.options.superblock {
        fsconfig_set_flag(fd, *flag).map_err(|errno| failed(flag, errno))?;
    }
    for word in data {
        let set = match word.split_once('=') {
            Some((key, value)) => fsconfig_set_string(fd, key, value),
            None => fsconfig_set_flag(fd, word.as_str()),
        };
        set.map_err(|errno| failed(&format!("option {word:?}"), errno))?;
    }
    fsconfig_create(fd).map_err(|errno| failed("mount", errno))?;
    let mut attributes = planned.options.attributes.set;
    if is_filled_later(planned) {
        attributes &= !ATTR_READ_ONLY;
    }
    let attributes = MountAttrFlags::from_bits_retain(attributes as _);
    fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|errno| failed("fsmount", errno))
}

/// A tmpfs gets directories and files after it was mounted; it becomes read-only at the end.
fn is_filled_later(planned: &PlannedMount<'_>) -> bool {
    planned.mount.kind == "tmpfs"
}

/// Only a file system that is the mount's own may be read-only as a whole; the kernel's shared ones are not ours to change.
fn sets_read_only_superblock(planned: &PlannedMount<'_>) -> bool {
    let shared =
        ["tmpfs", "proc", "sysfs", "mqueue", "devpts", "devtmpfs", "cgroup", "cgroup2", "securityfs", "debugfs"];
    planned.options.is_read_only() && !shared.contains(&planned.mount.kind.as_str())
}

/// `mount(2)`, for values that `fsconfig` does not take; on the working directory, which a descriptor chose.
fn legacy_mount(
    planned: &PlannedMount<'_>,
    place: BorrowedFd<'_>,
    data: &[String],
    context: &MountContext<'_>,
) -> Result<()> {
    let failed = |what: &str, errno| planned.os_error(what, errno);
    let back = rustix::fs::open(c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed("open .", errno))?;
    rustix::process::fchdir(place).map_err(|errno| failed("fchdir", errno))?;
    let text = CString::new(data.join(",")).map_err(|_| planned.error("an option has a NUL in it"))?;
    let source = if planned.mount.source.is_empty() { "none" } else { &planned.mount.source };
    let mounted = rustix::mount::mount(source, c".", &planned.mount.kind, MountFlags::empty(), Some(&*text));
    rustix::process::fchdir(&back).map_err(|errno| failed("fchdir", errno))?;
    mounted.map_err(|errno| failed("mount", errno))?;
    let top = context.root.locate(&planned.destination).map_err(|errno| failed("open", errno))?;
    change(planned, top.as_fd(), Reach::One, planned.options.attributes)?;
    finish(planned, top).map(drop)
}

fn remount(planned: &PlannedMount<'_>, context: &MountContext<'_>) -> Result<()> {
    let failed = |what: &str, errno| planned.os_error(what, errno);
    let place = context.root.locate(&planned.destination).map_err(|errno| failed("open", errno))?;
    if !planned.options.data.is_empty() || !planned.options.superblock.is_empty() {
        let picked = fspick(&place, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC);
        let picked = picked.map_err(|errno| failed("fspick", errno))?;
        for word in planned.options.data.iter().map(String::as_str).chain(planned.options.superblock.iter().copied()) {
            let set = match word.split_once('=') {
                Some((key, value)) => fsconfig_set_string(picked.as_fd(), key, value),
                None => fsconfig_set_flag(picked.as_fd(), word),
            };
            set.map_err(|errno| failed(&format!("option {word:?}"), errno))?;
        }
        fsconfig_reconfigure(picked.as_fd()).map_err(|errno| failed("remount", errno))?;
    }
    change(planned, place.as_fd(), Reach::One, planned.options.attributes)?;
    finish(planned, place).map(drop)
}

/// The place where a mount goes, made where it is missing.
fn destination_for(planned: &PlannedMount<'_>, kind: FileType, context: &MountContext<'_>) -> Result<OwnedFd> {
    let path = &planned.destination;
    let mode = Mode::from_raw_mode(0o755);
    let ordinary = must_be_ordinary(planned);
    let place = match kind {
        FileType::Directory if ordinary => context.root.make_ordinary_directory(path, mode),
        FileType::Directory => context.root.make_directory(path, mode),
        _ => context.root.make_file(path),
    };
    place.map_err(|errno| match errno {
        Errno::LOOP if ordinary => {
            let what = if planned.mount.kind.is_empty() { "bind" } else { &planned.mount.kind };
            planned.error(format_args!("filesystem {what:?} must be mounted on ordinary directory"))
        }
        _ => planned.os_error(&format!("create mountpoint for {} mount", planned.mount.destination), errno),
    })
}

/// The runtime itself writes below these: a link there would be the image choosing where.
fn must_be_ordinary(planned: &PlannedMount<'_>) -> bool {
    let own = ["/proc", "/sys", "/dev"].iter().any(|path| planned.destination == Path::new(path));
    own || ["proc", "sysfs"].contains(&planned.mount.kind.as_str())
}

/// Nothing but a procfs goes to `/proc`, and nothing but a few files' stand-ins goes into one.
fn check_proc(planned: &PlannedMount<'_>, place: BorrowedFd<'_>, source_is_procfs: bool) -> Result<()> {
    if planned.destination == Path::new("/proc") {
        return if source_is_procfs {
            Ok(())
        } else {
            Err(planned.error("cannot be mounted because it is not of type proc"))
        };
    }
    let listed = MOUNTABLE_IN_PROC.iter().any(|path| planned.destination == Path::new(path));
    if is_procfs(place) && !listed {
        return Err(planned.error("cannot be mounted because it is inside /proc"));
    }
    Ok(())
}

fn is_procfs(fd: BorrowedFd<'_>) -> bool {
    fstatfs(fd).is_ok_and(|stat| stat.f_type as u64 == PROC_SUPER_MAGIC)
}

fn attach(planned: &PlannedMount<'_>, mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<()> {
    attach_at(mount, place).map_err(|errno| {
        // The kernel does not say so of a folder on a file, or the other way round.
        let is_folder = |fd| {
            fstat(fd).is_ok_and(|stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        };
        let differ = errno == Errno::INVAL && is_folder(mount) != is_folder(place);
        planned.error(errno_text(if differ { Errno::NOTDIR } else { errno }))
    })
}

/// Attaches a detached mount to the place that `place` is open on, whatever its name is by now.
pub(crate) fn attach_at(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> linux::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", place, c"", flags)
}

/// What comes once a mount is attached: recursive attributes and propagation.
fn finish(planned: &PlannedMount<'_>, mount: OwnedFd) -> Result<Option<OwnedFd>> {
    change(planned, mount.as_fd(), Reach::Recursive, planned.options.recursive_attributes)?;
    for propagation in &planned.options.propagation {
        let reach = if propagation.recursive { Reach::Recursive } else { Reach::One };
        let attr = MountAttr { propagation: propagation.flag, ..MountAttr::default() };
        set_attributes(mount.as_fd(), reach, &attr).map_err(|errno| planned.os_error("propagation", errno))?;
    }
    let late = is_filled_later(planned) && planned.options.attributes.set & ATTR_READ_ONLY != 0;
    Ok(late.then_some(mount))
}

fn change(planned: &PlannedMount<'_>, mount: BorrowedFd<'_>, reach: Reach, change: AttributeChange) -> Result<()> {
    if change.is_empty() {
        return Ok(());
    }
    let attr = MountAttr { set: change.set, clear: change.clear, ..MountAttr::default() };
    set_attributes(mount, reach, &attr).map_err(|errno| planned.os_error("mount_setattr", errno))
}

/// Makes a mount read-only.
pub(crate) fn make_read_only(mount: BorrowedFd<'_>, reach: Reach) -> linux::Result<()> {
    set_attributes(mount, reach, &MountAttr { set: ATTR_READ_ONLY, ..MountAttr::default() })
}

/// A detached copy of the mount tree at an open place.
pub(crate) fn clone_tree(place: BorrowedFd<'_>, reach: Reach) -> linux::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if reach == Reach::Recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(place, c"", flags)
}

/// Reports the failure to read a mount's place in the words of [`Stage::Mounts`].
pub(crate) fn located(root: Root<'_>, path: &Path) -> Result<Option<OwnedFd>> {
    match root.locate(path) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).context(Stage::Mounts, || format!("cannot open {} of the container", path.display())),
    }
}
