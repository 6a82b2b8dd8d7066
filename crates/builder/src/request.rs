//! What is to be built.

use std::collections::BTreeMap;
use std::sync::Arc;

use images::Image;
use oci::Reference;
use oci::image::Platform;

use crate::event::StepId;

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Path of the Dockerfile in its context.
    pub dockerfile: String,
    /// The names that the image gets.
    pub tags: Vec<Reference>,
    /// Which stage; the last one when none.
    pub target: Option<String>,
    /// `--build-arg`
    pub arguments: BTreeMap<String, String>,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// What of earlier builds is taken.
    pub reuse: Reuse,
    /// What it is for, if not for this machine.
    pub platform: Option<Platform>,
    /// Named contexts: what `FROM NAME`, `COPY --from=NAME` and `RUN --mount=from=NAME` mean, by name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// What `RUN` may ask for beyond what every build may.
    pub allowed: Allowed,
    /// What stands before the titles of its steps: the platform, where it is one of several builds.
    pub prefix: String,
    /// Where its steps begin to be counted.
    pub first_step: StepId,
    /// Caches from elsewhere, by what reading them is called.
    pub caches: Vec<String>,
    /// Images that are all that earlier builds may be taken from, as Docker's classic builder has it; a step is taken from one of them
    /// where everything up to it is the same.
    pub like: Option<Vec<Arc<Image>>>,
    /// Whether the image's configuration tells of the build's steps, for who takes it as a cache.
    pub inline_cache: bool,
    /// Whether the stages and the context that the Dockerfile names for it are kept to be looked at, since the image's packages are listed.
    pub scan_ingredients: bool,
    /// Whose rules hold where Docker's two builders differ.
    pub dialect: Dialect,
    /// What a build is compared with when steps are explained: the same for builds of one folder.
    pub identity: String,
}

/// Whose rules and words hold where Docker's two builders differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// BuildKit's: patterns may match nothing, and nothing lies above the context.
    #[default]
    BuildKit,
    /// The classic builder's: both are errors.
    Classic,
}

/// What of earlier builds is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reuse {
    /// Everything that fits.
    #[default]
    All,
    /// Nothing.
    Nothing,
    /// Nothing for these stages.
    NotFor(Vec<String>),
}

impl Reuse {
    /// Whether the stage of this name, or number, may take what is there.
    pub(crate) fn allows(&self, stage: &str) -> bool {
        match self {
            Reuse::All => true,
            Reuse::Nothing => false,
            Reuse::NotFor(stages) => !stages.iter().any(|name| name.eq_ignore_ascii_case(stage)),
        }
    }
}

/// What a name means that is no stage's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// An image.
    Image(String),
    /// A folder of the client's, by the name under which the client serves it.
    Client(String),
    /// A repository or an archive elsewhere.
    Remote(String),
}

/// What a build may do that not every build may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `RUN --network=host`
    pub host_network: bool,
}
