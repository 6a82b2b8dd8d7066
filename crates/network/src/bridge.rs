//! The default bridge: the interface that containers are plugged into.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use netlink::address::LinkAddress;
use netlink::link::{self, Change, Link, NewBridge, NewVeth, Power, Target};
use netlink::{RequestError, Socket};

use crate::address::{Ip, Mac, Subnet};
use crate::definition::Definition;
use crate::endpoint::{Endpoint, Family};
use crate::files::{read_host_resolv_conf, servers_of};
use crate::gate::Gate;
use crate::names::Names;
use crate::networks::{Bridge, OpenError, Options, Subnet6, Warning};
use crate::pools::Surroundings;
use crate::settings;

/// What a packet's size is on plain Ethernet.
const ETHERNET_MTU: u32 = 1500;
/// The index that the first device of every namespace has.
const LOOPBACK: u32 = 1;
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
    protect(names.bridge(), options.subnet6.is_some(), warnings);
    admit_loopback(names.bridge(), warnings);
    if existing.is_some_and(|link| link.mtu != mtu) {
        let change = Change { mtu: Some(mtu), ..Change::default() };
        socket.execute(&mut [link::change(Target::Index(index), &change)])?;
    }
    let alive = alive(socket, index, running)?;
    let subnet = settle(socket, index, options, &alive)?;
    let subnet6 = settle6(socket, index, options, &alive)?;
    remove_strangers(socket, index, running)?;
    let gateway = subnet.gateway();
    let view = Bridge { interface: names.bridge().to_owned(), subnet, gateway, subnet6, mtu };
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
        None => create(socket, names, &definition.interface, mac_of(definition), mtu)?,
    };
    protect(&definition.interface, !definition.ipv6.is_empty(), warnings);
    if !definition.internal {
        admit_loopback(&definition.interface, warnings);
    }
    switch_on(socket, index, definition)?;
    Ok(index)
}

/// The interface that has a routed network's gateway address, and whose network tells others that its addresses are somebody's: a
/// bridge without ports, which every kernel has that has ours.
pub(crate) fn ensure_router(socket: &mut Socket, names: &Names, definition: &Definition) -> Result<u32, OpenError> {
    let interface = &definition.interface;
    let index = match find_own(socket, names, interface)? {
        Some(link) => return Ok(link.index),
        None => create(socket, names, interface, mac_of(definition), ETHERNET_MTU)?,
    };
    protect(interface, !definition.ipv6.is_empty(), &mut Vec::new());
    switch_on(socket, index, definition)?;
    Ok(index)
}

/// The interface whose cable a network shares: one of the host, a virtual LAN of one (`eth0.50`), or none, where a dummy of ours stands
/// for it and containers reach each other alone.
pub(crate) fn ensure_parent(
    socket: &mut Socket,
    host: BorrowedFd<'_>,
    names: &Names,
    definition: &Definition,
) -> Result<u32, OpenError> {
    let interface = definition.interface.as_str();
    match socket.link_by_name(interface)? {
        Some(link) if link.index == LOOPBACK => return Err(OpenError::LoopbackParent(definition.driver.as_str())),
        Some(link) => return Ok(link.index),
        None => {}
    }
    if interface == Names::dummy(&definition.id) {
        return match make(socket, names, interface, link::create_dummy(interface)) {
            Err(OpenError::NoKind(_)) => make_loop(socket, host, names, interface),
            made => made,
        };
    }
    let missing = || OpenError::NoParent { interface: interface.to_owned() };
    let (base, id) = interface.rsplit_once('.').ok_or_else(missing)?;
    let id: u16 = id.parse().ok().filter(|id| (1..4095).contains(id)).ok_or_else(missing)?;
    let base = socket.link_by_name(base)?.ok_or_else(missing)?.index;
    make(socket, names, interface, link::create_vlan(interface, base, id))
}

/// A cable with both ends on the host, for kernels without dummies.
fn make_loop(socket: &mut Socket, host: BorrowedFd<'_>, names: &Names, interface: &str) -> Result<u32, OpenError> {
    let other = interface.replacen("dm-", "dp-", 1);
    let mac = default_mac(names).octets();
    let pair = NewVeth { name: interface, mac, mtu: None, peer: &other, peer_namespace: host, peer_group: None };
    let index = make(socket, names, interface, link::create_veth(&pair))?;
    let up = Change { power: Some(Power::Up), ..Change::default() };
    socket.execute(&mut [link::change(Target::Name(&other), &up)])?;
    Ok(index)
}

