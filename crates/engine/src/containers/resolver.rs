//! Names of containers: what others are told of one, and the name server that it asks itself.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dns::{Client, Membership, Serving, Sockets};
use network::{DEFAULT_NETWORK, NameSockets, Place};
use oci::ContainerId;

use super::Index;
use super::record::{ContainerRecord, LifeRecord};
use super::view::dns_names;
use crate::engine::Inner;
use crate::model::EndpointSpec;
use crate::networks::Registry;
use crate::options::EngineOptions;

const DNS: u16 = 53;

/// Names of all containers, and the way to names of everybody else.
#[derive(Debug, Default)]
pub(crate) struct Names {
    directory: Arc<dns::Directory>,
    forwarder: Arc<dns::Forwarder>,
    /// Name servers of containers that outlived the last daemon, until their actors have them.
    reopened: Mutex<HashMap<ContainerId, Serving>>,
}

/// A container that runs, as far as the database and `/proc` know.
pub(crate) struct Survivor<'a> {
    pub(crate) record: &'a ContainerRecord,
    pub(crate) life: &'a LifeRecord,
    /// Its first process.
    pub(crate) pid: i32,
}

impl Names {
    /// Opens the name servers of containers that outlived the last daemon where they were, before anything else is taken up again:
    /// whoever asks meanwhile is refused. All are known before the first is asked, or it would look outside for the others.
    pub(crate) fn reopen(
        &self,
        options: &EngineOptions,
        registry: &Registry,
        index: &Index,
        survivors: &[Survivor<'_>],
    ) {
        for Survivor { record, life, .. } in survivors {
            self.directory.put(record.id.as_str(), memberships(registry, index, record, &life.place));
        }
        let usual = usual_servers(options);
        let share = survivors.len().div_ceil(std::thread::available_parallelism().map_or(1, usize::from)).max(1);
        let sockets: Vec<(&ContainerRecord, NameSockets)> = std::thread::scope(|scope| {
            let opener = |share| scope.spawn(move || open_all_again(share));
            let openers: Vec<_> = survivors.chunks(share).map(opener).collect();
            openers.into_iter().filter_map(|opener| opener.join().ok()).flatten().collect()
        });
        let mut reopened = self.reopened();
        for (record, sockets) in sockets {
            // Whatever does not work here is done, and told, when its actor takes the container up.
            if let Ok(serving) = self.serve(record, sockets, &usual) {
                reopened.insert(record.id.clone(), serving);
            }
        }
    }

    /// The name server of a container that was opened ahead.
    pub(super) fn take_reopened(&self, id: &ContainerId) -> Option<Serving> {
        self.reopened().remove(id)
    }

    /// Ends those that no actor has taken: their containers have ended.
    pub(super) fn drop_reopened(&self) {
        self.reopened().clear();
    }

    fn serve(&self, record: &ContainerRecord, sockets: NameSockets, usual: &[IpAddr]) -> std::io::Result<Serving> {
        let client = Client { id: record.id.to_string(), servers: servers(record, usual) };
        let sockets = Sockets { datagrams: sockets.datagrams, connections: sockets.connections };
        Serving::start(sockets, client, Arc::clone(&self.directory), Arc::clone(&self.forwarder))
    }

    fn reopened(&self) -> MutexGuard<'_, HashMap<ContainerId, Serving>> {
        self.reopened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_all_again<'a>(survivors: &[Survivor<'a>]) -> Vec<(&'a ContainerRecord, NameSockets)> {
    survivors.iter().filter_map(open_again).collect()
}

fn open_again<'a>(survivor: &Survivor<'a>) -> Option<(&'a ContainerRecord, NameSockets)> {
    let port = survivor.life.place.resolver?;
    let namespace = network::namespace_of(survivor.pid.unsigned_abs()).ok()?;
    Some((survivor.record, network::reopen_resolver(namespace.as_fd(), port).ok()?))
}

