//! Mounting a layer: its index and its tar, as files or through loop devices.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::Backend;

/// How often another process may take a free loop device from under our nose.
const LOOP_ATTEMPTS: usize = 64;
/// What `fsconfig` takes at most.
const OPTION_BYTES_MAX: usize = 255;
const BLOCK_BYTES: u32 = erofs::BLOCK_BYTES as u32;

/// Mounts an index with its tar, read-only, at no place yet.
pub(crate) fn mount_detached(backend: Backend, index: &File, tar: &File) -> io::Result<OwnedFd> {
    if backend == Backend::ErofsLoop {
        // Both must stay open until the mount holds them: they are free again as soon as nobody does.
        let (index, tar) = (attach_loop(index)?, attach_loop(tar)?);
        return mount_erofs(&index.path, &tar.path);
    }
    mount_erofs(&name_of(index), &name_of(tar))
}

/// Moves a detached mount to its place.
pub(crate) fn attach(mount: &OwnedFd, place: &Path) -> io::Result<()> {
    move_mount(mount.as_fd(), c"", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(io::Error::from)
}

/// Takes a mount away from its place; who uses it keeps it.
pub(crate) fn detach(place: &Path) -> io::Result<()> {
    match unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether something is mounted exactly here. Costs a microsecond: the kernel's own table is the only record that cannot be wrong.
pub(crate) fn is_mounted(place: &Path) -> bool {
    let found = rustix::fs::statx(CWD, place, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::TYPE);
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn mount_erofs(source: &str, device: &str) -> io::Result<OwnedFd> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", source)?;
    fsconfig_set_string(context.as_fd(), "device", device)?;
    fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_create(context.as_fd())?;
    // Set-user-ID bits and devices are the container's affair: they work in the overlay above, and nowhere else.
    let attributes =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A name for an open file, as the mount table will show it: its path, or, where that is too long for a mount option, its descriptor.
fn name_of(file: &File) -> String {
    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    let path = std::fs::read_link(&descriptor).ok().and_then(|path| path.into_os_string().into_string().ok());
    path.filter(|path| path.len() <= OPTION_BYTES_MAX && path.starts_with('/')).unwrap_or(descriptor)
}

#[derive(Debug)]
struct LoopDevice {
    path: String,
    _file: File,
}

fn attach_loop(file: &File) -> io::Result<LoopDevice> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..LOOP_ATTEMPTS {
        let number = linux::loop_device::free_number(control.as_fd())?;
        let path = format!("/dev/loop{number}");
        let device = File::open(&path)?;
        match linux::loop_device::configure_read_only(&device, file.as_fd(), BLOCK_BYTES) {
            Ok(()) => return Ok(LoopDevice { path, _file: device }),
            Err(Errno::BUSY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::BUSY.into())
}
