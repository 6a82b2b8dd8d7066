//! A start's blocking part, in one piece on one blocking thread: network, layers, files, specification, and the message to a monitor.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dns::Serving;
use monitor_protocol::{
    Attach, Delivery, FdIndex, Identity, Isolation, JsonFile, Launch, LogConfig as MonitorLog, Relay, Rootfs, Rotated,
    SeccompProgram, StdinMode, Stdio, WindowSize,
};
use network::{NameSockets, Place, Reach, Transport};
use oci::runtime::{LinuxDeviceType, Spec};

use super::attachments;
use super::links::{self, Linked};
use super::plan::{PlannedMount, PlannedSource};
use super::record::ContainerRecord;
use super::relay::Relayed;
use super::resolver;
use super::trees::{self, Staged};
use crate::engine::Inner;
use crate::model::{
    BindRecursion, ContainerSpec, EngineError, IpcMode, LogCompression, LogDelivery, LogDriver, NetworkMode, PidMode,
    UsernsMode,
};
use crate::monitors::Launched;
use crate::runtimes::Runtime;
use crate::spec::{
    self, BlockDevices, CgroupNamespace, DeviceNumber, JoinedNamespaces, Owners, ResolvedDevice, SpecInput, UserMount,
    UserMountSource,
};
use crate::volumes::HeldVolumes;

/// A client that attached before the start.
#[derive(Debug)]
pub(crate) struct HeldAttach {
    pub(crate) attach: Attach,
    pub(crate) socket: OwnedFd,
}

/// A container on its way: a monitor has its message.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) launched: Launched,
    pub(crate) place: Place,
    pub(super) serving: Option<Serving>,
    /// Volumes with options, mounted as long as it runs.
    pub(super) volumes: HeldVolumes,
    /// Mounts that its monitor binds, until it has answered.
    pub(super) staged: Staged,
}

/// Does everything that a start needs before the monitor answers. What was taken is given back on failure.
pub(crate) fn launch(
    inner: &Arc<Inner>,
    record: &ContainerRecord,
    joined: JoinedNamespaces,
    attaches: Vec<HeldAttach>,
) -> Result<Started, EngineError> {
    check_users(inner, record, joined)?;
    inner.check_policy_of_container(record)?;
    inner.image_used(&record.image_id);
    let names = record.mounts.iter().filter_map(|mount| mount.volume());
    let volumes = HeldVolumes::hold(inner, record.id.to_string(), names)?;
    let mut staged = Staged::new(inner.staging_dir().join(record.id.as_str()));
    let mounts =
        record.mounts.iter().map(|mount| user_mount(inner, mount, &mut staged)).collect::<Result<Vec<_>, _>>()?;
    let mut network = take_network(inner, record, joined)?;
    let name_sockets = network.name_sockets.take();
    let mut place = Place { endpoints: network.endpoints.clone(), ..Place::default() };
    let namespace = network.namespace.as_ref().map(AsFd::as_fd);
    let serving = namespace.and_then(|namespace| resolver::serve(inner, record, &place, namespace, name_sockets));
    place.resolver = serving.as_ref().map(Serving::port);
    let reach = reach(&record.spec.network, serving.is_some(), &place);
    resolver::announce(inner, record, &place);
    let launched = attachments::publish(inner, record, &mut place)
        .and_then(|relays| send(inner, record, joined, network, (&mounts, reach, attaches, relays)));
    match launched {
        Ok(launched) => Ok(Started { launched, place, serving, volumes, staged }),
        Err(error) => {
            resolver::retract(inner, record);
            attachments::give_back(inner, place);
            Err(error)
        }
    }
}

