//! Ports at IPv6 addresses of the host for containers that have IPv4 alone, and ports at IPv6's loopback.
//!
//! The kernel translates addresses within one family only, and routes no answer to `::1` that comes from elsewhere. What calls
//! `[::1]:8080` is therefore taken by a listener of the daemon's and passed on. Such a port is away while the daemon is; the same port
//! at other addresses, the kernel's, is not.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use network::{Published, Transport};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::AbortHandle;

/// A container with more ports than this has none of them relayed unless it names IPv6 addresses.
pub(super) const RELAY_LIMIT: usize = 64;

const BACKLOG: u32 = 1024;

/// Listeners of one container; dropping them closes them.
#[derive(Debug, Default)]
pub(super) struct Relays {
    tasks: Vec<(Arc<TcpListener>, AbortHandle)>,
}

impl Relays {
    /// Listens at every address that the kernel cannot translate. Connections are accepted from the answer on. For threads of the
    /// async runtime, blocking ones included.
    pub(super) fn open(published: &[Published]) -> io::Result<Self> {
        let mut relays = Self::default();
        let few = published.len() <= RELAY_LIMIT;
        for port in published {
            let Some(address) = relayed(port) else { continue };
            let is_one_of_many = address != port.address;
            if is_one_of_many && !(few && port.transport == Transport::Tcp) {
                continue;
            }
            if port.transport != Transport::Tcp {
                return Err(io::Error::other(format!(
                    "{} at {} cannot be passed on to a container without IPv6",
                    port.transport, port.address
                )));
            }
            let listener = Arc::new(listen(SocketAddr::new(address, port.port))?);
            let target = SocketAddr::new(port.target, port.container_port);
            let task = tokio::spawn(accept(Arc::clone(&listener), target)).abort_handle();
            relays.tasks.push((listener, task));
        }
        Ok(relays)
    }
}

/// The address of the host that the kernel does not serve for a published port; it may be one of many.
fn relayed(port: &Published) -> Option<IpAddr> {
    const LOOPBACK: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    match port.address {
        address if !port.is_translatable() => Some(address),
        address if address == LOOPBACK || (address.is_ipv6() && address.is_unspecified()) => Some(LOOPBACK),
        _ => None,
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        for (listener, task) in &self.tasks {
            // The task ends some time later, and the port must be free now.
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
            task.abort();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: Arc<TcpListener>, target: SocketAddr) {
    /// Out of descriptors, most likely: they come back when connections end.
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(pass_on(client, target))),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn pass_on(mut client: TcpStream, target: SocketAddr) {
    // A refused connection is refused to the client by closing: what it would have seen of the container itself.
    let Ok(mut container) = TcpStream::connect(target).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut client, &mut container).await;
}
