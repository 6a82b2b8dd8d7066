//! The limits of `HostConfig` and of updates.

use docker_api::ApiVersion;
use docker_api::container::{
    DeviceMapping, HostConfig, RestartPolicy as WireRestart, ThrottleDevice, Ulimit as WireUlimit, UpdateRequest,
    WeightDevice,
};
use engine::model::{self, BlkioRate, BlkioWeight, Device, DeviceRule, Resources, RestartPolicy, Ulimit};

use crate::error::{ApiError, ApiResult};

/// Reads the limits of a create.
pub(crate) fn parse(host: &HostConfig) -> ApiResult<Resources> {
    refuse_windows_limits(host)?;
    Ok(Resources {
        memory_bytes: host.memory,
        memory_swap_bytes: swap(host.memory, host.memory_swap),
        memory_reservation_bytes: host.memory_reservation,
        memory_swappiness: swappiness(host.memory_swappiness)?,
        kernel_memory_tcp_bytes: host.kernel_memory_tcp,
        oom_kill_disable: host.oom_kill_disable,
        nano_cpus: host.nano_cpus,
        cpu_shares: host.cpu_shares,
        cpu_period_us: host.cpu_period,
        cpu_quota_us: host.cpu_quota,
        cpu_realtime_period_us: host.cpu_realtime_period,
        cpu_realtime_runtime_us: host.cpu_realtime_runtime,
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        // 0 and every negative number mean unlimited.
        pids_limit: host.pids_limit.filter(|limit| *limit > 0),
        blkio_weight: host.blkio_weight,
        blkio_weight_device: weights(host.blkio_weight_device.as_deref()),
        blkio_read_bps: rates(host.blkio_device_read_bps.as_deref()),
        blkio_write_bps: rates(host.blkio_device_write_bps.as_deref()),
        blkio_read_iops: rates(host.blkio_device_read_iops.as_deref()),
        blkio_write_iops: rates(host.blkio_device_write_iops.as_deref()),
        ulimits: ulimits(host.ulimits.as_deref())?,
        devices: devices(host.devices.as_deref())?,
        device_cgroup_rules: device_rules(host.device_cgroup_rules.as_deref())?,
        cgroup_parent: host.cgroup_parent.clone(),
    })
}

/// A memory limit without a swap limit allows as much swap as memory.
fn swap(memory: i64, swap: i64) -> i64 {
    if memory > 0 && swap == 0 { memory.saturating_mul(2) } else { swap }
}

fn swappiness(value: Option<i64>) -> ApiResult<Option<u8>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => match u8::try_from(value) {
            Ok(value @ 0..=100) => Ok(Some(value)),
            _ => Err(ApiError::bad_request(format!("invalid value: {value}, valid memory swappiness range is 0-100"))),
        },
    }
}

fn refuse_windows_limits(host: &HostConfig) -> ApiResult<()> {
    let fields = [
        ("CpuCount", host.cpu_count != 0),
        ("CpuPercent", host.cpu_percent != 0),
        ("IOMaximumIOps", host.io_maximum_iops != 0),
        ("IOMaximumBandwidth", host.io_maximum_bandwidth != 0),
    ];
    match fields.iter().find(|(_, set)| *set) {
        Some((name, _)) => Err(ApiError::bad_request(format!("HostConfig.{name} is only supported on Windows"))),
        None => Ok(()),
    }
}

fn weights(devices: Option<&[WeightDevice]>) -> Vec<BlkioWeight> {
    let read = |device: &WeightDevice| BlkioWeight { path: device.path.clone(), weight: device.weight };
    devices.unwrap_or_default().iter().map(read).collect()
}

fn rates(devices: Option<&[ThrottleDevice]>) -> Vec<BlkioRate> {
    let read = |device: &ThrottleDevice| BlkioRate { path: device.path.clone(), rate: device.rate };
    devices.unwrap_or_default().iter().map(read).collect()
}

