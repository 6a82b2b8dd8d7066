//! The front door: one engine's networks.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netlink::link::Link;
use netlink::namespace::{self, NamespaceError};
use netlink::{Family, RequestError, Socket};
use thiserror::Error;

use crate::address::{Mac, Subnet};
use crate::allocator::Addresses;
use crate::bridge;
use crate::definition::Definition;
use crate::endpoint::{DEFAULT_NETWORK, Endpoint, InterfaceStatistics, Place, Sandbox};
use crate::files::{read_host_resolv_conf, servers_of};
use crate::firewall::{Firewall, FirewallError, Plan, Segment};
use crate::forwarding::{self, Enabled, Forwarding};
use crate::maker::{LeadsOut, MakeError, Maker, Neighbours, Plug};
use crate::names::Names;
use crate::owner::Owner;
use crate::pools::Surroundings;
use crate::ports::{self, HostPorts, PortError, PortRequest, Published};
use crate::supply::{AddressError, Supply, SupplyError};
use crate::watch::Watch;

/// What an engine's networks are made from.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engine's `--name`: interfaces and firewall table are called after it.
    pub name: String,
    /// The engine's `--run` folder: what was changed on the host is recorded there.
    pub run: PathBuf,
    /// The default bridge's subnet; `None` takes the first of Docker's pools that the host has no route into.
    pub subnet: Option<Subnet>,
    /// The largest packet; `None` takes 1500, or what the default route's link has where that is less.
    pub mtu: Option<u32>,
    /// How many namespaces of each kind are kept ready; 0 makes each when it is asked for.
    pub ready: usize,
    /// Whose the namespaces are; `None` for the engine's own user.
    pub owner: Option<Owner>,
}

impl Options {
    /// The usual options of the engine called `name`.
    pub fn new(name: &str, run: PathBuf) -> Self {
        Self { name: name.to_owned(), run, subnet: None, mtu: None, ready: 8, owner: None }
    }
}

/// What a namespace is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The default bridge.
    Bridge,
    /// Nothing: loopback alone.
    None,
}

/// The default bridge, as `network inspect bridge` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The interface, `conex0`.
    pub interface: String,
    /// The network.
    pub subnet: Subnet,
    /// The interface's address.
    pub gateway: Ipv4Addr,
    /// The largest packet.
    pub mtu: u32,
}

/// Something this host cannot do or that stands in the way; for the log and for `info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// nf_tables is missing: containers reach each other and the host, but nothing outside, and are reachable by routes.
    NoFirewall(String),
    /// A foreign chain drops forwarded packets by default and cannot be told about the bridge.
    ForeignDrop(String),
    /// IPv4 forwarding is off and cannot be switched on.
    NoForwarding(String),
    /// The rules are there, but nobody notices when they are taken away.
    Unwatched(String),
    /// A setting of the bridge could not be made.
    Setting(String),
    /// IPv4 forwarding was off and has been switched on.
    ForwardingEnabled,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoFirewall(reason) => {
                write!(f, "no outbound network for containers: nf_tables cannot be used ({reason})")
            }
            Self::ForeignDrop(chain) => {
                write!(
                    f,
                    "chain {chain} drops forwarded packets: allow the bridge there if containers cannot reach out"
                )
            }
            Self::NoForwarding(reason) => {
                write!(f, "no outbound network for containers: IPv4 forwarding is off and cannot be enabled ({reason})")
            }
            Self::Unwatched(error) => write!(f, "firewall rules are not watched: {error}"),
            Self::Setting(error) => f.write_str(error),
            Self::ForwardingEnabled => f.write_str("IPv4 forwarding was off; it is on now"),
        }
    }
}

