//! From a container's description and the host's facts to the runtime's specification; pure.
//!
//! The defaults are Docker's: fourteen capabilities, its masked and read-only paths, its mounts and device rules.

mod capabilities;
mod defaults;
mod environment;
mod resources;

use oci::ContainerId;
use oci::runtime::{
    ConsoleSize, Linux, LinuxDevice, LinuxNamespace, LinuxNamespaceType, Mount, PosixRlimit, Process, RlimitType, Root,
    RootfsPropagation, Spec, User,
};

pub(crate) use capabilities::{exec_capabilities, granted};
pub use defaults::{MASKED_PATHS, READONLY_PATHS};
pub(crate) use resources::{BlockDevices, DeviceNumber, ResolvedDevice, linux_resources, update_resources};

use crate::apparmor;
use crate::model::{
    Access, ContainerSpec, EngineError, ExecSpec, IpcMode, NetworkMode, PidMode, Propagation, SecurityMeaning, UtsMode,
};
use crate::userns::IdMappings;

/// Runtime-spec version that the result keeps to.
const OCI_VERSION: &str = "1.2.0";
/// What every other runtime understands.
const OLD_OCI_VERSION: &str = "1.0.2";
/// Where `--init`'s program is in the container, as in Docker.
pub(crate) const INIT_TARGET: &str = "/sbin/docker-init";
/// Docker's size of /dev/shm.
pub(crate) const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// Everything that a specification is made from.
#[derive(Debug)]
pub(crate) struct SpecInput<'a> {
    pub(crate) id: &'a ContainerId,
    /// The engine's name, the default cgroup parent.
    pub(crate) engine_name: &'a str,
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) hostname: &'a str,
    /// Entrypoint and command.
    pub(crate) command: Vec<String>,
    /// Mounts of the user, sorted so that parents come first.
    pub(crate) mounts: &'a [UserMount],
    /// Files of ours that are bind-mounted: host path and target.
    pub(crate) files: Vec<(String, &'static str)>,
    /// The init program on the host, with `--init`.
    pub(crate) init: Option<String>,
    /// Device nodes of `--device`, and of the host when privileged.
    pub(crate) devices: &'a [ResolvedDevice],
    /// Numbers of the block devices that blkio limits name.
    pub(crate) block_devices: &'a BlockDevices,
    /// The first processes of containers whose namespaces are joined.
    pub(crate) joined: JoinedNamespaces,
    /// The users of the container's own user namespace.
    pub(crate) id_mappings: Option<&'a IdMappings>,
    /// The folder to bind at /dev/shm, for those who share it.
    pub(crate) shared_memory: Option<String>,
    /// Whether the cgroup namespace is private.
    pub(crate) cgroup_namespace: CgroupNamespace,
    pub(crate) host: &'a SpecHost,
}

/// What the specification must know of the host.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpecHost {
    /// Capabilities that can be given.
    pub(crate) capabilities: Vec<String>,
    /// Whether memory and swap together can be limited.
    pub(crate) swap_limit: bool,
    /// Whether read-only binds can be so below as well (Linux 5.12).
    pub(crate) recursive_read_only: bool,
    /// Whether the host itself has /dev/mqueue, which `--ipc host` shares.
    pub(crate) message_queues: bool,
    /// Per-CPU thermal counters, which tell containers about each other.
    pub(crate) thermal_paths: Vec<String>,
    /// Whether the kernel has the AppArmor profile of containers that ask for none.
    pub(crate) apparmor_default: bool,
}

/// Whose namespaces are joined: the pid of each container's first process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct JoinedNamespaces {
    pub(crate) ipc: Option<i32>,
    pub(crate) pid: Option<i32>,
    /// The other container's network; it also gives its UTS namespace nothing: Docker shares only the host name's text.
    pub(crate) network: Option<i32>,
}

/// Which cgroup namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CgroupNamespace {
    Private,
    Host,
}

/// One mount of the user, resolved to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserMount {
    pub(crate) target: String,
    pub(crate) source: UserMountSource,
    pub(crate) access: Access,
    pub(crate) propagation: Option<Propagation>,
}

/// Whose ids the files of a bind have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// The host's: in a user namespace they belong to nobody.
    Host,
    /// The container's, as those of volumes: there they are mapped as the container's own files are.
    Container,
}

