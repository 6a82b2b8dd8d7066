//! Links: bridges, veth pairs, and what is set on them.

use std::os::fd::{AsRawFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use crate::attribute::Attribute;
use crate::request::{CREATE, DUMP, EXCLUSIVE, Request};
use crate::socket::{Errno, Reply, RequestError, Socket};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const AF_UNSPEC: u8 = 0;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u16 = 10;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_PROTO_DOWN: u16 = 39;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;

const IFF_UP: u32 = 1;
const IFF_NOARP: u32 = 1 << 7;
/// `RTEXT_FILTER_SKIP_STATS`: without the counters, which cost most of a listing.
const SKIP_STATISTICS: u32 = 1 << 3;

const HEADER_BYTES: usize = 16;

/// `struct ifinfomsg`.
fn header(family: u8, index: u32, flags: u32, change: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// A bridge to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewBridge<'a> {
    /// The interface name.
    pub name: &'a str,
    /// Its hardware address; set once, so that it does not follow the ports that come and go.
    pub mac: [u8; 6],
    /// The largest packet; `None` for the kernel's choice.
    pub mtu: Option<u32>,
}

/// The request that makes a bridge without spanning tree: ports forward from the moment they are up.
pub fn create_bridge(bridge: &NewBridge<'_>) -> Request {
    let purpose = format!("create bridge {}", bridge.name);
    let mut request = Request::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(AF_UNSPEC, 0, 0, 0), purpose);
    request.text(IFLA_IFNAME, bridge.name).attribute(IFLA_ADDRESS, &bridge.mac);
    if let Some(mtu) = bridge.mtu {
        request.number(IFLA_MTU, mtu);
    }
    request.nest(IFLA_LINKINFO, |link| {
        link.text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |options| {
            options.number(IFLA_BR_FORWARD_DELAY, 0).number(IFLA_BR_STP_STATE, 0);
        });
    });
    request
}

/// The request that switches a bridge's multicast snooping off: it then floods, as a plain switch does.
pub fn disable_multicast_snooping(name: &str) -> Request {
    let purpose = format!("disable multicast snooping of {name}");
    let mut request = Request::new(RTM_NEWLINK, 0, &header(AF_UNSPEC, 0, 0, 0), purpose);
    request.text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |link| {
        link.text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |options| {
            options.byte(IFLA_BR_MCAST_SNOOPING, 0);
        });
    });
    request
}

/// A veth pair to be made: one end here, the peer in another namespace from the start.
#[derive(Clone, Copy, Debug)]
pub struct NewVeth<'a> {
    /// The name of the end in the socket's namespace.
    pub name: &'a str,
    /// That end's hardware address.
    pub mac: [u8; 6],
    /// The largest packet, of both ends; `None` for the kernel's choice.
    pub mtu: Option<u32>,
    /// The peer's name.
    pub peer: &'a str,
    /// The network namespace that the peer is made in.
    pub peer_namespace: BorrowedFd<'a>,
    /// The peer's group; `None` for the kernel's choice.
    pub peer_group: Option<u32>,
}

/// The request that makes a veth pair.
pub fn create_veth(veth: &NewVeth<'_>) -> Request {
    let purpose = format!("create veth pair {} and {}", veth.name, veth.peer);
    let mut request = Request::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(AF_UNSPEC, 0, 0, 0), purpose);
    request.text(IFLA_IFNAME, veth.name).attribute(IFLA_ADDRESS, &veth.mac);
    let mtu = |end: &mut Request| {
        if let Some(mtu) = veth.mtu {
            end.number(IFLA_MTU, mtu);
        }
    };
    mtu(&mut request);
    request.nest(IFLA_LINKINFO, |link| {
        link.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |pair| {
            pair.nest_with(VETH_INFO_PEER, &header(AF_UNSPEC, 0, 0, 0), |peer| {
                peer.text(IFLA_IFNAME, veth.peer);
                mtu(peer);
                if let Some(group) = veth.peer_group {
                    peer.number(IFLA_GROUP, group);
                }
                peer.attribute(IFLA_NET_NS_FD, &veth.peer_namespace.as_raw_fd().to_ne_bytes());
            });
        });
    });
    request
}

