//! The on-disk structures, byte by byte. Names and numbers are those of the kernel's `erofs_fs.h`; all is little-endian.

use crate::{BLOCK_BYTES, Inode, Kind, Volume};

pub(crate) const BLOCK_BITS: u32 = BLOCK_BYTES.ilog2();
pub(crate) const SUPER_OFFSET: u64 = 1024;
const DEVICE_SLOT_BYTES: u64 = 128;
const DEVICE_SLOT_OFFSET: u64 = SUPER_OFFSET + 128;
/// Where inodes may begin.
pub(crate) const META_OFFSET: u64 = 1536;
/// Inode numbers count units of this many bytes from the beginning of the image.
pub(crate) const NID_BYTES: u64 = 32;
pub(crate) const INODE_BYTES: u64 = 64;
pub(crate) const CHUNK_INDEX_BYTES: u64 = 8;
pub(crate) const DIRENT_BYTES: u64 = 12;
/// A hole in a chunk index.
pub(crate) const NULL_BLOCK: u32 = u32::MAX;
/// The largest chunk: five bits say by how much it is larger than a block.
pub(crate) const CHUNK_BITS_MAX: u32 = BLOCK_BITS + 31;

const MAGIC: u32 = 0xe0f5_e1e2;
const COMPAT_CHECKSUM: u32 = 0x1;
const COMPAT_MTIME: u32 = 0x2;
const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
const INCOMPAT_DEVICE_TABLE: u32 = 0x8;
const CHUNK_FORMAT_INDEXES: u16 = 0x20;

/// How an inode's contents are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataLayout {
    /// In whole blocks.
    Plain = 0,
    /// In whole blocks but for the end, which follows the inode.
    Inline = 2,
    /// By a chunk index, which follows the inode.
    Chunked = 4,
}

/// The numbers of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) root_nid: u16,
    pub(crate) inodes: u64,
    pub(crate) blocks: u32,
    pub(crate) device_blocks: u32,
    pub(crate) xattr_block: u32,
}

/// Everything before the inodes: nothing, the superblock, the device slot.
pub(crate) fn head(volume: &Volume, totals: &Totals) -> Vec<u8> {
    let mut head = vec![0; META_OFFSET as usize];
    superblock(&mut head[SUPER_OFFSET as usize..], volume, totals);
    device_slot(&mut head[DEVICE_SLOT_OFFSET as usize..], volume, totals);
    // The kernel sums from the superblock to the end of its block.
    let checksum = crate::crc::crc32c(&head[SUPER_OFFSET as usize..(SUPER_OFFSET + BLOCK_BYTES) as usize]);
    put(&mut head[SUPER_OFFSET as usize..], 4, &checksum.to_le_bytes());
    head
}

fn superblock(at: &mut [u8], volume: &Volume, totals: &Totals) {
    put(at, 0, &MAGIC.to_le_bytes());
    put(at, 8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
    put(at, 12, &[BLOCK_BITS as u8, 0]);
    put(at, 14, &totals.root_nid.to_le_bytes());
    put(at, 16, &totals.inodes.to_le_bytes());
    put(at, 36, &totals.blocks.to_le_bytes());
    put(at, 44, &totals.xattr_block.to_le_bytes());
    put(at, 48, &volume.uuid);
    put(at, 80, &(INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE).to_le_bytes());
    put(at, 86, &1_u16.to_le_bytes());
    put(at, 88, &((DEVICE_SLOT_OFFSET / DEVICE_SLOT_BYTES) as u16).to_le_bytes());
}

fn device_slot(at: &mut [u8], volume: &Volume, totals: &Totals) {
    put(at, 0, &volume.device_tag);
    put(at, 64, &totals.device_blocks.to_le_bytes());
    // Where the device would begin if device 0 went on into it; nothing of ours refers to it so, but it must not overlap.
    put(at, 68, &totals.blocks.to_le_bytes());
}

/// An extended inode's header.
#[derive(Debug)]
pub(crate) struct InodeHeader<'a> {
    pub(crate) inode: &'a Inode<'a>,
    pub(crate) layout: DataLayout,
    pub(crate) xattr_count: u16,
    pub(crate) size: u64,
    /// First block, device number or chunk format, as the kind and layout have it.
    pub(crate) union_field: u32,
    pub(crate) serial: u32,
    pub(crate) links: u32,
}

impl InodeHeader<'_> {
    pub(crate) fn to_bytes(&self) -> [u8; INODE_BYTES as usize] {
        let mut bytes = [0; INODE_BYTES as usize];
        let version_extended = 1;
        put(&mut bytes, 0, &(version_extended | (self.layout as u16) << 1).to_le_bytes());
        put(&mut bytes, 2, &self.xattr_count.to_le_bytes());
        put(&mut bytes, 4, &(file_type(&self.inode.kind).mode() | self.inode.permissions & 0o7777).to_le_bytes());
        put(&mut bytes, 8, &self.size.to_le_bytes());
        put(&mut bytes, 16, &self.union_field.to_le_bytes());
        put(&mut bytes, 20, &self.serial.to_le_bytes());
        put(&mut bytes, 24, &self.inode.uid.to_le_bytes());
        put(&mut bytes, 28, &self.inode.gid.to_le_bytes());
        put(&mut bytes, 32, &self.inode.mtime_seconds.to_le_bytes());
        put(&mut bytes, 40, &self.inode.mtime_nanoseconds.to_le_bytes());
        put(&mut bytes, 44, &self.links.to_le_bytes());
        bytes
    }
}

/// The types of directory entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileType {
    Regular = 1,
    Directory = 2,
    CharDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Socket = 6,
    Symlink = 7,
}

impl FileType {
    fn mode(self) -> u16 {
        match self {
            FileType::Regular => 0o100_000,
            FileType::Directory => 0o040_000,
            FileType::CharDevice => 0o020_000,
            FileType::BlockDevice => 0o060_000,
            FileType::Fifo => 0o010_000,
            FileType::Socket => 0o140_000,
            FileType::Symlink => 0o120_000,
        }
    }
}

pub(crate) fn file_type(kind: &Kind<'_>) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File { .. } => FileType::Regular,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::CharDevice { .. } => FileType::CharDevice,
        Kind::BlockDevice { .. } => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
    }
}

/// A device number as Linux packs it into 32 bits.
pub(crate) fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

pub(crate) fn chunk_format(chunk_bits: u32) -> u32 {
    u32::from(CHUNK_FORMAT_INDEXES) | (chunk_bits - BLOCK_BITS)
}

/// An entry of a chunk index: device 0 is the image itself, device 1 the tar.
pub(crate) fn chunk_index(device: u16, block: u32) -> [u8; CHUNK_INDEX_BYTES as usize] {
    let mut bytes = [0; CHUNK_INDEX_BYTES as usize];
    put(&mut bytes, 2, &device.to_le_bytes());
    put(&mut bytes, 4, &block.to_le_bytes());
    bytes
}

pub(crate) fn dirent(nid: u64, name_offset: u16, file_type: FileType) -> [u8; DIRENT_BYTES as usize] {
    let mut bytes = [0; DIRENT_BYTES as usize];
    put(&mut bytes, 0, &nid.to_le_bytes());
    put(&mut bytes, 8, &name_offset.to_le_bytes());
    put(&mut bytes, 10, &[file_type as u8]);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}
