//! Which ports of the host are published, and for whom.
//!
//! [`HostPorts`] is the register: who asks gets a port that no other container has and that no program of the host listens on.
//! It knows nothing of packets; [`crate::firewall`] sends them where the register says.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::allocator::Pair;
use crate::port_map::{InRow, PortMap, PortPlace};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// The protocol.
    pub transport: Transport,
    /// The container's port.
    pub container_port: u16,
    /// The host's addresses, all with the same port: an unspecified address is every one of its family.
    pub addresses: Vec<IpAddr>,
    /// The host's port: the first free one of this range.
    pub first: u16,
    /// The end of the range.
    pub last: u16,
}

impl PortRequest {
    /// The range that stands for any port.
    pub const ANY: (u16, u16) = (0, 0);

    fn is_any(&self) -> bool {
        (self.first, self.last) == Self::ANY
    }
}

/// A published port: what comes to `address:port` of the host goes to `target` in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// The protocol.
    pub transport: Transport,
    /// The host's address; unspecified is every one of its family.
    pub address: IpAddr,
    /// The host's port.
    pub port: u16,
    /// The container's address.
    pub target: IpAddr,
    /// The container's port.
    pub container_port: u16,
}

impl Published {
    /// Where it is looked up.
    pub(crate) fn place(&self) -> PortPlace {
        (self.address, self.transport, self.port)
    }

    /// Whether the kernel can translate it: it cannot turn IPv6 into IPv4, and takes no answer from elsewhere for `::1`.
    pub fn is_translatable(&self) -> bool {
        self.address.is_ipv4() == self.target.is_ipv4() && self.address != IpAddr::V6(Ipv6Addr::LOCALHOST)
    }
}

/// Why a port cannot be published.
#[derive(Debug, Error)]
pub enum PortError {
    /// Another container has it.
    #[error("Bind for {} failed: port is already allocated", shown(.address, .port))]
    Allocated {
        /// The host's address.
        address: IpAddr,
        /// The host's port.
        port: u16,
    },
    /// A program of the host has it, or the address is none of the host's.
    #[error("failed to bind host port for {}:{target}:{container_port}/{transport}: {}", shown(.address, .port), words(.source))]
    Bind {
        /// The host's address.
        address: IpAddr,
        /// The host's port.
        port: u16,
        /// The container's address.
        target: IpAddr,
        /// The container's port.
        container_port: u16,
        /// The protocol.
        transport: Transport,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The container has no address that it could lead to.
    #[error("cannot publish a port at {address}: the container has no IPv4 address")]
    NoTarget {
        /// The host's address.
        address: IpAddr,
    },
    /// Every port of the range is in use.
    #[error("all ports are allocated")]
    Exhausted,
}

fn shown(address: &IpAddr, port: &u16) -> String {
    SocketAddr::new(*address, *port).to_string()
}

/// The system's words without Rust's number behind them, as people know them.
fn words(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ADDRINUSE) => "address already in use".to_owned(),
        Some(Errno::ADDRNOTAVAIL) => "cannot assign requested address".to_owned(),
        _ => error.to_string(),
    }
}

/// Asks the host whether a port is free.
pub(crate) type Probe<'a> = &'a dyn Fn(Transport, SocketAddr) -> io::Result<()>;

/// How many have a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owners(u32);

impl InRow for Owners {
    fn further(self, _: u16) -> Self {
        self
    }
}

/// The register of published ports.
#[derive(Debug)]
pub(crate) struct HostPorts {
    /// How many have each: a container that has ended unseen may be on record with what is another's now.
    taken: PortMap<Owners>,
    ephemeral: (u16, u16),
    next: u16,
}

impl HostPorts {
    /// An empty register; ports for those who ask for any come from `ephemeral`.
    pub(crate) fn new(ephemeral: (u16, u16)) -> Self {
        Self { taken: PortMap::default(), ephemeral, next: ephemeral.0 }
    }

    /// Marks what runs already.
    pub(crate) fn reserve(&mut self, published: &Published) {
        let place = published.place();
        let Owners(owners) = self.taken.get(place).unwrap_or(Owners(0));
        self.taken.insert(place, Owners(owners + 1));
    }

    /// Finds a port for each request, all or none.
    pub(crate) fn allocate(
        &mut self,
        requests: &[PortRequest],
        target: Pair,
        probe: Probe<'_>,
    ) -> Result<Vec<Published>, PortError> {
        let mut all = Vec::new();
        for request in requests {
            match self.allocate_one(request, target, probe) {
                Ok(published) => all.extend(published),
                Err(error) => {
                    self.release(all);
                    return Err(error);
                }
            }
        }
        Ok(all)
    }

