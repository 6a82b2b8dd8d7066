use std::io;
use std::path::PathBuf;

/// Why TLS cannot be set up, or a connection not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or keys cannot be read.
    #[error("cannot read {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificate or key in PEM form.
    #[error("no {what} in {path}", path = path.display())]
    Empty {
        /// `certificate` or `private key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Certificates and key do not make a configuration.
    #[error("cannot use the TLS certificates: {0}")]
    Configuration(String),
    /// The server's name cannot be in a certificate.
    #[error("invalid server name {0:?}")]
    ServerName(String),
    /// The handshake failed, or the connection before it.
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
}
