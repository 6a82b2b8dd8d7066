//! A layer as it is planned, then written as a tar: sorted by name, so that the same files give the same bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write as _};

use archive::layer::{NodeId, NodeKind};
use archive::tar::{EntryKind, Header, Metadata, Reader, Timestamp, Writer};
use oci::{DiffId, Digest, Digester};
use snapshots::{LayerWriter, Snapshotter};

use crate::ahead::{self, Ahead};
use crate::context::Context;
use crate::error::BuildError;
use crate::root::{Found, Root};

/// A layer that will be written on top of a root.
pub(crate) struct Output<'a> {
    root: &'a Root,
    entries: BTreeMap<String, Planned<'a>>,
    /// Directories that the root does not have: nothing in them needs to be looked for.
    fresh: HashSet<String>,
}

struct Planned<'a> {
    metadata: Metadata,
    payload: Payload<'a>,
}

impl Planned<'_> {
    /// Whether this is what a tar has, whose reader is at its contents.
    fn has(&self, kind: &EntryKind, contents: &mut dyn io::Read) -> io::Result<bool> {
        let expected = match &self.payload {
            Payload::Directory => return Ok(*kind == EntryKind::Directory),
            Payload::Inline(text) => Some(Digest::of(text.as_bytes())),
            Payload::Node(context, node, _) => match &context.node(*node).kind {
                NodeKind::File { .. } => context.digest(*node)?,
                _ => return Ok(entry_kind(context, *node) == *kind),
            },
        };
        if !matches!(kind, EntryKind::File { .. }) {
            return Ok(false);
        }
        let mut digester = Digester::new();
        io::copy(contents, &mut digester)?;
        Ok(Some(digester.finish()) == expected)
    }
}

/// What a planned file is.
pub(crate) enum Payload<'a> {
    Directory,
    /// A file, link or device of a context, and which source it came with: only within one do files stay one file with several names.
    Node(&'a Context, NodeId, usize),
    /// A file written in the Dockerfile.
    Inline(&'a str),
}

impl<'a> Output<'a> {
    pub(crate) fn new(root: &'a Root) -> Self {
        Output { root, entries: BTreeMap::new(), fresh: HashSet::new() }
    }

    /// A directory at an absolute clean path, and those above it. One that is there keeps what it is; a new one is as `new` says.
    pub(crate) fn directory(&mut self, path: &str, new: &dyn Fn(&str) -> Metadata) -> Result<(), BuildError> {
        let (mut missing, mut at) = (Vec::new(), Some(path));
        while let Some(path) = at {
            match self.entries.get(path).map(|planned| matches!(planned.payload, Payload::Directory)) {
                Some(true) => break,
                Some(false) => return Err(BuildError::NotADirectory(path.to_owned())),
                None => missing.push(path),
            }
            at = parent(path);
        }
        missing.into_iter().rev().try_for_each(|path| self.plan_directory(path, new))
    }

    /// A directory below one that is planned.
    fn plan_directory(&mut self, path: &str, new: &dyn Fn(&str) -> Metadata) -> Result<(), BuildError> {
        let inside_fresh = parent(path).is_some_and(|parent| self.fresh.contains(parent));
        let found = if inside_fresh { Found::Nothing } else { self.look(path)? };
        let metadata = match found {
            Found::Directory(existing) => existing,
            Found::Nothing => {
                self.fresh.insert(path.to_owned());
                new(path)
            }
            Found::Symlink(_) | Found::Other => return Err(BuildError::NotADirectory(path.to_owned())),
        };
        self.entries.insert(path.to_owned(), Planned { metadata, payload: Payload::Directory });
        Ok(())
    }

    /// A directory that becomes as the metadata says, whether it was there or not; the directory above must have been planned.
    pub(crate) fn merged_directory(&mut self, path: &str, metadata: Metadata) -> Result<(), BuildError> {
        self.directory(path, &|_| metadata.clone())?;
        if let Some(planned) = self.entries.get_mut(path) {
            planned.metadata = metadata;
        }
        Ok(())
    }

    /// Gives a planned directory another time.
    pub(crate) fn set_time(&mut self, path: &str, mtime: Timestamp) {
        if let Some(planned) = self.entries.get_mut(path) {
            planned.metadata.mtime = mtime;
        }
    }

    /// Anything but a directory, in whose place nothing is put; the directory above must have been planned.
    pub(crate) fn file(&mut self, path: &str, metadata: Metadata, payload: Payload<'a>) -> Result<(), BuildError> {
        let planned = self.entries.get(path).map(|planned| matches!(planned.payload, Payload::Directory));
        let inside_fresh = parent(path).is_some_and(|parent| self.fresh.contains(parent));
        let is_directory = match planned {
            Some(is_directory) => is_directory,
            None => !inside_fresh && matches!(self.look(path)?, Found::Directory(_)),
        };
        if is_directory {
            return Err(BuildError::IsADirectory(path.to_owned()));
        }
        self.replace(path, metadata, payload);
        Ok(())
    }

    /// Anything but a directory, in whatever's place: that is how archives are unpacked. The directory above must have been planned.
    pub(crate) fn replace(&mut self, path: &str, metadata: Metadata, payload: Payload<'a>) {
        if self.entries.get(path).is_some_and(|planned| matches!(planned.payload, Payload::Directory)) {
            let below = format!("{}/", path.trim_end_matches('/'));
            self.entries.retain(|name, _| !name.starts_with(&below));
            self.fresh.retain(|name| name != path && !name.starts_with(&below));
        }
        self.entries.insert(path.to_owned(), Planned { metadata, payload });
    }

    fn look(&self, path: &str) -> Result<Found, BuildError> {
        self.root.look(path).map_err(BuildError::io("cannot look into the image's files"))
    }

    /// Whether a layer's tar has the same in it, but for times. Of hard links nothing is known.
    pub(crate) fn is_like(&self, tar: Box<dyn io::Read + Send>) -> io::Result<bool> {
        let mut reader = Reader::new(tar);
        let is_new = |(path, planned): &(&String, &Planned<'_>)| {
            !matches!(planned.payload, Payload::Directory) || self.fresh.contains(*path)
        };
        let mut missing: HashSet<&str> = self.entries.iter().filter(is_new).map(|(path, _)| path.as_str()).collect();
        while let Some(entry) = reader.next_entry()? {
            let path = format!("/{}", String::from_utf8_lossy(&entry.path).trim_matches('/'));
            let Some(planned) = self.entries.get(&path) else { return Ok(false) };
            let (ours, theirs) = (&planned.metadata, &entry.metadata);
            let same = (ours.mode, ours.uid, ours.gid) == (theirs.mode, theirs.uid, theirs.gid);
            if !same || ours.xattrs != theirs.xattrs || !planned.has(&entry.kind, &mut reader)? {
                return Ok(false);
            }
            missing.remove(path.as_str());
        }
        Ok(missing.is_empty())
    }

    /// Writes the layer into the store.
    pub(crate) fn write(self, snapshotter: &dyn Snapshotter) -> Result<(DiffId, u64), BuildError> {
        let mut writer = Writer::new(snapshotter.stage()?);
        let written = self.write_entries(&mut writer);
        if let Err(error) = written {
            // A refusal is known better to the layer's writer.
            return Err(BuildError::Io { doing: "cannot write a layer", source: error });
        }
        let layer = writer.finish().map_err(BuildError::io("cannot write a layer"))?.finish(None)?;
        Ok((layer.diff_id, layer.tar_bytes))
    }

    fn write_entries(self, writer: &mut Writer<LayerWriter>) -> io::Result<()> {
        let contents = self.written().filter_map(|entry| entry.contents);
        let files: Vec<ahead::Source<'_>> = contents.filter(|source| ahead::is_small(*source)).collect();
        ahead::read(&files, |ahead| self.written().try_for_each(|entry| entry.write(writer, ahead)))
    }

    /// What is written, in its order.
    fn written(&self) -> impl Iterator<Item = Written<'_>> {
        let mut first_names: HashMap<(*const Context, NodeId, usize), &str> = HashMap::new();
        self.entries.iter().map(move |(path, planned)| {
            let path = path.trim_start_matches('/');
            let metadata = &planned.metadata;
            let entry = |kind, contents| Written { path, metadata, kind, contents, text: "" };
            match planned.payload {
                Payload::Directory => entry(EntryKind::Directory, None),
                Payload::Inline(text) => {
                    Written { text, ..entry(EntryKind::File { size: text.len() as u64, sparse: None }, None) }
                }
                Payload::Node(context, node, source) => {
                    let key = (std::ptr::from_ref(context), node, source);
                    match context.is_linked(node).then(|| *first_names.entry(key).or_insert(path)) {
                        Some(first) if first != path => {
                            entry(EntryKind::HardLink { target: first.as_bytes().to_vec() }, None)
                        }
                        _ => entry(entry_kind(context, node), Some((context, node))),
                    }
                }
            }
        })
    }
}

