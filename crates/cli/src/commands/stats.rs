//! `stats`: what containers use, live or once.

use std::io::IsTerminal;
use std::time::Duration;

use api_client::{Client, ListOptions};
use clap::ArgMatches;
use docker_api::stats::Stats;

use super::{After, Entry, operands, print};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::flags::Takes::{One, Switch};
use crate::flags::{Flag, flag, on, short};
use crate::output::list::{Listing, Row};
use crate::output::units;

const FLAGS: &[Flag] = &[
    short('a', "all", Switch, "Show stopped containers too"),
    flag("format", One, "table, json, or a Go template"),
    flag("no-stream", Switch, "Show one result and end"),
    flag("no-trunc", Switch, "Do not shorten"),
];

pub(super) const STATS: Entry = Entry {
    name: "stats",
    about: "Show what containers use",
    operands: "[CONTAINER...]",
    after: After::Options,
    flags: &[FLAGS],
    run: stats,
};

const LISTING: Listing = Listing {
    table: "ID Name CPUPerc MemUsage MemPerc NetIO BlockIO PIDs",
    quiet: "ID",
    headings: &[
        ("ID", "CONTAINER ID"),
        ("Container", "CONTAINER"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};

fn stats(context: &Context, matches: &ArgMatches) -> Outcome {
    let client = context.client()?;
    let named = operands(matches, 0)?;
    loop {
        let names = if named.is_empty() { running(client, on(matches, "all"))? } else { named.clone() };
        let samples: Vec<Stats> = samples(client, &names)?;
        let rows: Vec<Row> = samples.iter().map(|sample| row(sample, on(matches, "no-trunc"))).collect();
        let text = LISTING.render(context.style(matches), &rows)?;
        if on(matches, "no-stream") {
            print(&text)?;
            return Ok(0);
        }
        // Home and clear the screen, as a live view does.
        let clear = if std::io::stdout().is_terminal() { "\u{1b}[H\u{1b}[J" } else { "" };
        print(&format!("{clear}{text}"))?;
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn running(client: &Client, all: bool) -> Result<Vec<String>, Failure> {
    let list = client.container_list(&ListOptions { all, ..ListOptions::default() })?;
    Ok(list.into_iter().map(|container| container.id).collect())
}

/// One sample of each container, taken at the same time: a sample takes the engine a second or two.
fn samples(client: &Client, names: &[String]) -> Result<Vec<Stats>, Failure> {
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            names.iter().map(|name| scope.spawn(|| client.container_stats_once(name, false))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a request does not panic")).collect()
    });
    results.into_iter().map(|result| Ok(result?)).collect()
}

fn row(sample: &Stats, full: bool) -> Row {
    let id = if full { &sample.id } else { units::short_id(&sample.id) };
    let memory = used_memory(sample);
    let limit = sample.memory_stats.limit;
    let share = if limit == 0 { 0.0 } else { memory as f64 / limit as f64 * 100.0 };
    let network = sample.networks.values().fold((0, 0), |(rx, tx), n| (rx + n.rx_bytes, tx + n.tx_bytes));
    let blocks = block_bytes(sample);
    let pair = |(a, b): (u64, u64)| format!("{} / {}", units::size(a), units::size(b));
    Row::default()
        .with("ID", id)
        .with("Container", id)
        .with("Name", sample.name.trim_start_matches('/'))
        .with("CPUPerc", format!("{:.2}%", cpu_percent(sample)))
        .with("MemUsage", format!("{} / {}", units::binary_size(memory), units::binary_size(limit)))
        .with("MemPerc", format!("{share:.2}%"))
        .with("NetIO", pair(network))
        .with("BlockIO", pair(blocks))
        .with("PIDs", sample.pids_stats.current.to_string())
}

/// Time used of the time that passed, over all CPUs.
fn cpu_percent(sample: &Stats) -> f64 {
    let (now, before) = (&sample.cpu_stats, &sample.precpu_stats);
    let used = now.cpu_usage.total_usage.saturating_sub(before.cpu_usage.total_usage) as f64;
    let passed = now.system_cpu_usage.saturating_sub(before.system_cpu_usage) as f64;
    if passed <= 0.0 { 0.0 } else { used / passed * f64::from(now.online_cpus.max(1)) * 100.0 }
}

/// Memory without the page cache that the kernel gives up first.
fn used_memory(sample: &Stats) -> u64 {
    let stats = &sample.memory_stats.stats;
    let inactive = stats.get("total_inactive_file").or_else(|| stats.get("inactive_file")).copied().unwrap_or(0);
    sample.memory_stats.usage.saturating_sub(inactive)
}

fn block_bytes(sample: &Stats) -> (u64, u64) {
    let entries = sample.blkio_stats.io_service_bytes_recursive.iter().flatten();
    entries.fold((0, 0), |(read, written), entry| match entry.op.to_ascii_lowercase().as_str() {
        "read" => (read + entry.value, written),
        "write" => (read, written + entry.value),
        _ => (read, written),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use docker_api::stats::{CpuStats, CpuUsage};

    #[test]
    fn cpu_percent_counts_all_cpus() {
        let cpu = |total_usage, system_cpu_usage| CpuStats {
            cpu_usage: CpuUsage { total_usage, ..CpuUsage::default() },
            system_cpu_usage,
            online_cpus: 2,
            ..CpuStats::default()
        };
        let sample = Stats { cpu_stats: cpu(150, 400), precpu_stats: cpu(100, 200), ..Stats::default() };
        assert_eq!(cpu_percent(&sample), 50.0);
        assert_eq!(cpu_percent(&Stats::default()), 0.0);
    }
}
