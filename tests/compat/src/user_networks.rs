//! Networks that users make.

use std::time::{Duration, Instant};

use harness::{Engine, Output};

use crate::peers::{address, reaches};

fn quiet(output: Output) -> String {
    output.error_text()
}

fn run<'a>(engine: &Engine, name: &'a str, options: &[&str]) -> &'a str {
    engine.docker(["run", "-d", "--name", name]).args(options).args(["busybox", "sleep", "1000"]).ok();
    name
}

#[test]
fn a_network_is_made_shown_used_and_removed() {
    let engine = Engine::with_busybox();
    let create =
        ["network", "create", "--subnet", "10.77.0.0/24", "--ip-range", "10.77.0.128/25", "--gateway", "10.77.0.1"];
    let id = engine.docker(create).args(["--aux-address", "router=10.77.0.130", "--label", "a=b", "back"]).ok();
    assert_eq!(id.len(), 64);
    let inspected = engine.docker(["network", "inspect", "back"]).run().json();
    let network = &inspected[0];
    assert_eq!(network["Id"], id.as_str());
    assert_eq!((&network["Driver"], &network["Scope"]), (&"bridge".into(), &"local".into()));
    assert_eq!(network["Labels"]["a"], "b");
    let pool = &network["IPAM"]["Config"][0];
    assert_eq!((&pool["Subnet"], &pool["Gateway"]), (&"10.77.0.0/24".into(), &"10.77.0.1".into()));
    assert_eq!(
        (&pool["IPRange"], &pool["AuxiliaryAddresses"]["router"]),
        (&"10.77.0.128/25".into(), &"10.77.0.130".into())
    );
    run(&engine, "one", &["--network", "back"]);
    run(&engine, "two", &["--network", "back", "--ip", "10.77.0.9", "--mac-address", "02:00:00:00:00:99"]);
    assert_eq!(address(&engine, "one", "back"), "10.77.0.128");
    assert_eq!(address(&engine, "two", "back"), "10.77.0.9");
    assert!(engine.docker(["exec", "two", "cat", "/sys/class/net/eth0/address"]).ok().contains("02:00:00:00:00:99"));
    assert!(reaches(&engine, "one", "10.77.0.9") && reaches(&engine, "one", "10.77.0.1"));
    let listed = engine.docker(["network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"]).ok();
    assert_eq!(listed, "back");
    let members = engine.docker(["network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", &id[..12]]).ok();
    assert!(members.contains("one ") && members.contains("two "), "{members}");
    let error = engine.docker(["network", "rm", "back"]).fails(1);
    assert!(error.contains("error while removing network: network back has active endpoints (name:\""), "{error}");
    engine.docker(["rm", "-f", "one", "two"]).ok();
    assert_eq!(engine.docker(["network", "rm", "back"]).ok(), "back");
    assert!(engine.docker(["network", "inspect", "back"]).fails(1).contains("network back not found"));
    engine.finish();
}

#[test]
fn what_docker_lets_one_do_with_addresses_and_the_hosts_network() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "--subnet", "10.77.0.0/24", "back"]).ok();
    run(&engine, "one", &[]);
    let wrong = engine.docker(["network", "connect", "--link-local-ip", "1.2.3.4", "back", "one"]).fails(1);
    assert!(wrong.contains("invalid link local IP address: 1.2.3.4"), "{wrong}");
    engine.docker(["network", "connect", "--link-local-ip", "169.254.7.7", "back", "one"]).ok();
    assert!(engine.docker(["exec", "one", "ip", "address"]).ok().contains("169.254.7.7"));
    // A container that does not run leaves the host's network; one that runs cannot.
    engine.docker(["create", "--name", "still", "--network", "host", "busybox", "sleep", "1000"]).ok();
    engine.docker(["network", "disconnect", "host", "still"]).ok();
    run(&engine, "moving", &["--network", "host"]);
    let refused = engine.docker(["network", "disconnect", "host", "moving"]).fails(1);
    assert!(refused.contains("cannot be disconnected from host network"), "{refused}");
    engine.finish();
}

