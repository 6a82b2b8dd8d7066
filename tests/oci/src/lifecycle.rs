//! Create, start, state, kill, delete, and what is refused when.

use serde_json::json;

use crate::support::{Runtime, eventually};

#[test]
fn a_container_goes_through_its_states() {
    let runtime = Runtime::new();
    let mut container = runtime.container("exec sleep 100");
    container.set("/annotations", json!({ "com.example.key": "value" }));
    container.create();
    let state = container.state().unwrap();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], container.id.as_str());
    assert_eq!(state["bundle"], container.bundle.to_str().unwrap());
    assert_eq!(state["annotations"]["com.example.key"], "value");
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    let pid = state["pid"].as_i64().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    container.command(&["start"]).ok();
    assert_eq!(container.status(), "running");
    assert_eq!(container.pid(), pid, "the process that was created is the one that runs");
    container.command_then(&["kill"], &["KILL"]).ok();
    container.wait_for("stopped");
    container.command(&["delete"]).ok();
    assert_eq!(container.status(), "gone");
}

#[test]
fn the_program_does_not_run_before_start() {
    let runtime = Runtime::new();
    let mut container = runtime.container("echo done > /file");
    container.set("/root/readonly", false);
    container.create();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!container.rootfs().join("file").exists());
    container.command(&["start"]).ok();
    container.wait_for("stopped");
    assert!(container.rootfs().join("file").exists());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let runtime = Runtime::new();
    let container = runtime.container("exec sleep 100");
    for command in [&["state"][..], &["start"], &["delete"], &["pause"], &["kill"]] {
        assert_ne!(container.command(command).run().code, 0, "{command:?} of a container that is not there");
    }
    container.create();
    let second = runtime.command(["create", "--bundle", container.bundle.to_str().unwrap(), &container.id]).run();
    assert_ne!(second.code, 0, "an id was used twice");
    container.command(&["start"]).ok();
    assert_ne!(container.command(&["start"]).run().code, 0, "it was started twice");
    assert_ne!(container.command(&["delete"]).run().code, 0, "it was deleted while it ran");
    assert_eq!(container.status(), "running", "a refused command changed something");
    container.command_then(&["kill"], &["9"]).ok();
    container.wait_for("stopped");
    assert_ne!(container.command(&["start"]).run().code, 0, "a stopped container was started");
    assert_ne!(container.command_then(&["kill"], &["9"]).run().code, 0, "a stopped container was killed");
}

#[test]
fn a_created_container_can_be_killed_and_deleted() {
    let runtime = Runtime::new();
    let container = runtime.container("exec sleep 100");
    container.create();
    container.command_then(&["kill"], &["KILL"]).ok();
    container.wait_for("stopped");
    container.command(&["delete"]).ok();
    let container = runtime.container("exec sleep 100");
    container.start();
    container.command(&["delete", "--force"]).ok();
    assert_eq!(container.status(), "gone");
    // Force is content with nothing to do.
    container.command(&["delete", "--force"]).ok();
}

#[test]
fn run_gives_the_exit_code() {
    let runtime = Runtime::new();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        // The first process of a pid namespace gets only signals that it handles: a child has to send and die.
        let script = if script.starts_with("kill") { format!("sh -c '{script}'; exit $?") } else { script.to_owned() };
        assert_eq!(runtime.container(&script).run().code, code, "{script}");
    }
}

#[test]
fn kill_takes_names_and_numbers() {
    let runtime = Runtime::new();
    for signal in ["TERM", "SIGTERM", "15", "term"] {
        let container = runtime.container("trap 'echo got; exit 0' TERM; echo ready; while :; do sleep 0.05; done");
        container.start();
        eventually("the trap is set", || container.written().contains("ready"));
        container.command_then(&["kill"], &[signal]).ok();
        container.wait_for("stopped");
        assert!(container.written().contains("got"), "{signal}");
    }
    let container = runtime.container("exec sleep 100");
    container.start();
    assert_ne!(container.command_then(&["kill"], &["NONSENSE"]).run().code, 0);
    assert_eq!(container.status(), "running");
}

#[test]
fn kill_all_reaches_every_process() {
    let runtime = Runtime::new();
    let mut container = runtime.container("sleep 1000 & sleep 1000 & wait");
    // Without a pid namespace of its own nobody dies with the first process.
    container.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    container.start();
    eventually("all are there", || container.cgroup_file(&["cgroup.procs"]).lines().count() == 3);
    container.command_then(&["kill", "--all"], &["KILL"]).ok();
    container.wait_for("stopped");
    eventually("all are gone", || container.cgroup_file(&["cgroup.procs"]).is_empty());
}

#[test]
fn the_pid_file_holds_the_pid_and_detached_containers_go_on() {
    let runtime = Runtime::new();
    let container = runtime.container("exec sleep 100");
    container.write();
    let pid_file = container.bundle.join("pid");
    let mut command = runtime
        .command([
            "run",
            "--detach",
            "--bundle",
            container.bundle.to_str().unwrap(),
            "--pid-file",
            pid_file.to_str().unwrap(),
            &container.id,
        ])
        .into_command();
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    assert!(command.status().unwrap().success());
    assert_eq!(container.status(), "running");
    assert_eq!(std::fs::read_to_string(pid_file).unwrap(), container.pid().to_string());
}

#[test]
fn a_failed_create_leaves_nothing() {
    let runtime = Runtime::new();
    for (what, pointer, value) in [
        ("no program", "/process/args", json!(["/nope"])),
        ("no root", "/root/path", json!("nowhere")),
        ("no such mount", "/mounts", json!([{ "destination": "/x", "type": "nonsense", "source": "none" }])),
        ("relative cwd", "/process/cwd", json!("relative")),
        ("no args", "/process/args", json!([])),
    ] {
        let mut container = runtime.container("true");
        container.set(pointer, value);
        let output = container.run();
        assert_ne!(output.code, 0, "{what}");
        assert!(!output.stderr.is_empty(), "{what}: no word about it");
        assert_eq!(container.status(), "gone", "{what}");
        let cgroup = container.spec["linux"]["cgroupsPath"].as_str().unwrap().to_owned();
        let left = std::fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .flatten()
            .any(|entry| entry.path().join(&cgroup[1..]).exists());
        assert!(!left, "{what}: a cgroup is left");
    }
}

#[test]
fn bad_bundles_and_ids_are_refused() {
    let runtime = Runtime::new();
    let container = runtime.container("true");
    container.write();
    for id in ["", "a/b", "..", "a b", "a\u{e4}"] {
        assert_ne!(
            runtime.command(["run", "--bundle", container.bundle.to_str().unwrap(), id]).run().code,
            0,
            "{id:?}"
        );
    }
    std::fs::write(container.bundle.join("config.json"), "{").unwrap();
    assert_ne!(
        runtime.command(["create", "--bundle", container.bundle.to_str().unwrap(), &container.id]).run().code,
        0
    );
    std::fs::remove_file(container.bundle.join("config.json")).unwrap();
    assert_ne!(
        runtime.command(["create", "--bundle", container.bundle.to_str().unwrap(), &container.id]).run().code,
        0
    );
    assert_ne!(runtime.command(["create", "--bundle", "/nowhere", &container.id]).run().code, 0);
}
