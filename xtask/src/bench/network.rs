//! What a network costs: throughput through a published port and between containers, many containers on one network, many ports,
//! names of a lossy outside, and those that come back with the daemon.
//!
//! Its parts, for `--only`: throughput, loss, start, networks, ports, containers, routed, names.
//!
//! iperf3 of this machine runs in a container of each engine as server; its clients are a neighbour on a cable to the host, and another
//! container of the same engine. The two engines take turns.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Options;
use super::image::{SMALL, write_archive, write_root};
use super::measure::run_one;
use super::memory::{helpers, resident, share, sum_of_fields};
use super::report::{Bound, Report};
use super::world::World;
use crate::process::{copy_with_libraries, run as run_command, say};

const IMAGE: &str = "bench:iperf";
const SECONDS: &str = "3";
/// Time for what happens behind answers.
const SETTLE: Duration = Duration::from_secs(3);
const LOSSY_QUESTIONS: usize = 1000;
/// What a bridge holds, and what is past its limit.
const CROWDS: [Crowd; 2] = [
    Crowd { part: "containers", driver: "bridge", subnet: "10.90.0.0/16", count: 1000, pairs: 200 },
    Crowd { part: "routed", driver: "routed", subnet: "10.91.0.0/16", count: 5000, pairs: 500 },
];
/// How many clients start or remove containers at once.
const AT_ONCE: usize = 20;
/// How many run when the daemon is killed and names come back.
const NAMED_CONTAINERS: usize = 300;
const MANY_PORTS: usize = 50_000;
const MANY_NETWORKS: usize = 2000;
/// How many creations are looked at with some networks, a thousand, and all there.
const LOOKED_AT: usize = 20;

/// Many containers on one network.
struct Crowd {
    /// Its name for `--only`.
    part: &'static str,
    driver: &'static str,
    subnet: &'static str,
    count: usize,
    /// How many pairs are seen to speak with each other.
    pairs: usize,
}

impl Crowd {
    fn title(&self) -> String {
        format!("conex, {} containers on one {} network", thousands(self.count), self.driver)
    }
}

fn thousands(count: usize) -> String {
    format!("{},{:03}", count / 1000, count % 1000)
}

/// An engine in which iperf3 runs.
struct Side {
    name: &'static str,
    /// The command line without its words.
    client: Vec<String>,
    /// The API's socket.
    socket: PathBuf,
    /// Where its server is published.
    port: &'static str,
    /// The daemon's process: the engines have a network namespace each.
    daemon: u32,
    /// The third number of the addresses on its cable to the neighbour.
    cable: u8,
}

impl Side {
    fn line(&self, words: &[&str]) -> Vec<String> {
        self.client.iter().cloned().chain(words.iter().map(|word| (*word).to_owned())).collect()
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        run_one(&self.line(words)).map(drop)
    }

