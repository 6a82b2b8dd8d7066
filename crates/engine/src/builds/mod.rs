//! Builds: crate `builder`, whose blocking calls are made here, over containers, layers and images of this engine.
//!
//! ```text
//! <root>/build/
//!   cache/       what each step left, by what it depended on
//!   steps/       what each step depended on when it ran last
//!   contexts/    contexts of builds that run; swept at the start
//!   synced/      what clients have sent of their folders
//!   web/         files from the web
//!   mounts/      directories of RUN --mount=type=cache
//! <run>/builds/  what commands see while they run
//! ```

mod cache;
mod caches;
mod export;
mod foreign;
mod git;
mod host;
mod kept;
mod mounts;
mod provenance;
mod sbom;
mod scan;
mod scratch;
mod sources;
mod trees;
mod web;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use builder::{BuildError, Cache, Event, Host, KnownFiles, StepId, SyncedFolders};
use images::Lease;
use oci::image::ImageConfig;
use oci::{ContainerId, Reference};
use tokio::sync::mpsc;

use self::caches::{Caches, Keys};
use self::host::BuildHost;
use self::sources::{Answers, Sources};
use self::web::Web;
use crate::engine::Engine;
use crate::model::attest::Scanner;
use crate::model::build::Wanted;
use crate::model::build_cache::CacheSource;
use crate::model::{BuildEvent, BuildRequest, BuildSource, EngineError, ErrorKind, RemoveOptions};

pub use self::caches::shared_folder;
pub use self::export::BuiltFiles;
pub use self::kept::BuildOutput;
pub use self::trees::{BuiltTree, TreeOptions, write_trees};

/// What a build tells; ends with the build. An error ends it.
pub type BuildStream = mpsc::Receiver<Result<BuildEvent, EngineError>>;

/// Events that may wait for the client.
const EVENT_QUEUE: usize = 256;
/// Marks containers of builds: those that a dead engine left are removed.
pub(crate) const BUILD_LABEL: &str = "org.conex.build";

/// What the engine keeps for builds.
#[derive(Debug)]
pub(crate) struct Builds {
    dir: PathBuf,
    web: PathBuf,
    run: PathBuf,
    pub(crate) cache: Arc<Cache>,
    synced: SyncedFolders,
    known: KnownFiles,
    held: Arc<mounts::HeldCaches>,
    kept: Arc<Mutex<kept::Kept>>,
    /// Builds that can be cancelled, by the names that their clients gave them.
    running: Mutex<BTreeMap<String, Arc<AtomicBool>>>,
    /// Variables that a container's first process gets and that are written nowhere.
    whispered: Mutex<HashMap<ContainerId, Vec<String>>>,
}

/// An image that was built, for one platform, and is not exported. Its layers stay as long as it lives.
#[derive(Debug)]
pub struct BuildResult {
    /// The configuration of its image.
    pub config: ImageConfig,
    attested: Vec<Attested>,
    pub(crate) built: builder::Built,
    caches: Arc<caches::Caches>,
    _lease: Lease,
}

/// Something that is attested about a result.
#[derive(Debug, Clone, PartialEq)]
struct Attested {
    /// What its file is called beside files that were built.
    file: String,
    predicate: images::Predicate,
}

/// What is in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOutline {
    /// The stage that would be built.
    pub target: String,
    /// Each stage: its name and what it begins with.
    pub stages: Vec<(Option<String>, String)>,
    /// Arguments and the values that they would have.
    pub arguments: Vec<(String, Option<String>)>,
}

/// Who runs a build: where it tells of itself, and how it is ended.
#[derive(Debug, Clone, Default)]
pub struct BuildControl {
    cancelled: Arc<AtomicBool>,
}

