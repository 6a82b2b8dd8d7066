//! A runtime, and bundles for it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use harness::{Host, Output, Program};
use oci::runtime::Spec;
use serde_json::{Value, json};

/// The capabilities that Docker gives.
pub(crate) const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The image of every test's root.
static BUSYBOX: LazyLock<Vec<u8>> = LazyLock::new(harness::busybox_tar);

/// A runtime's program and the test's host.
pub(crate) struct Runtime {
    pub(crate) host: Host,
    program: PathBuf,
}

/// A container of a test: a bundle and an id. What is left of it goes with it.
pub(crate) struct Container<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) id: String,
    pub(crate) spec: Value,
    pub(crate) bundle: PathBuf,
}

impl Runtime {
    /// The runtime under test, in a host of the test's own.
    pub(crate) fn new() -> Self {
        Self::of(Host::new(), runtime_under_test())
    }

    pub(crate) fn of(host: Host, program: PathBuf) -> Self {
        Self { host, program }
    }

    /// The same host with another runtime.
    pub(crate) fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    pub(crate) fn program_path(&self) -> &Path {
        &self.program
    }

    /// A call of the runtime.
    pub(crate) fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Program {
        let libraries = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
        let root = self.state_root();
        self.host.program(&self.program).env("LD_LIBRARY_PATH", libraries).arg("--root").arg(root).args(arguments)
    }

    /// Where the runtime keeps its state.
    pub(crate) fn state_root(&self) -> PathBuf {
        self.host.scratch().join(format!("state-{}", self.program.file_name().unwrap().display()))
    }

    /// A container with busybox as its root that runs a shell script.
    pub(crate) fn container(&self, script: &str) -> Container<'_> {
        let number = std::fs::read_dir(self.host.files()).unwrap().count();
        let id = format!("{}-{number}", self.host.name());
        let bundle = self.host.files().join(&id);
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let extract = self.host.program("tar").args(["-xf", "-", "-C"]).arg(bundle.join("rootfs"));
        extract.input(BUSYBOX.clone()).ok();
        let mut spec = base_spec(&id);
        spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
        Container { runtime: self, id, spec, bundle }
    }
}

impl Container<'_> {
    /// Where the container's root is on the host.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// Changes the configuration by a JSON pointer; what is on the way is made.
    pub(crate) fn set(&mut self, pointer: &str, value: impl Into<Value>) -> &mut Self {
        let mut place = &mut self.spec;
        for key in pointer.trim_start_matches('/').split('/') {
            place = match key.parse::<usize>() {
                Ok(index) => &mut place[index],
                Err(_) => &mut place[key],
            };
        }
        *place = value.into();
        self
    }

    /// Adds to a list of the configuration.
    pub(crate) fn add(&mut self, pointer: &str, value: Value) -> &mut Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = if parent.is_empty() { &mut self.spec } else { self.spec.pointer_mut(parent).unwrap() };
        if parent[key].is_null() {
            parent[key] = json!([]);
        }
        parent[key].as_array_mut().unwrap().push(value);
        self
    }

    pub(crate) fn write(&self) {
        // Whoever writes a spec of these tests must know the specification's words.
        let _: Spec = serde_json::from_value(self.spec.clone()).unwrap();
        std::fs::write(self.bundle.join("config.json"), self.spec.to_string()).unwrap();
    }

    /// `run` to the end.
    pub(crate) fn run(&self) -> Output {
        self.write();
        self.runtime.command(["run", "--bundle", self.bundle.to_str().unwrap(), &self.id]).run()
    }

    /// `run`, which must succeed; returns standard output without the last newline.
    #[track_caller]
    pub(crate) fn output(&self) -> String {
        self.run().expect_code(0).text()
    }

    /// `create`, with its output going nowhere: a created container holds its standard streams open.
    #[track_caller]
    pub(crate) fn create(&self) {
        self.write();
        self.quietly(&["create", "--bundle", self.bundle.to_str().unwrap(), &self.id]);
    }

    /// `create` and `start`.
    #[track_caller]
    pub(crate) fn start(&self) {
        self.create();
        self.quietly(&["start", &self.id]);
    }

    /// A command that must succeed and whose streams a container may inherit.
    #[track_caller]
    pub(crate) fn quietly(&self, arguments: &[&str]) {
        let mut command = self.runtime.command(arguments.iter().copied()).into_command();
        let errors = self.bundle.join("stderr");
        let file = std::fs::File::create(&errors).unwrap();
        command.stdin(std::process::Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let status = command.status().unwrap();
        assert!(status.success(), "{arguments:?}: {}", std::fs::read_to_string(errors).unwrap());
    }

    /// What the container has written so far.
    pub(crate) fn written(&self) -> String {
        std::fs::read_to_string(self.bundle.join("stderr")).unwrap()
    }

    /// A command whose last word is the container's id.
    pub(crate) fn command(&self, arguments: &[&str]) -> Program {
        self.runtime.command(arguments.iter().copied()).arg(&self.id)
    }

    /// A command whose words after the id are these.
    pub(crate) fn command_then(&self, before: &[&str], after: &[&str]) -> Program {
        self.command(before).args(after)
    }

    /// The container's state, or `None` if there is no such container.
    pub(crate) fn state(&self) -> Option<Value> {
        let output = self.command(&["state"]).run();
        (output.code == 0).then(|| serde_json::from_str(&output.text()).unwrap())
    }

    pub(crate) fn status(&self) -> String {
        self.state().map_or("gone".to_owned(), |state| state["status"].as_str().unwrap().to_owned())
    }

    pub(crate) fn pid(&self) -> i64 {
        self.state().unwrap()["pid"].as_i64().unwrap()
    }

    /// Waits for a status.
    #[track_caller]
    pub(crate) fn wait_for(&self, status: &str) {
        eventually(&format!("{} is {status}", self.id), || self.status() == status);
    }

    /// The content of a cgroup file, in whichever hierarchy it is.
    pub(crate) fn cgroup_file(&self, names: &[&str]) -> String {
        self.cgroup_file_in(self.spec["linux"]["cgroupsPath"].as_str().unwrap().trim_start_matches('/'), names)
    }

    /// The content of a file of another cgroup.
    pub(crate) fn cgroup_file_in(&self, path: &str, names: &[&str]) -> String {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
        let mut files = points.flat_map(|point| names.iter().map(move |name| Path::new(point).join(path).join(name)));
        let found = files.find_map(|file| std::fs::read_to_string(file).ok());
        found.unwrap_or_else(|| panic!("none of {names:?} in {path}")).trim().to_owned()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.command(&["delete", "--force"]).run();
        assert!(std::thread::panicking() || self.state().is_none(), "{} is still there", self.id);
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in 20 seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn runtime_under_test() -> PathBuf {
    if let Some(path) = std::env::var_os("CONEX_OCI_RUNTIME") {
        return path.into();
    }
    conex_runtime()
}

/// Our own runtime: where the test command has put the programs, or beside the tests' own.
pub(crate) fn conex_runtime() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    let folder = std::env::var_os("CONEX_PROGRAMS").map_or_else(beside, PathBuf::from);
    let program = folder.join("conex-runtime");
    assert!(program.exists(), "no {}: build it, or set CONEX_PROGRAMS", program.display());
    program
}

/// The configuration that `runc spec` writes, without a terminal and with Docker's capabilities.
fn base_spec(id: &str) -> Value {
    let capabilities: Value = CAPABILITIES.to_vec().into();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": ["PATH=/bin:/usr/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": "conformance",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "cgroupsPath": format!("/conex-oci-{id}"),
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
