//! Programs at the six points of a container's life.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::{Container, Runtime, eventually};

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A script on the host that appends its first argument and the state's status to a log.
fn recorder(container: &Container<'_>) -> (String, std::path::PathBuf) {
    let (script, log) = (container.bundle.join("record"), container.bundle.join("log"));
    let text = format!(
        "#!/bin/sh\nstatus=$(sed 's/.*\"status\": *\"\\([a-z]*\\)\".*/\\1/')\necho \"$1 $status $EXTRA\" >> {}\n",
        log.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    (script.to_str().unwrap().to_owned(), log)
}

fn hook(script: &str, kind: &str) -> Value {
    json!({ "path": script, "args": ["record", kind], "env": ["PATH=/bin:/usr/bin", format!("EXTRA={kind}-env")] })
}

#[test]
fn hooks_run_in_order_with_the_state() {
    let runtime = Runtime::new();
    let mut container = runtime.container("exec sleep 100");
    let (script, log) = recorder(&container);
    for kind in KINDS.iter().filter(|kind| **kind != "startContainer") {
        container.set(&format!("/hooks/{kind}"), json!([hook(&script, kind)]));
    }
    // This one runs in the container, where the host's files are not.
    container.set(
        "/hooks/startContainer",
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", "cat > /started"], "env": ["PATH=/bin"] }]),
    );
    let read =
        || -> Vec<String> { std::fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect() };
    let kinds = || -> Vec<String> { read().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect() };
    container.create();
    assert_eq!(kinds(), ["prestart", "createRuntime", "createContainer"]);
    assert!(!container.rootfs().join("started").exists());
    container.command(&["start"]).ok();
    eventually("poststart ran", || kinds().len() == 4);
    assert_eq!(kinds()[3], "poststart");
    eventually("startContainer ran", || container.rootfs().join("started").exists());
    let state: Value =
        serde_json::from_str(&std::fs::read_to_string(container.rootfs().join("started")).unwrap()).unwrap();
    assert_eq!(state["id"], container.id.as_str());
    container.command_then(&["kill"], &["KILL"]).ok();
    container.wait_for("stopped");
    container.command(&["delete"]).ok();
    assert_eq!(kinds(), ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
    let lines = read();
    assert!(lines[0].ends_with("prestart-env") && lines[4].contains("stopped"), "{lines:?}");
}

#[test]
fn a_failing_hook_ends_the_container() {
    let runtime = Runtime::new();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut container = runtime.container("true");
        container.set(&format!("/hooks/{kind}"), json!([{ "path": "/bin/false" }]));
        assert_ne!(container.run().code, 0, "{kind}");
        assert_eq!(container.status(), "gone", "{kind}");
    }
}

#[test]
fn a_hook_that_takes_too_long_is_ended() {
    let runtime = Runtime::new();
    let mut container = runtime.container("true");
    container.set("/hooks/createRuntime", json!([{ "path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1 }]));
    let started = std::time::Instant::now();
    assert_ne!(container.run().code, 0);
    assert!(started.elapsed() < std::time::Duration::from_secs(30));
}

#[test]
fn a_failing_poststop_is_not_the_containers_failure() {
    let runtime = Runtime::new();
    let mut container = runtime.container("echo ran");
    container.set("/hooks/poststop", json!([{ "path": "/bin/false" }]));
    assert_eq!(container.run().expect_code(0).text(), "ran");
}
