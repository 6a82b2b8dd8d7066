//! Limits reach the cgroup's files, at creation and by `update`.

use serde_json::json;

use crate::support::{Container, Runtime, eventually};

fn limits(container: &Container<'_>) -> [String; 3] {
    [
        container.cgroup_file(&["memory.limit_in_bytes", "memory.max"]),
        container.cgroup_file(&["cpu.cfs_quota_us", "cpu.max"]),
        container.cgroup_file(&["pids.max"]),
    ]
}

#[test]
fn limits_are_set_before_the_program_runs() {
    let runtime = Runtime::new();
    let mut container = runtime.container("exec sleep 100");
    container
        .set("/linux/resources/memory", json!({ "limit": 64 << 20, "swap": 128 << 20 }))
        .set(
            "/linux/resources/cpu",
            json!({ "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0" }),
        )
        .set("/linux/resources/pids", json!({ "limit": 33 }));
    container.create();
    let [memory, cpu, pids] = limits(&container);
    assert_eq!((memory.as_str(), pids.as_str()), ("67108864", "33"));
    assert!(["50000", "50000 100000"].contains(&cpu.as_str()), "{cpu}");
    assert!(["512", "59"].contains(&container.cgroup_file(&["cpu.shares", "cpu.weight"]).as_str()));
    assert_eq!(container.cgroup_file(&["cpuset.cpus"]), "0");
    let pid = container.pid().to_string();
    assert!(container.cgroup_file(&["cgroup.procs"]).lines().any(|line| line == pid));
}

#[test]
fn update_by_flags_and_by_json() {
    let runtime = Runtime::new();
    let mut container = runtime.container("exec sleep 100");
    container.set("/linux/resources/memory", json!({ "limit": 64 << 20, "swap": 64 << 20 }));
    container.start();
    container
        .command(&[
            "update",
            "--memory",
            "33554432",
            "--memory-swap",
            "67108864",
            "--pids-limit",
            "20",
            "--cpu-quota",
            "20000",
        ])
        .ok();
    let [memory, cpu, pids] = limits(&container);
    assert_eq!((memory.as_str(), pids.as_str()), ("33554432", "20"));
    assert!(cpu.starts_with("20000"), "{cpu}");
    let resources = json!({ "memory": { "limit": 134_217_728, "swap": 268_435_456 }, "pids": { "limit": -1 }, "cpu": { "quota": -1 } });
    container.command(&["update", "--resources", "-"]).input(resources.to_string()).ok();
    let [memory, cpu, pids] = limits(&container);
    assert_eq!((memory.as_str(), pids.as_str()), ("134217728", "max"));
    assert!(cpu.starts_with("-1") || cpu.starts_with("max"), "{cpu}");
}

#[test]
fn a_memory_limit_kills() {
    let runtime = Runtime::new();
    let mut container = runtime.container("dd if=/dev/zero of=/dev/null bs=64M count=1 2> /dev/null; echo $?");
    container.set("/linux/resources/memory", json!({ "limit": 24 << 20, "swap": 24 << 20 }));
    // The kernel may end the shell with its child.
    let output = container.run();
    assert!(output.code == 137 || output.text() == "137", "{output:?}");
}

#[test]
fn a_pids_limit_refuses() {
    let runtime = Runtime::new();
    let mut container = runtime.container("for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait");
    container.set("/linux/resources/pids", json!({ "limit": 5 }));
    let output = container.run();
    assert!(output.error_text().contains("can't fork"), "{output:?}");
}

#[test]
fn devices_are_denied_and_allowed() {
    let runtime = Runtime::new();
    let mut container = runtime.container("mknod /dev/log-device c 1 11; (head -c 1 /dev/log-device > /dev/null) 2> /dev/null && echo opened || echo refused; head -c 1 /dev/zero > /dev/null && echo zero");
    assert_eq!(container.output(), "refused\nzero");
    container
        .add("/linux/resources/devices", json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }));
    // Reading the kernel's log needs a capability too where dmesg_restrict is set.
    for set in ["bounding", "effective", "permitted"] {
        container.add(&format!("/process/capabilities/{set}"), json!("CAP_SYSLOG"));
    }
    assert_eq!(container.output(), "opened\nzero");
}

#[test]
fn the_cgroup_is_gone_with_the_container() {
    let runtime = Runtime::new();
    let container = runtime.container("exec sleep 100");
    container.start();
    assert!(!container.cgroup_file(&["cgroup.procs"]).is_empty());
    container.command(&["delete", "--force"]).ok();
    let path = container.spec["linux"]["cgroupsPath"].as_str().unwrap()[1..].to_owned();
    let is_left =
        || std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().any(|entry| entry.path().join(&path).exists());
    eventually("the cgroup is gone", || !is_left());
}

#[test]
fn what_the_machine_lacks_is_an_error() {
    let runtime = Runtime::new();
    let mut container = runtime.container("true");
    container.set("/linux/resources/hugepageLimits", json!([{ "pageSize": "3MB", "limit": 0 }]));
    assert_ne!(container.run().code, 0);
    let mut container = runtime.container("true");
    container.set("/linux/resources/unified", json!({ "no.such.file": "1" }));
    assert_ne!(container.run().code, 0);
}
