//! A registry and an engine in namespaces of their own.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};

use super::images;
use crate::bench::inside;
use crate::bench::world::loopback_up;
use crate::process::{PATIENCE, end_daemon, run};

/// Where the registry listens: bollard's own default.
const REGISTRY: &str = "127.0.0.1:5000";
/// The names that lead to Docker Hub, all of them here.
const HUB: [&str; 2] = ["registry-1.docker.io", "index.docker.io"];

/// Which engine.
#[derive(Debug)]
pub(super) enum Kind {
    Conex { programs: PathBuf },
    Docker { root: PathBuf },
}

/// What runs while the suites do.
#[derive(Debug)]
pub(super) struct World {
    /// What reports call the engine.
    pub(super) engine: &'static str,
    pub(super) folder: PathBuf,
    state: PathBuf,
    socket: PathBuf,
    registries: Vec<Child>,
    daemon: Child,
}

impl World {
    pub(super) fn start(kind: Kind, folder: &Path) -> Result<Self> {
        linux::namespace::unshare(linux::namespace::MOUNT | linux::namespace::NETWORK)
            .context("the suites need root")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        loopback_up()?;
        let state = folder.join(format!("state-{}", std::process::id()));
        fs::create_dir_all(&state)?;
        let certificates = make_certificate(&state)?;
        let mut registries = vec![start_registry(&state, REGISTRY, None)?];
        let started = start_registry(&state, "127.0.0.1:443", Some(&certificates)).and_then(|hub| {
            registries.push(hub);
            start_engine(&kind, &state)
        });
        let (daemon, socket) = match started {
            Ok(started) => started,
            Err(error) => {
                registries.iter_mut().for_each(|registry| drop(end_daemon(registry)));
                return Err(error);
            }
        };
        usual_socket(&socket)?;
        let engine = match kind {
            Kind::Conex { .. } => "conex",
            Kind::Docker { .. } => "docker",
        };
        let mut world = Self { engine, folder: folder.to_owned(), state, socket, registries, daemon };
        match world.fill_registry() {
            Ok(()) => Ok(world),
            Err(error) => {
                let _ = world.end();
                Err(error)
            }
        }
    }

    /// The engine's address, as `DOCKER_HOST` has it.
    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Where a suite's own words go.
    pub(super) fn log(&self, suite: &str) -> PathBuf {
        self.folder.join(format!("{suite}-{}.log", self.engine))
    }

    /// A home folder with no settings: the developer's own must not count, and without any file docker-py keeps its contexts in the
    /// folder where it is started.
    pub(super) fn home(&self) -> Result<PathBuf> {
        let home = self.state.join("home");
        fs::create_dir_all(home.join(".docker"))?;
        fs::write(home.join(".docker/config.json"), "{}")?;
        Ok(home)
    }

    /// Loads the images, pushes each under all its names, and takes them away from the engine.
    fn fill_registry(&self) -> Result<()> {
        for (name, references) in images::IMAGES {
            let archive = images::archive(name, &self.state)?;
            self.docker(&["load", "-q", "-i", &archive.display().to_string()])?;
            for reference in references {
                let pushed = format!("localhost:5000/{reference}");
                self.docker(&["tag", &format!("{name}:made"), &pushed])?;
                self.docker(&["push", "-q", &pushed])?;
                self.docker(&["rmi", &pushed])?;
            }
            self.docker(&["rmi", &format!("{name}:made")])?;
        }
        Ok(())
    }

    fn docker(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("docker");
        command.args(["-H", &self.address()]).args(arguments).stdout(Stdio::null());
        run(command.env("DOCKER_CONFIG", self.state.join("docker-config")))
    }