/// An entry of the tar.
struct Written<'a> {
    path: &'a str,
    metadata: &'a Metadata,
    kind: EntryKind,
    /// Where its bytes come from.
    contents: Option<ahead::Source<'a>>,
    /// Its bytes, where the Dockerfile has them.
    text: &'a str,
}

impl Written<'_> {
    fn write(&self, writer: &mut Writer<LayerWriter>, ahead: &mut Ahead<'_>) -> io::Result<()> {
        writer.start(&Header { path: self.path.as_bytes(), metadata: self.metadata, kind: &self.kind })?;
        match self.contents {
            None => writer.write_all(self.text.as_bytes()),
            Some(source) if ahead::is_small(source) => writer.write_all(ahead.next()?),
            Some((context, node)) => match context.open(node)? {
                Some(mut contents) => io::copy(&mut contents, writer).map(drop),
                None => Ok(()),
            },
        }
    }
}

fn entry_kind(context: &Context, node: NodeId) -> EntryKind {
    match &context.node(node).kind {
        NodeKind::Directory { .. } => EntryKind::Directory,
        NodeKind::File { size, .. } => EntryKind::File { size: *size, sparse: None },
        NodeKind::Symlink(target) => EntryKind::Symlink { target: target.to_vec() },
        NodeKind::CharDevice(device) => EntryKind::CharDevice(*device),
        NodeKind::BlockDevice(device) => EntryKind::BlockDevice(*device),
        NodeKind::Fifo => EntryKind::Fifo,
        NodeKind::Whiteout => unreachable!("contexts with whiteouts are refused"),
    }
}

/// The directory above an absolute clean path; the root has none.
pub(crate) fn parent(path: &str) -> Option<&str> {
    let at = path.rfind('/')?;
    match (at, path.len()) {
        (0, 1) => None,
        (0, _) => Some("/"),
        _ => Some(&path[..at]),
    }
}
