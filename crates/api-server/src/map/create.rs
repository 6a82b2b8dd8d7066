//! `POST /containers/create`: Docker's request becomes the engine's.
//!
//! What Conex cannot do is refused by its name when it is set to something, and not looked at when it is not.

use std::collections::{BTreeMap, BTreeSet};

use docker_api::container::{Config, CreateRequest, DeviceRequest, HealthConfig, HostConfig, PortMap, Words};
use docker_api::network::EndpointSettings;
use docker_api::{ApiVersion, PortSpec, Set};
use engine::model::{
    self, Bind, Capability, CgroupnsMode, ContainerName, ContainerSpec, EndpointSpec, Healthcheck, HostPortSpec,
    IpcMode, LogConfig, NetworkMode, PidMode, Port, PortBinding, PortBindings, PortSet, SecurityOption, Signal,
    TerminalSize, UsernsMode, UtsMode, VolumesFrom,
};

use super::{endpoint, mount, resources, words};
use crate::error::{ApiError, ApiResult};

/// The least that a health check may wait.
const MINIMUM_DURATION_NS: i64 = 1_000_000;

/// What of the host and the request decides defaults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CreateContext<'a> {
    pub(crate) name: &'a str,
    pub(crate) platform: &'a str,
    pub(crate) version: ApiVersion,
    /// Whether the host's cgroups are version 1.
    pub(crate) cgroup_v1: bool,
    /// Where output goes that is to go nowhere in particular.
    pub(crate) log: &'a LogConfig,
}

