//! Places inside a root that somebody else may be changing at the same time.
//!
//! Every lookup is one `openat2` with `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS`: the kernel keeps symbolic links and `..` inside
//! while it walks, so there is no moment between a check and a use. What is made is made in a directory that is held open.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::export::{mtime, open_path, stat};
use crate::tar::Timestamp;

/// How often the kernel may ask to try again because somebody renames things on the way.
const RESOLVE_ATTEMPTS: usize = 100;
/// How many symbolic links are followed to say where one leads; Docker's own limit.
const LINKS_MAX: usize = 255;

/// What is found under a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// The path's last component, as Go's `filepath.Base` gives it: `/` for the root, `.` behind `/.`.
    pub name: Vec<u8>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Kind and permissions, as `stat` has them.
    pub mode: u32,
    /// Last change of its contents.
    pub mtime: Timestamp,
    /// For a symbolic link: the absolute path inside the root that it leads to at last.
    pub link_target: Option<Vec<u8>>,
}

impl PathStat {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }
}

/// Looks at a path inside the root. A symbolic link at its end is looked at itself, unless a slash follows it.
pub fn path_stat(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<PathStat> {
    let (parent, last) = split(path);
    let found = if follows_last(path) {
        rustix::fs::fstat(locate(root, path, OFlags::PATH)?)?
    } else {
        let parent = directory(root, parent)?;
        stat(parent.as_fd(), last)?.ok_or(io::ErrorKind::NotFound)?
    };
    let is_link = FileType::from_raw_mode(found.st_mode) == FileType::Symlink;
    Ok(PathStat {
        name: base_name(path).to_vec(),
        size_bytes: size(&found),
        mode: found.st_mode,
        mtime: mtime(&found),
        link_target: if is_link { Some(follow(root, path)?) } else { None },
    })
}

/// Go's `filepath.Base`.
pub fn base_name(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    match (path.is_empty(), &path[..end]) {
        (true, _) => b".",
        (false, b"") => b"/",
        (false, trimmed) => trimmed.rsplit(|byte| *byte == b'/').next().unwrap_or(trimmed),
    }
}

/// Opens a directory by its path inside the root.
pub fn directory(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    locate(root, path, OFlags::PATH | OFlags::DIRECTORY)
}

/// Opens a path inside the root, following links; `flags` get close-on-exec.
pub fn locate(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { b"." } else { path };
    for _ in 0..RESOLVE_ATTEMPTS {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            result => return result.map_err(io::Error::from),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Opens a directory by its path inside the root, making what is missing. Nothing is made through a link that leads nowhere.
pub fn make_directory(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    match directory(root, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let (parent, name) = split(path);
    let parent = if parent.is_empty() { directory(root, b".")? } else { make_directory(root, parent)? };
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&parent, name, flags, Mode::empty())?)
}

/// Opens a file by its path inside the root as a place only; makes an empty one, and its directories, where it is missing.
pub fn make_file(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    match locate(root, path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let (parent, name) = split(path);
    let parent = make_directory(root, parent)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let file = open_path(parent.as_fd(), name)?.ok_or(io::ErrorKind::NotFound)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::Symlink => Err(Errno::LOOP.into()),
        _ => Ok(file),
    }
}

/// The directory part of a path and its last component; slashes at the end are not counted.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let path = &path[..end];
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Whether a path says nothing of its last component but where it leads: it ends with a slash, `.` or `..`, or is the root.
pub(crate) fn follows_last(path: &[u8]) -> bool {
    path.ends_with(b"/") || matches!(split(path).1, b"" | b"." | b"..")
}

/// Where a path leads when all its links are followed, as far as it exists; an absolute path inside the root. For people: what it
/// names may have changed by the time that it is used, and whoever uses it resolves it again.
fn follow(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Vec<u8>> {
    let names = |path: &[u8]| path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut ahead: VecDeque<Vec<u8>> = names(path).into();
    let mut behind: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                behind.pop();
                continue;
            }
            _ => {}
        }
        let target = directory(root, &behind.join(&b'/'))
            .and_then(|parent| rustix::fs::readlinkat(&parent, name.as_slice(), Vec::new()).map_err(io::Error::from));
        let Ok(target) = target else {
            // No link, or nothing at all.
            behind.push(name);
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        if target.as_bytes().starts_with(b"/") {
            behind.clear();
        }
        for name in names(target.as_bytes()).into_iter().rev() {
            ahead.push_front(name);
        }
    }
    Ok([&b"/"[..], &behind.join(&b'/')].concat())
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn with_root(test: impl FnOnce(&Path, BorrowedFd<'_>)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root");
        std::fs::create_dir_all(path.join("etc/dir")).unwrap();
        std::fs::write(path.join("etc/file"), "12345").unwrap();
        std::fs::write(folder.path().join("outside"), "canary").unwrap();
        let root = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        test(&path, root.as_fd());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "something was made outside");
    }

    #[test]
    fn names_are_gos() {
        let table = [("", "."), ("/", "/"), ("//", "/"), ("/a", "a"), ("/a/b/", "b"), ("/a/.", "."), ("a", "a")];
        for (path, expected) in table {
            assert_eq!(base_name(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }

    #[test]
    fn links_are_looked_at_unless_a_slash_follows() {
        with_root(|path, root| {
            symlink("/etc/dir", path.join("to-dir")).unwrap();
            symlink("to-dir", path.join("to-link")).unwrap();
            symlink("../../outside", path.join("climbing")).unwrap();
            symlink("loop", path.join("loop")).unwrap();
            let target = |name: &str| {
                let found = path_stat(root, name.as_bytes()).unwrap().link_target;
                found.map(|target| String::from_utf8(target).unwrap())
            };
            assert_eq!(target("/to-link").as_deref(), Some("/etc/dir"));
            assert_eq!(target("/climbing").as_deref(), Some("/outside"));
            assert_eq!(target("/to-link/"), None);
            assert!(path_stat(root, b"/to-link/").unwrap().is_directory());
            assert!(path_stat(root, b"/to-link/.").unwrap().is_directory());
            assert!(path_stat(root, b"/loop").is_err());
            let file = path_stat(root, b"/etc/../etc/file").unwrap();
            assert_eq!((file.name.as_slice(), file.size_bytes, file.is_directory()), (&b"file"[..], 5, false));
            for missing in ["/etc/none", "/climbing/", "/none/x"] {
                assert_eq!(
                    path_stat(root, missing.as_bytes()).unwrap_err().kind(),
                    io::ErrorKind::NotFound,
                    "{missing}"
                );
            }
        });
    }

    #[test]
    fn what_is_made_is_made_inside() {
        with_root(|path, root| {
            symlink("../../made", path.join("dangling")).unwrap();
            symlink("/etc", path.join("absolute")).unwrap();
            make_directory(root, b"/absolute/new/deep/").unwrap();
            assert!(path.join("etc/new/deep").is_dir());
            make_file(root, b"/absolute/new/file").unwrap();
            assert!(path.join("etc/new/file").is_file());
            assert!(make_directory(root, b"/dangling/x").is_err());
            assert!(make_file(root, b"/dangling").is_err());
            assert!(!path.join("made").exists());
        });
    }
}
