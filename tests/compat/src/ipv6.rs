//! IPv6: both families, one of them, and published ports.

use harness::{Engine, EngineOptions};

use crate::peers::{address6, call, endpoint, reaches, serve};

#[test]
fn a_network_of_both_families() {
    let mut engine = Engine::with_busybox();
    let create = ["network", "create", "--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"];
    engine.docker(create).args(["--gateway", "fd77::fe", "--aux-address", "router=fd77::1", "back"]).ok();
    let inspected = engine.docker(["network", "inspect", "back"]).run().json();
    assert_eq!((&inspected[0]["EnableIPv4"], &inspected[0]["EnableIPv6"]), (&true.into(), &true.into()));
    let pool = &inspected[0]["IPAM"]["Config"][1];
    assert_eq!((&pool["Subnet"], &pool["Gateway"]), (&"fd77::/64".into(), &"fd77::fe".into()));
    serve(&engine, "one", &["--network", "back", "--network-alias", "first"]);
    // Good at once: nobody waits for the kernel to find out that no neighbour has it.
    assert!(!engine.docker(["exec", "one", "ip", "-6", "address"]).ok().contains("tentative"));
    serve(&engine, "two", &["--network", "back", "--ip6", "fd77::9"]);
    assert_eq!(
        (address6(&engine, "one", "back").as_str(), address6(&engine, "two", "back").as_str()),
        ("fd77::2", "fd77::9")
    );
    assert_eq!(endpoint(&engine, "one", "back", "IPv6Gateway"), "fd77::fe");
    assert_eq!(endpoint(&engine, "one", "back", "GlobalIPv6PrefixLen"), "64");
    assert!(
        reaches(&engine, "one", "fd77::9")
            && reaches(&engine, "one", "fd77::fe")
            && reaches(&engine, "two", "10.77.0.2")
    );
    let members = "{{range .Containers}}{{.IPv6Address}} {{end}}";
    let members = engine.docker(["network", "inspect", "-f", members, "back"]).ok();
    assert!(members.contains("fd77::2/64") && members.contains("fd77::9/64"), "{members}");
    let looked_up = engine.docker(["exec", "two", "nslookup", "-type=aaaa", "first"]).run().text();
    assert!(looked_up.contains("Address: fd77::2"), "{looked_up}");
    let reversed = engine.docker(["exec", "two", "nslookup", "fd77::2"]).run().text();
    assert!(reversed.contains("one.back"), "{reversed}");
    assert!(engine.docker(["exec", "one", "cat", "/etc/hosts"]).ok().contains("fd77::2\t"));
    let taken = engine.docker(["run", "--network", "back", "--ip6", "fd77::9", "busybox", "true"]).fails(125);
    assert!(taken.contains("Address already in use"), "{taken}");
    let outside = engine.docker(["run", "--network", "back", "--ip6", "fd78::9", "busybox", "true"]).fails(125);
    assert!(outside.contains("no configured subnet contains IP address fd78::9"), "{outside}");
    engine.kill();
    engine.launch();
    assert_eq!(address6(&engine, "two", "back"), "fd77::9");
    assert!(reaches(&engine, "one", "fd77::9"));
    engine.finish();
}

#[test]
fn by_one_word() {
    let mut engine = Engine::with_busybox();
    for name in ["a", "b"] {
        engine.docker(["network", "create", "--ipv6", name]).ok();
    }
    let subnet = |engine: &Engine, name: &str| {
        let template = "{{(index .IPAM.Config 1).Subnet}}";
        engine.docker(["network", "inspect", "-f", template, name]).ok()
    };
    let (a, b) = (subnet(&engine, "a"), subnet(&engine, "b"));
    assert!(a.starts_with("fd") && a.ends_with("::/64") && a != b, "{a} {b}");
    serve(&engine, "one", &["--network", "a"]);
    assert!(engine.docker(["exec", "one", "ip", "-6", "route", "show", "default"]).ok().contains("dev eth0"));
    // Networks are as much apart as they are in IPv4, and a container that comes to a second one keeps its first gateway.
    serve(&engine, "two", &["--network", "b"]);
    assert!(!reaches(&engine, "one", &address6(&engine, "two", "b")));
    engine.docker(["network", "connect", "b", "one"]).ok();
    assert!(reaches(&engine, "one", &address6(&engine, "two", "b")));
    engine.docker(["network", "disconnect", "a", "one"]).ok();
    let route = engine.docker(["exec", "one", "ip", "-6", "route", "show", "default"]).ok();
    assert!(route.contains("dev eth1"), "{route}");
    engine.kill();
    engine.launch();
    assert_eq!(subnet(&engine, "a"), a);
    for (arguments, expected) in [
        (vec!["--ipv6", "--subnet", &a, "c"], "Pool overlaps with other one on this address space"),
        (vec!["--ipv6", "--subnet", "fd77::/64", "--gateway", "fd78::1", "c"], "doesn't contain this address"),
        (vec!["--ipv4=false", "c"], "IPv4 or IPv6 must be enabled"),
    ] {
        let docker = engine.docker(["network", "create"]).args(&arguments).fails(1);
        let conex = engine.conex(["network", "create"]).args(&arguments).fails(1);
        assert!(docker.contains(expected) || arguments.len() > 4, "{docker}");
        assert!(conex.contains(expected), "{conex}");
    }
    engine.finish();
}

