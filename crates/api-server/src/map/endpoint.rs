//! A container's endpoints in networks.

use docker_api::network::{EndpointIpamConfig, EndpointSettings};
use engine::model::{EndpointSpec, EndpointView};

use super::{null_if_empty, null_map_if_empty};
use crate::error::{ApiError, ApiResult};

/// Reads what a client asks for.
pub(crate) fn parse(settings: &EndpointSettings) -> ApiResult<EndpointSpec> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    Ok(EndpointSpec {
        ipv4: address(&ipam.ipv4_address, "IPv4")?,
        ipv6: address(&ipam.ipv6_address, "IPv6")?,
        link_local: ipam.link_local_ips,
        links: settings.links.clone().unwrap_or_default(),
        aliases: settings.aliases.clone().unwrap_or_default(),
        mac_address: mac_address(&settings.mac_address)?,
        driver_options: settings.driver_opts.clone().unwrap_or_default(),
        gateway_priority: settings.gw_priority.unwrap_or_default(),
    })
}

fn address<A: std::str::FromStr>(text: &str, family: &str) -> ApiResult<Option<A>> {
    match text {
        "" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!("invalid endpoint settings:\ninvalid {family} address: {text}"))
        }),
    }
}

fn mac_address(text: &str) -> ApiResult<Option<String>> {
    let octets: Vec<&str> = text.split(':').collect();
    let is_octet = |octet: &&str| octet.len() == 2 && octet.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text {
        "" => Ok(None),
        _ if octets.len() == 6 && octets.iter().all(is_octet) => Ok(Some(text.to_ascii_lowercase())),
        _ => Err(ApiError::bad_request(format!("invalid MAC address: {text}"))),
    }
}

/// Writes what was asked for and what it became.
pub(crate) fn show(endpoint: &EndpointView) -> EndpointSettings {
    let text = |address: Option<std::net::Ipv4Addr>| address.map(|address| address.to_string()).unwrap_or_default();
    let text6 = |address: Option<std::net::Ipv6Addr>| address.map(|address| address.to_string()).unwrap_or_default();
    let requested = &endpoint.requested;
    let ipam = EndpointIpamConfig {
        ipv4_address: text(requested.ipv4),
        ipv6_address: text6(requested.ipv6),
        link_local_ips: requested.link_local.clone(),
    };
    EndpointSettings {
        ipam_config: Some(ipam).filter(|ipam| *ipam != EndpointIpamConfig::default()),
        links: null_if_empty(&requested.links),
        aliases: null_if_empty(&requested.aliases),
        mac_address: endpoint.mac_address.clone(),
        driver_opts: null_map_if_empty(&requested.driver_options),
        gw_priority: Some(requested.gateway_priority),
        network_id: endpoint.network_id.clone(),
        endpoint_id: endpoint.endpoint_id.clone(),
        gateway: text(endpoint.gateway),
        ip_address: text(endpoint.ipv4),
        ip_prefix_len: endpoint.ipv4_prefix,
        ipv6_gateway: text6(endpoint.ipv6_gateway),
        global_ipv6_address: text6(endpoint.ipv6),
        global_ipv6_prefix_len: endpoint.ipv6_prefix,
        dns_names: null_if_empty(&endpoint.dns_names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        let with_ip = |ip: &str| {
            let ipam = EndpointIpamConfig { ipv4_address: ip.into(), ..EndpointIpamConfig::default() };
            parse(&EndpointSettings { ipam_config: Some(ipam), ..EndpointSettings::default() })
        };
        assert_eq!(with_ip("10.0.0.2").unwrap().ipv4.unwrap().octets(), [10, 0, 0, 2]);
        assert!(with_ip("x").unwrap_err().message.contains("invalid IPv4 address: x"));
        assert_eq!(mac_address("02:42:AC:11:00:02").unwrap().unwrap(), "02:42:ac:11:00:02");
        assert!(mac_address("02:42").is_err());
    }

    #[test]
    fn nothing_is_null() {
        let json = serde_json::to_string(&show(&EndpointView::default())).unwrap();
        assert_eq!(
            json,
            r#"{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}"#
        );
    }
}
