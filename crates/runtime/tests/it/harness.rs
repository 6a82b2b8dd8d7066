//! Bundles, and what comes out when they are run.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use oci::runtime::{Process, Spec};
use runtime::{
    CgroupAccess, CgroupManager, CreateRequest, Error, ExecRequest, Executed, Identity, Keyring, Pivot, Rootfs,
    Running, SeccompFilter, Stdio,
};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// Names and cgroups of the tests' containers begin with this; the process id of the test follows.
const ID_PREFIX: &str = "conex-runtime-test-";

/// A bundle in a temporary directory.
pub struct Bundle {
    pub folder: Rc<tempfile::TempDir>,
    pub spec: Spec,
    pub identity: Identity,
    pub rootfs: Rootfs,
    pub seccomp: Option<SeccompFilter>,
    pub network_namespace: Option<OwnedFd>,
    pub preserve_fds: u32,
    pub pivot: Pivot,
    pub cgroup: CgroupManager,
    pub id: String,
}

/// What a program did.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub output: String,
}

/// A started container and the end of its output.
pub struct Started {
    pub running: Running,
    pub output: File,
    /// The root must stay while the container runs.
    _folder: Rc<tempfile::TempDir>,
}

impl Started {
    /// Waits for the end.
    pub fn finish(mut self) -> Outcome {
        let mut output = String::new();
        self.output.read_to_string(&mut output).unwrap();
        let outcome = Outcome { code: exit_code(&self.running.pidfd), output };
        self.running.destroy().unwrap();
        outcome
    }

    /// Kills it and cleans up.
    pub fn kill(self) {
        self.running.signal(9).unwrap();
        exit_code(&self.running.pidfd);
        self.running.destroy().unwrap();
    }

    /// Runs a shell in it.
    pub fn shell(&self, script: &str) -> Result<Outcome, Error> {
        self.exec(&process(script))
    }

    /// Runs a process in it.
    pub fn exec(&self, process: &Process) -> Result<Outcome, Error> {
        let (mut output, stdio) = pipes();
        let request = ExecRequest {
            process,
            stdio,
            seccomp: None,
            identity: Identity::Numbers,
            preserve_fds: 0,
            sub_cgroup: None,
            keyring: Keyring::Inherit,
        };
        let executed: Executed = runtime::exec(&self.running, request)?;
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        Ok(Outcome { code: exit_code(&executed.pidfd), output: text })
    }
}

/// A shell process with all of Docker's capabilities.
pub fn process(script: &str) -> Process {
    serde_json::from_value(process_json(script)).unwrap()
}

fn process_json(script: &str) -> Value {
    let capabilities = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
    ];
    json!({
        "user": {},
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
    })
}

/// The pid's exit code, 128 and the signal where one ended it.
pub fn exit_code(pidfd: &OwnedFd) -> i32 {
    use std::os::fd::AsFd;
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap()
}

/// Standard streams from the null device and to a pipe.
pub fn pipes() -> (File, Stdio) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let null = File::open("/dev/null").unwrap();
    let error = write.try_clone().unwrap();
    (File::from(read), Stdio::Fds([null.into(), write, error]))
}

impl Bundle {
    /// A root with busybox, and Docker's mounts and namespaces.
    pub fn new() -> Bundle {
        SWEEP.call_once(sweep_cgroups);
        isolate();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("rootfs");
        make_root(&root);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{ID_PREFIX}{}-{number}", std::process::id());
        let spec = serde_json::from_value(spec_json(&id)).unwrap();
        Bundle {
            rootfs: Rootfs::Directory { path: root },
            folder: Rc::new(folder),
            spec,
            identity: Identity::Numbers,
            seccomp: None,
            network_namespace: None,
            preserve_fds: 0,
            pivot: Pivot::PivotRoot,
            cgroup: CgroupManager::Files,
            id,
        }
    }

    /// The directory that becomes the root.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("rootfs")
    }

    /// Changes the configuration as JSON.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Bundle {
        let mut value = serde_json::to_value(&self.spec).unwrap();
        change(&mut value);
        self.spec = serde_json::from_value(value).unwrap();
        self
    }

    /// Adds a mount.
    pub fn mount(self, destination: &str, kind: &str, source: &Path, options: &[&str]) -> Bundle {
        let mount = json!({ "destination": destination, "type": kind, "source": source, "options": options });
        self.edit(|spec| spec["mounts"].as_array_mut().unwrap().push(mount))
    }

    /// Sets the shell's script.
    pub fn script(mut self, script: &str) -> Bundle {
        self.spec.process.as_mut().unwrap().args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        self
    }

    pub fn request(&mut self, stdio: Stdio) -> CreateRequest<'_> {
        CreateRequest {
            id: &self.id,
            spec: &self.spec,
            bundle: self.folder.path(),
            rootfs: self.rootfs.clone(),
            stdio,
            network_namespace: self.network_namespace.take(),
            user_namespace: None,
            seccomp: self.seccomp.clone(),
            identity: self.identity.clone(),
            cgroup: self.cgroup,
            cgroup_access: CgroupAccess::Required,
            cgroup_host: None,
            preserve_fds: self.preserve_fds,
            pivot: self.pivot,
            keyring: Keyring::New,
        }
    }

    /// Starts the container.
    pub fn start(&mut self) -> Result<Started, Error> {
        let (output, stdio) = pipes();
        let running = runtime::create_and_start(self.request(stdio))?;
        Ok(Started { running, output, _folder: Rc::clone(&self.folder) })
    }

    /// Runs the container to its end.
    pub fn run(&mut self) -> Result<Outcome, Error> {
        self.start().map(Started::finish)
    }

    /// Runs a shell script in a container and returns what it printed; it must succeed.
    pub fn output(self, script: &str) -> String {
        let outcome = self.script(script).run().unwrap();
        assert_eq!(outcome.code, 0, "{}", outcome.output);
        outcome.output.trim_end().to_owned()
    }

    /// Runs the bundle as it is, which must not even start.
    pub fn refused_as_is(mut self) -> Error {
        match self.run() {
            Err(error) => error,
            Ok(outcome) => panic!("it ran: {outcome:?}"),
        }
    }

    /// Runs a script that must not even start, and returns why.
    pub fn refused(self, script: &str) -> Error {
        match self.script(script).run() {
            Err(error) => error,
            Ok(outcome) => panic!("it ran: {outcome:?}"),
        }
    }
}

