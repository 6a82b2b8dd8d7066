//! The runtime under other engines: Debian's containerd, Docker and Podman, each with folders and sockets of its own.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use harness::{Host, Leftovers, Program, busybox_tar};

use crate::support::{conex_runtime, eventually};

/// A host in which an engine may write where it always does, and nothing of it stays on the machine.
struct World {
    host: Host,
    before: Leftovers,
    daemon: Option<Child>,
}

impl World {
    fn new() -> Self {
        let host = Host::new();
        for folder in ["/run", "/dev/shm"] {
            host.program("mount").args(["-t", "tmpfs", "tmpfs", folder]).ok();
        }
        for folder in ["/etc", "/opt", "/var"] {
            host.own(folder);
        }
        let before = Leftovers::look(&host);
        Self { host, before, daemon: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.host.scratch().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The cgroup above those of the containers, which bears the host's name.
    fn cgroup(&self) -> String {
        format!("/{}", self.host.name())
    }

    /// Starts an engine's daemon; the program must succeed before it counts as ready.
    fn start(&mut self, daemon: Program, ready: impl Fn(&Self) -> Program) {
        let log = std::fs::File::create(self.path("daemon.log")).unwrap();
        let mut command = daemon.into_command();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().expect("Debian's packages are installed: ./x setup"));
        eventually("the daemon answers", || ready(self).run().code == 0);
    }

    /// Ends the daemon, and fails if anything is left.
    fn finish(mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            self.host.program("kill").arg(daemon.id().to_string()).ok();
            daemon.wait().unwrap();
        }
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            // Shims and monitors end a moment after their container.
            self.remove_cgroups();
            let left = Leftovers::look(&self.host).since(&self.before);
            if left.is_empty() {
                return;
            }
            assert!(std::time::Instant::now() < end, "left behind:\n{}", left.join("\n"));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Engines leave their parents of cgroups behind, and Podman one for its monitors.
    fn remove_cgroups(&self) {
        let roots = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|hierarchy| hierarchy.path());
        for root in roots.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let parent = root.join(self.host.name());
            for child in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
                let _in_use_or_a_file = std::fs::remove_dir(child.path());
            }
            let _in_use_or_not_there = std::fs::remove_dir(parent);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            eprintln!("{}", std::fs::read_to_string(self.host.scratch().join("daemon.log")).unwrap_or_default());
            let _it_may_have_ended = daemon.kill();
            let _it_may_have_ended = daemon.wait();
        }
    }
}

#[test]
fn containerd_runs_containers_with_us() {
    let mut world = World::new();
    let (socket, config) = (world.text("containerd.sock"), world.path("config.toml"));
    let (root, state) = (world.text("root"), world.text("state"));
    let text = format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = \"{socket}.ttrpc\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let rootfs = world.path("rootfs");
    std::fs::create_dir(&rootfs).unwrap();
    world.host.program("tar").arg("-xC").arg(&rootfs).input(busybox_tar()).ok();
    let ctr = |world: &World, words: &[&str]| world.host.program("ctr").args(["-a", &socket]).args(words);
    let daemon = world.host.program("containerd").arg("-c").arg(&config);
    world.start(daemon, |world| ctr(world, &["version"]));

    let (runtime, runc_root, cgroup) = (conex_runtime().display().to_string(), world.text("runc"), world.cgroup());
    let options = ["--runtime", "io.containerd.runc.v2", "--runc-binary", &runtime, "--runc-root", &runc_root];
    let run = |before: &[&str], id: &str, command: &[&str]| {
        let place = format!("{cgroup}/{id}");
        let program = ctr(&world, &["run"]).args(before).args(options).args(["--cgroup", &place, "--rootfs"]);
        program.arg(&rootfs).arg(id).args(command)
    };
    let output = run(&["--rm"], "one", &["sh", "-c", "echo out; exit 7"]).run().expect_code(7);
    assert_eq!(output.text(), "out");
    let missing = run(&["--rm"], "none", &["nosuchprogram"]).run();
    assert!(missing.code != 0 && missing.error_text().contains("executable file not found"), "{missing:?}");

    run(&["-d", "--memory-limit", "67108864"], "two", &["sleep", "1000"]).ok();
    let task = |words: &[&str]| ctr(&world, &["task"]).args(words);
    let status = || task(&["ls"]).ok().lines().last().unwrap().split_whitespace().last().unwrap().to_owned();
    assert_eq!(status(), "RUNNING");
    let exec = task(&["exec", "--exec-id", "e", "two", "sh", "-c", "echo inside; exit 4"]).run().expect_code(4);
    assert_eq!(exec.text(), "inside");
    let metrics = task(&["metrics", "two"]).ok();
    assert!(metrics.lines().any(|line| line.starts_with("memory.limit") && line.contains("67108864")), "{metrics}");
    task(&["pause", "two"]).ok();
    assert_eq!(status(), "PAUSED");
    task(&["resume", "two"]).ok();
    assert_eq!(task(&["ps", "two"]).ok().lines().count(), 2);
    task(&["kill", "-s", "KILL", "two"]).ok();
    eventually("it has ended", || status() == "STOPPED");
    task(&["rm", "two"]).run();
    ctr(&world, &["c", "rm", "two"]).ok();
    assert_eq!(std::fs::read_dir(world.path("runc").join("default")).unwrap().count(), 0, "the runtime remembers one");
    world.finish();
}

