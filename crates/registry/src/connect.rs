//! From a server's address to a connection that speaks HTTP: name, proxy, TLS.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tls::{WebConnector, WebTrust};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::body::Body;
use crate::endpoint::{HostFiles, Trust};
use crate::error::ConnectError;
use crate::proxy::{self, Proxies};
use crate::url::{Origin, Scheme, Url};

/// For the connection to one address.
const DIAL_LIMIT: Duration = Duration::from_secs(15);
/// For TLS, and for a proxy's answer.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);
/// The head of a proxy's answer.
const PROXY_HEAD_BYTES_MAX: usize = 16 << 10;
/// What hyper reads at once; it bounds what one connection holds in memory.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// Any stream of bytes in both directions.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Makes connections.
#[derive(Debug)]
pub(crate) struct Dialler {
    proxies: Proxies,
    certificates: Vec<PathBuf>,
    /// Reading authorities takes milliseconds; each server's are read once in an operation.
    connectors: Mutex<HashMap<(Origin, Trust), WebConnector>>,
    known: Known,
}

/// A server that is connected to at certain addresses, and is not looked up again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known(Option<(String, Vec<IpAddr>)>);

impl Known {
    /// The server of a URL; without addresses it is one as all others.
    pub(crate) fn new(url: &Url, addresses: &[IpAddr]) -> Known {
        Known((!addresses.is_empty()).then(|| (url.origin().host.clone(), addresses.to_vec())))
    }

    fn addresses(&self, origin: &Origin) -> Option<Vec<SocketAddr>> {
        let (_, addresses) = self.0.as_ref().filter(|(host, _)| *host == origin.host)?;
        Some(addresses.iter().map(|address| SocketAddr::new(*address, origin.port)).collect())
    }
}

impl Dialler {
    pub(crate) fn new(proxies: Proxies, certificates: Vec<PathBuf>, known: Known) -> Dialler {
        Dialler { proxies, certificates, connectors: Mutex::default(), known }
    }

    /// Connects, and says whether requests on it name the whole URL (as a proxy for plain HTTP wants it).
    pub(crate) async fn connect(&self, origin: &Origin, trust: Trust) -> Result<Connection, ConnectError> {
        let proxy = self.proxies.of(origin);
        let stream = match proxy {
            None => Box::new(self.dial(origin).await?) as Box<dyn Stream>,
            Some(proxy) => self.to_proxy(proxy.origin()).await?,
        };
        let (stream, form) = match (origin.scheme, proxy) {
            (Scheme::Http, None) => (stream, Form::Path),
            (Scheme::Http, Some(proxy)) => (stream, Form::Whole { authorization: proxy::authorization(proxy) }),
            (Scheme::Https, None) => (self.secure(stream, origin, trust).await?, Form::Path),
            (Scheme::Https, Some(proxy)) => {
                let stream = tunnel(stream, origin, proxy::authorization(proxy)).await?;
                (self.secure(stream, origin, trust).await?, Form::Path)
            }
        };
        let mut builder = http1::Builder::new();
        let handshake = builder.max_buf_size(READ_BUFFER_BYTES).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| ConnectError::Handshake(error.to_string()))?;
        tokio::spawn(async move {
            // What goes wrong is told to whoever waits for the answer.
            let _ = connection.await;
        });
        Ok(Connection { sender, form })
    }

    async fn to_proxy(&self, origin: &Origin) -> Result<Box<dyn Stream>, ConnectError> {
        let stream = self.dial(origin).await.map_err(|error| ConnectError::Proxy(error.to_string()))?;
        match origin.scheme {
            Scheme::Http => Ok(Box::new(stream)),
            Scheme::Https => self.secure(Box::new(stream), origin, Trust::Proven).await,
        }
    }

    /// Tries each address of a server.
    async fn dial(&self, origin: &Origin) -> Result<TcpStream, ConnectError> {
        let resolve = |cause| ConnectError::Resolve { host: origin.host.clone(), cause };
        let addresses = match self.known.addresses(origin) {
            Some(addresses) => addresses,
            None => {
                tokio::net::lookup_host((origin.host.as_str(), origin.port)).await.map_err(resolve)?.collect::<Vec<_>>()
            }
        };
        let mut failure = ConnectError::Timeout { address: origin.host_and_port() };
        for address in addresses {
            match tokio::time::timeout(DIAL_LIMIT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Only a matter of speed.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(cause)) => failure = ConnectError::Dial { address: address.to_string(), cause },
                Err(_) => failure = ConnectError::Timeout { address: address.to_string() },
            }
        }
        Err(failure)
    }

    async fn secure(
        &self,
        stream: Box<dyn Stream>,
        origin: &Origin,
        trust: Trust,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let connector = self.connector(origin, trust).map_err(ConnectError::Tls)?;
        let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, connector.connect(stream, &origin.host));
        match handshake.await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(ConnectError::Tls(error)),
            Err(_) => Err(ConnectError::Timeout { address: origin.host_and_port() }),
        }
    }

    fn connector(&self, origin: &Origin, trust: Trust) -> Result<WebConnector, tls::TlsError> {
        let mut connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (origin.clone(), trust);
        if let Some(connector) = connectors.get(&key) {
            return Ok(connector.clone());
        }
        // As Docker has it: a folder is called as the registry is in names, with its port where one stands there.
        let mut files = HostFiles::find(&self.certificates, &origin.authority());
        if files == HostFiles::default() {
            files = HostFiles::find(&self.certificates, &origin.host_and_port());
        }
        let identity = files.identity.as_ref().map(|(chain, key)| (chain.as_path(), key.as_path()));
        let whom = match trust {
            Trust::Proven => WebTrust::Authorities(&files.authorities),
            Trust::Anybody => WebTrust::Anybody,
        };
        let connector = WebConnector::load(whom, identity)?;
        connectors.insert(key, connector.clone());
        Ok(connector)
    }
}

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Body>,
    pub(crate) form: Form,
}

/// How a request names what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// By its path.
    Path,
    /// By its whole URL, to a proxy.
    Whole {
        /// What the proxy is told about who asks.
        authorization: Option<String>,
    },
}

/// Asks a proxy to connect to a server.
async fn tunnel(
    mut stream: Box<dyn Stream>,
    origin: &Origin,
    authorization: Option<String>,
) -> Result<Box<dyn Stream>, ConnectError> {
    let target = origin.host_and_port();
    let authorization = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
    let failed = |error: std::io::Error| ConnectError::Proxy(error.to_string());
    let exchange = async {
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        let mut head = Vec::new();
        // Byte by byte: whatever follows the head belongs to the server behind the proxy.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= PROXY_HEAD_BYTES_MAX {
                return Err(ConnectError::Proxy("the answer is too long".to_owned()));
            }
            head.push(stream.read_u8().await.map_err(failed)?);
        }
        let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        match line.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => Ok(()),
            _ => Err(ConnectError::Proxy(line)),
        }
    };
    match tokio::time::timeout(HANDSHAKE_LIMIT, exchange).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ConnectError::Timeout { address: target }),
    }
}
