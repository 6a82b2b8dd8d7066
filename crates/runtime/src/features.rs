//! What this runtime can do, in the specification's form.

use std::collections::BTreeMap;

use oci::runtime::{
    ApparmorFeature, CgroupFeature, Features, IdmapFeature, IntelRdtFeature, LinuxFeatures, MemoryPolicyFeature,
    MountExtensionsFeature, NetDevicesFeature, SeccompFeature, SelinuxFeature,
};

use crate::capability_names::capability_names;
use crate::hooks::POINT_NAMES;
use crate::mount_options::mount_option_names;

/// The abilities of this runtime (not of this host).
pub fn features() -> Features {
    Features {
        oci_version_min: "1.0.0".to_owned(),
        oci_version_max: oci::runtime::VERSION.to_owned(),
        hooks: owned(&POINT_NAMES),
        mount_options: owned(&mount_option_names()),
        linux: Some(linux_features()),
        annotations: BTreeMap::from([("io.conex.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        // What follows is a property of systemd's, and some of those run programs.
        potentially_unsafe_config_annotations: owned(&["org.systemd.property."]),
    }
}

fn linux_features() -> LinuxFeatures {
    LinuxFeatures {
        namespaces: owned(&["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]),
        capabilities: owned(capability_names()),
        cgroup: Some(CgroupFeature {
            v1: Some(true),
            v2: Some(true),
            systemd: Some(true),
            systemd_user: Some(true),
            rdma: Some(true),
        }),
        seccomp: Some(seccomp_features()),
        apparmor: Some(ApparmorFeature { enabled: Some(true) }),
        selinux: Some(SelinuxFeature { enabled: Some(true) }),
        intel_rdt: Some(IntelRdtFeature { enabled: Some(true), schemata: Some(true), monitoring: Some(true) }),
        mount_extensions: Some(MountExtensionsFeature { idmap: Some(IdmapFeature { enabled: Some(true) }) }),
        net_devices: Some(NetDevicesFeature { enabled: Some(true) }),
        memory_policy: Some(MemoryPolicyFeature {
            modes: owned(&[
                "MPOL_BIND",
                "MPOL_DEFAULT",
                "MPOL_INTERLEAVE",
                "MPOL_LOCAL",
                "MPOL_PREFERRED",
                "MPOL_PREFERRED_MANY",
                "MPOL_WEIGHTED_INTERLEAVE",
            ]),
            flags: owned(&["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]),
        }),
    }
}

fn seccomp_features() -> SeccompFeature {
    let flags = [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    SeccompFeature {
        enabled: Some(true),
        actions: owned(&[
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_KILL",
            "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG",
            "SCMP_ACT_NOTIFY",
            "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP",
        ]),
        operators: owned(&[
            "SCMP_CMP_EQ",
            "SCMP_CMP_GE",
            "SCMP_CMP_GT",
            "SCMP_CMP_LE",
            "SCMP_CMP_LT",
            "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE",
        ]),
        archs: architecture_names(),
        known_flags: owned(&flags),
        supported_flags: owned(&flags),
    }
}

/// All architectures whose calls can be filtered, by the specification's names.
fn architecture_names() -> Vec<String> {
    let name = |arch| serde_json::to_value(arch).ok()?.as_str().map(str::to_owned);
    let mut names: Vec<String> = seccomp::architectures().filter_map(name).collect();
    names.sort_unstable();
    names
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
