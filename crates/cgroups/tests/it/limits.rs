//! Limits are written, and they bind.

use std::time::{Duration, Instant};

use cgroups::{ApplyError, Controller};
use oci::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
};

use crate::support::{Scratch, eventually, is_v2};

const MIB: i64 = 1 << 20;

fn memory(limit: i64, swap: i64) -> LinuxResources {
    let memory = LinuxMemory { limit: Some(limit), swap: Some(swap), ..LinuxMemory::default() };
    LinuxResources { memory: Some(memory), ..LinuxResources::default() }
}

fn cpu(cpu: LinuxCpu) -> LinuxResources {
    LinuxResources { cpu: Some(cpu), ..LinuxResources::default() }
}

#[test]
fn a_memory_limit_kills_and_is_noticed() {
    let scratch = Scratch::with("memory", &memory(16 * MIB, 16 * MIB));
    let watch = scratch.cgroup.watch_oom().unwrap().unwrap();
    assert_eq!(scratch.cgroup.oom_kills().unwrap(), 0);
    let shell = scratch.spawn("exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    assert_eq!(shell.killed_by(), Some(9));
    assert!(scratch.cgroup.oom_kills().unwrap() >= 1);
    assert!(is_readable(&watch), "no word of it came");
    watch.drain();
    assert!(scratch.cgroup.stats().unwrap().memory.oom_kills >= 1);
}

#[test]
fn memory_limits_go_up_and_down_in_either_order() {
    let scratch = Scratch::new("memory-order");
    let read = || scratch.file_of(Controller::Memory, "memory.limit_in_bytes", "memory.max");
    let read_swap = || scratch.file_of(Controller::Memory, "memory.memsw.limit_in_bytes", "memory.swap.max");
    for (limit, swap) in [(64, 128), (256, 512), (32, 32), (1024, 2048), (16, 64)] {
        scratch.cgroup.update(&memory(limit * MIB, swap * MIB)).unwrap();
        assert_eq!(read(), (limit * MIB).to_string());
        let expected = if is_v2(&scratch.host) { swap - limit } else { swap };
        assert_eq!(read_swap(), (expected * MIB).to_string());
    }
    let lifted = LinuxMemory { limit: Some(-1), ..LinuxMemory::default() };
    scratch.cgroup.update(&LinuxResources { memory: Some(lifted), ..LinuxResources::default() }).unwrap();
    assert_eq!(scratch.cgroup.stats().unwrap().memory.memory.limit, u64::MAX);
}

#[test]
fn a_limit_below_the_use_is_refused() {
    let scratch = Scratch::with("memory-use", &memory(256 * MIB, 256 * MIB));
    // dd holds its block while it sleeps on a pipe that nobody reads.
    let _shell = scratch.spawn("dd if=/dev/zero bs=48M count=2 | sleep 100");
    crate::support::eventually("the memory is used", || scratch.cgroup.stats().unwrap().memory.memory.usage > 48 << 20);
    let mut resources = memory(4 * MIB, 4 * MIB);
    if let Some(memory) = &mut resources.memory {
        memory.check_before_update = Some(true);
    }
    // Anonymous memory cannot be reclaimed without swap; with swap v1's kernel may manage.
    match scratch.cgroup.update(&resources) {
        Err(ApplyError::MemoryInUse { limit, usage }) => assert!(usage > limit.unsigned_abs()),
        other => assert!(has_swap(), "{other:?}"),
    }
}

#[test]
fn a_quota_throttles() {
    let scratch =
        Scratch::with("quota", &cpu(LinuxCpu { quota: Some(10_000), period: Some(100_000), ..LinuxCpu::default() }));
    let started = Instant::now();
    let _shell = scratch.spawn("while :; do :; done");
    std::thread::sleep(Duration::from_millis(1500));
    // A busy machine may leave the loop less than its quota for a while.
    eventually("it is throttled", || scratch.cgroup.stats().unwrap().cpu.throttled_periods > 2);
    let (stats, elapsed) = (scratch.cgroup.stats().unwrap(), started.elapsed());
    assert!(stats.cpu.throttled_periods > 2 && stats.cpu.throttled_ns > 0, "{:?}", stats.cpu);
    // A tenth is granted; a quarter leaves room for slices that run over.
    assert!(u128::from(stats.cpu.usage_ns) < elapsed.as_nanos() / 4, "{:?} in {elapsed:?}", stats.cpu);
    assert!(stats.cpu.usage_ns > 0);
}

#[test]
fn cpu_values_are_converted() {
    let scratch = Scratch::with(
        "cpu",
        &cpu(LinuxCpu { shares: Some(512), quota: Some(50_000), period: Some(200_000), ..LinuxCpu::default() }),
    );
    if is_v2(&scratch.host) {
        assert_eq!(scratch.file("cpu.weight").as_deref(), Some("59"));
        assert_eq!(scratch.file("cpu.max").as_deref(), Some("50000 200000"));
        scratch.cgroup.update(&cpu(LinuxCpu { period: Some(100_000), ..LinuxCpu::default() })).unwrap();
        assert_eq!(scratch.file("cpu.max").as_deref(), Some("50000 100000"), "a new period lifted the quota");
    } else {
        assert_eq!(scratch.file("cpu.shares").as_deref(), Some("512"));
        assert_eq!(scratch.file("cpu.cfs_quota_us").as_deref(), Some("50000"));
        assert_eq!(scratch.file("cpu.cfs_period_us").as_deref(), Some("200000"));
    }
    scratch.cgroup.update(&cpu(LinuxCpu { quota: Some(-1), ..LinuxCpu::default() })).unwrap();
    let quota = scratch.file_of(Controller::Cpu, "cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "-1" || quota.starts_with("max "), "{quota}");
}

#[test]
fn burst_and_idle_are_set() {
    let wanted = LinuxCpu { quota: Some(50_000), period: Some(100_000), burst: Some(20_000), ..LinuxCpu::default() };
    let scratch = Scratch::with("burst", &cpu(wanted));
    assert_eq!(scratch.file_of(Controller::Cpu, "cpu.cfs_burst_us", "cpu.max.burst"), "20000");
    scratch.cgroup.update(&cpu(LinuxCpu { idle: Some(1), shares: Some(2), ..LinuxCpu::default() })).unwrap();
    assert_eq!(scratch.file("cpu.idle").as_deref(), Some("1"));
    // An idle group takes no shares: the kernel wants it busy first.
    scratch.cgroup.update(&cpu(LinuxCpu { idle: Some(0), shares: Some(1024), ..LinuxCpu::default() })).unwrap();
    assert_eq!(scratch.file("cpu.idle").as_deref(), Some("0"));
}

#[test]
fn processors_are_chosen() {
    let scratch =
        Scratch::with("cpuset", &cpu(LinuxCpu { cpus: "0".to_owned(), mems: "0".to_owned(), ..LinuxCpu::default() }));
    assert_eq!(scratch.file("cpuset.cpus").as_deref(), Some("0"));
    assert_eq!(
        scratch.spawn("grep Cpus_allowed_list /proc/self/status").output().split_ascii_whitespace().last(),
        Some("0")
    );
    let error = scratch.cgroup.update(&cpu(LinuxCpu { cpus: "0-9999".to_owned(), ..LinuxCpu::default() })).unwrap_err();
    assert!(matches!(error, ApplyError::File { field: "cpu.cpus", .. }), "{error}");
}

#[test]
fn a_pids_limit_stops_a_fork_bomb() {
    let resources = LinuxResources { pids: Some(LinuxPids { limit: Some(8) }), ..LinuxResources::default() };
    let scratch = Scratch::with("pids", &resources);
    let shell = scratch.spawn("bomb() { bomb | bomb & }; bomb; sleep 100");
    let refused =
        || scratch.file("pids.events").unwrap().lines().any(|line| line.starts_with("max ") && line != "max 0");
    eventually("a fork is refused", refused);
    let stats = scratch.cgroup.stats().unwrap();
    assert!(stats.pids.current <= 8 && stats.pids.limit == Some(8), "{:?}", stats.pids);
    scratch.cgroup.kill_all().unwrap();
    shell.wait();
    let lifted = LinuxResources { pids: Some(LinuxPids { limit: Some(-1) }), ..LinuxResources::default() };
    scratch.cgroup.update(&lifted).unwrap();
    assert_eq!(scratch.file("pids.max").as_deref(), Some("max"));
}

#[test]
fn throttles_of_block_devices_are_in_the_files() {
    let Some((major, minor)) = block_device() else { return };
    let throttle = |rate| vec![LinuxThrottleDevice { major, minor, rate }];
    let block_io = LinuxBlockIo {
        throttle_read_bps_device: throttle(1 << 20),
        throttle_write_bps_device: throttle(2 << 20),
        throttle_read_iops_device: throttle(100),
        throttle_write_iops_device: throttle(200),
        ..LinuxBlockIo::default()
    };
    let scratch = Scratch::with("throttle", &LinuxResources { block_io: Some(block_io), ..LinuxResources::default() });
    if is_v2(&scratch.host) {
        let expected = format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200");
        assert_eq!(scratch.file("io.max").as_deref(), Some(expected.as_str()));
    } else {
        for (file, rate) in [("read_bps", 1 << 20), ("write_bps", 2 << 20), ("read_iops", 100), ("write_iops", 200)] {
            let content = scratch.file(&format!("blkio.throttle.{file}_device")).unwrap();
            assert_eq!(content, format!("{major}:{minor} {rate}"));
        }
    }
}

#[test]
fn a_weight_is_in_the_file_or_refused_by_name() {
    let scratch = Scratch::new("weight");
    let block_io = LinuxBlockIo { weight: Some(200), ..LinuxBlockIo::default() };
    let resources = LinuxResources { block_io: Some(block_io), ..LinuxResources::default() };
    match scratch.cgroup.apply(&resources) {
        Ok(_) => {
            let names = ["blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight"];
            let content = names.into_iter().find_map(|name| scratch.file(name)).unwrap();
            assert!(["200", "default 200", "default 1920"].contains(&content.as_str()), "{content}");
        }
        Err(error) => assert!(matches!(error, ApplyError::NoFile { field: "blockIO.weight", .. }), "{error}"),
    }
}

#[test]
fn huge_pages_are_limited() {
    let limits = vec![LinuxHugepageLimit { page_size: "2MB".to_owned(), limit: 4 << 20 }];
    let resources = LinuxResources { hugepage_limits: limits, ..LinuxResources::default() };
    let scratch = Scratch::new("hugetlb");
    if !scratch.host.has(Controller::Hugetlb) {
        let error = scratch.cgroup.apply(&resources).unwrap_err();
        assert!(matches!(error, ApplyError::NoController { controller: Controller::Hugetlb, .. }), "{error}");
        return;
    }
    scratch.cgroup.apply(&resources).unwrap();
    assert_eq!(scratch.file_of(Controller::Hugetlb, "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"), "4194304");
}

#[test]
fn unified_is_for_v2_alone() {
    let scratch = Scratch::new("unified");
    let unified = [("memory.high".to_owned(), "33554432".to_owned())].into();
    let resources = LinuxResources { unified, ..LinuxResources::default() };
    match scratch.cgroup.apply(&resources) {
        Ok(_) => {
            assert!(is_v2(&scratch.host));
            assert_eq!(scratch.file("memory.high").as_deref(), Some("33554432"));
        }
        Err(error) => assert!(
            !is_v2(&scratch.host) && matches!(error, ApplyError::Unsupported { field: "unified", .. }),
            "{error}"
        ),
    }
}

#[test]
fn what_the_machine_lacks_is_named() {
    let scratch = Scratch::new("lacking");
    if scratch.host.has(Controller::NetCls) {
        return;
    }
    let network = oci::runtime::LinuxNetwork { class_id: Some(1), ..oci::runtime::LinuxNetwork::default() };
    let error =
        scratch.cgroup.apply(&LinuxResources { network: Some(network), ..LinuxResources::default() }).unwrap_err();
    assert_eq!(error.to_string(), "network.classID needs the cgroup controller net_cls, which is not available");
}

#[test]
fn real_time_is_granted_down_the_tree() {
    let host = cgroups::Host::detect().unwrap();
    let parent = crate::support::scratch_path("realtime");
    let path = cgroups::CgroupPath::parse(&format!("{parent}/inner/leaf")).unwrap();
    let cgroup = cgroups::Cgroup::create(&host, &path).unwrap();
    let wanted = cpu(LinuxCpu { realtime_period: Some(500_000), realtime_runtime: Some(1000), ..LinuxCpu::default() });
    let place = cgroup.paths().find(|place| place.path.join("cpu.rt_runtime_us").exists());
    match (cgroup.update(&wanted), place) {
        (result, Some(place)) => {
            result.unwrap();
            assert_eq!(std::fs::read_to_string(place.path.join("cpu.rt_runtime_us")).unwrap(), "1000\n");
            assert_eq!(std::fs::read_to_string(place.path.join("cpu.rt_period_us")).unwrap(), "500000\n");
        }
        // v2 has no such limit, and some kernels of v1 are built without it.
        (result, None) => assert!(result.is_err()),
    }
    cgroup.remove().unwrap();
    for path in [format!("{parent}/inner"), parent.to_string()] {
        assert!(host.remove_empty(&cgroups::CgroupPath::parse(&path).unwrap()));
    }
}

#[test]
fn packets_are_marked_where_v1_has_the_controllers() {
    let scratch = Scratch::new("packets");
    if !scratch.host.has(Controller::NetCls) || !scratch.host.has(Controller::NetPrio) {
        return;
    }
    let priorities = vec![oci::runtime::LinuxInterfacePriority { name: "lo".to_owned(), priority: 5 }];
    let network = oci::runtime::LinuxNetwork { class_id: Some(0x10001), priorities };
    scratch.cgroup.apply(&LinuxResources { network: Some(network), ..LinuxResources::default() }).unwrap();
    assert_eq!(scratch.file("net_cls.classid").as_deref(), Some("65537"));
    assert!(scratch.file("net_prio.ifpriomap").unwrap().lines().any(|line| line == "lo 5"));
}

fn is_readable(fd: &impl std::os::fd::AsFd) -> bool {
    let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap() == 1
}

fn has_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").unwrap().lines().count() > 1
}

/// Any whole block device: limits can be set on it without touching it.
fn block_device() -> Option<(i64, i64)> {
    let entries = std::fs::read_dir("/sys/block").ok()?;
    let number = |entry: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(entry.ok()?.path().join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    entries.filter_map(number).next()
}
