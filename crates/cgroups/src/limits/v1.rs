//! The files of v1.

use oci::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxThrottleDevice};

use super::{ApplyError, Write};

pub(super) const REALTIME_RUNTIME: &str = "cpu.rt_runtime_us";

/// What real-time tasks may use.
pub(super) fn realtime(cpu: &LinuxCpu) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut push =
        |field, file, value: Option<String>| writes.extend(value.map(|value| Write::new(field, file, value)));
    push("cpu.realtimePeriod", "cpu.rt_period_us", set(cpu.realtime_period).map(|period| period.to_string()));
    push("cpu.realtimeRuntime", REALTIME_RUNTIME, set(cpu.realtime_runtime).map(|runtime| runtime.to_string()));
    writes
}

pub(super) fn cpu(cpu: &LinuxCpu) -> Vec<Write> {
    let mut writes = realtime(cpu);
    let mut push =
        |field, file, value: Option<String>| writes.extend(value.map(|value| Write::new(field, file, value)));
    // Zero means "not set", as in runc: Docker and others write it for numbers that nobody gave.
    push("cpu.shares", "cpu.shares", cpu.shares.filter(|shares| *shares != 0).map(|shares| shares.to_string()));
    push("cpu.period", "cpu.cfs_period_us", set(cpu.period).map(|period| period.to_string()));
    push("cpu.quota", "cpu.cfs_quota_us", set(cpu.quota).map(|quota| quota.to_string()));
    push("cpu.burst", "cpu.cfs_burst_us", cpu.burst.map(|burst| burst.to_string()));
    push("cpu.idle", "cpu.idle", cpu.idle.map(|idle| idle.to_string()));
    writes
}

pub(super) fn memory(memory: &LinuxMemory) -> Result<Vec<Write>, ApplyError> {
    let mut writes = Vec::new();
    let mut push = |field, file, value: Option<i64>| {
        writes.extend(value.map(|value| Write::new(field, file, value.to_string())));
    };
    push("memory.limit", "memory.limit_in_bytes", set(memory.limit));
    push("memory.swap", "memory.memsw.limit_in_bytes", set(memory.swap));
    push("memory.reservation", "memory.soft_limit_in_bytes", set(memory.reservation));
    push("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", set(memory.kernel_tcp));
    if memory.limit == Some(-1) && set(memory.swap).is_none() {
        // Memory cannot have a higher limit than memory and swap together.
        writes.push(Write::new("memory.swap", "memory.memsw.limit_in_bytes", "-1".to_owned()).fine_without_file());
    }
    if let Some(swappiness) = memory.swappiness {
        writes.push(Write::new("memory.swappiness", "memory.swappiness", checked_swappiness(swappiness)?));
    }
    if let Some(disabled) = memory.disable_oom_killer {
        writes.push(Write::new("memory.disableOOMKiller", "memory.oom_control", u8::from(disabled).to_string()));
    }
    if memory.use_hierarchy == Some(true) {
        // Always on since 5.11; older kernels refuse it once there are children.
        writes.push(Write::new("memory.useHierarchy", "memory.use_hierarchy", "1".to_owned()).fine_without_file());
    }
    Ok(writes)
}

pub(super) fn block_io(block_io: &LinuxBlockIo) -> Result<Vec<Write>, ApplyError> {
    let mut writes = Vec::new();
    if let Some(weight) = set(block_io.weight) {
        let write = Write::new("blockIO.weight", "blkio.bfq.weight", weight.to_string());
        writes.push(write.or_use("blkio.weight", u64::from(weight)));
    }
    for device in &block_io.weight_device {
        if let Some(weight) = device.weight {
            let value = format!("{}:{} {weight}", device.major, device.minor);
            writes.push(Write::new("blockIO.weightDevice", "blkio.bfq.weight_device", value));
        }
    }
    let throttles: [(&str, &'static str, &[LinuxThrottleDevice]); 4] = [
        ("blockIO.throttleReadBpsDevice", "blkio.throttle.read_bps_device", &block_io.throttle_read_bps_device),
        ("blockIO.throttleWriteBpsDevice", "blkio.throttle.write_bps_device", &block_io.throttle_write_bps_device),
        ("blockIO.throttleReadIOPSDevice", "blkio.throttle.read_iops_device", &block_io.throttle_read_iops_device),
        ("blockIO.throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", &block_io.throttle_write_iops_device),
    ];
    for (field, file, devices) in throttles {
        for device in devices {
            writes.push(Write::new(field, file, format!("{}:{} {}", device.major, device.minor, device.rate)));
        }
    }
    Ok(writes)
}

/// A value that is given and not the zero that stands for "not set".
fn set<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

fn checked_swappiness(swappiness: u64) -> Result<String, ApplyError> {
    if swappiness <= 100 {
        return Ok(swappiness.to_string());
    }
    Err(ApplyError::Invalid { field: "memory.swappiness", reason: format!("{swappiness} is not between 0 and 100") })
}
