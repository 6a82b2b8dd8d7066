//! Why a tar is refused.

use std::fmt;
use std::io;

/// A name as a tar has it, shown in messages: escaped and cut, because it comes from a stranger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    const SHOWN_BYTES: usize = 200;

    pub(crate) fn new(bytes: &[u8]) -> Self {
        let shown = &bytes[..bytes.len().min(Self::SHOWN_BYTES)];
        let cut = if shown.len() < bytes.len() { "…" } else { "" };
        let text = match std::str::from_utf8(shown) {
            Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
            _ => shown.escape_ascii().to_string(),
        };
        Name(format!("{text}{cut}"))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0)
    }
}

/// What is wrong with a tar from a stranger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The stream ends inside an entry.
    #[error("the tar ends in the middle of an entry, at byte {offset}")]
    Truncated {
        /// Where the stream ends.
        offset: u64,
    },
    /// A header's checksum is wrong: this is no tar, or not any more.
    #[error("the tar header at byte {offset} has a wrong checksum")]
    Checksum {
        /// Where the header is.
        offset: u64,
    },
    /// A block of zeros that is neither the end nor part of an entry; readers disagree about what follows.
    #[error("there is a lone block of zeros at byte {offset} of the tar")]
    LoneZeroBlock {
        /// Where it is.
        offset: u64,
    },
    /// A field is no number, or out of range.
    #[error("the {field} in the tar header at byte {offset} is not a valid number")]
    Number {
        /// Which field.
        field: &'static str,
        /// Where the header is.
        offset: u64,
    },
    /// A PAX or GNU extension header cannot be understood, or cannot be understood in one way only.
    #[error("the extended tar header at byte {offset} is malformed: {reason}")]
    Extension {
        /// What is wrong.
        reason: &'static str,
        /// Where the header is.
        offset: u64,
    },
    /// Header and PAX give different sizes; readers disagree about where the next entry begins.
    #[error("{name} has size {header} in its header and {pax} in its extended header")]
    SizeDisagreement {
        /// The entry.
        name: Name,
        /// Size in the ustar header.
        header: u64,
        /// Size in the PAX header.
        pax: u64,
    },
    /// A directory, link or device with contents; readers disagree about where the next entry begins.
    #[error("{name} is not a regular file and yet has {size} bytes of contents")]
    UnexpectedContents {
        /// The entry.
        name: Name,
        /// The size its header gives.
        size: u64,
    },
    /// A kind of entry that is no file: volume labels, multi-volume parts and the like.
    #[error("{name} is a tar entry of the unsupported type {typeflag:?}")]
    UnsupportedType {
        /// The entry.
        name: Name,
        /// Its type flag.
        typeflag: char,
    },
    /// A name that is empty, has a NUL in it, or that readers read differently.
    #[error("the tar entry {name} has an invalid name: {reason}")]
    InvalidName {
        /// The entry.
        name: Name,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name or link that climbs out of the tree.
    #[error("the tar entry {name} points outside of the tree")]
    Escapes {
        /// The entry.
        name: Name,
    },
    /// A sparse file whose map is not ordered, overlaps, or does not fit its contents.
    #[error("the sparse file {name} has an invalid map")]
    SparseMap {
        /// The entry.
        name: Name,
    },
    /// Some limit is passed.
    #[error("{name} in the tar passes the limit of {limit} {what}")]
    Limit {
        /// The entry at which it happened.
        name: Name,
        /// What is counted.
        what: &'static str,
        /// How many of them may be.
        limit: u64,
    },
    /// A hard link to something that did not come before, or to a directory.
    #[error("{name} is a hard link to {target}, which is no file that came before it")]
    LinkTarget {
        /// The link.
        name: Name,
        /// What it should be a link to.
        target: Name,
    },
    /// An entry below something that is no directory: a file, a dangling or looping symbolic link.
    #[error("{name} lies below something that is not a directory")]
    ParentNotDirectory {
        /// The entry.
        name: Name,
    },
    /// The root itself is given as something else than a directory.
    #[error("the root of the tar is not a directory")]
    RootNotDirectory,
    /// A whiteout that would hide `.`, `..` or nothing, or that is used as a directory.
    #[error("{name} is not a valid whiteout")]
    Whiteout {
        /// The entry.
        name: Name,
    },
    /// An extended attribute that no file system can hold.
    #[error("{name} has an invalid extended attribute")]
    Xattr {
        /// The entry.
        name: Name,
    },
}

impl Refusal {
    /// The refusal inside an I/O error, when that is what it is.
    pub fn of(error: &io::Error) -> Option<&Refusal> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, refusal)
    }
}
