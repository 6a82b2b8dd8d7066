//! What a header and the extensions before it mean together.

use super::header::{BLOCK, Dialect, RawHeader, RawSegment, until_nul};
use super::pax::{Pax, decimal};
use super::{Device, Entry, EntryKind, Limits, Metadata, SparseMap, SparseSegment, Timestamp, Xattr};
use crate::Refusal;
use crate::refusal::Name;

/// The largest size that fits a ustar header's eleven octal digits.
const USTAR_SIZE_MAX: u64 = 0o777_7777_7777;
/// The largest numbers that Linux's 32-bit device encoding holds.
const MAJOR_MAX: u64 = 0xfff;
const MINOR_MAX: u64 = 0xf_ffff;
/// `(uid_t) -1` means "leave it as it is" to chown; it can own nothing.
const ID_MAX: u64 = u32::MAX as u64 - 1;
/// What Linux allows for one attribute's name, and what EROFS can store of its value.
const XATTR_NAME_MAX: usize = 255;
const XATTR_VALUE_MAX: usize = u16::MAX as usize;
/// Overlayfs obeys these; only the engine may write them.
const OVERLAY_XATTRS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// The extension headers that came before an entry.
#[derive(Debug, Default)]
pub(super) struct Pending {
    start: Option<u64>,
    bytes: u64,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

/// Where a sparse file has its bytes, before it is checked.
#[derive(Debug)]
pub(super) struct Sparse {
    pub(super) segments: Vec<RawSegment>,
    pub(super) size: u64,
    /// Bytes of the contents that were the map.
    pub(super) map_bytes: u64,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.pax.is_none()
    }

    pub(super) fn starts_at(&mut self, offset: u64) {
        self.start.get_or_insert(offset);
    }

    /// Where the entry's first header begins.
    pub(super) fn start(&self) -> u64 {
        self.start.unwrap_or_default()
    }

    /// Checks that an extension header may stand here, and gives the size of its contents.
    ///
    /// Two of the same kind, or PAX and GNU together, are where readers disagree about which name an entry has and which header
    /// a size applies to (CVE-2025-62518); no writer makes them.
    pub(super) fn admit(&mut self, header: &RawHeader<'_>, limits: &Limits) -> Result<u64, Refusal> {
        let malformed = |reason| Err(Refusal::Extension { reason, offset: header.offset() });
        let gnu = self.long_name.is_some() || self.long_link.is_some();
        match header.typeflag() {
            b'x' if self.pax.is_some() => return malformed("two PAX headers for one entry"),
            b'L' if self.long_name.is_some() => return malformed("two long names for one entry"),
            b'K' if self.long_link.is_some() => return malformed("two long link names for one entry"),
            b'x' | b'g' if gnu => return malformed("a PAX header behind a GNU one"),
            b'g' | b'L' | b'K' if self.pax.is_some() => return malformed("another header behind a PAX one"),
            _ => {}
        }
        let size = header.size()?;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > limits.extension_bytes {
            let name = Name::new(&header.name()?);
            return Err(Refusal::Limit { name, what: "bytes of extended headers", limit: limits.extension_bytes });
        }
        Ok(size)
    }

    /// Adds the contents of an extension header that ended just before `end`.
    pub(super) fn add(&mut self, typeflag: u8, contents: Vec<u8>, end: u64) -> Result<(), Refusal> {
        let offset = end - (contents.len() as u64).next_multiple_of(BLOCK as u64) - BLOCK as u64;
        let malformed = |reason| Refusal::Extension { reason, offset };
        match typeflag {
            b'x' => self.pax = Some(Pax::parse(&contents).map_err(malformed)?),
            b'L' => self.long_name = Some(long(&contents).ok_or(malformed("a long name with a NUL in it"))?),
            b'K' => self.long_link = Some(long(&contents).ok_or(malformed("a long link name with a NUL in it"))?),
            _ => {
                Pax::check_global(&contents).map_err(malformed)?;
                // A global header belongs to no entry.
                self.start = None;
                self.bytes = 0;
            }
        }
        Ok(())
    }

