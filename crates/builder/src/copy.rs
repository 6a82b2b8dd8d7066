//! COPY and ADD: which files they take, what that means to the cache, and the layer that they make.

use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use archive::layer::{NodeId, NodeKind};
use archive::tar::Metadata;
use dockerfile::ignore::Ignore;
use dockerfile::{Sources, Wildcard, clean_path};
use oci::{Digest, Digester};

use crate::context::Context;
use crate::error::BuildError;
use crate::output::{Output, Payload, parent};
use crate::owner::{ModeChange, Owner};
use crate::request::Dialect;
use crate::root::{Found, Root};
use crate::time::Clock;

/// Whether the owners of source files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// Root's, or as `--chown` says.
    Reset,
    /// As they are, unless `--chown` says something else.
    Kept,
    /// As they are in an archive, whatever `--chown` and `--chmod` say.
    Packed,
}

/// How a source is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A directory's contents go into the destination.
    Contents,
    /// The file itself, under its name.
    Itself,
}

/// One source that was found.
#[derive(Debug)]
struct Item {
    /// Which of the places that files come from.
    origin: usize,
    node: NodeId,
    /// Its name: the last part of its path, or with `--parents` what is kept of the path.
    name: String,
    shape: Shape,
    owners: Owners,
}

/// A file that a source means: its path, and the name under which it is copied.
#[derive(Debug)]
struct FoundName {
    full: String,
    name: String,
}

/// What COPY and ADD ask for, expanded.
#[derive(Debug)]
pub(crate) struct CopyRequest {
    pub(crate) instruction: &'static str,
    pub(crate) sources: Sources,
    pub(crate) exclude: Ignore,
    pub(crate) keep_parents: bool,
    pub(crate) dialect: Dialect,
}

/// The files that a COPY or ADD takes.
#[derive(Debug)]
pub(crate) struct FoundSources {
    request: CopyRequest,
    origins: Vec<Arc<Context>>,
    items: Vec<Item>,
    /// Items from elsewhere.
    remote: Vec<usize>,
    /// Patterns may match several files, so the destination is a directory.
    several: bool,
}

/// What of the files decides about the result.
#[derive(Debug)]
pub(crate) struct FileFacts {
    pub(crate) digest: Digest,
    /// Each file by its path, as far as they are few enough to be remembered.
    pub(crate) files: Vec<(String, Digest)>,
}

/// So many files are remembered one by one.
const REMEMBERED_FILES_MAX: usize = 2000;

/// What the files become.
#[derive(Debug)]
pub(crate) struct Placement<'a> {
    /// Absolute and clean, with a slash at its end where a directory was meant.
    pub(crate) destination: &'a str,
    pub(crate) owner: Option<Owner>,
    pub(crate) mode: Option<ModeChange>,
    pub(crate) clock: Clock,
}

impl FoundSources {
    pub(crate) fn new(request: CopyRequest) -> Self {
        FoundSources { request, origins: Vec::new(), items: Vec::new(), remote: Vec::new(), several: false }
    }

    /// Refuses a source that would be outside of the context, where it is not taken for one inside.
    pub(crate) fn check_inside(&self, path: &str) -> Result<(), BuildError> {
        if self.request.dialect == Dialect::BuildKit {
            return Ok(());
        }
        let outside = clean_path(path.trim_start_matches('/'));
        if outside == ".." || outside.starts_with("../") {
            let instruction = self.request.instruction;
            return Err(BuildError::OutsideContext { instruction, path: path.to_owned() });
        }
        Ok(())
    }

    /// Takes files of a context.
    pub(crate) fn add(&mut self, context: &Arc<Context>, path: &str) -> Result<(), BuildError> {
        let origin = self.origin_of(context);
        for name in self.names(origin, path)? {
            let item = self.item(origin, &name, Owners::Reset);
            self.items.push(item.ok_or_else(|| self.missing(&name.full))?);
        }
        Ok(())
    }

    /// Takes everything in a context.
    pub(crate) fn add_whole(&mut self, context: Arc<Context>) {
        let origin = self.origin_of(&context);
        let (shape, owners) = (Shape::Contents, Owners::Reset);
        self.remote.push(self.items.len());
        self.items.push(Item { origin, node: NodeId::ROOT, name: String::new(), shape, owners });
    }

