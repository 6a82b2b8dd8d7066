//! Who reaches what: a neighbour on the LAN, the host, and containers of the same network, of another one and of an internal one; by
//! IPv4 and IPv6; before and after somebody flushes the rules, and while no daemon runs. Printed as a table.
//!
//! | attack | where |
//! |---|---|
//! | a published port past the host's firewall | `the_matrix_of_who_reaches_what`: documented, as with Docker; at 127.0.0.1 never |
//! | 127.0.0.1 publishing from the LAN (CVE-2025-54388, CVE-2020-8558), after a flush too | `lan -> loopback` rows, `spoofed packets go nowhere` |
//! | an unpublished port by direct routing | `lan -> own address` rows |
//! | a translation of what is not for this host (CVE-2025-67499) | `spoofed_packets_go_nowhere` |
//! | router advertisements of containers (CVE-2020-13401) | `no_host_listens_to_containers_routers` |
//! | link-local IPv6 on an IPv4 network (CVE-2024-32473) | `no_host_listens_to_containers_routers` |
//! | names told outside by internal networks (CVE-2024-29018) | `names::other_names_are_asked_outside_and_from_internal_networks_nowhere` |
//! | the engine's API from containers (CVE-2025-9074) | `attacks::a_shared_network_shows_no_socket_of_ours` |
//! | ports of the resolver flooded with nonsense | `dns` property tests and its fuzz target |

use std::net::{IpAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Engine, EngineOptions};

use crate::peers::{Neighbour, address, address6, inside, ip};

/// Serves `hello` at two ports, of which at most the first is published.
const SERVERS: &str = "mkdir -p /www && echo hello > /www/index.html && httpd -p 81 -h /www && httpd -f -p 80 -h /www";

/// A machine on a cable to the host: 198.51.100.2 and 2001:db8::2, the host having 1.
fn neighbour(engine: &Engine) -> Neighbour {
    let neighbour = Neighbour::on_cable(engine, &["198.51.100.2/24", "2001:db8::2/64"]);
    for words in ["address add 198.51.100.1/24 dev lan0", "address add 2001:db8::1/64 dev lan0 nodad"] {
        engine.host().program("ip").args(words.split(' ')).ok();
    }
    neighbour
}

/// A program in the network namespace of a process, or in the host's.
fn program_at(place: Option<u32>, name: &str, words: &[&str]) -> Command {
    let Some(pid) = place else {
        let mut command = Command::new(name);
        command.args(words);
        return command;
    };
    inside(pid, name, words)
}

/// Whether a server answers who calls from the network namespace of a process, or from the host's.
fn answers(from: Option<u32>, address: &str, port: u16) -> bool {
    answers_within("1", from, address, port)
}

/// The same, with so many seconds of patience.
fn answers_within(seconds: &str, from: Option<u32>, address: &str, port: u16) -> bool {
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let url = format!("http://{address}:{port}/");
    let words = ["-s", "-g", "-m", seconds, "--noproxy", "*", &url];
    program_at(from, "curl", &words).stderr(Stdio::null()).output().unwrap().stdout == b"hello\n"
}

fn run(engine: &Engine, name: &str, options: &[&str]) -> u32 {
    engine.docker(["run", "-d", "--name", name]).args(options).args(["busybox", "sh", "-c", SERVERS]).ok();
    engine.docker(["inspect", "-f", "{{.State.Pid}}", name]).ok().parse().unwrap()
}

/// A container's addresses on a network, empty where it has none.
fn addresses(engine: &Engine, container: &str, network: &str) -> [String; 2] {
    [address(engine, container, network), address6(engine, container, network)]
}

/// One row: from whom, to what, and whether it is to be reached.
struct Row {
    from: &'static str,
    pid: Option<u32>,
    to: String,
    address: String,
    port: u16,
    reached: bool,
}

