//! A real monitor, and a daemon's side of its socket.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as ProcessStdio};
use std::time::{Duration, Instant};

use monitor_protocol::{
    Attach, AttachId, CgroupDriver, Client, ClientError, Delivery, DetachKeys, Event, Exec, ExecId, Exit, ExitRecord,
    FdIndex, Framing, Identity, Isolation, JsonFile, Launch, LogConfig, Request, Response, Rootfs, Rotated, StdinMode,
    Stdio, Streams, Target,
};
use oci::runtime::Process;

use crate::spec;

/// Longer than anything here takes, shorter than anybody's patience.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// A monitor in a folder of its own.
pub(crate) struct Rig {
    pub(crate) client: Client,
    monitor: Child,
    pub(crate) folder: tempfile::TempDir,
    next_attach: u64,
    /// Events that nobody has waited for yet.
    unseen: Vec<Event>,
}

/// `conex-runtime`, as `cargo xtask test` or `cargo build -p conex-runtime` has made it.
pub(crate) fn program() -> PathBuf {
    let built = std::env::var_os("CONEX_PROGRAMS").map(|folder| PathBuf::from(folder).join("conex-runtime"));
    let beside_test = || std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("conex-runtime");
    let path = built.unwrap_or_else(beside_test);
    assert!(path.exists(), "{} is missing: cargo build -p conex-runtime", path.display());
    path
}

impl Rig {
    /// A warm monitor.
    pub(crate) fn new() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let monitor = Command::new(program())
            .args(["monitor", "--fd", "0"])
            .stdin(OwnedFd::from(theirs))
            .stdout(ProcessStdio::null())
            .spawn()
            .unwrap();
        let client = Client::over(ours).unwrap();
        client.set_timeout(TIMEOUT).unwrap();
        assert_eq!(client.hello().container, None);
        Rig { client, monitor, folder, next_attach: 1, unseen: Vec::new() }
    }

    pub(crate) fn id(&self) -> String {
        format!("conex-monitor-test-{}", self.monitor.id())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.monitor.id()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.path("log")
    }

    /// What starts `script` in busybox's shell, with its output in a log.
    pub(crate) fn launch(&self, script: &str) -> Launch {
        let root = self.path("root");
        spec::make_root(&root);
        Launch {
            id: self.id(),
            spec: Box::new(spec::shell(script, &self.id())),
            rootfs: Rootfs::Directory { path: root },
            seccomp: None,
            identity: Identity::Numbers,
            cgroup_driver: CgroupDriver::Files,
            stdio: Stdio::Pipes { stdin: StdinMode::Null },
            log: LogConfig::JsonFile(JsonFile {
                rotated: Rotated::Plain,
                delivery: Delivery::Blocking,
                ..JsonFile::at(self.log_path())
            }),
            container_dir: self.folder.path().to_owned(),
            socket: self.path("monitor.sock"),
            network_namespace: None,
            user_namespace: None,
            attaches: Vec::new(),
            relays: Vec::new(),
            datagram_relays: Vec::new(),
            isolation: Isolation::Native,
        }
    }

    /// Starts a container; returns the pid of its first process.
    pub(crate) fn start(&mut self, launch: Launch) -> i32 {
        self.start_with(launch, Vec::new())
    }

    pub(crate) fn start_with(&mut self, launch: Launch, fds: Vec<OwnedFd>) -> i32 {
        match self.client.request(Request::Launch(Box::new(launch)), fds).unwrap() {
            Response::Started { pid, .. } => pid,
            other => panic!("{other:?}"),
        }
    }

    /// Starts a container with a client attached from the beginning.
    pub(crate) fn start_attached(&mut self, mut launch: Launch, framing: Framing) -> UnixStream {
        let (attach, ours, theirs) = self.new_client(Target::Container, framing);
        launch.attaches = vec![attach];
        self.start_with(launch, vec![theirs]);
        ours
    }

    /// A client's socket, what the monitor is told of it, and what it gets.
    pub(crate) fn new_client(&mut self, target: Target, framing: Framing) -> (Attach, UnixStream, OwnedFd) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(TIMEOUT)).unwrap();
        let attach = Attach {
            id: AttachId(self.next_attach),
            target,
            socket: FdIndex(0),
            streams: Streams::ALL,
            framing,
            detach_keys: DetachKeys::NONE,
            early_input: Vec::new(),
        };
        self.next_attach += 1;
        (attach, ours, theirs.into())
    }

    /// Attaches a client to what runs.
    pub(crate) fn attach(&mut self, target: Target, framing: Framing) -> UnixStream {
        self.attach_with(target, framing, |_| {})
    }

    pub(crate) fn attach_with(
        &mut self,
        target: Target,
        framing: Framing,
        change: impl FnOnce(&mut Attach),
    ) -> UnixStream {
        let (mut attach, ours, theirs) = self.new_client(target, framing);
        change(&mut attach);
        assert_eq!(self.client.request(Request::Attach(attach), vec![theirs]).unwrap(), Response::Done);
        ours
    }

    /// Starts an exec session of a shell script with a client.
    pub(crate) fn exec(&mut self, id: &str, script: &str, stdio: Stdio) -> Result<UnixStream, ClientError> {
        self.exec_process(id, spec::shell_process(script), stdio)
    }

    pub(crate) fn exec_process(
        &mut self,
        id: &str,
        mut process: Process,
        stdio: Stdio,
    ) -> Result<UnixStream, ClientError> {
        let id = ExecId(id.to_owned());
        process.terminal = matches!(stdio, Stdio::Terminal { .. });
        let (attach, ours, theirs) = self.new_client(Target::Exec(id.clone()), Framing::Raw);
        let exec = Exec { id, process: Box::new(process), identity: Identity::Numbers, stdio, attaches: vec![attach] };
        self.client.request(Request::Exec(Box::new(exec)), vec![theirs])?;
        Ok(ours)
    }

    /// Waits for the first event that `pick` wants; others are kept.
    pub(crate) fn wait_for<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        if let Some(index) = self.unseen.iter().position(|event| pick(event).is_some()) {
            return pick(&self.unseen.remove(index)).unwrap();
        }
        loop {
            let event = self.client.next_event().unwrap();
            match pick(&event) {
                Some(picked) => return picked,
                None => self.unseen.push(event),
            }
        }
    }

    /// Waits for the container's end, acknowledges it, and waits for the monitor's.
    pub(crate) fn finish(mut self) -> Finished {
        let exit = self.wait_for(|event| match event {
            Event::Exited(exit) => Some(*exit),
            _ => None,
        });
        let record: ExitRecord = serde_json::from_slice(&fs::read(self.path("exit.json")).unwrap()).unwrap();
        assert_eq!(record.exit, exit);
        // It may be gone already, when nobody was attached.
        let _ = self.client.request(Request::AcknowledgeExit { target: Target::Container }, Vec::new());
        wait_for_end(&mut self.monitor);
        assert!(!self.path("monitor.sock").exists());
        Finished { exit, rig: self }
    }

    /// Waits for an exec session's end and acknowledges it.
    pub(crate) fn finish_exec(&mut self, id: &str) -> Exit {
        let wanted = ExecId(id.to_owned());
        let exit = self.wait_for(|event| match event {
            Event::ExecExited { id, exit } if *id == wanted => Some(*exit),
            _ => None,
        });
        let record = fs::read_to_string(self.path(&format!("execs/{id}.json"))).unwrap();
        assert!(record.contains(&format!("\"code\":{}", exit.code)), "{record}");
        let _ = self.client.request(Request::AcknowledgeExit { target: Target::Exec(wanted) }, Vec::new());
        exit
    }

    /// As `kill -9` of the daemon does: the old socket goes, and a new daemon connects.
    pub(crate) fn lose_daemon(&mut self) {
        self.client = Client::connect(&self.path("monitor.sock")).unwrap();
        self.client.set_timeout(TIMEOUT).unwrap();
    }

    /// A launch for a monitor that has a container already.
    pub(crate) fn launch_again(&self) -> Launch {
        fs::remove_dir_all(self.path("root")).unwrap();
        self.launch("true")
    }

    /// Waits for the monitor's end without a word to it.
    pub(crate) fn wait_for_monitor(&mut self) {
        wait_for_end(&mut self.monitor);
    }

    /// Waits until the monitor has done what it puts off after a start.
    pub(crate) fn wait_for_introduction(&self) {
        let begun = Instant::now();
        while !self.path("monitor.json").exists() {
            assert!(begun.elapsed() < TIMEOUT, "the monitor does not tell of itself");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(20));
    }

    /// One number of kilobytes in the monitor's `smaps_rollup`.
    pub(crate) fn memory_kb(&self, field: &str) -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.monitor.id())).unwrap();
        let line = rollup.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// What is left when a monitor has ended.
