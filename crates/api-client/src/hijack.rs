//! Sockets, and connections that stop being HTTP.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// A connected stream socket.
#[derive(Debug)]
pub enum Socket {
    /// A unix socket (also for TLS and ssh, whose bytes another thread or process wraps).
    Unix(UnixStream),
    /// A TCP socket.
    Tcp(TcpStream),
}

impl Socket {
    /// Says that nothing more will be written; the other side reads the end.
    pub fn close_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tcp(stream) => stream.shutdown(how),
        }
    }

    /// A second handle of the same socket.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buf),
            Self::Tcp(stream) => stream.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buf),
            Self::Tcp(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The raw stream of an attach or an exec: what is written is the process's input, what is read its output.
#[derive(Debug)]
pub struct Hijacked {
    socket: Socket,
    early: Vec<u8>,
    content_type: String,
}

impl Hijacked {
    pub(crate) fn new(socket: Socket, early: Vec<u8>, content_type: String) -> Self {
        Self { socket, early, content_type }
    }

    /// Whether the server says that output comes in frames; `None` where it does not say (before API 1.42, or without an upgrade).
    pub fn is_multiplexed(&self) -> Option<bool> {
        (self.content_type == docker_api::MULTIPLEXED_STREAM).then_some(true)
    }

    /// The socket, and what had been read from it already and comes first.
    pub fn into_parts(self) -> (Socket, Vec<u8>) {
        (self.socket, self.early)
    }

    /// Says that the input is at its end; output goes on.
    pub fn close_write(&self) -> io::Result<()> {
        self.socket.close_write()
    }

    /// A second handle for writing, so that another thread can feed input.
    pub fn writer(&self) -> io::Result<Socket> {
        self.socket.try_clone()
    }
}

impl AsFd for Hijacked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Read for Hijacked {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.early.is_empty() {
            return self.socket.read(buf);
        }
        let len = buf.len().min(self.early.len());
        buf[..len].copy_from_slice(&self.early[..len]);
        self.early.drain(..len);
        Ok(len)
    }
}

impl Write for Hijacked {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => (&*stream).write(buf),
            Socket::Tcp(stream) => (&*stream).write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