/// A link that has another one's cable: what a card receives is sorted by hardware address (macvlan) or IP address (ipvlan).
#[derive(Clone, Copy, Debug)]
pub struct NewShare<'a> {
    /// The interface name.
    pub name: &'a str,
    /// The namespace that it is made in.
    pub namespace: BorrowedFd<'a>,
    /// The link whose cable it shares, by index in the socket's namespace.
    pub parent: u32,
    /// Its hardware address; `None` for the kernel's choice, or the parent's.
    pub mac: Option<[u8; 6]>,
    /// The largest packet; `None` for the parent's.
    pub mtu: Option<u32>,
    /// How it shares.
    pub kind: Share,
}

/// How several links share one cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// By hardware address.
    Macvlan(MacvlanMode),
    /// By IP address.
    Ipvlan(IpvlanMode, IpvlanFlag),
}

/// What macvlan links of one parent do with each other's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// Nothing: they do not hear each other.
    Private,
    /// They go out, for the switch to send back.
    Vepa,
    /// They are handed over.
    Bridge,
    /// There is one link only.
    Passthru,
}

/// At which layer ipvlan links look at packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanMode {
    /// As a switch does.
    L2,
    /// As a router does.
    L3,
    /// As a router does, past the host's rules.
    L3S,
}

/// What ipvlan links of one parent do with each other's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanFlag {
    /// They are handed over.
    Bridge,
    /// Nothing.
    Private,
    /// They go out, for the switch to send back.
    Vepa,
}

impl Share {
    /// The kernel's word.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(..) => "ipvlan",
        }
    }

    fn describe(self, options: &mut Request) {
        match self {
            Self::Macvlan(mode) => {
                let mode = match mode {
                    MacvlanMode::Private => 1,
                    MacvlanMode::Vepa => 2,
                    MacvlanMode::Bridge => 4,
                    MacvlanMode::Passthru => 8,
                };
                options.number(IFLA_MACVLAN_MODE, mode);
            }
            Self::Ipvlan(mode, flag) => {
                options.attribute(IFLA_IPVLAN_MODE, &(mode as u16).to_ne_bytes());
                options.attribute(IFLA_IPVLAN_FLAGS, &(flag as u16).to_ne_bytes());
            }
        }
    }
}

/// The request that makes a link on another's cable.
pub fn create_share(share: &NewShare<'_>) -> Request {
    let purpose = format!("create {} {} on link {}", share.kind.kind(), share.name, share.parent);
    let mut request = Request::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(AF_UNSPEC, 0, 0, 0), purpose);
    request.text(IFLA_IFNAME, share.name).number(IFLA_LINK, share.parent);
    request.attribute(IFLA_NET_NS_FD, &share.namespace.as_raw_fd().to_ne_bytes());
    if let Some(mac) = share.mac {
        request.attribute(IFLA_ADDRESS, &mac);
    }
    if let Some(mtu) = share.mtu {
        request.number(IFLA_MTU, mtu);
    }
    request.nest(IFLA_LINKINFO, |link| {
        link.text(IFLA_INFO_KIND, share.kind.kind()).nest(IFLA_INFO_DATA, |options| share.kind.describe(options));
    });
    request
}

/// The request that makes a link for packets of one virtual LAN of another link.
pub fn create_vlan(name: &str, parent: u32, id: u16) -> Request {
    let purpose = format!("create interface {name} of virtual LAN {id}");
    let mut request = Request::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(AF_UNSPEC, 0, 0, 0), purpose);
    request.text(IFLA_IFNAME, name).number(IFLA_LINK, parent).nest(IFLA_LINKINFO, |link| {
        link.text(IFLA_INFO_KIND, "vlan").nest(IFLA_INFO_DATA, |options| {
            options.attribute(IFLA_VLAN_ID, &id.to_ne_bytes());
        });
    });
    request
}

/// The request that makes a link that leads nowhere.
pub fn create_dummy(name: &str) -> Request {
    let purpose = format!("create interface {name}");
    let mut request = Request::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &header(AF_UNSPEC, 0, 0, 0), purpose);
    request.text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |link| {
        link.text(IFLA_INFO_KIND, "dummy");
    });
    request
}

/// Which link a request is about.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// By index.
    Index(u32),
    /// By name.
    Name(&'a str),
}

impl Target<'_> {
    fn index(self) -> u32 {
        match self {
            Self::Index(index) => index,
            Self::Name(_) => 0,
        }
    }

    fn name_in(self, request: &mut Request) {
        if let Self::Name(name) = self {
            request.text(IFLA_IFNAME, name);
        }
    }
}

impl std::fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(index) => write!(f, "link {index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Whether a link is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Up.
    Up,
    /// Down.
    Down,
}

