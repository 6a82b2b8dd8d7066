//! The default bridge: the interface that containers are plugged into.

use std::net::Ipv4Addr;

use netlink::address::LinkAddress;
use netlink::link::{self, Change, Link, NewBridge, Power, Target};
use netlink::{RequestError, Socket};

use crate::address::{Mac, Subnet};
use crate::definition::Definition;
use crate::endpoint::Endpoint;
use crate::files::{read_host_resolv_conf, servers_of};
use crate::names::Names;
use crate::networks::{Bridge, OpenError, Options, Warning};
use crate::pools::Surroundings;
use crate::settings;

/// What a packet's size is on plain Ethernet.
const ETHERNET_MTU: u32 = 1500;
/// Another engine may take the same pool at the same moment; one of the two then looks again, this often.
const CHOICES: usize = 20;

/// The bridge as the other parts need it.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) index: u32,
    pub(crate) view: Bridge,
}

/// Makes the bridge, or takes over the one that an engine of this name left, and gives it its address.
pub(crate) fn ensure(
    socket: &mut Socket,
    names: &Names,
    options: &Options,
    running: &[Endpoint],
    warnings: &mut Vec<Warning>,
) -> Result<Ready, OpenError> {
    let existing = find_own(socket, names, names.bridge())?;
    let mtu = match options.mtu {
        Some(mtu) => mtu,
        None => uplink_mtu(socket)?.min(ETHERNET_MTU),
    };
    let index = match &existing {
        Some(link) => link.index,
        None => create(socket, names, names.bridge(), default_mac(names), mtu)?,
    };
    protect(names.bridge(), warnings);
    admit_loopback(names.bridge(), warnings);
    if existing.is_some_and(|link| link.mtu != mtu) {
        let change = Change { mtu: Some(mtu), ..Change::default() };
        socket.execute(&mut [link::change(Target::Index(index), &change)])?;
    }
    let alive = alive(socket, index, running)?;
    let subnet = settle(socket, index, options, &alive)?;
    remove_strangers(socket, index, running)?;
    let view = Bridge { interface: names.bridge().to_owned(), subnet, gateway: subnet.gateway(), mtu };
    Ok(Ready { index, view })
}

/// The bridge of a user's network, made or taken over, and its index.
pub(crate) fn ensure_user(
    socket: &mut Socket,
    names: &Names,
    definition: &Definition,
    mtu: u32,
    warnings: &mut Vec<Warning>,
) -> Result<u32, OpenError> {
    let index = match find_own(socket, names, &definition.interface)? {
        Some(link) => return Ok(link.index),
        None => create(socket, names, &definition.interface, Mac::of_address(definition.gateway), mtu)?,
    };
    protect(&definition.interface, warnings);
    if !definition.internal {
        admit_loopback(&definition.interface, warnings);
    }
    let gateway = LinkAddress { link: index, address: definition.gateway.into(), prefix: definition.subnet.prefix() };
    set_address(socket, gateway)?;
    Ok(index)
}

/// Removes bridges of this engine that belong to none of `known`, and from the others what belongs to no running container.
pub(crate) fn sweep_user(
    socket: &mut Socket,
    names: &Names,
    known: &[Definition],
    running: &[Endpoint],
) -> Result<(), RequestError> {
    let links = socket.links()?;
    let bridges = links.iter().filter(|link| link.kind == "bridge" && link.alias == names.alias());
    for bridge in bridges.filter(|bridge| bridge.name != names.bridge()) {
        if known.iter().any(|definition| definition.interface == bridge.name) {
            remove_strangers(socket, bridge.index, running)?;
        } else {
            gone(socket.execute(&mut [link::delete(Target::Index(bridge.index))]))?;
        }
    }
    Ok(())
}

/// The bridge of an engine of this name. An interface that only happens to be called so is nobody's to take.
fn find_own(socket: &mut Socket, names: &Names, interface: &str) -> Result<Option<Link>, OpenError> {
    match socket.link_by_name(interface)? {
        Some(link) if link.kind != "bridge" || link.alias != names.alias() => {
            Err(OpenError::ForeignInterface { interface: interface.to_owned() })
        }
        found => Ok(found),
    }
}

/// The largest packet of the link that the default route leaves by: larger ones of containers would only come back as errors, or
/// not come back at all where those are filtered.
fn uplink_mtu(socket: &mut Socket) -> Result<u32, RequestError> {
    let routes = socket.routes()?;
    let uplinks =
        routes.iter().filter(|route| route.prefix == 0 && route.destination.is_ipv4()).filter_map(|route| route.link);
    let mut smallest = ETHERNET_MTU;
    for index in uplinks {
        if let Some(link) = socket.link_by_index(index)? {
            smallest = smallest.min(link.mtu);
        }
    }
    Ok(smallest)
}

/// Of a bridge that has no address yet.
fn default_mac(names: &Names) -> Mac {
    Mac::of_address(Ipv4Addr::from_bits(names.group()))
}

fn create(socket: &mut Socket, names: &Names, interface: &str, mac: Mac, mtu: u32) -> Result<u32, OpenError> {
    // Its hardware address is fixed from the start; otherwise it changes with every port and neighbours lose it.
    let bridge = NewBridge { name: interface, mac: mac.octets(), mtu: Some(mtu) };
    let alias = names.alias();
    let name = Change { alias: Some(&alias), ..Change::default() };
    socket.execute(&mut [link::create_bridge(&bridge), link::change(Target::Name(interface), &name)])?;
    let made = socket.link_by_name(interface)?;
    Ok(made.ok_or_else(|| OpenError::Vanished { interface: interface.to_owned() })?.index)
}

