//! The engine's rules, and its place among the rules of others.

mod foreign;
mod plan;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink::Family::{Netfilter, Route};
use netlink::conntrack::Flow;
use netlink::{OpenError, RequestError, Socket};
use nftables::{Family as Version, Kernel, Transaction, TransactionError};
use thiserror::Error;

use crate::endpoint::Family;
use crate::port_map::{PortPlace as Place, PortTarget as Target};
use crate::ports::{ANY_IPV4, ANY_IPV6, Published, Transport};
use foreign::{Foreign, IPTABLES_TABLE};
pub(crate) use plan::{Joint, Net, Plan, Segment};
use plan::{is_translated, placed};

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
    #[error(
        "the engine's nftables table could not be installed when it started ({0}): load the kernel module nf_tables, or boot a kernel with CONFIG_NF_TABLES and CONFIG_NFT_NAT; rules of iptables' older kind (iptables-legacy) are not used. Then restart the engine"
    )]
    NotInstalled(String),
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
    stale: Vec<(Place, Target)>,
    /// Bridges that are gone, and whose elements are still there: no packet meets them.
    stale_segments: Vec<Segment>,
    kernel: InKernel,
}

/// Whether the rules are in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
enum InKernel {
    Yes,
    /// Why not.
    No(String),
}