/// What a user's mount mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UserMountSource {
    /// A path of the host.
    Bind { path: String, recursion: crate::model::BindRecursion, owners: Owners },
    /// Memory, with mount(8)'s options.
    Tmpfs { options: Vec<String> },
}

/// Builds the specification.
pub(crate) fn build(input: &SpecInput<'_>) -> Result<Spec, EngineError> {
    Ok(Spec {
        oci_version: OCI_VERSION.into(),
        process: Some(process(input)?),
        root: Some(Root { path: "rootfs".into(), readonly: input.spec.readonly_rootfs }),
        hostname: if input.spec.uts == UtsMode::Host { String::new() } else { input.hostname.into() },
        domainname: if input.spec.uts == UtsMode::Host { String::new() } else { input.spec.domainname.clone() },
        mounts: mounts(input),
        annotations: input.spec.annotations.clone(),
        linux: Some(linux(input)?),
        ..Spec::default()
    })
}

/// Puts a specification into the words of runtimes that are older than it.
pub(crate) fn suit_programs(spec: &mut Spec) {
    // crun refuses versions that it does not know, and what is newer is not used beyond what follows.
    OLD_OCI_VERSION.clone_into(&mut spec.oci_version);
    if !spec.domainname.is_empty() {
        // Docker's way: the field is of 1.1 and silently ignored before.
        let domainname = std::mem::take(&mut spec.domainname);
        spec.linux.get_or_insert_default().sysctl.insert("kernel.domainname".into(), domainname);
    }
}

/// The process of an exec in this container.
pub(crate) fn exec_process(container: &ContainerSpec, hostname: &str, host: &SpecHost, exec: &ExecSpec) -> Process {
    let env = environment::exec_environment(container, hostname, exec.tty, &exec.env);
    let user = if exec.user.is_empty() { &container.user } else { &exec.user };
    let cwd = if exec.working_dir.is_empty() { &container.working_dir } else { &exec.working_dir };
    Process {
        terminal: exec.tty,
        console_size: exec.console_size.map(console_size),
        user: User { username: user.clone(), ..User::default() },
        args: exec.command.clone(),
        env,
        cwd: or_root(cwd),
        capabilities: Some(exec_capabilities(container, exec, &host.capabilities)),
        no_new_privileges: no_new_privileges(container),
        apparmor_profile: match exec.privileged && host.apparmor_default {
            true => apparmor::UNCONFINED.to_owned(),
            false => apparmor::profile_of(container, host.apparmor_default).to_owned(),
        },
        ..Process::default()
    }
}

fn process(input: &SpecInput<'_>) -> Result<Process, EngineError> {
    let spec = input.spec;
    let mut args = input.command.clone();
    if input.init.is_some() {
        args.splice(0..0, [INIT_TARGET.to_owned(), "--".to_owned()]);
    }
    Ok(Process {
        terminal: spec.tty,
        console_size: spec.console_size.filter(|_| spec.tty).map(console_size),
        user: User { username: spec.user.clone(), ..User::default() },
        args,
        env: environment::container_environment(spec, input.hostname),
        cwd: or_root(&spec.working_dir),
        capabilities: Some(capabilities::container_capabilities(spec, &input.host.capabilities)),
        rlimits: rlimits(spec)?,
        no_new_privileges: no_new_privileges(spec),
        apparmor_profile: apparmor::profile_of(spec, input.host.apparmor_default).to_owned(),
        oom_score_adj: Some(spec.oom_score_adj),
        ..Process::default()
    })
}

fn console_size(size: crate::model::TerminalSize) -> ConsoleSize {
    ConsoleSize { height: size.height.into(), width: size.width.into() }
}

fn or_root(path: &str) -> String {
    if path.is_empty() { "/".into() } else { path.into() }
}

fn rlimits(spec: &ContainerSpec) -> Result<Vec<PosixRlimit>, EngineError> {
    spec.resources
        .ulimits
        .iter()
        .map(|limit| {
            let kind: RlimitType = serde_json::from_value(limit.rlimit_name().into())
                .map_err(|_| EngineError::invalid(format!("invalid ulimit type: {}", limit.name)))?;
            // -1 is unlimited, which is all ones for the kernel too.
            Ok(PosixRlimit { kind, hard: limit.hard as u64, soft: limit.soft as u64 })
        })
        .collect()
}

fn no_new_privileges(spec: &ContainerSpec) -> bool {
    let mut on = false;
    for option in &spec.security {
        match option.meaning {
            SecurityMeaning::NoNewPrivileges => on = true,
            SecurityMeaning::NewPrivilegesAllowed => on = false,
            _ => {}
        }
    }
    on
}

