//! Opening, taking, giving back, dying, closing.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use netlink::link::{self, NewVeth};
use netlink::{Family, Socket};
use network::{Attachment, Networks, OpenError, Options, Place, Remaining, Sandbox, TakeError};

use crate::world::{Host, Machine, call_tcp, serve_tcp, within};

fn take(networks: &Networks) -> Sandbox {
    networks.take(Attachment::Bridge).unwrap()
}

/// The names of the bridge's ports.
fn ports(host: &Host) -> Vec<String> {
    let mut socket = host.machine.socket();
    let bridge = socket.link_by_name("conex0").unwrap().unwrap().index;
    let mut names: Vec<String> = socket.ports(bridge).unwrap().into_iter().map(|port| port.name).collect();
    names.sort();
    names
}

#[test]
fn closing_leaves_nothing() {
    let (host, _outside) = Host::with_outside();
    let before = host.machine.link_names();
    let networks = host.open();
    let (one, two) = (take(&networks), take(&networks));
    networks.release(one.endpoint.unwrap());
    networks.release(two.endpoint.unwrap());
    networks.settle();
    host.machine.run(|| networks.close(Remaining::Nothing)).unwrap();
    assert_eq!(host.machine.link_names(), before);
    assert_eq!(host.machine.nft(&["list", "ruleset"]), "");
    assert_eq!(host.machine.setting("ipv4/ip_forward"), "0");
    assert_eq!(std::fs::read_dir(host.run.path()).unwrap().count(), 0);
}

#[test]
fn forwarding_stays_on_when_others_came_to_rely_on_it() {
    let host = Host::new();
    let networks = host.open();
    let another = Machine::new();
    host.machine.connect("docker0", [10, 0, 0, 1], &another, "eth0", [10, 0, 0, 2]);
    host.machine.run(|| networks.close(Remaining::Nothing)).unwrap();
    assert_eq!(host.machine.setting("ipv4/ip_forward"), "1");
}

#[test]
fn the_supply_is_refilled_and_what_is_given_back_is_unplugged() {
    let host = Host::new();
    let networks = host.open();
    networks.settle();
    assert_eq!(ports(&host).len(), 2);
    let taken: Vec<Sandbox> = (0..5).map(|_| take(&networks)).collect();
    networks.settle();
    assert_eq!(ports(&host).len(), 7);
    let names: Vec<String> = taken.iter().map(|sandbox| sandbox.endpoint.clone().unwrap().host_interface).collect();
    taken.into_iter().for_each(|sandbox| networks.release(sandbox.endpoint.unwrap()));
    networks.settle();
    let left = ports(&host);
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|port| !names.contains(port)));
}

#[test]
fn releasing_what_the_kernel_has_already_taken_away_is_fine() {
    let host = Host::new();
    let networks = host.open();
    let (gone, there) = (take(&networks), take(&networks));
    let endpoint = gone.endpoint.clone().unwrap();
    host.machine.configure(&mut [link::delete(link::Target::Name(&endpoint.host_interface))]);
    networks.release(endpoint);
    networks.release(there.endpoint.unwrap());
    networks.settle();
    assert_eq!(ports(&host).len(), 2);
}

#[test]
fn a_container_outlives_its_engine() {
    let host = Host::new();
    let networks = host.open();
    let (kept, forgotten) = (take(&networks), take(&networks));
    let endpoint = kept.endpoint.clone().unwrap();
    drop(networks);
    assert_eq!(ports(&host).len(), 2);
    let running = [Place { endpoints: vec![endpoint.clone()], ..Place::default() }];
    let networks = host.machine.run(|| Networks::open(&host.options(), &[], &running).unwrap());
    // Of the two one is known to run; the other is nobody's, and its end in the namespace goes with the host's.
    assert!(ports(&host).contains(&endpoint.host_interface));
    assert!(!ports(&host).contains(&forgotten.endpoint.unwrap().host_interface));
    let newcomer = take(&networks);
    assert_ne!(newcomer.endpoint.as_ref().unwrap().ipv4.unwrap().address, endpoint.ipv4.unwrap().address);
    let server = serve_tcp(kept.namespace.as_fd(), (endpoint.ipv4.unwrap().address, 80).into());
    call_tcp(newcomer.namespace.as_fd(), server.address).unwrap();
    server.caller();
    host.machine.run(|| networks.close(Remaining::Containers)).unwrap();
    assert_eq!(ports(&host), [endpoint.host_interface.clone(), newcomer.endpoint.unwrap().host_interface].map_sorted());
}

