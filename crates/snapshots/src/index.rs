//! From a layer's tree to its EROFS index.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use archive::layer::{LayerTree, Node, NodeId, NodeKind, Opacity};
use archive::tar::Reader;
use oci::{DiffId, Digest};
use sha2::{Digest as _, Sha256};

use crate::Error;

const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

/// Writes the index of a layer whose tar is `tar`.
pub(crate) fn write<W: Write + Seek>(
    tree: &LayerTree,
    diff_id: &DiffId,
    tar: &File,
    tar_bytes: u64,
    output: W,
) -> Result<erofs::Summary, Error> {
    let tree = IndexTree::new(tree);
    let volume = volume(diff_id, tar_bytes);
    let mut read_tar = |offset: u64, buffer: &mut [u8]| -> io::Result<()> { tar.read_exact_at(buffer, offset) };
    erofs::write(&tree, &volume, &mut read_tar, output).map_err(Error::Index)
}

/// The UUID comes from the digest, so that the same layer gives the same index everywhere.
fn volume(diff_id: &DiffId, tar_bytes: u64) -> erofs::Volume {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&diff_id.digest().as_bytes()[..16]);
    // Version 8 (of the maker's own choice) and the RFC's variant.
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let mut device_tag = [0; 64];
    device_tag.copy_from_slice(diff_id.hex().as_bytes());
    erofs::Volume { uuid, device_tag, device_bytes: tar_bytes }
}

/// A layer's tree as the EROFS writer wants to see it.
struct IndexTree<'a> {
    tree: &'a LayerTree,
    /// The segments of sparse files, which are few, sorted by node: with their places in the tar.
    sparse: Vec<(usize, Vec<erofs::Segment>)>,
}

impl<'a> IndexTree<'a> {
    fn new(tree: &'a LayerTree) -> Self {
        let ids = (0..tree.node_count()).filter_map(|index| tree.id(index));
        let sparse = ids.filter_map(|id| Some((id.index(), segments(tree.node(id))?))).collect();
        IndexTree { tree, sparse }
    }

    fn node(&self, number: usize) -> &'a Node {
        self.tree.node(self.id(number))
    }

    fn id(&self, number: usize) -> NodeId {
        self.tree.id(number).unwrap_or(NodeId::ROOT)
    }

    fn contents(&self, number: usize, data_offset: u64) -> erofs::Contents<'_> {
        match self.sparse.binary_search_by_key(&number, |(index, _)| *index) {
            Ok(found) => erofs::Contents::Sparse(&self.sparse[found].1),
            Err(_) => erofs::Contents::Contiguous(data_offset),
        }
    }
}

fn segments(node: &Node) -> Option<Vec<erofs::Segment>> {
    let NodeKind::File { data_offset, sparse: Some(map), .. } = &node.kind else { return None };
    let mut at = *data_offset;
    let segments = map.segments.iter().map(|segment| {
        let data_offset = at;
        at += segment.length;
        erofs::Segment { offset: segment.offset, length: segment.length, data_offset }
    });
    Some(segments.collect())
}

impl erofs::Tree for IndexTree<'_> {
    fn inode_count(&self) -> usize {
        self.tree.node_count()
    }

    fn inode(&self, number: usize) -> erofs::Inode<'_> {
        let node = self.node(number);
        let metadata = &node.metadata;
        let mut xattrs: Vec<(&[u8], &[u8])> =
            metadata.xattrs.iter().map(|xattr| (xattr.name.as_slice(), xattr.value.as_slice())).collect();
        let kind = match &node.kind {
            NodeKind::Directory { opacity, .. } => {
                if *opacity == Opacity::Opaque {
                    xattrs.push(OPAQUE);
                }
                erofs::Kind::Directory
            }
            NodeKind::File { size, data_offset, .. } => {
                erofs::Kind::File { size: *size, contents: self.contents(number, *data_offset) }
            }
            NodeKind::Symlink(target) => erofs::Kind::Symlink(target),
            NodeKind::CharDevice(device) => erofs::Kind::CharDevice { major: device.major, minor: device.minor },
            NodeKind::BlockDevice(device) => erofs::Kind::BlockDevice { major: device.major, minor: device.minor },
            NodeKind::Fifo => erofs::Kind::Fifo,
            NodeKind::Whiteout => erofs::Kind::CharDevice { major: 0, minor: 0 },
        };
        // Linux gives every symbolic link all permissions, whatever the tar says.
        let permissions = if matches!(node.kind, NodeKind::Symlink(_)) { 0o777 } else { metadata.mode as u16 };
        erofs::Inode {
            permissions,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime_seconds: metadata.mtime.seconds,
            mtime_nanoseconds: metadata.mtime.nanoseconds,
            xattrs,
            kind,
        }
    }

    fn children(&self, number: usize) -> Box<dyn Iterator<Item = (&[u8], usize)> + '_> {
        Box::new(self.tree.children(self.id(number)).map(|(name, id)| (name, id.index())))
    }
}

/// Reads the tree of a stored tar from its beginning.
pub(crate) fn read_tree(tar: &File) -> io::Result<LayerTree> {
    let mut tree = LayerTree::new();
    let mut reader = Reader::new(TarFile { file: tar, at: 0 });
    while let Some(entry) = reader.next_entry()? {
        tree.apply(entry)?;
    }
    Ok(tree)
}

/// Hashes a stored tar again.
pub(crate) fn verify_tar(layer: &DiffId, tar: &File, path: &Path) -> Result<(), Error> {
    hash(&mut TarFile { file: tar, at: 0 }).map_err(Error::io("read", path)).and_then(|actual| match actual == *layer {
        true => Ok(()),
        false => Err(Error::Corrupt { layer: *layer, actual }),
    })
}

/// The digest of everything that comes.
pub(crate) fn hash(source: &mut dyn Read) -> io::Result<DiffId> {
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(DiffId(Digest::from_bytes(sha256.finalize().into()))),
            Ok(length) => sha256.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether two files hold the same bytes.
pub(crate) fn same_bytes(one: &File, other: &File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let digest = |file| hash(&mut TarFile { file, at: 0 });
    Ok(digest(one)? == digest(other)?)
}

/// Reads a file from its beginning without moving the place that others read from.
struct TarFile<'a> {
    file: &'a File,
    at: u64,
}

impl Read for TarFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}
