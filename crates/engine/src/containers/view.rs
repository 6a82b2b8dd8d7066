//! From a record and a state to what readers see; pure but for the paths of the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use network::{DEFAULT_NETWORK, Place, Published, PublishedPorts, Transport};
use oci::Digest;

use super::life::Life;
use super::record::ContainerRecord;
use super::start::log_path;
use crate::engine::Inner;
use crate::model::{
    ContainerFiles, ContainerNetworks, ContainerSpec, ContainerState, ContainerView, EndpointSpec, EndpointView,
    GraphPaths, Health, HostPort, LogDriver, Port, PortTable, Protocol,
};

/// A container's view.
pub(super) fn of(
    inner: &Inner,
    record: &ContainerRecord,
    life: &Life,
    place: &Place,
    health: Option<Health>,
) -> ContainerView {
    let folder = inner.container_dir(&record.id);
    let path = |name: &str| folder.join(name).display().to_string();
    let mounts = record.mounts.iter().filter_map(|mount| {
        let mountpoint = |name: &str| inner.volumes.mountpoint(name).display().to_string();
        mount.point(mountpoint, |name| inner.volumes.is_anonymous(name))
    });
    ContainerView {
        id: record.id.clone(),
        name: record.name.clone(),
        created: record.created,
        spec: Arc::new(record.spec.clone()),
        image_id: record.image_id,
        path: record.command.first().cloned().unwrap_or_default(),
        args: record.command.get(1..).unwrap_or_default().to_vec(),
        state: ContainerState {
            status: life.status(),
            pid: life.pid().unwrap_or(0),
            exit_code: life.exit_code,
            error: life.error.clone(),
            oom_killed: life.oom_killed,
            started_at: life.started_at,
            finished_at: life.finished_at,
            health,
        },
        restart_count: life.restart_count,
        end: life.end.clone(),
        mounts: mounts.collect(),
        networks: networks(inner, record, life, place),
        // Filled when somebody looks: execs come and go without the actor.
        exec_ids: Vec::new(),
        files: ContainerFiles {
            hostname: path("hostname"),
            hosts: path("hosts"),
            resolv_conf: path("resolv.conf"),
            // Docker shows only what is meant to be read by others.
            log: if record.spec.log.driver == LogDriver::JsonFile {
                log_path(record, &folder).display().to_string()
            } else {
                String::new()
            },
        },
        graph: GraphPaths { driver: inner.host.storage_driver.to_owned(), upper: path("upper"), work: path("work") },
        runtime: runtime_of(&record.spec).to_owned(),
        platform: "linux".into(),
        cgroupns: if record.private_cgroup_namespace { "private" } else { "host" },
        apparmor_default: inner.host.spec.apparmor_default,
    }
}

/// The name of a container's runtime; records from before there was a choice have none.
fn runtime_of(spec: &ContainerSpec) -> &str {
    if spec.runtime.is_empty() { crate::runtimes::OWN } else { &spec.runtime }
}

/// The driver of a network by its name.
pub(crate) fn driver_of(inner: &Inner, network: &str) -> &'static str {
    match network {
        "none" => "null",
        "host" => "host",
        _ => inner.registry.by_name(network).map_or("bridge", |record| record.definition.driver.as_str()),
    }
}

fn networks(inner: &Inner, record: &ContainerRecord, life: &Life, place: &Place) -> ContainerNetworks {
    let running = life.pid();
    let identity = |what: &str| Digest::of(format!("{what} {} {:?}", record.id, life.started_at).as_bytes()).hex();
    let endpoints = record.spec.endpoints.iter().map(|(name, requested)| {
        let user = inner.registry.by_name(name);
        let mut view = EndpointView { requested: requested.clone(), ..EndpointView::default() };
        if running.is_some() || life.started_at.is_some() {
            let predefined = || crate::networks::id_of(&inner.id, name);
            view.network_id = user.as_ref().map_or_else(predefined, |record| record.id.clone());
        }
        if running.is_some() {
            view.endpoint_id = identity(&format!("endpoint {name}"));
        }
        view.mac_address = requested.mac_address.clone().unwrap_or_default();
        let id = user.as_ref().map_or(DEFAULT_NETWORK, |record| record.id.as_str());
        let found = place.endpoints.iter().find(|endpoint| endpoint.network == id);
        if let (Some(endpoint), Some(_)) = (found, running) {
            if let Some(held) = endpoint.ipv4 {
                (view.ipv4, view.ipv4_prefix, view.gateway) = (Some(held.address), held.prefix, held.gateway);
            }
            if let Some(held) = endpoint.ipv6 {
                (view.ipv6, view.ipv6_prefix, view.ipv6_gateway) = (Some(held.address), held.prefix, held.gateway);
            }
            view.mac_address = endpoint.mac.to_string();
        }
        if user.is_some() {
            view.dns_names = dns_names(record, requested);
        }
        (name.clone(), view)
    });
    ContainerNetworks {
        sandbox_id: running.map(|_| identity("sandbox")).unwrap_or_default(),
        sandbox_key: running.map(|pid| format!("/proc/{pid}/ns/net")).unwrap_or_default(),
        endpoints: endpoints.collect::<BTreeMap<_, _>>(),
        ports: ports(&place.ports),
    }
}

/// The names that others on a user's network find a container by, each once: its own, its aliases, its short id, its host name.
pub(super) fn dns_names(record: &ContainerRecord, endpoint: &EndpointSpec) -> Vec<String> {
    let own = std::iter::once(record.name.to_string());
    let all = own.chain(endpoint.aliases.iter().cloned()).chain([record.id.short().to_owned()]);
    let mut names: Vec<String> = Vec::new();
    for name in all.chain(record.spec.hostname.clone()).filter(|name| !name.is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Where each published port of a container is found on the host.
fn ports(published: &PublishedPorts) -> PortTable<HostPort> {
    let place = |one: Published| {
        let protocol = match one.transport {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
            Transport::Sctp => Protocol::Sctp,
        };
        let port = Port { number: one.container_port, protocol };
        (port, HostPort { address: one.address, number: one.port })
    };
    published.iter().map(place).collect()
}
