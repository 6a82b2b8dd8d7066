//! A ruleset as `nft list` prints it.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;

use crate::ruleset::{
    Base, Chain, ChainKind, Data, Family, Field, Hook, Interface, Keyed, Match, Nat, Polarity, Policy, Protocol, Rule,
    Set, Side, State, Statement, Table, Verdict,
};

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        })
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.name)?;
        let blocks = self.sets.iter().map(Set::to_string).chain(self.chains.iter().map(Chain::to_string));
        f.write_str(&blocks.collect::<Vec<_>>().join("\n"))?;
        writeln!(f, "}}")
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let key = joined(&self.key, " . ", |field| type_of(*field).to_owned());
        let element = |data: &Vec<Data>| joined(data, " . ", Data::to_string);
        let (kind, value, elements) = match &self.elements {
            Keyed::Set(elements) => ("set", "", elements.iter().map(element).collect::<Vec<_>>()),
            Keyed::Subnets(subnets) => {
                let subnet = |(first, prefix): &(_, u8)| format!("{first}/{prefix}");
                ("set", "", subnets.iter().map(subnet).collect())
            }
            Keyed::Places(places) => {
                let place = |(name, first, prefix): &(_, _, _)| format!("\"{name}\" . {first}/{prefix}");
                ("set", "", places.iter().map(place).collect())
            }
            Keyed::Targets(family, targets) => {
                let target =
                    |(key, address, port): &(Vec<Data>, _, _)| format!("{} : {address} . {port}", element(key));
                let value = match family {
                    Family::Ip6 => " : ipv6_addr . inet_service",
                    Family::Ip | Family::Inet => " : ipv4_addr . inet_service",
                };
                ("map", value, targets.iter().map(target).collect())
            }
        };
        writeln!(f, "\t{kind} {} {{", self.name)?;
        writeln!(f, "\t\ttype {key}{value}")?;
        if matches!(self.elements, Keyed::Subnets(_) | Keyed::Places(_)) {
            writeln!(f, "\t\tflags interval")?;
        }
        if !elements.is_empty() {
            writeln!(f, "\t\telements = {{ {} }}", elements.join(",\n\t\t\t     "))?;
        }
        writeln!(f, "\t}}")
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(base) = &self.base {
            writeln!(f, "\t\t{base}")?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        let policy = match self.policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        let priority = priority_name(self.hook, self.priority);
        write!(f, "type {kind} hook {} priority {priority}; policy {policy};", self.hook)
    }
}

/// nft's names for the usual priorities, and its sums for what is near them.
fn priority_name(hook: Hook, priority: i32) -> String {
    let named = [(-300, "raw"), (-150, "mangle"), (0, "filter"), (50, "security")];
    let of_hook = match hook {
        Hook::Prerouting => Some((-100, "dstnat")),
        Hook::Postrouting => Some((100, "srcnat")),
        _ => None,
    };
    for (base, name) in named.into_iter().chain(of_hook) {
        match priority - base {
            0 => return name.to_owned(),
            above @ 1..=10 => return format!("{name} + {above}"),
            below @ -10..=-1 => return format!("{name} - {}", -below),
            _ => {}
        }
    }
    priority.to_string()
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.statements, " ", Statement::to_string))?;
        match &self.comment {
            Some(comment) => write!(f, " comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Match(condition) => condition.fmt(f),
            Self::Counter => f.write_str("counter packets 0 bytes 0"),
            Self::Verdict(verdict) => verdict.fmt(f),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Duplicate { to, name, .. } => write!(f, "dup to {to} device \"{name}\""),
            Self::DestinationNat(Nat::To(address, None)) => write!(f, "dnat {} to {address}", Family::of(*address)),
            Self::DestinationNat(Nat::To(address, Some(port))) => {
                write!(f, "dnat {} to {}", Family::of(*address), SocketAddr::new(*address, *port))
            }
            Self::DestinationNat(Nat::Map(family, fields, map)) => {
                write!(f, "dnat {family} to {} map @{map}", joined(fields, " . ", Field::to_string))
            }
        }
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(which, polarity, names) => {
                let field = match which {
                    Interface::Incoming => "iifname",
                    Interface::Outgoing => "oifname",
                };
                write!(f, "{field} {}{}", sign(*polarity), one_or_set(names))
            }
            Self::Address { side, polarity, network, prefix } => {
                let field = match side {
                    Side::Source => "saddr",
                    Side::Destination => "daddr",
                };
                let whole = if network.is_ipv4() { 32 } else { 128 };
                let length = if *prefix == whole { String::new() } else { format!("/{prefix}") };
                write!(f, "{} {field} {}{network}{length}", Family::of(*network), sign(*polarity))
            }
            Self::Version(Family::Ip) => f.write_str("meta nfproto ipv4"),
            Self::Version(Family::Ip6) => f.write_str("meta nfproto ipv6"),
            Self::Version(Family::Inet) => Ok(()),
            Self::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::DestinationPort(protocol, port) => write!(f, "{protocol} dport {port}"),
            Self::State(states) => write!(f, "ct state {}", joined(states, ",", State::to_string)),
            Self::Translated => f.write_str("ct status dnat"),
            Self::ForThisHost => f.write_str("fib daddr type local"),
            Self::Misplaced => f.write_str("fib saddr . iif oif missing"),
            Self::InSet(fields, polarity, set) => {
                write!(f, "{} {}@{set}", joined(fields, " . ", Field::to_string), sign(*polarity))
            }
        }
    }
}

fn sign(polarity: Polarity) -> &'static str {
    match polarity {
        Polarity::Is => "",
        Polarity::IsNot => "!= ",
    }
}

fn one_or_set(names: &[String]) -> String {
    let quoted = joined(names, ", ", |name| format!("\"{name}\""));
    if names.len() == 1 { quoted } else { format!("{{ {quoted} }}") }
}

fn joined<T>(items: &[T], separator: &str, text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(separator)
}

impl Display for State {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid",
            Self::Established => "established",
            Self::Related => "related",
            Self::New => "new",
        })
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "ip saddr",
            Self::Destination => "ip daddr",
            Self::Source6 => "ip6 saddr",
            Self::Destination6 => "ip6 daddr",
            Self::Protocol => "meta l4proto",
            Self::DestinationPort => "th dport",
            Self::IncomingInterface => "iifname",
            Self::OutgoingInterface => "oifname",
            Self::IncomingGroup => "iifgroup",
            Self::OutgoingGroup => "oifgroup",
        })
    }
}

fn type_of(field: Field) -> &'static str {
    match field {
        Field::Source | Field::Destination => "ipv4_addr",
        Field::Source6 | Field::Destination6 => "ipv6_addr",
        Field::IncomingGroup | Field::OutgoingGroup => "devgroup",
        Field::Protocol => "inet_proto",
        Field::DestinationPort => "inet_service",
        Field::IncomingInterface | Field::OutgoingInterface => "ifname",
    }
}

impl Display for Data {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Protocol(protocol) => protocol.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::Interface(name) => write!(f, "\"{name}\""),
            Self::Group(number) => number.fmt(f),
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}