/// The engine's request, and what the client should be told.
pub(crate) fn parse(
    request: CreateRequest,
    context: CreateContext<'_>,
) -> ApiResult<(model::CreateRequest, Vec<String>)> {
    let version = context.version;
    let mut config = request.config;
    if config == Config::default() {
        return Err(ApiError::bad_request("config cannot be empty in order to create a container"));
    }
    let mut host = normalised(request.host_config.unwrap_or_default(), context);
    if host.annotations.contains_key("") {
        return Err(ApiError::bad_request(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    refuse_unsupported(&host)?;
    let mut warnings = Vec::new();
    let network = NetworkMode::parse(&host.network_mode)?;
    let endpoints = request.networking_config.and_then(|networking| networking.endpoints_config).unwrap_or_default();
    let mut endpoints = read_endpoints(endpoints, version)?;
    warnings.extend(move_mac_address(&mut config, &network, &mut endpoints, version)?);
    warnings.extend(volume_driver_warning(&host, version));
    if host.kernel_memory != 0 {
        warnings.push("Kernel memory limits are deprecated and are ignored.".to_owned());
    }
    let log =
        LogConfig::of_request(&host.log_config.r#type, host.log_config.config.take().unwrap_or_default(), context.log)?;
    let spec = ContainerSpec { log, ..container_spec(config, host, network, endpoints, version)? };
    let name = match context.name {
        "" => None,
        name => Some(ContainerName::parse(name)?),
    };
    let platform = Some(context.platform).filter(|platform| !platform.is_empty() && version.at_least(41));
    Ok((model::CreateRequest { name, platform: platform.map(str::to_owned), spec }, warnings))
}

/// What older clients meant without saying it.
fn normalised(mut host: HostConfig, context: CreateContext<'_>) -> HostConfig {
    let version = context.version;
    if version.before(25) {
        host.auto_remove = false;
    }
    if version.before(40) {
        host.kernel_memory_tcp = 0;
        if host.ipc_mode.is_empty() {
            "shareable".clone_into(&mut host.ipc_mode);
        }
    }
    if version.before(41) && context.cgroup_v1 && host.cgroupns_mode.is_empty() {
        "host".clone_into(&mut host.cgroupns_mode);
    }
    if version.before(42) {
        host.console_size = [0, 0];
    } else {
        host.kernel_memory = 0;
    }
    if version.before(43) {
        host.annotations.clear();
    }
    host
}

fn refuse_unsupported(host: &HostConfig) -> ApiResult<()> {
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(ApiError::bad_request(format!("invalid isolation '{}' on linux", host.isolation)));
    }
    if !host.cgroup.is_empty() {
        return Err(ApiError::not_implemented("HostConfig.Cgroup is not supported"));
    }
    Ok(())
}

fn container_spec(
    config: Config,
    host: HostConfig,
    network: NetworkMode,
    endpoints: BTreeMap<String, EndpointSpec>,
    version: ApiVersion,
) -> ApiResult<ContainerSpec> {
    let from_config = ContainerSpec { network, endpoints, ..from_config(config, version)? };
    with_host_config(from_config, host, version)
}

/// What `Config` alone says of a container; the body of a commit is nothing else.
pub(crate) fn from_config(config: Config, version: ApiVersion) -> ApiResult<ContainerSpec> {
    check_environment(config.env.as_deref().unwrap_or_default())?;
    let (exposed_ports, exposed_as) = exposed_ports(&config.exposed_ports)?;
    Ok(ContainerSpec {
        hostname: Some(config.hostname).filter(|name| !name.is_empty()),
        exposed_ports,
        exposed_as,
        healthcheck: config.healthcheck.map(|check| healthcheck(check, version)).transpose()?,
        stop_signal: optional(&config.stop_signal, Signal::parse)?,
        image: config.image,
        domainname: config.domainname,
        user: config.user,
        attach_stdin: config.attach_stdin,
        attach_stdout: config.attach_stdout,
        attach_stderr: config.attach_stderr,
        tty: config.tty,
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        env: config.env.unwrap_or_default(),
        command: words(config.cmd),
        entrypoint: words(config.entrypoint),
        volumes: config.volumes.unwrap_or_default().into_keys().collect(),
        working_dir: config.working_dir,
        network_disabled: config.network_disabled,
        on_build: config.on_build.unwrap_or_default(),
        labels: config.labels.unwrap_or_default(),
        stop_timeout_seconds: config.stop_timeout,
        shell: words(config.shell),
        ..ContainerSpec::default()
    })
}

fn with_host_config(spec: ContainerSpec, host: HostConfig, version: ApiVersion) -> ApiResult<ContainerSpec> {
    Ok(ContainerSpec {
        resources: resources::parse(&host)?,
        restart: resources::restart(&host.restart_policy)?,
        console_size: terminal_size(host.console_size),
        shm_size_bytes: shm_size(host.shm_size)?,
        oom_score_adj: oom_score(host.oom_score_adj)?,
        binds: each(host.binds, Bind::parse)?,
        mounts: host.mounts.into_iter().map(|wire| mount::parse(wire, version)).collect::<ApiResult<_>>()?,
        volumes_from: each(host.volumes_from, VolumesFrom::parse)?,
        port_bindings: port_bindings(host.port_bindings.unwrap_or_default())?,
        cap_add: capabilities(host.cap_add, "CapAdd")?,
        cap_drop: capabilities(host.cap_drop, "CapDrop")?,
        security: each(host.security_opt, SecurityOption::parse)?,
        device_requests: host.device_requests.unwrap_or_default().iter().map(device_request).collect(),
        cgroupns: CgroupnsMode::parse(&host.cgroupns_mode)?,
        ipc: IpcMode::parse(&host.ipc_mode)?,
        pid: PidMode::parse(&host.pid_mode)?,
        uts: UtsMode::parse(&host.uts_mode)?,
        userns: UsernsMode::parse(&host.userns_mode)?,
        tmpfs: host.tmpfs,
        volume_driver: host.volume_driver,
        container_id_file: host.container_id_file,
        publish_all_ports: host.publish_all_ports,
        auto_remove: host.auto_remove,
        annotations: host.annotations,
        dns: host.dns.unwrap_or_default(),
        dns_options: host.dns_options.unwrap_or_default(),
        dns_search: host.dns_search.unwrap_or_default(),
        extra_hosts: host.extra_hosts.unwrap_or_default(),
        group_add: host.group_add.unwrap_or_default(),
        privileged: host.privileged,
        readonly_rootfs: host.readonly_rootfs,
        storage_options: host.storage_opt,
        sysctls: host.sysctls,
        init: host.init,
        runtime: host.runtime,
        isolation: host.isolation,
        links: host.links.unwrap_or_default(),
        masked_paths: host.masked_paths,
        readonly_paths: host.readonly_paths,
        ..spec
    })
}

/// Reads every text of a list that may be missing.
fn each<T>(texts: Option<Vec<String>>, parse: fn(&str) -> Result<T, model::EngineError>) -> ApiResult<Vec<T>> {
    Ok(texts.unwrap_or_default().iter().map(|text| parse(text)).collect::<Result<_, _>>()?)
}

fn optional<T>(text: &str, parse: fn(&str) -> Result<T, model::EngineError>) -> ApiResult<Option<T>> {
    match text {
        "" => Ok(None),
        _ => Ok(Some(parse(text)?)),
    }
}

fn check_environment(env: &[String]) -> ApiResult<()> {
    match env.iter().find(|variable| variable.is_empty() || variable.starts_with('=')) {
        Some(variable) => Err(ApiError::bad_request(format!("invalid environment variable: {variable}"))),
        None => Ok(()),
    }
}

/// The ports, and for each how it was written where that is not the usual way: Docker shows it so.
fn exposed_ports(ports: &Set) -> ApiResult<(PortSet, BTreeMap<Port, String>)> {
    let (mut all, mut written) = (BTreeSet::new(), BTreeMap::new());
    for text in ports.keys() {
        for port in ports_of(text)? {
            if port.to_string() != *text {
                written.insert(port, text.clone());
            }
            all.insert(port);
        }
    }
    Ok((all.into(), written))
}

/// The ports of `80/tcp` or `8000-8010/udp`.
pub(crate) fn ports_of(text: &str) -> ApiResult<Vec<Port>> {
    let spec: PortSpec =
        text.parse().map_err(|error: docker_api::PortParseError| ApiError::bad_request(error.to_string()))?;
    let protocol = match spec.protocol {
        docker_api::Protocol::Tcp => model::Protocol::Tcp,
        docker_api::Protocol::Udp => model::Protocol::Udp,
        docker_api::Protocol::Sctp => model::Protocol::Sctp,
    };
    Ok(spec.ports().map(|number| Port { number, protocol }).collect())
}

fn port_bindings(map: PortMap) -> ApiResult<PortBindings> {
    let mut all = Vec::new();
    for (text, bindings) in map {
        let bindings: Vec<PortBinding> =
            bindings.unwrap_or_default().iter().map(port_binding).collect::<ApiResult<_>>()?;
        for port in ports_of(&text)? {
            all.extend(model::bindings_of(port, bindings.iter().copied()));
        }
    }
    Ok(all.into_iter().collect())
}

fn port_binding(binding: &docker_api::container::PortBinding) -> ApiResult<PortBinding> {
    let invalid_ip = || ApiError::bad_request(format!("invalid IP address: {}", binding.host_ip));
    let host_ip = match binding.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| invalid_ip())?),
    };
    Ok(PortBinding { host_ip, host_port: HostPortSpec::parse(&binding.host_port)? })
}

