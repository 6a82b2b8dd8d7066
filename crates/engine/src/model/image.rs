//! Images as readers see them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use oci::Digest;
use oci::image::ImageConfig;

/// One image of a list.
#[derive(Debug, Clone)]
pub struct ImageSummary {
    /// Its id.
    pub id: Digest,
    /// Names with tags, in familiar form.
    pub repo_tags: Vec<String>,
    /// Names with digests, in familiar form.
    pub repo_digests: Vec<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Bytes of its layers.
    pub size_bytes: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Containers that use it.
    pub containers: usize,
    /// The image that it was built from here.
    pub parent: Option<Digest>,
    /// Bytes of those of its layers that other images have too, where that was asked for.
    pub shared_bytes: Option<u64>,
    /// When it was used last; coming here is a use.
    pub last_used: Timestamp,
    /// What pins it, in words.
    pub pins: Vec<String>,
    /// What its name means in a registry.
    pub descriptor: oci::image::Descriptor,
    /// Its manifests, where they were asked for.
    pub manifests: Vec<ManifestView>,
}

/// A manifest of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestView {
    /// The manifest.
    pub entry: images::ManifestEntry,
    /// What it takes here beyond its content: the layers of an image.
    pub unpacked_bytes: u64,
    /// The containers that were made from it.
    pub containers: Vec<String>,
}

/// One image whole.
#[derive(Debug, Clone)]
pub struct ImageView {
    /// What a list shows.
    pub summary: ImageSummary,
    /// Its configuration.
    pub config: ImageConfig,
    /// When its last tag was given.
    pub last_tagged: Option<Timestamp>,
    /// The storage driver's name.
    pub driver: String,
    /// Where it came from, the newest first.
    pub origins: Vec<images::Origin>,
    /// Its manifests, where they were asked for.
    pub manifests: Vec<ManifestView>,
    /// What is attested about it, as far as it is here.
    pub attestations: Vec<AttestationView>,
    /// What the image policy says about it, where there is one.
    pub policy: Option<PolicyView>,
}

/// What the image policy says about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyView {
    /// Whether it may run.
    pub allowed: bool,
    /// The rule that decided.
    pub rule: String,
    /// The fingerprint of the key that signed it, where that decided.
    pub signed_by: Option<Digest>,
    /// Why it may not.
    pub reason: String,
}

/// What an inspection is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InspectQuery {
    /// `platform`: the image must be for it.
    pub platform: Option<String>,
    /// `manifests`: whether to tell them.
    pub manifests: bool,
}

/// A manifest of statements about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationView {
    /// Its digest.
    pub manifest: Digest,
    /// The statements.
    pub statements: Vec<AttestationStatement>,
}

/// One statement about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationStatement {
    /// What kind of statement, `https://slsa.dev/provenance/v0.2`; may be empty.
    pub predicate_type: String,
    /// What the blob is.
    pub media_type: String,
    /// The statement.
    pub blob: Digest,
    /// Its size.
    pub size_bytes: u64,
}

/// One entry of an image's history, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryView {
    /// The image's id for the newest entry; none is `<missing>`.
    pub id: Option<Digest>,
    /// When.
    pub created: Option<Timestamp>,
    /// By which command.
    pub created_by: String,
    /// Tags of that image.
    pub tags: Vec<String>,
    /// Bytes of its layer.
    pub size_bytes: u64,
    /// The comment.
    pub comment: String,
}

/// One line of what `rmi` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRemoval {
    /// A name is gone.
    Untagged(String),
    /// An image or layer is gone.
    Deleted(String),
}

/// What `image prune` did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImagePruneReport {
    /// Names and images that are gone.
    pub removed: Vec<ImageRemoval>,
    /// Bytes that are free again.
    pub reclaimed_bytes: u64,
    /// Steps of the build cache that are gone.
    pub cached: Vec<Digest>,
}

/// What [`verify_images`](crate::Engine::verify_images) found of one image or layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageCheck {
    /// Whether it is an image's configuration or a layer.
    pub kind: CheckedKind,
    /// The image's id or the layer's diff-id.
    pub digest: Digest,
    /// The images that need it, by name where they have one.
    pub images: Vec<String>,
    /// What was found.
    pub verdict: CheckVerdict,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckedKind {
    /// An image's configuration.
    Image,
    /// A layer's tar and index.
    Layer,
}