    /// Takes a file that came from the web.
    pub(crate) fn add_download(&mut self, download: &crate::host::Download) {
        let Some(node) = download.context.find(&download.name) else { return };
        let origin = self.origin_of(&download.context);
        let (shape, owners) = (Shape::Itself, Owners::Reset);
        self.remote.push(self.items.len());
        self.items.push(Item { origin, node, name: download.name.clone(), shape, owners });
    }

    /// Ends the search, and takes archives apart where `unpacks` says so of a source from elsewhere or from here.
    pub(crate) fn settle(&mut self, dir: &Path, unpacks: impl Fn(bool) -> bool) -> Result<(), BuildError> {
        self.check_patterns()?;
        self.unpack(dir, unpacks)
    }

    fn origin_of(&mut self, context: &Arc<Context>) -> usize {
        let known = self.origins.iter().position(|known| Arc::ptr_eq(known, context));
        known.unwrap_or_else(|| {
            self.origins.push(Arc::clone(context));
            self.origins.len() - 1
        })
    }

    /// Looks for the sources in the files of a stage or image.
    pub(crate) fn in_root(request: CopyRequest, root: &Root, dir: &Path) -> Result<Self, BuildError> {
        let mut found = FoundSources::new(request);
        for path in &found.request.sources.paths.clone() {
            let whole = path.replace("/./", "/");
            let from = if Wildcard::is_pattern(&whole) {
                Wildcard::path(whole.trim_start_matches('/'))
                    .map_err(|_| BuildError::Pattern(whole.clone()))?
                    .fixed_directory()
            } else {
                whole
            };
            let Some(files) = export(root, &from, dir)? else {
                return Err(found.missing(path));
            };
            let origin = found.origin_of(&Arc::new(files));
            for found_name in found.names(origin, path)? {
                let item = match found.item(origin, &found_name, Owners::Kept) {
                    Some(item) => item,
                    // A link out of the folder that was looked through.
                    None => {
                        let target = export(root, &found_name.full, dir)?;
                        let target = target.ok_or_else(|| found.missing(&found_name.full))?;
                        let origin = found.origin_of(&Arc::new(target));
                        found.item(origin, &found_name, Owners::Kept).ok_or_else(|| found.missing(&found_name.full))?
                    }
                };
                found.items.push(item);
            }
        }
        found.check_patterns()?;
        Ok(found)
    }

    fn missing(&self, path: &str) -> BuildError {
        let path = path.trim_start_matches('/').to_owned();
        match self.request.dialect {
            Dialect::BuildKit => BuildError::ChecksumMissing(format!("/{path}")),
            Dialect::Classic => BuildError::SourceMissing { instruction: self.request.instruction, path },
        }
    }

    fn check_patterns(&mut self) -> Result<(), BuildError> {
        let (paths, files) = (&self.request.sources.paths, &self.request.sources.files);
        if self.items.is_empty() && files.is_empty() && self.request.dialect == Dialect::Classic {
            return Err(BuildError::NoSources(self.request.instruction));
        }
        self.several = paths.len() + files.len() > 1 || self.items.len() > 1;
        Ok(())
    }

    fn origin(&self, number: usize) -> &Context {
        &self.origins[number]
    }

    /// The files that a source means.
    fn names(&self, origin: usize, path: &str) -> Result<Vec<FoundName>, BuildError> {
        let (base, pattern) = match path.split_once("/./") {
            Some((base, pattern)) if self.request.keep_parents => (base, pattern),
            _ => ("", path),
        };
        let relative = |path: &str| clean_path(&format!("/{path}")).trim_start_matches('/').to_owned();
        let (base, pattern) = (relative(base), relative(pattern));
        let full = relative(&format!("{base}/{pattern}"));
        let name = |full: &str| {
            let kept = full.strip_prefix(&base).unwrap_or(full).trim_start_matches('/');
            let last = full.rsplit('/').next().unwrap_or(full);
            let name = if self.request.keep_parents { kept } else { last };
            FoundName { full: full.to_owned(), name: name.to_owned() }
        };
        if !Wildcard::is_pattern(&full) {
            return Ok(vec![name(&full.replace('\\', ""))]);
        }
        let wildcard = if self.request.keep_parents { Wildcard::deep(&full) } else { Wildcard::path(&full) };
        let wildcard = wildcard.map_err(|_| BuildError::Pattern(path.to_owned()))?;
        let mut matches = Vec::new();
        matching(self.origin(origin), NodeId::ROOT, "", &wildcard, &mut matches);
        Ok(matches.iter().map(|full| name(full)).collect())
    }

