//! Another process in a container that runs.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};

use linux::clone::{Child, CloneArgs, Cloned, Parentage, clone3, exit_now};
use linux::{Errno, credentials, namespace};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use crate::channel::{Channel, Inbox, Message, Successor};
use crate::container::{Running, cgroup_error, reap};
use crate::creator::{close_in_child, own_capabilities, reap_by_pid};
use crate::error::{Context, Error, Kind, Result, Stage};
use crate::finish::{self, CapabilityPlan, ProcessPlan, become_process, keep_only, reset_signals, set_stdio};
use crate::init::new_terminal;
use crate::properties;
use crate::request::{ExecRequest, SeccompFilter, Stdio};
use crate::root::Root;
use crate::{intel_rdt, labels};

/// A process that was started in a container.
#[derive(Debug)]
pub struct Executed {
    /// Its pid.
    pub pid: Pid,
    /// A handle of it.
    pub pidfd: OwnedFd,
    /// The master of its terminal, when it has one.
    pub console: Option<OwnedFd>,
    /// What was left out because it cannot be granted here.
    pub warnings: Vec<String>,
}

/// All that the new process has to do.
struct ExecJob<'a> {
    container: &'a Running,
    process: ProcessPlan<'a>,
    stdio: Stdio,
    entry: Option<cgroups::Entry>,
}

impl ExecJob<'_> {
    /// The namespaces to join.
    fn kinds(&self) -> u64 {
        self.container.membership.namespaces
    }

    /// Only the children of who joins a pid or time namespace are in it.
    fn successor(&self) -> Successor {
        match self.kinds() & (namespace::PID | namespace::TIME) {
            0 => Successor::None,
            _ => Successor::Expected,
        }
    }
}

/// Starts a process in a container. Returns when its program runs.
///
/// The caller must be single-threaded, as for [`crate::create`].
pub fn exec(container: &Running, request: ExecRequest<'_>) -> Result<Executed> {
    let process = request.process;
    finish::check(process)?;
    if !process.apparmor_profile.is_empty() {
        labels::require_apparmor(&process.apparmor_profile)?;
    }
    if !process.selinux_label.is_empty() {
        labels::require_selinux()?;
    }
    let mut warnings = Vec::new();
    let other_user = container.membership.namespaces & namespace::USER != 0;
    let grantable = if other_user { u64::MAX } else { own_capabilities()? };
    let entry = entry_of(container, request.sub_cgroup)?;
    let v2 = duplicate(entry.as_ref().and_then(|entry| entry.v2.as_ref()))?;
    let v2 = V2Entry { directory: v2, may_move: request.sub_cgroup.is_none() };
    let filter: Option<SeccompFilter> = request.seccomp;
    let job = ExecJob {
        container,
        process: ProcessPlan {
            process,
            capabilities: CapabilityPlan::plan(process, grantable, &mut warnings),
            seccomp: filter.as_ref(),
            identity: &request.identity,
            preserve_fds: request.preserve_fds,
            keyring: request.keyring,
            id: &container.membership.id,
        },
        stdio: request.stdio,
        entry,
    };
    let successor = job.successor();
    let (child, channel) = spawn(job, &v2)?;
    serve(child, &channel, successor, container, warnings)
}

/// The v2 cgroup to be born in.
struct V2Entry {
    directory: Option<OwnedFd>,
    /// The container's init may have moved further down, and then so may this process.
    may_move: bool,
}

fn duplicate(fd: Option<&OwnedFd>) -> Result<Option<OwnedFd>> {
    let duplicate = fd.map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3)).transpose();
    duplicate.context(Stage::Cgroup, || "cannot duplicate a descriptor")
}

fn join(container: &Running, kinds: u64) -> Result<()> {
    if kinds == 0 {
        return Ok(());
    }
    match namespace::join(container.pidfd.as_fd(), kinds) {
        Err(Errno::SRCH) => Err(Error::of_kind(Stage::Namespaces, Kind::NotFound, "container not running")),
        other => other.context(Stage::Namespaces, || "cannot join the container's namespaces"),
    }
}

fn entry_of(container: &Running, sub_cgroup: Option<&cgroups::SubCgroup>) -> Result<Option<cgroups::Entry>> {
    let entry = match (&container.cgroup, sub_cgroup) {
        (None, None) => return Ok(None),
        (None, Some(_)) => container.own_cgroup()?.entry().map_err(|error| cgroup_error(&error)),
        (Some(cgroup), None) => cgroup.entry().map_err(|error| cgroup_error(&error)),
        (Some(cgroup), Some(sub)) => cgroup.entry_below(sub).map_err(|error| cgroup_error(&error)),
    };
    entry.map(Some)
}