/// How it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckVerdict {
    /// As it was stored.
    Whole,
    /// Not so, and so again: what was wrong.
    Repaired(String),
    /// Not so: what is wrong.
    Damaged(String),
}

/// How an import names and changes what it makes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportRequest {
    /// The name with tag; none imports without a name.
    pub reference: Option<String>,
    /// The history's comment.
    pub message: String,
    /// Dockerfile instructions to apply.
    pub changes: Vec<String>,
    /// `platform`
    pub platform: Option<String>,
}

/// What to fetch from a registry.
#[derive(Debug, Clone, Default)]
pub struct PullRequest {
    /// The name, which may have a tag or a digest.
    pub image: String,
    /// A tag or a digest; where there is none in the name either, all tags are meant.
    pub tag: String,
    /// `platform`
    pub platform: Option<String>,
    /// Who asks.
    pub credentials: registry::Credentials,
    /// Whether [`ImageProgress::Flow`] is told, which Docker's clients do not expect.
    pub flows: FlowReports,
}

/// Whether a pull tells how fast layers come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlowReports {
    /// It does not.
    #[default]
    Untold,
    /// It does, for each layer and for all together.
    Told,
}

/// How fast a layer came, or all together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullFlow {
    /// The short id of the layer; none for all together.
    pub layer: Option<String>,
    /// Bytes that came.
    pub fetched_bytes: u64,
    /// What they are uncompressed.
    pub tar_bytes: u64,
    /// How long it took.
    pub elapsed: std::time::Duration,
    /// What kept it from being faster.
    pub limit: FlowLimit,
}

/// What is waited for most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowLimit {
    /// For bytes to come.
    Network,
    /// For them to be hashed and inflated.
    Processor,
    /// For them to be written.
    Disk,
}

/// What to send to a registry.
#[derive(Debug, Clone, Default)]
pub struct PushRequest {
    /// The name.
    pub image: String,
    /// The tag; where there is none in the name either, all tags are meant.
    pub tag: String,
    /// `platform`
    pub platform: Option<String>,
    /// Who asks.
    pub credentials: registry::Credentials,
}

/// What a registry has under a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// The manifest or index.
    pub descriptor: oci::image::Descriptor,
    /// What it is for.
    pub platforms: Vec<oci::image::Platform>,
}

/// Which repositories to look for.
#[derive(Debug, Clone, Default)]
pub struct SearchRequest {
    /// What to look for, after a registry's name where it is not Docker Hub.
    pub term: String,
    /// How many.
    pub limit: u32,
    /// Only those that Docker keeps, or only others.
    pub is_official: Option<bool>,
    /// Only those that a robot builds, or only others.
    pub is_automated: Option<bool>,
    /// At least so many stars.
    pub stars: i64,
    /// Who asks.
    pub credentials: registry::Credentials,
}

/// What a load, an import, a pull or a push tells while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageProgress {
    /// A layer is being read.
    Layer {
        /// The short id of the layer or a word for it.
        id: String,
        /// What happens to it.
        status: String,
        /// Bytes done.
        current: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
    },
    /// What comes next, under the name of the whole.
    Heading {
        /// The tag or digest.
        id: String,
        /// What is done.
        status: String,
    },
    /// A layer has come to another step.
    Step {
        /// The short id of the layer.
        id: String,
        /// Which step.
        status: String,
    },
    /// A line about the whole.
    Status(String),
    /// A tag has been pushed.
    Pushed {
        /// Which.
        tag: String,
        /// What it names.
        digest: Digest,
        /// The size of that manifest.
        size_bytes: u64,
    },
    /// How fast something came.
    Flow(PullFlow),
    /// A remark, as a line without its end.
    Note(String),
    /// `Loaded image: x:y`
    LoadedReference(String),
    /// `Loaded image ID: sha256:…`
    LoadedId(Digest),
    /// An import's result.
    Imported(Digest),
}
