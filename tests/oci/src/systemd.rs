//! systemd's driver: for real where systemd runs (in the virtual machine of `./x vm-test`), by its clear error elsewhere.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use harness::{Host, Program};
use serde_json::json;

use crate::rootless::{Rootless, USER};
use crate::support::{Container, Runtime, eventually};

fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// A container in a scope of a slice of the tests' own, and the scope's name.
fn container<'a>(runtime: &'a Runtime, script: &str) -> (Container<'a>, String) {
    let mut container = runtime.container(script);
    container.set("/linux/cgroupsPath", format!("conextest-oci.slice:conex:{}", container.id));
    let unit = format!("conex-{}.scope", container.id);
    (container, unit)
}

fn start(container: &Container<'_>) {
    container.write();
    let bundle = container.bundle.to_str().unwrap();
    container.quietly(&["--systemd-cgroup", "create", "--bundle", bundle, &container.id]);
    container.quietly(&["--systemd-cgroup", "start", &container.id]);
}

fn property(runtime: &Runtime, unit: &str, name: &str) -> String {
    runtime.host.program("systemctl").args(["show", "--value", "-p", name, unit]).ok()
}

/// Where a scope of these tests has its cgroup.
fn place(unit: &str) -> String {
    format!("conextest.slice/conextest-oci.slice/{unit}")
}

#[test]
fn without_systemd_the_error_says_so() {
    if systemd_runs() {
        return;
    }
    let runtime = Runtime::new();
    let (container, _) = container(&runtime, "true");
    container.write();
    let bundle = container.bundle.to_str().unwrap();
    let output = runtime.command(["--systemd-cgroup", "run", "--bundle", bundle, &container.id]).run();
    assert!(output.code != 0 && output.error_text().contains("systemd is not running on this machine"), "{output:?}");
    assert!(container.state().is_none());
}

#[test]
fn limits_are_the_scopes_and_its_cgroups() {
    if !systemd_runs() {
        return;
    }
    let runtime = Runtime::new();
    let (mut container, unit) = container(&runtime, "exec sleep 1000");
    container
        .set("/linux/resources/memory", json!({ "limit": 64 << 20 }))
        .set("/linux/resources/cpu", json!({ "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0" }))
        .set("/linux/resources/pids", json!({ "limit": 33 }))
        .set("/annotations", json!({ "org.systemd.property.CollectMode": "'inactive-or-failed'" }));
    start(&container);
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
    let is_v2 = cgroups.lines().count() == 1;
    for line in cgroups.lines().filter(|line| is_v2 || line.contains(":memory:") || line.contains(":devices:")) {
        assert!(line.ends_with(&format!("/{}", place(&unit))), "{cgroups}");
    }

    let limits = |memory: &str, pids: &str, quota: &str| {
        assert_eq!(property(&runtime, &unit, if is_v2 { "MemoryMax" } else { "MemoryLimit" }), memory);
        assert_eq!(property(&runtime, &unit, "TasksMax"), pids);
        assert_eq!(property(&runtime, &unit, "CPUQuotaPerSecUSec"), quota);
        let file = |names: &[&str]| container.cgroup_file_in(&place(&unit), names);
        assert_eq!(
            (file(&["memory.limit_in_bytes", "memory.max"]).as_str(), file(&["pids.max"]).as_str()),
            (memory, pids)
        );
    };
    limits("67108864", "33", "500ms");
    for (name, value) in [
        ("Delegate", "yes"),
        ("ActiveState", "active"),
        ("Slice", "conextest-oci.slice"),
        ("CollectMode", "inactive-or-failed"),
    ] {
        assert_eq!(property(&runtime, &unit, name), value, "{name}");
    }
    assert_eq!(container.cgroup_file_in(&place(&unit), &["cpuset.cpus"]), "0");

    // What systemd has been told it keeps: a reload changes nothing.
    container
        .command(&[
            "update",
            "--memory",
            "33554432",
            "--memory-swap",
            "-1",
            "--pids-limit",
            "20",
            "--cpu-quota",
            "20000",
        ])
        .ok();
    limits("33554432", "20", "200ms");
    runtime.host.program("systemctl").arg("daemon-reload").ok();
    limits("33554432", "20", "200ms");

    let exec = container.command_then(&["exec"], &["sh", "-c", "cat /proc/self/cgroup; exit 4"]).run().expect_code(4);
    assert!(exec.text().lines().any(|line| line.ends_with(&place(&unit))), "{exec:?}");
    container.command(&["pause"]).ok();
    assert_eq!(container.status(), "paused");
    container.command(&["resume"]).ok();
    assert_eq!(container.command(&["ps", "--format", "json"]).ok(), format!("[{}]", container.pid()));

    container.command(&["delete", "--force"]).ok();
    assert_eq!(property(&runtime, &unit, "LoadState"), "not-found");
    let left = |hierarchy: &Path| hierarchy.join(place(&unit)).exists();
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let hierarchies: Vec<_> = hierarchies.chain([Path::new("/sys/fs/cgroup").to_owned()]).collect();
    // systemd removes a scope's directories after it has forgotten the scope.
    eventually("no directory is left", || !hierarchies.iter().any(|hierarchy| left(hierarchy)));
}

