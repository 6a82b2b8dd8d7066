//! The container's first process, from its creation to the user's program.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use linux::clone::{CloneArgs, Cloned, Parentage, clone3, exit_now};
use linux::mount_attr::Reach;
use linux::{Errno, credentials, namespace};
use oci::runtime::{Linux, Process, Spec, State, Status};
use rustix::fs::{Mode, OFlags, fstatfs};
use rustix::net::{SocketFlags, accept_with};

use crate::cgroup_mount::CgroupView;
use crate::channel::{Channel, Message};
use crate::devices::{self, DevicePlan};
use crate::error::{Context, Error, Result, Stage};
use crate::finish::{ProcessPlan, become_process, reset_signals, set_stdio};
use crate::hooks::{self, Point};
use crate::masked;
use crate::mounts::{self, MountContext, OpenedSource, PlannedMount};
use crate::namespaces::NamespacePlan;
use crate::net_devices;
use crate::procfs::Procfs;
use crate::properties;
use crate::request::Stdio;
use crate::root::Root;
use crate::rootfs::{self, PreparedRoot, RootChange};
use crate::sysctl;

const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// When init runs the user's program.
#[derive(Debug)]
pub(crate) enum Gate {
    /// At once.
    Open,
    /// When the creator says so.
    Creator,
    /// When somebody connects to this socket, which is told of errors from then on.
    Listener(OwnedFd),
}

/// All that init has to do.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) linux: &'a Linux,
    pub(crate) bundle: &'a Path,
    pub(crate) namespaces: NamespacePlan,
    pub(crate) mounts: Vec<PlannedMount<'a>>,
    /// Sources of id-mapped mounts, which only the creator could open; in the order of `mounts`.
    pub(crate) mapped_sources: Vec<OpenedSource>,
    pub(crate) devices: DevicePlan,
    pub(crate) root: Option<PreparedRoot<'a>>,
    pub(crate) cgroups: CgroupView,
    pub(crate) cgroup_entry: Option<cgroups::Entry>,
    /// The creator puts init into its cgroup, and init has to wait for that.
    pub(crate) waits_for_cgroup: bool,
    pub(crate) stdio: Stdio,
    pub(crate) process: ProcessPlan<'a>,
    pub(crate) root_change: RootChange,
    pub(crate) gate: Gate,
    /// The creator has something to do in the namespaces before the root is changed.
    pub(crate) tells_when_mounted: bool,
    /// For the hooks that init runs.
    pub(crate) state: State,
}

/// Runs as the child of `clone3`; does not return.
pub(crate) fn run(job: Job<'_>, channel: Channel) -> ! {
    let (error, channel) =
        if job.namespaces.needs_intermediate() { intermediate(job, channel) } else { init(job, channel) };
    // The creator may be gone; then there is nobody to tell.
    let _nobody_listens = channel.send(&Message::Failed(error));
    exit_now(1)
}

/// Prepares the user namespace, creates init in it as the creator's child, and ends.
fn intermediate(mut job: Job<'_>, channel: Channel) -> (Error, Channel) {
    let created = match prepare_for_init(&mut job, &channel) {
        Ok(created) => created,
        Err(error) => return (error, channel),
    };
    match created {
        Cloned::Child => init(job, channel),
        Cloned::Parent(child) => {
            let told = channel.send(&Message::InitIs(child.pid.as_raw_nonzero().get(), child.pidfd));
            exit_now(i32::from(told.is_err()))
        }
    }
}

