//! Every field of the specification keeps its name and its value.

use serde_json::{Value, json};

use super::{ContainerProcessState, Features, Spec, State};

/// A configuration with every field of specification 1.3.
fn everything() -> Value {
    let hook = json!([{ "path": "/h", "args": ["h"], "env": ["A=b"], "timeout": 5 }]);
    let mapping = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
    let throttle = json!([{ "major": 8, "minor": 0, "rate": 600 }]);
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": true,
            "consoleSize": { "height": 24, "width": 80 },
            "user": { "uid": 1, "gid": 2, "umask": 18, "additionalGids": [3], "username": "u" },
            "args": ["a"], "env": ["E=f"], "cwd": "/",
            "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"],
                              "permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 2, "soft": 1 }],
            "noNewPrivileges": true,
            "apparmorProfile": "p",
            "oomScoreAdj": 0,
            "scheduler": { "policy": "SCHED_DEADLINE", "nice": 1, "priority": 2, "flags": ["SCHED_FLAG_RESET_ON_FORK"],
                           "runtime": 3, "deadline": 4, "period": 5 },
            "selinuxLabel": "l",
            "ioPriority": { "class": "IOPRIO_CLASS_IDLE", "priority": 4 },
            "execCPUAffinity": { "initial": "0-1", "final": "2" },
        },
        "root": { "path": "r", "readonly": true },
        "hostname": "h", "domainname": "d",
        "mounts": [{ "destination": "/m", "type": "bind", "source": "/s", "options": ["ro"], "uidMappings": mapping, "gidMappings": mapping }],
        "hooks": { "prestart": hook, "createRuntime": hook, "createContainer": hook, "startContainer": hook, "poststart": hook, "poststop": hook },
        "annotations": { "k": "v" },
        "linux": {
            "uidMappings": mapping, "gidMappings": mapping,
            "sysctl": { "net.core.somaxconn": "1" },
            "resources": {
                "devices": [{ "allow": false }, { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" }],
                "memory": { "limit": 1, "reservation": 2, "swap": 3, "kernel": 4, "kernelTCP": 5, "swappiness": 0,
                            "disableOOMKiller": false, "useHierarchy": true, "checkBeforeUpdate": true },
                "cpu": { "shares": 1, "quota": -1, "burst": 2, "period": 3, "realtimeRuntime": 4, "realtimePeriod": 5,
                         "cpus": "0", "mems": "0", "idle": 1 },
                "pids": { "limit": 0 },
                "blockIO": { "weight": 10, "leafWeight": 20,
                             "weightDevice": [{ "major": 8, "minor": 0, "weight": 500, "leafWeight": 300 }],
                             "throttleReadBpsDevice": throttle, "throttleWriteBpsDevice": throttle,
                             "throttleReadIOPSDevice": throttle, "throttleWriteIOPSDevice": throttle },
                "hugepageLimits": [{ "pageSize": "2MB", "limit": 7 }],
                "network": { "classID": 8, "priorities": [{ "name": "eth0", "priority": 9 }] },
                "rdma": { "mlx5_1": { "hcaHandles": 3, "hcaObjects": 4 } },
                "unified": { "cpu.max": "max" },
            },
            "cgroupsPath": "/c",
            "namespaces": [{ "type": "pid" }, { "type": "network", "path": "/n" }, { "type": "mount" }, { "type": "ipc" },
                           { "type": "uts" }, { "type": "user" }, { "type": "cgroup" }, { "type": "time" }],
            "devices": [{ "path": "/dev/x", "type": "c", "major": 1, "minor": 2, "fileMode": 438, "uid": 0, "gid": 0 }],
            "netDevices": { "eth1": { "name": "eth0" }, "eth2": {} },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_SHEB"],
                "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                          "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                "listenerPath": "/l", "listenerMetadata": "m",
                "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_TRACE", "errnoRet": 5,
                               "args": [{ "index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ" }] }],
            },
            "rootfsPropagation": "unbindable",
            "maskedPaths": ["/m"], "readonlyPaths": ["/r"], "mountLabel": "l",
            "intelRdt": { "closID": "c", "schemata": ["s"], "l3CacheSchema": "l", "memBwSchema": "b",
                          "enableMonitoring": true, "enableCMT": true, "enableMBM": true },
            "memoryPolicy": { "mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"] },
            "personality": { "domain": "LINUX32", "flags": ["reserved"] },
            "timeOffsets": { "boottime": { "secs": -5, "nanosecs": 6 } },
        },
        "vm": {
            "hypervisor": { "path": "/h", "parameters": ["p"] },
            "kernel": { "path": "/k", "parameters": ["p"], "initrd": "/i" },
            "image": { "path": "/i", "format": "raw" },
            "hwConfig": { "deviceTree": "/t", "vcpus": 2, "memory": 1024, "dtdevs": ["d"] },
        },
    })
}

