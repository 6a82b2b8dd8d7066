//! Configurations and images that ask for what nobody should get.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::{Bundle, canary};
use crate::namespaces::{open_to_all, with_user_namespace};

fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// CVE-2018-20699: a list of processors that names a billion of them.
///
/// Fails where `properties::parse_list` takes any number.
#[test]
fn lists_of_processors_take_no_memory() {
    let many = vec!["1"; 500_000].join(",");
    let before = peak_memory_bytes();
    for list in ["0-999999999", "999999999", "0-4294967295,0-4294967295", &many] {
        let error =
            Bundle::new().edit(|spec| spec["linux"]["resources"] = json!({ "cpu": { "cpus": list } })).refused("true");
        assert!(error.message.len() < 1000, "the message has {} bytes", error.message.len());
    }
    for list in ["0-999999999", "999999999999999999999", &many] {
        Bundle::new().edit(|spec| spec["process"]["execCPUAffinity"] = json!({ "initial": list })).refused("true");
        let policy = json!({ "mode": "MPOL_BIND", "nodes": list });
        Bundle::new().edit(|spec| spec["linux"]["memoryPolicy"] = policy).refused("true");
    }
    let grown = peak_memory_bytes() - before;
    assert!(grown < 32 << 20, "memory grew by {grown} bytes");
}

/// CVE-2021-43784: sizes that once overflowed a message of the runtime's are errors, or have no effect on the rest.
///
/// Fails without `id_maps::check`.
#[test]
fn absurd_sizes_are_errors() {
    let mapping = json!({ "containerID": 0, "hostID": 100_000, "size": 1 });
    let bundle = Bundle::new().edit(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        spec["linux"]["uidMappings"] = json!(vec![mapping.clone(); 5000]);
        spec["linux"]["gidMappings"] = json!(vec![mapping.clone(); 5000]);
    });
    assert!(bundle.refused("true").message.contains("more than 340"));
    let long = "x/".repeat(50_000);
    Bundle::new().edit(|spec| spec["linux"]["maskedPaths"] = json!([format!("/{long}")])).refused("true");
    Bundle::new().mount(&format!("/{long}"), "tmpfs", Path::new("tmpfs"), &[]).refused("true");
    // The namespaces are made all the same.
    let annotations: serde_json::Value = (0..2000).map(|number| (number.to_string(), json!("x".repeat(100)))).collect();
    let bundle = Bundle::new().edit(|spec| spec["annotations"] = annotations);
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(Path::new(&bundle.output("readlink /proc/self/ns/net")), own);
}

/// CVE-2022-0811: a value with another parameter behind it.
///
/// Fails without the check of values in `sysctl::check`.
#[test]
fn parameters_are_single_values() {
    let table = [
        ("net.ipv4.ip_forward", "1\nkernel.core_pattern=|/x"),
        ("kernel.core_pattern", "|/x"),
        ("net/../kernel/core_pattern", "|/x"),
        ("net.ipv4/../../kernel/core_pattern", "|/x"),
    ];
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for (name, value) in table {
        let error = Bundle::new().edit(|spec| spec["linux"]["sysctl"] = json!({ name: value })).refused("true");
        assert_eq!(error.stage, runtime::Stage::Spec, "{}", error.message);
    }
    // This one is a value, if a bad one: the kernel refuses it.
    let value = json!({ "kernel.shm_rmid_forced": "1+kernel.core_pattern=|/x" });
    Bundle::new().edit(|spec| spec["linux"]["sysctl"] = value).refused("true");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}

/// CVE-2025-52881 and CVE-2025-62596: what the runtime writes to procfs must not land in what somebody has mounted there.
///
/// Fails where `procfs` takes `/proc` for a procfs.
#[test]
fn parameters_are_set_behind_what_is_mounted_over_them() {
    let bundle = Bundle::new().edit(|spec| spec["linux"]["sysctl"] = json!({ "kernel.msgmax": "4242" }));
    let folder = canary();
    let file = folder.path().join("msgmax");
    std::fs::write(&file, "untouched").unwrap();
    // In this test's own mount namespace, of which the container's is a copy until its root is there.
    rustix::mount::mount_bind(folder.path(), "/proc/sys/kernel").unwrap();
    let bundle = bundle.mount("/proc/loadavg", "bind", Path::new("/etc/hostname"), &["bind"]);
    assert_eq!(bundle.output("cat /proc/sys/kernel/msgmax"), "4242");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "untouched");
}

/// The cgroups of a bundle that begins to exist, one in each hierarchy of v1, given to whom root is mapped to.
fn delegated_cgroups(bundle: &Bundle) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter(|line| line.contains(" - cgroup ")).filter_map(|line| line.split(' ').nth(4));
    let made = points.map(|point| Path::new(point).join(&bundle.id)).inspect(|path| {
        std::fs::create_dir(path).unwrap();
        for entry in std::fs::read_dir(path).unwrap() {
            std::os::unix::fs::chown(entry.unwrap().path(), Some(100_000), Some(100_000)).unwrap();
        }
        std::os::unix::fs::chown(path, Some(100_000), Some(100_000)).unwrap();
    });
    made.collect()
}

