//! The tree that a layer's tar describes, in memory: what extracting it into an empty directory would leave.
//!
//! Nothing is touched on any disk, so links cannot lead anywhere: names are resolved inside the tree alone, as Docker resolves them
//! inside its chroot. Whiteouts become nodes of their own.

use std::collections::BTreeMap;

use crate::tar::{Device, Entry, EntryKind, Metadata, SparseMap};
use crate::{Name, Refusal};

/// Which node of a [`LayerTree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The root directory.
    pub const ROOT: NodeId = NodeId(0);

    /// The node's place among all nodes: below [`LayerTree::node_count`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The names in one directory, sorted by their bytes.
pub type Children = BTreeMap<Box<[u8]>, NodeId>;

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory {
        /// What is in it.
        children: Children,
        /// Whether it hides what lower layers have at this place.
        opacity: Opacity,
    },
    /// A regular file, whose bytes are in the tar.
    File {
        /// Its size, holes included.
        size: u64,
        /// Where its bytes begin in the tar.
        data_offset: u64,
        /// Where in the file they belong, when it is sparse.
        sparse: Option<Box<SparseMap>>,
    },
    /// A symbolic link.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// Hides what lower layers have under this name.
    Whiteout,
}

/// Whether a directory merges with lower layers' or hides them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opacity {
    /// Lower layers' entries show through.
    Merged,
    /// They do not.
    Opaque,
}

/// A file, directory, link, device or whiteout. Hard links are names for the same node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Permissions, owner, time, attributes.
    pub metadata: Metadata,
}

/// A layer's tree, built entry by entry.
#[derive(Debug, Clone)]
pub struct LayerTree {
    /// Nodes are never taken out: what was replaced is merely not reachable any more. They stand in pieces, so that growing copies none.
    nodes: Vec<Vec<Node>>,
    /// Names, links, attributes and sparse maps that came so far: all that is kept of an entry besides its node.
    kept_bytes: u64,
}

/// Linux follows at most so many symbolic links in one name.
const SYMLINKS_MAX: usize = 40;
/// What a layer's tree may be at most in depth, symbolic links resolved.
const DEPTH_MAX: usize = 512;
/// Memory for the tree, which is as large as the tar has entries and not as its blob: compressed a thousandfold, a small blob could ask for
/// any amount. It is enough for some 700,000 files.
const MEMORY_BYTES_MAX: u64 = 144 << 20;
/// A node, its places in a directory and in an index, and what the allocator adds to its name.
const NODE_BYTES: u64 = size_of::<Node>() as u64 + 96;
/// Nodes that stand together.
const PIECE_NODES: usize = 4096;

const WHITEOUT: &[u8] = b".wh.";
const AUFS_METADATA: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// How a name is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Directories that the tar omits are made: 0755, owned by root, as Docker does.
    Create,
    /// They are an error.
    Refuse,
}

impl Default for LayerTree {
    fn default() -> Self {
        Self::new()
    }
}

