//! `GET /containers/{id}/attach/ws`: attach for browsers.
//!
//! The container's side is an ordinary attach to one end of a socket pair. Between its other end and the client two tasks copy: input
//! out of frames, output into frames. Standard output and error arrive mixed, as in Docker: a frame does not say which it is.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;

use bytes::Bytes;
use docker_api::{ApiVersion, FRAME_HEADER_LEN};
use engine::model::{AttachRequest, AttachTarget, DetachKeys};
use engine::{Engine, PendingAttach};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::streams::hijack;
use crate::error::{ApiError, ApiResult};
use crate::hijack::Begin;
use crate::reply::Reply;
use crate::request::Request;
use crate::websocket::{Opcode, accept, decode, encode};

/// How much is read at a time.
const READ_SIZE: usize = 16 * 1024;

pub(crate) async fn attach(engine: &Engine, name: &str, request: Request) -> ApiResult<Reply> {
    let key = handshake_key(&request)?;
    let wanted = wanted(&request)?;
    let version = request.version;
    let request = request.without_body().await?;
    let pending = engine.attach_container(name, wanted).await?;
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        accept(&key)
    );
    Ok(hijack(&request, head, Begin::AtOnce, move |target| {
        Box::pin(async move {
            if let Err(error) = bridge(pending, target, version).await {
                tracing::debug!(%error, "attach over a websocket failed");
            }
        })
    }))
}

fn handshake_key(request: &Request) -> ApiResult<String> {
    let is_websocket = request.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    match request.header("sec-websocket-key") {
        Some(key) if is_websocket && request.header("sec-websocket-version") == Some("13") => Ok(key.to_owned()),
        _ => Err(ApiError::bad_request("not a websocket handshake of version 13")),
    }
}

fn wanted(request: &Request) -> ApiResult<AttachRequest> {
    // Until 1.42 a websocket was always connected to everything.
    let flag = |key: &str| request.version.before(42) || request.query.flag(key);
    Ok(AttachRequest {
        stdin: flag("stdin"),
        stdout: flag("stdout"),
        stderr: flag("stderr"),
        stream: request.query.flag("stream"),
        logs: request.query.flag("logs"),
        detach_keys: match request.query.get("detachKeys") {
            "" => None,
            text => Some(DetachKeys::parse(text)?),
        },
    })
}

async fn bridge(pending: PendingAttach, client: AttachTarget, version: ApiVersion) -> Result<(), BridgeError> {
    let framed = !pending.tty;
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let (output, input) = UnixStream::from_std(ours)?.into_split();
    // Whatever kind of socket the client's is: only bytes are read and written.
    let client_socket = UnixStream::from_std(StdUnixStream::from(client.socket))?;
    let (from_client, to_client) = client_socket.into_split();
    let to_client = std::sync::Arc::new(tokio::sync::Mutex::new(to_client));
    let opcode = if version.at_least(28) { Opcode::Binary } else { Opcode::Text };
    tokio::spawn(copy_input(client.early_input, from_client, input, std::sync::Arc::clone(&to_client)));
    tokio::spawn(async move {
        // The end of either side ends the stream; there is nobody left to tell why.
        let _ = copy_output(output, &to_client, opcode, framed).await;
        let mut client = to_client.lock().await;
        let _ = client.write_all(&encode(Opcode::Close, &[])).await;
        let _ = client.shutdown().await;
    });
    pending.connect(AttachTarget { socket: theirs.into(), early_input: Bytes::new() }).await?;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum BridgeError {
    #[error("cannot make a socket pair")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Engine(#[from] engine::model::EngineError),
}

type Shared<W> = std::sync::Arc<tokio::sync::Mutex<W>>;

/// Frames of the client become the container's input, until a close, an end or nonsense.
async fn copy_input<W: AsyncWrite + Unpin>(
    early: Bytes,
    mut client: impl AsyncRead + Unpin,
    mut container: impl AsyncWrite + Unpin,
    answers: Shared<W>,
) {
    let mut pending = early.to_vec();
    let mut buffer = vec![0; READ_SIZE];
    loop {
        loop {
            let frame = match decode(&mut pending) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "a websocket client was refused");
                    return;
                }
            };
            let done = match frame.opcode {
                Opcode::Close => return,
                Opcode::Pong => Ok(()),
                Opcode::Ping => answers.lock().await.write_all(&encode(Opcode::Pong, &frame.payload)).await,
                Opcode::Continuation | Opcode::Text | Opcode::Binary => container.write_all(&frame.payload).await,
            };
            if done.is_err() {
                return;
            }
        }
        match client.read(&mut buffer).await {
            Ok(len) if len > 0 => pending.extend_from_slice(&buffer[..len]),
            _ => return,
        }
    }
}

/// The container's output becomes frames; Docker's own headers are taken off.
async fn copy_output<W: AsyncWrite + Unpin>(
    mut container: impl AsyncRead + Unpin,
    client: &Shared<W>,
    opcode: Opcode,
    framed: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_SIZE];
    loop {
        let mut left = READ_SIZE;
        if framed {
            let mut header = [0; FRAME_HEADER_LEN];
            container.read_exact(&mut header).await?;
            let [.., a, b, c, d] = header;
            left = u32::from_be_bytes([a, b, c, d]) as usize;
        }
        while left > 0 {
            let want = left.min(READ_SIZE);
            let len = container.read(&mut buffer[..want]).await?;
            if len == 0 {
                return Ok(());
            }
            client.lock().await.write_all(&encode(opcode, &buffer[..len])).await?;
            // Without frames there is no end but the stream's.
            left = if framed { left - len } else { READ_SIZE };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn headers_of_streams_do_not_reach_the_browser() {
        let (mut container, output) = tokio::io::duplex(1024);
        let (client, mut browser) = tokio::io::duplex(1024);
        container.write_all(b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x03err").await.unwrap();
        drop(container);
        let client = std::sync::Arc::new(tokio::sync::Mutex::new(client));
        let _ = copy_output(output, &client, Opcode::Binary, true).await;
        drop(client);
        let mut seen = Vec::new();
        browser.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"\x82\x02hi\x82\x03err");
    }

    #[tokio::test]
    async fn input_is_unmasked_and_pings_are_answered() {
        let (mut browser, client) = tokio::io::duplex(1024);
        let (container, mut stdin) = tokio::io::duplex(1024);
        let (answers, mut answered) = tokio::io::duplex(1024);
        browser.write_all(&[0x89, 0x80, 0, 0, 0, 0, 0x82, 0x82, 1, 1, 1, 1, b'h' ^ 1, b'i' ^ 1]).await.unwrap();
        drop(browser);
        let early = Bytes::from_static(&[0x82, 0x81, 0, 0, 0, 0, b'!']);
        copy_input(early, client, container, std::sync::Arc::new(tokio::sync::Mutex::new(answers))).await;
        let (mut input, mut pong) = (String::new(), Vec::new());
        stdin.read_to_string(&mut input).await.unwrap();
        answered.read_to_end(&mut pong).await.unwrap();
        assert_eq!((input.as_str(), pong.as_slice()), ("!hi", [0x8a, 0].as_slice()));
    }
}
