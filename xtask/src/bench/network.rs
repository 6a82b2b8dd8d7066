//! What a network costs: throughput through a published port and between containers, many containers on one network, many ports.
//!
//! iperf3 of this machine runs in a container of each engine as server; its clients are a neighbour on a cable to the host, and another
//! container of the same engine. The two engines take turns.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Options;
use super::image::{SMALL, write_archive, write_root};
use super::measure::run_one;
use super::memory::resident;
use super::report::{Bound, Report};
use super::world::World;
use crate::process::{copy_with_libraries, run as run_command, say};

const IMAGE: &str = "bench:iperf";
const SECONDS: &str = "3";
/// The host's end of the cable to the neighbour.
const HOST: &str = "198.51.100.1";
const MANY_CONTAINERS: usize = 1000;
const SAMPLED_PAIRS: usize = 200;
const MANY_PORTS: usize = 50_000;

/// An engine in which iperf3 runs.
struct Side {
    name: &'static str,
    /// The command line without its words.
    client: Vec<String>,
    /// Where its server is published.
    port: &'static str,
}

impl Side {
    fn line(&self, words: &[&str]) -> Vec<String> {
        self.client.iter().cloned().chain(words.iter().map(|word| (*word).to_owned())).collect()
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        run_one(&self.line(words)).map(drop)
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
    if world.has_conex() {
        sides.push(Side { name: "conex", client: world.conex_line([]), port: "5301" });
    }
    if world.has_docker() {
        sides.push(Side { name: "docker", client: world.docker_on_docker([]), port: "5302" });
    }
    let neighbour = Neighbour::new()?;
    for side in &sides {
        side.run(&["load", "-i", &archive.display().to_string()])?;
        side.run(&[
            "run",
            "-d",
            "--name",
            "iperf-server",
            "-p",
            &format!("{}:5201", side.port),
            IMAGE,
            "iperf3",
            "-s",
        ])?;
    }
    throughput(&sides, &neighbour, options.rounds.min(5), &mut report)?;
    for side in &sides {
        side.run(&["rm", "-f", "iperf-server"])?;
    }
    drop(neighbour);
    if let (Some(conex), Some(daemon)) = (sides.iter().find(|side| side.name == "conex"), world.pids().0) {
        many_ports(conex, daemon, &mut report)?;
        many_containers(conex, &mut report)?;
    }
    promises(&mut report);
    Ok(report)
}

fn throughput(sides: &[Side], neighbour: &Neighbour, rounds: usize, report: &mut Report) -> Result<()> {
    let mut best = vec![[0.0_f64; 2]; sides.len()];
    for _ in 0..rounds.max(1) {
        for (side, best) in sides.iter().zip(&mut best) {
            let published = neighbour.iperf(side.port)?;
            let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
            let address = side.say(&["inspect", "-f", template, "iperf-server"])?;
            let between = side
                .say(&["run", "--rm", IMAGE, "iperf3", "-c", &address, "-t", SECONDS, "-J"])
                .and_then(|text| rate(&text))?;
            *best = [best[0].max(published), best[1].max(between)];
        }
    }
    for (side, [published, between]) in sides.iter().zip(best) {
        report.figure(format!("{}, iperf3 through a published port, best", side.name), published, "Gbit/s");
        report.figure(format!("{}, iperf3 between containers, best", side.name), between, "Gbit/s");
    }
    Ok(())
}

fn rate(json: &str) -> Result<f64> {
    let value: serde_json::Value = serde_json::from_str(json).context("what iperf3 says")?;
    let bits = value["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.with_context(|| format!("iperf3: {}", value["error"]))? / 1e9)
}

/// 50,000 ports for one container: seconds, and what the daemon's memory grows by.
fn many_ports(conex: &Side, daemon: u32, report: &mut Report) -> Result<()> {
    let before = resident(daemon)?;
    let ports = format!("10000-{}:10000-{}", 10_000 + MANY_PORTS - 1, 10_000 + MANY_PORTS - 1);
    let begin = Instant::now();
    conex.run(&["run", "-d", "--name", "ports", "-p", &ports, SMALL, "/bin/sleep", "100000"])?;
    report.figure("conex, 50,000 published ports, start to answer", begin.elapsed().as_secs_f64(), "s");
    report.figure("conex daemon, more memory with 50,000 ports", resident(daemon)? - before, "MiB");
    let begin = Instant::now();
    conex.run(&["rm", "-f", "ports"])?;
    report.figure("conex, 50,000 published ports given back", begin.elapsed().as_secs_f64(), "s");
    Ok(())
}

/// A thousand containers on one network, and pairs of them that speak with each other.
fn many_containers(conex: &Side, report: &mut Report) -> Result<()> {
    conex.run(&["network", "create", "--subnet", "10.90.0.0/16", "many"])?;
    let names: Vec<String> = (0..MANY_CONTAINERS).map(|number| format!("many-{number}")).collect();
    let begin = Instant::now();
    for crowd in names.chunks(20) {
        std::thread::scope(|scope| {
            let starting: Vec<_> = crowd
                .iter()
                .map(|name| {
                    scope.spawn(|| {
                        conex.run(&["run", "-d", "--network", "many", "--name", name, SMALL, "/bin/sleep", "100000"])
                    })
                })
                .collect();
            starting.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a starter panicked")))
        })?;
    }
    report.figure("conex, 1,000 containers started on one network", begin.elapsed().as_secs_f64(), "s");
    let mut reached = 0;
    for number in 0..SAMPLED_PAIRS {
        // Strides without a common divisor meet each container at most once from either side.
        let (from, to) = (number * 37 % MANY_CONTAINERS, (number * 611 + 13) % MANY_CONTAINERS);
        let ping = ["exec", &names[from], "/bin/busybox", "ping", "-c", "1", "-W", "2", &names[to]];
        reached += usize::from(from == to || conex.run(&ping).is_ok());
    }
    report.figure(
        "conex, sampled pairs of 1,000 containers that reach each other by name",
        reached as f64 / SAMPLED_PAIRS as f64,
        "of 1",
    );
    say("removing 1,000 containers");
    for crowd in names.chunks(100) {
        let words: Vec<&str> = ["rm", "-f"].into_iter().chain(crowd.iter().map(String::as_str)).collect();
        conex.run(&words)?;
    }
    conex.run(&["network", "rm", "many"])
}

fn promises(report: &mut Report) {
    let ratio = |what: &str| {
        let of = |side: &str| report.figure_of(&format!("{side}, iperf3 {what}, best"));
        Some(of("conex")? / of("docker")?)
    };
    let (published, between) = (ratio("through a published port"), ratio("between containers"));
    let ports = report.figure_of("conex, 50,000 published ports, start to answer");
    let reached = report.figure_of("conex, sampled pairs of 1,000 containers that reach each other by name");
    report.promise("iperf3 through a published port, times Docker's", Bound::AtLeast, 0.95, published);
    report.promise("iperf3 between containers, times Docker's", Bound::AtLeast, 0.95, between);
    report.promise("50,000 published ports, seconds", Bound::AtMost, 10.0, ports);
    report.promise("pairs of 1,000 containers that reach each other", Bound::AtLeast, 1.0, reached);
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

/// A machine on a cable to the host.
struct Neighbour(Child);

impl Neighbour {
    fn new() -> Result<Self> {
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
        for words in [
            format!("link add bench-lan type veth peer name eth0 netns {pid}"),
            format!("address add {HOST}/24 dev bench-lan"),
            "link set bench-lan up".to_owned(),
        ] {
            run_command(Command::new("ip").args(words.split(' ')))?;
        }
        for words in ["address add 198.51.100.2/24 dev eth0", "link set eth0 up"] {
            run_command(neighbour.inside("ip").args(words.split(' ')))?;
        }
        Ok(neighbour)
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-n", "-t", &self.0.id().to_string(), program]);
        command
    }

    fn iperf(&self, port: &str) -> Result<f64> {
        let output = self.inside("iperf3").args(["-c", HOST, "-p", port, "-t", SECONDS, "-J"]).output()?;
        rate(&String::from_utf8(output.stdout)?)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
