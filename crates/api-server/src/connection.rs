//! One client's connection, from accept to close or hijack.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

use crate::gone::Peer;
use crate::hijack::{HijackSlot, IntoSocket, hand_over};
use crate::reply::Reply;
use crate::tap::Tap;

/// How long a client may take for a request's head; also how long an idle connection is kept. Docker's value.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// The longest head: filters and build arguments travel in the query.
const MAX_HEAD: usize = 1 << 20;

/// Answers requests.
pub(crate) type Handler = Arc<dyn Fn(http::Request<Incoming>, Peer, HijackSlot) -> ReplyFuture + Send + Sync>;

/// An answer in the making.
pub(crate) type ReplyFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Serves one connection until it ends, is hijacked, or the daemon stops.
pub(crate) async fn serve_connection<S: IntoSocket>(
    stream: S,
    peer: Peer,
    handler: Handler,
    mut stopping: watch::Receiver<bool>,
) {
    let slot = HijackSlot::default();
    let service = Dispatcher { handler, peer, slot: slot.clone() };
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
    let (stream, rest) = parts.io.into_inner().into_parts();
    let early = if rest.is_empty() { parts.read_buf } else { [&parts.read_buf[..], &rest].concat().into() };
    hand_over(stream, early, hijack).await;
}

/// Gives each request to the handler.
struct Dispatcher {
    handler: Handler,
    peer: Peer,
    slot: HijackSlot,
}

impl Service<http::Request<Incoming>> for Dispatcher {
    type Response = Reply;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Infallible>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let reply = (self.handler)(request, self.peer.clone(), self.slot.clone());
        Box::pin(async move { Ok(reply.await) })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::*;
    use crate::body::ReplyBody;
    use crate::hijack::Hijack;

    /// Answers `/hijack` by echoing the socket behind `HEAD`, `/silent` with a stream that never says anything, all else with "OK".
    fn echo(request: http::Request<Incoming>, peer: Peer, slot: HijackSlot) -> ReplyFuture {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            match path.as_str() {
                "/hijack" => {
                    slot.leave(Hijack {
                        begin: crate::hijack::Begin::AtOnce,
                        head: format!("HEAD body={};", body.len()).into_bytes(),
                        take: Box::new(|target| Box::pin(echo_socket(target))),
                    });
                    crate::reply::empty(http::StatusCode::SWITCHING_PROTOCOLS)
                }
                "/silent" => {
                    let (writer, body) = ReplyBody::watched(peer);
                    tokio::spawn(async move { writer.closed().await });
                    crate::reply::stream("text/plain", body)
                }
                _ => http::Response::new(b"OK".to_vec().into()),
            }
        })
    }

    async fn echo_socket(target: engine::model::AttachTarget) {
        let socket = std::os::unix::net::UnixStream::from(target.socket);
        let mut socket = UnixStream::from_std(socket).unwrap();
        socket.write_all(&target.early_input).await.unwrap();
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        socket.write_all(&rest).await.unwrap();
        socket.write_all(b"|end of input").await.unwrap();
    }

    /// Sends pieces with a pause between them, closes the writing side, and reads to the end.
    async fn exchange(pieces: &[&[u8]]) -> String {
        let (client, server) = UnixStream::pair().unwrap();
        let peer = Peer::new(rustix::io::fcntl_dupfd_cloexec(&server, 0).unwrap());
        let (_stop, stopping) = watch::channel(false);
        let served = tokio::spawn(serve_connection(server, peer, Arc::new(echo), stopping));
        let (mut reader, mut writer) = client.into_split();
        for piece in pieces {
            writer.write_all(piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        writer.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), reader.read_to_end(&mut answer));
        read.await.expect("the server must close the connection").unwrap();
        served.await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    const UPGRADE: &[u8] = b"POST /hijack HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

    #[tokio::test]
    async fn a_connection_is_taken_over_with_and_without_upgrade() {
        assert_eq!(exchange(&[UPGRADE, b"input"]).await, "HEAD body=0;input|end of input");
        let plain = b"POST /hijack HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(exchange(&[plain, b"input"]).await, "HEAD body=0;input|end of input");
        let with_length = b"POST /hijack HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(exchange(&[with_length, b"input"]).await, "HEAD body=0;input|end of input");
    }

    #[tokio::test]
    async fn the_oldest_http_is_taken_over_as_well() {
        assert_eq!(exchange(&[b"POST /hijack HTTP/1.0\r\n\r\n", b"x"]).await, "HEAD body=0;x|end of input");
    }

    #[tokio::test]
    async fn input_in_the_packet_of_the_head_is_not_lost() {
        let early = [UPGRADE, b"early "].concat();
        assert_eq!(exchange(&[&early, b"late"]).await, "HEAD body=0;early late|end of input");
        let body = b"POST /hijack HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}early ";
        assert_eq!(exchange(&[body, b"late"]).await, "HEAD body=2;early late|end of input");
        let chunks =
            b"POST /hijack HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nearly ";
        assert_eq!(exchange(&[chunks, b"late"]).await, "HEAD body=2;early late|end of input");
    }

    #[tokio::test]
    async fn a_lot_of_early_input_is_not_lost() {
        let input = vec![b'x'; 3 << 20];
        let answer = exchange(&[UPGRADE, &input]).await;
        assert_eq!(answer.len(), "HEAD body=0;".len() + input.len() + "|end of input".len());
    }

    #[tokio::test]
    async fn other_requests_come_before_on_the_same_connection() {
        let ping = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n";
        let answer = exchange(&[ping, UPGRADE, b"input"]).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nOKHEAD body=0;input|end of input"), "{answer}");
    }

    #[tokio::test]
    async fn requests_in_one_packet_are_answered_in_order() {
        let both = [b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), UPGRADE, b"input"].concat();
        let answer = exchange(&[&both]).await;
        assert!(answer.ends_with("OKHEAD body=0;input|end of input"), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_leaves_a_silent_stream_is_noticed() {
        let answer = exchange(&[b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n"]).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn an_upload_that_waits_for_leave_gets_it() {
        let head = b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        let answer = exchange(&[head, b"{}"]).await;
        assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn what_is_not_http_is_refused() {
        assert!(exchange(&[b"SSH-2.0-OpenSSH\r\n\r\n"]).await.starts_with("HTTP/1.1 400 Bad Request\r\n"));
    }
}