fn prepare_for_init(job: &mut Job<'_>, channel: &Channel) -> Result<Cloned> {
    if let Some(entry) = job.cgroup_entry.take() {
        entry.join().context(Stage::Cgroup, || "cannot join the cgroup")?;
    }
    if job.namespaces.joins(namespace::USER) {
        // Inherited by init, which has no right to them in that namespace.
        properties::allow_limits_of(rustix::process::getpid(), &job.process.process.rlimits)?;
        set_oom_score(job)?;
    }
    let joined = std::mem::take(&mut job.namespaces.joined);
    joined.iter().try_for_each(crate::namespaces::Joined::join)?;
    let mut new = job.namespaces.new;
    if new & namespace::USER != 0 {
        namespace::unshare(namespace::USER).context(Stage::Namespaces, || "cannot create a user namespace")?;
        become_root_of_user_namespace(channel)?;
        new &= !namespace::USER;
        job.namespaces.new &= !namespace::USER;
    } else {
        become_root()?;
    }
    if new & namespace::TIME != 0 {
        new_time_namespace(job.linux)?;
        new &= !namespace::TIME;
    }
    if joined.iter().any(|joined| joined.kind == namespace::PID) {
        // Those who are in there can see init at once.
        credentials::set_not_dumpable().context(Stage::Namespaces, || "prctl")?;
    }
    let args = CloneArgs { namespaces: new & !namespace::CGROUP, cgroup: None, parent: Parentage::CallersParent };
    clone3(&args).context(Stage::Namespaces, || "cannot create the container's init")
}

/// Makes a time namespace for the children of this process.
pub(crate) fn new_time_namespace(linux: &Linux) -> Result<()> {
    namespace::unshare(namespace::TIME).context(Stage::Namespaces, || "cannot create a time namespace")?;
    for (clock, offset) in &linux.time_offsets {
        let line = format!("{clock} {} {}\n", offset.secs, offset.nanosecs);
        std::fs::write("/proc/self/timens_offsets", line)
            .context(Stage::Namespaces, || format!("cannot set the time offset of {clock}"))?;
    }
    Ok(())
}

fn become_root_of_user_namespace(channel: &Channel) -> Result<()> {
    channel.send(&Message::MapIds).context(Stage::Namespaces, || "cannot ask for id mappings")?;
    channel.wait_for_continue()?;
    become_root()
}

/// Becomes user 0 of the user namespace, where there is one.
fn become_root() -> Result<()> {
    match credentials::set_groups(&[]) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(Error::os(Stage::User, "setgroups", errno)),
    }
    for set in [credentials::set_gid, credentials::set_uid] {
        match set(0) {
            // Not every mapping has a 0.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(Error::os(Stage::User, "cannot become root of the user namespace", errno)),
        }
    }
    // Becoming another user made the process not dumpable, and so its files in procfs root's of the host.
    credentials::set_dumpable_again().context(Stage::User, || "prctl")
}

fn init(job: Job<'_>, channel: Channel) -> (Error, Channel) {
    // What it owns is closed by number before the program runs, and so must not be closed again when that fails.
    let mut job = ManuallyDrop::new(job);
    let terminal = match set_up(&mut job, &channel) {
        Ok(terminal) => ManuallyDrop::new(terminal),
        Err(error) => return (error, channel),
    };
    let gate = std::mem::replace(&mut job.gate, Gate::Open);
    let listener = match &gate {
        Gate::Listener(listener) => Some(listener.as_raw_fd()),
        Gate::Open | Gate::Creator => None,
    };
    let (hooks, state) = (job.spec.hooks.as_ref(), &job.state);
    let before = Box::new(move |channel: Channel| {
        let channel = pass_gate(gate, channel)?;
        let started = hooks.map_or(Ok(()), |hooks| {
            let state = State { status: Status::Created, pid: Some(own_pid()), ..state.clone() };
            hooks::run(Point::StartContainer, &hooks.start_container, &state)
        });
        match started {
            Ok(()) => Ok(channel),
            Err(error) => Err((error, channel)),
        }
    });
    become_process(&job.process, terminal.as_ref(), channel, listener, before)
}

