//! How long a container takes from command to exit: one at a time, and many at once.

use std::time::Duration;

use anyhow::Result;

use super::Options;
use super::image::SMALL;
use super::measure::Summary;
use super::report::{Bound, Report};
use super::world::{Contender, Place, World};
use crate::process::say;

/// A pause before each run, so that what the one before left to clean up is not charged to the next.
const PAUSE: Duration = Duration::from_millis(30);

/// How many start at once in the second part.
const DOCKER_CROWD: usize = 50;
const CONEX_CROWD: usize = 100;

const CONEX_NONE: &str = "conex run, network none";
const CONEX_BRIDGE: &str = "conex run, bridge";
const DOCKER_ON_CONEX: &str = "docker CLI on Conex, bridge";
const DOCKER_ON_CONEX_NONE: &str = "docker CLI on Conex, network none";
const DOCKER_ON_DOCKER: &str = "docker CLI on Docker, bridge";
const DOCKER_ON_DOCKER_NONE: &str = "docker CLI on Docker, network none";
const DOCKER_CROWD_ON_CONEX: &str = "50 docker run at once on Conex, total";
const DOCKER_CROWD_ON_DOCKER: &str = "50 docker run at once on Docker, total";
const CONEX_CROWD_TOTAL: &str = "100 conex run at once, total";

/// Runs the bench.
pub(crate) fn run(world: &mut World, options: &Options) -> Result<Report> {
    let contenders = contenders(world)?;
    let mut report = Report::new();
    let times = interleaved(world, &contenders, options.rounds)?;
    for (contender, times) in contenders.iter().zip(&times) {
        report.add(contender, times);
    }
    report.compare();
    crowds(world, &contenders, &mut report)?;
    promises(&mut report);
    Ok(report)
}

fn contenders(world: &mut World) -> Result<Vec<Contender>> {
    let none = ["run", "--rm", "--network", "none", SMALL, "/bin/true"];
    let bridge = ["run", "--rm", SMALL, "/bin/true"];
    let mut list = vec![world.floor()];
    if world.has_conex() {
        list.push(world.ours(CONEX_NONE, world.conex_line(none)));
        list.push(world.ours(CONEX_BRIDGE, world.conex_line(bridge)));
    }
    if world.has_conex() && crate::process::found("docker") {
        list.push(world.ours(DOCKER_ON_CONEX_NONE, world.docker_on_conex(none)));
        list.push(world.ours(DOCKER_ON_CONEX, world.docker_on_conex(bridge)));
    }
    if world.has_docker() {
        list.push(world.peer(DOCKER_ON_DOCKER_NONE, Place::Here, world.docker_on_docker(none)));
        list.push(world.peer(DOCKER_ON_DOCKER, Place::Here, world.docker_on_docker(bridge)));
    }
    if world.prepare_podman() {
        list.push(world.peer("podman, network none", Place::Inside, World::podman_line(none)));
        let contender = world.peer("podman, bridge", Place::Inside, World::podman_line(bridge));
        list.extend(working(world, contender));
    }
    for (runtime, name) in [("runc", "runc run"), ("crun", "crun run")] {
        if let Some(bundle) = world.prepare_bundle(runtime, &["/bin/true"])? {
            let command = [runtime, "run", "-b", &bundle, "bench-{n}"].map(str::to_owned).to_vec();
            let contender = world.peer(name, Place::Inside, command);
            list.extend(working(world, contender));
        }
    }
    Ok(list)
}

/// The contender, if it works on this machine at all.
fn working(world: &mut World, contender: Contender) -> Option<Contender> {
    match world.time(&contender) {
        Ok(_) => Some(contender),
        Err(error) => {
            say(&format!("left out: {error:#}"));
            None
        }
    }
}

/// Runs all contenders by turns, so that whatever disturbs the machine disturbs them alike. The first round is not counted.
pub(super) fn interleaved(world: &mut World, contenders: &[Contender], rounds: usize) -> Result<Vec<Vec<Duration>>> {
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for round in 0..=rounds {
        for (contender, times) in contenders.iter().zip(&mut times) {
            std::thread::sleep(PAUSE);
            let time = world.time(contender)?;
            if round > 0 {
                times.push(time);
            }
        }
    }
    Ok(times)
}

fn crowds(world: &mut World, contenders: &[Contender], report: &mut Report) -> Result<()> {
    let crowds = [
        ("floor", CONEX_CROWD, "100 floors at once, total"),
        (CONEX_BRIDGE, CONEX_CROWD, CONEX_CROWD_TOTAL),
        (DOCKER_ON_CONEX, DOCKER_CROWD, DOCKER_CROWD_ON_CONEX),
        (DOCKER_ON_DOCKER, DOCKER_CROWD, DOCKER_CROWD_ON_DOCKER),
    ];
    for (name, count, total_name) in crowds {
        let Some(contender) = contenders.iter().find(|contender| contender.name == name) else { continue };
        std::thread::sleep(PAUSE * 10);
        let times = world.time_at_once(contender, count)?;
        let summary = Summary::of(&times.each);
        report.figure(total_name, times.total.as_secs_f64(), "s");
        report.figure(format!("{total_name}: p99 / median of one"), summary.p99 / summary.median, "×");
    }
    Ok(())
}

fn promises(report: &mut Report) {
    let median = |name: &str| report.row(name).map(|row| row.median);
    let ratio = |over: Option<f64>, under: Option<f64>| Some(over? / under?);
    let floor = median("floor");
    let none = ratio(median(CONEX_NONE), floor);
    let none_p99 = ratio(report.row(CONEX_NONE).map(|row| row.p99), report.row("floor").map(|row| row.p99));
    let bridge = ratio(median(CONEX_BRIDGE), floor);
    let docker = ratio(median(DOCKER_ON_DOCKER), median(DOCKER_ON_CONEX));
    let crowd = ratio(report.figure_of(DOCKER_CROWD_ON_DOCKER), report.figure_of(DOCKER_CROWD_ON_CONEX));
    let conex_crowd = report.figure_of(CONEX_CROWD_TOTAL);
    let spread = report.figure_of(&format!("{CONEX_CROWD_TOTAL}: p99 / median of one"));
    report.promise("conex run, network none, median, times the floor", Bound::AtMost, 3.0, none);
    report.promise("conex run, network none, p99, times the floor's p99", Bound::AtMost, 6.0, none_p99);
    report.promise("conex run, bridge, median, times the floor", Bound::AtMost, 5.0, bridge);
    report.promise("docker run on Docker, times docker run on Conex", Bound::AtLeast, 6.0, docker);
    report.promise("50 docker run at once on Docker, times on Conex", Bound::AtLeast, 5.0, crowd);
    report.promise("100 conex run at once, seconds", Bound::AtMost, 2.0, conex_crowd);
    report.promise("100 conex run at once, p99 times the median", Bound::AtMost, 3.0, spread);
}
