//! Containers as this library's callers hold them: created, and running.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use cgroups::{Cgroup, CgroupPath, FreezerState, Host};
use linux::Errno;
use linux::clone::Child;
use oci::runtime::{
    LinuxIntelRdt, LinuxMemoryPolicy, LinuxPersonality, LinuxResources, LinuxSeccomp, Spec, State, Status,
};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use crate::channel::{Channel, Message};
use crate::creator;
use crate::error::{Context, Error, Kind, Result, Stage};
use crate::request::{CgroupAccess, CreateRequest, Identity, SeccompFilter};
use crate::seccomp_notify;

/// The number of SIGKILL.
const SIGKILL: i32 = Signal::KILL.as_raw();

/// A container whose init is ready and waits.
#[derive(Debug)]
pub struct Created {
    running: Running,
    channel: Channel,
    agent: Option<SeccompAgent>,
    /// What was left out because it cannot be granted here.
    pub warnings: Vec<String>,
}

/// A container whose program has been started.
#[derive(Debug)]
pub struct Running {
    /// The pid of its first process.
    pub pid: Pid,
    /// A handle of that process.
    pub pidfd: OwnedFd,
    /// The master of its terminal, when it has one.
    pub console: Option<OwnedFd>,
    /// A mount of its root without what is mounted in it, attached nowhere; only where the root was an overlay.
    pub rootfs_mount: Option<OwnedFd>,
    /// Its cgroup, when the library made one.
    pub cgroup: Option<Cgroup>,
    /// What was left out because it cannot be granted here.
    pub warnings: Vec<String>,
    /// What processes that join it need to know.
    pub(crate) membership: Membership,
    /// Who gets the seccomp listener of a process that joins it.
    pub(crate) agent: Option<SeccompAgent>,
}

/// What a process that joins a container needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Membership {
    /// `CLONE_NEW*` of the namespaces that are not the runtime's.
    pub(crate) namespaces: u64,
    /// Names its keyrings.
    pub(crate) id: String,
    /// Groups that were given to the container besides its user's.
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// Where the root was mounted in the runtime's own mount namespace, for a container that has none of its own.
    #[serde(default)]
    pub(crate) root_on_host: Option<PathBuf>,
    /// The execution domain of all its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) personality: Option<LinuxPersonality>,
    /// The memory policy of all its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_policy: Option<LinuxMemoryPolicy>,
    /// The class of service of all its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) intel_rdt: Option<LinuxIntelRdt>,
}

