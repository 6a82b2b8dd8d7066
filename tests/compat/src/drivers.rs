//! Networks without a bridge: a route for each container, and a cable of the host's that containers share.

use harness::Engine;

use crate::peers::{Neighbour, address, address6, call, inside, reaches, serve};

/// Where the neighbour is; the host has no address on that cable.
const NEIGHBOUR: &[&str] = &["192.0.2.2/24", "fd55::2/64"];

#[test]
fn macvlan_puts_containers_on_the_hosts_cable() {
    let mut engine = Engine::with_busybox();
    let neighbour = Neighbour::on_cable(&engine, NEIGHBOUR);
    let create = ["network", "create", "-d", "macvlan", "-o", "parent=lan0", "--subnet", "192.0.2.0/24", "--ipv6"];
    engine.docker(create).args(["--subnet", "fd55::/64", "--gateway", "192.0.2.2", "--gateway", "fd55::2", "lan"]).ok();
    assert_eq!(
        engine.docker(["network", "inspect", "-f", "{{.Driver}} {{.Options.parent}}", "lan"]).ok(),
        "macvlan lan0"
    );
    serve(
        &engine,
        "one",
        &["--network", "lan", "--ip", "192.0.2.10", "--mac-address", "02:00:00:00:00:99", "-p", "8080:80"],
    );
    serve(&engine, "two", &["--network", "lan"]);
    assert!(reaches(&engine, "one", "192.0.2.2") && reaches(&engine, "one", "fd55::2"));
    assert!(reaches(&engine, "one", &address(&engine, "two", "lan")));
    assert!(neighbour.run("busybox", &["ping", "-c", "1", "-W", "1", "192.0.2.10"]));
    assert!(engine.docker(["exec", "one", "cat", "/sys/class/net/eth0/address"]).ok().contains("02:00:00:00:00:99"));
    assert!(engine.docker(["exec", "one", "ip", "route"]).ok().contains("default via 192.0.2.2"));
    assert_eq!(engine.docker(["port", "one"]).ok(), "", "it is reached at its own address");
    assert!(engine.docker(["exec", "two", "nslookup", "-type=a", "one"]).run().text().contains("192.0.2.10"));
    engine.kill();
    engine.launch();
    let taken = engine.docker(["run", "--network", "lan", "--ip", "192.0.2.10", "busybox", "true"]).fails(125);
    assert!(taken.contains("Address already in use"), "{taken}");
    // It comes and goes while a container runs.
    serve(&engine, "late", &[]);
    engine.docker(["network", "connect", "lan", "late"]).ok();
    assert!(reaches(&engine, "late", "192.0.2.2"));
    engine.docker(["network", "disconnect", "lan", "late"]).ok();
    assert_eq!(engine.docker(["exec", "late", "ls", "/sys/class/net"]).ok(), "eth0\nlo");
    let other = engine.docker(["network", "create", "-d", "macvlan", "-o", "parent=lan0", "more"]).fails(1);
    assert!(other.contains("network lan is already using parent interface lan0"), "{other}");
    drop(neighbour);
    engine.finish();
}

#[test]
fn macvlan_without_a_cable_and_what_is_refused() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "-d", "macvlan", "alone"]).ok();
    serve(&engine, "one", &["--network", "alone"]);
    serve(&engine, "two", &["--network", "alone"]);
    assert!(reaches(&engine, "one", &address(&engine, "two", "alone")));
    assert!(!engine.docker(["exec", "one", "ip", "route"]).ok().contains("default"));
    assert!(engine.host().program("ip").args(["link"]).ok().contains("dm-"));
    engine.docker(["rm", "-f", "one", "two"]).ok();
    engine.docker(["network", "rm", "alone"]).ok();
    assert!(!engine.host().program("ip").args(["link"]).ok().contains("dm-"));
    for (arguments, expected) in [
        (["-d", "macvlan", "-o", "parent=nosuch0"], "the parent interface nosuch0 was not found on this host"),
        (["-d", "macvlan", "-o", "parent=lo"], "loopback interface is not a valid macvlan parent link"),
        (["-d", "macvlan", "-o", "macvlan_mode=magic"], "requested macvlan mode 'magic' is not valid"),
        (["-d", "ipvlan", "-o", "ipvlan_mode=l4"], "requested ipvlan mode 'l4' is not valid"),
        (
            ["-d", "ipvlan", "-o", "com.docker.network.bridge.enable_icc=false"],
            "has no option com.docker.network.bridge",
        ),
        (["-d", "routed", "-o", "com.docker.network.bridge.name=br9"], "has no option com.docker.network.bridge.name"),
    ] {
        let error = engine.conex(["network", "create"]).args(arguments).args(["x"]).fails(1);
        assert!(error.contains(expected), "{error}");
    }
    engine.finish();
}

