//! Creating a container, from the creator's side: check, prepare, clone, answer init's questions, wait.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroups::{ApplyError, Cgroup, DeviceError, Host, SystemdUnit, Version};
use linux::Errno;
use linux::clone::{Child, CloneArgs, Cloned, Parentage, clone3};
use linux::mount_attr::{MountAttr, Reach, set_attributes};
use linux::{credentials, namespace};
use oci::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, LinuxResources, Process, Spec, State, Status};
use rustix::mount::MountAttrFlags;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::cgroup_mount::{CgroupView, Shown, V1View};
use crate::channel::{Channel, Inbox, Message, Successor};
use crate::container::{Membership, Running, cgroup_error, cgroup_path, detect_host, initial_state, reap};
use crate::devices::DevicePlan;
use crate::error::{Context, Error, Result, Stage};
use crate::finish::{self, CapabilityPlan, ProcessPlan};
use crate::hooks::{self, Point};
use crate::id_maps;
use crate::init::{self, Gate, Job};
use crate::masked;
use crate::mount_options::{IdMapped, PROPAGATION_PRIVATE};
use crate::mounts::{self, OpenedSource, PlannedMount};
use crate::namespaces::{self, NamespacePlan};
use crate::properties;
use crate::request::{CgroupAccess, CgroupManager, CreateRequest, Identity, Pivot, Rootfs, SeccompFilter};
use crate::rootfs::{self, Mapped, PreparedRoot, RootChange};
use crate::seccomp_notify;
use crate::sysctl;

/// What init waits for when all is ready.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// Nothing.
    Not,
    /// A word of the creator.
    ForCreator,
    /// A connection to this socket.
    OnListener(OwnedFd),
}

/// Creates a container. The channel is of use when init waits for the creator.
pub(crate) fn create(mut request: CreateRequest<'_>, waiting: Waiting) -> Result<(Running, Channel)> {
    let default_linux = Linux::default();
    let default_process = Process::default();
    let spec = request.spec;
    let linux = spec.linux.as_ref().unwrap_or(&default_linux);
    let process = spec.process.as_ref().unwrap_or(&default_process);
    let namespaces = NamespacePlan::plan(spec, [request.network_namespace.take(), request.user_namespace.take()])?;
    check(spec, linux, process, &namespaces)?;
    let filter = seccomp_filter(&mut request, linux)?;
    let mounts = spec.mounts.iter().map(PlannedMount::plan).collect::<Result<Vec<_>>>()?;
    let mut warnings: Vec<String> = mounts.iter().flat_map(PlannedMount::options_without_effect).collect();
    let grantable = if namespaces.other_user_namespace { u64::MAX } else { own_capabilities()? };
    let capabilities = CapabilityPlan::plan(process, grantable, &mut warnings);
    let mut cgroup = make_cgroup(&request, linux, &mut warnings)?;
    cgroup.is_handed_down = may_manage_its_cgroup(&mounts, linux, &namespaces);
    if let Some(made) = cgroup.cgroup.as_ref().filter(|_| cgroup.is_handed_down) {
        delegate(made, linux)?;
    }
    let identity = request.identity.clone();
    let prepared =
        Prepared { linux, process, namespaces, mounts, capabilities, filter: filter.as_ref(), identity: &identity };
    let cleanup_cgroup = cgroup.saved.clone();
    let created = create_prepared(request, prepared, cgroup, waiting);
    match created {
        Ok((mut running, channel)) => {
            running.warnings.splice(0..0, warnings);
            Ok((running, channel))
        }
        Err(error) => {
            if let Some(cgroup) = cleanup_cgroup.and_then(|saved| Cgroup::open(&saved).ok()) {
                // The first error is the one to tell.
                let _left_behind = cgroup.kill_all();
                let _left_behind = cgroup.remove();
            }
            Err(error)
        }
    }
}