impl Membership {
    /// Takes a root off the host, with all that is mounted in it; nothing for containers with a mount namespace.
    pub(crate) fn unmount_root(&self) {
        if let Some(path) = &self.root_on_host {
            // Somebody may have done that already.
            let _not_mounted = unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

/// Creates a container and leaves its init waiting for [`Created::start`].
///
/// The caller must be single-threaded: the container's init is a copy of it until it runs the program.
pub fn create(request: CreateRequest<'_>) -> Result<Created> {
    let agent = SeccompAgent::of(request.spec, initial_state(&request));
    let (running, channel) = creator::create(request, creator::Waiting::ForCreator)?;
    let warnings = running.warnings.clone();
    Ok(Created { running, channel, agent, warnings })
}

/// Creates a container whose init waits until somebody connects to `listener`, a listening Unix socket of the type SEQPACKET, as [`crate::StateDirectory::start`] does.
pub fn create_with_listener(request: CreateRequest<'_>, listener: OwnedFd) -> Result<Running> {
    creator::create(request, creator::Waiting::OnListener(listener)).map(|(running, _)| running)
}

/// Creates a container and starts its program at once.
///
/// The caller must be single-threaded: the container's init is a copy of it until it runs the program.
pub fn create_and_start(request: CreateRequest<'_>) -> Result<Running> {
    creator::create(request, creator::Waiting::Not).map(|(running, _)| running)
}

/// Starts the container whose init waits at the other end of a connected socket. Returns when the program runs.
pub(crate) fn start_through(socket: OwnedFd, init: &Running, agent: Option<&SeccompAgent>) -> Result<()> {
    let channel = Channel::new(socket);
    match channel.receive()? {
        Some(Message::Ready) => await_exec(&channel, init, agent),
        Some(Message::Failed(error)) => Err(error),
        _ => Err(Error::new(Stage::Operate, "the container's init is gone")),
    }
}

/// Where the listener of a container's seccomp notifications goes.
#[derive(Debug, Clone)]
pub(crate) struct SeccompAgent {
    configured: LinuxSeccomp,
    state: State,
}

impl SeccompAgent {
    /// The agent that a configuration names, if it names one.
    pub(crate) fn of(spec: &Spec, state: State) -> Option<SeccompAgent> {
        let configured = spec.linux.as_ref()?.seccomp.as_ref().filter(|seccomp| !seccomp.listener_path.is_empty())?;
        Some(SeccompAgent { configured: configured.clone(), state })
    }

    /// Hands the listener that is descriptor `number` in a process of the container to the agent.
    pub(crate) fn hand_over(&self, process: &Child, number: i32) -> Result<()> {
        seccomp_notify::hand_over(process.pid, &process.pidfd, number, &self.configured, &self.state)
    }
}

impl Created {
    /// The pid of init.
    pub fn pid(&self) -> Pid {
        self.running.pid
    }

    /// Takes the master of the terminal, when there is one.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.running.console.take()
    }

    /// The container as it is, for everything but `exec`.
    pub fn container(&self) -> &Running {
        &self.running
    }

    /// Starts the program. Returns when it runs.
    pub fn start(self) -> Result<Running> {
        let sent = self.channel.send(&Message::Continue);
        sent.context(Stage::Operate, || "the container's init is gone")?;
        match await_exec(&self.channel, &self.running, self.agent.as_ref()) {
            Ok(()) => Ok(self.running),
            Err(error) => {
                reap(&self.running.pidfd);
                let _the_first_error_is_told = self.running.destroy();
                Err(error)
            }
        }
    }

    /// Gives the container up: ends init and removes the cgroup.
    pub fn abandon(self) -> Result<()> {
        let _it_may_have_ended = linux::signal::send_to_pidfd(self.running.pidfd.as_fd(), SIGKILL);
        reap(&self.running.pidfd);
        self.running.destroy()
    }
}

/// Waits until init has run its program, which closes its end of the channel.
fn await_exec(channel: &Channel, init: &Running, agent: Option<&SeccompAgent>) -> Result<()> {
    loop {
        match (channel.receive()?, agent) {
            (None, _) => return Ok(()),
            (Some(Message::Failed(error)), _) => return Err(error),
            (Some(Message::SeccompListener(number)), Some(agent)) => {
                let state = State { pid: Some(init.pid.as_raw_nonzero().get()), ..agent.state.clone() };
                seccomp_notify::hand_over(init.pid, &init.pidfd, number, &agent.configured, &state)?;
                channel.send(&Message::Continue).context(Stage::Seccomp, || "the container's init is gone")?;
            }
            _ => return Err(Error::new(Stage::Namespaces, "the container's init sent an unexpected message")),
        }
    }
}

/// Collects a process that has ended or is about to.
pub(crate) fn reap(pidfd: &OwnedFd) {
    while let Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
}

impl Running {
    /// The container of a process that somebody else created.
    pub(crate) fn found(child: Child, cgroup: Option<Cgroup>, membership: Membership) -> Running {
        Running {
            pid: child.pid,
            pidfd: child.pidfd,
            console: None,
            rootfs_mount: None,
            cgroup,
            warnings: Vec::new(),
            membership,
            agent: None,
        }
    }

    /// Sends a signal to the first process.
    pub fn signal(&self, signal: i32) -> Result<()> {
        match linux::signal::send_to_pidfd(self.pidfd.as_fd(), signal) {
            Err(Errno::SRCH) => Err(Error::of_kind(Stage::Operate, Kind::NotFound, "container not running")),
            other => other.context(Stage::Operate, || format!("cannot send signal {signal}")),
        }
    }

    /// Sends a signal to every process in the container's cgroup; to the first one where there is no cgroup.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        match &self.cgroup {
            Some(cgroup) if signal == SIGKILL => cgroup.kill_all().map_err(|error| cgroup_error(&error)),
            Some(cgroup) => cgroup.signal_all(signal).map_err(|error| cgroup_error(&error)),
            None => self.signal(signal),
        }
    }

    /// Freezes all processes.
    pub fn pause(&self) -> Result<()> {
        self.own_cgroup()?.freeze().map_err(|error| cgroup_error(&error))
    }

