//! Containers of the command line on disk.
//!
//! ```text
//! <root>/<id>/state.json   what is below in `Saved`
//! <root>/<id>/notify/      where a container started under a service manager tells that it is ready
//! <root>/<id>/start.sock   while the container is created and not yet started: init accepts one connection on it
//! ```
//!
//! The directory's existence claims the identifier.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cgroups::Cgroup;
use linux::Errno;
use linux::clone::Child;
use oci::ContainerId;
use oci::runtime::{Process, Spec, State, Status};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, unlinkat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::container::{Membership, Running, SeccompAgent, cgroup_error, start_through};
use crate::error::{Context, Error, Kind, Result, Stage};
use crate::hooks::{self, Point};
use crate::intel_rdt;

const STATE_FILE: &str = "state.json";
const START_SOCKET: &str = "start.sock";
const NOTIFY_DIRECTORY: &str = "notify";

/// A container as the command line keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Saved {
    /// The container's identifier.
    pub id: String,
    /// The pid of init.
    pub pid: i32,
    /// When init was started, in clock ticks after boot: pids come again.
    pub pid_start: u64,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root, absolute.
    pub rootfs: PathBuf,
    /// When it was created, in seconds and nanoseconds after 1970.
    pub created: (u64, u32),
    /// The user id of who created it.
    pub owner: u32,
    /// The configuration as it was.
    pub spec: Spec,
    /// Its cgroup.
    pub cgroup: Option<cgroups::Saved>,
    pub(crate) membership: Membership,
}

impl durable::Versioned for Saved {
    const VERSION: u32 = 1;
}

/// The directory of one container of the command line.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    id: ContainerId,
}

