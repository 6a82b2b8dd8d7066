//! gRPC over HTTP/2: a message is a flag, its length and its bytes; the outcome comes as trailers.

mod client;
mod server;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use prost::Message;
use tokio::sync::{mpsc, oneshot};

pub(crate) use client::Channel;
pub(crate) use server::{Call, Reply, Service, serve};

/// The largest message that is read, as in BuildKit.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Where the outcome stands.
const STATUS: &str = "grpc-status";
/// Flag and length.
const PREFIX: usize = 5;
/// Messages that may wait to be sent.
const QUEUE: usize = 64;
/// So many messages that have come are handed on together.
const SOME_MAX: usize = 512;
/// The same in bytes, not to wait for the last of many large ones.
const SOME_BYTES_MAX: usize = 256 << 10;
/// Messages that wait travel together up to this size.
const JOINED_BYTES_MAX: usize = 16 << 10;
/// What may be on its way to us on one stream.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all streams of a connection. Each frame that waits and is smaller than 256 bytes counts for as many, and what all of them
/// count for beyond their bytes must not be more than half of this, or the connection is ended (`too_many_data_frames`). The end of a file
/// is a frame of 20 bytes with its head: five streams that are full of nothing else are less than that.
pub(crate) const CONNECTION_WINDOW: u32 = 256 << 20;
/// The largest HTTP/2 frame.
pub(crate) const FRAME_MAX: u32 = 1 << 20;

/// How a call ends that fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Status {
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// gRPC's codes, as far as they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into() }
    }

    pub(crate) fn unknown(message: impl Into<String>) -> Status {
        Status::new(Code::Unknown, message)
    }

    fn of_number(number: &str, message: String) -> Status {
        let code = match number {
            "1" => Code::Cancelled,
            "3" => Code::InvalidArgument,
            "5" => Code::NotFound,
            "6" => Code::AlreadyExists,
            "12" => Code::Unimplemented,
            "13" => Code::Internal,
            "14" => Code::Unavailable,
            _ => Code::Unknown,
        };
        Status { code, message }
    }
}

/// A message with its prefix.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    message.encode(&mut bytes).expect("the buffer is large enough");
    bytes.freeze()
}

/// Takes messages out of a stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    bytes: BytesMut,
}

impl Deframer {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if self.bytes.len() < PREFIX {
            return Ok(None);
        }
        let compressed = self.bytes[0] != 0;
        let length = u32::from_be_bytes([self.bytes[1], self.bytes[2], self.bytes[3], self.bytes[4]]) as usize;
        if compressed {
            return Err(Status::new(Code::Unimplemented, "compressed messages are not supported"));
        }
        if length > MESSAGE_BYTES_MAX {
            return Err(Status::new(Code::InvalidArgument, format!("a message of {length} bytes is too large")));
        }
        if self.bytes.len() < PREFIX + length {
            return Ok(None);
        }
        self.bytes.advance(PREFIX);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }
}

/// Messages that arrive.
#[derive(Debug)]
pub(crate) struct Messages {
    body: Arriving,
    deframer: Deframer,
    trailers: Option<HeaderMap>,
}

/// A body, or one that has not begun: a server may wait for our first message before it says anything.
#[derive(Debug)]
enum Arriving {
    Expected(oneshot::Receiver<Result<Answer, Status>>),
    Here(Incoming),
}

/// What a future has now, if it has it. It must be one that can be dropped.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

/// A body that has begun, and the outcome where there are to be no messages before it.
type Answer = (Incoming, Option<HeaderMap>);

impl Messages {
    pub(crate) fn new(body: Incoming) -> Messages {
        Messages { body: Arriving::Here(body), deframer: Deframer::default(), trailers: None }
    }

    fn expected(body: oneshot::Receiver<Result<Answer, Status>>) -> Messages {
        Messages { body: Arriving::Expected(body), deframer: Deframer::default(), trailers: None }
    }

    async fn body(&mut self) -> Result<&mut Incoming, Status> {
        if let Arriving::Expected(expected) = &mut self.body {
            let gone = |_| Status::new(Code::Unavailable, "the connection ended before it answered");
            let (body, outcome) = expected.await.map_err(gone)??;
            self.body = Arriving::Here(body);
            self.trailers = outcome;
        }
        match &mut self.body {
            Arriving::Here(body) => Ok(body),
            Arriving::Expected(_) => Err(Status::new(Code::Internal, "the answer was taken already")),
        }
    }

