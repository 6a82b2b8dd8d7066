//! `GET /metrics`: the engine and its containers, in Prometheus' text format 0.0.4.
//!
//! The engine's own numbers have the names of Docker's daemon, the containers' those of cAdvisor, so that what people have for either
//! works; what neither has begins with `conex_`. Labels are the container's id, name and image, and devices and interfaces by their
//! kernel names: nothing that a user makes up without bound. Beyond [`MAX_CONTAINERS`], [`MAX_DEVICES`] and [`MAX_INTERFACES`] nothing
//! is listed; how many containers were left out is told.

mod exposition;

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::Engine;
use engine::model::{ContainerView, EndCause, LogForwarding, PressureSample, RunEnd, StatsSample, SystemInfo};

use oci::ContainerId;

use exposition::{Exposition, Kind};

use crate::reply::{self, Reply};

/// The type of what is answered.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How many containers are listed.
const MAX_CONTAINERS: usize = 5000;
/// How many disks of one container are listed.
const MAX_DEVICES: usize = 32;
/// How many interfaces of one container are listed.
const MAX_INTERFACES: usize = 32;
const SECOND_US: f64 = 1e6;
const SECOND_NS: f64 = 1e9;

/// A container, and its numbers where it runs.
type Sampled = (Arc<ContainerView>, Option<StatsSample>);

/// Answers with everything.
pub(crate) async fn metrics(engine: &Engine) -> Reply {
    let info = engine.system_info();
    let containers = engine.all_container_stats(MAX_CONTAINERS).await;
    let text = write(&info, &containers, |id| engine.container_log_forwarding(id));
    reply::stream(CONTENT_TYPE, text.into_bytes().into())
}

fn write(
    info: &SystemInfo,
    containers: &[Sampled],
    forwarding: impl Fn(&ContainerId) -> Option<LogForwarding>,
) -> String {
    let mut out = Exposition::default();
    write_engine(&mut out, info, containers.len());
    write_lives(&mut out, containers);
    write_processor(&mut out, containers);
    write_memory(&mut out, containers);
    write_disks(&mut out, containers);
    write_networks(&mut out, containers);
    write_pressure(&mut out, containers);
    write_logs(&mut out, containers, forwarding);
    out.into_text()
}

fn write_engine(out: &mut Exposition, info: &SystemInfo, listed: usize) {
    out.family(
        "engine_daemon_engine_info",
        Kind::Gauge,
        "The information related to the engine and the OS it is running on",
    );
    out.sample(
        &[
            ("version", &info.version),
            ("architecture", &info.architecture),
            ("kernel", &info.kernel_version),
            ("os", &info.operating_system),
            ("daemon_id", &info.id),
        ],
        1.0,
    );
    out.family(
        "engine_daemon_engine_cpus_cpus",
        Kind::Gauge,
        "The number of cpus that the host system of the engine has",
    );
    out.sample(&[], info.cpus as f64);
    out.family(
        "engine_daemon_engine_memory_bytes",
        Kind::Gauge,
        "The number of bytes of memory that the host system has",
    );
    out.sample(&[], info.memory_bytes as f64);
    out.family("engine_daemon_container_states_containers", Kind::Gauge, "The count of containers in various states");
    for (state, count) in [("paused", info.paused), ("running", info.running), ("stopped", info.stopped)] {
        out.sample(&[("state", state)], count as f64);
    }
    let all = info.paused + info.running + info.stopped;
    out.family("conex_metrics_containers_omitted", Kind::Gauge, "Containers beyond the most that are listed");
    out.sample(&[], all.saturating_sub(listed) as f64);
}

/// One family with a value for each container that has one.
fn each(
    out: &mut Exposition,
    (name, kind, help): (&str, Kind, &str),
    containers: &[Sampled],
    value: impl Fn(&ContainerView, Option<&StatsSample>) -> Option<f64>,
) {
    out.family(name, kind, help);
    for (view, sample) in containers {
        if let Some(value) = value(view, sample.as_ref()) {
            out.sample(&labels(view), value);
        }
    }
}

