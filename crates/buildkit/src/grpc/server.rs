//! The side that is called.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{CONNECTION_WINDOW, FRAME_MAX, Messages, Outgoing, STREAM_WINDOW, Status, encode};

/// One call.
pub(crate) struct Call {
    /// `/package.Service/Method`
    pub(crate) path: String,
    pub(crate) metadata: HeaderMap,
    messages: Messages,
}

/// How a call is answered.
pub(crate) enum Reply {
    /// With one message, or a failure.
    Single(Result<Bytes, Status>),
    /// With a stream.
    Stream(Outgoing),
}

impl Call {
    /// A header that came with the call.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).and_then(|value| value.to_str().ok())
    }

    /// The only message of the call.
    pub(crate) async fn message<M: Message + Default>(&mut self) -> Result<M, Status> {
        self.messages.next().await.map(Option::unwrap_or_default)
    }
}

impl Reply {
    /// An answer of one message.
    pub(crate) fn of(message: Result<impl Message, Status>) -> Reply {
        Reply::Single(message.map(|message| encode(&message)))
    }
}

/// Answers calls.
pub(crate) trait Service: Send + Sync + 'static {
    /// Answers a call.
    fn call(self: Arc<Self>, call: Call) -> Pin<Box<dyn Future<Output = Reply> + Send>>;
}

/// Answers the calls on one connection until it ends.
pub(crate) async fn serve<S: Service>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: Arc<S>,
) -> Result<(), hyper::Error> {
    let answer = service_fn(move |request: Request<Incoming>| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(answer(service, request).await) }
    });
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

async fn answer<S: Service>(service: Arc<S>, request: Request<Incoming>) -> Response<Outgoing> {
    let (head, body) = request.into_parts();
    let call = Call { path: head.uri.path().to_owned(), metadata: head.headers, messages: Messages::new(body) };
    let path = call.path.clone();
    let body = match service.call(call).await {
        Reply::Single(outcome) => {
            if let Err(status) = &outcome {
                tracing::debug!(path, code = ?status.code, message = status.message, "call failed");
            }
            Outgoing::outcome(outcome)
        }
        Reply::Stream(outgoing) => outgoing,
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
