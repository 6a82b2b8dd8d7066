//! `events`: a container's numbers, once or again and again, and the news that its memory ran out.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cgroups::{BlockIoEntry, MemoryUse, OomWatch, PressureLine, Stats};
use linux::Errno;
use oci::runtime::Status;
use runtime::Running;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::arguments::{Arguments, UsageError, only_id, required_id};
use super::container::find;
use super::{CommandError, Global, print};

/// `events`.
pub(super) fn events(global: &Global, mut arguments: Arguments) -> Result<ExitCode, CommandError> {
    let (mut id, mut once, mut interval) = (None, false, Duration::from_secs(5));
    while let Some(word) = arguments.next()? {
        match word.as_str() {
            "--stats" => once = arguments.switch()?,
            "--interval" => interval = duration(&arguments.value()?)?,
            option if option.starts_with('-') => return Err(arguments.unknown(option).into()),
            argument => only_id(&mut id, argument)?,
        }
    }
    let id = required_id(id)?;
    if interval.is_zero() {
        return Err(UsageError::new("duration interval must be greater than 0").into());
    }
    let found = find(global, &id)?;
    if found.status == Status::Stopped {
        return Err(CommandError::Refused(format!("container with id {id} is not running")));
    }
    let container = found.saved.running()?;
    if once {
        print_stats(&id, &container)?;
        return Ok(ExitCode::SUCCESS);
    }
    follow(&id, &container, interval)
}

/// Tells until the container ends.
fn follow(id: &str, container: &Running, interval: Duration) -> Result<ExitCode, CommandError> {
    let watch = container.cgroup.as_ref().and_then(|cgroup| cgroup.watch_oom().ok().flatten());
    let mut next = Instant::now() + interval;
    let mut kills = container.cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills().ok()).unwrap_or(0);
    loop {
        match wait(container, watch.as_ref(), next)? {
            Happened::Ended => return Ok(ExitCode::SUCCESS),
            Happened::Oom => {
                watch.as_ref().inspect(|watch| watch.drain());
                let now = container.cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills().ok()).unwrap_or(kills);
                if now > kills {
                    print(&format!("{}\n", json!({ "type": "oom", "id": id })));
                }
                kills = now;
            }
            Happened::Time => {
                next = Instant::now() + interval;
                print_stats(id, container)?;
            }
        }
    }
}

enum Happened {
    Ended,
    Oom,
    Time,
}

fn wait(container: &Running, watch: Option<&OomWatch>, until: Instant) -> Result<Happened, CommandError> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = vec![PollFd::new(&container.pidfd, PollFlags::IN)];
        if let Some(watch) = watch {
            // v1 tells by an eventfd, v2 by inotify on memory.events: both are readable then.
            fds.push(PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, Some(&limit)) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CommandError::system("poll")(errno)),
            Ok(0) => return Ok(Happened::Time),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(Happened::Ended),
            Ok(_) => return Ok(Happened::Oom),
        }
    }
}

fn print_stats(id: &str, container: &Running) -> Result<(), CommandError> {
    let stats = container.stats()?;
    print(&format!("{}\n", json!({ "type": "stats", "id": id, "data": data(&stats) })));
    Ok(())
}

/// The numbers in runc's form.
fn data(stats: &Stats) -> Value {
    let cpu = &stats.cpu;
    let hugetlb: serde_json::Map<String, Value> = stats
        .hugetlb
        .iter()
        .map(|(size, pages)| {
            (size.clone(), json!({ "usage": pages.usage, "max": pages.max_usage, "failcnt": pages.failures }))
        })
        .collect();
    let mut data = json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_ns,
                "percpu": cpu.per_cpu_ns,
                "percpu_kernel": cpu.per_cpu_system_ns,
                "percpu_user": cpu.per_cpu_user_ns,
                "kernel": cpu.system_ns,
                "user": cpu.user_ns,
            },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns,
            },
        },
        "cpuset": {},
        "memory": {
            "cache": stats.memory.raw.get("cache").or_else(|| stats.memory.raw.get("file")).copied().unwrap_or(0),
            "usage": memory(stats.memory.memory),
            "swap": memory(stats.memory.swap),
            "kernel": memory(stats.memory.kernel),
            "kernelTCP": memory(stats.memory.kernel_tcp),
            "raw": stats.memory.raw,
        },
        "pids": { "current": stats.pids.current, "limit": stats.pids.limit.unwrap_or(0) },
        "blkio": {
            "ioServiceBytesRecursive": block_io(&stats.block_io.service_bytes),
            "ioServicedRecursive": block_io(&stats.block_io.serviced),
        },
        "hugetlb": hugetlb,
        "intel_rdt": {},
        "network_interfaces": null,
    });
    let pressures =
        [("cpu", stats.cpu.pressure), ("memory", stats.memory.pressure), ("blkio", stats.block_io.pressure)];
    for (part, pressure) in pressures {
        if let Some(pressure) = pressure {
            data[part]["psi"] = json!({ "some": line(&pressure.some), "full": line(&pressure.full) });
        }
    }
    data
}

fn line(line: &PressureLine) -> Value {
    json!({ "avg10": line.avg10, "avg60": line.avg60, "avg300": line.avg300, "total": line.total_us })
}

fn memory(entry: MemoryUse) -> Value {
    json!({ "limit": entry.limit, "usage": entry.usage, "max": entry.max_usage, "failcnt": entry.failures })
}

fn block_io(entries: &[BlockIoEntry]) -> Value {
    let entry = |entry: &BlockIoEntry| json!({ "major": entry.major, "minor": entry.minor, "op": entry.operation, "value": entry.value });
    entries.iter().map(entry).collect()
}

/// A duration in Go's form, for whole numbers of one unit: `500ms`, `5s`, `1m`.
fn duration(text: &str) -> Result<Duration, UsageError> {
    let wrong = || UsageError::new(format!("invalid duration {text:?}"));
    let split = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..split].parse().map_err(|_| wrong())?;
    match &text[split..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        for text in ["", "5", "s", "-1s", "5h3", "1.5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
