//! From a prepared process to the user's program: the last steps, the same for a container's init and for `exec`.
//!
//! The order matters. The working directory is entered while the process is still root, because root's right to enter it is what
//! Docker's users rely on. Bounding capabilities go while CAP_SETPCAP is there, the user changes with the others kept, and what must be
//! kept of them is set last. Limits come when nothing more is opened. A filter without no_new_privs needs CAP_SYS_ADMIN and so comes
//! before the capabilities go; with it, it comes after everything, so that it need not allow what the runtime does.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use linux::credentials::{self, Capabilities};
use linux::exec::{CStringList, execve};
use linux::{Errno, fds, seccomp, signal};
use oci::runtime::Process;
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, stat};

use crate::capability_names::capability_mask;
use crate::channel::{Channel, Message};
use crate::error::{Context, Error, Kind, Result, Stage, errno_text};
use crate::labels;
use crate::procfs::Procfs;
use crate::properties;
use crate::request::{Identity, Keyring, SeccompFilter, Stdio};
use crate::root::{Root, is_char_device};
use crate::users::{self, Credentials};

const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_SYS_RESOURCE: u64 = 1 << 24;
/// What a process gets for `PATH` when its environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_UMASK: u32 = 0o022;

/// A process to become.
#[derive(Debug)]
pub(crate) struct ProcessPlan<'a> {
    pub(crate) process: &'a Process,
    pub(crate) capabilities: CapabilityPlan,
    pub(crate) seccomp: Option<&'a SeccompFilter>,
    pub(crate) identity: &'a Identity,
    pub(crate) preserve_fds: u32,
    pub(crate) keyring: Keyring,
    /// Names the session keyring.
    pub(crate) id: &'a str,
}

/// The five sets as masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CapabilityPlan {
    bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
}

