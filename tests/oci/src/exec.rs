//! `exec`: more processes in a running container.

use serde_json::json;

use crate::support::{Container, Runtime, eventually};

fn sleeper(runtime: &Runtime) -> Container<'_> {
    let mut container = runtime.container("exec sleep 1000");
    container.set("/process/env", json!(["PATH=/bin", "FROM=container"]));
    container.start();
    container
}

#[test]
fn a_process_joins_the_container() {
    let runtime = Runtime::new();
    let container = sleeper(&runtime);
    let exec = |script: &str| container.command_then(&["exec"], &["/bin/sh", "-c", script]);
    assert_eq!(exec("hostname; echo $FROM; pwd").ok(), "conformance\ncontainer\n/");
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let inside = exec(&format!("readlink /proc/self/ns/{kind}")).ok();
        assert_eq!(inside, exec(&format!("readlink /proc/1/ns/{kind}")).ok(), "{kind}");
    }
    assert_eq!(exec("exit 9").run().code, 9);
    assert_eq!(exec("grep CapBnd /proc/self/status").ok(), exec("grep CapBnd /proc/1/status").ok());
    // It is in the container's cgroups.
    let pid = exec("exec sh -c 'cut -d\" \" -f1 /proc/self/stat'").ok();
    assert!(pid.parse::<u32>().unwrap() > 1);
}

#[test]
fn input_and_output_are_the_callers() {
    let runtime = Runtime::new();
    let container = sleeper(&runtime);
    let output =
        container.command_then(&["exec"], &["/bin/sh", "-c", "cat; echo err >&2"]).input("in").run().expect_code(0);
    assert_eq!((output.text(), output.error_text()), ("in".to_owned(), "err".to_owned()));
}

#[test]
fn options_change_the_process() {
    let runtime = Runtime::new();
    let container = sleeper(&runtime);
    let exec = |options: &[&str], script: &str| {
        let options: Vec<_> = std::iter::once("exec").chain(options.iter().copied()).collect();
        container.command_then(&options, &["/bin/sh", "-c", script])
    };
    assert_eq!(exec(&["--user", "1000:1001"], "id -u; id -g").ok(), "1000\n1001");
    assert_eq!(exec(&["--cwd", "/tmp"], "pwd").ok(), "/tmp");
    assert_eq!(exec(&["--env", "A=b", "--env", "C=d"], "echo $A$C").ok(), "bd");
    let groups = exec(&["--user", "1000:1000", "--additional-gids", "77"], "id -G").ok();
    assert!(groups.split(' ').any(|group| group == "77"), "{groups}");
    assert_eq!(exec(&["--no-new-privs"], "grep NoNewPrivs /proc/self/status | cut -f2").ok(), "1");
}

#[test]
fn a_process_comes_from_a_file() {
    let runtime = Runtime::new();
    let container = sleeper(&runtime);
    let path = container.bundle.join("process.json");
    let process = json!({ "user": { "uid": 5, "gid": 6 }, "args": ["/bin/sh", "-c", "id -u; id -g; echo $X; pwd"],
                          "env": ["PATH=/bin", "X=y"], "cwd": "/etc" });
    std::fs::write(&path, process.to_string()).unwrap();
    assert_eq!(container.command(&["exec", "--process", path.to_str().unwrap()]).ok(), "5\n6\ny\n/etc");
}

#[test]
fn what_cannot_run_is_told() {
    let runtime = Runtime::new();
    let container = sleeper(&runtime);
    let missing = container.command_then(&["exec"], &["/nope"]).run();
    assert!(missing.code != 0 && missing.error_text().contains("no such file or directory"), "{missing:?}");
    let searched = container.command_then(&["exec"], &["nope"]).run();
    assert!(searched.code != 0 && searched.error_text().contains("executable file not found in $PATH"), "{searched:?}");
    let forbidden = container.command_then(&["exec"], &["/etc/passwd"]).run();
    assert!(forbidden.code != 0 && forbidden.error_text().contains("permission denied"), "{forbidden:?}");
    container.command_then(&["kill"], &["KILL"]).ok();
    container.wait_for("stopped");
    assert_ne!(container.command_then(&["exec"], &["/bin/true"]).run().code, 0, "a stopped container ran something");
}

