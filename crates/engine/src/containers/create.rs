//! Creating: the image's defaults, the checks, the mounts, the folder, the record.

use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};

use images::Image;
use jiff::Timestamp;
use network::Place;
use oci::ContainerId;
use oci::image::ContainerConfig;

use super::actor::{Actor, put_container};
use super::handle::{Handle, Progress};
use super::life::Life;
use super::plan::{self, PlannedMount, PlannedSource};
use super::record::{ContainerRecord, RECORD_VERSION};
use super::remove::{Size, remove_files};
use super::{attachments, names, validate, view};
use crate::engine::{Engine, Inner, blocking};
use crate::model::{
    Access, CgroupnsMode, ContainerName, ContainerSpec, CopyUp, CreateRequest, CreatedContainer, EngineError,
    ErrorKind, Healthcheck, IpcMode, NetworkMode, PidMode, Port, Signal, VolumeName, VolumeRequest, VolumesFrom,
};
use crate::store::Durability;
use crate::userns::{self, IdMappings};
use crate::volumes::{HeldVolumes, Made};

/// Attempts to find a free name before the answer is an error.
const NAME_ATTEMPTS: usize = 20;

/// Ids that are a container's to be.
struct ClaimedIds {
    inner: Arc<Inner>,
    mappings: Option<IdMappings>,
}

impl Drop for ClaimedIds {
    fn drop(&mut self) {
        let mut claimed = self.inner.claimed_ids.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = claimed.iter().position(|mappings| Some(mappings) == self.mappings.as_ref()) {
            claimed.remove(place);
        }
    }
}

impl Engine {
    /// Creates a container.
    pub async fn create_container(&self, request: CreateRequest) -> Result<CreatedContainer, EngineError> {
        let image = self.image_for_create(&request.spec.image).await?;
        self.inner.check_policy(&image, &request.spec.image)?;
        self.inner.image_used(image.id.digest());
        self.create_from(&image, request).await
    }

    /// Creates a container from an image, which need not be in the store as long as its layers are.
    pub(crate) async fn create_from(
        &self,
        image: &Image,
        request: CreateRequest,
    ) -> Result<CreatedContainer, EngineError> {
        check_platform(image, request.platform.as_deref())?;
        let mut spec = request.spec;
        merge_image(&mut spec, &image.config.config)?;
        let command = command_of(&spec)?;
        self.resolve_references(&mut spec)?;
        spec.runtime = self.inner.current.runtimes().name_for(spec.runtime)?;
        attachments::settle(self, &mut spec)?;
        let size_bytes = validate::storage_options(&spec)?;
        let warnings = validate::spec(&mut spec, &self.inner.host)?;
        if spec.shm_size_bytes == 0 {
            spec.shm_size_bytes = self.inner.current.settings().shm_size_bytes();
        }
        let claim = self.claim_ids(&spec)?;
        let mounts = plan::plan(&spec, self.inherited(&spec.volumes_from)?)?;
        let mounts = checked_sources(self.with_images(mounts)?).await?;
        let id = ContainerId::from_random(crate::random_bytes());
        let name = self.reserve_name(request.name, &id)?;
        let record = ContainerRecord {
            version: RECORD_VERSION,
            created: Timestamp::now(),
            image_id: *image.id.digest(),
            layers: image.layers.clone(),
            hostname: self.hostname(&spec, &id)?,
            id_mappings: claim.mappings.clone(),
            private_cgroup_namespace: match spec.cgroupns {
                CgroupnsMode::Default => self.inner.host.cgroup_version == 2 && !spec.privileged,
                CgroupnsMode::Private => true,
                CgroupnsMode::Host => false,
            },
            id,
            name,
            command,
            mounts,
            spec,
        };
        attachments::expect(&self.inner, &record);
        let made = self.make(record, size_bytes).await?;
        // From here on the container itself tells that they are taken.
        drop(claim);
        Ok(CreatedContainer { id: made, warnings })
    }