fn ulimits(limits: Option<&[WireUlimit]>) -> ApiResult<Vec<Ulimit>> {
    let read = |limit: &WireUlimit| Ulimit::new(&limit.name, limit.soft, limit.hard);
    Ok(limits.unwrap_or_default().iter().map(read).collect::<Result<_, _>>()?)
}

fn devices(devices: Option<&[DeviceMapping]>) -> ApiResult<Vec<Device>> {
    let read = |device: &DeviceMapping| {
        Device::new(&device.path_on_host, &device.path_in_container, &device.cgroup_permissions)
    };
    Ok(devices.unwrap_or_default().iter().map(read).collect::<Result<_, _>>()?)
}

fn device_rules(rules: Option<&[String]>) -> ApiResult<Vec<DeviceRule>> {
    Ok(rules.unwrap_or_default().iter().map(|rule| DeviceRule::parse(rule)).collect::<Result<_, _>>()?)
}

/// Reads a restart policy.
pub(crate) fn restart(policy: &WireRestart) -> ApiResult<RestartPolicy> {
    Ok(RestartPolicy::parse(&policy.name, policy.maximum_retry_count)?)
}

/// Reads an update; absent and zero fields change nothing.
pub(crate) fn parse_update(request: UpdateRequest, version: ApiVersion) -> ApiResult<model::UpdateRequest> {
    let restart = match request.restart_policy.name.as_str() {
        "" => None,
        _ => Some(restart(&request.restart_policy)?),
    };
    let pids_limit = request.pids_limit.filter(|_| version.at_least(40));
    let swap = request.memory_swap;
    let mut resources = parse(&as_host_config(request))?;
    // An update without a swap limit keeps the one that there is.
    resources.memory_swap_bytes = swap;
    Ok(model::UpdateRequest { resources, pids_limit, restart })
}

fn as_host_config(request: UpdateRequest) -> HostConfig {
    HostConfig {
        cpu_shares: request.cpu_shares,
        memory: request.memory,
        nano_cpus: request.nano_cpus,
        cgroup_parent: request.cgroup_parent,
        blkio_weight: request.blkio_weight,
        blkio_weight_device: request.blkio_weight_device,
        blkio_device_read_bps: request.blkio_device_read_bps,
        blkio_device_write_bps: request.blkio_device_write_bps,
        blkio_device_read_iops: request.blkio_device_read_iops,
        blkio_device_write_iops: request.blkio_device_write_iops,
        cpu_period: request.cpu_period,
        cpu_quota: request.cpu_quota,
        cpu_realtime_period: request.cpu_realtime_period,
        cpu_realtime_runtime: request.cpu_realtime_runtime,
        cpuset_cpus: request.cpuset_cpus,
        cpuset_mems: request.cpuset_mems,
        devices: request.devices,
        device_cgroup_rules: request.device_cgroup_rules,
        device_requests: request.device_requests,
        kernel_memory: request.kernel_memory,
        kernel_memory_tcp: request.kernel_memory_tcp,
        memory_reservation: request.memory_reservation,
        memory_swap: request.memory_swap,
        memory_swappiness: request.memory_swappiness,
        oom_kill_disable: request.oom_kill_disable,
        pids_limit: request.pids_limit,
        ulimits: request.ulimits,
        cpu_count: request.cpu_count,
        cpu_percent: request.cpu_percent,
        io_maximum_iops: request.io_maximum_iops,
        io_maximum_bandwidth: request.io_maximum_bandwidth,
        ..HostConfig::default()
    }
}

