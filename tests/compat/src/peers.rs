//! Containers that serve, and who calls them: where they are, and a machine beside the host.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::Engine;

/// Answers `hello` to whoever calls port 80 of the container, for as long as it runs.
const SERVER: &str = "while :; do echo hello | nc -l -p 80; done";

/// Runs a container that answers `hello` at port 80; its id.
pub(crate) fn serve(engine: &Engine, name: &str, options: &[&str]) -> String {
    engine.docker(["run", "-d", "--name", name]).args(options).args(["busybox", "sh", "-c", SERVER]).ok()
}

/// What a call of the host is answered; asked again while nothing listens in the container yet.
pub(crate) fn call(engine: &Engine, address: &str, port: &str) -> String {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = engine.host().program("busybox").args(["nc", "-w", "5", address, port]).run().text();
        if !answer.is_empty() || Instant::now() > end {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A field of a container's endpoint, as inspect shows it.
pub(crate) fn endpoint(engine: &Engine, container: &str, network: &str, field: &str) -> String {
    let template = format!("{{{{with index .NetworkSettings.Networks \"{network}\"}}}}{{{{.{field}}}}}{{{{end}}}}");
    engine.docker(["inspect", "-f", &template, container]).ok()
}

/// A container's IPv4 address on a network, empty where it has none.
pub(crate) fn address(engine: &Engine, container: &str, network: &str) -> String {
    endpoint(engine, container, network, "IPAddress")
}

/// The same for IPv6.
pub(crate) fn address6(engine: &Engine, container: &str, network: &str) -> String {
    endpoint(engine, container, network, "GlobalIPv6Address")
}

/// Whether a container reaches an address or a name.
pub(crate) fn reaches(engine: &Engine, container: &str, target: &str) -> bool {
    engine.docker(["exec", container, "ping", "-c", "1", "-W", "1", target]).run().code == 0
}

/// The process that watches over a container: the parent of its first process.
pub(crate) fn monitor_of(engine: &Engine, container: &str) -> u32 {
    let pid = engine.docker(["inspect", "-f", "{{.State.Pid}}", container]).ok();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// How many descriptors a process has.
pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A machine on a cable to the host, which is the host's `lan0` and the machine's `eth0`.
pub(crate) struct Neighbour(Child);

impl Neighbour {
    /// One with these addresses, `ADDRESS/PREFIX`. Those of the host's end are the test's to give.
    pub(crate) fn on_cable(engine: &Engine, addresses: &[&str]) -> Self {
        let child = Command::new("unshare").args(["-n", "sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap();
        let own = || std::fs::read_link("/proc/thread-self/ns/net").ok();
        let end = Instant::now() + Duration::from_secs(10);
        // The child leaves the host's namespace in its own time.
        while std::fs::read_link(format!("/proc/{}/ns/net", child.id())).ok() == own() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(5));
        }
        let host = |words: &str| drop(engine.host().program("ip").args(words.split(' ')).ok());
        host(&format!("link add lan0 type veth peer name eth0 netns {}", child.id()));
        host("link set lan0 up");
        let neighbour = Self(child);
        for address in addresses {
            // Good at once: there is nobody else to have it.
            let nodad = if address.contains(':') { " nodad" } else { "" };
            neighbour.ip(&format!("address add {address} dev eth0{nodad}"));
        }
        neighbour.ip("link set eth0 up");
        neighbour
    }

    /// A process of its.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Changes its network by `ip WORDS`.
    pub(crate) fn ip(&self, words: &str) {
        ip(self.pid(), words);
    }

    /// Whether a program of this machine succeeds there.
    pub(crate) fn run(&self, program: &str, words: &[&str]) -> bool {
        inside(self.pid(), program, words).stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Changes the network of a process by `ip WORDS`.
#[track_caller]
pub(crate) fn ip(pid: u32, words: &str) {
    let status = inside(pid, "ip", &words.split(' ').collect::<Vec<_>>()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// A program of this machine in the network namespace of a process.
pub(crate) fn inside(pid: u32, program: &str, words: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-n", "-t", &pid.to_string(), program]).args(words);
    command
}
