//! Another OCI runtime (runc, crun, …) runs the container, started as a program for each step.
//!
//! ```text
//! <bundle>/config.json   the configuration
//!          rootfs        the overlay, mounted in this monitor's own mount namespace
//!          process.json  an exec session's process, while it is being started
//!          pid           where the runtime writes the pid it has started
//!          console.sock  where it hands a terminal's master over
//!          runtime.log   where it writes what went wrong
//! ```
//!
//!          volumes/N     sources that are mounted with the container's ids, likewise
//!
//! The monitor is a child subreaper here: what the runtime starts becomes its child when the runtime ends. A step waits for
//! the program, so a runtime that hangs stops this container's monitor, and nobody else.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cgroups::{Cgroup, OomWatch};
use monitor_protocol::{CgroupDriver, Exec, Failure, FailureKind, Identity, Launch, Rootfs, Stats, Waiting, socket};
use oci::runtime::{ConsoleSize, Linux, LinuxNamespaceType, LinuxResources, Process, Spec};
use rustix::fs::{Access, CWD, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount, mount_change, move_mount, unmount,
};
use serde::Deserialize;

use super::{Started, Surroundings, native, stats};
use crate::failure;
use crate::stdio::ProcessEnds;

/// Where a runtime finds its helpers.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How the monitor's program is told to become another one, given with its arguments.
pub(crate) const RUN_FLAG: &str = "--run";

/// Which runtime, and where it keeps its things.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) state_dir: PathBuf,
    pub(crate) bundle: PathBuf,
}

/// A container that another runtime runs.
#[derive(Debug)]
pub(crate) struct Container {
    runtime: Runtime,
    id: String,
    pid: i32,
    root: PathBuf,
    mounted: bool,
    cgroup_driver: CgroupDriver,
    /// Where the runtime has put it, for what it is not asked for.
    cgroup: Option<Cgroup>,
    /// Open from the first time that somebody asks for numbers.
    reader: Option<stats::Reader>,
    oom: Option<OomWatch>,
    oom_kills: u64,
    /// Mounts with mapped ids, to be unmounted before the bundle is removed.
    volumes: Vec<PathBuf>,
    /// Named in the configuration by their numbers here, so they must stay open until the container has joined them.
    namespaces: GivenNamespaces,
}

/// Namespaces that the engine has made.
#[derive(Debug)]
struct GivenNamespaces {
    network: Option<OwnedFd>,
    user: Option<OwnedFd>,
}

/// One entry of a runtime's log.
#[derive(Deserialize)]
struct LogEntry {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

impl Container {
    /// Makes the container and starts it.
    pub(crate) fn launch(
        runtime: Runtime,
        launch: &mut Launch,
        around: Surroundings<'_>,
    ) -> Result<(Container, Started), Failure> {
        let namespaces = GivenNamespaces { network: around.network_namespace, user: around.user_namespace };
        let mut container = Container::prepare(runtime, launch, namespaces)?;
        match container.create_and_start(around.ends) {
            Ok(started) => Ok((container, started)),
            Err(failure) => {
                // The failure that led here is the one to tell.
                let _ = container.delete();
                Err(failure)
            }
        }
    }

    fn prepare(runtime: Runtime, launch: &mut Launch, namespaces: GivenNamespaces) -> Result<Container, Failure> {
        rustix::fs::access(&runtime.path, Access::EXEC_OK)
            .map_err(|errno| not_started(&runtime.path, &errno.into()))?;
        if launch.seccomp.is_some() {
            return Err(failure::invalid(
                "another runtime takes seccomp rules in the configuration, not a compiled filter",
            ));
        }
        become_subreaper()?;
        make_dir(&runtime.bundle)?;
        let mapped = launch.spec.linux.clone().filter(|linux| !linux.uid_mappings.is_empty());
        let root = mount_root(&runtime.bundle, &launch.rootfs, mapped.as_ref())?;
        let mut container = Container {
            id: launch.id.clone(),
            pid: 0,
            mounted: matches!(launch.rootfs, Rootfs::Overlay { .. }),
            root,
            cgroup_driver: launch.cgroup_driver,
            cgroup: None,
            reader: None,
            oom: None,
            oom_kills: 0,
            volumes: Vec::new(),
            namespaces,
            runtime,
        };
        container.forget_the_last();
        let prepared = match &mapped {
            Some(linux) => container.mount_volumes(&mut launch.spec, linux),
            None => Ok(()),
        };
        match prepared.and_then(|()| container.write_spec(launch)) {
            Ok(()) => Ok(container),
            Err(failure) => {
                container.unmake()?;
                Err(failure)
            }
        }
    }