/// The same for those that run.
fn each_running(
    out: &mut Exposition,
    family: (&str, Kind, &str),
    containers: &[Sampled],
    value: impl Fn(&StatsSample) -> Option<f64>,
) {
    each(out, family, containers, |_, sample| value(sample?));
}

fn labels(view: &ContainerView) -> [(&'static str, &str); 3] {
    [("id", view.id.as_str()), ("image", &view.spec.image), ("name", view.name.as_str())]
}

fn write_lives(out: &mut Exposition, containers: &[Sampled]) {
    let started = ("container_start_time_seconds", Kind::Gauge, "Start time of the container since the epoch");
    each(out, started, containers, |view, _| {
        Some(view.state.started_at.filter(|_| view.state.is_running())?.as_millisecond() as f64 / 1000.0)
    });
    let restarts = ("conex_container_restarts_total", Kind::Counter, "Starts by the container's restart policy");
    each(out, restarts, containers, |view, _| Some(f64::from(view.restart_count)));
    out.family("conex_container_last_exit_info", Kind::Gauge, "Why the container's last run ended");
    for (view, _) in containers {
        if let Some(end) = &view.end {
            let [id, image, name] = labels(view);
            out.sample(&[id, image, name, ("reason", exit_reason(end))], 1.0);
        }
    }
    let code = ("conex_container_last_exit_code", Kind::Gauge, "What the container's last run has left");
    each(out, code, containers, |view, _| Some(f64::from(view.end.as_ref()?.exit_code)));
    let limit = (
        "conex_container_last_oom_limit_bytes",
        Kind::Gauge,
        "The memory limit of a run that the kernel ended for want of it",
    );
    each(out, limit, containers, |view, _| Some(oom_memory(view)?.limit_bytes? as f64));
    let peak = (
        "conex_container_last_oom_peak_bytes",
        Kind::Gauge,
        "The most memory of a run that the kernel ended for want of it",
    );
    each(out, peak, containers, |view, _| Some(oom_memory(view)?.peak_bytes as f64));
    let kills =
        ("container_oom_events_total", Kind::Counter, "Count of out of memory events observed for the container");
    each(out, kills, containers, |view, sample| match sample {
        Some(sample) => Some(sample.oom_kills as f64),
        None => Some(oom_memory(view).map_or(0, |memory| memory.kills) as f64),
    });
}

fn oom_memory(view: &ContainerView) -> Option<engine::model::EndMemory> {
    view.end.as_ref()?.cause.memory
}

/// One of few words. The kernel kills at the container's own limit, or for want of memory in the machine.
fn exit_reason(end: &RunEnd) -> &'static str {
    let asked = !end.asked.is_empty();
    match end.cause {
        EndCause { memory: Some(memory), .. } if end.oom_killed => match memory.limit_bytes {
            Some(_) => "oom_limit",
            None => "oom_host",
        },
        _ if end.oom_killed => "oom",
        EndCause { unseen: true, .. } => "unseen",
        _ if asked => "asked",
        EndCause { signal: Some(_), .. } => "signal",
        _ if end.exit_code == 0 => "success",
        _ => "error",
    }
}

