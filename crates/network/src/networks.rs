//! The front door: one engine's networks.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use netlink::link::Link;
use netlink::namespace::{self, NamespaceError};
use netlink::route::Route;
use netlink::{Family as SocketFamily, RequestError, Socket};
use thiserror::Error;

use crate::address::{Ip, Mac, Subnet};
use crate::allocator::{AddressError, Pair, Space};
use crate::bridge;
use crate::definition::{Definition, Driver, GatewayMode, Pool};
use crate::endpoint::{DEFAULT_NETWORK, Endpoint, Family, InterfaceStatistics, Place, Sandbox};
use crate::files::{read_host_resolv_conf, servers_of};
use crate::firewall::{Firewall, FirewallError, Plan};
use crate::forwarding::{self, Enabled, Forwarding};
use crate::gate;
use crate::maker::{LeadsOut, MakeError, Maker, USUAL_INTERFACE};
use crate::names::Names;
use crate::owner::Owner;
use crate::pools::{AddressPool, Surroundings};
use crate::port_map::{PortMap, PublishedPorts};
use crate::ports::{self, HostPorts, PortError, PortRequest, Published, Transport};
use crate::routes::{Lookout, RouteConflict};
use crate::settings::SettingError;
use crate::supply::{self, Dead, Supply, SupplyError};
use crate::watch::{Watch, WatchError};

/// What an engine's networks are made from.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engine's `--name`: interfaces and firewall table are called after it.
    pub name: String,
    /// The engine's `--run` folder: what was changed on the host is recorded there.
    pub run: PathBuf,
    /// The default bridge's subnet; `None` takes the first of Docker's pools that the host has no route into.
    pub subnet: Option<Subnet>,
    /// The default bridge's IPv6 subnet; `None` where it has none.
    pub subnet6: Option<Subnet6>,
    /// What sets this engine apart from all others, from which follow its unique local addresses.
    pub identity: String,
    /// Where subnets come from that nobody chose; Docker's pools, and for IPv6 unique local addresses, when empty.
    pub pools: Vec<AddressPool>,
    /// The largest packet; `None` takes 1500, or what the default route's link has where that is less.
    pub mtu: Option<u32>,
    /// How many namespaces of each kind are kept ready; 0 makes each when it is asked for.
    pub ready: usize,
    /// Whose the namespaces are; `None` for the engine's own user.
    pub owner: Option<Owner>,
    /// Which rules published ports obey.
    pub publish_policy: PublishPolicy,
}

/// Who may call published ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishPolicy {
    /// Everybody who reaches the host, whatever the host's own rules say of what is for it: as with Docker.
    #[default]
    Open,
    /// Whom the host's own input rules let in.
    Host,
}

impl Options {
    /// The usual options of the engine called `name`.
    pub fn new(name: &str, run: PathBuf) -> Self {
        let identity = name.to_owned();
        let publish_policy = PublishPolicy::default();
        let name = name.to_owned();
        let pools = Vec::new();
        Self {
            name,
            run,
            subnet: None,
            subnet6: None,
            identity,
            pools,
            mtu: None,
            ready: 8,
            owner: None,
            publish_policy,
        }
    }
}

/// The default bridge's IPv6 subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subnet6 {
    /// One of the engine's unique local addresses.
    Automatic,
    /// This one.
    This(Subnet<Ipv6Addr>),
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
    /// The IPv6 network, where it has one; the bridge has its first address.
    pub subnet6: Option<Subnet<Ipv6Addr>>,
    /// The largest packet.
    pub mtu: u32,
}

impl Bridge {
    fn definition(&self) -> Definition {
        Definition {
            interface: self.interface.clone(),
            ipv4: vec![Pool::whole(self.subnet)],
            ipv6: self.subnet6.map(Pool::whole).into_iter().collect(),
            mtu: Some(self.mtu),
            talk: true,
            ..Definition::nothing(DEFAULT_NETWORK)
        }
    }
}

