//! The front door, and what all its parts share.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use oci::ContainerId;
use snapshots::Snapshotter;
use tokio::sync::watch;

use crate::builds::Builds;
use crate::containers::{Containers, Index, Names, Recorded};
use crate::events::Bus;
use crate::execs::Execs;
use crate::filters::Filters;
use crate::host::Host;
use crate::image_uses::LastUses;
use crate::logs::Forwarders;
use crate::memory::Tidying;
use crate::model::EngineError;
use crate::monitors::Pool;
use crate::networks::Registry;
use crate::options::{EngineOptions, StorageBackend};
use crate::registries::Registries;
use crate::settings::Current;
use crate::space::Collector;
use crate::store::{Contents, Durability, Store};
use crate::userns::IdMappings;
use crate::volumes::Volumes;

/// Network namespaces that wait for containers. Each takes 150 kB of the kernel's memory, and saves a start two milliseconds.
const READY_NETWORKS: usize = 16;

/// A running engine; cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: EngineOptions,
    pub(crate) id: String,
    pub(crate) opened: jiff::Timestamp,
    pub(crate) host: Host,
    pub(crate) store: Store,
    pub(crate) index: Arc<Index>,
    pub(crate) bus: Bus,
    pub(crate) volumes: Volumes,
    pub(crate) execs: Execs,
    pub(crate) monitors: Pool,
    /// What may change meanwhile, and what follows from it.
    pub(crate) current: Current,
    /// The ids of containers that have a user namespace of their own.
    pub(crate) remap: Option<IdMappings>,
    /// Those of containers that are being created.
    pub(crate) claimed_ids: Mutex<Vec<IdMappings>>,
    pub(crate) filters: Filters,
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    pub(crate) images: Arc<images::ImageStore>,
    pub(crate) last_uses: Arc<LastUses>,
    pub(crate) collector: Collector,
    /// Which images may come and run; none for all.
    pub(crate) policy: Option<trust::Policy>,
    pub(crate) registries: Registries,
    pub(crate) networks: network::Networks,
    pub(crate) registry: Arc<Registry>,
    pub(crate) names: Names,
    pub(crate) builds: Builds,
    pub(crate) forwarders: Forwarders,
    pub(crate) tidying: Tidying,
    /// True once the engine closes: actors end, containers run on.
    pub(crate) closing: watch::Sender<bool>,
    /// Held until the engine has shut down: one engine per root.
    lock: Mutex<Option<durable::Lock>>,
}

/// Why an engine cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub(crate) EngineError);

impl From<EngineError> for OpenError {
    fn from(error: EngineError) -> Self {
        OpenError(error)
    }
}

impl Engine {
    /// Opens the stores, takes up running containers again and starts what works in the background.
    pub async fn open(options: EngineOptions) -> Result<Engine, OpenError> {
        let (inner, contents, records) = blocking(move || open(options)).await?;
        let engine = Engine { inner: Arc::new(inner) };
        engine.restore(contents, records).await?;
        engine.remove_build_containers().await;
        engine.keep_budget();
        Ok(engine)
    }

    /// Lets go of everything: containers run on, what no container needs is unmounted and removed.
    pub async fn shutdown(&self) {
        self.inner.closing.send_replace(true);
        // The queue is in order: when this is written, so is everything before it.
        if let Err(error) = self.inner.store.write(Vec::new(), Durability::Machine).await {
            tracing::error!("{error}");
        }
        let inner = Arc::clone(&self.inner);
        let closed = blocking(move || {
            close(&inner);
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::error!("{error}");
        }
    }
}

impl Inner {
    /// A container's folder.
    pub(crate) fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.containers_dir().join(id.as_str())
    }

    /// The folder of all containers' folders.
    pub(crate) fn containers_dir(&self) -> PathBuf {
        self.options.root.join("containers")
    }

    /// Where a container's monitor listens.
    pub(crate) fn monitor_socket(&self, id: &ContainerId) -> PathBuf {
        self.monitors_dir().join(format!("{id}.sock"))
    }

    /// Where another runtime's program keeps the state of its containers; `name` is the program's file name.
    pub(crate) fn runtime_state_dir(&self, name: &std::ffi::OsStr) -> PathBuf {
        self.options.run.join("runtimes").join(name)
    }

    /// Where another runtime's program finds the container: its configuration and its root.
    pub(crate) fn bundle_dir(&self, id: &ContainerId) -> PathBuf {
        self.options.run.join("bundles").join(id.as_str())
    }

