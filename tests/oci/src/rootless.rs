//! The runtime in the hands of a user who is not root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use harness::{Host, Output, Program, busybox_tar};
use serde_json::{Value, json};

use crate::support::conex_runtime;

/// The user, who is nobody on this machine, and the ids that are subordinate to them.
pub(crate) const USER: u32 = 54_321;
const SUBORDINATE: u32 = 720_000;

/// A host with that user, and a bundle of theirs.
pub(crate) struct Rootless {
    pub(crate) host: Host,
    pub(crate) spec: Value,
}

impl Rootless {
    pub(crate) fn new() -> Self {
        let host = Host::new();
        host.own("/etc");
        for (file, line) in [
            ("passwd", format!("tester:x:{USER}:{USER}::/:/bin/sh\n")),
            ("group", format!("tester:x:{USER}:\n")),
            ("subuid", format!("tester:{SUBORDINATE}:65536\n")),
            ("subgid", format!("tester:{SUBORDINATE}:65536\n")),
        ] {
            let path = Path::new("/etc").join(file);
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            std::fs::write(path, text + &line).unwrap();
        }
        let runtime = Self { spec: spec(host.name()), host };
        let rootfs = runtime.bundle().join("rootfs");
        std::fs::create_dir_all(&rootfs).unwrap();
        runtime.host.program("tar").arg("-xC").arg(&rootfs).input(busybox_tar()).ok();
        runtime.host.program("chown").args(["-R", &format!("{USER}:{USER}")]).arg(runtime.host.files()).ok();
        // The runtime of a debug build may be where only root goes.
        let program = runtime.program_path();
        std::fs::copy(conex_runtime(), &program).unwrap();
        for path in [program.as_path(), runtime.host.scratch()] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        runtime
    }

    fn program_path(&self) -> std::path::PathBuf {
        self.host.scratch().join("conex-runtime")
    }

    pub(crate) fn bundle(&self) -> std::path::PathBuf {
        self.host.files().join("bundle")
    }

    fn map_subordinates(&mut self) -> &mut Self {
        let map = json!([
            { "containerID": 0, "hostID": USER, "size": 1 },
            { "containerID": 1, "hostID": SUBORDINATE, "size": 65536 },
        ]);
        self.spec["linux"]["uidMappings"] = map.clone();
        self.spec["linux"]["gidMappings"] = map;
        self
    }

    pub(crate) fn script(&mut self, script: &str) -> &mut Self {
        self.spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
        self
    }

    /// A call of the runtime by that user.
    pub(crate) fn call<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Program {
        std::fs::write(self.bundle().join("config.json"), self.spec.to_string()).unwrap();
        let user = USER.to_string();
        let program =
            self.host.program("/usr/bin/setpriv").args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        program.arg(self.program_path()).arg("--root").arg(self.host.files().join("state")).args(words)
    }

    /// The same, begun in another cgroup.
    pub(crate) fn in_cgroup(&self, cgroup: &Path, program: Program) -> Program {
        let command = program.into_command();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let script = format!("echo $$ > {}; exec \"$@\"", cgroup.join("cgroup.procs").display());
        self.host.program("sh").args(["-c", &script, "sh"]).args(words)
    }

    fn run(&self) -> Output {
        self.call(["run", "--bundle", self.bundle().to_str().unwrap(), self.host.name()]).run()
    }

    /// Starts the container, whose streams go nowhere.
    fn start(&self) {
        let bundle = self.bundle();
        let words = ["run", "--detach", "--bundle", bundle.to_str().unwrap(), self.host.name()];
        let mut command = self.call(words).into_command();
        let log = std::fs::File::create(self.host.scratch().join("log")).unwrap();
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        assert!(command.status().unwrap().success(), "{:?}", std::fs::read_to_string(self.host.scratch().join("log")));
    }
}

fn spec(name: &str) -> Value {
    let own = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
    let capabilities = json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "args": ["/bin/true"], "env": ["PATH=/bin"], "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": "rootfs" },
        "hostname": name,
        // As `spec --rootless` of runc has them, but for a cgroup mount that is not said to be read-only.
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev"] },
        ],
        "linux": {
            "uidMappings": own, "gidMappings": own,
            "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "user" }],
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
        },
    })
}

#[test]
fn one_id_needs_no_helper() {
    let mut rootless = Rootless::new();
    let output = rootless.script("id -u; cat /proc/self/uid_map; cat /proc/self/setgroups; touch /made; exit 7").run();
    let output = output.expect_code(7).text();
    let user = USER.to_string();
    assert_eq!(output.split_whitespace().collect::<Vec<_>>(), ["0", "0", &user, "1", "deny"]);
    assert_eq!(std::fs::metadata(rootless.bundle().join("rootfs/made")).unwrap().uid(), USER);
    assert_eq!(rootless.call(["list", "--quiet"]).ok(), "");
}

