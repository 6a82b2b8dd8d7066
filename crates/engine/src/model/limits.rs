//! Resource limits and restart policy.

use serde::{Deserialize, Serialize};

use super::EngineError;

/// Every limit of `HostConfig` that `update` can change, and those it cannot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// `Memory` in bytes; 0 is unlimited.
    pub memory_bytes: i64,
    /// `MemorySwap` in bytes; 0 is twice the memory, -1 unlimited.
    pub memory_swap_bytes: i64,
    /// `MemoryReservation` in bytes.
    pub memory_reservation_bytes: i64,
    /// `MemorySwappiness` 0–100; none is the kernel's own.
    pub memory_swappiness: Option<u8>,
    /// `KernelMemoryTCP` in bytes.
    pub kernel_memory_tcp_bytes: i64,
    /// `OomKillDisable`.
    pub oom_kill_disable: Option<bool>,
    /// `NanoCpus`: billionths of a CPU.
    pub nano_cpus: i64,
    /// `CpuShares`.
    pub cpu_shares: i64,
    /// `CpuPeriod` in microseconds.
    pub cpu_period_us: i64,
    /// `CpuQuota` in microseconds.
    pub cpu_quota_us: i64,
    /// `CpuRealtimePeriod` in microseconds.
    pub cpu_realtime_period_us: i64,
    /// `CpuRealtimeRuntime` in microseconds.
    pub cpu_realtime_runtime_us: i64,
    /// `CpusetCpus`, such as `0-1,3`.
    pub cpuset_cpus: String,
    /// `CpusetMems`.
    pub cpuset_mems: String,
    /// `PidsLimit`; none is unlimited (Docker's 0 and -1).
    pub pids_limit: Option<i64>,
    /// `BlkioWeight` 10–1000; 0 is unset.
    pub blkio_weight: u16,
    /// `BlkioWeightDevice`: path of a block device and weight.
    pub blkio_weight_device: Vec<BlkioWeight>,
    /// `BlkioDeviceReadBps`.
    pub blkio_read_bps: Vec<BlkioRate>,
    /// `BlkioDeviceWriteBps`.
    pub blkio_write_bps: Vec<BlkioRate>,
    /// `BlkioDeviceReadIOps`.
    pub blkio_read_iops: Vec<BlkioRate>,
    /// `BlkioDeviceWriteIOps`.
    pub blkio_write_iops: Vec<BlkioRate>,
    /// `Ulimits`.
    pub ulimits: Vec<Ulimit>,
    /// `Devices`.
    pub devices: Vec<super::Device>,
    /// `DeviceCgroupRules`.
    pub device_cgroup_rules: Vec<super::DeviceRule>,
    /// `CgroupParent`; empty is the engine's own.
    pub cgroup_parent: String,
}

/// A weight for one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioWeight {
    /// The device's path on the host.
    pub path: String,
    /// 10–1000.
    pub weight: u16,
}

/// A rate for one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioRate {
    /// The device's path on the host.
    pub path: String,
    /// Bytes or operations a second.
    pub rate: u64,
}

/// One `--ulimit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// The name as Docker writes it: `nofile`.
    pub name: String,
    /// The soft limit; -1 is unlimited.
    pub soft: i64,
    /// The hard limit; -1 is unlimited.
    pub hard: i64,
}

impl Ulimit {
    /// Checks the name and that soft is not above hard.
    pub fn new(name: &str, soft: i64, hard: i64) -> Result<Self, EngineError> {
        if !ULIMITS.contains(&name) {
            return Err(EngineError::invalid(format!("invalid ulimit type: {name}")));
        }
        let above = hard != -1 && (soft == -1 || soft > hard);
        if above {
            return Err(EngineError::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
        Ok(Self { name: name.into(), soft, hard })
    }

    /// The kernel's constant for it: `RLIMIT_NOFILE`.
    pub fn rlimit_name(&self) -> String {
        format!("RLIMIT_{}", self.name.to_ascii_uppercase())
    }
}

const ULIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `HostConfig.RestartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// `no` or nothing.
    #[default]
    No,
    /// `always`
    Always,
    /// `unless-stopped`
    UnlessStopped,
    /// `on-failure`, at most this often (0 is without end).
    OnFailure {
        /// `MaximumRetryCount`
        maximum_retries: u32,
    },
}

impl RestartPolicy {
    /// Reads Docker's name and count.
    pub fn parse(name: &str, maximum_retries: i64) -> Result<Self, EngineError> {
        let policy = match name {
            "" | "no" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => Self::OnFailure { maximum_retries: u32::try_from(maximum_retries).unwrap_or(0) },
            _ => {
                return Err(EngineError::invalid(format!(
                    "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
                )));
            }
        };
        if maximum_retries < 0 {
            return Err(EngineError::invalid("invalid restart policy: maximum retry count cannot be negative"));
        }
        if maximum_retries > 0 && !matches!(policy, Self::OnFailure { .. }) {
            return Err(EngineError::invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ));
        }
        Ok(policy)
    }

    /// Docker's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
            Self::OnFailure { .. } => "on-failure",
        }
    }

    /// `MaximumRetryCount`
    pub fn maximum_retries(self) -> u32 {
        match self {
            Self::OnFailure { maximum_retries } => maximum_retries,
            _ => 0,
        }
    }
}

/// Reads `10m`, `1g`, `512k`, `100` and `10MB`, in powers of 1024, as Docker's units package does.
pub fn parse_size(text: &str) -> Result<u64, EngineError> {
    let invalid = || EngineError::invalid(format!("invalid size: '{text}'"));
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let factor = match unit.trim() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1_048_576.0,
        "g" | "gb" | "gib" => 1_073_741_824.0,
        "t" | "tb" | "tib" => 1_099_511_627_776.0,
        _ => return Err(invalid()),
    };
    let bytes = number.parse::<f64>().map_err(|_| invalid())? * factor;
    if bytes.is_finite() && (0.0..9.0e18).contains(&bytes) { Ok(bytes as u64) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::{RestartPolicy, Ulimit, parse_size};

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        for (text, bytes) in [("10m", 10 << 20), ("1.5k", 1536), ("7", 7), ("2GB", 2 << 30), ("1t", 1 << 40)] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        assert!(parse_size("m").is_err() && parse_size("1x").is_err() && parse_size("").is_err());
    }

    #[test]
    fn ulimits_are_checked() {
        assert_eq!(Ulimit::new("nofile", 10, 20).unwrap().rlimit_name(), "RLIMIT_NOFILE");
        assert!(Ulimit::new("nofile", 30, 20).is_err());
        assert!(Ulimit::new("bogus", 1, 2).is_err());
        assert!(Ulimit::new("core", -1, -1).is_ok() && Ulimit::new("core", -1, 5).is_err());
    }

    #[test]
    fn restart_policies_are_checked() {
        assert_eq!(RestartPolicy::parse("on-failure", 3).unwrap(), RestartPolicy::OnFailure { maximum_retries: 3 });
        assert!(RestartPolicy::parse("always", 3).is_err());
        assert!(RestartPolicy::parse("sometimes", 0).is_err());
        assert!(RestartPolicy::parse("on-failure", -1).is_err());
    }
}
