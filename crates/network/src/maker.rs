//! Making network namespaces that a container can start in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use netlink::address::LinkAddress;
use netlink::link::{self, Change, NewShare, NewVeth, PortOptions, Power, Share, Switch, Target};
use netlink::namespace::{self, NamespaceError};
use netlink::neighbour::Neighbour;
use netlink::route::Route;
use netlink::{Errno, Family as SocketFamily, OpenError as SocketError, RequestError, Socket};
use thiserror::Error;

use crate::address::{Ip, Mac, Subnet};
use crate::allocator::Pair;
use crate::bridge::{self, Ready, gone};
use crate::definition::{Definition, Driver, Pool};
use crate::endpoint::{DEFAULT_NETWORK, Endpoint, Family, Held, Sandbox};
use crate::names::Names;
use crate::networks::{AttachError, AttachRequest, OpenError};
use crate::owner::{Owner, OwnerError};
use crate::resolver;
use crate::settings::{self, SettingError};
use crate::supply::Dead;

/// The index that the first device of every namespace has.
const LOOPBACK: u32 = 1;
/// What a container's first interface is called.
pub(crate) const USUAL_INTERFACE: &str = "eth0";
/// The host's link-local address on each cable of a routed network.
const ROUTER_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// A pair's name can be taken by a container that lives on from before; the next number is then tried, this often.
const NAME_ATTEMPTS: usize = 1000;

/// What Docker allows inside every container: any port for any user, and pings without a capability.
const CONTAINER_SETTINGS: [(&str, &str); 2] =
    [("ipv4/ip_unprivileged_port_start", "0"), ("ipv4/ping_group_range", "0 2147483647")];

/// Why a namespace could not be made.
#[derive(Debug, Error)]
pub enum MakeError {
    /// There is no new namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// There is no user namespace for it to belong to.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// There is no socket in it.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A link, address or route was refused.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The interface that was just made is not there.
    #[error("the container's interface vanished while it was set up")]
    Vanished,
    /// The interface does not take a setting.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The bridge takes no more.
    #[error(
        "the network is full: the kernel connects no more than 1,023 interfaces to a bridge; a network of the driver \"routed\" has no such limit"
    )]
    Full,
    /// The kernel lacks a driver.
    #[error("this host's kernel has no {0} (CONFIG_{upper})", upper = .0.to_uppercase())]
    NoKind(&'static str),
}

/// A place in a bridge, and how a container is to sit there.
#[derive(Clone, Debug)]
pub(crate) struct Plug<'a> {
    pub(crate) network: &'a str,
    /// What the interface is called in the container.
    pub(crate) interface: &'a str,
    pub(crate) way: Way,
    /// The largest packet; `None` is the parent's.
    pub(crate) mtu: Option<u32>,
    pub(crate) ipv4: Option<Held<Ipv4Addr>>,
    pub(crate) ipv6: Option<Held<Ipv6Addr>>,
    pub(crate) mac: Mac,
    pub(crate) leads_out: LeadsOut,
    pub(crate) link_local: &'a [IpAddr],
    pub(crate) settings: &'a [(String, String)],
    pub(crate) neighbours: Neighbours,
}

/// How an interface is joined to its network.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// As a port of the bridge of this index.
    Bridge(u32),
    /// By a route of the host; the addresses are the host's on every such cable.
    Routed { group: u32, gateway4: Option<Ipv4Addr>, gateway6: Option<Ipv6Addr> },
    /// By the cable of the link of this index.
    Share { parent: u32, share: Share, gateway: Needed },
}

/// Whether packets for elsewhere are sent to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needed {
    Yes,
    No,
}

/// Whose packets for elsewhere leave by an interface of a container: it has the default route of these families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeadsOut {
    /// Of IPv4.
    pub ipv4: bool,
    /// Of IPv6.
    pub ipv6: bool,
}

impl LeadsOut {
    /// Both.
    pub const YES: Self = Self { ipv4: true, ipv6: true };
    /// Neither.
    pub const NO: Self = Self { ipv4: false, ipv6: false };
}

/// Whether containers on a bridge talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Neighbours {
    Reachable,
    KeptApart,
}