/// Namespaces belong to the users of one user namespace: a container joins those of another one only with all that is the other's.
fn check_users(inner: &Inner, record: &ContainerRecord, joined: JoinedNamespaces) -> Result<(), EngineError> {
    if record.id_mappings.is_none() {
        return Ok(());
    }
    if record.id_mappings != inner.remap && !has_own_ids(record) {
        return Err(EngineError::conflict(
            "the container was created with another --userns-remap than the engine has now: create it again",
        ));
    }
    let spec = &record.spec;
    let donors = [network_donor(&spec.network), pid_donor(&spec.pid), ipc_donor(&spec.ipc)];
    for donor in donors.into_iter().flatten() {
        if inner.index.find(donor)?.record().id_mappings != record.id_mappings {
            return Err(EngineError::conflict(format!(
                "cannot join a namespace of container {donor}: it is in another user namespace"
            )));
        }
    }
    if joined.network.is_none() && (joined.pid.is_some() || joined.ipc.is_some()) {
        return Err(EngineError::not_implemented(
            "with user namespaces, who shares the PID or IPC namespace of a container must share its network too: a network of its own is not built",
        ));
    }
    Ok(())
}

/// Whether its ids are nobody else's.
pub(super) fn has_own_ids(record: &ContainerRecord) -> bool {
    matches!(record.spec.userns, UsernsMode::Auto { .. })
}

fn network_donor(network: &NetworkMode) -> Option<&str> {
    if let NetworkMode::Container(donor) = network { Some(donor) } else { None }
}

fn pid_donor(pid: &PidMode) -> Option<&str> {
    if let PidMode::Container(donor) = pid { Some(donor) } else { None }
}

fn ipc_donor(ipc: &IpcMode) -> Option<&str> {
    if let IpcMode::Container(donor) = ipc { Some(donor) } else { None }
}

/// A network namespace (none for the host's) and the container's place in it.
#[derive(Debug)]
struct TakenNetwork {
    namespace: Option<OwnedFd>,
    /// The user namespace that it belongs to.
    user_namespace: Option<OwnedFd>,
    endpoints: Vec<network::Endpoint>,
    name_sockets: Option<NameSockets>,
}

impl TakenNetwork {
    /// Without a place of its own.
    fn of_another(namespace: Option<OwnedFd>) -> Self {
        Self { namespace, user_namespace: None, endpoints: Vec::new(), name_sockets: None }
    }
}

fn take_network(
    inner: &Inner,
    record: &ContainerRecord,
    joined: JoinedNamespaces,
) -> Result<TakenNetwork, EngineError> {
    match &record.spec.network {
        NetworkMode::Host if !record.spec.network_disabled => Ok(TakenNetwork::of_another(None)),
        NetworkMode::Container(_) => {
            let pid = joined.network.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
            let namespace = network::namespace_of(pid)
                .map_err(|error| EngineError::system("cannot join the other container's network", error))?;
            Ok(TakenNetwork::of_another(Some(namespace)))
        }
        _ => {
            let taken = attachments::take(inner, record)?;
            Ok(TakenNetwork {
                namespace: Some(taken.namespace),
                // One in the host's user namespace has all rights over those of others.
                user_namespace: taken.user_namespace.filter(|_| record.id_mappings.is_some()),
                endpoints: taken.endpoints,
                name_sockets: taken.name_sockets,
            })
        }
    }
}

