//! What is written for which limits, in both versions, without a kernel; and the order against a kernel that refuses some.

use std::collections::BTreeMap;

use oci::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxRdma, LinuxThrottleDevice, LinuxWeightDevice,
};

use super::*;
use crate::host::Host;
use crate::path::CgroupPath;

/// The writes of a plan as `file=value`, in order.
fn writes(version: Version, resources: &LinuxResources) -> Vec<String> {
    let plan = plan(resources, &|_| Some(version)).unwrap();
    let limits =
        plan.batches.iter().flat_map(|batch| &batch.writes).map(|write| format!("{}={}", write.file, write.value));
    limits.chain(plan.unified.iter().map(|(file, value)| format!("{file}={value}"))).collect()
}

fn error(version: Option<Version>, resources: &LinuxResources) -> String {
    plan(resources, &|_| version).unwrap_err().to_string()
}

fn check(resources: &LinuxResources, v1: &[&str], v2: &[&str]) {
    assert_eq!(writes(Version::V1, resources), v1);
    assert_eq!(writes(Version::V2, resources), v2);
}

fn of_cpu(cpu: LinuxCpu) -> LinuxResources {
    LinuxResources { cpu: Some(cpu), ..LinuxResources::default() }
}

fn of_memory(memory: LinuxMemory) -> LinuxResources {
    LinuxResources { memory: Some(memory), ..LinuxResources::default() }
}

fn of_block_io(block_io: LinuxBlockIo) -> LinuxResources {
    LinuxResources { block_io: Some(block_io), ..LinuxResources::default() }
}

#[test]
fn nothing_is_written_for_nothing() {
    check(&LinuxResources::default(), &[], &[]);
    check(&of_cpu(LinuxCpu::default()), &[], &[]);
    check(&of_memory(LinuxMemory::default()), &[], &[]);
    check(&of_block_io(LinuxBlockIo::default()), &[], &[]);
    let zeros =
        LinuxCpu { shares: Some(0), quota: Some(0), period: Some(0), realtime_runtime: Some(0), ..LinuxCpu::default() };
    check(&of_cpu(zeros), &[], &[]);
}

#[test]
fn cpu_fields() {
    let cpu = LinuxCpu {
        shares: Some(512),
        quota: Some(50_000),
        period: Some(100_000),
        burst: Some(1000),
        idle: Some(1),
        cpus: "0-1".to_owned(),
        mems: "0".to_owned(),
        ..LinuxCpu::default()
    };
    check(
        &of_cpu(cpu),
        &[
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
            "cpu.shares=512",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "cpu.cfs_burst_us=1000",
            "cpu.idle=1",
        ],
        &[
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
            "cpu.weight=59",
            "cpu.max=50000 100000",
            "cpu.max.burst=1000",
            "cpu.idle=1",
        ],
    );
    check(&of_cpu(LinuxCpu { quota: Some(-1), ..LinuxCpu::default() }), &["cpu.cfs_quota_us=-1"], &["cpu.max=max"]);
    check(
        &of_cpu(LinuxCpu { period: Some(200_000), ..LinuxCpu::default() }),
        &["cpu.cfs_period_us=200000"],
        &["cpu.max=max 200000"],
    );
    let realtime =
        of_cpu(LinuxCpu { realtime_period: Some(1_000_000), realtime_runtime: Some(950_000), ..LinuxCpu::default() });
    assert_eq!(writes(Version::V1, &realtime), ["cpu.rt_period_us=1000000", "cpu.rt_runtime_us=950000"]);
    assert!(error(Some(Version::V2), &realtime).contains("cpu.realtimeRuntime is not supported"));
}

#[test]
fn shares_become_weights_as_in_runc() {
    for (shares, weight) in
        [(0, 0), (1, 1), (2, 1), (10, 4), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000), (u64::MAX, 10_000)]
    {
        assert_eq!(convert::cpu_weight_of_shares(shares), weight, "{shares}");
    }
    assert!(
        (2..262_144)
            .step_by(97)
            .all(|shares| convert::cpu_weight_of_shares(shares) <= convert::cpu_weight_of_shares(shares + 97))
    );
}

