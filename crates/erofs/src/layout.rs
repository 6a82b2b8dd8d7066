//! Where everything stands in the image, decided before the first byte is written.

use crate::format::{CHUNK_BITS_MAX, CHUNK_INDEX_BYTES, DataLayout, INODE_BYTES, META_OFFSET, NID_BYTES, file_type};
use crate::xattr::{Body, Shared};
use crate::{BLOCK_BYTES, Contents, Error, Inode, Kind, Segment, Tree, directory, sparse};

/// Blocks are numbered with 32 bits, and the last number means a hole.
pub(crate) const BLOCKS_MAX: u64 = u32::MAX as u64 - 1;
/// Chunk indexes of sparse files, all together: a tar must not be able to make a small file into a large index without end.
const SPARSE_INDEX_BYTES_MAX: u64 = 256 << 20;

/// The layout of one image.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The inodes in the order in which they stand.
    pub(crate) order: Vec<u32>,
    /// By the inode's number in the tree.
    pub(crate) places: Vec<Place>,
    pub(crate) shared: Shared,
    /// Where whole blocks of directories and links begin.
    pub(crate) blocks_at: u64,
    pub(crate) xattrs_at: u64,
    /// Where pieces of sparse files begin.
    pub(crate) copies_at: u64,
    pub(crate) end: u64,
}

/// Where an inode stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    /// Its number in the image; 0 for what is in no directory.
    pub(crate) nid: u32,
    /// The directory it is in; of files with several names any of them.
    pub(crate) parent: u32,
    /// How many names it has, in the way of Unix.
    pub(crate) links: u32,
    /// The size of a directory or link, which decides its shape.
    pub(crate) size: u32,
    pub(crate) shape: Shape,
    /// The first of its whole blocks, counted from where such blocks begin.
    pub(crate) block: u32,
}

/// How an inode's contents stand in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Shape {
    /// In whole blocks, or there are none.
    #[default]
    Plain,
    /// In whole blocks, and the rest behind the inode.
    Inline,
    /// A chunk index behind the inode.
    Chunked,
}

impl Shape {
    pub(crate) fn data_layout(self) -> DataLayout {
        match self {
            Shape::Plain => DataLayout::Plain,
            Shape::Inline => DataLayout::Inline,
            Shape::Chunked => DataLayout::Chunked,
        }
    }
}

/// Lays the tree out.
pub(crate) fn lay_out(tree: &dyn Tree) -> Result<Layout, Error> {
    let mut walk = Walk::new(tree)?;
    walk.run()?;
    let Walk { order, places, mut shared, .. } = walk;
    shared.lay_out();
    let mut placement = Placement { next: META_OFFSET, blocks: 0, copies: 0, sparse_index: 0 };
    let mut layout = Layout { order, places, shared, blocks_at: 0, xattrs_at: 0, copies_at: 0, end: 0 };
    for index in 0..layout.order.len() {
        let number = layout.order[index] as usize;
        let inode = tree.inode(number);
        let body = layout.shared.body(&inode, number)?;
        placement.place(&inode, &body, number, &mut layout.places[number])?;
    }
    layout.blocks_at = placement.next.next_multiple_of(BLOCK_BYTES);
    layout.xattrs_at = layout.blocks_at + placement.blocks * BLOCK_BYTES;
    layout.copies_at = (layout.xattrs_at + layout.shared.area().len() as u64).next_multiple_of(BLOCK_BYTES);
    layout.end = layout.copies_at + placement.copies;
    if layout.end / BLOCK_BYTES > BLOCKS_MAX {
        return Err(Error::TooLarge { what: "blocks", limit: BLOCKS_MAX });
    }
    Ok(layout)
}

/// Goes through the tree once: order, parents, link counts, sizes of directories.
struct Walk<'a> {
    tree: &'a dyn Tree,
    order: Vec<u32>,
    places: Vec<Place>,
    shared: Shared,
    directories: Vec<u32>,
}

impl<'a> Walk<'a> {
    fn new(tree: &'a dyn Tree) -> Result<Self, Error> {
        let count = tree.inode_count();
        if count == 0 || u32::try_from(count).is_err() {
            return Err(Error::TooLarge { what: "inodes", limit: u64::from(u32::MAX) });
        }
        let places = vec![Place::default(); count];
        Ok(Walk { tree, order: Vec::new(), places, shared: Shared::default(), directories: Vec::new() })
    }

