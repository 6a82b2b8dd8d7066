//! The way to a sink: made when it is needed, given up when it fails.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};

use crate::model::{Endpoint, TlsFiles};

/// How long a sink may take to accept a connection, or a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where the host's syslog listens, as Docker looks for it.
const LOCAL_SYSLOG: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const LARGEST_ACK: usize = 4096;
/// How long a sink may take to refuse a certificate after the handshake.
const REFUSAL: Duration = Duration::from_millis(300);

/// An open way.
#[derive(Debug)]
pub(super) enum Transport {
    Udp(UdpSocket),
    Datagram(UnixDatagram),
    Tcp(TcpStream),
    /// Also what is inside a TLS connection.
    Unix(UnixStream),
}

impl Transport {
    /// Connects within bounds.
    pub(super) async fn connect(endpoint: &Endpoint) -> io::Result<Transport> {
        within(async {
            match endpoint {
                Endpoint::Udp(address) => udp(address).await.map(Transport::Udp),
                Endpoint::Tcp(address) => TcpStream::connect(address).await.map(Transport::Tcp),
                Endpoint::Tls(address, files) => tls(address, files).await,
                Endpoint::Unix(path) => UnixStream::connect(path).await.map(Transport::Unix),
                Endpoint::UnixDatagram(path) => datagram_or_stream(path).await,
            }
        })
        .await
    }

    /// Connects to the host's own syslog.
    pub(super) async fn local_syslog() -> io::Result<Transport> {
        for path in LOCAL_SYSLOG {
            if let Ok(transport) = datagram_or_stream(Path::new(path)).await {
                return Ok(transport);
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "Unix syslog delivery error"))
    }

    /// Whether messages keep their borders.
    pub(super) fn is_datagram(&self) -> bool {
        matches!(self, Transport::Udp(_) | Transport::Datagram(_))
    }

    /// Sends one message, or a part of a stream.
    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        within(async {
            match self {
                Transport::Udp(socket) => socket.send(message).await.map(drop),
                Transport::Datagram(socket) => socket.send(message).await.map(drop),
                Transport::Tcp(stream) => stream.write_all(message).await,
                Transport::Unix(stream) => stream.write_all(message).await,
            }
        })
        .await
    }

    /// Fails where the other end has closed a stream: what is written then is lost without a word.
    pub(super) fn check(&self) -> io::Result<()> {
        let mut scratch = [0; 64];
        let read = match self {
            Transport::Udp(_) | Transport::Datagram(_) => return Ok(()),
            Transport::Tcp(stream) => stream.try_read(&mut scratch),
            Transport::Unix(stream) => stream.try_read(&mut scratch),
        };
        match read {
            Ok(0) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the sink has closed the connection")),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits for an answer that holds `wanted`.
    pub(super) async fn wait_for(&mut self, wanted: &[u8]) -> io::Result<()> {
        within(async {
            let mut answer = Vec::new();
            loop {
                let mut piece = [0; 256];
                let count = match self {
                    Transport::Tcp(stream) => tokio::io::AsyncReadExt::read(stream, &mut piece).await?,
                    Transport::Unix(stream) => tokio::io::AsyncReadExt::read(stream, &mut piece).await?,
                    Transport::Udp(_) | Transport::Datagram(_) => return Ok(()),
                };
                answer.extend_from_slice(&piece[..count]);
                if answer.windows(wanted.len()).any(|window| window == wanted) {
                    return Ok(());
                }
                if count == 0 || answer.len() > LARGEST_ACK {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the sink has not acknowledged"));
                }
            }
        })
        .await
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the sink does not answer"));
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(late)
}

async fn udp(address: &str) -> io::Result<UdpSocket> {
    let mut addresses = tokio::net::lookup_host(address).await?;
    let address = addresses.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
    let any: SocketAddr =
        if address.is_ipv4() { ([0; 4], 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

async fn datagram_or_stream(path: &Path) -> io::Result<Transport> {
    let socket = UnixDatagram::unbound()?;
    match socket.connect(path) {
        Ok(()) => Ok(Transport::Datagram(socket)),
        // EPROTOTYPE: it is of the other kind.
        Err(_) => UnixStream::connect(path).await.map(Transport::Unix),
    }
}

async fn tls(address: &str, files: &TlsFiles) -> io::Result<Transport> {
    let stream = TcpStream::connect(address).await?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']).to_owned();
    let files = files.clone();
    let work = move || -> io::Result<std::os::unix::net::UnixStream> {
        let authority = files.authority.unwrap_or_else(usual_authorities);
        let verification = match files.skip_verification {
            true => tls::Verification::None,
            false => tls::Verification::Authority(&authority),
        };
        let identity = files.identity.as_ref().map(|(chain, key)| (chain.as_path(), key.as_path()));
        let connector = tls::Connector::load(tls::ClientFiles { verification, identity }).map_err(io::Error::other)?;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        connector.connect(stream, &host).map_err(io::Error::other)
    };
    let inside = tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??;
    inside.set_nonblocking(true)?;
    let stream = UnixStream::from_std(inside)?;
    // With TLS 1.3 a sink that does not like our certificate says so when we think that we are in: what is sent by then would be lost.
    let is_told = tokio::time::timeout(REFUSAL, stream.readable()).await.is_ok();
    let transport = Transport::Unix(stream);
    if is_told {
        transport.check()?;
    }
    Ok(transport)
}

/// The host's own.
fn usual_authorities() -> PathBuf {
    "/etc/ssl/certs/ca-certificates.crt".into()
}
