//! How long builds take: what is cached, what is copied, what runs side by side, and what a small change costs. Each by `conex build`, by
//! Docker's own client on Conex, and by the same client on Docker with BuildKit.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Options;
use super::measure::run_one;
use super::memory::{forget_peak, helpers, peak};
use super::report::{Bound, Report};
use super::world::{Contender, Place, World};
use crate::process::{say, workspace};

/// Files of the large context, and what is in each.
const FILES: usize = 100_000;
const FILE_BYTES: usize = 1000;
/// The large file.
const LARGE_BYTES: usize = 1_000_000_000;
/// Steps of the file that is built again with nothing changed.
const STEPS: usize = 30;
/// Sources of what compiles.
const SOURCES: usize = 200;

/// One kind of build.
struct Scenario {
    /// What `--only` picks it by.
    name: &'static str,
    /// Its rows: the floor, `conex build`, the client on Conex, the client on Docker.
    rows: [&'static str; 4],
    /// What the kernel and the tools alone take for the same, where there is such a thing.
    floor: Option<Vec<String>>,
    /// How many times longer Docker is to take.
    wanted: Option<f64>,
    context: PathBuf,
    before: Before,
    rounds: usize,
}

/// What happens before each build.
enum Before {
    /// Nothing: all of it is there from the last one.
    Nothing,
    /// All that was cached is removed.
    Emptied,
    /// A file gets other contents.
    Changed(PathBuf),
}

/// One of those that build.
struct Lane {
    build: Contender,
    prune: Option<Vec<String>>,
    times: Vec<Duration>,
}

/// Runs the bench.
pub(crate) fn run(world: &mut World, options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let state = world.state().join("build");
    let config = state.join("docker-config");
    plugin(&config)?;
    let mut changes = 0;
    for scenario in scenarios(&state, options)? {
        say(&format!("building: {}", scenario.name));
        let conex = world.pids().0;
        let docker = dockers(world)?;
        conex.into_iter().chain(docker.iter().copied()).try_for_each(|pid| forget_peak(pid).map(drop))?;
        let mut lanes = lanes(world, &scenario, &config);
        measure(world, &scenario, &mut lanes, &mut changes)?;
        for lane in &lanes {
            report.add(&lane.build, &lane.times);
        }
        if let Some(pid) = conex {
            report.figure(format!("{}: conex daemon, at its highest", scenario.name), peak(pid)?, "MiB");
        }
        let together = docker.iter().map(|pid| peak(*pid)).sum::<Result<f64>>()?;
        if together > 0.0 {
            let name = format!("{}: dockerd and containerd, at their highest", scenario.name);
            report.figure(name, together, "MiB");
        }
        promise(&mut report, &scenario);
    }
    Ok(report)
}

/// Docker's processes.
fn dockers(world: &World) -> Result<Vec<u32>> {
    let Some(dockerd) = world.pids().1 else { return Ok(Vec::new()) };
    Ok(helpers(dockerd, "containerd")?.into_iter().chain([dockerd]).collect())
}

/// Gives the client its plugin in a folder of its own.
fn plugin(config: &Path) -> Result<()> {
    let plugins = config.join("cli-plugins");
    fs::create_dir_all(&plugins)?;
    let program = workspace().join("target/buildx/docker-buildx");
    let program = program.canonicalize().context("buildx is not there: ./x test unpacks it")?;
    Ok(symlink(program, plugins.join("docker-buildx"))?)
}

fn lanes(world: &World, scenario: &Scenario, config: &Path) -> Vec<Lane> {
    let [floor, ours, on_conex, on_docker] = scenario.rows;
    let context = scenario.context.display().to_string();
    let words = ["build", "--progress=plain", "-t", "bench:built", &context];
    let prune_words = ["builder", "prune", "-af"];
    let client = |line: Vec<String>| {
        let config = format!("DOCKER_CONFIG={}", config.display());
        ["env".to_owned(), config, "DOCKER_BUILDKIT=1".to_owned()].into_iter().chain(line).collect::<Vec<_>>()
    };
    let lane = |build, prune| Lane { build, prune, times: Vec::new() };
    let floors = scenario.floor.iter().map(|line| lane(world.other_floor(floor, line.clone()), None));
    let mut lanes: Vec<Lane> = floors.collect();
    if world.has_conex() {
        let prune = Some(client(world.docker_on_conex(prune_words)));
        lanes.push(lane(world.ours(ours, world.conex_line(words)), prune.clone()));
        lanes.push(lane(world.ours(on_conex, client(world.docker_on_conex(words))), prune));
    }
    if world.has_docker() {
        let prune = Some(client(world.docker_on_docker(prune_words)));
        lanes.push(lane(world.peer(on_docker, Place::Here, client(world.docker_on_docker(words))), prune));
    }
    lanes
}

fn measure(world: &mut World, scenario: &Scenario, lanes: &mut [Lane], changes: &mut usize) -> Result<()> {
    if !matches!(scenario.before, Before::Emptied) {
        // What is there already, and what is changed, must have been built once.
        lanes.iter().try_for_each(|lane| world.time(&lane.build).map(drop))?;
    }
    for _ in 0..scenario.rounds {
        for lane in &mut *lanes {
            match (&scenario.before, &lane.prune) {
                (Before::Emptied, Some(prune)) => drop(run_one(prune)?),
                (Before::Changed(file), _) => {
                    *changes += 1;
                    fs::write(file, format!("change {changes}\n"))?;
                }
                _ => {}
            }
            rustix::fs::sync();
            lane.times.push(world.time(&lane.build)?);
        }
    }
    Ok(())
}

fn promise(report: &mut Report, scenario: &Scenario) {
    let [_, ours, on_conex, on_docker] = scenario.rows;
    let times = |one: &str, report: &Report| Some(report.row(on_docker)?.min / report.row(one)?.min);
    let (own, same) = (times(ours, report), times(on_conex, report));
    let name = scenario.name;
    if let Some(wanted) = scenario.wanted {
        report.promise(
            format!("{name}: docker build on Docker, best, times conex build's"),
            Bound::AtLeast,
            wanted,
            own,
        );
    } else if let Some(found) = own {
        report.figure(format!("{name}: docker build on Docker, best, times conex build's"), found, "×");
    }
    if let Some(found) = same {
        report.figure(format!("{name}: docker build on Docker, best, times the same on Conex"), found, "×");
    }
}

/// Makes a kind of build, with its context in a folder of its own.
type Maker = fn(&Path, usize) -> Result<Scenario>;

/// Makes the contexts of the kinds that were asked for.
fn scenarios(state: &Path, options: &Options) -> Result<Vec<Scenario>> {
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| name.contains(only));
    let makers: [(&str, Maker); 6] = [
        ("cached", cached),
        ("stages", stages),
        ("compile", compile),
        ("small files", small_files),
        ("changed file", changed_file),
        ("large file", large_file),
    ];
    let mut made = Vec::new();
    for (name, make) in makers.into_iter().filter(|(name, _)| wanted(name)) {
        let folder = state.join(name.replace(' ', "-"));
        fs::create_dir_all(&folder)?;
        made.push(make(&folder, options.rounds)?);
    }
    Ok(made)
}

