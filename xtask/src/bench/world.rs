//! What the contenders live in: namespaces, folders and daemons of this bench's own, all gone at its end.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netlink::link::{Change, Power, Target, change};
use rustix::mount::{MountPropagationFlags, mount_change};

use super::image::{self, SMALL};
use super::inside::{self, Agent, STATE};
use super::measure::{Times, run_at_once, run_one};
use crate::process::{PATIENCE, cargo, end_daemon, found, run, say, workspace};

/// Where a daemon that was started again writes.
const AGAIN_LOG: &str = "conex-again.log";

/// Where a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In this process's namespaces.
    Here,
    /// With the peers.
    Inside,
}

/// One of those that are compared.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    /// What the table calls it.
    pub(crate) name: &'static str,
    /// Whose it is.
    pub(crate) side: Side,
    place: Place,
    command: Vec<String>,
}

/// Whose a contender is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The kernel's.
    Floor,
    /// Ours.
    Conex,
    /// Another's.
    Peer,
}

/// All that runs during a bench.
#[derive(Debug)]
pub(crate) struct World {
    state: PathBuf,
    /// The folder of our programs; none when only the peers are measured.
    programs: Option<PathBuf>,
    floor: PathBuf,
    daemon: Option<Child>,
    peers: Option<Peers>,
    number: u64,
}

/// Whether engines run during a bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engines {
    /// Ours and Docker.
    Started,
    /// None: it is of runtimes alone.
    Left,
}

/// The peers' side of it.
#[derive(Debug)]
struct Peers {
    root: PathBuf,
    agent: Agent,
    docker: Option<Child>,
}

impl World {
    /// Starts everything that is there: Conex, and Docker and the agent when there is a root of peers.
    pub(crate) fn new(programs: Option<PathBuf>, peers: Option<&Path>, engines: Engines) -> Result<Self> {
        let floor = build_floor()?;
        linux::namespace::unshare(linux::namespace::MOUNT | linux::namespace::NETWORK)
            .context("benches run as root")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        loopback_up()?;
        let state = workspace().join("target/bench").join(format!("state-{}", std::process::id()));
        for folder in ["floor", "peers", "docker-config", "root"] {
            fs::create_dir_all(state.join(folder))?;
        }
        image::write_root(&state.join("root"))?;
        image::write_archive(&state.join("root"), SMALL, &state.join("peers/small.tar"))?;
        let mut world = Self { state, programs, floor, daemon: None, peers: None, number: 0 };
        if let Err(error) = world.start_all(peers, engines) {
            let _ = world.end();
            return Err(error);
        }
        Ok(world)
    }

    fn start_all(&mut self, peers: Option<&Path>, engines: Engines) -> Result<()> {
        if self.conex().is_some() && engines == Engines::Started {
            self.start_conex()?;
        }
        let Some(root) = peers else {
            say("no peers: ./x peers makes a root for them, or --peers DIR names one");
            return Ok(());
        };
        let agent = Agent::start(root, &self.state.join("peers"))?;
        self.peers = Some(Peers { root: root.to_owned(), agent, docker: None });
        if engines == Engines::Started && self.has("usr/sbin/dockerd") && found("docker") {
            self.start_docker()?;
        }
        Ok(())
    }

    fn start_conex(&mut self) -> Result<()> {
        let mut command = self.conex_daemon();
        self.daemon = Some(self.spawn_daemon(&mut command, "conex.log", &self.conex_socket())?);
        let small = self.state.join("peers/small.tar").display().to_string();
        run_one(&self.conex_line(["load", "-q", "-i", &small])).map(drop)
    }

    /// Kills our daemon and starts it again; returns how long that took until it answered. Containers go on.
    pub(crate) fn restart_conex(&mut self) -> Result<Duration> {
        self.kill_conex()?;
        let begin = self.start_conex_again()?;
        run_one(&self.conex_line(["ps", "-aq"]))
            .with_context(|| fs::read_to_string(self.state.join(AGAIN_LOG)).unwrap_or_default())?;
        Ok(begin.elapsed())
    }

