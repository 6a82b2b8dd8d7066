//! A real engine for one test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::image::busybox_tar;
use crate::leftovers::{Leftovers, end_processes};
use crate::program::Program;

const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What an engine is started with beyond its places.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Further arguments of `conex daemon`.
    pub arguments: Vec<String>,
}

/// A running `conex daemon` in a host of its own.
#[derive(Debug)]
pub struct Engine {
    host: Host,
    options: EngineOptions,
    daemon: Option<Child>,
    before: Leftovers,
}

impl Engine {
    /// A new host with a new engine in it.
    pub fn start() -> Self {
        Self::start_with(EngineOptions::default())
    }

    /// A new host with a new engine in it that has more arguments.
    pub fn start_with(options: EngineOptions) -> Self {
        Self::start_in(Host::new(), options)
    }

    /// A new engine in a host that the test has prepared.
    pub fn start_in(host: Host, options: EngineOptions) -> Self {
        let before = Leftovers::look(&host);
        let mut engine = Self { host, options, daemon: None, before };
        engine.launch();
        engine
    }

    /// A new engine that has the image `busybox:latest`.
    pub fn with_busybox() -> Self {
        let engine = Self::start();
        engine.import_busybox();
        engine
    }

    /// Imports the image `busybox:latest`.
    pub fn import_busybox(&self) {
        self.docker(["import", "--change", "CMD [\"sh\"]", "-", "busybox:latest"]).input(busybox_tar()).ok();
    }

    /// The host that the engine runs in.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The API's address, for `-H`.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_folder().join("conex.sock")
    }

    /// Asks the API for a path, without any client's ideas of it.
    pub fn get(&self, path: &str) -> Program {
        self.host.program("curl").args(["-s", "--unix-socket"]).arg(self.socket()).arg(format!("http://x{path}"))
    }

    /// The engine's `--root`.
    pub fn root_folder(&self) -> PathBuf {
        self.host.scratch().join("root")
    }

    /// The engine's `--run`.
    pub fn run_folder(&self) -> PathBuf {
        self.host.scratch().join("run")
    }

    /// The real docker command line on this engine.
    pub fn docker<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Program {
        self.host.program("docker").args(["-H", &self.address()]).args(arguments)
    }

    /// Our own command line on this engine.
    pub fn conex<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Program {
        self.host.conex().args(["-H", &self.address()]).args(arguments)
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the engine runs").id()
    }

    /// Starts the daemon and waits until it answers.
    pub fn launch(&mut self) {
        let command = self.host.conex().into_command();
        self.launch_by(command);
    }

    /// Starts the daemon by a program that is given the daemon's command line behind these arguments and executes it.
    pub fn launch_through(&mut self, program: &str, arguments: &[&str]) {
        let conex = self.host.conex().into_command();
        let mut command = self.host.program(program).args(arguments).into_command();
        command.arg(conex.get_program());
        self.launch_by(command);
    }

    fn launch_by(&mut self, mut command: Command) {
        command.args(["daemon", "--name", self.host.name(), "-H", &self.address()]);
        command.arg("--root").arg(self.root_folder()).arg("--run").arg(self.run_folder());
        command.args(&self.options.arguments).stdin(Stdio::null());
        let log = std::fs::File::options().create(true).append(true).open(self.log_file()).expect("a new file");
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        self.daemon = Some(command.spawn().expect("conex is built: ./x build"));
        self.wait_until_ready();
    }

    /// Ends the daemon as a crash would.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("the engine runs");
        daemon.kill().expect("our own child");
        daemon.wait().expect("our own child");
    }

    /// Asks the daemon to end, and waits for it.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("the engine runs");
        self.host.program("kill").arg(daemon.id().to_string()).ok();
        let end = Instant::now() + TIME_LIMIT;
        while daemon.try_wait().expect("our own child").is_none() {
            assert!(Instant::now() < end, "the daemon does not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Removes all containers, stops the engine and fails if anything is left behind.
    #[track_caller]
    pub fn finish(mut self) {
        let containers = self.docker(["ps", "-aq"]).ok();
        if !containers.is_empty() {
            self.docker(["rm", "-f", "-v"]).args(containers.split('\n')).ok();
        }
        self.stop();
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            // Monitors and namespaces end a moment after their container.
            let left = Leftovers::look(&self.host).since(&self.before);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind:\n{}\nlog:\n{}", left.join("\n"), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_file(&self) -> PathBuf {
        self.host.scratch().join("daemon.log")
    }

    fn wait_until_ready(&mut self) {
        let end = Instant::now() + TIME_LIMIT;
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            let ended = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().expect("our own child"));
            assert!(ended.is_none(), "the daemon ended with {ended:?}; its log:\n{}", self.log());
            assert!(Instant::now() < end, "the daemon does not answer; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nothing of a failed test may run on; its own folder and namespaces go with it.
            if let Some(daemon) = &mut self.daemon {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
            end_processes(&self.host);
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

/// The folder with `conex` and `conex-runtime`: `CONEX_PROGRAMS`, or where `./x build` puts them.
pub(crate) fn programs() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/conex/debug");
    std::env::var_os("CONEX_PROGRAMS").map_or_else(default, PathBuf::from)
}
