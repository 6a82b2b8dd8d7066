//! TLS for the API's TCP sockets and for registries: the one place where the cryptography is chosen.
//!
//! All sides hand out plain streams: the server and the client of the web async ones, the API's client a unix socket whose other end
//! a thread wraps. So nothing above this crate knows a type of rustls, and a hijacked connection is an ordinary socket.

mod client;
mod error;
mod files;
mod identity;
mod server;
mod web;

pub use client::{ClientFiles, Connector, Verification};
pub use error::TlsError;
pub use identity::Identity;
pub use server::{Acceptor, ServerFiles, ServerStream};
pub use web::{WebConnector, WebStream, WebTrust};

/// The provider of all cryptography: ring, because it builds in a fifth of the time of aws-lc.
fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::ring::default_provider())
}
