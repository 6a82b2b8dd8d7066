//! Hooks of all kinds, in their order and places.

use serde_json::{Value, json};

use crate::harness::Bundle;

fn hook(script: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}

#[test]
fn they_run_in_order_with_the_state() {
    let bundle = Bundle::new();
    let log = bundle.folder.path().join("log");
    let log = log.display();
    let write = |name: &str| hook(&format!("grep -q '\"status\":\"creating\"' && echo {name} >> {log}"));
    let bundle = bundle.edit(|spec| {
        spec["hooks"] = json!({
            "prestart": hook(&format!("grep -q '\"status\":\"created\"' && echo prestart >> {log}")),
            "createRuntime": write("createRuntime"),
            "createContainer": write("createContainer"),
            "startContainer": hook("grep -q '\"status\":\"created\"' && echo startContainer > /tmp/log"),
        });
    });
    let path = bundle.folder.path().join("log");
    let root = bundle.root();
    let mut bundle = bundle;
    bundle.run().unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "prestart\ncreateRuntime\ncreateContainer\n");
    assert_eq!(std::fs::read_to_string(root.join("tmp/log")).unwrap(), "startContainer\n");
}

#[test]
fn create_container_is_in_the_containers_namespaces_and_prestart_is_not() {
    let bundle = Bundle::new();
    let folder = bundle.folder.path().to_owned();
    let link = |name: &str| hook(&format!("readlink /proc/self/ns/uts > {}/{name}", folder.display()));
    let mut bundle =
        bundle.edit(|spec| spec["hooks"] = json!({ "prestart": link("outside"), "createContainer": link("inside") }));
    bundle.run().unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let own = std::fs::read_link("/proc/self/ns/uts").unwrap();
    assert_eq!(read("outside").trim(), own.to_str().unwrap());
    assert_ne!(read("inside"), read("outside"));
}

#[test]
fn a_failure_ends_the_creation() {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let error =
            Bundle::new().edit(|spec| spec["hooks"] = json!({ kind: hook("echo reason; exit 3") })).refused_as_is();
        assert!(error.message.starts_with(&format!("error running {kind} hook #0")), "{}", error.message);
        assert!(error.message.contains("reason"), "{}", error.message);
    }
}
