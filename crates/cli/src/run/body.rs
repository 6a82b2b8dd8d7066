//! From options to the body of `POST /containers/create`: no I/O but the files that options name.

use std::collections::BTreeMap;

use clap::ArgMatches;
use docker_api::container::{
    Config, CreateRequest, DeviceMapping, DeviceRequest, HealthConfig, HostConfig, LogConfig, PortBinding, PortMap,
    RestartPolicy, ThrottleDevice, Ulimit, WeightDevice, Words,
};
use docker_api::network::{EndpointIpamConfig, EndpointSettings, NetworkingConfig};
use docker_api::{Empty, PortSpec, Set};

use super::mounts;
use crate::flags::{many, on, one};
use crate::output::units::{parse_duration, parse_size};

/// What the command line says wrongly; printed with a hint at `--help`.
pub(crate) type Usage = String;

/// The body for these options, this image and these words.
pub(crate) fn create_request(matches: &ArgMatches, image: &str, words: &[String]) -> Result<CreateRequest, Usage> {
    Ok(CreateRequest {
        config: config(matches, image, words)?,
        host_config: Some(host_config(matches)?),
        networking_config: networking_config(matches)?,
    })
}

/// Which of the container's streams this command is joined to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// The streams that `--attach`, `--interactive` and `--detach` ask for.
pub(crate) fn streams(matches: &ArgMatches) -> Result<Streams, Usage> {
    let interactive = on(matches, "interactive");
    if matches.try_contains_id("detach").is_ok() && on(matches, "detach") {
        return match many(matches, "attach").is_empty() {
            true => Ok(Streams { stdin: false, stdout: false, stderr: false }),
            false => Err("conflicting options: cannot specify both --attach and --detach".to_owned()),
        };
    }
    let named = many(matches, "attach");
    if named.is_empty() {
        return Ok(Streams { stdin: interactive, stdout: true, stderr: true });
    }
    let mut streams = Streams { stdin: false, stdout: false, stderr: false };
    for name in named {
        match name.to_ascii_lowercase().as_str() {
            "stdin" => streams.stdin = true,
            "stdout" => streams.stdout = true,
            "stderr" => streams.stderr = true,
            _ => {
                return Err(format!(
                    "invalid argument {name:?} for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR"
                ));
            }
        }
    }
    Ok(streams)
}

fn config(matches: &ArgMatches, image: &str, words: &[String]) -> Result<Config, Usage> {
    let streams = streams(matches)?;
    let text = |name: &str| one(matches, name).unwrap_or_default().to_owned();
    let interactive = on(matches, "interactive");
    let (_, volumes) = mounts::binds_and_volumes(&many(matches, "volume"));
    Ok(Config {
        hostname: text("hostname"),
        domainname: text("domainname"),
        user: text("user"),
        attach_stdin: streams.stdin,
        attach_stdout: streams.stdout,
        attach_stderr: streams.stderr,
        exposed_ports: exposed_ports(matches)?,
        tty: on(matches, "tty"),
        open_stdin: interactive,
        stdin_once: interactive && streams.stdin,
        env: Some(environment(&many(matches, "env-file"), many(matches, "env"))?),
        cmd: (!words.is_empty()).then(|| Words(words.to_vec())),
        healthcheck: healthcheck(matches)?,
        image: image.to_owned(),
        volumes: (!volumes.is_empty()).then_some(volumes),
        working_dir: text("workdir"),
        entrypoint: one(matches, "entrypoint").map(|word| Words(vec![word.to_owned()])),
        labels: Some(labels(matches)?),
        stop_signal: text("stop-signal"),
        stop_timeout: number(matches, "stop-timeout")?,
        ..Config::default()
    })
}

fn host_config(matches: &ArgMatches) -> Result<HostConfig, Usage> {
    let mut host = HostConfig::default();
    fill_storage(matches, &mut host)?;
    fill_namespaces(matches, &mut host)?;
    fill_security(matches, &mut host)?;
    fill_limits(matches, &mut host)?;
    fill_block_io(matches, &mut host)?;
    fill_lifecycle(matches, &mut host)?;
    Ok(host)
}