    /// Settles which layers the images are that are mounted.
    fn with_images(&self, mut mounts: Vec<PlannedMount>) -> Result<Vec<PlannedMount>, EngineError> {
        for mount in &mut mounts {
            if let PlannedSource::Image { reference, layers, .. } = &mut mount.source {
                layers.clone_from(&self.resolve_image(reference)?.layers);
            }
        }
        Ok(mounts)
    }

    /// The users of a container's own user namespace, if it gets one.
    fn claim_ids(&self, spec: &ContainerSpec) -> Result<ClaimedIds, EngineError> {
        let mut claimed = self.inner.claimed_ids.lock().unwrap_or_else(PoisonError::into_inner);
        let mappings = userns::of_container(self.inner.remap.as_ref(), spec, |size| {
            let others = self.inner.index.all();
            let taken = others.iter().filter_map(|handle| handle.record().id_mappings.clone());
            IdMappings::fresh(size, &taken.chain(claimed.iter().cloned()).collect::<Vec<_>>())
        })?;
        claimed.extend(mappings.clone());
        Ok(ClaimedIds { inner: Arc::clone(&self.inner), mappings })
    }

    /// The image of this name; the built-in one is made when somebody first asks for it.
    pub(crate) async fn image_for_create(&self, name: &str) -> Result<Arc<Image>, EngineError> {
        let is_builtin = || {
            oci::Reference::parse(name).is_ok_and(|reference| reference.with_default_tag().canonical() == images::HELLO)
        };
        match self.resolve_image(name) {
            Err(error) if error.kind() == ErrorKind::NotFound && is_builtin() => {
                let inner = Arc::clone(&self.inner);
                let made = move || {
                    inner
                        .images
                        .ensure_builtin()
                        .map_err(|error| EngineError::system("cannot make the built-in image", error))
                };
                blocking(made).await
            }
            result => result,
        }
    }

    /// Makes what the record says; on failure nothing stays.
    async fn make(&self, mut record: ContainerRecord, size_bytes: Option<u64>) -> Result<ContainerId, EngineError> {
        // While this lives, no image's removal takes the layers away.
        let _lease = self.inner.images.lease();
        let result = self.make_parts(&mut record, size_bytes).await;
        if let Err(error) = result {
            self.inner.index.remove(&record.id, &record.name);
            let folder = self.inner.container_dir(&record.id);
            let _ = blocking(move || remove_files(&folder, Size::Limited)).await;
            return Err(error);
        }
        let life = Life::new();
        let first = view::of(&self.inner, &record, &life, &Place::default(), None);
        let (handle, queue) = Handle::new(record.clone(), first, Progress::default());
        self.inner.index.insert(Arc::clone(&handle));
        tokio::spawn(Actor::new(self.clone(), handle, life, Place::default()).run(queue));
        self.tell_container(&record, "create", &[]);
        Ok(record.id)
    }

    async fn make_parts(&self, record: &mut ContainerRecord, size_bytes: Option<u64>) -> Result<(), EngineError> {
        self.make_volumes(record).await?;
        let (inner, id, layers) = (Arc::clone(&self.inner), record.id.clone(), record.layers.clone());
        blocking(move || make_folder(&inner, &id, &layers, size_bytes)).await?;
        // A `--rm` container need not survive the machine's crash: it would be removed then anyway.
        let durability = if record.spec.auto_remove { Durability::Daemon } else { Durability::Machine };
        let change = put_container(record, &Life::new(), &Place::default())?;
        let written = self.inner.store.write(vec![change], durability).await;
        written.map_err(|error| EngineError::system("cannot store the container", error))
    }

