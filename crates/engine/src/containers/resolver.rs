//! Names of containers: what others are told of one, and the name server that it asks itself.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use dns::{Client, Membership, Serving, Sockets};
use network::{DEFAULT_NETWORK, Place};

use super::record::ContainerRecord;
use super::view::dns_names;
use crate::engine::Inner;
use crate::model::EndpointSpec;

const DNS: u16 = 53;

/// Names of all containers, and the way to names of everybody else.
#[derive(Debug, Default)]
pub(crate) struct Names {
    directory: Arc<dns::Directory>,
    forwarder: Arc<dns::Forwarder>,
}

/// Tells others how a running container is found on users' networks.
pub(super) fn announce(inner: &Inner, record: &ContainerRecord, place: &Place) {
    inner.names.directory.put(record.id.as_str(), memberships(inner, record, place));
}

/// Takes that back.
pub(super) fn retract(inner: &Inner, record: &ContainerRecord) {
    inner.names.directory.remove(record.id.as_str());
}

fn memberships(inner: &Inner, record: &ContainerRecord, place: &Place) -> Vec<Membership> {
    let users = place.endpoints.iter().filter_map(|endpoint| {
        let network = inner.registry.by_id(&endpoint.network)?;
        let requested = record.spec.endpoints.get(&network.name)?;
        Some(Membership {
            network: network.id.clone(),
            network_name: network.name.clone(),
            internal: network.definition.internal,
            addresses: endpoint.addresses().collect(),
            names: dns_names(record, requested),
            links: links(inner, requested),
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
fn links(inner: &Inner, requested: &EndpointSpec) -> Vec<(String, String)> {
    let parsed = super::links::parse(&requested.links).unwrap_or_default();
    let whose = |name: String| inner.index.id_of(&name).map_or(name, |id| id.to_string());
    parsed.into_iter().map(|link| (link.alias, whose(link.container))).collect()
}

/// Whether a place is on a network where containers have names.
pub(super) fn is_named(place: &Place) -> bool {
    place.endpoints.iter().any(|endpoint| endpoint.network != DEFAULT_NETWORK)
}

/// Starts a container's name server in its namespace, if it is on a network with names. Without one it has the host's servers, which
/// is told and stops nobody.
pub(super) fn serve(
    inner: &Inner,
    record: &ContainerRecord,
    place: &Place,
    namespace: BorrowedFd<'_>,
) -> Option<Serving> {
    if !is_named(place) {
        return None;
    }
    let opened = network::open_resolver(namespace, || {
        let sockets = Sockets::open(network::RESOLVER)?;
        let port = sockets.port()?;
        Ok((sockets, port))
    });
    let client = Client { id: record.id.to_string(), servers: servers(inner, record) };
    let (directory, forwarder) = (Arc::clone(&inner.names.directory), Arc::clone(&inner.names.forwarder));
    let started = opened
        .map_err(|error| error.to_string())
        .and_then(|sockets| Serving::start(sockets, client, directory, forwarder).map_err(|error| error.to_string()));
    started.inspect_err(|error| tracing::warn!("container {} has no name server: {error}", record.id)).ok()
}

/// As [`serve`], for a container that runs.
pub(super) fn serve_running(inner: &Inner, record: &ContainerRecord, place: &Place, pid: i32) -> Option<Serving> {
    let namespace = network::namespace_of(pid.unsigned_abs()).ok()?;
    serve(inner, record, place, namespace.as_fd())
}

/// Those of `--dns`, or the host's: also those on its loopback, since it is the engine that asks.
fn servers(inner: &Inner, record: &ContainerRecord) -> Vec<SocketAddr> {
    let wished = super::start::wanted_dns(inner, &record.spec).map(|dns| dns.servers).unwrap_or_default();
    let servers = if wished.is_empty() { network::host_servers() } else { wished };
    servers.into_iter().map(|server| SocketAddr::new(server, DNS)).collect()
}
