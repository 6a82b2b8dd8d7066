//! What a container sees under us and under the other runtimes on this machine, line by line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use harness::Host;
use serde_json::json;

use crate::support::{Runtime, conex_runtime};

/// Prints everything that a program can find out about how it was started.
const OBSERVE: &str = r#"
section() { echo "== $1"; }
section identity; id; umask; pwd; hostname; env | sort
section status; grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Umask|Threads)' /proc/self/status
section limits; cat /proc/self/limits | tr -s ' '
section oom; cat /proc/self/oom_score_adj
section devices; cd /dev; for file in *; do [ -L $file ] && echo "$file -> $(readlink $file)" || stat -c '%n %F %t:%T %a %u:%g' $file; done
section mounts; cut -d' ' -f5,6 /proc/self/mountinfo | sort
section supers; sed 's/.* - //' /proc/self/mountinfo | sed -E 's/(size|nr_inodes)=[^,]*//g' | sort
section masked; for path in /proc/kcore /proc/keys /proc/timer_list /proc/sys /sys/firmware; do ls -ld $path 2>&1 | cut -d' ' -f1; (echo x > $path/test) 2>&1 | sed 's/.*: //'; done
section sysctl; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni
section network; ip -o link | cut -d' ' -f2,3
section cgroup; cut -d: -f2 /proc/self/cgroup | sort
section descriptors; ls /proc/self/fd | tr '\n' ' '
section session; cut -d' ' -f5,6 /proc/self/stat
"#;

/// The other runtimes, by name.
fn peers() -> Vec<PathBuf> {
    let listed = std::env::var("CONEX_OCI_PEERS").unwrap_or_default();
    let listed = listed.split(':').filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = std::env::var("PATH").unwrap_or_default();
    let in_path = ["runc", "crun"]
        .iter()
        .filter_map(|name| path.split(':').map(|folder| PathBuf::from(folder).join(name)).find(|file| file.exists()));
    listed.chain(in_path).collect()
}

/// What a runtime's container prints for a configuration.
fn observe(runtime: &Runtime, change: &dyn Fn(&mut crate::support::Container<'_>)) -> BTreeMap<String, Vec<String>> {
    let mut container = runtime.container(OBSERVE);
    change(&mut container);
    let output = container.run();
    assert_eq!(output.code, 0, "{}: {}", runtime.program_path().display(), output.error_text());
    let text = output.text().replace(&container.id, "ID");
    let mut sections = BTreeMap::new();
    for section in text.split("== ").skip(1) {
        let (name, lines) = section.split_once('\n').unwrap();
        sections.insert(name.to_owned(), lines.lines().map(|line| line.trim_end().to_owned()).collect());
    }
    sections
}

/// Lines that differ between runtimes and are no matter of the specification.
fn is_free(section: &str, line: &str) -> bool {
    match section {
        // What backs /dev and the masks is the runtime's affair.
        "supers" => {
            ["overlay", "tmpfs ", "devtmpfs ", "sysfs "].iter().any(|start| line.starts_with(start))
                || line.contains("/dev/")
        }
        // The root's own options are the host's; masks may be null devices or read-only files, and may forbid more than they must.
        "mounts" => {
            ["/ ", "/sys/firmware ", "/proc/keys ", "/proc/timer_list "].iter().any(|start| line.starts_with(start))
        }
        // Only where the kernel has /proc/kcore, or always.
        "devices" => line.starts_with("core ->"),
        // runc makes a session, crun does not: the specification is silent.
        "session" => true,
        _ => false,
    }
}

fn differences(ours: &BTreeMap<String, Vec<String>>, theirs: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut found = Vec::new();
    for (section, lines) in ours {
        let others = &theirs[section];
        let only = |these: &[String], those: &[String], mark: &str| -> Vec<String> {
            let is_only = |line: &&String| !those.contains(line) && !is_free(section, line);
            these.iter().filter(is_only).map(|line| format!("{section}: {mark} {line}")).collect()
        };
        found.extend(only(lines, others, "ours"));
        found.extend(only(others, lines, "theirs"));
    }
    found
}

fn compare(change: &dyn Fn(&mut crate::support::Container<'_>)) {
    let peers = peers();
    if peers.is_empty() {
        eprintln!("skipped: no other runtime here");
        return;
    }
    let host = Host::new();
    // crun refuses a hybrid layout as long as it can see the unified hierarchy.
    let _ = rustix::mount::unmount("/sys/fs/cgroup/unified", rustix::mount::UnmountFlags::DETACH);
    let mut runtime = Runtime::of(host, conex_runtime());
    let ours = observe(&runtime, change);
    let mut found = Vec::new();
    for peer in peers {
        let name = peer.file_name().unwrap_or_default().display().to_string();
        runtime = runtime.with_program(peer);
        found.extend(differences(&ours, &observe(&runtime, change)).into_iter().map(|line| format!("{name}: {line}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_plain_container_looks_the_same() {
    compare(&|_| {});
}

#[test]
fn a_container_with_everything_looks_the_same() {
    compare(&|container| {
        container
            .set("/process/user", json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 6], "umask": 0o77 }))
            .set("/process/oomScoreAdj", 100)
            .set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 128 }]))
            .set("/process/cwd", "/tmp")
            .set("/process/capabilities/ambient", json!(["CAP_KILL"]))
            .set("/process/capabilities/inheritable", json!(["CAP_KILL"]))
            .set("/root/readonly", true)
            .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1", "kernel.shmmni": "321" }))
            .set("/linux/devices", json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666 }]))
            .add("/linux/namespaces", json!({ "type": "cgroup" }))
            .add("/mounts", json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777", "size=1m"] }));
    });
}