    /// A file that was found, links followed; none where they lead nowhere.
    fn item(&self, origin: usize, found: &FoundName, owners: Owners) -> Option<Item> {
        let context = self.origin(origin);
        let node = context.find(&found.full)?;
        let is_directory = matches!(context.node(node).kind, NodeKind::Directory { .. });
        let shape = if is_directory && !self.request.keep_parents { Shape::Contents } else { Shape::Itself };
        Some(Item { origin, node, name: found.name.clone(), shape, owners })
    }

    /// Takes archives apart; what only looks like one is copied as it is.
    fn unpack(&mut self, dir: &Path, unpacks: impl Fn(bool) -> bool) -> Result<(), BuildError> {
        for index in 0..self.items.len() {
            if !unpacks(self.remote.contains(&index)) {
                continue;
            }
            let item = &self.items[index];
            let open =
                || self.origin(item.origin).open(item.node).map_err(BuildError::io("cannot read the build context"));
            let Some(contents) = open()?.filter(|contents| contents.size > 0) else { continue };
            if !is_archive(Box::new(contents)) {
                continue;
            }
            let Some(contents) = open()? else { continue };
            let origin = self.origins.len();
            self.origins.push(Arc::new(Context::read(Box::new(contents), dir)?));
            let item = &mut self.items[index];
            *item = Item {
                origin,
                node: NodeId::ROOT,
                name: std::mem::take(&mut item.name),
                shape: Shape::Contents,
                owners: Owners::Packed,
            };
        }
        Ok(())
    }

    /// What of the files decides about the result: names, kinds, permissions, owners where they are kept, contents. Not times.
    pub(crate) fn facts(&self) -> Result<FileFacts, BuildError> {
        let (mut digester, mut files) = (Digester::new(), Vec::new());
        for item in &self.items {
            let context = self.origin(item.origin);
            context.hash_below(item.node).map_err(BuildError::io("cannot read the build context"))?;
            let mut facts = Facts { context, owners: item.owners, into: &mut digester, files: &mut files };
            facts.add(item.node, &item.name, &item.name).map_err(BuildError::io("cannot read the build context"))?;
        }
        for file in &self.request.sources.files {
            digester.update(format!("{:?}{:?}", file.name, file.content).as_bytes());
            files.push((file.name.clone(), Digest::of(file.content.as_bytes())));
        }
        if files.len() > REMEMBERED_FILES_MAX {
            files.clear();
        }
        Ok(FileFacts { digest: digester.finish(), files })
    }

    /// Plans the layer.
    pub(crate) fn place<'b>(&'b self, root: &'b Root, placement: &Placement<'_>) -> Result<Output<'b>, BuildError> {
        let is_directory = placement.destination.ends_with('/');
        let whole =
            root.resolve(placement.destination).map_err(BuildError::io("cannot look into the image's files"))?;
        let exists = root.look(&whole).map_err(BuildError::io("cannot look into the image's files"))?;
        let into = is_directory || matches!(exists, Found::Directory(_));
        if self.several && !into {
            return Err(BuildError::DestinationNotDirectory(self.request.instruction));
        }
        let mut copier = Copier { output: Output::new(root), placement, exclude: &self.request.exclude, number: 0 };
        for (number, item) in self.items.iter().enumerate() {
            copier.number = number;
            copier.item(self.origin(item.origin), item, &whole, into)?;
        }
        for file in &self.request.sources.files {
            copier.inline(&file.name, &file.content, &whole, into)?;
        }
        Ok(copier.output)
    }
}

/// Adds files to a digest.
struct Facts<'a> {
    context: &'a Context,
    owners: Owners,
    into: &'a mut Digester,
    files: &'a mut Vec<(String, Digest)>,
}

