//! The client's side.
//!
//! The callers block and want a socket that they can poll, half-close and hand on. A thread with a small event loop of its own holds the
//! TLS connection and copies between it and one end of a socket pair; the caller gets the other end.

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, mpsc};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio_rustls::TlsConnector;

use crate::{TlsError, files, provider};

/// Whether the server has to prove who it is.
#[derive(Debug, Clone, Copy)]
pub enum Verification<'a> {
    /// Its certificate must be of these authorities.
    Authority(&'a Path),
    /// Any certificate will do (`--tls` without `--tlsverify`).
    None,
}

/// What a client shows, and whom it trusts.
#[derive(Debug, Clone, Copy)]
pub struct ClientFiles<'a> {
    /// Whom to trust.
    pub verification: Verification<'a>,
    /// The client's certificate chain and its key, where the server wants one.
    pub identity: Option<(&'a Path, &'a Path)>,
}

/// Turns connected TCP sockets into TLS ones.
#[derive(Debug, Clone)]
pub struct Connector(Arc<ClientConfig>);

impl Connector {
    /// Reads the files.
    pub fn load(files: ClientFiles<'_>) -> Result<Self, TlsError> {
        let refused = |error: rustls::Error| TlsError::Configuration(error.to_string());
        let builder =
            ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(refused)?;
        let builder = match files.verification {
            Verification::Authority(path) => builder.with_root_certificates(files::authorities(path)?),
            Verification::None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider()))),
        };
        let config = match files.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                builder.with_client_auth_cert(files::certificates(chain)?, files::private_key(key)?).map_err(refused)?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands with the server called `name`, and returns a socket that carries what is inside.
    pub fn connect(&self, stream: TcpStream, name: &str) -> Result<UnixStream, TlsError> {
        let server = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))?;
        let (ours, theirs) = UnixStream::pair().map_err(TlsError::Handshake)?;
        let config = Arc::clone(&self.0);
        let (done, outcome) = mpsc::channel();
        std::thread::Builder::new()
            .name("tls".to_owned())
            .spawn(move || carry(config, stream, server, theirs, &done))
            .map_err(TlsError::Handshake)?;
        outcome.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())).map_err(TlsError::Handshake)?;
        Ok(ours)
    }
}

/// Shakes hands, tells how that went, then copies until both directions have ended.
fn carry(
    config: Arc<ClientConfig>,
    stream: TcpStream,
    server: ServerName<'static>,
    inside: UnixStream,
    done: &mpsc::Sender<io::Result<()>>,
) {
    let told = done.clone();
    let work = async move {
        stream.set_nonblocking(true)?;
        inside.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let mut inside = tokio::net::UnixStream::from_std(inside)?;
        let mut outside = TlsConnector::from(config).connect(server, stream).await?;
        // The caller may be gone already; then the copy ends at once.
        let _ = told.send(Ok(()));
        // An end without close_notify looks like an error here; the caller sees the end of the stream either way.
        let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
        Ok(())
    };
    let outcome =
        tokio::runtime::Builder::new_current_thread().enable_io().build().and_then(|runtime| runtime.block_on(work));
    if let Err(error) = outcome {
        let _ = done.send(Err(error));
    }
}

/// Accepts whatever certificate the server shows; signatures are still checked.
#[derive(Debug)]
pub(crate) struct AnyServer(pub(crate) Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::{Acceptor, ServerFiles};

    /// Certificates made once with openssl; they end in the year 2126.
    fn file(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
    }

    /// A server that answers "got N" after the client's end of input.
    fn serve_one(client_authority: Option<&Path>) -> u16 {
        let acceptor = Acceptor::load(ServerFiles {
            certificate: &file("server.pem"),
            key: &file("server.key"),
            client_authority,
        })
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                let Ok(mut stream) = acceptor.accept(tokio::net::TcpStream::from_std(stream).unwrap()).await else {
                    return;
                };
                let mut input = Vec::new();
                if stream.read_to_end(&mut input).await.is_err() {
                    return;
                }
                stream.write_all(format!("got {}", input.len()).as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            });
        });
        port
    }

    fn exchange(files: ClientFiles<'_>, port: u16) -> Result<String, String> {
        let connector = Connector::load(files).map_err(|error| error.to_string())?;
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut stream = connector.connect(stream, "127.0.0.1").map_err(|error| error.to_string())?;
        let _ = stream.write_all(&[7; 100_000]);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        Ok(answer)
    }

    #[test]
    fn both_sides_prove_themselves_and_output_goes_on_after_the_end_of_input() {
        let ca = file("ca.pem");
        let (chain, key) = (file("client.pem"), file("client.key"));
        let files = ClientFiles { verification: Verification::Authority(&ca), identity: Some((&chain, &key)) };
        assert_eq!(exchange(files, serve_one(Some(&ca))).unwrap(), "got 100000");
    }

    #[test]
    fn a_client_without_a_certificate_gets_nothing() {
        let ca = file("ca.pem");
        let files = ClientFiles { verification: Verification::Authority(&ca), identity: None };
        assert_ne!(exchange(files, serve_one(Some(&ca))), Ok("got 100000".to_owned()));
    }

    #[test]
    fn a_server_of_another_authority_is_refused_unless_nothing_is_verified() {
        let other = file("client.pem");
        let files = ClientFiles { verification: Verification::Authority(&other), identity: None };
        assert_eq!(exchange(files, serve_one(None)), Err("TLS handshake failed".to_owned()));
        let files = ClientFiles { verification: Verification::None, identity: None };
        assert_eq!(exchange(files, serve_one(None)).unwrap(), "got 100000");
    }

    #[test]
    fn errors_name_the_file() {
        let missing = file("missing.pem");
        let error = Connector::load(ClientFiles { verification: Verification::Authority(&missing), identity: None });
        assert!(error.unwrap_err().to_string().ends_with("missing.pem"));
        let key = file("server.key");
        let error = Connector::load(ClientFiles { verification: Verification::Authority(&key), identity: None });
        assert!(error.unwrap_err().to_string().starts_with("no certificate in"));
    }
}