/// What the configuration became before anything was made.
struct Prepared<'a> {
    linux: &'a Linux,
    process: &'a Process,
    namespaces: NamespacePlan,
    mounts: Vec<PlannedMount<'a>>,
    capabilities: CapabilityPlan,
    filter: Option<&'a SeccompFilter>,
    identity: &'a Identity,
}

/// The container's cgroup and how init gets into it.
#[derive(Default)]
struct PreparedCgroup {
    cgroup: Option<Cgroup>,
    saved: Option<cgroups::Saved>,
    view: CgroupView,
    /// systemd wants the pid when it makes the scope.
    systemd: Option<Host>,
    /// Whether the container's root gets it, to make others below.
    is_handed_down: bool,
}

fn create_prepared(
    request: CreateRequest<'_>,
    prepared: Prepared<'_>,
    mut cgroup: PreparedCgroup,
    waiting: Waiting,
) -> Result<(Running, Channel)> {
    let spec = request.spec;
    let state = initial_state(&request);
    let entry = match &cgroup.cgroup {
        Some(cgroup) => Some(cgroup.entry().map_err(|error| cgroup_error(&error))?),
        None => None,
    };
    let root = prepare_root(&prepared, &request.rootfs)?;
    let pristine = match &root {
        PreparedRoot::Detached { pristine: Some(pristine), .. } => Some(
            rustix::io::fcntl_dupfd_cloexec(pristine, 3).context(Stage::Rootfs, || "cannot duplicate a descriptor")?,
        ),
        _ => None,
    };
    let membership = Membership {
        namespaces: prepared.namespaces.all(),
        id: request.id.to_owned(),
        groups: match prepared.identity {
            Identity::Lookup { groups } => groups.clone(),
            Identity::Numbers => Vec::new(),
        },
        root_on_host: root_on_host(&prepared.namespaces, &request.rootfs)?,
        personality: prepared.linux.personality.clone(),
        memory_policy: prepared.linux.memory_policy.clone(),
        intel_rdt: prepared.linux.intel_rdt.clone(),
    };
    let root_change = match request.pivot {
        _ if membership.root_on_host.is_some() => RootChange::Chroot,
        Pivot::PivotRoot => RootChange::PivotRoot,
        Pivot::MoveMount => RootChange::MoveMount,
    };
    let waits_on_creator = matches!(waiting, Waiting::ForCreator);
    let waits = !matches!(waiting, Waiting::Not);
    let v2 = entry.as_ref().and_then(|entry| entry.v2.as_ref()).map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3));
    let v2 = v2.transpose().context(Stage::Cgroup, || "cannot duplicate a descriptor")?;
    let mapped_sources = open_mapped_sources(&prepared, request.bundle)?;
    let job = Job {
        spec,
        linux: prepared.linux,
        bundle: request.bundle,
        devices: DevicePlan::plan(&prepared.linux.devices)?,
        mounts: prepared.mounts,
        mapped_sources,
        root: Some(root),
        cgroups: std::mem::take(&mut cgroup.view),
        cgroup_entry: entry,
        waits_for_cgroup: cgroup.systemd.is_some(),
        process: ProcessPlan {
            process: prepared.process,
            capabilities: prepared.capabilities,
            seccomp: prepared.filter,
            identity: prepared.identity,
            preserve_fds: request.preserve_fds,
            keyring: request.keyring,
            id: request.id,
        },
        namespaces: prepared.namespaces,
        stdio: request.stdio,
        root_change,
        gate: match waiting {
            Waiting::Not => Gate::Open,
            Waiting::ForCreator => Gate::Creator,
            Waiting::OnListener(listener) => Gate::Listener(listener),
        },
        tells_when_mounted: needs_word_when_mounted(spec, prepared.linux),
        state: state.clone(),
    };
    let (here, there) = Channel::pair()?;
    let successor = if job.namespaces.needs_intermediate() { Successor::Expected } else { Successor::None };
    let child = spawn(job, there, &here, v2.as_ref())?;
    let mut creator = Creator {
        spec,
        linux: prepared.linux,
        process: prepared.process,
        state,
        cgroup,
        child,
        channel: &here,
        inbox: Inbox::new(&here, successor),
        console: None,
        rootfs_mount: pristine,
        waits,
        access: request.cgroup_access,
        warnings: Vec::new(),
    };
    match creator.serve() {
        Ok(()) => {
            let Creator { child, console, rootfs_mount, cgroup, warnings, .. } = creator;
            let mut running = Running::found(child, cgroup.cgroup, membership);
            running.warnings = warnings;
            running.console = console;
            running.rootfs_mount = rootfs_mount;
            let _unused_when_started = waits_on_creator;
            Ok((running, here))
        }
        Err(error) => {
            creator.end();
            membership.unmount_root();
            Err(error)
        }
    }
}

