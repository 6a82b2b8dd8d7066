//! `vm`: settings for runtimes that start virtual machines.

use serde::{Deserialize, Serialize};

use crate::json::null_default;

/// What is particular to virtual machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Vm {
    /// The program that runs the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<VmHypervisor>,
    /// The kernel that boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<VmKernel>,
    /// The image of the root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<VmImage>,
    /// The hardware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hw_config: Option<VmHwConfig>,
}

/// The hypervisor's program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmHypervisor {
    /// Its path on the host.
    pub path: String,
    /// Its parameters.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<String>,
}

/// The kernel of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmKernel {
    /// Its path on the host.
    pub path: String,
    /// Its parameters.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<String>,
    /// The initial RAM disk, on the host.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub initrd: String,
}

/// The image of a machine's root file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmImage {
    /// Its path on the host.
    pub path: String,
    /// `raw`, `qcow2`, `vdi`, `vmdk` or `vhd`.
    pub format: String,
}

/// The hardware of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VmHwConfig {
    /// The device tree's file on the host.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub device_tree: String,
    /// How many processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Device tree nodes to hand through.
    #[serde(default, rename = "dtdevs", deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub dt_devs: Vec<String>,
}