#[test]
fn a_detached_process_goes_on() {
    let runtime = Runtime::new();
    let container = sleeper(&runtime);
    let pid_file = container.bundle.join("exec-pid");
    let mut command = container
        .command_then(&["exec", "--detach", "--pid-file", pid_file.to_str().unwrap()], &["/bin/sleep", "100"])
        .into_command();
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    assert!(command.status().unwrap().success());
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let name = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim().to_owned();
    eventually("the program runs", || name() == "sleep");
}

#[test]
fn a_process_enters_a_cgroup_below() {
    let runtime = Runtime::new();
    let container = sleeper(&runtime);
    let on_v2 = !std::path::Path::new("/sys/fs/cgroup/pids").exists();
    let path = container.spec["linux"]["cgroupsPath"].as_str().unwrap().to_owned();
    let folder = if on_v2 { "/sys/fs/cgroup".to_owned() } else { "/sys/fs/cgroup/pids".to_owned() } + &path + "/sub";
    std::fs::create_dir(&folder).unwrap();
    let argument = if on_v2 { "sub" } else { "pids:/sub" };
    let exec = |cgroup: &str| container.command_then(&["exec", "--cgroup", cgroup], &["/bin/cat", "/proc/self/cgroup"]);
    let shown = exec(argument).ok();
    assert!(shown.lines().any(|line| line.ends_with("/sub")), "{shown}");
    assert!(!shown.lines().all(|line| line.ends_with("/sub")) || on_v2, "only the named controller: {shown}");
    for wrong in ["nowhere", "../..", "pids:/sub/..", "nonsense:/sub"] {
        assert_ne!(exec(wrong).run().code, 0, "{wrong}");
    }
    std::fs::remove_dir(folder).unwrap();
}

#[test]
fn processors_and_personality_are_those_asked_for() {
    let runtime = Runtime::new();
    let mut container = runtime.container("exec sleep 1000");
    container.set("/linux/personality", json!({ "domain": "LINUX32" }));
    container.set("/process/execCPUAffinity", json!({ "initial": "0", "final": "0" }));
    container.start();
    let script = "uname -m; grep Cpus_allowed_list /proc/self/status | cut -f2";
    let output = container.command_then(&["exec"], &["/bin/sh", "-c", script]).ok();
    let machine = if cfg!(target_arch = "x86_64") { "i686" } else { "armv8l" };
    assert_eq!(output, format!("{machine}\n0"));
}

#[test]
fn a_filter_that_asks_has_its_listener_for_each_process() {
    let runtime = Runtime::new();
    let mut container = runtime.container("exec sleep 1000");
    let socket = container.bundle.join("agent.sock");
    let agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    container.set(
        "/linux/seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "listenerMetadata": "meta",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }),
    );
    container.start();
    container.command_then(&["exec"], &["/bin/true"]).ok();
    for status in ["creating", "running"] {
        let (stream, _) = agent.accept().unwrap();
        let (mut bytes, mut fds) = (vec![0; 65536], Vec::new());
        let count = linux::scm::receive_fds(std::os::fd::AsFd::as_fd(&stream), &mut bytes, &mut fds).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&bytes[..count]).unwrap();
        assert_eq!((fds.len(), &state["metadata"], &state["fds"]), (1, &json!("meta"), &json!(["seccompFd"])));
        assert_eq!(state["state"]["id"], container.id.as_str());
        // The container's own process is created or about to be, which runtimes call differently.
        assert!(status == "creating" || state["state"]["status"] == status, "{state}");
    }
}
