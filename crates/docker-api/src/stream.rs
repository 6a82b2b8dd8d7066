//! The frames of attach, exec and logs where there is no terminal: `[stream, 0, 0, 0, length as u32 big-endian]`, then the payload.

/// The length of a frame's header.
pub const FRAME_HEADER_LEN: usize = 8;

/// Which stream a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Only in the documentation; nothing sends it.
    Stdin = 0,
    /// The process's standard output.
    Stdout = 1,
    /// The process's standard error.
    Stderr = 2,
    /// An error of the engine, to be shown instead of output.
    SystemError = 3,
}

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which stream the payload belongs to.
    pub stream: StreamKind,
    /// How many bytes follow.
    pub len: u32,
}

impl FrameHeader {
    /// The header as it goes over the wire.
    pub fn encode(self) -> [u8; FRAME_HEADER_LEN] {
        let [a, b, c, d] = self.len.to_be_bytes();
        [self.stream as u8, 0, 0, 0, a, b, c, d]
    }

    /// Reads a header; `None` when its first byte names no stream.
    pub fn decode(bytes: [u8; FRAME_HEADER_LEN]) -> Option<Self> {
        let stream = match bytes[0] {
            0 => StreamKind::Stdin,
            1 => StreamKind::Stdout,
            2 => StreamKind::Stderr,
            3 => StreamKind::SystemError,
            _ => return None,
        };
        let [_, _, _, _, len @ ..] = bytes;
        Some(Self { stream, len: u32::from_be_bytes(len) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = FrameHeader { stream: StreamKind::Stderr, len: 0x0102_0304 };
        assert_eq!(header.encode(), [2, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(FrameHeader::decode(header.encode()), Some(header));
        assert_eq!(FrameHeader::decode([9, 0, 0, 0, 0, 0, 0, 1]), None);
    }
}