    /// Posts to the API and waits for the whole answer.
    fn post(&self, path: &str, json: &str) -> Result<()> {
        let mut stream = UnixStream::connect(&self.socket)?;
        let head = "HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Type: application/json";
        write!(stream, "POST /v1.40{path} {head}\r\nContent-Length: {}\r\n\r\n{json}", json.len())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 20") {
            bail!("{path}: {answer}");
        }
        Ok(())
    }

    fn say(&self, words: &[&str]) -> Result<String> {
        let line = self.line(words);
        let output = Command::new(&line[0]).args(&line[1..]).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("{}: {}", line.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// Runs the bench.
pub(crate) fn run(world: &mut World, options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let archive = world.state().join("iperf.tar");
    write_image(&world.state().join("iperf-root"), &archive)?;
    let mut sides = Vec::new();
    let (conex, docker, _) = world.pids();
    if let Some(daemon) = conex {
        sides.push(Side {
            name: "conex",
            client: world.conex_line([]),
            socket: world.conex_socket(),
            port: "5301",
            daemon,
            cable: 100,
        });
    }
    if let Some(daemon) = docker {
        sides.push(Side {
            name: "docker",
            client: world.docker_on_docker([]),
            socket: world.docker_socket(),
            port: "5302",
            daemon,
            cable: 101,
        });
    }
    let neighbour = Neighbour::new(&sides)?;
    let conex = sides.iter().find(|side| side.name == "conex");
    if options.wants("throughput") {
        throughput(&sides, &neighbour, &archive, options.rounds.min(5), &mut report)?;
    }
    if let Some(conex) = conex.filter(|_| options.wants("loss")) {
        names_under_loss(conex, &neighbour, &mut report)?;
    }
    drop(neighbour);
    for side in sides.iter().filter(|_| options.wants("start")) {
        start_times(side, options.rounds.min(20), &mut report)?;
    }
    let Some(conex) = conex else { return Ok(report) };
    if options.wants("networks") {
        many_networks(world, conex, &mut report)?;
    }
    if options.wants("ports") {
        many_ports(conex, daemon(world)?, &mut report)?;
    }
    for crowd in CROWDS.iter().filter(|crowd| options.wants(crowd.part)) {
        many_containers(world, conex, crowd, &mut report).with_context(|| crowd.title())?;
    }
    if options.wants("names") {
        names_return(world, conex, &mut report)?;
    }
    promises(&mut report);
    Ok(report)
}

fn throughput(sides: &[Side], neighbour: &Neighbour, archive: &Path, rounds: usize, report: &mut Report) -> Result<()> {
    for side in sides {
        side.run(&["load", "-i", &archive.display().to_string()])?;
        let port = format!("{}:5201", side.port);
        side.run(&["run", "-d", "--name", "iperf-server", "-p", &port, IMAGE, "iperf3", "-s"])?;
    }
    let best = best_rates(sides, neighbour, rounds)?;
    for (side, [published, between]) in sides.iter().zip(best) {
        report.figure(format!("{}, iperf3 through a published port, best", side.name), published, "Gbit/s");
        report.figure(format!("{}, iperf3 between containers, best", side.name), between, "Gbit/s");
        side.run(&["rm", "-f", "iperf-server"])?;
    }
    Ok(())
}

/// Through a published port and between containers, of each engine.
fn best_rates(sides: &[Side], neighbour: &Neighbour, rounds: usize) -> Result<Vec<[f64; 2]>> {
    let mut best = vec![[0.0_f64; 2]; sides.len()];
    for _ in 0..rounds.max(1) {
        for (side, best) in sides.iter().zip(&mut best) {
            let published = neighbour.iperf(side).with_context(|| {
                let state = side.say(&["ps", "-a"]).unwrap_or_default();
                format!("through a port of {}: {state}", side.name)
            })?;
            let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
            let address = side.say(&["inspect", "-f", template, "iperf-server"])?;
            let between = side
                .say(&["run", "--rm", IMAGE, "iperf3", "-c", &address, "-t", SECONDS, "-J"])
                .and_then(|text| rate(&text))
                .with_context(|| format!("between containers of {}", side.name))?;
            *best = [best[0].max(published), best[1].max(between)];
        }
    }
    Ok(best)
}

fn rate(json: &str) -> Result<f64> {
    let value: serde_json::Value = serde_json::from_str(json).context("what iperf3 says")?;
    let bits = value["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.with_context(|| format!("iperf3: {}", value["error"]))? / 1e9)
}

/// Names of the outside, from a name server that loses three in ten questions.
fn names_under_loss(conex: &Side, neighbour: &Neighbour, report: &mut Report) -> Result<()> {
    let server = format!("198.51.{}.2", conex.cable);
    let lossy = LossyServer::start(neighbour.0.id(), &server)?;
    conex.run(&["network", "create", "outside"])?;
    let run = ["run", "-d", "--name", "asks", "--network", "outside", "--dns", &server, SMALL, "/bin/sleep", "100000"];
    conex.run(&run)?;
    let pid: u32 = conex.say(&["inspect", "-f", "{{.State.Pid}}", "asks"])?.parse()?;
    let mut took = in_namespace(pid, || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect("127.0.0.11:53")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut took = Vec::new();
        for number in 0..LOSSY_QUESTIONS {
            let begin = Instant::now();
            socket.send(&question(&format!("name-{number}")))?;
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer).context("no answer under loss")?;
            if length < 12 || answer[3] & 0xf != 0 {
                bail!("question {number} was answered with {:?}", &answer[..length]);
            }
            took.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(took)
    })??;
    took.sort_by(f64::total_cmp);
    let (asked, lost) = lossy.end();
    report.figure("name server outside, questions lost", lost as f64 / asked as f64, "of 1");
    report.figure("conex, names of the outside, median", took[took.len() / 2], "ms");
    report.figure("conex, names of the outside, p99", took[took.len() * 99 / 100], "ms");
    conex.run(&["rm", "-f", "asks"])?;
    conex.run(&["network", "rm", "outside"])
}

/// Runs something on a thread in the network namespace of a process.
fn in_namespace<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> Result<T> {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/net"))?;
    Ok(netlink::namespace::within(namespace.as_fd(), work)?)
}

/// A name server that says 192.0.2.1 to everything, or nothing.
struct LossyServer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, usize)>,
}