/// Something this host cannot do or that stands in the way; for the log and for `info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// nf_tables is missing: containers reach each other and the host, but nothing outside, and are reachable by routes.
    NoFirewall(String),
    /// A foreign chain drops forwarded packets by default and cannot be told about the bridge.
    ForeignDrop(String),
    /// Forwarding is off and cannot be switched on.
    NoForwarding(Family, String),
    /// The rules are there, but nobody notices when they are taken away.
    Unwatched(String),
    /// A setting of the bridge could not be made.
    Setting(String),
    /// Forwarding was off and has been switched on.
    ForwardingEnabled(Family),
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
            Self::NoForwarding(family, reason) => write!(
                f,
                "no outbound network for containers: {family} forwarding is off and cannot be enabled ({reason})"
            ),
            Self::Unwatched(error) => write!(f, "firewall rules are not watched: {error}"),
            Self::Setting(error) => f.write_str(error),
            Self::ForwardingEnabled(family) => write!(f, "{family} forwarding was off; it is on now"),
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
    /// Packets that come back through the gate would be dropped as if they had lost their way.
    #[error(
        "published ports can obey the host's input rules only where net.ipv4.conf.all.rp_filter is 0 or 2, not 1 (interfaces may have their own)"
    )]
    StrictReversePath,
    /// A setting of the gate cannot be made.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The bridge that was just made is not there.
    #[error("bridge {interface} vanished while it was set up")]
    Vanished {
        /// Its name.
        interface: String,
    },
    /// The interface whose cable was to be shared is not there.
    #[error("the parent interface {interface} was not found on this host; a virtual LAN is named as in eth0.10")]
    NoParent {
        /// Its name.
        interface: String,
    },
    /// Nobody else is on the loopback's cable.
    #[error("loopback interface is not a valid {0} parent link")]
    LoopbackParent(&'static str),
    /// The kernel lacks what the interface would be.
    #[error("this host's kernel cannot make the interface {0}: it has no virtual LANs (CONFIG_VLAN_8021Q)")]
    NoKind(String),
    /// The wanted subnet is in use on this host.
    #[error("subnet {subnet} overlaps with a network that this host is connected to")]
    SubnetTaken {
        /// The subnet.
        subnet: String,
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
    /// One for other users than usual could not be made.
    #[error("cannot make a network namespace: {0}")]
    Make(#[source] MakeError),
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
        subnet: String,
    },
    /// A network that the host is in, or has a route of its own to, as `ip route` writes it.
    Host(String),
}

/// How a container is to sit in a network.
#[derive(Clone, Copy, Debug)]
pub struct AttachRequest<'a> {
    /// The network: [`DEFAULT_NETWORK`] or a user's by id.
    pub network: &'a str,
    /// What the interface is to be called in the container.
    pub interface: &'a str,
    /// Certain addresses.
    pub addresses: Pair,
    /// A certain hardware address.
    pub mac: Option<Mac>,
    /// Whether packets for elsewhere leave by it.
    pub leads_out: LeadsOut,
    /// Further addresses that mean something on its cable alone.
    pub link_local: &'a [IpAddr],
    /// Settings of the interface below `/proc/sys/net`, such as `ipv4/conf/eth0/log_martians`, and their values.
    pub settings: &'a [(String, String)],
}

impl<'a> AttachRequest<'a> {
    /// With what a container has that asks for nothing.
    pub(crate) fn usual(network: &'a str) -> Self {
        Self {
            network,
            interface: USUAL_INTERFACE,
            addresses: Pair::default(),
            mac: None,
            leads_out: LeadsOut::YES,
            link_local: &[],
            settings: &[],
        }
    }
}

/// Where published ports of a container lead: its endpoints that packets for elsewhere leave by.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// For IPv4.
    pub ipv4: Option<&'a Endpoint>,
    /// For IPv6.
    pub ipv6: Option<&'a Endpoint>,
}

