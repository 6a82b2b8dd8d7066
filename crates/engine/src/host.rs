//! What this host is and can do, found out once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use snapshots::Backend;

use crate::apparmor;
use crate::containers::parse_set;
use crate::model::{HostFeature, LimitSupport};
use crate::options::EngineOptions;
use crate::spec::SpecHost;

/// Facts about the host.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) hostname: String,
    pub(crate) kernel: String,
    pub(crate) operating_system: String,
    pub(crate) os_version: String,
    pub(crate) cpus: usize,
    pub(crate) cpu_numbers: Vec<usize>,
    pub(crate) memory_nodes: Vec<usize>,
    pub(crate) memory_bytes: u64,
    pub(crate) cgroup_version: u8,
    pub(crate) limits: Limits,
    pub(crate) apparmor: bool,
    pub(crate) seccomp: bool,
    pub(crate) storage_driver: &'static str,
    /// What a specification is built with.
    pub(crate) spec: SpecHost,
    pub(crate) features: Vec<HostFeature>,
    pub(crate) warnings: Vec<String>,
}

/// Which limits can be set.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent fact about the kernel")]
pub(crate) struct Limits {
    pub(crate) memory: bool,
    pub(crate) swap: bool,
    pub(crate) cpu_quota: bool,
    pub(crate) cpu_shares: bool,
    pub(crate) cpuset: bool,
    pub(crate) cpu_realtime: bool,
    pub(crate) pids: bool,
    pub(crate) oom_kill_disable: bool,
    pub(crate) kernel_memory_tcp: bool,
    pub(crate) blkio_weight: bool,
}

/// The bounding set of the daemon: what containers can be given at most.
const STATUS: &str = "/proc/self/status";

impl Host {
    /// Looks at everything.
    pub(crate) fn probe(options: &EngineOptions, backend: Backend) -> Host {
        let uname = rustix::system::uname();
        let kernel = uname.release().to_string_lossy().into_owned();
        let cgroups = CgroupMounts::read();
        let limits = cgroups.limits();
        let release = OsRelease::read();
        let mut host = Host {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            operating_system: release.get("PRETTY_NAME").unwrap_or("Linux").to_owned(),
            os_version: release.get("VERSION_ID").unwrap_or_default().to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cpu_numbers: numbers("/sys/devices/system/cpu/online"),
            memory_nodes: numbers("/sys/devices/system/node/online"),
            memory_bytes: memory_bytes(),
            cgroup_version: cgroups.version(),
            limits,
            apparmor: text("/sys/module/apparmor/parameters/enabled").trim() == "Y",
            seccomp: text(STATUS).contains("\nSeccomp:"),
            storage_driver: storage_driver(backend),
            spec: SpecHost {
                capabilities: capabilities(),
                swap_limit: limits.swap,
                recursive_read_only: at_least(&kernel, 5, 12),
                message_queues: Path::new("/dev/mqueue").exists(),
                thermal_paths: thermal_paths(),
                apparmor_default: false,
            },
            kernel,
            features: Vec::new(),
            warnings: Vec::new(),
        };
        if host.memory_nodes.is_empty() {
            host.memory_nodes = vec![0];
        }
        let apparmor = if host.apparmor { apparmor::load() } else { Err("not in this kernel, or off".to_owned()) };
        host.spec.apparmor_default = apparmor.is_ok();
        host.features = host.feature_list(options, &cgroups, &apparmor);
        host.warnings = host.warning_list();
        host
    }

    fn feature_list(
        &self,
        options: &EngineOptions,
        cgroups: &CgroupMounts,
        apparmor: &Result<(), String>,
    ) -> Vec<HostFeature> {
        let feature =
            |name: &str, available: bool, detail: String| HostFeature { name: name.into(), available, detail };
        let probe = snapshots::probe(&options.root);
        let reason = |result: &Result<(), String>| result.as_ref().err().cloned().unwrap_or_default();
        vec![
            feature("cgroups", cgroups.version() != 0, cgroups.describe()),
            feature("layers from tar files (file-backed EROFS)", probe.erofs_file.is_ok(), reason(&probe.erofs_file)),
            feature(
                "layers from tar files (EROFS over loop devices)",
                probe.erofs_loop.is_ok(),
                reason(&probe.erofs_loop),
            ),
            feature("seccomp", self.seccomp, String::new()),
            feature("AppArmor", apparmor.is_ok(), apparmor.as_ref().err().cloned().unwrap_or_default()),
            feature(
                "raising limits (CAP_SYS_RESOURCE)",
                self.has("CAP_SYS_RESOURCE"),
                if self.has("CAP_SYS_RESOURCE") {
                    String::new()
                } else {
                    "hard limits cannot be raised nor OOM scores lowered".into()
                },
            ),
            feature("memory and swap limits", self.limits.swap, String::new()),
            feature("CPU quotas", self.limits.cpu_quota, String::new()),
            feature("block I/O weights", self.limits.blkio_weight, String::new()),
            feature("processes limit", self.limits.pids, String::new()),
        ]
    }

