//! A build's commands as containers: with all their defences, without a log, and gone when they have ended.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use builder::{Event, Host, HostError, Job, JobMount, JobMountKind, JobNetwork, Outcome, Sharing};
use bytes::Bytes;
use images::Image;
use oci::DiffId;
use oci::image::ImageConfig;
use snapshots::Selection;
use tokio::sync::mpsc;

use super::BUILD_LABEL;
use crate::engine::Engine;
use crate::model::{
    Access, AttachRequest, AttachTarget, Bind, BindSource, BuildEvent, ContainerSpec, CopyUp, CreateRequest,
    EngineError, ErrorKind, LogConfig, LogDriver, NetworkMode, PullRequest, RemoveOptions, WaitCondition,
};

/// How often a silent command's client is looked for.
const CLIENT_CHECK: Duration = Duration::from_millis(500);
/// A frame of output begins with its stream and its length.
const FRAME_HEADER: usize = 8;
/// The largest frame that a monitor writes is far smaller.
const FRAME_MAX: usize = 16 << 20;

/// The engine as a build sees it.
pub(super) struct BuildHost {
    pub(super) engine: Engine,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) template: ContainerSpec,
    pub(super) sink: mpsc::Sender<Result<BuildEvent, EngineError>>,
    pub(super) cancelled: Arc<AtomicBool>,
}

impl std::fmt::Debug for BuildHost {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BuildHost").finish_non_exhaustive()
    }
}

impl Host for BuildHost {
    fn image(&self, name: &str) -> Result<Arc<Image>, HostError> {
        let image = match self.runtime.block_on(self.engine.image_for_create(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.runtime.block_on(self.pull(name)).map_err(told)?;
                self.engine.resolve_image(name).map_err(told)?
            }
            result => result.map_err(told)?,
        };
        self.engine.inner.check_policy(&image, name).map_err(told)?;
        self.engine.inner.image_used(image.id.digest());
        Ok(image)
    }

    fn view(&self, layers: &[DiffId]) -> Result<OwnedFd, HostError> {
        let lower = self.engine.inner.snapshotter.lower_dirs(layers).map_err(failed)?;
        crate::rootfs::view(&lower).map_err(failed)
    }

    fn run(&self, job: &Job, events: &mut dyn FnMut(Event)) -> Result<Outcome, HostError> {
        let caches = Caches::take(self.engine.inner.options.root.join("build/mounts"), &job.mounts)?;
        let spec = self.spec(job, &caches)?;
        let created = self.runtime.block_on(self.engine.create_from(&layers_as_image(job), create_request(spec)));
        let id = created.map_err(told)?.id;
        events(Event::Running(id.short().to_owned()));
        let outcome = self.run_container(id.as_str(), events);
        let options = RemoveOptions { volumes: true, force: true, link: false };
        let removed = self.runtime.block_on(self.engine.remove_container(id.as_str(), options));
        let outcome = outcome?;
        removed.map_err(told)?;
        events(Event::Removed(id.short().to_owned()));
        Ok(outcome)
    }

    fn cancelled(&self) -> bool {
        self.sink.is_closed() || self.cancelled.load(Ordering::Relaxed)
    }
}

impl BuildHost {
    /// Fetches a base image that is not here, as `docker pull` without credentials would.
    async fn pull(&self, name: &str) -> Result<(), EngineError> {
        let reference = oci::Reference::parse(name).map_err(|error| EngineError::invalid(error.to_string()))?;
        // A name alone would mean all its tags.
        let image = reference.with_default_tag().canonical();
        let request = PullRequest { image, ..PullRequest::default() };
        let mut messages = self.engine.pull_image(request)?;
        while let Some(message) = messages.recv().await {
            message?;
        }
        Ok(())
    }

