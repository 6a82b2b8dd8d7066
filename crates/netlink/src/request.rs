//! A netlink message under construction.

use std::borrow::Cow;

/// The fixed header of every message: length, kind, flags, sequence number, port.
pub(crate) const HEADER_BYTES: usize = 16;

/// `NLM_F_REQUEST`: set on all that we send.
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
/// `NLM_F_DUMP`: answer with all objects.
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`: replace what exists.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`: fail if it exists.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`: make it if it does not exist.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: add at the end of a list.
pub const APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;

/// One message to the kernel, with the words for what it is meant to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    bytes: Vec<u8>,
    purpose: Cow<'static, str>,
}

impl Request {
    /// A message of this kind (`RTM_*`, or subsystem and message for netfilter) whose fixed part after the netlink header is
    /// `body`. `purpose` completes the sentence "cannot …".
    pub fn new(kind: u16, flags: u16, body: &[u8], purpose: impl Into<Cow<'static, str>>) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        pad(&mut bytes);
        Self { bytes, purpose: purpose.into() }
    }

    /// What it is meant to do.
    pub fn purpose(&self) -> &str {
        &self.purpose
    }

    /// Adds an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(start);
        self
    }

    /// Adds an attribute of one byte.
    pub fn byte(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attribute(kind, &[value])
    }

    /// Adds a number in the machine's byte order, as route netlink has them.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order, as netfilter has them.
    pub fn network_number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds a text, with the terminating zero.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
        self
    }

    /// Adds an attribute that holds what `fill` adds.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest_with(kind, &[], fill)
    }

    /// Adds an attribute that holds a fixed part, and behind it what `fill` adds.
    pub fn nest_with(&mut self, kind: u16, body: &[u8], fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.open(kind | NESTED);
        self.bytes.extend_from_slice(body);
        pad(&mut self.bytes);
        fill(self);
        self.close(start);
        self
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start).expect("no attribute of ours comes near 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        pad(&mut self.bytes);
    }

    /// Asks the kernel to confirm this message even when nothing went wrong.
    pub(crate) fn acknowledge(&mut self) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | ACKNOWLEDGE;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// The message as it goes out.
    pub(crate) fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = u32::try_from(self.bytes.len()).expect("no message of ours comes near 4 GiB");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::Attributes;

    #[test]
    fn a_message_has_its_length_kind_flags_and_sequence() {
        let mut request = Request::new(16, CREATE, &[1, 2, 3], "test");
        request.acknowledge();
        let bytes = request.finish(7);
        assert_eq!(bytes, [20, 0, 0, 0, 16, 0, 5, 4, 7, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 0]);
    }

    #[test]
    fn attributes_are_padded_but_not_counted() {
        let mut request = Request::new(16, 0, &[], "test");
        request.text(3, "lo").byte(4, 9);
        assert_eq!(request.finish(0)[16..], [7, 0, 3, 0, b'l', b'o', 0, 0, 5, 0, 4, 0, 9, 0, 0, 0]);
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut request = Request::new(16, 0, &[], "test");
        request.number(1, 5).nest(2, |inner| {
            inner.text(3, "veth").nest_with(4, &[0; 8], |peer| {
                peer.byte(5, 1);
            });
        });
        let bytes = request.finish(0)[HEADER_BYTES..].to_vec();
        let all: Vec<_> = Attributes::new(&bytes).collect();
        assert_eq!((all[0].kind, all[0].number()), (1, Some(5)));
        let inner: Vec<_> = all[1].nested().collect();
        assert_eq!((all[1].kind, inner[0].text()), (2, Some("veth")));
        assert_eq!(
            Attributes::new(&inner[1].value[8..]).next().map(|peer| (peer.kind, peer.value.to_vec())),
            Some((5, vec![1]))
        );
    }
}
