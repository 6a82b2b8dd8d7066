//! Writing the image, from its first byte to its last.

use std::io::{BufWriter, Seek, SeekFrom, Write};

use crate::format::{
    CHUNK_BITS_MAX, INODE_BYTES, InodeHeader, NID_BYTES, NULL_BLOCK, Totals, chunk_format, chunk_index, device_number,
    file_type, head,
};
use crate::layout::{BLOCKS_MAX, Layout, Place, Shape, contiguous_chunk_bits, lay_out, with_dots};
use crate::sparse::{Chunk, chunk_bits, chunks};
use crate::{BLOCK_BYTES, Contents, Error, Inode, Kind, ReadDevice, Segment, Tree, Volume, directory};

const DEVICE_IMAGE: u16 = 0;
const DEVICE_TAR: u16 = 1;
const BUFFER_BYTES: usize = 1 << 20;
/// Pieces of sparse files are copied through a buffer of this size.
const COPY_BYTES: usize = 128 << 10;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Number of files, hard links counted once.
    pub inodes: u64,
    /// The image's length; holes for pieces of sparse files included.
    pub bytes: u64,
}

/// Writes `tree` as an image to `output`, which must be empty. `read_device` is called only for sparse files whose parts do not lie
/// on block borders.
pub fn write<W: Write + Seek>(
    tree: &dyn Tree,
    volume: &Volume,
    read_device: &mut ReadDevice<'_>,
    output: W,
) -> Result<Summary, Error> {
    let layout = lay_out(tree)?;
    let mut image = Image { tree, volume, layout, next_copy: 0 };
    let totals = image.totals()?;
    let mut output = Output { inner: BufWriter::with_capacity(BUFFER_BYTES, output), at: 0 };
    output.write(&head(volume, &totals))?;
    image.write_inodes(&mut output)?;
    image.write_blocks(&mut output)?;
    output.fill_to(image.layout.xattrs_at)?;
    output.write(image.layout.shared.area())?;
    image.write_copies(read_device, &mut output)?;
    output.end_at(image.layout.end)?;
    Ok(Summary { inodes: totals.inodes, bytes: image.layout.end })
}

struct Image<'a> {
    tree: &'a dyn Tree,
    volume: &'a Volume,
    layout: Layout,
    /// Where the next piece of a sparse file goes, counted from where they begin.
    next_copy: u64,
}

