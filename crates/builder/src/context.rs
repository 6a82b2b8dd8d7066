//! A build's context: its tar as it came, beside the tree that it describes. Nothing is unpacked.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use archive::layer::{LayerTree, Node, NodeId, NodeKind};
use archive::tar::Reader;
use durable::StagedFile;

/// Linux follows at most so many symbolic links in one name.
const SYMLINKS_MAX: usize = 40;
/// A Dockerfile or a `.dockerignore` is not larger.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// Files that a build can copy from.
#[derive(Debug)]
pub struct Context {
    /// Removed with the context.
    _staged: StagedFile,
    tar: Arc<File>,
    tree: LayerTree,
    /// Files with several names.
    linked: HashSet<NodeId>,
    /// Files that are left out although they came.
    hidden: Vec<NodeId>,
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
        let mut context = Context { _staged: staged, tar, tree, linked: HashSet::new(), hidden: Vec::new() };
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

    /// Leaves a file out.
    pub(crate) fn hide(&mut self, path: &str) {
        self.hidden.extend(self.find(path));
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

    /// A file's bytes.
    pub(crate) fn open(&self, id: NodeId) -> Option<Contents> {
        match &self.node(id).kind {
            NodeKind::File { size, data_offset, sparse } => Some(Contents {
                file: Arc::clone(&self.tar),
                size: *size,
                position: 0,
                runs: match sparse {
                    None => vec![(0, *size, *data_offset)],
                    Some(map) => {
                        let mut stored = *data_offset;
                        let run = |segment: &archive::tar::SparseSegment| {
                            let at = stored;
                            stored += segment.length;
                            (segment.offset, segment.length, at)
                        };
                        map.segments.iter().map(run).collect()
                    }
                },
            }),
            _ => None,
        }
    }

    /// A small text in the context.
    pub fn text(&self, path: &str) -> Option<String> {
        let contents = self.open(self.find(path)?)?;
        let mut bytes = Vec::new();
        if contents.size > TEXT_BYTES_MAX {
            return None;
        }
        { contents }.read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Digests of files' bytes, each file hashed once.
    pub(crate) fn digest(
        &self,
        id: NodeId,
        known: &mut HashMap<NodeId, oci::Digest>,
    ) -> io::Result<Option<oci::Digest>> {
        if let Some(digest) = known.get(&id) {
            return Ok(Some(*digest));
        }
        let Some(mut contents) = self.open(id) else { return Ok(None) };
        let mut digester = oci::Digester::new();
        io::copy(&mut contents, &mut digester)?;
        let digest = digester.finish();
        known.insert(id, digest);
        Ok(Some(digest))
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
}