#[test]
fn docker_runs_containers_with_us() {
    let mut world = World::new();
    let address = format!("unix://{}", world.text("docker.sock"));
    let docker = |world: &World, words: &[&str]| world.host.program("docker").args(["-H", &address]).args(words);
    let added = format!("conex={}", conex_runtime().display());
    let daemon = world.host.program("dockerd").args(["--add-runtime", &added, "-H", &address]);
    let daemon = daemon.args(["--data-root", &world.text("data"), "--exec-root", &world.text("exec")]);
    let daemon = daemon.args(["--pidfile", &world.text("pid"), "--cgroup-parent", &world.cgroup()]);
    let daemon = daemon.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
    let daemon = daemon.args(["--ip-masq=false", "--storage-driver=vfs"]);
    world.start(daemon, |world| docker(world, &["version"]));

    let docker = |words: &[&str]| docker(&world, words);
    docker(&["import", "-", "busybox"]).input(busybox_tar()).ok();
    let run = |words: &[&str]| docker(&["run", "--runtime=conex", "--network=none"]).args(words);
    let output =
        run(&["--rm", "-i", "busybox", "sh", "-c", "cat; echo err >&2; exit 7"]).input("in").run().expect_code(7);
    assert_eq!((output.text().as_str(), output.error_text().as_str()), ("in", "err"));
    let missing = run(&["--rm", "busybox", "nosuchprogram"]).fails(127);
    assert!(missing.contains("executable file not found in $PATH"), "{missing}");

    let script = "trap 'echo stopped; exit 5' TERM; echo begun; while :; do sleep 0.1; done";
    run(&["-dt", "--name=two", "--memory=64m", "--pids-limit=50", "busybox", "sh", "-c", script]).ok();
    assert_eq!(docker(&["inspect", "-f", "{{.HostConfig.Runtime}}", "two"]).ok(), "conex");
    let exec = docker(&["exec", "-i", "two", "sh", "-c", "cat; exit 4"]).input("inside").run().expect_code(4);
    assert_eq!(exec.text(), "inside");
    let stats = docker(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "two"]).ok();
    assert!(stats.ends_with("/ 64MiB") && !stats.starts_with("0B"), "{stats}");
    docker(&["update", "--memory=80m", "--memory-swap=-1", "two"]).ok();
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max";
    assert_eq!(docker(&["exec", "two", "sh", "-c", limit]).ok(), (80 << 20).to_string());
    docker(&["pause", "two"]).ok();
    assert_eq!(docker(&["inspect", "-f", "{{.State.Status}}", "two"]).ok(), "paused");
    docker(&["unpause", "two"]).ok();
    assert!(docker(&["top", "two"]).ok().contains("sleep 0.1"));
    docker(&["kill", "-s", "TERM", "two"]).ok();
    assert_eq!(docker(&["wait", "two"]).ok(), "5");
    assert_eq!(docker(&["logs", "two"]).ok().replace('\r', ""), "begun\nstopped");
    docker(&["start", "two"]).ok();
    docker(&["rm", "-f", "two"]).ok();
    world.finish();
}

#[test]
fn podman_runs_containers_with_us() {
    let world = World::new();
    // It looks for Docker's where that is named.
    std::fs::create_dir(world.path("home/.docker")).unwrap();
    std::fs::write(world.path("home/.docker/config.json"), "{}").unwrap();
    let runtime = conex_runtime().display().to_string();
    let folders = [("--root", "root"), ("--runroot", "runroot"), ("--tmpdir", "tmp")];
    let podman = |words: &[&str]| {
        let mut program = world.host.program("podman");
        for (option, folder) in folders {
            program = program.arg(option).arg(world.path(folder));
        }
        let choices =
            ["--cgroup-manager=cgroupfs", "--events-backend=file", "--storage-driver=vfs", "--runtime", &runtime];
        program.args(choices).args(words)
    };
    podman(&["import", "-", "busybox"]).input(busybox_tar()).ok();
    let parent = format!("--cgroup-parent={}", world.cgroup());
    // Podman's own limits are above what may be raised to without CAP_SYS_RESOURCE.
    let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
    let run = |words: &[&str]| podman(&["run", "--network=none", &parent]).args(limits).args(words);
    let output =
        run(&["--rm", "-i", "busybox", "sh", "-c", "cat; echo err >&2; exit 7"]).input("in").run().expect_code(7);
    assert_eq!((output.text().as_str(), output.error_text().as_str()), ("in", "err"));
    run(&["--rm", "busybox", "nosuchprogram"]).fails(127);

    run(&["-d", "--name=two", "--memory=64m", "busybox", "sh", "-c", "echo begun; exec sleep 1000"]).ok();
    let exec = podman(&["exec", "-i", "two", "sh", "-c", "cat; exit 4"]).input("inside").run().expect_code(4);
    assert_eq!(exec.text(), "inside");
    podman(&["pause", "two"]).ok();
    assert_eq!(podman(&["inspect", "-f", "{{.State.Status}}", "two"]).ok(), "paused");
    podman(&["unpause", "two"]).ok();
    assert!(podman(&["top", "two"]).ok().contains("sleep 1000"));
    assert_eq!(podman(&["logs", "two"]).ok(), "begun");
    podman(&["rm", "-f", "-t", "0", "two"]).ok();
    assert_eq!(podman(&["ps", "-aq"]).ok(), "");
    world.finish();
}