/// Clones the process; it is not dumpable from its first moment, because the container's processes can see it at once.
fn spawn(job: ExecJob<'_>, v2: &V2Entry) -> Result<(Child, Channel)> {
    let (here, there) = Channel::pair()?;
    credentials::set_not_dumpable().context(Stage::Namespaces, || "prctl")?;
    let affinity = job.process.process.exec_cpu_affinity.as_ref();
    // Inherited by the child: in v2 it is in the cgroup from its first moment, and this is what counts before.
    let own_cpus = properties::exchange_cpus(affinity.map_or("", |affinity| affinity.initial.as_str()))?;
    let cloned = clone_into(&job, v2);
    if let Ok(Cloned::Child) = cloned {
        close_in_child(&here);
        run(job, there)
    }
    if let Some(own_cpus) = own_cpus {
        properties::restore_cpus(&own_cpus)?;
    }
    match cloned? {
        Cloned::Parent(child) => Ok((child, here)),
        Cloned::Child => unreachable!("the child runs the program"),
    }
}

fn clone_into(job: &ExecJob<'_>, v2: &V2Entry) -> Result<Cloned> {
    let failed = || "cannot create a process";
    let into = |cgroup: Option<&OwnedFd>| {
        clone3(&CloneArgs { namespaces: 0, cgroup: cgroup.map(AsFd::as_fd), parent: Parentage::Caller })
    };
    match into(v2.directory.as_ref()) {
        // A cgroup that gives controllers to its children holds no process itself: the container's init has moved into one of
        // them (systemd does), and where it is there is room for others.
        Err(Errno::BUSY) if v2.may_move => {
            let cgroup = job.container.own_cgroup()?;
            let pid = job.container.pid.as_raw_nonzero().get();
            let directory = cgroup.v2_directory_of(pid).map_err(|error| cgroup_error(&error))?;
            into(directory.as_ref()).context(Stage::Namespaces, failed)
        }
        other => other.context(Stage::Namespaces, failed),
    }
}

fn serve(
    mut child: Child,
    channel: &Channel,
    successor: Successor,
    container: &Running,
    warnings: Vec<String>,
) -> Result<Executed> {
    let mut inbox = Inbox::new(channel, successor);
    let mut console = None;
    let failed = loop {
        match inbox.receive() {
            Ok(None) => return Ok(Executed { pid: child.pid, pidfd: child.pidfd, console, warnings }),
            Ok(Some(Message::Console(master))) => console = Some(master),
            Ok(Some(Message::InitIs(pid, pidfd))) => match Pid::from_raw(pid) {
                Some(pid) => reap_by_pid(std::mem::replace(&mut child, Child { pid, pidfd }).pid),
                None => break Error::new(Stage::Namespaces, "the process has no pid here"),
            },
            Ok(Some(Message::Failed(error))) => break error,
            Ok(Some(Message::SeccompListener(number))) => {
                if let Err(error) = hand_over_listener(container, &child, number, channel) {
                    break error;
                }
            }
            Ok(Some(_)) => break Error::new(Stage::Namespaces, "the process sent an unexpected message"),
            Err(error) => break error,
        }
    };
    let _it_may_have_ended = linux::signal::send_to_pidfd(child.pidfd.as_fd(), rustix::process::Signal::KILL.as_raw());
    reap(&child.pidfd);
    Err(failed)
}

/// The process waits until its listener is with the container's agent.
fn hand_over_listener(container: &Running, process: &Child, number: i32, channel: &Channel) -> Result<()> {
    let agent = container.agent.as_ref();
    let agent = agent.ok_or_else(|| Error::new(Stage::Seccomp, "nobody is there for the seccomp listener"))?;
    agent.hand_over(process, number)?;
    channel.send(&Message::Continue).context(Stage::Seccomp, || "the process is gone")
}

/// Runs as the child of `clone3`; does not return.
fn run(job: ExecJob<'_>, channel: Channel) -> ! {
    let (error, channel) = enter(job, channel);
    // The creator may be gone; then there is nobody to tell.
    let _nobody_listens = channel.send(&Message::Failed(error));
    exit_now(1)
}

fn enter(job: ExecJob<'_>, channel: Channel) -> (Error, Channel) {
    // What it owns is closed by number before the program runs, and so must not be closed again when that fails.
    let mut job = ManuallyDrop::new(job);
    if let Err(error) = join_container(&mut job) {
        return (error, channel);
    }
    let channel = match go_on_as_member(&mut job, channel) {
        Ok(channel) => channel,
        Err(failed) => return failed,
    };
    match set_up(&mut job, &channel) {
        Err(error) => (error, channel),
        Ok(terminal) => {
            let terminal = ManuallyDrop::new(terminal);
            become_process(&job.process, terminal.as_ref(), channel, None, Box::new(Ok))
        }
    }
}