impl BuildControl {
    /// Ends the build at its next chance.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the build was ended.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// When a build ends before it is done: once nobody wants it any more, or it has failed for one of several platforms.
#[derive(Debug)]
struct Stop {
    cancelled: Arc<AtomicBool>,
    failed: AtomicBool,
}

impl Stop {
    fn of(control: &BuildControl) -> Stop {
        Stop { cancelled: Arc::clone(&control.cancelled), failed: AtomicBool::new(false) }
    }

    fn is_wanted(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed)
    }
}

/// Whispered variables, forgotten when this is dropped.
pub(super) struct Whisper<'a>(&'a Builds, ContainerId);

impl Drop for Whisper<'_> {
    fn drop(&mut self) {
        self.0.whispered.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// What a client wants to have said about its image, and how it asked.
struct Asked {
    attests: crate::model::attest::Attests,
    options: BTreeMap<String, String>,
    id: String,
}

/// So many steps of one platform are counted before those of the next.
const STEPS_OF_PLATFORM: u32 = 1 << 20;

impl Builds {
    /// Opens what is in `<root>/build`.
    pub(crate) fn open(
        root: &Path,
        run: &Path,
        snapshotter: &dyn snapshots::Snapshotter,
    ) -> Result<Builds, EngineError> {
        let wrong = |error| EngineError::system("cannot open the build cache", error);
        let (dir, run) = (root.join("build"), run.join("builds"));
        let parts = ["cache", "steps", "contexts", "synced", "web", "mounts"].map(|name| dir.join(name));
        for path in [dir.clone(), run.clone()].iter().chain(&parts) {
            match durable::create_dir(path, 0o700) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(wrong(error)),
                _ => {}
            }
        }
        mounts::sweep(&run);
        sweep_contexts(&dir.join("contexts"));
        git::sweep(&dir.join("contexts"));
        durable::sweep_temporaries(&dir.join("web")).map_err(wrong)?;
        cache::sweep_mounts(&dir.join("mounts"));
        let cache = Cache::open(&dir.join("cache"), &dir.join("steps"), snapshotter).map_err(wrong)?;
        Ok(Builds {
            web: dir.join("web"),
            synced: SyncedFolders::open(&dir.join("synced")).map_err(wrong)?,
            known: KnownFiles::default(),
            held: Arc::default(),
            kept: Arc::default(),
            run,
            cache: Arc::new(cache),
            running: Mutex::default(),
            whispered: Mutex::default(),
            dir,
        })
    }

    /// Tells a container's first process variables, and nobody else.
    pub(super) fn whisper(&self, id: &ContainerId, variables: Vec<String>) -> Whisper<'_> {
        if !variables.is_empty() {
            self.whispered.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), variables);
        }
        Whisper(self, id.clone())
    }

    /// What a container's first process is told beyond its record.
    pub(crate) fn whispered(&self, id: &ContainerId) -> Vec<String> {
        self.whispered.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().unwrap_or_default()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<AtomicBool>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a build's containers have in an image's place: it is the id of no image, because no configuration begins so.
pub(crate) fn build_id(layers: &[oci::DiffId]) -> images::ImageId {
    images::ImageId::of_config(format!("build {layers:?}").as_bytes())
}

/// Whether a container with these layers is one of a build.
pub(crate) fn is_of_build(image: &images::ImageId, layers: &[oci::DiffId]) -> bool {
    *image == build_id(layers)
}

/// Removes what builds of a dead engine were reading.
fn sweep_contexts(dir: &Path) {
    for file in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = file.path();
        let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    }
}

