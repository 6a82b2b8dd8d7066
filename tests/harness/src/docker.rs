//! A real Docker for one test: the one of the peers' root that `./x peers` makes.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::host::Host;

const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Moves into the peers' root, by pivot_root since runc pivots as well, and becomes the program that is named. The state folder is at
/// `/state`; without the unified hierarchy a hybrid host is plain version 1, which runc then judges rightly.
const ENTER: &str = r#"
set -e
mount --bind "$0" "$0"
for folder in proc sys dev; do mount --rbind /$folder "$0/$folder"; done
umount "$0/sys/fs/cgroup/unified" 2>/dev/null || true
mount -t tmpfs tmpfs "$0/run"
mkdir -p "$0/state"
mount --bind "$1" "$0/state"
shift
cd "$0"
pivot_root . .
umount -l .
mount --make-rshared /
exec chroot . "$@"
"#;

/// A running `dockerd` in a test's host; it ends with the value.
#[derive(Debug)]
pub struct Docker {
    daemon: Child,
    state: PathBuf,
    cgroup: String,
}

impl Docker {
    /// Starts Docker in a host of the test's. None where the peers' root has not been made.
    pub fn start(host: &Host) -> Option<Self> {
        let root = peers_root()?;
        let state = host.scratch().join("docker");
        std::fs::create_dir_all(&state).expect("a new folder");
        let cgroup = format!("{}d", host.name());
        let dockerd =
            ["dockerd", "--data-root", "/state/data", "--exec-root", "/state/exec", "--pidfile", "/state/pid"];
        let others = ["-H", "unix:///state/docker.sock", "--cgroup-parent", &format!("/{cgroup}")];
        let program = host.program("unshare").args(["-m", "--propagation", "private", "bash", "-c", ENTER]).arg(&root);
        let mut command = program.arg(&state).args(dockerd).args(others).into_command();
        let log = std::fs::File::create(state.join("log")).expect("a new file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let daemon = command.spawn().expect("unshare is part of util-linux");
        let mut docker = Self { daemon, state, cgroup };
        docker.wait_until_ready(host);
        Some(docker)
    }

    /// The API's address, for `-H`.
    pub fn address(&self) -> String {
        format!("unix://{}", self.state.join("docker.sock").display())
    }

    fn wait_until_ready(&mut self, host: &Host) {
        let end = Instant::now() + TIME_LIMIT;
        while host.program("docker").args(["-H", &self.address(), "version"]).run().code != 0 {
            let log = || std::fs::read_to_string(self.state.join("log")).unwrap_or_default();
            assert!(self.daemon.try_wait().expect("our own child").is_none(), "Docker ended:\n{}", log());
            assert!(Instant::now() < end, "Docker does not answer:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let end = Instant::now() + TIME_LIMIT;
        while self.daemon.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > end {
                let _ = self.daemon.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroups(&hierarchy.path().join(&self.cgroup));
        }
    }
}

/// Removes a cgroup and those below it, as far as they are there and empty.
fn remove_cgroups(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
}

/// The peers' root, where it has been made: `CONEX_PEERS`, or where `./x peers` puts it.
fn peers_root() -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers");
    let root = std::env::var_os("CONEX_PEERS").map_or_else(default, PathBuf::from);
    root.join(".peers-ready").exists().then(|| root.canonicalize().expect("it is there"))
}