fn write_processor(out: &mut Exposition, containers: &[Sampled]) {
    let seconds = |ns: u64| Some(ns as f64 / SECOND_NS);
    let total = ("container_cpu_usage_seconds_total", Kind::Counter, "Cumulative cpu time consumed in seconds");
    each_running(out, total, containers, |sample| seconds(sample.cpu_total_ns));
    let user = ("container_cpu_user_seconds_total", Kind::Counter, "Cumulative user cpu time consumed in seconds");
    each_running(out, user, containers, |sample| seconds(sample.cpu_user_ns));
    let system =
        ("container_cpu_system_seconds_total", Kind::Counter, "Cumulative system cpu time consumed in seconds");
    each_running(out, system, containers, |sample| seconds(sample.cpu_kernel_ns));
    let periods = ("container_cpu_cfs_periods_total", Kind::Counter, "Number of elapsed enforcement period intervals");
    each_running(out, periods, containers, |sample| Some(sample.throttle_periods as f64));
    let throttled =
        ("container_cpu_cfs_throttled_periods_total", Kind::Counter, "Number of throttled period intervals");
    each_running(out, throttled, containers, |sample| Some(sample.throttled_periods as f64));
    let time = (
        "container_cpu_cfs_throttled_seconds_total",
        Kind::Counter,
        "Total time duration the container has been throttled",
    );
    each_running(out, time, containers, |sample| seconds(sample.throttled_ns));
    let tasks = ("container_threads", Kind::Gauge, "Number of threads running inside the container");
    each_running(out, tasks, containers, |sample| Some(sample.pids_current as f64));
    let most = ("container_threads_max", Kind::Gauge, "Maximum number of threads allowed inside the container");
    each_running(out, most, containers, |sample| Some(sample.pids_limit? as f64));
}

fn write_memory(out: &mut Exposition, containers: &[Sampled]) {
    let usage = ("container_memory_usage_bytes", Kind::Gauge, "Current memory usage in bytes, including all memory");
    each_running(out, usage, containers, |sample| Some(sample.memory_usage_bytes as f64));
    let working = ("container_memory_working_set_bytes", Kind::Gauge, "Current working set in bytes");
    each_running(out, working, containers, |sample| {
        let idle = detail(sample, &["total_inactive_file", "inactive_file"]).unwrap_or(0);
        Some(sample.memory_usage_bytes.saturating_sub(idle) as f64)
    });
    let rss = ("container_memory_rss", Kind::Gauge, "Size of RSS in bytes");
    each_running(out, rss, containers, |sample| Some(detail(sample, &["total_rss", "anon"])? as f64));
    let cache = ("container_memory_cache", Kind::Gauge, "Number of bytes of page cache memory");
    each_running(out, cache, containers, |sample| Some(detail(sample, &["total_cache", "file"])? as f64));
    let limit = (
        "container_spec_memory_limit_bytes",
        Kind::Gauge,
        "Memory limit for the container; the host's memory where there is none",
    );
    each_running(out, limit, containers, |sample| Some(sample.memory_limit_bytes as f64));
    let hits = ("container_memory_failcnt", Kind::Counter, "Number of memory usage hits limits");
    each_running(out, hits, containers, |sample| Some(sample.memory_failures? as f64));
}

/// A line of `memory.stat`, under its name of cgroup v1 or v2.
fn detail(sample: &StatsSample, names: &[&str]) -> Option<u64> {
    let find = |name: &&str| sample.memory_details.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
    names.iter().find_map(find)
}

fn write_disks(out: &mut Exposition, containers: &[Sampled]) {
    for (name, help, operation, is_bytes) in [
        ("container_fs_reads_bytes_total", "Cumulative count of bytes read", "read", true),
        ("container_fs_writes_bytes_total", "Cumulative count of bytes written", "write", true),
        ("container_fs_reads_total", "Cumulative count of reads completed", "read", false),
        ("container_fs_writes_total", "Cumulative count of writes completed", "write", false),
    ] {
        out.family(name, Kind::Counter, help);
        for (view, sample) in containers {
            let Some(sample) = sample else { continue };
            let counted = if is_bytes { &sample.io_bytes } else { &sample.io_operations };
            let mut devices = BTreeMap::new();
            for entry in counted.iter().filter(|entry| entry.operation.eq_ignore_ascii_case(operation)) {
                *devices.entry((entry.major, entry.minor)).or_insert(0) += entry.value;
            }
            for ((major, minor), value) in devices.into_iter().take(MAX_DEVICES) {
                let [id, image, name] = labels(view);
                out.sample(&[("device", &format!("{major}:{minor}")), id, image, name], value as f64);
            }
        }
    }
}