impl LossyServer {
    fn start(pid: u32, address: &str) -> Result<Self> {
        let socket = in_namespace(pid, || UdpSocket::bind((address, 53)))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut asked, mut lost, mut random) = (0, 0, 0x2545_f491_4f6c_dd1d_u64);
            while !stopped.load(Ordering::Relaxed) {
                let mut bytes = [0; 512];
                let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                asked += 1;
                if random % 10 < 3 {
                    lost += 1;
                    continue;
                }
                let _ = socket.send_to(&said(&bytes[..length]), from);
            }
            (asked, lost)
        });
        Ok(Self { stop, thread })
    }

    /// How many questions came, and how many of them were lost.
    fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or((1, 0))
    }
}

/// The question as an answer, with 192.0.2.1 behind it.
fn said(question: &[u8]) -> Vec<u8> {
    let name = question.get(12..).unwrap_or_default().iter().position(|byte| *byte == 0).unwrap_or_default();
    let mut answer = question.get(..12 + name + 5).unwrap_or_default().to_vec();
    if let [_, _, flags @ ..] = answer.as_mut_slice() {
        // An answer, recursion available; one question, one record, nothing else.
        flags[..10].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    }
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    answer
}

/// What `start` of a container that exists takes over the API, on each kind of network.
fn start_times(side: &Side, rounds: usize, report: &mut Report) -> Result<()> {
    side.run(&["network", "create", "of-users"])?;
    for network in ["none", "bridge", "of-users"] {
        let mut took = Vec::new();
        for _ in 0..rounds.max(1) {
            let id = side.say(&["create", "--network", network, SMALL, "/bin/sleep", "100000"])?;
            let begin = Instant::now();
            side.post(&format!("/containers/{id}/start"), "")?;
            took.push(begin.elapsed().as_secs_f64() * 1000.0);
            side.run(&["rm", "-f", &id])?;
        }
        took.sort_by(f64::total_cmp);
        report.figure(
            format!("{}, start over the API, network {network}, median", side.name),
            took[took.len() / 2],
            "ms",
        );
    }
    side.run(&["network", "rm", "of-users"])
}

/// The process of our daemon, which may be another one by now.
fn daemon(world: &World) -> Result<u32> {
    world.pids().0.context("our daemon does not run")
}

