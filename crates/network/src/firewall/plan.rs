//! What the rules are made from, and what they are: values, without a kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nftables::{
    Base, Chain, ChainKind, Data, Family as Version, Field, Hook, Interface, Keyed, Match, Nat, Polarity, Policy,
    Protocol, Rule, Set, Side, State, Statement, Table, Verdict,
};

use crate::address::Subnet;
use crate::gate::Gate;
use crate::names::Names;
use crate::port_map::{PortMap, PortPlace as Place, PortTarget as Target};
use crate::ports::{Published, Transport};

/// `raw`, `dstnat`, `filter` and `srcnat` in nft's words.
const BEFORE_TRACKING: i32 = -300;
const DESTINATION_NAT: i32 = -100;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;
/// Behind whatever firewalls do, and before the kernel takes note of a connection.
const BEHIND_ALL: i32 = 1000;

/// What a network's packets are known by when they pass the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Joint {
    /// The bridge's interface.
    Bridge(String),
    /// The group of the host's ends.
    Group(u32),
}

/// One network of the engine, as far as packets are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The network's.
    pub(crate) id: String,
    pub(crate) joint: Joint,
    /// Its addresses.
    pub(crate) nets: Vec<Net>,
    /// Whether its containers may talk to each other through the host.
    pub(crate) talk: bool,
    /// Whether it is cut off from everything but the host.
    pub(crate) internal: bool,
    /// Interfaces of the host from which published ports are reached at containers' own addresses too.
    pub(crate) trusted: Vec<String>,
}

/// Addresses of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Net {
    pub(crate) first: IpAddr,
    pub(crate) prefix: u8,
    /// Whether nobody outside may use these addresses.
    pub(crate) guarded: bool,
    /// Whether everybody may use every port of them.
    pub(crate) open: bool,
    /// Whether its containers go out under the host's address.
    pub(crate) masquerade: bool,
    /// Whether the host has an address among these, and so a route to them.
    pub(crate) routed: bool,
}

/// What the rules are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) names: Names,
    pub(crate) segments: Vec<Segment>,
    /// Interfaces between which the host did not forward IPv4 before we switched forwarding on.
    pub(crate) kept_apart: Vec<String>,
    /// The same for IPv6.
    pub(crate) kept_apart6: Vec<String>,
    /// Where published ports lead.
    pub(crate) ports: PortMap<Target>,
    /// What calls to them pass, where they are to obey the host's own input rules.
    pub(crate) gate: Option<Gate>,
}

/// The sets that tell where a packet comes from or goes to, of one kind of [`Joint`].
struct OfJoint {
    incoming: Field,
    outgoing: Field,
    /// All networks.
    all: &'static str,
    /// Pairs between which containers may talk.
    talking: &'static str,
    /// Networks that are cut off.
    internal: &'static str,
}

const JOINTS: [OfJoint; 2] = [
    OfJoint {
        incoming: Field::IncomingInterface,
        outgoing: Field::OutgoingInterface,
        all: "bridges",
        talking: "talking",
        internal: "internal",
    },
    OfJoint {
        incoming: Field::IncomingGroup,
        outgoing: Field::OutgoingGroup,
        all: "groups",
        talking: "talking-groups",
        internal: "internal-groups",
    },
];

impl OfJoint {
    fn comes_from(&self, set: &str) -> Statement {
        in_set(self.incoming, Polarity::Is, set)
    }

    fn goes_to(&self, set: &str) -> Statement {
        in_set(self.outgoing, Polarity::Is, set)
    }

    /// The value that a segment has in the sets, if it is of this kind.
    fn value(&self, segment: &Segment) -> Option<Data> {
        match (&segment.joint, self.incoming) {
            (Joint::Bridge(name), Field::IncomingInterface) => Some(Data::Interface(name.clone())),
            (Joint::Group(number), Field::IncomingGroup) => Some(Data::Group(*number)),
            _ => None,
        }
    }