/// Kernels without ipvlan are told apart from those with it by what they say of it, in words.
#[test]
fn ipvlan_works_or_says_why_not() {
    let engine = Engine::with_busybox();
    let neighbour = Neighbour::on_cable(&engine, NEIGHBOUR);
    let create = ["network", "create", "-d", "ipvlan", "-o", "parent=lan0", "--subnet", "192.0.2.0/24"];
    engine.docker(create).args(["--gateway", "192.0.2.2", "lan"]).ok();
    let output = engine.docker(["run", "--rm", "--network", "lan", "busybox", "ping", "-c", "1", "192.0.2.2"]).run();
    if output.code != 0 {
        let error = output.error_text();
        assert!(error.contains("this host's kernel has no ipvlan (CONFIG_IPVLAN)"), "{error}");
    }
    drop(neighbour);
    engine.finish();
}

/// A virtual LAN of the parent is made where there is none of that name, and goes with the network.
#[test]
fn a_parent_may_be_a_virtual_lan_or_it_is_said_why_not() {
    let engine = Engine::with_busybox();
    let neighbour = Neighbour::on_cable(&engine, NEIGHBOUR);
    let create = ["network", "create", "-d", "macvlan", "-o", "parent=lan0.10", "--subnet", "192.0.10.0/24"];
    let created = engine.docker(create).args(["tagged"]).run();
    let link = || engine.host().program("ip").args(["-d", "link"]).ok();
    if created.code == 0 {
        neighbour.ip("link add link eth0 name eth0.10 type vlan id 10");
        neighbour.ip("address add 192.0.10.2/24 dev eth0.10");
        neighbour.ip("link set eth0.10 up");
        assert!(link().contains("vlan protocol 802.1Q id 10"), "{}", link());
        serve(&engine, "one", &["--network", "tagged"]);
        assert!(reaches(&engine, "one", "192.0.10.2"));
        engine.docker(["rm", "-f", "one"]).ok();
        engine.docker(["network", "rm", "tagged"]).ok();
    } else {
        let error = created.error_text();
        assert!(error.contains("it has no virtual LANs (CONFIG_VLAN_8021Q)"), "{error}");
        assert!(engine.docker(["network", "inspect", "tagged"]).fails(1).contains("not found"), "nothing is left");
    }
    assert!(!link().contains("lan0.10"));
    for wrong in ["lan0.0", "lan0.4095", "lan0.x", "nosuch0.10"] {
        let create = ["network", "create", "-d", "macvlan", "-o", &format!("parent={wrong}"), "x"];
        let error = engine.docker(create).fails(1);
        assert!(error.contains(&format!("the parent interface {wrong} was not found")), "{error}");
    }
    drop(neighbour);
    engine.finish();
}

/// The kernel's limit of a bridge, reached by pairs of interfaces with both ends in it.
#[test]
fn a_bridge_that_is_full_says_what_has_no_such_limit() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "-o", "com.docker.network.bridge.name=full0", "full"]).ok();
    let pairs = |text: fn(usize) -> String| {
        let lines: Vec<String> = (0..511).map(text).collect();
        let file = engine.root_folder().join("pairs");
        std::fs::write(&file, lines.join("\n")).unwrap();
        engine.host().program("ip").args(["-batch", &file.display().to_string()]).ok();
    };
    pairs(|n| format!("link add a{n} master full0 type veth peer name b{n}\nlink set b{n} master full0"));
    engine.docker(["run", "-d", "--name", "last", "--network", "full", "busybox", "sleep", "1000"]).ok();
    let error = engine.docker(["run", "--network", "full", "busybox", "true"]).fails(125);
    assert!(error.contains("the kernel connects no more than 1,023 interfaces to a bridge"), "{error}");
    assert!(error.contains("driver \"routed\" has no such limit"), "{error}");
    pairs(|n| format!("link delete a{n}"));
    engine.docker(["run", "--rm", "--network", "full", "busybox", "true"]).ok();
    engine.finish();
}

