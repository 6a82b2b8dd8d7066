//! What handlers see of a request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use docker_api::{ApiVersion, Filters, Query, json};
use engine::model::LabelFilter;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use http::request::Parts;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::error::{ApiError, ApiResult};
use crate::gone::Peer;
use crate::hijack::HijackSlot;
use crate::scope::Scope;

/// The largest document that is read.
const MAX_DOCUMENT: usize = 8 << 20;
/// How long a document may take to come.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// So much of an upload is still read when nobody wants it any more.
const FORGOTTEN: usize = 256 << 10;
/// How many pieces of an upload may wait to be used.
const UPLOAD_PIECES: usize = 16;
/// A `start` with more than this is one of the oldest clients, which sent a host configuration.
const MAX_START_BODY: u64 = 7;

/// A request on its way to its handler.
pub(crate) struct Request {
    parts: Parts,
    body: Incoming,
    pub(crate) query: Query,
    pub(crate) version: ApiVersion,
    pub(crate) peer: Peer,
    pub(crate) hijack: HijackSlot,
    /// What the client may do; none for everything.
    pub(crate) scope: Option<Arc<Scope>>,
}

impl Request {
    /// The label that everything has which the client may reach.
    pub(crate) fn scope_label(&self) -> Option<LabelFilter> {
        self.scope.as_ref()?.label().cloned()
    }

    pub(crate) fn new(request: http::Request<Incoming>, version: ApiVersion, peer: Peer, hijack: HijackSlot) -> Self {
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        Self { parts, body, query, version, peer, hijack, scope: None }
    }

    pub(crate) fn method(&self) -> &http::Method {
        &self.parts.method
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// All values of a header.
    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.parts.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
    }

    /// The `filters` parameter.
    pub(crate) fn filters(&self) -> ApiResult<Filters> {
        Ok(Filters::parse(self.query.get("filters"))?)
    }

    /// Whether the client asked for `101` before its raw stream.
    pub(crate) fn wants_upgrade(&self) -> bool {
        self.parts.headers.contains_key(UPGRADE)
    }

    /// A whole number in the query; `None` where it is absent or empty.
    pub(crate) fn number(&self, key: &str) -> ApiResult<Option<i64>> {
        let text = self.query.get(key);
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = || ApiError::bad_request(format!("strconv.Atoi: parsing {text:?}: invalid syntax"));
        text.parse().map(Some).map_err(|_| wrong())
    }

    /// Reads the body as a document that the client calls JSON; no body at all is an empty document, as in Docker.
    pub(crate) async fn document<T: DeserializeOwned + Default>(self) -> ApiResult<T> {
        self.document_and_rest().await.map(|(document, _)| document)
    }

    /// Reads a document and keeps what is left of the request.
    pub(crate) async fn document_and_rest<T: DeserializeOwned + Default>(self) -> ApiResult<(T, Unbodied)> {
        if !self.has_body() {
            return Ok((T::default(), self.split().0));
        }
        self.check_json_type()?;
        let (rest, body) = self.split();
        let bytes = non_empty(read_body(body).await?)?;
        let document = json::from_slice(&bytes).map_err(|error| invalid_json(&bytes, &error))?;
        Ok((document, rest))
    }

    /// Reads a body that must be there, after checking that the client calls it JSON.
    pub(crate) async fn json_bytes(self) -> ApiResult<Bytes> {
        if self.has_body() {
            self.check_json_type()?;
        }
        non_empty(read_body(self.body).await?)
    }

    fn has_body(&self) -> bool {
        !hyper::body::Body::is_end_stream(&self.body)
    }

    fn check_json_type(&self) -> ApiResult<()> {
        let content_type = self.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/json") {
            return Ok(());
        }
        Err(ApiError::bad_request(format!(
            "unsupported Content-Type header ({content_type}): must be 'application/json'"
        )))
    }

    fn content_length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok())
    }

    /// Refuses a body where the oldest clients sent a host configuration.
    pub(crate) fn refuse_start_body(&self) -> ApiResult<()> {
        let chunked = self.parts.headers.contains_key(http::header::TRANSFER_ENCODING);
        if chunked || self.content_length().is_some_and(|length| length > MAX_START_BODY) {
            return Err(ApiError::bad_request(
                "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
            ));
        }
        Ok(())
    }

    fn split(self) -> (Unbodied, Incoming) {
        let wants_upgrade = self.wants_upgrade();
        (Unbodied { version: self.version, hijack: self.hijack, wants_upgrade }, self.body)
    }

    /// Whatever body there is is read and forgotten, so that what follows it is not taken for it.
    pub(crate) async fn without_body(self) -> ApiResult<Unbodied> {
        let (unbodied, body) = self.split();
        read_body(body).await?;
        Ok(unbodied)
    }

    /// The body in pieces, for the engine. A task copies; it ends with the body, or soon after the reader.
    pub(crate) fn into_upload(self) -> mpsc::Receiver<std::io::Result<Bytes>> {
        let (sender, receiver) = mpsc::channel(UPLOAD_PIECES);
        tokio::spawn(copy_upload(self.body, sender));
        receiver
    }
}

/// What is left of a request once its body is read: enough for a hijack.
pub(crate) struct Unbodied {
    pub(crate) version: ApiVersion,
    pub(crate) hijack: HijackSlot,
    pub(crate) wants_upgrade: bool,
}

fn non_empty(bytes: Bytes) -> ApiResult<Bytes> {
    if bytes.trim_ascii().is_empty() {
        return Err(ApiError::bad_request("invalid JSON: got EOF while reading request body"));
    }
    Ok(bytes)
}