    /// Makes the volumes that do not exist, names the anonymous ones, and copies the image's files into those that are empty.
    async fn make_volumes(&self, record: &mut ContainerRecord) -> Result<(), EngineError> {
        let mut copies = Vec::new();
        for mount in &mut record.mounts {
            let target = mount.target.clone();
            let PlannedSource::Volume { name, copy_up, labels, options, subpath } = &mut mount.source else { continue };
            crate::volumes::check_options(Some(options))?;
            let request = VolumeRequest {
                name: name.as_deref().map(VolumeName::parse).transpose()?,
                driver: String::new(),
                labels: (!labels.is_empty()).then(|| labels.clone()),
                options: (!options.is_empty()).then(|| options.clone()),
            };
            let (volume, made) = self.ensure_volume(request).await?;
            *name = Some(volume.name.to_string());
            if crate::volumes::is_snapshot(volume.options.as_ref()) {
                mount.access = Access::ReadOnly;
            }
            if *copy_up == CopyUp::WhenEmpty && subpath.is_none() {
                copies.push((target, volume, made));
            }
        }
        if copies.is_empty() {
            return Ok(());
        }
        let (inner, layers, id) = (Arc::clone(&self.inner), record.layers.clone(), record.id.clone());
        blocking(move || {
            let names = copies.iter().map(|(_, volume, _)| volume.name.as_str());
            let _held = HeldVolumes::hold(&inner, format!("creation of {id}"), names)?;
            let lower = inner
                .snapshotter
                .lower_dirs(&layers)
                .map_err(|error| EngineError::system("cannot mount the image's layers", error))?;
            let root = crate::rootfs::view(&lower)
                .map_err(|error| EngineError::system("cannot open the image's files", error))?;
            for (target, volume, made) in copies {
                // A volume that was there may be empty as well, and gets the files then, as with Docker.
                let _ = made == Made::Now;
                crate::volumes::copy_up(root.as_fd(), &target, volume.mountpoint.as_ref()).map_err(|error| {
                    EngineError::system(&format!("cannot copy {target} into volume {}", volume.name), error)
                })?;
            }
            Ok(())
        })
        .await
    }

    /// Containers that are named by others (network, ipc, pid) become ids.
    fn resolve_references(&self, spec: &mut ContainerSpec) -> Result<(), EngineError> {
        let id_of = |reference: &mut String| -> Result<(), EngineError> {
            *reference = self.inner.index.find(reference)?.id.to_string();
            Ok(())
        };
        if let NetworkMode::Container(reference) = &mut spec.network {
            // As with Docker: one that is not there is missed at the start.
            match id_of(reference) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                found => found?,
            }
        }
        if let IpcMode::Container(reference) = &mut spec.ipc {
            id_of(reference)?;
        }
        if let PidMode::Container(reference) = &mut spec.pid {
            id_of(reference)?;
        }
        Ok(())
    }

    fn inherited(&self, from: &[VolumesFrom]) -> Result<Vec<PlannedMount>, EngineError> {
        let mut mounts = Vec::new();
        for source in from {
            let record = self.inner.index.find(&source.container)?.record();
            mounts.extend(record.mounts.iter().filter_map(|mount| plan::inherit(mount, source.access)));
        }
        Ok(mounts)
    }

    /// As given, or that of whose network it shares, or its own short id.
    fn hostname(&self, spec: &ContainerSpec, id: &ContainerId) -> Result<String, EngineError> {
        let on_host = spec.network == NetworkMode::Host || spec.uts == crate::model::UtsMode::Host;
        match (&spec.hostname, &spec.network) {
            (Some(name), _) if !name.is_empty() => Ok(name.clone()),
            (_, NetworkMode::Container(other)) => {
                let other = self.inner.index.find(other);
                Ok(other.map_or_else(|_| id.short().to_owned(), |other| other.record().hostname.clone()))
            }
            _ if on_host => Ok(self.inner.host.hostname.clone()),
            _ => Ok(id.short().to_owned()),
        }
    }

    fn reserve_name(&self, wanted: Option<ContainerName>, id: &ContainerId) -> Result<ContainerName, EngineError> {
        if let Some(name) = wanted {
            self.inner.index.reserve_name(&name, id)?;
            return Ok(name);
        }
        for attempt in 0..NAME_ATTEMPTS {
            let name = ContainerName::parse(&names::invent(crate::random_bytes(), attempt))?;
            if self.inner.index.reserve_name(&name, id).is_ok() {
                return Ok(name);
            }
        }
        Err(EngineError::unavailable("no free name was found for the container; give it one"))
    }
}

