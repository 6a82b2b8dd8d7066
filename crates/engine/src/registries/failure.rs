//! What goes wrong, in Docker's words.

use oci::Reference;
use registry::{DocumentError, Error};

use crate::model::{EngineError, ErrorKind, chain};

/// Why a pull from one server ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Registry(#[from] Error),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("no matching manifest for {wanted} in the manifest list entries: {present}")]
    Platform { wanted: String, present: String },
    #[error(
        "image with reference {name} was found but does not match the specified platform: wanted {wanted}, actual: {actual}"
    )]
    OtherPlatform { name: String, wanted: String, actual: String },
    #[error("Encountered remote {0:?}({class}) when fetching", class = class(.0))]
    NoImage(String),
    #[error("AI models are not yet supported by the Engine, please use \"docker model pull/run\" instead")]
    Model,
    #[error("{0}")]
    Image(String),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Docker's word for what is no image.
fn class(media_type: &str) -> &'static str {
    match media_type {
        "application/vnd.docker.plugin.v1+json" => "plugin",
        _ => "unknown",
    }
}

impl Failure {
    /// As the client is told, for a pull of `reference`.
    pub(super) fn of_pull(self, reference: &Reference) -> EngineError {
        let kind_and_text = match &self {
            Failure::Registry(error) => Some(of_registry(error, reference)),
            Failure::Platform { .. } | Failure::OtherPlatform { .. } => Some((ErrorKind::NotFound, self.to_string())),
            Failure::Document(_) | Failure::NoImage(_) | Failure::Model | Failure::Image(_) => {
                Some((ErrorKind::InvalidParameter, chain(&self)))
            }
            Failure::Engine(_) => None,
        };
        match (kind_and_text, self) {
            (Some((kind, text)), _) => EngineError::new(kind, text),
            (None, Failure::Engine(error)) => error,
            (None, other) => EngineError::new(ErrorKind::System, other.to_string()),
        }
    }
}

fn of_registry(error: &Error, reference: &Reference) -> (ErrorKind, String) {
    let Some(refusal) = error.refusal() else { return (ErrorKind::System, chain(error)) };
    let has = |code: &str| refusal.has(code);
    if has("DENIED") || refusal.status() == 401 && has("UNAUTHORIZED") && reference.domain() == "docker.io" {
        let name = reference.familiar_name();
        let words = "repository does not exist or may require 'docker login'";
        return (ErrorKind::NotFound, format!("pull access denied for {name}, {words}: {refusal}"));
    }
    if has("MANIFEST_UNKNOWN") {
        return (ErrorKind::NotFound, format!("manifest for {} not found: {refusal}", reference.familiar()));
    }
    if has("NAME_UNKNOWN") {
        return (ErrorKind::NotFound, format!("repository {} not found: {refusal}", reference.familiar_name()));
    }
    match refusal.status() {
        404 if refusal.is_of_a_blob() => (ErrorKind::NotFound, format!("unknown blob: {refusal}")),
        404 => (ErrorKind::NotFound, format!("manifest for {} not found: {refusal}", reference.familiar())),
        _ => (ErrorKind::System, chain(error)),
    }
}

/// A failure of a push. That nobody has said who asks is told without what was asked, as in Docker.
pub(super) fn of_push(error: &Error) -> EngineError {
    match error {
        Error::NoCredentials { .. } => EngineError::new(ErrorKind::Unauthorized, "no basic auth credentials"),
        _ => of_request(error),
    }
}

/// A failure of a login or a question.
pub(super) fn of_request(error: &Error) -> EngineError {
    let kind = match error {
        _ if error.is_unauthorized() => ErrorKind::Unauthorized,
        _ if error.is_not_found() => ErrorKind::NotFound,
        _ => match error.refusal() {
            Some(refusal) if refusal.status() == 403 => ErrorKind::Forbidden,
            _ => ErrorKind::System,
        },
    };
    EngineError::new(kind, chain(error))
}
