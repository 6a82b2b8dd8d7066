//! Namespaces new, shared and joined; host name, kernel parameters, clocks, users, filters.

use serde_json::json;

use crate::support::Runtime;

const KINDS: [(&str, &str); 6] =
    [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt"), ("cgroup", "cgroup")];

fn own(link: &str) -> String {
    std::fs::read_link(format!("/proc/thread-self/ns/{link}")).unwrap().display().to_string()
}

#[test]
fn listed_namespaces_are_new_and_others_inherited() {
    let runtime = Runtime::new();
    for (kind, link) in KINDS {
        let mut container = runtime.container(&format!("readlink /proc/self/ns/{link}"));
        container.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": kind }]));
        if kind == "mount" {
            container.set("/linux/namespaces", json!([{ "type": "mount" }]));
        }
        container.set("/hostname", "");
        container.spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| mount["type"] != "sysfs" && mount["type"] != "mqueue");
        assert_ne!(container.output(), own(link), "{kind} is new");
        if kind != "mount" {
            container.set("/linux/namespaces", json!([{ "type": "mount" }]));
            assert_eq!(container.output(), own(link), "{kind} is inherited");
        }
    }
}

#[test]
fn namespaces_are_joined_by_path() {
    let runtime = Runtime::new();
    let holder = runtime.container("exec sleep 100");
    holder.start();
    let pid = holder.pid();
    let joined = |link: &str| std::fs::read_link(format!("/proc/{pid}/ns/{link}")).unwrap().display().to_string();
    let mut container = runtime.container("for kind in net ipc uts pid; do readlink /proc/self/ns/$kind; done");
    container.set(
        "/linux/namespaces",
        json!([
            { "type": "mount" },
            { "type": "network", "path": format!("/proc/{pid}/ns/net") },
            { "type": "ipc", "path": format!("/proc/{pid}/ns/ipc") },
            { "type": "uts", "path": format!("/proc/{pid}/ns/uts") },
            { "type": "pid", "path": format!("/proc/{pid}/ns/pid") },
        ]),
    );
    container.set("/hostname", "");
    assert_eq!(container.output(), ["net", "ipc", "uts", "pid"].map(joined).join("\n"));
    container.set(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "network", "path": format!("/proc/{pid}/ns/ipc") }]),
    );
    assert_ne!(container.run().code, 0, "a namespace of another kind was joined");
    container.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": "network", "path": "/nowhere" }]));
    assert_ne!(container.run().code, 0, "a namespace that is not there was joined");
}

#[test]
fn the_first_process_is_one_and_the_host_has_another_name() {
    let runtime = Runtime::new();
    let mut container = runtime.container("echo $$; hostname; cat /proc/sys/kernel/domainname");
    container.set("/hostname", "another").set("/domainname", "example");
    assert_eq!(container.output(), "1\nanother\nexample");
    container.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "uts");
    assert_ne!(container.run().code, 0, "the host's own name would have been changed");
}

#[test]
fn kernel_parameters_of_namespaces_only() {
    let runtime = Runtime::new();
    let mut container = runtime.container("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni");
    container.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1", "kernel.shmmni": "123" }));
    assert_eq!(container.output(), "1\n123");
    for (name, value) in
        [("vm.swappiness", "1"), ("kernel.hostname", "x"), ("net/ipv4/../../vm/swappiness", "1"), ("nonsense", "1")]
    {
        container.set("/linux/sysctl", json!({ name: value }));
        assert_ne!(container.run().code, 0, "{name}");
    }
    container.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "network");
    container.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    assert_ne!(container.run().code, 0, "a parameter of the host's network would have been changed");
}

#[test]
fn clocks_are_moved() {
    let runtime = Runtime::new();
    let mut container = runtime.container("cut -d. -f1 /proc/uptime");
    container.add("/linux/namespaces", json!({ "type": "time" }));
    container.set(
        "/linux/timeOffsets",
        json!({ "boottime": { "secs": 1_000_000, "nanosecs": 0 }, "monotonic": { "secs": 1_000_000 } }),
    );
    let uptime: u64 = container.output().parse().unwrap();
    assert!(uptime > 1_000_000, "{uptime}");
}

#[test]
fn root_inside_is_nobody_outside() {
    let runtime = Runtime::new();
    let mut container = runtime.container("id -u; cat /proc/self/uid_map; exec sleep 100");
    container.add("/linux/namespaces", json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
    container.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    // The root belongs to the container's root, and everybody may walk to it.
    let owner = runtime.host.program("chown").args(["-R", "200000:200000"]).arg(container.rootfs());
    owner.ok();
    for folder in [runtime.host.scratch().to_owned(), runtime.host.files(), container.bundle.clone()] {
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    container.start();
    crate::support::eventually("it has spoken", || container.written().lines().count() >= 2);
    let written = container.written();
    let lines: Vec<_> = written.lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1].split_ascii_whitespace().collect::<Vec<_>>(), ["0", "200000", "65536"]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
    assert!(status.lines().any(|line| line.starts_with("Uid:\t200000")), "{status}");
}

#[test]
fn system_calls_are_filtered() {
    let runtime = Runtime::new();
    let mut container =
        runtime.container("mkdir /made 2>&1; chmod 700 /tmp 2>&1; grep Seccomp: /proc/self/status | cut -f2");
    container.set(
        "/linux/seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 },
            { "names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO" },
        ] }),
    );
    let output = container.output();
    let lines: Vec<_> = output.lines().collect();
    assert!(lines[0].ends_with("No space left on device"), "{output}");
    assert!(lines[1].ends_with("Operation not permitted"), "{output}");
    assert_eq!(lines[2], "2");
    container.set(
        "/linux/seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS" },
    ] }),
    );
    assert_eq!(container.set("/process/args", json!(["/bin/mkdir", "/made"])).run().code, 128 + 31);
}

#[test]
fn processes_outside_cannot_be_seen() {
    let runtime = Runtime::new();
    let container = runtime.container("ls /proc | grep -c '^[0-9]'; ip -o link | wc -l");
    assert!(["2\n1", "3\n1"].contains(&container.output().as_str()), "{}", container.output());
}

#[test]
fn an_interface_of_the_host_moves_in_with_its_address() {
    let runtime = Runtime::new();
    let ip = |words: &str| runtime.host.program("ip").args(words.split(' ')).ok();
    ip("link add outer type veth peer name other");
    ip("address add 192.0.2.7/24 dev outer");
    let mut container = runtime.container("ip -o address show dev inner; ip -o link show dev inner");
    container.set("/linux/netDevices", json!({ "outer": { "name": "inner" } }));
    let output = container.output();
    assert!(output.contains("192.0.2.7/24") && output.contains(",UP"), "{output}");
}

#[test]
fn memory_comes_from_the_nodes_asked_for() {
    let runtime = Runtime::new();
    let mut container = runtime.container("head -1 /proc/self/numa_maps | cut -d' ' -f2");
    container
        .set("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }));
    if std::path::Path::new("/proc/self/numa_maps").exists() {
        assert_eq!(container.output(), "bind=static:0");
    }
}
