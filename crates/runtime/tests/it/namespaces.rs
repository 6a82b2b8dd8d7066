//! Namespaces: new, joined, and with mappings.

use serde_json::{Value, json};

use crate::harness::{Bundle, in_own_process};

fn links(pid: &str) -> Vec<String> {
    let link = |kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string();
    ["mnt", "pid", "uts", "ipc", "net", "cgroup", "user", "time"].map(link).to_vec()
}

#[test]
fn those_asked_for_are_new_and_the_others_are_not() {
    let started = Bundle::new().script("sleep 60").start().unwrap();
    let (own, other) = (links("self"), links(&started.running.pid.as_raw_nonzero().to_string()));
    started.kill();
    for (index, (own, other)) in own.iter().zip(&other).enumerate() {
        assert_eq!(own != other, index < 6, "{own} {other}");
    }
}

#[test]
fn names_are_set_in_a_namespace_of_its_own_only() {
    let bundle = Bundle::new().edit(|spec| spec["domainname"] = json!("nis"));
    assert_eq!(bundle.output("hostname; cat /proc/sys/kernel/domainname"), "box\nnis");
    let error = Bundle::new().edit(|spec| drop_kind(spec, "uts")).refused("true");
    assert_eq!(error.message, "unable to set hostname without a private UTS namespace");
}

fn drop_kind(spec: &mut Value, kind: &str) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
}

pub(crate) fn join(spec: &mut Value, kind: &str, path: &str) {
    drop_kind(spec, kind);
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": kind, "path": path }));
}

#[test]
fn namespaces_of_another_container_are_joined() {
    let first = Bundle::new().script("sleep 60").start().unwrap();
    let pid = first.running.pid.as_raw_nonzero();
    let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
    let mut second = Bundle::new().script("sleep 60").edit(|spec| {
        spec.as_object_mut().unwrap().remove("hostname");
        for (kind, file) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
            join(spec, kind, &path(file));
        }
    });
    let second = second.start().unwrap();
    let (one, two) = (links(&pid.to_string()), links(&second.running.pid.as_raw_nonzero().to_string()));
    assert_eq!(one[1..5], two[1..5]);
    assert_ne!(one[0], two[0]);
    second.kill();
    first.kill();
}

#[test]
fn a_network_namespace_comes_as_a_descriptor() {
    let first = Bundle::new().script("sleep 60").start().unwrap();
    let path = format!("/proc/{}/ns/net", first.running.pid.as_raw_nonzero());
    let mut second = Bundle::new().script("readlink /proc/self/ns/net");
    second.network_namespace = Some(std::fs::File::open(&path).unwrap().into());
    assert_eq!(second.run().unwrap().output.trim(), std::fs::read_link(&path).unwrap().display().to_string());
    first.kill();
}

#[test]
fn a_namespace_of_the_wrong_kind_is_refused() {
    let error = Bundle::new().edit(|spec| join(spec, "ipc", "/proc/self/ns/net")).refused("true");
    assert!(error.message.contains("is a namespace of kind net, not ipc"), "{}", error.message);
}

pub(crate) fn with_user_namespace(spec: &mut Value) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    for mappings in ["uidMappings", "gidMappings"] {
        spec["linux"][mappings] = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    }
}