fn healthcheck(mut check: HealthConfig, version: ApiVersion) -> ApiResult<Healthcheck> {
    if version.before(44) {
        check.start_interval = 0;
    }
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if value != 0 && value < MINIMUM_DURATION_NS {
            return Err(ApiError::bad_request(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries < 0 {
        return Err(ApiError::bad_request("Retries in Healthcheck cannot be negative"));
    }
    Ok(Healthcheck {
        test: check.test,
        interval_ns: check.interval,
        timeout_ns: check.timeout,
        start_period_ns: check.start_period,
        start_interval_ns: check.start_interval,
        retries: check.retries,
    })
}

fn shm_size(bytes: i64) -> ApiResult<u64> {
    u64::try_from(bytes).map_err(|_| ApiError::bad_request("SHM size can not be less than 0"))
}

fn oom_score(score: i64) -> ApiResult<i32> {
    match i32::try_from(score) {
        Ok(score @ -1000..=1000) => Ok(score),
        _ => Err(ApiError::bad_request(format!("invalid value {score}, range for oom score adj is [-1000, 1000]"))),
    }
}

fn terminal_size([height, width]: [u32; 2]) -> Option<TerminalSize> {
    let side = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    (height > 0 || width > 0).then(|| TerminalSize { height: side(height), width: side(width) })
}

fn capabilities(list: Option<Words>, field: &str) -> ApiResult<Vec<Capability>> {
    let parse = |text: &String| {
        Capability::parse(text).map_err(|error| ApiError {
            message: error.message().replacen("CapAdd", field, 1),
            ..ApiError::from(error)
        })
    };
    words(list).unwrap_or_default().iter().map(parse).collect()
}

fn device_request(request: &DeviceRequest) -> engine::model::DeviceRequest {
    engine::model::DeviceRequest {
        driver: request.driver.clone(),
        count: request.count,
        device_ids: request.device_ids.clone().unwrap_or_default(),
        capabilities: request.capabilities.clone().unwrap_or_default(),
        options: request.options.clone().unwrap_or_default(),
    }
}

fn read_endpoints(
    wire: BTreeMap<String, Option<EndpointSettings>>,
    version: ApiVersion,
) -> ApiResult<BTreeMap<String, EndpointSpec>> {
    if version.before(44) && wire.len() > 1 {
        let names: Vec<&str> = wire.keys().map(String::as_str).collect();
        return Err(ApiError::bad_request(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        )));
    }
    wire.into_iter()
        .map(|(network, settings)| {
            let mut spec = endpoint::parse(&settings.unwrap_or_default())
                .map_err(|error| error.wrapped(&format!("invalid config for network {network}")))?;
            if version.before(48) {
                spec.gateway_priority = 0;
            }
            let network = if network == "default" { "bridge".to_owned() } else { network };
            Ok((network, spec))
        })
        .collect()
}

/// The address of the whole container became one of an endpoint in 1.44.
fn move_mac_address(
    config: &mut Config,
    network: &NetworkMode,
    endpoints: &mut BTreeMap<String, EndpointSpec>,
    version: ApiVersion,
) -> ApiResult<Option<String>> {
    let asked = std::mem::take(&mut config.mac_address);
    if asked.is_empty() {
        if version.before(44) {
            endpoints.values_mut().for_each(|endpoint| endpoint.mac_address = None);
        }
        return Ok(None);
    }
    let takes_one = matches!(network, NetworkMode::Bridge | NetworkMode::Named(_));
    if version.before(44) && !takes_one {
        return Err(ApiError::bad_request("conflicting options: mac-address and the network mode"));
    }
    if takes_one {
        let asked = endpoint::parse(&EndpointSettings { mac_address: asked, ..EndpointSettings::default() })
            .map_err(|error| error.wrapped(&format!("invalid config for network {}", network)))?
            .mac_address;
        let target = endpoint_for(network, endpoints, version)?;
        if version.at_least(44) && target.mac_address.is_some() && target.mac_address != asked {
            return Err(ApiError::bad_request(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
            ));
        }
        target.mac_address = asked;
    }
    let warning =
        "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.";
    Ok(version.at_least(44).then(|| warning.to_owned()))
}

/// The endpoint of the container's main network.
fn endpoint_for<'a>(
    network: &NetworkMode,
    endpoints: &'a mut BTreeMap<String, EndpointSpec>,
    version: ApiVersion,
) -> ApiResult<&'a mut EndpointSpec> {
    let name = network.to_string();
    let name = match endpoints.keys().next() {
        None => name,
        Some(only) if version.before(44) => only.clone(),
        Some(_) if endpoints.contains_key(&name) => name,
        Some(_) => {
            return Err(ApiError::bad_request(
                "unable to migrate container-wide MAC address to a specific network: HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
            ));
        }
    };
    Ok(endpoints.entry(name).or_default())
}