/// Whether `systempaths=unconfined` was asked for.
fn open_system_paths(spec: &ContainerSpec) -> bool {
    spec.security.iter().any(|option| option.meaning == SecurityMeaning::SystemPathsUnconfined)
}

fn writable_cgroups(spec: &ContainerSpec) -> bool {
    spec.privileged || spec.security.iter().any(|option| option.meaning == SecurityMeaning::WritableCgroups(true))
}

fn linux(input: &SpecInput<'_>) -> Result<Linux, EngineError> {
    let spec = input.spec;
    Ok(Linux {
        sysctl: spec.sysctls.clone(),
        resources: Some(linux_resources(spec, input.devices, input.block_devices, input.host)),
        cgroups_path: cgroup_path(input.engine_name, input.spec, input.id),
        namespaces: namespaces(input),
        uid_mappings: input.id_mappings.map(|mappings| mappings.uids.clone()).unwrap_or_default(),
        gid_mappings: input.id_mappings.map(|mappings| mappings.gids.clone()).unwrap_or_default(),
        devices: input.devices.iter().map(device_node).collect(),
        rootfs_propagation: Some(rootfs_propagation(input.mounts)),
        masked_paths: masked_paths(spec, input.host),
        readonly_paths: readonly_paths(spec),
        ..Linux::default()
    })
}

/// Where the container's cgroup is, below each hierarchy's root.
/// Where a container's cgroup is.
pub(crate) fn cgroup_path(engine_name: &str, spec: &ContainerSpec, id: &oci::ContainerId) -> String {
    let parent = spec.resources.cgroup_parent.trim_matches('/');
    let parent = if parent.is_empty() { engine_name } else { parent };
    format!("/{parent}/{id}")
}

fn device_node(device: &ResolvedDevice) -> LinuxDevice {
    LinuxDevice {
        path: device.path.clone(),
        kind: device.kind,
        major: device.number.major,
        minor: device.number.minor,
        file_mode: Some(device.mode),
        uid: Some(device.uid),
        gid: Some(device.gid),
    }
}

/// A slave or shared mount needs a root that is not private.
fn rootfs_propagation(mounts: &[UserMount]) -> RootfsPropagation {
    let asked =
        |wanted: &[Propagation]| mounts.iter().any(|mount| mount.propagation.is_some_and(|p| wanted.contains(&p)));
    if asked(&[Propagation::Shared, Propagation::RShared]) {
        RootfsPropagation::Shared
    } else if asked(&[Propagation::Slave, Propagation::RSlave]) {
        RootfsPropagation::Slave
    } else {
        RootfsPropagation::Private
    }
}

fn masked_paths(spec: &ContainerSpec, host: &SpecHost) -> Vec<String> {
    if spec.privileged || open_system_paths(spec) {
        return Vec::new();
    }
    match &spec.masked_paths {
        Some(paths) => paths.clone(),
        None => defaults::MASKED_PATHS
            .iter()
            .map(|path| (*path).to_owned())
            .chain(host.thermal_paths.iter().cloned())
            .collect(),
    }
}

fn readonly_paths(spec: &ContainerSpec) -> Vec<String> {
    if spec.privileged || open_system_paths(spec) {
        return Vec::new();
    }
    match &spec.readonly_paths {
        Some(paths) => paths.clone(),
        None => defaults::READONLY_PATHS.iter().map(|path| (*path).to_owned()).collect(),
    }
}

fn namespaces(input: &SpecInput<'_>) -> Vec<LinuxNamespace> {
    let spec = input.spec;
    let new = |kind| LinuxNamespace { kind, path: String::new() };
    let join = |kind, pid: Option<i32>, file: &str| LinuxNamespace {
        kind,
        path: pid.map(|pid| format!("/proc/{pid}/ns/{file}")).unwrap_or_default(),
    };
    let mut list = vec![new(LinuxNamespaceType::Mount)];
    match spec.network {
        NetworkMode::Host => {}
        NetworkMode::Container(_) => list.push(join(LinuxNamespaceType::Network, input.joined.network, "net")),
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => list.push(new(LinuxNamespaceType::Network)),
    }
    if spec.uts == UtsMode::Private {
        list.push(new(LinuxNamespaceType::Uts));
    }
    match spec.pid {
        PidMode::Host => {}
        PidMode::Container(_) => list.push(join(LinuxNamespaceType::Pid, input.joined.pid, "pid")),
        PidMode::Private => list.push(new(LinuxNamespaceType::Pid)),
    }
    match spec.ipc {
        IpcMode::Host => {}
        IpcMode::Container(_) => list.push(join(LinuxNamespaceType::Ipc, input.joined.ipc, "ipc")),
        IpcMode::Private | IpcMode::None | IpcMode::Shareable => list.push(new(LinuxNamespaceType::Ipc)),
    }
    if input.id_mappings.is_some() {
        // A new one is given to the monitor with the network that belongs to it.
        list.push(join(LinuxNamespaceType::User, input.joined.network, "user"));
    }
    if input.cgroup_namespace == CgroupNamespace::Private {
        list.push(new(LinuxNamespaceType::Cgroup));
    }
    list
}

