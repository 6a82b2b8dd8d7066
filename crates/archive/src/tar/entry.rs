//! What a tar says of one file.

/// A point in time, as tars and file systems have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds, 0 to 999,999,999, counted forward.
    pub nanoseconds: u32,
}

/// A device's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// The whole name, `security.capability` for example.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// Permissions, owner, time and extended attributes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky (`0o7777` at most).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the contents.
    pub mtime: Timestamp,
    /// Extended attributes, sorted by name, each name once.
    pub xattrs: Vec<Xattr>,
}

/// A run of bytes that a sparse file really has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SparseSegment {
    /// Where in the file.
    pub offset: u64,
    /// How long.
    pub length: u64,
}

/// Where a sparse file has its bytes: ordered, apart from each other, inside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseMap {
    /// The runs, in the order in which the tar stores them, one after the other without gaps.
    pub segments: Vec<SparseSegment>,
}

/// What kind of file an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Its size, holes included.
        size: u64,
        /// Where its bytes are, when the tar leaves holes out.
        sparse: Option<SparseMap>,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// What it says, as it is.
        target: Vec<u8>,
    },
    /// Another name for a file that came before.
    HardLink {
        /// The earlier name, without leading `/` or `./`.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// One file of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name: components joined by `/`, none of them empty, `.` or `..`; empty for the root itself. Absolute names lose their
    /// leading slash, as in every tar.
    pub path: Vec<u8>,
    /// Permissions, owner, time, attributes.
    pub metadata: Metadata,
    /// What it is.
    pub kind: EntryKind,
    /// Where in the tar the entry begins, its PAX and GNU headers included.
    pub header_offset: u64,
    /// Where in the tar the stored bytes begin: a multiple of 512.
    pub data_offset: u64,
    /// How many bytes are stored there, padding not counted (for a sparse file: of its segments alone).
    pub data_size: u64,
}
