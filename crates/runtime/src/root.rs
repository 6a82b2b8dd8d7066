//! Opening things inside a container's root: the only way in which this crate resolves a path that the container controls.
//!
//! Every lookup is one `openat2` with `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS` from a descriptor of the root: the kernel
//! keeps symbolic links and `..` inside while it walks, so there is no moment between a check and a use. What is created on the
//! way is created relative to a descriptor of its parent and opened again without following links. Callers get descriptors and
//! work on them; no path string of a container is ever joined to one of the host.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use linux::{Errno, Result};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, mkdirat, openat, openat2};

/// How often a lookup is tried that a rename or mount elsewhere disturbed (`EAGAIN`).
const MAX_LOOKUPS: usize = 256;
/// The most components that a path to be created may have.
const MAX_DEPTH: usize = 512;

/// A container's root directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Root<'a> {
    fd: BorrowedFd<'a>,
}

impl<'a> Root<'a> {
    /// The root that this descriptor is open on.
    pub(crate) fn new(fd: BorrowedFd<'a>) -> Root<'a> {
        Root { fd }
    }

    /// Opens `path`, following links inside the root. `flags` get close-on-exec.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        lookup(self.fd, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens `path` as a place only (`O_PATH`).
    pub(crate) fn locate(&self, path: &Path) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    /// As [`Root::locate`], with `ELOOP` where any component is a symbolic link.
    pub(crate) fn locate_without_links(&self, path: &Path) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        lookup(self.fd, path, OFlags::PATH, resolve)
    }

    /// Opens the directory `path`, making it and its parents where they are missing.
    pub(crate) fn make_directory(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let (mut directory, missing) = self.deepest_existing(path)?;
        for name in missing {
            match mkdirat(&directory, &name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            directory = open_new_directory(directory.as_fd(), &name)?;
        }
        Ok(directory)
    }

    /// As [`Root::make_directory`], with `ELOOP` where any component is a symbolic link.
    pub(crate) fn make_ordinary_directory(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        match self.locate_without_links(path) {
            Err(Errno::NOENT) => {
                drop(self.make_directory(path, mode)?);
                self.locate_without_links(path)
            }
            other => other,
        }
    }

    /// Opens the file `path` as a place; makes an empty regular file, and its parents, where it is missing.
    pub(crate) fn make_file(&self, path: &Path) -> Result<OwnedFd> {
        match self.locate(path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let path = clean(path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::ISDIR) };
        let parent = self.make_directory(parent, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        match openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        // Not through the name again from the root: the place just made, in the directory held.
        openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    /// The deepest directory on the way to `path` that exists, and the names after it.
    fn deepest_existing(&self, path: &Path) -> Result<(OwnedFd, Vec<std::ffi::OsString>)> {
        let path = clean(path);
        let names: Vec<_> = path.iter().skip(1).map(ToOwned::to_owned).collect();
        if names.len() > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        for existing in (0..names.len()).rev() {
            let prefix: PathBuf = std::iter::once("/".into()).chain(names[..existing].iter().cloned()).collect();
            match self.open(&prefix, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(directory) => return Ok((directory, names[existing..].to_vec())),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::NOENT)
    }
}

/// One lookup, tried again while the kernel says that it was disturbed.
fn lookup(directory: BorrowedFd<'_>, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
    let mut error = Errno::AGAIN;
    for _ in 0..MAX_LOOKUPS {
        match openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(again @ (Errno::AGAIN | Errno::INTR)) => error = again,
            other => return other,
        }
    }
    Err(error)
}

/// Opens a directory that was just made, and nothing that took its place as a link.
pub(crate) fn open_new_directory(parent: BorrowedFd<'_>, name: &std::ffi::OsStr) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// The path made absolute and without `.`, `..` and doubled slashes, by its text alone.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

/// What `fd` is open on.
pub(crate) fn file_type(fd: BorrowedFd<'_>) -> Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode))
}

/// Whether this is the character device `major`:`minor`.
pub(crate) fn is_char_device(stat: &Stat, major: u32, minor: u32) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && rustix::fs::major(stat.st_rdev) == major
        && rustix::fs::minor(stat.st_rdev) == minor
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn with_root(test: impl FnOnce(&Path, Root<'_>)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root");
        std::fs::create_dir(&path).unwrap();
        std::fs::create_dir(folder.path().join("outside")).unwrap();
        let fd = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        test(&path, Root::new(fd.as_fd()));
        let outside: Vec<_> = std::fs::read_dir(folder.path().join("outside")).unwrap().collect();
        assert!(outside.is_empty(), "the canary directory is not empty");
    }

    #[test]
    fn paths_are_cleaned_by_their_text() {
        let table = [("", "/"), ("/", "/"), ("a/b", "/a/b"), ("/../../a", "/a"), ("/a/./b//c/../d", "/a/b/d")];
        for (path, expected) in table {
            assert_eq!(clean(Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn absolute_and_climbing_links_stay_inside() {
        with_root(|path, root| {
            symlink("/outside", path.join("absolute")).unwrap();
            symlink("../outside", path.join("climbing")).unwrap();
            for name in ["absolute", "climbing", "/../outside"] {
                assert_eq!(root.locate(Path::new(name)).unwrap_err(), Errno::NOENT, "{name}");
            }
            // A dangling link is not written through.
            assert!(root.make_directory(Path::new("/absolute/made"), Mode::from_raw_mode(0o755)).is_err());
            assert!(root.make_file(Path::new("/climbing/file")).is_err());
        });
    }

    #[test]
    fn links_inside_are_followed() {
        with_root(|path, root| {
            std::fs::create_dir(path.join("run")).unwrap();
            std::fs::create_dir(path.join("var")).unwrap();
            symlink("/run", path.join("var/run")).unwrap();
            root.make_directory(Path::new("/var/run/a/b"), Mode::from_raw_mode(0o755)).unwrap();
            assert!(path.join("run/a/b").is_dir());
            root.make_file(Path::new("/var/run/a/file")).unwrap();
            assert!(path.join("run/a/file").is_file());
            assert_eq!(root.locate_without_links(Path::new("/var/run/a")).unwrap_err(), Errno::LOOP);
        });
    }

    #[test]
    fn magic_links_are_not_followed() {
        let fd = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let root = Root::new(fd.as_fd());
        for path in ["/proc/self/cwd", "/proc/self/root/etc", "/proc/self/exe"] {
            assert_eq!(root.locate(Path::new(path)).unwrap_err(), Errno::LOOP, "{path}");
        }
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        with_root(|path, root| {
            std::fs::write(path.join("file"), "").unwrap();
            assert!(root.make_directory(Path::new("/file"), Mode::from_raw_mode(0o755)).is_err());
            assert!(root.make_directory(Path::new("/file/below"), Mode::from_raw_mode(0o755)).is_err());
        });
    }
}
