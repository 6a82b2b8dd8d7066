//! The messages against the real kernel, each test in network namespaces of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

use netlink::address::LinkAddress;
use netlink::link::{self, Change, NewBridge, NewVeth, PortOptions, Power, Switch, Target};
use netlink::neighbour::Neighbour;
use netlink::route::Route;
use netlink::{Errno, Family, Socket, namespace};

/// A fresh namespace and a socket in it.
fn fresh() -> (OwnedFd, Socket) {
    let inside = namespace::create().unwrap();
    let socket = namespace::within(inside.as_fd(), || Socket::open(Family::Route).unwrap()).unwrap();
    (inside, socket)
}

fn bridge(name: &str) -> NewBridge<'_> {
    NewBridge { name, mac: [2, 0x42, 1, 2, 3, 4], mtu: Some(1400) }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_new_namespace_has_only_loopback_and_it_is_down() {
    let (_, mut socket) = fresh();
    let links = socket.links().unwrap();
    assert!(links.iter().all(|link| !link.up), "{links:?}");
    assert_eq!(socket.link_by_name("lo").unwrap().unwrap().index, 1);
    assert!(socket.link_by_name("eth0").unwrap().is_none());
    assert!(socket.link_by_index(4711).unwrap().is_none());
}

#[test]
fn a_bridge_is_made_changed_and_deleted() {
    let (_, mut socket) = fresh();
    let details = Change { alias: Some("ours"), power: Some(Power::Up), ..Change::default() };
    let mut batch = [link::create_bridge(&bridge("br0")), link::change(Target::Name("br0"), &details)];
    socket.execute(&mut batch).unwrap();
    socket.execute(&mut [link::disable_multicast_snooping("br0")]).unwrap();
    let made = socket.link_by_name("br0").unwrap().unwrap();
    assert_eq!((made.kind.as_str(), made.alias.as_str(), made.up, made.mtu), ("bridge", "ours", true, 1400));
    assert_eq!(made.mac, Some([2, 0x42, 1, 2, 3, 4]));
    assert!(made.statistics.is_some());
    socket.execute(&mut [link::delete(Target::Index(made.index))]).unwrap();
    assert!(socket.link_by_name("br0").unwrap().is_none());
}

#[test]
fn a_refusal_names_the_request_and_the_rest_is_still_done() {
    let (_, mut socket) = fresh();
    let mut batch =
        [link::create_bridge(&bridge("br0")), link::create_bridge(&bridge("br0")), link::create_bridge(&bridge("br1"))];
    let error = socket.execute(&mut batch).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EXIST));
    assert!(error.to_string().starts_with("cannot create bridge br0: "), "{error}");
    assert!(socket.link_by_name("br1").unwrap().is_some());
}

#[test]
fn the_kernels_own_words_come_along() {
    let (_, mut socket) = fresh();
    let error = socket.execute(&mut [link::delete_group(99)]).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NODEV));
    let missing = Change { master: Some(4711), ..Change::default() };
    let error = socket.execute(&mut [link::change(Target::Name("lo"), &missing)]).unwrap_err();
    assert!(error.to_string().contains("lo"), "{error}");
    let bad = LinkAddress { link: 1, address: ip("10.0.0.1"), prefix: 33 };
    let error = socket.execute(&mut [bad.add()]).unwrap_err();
    assert!(error.to_string().ends_with(')'), "no explanation in: {error}");
}

#[test]
fn a_veth_pair_spans_two_namespaces_from_the_start() {
    let (outside, mut outer) = fresh();
    let (_inside, mut inner) = fresh();
    let pair = NewVeth {
        name: "eth0",
        mac: [2, 0x42, 172, 17, 0, 2],
        mtu: Some(1400),
        peer: "veth0",
        peer_namespace: outside.as_fd(),
        peer_group: None,
    };
    inner.execute(&mut [link::create_veth(&pair)]).unwrap();
    let eth0 = inner.link_by_name("eth0").unwrap().unwrap();
    let veth0 = outer.link_by_name("veth0").unwrap().unwrap();
    assert_eq!((eth0.kind.as_str(), eth0.mac, eth0.mtu), ("veth", Some(pair.mac), 1400));
    assert_eq!((eth0.peer, veth0.peer, veth0.mtu), (Some(veth0.index), Some(eth0.index), 1400));
    outer.execute(&mut [link::create_bridge(&bridge("br0"))]).unwrap();
    let master = outer.link_by_name("br0").unwrap().unwrap().index;
    let port = Change { master: Some(master), power: Some(Power::Up), group: Some(77), ..Change::default() };
    let target = Target::Name("veth0");
    outer.execute(&mut [link::without_link_local(target), link::change(target, &port)]).unwrap();
    let options = PortOptions { hairpin: Some(Switch::On), isolated: Some(Switch::Off) };
    outer.execute(&mut [link::change_port(veth0.index, &options)]).unwrap();
    let ports = outer.ports(master).unwrap();
    assert_eq!(
        ports.iter().map(|port| (port.index, port.group, port.up)).collect::<Vec<_>>(),
        [(veth0.index, 77, true)]
    );
    outer.execute(&mut [link::delete_group(77)]).unwrap();
    assert!(inner.link_by_name("eth0").unwrap().is_none());
}

