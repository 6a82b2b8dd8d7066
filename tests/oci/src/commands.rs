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

#[test]
fn readiness_reaches_the_service_manager() {
    let runtime = Runtime::new();
    let container = runtime.container("echo $NOTIFY_SOCKET; ls /run/notify; exec sleep 100");
    container.write();
    let address = runtime.host.files().join("manager.sock");
    let manager = std::os::unix::net::UnixDatagram::bind(&address).unwrap();
    let call = |arguments: &[&str]| {
        let program = runtime.command(arguments.iter().copied()).env("NOTIFY_SOCKET", &address);
        let mut command = program.into_command();
        let file = std::fs::OpenOptions::new().append(true).create(true).open(container.bundle.join("stderr")).unwrap();
        command.stdin(std::process::Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        command
    };
    let bundle = container.bundle.to_str().unwrap();
    assert!(call(&["create", "--bundle", bundle, &container.id]).status().unwrap().success());
    // It returns once the container is ready.
    let mut start = call(&["start", &container.id]).spawn().unwrap();
    eventually("the socket's name is told", || container.written().contains("notify.sock\nnotify.sock"));
    let inside = std::os::unix::net::UnixDatagram::unbound().unwrap();
    inside.connect(runtime.state_root().join(&container.id).join("notify/notify.sock")).unwrap();
    inside.send(b"STATUS=nearly").unwrap();
    inside.send(b"READY=1\nSTATUS=up").unwrap();
    let receive = || {
        let (mut bytes, mut fds) = ([0; 1024], Vec::new());
        let count = linux::scm::receive_fds(std::os::fd::AsFd::as_fd(&manager), &mut bytes, &mut fds).unwrap();
        (String::from_utf8_lossy(&bytes[..count]).trim().to_owned(), fds)
    };
    assert_eq!(receive().0, "READY=1");
    assert_eq!(receive().0, format!("MAINPID={}", container.pid()));
    let (word, fds) = receive();
    assert_eq!((word.as_str(), fds.len()), ("BARRIER=1", 1));
    assert!(start.try_wait().unwrap().is_none(), "it did not wait until the manager has heard");
    drop(fds);
    assert!(start.wait().unwrap().success());
}

#[test]
fn features_name_what_makes_annotations_powerful() {
    let runtime = Runtime::new();
    let features: Features = serde_json::from_str(&runtime.command(["features"]).ok()).unwrap();
    assert!(features.potentially_unsafe_config_annotations.iter().any(|name| name == "org.systemd.property."));
    let archs = features.linux.unwrap().seccomp.unwrap().archs;
    for arch in ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64", "SCMP_ARCH_S390X", "SCMP_ARCH_PPC64LE"] {
        assert!(archs.iter().any(|known| known == arch), "{arch}");
    }
}
