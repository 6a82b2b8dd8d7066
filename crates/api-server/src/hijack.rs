//! Taking a connection out of HTTP.

use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use engine::model::AttachTarget;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::tap::Mute;

/// How long a client may take to read the head of its answer before it gets the stream all the same.
const HEAD_LIMIT: Duration = Duration::from_millis(100);
/// Looks in between that cost nothing but a turn of the other tasks.
const QUICK_LOOKS: u32 = 8;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What happens with the connection once HTTP is over.
pub(crate) struct Hijack {
    /// The head to be written, `HTTP/1.1 101 UPGRADED` and so on.
    pub(crate) head: Vec<u8>,
    /// When the stream behind it may begin.
    pub(crate) begin: Begin,
    /// Takes the naked socket.
    pub(crate) take: Box<dyn FnOnce(AttachTarget) -> Work + Send>,
}

/// When the stream behind a head may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At once: nothing comes before the client asks for more.
    AtOnce,
    /// When the head has been read. docker-py reads the head through a buffer and the stream from the socket itself: what arrives
    /// together with the head is lost to it, and containers answer faster than its authors have seen.
    AfterHead,
}

/// Where a handler leaves its hijack.
#[derive(Clone, Default)]
pub(crate) struct HijackSlot {
    slot: Arc<Mutex<Option<Hijack>>>,
    pub(crate) mute: Mute,
}

impl HijackSlot {
    /// Leaves a hijack; from here on nothing that hyper writes reaches the client.
    pub(crate) fn leave(&self, hijack: Hijack) {
        self.mute.turn_on();
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(hijack);
    }

    pub(crate) fn pick_up(&self) -> Option<Hijack> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A stream that can become a socket of its own.
pub(crate) trait IntoSocket: AsyncRead + AsyncWrite + Unpin + Send + Sized + 'static {
    /// The socket that carries the bytes of this stream.
    fn into_socket(self) -> std::io::Result<OwnedFd>;

    /// Whether the client has read all that was written, where that can be known.
    fn is_read(&self) -> bool {
        true
    }
}

impl IntoSocket for UnixStream {
    fn into_socket(self) -> std::io::Result<OwnedFd> {
        self.into_std().map(Into::into)
    }

    fn is_read(&self) -> bool {
        linux::fds::unread_by_peer(self.as_fd()).map_or(true, |waiting| waiting == 0)
    }
}

impl IntoSocket for TcpStream {
    fn into_socket(self) -> std::io::Result<OwnedFd> {
        self.into_std().map(Into::into)
    }
}

impl IntoSocket for tls::ServerStream {
    /// One end of a socket pair; a task copies between the other end and the encrypted connection.
    fn into_socket(mut self) -> std::io::Result<OwnedFd> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let mut ours = UnixStream::from_std(ours)?;
        tokio::spawn(async move {
            // Either side may end without manners; there is nobody to tell.
            let _ = tokio::io::copy_bidirectional(&mut ours, &mut self).await;
        });
        Ok(theirs.into())
    }
}

/// Writes the head and hands the socket over.
pub(crate) async fn hand_over<S: IntoSocket>(mut stream: S, early_input: Bytes, hijack: Hijack) {
    if let Err(error) = stream.write_all(&hijack.head).await {
        tracing::debug!(%error, "the client left before its stream began");
        return;
    }
    if hijack.begin == Begin::AfterHead {
        wait_until_read(&stream).await;
    }
    match stream.into_socket() {
        Ok(socket) => (hijack.take)(AttachTarget { socket, early_input }).await,
        Err(error) => tracing::warn!(%error, "cannot take a connection out of HTTP"),
    }
}

/// Waits until the client has read the head, but not for ever.
async fn wait_until_read(stream: &impl IntoSocket) {
    let end = tokio::time::Instant::now() + HEAD_LIMIT;
    let mut looks = 0;
    while !stream.is_read() && tokio::time::Instant::now() < end {
        looks += 1;
        if looks <= QUICK_LOOKS {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