#[test]
fn a_link_is_renamed_and_moved() {
    let (outside, mut outer) = fresh();
    let (inside, mut inner) = fresh();
    let pair = NewVeth {
        name: "a",
        mac: [2, 0, 0, 0, 0, 1],
        mtu: None,
        peer: "b",
        peer_namespace: outside.as_fd(),
        peer_group: None,
    };
    outer.execute(&mut [link::create_veth(&pair)]).unwrap();
    let b = outer.link_by_name("b").unwrap().unwrap();
    let change = Change {
        name: Some("eth7"),
        mac: Some([2, 0, 0, 0, 0, 9]),
        namespace: Some(inside.as_fd()),
        ..Change::default()
    };
    outer.execute(&mut [link::change(Target::Index(b.index), &change)]).unwrap();
    assert_eq!(inner.link_by_name("eth7").unwrap().unwrap().mac, Some([2, 0, 0, 0, 0, 9]));
    assert!(outer.link_by_name("b").unwrap().is_none());
}

#[test]
fn addresses_routes_and_neighbours_are_added_listed_and_removed() {
    let (_, mut socket) = fresh();
    let up = Change { power: Some(Power::Up), ..Change::default() };
    socket.execute(&mut [link::create_bridge(&bridge("br0")), link::change(Target::Name("br0"), &up)]).unwrap();
    let index = socket.link_by_name("br0").unwrap().unwrap().index;
    let address = LinkAddress { link: index, address: ip("172.17.0.2"), prefix: 16 };
    let six = LinkAddress { link: index, address: ip("fd00::2"), prefix: 64 };
    let default = Route::default_by(ip("172.17.0.1"), index);
    let direct = Route { destination: ip("10.9.0.0"), prefix: 16, gateway: None, ..default };
    let neighbour = Neighbour { link: index, address: ip("172.17.0.9"), mac: Some([2, 0, 0, 0, 0, 9]) };
    let mut batch = [address.add(), six.add(), default.add(), direct.add(), neighbour.set()];
    socket.execute(&mut batch).unwrap();
    assert!(socket.addresses().unwrap().contains(&address));
    assert!(socket.addresses().unwrap().contains(&six));
    let routes = socket.routes().unwrap();
    let source = Some(ip("172.17.0.2"));
    let connected = Route { destination: ip("172.17.0.0"), prefix: 16, gateway: None, source, ..default };
    for route in [default, direct, connected] {
        assert!(routes.contains(&route), "{route:?} not in {routes:?}");
    }
    assert!(socket.neighbours().unwrap().contains(&neighbour));
    socket
        .execute(&mut [neighbour.remove(), default.remove(), direct.remove(), address.remove(), six.remove()])
        .unwrap();
    assert!(!socket.routes().unwrap().contains(&default));
    assert!(!socket.routes().unwrap().contains(&direct));
    assert!(socket.addresses().unwrap().iter().all(|left| left.address != IpAddr::from(Ipv4Addr::new(172, 17, 0, 2))));
    assert!(!socket.neighbours().unwrap().contains(&neighbour));
}

#[test]
fn a_large_batch_is_answered_in_full() {
    let (_, mut socket) = fresh();
    let mut batch: Vec<_> = (1..=250)
        .map(|last| LinkAddress { link: 1, address: Ipv4Addr::new(10, 1, 1, last).into(), prefix: 24 }.add())
        .collect();
    socket.execute(&mut batch).unwrap();
    assert_eq!(socket.addresses().unwrap().len(), 250);
}
