//! An image of a container: what it changed as a layer, and its configuration.

use std::collections::BTreeSet;
use std::sync::Arc;

use images::{Change, NewImage, Step, child};
use jiff::Timestamp;
use oci::image::{ContainerConfig, Healthcheck};
use oci::{Digest, Reference};
use snapshots::Selection;

use super::create::merge_image;
use super::files::changed_files;
use super::record::ContainerRecord;
use crate::engine::{Engine, Inner, blocking};
use crate::images::{changes, failed, named};
use crate::model::{CommitPause, CommitRequest, ContainerSpec, EngineError, Status};

/// A commit whose request has been understood.
#[derive(Debug)]
struct Commit {
    record: Arc<ContainerRecord>,
    reference: Option<Reference>,
    config: ContainerConfig,
    author: String,
    comment: String,
}

impl Engine {
    /// Makes an image of a container and returns its id.
    pub async fn commit_container(&self, request: CommitRequest) -> Result<Digest, EngineError> {
        let handle = self.inner.index.find(&request.container)?;
        match handle.view().state.status {
            Status::Dead => {
                return Err(EngineError::conflict(format!("You cannot commit container {} which is Dead", handle.id)));
            }
            Status::Removing => {
                let message = format!("You cannot commit container {} which is being removed", handle.id);
                return Err(EngineError::conflict(message));
            }
            _ => {}
        }
        let (pause, record) = (request.pause, handle.record());
        let commit = understand(request, record)?;
        let engine = self.clone();
        // A task of its own: a client that goes away must not leave the container frozen.
        let task = tokio::spawn(async move { engine.commit(commit, pause).await });
        task.await.map_err(|error| EngineError::system("the commit ended early", error))?
    }

    async fn commit(&self, commit: Commit, pause: CommitPause) -> Result<Digest, EngineError> {
        let (record, comment) = (Arc::clone(&commit.record), commit.comment.clone());
        let name = commit.reference.as_ref().map(Reference::familiar).unwrap_or_default();
        let id = record.id.as_str();
        // One that does not run, or is frozen already, needs no freezing.
        let paused = pause == CommitPause::Frozen && self.pause_container(id).await.is_ok();
        let inner = Arc::clone(&self.inner);
        let made = blocking(move || make(&inner, commit)).await;
        if paused && let Err(error) = self.unpause_container(id).await {
            tracing::warn!("container {id} cannot be thawed after its commit: {error}");
        }
        let image = made?;
        self.grown();
        let attributes = [("comment", comment.as_str()), ("imageID", &image.to_string()), ("imageRef", &name)];
        self.tell_container(&record, "commit", &attributes);
        Ok(image)
    }
}

/// Everything that can be wrong with the request alone.
fn understand(request: CommitRequest, record: Arc<ContainerRecord>) -> Result<Commit, EngineError> {
    let reference = match request.repository.as_str() {
        "" => None,
        repository => Some(named(repository, &request.tag)?),
    };
    let own = image_config(&record.spec);
    let mut config = match request.config {
        None => own,
        Some(mut spec) => {
            merge_image(&mut spec, &own)?;
            image_config(&spec)
        }
    };
    Change::apply_all(&changes(&request.changes)?, &mut config)
        .map_err(|error| EngineError::invalid(error.to_string()))?;
    Ok(Commit { record, reference, config, author: request.author, comment: request.comment })
}

fn make(inner: &Inner, commit: Commit) -> Result<Digest, EngineError> {
    let record = &commit.record;
    let parent = inner.images.resolve(&record.image_id.to_string()).map_err(|error| failed(error.kind(), &error))?;
    let _lease = inner.images.lease();
    let changed: BTreeSet<Vec<u8>> = changed_files(inner, record)?.into_iter().map(|change| change.path).collect();
    let layer = match changed.is_empty() {
        true => None,
        false => {
            let upper = inner.container_dir(&record.id).join("upper");
            let added = inner.images.add_changes(&upper, Selection::Only(changed));
            Some(added.map_err(|error| failed(error.kind(), &error))?)
        }
    };
    let step = Step {
        config: commit.config,
        layer,
        created: Timestamp::now(),
        created_by: record.spec.command.as_deref().unwrap_or_default().join(" "),
        author: commit.author,
        comment: commit.comment,
    };
    let config = serde_json::to_vec(&child(Some(&parent.config), step))
        .map_err(|error| EngineError::system("cannot write the image's configuration", error))?;
    let references = commit.reference.into_iter().collect();
    let image = inner.images.create(NewImage { config, references, parent: Some(parent.id) });
    image.map(|image| *image.id.digest()).map_err(|error| failed(error.kind(), &error))
}

/// A container's configuration as an image has it.
fn image_config(spec: &ContainerSpec) -> ContainerConfig {
    let set = |keys: Vec<String>| {
        let keys = keys.into_iter().map(|key| (key, Default::default()));
        Some(keys.collect()).filter(|set: &std::collections::BTreeMap<_, _>| !set.is_empty())
    };
    ContainerConfig {
        hostname: spec.hostname.clone().unwrap_or_default(),
        domainname: spec.domainname.clone(),
        user: spec.user.clone(),
        attach_stdin: spec.attach_stdin,
        attach_stdout: spec.attach_stdout,
        attach_stderr: spec.attach_stderr,
        exposed_ports: set(spec.exposed_ports.iter().map(|port| port.to_string()).collect()),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        env: Some(spec.env.clone()).filter(|list| !list.is_empty()),
        cmd: spec.command.clone(),
        healthcheck: spec.healthcheck.as_ref().map(healthcheck),
        args_escaped: false,
        image: spec.image.clone(),
        volumes: set(spec.volumes.iter().cloned().collect()),
        working_dir: spec.working_dir.clone(),
        entrypoint: spec.entrypoint.clone(),
        network_disabled: spec.network_disabled,
        mac_address: spec.mac_address.clone().unwrap_or_default(),
        on_build: Some(spec.on_build.clone()).filter(|list| !list.is_empty()),
        labels: Some(spec.labels.clone()).filter(|labels| !labels.is_empty()),
        stop_signal: spec.stop_signal.map(|signal| signal.to_string()).unwrap_or_default(),
        stop_timeout: spec.stop_timeout_seconds,
        shell: spec.shell.clone(),
    }
}

fn healthcheck(check: &crate::model::Healthcheck) -> Healthcheck {
    Healthcheck {
        test: check.test.clone(),
        interval: check.interval_ns,
        timeout: check.timeout_ns,
        start_period: check.start_period_ns,
        start_interval: check.start_interval_ns,
        retries: check.retries,
    }
}