#[test]
fn what_ended_with_the_machine_binds_nobody() {
    let host = Host::new();
    let networks = host.open();
    let before = [Place { endpoints: vec![take(&networks).endpoint.unwrap()], ..Place::default() }];
    host.machine.run(|| networks.close(Remaining::Nothing)).unwrap();
    let neighbour = Machine::new();
    host.machine.connect("lan0", [172, 17, 4, 1], &neighbour, "eth0", [172, 17, 4, 2]);
    let networks = host.machine.run(|| Networks::open(&host.options(), &[], &before).unwrap());
    assert_eq!(networks.bridge().subnet.to_string(), "172.18.0.0/16");
    networks.release(before[0].endpoints[0].clone());
    networks.settle();
}

trait MapSorted {
    fn map_sorted(self) -> Vec<String>;
}

impl MapSorted for [String; 2] {
    fn map_sorted(mut self) -> Vec<String> {
        self.sort();
        self.to_vec()
    }
}

#[test]
fn a_dead_engines_unused_namespaces_go_by_themselves() {
    let host = Host::new();
    let networks = host.open();
    networks.settle();
    drop(networks);
    let socket_sees_none = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        ports(&host).is_empty()
    });
    assert!(socket_sees_none, "{:?}", ports(&host));
}

#[test]
fn strangers_on_the_bridge_are_removed_at_the_start() {
    let host = Host::new();
    drop(host.open());
    let other = Machine::new();
    let stray = NewVeth {
        name: "stray",
        mac: [2, 0, 0, 0, 0, 1],
        mtu: None,
        peer: "x",
        peer_namespace: other.namespace.as_fd(),
        peer_group: None,
    };
    host.machine.configure(&mut [link::create_veth(&stray)]);
    let bridge = host.machine.socket().link_by_name("conex0").unwrap().unwrap().index;
    let plugged = link::Change { master: Some(bridge), ..link::Change::default() };
    host.machine.configure(&mut [link::change(link::Target::Name("stray"), &plugged)]);
    let _networks = host.open();
    assert!(!host.machine.link_names().contains(&"stray".to_owned()));
}

#[test]
fn an_interface_that_is_not_ours_is_not_touched() {
    let host = Host::new();
    let mac = [2, 0, 0, 0, 0, 1];
    host.machine.configure(&mut [link::create_bridge(&link::NewBridge { name: "conex0", mac, mtu: None })]);
    let error = host.machine.run(|| Networks::open(&host.options(), &[], &[]).unwrap_err());
    assert!(matches!(error, OpenError::ForeignInterface { .. }), "{error}");
    assert!(host.machine.link_names().contains(&"conex0".to_owned()));
}

#[test]
fn a_subnet_that_the_host_is_in_is_left_alone() {
    let host = Host::new();
    let neighbour = Machine::new();
    host.machine.connect("lan0", [172, 17, 4, 1], &neighbour, "eth0", [172, 17, 4, 2]);
    let wanted = Options { subnet: Some("172.17.0.0/16".parse().unwrap()), ..host.options() };
    let error = host.machine.run(|| Networks::open(&wanted, &[], &[]).unwrap_err());
    assert!(matches!(error, OpenError::SubnetTaken { .. }), "{error}");
    let networks = host.open();
    assert_eq!(networks.bridge().subnet.to_string(), "172.18.0.0/16");
    drop(networks);
    // The next start keeps it, unless told otherwise.
    assert_eq!(host.open().bridge().subnet.to_string(), "172.18.0.0/16");
    let wanted = Options { subnet: Some("10.77.0.0/24".parse().unwrap()), mtu: Some(1280), ..host.options() };
    let networks = host.machine.run(|| Networks::open(&wanted, &[], &[]).unwrap());
    let sandbox = take(&networks);
    assert_eq!(sandbox.endpoint.as_ref().unwrap().ipv4.unwrap().address, Ipv4Addr::new(10, 77, 0, 2));
    let mut inside = within(sandbox.namespace.as_fd(), || Socket::open(Family::Route).unwrap());
    assert_eq!(inside.link_by_name("eth0").unwrap().unwrap().mtu, 1280);
    assert_eq!(host.machine.socket().addresses().unwrap().iter().filter(|a| a.address.is_ipv4()).count(), 3);
}

#[test]
fn the_mtu_is_the_uplinks_where_that_is_smaller() {
    let (host, _outside) = Host::with_outside();
    let smaller = link::Change { mtu: Some(1400), ..link::Change::default() };
    host.machine.configure(&mut [link::change(link::Target::Name("up0"), &smaller)]);
    assert_eq!(host.open().bridge().mtu, 1400);
}

#[test]
fn addresses_run_out_and_come_back() {
    let host = Host::new();
    let options = Options { subnet: Some("10.77.0.0/29".parse().unwrap()), ready: 0, ..host.options() };
    let networks = host.machine.run(|| Networks::open(&options, &[], &[]).unwrap());
    let mut taken: Vec<Sandbox> = (0..5).map(|_| take(&networks)).collect();
    let error = networks.take(Attachment::Bridge).unwrap_err();
    assert!(matches!(error, TakeError::Supply(_)) && error.to_string().contains("no available"), "{error}");
    networks.release(taken.pop().unwrap().endpoint.unwrap());
    assert_eq!(take(&networks).endpoint.unwrap().ipv4.unwrap().address, Ipv4Addr::new(10, 77, 0, 6));
}

