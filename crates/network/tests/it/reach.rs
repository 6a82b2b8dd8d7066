//! Who reaches whom.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use network::{
    AttachRequest, Attachment, Border, Definition, Family, GatewayMode, LeadsOut, Networks, Options, Pair, Sandbox,
    Warning,
};

use crate::world::{Host, Machine, call_tcp, echo_udp, serve_tcp, within};

fn address(sandbox: &Sandbox) -> Ipv4Addr {
    sandbox.endpoint.as_ref().unwrap().ipv4.unwrap().address
}

#[test]
fn two_containers_and_their_host_speak_with_each_other() {
    let host = Host::new();
    let networks = host.open();
    let (one, two) = (networks.take(Attachment::Bridge).unwrap(), networks.take(Attachment::Bridge).unwrap());
    assert_eq!(address(&one), Ipv4Addr::new(172, 17, 0, 2));
    assert_ne!(address(&one), address(&two));
    let server = serve_tcp(two.namespace.as_fd(), (address(&two), 80).into());
    call_tcp(one.namespace.as_fd(), server.address).unwrap();
    assert_eq!(server.caller().ip(), address(&one));
    echo_udp(one.namespace.as_fd(), two.namespace.as_fd(), address(&two)).unwrap();
    let server = serve_tcp(host.machine.namespace.as_fd(), (networks.bridge().gateway, 8080).into());
    call_tcp(one.namespace.as_fd(), server.address).unwrap();
    let server = serve_tcp(one.namespace.as_fd(), (address(&one), 81).into());
    call_tcp(host.machine.namespace.as_fd(), server.address).unwrap();
}

#[test]
fn a_container_reaches_out_as_its_host() {
    let (host, outside) = Host::with_outside();
    let networks = host.open();
    assert_eq!(networks.warnings(), [Warning::ForwardingEnabled(Family::Ipv4)], "a host like any other");
    let sandbox = networks.take(Attachment::Bridge).unwrap();
    let server = serve_tcp(outside.namespace.as_fd(), ([198, 51, 100, 2], 80).into());
    call_tcp(sandbox.namespace.as_fd(), server.address).unwrap();
    assert_eq!(server.caller().ip(), Ipv4Addr::new(198, 51, 100, 1));
    echo_udp(sandbox.namespace.as_fd(), outside.namespace.as_fd(), Ipv4Addr::new(198, 51, 100, 2)).unwrap();
}

#[test]
fn nobody_outside_reaches_a_container_by_a_route_to_its_address() {
    let (host, outside) = Host::with_outside();
    let networks = host.open();
    let sandbox = networks.take(Attachment::Bridge).unwrap();
    outside.add_route([172, 17, 0, 0], 16, [198, 51, 100, 1]);
    let target: SocketAddr = (address(&sandbox), 80).into();
    let server = serve_tcp(sandbox.namespace.as_fd(), target);
    call_tcp(outside.namespace.as_fd(), target).unwrap_err();
    // It is the rules that keep it out: without them the way is open, so this test would notice if they did nothing.
    drop(networks);
    host.machine.nft(&["flush", "ruleset"]);
    call_tcp(outside.namespace.as_fd(), target).unwrap();
    assert_eq!(server.caller().ip(), Ipv4Addr::new(198, 51, 100, 2));
}

#[test]
fn the_second_barrier_holds_without_the_first() {
    let (host, outside) = Host::with_outside();
    let networks = host.open();
    let sandbox = networks.take(Attachment::Bridge).unwrap();
    outside.add_route([172, 17, 0, 0], 16, [198, 51, 100, 1]);
    drop(networks);
    host.machine.nft(&["flush", "chain", "inet", "conex", "direct-access"]);
    let target: SocketAddr = (address(&sandbox), 80).into();
    let _server = serve_tcp(sandbox.namespace.as_fd(), target);
    call_tcp(outside.namespace.as_fd(), target).unwrap_err();
}

#[test]
fn the_host_does_not_become_a_router_between_its_interfaces() {
    let (host, outside) = Host::with_outside();
    let inside = Machine::new();
    host.machine.connect("lan0", [203, 0, 113, 1], &inside, "eth0", [203, 0, 113, 2]);
    // Veth pairs stand for cards here, and cards have no kind: what the record says is what counts.
    let record = r#"{"version":1,"value":{"kept_apart":["up0","lan0"],"present":["up0","lan0"]}}"#;
    std::fs::write(host.run.path().join("forwarding.json"), record).unwrap();
    inside.add_route([0, 0, 0, 0], 0, [203, 0, 113, 1]);
    outside.add_route([203, 0, 113, 0], 24, [198, 51, 100, 1]);
    let target: SocketAddr = ([203, 0, 113, 2], 80).into();
    let server = serve_tcp(inside.namespace.as_fd(), target);
    call_tcp(outside.namespace.as_fd(), target).unwrap_err();
    let networks = host.open();
    assert_eq!(host.machine.setting("ipv4/ip_forward"), "1");
    call_tcp(outside.namespace.as_fd(), target).unwrap_err();
    drop(networks);
    host.machine.nft(&["flush", "ruleset"]);
    call_tcp(outside.namespace.as_fd(), target).unwrap();
    server.caller();
}