fn check_platform(image: &Image, wanted: Option<&str>) -> Result<(), EngineError> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(()) };
    let platform = images::parse_platform(wanted).map_err(|error| EngineError::invalid(error.to_string()))?;
    let config = &image.config;
    let fits = (platform.os.is_empty() || platform.os == config.os)
        && (platform.architecture.is_empty() || platform.architecture == config.architecture);
    if fits {
        return Ok(());
    }
    let name = image.tags.first().map_or_else(|| image.id.to_string(), oci::Reference::familiar);
    Err(EngineError::not_found(format!(
        "image with reference {name} was found but its platform ({}/{}) does not match the specified platform ({wanted})",
        config.os, config.architecture
    )))
}

/// Docker's merge: what the request leaves open is the image's.
pub(super) fn merge_image(spec: &mut ContainerSpec, config: &ContainerConfig) -> Result<(), EngineError> {
    if spec.user.is_empty() {
        spec.user.clone_from(&config.user);
    }
    if let Some(exposed) = &config.exposed_ports {
        let more = exposed.keys().map(|port| Port::parse(port)).collect::<Result<Vec<_>, _>>()?;
        spec.exposed_ports = spec.exposed_ports.iter().chain(more).collect();
    }
    let own = std::mem::take(&mut spec.env);
    spec.env = merge_env(own, config.env.as_deref().unwrap_or_default());
    for (key, value) in config.labels.iter().flatten() {
        spec.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if spec.entrypoint.is_none() {
        if spec.command.as_ref().is_none_or(Vec::is_empty) {
            spec.command.clone_from(&config.cmd);
        }
        spec.entrypoint.clone_from(&config.entrypoint);
    }
    // `--entrypoint ""` clears the image's.
    if spec.entrypoint.as_ref().is_some_and(|entrypoint| entrypoint.len() == 1 && entrypoint[0].is_empty()) {
        spec.entrypoint = None;
    }
    merge_healthcheck(spec, config.healthcheck.as_ref());
    if spec.working_dir.is_empty() {
        spec.working_dir.clone_from(&config.working_dir);
    }
    spec.volumes.extend(config.volumes.iter().flatten().map(|(target, _)| target.clone()));
    if spec.stop_signal.is_none() && !config.stop_signal.is_empty() {
        spec.stop_signal = Some(Signal::parse(&config.stop_signal)?);
    }
    if spec.stop_timeout_seconds.is_none() {
        spec.stop_timeout_seconds = config.stop_timeout;
    }
    if spec.shell.is_none() {
        spec.shell.clone_from(&config.shell);
    }
    if !spec.working_dir.is_empty() && spec.working_dir.starts_with('/') {
        spec.working_dir = crate::model::clean_path(&spec.working_dir);
    }
    Ok(())
}

/// The image's variables that the request does not set, behind the request's own: Docker's order.
fn merge_env(mut own: Vec<String>, image: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
    for entry in image {
        if !own.iter().any(|known| name(known) == name(entry)) {
            own.push(entry.clone());
        }
    }
    own
}

fn merge_healthcheck(spec: &mut ContainerSpec, image: Option<&oci::image::Healthcheck>) {
    let Some(image) = image else { return };
    let own = spec.healthcheck.get_or_insert_with(Healthcheck::default);
    if own.test.is_empty() {
        own.test.clone_from(&image.test);
    }
    let fill = |own: &mut i64, image: i64| {
        if *own == 0 {
            *own = image;
        }
    };
    fill(&mut own.interval_ns, image.interval);
    fill(&mut own.timeout_ns, image.timeout);
    fill(&mut own.start_period_ns, image.start_period);
    fill(&mut own.start_interval_ns, image.start_interval);
    fill(&mut own.retries, image.retries);
}

fn command_of(spec: &ContainerSpec) -> Result<Vec<String>, EngineError> {
    let entrypoint = spec.entrypoint.clone().unwrap_or_default();
    let command: Vec<String> = entrypoint.into_iter().chain(spec.command.clone().unwrap_or_default()).collect();
    if command.is_empty() || (command.len() == 1 && command[0].is_empty()) {
        return Err(EngineError::invalid("no command specified"));
    }
    Ok(command)
}

/// `--mount` sources must be there at create; `-v` makes them at start.
async fn checked_sources(mounts: Vec<PlannedMount>) -> Result<Vec<PlannedMount>, EngineError> {
    let binds = mounts.iter().any(|mount| matches!(mount.source, PlannedSource::Host { create: false, .. }));
    // Looking at a path can hang on a dead file server: never on the thread that serves everybody.
    if binds { blocking(move || check_bind_sources(&mounts).map(|()| mounts)).await } else { Ok(mounts) }
}

fn check_bind_sources(mounts: &[PlannedMount]) -> Result<(), EngineError> {
    for mount in mounts {
        if let PlannedSource::Host { path, create: false, .. } = &mount.source
            && !std::path::Path::new(path).exists()
        {
            return Err(EngineError::invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {path}"
            )));
        }
    }
    Ok(())
}

