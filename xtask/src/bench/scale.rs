//! Many containers: what a thousand of them cost, how long an engine takes to know them again, and what ten thousand leave behind.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Options;
use super::image::SMALL;
use super::measure::run_one;
use super::memory::resident;
use super::report::{Bound, Report};
use super::world::World;
use crate::process::say;

/// How many run at once.
const CONTAINERS: usize = 1000;
/// How many of them are probed once a second.
const PROBED: usize = 500;
/// For how long something is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// Runs from creation to removal a round: ten thousand with the usual fifty rounds.
const CYCLES_A_ROUND: usize = 200;
/// Time for what happens behind answers.
const SETTLE: Duration = Duration::from_secs(3);

/// Runs the bench.
pub(crate) fn run(world: &mut World, options: &Options) -> Result<Report> {
    let mut report = Report::new();
    ensure!(world.has_conex(), "scale is of Conex alone");
    cycles(&mut report, world, options.rounds * CYCLES_A_ROUND)?;
    let started = crowd(&mut report, world, options.rounds);
    remove_all(world)?;
    started?;
    Ok(report)
}

/// Creates, starts and removes containers one after another, and looks for what is left of them.
fn cycles(report: &mut Report, world: &World, count: usize) -> Result<()> {
    let run = world.conex_line(["run", "--rm", "--network", "none", SMALL, "/bin/true"]);
    // What is made once and kept.
    run_one(&run)?;
    std::thread::sleep(SETTLE);
    let before = Belongings::of(world)?;
    let begin = std::time::Instant::now();
    in_parallel(count, |_| run_one(&run).map(drop))?;
    report.figure(format!("{count} times create, start, remove"), begin.elapsed().as_secs_f64(), "s");
    std::thread::sleep(SETTLE);
    let after = Belongings::of(world)?;
    report.figure("daemon's memory before", before.memory_mib, "MiB");
    report.figure("daemon's memory after", after.memory_mib, "MiB");
    for (what, before, after) in before.compare(&after) {
        report.promise(
            format!("{what} left by {count} containers"),
            Bound::AtMost,
            0.0,
            Some(after as f64 - before as f64),
        );
    }
    Ok(())
}

fn crowd(report: &mut Report, world: &mut World, rounds: usize) -> Result<()> {
    let idle = Belongings::of(world)?.memory_mib;
    let begin = std::time::Instant::now();
    in_parallel(CONTAINERS, |number| {
        let name = format!("scale-{number}");
        let probe = if number < PROBED { "conex.health.tcp=1" } else { "other=1" };
        let words = ["run", "-d", "--network", "none", "--name", &name, "--label", probe, "--health-interval", "1s"];
        let words = if number < PROBED { &words[..] } else { &words[..8] };
        run_one(&world.conex_line(words.iter().copied().chain([SMALL, "/bin/sleep", "100000"]))).map(drop)
    })?;
    report.figure(format!("{CONTAINERS} containers, started"), begin.elapsed().as_secs_f64(), "s");
    std::thread::sleep(SETTLE);
    probes(report, world)?;
    let list = world.ours("ps -a", world.conex_line(["ps", "-a", "--no-trunc"]));
    let times = (0..rounds).map(|_| world.time(&list)).collect::<Result<Vec<_>>>()?;
    report.add(&list, &times);
    report.promise("ps -a of 1,000, ms", Bound::AtMost, 30.0, report.row("ps -a").map(|row| row.median));
    let ready = world.restart_conex()?;
    report.promise("daemon of 1,000 containers, seconds to ready", Bound::AtMost, 1.0, Some(ready.as_secs_f64()));
    std::thread::sleep(SETTLE);
    let memory = Belongings::of(world)?.memory_mib;
    report.figure("daemon's memory, idle", idle, "MiB");
    report.figure(format!("daemon's memory, {CONTAINERS} containers"), memory, "MiB");
    Ok(())
}