impl Targets<'_> {
    fn addresses(&self) -> Pair {
        Pair {
            ipv4: self.ipv4.and_then(|endpoint| endpoint.pair().ipv4),
            ipv6: self.ipv6.and_then(|endpoint| endpoint.pair().ipv6),
        }
    }
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
    #[error("cannot restore forwarding: {0}")]
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
    identity: String,
    pools: Vec<AddressPool>,
    names: Names,
    bridge: Bridge,
    warnings: Vec<Warning>,
    supply: Supply,
    firewall: Arc<Firewall>,
    watch: Option<Watch>,
    ports: Mutex<HostPorts>,
    policy: PublishPolicy,
    /// By id.
    users: Arc<Mutex<BTreeMap<String, Arc<Definition>>>>,
    /// Routes of the host that lead into networks, and who looks for them.
    conflicts: Arc<Mutex<Vec<RouteConflict>>>,
    lookout: OnceLock<Watch>,
}

impl Networks {
    /// Makes, or takes over, what the engine needs. `running` is what containers that live on from before have: their addresses
    /// and ports stay theirs, every other port of the bridge is a dead engine's and is removed.
    /// `networks` are those that users made before; a bridge of theirs that is not there is made when a container needs it.
    pub fn open(options: &Options, networks: &[Definition], running: &[Place]) -> Result<Self, OpenError> {
        let endpoints: Vec<Endpoint> = running.iter().flat_map(|place| place.endpoints.iter().cloned()).collect();
        let published = || running.iter().flat_map(|place| place.ports.iter());
        let names = Names::of(&options.name);
        let host = namespace::current()?;
        let mut socket = Socket::open(SocketFamily::Route)?;
        let mut warnings = Vec::new();
        let before = interfaces(&mut socket)?;
        let ready = bridge::ensure(&mut socket, &names, options, &endpoints, &mut warnings)?;
        let default = ready.view.definition();
        let all = || std::iter::once(&default).chain(networks);
        let kept_apart = forward(&options.run, Family::Ipv4, &before, &mut warnings);
        let kept_apart6 = if all().any(|network| !network.ipv6.is_empty()) {
            forward(&options.run, Family::Ipv6, &before, &mut warnings)
        } else {
            Vec::new()
        };
        let gate = match options.publish_policy {
            PublishPolicy::Open => None,
            PublishPolicy::Host => Some(gate::ensure(&mut socket, host.as_fd(), &names)?),
        };
        bridge::sweep_user(&mut socket, &names, networks, &endpoints, gate.as_ref())?;
        let segments = all().filter_map(Definition::segment).collect();
        let plan = Plan { names: names.clone(), segments, kept_apart, kept_apart6, ports: PortMap::default(), gate };
        let firewall = Arc::new(Firewall::new(plan).with_ports(published()));
        let watch = install_rules(&firewall, &mut warnings);
        let all: Vec<Arc<Definition>> = all().cloned().map(Arc::new).collect();
        let spaces = spaces_of(&all, &endpoints);
        let maker = Maker::new(host, socket, names.clone(), &ready, options.owner.clone());
        let supply = Supply::start(maker, Arc::clone(&firewall), all.iter().cloned().zip(spaces), options.ready)
            .map_err(OpenError::Thread)?;
        let mut ports = HostPorts::new(ports::ephemeral_range());
        // A container's own address is none of the host's.
        published().filter(|one| one.address != one.target).for_each(|one| ports.reserve(&one));
        let run = options.run.clone();
        // The first is the default bridge's.
        let users = all.into_iter().skip(1).map(|definition| (definition.id.clone(), definition)).collect();
        let (ports, users) = (Mutex::new(ports), Arc::new(Mutex::new(users)));
        let (identity, policy) = (options.identity.clone(), options.publish_policy);
        let pools = options.pools.clone();
        Ok(Self {
            run,
            identity,
            pools,
            names,
            bridge: ready.view,
            warnings,
            supply,
            firewall,
            watch,
            ports,
            policy,
            users,
            conflicts: Arc::default(),
            lookout: OnceLock::new(),
        })
    }