/// Why the networks cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The host's namespace cannot be had.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// There is no socket.
    #[error(transparent)]
    Socket(#[from] netlink::OpenError),
    /// The bridge or its address was refused.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// An interface of the bridge's name is there and is not ours.
    #[error("interface {interface} exists and was not made by this engine: choose another --name or remove it")]
    ForeignInterface {
        /// Its name.
        interface: String,
    },
    /// The bridge that was just made is not there.
    #[error("bridge {interface} vanished while it was set up")]
    Vanished {
        /// Its name.
        interface: String,
    },
    /// The wanted subnet is in use on this host.
    #[error("subnet {subnet} overlaps with a network that this host is connected to")]
    SubnetTaken {
        /// The subnet.
        subnet: Subnet,
    },
    /// None of the usual subnets is free.
    #[error("no subnet is free for the default bridge: choose one with --bip")]
    NoSubnet,
    /// There is no thread for the supply.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// Why no namespace can be handed out.
#[derive(Debug, Error)]
pub enum TakeError {
    /// None was ready, and none could be made.
    #[error("cannot make a network namespace: {0}")]
    Supply(#[from] SupplyError),
    /// It could not be given the hardware address.
    #[error("cannot set hardware address {mac}: {source}")]
    Mac {
        /// The address.
        mac: Mac,
        /// What went wrong.
        source: MakeError,
    },
}

/// What a subnet overlaps with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubnetConflict {
    /// A network of this engine.
    Network {
        /// Its id.
        id: String,
        /// Its addresses.
        subnet: Subnet,
    },
    /// A network that the host is in, or has a route of its own to.
    Host(Subnet),
}

/// How a container is to sit in a network.
#[derive(Clone, Copy, Debug)]
pub struct AttachRequest<'a> {
    /// The network: [`DEFAULT_NETWORK`] or a user's by id.
    pub network: &'a str,
    /// What the interface is to be called in the container.
    pub interface: &'a str,
    /// A certain address.
    pub address: Option<Ipv4Addr>,
    /// A certain hardware address.
    pub mac: Option<Mac>,
    /// Whether packets for elsewhere leave by it.
    pub leads_out: LeadsOut,
}