/// Tells others how a running container is found on users' networks.
pub(super) fn announce(inner: &Inner, record: &ContainerRecord, place: &Place) {
    inner.names.directory.put(record.id.as_str(), memberships(&inner.registry, &inner.index, record, place));
}

/// Takes that back.
pub(super) fn retract(inner: &Inner, record: &ContainerRecord) {
    inner.names.directory.remove(record.id.as_str());
}

fn memberships(registry: &Registry, index: &Index, record: &ContainerRecord, place: &Place) -> Vec<Membership> {
    let users = place.endpoints.iter().filter_map(|endpoint| {
        let network = registry.by_id(&endpoint.network)?;
        let requested = record.spec.endpoints.get(&network.name)?;
        Some(Membership {
            network: network.id.clone(),
            network_name: network.name.clone(),
            internal: network.definition.internal,
            addresses: endpoint.addresses().collect(),
            names: dns_names(record, requested),
            links: links(index, requested),
        })
    });
    let mut memberships: Vec<Membership> = users.collect();
    if place.endpoints.iter().any(|endpoint| endpoint.network == DEFAULT_NETWORK) {
        // Nobody is found by name there; but by it the container reaches what is outside.
        memberships.push(Membership {
            network: DEFAULT_NETWORK.to_owned(),
            network_name: DEFAULT_NETWORK.to_owned(),
            internal: false,
            addresses: Vec::new(),
            names: Vec::new(),
            links: Vec::new(),
        });
    }
    memberships
}

/// The names that a container alone has for others. Who is not there yet is found by name once it is.
fn links(index: &Index, requested: &EndpointSpec) -> Vec<(String, String)> {
    let parsed = super::links::parse(&requested.links).unwrap_or_default();
    let whose = |name: String| index.id_of(&name).map_or(name, |id| id.to_string());
    parsed.into_iter().map(|link| (link.alias, whose(link.container))).collect()
}

/// Whether a place is on a network where containers have names.
pub(super) fn is_named(place: &Place) -> bool {
    place.endpoints.iter().any(|endpoint| endpoint.network != DEFAULT_NETWORK)
}

/// Starts a container's name server in its namespace, if it is on a network with names; `ready` are its sockets where they are open.
/// Without one it has the host's servers, which is told and stops nobody.
pub(super) fn serve(
    inner: &Inner,
    record: &ContainerRecord,
    place: &Place,
    namespace: BorrowedFd<'_>,
    ready: Option<NameSockets>,
) -> Option<Serving> {
    if !is_named(place) {
        return None;
    }
    let opened = ready.map_or_else(|| network::open_resolver(namespace), Ok);
    let started = opened.map_err(|error| error.to_string()).and_then(|sockets| {
        inner.names.serve(record, sockets, &usual_servers(&inner.options)).map_err(|error| error.to_string())
    });
    started.inspect_err(|error| tracing::warn!("container {} has no name server: {error}", record.id)).ok()
}

/// As [`serve`], for a container that runs.
pub(super) fn serve_running(inner: &Inner, record: &ContainerRecord, place: &Place, pid: i32) -> Option<Serving> {
    let namespace = network::namespace_of(pid.unsigned_abs()).ok()?;
    serve(inner, record, place, namespace.as_fd(), None)
}

/// Those of the engine's options, or the host's, for containers that name none: also those on its loopback, since it is the engine that asks.
fn usual_servers(options: &EngineOptions) -> Vec<IpAddr> {
    let wished = &options.defaults.dns;
    if wished.is_empty() { network::host_servers() } else { wished.clone() }
}

/// Those of `--dns`, or the usual ones.
fn servers(record: &ContainerRecord, usual: &[IpAddr]) -> Vec<SocketAddr> {
    let wished = super::start::dns(&record.spec).map(|dns| dns.servers).unwrap_or_default();
    let servers = if wished.is_empty() { usual.to_vec() } else { wished };
    servers.into_iter().map(|server| SocketAddr::new(server, DNS)).collect()
}