    /// Looks for routes of the host that lead into networks, now and whenever one comes or goes, and tells of each that is new. For
    /// threads in the host's namespace.
    pub fn watch_routes(&self, mut told: impl FnMut(&RouteConflict) + Send + 'static) -> Result<(), WatchError> {
        let mut lookout = Lookout::new(self.names.clone(), Socket::open(SocketFamily::Route)?);
        let default = Arc::new(self.bridge.definition());
        let (users, conflicts) = (Arc::clone(&self.users), Arc::clone(&self.conflicts));
        let watch = Watch::routes(move || {
            let all: Vec<Arc<Definition>> = lock(&users).values().chain([&default]).cloned().collect();
            let found = lookout.look(&all);
            let before = std::mem::replace(&mut *lock(&conflicts), found.clone());
            found.iter().filter(|conflict| !before.contains(conflict)).for_each(&mut told);
            // A route that goes with its link goes without a word.
            (!found.is_empty()).then_some(CONFLICTS_SEEN_AGAIN)
        })?;
        // Asked for a second time, the first goes on.
        let _ = self.lookout.set(watch);
        Ok(())
    }

    /// The routes of the host that lead into a network, as far as they are known by now.
    pub fn route_conflicts(&self, network: &str) -> Vec<RouteConflict> {
        lock(&self.conflicts).iter().filter(|conflict| conflict.network == network).cloned().collect()
    }

    /// The route of the host that takes packets for a container's address elsewhere, for sure or perhaps.
    pub(crate) fn misled(&self, address: IpAddr) -> Option<RouteConflict> {
        lock(&self.conflicts).iter().find(|conflict| conflict.misleads(address)).cloned()
    }

    /// A subnet for a network whose user asks for none. Until it is added, another caller may be given the same.
    pub fn choose_subnet(&self) -> Result<Option<Subnet>, RequestError> {
        let ours: Vec<Subnet> = self.subnets().into_iter().map(|(_, subnet)| subnet).collect();
        Ok(self.surroundings()?.free_user_pool(&ours, &self.pools))
    }

    /// The same for IPv6: one of the engine's unique local addresses.
    pub fn choose_subnet6(&self) -> Result<Option<Subnet<Ipv6Addr>>, RequestError> {
        let ours: Vec<Subnet<Ipv6Addr>> = self.subnets().into_iter().map(|(_, subnet)| subnet).collect();
        Ok(self.surroundings()?.free_local_pool(&ours, &self.identity, &self.pools))
    }

    /// What on this host a subnet overlaps with.
    pub fn conflict<A: Ip>(&self, subnet: Subnet<A>) -> Result<Option<SubnetConflict>, RequestError> {
        if let Some((id, other)) = self.subnets::<A>().into_iter().find(|(_, other)| other.overlaps(subnet)) {
            return Ok(Some(SubnetConflict::Network { id, subnet: other.to_string() }));
        }
        let Some(taken) = self.surroundings::<A>()?.conflict(subnet) else { return Ok(None) };
        let mut socket = self.supply.maker().host_socket();
        let leads_there =
            |route: &Route| A::of(route.destination) == Some(taken.network()) && route.prefix == taken.prefix();
        let route = socket.routes_of(A::VERSION)?.into_iter().find(leads_there);
        let link = route.and_then(|route| route.link).map(|index| socket.link_by_index(index)).transpose()?.flatten();
        let device = link.map(|link| format!(" dev {}", link.name)).unwrap_or_default();
        Ok(Some(SubnetConflict::Host(format!("{taken}{device}"))))
    }

    fn surroundings<A: Ip>(&self) -> Result<Surroundings<A>, RequestError> {
        let servers = servers_of(&read_host_resolv_conf().unwrap_or_default());
        let mut socket = self.supply.maker().host_socket();
        Ok(Surroundings::of(&socket.addresses_of(A::VERSION)?, &socket.routes_of(A::VERSION)?, None, &servers))
    }

    /// The subnets of a family, each with its network's id.
    fn subnets<A: Ip>(&self) -> Vec<(String, Subnet<A>)> {
        let of = |definition: &Definition| {
            let ipv4 = definition.ipv4.iter().map(|pool| pool.subnet.parts());
            let all = ipv4.chain(definition.ipv6.iter().map(|pool| pool.subnet.parts())).collect::<Vec<_>>();
            let of_family = |(first, prefix)| Subnet::containing(A::of(first)?, prefix);
            let id = definition.id.clone();
            all.into_iter().filter_map(of_family).map(move |subnet| (id.clone(), subnet)).collect::<Vec<_>>()
        };
        lock(&self.users).values().flat_map(|user| of(user)).chain(of(&self.bridge.definition())).collect()
    }