impl Engine {
    /// Builds an image and gives it its names, telling how it goes.
    pub fn build_image(&self, source: BuildSource, request: BuildRequest) -> Result<BuildStream, EngineError> {
        let (sink, stream) = mpsc::channel(EVENT_QUEUE);
        let control = BuildControl::default();
        let tags = parse_tags(&request.tags)?;
        let id = request.id.clone();
        if let Some(id) = &id {
            self.inner.builds.running().insert(id.clone(), Arc::clone(&control.cancelled));
        }
        let (engine, runtime) = (self.clone(), tokio::runtime::Handle::current());
        let (cache_to, wanted) = (request.cache_to.clone(), request.wanted);
        tokio::task::spawn_blocking(move || {
            let tell = |event: Event| {
                if sink.blocking_send(Ok(BuildEvent::Happens(event))).is_err() {
                    control.cancel();
                }
            };
            let result = engine.build_blocking(source, request, &runtime, &control, &tell);
            let result = result.and_then(|results| {
                let (image, tags) = match wanted {
                    Wanted::Kept => (results[0].image(), Vec::new()),
                    Wanted::Image | Wanted::Both => (engine.name_build(&results, &tags)?, tags),
                };
                engine.export_caches(&results, &cache_to, &tell)?;
                let kept = (wanted != Wanted::Image).then(|| engine.keep_build(results, &runtime));
                Ok(BuildEvent::Built { image, tags: tags.iter().map(Reference::familiar).collect(), kept })
            });
            if let Some(id) = &id {
                engine.inner.builds.running().remove(id);
            }
            let _ = sink.blocking_send(result.or_else(ended));
        });
        Ok(stream)
    }

    /// Builds, from a thread that may block.
    pub fn build_here(
        &self,
        source: BuildSource,
        request: BuildRequest,
        runtime: &tokio::runtime::Handle,
        control: &BuildControl,
        tell: builder::Sink<'_>,
    ) -> Result<Vec<Arc<BuildResult>>, EngineError> {
        self.build_blocking(source, request, runtime, control, tell).map_err(|error| match error {
            // In BuildKit's words.
            BuildError::Command { command, code } => EngineError::new(
                ErrorKind::System,
                format!("process {command:?} did not complete successfully: exit code: {code}"),
            ),
            error => match ended(error) {
                Err(error) => error,
                Ok(_) => EngineError::new(ErrorKind::System, "the build ended without a result"),
            },
        })
    }

    fn build_blocking(
        &self,
        source: BuildSource,
        request: BuildRequest,
        runtime: &tokio::runtime::Handle,
        control: &BuildControl,
        tell: builder::Sink<'_>,
    ) -> Result<Vec<Arc<BuildResult>>, BuildError> {
        let platforms = platforms(request.platform.as_deref())?;
        let asked = Asked {
            attests: request.attests.clone(),
            options: request.options.clone(),
            id: request.id.clone().unwrap_or_default(),
        };
        let (host, wanted) = self.host(source, request, runtime, control)?;
        let several = platforms.len() > 1;
        let of_platform = |(number, platform): (usize, Option<oci::image::Platform>)| {
            let prefix = platform.as_ref().filter(|_| several).map(images::platform_name).unwrap_or_default();
            let first_step = StepId(number as u32 * STEPS_OF_PLATFORM);
            builder::Request { platform, prefix, first_step, ..wanted.clone() }
        };
        let all: Vec<builder::Request> = platforms.into_iter().enumerate().map(of_platform).collect();
        let build = |wanted: &builder::Request| self.build_one(&host, wanted, &asked, tell).map(Arc::new);
        // Docker's classic stream tells of one step after the other.
        if !several || wanted.dialect == builder::Dialect::Classic {
            return all.iter().map(build).collect();
        }
        side_by_side(&all, &host.stop.failed, build)
    }

    fn build_one(
        &self,
        host: &BuildHost,
        wanted: &builder::Request,
        asked: &Asked,
        tell: builder::Sink<'_>,
    ) -> Result<BuildResult, BuildError> {
        let builds = &self.inner.builds;
        // While this lives, no layer that was found or made goes away.
        let lease = self.inner.images.lease();
        let begun = jiff::Timestamp::now();
        let parts = (self.inner.snapshotter.as_ref(), builds.cache.as_ref());
        let built = builder::build(host, parts, &builds.dir.join("contexts"), wanted, tell);
        // The cache of a build that failed has grown as well.
        self.grown();
        host.remember_files();
        let built = built.inspect_err(|_| host.caches.doubt())?;
        let (config, caches) = (built.config.clone(), Arc::clone(&host.caches));
        let mut result = BuildResult { config, attested: Vec::new(), built, caches, _lease: lease };
        result.attested = self.attest(host, &result, (wanted, asked, begun), tell)?;
        Ok(result)
    }