    /// The next message; nothing at the end.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(bytes) = self.deframer.next()? {
                return M::decode(bytes).map(Some).map_err(|error| Status::new(Code::Internal, error.to_string()));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// All messages that are here, up to a number; waits for one. Nothing at the end.
    pub(crate) async fn some<M: Message + Default>(&mut self) -> Result<Vec<M>, Status> {
        let (mut messages, mut length) = (Vec::new(), 0);
        loop {
            while let Some(bytes) = self.deframer.next()? {
                length += bytes.len();
                messages.push(M::decode(bytes).map_err(|error| Status::new(Code::Internal, error.to_string()))?);
            }
            // Whoever gets them is woken once for all that came together and not for each of its frames.
            let more = match messages.len() {
                0 => Some(self.read().await?),
                few if few < SOME_MAX && length < SOME_BYTES_MAX => at_once(self.read()).await.transpose()?,
                _ => None,
            };
            if more != Some(true) {
                return Ok(messages);
            }
        }
    }

    async fn read(&mut self) -> Result<bool, Status> {
        match self.body().await?.frame().await {
            None => Ok(false),
            Some(Err(error)) => Err(Status::new(Code::Unavailable, error.to_string())),
            Some(Ok(frame)) => {
                match frame.into_data() {
                    Ok(data) => self.deframer.push(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                }
                Ok(true)
            }
        }
    }

    /// How a call of ours ended, once all messages were read.
    pub(crate) fn outcome(&self) -> Result<(), Status> {
        let cut_off = || Status::new(Code::Unavailable, "the connection ended before the call did");
        outcome_of(self.trailers.as_ref().ok_or_else(cut_off)?)
    }
}

/// What headers or trailers say about the call's end.
pub(crate) fn outcome_of(headers: &HeaderMap) -> Result<(), Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text(STATUS) {
        "" | "0" => Ok(()),
        number => Err(Status::of_number(number, percent_decoded(text("grpc-message")))),
    }
}

/// Where a body's messages go in.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    sender: mpsc::Sender<Piece>,
}

#[derive(Debug)]
enum Piece {
    Message(Bytes),
    End(Result<(), Status>),
}

impl Sender {
    /// Sends a message; false when nobody reads any more.
    pub(crate) async fn send(&self, message: &impl Message) -> bool {
        self.sender.send(Piece::Message(encode(message))).await.is_ok()
    }

    /// The same from a thread that may block.
    pub(crate) fn send_blocking(&self, message: &impl Message) -> bool {
        self.sender.blocking_send(Piece::Message(encode(message))).is_ok()
    }

    /// Waits until nobody reads any more.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Ends the stream with the call's outcome.
    pub(crate) async fn end(self, outcome: Result<(), Status>) {
        let _ = self.sender.send(Piece::End(outcome)).await;
    }
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    receiver: Option<mpsc::Receiver<Piece>>,
    /// What was taken from it and not yet sent.
    taken: Option<Piece>,
    ready: VecDeque<Frame<Bytes>>,
    /// A server ends with trailers, a client without.
    ends: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    WithTrailers,
    Plainly,
}

impl Outgoing {
    /// A client's messages.
    pub(crate) fn stream() -> (Sender, Outgoing) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (
            Sender { sender },
            Outgoing { receiver: Some(receiver), taken: None, ready: VecDeque::new(), ends: End::Plainly },
        )
    }

    /// A server's messages.
    pub(crate) fn answer() -> (Sender, Outgoing) {
        let (sender, outgoing) = Outgoing::stream();
        (sender, Outgoing { ends: End::WithTrailers, ..outgoing })
    }

    /// One message and no more.
    pub(crate) fn single(message: &impl Message) -> Outgoing {
        let ready = VecDeque::from([Frame::data(encode(message))]);
        Outgoing { receiver: None, taken: None, ready, ends: End::Plainly }
    }

    /// One message and the end of a call that went well, or a failure.
    pub(crate) fn outcome(outcome: Result<Bytes, Status>) -> Outgoing {
        let (message, end) = match outcome {
            Ok(bytes) => (Some(Frame::data(bytes)), Ok(())),
            Err(status) => (None, Err(status)),
        };
        let ready = message.into_iter().chain([Frame::trailers(trailers(end))]).collect();
        Outgoing { receiver: None, taken: None, ready, ends: End::WithTrailers }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(frame) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Outgoing { receiver: Some(receiver), taken, .. } = &mut *self else { return Poll::Ready(None) };
        let piece = match taken.take() {
            None => std::task::ready!(receiver.poll_recv(cx)),
            taken => taken,
        };
        let end = match piece {
            Some(Piece::Message(first)) => {
                let (bytes, next) = joined(first, receiver);
                *taken = next;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Some(Piece::End(outcome)) => outcome,
            None if self.ends == End::Plainly => Ok(()),
            None => Err(Status::new(Code::Internal, "the call ended without an outcome")),
        };
        self.receiver = None;
        match self.ends {
            End::Plainly => Poll::Ready(None),
            End::WithTrailers => Poll::Ready(Some(Ok(Frame::trailers(trailers(end))))),
        }
    }
}