#[test]
fn devices_stay_denied_over_a_reload() {
    if !systemd_runs() {
        return;
    }
    let runtime = Runtime::new();
    let (mut container, unit) = container(&runtime, "mknod /disk b 7 0; mknod /log c 1 11; exec sleep 1000");
    container.add(
        "/linux/resources/devices",
        json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rm" }),
    );
    for set in ["bounding", "effective", "permitted"] {
        container.add(&format!("/process/capabilities/{set}"), json!("CAP_SYSLOG"));
    }
    start(&container);
    let script = "head -c 1 /disk 2>&1 | grep -o 'not permitted'; head -c 1 /log > /dev/null && echo log; echo > /dev/null && echo null";
    eventually("the nodes are made", || container.command_then(&["exec"], &["test", "-c", "/log"]).run().code == 0);
    let look = |when: &str| {
        let seen = container.command_then(&["exec"], &["sh", "-c", script]).run().text();
        assert_eq!(seen, "not permitted\nlog\nnull", "{when}");
    };
    look("at first");
    // What has systemd apply the rules that it knows: an exec changes none.
    let systemctl = |words: &[&str]| drop(runtime.host.program("systemctl").args(words).ok());
    systemctl(&["daemon-reload"]);
    look("after a reload");
    systemctl(&["set-property", "--runtime", &unit, "TasksMax=41"]);
    look("after a property was set");
    // In v2 systemd's program stands beside the runtime's, so that what it does not allow is denied.
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        systemctl(&["set-property", "--runtime", &unit, "DeviceAllow=char-rtc r"]);
        look("after a device was allowed");
    }
    container.command(&["update", "--pids-limit", "40"]).ok();
    look("after an update");
}

#[test]
fn files_of_v2_are_kept_over_a_reload() {
    if !systemd_runs() || !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return;
    }
    let runtime = Runtime::new();
    let (mut container, unit) = container(&runtime, "exec sleep 1000");
    let unified = json!({ "memory.max": "83886080", "memory.high": "73400320", "pids.max": "44", "cpu.weight": "70" });
    container.set("/linux/resources/unified", unified.clone());
    start(&container);
    for _ in 0..2 {
        for (file, value) in unified.as_object().unwrap() {
            assert_eq!(container.cgroup_file_in(&place(&unit), &[file]), value.as_str().unwrap(), "{file}");
        }
        runtime.host.program("systemctl").arg("daemon-reload").ok();
        container.command(&["update", "--cpu-quota", "30000"]).ok();
    }
}

#[test]
fn a_scope_that_systemd_stops_is_a_container_that_stopped() {
    if !systemd_runs() {
        return;
    }
    let runtime = Runtime::new();
    let (container, unit) = container(&runtime, "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    start(&container);
    runtime.host.program("systemctl").args(["stop", &unit]).ok();
    container.wait_for("stopped");
    container.command(&["delete"]).ok();
}

#[test]
fn what_systemd_refuses_leaves_nothing() {
    if !systemd_runs() {
        return;
    }
    let runtime = Runtime::new();
    let (mut container, unit) = container(&runtime, "true");
    container.set("/annotations", json!({ "org.systemd.property.NoSuchProperty": "true" }));
    container.write();
    let bundle = container.bundle.to_str().unwrap();
    let run = || runtime.command(["--systemd-cgroup", "run", "--bundle", bundle, &container.id]).run();
    let output = run();
    assert!(output.code != 0 && output.error_text().contains("NoSuchProperty"), "{output:?}");
    assert!(container.state().is_none());
    eventually("the scope is gone", || property(&runtime, &unit, "LoadState") == "not-found");
}

/// A systemd of the rootless tests' user, as `user@.service` starts one.
struct UserManager<'a> {
    host: &'a Host,
}

