//! Networks without a bridge: a route for each container, and a cable of the host's that containers share.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::Engine;

/// Answers `hello` to whoever calls port 80 of the container, for as long as it runs.
const SERVER: &str = "while :; do echo hello | nc -l -p 80; done";

fn run(engine: &Engine, name: &str, options: &[&str]) {
    engine.docker(["run", "-d", "--name", name]).args(options).args(["busybox", "sh", "-c", SERVER]).ok();
}

fn address(engine: &Engine, container: &str, network: &str) -> String {
    let template = format!("{{{{with index .NetworkSettings.Networks \"{network}\"}}}}{{{{.IPAddress}}}}{{{{end}}}}");
    engine.docker(["inspect", "-f", &template, container]).ok()
}

fn six(engine: &Engine, container: &str, network: &str) -> String {
    let template =
        format!("{{{{with index .NetworkSettings.Networks \"{network}\"}}}}{{{{.GlobalIPv6Address}}}}{{{{end}}}}");
    engine.docker(["inspect", "-f", &template, container]).ok()
}

fn reaches(engine: &Engine, container: &str, address: &str) -> bool {
    engine.docker(["exec", container, "ping", "-c", "1", "-W", "1", address]).run().code == 0
}

fn call(engine: &Engine, address: &str, port: &str) -> String {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = engine.host().program("busybox").args(["nc", "-w", "5", address, port]).run().text();
        if !answer.is_empty() || Instant::now() > end {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A machine on a cable to the host.
struct Neighbour(Child);

impl Neighbour {
    /// On `lan0` of the host, which has no address there; the neighbour has 192.0.2.2.
    fn on_cable(engine: &Engine) -> Self {
        let child = Command::new("unshare").args(["-n", "sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id().to_string();
        let ip = |words: &str| engine.host().program("ip").args(words.split(' ')).run();
        let end = Instant::now() + Duration::from_secs(10);
        // The child leaves the host's namespace in its own time.
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()
            == std::fs::read_link("/proc/thread-self/ns/net").ok()
        {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(ip(&format!("link add lan0 type veth peer name eth0 netns {pid}")).code, 0);
        assert_eq!(ip("link set lan0 up").code, 0);
        let neighbour = Self(child);
        for words in
            ["ip link set eth0 up", "ip address add 192.0.2.2/24 dev eth0", "ip address add fd55::2/64 dev eth0 nodad"]
        {
            assert!(neighbour.run(words), "{words}");
        }
        neighbour
    }

    fn run(&self, words: &str) -> bool {
        let pid = self.0.id().to_string();
        Command::new("nsenter").args(["-n", "-t", &pid]).args(words.split(' ')).status().unwrap().success()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn macvlan_puts_containers_on_the_hosts_cable() {
    let mut engine = Engine::with_busybox();
    let neighbour = Neighbour::on_cable(&engine);
    let create = ["network", "create", "-d", "macvlan", "-o", "parent=lan0", "--subnet", "192.0.2.0/24", "--ipv6"];
    engine.docker(create).args(["--subnet", "fd55::/64", "--gateway", "192.0.2.2", "--gateway", "fd55::2", "lan"]).ok();
    assert_eq!(
        engine.docker(["network", "inspect", "-f", "{{.Driver}} {{.Options.parent}}", "lan"]).ok(),
        "macvlan lan0"
    );
    run(
        &engine,
        "one",
        &["--network", "lan", "--ip", "192.0.2.10", "--mac-address", "02:00:00:00:00:99", "-p", "8080:80"],
    );
    run(&engine, "two", &["--network", "lan"]);
    assert!(reaches(&engine, "one", "192.0.2.2") && reaches(&engine, "one", "fd55::2"));
    assert!(reaches(&engine, "one", &address(&engine, "two", "lan")));
    assert!(neighbour.run("busybox ping -c 1 -W 1 192.0.2.10"));
    assert!(engine.docker(["exec", "one", "cat", "/sys/class/net/eth0/address"]).ok().contains("02:00:00:00:00:99"));
    assert!(engine.docker(["exec", "one", "ip", "route"]).ok().contains("default via 192.0.2.2"));
    assert_eq!(engine.docker(["port", "one"]).ok(), "", "it is reached at its own address");
    assert!(engine.docker(["exec", "two", "nslookup", "-type=a", "one"]).run().text().contains("192.0.2.10"));
    engine.kill();
    engine.launch();
    let taken = engine.docker(["run", "--network", "lan", "--ip", "192.0.2.10", "busybox", "true"]).fails(125);
    assert!(taken.contains("Address already in use"), "{taken}");
    // It comes and goes while a container runs.
    run(&engine, "late", &[]);
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
    run(&engine, "one", &["--network", "alone"]);
    run(&engine, "two", &["--network", "alone"]);
    assert!(reaches(&engine, "one", &address(&engine, "two", "alone")));
    assert!(!engine.docker(["exec", "one", "ip", "route"]).ok().contains("default"));
    assert!(engine.host().program("ip").args(["link"]).ok().contains("dm-"));
    engine.docker(["rm", "-f", "one", "two"]).ok();
    engine.docker(["network", "rm", "alone"]).ok();
    assert!(!engine.host().program("ip").args(["link"]).ok().contains("dm-"));
    for (arguments, expected) in [
        (["-d", "macvlan", "-o", "parent=nosuch0"], "the parent interface nosuch0 was not found on this host"),
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
    let neighbour = Neighbour::on_cable(&engine);
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
    run(&engine, "one", &["--network", "far", "-p", "8080:80"]);
    run(&engine, "two", &["--network", "far", "--ip", "10.77.200.9"]);
    run(&engine, "other", &[]);
    assert!(reaches(&engine, "one", "10.77.200.9") && reaches(&engine, "one", &six(&engine, "two", "far")));
    assert!(reaches(&engine, "one", "10.77.0.1") && reaches(&engine, "one", "fd77::1"));
    assert!(!reaches(&engine, "other", "10.77.200.9"), "networks are apart");
    assert!(!reaches(&engine, "one", &address(&engine, "other", "bridge")));
    for address in ["127.0.0.1", "10.77.0.1", "fd77::1", "::1"] {
        assert_eq!(call(&engine, address, "8080"), "hello", "{address}");
    }
    assert!(reaches(&engine, "one", "one") && reaches(&engine, "two", "one"), "by name");
    assert!(!engine.host().program("ip").args(["-d", "link", "show", "type", "veth"]).ok().contains("rt-"));
    run(&engine, "in", &["--network", "inside"]);
    run(&engine, "in2", &["--network", "inside"]);
    assert!(reaches(&engine, "in", "in2"));
    assert!(!engine.docker(["exec", "in", "ip", "route"]).ok().contains("default"));
    run(&engine, "left", &["--network", "apart"]);
    run(&engine, "right", &["--network", "apart"]);
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