impl Facts<'_> {
    fn add(&mut self, id: NodeId, name: &str, path: &str) -> io::Result<()> {
        let node = self.context.node(id);
        let metadata = &node.metadata;
        let owner = (self.owners != Owners::Reset).then_some((metadata.uid, metadata.gid));
        let kind = match &node.kind {
            NodeKind::Directory { .. } => "directory".to_owned(),
            NodeKind::File { .. } => format!("{:?}", self.context.digest(id)?),
            other => format!("{other:?}"),
        };
        let is_directory = matches!(node.kind, NodeKind::Directory { .. });
        let facts = format!("{name:?} {:o} {owner:?} {:?} {kind}\n", metadata.mode, metadata.xattrs);
        self.into.write_all(facts.as_bytes())?;
        if !is_directory && self.files.len() <= REMEMBERED_FILES_MAX {
            self.files.push((path.to_owned(), Digest::of(facts.as_bytes())));
        }
        for (name, child) in self.context.children(id) {
            let name = String::from_utf8_lossy(name);
            let below = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            self.add(child, &name, &below)?;
        }
        self.into.write_all(b".\n")
    }
}

/// Puts files into an output.
struct Copier<'a, 'b> {
    output: Output<'b>,
    placement: &'a Placement<'a>,
    exclude: &'a Ignore,
    /// Which source is copied.
    number: usize,
}

impl<'b> Copier<'_, 'b> {
    fn made_directory(&self) -> Metadata {
        let owner = self.placement.owner.unwrap_or_default();
        let mtime = self.placement.clock.file_time();
        Metadata { mode: 0o755, uid: owner.uid, gid: owner.gid, mtime, xattrs: Vec::new() }
    }

    fn metadata(&self, source: &Metadata, owners: Owners, is_directory: bool) -> Metadata {
        let owner = match (self.placement.owner, owners) {
            (_, Owners::Packed) | (None, Owners::Kept) => Owner { uid: source.uid, gid: source.gid },
            (Some(owner), _) => owner,
            (None, Owners::Reset) => Owner::default(),
        };
        let change = self.placement.mode.as_ref().filter(|_| owners != Owners::Packed);
        let mode = change.map_or(source.mode, |change| change.apply(source.mode, is_directory));
        let mtime = self.placement.clock.at_most(source.mtime);
        Metadata { mode, uid: owner.uid, gid: owner.gid, mtime, xattrs: source.xattrs.clone() }
    }

    fn above(&mut self, path: &str) -> Result<(), BuildError> {
        let made = self.made_directory();
        self.output.directory(parent(path).unwrap_or("/"), &|_| made.clone())
    }

    fn item(&mut self, context: &'b Context, item: &Item, destination: &str, into: bool) -> Result<(), BuildError> {
        if into {
            let made = self.made_directory();
            self.output.directory(destination, &|_| made.clone())?;
        }
        match item.shape {
            Shape::Contents => {
                // The destination is nobody's copy: of its source it only gets the time, and of an archive nothing.
                let made = self.made_directory();
                self.output.directory(destination, &|_| made.clone())?;
                if item.owners != Owners::Packed {
                    let mtime = self.placement.clock.at_most(context.node(item.node).metadata.mtime);
                    self.output.set_time(destination, mtime);
                }
                self.below(context, item.node, destination, "", item.owners)
            }
            Shape::Itself => {
                let path = if into || item.name.contains('/') {
                    join(destination, &item.name)
                } else {
                    destination.to_owned()
                };
                self.above(&path)?;
                self.tree(context, item.node, &path, &item.name, item.owners)
            }
        }
    }

    /// A file or a directory of a source with all that is in it.
    fn tree(
        &mut self,
        context: &'b Context,
        id: NodeId,
        path: &str,
        name: &str,
        owners: Owners,
    ) -> Result<(), BuildError> {
        self.all(context, vec![Copied { id, path: path.to_owned(), name: name.to_owned() }], owners)
    }

    /// What is in a directory of a source.
    fn below(
        &mut self,
        context: &'b Context,
        id: NodeId,
        path: &str,
        name: &str,
        owners: Owners,
    ) -> Result<(), BuildError> {
        let directory = Copied { id, path: path.to_owned(), name: name.to_owned() };
        self.all(context, directory.children(context), owners)
    }

    /// Copies these, the last one first, each with all that is in it. A list and no recursion: a client's folder may be deeper than a
    /// thread's stack.
    fn all(&mut self, context: &'b Context, mut open: Vec<Copied>, owners: Owners) -> Result<(), BuildError> {
        while let Some(next) = open.pop() {
            if self.one(context, &next, owners)? {
                open.extend(next.children(context));
            }
        }
        Ok(())
    }

    /// Copies one file or directory; whether what is in it may be copied.
    fn one(&mut self, context: &'b Context, copied: &Copied, owners: Owners) -> Result<bool, BuildError> {
        let Copied { id, path, name } = copied;
        let ignored = !name.is_empty() && self.exclude.matches(name);
        let node = context.node(*id);
        let is_directory = matches!(node.kind, NodeKind::Directory { .. });
        if ignored && (!is_directory || self.exclude.ignores_all_below(name)) {
            return Ok(false);
        }
        let metadata = self.metadata(&node.metadata, owners, is_directory);
        if is_directory {
            if !ignored {
                self.output.merged_directory(path, metadata)?;
            }
            return Ok(true);
        }
        // The directory may have been left out until a file in it is not.
        self.above(path)?;
        let (metadata, payload) = (link_metadata(&node.kind, metadata), Payload::Node(context, *id, self.number));
        if owners == Owners::Packed {
            self.output.replace(path, metadata, payload);
        } else {
            self.output.file(path, metadata, payload)?;
        }
        Ok(false)
    }

    fn inline(&mut self, name: &str, text: &'b str, destination: &str, into: bool) -> Result<(), BuildError> {
        let path = if into { join(destination, name) } else { destination.to_owned() };
        self.above(&path)?;
        let source = Metadata { mode: 0o644, mtime: self.placement.clock.file_time(), ..Metadata::default() };
        let metadata = self.metadata(&source, Owners::Reset, false);
        self.output.file(&path, metadata, Payload::Inline(text))
    }
}