/// The root; an overlay's layers with the ids of the container's user namespace, where it has one of its own.
fn prepare_root<'r>(prepared: &Prepared<'_>, rootfs: &'r Rootfs) -> Result<PreparedRoot<'r>> {
    let first = |mappings: &[LinuxIdMapping]| mappings.first().map(|mapping| mapping.host_id);
    let ids = (first(&prepared.linux.uid_mappings), first(&prepared.linux.gid_mappings));
    let (Rootfs::Overlay { .. }, (Some(uid), Some(gid))) = (rootfs, ids) else { return rootfs::prepare(rootfs, None) };
    let made;
    let user_namespace = match prepared.namespaces.joined_user() {
        Some(joined) => joined,
        None => {
            made = id_maps::namespace_with(&prepared.linux.uid_mappings, &prepared.linux.gid_mappings)?;
            made.as_fd()
        }
    };
    rootfs::prepare(rootfs, Some(Mapped { user_namespace, uid, gid }))
}

/// Where the root will be mounted for everybody to see, when the container is to have no mount namespace of its own.
fn root_on_host(namespaces: &NamespacePlan, rootfs: &Rootfs) -> Result<Option<PathBuf>> {
    match rootfs {
        _ if namespaces.all() & namespace::MOUNT != 0 => Ok(None),
        Rootfs::Directory { path } => Ok(Some(path.clone())),
        Rootfs::Overlay { .. } => {
            Err(Error::new(Stage::Spec, "an overlay needs a mount namespace of the container's own"))
        }
    }
}

/// Clones init (or the process that creates it), with the pid and time namespaces of children set for that moment.
fn spawn(job: Job<'_>, there: Channel, here: &Channel, v2: Option<&OwnedFd>) -> Result<Child> {
    let failed = || "cannot create the container's first process";
    let mut flags = job.namespaces.new & !namespace::CGROUP;
    let intermediate = job.namespaces.needs_intermediate();
    let mut return_to = Vec::new();
    if intermediate {
        flags = 0;
    } else {
        if let Some(joined) = job.namespaces.joined.iter().find(|joined| joined.kind == namespace::PID) {
            return_to.push((namespaces::current("pid")?, namespace::PID));
            joined.join()?;
            // Those who are in there can see init at once.
            credentials::set_not_dumpable().context(Stage::Namespaces, || "prctl")?;
        }
        if flags & namespace::TIME != 0 {
            return_to.push((namespaces::current("time")?, namespace::TIME));
            init::new_time_namespace(job.linux)?;
            flags &= !namespace::TIME;
        }
    }
    let args = CloneArgs { namespaces: flags, cgroup: v2.map(AsFd::as_fd), parent: Parentage::Caller };
    let cloned = match clone3(&args) {
        Ok(Cloned::Child) => {
            close_in_child(here);
            init::run(job, there)
        }
        Ok(Cloned::Parent(child)) => Ok(child),
        Err(errno) => Err(errno).context(Stage::Namespaces, failed),
    };
    for (namespace, kind) in &return_to {
        namespace::join(namespace.as_fd(), *kind)
            .context(Stage::Namespaces, || "cannot return to the own namespace")?;
    }
    cloned
}

