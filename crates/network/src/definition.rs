//! Networks that users make.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlink::address::LinkAddress;
use netlink::link::{IpvlanFlag, IpvlanMode, MacvlanMode, Share};
use serde::{Deserialize, Serialize};

use crate::address::{Ip, Subnet};
use crate::allocator::Space;
use crate::endpoint::Family;
use crate::firewall::{Joint, Net, Segment};

/// A network as a user asked for it, with what was chosen for it. The engine records it and gives it back at every start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Its id; containers' endpoints name it.
    pub id: String,
    /// How containers are joined.
    pub driver: Driver,
    /// The host's interface: the bridge, the one that has a routed network's gateway address, or the one whose cable is shared.
    pub interface: String,
    /// Its IPv4 addresses; none where it has no IPv4.
    pub ipv4: Vec<Pool<Ipv4Addr>>,
    /// Its IPv6 addresses; none where it has no IPv6.
    pub ipv6: Vec<Pool<Ipv6Addr>>,
    /// The largest packet; `None` is the default bridge's.
    pub mtu: Option<u32>,
    /// Whether it is cut off from everything but the host.
    pub internal: bool,
    /// Whether its containers talk to each other.
    pub talk: bool,
    /// What lies between IPv4 addresses and the outside.
    pub border4: Border,
    /// What lies between IPv6 addresses and the outside.
    pub border6: Border,
    /// Whether the bridge goes without an IPv4 address of its own: the gateway is somebody else's.
    pub inhibit_ipv4: bool,
    /// Interfaces of the host from which published ports are reached at containers' own addresses too.
    pub trusted: Vec<String>,
}

/// How the containers of a network are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// By a bridge of the host.
    Bridge,
    /// By the host's routes, one for each container. The host's ends are in this interface group.
    Routed {
        /// Not 0, and no other network's.
        group: u32,
    },
    /// By the cable of an interface of the host, each with a hardware address of its own.
    Macvlan(MacvlanMode),
    /// By the cable of an interface of the host, all with its hardware address.
    Ipvlan(IpvlanMode, IpvlanFlag),
}

impl Driver {
    /// Docker's word for it, and ours for what Docker does not have.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Routed { .. } => "routed",
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(..) => "ipvlan",
        }
    }

    /// Whether containers' packets pass the host, so that ports can be published.
    pub fn passes_the_host(self) -> bool {
        matches!(self, Self::Bridge | Self::Routed { .. })
    }

    /// Whether packets for elsewhere need no neighbour to send them to: the host's routes are used at once.
    pub(crate) fn needs_no_gateway(self) -> bool {
        matches!(self, Self::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3S, _))
    }

    /// How a cable is shared.
    pub(crate) fn share(self) -> Option<Share> {
        match self {
            Self::Bridge | Self::Routed { .. } => None,
            Self::Macvlan(mode) => Some(Share::Macvlan(mode)),
            Self::Ipvlan(mode, flag) => Some(Share::Ipvlan(mode, flag)),
        }
    }
}

/// Addresses of one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "A: Ip + Serialize + serde::de::DeserializeOwned")]
pub struct Pool<A: Ip> {
    /// All of them.
    pub subnet: Subnet<A>,
    /// The bridge's address.
    pub gateway: Option<A>,
    /// Where addresses come from for who asks for none.
    pub range: Option<Subnet<A>>,
    /// Addresses that are somebody else's.
    pub reserved: Vec<A>,
}

/// What lies between a network's addresses of one family and the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Border {
    /// How containers are reached.
    pub mode: GatewayMode,
    /// Whether its containers go out under the host's address.
    pub masquerade: bool,
}

/// How containers of a network are reached from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// By published ports of the host.
    Nat,
    /// By published ports of the host, and by every port of their own address.
    NatUnprotected,
    /// By published ports of their own address.
    Routed,
    /// Not at all, not even by the host: the bridge has no address.
    Isolated,
}

impl Border {
    /// The usual one.
    pub const NAT: Self = Self { mode: GatewayMode::Nat, masquerade: true };

    fn net<A: Ip>(self, pool: &Pool<A>, internal: bool, routed: bool) -> Net {
        let (first, prefix) = pool.subnet.parts();
        let is_nat = matches!(self.mode, GatewayMode::Nat | GatewayMode::NatUnprotected);
        Net {
            first,
            prefix,
            guarded: matches!(self.mode, GatewayMode::Nat | GatewayMode::Isolated),
            open: self.mode == GatewayMode::NatUnprotected,
            masquerade: self.masquerade && is_nat && !internal,
            routed: routed && pool.gateway.is_some(),
        }
    }
}

impl<A: Ip> Pool<A> {
    /// All of a subnet, with its first address as the bridge's.
    pub fn whole(subnet: Subnet<A>) -> Self {
        Self { subnet, gateway: Some(subnet.gateway()), range: None, reserved: Vec::new() }
    }

    /// The gateway as an address of this link, where there is one.
    pub(crate) fn gateway_at(&self, link: u32) -> Option<LinkAddress> {
        Some(LinkAddress { link, address: self.gateway?.into(), prefix: self.subnet.prefix() })
    }
}

impl Definition {
    /// A network without addresses and without a place on the host, which is never made.
    pub fn nothing(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            driver: Driver::Bridge,
            interface: String::new(),
            ipv4: Vec::new(),
            ipv6: Vec::new(),
            mtu: None,
            internal: false,
            talk: false,
            border4: Border::NAT,
            border6: Border::NAT,
            inhibit_ipv4: false,
            trusted: Vec::new(),
        }
    }

    /// Its part in the rules; none where packets do not pass the host.
    pub(crate) fn segment(&self) -> Option<Segment> {
        let joint = match self.driver {
            Driver::Bridge => Joint::Bridge(self.interface.clone()),
            Driver::Routed { group } => Joint::Group(group),
            Driver::Macvlan(_) | Driver::Ipvlan(..) => return None,
        };
        let ipv4 = self.ipv4.iter().map(|pool| self.border4.net(pool, self.internal, self.has_address(Family::Ipv4)));
        let ipv6 = self.ipv6.iter().map(|pool| self.border6.net(pool, self.internal, self.has_address(Family::Ipv6)));
        Some(Segment {
            id: self.id.clone(),
            joint,
            nets: ipv4.chain(ipv6).collect(),
            talk: self.talk,
            internal: self.internal,
            trusted: self.trusted.clone(),
        })
    }

    /// The group of the host's ends, where there is one.
    pub(crate) fn group(&self) -> Option<u32> {
        if let Driver::Routed { group } = self.driver { Some(group) } else { None }
    }

    /// Whether the host has the gateway's address of a family, and so a route to the network's.
    pub(crate) fn has_address(&self, family: Family) -> bool {
        let inhibited = family == Family::Ipv4 && self.inhibit_ipv4;
        self.border(family).mode != GatewayMode::Isolated && !inhibited
    }

    /// What lies between addresses of a family and the outside.
    pub(crate) fn border(&self, family: Family) -> Border {
        match family {
            Family::Ipv4 => self.border4,
            Family::Ipv6 => self.border6,
        }
    }

    pub(crate) fn space(&self) -> Space {
        Space::of(&self.ipv4, &self.ipv6)
    }
}
