//! Building an image.

use std::collections::BTreeMap;

use super::ContainerSpec;

/// What to build. The context comes as a stream of its own.
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
    /// `--no-cache`
    pub no_cache: bool,
    /// `--platform`
    pub platform: Option<String>,
    /// A name by which the build can be cancelled.
    pub id: Option<String>,
    /// How commands run: network, extra hosts, limits, size of `/dev/shm`. Everything else in it is the build's own.
    pub template: ContainerSpec,
}

/// What a build tells while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
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
    /// The state that the step left.
    State(oci::Digest),
    /// Something that is better known.
    Warning(String),
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
    },
}

/// One step that earlier builds left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildCacheView {
    /// Its key.
    pub id: oci::Digest,
    /// The instruction.
    pub description: String,
    /// Whether it was a command; else files were copied.
    pub is_command: bool,
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

/// What pruning the build cache removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildPruneReport {
    /// The steps.
    pub removed: Vec<oci::Digest>,
    /// Bytes that are free now.
    pub reclaimed_bytes: u64,
}
