//! Extended attributes: inline behind an inode, or once for all inodes that share one.

use std::collections::HashMap;

use crate::{Error, Inode};

const HEADER_BYTES: usize = 12;
const ENTRY_BYTES: usize = 4;
const SHARED_ID_BYTES: usize = 4;
const ALIGNMENT: usize = 4;
/// A count of shared attributes is one byte.
const SHARED_PER_INODE_MAX: usize = u8::MAX as usize;

/// The namespaces that EROFS numbers; the first that fits is taken.
const PREFIXES: &[(&[u8], u8)] = &[
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// The attributes that many inodes have alike, each stored once.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// An attribute's bytes, and where they stand in the shared area once it is laid out.
    places: HashMap<Vec<u8>, Place>,
    area: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Seen so many times while counting.
    Seen(u32),
    /// At this offset of the shared area.
    At(u32),
}

impl Shared {
    /// Counts an inode's attributes; call it for every inode before [`lay_out`](Shared::lay_out).
    pub(crate) fn count(&mut self, inode: &Inode<'_>) {
        for entry in entries(inode) {
            if let Place::Seen(times) = self.places.entry(entry).or_insert(Place::Seen(0)) {
                *times += 1;
            }
        }
    }

    /// Decides what is shared (whatever occurs twice: an identifier of four bytes is shorter than any attribute) and where it stands.
    pub(crate) fn lay_out(&mut self) {
        self.places.retain(|_, place| matches!(place, Place::Seen(2..)));
        let mut entries: Vec<Vec<u8>> = self.places.keys().cloned().collect();
        entries.sort_unstable();
        for entry in entries {
            let at = self.area.len() as u32;
            self.area.extend_from_slice(&entry);
            self.places.insert(entry, Place::At(at));
        }
    }

    /// The shared area's bytes.
    pub(crate) fn area(&self) -> &[u8] {
        &self.area
    }

    /// What stands behind the inode: nothing when it has no attributes.
    pub(crate) fn body(&self, inode: &Inode<'_>, number: usize) -> Result<Body, Error> {
        let (mut shared, mut inline) = (Vec::new(), Vec::new());
        for entry in entries(inode) {
            match self.places.get(&entry) {
                Some(Place::At(at)) if shared.len() < SHARED_PER_INODE_MAX => shared.push(at / ALIGNMENT as u32),
                _ => inline.extend_from_slice(&entry),
            }
        }
        if shared.is_empty() && inline.is_empty() {
            return Ok(Body { bytes: Vec::new(), count: 0 });
        }
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4] = shared.len() as u8;
        shared.iter().for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
        bytes.extend_from_slice(&inline);
        let count = 1 + (bytes.len() - HEADER_BYTES) / SHARED_ID_BYTES;
        let count = u16::try_from(count)
            .map_err(|_| Error::Inconsistent { inode: number, reason: "its extended attributes are too long" })?;
        Ok(Body { bytes, count })
    }
}

/// The attributes behind one inode.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    /// What the inode says of their length.
    pub(crate) count: u16,
}

/// An inode's attributes as they are stored, those left out that EROFS has no number for.
fn entries<'a>(inode: &'a Inode<'_>) -> impl Iterator<Item = Vec<u8>> + 'a {
    inode.xattrs.iter().filter_map(|(name, value)| entry(name, value))
}

fn entry(name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let (suffix, index) = PREFIXES.iter().find_map(|(prefix, index)| Some((name.strip_prefix(*prefix)?, *index)))?;
    let is_acl = matches!(index, 2 | 3);
    // An ACL has no more name behind the prefix, everything else must have some.
    if is_acl != suffix.is_empty() {
        return None;
    }
    let (name_length, value_length) = (u8::try_from(suffix.len()).ok()?, u16::try_from(value.len()).ok()?);
    let mut bytes = Vec::with_capacity(ENTRY_BYTES + suffix.len() + value.len() + ALIGNMENT);
    bytes.extend_from_slice(&[name_length, index]);
    bytes.extend_from_slice(&value_length.to_le_bytes());
    bytes.extend_from_slice(suffix);
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    Some(bytes)
}