pub(crate) struct Finished {
    pub(crate) exit: Exit,
    pub(crate) rig: Rig,
}

impl Finished {
    /// The bytes that the log's live file holds.
    pub(crate) fn logged(&self) -> String {
        logged(&self.rig.log_path())
    }
}

/// The text of all entries of a log file.
pub(crate) fn logged(path: &Path) -> String {
    let entry =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned();
    fs::read_to_string(path).unwrap().lines().map(entry).collect()
}

/// Everything that a client is sent until the end.
pub(crate) fn read_all(mut client: UnixStream) -> String {
    let mut text = Vec::new();
    client.read_to_end(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// Reads until `text` has come.
pub(crate) fn read_until(client: &mut UnixStream, text: &str) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(text.as_bytes()) {
        assert_eq!(client.read(&mut byte).unwrap(), 1, "ended after {:?}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

fn wait_for_end(monitor: &mut Child) {
    let begun = Instant::now();
    while monitor.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < TIMEOUT, "the monitor does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // After a failed test: the container dies with SIGKILL to its first process, then the monitor ends by itself.
        let kill = Request::Kill { signal: monitor_protocol::Signal(9), scope: monitor_protocol::KillScope::Init };
        let _ = self.client.request(kill, Vec::new());
        let begun = Instant::now();
        while self.monitor.try_wait().unwrap().is_none() {
            if begun.elapsed() > Duration::from_secs(3) {
                let _ = self.monitor.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
