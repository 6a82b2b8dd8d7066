//! Processes on their way into a container, as those who are in there can see them.

use oci::runtime::Process;
use runtime::{ExecRequest, Identity, Keyring};
use serde_json::json;

use crate::harness::{Bundle, Started, exit_code, pipes, process};
use crate::namespaces::{join, open_to_all, with_user_namespace};

/// The most that may trace: Docker's capabilities and CAP_SYS_PTRACE.
fn may_trace(spec: &mut serde_json::Value) {
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
    }
}

/// Looks `process`'s user up in the container's files, which takes a while, and waits for its end.
fn exec_slowly(started: &Started, process: &Process) {
    let (_output, stdio) = pipes();
    let request = ExecRequest {
        process,
        stdio,
        seccomp: None,
        identity: Identity::Lookup { groups: vec![] },
        preserve_fds: 0,
        sub_cgroup: None,
        keyring: Keyring::Inherit,
    };
    let executed = runtime::exec(&started.running, request).unwrap();
    assert_eq!(exit_code(&executed.pidfd), 0);
}

/// A user file that takes a while to read.
fn long_passwd(bundle: &Bundle) {
    let text = "# a comment that is as long as a line of this file is in practice, or longer\n".repeat(100_000);
    std::fs::write(bundle.root().join("etc/passwd"), text).unwrap();
}

/// CVE-2016-9962: what of the host a process still has while it joins is not to be had through it, even by who may trace.
///
/// Fails where the process is put into the pid namespace before it has left the host's mounts and descriptors (`exec::go_on_as_member`).
#[test]
fn a_joining_process_shows_nothing_of_the_host() {
    let bundle = Bundle::new().edit(may_trace);
    long_passwd(&bundle);
    let canary = bundle.folder.path().join("canary");
    std::fs::write(&canary, "").unwrap();
    let watch = format!(
        "while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) continue;; esac; \
         [ -e $p/root{canary} ] && echo root-of-the-host >> /tmp/seen; \
         ls -l $p/fd/ $p/root $p/cwd >> /tmp/seen; done; done 2>/dev/null",
        canary = canary.display()
    );
    let mut bundle = bundle.script(&watch);
    let started = bundle.start().unwrap();
    // The first ones leave the moment in which it joins to chance, often; of the others one is seen sooner or later.
    for _ in 0..25 {
        started.shell("true").unwrap();
    }
    let look = || std::fs::read_to_string(bundle.root().join("tmp/seen")).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    for round in 0.. {
        exec_slowly(&started, &process("true"));
        let was_seen = round >= 5 && look().contains("-> /etc/passwd");
        if was_seen || std::time::Instant::now() > deadline {
            break;
        }
    }
    let seen = look();
    started.kill();
    let targets: Vec<&str> =
        seen.lines().filter_map(|line| line.split_once(" -> ").map(|(_, target)| target)).collect();
    assert!(targets.contains(&"/etc/passwd"), "no process was seen while it joined");
    let harmless = |target: &str| {
        ["/", "/etc/passwd", "/etc/group", "/dev/null"].contains(&target)
            || ["pipe:", "socket:", "/proc/"].iter().any(|kind| target.starts_with(kind))
    };
    assert_eq!(targets.iter().find(|target| !harmless(target)), None);
    assert!(!seen.contains("root-of-the-host"));
}

/// CVE-2016-9962 and CVE-2024-21626 for a container that waits for its start, for as long as somebody likes: others may be in its pid
/// namespace.
///
/// Fails where the descriptors are closed only when the program runs.
#[test]
fn a_container_that_waits_holds_nothing_of_the_host() {
    let mut bundle = Bundle::new().script("true");
    let (_output, stdio) = pipes();
    let created = runtime::create(bundle.request(stdio)).unwrap();
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", created.pid().as_raw_nonzero())).unwrap();
    let targets: Vec<_> = descriptors.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap()).collect();
    created.abandon().unwrap();
    let mut kinds: Vec<String> =
        targets.iter().map(|target| target.display().to_string().split(':').next().unwrap().to_owned()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["/dev/null", "pipe", "pipe", "socket"]);
}

/// CVE-2016-9962 again: in a user namespace, whose root may trace all that belongs to it, a process that joins does not.
///
/// Fails where `exec::become_root` makes the process dumpable again, as for a container's first process it is to get its mappings.
#[test]
fn a_joining_process_cannot_be_traced() {
    let bundle = Bundle::new().edit(may_trace).edit(with_user_namespace);
    open_to_all(&bundle);
    long_passwd(&bundle);
    std::fs::set_permissions(bundle.root().join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let mut bundle = bundle.script(WATCH_PROGRAMS);
    let started = bundle.start().unwrap();
    for _ in 0..5 {
        exec_slowly(&started, &process("true"));
    }
    let seen = std::fs::read_to_string(bundle.root().join("tmp/seen")).unwrap();
    started.kill();
    assert_programs_are_hidden(&seen);
}

/// CVE-2016-9962 for a container that joins the user and pid namespaces of another, as in a pod.
///
/// Fails where `init::prepare_for_init` leaves the process dumpable.
#[test]
fn a_joining_container_cannot_be_traced() {
    let bundle = Bundle::new().edit(may_trace).edit(with_user_namespace);
    open_to_all(&bundle);
    std::fs::set_permissions(bundle.root().join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let mut bundle = bundle.script(WATCH_PROGRAMS);
    let started = bundle.start().unwrap();
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", started.running.pid.as_raw_nonzero());
    for _ in 0..12 {
        let joining = Bundle::new().edit(|spec| {
            join(spec, "user", &path("user"));
            join(spec, "pid", &path("pid"));
        });
        open_to_all(&joining);
        joining.output("true");
    }
    let seen = std::fs::read_to_string(bundle.root().join("tmp/seen")).unwrap();
    started.kill();
    assert_programs_are_hidden(&seen);
}

/// Writes down the name and the program of every other process.
const WATCH_PROGRAMS: &str = "while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) continue;; esac; \
    read name < $p/comm; echo \"$name $(readlink $p/exe || echo hidden)\" >> /tmp/seen; done; done 2>/dev/null";

/// Fails if the program of a process was seen that is not in the container yet, and if none was there to be seen.
fn assert_programs_are_hidden(seen: &str) {
    // Before it runs its program it still has the name of this test's thread.
    let joining: Vec<&str> = seen.lines().filter(|line| line.starts_with("attacks::")).collect();
    assert!(!joining.is_empty(), "no process was seen while it joined");
    // It may have begun to run its program between the two looks.
    let shown = joining.iter().find(|line| !line.ends_with(" hidden") && !line.ends_with(" /bin/busybox"));
    assert_eq!(shown, None);
}