    /// What the runtime remembers of a container of this name whose monitor was killed before it could delete it.
    fn forget_the_last(&mut self) {
        if self.runtime.state_dir.join(&self.id).exists() {
            // Creating will tell what is wrong.
            let _ = self.run(&["delete", "--force"], &[]);
        }
    }

    /// Mounts with mapped ids what the configuration wants so: not every runtime could, and none knows the option by this name.
    fn mount_volumes(&mut self, spec: &mut Spec, linux: &Linux) -> Result<(), Failure> {
        let failed = |errno: rustix::io::Errno| failure::other("volumes", &errno);
        for (number, wanted) in spec.mounts.iter_mut().enumerate() {
            let Some(place) = wanted.options.iter().position(|option| option == "idmap") else { continue };
            wanted.options.remove(place);
            let tree = runtime::mapped_bind(Path::new(&wanted.source), linux);
            let tree = tree.map_err(|error| failure::other("volumes", &error))?;
            let target = self.runtime.bundle.join("volumes").join(number.to_string());
            make_dir(&target)?;
            attach(tree.as_fd(), &target).map_err(failed)?;
            path_text(&target)?.clone_into(&mut wanted.source);
            self.volumes.push(target);
        }
        Ok(())
    }

    fn write_spec(&self, launch: &mut Launch) -> Result<(), Failure> {
        let mut spec = launch.spec.clone();
        let root = spec.root.get_or_insert_default();
        root.path = path_text(&self.root)?.to_owned();
        let process = spec.process.as_mut().ok_or_else(|| failure::invalid("the container has no process"))?;
        if let monitor_protocol::Stdio::Terminal { size, .. } = launch.stdio {
            set_terminal(
                process,
                size.map(|size| ConsoleSize { height: size.height.into(), width: size.width.into() }),
            );
        }
        self.resolve_user(process, &launch.identity)?;
        let given = [
            (LinuxNamespaceType::Network, &self.namespaces.network),
            (LinuxNamespaceType::User, &self.namespaces.user),
        ];
        for (kind, namespace) in given {
            if let Some(namespace) = namespace {
                join_namespace(&mut spec, kind, namespace.as_fd());
            }
        }
        write_json(&self.runtime.bundle.join("config.json"), &spec)
    }

    /// Other runtimes take numbers.
    fn resolve_user(&self, process: &mut Process, identity: &Identity) -> Result<(), Failure> {
        let Identity::Lookup { groups } = identity else { return Ok(()) };
        let identity = runtime::Identity::Lookup { groups: groups.clone() };
        let root = self.rootfs()?;
        runtime::resolve_user(root.as_fd(), process, &identity).map_err(|error| failure::other("user", &error))
    }

    fn create_and_start(&mut self, ends: ProcessEnds) -> Result<Started, Failure> {
        let bundle = self.runtime.bundle.clone();
        let started = self.start_process(&["create", "--bundle", path_text(&bundle)?], ends)?;
        self.pid = started.pid;
        // Before the start, as the process may end at once. A runtime without cgroups has no numbers, and runs all the same.
        self.cgroup = Cgroup::of_process(self.pid).ok();
        self.run(&["start"], &[])?;
        Ok(started)
    }

    /// Starts another process.
    pub(crate) fn exec(&mut self, exec: &Exec, ends: ProcessEnds) -> Result<Started, Failure> {
        let mut process = exec.process.clone();
        match &ends {
            ProcessEnds::Terminal { size } => {
                set_terminal(
                    &mut process,
                    size.map(|size| ConsoleSize { height: size.height.into(), width: size.width.into() }),
                );
            }
            ProcessEnds::Fds(_) => process.terminal = false,
        }
        self.resolve_user(&mut process, &exec.identity)?;
        let file = self.runtime.bundle.join("process.json");
        write_json(&file, &process)?;
        self.start_process(&["exec", "--detach", "--process", path_text(&file)?], ends)
    }

    pub(crate) fn kill_init(&mut self, signal: i32) -> Result<(), Failure> {
        // It is our child and not reaped yet, so its pid means nobody else.
        let pid =
            rustix::process::Pid::from_raw(self.pid).ok_or_else(|| failure::not_running("container not running"))?;
        linux::signal::send(pid, signal).map_err(|errno| failure::other("kill", &errno))
    }