    /// Docker's sentences where it has them.
    fn warning_list(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut unless = |available: bool, warning: &str| {
            if !available {
                warnings.push(warning.to_owned());
            }
        };
        unless(self.limits.memory, "WARNING: No memory limit support");
        unless(self.limits.swap, "WARNING: No swap limit support");
        unless(self.limits.cpu_quota, "WARNING: No cpu cfs quota support");
        unless(self.limits.cpu_shares, "WARNING: No cpu shares support");
        unless(self.limits.cpuset, "WARNING: No cpuset support");
        unless(self.limits.pids, "WARNING: No pids limit support");
        unless(self.limits.blkio_weight, "WARNING: No blkio weight support");
        unless(self.seccomp, "WARNING: No seccomp support");
        unless(
            self.has("CAP_SYS_RESOURCE"),
            "WARNING: No CAP_SYS_RESOURCE: hard limits cannot be raised and OOM scores cannot be lowered",
        );
        warnings
    }

    fn has(&self, capability: &str) -> bool {
        self.spec.capabilities.iter().any(|name| name == capability)
    }

    /// As the model has it.
    pub(crate) fn limit_support(&self) -> LimitSupport {
        let limits = self.limits;
        LimitSupport {
            memory: limits.memory,
            swap: limits.swap,
            cpu_quota: limits.cpu_quota,
            cpu_shares: limits.cpu_shares,
            cpuset: limits.cpuset,
            pids: limits.pids,
            oom_kill_disable: limits.oom_kill_disable,
            kernel_memory_tcp: limits.kernel_memory_tcp,
            blkio_weight: limits.blkio_weight,
        }
    }