/// Closes the creator's end in init, so that init notices when the creator is gone.
pub(crate) fn close_in_child(here: &Channel) {
    use std::os::fd::AsRawFd;
    let number = here.as_fd().as_raw_fd();
    // The owner's copy in this process is never dropped: the process runs another program or exits at once.
    let _closed_or_was = linux::fds::close_range(number, number);
}

/// The creator while init works.
struct Creator<'a> {
    spec: &'a Spec,
    linux: &'a Linux,
    process: &'a Process,
    state: State,
    cgroup: PreparedCgroup,
    child: Child,
    channel: &'a Channel,
    inbox: Inbox<'a>,
    console: Option<OwnedFd>,
    rootfs_mount: Option<OwnedFd>,
    waits: bool,
    access: CgroupAccess,
    /// What is left out of what is made while init waits.
    warnings: Vec<String>,
}

impl Creator<'_> {
    /// Answers init until it is ready, or has run its program.
    fn serve(&mut self) -> Result<()> {
        loop {
            match self.inbox.receive()? {
                None if self.waits => return Err(self.vanished()),
                None => return self.check_alive(),
                Some(Message::Failed(error)) => return Err(error),
                Some(Message::Ready) => return Ok(()),
                Some(message) => self.answer(message)?,
            }
        }
    }

    fn answer(&mut self, message: Message) -> Result<()> {
        match message {
            Message::MapIds => {
                id_maps::write(self.child.pid, &self.linux.uid_mappings, &self.linux.gid_mappings)?;
                self.set_from_outside()?;
                self.go_on()
            }
            Message::JoinCgroup => {
                self.make_systemd_cgroup()?;
                self.go_on()
            }
            Message::InitIs(pid, pidfd) => {
                let pid = Pid::from_raw(pid).ok_or_else(|| Error::new(Stage::Namespaces, "init has no pid here"))?;
                let intermediate = std::mem::replace(&mut self.child, Child { pid, pidfd });
                reap_by_pid(intermediate.pid);
                Ok(())
            }
            Message::Console(master) => {
                self.console = Some(master);
                Ok(())
            }
            Message::Rootfs(mount) => {
                self.rootfs_mount = Some(mount);
                Ok(())
            }
            Message::MountsMade => {
                self.work_before_pivot()?;
                self.go_on()
            }
            Message::SeccompListener(number) => {
                self.state.pid = Some(self.child.pid.as_raw_nonzero().get());
                if let Some(seccomp) = &self.linux.seccomp {
                    seccomp_notify::hand_over(self.child.pid, &self.child.pidfd, number, seccomp, &self.state)?;
                }
                self.go_on()
            }
            Message::Failed(_) | Message::Ready | Message::Continue => {
                Err(Error::new(Stage::Namespaces, "the container's init sent an unexpected message"))
            }
        }
    }

    fn go_on(&self) -> Result<()> {
        self.channel.send(&Message::Continue).context(Stage::Namespaces, || "the container's init is gone")
    }

    /// What a process in another user namespace has no right to do for itself.
    fn set_from_outside(&self) -> Result<()> {
        properties::allow_limits_of(self.child.pid, &self.process.rlimits)?;
        if let Some(score) = self.process.oom_score_adj {
            let path = format!("/proc/{}/oom_score_adj", self.child.pid.as_raw_nonzero());
            match std::fs::write(&path, score.to_string()) {
                Ok(()) => {}
                // Without privilege a lower score cannot be had; runc too goes on.
                Err(_) if !rustix::process::geteuid().is_root() => {}
                Err(error) => {
                    return Err(Error::io(Stage::Properties, format!("cannot set oom_score_adj to {score}"), &error));
                }
            }
        }
        Ok(())
    }

    fn make_systemd_cgroup(&mut self) -> Result<()> {
        let Some(host) = &self.cgroup.systemd else { return Ok(()) };
        let unit = systemd_unit(self.spec, &self.state.id)?;
        let default = LinuxResources::default();
        let resources = self.linux.resources.as_ref().unwrap_or(&default);
        let pid = self.child.pid.as_raw_nonzero().get();
        let cgroup = Cgroup::create_systemd(host, &unit, pid, resources).map_err(|error| cgroup_error(&error))?;
        // A failure from here on finds it there and removes it.
        let cgroup = self.cgroup.cgroup.insert(cgroup);
        apply_limits(cgroup, resources, self.access, &mut self.warnings)?;
        if self.cgroup.is_handed_down { delegate(cgroup, self.linux) } else { Ok(()) }
    }

    /// Hooks of the runtime, devices to move: all that needs the namespaces but not the container's root.
    fn work_before_pivot(&mut self) -> Result<()> {
        self.state.pid = Some(self.child.pid.as_raw_nonzero().get());
        crate::net_devices::move_all(&self.linux.net_devices, self.child.pid)?;
        if let Some(rdt) = &self.linux.intel_rdt {
            crate::intel_rdt::apply(rdt, &self.state.id, self.child.pid)?;
        }
        if let Some(hooks) = &self.spec.hooks {
            // The one kind that is older than `creating`, and is promised `created`.
            let created = State { status: Status::Created, ..self.state.clone() };
            hooks::run(Point::Prestart, &hooks.prestart, &created)?;
            hooks::run(Point::CreateRuntime, &hooks.create_runtime, &self.state)?;
        }
        Ok(())
    }

    /// The channel closed: either the program runs, or init was killed.
    fn check_alive(&self) -> Result<()> {
        Ok(())
    }

    fn vanished(&self) -> Error {
        Error::new(Stage::Namespaces, "the container's init ended before it was ready")
    }

    /// Ends init after a failure, and waits for it.
    fn end(&mut self) {
        let _it_may_have_ended =
            linux::signal::send_to_pidfd(self.child.pidfd.as_fd(), rustix::process::Signal::KILL.as_raw());
        reap(&self.child.pidfd);
        if self.cgroup.saved.is_none()
            && let Some(cgroup) = &self.cgroup.cgroup
        {
            // Made by systemd while init waited; one made before is the caller's to remove.
            let _the_first_error_is_told = cgroup.remove();
        }
    }
}