fn write_networks(out: &mut Exposition, containers: &[Sampled]) {
    type Field = fn(&engine::model::NetworkSample) -> u64;
    let families: [(&str, &str, Field); 8] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |counted| counted.rx_bytes),
        ("container_network_receive_packets_total", "Cumulative count of packets received", |counted| {
            counted.rx_packets
        }),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |counted| counted.rx_errors,
        ),
        (
            "container_network_receive_packets_dropped_total",
            "Cumulative count of packets dropped while receiving",
            |counted| counted.rx_dropped,
        ),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |counted| counted.tx_bytes),
        ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |counted| {
            counted.tx_packets
        }),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |counted| counted.tx_errors,
        ),
        (
            "container_network_transmit_packets_dropped_total",
            "Cumulative count of packets dropped while transmitting",
            |counted| counted.tx_dropped,
        ),
    ];
    for (name, help, field) in families {
        out.family(name, Kind::Counter, help);
        for (view, sample) in containers {
            for network in sample.iter().flat_map(|sample| &sample.networks).take(MAX_INTERFACES) {
                let [id, image, name] = labels(view);
                out.sample(&[id, image, ("interface", &network.interface), name], field(network) as f64);
            }
        }
    }
}

fn write_pressure(out: &mut Exposition, containers: &[Sampled]) {
    type Field = fn(&StatsSample) -> Option<PressureSample>;
    let resources: [(&str, Field); 3] = [
        ("cpu", |sample| sample.cpu_pressure),
        ("memory", |sample| sample.memory_pressure),
        ("io", |sample| sample.io_pressure),
    ];
    for (resource, field) in resources {
        let waiting = format!("container_pressure_{resource}_waiting_seconds_total");
        let help = format!("Total time duration tasks in the container have waited due to {resource} congestion");
        each_running(out, (&waiting, Kind::Counter, &help), containers, |sample| {
            Some(field(sample)?.some_us as f64 / SECOND_US)
        });
        let stalled = format!("container_pressure_{resource}_stalled_seconds_total");
        let help =
            format!("Total time duration no tasks in the container could make progress due to {resource} congestion");
        each_running(out, (&stalled, Kind::Counter, &help), containers, |sample| {
            Some(field(sample)?.full_us as f64 / SECOND_US)
        });
    }
}

fn write_logs(
    out: &mut Exposition,
    containers: &[Sampled],
    forwarding: impl Fn(&ContainerId) -> Option<LogForwarding>,
) {
    let states: Vec<_> = containers.iter().map(|(view, _)| forwarding(&view.id)).collect();
    type Value<'a> = &'a dyn Fn(Option<&LogForwarding>, Option<&StatsSample>) -> Option<u64>;
    let mut family = |name, kind, help, value: Value<'_>| {
        out.family(name, kind, help);
        for ((view, sample), state) in containers.iter().zip(&states) {
            if let Some(value) = value(state.as_ref(), sample.as_ref()) {
                out.sample(&labels(view), value as f64);
            }
        }
    };
    let sent = "conex_container_log_sent_lines_total";
    family(sent, Kind::Counter, "Log lines that the driver's sink has taken", &|state, _| Some(state?.sent));
    let dropped = "conex_container_log_dropped_lines_total";
    family(dropped, Kind::Counter, "Log lines that were lost", &|state, sample| {
        let (rotated, told) = state.map_or((0, 0), |state| (state.dropped, state.unwritten));
        Some(rotated + told.max(sample.map_or(0, |sample| sample.log_dropped_lines)))
    });
    let failing = "conex_container_log_sink_failing";
    family(failing, Kind::Gauge, "Whether the log driver's sink takes nothing now", &|state, _| {
        Some(u64::from(state?.error.is_some()))
    });
}