#[test]
fn a_routed_network_needs_no_bridge() {
    let mut engine = Engine::with_busybox();
    let create =
        ["network", "create", "-d", "routed", "--subnet", "10.77.0.0/16", "--ipv6", "--subnet", "fd77::/64", "far"];
    engine.docker(create).ok();
    engine.docker(["network", "create", "-d", "routed", "--internal", "inside"]).ok();
    engine
        .docker(["network", "create", "-d", "routed", "-o", "com.docker.network.bridge.enable_icc=false", "apart"])
        .ok();
    assert_eq!(engine.docker(["network", "inspect", "-f", "{{.Driver}}", "far"]).ok(), "routed");
    serve(&engine, "one", &["--network", "far", "-p", "8080:80"]);
    serve(&engine, "two", &["--network", "far", "--ip", "10.77.200.9"]);
    serve(&engine, "other", &[]);
    assert!(reaches(&engine, "one", "10.77.200.9") && reaches(&engine, "one", &address6(&engine, "two", "far")));
    assert!(reaches(&engine, "one", "10.77.0.1") && reaches(&engine, "one", "fd77::1"));
    assert!(!reaches(&engine, "other", "10.77.200.9"), "networks are apart");
    assert!(!reaches(&engine, "one", &address(&engine, "other", "bridge")));
    for address in ["127.0.0.1", "10.77.0.1", "fd77::1", "::1"] {
        assert_eq!(call(&engine, address, "8080"), "hello", "{address}");
    }
    assert!(reaches(&engine, "one", "one") && reaches(&engine, "two", "one"), "by name");
    assert!(!engine.host().program("ip").args(["-d", "link", "show", "type", "veth"]).ok().contains("rt-"));
    // The kernel's table of neighbours has a thousand places for all namespaces: nobody here asks for one.
    serve(&engine, "marked", &["--network", "far", "--mac-address", "02:00:00:00:00:99"]);
    assert!(reaches(&engine, "one", "marked") && reaches(&engine, "marked", &address6(&engine, "one", "far")));
    let pid = engine.docker(["inspect", "-f", "{{.State.Pid}}", "marked"]).ok().parse().unwrap();
    let inside = String::from_utf8(inside(pid, "ip", &["neighbour"]).output().unwrap().stdout).unwrap();
    let all = format!("{inside}{}", engine.host().program("ip").args(["neighbour"]).ok());
    let ours: Vec<&str> = all.lines().filter(|line| line.starts_with("10.77.") || line.starts_with("fd77:")).collect();
    assert!(ours.len() >= 8, "{all}");
    assert!(ours.iter().all(|line| line.trim_end().ends_with("PERMANENT")), "{all}");
    serve(&engine, "in", &["--network", "inside"]);
    serve(&engine, "in2", &["--network", "inside"]);
    assert!(reaches(&engine, "in", "in2"));
    assert!(!engine.docker(["exec", "in", "ip", "route"]).ok().contains("default"));
    serve(&engine, "left", &["--network", "apart"]);
    serve(&engine, "right", &["--network", "apart"]);
    assert!(!reaches(&engine, "left", &address(&engine, "right", "apart")));
    engine.kill();
    assert_eq!(call(&engine, "10.77.0.1", "8080"), "hello");
    engine.launch();
    assert!(reaches(&engine, "one", "10.77.200.9"));
    engine.docker(["network", "connect", "far", "other"]).ok();
    assert!(reaches(&engine, "other", "10.77.200.9"));
    engine.docker(["network", "disconnect", "far", "other"]).ok();
    assert!(!reaches(&engine, "other", "10.77.200.9"));
    engine.finish();
}