/// Makes namespaces and takes veth pairs away.
#[derive(Debug)]
pub(crate) struct Maker {
    host: OwnedFd,
    host_socket: Mutex<Socket>,
    names: Names,
    bridge: u32,
    /// The default bridge's.
    mtu: u32,
    number: AtomicU32,
    owner: Option<Owner>,
    ipv6: bool,
}

impl Maker {
    /// A maker that plugs into `bridge`; `host` is the namespace that it is in.
    pub(crate) fn new(host: OwnedFd, host_socket: Socket, names: Names, bridge: &Ready, owner: Option<Owner>) -> Self {
        // Starting from the clock, two engines of one name in a row rarely meet the same number.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            host,
            host_socket: Mutex::new(host_socket),
            names,
            bridge: bridge.index,
            mtu: bridge.view.mtu,
            number: AtomicU32::new(now.as_millis() as u32),
            owner,
            ipv6: settings::has_ipv6(),
        }
    }

    /// A namespace with loopback alone. Leaves the calling thread in another namespace until [`Maker::return_home`].
    pub(crate) fn isolated_here(&self) -> Result<Sandbox, MakeError> {
        let (namespace, user_namespace) = self.leave_for_new()?;
        let mut inside = Socket::open(SocketFamily::Route)?;
        inside.execute(&mut [power_up(LOOPBACK)])?;
        apply_container_settings();
        Ok(Sandbox { namespace, user_namespace, endpoint: None, name_sockets: None })
    }

    /// The same for other users than usual; the calling thread stays where it is.
    pub(crate) fn isolated_for(&self, owner: &Owner) -> Result<Sandbox, MakeError> {
        let owned = owner.make()?;
        namespace::within(owned.network.as_fd(), || -> Result<(), MakeError> {
            Socket::open(SocketFamily::Route)?.execute(&mut [power_up(LOOPBACK)])?;
            apply_container_settings();
            Ok(())
        })??;
        Ok(Sandbox { namespace: owned.network, user_namespace: Some(owned.user), endpoint: None, name_sockets: None })
    }

    /// A namespace on a network, with these addresses and with all that a container usually has there. Leaves the calling thread in
    /// another namespace until [`Maker::return_home`].
    pub(crate) fn joined_here(&self, definition: &Definition, held: Pair) -> Result<Sandbox, MakeError> {
        let link = self.find_link(definition)?;
        let (namespace, user_namespace) = self.leave_for_new()?;
        let mut inside = Socket::open(SocketFamily::Route)?;
        let usual = AttachRequest::usual(&definition.id);
        let endpoint = self.plug_here(&mut inside, &self.plug_of(definition, link, held, &usual))?;
        apply_container_settings();
        // Where there cannot be one, whoever starts the container finds out why.
        let name_sockets = if definition.id == DEFAULT_NETWORK { None } else { resolver::open_here().ok() };
        Ok(Sandbox { namespace, user_namespace, endpoint: Some(endpoint), name_sockets })
    }

    /// The index of the host's interface that a network hangs off, which is there.
    fn find_link(&self, definition: &Definition) -> Result<u32, MakeError> {
        if definition.id == DEFAULT_NETWORK {
            return Ok(self.bridge);
        }
        Ok(self.host_socket().link_by_name(&definition.interface)?.ok_or(MakeError::Vanished)?.index)
    }

    /// The same, made where it is not there.
    pub(crate) fn ensure_link(&self, definition: &Definition) -> Result<u32, OpenError> {
        if definition.id == DEFAULT_NETWORK {
            return Ok(self.bridge);
        }
        let mut socket = self.host_socket();
        match definition.driver {
            // What this host cannot do was told for the default bridge.
            Driver::Bridge => {
                let mtu = definition.mtu.unwrap_or(self.mtu);
                bridge::ensure_user(&mut socket, &self.names, definition, mtu, &mut Vec::new())
            }
            Driver::Routed { .. } => bridge::ensure_router(&mut socket, &self.names, definition),
            Driver::Macvlan(_) | Driver::Ipvlan(..) => {
                bridge::ensure_parent(&mut socket, self.host.as_fd(), &self.names, definition)
            }
        }
    }

    fn plug_of<'a>(&self, definition: &Definition, link: u32, taken: Pair, request: &AttachRequest<'a>) -> Plug<'a> {
        Plug {
            network: request.network,
            interface: request.interface,
            way: way(definition, link),
            mtu: definition.mtu.or_else(|| definition.driver.passes_the_host().then_some(self.mtu)),
            ipv4: taken.ipv4.and_then(|address| held(address, &definition.ipv4, definition.internal)),
            ipv6: taken.ipv6.and_then(|address| held(address, &definition.ipv6, definition.internal)),
            mac: request.mac.unwrap_or_else(|| mac_of(taken)),
            leads_out: request.leads_out,
            link_local: request.link_local,
            settings: request.settings,
            neighbours: if definition.talk { Neighbours::Reachable } else { Neighbours::KeptApart },
        }
    }

    /// Moves the calling thread into a new network namespace, which belongs to a new user namespace where there is an owner.
    fn leave_for_new(&self) -> Result<(OwnedFd, Option<OwnedFd>), MakeError> {
        let Some(owner) = &self.owner else { return Ok((namespace::leave_for_new()?, None)) };
        let owned = owner.make()?;
        linux::namespace::join(owned.network.as_fd(), linux::namespace::NETWORK).map_err(NamespaceError::Enter)?;
        Ok((owned.network, Some(owned.user)))
    }

    /// Joins a namespace that is there, with what is in it, to a network, under these addresses.
    pub(crate) fn join(
        &self,
        namespace: BorrowedFd<'_>,
        definition: &Definition,
        taken: Pair,
        request: &AttachRequest<'_>,
    ) -> Result<Endpoint, AttachError> {
        let plug = self.plug_of(definition, self.ensure_link(definition)?, taken, request);
        let joined = namespace::within(namespace, || self.plug_here(&mut Socket::open(SocketFamily::Route)?, &plug));
        Ok(joined.map_err(MakeError::from)??)
    }

    /// Makes the pair between the calling thread's namespace and the bridge, with address and route.
    fn plug_here(&self, inside: &mut Socket, plug: &Plug<'_>) -> Result<Endpoint, MakeError> {
        let host_interface = match plug.way {
            Way::Share { parent, share, .. } => self.create_share(plug, parent, share)?,
            Way::Bridge(_) | Way::Routed { .. } => self.create_pair(inside, plug)?,
        };
        self.choose_ipv6(plug);
        for (setting, value) in plug.settings {
            settings::set(setting, value)?;
        }
        let index = inside.link_by_name(plug.interface)?.ok_or(MakeError::Vanished)?.index;
        let router = match plug.way {
            Way::Bridge(bridge) => self.plug_in(&host_interface, bridge, plug).map(|()| None)?,
            Way::Routed { gateway4, gateway6, .. } => self.lead_to(&host_interface, gateway4, gateway6, plug)?,
            Way::Share { .. } => None,
        };
        announce_changes(plug.interface);
        inside.execute(&mut plug.settle(index, router))?;
        if let Way::Bridge(_) = plug.way {
            self.announce_again(inside, index, &host_interface, plug.mac)?;
        }
        Ok(plug.endpoint(host_interface))
    }

    /// Announces the address once more: when the interface did so, coming up, its port of the bridge may not have been open yet. The
    /// kernel opens it behind our back, but brings a link's state up to date for who asks for it.
    fn announce_again(&self, inside: &mut Socket, index: u32, host_interface: &str, mac: Mac) -> Result<(), MakeError> {
        self.host_socket().link_by_name(host_interface)?;
        // An interface speaks up when it is given a hardware address, be it the one that it has.
        let same = Change { mac: Some(mac.octets()), ..Change::default() };
        Ok(inside.execute(&mut [link::change(Target::Index(index), &same)])?)
    }

    /// Has a namespace's packets of a family for elsewhere leave by another endpoint than before.
    pub(crate) fn change_default_route(
        &self,
        namespace: BorrowedFd<'_>,
        family: Family,
        before: Option<&Endpoint>,
        after: Option<&Endpoint>,
    ) -> Result<(), MakeError> {
        namespace::within(namespace, || -> Result<(), MakeError> {
            let mut inside = Socket::open(SocketFamily::Route)?;
            let mut route = |endpoint: Option<&Endpoint>| -> Result<Option<Route>, MakeError> {
                let leading = endpoint.and_then(|endpoint| Some((endpoint, endpoint.gateway(family)?)));
                let Some((endpoint, gateway)) = leading else { return Ok(None) };
                let link = inside.link_by_name(&endpoint.interface)?;
                Ok(link.map(|link| Route::default_by(gateway, link.index)))
            };
            let (before, after) = (route(before)?, route(after)?);
            if let Some(before) = before {
                // It went with its interface, or the container removed it.
                let _ = inside.execute(&mut [before.remove()]);
            }
            match after {
                Some(after) => Ok(inside.execute(&mut [after.add()])?),
                None => Ok(()),
            }
        })?
    }

    /// Takes the calling thread back to where it belongs, so that it does not keep a container's namespace alive.
    pub(crate) fn return_home(&self) -> Result<(), NamespaceError> {
        linux::namespace::join(self.host.as_fd(), linux::namespace::NETWORK).map_err(NamespaceError::Enter)
    }

    /// Makes the pair with the container's end here and the other on the host, and returns the other's name.
    fn create_pair(&self, inside: &mut Socket, plug: &Plug<'_>) -> Result<String, MakeError> {
        for _ in 0..NAME_ATTEMPTS {
            let peer = self.names.veth(self.number.fetch_add(1, Ordering::Relaxed));
            let pair = NewVeth {
                name: plug.interface,
                mac: plug.mac.octets(),
                mtu: plug.mtu,
                peer: &peer,
                peer_namespace: self.host.as_fd(),
                peer_group: if let Way::Routed { group, .. } = plug.way { Some(group) } else { None },
            };
            match inside.execute(&mut [link::create_veth(&pair)]) {
                Ok(()) => return Ok(peer),
                Err(error) if error.errno() == Some(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(MakeError::Vanished)
    }

    /// Makes an interface here that has another one's cable. The host has no end of it.
    fn create_share(&self, plug: &Plug<'_>, parent: u32, kind: Share) -> Result<String, MakeError> {
        let namespace = namespace::current()?;
        // All that share a cable by IP address have its hardware address.
        let mac = matches!(kind, Share::Macvlan(_)).then(|| plug.mac.octets());
        let share = NewShare { name: plug.interface, namespace: namespace.as_fd(), parent, mac, mtu: plug.mtu, kind };
        match self.host_socket().execute(&mut [link::create_share(&share)]) {
            Ok(()) => Ok(String::new()),
            Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => Err(MakeError::NoKind(kind.kind())),
            Err(error) => Err(error.into()),
        }
    }

    /// Has the host send to the container what is for its addresses, and be its gateway. Returns the hardware address of its end.
    fn lead_to(
        &self,
        host_interface: &str,
        gateway4: Option<Ipv4Addr>,
        gateway6: Option<Ipv6Addr>,
        plug: &Plug<'_>,
    ) -> Result<Option<[u8; 6]>, MakeError> {
        // Answers to who called a published port at the host's loopback; the rules keep everything else from there out.
        namespace::within(self.host.as_fd(), || {
            let _ = settings::set(&format!("ipv4/conf/{host_interface}/route_localnet"), "1");
        })?;
        let mut socket = self.host_socket();
        let end = socket.link_by_name(host_interface)?.ok_or(MakeError::Vanished)?;
        let link = end.index;
        let mut batch = Vec::new();
        if self.ipv6 {
            batch.push(link::without_link_local(Target::Index(link)));
        }
        batch.push(power_up(link));
        let gateways =
            [gateway4.map(|gateway| (IpAddr::from(gateway), 32)), gateway6.map(|gateway| (gateway.into(), 128))];
        // The kernel asks for neighbours from a link-local address alone; one that is set is good at once.
        let link_local = gateway6.map(|_| (IpAddr::V6(ROUTER_LINK_LOCAL), 64));
        for (address, prefix) in gateways.into_iter().chain([link_local]).flatten() {
            batch.push(LinkAddress { link, address, prefix }.add());
        }
        for address in plug.addresses() {
            let source = if address.is_ipv4() { gateway4.map(IpAddr::from) } else { gateway6.map(IpAddr::from) };
            batch.push(Route { source, ..Route::by_link(address, whole(address), link) }.add());
        }
        batch.extend(known(plug.addresses(), link, plug.mac.octets()));
        socket.execute(&mut batch)?;
        Ok(end.mac)
    }

    /// Where the network has no IPv6, neither has the interface; loopback keeps `::1`. Where it has, addresses are good at once
    /// (nobody else can have them) and are no neighbour's to announce. Kernels without IPv6 have no such settings.
    fn choose_ipv6(&self, plug: &Plug<'_>) {
        if !self.ipv6 {
            return;
        }
        let settings: &[(&str, &str)] = match plug.ipv6 {
            None => &[("disable_ipv6", "1")],
            Some(_) => &[("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0"), ("autoconf", "0")],
        };
        for (setting, value) in settings {
            // In a container of ours /proc/sys may be read-only; the rules then still drop what is sent.
            let _ = settings::set(&format!("ipv6/conf/{}/{setting}", plug.interface), value);
        }
    }

    /// Makes the host's end a port of the bridge. It needs no address of its own, not even a link-local one.
    fn plug_in(&self, host_interface: &str, bridge: u32, plug: &Plug<'_>) -> Result<(), MakeError> {
        let target = Target::Name(host_interface);
        let port = Change { master: Some(bridge), power: Some(Power::Up), ..Change::default() };
        let mut batch = Vec::new();
        if self.ipv6 {
            batch.push(link::without_link_local(target));
        }
        batch.push(link::change(target, &port));
        let mut socket = self.host_socket();
        if let Err(error) = socket.execute(&mut batch) {
            gone(socket.execute(&mut [link::delete(target)]))?;
            return Err(if error.errno() == Some(Errno::XFULL) { MakeError::Full } else { error.into() });
        }
        if plug.neighbours == Neighbours::KeptApart {
            let index = socket.link_by_name(host_interface)?.ok_or(MakeError::Vanished)?.index;
            let options = PortOptions { hairpin: None, isolated: Some(Switch::On) };
            socket.execute(&mut [link::change_port(index, &options)])?;
        }
        Ok(())
    }

    /// Gives `eth0` in the sandbox another hardware address.
    pub(crate) fn set_mac(&self, sandbox: &mut Sandbox, mac: Mac) -> Result<(), MakeError> {
        let host_interface = sandbox.endpoint.as_ref().map(|endpoint| endpoint.host_interface.clone());
        let end = host_interface.map(|name| self.host_socket().link_by_name(&name)).transpose()?.flatten();
        // A bridge learns who is where; by a route it is known.
        let routed = end.filter(|end| end.master.is_none());
        namespace::within(sandbox.namespace.as_fd(), || -> Result<(), MakeError> {
            let mut inside = Socket::open(SocketFamily::Route)?;
            let change = Change { mac: Some(mac.octets()), ..Change::default() };
            let mut batch = vec![link::change(Target::Name(USUAL_INTERFACE), &change)];
            if routed.is_some() {
                // With its address an interface forgets where the gateway is.
                let known = inside.neighbours()?.into_iter().filter(|other| !other.address.is_multicast());
                batch.extend(known.map(|other| other.set()));
            }
            Ok(inside.execute(&mut batch)?)
        })??;
        let Some(endpoint) = &mut sandbox.endpoint else { return Ok(()) };
        endpoint.mac = mac;
        let Some(end) = routed else { return Ok(()) };
        let ipv4 = endpoint.ipv4.map(|held| IpAddr::from(held.address));
        let addresses = ipv4.into_iter().chain(endpoint.ipv6.map(|held| held.address.into()));
        let mut batch: Vec<_> = known(addresses, end.index, mac.octets()).collect();
        Ok(self.host_socket().execute(&mut batch)?)
    }

    /// Lets a container reach its own published port. Where bridged packets pass the rules (br_netfilter) a translated one is
    /// bridged on instead of routed, and a bridge sends nothing back out of the port that it came from unless told to.
    pub(crate) fn let_turn_back(&self, host_interface: &str) {
        if settings::get("bridge/bridge-nf-call-iptables").as_deref() != Some("1") {
            return;
        }
        let mut socket = self.host_socket();
        if let Ok(Some(port)) = socket.link_by_name(host_interface) {
            let options = PortOptions { hairpin: Some(Switch::On), isolated: None };
            // Best effort: all others reach the port all the same.
            let _ = socket.execute(&mut [link::change_port(port.index, &options)]);
        }
    }

    /// Takes an interface out of a namespace that goes on, and the host's end of it with it.
    pub(crate) fn take_out(&self, namespace: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), MakeError> {
        namespace::within(namespace, || -> Result<(), MakeError> {
            let mut inside = Socket::open(SocketFamily::Route)?;
            Ok(gone(inside.execute(&mut [link::delete(Target::Name(&endpoint.interface))]))?)
        })?
    }

    /// Deletes these interfaces, and returns the names of those that could not be deleted.
    pub(crate) fn unplug(&self, dead: &[Dead]) -> Vec<String> {
        // Who has no end here ended with its namespace, or was taken out of it.
        let names: Vec<&str> = dead.iter().map(Dead::interface).filter(|name| !name.is_empty()).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let group = self.names.group();
        let into_group = Change { group: Some(group), ..Change::default() };
        let collected = names.iter().map(|name| link::change(Target::Name(name), &into_group));
        // All in one go: the kernel waits once for readers of its tables, however many links there are.
        let mut batch: Vec<_> = collected.chain([link::delete_group(group)]).collect();
        let mut socket = self.host_socket();
        match socket.execute(&mut batch) {
            Ok(()) => Vec::new(),
            Err(_) => names.into_iter().filter(|name| !unplug_one(&mut socket, name)).map(str::to_owned).collect(),
        }
    }

    /// The host's socket. A panic while it was locked leaves at most an unread answer, which the next exchange skips.
    pub(crate) fn host_socket(&self) -> std::sync::MutexGuard<'_, Socket> {
        self.host_socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Plug<'_> {
    /// What gives the container's end, of this index, its addresses and routes; `router` is the hardware address of the other end,
    /// where that is its gateway.
    fn settle(&self, index: u32, router: Option<[u8; 6]>) -> Vec<netlink::Request> {
        let mut batch = vec![power_up(LOOPBACK)];
        let alone = matches!(self.way, Way::Routed { .. });
        for (address, prefix) in self.held() {
            let prefix = if alone { whole(address) } else { prefix };
            batch.push(LinkAddress { link: index, address, prefix }.add());
        }
        for &address in self.link_local {
            let prefix = if address.is_ipv4() { 16 } else { 64 };
            batch.push(LinkAddress { link: index, address, prefix }.add());
        }
        batch.push(power_up(index));
        if let Way::Routed { gateway4, gateway6, .. } = self.way {
            let gateways = || [gateway4.map(IpAddr::from), gateway6.map(IpAddr::from)].into_iter().flatten();
            batch.extend(gateways().flat_map(|gateway| self.by_way_of(gateway, index)));
            batch.extend(router.into_iter().flat_map(|mac| known(gateways(), index, mac)));
        }
        batch.extend(self.default_routes(index).iter().map(Route::add));
        batch
    }

    fn held(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let ipv4 = self.ipv4.map(|held| (held.address.into(), held.prefix));
        ipv4.into_iter().chain(self.ipv6.map(|held| (held.address.into(), held.prefix)))
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.held().map(|(address, _)| address)
    }

    /// The gateway is at the other end of the cable, and everybody else of the network behind it.
    fn by_way_of(&self, gateway: IpAddr, link: u32) -> Vec<netlink::Request> {
        let mut batch = vec![Route::by_link(gateway, whole(gateway), link).add()];
        let of_family = self.held().find(|(address, _)| address.is_ipv4() == gateway.is_ipv4());
        if let Some((address, prefix)) = of_family {
            let network = Route::by_link(network_of(address, prefix), prefix, link);
            batch.push(Route { gateway: Some(gateway), ..network }.add());
        }
        batch
    }

    fn default_routes(&self, link: u32) -> Vec<Route> {
        let needed = !matches!(self.way, Way::Share { gateway: Needed::No, .. });
        let gateway4 = self.ipv4.and_then(|held| Some(IpAddr::from(held.gateway?)));
        let gateway6 = self.ipv6.and_then(|held| Some(IpAddr::from(held.gateway?)));
        let leading = [gateway4.filter(|_| self.leads_out.ipv4), gateway6.filter(|_| self.leads_out.ipv6)];
        let route = |gateway| {
            let route = Route::default_by(gateway, link);
            if needed { route } else { Route { gateway: None, ..route } }
        };
        leading.into_iter().flatten().map(route).collect()
    }

    fn endpoint(&self, host_interface: String) -> Endpoint {
        Endpoint {
            network: self.network.to_owned(),
            interface: self.interface.to_owned(),
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            mac: self.mac,
            host_interface,
        }
    }
}

/// How a container is joined to a network that hangs off the link of this index.
fn way(definition: &Definition, link: u32) -> Way {
    match (definition.driver, definition.driver.share()) {
        (Driver::Routed { group }, _) => Way::Routed {
            group,
            gateway4: definition.ipv4.iter().find_map(|pool| pool.gateway),
            gateway6: definition.ipv6.iter().find_map(|pool| pool.gateway),
        },
        (driver, Some(share)) => {
            let gateway = if driver.needs_no_gateway() { Needed::No } else { Needed::Yes };
            Way::Share { parent: link, share, gateway }
        }
        (_, None) => Way::Bridge(link),
    }
}

/// An address with what the pool that it is from says of it.
fn held<A: Ip>(address: A, pools: &[Pool<A>], internal: bool) -> Option<Held<A>> {
    let pool = pools.iter().find(|pool| pool.subnet.contains(address))?;
    let gateway = pool.gateway.filter(|_| !internal);
    Some(Held { address, prefix: pool.subnet.prefix(), gateway })
}

/// Says for good that these addresses are at a hardware address behind a link, at whose other end nobody else is. Who had to ask would
/// take a place in the kernel's table of neighbours, which all namespaces share and which holds a thousand
/// (`net.ipv4.neigh.default.gc_thresh3`): containers on a routed network would be too many for it.
fn known(addresses: impl Iterator<Item = IpAddr>, link: u32, mac: [u8; 6]) -> impl Iterator<Item = netlink::Request> {
    addresses.map(move |address| Neighbour { link, address, mac: Some(mac) }.set())
}

/// How many bits an address has.
fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first address of the network that an address is in.
fn network_of(address: IpAddr, prefix: u8) -> IpAddr {
    let network = match address {
        IpAddr::V4(address) => Subnet::containing(address, prefix).map(|subnet| subnet.network().into()),
        IpAddr::V6(address) => Subnet::containing(address, prefix).map(|subnet| subnet.network().into()),
    };
    network.unwrap_or(address)
}

/// The hardware address that belongs to a container's addresses.
pub(crate) fn mac_of(held: Pair) -> Mac {
    let address = held.ipv4.map(IpAddr::from).or(held.ipv6.map(IpAddr::from));
    Mac::of_address(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

fn unplug_one(socket: &mut Socket, name: &str) -> bool {
    gone(socket.execute(&mut [link::delete(Target::Name(name))])).is_ok()
}

fn power_up(index: u32) -> netlink::Request {
    link::change(Target::Index(index), &Change { power: Some(Power::Up), ..Change::default() })
}

/// Has the interface tell its neighbours whenever its hardware address is new to them: who spoke with the last owner of the IP
/// address would otherwise go on sending to a card that is gone. Best effort, as they find out by themselves in half a minute.
fn announce_changes(interface: &str) {
    let _ = settings::set(&format!("ipv4/conf/{interface}/arp_notify"), "1");
}

/// Best effort: a kernel without one of these settings starts containers all the same.
fn apply_container_settings() {
    for (setting, value) in CONTAINER_SETTINGS {
        let _ = settings::set(setting, value);
    }
}