#[test]
fn memory_fields() {
    let memory = LinuxMemory {
        limit: Some(1000),
        swap: Some(3000),
        reservation: Some(500),
        kernel_tcp: Some(200),
        swappiness: Some(10),
        disable_oom_killer: Some(true),
        ..LinuxMemory::default()
    };
    check(
        &of_memory(memory.clone()),
        &[
            "memory.limit_in_bytes=1000",
            "memory.memsw.limit_in_bytes=3000",
            "memory.soft_limit_in_bytes=500",
            "memory.kmem.tcp.limit_in_bytes=200",
            "memory.swappiness=10",
            "memory.oom_control=1",
        ],
        &["memory.swap.max=2000", "memory.max=1000", "memory.low=500"],
    );
    let ignored: Vec<_> =
        plan(&of_memory(memory), &|_| Some(Version::V2)).unwrap().ignored.iter().map(|ignored| ignored.field).collect();
    assert_eq!(ignored, ["memory.kernelTCP", "memory.swappiness", "memory.disableOOMKiller"]);
    let kernel = LinuxMemory { kernel: Some(1), ..LinuxMemory::default() };
    assert_eq!(plan(&of_memory(kernel), &|_| Some(Version::V1)).unwrap().ignored[0].field, "memory.kernel");
}

#[test]
fn swap_is_part_of_the_sum_in_v1_and_alone_in_v2() {
    let memory = |limit, swap| of_memory(LinuxMemory { limit, swap, ..LinuxMemory::default() });
    check(
        &memory(Some(100), Some(100)),
        &["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=100"],
        &["memory.swap.max=0", "memory.max=100"],
    );
    check(
        &memory(Some(100), Some(-1)),
        &["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=-1"],
        &["memory.swap.max=max", "memory.max=100"],
    );
    check(
        &memory(Some(-1), None),
        &["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"],
        &["memory.swap.max=max", "memory.max=max"],
    );
    check(&memory(Some(100), None), &["memory.limit_in_bytes=100"], &["memory.max=100"]);
    for (limit, swap, word) in [
        (None, Some(5), "needs a memory limit"),
        (Some(10), Some(5), "less than memory"),
        (Some(-2), Some(5), "negative"),
    ] {
        assert!(error(Some(Version::V2), &memory(limit, swap)).contains(word));
    }
    let swappy = of_memory(LinuxMemory { swappiness: Some(101), ..LinuxMemory::default() });
    assert!(error(Some(Version::V1), &swappy).contains("between 0 and 100"));
}

#[test]
fn block_io_fields() {
    let throttle = |rate| vec![LinuxThrottleDevice { major: 8, minor: 16, rate }];
    let block_io = LinuxBlockIo {
        weight: Some(200),
        weight_device: vec![LinuxWeightDevice { major: 8, minor: 0, weight: Some(300), leaf_weight: None }],
        throttle_read_bps_device: throttle(1),
        throttle_write_bps_device: throttle(2),
        throttle_read_iops_device: throttle(3),
        throttle_write_iops_device: throttle(0),
        ..LinuxBlockIo::default()
    };
    check(
        &of_block_io(block_io.clone()),
        &[
            "blkio.bfq.weight=200",
            "blkio.bfq.weight_device=8:0 300",
            "blkio.throttle.read_bps_device=8:16 1",
            "blkio.throttle.write_bps_device=8:16 2",
            "blkio.throttle.read_iops_device=8:16 3",
            "blkio.throttle.write_iops_device=8:16 0",
        ],
        &[
            "io.bfq.weight=200",
            "io.bfq.weight=8:0 300",
            "io.max=8:16 rbps=1",
            "io.max=8:16 wbps=2",
            "io.max=8:16 riops=3",
            "io.max=8:16 wiops=max",
        ],
    );
    let plan = plan(&of_block_io(block_io), &|_| Some(Version::V2)).unwrap();
    assert_eq!(plan.batches[0].writes[0].missing, Missing::Use("io.weight", 1920));
    let leaf = of_block_io(LinuxBlockIo { leaf_weight: Some(100), ..LinuxBlockIo::default() });
    assert!(error(Some(Version::V1), &leaf).contains("blockIO.leafWeight is not supported"));
}

