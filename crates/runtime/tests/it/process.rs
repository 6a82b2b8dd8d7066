//! What a process is like when its program begins.

use std::os::fd::AsRawFd;

use serde_json::json;

use crate::harness::{Bundle, exit_code};

#[test]
fn only_the_standard_streams_are_open() {
    // Descriptors of the creator that are not close-on-exec must not come along.
    let leaked = std::fs::File::open("/etc").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    // The shell's own glob needs one while it lists.
    assert_eq!(Bundle::new().output("for fd in /proc/self/fd/*; do readlink $fd; done | grep -v /proc | wc -l"), "3");
    drop(leaked);
}

#[test]
fn descriptors_are_preserved_when_asked_for() {
    let file = std::fs::File::open("/etc/passwd").unwrap();
    let mut bundle = Bundle::new().script("test -e /proc/self/fd/3 && cat <&3 | head -c 4");
    bundle.preserve_fds = 1;
    // A process of the test runner may have 3 open: it becomes the file for a moment.
    let third = rustix::io::fcntl_dupfd_cloexec(&file, 3).unwrap();
    if third.as_raw_fd() != 3 {
        let kept =
            linux::fds::take_inherited(3).map(|fd| rustix::io::fcntl_dupfd_cloexec(&fd, 10).map(|copy| (fd, copy)));
        linux::fds::duplicate_onto(std::os::fd::AsFd::as_fd(&file), 3).unwrap();
        std::mem::forget(kept);
    } else {
        rustix::io::fcntl_setfd(&third, rustix::io::FdFlags::empty()).unwrap();
    }
    let outcome = bundle.run().unwrap();
    assert_eq!((outcome.code, outcome.output.as_str()), (0, "root"));
    std::mem::forget(third);
}

#[test]
fn capabilities_are_those_asked_for_and_none_is_inheritable() {
    let status = Bundle::new().output("grep Cap /proc/self/status | cut -f2");
    let sets: Vec<&str> = status.lines().collect();
    assert_eq!(
        sets,
        ["0000000000000000", "00000000a80425fb", "00000000a80425fb", "00000000a80425fb", "0000000000000000"]
    );
}

#[test]
fn another_user_has_no_capabilities_but_the_ambient_ones() {
    let user = |spec: &mut serde_json::Value| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let status = Bundle::new().edit(user).output("grep Cap /proc/self/status | cut -f2");
    assert_eq!(status.lines().collect::<Vec<_>>()[..3], ["0000000000000000"; 3]);
    let ambient = Bundle::new().edit(user).edit(|spec| {
        spec["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
        spec["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"]);
    });
    let status = ambient.output("grep Cap /proc/self/status | cut -f2");
    assert_eq!(status.lines().collect::<Vec<_>>()[2..], ["0000000000000020", "00000000a80425fb", "0000000000000020"]);
}

#[test]
fn unknown_capabilities_are_left_out_with_a_warning() {
    let mut bundle =
        Bundle::new().edit(|spec| spec["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_NONSENSE"]));
    let started = bundle.start().unwrap();
    assert!(started.running.warnings.iter().any(|warning| warning.contains("CAP_NONSENSE")));
    assert_eq!(started.finish().code, 0);
}

#[test]
fn no_new_privileges_is_set_where_asked_for() {
    assert_eq!(Bundle::new().output("grep NoNewPrivs /proc/self/status | cut -f2"), "0");
    let bundle = Bundle::new().edit(|spec| spec["process"]["noNewPrivileges"] = json!(true));
    assert_eq!(bundle.output("grep NoNewPrivs /proc/self/status | cut -f2"), "1");
}

#[test]
fn limits_umask_and_score_are_set() {
    let bundle = Bundle::new().edit(|spec| {
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]);
        spec["process"]["user"] = json!({ "uid": 0, "gid": 0, "umask": 0o77 });
        spec["process"]["oomScoreAdj"] = json!(100);
    });
    assert_eq!(
        bundle.output("ulimit -Sn; ulimit -Hn; ulimit -c; umask; cat /proc/self/oom_score_adj"),
        "100\n200\n0\n0077\n100"
    );
    assert_eq!(Bundle::new().output("umask"), "0022");
}

/// The runtime itself needs more descriptors than that until the very end.
#[test]
fn limits_below_what_the_runtime_needs_are_set() {
    use crate::namespaces::{open_to_all, with_user_namespace};
    type Change = fn(&mut serde_json::Value);
    let table: [Change; 4] = [
        |_| {},
        |spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }),
        |spec| spec["process"]["noNewPrivileges"] = json!(true),
        with_user_namespace,
    ];
    for change in table {
        let bundle = Bundle::new().edit(change).edit(|spec| {
            let limit = |kind, number| json!({ "type": kind, "soft": number, "hard": number });
            spec["process"]["rlimits"] = json!([limit("RLIMIT_NOFILE", 4), limit("RLIMIT_AS", 8 << 20)]);
            spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        });
        open_to_all(&bundle);
        let mut bundle = bundle.script("ulimit -n; ulimit -v; sleep 60");
        let started = bundle.start().unwrap();
        let process = bundle.spec.process.clone().unwrap();
        let mut shell = crate::harness::process("ulimit -n; ulimit -v");
        shell.rlimits = process.rlimits;
        assert_eq!(started.exec(&shell).unwrap().output, "4\n8192\n");
        started.running.signal(9).unwrap();
        assert_eq!(started.finish().output, "4\n8192\n");
    }
}

