//! Making answers.

use docker_api::{ErrorResponse, json};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::body::ReplyBody;
use crate::error::ApiError;
use crate::identity::SERVER_HEADER;

/// An answer on its way.
pub(crate) type Reply = Response<ReplyBody>;

/// A document.
pub(crate) fn document<T: Serialize>(value: &T) -> Reply {
    document_with(StatusCode::OK, value)
}

/// A document about something new.
pub(crate) fn created<T: Serialize>(value: &T) -> Reply {
    document_with(StatusCode::CREATED, value)
}

/// A document that is a list, written entry by entry: a thousand of them need not be there at once beside what is sent.
#[derive(Debug)]
pub(crate) struct List(Vec<u8>);

impl List {
    /// About how many bytes an entry is made of.
    const ENTRY: usize = 1 << 10;

    /// For so many entries.
    pub(crate) fn of(entries: usize) -> Self {
        let mut text = Vec::with_capacity(entries * Self::ENTRY + 3);
        text.push(b'[');
        Self(text)
    }

    pub(crate) fn add<T: Serialize>(&mut self, entry: &T) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        json::append(&mut self.0, entry);
    }

    pub(crate) fn reply(mut self) -> Reply {
        self.0.extend_from_slice(b"]\n");
        json_reply(StatusCode::OK, self.0)
    }
}

fn document_with<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    json_reply(status, json::to_line(value))
}

fn json_reply(status: StatusCode, text: Vec<u8>) -> Reply {
    let mut reply = Response::new(text.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// Nothing but a status.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(ReplyBody::empty());
    *reply.status_mut() = status;
    reply
}

/// A body of some type, with status 200.
pub(crate) fn stream(content_type: &'static str, body: ReplyBody) -> Reply {
    let mut reply = Response::new(body);
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// A refusal. "Not modified" has no body, as HTTP wants it.
pub(crate) fn refusal(error: &ApiError) -> Reply {
    if error.status == StatusCode::NOT_MODIFIED {
        return empty(error.status);
    }
    document_with(error.status, &ErrorResponse { message: error.message.clone() })
}

/// Headers that all answers but `page not found` carry, by lower-case name.
pub(crate) fn identity_headers() -> [(HeaderName, HeaderValue); 4] {
    // One text for both headers and for the heads of hijacks.
    const VERSION: &str = "1.51";
    [
        (HeaderName::from_static("api-version"), HeaderValue::from_static(VERSION)),
        (HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false")),
        (HeaderName::from_static("ostype"), HeaderValue::from_static("linux")),
        (HeaderName::from_static("server"), HeaderValue::from_static(SERVER_HEADER)),
    ]
}

/// Adds who we are.
pub(crate) fn with_identity(mut reply: Reply) -> Reply {
    reply.headers_mut().extend(identity_headers());
    reply
}

/// `GET /_ping` and, without a body, `HEAD /_ping`.
pub(crate) fn ping(method: &http::Method) -> Reply {
    const HEADERS: [(&str, &str); 4] = [
        ("builder-version", "2"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
    ];
    let body = if method == http::Method::HEAD { ReplyBody::empty() } else { b"OK".to_vec().into() };
    let mut reply = stream("text/plain; charset=utf-8", body);
    for (name, value) in HEADERS {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if method == http::Method::HEAD {
        reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    reply
}

#[cfg(test)]
mod tests {
    use docker_api::ApiVersion;

    use super::*;

    #[test]
    fn the_header_names_the_newest_version() {
        assert_eq!(identity_headers()[0].1, ApiVersion::NEWEST.to_string());
    }

    #[tokio::test]
    async fn a_list_is_the_document_that_it_would_be_at_once() {
        use http_body_util::BodyExt as _;
        for entries in [&[][..], &["one"], &["one", "two"]] {
            let mut list = List::of(entries.len());
            entries.iter().for_each(|entry| list.add(entry));
            let bytes = list.reply().into_body().collect().await.unwrap().to_bytes();
            assert_eq!(bytes, json::to_line(&entries));
        }
    }

    #[test]
    fn not_modified_has_no_body() {
        use hyper::body::Body as _;
        let reply = refusal(&ApiError::new(StatusCode::NOT_MODIFIED, "already"));
        assert!(reply.body().is_end_stream());
    }
}