    /// A host with everything and two CPUs.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Host {
        let all = Limits {
            memory: true,
            swap: true,
            cpu_quota: true,
            cpu_shares: true,
            cpuset: true,
            cpu_realtime: false,
            pids: true,
            oom_kill_disable: true,
            kernel_memory_tcp: true,
            blkio_weight: true,
        };
        Host {
            hostname: "host".into(),
            kernel: "6.12.0".into(),
            operating_system: "Linux".into(),
            os_version: String::new(),
            cpus: 2,
            cpu_numbers: vec![0, 1],
            memory_nodes: vec![0],
            memory_bytes: 1 << 34,
            cgroup_version: 1,
            limits: all,
            apparmor: false,
            seccomp: true,
            storage_driver: "erofs",
            spec: SpecHost::default(),
            features: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// Where controllers are mounted.
#[derive(Debug, Default)]
struct CgroupMounts {
    /// cgroup v1: controller to mount point.
    v1: BTreeMap<String, PathBuf>,
    /// cgroup v2's mount point.
    v2: Option<PathBuf>,
}

impl CgroupMounts {
    fn read() -> Self {
        Self::parse(&text("/proc/self/mountinfo"))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut mounts = Self::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let (Some(target), mut after) = (before.split(' ').nth(4), after.split(' ')) else { continue };
            match (after.next(), after.nth(1)) {
                (Some("cgroup2"), _) => mounts.v2 = Some(target.into()),
                (Some("cgroup"), Some(options)) => {
                    mounts.v1.extend(options.split(',').map(|option| (option.to_owned(), PathBuf::from(target))));
                }
                _ => {}
            }
        }
        mounts
    }

    /// A hybrid layout counts as 1: the controllers that matter are there.
    fn version(&self) -> u8 {
        match (self.v1.contains_key("memory") || self.v1.contains_key("pids"), &self.v2) {
            (true, _) => 1,
            (false, Some(_)) => 2,
            (false, None) => 0,
        }
    }

    fn describe(&self) -> String {
        match (self.version(), &self.v2) {
            (1, Some(_)) => "version 1, hybrid".into(),
            (1, None) => "version 1".into(),
            (2, _) => "version 2".into(),
            _ => "none mounted".into(),
        }
    }

    fn limits(&self) -> Limits {
        match &self.v2 {
            Some(root) if self.version() == 2 => Self::v2_limits(root),
            _ => self.v1_limits(),
        }
    }

    fn v1_limits(&self) -> Limits {
        let file = |controller: &str, name: &str| self.v1.get(controller).is_some_and(|path| path.join(name).exists());
        Limits {
            memory: self.v1.contains_key("memory"),
            swap: file("memory", "memory.memsw.limit_in_bytes"),
            cpu_quota: file("cpu", "cpu.cfs_quota_us"),
            cpu_shares: file("cpu", "cpu.shares"),
            cpuset: self.v1.contains_key("cpuset"),
            cpu_realtime: file("cpu", "cpu.rt_runtime_us"),
            pids: self.v1.contains_key("pids"),
            oom_kill_disable: file("memory", "memory.oom_control"),
            kernel_memory_tcp: file("memory", "memory.kmem.tcp.limit_in_bytes"),
            blkio_weight: file("blkio", "blkio.weight") || file("blkio", "blkio.bfq.weight"),
        }
    }

    fn v2_limits(root: &Path) -> Limits {
        let controllers = text(root.join("cgroup.controllers"));
        let has = |name: &str| controllers.split_ascii_whitespace().any(|controller| controller == name);
        let swap = fs::metadata("/proc/swaps").is_ok();
        Limits {
            memory: has("memory"),
            swap: has("memory") && swap,
            cpu_quota: has("cpu"),
            cpu_shares: has("cpu"),
            cpuset: has("cpuset"),
            cpu_realtime: false,
            pids: has("pids"),
            oom_kill_disable: false,
            kernel_memory_tcp: false,
            blkio_weight: has("io"),
        }
    }
}

/// `/etc/os-release`.
#[derive(Debug)]
struct OsRelease(BTreeMap<String, String>);

impl OsRelease {
    fn read() -> Self {
        let content = match text("/etc/os-release") {
            empty if empty.is_empty() => text("/usr/lib/os-release"),
            content => content,
        };
        let pairs = content.lines().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn numbers(path: &str) -> Vec<usize> {
    parse_set(text(path).trim()).unwrap_or_default()
}

fn memory_bytes() -> u64 {
    let meminfo = text("/proc/meminfo");
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Names of the capabilities in the bounding set.
fn capabilities() -> Vec<String> {
    let status = text(STATUS);
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let mask = mask.unwrap_or(0);
    let names = crate::model::CAPABILITIES.iter().enumerate();
    names.filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, name)| (*name).to_owned()).collect()
}

/// Whether `6.18.0-x` is at least this version.
fn at_least(kernel: &str, major: u32, minor: u32) -> bool {
    let mut parts = kernel.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
}

fn thermal_paths() -> Vec<String> {
    let entries = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path().join("thermal_throttle")).filter(|path| path.exists());
    paths.map(|path| path.display().to_string()).collect()
}

fn storage_driver(backend: Backend) -> &'static str {
    match backend {
        Backend::ErofsFile => "erofs",
        Backend::ErofsLoop => "erofs-loop",
        Backend::Directories => "directories",
    }
}

#[cfg(test)]
mod tests {
    use super::{CgroupMounts, at_least};

    #[test]
    fn hybrid_layouts_count_as_version_1() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let mounts = CgroupMounts::parse(hybrid);
        assert_eq!((mounts.version(), mounts.describe().as_str()), (1, "version 1, hybrid"));
        let unified = CgroupMounts::parse("31 25 0:27 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n");
        assert_eq!(unified.version(), 2);
        assert_eq!(CgroupMounts::parse("").version(), 0);
    }

    #[test]
    fn kernel_versions_compare_as_numbers() {
        assert!(at_least("6.18.0-rc1", 5, 12) && at_least("5.12.1", 5, 12));
        assert!(!at_least("5.9.16", 5, 12) && !at_least("4.19", 5, 12));
    }
}