/// CVE-2023-25809: without a cgroup namespace, `/sys/fs/cgroup` could be written to where the cgroup had been delegated.
///
/// Fails where `cgroup_mount` leaves the attributes of the hierarchies' binds as they are.
#[test]
fn control_groups_are_read_only_without_a_namespace() {
    let bundle = Bundle::new().edit(with_user_namespace).edit(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
    });
    open_to_all(&bundle);
    let cgroups = delegated_cgroups(&bundle);
    assert!(!cgroups.is_empty() || Path::new("/sys/fs/cgroup/cgroup.procs").exists());
    let output = bundle.output(
        "exec 2>/dev/null; for file in $(find /sys/fs/cgroup -name cgroup.procs) /sys/fs/cgroup/*/../cgroup.procs; do \
             echo 0 2>/dev/null > $file && echo wrote $file; done; \
         for folder in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $folder/made && echo made $folder; done; echo done",
    );
    assert!(output.lines().all(|line| !line.starts_with("wrote") && !line.starts_with("made")), "{output}");
}

/// CVE-2022-0492: a hierarchy of v1 that is mounted in a new user namespace lets its `release_agent` be set, which runs on the host.
///
/// Fails without Docker's seccomp filter, which refuses the namespace.
#[test]
fn no_control_group_can_be_released_into_the_host() {
    let conditions = seccomp::Conditions {
        capabilities: &Default::default(),
        arch: seccomp::native(),
        kernel: seccomp::KernelVersion::new(6, 1),
    };
    let filter = seccomp::Profile::docker_default().compile(&conditions).unwrap().unwrap();
    let mut bundle = Bundle::new().script(
        "exec 2>/dev/null; find /sys/fs/cgroup -name release_agent; \
         unshare -Urm sh -c 'mount -t cgroup -o memory none /tmp && echo mounted; echo entered'; \
         mount -t cgroup -o memory none /tmp && echo mounted; \
         for each in /sys/fs/cgroup /sys/fs/cgroup/*/; do mount -o remount,rw,bind $each && echo remounted $each; done; \
         echo done",
    );
    bundle.seccomp = Some(runtime::SeccompFilter { program: filter.program, flags: filter.flags });
    assert_eq!(bundle.run().unwrap().output, "done\n");
}

/// CVE-2025-47291: with a user namespace too, a container is in the cgroup that the configuration names, with its limits.
///
/// Fails where the process that prepares the user namespace does not join the cgroup (`init::enter_namespaces`).
#[test]
fn a_user_namespace_does_not_leave_the_control_group() {
    let bundle = Bundle::new().edit(with_user_namespace).edit(|spec| {
        spec["linux"]["resources"] = json!({ "pids": { "limit": 5 } });
    });
    open_to_all(&bundle);
    let path = format!("/{}", bundle.id);
    let mut bundle = bundle.script("(for n in 1 2 3 4 5 6 7 8; do sleep 60 & done) 2>&1; echo end; sleep 60");
    let started = bundle.start().unwrap();
    let mut lines = BufReader::new(&started.output).lines().map(Result::unwrap);
    let refused = lines.by_ref().take_while(|line| line != "end").any(|line| line.contains("can't fork"));
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", started.running.pid.as_raw_nonzero())).unwrap();
    started.kill();
    assert!(cgroups.lines().all(|line| line.ends_with(&path)), "{cgroups}");
    assert!(refused, "more processes than the limit");
}

/// CVE-2024-40635, CVE-2024-9676, CVE-2026-47262: files of users that never end, block, or lie.
///
/// Fails where `users::open_file` takes what is no regular file.
#[test]
fn hostile_user_files_are_errors() {
    use runtime::Identity;
    type Make = fn(&Path);
    let table: [(&str, Make); 3] = [
        ("is not a regular file", |path| {
            rustix::fs::mknodat(
                rustix::fs::CWD,
                path,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o644),
                0,
            )
            .unwrap()
        }),
        ("is too large", |path| std::fs::File::create(path).unwrap().set_len(5 << 30).unwrap()),
        ("cannot open", |path| symlink("/proc/self/fd/0", path).unwrap()),
    ];
    for (message, make) in table {
        for file in ["etc/passwd", "etc/group"] {
            let mut bundle = Bundle::new();
            let path = bundle.root().join(file);
            std::fs::remove_file(&path).unwrap();
            make(&path);
            bundle.identity = Identity::Lookup { groups: vec![] };
            bundle.spec.process.as_mut().unwrap().user.username = "alice:secret".to_owned();
            let error = bundle.refused("true");
            assert!(error.message.contains(message), "{}", error.message);
        }
    }
}
