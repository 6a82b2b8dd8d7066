//! Who reaches a published port, and which rule decides: ours, and those of others as the kernel has them.

use std::net::{IpAddr, Ipv4Addr};

use nftables::{Family as Version, Fate, Hook, Kernel, Packet};

use crate::firewall::FirewallError;
use crate::networks::{Networks, PublishPolicy};
use crate::ports::{Published, Transport};
use crate::routes::Loses;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortCaller {
    /// Programs of this host.
    Host,
    /// Other machines.
    Neighbours,
    /// Containers of other networks, but not of internal ones, by an address of the host.
    Containers,
}

/// Whether a caller comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// He does.
    Yes,
    /// He does not.
    No,
    /// That cannot be told in general: a rule looks at more than the port.
    Depends,
}

/// What one caller finds at one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The port.
    pub port: Published,
    /// Who calls.
    pub caller: PortCaller,
    /// Whether he comes through.
    pub reached: Reached,
    /// The rules that decide, in the order of a packet's way.
    pub because: Vec<String>,
}

impl Networks {
    /// Explains each port for each caller.
    pub fn explain(&self, ports: &[Published]) -> Result<Vec<Explanation>, FirewallError> {
        let complete = self.has_rules()?;
        let uplink = self.uplink();
        let mut kernel = Kernel::open()?;
        let mut all = Vec::new();
        for port in ports {
            for caller in [PortCaller::Host, PortCaller::Neighbours, PortCaller::Containers] {
                let incoming = if caller == PortCaller::Neighbours { uplink.clone() } else { None };
                let mut way = Way { kernel: &mut kernel, networks: self, port, caller, incoming };
                let (reached, because) = if complete || !port.is_translatable() {
                    way.explain()?
                } else {
                    (Reached::No, vec![format!("table inet {} is not there", self.names().table())])
                };
                all.push(Explanation { port: *port, caller, reached, because });
            }
        }
        Ok(all)
    }
}

/// The way of a caller's first packet.
struct Way<'a> {
    kernel: &'a mut Kernel,
    networks: &'a Networks,
    port: &'a Published,
    caller: PortCaller,
    incoming: Option<String>,
}

impl Way<'_> {
    fn explain(&mut self) -> Result<(Reached, Vec<String>), FirewallError> {
        let table = self.networks.names().table();
        if self.port.address.is_loopback() && self.caller != PortCaller::Host {
            let rule = format!("chain incoming of table inet {table}: an address of loopback is for this host alone");
            return Ok((Reached::No, vec![rule]));
        }
        let mut open = Vec::new();
        for (hook, packet) in self.stations() {
            match self.kernel.fate(hook, &packet, table)? {
                Fate::Passes => {}
                Fate::Ends(by) => return Ok((Reached::No, vec![by])),
                Fate::Depends(on) => {
                    open.extend(on.into_iter().filter(|rule| !open.contains(rule)).collect::<Vec<_>>())
                }
            }
        }
        if let Some(conflict) = self.networks.misled(self.port.target) {
            let reached = if conflict.loses == Loses::Network { Reached::No } else { Reached::Depends };
            return Ok((reached, vec![conflict.to_string()]));
        }
        if open.is_empty() { Ok((Reached::Yes, vec![self.leads()])) } else { Ok((Reached::Depends, open)) }
    }

    /// What takes the packet to the container.
    fn leads(&self) -> String {
        let (table, port) = (self.networks.names().table(), self.port);
        let target = std::net::SocketAddr::new(port.target, port.container_port);
        if !port.is_translatable() {
            return format!("the container's monitor listens, and passes it on to {target}");
        }
        if port.address == port.target {
            return format!("chain to-containers of table inet {table}: the network is routed, the port is reachable");
        }
        let chain = if self.caller == PortCaller::Host { "local" } else { "incoming" };
        let admitted = match (self.networks.publish_policy(), self.caller) {
            (PublishPolicy::Host, PortCaller::Neighbours | PortCaller::Containers) => {
                "let in by the host's own input rules; "
            }
            _ => "",
        };
        format!("{admitted}chain {chain} of table inet {table} sends it to {target}")
    }

    /// Where others may drop it.
    fn stations(&self) -> Vec<(Hook, Packet)> {
        let port = self.port;
        let arriving = self.packet(Some(port.address).filter(|address| !address.is_unspecified()), port.port);
        let translated = port.is_translatable() && port.address != port.target;
        let gated = translated && self.networks.publish_policy() == PublishPolicy::Host;
        let gate = self.networks.names().gate()[1].clone();
        let leaving = Packet {
            incoming: if gated { Some(gate) } else { self.incoming.clone() },
            outgoing: self.networks.interface_to(port.target),
            version: version(port.target),
            translated,
            ..self.packet(Some(port.target), port.container_port)
        };
        let to_host = Packet { outgoing: None, ..arriving.clone() };
        match self.caller {
            PortCaller::Host if port.is_translatable() => vec![(Hook::Output, arriving)],
            PortCaller::Host => {
                let lo = Some("lo".to_owned());
                let out = Packet { outgoing: lo.clone(), ..arriving.clone() };
                vec![(Hook::Output, out), (Hook::Input, Packet { incoming: lo, ..to_host })]
            }
            _ if !port.is_translatable() => vec![(Hook::Prerouting, arriving), (Hook::Input, to_host)],
            _ if gated => vec![(Hook::Prerouting, arriving), (Hook::Input, to_host), (Hook::Forward, leaving)],
            _ => vec![(Hook::Prerouting, arriving), (Hook::Forward, leaving)],
        }
    }

    fn packet(&self, destination: Option<IpAddr>, port: u16) -> Packet {
        Packet {
            incoming: self.incoming.clone(),
            outgoing: None,
            version: version(self.port.address),
            source: None,
            destination,
            protocol: match self.port.transport {
                Transport::Tcp => nftables::Protocol::Tcp,
                Transport::Udp => nftables::Protocol::Udp,
                Transport::Sctp => nftables::Protocol::Sctp,
            },
            port,
            translated: false,
        }
    }
}

fn version(address: IpAddr) -> Version {
    if address.is_ipv4() { Version::Ip } else { Version::Ip6 }
}

impl Networks {
    /// The link that the default route leaves by, where neighbours' calls are taken to come in.
    fn uplink(&self) -> Option<String> {
        let mut socket = self.host_socket();
        let is_default =
            |route: &netlink::route::Route| route.prefix == 0 && route.destination == Ipv4Addr::UNSPECIFIED;
        let link = socket.routes().ok()?.into_iter().find(is_default)?.link?;
        Some(socket.link_by_index(link).ok()??.name)
    }
}