fn send(
    inner: &Inner,
    record: &ContainerRecord,
    joined: JoinedNamespaces,
    network: TakenNetwork,
    (mounts, reach, attaches, relays): (&[UserMount], Reach, Vec<HeldAttach>, Vec<Relayed>),
) -> Result<Launched, EngineError> {
    let folder = inner.container_dir(&record.id);
    let files_folder = match &record.spec.network {
        // Who shares a network shares its names and addresses.
        NetworkMode::Container(other) => inner.container_dir(&inner.index.find(other)?.id),
        _ => folder.clone(),
    };
    let linked = links::look(inner, record, &network.endpoints)?;
    if files_folder == folder {
        write_files(inner, record, &folder, &network.endpoints, &linked)?;
        write_resolv_conf(inner, record, &folder, reach)?;
    }
    let shared_memory = super::shared_memory::prepare(inner, record)?;
    let devices = resolve_devices(&record.spec)?;
    let block_devices = resolve_block_devices(&record.spec)?;
    let mut container = std::borrow::Cow::Borrowed(&record.spec);
    if !linked.environment.is_empty() {
        container.to_mut().env.splice(..0, linked.environment);
    }
    let usual = inner.options.defaults.ulimits.iter();
    let usual: Vec<_> =
        usual.filter(|limit| record.spec.resources.ulimits.iter().all(|own| own.name != limit.name)).collect();
    if !usual.is_empty() {
        container.to_mut().resources.ulimits.extend(usual.into_iter().cloned());
    }
    let mut spec = spec::build(&SpecInput {
        id: &record.id,
        engine_name: &inner.options.name,
        spec: &container,
        hostname: &record.hostname,
        command: record.command.clone(),
        mounts,
        files: container_files(record, &files_folder),
        init: record.spec.init.unwrap_or(false).then(|| inner.options.runtime.display().to_string()),
        devices: &devices,
        block_devices: &block_devices,
        joined,
        id_mappings: record.id_mappings.as_ref(),
        shared_memory: shared_memory.map(|folder| folder.display().to_string()),
        cgroup_namespace: if record.private_cgroup_namespace {
            CgroupNamespace::Private
        } else {
            CgroupNamespace::Host
        },
        host: &inner.host.spec,
    })?;
    if let Some(process) = &mut spec.process {
        process.env.extend(inner.builds.whispered(&record.id));
    }
    crate::cdi::inject(&record.spec.device_requests, &inner.options.cdi_spec_dirs, &mut spec)?;
    let isolation = isolation(inner, record)?;
    let seccomp = match &isolation {
        Isolation::Native => inner.filters.program(&record.spec, &inner.host.spec.capabilities)?,
        Isolation::Program { .. } => suit_program(inner, record, &mut spec)?,
    };
    let mut fds: Vec<OwnedFd> = Vec::with_capacity(1 + attaches.len());
    let network_namespace = network.namespace.map(|namespace| push(&mut fds, namespace));
    let user_namespace = network.user_namespace.map(|namespace| push(&mut fds, namespace));
    let attaches =
        attaches.into_iter().map(|held| Attach { socket: push(&mut fds, held.socket), ..held.attach }).collect();
    let (relays, datagram_relays) = pass_on(relays, &mut fds);
    let launch = Launch {
        id: record.id.to_string(),
        spec: Box::new(spec),
        rootfs: rootfs(inner, record, &folder)?,
        seccomp,
        identity: Identity::Lookup { groups: record.spec.group_add.clone() },
        cgroup_driver: monitor_protocol::CgroupDriver::Files,
        stdio: stdio(&record.spec),
        log: log(record, &folder)?,
        container_dir: folder,
        socket: inner.monitor_socket(&record.id),
        network_namespace,
        user_namespace,
        attaches,
        relays,
        datagram_relays,
        isolation,
    };
    // Before the first line is written: a container may be gone soon.
    inner.forward_logs(record)?;
    inner
        .monitors
        .launch(launch, fds)
        .map_err(|error| EngineError::system("cannot start the container's monitor", error))
}

/// Who runs the container.
fn isolation(inner: &Inner, record: &ContainerRecord) -> Result<Isolation, EngineError> {
    let asked = &record.spec.runtime;
    let path = match inner.current.runtimes().find(if asked.is_empty() { crate::runtimes::OWN } else { asked })? {
        Runtime::Own => return Ok(Isolation::Native),
        Runtime::Program(path) => path,
    };
    Ok(Isolation::Program {
        state_dir: inner.runtime_state_dir(path.file_name().unwrap_or_default()),
        bundle: inner.bundle_dir(&record.id),
        path,
        args: Vec::new(),
    })
}

/// Says in the configuration what our own runtime is told beside it; there is no compiled filter for others.
fn suit_program(
    inner: &Inner,
    record: &ContainerRecord,
    spec: &mut Spec,
) -> Result<Option<SeccompProgram>, EngineError> {
    spec::suit_programs(spec);
    spec.linux.get_or_insert_default().seccomp = inner.filters.rules(&record.spec, &inner.host.spec.capabilities)?;
    Ok(None)
}

