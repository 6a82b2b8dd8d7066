//! Benches: Conex beside its peers and beside the floor, interleaved in one run, because machines are noisy and only what was
//! measured together can be compared.
//!
//! ```text
//! bench (this process, in a mount and network namespace of its own)
//!  ├─ floor                 what the kernel alone costs
//!  ├─ conex daemon          with root and run folder below target/bench/state-PID
//!  ├─ dockerd  ┐
//!  └─ agent    ┴ each in a Debian root of its own, entered by pivot_root; the agent starts podman, runc and crun there and
//!                takes the times itself, so that entering costs them nothing
//! ```
//!
//! Results go to standard output as a table and to `target/bench/NAME.json`.

mod build;
mod cost;
mod exec;
pub(crate) mod image;
mod images;
pub(crate) mod inside;
mod load;
mod measure;
mod memory;
mod network;
pub(crate) mod peers;
mod pull;
mod registry;
mod report;
mod runtime;
mod scale;
mod start;
mod watch;
pub(crate) mod world;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use lexopt::ValueExt;

use crate::programs::{self, Profile};

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Options {
    /// How often each contender runs.
    pub(crate) rounds: usize,
    /// Of a bench of several kinds, those whose name has this in it.
    pub(crate) only: Option<String>,
    /// A Debian root that has the peers; none leaves them out.
    pub(crate) peers: Option<PathBuf>,
    /// What of ours is measured.
    ours: Ours,
}

/// Where our programs are.
#[derive(Debug)]
enum Ours {
    /// To be built.
    Built,
    /// In this folder.
    In(PathBuf),
    /// They stay out of it.
    Left,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self { rounds: 50, only: None, peers: None, ours: Ours::Built };
        let mut parser = lexopt::Parser::from_args(arguments.iter().cloned());
        while let Some(argument) = parser.next()? {
            match argument {
                lexopt::Arg::Long("rounds") => options.rounds = parser.value()?.string()?.parse()?,
                lexopt::Arg::Long("only") => options.only = Some(parser.value()?.string()?),
                lexopt::Arg::Long("peers") => options.peers = Some(existing(parser.value()?.into())?),
                lexopt::Arg::Long("programs") => options.ours = Ours::In(existing(parser.value()?.into())?),
                lexopt::Arg::Long("peers-only") => options.ours = Ours::Left,
                other => return Err(other.unexpected().into()),
            }
        }
        if options.peers.is_none() {
            options.peers = peers::ready();
        }
        Ok(options)
    }

    /// Whether a part of a bench is to be run.
    pub(crate) fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| part.contains(only))
    }

    /// The folder of the programs to measure, if they are.
    pub(crate) fn programs(&self) -> Result<Option<PathBuf>> {
        match &self.ours {
            Ours::Built => programs::build(Profile::Release).map(Some),
            Ours::In(folder) => Ok(Some(folder.clone())),
            Ours::Left => Ok(None),
        }
    }
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("cannot find {}", path.display()))
}

/// Runs one bench.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [kind, rest @ ..] = arguments else {
        bail!("bench takes start, exec, memory, load, images, pull, build, network, scale, watch, runtime or cost")
    };
    let options = Options::parse(rest)?;
    let bench: fn(&mut world::World, &Options) -> Result<report::Report> = match kind.as_str() {
        "start" => start::run,
        "exec" => exec::run,
        "memory" => memory::run,
        "build" => build::run,
        "load" => load::run,
        "images" => images::run,
        "network" => network::run,
        "pull" => pull::run,
        "scale" => scale::run,
        "watch" => watch::run,
        "runtime" => runtime::run,
        "cost" => cost::run,
        other => {
            bail!(
                "bench takes start, exec, memory, load, images, pull, build, network, scale, watch, runtime or cost, not {other:?}"
            )
        }
    };
    let engines =
        if matches!(kind.as_str(), "runtime" | "cost") { world::Engines::Left } else { world::Engines::Started };
    let programs = options.programs()?;
    let mut world = world::World::new(programs, options.peers.as_deref(), engines)?;
    let result = bench(&mut world, &options);
    let ended = world.end();
    let report = result?;
    report.publish(kind)?;
    ended
}
