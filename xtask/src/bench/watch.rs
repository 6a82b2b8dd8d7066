//! What watching containers costs: health checks that are processes, beside Docker's, and statistics that somebody looks at.
//!
//! What checks cost is taken from the whole machine, since they run in daemons, helpers, runtimes and containers, and what ends in there is
//! nobody's child; what the machine takes without them is taken off. So it wants a machine that does nothing else.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Options;
use super::image::SMALL;
use super::measure::run_one;
use super::report::{Bound, Report};
use super::scale::{in_parallel, share_of_machine, shares_of};
use super::world::World;

/// How many are checked once a second.
const CHECKED: usize = 50;
/// How many of which statistics are looked at.
const COUNTED: usize = 100;
/// Time for what happens behind answers, and for the first checks.
const SETTLE: Duration = Duration::from_secs(5);

/// Runs the bench.
pub(crate) fn run(world: &mut World, _options: &Options) -> Result<Report> {
    let mut report = Report::new();
    ensure!(world.has_conex(), "watch is of Conex, beside Docker where it is there");
    let idle = share_of_machine()?;
    report.figure("the machine, engines idle, of a processor", idle, "%");
    let ours = checks(world, Engine::Conex, idle)?;
    report.figure(format!("{CHECKED} health checks a second by processes, Conex, of a processor"), ours, "%");
    if world.has_docker() {
        let theirs = checks(world, Engine::Docker, idle)?;
        report.figure(format!("{CHECKED} health checks a second by processes, Docker, of a processor"), theirs, "%");
        report.promise("health checks: Docker's time, times Conex's", Bound::AtLeast, 2.0, Some(theirs / ours));
    }
    let [daemon, ours] = statistics(world, Engine::Conex)?;
    report.figure(format!("stats of {COUNTED} containers, Conex with its monitors, of a processor"), ours, "%");
    if world.has_docker() {
        let [_, theirs] = statistics(world, Engine::Docker)?;
        report.figure(format!("stats of {COUNTED} containers, Docker with containerd, of a processor"), theirs, "%");
        report.promise("stats: Docker's time, times Conex's", Bound::AtLeast, 2.0, Some(theirs / ours));
    }
    report.promise(
        format!("stats of {COUNTED} containers, daemon, % of a processor"),
        Bound::AtMost,
        1.0,
        Some(daemon),
    );
    Ok(report)
}

#[derive(Debug, Clone, Copy)]
enum Engine {
    Conex,
    Docker,
}

impl Engine {
    fn line(self, world: &World, words: &[&str]) -> Vec<String> {
        match self {
            Self::Conex => world.conex_line(words.iter().copied()),
            Self::Docker => world.docker_on_docker(words.iter().copied()),
        }
    }
}

/// What health checks cost, the checks themselves included: % of a processor.
fn checks(world: &World, engine: Engine, idle: f64) -> Result<f64> {
    let options = ["--health-cmd", "/bin/true", "--health-interval", "1s"];
    start(world, engine, CHECKED, &options)?;
    std::thread::sleep(SETTLE);
    let share = share_of_machine();
    remove(world, engine, CHECKED);
    // What is done behind the answers to the removals is not the next one's.
    std::thread::sleep(SETTLE);
    Ok(share? - idle)
}

/// What it costs that `docker stats` shows containers: the daemon, and all that serves with it.
fn statistics(world: &World, engine: Engine) -> Result<[f64; 2]> {
    start(world, engine, COUNTED, &[])?;
    let (line, servants) = match engine {
        Engine::Conex => (world.docker_on_conex(["stats"]), ["conex"].as_slice()),
        Engine::Docker => (world.docker_on_docker(["stats"]), ["dockerd", "containerd"].as_slice()),
    };
    let (program, words) = line.split_first().context("a line begins with its program")?;
    let mut client = Command::new(program).args(words).stdout(Stdio::null()).spawn()?;
    std::thread::sleep(SETTLE);
    let daemon = match engine {
        Engine::Conex => world.pids().0,
        Engine::Docker => world.pids().1,
    };
    let shares = daemon.context("the engine runs").and_then(|daemon| shares_of(daemon, servants));
    client.kill()?;
    client.wait()?;
    remove(world, engine, COUNTED);
    std::thread::sleep(SETTLE);
    shares
}

fn start(world: &World, engine: Engine, count: usize, options: &[&str]) -> Result<()> {
    in_parallel(count, |number| {
        let name = format!("watch-{number}");
        let words = [&["run", "-d", "--network", "none", "--name", &name], options, &[SMALL, "/bin/sleep", "100000"]];
        run_one(&engine.line(world, &words.concat())).map(drop)
    })
}

fn remove(world: &World, engine: Engine, count: usize) {
    // What is left ends with the engine.
    let _ =
        in_parallel(count, |number| run_one(&engine.line(world, &["rm", "-f", &format!("watch-{number}")])).map(drop));
}