/// Tells the creator that all is ready, and waits for the start.
fn pass_gate(gate: Gate, channel: Channel) -> std::result::Result<Channel, (Error, Channel)> {
    let ready = |channel: &Channel| {
        channel.send(&Message::Ready).context(Stage::Namespaces, || "the container's creator is gone")
    };
    match gate {
        Gate::Open => Ok(channel),
        Gate::Creator => match ready(&channel).and_then(|()| channel.wait_for_continue()) {
            Ok(()) => Ok(channel),
            Err(error) => Err((error, channel)),
        },
        Gate::Listener(listener) => {
            if let Err(error) = ready(&channel) {
                return Err((error, channel));
            }
            // Only now: the creator takes the end of this channel for the end of its work.
            let accepted = loop {
                match accept_with(&listener, SocketFlags::CLOEXEC) {
                    Err(Errno::INTR | Errno::CONNABORTED) => {}
                    other => break other,
                }
            };
            match accepted {
                Ok(starter) => {
                    let starter = Channel::new(starter);
                    match ready(&starter) {
                        Ok(()) => Ok(starter),
                        Err(error) => Err((error, starter)),
                    }
                }
                Err(errno) => Err((Error::os(Stage::State, "cannot wait for the start", errno), channel)),
            }
        }
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Everything up to the container's own root. Returns the terminal, when the process gets one.
fn set_up(job: &mut Job<'_>, channel: &Channel) -> Result<Option<OwnedFd>> {
    reset_signals()?;
    match rustix::process::setsid() {
        // It leads one already when it is the child of an intermediate process that made it so; it cannot be, but need not fail.
        Ok(_) | Err(Errno::PERM) => {}
        Err(errno) => return Err(Error::os(Stage::Namespaces, "setsid", errno)),
    }
    enter_namespaces(job, channel)?;
    credentials::set_not_dumpable().context(Stage::Namespaces, || "prctl")?;
    let _previous = rustix::process::umask(Mode::empty());
    let root = make_root(job, channel)?;
    let terminal = open_terminal(job, Root::new(root.as_fd()), channel)?;
    set_host_names(job.spec)?;
    set_properties(job)?;
    finish_root(job, root)?;
    set_stdio(&job.stdio, terminal.as_ref())?;
    Ok(terminal)
}

fn enter_namespaces(job: &mut Job<'_>, channel: &Channel) -> Result<()> {
    if job.waits_for_cgroup {
        channel.send(&Message::JoinCgroup).context(Stage::Cgroup, || "cannot ask for a cgroup")?;
        channel.wait_for_continue()?;
    }
    if let Some(entry) = job.cgroup_entry.take() {
        entry.join().context(Stage::Cgroup, || "cannot join the cgroup")?;
    }
    if job.namespaces.new & namespace::USER != 0 {
        become_root_of_user_namespace(channel)?;
    }
    for joined in job.namespaces.joined.iter().filter(|joined| joined.kind != namespace::PID) {
        joined.join()?;
    }
    job.namespaces.joined.clear();
    if job.namespaces.new & namespace::NETWORK != 0 {
        // As runc and crun leave it: programs expect to reach themselves.
        net_devices::set_loopback_up()?;
    }
    if job.namespaces.new & namespace::CGROUP != 0 {
        // After joining the cgroup, which becomes the root of the namespace.
        namespace::unshare(namespace::CGROUP).context(Stage::Namespaces, || "cannot create a cgroup namespace")?;
    }
    Ok(())
}

/// Makes the mounts below the attached root, and lets hooks run while host paths are still there.
fn make_root(job: &mut Job<'_>, channel: &Channel) -> Result<OwnedFd> {
    let linux = job.linux;
    if job.root_change != RootChange::Chroot {
        rootfs::isolate_mounts(linux.rootfs_propagation)?;
    }
    let mapped_sources = std::mem::take(&mut job.mapped_sources);
    let prepared = job.root.take().ok_or_else(|| Error::new(Stage::Rootfs, "the root was made already"))?;
    let attached = rootfs::attach(prepared, linux.rootfs_propagation)?;
    if let Some(pristine) = attached.pristine {
        channel.send(&Message::Rootfs(pristine)).context(Stage::Rootfs, || "cannot hand out the root")?;
    }
    let root = Root::new(attached.mount.as_fd());
    let context = MountContext { root, cgroups: &job.cgroups, label: &linux.mount_label };
    let read_only_later = make_mounts(job, mapped_sources, &context)?;
    job.devices.make_others(root)?;
    make_working_directory(job, root)?;
    for mount in &read_only_later {
        mounts::make_read_only(mount.as_fd(), Reach::One).context(Stage::Mounts, || "cannot make a tmpfs read-only")?;
    }
    if job.tells_when_mounted {
        channel.send(&Message::MountsMade).context(Stage::Hook, || "cannot tell that the mounts are made")?;
        channel.wait_for_continue()?;
    }
    if let Some(hooks) = &job.spec.hooks {
        let state = State { status: Status::Creating, pid: Some(own_pid()), ..job.state.clone() };
        hooks::run(Point::CreateContainer, &hooks.create_container, &state)?;
    }
    Ok(attached.mount)
}

/// Makes the mounts in their order; `/dev` is filled as soon as it is there, so that what comes after may go into it.
fn make_mounts(job: &Job<'_>, mapped_sources: Vec<OpenedSource>, context: &MountContext<'_>) -> Result<Vec<OwnedFd>> {
    let (mut read_only_later, mut dev_is_done) = (Vec::new(), false);
    for (planned, mapped) in job.mounts.iter().zip(mapped_sources) {
        // Host paths still lead where they did: the container's root only covers its own place. Opened in turn, the mounts are
        // numbered, and listed in mountinfo, in the order of the configuration.
        let source = match mapped {
            Some(source) => Some(source),
            None => mounts::open_source(planned, job.bundle)?,
        };
        read_only_later.extend(mounts::make(planned, source, context)?);
        let at_dev = planned.destination == Path::new("/dev");
        if planned.is_fresh_dev() {
            job.devices.fill_dev(context.root, devices::open_dev(context.root)?.as_fd())?;
        }
        // What is bound to /dev is somebody else's to fill.
        dev_is_done |= at_dev;
    }
    if !dev_is_done {
        job.devices.fill_dev(context.root, devices::open_dev(context.root)?.as_fd())?;
    }
    Ok(read_only_later)
}

/// Makes the working directory where the image lacks it, as runc does.
fn make_working_directory(job: &Job<'_>, root: Root<'_>) -> Result<()> {
    let path = &job.process.process.cwd;
    if path.is_empty() || path == "/" {
        return Ok(());
    }
    match root.make_directory(Path::new(path), Mode::from_raw_mode(0o755)) {
        // Entering it will tell what is wrong with it, in the words that clients know.
        Ok(_) | Err(Errno::ROFS | Errno::ACCESS | Errno::LOOP | Errno::NOTDIR | Errno::PERM) => Ok(()),
        Err(errno) => {
            Err(Error::os(Stage::WorkingDirectory, format!("cannot make the working directory {path:?}"), errno))
        }
    }
}

/// Opens a pseudo-terminal of the container's own devpts, and binds it over `/dev/console`.
fn open_terminal(job: &Job<'_>, root: Root<'_>, channel: &Channel) -> Result<Option<OwnedFd>> {
    if !matches!(job.stdio, Stdio::Terminal) {
        return Ok(None);
    }
    let terminal = new_terminal(root, job.process.process.console_size.as_ref(), channel)?;
    devices::bind_console(devices::open_dev(root)?.as_fd(), terminal.as_fd())?;
    Ok(Some(terminal))
}

/// A new pseudo-terminal: its master goes to the creator, the other side is returned.
pub(crate) fn new_terminal(
    root: Root<'_>,
    size: Option<&oci::runtime::ConsoleSize>,
    channel: &Channel,
) -> Result<OwnedFd> {
    let failed = |what: &'static str| move || what;
    let place = root
        .locate_without_links(Path::new("/dev/pts/ptmx"))
        .context(Stage::Console, failed("cannot open /dev/pts/ptmx"))?;
    if fstatfs(&place).context(Stage::Console, failed("/dev/pts/ptmx"))?.f_type as u64 != DEVPTS_SUPER_MAGIC {
        return Err(Error::new(Stage::Console, "/dev/pts of the container is not a devpts"));
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = root
        .open(Path::new("/dev/pts/ptmx"), flags)
        .context(Stage::Console, failed("cannot open a pseudo-terminal"))?;
    if fstatfs(&master).context(Stage::Console, failed("/dev/pts/ptmx"))?.f_type as u64 != DEVPTS_SUPER_MAGIC {
        return Err(Error::new(Stage::Console, "/dev/pts of the container is not a devpts"));
    }
    linux::terminal::unlock(master.as_fd()).context(Stage::Console, failed("cannot unlock the pseudo-terminal"))?;
    let terminal = linux::terminal::open_peer(master.as_fd())
        .context(Stage::Console, failed("cannot open the pseudo-terminal"))?;
    if let Some(size) = size {
        let clamp = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        linux::terminal::set_size(terminal.as_fd(), clamp(size.height), clamp(size.width))
            .context(Stage::Console, failed("cannot set the terminal's size"))?;
    }
    channel.send(&Message::Console(master)).context(Stage::Console, failed("cannot hand out the terminal"))?;
    Ok(terminal)
}

fn set_host_names(spec: &Spec) -> Result<()> {
    if !spec.hostname.is_empty() {
        namespace::set_host_name(spec.hostname.as_bytes()).context(Stage::Properties, || "sethostname")?;
    }
    if !spec.domainname.is_empty() {
        namespace::set_domain_name(spec.domainname.as_bytes()).context(Stage::Properties, || "setdomainname")?;
    }
    Ok(())
}

fn set_oom_score(job: &Job<'_>) -> Result<()> {
    match job.process.process.oom_score_adj {
        None => Ok(()),
        Some(_) => {
            write_oom_score(job.process.process, &Procfs::open().context(Stage::Properties, || "cannot open a procfs")?)
        }
    }
}

fn write_oom_score(process: &Process, procfs: &Procfs) -> Result<()> {
    let Some(score) = process.oom_score_adj else { return Ok(()) };
    procfs
        .write(Path::new("self/oom_score_adj"), score.to_string().as_bytes())
        .context(Stage::Properties, || format!("cannot set oom_score_adj to {score}"))
}

fn set_properties(job: &Job<'_>) -> Result<()> {
    let process = job.process.process;
    if process.oom_score_adj.is_some() || !job.linux.sysctl.is_empty() {
        let procfs = Procfs::open().context(Stage::Properties, || "cannot open a procfs")?;
        sysctl::set(&job.linux.sysctl, &procfs)?;
        if !job.namespaces.other_user_namespace {
            write_oom_score(process, &procfs)?;
        }
    }
    if let Some(personality) = &job.linux.personality {
        properties::set_personality(personality)?;
    }
    if let Some(policy) = &job.linux.memory_policy {
        properties::set_memory_policy(policy)?;
    }
    Ok(())
}

/// Masks, makes read-only, and makes the root the root.
fn finish_root(job: &Job<'_>, mount: OwnedFd) -> Result<()> {
    let root = Root::new(mount.as_fd());
    masked::make_paths_read_only(root, &job.linux.readonly_paths)?;
    masked::mask(root, &job.linux.masked_paths)?;
    if job.spec.root.as_ref().is_some_and(|root| root.readonly) {
        mounts::make_read_only(mount.as_fd(), Reach::One)
            .context(Stage::Rootfs, || "cannot make the root read-only")?;
    }
    rootfs::change_root(mount.as_fd(), job.root_change)?;
    rootfs::set_propagation(mount.as_fd(), job.linux.rootfs_propagation)
}