/// Looks at all rows at once, prints them, and returns what differs from what is wanted.
#[allow(clippy::print_stdout, reason = "the table is what the test is for")]
fn look(phase: &str, rows: &[Row]) -> Vec<String> {
    let look = |row: &Row| {
        // A server may still be on its way up. What is to be closed has only to be seen once, but with patience: all ask at once, and
        // who gives up before he would be answered sees nothing wrong.
        if !row.reached {
            return answers_within("4", row.pid, &row.address, row.port);
        }
        answers_soon(row.pid, &row.address, row.port)
    };
    let found: Vec<bool> = std::thread::scope(|scope| {
        let lookers: Vec<_> = rows.iter().map(|row| scope.spawn(move || look(row))).collect();
        lookers.into_iter().map(|looker| looker.join().unwrap()).collect()
    });
    println!("{phase}:");
    let mut wrong = Vec::new();
    for (row, found) in rows.iter().zip(found) {
        let line =
            format!("  {:<9} -> {:<38} {:<24} {}", row.from, row.to, format!("{} {}", row.address, row.port), found);
        println!("{line}");
        if found != row.reached {
            wrong.push(format!("{phase}: {line}"));
        }
    }
    wrong
}

/// A host with a network of each kind, and who is to reach what there.
fn scene() -> (Engine, Neighbour, Vec<Row>) {
    let engine = Engine::with_busybox();
    let lan = neighbour(&engine);
    let dual = |name: &str, number: &str, more: &[&str]| {
        let (four, six) = (format!("10.77.{number}.0/24"), format!("fd77:{number}::/64"));
        let create = ["network", "create", "--ipv6", "--subnet", &four, "--subnet", &six];
        engine.docker(create).args(more).args([name]).ok();
        lan.ip(&format!("route add {four} via 198.51.100.1"));
        lan.ip(&format!("-6 route add {six} via 2001:db8::1"));
    };
    let mode = |mode: &str| [4, 6].map(|family| format!("com.docker.network.bridge.gateway_mode_ipv{family}={mode}"));
    dual("front", "1", &[]);
    dual("back", "2", &[]);
    let [four, six] = mode("nat-unprotected");
    dual("inside", "3", &["--internal", "-o", &four, "-o", &six]);
    dual("naked", "5", &["-o", &four, "-o", &six]);
    let [four, six] = mode("routed");
    dual("routed", "4", &["-o", &four, "-o", &six]);
    dual("trusting", "6", &["-o", "com.docker.network.bridge.trusted_host_interfaces=lan0"]);
    dual("far", "7", &["-d", "routed"]);
    dual("far-inside", "8", &["-d", "routed", "--internal"]);
    let web = run(
        &engine,
        "web",
        &[
            "--network",
            "front",
            "-p",
            "8080:80",
            "-p",
            "127.0.0.1:8081:80",
            "-p",
            "[::1]:8082:80",
            "-p",
            "[2001:db8::1]:8083:80",
        ],
    );
    let peer = run(&engine, "peer", &["--network", "front"]);
    let stranger = run(&engine, "stranger", &["--network", "back"]);
    let hidden = run(&engine, "hidden", &["--network", "inside"]);
    let distant = run(&engine, "distant", &["--network", "far", "-p", "8070:80"]);
    let cave = run(&engine, "cave", &["--network", "far-inside"]);
    // Whoever may change his routes finds the way to the host; that he has none is no barrier.
    for (pid, number) in [(hidden, 3), (cave, 8)] {
        for words in
            [format!("route add default via 10.77.{number}.1"), format!("-6 route add default via fd77:{number}::1")]
        {
            ip(pid, &words);
        }
    }
    run(&engine, "far-peer", &["--network", "far"]);
    run(&engine, "cave-peer", &["--network", "far-inside"]);
    run(&engine, "open", &["--network", "routed", "-p", "80"]);
    run(&engine, "bare", &["--network", "naked"]);
    run(&engine, "friend", &["--network", "trusting", "-p", "8090:80"]);
    // It has IPv4 alone: what calls it by IPv6 is passed on by its monitor.
    run(&engine, "plain", &["-p", "8060:80"]);
    let mut rows = Vec::new();
    let places = [
        ("host", None),
        ("lan", Some(lan.pid())),
        ("web", Some(web)),
        ("peer", Some(peer)),
        ("stranger", Some(stranger)),
        ("hidden", Some(hidden)),
        ("distant", Some(distant)),
        ("cave", Some(cave)),
    ];
    for (from, pid) in places {
        let mut row = |to: &str, address: &str, port: u16, reached: bool| {
            rows.push(Row { from, pid, to: to.to_owned(), address: address.to_owned(), port, reached });
        };
        let (is_host, is_lan) = (from == "host", from == "lan");
        let is_hidden = ["hidden", "cave"].contains(&from);
        let own_network = is_host || ["web", "peer"].contains(&from);
        for address in ["198.51.100.1", "2001:db8::1"] {
            row("published everywhere", address, 8080, !is_hidden);
            row("published of a routed network", address, 8070, !is_hidden);
            row("published at loopback", address, if address.contains(':') { 8082 } else { 8081 }, false);
        }
        row("published at one address", "2001:db8::1", 8083, !is_hidden);
        row("published, passed on by a monitor", "2001:db8::1", 8060, !is_hidden);
        for address in ["10.77.1.1", "fd77:1::1"] {
            row("the host's own server at a gateway", address, 83, !is_lan);
        }
        if is_host {
            for (address, port) in
                [("127.0.0.1", 8080), ("127.0.0.1", 8081), ("::1", 8080), ("::1", 8082), ("::1", 8060)]
            {
                row("published, by loopback", address, port, true);
            }
            row("published of a routed network, by loopback", "127.0.0.1", 8070, true);
        }
        for address in addresses(&engine, "web", "front") {
            row("own address, published port", &address, 80, own_network);
            row("own address, other port", &address, 81, own_network);
        }
        for address in addresses(&engine, "hidden", "inside") {
            row("internal network", &address, 80, is_host || from == "hidden");
        }
        for address in addresses(&engine, "far-peer", "far") {
            row("network without a bridge", &address, 80, is_host || from == "distant");
        }
        for address in addresses(&engine, "cave-peer", "far-inside") {
            row("internal network without a bridge", &address, 80, is_host || from == "cave");
        }
        for address in addresses(&engine, "open", "routed") {
            row("routed network, published port", &address, 80, !is_hidden);
            row("routed network, other port", &address, 81, is_host);
        }
        for address in addresses(&engine, "bare", "naked") {
            row("unprotected network, any port", &address, 81, !is_hidden);
        }
        for address in addresses(&engine, "friend", "trusting") {
            row("trusting network, published port", &address, 80, is_host || is_lan || !is_hidden);
            row("trusting network, other port", &address, 81, is_host);
        }
        if !is_host && !is_lan {
            for address in ["198.51.100.2", "2001:db8::2"] {
                row("a neighbour of the host", address, 80, !is_hidden);
            }
        }
    }
    (engine, lan, rows)
}