/// Joins cgroup and namespaces; a pid namespace is for the children of this process.
fn join_container(job: &mut ExecJob<'_>) -> Result<()> {
    let affinity = job.process.process.exec_cpu_affinity.as_ref();
    if let Some(entry) = job.entry.take() {
        entry.join().context(Stage::Cgroup, || "cannot join the cgroup")?;
    }
    properties::set_cpus(affinity.map_or("", |affinity| affinity.last.as_str()))?;
    set_from_outside(job)?;
    let root = if job.kinds() & namespace::MOUNT == 0 { Some(root_of(job.container)?) } else { None };
    join(job.container, job.kinds())?;
    if let Some(root) = root {
        // There is no mount namespace to join that would bring the root along.
        let entered = rustix::process::fchdir(&root).and_then(|()| rustix::process::chroot(c"."));
        entered.context(Stage::Rootfs, || "cannot enter the container's root")?;
    }
    if job.kinds() & namespace::USER != 0 {
        become_root()?;
    }
    Ok(())
}

/// Goes on in a new process, which is the first that the container can see: whoever may trace in there can look at it from its first
/// moment (CVE-2016-9962), and so its root is the container's and none of its descriptors is the host's by then. That is worth a process.
fn go_on_as_member(job: &mut ExecJob<'_>, channel: Channel) -> std::result::Result<Channel, (Error, Channel)> {
    if job.successor() == Successor::None {
        return Ok(channel);
    }
    if matches!(job.stdio, Stdio::Fds(_)) {
        // Closed with the others below, by number, and so not to be dropped.
        let stdio = ManuallyDrop::new(std::mem::replace(&mut job.stdio, Stdio::Inherit));
        if let Err(error) = set_stdio(&stdio, None) {
            return Err((error, channel));
        }
    }
    let channel = keep_only(channel, job.process.preserve_fds)?;
    let args = CloneArgs { namespaces: 0, cgroup: None, parent: Parentage::CallersParent };
    match clone3(&args) {
        Ok(Cloned::Child) => Ok(channel),
        Ok(Cloned::Parent(child)) => {
            let told = channel.send(&Message::InitIs(child.pid.as_raw_nonzero().get(), child.pidfd));
            exit_now(i32::from(told.is_err()))
        }
        Err(errno) => Err((Error::os(Stage::Namespaces, "cannot create a process in the container", errno), channel)),
    }
}

/// The root directory of a container's first process, as the kernel knows it.
fn root_of(container: &Running) -> Result<OwnedFd> {
    let path = format!("/proc/{}/root", container.pid.as_raw_nonzero());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).context(Stage::Rootfs, || "cannot open the container's root")
}

/// What the process has a right to do only while it is not in the container's user namespace.
fn set_from_outside(job: &ExecJob<'_>) -> Result<()> {
    let process = job.process.process;
    if let Some(score) = process.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", score.to_string())
            .context(Stage::Properties, || format!("cannot set oom_score_adj to {score}"))?;
    }
    if job.kinds() & namespace::USER != 0 {
        properties::allow_limits_of(rustix::process::getpid(), &process.rlimits)?;
    }
    let membership = &job.container.membership;
    if let Some(rdt) = &membership.intel_rdt {
        intel_rdt::join(rdt, &membership.id, rustix::process::getpid())?;
    }
    Ok(())
}

fn become_root() -> Result<()> {
    match credentials::set_groups(&[]) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(Error::os(Stage::User, "setgroups", errno)),
    }
    for set in [credentials::set_gid, credentials::set_uid] {
        match set(0) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(Error::os(Stage::User, "cannot become root of the user namespace", errno)),
        }
    }
    Ok(())
}

fn set_up(job: &mut ExecJob<'_>, channel: &Channel) -> Result<Option<OwnedFd>> {
    reset_signals()?;
    match rustix::process::setsid() {
        Ok(_) | Err(Errno::PERM) => {}
        Err(errno) => return Err(Error::os(Stage::Namespaces, "setsid", errno)),
    }
    let membership = &job.container.membership;
    if let Some(personality) = &membership.personality {
        properties::set_personality(personality)?;
    }
    if let Some(policy) = &membership.memory_policy {
        properties::set_memory_policy(policy)?;
    }
    let terminal = if matches!(job.stdio, Stdio::Terminal) {
        let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let root = root.context(Stage::Rootfs, || "cannot open /")?;
        Some(new_terminal(Root::new(root.as_fd()), job.process.process.console_size.as_ref(), channel)?)
    } else {
        None
    };
    set_stdio(&job.stdio, terminal.as_ref())?;
    Ok(terminal)
}
