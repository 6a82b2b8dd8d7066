//! A container's numbers as the daemon gets them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use cgroups::{BlockIoEntry, Cgroup, FileError, Interest, StatsReader, Version};
use monitor_protocol::Failure;
use monitor_protocol::stats::{self as wire, CgroupVersion, NetworkStats};

use crate::{clock, failure};

/// More than the list of a hundred interfaces.
const NETWORKS_BYTES: usize = 16 * 1024;

/// Reads a container's numbers; what it reads stays open.
#[derive(Debug)]
pub(super) struct Reader {
    cgroup: StatsReader,
    version: CgroupVersion,
    /// The interfaces of its network namespace; none without a process to find them by.
    networks: Option<File>,
}

impl Reader {
    /// For the container in this cgroup whose first process is `pid`.
    fn open(cgroup: &Cgroup, pid: i32) -> Result<Reader, FileError> {
        Ok(Reader {
            cgroup: cgroup.stats_reader(Interest::Usage)?,
            version: version(cgroup),
            networks: File::open(format!("/proc/{pid}/net/dev")).ok(),
        })
    }

    /// Reads what the cgroup and the network namespace have counted.
    fn read(&mut self) -> Result<wire::Stats, FileError> {
        let counted = self.cgroup.read()?;
        let networks = self.networks.as_ref().map(read_networks).unwrap_or_default();
        Ok(of(counted, self.version, networks))
    }
}

/// Opens a reader, in the words of the monitor's failures.
pub(super) fn open(cgroup: &Cgroup, pid: i32) -> Result<Reader, Failure> {
    Reader::open(cgroup, pid).map_err(|error| failure::other("stats", &error))
}

/// Reads once more, in the words of the monitor's failures.
pub(super) fn read(reader: &mut Reader) -> Result<wire::Stats, Failure> {
    reader.read().map_err(|error| failure::other("stats", &error))
}

fn read_networks(file: &File) -> Vec<NetworkStats> {
    let mut bytes = vec![0; NETWORKS_BYTES];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) | Err(_) => break,
            Ok(count) => length += count,
        }
    }
    parse_networks(&String::from_utf8_lossy(&bytes[..length]))
}

fn of(counted: cgroups::Stats, cgroup: CgroupVersion, networks: Vec<NetworkStats>) -> wire::Stats {
    let memory = counted.memory.memory;
    wire::Stats {
        read_at: clock::now(),
        cgroup,
        cpu: wire::CpuStats {
            total_ns: counted.cpu.usage_ns,
            user_ns: counted.cpu.user_ns,
            system_ns: counted.cpu.system_ns,
            per_cpu_ns: counted.cpu.per_cpu_ns,
            periods: counted.cpu.periods,
            throttled_periods: counted.cpu.throttled_periods,
            throttled_ns: counted.cpu.throttled_ns,
        },
        memory: wire::MemoryStats {
            usage_bytes: memory.usage,
            max_usage_bytes: memory.max_usage,
            limit_bytes: (memory.limit != u64::MAX).then_some(memory.limit),
            failures: memory.failures,
            oom_kills: counted.memory.oom_kills,
            details: counted.memory.raw.into_iter().collect(),
        },
        pids: wire::PidsStats { current: counted.pids.current, limit: counted.pids.limit },
        block_io: wire::BlockIoStats {
            service_bytes: counted.block_io.service_bytes.into_iter().map(block_io).collect(),
            serviced: counted.block_io.serviced.into_iter().map(block_io).collect(),
        },
        networks,
        // The log is not known here.
        log_dropped_lines: 0,
        pressure: wire::Pressures {
            cpu: counted.cpu.pressure.map(pressure),
            memory: counted.memory.pressure.map(pressure),
            io: counted.block_io.pressure.map(pressure),
        },
    }
}

/// The version whose memory controller the container is in.
fn version(cgroup: &Cgroup) -> CgroupVersion {
    let is_v2 = cgroup.paths().all(|path| path.version == Version::V2);
    if is_v2 { CgroupVersion::V2 } else { CgroupVersion::V1 }
}

fn pressure(counted: cgroups::Pressure) -> wire::Pressure {
    wire::Pressure { some_us: counted.some.total_us, full_us: counted.full.total_us }
}

fn block_io(entry: BlockIoEntry) -> wire::BlockIoEntry {
    wire::BlockIoEntry { major: entry.major, minor: entry.minor, operation: entry.operation, value: entry.value }
}

/// Reads `/proc/<pid>/net/dev`: two lines of headings, then one per interface.
fn parse_networks(text: &str) -> Vec<NetworkStats> {
    text.lines().skip(2).filter_map(parse_network).filter(|network| network.name != "lo").collect()
}

fn parse_network(line: &str) -> Option<NetworkStats> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
        numbers[..]
    else {
        return None;
    };
    Some(NetworkStats {
        name: name.trim().to_owned(),
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_counted_but_not_the_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    1500      10    1    2    0     0          0         0      900       7    3    4    0     0       0          0
";
        let expected = NetworkStats {
            name: "eth0".to_owned(),
            rx_bytes: 1500,
            rx_packets: 10,
            rx_errors: 1,
            rx_dropped: 2,
            tx_bytes: 900,
            tx_packets: 7,
            tx_errors: 3,
            tx_dropped: 4,
        };
        assert_eq!(parse_networks(text), [expected]);
        assert_eq!(parse_networks("nonsense"), []);
    }
}
