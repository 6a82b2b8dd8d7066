//! Numbers of v1's files.

use crate::directory::FileError;
use crate::oom::keyed_number;

use super::files::Files;
use super::{MemoryUse, Stats, parse};

pub(super) fn cpu_time(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    let cpu = &mut stats.cpu;
    cpu.usage_ns = files.read_number("cpuacct.usage")?;
    cpu.per_cpu_ns = parse::numbers(&files.read("cpuacct.usage_percpu")?);
    cpu.user_ns = files.read_number_if_exists("cpuacct.usage_user")?.unwrap_or(0);
    cpu.system_ns = files.read_number_if_exists("cpuacct.usage_sys")?.unwrap_or(0);
    Ok(())
}

pub(super) fn cpu_modes(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    let cpu = &mut stats.cpu;
    cpu.per_cpu_user_ns = parse::numbers(&files.read_if_exists("cpuacct.usage_percpu_user")?.unwrap_or_default());
    cpu.per_cpu_system_ns = parse::numbers(&files.read_if_exists("cpuacct.usage_percpu_sys")?.unwrap_or_default());
    Ok(())
}

pub(super) fn throttling(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    for (key, value) in parse::keyed(&files.read("cpu.stat")?) {
        match key {
            "nr_periods" => stats.cpu.periods = value,
            "nr_throttled" => stats.cpu.throttled_periods = value,
            "throttled_time" => stats.cpu.throttled_ns = value,
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn memory(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    let memory = &mut stats.memory;
    memory.memory = memory_use(files, "memory")?;
    memory.raw = parse::keyed(&files.read("memory.stat")?).map(|(key, value)| (key.to_owned(), value)).collect();
    memory.oom_kills = keyed_number(&files.read("memory.oom_control")?, "oom_kill").unwrap_or(0);
    Ok(())
}

pub(super) fn memory_kinds(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    let memory = &mut stats.memory;
    memory.swap = memory_use(files, "memory.memsw")?;
    memory.kernel = memory_use(files, "memory.kmem")?;
    memory.kernel_tcp = memory_use(files, "memory.kmem.tcp")?;
    Ok(())
}

pub(super) fn block_io(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    // BFQ counts only what it scheduled, the throttle layer everything: the second is right for more machines.
    let mut read = |file| files.read_if_exists(file).map(|content| parse::block_io_v1(&content.unwrap_or_default()));
    stats.block_io.service_bytes = read("blkio.throttle.io_service_bytes_recursive")?;
    stats.block_io.serviced = read("blkio.throttle.io_serviced_recursive")?;
    Ok(())
}

pub(super) fn hugetlb(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    for size in super::v2::page_sizes() {
        let mut number = |end: &str| files.read_number_if_exists(&format!("hugetlb.{size}.{end}"));
        if let Some(usage) = number("usage_in_bytes")? {
            let max_usage = number("max_usage_in_bytes")?.unwrap_or(0);
            let failures = number("failcnt")?.unwrap_or(0);
            stats.hugetlb.insert(size, super::HugetlbStats { usage, max_usage, failures });
        }
    }
    Ok(())
}

fn memory_use(files: &mut Files, prefix: &str) -> Result<MemoryUse, FileError> {
    let mut number = |end: &str| files.read_number_if_exists(&format!("{prefix}.{end}")).map(Option::unwrap_or_default);
    Ok(MemoryUse {
        usage: number("usage_in_bytes")?,
        max_usage: number("max_usage_in_bytes")?,
        failures: number("failcnt")?,
        limit: unlimited_v1(number("limit_in_bytes")?),
    })
}

/// v1 shows "no limit" as the largest multiple of the page size.
fn unlimited_v1(limit: u64) -> u64 {
    const NEARLY_MAX: u64 = i64::MAX as u64 - 0xffff;
    if limit >= NEARLY_MAX { u64::MAX } else { limit }
}
