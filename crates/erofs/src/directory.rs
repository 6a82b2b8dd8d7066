//! Directories: sorted entries, as many as fit in each block, their names behind them.

use crate::BLOCK_BYTES;
use crate::format::{DIRENT_BYTES, FileType, dirent};

/// Counts how long a directory becomes, without writing it.
#[derive(Debug, Default)]
pub(crate) struct Measure {
    whole_blocks: u64,
    used: u64,
}

impl Measure {
    pub(crate) fn add(&mut self, name_bytes: usize) {
        let entry = DIRENT_BYTES + name_bytes as u64;
        if self.used + entry > BLOCK_BYTES {
            self.whole_blocks += 1;
            self.used = 0;
        }
        self.used += entry;
    }

    /// The directory's size: whole blocks, and what of the last one is used.
    pub(crate) fn bytes(&self) -> u64 {
        self.whole_blocks * BLOCK_BYTES + self.used
    }
}

/// Writes a directory's contents.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    bytes: Vec<u8>,
    block: Vec<(u64, FileType)>,
    names: Vec<u8>,
    name_ends: Vec<usize>,
}

impl Contents {
    pub(crate) fn add(&mut self, name: &[u8], nid: u64, file_type: FileType) {
        let used = self.block.len() as u64 * DIRENT_BYTES + self.names.len() as u64;
        if used + DIRENT_BYTES + name.len() as u64 > BLOCK_BYTES {
            self.end_block();
            self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK_BYTES as usize), 0);
        }
        self.block.push((nid, file_type));
        self.names.extend_from_slice(name);
        self.name_ends.push(self.names.len());
    }

    /// All of it; the last block is not filled up.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.end_block();
        self.bytes
    }

    fn end_block(&mut self) {
        let names_at = self.block.len() * DIRENT_BYTES as usize;
        let mut name_start = 0;
        for ((nid, file_type), name_end) in self.block.drain(..).zip(self.name_ends.drain(..)) {
            self.bytes.extend_from_slice(&dirent(nid, (names_at + name_start) as u16, file_type));
            name_start = name_end;
        }
        self.bytes.append(&mut self.names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_as_written() {
        for count in [1, 2, 10, 40, 1000] {
            let (mut measure, mut contents) = (Measure::default(), Contents::default());
            for number in 0..count {
                let name = format!("{number:0width$}", width = 1 + number * 7 % 255);
                measure.add(name.len());
                contents.add(name.as_bytes(), 1, FileType::Regular);
            }
            assert_eq!(measure.bytes(), contents.finish().len() as u64, "{count}");
        }
    }
}