    /// Makes a user's network. What was begun is taken back on failure.
    pub fn add(&self, definition: &Definition) -> Result<(), CreateError> {
        self.supply.outlive_link(&definition.interface);
        self.supply.maker().ensure_link(definition)?;
        if !definition.ipv6.is_empty() {
            self.forward_ipv6()?;
        }
        if let Some(segment) = definition.segment()
            && let Err(error) = self.firewall.add(&segment)
        {
            self.retire(definition);
            return Err(error.into());
        }
        let definition = Arc::new(definition.clone());
        self.supply.add_network(Arc::clone(&definition));
        lock(&self.users).insert(definition.id.clone(), definition);
        Ok(())
    }

    /// Takes a user's network away unless a container sits in it; says whether that was so.
    pub fn remove(&self, id: &str) -> bool {
        if !self.supply.remove_network(id) {
            return false;
        }
        let removed = lock(&self.users).remove(id);
        if let Some(definition) = removed {
            self.retire(&definition);
        }
        true
    }

    /// Plugs a namespace into a user's network, or into the default one.
    pub fn attach(&self, namespace: BorrowedFd<'_>, request: &AttachRequest<'_>) -> Result<Endpoint, AttachError> {
        let network = request.network;
        let definition = match lock(&self.users).get(network).cloned() {
            Some(definition) => definition,
            None if network == DEFAULT_NETWORK => Arc::new(self.bridge.definition()),
            None => return Err(AddressError::NoNetwork.into()),
        };
        let taken = self.supply.take_addresses(network, request.addresses)?;
        let join = || self.supply.maker().join(namespace, &definition, taken, request);
        let joined = match join() {
            Err(AttachError::Make(MakeError::Full)) if self.supply.make_room(network) => join(),
            joined => joined,
        };
        joined.inspect_err(|_| self.supply.return_addresses(network, taken))
    }

    /// Has the host forward IPv6, since there is a network now that needs it.
    fn forward_ipv6(&self) -> Result<(), CreateError> {
        let now = interfaces(&mut self.supply.maker().host_socket()).map_err(OpenError::Request)?;
        let kept_apart = forward(&self.run, Family::Ipv6, &now, &mut Vec::new());
        Ok(self.firewall.keep_apart(Family::Ipv6, kept_apart)?)
    }

    /// Has a container's packets of a family for elsewhere leave by another endpoint than before.
    pub fn change_default_route(
        &self,
        namespace: BorrowedFd<'_>,
        family: Family,
        before: Option<&Endpoint>,
        after: Option<&Endpoint>,
    ) -> Result<(), MakeError> {
        self.supply.maker().change_default_route(namespace, family, before, after)
    }

    /// A number for the host's ends of a routed network that no other one has.
    pub fn free_group(&self) -> u32 {
        let taken: Vec<u32> = lock(&self.users).values().filter_map(|user| user.group()).collect();
        let start = crate::names::fnv(self.identity.as_bytes());
        let mut groups = (0..).map(|offset| (start.wrapping_add(offset) % ROUTED_GROUPS) | ROUTED_GROUPS);
        groups.find(|group| !taken.contains(group)).unwrap_or(ROUTED_GROUPS)
    }

    /// Another network whose containers share the cable of this interface.
    pub fn sharing(&self, interface: &str) -> Option<String> {
        let users = lock(&self.users);
        let shares = |user: &&Arc<Definition>| user.driver.share().is_some() && user.interface == interface;
        users.values().find(shares).map(|user| user.id.clone())
    }

    /// Takes an endpoint out of a namespace that goes on; its addresses are given back by [`Networks::release`].
    pub fn take_out(&self, namespace: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), MakeError> {
        self.supply.maker().take_out(namespace, endpoint)
    }

    /// Takes its addresses from the interface that a network hangs off, so that they are free at once; the interface, if it is ours, and
    /// the network's part in the rules are taken away behind the answer.
    fn retire(&self, definition: &Definition) {
        self.firewall.forget_segment(&definition.id);
        let retired = bridge::retire(&mut self.supply.maker().host_socket(), &self.names, definition);
        // What stays is swept at the next start.
        if let Ok(true) = retired {
            self.supply.bury_link(&definition.interface);
        }
        if !definition.driver.passes_the_host() {
            // Somebody else may want to have the cable, and there is one of it.
            self.supply.outlive_link(&definition.interface);
        }
    }

