//! A container's root with everything that is mounted in it, for `cp`.
//!
//! While a container runs this is the root of its own mount namespace. Otherwise its file system is put together again in a mount
//! namespace that only one thread is in: overlay, volumes and binds, as a start would do it, nothing of it visible to anybody else, and
//! gone with the thread. Places to mount on are resolved by the kernel inside the container's root and mounted on by descriptor: a
//! volume whose files another container changes meanwhile cannot lead a mount elsewhere (CVE-2026-41568, CVE-2026-42306).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::ids::Ids;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, fsconfig_set_flag,
    fsconfig_set_string, fsmount, mount_change, move_mount, unmount,
};

use super::plan::PlannedSource;
use super::record::ContainerRecord;
use super::{start, trees};
use crate::engine::Inner;
use crate::model::{Access, EngineError};
use crate::rootfs::overlay_of;
use crate::userns::IdMappings;
use crate::volumes::HeldVolumes;

/// What a thread of its own does with a container's root, whose files have owners of these.
pub(super) type Work<T> = Box<dyn FnOnce(BorrowedFd<'_>, &Ids) -> T + Send>;

/// Whether a stopped container's own files may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootAccess {
    ReadOnly,
    ReadWrite,
}

/// The root of the mount namespace of a running container's first process. `own` is the root of its own file system, which tells it
/// from that of another process that has got the pid meanwhile.
pub(super) fn of_running(pid: i32, own: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let namespace = match File::open(format!("/proc/{pid}/ns/mnt")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    let root = on_a_thread(move || {
        // A thread that shares its root and working directory with others cannot change its mount namespace.
        linux::namespace::unshare(linux::namespace::FILE_SYSTEM)?;
        linux::namespace::join(namespace.as_fd(), linux::namespace::MOUNT)?;
        Ok::<_, io::Error>(rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    })??;
    let (found, expected) = (rustix::fs::fstat(&root)?, rustix::fs::fstat(own)?);
    Ok(((found.st_dev, found.st_ino) == (expected.st_dev, expected.st_ino)).then_some(root))
}

/// Lets `work` look at a running container's root. Mounts with mapped ids take files of the namespace's users only, and so files are
/// made in the name of its root.
pub(super) fn with_running<T: Send + 'static>(
    root: OwnedFd,
    mappings: Option<&IdMappings>,
    work: Work<T>,
) -> io::Result<T> {
    let Some(mappings) = mappings else { return Ok(work(root.as_fd(), &Ids::default())) };
    let ((uid, gid), ids) = (mappings.root(), mappings.ids());
    on_a_thread(move || {
        linux::credentials::set_file_system_ids(uid, gid)?;
        // That took the rights over others' files, which are still permitted.
        let own = linux::credentials::capabilities()?;
        linux::credentials::set_capabilities(&linux::credentials::Capabilities { effective: own.permitted, ..own })?;
        Ok::<_, io::Error>(work(root.as_fd(), &ids))
    })?
}

/// A stopped container's file system in parts, ready to be put together.
#[derive(Debug)]
pub(super) struct StoppedRoot {
    upper: PathBuf,
    work: PathBuf,
    lower: Vec<PathBuf>,
    overlay_xattrs: snapshots::OverlayXattrs,
    access: RootAccess,
    mounts: Vec<Part>,
    /// What volumes with options hold is mounted meanwhile.
    _volumes: HeldVolumes,
}

/// Where the files of a mount are.
#[derive(Debug)]
enum Source {
    Host(PathBuf),
    Below(PathBuf, String),
    Image(Vec<PathBuf>, Option<String>),
}

/// One mount in it.
#[derive(Debug)]
struct Part {
    source: Source,
    target: String,
    access: Access,
}

impl StoppedRoot {
    /// What `record` says is to be mounted; memory that is mounted anew at every start has nothing to show.
    pub(super) fn plan(inner: &Arc<Inner>, record: &ContainerRecord, access: RootAccess) -> Result<Self, EngineError> {
        let lower = start::lower_dirs(inner, &record.layers)?;
        let folder = inner.container_dir(&record.id);
        let volumes = record.mounts.iter().filter_map(|mount| mount.volume());
        let held = HeldVolumes::hold(inner, format!("files of {}", record.id), volumes)?;
        let mut mounts = Vec::new();
        for (source, target) in start::container_files(record, &folder) {
            // They are there once it has been started.
            if Path::new(&source).exists() {
                mounts.push(Part {
                    source: Source::Host(source.into()),
                    target: target.to_owned(),
                    access: Access::ReadWrite,
                });
            }
        }
        for mount in &record.mounts {
            let source = match &mount.source {
                PlannedSource::Host { path, create, .. } => {
                    start::require_source(path, *create)?;
                    Source::Host(PathBuf::from(path))
                }
                PlannedSource::Volume { name, subpath, .. } => {
                    let folder = inner.volumes.mountpoint(name.as_deref().unwrap_or_default());
                    match subpath {
                        Some(subpath) => Source::Below(folder, subpath.clone()),
                        None => Source::Host(folder),
                    }
                }
                PlannedSource::Tmpfs { .. } => continue,
                PlannedSource::Image { layers, subpath, .. } => {
                    Source::Image(start::lower_dirs(inner, layers)?, subpath.clone())
                }
            };
            mounts.push(Part { source, target: mount.target.clone(), access: mount.access });
        }
        mounts.sort_by_key(|part| part.target.matches('/').count());
        Ok(Self {
            upper: folder.join("upper"),
            work: folder.join("work"),
            lower,
            overlay_xattrs: inner.snapshotter.overlay_xattrs(),
            access,
            mounts,
            _volumes: held,
        })
    }

    /// Puts it together, lets `work` look at it, and takes it apart again.
    pub(super) fn with<T: Send + 'static>(self, work: Work<T>) -> io::Result<T> {
        on_a_thread(move || {
            linux::namespace::unshare(linux::namespace::MOUNT)?;
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
            let root = self.overlay()?;
            // On a folder that nobody looks into by its path, now that overlayfs has it.
            move_mount(root.as_fd(), "", CWD, &self.work, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            let done = self.mounts.iter().try_for_each(|part| part.mount(root.as_fd())).and_then(|()| self.seal(&root));
            // Put together here, the layers are not mapped.
            let done = done.map(|()| work(root.as_fd(), &Ids::default()));
            drop(root);
            // Here and not with the end of the thread, which the kernel cleans up behind its back.
            unmount(&self.work, UnmountFlags::DETACH)?;
            done
        })?
    }

    fn overlay(&self) -> io::Result<OwnedFd> {
        let writable = |context: &OwnedFd| {
            fsconfig_set_string(context.as_fd(), "upperdir", self.upper.as_path())?;
            fsconfig_set_string(context.as_fd(), "workdir", self.work.as_path())?;
            if self.overlay_xattrs == snapshots::OverlayXattrs::User {
                fsconfig_set_flag(context.as_fd(), "userxattr")?;
            }
            Ok(())
        };
        let context = overlay_of(&self.lower, &writable)?;
        Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?)
    }

    /// Read-only only now: places to mount on had to be made.
    fn seal(&self, root: &OwnedFd) -> io::Result<()> {
        if self.access == RootAccess::ReadWrite {
            return Ok(());
        }
        trees::set_read_only(root.as_fd(), linux::mount_attr::Reach::One)
    }
}

impl Part {
    fn mount(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        let tree = match &self.source {
            Source::Host(path) => trees::host(path)?,
            Source::Below(folder, subpath) => trees::below(folder, subpath)?,
            Source::Image(lower, subpath) => trees::image(lower, subpath.as_deref())?,
        };
        if self.access == Access::ReadOnly {
            trees::set_read_only(tree.as_fd(), linux::mount_attr::Reach::Recursive)?;
        }
        let target = match FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode) {
            FileType::Directory => archive::place::make_directory(root, self.target.as_bytes())?,
            _ => archive::place::make_file(root, self.target.as_bytes())?,
        };
        let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(tree.as_fd(), "", target.as_fd(), "", by_descriptor)?)
    }
}

/// Runs `work` on a thread that ends with it, because what it does to itself cannot be undone.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let thread = std::thread::Builder::new().name("container-files".to_owned()).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("the thread that had the container's files ended early"))
}
