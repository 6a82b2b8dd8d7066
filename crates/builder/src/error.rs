//! Why a build fails, in Docker's words.

use std::io;

use dockerfile::ParseError;
use dockerfile::expand::ExpandError;
use oci::{DiffId, Digest};

use crate::context::ContextError;
use crate::host::HostError;

/// Why a build fails.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile cannot be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The context cannot be read.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The Dockerfile is not in the context.
    #[error("Cannot locate specified Dockerfile: {0}")]
    DockerfileMissing(String),
    /// A word cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// A mount cannot be read.
    #[error(transparent)]
    Mount(#[from] dockerfile::mount::MountError),
    /// A base name that is empty after expansion.
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    /// `--target` names no stage.
    #[error("target stage {0:?} could not be found{1}")]
    Target(String, String),
    /// `COPY --from` names something later, or itself.
    #[error("cannot copy from stage {0:?}, it needs to be defined before current stage {1:?}")]
    LaterStage(String, String),
    /// A source that is not there.
    #[error(
        "{instruction} failed: file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"
    )]
    SourceMissing {
        /// COPY or ADD.
        instruction: &'static str,
        /// The source.
        path: String,
    },
    /// The same, as BuildKit says it, whose cache is keyed by the files' checksums.
    #[error("failed to compute cache key: failed to calculate checksum of ref context: {0:?}: not found")]
    ChecksumMissing(String),
    /// A source that would leave the context.
    #[error("{instruction} failed: forbidden path outside the build context: {path} ()")]
    OutsideContext {
        /// COPY or ADD.
        instruction: &'static str,
        /// The source.
        path: String,
    },
    /// Patterns that match nothing.
    #[error("{0} failed: no source files were specified")]
    NoSources(&'static str),
    /// Several sources and no directory.
    #[error("When using {0} with more than one source file, the destination must be a directory and end with a /")]
    DestinationNotDirectory(&'static str),
    /// A file where a directory should be, or the other way round.
    #[error("cannot copy to non-directory: {0}")]
    NotADirectory(String),
    /// A file over a directory.
    #[error("cannot overwrite directory {0} with a file")]
    IsADirectory(String),
    /// A pattern that is none.
    #[error("invalid pattern {0:?}: syntax error in pattern")]
    Pattern(String),
    /// An exclusion that is none.
    #[error(transparent)]
    Exclude(#[from] dockerfile::ignore::IgnoreError),
    /// `--chmod` that is none.
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    Chmod(String),
    /// `--chown` with an unknown name.
    #[error("unable to convert uid/gid chown string to host mapping: can't find {kind} for {name}")]
    Owner {
        /// `uid` or `gid`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A port that is none.
    #[error(transparent)]
    Port(#[from] dockerfile::PortError),
    /// A signal that Linux does not have.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// Something that is not built yet.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// A command that failed.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Command {
        /// What was run.
        command: String,
        /// How it ended.
        code: i32,
    },
    /// A mount where none can be.
    #[error("invalid mount target {0:?}")]
    MountTarget(String),
    /// The base image is for something else.
    #[error("image {image} is for {actual}, and {wanted} was asked for")]
    Platform {
        /// The image.
        image: String,
        /// What it is for.
        actual: String,
        /// What was asked for.
        wanted: String,
    },
    /// Another stage failed, or the build was cancelled.
    #[error("build cancelled")]
    Stopped,
    /// Which lint rules count cannot be read.
    #[error(transparent)]
    LintChoice(#[from] dockerfile::lint::ChoiceError),
    /// A command asks for more than builds may.
    #[error("{0} is not allowed")]
    NotAllowed(&'static str),
    /// A file from the web is not what it should be.
    #[error("digest mismatch {actual}: {expected}")]
    Checksum {
        /// What it is.
        actual: Digest,
        /// What it should be.
        expected: String,
    },
    /// A checksum that is none.
    #[error("invalid checksum {0:?}: only sha256 is supported")]
    ChecksumForm(String),
    /// A platform that is none.
    #[error("invalid platform {0:?}")]
    PlatformName(String),
    /// `SOURCE_DATE_EPOCH` is no time.
    #[error("invalid SOURCE_DATE_EPOCH: {0}")]
    Epoch(String),
    /// The lint rules are asked to be errors.
    #[error("lint violation found for rules: {0}")]
    Lint(String),
    /// The host could not do its part.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A layer cannot be written.
    #[error("cannot write a layer: {0}")]
    Layer(#[from] snapshots::Error),
    /// Files cannot be read or written.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The image cannot be stored.
    #[error(transparent)]
    Create(#[from] images::CreateError),
    /// A cache from elsewhere knew a step's layer, and it cannot be had.
    #[error("layer {0} of an imported cache cannot be had")]
    LayerGone(DiffId),
    /// The cache cannot be written.
    #[error("cannot store the build cache: {0}")]
    Cache(#[from] durable::RecordError),
}

impl BuildError {
    /// An error while doing something.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> BuildError {
        move |source| BuildError::Io { doing, source }
    }

    /// Whether the request was wrong before anything was built.
    pub fn is_request(&self) -> bool {
        matches!(
            self,
            BuildError::Parse(_) | BuildError::Context(_) | BuildError::DockerfileMissing(_) | BuildError::Target(..)
        )
    }

    /// The exit code of a failed command.
    pub fn code(&self) -> Option<i32> {
        match self {
            BuildError::Command { code, .. } => Some(*code),
            _ => None,
        }
    }
}