/// Sockets on their way to a monitor: those that listen, and those that take datagrams.
pub(super) fn pass_on(relays: Vec<Relayed>, fds: &mut Vec<OwnedFd>) -> (Vec<Relay>, Vec<Relay>) {
    let mut one = |relayed: Relayed| Relay { listener: push(fds, relayed.socket), target: relayed.target };
    let (streams, datagrams): (Vec<_>, Vec<_>) =
        relays.into_iter().partition(|relayed| relayed.transport == Transport::Tcp);
    (streams.into_iter().map(&mut one).collect(), datagrams.into_iter().map(&mut one).collect())
}

fn push(fds: &mut Vec<OwnedFd>, fd: OwnedFd) -> FdIndex {
    fds.push(fd);
    // The numbers of held attaches and relays are limited far below 255.
    FdIndex((fds.len() - 1) as u8)
}

fn rootfs(inner: &Inner, record: &ContainerRecord, folder: &Path) -> Result<Rootfs, EngineError> {
    let lower = lower_dirs(inner, &record.layers)?;
    let mut options = match inner.snapshotter.overlay_xattrs() {
        snapshots::OverlayXattrs::Trusted => Vec::new(),
        snapshots::OverlayXattrs::User => vec!["userxattr".to_owned()],
    };
    if record.spec.auto_remove {
        // Nobody will mount it again: unmounting need not sync what is thrown away next.
        options.push("volatile".into());
    }
    Ok(Rootfs::Overlay { lower, upper: folder.join("upper"), work: folder.join("work"), options })
}

/// The folders of layers, mounted, topmost first.
pub(super) fn lower_dirs(inner: &Inner, layers: &[oci::DiffId]) -> Result<Vec<PathBuf>, EngineError> {
    let lower = inner.snapshotter.lower_dirs(layers);
    lower.map_err(|error| EngineError::system("cannot mount the image's layers", error))
}

fn stdio(spec: &ContainerSpec) -> Stdio {
    let stdin = match (spec.open_stdin, spec.stdin_once) {
        (false, _) => StdinMode::Null,
        (true, true) => StdinMode::Once,
        (true, false) => StdinMode::Open,
    };
    if spec.tty {
        let size = spec.console_size.filter(|size| size.height > 0 && size.width > 0);
        Stdio::Terminal { stdin, size: size.map(|size| WindowSize { height: size.height, width: size.width }) }
    } else {
        Stdio::Pipes { stdin }
    }
}

/// The log's path, as inspect shows it.
pub(crate) fn log_path(record: &ContainerRecord, folder: &Path) -> PathBuf {
    folder.join(format!("{}-json.log", record.id))
}

fn log(record: &ContainerRecord, folder: &Path) -> Result<MonitorLog, EngineError> {
    let config = &record.spec.log;
    if config.driver == LogDriver::None {
        return Ok(MonitorLog::None);
    }
    Ok(MonitorLog::JsonFile(JsonFile {
        path: log_path(record, folder),
        max_size_bytes: config.max_size_bytes()?,
        max_files: config.max_files()?,
        rotated: match config.compression()? {
            LogCompression::Gzip => Rotated::Compressed,
            LogCompression::None => Rotated::Plain,
        },
        attrs: crate::logs::attributes(record)?,
        delivery: match config.delivery()? {
            LogDelivery::Blocking => Delivery::Blocking,
            LogDelivery::NonBlocking { buffer_bytes } => {
                Delivery::NonBlocking { buffer_bytes: buffer_bytes.unwrap_or(JsonFile::DEFAULT_BUFFER_BYTES) }
            }
        },
    }))
}

/// What says who a container is, and where. A build's command has the image's own `/etc/hostname`, which it may change.
pub(super) fn container_files(record: &ContainerRecord, folder: &Path) -> Vec<(String, &'static str)> {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut files = vec![(path("resolv.conf"), "/etc/resolv.conf"), (path("hosts"), "/etc/hosts")];
    if !crate::builds::is_of_build(&images::ImageId::new(record.image_id), &record.layers) {
        files.push((path("hostname"), "/etc/hostname"));
    }
    files
}