/// The scope that the configuration's cgroup path means, with the properties of its annotations.
fn systemd_unit(spec: &Spec, id: &str) -> Result<SystemdUnit> {
    const PROPERTY: &str = "org.systemd.property.";
    let path = spec.linux.as_ref().map_or("", |linux| linux.cgroups_path.as_str());
    let default = format!(":conex:{id}");
    let unit = SystemdUnit::parse(if path.is_empty() { &default } else { path }).and_then(SystemdUnit::located);
    let unit = unit.map_err(|error| cgroup_error(&error))?;
    let properties = spec.annotations.iter().filter_map(|(key, value)| Some((key.strip_prefix(PROPERTY)?, value)));
    properties
        .into_iter()
        .try_fold(unit, |unit, (name, value)| unit.with_property(name, value).map_err(|error| cgroup_error(&error)))
}

/// Waits for a child by its pid, as the caller's other children are not ours.
pub(crate) fn reap_by_pid(pid: Pid) {
    while let Err(Errno::INTR) = waitpid(Some(pid), WaitOptions::empty()) {}
}

/// Refuses what can be seen to be wrong without trying.
fn check(spec: &Spec, linux: &Linux, process: &Process, namespaces: &NamespacePlan) -> Result<()> {
    let wrong = |message: &str| Err(Error::new(Stage::Spec, message));
    if spec.vm.is_some() {
        return wrong("vm is not supported: this runtime does not start virtual machines");
    }
    if namespaces.all() & namespace::MOUNT == 0 && linux.rootfs_propagation.is_some() {
        return wrong("rootfsPropagation needs a mount namespace of the container's own");
    }
    if !spec.hostname.is_empty() && !namespaces.has_own(namespace::UTS) {
        return wrong("unable to set hostname without a private UTS namespace");
    }
    if !spec.domainname.is_empty() && !namespaces.has_own(namespace::UTS) {
        return wrong("unable to set domainname without a private UTS namespace");
    }
    let makes_user = namespaces.new & namespace::USER != 0;
    if makes_user && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
        return wrong("a new user namespace needs uidMappings and gidMappings");
    }
    let has_user = makes_user || namespaces.joins(namespace::USER);
    let has_mappings = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if has_mappings && !has_user {
        return wrong("user namespace mappings specified, but user namespace isn't enabled in the config");
    }
    if !linux.time_offsets.is_empty() && namespaces.new & namespace::TIME == 0 {
        return wrong("timeOffsets need a new time namespace");
    }
    if let Some(clock) = linux.time_offsets.keys().find(|clock| !["monotonic", "boottime"].contains(&clock.as_str())) {
        return wrong(&format!("time offset of an unknown clock {clock:?}"));
    }
    id_maps::check(&linux.uid_mappings, &linux.gid_mappings)?;
    masked::check(&linux.masked_paths)?;
    masked::check(&linux.readonly_paths)?;
    sysctl::check(&linux.sysctl, &spec.domainname, |kind: LinuxNamespaceType| {
        namespaces.has_own(namespaces::flag_of(kind))
    })?;
    crate::net_devices::check(&linux.net_devices)?;
    if !linux.net_devices.is_empty() && !namespaces.has_own(namespace::NETWORK) {
        return wrong("netDevices need a network namespace of the container's own");
    }
    if !linux.mount_label.is_empty() || !process.selinux_label.is_empty() {
        crate::labels::require_selinux()?;
    }
    if !process.apparmor_profile.is_empty() {
        crate::labels::require_apparmor(&process.apparmor_profile)?;
    }
    // A container without a process may be created; only its start is an error.
    if spec.process.is_none() { Ok(()) } else { finish::check(process) }
}