    /// Whether GNU's sparse format 1.0 is announced, whose map is in the contents.
    pub(super) fn sparse_map_in_contents(&self) -> bool {
        self.pax.as_ref().is_some_and(|pax| pax.sparse.major == Some(1) && pax.sparse.minor == Some(0))
    }

    pub(super) fn sparse_size(&self) -> u64 {
        self.pax.as_ref().and_then(|pax| pax.sparse.size).unwrap_or_default()
    }
}

/// A GNU long name: up to the NUL that ends it, and nothing behind that.
fn long(contents: &[u8]) -> Option<Vec<u8>> {
    let name = until_nul(contents);
    contents[name.len()..].iter().all(|byte| *byte == 0).then(|| name.to_vec())
}

/// Puts an entry together. Its header ended just before `end`, its sparse map included.
pub(super) fn entry(
    header: &RawHeader<'_>,
    pending: Pending,
    sparse: Option<Sparse>,
    end: u64,
    limits: &Limits,
) -> Result<Entry, Refusal> {
    let start = pending.start();
    let mut pax = pending.pax.unwrap_or_default();
    let gnu_name = pax.sparse.name.take();
    let raw_name = match gnu_name.or(pax.path.take()).or(pending.long_name) {
        Some(name) => name,
        None => header.name()?,
    };
    let path = clean_path(&raw_name, limits)?;
    let raw_link = pax.link_path.take().or(pending.long_link).unwrap_or_else(|| header.link_name().to_vec());
    let size = stored_size(header, &pax, &path)?;
    let sparse = match sparse {
        Some(sparse) => Some(sparse),
        None => sparse_of_pax(&pax, &path)?,
    };
    let (kind, data_size) = kind(header, &raw_name, &path, raw_link, size, sparse, limits)?;
    let metadata = metadata(header, pax, &path, limits)?;
    Ok(Entry { path, metadata, kind, header_offset: start, data_offset: end, data_size })
}

/// Splits a name at its slashes, drops what means nothing and refuses what climbs.
///
/// Docker cleans `a/../b` to `b` by its text alone, GNU tar skips such names: nobody needs them, and with a symbolic link at `a`
/// they mean something else to everyone.
fn clean_path(raw: &[u8], limits: &Limits) -> Result<Vec<u8>, Refusal> {
    let name = || Name::new(raw);
    if raw.is_empty() {
        return Err(Refusal::InvalidName { name: name(), reason: "it is empty" });
    }
    if raw.len() > limits.path_bytes {
        return Err(Refusal::Limit { name: name(), what: "bytes of a name", limit: limits.path_bytes as u64 });
    }
    let components: Vec<&[u8]> = raw.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if components.contains(&&b".."[..]) {
        return Err(Refusal::Escapes { name: name() });
    }
    if components.iter().any(|part| part.len() > 255) {
        return Err(Refusal::Limit { name: name(), what: "bytes of a name's component", limit: 255 });
    }
    if components.len() > limits.path_depth {
        return Err(Refusal::Limit { name: name(), what: "components of a name", limit: limits.path_depth as u64 });
    }
    Ok(components.join(&b'/'))
}

/// How many bytes of contents the tar has for this entry, by everyone's reckoning.
fn stored_size(header: &RawHeader<'_>, pax: &Pax, path: &[u8]) -> Result<u64, Refusal> {
    let Some(pax_size) = pax.size else { return header.size() };
    // Where the size does not fit, writers leave anything in the header.
    let in_header = header.size().unwrap_or(pax_size);
    if pax_size <= USTAR_SIZE_MAX && in_header != pax_size {
        return Err(Refusal::SizeDisagreement { name: Name::new(path), header: in_header, pax: pax_size });
    }
    Ok(pax_size)
}

/// The map of GNU's sparse formats 0.0 and 0.1.
fn sparse_of_pax(pax: &Pax, path: &[u8]) -> Result<Option<Sparse>, Refusal> {
    if !pax.sparse.any {
        return Ok(None);
    }
    let bad = || Refusal::SparseMap { name: Name::new(path) };
    let oldest = matches!((pax.sparse.major, pax.sparse.minor), (None, None) | (Some(0), Some(0 | 1)));
    let size = pax.sparse.size.filter(|_| oldest && pax.sparse.numbers.len().is_multiple_of(2)).ok_or_else(bad)?;
    let segments = pax.sparse.numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    Ok(Some(Sparse { segments, size, map_bytes: 0 }))
}