/// Makes an interface, switched on and marked as ours.
fn make(socket: &mut Socket, names: &Names, interface: &str, request: netlink::Request) -> Result<u32, OpenError> {
    let alias = names.alias();
    let ours = Change { alias: Some(&alias), power: Some(Power::Up), ..Change::default() };
    match socket.execute(&mut [request, link::change(Target::Name(interface), &ours)]) {
        Err(error) if error.errno() == Some(netlink::Errno::OPNOTSUPP) => {
            return Err(OpenError::NoKind(interface.to_owned()));
        }
        done => done?,
    }
    let made = socket.link_by_name(interface)?;
    Ok(made.ok_or_else(|| OpenError::Vanished { interface: interface.to_owned() })?.index)
}

fn find_ours(socket: &mut Socket, names: &Names, interface: &str) -> Result<Option<Link>, OpenError> {
    match socket.link_by_name(interface)? {
        Some(link) if link.alias != names.alias() => {
            Err(OpenError::ForeignInterface { interface: interface.to_owned() })
        }
        found => Ok(found),
    }
}

/// The addresses of a user's bridge itself.
fn gateways_of(definition: &Definition, link: u32) -> Vec<LinkAddress> {
    let ipv4 = definition.ipv4.iter().filter(|_| definition.has_address(Family::Ipv4));
    let ipv6 = definition.ipv6.iter().filter(|_| definition.has_address(Family::Ipv6));
    ipv4.filter_map(|pool| pool.gateway_at(link)).chain(ipv6.filter_map(|pool| pool.gateway_at(link))).collect()
}

fn mac_of(definition: &Definition) -> Mac {
    let ipv4 = definition.ipv4.iter().find_map(|pool| pool.gateway.map(IpAddr::from));
    let address = ipv4.or_else(|| definition.ipv6.iter().find_map(|pool| pool.gateway.map(IpAddr::from)));
    Mac::of_address(address.unwrap_or(Ipv4Addr::from_bits(crate::names::fnv(definition.id.as_bytes())).into()))
}

/// Removes interfaces of this engine that belong to none of `known`, and from the others what belongs to no running container.
pub(crate) fn sweep_user(
    socket: &mut Socket,
    names: &Names,
    known: &[Definition],
    running: &[Endpoint],
    gate: Option<&Gate>,
) -> Result<(), RequestError> {
    let links = socket.links()?;
    let wanted: HashSet<&str> = known.iter().map(|definition| definition.interface.as_str()).collect();
    let held: HashSet<&str> = running.iter().map(|endpoint| endpoint.host_interface.as_str()).collect();
    let ours = links.iter().filter(|link| link.alias == names.alias());
    let is_gate = |link: &Link| gate.is_some_and(|gate| gate.entrance == link.name);
    let mut kept = HashSet::new();
    for link in ours.filter(|link| link.name != names.bridge() && !is_gate(link)) {
        if wanted.contains(link.name.as_str()) {
            kept.insert(link.index);
        } else {
            gone(socket.execute(&mut [link::delete(Target::Index(link.index))]))?;
        }
    }
    let groups: Vec<u32> = known.iter().filter_map(Definition::group).collect();
    let is_on_ours =
        |link: &Link| link.master.is_some_and(|master| kept.contains(&master)) || groups.contains(&link.group);
    let is_strange = |link: &&Link| link.kind == "veth" && is_on_ours(link) && !held.contains(link.name.as_str());
    for link in links.iter().filter(is_strange) {
        gone(socket.execute(&mut [link::delete(Target::Index(link.index))]))?;
    }
    Ok(())
}

