//! The engine's rules, and its place among the rules of others.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink::{OpenError, RequestError};
use nftables::{
    Base, Chain, ChainKind, Data, Element, Family, Field, Hook, Interface, Kernel, Keyed, Match, Nat, Polarity, Policy,
    Protocol, Rule, Set, Side, State, Statement, Table, Transaction, TransactionError, Verdict,
};
use thiserror::Error;

use crate::address::Subnet;
use crate::names::Names;
use crate::ports::{Published, Transport};

/// `raw`, `dstnat`, `filter` and `srcnat` in nft's words.
const BEFORE_TRACKING: i32 = -300;
const DESTINATION_NAT: i32 = -100;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;

/// Why the rules are not as they should be.
#[derive(Debug, Error)]
pub enum FirewallError {
    /// There is no nf_tables here.
    #[error("{0}")]
    Missing(#[source] RequestError),
    /// There is no socket.
    #[error(transparent)]
    Socket(#[from] OpenError),
    /// The rules of others cannot be listed.
    #[error(transparent)]
    List(#[from] RequestError),
    /// The rules were refused.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// The engine has no rules on this host, and what needs them cannot be done.
    #[error("ports cannot be published: the engine's nftables table could not be installed")]
    NotInstalled,
}

/// One bridge of the engine, as far as packets are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The bridge's interface.
    pub(crate) interface: String,
    /// Its addresses.
    pub(crate) subnet: Subnet,
    /// Whether its containers may talk to each other through the host.
    pub(crate) talk: bool,
    /// Whether it is cut off from everything but the host.
    pub(crate) internal: bool,
    /// Whether its containers go out under the host's address.
    pub(crate) masquerade: bool,
}

/// Where a published port is looked up: `None` stands for every address of the host.
type Place = (Option<Ipv4Addr>, Transport, u16);

/// What the rules are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) names: Names,
    pub(crate) segments: Vec<Segment>,
    /// Interfaces between which the host did not forward before we switched forwarding on.
    pub(crate) kept_apart: Vec<String>,
    /// Where published ports lead.
    pub(crate) ports: BTreeMap<Place, (Ipv4Addr, u16)>,
}

const BRIDGES: &str = "bridges";
const TALKING: &str = "talking";
const INTERNAL: &str = "internal";
const SUBNETS: &str = "subnets";
const MASQUERADED: &str = "masqueraded";
const PORTS: &str = "ports";
const PORTS_OF_ALL: &str = "ports-of-all";

impl Plan {
    /// The engine's table. Its chains are always the same; what comes and goes are elements of its sets.
    pub(crate) fn table(&self) -> Table {
        Table {
            family: Family::Inet,
            name: self.names.table().to_owned(),
            sets: self.sets(),
            chains: vec![
                self.direct_access(),
                self.translation("incoming", Hook::Prerouting),
                self.translation("local", Hook::Output),
                self.published(),
                self.forward(),
                self.to_containers(),
                self.outbound(),
            ],
        }
    }

    fn sets(&self) -> Vec<Set> {
        let mut sets = segment_sets(&self.segments);
        let (one, all) = targets(self.ports.iter().map(|(place, target)| (*place, *target)));
        sets.push(Set { name: PORTS.to_owned(), key: key_of_one(), elements: Keyed::Targets(one) });
        sets.push(Set { name: PORTS_OF_ALL.to_owned(), key: key_of_all(), elements: Keyed::Targets(all) });
        sets
    }

    /// Nobody outside reaches a container by its own address: a neighbour could add a route to it, past what is published. And no
    /// container reaches the host's loopback, which its bridge has to let answers to: packets for it do not come from there.
    fn direct_access(&self) -> Chain {
        let rules = vec![
            Rule::new([
                in_set(Field::Destination, Polarity::Is, SUBNETS),
                Match::Interface(Interface::Incoming, Polarity::IsNot, vec!["lo".to_owned()]).into(),
                in_set(Field::IncomingInterface, Polarity::IsNot, BRIDGES),
                Verdict::Drop.into(),
            ]),
            Rule::new([
                in_set(Field::IncomingInterface, Polarity::Is, BRIDGES),
                loopback(Side::Destination, Polarity::Is),
                Verdict::Drop.into(),
            ]),
        ];
        Chain { name: "direct-access".to_owned(), base: filter(Hook::Prerouting, BEFORE_TRACKING), rules }
    }