    /// What is said about an image that was built.
    fn attest(
        &self,
        host: &BuildHost,
        result: &BuildResult,
        (wanted, asked, begun): (&builder::Request, &Asked, jiff::Timestamp),
        tell: builder::Sink<'_>,
    ) -> Result<Vec<Attested>, builder::HostError> {
        let mut attested = Vec::new();
        let ended = jiff::Timestamp::now();
        let one = |file: &str, kind: &str, value| Attested {
            file: file.to_owned(),
            predicate: images::Predicate { kind: kind.to_owned(), value },
        };
        match &asked.attests.sbom {
            None => {}
            Some(Scanner::BuiltIn) => {
                let ingredients = result.built.ingredients.iter();
                let ingredients = ingredients.map(|one| (scan::sbom_name(&one.name), &one.layers));
                for (name, layers) in
                    [("sbom".to_owned(), &result.config.rootfs.diff_ids)].into_iter().chain(ingredients)
                {
                    let value = sbom::predicate(host.view(layers)?.as_fd(), &wanted.dockerfile, ended);
                    attested.push(one(&format!("{name}.spdx.json"), sbom::SPDX, value));
                }
            }
            Some(Scanner::Image(name)) => {
                let step = StepId(wanted.first_step.0 + STEPS_OF_PLATFORM - 1);
                attested.extend(scan::run(host, name, result, (step, tell))?);
            }
        }
        if let Some(request) = &asked.attests.provenance {
            let story = provenance::Story {
                id: &asked.id,
                dockerfile: &wanted.dockerfile,
                options: &asked.options,
                begun,
                ended,
                built: &result.built,
            };
            let value = provenance::predicate(&story, request);
            attested.push(one("provenance.json", provenance::PROVENANCE, value));
        }
        Ok(attested)
    }

    /// The engine as this build sees it, and what is to be built.
    fn host(
        &self,
        source: BuildSource,
        request: BuildRequest,
        runtime: &tokio::runtime::Handle,
        control: &BuildControl,
    ) -> Result<(BuildHost, builder::Request), BuildError> {
        let mut wanted = wanted(&request).map_err(|error| builder::HostError(error.message().to_owned()))?;
        let builds = &self.inner.builds;
        if matches!(source, BuildSource::Tar(_) | BuildSource::Remote { client: None, .. }) {
            wanted.dialect = builder::Dialect::Classic;
        }
        let client = match &source {
            BuildSource::Client(client) => Some(Arc::clone(client)),
            BuildSource::Remote { client, .. } => client.clone(),
            BuildSource::Tar(_) | BuildSource::Folder(_) => None,
        };
        let stop = Stop::of(control);
        let web = Web { client: self.inner.registries.client(), runtime, dir: &builds.web, stop: &stop };
        let answers = Answers { secrets: request.secrets, agents: request.agents, client: client.clone() };
        let sources = Sources::open(source, builds, &web, answers.clone())?;
        wanted.identity =
            format!("{}\n{}\n{}", sources.identity(), wanted.dockerfile, wanted.target.clone().unwrap_or_default());
        // As in Docker an image that is not here is passed over, and so is one that the image policy does not admit.
        let is_admitted = |image: &Arc<images::Image>| self.inner.is_admitted(image);
        let here = |names: &Vec<String>| {
            names.iter().filter_map(|name| self.resolve_image(name).ok()).filter(is_admitted).collect()
        };
        let like: Option<Vec<Arc<images::Image>>> = request.like.as_ref().map(here);
        let mut cache_from = request.cache_from;
        for image in like.iter().flatten().filter(|image| image.config.build_cache.is_some()) {
            cache_from.extend(image.tags.first().cloned().map(CacheSource::Registry));
        }
        wanted.caches = cache_from.iter().map(CacheSource::title).collect();
        wanted.like = like;
        let keys = Keys { given: request.credentials, client };
        let host = BuildHost {
            engine: self.clone(),
            runtime: runtime.clone(),
            template: request.template,
            sources,
            dockerfiles: Mutex::default(),
            contexts: builder::Single::default(),
            loaded: Mutex::default(),
            answers,
            caches: Arc::new(Caches::new(self, runtime, cache_from, keys)),
            pull: request.pull,
            keep_containers: request.keep_containers,
            stop,
        };
        Ok((host, wanted))
    }

