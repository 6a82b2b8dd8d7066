//! Devices of a container: `/dev` as the specification has it, and what the configuration adds.
//!
//! Everything is made relative to a descriptor of the directory it goes into. The usual `/dev` is a tmpfs that the runtime itself
//! mounted a moment ago, so nothing of an image is on the way.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::Errno;
use oci::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::fs::{chmodat, chownat, makedev, mknodat, openat, statat, symlinkat, unlinkat};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Context, Error, Result, Stage};
use crate::mounts::attach_at;
use crate::root::{Root, clean, is_char_device};

/// The devices that every container has: name, major, minor.
const DEFAULTS: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// A device to make.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Device {
    path: PathBuf,
    kind: FileType,
    number: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// All devices of a container.
#[derive(Debug)]
pub(crate) struct DevicePlan {
    devices: Vec<Device>,
}

impl DevicePlan {
    /// The defaults and the configuration's own, which win where both name a path.
    pub(crate) fn plan(configured: &[LinuxDevice]) -> Result<DevicePlan> {
        let configured = configured.iter().map(Device::plan).collect::<Result<Vec<_>>>()?;
        let defaults = DEFAULTS.iter().map(|(name, major, minor)| Device {
            path: Path::new("/dev").join(name),
            kind: FileType::CharacterDevice,
            number: makedev(*major, *minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
        });
        let mut devices: Vec<Device> =
            defaults.filter(|default| configured.iter().all(|device| device.path != default.path)).collect();
        devices.extend(configured);
        Ok(DevicePlan { devices })
    }

    /// Where the devices go.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.devices.iter().map(|device| device.path.as_path())
    }

    /// Fills `/dev`, which `dev` is open on.
    pub(crate) fn fill_dev(&self, root: Root<'_>, dev: BorrowedFd<'_>) -> Result<()> {
        for device in self.devices.iter().filter(|device| device.path.starts_with("/dev")) {
            match device.path.parent() {
                Some(parent) if parent == Path::new("/dev") => device.make(dev)?,
                _ => device.make_below(root)?,
            }
        }
        for (name, target) in LINKS {
            make_link(dev, name, target)?;
        }
        if Path::new("/proc/kcore").exists() {
            make_link(dev, "core", "/proc/kcore")?;
        }
        Ok(())
    }

    /// Makes the devices that go elsewhere than to `/dev`.
    pub(crate) fn make_others(&self, root: Root<'_>) -> Result<()> {
        self.devices
            .iter()
            .filter(|device| !device.path.starts_with("/dev"))
            .try_for_each(|device| device.make_below(root))
    }
}

impl Device {
    fn plan(device: &LinuxDevice) -> Result<Device> {
        let path = clean(Path::new(&device.path));
        let wrong = |what: &str| Error::new(Stage::Devices, format!("device {:?}: {what}", device.path));
        if path.file_name().is_none() {
            return Err(wrong("the path is the root"));
        }
        let kind = match device.kind {
            LinuxDeviceType::Character => FileType::CharacterDevice,
            LinuxDeviceType::Block => FileType::BlockDevice,
            LinuxDeviceType::Fifo => FileType::Fifo,
        };
        let number = match (u32::try_from(device.major), u32::try_from(device.minor)) {
            _ if kind == FileType::Fifo => 0,
            (Ok(major), Ok(minor)) => makedev(major, minor),
            _ => return Err(wrong("major and minor must not be negative")),
        };
        let mode = device.file_mode.unwrap_or(0o666) & 0o7777;
        Ok(Device { path, kind, number, mode, uid: device.uid.unwrap_or(0), gid: device.gid.unwrap_or(0) })
    }

    fn make_below(&self, root: Root<'_>) -> Result<()> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let parent = root.make_directory(parent, Mode::from_raw_mode(0o755));
        self.make(
            parent.context(Stage::Devices, || format!("cannot make the directory of {}", self.path.display()))?.as_fd(),
        )
    }

    fn make(&self, parent: BorrowedFd<'_>) -> Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        let failed = |what: &'static str| move || format!("{what} {}", self.path.display());
        match mknodat(parent, name, self.kind, Mode::from_raw_mode(self.mode), self.number) {
            Ok(()) => {}
            Err(Errno::EXIST) => return self.check_existing(parent, name),
            Err(Errno::PERM) => return self.bind_from_host(parent, name),
            Err(errno) => return Err(errno).context(Stage::Devices, failed("cannot make device")),
        }
        if self.uid != 0 || self.gid != 0 {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .context(Stage::Devices, failed("cannot change the owner of device"))?;
            if self.mode & 0o6000 != 0 {
                chmodat(parent, name, Mode::from_raw_mode(self.mode), AtFlags::empty())
                    .context(Stage::Devices, failed("cannot change the mode of device"))?;
            }
        }
        Ok(())
    }