impl StateDirectory {
    /// Claims an identifier that nobody has.
    pub fn claim(root: &Path, id: &ContainerId) -> Result<StateDirectory> {
        durable::create_dir(root, 0o700).map_err(|error| cgroup_like(&error))?;
        let path = root.join(id.as_str());
        match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o711)) {
            Err(Errno::EXIST) => Err(Error::new(Stage::State, "container with given ID already exists")),
            other => {
                other.context(Stage::State, || format!("cannot create {}", path.display()))?;
                Ok(StateDirectory { path, id: id.clone() })
            }
        }
    }

    /// The directory of a container that exists.
    pub fn find(root: &Path, id: &ContainerId) -> Result<StateDirectory> {
        let path = root.join(id.as_str());
        if path.is_dir() {
            return Ok(StateDirectory { path, id: id.clone() });
        }
        Err(Error::of_kind(Stage::State, Kind::NotFound, "container does not exist"))
    }

    /// The identifiers of all containers below a root.
    pub fn list(root: &Path) -> Result<Vec<ContainerId>> {
        let entries = match std::fs::read_dir(root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.context(Stage::State, || format!("cannot read {}", root.display()))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.context(Stage::State, || format!("cannot read {}", root.display()))?;
            let is_container = entry.path().join(STATE_FILE).exists();
            ids.extend(
                entry.file_name().to_str().and_then(|name| ContainerId::parse(name).ok()).filter(|_| is_container),
            );
        }
        ids.sort_unstable_by(|one, two| one.as_str().cmp(two.as_str()));
        Ok(ids)
    }

    /// Makes the socket on which init will wait for the start.
    pub fn listen(&self) -> Result<OwnedFd> {
        let failed = || format!("cannot listen in {}", self.path.display());
        let socket = self.socket()?;
        let (address, _directory) = self.address()?;
        bind(&socket, &address).context(Stage::State, failed)?;
        listen(&socket, 1).context(Stage::State, failed)?;
        Ok(socket)
    }

    fn socket(&self) -> Result<OwnedFd> {
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .context(Stage::State, || "cannot create a socket")
    }

    /// An address of the socket that is short whatever the path's length, and what keeps it valid.
    fn address(&self) -> Result<(SocketAddrUnix, OwnedFd)> {
        let failed = || format!("cannot open {}", self.path.display());
        let directory = rustix::fs::open(&self.path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let directory = directory.context(Stage::State, failed)?;
        let path = format!("/proc/self/fd/{}/{START_SOCKET}", directory.as_raw_fd());
        Ok((SocketAddrUnix::new(path).context(Stage::State, failed)?, directory))
    }

    /// Starts the created container: connects to init, which runs the program.
    pub fn start(&self) -> Result<()> {
        let saved = self.load()?;
        match self.status(&saved)? {
            Status::Created => {}
            Status::Stopped => return Err(Error::new(Stage::Operate, "cannot start a container that has stopped")),
            _ => return Err(Error::new(Stage::Operate, "cannot start an already running container")),
        }
        // Taken now: once started, the program may have ended before anybody looks.
        let running = saved.running()?;
        let socket = self.socket()?;
        let (address, _directory) = self.address()?;
        connect(&socket, &address).context(Stage::Operate, || "cannot reach the container's init")?;
        let agent = SeccompAgent::of(&saved.spec, saved.state(Status::Created));
        start_through(socket, &running, agent.as_ref())?;
        self.forget_socket();
        self.run_poststart(&saved)
    }

    /// Makes the folder in which `start` listens to what the container tells a service manager (`sd_notify`).
    pub fn make_notify_directory(&self) -> Result<PathBuf> {
        let path = self.notify_directory();
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755))
            .context(Stage::State, || format!("cannot create {}", path.display()))?;
        Ok(path)
    }

    /// The folder that [`StateDirectory::make_notify_directory`] makes.
    pub fn notify_directory(&self) -> PathBuf {
        self.path.join(NOTIFY_DIRECTORY)
    }

    /// Removes the socket of a container that runs.
    pub fn forget_socket(&self) {
        let _there_may_be_none = unlinkat(CWD, self.path.join(START_SOCKET), AtFlags::empty());
    }

    /// Runs the hooks that come after the start. Since specification 1.3 their failure is the container's.
    pub fn run_poststart(&self, saved: &Saved) -> Result<()> {
        let Some(hooks) = &saved.spec.hooks else { return Ok(()) };
        let state = State { status: Status::Running, pid: Some(saved.pid), ..saved.state(Status::Running) };
        hooks::run(Point::Poststart, &hooks.poststart, &state).inspect_err(|_| {
            if let Ok(running) = saved.running() {
                let _the_hook_error_is_told = running.signal_all(rustix::process::Signal::KILL.as_raw());
            }
        })
    }

    /// Saves the container.
    pub fn save(&self, saved: &Saved) -> Result<()> {
        durable::save_volatile(&self.path, STATE_FILE, saved).map_err(|error| cgroup_like(&error))
    }

    /// Loads the container.
    pub fn load(&self) -> Result<Saved> {
        durable::load(&self.path.join(STATE_FILE)).map_err(|error| {
            if error.is_not_found() {
                return Error::of_kind(Stage::State, Kind::NotFound, "container does not exist");
            }
            cgroup_like(&error)
        })
    }

    /// Where the container is in its life.
    pub fn status(&self, saved: &Saved) -> Result<Status> {
        if !saved.is_alive() {
            return Ok(Status::Stopped);
        }
        if self.path.join(START_SOCKET).exists() {
            return Ok(Status::Created);
        }
        let paused = match saved.cgroup() {
            Some(cgroup) => cgroup.freezer_state().is_ok_and(|state| state != cgroups::FreezerState::Thawed),
            None => false,
        };
        Ok(if paused { Status::Paused } else { Status::Running })
    }

    /// Removes a stopped container: what is left of its processes, its cgroup, and the directory; then the last hooks run. Their
    /// failure is returned beside success: it is to be told, and stops nothing.
    pub fn delete(&self, saved: &Saved) -> Result<Option<Error>> {
        if let Some(cgroup) = saved.cgroup() {
            if cgroup.is_populated().unwrap_or(true) {
                let _removal_tells = cgroup.kill_all();
            }
            cgroup.remove().map_err(|error| cgroup_error(&error))?;
        }
        saved.membership.unmount_root();
        if let Some(rdt) = saved.spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref()) {
            intel_rdt::remove(rdt, &saved.id);
        }
        self.remove()?;
        let Some(hooks) = &saved.spec.hooks else { return Ok(None) };
        Ok(hooks::run_all(Point::Poststop, &hooks.poststop, &saved.state(Status::Stopped)))
    }

    /// Gives the identifier up.
    pub fn remove(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.context(Stage::State, || format!("cannot remove {}", self.path.display())),
        }
    }

    /// The container's identifier.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }
}