/// The bridge of an engine of this name. An interface that only happens to be called so is nobody's to take.
fn find_own(socket: &mut Socket, names: &Names, interface: &str) -> Result<Option<Link>, OpenError> {
    match find_ours(socket, names, interface)? {
        Some(link) if link.kind != "bridge" => Err(OpenError::ForeignInterface { interface: interface.to_owned() }),
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
    Mac::of_address(Ipv4Addr::from_bits(names.group()).into())
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

/// No IPv6 on a bridge without an IPv6 subnet: containers could speak to the host's link-local address. On any bridge the host takes
/// no routes from containers, and its address there is good at once.
fn protect(interface: &str, has_subnet6: bool, warnings: &mut Vec<Warning>) {
    if !settings::has_ipv6() {
        return;
    }
    let wanted = [("accept_ra", "0"), ("accept_dad", "0"), ("disable_ipv6", if has_subnet6 { "0" } else { "1" })];
    for (setting, value) in wanted {
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
        set_addresses(socket, index, &[gateway_of(subnet, index)])?;
        if keeps(socket, index, subnet)? {
            return Ok(subnet);
        }
        socket.execute(&mut [gateway_of(subnet, index).remove()])?;
    }
    Err(OpenError::NoSubnet)
}

/// The same for IPv6, where the default bridge is to have it.
fn settle6(
    socket: &mut Socket,
    index: u32,
    options: &Options,
    alive: &[&Endpoint],
) -> Result<Option<Subnet<Ipv6Addr>>, OpenError> {
    let subnet = match &options.subnet6 {
        None => return Ok(None),
        Some(wanted) => choose6(socket, index, options, wanted, alive)?,
    };
    set_addresses(socket, index, &[gateway_of(subnet, index)])?;
    Ok(Some(subnet))
}

fn choose6(
    socket: &mut Socket,
    index: u32,
    options: &Options,
    wanted: &Subnet6,
    alive: &[&Endpoint],
) -> Result<Subnet<Ipv6Addr>, OpenError> {
    let kept = alive.iter().find_map(|endpoint| Subnet::containing(endpoint.ipv6?.address, endpoint.ipv6?.prefix));
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let surroundings = Surroundings::<Ipv6Addr>::of(&socket.addresses()?, &socket.routes()?, Some(index), &[]);
    match wanted {
        Subnet6::This(wanted) if surroundings.is_connected(*wanted) => {
            Err(OpenError::SubnetTaken { subnet: wanted.to_string() })
        }
        Subnet6::This(wanted) => Ok(*wanted),
        Subnet6::Automatic => {
            surroundings.free_local_pool(&[], &options.identity, &options.pools).ok_or(OpenError::NoSubnet)
        }
    }
}

fn choose(socket: &mut Socket, index: u32, options: &Options, alive: &[&Endpoint]) -> Result<Subnet, OpenError> {
    // Containers that live on cannot be moved to another subnet.
    if let Some(kept) =
        alive.iter().find_map(|endpoint| Subnet::containing(endpoint.ipv4?.address, endpoint.ipv4?.prefix))
    {
        return Ok(kept);
    }
    let addresses = socket.addresses()?;
    let servers = servers_of(&read_host_resolv_conf().unwrap_or_default());
    let surroundings = Surroundings::<Ipv4Addr>::of(&addresses, &socket.routes()?, Some(index), &servers);
    if let Some(wanted) = options.subnet {
        return if surroundings.is_connected(wanted) {
            Err(OpenError::SubnetTaken { subnet: wanted.to_string() })
        } else {
            Ok(wanted)
        };
    }
    let present = addresses.iter().filter(|address| address.link == index).find_map(subnet_of);
    match present {
        Some(present) if !surroundings.is_connected(present) => Ok(present),
        _ => surroundings.free_pool(&options.pools).ok_or(OpenError::NoSubnet),
    }
}

fn subnet_of(address: &LinkAddress) -> Option<Subnet> {
    Subnet::containing(Ipv4Addr::of(address.address)?, address.prefix)
}

fn gateway_of<A: Ip>(subnet: Subnet<A>, index: u32) -> LinkAddress {
    LinkAddress { link: index, address: subnet.gateway().into(), prefix: subnet.prefix() }
}

/// Gives a new bridge its addresses and switches it on.
fn switch_on(socket: &mut Socket, index: u32, definition: &Definition) -> Result<(), RequestError> {
    let up = Change { power: Some(Power::Up), ..Change::default() };
    let mut batch: Vec<_> = gateways_of(definition, index).iter().map(LinkAddress::add).collect();
    batch.push(link::change(Target::Index(index), &up));
    socket.execute(&mut batch)
}

/// Makes these the bridge's only addresses of their families, beside the one that IPv6 gives every link, and switches the bridge on.
fn set_addresses(socket: &mut Socket, index: u32, wanted: &[LinkAddress]) -> Result<(), RequestError> {
    let is_every_links = |address: IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let present = socket.addresses()?.into_iter();
    let present: Vec<LinkAddress> =
        present.filter(|address| address.link == index && !is_every_links(address.address)).collect();
    let concerned = |address: &IpAddr| wanted.iter().any(|other| other.address.is_ipv4() == address.is_ipv4());
    let strange = present.iter().filter(|one| concerned(&one.address) && !wanted.contains(one));
    let mut batch: Vec<_> = strange.map(LinkAddress::remove).collect();
    batch.extend(wanted.iter().filter(|address| !present.contains(address)).map(LinkAddress::add));
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

/// Takes a user's network's addresses from the interface that it hangs off, and says whether that is there and ours.
pub(crate) fn retire(socket: &mut Socket, names: &Names, definition: &Definition) -> Result<bool, RequestError> {
    let Some(link) = socket.link_by_name(&definition.interface)?.filter(|link| link.alias == names.alias()) else {
        return Ok(false);
    };
    let mut addresses: Vec<_> = gateways_of(definition, link.index).iter().map(LinkAddress::remove).collect();
    // Somebody may have done so before.
    let _ = socket.execute(&mut addresses);
    Ok(true)
}

/// That a link to be deleted is not there any more is what was wanted.
pub(crate) fn gone(result: Result<(), RequestError>) -> Result<(), RequestError> {
    match result {
        Err(error) if error.errno() == Some(netlink::Errno::NODEV) => Ok(()),
        other => other,
    }
}
