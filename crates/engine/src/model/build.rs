//! Building an image.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

pub use builder::{
    Description, DockerfileText, Event, HostError, LintWarning, NamedContext, Output, Progress, Receiver, Reuse,
    SentFile, SentKind, StepId, SyncedFolders,
};

use super::ContainerSpec;
use crate::images::InputStream;

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    /// Names for the image.
    pub tags: Vec<String>,
    /// `--target`
    pub target: Option<String>,
    /// `--build-arg`
    pub arguments: BTreeMap<String, String>,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// What of earlier builds is taken.
    pub reuse: Reuse,
    /// Whether base images are fetched although they are here.
    pub pull: bool,
    /// Whether containers of commands stay, as Docker's classic builder leaves them with `rm=0`.
    pub keep_containers: bool,
    /// `--platform`: one, or several with commas between them.
    pub platform: Option<String>,
    /// Named contexts.
    pub contexts: BTreeMap<String, NamedContext>,
    /// Whether `RUN --network=host` is allowed.
    pub host_network: bool,
    /// Who asks at which registry, by the names that Docker's clients use.
    pub credentials: BTreeMap<String, registry::Credentials>,
    /// Secrets that came with the request, by name.
    pub secrets: Secrets,
    /// SSH agents on this machine: their sockets by name.
    pub agents: BTreeMap<String, PathBuf>,
    /// A name by which the build can be cancelled.
    pub id: Option<String>,
    /// What becomes of the result.
    pub wanted: Wanted,
    /// What is attested about the image.
    pub attests: super::attest::Attests,
    /// The options as the client has them, for those who read how the image was made.
    pub options: BTreeMap<String, String>,
    /// Caches elsewhere that are read.
    pub cache_from: Vec<super::build_cache::CacheSource>,
    /// Caches elsewhere that are written after the build.
    pub cache_to: Vec<super::build_cache::CacheTarget>,
    /// Images that are all that earlier builds may be taken from, as Docker's classic builder has it; those that are not here do not count.
    pub like: Option<Vec<String>>,
    /// Whether the image tells of the build's steps, for who takes it as a cache.
    pub inline_cache: bool,
    /// How commands run: network, extra hosts, limits, size of `/dev/shm`. Everything else in it is the build's own.
    pub template: ContainerSpec,
}

/// What becomes of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// An image of the engine.
    #[default]
    Image,
    /// It waits for its client, who asks for parts of it.
    Kept,
    /// Both.
    Both,
}

/// Secrets by name; they are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, Vec<u8>>);

impl Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// Where a build's files come from.
#[derive(Debug)]
pub enum BuildSource {
    /// A tar that arrives.
    Tar(InputStream),
    /// A repository, an archive, or a Dockerfile elsewhere.
    Remote {
        /// Its address.
        url: String,
        /// A client that knows secrets and credentials; without one the build is as Docker's classic builder has it.
        client: Option<Arc<dyn BuildClient>>,
    },
    /// A folder of this machine.
    Folder(BuildFolder),
    /// A client, which is asked for what is needed.
    Client(Arc<dyn BuildClient>),
}

/// A folder of this machine, and proof that the client and the engine mean the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildFolder {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its device.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// The Dockerfile where it is not in the folder.
    pub dockerfile: Option<DockerfileText>,
}

/// A client that answers questions while its build runs. Every method blocks.
pub trait BuildClient: Debug + Send + Sync {
    /// What the client calls the folder that it builds: the same the next time.
    fn shared_key(&self) -> String;

    /// The Dockerfile; nothing where it is not there.
    fn dockerfile(&self, path: &str) -> Result<Option<DockerfileText>, HostError>;

    /// Sends the files of a folder that `receiver` wants.
    fn send_folder(
        &self,
        wanted: &FolderWanted<'_>,
        receiver: &mut Receiver<'_>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<(), HostError>;

    /// A secret.
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// Whether there is an SSH agent of this name.
    fn has_agent(&self, id: &str) -> Result<bool, HostError>;

    /// Connects a command with an SSH agent; returns at once.
    fn forward_agent(&self, id: &str, socket: UnixStream) -> Result<(), HostError>;

    /// Who asks at a registry.
    fn credentials(&self, registry: &str) -> registry::Credentials;
}

/// Which files of a client's folder.
#[derive(Debug, Clone, Copy)]
pub struct FolderWanted<'a> {
    /// The folder's name.
    pub name: &'a str,
    /// Patterns of what is not wanted, as in `.dockerignore`.
    pub excluded: &'a [String],
    /// The only paths that are wanted.
    pub paths: Option<&'a [String]>,
}

/// What a build tells while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// Something happens.
    Happens(Event),
    /// A command failed: the code, and what to tell.
    Failed {
        /// Its exit code.
        code: i32,
        /// The message.
        message: String,
    },
    /// The image is there, under these names.
    Built {
        /// Its id.
        image: oci::Digest,
        /// Its names in short.
        tags: Vec<String>,
        /// By which name its parts can be asked for.
        kept: Option<String>,
    },
}

/// One step that earlier builds left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildCacheView {
    /// Its key.
    pub id: oci::Digest,
    /// The instruction.
    pub description: String,
    /// What it is.
    pub kind: BuildCacheKind,
    /// Whether an image has its layer.
    pub in_use: bool,
    /// Bytes of its layer.
    pub size_bytes: u64,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// When it was used last.
    pub last_used: jiff::Timestamp,
    /// How often it was used again.
    pub uses: u64,
}

/// What is kept for the next build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildCacheKind {
    /// A step's layer.
    Step,
    /// Files of contexts.
    Context,
    /// A directory of `RUN --mount=type=cache`.
    Mount,
}

impl BuildCacheKind {
    /// BuildKit's name for it.
    pub fn name(self) -> &'static str {
        match self {
            BuildCacheKind::Step => "regular",
            BuildCacheKind::Context => "source.local",
            BuildCacheKind::Mount => "exec.cachemount",
        }
    }
}

/// What to remove from the build cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildPruneRequest {
    /// Also what images have.
    pub all: bool,
    /// Only what was not used for so many seconds.
    pub unused_for_s: Option<i64>,
    /// Only this kind.
    pub kind: Option<String>,
    /// Only these.
    pub ids: Vec<String>,
    /// Keep the most recently used up to so many bytes.
    pub keep_bytes: Option<u64>,
}

/// What pruning the build cache removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildPruneReport {
    /// The steps.
    pub removed: Vec<BuildCacheView>,
    /// Bytes that are free now.
    pub reclaimed_bytes: u64,
}
