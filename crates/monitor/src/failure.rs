//! Our errors as the daemon gets them.

use std::error::Error;

use monitor_protocol::{Failure, FailureKind};

/// A failure whose message is the error's, with its causes.
pub(crate) fn of(kind: FailureKind, stage: &str, error: &dyn Error) -> Failure {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    Failure { kind, stage: stage.to_owned(), message }
}

/// A failure of no special kind.
pub(crate) fn other(stage: &str, error: &dyn Error) -> Failure {
    of(FailureKind::Other, stage, error)
}

/// A failure with a message of our own.
pub(crate) fn new(kind: FailureKind, stage: &str, message: impl Into<String>) -> Failure {
    Failure { kind, stage: stage.to_owned(), message: message.into() }
}

/// The container has ended, or the session was never there.
pub(crate) fn not_running(message: impl Into<String>) -> Failure {
    new(FailureKind::NotRunning, "request", message)
}

/// The request contradicts itself.
pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    new(FailureKind::Invalid, "request", message)
}

/// The state forbids it.
pub(crate) fn conflict(message: impl Into<String>) -> Failure {
    new(FailureKind::Conflict, "request", message)
}
