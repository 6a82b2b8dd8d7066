//! The client's side for servers of the web, asynchronous: registries and proxies.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;

use crate::client::AnyServer;
use crate::{TlsError, files, provider};

/// Where systems keep the authorities that they trust, all in one file.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom a client of the web trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebTrust<'a> {
    /// The authorities of the system, and those in these files.
    Authorities(&'a [PathBuf]),
    /// Everybody.
    Anybody,
}

/// Turns connections into TLS ones.
#[derive(Debug, Clone)]
pub struct WebConnector(Arc<ClientConfig>);

impl WebConnector {
    /// Reads the files. The identity is a certificate chain and its key.
    pub fn load(trust: WebTrust<'_>, identity: Option<(&Path, &Path)>) -> Result<Self, TlsError> {
        let refused = |error: rustls::Error| TlsError::Configuration(error.to_string());
        let builder =
            ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(refused)?;
        let builder = match trust {
            WebTrust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider()))),
            WebTrust::Authorities(more) => {
                let mut roots = system_authorities().clone();
                for path in more {
                    roots.extend(files::authorities(path)?.roots);
                }
                builder.with_root_certificates(roots)
            }
        };
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                builder.with_client_auth_cert(files::certificates(chain)?, files::private_key(key)?).map_err(refused)?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands with the server called `name`.
    pub async fn connect<S>(&self, stream: S, name: &str) -> Result<WebStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let server = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))?;
        let stream = TlsConnector::from(Arc::clone(&self.0)).connect(server, stream).await;
        stream.map(|stream| WebStream(Box::new(stream))).map_err(TlsError::Handshake)
    }
}

/// The authorities of this system: `SSL_CERT_FILE`, or the first bundle that is there. Read once.
fn system_authorities() -> &'static RootCertStore {
    static AUTHORITIES: OnceLock<RootCertStore> = OnceLock::new();
    AUTHORITIES.get_or_init(|| {
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let usual = SYSTEM_BUNDLES.iter().map(PathBuf::from);
        let bundle = named.into_iter().chain(usual).find(|path| path.is_file());
        // A system without authorities trusts nobody, which each connection then says.
        bundle.and_then(|path| files::authorities(&path).ok()).unwrap_or_else(RootCertStore::empty)
    })
}

/// A connection to a server of the web.
#[derive(Debug)]
pub struct WebStream<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebStream<S> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::{Acceptor, ServerFiles};

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
    }

    async fn exchange(trust: WebTrust<'_>, identity: Option<(&Path, &Path)>) -> Result<String, TlsError> {
        let (ca, certificate, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
        let server = ServerFiles { certificate: &certificate, key: &key, client_authority: identity.map(|_| &*ca) };
        let acceptor = Acceptor::load(server)?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.write_all(b"hello").await;
                let _ = stream.shutdown().await;
            }
        });
        let connector = WebConnector::load(trust, identity)?;
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut stream = connector.connect(stream, "127.0.0.1").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map_err(TlsError::Handshake)?;
        Ok(text)
    }

    #[tokio::test]
    async fn a_private_authority_is_trusted_where_it_is_named() {
        let ca = [file("ca.pem")];
        assert_eq!(exchange(WebTrust::Authorities(&ca), None).await.unwrap(), "hello");
        assert!(exchange(WebTrust::Authorities(&[]), None).await.is_err());
        assert_eq!(exchange(WebTrust::Anybody, None).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn a_client_shows_its_certificate() {
        let (ca, chain, key) = ([file("ca.pem")], file("client.pem"), file("client.key"));
        assert_eq!(exchange(WebTrust::Authorities(&ca), Some((&chain, &key))).await.unwrap(), "hello");
    }
}
