//! Names of containers on users' networks.

use std::net::UdpSocket;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::Engine;

use crate::peers::{address, inside};

fn run(engine: &Engine, name: &str, options: &[&str]) {
    engine.docker(["run", "-d", "--name", name]).args(options).args(["busybox", "sleep", "1000"]).ok();
}

/// The addresses that a container finds for a name; none when there are none.
fn look_up(engine: &Engine, container: &str, name: &str) -> Vec<String> {
    let output = engine.docker(["exec", container, "nslookup", "-type=a", name]).run();
    let text = output.text();
    let (_, answer) = text.split_once("\n\n").unwrap_or(("", ""));
    let mut found: Vec<String> =
        answer.lines().filter_map(|line| line.strip_prefix("Address: ")).map(str::to_owned).collect();
    found.sort();
    found
}

/// A name server on the test's host that knows one name, and counts what it is asked.
fn upstream() -> Arc<AtomicUsize> {
    let socket = UdpSocket::bind("127.0.0.1:53").expect("the host is the test's own");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut answer = bytes[..length].to_vec();
            // An answer with one record: 192.0.2.7 for ten minutes. Options are left out.
            answer[2..4].copy_from_slice(&[0x81, 0x80]);
            answer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 192, 0, 2, 7]);
            let _ = socket.send_to(&answer, from);
        }
    });
    count
}

#[test]
fn containers_find_each_other_on_their_own_networks_alone() {
    let mut engine = Engine::with_busybox();
    for name in ["front", "back"] {
        engine.docker(["network", "create", name]).ok();
    }
    run(&engine, "web", &["--network", "front", "--network-alias", "www", "--hostname", "webhost"]);
    run(&engine, "api", &["--network", "front"]);
    run(&engine, "db", &["--network", "back"]);
    let web = address(&engine, "web", "front");
    for name in ["web", "www", "WEB", "web.front", "webhost"] {
        assert_eq!(look_up(&engine, "api", name), std::slice::from_ref(&web), "{name}");
    }
    let id = engine.docker(["inspect", "-f", "{{.Id}}", "web"]).ok();
    assert_eq!(look_up(&engine, "api", &id[..12]), std::slice::from_ref(&web));
    assert!(look_up(&engine, "db", "web").is_empty());
    let reversed = engine.docker(["exec", "api", "nslookup", &web]).run().text();
    assert!(reversed.contains("web.front"), "{reversed}");
    assert!(engine.docker(["exec", "api", "cat", "/etc/resolv.conf"]).ok().contains("nameserver 127.0.0.11\n"));
    // Who shares an alias is found together.
    engine.docker(["network", "connect", "--alias", "www", "front", "db"]).ok();
    let mut both = vec![web.clone(), address(&engine, "db", "front")];
    both.sort();
    assert_eq!(look_up(&engine, "api", "www"), both);
    engine.docker(["rename", "api", "gateway"]).ok();
    assert!(look_up(&engine, "web", "api").is_empty());
    assert_eq!(look_up(&engine, "web", "gateway"), [address(&engine, "gateway", "front")]);
    engine.docker(["network", "disconnect", "front", "db"]).ok();
    assert_eq!(look_up(&engine, "gateway", "www"), std::slice::from_ref(&web));
    engine.kill();
    engine.launch();
    assert_eq!(look_up(&engine, "gateway", "web"), [web]);
    engine.docker(["rm", "-f", "web"]).ok();
    assert!(look_up(&engine, "gateway", "web").is_empty());
    engine.finish();
}

#[test]
fn other_names_are_asked_outside_and_from_internal_networks_nowhere() {
    let engine = Engine::with_busybox();
    let asked = upstream();
    engine.docker(["network", "create", "front"]).ok();
    engine.docker(["network", "create", "--internal", "inside"]).ok();
    run(&engine, "web", &["--network", "front", "--dns", "127.0.0.1"]);
    run(&engine, "sly", &["--network", "inside", "--dns", "127.0.0.1"]);
    assert_eq!(look_up(&engine, "web", "example.org"), ["192.0.2.7"]);
    let before = asked.load(Ordering::SeqCst);
    assert!(before > 0);
    assert!(look_up(&engine, "sly", "secret.example.org").is_empty());
    assert_eq!(asked.load(Ordering::SeqCst), before, "an internal network told somebody outside");
    // It is remembered.
    assert_eq!(look_up(&engine, "web", "example.org"), ["192.0.2.7"]);
    assert_eq!(asked.load(Ordering::SeqCst), before);
    engine.finish();
}

#[test]
fn a_container_may_be_a_name_server_itself() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "front"]).ok();
    run(&engine, "web", &["--network", "front"]);
    engine.docker(["exec", "-d", "web", "nc", "-l", "-p", "53"]).ok();
    let end = Instant::now() + Duration::from_secs(20);
    while !engine.docker(["exec", "web", "netstat", "-ltn"]).ok().contains(":::53") {
        assert!(Instant::now() < end, "port 53 is taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(look_up(&engine, "web", "web"), [address(&engine, "web", "front")]);
    engine.finish();
}

/// Asks 127.0.0.11 for a name until there is an answer, and prints when that was, in seconds since 1970.
const ASK: &str = r#"
import socket, time
question = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03two\x00\x00\x01\x00\x01"
while True:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(0.005)
    try:
        s.connect(("127.0.0.11", 53))
        s.send(question)
        if s.recv(512)[3] & 15 == 0:
            break
    except OSError:
        time.sleep(0.001)
print(time.time())
"#;

#[test]
#[allow(clippy::print_stdout, reason = "the figure is for SPECIFICATION.md")]
fn names_come_back_with_the_daemon() {
    let mut engine = Engine::with_busybox();
    engine.docker(["network", "create", "net"]).ok();
    for name in ["one", "two"] {
        engine.docker(["run", "-d", "--name", name, "--network", "net", "busybox", "sleep", "1000"]).ok();
    }
    let pid = engine.docker(["inspect", "-f", "{{.State.Pid}}", "one"]).ok().parse().unwrap();
    engine.kill();
    let asking = inside(pid, "python3", &["-c", ASK]).stdout(Stdio::piped()).spawn().unwrap();
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    engine.launch();
    let answered: f64 = String::from_utf8(asking.wait_with_output().unwrap().stdout).unwrap().trim().parse().unwrap();
    assert!(answered > began, "nobody answers while no daemon runs");
    println!("names are back {:.0} ms after the daemon's start", (answered - began) * 1000.0);
    engine.finish();
}