pub(super) fn check_segments(count: usize, header: &RawHeader<'_>, limits: &Limits) -> Result<(), Refusal> {
    if count <= limits.sparse_segments {
        return Ok(());
    }
    let name = Name::new(&header.name()?);
    Err(Refusal::Limit { name, what: "parts of a sparse file", limit: limits.sparse_segments as u64 })
}

/// Reads a map of GNU's sparse format 1.0: a count, then offsets and lengths, a line each. `text` has `lines` complete ones; `None`
/// when more are needed.
pub(super) fn parse_sparse_map(
    text: &[u8],
    lines: usize,
    header: &RawHeader<'_>,
    limits: &Limits,
) -> Result<Option<Vec<RawSegment>>, Refusal> {
    /// Twenty digits and the end of the line.
    const LINE_BYTES_MAX: usize = 21;
    let bad = |_| Refusal::Number { field: "sparse map", offset: header.offset() };
    let mut numbers = text.split(|byte| *byte == b'\n').map(decimal);
    let count = match (lines, numbers.next()) {
        (1.., Some(first)) => usize::try_from(first.map_err(bad)?).unwrap_or(usize::MAX),
        _ => 0,
    };
    check_segments(count, header, limits)?;
    let needed = 1 + 2 * count;
    if lines < needed {
        return if text.len() > needed * LINE_BYTES_MAX + BLOCK { Err(bad("")) } else { Ok(None) };
    }
    let mut next = || numbers.next().unwrap_or(Err("")).map_err(bad);
    (0..count).map(|_| Ok((next()?, next()?))).collect::<Result<_, _>>().map(Some)
}

fn kind(
    header: &RawHeader<'_>,
    raw_name: &[u8],
    path: &[u8],
    raw_link: Vec<u8>,
    size: u64,
    sparse: Option<Sparse>,
    limits: &Limits,
) -> Result<(EntryKind, u64), Refusal> {
    let typeflag = header.typeflag();
    let trailing_slash = raw_name.ends_with(b"/");
    if let Some(sparse) = sparse {
        let regular = matches!(typeflag, b'0' | b'7' | 0) || (typeflag == b'S' && header.dialect() == Dialect::Gnu);
        if !regular || trailing_slash {
            return Err(Refusal::SparseMap { name: Name::new(path) });
        }
        return sparse_file(sparse, size, path, limits);
    }
    let kind = match typeflag {
        // The old way to write a directory. GNU tar sees one with '0' too, the others do not.
        0 if trailing_slash => EntryKind::Directory,
        b'0' | b'7' if trailing_slash => {
            return Err(Refusal::InvalidName { name: Name::new(raw_name), reason: "a file's name ends with a slash" });
        }
        b'0' | b'7' | 0 => return Ok((EntryKind::File { size, sparse: None }, size)),
        // All readers agree that a hard link has no contents, whatever its size field says.
        b'1' => return Ok((EntryKind::HardLink { target: link_path(&raw_link, path, limits)? }, 0)),
        b'2' => EntryKind::Symlink { target: symlink_target(raw_link, path, limits)? },
        b'3' => EntryKind::CharDevice(device(header)?),
        b'4' => EntryKind::BlockDevice(device(header)?),
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => return Err(Refusal::UnsupportedType { name: Name::new(path), typeflag: char::from(other) }),
    };
    if size != 0 {
        return Err(Refusal::UnexpectedContents { name: Name::new(path), size });
    }
    Ok((kind, 0))
}

