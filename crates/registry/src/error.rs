//! What can go wrong between here and a registry, in the words that Docker's users know.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use http::{Method, StatusCode};
use oci::Digest;
use serde::Deserialize;

use crate::url::{Url, UrlError};

/// A request as messages name it: `Get "https://…"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked(Box<str>);

impl Asked {
    pub(crate) fn new(method: &Method, url: &Url) -> Asked {
        let (first, rest) = method.as_str().split_at(1);
        Asked(format!("{first}{} \"{url}\"", rest.to_ascii_lowercase()).into())
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Why no connection could be made. Messages hold their cause, as Go's do, so it is not told again.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name is not known.
    #[error("dial tcp: lookup {host}: {}", words(.cause))]
    Resolve {
        /// The name.
        host: String,
        /// Why not.
        cause: io::Error,
    },
    /// Nobody listens, or the way there is closed.
    #[error("dial tcp {address}: connect: {}", words(.cause))]
    Dial {
        /// The address.
        address: String,
        /// Why not.
        cause: io::Error,
    },
    /// It took too long.
    #[error("dial tcp {address}: i/o timeout")]
    Timeout {
        /// The address or name.
        address: String,
    },
    /// TLS failed, or the certificates cannot be read.
    #[error("{}", tls_words(.0))]
    Tls(tls::TlsError),
    /// The proxy does not connect.
    #[error("proxyconnect tcp: {0}")]
    Proxy(String),
    /// The other side does not speak HTTP.
    #[error("{0}")]
    Handshake(String),
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be used.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// No connection.
    #[error("{asked}: {source}")]
    Connect {
        /// What was asked.
        asked: Asked,
        /// Why not.
        source: ConnectError,
    },
    /// The connection broke.
    #[error("{asked}: {}", innermost(.cause.as_ref()))]
    Broken {
        /// What was asked.
        asked: Asked,
        /// How.
        cause: Box<dyn StdError + Send + Sync>,
    },
    /// Nothing came for too long.
    #[error("{asked}: nothing was received for {} s", .limit.as_secs())]
    Stalled {
        /// What was asked.
        asked: Asked,
        /// For how long at least.
        limit: Duration,
    },
    /// The registry answered, but not with what was asked for.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// It wants a name and a password, and none are known.
    #[error("{asked}: no basic auth credentials")]
    NoCredentials {
        /// What was asked.
        asked: Asked,
    },
    /// It does not take the name and the password.
    #[error("login attempt to {url} failed with status: {status}")]
    Login {
        /// Where.
        url: String,
        /// What it said.
        status: StatusCode,
    },
    /// It wants something that is not known here.
    #[error("{asked}: unsupported authentication: {schemes}")]
    Scheme {
        /// What was asked.
        asked: Asked,
        /// What it offers.
        schemes: String,
    },
    /// The server that gives tokens failed.
    #[error("failed to authorize: {0}")]
    Token(Box<Error>),
    /// More came than may.
    #[error("{asked}: the answer is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What was asked.
        asked: Asked,
        /// The limit.
        limit_bytes: u64,
    },
    /// The answer is no answer.
    #[error("{asked}: {what}")]
    Malformed {
        /// What was asked.
        asked: Asked,
        /// What is wrong with it.
        what: String,
    },
    /// The bytes are not those that were asked for.
    #[error("{asked}: expected digest {expected}, got {actual}")]
    Digest {
        /// What was asked.
        asked: Asked,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// What is to be sent cannot be read.
    #[error("cannot read what is to be sent")]
    Source(#[source] io::Error),
}

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) asked: Asked,
    pub(crate) status: StatusCode,
    pub(crate) reasons: Vec<Reason>,
    /// When to try again, where the server says so.
    pub(crate) retry_after: Option<Duration>,
}

