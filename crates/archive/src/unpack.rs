//! A layer's tree put into an empty directory that nobody else can reach.
//!
//! The tree has been resolved in memory, so every name here is one component in a directory that this code has just made: there is no
//! link to follow and no file to overwrite.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::attributes::write_xattr;
use crate::layer::{LayerTree, Node, NodeId, NodeKind, Opacity};
use crate::tar::{Device, Metadata, SparseMap};

const COPY_BYTES: usize = 1 << 20;

/// In whose name files are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// Everything in the tar can be made; what cannot is an error.
    Full,
    /// Inside a user namespace: devices and `trusted.*` attributes are left out, as Docker does there, and overlayfs' marks are
    /// `user.overlay.*`.
    UserNamespace,
}

impl Privileges {
    fn opaque_xattr(self) -> &'static [u8] {
        match self {
            Privileges::Full => b"trusted.overlay.opaque",
            Privileges::UserNamespace => b"user.overlay.opaque",
        }
    }

    fn forgives(self, error: &io::Error) -> bool {
        self == Privileges::UserNamespace && error.raw_os_error() == Some(Errno::PERM.raw_os_error())
    }
}

/// Unpacks `tree`, whose files' contents are in `tar`, into the empty directory `dir`.
pub fn unpack(tree: &LayerTree, tar: &File, dir: BorrowedFd<'_>, privileges: Privileges) -> io::Result<()> {
    let root = rustix::fs::openat(dir, c".", OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut unpack = Unpack { tree, tar, privileges, root: dir, links: HashMap::new(), path: Vec::new() };
    let mut levels = vec![Level::of(tree, NodeId::ROOT, root)];
    while let Some(level) = levels.last_mut() {
        let Some((name, child)) = level.children.pop() else {
            unpack.leave(level)?;
            levels.pop();
            unpack.path.pop();
            continue;
        };
        if let Some(dir) = unpack.child(&level.dir, name, child)? {
            unpack.path.push(name);
            levels.push(Level::of(tree, child, dir));
        }
    }
    Ok(())
}

struct Unpack<'a> {
    tree: &'a LayerTree,
    tar: &'a File,
    privileges: Privileges,
    root: BorrowedFd<'a>,
    /// Where files were first made, for their further names.
    links: HashMap<NodeId, Vec<u8>>,
    path: Vec<&'a [u8]>,
}

/// A directory that is being filled; what is left to do is popped from the end.
struct Level<'a> {
    id: NodeId,
    dir: OwnedFd,
    children: Vec<(&'a [u8], NodeId)>,
}

impl<'a> Level<'a> {
    fn of(tree: &'a LayerTree, id: NodeId, dir: OwnedFd) -> Self {
        let mut children: Vec<_> = tree.children(id).collect();
        children.reverse();
        Level { id, dir, children }
    }
}

impl<'a> Unpack<'a> {
    /// Makes one file; gives a directory back to be filled.
    fn child(&mut self, dir: &OwnedFd, name: &'a [u8], id: NodeId) -> io::Result<Option<OwnedFd>> {
        let node = self.tree.node(id);
        if let NodeKind::Directory { .. } = node.kind {
            rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
            return crate::export::open(dir.as_fd(), name, OFlags::DIRECTORY).map(Some);
        }
        if let Some(first) = self.links.get(&id) {
            rustix::fs::linkat(self.root, first.as_slice(), dir, name, AtFlags::empty())?;
            return Ok(None);
        }
        self.make(dir, name, node)?;
        let path = [self.path.join(&b'/'), name.to_vec()].join(&b'/');
        self.links.insert(id, path.strip_prefix(b"/").unwrap_or(&path).to_vec());
        Ok(None)
    }

