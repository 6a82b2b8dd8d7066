//! A tar put into a directory that somebody else may be writing to at the same time: `cp`, volumes, build contexts.
//!
//! Every name is resolved by the kernel below a root that it cannot leave (`openat2` with `RESOLVE_IN_ROOT`), one component at a time
//! where something is to be made, and everything is done to what was opened, never to a name again. A container that swaps a directory
//! for a symbolic link meanwhile changes where inside its own tree the file ends up, and nothing else.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::export::{names, open, open_path, stat};
use crate::ids::Ids;
use crate::place;
use crate::tar::{Device, Entry, EntryKind, Metadata, Reader, SparseMap};
use crate::unpack::{Privileges, apply_metadata, apply_xattrs, gid, mode, times, uid};
use crate::{Name, Refusal};

/// A directory that is to be replaced may be so deep at most: each level takes a file descriptor.
const REMOVE_DEPTH_MAX: usize = 512;

/// What happens to files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// The tar's file takes the place of whatever has its name.
    Replace,
    /// A file never replaces a directory, nor a directory a file (`docker cp` without its special flag).
    SameKind,
}

/// Whose the files become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Whoever the tar says.
    AsInTar,
    /// This user and group.
    Fixed {
        /// Owner of every file.
        uid: u32,
        /// Group of every file.
        gid: u32,
    },
}

/// Another name for the one file or directory that a tar contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rename<'a> {
    /// Its name in the tar; empty for a tar of a root or of `.`, whose entries all go below the new name.
    pub from: &'a [u8],
    /// The name it gets.
    pub to: &'a [u8],
}

impl Rename<'_> {
    fn apply(self, path: Vec<u8>) -> Vec<u8> {
        let rest = match path.strip_prefix(self.from) {
            Some(rest) if self.from.is_empty() || rest.is_empty() || rest.starts_with(b"/") => rest,
            _ => return path,
        };
        let slash = if rest.is_empty() || rest.starts_with(b"/") { &b""[..] } else { b"/" };
        [self.to, slash, rest].concat()
    }
}

/// How to extract.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The directory to extract into, as a path inside the root; symbolic links in it are followed inside the root.
    pub directory: &'a [u8],
    /// Another name for what the tar contains.
    pub rename: Option<Rename<'a>>,
    /// What happens to files that are there already.
    pub overwrite: Overwrite,
    /// Whose the files become.
    pub owner: Owner,
    /// The namespace whose owners those are.
    pub ids: &'a Ids,
    /// In whose name files are made.
    pub privileges: Privileges,
}

/// Why a tar could not be extracted; what came before stays.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The tar is malformed or hostile.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The stream failed.
    #[error("cannot read the tar")]
    Read(#[source] io::Error),
    /// A file could not be made.
    #[error("cannot extract {name}")]
    Write {
        /// The entry.
        name: Name,
        /// Why not.
        source: io::Error,
    },
    /// A directory is in the place of a file, or a file in that of a directory.
    #[error("cannot overwrite {existing} with {new}: {name}", existing = kind_word(.0), new = kind_word(&other(.0)), name = .1)]
    OtherKind(ExistingKind, Name),
}

/// What is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingKind {
    /// A directory.
    Directory,
    /// Anything else.
    NonDirectory,
}

fn other(kind: &ExistingKind) -> ExistingKind {
    match kind {
        ExistingKind::Directory => ExistingKind::NonDirectory,
        ExistingKind::NonDirectory => ExistingKind::Directory,
    }
}

fn kind_word(kind: &ExistingKind) -> &'static str {
    match kind {
        ExistingKind::Directory => "directory",
        ExistingKind::NonDirectory => "non-directory",
    }
}

/// Extracts a tar (not compressed) below `root`. Whiteouts have no meaning here, they are files like any other; a character device
/// 0:0 is refused, because overlayfs would take it for one.
pub fn extract(source: &mut dyn Read, root: BorrowedFd<'_>, options: &Options<'_>) -> Result<(), ExtractError> {
    let mut reader = Reader::new(source);
    let mut extraction = Extraction { root, options, parent: None, directories: Vec::new() };
    while let Some(entry) = reader.next_entry().map_err(read_error)? {
        extraction.entry(entry, &mut reader)?;
    }
    extraction.set_directory_times()
}