    /// Where mounts for starts are made ready.
    pub(crate) fn staging_dir(&self) -> PathBuf {
        self.options.run.join("mounts")
    }

    /// The folder of all monitors' sockets.
    pub(crate) fn monitors_dir(&self) -> PathBuf {
        self.options.run.join("monitors")
    }
}

impl Inner {
    /// Sends a container's log lines where its driver says, from now on.
    pub(crate) fn forward_logs(&self, record: &crate::containers::ContainerRecord) -> Result<(), EngineError> {
        let Ok(handle) = self.index.find(record.id.as_str()) else { return Ok(()) };
        let folder = self.container_dir(&record.id);
        self.forwarders.start(record, &folder, handle.watch(), self.closing.subscribe())
    }
}

/// Runs blocking work on tokio's blocking threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(EngineError::system("a task of the engine ended early", error)),
    }
}

fn open(options: EngineOptions) -> Result<(Inner, Contents, Vec<Recorded>), EngineError> {
    let current = Current::new(&options)?;
    let remap = options.userns_remap.as_deref().map(IdMappings::of_option).transpose()?;
    let policy = crate::policy::load(options.image_policy.as_deref())?;
    make_dirs(&options)?;
    let lock = lock(&options.root)?;
    let (store, contents) = Store::open(&options.root.join("conex.db"))
        .map_err(|error| EngineError::system("cannot open the store", error))?;
    // Containers that outlived the last daemon have their names back before anything that takes longer is done.
    let registry = Arc::new(Registry::open(&contents.networks));
    let (index, names) = (Arc::new(Index::default()), Names::default());
    let records = Containers::recorded(&contents, &index)?;
    names.reopen(&options, &registry, &index, &Containers::survivors(&records, &options.root.join("containers")));
    let snapshotter = snapshots::open(&options.root, &options.run, choice(options.storage))
        .map_err(|error| EngineError::system("cannot open the layer store", error))?;
    let images = images::ImageStore::open(&options.root, Arc::clone(&snapshotter))
        .map_err(|error| EngineError::system("cannot open the image store", error))?;
    for problem in images.problems() {
        tracing::error!("{}: {}", problem.subject, problem.reason);
    }
    let host = Host::probe(&options, snapshotter.backend());
    let monitors = Pool::new(&options.runtime, &options.run)
        .map_err(|error| EngineError::system("cannot start a thread", error))?;
    let volumes = Volumes::open(&options.root, &contents.volumes);
    let id = engine_id(&options.root)?;
    let networks = open_networks(&options, &contents, &registry, remap.as_ref(), &id)?;
    watch_routes(&networks, &registry);
    let builds = Builds::open(&options.root, &options.run, snapshotter.as_ref())?;
    let inner = Inner {
        id,
        opened: jiff::Timestamp::now(),
        host,
        store,
        index,
        bus: Bus::new(),
        volumes,
        execs: Execs::default(),
        monitors,
        current,
        remap,
        claimed_ids: Mutex::default(),
        filters: Filters::default(),
        snapshotter,
        images: Arc::new(images),
        last_uses: Arc::new(LastUses::restored(&contents.image_uses)),
        collector: Collector::default(),
        policy,
        registries: Registries::new(&options.settings.registries),
        networks,
        registry,
        names,
        builds,
        forwarders: Forwarders::default(),
        tidying: Tidying::default(),
        closing: watch::Sender::new(false),
        options,
        lock: Mutex::new(Some(lock)),
    };
    Ok((inner, contents, records))
}

