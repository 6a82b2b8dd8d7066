//! A container's place in a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::address::{Ip, Mac};
use crate::allocator::Pair;
use crate::port_map::PublishedPorts;
use crate::resolver::NameSockets;

/// The default bridge among the networks of [`Endpoint::network`].
pub const DEFAULT_NETWORK: &str = "bridge";

/// Where a container sits in a network. The engine records it, gives it back at its next start in
/// [`crate::Networks::open`], and to [`crate::Networks::release`] when the container has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network: [`DEFAULT_NETWORK`], or the id of one that a user made.
    pub network: String,
    /// The interface in the container, such as `eth0`.
    pub interface: String,
    /// Its place among IPv4 addresses, where the network has them.
    pub ipv4: Option<Held<Ipv4Addr>>,
    /// Its place among IPv6 addresses, where the network has them.
    pub ipv6: Option<Held<Ipv6Addr>>,
    /// The hardware address of the container's interface.
    pub mac: Mac,
    /// The host's end of the pair, a port of the bridge.
    pub host_interface: String,
}

/// An address that a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "A: Ip + Serialize + serde::de::DeserializeOwned")]
pub struct Held<A: Ip> {
    /// The container's address.
    pub address: A,
    /// The prefix length of the network.
    pub prefix: u8,
    /// The bridge's address, by which the container reaches what is outside; `None` where it reaches nothing.
    pub gateway: Option<A>,
}

impl Endpoint {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = self.ipv4.map(|held| held.address.into());
        ipv4.into_iter().chain(self.ipv6.map(|held| held.address.into()))
    }

    /// The bridge's address of a family, by which what is outside is reached.
    pub fn gateway(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => Some(self.ipv4?.gateway?.into()),
            Family::Ipv6 => Some(self.ipv6?.gateway?.into()),
        }
    }

    pub(crate) fn pair(&self) -> Pair {
        Pair { ipv4: self.ipv4.map(|held| held.address), ipv6: self.ipv6.map(|held| held.address) }
    }
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// What of the networks a container has while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// Where it sits.
    pub endpoints: Vec<Endpoint>,
    /// Its ports on the host.
    pub ports: PublishedPorts,
    /// The port of its own loopback that questions for names are led to, where it has a name server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolver: Option<u16>,
}

/// A network namespace that a container can start in.
#[derive(Debug)]
pub struct Sandbox {
    /// The namespace. It lives as long as this descriptor, a copy of it or a process in it.
    pub namespace: OwnedFd,
    /// The user namespace that it belongs to, where that is not the engine's own.
    pub user_namespace: Option<OwnedFd>,
    /// Its place in the network; `None` when there is only loopback.
    pub endpoint: Option<Endpoint>,
    /// Where its questions for names arrive; `None` where that is not prepared.
    pub name_sockets: Option<NameSockets>,
}

/// What an interface carried since it was made, as seen from inside the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceStatistics {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Received packets that were dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// Packets to send that were dropped.
    pub tx_dropped: u64,
}

impl InterfaceStatistics {
    /// What the host's end received, the container sent.
    pub(crate) fn seen_from_the_other_end(host: &netlink::link::Statistics) -> Self {
        Self {
            rx_bytes: host.tx_bytes,
            rx_packets: host.tx_packets,
            rx_errors: host.tx_errors,
            rx_dropped: host.tx_dropped,
            tx_bytes: host.rx_bytes,
            tx_packets: host.rx_packets,
            tx_errors: host.rx_errors,
            tx_dropped: host.rx_dropped,
        }
    }
}