fn fill_storage(matches: &ArgMatches, host: &mut HostConfig) -> Result<(), Usage> {
    let (binds, _) = mounts::binds_and_volumes(&many(matches, "volume"));
    host.binds = some(binds);
    host.mounts = many(matches, "mount").iter().map(|text| mounts::parse(text)).collect::<Result<_, _>>()?;
    host.tmpfs = pairs(many(matches, "tmpfs"), ':');
    host.volumes_from = some(many(matches, "volumes-from"));
    host.volume_driver = one(matches, "volume-driver").unwrap_or_default().to_owned();
    host.storage_opt = pairs(many(matches, "storage-opt"), '=');
    host.readonly_rootfs = on(matches, "read-only");
    host.shm_size = size(matches, "shm-size")?.unwrap_or(0);
    Ok(())
}

fn fill_namespaces(matches: &ArgMatches, host: &mut HostConfig) -> Result<(), Usage> {
    let text = |name: &str| one(matches, name).unwrap_or_default().to_owned();
    let networks = many(matches, "network");
    host.network_mode = match networks.first() {
        Some(first) => network_name(first)?,
        None => "default".to_owned(),
    };
    host.ipc_mode = text("ipc");
    host.pid_mode = text("pid");
    host.uts_mode = text("uts");
    host.userns_mode = text("userns");
    host.cgroupns_mode = text("cgroupns");
    host.dns = Some(many(matches, "dns"));
    host.dns_options = Some(many(matches, "dns-option"));
    host.dns_search = Some(many(matches, "dns-search"));
    host.extra_hosts =
        some(many(matches, "add-host").into_iter().map(|entry| extra_host(&entry)).collect::<Result<_, _>>()?);
    host.links = some(many(matches, "link"));
    host.port_bindings = Some(port_bindings(matches)?);
    host.publish_all_ports = on(matches, "publish-all");
    host.sysctls = pairs(many(matches, "sysctl"), '=');
    Ok(())
}

fn fill_security(matches: &ArgMatches, host: &mut HostConfig) -> Result<(), Usage> {
    host.privileged = on(matches, "privileged");
    host.cap_add = some(many(matches, "cap-add")).map(Words);
    host.cap_drop = some(many(matches, "cap-drop")).map(Words);
    host.group_add = some(many(matches, "group-add"));
    let (options, unconfined) = security_options(&many(matches, "security-opt"))?;
    host.security_opt = some(options);
    if unconfined {
        host.masked_paths = Some(Vec::new());
        host.readonly_paths = Some(Vec::new());
    }
    let (devices, vendor): (Vec<String>, Vec<String>) =
        many(matches, "device").into_iter().partition(|device| device.starts_with('/'));
    host.devices = Some(devices.iter().map(|device| device_mapping(device)).collect::<Result<_, _>>()?);
    let mut requests: Vec<DeviceRequest> = Vec::new();
    if !vendor.is_empty() {
        requests.push(DeviceRequest { driver: "cdi".to_owned(), device_ids: Some(vendor), ..DeviceRequest::default() });
    }
    if let Some(gpus) = one(matches, "gpus") {
        requests.push(gpu_request(gpus)?);
    }
    host.device_requests = some(requests);
    host.device_cgroup_rules = some(many(matches, "device-cgroup-rule"));
    Ok(())
}

