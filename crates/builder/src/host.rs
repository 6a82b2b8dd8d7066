//! What a build asks of the engine around it.

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use images::Image;
use oci::image::Platform;
use oci::{DiffId, Digest};

use crate::context::Context;
use crate::event::{Sink, StepId};

pub use dockerfile::mount::Sharing;

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The root's layers, lowest first.
    pub layers: Vec<DiffId>,
    /// What the programs are for.
    pub platform: Platform,
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
    /// Secrets that it sees as variables. They are written nowhere.
    pub secrets: Vec<SecretVariable>,
}

/// A secret as a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretVariable {
    /// The variable.
    pub name: String,
    /// The secret.
    pub id: String,
    /// Whether the build fails without it.
    pub required: bool,
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

/// Permissions, owner and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
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
        /// The name as the Dockerfile has it.
        name: String,
        /// Who may use it at once.
        sharing: Sharing,
        /// What it holds when it is made: a directory of these layers.
        seed: Option<(Vec<DiffId>, String)>,
        /// Whose it is when it is made.
        owner: Ownership,
    },
    /// A file or directory of these layers. What is written to it is lost.
    Bind {
        /// The layers, lowest first.
        layers: Vec<DiffId>,
        /// Which file or directory of theirs.
        source: String,
    },
    /// A secret as a file.
    Secret {
        /// The secret.
        id: String,
        /// Whether the build fails without it.
        required: bool,
        /// Whose the file is.
        owner: Ownership,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// The agent.
        id: String,
        /// Whether the build fails without it.
        required: bool,
        /// Whose the socket is.
        owner: Ownership,
    },
}

impl JobMountKind {
    /// The layers that must be here for it.
    pub(crate) fn layers(&self) -> &[DiffId] {
        match self {
            JobMountKind::Bind { layers, .. } => layers,
            JobMountKind::Cache { seed: Some((layers, _)), .. } => layers,
            _ => &[],
        }
    }
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

/// The Dockerfile as it came, with its ignore file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerfileText {
    /// The Dockerfile.
    pub text: String,
    /// `X.dockerignore`, else `.dockerignore`.
    pub ignore: Option<String>,
}

/// Which files of a client's folder, or of a remote place, are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Which folder; none for the build's own context.
    pub name: Option<&'a crate::NamedContext>,
    /// What the ignore file says.
    pub ignore: &'a str,
    /// The only paths that the build looks at; none for all.
    pub paths: Option<&'a [String]>,
}

/// What a cache from elsewhere knows.
#[derive(Debug, Default)]
pub struct Imported {
    /// Results of steps, by key.
    pub steps: Vec<(Digest, crate::CacheEntry)>,
    /// Images that do not tell of their steps: one of theirs counts where everything up to it is the same.
    pub images: Vec<Arc<Image>>,
}

/// A file from elsewhere.
#[derive(Debug)]
pub struct Download {
    /// The file, its only one.
    pub context: Arc<Context>,
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// What it is called.
    pub name: String,
}

/// What a build asks of the engine around it. Every method blocks, and is called from several threads at once.
pub trait Host: Debug + Send + Sync {
    /// The Dockerfile; nothing where it is not there.
    fn dockerfile(&self, path: &str) -> Result<Option<DockerfileText>, HostError>;

    /// Files to copy from.
    fn context(&self, wanted: &Wanted<'_>, step: StepId, events: Sink<'_>) -> Result<Arc<Context>, HostError>;

    /// The image of this name for this platform, which is fetched when it is not here.
    fn image(
        &self,
        name: &str,
        platform: Option<&Platform>,
        step: StepId,
        events: Sink<'_>,
    ) -> Result<Arc<Image>, HostError>;

    /// The merged files of these layers, lowest first, read-only.
    fn view(&self, layers: &[DiffId]) -> Result<OwnedFd, HostError>;

    /// Runs a command and keeps what it changed as a layer. Once `stopped` nobody wants that any more: waiting ends, and so does the command.
    fn run(&self, job: &Job, step: StepId, events: Sink<'_>, stopped: &dyn Fn() -> bool) -> Result<Outcome, HostError>;

    /// A file from the web.
    fn download(&self, url: &str, step: StepId, events: Sink<'_>) -> Result<Download, HostError>;

    /// The files of a repository, with `.git` where `keep_git_dir`.
    fn clone_repository(&self, url: &str, keep_git_dir: bool) -> Result<Arc<Context>, HostError>;

    /// What a cache from elsewhere knows, by its number among [`Request::caches`](crate::Request::caches).
    fn import(&self, cache: usize, step: StepId, events: Sink<'_>) -> Result<Imported, HostError>;

    /// Whether one of those caches has the blob of a layer.
    fn can_fetch(&self, layer: &DiffId) -> bool;

    /// Fetches a layer from one of those caches.
    fn fetch(&self, layer: &DiffId, step: StepId, events: Sink<'_>) -> Result<(), HostError>;

    /// Whether the client has gone; the build ends then.
    fn cancelled(&self) -> bool;
}