#[test]
fn what_cannot_be_made_is_refused_in_dockers_words() {
    let engine = Engine::start();
    engine.docker(["network", "create", "--subnet", "10.77.0.0/24", "back"]).ok();
    for (arguments, words) in [
        (vec!["back"], "network with name back already exists"),
        (vec!["bridge"], "operation is not permitted on predefined bridge network"),
        (
            vec!["--subnet", "10.77.0.128/25", "more"],
            "Pool overlaps with other one on this address space: 10.77.0.128/25 overlaps with 10.77.0.0/24 of network back",
        ),
        (vec!["--subnet", "10.78.0.1/24", "more"], "invalid subnet 10.78.0.1/24: it should be 10.78.0.0/24"),
        (vec!["-d", "nosuch", "more"], "plugin \"nosuch\" not found"),
        (vec!["-d", "weird", "more"], "plugin \"weird\" not found"),
        (vec!["-o", "com.docker.network.bridge.unheard_of=1", "more"], "is not built"),
        (
            vec!["-o", "com.docker.network.bridge.gateway_mode_ipv4=isolated", "more"],
            "can only be used for an internal network",
        ),
    ] {
        let error = quiet(engine.docker(["network", "create"]).args(&arguments).run().expect_code(1));
        assert!(error.contains(words), "{arguments:?}: {error}");
        let error = quiet(engine.conex(["network", "create"]).args(&arguments).run().expect_code(1));
        assert!(error.contains(words), "conex {arguments:?}: {error}");
    }
    engine.host().program("ip").args(["link", "add", "lan0", "type", "bridge"]).ok();
    engine.host().program("ip").args(["addr", "add", "10.80.0.1/16", "dev", "lan0"]).ok();
    let error = engine.docker(["network", "create", "--subnet", "10.80.5.0/24", "lan"]).fails(1);
    assert!(error.contains("overlaps with the host's own route to 10.80.0.0/16"), "{error}");
    engine.host().program("ip").args(["link", "del", "lan0"]).ok();
    assert!(
        engine.docker(["network", "rm", "bridge"]).fails(1).contains("is a pre-defined network and cannot be removed")
    );
    assert_eq!(engine.conex(["network", "prune", "-f"]).ok(), "Deleted Networks:\nback");
    engine.finish();
}

