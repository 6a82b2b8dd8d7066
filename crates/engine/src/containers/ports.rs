//! From `-p` and `-P` to the ports that are asked of the host.

use std::net::IpAddr;

use network::{ANY_IPV4, ANY_IPV6, PortRequest, Targets, Transport};

use super::relay::RELAY_LIMIT;
use crate::model::{ContainerSpec, EngineError, HostPortSpec, Port, PortBinding, Protocol};

/// What a container asks of the host, at `binding` where it names no address: ports with a number first, so that nobody who takes any takes theirs.
pub(super) fn requests(spec: &ContainerSpec, binding: Option<IpAddr>, targets: Targets<'_>) -> Vec<PortRequest> {
    let bound = spec.port_bindings.iter().filter_map(|(port, binding)| Some((port, binding?)));
    let anywhere = PortBinding { host_ip: None, host_port: HostPortSpec::Any };
    let is_bound = |port: &Port| spec.port_bindings.of(*port).flatten().next().is_some();
    let exposed = spec.exposed_ports.iter().filter(|port| spec.publish_all_ports && !is_bound(port));
    let wanted: Vec<_> = bound.chain(exposed.map(|port| (port, anywhere))).collect();
    let families = Families::of(targets, wanted.len());
    let mut requests: Vec<PortRequest> =
        wanted.iter().map(|(port, asked)| request(*port, *asked, binding, families)).collect();
    requests.sort_by_key(|request| (request.first == 0, request.last - request.first));
    requests
}

/// Checks what `create` can check.
pub(super) fn check(spec: &ContainerSpec) -> Result<(), EngineError> {
    match spec.port_bindings.iter().map(|(port, _)| port).find(|port| port.number == 0) {
        Some(port) => Err(EngineError::invalid(format!("invalid port specification: \"{port}\""))),
        None => Ok(()),
    }
}

/// How calls of each family reach a container.
#[derive(Debug, Clone, Copy)]
struct Families {
    ipv4: bool,
    ipv6: Ipv6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ipv6 {
    /// By translation.
    Translated,
    /// By a relay, to its IPv4 address: TCP and UDP alone.
    Relayed,
    /// Not at all.
    None,
}

impl Families {
    fn of(targets: Targets<'_>, ports: usize) -> Self {
        let ipv6 = match targets.ipv6 {
            Some(endpoint) if endpoint.ipv6.is_some() => Ipv6::Translated,
            _ if ports <= RELAY_LIMIT && has_ipv6() => Ipv6::Relayed,
            _ => Ipv6::None,
        };
        Self { ipv4: targets.ipv4.is_some_and(|endpoint| endpoint.ipv4.is_some()), ipv6 }
    }

    /// Every address of the host, as far as they lead to the container.
    fn everywhere(self, transport: Transport) -> Vec<IpAddr> {
        let by_ipv6 = self.ipv6 == Ipv6::Translated || (self.ipv6 == Ipv6::Relayed && transport != Transport::Sctp);
        let ipv4 = Some(ANY_IPV4).filter(|_| self.ipv4);
        ipv4.into_iter().chain(Some(ANY_IPV6).filter(|_| by_ipv6)).collect()
    }
}

fn request(port: Port, asked: PortBinding, binding: Option<IpAddr>, families: Families) -> PortRequest {
    let transport = match port.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    };
    let addresses = match asked.host_ip.or(binding) {
        Some(address) => vec![address],
        None => families.everywhere(transport),
    };
    let (first, last) = match asked.host_port {
        HostPortSpec::Any => PortRequest::ANY,
        HostPortSpec::One(port) => (port, port),
        HostPortSpec::Between(first, last) => (first, last),
    };
    PortRequest { transport, container_port: port.number, addresses, first, last }
}

/// Whether this host has IPv6 at its loopback at least.
fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/thread-self/net/if_inet6").is_ok_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use network::{Endpoint, Held};

    use super::*;

    fn spec(bindings: &[(&str, &str, &str)], exposed: &[&str]) -> ContainerSpec {
        let binding = |(port, address, host_port): &(&str, &str, &str)| {
            let binding =
                PortBinding { host_ip: address.parse().ok(), host_port: HostPortSpec::parse(host_port).unwrap() };
            (Port::parse(port).unwrap(), Some(binding))
        };
        ContainerSpec {
            port_bindings: bindings.iter().map(binding).collect(),
            exposed_ports: exposed.iter().map(|port| Port::parse(port).unwrap()).collect(),
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn numbers_come_before_ranges_and_any() {
        let spec = ContainerSpec {
            publish_all_ports: true,
            ..spec(&[("80", "", ""), ("81", "10.0.0.1", "8000-8010"), ("82/udp", "", "53")], &["80", "90/udp"])
        };
        let endpoint = Endpoint {
            network: "bridge".into(),
            interface: "eth0".into(),
            ipv4: Some(Held { address: [172, 17, 0, 2].into(), prefix: 16, gateway: None }),
            ipv6: None,
            mac: "02:42:ac:11:00:02".parse().unwrap(),
            host_interface: "veth".into(),
        };
        let targets = Targets { ipv4: Some(&endpoint), ipv6: None };
        let requests = requests(&spec, None, targets);
        let found: Vec<_> =
            requests.iter().map(|request| (request.container_port, request.first, request.last)).collect();
        assert_eq!(found, [(82, 53, 53), (81, 8000, 8010), (80, 0, 0), (90, 0, 0)]);
        let by_a_relay = Some(ANY_IPV6).filter(|_| has_ipv6());
        assert_eq!(requests[0].addresses, Some(ANY_IPV4).into_iter().chain(by_a_relay).collect::<Vec<_>>());
        assert_eq!(requests[1].addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }
}