/// One reason that a registry gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Reason {
    /// `MANIFEST_UNKNOWN`, `DENIED`, …
    pub code: String,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// The status, as a number.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Whether a blob was asked for, or to be sent.
    pub fn is_of_a_blob(&self) -> bool {
        self.asked.0.contains("/blobs/")
    }

    /// Whether the registry gives this reason.
    pub fn has(&self, code: &str) -> bool {
        self.reasons.iter().any(|reason| reason.code.eq_ignore_ascii_case(code))
    }

    /// The reasons in a document: `errors` of registries, `details` of Docker Hub's server of tokens.
    pub(crate) fn reasons_in(document: &[u8], status: StatusCode) -> Vec<Reason> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Document {
            errors: Vec<Reason>,
            details: String,
        }
        const REASONS_MAX: usize = 8;
        let Document { mut errors, details } = serde_json::from_slice(document).unwrap_or_default();
        if errors.is_empty() && !details.is_empty() {
            let code = if status == StatusCode::UNAUTHORIZED { "UNAUTHORIZED" } else { "DENIED" };
            errors.push(Reason { code: code.to_owned(), message: details });
        }
        errors.truncate(REASONS_MAX);
        for reason in &mut errors {
            reason.message = reason.message.chars().filter(|c| !c.is_control()).take(500).collect();
            reason.code = reason.code.chars().filter(|c| !c.is_control()).take(60).collect();
        }
        errors
    }
}

/// Docker's words: the code in lower case, then the message.
impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |reason: &Reason| {
            let code = reason.code.to_ascii_lowercase().replace('_', " ");
            match reason.message.as_str() {
                "" => code,
                message => format!("{code}: {message}"),
            }
        };
        match self.reasons.as_slice() {
            [] if self.status == StatusCode::UNAUTHORIZED => {
                write!(formatter, "{}: unauthorized: authentication required", self.asked)
            }
            [] => write!(formatter, "{}: received unexpected HTTP status: {}", self.asked, self.status),
            reasons => {
                if self.status == StatusCode::UNAUTHORIZED {
                    write!(formatter, "{}: ", self.asked)?;
                }
                formatter.write_str(&reasons.iter().map(words).collect::<Vec<_>>().join("; "))
            }
        }
    }
}

impl Error {
    /// What the registry answered, if it did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Refused(refusal) => Some(refusal),
            Error::Token(error) => error.refusal(),
            _ => None,
        }
    }

    /// Whether what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.status == StatusCode::NOT_FOUND)
    }

    /// Whether the registry does not know, or does not believe, who asks.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Error::NoCredentials { .. } | Error::Login { status: StatusCode::UNAUTHORIZED, .. })
            || self.refusal().is_some_and(|refusal| refusal.status == StatusCode::UNAUTHORIZED)
    }

    /// Whether no connection could be made at all.
    pub(crate) fn is_connect(&self) -> bool {
        matches!(self, Error::Connect { .. })
    }
}

/// An operating system's error without its number, as Go prints it.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + characters.as_str())
}

fn tls_words(error: &tls::TlsError) -> String {
    let text = chain(error);
    if text.contains("UnknownIssuer") {
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned();
    }
    format!("tls: {text}")
}

/// The innermost cause alone: what is around it says only that a connection failed.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    text.split(" (os error").next().unwrap_or_default().to_ascii_lowercase()
}

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, document: &str) -> String {
        let status = StatusCode::from_u16(status).unwrap();
        let asked = Asked::new(&Method::HEAD, &Url::parse("https://h/v2/a/manifests/b").unwrap());
        let reasons = Refusal::reasons_in(document.as_bytes(), status);
        Refusal { asked, status, reasons, retry_after: None }.to_string()
    }

    #[test]
    fn refusals_use_dockers_words() {
        for (status, document, expected) in [
            (
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#,
                "manifest unknown: manifest unknown",
            ),
            (401, "", "Head \"https://h/v2/a/manifests/b\": unauthorized: authentication required"),
            (
                401,
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
                "Head \"https://h/v2/a/manifests/b\": unauthorized: authentication required",
            ),
            (403, r#"{"errors":[{"code":"DENIED"}]}"#, "denied"),
            (502, "<html>", "Head \"https://h/v2/a/manifests/b\": received unexpected HTTP status: 502 Bad Gateway"),
            (
                401,
                r#"{"details":"incorrect username or password"}"#,
                "Head \"https://h/v2/a/manifests/b\": unauthorized: incorrect username or password",
            ),
        ] {
            assert_eq!(refusal(status, document), expected);
        }
    }

    #[test]
    fn connections_that_fail_read_as_in_docker() {
        let cause = io::Error::from_raw_os_error(111);
        let error = Error::Connect {
            asked: Asked::new(&Method::GET, &Url::parse("http://127.0.0.1:5000/v2/").unwrap()),
            source: ConnectError::Dial { address: "127.0.0.1:5000".to_owned(), cause },
        };
        assert_eq!(
            error.to_string(),
            "Get \"http://127.0.0.1:5000/v2/\": dial tcp 127.0.0.1:5000: connect: connection refused"
        );
    }
}