    /// Connections to the host are looked up among the published ports: those that come in, and those of the host itself. Loopback
    /// is for the latter alone, whatever an interface is set to let in.
    fn translation(&self, name: &str, hook: Hook) -> Chain {
        let mut statements = Vec::new();
        if hook == Hook::Prerouting {
            statements.push(loopback(Side::Destination, Polarity::IsNot));
        }
        statements.push(Verdict::Jump("published".to_owned()).into());
        let base = Base { kind: ChainKind::Nat, hook, priority: DESTINATION_NAT, policy: Policy::Accept };
        Chain { name: name.to_owned(), base: Some(base), rules: vec![Rule::new(statements)] }
    }

    fn published(&self) -> Chain {
        let rules = vec![
            Rule::new([Statement::DestinationNat(Nat::Map(key_of_one(), PORTS.to_owned()))]),
            Rule::new([
                Match::Version(Family::Ip).into(),
                Match::ForThisHost.into(),
                Statement::DestinationNat(Nat::Map(key_of_all(), PORTS_OF_ALL.to_owned())),
            ]),
        ];
        Chain { name: "published".to_owned(), base: None, rules }
    }

    fn forward(&self) -> Chain {
        let mut rules = vec![
            Rule::new([
                in_set(Field::OutgoingInterface, Polarity::Is, BRIDGES),
                Verdict::Jump("to-containers".to_owned()).into(),
            ]),
            Rule::new([in_set(Field::IncomingInterface, Polarity::Is, INTERNAL), Verdict::Drop.into()]),
            // Without an IPv6 network of its own a container has no business sending IPv6 through the host.
            Rule::new([
                in_set(Field::IncomingInterface, Polarity::Is, BRIDGES),
                Match::Version(Family::Ip6).into(),
                Verdict::Drop.into(),
            ]),
        ];
        if !self.kept_apart.is_empty() {
            let among = |which| Match::Interface(which, Polarity::Is, self.kept_apart.clone()).into();
            rules.push(Rule::new([among(Interface::Incoming), among(Interface::Outgoing), Verdict::Drop.into()]));
        }
        Chain { name: "forward".to_owned(), base: filter(Hook::Forward, FILTER), rules }
    }

    /// What may go to a container: answers, other containers of its network, and what came for a published port.
    fn to_containers(&self) -> Chain {
        let answers = Match::State(vec![State::Established, State::Related]);
        let same =
            Match::InSet(vec![Field::IncomingInterface, Field::OutgoingInterface], Polarity::Is, TALKING.to_owned());
        let rules = vec![
            Rule::new([answers.into(), Verdict::Accept.into()]),
            Rule::new([same.into(), Verdict::Accept.into()]),
            Rule::new([in_set(Field::IncomingInterface, Polarity::Is, INTERNAL), Verdict::Drop.into()]),
            Rule::new([in_set(Field::OutgoingInterface, Polarity::Is, INTERNAL), Verdict::Drop.into()]),
            Rule::new([Match::Translated.into(), Match::Version(Family::Ip).into(), Verdict::Accept.into()]),
            Rule::new([Verdict::Drop.into()]),
        ];
        Chain { name: "to-containers".to_owned(), base: None, rules }
    }

    /// Under whose address packets go on: the host's, where the answer would otherwise not come back through the host. A client
    /// outside keeps its own, so that the container sees who calls.
    fn outbound(&self) -> Chain {
        let rules = vec![
            Rule::new([
                loopback(Side::Source, Polarity::Is),
                in_set(Field::OutgoingInterface, Polarity::Is, BRIDGES),
                Statement::Masquerade,
            ]),
            // A container that calls a published port of its own network would be answered past us. Its address tells it: the
            // incoming interface is not known here where bridged packets pass the rules (br_netfilter).
            Rule::new([
                Match::Translated.into(),
                in_set(Field::Source, Polarity::Is, SUBNETS),
                in_set(Field::OutgoingInterface, Polarity::Is, BRIDGES),
                Statement::Masquerade,
            ]),
            Rule::new([
                in_set(Field::Source, Polarity::Is, MASQUERADED),
                in_set(Field::OutgoingInterface, Polarity::IsNot, BRIDGES),
                Statement::Masquerade,
            ]),
        ];
        let base = Base { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: SOURCE_NAT, policy: Policy::Accept };
        Chain { name: "outbound".to_owned(), base: Some(base), rules }
    }