    /// Gives ports back.
    pub(crate) fn release(&mut self, published: impl IntoIterator<Item = Published>) {
        for one in published {
            if let Some(Owners(owners @ 2..)) = self.taken.remove(one.place()) {
                self.taken.insert(one.place(), Owners(owners - 1));
            }
        }
    }

    fn allocate_one(
        &mut self,
        request: &PortRequest,
        target: Pair,
        probe: Probe<'_>,
    ) -> Result<Vec<Published>, PortError> {
        let (first, last) = if request.is_any() { self.ephemeral } else { (request.first, request.last) };
        let count = u32::from(last - first) + 1;
        let start = if request.is_any() { self.next } else { first };
        let mut failure = PortError::Exhausted;
        for offset in 0..count {
            let port = first + ((u32::from(start - first) + offset) % count) as u16;
            match self.try_port(request, port, target, probe) {
                Ok(published) => {
                    if request.is_any() {
                        self.next = if port == last { first } else { port + 1 };
                    }
                    published.iter().for_each(|one| self.reserve(one));
                    return Ok(published);
                }
                // An address that is not the host's has no free port at all.
                Err(error @ PortError::Bind { .. }) if !is_in_use(&error) => return Err(error),
                Err(error) => failure = error,
            }
        }
        // With one port to choose from the reason says more than that all are taken.
        Err(if count == 1 { failure } else { PortError::Exhausted })
    }

    fn try_port(
        &self,
        request: &PortRequest,
        port: u16,
        target: Pair,
        probe: Probe<'_>,
    ) -> Result<Vec<Published>, PortError> {
        let (transport, container_port) = (request.transport, request.container_port);
        let is_taken = |address| {
            let mut others = self.taken.addresses().filter(|other| meet(*other, address));
            others.any(|other| self.taken.get((other, transport, port)).is_some())
        };
        let mut published = Vec::new();
        for &address in &request.addresses {
            let target = leads_to(address, target).ok_or(PortError::NoTarget { address })?;
            if is_taken(address) {
                return Err(PortError::Allocated { address, port });
            }
            published.push(Published { transport, address, port, target, container_port });
        }
        for &Published { address, target, .. } in &published {
            probe(transport, SocketAddr::new(address, port)).map_err(|source| PortError::Bind {
                address,
                port,
                target,
                container_port,
                transport,
                source,
            })?;
        }
        Ok(published)
    }
}

/// The container's address that what comes to an address of the host goes to: one of the same family, or failing that an IPv4
/// address for what came by IPv6, which is relayed.
fn leads_to(address: IpAddr, target: Pair) -> Option<IpAddr> {
    let ipv4 = target.ipv4.map(IpAddr::V4);
    match address {
        IpAddr::V4(_) => ipv4,
        IpAddr::V6(_) => target.ipv6.map(IpAddr::V6).or(ipv4),
    }
}

fn is_in_use(error: &PortError) -> bool {
    matches!(error, PortError::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
}

/// Whether a packet can be for both addresses.
fn meet(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && (one == other || one.is_unspecified() || other.is_unspecified())
}

/// Binds the address for a moment: whoever listens there is in the way. Who only has old connections from there is not.
pub(crate) fn probe(transport: Transport, address: SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) = match transport {
        Transport::Tcp => (SocketType::STREAM, ipproto::TCP),
        Transport::Udp => (SocketType::DGRAM, ipproto::UDP),
        Transport::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = match rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol)) {
        // A kernel without the protocol has no program that listens with it either.
        Err(Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT | Errno::SOCKTNOSUPPORT) => return Ok(()),
        socket => socket?,
    };
    if transport == Transport::Tcp {
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(rustix::net::bind(&socket, &address)?)
}

/// The host's range of ports for those who ask for any.
pub(crate) fn ephemeral_range() -> (u16, u16) {
    const USUAL: (u16, u16) = (32768, 60999);
    let text = crate::settings::get("ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(first), Some(last)) if first <= last && first > 0 => (first, last),
        _ => USUAL,
    }
}