/// Why a container cannot sit in a network.
#[derive(Debug, Error)]
pub enum AttachError {
    /// There is no such address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The bridge cannot be made.
    #[error(transparent)]
    Bridge(#[from] OpenError),
    /// It could not be plugged in.
    #[error(transparent)]
    Make(#[from] MakeError),
}

/// Why a network cannot be made.
#[derive(Debug, Error)]
pub enum CreateError {
    /// The bridge was refused.
    #[error(transparent)]
    Bridge(#[from] OpenError),
    /// The rules were.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

/// Why ports cannot be published.
#[derive(Debug, Error)]
pub enum PublishError {
    /// There is no such free port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The kernel refused the rules.
    #[error("cannot publish ports: {0}")]
    Firewall(#[from] FirewallError),
}

/// Why an interface's statistics cannot be read.
#[derive(Debug, Error)]
pub enum StatisticsError {
    /// The kernel refused.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It is gone, and the container with it.
    #[error("interface {interface} is gone")]
    Gone {
        /// The host's end.
        interface: String,
    },
}

/// Why something could not be taken away.
#[derive(Debug, Error)]
pub enum CloseError {
    /// The bridge.
    #[error(transparent)]
    Bridge(#[from] RequestError),
    /// The rules.
    #[error("cannot remove firewall rules: {0}")]
    Firewall(#[from] FirewallError),
    /// The host's forwarding.
    #[error("cannot restore IPv4 forwarding: {0}")]
    Forwarding(String),
}

/// Whether containers stay behind when the engine closes its networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// Some run on: bridge and firewall stay for them.
    Containers,
    /// None: everything goes.
    Nothing,
}

/// One engine's networks: its bridge, its firewall table, its supply of ready namespaces, its published ports.
#[derive(Debug)]
pub struct Networks {
    run: PathBuf,
    names: Names,
    bridge: Bridge,
    warnings: Vec<Warning>,
    supply: Supply,
    firewall: Arc<Firewall>,
    watch: Option<Watch>,
    ports: Mutex<HostPorts>,
    /// By id.
    users: Mutex<BTreeMap<String, Definition>>,
}

impl Networks {
    /// Makes, or takes over, what the engine needs. `running` is what containers that live on from before have: their addresses
    /// and ports stay theirs, every other port of the bridge is a dead engine's and is removed.
    /// `networks` are those that users made before; a bridge of theirs that is not there is made when a container needs it.
    pub fn open(options: &Options, networks: &[Definition], running: &[Place]) -> Result<Self, OpenError> {
        let endpoints: Vec<Endpoint> = running.iter().flat_map(|place| place.endpoints.iter().cloned()).collect();
        let published: Vec<Published> = running.iter().flat_map(|place| place.ports.iter().copied()).collect();
        let names = Names::of(&options.name);
        let host = namespace::current()?;
        let mut socket = Socket::open(Family::Route)?;
        let mut warnings = Vec::new();
        let before = interfaces(&mut socket)?;
        let ready = bridge::ensure(&mut socket, &names, options, &endpoints, &mut warnings)?;
        let kept_apart = forward(&options.run, before, &mut warnings);
        bridge::sweep_user(&mut socket, &names, networks, &endpoints)?;
        let segments =
            std::iter::once(segment_of(&ready.view)).chain(networks.iter().map(Definition::segment)).collect();
        let firewall = Firewall::new(Plan { names: names.clone(), segments, kept_apart, ports: BTreeMap::new() });
        let firewall = Arc::new(firewall.with_ports(&published));
        let watch = install_rules(&firewall, &mut warnings);
        let addresses = addresses_of(&ready.view, networks, &endpoints);
        let maker = Maker::new(host, socket, names.clone(), &ready, options.owner.clone());
        let supply =
            Supply::start(maker, Arc::clone(&firewall), addresses, options.ready).map_err(OpenError::Thread)?;
        let mut ports = HostPorts::new(ports::ephemeral_range());
        published.iter().for_each(|one| ports.reserve(one));
        let run = options.run.clone();
        let users = networks.iter().map(|definition| (definition.id.clone(), definition.clone())).collect();
        let (ports, users) = (Mutex::new(ports), Mutex::new(users));
        Ok(Self { run, names, bridge: ready.view, warnings, supply, firewall, watch, ports, users })
    }

    /// A subnet for a network whose user asks for none. Until it is added, another caller may be given the same.
    pub fn choose_subnet(&self) -> Result<Option<Subnet>, RequestError> {
        Ok(self.surroundings()?.free_user_pool(&self.subnets()))
    }

    /// What on this host a subnet overlaps with.
    pub fn conflict(&self, subnet: Subnet) -> Result<Option<SubnetConflict>, RequestError> {
        let ours = lock(&self.users).values().find(|other| other.subnet.overlaps(subnet)).cloned();
        if let Some(other) = ours {
            return Ok(Some(SubnetConflict::Network { id: other.id, subnet: other.subnet }));
        }
        if self.bridge.subnet.overlaps(subnet) {
            let id = DEFAULT_NETWORK.to_owned();
            return Ok(Some(SubnetConflict::Network { id, subnet: self.bridge.subnet }));
        }
        Ok(self.surroundings()?.conflict(subnet).map(SubnetConflict::Host))
    }

    fn surroundings(&self) -> Result<Surroundings, RequestError> {
        let servers = servers_of(&read_host_resolv_conf().unwrap_or_default());
        let mut socket = self.supply.maker().host_socket();
        Ok(Surroundings::of(&socket.addresses()?, &socket.routes()?, None, &servers))
    }

    fn subnets(&self) -> Vec<Subnet> {
        lock(&self.users).values().map(|definition| definition.subnet).chain([self.bridge.subnet]).collect()
    }

    /// Makes a user's network. What was begun is taken back on failure.
    pub fn add(&self, definition: &Definition) -> Result<(), CreateError> {
        self.ensure_bridge(definition)?;
        if let Err(error) = self.firewall.add(&definition.segment()) {
            self.remove_bridge(&definition.interface);
            let _ = self.firewall.take_away(&definition.interface);
            return Err(error.into());
        }
        self.supply.add_network(&definition.id, definition.addresses());
        lock(&self.users).insert(definition.id.clone(), definition.clone());
        Ok(())
    }

    /// Takes a user's network away unless a container sits in it; says whether that was so.
    pub fn remove(&self, id: &str) -> bool {
        if !self.supply.remove_network(id) {
            return false;
        }
        let removed = lock(&self.users).remove(id);
        if let Some(definition) = removed {
            self.remove_bridge(&definition.interface);
            // At worst some elements of sets stay that no packet meets.
            let _ = self.firewall.take_away(&definition.interface);
        }
        true
    }

    /// Plugs a namespace into a user's network, or into the default one.
    pub fn attach(&self, namespace: BorrowedFd<'_>, request: &AttachRequest<'_>) -> Result<Endpoint, AttachError> {
        let network = request.network;
        let definition = lock(&self.users).get(network).cloned();
        let plug = match &definition {
            Some(definition) => self.plug_of(definition, request)?,
            None if network == DEFAULT_NETWORK => self.default_plug(request),
            None => return Err(AddressError::NoNetwork.into()),
        };
        let address = self.supply.take_address(network, request.address)?;
        let plug = Plug { address, mac: request.mac.unwrap_or_else(|| Mac::of_address(address)), ..plug };
        self.supply.maker().plug(namespace, &plug).map_err(|error| {
            self.supply.return_address(network, address);
            error.into()
        })
    }

    fn plug_of<'a>(&self, definition: &Definition, request: &AttachRequest<'a>) -> Result<Plug<'a>, AttachError> {
        Ok(Plug {
            bridge: self.ensure_bridge(definition)?,
            mtu: definition.mtu.unwrap_or(self.bridge.mtu),
            prefix: definition.subnet.prefix(),
            gateway: (!definition.internal).then_some(definition.gateway),
            neighbours: if definition.talk { Neighbours::Reachable } else { Neighbours::KeptApart },
            ..self.default_plug(request)
        })
    }

    fn default_plug<'a>(&self, request: &AttachRequest<'a>) -> Plug<'a> {
        Plug {
            network: request.network,
            interface: request.interface,
            bridge: self.supply.maker().bridge(),
            mtu: self.bridge.mtu,
            address: Ipv4Addr::UNSPECIFIED,
            prefix: self.bridge.subnet.prefix(),
            gateway: Some(self.bridge.gateway),
            mac: Mac::of_address(Ipv4Addr::UNSPECIFIED),
            leads_out: request.leads_out,
            neighbours: Neighbours::Reachable,
        }
    }

    /// Has a container's packets for elsewhere leave by another endpoint than before.
    pub fn change_default_route(
        &self,
        namespace: BorrowedFd<'_>,
        before: Option<&Endpoint>,
        after: Option<&Endpoint>,
    ) -> Result<(), MakeError> {
        self.supply.maker().change_default_route(namespace, before, after)
    }

    fn ensure_bridge(&self, definition: &Definition) -> Result<u32, OpenError> {
        let mtu = definition.mtu.unwrap_or(self.bridge.mtu);
        let mut socket = self.supply.maker().host_socket();
        // What this host cannot do was told for the default bridge.
        bridge::ensure_user(&mut socket, &self.names, definition, mtu, &mut Vec::new())
    }

    fn remove_bridge(&self, interface: &str) {
        let mut socket = self.supply.maker().host_socket();
        // What stays is swept at the next start.
        let _ = bridge::remove(&mut socket, &self.names, interface);
    }

    /// Publishes ports for the container at `target`, all or none. From the answer on, what comes to them goes there.
    pub fn publish(&self, requests: &[PortRequest], target: &Endpoint) -> Result<Vec<Published>, PublishError> {
        let mut ports = lock(&self.ports);
        let published = ports.allocate(requests, target.address.into(), &ports::probe)?;
        if let Err(error) = self.firewall.publish(&published) {
            ports.release(&published);
            return Err(error.into());
        }
        drop(ports);
        self.supply.maker().let_turn_back(&target.host_interface);
        Ok(published)
    }

    /// Gives ports back. They are free from now on; the rules follow behind.
    pub fn unpublish(&self, published: &[Published]) {
        if published.is_empty() {
            return;
        }
        self.firewall.forget(published);
        lock(&self.ports).release(published);
        self.supply.sweep();
    }

    /// What does not work as it should on this host.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The default bridge.
    pub fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// A namespace to start a container in: a ready one at almost no cost, or a new one when none is left.
    pub fn take(&self, attachment: Attachment) -> Result<Sandbox, TakeError> {
        Ok(self.supply.take(attachment)?)
    }

    /// As [`Networks::take`] of the bridge, with this hardware address (`--mac-address`) instead of the one that follows from
    /// the IP address.
    pub fn take_with_mac(&self, mac: Mac) -> Result<Sandbox, TakeError> {
        let mut sandbox = self.supply.take(Attachment::Bridge)?;
        match self.supply.maker().set_mac(&mut sandbox, mac) {
            Ok(()) => Ok(sandbox),
            Err(source) => {
                sandbox.endpoint.into_iter().for_each(|endpoint| self.release(endpoint));
                Err(TakeError::Mac { mac, source })
            }
        }
    }

    /// Gives back what a container had, after its last process has ended. Returns at once; the work is done behind it.
    pub fn release(&self, endpoint: Endpoint) {
        self.supply.release(endpoint);
    }

    /// What the container's interface carried.
    pub fn statistics(&self, endpoint: &Endpoint) -> Result<InterfaceStatistics, StatisticsError> {
        let link = self.supply.maker().host_socket().link_by_name(&endpoint.host_interface)?;
        let statistics = link.and_then(|link| link.statistics);
        let gone = || StatisticsError::Gone { interface: endpoint.host_interface.clone() };
        Ok(InterfaceStatistics::seen_from_the_other_end(&statistics.ok_or_else(gone)?))
    }

    /// Waits until as many namespaces are ready as there should be. For measurements: nobody else needs to wait.
    pub fn settle(&self) {
        self.supply.settle();
    }

    /// Takes away what the engine made, as far as no container needs it any more; waits until that is done.
    pub fn close(&self, remaining: Remaining) -> Result<(), CloseError> {
        self.supply.stop();
        if let Some(watch) = &self.watch {
            watch.stop();
        }
        if remaining == Remaining::Containers {
            return Ok(());
        }
        let left = {
            let mut socket = self.supply.maker().host_socket();
            let users: Vec<String> = lock(&self.users).values().map(|user| user.interface.clone()).collect();
            for interface in users.iter().map(String::as_str).chain([self.names.bridge()]) {
                bridge::remove(&mut socket, &self.names, interface)?;
            }
            interfaces(&mut socket)?.present
        };
        self.firewall.remove()?;
        forwarding::restore(&self.run, &left).map_err(|error| CloseError::Forwarding(error.to_string()))
    }
}

/// The interfaces of the host: all, and those that lead out of it, which container engines' own do not.
fn interfaces(socket: &mut Socket) -> Result<Forwarding, RequestError> {
    let links: Vec<Link> = socket.links()?.into_iter().filter(|link| link.name != "lo").collect();
    let leads_out = |link: &&Link| !["bridge", "veth"].contains(&link.kind.as_str());
    Ok(Forwarding {
        kept_apart: links.iter().filter(leads_out).map(|link| link.name.clone()).collect(),
        present: links.into_iter().map(|link| link.name).collect(),
    })
}

/// Who has which address, by network.
fn addresses_of(bridge: &Bridge, networks: &[Definition], running: &[Endpoint]) -> HashMap<String, Addresses> {
    let default = (DEFAULT_NETWORK.to_owned(), Addresses::new(bridge.subnet, bridge.gateway));
    let users = networks.iter().map(|definition| (definition.id.clone(), definition.addresses()));
    let mut all: HashMap<String, Addresses> = std::iter::once(default).chain(users).collect();
    for endpoint in running {
        if let Some(addresses) = all.get_mut(&endpoint.network) {
            addresses.reserve(endpoint.address);
        }
    }
    all
}

fn segment_of(bridge: &Bridge) -> Segment {
    Segment {
        interface: bridge.interface.clone(),
        subnet: bridge.subnet,
        talk: true,
        internal: false,
        masquerade: true,
    }
}

/// Locks; a panic elsewhere leaves the register of ports whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Switches forwarding on and returns the interfaces to keep apart because of it.
fn forward(run: &Path, now: Forwarding, warnings: &mut Vec<Warning>) -> Vec<String> {
    match forwarding::enable(run, now) {
        Ok(Enabled::Before) => Vec::new(),
        Ok(Enabled::ByUs(forwarding)) => {
            warnings.push(Warning::ForwardingEnabled);
            forwarding.kept_apart
        }
        Err(error) => {
            warnings.push(Warning::NoForwarding(error.to_string()));
            Vec::new()
        }
    }
}

/// Installs the rules and has them watched, where there is something to watch.
fn install_rules(firewall: &Arc<Firewall>, warnings: &mut Vec<Warning>) -> Option<Watch> {
    match firewall.install() {
        Ok(unhelped) => {
            warnings.extend(unhelped.into_iter().map(Warning::ForeignDrop));
            Watch::start(Arc::clone(firewall))
                .map_err(|error| warnings.push(Warning::Unwatched(error.to_string())))
                .ok()
        }
        Err(error) => {
            warnings.push(Warning::NoFirewall(error.to_string()));
            None
        }
    }
}

/// The network namespace of a process, for `--network container:ID` and for containers that live on from before.
pub fn namespace_of(pid: u32) -> std::io::Result<OwnedFd> {
    Ok(std::fs::File::open(format!("/proc/{pid}/ns/net"))?.into())
}
