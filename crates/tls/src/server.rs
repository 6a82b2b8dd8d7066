//! The server's side.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::{Identity, TlsError, files, provider};

/// What a server shows, and whom it trusts.
#[derive(Debug, Clone, Copy)]
pub struct ServerFiles<'a> {
    /// Its certificate chain.
    pub certificate: &'a Path,
    /// The key of the first certificate.
    pub key: &'a Path,
    /// Whoever wants to connect must show a certificate of these authorities; `None` lets everybody in.
    pub client_authority: Option<&'a Path>,
}

/// Turns accepted TCP connections into TLS ones.
#[derive(Clone)]
pub struct Acceptor(tokio_rustls::TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// Reads the files.
    pub fn load(files: ServerFiles<'_>) -> Result<Self, TlsError> {
        let refused = |error: rustls::Error| TlsError::Configuration(error.to_string());
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(refused)?;
        let builder = match files.client_authority {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let authorities = Arc::new(files::authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider())
                    .build()
                    .map_err(|error| TlsError::Configuration(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = files::certificates(files.certificate)?;
        let config = builder.with_single_cert(chain, files::private_key(files.key)?).map_err(refused)?;
        Ok(Self(tokio_rustls::TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands.
    pub async fn accept(&self, stream: TcpStream) -> Result<ServerStream, TlsError> {
        self.0.accept(stream).await.map(|stream| ServerStream(Box::new(stream))).map_err(TlsError::Handshake)
    }
}

/// A connection of a client over TLS.
#[derive(Debug)]
pub struct ServerStream(Box<tokio_rustls::server::TlsStream<TcpStream>>);

impl ServerStream {
    /// Who the client's certificate says that it is; none where it had to show none.
    pub fn client(&self) -> Option<Identity> {
        self.0.get_ref().1.peer_certificates()?.first().map(Identity::of)
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
