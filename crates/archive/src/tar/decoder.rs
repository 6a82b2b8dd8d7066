//! The tar format as a state machine without I/O: bytes in, entries out.

use super::header::{BLOCK, GnuSparse, RawHeader, RawSegment, gnu_sparse_extension};
use super::interpret::{self, Pending};
use super::{Entry, Limits};
use crate::Refusal;

/// What the decoder has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An entry; its stored bytes follow as [`Event::Data`].
    Entry(Box<Entry>),
    /// The first so many bytes that were consumed are contents of the last entry.
    Data(usize),
    /// The end of the tar. What follows belongs to no entry.
    End,
}

/// One step: how many bytes were taken, and what they meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Bytes taken from the input.
    pub consumed: usize,
    /// What was found, if anything: without an event, more input is needed (or the tar has ended).
    pub event: Option<Event>,
}

/// Decodes a tar that arrives in pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// Where in the tar the next byte to be taken is.
    offset: u64,
    entries: u64,
    block: Box<[u8; BLOCK]>,
    filled: usize,
    phase: Phase,
    pending: Pending,
}

#[derive(Debug)]
enum Phase {
    /// The next block is a header or zeros.
    Header,
    /// The next block must be zeros: the second half of the end.
    SecondZero,
    /// Blocks of a PAX or GNU header's contents; how many bytes are still missing.
    Extension {
        typeflag: u8,
        missing: u64,
        contents: Vec<u8>,
    },
    /// Further blocks of a GNU sparse map, behind this header.
    GnuSparse {
        header: Box<[u8; BLOCK]>,
        segments: Vec<RawSegment>,
        size: u64,
    },
    /// A PAX 1.0 sparse map, in the first blocks of the contents.
    SparseMap {
        header: Box<[u8; BLOCK]>,
        text: Vec<u8>,
        lines: usize,
    },
    /// Contents of an entry, then padding.
    Data {
        left: u64,
        padding: u64,
    },
    Ended,
}

impl Decoder {
    /// A decoder at the beginning of a tar.
    pub fn new(limits: Limits) -> Self {
        Decoder {
            limits,
            offset: 0,
            entries: 0,
            block: Box::new([0; BLOCK]),
            filled: 0,
            phase: Phase::Header,
            pending: Pending::default(),
        }
    }