impl CapabilityPlan {
    /// The sets of a process, without what is unknown or cannot be granted; both are told as warnings.
    pub(crate) fn plan(process: &Process, grantable: u64, warnings: &mut Vec<String>) -> CapabilityPlan {
        let Some(sets) = &process.capabilities else { return CapabilityPlan::default() };
        let mut refused = Vec::new();
        let mut mask = |names: &[String]| {
            let (mask, unknown) = capability_mask(names);
            refused.extend(unknown.into_iter().map(str::to_owned));
            let missing = mask & !grantable;
            let number = crate::capability_names::capability_number;
            refused
                .extend(names.iter().filter(|name| number(name).is_some_and(|bit| missing >> bit & 1 == 1)).cloned());
            mask & grantable
        };
        let plan = CapabilityPlan {
            bounding: mask(&sets.bounding),
            effective: mask(&sets.effective),
            permitted: mask(&sets.permitted),
            inheritable: mask(&sets.inheritable),
            ambient: mask(&sets.ambient),
        };
        refused.sort_unstable();
        refused.dedup();
        if !refused.is_empty() {
            warnings.push(format!("capabilities that are unknown or cannot be granted: {}", refused.join(", ")));
        }
        plan
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl CapabilityPlan {
    /// Whether no set has more than this.
    pub(crate) fn is_within(&self, mask: u64) -> bool {
        (self.bounding | self.effective | self.permitted | self.inheritable | self.ambient) & !mask == 0
    }
}

/// Checks what can be checked of a process before anything is made.
pub(crate) fn check(process: &Process) -> Result<()> {
    if process.args.is_empty() {
        return Err(Error::new(Stage::Spec, "args must not be empty"));
    }
    if !process.cwd.is_empty() && !process.cwd.starts_with('/') {
        return Err(Error::new(Stage::Spec, "Cwd must be an absolute path"));
    }
    for text in process.args.iter().chain(&process.env).chain([&process.cwd]) {
        if text.contains('\0') {
            return Err(Error::new(Stage::Spec, format!("{text:?} has a NUL in it")));
        }
    }
    properties::check(process)
}

/// What happens between being ready and running the program; returns the channel on which an error is told from then on.
pub(crate) type BeforeExec<'a> = dyn FnOnce(Channel) -> std::result::Result<Channel, (Error, Channel)> + 'a;

/// Becomes the process. Returns only the error, and the channel to tell it on.
///
/// `needed` is a descriptor that `before` needs.
pub(crate) fn become_process(
    plan: &ProcessPlan<'_>,
    terminal: Option<&OwnedFd>,
    channel: Channel,
    needed: Option<RawFd>,
    before: Box<BeforeExec<'_>>,
) -> (Error, Channel) {
    let prepared = match prepare(plan, terminal) {
        Ok(prepared) => prepared,
        Err(error) => return (error, channel),
    };
    // It may wait for its start for long, and others may be in its pid namespace: nothing of the host is left to be seen by then.
    let kept = needed.into_iter().chain([channel.as_fd().as_raw_fd()]);
    if let Err(errno) = close_all_but(plan.preserve_fds, kept.collect()) {
        return (Error::os(Stage::Exec, "cannot close descriptors", errno), channel);
    }
    let channel = match before(channel) {
        Ok(channel) => channel,
        Err(failed) => return failed,
    };
    let Some(path) = &prepared.path else {
        return (Error::new(Stage::Exec, "the configuration has no process to start"), channel);
    };
    // From here on the only descriptors are the program's and the channel; a path as /proc/self/fd/N leads nowhere else.
    let channel = match keep_only(channel, plan.preserve_fds) {
        Ok(channel) => channel,
        Err(failed) => return failed,
    };
    if let Err(error) = drop_privileges(plan, &prepared, &channel) {
        return (error, channel);
    }
    let errno = execve(path, &prepared.arguments, &prepared.environment);
    (exec_error(path, errno), channel)
}

/// Everything that the last steps need, found while it can still be found.
struct Prepared {
    /// `None` where there is no process.
    path: Option<CString>,
    arguments: CStringList,
    environment: CStringList,
    uid: u32,
}

fn prepare(plan: &ProcessPlan<'_>, terminal: Option<&OwnedFd>) -> Result<Prepared> {
    let process = plan.process;
    let root_fd = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context(Stage::Rootfs, || "cannot open /")?;
    let root = Root::new(root_fd.as_fd());
    properties::set_scheduling(process)?;
    set_labels(process)?;
    if plan.keyring == Keyring::New {
        join_keyring(plan.id)?;
    }
    let credentials = credentials_of(process, plan.identity, root)?;
    let environment = environment_of(process, root, credentials.uid);
    own_stdio(root, credentials.uid, terminal.is_some())?;
    let entered = enter_working_directory(root, &process.cwd);
    properties::set_limits_for_user(&process.rlimits)?;
    drop_bounding(plan.capabilities.bounding)?;
    become_user(&credentials, process.user.umask)?;
    if let Err((errno, error)) = entered {
        // Root may lack the right where the user has it: a network file system that does not trust root.
        if errno != Errno::ACCESS {
            return Err(error);
        }
        enter_working_directory(root, &process.cwd).map_err(|(_, error)| error)?;
    }
    check_working_directory()?;
    let path = process.args.first().map(|name| find_program(name, &environment)).transpose()?;
    let list = |strings: &[String]| CStringList::new(strings.iter().map(String::as_str));
    match (list(&process.args), list(&environment), path.map(CString::new).transpose()) {
        (Some(arguments), Some(environment), Ok(path)) => {
            Ok(Prepared { path, arguments, environment, uid: credentials.uid })
        }
        _ => Err(Error::new(Stage::Spec, "an argument or environment variable has a NUL in it")),
    }
}

/// Writes the labels that the kernel applies at the next execve.
fn set_labels(process: &Process) -> Result<()> {
    if process.apparmor_profile.is_empty() && process.selinux_label.is_empty() {
        return Ok(());
    }
    let procfs = Procfs::open().context(Stage::Properties, || "cannot open a procfs")?;
    if !process.apparmor_profile.is_empty() {
        set_apparmor_profile(&process.apparmor_profile, &procfs)?;
    }
    if !process.selinux_label.is_empty() {
        procfs
            .write(Path::new("thread-self/attr/exec"), process.selinux_label.as_bytes())
            .context(Stage::Properties, || format!("unable to apply SELinux label {:?}", process.selinux_label))?;
    }
    Ok(())
}

/// Whether there is AppArmor was looked up on the host; in here procfs alone can be asked.
fn set_apparmor_profile(profile: &str, procfs: &Procfs) -> Result<()> {
    let failed = || format!("unable to apply apparmor profile {profile:?}");
    let file = match procfs.open_file(Path::new("thread-self/attr/apparmor/exec"), OFlags::WRONLY) {
        // No AppArmor, or a kernel before 5.1, where all security modules share one file.
        Err(Errno::NOENT) if profile == labels::UNCONFINED => return Ok(()),
        Err(Errno::NOENT) => procfs.open_file(Path::new("thread-self/attr/exec"), OFlags::WRONLY),
        other => other,
    };
    let file = file.context(Stage::Properties, failed)?;
    match rustix::io::write(&file, format!("exec {profile}").as_bytes()) {
        Err(Errno::NOENT) => Err(Error::new(Stage::Properties, format!("{}: no such profile is loaded", failed()))),
        other => other.context(Stage::Properties, failed).map(drop),
    }
}

fn join_keyring(id: &str) -> Result<()> {
    /// Lets the user who owns the keyring search it, as runc does: programs link keys into it.
    const USER_MAY_SEARCH: u32 = 0x0008_0000;
    let name = CString::new(format!("_ses.{id}"))
        .map_err(|_| Error::new(Stage::Spec, "the container's id has a NUL in it"))?;
    match linux::keyring::join_session(&name) {
        Ok(serial) => {
            let widened = linux::keyring::permissions(serial)
                .and_then(|mask| linux::keyring::set_permissions(serial, mask | USER_MAY_SEARCH));
            match widened {
                Ok(()) | Err(Errno::NOSYS) => Ok(()),
                Err(errno) => {
                    Err(Error::os(Stage::Properties, "unable to change the permissions of the session keyring", errno))
                }
            }
        }
        // A kernel without keys, or one that an outer container filters.
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => Ok(()),
        Err(errno) => Err(Error::os(Stage::Properties, "unable to join session keyring", errno)),
    }
}

fn credentials_of(process: &Process, identity: &Identity, root: Root<'_>) -> Result<Credentials> {
    let user = &process.user;
    match identity {
        Identity::Numbers => Ok(Credentials { uid: user.uid, gid: user.gid, groups: user.additional_gids.clone() }),
        Identity::Lookup { groups } => {
            let mut found = users::look_up(root, &user.username, groups)?;
            found.groups.extend(&user.additional_gids);
            Ok(found)
        }
    }
}

/// Looks a process's user up in a root as its init would, and writes the numbers into `process`: for runtimes that take only those.
pub fn resolve_user(rootfs: BorrowedFd<'_>, process: &mut Process, identity: &Identity) -> Result<()> {
    let root = Root::new(rootfs);
    let found = credentials_of(process, identity, root)?;
    process.env = environment_of(process, root, found.uid);
    process.user.username.clear();
    (process.user.uid, process.user.gid, process.user.additional_gids) = (found.uid, found.gid, found.groups);
    Ok(())
}

/// The environment with `HOME` in it.
fn environment_of(process: &Process, root: Root<'_>, uid: u32) -> Vec<String> {
    let mut environment = process.env.clone();
    if !environment.iter().any(|variable| variable.starts_with("HOME=")) {
        environment.push(format!("HOME={}", users::home_of(root, uid)));
    }
    environment
}

/// Gives the standard streams to the user, so that `/dev/stdout` can be opened again; the null device stays everybody's.
fn own_stdio(root: Root<'_>, uid: u32, terminal: bool) -> Result<()> {
    let mut null = None;
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let stat = match rustix::fs::fstat(stream) {
            Ok(stat) => stat,
            Err(Errno::BADF) => continue,
            Err(errno) => return Err(Error::os(Stage::User, "fstat of a standard stream", errno)),
        };
        if is_char_device(&stat, 1, 3) {
            replace_null(stream, root, &mut null)?;
            continue;
        }
        if stat.st_uid == uid {
            continue;
        }
        match rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None) {
            // A read-only file system, or an owner that has no number in this user namespace.
            Ok(()) | Err(Errno::ROFS | Errno::INVAL | Errno::PERM) => {}
            Err(errno) if terminal => {
                return Err(Error::os(Stage::Console, "cannot give the terminal to the user", errno));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Replaces the host's null device by the container's: nothing of the host's file systems stays open, and a checkpoint needs none.
fn replace_null(stream: BorrowedFd<'_>, root: Root<'_>, null: &mut Option<OwnedFd>) -> Result<()> {
    let own = match null {
        Some(own) => own,
        None => match root.open(Path::new("/dev/null"), OFlags::RDWR) {
            Ok(opened) => null.insert(opened),
            // An image may have none, or something else there, which is no place for output.
            Err(_) => return Ok(()),
        },
    };
    match rustix::fs::fstat(&*own) {
        Ok(stat) if is_char_device(&stat, 1, 3) => {
            fds::duplicate_onto(own.as_fd(), stream.as_raw_fd()).context(Stage::User, || "cannot replace /dev/null")
        }
        _ => Ok(()),
    }
}

/// Enters the working directory: found inside the root without magic links, so that no `/proc/self/fd/N` leads out.
fn enter_working_directory(root: Root<'_>, path: &str) -> std::result::Result<(), (Errno, Error)> {
    let path = if path.is_empty() { "/" } else { path };
    let entered = root.open(Path::new(path), OFlags::PATH | OFlags::DIRECTORY).and_then(rustix::process::fchdir);
    entered.map_err(|errno| {
        let message = format!("chdir to cwd ({path:?}) set in config.json failed: {}", errno_text(errno));
        (errno, Error::new(Stage::WorkingDirectory, message))
    })
}

/// The kernel's own word that the working directory is inside the root.
fn check_working_directory() -> Result<()> {
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().first() == Some(&b'/') => Ok(()),
        Ok(_) | Err(Errno::NOENT) => Err(Error::new(
            Stage::WorkingDirectory,
            "current working directory is outside of container mount namespace root -- possible container breakout detected",
        )),
        Err(errno) => Err(Error::os(Stage::WorkingDirectory, "getcwd", errno)),
    }
}

fn drop_bounding(kept: u64) -> Result<()> {
    for number in 0..64 {
        if kept >> number & 1 == 1 {
            continue;
        }
        match credentials::drop_from_bounding_set(number) {
            Ok(()) => {}
            // There are no more.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(Error::os(Stage::Capabilities, "unable to apply bounding set", errno)),
        }
    }
    Ok(())
}

fn become_user(credentials: &Credentials, umask: Option<u32>) -> Result<()> {
    let failed = |what: &'static str| move || what;
    if credentials.uid != 0 {
        credentials::keep_capabilities().context(Stage::Capabilities, failed("unable to set keep caps"))?;
    }
    match credentials::set_groups(&credentials.groups) {
        // A user namespace whose maker had no privilege denies it; then there are no groups to drop either.
        Err(Errno::PERM) if credentials.groups.is_empty() => {}
        other => other.context(Stage::User, failed("setgroups"))?,
    }
    credentials::set_gid(credentials.gid).context(Stage::User, failed("setgid"))?;
    credentials::set_uid(credentials.uid).context(Stage::User, failed("setuid"))?;
    rustix::process::umask(Mode::from_raw_mode(umask.unwrap_or(DEFAULT_UMASK) & 0o777));
    Ok(())
}

/// Finds the program as Go's `exec.LookPath` does, whose messages Docker's clients read.
fn find_program(name: &str, environment: &[String]) -> Result<String> {
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(errno) => Err(lookup_error(name, errno)),
        };
    }
    let path = environment.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
    for directory in path.unwrap_or(DEFAULT_PATH).split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{}/{name}", directory.trim_end_matches('/'));
        if !name.is_empty() && executable(&candidate).is_ok() {
            return Ok(candidate);
        }
    }
    Err(Error::of_kind(Stage::Exec, Kind::NotFound, format!("exec: {name:?}: executable file not found in $PATH")))
}