/// What to set on a link; the kernel applies it in its own order: address, MTU, group, name, master, power.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// Its group, by which many can be deleted at once.
    pub group: Option<u32>,
    /// A new name; only with the link given by index.
    pub name: Option<&'a str>,
    /// A text for people.
    pub alias: Option<&'a str>,
    /// The bridge it becomes a port of, by index; 0 takes it out.
    pub master: Option<u32>,
    /// The network namespace it moves to.
    pub namespace: Option<BorrowedFd<'a>>,
    /// On or off.
    pub power: Option<Power>,
    /// Held down whatever its power says.
    pub proto_down: Option<Power>,
    /// Whether neighbours are asked for their hardware addresses; if not, packets are sent to the link's own.
    pub resolution: Option<Switch>,
}

/// The request that changes a link.
pub fn change(target: Target<'_>, change: &Change<'_>) -> Request {
    let (mut flags, mut mask) = match change.power {
        Some(Power::Up) => (IFF_UP, IFF_UP),
        Some(Power::Down) => (0, IFF_UP),
        None => (0, 0),
    };
    if let Some(resolution) = change.resolution {
        mask |= IFF_NOARP;
        flags |= if resolution == Switch::Off { IFF_NOARP } else { 0 };
    }
    let body = header(AF_UNSPEC, target.index(), flags, mask);
    let mut request = Request::new(RTM_SETLINK, 0, &body, format!("change {target}"));
    target.name_in(&mut request);
    set_identity(&mut request, change);
    if let Some(master) = change.master {
        request.number(IFLA_MASTER, master);
    }
    if let Some(namespace) = change.namespace {
        request.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    }
    if let Some(held) = change.proto_down {
        request.byte(IFLA_PROTO_DOWN, u8::from(held == Power::Down));
    }
    request
}

fn set_identity(request: &mut Request, change: &Change<'_>) {
    if let Some(name) = change.name {
        request.text(IFLA_IFNAME, name);
    }
    if let Some(mac) = change.mac {
        request.attribute(IFLA_ADDRESS, &mac);
    }
    if let Some(mtu) = change.mtu {
        request.number(IFLA_MTU, mtu);
    }
    if let Some(group) = change.group {
        request.number(IFLA_GROUP, group);
    }
    if let Some(alias) = change.alias {
        request.attribute(IFLA_IFALIAS, alias.as_bytes());
    }
}

/// The request that keeps a link from giving itself a link-local IPv6 address when it comes up.
pub fn without_link_local(target: Target<'_>) -> Request {
    let purpose = format!("disable link-local addresses of {target}");
    let mut request = Request::new(RTM_SETLINK, 0, &header(AF_UNSPEC, target.index(), 0, 0), purpose);
    target.name_in(&mut request);
    request.nest(IFLA_AF_SPEC, |families| {
        families.nest(AF_INET6, |options| {
            options.byte(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
        });
    });
    request
}

/// What a bridge does with one of its ports.
#[derive(Clone, Copy, Debug, Default)]
pub struct PortOptions {
    /// Whether it may send a packet back out of the port that it came from.
    pub hairpin: Option<Switch>,
    /// Whether isolated ports are kept from each other.
    pub isolated: Option<Switch>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// The request that sets how a bridge treats its port `index`.
pub fn change_port(index: u32, options: &PortOptions) -> Request {
    let body = header(AF_BRIDGE, index, 0, 0);
    let mut request = Request::new(RTM_SETLINK, 0, &body, format!("change bridge port {index}"));
    request.nest(IFLA_PROTINFO, |port| {
        if let Some(hairpin) = options.hairpin {
            port.byte(IFLA_BRPORT_MODE, u8::from(hairpin == Switch::On));
        }
        if let Some(isolated) = options.isolated {
            port.byte(IFLA_BRPORT_ISOLATED, u8::from(isolated == Switch::On));
        }
    });
    request
}

/// The request that deletes a link.
pub fn delete(target: Target<'_>) -> Request {
    let body = header(AF_UNSPEC, target.index(), 0, 0);
    let mut request = Request::new(RTM_DELLINK, 0, &body, format!("delete {target}"));
    target.name_in(&mut request);
    request
}

/// The request that deletes all links of a group, at hardly more than the cost of one.
pub fn delete_group(group: u32) -> Request {
    let purpose = format!("delete links of group {group}");
    let mut request = Request::new(RTM_DELLINK, 0, &header(AF_UNSPEC, 0, 0, 0), purpose);
    request.number(IFLA_GROUP, group);
    request
}

/// A link as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind (`bridge`, `veth`); empty for physical ones.
    pub kind: String,
    /// Whether it is switched on.
    pub up: bool,
    /// The largest packet.
    pub mtu: u32,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// The peer's index, in the peer's namespace.
    pub peer: Option<u32>,
    /// Its group.
    pub group: u32,
    /// The text for people.
    pub alias: String,
    /// What it carried, where that was asked for.
    pub statistics: Option<Statistics>,
}

/// The counters of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// Received packets dropped.
    pub rx_dropped: u64,
    /// Packets to send dropped.
    pub tx_dropped: u64,
}