    /// Lets frozen processes go on.
    pub fn resume(&self) -> Result<()> {
        self.own_cgroup()?.thaw().map_err(|error| cgroup_error(&error))
    }

    /// Whether the processes are frozen.
    pub fn is_paused(&self) -> Result<bool> {
        match &self.cgroup {
            None => Ok(false),
            Some(cgroup) => {
                cgroup.freezer_state().map(|state| state != FreezerState::Thawed).map_err(|error| cgroup_error(&error))
            }
        }
    }

    /// Changes the limits that `resources` names. Returns the names of those that this host has no place for.
    pub fn update(&self, resources: &LinuxResources) -> Result<Vec<String>> {
        let ignored = self.own_cgroup()?.update(resources).map_err(|error| cgroup_error(&error))?;
        Ok(ignored.iter().map(|ignored| format!("{} is ignored: {}", ignored.field, ignored.reason)).collect())
    }

    /// The pids of all processes in the container's cgroup.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.own_cgroup()?.pids().map_err(|error| cgroup_error(&error))
    }

    /// What the cgroup has counted.
    pub fn stats(&self) -> Result<cgroups::Stats> {
        self.own_cgroup()?.stats().map_err(|error| cgroup_error(&error))
    }

    /// Removes the cgroup of a container that has ended, with every process that is left in it.
    pub fn destroy(&self) -> Result<()> {
        self.membership.unmount_root();
        let Some(cgroup) = &self.cgroup else { return Ok(()) };
        if cgroup.is_populated().unwrap_or(true) {
            // In a pid namespace of its own they have died with init; else they have not.
            let _removal_tells = cgroup.kill_all();
        }
        cgroup.remove().map_err(|error| cgroup_error(&error))
    }

    /// How users of processes are found that join this container, when they are looked up at all.
    pub fn lookup_identity(&self) -> Identity {
        Identity::Lookup { groups: self.membership.groups.clone() }
    }

    /// Compiles the filter of the container's configuration, for a process that joins it.
    pub fn compile_seccomp(&self, spec: &Spec) -> Result<Option<SeccompFilter>> {
        spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()).map(seccomp_notify::compile).transpose()
    }

    /// Changes the cache and memory bandwidth lines of the container's class of service.
    pub fn update_intel_rdt(&self, l3_cache: &str, memory_bandwidth: &str) -> Result<()> {
        let Some(rdt) = &self.membership.intel_rdt else {
            return Err(Error::new(Stage::Properties, "the container has no intelRdt in its configuration"));
        };
        crate::intel_rdt::update(rdt, &self.membership.id, [l3_cache, memory_bandwidth])
    }

    pub(crate) fn own_cgroup(&self) -> Result<&Cgroup> {
        self.cgroup.as_ref().ok_or_else(|| Error::new(Stage::Cgroup, "the container has no cgroup of its own"))
    }
}

/// A cgroup error with its causes in one line.
pub(crate) fn cgroup_error(error: &dyn std::error::Error) -> Error {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    Error::new(Stage::Cgroup, message)
}

/// The cgroup path of a container: the configuration's, or one named after it.
///
/// Who may not write to every cgroup may perhaps write beside the own one, and has the default there.
pub(crate) fn cgroup_path(spec: &Spec, id: &str, access: CgroupAccess) -> Result<CgroupPath> {
    let configured = spec.linux.as_ref().map_or("", |linux| linux.cgroups_path.as_str());
    let path = match access {
        _ if !configured.is_empty() => configured.to_owned(),
        CgroupAccess::Required => format!("/{id}"),
        CgroupAccess::WherePermitted => id.to_owned(),
    };
    CgroupPath::parse(&path).map_err(|error| cgroup_error(&error))
}

/// The host's hierarchies.
pub(crate) fn detect_host() -> Result<Host> {
    Host::detect().map_err(|error| cgroup_error(&error))
}

/// The state that hooks get before there is a process.
pub(crate) fn initial_state(request: &CreateRequest<'_>) -> State {
    State {
        oci_version: oci::runtime::VERSION.to_owned(),
        id: request.id.to_owned(),
        status: Status::Creating,
        pid: None,
        bundle: request.bundle.display().to_string(),
        annotations: request.spec.annotations.clone(),
    }
}
