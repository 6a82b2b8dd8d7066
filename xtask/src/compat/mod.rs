//! Public integration suites of Docker's clients, which this repository does not contain, against a fresh engine.
//!
//! ```text
//! compat (this process, in a mount and network namespace of its own)
//!  ├─ docker-registry       at 127.0.0.1:5000, with the images that the suites want; also the mirror of Docker Hub
//!  ├─ conex daemon or dockerd
//!  └─ docker-py (pytest in an environment of its own), bollard (cargo test)
//! ```
//!
//! The images are made here: busybox under the names that the suites know. What a suite says stays in `target/compat`.

mod bollard;
mod docker_py;
mod images;
mod report;
mod world;

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use lexopt::ValueExt;

use crate::bench::peers;
use crate::process::{say, workspace};
use crate::programs::{self, Profile};
use report::Outcome;
use world::World;

/// What the command line says.
#[derive(Debug, Default)]
struct Options {
    docker_py: Option<PathBuf>,
    bollard: Option<PathBuf>,
    programs: Option<PathBuf>,
    on_docker: bool,
    only: Option<String>,
}

/// `compat [--docker-py DIR] [--bollard DIR] [--only TEXT] [--programs DIR | --on-docker]`.
pub(crate) fn run_all(arguments: &[String]) -> Result<()> {
    let options = parse(arguments)?;
    ensure!(options.docker_py.is_some() || options.bollard.is_some(), "compat needs --docker-py DIR or --bollard DIR");
    let folder = workspace().join("target/compat");
    std::fs::create_dir_all(&folder)?;
    // Before the namespaces: this may need a network.
    let python = options.docker_py.as_ref().map(|_| docker_py::environment(&folder)).transpose()?;
    if let Some(checkout) = &options.bollard {
        bollard::build(checkout, &folder)?;
    }
    let engine = match (&options.programs, options.on_docker) {
        (_, true) => match peers::ready() {
            Some(root) => world::Kind::Docker { root },
            None => bail!("no peers: ./x peers makes a root for them"),
        },
        (Some(programs), _) => world::Kind::Conex { programs: programs.clone() },
        (None, _) => world::Kind::Conex { programs: programs::build(Profile::Debug)? },
    };
    let mut world = World::start(engine, &folder)?;
    let outcomes = run_suites(&world, &options, python);
    world.end()?;
    for outcome in outcomes? {
        say(&outcome.table());
    }
    Ok(())
}

fn run_suites(world: &World, options: &Options, python: Option<PathBuf>) -> Result<Vec<Outcome>> {
    let only = options.only.as_deref();
    let mut outcomes = Vec::new();
    if let (Some(checkout), Some(python)) = (&options.docker_py, &python) {
        outcomes.push(docker_py::run_suite(world, checkout, python, only)?);
    }
    if let Some(checkout) = &options.bollard {
        outcomes.push(bollard::run_suite(world, checkout, only)?);
    }
    Ok(outcomes)
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_args(arguments.iter().cloned());
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("docker-py") => options.docker_py = Some(PathBuf::from(parser.value()?).canonicalize()?),
            lexopt::Arg::Long("bollard") => options.bollard = Some(PathBuf::from(parser.value()?).canonicalize()?),
            lexopt::Arg::Long("programs") => options.programs = Some(PathBuf::from(parser.value()?).canonicalize()?),
            lexopt::Arg::Long("on-docker") => options.on_docker = true,
            lexopt::Arg::Long("only") => options.only = Some(parser.value()?.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(options)
}
