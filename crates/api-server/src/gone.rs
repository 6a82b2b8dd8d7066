//! Noticing that a client has left while an answer has nothing to write.
//!
//! hyper does not read while it answers where half-closed connections are allowed, and they have to be, for stdin. So long answers
//! (events, logs, waits) watch the socket by themselves. As in Docker, a client that has closed its side counts as gone there.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::Serialize;

use tokio::io::Interest;
use tokio::net::UnixStream;

/// A second handle of a connection's socket, only to be watched; and who has shown a certificate there.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    socket: Arc<OwnedFd>,
    certificate: Option<Arc<tls::Identity>>,
}

/// Who is at the other end, as the kernel tells, and a certificate that was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PeerIdentity {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    /// The name of its program, where it is still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<String>,
    /// Of a TCP client.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The common name of its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    common_name: Option<String>,
    /// The alternative names of its certificate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alternative_names: Vec<String>,
}

impl Peer {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket: Arc::new(socket), certificate: None }
    }

    /// The same with what its certificate says.
    pub(crate) fn with_certificate(self, certificate: Option<tls::Identity>) -> Self {
        Self { certificate: certificate.map(Arc::new), ..self }
    }

    /// Who is at the other end.
    pub(crate) fn identity(&self) -> PeerIdentity {
        if let Ok(client) = rustix::net::sockopt::socket_peercred(&self.socket) {
            let pid = client.pid.as_raw_nonzero().get();
            let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
            return PeerIdentity {
                pid: Some(pid),
                uid: Some(client.uid.as_raw()),
                gid: Some(client.gid.as_raw()),
                program: program.map(|name| name.trim().to_owned()),
                ..PeerIdentity::default()
            };
        }
        let address = rustix::net::getpeername(&self.socket).ok();
        let address = address.and_then(|address| std::net::SocketAddr::try_from(address?).ok());
        let certificate = self.certificate.as_deref().cloned().unwrap_or_default();
        PeerIdentity {
            address: address.map(|address| address.to_string()),
            common_name: certificate.common_name,
            alternative_names: certificate.alternative_names,
            ..PeerIdentity::default()
        }
    }

    /// The same for people: the program, or the address.
    pub(crate) fn who(&self) -> String {
        match self.identity() {
            PeerIdentity { pid: Some(pid), uid: Some(uid), program, .. } => {
                format!("{} (pid {pid}, uid {uid})", program.unwrap_or_default())
            }
            PeerIdentity { address: Some(address), common_name: Some(name), .. } => format!("{name} at {address}"),
            PeerIdentity { address: Some(address), alternative_names, .. } => {
                format!("{} at {address}", alternative_names.first().map_or("a client", String::as_str))
            }
            _ => "a client".to_owned(),
        }
    }

    /// Completes when the client has closed its side. Where the socket cannot be watched it never does; a write will find out.
    pub(crate) async fn gone(self) {
        if self.wait_for_end().await.is_err() {
            std::future::pending().await
        }
    }

    async fn wait_for_end(self) -> io::Result<()> {
        // Whatever kind of socket it is: only its readiness is asked for, nothing is read.
        let socket = std::os::unix::net::UnixStream::from(self.socket.try_clone()?);
        drop(self.socket);
        let watched = UnixStream::from_std(socket)?;
        loop {
            if watched.ready(Interest::READABLE).await?.is_read_closed() {
                return Ok(());
            }
            // Forgets this readiness, so that the next thing to happen is waited for.
            let _: io::Result<()> = watched.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn waiting_data_is_no_end_but_a_closed_side_is() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let gone = tokio::spawn(Peer::new(ours.into()).gone());
        theirs.write_all(b"next request").unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!gone.is_finished());
        theirs.shutdown(Shutdown::Write).unwrap();
        tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap().unwrap();
    }
}
