//! What a container may not do.

use harness::Engine;

#[test]
fn capabilities() {
    let engine = Engine::with_busybox();
    let caps = |arguments: &[&str]| {
        engine.docker(["run", "--rm"]).args(arguments).args(["busybox", "grep", "^Cap", "/proc/self/status"]).ok()
    };
    let default = caps(&[]);
    assert!(
        default.contains("CapEff:\t00000000a80425fb") && default.contains("CapBnd:\t00000000a80425fb"),
        "{default}"
    );
    assert!(
        default.contains("CapInh:\t0000000000000000") && default.contains("CapAmb:\t0000000000000000"),
        "{default}"
    );
    let user = caps(&["-u", "1000"]);
    assert!(user.contains("CapEff:\t0000000000000000") && user.contains("CapAmb:\t0000000000000000"), "{user}");
    assert!(caps(&["--cap-drop", "ALL"]).contains("CapEff:\t0000000000000000"));
    assert!(caps(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]).contains("CapEff:\t0000000000001000"));
    let unknown = engine.docker(["run", "--rm", "--cap-add", "FLY", "busybox", "true"]).fails(125);
    assert!(
        unknown.contains("invalid capability: \"CAP_FLY\"") || unknown.contains("unknown capability: \"CAP_FLY\""),
        "{unknown}"
    );
    engine.finish();
}

#[test]
fn privileges_seccomp_and_masks() {
    let engine = Engine::with_busybox();
    let status = |arguments: &[&str], field: &str| {
        let text = engine.docker(["run", "--rm"]).args(arguments).args(["busybox", "cat", "/proc/self/status"]).ok();
        text.lines().find_map(|line| line.strip_prefix(&format!("{field}:\t")).map(str::to_owned)).unwrap_or(text)
    };
    assert_eq!(status(&[], "Seccomp"), "2");
    assert_eq!(status(&["--security-opt", "seccomp=unconfined"], "Seccomp"), "0");
    assert_eq!(status(&["--privileged"], "Seccomp"), "0");
    assert_eq!(status(&[], "NoNewPrivs"), "0");
    assert_eq!(status(&["--security-opt", "no-new-privileges"], "NoNewPrivs"), "1");

    let shell = |script: &str| engine.docker(["run", "--rm", "busybox", "sh", "-c", script]).run();
    assert_eq!(shell("cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; ls /proc/acpi /proc/scsi 2>/dev/null | grep -cv :").text(), "0\n0");
    assert!(shell("echo 1 > /proc/sys/kernel/panic").error_text().contains("Read-only file system"));
    assert!(
        shell("mount -t tmpfs none /mnt || mkdir /mnt; mount -t tmpfs none /mnt")
            .error_text()
            .contains("ermission denied")
    );
    assert!(shell("unshare -U true").error_text().contains("Operation not permitted"));
    engine.finish();
}

#[test]
fn a_profile_of_the_users_own() {
    let engine = Engine::with_busybox();
    let profile = engine.host().files().join("profile.json");
    let json =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, json).unwrap();
    let option = format!("seccomp={}", profile.display());
    let output = engine.docker(["run", "--rm", "--security-opt", &option, "busybox", "mkdir", "/new"]).run();
    assert!(output.expect_code(1).error_text().contains("Operation not permitted"));
    engine.finish();
}

#[test]
fn only_the_standard_streams_are_open() {
    let engine = Engine::with_busybox();
    let list = "ls /proc/self/fd | wc -l; readlink /proc/self/cwd";
    assert_eq!(engine.docker(["run", "--rm", "busybox", "sh", "-c", list]).ok(), "4\n/");
    engine.docker(["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
    assert_eq!(engine.docker(["exec", "one", "sh", "-c", list]).ok(), "4\n/");
    for number in [3, 5, 7, 9, 11] {
        let cwd = format!("/proc/self/fd/{number}");
        let output = engine.docker(["run", "--rm", "-w", &cwd, "busybox", "pwd"]).run();
        assert!(output.code != 0 || !output.text().contains("unreachable"), "{output:?}");
    }
    engine.finish();
}

/// A file of the host's for each rule of the default AppArmor profile that keeps writers away.
const HOSTS_FILES: [&str; 8] = [
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/proc/sys/vm/swappiness",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/seccomp/actions_logged",
    "/sys/kernel/rcu_normal",
];

/// AppArmor's second fence, for real in the virtual machine of `./x vm-test`.
///
/// Fails without the default profile, and without any of its rules that has a file here.
#[test]
fn apparmor_confines_whoever_does_not_ask() {
    let engine = Engine::with_busybox();
    let has_apparmor =
        std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|value| value.starts_with(b"Y"));
    engine.docker(["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
    let shown = engine.docker(["inspect", "-f", "{{.AppArmorProfile}}", "one"]).ok();
    if !has_apparmor {
        assert_eq!(shown, "");
        let refusal = engine.docker(["run", "--rm", "--security-opt", "apparmor=x", "busybox", "true"]).fails(125);
        assert!(refusal.contains("AppArmor is not enabled on this host"), "{refusal}");
        engine.docker(["rm", "-f", "one"]).ok();
        return engine.finish();
    }
    assert_eq!(shown, "conex-default");
    let look = ["cat", "/proc/self/attr/current"];
    assert_eq!(engine.docker(["exec", "one"]).args(look).ok(), "conex-default (enforce)");
    assert_eq!(engine.docker(["exec", "--privileged", "one"]).args(look).ok(), "unconfined");
    let run = |arguments: &[&str], words: &[&str]| {
        engine.docker(["run", "--rm"]).args(arguments).arg("busybox").args(words).run()
    };
    assert_eq!(run(&["--privileged"], &look).text(), "unconfined");
    assert_eq!(run(&["--security-opt", "apparmor=unconfined"], &look).text(), "unconfined");
    // What masks and read-only mounts would keep away too is opened, so that this fence stands alone.
    let capabilities = ["--cap-add", "SYS_ADMIN", "--cap-add", "SYS_RAWIO"];
    let open = [&["--security-opt", "systempaths=unconfined", "-v", "/sys:/sys"], &capabilities[..]].concat();
    let without = [&open[..], &["--security-opt", "apparmor=unconfined"]].concat();
    let tries = format!(
        "for file in {}; do (: > $file) 2>/dev/null && echo $file; done; head -c 1 /proc/kcore >/dev/null 2>&1 && echo read; \
         mkdir /place && mount -t tmpfs x /place 2>/dev/null && echo mounted; true",
        HOSTS_FILES.join(" ")
    );
    let all = [&HOSTS_FILES[..], &["read", "mounted"]].concat().join("\n");
    assert_eq!(run(&without, &["sh", "-c", &tries]).text(), all, "nothing else keeps it away");
    let tried = run(&open, &["sh", "-c", &tries]);
    assert_eq!(tried.text(), "", "{}", tried.error_text());
    let own = "echo 63 > /proc/sys/net/ipv4/ip_default_ttl && echo 32000 > /proc/sys/kernel/shmmni && echo own";
    assert_eq!(run(&open, &["sh", "-c", own]).text(), "own");
    engine.docker(["kill", "one"]).ok();
    engine.docker(["rm", "one"]).ok();
    engine.finish();
}