#[test]
fn containers_come_and_go_while_they_run() {
    let engine = Engine::with_busybox();
    for name in ["front", "back"] {
        engine.docker(["network", "create", name]).ok();
    }
    run(&engine, "web", &["--network", "front", "-p", "8080:80"]);
    run(&engine, "db", &["--network", "back"]);
    let db = address(&engine, "db", "back");
    assert!(!reaches(&engine, "web", &db), "networks are apart");
    engine.conex(["network", "connect", "back", "web"]).ok();
    assert!(reaches(&engine, "web", &db));
    assert_eq!(engine.docker(["exec", "web", "ls", "/sys/class/net"]).ok(), "eth0\neth1\nlo");
    let routes = engine.docker(["exec", "web", "ip", "route"]).ok();
    assert_eq!(routes.matches("default").count(), 1, "{routes}");
    let error = engine.docker(["network", "connect", "back", "web"]).fails(1);
    assert!(error.contains("endpoint with name web already exists in network back"), "{error}");
    engine.docker(["network", "disconnect", "front", "web"]).ok();
    assert_eq!(engine.docker(["exec", "web", "ls", "/sys/class/net"]).ok(), "eth1\nlo");
    let routes = engine.docker(["exec", "web", "ip", "route"]).ok();
    assert!(routes.contains("default via") && routes.contains("eth1"), "{routes}");
    assert!(engine.docker(["port", "web"]).ok().contains("80/tcp -> 0.0.0.0:8080"));
    let error = engine.docker(["network", "disconnect", "front", "web"]).fails(1);
    assert!(error.contains("is not connected to network front"), "{error}");
    // Of a stopped container it is its next start that counts.
    engine.docker(["stop", "-t", "0", "web"]).ok();
    engine.docker(["network", "connect", "--ip", "172.31.0.9", "front", "web"]).fails(1);
    engine.docker(["network", "connect", "front", "web"]).ok();
    engine.docker(["network", "disconnect", "back", "web"]).ok();
    engine.docker(["start", "web"]).ok();
    assert!(!reaches(&engine, "web", &db));
    let networks =
        engine.docker(["inspect", "-f", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}", "web"]).ok();
    assert_eq!(networks, "front ");
    engine.docker(["rm", "-f", "web", "db"]).ok();
    assert_eq!(engine.docker(["network", "rm", "front", "back"]).ok(), "front\nback");
    engine.finish();
}

#[test]
fn several_networks_at_create_and_the_one_that_leads_out() {
    let engine = Engine::with_busybox();
    for name in ["a", "b"] {
        engine.docker(["network", "create", name]).ok();
    }
    run(&engine, "one", &["--network", "name=b", "--network", "name=a,gw-priority=0"]);
    let by = |name: &str| engine.docker(["exec", name, "ip", "route", "show", "default"]).ok();
    // The first is eth0; without a priority the first name leads.
    assert!(by("one").contains("dev eth1"), "{}", by("one"));
    run(&engine, "two", &["--network", "name=b,gw-priority=1", "--network", "a"]);
    assert!(by("two").contains("dev eth0"), "{}", by("two"));
    run(&engine, "three", &[]);
    engine.docker(["network", "connect", "a", "three"]).ok();
    assert_eq!(engine.docker(["exec", "three", "ls", "/sys/class/net"]).ok(), "eth0\neth1\nlo");
    let error = engine.docker(["run", "--network", "host", "--network", "a", "busybox", "true"]).fails(125);
    assert!(!error.is_empty());
    let error = engine.docker(["run", "--network", "nosuch", "busybox", "true"]).fails(125);
    assert!(error.contains("network nosuch not found"), "{error}");
    engine.finish();
}

#[test]
fn an_internal_network_leads_nowhere_and_icc_keeps_containers_apart() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "--internal", "inside"]).ok();
    engine.docker(["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart"]).ok();
    run(&engine, "web", &["-p", "8080:80"]);
    run(&engine, "one", &["--network", "inside", "-p", "8081:80"]);
    run(&engine, "two", &["--network", "inside"]);
    assert!(reaches(&engine, "one", &address(&engine, "two", "inside")));
    assert!(!engine.docker(["exec", "one", "ip", "route"]).ok().contains("default"));
    assert_eq!(engine.docker(["port", "one"]).ok(), "");
    // Even a container that adds the route itself stays inside.
    engine
        .docker([
            "run",
            "-d",
            "--name",
            "sly",
            "--cap-add",
            "NET_ADMIN",
            "--network",
            "inside",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let gateway =
        engine.docker(["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Gateway}}{{end}}", "inside"]).ok();
    engine.docker(["exec", "sly", "ip", "route", "add", "default", "via", &gateway]).ok();
    assert!(!reaches(&engine, "sly", &address(&engine, "web", "bridge")));
    run(&engine, "left", &["--network", "apart"]);
    run(&engine, "right", &["--network", "apart"]);
    assert!(!reaches(&engine, "left", &address(&engine, "right", "apart")));
    engine.finish();
}

#[test]
fn networks_and_addresses_outlive_the_daemon() {
    let mut engine = Engine::with_busybox();
    engine.docker(["network", "create", "back"]).ok();
    engine.docker(["network", "create", "unused"]).ok();
    run(&engine, "one", &["--network", "back"]);
    let before = address(&engine, "one", "back");
    engine.kill();
    engine.launch();
    assert_eq!(address(&engine, "one", "back"), before);
    run(&engine, "two", &["--network", "back"]);
    assert_ne!(address(&engine, "two", "back"), before);
    assert!(reaches(&engine, "two", &before));
    engine.docker(["rm", "-f", "one", "two"]).ok();
    // Without containers a daemon that ends takes the bridges along; the next one gives them back.
    engine.stop();
    assert!(!engine.host().program("ip").args(["-o", "link"]).ok().contains("br-"));
    engine.launch();
    run(&engine, "three", &["--network", "back"]);
    assert!(reaches(
        &engine,
        "three",
        &engine.docker(["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Gateway}}{{end}}", "back"]).ok()
    ));
    engine.docker(["rm", "-f", "three"]).ok();
    let removed = engine.docker(["network", "prune", "-f"]).ok();
    assert!(removed.contains("back") && removed.contains("unused"), "{removed}");
    engine.finish();
}

#[test]
fn routes_that_appear_on_the_host_are_kept_clear_of() {
    let engine = Engine::start();
    let subnet_of = |name: &str| {
        let template = "{{range .IPAM.Config}}{{.Subnet}}{{end}}";
        engine.docker(["network", "inspect", "-f", template, name]).ok()
    };
    engine.docker(["network", "create", "one"]).ok();
    let taken = subnet_of("one");
    engine.docker(["network", "rm", "one"]).ok();
    let host = |words: &str| drop(engine.host().program("ip").args(words.split(' ')).ok());
    host("link add tunnel0 type veth peer name tunnel1");
    host("link set tunnel0 up");
    host(&format!("route add {taken} dev tunnel0"));
    engine.docker(["network", "create", "two"]).ok();
    assert_ne!(subnet_of("two"), taken);
    let error = engine.docker(["network", "create", "--subnet", &taken, "three"]).fails(1);
    assert!(error.contains(&format!("overlaps with the host's own route to {taken} dev tunnel0")), "{error}");
    host("link delete tunnel0");
    engine.docker(["network", "rm", "two"]).ok();
    engine.docker(["network", "create", "--subnet", &taken, "three"]).ok();
    engine.docker(["network", "rm", "three"]).ok();
    engine.finish();
}

#[test]
fn a_route_that_comes_over_a_network_is_named() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "--subnet", "10.77.0.0/24", "back"]).ok();
    run(&engine, "web", &["--network", "back", "-p", "8080:80"]);
    assert!(!engine.get("/networks/back").ok().contains("Warnings"));
    let host = |words: &str| drop(engine.host().program("ip").args(words.split(' ')).ok());
    host("link add vpn0 type veth peer name vpn1");
    host("link set vpn0 up");
    host("route add 10.77.0.0/25 dev vpn0");
    let route = "the host's route to 10.77.0.0/25 dev vpn0 overlaps with the network's 10.77.0.0/24";
    let says = |wanted: bool| {
        let end = Instant::now() + Duration::from_secs(20);
        while engine.get("/networks/back").ok().contains(route) != wanted && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    says(true);
    let found = engine.get("/networks/back").ok();
    assert!(found.contains(route) && !engine.get("/networks/bridge").ok().contains(route), "{found}");
    assert!(engine.log().contains(&format!("network back: {route}")), "{}", engine.log());
    let explained = engine.conex(["ports", "explain", "web"]).ok();
    assert!(explained.contains(route), "{explained}");
    host("link delete vpn0");
    says(false);
    assert!(!engine.get("/networks/back").ok().contains("Warnings"));
    engine.finish();
}