    fn sets(&self, segments: &[Segment]) -> Vec<Set> {
        vec![
            set(self.all, &[self.incoming], self.chosen(segments, |_| true, 1)),
            self.internal_set(segments),
            set(self.talking, &[self.incoming, self.outgoing], self.chosen(segments, |segment| segment.talk, 2)),
        ]
    }

    fn internal_set(&self, segments: &[Segment]) -> Set {
        set(self.internal, &[self.incoming], self.chosen(segments, |segment| segment.internal, 1))
    }

    fn chosen(&self, segments: &[Segment], test: fn(&Segment) -> bool, times: usize) -> Keyed {
        let values = segments.iter().filter(|segment| test(segment)).filter_map(|segment| self.value(segment));
        Keyed::Set(values.map(|value| vec![value; times]).collect())
    }
}

/// The names of what there is of each family.
struct OfFamily {
    version: Version,
    source: Field,
    destination: Field,
    /// All addresses of containers.
    subnets: &'static str,
    /// Those that nobody outside may use.
    guarded: &'static str,
    /// Those of which everybody may use every port.
    open: &'static str,
    /// Those that go out under the host's address.
    masqueraded: &'static str,
    /// From which interfaces guarded ones may be used all the same.
    trusted: &'static str,
    /// Behind which interfaces they are though the host has no route to them.
    routeless: &'static str,
    /// Published ports of containers' own addresses.
    reachable: &'static str,
    /// Published ports at one address of the host, and at all.
    ports: &'static str,
    ports_of_all: &'static str,
    loopback: (IpAddr, u8),
    /// The next hop of copies on their way into the gate; nobody has it.
    beyond: IpAddr,
}

const FAMILIES: [OfFamily; 2] = [
    OfFamily {
        version: Version::Ip,
        source: Field::Source,
        destination: Field::Destination,
        subnets: "subnets",
        guarded: "guarded",
        open: "open",
        masqueraded: "masqueraded",
        trusted: "trusted",
        routeless: "routeless",
        reachable: "reachable",
        ports: "ports",
        ports_of_all: "ports-of-all",
        loopback: (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
        beyond: IpAddr::V4(Ipv4Addr::LOCALHOST),
    },
    OfFamily {
        version: Version::Ip6,
        source: Field::Source6,
        destination: Field::Destination6,
        subnets: "subnets6",
        guarded: "guarded6",
        open: "open6",
        masqueraded: "masqueraded6",
        trusted: "trusted6",
        routeless: "routeless6",
        reachable: "reachable6",
        ports: "ports6",
        ports_of_all: "ports6-of-all",
        loopback: (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        beyond: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    },
];

impl Net {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                Subnet::containing(first, self.prefix).is_some_and(|net| net.contains(address))
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                Subnet::containing(first, self.prefix).is_some_and(|net| net.contains(address))
            }
            _ => false,
        }
    }
}

impl OfFamily {
    fn has(&self, address: IpAddr) -> bool {
        address.is_ipv4() == (self.version == Version::Ip)
    }

    fn key_of_one(&self) -> Vec<Field> {
        vec![self.destination, Field::Protocol, Field::DestinationPort]
    }

    fn is_loopback(&self, side: Side, polarity: Polarity) -> Statement {
        let (network, prefix) = self.loopback;
        Match::Address { side, polarity, network, prefix }.into()
    }

    /// Senders that no route leads to though nothing is wrong with them: who has no address yet, and who has a link's own.
    fn placeless(&self) -> Vec<(IpAddr, u8)> {
        match self.version {
            Version::Ip6 => {
                vec![(Ipv6Addr::UNSPECIFIED.into(), 128), (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10)]
            }
            Version::Ip | Version::Inet => vec![(Ipv4Addr::UNSPECIFIED.into(), 32)],
        }
    }