    /// The rules for a foreign chain that drops by default: our own chain decides, theirs lets it by.
    ///
    /// With the counter they are what iptables itself would make of `-i conex0 -j ACCEPT`, so it can still list its table.
    fn foreign_rules(&self) -> impl Iterator<Item = Rule> {
        self.segments.iter().flat_map(|segment| {
            [Interface::Incoming, Interface::Outgoing].map(|which| {
                let bridge = Match::Interface(which, Polarity::Is, vec![segment.interface.clone()]);
                Rule::new([bridge.into(), Statement::Counter, Verdict::Accept.into()]).with_comment(&self.mark())
            })
        })
    }

    /// The comment by which our rules in foreign chains are known.
    fn mark(&self) -> String {
        format!("container engine {}", self.names.engine())
    }
}

/// The sets that say which bridges there are.
fn segment_sets(segments: &[Segment]) -> Vec<Set> {
    let interface = |segment: &Segment| Data::Interface(segment.interface.clone());
    let names = |chosen: fn(&Segment) -> bool| {
        Keyed::Set(segments.iter().filter(|segment| chosen(segment)).map(|segment| vec![interface(segment)]).collect())
    };
    let pairs = segments.iter().filter(|segment| segment.talk);
    let pairs = pairs.map(|segment| vec![interface(segment), interface(segment)]).collect();
    let subnets = |chosen: fn(&Segment) -> bool| {
        let subnets = segments.iter().filter(|segment| chosen(segment)).map(|segment| segment.subnet);
        Keyed::Subnets(subnets.map(|subnet| (subnet.network(), subnet.prefix())).collect())
    };
    let set = |name: &str, key: &[Field], elements| Set { name: name.to_owned(), key: key.to_vec(), elements };
    vec![
        set(BRIDGES, &[Field::IncomingInterface], names(|_| true)),
        set(INTERNAL, &[Field::IncomingInterface], names(|segment| segment.internal)),
        set(TALKING, &[Field::IncomingInterface, Field::OutgoingInterface], Keyed::Set(pairs)),
        set(SUBNETS, &[Field::Destination], subnets(|_| true)),
        set(MASQUERADED, &[Field::Source], subnets(|segment| segment.masquerade && !segment.internal)),
    ]
}

fn key_of_one() -> Vec<Field> {
    vec![Field::Destination, Field::Protocol, Field::DestinationPort]
}

fn key_of_all() -> Vec<Field> {
    vec![Field::Protocol, Field::DestinationPort]
}

type Targets = Vec<(Element, Ipv4Addr, u16)>;

/// Elements of the two maps: of ports at one address, and at every address.
fn targets(ports: impl Iterator<Item = (Place, (Ipv4Addr, u16))>) -> (Targets, Targets) {
    let (mut one, mut all) = (Vec::new(), Vec::new());
    for ((address, transport, port), (target, target_port)) in ports {
        let rest = [Data::Protocol(protocol(transport)), Data::Port(port)];
        match address {
            Some(address) => {
                let key = [Data::Address(address)].into_iter().chain(rest).collect();
                one.push((key, target, target_port));
            }
            None => all.push((rest.to_vec(), target, target_port)),
        }
    }
    (one, all)
}

fn protocol(transport: Transport) -> Protocol {
    match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
        Transport::Sctp => Protocol::Sctp,
    }
}

/// Where in the maps a published port stands; `None` for what the kernel cannot translate.
fn placed(published: &Published) -> Option<(Place, (Ipv4Addr, u16))> {
    let (IpAddr::V4(address), IpAddr::V4(target)) = (published.address, published.target) else { return None };
    let address = (!address.is_unspecified()).then_some(address);
    Some(((address, published.transport, published.port), (target, published.container_port)))
}

fn in_set(field: Field, polarity: Polarity, set: &str) -> Statement {
    Match::InSet(vec![field], polarity, set.to_owned()).into()
}

fn loopback(side: Side, polarity: Polarity) -> Statement {
    Match::Address { side, polarity, network: Ipv4Addr::new(127, 0, 0, 0), prefix: 8 }.into()
}

/// The rules in the kernel, and how they change.
///
/// Whole at the start and when somebody has taken them away; between, by elements of sets, so that a port more costs the same
/// whether there are ten or fifty thousand. Every change is one transaction: no packet sees half of it.
#[derive(Debug)]
pub(crate) struct Firewall {
    state: Mutex<FirewallState>,
}

