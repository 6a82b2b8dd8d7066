//! Numbers of v2's files.

use crate::directory::FileError;
use crate::oom::keyed_number;

use super::files::Files;
use super::{HugetlbStats, MemoryUse, Stats, parse};

const PAGE_SIZES_DIR: &str = "/sys/kernel/mm/hugepages";

pub(super) fn cpu(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    let cpu = &mut stats.cpu;
    for (key, value) in parse::keyed(&files.read("cpu.stat")?) {
        match key {
            "usage_usec" => cpu.usage_ns = value * 1000,
            "user_usec" => cpu.user_ns = value * 1000,
            "system_usec" => cpu.system_ns = value * 1000,
            "nr_periods" => cpu.periods = value,
            "nr_throttled" => cpu.throttled_periods = value,
            "throttled_usec" => cpu.throttled_ns = value * 1000,
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn memory(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    let memory = &mut stats.memory;
    let events = files.read_if_exists("memory.events")?.unwrap_or_default();
    memory.memory = MemoryUse { failures: keyed_number(&events, "max").unwrap_or(0), ..memory_use(files, "memory")? };
    let raw = files.read_if_exists("memory.stat")?.unwrap_or_default();
    memory.raw = parse::keyed(&raw).map(|(key, value)| (key.to_owned(), value)).collect();
    memory.oom_kills = keyed_number(&events, "oom_kill").unwrap_or(0);
    Ok(())
}

pub(super) fn swap(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    let events = files.read_if_exists("memory.swap.events")?.unwrap_or_default();
    stats.memory.swap =
        MemoryUse { failures: keyed_number(&events, "max").unwrap_or(0), ..memory_use(files, "memory.swap")? };
    Ok(())
}

pub(super) fn block_io(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    let content = files.read_if_exists("io.stat")?.unwrap_or_default();
    stats.block_io.service_bytes =
        parse::block_io_v2(&content, &[("rbytes", "read"), ("wbytes", "write"), ("dbytes", "discard")]);
    stats.block_io.serviced = parse::block_io_v2(&content, &[("rios", "read"), ("wios", "write"), ("dios", "discard")]);
    Ok(())
}

pub(super) fn hugetlb(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    for size in page_sizes() {
        if let Some(usage) = files.read_number_if_exists(&format!("hugetlb.{size}.current"))? {
            let events = files.read_if_exists(&format!("hugetlb.{size}.events"))?.unwrap_or_default();
            let failures = keyed_number(&events, "max").unwrap_or(0);
            stats.hugetlb.insert(size, HugetlbStats { usage, max_usage: 0, failures });
        }
    }
    Ok(())
}

/// The huge page sizes of this machine, in the words of the cgroup files: `2MB`, `1GB`.
pub(super) fn page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(PAGE_SIZES_DIR) else { return Vec::new() };
    let size = |name: &str| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok().map(page_size_name);
    entries.flatten().filter_map(|entry| size(entry.file_name().to_str()?)).collect()
}

fn page_size_name(kilobytes: u64) -> String {
    match kilobytes {
        0..1024 => format!("{kilobytes}KB"),
        1024..1_048_576 => format!("{}MB", kilobytes >> 10),
        _ => format!("{}GB", kilobytes >> 20),
    }
}

/// The root cgroup, and kernels before 5.19 for the peak, lack some of these.
fn memory_use(files: &mut Files, prefix: &str) -> Result<MemoryUse, FileError> {
    let mut number = |end: &str| files.read_number_if_exists(&format!("{prefix}.{end}"));
    Ok(MemoryUse {
        usage: number("current")?.unwrap_or(0),
        max_usage: number("peak")?.unwrap_or(0),
        failures: 0,
        limit: number("max")?.unwrap_or(u64::MAX),
    })
}