/// 2,000 networks without a word about addresses: seconds, what one more takes with few and with many there, what the daemon's memory
/// grows by, and its return.
fn many_networks(world: &mut World, conex: &Side, report: &mut Report) -> Result<()> {
    let before = resident(daemon(world)?)?;
    let mut took = Vec::new();
    for number in 0..MANY_NETWORKS {
        let begin = Instant::now();
        conex.post("/networks/create", &format!(r#"{{"Name":"many-{number}"}}"#))?;
        took.push(begin.elapsed().as_secs_f64());
    }
    report.figure("conex, 2,000 networks created", took.iter().sum(), "s");
    for there in [10, 1000, MANY_NETWORKS - LOOKED_AT] {
        let looked_at = &mut took[there..there + LOOKED_AT];
        looked_at.sort_by(f64::total_cmp);
        report.figure(
            format!("conex, a network created with {there} there, median"),
            looked_at[LOOKED_AT / 2] * 1000.0,
            "ms",
        );
    }
    std::thread::sleep(SETTLE);
    report.figure("conex daemon, more memory with 2,000 networks", resident(daemon(world)?)? - before, "MiB");
    world.kill_conex()?;
    let begin = world.start_conex_again()?;
    let found = conex.say(&["network", "ls", "-q"])?.lines().count();
    report.figure(
        "conex, 2,000 networks, killed and started, until they are listed",
        begin.elapsed().as_secs_f64(),
        "s",
    );
    if found < MANY_NETWORKS {
        bail!("{found} networks are left");
    }
    std::thread::sleep(SETTLE);
    report.figure("conex daemon, returned to 2,000 networks", resident(daemon(world)?)?, "MiB");
    let begin = Instant::now();
    let id =
        conex.say(&["create", "--network", &format!("many-{}", MANY_NETWORKS - 1), SMALL, "/bin/sleep", "100000"])?;
    conex.post(&format!("/containers/{id}/start"), "")?;
    report.figure("conex, create and start on the last of them", begin.elapsed().as_secs_f64() * 1000.0, "ms");
    conex.run(&["rm", "-f", &id])?;
    let begin = Instant::now();
    conex.run(&["network", "prune", "-f"])?;
    report.figure("conex, 2,000 networks pruned", begin.elapsed().as_secs_f64(), "s");
    Ok(())
}

/// 50,000 ports for one container: seconds, and what the daemon's memory grows by.
fn many_ports(conex: &Side, daemon: u32, report: &mut Report) -> Result<()> {
    let before = resident(daemon)?;
    let ports = format!("10000-{}:10000-{}", 10_000 + MANY_PORTS - 1, 10_000 + MANY_PORTS - 1);
    let begin = Instant::now();
    conex.run(&["run", "-d", "--name", "ports", "-p", &ports, SMALL, "/bin/sleep", "100000"])?;
    report.figure("conex, 50,000 published ports, start to answer", begin.elapsed().as_secs_f64(), "s");
    std::thread::sleep(SETTLE);
    report.figure("conex daemon, more memory with 50,000 ports", resident(daemon)? - before, "MiB");
    let begin = Instant::now();
    conex.run(&["rm", "-f", "ports"])?;
    report.figure("conex, 50,000 published ports given back", begin.elapsed().as_secs_f64(), "s");
    Ok(())
}

/// Many containers on one network: how fast they start, what they take, whether all names are answered, and whether pairs of them
/// speak with each other.
fn many_containers(world: &World, conex: &Side, crowd: &Crowd, report: &mut Report) -> Result<()> {
    let title = crowd.title();
    let before = resident(daemon(world)?)?;
    conex.run(&["network", "create", "-d", crowd.driver, "--subnet", crowd.subnet, "many"])?;
    let names: Vec<String> = (0..crowd.count).map(|number| format!("many-{number}")).collect();
    let free = available()?;
    let begin = Instant::now();
    start_all(conex, "many", &names)?;
    report.figure(format!("{title}, started"), begin.elapsed().as_secs_f64(), "s");
    std::thread::sleep(SETTLE);
    report.figure(format!("{title}, more memory of the daemon"), resident(daemon(world)?)? - before, "MiB");
    let monitors = helpers(daemon(world)?, "conex-runtime")?;
    let shares = monitors.iter().map(|pid| share(*pid)).sum::<Result<f64>>()?;
    report.figure(format!("{title}, memory of a monitor"), shares / monitors.len() as f64, "MiB");
    report.figure(
        format!("{title}, memory of the machine for each"),
        (free - available()?) / crowd.count as f64,
        "MiB",
    );
    let answered = names_answered(conex, &names)?;
    report.figure(format!("{title}, names answered in the last of them"), answered as f64 / names.len() as f64, "of 1");
    let mut reached = 0;
    for number in 0..crowd.pairs {
        // Strides without a common divisor meet each container at most once from either side.
        let (from, to) = (number * 37 % crowd.count, (number * 611 + 13) % crowd.count);
        let ping = ["exec", &names[from], "/bin/busybox", "ping", "-c", "1", "-W", "2", &names[to]];
        reached += usize::from(from == to || conex.run(&ping).is_ok());
    }
    report.figure(
        format!("{title}, sampled pairs that reach each other by name"),
        reached as f64 / crowd.pairs as f64,
        "of 1",
    );
    let begin = Instant::now();
    remove_all(conex, &names)?;
    report.figure(format!("{title}, removed"), begin.elapsed().as_secs_f64(), "s");
    conex.run(&["network", "rm", "many"])
}

/// How many of the names have an address, for the last of them.
fn names_answered(conex: &Side, names: &[String]) -> Result<usize> {
    let last = names.last().context("no names")?;
    let pid: u32 = conex.say(&["inspect", "-f", "{{.State.Pid}}", last])?.parse()?;
    in_namespace(pid, || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect("127.0.0.11:53")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut answered = 0;
        for name in names {
            let mut answer = [0; 512];
            socket.send(&question(name))?;
            let length = socket.recv(&mut answer).with_context(|| format!("no answer for {name}"))?;
            answered += usize::from(length > 12 && answer[3] & 0xf == 0 && answer[7] > 0);
        }
        Ok(answered)
    })?
}

/// What this machine has left for programs, in MiB.
fn available() -> Result<f64> {
    sum_of_fields("/proc/meminfo", &["MemAvailable:"])
}

fn start_all(conex: &Side, network: &str, names: &[String]) -> Result<()> {
    let start =
        |name: &String| conex.run(&["run", "-d", "--network", network, "--name", name, SMALL, "/bin/sleep", "100000"]);
    names.chunks(AT_ONCE).try_for_each(|crowd| all_at_once(crowd, start))
}

fn remove_all(conex: &Side, names: &[String]) -> Result<()> {
    say(&format!("removing {} containers", names.len()));
    names.chunks(AT_ONCE).try_for_each(|crowd| all_at_once(crowd, |name| conex.run(&["rm", "-f", name])))
}

fn all_at_once(names: &[String], run: impl Fn(&String) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let running: Vec<_> = names.iter().map(|name| scope.spawn(|| run(name))).collect();
        running.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a client panicked")))
    })
}

