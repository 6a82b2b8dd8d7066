//! Ports at IPv6 addresses of the host for containers that have IPv4 alone, and ports at IPv6's loopback.
//!
//! The kernel translates addresses within one family only, and where bridged packets pass the rules (br_netfilter) it takes an answer
//! for `::1` that comes by a bridge for one to be bridged. What comes to `[::1]:8080` is therefore taken by a socket and passed on: by the
//! container's monitor, so that it goes on without a daemon.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use network::{Published, PublishedPorts, Transport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

/// A container with more ports than this has none of them relayed unless it names IPv6 addresses: the frame that launches can carry 64
/// descriptors, and half of them may be clients.
pub(super) const RELAY_LIMIT: usize = 24;

const BACKLOG: i32 = 1024;

/// A socket for the monitor, and where what comes to it goes.
#[derive(Debug)]
pub(super) struct Relayed {
    /// TCP or UDP.
    pub(super) transport: Transport,
    /// It listens, or is bound.
    pub(super) socket: OwnedFd,
    pub(super) target: SocketAddr,
}

/// Listens at every address that the kernel cannot translate. Connections and datagrams are accepted from the answer on.
pub(super) fn open(published: &PublishedPorts) -> io::Result<Vec<Relayed>> {
    let few = published.len() <= RELAY_LIMIT;
    let is_possible = |port: &Published| few && port.transport != Transport::Sctp;
    let relayed = published.iter().filter_map(|port| Some((port, relayed_address(&port)?)));
    // Of a port at every address the rest is there all the same.
    let relayed: Vec<_> = relayed.filter(|(port, address)| *address == port.address || is_possible(port)).collect();
    if relayed.len() > RELAY_LIMIT {
        return Err(io::Error::other(format!("more than {RELAY_LIMIT} ports would have to be passed on by IPv6")));
    }
    let one = |(port, address): &(Published, IpAddr)| {
        let (transport, at) = (port.transport, SocketAddr::new(*address, port.port));
        let socket = match transport {
            Transport::Tcp => listen_at(at)?,
            Transport::Udp => bind_at(at)?,
            Transport::Sctp => return Err(io::Error::other(format!("{transport} at {address} cannot be passed on"))),
        };
        Ok(Relayed { transport, socket, target: SocketAddr::new(port.target, port.container_port) })
    };
    relayed.iter().map(one).collect()
}

/// Whether a monitor has a part in a port.
pub(super) fn is_relayed(port: &Published) -> bool {
    relayed_address(port).is_some()
}

/// The address of the host that the kernel does not serve for a published port; it may be one of many.
fn relayed_address(port: &Published) -> Option<IpAddr> {
    const LOOPBACK: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    match port.address {
        address if !port.is_translatable() => Some(address),
        address if address.is_ipv6() && address.is_unspecified() => Some(LOOPBACK),
        _ => None,
    }
}

fn listen_at(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket_for(address, SocketType::STREAM)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn bind_at(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket_for(address, SocketType::DGRAM)?;
    bind(&socket, &address)?;
    Ok(socket)
}

/// A socket for the one family of an address that the kernel does not serve: IPv6's.
fn socket_for(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}