impl LayerTree {
    /// An empty root directory, 0755 and owned by root.
    pub fn new() -> Self {
        LayerTree { nodes: vec![vec![Node::directory(implied_metadata(), Opacity::Merged)]], kept_bytes: 0 }
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index() / PIECE_NODES][id.index() % PIECE_NODES]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index() / PIECE_NODES][id.index() % PIECE_NODES]
    }

    /// All nodes that ever were, also those that are not reachable any more.
    pub fn node_count(&self) -> usize {
        // All pieces but the last are full.
        (self.nodes.len() - 1) * PIECE_NODES + self.nodes.last().map_or(0, Vec::len)
    }

    /// About how many bytes of memory it takes.
    pub fn memory_bytes(&self) -> u64 {
        self.node_count() as u64 * NODE_BYTES + self.kept_bytes
    }

    /// The node of this number, as [`NodeId::index`] gave it.
    pub fn id(&self, index: usize) -> Option<NodeId> {
        u32::try_from(index).ok().filter(|_| index < self.node_count()).map(NodeId)
    }

    /// The names in a directory; of anything else, none.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        let children = match &self.node(id).kind {
            NodeKind::Directory { children, .. } => Some(children),
            _ => None,
        };
        children.into_iter().flatten().map(|(name, child)| (&**name, *child))
    }

    /// Adds the next entry of the layer's tar.
    pub fn apply(&mut self, entry: Entry) -> Result<(), Refusal> {
        self.keep(kept_bytes(&entry), &entry.path)?;
        if entry.path.is_empty() {
            return self.apply_root(entry);
        }
        let (parent_path, name) = split(&entry.path);
        if parent_path.split(|byte| *byte == b'/').chain([name]).any(is_aufs_metadata) {
            return Ok(());
        }
        let directory_whiteout = parent_path.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT));
        if directory_whiteout {
            return Err(Refusal::Whiteout { name: Name::new(&entry.path) });
        }
        let parent = self.resolve(parent_path, Missing::Create, &entry.path)?;
        if name == OPAQUE {
            self.make_opaque(parent);
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.apply_whiteout(parent, hidden, &entry.path);
        }
        let name: Box<[u8]> = name.into();
        self.apply_file(parent, name, entry)
    }

    fn apply_root(&mut self, entry: Entry) -> Result<(), Refusal> {
        if entry.kind != EntryKind::Directory {
            return Err(Refusal::RootNotDirectory);
        }
        self.node_mut(NodeId::ROOT).metadata = entry.metadata;
        Ok(())
    }

    /// Hides a name of the lower layers. What this layer itself has under the name stays, whichever came first: whiteouts concern
    /// lower layers alone. A directory of both becomes opaque.
    fn apply_whiteout(&mut self, parent: NodeId, hidden: &[u8], path: &[u8]) -> Result<(), Refusal> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Refusal::Whiteout { name: Name::new(path) });
        }
        match self.child(parent, hidden) {
            Some(existing) => self.make_opaque(existing),
            None => {
                let whiteout = self.add(Node { kind: NodeKind::Whiteout, metadata: Metadata::default() }, path)?;
                self.link(parent, hidden.into(), whiteout);
            }
        }
        Ok(())
    }

    fn apply_file(&mut self, parent: NodeId, name: Box<[u8]>, entry: Entry) -> Result<(), Refusal> {
        let existing = self.child(parent, &name);
        let kind = match entry.kind {
            EntryKind::HardLink { target } => {
                let target = self.link_target(&target, &entry.path)?;
                self.link(parent, name, target);
                return Ok(());
            }
            EntryKind::Directory => return self.apply_directory(parent, name, existing, entry.metadata, &entry.path),
            EntryKind::File { size, sparse } => {
                NodeKind::File { size, data_offset: entry.data_offset, sparse: sparse.map(Box::new) }
            }
            EntryKind::Symlink { target } => NodeKind::Symlink(target.into()),
            // This is how overlayfs writes a whiteout, and how Docker would have stored this one.
            EntryKind::CharDevice(Device { major: 0, minor: 0 }) => NodeKind::Whiteout,
            EntryKind::CharDevice(device) => NodeKind::CharDevice(device),
            EntryKind::BlockDevice(device) => NodeKind::BlockDevice(device),
            EntryKind::Fifo => NodeKind::Fifo,
        };
        let node = self.add(Node { kind, metadata: entry.metadata }, &entry.path)?;
        self.link(parent, name, node);
        Ok(())
    }

    fn apply_directory(
        &mut self,
        parent: NodeId,
        name: Box<[u8]>,
        existing: Option<NodeId>,
        metadata: Metadata,
        path: &[u8],
    ) -> Result<(), Refusal> {
        let mut opacity = Opacity::Merged;
        if let Some(existing) = existing.map(|id| self.node_mut(id)) {
            match existing.kind {
                NodeKind::Directory { .. } => {
                    existing.metadata = metadata;
                    return Ok(());
                }
                // This layer hides the name and then has a directory there: nothing below may show through.
                NodeKind::Whiteout => opacity = Opacity::Opaque,
                _ => {}
            }
        }
        let node = self.add(Node::directory(metadata, opacity), path)?;
        self.link(parent, name, node);
        Ok(())
    }

    /// The file that a hard link names. Its last component is not followed: a link to a symbolic link is that link.
    fn link_target(&mut self, target: &[u8], path: &[u8]) -> Result<NodeId, Refusal> {
        let no_target = || Refusal::LinkTarget { name: Name::new(path), target: Name::new(target) };
        if target.is_empty() {
            return Err(no_target());
        }
        let (parent, name) = split(target);
        let parent = self.resolve(parent, Missing::Refuse, path).map_err(|_| no_target())?;
        let found = self.child(parent, name).ok_or_else(no_target)?;
        match self.node(found).kind {
            NodeKind::Directory { .. } | NodeKind::Whiteout => Err(no_target()),
            _ => Ok(found),
        }
    }

    /// Finds the directory at `path`, following symbolic links inside the tree, where `..` stops at the root.
    fn resolve(&mut self, path: &[u8], missing: Missing, entry: &[u8]) -> Result<NodeId, Refusal> {
        let not_directory = || Refusal::ParentNotDirectory { name: Name::new(entry) };
        let mut above = vec![NodeId::ROOT];
        let mut rest: Vec<(Box<[u8]>, Missing)> = components(path, missing);
        let mut symlinks = 0;
        while let Some((component, missing)) = rest.pop() {
            let here = above[above.len() - 1];
            match &*component {
                b"" | b"." => continue,
                b".." => {
                    above.truncate((above.len() - 1).max(1));
                    continue;
                }
                _ => {}
            }
            let next = match self.child(here, &component) {
                Some(found) => found,
                None if missing == Missing::Create => self.imply(here, component, Opacity::Merged, entry)?,
                None => return Err(not_directory()),
            };
            match &self.node(next).kind {
                NodeKind::Directory { .. } => above.push(next),
                NodeKind::Whiteout if missing == Missing::Create => {
                    let name = self.name_of(here, next).ok_or_else(not_directory)?;
                    let made = self.imply(here, name, Opacity::Opaque, entry)?;
                    above.push(made);
                }
                NodeKind::Symlink(target) => {
                    symlinks += 1;
                    if symlinks > SYMLINKS_MAX {
                        return Err(not_directory());
                    }
                    if target.starts_with(b"/") {
                        above.truncate(1);
                    }
                    // A dangling link is an error: nobody would make directories through one.
                    rest.extend(components(target, Missing::Refuse));
                }
                _ => return Err(not_directory()),
            }
            if above.len() > DEPTH_MAX {
                return Err(Refusal::Limit {
                    name: Name::new(entry),
                    what: "directories above one another",
                    limit: DEPTH_MAX as u64,
                });
            }
        }
        Ok(above[above.len() - 1])
    }

    fn keep(&mut self, bytes: u64, path: &[u8]) -> Result<(), Refusal> {
        self.kept_bytes += bytes;
        if self.memory_bytes() <= MEMORY_BYTES_MAX {
            return Ok(());
        }
        let what = "bytes of memory for its files, names and attributes";
        Err(Refusal::Limit { name: Name::new(path), what, limit: MEMORY_BYTES_MAX })
    }

    fn imply(&mut self, parent: NodeId, name: Box<[u8]>, opacity: Opacity, path: &[u8]) -> Result<NodeId, Refusal> {
        self.keep(name.len() as u64, path)?;
        let made = self.add(Node::directory(implied_metadata(), opacity), path)?;
        self.link(parent, name, made);
        Ok(made)
    }

    fn add(&mut self, node: Node, path: &[u8]) -> Result<NodeId, Refusal> {
        self.keep(0, path)?;
        let id = NodeId(u32::try_from(self.node_count()).expect("memory ends before"));
        match self.nodes.last_mut().filter(|piece| piece.len() < PIECE_NODES) {
            Some(piece) => piece.push(node),
            None => self.nodes.push(piece_with(node)),
        }
        Ok(id)
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(parent).kind {
            NodeKind::Directory { children, .. } => children.get(name).copied(),
            _ => None,
        }
    }

    fn name_of(&self, parent: NodeId, child: NodeId) -> Option<Box<[u8]>> {
        self.children(parent).find(|(_, id)| *id == child).map(|(name, _)| name.into())
    }

    fn link(&mut self, parent: NodeId, name: Box<[u8]>, child: NodeId) {
        if let NodeKind::Directory { children, .. } = &mut self.node_mut(parent).kind {
            children.insert(name, child);
        }
    }

    fn make_opaque(&mut self, id: NodeId) {
        if let NodeKind::Directory { opacity, .. } = &mut self.node_mut(id).kind {
            *opacity = Opacity::Opaque;
        }
    }
}