    pub(crate) fn kill_all(&mut self, signal: i32) -> Result<(), Failure> {
        self.run(&["kill", "--all"], &[&signal.to_string()]).map(drop)
    }

    pub(crate) fn pause(&mut self) -> Result<(), Failure> {
        self.run(&["pause"], &[]).map(drop)
    }

    pub(crate) fn resume(&mut self) -> Result<(), Failure> {
        self.run(&["resume"], &[]).map(drop)
    }

    pub(crate) fn update(&mut self, resources: &LinuxResources) -> Result<(), Failure> {
        let file = self.runtime.bundle.join("resources.json");
        write_json(&file, resources)?;
        self.run(&["update", "--resources", path_text(&file)?], &[]).map(drop)
    }

    pub(crate) fn pids(&self) -> Result<Vec<i32>, Failure> {
        let output = self.run(&["ps", "--format", "json"], &[])?;
        serde_json::from_slice(&output.stdout).map_err(|error| failure::other("ps", &error))
    }

    pub(crate) fn stats(&mut self) -> Result<Stats, Failure> {
        let no_cgroup = || {
            let message = format!("{} has put the container into no cgroup", self.runtime.path.display());
            failure::new(FailureKind::Unsupported, "stats", message)
        };
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(stats::open(self.cgroup.as_ref().ok_or_else(no_cgroup)?, self.pid)?),
        };
        stats::read(reader)
    }

    pub(crate) fn rootfs(&self) -> Result<OwnedFd, Failure> {
        open_folder(&self.root)
    }

    pub(crate) fn watch(&mut self) {
        self.oom = self.cgroup.as_ref().and_then(|cgroup| cgroup.watch_oom().ok().flatten());
    }