fn fill_limits(matches: &ArgMatches, host: &mut HostConfig) -> Result<(), Usage> {
    host.memory = size(matches, "memory")?.unwrap_or(0);
    host.memory_reservation = size(matches, "memory-reservation")?.unwrap_or(0);
    host.memory_swap = match one(matches, "memory-swap") {
        Some("-1") => -1,
        _ => size(matches, "memory-swap")?.unwrap_or(0),
    };
    host.kernel_memory = size(matches, "kernel-memory")?.unwrap_or(0);
    host.memory_swappiness = Some(number(matches, "memory-swappiness")?.unwrap_or(-1));
    host.oom_kill_disable = Some(on(matches, "oom-kill-disable"));
    host.oom_score_adj = number(matches, "oom-score-adj")?.unwrap_or(0);
    host.nano_cpus = one(matches, "cpus").map(nano_cpus).transpose()?.unwrap_or(0);
    host.cpu_shares = number(matches, "cpu-shares")?.unwrap_or(0);
    host.cpu_period = number(matches, "cpu-period")?.unwrap_or(0);
    host.cpu_quota = number(matches, "cpu-quota")?.unwrap_or(0);
    host.cpu_realtime_period = number(matches, "cpu-rt-period")?.unwrap_or(0);
    host.cpu_realtime_runtime = number(matches, "cpu-rt-runtime")?.unwrap_or(0);
    host.cpuset_cpus = one(matches, "cpuset-cpus").unwrap_or_default().to_owned();
    host.cpuset_mems = one(matches, "cpuset-mems").unwrap_or_default().to_owned();
    host.pids_limit = Some(number(matches, "pids-limit")?.unwrap_or(0));
    host.ulimits = Some(many(matches, "ulimit").iter().map(|limit| ulimit(limit)).collect::<Result<_, _>>()?);
    Ok(())
}

fn fill_block_io(matches: &ArgMatches, host: &mut HostConfig) -> Result<(), Usage> {
    let throttles = |name: &str, rate: fn(&str) -> Result<u64, Usage>| {
        let list = many(matches, name).iter().map(|text| throttle(name, text, rate)).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, Usage>(Some(list))
    };
    let bytes: fn(&str) -> Result<u64, Usage> = |text| parse_size(text).map(|size| size as u64);
    let operations: fn(&str) -> Result<u64, Usage> =
        |text| text.parse().map_err(|_| format!("{text:?} is not a number"));
    let weight = one(matches, "blkio-weight").unwrap_or("0");
    host.blkio_weight = weight.parse().map_err(|_| invalid("blkio-weight", weight))?;
    host.blkio_weight_device =
        Some(many(matches, "blkio-weight-device").iter().map(|text| weight_device(text)).collect::<Result<_, _>>()?);
    host.blkio_device_read_bps = throttles("device-read-bps", bytes)?;
    host.blkio_device_write_bps = throttles("device-write-bps", bytes)?;
    host.blkio_device_read_iops = throttles("device-read-iops", operations)?;
    host.blkio_device_write_iops = throttles("device-write-iops", operations)?;
    Ok(())
}

fn fill_lifecycle(matches: &ArgMatches, host: &mut HostConfig) -> Result<(), Usage> {
    let text = |name: &str| one(matches, name).unwrap_or_default().to_owned();
    host.container_id_file = text("cidfile");
    host.auto_remove = on(matches, "rm");
    host.restart_policy = restart_policy(one(matches, "restart").unwrap_or("no"))?;
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "no" | "") {
        return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
    }
    host.init = on(matches, "init").then_some(true);
    host.runtime = text("runtime");
    host.isolation = text("isolation");
    host.cgroup_parent = text("cgroup-parent");
    host.annotations = pairs(many(matches, "annotation"), '=');
    let options = many(matches, "log-opt");
    if let Some(wrong) = options.iter().find(|option| !option.contains('=')) {
        return Err(format!("invalid logging opts format: {wrong}"));
    }
    host.log_config = LogConfig { r#type: text("log-driver"), config: Some(pairs(options, '=')) };
    Ok(())
}

/// The endpoints, where options name a network or say how to be in it.
fn networking_config(matches: &ArgMatches) -> Result<Option<NetworkingConfig>, Usage> {
    let networks = many(matches, "network");
    let mut endpoints = BTreeMap::new();
    for network in &networks {
        endpoints.insert(network_name(network)?, Some(endpoint_of(network)?));
    }
    let aliases = many(matches, "network-alias");
    let addresses = ["ip", "ip6", "mac-address"].map(|name| one(matches, name).unwrap_or_default().to_owned());
    let [ipv4_address, ipv6_address, mac_address] = addresses;
    let link_local_ips = many(matches, "link-local-ip");
    let asked = !aliases.is_empty() || !link_local_ips.is_empty();
    if asked || !ipv4_address.is_empty() || !ipv6_address.is_empty() || !mac_address.is_empty() {
        let name = networks.first().map_or(Ok("default".to_owned()), |first| network_name(first))?;
        let endpoint = endpoints.entry(name).or_default().get_or_insert_default();
        endpoint.aliases.get_or_insert_default().extend(aliases);
        endpoint.mac_address = mac_address;
        endpoint.ipam_config = Some(EndpointIpamConfig { ipv4_address, ipv6_address, link_local_ips });
    }
    Ok(Some(NetworkingConfig { endpoints_config: Some(endpoints) }))
}

