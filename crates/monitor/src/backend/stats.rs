//! A container's numbers as the daemon gets them.

use std::fs;

use cgroups::{BlockIoEntry, Cgroup, Version};
use monitor_protocol::stats::{self as wire, CgroupVersion, NetworkStats};

use crate::clock;

/// Puts together what the cgroup and the network namespace of process `pid` have counted.
pub(super) fn of(counted: cgroups::Stats, cgroup: CgroupVersion, pid: i32) -> wire::Stats {
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
            details: counted.memory.raw.into_iter().collect(),
        },
        pids: wire::PidsStats { current: counted.pids.current, limit: counted.pids.limit },
        block_io: wire::BlockIoStats {
            service_bytes: counted.block_io.service_bytes.into_iter().map(block_io).collect(),
            serviced: counted.block_io.serviced.into_iter().map(block_io).collect(),
        },
        networks: fs::read_to_string(format!("/proc/{pid}/net/dev"))
            .map(|text| parse_networks(&text))
            .unwrap_or_default(),
    }
}

/// The version whose memory controller the container is in.
pub(super) fn version(cgroup: &Cgroup) -> CgroupVersion {
    let is_v2 = cgroup.paths().all(|path| path.version == Version::V2);
    if is_v2 { CgroupVersion::V2 } else { CgroupVersion::V1 }
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