    fn spec(&self, job: &Job, caches: &Caches) -> Result<ContainerSpec, HostError> {
        let network = match job.network {
            JobNetwork::Default => self.template.network.clone(),
            JobNetwork::None => NetworkMode::None,
            JobNetwork::Host if self.template.network == NetworkMode::Host => NetworkMode::Host,
            JobNetwork::Host => {
                return Err(HostError("RUN --network=host needs a build with the host's network".to_owned()));
            }
        };
        let tmpfs = job.mounts.iter().filter_map(|mount| match &mount.kind {
            JobMountKind::Tmpfs { size_bytes } => {
                let size = size_bytes.map(|bytes| format!("size={bytes}")).unwrap_or_default();
                Some((mount.target.clone(), size))
            }
            JobMountKind::Cache { .. } => None,
        });
        Ok(ContainerSpec {
            image: "build".to_owned(),
            user: job.user.clone(),
            attach_stdout: true,
            attach_stderr: true,
            env: job.environment.clone(),
            command: Some(job.arguments.clone()),
            working_dir: job.working_dir.clone(),
            labels: BTreeMap::from([(BUILD_LABEL.to_owned(), String::new())]),
            binds: caches.binds.clone(),
            tmpfs: tmpfs.collect(),
            log: LogConfig { driver: LogDriver::None, options: BTreeMap::new() },
            network,
            ..self.template.clone()
        })
    }

    fn run_container(&self, id: &str, events: &mut dyn FnMut(Event)) -> Result<Outcome, HostError> {
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let engine = &self.engine;
        let waiter = self.runtime.block_on(async {
            let request = AttachRequest { stdout: true, stderr: true, stream: true, ..AttachRequest::default() };
            let attach = engine.attach_container(id, request).await?;
            attach.connect(AttachTarget { socket: theirs.into(), early_input: Bytes::new() }).await?;
            let waiter = engine.wait_container(id, WaitCondition::NextExit).await?;
            engine.start_container(id).await?;
            Ok::<_, EngineError>(waiter)
        });
        let waiter = waiter.map_err(told)?;
        self.pass_on(&ours, events)?;
        let ended = self.runtime.block_on(waiter.result()).map_err(told)?;
        match ended.exit_code {
            0 => self.keep(id),
            code => Ok(Outcome::Failed(code)),
        }
    }

