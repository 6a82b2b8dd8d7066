//! From `-p` and `-P` to the ports that are asked of the host.

use std::net::{IpAddr, Ipv6Addr};

use network::{ANY_IPV4, PortRequest, Transport};

use super::relay::RELAY_LIMIT;
use crate::model::{ContainerSpec, EngineError, Port, PortBinding, Protocol};

/// What a container asks of the host, at `binding` where it names no address: ports with a number first, so that nobody who takes any takes theirs.
pub(super) fn requests(spec: &ContainerSpec, binding: Option<IpAddr>) -> Vec<PortRequest> {
    let bound = spec.port_bindings.iter().flat_map(|(port, bindings)| bindings.iter().map(|binding| (*port, binding)));
    let bound: Vec<(Port, &PortBinding)> = bound.collect();
    let anywhere = PortBinding { host_ip: None, host_port: String::new() };
    let is_bound = |port: &&Port| spec.port_bindings.get(port).is_some_and(|bindings| !bindings.is_empty());
    let exposed = spec.exposed_ports.iter().filter(|port| spec.publish_all_ports && !is_bound(port));
    let wanted: Vec<_> = bound.into_iter().chain(exposed.map(|port| (*port, &anywhere))).collect();
    let few = wanted.len() <= RELAY_LIMIT;
    let mut requests: Vec<PortRequest> =
        wanted.iter().map(|(port, asked)| request(*port, asked, binding, few)).collect();
    requests.sort_by_key(|request| (request.first == 0, request.last - request.first));
    requests
}

/// Checks what `create` can check.
pub(super) fn check(spec: &ContainerSpec) -> Result<(), EngineError> {
    for binding in spec.port_bindings.values().flatten() {
        range(&binding.host_port)
            .ok_or_else(|| EngineError::invalid(format!("invalid port specification: \"{}\"", binding.host_port)))?;
    }
    match spec.port_bindings.keys().find(|port| port.number == 0) {
        Some(port) => Err(EngineError::invalid(format!("invalid port specification: \"{port}\""))),
        None => Ok(()),
    }
}

fn request(port: Port, asked: &PortBinding, binding: Option<IpAddr>, few: bool) -> PortRequest {
    let transport = match port.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    };
    let addresses = match asked.host_ip.or(binding) {
        Some(address) => vec![address],
        // The kernel translates IPv4; what calls by IPv6 is relayed, where that can be done.
        None if few && transport == Transport::Tcp && has_ipv6() => {
            vec![ANY_IPV4, IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        }
        None => vec![ANY_IPV4],
    };
    // Checked at create.
    let (first, last) = range(&asked.host_port).unwrap_or(PortRequest::ANY);
    PortRequest { transport, container_port: port.number, addresses, first, last }
}

/// Reads nothing, `8080`, or `8000-8010`.
fn range(text: &str) -> Option<(u16, u16)> {
    if text.is_empty() {
        return Some(PortRequest::ANY);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range: (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (range.0 <= range.1 && (range.0 > 0 || range.1 == 0)).then_some(range)
}

/// Whether this host has IPv6 at its loopback at least.
fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/thread-self/net/if_inet6").is_ok_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(bindings: &[(&str, &str, &str)], exposed: &[&str]) -> ContainerSpec {
        let mut spec = ContainerSpec::default();
        for (port, address, host_port) in bindings {
            let binding = PortBinding { host_ip: address.parse().ok(), host_port: (*host_port).to_owned() };
            spec.port_bindings.entry(Port::parse(port).unwrap()).or_default().push(binding);
        }
        spec.exposed_ports = exposed.iter().map(|port| Port::parse(port).unwrap()).collect();
        spec
    }

    #[test]
    fn numbers_come_before_ranges_and_any() {
        let spec = ContainerSpec {
            publish_all_ports: true,
            ..spec(&[("80", "", ""), ("81", "10.0.0.1", "8000-8010"), ("82/udp", "", "53")], &["80", "90/udp"])
        };
        let requests = requests(&spec, None);
        let found: Vec<_> =
            requests.iter().map(|request| (request.container_port, request.first, request.last)).collect();
        assert_eq!(found, [(82, 53, 53), (81, 8000, 8010), (80, 0, 0), (90, 0, 0)]);
        assert_eq!(requests[0].addresses, [ANY_IPV4]);
        assert_eq!(requests[1].addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for host_port in ["x", "0-1", "9-8", "70000", "1-"] {
            assert!(check(&spec(&[("80", "", host_port)], &[])).is_err(), "{host_port}");
        }
        check(&spec(&[("80", "", "0"), ("80", "", "1-65535")], &[])).unwrap();
    }
}
