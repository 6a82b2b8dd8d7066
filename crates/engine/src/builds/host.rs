//! A build's commands as containers: with all their defences, without a log, and gone when they have ended.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use builder::{
    Context, DockerfileText, Download, Event, Host, HostError, Imported, Job, JobNetwork, Outcome, Output, Progress,
    Single, Sink, StepId, Wanted,
};
use bytes::Bytes;
use images::Image;
use oci::DiffId;
use oci::image::{ImageConfig, Platform};
use snapshots::Selection;

use super::caches::Caches;
use super::mounts::{Mounts, Places};
use super::sources::{Answers, Sources};
use super::web::Web;
use super::{BUILD_LABEL, Stop};
use crate::engine::Engine;
use crate::model::{
    AttachRequest, AttachTarget, ContainerSpec, CreateRequest, EngineError, ErrorKind, ImageProgress, LogConfig,
    LogDriver, NetworkMode, PullRequest, RemoveOptions, WaitCondition,
};

/// How often it is looked whether a silent command is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// A frame of output begins with its stream and its length.
const FRAME_HEADER: usize = 8;
/// The largest frame that a monitor writes is far smaller.
const FRAME_MAX: usize = 16 << 20;

/// The engine as a build sees it.
pub(super) struct BuildHost {
    pub(super) engine: Engine,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) template: ContainerSpec,
    pub(super) sources: Sources,
    /// What was read already.
    pub(super) dockerfiles: Mutex<BTreeMap<String, DockerfileText>>,
    pub(super) contexts: Single<String, Arc<Context>>,
    /// All that was read.
    pub(super) loaded: Mutex<Vec<Arc<Context>>>,
    pub(super) answers: Answers,
    pub(super) caches: Arc<Caches>,
    pub(super) pull: bool,
    pub(super) keep_containers: bool,
    pub(super) stop: Stop,
}

impl std::fmt::Debug for BuildHost {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BuildHost").finish_non_exhaustive()
    }
}

impl Host for BuildHost {
    fn dockerfile(&self, path: &str) -> Result<Option<DockerfileText>, HostError> {
        let mut dockerfiles = self.dockerfiles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = dockerfiles.get(path) {
            return Ok(Some(text.clone()));
        }
        let text = self.sources.dockerfile(path)?;
        dockerfiles.extend(text.clone().map(|text| (path.to_owned(), text)));
        Ok(text)
    }

    fn context(&self, wanted: &Wanted<'_>, step: StepId, events: Sink<'_>) -> Result<Arc<Context>, HostError> {
        // Builds for several platforms read the same files.
        self.contexts.get(format!("{wanted:?}"), || {
            let context = self.sources.context(wanted, &self.engine.inner.builds, &self.web(), (step, events))?;
            self.loaded.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&context));
            Ok(context)
        })
    }

    fn image(
        &self,
        name: &str,
        platform: Option<&Platform>,
        step: StepId,
        events: Sink<'_>,
    ) -> Result<Arc<Image>, HostError> {
        let image = self.find(name, platform, step, events)?;
        self.engine.inner.check_policy(&image, name).map_err(told)?;
        self.engine.inner.image_used(image.id.digest());
        Ok(image)
    }

    fn view(&self, layers: &[DiffId]) -> Result<OwnedFd, HostError> {
        let lower = self.engine.inner.snapshotter.lower_dirs(layers).map_err(failed)?;
        crate::rootfs::view(&lower).map_err(failed)
    }

    fn run(&self, job: &Job, step: StepId, events: Sink<'_>, stopped: &dyn Fn() -> bool) -> Result<Outcome, HostError> {
        super::foreign::check(&job.platform)?;
        let builds = &self.engine.inner.builds;
        let (caches, scratch) = (builds.dir.join("mounts"), builds.dir.join("contexts"));
        let places = Places { caches: &caches, held: &builds.held, run: &builds.run, scratch: &scratch, stopped };
        let snapshotter = self.engine.inner.snapshotter.as_ref();
        let mounts = Mounts::prepare(places, snapshotter, &self.answers, (&job.mounts, &job.secrets))?;
        let spec = self.spec(job, &mounts)?;
        let created = self.runtime.block_on(self.engine.create_from(&layers_as_image(job), create_request(spec)));
        let id = created.map_err(told)?.id;
        let _secrets = builds.whisper(&id, mounts.environment.clone());
        events(Event::Running(step, id.short().to_owned()));
        let outcome = self.run_container(id.as_str(), (step, events), stopped);
        if self.keep_containers {
            return outcome;
        }
        let options = RemoveOptions { volumes: true, force: true, link: false };
        let removed = self.runtime.block_on(self.engine.remove_container(id.as_str(), options));
        let outcome = outcome?;
        removed.map_err(told)?;
        events(Event::Removed(step, id.short().to_owned()));
        Ok(outcome)
    }

    fn download(&self, url: &str, step: StepId, events: Sink<'_>) -> Result<Download, HostError> {
        self.web().download(url, &|current, total| {
            let done = total == Some(current);
            events(Event::Progress(step, Progress { name: format!("downloading {url}"), current, total, done }));
        })
    }

    fn clone_repository(&self, url: &str, keep_git_dir: bool) -> Result<Arc<Context>, HostError> {
        let metadata = if keep_git_dir { super::git::Metadata::Kept } else { super::git::Metadata::Dropped };
        let contexts = self.engine.inner.builds.dir.join("contexts");
        let stopped = || self.cancelled();
        let asking = super::git::Asking { contexts: &contexts, answers: &self.answers, stopped: &stopped };
        super::git::clone(url, asking, metadata).map(Arc::new)
    }

    fn import(&self, cache: usize, _: StepId, _: Sink<'_>) -> Result<Imported, HostError> {
        self.caches.import(cache)
    }

    fn can_fetch(&self, layer: &DiffId) -> bool {
        self.caches.has(layer)
    }

    fn fetch(&self, layer: &DiffId, _: StepId, _: Sink<'_>) -> Result<(), HostError> {
        self.caches.fetch(layer)
    }

    fn cancelled(&self) -> bool {
        self.stop.is_wanted()
    }
}