/// What probing costs the daemon. Nobody listens at the port: a refused connection is no cheaper than an accepted one.
fn probes(report: &mut Report, world: &World) -> Result<()> {
    let share = share_of(pid(world)?)?;
    report.promise(format!("{PROBED} probes a second, % of a processor"), Bound::AtMost, 5.0, Some(share));
    Ok(())
}

fn remove_all(world: &World) -> Result<()> {
    in_parallel(CONTAINERS, |number| {
        run_one(&world.conex_line(["rm", "-f", &format!("scale-{number}")])).map(drop).or_else(|error| {
            say(&format!("{error:#}"));
            Ok(())
        })
    })
}

/// Does something so many times, on all processors.
pub(super) fn in_parallel(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let workers = available_parallelism().map_or(2, usize::from) * 2;
    let one = || {
        loop {
            let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            work(number)?;
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(one)).collect();
        running.into_iter().try_for_each(|worker| worker.join().expect("it does not panic"))
    })
}

pub(super) fn pid(world: &World) -> Result<u32> {
    world.pids().0.ok_or_else(|| anyhow::anyhow!("no daemon"))
}

/// What a process takes while it is watched: % of a processor.
pub(super) fn share_of(pid: u32) -> Result<f64> {
    shares(|| Ok([time_of(pid)?])).map(|[share]| share)
}

/// What a process takes while it is watched, and what all take whose names begin so: % of a processor.
pub(super) fn shares_of(pid: u32, names: &[&str]) -> Result<[f64; 2]> {
    shares(|| {
        let processes = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let named = processes.filter(|pid| is_named(*pid, names));
        Ok([time_of(pid)?, named.filter_map(|pid| time_of(pid).ok()).sum()])
    })
}

fn is_named(pid: u32, names: &[&str]) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    names.iter().any(|begin| name.starts_with(begin))
}

/// What the whole machine takes, to the nanosecond and whoever it was: % of a processor.
pub(super) fn share_of_machine() -> Result<f64> {
    let seconds = || {
        // cgroup v1, and v2.
        if let Ok(text) = fs::read_to_string("/sys/fs/cgroup/cpuacct/cpuacct.usage") {
            return Ok([text.trim().parse::<f64>()? / 1e9]);
        }
        let text = fs::read_to_string("/sys/fs/cgroup/cpu.stat")?;
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok([usage.context("cpu.stat has no usage_usec")?.parse::<f64>()? / 1e6])
    };
    shares(seconds).map(|[share]| share)
}

/// Shares of a processor from times in seconds: %.
fn shares<const N: usize>(seconds: impl Fn() -> Result<[f64; N]>) -> Result<[f64; N]> {
    let before = seconds()?;
    std::thread::sleep(WATCHED);
    let after = seconds()?;
    Ok(std::array::from_fn(|index| (after[index] - before[index]) / WATCHED.as_secs_f64() * 100.0))
}

/// User and system time of a process, in seconds.
fn time_of(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>()).unwrap_or_default();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    Ok((ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64)
}

/// What an engine has, counted.
struct Belongings {
    memory_mib: f64,
    descriptors: usize,
    mounts: usize,
    files: usize,
    namespaces: usize,
}

impl Belongings {
    fn of(world: &World) -> Result<Self> {
        let pid = pid(world)?;
        let state = world.state().join("conex");
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
        let mounts = mounts.lines().filter(|line| line.contains(&*state.to_string_lossy())).count();
        Ok(Self {
            memory_mib: resident(pid)?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            mounts,
            files: entries(&state.join("root/containers")) + entries(&state.join("run/monitors")),
            namespaces: entries(&state.join("run/netns")),
        })
    }

    fn compare(&self, after: &Self) -> [(&'static str, usize, usize); 4] {
        [
            // The supply of what is kept ready may be one more or less.
            ("descriptors (beyond 8)", self.descriptors + 8, after.descriptors.max(self.descriptors + 8)),
            ("mounts", self.mounts, after.mounts),
            ("files", self.files, after.files),
            ("namespaces", self.namespaces, after.namespaces),
        ]
    }
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, |entries| entries.count())
}
