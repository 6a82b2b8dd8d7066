//! Messages to bytes and back, without any I/O.
//!
//! ```text
//! ┌───────────────┬──────────────────┬──────────────┐
//! │ length u32 LE │ descriptors u32  │ JSON         │   the descriptors travel with the first byte
//! └───────────────┴──────────────────┴──────────────┘
//! ```
//!
//! The number of descriptors stands in the header because the kernel joins what was sent in pieces: descriptors that
//! arrive with one read may belong to any frame that begins in it. They keep their order, so each frame takes its
//! number from the front of the queue.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use serde::Serialize;

/// The longest body of a frame. A launch is 10 to 30 kB; a list of 100,000 pids is 700 kB.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// The most descriptors of a frame; the kernel's own limit is 253.
pub const MAX_FDS: usize = 64;
/// Length and number of descriptors.
pub const HEADER_BYTES: usize = 8;
/// How much a reader asks the kernel for at once.
pub const READ_BYTES: usize = 32 * 1024;
/// A buffer that has grown beyond this is given back when it is empty.
pub(crate) const KEEP_BYTES: usize = 4 * 1024;

/// A message cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It is no JSON.
    #[error("cannot write the message as JSON")]
    Json(#[from] serde_json::Error),
    /// It is too long.
    #[error("the message of {bytes} bytes is longer than {MAX_FRAME_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Too many descriptors.
    #[error("the message has {count} descriptors, more than {MAX_FDS}")]
    TooManyFds {
        /// How many.
        count: usize,
    },
}

/// The peer does not keep to the format; the connection is of no use any more.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A frame is too long.
    #[error("the peer announces a message of {bytes} bytes, more than {MAX_FRAME_BYTES}")]
    TooLong {
        /// Its length.
        bytes: u32,
    },
    /// Too many descriptors.
    #[error("the peer announces {count} descriptors, more than {MAX_FDS}")]
    TooManyFds {
        /// How many.
        count: u32,
    },
    /// A whole frame is there, but not its descriptors.
    #[error("the peer announced {announced} descriptors and sent {received}")]
    MissingFds {
        /// How many there should be.
        announced: usize,
        /// How many there are.
        received: usize,
    },
    /// Descriptors that no frame announced.
    #[error("the peer sent {count} descriptors that belong to no message")]
    StrayFds {
        /// How many.
        count: usize,
    },
}

/// Appends one message to `out`.
pub fn encode<T: Serialize>(message: &T, fd_count: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if fd_count > MAX_FDS {
        return Err(EncodeError::TooManyFds { count: fd_count });
    }
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let written = serde_json::to_writer(&mut *out, message);
    let bytes = out.len() - start - HEADER_BYTES;
    if written.is_err() || bytes > MAX_FRAME_BYTES {
        out.truncate(start);
        written?;
        return Err(EncodeError::TooLong { bytes });
    }
    out[start..start + 4].copy_from_slice(&(bytes as u32).to_le_bytes());
    out[start + 4..start + HEADER_BYTES].copy_from_slice(&(fd_count as u32).to_le_bytes());
    Ok(())
}

/// One message that has arrived whole.
#[derive(Debug)]
pub struct Frame {
    /// The JSON.
    pub body: Vec<u8>,
    /// Its descriptors, in the order in which they were sent.
    pub fds: Vec<OwnedFd>,
}

/// Collects what arrives until a message is whole.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Decoder {
    /// With nothing received yet.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Takes what one read has brought.
    pub fn receive(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = OwnedFd>) {
        self.bytes.extend_from_slice(bytes);
        self.fds.extend(fds);
    }

    /// The next whole message, if there is one. After an error the connection must be closed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        let Some((header, rest)) = self.bytes.split_first_chunk::<HEADER_BYTES>() else {
            return if self.bytes.is_empty() { self.check_no_stray_fds() } else { Ok(None) };
        };
        let (length, fd_count) = parse_header(*header)?;
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        if self.fds.len() < fd_count {
            return Err(DecodeError::MissingFds { announced: fd_count, received: self.fds.len() });
        }
        let frame = Frame { body: body.to_vec(), fds: self.fds.drain(..fd_count).collect() };
        self.consume(HEADER_BYTES + length);
        Ok(Some(frame))
    }

    /// Whether the peer stopped in the middle of a message.
    pub fn is_mid_frame(&self) -> bool {
        !self.bytes.is_empty()
    }

    fn check_no_stray_fds(&mut self) -> Result<Option<Frame>, DecodeError> {
        match self.fds.len() {
            0 => Ok(None),
            count => Err(DecodeError::StrayFds { count }),
        }
    }

    fn consume(&mut self, count: usize) {
        self.bytes.drain(..count);
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP_BYTES {
            self.bytes = Vec::new();
        }
    }
}

fn parse_header(header: [u8; HEADER_BYTES]) -> Result<(usize, usize), DecodeError> {
    let [a, b, c, d, e, f, g, h] = header;
    let (bytes, count) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    if bytes as usize > MAX_FRAME_BYTES {
        return Err(DecodeError::TooLong { bytes });
    }
    if count as usize > MAX_FDS {
        return Err(DecodeError::TooManyFds { count });
    }
    Ok((bytes as usize, count as usize))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use proptest::prelude::*;

    use super::*;

    fn some_fd() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    fn encoded(messages: &[String]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            encode(message, 0, &mut bytes).unwrap();
        }
        bytes
    }

    proptest! {
        #[test]
        fn frames_come_back_however_they_are_cut(messages: Vec<String>, cuts in prop::collection::vec(1usize..40, 1..20)) {
            let bytes = encoded(&messages);
            let mut decoder = Decoder::new();
            let mut received: Vec<String> = Vec::new();
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                decoder.receive(piece, []);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    received.push(serde_json::from_slice(&frame.body).unwrap());
                }
                rest = tail;
            }
            prop_assert_eq!(received, messages);
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            let mut decoder = Decoder::new();
            decoder.receive(&bytes, []);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }

    #[test]
    fn lengths_beyond_the_limit_are_refused_at_once() {
        let mut decoder = Decoder::new();
        decoder.receive(&[0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0], []);
        assert_eq!(decoder.next_frame().unwrap_err(), DecodeError::TooLong { bytes: 0x7fff_ffff });
        let mut decoder = Decoder::new();
        decoder.receive(&[1, 0, 0, 0, 65, 0, 0, 0], []);
        assert_eq!(decoder.next_frame().unwrap_err(), DecodeError::TooManyFds { count: 65 });
    }

    #[test]
    fn descriptors_must_match_the_announcement() {
        let mut decoder = Decoder::new();
        decoder.receive(&[1, 0, 0, 0, 2, 0, 0, 0, b'0'], [some_fd()]);
        assert_eq!(decoder.next_frame().unwrap_err(), DecodeError::MissingFds { announced: 2, received: 1 });
        let mut decoder = Decoder::new();
        decoder.receive(&[1, 0, 0, 0, 0, 0, 0, 0, b'0'], [some_fd()]);
        assert!(decoder.next_frame().unwrap().is_some());
        assert_eq!(decoder.next_frame().unwrap_err(), DecodeError::StrayFds { count: 1 });
    }

    #[test]
    fn a_message_too_long_leaves_no_trace() {
        let mut bytes = encoded(&["first".to_owned()]);
        let before = bytes.clone();
        let error = encode(&"x".repeat(MAX_FRAME_BYTES), 0, &mut bytes).unwrap_err();
        assert!(matches!(error, EncodeError::TooLong { .. }));
        assert_eq!(bytes, before);
    }
}