fn sparse_file(sparse: Sparse, size: u64, path: &[u8], limits: &Limits) -> Result<(EntryKind, u64), Refusal> {
    let bad = || Refusal::SparseMap { name: Name::new(path) };
    let limit = |what, limit| Refusal::Limit { name: Name::new(path), what, limit };
    if sparse.size > limits.sparse_bytes {
        return Err(limit("bytes of a sparse file", limits.sparse_bytes));
    }
    if sparse.segments.len() > limits.sparse_segments {
        return Err(limit("parts of a sparse file", limits.sparse_segments as u64));
    }
    let (mut end, mut stored, mut segments) = (0, 0_u64, Vec::new());
    for (offset, length) in sparse.segments {
        let segment_end =
            offset.checked_add(length).filter(|segment_end| *segment_end <= sparse.size).ok_or_else(bad)?;
        if offset < end {
            return Err(bad());
        }
        end = segment_end;
        stored += length;
        if length > 0 {
            segments.push(SparseSegment { offset, length });
        }
    }
    let data_size = size.checked_sub(sparse.map_bytes).filter(|data_size| *data_size == stored).ok_or_else(bad)?;
    Ok((EntryKind::File { size: sparse.size, sparse: Some(SparseMap { segments }) }, data_size))
}

fn device(header: &RawHeader<'_>) -> Result<Device, Refusal> {
    let (major, minor) = header.device()?;
    if major > MAJOR_MAX || minor > MINOR_MAX {
        return Err(Refusal::Number { field: "device number", offset: header.offset() });
    }
    Ok(Device { major: major as u32, minor: minor as u32 })
}

/// What a hard link points to: a name in the same tar, so the same rules hold.
fn link_path(raw: &[u8], path: &[u8], limits: &Limits) -> Result<Vec<u8>, Refusal> {
    match clean_path(raw, limits) {
        Ok(target) => Ok(target),
        Err(Refusal::Escapes { .. }) => Err(Refusal::Escapes { name: Name::new(path) }),
        Err(Refusal::InvalidName { .. }) => Err(Refusal::LinkTarget { name: Name::new(path), target: Name::new(raw) }),
        Err(other) => Err(other),
    }
}

/// A symbolic link may say anything that the kernel can store: it is resolved inside the container alone.
fn symlink_target(raw: Vec<u8>, path: &[u8], limits: &Limits) -> Result<Vec<u8>, Refusal> {
    if raw.is_empty() {
        return Err(Refusal::LinkTarget { name: Name::new(path), target: Name::new(&raw) });
    }
    if raw.len() > limits.path_bytes {
        let name = Name::new(path);
        return Err(Refusal::Limit { name, what: "bytes of a link", limit: limits.path_bytes as u64 });
    }
    Ok(raw)
}

fn metadata(header: &RawHeader<'_>, pax: Pax, path: &[u8], limits: &Limits) -> Result<Metadata, Refusal> {
    let id = |value: u64, field| {
        let value = Some(value).filter(|value| *value <= ID_MAX);
        value.map(|value| value as u32).ok_or(Refusal::Number { field, offset: header.offset() })
    };
    let mtime = match pax.mtime {
        Some(mtime) => mtime,
        None => Timestamp { seconds: header.mtime()?, nanoseconds: 0 },
    };
    Ok(Metadata {
        mode: header.mode()?,
        uid: id(pax.uid.map_or_else(|| header.uid(), Ok)?, "owner")?,
        gid: id(pax.gid.map_or_else(|| header.gid(), Ok)?, "group")?,
        mtime,
        xattrs: xattrs(pax.xattrs, path, limits)?,
    })
}

fn xattrs(mut xattrs: Vec<Xattr>, path: &[u8], limits: &Limits) -> Result<Vec<Xattr>, Refusal> {
    xattrs.retain(|xattr| !is_overlay_xattr(&xattr.name));
    let bad = |xattr: &Xattr| {
        let length = xattr.name.len();
        length == 0 || length > XATTR_NAME_MAX || xattr.name.contains(&0) || xattr.value.len() > XATTR_VALUE_MAX
    };
    if xattrs.iter().any(bad) {
        return Err(Refusal::Xattr { name: Name::new(path) });
    }
    let bytes: usize = xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
    if bytes > limits.xattr_bytes {
        let name = Name::new(path);
        return Err(Refusal::Limit { name, what: "bytes of extended attributes", limit: limits.xattr_bytes as u64 });
    }
    Ok(xattrs)
}

/// Whether overlayfs gives a meaning to this attribute.
pub(crate) fn is_overlay_xattr(name: &[u8]) -> bool {
    OVERLAY_XATTRS.iter().any(|prefix| name.starts_with(prefix))
}