#[test]
fn the_matrix_of_who_reaches_what() {
    let (mut engine, lan, rows) = scene();
    let places = [(Some(lan.pid()), "80"), (None, "10.77.1.1:83"), (None, "[fd77:1::1]:83")];
    let servers = places.map(|(place, at)| Server::start(&engine, place, at));
    let mut wrong = look("at first", &rows);
    flush_rules(&engine, "10.77.6.0/24");
    wrong.extend(look("after a flush of all rules", &rows));
    engine.kill();
    wrong.extend(look("while no daemon runs", &rows));
    if let Ok(part) = std::env::var("CONEX_WITHOUT_EACH_RULE") {
        without_each_rule(&engine, &rows, &part);
    }
    // What Docker's users know: the host's own rules for what is for the host say nothing of published ports.
    let closed = "add table inet mine; add chain inet mine input { type filter hook input priority 0; policy drop; }";
    engine.host().program("nft").args([closed]).ok();
    assert!(answers(Some(lan.pid()), "198.51.100.1", 8080));
    engine.host().program("nft").args(["delete", "table", "inet", "mine"]).ok();
    engine.launch();
    wrong.extend(look("after the daemon's return", &rows));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop((servers, lan));
    // The neighbour's namespace goes in its own time, and the cable with it.
    engine.host().program("ip").args(["link", "delete", "lan0"]).run();
    engine.finish();
}