impl Image<'_> {
    fn totals(&self) -> Result<Totals, Error> {
        let device_blocks = self.volume.device_bytes.div_ceil(BLOCK_BYTES);
        if device_blocks > BLOCKS_MAX {
            return Err(Error::TooLarge { what: "blocks of contents", limit: BLOCKS_MAX });
        }
        Ok(Totals {
            // The root stands first, so its number always fits 16 bits.
            root_nid: self.layout.places[0].nid as u16,
            inodes: self.layout.order.len() as u64,
            blocks: (self.layout.end / BLOCK_BYTES) as u32,
            device_blocks: device_blocks as u32,
            xattr_block: (self.layout.xattrs_at / BLOCK_BYTES) as u32,
        })
    }

    fn write_inodes<W: Write + Seek>(&mut self, output: &mut Output<W>) -> Result<(), Error> {
        for serial in 0..self.layout.order.len() {
            let number = self.layout.order[serial] as usize;
            let place = self.layout.places[number];
            output.fill_to(u64::from(place.nid) * NID_BYTES)?;
            self.write_inode(number, serial as u32 + 1, place, output)?;
        }
        Ok(())
    }

    fn write_inode<W: Write + Seek>(
        &mut self,
        number: usize,
        serial: u32,
        place: Place,
        output: &mut Output<W>,
    ) -> Result<(), Error> {
        let tree = self.tree;
        let inode = tree.inode(number);
        let body = self.layout.shared.body(&inode, number)?;
        let (size, union_field) = self.size_and_union(&inode, place);
        let header = InodeHeader {
            inode: &inode,
            layout: place.shape.data_layout(),
            xattr_count: body.count,
            size,
            union_field,
            serial,
            links: place.links,
        };
        output.write(&header.to_bytes())?;
        output.write(&body.bytes)?;
        match place.shape {
            Shape::Plain => Ok(()),
            Shape::Inline => {
                let contents = self.contents(number, &inode, place);
                let whole = contents.len() / BLOCK_BYTES as usize * BLOCK_BYTES as usize;
                output.write(&contents[whole..])
            }
            Shape::Chunked => {
                let head = INODE_BYTES + body.bytes.len() as u64;
                output.fill_to(u64::from(place.nid) * NID_BYTES + head.next_multiple_of(8))?;
                self.write_index(number, &inode, output)
            }
        }
    }

    fn size_and_union(&self, inode: &Inode<'_>, place: Place) -> (u64, u32) {
        let first_block = (self.layout.blocks_at / BLOCK_BYTES) as u32 + place.block;
        match &inode.kind {
            Kind::Directory | Kind::Symlink(_) => (u64::from(place.size), first_block),
            Kind::File { size: 0, .. } => (0, 0),
            Kind::File { size, contents: Contents::Contiguous(_) } => {
                (*size, chunk_format(contiguous_chunk_bits(*size)))
            }
            Kind::File { size, contents: Contents::Sparse(_) } => (*size, chunk_format(chunk_bits(*size))),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                (0, device_number(*major, *minor))
            }
            Kind::Fifo | Kind::Socket => (0, 0),
        }
    }

    fn write_index<W: Write + Seek>(
        &mut self,
        number: usize,
        inode: &Inode<'_>,
        output: &mut Output<W>,
    ) -> Result<(), Error> {
        let Kind::File { size, contents } = &inode.kind else { return Ok(()) };
        match contents {
            Contents::Contiguous(offset) => {
                self.check_contents(number, *offset, *size)?;
                for at in (0..*size).step_by(1 << CHUNK_BITS_MAX) {
                    output.write(&chunk_index(DEVICE_TAR, ((offset + at) / BLOCK_BYTES) as u32))?;
                }
                Ok(())
            }
            Contents::Sparse(segments) => self.write_sparse_index(number, *size, segments, output),
        }
    }

    fn check_contents(&self, number: usize, offset: u64, length: u64) -> Result<(), Error> {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.volume.device_bytes);
        if inside && offset.is_multiple_of(BLOCK_BYTES) {
            return Ok(());
        }
        Err(Error::Misplaced { inode: number, offset })
    }

    fn write_sparse_index<W: Write + Seek>(
        &mut self,
        number: usize,
        size: u64,
        segments: &[Segment],
        output: &mut Output<W>,
    ) -> Result<(), Error> {
        for (chunk, touching) in chunks(size, segments) {
            let index = match chunk {
                Chunk::Hole => chunk_index(DEVICE_IMAGE, NULL_BLOCK),
                Chunk::Device(at) => {
                    self.check_contents(number, at, 0)?;
                    chunk_index(DEVICE_TAR, (at / BLOCK_BYTES) as u32)
                }
                Chunk::Copy => {
                    let at = self.layout.copies_at + self.next_copy;
                    self.next_copy += 1 << chunk_bits(size);
                    chunk_index(DEVICE_IMAGE, (at / BLOCK_BYTES) as u32)
                }
            };
            for segment in touching {
                let end = segment.data_offset.checked_add(segment.length);
                if end.is_none_or(|end| end > self.volume.device_bytes) {
                    return Err(Error::Misplaced { inode: number, offset: segment.data_offset });
                }
            }
            output.write(&index)?;
        }
        Ok(())
    }

    /// The whole blocks of directories and links, in the order of their inodes.
    fn write_blocks<W: Write + Seek>(&self, output: &mut Output<W>) -> Result<(), Error> {
        for number in self.layout.order.iter().map(|number| *number as usize) {
            let inode = self.tree.inode(number);
            let place = self.layout.places[number];
            let has_blocks = u64::from(place.size) >= BLOCK_BYTES || place.shape == Shape::Plain;
            if !has_blocks || !matches!(inode.kind, Kind::Directory | Kind::Symlink(_)) {
                continue;
            }
            let mut contents = self.contents(number, &inode, place);
            if place.shape == Shape::Inline {
                contents.truncate(contents.len() / BLOCK_BYTES as usize * BLOCK_BYTES as usize);
            }
            output.fill_to(self.layout.blocks_at + u64::from(place.block) * BLOCK_BYTES)?;
            output.write(&contents)?;
        }
        Ok(())
    }

    /// What a directory or link contains.
    fn contents(&self, number: usize, inode: &Inode<'_>, place: Place) -> Vec<u8> {
        if let Kind::Symlink(target) = inode.kind {
            return target.to_vec();
        }
        let mut contents = directory::Contents::default();
        for (name, child) in with_dots(self.tree.children(number), number as u32, place.parent) {
            let nid = u64::from(self.layout.places[child].nid);
            contents.add(name, nid, file_type(&self.tree.inode(child).kind));
        }
        contents.finish()
    }

    /// The pieces of sparse files, in the order in which their indexes were written.
    fn write_copies<W: Write + Seek>(
        &self,
        read_device: &mut ReadDevice<'_>,
        output: &mut Output<W>,
    ) -> Result<(), Error> {
        let mut at = self.layout.copies_at;
        for number in self.layout.order.iter().map(|number| *number as usize) {
            let Kind::File { size, contents: Contents::Sparse(segments) } = self.tree.inode(number).kind else {
                continue;
            };
            let chunk_bytes = 1_u64 << chunk_bits(size);
            for (index, (chunk, touching)) in chunks(size, segments).enumerate() {
                if chunk == Chunk::Copy {
                    copy_chunk(index as u64 * chunk_bytes, chunk_bytes, touching, at, read_device, output)?;
                    at += chunk_bytes;
                }
            }
        }
        Ok(())
    }
}