#[test]
fn further_ids_are_mapped_by_the_setuid_helpers() {
    let mut rootless = Rootless::new();
    rootless.map_subordinates().script("touch /made; chown 5:6 /made; exec sleep 1000").start();
    let name = rootless.host.name().to_owned();
    let exec = rootless.call(["exec", &name, "sh", "-c", "stat -c %u:%g /made; id -u; exit 3"]).run().expect_code(3);
    assert_eq!(exec.text(), "5:6\n0");
    let made = std::fs::metadata(rootless.bundle().join("rootfs/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (SUBORDINATE + 4, SUBORDINATE + 5));
    // Ids that are nobody's to give are refused by the helper, in its words.
    rootless.call(["delete", "--force", &name]).ok();
    rootless.spec["linux"]["uidMappings"][1]["hostID"] = json!(1);
    let refused = rootless.run();
    assert!(refused.code != 0 && refused.error_text().contains("newuidmap"), "{refused:?}");
}

/// CVE-2023-25809: where the container has no cgroup of its own it sees its creator's, which may be the user's to write.
#[test]
fn cgroups_of_the_host_are_read_only() {
    let mut rootless = Rootless::new();
    let script = "for file in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
        [ -e $file ] && { (echo 0 > $file) 2>&1 | grep -q 'Read-only file system' || echo $file is writable; }
        done; mkdir /sys/fs/cgroup/made 2>/dev/null && echo made; echo looked";
    assert_eq!(rootless.script(script).run().expect_code(0).text(), "looked");
}

#[test]
fn limits_and_the_strict_form_fail_without_a_cgroup() {
    let mut rootless = Rootless::new();
    let name = rootless.host.name().to_owned();
    let bundle = rootless.bundle().display().to_string();
    let run = |rootless: &Rootless, option: &str| rootless.call([option, "run", "--bundle", &bundle, &name]).run();
    run(&rootless, "--rootless=true").expect_code(0);
    run(&rootless, "--rootless=auto").expect_code(0);
    let strict = run(&rootless, "--rootless=false");
    assert!(strict.code != 0 && strict.error_text().contains("cgroup"), "{strict:?}");
    let wrong = run(&rootless, "--rootless=perhaps");
    assert!(wrong.code != 0 && wrong.error_text().contains("--rootless"), "{wrong:?}");
    rootless.spec["linux"]["resources"] = json!({ "pids": { "limit": 20 } });
    let limited = rootless.run();
    assert!(limited.code != 0 && limited.error_text().contains("cgroup"), "{limited:?}");
}

#[test]
fn a_delegated_cgroup_is_used() {
    let mut rootless = Rootless::new();
    let host = &rootless.host;
    // A host with cgroup v2 alone, where a user has been given one cgroup and is in another one below it.
    host.program("umount").args(["-R", "/sys/fs/cgroup"]).ok();
    host.program("mount").args(["-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]).ok();
    let delegated = Path::new("/sys/fs/cgroup").join(host.name());
    let session = delegated.join("session");
    std::fs::create_dir_all(&session).unwrap();
    for folder in [&delegated, &session] {
        for file in [".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(folder.join(file), Some(USER), Some(USER)).unwrap();
        }
    }
    let name = host.name().to_owned();
    let bundle = rootless.bundle().display().to_string();
    rootless.spec["process"]["args"] = json!(["/bin/sh", "-c", "cat /proc/self/cgroup"]);
    // Where the controllers are v2's they are given too, and so limits can be had.
    let given = ["memory", "pids"].map(|name| format!("+{name}")).join(" ");
    let is_limited = [Path::new("/sys/fs/cgroup"), &delegated]
        .iter()
        .all(|folder| std::fs::write(folder.join("cgroup.subtree_control"), &given).is_ok());
    if is_limited {
        rootless.spec["linux"]["resources"] = json!({ "pids": { "limit": 20 }, "memory": { "limit": 64 << 20 } });
        let script = format!(
            "cat /proc/self/cgroup; cat /sys/fs/cgroup/{name}/{name}/pids.max /sys/fs/cgroup/{name}/{name}/memory.max"
        );
        rootless.script(&script);
    }
    let run = rootless.call(["run", "--bundle", &bundle, &name]);
    let output = rootless.in_cgroup(&session, run).run().expect_code(0).text();
    assert!(!is_limited || output.ends_with("20\n67108864"), "{output}");
    let own = output.lines().find(|line| line.starts_with("0::")).unwrap();
    assert!(own.ends_with(&format!("/{name}/{name}")), "{own}");
    assert!(!delegated.join(&name).exists(), "the container's cgroup is left");
    for folder in [&session, &delegated] {
        std::fs::remove_dir(folder).unwrap();
    }
}
