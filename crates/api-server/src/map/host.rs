//! `Config` and `HostConfig` as inspect shows them.

use docker_api::container::{
    Config, DeviceRequest, HealthConfig, HostConfig, LogConfig, PortBinding as WireBinding, PortMap, RestartPolicy,
    Words,
};
use docker_api::{Empty, Set};
use engine::model::{
    Bind, Capability, ContainerSpec, ContainerView, Healthcheck, Port, PortBinding, PortBindings, SecurityOption,
    TerminalSize, VolumesFrom,
};

use super::{mount, null_if_empty, resources};

/// `Config`: what runs.
pub(crate) fn config(spec: &ContainerSpec, short_id: &str) -> Config {
    Config {
        hostname: spec.hostname.clone().unwrap_or_else(|| short_id.to_owned()),
        domainname: spec.domainname.clone(),
        user: spec.user.clone(),
        attach_stdin: spec.attach_stdin,
        attach_stdout: spec.attach_stdout,
        attach_stderr: spec.attach_stderr,
        exposed_ports: set(spec.exposed_ports.iter().map(|port| exposed(spec, port))),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        env: Some(spec.env.clone()),
        cmd: spec.command.clone().map(Words),
        healthcheck: spec.healthcheck.as_ref().map(health_config),
        args_escaped: false,
        image: spec.image.clone(),
        volumes: Some(set(spec.volumes.iter().cloned())).filter(|volumes| !volumes.is_empty()),
        working_dir: spec.working_dir.clone(),
        entrypoint: spec.entrypoint.clone().map(Words),
        network_disabled: spec.network_disabled,
        mac_address: spec.mac_address.clone().unwrap_or_default(),
        on_build: null_if_empty(&spec.on_build),
        labels: Some(spec.labels.clone()),
        stop_signal: spec.stop_signal.map(|signal| signal.to_string()).unwrap_or_default(),
        stop_timeout: spec.stop_timeout_seconds,
        shell: spec.shell.clone().map(Words),
    }
}

/// A port as it was written.
fn exposed(spec: &ContainerSpec, port: Port) -> String {
    spec.exposed_as.get(&port).cloned().unwrap_or_else(|| port.to_string())
}

fn set(keys: impl Iterator<Item = String>) -> Set {
    keys.map(|key| (key, Empty::default())).collect()
}

fn health_config(check: &Healthcheck) -> HealthConfig {
    HealthConfig {
        test: check.test.clone(),
        interval: check.interval_ns,
        timeout: check.timeout_ns,
        start_period: check.start_period_ns,
        start_interval: check.start_interval_ns,
        retries: check.retries,
    }
}

