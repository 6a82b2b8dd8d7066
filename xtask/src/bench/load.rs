//! How long a large image takes to load, and what it then takes on the disk.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Options;
use super::image::{self, LARGE};
use super::measure::run_one;
use super::report::{Bound, Report};
use super::world::World;
use crate::process::say;

/// Loading is slow enough that few rounds tell.
const ROUNDS: usize = 3;

/// Runs the bench.
pub(crate) fn run(world: &mut World, options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let root = options.peers.as_deref().context("the large image is made of the peers' root: ./x peers makes one")?;
    let archive = world.state().join("peers/large.tar");
    say("packing the image");
    let size = image::write_archive(root, LARGE, &archive)?;
    report.figure("image, uncompressed", size as f64 / 1e6, "MB");
    let path = archive.display().to_string();
    let mut conex = Vec::new();
    let mut docker = Vec::new();
    let lines = |line: &dyn Fn(&[&str]) -> Vec<String>| (line(&["load", "-q", "-i", &path]), line(&["rmi", LARGE]));
    for _ in 0..ROUNDS {
        if world.has_conex() {
            let lines = lines(&|words| world.conex_line(words.iter().copied()));
            let (time, disk) = load_once(&world.state().join("conex"), lines)?;
            conex.push(time);
            report_once(&mut report, "Conex: disk used / uncompressed size", disk / size as f64);
        }
        if world.has_docker() {
            let lines = lines(&|words| world.docker_on_docker(words.iter().copied()));
            let (time, disk) = load_once(&world.state().join("peers/docker"), lines)?;
            docker.push(time);
            report_once(&mut report, "Docker: disk used / uncompressed size", disk / size as f64);
        }
    }
    for (name, times) in [("conex load, best", &conex), ("docker load on Docker, best", &docker)] {
        if let Some(best) = best(times) {
            report.figure(name, best, "s");
        }
    }
    let ratio = best(&docker).zip(best(&conex)).map(|(docker, conex)| docker / conex);
    report.promise("docker load on Docker, times conex load", Bound::AtLeast, 8.0, ratio);
    let disk = report.figure_of("Conex: disk used / uncompressed size");
    report.promise("disk used, times the uncompressed size", Bound::AtMost, 1.05, disk);
    Ok(report)
}

fn report_once(report: &mut Report, name: &str, value: f64) {
    if report.figure_of(name).is_none() {
        report.figure(name, value, "×");
    }
}

/// Loads, from an archive that is in memory as far as there is room, onto a disk with nothing left to write; then removes the
/// image again. Returns the time, and the bytes that the engine's folder grew by.
fn load_once(folder: &Path, (load, remove): (Vec<String>, Vec<String>)) -> Result<(Duration, f64)> {
    let before = used(folder)?;
    let time = run_one(&load)?;
    let grown = used(folder)? - before;
    run_one(&remove)?;
    Ok((time, grown))
}

fn best(times: &[Duration]) -> Option<f64> {
    times.iter().min().map(Duration::as_secs_f64)
}

/// The bytes that a folder takes on its disk.
fn used(folder: &Path) -> Result<f64> {
    rustix::fs::sync();
    let output = Command::new("du").args(["-s", "-x", "-B1"]).arg(folder).output().context("cannot start du")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).context("du said nothing")
}
