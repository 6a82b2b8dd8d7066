//! The OCI runtime specification 1.3: `config.json`, `state.json` and `features`.
//!
//! Names are the specification's. A list that is absent, `null` or empty is an empty `Vec`; a number whose zero means something
//! else than its absence is an `Option`. Unknown fields are ignored, as the specification demands; unknown words where it lists
//! the allowed ones are errors.
//!
//! | file | part of config.json |
//! |---|---|
//! | `spec.rs` | the top: root, mounts, hooks, annotations |
//! | `process.rs` | `process` |
//! | `linux.rs` | `linux` without what the next two hold |
//! | `resources.rs` | `linux.resources` |
//! | `seccomp.rs` | `linux.seccomp` |
//! | `vm.rs` | `vm` |
//! | `state.rs`, `features.rs` | what a runtime says about containers and itself |

mod features;
mod linux;
mod process;
mod resources;
mod seccomp;
mod spec;
mod state;
mod vm;

pub use features::{
    ApparmorFeature, CgroupFeature, Features, IdmapFeature, IntelRdtFeature, LinuxFeatures, MemoryPolicyFeature,
    MountExtensionsFeature, NetDevicesFeature, SeccompFeature, SelinuxFeature,
};
pub use linux::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxIntelRdt, LinuxMemoryPolicy, LinuxNamespace,
    LinuxNamespaceType, LinuxNetDevice, LinuxPersonality, LinuxPersonalityDomain, LinuxTimeOffset, MemoryPolicyFlag,
    MemoryPolicyMode, RootfsPropagation,
};
pub use process::{
    ConsoleSize, ExecCpuAffinity, IoPriority, IoPriorityClass, LinuxCapabilities, PosixRlimit, Process, RlimitType,
    Scheduler, SchedulerFlag, SchedulerPolicy, User,
};
pub use resources::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceCgroupType, LinuxHugepageLimit, LinuxInterfacePriority,
    LinuxMemory, LinuxNetwork, LinuxPids, LinuxRdma, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice,
};
pub use seccomp::{Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction, SeccompFlag, SeccompOperator};
pub use spec::{Hook, Hooks, Mount, Root, Spec};
pub use state::{ContainerProcessState, State, Status};
pub use vm::{Vm, VmHwConfig, VmHypervisor, VmImage, VmKernel};

/// The version of the specification that these types follow.
pub const VERSION: &str = "1.3.0";

#[cfg(test)]
mod tests;