/// A message with those that wait behind it already, and what does not fit: a frame costs both sides more than a small message.
fn joined(first: Bytes, waiting: &mut mpsc::Receiver<Piece>) -> (Bytes, Option<Piece>) {
    let mut all = BytesMut::new();
    loop {
        let so_far = if all.is_empty() { first.len() } else { all.len() };
        match waiting.try_recv() {
            Ok(Piece::Message(next)) if so_far + next.len() <= JOINED_BYTES_MAX => {
                if all.is_empty() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&next);
            }
            next => return (if all.is_empty() { first } else { all.freeze() }, next.ok()),
        }
    }
}

fn trailers(outcome: Result<(), Status>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let (code, message) = match outcome {
        Ok(()) => (0, String::new()),
        Err(status) => (status.code as u32, percent_encoded(&status.message)),
    };
    trailers.insert(STATUS, HeaderValue::from(code));
    if let Ok(value) = HeaderValue::from_str(&message)
        && !message.is_empty()
    {
        trailers.insert("grpc-message", value);
    }
    trailers
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::session::SecretRequest;

    #[test]
    fn messages_come_whole_however_their_bytes_come() {
        let message = SecretRequest { id: "key".to_owned() };
        let bytes = [encode(&message), encode(&message)].concat();
        for cut in 0..bytes.len() {
            let mut deframer = Deframer::default();
            let mut found = 0;
            for piece in [&bytes[..cut], &bytes[cut..]] {
                deframer.push(piece);
                while let Some(bytes) = deframer.next().unwrap() {
                    assert_eq!(SecretRequest::decode(bytes).unwrap(), message);
                    found += 1;
                }
            }
            assert_eq!(found, 2, "{cut}");
        }
    }

    #[test]
    fn messages_that_wait_travel_together() {
        let (sender, mut outgoing) = Outgoing::answer();
        let message = |length: usize| SecretRequest { id: "x".repeat(length) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (sizes, outcome) = runtime.block_on(async {
            for length in [1, 2, JOINED_BYTES_MAX, 3, 4] {
                assert!(sender.send(&message(length)).await);
            }
            sender.end(Err(Status::unknown("over"))).await;
            let (mut sizes, mut outcome) = (Vec::new(), Ok(()));
            while let Some(frame) = outgoing.frame().await {
                match frame.unwrap().into_data() {
                    Ok(data) => sizes.push(data.len()),
                    Err(frame) => outcome = outcome_of(&frame.into_trailers().unwrap()),
                }
            }
            (sizes, outcome)
        });
        let size = |length: usize| encode(&message(length)).len();
        assert_eq!(sizes, [size(1) + size(2), size(JOINED_BYTES_MAX), size(3) + size(4)]);
        assert_eq!(outcome, Err(Status::unknown("over")));
    }

    #[test]
    fn what_is_too_large_or_compressed_is_refused() {
        for prefix in [[1, 0, 0, 0, 0], [0, 255, 255, 255, 255]] {
            let mut deframer = Deframer::default();
            deframer.push(&prefix);
            assert!(deframer.next().is_err());
        }
    }

    #[test]
    fn outcomes_travel_in_headers() {
        for status in [Status::unknown("100% wrong\nläuft nicht"), Status::new(Code::NotFound, "")] {
            assert_eq!(outcome_of(&trailers(Err(status.clone()))), Err(status));
        }
        assert_eq!(outcome_of(&trailers(Ok(()))), Ok(()));
    }
}