fn executable(path: &str) -> linux::Result<()> {
    let stat = stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // Not known to older kernels or to an outer filter: then the bits must say it.
        Err(Errno::NOSYS | Errno::PERM) if stat.st_mode & 0o111 != 0 => Ok(()),
        Err(Errno::NOSYS | Errno::PERM) => Err(Errno::ACCESS),
        other => other,
    }
}

fn lookup_error(name: &str, errno: Errno) -> Error {
    let (kind, cause) = match errno {
        Errno::ISDIR => (Kind::IsDirectory, errno_text(errno)),
        Errno::ACCESS => (Kind::PermissionDenied, errno_text(errno)),
        Errno::NOENT | Errno::NOTDIR => (Kind::NotFound, format!("stat {name}: {}", errno_text(errno))),
        _ => (Kind::Other, format!("stat {name}: {}", errno_text(errno))),
    };
    Error::of_kind(Stage::Exec, kind, format!("exec: {name:?}: {cause}"))
}

fn exec_error(path: &CString, errno: Errno) -> Error {
    let kind = match errno {
        Errno::NOENT | Errno::NOTDIR => Kind::NotFound,
        Errno::ACCESS | Errno::NOEXEC => Kind::PermissionDenied,
        Errno::ISDIR => Kind::IsDirectory,
        _ => Kind::Other,
    };
    Error::of_kind(Stage::Exec, kind, format!("exec {}: {}", path.to_string_lossy(), errno_text(errno)))
}

