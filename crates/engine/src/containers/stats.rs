//! A container's numbers, as its monitor reads them, with the host's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use monitor_protocol::stats::{BlockIoEntry, NetworkStats, Pressure, Stats};
use monitor_protocol::{Request, Response};
use oci::ContainerId;
use tokio::task::JoinSet;

use super::actor::limited;
use crate::engine::Engine;
use crate::host::Host;
use crate::model::{ContainerQuery, ContainerView, EngineError, IoSample, NetworkSample, PressureSample, StatsSample};
use crate::moment;

/// Clock ticks a second on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);
/// How often numbers are read for who watches them; clients compute rates from it.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many monitors are asked at the same time when everything is to be counted.
const ASKED_AT_ONCE: usize = 32;

impl Engine {
    /// Its numbers now; all zero with `read` none when it does not run.
    pub async fn container_stats(&self, reference: &str) -> Result<StatsSample, EngineError> {
        let handle = self.inner.index.find(reference)?;
        let name = handle.record().name.to_string();
        let empty = StatsSample { id: Some(handle.id.clone()), name: name.clone(), ..StatsSample::default() };
        let Some(live) = handle.live() else { return Ok(empty) };
        match limited(live.connection.request(Request::Stats, Vec::new())).await {
            Ok(Response::Stats(stats)) => Ok(sample(&handle.id, name, *stats, &self.inner.host)),
            Ok(_) => Err(EngineError::unavailable("the container's monitor gave a wrong answer")),
            // It has ended since we looked.
            Err(_) if handle.live().is_none() => Ok(empty),
            Err(error) => Err(error),
        }
    }

    /// Waits until it is time to read numbers again for who watches them: about a second from now, at a moment that all watchers share.
    pub async fn next_stats_moment(&self) {
        // Who is in step waits exactly the interval, who is not yet half of it at least.
        tokio::time::sleep_until(moment::in_step(INTERVAL + INTERVAL / 2, INTERVAL)).await;
    }

    /// The first `most` containers, oldest first, with their numbers where they run and their monitor answers.
    pub async fn all_container_stats(&self, most: usize) -> Vec<(Arc<ContainerView>, Option<StatsSample>)> {
        let everything = ContainerQuery { all: true, ..ContainerQuery::default() };
        let mut views = self.containers(&everything).unwrap_or_default();
        views.reverse();
        views.truncate(most);
        let (mut asked, mut samples) = (JoinSet::new(), HashMap::new());
        for view in views.iter().filter(|view| view.state.is_running()) {
            if asked.len() >= ASKED_AT_ONCE {
                keep(asked.join_next().await, &mut samples);
            }
            let (engine, id) = (self.clone(), view.id.clone());
            asked.spawn(async move { (id.clone(), engine.container_stats(id.as_str()).await) });
        }
        while let Some(answer) = asked.join_next().await {
            keep(Some(answer), &mut samples);
        }
        let sampled = |view: Arc<ContainerView>| {
            let sample = samples.remove(&view.id);
            (view, sample)
        };
        views.into_iter().map(sampled).collect()
    }
}

/// One container's answer; what cannot be counted now is left out.
type Answer = Result<(ContainerId, Result<StatsSample, EngineError>), tokio::task::JoinError>;

fn keep(answer: Option<Answer>, samples: &mut HashMap<ContainerId, StatsSample>) {
    if let Some(Ok((id, Ok(sample)))) = answer
        && sample.read.is_some()
    {
        samples.insert(id, sample);
    }
}

fn sample(id: &ContainerId, name: String, stats: Stats, host: &Host) -> StatsSample {
    let is_v1 = stats.cgroup == monitor_protocol::stats::CgroupVersion::V1;
    StatsSample {
        id: Some(id.clone()),
        name,
        read: Some(moment::from_monitor(stats.read_at)),
        cpu_total_ns: stats.cpu.total_ns,
        cpu_kernel_ns: stats.cpu.system_ns,
        cpu_user_ns: stats.cpu.user_ns,
        cpu_per_cpu_ns: stats.cpu.per_cpu_ns,
        system_cpu_ns: system_cpu_ns(),
        online_cpus: u32::try_from(host.cpus).unwrap_or(u32::MAX),
        throttle_periods: stats.cpu.periods,
        throttled_periods: stats.cpu.throttled_periods,
        throttled_ns: stats.cpu.throttled_ns,
        memory_usage_bytes: stats.memory.usage_bytes,
        memory_max_bytes: is_v1.then_some(stats.memory.max_usage_bytes),
        memory_failures: is_v1.then_some(stats.memory.failures),
        memory_limit_bytes: stats
            .memory
            .limit_bytes
            .filter(|limit| *limit < host.memory_bytes)
            .unwrap_or(host.memory_bytes),
        memory_details: stats.memory.details,
        pids_current: stats.pids.current,
        pids_limit: stats.pids.limit,
        io_bytes: stats.block_io.service_bytes.into_iter().map(io_sample).collect(),
        io_operations: stats.block_io.serviced.into_iter().map(io_sample).collect(),
        networks: stats.networks.into_iter().filter(|network| network.name != "lo").map(network_sample).collect(),
        log_dropped_lines: stats.log_dropped_lines,
        oom_kills: stats.memory.oom_kills,
        cpu_pressure: stats.pressure.cpu.map(pressure_sample),
        memory_pressure: stats.pressure.memory.map(pressure_sample),
        io_pressure: stats.pressure.io.map(pressure_sample),
    }
}

fn pressure_sample(pressure: Pressure) -> PressureSample {
    PressureSample { some_us: pressure.some_us, full_us: pressure.full_us }
}

fn io_sample(entry: BlockIoEntry) -> IoSample {
    IoSample { major: entry.major, minor: entry.minor, operation: entry.operation, value: entry.value }
}

fn network_sample(stats: NetworkStats) -> NetworkSample {
    NetworkSample {
        interface: stats.name,
        rx_bytes: stats.rx_bytes,
        rx_packets: stats.rx_packets,
        rx_errors: stats.rx_errors,
        rx_dropped: stats.rx_dropped,
        tx_bytes: stats.tx_bytes,
        tx_packets: stats.tx_packets,
        tx_errors: stats.tx_errors,
        tx_dropped: stats.tx_dropped,
    }
}

/// What all processors have worked and waited, in nanoseconds. The kernel counts it in ticks and walks over all interrupts to show it: a
/// reading that is younger than a tick serves again.
fn system_cpu_ns() -> u64 {
    static LAST: Mutex<Option<(Instant, u64)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match *last {
        Some((read, value)) if read.elapsed() < TICK => value,
        _ => {
            let value = read_system_cpu_ns();
            *last = Some((Instant::now(), value));
            value
        }
    }
}

/// The first line of /proc/stat without guest times, which are in user time already.
fn read_system_cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks = line.split_ascii_whitespace().skip(1).take(8).filter_map(|field| field.parse::<u64>().ok());
    let nanoseconds = u128::from(ticks.sum::<u64>()) * TICK.as_nanos();
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}