/// The name in `--network NAME` or `--network name=NAME,alias=…`.
fn network_name(text: &str) -> Result<String, Usage> {
    if !text.contains('=') {
        return Ok(text.to_owned());
    }
    let name = text.split(',').find_map(|field| field.strip_prefix("name="));
    name.map(str::to_owned).ok_or_else(|| format!("network name is required in --network {text}"))
}

fn endpoint_of(text: &str) -> Result<EndpointSettings, Usage> {
    let mut endpoint = EndpointSettings::default();
    for (key, value) in text.split(',').filter_map(|field| field.split_once('=')) {
        let value = value.to_owned();
        let addresses = || EndpointIpamConfig::default();
        match key {
            "name" => {}
            "alias" => endpoint.aliases.get_or_insert_default().push(value),
            "ip" => endpoint.ipam_config.get_or_insert_with(addresses).ipv4_address = value,
            "ip6" => endpoint.ipam_config.get_or_insert_with(addresses).ipv6_address = value,
            "link-local-ip" => endpoint.ipam_config.get_or_insert_with(addresses).link_local_ips.push(value),
            "mac-address" => endpoint.mac_address = value,
            "driver-opt" => endpoint.driver_opts.get_or_insert_default().extend(pairs(vec![value], '=')),
            "gw-priority" => endpoint.gw_priority = Some(value.parse().map_err(|_| invalid("network", text))?),
            other => return Err(format!("invalid field key {other} in --network {text}")),
        }
    }
    Ok(endpoint)
}

/// `NAME=value`, or `NAME`, which takes the value from this command's environment if it is there; files come first.
pub(crate) fn environment(files: &[String], named: Vec<String>) -> Result<Vec<String>, Usage> {
    let mut variables = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|error| format!("open {file}: {error}"))?;
        variables.extend(lines_of(&text).map(str::to_owned));
    }
    variables.extend(named);
    if let Some(wrong) = variables.iter().find(|variable| variable.starts_with('=') || variable.is_empty()) {
        return Err(format!("invalid environment variable: {wrong}"));
    }
    let resolve = |variable: String| match variable.contains('=') {
        true => Some(variable),
        false => std::env::var(&variable).ok().map(|value| format!("{variable}={value}")),
    };
    Ok(variables.into_iter().filter_map(resolve).collect())
}

fn labels(matches: &ArgMatches) -> Result<BTreeMap<String, String>, Usage> {
    let mut labels = Vec::new();
    for file in many(matches, "label-file") {
        let text = std::fs::read_to_string(&file).map_err(|error| format!("open {file}: {error}"))?;
        labels.extend(lines_of(&text).map(str::to_owned));
    }
    labels.extend(many(matches, "label"));
    Ok(pairs(labels, '='))
}