/// Closes every descriptor but the standard streams, those to preserve, and the channel, which moves behind them.
pub(crate) fn keep_only(channel: Channel, preserve: u32) -> std::result::Result<Channel, (Error, Channel)> {
    let moved = match rustix::io::fcntl_dupfd_cloexec(channel.as_fd(), first_unpreserved(preserve)) {
        Ok(moved) => moved,
        Err(errno) => return Err((Error::os(Stage::Exec, "cannot move a descriptor", errno), channel)),
    };
    // The old number must not be closed twice.
    let _closed_below = std::mem::ManuallyDrop::new(channel);
    let number = moved.as_raw_fd();
    let moved = Channel::new(moved);
    match close_all_but(preserve, vec![number]) {
        Ok(()) => Ok(moved),
        Err(errno) => Err((Error::os(Stage::Exec, "cannot close descriptors", errno), moved)),
    }
}

fn first_unpreserved(preserve: u32) -> RawFd {
    3 + i32::try_from(preserve).unwrap_or(0)
}

/// Closes every descriptor but the standard streams, those to preserve, and `kept`.
fn close_all_but(preserve: u32, mut kept: Vec<RawFd>) -> linux::Result<()> {
    let mut next = first_unpreserved(preserve);
    kept.sort_unstable();
    for number in kept {
        if number > next {
            fds::close_range(next, number - 1)?;
        }
        next = next.max(number + 1);
    }
    fds::close_from(next)
}