/// `HostConfig`: what may be used. Lists that the docker CLI always sends are `[]`, the others `null`, as its users know them.
pub(crate) fn host_config(view: &ContainerView) -> HostConfig {
    let spec = &*view.spec;
    let mut host = HostConfig {
        binds: null_if_empty(&texts(&spec.binds, |bind: &Bind| bind.text.clone())),
        container_id_file: spec.container_id_file.clone(),
        log_config: LogConfig { r#type: spec.log.driver_name().to_owned(), config: Some(spec.log.options.clone()) },
        network_mode: spec.network.to_string(),
        port_bindings: Some(port_map(&spec.port_bindings)),
        restart_policy: RestartPolicy {
            name: spec.restart.name().to_owned(),
            maximum_retry_count: i64::from(spec.restart.maximum_retries()),
        },
        auto_remove: spec.auto_remove,
        volume_driver: spec.volume_driver.clone(),
        volumes_from: null_if_empty(&texts(&spec.volumes_from, VolumesFrom::text)),
        console_size: spec.console_size.map_or([0, 0], console_size),
        annotations: spec.annotations.clone(),
        cap_add: capabilities(&spec.cap_add),
        cap_drop: capabilities(&spec.cap_drop),
        cgroupns_mode: view.cgroupns.to_owned(),
        dns: Some(spec.dns.clone()),
        dns_options: Some(spec.dns_options.clone()),
        dns_search: Some(spec.dns_search.clone()),
        extra_hosts: null_if_empty(&spec.extra_hosts),
        group_add: null_if_empty(&spec.group_add),
        ipc_mode: spec.ipc.to_string(),
        links: null_if_empty(&spec.links),
        oom_score_adj: i64::from(spec.oom_score_adj),
        pid_mode: spec.pid.to_string(),
        privileged: spec.privileged,
        publish_all_ports: spec.publish_all_ports,
        readonly_rootfs: spec.readonly_rootfs,
        security_opt: null_if_empty(&texts(&spec.security, |option: &SecurityOption| option.text.clone())),
        storage_opt: spec.storage_options.clone(),
        tmpfs: spec.tmpfs.clone(),
        uts_mode: spec.uts.to_string(),
        userns_mode: spec.userns.to_string(),
        shm_size: i64::try_from(spec.shm_size_bytes).unwrap_or(i64::MAX),
        sysctls: spec.sysctls.clone(),
        runtime: view.runtime.clone(),
        isolation: spec.isolation.clone(),
        device_requests: device_requests(&spec.device_requests),
        mounts: spec.mounts.iter().map(mount::show).collect(),
        masked_paths: system_paths(spec, spec.masked_paths.as_ref(), engine::MASKED_PATHS),
        readonly_paths: system_paths(spec, spec.readonly_paths.as_ref(), engine::READONLY_PATHS),
        init: spec.init,
        ..HostConfig::default()
    };
    resources::show(&spec.resources, &mut host);
    host
}

/// The list that was asked for, or else the usual one, which privileged containers do not have.
fn system_paths(spec: &ContainerSpec, asked: Option<&Vec<String>>, usual: &[&str]) -> Option<Vec<String>> {
    match asked {
        Some(paths) => Some(paths.clone()),
        None if spec.privileged => None,
        None => Some(usual.iter().map(|path| (*path).to_owned()).collect()),
    }
}

fn texts<T>(list: &[T], text: impl Fn(&T) -> String) -> Vec<String> {
    list.iter().map(text).collect()
}

fn capabilities(list: &[Capability]) -> Option<Words> {
    null_if_empty(&texts(list, |capability| capability.as_str().to_owned())).map(Words)
}

fn console_size(size: TerminalSize) -> [u32; 2] {
    [u32::from(size.height), u32::from(size.width)]
}

fn device_requests(requests: &[engine::model::DeviceRequest]) -> Option<Vec<DeviceRequest>> {
    let show = |request: &engine::model::DeviceRequest| DeviceRequest {
        driver: request.driver.clone(),
        count: request.count,
        device_ids: null_if_empty(&request.device_ids),
        capabilities: null_if_empty(&request.capabilities),
        options: Some(request.options.clone()),
    };
    null_if_empty(requests).map(|requests| requests.iter().map(show).collect())
}

/// Bindings by port.
pub(crate) fn port_map(bindings: &PortBindings) -> PortMap {
    let show = |binding: PortBinding| WireBinding {
        host_ip: binding.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        host_port: binding.host_port.to_string(),
    };
    bindings.by_port().map(|(port, list)| (port.to_string(), Some(list.flatten().map(show).collect()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_paths_are_shown_unless_others_were_asked_for_or_none_apply() {
        let shown = |spec: &ContainerSpec| system_paths(spec, spec.readonly_paths.as_ref(), engine::READONLY_PATHS);
        assert_eq!(shown(&ContainerSpec::default()).unwrap().len(), engine::READONLY_PATHS.len());
        let open = ContainerSpec { readonly_paths: Some(vec![]), ..ContainerSpec::default() };
        assert_eq!(shown(&open), Some(vec![]));
        assert_eq!(shown(&ContainerSpec { privileged: true, ..ContainerSpec::default() }), None);
    }

    #[test]
    fn what_is_not_set_is_null_or_empty_as_in_docker() {
        let shown = serde_json::to_value(config(&ContainerSpec::default(), "0123456789ab")).unwrap();
        assert_eq!((&shown["Hostname"], &shown["Volumes"]), (&"0123456789ab".into(), &serde_json::Value::Null));
        assert_eq!((&shown["Cmd"], &shown["Labels"]), (&serde_json::Value::Null, &serde_json::json!({})));
        assert!(shown.get("ExposedPorts").is_none() && shown.get("StopSignal").is_none());
    }
}
