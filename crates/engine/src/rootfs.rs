//! Views of file systems without a container: detached mounts that appear in no mount table.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

/// Longest value of one fsconfig(2) string.
const MAX_VALUE: usize = 255;

/// The layers merged, read-only. `lower` is topmost first, as the snapshotter gives it.
pub(crate) fn view(lower: &[PathBuf]) -> io::Result<OwnedFd> {
    match lower {
        [single] => open_folder(single),
        _ => overlay(lower),
    }
}

/// A container's own layer over the others, read-only: what a stopped container's file system looks like. The upper is mounted as
/// one more lower layer, so that nothing is written and a container that starts meanwhile is not disturbed.
pub(crate) fn container_view(upper: &Path, lower: &[PathBuf]) -> io::Result<OwnedFd> {
    let mut layers = vec![upper.to_owned()];
    layers.extend_from_slice(lower);
    overlay(&layers)
}

fn overlay(layers: &[PathBuf]) -> io::Result<OwnedFd> {
    let read_only = |context: &OwnedFd| {
        // Kernels before 5.11 or without the option show merged folders all the same.
        let _ = fsconfig_set_flag(context.as_fd(), "ro");
        Ok(())
    };
    let context = overlay_of(layers, &read_only)?;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV,
    )?)
}

/// An overlay of these layers, topmost first, ready to be mounted; `more` sets what else it has. One option per layer from Linux 6.5 on,
/// which has no limit on the total; one joined text before. Those kernels take every option, and refuse them all only at the end.
pub(crate) fn overlay_of(layers: &[PathBuf], more: &dyn Fn(&OwnedFd) -> io::Result<()>) -> io::Result<OwnedFd> {
    let made = |add: fn(&OwnedFd, &[PathBuf]) -> io::Result<()>| -> io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        add(&context, layers)?;
        more(&context)?;
        fsconfig_create(context.as_fd())?;
        Ok(context)
    };
    match made(add_each) {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => made(add_joined),
        result => result,
    }
}

fn add_each(context: &OwnedFd, layers: &[PathBuf]) -> io::Result<()> {
    for layer in layers {
        fsconfig_set_string(context.as_fd(), "lowerdir+", layer.as_path())?;
    }
    Ok(())
}

fn add_joined(context: &OwnedFd, layers: &[PathBuf]) -> io::Result<()> {
    let escaped = |path: &PathBuf| path.display().to_string().replace('\\', "\\\\").replace(':', "\\:");
    let joined = layers.iter().map(escaped).collect::<Vec<_>>().join(":");
    if joined.len() > MAX_VALUE {
        return Err(io::Error::other("this kernel cannot mount so many layers at once (Linux 6.5 can)"));
    }
    Ok(fsconfig_set_string(context.as_fd(), "lowerdir", joined)?)
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