    /// What is there already serves if it is the same device, and nothing else does.
    fn check_existing(&self, parent: BorrowedFd<'_>, name: &std::ffi::OsStr) -> Result<()> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .context(Stage::Devices, || format!("cannot look at {}", self.path.display()))?;
        if FileType::from_raw_mode(stat.st_mode) == self.kind
            && (self.kind == FileType::Fifo || stat.st_rdev == self.number)
        {
            return Ok(());
        }
        Err(Error::new(Stage::Devices, format!("{} exists and is not that device", self.path.display())))
    }

    /// Where nodes cannot be made (a user namespace), the host's own is bound.
    fn bind_from_host(&self, parent: BorrowedFd<'_>, name: &std::ffi::OsStr) -> Result<()> {
        let failed = || format!("cannot bind device {} from the host", self.path.display());
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, &self.path, flags).context(Stage::Devices, failed)?;
        let stat = rustix::fs::fstat(&tree).context(Stage::Devices, failed)?;
        if FileType::from_raw_mode(stat.st_mode) != self.kind || stat.st_rdev != self.number {
            return Err(Error::new(Stage::Devices, format!("the host's {} is another device", self.path.display())));
        }
        let place = new_file(parent, name).context(Stage::Devices, failed)?;
        attach_at(tree.as_fd(), place.as_fd()).context(Stage::Devices, failed)
    }
}

/// Opens the file `name` as a place, making it where it is missing.
fn new_file(parent: BorrowedFd<'_>, name: &std::ffi::OsStr) -> linux::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Makes a link in `/dev`. One that is there already stays; only `ptmx` must be the container's own and is replaced.
fn make_link(dev: BorrowedFd<'_>, name: &str, target: &str) -> Result<()> {
    let failed = || format!("cannot make link /dev/{name}");
    match symlinkat(target, dev, name) {
        Err(Errno::EXIST) => {}
        other => return other.context(Stage::Devices, failed),
    }
    if name == "ptmx" {
        unlinkat(dev, name, AtFlags::empty()).context(Stage::Devices, failed)?;
        return symlinkat(target, dev, name).context(Stage::Devices, failed);
    }
    // Where an image fills /dev itself, it keeps its own.
    Ok(())
}

/// Opens the container's `/dev` without following a link, making it where it is missing.
pub(crate) fn open_dev(root: Root<'_>) -> Result<OwnedFd> {
    let failed = || "cannot open /dev of the container: it must be an ordinary directory";
    root.make_ordinary_directory(Path::new("/dev"), Mode::from_raw_mode(0o755)).context(Stage::Devices, failed)
}

/// Binds the terminal over `/dev/console`, from its descriptor.
pub(crate) fn bind_console(dev: BorrowedFd<'_>, terminal: BorrowedFd<'_>) -> Result<()> {
    let failed = || "cannot bind the terminal to /dev/console";
    let place = new_file(dev, "console".as_ref()).context(Stage::Console, failed)?;
    let tree = crate::mounts::clone_tree(terminal, linux::mount_attr::Reach::One).context(Stage::Console, failed)?;
    attach_at(tree.as_fd(), place.as_fd()).context(Stage::Console, failed)
}

/// Opens the container's `/dev/null` and makes sure that it is that device.
pub(crate) fn open_null(root: Root<'_>) -> Result<OwnedFd> {
    let failed = || "cannot open /dev/null of the container";
    let null = root.locate_without_links(Path::new("/dev/null")).context(Stage::Devices, failed)?;
    let stat = rustix::fs::fstat(&null).context(Stage::Devices, failed)?;
    if !is_char_device(&stat, 1, 3) {
        return Err(Error::new(Stage::Devices, "/dev/null of the container is not the null device"));
    }
    Ok(null)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(path: &str, kind: LinuxDeviceType, major: i64) -> LinuxDevice {
        LinuxDevice { path: path.to_owned(), kind, major, minor: 3, file_mode: Some(0o600), uid: None, gid: None }
    }

    #[test]
    fn the_configuration_wins_over_the_defaults() {
        let plan = DevicePlan::plan(&[device("/dev/./null", LinuxDeviceType::Character, 1)]).unwrap();
        let nulls: Vec<_> = plan.devices.iter().filter(|device| device.path == Path::new("/dev/null")).collect();
        assert_eq!((nulls.len(), nulls[0].mode), (1, 0o600));
        assert_eq!(plan.devices.len(), DEFAULTS.len());
    }

    #[test]
    fn senseless_devices_are_refused() {
        assert!(DevicePlan::plan(&[device("/", LinuxDeviceType::Block, 8)]).is_err());
        assert!(DevicePlan::plan(&[device("/dev/x", LinuxDeviceType::Block, -1)]).is_err());
    }
}