#[test]
fn containers_of_two_engines_do_not_meet() {
    let (host, outside) = Host::with_outside();
    let ours = host.open();
    let run = tempfile::tempdir().unwrap();
    let options = Options { ready: 1, ..Options::new("other", run.path().to_owned()) };
    let theirs = host.machine.run(|| Networks::open(&options, &[], &[]).unwrap());
    assert_eq!(
        (theirs.bridge().interface.as_str(), theirs.bridge().subnet.to_string().as_str()),
        ("other0", "172.18.0.0/16")
    );
    let (one, two) = (ours.take(Attachment::Bridge).unwrap(), theirs.take(Attachment::Bridge).unwrap());
    let _server = serve_tcp(two.namespace.as_fd(), (address(&two), 80).into());
    call_tcp(one.namespace.as_fd(), (address(&two), 80).into()).unwrap_err();
    let server = serve_tcp(outside.namespace.as_fd(), ([198, 51, 100, 2], 80).into());
    call_tcp(two.namespace.as_fd(), server.address).unwrap();
    server.caller();
}

#[test]
fn a_network_without_ipv6_has_none_in_its_containers() {
    let host = Host::new();
    let networks = host.open();
    let sandbox = networks.take(Attachment::Bridge).unwrap();
    let inside =
        within(sandbox.namespace.as_fd(), || std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap());
    assert!(inside.lines().all(|line| line.ends_with(" lo")), "{inside}");
    let outside = host.machine.run(|| std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap());
    assert!(outside.lines().all(|line| line.trim_end().ends_with(" lo")), "{outside}");
    assert_eq!(host.machine.setting("ipv6/conf/conex0/accept_ra"), "0");
}

#[test]
fn none_is_loopback_and_nothing_else() {
    let host = Host::new();
    let networks = host.open();
    let sandbox = networks.take(Attachment::None).unwrap();
    assert_eq!(sandbox.endpoint, None);
    let server = serve_tcp(sandbox.namespace.as_fd(), ([127, 0, 0, 1], 80).into());
    call_tcp(sandbox.namespace.as_fd(), server.address).unwrap();
    server.caller();
    let routes = within(sandbox.namespace.as_fd(), || std::fs::read_to_string("/proc/thread-self/net/route").unwrap());
    assert_eq!(routes.lines().count(), 1, "{routes}");
}

#[test]
fn any_user_may_bind_low_ports_and_ping() {
    let host = Host::new();
    let networks = host.open();
    for attachment in [Attachment::Bridge, Attachment::None] {
        let sandbox = networks.take(attachment).unwrap();
        within(sandbox.namespace.as_fd(), || {
            let setting = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
            assert_eq!(setting("ip_unprivileged_port_start").trim(), "0");
            assert_eq!(setting("ping_group_range").split_whitespace().collect::<Vec<_>>(), ["0", "2147483647"]);
        });
    }
}

#[test]
fn containers_speak_on_a_bridge_without_an_address() {
    let host = Host::new();
    let networks = host.open();
    // As where br_netfilter has bridged packets pass the rules.
    host.machine.run(|| std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1").unwrap());
    let inhibited = |definition| Definition { inhibit_ipv4: true, ..definition };
    let isolated = |definition| {
        let border4 = Border { mode: GatewayMode::Isolated, masquerade: false };
        Definition { border4, internal: true, ..definition }
    };
    for (number, id) in ["a123456789abcdef", "b123456789abcdef"].into_iter().enumerate() {
        let subnet: network::Subnet = format!("10.7{number}.0.0/24").parse().unwrap();
        let interface = network::Names::user_bridge(id);
        let ipv4 = vec![network::Pool::whole(subnet)];
        let definition = Definition { interface, ipv4, talk: true, ..Definition::nothing(id) };
        let definition = if number == 0 { inhibited(definition) } else { isolated(definition) };
        host.machine.run(|| networks.add(&definition).unwrap());
        let [one, two] = [(); 2].map(|()| {
            let sandbox = networks.take(Attachment::None).unwrap();
            let request = AttachRequest {
                network: id,
                interface: "eth0",
                addresses: Pair::default(),
                mac: None,
                leads_out: LeadsOut::YES,
                link_local: &[],
                settings: &[],
            };
            let endpoint = networks.attach(sandbox.namespace.as_fd(), &request).unwrap();
            (sandbox, endpoint.ipv4.unwrap().address)
        });
        echo_udp(one.0.namespace.as_fd(), two.0.namespace.as_fd(), two.1).unwrap();
        // Under an address of elsewhere nothing gets through.
        let stolen: std::net::Ipv4Addr = [192, 0, 2, 7].into();
        within(one.0.namespace.as_fd(), || {
            let mut socket = netlink::Socket::open(netlink::Family::Route).unwrap();
            let link = socket.link_by_name("eth0").unwrap().unwrap().index;
            let stolen = netlink::address::LinkAddress { link, address: stolen.into(), prefix: 32 };
            socket.execute(&mut [stolen.add()]).unwrap();
        });
        let server = within(two.0.namespace.as_fd(), || std::net::UdpSocket::bind((two.1, 9)).unwrap());
        server.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        within(one.0.namespace.as_fd(), || {
            std::net::UdpSocket::bind((stolen, 0)).unwrap().send_to(b"spoofed", (two.1, 9)).unwrap();
        });
        server.recv(&mut [0; 8]).unwrap_err();
    }
}
