//! The bodies of answers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::gone::Peer;

/// How many pieces of a stream may wait for a slow client.
const PIECES_IN_FLIGHT: usize = 16;

/// The body of an answer.
pub(crate) enum ReplyBody {
    /// Known whole; `None` once it is sent.
    Whole(Option<Bytes>),
    /// As it comes.
    Stream(Stream),
}

/// Pieces from a task.
pub(crate) struct Stream {
    pieces: mpsc::Receiver<Piece>,
    gone: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

type Piece = Result<Bytes, Aborted>;

/// An answer that cannot be finished: the connection is cut, so that the client does not take it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut short")]
pub(crate) struct Aborted;

/// The other end of a [`ReplyBody::Stream`].
#[derive(Debug, Clone)]
pub(crate) struct Writer(mpsc::Sender<Piece>);

/// The client does not read any more.
#[derive(Debug)]
pub(crate) struct ClientGone;

impl Writer {
    /// Sends a piece; waits while the client is slow.
    pub(crate) async fn send(&self, bytes: impl Into<Bytes>) -> Result<(), ClientGone> {
        self.0.send(Ok(bytes.into())).await.map_err(|_| ClientGone)
    }

    /// Cuts the connection.
    pub(crate) async fn abort(self) {
        let _ = self.0.send(Err(Aborted)).await;
    }

    /// Completes when the client is gone.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

impl ReplyBody {
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }

    /// A stream whose client is watched, for those that may be silent for long.
    pub(crate) fn watched(peer: Peer) -> (Writer, Self) {
        let (sender, pieces) = mpsc::channel(PIECES_IN_FLIGHT);
        (Writer(sender), Self::Stream(Stream { pieces, gone: Some(Box::pin(peer.gone())) }))
    }

    /// A stream that always has something to write.
    pub(crate) fn busy() -> (Writer, Self) {
        let (sender, pieces) = mpsc::channel(PIECES_IN_FLIGHT);
        (Writer(sender), Self::Stream(Stream { pieces, gone: None }))
    }
}

impl From<Vec<u8>> for ReplyBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole((!bytes.is_empty()).then(|| bytes.into()))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.poll(cx).map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        let piece = self.pieces.poll_recv(cx);
        if piece.is_pending() && self.gone.as_mut().is_some_and(|gone| gone.as_mut().poll(cx).is_ready()) {
            self.gone = None;
            self.pieces.close();
            return Poll::Ready(Some(Err(Aborted)));
        }
        piece
    }
}