#[test]
fn no_field_is_lost_or_renamed() {
    let spec: Spec = serde_json::from_value(everything()).unwrap();
    assert_eq!(serde_json::to_value(&spec).unwrap(), everything());
    assert_eq!(serde_json::from_value::<Spec>(everything()).unwrap(), spec);
}

#[test]
fn absent_null_and_empty_are_the_same_for_lists() {
    let check = |text: &str| serde_json::from_str::<Spec>(text).unwrap();
    let plain = check(r#"{"ociVersion":"1.0.0","process":{"cwd":"/"},"linux":{}}"#);
    let nulls = check(
        r#"{"ociVersion":"1.0.0","process":{"cwd":"/","args":null,"env":null,"user":null,"capabilities":null,"rlimits":null,"terminal":null},
            "root":null,"mounts":null,"hooks":null,"annotations":null,"hostname":null,
            "linux":{"namespaces":null,"devices":null,"resources":null,"seccomp":null,"sysctl":null,"rootfsPropagation":null,"maskedPaths":[]}}"#,
    );
    assert_eq!(plain, nulls);
    assert_eq!(check(r#"{"linux":{"rootfsPropagation":""}}"#).linux.unwrap().rootfs_propagation, None);
}

#[test]
fn unknown_fields_are_ignored_and_unknown_words_are_not() {
    assert!(serde_json::from_str::<Spec>(r#"{"ociVersion":"1.9.0","future":{"x":[1]},"linux":{"other":1}}"#).is_ok());
    for wrong in [
        r#"{"linux":{"namespaces":[{"type":"nonsense"}]}}"#,
        r#"{"process":{"rlimits":[{"type":"RLIMIT_NONSENSE","soft":1,"hard":1}]}}"#,
        r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_NONSENSE"}}}"#,
        r#"{"linux":{"rootfsPropagation":"nonsense"}}"#,
        r#"{"linux":{"devices":[{"path":"/x","type":"q"}]}}"#,
        r#"{"process":{"user":{"uid":-1}}}"#,
    ] {
        assert!(serde_json::from_str::<Spec>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn state_and_features_keep_their_names() {
    let state = json!({ "ociVersion": "1.0.2", "id": "c", "status": "running", "pid": 4422, "bundle": "/b", "annotations": { "k": "v" } });
    assert_eq!(serde_json::to_value(serde_json::from_value::<State>(state.clone()).unwrap()).unwrap(), state);
    let process = json!({ "ociVersion": "1.0.2", "fds": ["seccompFd"], "pid": 4422, "metadata": "m", "state": state });
    assert_eq!(
        serde_json::to_value(serde_json::from_value::<ContainerProcessState>(process.clone()).unwrap()).unwrap(),
        process
    );
    let features = json!({
        "ociVersionMin": "1.0.0", "ociVersionMax": "1.3.0", "hooks": ["prestart"], "mountOptions": ["bind"],
        "linux": {
            "namespaces": ["pid"], "capabilities": ["CAP_KILL"],
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true },
            "seccomp": { "enabled": true, "actions": ["SCMP_ACT_LOG"], "operators": ["SCMP_CMP_EQ"], "archs": ["SCMP_ARCH_X86"],
                         "knownFlags": ["SECCOMP_FILTER_FLAG_LOG"], "supportedFlags": ["SECCOMP_FILTER_FLAG_LOG"] },
            "apparmor": { "enabled": true }, "selinux": { "enabled": false },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
            "memoryPolicy": { "modes": ["MPOL_BIND"], "flags": ["MPOL_F_STATIC_NODES"] },
        },
        "annotations": { "a": "b" }, "potentiallyUnsafeConfigAnnotations": ["x"],
    });
    assert_eq!(serde_json::to_value(serde_json::from_value::<Features>(features.clone()).unwrap()).unwrap(), features);
}