fn read_error(error: io::Error) -> ExtractError {
    match Refusal::of(&error) {
        Some(refusal) => ExtractError::Refused(refusal.clone()),
        None => ExtractError::Read(error),
    }
}

struct Extraction<'a> {
    root: BorrowedFd<'a>,
    options: &'a Options<'a>,
    /// The directory of the last entry: the next one is most often in the same.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories whose time is set at the end, when nothing changes in them any more.
    directories: Vec<(Vec<u8>, Metadata)>,
}

impl Extraction<'_> {
    fn entry(&mut self, mut entry: Entry, contents: &mut dyn Read) -> Result<(), ExtractError> {
        if let Some(rename) = self.options.rename {
            entry.path = rename.apply(entry.path);
            if let EntryKind::HardLink { target } = &mut entry.kind {
                *target = rename.apply(std::mem::take(target));
            }
        }
        // The directory that everything goes into is there already and keeps what it has.
        if entry.path.is_empty() {
            return if entry.kind == EntryKind::Directory { Ok(()) } else { Err(Refusal::RootNotDirectory.into()) };
        }
        if let Owner::Fixed { uid, gid } = self.options.owner {
            (entry.metadata.uid, entry.metadata.gid) = (uid, gid);
        }
        (entry.metadata.uid, entry.metadata.gid) = self.owner_outside(&entry)?;
        let (parent_path, name) = place::split(&entry.path);
        let failed = |source| ExtractError::Write { name: Name::new(&entry.path), source };
        let parent = self.parent(parent_path).map_err(failed)?;
        let made = self.make(&parent, name, &entry, contents);
        self.parent = Some((parent_path.to_vec(), parent));
        made?;
        if entry.kind == EntryKind::Directory {
            self.parent = None;
            self.directories.push((entry.path, entry.metadata));
        }
        Ok(())
    }

    /// Opens the directory that an entry goes into, making what is missing.
    fn parent(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        match self.parent.take() {
            Some((known, parent)) if known == path => Ok(parent),
            _ => place::make_directory(self.root, &[self.options.directory, b"/", path].concat()),
        }
    }

    fn make(&self, parent: &OwnedFd, name: &[u8], entry: &Entry, contents: &mut dyn Read) -> Result<(), ExtractError> {
        let failed = |source| ExtractError::Write { name: Name::new(&entry.path), source };
        if entry.kind == EntryKind::Directory {
            return self.make_directory(parent, name, entry);
        }
        if let EntryKind::HardLink { target } = &entry.kind {
            return self.make_link(parent, name, target, entry);
        }
        self.make_room(parent, name, entry)?;
        match &entry.kind {
            EntryKind::File { size, sparse } => self.make_file(parent, name, entry, *size, sparse.as_ref(), contents),
            EntryKind::Symlink { target } => {
                rustix::fs::symlinkat(target.as_slice(), parent, name).map_err(|error| failed(error.into()))?;
                self.special_metadata(parent, name, entry).map_err(failed)
            }
            EntryKind::CharDevice(device) => self.make_node(parent, name, entry, FileType::CharacterDevice, *device),
            EntryKind::BlockDevice(device) => self.make_node(parent, name, entry, FileType::BlockDevice, *device),
            EntryKind::Fifo => self.make_node(parent, name, entry, FileType::Fifo, Device { major: 0, minor: 0 }),
            EntryKind::Directory | EntryKind::HardLink { .. } => Ok(()),
        }
    }

    fn owner_outside(&self, entry: &Entry) -> Result<(u32, u32), ExtractError> {
        let (uid, gid) = (entry.metadata.uid, entry.metadata.gid);
        self.options.ids.outside((uid, gid)).ok_or_else(|| ExtractError::Write {
            name: Name::new(&entry.path),
            source: io::Error::other(format!("its owner {uid}:{gid} is nobody in the container's user namespace")),
        })
    }

    fn make_directory(&self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), ExtractError> {
        let failed = |source| ExtractError::Write { name: Name::new(&entry.path), source };
        let existing = stat(parent.as_fd(), name).map_err(failed)?;
        if !existing.is_some_and(|existing| is_directory(existing.st_mode)) {
            self.make_room(parent, name, entry)?;
            rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(|error| failed(error.into()))?;
        }
        // What is opened here is a directory and no link, whatever was there a moment ago; all else is done to it alone
        // (CVE-2026-33056: a mode given to a name was given to what a link of that name pointed to).
        let dir = open(parent.as_fd(), name, OFlags::DIRECTORY).map_err(failed)?;
        apply_metadata(dir.as_fd(), &entry.metadata, self.options.privileges).map_err(failed)
    }

    fn make_file(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        size: u64,
        sparse: Option<&SparseMap>,
        contents: &mut dyn Read,
    ) -> Result<(), ExtractError> {
        let failed = |source| ExtractError::Write { name: Name::new(&entry.path), source };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.map_err(|error| failed(error.into()))?);
        match sparse {
            None => copy(contents, &mut file, size, &entry.path)?,
            Some(map) => {
                for segment in &map.segments {
                    file.seek(SeekFrom::Start(segment.offset)).map_err(failed)?;
                    copy(contents, &mut file, segment.length, &entry.path)?;
                }
                file.set_len(size).map_err(failed)?;
            }
        }
        apply_metadata(file.as_fd(), &entry.metadata, self.options.privileges).map_err(failed)
    }

    fn make_node(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        kind: FileType,
        device: Device,
    ) -> Result<(), ExtractError> {
        let failed = |source| ExtractError::Write { name: Name::new(&entry.path), source };
        if kind == FileType::CharacterDevice && device == (Device { major: 0, minor: 0 }) {
            return Err(Refusal::Whiteout { name: Name::new(&entry.path) }.into());
        }
        let number = rustix::fs::makedev(device.major, device.minor);
        match rustix::fs::mknodat(parent, name, kind, Mode::empty(), number) {
            Err(Errno::PERM) if self.options.privileges == Privileges::UserNamespace => Ok(()),
            Err(error) => Err(failed(error.into())),
            Ok(()) => self.special_metadata(parent, name, entry).map_err(failed),
        }
    }

    /// Owner, mode, attributes and time of what cannot be opened: links, devices, pipes.
    fn special_metadata(&self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> io::Result<()> {
        let file = open_path(parent.as_fd(), name)?.ok_or(io::ErrorKind::NotFound)?;
        let metadata = &entry.metadata;
        rustix::fs::chownat(&file, c"", Some(uid(metadata)), Some(gid(metadata)), AtFlags::EMPTY_PATH)?;
        // Somebody may have put a link in the place of what we made: then this is that link, which has no mode of its own.
        let is_link = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::Symlink;
        if !is_link {
            rustix::fs::chmod(crate::attributes::fd_path(file.as_fd()), mode(metadata))?;
        }
        apply_xattrs(file.as_fd(), metadata, self.options.privileges)?;
        rustix::fs::utimensat(&file, c"", &times(metadata), AtFlags::EMPTY_PATH)?;
        Ok(())
    }

    fn make_link(&self, parent: &OwnedFd, name: &[u8], target: &[u8], entry: &Entry) -> Result<(), ExtractError> {
        let failed = |source: io::Error| ExtractError::Write { name: Name::new(&entry.path), source };
        let no_target = || Refusal::LinkTarget { name: Name::new(&entry.path), target: Name::new(target) };
        let (target_parent, target_name) = place::split(target);
        if target_name.is_empty() {
            return Err(no_target().into());
        }
        let target_parent = place::directory(self.root, &[self.options.directory, b"/", target_parent].concat());
        let target_parent = target_parent.map_err(|_| no_target())?;
        let found = stat(target_parent.as_fd(), target_name).map_err(failed)?.ok_or_else(no_target)?;
        if is_directory(found.st_mode) {
            return Err(no_target().into());
        }
        let existing = stat(parent.as_fd(), name).map_err(failed)?;
        if existing.is_some_and(|existing| (existing.st_dev, existing.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(());
        }
        self.make_room(parent, name, entry)?;
        rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty())
            .map_err(|error| failed(error.into()))
    }

    /// Removes what has the name already, if that is allowed.
    fn make_room(&self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), ExtractError> {
        let failed = |source| ExtractError::Write { name: Name::new(&entry.path), source };
        let Some(existing) = stat(parent.as_fd(), name).map_err(failed)? else { return Ok(()) };
        let existing = match is_directory(existing.st_mode) {
            true => ExistingKind::Directory,
            false => ExistingKind::NonDirectory,
        };
        let new = match entry.kind {
            EntryKind::Directory => ExistingKind::Directory,
            _ => ExistingKind::NonDirectory,
        };
        if existing != new && self.options.overwrite == Overwrite::SameKind {
            return Err(ExtractError::OtherKind(existing, Name::new(&entry.path)));
        }
        remove_tree(parent.as_fd(), name).map_err(failed)
    }

    /// Sets the times of directories, the deepest first.
    fn set_directory_times(&mut self) -> Result<(), ExtractError> {
        for (path, metadata) in std::mem::take(&mut self.directories).into_iter().rev() {
            let failed = |source| ExtractError::Write { name: Name::new(&path), source };
            let full = [self.options.directory, b"/", &path].concat();
            // A later entry of the tar, or the container, may have replaced or removed it.
            let Ok(dir) = place::directory(self.root, &full) else { continue };
            rustix::fs::utimensat(&dir, c"", &times(&metadata), AtFlags::EMPTY_PATH)
                .map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }
}

fn is_directory(mode: u32) -> bool {
    FileType::from_raw_mode(mode) == FileType::Directory
}

/// Copies contents and tells the tar's failures from the disk's.
fn copy(contents: &mut dyn Read, file: &mut File, length: u64, path: &[u8]) -> Result<(), ExtractError> {
    let mut left = length;
    let mut buffer = vec![0; 128 << 10];
    while left > 0 {
        let piece = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = match contents.read(&mut buffer[..piece]) {
            Ok(0) => return Err(ExtractError::Read(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_error(error)),
        };
        io::Write::write_all(file, &buffer[..read])
            .map_err(|source| ExtractError::Write { name: Name::new(path), source })?;
        left -= read as u64;
    }
    Ok(())
}

/// Removes a file or a whole directory without following anything.
fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    struct Level {
        dir: OwnedFd,
        names: Vec<Vec<u8>>,
        own_name: Vec<u8>,
    }
    let enter = |parent: BorrowedFd<'_>, name: &[u8]| -> io::Result<Level> {
        let dir = open(parent, name, OFlags::DIRECTORY)?;
        let names = names(dir.as_fd())?;
        Ok(Level { dir, names, own_name: name.to_vec() })
    };
    let mut levels: Vec<Level> = Vec::new();
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => levels.push(enter(parent, name)?),
        Err(error) => return Err(error.into()),
    }
    loop {
        let depth = levels.len();
        let Some(level) = levels.last_mut() else { return Ok(()) };
        let Some(name) = level.names.pop() else {
            let own_name = std::mem::take(&mut level.own_name);
            levels.pop();
            let above = levels.last().map_or(parent, |level| level.dir.as_fd());
            rustix::fs::unlinkat(above, own_name.as_slice(), AtFlags::REMOVEDIR)?;
            continue;
        };
        match rustix::fs::unlinkat(&level.dir, name.as_slice(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) if depth < REMOVE_DEPTH_MAX => {
                let below = enter(level.dir.as_fd(), &name)?;
                levels.push(below);
            }
            Err(error) => return Err(error.into()),
        }
    }
}