impl Firewall {
    /// The rules of a plan, not in the kernel yet.
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            state: Mutex::new(FirewallState {
                plan,
                stale: Vec::new(),
                stale_segments: Vec::new(),
                kernel: InKernel::No("not yet".to_owned()),
            }),
        }
    }

    /// The same with these ports from before.
    pub(crate) fn with_ports(self, published: impl Iterator<Item = Published>) -> Self {
        let mut state = self.lock();
        published.filter_map(placed).for_each(|(place, target)| state.plan.ports.insert(place, target));
        drop(state);
        self
    }

    /// Puts everything into the kernel. Returns the foreign chains that no rule of ours can help.
    pub(crate) fn install(&self) -> Result<Vec<String>, FirewallError> {
        let mut state = self.lock();
        let unhelped = install(&state.plan).inspect_err(|error| state.kernel = InKernel::No(error.to_string()))?;
        state.kernel = InKernel::Yes;
        state.stale.clear();
        state.stale_segments.clear();
        Ok(unhelped)
    }

    /// Whether everything that should be in the kernel is (still) there.
    pub(crate) fn is_complete(&self) -> Result<bool, FirewallError> {
        let state = self.lock();
        Ok(state.kernel != InKernel::Yes || is_installed(&state.plan)?)
    }

    /// Where a published port leads.
    pub(crate) fn target_of(&self, place: Place) -> Option<Target> {
        let target = self.lock().plan.ports.get(place)?;
        is_translated(&(place, target)).then_some(target)
    }

    /// Adds the rules of one more bridge.
    pub(crate) fn add(&self, segment: &Segment) -> Result<(), FirewallError> {
        let mut state = self.lock();
        state.plan.segments.push(segment.clone());
        state.exchange_segments(Some(segment))
    }

    /// Keeps packets of a family from going from one of these interfaces to another.
    pub(crate) fn keep_apart(&self, family: Family, interfaces: Vec<String>) -> Result<(), FirewallError> {
        let mut state = self.lock();
        let kept = match family {
            Family::Ipv4 => &mut state.plan.kept_apart,
            Family::Ipv6 => &mut state.plan.kept_apart6,
        };
        if *kept == interfaces {
            return Ok(());
        }
        *kept = interfaces;
        if state.kernel == InKernel::Yes { install(&state.plan).map(drop) } else { Ok(()) }
    }

    /// Forgets those of a bridge; they leave the kernel with the next change, or with [`Firewall::sweep`].
    pub(crate) fn forget_segment(&self, id: &str) {
        let mut state = self.lock();
        if let Some(index) = state.plan.segments.iter().position(|segment| segment.id == id) {
            let segment = state.plan.segments.remove(index);
            state.stale_segments.push(segment);
        }
    }

    /// Sends what comes to these ports where they lead.
    pub(crate) fn publish(&self, published: impl Iterator<Item = Published>) -> Result<(), FirewallError> {
        let mut state = self.lock();
        let new: Vec<_> = published.filter_map(placed).collect();
        if new.is_empty() {
            return Ok(());
        }
        if let (InKernel::No(reason), true) = (&state.kernel, new.iter().any(is_translated)) {
            return Err(FirewallError::NotInstalled(reason.clone()));
        }
        new.iter().for_each(|(place, target)| state.plan.ports.insert(*place, *target));
        let changed = state.exchange_ports(&new);
        if changed.is_err() {
            for (place, _) in new {
                state.plan.ports.remove(place);
            }
        }
        changed
    }

    /// Forgets these ports; they leave the kernel with the next change, or with [`Firewall::sweep`].
    pub(crate) fn forget(&self, published: impl Iterator<Item = Published>) {
        let mut state = self.lock();
        for (place, target) in published.filter_map(placed) {
            if state.plan.ports.remove(place).is_some() {
                state.stale.push((place, target));
            }
        }
    }

    /// Takes forgotten ports and bridges out of the kernel.
    pub(crate) fn sweep(&self) -> Result<(), FirewallError> {
        let mut state = self.lock();
        state.exchange_ports(&[])?;
        state.exchange_segments(None)
    }

    /// Takes all rules away.
    pub(crate) fn remove(&self) -> Result<(), FirewallError> {
        let mut state = self.lock();
        state.kernel = InKernel::No("the engine ends".to_owned());
        remove(&state.plan)
    }

    fn lock(&self) -> MutexGuard<'_, FirewallState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FirewallState {
    /// Takes the stale ports out and puts new ones in, in one transaction.
    fn exchange_ports(&mut self, new: &[(Place, Target)]) -> Result<(), FirewallError> {
        let stale = std::mem::take(&mut self.stale);
        if self.kernel != InKernel::Yes || (new.is_empty() && stale.is_empty()) {
            return Ok(());
        }
        let table = self.plan.names.table().to_owned();
        let mut transaction = Transaction::new();
        for (family, set) in self.plan.port_elements(&stale) {
            transaction.remove_elements(family, &table, &set.name, &set.elements);
        }
        for (family, set) in self.plan.port_elements(new) {
            transaction.add_elements(family, &table, &set.name, &set.elements);
        }
        self.commit(transaction)?;
        // Ports are published all the same; at worst a client has to be silent for half a minute.
        let _ = forget_flows(stale.iter().chain(new).map(|(place, _)| *place));
        Ok(())
    }

    /// Takes the elements of bridges that are gone out and puts those of a new one in, in one transaction.
    fn exchange_segments(&mut self, new: Option<&Segment>) -> Result<(), FirewallError> {
        let stale = std::mem::take(&mut self.stale_segments);
        if self.kernel != InKernel::Yes || (new.is_none() && stale.is_empty()) {
            return Ok(());
        }
        let table = self.plan.names.table().to_owned();
        let mut transaction = Transaction::new();
        for (family, set) in self.plan.segment_elements(&stale) {
            transaction.remove_elements(family, &table, &set.name, &set.elements);
        }
        for (family, set) in self.plan.segment_elements(new.map(std::slice::from_ref).unwrap_or_default()) {
            transaction.add_elements(family, &table, &set.name, &set.elements);
        }
        // A chain that drops by default has rules of ours by name of bridge: then everything is put in place anew.
        let others = Foreign::find(&mut Kernel::open()?, &self.plan)?;
        if !others.entrances.is_empty() { install(&self.plan).map(drop) } else { self.commit(transaction) }
    }

    /// Where the table is not as we left it, it is made anew.
    fn commit(&mut self, transaction: Transaction) -> Result<(), FirewallError> {
        match transaction.commit() {
            Ok(()) => Ok(()),
            Err(_) => install(&self.plan).map(drop),
        }
    }
}