    /// Ends both daemons and removes what they kept.
    pub(super) fn end(&mut self) -> Result<()> {
        if let Ok(output) = Command::new("docker").args(["-H", &self.address(), "ps", "-aq"]).output() {
            for id in String::from_utf8_lossy(&output.stdout).lines() {
                let _ = self.docker(&["rm", "-fv", id]);
            }
        }
        end_daemon(&mut self.daemon)?;
        self.registries.iter_mut().try_for_each(end_daemon)?;
        fs::copy(self.state.join("daemon.log"), self.folder.join(format!("daemon-{}.log", self.engine)))?;
        fs::remove_dir_all(&self.state).with_context(|| format!("cannot remove {}", self.state.display()))
    }
}

/// A certificate for Docker Hub, signed by itself, that the engine is told to trust; and the names that lead to it.
fn make_certificate(state: &Path) -> Result<PathBuf> {
    let file = |name: &str| state.join(name).display().to_string();
    let names = HUB.map(|name| format!("DNS:{name}")).join(",");
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "365",
    ]);
    command.args(["-subj", "/CN=hub", "-addext", "basicConstraints=critical,CA:FALSE"]);
    command.args(["-addext", &format!("subjectAltName={names}")]);
    run(command.args(["-keyout", &file("hub.key"), "-out", &file("hub.crt")]).stderr(Stdio::null()))?;
    let hosts = state.join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost {}\n", HUB.join(" ")))?;
    mount_bind(&hosts, "/etc/hosts")?;
    Ok(state.join("hub"))
}

/// Some suites know only this path; it is there in our own mount namespace alone.
fn usual_socket(socket: &Path) -> Result<()> {
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None)?;
    Ok(std::os::unix::fs::symlink(socket, "/run/docker.sock")?)
}

fn start_registry(state: &Path, address: &str, certificate: Option<&Path>) -> Result<Child> {
    let file = state.join(format!("registry-{address}.yml"));
    let tls = certificate.map(|path| {
        let path = path.display();
        format!(", tls: {{certificate: \"{path}.crt\", key: \"{path}.key\"}}")
    });
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: \"{address}\"{}}}\n",
        state.join("registry").display(),
        tls.unwrap_or_default(),
    );
    fs::write(&file, text)?;
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(&file);
    spawn(&mut command, &state.join(format!("registry-{address}.log")), || TcpStream::connect(address))
}

fn start_engine(kind: &Kind, state: &Path) -> Result<(Child, PathBuf)> {
    let (mut command, socket) = match kind {
        Kind::Conex { programs } => {
            let socket = state.join("conex.sock");
            let mut command = Command::new(programs.join("conex"));
            command.args(["daemon", "--name", &format!("c{}", std::process::id()), "-H"]);
            command.arg(format!("unix://{}", socket.display()));
            command.arg("--root").arg(state.join("conex/root")).arg("--run").arg(state.join("conex/run"));
            command.env("SSL_CERT_FILE", state.join("hub.crt"));
            (command, socket)
        }
        Kind::Docker { root } => {
            let shared = state.join("docker");
            fs::create_dir_all(&shared)?;
            for file in ["hosts", "hub.crt"] {
                fs::copy(state.join(file), shared.join(file))?;
            }
            let script = "mount --bind /state/hosts /etc/hosts && SSL_CERT_FILE=/state/hub.crt exec dockerd \
                --data-root /state/docker --exec-root /state/docker-exec --pidfile /state/docker.pid \
                -H unix:///state/docker.sock";
            (inside::command_in_this_network(root, &shared, ["sh", "-c", script])?, shared.join("docker.sock"))
        }
    };
    let ready = || UnixStream::connect(&socket);
    let daemon = spawn(&mut command, &state.join("daemon.log"), ready)?;
    Ok((daemon, socket))
}

/// Starts a daemon and waits until it answers.
fn spawn<S>(command: &mut Command, log: &Path, ready: impl Fn() -> io::Result<S>) -> Result<Child> {
    let file = fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let deadline = Instant::now() + PATIENCE;
    while ready().is_err() {
        if child.try_wait()?.is_some() || Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{command:?} does not answer:\n{}", fs::read_to_string(log).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}