    pub(crate) fn oom_fd(&self) -> Option<BorrowedFd<'_>> {
        self.oom.as_ref().map(AsFd::as_fd)
    }

    /// How many processes the kernel has killed, as far as that was looked at.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.oom_kills
    }

    pub(crate) fn take_oom(&mut self) -> bool {
        if let Some(watch) = &self.oom {
            watch.drain();
        }
        let kills = self.cgroup.as_ref().and_then(|cgroup| Cgroup::oom_kills(cgroup).ok()).unwrap_or(0);
        kills > std::mem::replace(&mut self.oom_kills, kills)
    }

    pub(crate) fn init_exited(&mut self) {
        // Deleting tries again; this is so that processes that outlive the first one close the pipes.
        let _ = self.kill_all(rustix::process::Signal::KILL.as_raw());
    }

    pub(crate) fn delete(self) -> Result<(), Failure> {
        let deleted = self.run(&["delete", "--force"], &[]).map(drop);
        self.unmake()?;
        deleted
    }

    /// Takes the bundle away.
    fn unmake(&self) -> Result<(), Failure> {
        for volume in &self.volumes {
            // What is still mounted would be emptied with the bundle.
            unmount(volume, UnmountFlags::DETACH).map_err(|errno| failure::other("volumes", &errno))?;
        }
        if self.mounted {
            unmount(&self.root, UnmountFlags::DETACH).map_err(|errno| failure::other("rootfs", &errno))?;
        }
        fs::remove_dir_all(&self.runtime.bundle).map_err(|error| failure::other("bundle", &error))
    }

    /// Runs a step that leaves a process behind, and finds out which.
    fn start_process(&self, command: &[&str], ends: ProcessEnds) -> Result<Started, Failure> {
        let bundle = open_folder(&self.runtime.bundle)?;
        // By a short name: a socket's path has 108 bytes, and a bundle's may have more.
        let short = format!("/proc/{}/fd/{}", rustix::process::getpid().as_raw_nonzero(), bundle.as_raw_fd());
        let (pid_file, console_path) = (self.runtime.bundle.join("pid"), Path::new(&short).join("console.sock"));
        let mut program = self.command(command);
        program.arg("--pid-file").arg(&pid_file);
        let listener = match ends {
            ProcessEnds::Fds([stdin, stdout, stderr]) => {
                program.stdin(stdin).stdout(stdout).stderr(stderr);
                None
            }
            ProcessEnds::Terminal { .. } => {
                program.arg("--console-socket").arg(&console_path);
                program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                Some(socket::listen(&console_path).map_err(|error| failure::other("console", &error))?)
            }
        };
        let status = program.arg(&self.id).status().map_err(|error| not_started(&self.runtime.path, &error))?;
        // The program object holds the process's ends of the pipes.
        drop(program);
        let console = listener.map(receive_console).transpose();
        let _ = fs::remove_file(&console_path);
        if !status.success() {
            return Err(self.failed(command[0], &status.to_string()));
        }
        let text = fs::read_to_string(&pid_file).map_err(|error| failure::other(command[0], &error))?;
        let pid = text.trim().parse().map_err(|error| failure::other(command[0], &error))?;
        Ok(Started { pid, console: console? })
    }

    /// Runs a step that answers.
    fn run(&self, command: &[&str], rest: &[&str]) -> Result<Output, Failure> {
        let mut program = self.command(command);
        program.arg(&self.id).args(rest).stdin(Stdio::null());
        let output = program.output().map_err(|error| not_started(&self.runtime.path, &error))?;
        if output.status.success() {
            Ok(output)
        } else {
            Err(self.failed(command[0], &String::from_utf8_lossy(&output.stderr)))
        }
    }

    fn command(&self, command: &[&str]) -> Command {
        // Through ourselves, where signals are unblocked: the container would find them blocked otherwise.
        let mut program = Command::new("/proc/self/exe");
        program.args(["monitor", RUN_FLAG]).arg(&self.runtime.path);
        // What an earlier step has complained of is not this one's failure.
        let log = self.runtime.bundle.join("runtime.log");
        let _ = fs::remove_file(&log);
        // The monitor's environment is the daemon's accident; runtimes look for helpers by PATH.
        program.env_clear().env("PATH", PATH);
        program.args(&self.runtime.args).arg("--root").arg(&self.runtime.state_dir);
        program.arg("--log").arg(log).args(["--log-format", "json"]);
        if self.cgroup_driver == CgroupDriver::Systemd {
            program.arg("--systemd-cgroup");
        }
        program.args(command);
        program
    }

    /// What the runtime has written into its log, or else what is known otherwise.
    fn failed(&self, step: &str, otherwise: &str) -> Failure {
        let log = fs::read_to_string(self.runtime.bundle.join("runtime.log")).unwrap_or_default();
        let mut entries = log.lines().filter_map(|line| serde_json::from_str::<LogEntry>(line).ok());
        let last_error = entries.rfind(|entry| entry.level == "error" || entry.level.is_empty());
        let logged = last_error.map(|entry| in_clients_words(entry.msg));
        let message = logged.unwrap_or_else(|| format!("{} {step}: {}", self.runtime.path.display(), otherwise.trim()));
        failure::new(kind_of(&message), step, message)
    }
}

/// Becomes another program; returns only the error.
pub(crate) fn run_program(words: &[String]) -> io::Error {
    match words.split_first() {
        Some((program, arguments)) => Command::new(program).args(arguments).exec(),
        None => io::Error::new(io::ErrorKind::InvalidInput, "no program is given"),
    }
}

fn not_started(program: &Path, error: &io::Error) -> Failure {
    failure::new(FailureKind::Other, "runtime", format!("cannot run {}: {error}", program.display()))
}

/// Clients find out by small letters whose failure it is; crun has libc's capital ones.
fn in_clients_words(message: String) -> String {
    ["No such file or directory", "Permission denied", "Is a directory"]
        .iter()
        .fold(message, |message, words| message.replace(words, &words.to_ascii_lowercase()))
}

/// All runtimes say it in these words, because Docker reads them.
fn kind_of(message: &str) -> FailureKind {
    if message.contains("executable file not found") || message.contains("no such file or directory") {
        FailureKind::NotFound
    } else if message.contains("permission denied") || message.contains("is a directory") {
        FailureKind::PermissionDenied
    } else if message.contains("not running") || message.contains("does not exist") {
        FailureKind::NotRunning
    } else {
        FailureKind::Other
    }
}

fn become_subreaper() -> Result<(), Failure> {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(|errno| failure::other("runtime", &errno))
}