/// Installs the rules, in one transaction with those for foreign chains. Returns the foreign chains that drop forwarded packets and
/// that no rule of ours can help.
fn install(plan: &Plan) -> Result<Vec<String>, FirewallError> {
    let mut kernel = Kernel::open()?;
    kernel.check().map_err(FirewallError::Missing)?;
    let foreign = Foreign::find(&mut kernel, plan)?;
    let mut transaction = Transaction::new();
    delete_tables(&mut kernel, plan, &mut transaction)?;
    for table in plan.tables() {
        transaction.replace(&table);
    }
    foreign.remove_marked(&mut transaction);
    for (family, chain) in &foreign.entrances {
        for rule in plan.foreign_rules() {
            transaction.insert_rule(*family, IPTABLES_TABLE, chain, &rule);
        }
    }
    transaction.commit()?;
    Ok(foreign.unhelped)
}

/// Whether our table and our rules in foreign chains are (still) there; someone may have flushed them.
fn is_installed(plan: &Plan) -> Result<bool, FirewallError> {
    let mut kernel = Kernel::open()?;
    let there = kernel.tables()?;
    for table in plan.tables() {
        if !there.contains(&(table.family, table.name.clone())) {
            return Ok(false);
        }
        for chain in table.chains {
            // The rules of a chain that is not there are an empty list.
            if kernel.rules(table.family, &table.name, &chain.name)?.len() != chain.rules.len() {
                return Ok(false);
            }
        }
    }
    let foreign = Foreign::find(&mut kernel, plan)?;
    let wanted = plan.foreign_rules().count();
    let there = |entrance: &(Version, String)| {
        let ours = foreign.marked.iter().filter(|(family, chain, _)| (*family, chain) == (entrance.0, &entrance.1));
        ours.count() == wanted
    };
    Ok(foreign.entrances.iter().all(there))
}

/// Takes all rules away.
fn remove(plan: &Plan) -> Result<(), FirewallError> {
    let mut kernel = Kernel::open()?;
    if kernel.check().is_err() {
        return Ok(());
    }
    let foreign = Foreign::find(&mut kernel, plan)?;
    let mut transaction = Transaction::new();
    delete_tables(&mut kernel, plan, &mut transaction)?;
    foreign.remove_marked(&mut transaction);
    Ok(transaction.commit()?)
}

/// Has the kernel forget the flows to these places that end only by silence: a client that goes on sending from the same port would
/// be sent where the port led before, or to the host.
fn forget_flows(places: impl Iterator<Item = Place>) -> Result<(), FirewallError> {
    const UDP: u8 = 17;
    let places: BTreeSet<Place> = places.filter(|(_, transport, _)| *transport == Transport::Udp).collect();
    if places.is_empty() {
        return Ok(());
    }
    let host: BTreeSet<IpAddr> = Socket::open(Route)?.addresses()?.iter().map(|address| address.address).collect();
    let is_published = |flow: &Flow| {
        let at = |address| places.contains(&(address, Transport::Udp, flow.port));
        let every = if flow.destination.is_ipv4() { ANY_IPV4 } else { ANY_IPV6 };
        flow.protocol == UDP && (at(flow.destination) || (at(every) && host.contains(&flow.destination)))
    };
    let mut socket = Socket::open(Netfilter)?;
    for flow in socket.flows()?.iter().filter(|flow| is_published(flow)) {
        socket.forget(flow)?;
    }
    Ok(())
}

/// Takes away those of the engine's tables that are there, whichever it is to have now.
fn delete_tables(kernel: &mut Kernel, plan: &Plan, transaction: &mut Transaction) -> Result<(), FirewallError> {
    let there = kernel.tables()?;
    for family in Plan::VERSIONS {
        if there.contains(&(family, plan.names.table().to_owned())) {
            transaction.delete(family, plan.names.table());
        }
    }
    Ok(())
}
