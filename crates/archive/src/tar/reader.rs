//! Reading a tar from a stream.

use std::io::{self, Read};
use std::ops::Range;

use super::{Decoder, Entry, Event};

/// What a tar may ask for at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Number of entries.
    pub entries: u64,
    /// Bytes of one name or link target.
    pub path_bytes: usize,
    /// Components of one name.
    pub path_depth: usize,
    /// Bytes of one entry's PAX and GNU headers together.
    pub extension_bytes: u64,
    /// Bytes of one entry's extended attributes, names included.
    pub xattr_bytes: usize,
    /// Size of one sparse file, holes included.
    pub sparse_bytes: u64,
    /// Segments of one sparse file.
    pub sparse_segments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entries: 2_000_000,
            path_bytes: 4095,
            path_depth: 512,
            extension_bytes: 1 << 20,
            xattr_bytes: 256 << 10,
            sparse_bytes: 8 << 40,
            sparse_segments: 100_000,
        }
    }
}

/// Reads entries one after the other. `Read` on it gives the stored bytes of the entry that `next_entry` returned last (of a sparse
/// file: its segments one after the other); what is not read is skipped.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    decoder: Decoder,
    buffer: Box<[u8]>,
    unread: Range<usize>,
    /// Contents of the current entry that lie at the beginning of `unread`, already seen by the decoder.
    ready: usize,
    next: Option<Box<Entry>>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between entries, or inside of one.
    Open,
    /// Behind the last entry.
    Ended,
}

impl<R: Read> Reader<R> {
    const BUFFER_BYTES: usize = 128 << 10;

    /// Reads with the default limits.
    pub fn new(inner: R) -> Self {
        Self::with_limits(inner, Limits::default())
    }

    /// Reads with other limits.
    pub fn with_limits(inner: R, limits: Limits) -> Self {
        let buffer = vec![0; Self::BUFFER_BYTES].into_boxed_slice();
        Reader { inner, decoder: Decoder::new(limits), buffer, unread: 0..0, ready: 0, next: None, state: State::Open }
    }

    /// The next entry, or `None` at the end of the tar. A refused tar is an error of kind `InvalidData` whose inner error is a
    /// [`Refusal`](crate::Refusal).
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.next.take() {
                return Ok(Some(*entry));
            }
            if self.state == State::Ended {
                return Ok(None);
            }
            self.unread.start += std::mem::take(&mut self.ready);
            self.advance()?;
        }
    }

    /// The stream, at whatever place it was read to.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Lets the decoder take a step, with more input when there is none.
    fn advance(&mut self) -> io::Result<()> {
        if self.unread.is_empty() && !self.refill()? {
            self.decoder.end()?;
            self.state = State::Ended;
            return Ok(());
        }
        let step = self.decoder.decode(&self.buffer[self.unread.clone()])?;
        match step.event {
            Some(Event::Data(length)) => self.ready = length,
            Some(Event::Entry(entry)) => {
                self.next = Some(entry);
                self.unread.start += step.consumed;
            }
            Some(Event::End) => self.state = State::Ended,
            None => self.unread.start += step.consumed,
        }
        Ok(())
    }

    fn refill(&mut self) -> io::Result<bool> {
        let length = read_some(&mut self.inner, &mut self.buffer)?;
        self.unread = 0..length;
        Ok(length > 0)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ready == 0 && self.next.is_none() && self.state == State::Open {
            self.advance()?;
        }
        let length = self.ready.min(buffer.len());
        buffer[..length].copy_from_slice(&self.buffer[self.unread.start..][..length]);
        self.unread.start += length;
        self.ready -= length;
        Ok(length)
    }
}

fn read_some(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