    /// Reads the Dockerfile of a build and checks it, and builds nothing; blocks.
    pub fn check_build(
        &self,
        source: BuildSource,
        request: BuildRequest,
        runtime: &tokio::runtime::Handle,
    ) -> Result<builder::Linted, EngineError> {
        self.with_host(source, request, runtime, |host, wanted| {
            let read = builder::read(host, wanted)?;
            let base = |name: &str| self.resolve_image(name).ok();
            builder::lint(&read.dockerfile, wanted, &read.ignore, &base)
        })
    }

    /// Reads the Dockerfile of a build and says what is in it; blocks.
    pub fn outline_build(
        &self,
        source: BuildSource,
        request: BuildRequest,
        runtime: &tokio::runtime::Handle,
    ) -> Result<BuildOutline, EngineError> {
        self.with_host(source, request, runtime, |host, wanted| {
            let dockerfile = builder::read(host, wanted)?.dockerfile;
            let stages: Vec<(Option<String>, String)> =
                dockerfile.stages.iter().map(|stage| (stage.name.clone(), stage.base.clone())).collect();
            let last = stages.last().and_then(|(name, _)| name.clone()).unwrap_or_else(|| "default".to_owned());
            let own = |argument: &dockerfile::Argument| {
                let given = wanted.arguments.get(&argument.name).cloned();
                (argument.name.clone(), given.or_else(|| argument.default.clone()))
            };
            let of_stages = dockerfile.stages.iter().flat_map(|stage| &stage.steps);
            let of_stages = of_stages.filter_map(|step| match &step.instruction {
                dockerfile::Instruction::Arg(arguments) => Some(arguments),
                _ => None,
            });
            let arguments = dockerfile.arguments.iter().chain(of_stages.flatten()).map(own).collect();
            Ok(BuildOutline { target: wanted.target.clone().unwrap_or(last), stages, arguments })
        })
    }

    fn with_host<T>(
        &self,
        source: BuildSource,
        request: BuildRequest,
        runtime: &tokio::runtime::Handle,
        ask: impl FnOnce(&BuildHost, &builder::Request) -> Result<T, BuildError>,
    ) -> Result<T, EngineError> {
        let control = BuildControl::default();
        let prepared = self.host(source, request, runtime, &control);
        prepared.and_then(|(host, wanted)| ask(&host, &wanted)).map_err(|error| match ended(error) {
            Err(error) => error,
            Ok(_) => EngineError::new(ErrorKind::System, "the Dockerfile cannot be read"),
        })
    }

    /// Ends a build at its next chance.
    pub fn cancel_build(&self, id: &str) -> Result<(), EngineError> {
        match self.inner.builds.running().get(id) {
            Some(cancelled) => {
                cancelled.store(true, Ordering::Relaxed);
                Ok(())
            }
            None => Err(EngineError::not_found(format!("no build {id} is running"))),
        }
    }

    fn layers_of_images(&self) -> std::collections::BTreeSet<oci::DiffId> {
        self.inner.images.catalogue().images().flat_map(|image| image.layers.iter().copied()).collect()
    }

