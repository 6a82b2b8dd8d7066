//! `GET /containers/{id}/stats`.

use docker_api::stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats, ThrottlingData,
};
use engine::model::{IoSample, NetworkSample, StatsSample};

use super::time::shown;

/// A sample and the one before it, from which clients compute rates.
pub(crate) fn show(now: &StatsSample, before: Option<&StatsSample>) -> Stats {
    let empty = StatsSample::default();
    let before = before.unwrap_or(&empty);
    Stats {
        name: format!("/{}", now.name),
        id: now.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        read: shown(now.read),
        preread: shown(before.read),
        pids_stats: PidsStats { current: now.pids_current, limit: now.pids_limit.unwrap_or_default() },
        blkio_stats: BlkioStats {
            io_service_bytes_recursive: entries(&now.io_bytes),
            io_serviced_recursive: entries(&now.io_operations),
            ..BlkioStats::default()
        },
        cpu_stats: cpu(now),
        precpu_stats: cpu(before),
        memory_stats: memory(now),
        networks: now.networks.iter().map(|sample| (sample.interface.clone(), network(sample))).collect(),
        ..Stats::default()
    }
}

fn cpu(sample: &StatsSample) -> CpuStats {
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: sample.cpu_total_ns,
            percpu_usage: sample.cpu_per_cpu_ns.clone(),
            usage_in_kernelmode: sample.cpu_kernel_ns,
            usage_in_usermode: sample.cpu_user_ns,
        },
        system_cpu_usage: sample.system_cpu_ns,
        online_cpus: sample.online_cpus,
        throttling_data: ThrottlingData {
            periods: sample.throttle_periods,
            throttled_periods: sample.throttled_periods,
            throttled_time: sample.throttled_ns,
        },
    }
}

fn memory(sample: &StatsSample) -> MemoryStats {
    MemoryStats {
        usage: sample.memory_usage_bytes,
        max_usage: sample.memory_max_bytes.unwrap_or_default(),
        stats: sample.memory_details.iter().cloned().collect(),
        failcnt: sample.memory_failures.unwrap_or_default(),
        limit: sample.memory_limit_bytes,
    }
}

fn entries(samples: &[IoSample]) -> Option<Vec<BlkioEntry>> {
    let show = |sample: &IoSample| BlkioEntry {
        major: sample.major,
        minor: sample.minor,
        op: sample.operation.clone(),
        value: sample.value,
    };
    (!samples.is_empty()).then(|| samples.iter().map(show).collect())
}

fn network(sample: &NetworkSample) -> NetworkStats {
    NetworkStats {
        rx_bytes: sample.rx_bytes,
        rx_packets: sample.rx_packets,
        rx_errors: sample.rx_errors,
        rx_dropped: sample.rx_dropped,
        tx_bytes: sample.tx_bytes,
        tx_packets: sample.tx_packets,
        tx_errors: sample.tx_errors,
        tx_dropped: sample.tx_dropped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_does_not_run_has_zeros() {
        let stats = show(&StatsSample { name: "x".into(), ..StatsSample::default() }, None);
        let json = serde_json::to_string(&stats).unwrap();
        assert!(
            json.starts_with(
                r#"{"name":"/x","read":"0001-01-01T00:00:00Z","preread":"0001-01-01T00:00:00Z","pids_stats":{}"#
            ),
            "{json}"
        );
        assert!(json.ends_with(r#""memory_stats":{}}"#), "{json}");
    }
}
