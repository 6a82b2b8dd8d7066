//! A folder of this machine as a context: its files are read where they are, and never written. What was hashed once and has not
//! changed since, by its inode and times, is not read again to be hashed.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use archive::layer::{LayerTree, NodeId};
use archive::tar::{Device, Entry, EntryKind, Metadata, Timestamp};
use archive::trail::Trail;
use dockerfile::ignore::Ignore;
use oci::Digest;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};

use crate::context::{Bytes, Context, ContextError};

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, u64),
    changed: (i64, u64),
}

impl Signature {
    fn of(stat: &Stat) -> Signature {
        Signature {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size as u64,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// Digests of files in folders, by what the files looked like.
#[derive(Debug, Default)]
pub struct KnownFiles(Mutex<HashMap<Signature, Digest>>);

/// So many files are remembered.
const KNOWN_MAX: usize = 1 << 20;

impl KnownFiles {
    fn get(&self, signature: &Signature) -> Option<Digest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(signature).copied()
    }

    fn put(&self, signature: Signature, digest: Digest) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(signature, digest);
    }
}

/// The files of a folder.
#[derive(Debug)]
pub(crate) struct FolderFiles {
    root: OwnedFd,
    files: HashMap<NodeId, (Vec<u8>, Signature)>,
}

impl FolderFiles {
    /// Opens a file that must be what it was when the folder was read.
    pub(crate) fn open(&self, id: NodeId) -> io::Result<Arc<File>> {
        let (path, signature) = self.files.get(&id).ok_or(io::ErrorKind::NotFound)?;
        let file = open_below(&self.root, path)?;
        if Signature::of(&rustix::fs::fstat(&file)?) != *signature {
            let name = String::from_utf8_lossy(path);
            return Err(io::Error::other(format!("{name} changed while the build read it")));
        }
        Ok(Arc::new(File::from(file)))
    }
}

fn open_below(root: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve)?)
}

impl Context {
    /// The files of a folder, without those that are ignored. Owners are forgotten.
    pub fn of_folder(folder: &Path, ignore: &Ignore, known: &KnownFiles) -> Result<Context, ContextError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(folder, flags, Mode::empty()).map_err(|e| ContextError::Folder(e.into()))?;
        Context::of_directory(root, ignore, known)
    }

    fn of_directory(root: OwnedFd, ignore: &Ignore, known: &KnownFiles) -> Result<Context, ContextError> {
        let mut walk = Walk { ignore, tree: LayerTree::new(), files: HashMap::new(), linked: HashMap::new() };
        root.try_clone().and_then(|root| walk.directory(root)).map_err(ContextError::Folder)?;
        let (tree, files) = (walk.tree, walk.files);
        let digests = files.iter().filter_map(|(id, (_, signature))| Some((*id, known.get(signature)?))).collect();
        let folder = FolderFiles { root, files };
        Context::made(Bytes::Folder(folder), tree, digests)
    }

    /// Remembers what was hashed, for the next build of the folder. Files that changed a moment ago may change again unseen.
    pub fn remember(&self, known: &KnownFiles) {
        let Some(folder) = self.folder() else { return };
        let now = jiff::Timestamp::now().as_second();
        self.each_digest(|id, digest| {
            if let Some((_, signature)) = folder.files.get(&id)
                && signature.changed.0 < now - 1
            {
                known.put(*signature, digest);
            }
        });
    }
}

/// Reads a folder into a tree.
struct Walk<'a> {
    ignore: &'a Ignore,
    tree: LayerTree,
    files: HashMap<NodeId, (Vec<u8>, Signature)>,
    /// Files with several names, by their inode.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl Walk<'_> {
    fn directory(&mut self, root: OwnedFd) -> io::Result<()> {
        let names = sorted_names(root.as_fd())?;
        let mut trail = Trail::new(root, (names, Vec::new()));
        while let Some((directory, (names, above))) = trail.lowest() {
            let Some(name) = names.next() else {
                trail.leave()?;
                continue;
            };
            let path = if above.is_empty() { name.clone() } else { [above.as_slice(), b"/", &name].concat() };
            if let Some(below) = self.file(directory, &name, &path)? {
                let names = sorted_names(below.as_fd())?;
                trail.enter(below, (names, path))?;
            }
        }
        Ok(())
    }

    /// Takes a file, or gives a directory back to be entered.
    fn file(&mut self, directory: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> io::Result<Option<OwnedFd>> {
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone since its folder was read.
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            stat => stat?,
        };
        let text = String::from_utf8_lossy(path).into_owned();
        let ignored = self.ignore.matches(&text);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            if ignored && self.ignore.ignores_all_below(&text) {
                return Ok(None);
            }
            if !ignored {
                self.add(path, &stat, EntryKind::Directory)?;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return Ok(Some(rustix::fs::openat(directory, name, flags, Mode::empty())?));
        }
        if !ignored {
            self.other(directory, name, path, &stat)?;
        }
        Ok(None)
    }

    /// Takes what is no directory.
    fn other(&mut self, directory: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> io::Result<()> {
        let device = || Device { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.regular(path.to_vec(), stat),
            FileType::Symlink => {
                EntryKind::Symlink { target: rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes() }
            }
            FileType::Fifo => EntryKind::Fifo,
            FileType::CharacterDevice => EntryKind::CharDevice(device()),
            FileType::BlockDevice => EntryKind::BlockDevice(device()),
            // A socket: no image can have it.
            _ => return Ok(()),
        };
        self.add(path, stat, kind)
    }

    fn regular(&mut self, path: Vec<u8>, stat: &Stat) -> io::Result<()> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.linked.get(&key) {
                let target = first.clone();
                return self.add(&path, stat, EntryKind::HardLink { target });
            }
            self.linked.insert(key, path.clone());
        }
        self.add(&path, stat, EntryKind::File { size: stat.st_size as u64, sparse: None })?;
        if let Some(id) = self.tree.id(self.tree.node_count() - 1) {
            self.files.insert(id, (path, Signature::of(stat)));
        }
        Ok(())
    }

    fn add(&mut self, path: &[u8], stat: &Stat, kind: EntryKind) -> io::Result<()> {
        let metadata = Metadata {
            mode: stat.st_mode & 0o7777,
            uid: 0,
            gid: 0,
            mtime: Timestamp { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
            xattrs: Vec::new(),
        };
        let entry = Entry { path: path.to_vec(), metadata, kind, header_offset: 0, data_offset: 0, data_size: 0 };
        self.tree.apply(entry).map_err(io::Error::from)
    }
}

fn sorted_names(directory: BorrowedFd<'_>) -> io::Result<std::vec::IntoIter<Vec<u8>>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir_all(at("sub/deep")).unwrap();
        std::fs::write(at("sub/a"), "one").unwrap();
        std::fs::write(at("secret"), "hidden").unwrap();
        std::fs::hard_link(at("sub/a"), at("sub/b")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("out")).unwrap();
        let known = KnownFiles::default();
        let ignore = Ignore::parse("secret\n").unwrap();
        let context = Context::of_folder(folder.path(), &ignore, &known).unwrap();
        assert_eq!(context.text("sub/a").as_deref(), Some("one"));
        assert_eq!(context.text("sub/b").as_deref(), Some("one"));
        assert!(context.find("secret").is_none() && context.find("out").is_none());
        assert!(context.is_linked(context.find("sub/a").unwrap()));
        // A file that changes under the build's hands is not taken for what it was.
        std::fs::write(at("sub/a"), "two!").unwrap();
        assert!(context.text("sub/a").is_none());
    }
}
