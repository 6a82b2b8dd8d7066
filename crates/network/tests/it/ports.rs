//! Who reaches a published port, by which way, under which address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use network::{
    Attachment, Endpoint, Networks, Place, PortRequest, PublishedPorts, Remaining, Sandbox, Targets, Transport,
};

use crate::world::{Host, Machine, call_tcp, serve_tcp, within};

const HOST: [u8; 4] = [198, 51, 100, 1];
const NEIGHBOUR: [u8; 4] = [198, 51, 100, 2];

fn request(transport: Transport, address: [u8; 4], port: u16, container_port: u16) -> PortRequest {
    PortRequest { transport, container_port, addresses: vec![Ipv4Addr::from(address).into()], first: port, last: port }
}

/// An endpoint as the place that ports lead to.
fn to(endpoint: &Endpoint) -> Targets<'_> {
    Targets { ipv4: Some(endpoint), ipv6: Some(endpoint) }
}

/// A container with a port published at this address of the host.
fn published(host: &Host, networks: &Networks, address: [u8; 4], port: u16) -> (Sandbox, PublishedPorts) {
    let sandbox = networks.take(Attachment::Bridge).unwrap();
    let wanted = [request(Transport::Tcp, address, port, 80)];
    let endpoint = sandbox.endpoint.clone().unwrap();
    let ports = host.machine.run(|| networks.publish(&wanted, to(&endpoint)).unwrap());
    (sandbox, ports)
}

fn own(sandbox: &Sandbox) -> SocketAddr {
    (sandbox.endpoint.as_ref().unwrap().ipv4.unwrap().address, 80).into()
}

/// Whom the container sees when `caller` calls `target`; `None` when nobody comes.
fn seen(sandbox: &Sandbox, caller: &Machine, target: SocketAddr) -> Option<IpAddr> {
    let server = serve_tcp(sandbox.namespace.as_fd(), own(sandbox));
    let called = call_tcp(caller.namespace.as_fd(), target);
    if called.is_err() {
        // The server waits for one caller.
        call_tcp(sandbox.namespace.as_fd(), own(sandbox)).unwrap();
        server.caller();
        return None;
    }
    Some(server.caller().ip())
}

fn machine(sandbox: &Sandbox) -> Machine {
    Machine { namespace: sandbox.namespace.try_clone().unwrap() }
}

#[test]
fn the_neighbour_the_host_and_containers_reach_a_port_of_every_address() {
    let (host, outside) = Host::with_outside();
    let networks = host.open();
    let (server, ports) = published(&host, &networks, [0, 0, 0, 0], 8080);
    let other = networks.take(Attachment::Bridge).unwrap();
    let at = |address: [u8; 4]| SocketAddr::from((address, 8080));
    let gateway: IpAddr = networks.bridge().gateway.into();
    let table = [
        ("neighbour", &outside, HOST, Some(IpAddr::from(NEIGHBOUR))),
        ("host by its address", &host.machine, HOST, Some(HOST.into())),
        ("host by loopback", &host.machine, [127, 0, 0, 1], Some(gateway)),
        ("another container", &machine(&other), HOST, Some(gateway)),
        ("another container by the gateway", &machine(&other), networks.bridge().gateway.octets(), Some(gateway)),
        ("the container itself", &machine(&server), HOST, Some(gateway)),
    ];
    for (who, caller, address, expected) in table {
        assert_eq!(seen(&server, caller, at(address)), expected, "{who}");
    }
    // The port is the host's: the container's own address stays unreachable, and so do ports that nobody published.
    outside.add_route([172, 17, 0, 0], 16, HOST);
    assert_eq!(seen(&server, &outside, own(&server)), None);
    assert_eq!(seen(&server, &outside, SocketAddr::from((HOST, 80))), None);
    networks.unpublish(&ports);
    networks.settle();
    assert_eq!(seen(&server, &outside, at(HOST)), None);
}

#[test]
fn a_port_of_loopback_is_the_hosts_alone() {
    let (host, outside) = Host::with_outside();
    let networks = host.open();
    let (server, _ports) = published(&host, &networks, [127, 0, 0, 1], 8080);
    let at = |address: [u8; 4]| SocketAddr::from((address, 8080));
    assert!(seen(&server, &host.machine, at([127, 0, 0, 1])).is_some());
    assert_eq!(seen(&server, &host.machine, at(HOST)), None);
    assert_eq!(seen(&server, &outside, at(HOST)), None);
    // A neighbour that sends packets for loopback over the cable, to a host that would even take them.
    host.machine.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap());
    outside.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap());
    leads_to_loopback(&outside, HOST);
    assert_eq!(seen(&server, &outside, at([127, 0, 0, 1])), None);
}

