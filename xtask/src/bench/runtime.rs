//! The OCI runtime alone beside crun and runc: run, create with start and delete, exec, and the memory that it takes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Options;
use super::inside::STATE;
use super::report::{Bound, Report};
use super::start::interleaved;
use super::world::{Contender, Place, World};

/// A runtime: its program as it is called with the peers, and what the table calls its three ways.
struct Runtime {
    program: String,
    name: &'static str,
    rows: [&'static str; 3],
}

/// The limits that are tried, in KiB, until a container starts.
const LIMITS_KIB: [u64; 8] = [256, 384, 512, 1024, 2048, 4096, 8192, 16384];
const RESIDENT_ROUNDS: usize = 5;

/// Runs the bench.
pub(crate) fn run(world: &mut World, options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let runtimes = runtimes(world, options)?;
    let mut contenders = vec![world.floor()];
    for runtime in &runtimes {
        contenders.extend(contenders_of(world, runtime)?);
    }
    let times = interleaved(world, &contenders, options.rounds);
    for runtime in &runtimes {
        let _ = world.try_inside(words([&runtime.program, "delete", "--force", &sleeper(runtime)]));
    }
    for (contender, times) in contenders.iter().zip(&times?) {
        report.add(contender, times);
    }
    report.compare();
    for runtime in &runtimes {
        memory(world, runtime, &mut report)?;
    }
    promises(&mut report);
    Ok(report)
}

/// Ours, copied to where the peers see it, and those of the peers that are there.
fn runtimes(world: &mut World, options: &Options) -> Result<Vec<Runtime>> {
    let ours = options.programs()?.context("this bench is of our own runtime: not with --peers-only")?;
    fs::copy(ours.join("conex-runtime"), world.state().join("peers/conex-runtime"))?;
    fs::copy(world.floor_program(), world.state().join("peers/floor"))?;
    let mut runtimes = vec![Runtime {
        program: format!("{STATE}/conex-runtime"),
        name: "conex-runtime",
        rows: ["conex-runtime run", "conex-runtime create, start, delete", "conex-runtime exec"],
    }];
    for (name, rows) in [
        ("crun", ["crun run", "crun create, start, delete", "crun exec"]),
        ("runc", ["runc run", "runc create, start, delete", "runc exec"]),
    ] {
        if world.has(&format!("usr/bin/{name}")) || world.has(&format!("usr/sbin/{name}")) {
            runtimes.push(Runtime { program: name.to_owned(), name, rows });
        }
    }
    Ok(runtimes)
}

fn contenders_of(world: &mut World, runtime: &Runtime) -> Result<Vec<Contender>> {
    let program = &runtime.program;
    let once = world.bundle_of(program, runtime.name, &["/bin/true"])?;
    let lasting = world.bundle_of(program, &format!("{}-lasting", runtime.name), &["/bin/sleep", "100000"])?;
    let sleeper = sleeper(runtime);
    // Their output must not be the agent's pipe, which would then never end.
    let start = format!("{program} run -d -b {lasting} {sleeper} </dev/null >/dev/null 2>&1");
    anyhow::ensure!(world.try_inside(words(["sh", "-c", &start])), "{} does not work here", runtime.name);
    let three = format!(
        "{program} create -b {once} c-{{n}} </dev/null >/dev/null 2>&1 && {program} start c-{{n}} && {program} delete --force c-{{n}}"
    );
    let commands = [
        words([program, "run", "-b", &once, "r-{n}"]),
        words(["sh", "-c", &three]),
        words([program, "exec", &sleeper, "/bin/true"]),
    ];
    let is_ours = runtime.name == "conex-runtime";
    let contender = |(name, command): (&'static str, Vec<String>)| match is_ours {
        true => world.ours_inside(name, command),
        false => world.peer(name, Place::Inside, command),
    };
    Ok(runtime.rows.into_iter().zip(commands).map(contender).collect())
}

fn sleeper(runtime: &Runtime) -> String {
    format!("lasting-{}", runtime.name)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// The peak of resident memory of `run` with all that it waits for, and the smallest limit under which it starts.
fn memory(world: &mut World, runtime: &Runtime, report: &mut Report) -> Result<()> {
    let (program, bundle) = (&runtime.program, format!("{STATE}/bundle-{}", runtime.name));
    let outside = world.state().join("peers");
    let mut peak = 0.0_f64;
    for round in 0..RESIDENT_ROUNDS {
        let line =
            format!("{STATE}/floor peak {program} run -b {bundle} m-{round}-{} > {STATE}/resident", runtime.name);
        anyhow::ensure!(world.try_inside(words(["sh", "-c", &line])), "{} does not run", runtime.name);
        peak = peak.max(fs::read_to_string(outside.join("resident"))?.trim().parse()?);
    }
    report.figure(format!("{}: peak of resident memory", runtime.name), peak, "KiB");
    let config = outside.join(format!("bundle-{}/config.json", runtime.name));
    for limit in LIMITS_KIB {
        set_memory_limit(&config, limit)?;
        let line = format!(
            "{program} run -b {bundle} l-{limit} >/dev/null 2>&1; code=$?; {program} delete --force l-{limit} >/dev/null 2>&1; echo $code > {STATE}/code"
        );
        if world.try_inside(words(["sh", "-c", &line])) && fs::read_to_string(outside.join("code"))?.trim() == "0" {
            report.figure(format!("{}: smallest memory limit", runtime.name), limit as f64, "KiB");
            break;
        }
    }
    Ok(())
}

fn set_memory_limit(config: &Path, kib: u64) -> Result<()> {
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(config)?)?;
    spec["linux"]["resources"]["memory"] = serde_json::json!({ "limit": kib * 1024 });
    Ok(fs::write(config, spec.to_string())?)
}

fn promises(report: &mut Report) {
    let rows = [
        ("run", "conex-runtime run", "crun run"),
        ("create, start and delete", "conex-runtime create, start, delete", "crun create, start, delete"),
        ("exec", "conex-runtime exec", "crun exec"),
    ];
    for (what, ours, theirs) in rows {
        let ratio = report.row(ours).zip(report.row(theirs)).map(|(ours, theirs)| ours.median / theirs.median);
        report.promise(format!("{what}, median, times crun's"), Bound::AtMost, 0.7, ratio);
    }
    let peak = |name: &str| report.figure_of(&format!("{name}: peak of resident memory"));
    let ratio = peak("conex-runtime").zip(peak("crun")).map(|(ours, theirs)| ours / theirs);
    report.promise("peak of resident memory, times crun's", Bound::AtMost, 1.0, ratio);
    let limit = report.figure_of("conex-runtime: smallest memory limit");
    report.promise("smallest memory limit, KiB", Bound::AtMost, 512.0, limit);
}