fn volume_driver_warning(host: &HostConfig, version: ApiVersion) -> Option<String> {
    let named = |mount: &docker_api::mount::Mount| {
        let config = mount.volume_options.as_ref().and_then(|options| options.driver_config.as_ref());
        config.is_some_and(|config| !config.name.is_empty())
    };
    let ambiguous = host.mounts.iter().any(|mount| mount.r#type == "volume" && !named(mount));
    (!host.volume_driver.is_empty() && version.at_least(48) && ambiguous).then(|| {
        "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create_at(version: ApiVersion, json: &str) -> ApiResult<(ContainerSpec, Vec<String>)> {
        let log = LogConfig::default();
        let context = CreateContext { name: "", platform: "", version, cgroup_v1: true, log: &log };
        let request = CreateRequest::parse(json.as_bytes()).unwrap();
        parse(request, context).map(|(request, warnings)| (request.spec, warnings))
    }

    fn create(json: &str) -> ContainerSpec {
        create_at(ApiVersion::NEWEST, json).unwrap().0
    }

    fn refusal(json: &str) -> String {
        create_at(ApiVersion::NEWEST, json).unwrap_err().message
    }

    #[test]
    fn nothing_asked_for_is_the_default() {
        let spec = create(r#"{"Image":"alpine"}"#);
        let expected = ContainerSpec { image: "alpine".into(), ..ContainerSpec::default() };
        assert_eq!(spec, expected);
        assert_eq!(create(r#"{"Image":"alpine","HostConfig":{"NetworkMode":"default","Future":7}}"#), expected);
    }

    #[test]
    fn every_field_arrives() {
        let spec = create(
            r#"{"Hostname":"h","Domainname":"d","User":"u","AttachStdin":true,"AttachStdout":true,"AttachStderr":true,
            "ExposedPorts":{"80-81/tcp":{}},"Tty":true,"OpenStdin":true,"StdinOnce":true,"Env":["A=b","C"],"Cmd":["x"],
            "Healthcheck":{"Test":["CMD","t"],"Interval":2000000,"Retries":3},"Image":"i","Volumes":{"/v":{}},"WorkingDir":"/w",
            "Entrypoint":"e","NetworkDisabled":true,"Labels":{"l":"m"},"StopSignal":"SIGINT","StopTimeout":4,"Shell":["s"],
            "HostConfig":{"Binds":["/a:/b:ro"],"ContainerIDFile":"f","LogConfig":{"Type":"local"},"NetworkMode":"none",
            "PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}]},"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":2},
            "AutoRemove":true,"VolumeDriver":"local","VolumesFrom":["c:ro"],"ConsoleSize":[1,2],"Annotations":{"n":"o"},"CapAdd":["NET_ADMIN"],
            "CapDrop":["ALL"],"CgroupnsMode":"host","Dns":["1.1.1.1"],"DnsOptions":["o"],"DnsSearch":["s"],"ExtraHosts":["x:1"],
            "GroupAdd":["g"],"IpcMode":"shareable","Links":["l"],"OomScoreAdj":5,"PidMode":"host","Privileged":true,"PublishAllPorts":true,
            "ReadonlyRootfs":true,"SecurityOpt":["no-new-privileges"],"StorageOpt":{"size":"1"},"Tmpfs":{"/t":"size=1m"},"UTSMode":"host",
            "UsernsMode":"host","ShmSize":7,"Sysctls":{"net.a":"1"},"Runtime":"r","Memory":9000000,"Mounts":[{"Type":"tmpfs","Target":"/m"}],
            "MaskedPaths":[],"ReadonlyPaths":["/p"],"Init":true,"DeviceRequests":[{"Driver":"nvidia","Capabilities":[["gpu"]]}]},
            "NetworkingConfig":{"EndpointsConfig":{"none":{"Aliases":["a"]}}}}"#,
        );
        assert_eq!(spec.exposed_ports.iter().count(), 2);
        assert!(spec.exposed_as.values().all(|text| text == "80-81/tcp"), "shown as they were written");
        assert_eq!((spec.entrypoint.unwrap(), spec.command.unwrap()), (vec!["e".to_owned()], vec!["x".to_owned()]));
        assert_eq!(spec.healthcheck.unwrap().interval_ns, 2_000_000);
        assert_eq!(spec.port_bindings.iter().next().unwrap().1.as_ref().unwrap().host_port.to_string(), "8080");
        assert_eq!((spec.binds.len(), spec.mounts.len(), spec.volumes_from.len(), spec.tmpfs.len()), (1, 1, 1, 1));
        assert_eq!((spec.masked_paths, spec.readonly_paths), (Some(vec![]), Some(vec!["/p".to_owned()])));
        assert_eq!((&*spec.device_requests[0].driver, &*spec.device_requests[0].capabilities[0][0]), ("nvidia", "gpu"));
        assert_eq!(spec.console_size, Some(TerminalSize { height: 1, width: 2 }));
        assert_eq!(spec.endpoints["none"].aliases, ["a"]);
        assert_eq!((spec.network, spec.ipc, spec.pid), (NetworkMode::None, IpcMode::Shareable, PidMode::Host));
        assert_eq!(spec.stop_signal.unwrap().number(), 2);
        assert!(
            spec.tty
                && spec.open_stdin
                && spec.stdin_once
                && spec.auto_remove
                && spec.privileged
                && spec.readonly_rootfs
        );
        assert!(spec.network_disabled && spec.publish_all_ports && spec.init == Some(true) && spec.oom_score_adj == 5);
        assert_eq!((spec.runtime.as_str(), spec.volume_driver.as_str(), spec.links.len()), ("r", "local", 1));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (json, part) in [
            (r#"{"Image":"a","HostConfig":{"Isolation":"hyperv"}}"#, "isolation"),
            (r#"{"Image":"a","HostConfig":{"Cgroup":"container:x"}}"#, "HostConfig.Cgroup"),
            (r#"{"Image":"a","HostConfig":{"CpuPercent":3}}"#, "CpuPercent"),
            (r#"{"Image":"a","HostConfig":{"CapDrop":["CAP_X"]}}"#, "invalid CapDrop"),
            (r#"{"Image":"a","HostConfig":{"OomScoreAdj":1001}}"#, "oom score"),
            (r#"{"Image":"a","HostConfig":{"ShmSize":-1}}"#, "SHM size"),
            (r#"{"Image":"a","HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"x"}]}}}"#, "invalid IP address: x"),
            (
                r#"{"Image":"a","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"x"}]}}}"#,
                "invalid port specification",
            ),
            (r#"{"ExposedPorts":{"x":{}}}"#, "invalid port specification"),
            (r#"{"Env":["=x"]}"#, "invalid environment variable: =x"),
            (r#"{"StopSignal":"BAD"}"#, "invalid signal: BAD"),
            (r#"{"Healthcheck":{"Interval":5}}"#, "Interval in Healthcheck"),
            (r#"{"Image":"a","HostConfig":{"RestartPolicy":{"Name":"x"}}}"#, "restart policy"),
        ] {
            assert!(refusal(json).contains(part), "{json}: {}", refusal(json));
        }
    }

    #[test]
    fn the_mac_address_moves_to_the_endpoint() {
        let json = r#"{"MacAddress":"02:42:00:00:00:01"}"#;
        let (spec, warnings) = create_at(ApiVersion::NEWEST, json).unwrap();
        assert_eq!(spec.endpoints["bridge"].mac_address.as_deref(), Some("02:42:00:00:00:01"));
        assert_eq!(warnings.len(), 1);
        assert!(refusal("{}").contains("config cannot be empty"));
        let (spec, warnings) = create_at(ApiVersion::new(1, 43), json).unwrap();
        assert_eq!((spec.endpoints.len(), warnings.len()), (1, 0));
        let other = r#"{"MacAddress":"02:42:00:00:00:01","NetworkingConfig":{"EndpointsConfig":{"default":{"MacAddress":"02:42:00:00:00:02"}}}}"#;
        assert!(refusal(other).contains("must match"));
    }

    #[test]
    fn older_clients_get_older_defaults() {
        let at = |minor| {
            create_at(
                ApiVersion::new(1, minor),
                r#"{"Image":"a","HostConfig":{"AutoRemove":true,"ConsoleSize":[1,2]}}"#,
            )
            .unwrap()
            .0
        };
        let old = at(24);
        assert_eq!(
            (old.auto_remove, old.ipc, old.cgroupns, old.console_size),
            (false, IpcMode::Shareable, CgroupnsMode::Host, None)
        );
        let new = at(51);
        assert_eq!((new.auto_remove, new.ipc, new.cgroupns), (true, IpcMode::Private, CgroupnsMode::Default));
    }
}