/// Copies what segments have of one chunk to `at`; between them the image keeps holes.
fn copy_chunk<W: Write + Seek>(
    start: u64,
    length: u64,
    touching: &[Segment],
    at: u64,
    read_device: &mut ReadDevice<'_>,
    output: &mut Output<W>,
) -> Result<(), Error> {
    let mut buffer = vec![0; COPY_BYTES];
    for segment in touching {
        let from = segment.offset.max(start);
        let to = (segment.offset + segment.length).min(start + length);
        output.skip_to(at + (from - start))?;
        let mut place = from;
        while place < to {
            let piece = &mut buffer[..COPY_BYTES.min((to - place) as usize)];
            read_device(segment.data_offset + (place - segment.offset), piece)?;
            output.write(piece)?;
            place += piece.len() as u64;
        }
    }
    Ok(())
}

/// The output and how far it has come.
struct Output<W: Write + Seek> {
    inner: BufWriter<W>,
    at: u64,
}

impl<W: Write + Seek> Output<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.inner.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Writes zeros up to an offset, less than a few blocks away.
    fn fill_to(&mut self, offset: u64) -> Result<(), Error> {
        const ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
        debug_assert!(offset >= self.at, "{offset} lies behind {}", self.at);
        while self.at < offset {
            let length = (offset - self.at).min(BLOCK_BYTES) as usize;
            self.write(&ZEROS[..length])?;
        }
        Ok(())
    }

    /// Goes to an offset, leaving a hole.
    fn skip_to(&mut self, offset: u64) -> Result<(), Error> {
        if offset > self.at {
            self.inner.seek(SeekFrom::Start(offset))?;
            self.at = offset;
        }
        Ok(())
    }

    /// Makes the output end at an offset. One byte is enough: what lies before is a hole.
    fn end_at(&mut self, offset: u64) -> Result<(), Error> {
        if self.at < offset {
            self.skip_to(offset - 1)?;
            self.write(&[0])?;
        }
        self.inner.flush()?;
        Ok(())
    }
}
