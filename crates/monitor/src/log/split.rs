//! Cuts a stream into the lines of a log, as Docker does: at newlines, and after 16 KiB without one.

use std::io::BufRead;

/// A line longer than this is kept in parts (Docker's `defaultBufSize`).
pub(crate) const MAX_PART_BYTES: usize = 16 * 1024;

/// One entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// The bytes, without the newline.
    pub(crate) bytes: &'a [u8],
    /// Whether a newline stood behind them.
    pub(crate) end: PartEnd,
}

/// What stands behind an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartEnd {
    /// A newline.
    Line,
    /// More of the same line, or the end of the stream.
    Open,
}

/// One stream's line that is not complete yet.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    carry: Vec<u8>,
}

impl Splitter {
    /// Takes what was read and hands on what is complete.
    pub(crate) fn push(&mut self, chunk: &[u8], mut emit: impl FnMut(Part<'_>)) {
        let rest = if self.carry.is_empty() { chunk } else { self.fill_carry(chunk, &mut emit) };
        let rest = emit_complete(rest, &mut emit);
        self.carry.extend_from_slice(rest);
    }

    /// Hands on what is left at the end of the stream.
    pub(crate) fn finish(&mut self, mut emit: impl FnMut(Part<'_>)) {
        if !self.carry.is_empty() {
            emit(Part { bytes: &self.carry, end: PartEnd::Open });
        }
        self.carry = Vec::new();
    }

    /// Completes the line that was begun earlier; returns what follows it.
    fn fill_carry<'a>(&mut self, chunk: &'a [u8], emit: &mut impl FnMut(Part<'_>)) -> &'a [u8] {
        let room = MAX_PART_BYTES - self.carry.len();
        let window = &chunk[..chunk.len().min(room + 1)];
        if let Some(newline) = find_newline(window) {
            self.carry.extend_from_slice(&chunk[..newline]);
            emit(Part { bytes: &self.carry, end: PartEnd::Line });
            self.carry.clear();
            return &chunk[newline + 1..];
        }
        if chunk.len() < room {
            self.carry.extend_from_slice(chunk);
            return &[];
        }
        self.carry.extend_from_slice(&chunk[..room]);
        let cut = whole_characters(&self.carry);
        emit(Part { bytes: &self.carry[..cut], end: PartEnd::Open });
        self.carry.drain(..cut);
        // At most three bytes of a character are carried on; the recursion is one deep unless the line goes on for ever.
        if self.carry.is_empty() { &chunk[room..] } else { self.fill_carry(&chunk[room..], emit) }
    }
}

/// Hands on every line and every full part in `bytes`; returns the incomplete rest, which is shorter than a part.
fn emit_complete<'a>(mut bytes: &'a [u8], emit: &mut impl FnMut(Part<'_>)) -> &'a [u8] {
    loop {
        let window = &bytes[..bytes.len().min(MAX_PART_BYTES + 1)];
        if let Some(newline) = find_newline(window) {
            emit(Part { bytes: &bytes[..newline], end: PartEnd::Line });
            bytes = &bytes[newline + 1..];
        } else if bytes.len() >= MAX_PART_BYTES {
            let cut = whole_characters(&bytes[..MAX_PART_BYTES]);
            emit(Part { bytes: &bytes[..cut], end: PartEnd::Open });
            bytes = &bytes[cut..];
        } else {
            return bytes;
        }
    }
}

/// `skip_until` is libc's `memchr`, the only fast search in the standard library for bytes; from memory it cannot fail.
fn find_newline(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let skipped = rest.skip_until(b'\n').unwrap_or(0);
    skipped.checked_sub(1).filter(|last| bytes[*last] == b'\n')
}

/// Where to cut so that no UTF-8 character is torn: Docker cuts anywhere, and so loses it in the JSON.
fn whole_characters(bytes: &[u8]) -> usize {
    let end = bytes.len();
    for back in 1..=3.min(end) {
        let byte = bytes[end - back];
        if byte & 0b1100_0000 == 0b1000_0000 {
            continue;
        }
        let length = match byte {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            _ => 1,
        };
        return if length > back { end - back } else { end };
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Vec<u8>, PartEnd)> {
        let mut splitter = Splitter::default();
        let mut parts = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |part| parts.push((part.bytes.to_vec(), part.end)));
        }
        splitter.finish(|part| parts.push((part.bytes.to_vec(), part.end)));
        parts
    }

    fn line(text: &str) -> (Vec<u8>, PartEnd) {
        (text.as_bytes().to_vec(), PartEnd::Line)
    }

    fn open(bytes: &[u8]) -> (Vec<u8>, PartEnd) {
        (bytes.to_vec(), PartEnd::Open)
    }

    #[test]
    fn lines_end_at_newlines() {
        assert_eq!(split(&[b"a\nb\n"]), [line("a"), line("b")]);
        assert_eq!(split(&[b"\n\n"]), [line(""), line("")]);
        assert_eq!(split(&[b"a", b"b", b"\nc"]), [line("ab"), open(b"c")]);
        assert_eq!(split(&[]), []);
    }

    #[test]
    fn long_lines_are_cut_at_16_kib() {
        let long = vec![b'x'; 40_000];
        let expected = [open(&long[..16384]), open(&long[..16384]), open(&long[..40_000 - 32768])];
        assert_eq!(split(&[&long]), expected);
        let pieces: Vec<&[u8]> = long.chunks(1000).collect();
        assert_eq!(split(&pieces), expected);
    }

    #[test]
    fn a_line_of_exactly_16_kib_is_one_entry_when_its_newline_is_there() {
        let mut full = vec![b'x'; MAX_PART_BYTES];
        full.push(b'\n');
        assert_eq!(split(&[&full]), [(full[..MAX_PART_BYTES].to_vec(), PartEnd::Line)]);
        assert_eq!(split(&[&full[..10], &full[10..]]), [(full[..MAX_PART_BYTES].to_vec(), PartEnd::Line)]);
    }

    #[test]
    fn no_character_is_torn() {
        let text = "é".repeat(10_000);
        let mut odd = b"x".to_vec();
        odd.extend_from_slice(text.as_bytes());
        for chunk_len in [odd.len(), 999, 16_384, 16_385] {
            let pieces: Vec<&[u8]> = odd.chunks(chunk_len).collect();
            let parts = split(&pieces);
            assert_eq!(parts.len(), 2, "{chunk_len}");
            for (bytes, _) in &parts {
                assert!(std::str::from_utf8(bytes).is_ok(), "{chunk_len}");
            }
            assert_eq!(parts.concat_bytes(), odd, "{chunk_len}");
        }
    }

    #[test]
    fn nothing_is_lost_whatever_the_pieces() {
        let text: Vec<u8> = (0..200_000u32).map(|n| if n % 7919 == 0 { b'\n' } else { (n % 251) as u8 }).collect();
        for chunk_len in [1, 7, 4096, 16_384, 65_536] {
            let pieces: Vec<&[u8]> = text.chunks(chunk_len).collect();
            assert_eq!(split(&pieces).concat_bytes(), text, "{chunk_len}");
        }
    }

    trait ConcatBytes {
        fn concat_bytes(&self) -> Vec<u8>;
    }

    impl ConcatBytes for Vec<(Vec<u8>, PartEnd)> {
        fn concat_bytes(&self) -> Vec<u8> {
            let mut all = Vec::new();
            for (bytes, end) in self {
                all.extend_from_slice(bytes);
                all.extend_from_slice(if *end == PartEnd::Line { b"\n" } else { b"" });
            }
            all
        }
    }
}