    /// Publishes ports for the container that is reached by `targets`, all or none. From the answer on, what comes to them goes
    /// there.
    pub fn publish(&self, requests: &[PortRequest], targets: Targets<'_>) -> Result<PublishedPorts, PublishError> {
        let (requests, routed) = self.split_routed(requests, targets);
        let mut ports = lock(&self.ports);
        let allocated = ports.allocate(&requests, targets.addresses(), &ports::probe)?;
        let published: PublishedPorts = allocated.into_iter().chain(routed).collect();
        if let Err(error) = self.firewall.publish(published.iter()) {
            ports.release(published.iter());
            return Err(error.into());
        }
        drop(ports);
        for target in [targets.ipv4, targets.ipv6].into_iter().flatten() {
            self.supply.maker().let_turn_back(&target.host_interface);
        }
        Ok(published)
    }

    /// Takes out of requests what networks without translation let through to the container itself: there is no port of the host.
    fn split_routed(&self, requests: &[PortRequest], targets: Targets<'_>) -> (Vec<PortRequest>, Vec<Published>) {
        let is_routed = |endpoint: Option<&Endpoint>, family| {
            let users = lock(&self.users);
            let definition = endpoint.and_then(|endpoint| users.get(&endpoint.network));
            definition.is_some_and(|definition| definition.border(family).mode == GatewayMode::Routed)
        };
        let pair = targets.addresses();
        let routed4 = pair.ipv4.map(IpAddr::from).filter(|_| is_routed(targets.ipv4, Family::Ipv4));
        let routed6 = pair.ipv6.map(IpAddr::from).filter(|_| is_routed(targets.ipv6, Family::Ipv6));
        let (mut left, mut through) = (Vec::new(), Vec::new());
        for request in requests {
            let own = |address: &IpAddr| if address.is_ipv4() { routed4 } else { routed6 };
            let (transport, container_port) = (request.transport, request.container_port);
            for target in request.addresses.iter().filter_map(own) {
                let one = Published { transport, address: target, port: container_port, target, container_port };
                if !through.contains(&one) {
                    through.push(one);
                }
            }
            let addresses: Vec<IpAddr> =
                request.addresses.iter().copied().filter(|address| own(address).is_none()).collect();
            if !addresses.is_empty() {
                left.push(PortRequest { addresses, ..request.clone() });
            }
        }
        (left, through)
    }

    /// Gives ports back. They are free from now on; the rules follow behind.
    pub fn unpublish(&self, published: &PublishedPorts) {
        if published.is_empty() {
            return;
        }
        self.firewall.forget(published.iter());
        lock(&self.ports).release(published.iter());
        self.supply.sweep();
    }

    /// Where these ports lead: `None` for what is not published by translation.
    pub fn target_of(&self, address: IpAddr, transport: Transport, port: u16) -> Option<(IpAddr, u16)> {
        self.firewall.target_of((address, transport, port))
    }

    /// Whose rules published ports obey.
    pub(crate) fn publish_policy(&self) -> PublishPolicy {
        self.policy
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Whether the engine's rules are all in the kernel.
    pub(crate) fn has_rules(&self) -> Result<bool, FirewallError> {
        self.firewall.is_complete()
    }

    pub(crate) fn host_socket(&self) -> MutexGuard<'_, Socket> {
        self.supply.maker().host_socket()
    }