pub(crate) fn open_to_all(bundle: &Bundle) {
    // The user that root is mapped to walks down to the root.
    std::fs::set_permissions(bundle.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn root_is_not_root_outside() {
    let bundle = Bundle::new().edit(with_user_namespace);
    open_to_all(&bundle);
    let mut bundle = bundle.script("id -u; cat /proc/self/uid_map; test -c /dev/null && echo device; sleep 60");
    let started = bundle.start().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", started.running.pid.as_raw_nonzero())).unwrap();
    assert!(status.contains("Uid:\t100000\t100000\t100000\t100000"), "{status}");
    let inside = started.shell("id -u; test -c /dev/null && echo device; echo x > /dev/null && echo written").unwrap();
    assert_eq!(inside.output, "0\ndevice\nwritten\n");
    started.kill();
}

#[test]
fn a_user_namespace_is_joined_and_time_passes_differently() {
    let first = Bundle::new().edit(with_user_namespace);
    open_to_all(&first);
    let first = first.script("sleep 60").start().unwrap();
    let path = format!("/proc/{}/ns/user", first.running.pid.as_raw_nonzero());
    let second = Bundle::new().edit(|spec| join(spec, "user", &path));
    open_to_all(&second);
    assert_eq!(second.output("readlink /proc/self/ns/user"), std::fs::read_link(&path).unwrap().display().to_string());
    first.kill();
}

#[test]
fn clocks_are_offset() {
    // The offsets are a file of the process, not of the test's thread.
    in_own_process(clocks_are_offset_in_this_process);
}

fn clocks_are_offset_in_this_process() {
    for user in [false, true] {
        let bundle = Bundle::new().edit(|spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
            spec["linux"]["timeOffsets"] =
                json!({ "boottime": { "secs": 1_000_000, "nanosecs": 0 }, "monotonic": { "secs": 5 } });
            if user {
                with_user_namespace(spec);
            }
        });
        open_to_all(&bundle);
        let uptime: f64 = bundle.output("cut -d' ' -f1 /proc/uptime").parse().unwrap();
        assert!(uptime > 1_000_000.0, "{uptime}");
    }
    let own: f64 = std::fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(own < 1_000_000.0, "the creator's own clock is unchanged");
}

#[test]
fn joining_a_network_with_a_new_user_namespace_works() {
    let first = Bundle::new().script("sleep 60").start().unwrap();
    let path = format!("/proc/{}/ns/net", first.running.pid.as_raw_nonzero());
    let mut second = Bundle::new().edit(with_user_namespace).edit(|spec| {
        // sysfs belongs to the owner of the network namespace.
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/sys"));
    });
    open_to_all(&second);
    second.network_namespace = Some(std::fs::File::open(&path).unwrap().into());
    assert_eq!(second.output("readlink /proc/self/ns/net"), std::fs::read_link(&path).unwrap().display().to_string());
    first.kill();
}

#[test]
fn sysctls_are_set_inside_and_not_outside() {
    let before = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let wanted = if before.trim() == "1" { "0" } else { "1" };
    let bundle = Bundle::new()
        .edit(|spec| spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": wanted, "kernel.msgmax": "4242" }));
    assert_eq!(bundle.output("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax"), format!("{wanted}\n4242"));
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), before);
}

#[test]
fn a_network_interface_is_moved_with_its_addresses() {
    in_own_process(|| {
        linux::namespace::unshare(linux::namespace::NETWORK).unwrap();
        let ip = |arguments: &str| {
            let status = std::process::Command::new("ip").args(arguments.split(' ')).status().unwrap();
            assert!(status.success(), "ip {arguments}");
        };
        ip("link add conex-moved type veth peer name conex-peer");
        ip("address add 192.0.2.7/24 dev conex-moved");
        let bundle =
            Bundle::new().edit(|spec| spec["linux"]["netDevices"] = json!({ "conex-moved": { "name": "net0" } }));
        let output = bundle.output("ip -o address show dev net0; ip link show dev net0");
        assert!(output.contains("192.0.2.7/24") && output.contains("UP"), "{output}");
        assert!(!std::process::Command::new("ip").args(["link", "show", "conex-moved"]).status().unwrap().success());
        let error = Bundle::new().edit(|spec| spec["linux"]["netDevices"] = json!({ "nosuch": {} })).refused("true");
        assert!(error.message.contains("cannot move network interface"), "{}", error.message);
    });
}

#[test]
fn a_container_may_have_no_namespace_of_its_own_at_all() {
    let mut bundle = Bundle::new().edit(|spec| {
        spec["linux"]["namespaces"] = json!([]);
        spec.as_object_mut().unwrap().remove("hostname");
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| mount["destination"] != "/sys" && mount["destination"] != "/sys/fs/cgroup");
    });
    bundle = bundle.script("ls /; sleep 60");
    let mounts = || std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let before = mounts().lines().count();
    let started = bundle.start().unwrap();
    assert!(mounts().lines().count() > before, "the mounts are the creator's too");
    let own = std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
    let inside = started.shell("readlink /proc/self/ns/mnt; ls /etc").unwrap().output;
    assert_eq!(inside, format!("{}\ngroup\npasswd\n", own.display()));
    started.kill();
    assert_eq!(mounts().lines().count(), before, "they are gone with it");
}

#[test]
fn the_loopback_of_a_new_network_is_up() {
    assert!(Bundle::new().output("ip link show dev lo").contains("LOOPBACK,UP"));
}
