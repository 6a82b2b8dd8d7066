//! What a ruleset is made of. Names and words are nft's.

use std::net::IpAddr;

/// The packets that a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4: where iptables has its rules.
    Ip,
    /// IPv6: where ip6tables has its rules.
    Ip6,
}

/// A table and all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// Its sets and maps.
    pub sets: Vec<Set>,
    /// Its chains; one that is jumped to may stand behind the one that jumps.
    pub chains: Vec<Chain>,
}

/// A chain of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where packets enter it; `None` when only other chains jump to it.
    pub base: Option<Base>,
    /// Its rules, first to last.
    pub rules: Vec<Rule>,
}

/// Where a chain is hooked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// What it may do.
    pub kind: ChainKind,
    /// The point on a packet's way.
    pub hook: Hook,
    /// The order among chains at that point; lower is earlier.
    pub priority: i32,
    /// What happens to packets that no rule decides on.
    pub policy: Policy,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Let through or drop.
    Filter,
    /// Translate addresses; sees the first packet of a connection only.
    Nat,
}

/// A point on a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// As it comes in, before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// As it leaves, after routing.
    Postrouting,
}

/// What happens to undecided packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// They pass.
    Accept,
    /// They do not.
    Drop,
}

/// A rule: conditions and what to do, left to right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Conditions and actions.
    pub statements: Vec<Statement>,
    /// A note that is kept with the rule.
    pub comment: Option<String>,
}

impl Rule {
    /// A rule of these statements.
    pub fn new(statements: impl Into<Vec<Statement>>) -> Self {
        Self { statements: statements.into(), comment: None }
    }

    /// The same rule with a note.
    pub fn with_comment(mut self, comment: &str) -> Self {
        self.comment = Some(comment.to_owned());
        self
    }
}

/// One part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A condition.
    Match(Match),
    /// Counts packets and bytes.
    Counter,
    /// Decides.
    Verdict(Verdict),
    /// Gives outgoing connections the address of the link that they leave by.
    Masquerade,
    /// Sends a connection to another address.
    DestinationNat(Nat),
    /// `dup to fe80::1 device "a"`: sends a copy out of a link, as if the next hop were this address. In tables of its family alone.
    Duplicate {
        /// The next hop.
        to: IpAddr,
        /// The link's index.
        link: u32,
        /// The link's name, for people.
        name: String,
    },
}

impl From<Match> for Statement {
    fn from(condition: Match) -> Self {
        Self::Match(condition)
    }
}

impl From<Verdict> for Statement {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

/// Whether a condition is meant as it stands or turned round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// As it stands.
    Is,
    /// Turned round.
    IsNot,
}

/// Which of a packet's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The one that it came in by.
    Incoming,
    /// The one that it leaves by.
    Outgoing,
}

/// Which of a packet's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sender's.
    Source,
    /// The receiver's.
    Destination,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// `iifname "a"`, `iifname "a*"`, `oifname != { "a", "b" }`.
    Interface(Interface, Polarity, Vec<String>),
    /// `ip saddr 172.17.0.0/16`, `ip6 daddr ::1`.
    Address {
        /// Which address.
        side: Side,
        /// Is it or is it not.
        polarity: Polarity,
        /// The first address of the subnet.
        network: IpAddr,
        /// Its prefix length.
        prefix: u8,
    },
    /// `meta nfproto ipv6`.
    Version(Family),
    /// `meta l4proto tcp`.
    Protocol(Protocol),
    /// `tcp dport 80`.
    DestinationPort(Protocol, u16),
    /// `ct state established,related`.
    State(Vec<State>),
    /// `ct status dnat`: the connection was sent here by a translation.
    Translated,
    /// `fib daddr type local`: the packet is for an address of this host.
    ForThisHost,
    /// `fib saddr . iif oif missing`: an answer to the sender would not leave by the interface that the packet came in by.
    Misplaced,
    /// `ip daddr . th dport @name`: the fields' values are an element of the named set.
    InSet(Vec<Field>, Polarity, String),
}

/// A state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Makes no sense.
    Invalid,
    /// Both sides have spoken.
    Established,
    /// Belongs to another connection.
    Related,
    /// The first packet.
    New,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A field of a packet that sets are looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `ip saddr`.
    Source,
    /// `ip daddr`.
    Destination,
    /// `ip6 saddr`.
    Source6,
    /// `ip6 daddr`.
    Destination6,
    /// `meta l4proto`.
    Protocol,
    /// `th dport`.
    DestinationPort,
    /// `iifname`.
    IncomingInterface,
    /// `oifname`.
    OutgoingInterface,
    /// `iifgroup`.
    IncomingGroup,
    /// `oifgroup`.
    OutgoingGroup,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Passes this chain; others at the same hook may still drop it.
    Accept,
    /// Is thrown away.
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// On in the named chain, and back after its end.
    Jump(String),
    /// On in the named chain.
    Goto(String),
}

/// Where a connection is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nat {
    /// `dnat ip to 172.17.0.2:80`; without a port the connection keeps its own.
    To(IpAddr, Option<u16>),
    /// `dnat ip6 to th dport map @name`: address of this family and port found in the named map.
    Map(Family, Vec<Field>, String),
}

/// A named set, or a map when it has values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// What its elements are looked up by.
    pub key: Vec<Field>,
    /// What it holds.
    pub elements: Keyed,
}

/// The elements of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keyed {
    /// A set.
    Set(Vec<Element>),
    /// A set of whole subnets, each by its first address and prefix length. They must not overlap.
    Subnets(Vec<(IpAddr, u8)>),
    /// A set of interface and subnet together; of one interface they must not overlap.
    Places(Vec<(String, IpAddr, u8)>),
    /// A map to addresses of one family and ports, for [`Nat::Map`].
    Targets(Family, Vec<(Element, IpAddr, u16)>),
}

/// One value for each field of the key.
pub type Element = Vec<Data>;

/// A value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Of an address field.
    Address(IpAddr),
    /// Of a protocol field.
    Protocol(Protocol),
    /// Of a port field.
    Port(u16),
    /// Of an interface field.
    Interface(String),
    /// Of a group field.
    Group(u32),
}
