//! A directory tree as a tar, read through directory file descriptors: no name is resolved twice, no link followed.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::attributes::{read_xattr, read_xattrs};
use crate::ids::Ids;
use crate::place::{directory, follows_last, split};
use crate::tar::{Device, EntryKind, Header, Metadata, Timestamp, Writer};
use crate::trail::Trail;

/// Deeper trees are refused, as by whoever reads a layer.
const DEPTH_MAX: usize = 512;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Writes everything below `root` as a tar, the root itself first. Sockets are left out: no tar can have them.
///
/// The owners in the tar are those that `ids` has inside.
pub fn tree(root: BorrowedFd<'_>, ids: &Ids, output: &mut dyn Write) -> io::Result<()> {
    let root = open(root, b".", OFlags::DIRECTORY)?;
    Export::new(output, Form::Tree, ids).directory(root, Vec::new())
}

/// The same without the root itself.
pub fn contents(root: BorrowedFd<'_>, ids: &Ids, output: &mut dyn Write) -> io::Result<()> {
    let root = open(root, b".", OFlags::DIRECTORY)?;
    Export::new(output, Form::Contents, ids).directory(root, Vec::new())
}

/// A tree among several in one tar.
#[derive(Debug)]
pub struct Part<'a> {
    /// The folder that it is put into; empty where it is the top.
    pub folder: &'a [u8],
    /// Its root directory.
    pub root: BorrowedFd<'a>,
    /// Files beside what is in the root, by their names there.
    pub files: &'a [(String, Vec<u8>)],
}

/// Writes several trees as one tar, without their roots. Files beside them are their owner's alone and have no time.
pub fn parts(parts: &[Part<'_>], ids: &Ids, output: &mut dyn Write) -> io::Result<()> {
    let mut export = Export::new(output, Form::Contents, ids);
    for part in parts {
        let root = open(part.root, b".", OFlags::DIRECTORY)?;
        // The same inode in another tree is another file.
        export.links.clear();
        export.level(root, part.folder.to_vec())?;
        let above = [part.folder, if part.folder.is_empty() { b"" } else { b"/" }].concat();
        for (name, bytes) in part.files {
            let metadata = Metadata { mode: 0o600, ..Metadata::default() };
            export.writer.file(&[above.as_slice(), name.as_bytes()].concat(), &metadata, bytes)?;
        }
    }
    export.writer.finish().map(drop)
}

/// Writes one file or directory of a container, which may change it meanwhile, as a tar in which it is called `name`. Symbolic links
/// in `path` are followed inside `root`, the last component is not followed unless a slash is behind it.
///
/// The owners in the tar are those that `ids` has inside.
pub fn subtree(root: BorrowedFd<'_>, path: &[u8], name: &[u8], ids: &Ids, output: &mut dyn Write) -> io::Result<()> {
    let (parent, last) = split(path);
    let mut export = Export::new(output, Form::Tree, ids);
    if follows_last(path) {
        let directory = directory(root, path)?;
        return export.directory(open(directory.as_fd(), b".", OFlags::DIRECTORY)?, name.to_vec());
    }
    let parent = directory(root, parent)?;
    if stat(parent.as_fd(), last)?.is_none() {
        return Err(io::ErrorKind::NotFound.into());
    }
    match export.entry(parent.as_fd(), last, name, 0)? {
        Some(directory) => export.directory(directory, name.to_vec()),
        None => export.writer.finish().map(drop),
    }
}

/// Which paths of an upper directory become part of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    Everything,
    /// These, absolute as in [`changes`](crate::changes::changes); a path whose parent is not among them is left out as well.
    Only(BTreeSet<Vec<u8>>),
}

impl Selection {
    fn takes(&self, path: &[u8]) -> bool {
        match self {
            Selection::Everything => true,
            Selection::Only(paths) => paths.contains([b"/", path].concat().as_slice()),
        }
    }
}

/// Writes an overlay's upper directory as an OCI layer: overlayfs' whiteouts and opaque directories in the form of OCI.
pub fn layer(upper: BorrowedFd<'_>, selection: Selection, output: &mut dyn Write) -> io::Result<()> {
    let upper = open(upper, b".", OFlags::DIRECTORY)?;
    let ids = Ids::default();
    let mut export = Export::new(output, Form::Layer, &ids);
    export.selection = selection;
    export.directory(upper, Vec::new())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Tree,
    /// A tree whose root has no entry.
    Contents,
    Layer,
}

struct Export<'a> {
    writer: Writer<&'a mut dyn Write>,
    form: Form,
    ids: &'a Ids,
    selection: Selection,
    /// The first name of every file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// A directory whose contents are being written.
struct Level {
    names: std::vec::IntoIter<Vec<u8>>,
    path_bytes: usize,
}

impl<'a> Export<'a> {
    fn new(output: &'a mut dyn Write, form: Form, ids: &'a Ids) -> Self {
        Export { writer: Writer::new(output), form, ids, selection: Selection::Everything, links: HashMap::new() }
    }

    /// Writes a directory with everything in it, and the end of the tar.
    fn directory(mut self, root: OwnedFd, path: Vec<u8>) -> io::Result<()> {
        self.level(root, path)?;
        self.writer.finish().map(drop)
    }