    fn run(&mut self) -> Result<(), Error> {
        if self.tree.inode(0).kind != Kind::Directory {
            return Err(Error::Inconsistent { inode: 0, reason: "the root is not a directory" });
        }
        self.places[0].links = 2;
        self.meet(0);
        self.directories.push(0);
        while let Some(directory) = self.directories.pop() {
            self.visit(directory)?;
        }
        Ok(())
    }

    /// Everything in one directory stands together, so that listing it with attributes reads few blocks.
    fn visit(&mut self, directory: u32) -> Result<(), Error> {
        let first_subdirectory = self.directories.len();
        let tree = self.tree;
        let mut measure = directory::Measure::default();
        let mut names_end: Option<&[u8]> = None;
        for (name, child) in tree.children(directory as usize) {
            self.check_name(directory, name, names_end, child)?;
            names_end = Some(name);
        }
        for (name, child) in with_dots(tree.children(directory as usize), directory, 0) {
            measure.add(name.len());
            if !matches!(name, b"." | b"..") {
                self.meet_child(directory, child as u32)?;
            }
        }
        self.directories[first_subdirectory..].reverse();
        self.places[directory as usize].size = u32::try_from(measure.bytes())
            .map_err(|_| Error::TooLarge { what: "bytes in one directory", limit: u64::from(u32::MAX) })?;
        Ok(())
    }

    fn check_name(&self, directory: u32, name: &[u8], before: Option<&[u8]>, child: usize) -> Result<(), Error> {
        let wrong = |reason| Err(Error::Inconsistent { inode: directory as usize, reason });
        if name.is_empty()
            || name.len() > 255
            || name.contains(&0)
            || name.contains(&b'/')
            || matches!(name, b"." | b"..")
        {
            return wrong("it has an invalid name in it");
        }
        if before.is_some_and(|before| before >= name) {
            return wrong("its names are not in order");
        }
        if child >= self.places.len() {
            return wrong("it has an inode in it that does not exist");
        }
        Ok(())
    }

    fn meet_child(&mut self, directory: u32, child: u32) -> Result<(), Error> {
        let is_directory = self.tree.inode(child as usize).kind == Kind::Directory;
        let known = self.places[child as usize].links > 0;
        if is_directory && known {
            return Err(Error::Inconsistent { inode: child as usize, reason: "the directory has two names" });
        }
        self.places[child as usize].links += if is_directory { 2 } else { 1 };
        self.places[child as usize].parent = directory;
        if is_directory {
            self.places[directory as usize].links += 1;
            self.directories.push(child);
        }
        if !known {
            self.meet(child);
        }
        Ok(())
    }

    fn meet(&mut self, number: u32) {
        self.order.push(number);
        self.shared.count(&self.tree.inode(number as usize));
    }
}

/// A directory's names with `.` and `..` at their places in the order of bytes: some names sort before them.
pub(crate) fn with_dots<'a>(
    children: impl Iterator<Item = (&'a [u8], usize)>,
    own: u32,
    parent: u32,
) -> impl Iterator<Item = (&'a [u8], usize)> {
    let mut dots = [(&b"."[..], own as usize), (b"..", parent as usize)].into_iter().peekable();
    let mut children = children.peekable();
    std::iter::from_fn(move || match (dots.peek(), children.peek()) {
        (Some(dot), Some(child)) if child.0 < dot.0 => children.next(),
        (Some(_), _) => dots.next(),
        (None, _) => children.next(),
    })
}

/// Hands out places.
struct Placement {
    next: u64,
    blocks: u64,
    copies: u64,
    sparse_index: u64,
}

