//! Writing a tar to a stream.

use std::io::{self, Write};

use super::header::BLOCK;
use super::{Device, EntryKind, Metadata, Timestamp};

/// The largest numbers that fit the octal digits of a field.
const SIZE_MAX: u64 = 0o777_7777_7777;
const ID_MAX: u32 = 0o777_7777;
const NAME_BYTES: usize = 100;

/// What to write of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name, without leading slash; empty for the root. Directories get their `/` by themselves.
    pub path: &'a [u8],
    /// Permissions, owner, time, attributes.
    pub metadata: &'a Metadata,
    /// What it is.
    pub kind: &'a EntryKind,
}

/// Writes entries one after the other: a plain ustar header where it can say everything, PAX before it where not.
#[derive(Debug)]
pub struct Writer<W: Write> {
    inner: W,
    /// Contents of the current file that are still to come.
    left: u64,
    /// Zeros to write behind them.
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Writes to `inner`.
    pub fn new(inner: W) -> Self {
        Writer { inner, left: 0, padding: 0 }
    }

    /// Writes an entry without contents, or the header of a file whose `size` bytes are then written by `Write`.
    ///
    /// Sparse files are not written: give the file whole.
    pub fn start(&mut self, header: &Header<'_>) -> io::Result<()> {
        self.check_complete()?;
        if matches!(header.kind, EntryKind::File { sparse: Some(_), .. }) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "sparse files cannot be written"));
        }
        let name = written_name(header);
        let records = pax_records(header, &name);
        if !records.is_empty() {
            self.write_pax(&name, &records)?;
        }
        let mut block = Block::new(&name, typeflag(header.kind));
        block.metadata(header.metadata);
        block.kind(header.kind);
        self.inner.write_all(&block.finish())?;
        if let EntryKind::File { size, .. } = header.kind {
            self.left = *size;
            self.padding = padding(*size);
        }
        Ok(())
    }

    /// Writes a file with its contents.
    pub fn file(&mut self, path: &[u8], metadata: &Metadata, contents: &[u8]) -> io::Result<()> {
        let kind = EntryKind::File { size: contents.len() as u64, sparse: None };
        self.start(&Header { path, metadata, kind: &kind })?;
        self.write_all(contents)
    }

    /// Writes the end of the tar and gives the inner writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.check_complete()?;
        self.inner.write_all(&[0; 2 * BLOCK])?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn check_complete(&self) -> io::Result<()> {
        match self.left {
            0 => Ok(()),
            left => {
                let message = format!("{left} bytes of the last file were not written to the tar");
                Err(io::Error::new(io::ErrorKind::InvalidInput, message))
            }
        }
    }

    fn write_pax(&mut self, name: &[u8], records: &[u8]) -> io::Result<()> {
        let base = name.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty()).unwrap_or_default();
        let mut block = Block::new(&[b"PaxHeaders/", base].concat(), b'x');
        block.metadata(&Metadata { mode: 0o644, ..Metadata::default() });
        block.octal(124, 12, records.len() as u64);
        self.inner.write_all(&block.finish())?;
        self.inner.write_all(records)?;
        self.inner.write_all(&[0; BLOCK][..padding(records.len() as u64)])
    }
}