fn needs_word_when_mounted(spec: &Spec, linux: &Linux) -> bool {
    let hooks = spec.hooks.as_ref().is_some_and(|hooks| !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty());
    hooks || !linux.net_devices.is_empty() || linux.intel_rdt.is_some()
}

/// The filter given, or the configuration's compiled.
fn seccomp_filter(request: &mut CreateRequest<'_>, linux: &Linux) -> Result<Option<SeccompFilter>> {
    match (request.seccomp.take(), &linux.seccomp) {
        (Some(given), _) => Ok(Some(given)),
        (None, Some(configured)) => seccomp_notify::compile(configured).map(Some),
        (None, None) => Ok(None),
    }
}

pub(crate) fn own_capabilities() -> Result<u64> {
    let own = credentials::capabilities().context(Stage::Capabilities, || "cannot read the own capabilities")?;
    Ok(own.permitted)
}

fn make_cgroup(request: &CreateRequest<'_>, linux: &Linux, warnings: &mut Vec<String>) -> Result<PreparedCgroup> {
    if request.cgroup == CgroupManager::None {
        return Ok(PreparedCgroup::default());
    }
    let detected = match request.cgroup_host {
        Some(_) => None,
        None => Some(detect_host()?),
    };
    let Some(host) = request.cgroup_host.or(detected.as_ref()) else { return Ok(PreparedCgroup::default()) };
    if request.cgroup == CgroupManager::Systemd {
        let path = systemd_unit(request.spec, request.id)?.cgroup_path().map_err(|error| cgroup_error(&error))?;
        let view = view_below(host, &path);
        let host = match detected {
            Some(host) => host,
            None => detect_host()?,
        };
        return Ok(PreparedCgroup { view, systemd: Some(host), ..PreparedCgroup::default() });
    }
    let path = cgroup_path(request.spec, request.id, request.cgroup_access)?;
    let made = match request.cgroup_access {
        CgroupAccess::Required => Cgroup::create(host, &path),
        CgroupAccess::WherePermitted => Cgroup::create_where_permitted(host, &path),
    };
    let cgroup = match made {
        // Without privilege and delegation there is none to be had; limits that were asked for are then an error.
        Err(cgroups::CreateError::NoneWritable) if !asks_for_limits(linux) => {
            warnings.push("no cgroup: this user may not create one".to_owned());
            return Ok(PreparedCgroup { view: view_of(host, None), ..PreparedCgroup::default() });
        }
        other => other.map_err(|error| cgroup_error(&error))?,
    };
    let default = LinuxResources::default();
    let resources = linux.resources.as_ref().unwrap_or(&default);
    if let Err(error) = apply_limits(&cgroup, resources, request.cgroup_access, warnings) {
        let _the_first_error_is_told = cgroup.remove();
        return Err(error);
    }
    let view = view_of(host, Some(&cgroup));
    Ok(PreparedCgroup { saved: Some(cgroup.saved()), cgroup: Some(cgroup), view, ..PreparedCgroup::default() })
}

