//! What a build asks of the engine around it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use images::Image;
use oci::image::Platform;
use oci::{DiffId, Reference};

pub use dockerfile::mount::Sharing;

/// What to build.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    /// The names that the image gets.
    pub tags: Vec<Reference>,
    /// Which stage; the last one when none.
    pub target: Option<String>,
    /// `--build-arg`
    pub arguments: BTreeMap<String, String>,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// Whether layers of earlier builds are taken.
    pub use_cache: bool,
    /// What it is for, if not for this machine.
    pub platform: Option<Platform>,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A step begins.
    Step {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        total: usize,
        /// The instruction.
        text: String,
    },
    /// Its layer was there already.
    Cached,
    /// A container runs.
    Running(String),
    /// What it writes to its standard output.
    Stdout(Vec<u8>),
    /// What it writes to its standard error.
    Stderr(Vec<u8>),
    /// The container is gone.
    Removed(String),
    /// The state that the step left, by the digest of its configuration.
    State(oci::Digest),
    /// Something that is better known.
    Warning(String),
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The root's layers, lowest first.
    pub layers: Vec<DiffId>,
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// `NAME=VALUE`.
    pub environment: Vec<String>,
    /// Who runs it.
    pub user: String,
    /// Where.
    pub working_dir: String,
    /// Which network.
    pub network: JobNetwork,
    /// What is mounted.
    pub mounts: Vec<JobMount>,
}

/// The network of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobNetwork {
    /// What the build was started with.
    Default,
    /// None.
    None,
    /// The host's.
    Host,
}

/// A mount for one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobMount {
    /// Where: absolute and clean.
    pub target: String,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// What.
    pub kind: JobMountKind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobMountKind {
    /// Memory.
    Tmpfs {
        /// How much.
        size_bytes: Option<u64>,
    },
    /// A directory that survives the build.
    Cache {
        /// Its name, which is no path.
        id: String,
        /// Who may use it at once.
        sharing: Sharing,
        /// Permissions, owner and group when it is made.
        owner: (u32, u32, u32),
    },
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Well; it changed no file.
    Unchanged,
    /// Well, with this layer.
    Layer(DiffId),
    /// With this code, which is not 0.
    Failed(i32),
}

/// The engine could not do its part; the message is for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HostError(pub String);

/// What a build asks of the engine around it. Every method blocks.
pub trait Host: Debug {
    /// The base image of this name.
    fn image(&self, name: &str) -> Result<Arc<Image>, HostError>;

    /// The merged files of these layers, lowest first, read-only.
    fn view(&self, layers: &[DiffId]) -> Result<OwnedFd, HostError>;

    /// Runs a command and keeps what it changed as a layer.
    fn run(&self, job: &Job, events: &mut dyn FnMut(Event)) -> Result<Outcome, HostError>;

    /// Whether the client has gone; the build ends then.
    fn cancelled(&self) -> bool;
}