impl Node {
    fn directory(metadata: Metadata, opacity: Opacity) -> Self {
        Node { kind: NodeKind::Directory { children: Children::new(), opacity }, metadata }
    }
}

/// A piece that is not copied before it is full.
fn piece_with(first: Node) -> Vec<Node> {
    let mut piece = Vec::with_capacity(PIECE_NODES);
    piece.push(first);
    piece
}

fn implied_metadata() -> Metadata {
    Metadata { mode: 0o755, ..Metadata::default() }
}

/// What the tree keeps of an entry besides its node.
fn kept_bytes(entry: &Entry) -> u64 {
    let own = match &entry.kind {
        EntryKind::Symlink { target } => target.len(),
        EntryKind::File { sparse: Some(map), .. } => size_of_val(map.segments.as_slice()),
        _ => 0,
    };
    let xattrs = entry.metadata.xattrs.iter().map(|xattr| size_of_val(xattr) + xattr.name.len() + xattr.value.len());
    (split(&entry.path).1.len() + own + xattrs.sum::<usize>()) as u64
}

/// The components of `path`, the first one last.
fn components(path: &[u8], missing: Missing) -> Vec<(Box<[u8]>, Missing)> {
    path.rsplit(|byte| *byte == b'/').map(|part| (part.into(), missing)).collect()
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// What AUFS kept for itself in a layer, and no other driver ever read: everything of this prefix but the opaque mark.
fn is_aufs_metadata(component: &[u8]) -> bool {
    component.starts_with(AUFS_METADATA) && component != OPAQUE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Header, Reader, Writer};
    use proptest::prelude::*;

    /// Entries as a few words each: `d a/b`, `f a/b`, `l a -> b`, `h a -> b`.
    fn tree(entries: &[&str]) -> Result<LayerTree, Refusal> {
        let mut tree = LayerTree::new();
        for (number, text) in entries.iter().enumerate() {
            tree.apply(entry(text, number as u64))?;
        }
        Ok(tree)
    }

    fn entry(text: &str, number: u64) -> Entry {
        let (kind, rest) = text.split_once(' ').unwrap();
        let (path, target) = rest.split_once(" -> ").unwrap_or((rest, ""));
        let target = target.as_bytes().to_vec();
        let kind = match kind {
            "d" => EntryKind::Directory,
            "f" => EntryKind::File { size: number, sparse: None },
            "l" => EntryKind::Symlink { target },
            "h" => EntryKind::HardLink { target },
            "w" => EntryKind::CharDevice(Device { major: 0, minor: 0 }),
            other => panic!("{other}"),
        };
        let path = path.trim_start_matches('/').as_bytes().to_vec();
        Entry { path, metadata: Metadata::default(), kind, header_offset: 0, data_offset: number * 512, data_size: 0 }
    }

    /// The tree as a line for each name.
    fn listing(tree: &LayerTree) -> Vec<String> {
        let mut lines = Vec::new();
        let mut pending = vec![(NodeId::ROOT, String::new())];
        while let Some((directory, path)) = pending.pop() {
            for (name, id) in tree.children(directory) {
                let path = format!("{path}/{}", name.escape_ascii());
                let line = match &tree.node(id).kind {
                    NodeKind::Directory { opacity: Opacity::Merged, .. } => format!("d {path}"),
                    NodeKind::Directory { opacity: Opacity::Opaque, .. } => format!("o {path}"),
                    NodeKind::File { size, .. } => format!("f {path} {size}"),
                    NodeKind::Symlink(target) => format!("l {path} -> {}", target.escape_ascii()),
                    NodeKind::Whiteout => format!("w {path}"),
                    other => format!("{other:?} {path}"),
                };
                lines.push(line);
                pending.push((id, path));
            }
        }
        lines.sort();
        lines
    }

    fn check(entries: &[&str], expected: &[&str]) {
        assert_eq!(listing(&tree(entries).unwrap()), expected, "{entries:?}");
    }

    #[test]
    fn later_entries_win() {
        check(&["f a", "f a"], &["f /a 1"]);
        check(&["d a", "f a/b", "f a"], &["f /a 2"]);
        check(&["d a", "f a/b", "d a"], &["d /a", "f /a/b 1"]);
        check(&["d a", "f a/b", "l a -> c"], &["l /a -> c"]);
        check(&["l a -> c", "d a", "f a/b"], &["d /a", "f /a/b 2"]);
    }

    #[test]
    fn names_go_through_links_of_the_layer() {
        check(
            &["d usr/lib", "l lib -> usr/lib", "f lib/x"],
            &["d /usr", "d /usr/lib", "f /usr/lib/x 2", "l /lib -> usr/lib"],
        );
        check(&["d a", "l a/up -> ../..", "f a/up/x"], &["d /a", "f /x 2", "l /a/up -> ../.."]);
        check(&["d b", "l a -> /b/../b/.", "f a/x"], &["d /b", "f /b/x 2", "l /a -> /b/../b/."]);
        check(&["d b", "l a -> b", "d a/new/dir"], &["d /b", "d /b/new", "d /b/new/dir", "l /a -> b"]);
    }

    #[test]
    fn hard_links_are_the_same_node() {
        let tree = tree(&["f a", "h b -> a", "h c -> b", "f a"]).unwrap();
        let ids: Vec<_> = tree.children(NodeId::ROOT).map(|(_, id)| id).collect();
        assert!(ids[0] != ids[1] && ids[1] == ids[2]);
        check(&["l s -> a", "h t -> s"], &["l /s -> a", "l /t -> a"]);
    }

    #[test]
    fn whiteouts_concern_lower_layers_alone() {
        check(&["f .wh.a"], &["w /a"]);
        check(&["w a"], &["w /a"]);
        check(&["f a", "f .wh.a"], &["f /a 0"]);
        check(&["f .wh.a", "f a"], &["f /a 1"]);
        check(&["d a", "f .wh.a"], &["o /a"]);
        check(&["f .wh.a", "d a"], &["o /a"]);
        check(&["f .wh.a", "f a/b"], &["f /a/b 1", "o /a"]);
        check(&["f a/.wh..wh..opq", "d a"], &["o /a"]);
        check(&["d a", "f a/.wh..wh..opq", "f a/b"], &["f /a/b 2", "o /a"]);
        check(&["f .wh..wh.aufs", "d .wh..wh.orph", "f .wh..wh.plnk/x"], &[]);
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for entries in [
            &["f a", "f a/b"][..],
            &["l a -> nowhere", "f a/b"],
            &["l a -> b", "l b -> a", "f a/c"],
            &["f x", "l a -> x", "f a/c"],
            &["h a -> b"],
            &["d b", "h a -> b"],
            &["f .wh.b", "h a -> b"],
            &["f .wh."],
            &["f .wh.."],
            &["f .wh..."],
            &["f .wh.a/b"],
        ] {
            assert!(tree(entries).is_err(), "{entries:?}");
        }
    }

    #[test]
    fn memory_has_a_limit() {
        let mut tree = LayerTree::new();
        let refused = (0..1000).find_map(|number| {
            let mut entry = entry("f a", number);
            let value = vec![b'v'; 250_000];
            entry.metadata.xattrs = vec![crate::tar::Xattr { name: b"user.x".to_vec(), value }];
            tree.apply(entry).err()
        });
        assert!(matches!(refused, Some(Refusal::Limit { .. })), "{refused:?}");
    }

    #[test]
    fn depth_through_links_has_a_limit() {
        let deep = "d/".repeat(500);
        let mut tree = tree(&[&format!("d {deep}"), &format!("l s -> {deep}")]).unwrap();
        let refused = tree.apply(entry(&format!("d s/{}", "d/".repeat(100)), 0));
        assert!(matches!(refused, Err(Refusal::Limit { .. })), "{refused:?}");
    }

    /// Names from a small alphabet, so that they meet.
    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c", ".wh.a", ".wh.b", ".wh..wh..opq"]), 1..4)
            .prop_map(|parts| parts.join("/"))
    }

    fn target() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec!["a", "b", "c", "..", ".", ""]);
        prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
    }

    fn any_entry() -> impl Strategy<Value = String> {
        prop_oneof![
            name().prop_map(|name| format!("d {name}")),
            name().prop_map(|name| format!("f {name}")),
            (name(), target()).prop_map(|(name, target)| format!("l {name} -> {target}")),
            (name(), name()).prop_map(|(name, target)| format!("h {name} -> {target}")),
            name().prop_map(|name| format!("w {name}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Whatever comes, the result is a tree: every directory has one parent, nothing is called `.` or `..`.
        #[test]
        fn a_tree_stays_a_tree(entries in prop::collection::vec(any_entry(), 0..40)) {
            let mut tree = LayerTree::new();
            for (number, text) in entries.iter().enumerate() {
                let _ = tree.apply(entry(text, number as u64));
            }
            let mut parents = vec![0; tree.node_count()];
            let mut pending = vec![NodeId::ROOT];
            while let Some(directory) = pending.pop() {
                for (name, id) in tree.children(directory) {
                    prop_assert!(!name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/'));
                    if let NodeKind::Directory { .. } = tree.node(id).kind {
                        parents[id.index()] += 1;
                        prop_assert_eq!(parents[id.index()], 1);
                        pending.push(id);
                    }
                }
            }
            prop_assert_eq!(parents[0], 0);
        }

        /// Bytes that are no tar, or a broken one, are refused or read, but never a panic or an endless loop.
        #[test]
        fn broken_tars_are_survived(
            names in prop::collection::vec(name(), 1..5),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut writer = Writer::new(Vec::new());
            for name in &names {
                let long = format!("{name}/{}", "x".repeat(120));
                let kind = EntryKind::File { size: 600, sparse: None };
                writer.start(&Header { path: long.as_bytes(), metadata: &Metadata::default(), kind: &kind }).unwrap();
                std::io::Write::write_all(&mut writer, &[b'5'; 600]).unwrap();
            }
            let mut tar = writer.finish().unwrap();
            for (at, byte) in damage {
                let at = at.index(tar.len());
                tar[at] = byte;
            }
            tar.truncate(cut.index(tar.len() + 1));
            let mut reader = Reader::new(tar.as_slice());
            let mut tree = LayerTree::new();
            while let Ok(Some(entry)) = reader.next_entry() {
                let _ = tree.apply(entry);
            }
        }
    }
}