/// Servers of `hello` that the test runs itself; each forks for every caller.
struct Server(Child);

impl Server {
    /// One at this address and port in the network namespace of a process, or in the host's.
    fn start(engine: &Engine, place: Option<u32>, at: &str) -> Self {
        let folder = engine.host().scratch().join("www");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("index.html"), "hello\n").unwrap();
        let words = ["httpd", "-f", "-p", at, "-h", folder.to_str().unwrap()];
        Self(program_at(place, "busybox", &words).process_group(0).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).status();
        let _ = self.0.wait();
    }
}

/// For each rule of ours that has this text in it, alone: what the matrix looks like without it. Who changes the rules reads here which row each one is for; a
/// rule without a row is a second barrier behind another one, or should not be.
#[allow(clippy::print_stdout, reason = "a table to read")]
fn without_each_rule(engine: &Engine, rows: &[Row], part: &str) {
    let nft = |words: &[&str]| engine.host().program("nft").args(words).ok();
    let whole = nft(&["list", "ruleset"]);
    let saved = engine.host().scratch().join("rules.nft");
    std::fs::write(&saved, format!("flush ruleset\n{whole}\n")).unwrap();
    let saved = saved.to_str().unwrap();
    let with_handles = nft(&["-a", "list", "table", "inet", engine.host().name()]);
    let mut chain = String::new();
    let mut found = Vec::new();
    for (number, line) in with_handles.lines().map(str::trim).enumerate() {
        if let Some(name) = line.strip_prefix("chain ") {
            name.split(' ').next().unwrap().clone_into(&mut chain);
        } else if let Some((rule, _)) = line
            .split_once(" # handle ")
            .filter(|(rule, _)| !chain.is_empty() && !rule.ends_with('{') && rule.contains(part))
        {
            // Handles are others once the rules were put back: the rule is told by its place.
            let now = nft(&["-a", "list", "table", "inet", engine.host().name()]);
            let handle = now.lines().nth(number).unwrap().rsplit(' ').next().unwrap();
            nft(&["delete", "rule", "inet", engine.host().name(), &chain, "handle", handle]);
            let wrong = look(&format!("without {chain}: {rule}"), rows);
            found.push(format!("{:>3} rows tell: {chain}: {rule}", wrong.len()));
            nft(&["-f", saved]);
        }
    }
    println!("{}", found.join("\n"));
}