impl<W: Write> Write for Writer<W> {
    /// Takes contents of the current file, not more than its header said.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let written = if allowed == 0 { 0 } else { self.inner.write(&bytes[..allowed])? };
        self.left -= written as u64;
        if self.left == 0 {
            let padding = std::mem::take(&mut self.padding);
            self.inner.write_all(&[0; BLOCK][..padding])?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

/// Directories end with a slash, as every tar writes them; the root is `./`.
fn written_name(header: &Header<'_>) -> Vec<u8> {
    match header.kind {
        EntryKind::Directory if header.path.is_empty() => b"./".to_vec(),
        EntryKind::Directory if header.path.ends_with(b"/") => header.path.to_vec(),
        EntryKind::Directory => [header.path, b"/"].concat(),
        _ => header.path.to_vec(),
    }
}

fn typeflag(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::File { .. } => b'0',
        EntryKind::HardLink { .. } => b'1',
        EntryKind::Symlink { .. } => b'2',
        EntryKind::CharDevice(_) => b'3',
        EntryKind::BlockDevice(_) => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    }
}

fn link_target(kind: &EntryKind) -> &[u8] {
    match kind {
        EntryKind::Symlink { target } | EntryKind::HardLink { target } => target,
        _ => &[],
    }
}

/// What the ustar header has no room for.
fn pax_records(header: &Header<'_>, name: &[u8]) -> Vec<u8> {
    let metadata = header.metadata;
    let mut records = Vec::new();
    if name.len() > NAME_BYTES {
        record(&mut records, b"path", name);
    }
    let target = link_target(header.kind);
    if target.len() > NAME_BYTES {
        record(&mut records, b"linkpath", target);
    }
    if let EntryKind::File { size: size @ SIZE_MAX.., .. } = header.kind {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], metadata.uid), (b"gid", metadata.gid)] {
        if id > ID_MAX {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    if !fits_header(metadata.mtime) {
        record(&mut records, b"mtime", decimal(metadata.mtime).as_bytes());
    }
    for xattr in &metadata.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", xattr.name.as_slice()].concat(), &xattr.value);
    }
    records
}

fn fits_header(time: Timestamp) -> bool {
    time.nanoseconds == 0 && (0..=SIZE_MAX as i64).contains(&time.seconds)
}

/// Seconds as a decimal fraction. Before 1970 the fraction counts backwards, unlike in [`Timestamp`].
fn decimal(time: Timestamp) -> String {
    let (sign, seconds, nanoseconds) = match (time.seconds < 0, time.nanoseconds) {
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanoseconds) => ("-", time.seconds.unsigned_abs() - 1, 1_000_000_000 - nanoseconds),
        (false, nanoseconds) => ("", time.seconds.unsigned_abs(), nanoseconds),
    };
    match nanoseconds {
        0 => format!("{sign}{seconds}"),
        _ => format!("{sign}{seconds}.{}", format!("{nanoseconds:09}").trim_end_matches('0')),
    }
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length += 1;
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// A header block in the making.
struct Block([u8; BLOCK]);

impl Block {
    fn new(name: &[u8], typeflag: u8) -> Self {
        let mut block = Block([0; BLOCK]);
        let shown = name.len().min(NAME_BYTES);
        block.bytes(0, &name[..shown]);
        block.0[156] = typeflag;
        block.bytes(257, b"ustar\x0000");
        block
    }

    fn metadata(&mut self, metadata: &Metadata) {
        self.octal(100, 8, u64::from(metadata.mode & 0o7777));
        self.octal(108, 8, u64::from(metadata.uid.min(ID_MAX)));
        self.octal(116, 8, u64::from(metadata.gid.min(ID_MAX)));
        self.octal(124, 12, 0);
        let seconds = u64::try_from(metadata.mtime.seconds).unwrap_or(0);
        self.octal(136, 12, seconds.min(SIZE_MAX));
    }

    fn kind(&mut self, kind: &EntryKind) {
        let target = link_target(kind);
        self.bytes(157, &target[..target.len().min(NAME_BYTES)]);
        match kind {
            EntryKind::File { size, .. } => self.octal(124, 12, (*size).min(SIZE_MAX)),
            EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => self.device(*device),
            _ => {}
        }
    }

    fn device(&mut self, device: Device) {
        self.octal(329, 8, u64::from(device.major));
        self.octal(337, 8, u64::from(device.minor));
    }