    /// The sets of subnets, from those of these bridges.
    fn subnet_sets(&self, segments: &[Segment]) -> Vec<Set> {
        let chosen = |test: fn(&Net) -> bool| {
            let nets = segments.iter().flat_map(|segment| &segment.nets);
            let nets = nets.filter(|net| self.has(net.first) && test(net));
            Keyed::Subnets(nets.map(|net| (net.first, net.prefix)).collect())
        };
        let trusted = segments.iter().flat_map(|segment| {
            let nets = segment.nets.iter().filter(|net| self.has(net.first));
            nets.flat_map(|net| segment.trusted.iter().map(|name| (name.clone(), net.first, net.prefix)))
        });
        let routeless = segments.iter().flat_map(|segment| {
            let nets = segment.nets.iter().filter(|net| self.has(net.first) && !net.routed);
            nets.filter_map(|net| match &segment.joint {
                Joint::Bridge(name) => Some((name.clone(), net.first, net.prefix)),
                Joint::Group(_) => None,
            })
        });
        vec![
            set(self.subnets, &[self.destination], chosen(|_| true)),
            set(self.guarded, &[self.destination], chosen(|net| net.guarded)),
            set(self.open, &[self.destination], chosen(|net| net.open)),
            set(self.masqueraded, &[self.source], chosen(|net| net.masquerade)),
            set(self.trusted, &[Field::IncomingInterface, self.destination], Keyed::Places(trusted.collect())),
            set(self.routeless, &[Field::IncomingInterface, self.source], Keyed::Places(routeless.collect())),
        ]
    }

    /// The set and the maps of published ports.
    fn port_sets(&self, ports: impl Iterator<Item = (Place, Target)>, trusting: &[Net]) -> Vec<Set> {
        let (mut own, mut one, mut all, mut relayed) = (Vec::new(), Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
        for ((address, transport, port), (target, target_port)) in ports.filter(|(place, _)| self.has(place.0)) {
            let at =
                |address, port| vec![Data::Address(address), Data::Protocol(protocol(transport)), Data::Port(port)];
            if is_relayed((address, target)) {
                let [one, all] = &mut relayed;
                if address.is_unspecified() {
                    all.push(at(address, port).split_off(1))
                } else {
                    one.push(at(address, port))
                }
                continue;
            }
            if address == target || trusting.iter().any(|net| net.contains(target)) {
                own.push(at(target, target_port));
            }
            if address.is_unspecified() {
                all.push((at(address, port).split_off(1), target, target_port));
            } else if address != target {
                one.push((at(address, port), target, target_port));
            }
        }
        // Two ports of the host may lead to one of the container.
        own.sort_by_key(|key| format!("{key:?}"));
        own.dedup();
        let mut sets = vec![
            set(self.reachable, &self.key_of_one(), Keyed::Set(own)),
            set(self.ports, &self.key_of_one(), Keyed::Targets(self.version, one)),
            set(self.ports_of_all, &key_of_all(), Keyed::Targets(self.version, all)),
        ];
        if self.version == Version::Ip6 {
            let [one, all] = relayed;
            sets.push(set(RELAYED, &self.key_of_one(), Keyed::Set(one)));
            sets.push(set(RELAYED_OF_ALL, &key_of_all(), Keyed::Set(all)));
        }
        sets
    }

    /// The places of published ports, for the host's input.
    fn admitted_sets(&self, places: impl Iterator<Item = Place>) -> Vec<Set> {
        let (mut one, mut all) = (Vec::new(), Vec::new());
        for (address, transport, port) in places.filter(|place| self.has(place.0)) {
            let at = [Data::Protocol(protocol(transport)), Data::Port(port)];
            if address.is_unspecified() {
                all.push(at.to_vec());
            } else {
                one.push([Data::Address(address)].into_iter().chain(at).collect());
            }
        }
        vec![set(ADMITTED, &self.key_of_one(), Keyed::Set(one)), set(ADMITTED_OF_ALL, &key_of_all(), Keyed::Set(all))]
    }

    /// The table that sends what the host's own rules have let in for published ports through the gate. Only a table of one family
    /// can make copies.
    fn admission(&self, plan: &Plan, gate: &Gate) -> Table {
        let through = |condition: Vec<Statement>| {
            let new = Match::State(vec![State::New]).into();
            let copy = Statement::Duplicate { to: self.beyond, link: gate.link, name: gate.entrance.clone() };
            let rule: Vec<Statement> = [new].into_iter().chain(condition).chain([copy, Verdict::Drop.into()]).collect();
            Rule::new(rule)
        };
        let own = vec!["lo".to_owned(), gate.exit.clone()];
        let mut rules =
            vec![Rule::new([Match::Interface(Interface::Incoming, Polarity::Is, own).into(), Verdict::Accept.into()])];
        // Who is cut off reaches no published port; here he finds that the host itself does not serve it.
        rules.extend(JOINTS.iter().map(|joint| Rule::new([joint.comes_from(joint.internal), Verdict::Accept.into()])));
        rules.push(through(vec![Match::InSet(self.key_of_one(), Polarity::Is, ADMITTED.to_owned()).into()]));
        rules.push(through(vec![
            Match::ForThisHost.into(),
            Match::InSet(key_of_all(), Polarity::Is, ADMITTED_OF_ALL.to_owned()).into(),
        ]));
        let internal = JOINTS.iter().map(|joint| joint.internal_set(&plan.segments));
        Table {
            family: self.version,
            name: plan.names.table().to_owned(),
            sets: internal
                .chain(self.admitted_sets(plan.ports.iter().filter(is_translated).map(|(place, _)| place)))
                .collect(),
            chains: vec![Chain { name: "admission".to_owned(), base: filter(Hook::Input, BEHIND_ALL), rules }],
        }
    }
}

/// Ports of which the host's own monitors take the calls.
const RELAYED: &str = "relayed";
const RELAYED_OF_ALL: &str = "relayed-of-all";
const ADMITTED: &str = "admitted";
const ADMITTED_OF_ALL: &str = "admitted-of-all";

impl Plan {
    /// The engine's tables. Their chains are always the same; what comes and goes are elements of their sets.
    pub(super) fn tables(&self) -> Vec<Table> {
        let admissions = self.gate.iter().flat_map(|gate| FAMILIES.iter().map(|family| family.admission(self, gate)));
        std::iter::once(self.main_table()).chain(admissions).collect()
    }