impl Saved {
    /// What is to be kept of a container that was created.
    pub fn of(running: &Running, spec: &Spec, bundle: &Path, rootfs: &Path) -> Saved {
        let pid = running.pid.as_raw_nonzero().get();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Saved {
            id: running.membership.id.clone(),
            pid,
            pid_start: start_time(pid).map_or(0, |(start, _)| start),
            bundle: bundle.to_owned(),
            rootfs: rootfs.to_owned(),
            created: (now.as_secs(), now.subsec_nanos()),
            owner: rustix::process::getuid().as_raw(),
            spec: spec.clone(),
            cgroup: running.cgroup.as_ref().map(Cgroup::saved),
            membership: running.membership.clone(),
        }
    }

    /// Whether init is there and not a zombie.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid).is_some_and(|(start, state)| start == self.pid_start && !matches!(state, b'Z' | b'X'))
    }

    /// The container, to signal it, join it or change its limits.
    pub fn running(&self) -> Result<Running> {
        let gone = || Error::of_kind(Stage::Operate, Kind::NotFound, "container not running");
        let pid = Pid::from_raw(self.pid).ok_or_else(gone)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
        // After the handle was taken: now the pid cannot become another process's.
        if !self.is_alive() {
            return Err(gone());
        }
        let mut running = Running::found(Child { pid, pidfd }, self.cgroup(), self.membership.clone());
        running.agent = SeccompAgent::of(&self.spec, self.state(Status::Running));
        Ok(running)
    }

    /// The cgroup, where it still exists.
    pub fn cgroup(&self) -> Option<Cgroup> {
        self.cgroup.as_ref().and_then(|saved| Cgroup::open(saved).ok())
    }

    /// The state in the specification's form.
    pub fn state(&self, status: Status) -> State {
        State {
            oci_version: oci::runtime::VERSION.to_owned(),
            id: self.id.clone(),
            status,
            pid: (status != Status::Stopped).then_some(self.pid),
            bundle: self.bundle.display().to_string(),
            annotations: self.spec.annotations.clone(),
        }
    }

    /// The process of the configuration, from which `exec` takes its defaults.
    pub fn process(&self) -> Process {
        self.spec.process.clone().unwrap_or_default()
    }
}

/// Start time and state letter of a process.
fn start_time(pid: i32) -> Option<(u64, u8)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((fields.nth(18)?.parse().ok()?, state))
}

/// An error of `durable` with its causes.
fn cgroup_like(error: &dyn std::error::Error) -> Error {
    Error { stage: Stage::State, ..cgroup_error(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_claimed_once() {
        let root = tempfile::tempdir().unwrap();
        let id = ContainerId::parse("one").unwrap();
        let claimed = StateDirectory::claim(root.path(), &id).unwrap();
        assert_eq!(
            StateDirectory::claim(root.path(), &id).unwrap_err().message,
            "container with given ID already exists"
        );
        assert!(StateDirectory::list(root.path()).unwrap().is_empty(), "it has no state yet");
        claimed.remove().unwrap();
        assert_eq!(StateDirectory::find(root.path(), &id).unwrap_err().kind, Kind::NotFound);
    }

    #[test]
    fn start_times_are_read() {
        let (start, state) = start_time(rustix::process::getpid().as_raw_nonzero().get()).unwrap();
        assert!(start > 0 && (state == b'R' || state == b'S'));
        assert_eq!(start_time(i32::MAX), None);
    }

    #[test]
    fn a_socket_is_reached_however_long_the_path() {
        let root = tempfile::tempdir().unwrap();
        let id = ContainerId::parse(&"x".repeat(200)).unwrap();
        let claimed = StateDirectory::claim(root.path(), &id).unwrap();
        let _listener = claimed.listen().unwrap();
        let socket = claimed.socket().unwrap();
        connect(&socket, &claimed.address().unwrap().0).unwrap();
    }
}