/// The root where the runtime finds it: the folder, or the overlay in a mount namespace that only this monitor has.
fn mount_root(bundle: &Path, rootfs: &Rootfs, mapped: Option<&Linux>) -> Result<PathBuf, Failure> {
    let Rootfs::Overlay { lower, upper, work, options } = rootfs else {
        let Rootfs::Directory { path } = rootfs else { unreachable!("there are two kinds of roots") };
        return Ok(path.clone());
    };
    let root = bundle.join("rootfs");
    make_dir(&root)?;
    let failed = |errno: rustix::io::Errno| failure::other("rootfs", &errno);
    linux::namespace::unshare(linux::namespace::MOUNT).map_err(failed)?;
    // Unmounts of the host must reach us, or we would keep its file systems busy; ours must not reach the host.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).map_err(failed)?;
    if let Some(linux) = mapped {
        let mount = runtime::mapped_overlay(&native::rootfs(rootfs), linux);
        let mount = mount.map_err(|error| failure::other("rootfs", &error))?;
        attach(mount.as_fd(), &root).map_err(failed)?;
        return Ok(root);
    }
    let mut data = format!("lowerdir={}", joined(lower)?);
    for (key, path) in [("upperdir", upper), ("workdir", work)] {
        data += &format!(",{key}={}", path_text(path)?);
    }
    options.iter().for_each(|option| data += &format!(",{option}"));
    let data = std::ffi::CString::new(data).map_err(|error| failure::other("rootfs", &error))?;
    mount("overlay", &root, "overlay", MountFlags::empty(), Some(data.as_c_str())).map_err(failed)?;
    Ok(root)
}

/// overlayfs takes colons between layers, and a backslash before one in a name.
fn joined(layers: &[PathBuf]) -> Result<String, Failure> {
    let escaped =
        layers.iter().map(|layer| path_text(layer).map(|text| text.replace('\\', "\\\\").replace(':', "\\:")));
    Ok(escaped.collect::<Result<Vec<_>, _>>()?.join(":"))
}

/// Puts a detached mount on a folder.
fn attach(mount: BorrowedFd<'_>, target: &Path) -> rustix::io::Result<()> {
    move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn join_namespace(spec: &mut Spec, kind: LinuxNamespaceType, namespace: BorrowedFd<'_>) {
    let own = rustix::process::getpid().as_raw_nonzero();
    let path = format!("/proc/{own}/fd/{}", namespace.as_raw_fd());
    let namespaces = &mut spec.linux.get_or_insert_default().namespaces;
    namespaces.retain(|namespace| namespace.kind != kind);
    namespaces.push(oci::runtime::LinuxNamespace { kind, path });
}

fn set_terminal(process: &mut Process, size: Option<ConsoleSize>) {
    process.terminal = true;
    process.console_size = size.or(process.console_size);
}

/// The runtime has connected and sent the master before it ended, or it never will.
fn receive_console(listener: OwnedFd) -> Result<OwnedFd, Failure> {
    let failed = |error: &dyn std::error::Error| failure::other("console", error);
    let connection = rustix::net::accept(&listener).map_err(|errno| failed(&errno))?;
    let mut received = socket::receive_fds(connection.as_fd(), Waiting::DontWait).map_err(|error| failed(&error))?;
    received.pop().ok_or_else(|| failure::new(FailureKind::Other, "console", "the runtime sent no terminal"))
}

fn open_folder(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failure::other("rootfs", &errno))
}

fn make_dir(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o711).create(path);
    made.map_err(|error| failure::new(FailureKind::Other, "bundle", format!("cannot make {}: {error}", path.display())))
}

fn path_text(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| failure::invalid(format!("{} is no UTF-8", path.display())))
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| failure::other("bundle", error);
    let bytes = serde_json::to_vec(value).map_err(|error| failed(&error))?;
    let mut file = fs::File::create(path).map_err(|error| failed(&error))?;
    file.write_all(&bytes).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runtimes_say_is_understood() {
        let table = [
            (r#"exec: "x": executable file not found in $PATH"#, FailureKind::NotFound),
            ("exec /x: permission denied", FailureKind::PermissionDenied),
            ("container not running", FailureKind::NotRunning),
            ("executable file `x` not found in $PATH: No such file or directory", FailureKind::NotFound),
            ("something else", FailureKind::Other),
        ];
        for (message, kind) in table {
            assert_eq!(kind_of(&in_clients_words(message.to_owned())), kind, "{message}");
        }
    }

    #[test]
    fn odd_layer_names_are_escaped() {
        let layers = [PathBuf::from("/a:b"), PathBuf::from("/c\\d")];
        assert_eq!(joined(&layers).unwrap(), "/a\\:b:/c\\\\d");
    }
}