    /// Removes containers of builds whose engine died.
    pub(crate) async fn remove_build_containers(&self) {
        let all = self.inner.index.all();
        let left = all.iter().filter(|handle| handle.record().spec.labels.contains_key(BUILD_LABEL));
        for handle in left {
            let options = RemoveOptions { volumes: true, force: true, link: false };
            if let Err(error) = self.remove_container(handle.id.as_str(), options).await {
                tracing::warn!("cannot remove container {} of a build: {error}", handle.id);
            }
        }
    }
}

/// Names as an image gets them, each once.
fn parse_tags(names: &[String]) -> Result<Vec<Reference>, EngineError> {
    let mut tags = Vec::new();
    for name in names {
        let reference = Reference::parse(name).map_err(|error| EngineError::invalid(error.to_string()))?;
        if reference.digest().is_some() {
            return Err(EngineError::invalid("build tag cannot contain a digest"));
        }
        let reference = reference.with_default_tag();
        if !tags.contains(&reference) {
            tags.push(reference);
        }
    }
    Ok(tags)
}

/// Builds for all platforms at once. The first that fails ends the others, which look at `failed`, and is the error of all.
fn side_by_side(
    all: &[builder::Request],
    failed: &AtomicBool,
    build: impl Fn(&builder::Request) -> Result<Arc<BuildResult>, BuildError> + Sync,
) -> Result<Vec<Arc<BuildResult>>, BuildError> {
    let first_error = Mutex::new(None);
    let build = |wanted: &builder::Request| {
        build(wanted).map_err(|error| {
            // First: those whom it ends fail as well.
            first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            failed.store(true, Ordering::Relaxed);
        })
    };
    let build = &build;
    let results: Vec<Result<_, ()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = all.iter().map(|wanted| scope.spawn(move || build(wanted))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(()))).collect()
    });
    match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        // A thread without a result has panicked.
        None => results.into_iter().collect::<Result<_, ()>>().map_err(|()| BuildError::Stopped),
    }
}

/// What is built for; nothing in the place of a platform means this machine's.
fn platforms(text: Option<&str>) -> Result<Vec<Option<oci::image::Platform>>, builder::HostError> {
    let words = text.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
    let parsed = words.map(|word| images::parse_platform(word).map_err(|error| builder::HostError(error.to_string())));
    let mut platforms: Vec<Option<oci::image::Platform>> = Vec::new();
    for platform in parsed {
        let platform = Some(platform?);
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(if platforms.is_empty() { vec![None] } else { platforms })
}

fn wanted(request: &BuildRequest) -> Result<builder::Request, EngineError> {
    let tags = parse_tags(&request.tags)?;
    Ok(builder::Request {
        dockerfile: if request.dockerfile.is_empty() { "Dockerfile".to_owned() } else { request.dockerfile.clone() },
        tags,
        target: request.target.clone(),
        arguments: request.arguments.clone(),
        labels: request.labels.clone(),
        reuse: request.reuse.clone(),
        platform: None,
        prefix: String::new(),
        first_step: StepId::default(),
        contexts: request.contexts.clone(),
        allowed: builder::Allowed { host_network: request.host_network },
        caches: Vec::new(),
        like: None,
        inline_cache: request.inline_cache,
        scan_ingredients: request.attests.sbom.is_some(),
        dialect: builder::Dialect::default(),
        identity: String::new(),
    })
}

/// A failed command is an end of the build like others, with a code.
fn ended(error: BuildError) -> Result<BuildEvent, EngineError> {
    if let Some(code) = error.code() {
        return Ok(BuildEvent::Failed { code, message: error.to_string() });
    }
    let kind = if error.is_request() { ErrorKind::InvalidParameter } else { ErrorKind::System };
    Err(EngineError::new(kind, crate::model::chain(&error)))
}