/// Writes the limits as inspect shows them.
pub(crate) fn show(resources: &Resources, host: &mut HostConfig) {
    let weight = |device: &BlkioWeight| WeightDevice { path: device.path.clone(), weight: device.weight };
    let rates = |list: &[BlkioRate]| {
        let show = |rate: &BlkioRate| ThrottleDevice { path: rate.path.clone(), rate: rate.rate };
        Some(list.iter().map(show).collect::<Vec<_>>())
    };
    host.memory = resources.memory_bytes;
    host.memory_swap = resources.memory_swap_bytes;
    host.memory_reservation = resources.memory_reservation_bytes;
    host.memory_swappiness = resources.memory_swappiness.map(i64::from);
    host.kernel_memory_tcp = resources.kernel_memory_tcp_bytes;
    host.oom_kill_disable = resources.oom_kill_disable;
    host.nano_cpus = resources.nano_cpus;
    host.cpu_shares = resources.cpu_shares;
    host.cpu_period = resources.cpu_period_us;
    host.cpu_quota = resources.cpu_quota_us;
    host.cpu_realtime_period = resources.cpu_realtime_period_us;
    host.cpu_realtime_runtime = resources.cpu_realtime_runtime_us;
    host.cpuset_cpus.clone_from(&resources.cpuset_cpus);
    host.cpuset_mems.clone_from(&resources.cpuset_mems);
    host.pids_limit = resources.pids_limit;
    host.blkio_weight = resources.blkio_weight;
    host.blkio_weight_device = Some(resources.blkio_weight_device.iter().map(weight).collect());
    host.blkio_device_read_bps = rates(&resources.blkio_read_bps);
    host.blkio_device_write_bps = rates(&resources.blkio_write_bps);
    host.blkio_device_read_iops = rates(&resources.blkio_read_iops);
    host.blkio_device_write_iops = rates(&resources.blkio_write_iops);
    host.ulimits = Some(resources.ulimits.iter().map(shown_ulimit).collect());
    host.devices = Some(resources.devices.iter().map(shown_device).collect());
    let rules: Vec<String> = resources.device_cgroup_rules.iter().map(DeviceRule::text).collect();
    host.device_cgroup_rules = Some(rules).filter(|rules| !rules.is_empty());
    host.cgroup_parent.clone_from(&resources.cgroup_parent);
}

fn shown_ulimit(limit: &Ulimit) -> WireUlimit {
    WireUlimit { name: limit.name.clone(), hard: limit.hard, soft: limit.soft }
}

fn shown_device(device: &Device) -> DeviceMapping {
    DeviceMapping {
        path_on_host: device.host_path.clone(),
        path_in_container: device.container_path.clone(),
        cgroup_permissions: device.permissions.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_normalised() {
        let host =
            HostConfig { memory: 7 << 20, memory_swappiness: Some(-1), pids_limit: Some(0), ..HostConfig::default() };
        let resources = parse(&host).unwrap();
        assert_eq!(
            (resources.memory_swap_bytes, resources.memory_swappiness, resources.pids_limit),
            (14 << 20, None, None)
        );
        let host = HostConfig { memory: 7 << 20, memory_swap: -1, pids_limit: Some(5), ..HostConfig::default() };
        let resources = parse(&host).unwrap();
        assert_eq!((resources.memory_swap_bytes, resources.pids_limit), (-1, Some(5)));
    }

    #[test]
    fn what_linux_cannot_do_is_refused_by_name() {
        let refusal = |host: HostConfig| parse(&host).unwrap_err().message;
        assert!(refusal(HostConfig { cpu_count: 1, ..HostConfig::default() }).contains("CpuCount"));
        assert!(refusal(HostConfig { io_maximum_iops: 1, ..HostConfig::default() }).contains("IOMaximumIOps"));
        assert!(refusal(HostConfig { memory_swappiness: Some(101), ..HostConfig::default() }).contains("0-100"));
    }

    #[test]
    fn an_update_changes_only_what_it_names() {
        let update =
            parse_update(UpdateRequest { memory: 7 << 20, ..UpdateRequest::default() }, ApiVersion::NEWEST).unwrap();
        assert_eq!((update.resources.memory_swap_bytes, update.pids_limit, update.restart), (0, None, None));
        let request = UpdateRequest { pids_limit: Some(-1), ..UpdateRequest::default() };
        assert_eq!(parse_update(request.clone(), ApiVersion::NEWEST).unwrap().pids_limit, Some(-1));
        assert_eq!(parse_update(request, ApiVersion::new(1, 39)).unwrap().pids_limit, None);
    }
}