    /// Takes as much of `input` as leads to the next event.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Refusal> {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            match &mut self.phase {
                Phase::Ended => {
                    self.offset += rest.len() as u64;
                    return Ok(Step { consumed: input.len(), event: None });
                }
                Phase::Data { left: 0, padding: 0 } => self.phase = Phase::Header,
                _ if rest.is_empty() => return Ok(Step { consumed, event: None }),
                Phase::Data { left: 0, padding } => {
                    let taken = rest.len().min(usize::try_from(*padding).unwrap_or(usize::MAX));
                    *padding -= taken as u64;
                    self.offset += taken as u64;
                    consumed += taken;
                }
                // Padding that came before goes in a step of its own, so that the data are the first bytes of a step.
                Phase::Data { .. } if consumed > 0 => return Ok(Step { consumed, event: None }),
                Phase::Data { left, .. } => {
                    let taken = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    self.offset += taken as u64;
                    return Ok(Step { consumed: taken, event: Some(Event::Data(taken)) });
                }
                _ => {
                    consumed += self.fill(rest);
                    if self.filled == BLOCK {
                        self.filled = 0;
                        if let Some(event) = self.on_block()? {
                            return Ok(Step { consumed, event: Some(event) });
                        }
                    }
                }
            }
        }
    }

    /// Whether the tar may end here: behind its end mark, or (as all readers allow) without one between two entries.
    pub fn end(&self) -> Result<(), Refusal> {
        let between_entries = match self.phase {
            Phase::Header | Phase::Data { left: 0, padding: 0 } => self.filled == 0 && self.pending.is_empty(),
            Phase::SecondZero => self.filled == 0,
            _ => false,
        };
        let ended = matches!(self.phase, Phase::Ended);
        if ended || between_entries { Ok(()) } else { Err(Refusal::Truncated { offset: self.offset }) }
    }

    /// How many bytes have been taken.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn fill(&mut self, input: &[u8]) -> usize {
        let taken = input.len().min(BLOCK - self.filled);
        self.block[self.filled..self.filled + taken].copy_from_slice(&input[..taken]);
        self.filled += taken;
        self.offset += taken as u64;
        taken
    }

    fn on_block(&mut self) -> Result<Option<Event>, Refusal> {
        let phase = std::mem::replace(&mut self.phase, Phase::Header);
        match phase {
            Phase::Header => self.on_header(),
            Phase::SecondZero if self.block.iter().all(|byte| *byte == 0) => {
                self.phase = Phase::Ended;
                Ok(Some(Event::End))
            }
            Phase::SecondZero => Err(Refusal::LoneZeroBlock { offset: self.offset - 2 * BLOCK as u64 }),
            Phase::Extension { typeflag, missing, contents } => self.on_extension(typeflag, missing, contents),
            Phase::GnuSparse { header, segments, size } => self.on_gnu_sparse(header, segments, size),
            Phase::SparseMap { header, text, lines } => self.on_sparse_map(header, text, lines),
            Phase::Data { .. } | Phase::Ended => Ok(None),
        }
    }

    fn on_header(&mut self) -> Result<Option<Event>, Refusal> {
        let at = self.offset - BLOCK as u64;
        if self.block.iter().all(|byte| *byte == 0) {
            if !self.pending.is_empty() {
                return Err(Refusal::Extension { reason: "no entry follows it", offset: at });
            }
            self.phase = Phase::SecondZero;
            return Ok(None);
        }
        let block = self.block.clone();
        let header = RawHeader::parse(&block, at)?;
        self.pending.starts_at(at);
        match header.typeflag() {
            typeflag @ (b'x' | b'g' | b'L' | b'K') => {
                let size = self.pending.admit(&header, &self.limits)?;
                self.phase = Phase::Extension { typeflag, missing: size, contents: Vec::new() };
                if size == 0 { self.on_extension(typeflag, 0, Vec::new()) } else { Ok(None) }
            }
            b'S' => {
                let GnuSparse { segments, continues, size } = header.gnu_sparse()?;
                if continues {
                    self.phase = Phase::GnuSparse { header: block, segments, size };
                    return Ok(None);
                }
                self.entry(&header, Some(interpret::Sparse { segments, size, map_bytes: 0 }))
            }
            _ if self.pending.sparse_map_in_contents() => {
                self.phase = Phase::SparseMap { header: block, text: Vec::new(), lines: 0 };
                Ok(None)
            }
            _ => self.entry(&header, None),
        }
    }

    fn on_extension(&mut self, typeflag: u8, missing: u64, mut contents: Vec<u8>) -> Result<Option<Event>, Refusal> {
        let taken = missing.min(BLOCK as u64);
        contents.extend_from_slice(&self.block[..taken as usize]);
        match missing - taken {
            0 => self.pending.add(typeflag, contents, self.offset)?,
            missing => self.phase = Phase::Extension { typeflag, missing, contents },
        }
        Ok(None)
    }

    fn on_gnu_sparse(
        &mut self,
        header: Box<[u8; BLOCK]>,
        mut segments: Vec<RawSegment>,
        size: u64,
    ) -> Result<Option<Event>, Refusal> {
        let (further, more) = gnu_sparse_extension(&self.block, self.offset - BLOCK as u64)?;
        segments.extend(further);
        let header_view = RawHeader::parse(&header, self.pending.start())?;
        interpret::check_segments(segments.len(), &header_view, &self.limits)?;
        if more {
            self.phase = Phase::GnuSparse { header, segments, size };
            return Ok(None);
        }
        self.entry(&header_view, Some(interpret::Sparse { segments, size, map_bytes: 0 }))
    }

    fn on_sparse_map(
        &mut self,
        header: Box<[u8; BLOCK]>,
        mut text: Vec<u8>,
        lines_before: usize,
    ) -> Result<Option<Event>, Refusal> {
        text.extend_from_slice(&self.block[..]);
        // Counted as they come: looking through the whole map again with each block would take time by its square.
        let lines = lines_before + self.block.iter().filter(|byte| **byte == b'\n').count();
        let header_view = RawHeader::parse(&header, self.pending.start())?;
        match interpret::parse_sparse_map(&text, lines, &header_view, &self.limits)? {
            None => {
                self.phase = Phase::SparseMap { header, text, lines };
                Ok(None)
            }
            Some(segments) => {
                let size = self.pending.sparse_size();
                let map_bytes = text.len() as u64;
                self.entry(&header_view, Some(interpret::Sparse { segments, size, map_bytes }))
            }
        }
    }

    fn entry(&mut self, header: &RawHeader<'_>, sparse: Option<interpret::Sparse>) -> Result<Option<Event>, Refusal> {
        let pending = std::mem::take(&mut self.pending);
        let entry = interpret::entry(header, pending, sparse, self.offset, &self.limits)?;
        self.entries += 1;
        if self.entries > self.limits.entries {
            let name = crate::refusal::Name::new(&entry.path);
            return Err(Refusal::Limit { name, what: "entries", limit: self.limits.entries });
        }
        let padding = entry.data_size.next_multiple_of(BLOCK as u64) - entry.data_size;
        self.phase = Phase::Data { left: entry.data_size, padding };
        Ok(Some(Event::Entry(Box::new(entry))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{EntryKind, Header, Metadata, Timestamp, Writer, Xattr};
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        let xattrs = vec![Xattr { name: b"user.x".to_vec(), value: vec![b'v'; 700] }];
        let mtime = Timestamp { seconds: 1, nanoseconds: 5 };
        let rich = Metadata { mode: 0o644, mtime, xattrs, ..Metadata::default() };
        writer.file(b"rich", &rich, &[1; 1000]).unwrap();
        writer.file(&[b'n'; 255], &Metadata::default(), b"").unwrap();
        let link = EntryKind::Symlink { target: vec![b't'; 300] };
        writer.start(&Header { path: b"link", metadata: &rich, kind: &link }).unwrap();
        writer.file(b"block", &Metadata::default(), &[2; 512]).unwrap();
        writer.file(b"last", &Metadata::default(), &[3; 511]).unwrap();
        writer.finish().unwrap()
    }

    /// Everything that a decoder finds in pieces of these sizes: entries, and how many bytes of contents.
    fn decode(tar: &[u8], mut piece: impl FnMut() -> usize) -> (Vec<Entry>, usize) {
        let mut decoder = Decoder::new(Limits::default());
        let (mut entries, mut contents, mut at) = (Vec::new(), 0, 0);
        while at < tar.len() {
            let end = tar.len().min(at + piece().max(1));
            let step = decoder.decode(&tar[at..end]).unwrap();
            match step.event {
                Some(Event::Entry(entry)) => entries.push(*entry),
                Some(Event::Data(length)) => contents += length,
                Some(Event::End) | None => {}
            }
            at += step.consumed;
        }
        decoder.end().unwrap();
        assert_eq!(decoder.offset(), tar.len() as u64);
        (entries, contents)
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_mean_the_same(sizes in prop::collection::vec(1_usize..1500, 1..50)) {
            let tar = sample();
            let whole = decode(&tar, || usize::MAX / 2);
            prop_assert_eq!((whole.0.len(), whole.1), (5, 1000 + 512 + 511));
            let mut sizes = sizes.into_iter().cycle();
            prop_assert_eq!(decode(&tar, || sizes.next().unwrap_or(1)), whole);
        }
    }

    #[test]
    fn offsets_point_to_the_contents() {
        let tar = sample();
        for entry in decode(&tar, || 700).0 {
            assert!(entry.data_offset.is_multiple_of(512) && entry.header_offset < entry.data_offset);
            let contents = &tar[entry.data_offset as usize..][..entry.data_size as usize];
            assert!(contents.iter().all(|byte| *byte == contents[0]), "{:?}", entry.path.escape_ascii());
        }
    }

    #[test]
    fn limits_are_kept() {
        let check = |limits: Limits| {
            let mut decoder = Decoder::new(limits);
            let (tar, mut at) = (sample(), 0);
            while at < tar.len() {
                match decoder.decode(&tar[at..]) {
                    Ok(step) => at += step.consumed,
                    Err(refusal) => return refusal,
                }
            }
            panic!("nothing was refused");
        };
        let is_limit = |refusal| matches!(refusal, Refusal::Limit { .. });
        assert!(is_limit(check(Limits { entries: 3, ..Limits::default() })));
        assert!(is_limit(check(Limits { path_bytes: 250, ..Limits::default() })));
        assert!(is_limit(check(Limits { xattr_bytes: 600, ..Limits::default() })));
        assert!(is_limit(check(Limits { extension_bytes: 500, ..Limits::default() })));
        assert!(is_limit(check(Limits { path_depth: 0, ..Limits::default() })));
    }
}
