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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A tree as a table: a kind for each inode, and the names in each directory.
    struct Table<'a> {
        kinds: Vec<Kind<'a>>,
        names: Vec<(usize, &'a str, usize)>,
    }

    impl Tree for Table<'_> {
        fn inode_count(&self) -> usize {
            self.kinds.len()
        }

        fn inode(&self, number: usize) -> Inode<'_> {
            Inode {
                permissions: 0o644,
                uid: 0,
                gid: 0,
                mtime_seconds: 0,
                mtime_nanoseconds: 0,
                xattrs: Vec::new(),
                kind: self.kinds[number].clone(),
            }
        }

        fn children(&self, number: usize) -> Box<dyn Iterator<Item = (&[u8], usize)> + '_> {
            let own = self.names.iter().filter(move |(directory, _, _)| *directory == number);
            Box::new(own.map(|(_, name, child)| (name.as_bytes(), *child)))
        }
    }

    fn write_table(kinds: Vec<Kind<'_>>, names: Vec<(usize, &str, usize)>) -> Result<Vec<u8>, Error> {
        let volume = Volume { uuid: [1; 16], device_tag: [b'a'; 64], device_bytes: 1 << 20 };
        let mut output = Cursor::new(Vec::new());
        let mut read = |_: u64, buffer: &mut [u8]| {
            buffer.fill(7);
            Ok(())
        };
        let summary = write(&Table { kinds, names }, &volume, &mut read, &mut output)?;
        let image = output.into_inner();
        assert_eq!(summary.bytes, image.len() as u64);
        Ok(image)
    }

    fn file(size: u64, offset: u64) -> Kind<'static> {
        Kind::File { size, contents: Contents::Contiguous(offset) }
    }

    #[test]
    fn an_image_has_a_superblock_with_its_checksum() {
        let image = write_table(vec![Kind::Directory, file(700, 512)], vec![(0, "f", 1)]).unwrap();
        assert_eq!(image[1024..1028], 0xe0f5_e1e2_u32.to_le_bytes());
        let mut summed = image[1024..1536].to_vec();
        summed[4..8].fill(0);
        assert_eq!(image[1028..1032], crate::crc::crc32c(&summed).to_le_bytes());
        assert_eq!(image[1152..1216], [b'a'; 64]);
        assert!(image.len().is_multiple_of(512));
    }

    #[test]
    fn pieces_of_sparse_files_are_copied() {
        let segments = [Segment { offset: 10, length: 100, data_offset: 1000 }];
        let kind = Kind::File { size: 10_000, contents: Contents::Sparse(&segments) };
        let image = write_table(vec![Kind::Directory, kind], vec![(0, "f", 1)]).unwrap();
        let start = image.len() - 4096;
        assert!(image[start..start + 10].iter().all(|byte| *byte == 0));
        assert!(image[start + 10..start + 110].iter().all(|byte| *byte == 7));
        assert!(image[start + 110..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn broken_trees_are_refused() {
        let inconsistent = |kinds: Vec<Kind<'_>>, names: Vec<(usize, &str, usize)>| {
            let outcome = write_table(kinds, names.clone());
            assert!(
                matches!(outcome, Err(Error::Inconsistent { .. })),
                "{names:?}: {:?}",
                outcome.map(|image| image.len())
            );
        };
        inconsistent(vec![Kind::Fifo], vec![]);
        let dir = || Kind::Directory;
        inconsistent(vec![dir(), Kind::Fifo], vec![(0, "b", 1), (0, "a", 1)]);
        inconsistent(vec![dir(), Kind::Fifo], vec![(0, "a", 1), (0, "a", 1)]);
        inconsistent(vec![dir(), Kind::Fifo], vec![(0, "", 1)]);
        inconsistent(vec![dir(), Kind::Fifo], vec![(0, "a/b", 1)]);
        inconsistent(vec![dir(), Kind::Fifo], vec![(0, "..", 1)]);
        inconsistent(vec![dir()], vec![(0, "a", 1)]);
        inconsistent(vec![dir(), dir()], vec![(0, "a", 1), (0, "b", 1)]);
        inconsistent(vec![dir(), dir()], vec![(0, "a", 1), (1, "b", 1)]);
        inconsistent(vec![dir(), dir()], vec![(0, "a", 0)]);
        let overlapping =
            [Segment { offset: 0, length: 10, data_offset: 0 }, Segment { offset: 5, length: 10, data_offset: 0 }];
        for segments in [&overlapping[..], &[Segment { offset: u64::MAX, length: 10, data_offset: 0 }]] {
            let kind = Kind::File { size: 100, contents: Contents::Sparse(segments) };
            inconsistent(vec![dir(), kind], vec![(0, "a", 1)]);
        }
    }

    #[test]
    fn contents_must_be_on_the_device() {
        for kind in [file(10, 100), file(10, 1 << 20), file(10, u64::MAX - 511), file((1 << 20) + 1, 0)] {
            let outcome = write_table(vec![Kind::Directory, kind], vec![(0, "f", 1)]);
            assert!(matches!(outcome, Err(Error::Misplaced { .. })));
        }
    }
}
