//! A container's numbers, in the shape that Docker's `stats` needs.

use serde::{Deserialize, Serialize};

use crate::message::UnixNanos;

/// What a container uses, now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// When it was read.
    pub read_at: UnixNanos,
    /// Which kind of cgroup the numbers come from.
    pub cgroup: CgroupVersion,
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Disks.
    pub block_io: BlockIoStats,
    /// Interfaces of the container's network namespace.
    pub networks: Vec<NetworkStats>,
    /// Lines of its output that could not be kept since it started.
    #[serde(default)]
    pub log_dropped_lines: u64,
    /// How long its tasks have waited.
    #[serde(default)]
    pub pressure: Pressures,
}

/// How long tasks have waited, by what for; `None` where the kernel does not count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressures {
    /// For a processor.
    pub cpu: Option<Pressure>,
    /// For memory.
    pub memory: Option<Pressure>,
    /// For disks.
    pub io: Option<Pressure>,
}

/// Times of waiting, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// In which some tasks waited.
    pub some_us: u64,
    /// In which all of them did.
    pub full_us: u64,
}

/// Which kind of cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupVersion {
    /// Version 1, or the hybrid layout.
    V1,
    /// Version 2.
    V2,
}

/// Processor time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStats {
    /// All of it, in nanoseconds.
    pub total_ns: u64,
    /// In user mode, in nanoseconds.
    pub user_ns: u64,
    /// In the kernel, in nanoseconds.
    pub system_ns: u64,
    /// Per processor, in nanoseconds; cgroup v1 only.
    #[serde(default)]
    pub per_cpu_ns: Vec<u64>,
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// Periods in which it was used up.
    pub throttled_periods: u64,
    /// Time spent waiting for the next period, in nanoseconds.
    pub throttled_ns: u64,
}

/// Memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// In use, page cache included, in bytes.
    pub usage_bytes: u64,
    /// The most there has been, in bytes; 0 where the kernel does not tell.
    pub max_usage_bytes: u64,
    /// The limit in bytes; `None` for none.
    pub limit_bytes: Option<u64>,
    /// How often the limit was hit.
    pub failures: u64,
    /// How many processes the kernel has killed for want of memory.
    #[serde(default)]
    pub oom_kills: u64,
    /// The lines of `memory.stat`.
    pub details: Vec<(String, u64)>,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// The limit; `None` for none.
    pub limit: Option<u64>,
}

/// Disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockIoStats {
    /// Bytes.
    pub service_bytes: Vec<BlockIoEntry>,
    /// Requests.
    pub serviced: Vec<BlockIoEntry>,
}

/// One operation on one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockIoEntry {
    /// The disk.
    pub major: u64,
    /// The disk.
    pub minor: u64,
    /// The operation as the kernel calls it.
    pub operation: String,
    /// How much.
    pub value: u64,
}

/// One network interface, as in `/proc/<pid>/net/dev`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStats {
    /// Its name inside the container.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Packets dropped on receipt.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// Packets dropped when sending.
    pub tx_dropped: u64,
}