impl Link {
    fn read(reply: &Reply) -> Option<Self> {
        let (head, _) = reply.payload.split_first_chunk::<HEADER_BYTES>()?;
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let mut link = Self { index: word(4), up: word(8) & IFF_UP != 0, ..Self::default() };
        for attribute in reply.attributes(HEADER_BYTES) {
            link.take(&attribute);
        }
        Some(link)
    }

    fn take(&mut self, attribute: &Attribute<'_>) {
        match attribute.kind {
            IFLA_IFNAME => self.name = attribute.text().unwrap_or_default().to_owned(),
            IFLA_IFALIAS => self.alias = attribute.text().unwrap_or_default().to_owned(),
            IFLA_ADDRESS => self.mac = attribute.mac(),
            IFLA_MTU => self.mtu = attribute.number().unwrap_or_default(),
            IFLA_GROUP => self.group = attribute.number().unwrap_or_default(),
            IFLA_MASTER => self.master = attribute.number(),
            IFLA_LINK => self.peer = attribute.number(),
            IFLA_STATS64 => self.statistics = Statistics::read(attribute.value),
            IFLA_LINKINFO => {
                let kind = attribute.nested().find(|inner| inner.kind == IFLA_INFO_KIND);
                self.kind = kind.and_then(|kind| kind.text()).unwrap_or_default().to_owned();
            }
            _ => {}
        }
    }
}

impl Statistics {
    /// Reads the head of `struct rtnl_link_stats64`, which newer kernels only make longer.
    fn read(bytes: &[u8]) -> Option<Self> {
        let at = |index: usize| Some(u64::from_ne_bytes(*bytes.get(index * 8..)?.first_chunk()?));
        Some(Self {
            rx_packets: at(0)?,
            tx_packets: at(1)?,
            rx_bytes: at(2)?,
            tx_bytes: at(3)?,
            rx_errors: at(4)?,
            tx_errors: at(5)?,
            rx_dropped: at(6)?,
            tx_dropped: at(7)?,
        })
    }
}

impl Socket {
    /// The link of this name with its counters, if there is one.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, RequestError> {
        self.link(Target::Name(name))
    }

    /// The link of this index with its counters, if there is one.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, RequestError> {
        self.link(Target::Index(index))
    }

    fn link(&mut self, target: Target<'_>) -> Result<Option<Link>, RequestError> {
        let body = header(AF_UNSPEC, target.index(), 0, 0);
        let mut request = Request::new(RTM_GETLINK, 0, &body, format!("look up {target}"));
        target.name_in(&mut request);
        match self.ask(request) {
            Ok(replies) => Ok(replies.iter().find(|reply| reply.kind == RTM_NEWLINK).and_then(Link::read)),
            Err(error) if error.errno() == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links, without their counters.
    pub fn links(&mut self) -> Result<Vec<Link>, RequestError> {
        self.list_links(None)
    }

    /// The ports of the bridge `master`, without their counters.
    pub fn ports(&mut self, master: u32) -> Result<Vec<Link>, RequestError> {
        self.list_links(Some(master))
    }

    fn list_links(&mut self, master: Option<u32>) -> Result<Vec<Link>, RequestError> {
        let mut request = Request::new(RTM_GETLINK, DUMP, &header(AF_UNSPEC, 0, 0, 0), "list links");
        request.number(IFLA_EXT_MASK, SKIP_STATISTICS);
        if let Some(master) = master {
            request.number(IFLA_MASTER, master);
        }
        let replies = self.dump(&request)?;
        Ok(replies.iter().filter(|reply| reply.kind == RTM_NEWLINK).filter_map(Link::read).collect())
    }
}
