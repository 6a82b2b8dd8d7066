//! Views of file systems without a container: detached mounts that appear in no mount table.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
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
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    add_layers(&context, layers)?;
    // Kernels before 5.11 or without the option show merged folders all the same.
    let _ = fsconfig_set_flag(context.as_fd(), "ro");
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV,
    )?)
}

/// One option per layer from Linux 6.5 on, which has no limit on the total; one joined text before.
pub(crate) fn add_layers(context: &OwnedFd, layers: &[PathBuf]) -> io::Result<()> {
    for (index, layer) in layers.iter().enumerate() {
        match fsconfig_set_string(context.as_fd(), "lowerdir+", layer.as_path()) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) if index == 0 => return add_joined(context, layers),
            Err(error) => return Err(error.into()),
        }
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