fn make_folder(
    inner: &Inner,
    id: &ContainerId,
    layers: &[oci::DiffId],
    size_bytes: Option<u64>,
) -> Result<(), EngineError> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = inner.container_dir(id);
    let wrong = |error| EngineError::system("cannot make the container's folder", error);
    std::fs::DirBuilder::new().mode(0o710).create(&folder).map_err(wrong)?;
    let made = inner
        .snapshotter
        .create_upper(&folder, layers)
        .map_err(|error| EngineError::system("cannot make the container's layer", error))?;
    // Not the log, which has limits of its own.
    size_bytes.map_or(Ok(()), |bytes| crate::quota::limit(&[&made.upper, &made.work], bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use images::{Image, ImageId};
    use oci::image::{ContainerConfig, ImageConfig};

    use super::{command_of, merge_image};
    use crate::model::ContainerSpec;

    fn image(config: ContainerConfig) -> Image {
        let config = ImageConfig { config, ..ImageConfig::default() };
        Image::unnamed(ImageId::of_config(b"x"), config, Arc::from(&b"x"[..]), Vec::new())
    }

    fn words(text: &str) -> Option<Vec<String>> {
        Some(text.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn commands_follow_dockers_rules() {
        let image = image(ContainerConfig { cmd: words("a b"), entrypoint: words("e"), ..ContainerConfig::default() });
        let command = |entrypoint: Option<&str>, own: Option<&str>| {
            let mut spec = ContainerSpec { command: own.and_then(words), ..ContainerSpec::default() };
            spec.entrypoint =
                entrypoint.map(|text| if text.is_empty() { vec![String::new()] } else { words(text).unwrap() });
            merge_image(&mut spec, &image.config.config).unwrap();
            command_of(&spec).map(|words| words.join(" ")).map_err(|error| error.message().to_owned())
        };
        assert_eq!(command(None, None).unwrap(), "e a b");
        assert_eq!(command(None, Some("x")).unwrap(), "e x");
        assert_eq!(command(Some("y"), None).unwrap(), "y");
        assert_eq!(command(Some("y"), Some("x")).unwrap(), "y x");
        assert_eq!(command(Some(""), Some("x")).unwrap(), "x");
        assert_eq!(command(Some(""), None).unwrap_err(), "no command specified");
    }

    #[test]
    fn the_request_wins_over_the_image() {
        let config = ContainerConfig {
            env: Some(vec!["A=image".into(), "B=image".into()]),
            labels: Some([("l".to_owned(), "image".to_owned())].into()),
            user: "www".into(),
            stop_signal: "SIGQUIT".into(),
            cmd: words("x"),
            ..ContainerConfig::default()
        };
        let mut spec = ContainerSpec { env: vec!["A=own".into()], ..ContainerSpec::default() };
        spec.labels.insert("l".into(), "own".into());
        merge_image(&mut spec, &image(config).config.config).unwrap();
        assert_eq!(spec.env, ["A=own", "B=image"]);
        assert_eq!(
            (spec.labels["l"].as_str(), spec.user.as_str(), spec.stop_signal.unwrap().number()),
            ("own", "www", 3)
        );
    }
}
