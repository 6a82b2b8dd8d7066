//! How long a large image takes to come from a registry on this machine, and what the daemon needs in memory for it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Options;
use super::memory::{forget_peak, peak};
use super::registry::{ADDRESS, Packing, Part, REPOSITORY, Server, Storage, TAG};
use super::report::{Bound, Report};
use super::world::{Contender, Place, World};
use crate::process::{cargo, run as run_command, say, workspace};

/// Pulling is slow enough that few rounds tell.
const ROUNDS: usize = 3;
/// A gigabyte: programs, headers, documents; large files and small ones.
const PARTS: &[Part] = &[
    ("usr/bin", Packing::Gzip),
    ("usr/include", Packing::Gzip),
    ("usr/libexec", Packing::Gzip),
    ("usr/sbin", Packing::Zstd),
    ("usr/share", Packing::Zstd),
];

/// One contender, how its image goes again, and its times.
struct Lane {
    contender: Contender,
    remove: Option<Contender>,
    times: Vec<Duration>,
}

/// Runs the bench.
pub(crate) fn run(world: &mut World, options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let root = options.peers.as_deref().context("the image is made of the peers' root: ./x peers makes one")?;
    say("packing the image");
    let (storage, sizes) = Storage::make(&world.state().join("registry"), root, PARTS)?;
    report.figure("image, uncompressed", sizes.unpacked as f64 / 1e6, "MB");
    report.figure("image, in the registry", sizes.packed as f64 / 1e6, "MB");
    let (conex, docker, agent) = world.pids();
    let others = [docker, agent].into_iter().flatten().map(|pid| storage.serve(pid));
    let _servers: Vec<Server> =
        std::iter::once(storage.serve(std::process::id())).chain(others).collect::<Result<_>>()?;
    let mut lanes = lanes(world)?;
    let idle = conex.map(forget_peak).transpose()?;
    for _ in 0..ROUNDS {
        lanes.retain_mut(|lane| match lane.once(world) {
            Ok(()) => true,
            Err(error) => {
                say(&format!("left out: {error:#}"));
                false
            }
        });
    }
    for lane in &lanes {
        report.add(&lane.contender, &lane.times);
    }
    report.compare();
    if let (Some(pid), Some(idle)) = (conex, idle) {
        report.figure("conex daemon before, resident", idle, "MiB");
        report.figure("conex daemon, at its highest", peak(pid)?, "MiB");
    }
    promise(&mut report);
    Ok(report)
}

fn promise(report: &mut Report) {
    let best = |name: &str| report.row(name).map(|row| row.min);
    let times = |one: &str, other: &str| Some(best(one)? / best(other)?);
    let (floor, docker, podman) = (
        times("conex pull", "floor"),
        times("docker pull on Docker", "conex pull"),
        times("podman pull", "conex pull"),
    );
    report.promise("conex pull, best, times the floor's best", Bound::AtMost, 1.3, floor);
    report.promise("docker pull on Docker, best, times conex pull's", Bound::AtLeast, 4.0, docker);
    report.promise("podman pull, best, times conex pull's", Bound::AtLeast, 4.0, podman);
    report.promise(
        "daemon, MiB at its highest",
        Bound::AtMost,
        100.0,
        report.figure_of("conex daemon, at its highest"),
    );
}

fn lanes(world: &mut World) -> Result<Vec<Lane>> {
    let name = format!("{ADDRESS}/{REPOSITORY}:{TAG}");
    let folder = world.state().join("pull-floor");
    fs::create_dir_all(&folder)?;
    let floor =
        [build_floor()?, ADDRESS.to_owned(), REPOSITORY.to_owned(), TAG.to_owned(), folder.display().to_string()];
    let empty = format!("rm -f {}/*", folder.display());
    let mut lanes = vec![Lane::new(
        world.other_floor("floor", floor.to_vec()),
        Some(world.other_floor("", ["sh", "-c", &empty].map(str::to_owned).to_vec())),
    )];
    if world.has_conex() {
        let line = |words: &[&str]| world.conex_line(words.iter().copied());
        let remove = world.ours("", line(&["rmi", &name]));
        lanes.push(Lane::new(world.ours("conex pull", line(&["pull", "-q", &name])), Some(remove)));
    }
    if world.has_docker() {
        let line = |words: &[&str]| world.docker_on_docker(words.iter().copied());
        let remove = world.peer("", Place::Here, line(&["rmi", &name]));
        lanes.push(Lane::new(
            world.peer("docker pull on Docker", Place::Here, line(&["pull", "-q", &name])),
            Some(remove),
        ));
    }
    if world.prepare_podman() {
        let pull = World::podman_line(["pull", "-q", "--tls-verify=false", &name]);
        let remove = world.peer("", Place::Inside, World::podman_line(["rmi", &name]));
        lanes.push(Lane::new(world.peer("podman pull", Place::Inside, pull), Some(remove)));
    }
    Ok(lanes)
}

impl Lane {
    fn new(contender: Contender, remove: Option<Contender>) -> Self {
        Self { contender, remove, times: Vec::new() }
    }

    /// Pulls onto a disk with nothing left to write, and removes the image again.
    fn once(&mut self, world: &mut World) -> Result<()> {
        rustix::fs::sync();
        self.times.push(world.time(&self.contender)?);
        if let Some(remove) = &self.remove {
            world.time(remove)?;
        }
        Ok(())
    }
}

fn build_floor() -> Result<String> {
    run_command(cargo().args(["build", "--quiet", "--package", "pull-floor", "--release"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), Into::into);
    Ok(target.join("release/pull-floor").display().to_string())
}
