//! A writer of EROFS images: the index of a layer's tar.
//!
//! EROFS can keep a file's contents on another device than its metadata. Here that device is a tar: every file's contents are a run of
//! 512-byte blocks of it, since that is how tars align them, and the image itself holds names and attributes alone. Mounted together
//! (`device=` names the tar) they are the unpacked tar, though nothing was unpacked.
//!
//! ```text
//! byte 0      nothing (boot sectors, of old)
//!      1024   superblock, 128 bytes
//!      1152   device slot: the tar
//!      1536   inodes: header of 64 bytes, extended attributes, then chunk index, or the end of a directory or link
//!        …    whole blocks of directories and long links
//!        …    extended attributes that many inodes share
//!        …    contents that cannot stay in the tar: pieces of sparse files that do not lie on block borders
//! ```
//!
//! The same tree gives the same bytes: no clock, no random number, no order but that of names. The crate is pure, it knows of no file
//! and no tar; its input is a [`Tree`], its output a `Write + Seek`.

mod crc;
mod directory;
mod format;
mod layout;
mod sparse;
mod write;
mod xattr;

use std::io;

pub use write::{Summary, write};

/// Bytes in a block: what tars align contents to.
pub const BLOCK_BYTES: u64 = 512;

/// The files to put into an image. Numbers are below [`inode_count`](Tree::inode_count), not all need to be used; 0 is the root.
pub trait Tree {
    /// How many inode numbers there are.
    fn inode_count(&self) -> usize;

    /// One inode.
    fn inode(&self, number: usize) -> Inode<'_>;

    /// The names in a directory, in the order of their bytes, without `.` and `..`.
    fn children(&self, number: usize) -> Box<dyn Iterator<Item = (&[u8], usize)> + '_>;
}

/// What an image says of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode<'a> {
    /// Permission bits with setuid, setgid and sticky.
    pub permissions: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds of the time of last modification.
    pub mtime_seconds: i64,
    /// And its nanoseconds.
    pub mtime_nanoseconds: u32,
    /// Extended attributes: name and value. Those whose namespace EROFS cannot express are left out.
    pub xattrs: Vec<(&'a [u8], &'a [u8])>,
    /// What it is.
    pub kind: Kind<'a>,
}

/// What kind of file an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its size.
        size: u64,
        /// Where its contents are.
        contents: Contents<'a>,
    },
    /// A symbolic link.
    Symlink(&'a [u8]),
    /// A character device; 0:0 is an overlayfs whiteout.
    CharDevice {
        /// Major number, below 4096.
        major: u32,
        /// Minor number, below 2^20.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number, below 4096.
        major: u32,
        /// Minor number, below 2^20.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Where a file's contents are on the data device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents<'a> {
    /// All in a row from this offset, a multiple of [`BLOCK_BYTES`].
    Contiguous(u64),
    /// Only some parts, the rest being holes: ordered, not overlapping, inside the file.
    Sparse(&'a [Segment]),
}

/// A part of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it belongs.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// Where on the data device it is; need not be aligned.
    pub data_offset: u64,
}

/// What belongs to the image as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The UUID of the image.
    pub uuid: [u8; 16],
    /// What the image says of its data device: 64 bytes, room for a SHA-256 in hexadecimal.
    pub device_tag: [u8; 64],
    /// The size of the data device.
    pub device_bytes: u64,
}

/// Reads the data device, for the parts of sparse files that must be copied into the image: fills the buffer from this offset.
pub type ReadDevice<'a> = dyn FnMut(u64, &mut [u8]) -> io::Result<()> + 'a;

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output, or the data device, failed.
    #[error("cannot write the image")]
    Io(#[from] io::Error),
    /// The tree does not fit the format.
    #[error("the tree has more {what} than an EROFS image of 512-byte blocks can hold ({limit})")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much of it fits.
        limit: u64,
    },
    /// Contents do not begin at a block border of the data device.
    #[error(
        "inode {inode} has contents at byte {offset}, which is not at a block border or lies outside of the data device"
    )]
    Misplaced {
        /// The inode's number in the tree.
        inode: usize,
        /// Where it says its contents are.
        offset: u64,
    },
    /// The tree breaks a promise of [`Tree`].
    #[error("inode {inode} is inconsistent: {reason}")]
    Inconsistent {
        /// The inode's number in the tree.
        inode: usize,
        /// What is wrong.
        reason: &'static str,
    },
}