/// Applies the limits; what has no place on this host becomes a warning.
fn apply_limits(
    cgroup: &Cgroup,
    resources: &LinuxResources,
    access: CgroupAccess,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let applied = match cgroup.apply(resources) {
        // A delegated cgroup takes limits, but no device program; whoever cannot load one can make no device either.
        Err(ApplyError::Devices(DeviceError::Program { source, .. }))
            if access == CgroupAccess::WherePermitted && source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            cgroup.apply_limits(resources)
        }
        other => other,
    };
    let ignored = applied.map_err(|error| cgroup_error(&error))?;
    warnings.extend(ignored.iter().map(|ignored| format!("{} is ignored: {}", ignored.field, ignored.reason)));
    Ok(())
}

/// Whether the container is to make cgroups of its own: it has the namespaces for it, and a `cgroup` mount that it may write to.
fn may_manage_its_cgroup(mounts: &[PlannedMount<'_>], linux: &Linux, namespaces: &NamespacePlan) -> bool {
    let writable = |planned: &PlannedMount<'_>| {
        ["cgroup", "cgroup2"].contains(&planned.mount.kind.as_str()) && !planned.options.is_read_only()
    };
    let new = namespace::USER | namespace::CGROUP;
    namespaces.new & new == new && !linux.uid_mappings.is_empty() && mounts.iter().any(writable)
}

/// Gives the v2 cgroup to the container's root; v1's cannot be handed down safely.
fn delegate(cgroup: &Cgroup, linux: &Linux) -> Result<()> {
    let root_of = |mappings: &[oci::runtime::LinuxIdMapping]| {
        mappings.iter().find(|mapping| mapping.container_id == 0).map(|mapping| mapping.host_id)
    };
    match (root_of(&linux.uid_mappings), root_of(&linux.gid_mappings)) {
        (Some(uid), Some(gid)) => cgroup.delegate(uid, gid).map_err(|error| cgroup_error(&error)),
        _ => Ok(()),
    }
}

/// Whether there are limits besides the device rules, which every example configuration has.
fn asks_for_limits(linux: &Linux) -> bool {
    linux.resources.as_ref().is_some_and(|resources| {
        let without_devices = LinuxResources { devices: Vec::new(), ..resources.clone() };
        without_devices != LinuxResources::default()
    })
}

/// What a `cgroup` mount shows of a cgroup that does not exist yet.
fn view_below(host: &Host, path: &cgroups::CgroupPath) -> CgroupView {
    let mut view = CgroupView { shown: Shown::Own, ..view_of(host, None) };
    let below = path.to_string();
    for (shown, hierarchy) in
        view.v1.iter_mut().zip(host.hierarchies().filter(|hierarchy| hierarchy.version() == Version::V1))
    {
        shown.path = hierarchy.mount_point().join(below.trim_start_matches('/'));
    }
    view
}