    /// The families of tables that an engine may have left.
    pub(super) const VERSIONS: [Version; 3] = [Version::Inet, Version::Ip, Version::Ip6];

    fn main_table(&self) -> Table {
        Table {
            family: Version::Inet,
            name: self.names.table().to_owned(),
            sets: self.sets(),
            chains: vec![
                self.direct_access(),
                Self::from_containers(),
                Self::misplaced(),
                Self::to_host(),
                Self::from_internal(),
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
        let trusting = self.trusting();
        let ports = FAMILIES.iter().flat_map(|family| family.port_sets(self.ports.iter(), &trusting));
        segment_sets(&self.segments).into_iter().chain(ports).collect()
    }

    /// The elements that ports have in sets, each set with its table's family.
    pub(super) fn port_elements(&self, ports: &[(Place, Target)]) -> Vec<(Version, Set)> {
        let trusting = self.trusting();
        let mut all = Vec::new();
        for family in &FAMILIES {
            all.extend(family.port_sets(ports.iter().copied(), &trusting).into_iter().map(|set| (Version::Inet, set)));
            if self.gate.is_some() {
                let admitted =
                    family.admitted_sets(ports.iter().copied().filter(is_translated).map(|(place, _)| place));
                all.extend(admitted.into_iter().map(|set| (family.version, set)));
            }
        }
        all
    }

    /// The elements that segments have in sets, each set with its table's family.
    pub(super) fn segment_elements(&self, segments: &[Segment]) -> Vec<(Version, Set)> {
        let mut all: Vec<_> = segment_sets(segments).into_iter().map(|set| (Version::Inet, set)).collect();
        if self.gate.is_some() {
            let internal = || JOINTS.iter().map(|joint| joint.internal_set(segments));
            all.extend(FAMILIES.iter().flat_map(|family| internal().map(|set| (family.version, set))));
        }
        all
    }

    /// The addresses of networks that trust an interface of the host.
    fn trusting(&self) -> Vec<Net> {
        let trusting = self.segments.iter().filter(|segment| !segment.trusted.is_empty());
        trusting.flat_map(|segment| segment.nets.iter().copied()).collect()
    }

    /// Nobody outside reaches a container by its own address: a neighbour could add a route to it, past what is published. Every packet
    /// passes here, so each asks as little as can be: where it came in first.
    fn direct_access(&self) -> Chain {
        let mut rules: Vec<Rule> =
            self.through_gate().into_iter().map(|gate| Rule::new([gate, Verdict::Accept.into()])).collect();
        let own = |joint: &OfJoint| {
            Rule::new([joint.comes_from(joint.all), Verdict::Goto("from-containers".to_owned()).into()])
        };
        rules.extend(JOINTS.iter().map(own));
        let host = Match::Interface(Interface::Incoming, Polarity::Is, vec!["lo".to_owned()]);
        rules.push(Rule::new([host.into(), Verdict::Accept.into()]));
        for family in &FAMILIES {
            let trusted = vec![Field::IncomingInterface, family.destination];
            rules.push(Rule::new([
                in_set(family.destination, Polarity::Is, family.guarded),
                Match::InSet(trusted, Polarity::IsNot, family.trusted.to_owned()).into(),
                Verdict::Drop.into(),
            ]));
        }
        Chain { name: "direct-access".to_owned(), base: filter(Hook::Prerouting, BEFORE_TRACKING), rules }
    }

    /// No container reaches the host's loopback, which its bridge has to let answers to: packets for it do not come from there. (For
    /// IPv6's no kernel takes any from outside.) And none speaks under an address that is not on its side of the host.
    fn from_containers() -> Chain {
        let loopback = FAMILIES[0].is_loopback(Side::Destination, Polarity::Is);
        let mut rules = vec![Rule::new([loopback, Verdict::Drop.into()])];
        for family in &FAMILIES {
            let placed = |(network, prefix)| {
                Match::Address { side: Side::Source, polarity: Polarity::IsNot, network, prefix }.into()
            };
            let nowhere = [Match::Misplaced.into(), Verdict::Goto("misplaced".to_owned()).into()];
            let spoofed: Vec<Statement> = family.placeless().into_iter().map(placed).chain(nowhere).collect();
            rules.push(Rule::new(spoofed));
        }
        Chain { name: "from-containers".to_owned(), base: None, rules }
    }

    /// Who has no way back from the host is heard where he belongs all the same: beside others on a bridge on which the host has no
    /// address. The host itself could not answer him, and does not listen.
    fn misplaced() -> Chain {
        let beside = |family: &OfFamily| {
            let routeless = vec![Field::IncomingInterface, family.source];
            let is_beside = Match::InSet(routeless, Polarity::Is, family.routeless.to_owned());
            Rule::new([is_beside.into(), Verdict::Return.into()])
        };
        let mut rules = vec![Rule::new([Match::ForThisHost.into(), Verdict::Drop.into()])];
        rules.extend(FAMILIES.iter().map(beside));
        rules.push(Rule::new([Verdict::Drop.into()]));
        Chain { name: "misplaced".to_owned(), base: None, rules }
    }

    /// Who is cut off reaches no published port: not by a monitor of the host's either, which would call for him.
    fn to_host() -> Chain {
        let cut_off = |joint: &OfJoint| {
            Rule::new([joint.comes_from(joint.internal), Verdict::Goto("from-internal".to_owned()).into()])
        };
        Chain {
            name: "to-host".to_owned(),
            base: filter(Hook::Input, FILTER),
            rules: JOINTS.iter().map(cut_off).collect(),
        }
    }

    fn from_internal() -> Chain {
        let [_, family] = &FAMILIES;
        let at_one = Match::InSet(family.key_of_one(), Polarity::Is, RELAYED.to_owned());
        let at_all = Match::InSet(key_of_all(), Polarity::Is, RELAYED_OF_ALL.to_owned());
        let rules = vec![
            Rule::new([at_one.into(), Verdict::Drop.into()]),
            Rule::new([Match::Version(family.version).into(), at_all.into(), Verdict::Drop.into()]),
        ];
        Chain { name: "from-internal".to_owned(), base: None, rules }
    }

    /// Whether a packet has been through the gate, and so through this chain before.
    fn through_gate(&self) -> Option<Statement> {
        let exit = vec![self.gate.as_ref()?.exit.clone()];
        Some(Match::Interface(Interface::Incoming, Polarity::Is, exit).into())
    }

    /// Connections to the host are looked up among the published ports: those that come in, and those of the host itself. Loopback
    /// is for the latter alone, whatever an interface is set to let in.
    fn translation(&self, name: &str, hook: Hook) -> Chain {
        let jump = || Verdict::Jump("published".to_owned()).into();
        let rules = match hook {
            Hook::Prerouting => {
                let outside = |family: &OfFamily| family.is_loopback(Side::Destination, Polarity::IsNot);
                let rule = |family| {
                    Rule::new(self.through_gate().into_iter().chain([outside(family), jump()]).collect::<Vec<_>>())
                };
                FAMILIES.iter().map(rule).collect()
            }
            // The kernel routes no answer to IPv6's loopback that comes by a bridge: its ports are the monitors' to relay.
            _ => vec![
                Rule::new([Match::Version(Version::Ip).into(), jump()]),
                Rule::new([FAMILIES[1].is_loopback(Side::Destination, Polarity::IsNot), jump()]),
            ],
        };
        let base = Base { kind: ChainKind::Nat, hook, priority: DESTINATION_NAT, policy: Policy::Accept };
        Chain { name: name.to_owned(), base: Some(base), rules }
    }

    fn published(&self) -> Chain {
        let one = FAMILIES.iter().map(|family| {
            let map = Nat::Map(family.version, family.key_of_one(), family.ports.to_owned());
            Rule::new([Statement::DestinationNat(map)])
        });
        let all = FAMILIES.iter().map(|family| {
            let map = Nat::Map(family.version, key_of_all(), family.ports_of_all.to_owned());
            Rule::new([
                Match::Version(family.version).into(),
                Match::ForThisHost.into(),
                Statement::DestinationNat(map),
            ])
        });
        Chain { name: "published".to_owned(), base: None, rules: one.chain(all).collect() }
    }

    /// What was let by once goes on, at the cost of one question.
    fn forward(&self) -> Chain {
        let inward =
            |joint: &OfJoint| Rule::new([joint.goes_to(joint.all), Verdict::Jump("to-containers".to_owned()).into()]);
        let cut_off = |joint: &OfJoint| Rule::new([joint.comes_from(joint.internal), Verdict::Drop.into()]);
        let answers = Match::State(vec![State::Established, State::Related]);
        let mut rules = vec![Rule::new([answers.into(), Verdict::Accept.into()])];
        rules.extend(JOINTS.iter().map(inward).chain(JOINTS.iter().map(cut_off)));
        for (family, kept_apart) in FAMILIES.iter().zip([&self.kept_apart, &self.kept_apart6]) {
            if !kept_apart.is_empty() {
                let among = |which| Match::Interface(which, Polarity::Is, kept_apart.clone()).into();
                rules.push(Rule::new([
                    Match::Version(family.version).into(),
                    among(Interface::Incoming),
                    among(Interface::Outgoing),
                    Verdict::Drop.into(),
                ]));
            }
        }
        Chain { name: "forward".to_owned(), base: filter(Hook::Forward, FILTER), rules }
    }

    /// Who may begin to speak to a container: others of its network, who called a published port, and whom its network is open for.
    fn to_containers(&self) -> Chain {
        let mut rules = Vec::new();
        for joint in &JOINTS {
            let same = Match::InSet(vec![joint.incoming, joint.outgoing], Polarity::Is, joint.talking.to_owned());
            rules.push(Rule::new([same.into(), Verdict::Accept.into()]));
        }
        for joint in &JOINTS {
            rules.push(Rule::new([joint.comes_from(joint.internal), Verdict::Drop.into()]));
            rules.push(Rule::new([joint.goes_to(joint.internal), Verdict::Drop.into()]));
        }
        rules.push(Rule::new([Match::Translated.into(), Verdict::Accept.into()]));
        for family in &FAMILIES {
            let reachable = Match::InSet(family.key_of_one(), Polarity::Is, family.reachable.to_owned());
            rules.push(Rule::new([reachable.into(), Verdict::Accept.into()]));
            rules.push(Rule::new([in_set(family.destination, Polarity::Is, family.open), Verdict::Accept.into()]));
        }
        rules.push(Rule::new([Verdict::Drop.into()]));
        Chain { name: "to-containers".to_owned(), base: None, rules }
    }

    /// Under whose address packets go on: the host's, where the answer would otherwise not come back through the host. A client
    /// outside keeps its own, so that the container sees who calls.
    fn outbound(&self) -> Chain {
        let mut rules = Vec::new();
        for family in &FAMILIES {
            for joint in &JOINTS {
                // Calls of IPv6's loopback are the monitors' to relay.
                if family.version == Version::Ip {
                    let from_loopback = family.is_loopback(Side::Source, Polarity::Is);
                    rules.push(Rule::new([from_loopback, joint.goes_to(joint.all), Statement::Masquerade]));
                }
                // A container that calls a published port of its own network would be answered past us. Its address tells it: the
                // incoming interface is not known here where bridged packets pass the rules (br_netfilter).
                rules.push(Rule::new([
                    Match::Translated.into(),
                    in_set(family.source, Polarity::Is, family.subnets),
                    joint.goes_to(joint.all),
                    Statement::Masquerade,
                ]));
            }
            let mut leaving = vec![in_set(family.source, Polarity::Is, family.masqueraded)];
            leaving.extend(JOINTS.iter().map(|joint| in_set(joint.outgoing, Polarity::IsNot, joint.all)));
            leaving.push(Statement::Masquerade);
            rules.push(Rule::new(leaving));
        }
        let base = Base { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: SOURCE_NAT, policy: Policy::Accept };
        Chain { name: "outbound".to_owned(), base: Some(base), rules }
    }

    /// The rules for a foreign chain that drops by default: our own chain decides, theirs lets it by.
    ///
    /// With the counter they are what iptables itself would make of `-i conex0 -j ACCEPT`, so it can still list its table.
    pub(super) fn foreign_rules(&self) -> impl Iterator<Item = Rule> {
        let ends = self.names.any_host_end();
        let mut interfaces: Vec<String> = Vec::new();
        for segment in &self.segments {
            let interface = match &segment.joint {
                Joint::Bridge(name) => name.clone(),
                Joint::Group(_) => ends.clone(),
            };
            if !interfaces.contains(&interface) {
                interfaces.push(interface);
            }
        }
        interfaces.into_iter().flat_map(|interface| {
            [Interface::Incoming, Interface::Outgoing].map(|which| {
                let ours = Match::Interface(which, Polarity::Is, vec![interface.clone()]);
                Rule::new([ours.into(), Statement::Counter, Verdict::Accept.into()]).with_comment(&self.mark())
            })
        })
    }

    /// The comment by which our rules in foreign chains are known.
    pub(super) fn mark(&self) -> String {
        format!("container engine {}", self.names.engine())
    }
}

/// The sets that say which networks there are.
fn segment_sets(segments: &[Segment]) -> Vec<Set> {
    let joints = JOINTS.iter().flat_map(|joint| joint.sets(segments));
    joints.chain(FAMILIES.iter().flat_map(|family| family.subnet_sets(segments))).collect()
}

fn set(name: &str, key: &[Field], elements: Keyed) -> Set {
    Set { name: name.to_owned(), key: key.to_vec(), elements }
}

fn key_of_all() -> Vec<Field> {
    vec![Field::Protocol, Field::DestinationPort]
}

fn protocol(transport: Transport) -> Protocol {
    match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
        Transport::Sctp => Protocol::Sctp,
    }
}

/// Where a published port stands; `None` for one that no packet from outside is for.
pub(super) fn placed(published: Published) -> Option<(Place, Target)> {
    let is_own = published.address == IpAddr::V6(Ipv6Addr::LOCALHOST);
    (!is_own).then_some((published.place(), (published.target, published.container_port)))
}

/// Whether a monitor takes what comes to an address, since the kernel cannot make the other family's of it.
fn is_relayed((address, target): (IpAddr, IpAddr)) -> bool {
    address.is_ipv4() != target.is_ipv4()
}

/// Whether a published port is the kernel's to translate.
pub(super) fn is_translated(&((address, ..), (target, _)): &(Place, Target)) -> bool {
    !is_relayed((address, target))
}

fn in_set(field: Field, polarity: Polarity, set: &str) -> Statement {
    Match::InSet(vec![field], polarity, set.to_owned()).into()
}

fn filter(hook: Hook, priority: i32) -> Option<Base> {
    Some(Base { kind: ChainKind::Filter, hook, priority, policy: Policy::Accept })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `CONEX_WRITE_RULES` names a folder to write what was found into.
    fn check(plan: &Plan, name: &str, expected: &str) {
        let text: String = plan.tables().iter().map(Table::to_string).collect();
        if let Some(folder) = std::env::var_os("CONEX_WRITE_RULES") {
            std::fs::write(std::path::Path::new(&folder).join(name), &text).unwrap();
        }
        assert_eq!(text, expected);
    }

    fn port_map<const COUNT: usize>(all: [(Place, Target); COUNT]) -> PortMap<Target> {
        let mut ports = PortMap::default();
        all.into_iter().for_each(|(place, target)| ports.insert(place, target));
        ports
    }

    #[test]
    fn the_rules_read_as_meant() {
        let net = |text: &str| {
            let (first, prefix) = text.split_once('/').unwrap();
            let (first, prefix) = (first.parse().unwrap(), prefix.parse().unwrap());
            Net { first, prefix, guarded: true, open: false, masquerade: true, routed: true }
        };
        let segment = |interface: &str, nets: Vec<Net>| Segment {
            id: interface.to_owned(),
            joint: Joint::Bridge(interface.to_owned()),
            nets,
            talk: true,
            internal: false,
            trusted: Vec::new(),
        };
        let cut_off = Net { masquerade: false, routed: false, ..net("10.9.0.0/24") };
        let routed = Net { guarded: false, masquerade: false, ..net("fd00:2::/64") };
        let to = |address: &str, port: u16| (address.parse::<IpAddr>().unwrap(), port);
        let plan = Plan {
            names: Names::of("conex"),
            segments: vec![
                segment("conex0", vec![net("172.17.0.0/16"), net("fd00:1::/64")]),
                Segment { internal: true, ..segment("br-1", vec![cut_off]) },
                Segment { trusted: vec!["eth0".to_owned()], ..segment("br-2", vec![routed]) },
                Segment { joint: Joint::Group(77), ..segment("routed", vec![net("10.8.0.0/16")]) },
            ],
            kept_apart: vec!["eth0".to_owned(), "eth1".to_owned()],
            kept_apart6: vec!["eth0".to_owned()],
            gate: None,
            ports: port_map([
                ((Ipv4Addr::UNSPECIFIED.into(), Transport::Tcp, 8080), to("172.17.0.2", 80)),
                ((Ipv4Addr::LOCALHOST.into(), Transport::Udp, 53), to("172.17.0.2", 53)),
                ((Ipv6Addr::UNSPECIFIED.into(), Transport::Tcp, 8080), to("fd00:1::2", 80)),
                (("2001:db8::1".parse().unwrap(), Transport::Tcp, 81), to("fd00:1::2", 80)),
                (("2001:db8::1".parse().unwrap(), Transport::Udp, 82), to("172.17.0.2", 80)),
                ((Ipv6Addr::UNSPECIFIED.into(), Transport::Tcp, 8060), to("172.17.0.2", 80)),
                (("fd00:2::2".parse().unwrap(), Transport::Tcp, 80), to("fd00:2::2", 80)),
            ]),
        };
        check(&plan, "expected.nft", include_str!("expected.nft"));
        let gate = Gate { entrance: "gate-in".to_owned(), link: 1, exit: "gate-out".to_owned() };
        let gated = Plan { gate: Some(gate), ..plan };
        check(&gated, "expected-gate.nft", include_str!("expected-gate.nft"));
    }
}
