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