/// What a `cgroup` mount shows: the container's own directories, or the caller's where it has none.
fn view_of(host: &Host, cgroup: Option<&Cgroup>) -> CgroupView {
    let mut view = CgroupView::default();
    let directory_name =
        |mount_point: &Path| mount_point.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if host.layout() == cgroups::Layout::V2 {
        view.unified = host.hierarchies().next().map(|hierarchy| hierarchy.mount_point().to_owned());
        return view;
    }
    match cgroup {
        Some(cgroup) => {
            for place in cgroup.paths().filter(|place| place.version == Version::V1) {
                view.v1.push(V1View { name: directory_name(place.mount_point), path: place.path.to_owned() });
            }
        }
        None => {
            view.shown = Shown::Callers;
            for hierarchy in host.hierarchies().filter(|hierarchy| hierarchy.version() == Version::V1) {
                let path = hierarchy.mount_point().join(hierarchy.own_path().trim_start_matches('/'));
                view.v1.push(V1View { name: directory_name(hierarchy.mount_point()), path });
            }
        }
    }
    view
}

/// Opens sources that init cannot open: those of id-mapped mounts with their mapping, which takes a right over the file system that a container's user
/// namespace does not give.
fn open_mapped_sources(prepared: &Prepared<'_>, bundle: &Path) -> Result<Vec<OpenedSource>> {
    prepared.mounts.iter().map(|planned| open_mapped_source(planned, prepared, bundle)).collect()
}

/// Opens the source of a bind for an init that, in another user namespace, may not be let through to it.
fn open_for_others(planned: &PlannedMount<'_>, prepared: &Prepared<'_>, bundle: &Path) -> Result<OpenedSource> {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    // Who may not clone mounts here has no more to open than init, who may in its own namespaces.
    if !prepared.namespaces.other_user_namespace || own_capabilities()? & CAP_SYS_ADMIN == 0 {
        return Ok(None);
    }
    let Some(tree) = mounts::open_source(planned, bundle)? else { return Ok(None) };
    if let Some(propagation) = rootfs::isolation(prepared.linux.rootfs_propagation) {
        set_attributes(tree.as_fd(), Reach::Recursive, &MountAttr { propagation, ..MountAttr::default() })
            .context(Stage::Mounts, || format!("cannot cut off the mount at {:?}", planned.mount.destination))?;
    }
    Ok(Some(tree))
}

fn open_mapped_source(planned: &PlannedMount<'_>, prepared: &Prepared<'_>, bundle: &Path) -> Result<OpenedSource> {
    if planned.options.id_mapped == IdMapped::No {
        return open_for_others(planned, prepared, bundle);
    }
    let failed =
        |what: &str| Error::new(Stage::Mounts, format!("id-mapped mount at {:?}: {what}", planned.mount.destination));
    let user_namespace = if !planned.mount.uid_mappings.is_empty() {
        id_maps::namespace_with(&planned.mount.uid_mappings, &planned.mount.gid_mappings)?
    } else if prepared.namespaces.other_user_namespace && !prepared.linux.uid_mappings.is_empty() {
        id_maps::namespace_with(&prepared.linux.uid_mappings, &prepared.linux.gid_mappings)?
    } else {
        return Err(failed("neither it nor the container has id mappings"));
    };
    let Some(tree) = mounts::open_source(planned, bundle)? else { return Err(failed("it is no bind")) };
    let reach = if planned.options.id_mapped == IdMapped::Recursive { Reach::Recursive } else { Reach::One };
    let attr = MountAttr {
        set: MountAttrFlags::MOUNT_ATTR_IDMAP.bits() as u64,
        user_namespace: Some(user_namespace.as_fd()),
        ..MountAttr::default()
    };
    set_attributes(tree.as_fd(), reach, &attr)
        .context(Stage::Mounts, || format!("cannot id-map the mount at {:?}", planned.mount.destination))?;
    // The copy was made among the host's mounts and would be their peer.
    let private = MountAttr { propagation: PROPAGATION_PRIVATE, ..MountAttr::default() };
    set_attributes(tree.as_fd(), Reach::Recursive, &private)
        .context(Stage::Mounts, || format!("cannot make the mount at {:?} private", planned.mount.destination))?;
    Ok(Some(tree))
}