#[derive(Debug)]
struct FirewallState {
    plan: Plan,
    /// Ports that nobody has any more and that are still in the kernel.
    stale: Vec<(Place, (Ipv4Addr, u16))>,
    kernel: InKernel,
}

/// Whether the rules are in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InKernel {
    Yes,
    No,
}

impl Firewall {
    /// The rules of a plan, not in the kernel yet.
    pub(crate) fn new(plan: Plan) -> Self {
        Self { state: Mutex::new(FirewallState { plan, stale: Vec::new(), kernel: InKernel::No }) }
    }

    /// The same with these ports from before.
    pub(crate) fn with_ports(self, published: &[Published]) -> Self {
        self.lock().plan.ports.extend(published.iter().filter_map(placed));
        self
    }

    /// Puts everything into the kernel. Returns the foreign chains that no rule of ours can help.
    pub(crate) fn install(&self) -> Result<Vec<String>, FirewallError> {
        let mut state = self.lock();
        let unhelped = install(&state.plan)?;
        state.kernel = InKernel::Yes;
        state.stale.clear();
        Ok(unhelped)
    }

    /// Whether everything that should be in the kernel is (still) there.
    pub(crate) fn is_complete(&self) -> Result<bool, FirewallError> {
        let state = self.lock();
        Ok(state.kernel == InKernel::No || is_installed(&state.plan)?)
    }

    /// Adds the rules of one more bridge.
    pub(crate) fn add(&self, segment: &Segment) -> Result<(), FirewallError> {
        let mut state = self.lock();
        state.plan.segments.push(segment.clone());
        state.change_segment(segment, Transaction::add_elements)
    }

    /// Takes those of a bridge away.
    pub(crate) fn take_away(&self, interface: &str) -> Result<(), FirewallError> {
        let mut state = self.lock();
        let Some(index) = state.plan.segments.iter().position(|segment| segment.interface == interface) else {
            return Ok(());
        };
        let segment = state.plan.segments.remove(index);
        state.change_segment(&segment, Transaction::remove_elements)
    }

    /// Sends what comes to these ports where they lead.
    pub(crate) fn publish(&self, published: &[Published]) -> Result<(), FirewallError> {
        let mut state = self.lock();
        let new: Vec<_> = published.iter().filter_map(placed).collect();
        if new.is_empty() {
            return Ok(());
        }
        if state.kernel == InKernel::No {
            return Err(FirewallError::NotInstalled);
        }
        state.plan.ports.extend(new.iter().copied());
        let changed = state.exchange_ports(&new);
        if changed.is_err() {
            state.plan.ports.retain(|place, _| !new.iter().any(|(other, _)| other == place));
        }
        changed
    }

    /// Forgets these ports; they leave the kernel with the next change, or with [`Firewall::sweep`].
    pub(crate) fn forget(&self, published: &[Published]) {
        let mut state = self.lock();
        for (place, target) in published.iter().filter_map(placed) {
            if state.plan.ports.remove(&place).is_some() {
                state.stale.push((place, target));
            }
        }
    }

    /// Takes forgotten ports out of the kernel.
    pub(crate) fn sweep(&self) -> Result<(), FirewallError> {
        self.lock().exchange_ports(&[])
    }

    /// Takes all rules away.
    pub(crate) fn remove(&self) -> Result<(), FirewallError> {
        let mut state = self.lock();
        state.kernel = InKernel::No;
        remove(&state.plan)
    }

    fn lock(&self) -> MutexGuard<'_, FirewallState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FirewallState {
    /// Takes the stale ports out and puts new ones in, in one transaction.
    fn exchange_ports(&mut self, new: &[(Place, (Ipv4Addr, u16))]) -> Result<(), FirewallError> {
        let stale = std::mem::take(&mut self.stale);
        if self.kernel == InKernel::No || (new.is_empty() && stale.is_empty()) {
            return Ok(());
        }
        let table = self.plan.names.table().to_owned();
        let mut transaction = Transaction::new();
        let (one, all) = targets(stale.into_iter());
        transaction.remove_elements(Family::Inet, &table, PORTS, &Keyed::Targets(one));
        transaction.remove_elements(Family::Inet, &table, PORTS_OF_ALL, &Keyed::Targets(all));
        let (one, all) = targets(new.iter().copied());
        transaction.add_elements(Family::Inet, &table, PORTS, &Keyed::Targets(one));
        transaction.add_elements(Family::Inet, &table, PORTS_OF_ALL, &Keyed::Targets(all));
        self.commit(transaction)
    }