    fn make(&self, dir: &OwnedFd, name: &[u8], node: &Node) -> io::Result<()> {
        let whiteout = Device { major: 0, minor: 0 };
        match &node.kind {
            NodeKind::Directory { .. } => Ok(()),
            NodeKind::File { size, data_offset, sparse } => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = File::from(rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?);
                self.contents(&file, *size, *data_offset, sparse.as_deref())?;
                apply_metadata(file.as_fd(), &node.metadata, self.privileges)
            }
            NodeKind::Symlink(target) => {
                rustix::fs::symlinkat(&**target, dir, name)?;
                self.special_metadata(dir, name, node)
            }
            NodeKind::Whiteout => self.device(dir, name, FileType::CharacterDevice, whiteout),
            NodeKind::CharDevice(device) => self.special(dir, name, node, FileType::CharacterDevice, *device),
            NodeKind::BlockDevice(device) => self.special(dir, name, node, FileType::BlockDevice, *device),
            NodeKind::Fifo => self.special(dir, name, node, FileType::Fifo, whiteout),
        }
    }

    fn contents(&self, file: &File, size: u64, data_offset: u64, sparse: Option<&SparseMap>) -> io::Result<()> {
        let Some(map) = sparse else {
            return copy_range(self.tar, data_offset, file, 0, size);
        };
        let mut at = data_offset;
        for segment in &map.segments {
            copy_range(self.tar, at, file, segment.offset, segment.length)?;
            at += segment.length;
        }
        file.set_len(size)
    }

    fn special(&self, dir: &OwnedFd, name: &[u8], node: &Node, kind: FileType, device: Device) -> io::Result<()> {
        match self.device(dir, name, kind, device) {
            Err(error) if self.privileges.forgives(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.special_metadata(dir, name, node),
        }
    }

    fn device(&self, dir: &OwnedFd, name: &[u8], kind: FileType, device: Device) -> io::Result<()> {
        let number = rustix::fs::makedev(device.major, device.minor);
        rustix::fs::mknodat(dir, name, kind, Mode::empty(), number).map_err(io::Error::from)
    }

    /// Owner, mode, attributes and time of what cannot be opened: links, devices, pipes.
    fn special_metadata(&self, dir: &OwnedFd, name: &[u8], node: &Node) -> io::Result<()> {
        let file = crate::export::open_path(dir.as_fd(), name)?.ok_or(io::ErrorKind::NotFound)?;
        let metadata = &node.metadata;
        rustix::fs::chownat(&file, c"", Some(uid(metadata)), Some(gid(metadata)), AtFlags::EMPTY_PATH)?;
        if !matches!(node.kind, NodeKind::Symlink(_)) {
            rustix::fs::chmod(crate::attributes::fd_path(file.as_fd()), mode(metadata))?;
        }
        apply_xattrs(file.as_fd(), metadata, self.privileges)?;
        rustix::fs::utimensat(dir, name, &times(metadata), AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
    }

    /// A directory's own attributes, once nothing changes in it any more.
    fn leave(&self, level: &Level<'_>) -> io::Result<()> {
        let node = self.tree.node(level.id);
        if matches!(node.kind, NodeKind::Directory { opacity: Opacity::Opaque, .. }) {
            write_xattr(level.dir.as_fd(), self.privileges.opaque_xattr(), b"y")?;
        }
        apply_metadata(level.dir.as_fd(), &node.metadata, self.privileges)
    }
}

/// Owner first (changing it clears set-user-ID bits and capabilities), then mode and attributes, time last.
pub(crate) fn apply_metadata(file: BorrowedFd<'_>, metadata: &Metadata, privileges: Privileges) -> io::Result<()> {
    rustix::fs::fchown(file, Some(uid(metadata)), Some(gid(metadata)))?;
    rustix::fs::fchmod(file, mode(metadata))?;
    apply_xattrs(file, metadata, privileges)?;
    rustix::fs::futimens(file, &times(metadata)).map_err(io::Error::from)
}

pub(crate) fn apply_xattrs(file: BorrowedFd<'_>, metadata: &Metadata, privileges: Privileges) -> io::Result<()> {
    for xattr in &metadata.xattrs {
        match write_xattr(file, &xattr.name, &xattr.value) {
            Err(error) if privileges.forgives(&error) => {}
            // Attributes of namespaces that this file system does not know: Docker leaves them out as well.
            Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {}
            result => result?,
        }
    }
    Ok(())
}

pub(crate) fn uid(metadata: &Metadata) -> Uid {
    Uid::from_raw(metadata.uid)
}

pub(crate) fn gid(metadata: &Metadata) -> Gid {
    Gid::from_raw(metadata.gid)
}

pub(crate) fn mode(metadata: &Metadata) -> Mode {
    Mode::from_raw_mode(metadata.mode & 0o7777)
}

pub(crate) fn times(metadata: &Metadata) -> Timestamps {
    let time = Timespec { tv_sec: metadata.mtime.seconds, tv_nsec: metadata.mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Copies inside the kernel where it can, which on some file systems shares the blocks.
fn copy_range(from: &File, mut from_at: u64, to: &File, mut to_at: u64, mut length: u64) -> io::Result<()> {
    while length > 0 {
        let piece = usize::try_from(length).unwrap_or(usize::MAX);
        let copied = match rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(copied) => copied as u64,
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_hand(from, from_at, to, to_at, length);
            }
            Err(error) => return Err(error.into()),
        };
        length -= copied;
    }
    Ok(())
}

fn copy_by_hand(from: &File, mut from_at: u64, to: &File, mut to_at: u64, mut length: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(length).unwrap_or(COPY_BYTES))];
    while length > 0 {
        let piece = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        from.read_exact_at(&mut buffer[..piece], from_at)?;
        to.write_all_at(&buffer[..piece], to_at)?;
        (from_at, to_at, length) = (from_at + piece as u64, to_at + piece as u64, length - piece as u64);
    }
    Ok(())
}