/// Has the machine send packets for 127.0.0.1 to a gateway instead of to itself.
fn leads_to_loopback(machine: &Machine, gateway: [u8; 4]) {
    let ip = |arguments: &[&str]| {
        let output = machine.run(|| std::process::Command::new("ip").args(arguments).output().unwrap());
        assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let gateway = Ipv4Addr::from(gateway).to_string();
    ip(&["addr", "del", "127.0.0.1/8", "dev", "lo"]);
    ip(&["route", "add", "127.0.0.1/32", "via", &gateway, "src", "198.51.100.2"]);
}

#[test]
fn containers_do_not_reach_what_listens_on_the_hosts_loopback() {
    let host = Host::new();
    let networks = host.open();
    let sandbox = networks.take(Attachment::Bridge).unwrap();
    let attacker = machine(&sandbox);
    attacker.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap());
    let gateway = networks.bridge().gateway.to_string();
    let output = attacker.run(|| {
        let script = format!("ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1/32 via {gateway} dev eth0");
        std::process::Command::new("sh").args(["-c", &script]).output().unwrap()
    });
    assert!(output.status.success(), "{output:?}");
    let listener = host.machine.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
    call_tcp(attacker.namespace.as_fd(), listener.local_addr().unwrap()).unwrap_err();
    // It is our rule: without it the way is open.
    host.machine.nft(&["insert", "rule", "inet", "conex", "direct-access", "accept"]);
    let server = serve_tcp(host.machine.namespace.as_fd(), ([127, 0, 0, 1], 0).into());
    call_tcp(attacker.namespace.as_fd(), server.address).unwrap();
}

#[test]
fn udp_goes_to_the_container_and_back() {
    let (host, outside) = Host::with_outside();
    let networks = host.open();
    let sandbox = networks.take(Attachment::Bridge).unwrap();
    let endpoint = sandbox.endpoint.clone().unwrap();
    let wanted = [request(Transport::Udp, [0, 0, 0, 0], 5353, 53)];
    host.machine.run(|| networks.publish(&wanted, to(&endpoint)).unwrap());
    let patience = Some(Duration::from_secs(5));
    let server = within(sandbox.namespace.as_fd(), || UdpSocket::bind("0.0.0.0:53").unwrap());
    let client = outside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    client.set_read_timeout(patience).unwrap();
    server.set_read_timeout(patience).unwrap();
    client.send_to(b"ping", (Ipv4Addr::from(HOST), 5353)).unwrap();
    let mut bytes = [0; 4];
    let (_, from) = server.recv_from(&mut bytes).unwrap();
    assert_eq!(from.ip(), IpAddr::from(NEIGHBOUR));
    server.send_to(&bytes, from).unwrap();
    assert_eq!(client.recv_from(&mut bytes).unwrap().1, SocketAddr::from((HOST, 5353)));
}

#[test]
fn ports_outlive_the_engine_and_a_flush() {
    let (host, outside) = Host::with_outside();
    let networks = host.open();
    let (server, ports) = published(&host, &networks, [0, 0, 0, 0], 8080);
    let place = Place { endpoints: vec![server.endpoint.clone().unwrap()], ports, ..Place::default() };
    drop(networks);
    let target = SocketAddr::from((HOST, 8080));
    assert!(seen(&server, &outside, target).is_some(), "while no engine runs");
    let networks = host.machine.run(|| Networks::open(&host.options(), &[], std::slice::from_ref(&place)).unwrap());
    assert!(seen(&server, &outside, target).is_some(), "after the next start");
    let taken = host.machine.run(|| {
        let other = networks.take(Attachment::Bridge).unwrap();
        let error =
            networks.publish(&[request(Transport::Tcp, HOST, 8080, 80)], to(&other.endpoint.unwrap())).unwrap_err();
        error.to_string()
    });
    assert_eq!(taken, "Bind for 198.51.100.1:8080 failed: port is already allocated");
    let rules = host.machine.nft(&["list", "ruleset"]);
    assert!(rules.contains("8080"), "{rules}");
    host.machine.nft(&["flush", "ruleset"]);
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while host.machine.nft(&["list", "ruleset"]) != rules {
        assert!(std::time::Instant::now() < end, "the rules did not come back");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(seen(&server, &outside, target).is_some(), "after a flush");
    networks.unpublish(&place.ports);
    networks.release(place.endpoints[0].clone());
    networks.settle();
    host.machine.run(|| networks.close(Remaining::Nothing)).unwrap();
    assert_eq!(host.machine.nft(&["list", "ruleset"]), "");
}

#[test]
fn a_port_that_is_given_back_is_free_at_once() {
    let host = Host::new();
    let networks = host.open();
    for _ in 0..20 {
        let (sandbox, ports) = published(&host, &networks, [0, 0, 0, 0], 8080);
        networks.unpublish(&ports);
        networks.release(sandbox.endpoint.unwrap());
    }
    let (server, _ports) = published(&host, &networks, [0, 0, 0, 0], 8080);
    assert!(seen(&server, &host.machine, ([127, 0, 0, 1], 8080).into()).is_some());
}

#[test]
fn tens_of_thousands_of_ports_at_once() {
    let host = Host::new();
    let networks = host.open();
    let sandbox = networks.take(Attachment::Bridge).unwrap();
    let endpoint = sandbox.endpoint.clone().unwrap();
    let wanted: Vec<PortRequest> =
        (1..=20_000).map(|port| request(Transport::Tcp, [0, 0, 0, 0], 10_000 + port, port)).collect();
    let ports = host.machine.run(|| networks.publish(&wanted, to(&endpoint)).unwrap());
    assert_eq!(ports.len(), 20_000);
    assert!(seen(&sandbox, &host.machine, ([127, 0, 0, 1], 10_080).into()).is_some());
    networks.unpublish(&ports);
    networks.settle();
    assert!(!host.machine.nft(&["list", "ruleset"]).contains("10080"));
}