fn cached(folder: &Path, rounds: usize) -> Result<Scenario> {
    let mut text = "FROM bench:small\n".to_owned();
    for step in 1..STEPS {
        let _ = match step % 3 {
            0 => writeln!(text, "ENV STEP_{step}=x"),
            1 => writeln!(text, "COPY file{step} /files/"),
            _ => writeln!(text, "RUN echo {step} > /made{step}"),
        };
        fs::write(folder.join(format!("file{step}")), format!("{step}\n"))?;
    }
    fs::write(folder.join("Dockerfile"), text)?;
    Ok(Scenario {
        name: "cached",
        rows: ["", "cached: conex build", "cached: docker on Conex", "cached: docker on Docker"],
        floor: None,
        wanted: Some(5.0),
        context: folder.to_owned(),
        before: Before::Nothing,
        rounds: rounds.min(10),
    })
}

fn stages(folder: &Path, rounds: usize) -> Result<Scenario> {
    let mut text = String::new();
    for stage in 1..=4 {
        let _ =
            writeln!(text, "FROM bench:small AS s{stage}\nCOPY changing /\nRUN sleep 0.5; echo {stage} > /made{stage}");
    }
    text += "FROM bench:small\n";
    for stage in 1..=4 {
        let _ = writeln!(text, "COPY --from=s{stage} /made{stage} /");
    }
    fs::write(folder.join("Dockerfile"), text)?;
    let changing = folder.join("changing");
    fs::write(&changing, "")?;
    Ok(Scenario {
        name: "stages",
        rows: ["stages: floor", "stages: conex build", "stages: docker on Conex", "stages: docker on Docker"],
        floor: Some(["sleep", "0.5"].map(str::to_owned).to_vec()),
        wanted: None,
        context: folder.to_owned(),
        before: Before::Changed(changing),
        rounds: rounds.min(5),
    })
}