#[test]
fn signals_are_as_a_fresh_program_expects() {
    // The test runner (and Rust itself) ignores SIGPIPE, a monitor blocks SIGCHLD.
    linux::signal::set_mask(linux::signal::SignalSet::NONE.with(17).with(15)).unwrap();
    let output = Bundle::new().output("grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -f2");
    linux::signal::set_mask(linux::signal::SignalSet::NONE).unwrap();
    assert_eq!(output, "0000000000000000\n0000000000000000");
}

#[test]
fn the_working_directory_is_made_and_entered() {
    let cwd = |path: &str| {
        let path = path.to_owned();
        Bundle::new().edit(|spec| spec["process"]["cwd"] = json!(path))
    };
    assert_eq!(cwd("/not/there/yet").output("pwd"), "/not/there/yet");
    assert_eq!(cwd("/home/alice").output("pwd"), "/home/alice");
    let error = cwd("/etc/passwd").refused("pwd");
    assert_eq!(error.message, "chdir to cwd (\"/etc/passwd\") set in config.json failed: not a directory");
    assert!(cwd("relative").refused("pwd").message.contains("Cwd must be an absolute path"));
}

#[test]
fn home_comes_from_the_image() {
    assert_eq!(Bundle::new().output("echo $HOME"), "/root");
    let alice = Bundle::new().edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(alice.output("echo $HOME"), "/home/alice");
    let given = Bundle::new().edit(|spec| spec["process"]["env"] = json!(["HOME=/given", "PATH=/bin"]));
    assert_eq!(given.output("echo $HOME"), "/given");
}

#[test]
fn scheduling_and_domain_are_set() {
    let bundle = Bundle::new().edit(|spec| {
        spec["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 5 });
        spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
        spec["linux"]["personality"] = json!({ "domain": "LINUX32" });
    });
    let output = bundle.output("awk '{print $41, $19}' /proc/self/stat; uname -m");
    assert_eq!(output, "3 5\ni686");
}

#[test]
fn values_that_make_no_sense_are_refused_before_anything_is_made() {
    type Change = fn(&mut serde_json::Value);
    let table: [(&str, Change); 9] = [
        ("args must not be empty", |spec| spec["process"]["args"] = json!([])),
        ("is given twice", |spec| {
            spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]);
        }),
        ("not between 0 and 7", |spec| {
            spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 })
        }),
        ("has a NUL", |spec| spec["process"]["args"] = json!(["a\0b"])),
        ("AppArmor is not enabled", |spec| spec["process"]["apparmorProfile"] = json!("docker-default")),
        ("selinux", |spec| spec["process"]["selinuxLabel"] = json!("system_u:system_r:x_t:s0")),
        ("not in a separate kernel namespace", |spec| spec["linux"]["sysctl"] = json!({ "vm.swappiness": "1" })),
        ("vm is not supported", |spec| spec["vm"] = json!({ "kernel": { "path": "/k" } })),
        ("is not absolute", |spec| spec["linux"]["maskedPaths"] = json!(["proc/kcore"])),
    ];
    for (message, change) in table {
        if message.contains("AppArmor") && runtime::has_apparmor() || message == "selinux" && runtime::has_selinux() {
            continue;
        }
        let error = Bundle::new().edit(change).refused_as_is();
        assert!(error.message.contains(message), "{message}: {}", error.message);
    }
}

#[test]
fn a_terminal_is_the_containers_own() {
    let mut bundle = Bundle::new()
        .script("tty; readlink /proc/self/fd/0; test -c /dev/console && stat -c %t /dev/console; stty size");
    bundle.spec.process.as_mut().unwrap().terminal = true;
    bundle.spec.process.as_mut().unwrap().console_size = Some(oci::runtime::ConsoleSize { height: 33, width: 77 });
    std::os::unix::fs::symlink("busybox", bundle.root().join("bin/stty")).unwrap();
    let mut running = runtime::create_and_start(bundle.request(runtime::Stdio::Terminal)).unwrap();
    let mut master = std::fs::File::from(running.console.take().unwrap());
    let mut output = Vec::new();
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = std::io::Read::read(&mut master, &mut bytes) {
        output.extend_from_slice(&bytes[..count]);
    }
    assert_eq!(exit_code(&running.pidfd), 0);
    running.destroy().unwrap();
    assert_eq!(String::from_utf8(output).unwrap(), "/dev/pts/0\r\n/dev/pts/0\r\n88\r\n33 77\r\n");
}

#[test]
fn seccomp_filters_with_and_without_no_new_privileges() {
    for (no_new_privileges, uid) in [(false, 0), (true, 0), (false, 1000), (true, 1000)] {
        let bundle = Bundle::new().edit(|spec| {
            spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            spec["process"]["user"] = json!({ "uid": uid, "gid": 0 });
            spec["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["sethostname", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 11 }],
            });
        });
        let output = bundle.output("grep -E '^Seccomp:' /proc/self/status | cut -f2; mkdir /tmp/x 2>&1; true");
        assert!(output.starts_with("2\n") && output.contains("temporarily unavailable"), "{output}");
    }
}