fn lines_of(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn exposed_ports(matches: &ArgMatches) -> Result<Set, Usage> {
    let mut ports = Set::new();
    for text in many(matches, "expose") {
        let spec: PortSpec = text.parse().map_err(|error| format!("invalid range format for --expose: {error}"))?;
        ports.extend(spec.ports().map(|port| (format!("{port}/{}", spec.protocol.name()), Empty {})));
    }
    ports.extend(port_bindings(matches)?.into_keys().map(|port| (port, Empty {})));
    Ok(ports)
}

/// `[[ip:]host port:]container port[/protocol]`, ports or ranges.
fn port_bindings(matches: &ArgMatches) -> Result<PortMap, Usage> {
    let mut bindings = PortMap::new();
    for text in many(matches, "publish") {
        let (place, protocol) = text.rsplit_once('/').unwrap_or((&text, "tcp"));
        let (host, container) = place.rsplit_once(':').unwrap_or(("", place));
        let (ip, host_ports) = host.rsplit_once(':').unwrap_or(("", host));
        let range = |ports: &str| {
            ports.parse::<PortSpec>().map_err(|error| format!("invalid publish opts format {text:?}: {error}"))
        };
        let inside = range(container)?;
        let outside = if host_ports.is_empty() { None } else { Some(range(host_ports)?) };
        if outside.is_some_and(|outside| outside.ports().len() != inside.ports().len() && inside.ports().len() != 1) {
            return Err(format!("invalid ranges specified for container and host Ports: {container} and {host_ports}"));
        }
        for (offset, port) in inside.ports().enumerate() {
            let host_port = match outside {
                Some(outside) if inside.ports().len() == 1 && outside.ports().len() > 1 => host_ports.to_owned(),
                Some(outside) => (usize::from(outside.first) + offset).to_string(),
                None => String::new(),
            };
            let host_ip = ip.trim_matches(['[', ']']).to_owned();
            let entry = bindings.entry(format!("{port}/{}", protocol.to_ascii_lowercase())).or_default();
            entry.get_or_insert_default().push(PortBinding { host_ip, host_port });
        }
    }
    Ok(bindings)
}

fn healthcheck(matches: &ArgMatches) -> Result<Option<HealthConfig>, Usage> {
    let time = |name: &str| one(matches, name).map(parse_duration).transpose().map(|value| value.unwrap_or(0));
    if on(matches, "no-healthcheck") {
        return Ok(Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() }));
    }
    let health = HealthConfig {
        test: one(matches, "health-cmd").map(|c| vec!["CMD-SHELL".to_owned(), c.to_owned()]).unwrap_or_default(),
        interval: time("health-interval")?,
        timeout: time("health-timeout")?,
        start_period: time("health-start-period")?,
        start_interval: time("health-start-interval")?,
        retries: number(matches, "health-retries")?.unwrap_or(0),
    };
    Ok((health != HealthConfig::default()).then_some(health))
}

/// `name:ip` as it is, `name=ip` with a colon.
fn extra_host(text: &str) -> Result<String, Usage> {
    let (name, address) = text.split_once(['=', ':']).ok_or_else(|| format!("bad format for add-host: {text:?}"))?;
    let address = address.trim_matches(['[', ']']);
    if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{address}"))
}

/// Security options with profiles read in, and whether `systempaths=unconfined` was among them.
fn security_options(options: &[String]) -> Result<(Vec<String>, bool), Usage> {
    let mut out = Vec::new();
    let mut unconfined = false;
    for option in options {
        match option.split_once('=').or_else(|| option.split_once(':')) {
            Some(("systempaths", "unconfined")) => unconfined = true,
            Some(("seccomp", file)) if !["unconfined", "builtin"].contains(&file) => {
                out.push(format!("seccomp={}", seccomp_profile(file)?));
            }
            None if option != "no-new-privileges" => return Err(format!("Invalid --security-opt: {option:?}")),
            _ => out.push(option.clone()),
        }
    }
    Ok((out, unconfined))
}

fn seccomp_profile(file: &str) -> Result<String, Usage> {
    let failed = |error: &dyn std::fmt::Display| format!("opening seccomp profile ({file}) failed: {error}");
    let text = std::fs::read(file).map_err(|error| failed(&error))?;
    let profile: crate::output::json::Json = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    Ok(profile.compact())
}

/// `path[:path in the container][:permissions]`.
fn device_mapping(text: &str) -> Result<DeviceMapping, Usage> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_mode = |part: &str| !part.is_empty() && part.bytes().all(|byte| b"rwm".contains(&byte));
    let (host, container, permissions) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, mode] if is_mode(mode) => (host, host, mode),
        [host, container] => (host, container, "rwm"),
        [host, container, mode] if is_mode(mode) => (host, container, mode),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    let [path_on_host, path_in_container, cgroup_permissions] = [host, container, permissions].map(str::to_owned);
    Ok(DeviceMapping { path_on_host, path_in_container, cgroup_permissions })
}

