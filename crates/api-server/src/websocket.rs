//! WebSocket (RFC 6455), as much of it as `GET /containers/{id}/attach/ws` needs; pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What the RFC makes every server append to the client's key.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The longest frame that is taken from a client; terminals send a few bytes at a time.
const MAX_FRAME: u64 = 1 << 20;
/// The longest frame about the connection itself, as the RFC has it.
const MAX_CONTROL: u64 = 125;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn parse(number: u8) -> Option<Self> {
        [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong]
            .into_iter()
            .find(|opcode| *opcode as u8 == number)
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A frame from a client, unmasked. Fragments are passed on as they come: the stream behind has no messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: Opcode,
    pub(crate) payload: Vec<u8>,
}

/// A client that does not keep to the RFC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame is longer than {MAX_FRAME} bytes")]
    TooLong,
    #[error("a frame is not masked")]
    Unmasked,
    #[error("a frame uses an extension that was not agreed on")]
    Extension,
    #[error("a control frame is too long or in pieces")]
    Control,
}

/// Takes the first whole frame out of `bytes`; `None` until it has come whole.
pub(crate) fn decode(bytes: &mut Vec<u8>) -> Result<Option<Frame>, FrameError> {
    let Some(header) = Header::parse(bytes)? else {
        return Ok(None);
    };
    let end = header.len + header.payload;
    if bytes.len() < end {
        return Ok(None);
    }
    let mut payload = bytes[header.len..end].to_vec();
    for (byte, key) in payload.iter_mut().zip(header.mask.iter().cycle()) {
        *byte ^= key;
    }
    bytes.drain(..end);
    Ok(Some(Frame { opcode: header.opcode, payload }))
}

struct Header {
    opcode: Opcode,
    mask: [u8; 4],
    /// Of the header itself.
    len: usize,
    /// Of what follows.
    payload: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        let opcode = Opcode::parse(first & 0x0f).filter(|_| first & 0x70 == 0).ok_or(FrameError::Extension)?;
        if second & 0x80 == 0 {
            return Err(FrameError::Unmasked);
        }
        let (length_bytes, length) = match second & 0x7f {
            126 => (2, big_endian(rest.get(..2))),
            127 => (8, big_endian(rest.get(..8))),
            short => (0, Some(u64::from(short))),
        };
        let Some(length) = length else { return Ok(None) };
        let is_whole = first & 0x80 != 0;
        if opcode.is_control() && (length > MAX_CONTROL || !is_whole) {
            return Err(FrameError::Control);
        }
        if length > MAX_FRAME {
            return Err(FrameError::TooLong);
        }
        let Some(mask) = rest.get(length_bytes..length_bytes + 4) else { return Ok(None) };
        let mask = [mask[0], mask[1], mask[2], mask[3]];
        let payload = usize::try_from(length).map_err(|_| FrameError::TooLong)?;
        Ok(Some(Self { opcode, mask, len: 2 + length_bytes + 4, payload }))
    }
}

fn big_endian(bytes: Option<&[u8]>) -> Option<u64> {
    bytes.map(|bytes| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// A frame of a server: whole, not masked.
pub(crate) fn encode(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode as u8];
    match payload.len() {
        len @ 0..126 => frame.push(u8::try_from(len).unwrap_or_default()),
        len => match u16::try_from(len) {
            Ok(len) => {
                frame.push(126);
                frame.extend_from_slice(&len.to_be_bytes());
            }
            Err(_) => {
                frame.push(127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        },
    }
    frame.extend_from_slice(payload);
    frame
}

/// What `Sec-WebSocket-Accept` must say to a client's key.
pub(crate) fn accept(key: &str) -> String {
    STANDARD.encode(sha1(format!("{key}{MAGIC}").as_bytes()))
}

/// SHA-1, which the handshake uses to tell caches from servers; nothing rests on its strength.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        add_block(&mut state, block);
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn add_block(state: &mut [u32; 5], block: &[u8]) {
    let mut words = [0u32; 80];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    for at in 16..80 {
        words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for (round, word) in words.into_iter().enumerate() {
        let (mix, constant) = match round / 20 {
            0 => ((b & c) | (!b & d), 0x5a82_7999),
            1 => (b ^ c ^ d, 0x6ed9_eba1),
            2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6),
        };
        let next = a.rotate_left(5).wrapping_add(mix).wrapping_add(e).wrapping_add(constant).wrapping_add(word);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    for (old, new) in state.iter_mut().zip([a, b, c, d, e]) {
        *old = old.wrapping_add(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_gets_its_answer() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let long = sha1(&[b'a'; 200]);
        assert_eq!(long.map(|byte| format!("{byte:02x}")).concat(), "e61cfffe0d9195a525fc6cf06ca2d77119c24a40");
    }

    #[test]
    fn the_frames_of_the_rfc_are_read() {
        let mut bytes = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58, 0xff];
        let hello = Frame { opcode: Opcode::Text, payload: b"Hello".to_vec() };
        assert_eq!(decode(&mut bytes), Ok(Some(hello)));
        assert_eq!(bytes, [0xff], "what follows stays");
    }

    #[test]
    fn a_frame_in_parts_is_waited_for() {
        let whole = masked(Opcode::Binary, &[7; 300]);
        for len in 0..whole.len() {
            assert_eq!(decode(&mut whole[..len].to_vec()), Ok(None), "{len}");
        }
        assert_eq!(decode(&mut whole.clone()).unwrap().unwrap().payload, [7; 300]);
    }

    #[test]
    fn what_the_rfc_forbids_is_refused() {
        for (bytes, error) in [
            (vec![0x81, 0x05], FrameError::Unmasked),
            (vec![0xc1, 0x85], FrameError::Extension),
            (vec![0x83, 0x85], FrameError::Extension),
            (vec![0x89, 0xfe, 0x00, 0x7e], FrameError::Control),
            (vec![0x09, 0x80], FrameError::Control),
            (vec![0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0], FrameError::TooLong),
        ] {
            assert_eq!(decode(&mut bytes.clone()), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        assert_eq!(encode(Opcode::Binary, b"hi"), b"\x82\x02hi");
        assert_eq!(encode(Opcode::Text, &[0; 126])[..4], [0x81, 126, 0, 126]);
        assert_eq!(encode(Opcode::Binary, &vec![0; 65536])[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    fn masked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut frame = encode(opcode, payload);
        frame[1] |= 0x80;
        let at = frame.len() - payload.len();
        let key = [1, 2, 3, 4];
        frame.splice(at..at, key);
        for (byte, key) in frame[at + 4..].iter_mut().zip(key.iter().cycle()) {
            *byte ^= key;
        }
        frame
    }
}