    /// Writes a directory with everything in it.
    fn level(&mut self, root: OwnedFd, mut path: Vec<u8>) -> io::Result<()> {
        let level = self.enter(root.as_fd(), &path)?;
        let mut trail = Trail::new(root, level);
        while let Some((dir, level)) = trail.lowest() {
            path.truncate(level.path_bytes);
            let Some(name) = level.names.next() else {
                trail.leave()?;
                continue;
            };
            let parent_bytes = path.len();
            if !path.is_empty() && !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if !self.selection.takes(&path) {
                continue;
            }
            if let Some(below) = self.entry(dir, &name, &path, parent_bytes)? {
                if trail.depth() == DEPTH_MAX {
                    return Err(io::Error::other("the directories are nested too deeply for a tar"));
                }
                let level = self.enter(below.as_fd(), &path)?;
                trail.enter(below, level)?;
            }
        }
        Ok(())
    }

    /// Writes a directory's own entry and prepares its contents.
    fn enter(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<Level> {
        let stat = rustix::fs::fstat(dir)?;
        let metadata = self.ids.bring_inside(metadata(&stat, dir)?);
        if self.form != Form::Contents || !path.is_empty() {
            self.writer.start(&Header { path, metadata: &metadata, kind: &EntryKind::Directory })?;
        }
        if self.form == Form::Layer && is_opaque(dir)? {
            let mark = [path, if path.is_empty() { b"" } else { b"/" }, OPAQUE].concat();
            self.writer.file(&mark, &Metadata { mtime: metadata.mtime, ..Metadata::default() }, b"")?;
        }
        Ok(Level { names: names(dir)?.into_iter(), path_bytes: path.len() })
    }

    /// Writes what is not a directory; gives a directory back to be entered.
    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        parent_bytes: usize,
    ) -> io::Result<Option<OwnedFd>> {
        let Some(file) = open_path(dir, name)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&file)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return open(file.as_fd(), b".", OFlags::DIRECTORY).map(Some),
            FileType::Socket | FileType::Unknown => return Ok(None),
            FileType::CharacterDevice if self.form == Form::Layer && stat.st_rdev == 0 => {
                return self.whiteout(&stat, name, &path[..parent_bytes]).map(|()| None);
            }
            _ if self.known_link(&stat, path) => EntryKind::HardLink { target: self.links[&inode(&stat)].clone() },
            FileType::RegularFile => return self.file(&file, &stat, path).map(|()| None),
            FileType::Symlink => {
                EntryKind::Symlink { target: rustix::fs::readlinkat(&file, c"", Vec::new())?.into_bytes() }
            }
            FileType::CharacterDevice => EntryKind::CharDevice(device(&stat)),
            FileType::BlockDevice => EntryKind::BlockDevice(device(&stat)),
            FileType::Fifo => EntryKind::Fifo,
        };
        let metadata = self.ids.bring_inside(metadata(&stat, file.as_fd())?);
        self.writer.start(&Header { path, metadata: &metadata, kind: &kind })?;
        Ok(None)
    }

    fn whiteout(&mut self, stat: &Stat, name: &[u8], parent: &[u8]) -> io::Result<()> {
        let path = [parent, if parent.is_empty() { b"" } else { b"/" }, WHITEOUT, name].concat();
        self.writer.file(&path, &Metadata { mtime: mtime(stat), ..Metadata::default() }, b"")
    }

    /// Whether the file was written already under another name; remembers this one if not.
    fn known_link(&mut self, stat: &Stat, path: &[u8]) -> bool {
        if stat.st_nlink < 2 {
            return false;
        }
        let known = self.links.contains_key(&inode(stat));
        self.links.entry(inode(stat)).or_insert_with(|| path.to_vec());
        known
    }

    /// Writes a file as long as it was when its header was written, even when somebody writes to it or cuts it meanwhile.
    fn file(&mut self, file: &OwnedFd, stat: &Stat, path: &[u8]) -> io::Result<()> {
        // The file that was inspected, whatever has its name by now.
        let file = File::open(crate::attributes::fd_path(file.as_fd()))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let metadata = self.ids.bring_inside(metadata(stat, file.as_fd())?);
        self.writer.start(&Header { path, metadata: &metadata, kind: &EntryKind::File { size, sparse: None } })?;
        let copied = io::copy(&mut file.take(size), &mut self.writer)?;
        io::copy(&mut io::repeat(0).take(size - copied), &mut self.writer).map(drop)
    }
}

/// The names in a directory, sorted, so that the same tree gives the same tar.
pub(crate) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

pub(crate) fn open(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Opens whatever is under a name, without side effects; `None` when it is gone by now.
pub(crate) fn open_path(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<OwnedFd>> {
    match rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether overlayfs hides what lower layers have in this directory.
pub(crate) fn is_opaque(dir: BorrowedFd<'_>) -> io::Result<bool> {
    for name in [&b"trusted.overlay.opaque"[..], b"user.overlay.opaque"] {
        if read_xattr(dir, name)?.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(crate) fn mtime(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}

fn metadata(stat: &Stat, file: BorrowedFd<'_>) -> io::Result<Metadata> {
    Ok(Metadata {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: mtime(stat),
        xattrs: read_xattrs(file)?,
    })
}

fn device(stat: &Stat) -> Device {
    Device { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) }
}

fn inode(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