fn drop_privileges(plan: &ProcessPlan<'_>, prepared: &Prepared, channel: &Channel) -> Result<()> {
    let privileged_filter = plan.seccomp.is_some() && !plan.process.no_new_privileges;
    if prepared.uid != 0 && (privileged_filter || !plan.process.rlimits.is_empty()) {
        raise_again()?;
    }
    properties::set_other_limits(&plan.process.rlimits)?;
    if privileged_filter {
        load_filter(plan, channel)?;
    }
    let sets = plan.capabilities;
    let wanted = Capabilities { effective: sets.effective, permitted: sets.permitted, inheritable: sets.inheritable };
    credentials::set_capabilities(&wanted).context(Stage::Capabilities, || "unable to apply caps")?;
    apply_ambient(sets.ambient)?;
    if plan.process.no_new_privileges {
        credentials::set_no_new_privileges().context(Stage::Capabilities, || "unable to set no new privileges")?;
        if plan.seccomp.is_some() {
            load_filter(plan, channel)?;
        }
    }
    Ok(())
}

/// Leaving user 0 emptied the effective set; the permitted one was kept. A filter needs one of them, raising a limit another.
fn raise_again() -> Result<()> {
    let failed = || "unable to raise CAP_SYS_ADMIN and CAP_SYS_RESOURCE for filter and limits";
    let mut now = credentials::capabilities().context(Stage::Capabilities, failed)?;
    now.effective |= now.permitted & (CAP_SYS_ADMIN | CAP_SYS_RESOURCE);
    credentials::set_capabilities(&now).context(Stage::Capabilities, failed)
}

