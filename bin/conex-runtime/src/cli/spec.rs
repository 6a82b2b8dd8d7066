//! `spec`: writes a configuration to begin with.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::CommandError;
use super::arguments::{Arguments, UsageError};

/// `spec`.
pub(super) fn spec(mut arguments: Arguments) -> Result<ExitCode, CommandError> {
    let (mut bundle, mut rootless) = (PathBuf::from("."), false);
    while let Some(word) = arguments.next()? {
        match word.as_str() {
            "--bundle" | "-b" => bundle = arguments.value()?.into(),
            "--rootless" => rootless = arguments.switch()?,
            option if option.starts_with('-') => return Err(arguments.unknown(option).into()),
            argument => return Err(UsageError::new(format!("unexpected argument {argument:?}")).into()),
        }
    }
    let path = bundle.join("config.json");
    if path.exists() {
        return Err(CommandError::Refused("File config.json exists. Remove it first".to_owned()));
    }
    let text = serde_json::to_string_pretty(&example(rootless));
    let text = text.map_err(|source| CommandError::Json { subject: "cannot write JSON".to_owned(), source })?;
    std::fs::write(&path, text + "\n").map_err(CommandError::file(format!("cannot write {}", path.display())))?;
    Ok(ExitCode::SUCCESS)
}

/// What runc's `spec` writes.
fn example(rootless: bool) -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut example = json!({
        "ociVersion": oci::runtime::VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "conex",
        "mounts": mounts(rootless),
        "linux": {
            "namespaces": namespaces(rootless),
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    if rootless {
        let own = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
        example["linux"]["uidMappings"] = own(rustix::process::geteuid().as_raw());
        example["linux"]["gidMappings"] = own(rustix::process::getegid().as_raw());
    } else {
        example["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    }
    example
}

fn namespaces(rootless: bool) -> Value {
    let mut kinds = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    kinds.push(if rootless { "user" } else { "network" });
    kinds.into_iter().map(|kind| json!({ "type": kind })).collect()
}

fn mounts(rootless: bool) -> Value {
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if !rootless {
        // Group 5 has no number in a user namespace with one id.
        pts.push("gid=5");
    }
    let mount = |destination: &str, kind: &str, options: &[&str]| {
        let source = if kind == "tmpfs" && destination == "/dev/shm" { "shm" } else { kind };
        json!({ "destination": destination, "type": kind, "source": source, "options": options })
    };
    let sys = if rootless {
        json!({ "destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] })
    } else {
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
    };
    let mut mounts = vec![
        mount("/proc", "proc", &[]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &pts),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
    ];
    if !rootless {
        mounts.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]));
    }
    mounts.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_configuration() {
        for rootless in [false, true] {
            let spec: oci::runtime::Spec = serde_json::from_value(example(rootless)).unwrap();
            assert_eq!(spec.linux.unwrap().namespaces.len(), 6);
        }
    }
}
