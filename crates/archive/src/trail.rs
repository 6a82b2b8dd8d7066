//! The way down into a tree that is read by directory descriptors: only the lowest directories are held open, because a tree may be deeper
//! than this process may have files.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// So many directories are held open at once.
const OPEN_MAX: usize = 16;

/// The directories from a root down to where a reader is, each with what the reader keeps for it.
#[derive(Debug)]
pub struct Trail<T> {
    levels: Vec<(Directory, T)>,
}

#[derive(Debug)]
enum Directory {
    Open(OwnedFd),
    /// Far above, and closed: its device and inode.
    Closed(u64, u64),
}

impl<T> Trail<T> {
    /// A trail that begins here.
    pub fn new(root: OwnedFd, kept: T) -> Trail<T> {
        Trail { levels: vec![(Directory::Open(root), kept)] }
    }

    /// Where the reader is; nothing once it has left the root.
    pub fn lowest(&mut self) -> Option<(BorrowedFd<'_>, &mut T)> {
        let (directory, kept) = self.levels.last_mut()?;
        match &*directory {
            Directory::Open(directory) => Some((directory.as_fd(), kept)),
            Directory::Closed(..) => None,
        }
    }

    /// How many directories there are from the root to here.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Goes on in a directory below the lowest one.
    pub fn enter(&mut self, directory: OwnedFd, kept: T) -> io::Result<()> {
        self.levels.push((Directory::Open(directory), kept));
        let far = self.levels.len().checked_sub(OPEN_MAX + 1).and_then(|at| self.levels.get_mut(at));
        if let Some((far, _)) = far
            && let Directory::Open(directory) = far
        {
            let (device, inode) = identity(directory.as_fd())?;
            *far = Directory::Closed(device, inode);
        }
        Ok(())
    }

    /// Goes back to the directory above. One that was closed is found again by `..`, and must be the same: somebody may have moved the
    /// lower one meanwhile.
    pub fn leave(&mut self) -> io::Result<()> {
        let left = self.levels.pop();
        if let (Some((Directory::Open(left), _)), Some((above, _))) = (left, self.levels.last_mut())
            && let Directory::Closed(device, inode) = *above
        {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = rustix::fs::openat(&left, "..", flags, Mode::empty())?;
            if identity(found.as_fd())? != (device, inode) {
                return Err(io::Error::other("a directory was moved while it was read"));
            }
            *above = Directory::Open(found);
        }
        Ok(())
    }
}

fn identity(directory: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::open;

    /// A trail to the lowest directory of `a/a/…`.
    fn descend(root: &std::path::Path, levels: usize) -> Trail<usize> {
        let root = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut trail = Trail::new(root, 0);
        for level in 1..=levels {
            let (directory, _) = trail.lowest().unwrap();
            rustix::fs::mkdirat(directory, "a", Mode::from_raw_mode(0o755)).unwrap();
            let below = open(directory, b"a", OFlags::DIRECTORY).unwrap();
            trail.enter(below, level).unwrap();
        }
        trail
    }

    #[test]
    fn few_directories_are_open_and_each_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut trail = descend(folder.path(), 100);
        let open = trail.levels.iter().filter(|(directory, _)| matches!(directory, Directory::Open(_))).count();
        assert_eq!((open, trail.depth()), (OPEN_MAX, 101));
        for level in (0..=100).rev() {
            let (directory, kept) = trail.lowest().unwrap();
            assert_eq!(*kept, level);
            let is_lowest = crate::export::names(directory).unwrap().is_empty();
            assert_eq!(is_lowest, level == 100);
            trail.leave().unwrap();
        }
        assert!(trail.lowest().is_none());
    }

    #[test]
    fn nobody_is_led_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (folder.path().join("root"), folder.path().join("elsewhere"));
        std::fs::create_dir_all(&elsewhere).unwrap();
        std::fs::create_dir(&root).unwrap();
        let mut trail = descend(&root, 2 * OPEN_MAX);
        let moved = root.join(vec!["a"; OPEN_MAX + 1].join("/"));
        std::fs::rename(moved, elsewhere.join("a")).unwrap();
        let left = (0..2 * OPEN_MAX).try_for_each(|_| trail.leave());
        assert!(left.unwrap_err().to_string().contains("moved"));
    }
}
