//! Published ports.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use harness::Engine;

use crate::peers::{call, descriptors, inside, monitor_of, serve};

#[test]
fn a_published_port_answers_everywhere_and_is_shown() {
    let engine = Engine::with_busybox();
    serve(&engine, "web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80/tcp", "-p", "5353:53/udp", "--expose", "9000"]);
    for (address, port) in [("127.0.0.1", "8080"), ("127.0.0.1", "8081"), ("::1", "8080")] {
        assert_eq!(call(&engine, address, port), "hello", "{address}:{port}");
    }
    let shown = "53/udp -> 0.0.0.0:5353\n53/udp -> [::]:5353\n80/tcp -> 0.0.0.0:8080\n80/tcp -> 127.0.0.1:8081\n80/tcp -> [::]:8080";
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    };
    assert_eq!(sorted(engine.docker(["port", "web"]).ok()), shown);
    assert_eq!(sorted(engine.conex(["port", "web"]).ok()), shown);
    assert_eq!(sorted(engine.docker(["port", "web", "80"]).ok()), "0.0.0.0:8080\n127.0.0.1:8081\n[::]:8080");
    let listed = engine.docker(["ps", "--format", "{{.Ports}}"]).ok();
    for part in ["0.0.0.0:8080->80/tcp", "[::]:8080->80/tcp", "127.0.0.1:8081->80/tcp", "9000/tcp"] {
        assert!(listed.contains(part), "{listed}");
    }
    let inspected = engine.docker(["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"]).ok();
    assert!(inspected.contains(r#""9000/tcp":null"#), "{inspected}");
    assert!(inspected.contains(r#"{"HostIp":"127.0.0.1","HostPort":"8081"}"#), "{inspected}");
    assert_eq!(engine.docker(["ps", "-q", "--filter", "publish=8080"]).ok().lines().count(), 1);
    engine.docker(["stop", "-t", "0", "web"]).ok();
    assert_eq!(engine.docker(["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"]).ok(), "{}");
    engine.finish();
}

#[test]
fn who_comes_second_is_told_why() {
    let engine = Engine::with_busybox();
    serve(&engine, "first", &["-p", "8080:80"]);
    let error = engine.docker(["run", "-p", "8080:80", "--name", "second", "busybox", "true"]).fails(125);
    assert!(error.contains("driver failed programming external connectivity on endpoint second ("), "{error}");
    assert!(error.contains("Bind for 0.0.0.0:8080 failed: port is already allocated"), "{error}");
    // The end of the first is the beginning of the second.
    engine.docker(["rm", "-f", "first"]).ok();
    assert_eq!(engine.docker(["start", "second"]).ok(), "second");
    for _ in 0..5 {
        engine.docker(["run", "--rm", "-p", "8082:80", "busybox", "true"]).ok();
    }
    // The test's thread lives on the engine's host.
    let listener = std::net::TcpListener::bind("127.0.0.1:8083").expect("a free port");
    let error = engine.docker(["run", "-p", "8083:80", "busybox", "true"]).fails(125);
    assert!(error.contains("failed to bind host port for 0.0.0.0:8083:"), "{error}");
    assert!(error.contains(":80/tcp: address already in use"), "{error}");
    drop(listener);
    engine.docker(["run", "--rm", "-p", "8083:80", "busybox", "true"]).ok();
    engine.finish();
}

#[test]
fn ports_without_a_number_are_found() {
    let engine = Engine::with_busybox();
    serve(&engine, "any", &["-P", "--expose", "80", "--expose", "7000-7001", "-p", "8090-8091:90"]);
    serve(&engine, "more", &["-p", "8090-8091:80", "-p", "80"]);
    let port = engine.docker(["port", "any", "80/tcp"]).ok();
    let number: u16 = port.lines().next().and_then(|line| line.rsplit_once(':')?.1.parse().ok()).expect("a port");
    assert!(number >= 32768, "{port}");
    assert_eq!(call(&engine, "127.0.0.1", &number.to_string()), "hello");
    assert!(engine.docker(["port", "any", "90"]).ok().contains("0.0.0.0:8090"));
    assert!(engine.docker(["port", "any", "7001"]).ok().contains("0.0.0.0:"));
    assert!(engine.docker(["port", "more", "80"]).ok().contains("0.0.0.0:8091"));
    engine.finish();
}

#[test]
fn published_ports_outlive_the_daemon() {
    let mut engine = Engine::with_busybox();
    serve(&engine, "web", &["-p", "8080:80"]);
    engine.kill();
    for address in ["127.0.0.1", "::1"] {
        assert_eq!(call(&engine, address, "8080"), "hello", "{address}, while no daemon runs");
    }
    engine.launch();
    assert_eq!(call(&engine, "127.0.0.1", "8080"), "hello");
    assert_eq!(call(&engine, "::1", "8080"), "hello");
    assert!(engine.docker(["port", "web"]).ok().contains("80/tcp -> 0.0.0.0:8080"));
    let error = engine.docker(["run", "--rm", "-p", "8080:80", "busybox", "true"]).fails(125);
    assert!(error.contains("port is already allocated"), "{error}");
    engine.docker(["restart", "-t", "0", "web"]).ok();
    assert_eq!(call(&engine, "127.0.0.1", "8080"), "hello");
    // On another network they lead there, whoever takes the call.
    engine.docker(["network", "create", "other"]).ok();
    engine.docker(["network", "connect", "other", "web"]).ok();
    engine.docker(["network", "disconnect", "bridge", "web"]).ok();
    for address in ["127.0.0.1", "::1"] {
        assert_eq!(call(&engine, address, "8080"), "hello", "{address}, from another network");
    }
    engine.finish();
}

/// Prints every datagram that comes to a port, until it is ended. The test's busybox knows no UDP.
const SINK: &str = r#"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.bind(("0.0.0.0", int(sys.argv[1])))
print("listening", flush=True)
while True:
    sys.stdout.write(s.recv(100).decode())
    sys.stdout.flush()
"#;

/// The lines that come to a UDP port of a container.
struct Sink {
    child: Child,
    lines: Receiver<String>,
}

impl Sink {
    /// Comes back when it listens.
    fn in_container(engine: &Engine, container: &str, port: &str) -> Self {
        Self::of(engine, container, port, SINK)
    }

    /// What a script says that serves a port; comes back when it listens.
    fn of(engine: &Engine, container: &str, port: &str, script: &str) -> Self {
        let pid = engine.docker(["inspect", "-f", "{{.State.Pid}}", container]).ok().parse().unwrap();
        let mut child = inside(pid, "python3", &["-c", script, port]).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let sink = Self { child, lines };
        assert_eq!(sink.next().as_deref(), Some("listening"));
        sink
    }

    /// The next line; none when nothing comes for long.
    fn next(&self) -> Option<String> {
        self.lines.recv_timeout(Duration::from_secs(5)).ok()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn no_packet_is_lost_while_the_daemon_is_killed_and_comes_back() {
    let mut engine = Engine::with_busybox();
    // Without an input that stays open it would end at once.
    let listen = "tail -f /dev/null | nc -l -p 80 > /tcp";
    let options = ["-d", "--name", "sink", "-p", "8080:80", "-p", "8081:81/udp"];
    engine.docker(["run"]).args(options).args(["busybox", "sh", "-c", listen]).ok();
    let sink = Sink::in_container(&engine, "sink", "81");
    let end = Instant::now() + Duration::from_secs(30);
    let mut stream = loop {
        match TcpStream::connect("127.0.0.1:8080") {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.1:8081").unwrap();
    // Numbered, a thousand a second each, for as long as the daemon dies and comes back.
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let line = format!("{number}\n");
                stream.write_all(line.as_bytes()).expect("the connection stays");
                socket.send(line.as_bytes()).expect("somebody is there");
                number += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            number
        });
        for _ in 0..3 {
            engine.kill();
            engine.launch();
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    let wanted: Vec<String> = (0..sent).map(|number| number.to_string()).collect();
    assert!(wanted.len() > 100);
    let datagrams: Vec<String> = wanted.iter().map_while(|_| sink.next()).collect();
    assert!(datagrams == wanted, "{} of {} datagrams came", datagrams.len(), wanted.len());
    let mut text = engine.docker(["exec", "sink", "cat", "/tcp"]).ok();
    while text.lines().count() < wanted.len() && Instant::now() < end {
        text = engine.docker(["exec", "sink", "cat", "/tcp"]).ok();
    }
    assert!(text.lines().eq(&wanted), "{} of {} lines came", text.lines().count(), wanted.len());
    drop(sink);
    engine.finish();
}

#[test]
fn a_client_by_udp_is_led_to_the_new_container_at_once() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "--subnet", "10.79.0.0/24", "net"]).ok();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.1:8053").unwrap();
    // Not published yet: the flow leads to the host, where nobody is.
    let _ = socket.send(b"early\n");
    for (name, address) in [("first", "10.79.0.10"), ("second", "10.79.0.11")] {
        let place = ["-d", "--name", name, "--network", "net", "--ip", address, "-p", "8053:53/udp"];
        engine.docker(["run"]).args(place).args(["busybox", "sleep", "1000"]).ok();
        let sink = Sink::in_container(&engine, name, "53");
        // From the same port as before, and never silent for as long as the kernel remembers a flow. The first call may only report
        // that nobody was there before.
        while socket.send(format!("{name}\n").as_bytes()).is_err() {}
        assert_eq!(sink.next().as_deref(), Some(name));
        drop(sink);
        engine.docker(["rm", "-f", name]).ok();
    }
    engine.finish();
}

/// Answers each datagram with the port that it came from and what it said, but what begins with `flood` not at all.
const ECHO: &str = r#"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", int(sys.argv[1])))
print("listening", flush=True)
while True:
    text, caller = s.recvfrom(65535)
    if not text.startswith(b"flood"):
        s.sendto(b"%d %s" % (caller[1], text), caller)
"#;

/// A client that hears nobody but who it speaks to.
struct Client(UdpSocket);

impl Client {
    fn of(own: &str, other: &str) -> Self {
        let socket = UdpSocket::bind((own, 0)).unwrap();
        socket.connect(other).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self(socket)
    }

    /// The port by which the container is spoken to, as it answers; the rest of the answer is as what was said.
    fn ask(&self, text: &str) -> u16 {
        self.0.send(text.as_bytes()).unwrap();
        let mut bytes = vec![0; 65536];
        let length = self.0.recv(&mut bytes).unwrap_or_else(|error| panic!("{} bytes: {error}", text.len()));
        let (port, said) = std::str::from_utf8(&bytes[..length]).unwrap().split_once(' ').unwrap();
        assert!(said == text, "{} bytes", said.len());
        port.parse().unwrap()
    }
}

#[test]
fn datagrams_by_ipv6_reach_a_container_without_and_outlive_the_daemon() {
    let mut engine = Engine::with_busybox();
    engine.host().program("ip").args("address add 2001:db8::1/128 dev lo nodad".split(' ')).ok();
    let options = ["-d", "--name", "dns", "-p", "8053:53/udp", "-p", "[::1]:8054:53/udp"];
    engine.docker(["run"]).args(options).args(["busybox", "sleep", "1000"]).ok();
    let shown = engine.docker(["port", "dns", "53/udp"]).ok();
    for place in ["0.0.0.0:8053", "[::]:8053", "[::1]:8054"] {
        assert!(shown.contains(place), "{shown}");
    }
    let server = Sink::of(&engine, "dns", "53", ECHO);
    let [first, second] = [(); 2].map(|()| Client::of("::1", "[::1]:8054"));
    let distant = Client::of("2001:db8::1", "[2001:db8::1]:8053");
    let ports = [&first, &second, &distant].map(|client| client.ask("hello"));
    assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2], "{ports:?}");
    assert_eq!(Client::of("127.0.0.1", "127.0.0.1:8053").ask("by IPv4").to_string().len(), 5);
    first.ask("");
    first.ask(&"large ".repeat(10_000));
    engine.kill();
    let later = [&first, &second, &distant].map(|client| client.ask("while no daemon runs"));
    assert_eq!(later, ports, "each has his own way still");
    Client::of("::1", "[::1]:8054").ask("somebody new");
    engine.launch();
    assert_eq!(first.ask("after its return"), ports[0]);
    engine.docker(["network", "create", "other"]).ok();
    engine.docker(["network", "connect", "other", "dns"]).ok();
    engine.docker(["network", "disconnect", "bridge", "dns"]).ok();
    for client in [&first, &distant] {
        client.ask("from another network");
    }
    drop(server);
    engine.docker(["rm", "-f", "dns"]).ok();
    let _ = first.0.send(b"nobody");
    assert_eq!(first.0.recv(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    let again = ["--rm", "-p", "8053:53/udp", "-p", "[::1]:8054:53/udp"];
    engine.docker(["run"]).args(again).args(["busybox", "true"]).ok();
    engine.finish();
}

#[test]
fn a_flood_of_callers_by_ipv6_costs_the_monitor_little_and_friends_nothing() {
    let engine = Engine::with_busybox();
    let options = ["-d", "--name", "dns", "-p", "[::1]:8054:53/udp"];
    engine.docker(["run"]).args(options).args(["busybox", "sleep", "1000"]).ok();
    let server = Sink::of(&engine, "dns", "53", ECHO);
    let friend = Client::of("::1", "[::1]:8054");
    let port = friend.ask("before");
    for _ in 0..30 {
        for _ in 0..100 {
            let stranger = UdpSocket::bind("[::1]:0").unwrap();
            stranger.send_to(b"flood", "[::1]:8054").unwrap();
        }
        assert_eq!(friend.ask("again"), port, "the monitor has read the flood, and the friend has his way still");
    }
    let (limit, open) = (1024, descriptors(monitor_of(&engine, "dns")));
    assert!((limit..limit + 64).contains(&open), "{open} descriptors");
    assert_eq!(Client::of("::1", "[::1]:8054").ask("somebody new").to_string().len(), 5);
    drop(server);
    engine.finish();
}

#[test]
fn what_is_neither_translated_nor_passed_on_is_refused_in_words() {
    let engine = Engine::with_busybox();
    let publish = ["-p", "8053:53/udp", "-p", "[::1]:8054:53/sctp"];
    let error = engine.docker(["run", "--name", "dns"]).args(publish).args(["busybox", "true"]).fails(125);
    assert!(error.contains("sctp at ::1 cannot be passed on"), "{error}");
    engine.docker(["rm", "dns"]).ok();
    engine.docker(["run", "--rm", "-p", "8053:53/udp", "busybox", "true"]).ok();
    engine.finish();
}

#[test]
fn host_and_none_networks_have_no_ports_of_their_own() {
    let engine = Engine::with_busybox();
    let warned = engine.docker(["create", "--network", "host", "-p", "8080:80", "busybox", "true"]).run();
    assert!(warned.error_text().contains("Published ports are discarded when using host network mode"));
    engine.docker(["run", "--rm", "--network", "none", "-p", "8080:80", "busybox", "true"]).ok();
    serve(&engine, "web", &["-p", "8080:80"]);
    let error = engine.docker(["run", "--network", "container:web", "-p", "8081:81", "busybox", "true"]).fails(125);
    assert!(error.contains("port publishing and the container type network mode"), "{error}");
    engine.finish();
}
