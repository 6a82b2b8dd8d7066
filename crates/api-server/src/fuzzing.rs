//! Doors for the fuzzer; not part of the interface.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use docker_api::ApiVersion;
use http_body_util::BodyExt as _;
use tokio::sync::watch;

use crate::connection::{Handler, ReplyFuture, serve_connection};
use crate::gone::Peer;
use crate::hijack::{Hijack, HijackSlot};
use crate::map::create::{self, CreateContext};
use crate::map::filter;

/// A create body from a stranger: read, mapped, and never a panic.
pub fn create_body(body: &[u8], version: ApiVersion) {
    let log = engine::model::LogConfig::default();
    let context = CreateContext { name: "x", platform: "", version, cgroup_v1: true, log: &log };
    if let Ok(request) = crate::request::parse_create(body) {
        let _ = create::parse(request, context);
    }
}

/// Filters from a stranger.
pub fn filters(text: &str) {
    let Ok(filters) = docker_api::Filters::parse(text) else { return };
    let _ =
        (filter::containers(&filters), filter::images(&filters), filter::volumes(&filters), filter::networks(&filters));
    let _ = (filter::events(&filters), filter::prune(&filters, filter::Prune::Volumes));
}

/// Sends a head with a body of `body` bytes and raw input behind it, all in one piece, and returns what the hijacked socket was given.
///
/// # Panics
/// When the connection is not handed over.
pub fn leftovers(body: &[u8], input: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /hijack HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    exchange(&[head.as_bytes(), body, input].concat())
}

/// Sends whatever there is as a whole connection; returns what came back.
pub fn exchange(bytes: &[u8]) -> Vec<u8> {
    exchange_with(Arc::new(echo), bytes)
}

/// The same, with another handler.
pub(crate) fn exchange_with(handler: Handler, bytes: &[u8]) -> Vec<u8> {
    let (mut client, server) = UnixStream::pair().expect("a socket pair needs no more than two descriptors");
    let bytes = bytes.to_vec();
    let sender = std::thread::spawn(move || {
        let _ = client.write_all(&bytes);
        let _ = client.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        answer
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(serve(server, handler));
    drop(runtime);
    sender.join().expect("the sender does not panic")
}

async fn serve(server: UnixStream, handler: Handler) {
    let outcome = server.set_nonblocking(true).and_then(|()| {
        let peer = Peer::new(server.try_clone()?.into());
        Ok((tokio::net::UnixStream::from_std(server)?, peer))
    });
    let Ok((stream, peer)) = outcome else { return };
    let (_stop, stopping) = watch::channel(false);
    serve_connection(stream, peer, handler, stopping).await;
}

/// Reads the body, takes the connection over and gives back what comes behind it.
pub(crate) fn echo(request: http::Request<hyper::body::Incoming>, _peer: Peer, slot: HijackSlot) -> ReplyFuture {
    Box::pin(async move {
        let _ = request.into_body().collect().await;
        slot.leave(Hijack {
            head: Vec::new(),
            begin: crate::hijack::Begin::AtOnce,
            take: Box::new(|target| Box::pin(echo_socket(target))),
        });
        crate::reply::empty(http::StatusCode::SWITCHING_PROTOCOLS)
    })
}

async fn echo_socket(target: engine::model::AttachTarget) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Ok(mut socket) = tokio::net::UnixStream::from_std(UnixStream::from(target.socket)) else { return };
    let mut input = target.early_input.to_vec();
    let _ = socket.read_to_end(&mut input).await;
    let _ = socket.write_all(&input).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_the_body_comes_back_whole() {
        assert_eq!(leftovers(b"{}", b"GET / HTTP/1.1\r\n\r\n"), b"GET / HTTP/1.1\r\n\r\n");
        let long = vec![7; 200_000];
        assert_eq!(leftovers(b"", &long), long);
    }
}