    fn change_segment(
        &mut self,
        segment: &Segment,
        change: for<'a> fn(&'a mut Transaction, Family, &str, &str, &Keyed) -> &'a mut Transaction,
    ) -> Result<(), FirewallError> {
        if self.kernel == InKernel::No {
            return Ok(());
        }
        let table = self.plan.names.table().to_owned();
        let mut transaction = Transaction::new();
        for set in segment_sets(std::slice::from_ref(segment)) {
            change(&mut transaction, Family::Inet, &table, &set.name, &set.elements);
        }
        // A chain that drops by default has rules of ours by name of bridge: then everything is put in place anew.
        let others = Foreign::find(&mut Kernel::open()?, &self.plan)?;
        if others.entrance.is_some() { install(&self.plan).map(drop) } else { self.commit(transaction) }
    }

    /// Where the table is not as we left it, it is made anew.
    fn commit(&mut self, transaction: Transaction) -> Result<(), FirewallError> {
        match transaction.commit() {
            Ok(()) => Ok(()),
            Err(_) => install(&self.plan).map(drop),
        }
    }
}

fn filter(hook: Hook, priority: i32) -> Option<Base> {
    Some(Base { kind: ChainKind::Filter, hook, priority, policy: Policy::Accept })
}

/// Installs the rules, in one transaction with those for foreign chains. Returns the foreign chains that drop forwarded packets and
/// that no rule of ours can help.
fn install(plan: &Plan) -> Result<Vec<String>, FirewallError> {
    let mut kernel = Kernel::open()?;
    kernel.check().map_err(FirewallError::Missing)?;
    let foreign = Foreign::find(&mut kernel, plan)?;
    let mut transaction = Transaction::new();
    transaction.replace(&plan.table());
    foreign.remove_marked(&mut transaction);
    if let Some(chain) = &foreign.entrance {
        for rule in plan.foreign_rules() {
            transaction.insert_rule(Family::Ip, IPTABLES_TABLE, chain, &rule);
        }
    }
    transaction.commit()?;
    Ok(foreign.unhelped)
}

/// Whether our table and our rules in foreign chains are (still) there; someone may have flushed them.
fn is_installed(plan: &Plan) -> Result<bool, FirewallError> {
    let mut kernel = Kernel::open()?;
    if !kernel.tables()?.contains(&(Family::Inet, plan.names.table().to_owned())) {
        return Ok(false);
    }
    for chain in plan.table().chains {
        // The rules of a chain that is not there are an empty list.
        if kernel.rules(Family::Inet, plan.names.table(), &chain.name)?.len() != chain.rules.len() {
            return Ok(false);
        }
    }
    let foreign = Foreign::find(&mut kernel, plan)?;
    let wanted = plan.foreign_rules().count();
    Ok(foreign.entrance.is_none_or(|chain| foreign.marked.iter().filter(|(name, _)| *name == chain).count() == wanted))
}

/// Takes all rules away.
fn remove(plan: &Plan) -> Result<(), FirewallError> {
    let mut kernel = Kernel::open()?;
    if kernel.check().is_err() {
        return Ok(());
    }
    let foreign = Foreign::find(&mut kernel, plan)?;
    let mut transaction = Transaction::new();
    transaction.delete(Family::Inet, plan.names.table());
    foreign.remove_marked(&mut transaction);
    Ok(transaction.commit()?)
}

/// iptables' table of filters, when iptables is the one that speaks to nf_tables.
const IPTABLES_TABLE: &str = "filter";
/// Docker's chain for rules that are not Docker's, which it keeps over its restarts.
const DOCKER_USER: &str = "DOCKER-USER";
const IPTABLES_FORWARD: &str = "FORWARD";

/// What of others' rules concerns us. An accept in one chain does not help against a drop in another at the same hook, so we
/// must be let through wherever packets are dropped by default.
#[derive(Debug, Default)]
struct Foreign {
    /// The chain of iptables' filter table that our rules go into, if that table forwards at all.
    entrance: Option<String>,
    /// Our rules in that table: chain and handle.
    marked: Vec<(String, u64)>,
    /// Other chains that drop forwarded packets by default.
    unhelped: Vec<String>,
}

