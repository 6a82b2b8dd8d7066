//! What can go wrong, in Docker's kinds and Docker's words.

use std::error::Error as StdError;

/// What kind of failure it is; a face turns it into a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself is wrong (400).
    InvalidParameter,
    /// The credentials are wrong or missing (401).
    Unauthorized,
    /// No such object (404).
    NotFound,
    /// The object is in a state or a use that forbids this (409).
    Conflict,
    /// Already so: started twice, stopped twice (304, without a body).
    NotModified,
    /// Never allowed, such as removing a predefined network (403).
    Forbidden,
    /// Conex cannot do this, or not yet (501).
    NotImplemented,
    /// Not now: shutting down, or a limit is reached (503).
    Unavailable,
    /// A failure of ours or of the host (500).
    System,
}

/// A failed operation: its kind, the message for the user, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl EngineError {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same error with the error that caused it.
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text that Docker's clients show (and some parse).
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }

    /// No such object.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The object's state or use forbids it.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// It is so already.
    pub fn not_modified(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotModified, message)
    }

    /// Never allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    /// Conex cannot do this; `field` names what was asked.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }

    /// Not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// A failure of ours or of the host, with its cause spelled out in the message.
    pub fn system(doing: &str, source: impl StdError + Send + Sync + 'static) -> Self {
        Self::new(ErrorKind::System, format!("{doing}: {}", chain(&source))).with_source(source)
    }

    /// Docker's words for a container that is not there.
    pub fn no_such_container(reference: &str) -> Self {
        Self::not_found(format!("No such container: {reference}"))
    }

    /// Docker's words for an exec that is not there.
    pub fn no_such_exec(id: &str) -> Self {
        Self::not_found(format!("No such exec instance: {id}"))
    }
}

/// An error and its causes in one line, each once.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let part = inner.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = inner.source();
    }
    text
}