#[test]
fn a_supply_that_cannot_make_ahead_does_not_spin_and_recovers() {
    let host = Host::new();
    let options = Options { subnet: Some("10.77.0.0/30".parse().unwrap()), ready: 3, ..host.options() };
    let networks = host.machine.run(|| Networks::open(&options, &[], &[]).unwrap());
    let only = take(&networks);
    networks.take(Attachment::Bridge).unwrap_err();
    networks.release(only.endpoint.unwrap());
    assert_eq!(take(&networks).endpoint.unwrap().ipv4.unwrap().address, Ipv4Addr::new(10, 77, 0, 2));
    networks.take(Attachment::None).unwrap();
}

#[test]
fn a_container_may_choose_its_hardware_address() {
    let host = Host::new();
    let networks = host.open();
    let mac = "02:42:00:00:00:99".parse().unwrap();
    let sandbox = networks.with_mac(take(&networks), mac).unwrap();
    assert_eq!(sandbox.endpoint.as_ref().unwrap().mac, mac);
    let mut inside = within(sandbox.namespace.as_fd(), || Socket::open(Family::Route).unwrap());
    assert_eq!(inside.link_by_name("eth0").unwrap().unwrap().mac, Some(mac.octets()));
    let server =
        serve_tcp(sandbox.namespace.as_fd(), (sandbox.endpoint.as_ref().unwrap().ipv4.unwrap().address, 80).into());
    call_tcp(host.machine.namespace.as_fd(), server.address).unwrap();
    server.caller();
}

#[test]
fn neighbours_learn_at_once_that_an_address_has_a_new_owner() {
    let host = Host::new();
    let options = Options { subnet: Some("10.77.0.0/29".parse().unwrap()), ready: 0, ..host.options() };
    let networks = host.machine.run(|| Networks::open(&options, &[], &[]).unwrap());
    let caller = take(&networks);
    let speaks_with = |sandbox: &Sandbox| {
        let server =
            serve_tcp(sandbox.namespace.as_fd(), (sandbox.endpoint.as_ref().unwrap().ipv4.unwrap().address, 80).into());
        call_tcp(caller.namespace.as_fd(), server.address).unwrap();
        server.caller();
    };
    let first = networks.with_mac(take(&networks), "02:42:00:00:00:99".parse().unwrap()).unwrap();
    let address = first.endpoint.as_ref().unwrap().ipv4.unwrap().address;
    speaks_with(&first);
    networks.release(first.endpoint.clone().unwrap());
    networks.settle();
    let others: Vec<Sandbox> = (0..3).map(|_| take(&networks)).collect();
    let second = take(&networks);
    assert_eq!(second.endpoint.as_ref().unwrap().ipv4.unwrap().address, address);
    speaks_with(&second);
    drop(others);
}

#[test]
fn traffic_is_counted_from_the_containers_side() {
    let host = Host::new();
    let networks = host.open();
    let sandbox = take(&networks);
    let endpoint = sandbox.endpoint.clone().unwrap();
    let gateway = networks.bridge().gateway;
    let listener = within(host.machine.namespace.as_fd(), || std::net::UdpSocket::bind((gateway, 9)).unwrap());
    let before = networks.statistics(&endpoint).unwrap();
    within(sandbox.namespace.as_fd(), || {
        let socket = std::net::UdpSocket::bind((endpoint.ipv4.unwrap().address, 0)).unwrap();
        // What waits for the neighbour's address has little room: one packet finds it out for the others.
        socket.send_to(b"first", (gateway, 9)).unwrap();
        listener.recv(&mut [0; 5]).unwrap();
        (0..100).for_each(|_| assert_eq!(socket.send_to(&[7; 1000], (gateway, 9)).unwrap(), 1000));
    });
    let after = networks.statistics(&endpoint).unwrap();
    assert!(after.tx_bytes - before.tx_bytes > 100_000, "{after:?}");
    assert!(after.rx_bytes - before.rx_bytes < 10_000, "{after:?}");
    networks.release(endpoint.clone());
    networks.settle();
    assert!(networks.statistics(&endpoint).unwrap_err().to_string().contains("gone"));
}

#[test]
fn many_takers_at_once_all_get_one_of_their_own() {
    let host = Host::new();
    let networks = host.open();
    let taken: Vec<Sandbox> = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..40).map(|_| scope.spawn(|| take(&networks))).collect();
        takers.into_iter().map(|taker| taker.join().unwrap()).collect()
    });
    let mut addresses: Vec<Ipv4Addr> =
        taken.iter().map(|sandbox| sandbox.endpoint.as_ref().unwrap().ipv4.unwrap().address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 40);
}
