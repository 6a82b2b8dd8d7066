//! The files of v2.

use oci::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxThrottleDevice};

use super::convert::{cpu_weight_of_shares, io_weight, limit_text, swap_max};
use super::{ApplyError, Write};

pub(super) fn cpu(cpu: &LinuxCpu) -> Result<Vec<Write>, ApplyError> {
    if cpu.realtime_period.is_some_and(|period| period != 0) || cpu.realtime_runtime.is_some_and(|runtime| runtime != 0)
    {
        let reason = "cgroup v2 has no limits for real-time tasks";
        return Err(ApplyError::Unsupported { field: "cpu.realtimeRuntime", reason });
    }
    let mut writes = Vec::new();
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        writes.push(Write::new("cpu.shares", "cpu.weight", cpu_weight_of_shares(shares).to_string()));
    }
    if let Some(value) = cpu_max(cpu) {
        writes.push(Write::new("cpu.quota", "cpu.max", value));
    }
    if let Some(burst) = cpu.burst {
        writes.push(Write::new("cpu.burst", "cpu.max.burst", burst.to_string()));
    }
    if let Some(idle) = cpu.idle {
        writes.push(Write::new("cpu.idle", "cpu.idle", idle.to_string()));
    }
    Ok(writes)
}

/// `quota period`; the kernel keeps the period when only the quota is written. A period alone means no quota, as in runc.
fn cpu_max(cpu: &LinuxCpu) -> Option<String> {
    let quota = cpu.quota.and_then(limit_text);
    match (quota, cpu.period.filter(|period| *period != 0)) {
        (None, None) => None,
        (Some(quota), None) => Some(quota),
        (quota, Some(period)) => Some(format!("{} {period}", quota.as_deref().unwrap_or("max"))),
    }
}

pub(super) fn memory(memory: &LinuxMemory) -> Result<Vec<Write>, ApplyError> {
    let mut writes = Vec::new();
    if let Some(swap) = swap_max(memory.limit, memory.swap)? {
        let value = if swap < 0 { "max".to_owned() } else { swap.to_string() };
        // Without swap accounting there is nothing that would have to be forbidden or allowed.
        let is_needless = swap <= 0;
        let write = Write::new("memory.swap", "memory.swap.max", value);
        writes.push(if is_needless { write.fine_without_file() } else { write });
    }
    let mut push =
        |field, file, value: Option<String>| writes.extend(value.map(|value| Write::new(field, file, value)));
    push("memory.limit", "memory.max", memory.limit.and_then(limit_text));
    push("memory.reservation", "memory.low", memory.reservation.and_then(limit_text));
    Ok(writes)
}

pub(super) fn block_io(block_io: &LinuxBlockIo) -> Result<Vec<Write>, ApplyError> {
    let mut writes = Vec::new();
    if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
        // BFQ takes the weight as it is; the cost model behind `io.weight` has another scale.
        let write = Write::new("blockIO.weight", "io.bfq.weight", weight.to_string());
        writes.push(write.or_use("io.weight", io_weight(weight)));
    }
    for device in &block_io.weight_device {
        if let Some(weight) = device.weight {
            let value = format!("{}:{} {weight}", device.major, device.minor);
            writes.push(Write::new("blockIO.weightDevice", "io.bfq.weight", value));
        }
    }
    let throttles: [(&'static str, &str, &[LinuxThrottleDevice]); 4] = [
        ("blockIO.throttleReadBpsDevice", "rbps", &block_io.throttle_read_bps_device),
        ("blockIO.throttleWriteBpsDevice", "wbps", &block_io.throttle_write_bps_device),
        ("blockIO.throttleReadIOPSDevice", "riops", &block_io.throttle_read_iops_device),
        ("blockIO.throttleWriteIOPSDevice", "wiops", &block_io.throttle_write_iops_device),
    ];
    for (field, key, devices) in throttles {
        for device in devices {
            writes.push(Write::new(field, "io.max", throttle(device, key)));
        }
    }
    Ok(writes)
}

/// `8:0 rbps=1048576`; v1 lifts a limit by zero, v2 by `max`.
fn throttle(device: &LinuxThrottleDevice, key: &str) -> String {
    let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
    format!("{}:{} {key}={rate}", device.major, device.minor)
}