const USER_MANAGER: &str = "conextest-user.service";
const USER_RUNTIME: &str = "/run/conextest-user";

impl<'a> UserManager<'a> {
    fn start(host: &'a Host) -> Self {
        let service = format!(
            "[Unit]\nDefaultDependencies=no\n[Service]\nType=notify\nUser={USER}\nDelegate=yes\nKillMode=mixed\nKillSignal=SIGKILL\nRuntimeDirectory=conextest-user\n\
             Environment=XDG_RUNTIME_DIR={USER_RUNTIME}\nExecStart=/usr/lib/systemd/systemd --user --unit=conextest.target\n"
        );
        std::fs::create_dir_all("/run/systemd/user").unwrap();
        std::fs::write("/run/systemd/user/conextest.target", "[Unit]\nDefaultDependencies=no\n").unwrap();
        std::fs::write(Path::new("/run/systemd/system").join(USER_MANAGER), service).unwrap();
        let manager = Self { host };
        manager.systemctl(&["daemon-reload"]).ok();
        manager.systemctl(&["start", USER_MANAGER]).ok();
        manager
    }

    fn systemctl(&self, words: &[&str]) -> Program {
        self.host.program("systemctl").args(words)
    }

    fn cgroup(&self) -> PathBuf {
        let path = self.systemctl(&["show", "--value", "-p", "ControlGroup", USER_MANAGER]).ok();
        Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'))
    }

    /// A property of one of the user's units.
    fn property(&self, unit: &str, name: &str) -> String {
        let user = USER.to_string();
        let words = ["--reuid", &user, "--clear-groups", "systemctl", "--user", "show", "--value", "-p", name, unit];
        self.host.program("/usr/bin/setpriv").args(words).env("XDG_RUNTIME_DIR", USER_RUNTIME).ok()
    }
}

impl Drop for UserManager<'_> {
    fn drop(&mut self) {
        self.systemctl(&["stop", USER_MANAGER]).run();
        let _it_may_not_be_there = std::fs::remove_file(Path::new("/run/systemd/system").join(USER_MANAGER));
    }
}

#[test]
fn a_users_own_systemd_makes_the_scope() {
    if !systemd_runs() || !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return;
    }
    let mut rootless = Rootless::new();
    rootless.spec["linux"]["resources"] = json!({ "pids": { "limit": 20 } });
    rootless.script("cat /proc/self/cgroup; exec sleep 1000");
    let manager = UserManager::start(&rootless.host);
    // A process of the user's session: systemd lets users move only what is theirs already.
    let session = manager.cgroup().join("session");
    std::fs::create_dir(&session).unwrap();
    for file in [".", "cgroup.procs"] {
        chown(session.join(file), Some(USER), Some(USER)).unwrap();
    }
    let (name, bundle) = (rootless.host.name().to_owned(), rootless.bundle().display().to_string());
    let unit = format!("conex-{name}.scope");
    let call = |words: &[&str]| {
        let program = rootless.call(["--systemd-cgroup"].iter().chain(words).copied());
        rootless.in_cgroup(&session, program).env("XDG_RUNTIME_DIR", USER_RUNTIME)
    };
    let log = std::fs::File::create(rootless.host.scratch().join("log")).unwrap();
    let mut run = call(&["run", "--detach", "--bundle", &bundle, &name]).into_command();
    run.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let status = run.status().unwrap();
    let written = || std::fs::read_to_string(rootless.host.scratch().join("log")).unwrap();
    assert!(status.success(), "{}", written());
    eventually("it has looked", || written().contains("0::"));
    let cgroup = manager.cgroup().join("user.slice").join(&unit);
    assert!(Path::new("/sys/fs/cgroup").join(written().trim().trim_start_matches("0::/")) == cgroup, "{}", written());
    assert_eq!(std::fs::read_to_string(cgroup.join("pids.max")).unwrap().trim(), "20");
    assert_eq!(manager.property(&unit, "TasksMax"), "20");
    call(&["update", "--pids-limit", "30", &name]).ok();
    assert_eq!(manager.property(&unit, "TasksMax"), "30");
    call(&["delete", "--force", &name]).ok();
    assert_eq!(manager.property(&unit, "LoadState"), "not-found");
    assert!(!cgroup.exists());
}
