//! New limits for a container that exists; pure.

use super::validate;
use crate::host::Host;
use crate::model::{ContainerSpec, EngineError, Resources, UpdateRequest};

/// Changes what the request names and checks the result as a create would.
pub(super) fn apply(spec: &mut ContainerSpec, request: &UpdateRequest, host: &Host) -> Result<(), EngineError> {
    validate::one_cpu_limit(&request.resources)?;
    let mut resources = spec.resources.clone();
    merge(&mut resources, &request.resources)?;
    if let Some(limit) = request.pids_limit {
        resources.pids_limit = (limit > 0).then_some(limit);
    }
    if resources.nano_cpus > 0 && (request.resources.cpu_period_us > 0 || request.resources.cpu_quota_us > 0) {
        return Err(EngineError::conflict(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        ));
    }
    validate::resources(&mut resources, host)?;
    if let Some(policy) = request.restart {
        if spec.auto_remove && super::actor::comes_back(policy) {
            return Err(EngineError::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        spec.restart = policy;
    }
    spec.resources = resources;
    Ok(())
}

/// Zero and empty mean: as it was.
fn merge(resources: &mut Resources, wanted: &Resources) -> Result<(), EngineError> {
    let keep = |current: i64, new: i64| if new == 0 { current } else { new };
    let memory_before = resources.memory_bytes;
    resources.memory_bytes = keep(resources.memory_bytes, wanted.memory_bytes);
    resources.memory_swap_bytes = keep(resources.memory_swap_bytes, wanted.memory_swap_bytes);
    resources.memory_reservation_bytes = keep(resources.memory_reservation_bytes, wanted.memory_reservation_bytes);
    resources.cpu_shares = keep(resources.cpu_shares, wanted.cpu_shares);
    resources.cpu_period_us = keep(resources.cpu_period_us, wanted.cpu_period_us);
    resources.cpu_quota_us = keep(resources.cpu_quota_us, wanted.cpu_quota_us);
    resources.nano_cpus = keep(resources.nano_cpus, wanted.nano_cpus);
    if wanted.nano_cpus > 0 {
        (resources.cpu_period_us, resources.cpu_quota_us) = (wanted.cpu_period_us, wanted.cpu_quota_us);
    }
    if wanted.blkio_weight != 0 {
        resources.blkio_weight = wanted.blkio_weight;
    }
    if !wanted.cpuset_cpus.is_empty() {
        resources.cpuset_cpus.clone_from(&wanted.cpuset_cpus);
    }
    if !wanted.cpuset_mems.is_empty() {
        resources.cpuset_mems.clone_from(&wanted.cpuset_mems);
    }
    let grows_past_swap = wanted.memory_bytes > resources.memory_swap_bytes
        && resources.memory_swap_bytes > 0
        && wanted.memory_swap_bytes == 0
        && memory_before != wanted.memory_bytes;
    if grows_past_swap {
        return Err(EngineError::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    refuse_unchangeable(wanted)
}

/// Docker ignores some of these; an option that has no effect is refused here.
fn refuse_unchangeable(wanted: &Resources) -> Result<(), EngineError> {
    let unchangeable = [
        ("BlkioWeightDevice", wanted.blkio_weight_device.is_empty()),
        ("BlkioDeviceReadBps", wanted.blkio_read_bps.is_empty()),
        ("BlkioDeviceWriteBps", wanted.blkio_write_bps.is_empty()),
        ("BlkioDeviceReadIOps", wanted.blkio_read_iops.is_empty()),
        ("BlkioDeviceWriteIOps", wanted.blkio_write_iops.is_empty()),
        ("Devices", wanted.devices.is_empty()),
        ("DeviceCgroupRules", wanted.device_cgroup_rules.is_empty()),
        ("Ulimits", wanted.ulimits.is_empty()),
        ("CgroupParent", wanted.cgroup_parent.is_empty()),
        ("CpuRealtimePeriod", wanted.cpu_realtime_period_us == 0),
        ("CpuRealtimeRuntime", wanted.cpu_realtime_runtime_us == 0),
        ("KernelMemoryTCP", wanted.kernel_memory_tcp_bytes == 0),
        ("MemorySwappiness", wanted.memory_swappiness.is_none()),
        ("OomKillDisable", wanted.oom_kill_disable.is_none_or(|disable| !disable)),
    ];
    match unchangeable.iter().find(|(_, unchanged)| !unchanged) {
        None => Ok(()),
        Some((field, _)) => {
            Err(EngineError::not_implemented(format!("{field} of a container cannot be changed by update")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::apply;
    use crate::host::Host;
    use crate::model::{ContainerSpec, Resources, RestartPolicy, UpdateRequest};

    fn memory(bytes: i64) -> UpdateRequest {
        UpdateRequest {
            resources: Resources { memory_bytes: bytes, ..Resources::default() },
            ..UpdateRequest::default()
        }
    }

    #[test]
    fn only_what_is_named_changes() {
        let mut spec = ContainerSpec::default();
        spec.resources.cpu_shares = 512;
        apply(&mut spec, &memory(64 << 20), &Host::for_tests()).unwrap();
        assert_eq!((spec.resources.memory_bytes, spec.resources.cpu_shares), (64 << 20, 512));
        let pids = UpdateRequest { pids_limit: Some(-1), ..UpdateRequest::default() };
        spec.resources.pids_limit = Some(5);
        apply(&mut spec, &pids, &Host::for_tests()).unwrap();
        assert_eq!(spec.resources.pids_limit, None);
    }

    #[test]
    fn contradictions_are_refused() {
        let mut spec = ContainerSpec { auto_remove: true, ..ContainerSpec::default() };
        let restart = UpdateRequest { restart: Some(RestartPolicy::Always), ..UpdateRequest::default() };
        assert!(apply(&mut spec, &restart, &Host::for_tests()).is_err());
        assert!(apply(&mut spec, &memory(1024), &Host::for_tests()).is_err());
        spec.resources.memory_swap_bytes = 128 << 20;
        spec.resources.memory_bytes = 64 << 20;
        assert!(apply(&mut spec, &memory(256 << 20), &Host::for_tests()).unwrap_err().message().contains("memoryswap"));
        let ulimits = UpdateRequest {
            resources: Resources { cgroup_parent: "/x".into(), ..Resources::default() },
            ..UpdateRequest::default()
        };
        assert!(apply(&mut spec, &ulimits, &Host::for_tests()).unwrap_err().message().starts_with("CgroupParent"));
    }
}
