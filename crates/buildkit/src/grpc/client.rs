//! The side that calls: BuildKit's clients are servers on a connection that they opened.

use http::{HeaderValue, Request};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::{
    CONNECTION_WINDOW, Code, FRAME_MAX, Messages, Outgoing, STATUS, STREAM_WINDOW, Sender, Status, outcome_of,
};

/// A connection to call over.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    sender: http2::SendRequest<Outgoing>,
    runtime: tokio::runtime::Handle,
}

/// What a streaming call is answered with.
type Reader = Messages;

impl Channel {
    /// Begins to speak on a connection, and says when it ends.
    pub(crate) async fn open(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(Channel, impl Future<Output = ()>), hyper::Error> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let ended = async {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a client's session ended early");
            }
        };
        Ok((Channel { sender, runtime: tokio::runtime::Handle::current() }, ended))
    }

    /// A call of one message that is answered with one.
    pub(crate) async fn unary<M: Message + Default>(&self, path: &str, message: &impl Message) -> Result<M, Status> {
        self.unary_with(path, &[], message).await
    }

    /// The same with headers.
    pub(crate) async fn unary_with<M: Message + Default>(
        &self,
        path: &str,
        metadata: &[(&str, String)],
        message: &impl Message,
    ) -> Result<M, Status> {
        let mut messages = self.send(path, metadata, Outgoing::single(message))?;
        let answer = messages.next().await?;
        // The outcome comes behind the last message.
        while messages.next::<M>().await?.is_some() {}
        messages.outcome()?;
        answer.ok_or_else(|| Status::new(Code::Internal, format!("{path} was not answered")))
    }

    /// A call of several messages, answered with several.
    pub(crate) fn stream(&self, path: &str, metadata: &[(&str, String)]) -> Result<(Sender, Reader), Status> {
        let (sender, outgoing) = Outgoing::stream();
        Ok((sender, self.send(path, metadata, outgoing)?))
    }

    /// Sends the call. That it is answered is waited for when the answer is read; the caller is in the connection's runtime.
    fn send(&self, path: &str, metadata: &[(&str, String)], body: Outgoing) -> Result<Messages, Status> {
        let (address, path) = (format!("http://localhost{path}"), path.to_owned());
        let failed = move |error: &dyn std::fmt::Display| Status::new(Code::Unavailable, format!("{path}: {error}"));
        let mut request = Request::post(address)
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers")
            .body(body)
            .map_err(|error| failed(&error))?;
        for (name, value) in metadata {
            let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(|error| failed(&error))?;
            request.headers_mut().append(name, HeaderValue::from_str(value).map_err(|error| failed(&error))?);
        }
        let answer = self.sender.clone().send_request(request);
        let (came, expected) = oneshot::channel();
        self.runtime.spawn(async move {
            let answered = answer.await.map_err(|error| failed(&error)).and_then(|response| {
                let (head, body) = response.into_parts();
                // A call that fails at once has its outcome in the headers.
                outcome_of(&head.headers)?;
                let outcome = head.headers.contains_key(STATUS).then_some(head.headers);
                if head.status.is_success() { Ok((body, outcome)) } else { Err(failed(&head.status)) }
            });
            // Who does not want to know any more has left.
            let _ = came.send(answered);
        });
        Ok(Messages::expected(expected))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use hyper::body::{Body, Frame, Incoming};
    use hyper::server::conn::http2 as server;

    use super::*;
    use crate::messages::BytesMessage;

    /// Messages, each in a frame of its own.
    struct Small {
        sent: Arc<AtomicU32>,
    }

    /// More than fit on their way to us.
    const MESSAGES: u32 = STREAM_WINDOW / 8 + 10_000;

    impl Body for Small {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let frame = match self.sent.fetch_add(1, Ordering::Relaxed) {
                sent if sent < MESSAGES => {
                    Frame::data(super::super::encode(&BytesMessage { data: Bytes::from_static(b"x") }))
                }
                MESSAGES => {
                    Frame::trailers([(STATUS.parse().unwrap(), HeaderValue::from_static("0"))].into_iter().collect())
                }
                _ => return Poll::Ready(None),
            };
            Poll::Ready(Some(Ok(frame)))
        }
    }

    /// What a client says of a folder are small frames, and nobody may be there to read them for a while.
    #[test]
    fn small_frames_wait_for_who_reads_them() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let read = runtime.block_on(async {
            let (near, far) = tokio::io::duplex(64 << 10);
            let sent = Arc::new(AtomicU32::new(0));
            let sending = Arc::clone(&sent);
            let answer = hyper::service::service_fn(move |_: Request<Incoming>| {
                let body = Small { sent: Arc::clone(&sending) };
                async { Ok::<_, Infallible>(http::Response::new(body)) }
            });
            let serving = server::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(far), answer);
            tokio::spawn(serving);
            let (channel, ended) = Channel::open(near).await.unwrap();
            tokio::spawn(ended);
            let (_sender, mut reader) = channel.stream("/x/Y", &[]).unwrap();
            // Until nothing more comes.
            let (mut before, mut still) = (0, 0);
            while still < 100 {
                tokio::task::yield_now().await;
                let now = sent.load(Ordering::Relaxed);
                still = if now == before && now > 0 { still + 1 } else { 0 };
                before = now;
            }
            assert!(before < MESSAGES, "all of it came, so that nothing waited");
            let mut read = 0;
            while reader.next::<BytesMessage>().await.unwrap().is_some() {
                read += 1;
            }
            reader.outcome().unwrap();
            read
        });
        assert_eq!(read, MESSAGES);
    }
}