/// A directory outside of every root: what nothing in a container may reach.
pub fn canary() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Runs a test in a process of its own, for what the kernel keeps by process and not by thread.
pub fn in_own_process(test: impl FnOnce() + std::panic::UnwindSafe) {
    match linux::clone::clone3(&linux::clone::CloneArgs::default()).unwrap() {
        linux::clone::Cloned::Child => {
            let result = std::panic::catch_unwind(test);
            linux::clone::exit_now(i32::from(result.is_err()));
        }
        linux::clone::Cloned::Parent(child) => assert_eq!(exit_code(&child.pidfd), 0),
    }
}

/// A process that exchanges two names without a pause until this is dropped: the neighbour that wins a race.
///
/// It is a process and not a thread, because the runtime copies its caller, and with it whatever lock another thread holds.
pub struct Swapper {
    process: linux::clone::Child,
}

impl Swapper {
    /// Starts to exchange `one` and `other`.
    pub fn start(one: &Path, other: &Path) -> Swapper {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match linux::clone::clone3(&linux::clone::CloneArgs::default()).unwrap() {
            linux::clone::Cloned::Child => {
                linux::credentials::set_parent_death_signal(9).unwrap();
                loop {
                    let _missing_for_a_moment = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
                }
            }
            linux::clone::Cloned::Parent(process) => Swapper { process },
        }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        use std::os::fd::AsFd;
        linux::signal::send_to_pidfd(self.process.pidfd.as_fd(), 9).unwrap();
        exit_code(&self.process.pidfd);
    }
}

/// Removes the cgroups of tests that were killed, with what still runs in them.
fn sweep_cgroups() {
    let folders = |path: &Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let top = Path::new("/sys/fs/cgroup");
    for hierarchy in folders(top).iter().map(PathBuf::as_path).chain([top]) {
        for cgroup in folders(hierarchy).iter().filter(|cgroup| is_orphan(cgroup)) {
            let members = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            for pid in members.lines().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)) {
                let _it_has_ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            // Processes take their time to end; what is left then, the next test that starts removes.
            for _ in 0..100 {
                folders(cgroup).iter().for_each(|below| drop(std::fs::remove_dir(below)));
                match std::fs::remove_dir(cgroup) {
                    Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Whether this is the cgroup of a test whose process is no more.
fn is_orphan(cgroup: &Path) -> bool {
    let name = cgroup.file_name().unwrap_or_default().to_string_lossy();
    let pid = name.strip_prefix(ID_PREFIX).and_then(|rest| rest.split('-').next());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
}

/// Gives this thread a mount namespace of its own, of which nothing comes out.
fn isolate() {
    linux::namespace::unshare(linux::namespace::MOUNT).unwrap();
    let root = File::open("/").unwrap();
    let private = linux::mount_attr::MountAttr { propagation: 1 << 18, ..Default::default() };
    use std::os::fd::AsFd;
    linux::mount_attr::set_attributes(root.as_fd(), linux::mount_attr::Reach::Recursive, &private).unwrap();
}

/// Fills a directory with busybox and the few files that programs look for.
pub fn make_root(root: &Path) {
    for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "home/alice"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
    let busybox = busybox.expect("busybox-static is installed");
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "ls", "cat", "id", "mount", "umount", "ps", "sleep", "echo", "mkdir", "mknod", "grep", "readlink",
        "stat", "hostname", "true", "false", "kill", "pwd", "env", "dd", "touch", "chroot", "unshare", "wc", "cut",
        "sort", "head", "awk", "test", "rm", "ln", "mv", "tty", "nice", "uname", "setsid", "ip", "sync", "find",
        "chmod",
    ] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
        .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nalice:x:1000:\nsecret:x:50000:alice\n").unwrap();
}

fn spec_json(id: &str) -> Value {
    json!({
        "ociVersion": "1.3.0",
        "process": process_json("true"),
        "root": { "path": "rootfs" },
        "hostname": "box",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["ro", "nosuid", "noexec", "nodev"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