/// Lets answers of containers through to who called a published port at the host's loopback. The rules keep everything else from
/// there out.
fn admit_loopback(interface: &str, warnings: &mut Vec<Warning>) {
    if let Err(error) = settings::set(&format!("ipv4/conf/{interface}/route_localnet"), "1") {
        warnings.push(Warning::Setting(error.to_string()));
    }
}

/// No IPv6 on a bridge without an IPv6 subnet: containers could speak to the host's link-local address, and offer it routes.
fn protect(interface: &str, warnings: &mut Vec<Warning>) {
    if !settings::has_ipv6() {
        return;
    }
    for (setting, value) in [("accept_ra", "0"), ("disable_ipv6", "1")] {
        if let Err(error) = settings::set(&format!("ipv6/conf/{interface}/{setting}"), value) {
            warnings.push(Warning::Setting(error.to_string()));
        }
    }
}

/// Those endpoints that are plugged in. After a reboot none is, whatever is on record, and nothing binds us to their subnet.
fn alive<'a>(socket: &mut Socket, index: u32, running: &'a [Endpoint]) -> Result<Vec<&'a Endpoint>, RequestError> {
    let ports = socket.ports(index)?;
    Ok(running.iter().filter(|endpoint| ports.iter().any(|port| port.name == endpoint.host_interface)).collect())
}

/// Chooses the subnet and puts the gateway's address on the bridge.
fn settle(socket: &mut Socket, index: u32, options: &Options, alive: &[&Endpoint]) -> Result<Subnet, OpenError> {
    for _ in 0..CHOICES {
        let subnet = choose(socket, index, options, alive)?;
        set_address(socket, gateway_of(subnet, index))?;
        if keeps(socket, index, subnet)? {
            return Ok(subnet);
        }
        socket.execute(&mut [gateway_of(subnet, index).remove()])?;
    }
    Err(OpenError::NoSubnet)
}

fn choose(socket: &mut Socket, index: u32, options: &Options, alive: &[&Endpoint]) -> Result<Subnet, OpenError> {
    // Containers that live on cannot be moved to another subnet.
    if let Some(kept) = alive.iter().find_map(|endpoint| Subnet::containing(endpoint.address, endpoint.prefix)) {
        return Ok(kept);
    }
    let addresses = socket.addresses()?;
    let servers = servers_of(&read_host_resolv_conf().unwrap_or_default());
    let surroundings = Surroundings::of(&addresses, &socket.routes()?, Some(index), &servers);
    if let Some(wanted) = options.subnet {
        return if surroundings.is_connected(wanted) {
            Err(OpenError::SubnetTaken { subnet: wanted })
        } else {
            Ok(wanted)
        };
    }
    let present = addresses.iter().filter(|address| address.link == index).find_map(subnet_of);
    match present {
        Some(present) if !surroundings.is_connected(present) => Ok(present),
        _ => surroundings.free_pool().ok_or(OpenError::NoSubnet),
    }
}

fn subnet_of(address: &LinkAddress) -> Option<Subnet> {
    match address.address {
        std::net::IpAddr::V4(ip) => Subnet::containing(ip, address.prefix),
        std::net::IpAddr::V6(_) => None,
    }
}

fn gateway_of(subnet: Subnet, index: u32) -> LinkAddress {
    LinkAddress { link: index, address: subnet.gateway().into(), prefix: subnet.prefix() }
}

/// Makes the gateway's address the bridge's only IPv4 address, and switches the bridge on.
fn set_address(socket: &mut Socket, wanted: LinkAddress) -> Result<(), RequestError> {
    let index = wanted.link;
    let present: Vec<LinkAddress> =
        socket.addresses()?.into_iter().filter(|address| address.link == index && address.address.is_ipv4()).collect();
    let mut batch: Vec<_> = present.iter().filter(|&address| *address != wanted).map(LinkAddress::remove).collect();
    if !present.contains(&wanted) {
        batch.push(wanted.add());
    }
    let up = Change { power: Some(Power::Up), ..Change::default() };
    batch.push(link::change(Target::Index(index), &up));
    socket.execute(&mut batch)
}

/// Whether nobody else took an overlapping subnet meanwhile; of two that did, the one with the older interface keeps it.
fn keeps(socket: &mut Socket, index: u32, subnet: Subnet) -> Result<bool, RequestError> {
    let addresses = socket.addresses()?;
    let others = addresses.iter().filter(|address| address.link < index);
    Ok(!others.filter_map(subnet_of).any(|other| other.overlaps(subnet)))
}

/// Removes the ports that belong to no running container: a dead engine's.
fn remove_strangers(socket: &mut Socket, index: u32, running: &[Endpoint]) -> Result<(), RequestError> {
    let ports = socket.ports(index)?;
    let strange = ports.iter().filter(|port| !running.iter().any(|endpoint| endpoint.host_interface == port.name));
    for port in strange.filter(|port| port.kind == "veth") {
        gone(socket.execute(&mut [link::delete(Target::Index(port.index))]))?;
    }
    Ok(())
}

/// Takes the bridge away.
pub(crate) fn remove(socket: &mut Socket, names: &Names, interface: &str) -> Result<(), RequestError> {
    match socket.link_by_name(interface)? {
        Some(link) if link.alias == names.alias() => {
            gone(socket.execute(&mut [link::delete(Target::Index(link.index))]))
        }
        _ => Ok(()),
    }
}

/// That a link to be deleted is not there any more is what was wanted.
pub(crate) fn gone(result: Result<(), RequestError>) -> Result<(), RequestError> {
    match result {
        Err(error) if error.errno() == Some(netlink::Errno::NODEV) => Ok(()),
        other => other,
    }
}
