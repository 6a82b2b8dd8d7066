//! Limits and device rules.

use std::collections::BTreeMap;

use oci::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceCgroupType, LinuxDeviceType, LinuxMemory, LinuxPids,
    LinuxResources, LinuxThrottleDevice, LinuxWeightDevice,
};

use super::{SpecHost, defaults};
use crate::model::{BlkioRate, ContainerSpec, DeviceRule, Resources};

/// Major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceNumber {
    pub(crate) major: i64,
    pub(crate) minor: i64,
}

/// A device node of the host, looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvedDevice {
    /// Where it goes in the container.
    pub(crate) path: String,
    pub(crate) kind: LinuxDeviceType,
    pub(crate) number: DeviceNumber,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Of `rwm`.
    pub(crate) permissions: String,
}

/// Numbers of the block devices that blkio limits name, by path.
pub(crate) type BlockDevices = BTreeMap<String, DeviceNumber>;

/// The CFS period that `--cpus` is made of.
const NANO_CPUS_PERIOD_US: u64 = 100_000;

/// The limits of a container that starts.
pub(crate) fn linux_resources(
    spec: &ContainerSpec,
    devices: &[ResolvedDevice],
    blocks: &BlockDevices,
    host: &SpecHost,
) -> LinuxResources {
    LinuxResources { devices: device_rules(spec, devices), ..limits(&spec.resources, blocks, host) }
}

/// The limits of a container that runs already: everything but devices.
pub(crate) fn update_resources(resources: &Resources, host: &SpecHost) -> LinuxResources {
    limits(resources, &BlockDevices::new(), host)
}

fn limits(resources: &Resources, blocks: &BlockDevices, host: &SpecHost) -> LinuxResources {
    LinuxResources {
        memory: memory(resources, host),
        cpu: cpu(resources),
        pids: resources.pids_limit.map(|limit| LinuxPids { limit: Some(limit) }),
        block_io: block_io(resources, blocks),
        ..LinuxResources::default()
    }
}

fn memory(resources: &Resources, host: &SpecHost) -> Option<LinuxMemory> {
    let memory = LinuxMemory {
        limit: nonzero(resources.memory_bytes),
        reservation: nonzero(resources.memory_reservation_bytes),
        swap: nonzero(resources.memory_swap_bytes).filter(|_| host.swap_limit),
        kernel_tcp: nonzero(resources.kernel_memory_tcp_bytes),
        swappiness: resources.memory_swappiness.map(u64::from),
        disable_oom_killer: resources.oom_kill_disable.filter(|disable| *disable),
        ..LinuxMemory::default()
    };
    (memory != LinuxMemory::default()).then_some(memory)
}

fn cpu(resources: &Resources) -> Option<LinuxCpu> {
    let mut cpu = LinuxCpu {
        shares: positive(resources.cpu_shares),
        period: positive(resources.cpu_period_us),
        quota: nonzero(resources.cpu_quota_us),
        realtime_period: positive(resources.cpu_realtime_period_us),
        realtime_runtime: nonzero(resources.cpu_realtime_runtime_us),
        cpus: resources.cpuset_cpus.clone(),
        mems: resources.cpuset_mems.clone(),
        ..LinuxCpu::default()
    };
    if resources.nano_cpus > 0 {
        cpu.period = Some(NANO_CPUS_PERIOD_US);
        // At most 2^63 / 10^4: cannot overflow after the division.
        cpu.quota = Some(resources.nano_cpus / (1_000_000_000 / NANO_CPUS_PERIOD_US as i64));
    }
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn block_io(resources: &Resources, blocks: &BlockDevices) -> Option<LinuxBlockIo> {
    let rates = |list: &[BlkioRate]| -> Vec<LinuxThrottleDevice> {
        let known = list.iter().filter_map(|entry| blocks.get(&entry.path).map(|number| (entry, number)));
        known.map(|(entry, n)| LinuxThrottleDevice { major: n.major, minor: n.minor, rate: entry.rate }).collect()
    };
    let weights = resources.blkio_weight_device.iter().filter_map(|entry| {
        let number = blocks.get(&entry.path)?;
        Some(LinuxWeightDevice {
            major: number.major,
            minor: number.minor,
            weight: Some(entry.weight),
            leaf_weight: None,
        })
    });
    let block_io = LinuxBlockIo {
        weight: (resources.blkio_weight != 0).then_some(resources.blkio_weight),
        weight_device: weights.collect(),
        throttle_read_bps_device: rates(&resources.blkio_read_bps),
        throttle_write_bps_device: rates(&resources.blkio_write_bps),
        throttle_read_iops_device: rates(&resources.blkio_read_iops),
        throttle_write_iops_device: rates(&resources.blkio_write_iops),
        ..LinuxBlockIo::default()
    };
    (block_io != LinuxBlockIo::default()).then_some(block_io)
}

fn nonzero(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}

fn positive(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| *value != 0)
}

/// Nothing, then what every container may use, then what was asked for. A privileged container may use everything.
fn device_rules(spec: &ContainerSpec, devices: &[ResolvedDevice]) -> Vec<LinuxDeviceCgroup> {
    if spec.privileged {
        return vec![rule(LinuxDeviceCgroupType::All, None, None, "rwm")];
    }
    let mut rules = vec![LinuxDeviceCgroup { allow: false, access: "rwm".into(), ..LinuxDeviceCgroup::default() }];
    // Making any node is harmless: opening it is what counts.
    rules.push(rule(LinuxDeviceCgroupType::Character, None, None, "m"));
    rules.push(rule(LinuxDeviceCgroupType::Block, None, None, "m"));
    let defaults = defaults::DEVICE_RULES.iter();
    rules.extend(defaults.map(|(major, minor)| rule(LinuxDeviceCgroupType::Character, Some(*major), *minor, "rwm")));
    rules.extend(devices.iter().map(|device| {
        let kind = match device.kind {
            LinuxDeviceType::Block => LinuxDeviceCgroupType::Block,
            LinuxDeviceType::Character | LinuxDeviceType::Fifo => LinuxDeviceCgroupType::Character,
        };
        rule(kind, Some(device.number.major), Some(device.number.minor), &device.permissions)
    }));
    rules.extend(spec.resources.device_cgroup_rules.iter().map(user_rule));
    rules
}

fn rule(kind: LinuxDeviceCgroupType, major: Option<i64>, minor: Option<i64>, access: &str) -> LinuxDeviceCgroup {
    LinuxDeviceCgroup { allow: true, kind, major, minor, access: access.into() }
}

fn user_rule(given: &DeviceRule) -> LinuxDeviceCgroup {
    let kind = match given.kind {
        'b' => LinuxDeviceCgroupType::Block,
        'c' => LinuxDeviceCgroupType::Character,
        _ => LinuxDeviceCgroupType::All,
    };
    rule(kind, given.major, given.minor, &given.permissions)
}
