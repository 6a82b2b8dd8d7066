//! How long one more process in a running container takes.

use anyhow::Result;

use super::Options;
use super::image::SMALL;
use super::measure::run_one;
use super::report::{Bound, Report};
use super::start::interleaved;
use super::world::{Contender, Place, World};

const SLEEP: [&str; 2] = ["/bin/sleep", "100000"];
const NAME: &str = "bench-exec";
const ON_CONEX: &str = "docker exec on Conex";
const ON_DOCKER: &str = "docker exec on Docker";

/// Runs the bench.
pub(crate) fn run(world: &mut World, options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let contenders = contenders(world)?;
    let times = interleaved(world, &contenders, options.rounds);
    remove_containers(world);
    for (contender, times) in contenders.iter().zip(&times?) {
        report.add(contender, times);
    }
    report.compare();
    let ratio = report.row(ON_DOCKER).zip(report.row(ON_CONEX)).map(|(docker, conex)| docker.median / conex.median);
    report.promise("docker exec on Docker, times docker exec on Conex", Bound::AtLeast, 2.0, ratio);
    Ok(report)
}

/// Starts a container in every engine; the contenders are the ways to run `true` in it.
fn contenders(world: &mut World) -> Result<Vec<Contender>> {
    let start = ["run", "-d", "--network", "none", "--name", NAME, SMALL, SLEEP[0], SLEEP[1]];
    let exec = ["exec", NAME, "/bin/true"];
    let mut list = Vec::new();
    if world.has_conex() {
        run_one(&world.conex_line(start))?;
        list.push(world.ours("conex exec", world.conex_line(exec)));
    }
    if world.has_conex() && crate::process::found("docker") {
        list.push(world.ours(ON_CONEX, world.docker_on_conex(exec)));
    }
    if world.has_docker() {
        run_one(&world.docker_on_docker(start))?;
        list.push(world.peer(ON_DOCKER, Place::Here, world.docker_on_docker(exec)));
    }
    if world.prepare_podman() && world.try_inside(World::podman_line(start)) {
        list.push(world.peer("podman exec", Place::Inside, World::podman_line(exec)));
    }
    for (runtime, name) in [("runc", "runc exec"), ("crun", "crun exec")] {
        let Some(bundle) = world.prepare_bundle(runtime, &SLEEP)? else { continue };
        // Its output must not be the agent's pipe, which would then never end.
        let run = format!("{runtime} run -d -b {bundle} {NAME} </dev/null >/dev/null 2>&1");
        if world.try_inside(["sh", "-c", &run].map(str::to_owned).to_vec()) {
            list.push(world.peer(
                name,
                Place::Inside,
                [runtime, "exec", NAME, "/bin/true"].map(str::to_owned).to_vec(),
            ));
        }
    }
    Ok(list)
}

/// Removes what was started; a container that was not is no matter.
fn remove_containers(world: &mut World) {
    if world.has_conex() {
        let _ = run_one(&world.conex_line(["rm", "-f", NAME]));
    }
    if world.has_docker() {
        let _ = run_one(&world.docker_on_docker(["rm", "-f", NAME]));
    }
    if world.peers_root().is_some() {
        let _ = world.try_inside(World::podman_line(["rm", "-f", "-t", "0", NAME]));
        for runtime in ["runc", "crun"] {
            let _ = world.try_inside([runtime, "delete", "--force", NAME].map(str::to_owned).to_vec());
        }
    }
}
