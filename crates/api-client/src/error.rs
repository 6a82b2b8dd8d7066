use std::io;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at the host.
    #[error("cannot connect to {host}")]
    Connect {
        /// The host's address as given.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// TLS could not be set up.
    #[error("cannot connect to {host}")]
    Tls {
        /// The host's address as given.
        host: String,
        /// Why.
        source: tls::TlsError,
    },
    /// The server refused; `message` is what it said.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's words.
        message: String,
    },
    /// The connection broke.
    #[error("error during connect: {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The server's answer is not HTTP.
    #[error("the server's answer is not HTTP: {0}")]
    Malformed(&'static str),
    /// The server's answer is HTTP, but its document is not the one that was asked for.
    #[error("cannot read the server's answer")]
    Json(#[from] serde_json::Error),
}

impl Error {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the server knows no such object.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether nobody answers at the host.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Tls { .. })
    }
}