impl Foreign {
    fn find(kernel: &mut Kernel, plan: &Plan) -> Result<Self, FirewallError> {
        let mut found = Self::default();
        let mark = plan.mark();
        for chain in kernel.chains()? {
            let drops_forwarded = chain.base == Some((Hook::Forward, Policy::Drop));
            if chain.family == Family::Ip && chain.table == IPTABLES_TABLE {
                if chain.name == DOCKER_USER || (chain.name == IPTABLES_FORWARD && found.entrance.is_none()) {
                    found.entrance = Some(chain.name.clone());
                }
                if [DOCKER_USER, IPTABLES_FORWARD].contains(&chain.name.as_str()) {
                    let rules = kernel.rules(Family::Ip, IPTABLES_TABLE, &chain.name)?;
                    let ours = rules.iter().filter(|rule| rule.comment.as_deref() == Some(mark.as_str()));
                    found.marked.extend(ours.map(|rule| (chain.name.clone(), rule.handle)));
                }
            } else if drops_forwarded && chain.table != plan.names.table() && chain.family != Family::Ip6 {
                found.unhelped.push(format!("{} {} {}", chain.family, chain.table, chain.name));
            }
        }
        Ok(found)
    }

    fn remove_marked(&self, transaction: &mut Transaction) {
        for (chain, handle) in &self.marked {
            transaction.delete_rule(Family::Ip, IPTABLES_TABLE, chain, *handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_read_as_meant() {
        let segment = |interface: &str, subnet: &str| Segment {
            interface: interface.to_owned(),
            subnet: subnet.parse().unwrap(),
            talk: true,
            internal: false,
            masquerade: true,
        };
        let plan = Plan {
            names: Names::of("conex"),
            segments: vec![
                segment("conex0", "172.17.0.0/16"),
                Segment { internal: true, ..segment("br-1", "10.9.0.0/24") },
            ],
            kept_apart: vec!["eth0".to_owned(), "eth1".to_owned()],
            ports: BTreeMap::from([
                ((None, Transport::Tcp, 8080), (Ipv4Addr::new(172, 17, 0, 2), 80)),
                ((Some(Ipv4Addr::LOCALHOST), Transport::Udp, 53), (Ipv4Addr::new(172, 17, 0, 2), 53)),
            ]),
        };
        let expected = "\
table inet conex {
	set bridges {
		type ifname
		elements = { \"conex0\",
			     \"br-1\" }
	}

	set internal {
		type ifname
		elements = { \"br-1\" }
	}

	set talking {
		type ifname . ifname
		elements = { \"conex0\" . \"conex0\",
			     \"br-1\" . \"br-1\" }
	}

	set subnets {
		type ipv4_addr
		flags interval
		elements = { 172.17.0.0/16,
			     10.9.0.0/24 }
	}

	set masqueraded {
		type ipv4_addr
		flags interval
		elements = { 172.17.0.0/16 }
	}

	map ports {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		elements = { 127.0.0.1 . udp . 53 : 172.17.0.2 . 53 }
	}

	map ports-of-all {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { tcp . 8080 : 172.17.0.2 . 80 }
	}

	chain direct-access {
		type filter hook prerouting priority raw; policy accept;
		ip daddr @subnets iifname != \"lo\" iifname != @bridges drop
		iifname @bridges ip daddr 127.0.0.0/8 drop
	}

	chain incoming {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr != 127.0.0.0/8 jump published
	}

	chain local {
		type nat hook output priority -100; policy accept;
		jump published
	}

	chain published {
		dnat ip to ip daddr . meta l4proto . th dport map @ports
		meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @ports-of-all
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		oifname @bridges jump to-containers
		iifname @internal drop
		iifname @bridges meta nfproto ipv6 drop
		iifname { \"eth0\", \"eth1\" } oifname { \"eth0\", \"eth1\" } drop
	}

	chain to-containers {
		ct state established,related accept
		iifname . oifname @talking accept
		iifname @internal drop
		oifname @internal drop
		ct status dnat meta nfproto ipv4 accept
		drop
	}

	chain outbound {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 127.0.0.0/8 oifname @bridges masquerade
		ct status dnat ip saddr @subnets oifname @bridges masquerade
		ip saddr @masqueraded oifname != @bridges masquerade
	}
}
";
        assert_eq!(plan.table().to_string(), expected);
    }
}
