//! Builds: crate `builder`, whose blocking calls are made here, over containers, layers and images of this engine.
//!
//! ```text
//! <root>/build/
//!   cache/       what each step left, by what it depended on
//!   contexts/    contexts of builds that run; swept at the start
//!   mounts/      directories of RUN --mount=type=cache
//! ```

mod host;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use builder::{BuildError, Cache, Context, Event};
use oci::Reference;
use tokio::sync::mpsc;

use self::host::BuildHost;
use crate::engine::{Engine, blocking};
use crate::images::{Incoming, InputStream};
use crate::model::{BuildCacheView, BuildEvent, BuildPruneReport, BuildRequest, EngineError, ErrorKind, RemoveOptions};

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
    pub(crate) cache: Arc<Cache>,
    /// Builds that can be cancelled, by the names that their clients gave them.
    running: Mutex<BTreeMap<String, Arc<AtomicBool>>>,
}

impl Builds {
    /// Opens what is in `<root>/build`.
    pub(crate) fn open(root: &Path, snapshotter: &dyn snapshots::Snapshotter) -> Result<Builds, EngineError> {
        let wrong = |error| EngineError::system("cannot open the build cache", error);
        let dir = root.join("build");
        for path in [dir.clone(), dir.join("cache"), dir.join("contexts"), dir.join("mounts")] {
            match durable::create_dir(&path, 0o700) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(wrong(error)),
                _ => {}
            }
        }
        durable::sweep_temporaries(&dir.join("contexts")).map_err(wrong)?;
        let cache = Cache::open(&dir.join("cache"), snapshotter).map_err(wrong)?;
        Ok(Builds { dir, cache: Arc::new(cache), running: Mutex::default() })
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

impl Engine {
    /// Builds an image from the context that arrives on `input`, a tar.
    pub fn build_image(&self, input: InputStream, request: BuildRequest) -> Result<BuildStream, EngineError> {
        let wanted = wanted(&request)?;
        let (sink, stream) = mpsc::channel(EVENT_QUEUE);
        let cancelled = Arc::new(AtomicBool::new(false));
        if let Some(id) = &request.id {
            self.inner.builds.running().insert(id.clone(), Arc::clone(&cancelled));
        }
        let (engine, runtime) = (self.clone(), tokio::runtime::Handle::current());
        tokio::task::spawn_blocking(move || {
            let host = BuildHost {
                engine: engine.clone(),
                runtime,
                template: request.template,
                sink: sink.clone(),
                cancelled,
            };
            let result = engine.build(input, &wanted, &host, &sink);
            if let Some(id) = &request.id {
                engine.inner.builds.running().remove(id);
            }
            engine.grown();
            let last = match result {
                Ok(event) => Ok(event),
                Err(error) => ended(error),
            };
            let _ = sink.blocking_send(last);
        });
        Ok(stream)
    }

    fn build(
        &self,
        input: InputStream,
        wanted: &builder::Request,
        host: &BuildHost,
        sink: &mpsc::Sender<Result<BuildEvent, EngineError>>,
    ) -> Result<BuildEvent, BuildError> {
        let dir = self.inner.builds.dir.join("contexts");
        let mut context = Context::read(Box::new(Incoming::new(input)), &dir)?;
        // While this lives, no layer that was found or made goes away.
        let lease = self.inner.images.lease();
        let mut tell = |event: Event| {
            let _ = sink.blocking_send(Ok(told(event)));
        };
        let parts = (self.inner.snapshotter.as_ref(), self.inner.builds.cache.as_ref());
        let image = builder::build(host, &self.inner.images, parts, (&mut context, &dir), wanted, &mut tell)?;
        drop(lease);
        for tag in &wanted.tags {
            self.tell_image("tag", &image.id.to_string(), &tag.familiar());
        }
        Ok(BuildEvent::Built { image: *image.id.digest(), tags: wanted.tags.iter().map(Reference::familiar).collect() })
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

    /// What earlier builds left.
    pub fn build_cache(&self) -> Vec<BuildCacheView> {
        let used = self.layers_of_images();
        let time = |seconds| jiff::Timestamp::from_second(seconds).unwrap_or_default();
        let view = |(id, entry): (oci::Digest, builder::CacheEntry)| BuildCacheView {
            id,
            is_command: entry.kind == builder::CacheKind::Command,
            in_use: entry.layer.is_some_and(|layer| used.contains(&layer)),
            size_bytes: entry.size_bytes,
            created: time(entry.created_s),
            last_used: time(entry.last_used_s),
            uses: entry.uses,
            description: entry.description,
        };
        self.inner.builds.cache.entries().into_iter().map(view).collect()
    }

    /// Forgets what earlier builds left: with `all` everything, else what no image has.
    pub async fn prune_build_cache(&self, all: bool) -> Result<BuildPruneReport, EngineError> {
        let engine = self.clone();
        blocking(move || {
            let used = engine.layers_of_images();
            let is_used = |layer: &Option<oci::DiffId>| layer.is_some_and(|layer| used.contains(&layer));
            let cache = &engine.inner.builds.cache;
            let pruned = cache
                .prune(|_, entry| all || !is_used(&entry.layer))
                .map_err(|error| EngineError::system("cannot prune the build cache", error))?;
            let layers: Vec<oci::DiffId> = pruned.iter().filter_map(|(_, entry)| entry.layer).collect();
            engine
                .inner
                .images
                .container_gone(&layers)
                .map_err(|error| EngineError::system("cannot remove layers", error))?;
            let freed = pruned.iter().filter(|(_, entry)| !is_used(&entry.layer)).map(|(_, entry)| entry.size_bytes);
            Ok(BuildPruneReport {
                reclaimed_bytes: freed.sum(),
                removed: pruned.into_iter().map(|(key, _)| key).collect(),
            })
        })
        .await
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

fn wanted(request: &BuildRequest) -> Result<builder::Request, EngineError> {
    let mut tags = Vec::new();
    for tag in &request.tags {
        let reference = Reference::parse(tag).map_err(|error| EngineError::invalid(error.to_string()))?;
        if reference.digest().is_some() {
            return Err(EngineError::invalid("build tag cannot contain a digest"));
        }
        let reference = reference.with_default_tag();
        if !tags.contains(&reference) {
            tags.push(reference);
        }
    }
    let platform = request.platform.as_deref().filter(|text| !text.is_empty());
    let platform = platform.map(images::parse_platform).transpose();
    Ok(builder::Request {
        dockerfile: if request.dockerfile.is_empty() { "Dockerfile".to_owned() } else { request.dockerfile.clone() },
        tags,
        target: request.target.clone(),
        arguments: request.arguments.clone(),
        labels: request.labels.clone(),
        use_cache: !request.no_cache,
        platform: platform.map_err(|error| EngineError::invalid(error.to_string()))?,
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

fn told(event: Event) -> BuildEvent {
    match event {
        Event::Step { number, total, text } => BuildEvent::Step { number, total, text },
        Event::Cached => BuildEvent::Cached,
        Event::Running(id) => BuildEvent::Running(id),
        Event::Stdout(bytes) => BuildEvent::Stdout(bytes),
        Event::Stderr(bytes) => BuildEvent::Stderr(bytes),
        Event::Removed(id) => BuildEvent::Removed(id),
        Event::State(digest) => BuildEvent::State(digest),
        Event::Warning(text) => BuildEvent::Warning(text),
    }
}
