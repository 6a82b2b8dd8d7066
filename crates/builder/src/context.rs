//! Files that a build copies from: a tree in memory, and the bytes in one file (a tar as it came, or what a client sent) or in the folder
//! that they are in anyway. Nothing is unpacked.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use archive::layer::{LayerTree, Node, NodeId, NodeKind};
use archive::tar::Reader;
use dockerfile::ignore::Ignore;
use durable::StagedFile;
use oci::Digest;

use crate::folder::FolderFiles;

/// Linux follows at most so many symbolic links in one name.
const SYMLINKS_MAX: usize = 40;
/// A Dockerfile or a `.dockerignore` is not larger.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// Fewer files than these are not worth a thread.
const HASHED_MIN: usize = 64;
/// So many files a thread takes at once.
const HASHED_TOGETHER: usize = 16;
/// So many threads hash.
const HASHERS_MAX: usize = 8;

/// Files that a build can copy from.
#[derive(Debug)]
pub struct Context {
    bytes: Bytes,
    tree: LayerTree,
    /// Files with several names.
    linked: HashSet<NodeId>,
    /// Files that are left out although they came.
    hidden: HashSet<NodeId>,
    /// What is known of the files' bytes.
    digests: Mutex<HashMap<NodeId, Digest>>,
}

/// Where the files' bytes are.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// In a file that is removed with the context.
    Staged {
        /// Removes it.
        _staged: StagedFile,
        /// The file.
        file: Arc<File>,
    },
    /// In a file that others use as well.
    Shared(Arc<File>),
    /// Where they always were.
    Folder(FolderFiles),
}

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The tar is damaged, or says what no context should.
    #[error("cannot read the build context: {0}")]
    Tar(#[source] io::Error),
    /// It cannot be kept.
    #[error(transparent)]
    Store(#[from] durable::PathError),
    /// A folder cannot be read, or what a client sends of it cannot be kept.
    #[error("cannot read the build context: {0}")]
    Folder(#[source] io::Error),
    /// Which files there are cannot be written down.
    #[error("cannot keep the build context: {0}")]
    Index(#[source] durable::RecordError),
    /// A name that would hide files of other layers.
    #[error("cannot use the build context: a file called .wh.{0} cannot be in an image")]
    Whiteout(String),
}

/// Writes what it reads.
struct Tee<'a> {
    inner: &'a mut dyn Read,
    copy: &'a File,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.copy.write_all(&buffer[..length])?;
        Ok(length)
    }
}

impl Context {
    /// Reads a tar, compressed or not; what it needs meanwhile is kept in `dir`.
    pub fn read(input: Box<dyn Read + Send>, dir: &Path) -> Result<Context, ContextError> {
        let mut tar = archive::compression::decompress(input).map_err(ContextError::Tar)?;
        Context::of(&mut tar, dir)
    }

    /// Reads a tar that is not compressed.
    pub(crate) fn of(tar: &mut dyn Read, dir: &Path) -> Result<Context, ContextError> {
        let staged = StagedFile::create(dir)?;
        let mut tree = LayerTree::new();
        let mut reader = Reader::new(Tee { inner: tar, copy: staged.file() });
        while let Some(entry) = reader.next_entry().map_err(ContextError::Tar)? {
            tree.apply(entry).map_err(|refusal| ContextError::Tar(refusal.into()))?;
        }
        let tar = Arc::new(staged.file().try_clone().map_err(ContextError::Tar)?);
        Context::made(Bytes::Staged { _staged: staged, file: tar }, tree, HashMap::new())
    }

    /// A tree, its bytes, and what is known of them.
    pub(crate) fn made(
        bytes: Bytes,
        tree: LayerTree,
        digests: HashMap<NodeId, Digest>,
    ) -> Result<Context, ContextError> {
        let (linked, hidden) = (HashSet::new(), HashSet::new());
        let mut context = Context { bytes, tree, linked, hidden, digests: Mutex::new(digests) };
        context.survey()?;
        Ok(context)
    }

    /// A context of one file.
    pub fn of_file(name: &str, contents: &[u8], dir: &Path) -> Result<Context, ContextError> {
        let mut writer = archive::tar::Writer::new(Vec::new());
        let metadata = archive::tar::Metadata { mode: 0o644, ..Default::default() };
        let written = writer.file(name.as_bytes(), &metadata, contents).and_then(|()| writer.finish());
        Context::of(&mut written.map_err(ContextError::Tar)?.as_slice(), dir)
    }

    /// A context of one file that is somewhere already.
    pub fn of_stored(
        name: &str,
        file: Arc<File>,
        (size, digest): (u64, Digest),
        metadata: archive::tar::Metadata,
    ) -> Result<Context, ContextError> {
        let mut tree = LayerTree::new();
        let kind = archive::tar::EntryKind::File { size, sparse: None };
        let path = name.as_bytes().to_vec();
        let entry = archive::tar::Entry { path, metadata, kind, header_offset: 0, data_offset: 0, data_size: size };
        tree.apply(entry).map_err(|refusal| ContextError::Tar(refusal.into()))?;
        let digests = tree.id(tree.node_count() - 1).map(|id| (id, digest)).into_iter().collect();
        Context::made(Bytes::Shared(file), tree, digests)
    }

    /// Refuses whiteouts and notes files with several names.
    fn survey(&mut self) -> Result<(), ContextError> {
        let (mut seen, mut directories) = (HashSet::new(), vec![NodeId::ROOT]);
        while let Some(directory) = directories.pop() {
            for (name, child) in self.tree.children(directory) {
                match self.tree.node(child).kind {
                    NodeKind::Whiteout => {
                        return Err(ContextError::Whiteout(String::from_utf8_lossy(name).into_owned()));
                    }
                    NodeKind::Directory { .. } => directories.push(child),
                    _ if !seen.insert(child) => drop(self.linked.insert(child)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Whether the file has several names.
    pub(crate) fn is_linked(&self, id: NodeId) -> bool {
        self.linked.contains(&id)
    }

    /// Leaves out what an ignore file names.
    pub fn ignore(&mut self, ignore: &Ignore) {
        if ignore.is_empty() {
            return;
        }
        let (mut hidden, mut open) = (HashSet::new(), vec![(NodeId::ROOT, String::new())]);
        while let Some((directory, above)) = open.pop() {
            for (name, child) in self.tree.children(directory) {
                let name = String::from_utf8_lossy(name);
                let path = if above.is_empty() { name.into_owned() } else { format!("{above}/{name}") };
                let is_directory = matches!(self.node(child).kind, NodeKind::Directory { .. });
                let ignored = ignore.matches(&path);
                if ignored && (!is_directory || ignore.ignores_all_below(&path)) {
                    hidden.insert(child);
                } else if is_directory {
                    open.push((child, path));
                }
            }
        }
        self.hidden = hidden;
    }

    pub(crate) fn folder(&self) -> Option<&FolderFiles> {
        if let Bytes::Folder(folder) = &self.bytes { Some(folder) } else { None }
    }

    pub(crate) fn each_digest(&self, mut look: impl FnMut(NodeId, Digest)) {
        self.digests().iter().for_each(|(id, digest)| look(*id, *digest));
    }

    fn digests(&self) -> MutexGuard<'_, HashMap<NodeId, Digest>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.tree.node(id)
    }

    /// What is in a directory, hidden files left out.
    pub(crate) fn children(&self, directory: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        self.tree.children(directory).filter(|(_, child)| !self.hidden.contains(child))
    }

    /// The file at a path inside the context; symbolic links are followed and never lead out of it.
    pub(crate) fn find(&self, path: &str) -> Option<NodeId> {
        let mut above = vec![NodeId::ROOT];
        let mut rest: Vec<Vec<u8>> = path.rsplit('/').map(|part| part.as_bytes().to_vec()).collect();
        let mut symlinks = 0;
        while let Some(part) = rest.pop() {
            let here = *above.last()?;
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    above.truncate((above.len() - 1).max(1));
                    continue;
                }
                _ => {}
            }
            let (_, child) = self.children(here).find(|(name, _)| *name == part)?;
            if let NodeKind::Symlink(target) = &self.node(child).kind {
                symlinks += 1;
                if symlinks > SYMLINKS_MAX {
                    return None;
                }
                if target.starts_with(b"/") {
                    above.truncate(1);
                }
                rest.extend(target.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec));
                continue;
            }
            above.push(child);
        }
        above.last().copied()
    }

    /// A file's bytes; nothing for what is no file.
    pub(crate) fn open(&self, id: NodeId) -> io::Result<Option<Contents>> {
        let NodeKind::File { size, data_offset, sparse } = &self.node(id).kind else { return Ok(None) };
        let (file, size, data_offset) = match &self.bytes {
            Bytes::Staged { file, .. } | Bytes::Shared(file) => (Arc::clone(file), *size, *data_offset),
            Bytes::Folder(folder) => (folder.open(id)?, *size, 0),
        };
        let runs = match sparse {
            None => vec![(0, size, data_offset)],
            Some(map) => {
                let mut stored = data_offset;
                let run = |segment: &archive::tar::SparseSegment| {
                    let at = stored;
                    stored += segment.length;
                    (segment.offset, segment.length, at)
                };
                map.segments.iter().map(run).collect()
            }
        };
        Ok(Some(Contents { file, size, position: 0, runs }))
    }

    /// A small text in the context.
    pub fn text(&self, path: &str) -> Option<String> {
        let contents = self.open(self.find(path)?).ok()??;
        let mut bytes = Vec::new();
        if contents.size > TEXT_BYTES_MAX {
            return None;
        }
        { contents }.read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The digest of a file's bytes; each file is hashed once.
    pub(crate) fn digest(&self, id: NodeId) -> io::Result<Option<Digest>> {
        if let Some(digest) = self.digests().get(&id) {
            return Ok(Some(*digest));
        }
        let digest = self.hash(id)?;
        self.digests().extend(digest.map(|digest| (id, digest)));
        Ok(digest)
    }

    fn hash(&self, id: NodeId) -> io::Result<Option<Digest>> {
        let Some(mut contents) = self.open(id)? else { return Ok(None) };
        let mut digester = oci::Digester::new();
        io::copy(&mut contents, &mut digester)?;
        Ok(Some(digester.finish()))
    }

    /// Hashes everything in a directory, or a file, that is not known yet: on several processors where it is much.
    pub(crate) fn hash_below(&self, top: NodeId) -> io::Result<()> {
        let (mut unknown, mut open) = (Vec::new(), vec![top]);
        {
            let known = self.digests();
            while let Some(id) = open.pop() {
                open.extend(self.children(id).map(|(_, child)| child));
                let is_file = matches!(self.node(id).kind, NodeKind::File { .. });
                unknown.extend(Some(id).filter(|id| is_file && !known.contains_key(id)));
            }
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        if unknown.len() < HASHED_MIN || processors < 2 {
            // One after the other, as they are asked for.
            return Ok(());
        }
        // Those of one directory together.
        unknown.sort_unstable();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut hashed = Vec::new();
            while let Some(batch) = unknown.chunks(HASHED_TOGETHER).nth(next.fetch_add(1, Ordering::Relaxed)) {
                for id in batch {
                    hashed.extend(self.hash(*id)?.map(|digest| (*id, digest)));
                }
            }
            self.digests().extend(hashed);
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..processors.min(HASHERS_MAX)).map(|_| scope.spawn(work)).collect();
            let own = work();
            threads.into_iter().map(|thread| thread.join().expect("hashing does not panic")).fold(own, io::Result::and)
        })
    }
}

/// Reads a file of the context, holes as zeros.
#[derive(Debug)]
pub(crate) struct Contents {
    file: Arc<File>,
    pub(crate) size: u64,
    position: u64,
    /// Where in the file, how long, where in the tar.
    runs: Vec<(u64, u64, u64)>,
}

impl Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let position = self.position;
        let next = self.runs.iter().find(|(offset, length, _)| offset + length > position).copied();
        let length = match next {
            Some((offset, length, stored)) if offset <= position => {
                let inside = position - offset;
                let wanted = wanted.min(usize::try_from(length - inside).unwrap_or(usize::MAX));
                match self.file.read_at(&mut buffer[..wanted], stored + inside)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    length => length,
                }
            }
            hole => {
                let end = hole.map_or(self.size, |(offset, _, _)| offset);
                let zeros = wanted.min(usize::try_from(end - position).unwrap_or(usize::MAX));
                buffer[..zeros].fill(0);
                zeros
            }
        };
        self.position += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use archive::tar::{EntryKind, Header, Metadata, Writer};

    use super::*;

    /// A context of `path=contents`, `path/` and `path->target`.
    pub(crate) fn context(dir: &Path, entries: &[&str]) -> Result<Context, ContextError> {
        let mut writer = Writer::new(Vec::new());
        let metadata = Metadata { mode: 0o644, uid: 1000, gid: 1000, ..Metadata::default() };
        for entry in entries {
            if let Some((path, target)) = entry.split_once("->") {
                let kind = EntryKind::Symlink { target: target.as_bytes().to_vec() };
                writer.start(&Header { path: path.as_bytes(), metadata: &metadata, kind: &kind }).unwrap();
            } else if let Some((path, contents)) = entry.split_once('=') {
                writer.file(path.as_bytes(), &metadata, contents.as_bytes()).unwrap();
            } else {
                let path = entry.trim_end_matches('/').as_bytes();
                let metadata = Metadata { mode: 0o755, ..metadata.clone() };
                writer.start(&Header { path, metadata: &metadata, kind: &EntryKind::Directory }).unwrap();
            }
        }
        Context::read(Box::new(io::Cursor::new(writer.finish().unwrap())), dir)
    }

    #[test]
    fn links_never_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let entries =
            ["etc/passwd=mine", "out->../../../../etc/passwd", "absolute->/etc/passwd", "loop->loop", "up->.."];
        let context = context(dir.path(), &entries).unwrap();
        for path in ["etc/passwd", "out", "absolute", "up/etc/passwd", "../etc/passwd"] {
            assert_eq!(context.text(path).as_deref(), Some("mine"), "{path}");
        }
        assert!(context.find("loop").is_none() && context.find("etc/none").is_none());
    }

    #[test]
    fn a_file_that_hides_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = context(dir.path(), &["a/.wh.b=x"]).unwrap_err();
        assert!(matches!(error, ContextError::Whiteout(name) if name == "b"));
    }

    #[test]
    fn many_files_are_hashed_on_several_processors() {
        let dir = tempfile::tempdir().unwrap();
        let entries: Vec<String> = (0..3 * HASHED_MIN).map(|number| format!("d/{number}={number}")).collect();
        let context = context(dir.path(), &entries.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        context.hash_below(NodeId::ROOT).unwrap();
        let processors = std::thread::available_parallelism().unwrap().get();
        let known = context.digests().clone();
        assert_eq!(known.len(), if processors > 1 { entries.len() } else { 0 });
        for number in 0..entries.len() {
            let id = context.find(&format!("d/{number}")).unwrap();
            let expected = Digest::of(number.to_string().as_bytes());
            assert!(known.get(&id).is_none_or(|digest| *digest == expected), "{number}");
            assert_eq!(context.digest(id).unwrap(), Some(expected));
        }
    }
}
