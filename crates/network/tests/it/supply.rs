//! What is made ready on users' networks, and that it is in nobody's way.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;

use network::{
    AttachRequest, Attachment, Definition, Endpoint, LeadsOut, Networks, Options, Pair, Pool, RESOLVER, Remaining,
    Sandbox, Subnet,
};

use crate::world::{Host, call_tcp, serve_tcp, within};

const ID: &str = "0123456789abcdef";

fn network(subnet: &str) -> Definition {
    let subnet: Subnet = subnet.parse().unwrap();
    let interface = network::Names::user_bridge(ID);
    Definition { interface, ipv4: vec![Pool::whole(subnet)], talk: true, ..Definition::nothing(ID) }
}

fn open(host: &Host, definition: &Definition) -> Networks {
    let options = Options { ready: 4, ..host.options() };
    host.machine.run(|| {
        let networks = Networks::open(&options, &[], &[]).unwrap();
        networks.add(definition).unwrap();
        networks
    })
}

fn attach(networks: &Networks, sandbox: &Sandbox, ipv4: Option<Ipv4Addr>) -> Result<Endpoint, network::AttachError> {
    let request = AttachRequest {
        network: ID,
        interface: "eth0",
        addresses: Pair { ipv4, ipv6: None },
        mac: None,
        leads_out: LeadsOut::YES,
        link_local: &[],
        settings: &[],
    };
    networks.attach(sandbox.namespace.as_fd(), &request)
}

fn address(endpoint: &Endpoint) -> Ipv4Addr {
    endpoint.ipv4.unwrap().address
}

/// The names of the host's ends of pairs.
fn pairs(host: &Host) -> usize {
    host.machine.link_names().iter().filter(|name| name.starts_with("veth")).count()
}

#[test]
fn a_users_network_has_namespaces_ready_once_one_was_asked_for() {
    let host = Host::new();
    let networks = open(&host, &network("10.77.0.0/24"));
    networks.settle();
    let of_the_default = pairs(&host);
    networks.expect(ID);
    networks.settle();
    assert!(pairs(&host) > of_the_default);
    let one = networks.take_if_ready(ID).unwrap();
    let endpoint = one.endpoint.clone().unwrap();
    assert_eq!((endpoint.network.as_str(), endpoint.interface.as_str()), (ID, "eth0"));
    let other = networks.take(Attachment::None).unwrap();
    let other_endpoint = attach(&networks, &other, None).unwrap();
    assert_ne!(address(&endpoint), address(&other_endpoint));
    let server = serve_tcp(one.namespace.as_fd(), (address(&endpoint), 80).into());
    call_tcp(other.namespace.as_fd(), server.address).unwrap();
    server.caller();
    // Questions for names arrive where they are waited for.
    let sockets = one.name_sockets.as_ref().unwrap();
    within(one.namespace.as_fd(), || {
        let asks = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        asks.send_to(b"who", (RESOLVER, 53)).unwrap();
    });
    sockets.datagrams.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    assert_eq!(sockets.datagrams.recv(&mut [0; 8]).unwrap(), 3);
    networks.release(endpoint);
    networks.release(other_endpoint);
    host.machine.run(|| networks.close(Remaining::Nothing)).unwrap();
    assert_eq!(pairs(&host), 0);
}

#[test]
fn a_network_goes_at_once_with_what_was_ready_on_it() {
    let host = Host::new();
    let networks = open(&host, &network("10.77.0.0/24"));
    networks.settle();
    let before = pairs(&host);
    networks.expect(ID);
    networks.settle();
    let taken = networks.take_if_ready(ID).unwrap();
    assert!(!networks.remove(ID), "a container is on it");
    networks.release(taken.endpoint.clone().unwrap());
    assert!(networks.remove(ID));
    networks.settle();
    assert_eq!(pairs(&host), before);
    assert!(!host.machine.link_names().contains(&network("10.77.0.0/24").interface));
    networks.expect(ID);
    assert!(networks.take_if_ready(ID).is_none());
}

#[test]
fn a_container_has_the_address_that_was_held_ready() {
    let host = Host::new();
    let networks = open(&host, &network("10.77.0.0/29"));
    networks.expect(ID);
    networks.settle();
    let sandbox = networks.take(Attachment::None).unwrap();
    // The first are those of what is ready.
    let wanted = Ipv4Addr::new(10, 77, 0, 2);
    let first = attach(&networks, &sandbox, Some(wanted)).unwrap();
    assert_eq!(address(&first), wanted);
    let again = networks.take(Attachment::None).unwrap();
    let error = attach(&networks, &again, Some(wanted)).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    // All five of the subnet are for containers, whatever is ready.
    let mut held = vec![address(&first)];
    for _ in 0..4 {
        networks.expect(ID);
        networks.settle();
        let sandbox = networks.take(Attachment::None).unwrap();
        held.push(address(&attach(&networks, &sandbox, None).unwrap()));
    }
    held.sort();
    assert_eq!(held, (2..7).map(|last| Ipv4Addr::new(10, 77, 0, last)).collect::<Vec<_>>());
    let last = networks.take(Attachment::None).unwrap();
    let error = attach(&networks, &last, None).unwrap_err();
    assert!(error.to_string().contains("no available"), "{error}");
}

#[test]
fn so_many_networks_are_supplied_and_no_more() {
    let host = Host::new();
    let networks = open(&host, &network("10.77.0.0/24"));
    networks.settle();
    let of_the_default = pairs(&host);
    // What is taken is held: the kernel takes the interfaces of what is dropped away when it comes to it.
    let (mut most, mut taken) = (0, Vec::new());
    for number in 0..12 {
        let subnet: Subnet = format!("10.78.{number}.0/24").parse().unwrap();
        let id = format!("{number:02}3456789abcdef");
        let definition = Definition {
            id: id.clone(),
            interface: network::Names::user_bridge(&id),
            ipv4: vec![Pool::whole(subnet)],
            ..network("10.77.0.0/24")
        };
        host.machine.run(|| networks.add(&definition).unwrap());
        networks.expect(&id);
        networks.settle();
        most = most.max(pairs(&host) - of_the_default - taken.len());
        taken.push(networks.take_if_ready(&id).unwrap());
    }
    // Three are ready on each; those who were asked for longest ago have made room for the others.
    assert!((8 * 2..=8 * 3).contains(&most), "{most}");
}
