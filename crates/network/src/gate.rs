//! The way that calls to published ports take under the host's own input rules (`--publish-policy host`).
//!
//! ```text
//! neighbour ─▶ prerouting ─▶ input: every rule of the host's, whoever's ─▶ let in? a copy goes into the gate, the packet ends
//!                                                                                      │
//!              prerouting, translated ◀── comes back with nothing but its addresses ◀──┘
//! ```
//!
//! A packet that is translated as it comes in never sees the rules for what is for the host. So it is not: it passes them as a packet
//! for the host, by whichever firewall they were made, and the one that is still there behind all of them comes in again through a
//! pair of interfaces, and only then is it translated. That is for the first packet of a connection; those that follow are known.
//! All of this is the kernel's: it goes on without a daemon, and the client's address is kept.

use std::os::fd::BorrowedFd;

use netlink::Socket;
use netlink::link::{self, Change, NewVeth, Power, Switch, Target};

use crate::address::Mac;
use crate::names::Names;
use crate::networks::OpenError;
use crate::settings;

/// The pair of interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    /// The end that copies are sent into.
    pub(crate) entrance: String,
    /// Its index.
    pub(crate) link: u32,
    /// The end that they come out of.
    pub(crate) exit: String,
}

/// Makes the gate, or takes over the one that an engine of this name left.
pub(crate) fn ensure(socket: &mut Socket, host: BorrowedFd<'_>, names: &Names) -> Result<Gate, OpenError> {
    // The kernel takes the stricter of an interface's own setting and the one of all.
    if settings::get("ipv4/conf/all/rp_filter").as_deref() == Some("1") {
        return Err(OpenError::StrictReversePath);
    }
    let [entrance, exit] = names.gate();
    let link = match socket.link_by_name(&entrance)? {
        Some(link) if link.alias != names.alias() => return Err(OpenError::ForeignInterface { interface: entrance }),
        Some(link) => link.index,
        None => make(socket, host, names, [&entrance, &exit])?,
    };
    for end in [&entrance, &exit] {
        settings::set(&format!("ipv4/conf/{end}/rp_filter"), "0")?;
        settings::set(&format!("ipv4/conf/{end}/forwarding"), "1")?;
        if settings::has_ipv6() {
            for (setting, value) in [("accept_ra", "0"), ("accept_dad", "0"), ("disable_ipv6", "0")] {
                settings::set(&format!("ipv6/conf/{end}/{setting}"), value)?;
            }
        }
    }
    let up = Change { power: Some(Power::Up), ..Change::default() };
    socket.execute(&mut [&entrance, &exit].map(|end| link::change(Target::Name(end), &up)))?;
    Ok(Gate { entrance, link, exit })
}

/// Both ends have one hardware address and ask for no neighbour's: whatever is sent into one end is for the other.
fn make(
    socket: &mut Socket,
    host: BorrowedFd<'_>,
    names: &Names,
    [entrance, exit]: [&str; 2],
) -> Result<u32, OpenError> {
    let mac = Mac::of_address(std::net::Ipv4Addr::from_bits(names.group()).into()).octets();
    let pair = NewVeth { name: entrance, mac, mtu: None, peer: exit, peer_namespace: host, peer_group: None };
    let alias = names.alias();
    let first = Change { alias: Some(&alias), resolution: Some(Switch::Off), ..Change::default() };
    let second = Change { mac: Some(mac), ..Change::default() };
    socket.execute(&mut [
        link::create_veth(&pair),
        link::change(Target::Name(entrance), &first),
        link::change(Target::Name(exit), &second),
    ])?;
    let made = socket.link_by_name(entrance)?;
    Ok(made.ok_or_else(|| OpenError::Vanished { interface: entrance.to_owned() })?.index)
}
