//! The engine's rules, and its place among the rules of others.

use netlink::{OpenError, RequestError};
use nftables::{
    Base, Chain, ChainKind, Family, Hook, Interface, Kernel, Match, Polarity, Policy, Rule, Side, State, Statement,
    Table, Transaction, TransactionError, Verdict,
};
use thiserror::Error;

use crate::address::Subnet;
use crate::names::Names;

/// `raw`, `filter` and `srcnat` in nft's words.
const BEFORE_TRACKING: i32 = -300;
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
}

/// What the rules are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) names: Names,
    pub(crate) subnet: Subnet,
    /// Interfaces between which the host did not forward before we switched forwarding on.
    pub(crate) kept_apart: Vec<String>,
}

impl Plan {
    /// The engine's table.
    pub(crate) fn table(&self) -> Table {
        Table {
            family: Family::Inet,
            name: self.names.table().to_owned(),
            sets: Vec::new(),
            chains: vec![self.direct_access(), self.forward(), self.to_containers(), self.outbound()],
        }
    }

    /// Nobody outside reaches a container by its own address: a neighbour could add a route to it, past what is published.
    fn direct_access(&self) -> Chain {
        let rule = Rule::new([
            self.address(Side::Destination),
            Match::Interface(
                Interface::Incoming,
                Polarity::IsNot,
                vec!["lo".to_owned(), self.names.bridge().to_owned()],
            )
            .into(),
            Verdict::Drop.into(),
        ]);
        let base = filter(Hook::Prerouting, BEFORE_TRACKING);
        Chain { name: "direct-access".to_owned(), base, rules: vec![rule] }
    }

    fn forward(&self) -> Chain {
        let mut rules = vec![
            Rule::new([self.bridge(Interface::Outgoing), Verdict::Jump("to-containers".to_owned()).into()]),
            // Without an IPv6 network of its own a container has no business sending IPv6 through the host.
            Rule::new([self.bridge(Interface::Incoming), Match::Version(Family::Ip6).into(), Verdict::Drop.into()]),
        ];
        if !self.kept_apart.is_empty() {
            let among = |which| Match::Interface(which, Polarity::Is, self.kept_apart.clone()).into();
            rules.push(Rule::new([among(Interface::Incoming), among(Interface::Outgoing), Verdict::Drop.into()]));
        }
        Chain { name: "forward".to_owned(), base: filter(Hook::Forward, FILTER), rules }
    }

    /// What may go to a container: answers, and other containers of its network. Published ports will be named here.
    fn to_containers(&self) -> Chain {
        let answers = Match::State(vec![State::Established, State::Related]);
        let rules = vec![
            Rule::new([answers.into(), Verdict::Accept.into()]),
            Rule::new([self.bridge(Interface::Incoming), Match::Version(Family::Ip).into(), Verdict::Accept.into()]),
            Rule::new([Verdict::Drop.into()]),
        ];
        Chain { name: "to-containers".to_owned(), base: None, rules }
    }

    fn outbound(&self) -> Chain {
        let elsewhere =
            Match::Interface(Interface::Outgoing, Polarity::IsNot, vec![self.names.bridge().to_owned()]).into();
        let rule = Rule::new([self.address(Side::Source), elsewhere, Statement::Masquerade]);
        let base = Base { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: SOURCE_NAT, policy: Policy::Accept };
        Chain { name: "outbound".to_owned(), base: Some(base), rules: vec![rule] }
    }

    fn address(&self, side: Side) -> Statement {
        Match::Address { side, polarity: Polarity::Is, network: self.subnet.network(), prefix: self.subnet.prefix() }
            .into()
    }

    fn bridge(&self, which: Interface) -> Statement {
        Match::Interface(which, Polarity::Is, vec![self.names.bridge().to_owned()]).into()
    }

    /// The rules for a foreign chain that drops by default: our own chain decides, theirs lets it by.
    ///
    /// With the counter they are what iptables itself would make of `-i conex0 -j ACCEPT`, so it can still list its table.
    fn foreign_rules(&self) -> [Rule; 2] {
        [Interface::Incoming, Interface::Outgoing].map(|which| {
            Rule::new([self.bridge(which), Statement::Counter, Verdict::Accept.into()]).with_comment(&self.mark())
        })
    }

    /// The comment by which our rules in foreign chains are known.
    fn mark(&self) -> String {
        format!("container engine {}", self.names.engine())
    }
}

fn filter(hook: Hook, priority: i32) -> Option<Base> {
    Some(Base { kind: ChainKind::Filter, hook, priority, policy: Policy::Accept })
}

/// Installs the rules, in one transaction with those for foreign chains. Returns the foreign chains that drop forwarded packets and
/// that no rule of ours can help.
pub(crate) fn install(plan: &Plan) -> Result<Vec<String>, FirewallError> {
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
pub(crate) fn is_installed(plan: &Plan) -> Result<bool, FirewallError> {
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
    Ok(foreign.entrance.is_none_or(|chain| foreign.marked.iter().filter(|(name, _)| *name == chain).count() == 2))
}

/// Takes all rules away.
pub(crate) fn remove(plan: &Plan) -> Result<(), FirewallError> {
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
        let plan = Plan {
            names: Names::of("conex"),
            subnet: "172.17.0.0/16".parse().unwrap(),
            kept_apart: vec!["eth0".to_owned(), "eth1".to_owned()],
        };
        let expected = "\
table inet conex {
	chain direct-access {
		type filter hook prerouting priority raw; policy accept;
		ip daddr 172.17.0.0/16 iifname != { \"lo\", \"conex0\" } drop
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		oifname \"conex0\" jump to-containers
		iifname \"conex0\" meta nfproto ipv6 drop
		iifname { \"eth0\", \"eth1\" } oifname { \"eth0\", \"eth1\" } drop
	}

	chain to-containers {
		ct state established,related accept
		iifname \"conex0\" meta nfproto ipv4 accept
		drop
	}

	chain outbound {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 172.17.0.0/16 oifname != \"conex0\" masquerade
	}
}
";
        assert_eq!(plan.table().to_string(), expected);
    }
}
