//! Logs and statistics.

use bytes::Bytes;
use jiff::Timestamp;
use oci::ContainerId;

/// `GET /containers/{id}/logs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Standard output's lines.
    pub stdout: bool,
    /// Standard error's lines.
    pub stderr: bool,
    /// Stay for what is still to come.
    pub follow: bool,
    /// Only lines at or after.
    pub since: Option<Timestamp>,
    /// Only lines before.
    pub until: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last so many lines; none is all.
    pub tail: Option<u64>,
    /// Put the log options' extra attributes before each line.
    pub details: bool,
}

/// One log line, ready to frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Which stream it came from.
    pub stream: OutputStream,
    /// The line with its newline (and time and details where asked for).
    pub payload: Bytes,
}

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// 1
    Stdout,
    /// 2
    Stderr,
}

/// How a container's lines fare on their way to a sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogForwarding {
    /// Lines that the sink has taken.
    pub sent: u64,
    /// Lines that it never will: rotated away first, or too large for it.
    pub dropped: u64,
    /// Lines that were not even written here: the disk was full, or the buffer of the non-blocking mode.
    pub unwritten: u64,
    /// How often files may have been rotated away that nobody could count: while no engine ran, or faster than it looked.
    pub gaps: u64,
    /// What is wrong now; none when nothing is.
    pub error: Option<String>,
}

/// Raw numbers of one container at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatsSample {
    /// The container.
    pub id: Option<ContainerId>,
    /// Its name, without a slash.
    pub name: String,
    /// When; none for a container that does not run.
    pub read: Option<Timestamp>,
    /// CPU time used, in nanoseconds.
    pub cpu_total_ns: u64,
    /// Of that in the kernel.
    pub cpu_kernel_ns: u64,
    /// Of that in user space.
    pub cpu_user_ns: u64,
    /// Per CPU (cgroup v1 only).
    pub cpu_per_cpu_ns: Vec<u64>,
    /// CPU time of the whole host, in nanoseconds.
    pub system_cpu_ns: u64,
    /// CPUs online.
    pub online_cpus: u32,
    /// Scheduling periods.
    pub throttle_periods: u64,
    /// Throttled periods.
    pub throttled_periods: u64,
    /// Throttled time in nanoseconds.
    pub throttled_ns: u64,
    /// Memory in use, caches included.
    pub memory_usage_bytes: u64,
    /// The most that was in use (cgroup v1 only).
    pub memory_max_bytes: Option<u64>,
    /// How often the limit was hit (cgroup v1 only).
    pub memory_failures: Option<u64>,
    /// The limit; the host's memory when unlimited.
    pub memory_limit_bytes: u64,
    /// `memory.stat`, key by key.
    pub memory_details: Vec<(String, u64)>,
    /// Processes and threads.
    pub pids_current: u64,
    /// Their limit; none is unlimited.
    pub pids_limit: Option<u64>,
    /// Bytes by device and operation.
    pub io_bytes: Vec<IoSample>,
    /// Operations by device and operation.
    pub io_operations: Vec<IoSample>,
    /// Network interfaces inside the container.
    pub networks: Vec<NetworkSample>,
    /// Lines of its output that could not be kept since it started.
    pub log_dropped_lines: u64,
    /// How many of its processes the kernel has killed for want of memory.
    pub oom_kills: u64,
    /// How long its tasks have waited for a processor.
    pub cpu_pressure: Option<PressureSample>,
    /// How long its tasks have waited for memory.
    pub memory_pressure: Option<PressureSample>,
    /// How long its tasks have waited for disks.
    pub io_pressure: Option<PressureSample>,
}

/// Times of waiting since the container started, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PressureSample {
    /// In which some tasks waited.
    pub some_us: u64,
    /// In which all of them did.
    pub full_us: u64,
}

/// One device's counter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoSample {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// `read`, `write`, …
    pub operation: String,
    /// The count.
    pub value: u64,
}

/// One interface's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSample {
    /// `eth0`
    pub interface: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Errors on reception.
    pub rx_errors: u64,
    /// Packets dropped on reception.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Errors on sending.
    pub tx_errors: u64,
    /// Packets dropped on sending.
    pub tx_dropped: u64,
}