/// How long containers are without names when the daemon is killed: from its start to the first answer, in the first, the middle and
/// the last of many containers. They ask all the time, before its end, without it, and after.
fn names_return(world: &mut World, conex: &Side, report: &mut Report) -> Result<()> {
    conex.run(&["network", "create", "named"])?;
    let names: Vec<String> = (0..NAMED_CONTAINERS).map(|number| format!("named-{number}")).collect();
    start_all(conex, "named", &names)?;
    let askers = [0, names.len() / 2, names.len() - 1].map(|number| {
        let pid = conex.say(&["inspect", "-f", "{{.State.Pid}}", &names[number]])?;
        Asker::start(pid.parse()?, &names[number])
    });
    let askers = askers.into_iter().collect::<Result<Vec<_>>>()?;
    for asker in &askers {
        asker.answered_since(Instant::now()).context("before the end of the daemon")?;
    }
    let (mut worst, mut listening) = (0.0_f64, 0.0_f64);
    for round in 0..3 {
        world.kill_conex()?;
        std::thread::sleep(Duration::from_millis(300));
        let (begin, ready) = (world.start_conex_again()?, Instant::now());
        listening = listening.max((ready - begin).as_secs_f64() * 1000.0);
        for asker in &askers {
            worst = worst.max(
                (asker
                    .answered_since(begin)
                    .with_context(|| format!("after its return, round {round}, {}", asker.name))?
                    - begin)
                    .as_secs_f64()
                    * 1000.0,
            );
        }
    }
    report.promise("names back after the daemon's start, ms", Bound::AtMost, 100.0, Some(worst));
    drop(askers);
    let what = format!("conex, {NAMED_CONTAINERS} containers, killed and started");
    report.figure(format!("{what}, to the last of the first answers by name"), worst, "ms");
    report.figure(format!("{what}, until the API listens"), listening, "ms");
    remove_all(conex, &names)?;
    conex.run(&["network", "rm", "named"])
}

