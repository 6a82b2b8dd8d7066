//! Containers to test with: busybox's shell, in all namespaces.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use oci::runtime::{Process, Spec};
use serde_json::json;

/// A root with busybox in it.
pub(crate) fn make_root(root: &Path) {
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "cat", "echo", "sleep", "stty", "yes", "head", "seq", "dd", "kill", "true", "false", "trap", "ls", "wc",
        "id",
    ] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

/// A shell that runs `script`.
pub(crate) fn shell_process(script: &str) -> Process {
    serde_json::from_value(json!({
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin", "TERM=xterm"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0}
    }))
    .unwrap()
}

/// A container whose first process is [`shell_process`].
pub(crate) fn shell(script: &str, id: &str) -> Spec {
    let namespace = |kind: &str| json!({"type": kind});
    let namespaces: Vec<_> = ["pid", "mount", "uts", "ipc", "network"].map(namespace).into();
    serde_json::from_value(json!({
        "ociVersion": "1.2.0",
        "process": shell_process(script),
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}
        ],
        "linux": {"namespaces": namespaces, "cgroupsPath": format!("/{id}")}
    }))
    .unwrap()
}