/// `all`, a count, or `device=…,capabilities=…,driver=…`.
fn gpu_request(text: &str) -> Result<DeviceRequest, Usage> {
    let mut request = DeviceRequest { count: 1, ..DeviceRequest::default() };
    let mut capabilities = vec!["gpu".to_owned()];
    for field in text.split(',') {
        match field.split_once('=') {
            None if field == "all" => request.count = -1,
            None => request.count = field.parse().map_err(|_| invalid("gpus", text))?,
            Some(("count", "all")) => request.count = -1,
            Some(("count", count)) => request.count = count.parse().map_err(|_| invalid("gpus", text))?,
            Some(("device", id)) => {
                request.count = 0;
                request.device_ids.get_or_insert_default().push(id.to_owned());
            }
            Some(("driver", driver)) => driver.clone_into(&mut request.driver),
            Some(("capabilities", list)) => capabilities.extend(list.split(',').map(str::to_owned)),
            Some(("options", options)) => request.options = Some(pairs(vec![options.to_owned()], '=')),
            Some((key, _)) => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    request.capabilities = Some(vec![capabilities]);
    Ok(request)
}

/// `name=soft[:hard]`.
fn ulimit(text: &str) -> Result<Ulimit, Usage> {
    let wrong = || format!("invalid argument {text:?} for \"--ulimit\" flag: invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let value = |text: &str| if text == "unlimited" { Ok(-1) } else { text.parse::<i64>().map_err(|_| wrong()) };
    let (soft, hard) = (value(soft)?, value(hard)?);
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

fn throttle(flag: &str, text: &str, rate: fn(&str) -> Result<u64, Usage>) -> Result<ThrottleDevice, Usage> {
    let wrong = |why: &str| format!("invalid argument {text:?} for \"--{flag}\" flag: {why}");
    let (path, value) = text.split_once(':').ok_or_else(|| wrong("the form is <device-path>:<number>"))?;
    if !path.starts_with("/dev/") {
        return Err(wrong("the device path must begin with /dev/"));
    }
    Ok(ThrottleDevice { path: path.to_owned(), rate: rate(value).map_err(|why| wrong(&why))? })
}

fn weight_device(text: &str) -> Result<WeightDevice, Usage> {
    let wrong = || format!("invalid argument {text:?} for \"--blkio-weight-device\" flag: bad format: {text}");
    let (path, weight) = text.split_once(':').ok_or_else(wrong)?;
    Ok(WeightDevice { path: path.to_owned(), weight: weight.parse().map_err(|_| wrong())? })
}

/// `no`, `always`, `unless-stopped`, `on-failure[:n]`.
pub(crate) fn restart_policy(text: &str) -> Result<RestartPolicy, Usage> {
    let (name, count) = text.split_once(':').unwrap_or((text, "0"));
    let maximum_retry_count = count.parse().map_err(|_| "maximum retry count must be an integer".to_owned())?;
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

/// A number of CPUs in billionths.
pub(crate) fn nano_cpus(text: &str) -> Result<i64, Usage> {
    let cpus: f64 = text.parse().map_err(|_| format!("failed to parse {text} as a rational number"))?;
    Ok((cpus * 1e9).round() as i64)
}

fn number(matches: &ArgMatches, name: &str) -> Result<Option<i64>, Usage> {
    one(matches, name).map(|text| text.parse().map_err(|_| invalid(name, text))).transpose()
}

pub(crate) fn size(matches: &ArgMatches, name: &str) -> Result<Option<i64>, Usage> {
    let parse =
        |text: &str| parse_size(text).map_err(|why| format!("invalid argument {text:?} for \"--{name}\" flag: {why}"));
    one(matches, name).map(parse).transpose()
}

fn invalid(name: &str, text: &str) -> Usage {
    format!("invalid argument {text:?} for \"--{name}\" flag: it takes a number")
}

/// `key<separator>value` each; no separator is an empty value.
pub(crate) fn pairs(list: Vec<String>, separator: char) -> BTreeMap<String, String> {
    let split = |entry: String| match entry.split_once(separator) {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (entry, String::new()),
    };
    list.into_iter().map(split).collect()
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::with_flags;
    use crate::run::options::{CREATE, RUN_ONLY};

    fn request(arguments: &[&str]) -> Result<CreateRequest, Usage> {
        let command = with_flags(with_flags(crate::flags::command("run").no_binary_name(true), CREATE), RUN_ONLY);
        let matches = command.try_get_matches_from(arguments).map_err(|error| error.to_string())?;
        create_request(&matches, "busybox", &["sh".to_owned()])
    }

    fn host(arguments: &[&str]) -> HostConfig {
        request(arguments).unwrap().host_config.unwrap()
    }

    #[test]
    fn streams_follow_attach_interactive_and_detach() {
        let config = request(&["-it"]).unwrap().config;
        assert!(config.tty && config.open_stdin && config.stdin_once && config.attach_stdin && config.attach_stdout);
        let config = request(&["-d", "-i"]).unwrap().config;
        assert!(config.open_stdin && !config.stdin_once && !config.attach_stdout);
        let config = request(&["-a", "stderr"]).unwrap().config;
        assert!(config.attach_stderr && !config.attach_stdout);
        assert!(request(&["-a", "nothing"]).is_err());
        assert!(request(&["-d", "-a", "stdin"]).is_err());
    }

    #[test]
    fn limits() {
        let host =
            host(&["-m", "64m", "--memory-swap", "-1", "--cpus", "1.5", "--ulimit", "nofile=1:2", "--pids-limit=7"]);
        assert_eq!((host.memory, host.memory_swap, host.nano_cpus), (64 << 20, -1, 1_500_000_000));
        assert_eq!(host.ulimits.unwrap(), [Ulimit { name: "nofile".into(), soft: 1, hard: 2 }]);
        assert_eq!(host.pids_limit, Some(7));
        assert!(request(&["--ulimit", "nofile=3:2"]).is_err());
        assert!(request(&["-m", "lots"]).is_err());
    }

    #[test]
    fn ports() {
        let host = host(&["-p", "127.0.0.1:8080:80", "-p", "53:53/udp", "-p", "9000-9001:90-91", "-p", "7"]);
        let bindings = host.port_bindings.unwrap();
        let get = |port: &str| bindings[port].clone().unwrap().remove(0);
        assert_eq!(get("80/tcp"), PortBinding { host_ip: "127.0.0.1".into(), host_port: "8080".into() });
        assert_eq!(get("53/udp").host_port, "53");
        assert_eq!(get("91/tcp").host_port, "9001");
        assert_eq!(get("7/tcp").host_port, "");
    }

    #[test]
    fn devices_and_security() {
        let host =
            host(&["--device", "/dev/null:/dev/x:r", "--security-opt", "systempaths=unconfined", "--cap-add", "ALL"]);
        assert_eq!(host.devices.unwrap()[0].path_in_container, "/dev/x");
        assert_eq!(host.masked_paths, Some(Vec::new()));
        assert_eq!(host.cap_add, Some(Words(vec!["ALL".into()])));
        assert!(request(&["--security-opt", "nonsense"]).is_err());
        assert!(request(&["--device", "/dev/a:/dev/b:x:y"]).is_err());
    }

    #[test]
    fn networks_in_both_forms() {
        assert_eq!(host(&[]).network_mode, "default");
        assert_eq!(host(&["--network", "none"]).network_mode, "none");
        let request = request(&["--network", "name=front,alias=web,ip=10.0.0.2"]).unwrap();
        assert_eq!(request.host_config.unwrap().network_mode, "front");
        let endpoints = request.networking_config.unwrap().endpoints_config.unwrap();
        let endpoint = endpoints["front"].clone().unwrap();
        assert_eq!(endpoint.aliases.unwrap(), ["web"]);
        assert_eq!(endpoint.ipam_config.unwrap().ipv4_address, "10.0.0.2");
    }

    #[test]
    fn conflicts_are_refused() {
        assert!(request(&["--rm", "--restart", "always"]).is_err());
        assert!(request(&["--log-opt", "nonsense"]).is_err());
        assert!(request(&["--add-host", "a:b"]).is_err());
    }
}
