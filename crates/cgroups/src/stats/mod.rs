//! Numbers about a cgroup.
//!
//! The types hold what both versions know, in one unit each (bytes, nanoseconds); the kernel's own `memory.stat` comes along
//! unchanged, because its keys differ and users look for them.

mod files;
mod parse;
mod v1;
mod v2;

use std::collections::BTreeMap;

use crate::controller::{Controller, Version};
use crate::directory::FileError;
use crate::group::Cgroup;

use files::Files;

/// Everything that is known about a cgroup at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block devices.
    pub block_io: BlockIoStats,
    /// Huge pages, by page size (`2MB`).
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// RDMA devices, by name.
    pub rdma: BTreeMap<String, RdmaEntry>,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuStats {
    /// In all.
    pub usage_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// In all, for each processor; empty in v2, which does not count it.
    pub per_cpu_ns: Vec<u64>,
    /// In user mode, for each processor; empty in v2.
    pub per_cpu_user_ns: Vec<u64>,
    /// In the kernel, for each processor; empty in v2.
    pub per_cpu_system_ns: Vec<u64>,
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// How long the cgroup had to wait for its quota.
    pub throttled_ns: u64,
    /// How long tasks waited for processors.
    pub pressure: Option<Pressure>,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryStats {
    /// Memory alone.
    pub memory: MemoryUse,
    /// v1: memory and swap together. v2: swap alone.
    pub swap: MemoryUse,
    /// Kernel memory (v1).
    pub kernel: MemoryUse,
    /// Kernel memory of TCP buffers (v1).
    pub kernel_tcp: MemoryUse,
    /// The kernel's `memory.stat`, with its own keys.
    pub raw: BTreeMap<String, u64>,
    /// How many processes were killed for lack of memory.
    pub oom_kills: u64,
    /// How long tasks waited for memory.
    pub pressure: Option<Pressure>,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// In use now.
    pub usage: u64,
    /// The most that was ever in use; zero where the kernel does not say.
    pub max_usage: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// The limit; `u64::MAX` for none.
    pub limit: u64,
}

/// Tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be; `None` without a limit.
    pub limit: Option<u64>,
}

/// Block devices; the lists that v2 and today's v1 no longer have are gone from here too.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockIoStats {
    /// Bytes, by device and operation.
    pub service_bytes: Vec<BlockIoEntry>,
    /// Operations, by device and operation.
    pub serviced: Vec<BlockIoEntry>,
    /// How long tasks waited for I/O.
    pub pressure: Option<Pressure>,
}

/// One number about one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIoEntry {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`.
    pub operation: String,
    /// The number.
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// In use now.
    pub usage: u64,
    /// The most that was ever in use; zero in v2.
    pub max_usage: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// One RDMA device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RdmaEntry {
    /// Handles in use.
    pub hca_handles: u64,
    /// Objects in use.
    pub hca_objects: u64,
}

/// Pressure stall information.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Time in which some tasks waited.
    pub some: PressureLine,
    /// Time in which all tasks waited.
    pub full: PressureLine,
}

/// Shares of time, in percent, and the sum.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureLine {
    /// Of the last ten seconds.
    pub avg10: f64,
    /// Of the last minute.
    pub avg60: f64,
    /// Of the last five minutes.
    pub avg300: f64,
    /// Microseconds in all.
    pub total_us: u64,
}

/// Which numbers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// All that the kernel counts.
    Everything,
    /// What an engine shows of a container: processor, memory, tasks, block devices, pressure.
    Usage,
}

/// Reads a cgroup's numbers again and again; its files are opened once, at their first use.
#[derive(Debug)]
pub struct StatsReader {
    sources: Vec<(Read, Files)>,
    pressure: Option<Files>,
}

impl Cgroup {
    /// Reads all numbers once; those of missing controllers are zero.
    pub fn stats(&self) -> Result<Stats, FileError> {
        self.stats_reader(Interest::Everything)?.read()
    }

    /// For reading numbers again and again.
    pub fn stats_reader(&self, interest: Interest) -> Result<StatsReader, FileError> {
        let mut sources = Vec::new();
        for source in &SOURCES {
            let Some(group) = self.group_for(source.controller) else { continue };
            let read = match group.version {
                Version::V1 => source.v1,
                Version::V2 => source.v2,
            };
            if let Some(read) = read
                && (source.interest == Interest::Usage || interest == Interest::Everything)
            {
                sources.push((read, Files::of(&group.directory)?));
            }
        }
        let pressure = self.v2_group().map(|group| Files::of(&group.directory)).transpose()?;
        Ok(StatsReader { sources, pressure })
    }
}

impl StatsReader {
    /// Reads the numbers; those of missing controllers are zero.
    pub fn read(&mut self) -> Result<Stats, FileError> {
        let mut stats = Stats::default();
        for (read, files) in &mut self.sources {
            read(files, &mut stats)?;
        }
        if let Some(files) = &mut self.pressure {
            read_pressure(files, &mut stats)?;
        }
        Ok(stats)
    }
}

/// Pressure is v2's even where the controllers are v1's.
fn read_pressure(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    for (file, place) in [
        ("cpu.pressure", &mut stats.cpu.pressure),
        ("memory.pressure", &mut stats.memory.pressure),
        ("io.pressure", &mut stats.block_io.pressure),
    ] {
        *place = match files.read_if_exists(file) {
            Ok(content) => content.as_deref().map(parse::pressure),
            // Some kernels refuse the reading, not the opening, when booted with psi=0.
            Err(error) if error.errno() == Some(rustix::io::Errno::OPNOTSUPP) => None,
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

type Read = fn(&mut Files, &mut Stats) -> Result<(), FileError>;

/// Where numbers come from.
struct Source {
    controller: Controller,
    interest: Interest,
    v1: Option<Read>,
    v2: Option<Read>,
}

/// What is read for each controller, in v1 and in v2; v2 has throttling in the file of the times.
const SOURCES: [Source; 9] = [
    usage(Controller::Cpuacct, v1::cpu_time, Some(v2::cpu)),
    usage(Controller::Cpu, v1::throttling, None),
    usage(Controller::Memory, v1::memory, Some(v2::memory)),
    usage(Controller::Pids, pids, Some(pids)),
    usage(Controller::Io, v1::block_io, Some(v2::block_io)),
    detail(Controller::Cpuacct, v1::cpu_modes, None),
    detail(Controller::Memory, v1::memory_kinds, Some(v2::swap)),
    detail(Controller::Hugetlb, v1::hugetlb, Some(v2::hugetlb)),
    detail(Controller::Rdma, rdma, Some(rdma)),
];

const fn usage(controller: Controller, v1: Read, v2: Option<Read>) -> Source {
    Source { controller, interest: Interest::Usage, v1: Some(v1), v2 }
}

const fn detail(controller: Controller, v1: Read, v2: Option<Read>) -> Source {
    Source { controller, interest: Interest::Everything, v1: Some(v1), v2 }
}

fn pids(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    stats.pids.current = files.read_number_if_exists("pids.current")?.unwrap_or(0);
    stats.pids.limit = files.read_number_if_exists("pids.max")?.filter(|limit| *limit != u64::MAX);
    Ok(())
}

fn rdma(files: &mut Files, stats: &mut Stats) -> Result<(), FileError> {
    stats.rdma = parse::rdma(&files.read_if_exists("rdma.current")?.unwrap_or_default());
    Ok(())
}
