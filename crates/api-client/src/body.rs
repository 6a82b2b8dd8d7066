//! The body of an answer, read as it comes.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::client::Pool;
use crate::connection::Connection;
use crate::http::Framing;

/// The longest line before a chunk: sixteen hexadecimal digits and an extension that nobody sends.
const MAX_CHUNK_LINE: usize = 256;

/// The body of an answer. Read to its end it gives its connection back to be used again; dropped earlier it closes it.
#[derive(Debug)]
pub struct Body {
    /// `None` once the end is reached.
    connection: Option<Connection>,
    state: State,
    pool: Option<Arc<Pool>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are left of the body or of the chunk.
    Left(u64),
    ChunkLeft(u64),
    /// A chunk's length comes next.
    ChunkLine,
    UntilClose,
}

impl Body {
    /// `pool` gets the connection back; `None` for one that ends with its answer.
    pub(crate) fn new(connection: Connection, framing: Framing, pool: Option<Arc<Pool>>) -> Self {
        let state = match framing {
            Framing::Length(length) => State::Left(length),
            Framing::Chunked => State::ChunkLine,
            Framing::UntilClose => State::UntilClose,
        };
        let mut body = Self { connection: Some(connection), state, pool };
        if state == State::Left(0) {
            body.finish();
        }
        body
    }

    /// Everything, at most `limit` bytes.
    pub(crate) fn read_all(mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.by_ref().take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether a read gives bytes that have come already.
    pub fn has_buffered(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| !connection.unread().is_empty())
    }

    fn finish(&mut self) {
        let connection = self.connection.take();
        if let (Some(pool), Some(connection)) = (self.pool.take(), connection) {
            pool.give_back(connection);
        }
    }

    fn read_until(&mut self, left: u64, buf: &mut [u8]) -> io::Result<(usize, u64)> {
        let Some(connection) = &mut self.connection else {
            return Ok((0, 0));
        };
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let len = connection.read_some(&mut buf[..want])?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((len, left - len as u64))
    }

    /// Reads the line before a chunk, and what follows the last one.
    fn next_chunk(&mut self) -> io::Result<()> {
        let line = self.read_line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed chunk");
        let len = u64::from_str_radix(digits, 16).map_err(|_| malformed())?;
        if len > 0 {
            self.state = State::ChunkLeft(len);
            return Ok(());
        }
        while !self.read_line()?.is_empty() {}
        self.finish();
        Ok(())
    }

    fn read_line(&mut self) -> io::Result<String> {
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::UnexpectedEof)?;
        loop {
            if let Some(end) = connection.unread().iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&connection.unread()[..end]).trim_end().to_owned();
                connection.consume(end + 1);
                return Ok(line);
            }
            if connection.unread().len() > MAX_CHUNK_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "malformed chunk"));
            }
            if connection.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if self.connection.is_none() {
                return Ok(0);
            }
            match self.state {
                State::UntilClose => {
                    let len = self.connection.as_mut().map_or(Ok(0), |connection| connection.read_some(buf))?;
                    if len == 0 {
                        self.connection = None;
                    }
                    return Ok(len);
                }
                State::Left(left) => {
                    let (len, left) = self.read_until(left, buf)?;
                    self.state = State::Left(left);
                    if left == 0 {
                        self.finish();
                    }
                    return Ok(len);
                }
                State::ChunkLeft(left) => {
                    let (len, left) = self.read_until(left, buf)?;
                    self.state = State::ChunkLeft(left);
                    if left == 0 {
                        self.state = State::ChunkLine;
                        self.end_chunk()?;
                    }
                    return Ok(len);
                }
                State::ChunkLine => self.next_chunk()?,
            }
        }
    }
}

impl Body {
    /// Every chunk ends with an empty line.
    fn end_chunk(&mut self) -> io::Result<()> {
        if self.read_line()?.is_empty() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "malformed chunk"))
    }
}

impl Body {
    /// The socket to be polled for more; `None` once the end is reached.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(|connection| connection.socket.as_fd())
    }
}
