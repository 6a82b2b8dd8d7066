//! Opening things inside a container's root: the only way in which this crate resolves a path that the container controls.
//!
//! Every lookup is one `openat2` with `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS` from a descriptor of the root: the kernel
//! keeps symbolic links and `..` inside while it walks, so there is no moment between a check and a use. What is created on the
//! way is created relative to a descriptor of its parent and opened again without following links. Callers get descriptors and
//! work on them; no path string of a container is ever joined to one of the host.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use linux::{Errno, Result};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, mkdirat, openat, openat2, readlinkat};

/// How often a lookup is tried that a rename or mount elsewhere disturbed (`EAGAIN`).
const MAX_LOOKUPS: usize = 256;
/// How many links that lead nowhere yet are followed, as many as the kernel follows.
const MAX_LINKS: usize = 40;
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
    ///
    /// A link that leads nowhere yet gets what it leads to, inside the root, as in `mkdir -p` on a running system.
    pub(crate) fn make_directory(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.open(&path, OFlags::PATH | OFlags::DIRECTORY) {
                Err(Errno::NOENT) => {}
                other => return other,
            }
            match self.missing_part(&path)? {
                Missing::Behind(target) => path = target,
                Missing::Names(mut directory, names) => {
                    for name in names {
                        directory = make_one_directory(directory.as_fd(), &name, mode)?;
                    }
                    return Ok(directory);
                }
            }
        }
        Err(Errno::LOOP)
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
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.locate(&path) {
                Err(Errno::NOENT) => {}
                other => return other,
            }
            match self.missing_part(&path)? {
                Missing::Behind(target) => path = target,
                Missing::Names(mut directory, mut names) => {
                    let Some(file) = names.pop() else { return Err(Errno::ISDIR) };
                    for name in names {
                        directory = make_one_directory(directory.as_fd(), &name, Mode::from_raw_mode(0o755))?;
                    }
                    return make_one_file(directory.as_fd(), &file);
                }
            }
        }
        Err(Errno::LOOP)
    }

    /// What has to be made so that `path` exists.
    fn missing_part(&self, path: &Path) -> Result<Missing> {
        let names: Vec<&OsStr> = path.iter().filter(|name| *name != "/" && *name != ".").collect();
        if names.len() > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        for existing in (0..names.len()).rev() {
            let prefix: PathBuf = std::iter::once(OsStr::new("/")).chain(names[..existing].iter().copied()).collect();
            let directory = match self.open(&prefix, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(directory) => directory,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            let rest = &names[existing..];
            return match readlinkat(&directory, rest[0], Vec::new()) {
                // Joined and not cleaned: what `..` means behind a link only the kernel's own walk knows.
                Ok(target) => {
                    let target = prefix.join(OsStr::from_bytes(target.as_bytes()));
                    Ok(Missing::Behind(target.join(rest[1..].iter().collect::<PathBuf>())))
                }
                // What does not exist has no parent to go back to.
                Err(_) if rest.iter().any(|name| *name == "..") => Err(Errno::NOENT),
                Err(_) => Ok(Missing::Names(directory, rest.iter().map(|name| (*name).to_owned()).collect())),
            };
        }
        Err(Errno::NOENT)
    }
}

/// What a path lacks.
enum Missing {
    /// It leads through a link to this path, which is not there yet.
    Behind(PathBuf),
    /// These names, below the deepest directory that is there.
    Names(OwnedFd, Vec<OsString>),
}

/// Makes a directory and opens it; one that somebody else has just made serves, a link in its place does not.
fn make_one_directory(parent: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> Result<OwnedFd> {
    match mkdirat(parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => open_new_directory(parent, name),
        Err(error) => Err(error),
    }
}

/// Makes an empty file and opens it as a place, in the directory held and not through its name from the root.
fn make_one_file(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match openat(parent, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
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
pub(crate) fn open_new_directory(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
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
            // What they lead to is made inside.
            root.make_directory(Path::new("/absolute/made"), Mode::from_raw_mode(0o755)).unwrap();
            assert!(path.join("outside/made").is_dir());
            root.make_file(Path::new("/climbing/file")).unwrap();
            assert!(path.join("outside/file").is_file());
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
    fn a_link_that_leads_nowhere_gets_its_target_inside() {
        with_root(|path, root| {
            std::fs::create_dir(path.join("etc")).unwrap();
            symlink("../run/resolve/stub.conf", path.join("etc/resolv.conf")).unwrap();
            root.make_file(Path::new("/etc/resolv.conf")).unwrap();
            assert!(path.join("run/resolve/stub.conf").is_file());
            symlink("endless", path.join("endless")).unwrap();
            assert_eq!(root.make_file(Path::new("/endless")).unwrap_err(), Errno::LOOP);
            symlink("two", path.join("one")).unwrap();
            symlink("missing/../../outside/x", path.join("two")).unwrap();
            assert!(root.make_file(Path::new("/one")).is_err(), "what does not exist has no parent");
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