/// Writes who the container is. The files need no sync: every start writes them again.
fn write_files(
    inner: &Inner,
    record: &ContainerRecord,
    folder: &Path,
    endpoints: &[network::Endpoint],
    linked: &Linked,
) -> Result<(), EngineError> {
    write(record, folder, "hostname", &network::hostname_file(&record.hostname))?;
    write(record, folder, "hosts", &hosts_file(inner, record, endpoints, linked)?)
}

/// Writes the resolver's configuration, which a running container sees as well.
pub(super) fn write_resolv_conf(
    inner: &Inner,
    record: &ContainerRecord,
    folder: &Path,
    reach: Reach,
) -> Result<(), EngineError> {
    let host = network::read_host_resolv_conf()
        .map_err(|error| EngineError::system("cannot read the host's resolv.conf", error))?;
    write(record, folder, "resolv.conf", &network::resolv_conf(&host, &wanted_dns(inner, &record.spec)?, reach))
}

/// Which name servers a container is told; `served` is whether it has one of its own.
fn reach(network: &NetworkMode, served: bool, place: &Place) -> Reach {
    match network {
        _ if served => Reach::Resolver,
        NetworkMode::Bridge | NetworkMode::Named(_) if place.endpoints.iter().any(|one| one.ipv6.is_some()) => {
            Reach::Outside
        }
        NetworkMode::Bridge | NetworkMode::Named(_) => Reach::OutsideIpv4,
        NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => Reach::Everything,
    }
}

/// Writes a file that belongs to the container's root, who may change it.
fn write(record: &ContainerRecord, folder: &Path, name: &str, text: &str) -> Result<(), EngineError> {
    let path = folder.join(name);
    let written = std::fs::write(&path, text).and_then(|()| crate::userns::give(&path, record.id_mappings.as_ref()));
    written.map_err(|error| EngineError::system(&format!("cannot write {}", path.display()), error))
}

/// The host's network has the host's names; others have Docker's list.
fn hosts_file(
    inner: &Inner,
    record: &ContainerRecord,
    endpoints: &[network::Endpoint],
    linked: &Linked,
) -> Result<String, EngineError> {
    let spec = &record.spec;
    let extra = extra_hosts(spec)?;
    let gateway = inner.networks.bridge().gateway;
    if spec.network == NetworkMode::Host && extra.is_empty() {
        return Ok(std::fs::read_to_string("/etc/hosts").unwrap_or_default());
    }
    let addresses: Vec<_> = endpoints.iter().flat_map(network::Endpoint::addresses).collect();
    let mut text = network::hosts_file(&record.hostname, &spec.domainname, &addresses, &extra, Some(gateway.into()));
    for (address, names) in &linked.hosts {
        let _ = writeln!(text, "{address}\t{names}");
    }
    Ok(text)
}

/// Changes the lines of a running container's `/etc/hosts` that name its own addresses; whatever else is in there is left alone.
pub(super) fn change_hosts(record: &ContainerRecord, folder: &Path, before: &Place, after: &Place) {
    if record.spec.network == NetworkMode::Host || matches!(record.spec.network, NetworkMode::Container(_)) {
        return;
    }
    let addresses = |place: &Place| place.endpoints.iter().flat_map(network::Endpoint::addresses).collect::<Vec<_>>();
    let names = (record.hostname.as_str(), record.spec.domainname.as_str());
    rewrite_hosts(record, folder, |text| network::change_hosts(text, names, &addresses(before), &addresses(after)));
}

/// Takes the line of a link out of a container's `/etc/hosts`, if it has been started.
pub(super) fn forget_host(record: &ContainerRecord, folder: &Path, alias: &str) {
    if !folder.join("hosts").exists() {
        return;
    }
    rewrite_hosts(record, folder, |text| {
        let others = text.lines().filter(|line| line.split_whitespace().nth(1) != Some(alias));
        others.flat_map(|line| [line, "\n"]).collect()
    });
}

