//! Making network namespaces that a container can start in.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use netlink::address::LinkAddress;
use netlink::link::{self, Change, NewVeth, PortOptions, Power, Switch, Target};
use netlink::namespace::{self, NamespaceError};
use netlink::route::Route;
use netlink::{Errno, Family, OpenError as SocketError, RequestError, Socket};
use thiserror::Error;

use crate::address::{Mac, Subnet};
use crate::bridge::{Ready, gone};
use crate::endpoint::{DEFAULT_NETWORK, Endpoint, Sandbox};
use crate::names::Names;
use crate::owner::{Owner, OwnerError};
use crate::settings;

/// The index that the first device of every namespace has.
const LOOPBACK: u32 = 1;
const CONTAINER_INTERFACE: &str = "eth0";
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
}

/// A place in a bridge, and how a container is to sit there.
#[derive(Clone, Debug)]
pub(crate) struct Plug<'a> {
    pub(crate) network: &'a str,
    /// What the interface is called in the container.
    pub(crate) interface: &'a str,
    /// The bridge's index.
    pub(crate) bridge: u32,
    pub(crate) mtu: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) mac: Mac,
    pub(crate) leads_out: LeadsOut,
    pub(crate) neighbours: Neighbours,
}

/// Whether a container's packets for elsewhere leave by this interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeadsOut {
    /// It has the default route.
    Yes,
    /// Another has, or none.
    No,
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
    subnet: Subnet,
    gateway: Ipv4Addr,
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
            subnet: bridge.view.subnet,
            gateway: bridge.view.gateway,
            mtu: bridge.view.mtu,
            number: AtomicU32::new(now.as_millis() as u32),
            owner,
            ipv6: settings::has_ipv6(),
        }
    }

    /// A namespace with loopback alone. Leaves the calling thread in another namespace until [`Maker::return_home`].
    pub(crate) fn isolated_here(&self) -> Result<Sandbox, MakeError> {
        let (namespace, user_namespace) = self.leave_for_new()?;
        let mut inside = Socket::open(Family::Route)?;
        inside.execute(&mut [power_up(LOOPBACK)])?;
        apply_container_settings();
        Ok(Sandbox { namespace, user_namespace, endpoint: None })
    }

    /// A namespace on the bridge, with this address. Leaves the calling thread in another namespace until
    /// [`Maker::return_home`].
    pub(crate) fn bridged_here(&self, address: Ipv4Addr) -> Result<Sandbox, MakeError> {
        let (namespace, user_namespace) = self.leave_for_new()?;
        let mut inside = Socket::open(Family::Route)?;
        let plug = Plug {
            network: DEFAULT_NETWORK,
            interface: CONTAINER_INTERFACE,
            bridge: self.bridge,
            mtu: self.mtu,
            address,
            prefix: self.subnet.prefix(),
            gateway: Some(self.gateway),
            mac: Mac::of_address(address),
            leads_out: LeadsOut::Yes,
            neighbours: Neighbours::Reachable,
        };
        let endpoint = self.plug_here(&mut inside, &plug)?;
        apply_container_settings();
        Ok(Sandbox { namespace, user_namespace, endpoint: Some(endpoint) })
    }

    /// Moves the calling thread into a new network namespace, which belongs to a new user namespace where there is an owner.
    fn leave_for_new(&self) -> Result<(OwnedFd, Option<OwnedFd>), MakeError> {
        let Some(owner) = &self.owner else { return Ok((namespace::leave_for_new()?, None)) };
        let owned = owner.make()?;
        linux::namespace::join(owned.network.as_fd(), linux::namespace::NETWORK).map_err(NamespaceError::Enter)?;
        Ok((owned.network, Some(owned.user)))
    }

    /// Plugs a namespace that is there, with what is in it, into a bridge.
    pub(crate) fn plug(&self, namespace: BorrowedFd<'_>, plug: &Plug<'_>) -> Result<Endpoint, MakeError> {
        namespace::within(namespace, || self.plug_here(&mut Socket::open(Family::Route)?, plug))?
    }

    /// Makes the pair between the calling thread's namespace and the bridge, with address and route.
    fn plug_here(&self, inside: &mut Socket, plug: &Plug<'_>) -> Result<Endpoint, MakeError> {
        let host_interface = self.create_pair(inside, plug)?;
        self.disable_ipv6(plug.interface);
        let index = inside.link_by_name(plug.interface)?.ok_or(MakeError::Vanished)?.index;
        self.plug_in(&host_interface, plug)?;
        announce_changes(plug.interface);
        let address = LinkAddress { link: index, address: plug.address.into(), prefix: plug.prefix };
        let mut batch = vec![power_up(LOOPBACK), address.add(), power_up(index)];
        if let (Some(gateway), LeadsOut::Yes) = (plug.gateway, plug.leads_out) {
            batch.push(Route::default_by(gateway.into(), index).add());
        }
        inside.execute(&mut batch)?;
        Ok(Endpoint {
            network: plug.network.to_owned(),
            interface: plug.interface.to_owned(),
            address: plug.address,
            prefix: plug.prefix,
            gateway: plug.gateway,
            mac: plug.mac,
            host_interface,
        })
    }

    /// Has a namespace's packets for elsewhere leave by another endpoint than before.
    pub(crate) fn change_default_route(
        &self,
        namespace: BorrowedFd<'_>,
        before: Option<&Endpoint>,
        after: Option<&Endpoint>,
    ) -> Result<(), MakeError> {
        namespace::within(namespace, || -> Result<(), MakeError> {
            let mut inside = Socket::open(Family::Route)?;
            let mut route = |endpoint: Option<&Endpoint>| -> Result<Option<Route>, MakeError> {
                let Some((endpoint, gateway)) = endpoint.and_then(|endpoint| Some((endpoint, endpoint.gateway?)))
                else {
                    return Ok(None);
                };
                let link = inside.link_by_name(&endpoint.interface)?;
                Ok(link.map(|link| Route::default_by(gateway.into(), link.index)))
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

    /// The default bridge's index.
    pub(crate) fn bridge(&self) -> u32 {
        self.bridge
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
                mtu: Some(plug.mtu),
                peer: &peer,
                peer_namespace: self.host.as_fd(),
            };
            match inside.execute(&mut [link::create_veth(&pair)]) {
                Ok(()) => return Ok(peer),
                Err(error) if error.errno() == Some(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(MakeError::Vanished)
    }

    /// The network has no IPv6, so neither has the interface; loopback keeps `::1`. Kernels without IPv6 have no such setting.
    fn disable_ipv6(&self, interface: &str) {
        if self.ipv6 {
            // In a container of ours /proc/sys may be read-only; the rules then still drop what is sent.
            let _ = settings::set(&format!("ipv6/conf/{interface}/disable_ipv6"), "1");
        }
    }

    /// Makes the host's end a port of the bridge. It needs no address of its own, not even a link-local one.
    fn plug_in(&self, host_interface: &str, plug: &Plug<'_>) -> Result<(), MakeError> {
        let target = Target::Name(host_interface);
        let port = Change { master: Some(plug.bridge), power: Some(Power::Up), ..Change::default() };
        let mut batch = Vec::new();
        if self.ipv6 {
            batch.push(link::without_link_local(target));
        }
        batch.push(link::change(target, &port));
        let mut socket = self.host_socket();
        socket.execute(&mut batch)?;
        if plug.neighbours == Neighbours::KeptApart {
            let index = socket.link_by_name(host_interface)?.ok_or(MakeError::Vanished)?.index;
            let options = PortOptions { hairpin: None, isolated: Some(Switch::On) };
            socket.execute(&mut [link::change_port(index, &options)])?;
        }
        Ok(())
    }

    /// Gives `eth0` in the sandbox another hardware address.
    pub(crate) fn set_mac(&self, sandbox: &mut Sandbox, mac: Mac) -> Result<(), MakeError> {
        namespace::within(sandbox.namespace.as_fd(), || -> Result<(), MakeError> {
            let change = Change { mac: Some(mac.octets()), ..Change::default() };
            Ok(Socket::open(Family::Route)?.execute(&mut [link::change(Target::Name(CONTAINER_INTERFACE), &change)])?)
        })??;
        if let Some(endpoint) = &mut sandbox.endpoint {
            endpoint.mac = mac;
        }
        Ok(())
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

    /// Deletes the pairs of these endpoints, and returns those that could not be deleted.
    pub(crate) fn unplug(&self, endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
        let group = self.names.group();
        let into_group = Change { group: Some(group), ..Change::default() };
        let collected = endpoints.iter().map(|dead| link::change(Target::Name(&dead.host_interface), &into_group));
        // All in one go: the kernel waits once for readers of its tables, however many links there are.
        let mut batch: Vec<_> = collected.chain([link::delete_group(group)]).collect();
        let mut socket = self.host_socket();
        match socket.execute(&mut batch) {
            Ok(()) => Vec::new(),
            Err(_) => endpoints.into_iter().filter(|dead| !unplug_one(&mut socket, dead)).collect(),
        }
    }

    /// The host's socket. A panic while it was locked leaves at most an unread answer, which the next exchange skips.
    pub(crate) fn host_socket(&self) -> std::sync::MutexGuard<'_, Socket> {
        self.host_socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn unplug_one(socket: &mut Socket, dead: &Endpoint) -> bool {
    gone(socket.execute(&mut [link::delete(Target::Name(&dead.host_interface))])).is_ok()
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
