//! `GET /containers/{id}/json`.

use docker_api::container::{
    DriverData, Health, HealthcheckResult, Inspect, LogState, MountPoint as WireMount, NetworkSettings, PortBinding,
    PortMap, State,
};
use engine::model::{
    ContainerSizes, ContainerState, ContainerView, HostPort, LogForwarding, MountPoint, NetworkMode, Status,
};

use super::time::shown;
use super::{endpoint, host, null_if_empty};

/// The network whose address the old members of `NetworkSettings` repeat.
const DEFAULT_BRIDGE: &str = "bridge";
/// How many digits of an id are enough for people.
const SHORT_ID: usize = 12;

/// The first digits of an id.
pub(crate) fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

/// Everything about a container.
pub(crate) fn inspect(view: &ContainerView, sizes: Option<ContainerSizes>) -> Inspect {
    let id = view.id.to_string();
    let bytes = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    Inspect {
        created: shown(Some(view.created)),
        path: view.path.clone(),
        args: view.args.clone(),
        state: state(&view.state),
        image: view.image_id.to_string(),
        resolv_conf_path: view.files.resolv_conf.clone(),
        hostname_path: view.files.hostname.clone(),
        hosts_path: view.files.hosts.clone(),
        log_path: view.files.log.clone(),
        name: format!("/{}", view.name),
        restart_count: i64::from(view.restart_count),
        driver: view.graph.driver.clone(),
        platform: view.platform.clone(),
        app_armor_profile: view.apparmor_profile().to_owned(),
        exec_ids: null_if_empty(&view.exec_ids),
        host_config: host::host_config(view),
        graph_driver: graph_driver(view),
        size_rw: sizes.map(|sizes| bytes(sizes.rw_bytes)),
        size_root_fs: sizes.map(|sizes| bytes(sizes.rootfs_bytes)),
        mounts: view.mounts.iter().map(mount_point).collect(),
        config: host::config(&view.spec, short(&id)),
        network_settings: network_settings(view),
        id,
        ..Inspect::default()
    }
}

fn state(state: &ContainerState) -> State {
    State {
        status: state.status.as_str().to_owned(),
        running: state.is_running(),
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        oom_killed: state.oom_killed,
        dead: state.status == Status::Dead,
        pid: i64::from(state.pid),
        exit_code: i64::from(state.exit_code),
        error: state.error.clone(),
        started_at: shown(state.started_at),
        finished_at: shown(state.finished_at),
        health: state.health.as_ref().map(health),
        log: None,
    }
}

/// How its log lines fare, for `State.Log`.
pub(crate) fn log_state(state: LogForwarding) -> LogState {
    LogState {
        sent: state.sent,
        dropped: state.dropped + state.unwritten,
        gaps: state.gaps,
        error: state.error.unwrap_or_default(),
    }
}

fn health(health: &engine::model::Health) -> Health {
    let result = |probe: &engine::model::HealthProbe| HealthcheckResult {
        start: shown(Some(probe.start)),
        end: shown(Some(probe.end)),
        exit_code: i64::from(probe.exit_code),
        output: probe.output.clone(),
    };
    Health {
        status: health.status.as_str().to_owned(),
        failing_streak: i64::from(health.failing_streak),
        log: Some(health.log.iter().map(result).collect()),
    }
}

fn graph_driver(view: &ContainerView) -> DriverData {
    let graph = &view.graph;
    let data = [("UpperDir", &graph.upper), ("WorkDir", &graph.work)]
        .into_iter()
        .filter(|(_, path)| !path.is_empty())
        .map(|(name, path)| (name.to_owned(), path.clone()));
    DriverData { data: Some(data.collect()), name: graph.driver.clone() }
}

/// One entry of `Mounts`, here and in lists.
pub(crate) fn mount_point(point: &MountPoint) -> WireMount {
    WireMount {
        r#type: point.kind.as_str().to_owned(),
        name: point.name.clone().unwrap_or_default(),
        source: point.source.clone(),
        destination: point.target.clone(),
        driver: point.driver.clone().unwrap_or_default(),
        mode: point.mode.clone(),
        rw: point.writable,
        propagation: point.propagation.clone(),
    }
}

fn network_settings(view: &ContainerView) -> NetworkSettings {
    let networks = &view.networks;
    let mut settings = NetworkSettings {
        sandbox_id: networks.sandbox_id.clone(),
        sandbox_key: networks.sandbox_key.clone(),
        ports: Some(ports(view)),
        networks: networks.endpoints.iter().map(|(name, view)| (name.clone(), endpoint::show(view))).collect(),
        ..NetworkSettings::default()
    };
    if let Some(bridge) = settings.networks.get(DEFAULT_BRIDGE).cloned() {
        settings.endpoint_id = bridge.endpoint_id;
        settings.gateway = bridge.gateway;
        settings.global_ipv6_address = bridge.global_ipv6_address;
        settings.global_ipv6_prefix_len = bridge.global_ipv6_prefix_len;
        settings.ip_address = bridge.ip_address;
        settings.ip_prefix_len = bridge.ip_prefix_len;
        settings.ipv6_gateway = bridge.ipv6_gateway;
        settings.mac_address = bridge.mac_address;
    }
    settings
}

/// Ports of a running container: those that are exposed and not published are `null`.
fn ports(view: &ContainerView) -> PortMap {
    let has_own_ports = matches!(view.spec.network, NetworkMode::Bridge | NetworkMode::Named(_));
    if !view.state.is_running() || !has_own_ports {
        return PortMap::new();
    }
    let mut all: PortMap = view.spec.exposed_ports.iter().map(|port| (port.to_string(), None)).collect();
    for (port, places) in view.networks.ports.by_port() {
        let binding =
            |place: HostPort| PortBinding { host_ip: place.address.to_string(), host_port: place.number.to_string() };
        all.insert(port.to_string(), Some(places.map(binding).collect()));
    }
    all
}