/// A container that runs goes on with what it has where this fails.
fn rewrite_hosts(record: &ContainerRecord, folder: &Path, change: impl FnOnce(&str) -> String) {
    let changed = std::fs::read_to_string(folder.join("hosts"))
        .map_err(|error| EngineError::system("cannot read the container's hosts file", error))
        .and_then(|text| write(record, folder, "hosts", &change(&text)));
    if let Err(error) = changed {
        tracing::warn!("container {}: {error}", record.id);
    }
}

/// `--add-host`, parsed.
pub(crate) fn extra_hosts(spec: &ContainerSpec) -> Result<Vec<network::ExtraHost>, EngineError> {
    let parse =
        |text: &String| network::ExtraHost::parse(text).map_err(|error| EngineError::invalid(error.to_string()));
    spec.extra_hosts.iter().map(parse).collect()
}

/// Where a container's names are looked up: as it says, or as the engine's options do for all.
pub(super) fn wanted_dns(inner: &Inner, spec: &ContainerSpec) -> Result<network::Dns, EngineError> {
    let (own, usual) = (dns(spec)?, &inner.options.defaults);
    let or = |own: Vec<String>, usual: &Vec<String>| if own.is_empty() { usual.clone() } else { own };
    Ok(network::Dns {
        servers: if own.servers.is_empty() { usual.dns.clone() } else { own.servers },
        search: or(own.search, &usual.dns_search),
        options: or(own.options, &usual.dns_options),
    })
}

/// `--dns` and its kin, parsed.
pub(crate) fn dns(spec: &ContainerSpec) -> Result<network::Dns, EngineError> {
    let parse = |text: &String| {
        text.parse().map_err(|_| EngineError::invalid(format!("bad parameter: {text} is not an IP address")))
    };
    Ok(network::Dns {
        servers: spec.dns.iter().map(parse).collect::<Result<_, _>>()?,
        search: spec.dns_search.clone(),
        options: spec.dns_options.clone(),
    })
}

fn user_mount(inner: &Inner, mount: &PlannedMount, staged: &mut Staged) -> Result<UserMount, EngineError> {
    let bind = |path: PathBuf, recursion, owners| UserMountSource::Bind {
        path: path.display().to_string(),
        recursion,
        owners,
    };
    let source = match &mount.source {
        PlannedSource::Host { path, create, recursion } => {
            require_source(path, *create)?;
            let mapped = mount.mode.split(',').any(|word| word == "idmap");
            bind(path.into(), *recursion, if mapped { Owners::Container } else { Owners::Host })
        }
        PlannedSource::Volume { name, subpath, .. } => {
            let folder = inner.volumes.mountpoint(name.as_deref().unwrap_or_default());
            let path = match subpath {
                Some(subpath) => stage(mount, subpath, trees::below(&folder, subpath), staged)?,
                None => folder,
            };
            bind(path, BindRecursion::Recursive, Owners::Container)
        }
        PlannedSource::Tmpfs { options } => UserMountSource::Tmpfs { options: options.clone() },
        PlannedSource::Image { reference, layers, subpath } => {
            let tree = trees::image(&lower_dirs(inner, layers)?, subpath.as_deref());
            bind(
                stage(mount, subpath.as_ref().unwrap_or(reference), tree, staged)?,
                BindRecursion::Recursive,
                Owners::Host,
            )
        }
    };
    Ok(UserMount { target: mount.target.clone(), source, access: mount.access, propagation: mount.propagation })
}

fn stage(
    mount: &PlannedMount,
    what: &str,
    tree: std::io::Result<OwnedFd>,
    staged: &mut Staged,
) -> Result<PathBuf, EngineError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => EngineError::invalid(format!(
            "cannot access path {what} of the mount at {}: it does not exist",
            mount.target
        )),
        _ => EngineError::system(&format!("cannot mount {what} at {}", mount.target), error),
    };
    tree.and_then(|tree| staged.put(tree.as_fd())).map_err(failed)
}