/// Asks for a name in a container's namespace, a thousand times a second, and remembers the moments of the last answers.
struct Asker {
    name: String,
    answers: Arc<Mutex<Vec<Instant>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Asker {
    fn start(pid: u32, name: &str) -> Result<Self> {
        let (answers, stop) = (Arc::<Mutex<Vec<Instant>>>::default(), Arc::<AtomicBool>::default());
        let socket = in_namespace(pid, || UdpSocket::bind("127.0.0.1:0"))??;
        socket.connect("127.0.0.11:53")?;
        socket.set_read_timeout(Some(Duration::from_millis(2)))?;
        let question = question(name);
        let (kept, stopped) = (Arc::clone(&answers), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut answer = [0; 512];
                let asked = socket.send(&question).and_then(|_| socket.recv(&mut answer));
                // No error, and something in it.
                if asked.is_ok_and(|length| length > 12 && answer[3] & 0xf == 0 && answer[7] > 0) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(Self { name: name.to_owned(), answers, stop, thread: Some(thread) })
    }

    /// When the first answer after `begin` came; waits for it.
    fn answered_since(&self, begin: Instant) -> Result<Instant> {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = answers.iter().find(|moment| **moment > begin) {
                return Ok(*found);
            }
            drop(answers);
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("no answer by name")
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// A question for the IPv4 address of a name of one label.
fn question(name: &str) -> Vec<u8> {
    let head = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
    let tail = [0, 0, 1, 0, 1];
    [&head[..], name.as_bytes(), &tail].concat()
}

fn promises(report: &mut Report) {
    let ratio = |what: &str| {
        let of = |side: &str| report.figure_of(&format!("{side}, iperf3 {what}, best"));
        Some(of("conex")? / of("docker")?)
    };
    let (published, between) = (ratio("through a published port"), ratio("between containers"));
    let ports = report.figure_of("conex, 50,000 published ports, start to answer");
    let start =
        |side: &str, network: &str| report.figure_of(&format!("{side}, start over the API, network {network}, median"));
    let over = |one: Option<f64>, other: Option<f64>| Some(one? / other?);
    let to_docker = over(start("docker", "bridge"), start("conex", "bridge"));
    let users_to_docker = over(start("docker", "of-users"), start("conex", "of-users"));
    let bridge = over(start("conex", "bridge"), start("conex", "none"));
    report.promise("Docker's start on the bridge, times ours", Bound::AtLeast, 10.0, to_docker);
    report.promise("start on the bridge, times on none", Bound::AtMost, 1.3, bridge);
    report.promise("Docker's start on a user's network, times ours", Bound::AtLeast, 10.0, users_to_docker);
    report.promise("iperf3 through a published port, times Docker's", Bound::AtLeast, 0.95, published);
    report.promise("iperf3 between containers, times Docker's", Bound::AtLeast, 0.95, between);
    report.promise("50,000 published ports, seconds", Bound::AtMost, 10.0, ports);
    let loss = report.figure_of("conex, names of the outside, p99");
    report.promise("names of the outside with three in ten lost, p99, ms", Bound::AtMost, 200.0, loss);
    let memory = report.figure_of("conex daemon, more memory with 50,000 ports");
    report.promise("more memory with 50,000 ports, MiB", Bound::AtMost, 16.0, memory);
    for crowd in &CROWDS {
        let of = |what: &str| report.figure_of(&format!("{}, {what}", crowd.title()));
        let (reached, named) =
            (of("sampled pairs that reach each other by name"), of("names answered in the last of them"));
        let those = format!("of {} containers on one {} network", thousands(crowd.count), crowd.driver);
        report.promise(format!("pairs {those} that reach each other"), Bound::AtLeast, 1.0, reached);
        report.promise(format!("names {those} that are answered"), Bound::AtLeast, 1.0, named);
    }
}

/// iperf3 of this machine with the libraries that it is linked with.
fn write_image(root: &Path, archive: &Path) -> Result<()> {
    write_root(root)?;
    let program = Path::new("/usr/bin/iperf3");
    if !program.exists() {
        bail!("iperf3 is not installed: apt-get install iperf3");
    }
    copy_with_libraries(root, program, "bin/iperf3")?;
    write_archive(root, IMAGE, archive).map(drop)
}

/// A machine on a cable to each engine's host.
struct Neighbour(Child);

impl Neighbour {
    fn new(sides: &[Side]) -> Result<Self> {
        let child = Command::new("unshare").args(["-n", "sleep", "100000"]).spawn()?;
        let own = fs::read_link("/proc/thread-self/ns/net")?;
        let end = Instant::now() + Duration::from_secs(10);
        while fs::read_link(format!("/proc/{}/ns/net", child.id()))? == own {
            if Instant::now() > end {
                bail!("unshare does not leave the network");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let neighbour = Self(child);
        let pid = neighbour.0.id();
        for Side { daemon, cable, .. } in sides {
            for (pid, words) in [
                (*daemon, format!("link add bench-lan type veth peer name lan{cable} netns {pid}")),
                (*daemon, format!("address add 198.51.{cable}.1/24 dev bench-lan")),
                (*daemon, "link set bench-lan up".to_owned()),
                (pid, format!("address add 198.51.{cable}.2/24 dev lan{cable}")),
                (pid, format!("link set lan{cable} up")),
            ] {
                run_command(inside(pid, "ip").args(words.split(' ')))?;
            }
        }
        Ok(neighbour)
    }

    /// The server may still be on its way up, or busy with the end of the client before.
    fn iperf(&self, side: &Side) -> Result<f64> {
        let host = format!("198.51.{}.1", side.cable);
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let words = ["-c", &host, "-p", side.port, "-t", SECONDS, "-J"];
            let output = inside(self.0.id(), "iperf3").args(words).output()?;
            match rate(&String::from_utf8(output.stdout)?) {
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(100)),
                result => return result,
            }
        }
    }
}

/// A program in the network namespace of a process.
fn inside(pid: u32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-n", "-t", &pid.to_string(), program]);
    command
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
