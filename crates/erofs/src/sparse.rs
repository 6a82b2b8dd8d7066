//! Sparse files as chunk indexes.
//!
//! A chunk is a hole, or lies as a whole at a block border of the data device, or is neither: then it is copied into the image. GNU tar
//! makes segments on block borders, so copies are the exception; they keep the index small for files of terabytes with a few bytes in
//! them (`/var/log/lastlog`), and allow any segment that a tar may have.

use crate::format::BLOCK_BITS;
use crate::{BLOCK_BYTES, Segment};

/// A file has at most so many chunks, unless only they are of the smallest size.
const CHUNKS_MAX: u64 = 1 << 16;
/// The smallest chunk: a page, because the kernel reads no less.
const CHUNK_BITS_MIN: u32 = 12;

/// One chunk of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// No bytes at all.
    Hole,
    /// At this byte of the data device, a block border.
    Device(u64),
    /// Must be put together in the image.
    Copy,
}

/// How large a sparse file's chunks are, as a power of two.
pub(crate) fn chunk_bits(size: u64) -> u32 {
    let mut bits = CHUNK_BITS_MIN;
    while size.div_ceil(1 << bits) > CHUNKS_MAX {
        bits += 1;
    }
    debug_assert!(bits >= BLOCK_BITS);
    bits
}

/// Goes through a file's chunks in order, with the segments that touch each.
pub(crate) fn chunks(size: u64, segments: &[Segment]) -> impl Iterator<Item = (Chunk, &[Segment])> {
    let bytes = 1_u64 << chunk_bits(size);
    let mut first = 0;
    (0..size.div_ceil(bytes)).map(move |number| {
        let (start, end) = (number * bytes, ((number + 1) * bytes).min(size));
        while segments.get(first).is_some_and(|segment| segment.offset + segment.length <= start) {
            first += 1;
        }
        let count = segments[first..].iter().take_while(|segment| segment.offset < end).count();
        let touching = &segments[first..first + count];
        (chunk(start, end, touching), touching)
    })
}

fn chunk(start: u64, end: u64, touching: &[Segment]) -> Chunk {
    match touching {
        [] => Chunk::Hole,
        [segment] if segment.offset <= start && segment.offset + segment.length >= end => {
            let at = segment.data_offset + (start - segment.offset);
            if at.is_multiple_of(BLOCK_BYTES) { Chunk::Device(at) } else { Chunk::Copy }
        }
        _ => Chunk::Copy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(size: u64, segments: &[Segment]) -> Vec<Chunk> {
        chunks(size, segments).map(|(chunk, _)| chunk).collect()
    }

    #[test]
    fn aligned_segments_stay_in_the_tar() {
        let segments = [Segment { offset: 4096, length: 8192, data_offset: 512 }];
        assert_eq!(
            plan(20_000, &segments),
            [Chunk::Hole, Chunk::Device(512), Chunk::Device(4608), Chunk::Hole, Chunk::Hole]
        );
    }

    #[test]
    fn the_end_of_the_file_may_end_a_chunk() {
        let segments = [Segment { offset: 4096, length: 100, data_offset: 1024 }];
        assert_eq!(plan(4196, &segments), [Chunk::Hole, Chunk::Device(1024)]);
    }

    #[test]
    fn what_does_not_fit_is_copied() {
        let partly = [Segment { offset: 4096, length: 100, data_offset: 1024 }];
        assert_eq!(plan(9000, &partly), [Chunk::Hole, Chunk::Copy, Chunk::Hole]);
        let misaligned = [Segment { offset: 0, length: 4096, data_offset: 100 }];
        assert_eq!(plan(4096, &misaligned), [Chunk::Copy]);
        let two = [
            Segment { offset: 0, length: 2048, data_offset: 512 },
            Segment { offset: 2048, length: 2048, data_offset: 2560 },
        ];
        assert_eq!(plan(4096, &two), [Chunk::Copy]);
    }

    #[test]
    fn the_index_of_a_huge_file_stays_small() {
        let size: u64 = 8 << 40;
        assert!(size.div_ceil(1 << chunk_bits(size)) <= CHUNKS_MAX);
    }
}