/// `-v` makes a missing source a folder; `--mount` refuses it.
pub(super) fn require_source(path: &str, create: bool) -> Result<(), EngineError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if create && error.kind() == std::io::ErrorKind::NotFound => std::fs::create_dir_all(path)
            .map_err(|error| EngineError::system(&format!("error while creating mount source path '{path}'"), error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(EngineError::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {path}"
        ))),
        Err(error) => Err(EngineError::system(&format!("cannot use the mount source {path}"), error)),
    }
}

/// `--device`, and with `--privileged` all of the host's.
fn resolve_devices(spec: &ContainerSpec) -> Result<Vec<ResolvedDevice>, EngineError> {
    if spec.privileged {
        return Ok(host_devices(Path::new("/dev")));
    }
    let mut devices = Vec::new();
    for device in &spec.resources.devices {
        let found = resolve_device(Path::new(&device.host_path), &device.container_path, &device.permissions);
        devices.extend(found.map_err(|error| {
            EngineError::new(
                crate::model::ErrorKind::System,
                format!(
                    "error gathering device information while adding custom device \"{}\": {error}",
                    device.host_path
                ),
            )
        })?);
    }
    Ok(devices)
}

/// A device, or all devices below a folder, as Docker takes `--device /dev/snd`.
fn resolve_device(host: &Path, container: &str, permissions: &str) -> Result<Vec<ResolvedDevice>, std::io::Error> {
    let metadata = std::fs::metadata(host)?;
    if !metadata.is_dir() {
        return match device_of(&metadata, container, permissions) {
            Some(device) => Ok(vec![device]),
            None => Err(std::io::Error::other("not a device node")),
        };
    }
    let mut devices = Vec::new();
    for entry in std::fs::read_dir(host)? {
        let entry = entry?;
        let target = format!("{}/{}", container.trim_end_matches('/'), entry.file_name().to_string_lossy());
        if let Ok(found) = resolve_device(&entry.path(), &target, permissions) {
            devices.extend(found);
        }
    }
    if devices.is_empty() {
        return Err(std::io::Error::other("not a device node"));
    }
    Ok(devices)
}

fn device_of(metadata: &std::fs::Metadata, container: &str, permissions: &str) -> Option<ResolvedDevice> {
    let file_type = metadata.file_type();
    let kind = match (file_type.is_char_device(), file_type.is_block_device()) {
        (true, _) => LinuxDeviceType::Character,
        (_, true) => LinuxDeviceType::Block,
        _ => return None,
    };
    Some(ResolvedDevice {
        path: container.into(),
        kind,
        number: number_of(metadata.rdev()),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        permissions: permissions.into(),
    })
}

fn number_of(device: u64) -> DeviceNumber {
    DeviceNumber { major: rustix::fs::major(device).into(), minor: rustix::fs::minor(device).into() }
}

/// Every device below `/dev` but terminals and what the container makes itself.
fn host_devices(folder: &Path) -> Vec<ResolvedDevice> {
    const SKIPPED: &[&str] = &["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
    let mut devices = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => devices.extend(host_devices(&path)),
            Ok(metadata) => devices.extend(device_of(&metadata, &path.display().to_string(), "rwm")),
            Err(_) => {}
        }
    }
    devices
}

fn resolve_block_devices(spec: &ContainerSpec) -> Result<BlockDevices, EngineError> {
    let resources = &spec.resources;
    let rates = [
        &resources.blkio_read_bps,
        &resources.blkio_write_bps,
        &resources.blkio_read_iops,
        &resources.blkio_write_iops,
    ];
    let paths = rates
        .into_iter()
        .flatten()
        .map(|rate| &rate.path)
        .chain(resources.blkio_weight_device.iter().map(|weight| &weight.path));
    let mut devices = BlockDevices::new();
    for path in paths {
        let metadata = std::fs::metadata(path)
            .map_err(|error| EngineError::system(&format!("cannot use the device {path}"), error))?;
        if !metadata.file_type().is_block_device() {
            return Err(EngineError::invalid(format!("{path} is not a block device")));
        }
        devices.insert(path.clone(), number_of(metadata.rdev()));
    }
    Ok(devices)
}