#[test]
fn what_is_refused_and_what_is_not_is_as_with_docker() {
    let engine = Engine::with_busybox();
    // Of IPv6 that is not enabled nothing comes, and it is shown.
    engine.docker(["network", "create", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "both"]).ok();
    let shown = &engine.docker(["network", "inspect", "both"]).run().json()[0];
    assert_eq!((&shown["EnableIPv6"], &shown["IPAM"]["Config"][1]["Subnet"]), (&false.into(), &"fd77::/64".into()));
    run(&engine, "web", &["--network", "both"]);
    assert!(!engine.docker(["exec", "web", "ip", "-6", "address"]).ok().contains("fd77"));
    let status = |path: &str| engine.get(path).args(["-o", "/dev/null", "-w", "%{http_code}"]).ok();
    assert_eq!([status("/networks/bridge?scope=local"), status("/networks/bridge?scope=swarm")], ["200", "404"]);
    let automatic = ["network", "create", "--subnet", "10.78.0.0/24", "--aux-address", "router=10.78.0.1", "other"];
    let error = engine.docker(automatic).fails(1);
    assert!(error.contains("secondary ip address (router:10.78.0.1): Address already in use"), "{error}");
    let body = r#"{"Container":"web"}"#;
    let disconnect = engine.get("/networks/bridge/disconnect").args(["-w", "%{http_code}", "-d", body]);
    let refused = disconnect.args(["-H", "Content-Type: application/json"]).ok();
    assert!(refused.contains("is not connected to network bridge") && refused.ends_with("500"), "{refused}");
    // Whose network is shared has to be there at the start.
    engine.docker(["create", "--network", "container:donor", "--name", "guest", "busybox", "sleep", "1000"]).ok();
    let error = engine.docker(["start", "guest"]).fails(1);
    assert!(error.contains("No such container: donor"), "{error}");
    run(&engine, "donor", &[]);
    engine.docker(["start", "guest"]).ok();
    assert_eq!(
        engine.docker(["exec", "guest", "cat", "/etc/hosts"]).ok(),
        engine.docker(["exec", "donor", "cat", "/etc/hosts"]).ok()
    );
    engine.finish();
}