#[test]
fn a_network_without_ipv4() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "--ipv4=false", "--ipv6", "six"]).ok();
    let inspected = engine.docker(["network", "inspect", "six"]).run().json();
    assert_eq!((&inspected[0]["EnableIPv4"], &inspected[0]["EnableIPv6"]), (&false.into(), &true.into()));
    serve(&engine, "one", &["--network", "six", "-p", "8080:80"]);
    serve(&engine, "two", &["--network", "six"]);
    assert_eq!(endpoint(&engine, "one", "six", "IPAddress"), "");
    assert!(!engine.docker(["exec", "one", "ip", "address", "show", "eth0"]).ok().contains("inet "));
    assert!(reaches(&engine, "two", &address6(&engine, "one", "six")));
    assert_eq!(call(&engine, &endpoint(&engine, "one", "six", "IPv6Gateway"), "8080"), "hello");
    assert_eq!(engine.docker(["port", "one"]).ok(), "80/tcp -> [::]:8080");
    let error = engine.docker(["run", "--network", "six", "-p", "127.0.0.1:8081:80", "busybox", "true"]).fails(125);
    assert!(error.contains("the container has no IPv4 address"), "{error}");
    engine.finish();
}

#[test]
fn ports_are_published_in_both_families() {
    let mut engine = Engine::with_busybox();
    engine.docker(["network", "create", "--ipv6", "--subnet", "fd77::/64", "back"]).ok();
    serve(&engine, "web", &["--network", "back", "-p", "8080:80", "-p", "[::1]:8081:80", "-p", "[fd77::1]:8082:80"]);
    let everywhere =
        [("127.0.0.1", "8080"), ("fd77::1", "8080"), ("::1", "8080"), ("::1", "8081"), ("fd77::1", "8082")];
    for (address, port) in everywhere {
        assert_eq!(call(&engine, address, port), "hello", "[{address}]:{port}");
    }
    for (address, port) in [("fd77::1", "8081"), ("::1", "8082")] {
        assert_eq!(engine.host().program("busybox").args(["nc", "-w", "1", address, port]).run().text(), "");
    }
    let error = engine.docker(["run", "--network", "back", "-p", "[::]:8082:80", "busybox", "true"]).fails(125);
    assert!(error.contains("Bind for [::]:8082 failed: port is already allocated"), "{error}");
    // Without a daemon the kernel still knows where they lead.
    engine.kill();
    assert_eq!(call(&engine, "fd77::1", "8080"), "hello");
    engine.launch();
    for (address, port) in everywhere {
        assert_eq!(call(&engine, address, port), "hello", "[{address}]:{port}");
    }
    engine.finish();
}

#[test]
fn the_default_bridge_has_it_when_told() {
    let options = |words: &[&str]| EngineOptions { arguments: words.iter().map(|word| (*word).to_owned()).collect() };
    let mut engine = Engine::start_with(options(&["--ipv6", "--fixed-cidr-v6", "fd99::/64"]));
    engine.import_busybox();
    serve(&engine, "one", &["-p", "8080:80"]);
    assert!(address6(&engine, "one", "bridge").starts_with("fd99::"));
    assert_eq!(engine.docker(["network", "inspect", "-f", "{{.EnableIPv6}}", "bridge"]).ok(), "true");
    assert_eq!(call(&engine, "fd99::1", "8080"), "hello");
    let before = address6(&engine, "one", "bridge");
    engine.kill();
    engine.launch();
    assert_eq!(address6(&engine, "one", "bridge"), before);
    assert_eq!(call(&engine, "fd99::1", "8080"), "hello");
    engine.finish();
}