    fn octal(&mut self, at: usize, width: usize, value: u64) {
        // By hand: a header has ten of them, and a layer may have 100,000 headers.
        let mut rest = value;
        for digit in self.0[at..at + width - 1].iter_mut().rev() {
            *digit = b'0' + (rest & 7) as u8;
            rest >>= 3;
        }
        debug_assert_eq!(rest, 0, "{value:o} does not fit into {width} bytes");
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.bytes(148, b"        ");
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.bytes(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Reader, Xattr};
    use std::io::Read;

    fn check(path: &[u8], metadata: Metadata, kind: EntryKind) {
        let mut writer = Writer::new(Vec::new());
        writer.start(&Header { path, metadata: &metadata, kind: &kind }).unwrap();
        if let EntryKind::File { size, .. } = kind {
            io::copy(&mut io::repeat(7).take(size), &mut writer).unwrap();
        }
        writer.file(b"last", &Metadata::default(), b"end").unwrap();
        let tar = writer.finish().unwrap();
        let mut reader = Reader::new(tar.as_slice());
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!((entry.path.as_slice(), &entry.metadata, &entry.kind), (path, &metadata, &kind));
        assert_eq!(reader.next_entry().unwrap().unwrap().path, b"last");
        let mut contents = String::new();
        reader.read_to_string(&mut contents).unwrap();
        assert_eq!(contents, "end");
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn what_we_write_we_read() {
        let plain = Metadata { mode: 0o4755, uid: 1000, gid: 50, mtime: time(1_700_000_000, 0), xattrs: vec![] };
        check(b"file", plain.clone(), EntryKind::File { size: 1000, sparse: None });
        check(b"empty", plain.clone(), EntryKind::File { size: 0, sparse: None });
        check(b"", plain.clone(), EntryKind::Directory);
        check(b"a/b", plain.clone(), EntryKind::Directory);
        check(&[b'x'; 100], plain.clone(), EntryKind::Fifo);
        check(&[&[b'x'; 200][..], b"/", &[b'y'; 250]].concat(), plain.clone(), EntryKind::Directory);
        check(b"link", plain.clone(), EntryKind::Symlink { target: vec![b't'; 3000] });
        check(b"hard", plain.clone(), EntryKind::HardLink { target: b"file".to_vec() });
        check(b"null", plain.clone(), EntryKind::CharDevice(Device { major: 1, minor: 3 }));
        check(b"disk", plain.clone(), EntryKind::BlockDevice(Device { major: 259, minor: 70_000 }));
        let xattrs = vec![
            Xattr { name: b"security.capability".to_vec(), value: vec![0, 1, 2, b'\n', b'='] },
            Xattr { name: b"user.empty".to_vec(), value: vec![] },
        ];
        let mtime = time(1, 123_456_789);
        let rich = Metadata { mode: 0o644, uid: 3_000_000_000, gid: 2_097_152, mtime, xattrs };
        check("h\u{e4}\u{df}lich\n".as_bytes(), rich, EntryKind::File { size: 512, sparse: None });
        for mtime in [time(-1, 0), time(-2, 500_000_000), time(0o777_7777_7777, 0), time(0o1000_0000_0000, 1)] {
            check(b"t", Metadata { mtime, ..plain.clone() }, EntryKind::Fifo);
        }
    }

    fn time(seconds: i64, nanoseconds: u32) -> Timestamp {
        Timestamp { seconds, nanoseconds }
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [80, 85, 86, 87, 88, 89, 90, 91, 92, 980, 985, 986, 987, 988, 989, 990] {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; length]);
            let stated: usize = String::from_utf8_lossy(&records).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(stated, records.len());
        }
    }

    #[test]
    fn an_incomplete_file_is_noticed() {
        let mut writer = Writer::new(Vec::new());
        let kind = EntryKind::File { size: 10, sparse: None };
        writer.start(&Header { path: b"f", metadata: &Metadata::default(), kind: &kind }).unwrap();
        assert_eq!(writer.write(&[0; 100]).unwrap(), 10);
        assert_eq!(writer.write(&[0; 1]).unwrap(), 0);
        writer.start(&Header { path: b"f", metadata: &Metadata::default(), kind: &kind }).unwrap();
        assert!(writer.finish().is_err());
    }
}