    /// The bridge behind which an address is.
    pub(crate) fn interface_to(&self, address: IpAddr) -> Option<String> {
        let users = lock(&self.users);
        let all = users.values().cloned().chain([Arc::new(self.bridge.definition())]).collect::<Vec<_>>();
        let has = |definition: &&Arc<Definition>| match address {
            IpAddr::V4(address) => definition.ipv4.iter().any(|pool| pool.subnet.contains(address)),
            IpAddr::V6(address) => definition.ipv6.iter().any(|pool| pool.subnet.contains(address)),
        };
        let found = all.iter().find(has)?;
        (found.driver == Driver::Bridge).then(|| found.interface.clone())
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

    /// A namespace on a user's network, with the usual interface and default routes, if one is ready.
    pub fn take_if_ready(&self, network: &str) -> Option<Sandbox> {
        self.supply.take_if_ready(network)
    }

    /// Has a namespace made ready on a user's network, for a container that will start there.
    pub fn expect(&self, network: &str) {
        self.supply.expect(network);
    }

    /// Gives a namespace that was taken another hardware address (`--mac-address`) than the one that follows from the IP address.
    /// On failure everything is given back.
    pub fn with_mac(&self, mut sandbox: Sandbox, mac: Mac) -> Result<Sandbox, TakeError> {
        match self.supply.maker().set_mac(&mut sandbox, mac) {
            Ok(()) => Ok(sandbox),
            Err(source) => {
                sandbox.endpoint.into_iter().for_each(|endpoint| self.release(endpoint));
                Err(TakeError::Mac { mac, source })
            }
        }
    }

    /// A new namespace that belongs to a user namespace of its own, with loopback alone.
    pub fn take_for(&self, owner: &Owner) -> Result<Sandbox, TakeError> {
        self.supply.maker().isolated_for(owner).map_err(TakeError::Make)
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
        self.watch.iter().chain(self.lookout.get()).for_each(Watch::stop);
        if remaining == Remaining::Containers {
            return Ok(());
        }
        let left = {
            let mut socket = self.supply.maker().host_socket();
            let ours = socket.links()?.into_iter().filter(|link| link.alias == self.names.alias());
            let ours: Vec<Dead> = ours.map(|link| Dead::Link(link.name)).collect();
            drop(socket);
            for some in ours.chunks(supply::UNPLUGGED_MAX) {
                self.supply.maker().unplug(some);
            }
            let mut socket = self.supply.maker().host_socket();
            interfaces(&mut socket)?.present
        };
        self.firewall.remove()?;
        for family in [Family::Ipv4, Family::Ipv6] {
            let restored = forwarding::restore(&self.run, family, &left);
            restored.map_err(|error| CloseError::Forwarding(error.to_string()))?;
        }
        Ok(())
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

/// Who has which address of each network.
fn spaces_of(networks: &[Arc<Definition>], running: &[Endpoint]) -> Vec<Space> {
    let mut spaces: Vec<Space> = networks.iter().map(|definition| definition.space()).collect();
    let by_id: HashMap<&str, usize> =
        networks.iter().enumerate().map(|(index, definition)| (definition.id.as_str(), index)).collect();
    for endpoint in running {
        if let Some(index) = by_id.get(endpoint.network.as_str()) {
            spaces[*index].reserve(endpoint.pair());
        }
    }
    spaces
}

/// Groups of routed networks have this bit and none above it, by which they are set apart from those of others.
const ROUTED_GROUPS: u32 = 0x2000_0000;

/// How soon is looked again whether a conflict is still there.
const CONFLICTS_SEEN_AGAIN: Duration = Duration::from_secs(2);

/// Locks; a panic elsewhere leaves the register of ports whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Switches forwarding on and returns the interfaces to keep apart because of it.
fn forward(run: &Path, family: Family, now: &Forwarding, warnings: &mut Vec<Warning>) -> Vec<String> {
    match forwarding::enable(run, family, now.clone()) {
        Ok(Enabled::Before) => Vec::new(),
        Ok(Enabled::ByUs(forwarding)) => {
            warnings.push(Warning::ForwardingEnabled(family));
            forwarding.kept_apart
        }
        Err(error) => {
            warnings.push(Warning::NoForwarding(family, error.to_string()));
            Vec::new()
        }
    }
}

/// Installs the rules and has them watched, where there is something to watch.
fn install_rules(firewall: &Arc<Firewall>, warnings: &mut Vec<Warning>) -> Option<Watch> {
    match firewall.install() {
        Ok(unhelped) => {
            warnings.extend(unhelped.into_iter().map(Warning::ForeignDrop));
            Watch::keep_up(Arc::clone(firewall))
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
