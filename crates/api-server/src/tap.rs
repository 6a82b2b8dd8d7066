//! The stream under hyper: its first line is quoted, and a switch swallows what hyper writes.
//!
//! Docker's hijack answers with heads that hyper does not write (`101 UPGRADED`, or `200` without a length and then raw bytes). So the
//! handler turns the switch, hyper's own head goes nowhere, and the real one is written once hyper has given the stream back.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::request_line::FirstLine;

/// The switch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mute(Arc<AtomicBool>);

impl Mute {
    pub(crate) fn turn_on(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream that can be muted.
#[derive(Debug)]
pub(crate) struct Tap<S> {
    stream: S,
    first_line: FirstLine,
    mute: Mute,
}

impl<S> Tap<S> {
    pub(crate) fn new(stream: S, mute: Mute) -> Self {
        Self { stream, first_line: FirstLine::new(), mute }
    }

    /// The stream, and what has been read from it that nobody has taken.
    pub(crate) fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.first_line.rest())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, first_line, .. } = &mut *self;
        first_line.poll_read(stream, cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.mute.is_on() {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.mute.is_on() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
