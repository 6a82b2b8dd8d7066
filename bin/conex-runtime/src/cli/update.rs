//! `update`: changes limits of a running container, from flags or from JSON.

use std::io::Read;
use std::process::ExitCode;

use oci::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, Status};

use super::arguments::{Arguments, UsageError, only_id, required_id};
use super::container::find;
use super::{CommandError, Global};

/// `update`.
pub(super) fn update(global: &Global, arguments: Arguments) -> Result<ExitCode, CommandError> {
    let Wanted { id, resources, l3_cache, memory_bandwidth } = parse(arguments)?;
    let found = find(global, &id)?;
    if found.status == Status::Stopped {
        return Err(CommandError::Refused("container not running".to_owned()));
    }
    let running = found.saved.running()?;
    if !l3_cache.is_empty() || !memory_bandwidth.is_empty() {
        running.update_intel_rdt(&l3_cache, &memory_bandwidth)?;
    }
    if resources != LinuxResources::default() {
        running.update(&resources)?.iter().for_each(|ignored| global.log.warn(ignored));
    }
    Ok(ExitCode::SUCCESS)
}

/// What the command line asks for.
struct Wanted {
    id: String,
    resources: LinuxResources,
    /// The cache line of resctrl; empty leaves it alone.
    l3_cache: String,
    /// The memory bandwidth line of resctrl; empty leaves it alone.
    memory_bandwidth: String,
}

fn parse(mut arguments: Arguments) -> Result<Wanted, CommandError> {
    let (mut id, mut file, mut l3_cache, mut memory_bandwidth) = (None, None, String::new(), String::new());
    let (mut cpu, mut memory) = (LinuxCpu::default(), LinuxMemory::default());
    let (mut pids, mut weight) = (None, None);
    while let Some(word) = arguments.next()? {
        match word.as_str() {
            "--resources" | "-r" => file = Some(arguments.value()?),
            "--blkio-weight" => weight = Some(arguments.number()?),
            "--cpu-period" => cpu.period = Some(arguments.number()?),
            "--cpu-quota" => cpu.quota = Some(arguments.number()?),
            "--cpu-burst" => cpu.burst = Some(arguments.number()?),
            "--cpu-share" => cpu.shares = Some(arguments.number()?),
            "--cpu-rt-period" => cpu.realtime_period = Some(arguments.number()?),
            "--cpu-rt-runtime" => cpu.realtime_runtime = Some(arguments.number()?),
            "--cpuset-cpus" => cpu.cpus = arguments.value()?,
            "--cpuset-mems" => cpu.mems = arguments.value()?,
            "--cpu-idle" => cpu.idle = Some(arguments.number()?),
            "--memory" => memory.limit = Some(bytes(&arguments.value()?)?),
            "--memory-reservation" => memory.reservation = Some(bytes(&arguments.value()?)?),
            "--memory-swap" => memory.swap = Some(bytes(&arguments.value()?)?),
            "--kernel-memory" => memory.kernel = Some(bytes(&arguments.value()?)?),
            "--kernel-memory-tcp" => memory.kernel_tcp = Some(bytes(&arguments.value()?)?),
            "--pids-limit" => pids = Some(arguments.number()?),
            "--l3-cache-schema" => l3_cache = arguments.value()?,
            "--mem-bw-schema" => memory_bandwidth = arguments.value()?,
            option if option.starts_with('-') => return Err(arguments.unknown(option).into()),
            argument => only_id(&mut id, argument)?,
        }
    }
    let id = required_id(id)?;
    if let Some(path) = file {
        return Ok(Wanted { id, resources: read(&path)?, l3_cache, memory_bandwidth });
    }
    let resources = LinuxResources {
        cpu: (cpu != LinuxCpu::default()).then_some(cpu),
        memory: (memory != LinuxMemory::default()).then_some(memory),
        pids: pids.map(|limit| LinuxPids { limit: Some(limit) }),
        block_io: weight.map(|weight| LinuxBlockIo { weight: Some(weight), ..LinuxBlockIo::default() }),
        ..LinuxResources::default()
    };
    Ok(Wanted { id, resources, l3_cache, memory_bandwidth })
}

/// Reads `LinuxResources` as JSON; `-` is standard input.
fn read(path: &str) -> Result<LinuxResources, CommandError> {
    /// Larger than any limits that make sense.
    const MAX_BYTES: u64 = 1024 * 1024;
    let mut text = String::new();
    let subject = || format!("cannot read {path}");
    let read = if path == "-" {
        std::io::stdin().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(CommandError::file(subject()))?;
        file.take(MAX_BYTES).read_to_string(&mut text)
    };
    read.map_err(CommandError::file(subject()))?;
    serde_json::from_str(&text).map_err(|source| CommandError::Json { subject: path.to_owned(), source })
}

/// A size in bytes, with `k`, `m`, `g` or `t` for powers of 1024; -1 is no limit.
fn bytes(text: &str) -> Result<i64, UsageError> {
    let wrong = || UsageError::new(format!("invalid size {text:?}"));
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match lower.chars().last() {
        Some('k') => (&lower[..lower.len() - 1], 10),
        Some('m') => (&lower[..lower.len() - 1], 20),
        Some('g') => (&lower[..lower.len() - 1], 30),
        Some('t') => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    let number: i64 = digits.parse().map_err(|_| wrong())?;
    if number < -1 {
        return Err(wrong());
    }
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_resources() {
        let words = ["--memory", "64m", "id", "--pids-limit=7", "--cpu-share", "512"];
        let Wanted { id, resources, .. } = parse(Arguments::new(words.iter().map(Into::into).collect())).unwrap();
        assert_eq!(id, "id");
        assert_eq!(resources.memory.unwrap().limit, Some(64 << 20));
        assert_eq!(resources.pids.unwrap().limit, Some(7));
        assert_eq!(resources.cpu.unwrap().shares, Some(512));
        assert_eq!(resources.block_io, None);
    }

    #[test]
    fn sizes_have_units() {
        let table = [("1", 1), ("1k", 1024), ("2MB", 2 << 20), ("1GiB", 1 << 30), ("-1", -1)];
        for (text, number) in table {
            assert_eq!(bytes(text), Ok(number), "{text}");
        }
        for text in ["", "x", "-2", "9999999999t", "1.5m"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
