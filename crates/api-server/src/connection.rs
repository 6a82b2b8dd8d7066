//! One client's connection, from accept to close or hijack.

use std::pin::Pin;
use std::time::Duration;

use engine::Engine;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

use crate::body::ServiceResult;
use crate::dispatch::dispatch;
use crate::gone::Peer;
use crate::hijack::{HijackSlot, IntoSocket, hand_over};
use crate::tap::Tap;

/// How long a client may take for a request's head; also how long an idle connection is kept. Docker's value.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// The longest head: filters and build arguments travel in the query.
const MAX_HEAD: usize = 1 << 20;

/// Serves one connection until it ends, is hijacked, or the daemon stops.
pub(crate) async fn serve_connection<S: IntoSocket>(
    stream: S,
    peer: Peer,
    engine: Engine,
    mut stopping: watch::Receiver<bool>,
) {
    let slot = HijackSlot::default();
    let service = Dispatcher { engine, peer, slot: slot.clone() };
    let io = TokioIo::new(Tap::new(stream, slot.mute.clone()));
    let mut connection = http1::Builder::new()
        .half_close(true)
        .title_case_headers(true)
        .max_buf_size(MAX_HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(io, service);
    let mut stopped = std::pin::pin!(async move {
        // The sender lives as long as the server; without it there is nothing to wait for either.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    });
    let mut stop_seen = false;
    let outcome = std::future::poll_fn(|cx| {
        if !stop_seen && stopped.as_mut().poll(cx).is_ready() {
            stop_seen = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx)
    })
    .await;
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
        return;
    }
    let Some(hijack) = slot.pick_up() else {
        return;
    };
    let parts = connection.into_parts();
    // The watching handle goes first: the client must see the end when the container closes the socket.
    drop(parts.service);
    hand_over(parts.io.into_inner().stream, parts.read_buf, hijack).await;
}

/// Gives each request to its handler.
struct Dispatcher {
    engine: Engine,
    peer: Peer,
    slot: HijackSlot,
}

impl Service<http::Request<Incoming>> for Dispatcher {
    type Response = http::Response<crate::body::ReplyBody>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = ServiceResult> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let (engine, peer, slot) = (self.engine.clone(), self.peer.clone(), self.slot.clone());
        Box::pin(async move { Ok(dispatch(engine, request, peer, slot).await) })
    }
}
