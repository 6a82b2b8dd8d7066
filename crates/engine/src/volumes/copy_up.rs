//! Copies an image's files at a mount target into an empty volume, as Docker does.
//!
//! Both sides are walked by descriptors and nothing is followed: the image is a stranger's, and so may the volume's content be.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

/// Deeper trees are no image's, and each level costs two descriptors and some stack.
const MAX_DEPTH: usize = 256;

/// Copies what is at `target` below `root` into `volume`, if that is a folder and `volume` is empty. The volume's own folder takes
/// over mode and owner.
pub(crate) fn copy_up(root: BorrowedFd<'_>, target: &str, volume: &std::path::Path) -> io::Result<()> {
    let Some(source) = open_target(root, target)? else { return Ok(()) };
    let into =
        fs::open(volume, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if !is_empty(&into)? {
        return Ok(());
    }
    copy_tree(source.as_fd(), into.as_fd(), Contents::Copied)
}

/// How the contents of files arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// Byte by byte.
    Copied,
    /// By the same blocks on the disk, until one side is written to. Fails where the file system has no such thing.
    Shared,
}

/// Copies all that is in the folder `from` into `to`, which is empty and gets its owner, mode and times.
pub(super) fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>, contents: Contents) -> io::Result<()> {
    let mut copy = Copy { volume: to, links: HashMap::new(), at: PathBuf::new(), contents };
    copy.folder(from, to, 0)?;
    copy.metadata(&fs::fstat(from)?, from, to)
}

/// The folder at `target`, resolved inside `root`; none when there is none.
fn open_target(root: BorrowedFd<'_>, target: &str) -> io::Result<Option<OwnedFd>> {
    let inside = target.trim_start_matches('/');
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match fs::openat2(root, inside, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_empty(folder: &OwnedFd) -> io::Result<bool> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A copy that is going on: which inodes with several names have been copied, and where.
#[derive(Debug)]
struct Copy<'volume> {
    volume: BorrowedFd<'volume>,
    /// Device and inode to a path below the volume.
    links: HashMap<(u64, u64), PathBuf>,
    /// The path below the volume of the folder that is being copied.
    at: PathBuf,
    contents: Contents,
}

impl Copy<'_> {
    fn folder(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("folders are nested too deeply"));
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.entry(from, to, name, depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.subfolder(from, to, name, &stat, depth),
            FileType::RegularFile => self.file(from, to, name, &stat),
            FileType::Symlink => {
                let target = fs::readlinkat(from, name, Vec::new())?;
                fs::symlinkat(&target, to, name)?;
                set_owner_and_times(to, name, &stat)
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                let (kind, mode) = (FileType::from_raw_mode(stat.st_mode), Mode::from_raw_mode(stat.st_mode));
                fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
                set_owner_and_times(to, name, &stat)
            }
            // Sockets are of no use without their process; Docker leaves them out, too.
            _ => Ok(()),
        }
    }

    fn subfolder(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        depth: usize,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::mkdirat(to, name, Mode::RWXU)?;
        let source = fs::openat(from, name, flags, Mode::empty())?;
        let target = fs::openat(to, name, flags, Mode::empty())?;
        self.at.push(as_path(name));
        self.folder(source.as_fd(), target.as_fd(), depth + 1)?;
        self.at.pop();
        self.metadata(stat, source.as_fd(), target.as_fd())
    }

    fn file(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
        let several = stat.st_nlink > 1;
        if several && let Some(known) = self.links.get(&(stat.st_dev, stat.st_ino)) {
            return Ok(fs::linkat(self.volume, known, to, name, AtFlags::empty())?);
        }
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = fs::openat(from, name, OFlags::RDONLY | flags, Mode::empty())?;
        let target =
            fs::openat(to, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags, Mode::RUSR | Mode::WUSR)?;
        match self.contents {
            Contents::Shared => fs::ioctl_ficlone(&target, &source)?,
            Contents::Copied => {
                let (mut source, mut target) = (source.try_clone()?.into(), target.try_clone()?.into());
                io::copy::<std::fs::File, std::fs::File>(&mut source, &mut target)?;
            }
        }
        if several {
            self.links.insert((stat.st_dev, stat.st_ino), self.at.join(as_path(name)));
        }
        self.metadata(stat, source.as_fd(), target.as_fd())
    }

    /// Owner before mode, because changing the owner clears setuid; times last.
    fn metadata(&self, stat: &Stat, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
        fs::fchown(to, Some(fs::Uid::from_raw(stat.st_uid)), Some(fs::Gid::from_raw(stat.st_gid)))?;
        copy_attributes(from, to)?;
        fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
        fs::futimens(to, &times(stat))?;
        Ok(())
    }
}

fn as_path(name: &CStr) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(name.to_bytes()).into()
}

fn times(stat: &Stat) -> Timestamps {
    let time =
        |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn set_owner_and_times(folder: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid));
    fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    fs::utimensat(folder, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Extended attributes but overlayfs's own, which mean nothing outside an overlay.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut names = vec![0; 64 << 10];
    let length = match fs::flistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut value = vec![0; 64 << 10];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = CString::new(name).map_err(io::Error::other)?;
        if name.as_bytes().starts_with(b"trusted.overlay.") || name.as_bytes().starts_with(b"user.overlay.") {
            continue;
        }
        let size = fs::fgetxattr(from, &name, &mut value[..])?;
        fs::fsetxattr(to, &name, &value[..size], fs::XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::copy_up;

    #[test]
    fn a_tree_is_copied_with_its_metadata() {
        let folder = tempfile::tempdir().unwrap();
        let (image, volume) = (folder.path().join("image"), folder.path().join("volume"));
        std::fs::create_dir_all(image.join("data/sub")).unwrap();
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(image.join("data/sub/file"), "text").unwrap();
        std::fs::set_permissions(image.join("data/sub/file"), std::fs::Permissions::from_mode(0o4750)).unwrap();
        std::fs::set_permissions(image.join("data"), std::fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/etc/passwd", image.join("data/link")).unwrap();
        let root = std::fs::File::open(&image).unwrap();
        copy_up(root.as_fd(), "/data", &volume).unwrap();
        assert_eq!(std::fs::read_to_string(volume.join("sub/file")).unwrap(), "text");
        assert_eq!(std::fs::metadata(volume.join("sub/file")).unwrap().mode() & 0o7777, 0o4750);
        assert_eq!(std::fs::metadata(&volume).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(std::fs::read_link(volume.join("link")).unwrap(), std::path::Path::new("/etc/passwd"));
    }

    #[test]
    fn targets_stay_inside_the_image_and_volumes_keep_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let (image, outside, volume) =
            (folder.path().join("image"), folder.path().join("outside"), folder.path().join("volume"));
        for path in [&image, &outside, &volume] {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(outside.join("secret"), "canary").unwrap();
        symlink("../outside", image.join("escape")).unwrap();
        let root = std::fs::File::open(&image).unwrap();
        for target in ["/escape", "/../outside", "/none"] {
            copy_up(root.as_fd(), target, &volume).unwrap();
            assert_eq!(std::fs::read_dir(&volume).unwrap().count(), 0, "{target}");
        }
        std::fs::write(volume.join("mine"), "").unwrap();
        std::fs::create_dir(image.join("data")).unwrap();
        std::fs::write(image.join("data/theirs"), "").unwrap();
        copy_up(root.as_fd(), "/data", &volume).unwrap();
        assert!(!volume.join("theirs").exists());
    }
}
