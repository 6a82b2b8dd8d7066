//! Networks.

use docker_api::ApiVersion;
use docker_api::network::{EndpointResource, Ipam, IpamConfig, Network};
use engine::model::{NetworkMember, NetworkView};

use super::time::shown;

/// Whether a network's containers are shown: on inspection, not in lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    List,
    Inspect,
}

/// A network.
pub(crate) fn show(view: &NetworkView, detail: Detail, version: ApiVersion) -> Network {
    let members = match detail {
        Detail::List => Default::default(),
        Detail::Inspect => view.containers.iter().map(|(id, member)| (id.clone(), resource(member))).collect(),
    };
    let has_pools = !view.ipam.is_empty();
    let config = view.ipam.iter().map(|pool| IpamConfig {
        subnet: pool.subnet.clone(),
        gateway: pool.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        ..IpamConfig::default()
    });
    Network {
        name: view.name.clone(),
        id: view.id.clone(),
        created: shown(Some(view.created)),
        scope: view.scope.clone(),
        driver: view.driver.clone(),
        enable_ipv4: version.at_least(48).then_some(true),
        enable_ipv6: view.enable_ipv6,
        ipam: Ipam { driver: "default".to_owned(), options: None, config: has_pools.then(|| config.collect()) },
        internal: view.internal,
        containers: Some(members),
        options: Some(view.options.clone()),
        labels: Some(view.labels.clone()),
        ..Network::default()
    }
}

fn resource(member: &NetworkMember) -> EndpointResource {
    EndpointResource {
        name: member.name.clone(),
        endpoint_id: member.endpoint_id.clone(),
        mac_address: member.mac_address.clone(),
        ipv4_address: member.ipv4.map(|address| format!("{address}/{}", member.ipv4_prefix)).unwrap_or_default(),
        ipv6_address: String::new(),
    }
}