/// Takes all rules of the host away, and waits until ours are there again, with what is to be in them.
fn flush_rules(engine: &Engine, content: &str) {
    engine.host().program("nft").args(["flush", "ruleset"]).ok();
    let end = Instant::now() + Duration::from_secs(10);
    while !engine.host().program("nft").args(["list", "ruleset"]).ok().contains(content) {
        assert!(Instant::now() < end, "the rules did not come back");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn published_ports_obey_the_hosts_own_rules_where_they_are_to() {
    let arguments = ["--publish-policy", "host"].map(str::to_owned).to_vec();
    let mut engine = Engine::start_with(EngineOptions { arguments });
    engine.import_busybox();
    let lan = neighbour(&engine);
    for (name, number, more) in [("front", 1, None), ("back", 2, None), ("inside", 3, Some("--internal"))] {
        let (four, six) = (format!("10.77.{number}.0/24"), format!("fd77:{number}::/64"));
        engine
            .docker(["network", "create", "--ipv6", "--subnet", &four, "--subnet", &six])
            .args(more)
            .args([name])
            .ok();
    }
    let published = ["--network", "front", "-p", "8080:80", "-p", "198.51.100.1:8083:80", "-p", "127.0.0.1:8081:80"];
    let web = run(&engine, "web", &published);
    let stranger = run(&engine, "stranger", &["--network", "back"]);
    let hidden = run(&engine, "hidden", &["--network", "inside"]);
    // Everywhere, at one address, and at loopback; who is let in is said for each phase.
    let rows = |lan_let_in: bool, others_let_in: bool| {
        let mut rows = Vec::new();
        let mut row = |from, pid, to: &str, address: &str, port, reached| {
            rows.push(Row { from, pid, to: to.to_owned(), address: address.to_owned(), port, reached });
        };
        for address in ["198.51.100.1", "2001:db8::1"] {
            row("host", None, "published everywhere", address, 8080, true);
            row("lan", Some(lan.pid()), "published everywhere", address, 8080, lan_let_in);
            row("web", Some(web), "published everywhere", address, 8080, others_let_in);
            row("stranger", Some(stranger), "published everywhere", address, 8080, others_let_in);
            row("hidden", Some(hidden), "published everywhere", address, 8080, false);
        }
        row("lan", Some(lan.pid()), "published at one address", "198.51.100.1", 8083, others_let_in);
        row("lan", Some(lan.pid()), "published at loopback", "198.51.100.1", 8081, false);
        for address in ["127.0.0.1", "::1"] {
            row("host", None, "published, by loopback", address, 8080, true);
        }
        rows
    };
    let nft = |rule: &str| drop(engine.host().program("nft").args([rule]).ok());
    let mut wrong = look("a host without rules", &rows(true, true));
    nft("add table inet mine; add chain inet mine input { type filter hook input priority 10; policy drop; }");
    // As everywhere: answers to what the host itself began.
    nft("add rule inet mine input ct state established,related accept; add rule inet mine input iifname lo accept");
    nft("add rule inet mine input meta l4proto ipv6-icmp accept");
    wrong.extend(look("a host that lets nobody in", &rows(false, false)));
    nft("add rule inet mine input ip saddr 198.51.100.2 tcp dport 8080 accept");
    nft("add rule inet mine input ip6 saddr 2001:db8::2 tcp dport 8080 accept");
    wrong.extend(look("a host that lets the neighbour in to one port", &rows(true, false)));
    flush_rules(&engine, "admission");
    engine.host().program("iptables").args(["-P", "INPUT", "DROP"]).ok();
    for rule in ["-i lo", "-m conntrack --ctstate ESTABLISHED,RELATED"] {
        engine.host().program("iptables").args(["-A", "INPUT"]).args(rule.split(' ')).args(["-j", "ACCEPT"]).ok();
    }
    let only_ipv6 = |mut rows: Vec<Row>| {
        rows.iter_mut()
            .filter(|row| !row.address.contains(':') && row.from != "host")
            .for_each(|row| row.reached = false);
        rows
    };
    wrong.extend(look("after a flush, with iptables", &only_ipv6(rows(true, true))));
    engine.kill();
    wrong.extend(look("while no daemon runs", &only_ipv6(rows(true, true))));
    engine.launch();
    wrong.extend(look("after the daemon's return", &only_ipv6(rows(true, true))));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    engine.host().program("nft").args(["delete table ip filter"]).ok();
    drop(lan);
    engine.finish();
}

/// What comes back through the gate still comes from who called.
#[test]
fn the_clients_address_is_kept_under_the_hosts_own_rules() {
    let arguments = ["--publish-policy", "host"].map(str::to_owned).to_vec();
    let engine = Engine::start_with(EngineOptions { arguments });
    engine.import_busybox();
    let lan = neighbour(&engine);
    engine.docker(["network", "create", "--ipv6", "--subnet", "10.77.1.0/24", "--subnet", "fd77:1::/64", "front"]).ok();
    let tell = "mkdir -p /www/cgi-bin && cd /www/cgi-bin && \
        printf '#!/bin/sh\nprintf \"\\r\\n$REMOTE_ADDR\"\n' > who && chmod +x who && httpd -f -p 80 -h /www";
    let run = ["run", "-d", "--name", "web", "--network", "front", "-p", "8080:80", "busybox", "sh", "-c", tell];
    engine.docker(run).ok();
    let ask = |address: &str| {
        let url = format!("http://{address}:8080/cgi-bin/who");
        let words = ["-s", "-g", "-m", "2", "--retry", "20", "--retry-all-errors", "--retry-delay", "1", &url];
        let output = inside(lan.pid(), "curl", &words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (four, six) = (ask("198.51.100.1"), ask("[2001:db8::1]"));
    assert!(four.contains("198.51.100.2"), "{four}");
    assert!(six.contains("2001:db8::2") || six.contains("2001:db8:0:0:0:0:0:2"), "{six}");
    drop(lan);
    engine.finish();
}

#[test]
fn each_port_is_explained_by_the_rules_that_are_there() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "--ipv6", "--subnet", "10.77.1.0/24", "--subnet", "fd77:1::/64", "six"]).ok();
    run(&engine, "web", &["--network", "six", "-p", "8080:80", "-p", "127.0.0.1:8081:80"]);
    let explained = |what: &str, caller: &str| {
        let text = engine.conex(["ports", "explain", "web"]).ok();
        let port = text.split("\n").skip_while(|line| !line.starts_with(what)).skip(1);
        let line = port.take_while(|line| line.starts_with(' ')).find(|line| line.trim().starts_with(caller));
        line.unwrap_or_else(|| panic!("{what}, {caller}: {text}")).trim()[caller.len()..].trim().to_owned()
    };
    let everywhere = "0.0.0.0:8080 ->";
    for caller in ["this host", "other machines", "containers"] {
        assert!(explained(everywhere, caller).starts_with("yes"), "{}", explained(everywhere, caller));
    }
    assert!(explained("127.0.0.1:8081", "this host").starts_with("yes"));
    assert!(explained("127.0.0.1:8081", "other machines").starts_with("no       chain incoming of table inet"));
    let nft = |rule: &str| drop(engine.host().program("nft").args([rule]).ok());
    nft("add table inet mine; add chain inet mine forward { type filter hook forward priority 0; policy accept; }");
    nft("add rule inet mine forward ip daddr 192.0.2.1 drop; add rule inet mine forward tcp dport 81 drop");
    assert!(explained(everywhere, "other machines").starts_with("yes"), "rules for others say nothing");
    nft("add chain inet mine web; add rule inet mine web tcp dport 80 drop comment \"no web\"");
    nft("add rule inet mine forward meta l4proto tcp jump web");
    let found = explained(everywhere, "other machines");
    assert!(found.starts_with("no ") && found.ends_with("of chain inet mine web \"no web\""), "{found}");
    assert!(explained("[::]:8080 ->", "containers").starts_with("no "));
    assert!(explained(everywhere, "this host").starts_with("yes"), "what the host sends is not forwarded");
    nft("flush chain inet mine web; add rule inet mine web ip saddr 198.51.100.0/24 drop");
    assert!(explained(everywhere, "other machines").starts_with("depends  rule "));
    nft("flush chain inet mine forward; chain inet mine forward { policy drop; }");
    let found = explained(everywhere, "other machines");
    assert_eq!(found, "no       policy drop of chain inet mine forward");
    nft("delete table inet mine");
    assert!(explained(everywhere, "other machines").starts_with("yes"));
    engine.finish();
}

#[test]
fn spoofed_packets_go_nowhere() {
    let engine = Engine::with_busybox();
    let lan = neighbour(&engine);
    run(&engine, "web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80"]);
    let from_lan = Some(lan.pid());
    assert!(answers_soon(from_lan, "198.51.100.1", 8080), "the way is open as such");
    // What is for somebody else passes through, if at all.
    lan.ip("route add 203.0.113.50 via 198.51.100.1");
    assert!(!answers(from_lan, "203.0.113.50", 8080));
    // The neighbour's own loopback is down: it sends what is for 127.0.0.1 to the host.
    assert!(lan.run("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet"]));
    lan.ip("route add 127.0.0.1 via 198.51.100.1");
    for port in [8080, 8081] {
        assert!(!answers(from_lan, "127.0.0.1", port), "{port}");
    }
    // A container that speaks under another's address is not heard, on a bridge or a route.
    engine.docker(["network", "create", "-d", "routed", "--subnet", "10.78.0.0/24", "far"]).ok();
    for (network, gateway) in [("bridge", "172.17.0.1"), ("far", "10.78.0.1")] {
        let options = ["--network", network, "--cap-add", "NET_ADMIN"];
        let sly = run(&engine, &format!("sly-{network}"), &options);
        ip(sly, "address add 203.0.113.9/32 dev eth0");
        only_the_honest_is_heard(sly, gateway, "203.0.113.9", "0.0.0.0");
    }
    spoofed_by_ipv6(&engine);
    the_hosts_loopback_is_its_own(&engine);
    drop(lan);
    engine.finish();
}

