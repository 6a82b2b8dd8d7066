//! Ports at IPv6 addresses of the host for containers that have IPv4 alone, and ports at IPv6's loopback.
//!
//! The kernel translates addresses within one family only, and where bridged packets pass the rules (br_netfilter) it takes an answer
//! for `::1` that comes by a bridge for one to be bridged. What calls `[::1]:8080` is therefore taken by a listener and passed on: by the
//! container's monitor, so that it goes on without a daemon.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use network::{Published, Transport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

/// A container with more ports than this has none of them relayed unless it names IPv6 addresses: the frame that launches can carry 64
/// descriptors, and half of them may be clients.
pub(super) const RELAY_LIMIT: usize = 24;

const BACKLOG: i32 = 1024;

/// A listener for the monitor, and where its calls go.
#[derive(Debug)]
pub(super) struct Relayed {
    pub(super) listener: OwnedFd,
    pub(super) target: SocketAddr,
}

/// Listens at every address that the kernel cannot translate. Connections are accepted from the answer on.
pub(super) fn open(published: &[Published]) -> io::Result<Vec<Relayed>> {
    let few = published.len() <= RELAY_LIMIT;
    let is_possible = |port: &Published| few && port.transport == Transport::Tcp;
    let relayed = published.iter().filter_map(|port| Some((port, relayed_address(port)?)));
    // Of a port at every address the rest is there all the same.
    let relayed: Vec<_> = relayed.filter(|(port, address)| *address == port.address || is_possible(port)).collect();
    if relayed.len() > RELAY_LIMIT {
        return Err(io::Error::other(format!("more than {RELAY_LIMIT} ports would have to be passed on by IPv6")));
    }
    let one = |(port, address): &(&Published, IpAddr)| {
        if port.transport != Transport::Tcp {
            return Err(io::Error::other(format!("{} at {address} cannot be passed on", port.transport)));
        }
        let listener = listen_at(SocketAddr::new(*address, port.port))?;
        Ok(Relayed { listener, target: SocketAddr::new(port.target, port.container_port) })
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
    let family = match address.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}