#[test]
fn the_other_controllers() {
    let resources = LinuxResources {
        pids: Some(oci::runtime::LinuxPids { limit: Some(0) }),
        hugepage_limits: vec![oci::runtime::LinuxHugepageLimit { page_size: "1GB".to_owned(), limit: 7 }],
        rdma: [("mlx".to_owned(), LinuxRdma { hca_handles: Some(2), hca_objects: Some(3) })].into(),
        ..LinuxResources::default()
    };
    check(
        &resources,
        &[
            "pids.max=1",
            "hugetlb.1GB.limit_in_bytes=7",
            "hugetlb.1GB.rsvd.limit_in_bytes=7",
            "rdma.max=mlx hca_handle=2 hca_object=3",
        ],
        &["pids.max=1", "hugetlb.1GB.max=7", "hugetlb.1GB.rsvd.max=7", "rdma.max=mlx hca_handle=2 hca_object=3"],
    );
    let priorities = vec![oci::runtime::LinuxInterfacePriority { name: "eth0".to_owned(), priority: 5 }];
    let network = LinuxResources {
        network: Some(LinuxNetwork { class_id: Some(0x10001), priorities }),
        ..LinuxResources::default()
    };
    assert_eq!(writes(Version::V1, &network), ["net_cls.classid=65537", "net_prio.ifpriomap=eth0 5"]);
}

#[test]
fn missing_controllers_and_bad_names_are_errors() {
    let pids = LinuxResources { pids: Some(oci::runtime::LinuxPids { limit: Some(5) }), ..LinuxResources::default() };
    assert_eq!(error(None, &pids), "pids.limit needs the cgroup controller pids, which is not available");
    for size in ["", "2M", "MB", "../2MB", "2MB/x"] {
        let limits = vec![oci::runtime::LinuxHugepageLimit { page_size: size.to_owned(), limit: 1 }];
        let resources = LinuxResources { hugepage_limits: limits, ..LinuxResources::default() };
        assert!(error(Some(Version::V2), &resources).contains("is not a page size"), "{size}");
    }
    for file in ["", "..", "a/b", "/x"] {
        let unified = BTreeMap::from([(file.to_owned(), "1".to_owned())]);
        let resources = LinuxResources { unified, ..LinuxResources::default() };
        assert!(error(Some(Version::V2), &resources).contains("is not a file's name"), "{file}");
        assert!(error(Some(Version::V1), &resources).contains("does not use cgroup v2"), "{file}");
    }
}

/// A v2 tree of ordinary files: what is written lands where it should, and what is missing is named.
#[test]
fn v2_writes_land_in_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let leaf = dir.path().join("parent/leaf");
    std::fs::create_dir_all(&leaf).unwrap();
    for file in ["cgroup.controllers", "parent/cgroup.controllers", "parent/leaf/cgroup.controllers"] {
        std::fs::write(dir.path().join(file), "cpu memory pids\n").unwrap();
    }
    for file in ["cgroup.procs", "cgroup.freeze", "cpu.weight", "cpu.max", "memory.max", "memory.high", "pids.max"] {
        std::fs::write(leaf.join(file), "").unwrap();
    }
    let host = Host::fake_v2(dir.path(), "");
    let cgroup = Cgroup::create(&host, &CgroupPath::parse("/parent/leaf").unwrap()).unwrap();
    let resources = LinuxResources {
        cpu: Some(LinuxCpu { shares: Some(1024), quota: Some(20_000), ..LinuxCpu::default() }),
        memory: Some(LinuxMemory { limit: Some(4096), swap: Some(4096), ..LinuxMemory::default() }),
        unified: [("memory.high".to_owned(), "2048".to_owned())].into(),
        ..LinuxResources::default()
    };
    assert!(cgroup.apply_limits(&resources).unwrap().is_empty());
    let read = |file: &str| std::fs::read_to_string(leaf.join(file)).unwrap();
    assert_eq!(
        (read("cpu.weight"), read("cpu.max"), read("memory.max"), read("memory.high")),
        ("100".into(), "20000".into(), "4096".into(), "2048".into())
    );

    let unified = [("memory.zswap.max".to_owned(), "1".to_owned())].into();
    let error = cgroup.apply_limits(&LinuxResources { unified, ..LinuxResources::default() }).unwrap_err();
    assert!(error.to_string().starts_with("unified is not supported by this kernel: there is no "), "{error}");
    let huge = vec![oci::runtime::LinuxHugepageLimit { page_size: "2MB".to_owned(), limit: 1 }];
    let error =
        cgroup.apply_limits(&LinuxResources { hugepage_limits: huge, ..LinuxResources::default() }).unwrap_err();
    assert!(matches!(error, ApplyError::NoController { controller: Controller::Hugetlb, .. }), "{error}");
}