    /// Hands the command's output on until it ends; stops when nobody waits for the build any more.
    fn pass_on(&self, output: &UnixStream, events: &mut dyn FnMut(Event)) -> Result<(), HostError> {
        output.set_read_timeout(Some(CLIENT_CHECK)).map_err(failed)?;
        let (mut pending, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            match { output }.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(length) => pending.extend_from_slice(&piece[..length]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
            if self.cancelled() {
                return Err(HostError("build cancelled".to_owned()));
            }
            while let Some(event) = next_frame(&mut pending)? {
                events(event);
            }
        }
    }

    /// What the command changed as a layer, without the mount points that the runtime made for itself.
    fn keep(&self, id: &str) -> Result<Outcome, HostError> {
        let inner = &self.engine.inner;
        let record = inner.index.find(id).map_err(told)?.record();
        let changed = crate::containers::changed_files(inner, &record).map_err(told)?;
        if changed.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        let changed = changed.into_iter().map(|change| change.path).collect();
        let upper = inner.container_dir(&record.id).join("upper");
        let layer = inner.images.add_changes(&upper, Selection::Only(changed)).map_err(failed)?;
        Ok(Outcome::Layer(layer))
    }
}

fn next_frame(pending: &mut Vec<u8>) -> Result<Option<Event>, HostError> {
    let Some(header) = pending.get(..FRAME_HEADER) else { return Ok(None) };
    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let is_error = header[0] == 2;
    if length > FRAME_MAX {
        return Err(HostError("the command's monitor wrote a wrong frame".to_owned()));
    }
    if pending.len() < FRAME_HEADER + length {
        return Ok(None);
    }
    let rest = pending.split_off(FRAME_HEADER + length);
    let bytes = std::mem::replace(pending, rest).split_off(FRAME_HEADER);
    Ok(Some(if is_error { Event::Stderr(bytes) } else { Event::Stdout(bytes) }))
}

/// The layers as an image without any configuration: the job says everything.
fn layers_as_image(job: &Job) -> Image {
    Image {
        id: super::build_id(&job.layers),
        config: Arc::new(ImageConfig::default()),
        config_bytes: Arc::from(Vec::new()),
        layers: job.layers.clone(),
        layer_sizes: Vec::new(),
        tags: Vec::new(),
        digests: Vec::new(),
        manifest: None,
        index: None,
        origins: None,
        pins: Vec::new(),
        parent: None,
        created: None,
        loaded: jiff::Timestamp::UNIX_EPOCH,
        last_tagged: None,
    }
}

fn create_request(spec: ContainerSpec) -> CreateRequest {
    CreateRequest { name: None, platform: None, spec }
}

/// Directories that survive builds, with the locks of those that are not shared.
#[derive(Debug)]
struct Caches {
    binds: Vec<Bind>,
    _locks: Vec<durable::Lock>,
}

/// So many builds may each have a private copy of one cache.
const PRIVATE_COPIES: usize = 64;

impl Caches {
    fn take(dir: std::path::PathBuf, mounts: &[JobMount]) -> Result<Caches, HostError> {
        let (mut binds, mut locks) = (Vec::new(), Vec::new());
        for mount in mounts {
            let JobMountKind::Cache { id, sharing, owner } = &mount.kind else { continue };
            let name = match sharing {
                Sharing::Shared => id.clone(),
                Sharing::Locked => {
                    locks.push(durable::Lock::acquire(&dir.join(format!("{id}.lock"))).map_err(failed)?);
                    id.clone()
                }
                Sharing::Private => {
                    let (name, lock) = private(&dir, id)?;
                    locks.push(lock);
                    name
                }
            };
            let path = dir.join(&name);
            make_cache(&path, *owner)?;
            binds.push(bind(&path, mount));
        }
        Ok(Caches { binds, _locks: locks })
    }
}

fn private(dir: &std::path::Path, id: &str) -> Result<(String, durable::Lock), HostError> {
    for copy in 0..PRIVATE_COPIES {
        let name = if copy == 0 { id.to_owned() } else { format!("{id}-{copy}") };
        if let Some(lock) = durable::Lock::try_acquire(&dir.join(format!("{name}.lock"))).map_err(failed)? {
            return Ok((name, lock));
        }
    }
    Err(HostError("too many builds use a private cache at once".to_owned()))
}

fn make_cache(path: &std::path::Path, (mode, uid, gid): (u32, u32, u32)) -> Result<(), HostError> {
    match durable::create_dir(path, mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        result => result.map_err(failed)?,
    }
    let directory = std::fs::File::open(path).map_err(failed)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::fchown(directory.as_fd(), Some(uid), Some(gid)).map_err(failed)?;
    let mode = rustix::fs::Mode::from_raw_mode(mode);
    rustix::fs::fchmod(directory.as_fd(), mode).map_err(failed)
}

fn bind(path: &std::path::Path, mount: &JobMount) -> Bind {
    let source = path.display().to_string();
    let mode = if mount.read_only { "ro" } else { "" };
    Bind {
        text: format!("{source}:{}", mount.target),
        source: BindSource::Host(source),
        target: mount.target.clone(),
        mode: mode.to_owned(),
        access: if mount.read_only { Access::ReadOnly } else { Access::ReadWrite },
        propagation: None,
        copy_up: CopyUp::Never,
    }
}

fn told(error: EngineError) -> HostError {
    HostError(error.message().to_owned())
}

fn failed(error: impl std::error::Error + 'static) -> HostError {
    HostError(crate::model::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole() {
        let mut pending = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x02d".to_vec();
        assert_eq!(next_frame(&mut pending), Ok(Some(Event::Stdout(b"abc".to_vec()))));
        assert_eq!(next_frame(&mut pending), Ok(None), "its second byte is missing");
        pending.push(b'e');
        assert_eq!(next_frame(&mut pending), Ok(Some(Event::Stderr(b"de".to_vec()))));
        assert!(next_frame(&mut vec![1, 0, 0, 0, 255, 255, 255, 255]).is_err());
    }
}
