//! Messages that wait until their socket takes them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;

use crate::frame::{EncodeError, KEEP_BYTES, encode};
use crate::socket::{self, Waiting};

/// Messages that wait until the socket takes them.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// How much of `bytes` is sent already.
    sent: usize,
    /// Descriptors, and the place in `bytes` of the message they travel with.
    fds: VecDeque<(usize, Vec<OwnedFd>)>,
}

impl Outbox {
    /// With nothing to send.
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// Puts a message at the end of the queue.
    pub fn push<T: Serialize>(&mut self, message: &T, fds: Vec<OwnedFd>) -> Result<(), EncodeError> {
        let start = self.bytes.len();
        encode(message, fds.len(), &mut self.bytes)?;
        if !fds.is_empty() {
            self.fds.push_back((start, fds));
        }
        Ok(())
    }

    /// How many bytes wait.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Sends as much as the socket takes. `WouldBlock` means that some is left: wait until it is writable.
    pub fn flush(&mut self, socket: BorrowedFd<'_>, waiting: Waiting) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            self.send_once(socket, waiting)?;
        }
        self.sent = 0;
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_BYTES);
        Ok(())
    }

    /// One system call: up to the next message that has descriptors, so that they leave with its first byte.
    fn send_once(&mut self, socket: BorrowedFd<'_>, waiting: Waiting) -> io::Result<()> {
        let with_fds = self.fds.front().is_some_and(|(start, _)| *start == self.sent);
        let end = self.fds.get(usize::from(with_fds)).map_or(self.bytes.len(), |(start, _)| *start);
        let chunk = &self.bytes[self.sent..end];
        let sent = match self.fds.front().filter(|_| with_fds) {
            Some((_, fds)) => {
                let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                socket::send(socket, chunk, &borrowed, waiting)?
            }
            None => socket::send(socket, chunk, &[], waiting)?,
        };
        if with_fds && sent > 0 {
            self.fds.pop_front();
        }
        self.sent += sent;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::frame::Decoder;

    fn some_fd() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn descriptors_stay_with_their_message_when_reads_are_joined() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::new();
        outbox.push(&"none", Vec::new()).unwrap();
        outbox.push(&"two", vec![some_fd(), some_fd()]).unwrap();
        outbox.push(&"none again", Vec::new()).unwrap();
        outbox.push(&"one", vec![some_fd()]).unwrap();
        outbox.flush(here.as_fd(), Waiting::Block).unwrap();
        drop(here);
        let mut decoder = Decoder::new();
        while socket::receive(there.as_fd(), &mut decoder, Waiting::Block).unwrap() > 0 {}
        let mut counts = Vec::new();
        while let Some(frame) = decoder.next_frame().unwrap() {
            counts.push((serde_json::from_slice::<String>(&frame.body).unwrap(), frame.fds.len()));
        }
        let expected = [("none", 0), ("two", 2), ("none again", 0), ("one", 1)];
        assert_eq!(counts, expected.map(|(text, count)| (text.to_owned(), count)));
    }

    #[test]
    fn a_full_socket_keeps_the_rest_in_the_outbox() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::new();
        let text = "x".repeat(900_000);
        outbox.push(&text, vec![some_fd()]).unwrap();
        let error = outbox.flush(here.as_fd(), Waiting::DontWait).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(outbox.waiting_bytes() > 0);
        let mut decoder = Decoder::new();
        let frame = loop {
            let _ = outbox.flush(here.as_fd(), Waiting::DontWait);
            socket::receive(there.as_fd(), &mut decoder, Waiting::Block).unwrap();
            if let Some(frame) = decoder.next_frame().unwrap() {
                break frame;
            }
        };
        assert_eq!((frame.body.len(), frame.fds.len()), (text.len() + 2, 1));
        assert_eq!(outbox.waiting_bytes(), 0);
    }
}
