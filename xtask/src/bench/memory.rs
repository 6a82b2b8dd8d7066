//! What engines and their helpers keep in memory.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Options;
use super::image::SMALL;
use super::measure::run_one;
use super::report::{Bound, Report};
use super::world::World;

/// Long enough for a daemon to finish what it does after its start.
const SETTLE: Duration = Duration::from_secs(3);
/// Several, so that what their helpers share (the program itself) does not count as the private memory of the only one.
const NAMES: [&str; 3] = ["bench-memory-1", "bench-memory-2", "bench-memory-3"];

/// Runs the bench.
pub(crate) fn run(world: &mut World, _options: &Options) -> Result<Report> {
    let mut report = Report::new();
    std::thread::sleep(SETTLE);
    let (conex, dockerd, agent) = world.pids();
    if let Some(conex) = conex {
        report.figure("conex daemon, idle, resident", resident(conex)?, "MiB");
    }
    if let Some(dockerd) = dockerd {
        let containerd = helpers(dockerd, "containerd")?;
        let together: f64 = containerd.iter().chain([&dockerd]).map(|pid| resident(*pid)).sum::<Result<f64>>()?;
        report.figure("dockerd and containerd, idle, resident", together, "MiB");
    }
    let podman = start_containers(world)?;
    std::thread::sleep(SETTLE);
    let result = per_container(&mut report, conex, dockerd, agent.filter(|_| podman));
    remove_containers(world, podman);
    result?;
    report.promise(
        "conex daemon, idle, MiB resident",
        Bound::AtMost,
        20.0,
        report.figure_of("conex daemon, idle, resident"),
    );
    report.promise("monitor, MiB private", Bound::AtMost, 1.0, report.figure_of("conex monitor, private"));
    Ok(report)
}

fn per_container(report: &mut Report, conex: Option<u32>, dockerd: Option<u32>, agent: Option<u32>) -> Result<()> {
    if let Some(conex) = conex {
        // Those that wait for a container are smaller than the one that has one.
        report.figure("conex monitor, private", largest_private(&helpers(conex, "conex-runtime")?)?, "MiB");
        report.figure("conex daemon, three containers, resident", resident(conex)?, "MiB");
    }
    if let Some(dockerd) = dockerd {
        report.figure("containerd-shim, private", largest_private(&helpers(dockerd, "containerd-shim")?)?, "MiB");
    }
    if let Some(agent) = agent {
        report.figure("conmon (podman), private", largest_private(&helpers(agent, "conmon")?)?, "MiB");
    }
    Ok(())
}

/// Starts some containers in each engine. Returns whether Podman has them too.
fn start_containers(world: &mut World) -> Result<bool> {
    let mut podman = world.prepare_podman();
    for name in NAMES {
        let start = ["run", "-d", "--network", "none", "--name", name, SMALL, "/bin/sleep", "100000"];
        if world.has_conex() {
            run_one(&world.conex_line(start))?;
        }
        if world.has_docker() {
            run_one(&world.docker_on_docker(start))?;
        }
        podman = podman && world.try_inside(World::podman_line(start));
    }
    Ok(podman)
}

fn remove_containers(world: &mut World, podman: bool) {
    for name in NAMES {
        if world.has_conex() {
            let _ = run_one(&world.conex_line(["rm", "-f", name]));
        }
        if world.has_docker() {
            let _ = run_one(&world.docker_on_docker(["rm", "-f", name]));
        }
        if podman {
            let _ = world.try_inside(World::podman_line(["rm", "-f", "-t", "0", name]));
        }
    }
}

/// The processes whose program's name starts so and that are in the same network namespace as the daemon: helpers leave their
/// daemon's process tree, but not its namespaces.
pub(crate) fn helpers(daemon: u32, program: &str) -> Result<Vec<u32>> {
    let namespace = |pid: u32| fs::read_link(PathBuf::from(format!("/proc/{pid}/ns/net")));
    let own = namespace(daemon)?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let name = name.split('\0').next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
        let is_it = if program == "containerd" { name == program } else { name.starts_with(program) };
        if is_it && pid != daemon && namespace(pid).is_ok_and(|its| its == own) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn largest_private(pids: &[u32]) -> Result<f64> {
    let all = pids.iter().map(|pid| private(*pid)).collect::<Result<Vec<f64>>>()?;
    all.into_iter().max_by(f64::total_cmp).context("no such process")
}

/// What a process has in memory, in MiB.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    sum_of_fields(&format!("/proc/{pid}/status"), &["VmRSS:"])
}

/// Has the kernel forget how much a process once had; gives what it has now, in MiB.
pub(crate) fn forget_peak(pid: u32) -> Result<f64> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    peak(pid)
}

/// The most that a process has had, in MiB.
pub(crate) fn peak(pid: u32) -> Result<f64> {
    sum_of_fields(&format!("/proc/{pid}/status"), &["VmHWM:"])
}

fn private(pid: u32) -> Result<f64> {
    sum_of_fields(&format!("/proc/{pid}/smaps_rollup"), &["Private_Clean:", "Private_Dirty:"])
}

/// What a process has in memory, what it shares with others counted by halves, thirds and so on; in MiB.
pub(crate) fn share(pid: u32) -> Result<f64> {
    sum_of_fields(&format!("/proc/{pid}/smaps_rollup"), &["Pss:"])
}

/// The sum of some fields of a file of `NAME: NUMBER kB` lines, in MiB.
pub(crate) fn sum_of_fields(path: &str, fields: &[&str]) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        fields.contains(&words.next()?).then(|| words.next()?.parse::<f64>().ok()).flatten()
    };
    Ok(text.lines().filter_map(of_line).sum::<f64>() / 1024.0)
}