/// Every address of the host.
pub const ANY_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// The same for IPv6.
pub const ANY_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2));
    const TARGET: Pair = Pair { ipv4: Some(Ipv4Addr::new(172, 17, 0, 2)), ipv6: None };

    fn request(addresses: &[&str], first: u16, last: u16) -> PortRequest {
        PortRequest {
            transport: Transport::Tcp,
            container_port: 80,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            first,
            last,
        }
    }

    fn free(_: Transport, _: SocketAddr) -> io::Result<()> {
        Ok(())
    }

    fn allocate(ports: &mut HostPorts, request: PortRequest) -> Result<u16, String> {
        let published = ports.allocate(&[request], TARGET, &free).map_err(|error| error.to_string())?;
        Ok(published[0].port)
    }

    #[test]
    fn a_port_is_given_once_for_addresses_that_meet() {
        let mut ports = HostPorts::new((32768, 32770));
        assert_eq!(allocate(&mut ports, request(&["0.0.0.0", "::"], 80, 80)), Ok(80));
        let refused = "Bind for 127.0.0.1:80 failed: port is already allocated";
        assert_eq!(allocate(&mut ports, request(&["127.0.0.1"], 80, 80)), Err(refused.to_owned()));
        assert_eq!(allocate(&mut ports, request(&["127.0.0.1"], 81, 81)), Ok(81));
        assert_eq!(allocate(&mut ports, request(&["127.0.0.2"], 81, 81)), Ok(81));
        let udp = PortRequest { transport: Transport::Udp, ..request(&["0.0.0.0"], 80, 80) };
        assert_eq!(allocate(&mut ports, udp), Ok(80));
        let refused = "Bind for [::]:80 failed: port is already allocated";
        assert_eq!(allocate(&mut ports, request(&["::"], 80, 80)), Err(refused.to_owned()));
    }

    #[test]
    fn ranges_and_any_take_the_next_free_one() {
        let mut ports = HostPorts::new((32768, 32770));
        let next = |ports: &mut HostPorts| allocate(ports, request(&["0.0.0.0"], 0, 0));
        assert_eq!([next(&mut ports), next(&mut ports)], [Ok(32768), Ok(32769)]);
        assert_eq!(allocate(&mut ports, request(&["0.0.0.0"], 32769, 32771)), Ok(32770));
        assert_eq!(next(&mut ports), Err("all ports are allocated".to_owned()));
        ports.release([Published {
            transport: Transport::Tcp,
            address: ANY_IPV4,
            port: 32768,
            target: OWN,
            container_port: 80,
        }]);
        assert_eq!(next(&mut ports), Ok(32768));
    }

    #[test]
    fn each_family_leads_to_its_own_where_it_can() {
        let targets = |target: Pair| {
            let mut ports = HostPorts::new((1, 1));
            let published = ports.allocate(&[request(&["0.0.0.0", "::"], 80, 80)], target, &free);
            published.map(|list| list.iter().map(|one| one.target.to_string()).collect::<Vec<_>>())
        };
        let ipv6 = Some("fd00::2".parse().unwrap());
        assert_eq!(targets(TARGET).unwrap(), ["172.17.0.2", "172.17.0.2"]);
        assert_eq!(targets(Pair { ipv6, ..TARGET }).unwrap(), ["172.17.0.2", "fd00::2"]);
        assert!(matches!(targets(Pair { ipv6, ipv4: None }), Err(PortError::NoTarget { .. })));
    }

    #[test]
    fn all_or_none() {
        let mut ports = HostPorts::new((32768, 32770));
        assert_eq!(allocate(&mut ports, request(&["0.0.0.0"], 81, 81)), Ok(81));
        let both = [request(&["0.0.0.0"], 80, 80), request(&["0.0.0.0"], 81, 81)];
        ports.allocate(&both, TARGET, &free).unwrap_err();
        assert_eq!(allocate(&mut ports, request(&["0.0.0.0"], 80, 80)), Ok(80));
    }

    #[test]
    fn a_listener_of_the_host_is_in_the_way() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut ports = HostPorts::new((1, 1));
        let error = ports.allocate(&[request(&["0.0.0.0"], port, port)], TARGET, &probe).unwrap_err();
        let expected = format!("failed to bind host port for 0.0.0.0:{port}:172.17.0.2:80/tcp: address already in use");
        assert_eq!(error.to_string(), expected);
        drop(listener);
        ports.allocate(&[request(&["0.0.0.0"], port, port)], TARGET, &probe).unwrap();
        let foreign = ports.allocate(&[request(&["192.0.2.77"], 0, 0)], TARGET, &probe).unwrap_err();
        assert!(foreign.to_string().ends_with("cannot assign requested address"), "{foreign}");
    }

    proptest! {
        #[test]
        fn no_two_owners_meet(steps in proptest::collection::vec((0..4_usize, 0..4_u16, any::<bool>()), 0..100)) {
            let choices = ["0.0.0.0", "127.0.0.1", "10.0.0.1", "::"];
            let mut ports = HostPorts::new((1, 3));
            let mut held: Vec<Published> = Vec::new();
            for (which, port, take) in steps {
                if take {
                    if let Ok(got) = ports.allocate(&[request(&[choices[which]], port, port)], TARGET, &free) {
                        for one in got {
                            prop_assert!(!held.iter().any(|other| other.port == one.port && meet(other.address, one.address)));
                            held.push(one);
                        }
                    }
                } else if !held.is_empty() {
                    let one = held.remove(which % held.len());
                    ports.release([one]);
                }
            }
        }
    }
}