async fn read_body(body: Incoming) -> ApiResult<Bytes> {
    let collected = tokio::time::timeout(DOCUMENT_TIMEOUT, Limited::new(body, MAX_DOCUMENT).collect());
    match collected.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::new(
            http::StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request body is larger than {MAX_DOCUMENT} bytes"),
        )),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("cannot read the request body: {error}"))),
        Err(_) => Err(ApiError::new(http::StatusCode::REQUEST_TIMEOUT, "the request body did not come in time")),
    }
}

async fn copy_upload(mut body: Incoming, sender: mpsc::Sender<std::io::Result<Bytes>>) {
    while let Some(frame) = body.frame().await {
        let piece = match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => Ok(data),
                Err(_trailers) => continue,
            },
            Err(error) => Err(std::io::Error::other(error)),
        };
        let failed = piece.is_err();
        if sender.send(piece).await.is_err() {
            forget(body).await;
            return;
        }
        if failed {
            return;
        }
    }
}

/// Reads a little more of what nobody wants any more, as Go's servers do: who still writes when the connection ends does not read why.
async fn forget(mut body: Incoming) {
    let forget = async {
        let mut left = FORGOTTEN;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    };
    // A client that stops writing has had its answer.
    let _ = tokio::time::timeout(DOCUMENT_TIMEOUT, forget).await;
}

/// What is wrong with a document, as [`why_no_json`] says.
fn invalid_json(document: &[u8], error: &serde_json::Error) -> ApiError {
    match error.to_string().starts_with("trailing characters") {
        true => ApiError::bad_request("unexpected content after JSON"),
        false => ApiError::bad_request(format!("invalid JSON: {}", why_no_json(document, error))),
    }
}

/// What Go says where it says nothing of types: of those it names its own.
pub(crate) fn why_no_json(document: &[u8], error: &serde_json::Error) -> String {
    let line = document.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    let stray = line.and_then(|line| line.get(error.column().saturating_sub(1)));
    match stray {
        Some(stray) if error.is_syntax() && error.to_string().starts_with("expected value") => {
            format!("invalid character {:?} looking for beginning of value", char::from(*stray))
        }
        _ => error.to_string(),
    }
}

pub(crate) fn parse_create(body: &[u8]) -> ApiResult<docker_api::container::CreateRequest> {
    docker_api::container::CreateRequest::parse(body).map_err(|error| invalid_json(body, &error))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use docker_api::volume::CreateRequest;

    use super::*;
    use crate::connection::{Handler, ReplyFuture};
    use crate::fuzzing::exchange_with;
    use crate::reply;

    /// Answers with the name in the document, or with the refusal.
    fn name_of(request: http::Request<Incoming>, peer: Peer, slot: HijackSlot) -> ReplyFuture {
        Box::pin(async move {
            let must_have_body = request.uri().path() == "/must";
            let request = Request::new(request, ApiVersion::NEWEST, peer, slot);
            let outcome = match must_have_body {
                true => request.json_bytes().await.map(|bytes| reply::document(&bytes.len())),
                false => request.document::<CreateRequest>().await.map(|document| reply::document(&document.name)),
            };
            outcome.unwrap_or_else(|error| reply::refusal(&error))
        })
    }

    /// The body of the answer to a request with these headers and this body.
    fn answer(path: &str, headers: &str, body: &str) -> String {
        let handler: Handler = Arc::new(name_of);
        let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}");
        let answer = String::from_utf8(exchange_with(handler, request.as_bytes())).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.trim_end().to_owned()
    }

    const JSON: &str = "Content-Type: Application/JSON; charset=utf-8\r\n";

    #[test]
    fn documents_come_with_a_length_in_chunks_or_not_at_all() {
        let length = format!("{JSON}Content-Length: 12\r\n");
        assert_eq!(answer("/", &length, r#"{"name":"a"}"#), r#""a""#);
        let chunked = format!("{JSON}Transfer-Encoding: chunked\r\n");
        assert_eq!(answer("/", &chunked, "c\r\n{\"Name\":\"a\"}\r\n0\r\n\r\n"), r#""a""#);
        assert_eq!(answer("/", "", ""), r#""""#);
        assert_eq!(answer("/", "Content-Length: 0\r\n", ""), r#""""#);
    }

    #[test]
    fn refusals_use_dockers_words() {
        assert_eq!(
            answer("/", "Content-Type: text/plain\r\nContent-Length: 2\r\n", "{}"),
            r#"{"message":"unsupported Content-Type header (text/plain): must be 'application/json'"}"#
        );
        let eof = r#"{"message":"invalid JSON: got EOF while reading request body"}"#;
        assert_eq!(answer("/must", "", ""), eof);
        assert_eq!(answer("/", &format!("{JSON}Content-Length: 2\r\n"), "  "), eof);
        assert!(answer("/", &format!("{JSON}Content-Length: 2\r\n"), "[]").contains("invalid JSON"));
        let stray = r#"{"message":"invalid JSON: invalid character 'x' looking for beginning of value"}"#;
        assert_eq!(answer("/", &format!("{JSON}Content-Length: 7\r\n"), "{\n\"a\":x"), stray);
    }

    #[test]
    fn a_document_has_a_limit() {
        let body = " ".repeat(MAX_DOCUMENT + 1);
        let answer = answer("/", &format!("{JSON}Content-Length: {}\r\n", body.len()), &body);
        assert!(answer.contains("larger than"), "{answer}");
    }
}