/// A file or directory on its way.
struct Copied {
    id: NodeId,
    path: String,
    /// Its path inside its source, which exclusions are about.
    name: String,
}

impl Copied {
    /// What is in it, the last one first.
    fn children(&self, context: &Context) -> Vec<Copied> {
        let copied = |(child, id): (&[u8], NodeId)| {
            let child = String::from_utf8_lossy(child);
            let name = if self.name.is_empty() { child.to_string() } else { format!("{}/{child}", self.name) };
            Copied { id, path: join(&self.path, &child), name }
        };
        let mut children: Vec<Copied> = context.children(self.id).map(copied).collect();
        children.reverse();
        children
    }
}

/// Nobody can change a link's permissions.
fn link_metadata(kind: &NodeKind, metadata: Metadata) -> Metadata {
    if matches!(kind, NodeKind::Symlink(_)) { Metadata { mode: 0o777, ..metadata } } else { metadata }
}

fn join(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}

/// Names below a directory that match, in their order; what is in a matching directory comes with it.
fn matching(context: &Context, directory: NodeId, above: &str, wildcard: &Wildcard, matches: &mut Vec<String>) {
    for (name, child) in context.children(directory) {
        let name = String::from_utf8_lossy(name);
        let path = if above.is_empty() { name.into_owned() } else { format!("{above}/{name}") };
        if wildcard.matches(&path) {
            matches.push(path);
        } else {
            matching(context, child, &path, wildcard, matches);
        }
    }
}

/// Whether the first header of a tar is there, behind whatever compression.
fn is_archive(contents: Box<dyn io::Read + Send>) -> bool {
    let Ok(tar) = archive::compression::decompress(contents) else { return false };
    matches!(archive::tar::Reader::new(tar).next_entry(), Ok(Some(_)))
}

/// One file or directory of a root as a context of its own, under the path by which it was asked for.
fn export(root: &Root, path: &str, dir: &Path) -> Result<Option<Context>, BuildError> {
    let wrong = BuildError::io("cannot read the files to copy");
    let clean = clean_path(&format!("/{path}"));
    let place = match root.resolve(&clean) {
        Ok(place) => place,
        Err(error) => return Err(wrong(error)),
    };
    match root.look(&place) {
        Ok(Found::Nothing) => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(wrong(error)),
    }
    let view = root.view().try_clone().map_err(BuildError::io("cannot read the files to copy"))?;
    let name = clean.trim_start_matches('/').as_bytes().to_vec();
    let place = place.trim_start_matches('/').as_bytes().to_vec();
    let tar = archive::pipe::produce("copy-from", move |output| {
        archive::export::subtree(view.as_fd(), &place, &name, &archive::ids::Ids::default(), output)
    });
    let mut tar = tar.map_err(wrong)?;
    Ok(Some(Context::of(&mut tar, dir)?))
}
