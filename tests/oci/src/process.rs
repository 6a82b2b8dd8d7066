//! `process`: who runs, with what rights and limits.

use serde_json::json;

use crate::support::Runtime;

#[test]
fn arguments_environment_and_working_directory() {
    let runtime = Runtime::new();
    let mut container = runtime.container("");
    container
        .set(
            "/process/args",
            json!(["/bin/sh", "-c", "echo \"$0|$1|$A|$B\"; pwd; env | sort | head -2", "zero", "with space"]),
        )
        .set("/process/env", json!(["PATH=/bin", "A=1=2", "B="]))
        .set("/process/cwd", "/tmp");
    assert_eq!(container.output(), "zero|with space|1=2|\n/tmp\nA=1=2\nB=");
}

#[test]
fn programs_are_searched_in_the_containers_path() {
    let runtime = Runtime::new();
    let mut container = runtime.container("");
    container.set("/process/args", json!(["mine"])).set("/process/env", json!(["PATH=/nowhere:/opt/bin:/bin"]));
    std::fs::create_dir_all(container.rootfs().join("opt/bin")).unwrap();
    std::os::unix::fs::symlink("/bin/busybox", container.rootfs().join("opt/bin/mine")).unwrap();
    // Busybox goes by its name and does not know this one.
    let output = container.run();
    assert!(
        output.error_text().contains("applet not found") || output.text().contains("applet not found"),
        "{output:?}"
    );
}

#[test]
fn identity_and_groups() {
    let runtime = Runtime::new();
    let mut container = runtime.container("id -u; id -g; id -G; umask");
    container.set("/process/user", json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 50000], "umask": 0o27 }));
    let output = container.output();
    let lines: Vec<_> = output.lines().collect();
    assert_eq!((lines[0], lines[1], lines[3]), ("1000", "1001", "0027"));
    let mut groups: Vec<u32> = lines[2].split(' ').map(|group| group.parse().unwrap()).collect();
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups, [5, 1001, 50000]);
}

fn status_fields(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn the_five_capability_sets() {
    let runtime = Runtime::new();
    let mut container = runtime.container("grep Cap /proc/self/status");
    container.set(
        "/process/capabilities",
        json!({ "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
                "effective": ["CAP_CHOWN"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] }),
    );
    container.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let fields = status_fields(&container.output());
    let bits = |key: &str| u64::from_str_radix(&fields.iter().find(|(known, _)| known == key).unwrap().1, 16).unwrap();
    let (chown, kill, net_raw) = (1 << 0, 1 << 5, 1 << 13);
    assert_eq!(bits("CapBnd"), chown | kill | net_raw);
    assert_eq!(bits("CapInh"), kill);
    assert_eq!(bits("CapAmb"), kill);
    // execve of an ordinary program by an ordinary user keeps only what is ambient.
    assert_eq!((bits("CapPrm"), bits("CapEff")), (kill, kill));
}

#[test]
fn root_has_what_the_sets_allow() {
    let runtime = Runtime::new();
    let mut container = runtime.container("grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status; chown 5 /tmp && echo chowned; mount -t tmpfs x /tmp || echo no-mount");
    let caps = json!(["CAP_CHOWN"]);
    container.set("/process/capabilities", json!({ "bounding": caps, "permitted": caps, "effective": caps }));
    let output = container.run().expect_code(0).text();
    let fields = status_fields(&output);
    assert!(fields.iter().all(|(_, value)| value == "0000000000000001"), "{output}");
    assert!(output.contains("chowned") && output.contains("no-mount"), "{output}");
}

#[test]
fn unknown_capabilities_are_ignored() {
    let runtime = Runtime::new();
    let mut container = runtime.container("echo ran");
    container.set("/process/capabilities/bounding", json!(["CAP_CHOWN", "CAP_NONSENSE"]));
    assert_eq!(container.run().expect_code(0).text(), "ran");
}

#[test]
fn no_new_privileges_and_oom_score() {
    let runtime = Runtime::new();
    for (is_set, shown) in [(true, "1"), (false, "0")] {
        let mut container =
            runtime.container("grep NoNewPrivs /proc/self/status | cut -f2; cat /proc/self/oom_score_adj");
        container.set("/process/noNewPrivileges", is_set).set("/process/oomScoreAdj", 321);
        assert_eq!(container.output(), format!("{shown}\n321"));
    }
}

#[test]
fn resource_limits() {
    let runtime = Runtime::new();
    let mut container = runtime.container("ulimit -n; ulimit -Hn; ulimit -c; ulimit -u");
    container.set(
        "/process/rlimits",
        json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_NPROC", "soft": 77, "hard": 78 },
        ]),
    );
    assert_eq!(container.output(), "100\n200\n0\n77");
    container.add("/process/rlimits", json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }));
    assert_ne!(container.run().code, 0, "a limit was given twice");
}

#[test]
fn scheduling_of_processor_and_disk() {
    let runtime = Runtime::new();
    let mut container = runtime.container("cut -d' ' -f19,41 /proc/self/stat; ionice -p 1");
    container
        .set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 7 }))
        .set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }));
    assert_eq!(container.output(), "7 3\nbest-effort: prio 6");
}

#[test]
fn a_terminal_comes_by_the_console_socket() {
    use std::io::{Read, Write};
    let runtime = Runtime::new();
    let mut container = runtime.container("test -t 0 && test -t 1 && stty size && read line && echo \"heard $line\"");
    container.set("/process/terminal", true).set("/process/consoleSize", json!({ "height": 33, "width": 99 }));
    container.write();
    let socket = container.bundle.join("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let create = runtime.command([
        "create",
        "--bundle",
        container.bundle.to_str().unwrap(),
        "--console-socket",
        socket.to_str().unwrap(),
        &container.id,
    ]);
    create.ok();
    let (stream, _) = listener.accept().unwrap();
    let (mut bytes, mut fds) = ([0; 4096], Vec::new());
    linux::scm::receive_fds(std::os::fd::AsFd::as_fd(&stream), &mut bytes, &mut fds).unwrap();
    let mut terminal = std::fs::File::from(fds.remove(0));
    container.command(&["start"]).ok();
    terminal.write_all(b"hello\n").unwrap();
    let mut shown = Vec::new();
    // The master gives EIO once the last process has closed the terminal.
    let _ = terminal.read_to_end(&mut shown);
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("33 99") && shown.contains("heard hello"), "{shown:?}");
}

#[test]
fn preserved_descriptors_reach_the_program_and_others_do_not() {
    let runtime = Runtime::new();
    let container = runtime.container("cat <&3; ls /proc/self/fd | tr '\\n' ' '");
    container.write();
    std::fs::write(container.bundle.join("three"), "third\n").unwrap();
    let call = format!(
        "exec 3< three 4< three 5< three; exec {} --root {} run --preserve-fds 1 --bundle . {}",
        runtime.program_path().display(),
        runtime.state_root().display(),
        container.id
    );
    let mut command = runtime.host.program("sh").args(["-c", &call]).into_command();
    let output = command.current_dir(&container.bundle).stdin(std::process::Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // ls has one more, for the folder itself.
    assert_eq!(text, "third\n0 1 2 3 4 ", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn personality_changes_the_machines_name() {
    let runtime = Runtime::new();
    let mut container = runtime.container("uname -m");
    container.set("/linux/personality", json!({ "domain": "LINUX32" }));
    let expected = if cfg!(target_arch = "x86_64") { "i686" } else { "armv8l" };
    assert_eq!(container.output(), expected);
}