fn apply_ambient(ambient: u64) -> Result<()> {
    match credentials::clear_ambient() {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(Error::os(Stage::Capabilities, "unable to clear ambient caps", errno)),
    }
    for number in (0..64).filter(|number| ambient >> number & 1 == 1) {
        // One that is not permitted and inheritable too cannot be ambient; the specification says not to fail.
        let _warned_about_before = credentials::raise_ambient(number);
    }
    Ok(())
}

fn load_filter(plan: &ProcessPlan<'_>, channel: &Channel) -> Result<()> {
    let Some(filter) = plan.seccomp else { return Ok(()) };
    let listener = seccomp::load_filter(&filter.program, filter.flags)
        .context(Stage::Seccomp, || "error loading seccomp filter")?;
    let Some(listener) = listener else { return Ok(()) };
    // The creator takes the listener out of this process, which therefore must wait: the filter has to allow that, as with runc.
    channel
        .send(&Message::SeccompListener(listener.as_raw_fd()))
        .context(Stage::Seccomp, || "cannot tell of the seccomp listener")?;
    channel.wait_for_continue()
}

/// Makes the standard streams of this process those of the request. A terminal becomes the controlling one.
pub(crate) fn set_stdio(stdio: &Stdio, terminal: Option<&OwnedFd>) -> Result<()> {
    let failed = || "cannot set the standard streams";
    let streams: [BorrowedFd<'_>; 3] = match (stdio, terminal) {
        (Stdio::Fds([input, output, error]), _) => [input.as_fd(), output.as_fd(), error.as_fd()],
        (_, Some(terminal)) => [terminal.as_fd(); 3],
        (Stdio::Inherit | Stdio::Terminal, None) => return Ok(()),
    };
    // Above the standard numbers first: one of the three may be where another has to go.
    let mut moved = Vec::with_capacity(3);
    for stream in streams {
        moved.push(rustix::io::fcntl_dupfd_cloexec(stream, 3).context(Stage::Console, failed)?);
    }
    for (number, stream) in moved.iter().enumerate() {
        fds::duplicate_onto(stream.as_fd(), number as i32).context(Stage::Console, failed)?;
    }
    if let Some(terminal) = terminal {
        linux::terminal::make_controlling(terminal.as_fd())
            .context(Stage::Console, || "cannot make the terminal controlling")?;
    }
    Ok(())
}

/// Gives signals back their defaults: programs expect them so, and the caller may have blocked or ignored some.
pub(crate) fn reset_signals() -> Result<()> {
    signal::reset_ignored();
    signal::set_mask(signal::SignalSet::NONE).context(Stage::Properties, || "cannot unblock signals").map(drop)
}