impl Placement {
    fn place(&mut self, inode: &Inode<'_>, body: &Body, number: usize, place: &mut Place) -> Result<(), Error> {
        let head = INODE_BYTES + body.bytes.len() as u64;
        match &inode.kind {
            Kind::Directory => self.place_bytes(head, u64::from(place.size), place)?,
            Kind::Symlink(target) => {
                place.size = target.len() as u32;
                self.place_bytes(head, target.len() as u64, place)?;
            }
            Kind::File { size: 0, .. } => self.at(self.aligned(), head, place)?,
            Kind::File { size, contents } => {
                place.shape = Shape::Chunked;
                let index = self.index_bytes(*size, contents, number)?;
                self.at(self.aligned(), head.next_multiple_of(CHUNK_INDEX_BYTES) + index, place)?;
            }
            _ => self.at(self.aligned(), head, place)?,
        }
        debug_assert!(place.links > 0, "{:?} is in the order but in no directory", file_type(&inode.kind));
        Ok(())
    }

    /// Places an inode with `size` bytes of its own. What does not fill a block goes behind the inode, when both fit into one block:
    /// the kernel does not follow it into the next.
    fn place_bytes(&mut self, head: u64, size: u64, place: &mut Place) -> Result<(), Error> {
        let tail = size % BLOCK_BYTES;
        let whole = size / BLOCK_BYTES;
        place.block = u32::try_from(self.blocks).map_err(|_| blocks_error())?;
        if tail > 0 && head + tail <= BLOCK_BYTES {
            place.shape = Shape::Inline;
            self.blocks += whole;
            let start = self.aligned();
            let fits = start % BLOCK_BYTES + head + tail <= BLOCK_BYTES;
            let start = if fits { start } else { start.next_multiple_of(BLOCK_BYTES) };
            return self.at(start, head + tail, place);
        }
        place.shape = Shape::Plain;
        self.blocks += size.div_ceil(BLOCK_BYTES);
        self.at(self.aligned(), head, place)
    }

    /// The next place for an inode: where inode numbers point to, and so that its header does not lie across two blocks.
    fn aligned(&self) -> u64 {
        let start = self.next.next_multiple_of(NID_BYTES);
        let fits = start % BLOCK_BYTES + INODE_BYTES <= BLOCK_BYTES;
        if fits { start } else { start.next_multiple_of(BLOCK_BYTES) }
    }

    fn at(&mut self, start: u64, length: u64, place: &mut Place) -> Result<(), Error> {
        place.nid = u32::try_from(start / NID_BYTES).map_err(|_| blocks_error())?;
        self.next = start + length;
        Ok(())
    }

    fn index_bytes(&mut self, size: u64, contents: &Contents<'_>, number: usize) -> Result<u64, Error> {
        let segments = match contents {
            Contents::Contiguous(_) => return Ok(size.div_ceil(1 << contiguous_chunk_bits(size)) * CHUNK_INDEX_BYTES),
            Contents::Sparse(segments) => segments,
        };
        if !in_order(segments, size) {
            return Err(Error::Inconsistent { inode: number, reason: "its parts overlap or lie outside of it" });
        }
        let limit = crate::format::CHUNK_BITS_MAX;
        if sparse::chunk_bits(size) > limit {
            return Err(Error::Inconsistent { inode: number, reason: "it is too large for a sparse file" });
        }
        let chunk_bytes = 1_u64 << sparse::chunk_bits(size);
        let mut index = 0;
        for (chunk, _) in sparse::chunks(size, segments) {
            index += CHUNK_INDEX_BYTES;
            if chunk == sparse::Chunk::Copy {
                self.copies += chunk_bytes;
            }
        }
        self.sparse_index += index;
        if self.sparse_index > SPARSE_INDEX_BYTES_MAX {
            return Err(Error::TooLarge { what: "bytes of sparse files' indexes", limit: SPARSE_INDEX_BYTES_MAX });
        }
        Ok(index)
    }
}

fn in_order(segments: &[Segment], size: u64) -> bool {
    let mut end = 0;
    segments.iter().all(|segment| {
        let fits = segment.offset >= end && segment.offset.checked_add(segment.length).is_some_and(|end| end <= size);
        end = segment.offset.saturating_add(segment.length);
        fits
    })
}

/// One chunk holds the whole file, unless it is larger than the largest chunk (a terabyte).
pub(crate) fn contiguous_chunk_bits(size: u64) -> u32 {
    let needed = size.max(BLOCK_BYTES).next_power_of_two().ilog2();
    needed.min(CHUNK_BITS_MAX)
}

fn blocks_error() -> Error {
    Error::TooLarge { what: "blocks", limit: BLOCKS_MAX }
}