impl BuildHost {
    /// Remembers what was hashed of folders of this machine, so that the next build reads only what changed.
    pub(super) fn remember_files(&self) {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.iter().for_each(|context| context.remember(&self.engine.inner.builds.known));
    }

    pub(super) fn web(&self) -> Web<'_> {
        Web {
            client: self.engine.inner.registries.client(),
            runtime: &self.runtime,
            dir: &self.engine.inner.builds.web,
            stop: &self.stop,
        }
    }

    /// The image of this name: as it is here, or fetched where it is not, where it is wanted anew, or where it is for something else.
    fn find(
        &self,
        name: &str,
        platform: Option<&Platform>,
        step: StepId,
        events: Sink<'_>,
    ) -> Result<Arc<Image>, HostError> {
        let here = self.runtime.block_on(self.engine.image_for_create(name));
        let here = here.map(|image| platform.and_then(|wanted| self.beside(&image, wanted)).unwrap_or(image));
        match here {
            Ok(image) if !self.pull && platform.is_none_or(|wanted| is_for(&image, wanted)) => Ok(image),
            // What has no name in a registry cannot be fetched anew.
            Ok(image) if oci::Reference::parse(name).is_err() || is_id(name, &image) => Ok(image),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(told(error)),
            here => match self.fetch(name, platform, step, events) {
                Ok(()) => self.engine.resolve_image(name).map_err(told),
                // An image that nobody else has is as new as it gets.
                Err(error) => match here {
                    Ok(image) if !self.pull => Ok(image),
                    _ => Err(told(error)),
                },
            },
        }
    }

    /// The image for a platform that was built together with one for another.
    fn beside(&self, image: &Arc<Image>, wanted: &Platform) -> Option<Arc<Image>> {
        let catalogue = self.engine.inner.images.catalogue();
        let mut others = image.index.iter().flat_map(|index| &index.images).filter_map(|id| catalogue.get(id));
        if is_for(image, wanted) { None } else { others.find(|other| is_for(other, wanted)).cloned() }
    }

    /// Fetches a base image.
    fn fetch(
        &self,
        name: &str,
        platform: Option<&Platform>,
        step: StepId,
        events: Sink<'_>,
    ) -> Result<(), EngineError> {
        let reference = oci::Reference::parse(name).map_err(|error| EngineError::invalid(error.to_string()))?;
        // A name alone would mean all its tags.
        let credentials = self.caches.keys.of(reference.domain());
        let image = reference.with_default_tag().canonical();
        let platform = platform.map(images::platform_name);
        let request = PullRequest { image, platform, credentials, ..PullRequest::default() };
        let _inside = self.runtime.enter();
        let mut messages = self.engine.pull_image(request)?;
        while let Some(message) = messages.blocking_recv() {
            if let ImageProgress::Layer { id, status, current, total } = message? {
                let progress =
                    Progress { name: format!("{status} {id}"), current, total, done: total == Some(current) };
                events(Event::Progress(step, progress));
            }
        }
        Ok(())
    }

    fn spec(&self, job: &Job, mounts: &Mounts) -> Result<ContainerSpec, HostError> {
        let network = match job.network {
            JobNetwork::Default => self.template.network.clone(),
            JobNetwork::None => NetworkMode::None,
            JobNetwork::Host => NetworkMode::Host,
        };
        Ok(ContainerSpec {
            image: "build".to_owned(),
            user: job.user.clone(),
            attach_stdout: true,
            attach_stderr: true,
            env: job.environment.clone(),
            command: Some(job.arguments.clone()),
            working_dir: job.working_dir.clone(),
            labels: if self.keep_containers {
                BTreeMap::new()
            } else {
                BTreeMap::from([(BUILD_LABEL.to_owned(), String::new())])
            },
            binds: mounts.binds.clone(),
            tmpfs: mounts.tmpfs.iter().cloned().collect(),
            log: LogConfig { driver: LogDriver::None, options: BTreeMap::new() },
            network,
            ..self.template.clone()
        })
    }

    fn run_container(
        &self,
        id: &str,
        (step, events): (StepId, Sink<'_>),
        stopped: &dyn Fn() -> bool,
    ) -> Result<Outcome, HostError> {
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
        pass_on(&ours, (step, events), stopped)?;
        let ended = self.runtime.block_on(waiter.result()).map_err(told)?;
        match ended.exit_code {
            0 => self.keep(id),
            code => Ok(Outcome::Failed(code)),
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

/// Hands the command's output on until it ends; stops when nobody wants it any more.
fn pass_on(
    output: &UnixStream,
    (step, events): (StepId, Sink<'_>),
    stopped: &dyn Fn() -> bool,
) -> Result<(), HostError> {
    output.set_read_timeout(Some(LOOK)).map_err(failed)?;
    let (mut pending, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match { output }.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => pending.extend_from_slice(&piece[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
        if stopped() {
            return Err(HostError("build cancelled".to_owned()));
        }
        while let Some((stream, bytes)) = next_frame(&mut pending)? {
            events(Event::Output(step, stream, bytes));
        }
    }
}

fn next_frame(pending: &mut Vec<u8>) -> Result<Option<(Output, Vec<u8>)>, HostError> {
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
    Ok(Some((if is_error { Output::Stderr } else { Output::Stdout }, bytes)))
}

/// The layers as an image without any configuration: the job says everything.
fn layers_as_image(job: &Job) -> Image {
    Image::unnamed(super::build_id(&job.layers), ImageConfig::default(), Arc::from([]), job.layers.clone())
}

fn create_request(spec: ContainerSpec) -> CreateRequest {
    CreateRequest { name: None, platform: None, spec }
}

/// Whether an image is what a platform wants; what the platform does not say is as it is.
fn is_for(image: &Image, wanted: &Platform) -> bool {
    let actual = image.config.platform();
    actual.os == wanted.os
        && actual.architecture == wanted.architecture
        && (wanted.variant.is_empty() || actual.variant.is_empty() || wanted.variant == actual.variant)
}

/// Whether the image was named by its id.
fn is_id(name: &str, image: &Image) -> bool {
    let hex = image.id.hex();
    hex.starts_with(name.trim_start_matches("sha256:"))
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
        assert_eq!(next_frame(&mut pending), Ok(Some((Output::Stdout, b"abc".to_vec()))));
        assert_eq!(next_frame(&mut pending), Ok(None), "its second byte is missing");
        pending.push(b'e');
        assert_eq!(next_frame(&mut pending), Ok(Some((Output::Stderr, b"de".to_vec()))));
        assert!(next_frame(&mut vec![1, 0, 0, 0, 255, 255, 255, 255]).is_err());
    }
}