    /// Kills our daemon as a crash would. Containers go on.
    pub(crate) fn kill_conex(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
            daemon.wait()?;
        }
        Ok(())
    }

    /// Starts our daemon again and waits until it listens; returns when its program was begun.
    pub(crate) fn start_conex_again(&mut self) -> Result<Instant> {
        let mut command = self.conex_daemon();
        let begin = Instant::now();
        self.daemon = Some(self.spawn_daemon(&mut command, AGAIN_LOG, &self.conex_socket())?);
        Ok(begin)
    }

    fn conex_daemon(&self) -> Command {
        let mut command = Command::new(self.conex().unwrap_or_default());
        let name = format!("b{}", std::process::id());
        command.args(["daemon", "--name", &name, "-H", &self.conex_address()]);
        command.arg("--root").arg(self.state.join("conex/root")).arg("--run").arg(self.state.join("conex/run"));
        command
    }

    fn start_docker(&mut self) -> Result<()> {
        let Some(peers) = &self.peers else { return Ok(()) };
        let what = [
            "dockerd",
            "--data-root",
            "/state/docker",
            "--exec-root",
            "/state/docker-exec",
            "--pidfile",
            "/state/docker.pid",
            "-H",
            "unix:///state/docker.sock",
        ];
        let mut command = inside::command(&peers.root, &self.state.join("peers"), what)?;
        let docker = self.spawn_daemon(&mut command, "dockerd.log", &self.docker_socket())?;
        if let Some(peers) = &mut self.peers {
            peers.docker = Some(docker);
        }
        let small = self.state.join("peers/small.tar");
        self.wait_for("Docker", || {
            run_one(&self.docker_on_docker(["load", "-q", "-i", &small.display().to_string()])).map(drop)
        })
    }

    fn spawn_daemon(&self, command: &mut Command, log: &str, socket: &Path) -> Result<Child> {
        let log_file = fs::File::create(self.state.join(log))?;
        command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file);
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let ready = self.wait_for(log, || {
            if let Some(status) = child.try_wait()? {
                bail!("it ended with {status}");
            }
            UnixStream::connect(socket)?;
            Ok(())
        });
        if let Err(error) = ready {
            let _ = child.kill();
            let _ = child.wait();
            let words = fs::read_to_string(self.state.join(log)).unwrap_or_default();
            bail!("{command:?}: {error:#}\n{words}");
        }
        Ok(child)
    }

    fn wait_for(&self, what: &str, mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match attempt() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline || error.to_string().starts_with("it ended") => {
                    return Err(error.context(format!("{what} does not answer")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// The folder for what the contenders keep.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// The peers' root.
    pub(crate) fn peers_root(&self) -> Option<&Path> {
        self.peers.as_ref().map(|peers| peers.root.as_path())
    }

    /// Whether the peers' root has this file.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.peers.as_ref().is_some_and(|peers| peers.root.join(file).exists())
    }

    /// Whether Docker runs.
    pub(crate) fn has_docker(&self) -> bool {
        self.peers.as_ref().is_some_and(|peers| peers.docker.is_some())
    }

    /// The processes of the daemons and the agent: Conex, dockerd, agent.
    pub(crate) fn pids(&self) -> (Option<u32>, Option<u32>, Option<u32>) {
        let peers = self.peers.as_ref();
        let docker = peers.and_then(|peers| peers.docker.as_ref()).map(Child::id);
        (self.daemon.as_ref().map(Child::id), docker, peers.map(|peers| peers.agent.pid()))
    }

    fn conex(&self) -> Option<PathBuf> {
        Some(self.programs.as_ref()?.join("conex"))
    }

    /// Whether Conex runs.
    pub(crate) fn has_conex(&self) -> bool {
        self.daemon.is_some()
    }

    /// Conex's API.
    pub(crate) fn conex_socket(&self) -> PathBuf {
        self.state.join("conex/run/conex.sock")
    }

    /// Docker's API.
    pub(crate) fn docker_socket(&self) -> PathBuf {
        self.state.join("peers/docker.sock")
    }

    fn conex_address(&self) -> String {
        format!("unix://{}", self.conex_socket().display())
    }

    /// `conex …`.
    pub(crate) fn conex_line<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let conex = self.conex().unwrap_or_default();
        let program = [conex.display().to_string(), "-H".to_owned(), self.conex_address()];
        program.into_iter().chain(words.into_iter().map(str::to_owned)).collect()
    }

    /// The docker command line on Conex.
    pub(crate) fn docker_on_conex<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        docker_line(&self.conex_address(), words)
    }

    /// The same command line on Docker.
    pub(crate) fn docker_on_docker<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        docker_line(&format!("unix://{}", self.docker_socket().display()), words)
    }

    /// `podman …`, to be run inside.
    pub(crate) fn podman_line<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let fixed = [
            "podman",
            "--root",
            "/state/podman",
            "--runroot",
            "/run/podman",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
        ];
        fixed.into_iter().chain(words).map(str::to_owned).collect()
    }

    /// The program that is the floor.
    pub(crate) fn floor_program(&self) -> &Path {
        &self.floor
    }

    /// The floor.
    pub(crate) fn floor(&self) -> Contender {
        let path = |path: PathBuf| path.display().to_string();
        let command = vec![
            path(self.floor.clone()),
            path(self.state.join("root")),
            path(self.state.join("floor")),
            "/bin/true".to_owned(),
        ];
        Contender { name: "floor", side: Side::Floor, place: Place::Here, command }
    }

    /// A floor of another kind, here.
    pub(crate) fn other_floor(&self, name: &'static str, command: Vec<String>) -> Contender {
        Contender { name, side: Side::Floor, place: Place::Here, command }
    }

    /// One of ours.
    pub(crate) fn ours(&self, name: &'static str, command: Vec<String>) -> Contender {
        Contender { name, side: Side::Conex, place: Place::Here, command }
    }

    /// One of ours that runs where the peers do.
    pub(crate) fn ours_inside(&self, name: &'static str, command: Vec<String>) -> Contender {
        Contender { name, side: Side::Conex, place: Place::Inside, command }
    }

    /// One of the peers.
    pub(crate) fn peer(&self, name: &'static str, place: Place, command: Vec<String>) -> Contender {
        Contender { name, side: Side::Peer, place, command }
    }

    /// Loads the small image into Podman. False if Podman is not there or does not work here.
    pub(crate) fn prepare_podman(&mut self) -> bool {
        self.has("usr/bin/podman") && self.try_inside(Self::podman_line(["load", "-q", "-i", "/state/small.tar"]))
    }

    /// Makes a bundle for `runtime`, and returns where it is seen inside. None if the runtime is not there.
    pub(crate) fn prepare_bundle(&mut self, runtime: &str, command: &[&str]) -> Result<Option<String>> {
        if !self.has(&format!("usr/bin/{runtime}")) && !self.has(&format!("usr/sbin/{runtime}")) {
            return Ok(None);
        }
        let name = format!("{runtime}-{}", command.len());
        Ok(self.bundle_of(runtime, &name, command).map_err(|error| say(&format!("left out: {error:#}"))).ok())
    }

    /// Makes the bundle `bundle-NAME` from what the runtime `program` writes as its specification, and returns where it is seen inside.
    pub(crate) fn bundle_of(&mut self, program: &str, name: &str, command: &[&str]) -> Result<String> {
        let inside = format!("{STATE}/bundle-{name}");
        let outside = self.state.join("peers").join(format!("bundle-{name}"));
        fs::create_dir_all(&outside)?;
        let line = format!("cd {inside} && {program} spec");
        if !self.try_inside(["sh", "-c", &line].map(str::to_owned).to_vec()) {
            bail!("{program} spec does not work here");
        }
        let spec = fs::read_to_string(outside.join("config.json"))?;
        image::write_bundle(&outside, &spec, command)?;
        Ok(inside)
    }

    /// Runs a command inside; what goes wrong is said, and the peer is then left out.
    pub(crate) fn try_inside(&mut self, command: Vec<String>) -> bool {
        let Some(peers) = &mut self.peers else { return false };
        let result = peers.agent.run_at_once(&[command]);
        result.map_err(|error| say(&format!("left out: {error:#}"))).is_ok()
    }

    /// Runs a contender once.
    pub(crate) fn time(&mut self, contender: &Contender) -> Result<Duration> {
        Ok(self.time_at_once(contender, 1)?.total)
    }

    /// Runs a contender so many times at once. `{n}` in its command becomes a number that none had before.
    pub(crate) fn time_at_once(&mut self, contender: &Contender, count: usize) -> Result<Times> {
        let commands: Vec<Vec<String>> = (0..count).map(|_| self.numbered(&contender.command)).collect();
        let times = match (contender.place, &mut self.peers) {
            (Place::Inside, Some(peers)) => peers.agent.run_at_once(&commands),
            _ => run_at_once(&commands),
        };
        if contender.side == Side::Floor {
            fs::remove_dir_all(self.state.join("floor"))?;
            fs::create_dir(self.state.join("floor"))?;
        }
        times.with_context(|| contender.name)
    }

    fn numbered(&mut self, command: &[String]) -> Vec<String> {
        self.number += 1;
        let number = self.number.to_string();
        command.iter().map(|word| word.replace("{n}", &number)).collect()
    }

    /// Ends all daemons and removes all folders.
    pub(crate) fn end(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            end_daemon(&mut daemon)?;
        }
        if let Some(mut peers) = self.peers.take() {
            peers.agent.end()?;
            if let Some(mut docker) = peers.docker {
                end_daemon(&mut docker)?;
            }
        }
        fs::remove_dir_all(&self.state).with_context(|| format!("cannot remove {}", self.state.display()))
    }
}

fn docker_line<'a>(address: &str, words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    ["docker", "-H", address].map(str::to_owned).into_iter().chain(words.into_iter().map(str::to_owned)).collect()
}

/// Builds the floor as small and static as the runtime.
fn build_floor() -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    run(cargo()
        .args(["build", "--quiet", "--package", "floor", "--profile", "small", "--target", &triple])
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static"))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    Ok(target.join(triple).join("small/floor"))
}

/// Switches loopback on in this network namespace.
pub(crate) fn loopback_up() -> Result<()> {
    let up = Change { power: Some(Power::Up), ..Change::default() };
    Ok(netlink::Socket::open(netlink::Family::Route)?.execute(&mut [change(Target::Name("lo"), &up)])?)
}
