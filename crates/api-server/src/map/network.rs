//! Networks.

use std::net::IpAddr;

use docker_api::ApiVersion;
use docker_api::network::{ConfigReference, CreateRequest, EndpointResource, Ipam, IpamConfig, Network};
use engine::model::{IpamPool, NetworkMember, NetworkRequest, NetworkView};

use super::null_map_if_empty;
use super::time::shown;
use crate::error::{ApiError, ApiResult};

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
        ip_range: pool.range.clone().unwrap_or_default(),
        gateway: pool.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        aux_address: pool.auxiliary.iter().map(|(name, address)| (name.clone(), address.to_string())).collect(),
    });
    Network {
        name: view.name.clone(),
        id: view.id.clone(),
        created: shown(Some(view.created)),
        scope: view.scope.clone(),
        driver: view.driver.clone(),
        enable_ipv4: version.at_least(48).then_some(view.enable_ipv4),
        enable_ipv6: view.enable_ipv6,
        ipam: Ipam {
            driver: "default".to_owned(),
            options: null_map_if_empty(&view.ipam_options),
            config: has_pools.then(|| config.collect()),
        },
        internal: view.internal,
        attachable: view.attachable,
        config_only: view.config_only,
        config_from: ConfigReference { network: view.config_from.clone() },
        containers: Some(members),
        options: Some(view.options.clone()),
        labels: Some(view.labels.clone()),
        warnings: view.warnings.clone(),
        ..Network::default()
    }
}

/// Reads a request to make a network.
pub(crate) fn parse(body: CreateRequest) -> ApiResult<NetworkRequest> {
    let ipam = body.ipam.unwrap_or_default();
    Ok(NetworkRequest {
        name: body.name,
        driver: body.driver,
        scope: body.scope,
        enable_ipv4: body.enable_ipv4,
        enable_ipv6: body.enable_ipv6.unwrap_or_default(),
        internal: body.internal,
        attachable: body.attachable,
        ingress: body.ingress,
        config_only: body.config_only,
        config_from: body.config_from.unwrap_or_default().network,
        ipam_driver: ipam.driver,
        ipam_options: ipam.options.unwrap_or_default(),
        pools: ipam.config.unwrap_or_default().iter().map(pool).collect::<ApiResult<_>>()?,
        options: body.options.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
    })
}

fn pool(config: &IpamConfig) -> ApiResult<IpamPool> {
    let address = |what: &str, text: &str| {
        text.parse::<IpAddr>().map_err(|_| {
            ApiError::bad_request(format!("invalid network config:\ninvalid {what} {text}: invalid address"))
        })
    };
    let gateway = Some(config.gateway.as_str()).filter(|text| !text.is_empty());
    let auxiliary = config.aux_address.iter();
    Ok(IpamPool {
        subnet: config.subnet.clone(),
        range: Some(config.ip_range.clone()).filter(|text| !text.is_empty()),
        gateway: gateway.map(|text| address("gateway", text)).transpose()?,
        auxiliary: auxiliary
            .map(|(name, text)| Ok((name.clone(), address("auxiliary address", text)?)))
            .collect::<ApiResult<_>>()?,
    })
}

fn resource(member: &NetworkMember) -> EndpointResource {
    EndpointResource {
        name: member.name.clone(),
        endpoint_id: member.endpoint_id.clone(),
        mac_address: member.mac_address.clone(),
        ipv4_address: member.ipv4.map(|address| format!("{address}/{}", member.ipv4_prefix)).unwrap_or_default(),
        ipv6_address: member.ipv6.map(|address| format!("{address}/{}", member.ipv6_prefix)).unwrap_or_default(),
    }
}