/// Without an address of the host on the bridge there is no route to who is behind it, and all the same they are where they belong.
#[test]
fn a_bridge_without_an_address_joins_its_containers() {
    let engine = Engine::with_busybox();
    let isolated = "com.docker.network.bridge.gateway_mode_ipv4=isolated";
    let options = [
        ("inhibited", "10.77.1", vec!["-o", "com.docker.network.bridge.inhibit_ipv4=true"]),
        ("isolated", "10.77.2", vec!["--internal", "-o", isolated]),
    ];
    engine.host().program("ip").args("address add 198.51.100.1/32 dev lo".split(' ')).ok();
    for (network, prefix, options) in options {
        let subnet = format!("{prefix}.0/24");
        engine.docker(["network", "create", "--subnet", &subnet]).args(options).args([network]).ok();
        let name = format!("{network}-web");
        let web = run(&engine, &name, &["--network", network]);
        let peer = run(&engine, &format!("{network}-peer"), &["--network", network, "--cap-add", "NET_ADMIN"]);
        let address = address(&engine, &name, network);
        assert!(answers_soon(Some(peer), &address, 80), "{network}");
        assert!(!answers(None, &address, 80), "{network}: the host has no way there");
        // Under an address from elsewhere nobody is heard here either.
        ip(web, "route add 203.0.113.9/32 dev eth0");
        let home = format!("{prefix}.99");
        for (source, heard) in [("203.0.113.9", false), (home.as_str(), true)] {
            ip(peer, &format!("address add {source}/32 dev eth0"));
            ip(peer, &format!("route replace {address}/32 dev eth0 src {source}"));
            assert_eq!(answers(Some(peer), &address, 80), heard, "{network}: {source}");
        }
        // The host could not answer him, and does not hear him either.
        ip(peer, &format!("route replace 198.51.100.1/32 dev eth0 src {home}"));
        let speakers = [(Some(peer), home.as_str(), "one way"), (None, "198.51.100.1", "the host itself")];
        assert_eq!(first_heard("198.51.100.1", &speakers), "the host itself", "{network}");
    }
    engine.finish();
}

