//! One request and its answer, and connections kept for the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use jiff::Timestamp;

use crate::body::Body;
use crate::connect::{Connection, Dialler, Form};
use crate::endpoint::Trust;
use crate::error::{Asked, Error, Refusal};
use crate::url::{Origin, Url};

/// The body of a refusal that is looked at.
const REFUSAL_BYTES_MAX: u64 = 64 << 10;
/// What is read to the end so that a connection can be used again.
const DISCARDED_BYTES_MAX: u64 = 64 << 10;

/// How long to wait for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the head of an answer; the registry may have to look at what was sent before.
    pub answer: Duration,
    /// For the next piece of a body.
    pub piece: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { answer: Duration::from_secs(120), piece: Duration::from_secs(30) }
    }
}

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Request {
        Request { method, url, headers: HeaderMap::new(), body: Body::Whole(None) }
    }

    /// Adds a header; a value that cannot be one is left out, which none of ours is.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Request {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    pub(crate) fn body(mut self, body: Body) -> Request {
        self.body = body;
        self
    }

    /// The same once more; nothing where the body is gone.
    pub(crate) fn again(&self) -> Option<Request> {
        let body = match &self.body {
            Body::Whole(bytes) => Body::Whole(bytes.clone()),
            Body::Stream(_) => return None,
        };
        Some(Request { method: self.method.clone(), url: self.url.clone(), headers: self.headers.clone(), body })
    }

    pub(crate) fn asked(&self) -> Asked {
        Asked::new(&self.method, &self.url)
    }
}

/// Connections of one operation. They end with it.
#[derive(Debug)]
pub(crate) struct Exchange {
    dialler: Dialler,
    patience: Patience,
    user_agent: String,
    idle: Mutex<HashMap<(Origin, Trust), Vec<Connection>>>,
}

impl Exchange {
    pub(crate) fn new(dialler: Dialler, patience: Patience, user_agent: String) -> Exchange {
        Exchange { dialler, patience, user_agent, idle: Mutex::default() }
    }

    /// Sends one request: nothing is tried again, followed or authorised.
    pub(crate) async fn send(self: &Arc<Self>, request: Request, trust: Trust) -> Result<Response, Error> {
        let asked = request.asked();
        let key = (request.url.origin().clone(), trust);
        let mut connection = match self.take(&key).await {
            Some(connection) => connection,
            None => self
                .dialler
                .connect(&key.0, trust)
                .await
                .map_err(|source| Error::Connect { asked: asked.clone(), source })?,
        };
        let (url, method) = (request.url.clone(), request.method.clone());
        let request = self.as_http(request, &connection.form)?;
        let answer = tokio::time::timeout(self.patience.answer, connection.sender.send_request(request));
        let answer = match answer.await {
            Err(_) => return Err(Error::Stalled { asked, limit: self.patience.answer }),
            Ok(Err(error)) => return Err(Error::Broken { asked, cause: Box::new(error) }),
            Ok(Ok(answer)) => answer,
        };
        let (head, body) = answer.into_parts();
        let back = Some((Arc::clone(self), key, connection));
        Ok(Response {
            asked,
            method,
            url,
            status: head.status,
            headers: head.headers,
            body,
            unread: None,
            back,
            piece_limit: self.patience.piece,
        })
    }

    fn as_http(&self, request: Request, form: &Form) -> Result<http::Request<Body>, Error> {
        let asked = request.asked();
        let Request { method, url, mut headers, body } = request;
        let target = match form {
            Form::Path => url.target().to_owned(),
            Form::Whole { authorization } => {
                if let Some(value) = authorization.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
                    headers.insert(PROXY_AUTHORIZATION, value);
                }
                format!("http://{}{}", url.origin().authority(), url.target())
            }
        };
        let malformed = |what: String| Error::Malformed { asked: asked.clone(), what };
        let host = HeaderValue::from_str(&url.origin().authority()).map_err(|error| malformed(error.to_string()))?;
        headers.insert(HOST, host);
        headers
            .insert(USER_AGENT, HeaderValue::from_str(&self.user_agent).unwrap_or(HeaderValue::from_static("conex")));
        let has_body = matches!(method, Method::POST | Method::PUT | Method::PATCH);
        if has_body && matches!(body, Body::Whole(None)) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut http = http::Request::new(body);
        *http.method_mut() = method;
        *http.uri_mut() = target.parse().map_err(|error: http::uri::InvalidUri| malformed(error.to_string()))?;
        *http.headers_mut() = headers;
        Ok(http)
    }

    /// A connection that waits for work, if one is still open.
    async fn take(&self, key: &(Origin, Trust)) -> Option<Connection> {
        loop {
            let mut connection = self.idle().get_mut(key)?.pop()?;
            if connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    fn give_back(&self, key: (Origin, Trust), connection: Connection) {
        if !connection.sender.is_closed() {
            self.idle().entry(key).or_default().push(connection);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<(Origin, Trust), Vec<Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) asked: Asked,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    /// Read too far, and given back.
    unread: Option<Bytes>,
    back: Option<(Arc<Exchange>, (Origin, Trust), Connection)>,
    piece_limit: Duration,
}

impl Response {
    /// A header as text.
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The length of the body, where it is said.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH)?.trim().parse().ok()
    }

    /// The next piece; nothing at the end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(piece) = self.unread.take() {
            return Ok(Some(piece));
        }
        loop {
            let frame = match tokio::time::timeout(self.piece_limit, self.body.frame()).await {
                Err(_) => return Err(Error::Stalled { asked: self.asked.clone(), limit: self.piece_limit }),
                Ok(frame) => frame,
            };
            match frame {
                None => {
                    if let Some((exchange, key, connection)) = self.back.take() {
                        exchange.give_back(key, connection);
                    }
                    return Ok(None);
                }
                Some(Err(error)) => return Err(Error::Broken { asked: self.asked.clone(), cause: Box::new(error) }),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                    // Trailers, or nothing.
                    _ => {}
                },
            }
        }
    }

    /// Gives back the end of a piece, to be read next.
    pub(crate) fn unread(&mut self, piece: Bytes) {
        self.unread = Some(piece);
    }

    /// The whole body, which may not be longer than `limit_bytes`.
    pub(crate) async fn bytes(&mut self, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let too_large = |asked: &Asked| Error::TooLarge { asked: asked.clone(), limit_bytes };
        if self.length().is_some_and(|length| length > limit_bytes) && self.method != Method::HEAD {
            return Err(too_large(&self.asked));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece().await? {
            if (bytes.len() + piece.len()) as u64 > limit_bytes {
                return Err(too_large(&self.asked));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Reads what is left if it is little, so that the connection can be used again.
    pub(crate) async fn discard(mut self) {
        let mut left = DISCARDED_BYTES_MAX;
        while let Ok(Some(piece)) = self.piece().await {
            match left.checked_sub(piece.len() as u64) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }

    /// The answer as an error.
    pub(crate) async fn refusal(mut self) -> Error {
        // A refusal whose body is too long or broken is still one.
        let document = self.bytes(REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let retry_after = self.header(RETRY_AFTER).and_then(|text| retry_after(text, Timestamp::now()));
        let reasons = Refusal::reasons_in(&document, self.status);
        Error::Refused(Box::new(Refusal { asked: self.asked, status: self.status, reasons, retry_after }))
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(then.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_try_again_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-29T01:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 29 Nov 2026 01:00:30 GMT", Some(30)),
            ("Sun, 29 Nov 2026 00:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text}");
        }
    }
}