/// Nobody but root may look into containers' files: images carry setuid programs.
fn make_dirs(options: &EngineOptions) -> Result<(), EngineError> {
    let dirs = [
        (options.root.clone(), 0o711),
        (options.root.join("containers"), 0o700),
        (options.root.join("volumes"), 0o700),
        (options.run.clone(), 0o711),
        (options.run.join("monitors"), 0o700),
        (options.run.join("mounts"), 0o700),
    ];
    for (path, mode) in dirs {
        let parent = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent)
            .map_err(|error| EngineError::system(&format!("cannot make {}", parent.display()), error))?;
        match durable::create_dir(&path, mode) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(EngineError::system("cannot prepare the engine's folders", error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn lock(root: &Path) -> Result<durable::Lock, EngineError> {
    let path = root.join("lock");
    match durable::Lock::try_acquire(&path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(EngineError::conflict(format!("another engine is using {}", root.display()))),
        Err(error) => Err(EngineError::system("cannot lock the engine's root", error)),
    }
}

fn choice(storage: StorageBackend) -> snapshots::Choice {
    use snapshots::{Backend, Choice};
    match storage {
        StorageBackend::Automatic => Choice::Automatic,
        StorageBackend::Erofs => Choice::Only(Backend::ErofsFile),
        StorageBackend::ErofsLoop => Choice::Only(Backend::ErofsLoop),
        StorageBackend::Directories => Choice::Only(Backend::Directories),
    }
}

fn open_networks(
    options: &EngineOptions,
    contents: &Contents,
    registry: &Registry,
    remap: Option<&IdMappings>,
    id: &str,
) -> Result<network::Networks, EngineError> {
    let mut wanted = network::Options::new(&options.name, options.run.clone());
    wanted.ready = READY_NETWORKS;
    wanted.owner = remap.map(IdMappings::owner);
    wanted.subnet = match &options.network.bridge_subnet {
        None => None,
        Some(text) => {
            Some(text.parse().map_err(|error: network::SubnetError| EngineError::invalid(error.to_string()))?)
        }
    };
    wanted.subnet6 = match options.network.bridge_subnet6.as_deref() {
        None => None,
        Some("auto") => Some(network::Subnet6::Automatic),
        Some(text) => Some(network::Subnet6::This(
            text.parse().map_err(|error: network::SubnetError| EngineError::invalid(error.to_string()))?,
        )),
    };
    wanted.mtu = options.network.mtu;
    wanted.pools.clone_from(&options.network.address_pools);
    wanted.identity = id.to_owned();
    wanted.publish_policy = options.network.publish_policy;
    // Too many rather than too few: an address or a port that is kept for a container that has ended is released when that is noticed.
    let places = Containers::recorded_places(contents);
    let networks: Vec<_> = registry
        .all()
        .iter()
        .filter(|record| record.template.is_none())
        .map(|record| record.definition.clone())
        .collect();
    network::Networks::open(&wanted, &networks, &places)
        .map_err(|error| EngineError::system("cannot open the networks", error))
}

/// Has the log say which routes of the host lead into networks, from now on.
fn watch_routes(networks: &network::Networks, registry: &Arc<Registry>) {
    let registry = Arc::clone(registry);
    let watching = networks.watch_routes(move |conflict| {
        let name =
            registry.by_id(&conflict.network).map_or_else(|| conflict.network.clone(), |record| record.name.clone());
        tracing::warn!("network {name}: {conflict}");
    });
    if let Err(error) = watching {
        tracing::warn!("the host's routes are not watched: {error}");
    }
}

/// A stable id of the root, made once.
fn engine_id(root: &Path) -> Result<String, EngineError> {
    let path = root.join("engine-id");
    if let Ok(id) = std::fs::read_to_string(&path) {
        return Ok(id.trim().to_owned());
    }
    let id = oci::ContainerId::from_random(crate::random_bytes());
    durable::write_atomic(root, "engine-id", id.as_str().as_bytes())
        .map_err(|error| EngineError::system("cannot write the engine's id", error))?;
    Ok(id.to_string())
}

fn close(inner: &Inner) {
    inner.monitors.close();
    let running = inner.index.all().into_iter().filter(|handle| handle.live().is_some());
    let (mut layers, mut remaining) = (Vec::new(), network::Remaining::Nothing);
    for handle in running {
        layers.extend(handle.record().all_layers());
        remaining = network::Remaining::Containers;
    }
    if let Err(error) = inner.snapshotter.unmount_except(&layers) {
        tracing::warn!("cannot unmount layers: {}", crate::model::chain(&error));
    }
    if remaining == network::Remaining::Nothing {
        remove_cgroup(&format!("/{}", inner.options.name));
    }
    if let Err(error) = inner.networks.close(remaining) {
        tracing::warn!("cannot close the networks: {}", crate::model::chain(&error));
    }
    drop(inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// How often, and how long apart, the cgroup of the engine is tried: monitors remove those of containers behind their end.
const PARENT_TRIES: u32 = 40;
const PARENT_PAUSE: std::time::Duration = std::time::Duration::from_millis(25);

/// Removes a cgroup once the last that is in it is gone: the one above those of the containers, or one whose monitor was killed.
pub(crate) fn remove_cgroup(name: &str) {
    let (Ok(host), Ok(path)) = (cgroups::Host::detect(), cgroups::CgroupPath::parse(name)) else {
        // Where there are no cgroups none was made.
        return;
    };
    for _ in 0..PARENT_TRIES {
        if host.remove_empty(&path) {
            return;
        }
        std::thread::sleep(PARENT_PAUSE);
    }
    tracing::warn!("the cgroup {name} is still in use");
}