/// The default mounts that no user's mount replaces; then our files and the user's mounts, parents before children, so that a volume
/// on `/etc` does not hide `/etc/hosts`.
fn mounts(input: &SpecInput<'_>) -> Vec<Mount> {
    let replaced =
        |target: &str| input.mounts.iter().any(|mount| mount.target == target || is_dev_below(&mount.target, target));
    let defaults = defaults::mounts(input.spec, writable_cgroups(input.spec), input.host.message_queues);
    let defaults = defaults.into_iter().chain(shared_memory(input)).filter(|mount| !replaced(&mount.destination));
    let access = if input.spec.readonly_rootfs { "ro" } else { "rw" };
    let files = input.files.iter().filter(|(_, target)| !replaced(target));
    let files = files.map(|(source, target)| bind(source, target, &["rbind", "rprivate", access]));
    let init = input.init.iter().map(|init| bind(init, INIT_TARGET, &["bind", "ro", "rprivate"]));
    let wished = input.mounts.iter().map(|mount| user_mount(mount, input));
    let mut own: Vec<Mount> = files.chain(init).chain(wished).collect();
    own.sort_by_key(|mount| mount.destination.matches('/').count());
    defaults.chain(own).collect()
}

/// A user's `/dev` takes the place of everything that we would mount below it.
fn is_dev_below(user: &str, default: &str) -> bool {
    user == "/dev" && default.starts_with("/dev/")
}

fn shared_memory(input: &SpecInput<'_>) -> Option<Mount> {
    let target = "/dev/shm";
    match &input.spec.ipc {
        IpcMode::Private => {
            let bytes = if input.spec.shm_size_bytes == 0 { DEFAULT_SHM_BYTES } else { input.spec.shm_size_bytes };
            let size = format!("size={bytes}");
            Some(defaults::mount(target, "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]))
        }
        IpcMode::Host => Some(bind("/dev/shm", target, &["rbind", "rprivate"])),
        IpcMode::Shareable | IpcMode::Container(_) => {
            input.shared_memory.as_deref().map(|folder| bind(folder, target, &["bind", "rprivate"]))
        }
        IpcMode::None => None,
    }
}

fn bind(source: &str, target: &str, options: &[&str]) -> Mount {
    defaults::mount(target, "bind", source, options)
}

fn user_mount(mount: &UserMount, input: &SpecInput<'_>) -> Mount {
    use crate::model::BindRecursion;
    match &mount.source {
        UserMountSource::Tmpfs { options } => {
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            defaults::mount(&mount.target, "tmpfs", "tmpfs", &options)
        }
        UserMountSource::Bind { path, recursion, owners } => {
            let bind_kind = if *recursion == BindRecursion::NonRecursive { "bind" } else { "rbind" };
            // No word for read-write: `rw` would make writable what the host has mounted read-only.
            let access = match (mount.access, recursion) {
                (Access::ReadWrite, _) => None,
                (Access::ReadOnly, BindRecursion::Recursive) if input.host.recursive_read_only => Some("rro"),
                (Access::ReadOnly, BindRecursion::ForceReadOnly) => Some("rro"),
                (Access::ReadOnly, _) => Some("ro"),
            };
            let propagation = mount.propagation.map_or("rprivate", Propagation::as_str);
            let mut options: Vec<&str> = [bind_kind].into_iter().chain(access).chain([propagation]).collect();
            if *owners == Owners::Container && input.id_mappings.is_some() {
                options.push("idmap");
            }
            bind(path, &mount.target, &options)
        }
    }
}

#[cfg(test)]
mod tests;
