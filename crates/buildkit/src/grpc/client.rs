//! The side that calls: BuildKit's clients are servers on a connection that they opened.

use http::{HeaderValue, Request};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::{CONNECTION_WINDOW, Code, FRAME_MAX, Messages, Outgoing, STREAM_WINDOW, Sender, Status, outcome_of};

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
                if head.status.is_success() { Ok(body) } else { Err(failed(&head.status)) }
            });
            // Who does not want to know any more has left.
            let _ = came.send(answered);
        });
        Ok(Messages::expected(expected))
    }
}
