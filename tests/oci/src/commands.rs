//! The commands around the specification that every engine calls.

use oci::runtime::{Features, Spec};
use serde_json::Value;

use crate::support::{Runtime, eventually};

#[test]
fn pause_and_resume() {
    let runtime = Runtime::new();
    let container = runtime.container("i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done");
    container.start();
    container.command(&["pause"]).ok();
    assert_eq!(container.status(), "paused");
    let before = container.written().len();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(container.written().len(), before);
    assert_ne!(container.command(&["delete"]).run().code, 0, "a paused container was deleted");
    container.command(&["resume"]).ok();
    assert_eq!(container.status(), "running");
    eventually("it goes on", || container.written().len() > before);
    assert_ne!(container.command(&["resume"]).run().code, 0, "a running container was resumed");
}

#[test]
fn ps_lists_the_processes() {
    let runtime = Runtime::new();
    let container = runtime.container("sleep 100 & exec sleep 100");
    container.start();
    let pids = || -> Vec<i64> { serde_json::from_str(&container.command(&["ps", "--format", "json"]).ok()).unwrap() };
    eventually("both are there", || pids().len() == 2);
    assert!(pids().contains(&container.pid()));
    let table = container.command(&["ps"]).ok();
    assert!(table.lines().next().unwrap().contains("PID") && table.lines().count() == 3, "{table}");
}

#[test]
fn list_shows_the_containers() {
    let runtime = Runtime::new();
    let first = runtime.container("exec sleep 100");
    let second = runtime.container("exec sleep 100");
    first.start();
    second.create();
    let list: Vec<Value> = serde_json::from_str(&runtime.command(["list", "--format", "json"]).ok()).unwrap();
    let mut shown: Vec<_> =
        list.iter().map(|entry| (entry["id"].as_str().unwrap(), entry["status"].as_str().unwrap())).collect();
    shown.sort_unstable();
    assert_eq!(shown, [(first.id.as_str(), "running"), (second.id.as_str(), "created")]);
    let quiet = runtime.command(["list", "--quiet"]).ok();
    assert_eq!(quiet.lines().count(), 2);
}

#[test]
fn events_tell_the_numbers() {
    let runtime = Runtime::new();
    let container = runtime.container("while :; do :; done");
    container.start();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let event: Value = serde_json::from_str(&container.command(&["events", "--stats"]).ok()).unwrap();
    assert_eq!(event["type"], "stats");
    assert_eq!(event["id"], container.id.as_str());
    let usage = |event: &Value| event["data"]["cpu"]["usage"]["total"].as_u64().unwrap();
    assert!(usage(&event) > 0, "{event}");
    assert!(event["data"]["pids"]["current"].as_u64().unwrap() >= 1);
    assert!(event["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{event}");
}

#[test]
fn features_are_the_specifications() {
    let runtime = Runtime::new();
    let features: Features = serde_json::from_str(&runtime.command(["features"]).ok()).unwrap();
    assert!(features.oci_version_min.starts_with("1.0") && features.oci_version_max.starts_with("1."));
    let linux = features.linux.unwrap();
    for namespace in ["pid", "network", "mount", "ipc", "uts", "user", "cgroup"] {
        assert!(linux.namespaces.iter().any(|known| known == namespace), "{namespace}");
    }
    assert!(linux.capabilities.iter().any(|known| known == "CAP_CHOWN"));
    let seccomp = linux.seccomp.unwrap();
    assert_eq!(seccomp.enabled, Some(true));
    assert!(seccomp.actions.iter().any(|known| known == "SCMP_ACT_NOTIFY"));
    assert!(features.mount_options.iter().any(|known| known == "rbind"));
}

#[test]
fn spec_writes_a_configuration_that_runs() {
    let runtime = Runtime::new();
    let mut container = runtime.container("true");
    runtime.command(["spec", "--bundle", container.bundle.to_str().unwrap()]).ok();
    let written = std::fs::read_to_string(container.bundle.join("config.json")).unwrap();
    let spec: Spec = serde_json::from_str(&written).unwrap();
    assert_eq!(spec.process.as_ref().unwrap().args, ["sh"]);
    let again = runtime.command(["spec", "--bundle", container.bundle.to_str().unwrap()]).run();
    assert_ne!(again.code, 0, "a configuration was overwritten");
    let mut value: Value = serde_json::from_str(&written).unwrap();
    value["process"]["terminal"] = false.into();
    value["process"]["args"] = serde_json::json!(["/bin/echo", "spoken"]);
    value["linux"]["cgroupsPath"] = container.spec["linux"]["cgroupsPath"].clone();
    container.spec = value;
    assert_eq!(container.output(), "spoken");
}

#[test]
fn errors_go_to_the_log_as_json() {
    let runtime = Runtime::new();
    let log = runtime.host.files().join("log.json");
    let output = runtime.command(["--log", log.to_str().unwrap(), "--log-format", "json", "start", "nobody"]).run();
    assert_ne!(output.code, 0);
    let text = std::fs::read_to_string(log).unwrap();
    let entry: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(entry["level"], "error");
    assert!(entry["msg"].as_str().unwrap().contains("does not exist") && entry["time"].is_string(), "{entry}");
}

#[test]
fn options_stand_before_and_after_the_id() {
    let runtime = Runtime::new();
    let container = runtime.container("echo ran");
    container.write();
    let bundle = container.bundle.to_str().unwrap();
    for arguments in
        [["run", "--bundle", bundle, container.id.as_str()], ["run", container.id.as_str(), "--bundle", bundle]]
    {
        assert_eq!(runtime.command(arguments).ok(), "ran", "{arguments:?}");
    }
    let version = runtime.command(["--version"]).ok();
    assert!(version.contains("spec: 1."), "{version}");
    assert_ne!(runtime.command(["nonsense"]).run().code, 0);
}