/// A compiler's work as far as a builder sees it: sources that are read, objects that are kept, one of them out of date.
fn compile(folder: &Path, rounds: usize) -> Result<Scenario> {
    let script = "for source in /src/*.c; do object=/cache/${source##*/}.o; \
        [ \"$(busybox sha256sum $source)\" = \"$(busybox cat $object.sum 2>/dev/null)\" ] && continue; \
        busybox gzip -c $source > $object; busybox sha256sum $source > $object.sum; done; busybox cat /cache/*.o > /program";
    let text = format!("FROM bench:small\nCOPY src /src\nRUN --mount=type=cache,target=/cache {script}\n");
    fs::write(folder.join("Dockerfile"), text)?;
    fs::create_dir_all(folder.join("src"))?;
    for source in 0..SOURCES {
        fs::write(folder.join(format!("src/{source}.c")), format!("int f{source}(void);\n").repeat(200))?;
    }
    Ok(Scenario {
        name: "compile",
        rows: ["", "compile: conex build", "compile: docker on Conex", "compile: docker on Docker"],
        floor: None,
        wanted: None,
        context: folder.to_owned(),
        before: Before::Changed(folder.join("src/7.c")),
        rounds: rounds.min(5),
    })
}

fn write_small_files(folder: &Path) -> Result<()> {
    for number in 0..FILES {
        let below = folder.join(format!("files/{}/{}", number / 10_000, number / 100 % 100));
        if number % 100 == 0 {
            fs::create_dir_all(&below)?;
        }
        let mut text = format!("{number} ");
        text.extend(std::iter::repeat_n('x', FILE_BYTES - text.len()));
        fs::write(below.join(number.to_string()), text)?;
    }
    Ok(fs::write(folder.join("Dockerfile"), "FROM bench:small\nCOPY files /files\n")?)
}

/// What it takes to read a folder, to write it as a tar, and to know the tar's digest.
fn copy_floor(folder: &Path) -> Vec<String> {
    let script = "tar -C \"$0\" -cf \"$0.tar\" . && sha256sum \"$0.tar\" && sync \"$0.tar\" && rm \"$0.tar\"";
    ["sh", "-c", script, &folder.join("files").display().to_string()].map(str::to_owned).to_vec()
}

fn small_files(folder: &Path, rounds: usize) -> Result<Scenario> {
    write_small_files(folder)?;
    Ok(Scenario {
        name: "small files",
        rows: [
            "small files: floor",
            "small files: conex build",
            "small files: docker on Conex",
            "small files: docker on Docker",
        ],
        floor: Some(copy_floor(folder)),
        wanted: Some(5.0),
        context: folder.to_owned(),
        before: Before::Emptied,
        rounds: rounds.min(2),
    })
}

fn changed_file(folder: &Path, rounds: usize) -> Result<Scenario> {
    write_small_files(folder)?;
    Ok(Scenario {
        name: "changed file",
        rows: ["", "changed file: conex build", "changed file: docker on Conex", "changed file: docker on Docker"],
        floor: None,
        wanted: Some(10.0),
        context: folder.to_owned(),
        before: Before::Changed(folder.join("files/5/50/55050")),
        rounds: rounds.min(3),
    })
}

fn large_file(folder: &Path, rounds: usize) -> Result<Scenario> {
    fs::create_dir_all(folder.join("files"))?;
    // Nothing that a file system could leave out.
    let bytes: Vec<u8> = (0..LARGE_BYTES as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(folder.join("files/large"), bytes)?;
    fs::write(folder.join("Dockerfile"), "FROM bench:small\nCOPY files/large /large\n")?;
    Ok(Scenario {
        name: "large file",
        rows: [
            "large file: floor",
            "large file: conex build",
            "large file: docker on Conex",
            "large file: docker on Docker",
        ],
        floor: Some(copy_floor(folder)),
        wanted: Some(3.0),
        context: folder.to_owned(),
        before: Before::Emptied,
        rounds: rounds.min(3),
    })
}