/// Executes a command line to which there is no nf_tables: netlink's sockets of netfilter are refused, as by a kernel without it.
const WITHOUT_NETFILTER: &str = r#"
import ctypes, os, struct, sys
step = lambda code, yes, no, value: struct.pack("HBBI", code, yes, no, value)
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
rules = b"".join([
    step(LOAD, 0, 0, 0), step(EQUAL, 0, 5, 41),
    step(LOAD, 0, 0, 16), step(EQUAL, 0, 3, 16),
    step(LOAD, 0, 0, 32), step(EQUAL, 0, 1, 12),
    step(RETURN, 0, 0, 0x50000 | 93), step(RETURN, 0, 0, 0x7fff0000),
])
kept = ctypes.create_string_buffer(rules)
program = struct.pack("HxxxxxxP", len(rules) // 8, ctypes.addressof(kept))
if ctypes.CDLL(None, use_errno=True).prctl(22, 2, program, 0, 0) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn a_host_without_nf_tables_says_so_and_publishes_nothing() {
    let mut engine = Engine::with_busybox();
    engine.stop();
    engine.launch_through("python3", &["-c", WITHOUT_NETFILTER]);
    let peer = run(&engine, "peer", &[]);
    run(&engine, "web", &[]);
    let info = engine.get("/info").ok();
    assert!(info.contains("nf_tables cannot be used"), "{info}");
    assert!(answers_soon(Some(peer), &address(&engine, "web", "bridge"), 80), "the bridge needs no rules");
    let refused = engine.docker(["run", "--name", "shop", "-p", "8080:80", "busybox", "true"]).run().expect_code(125);
    assert!(refused.error_text().contains("load the kernel module nf_tables"), "{}", refused.error_text());
    assert_eq!(engine.docker(["inspect", "-f", "{{.State.Status}}", "shop"]).ok(), "created");
    engine.stop();
    engine.launch();
    run(&engine, "open", &["-p", "8080:80"]);
    assert!(answers_soon(None, "127.0.0.1", 8080), "with nf_tables all is as ever");
    engine.finish();
}

/// As by IPv4; a container's link-local address is its own.
fn spoofed_by_ipv6(engine: &Engine) {
    engine.docker(["network", "create", "--ipv6", "--subnet", "10.79.0.0/24", "--subnet", "fd79::/64", "six"]).ok();
    let sly = run(engine, "sly-six", &["--network", "six"]);
    ip(sly, "-6 address add 2001:db8:9::9/128 dev eth0 nodad");
    only_the_honest_is_heard(sly, "fd79::1", "2001:db8:9::9", "::");
}

/// Has a container speak to its gateway, first under an address that is not its place, then under its own.
fn only_the_honest_is_heard(sly: u32, gateway: &str, spoofed: &str, own: &str) {
    let speakers = [(Some(sly), spoofed, "spoofed"), (Some(sly), own, "honest")];
    assert_eq!(first_heard(gateway, &speakers), "honest");
}

/// Has some speak to an address of the host by UDP, one after the other: from the network namespace of a process or the host's, under
/// an address, with a word. Returns the first word that is heard.
fn first_heard(address: &str, speakers: &[(Option<u32>, &str, &str)]) -> String {
    let address: IpAddr = address.parse().unwrap();
    let family = if address.is_ipv4() { "AF_INET" } else { "AF_INET6" };
    let socket = UdpSocket::bind((address, 9999)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for (place, source, word) in speakers {
        let script = format!(
            "import socket; s = socket.socket(socket.{family}, socket.SOCK_DGRAM); s.bind(('{source}', 0)); s.sendto(b'{word}', ('{address}', 9999))"
        );
        assert!(program_at(*place, "python3", &["-c", &script]).status().unwrap().success());
    }
    let mut bytes = [0; 20];
    let (length, _) = socket.recv_from(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// A container that has no loopback of its own sends what is for it to its gateway, whose bridge lets answers of published ports to
/// loopback through.
fn the_hosts_loopback_is_its_own(engine: &Engine) {
    let sly = run(engine, "sly-loopback", &["--network", "bridge"]);
    let _server = Server::start(engine, None, "127.0.0.1:84");
    assert!(answers_soon(None, "127.0.0.1", 84));
    let script = "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet; ip address flush dev lo; \
        ip route add 127.0.0.1 via 172.17.0.1 src $1 && ip route get 127.0.0.1";
    let own = address(engine, "sly-loopback", "bridge");
    let route = inside(sly, "sh", &["-c", script, "sh", &own]).output().unwrap();
    let route = String::from_utf8_lossy(&route.stdout).into_owned();
    assert!(route.contains("via 172.17.0.1"), "{route}");
    assert!(!answers(Some(sly), "127.0.0.1", 84));
}

fn answers_soon(from: Option<u32>, address: &str, port: u16) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let found = answers(from, address, port);
        if found || Instant::now() > end {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn no_host_listens_to_containers_routers() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "--ipv6", "six"]).ok();
    run(&engine, "one", &["--network", "six"]);
    run(&engine, "four", &[]);
    let links = engine.host().program("ip").args(["-o", "link", "show", "type", "bridge"]).ok();
    let bridges: Vec<&str> = links.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(bridges.len(), 2, "{links}");
    for bridge in bridges {
        let setting = engine.host().program("cat").args([format!("/proc/sys/net/ipv6/conf/{bridge}/accept_ra")]).ok();
        assert_eq!(setting, "0", "{bridge}");
    }
    assert_eq!(engine.docker(["exec", "one", "cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra"]).ok(), "0");
    assert!(!engine.docker(["exec", "four", "ip", "-6", "address", "show", "eth0"]).ok().contains("inet6"));
    engine.finish();
}
