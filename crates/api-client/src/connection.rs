//! One connection: what goes out, what has come in.

use std::io::{self, Read, Write};

use crate::error::{Error, Result};
use crate::hijack::Socket;
use crate::http::{Head, MAX_HEAD, end_of_head};

/// How much is read at a time.
const READ_SIZE: usize = 32 * 1024;

/// A socket with the bytes that were read beyond what was wanted.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    buffer: Vec<u8>,
    /// Where in `buffer` the unread bytes begin.
    at: usize,
}

impl Connection {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket, buffer: Vec::new(), at: 0 }
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Reads the head of the final answer; `100 Continue` and its kin are passed over.
    pub(crate) fn read_head(&mut self) -> Result<Head> {
        loop {
            let head = self.read_any_head()?;
            if head.status >= 200 || head.status == 101 {
                return Ok(head);
            }
        }
    }

    fn read_any_head(&mut self) -> Result<Head> {
        loop {
            if let Some(end) = end_of_head(self.unread()) {
                let head = Head::parse(&self.unread()[..end])?;
                self.at += end;
                return Ok(head);
            }
            if self.unread().len() > MAX_HEAD {
                return Err(Error::Malformed("the head is too long"));
            }
            if self.fill().map_err(Error::io("reading the answer"))? == 0 {
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection");
                return Err(Error::Io { doing: "reading the answer", source });
            }
        }
    }

    /// Bytes that have been read and not been used.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    pub(crate) fn consume(&mut self, len: usize) {
        self.at += len;
    }

    /// Reads more; returns how many bytes, 0 at the end.
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let len = self.buffer.len();
        self.buffer.resize(len + READ_SIZE, 0);
        let result = loop {
            match self.socket.read(&mut self.buffer[len..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.buffer.truncate(len + result.as_ref().copied().unwrap_or(0));
        result
    }

    /// Takes bytes: first what has been read, then from the socket.
    pub(crate) fn read_some(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.unread().is_empty() {
            if buf.len() >= READ_SIZE {
                return self.socket.read(buf);
            }
            self.fill()?;
        }
        let len = buf.len().min(self.unread().len());
        buf[..len].copy_from_slice(&self.unread()[..len]);
        self.consume(len);
        Ok(len)
    }

    /// The naked socket and what was read from it already.
    pub(crate) fn into_parts(mut self) -> (Socket, Vec<u8>) {
        self.buffer.drain(..self.at);
        (self.socket, self.buffer)
    }
}
