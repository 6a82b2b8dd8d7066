//! What Docker's daemon checks of a request before it makes anything, in its words; and what is not built, by name.

use crate::host::Host;
use crate::model::{
    ContainerSpec, EngineError, IpcMode, NetworkMode, Resources, RestartPolicy, SecurityMeaning, UtsMode, parse_size,
};

/// Checks a merged specification; returns warnings.
pub(super) fn spec(spec: &mut ContainerSpec, host: &Host) -> Result<Vec<String>, EngineError> {
    modes(spec)?;
    security(spec, host)?;
    sysctls(spec)?;
    working_dir(spec)?;
    let mut warnings = resources(&mut spec.resources, host)?;
    if !(-1000..=1000).contains(&spec.oom_score_adj) {
        return Err(EngineError::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            spec.oom_score_adj
        )));
    }
    if spec.auto_remove && spec.restart != RestartPolicy::No {
        return Err(EngineError::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    if spec.oom_score_adj < 0 && !host.spec.capabilities.iter().any(|name| name == "CAP_SYS_RESOURCE") {
        warnings.push(format!(
            "Lowering the OOM score to {} needs CAP_SYS_RESOURCE, which the engine does not have.",
            spec.oom_score_adj
        ));
    }
    if spec.network == NetworkMode::Host && (!spec.port_bindings.is_empty() || spec.publish_all_ports) {
        warnings.push("Published ports are discarded when using host network mode".into());
    }
    health(spec)?;
    super::ports::check(spec)?;
    super::links::check(spec)?;
    super::start::dns(spec)?;
    super::start::extra_hosts(spec)?;
    Ok(warnings)
}

/// `--storage-opt`: how much a container may write; none for as much as there is.
pub(super) fn storage_options(spec: &ContainerSpec) -> Result<Option<u64>, EngineError> {
    if let Some(unknown) = spec.storage_options.keys().find(|key| !key.eq_ignore_ascii_case("size")) {
        return Err(EngineError::invalid(format!("unknown option {unknown}")));
    }
    let size = spec.storage_options.values().next().map(|text| parse_size(text)).transpose()?;
    Ok(size.filter(|bytes| *bytes > 0))
}

fn modes(spec: &ContainerSpec) -> Result<(), EngineError> {
    let conflict = |what: &str| Err(EngineError::invalid(format!("conflicting options: {what}")));
    if spec.uts == UtsMode::Host && spec.hostname.is_some() {
        return conflict("hostname and the UTS mode");
    }
    if let NetworkMode::Container(_) = spec.network {
        if spec.hostname.is_some() {
            return conflict("hostname and the network mode");
        }
        if !spec.dns.is_empty() {
            return conflict("dns and the network mode");
        }
        if !spec.extra_hosts.is_empty() {
            return conflict("custom host-to-IP mapping and the network mode");
        }
        if spec.mac_address.as_deref().is_some_and(|mac| !mac.is_empty()) {
            return conflict("mac-address and the network mode");
        }
        if !spec.port_bindings.is_empty() || spec.publish_all_ports {
            return conflict("port publishing and the container type network mode");
        }
        if !spec.exposed_ports.is_empty() {
            return conflict("port exposing and the container type network mode");
        }
    }
    if spec.network == NetworkMode::Host && spec.mac_address.as_deref().is_some_and(|mac| !mac.is_empty()) {
        return conflict("mac-address and the network mode");
    }
    let shm_without_own = spec.shm_size_bytes > 0 && matches!(spec.ipc, IpcMode::Host | IpcMode::Container(_));
    // Docker takes and ignores the size; 64 MiB is what clients send without being asked.
    if shm_without_own && spec.shm_size_bytes != crate::spec::DEFAULT_SHM_BYTES {
        return conflict("shm-size and the IPC mode");
    }
    Ok(())
}

fn security(spec: &ContainerSpec, host: &Host) -> Result<(), EngineError> {
    for option in &spec.security {
        match &option.meaning {
            SecurityMeaning::AppArmorProfile(name) if !host.apparmor => {
                return Err(EngineError::invalid(format!(
                    "security option apparmor={name}: AppArmor is not enabled on this host"
                )));
            }
            SecurityMeaning::Label(label) => {
                return Err(EngineError::invalid(format!(
                    "security option label={label}: SELinux labels are not built; label=disable is"
                )));
            }
            SecurityMeaning::SeccompProfile(text) => crate::filters::check(text)?,
            _ => {}
        }
    }
    Ok(())
}

/// Only parameters that belong to a namespace of the container's own may be set; anything else would be the host's.
fn sysctls(spec: &ContainerSpec) -> Result<(), EngineError> {
    const IPC: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    for (key, value) in &spec.sysctls {
        let name_is_plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
        if !name_is_plain || key.contains("..") || value.contains(['\n', '\0']) {
            return Err(EngineError::invalid(format!("invalid sysctl {key:?}: unexpected characters")));
        }
        let own_ipc = !matches!(spec.ipc, IpcMode::Host);
        let allowed = (IPC.contains(&key.as_str()) || key.starts_with("fs.mqueue.")) && own_ipc
            || key.starts_with("net.") && spec.network != NetworkMode::Host
            || matches!(key.as_str(), "kernel.domainname" | "kernel.hostname") && spec.uts != UtsMode::Host;
        if !allowed {
            return Err(EngineError::invalid(format!("sysctl \"{key}\" is not in a separate kernel namespace")));
        }
    }
    Ok(())
}

fn working_dir(spec: &ContainerSpec) -> Result<(), EngineError> {
    if spec.working_dir.is_empty() || spec.working_dir.starts_with('/') {
        Ok(())
    } else {
        Err(EngineError::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            spec.working_dir
        )))
    }
}

fn health(spec: &ContainerSpec) -> Result<(), EngineError> {
    const MILLISECOND_NS: i64 = 1_000_000;
    super::probe::Probe::of(spec)?;
    let Some(check) = &spec.healthcheck else { return Ok(()) };
    let times = [
        ("Interval", check.interval_ns),
        ("Timeout", check.timeout_ns),
        ("StartPeriod", check.start_period_ns),
        ("StartInterval", check.start_interval_ns),
    ];
    for (name, nanoseconds) in times {
        if nanoseconds != 0 && nanoseconds < MILLISECOND_NS {
            return Err(EngineError::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries < 0 {
        return Err(EngineError::invalid("Retries in Healthcheck cannot be negative"));
    }
    match check.test.first().map(String::as_str) {
        None | Some("" | "NONE" | "CMD" | "CMD-SHELL" | "TCP" | "HTTP") => Ok(()),
        Some(kind) => Err(EngineError::invalid(format!("Unknown healthcheck type '{kind}' (expected 'CMD')"))),
    }
}

/// Checks limits, completes them as Docker does (`MemorySwap`), and drops with a warning what this host cannot limit.
pub(super) fn resources(resources: &mut Resources, host: &Host) -> Result<Vec<String>, EngineError> {
    let mut warnings = Vec::new();
    memory(resources, host, &mut warnings)?;
    cpu(resources, host)?;
    cpusets(resources, host)?;
    if resources.pids_limit.is_some_and(|limit| limit <= 0) {
        resources.pids_limit = None;
    }
    if resources.pids_limit.is_some() && !host.limits.pids {
        warnings.push(
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded."
                .into(),
        );
        resources.pids_limit = None;
    }
    blkio(resources, host, &mut warnings)?;
    cgroup_parent(resources)?;
    Ok(warnings)
}

fn memory(resources: &mut Resources, host: &Host, warnings: &mut Vec<String>) -> Result<(), EngineError> {
    /// Less than this and the runtime cannot start the process.
    const MINIMUM: i64 = 6 << 20;
    let refuse = |message: &str| Err(EngineError::invalid(message));
    if resources.memory_bytes != 0 && resources.memory_bytes < MINIMUM {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if resources.memory_bytes > 0 && !host.limits.memory {
        warnings.push("Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.".into());
        (resources.memory_bytes, resources.memory_swap_bytes) = (0, -1);
    }
    if resources.memory_bytes > 0 && resources.memory_swap_bytes != -1 && !host.limits.swap {
        warnings.push(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.".into(),
        );
        resources.memory_swap_bytes = -1;
    }
    if resources.memory_bytes > 0
        && resources.memory_swap_bytes > 0
        && resources.memory_swap_bytes < resources.memory_bytes
    {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if resources.memory_bytes == 0 && resources.memory_swap_bytes > 0 {
        return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if resources.memory_bytes > 0 && resources.memory_swap_bytes == 0 {
        resources.memory_swap_bytes = resources.memory_bytes.saturating_mul(2);
    }
    if resources.memory_swappiness.is_some_and(|percent| percent > 100) {
        return refuse(&format!(
            "Invalid value: {}, valid memory swappiness range is 0-100",
            resources.memory_swappiness.unwrap_or_default()
        ));
    }
    if resources.memory_reservation_bytes != 0 && resources.memory_reservation_bytes < MINIMUM {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if resources.memory_bytes > 0 && resources.memory_reservation_bytes > resources.memory_bytes {
        return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if resources.memory_swappiness.is_some() && host.cgroup_version == 2 {
        warnings.push("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.".into());
        resources.memory_swappiness = None;
    }
    if resources.oom_kill_disable == Some(true) && !host.limits.oom_kill_disable {
        warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".into());
        resources.oom_kill_disable = None;
    }
    if resources.oom_kill_disable == Some(true) && resources.memory_bytes == 0 {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".into());
    }
    Ok(())
}

/// Processors are given as a number or as a share of a period.
pub(super) fn one_cpu_limit(resources: &Resources) -> Result<(), EngineError> {
    let both = |what| EngineError::invalid(format!("Conflicting options: Nano CPUs and {what} cannot both be set."));
    match resources.nano_cpus > 0 {
        true if resources.cpu_period_us > 0 => Err(both("CPU Period")),
        true if resources.cpu_quota_us > 0 => Err(both("CPU Quota")),
        _ => Ok(()),
    }
}

fn cpu(resources: &Resources, host: &Host) -> Result<(), EngineError> {
    let refuse = |message: String| Err(EngineError::invalid(message));
    one_cpu_limit(resources)?;
    let most = i64::try_from(host.cpus).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    if resources.nano_cpus < 0 || resources.nano_cpus > most {
        return refuse(format!(
            "range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available",
            host.cpus
        ));
    }
    if resources.cpu_shares < 0 {
        return refuse(format!("invalid CPU shares ({}): value must be a positive integer", resources.cpu_shares));
    }
    if resources.cpu_period_us != 0 && !(1000..=1_000_000).contains(&resources.cpu_period_us) {
        return refuse("CPU cfs period cannot be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)".into());
    }
    if resources.cpu_quota_us > 0 && resources.cpu_quota_us < 1000 {
        return refuse("CPU cfs quota cannot be less than 1ms (i.e. 1000)".into());
    }
    if (resources.cpu_realtime_period_us != 0 || resources.cpu_realtime_runtime_us != 0) && !host.limits.cpu_realtime {
        return refuse("kernel does not support CPU real-time scheduler".into());
    }
    Ok(())
}

fn cpusets(resources: &Resources, host: &Host) -> Result<(), EngineError> {
    let check = |given: &str, available: &[usize], what: &str, noun: &str| {
        if given.is_empty() {
            return Ok(());
        }
        let wanted = parse_set(given).ok_or_else(|| {
            let given = shortened(given);
            EngineError::invalid(format!("Invalid value {given} for cpuset {what}: invalid format: {given}"))
        })?;
        if wanted.iter().any(|number| !available.contains(number)) {
            return Err(EngineError::invalid(format!(
                "Requested {noun} are not available - requested {}, available: {}",
                shortened(given),
                show_set(available)
            )));
        }
        Ok(())
    };
    check(&resources.cpuset_cpus, &host.cpu_numbers, "cpus", "CPUs")?;
    check(&resources.cpuset_mems, &host.memory_nodes, "mems", "memory nodes")
}

/// Set texts can be megabytes long in hostile requests.
fn shortened(text: &str) -> &str {
    text.get(..100).unwrap_or(text)
}

/// Writes `0-3,7`, from numbers in order.
fn show_set(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|one, next| one + 1 == *next);
    let show = |run: &[usize]| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    runs.map(show).collect::<Vec<_>>().join(",")
}

/// Reads `0-3,7`. Bounded: no host has so many CPUs, and a range is not spelled out before it is checked.
pub(crate) fn parse_set(text: &str) -> Option<Vec<usize>> {
    const LARGEST: usize = 8192;
    const LONGEST: usize = 64 << 10;
    if text.len() > LONGEST {
        return None;
    }
    // Not a list of them: in a text of this length, the same ones could be named ten thousand times.
    let mut is_named = vec![false; LARGEST + 1];
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > LARGEST {
            return None;
        }
        is_named[first..=last].fill(true);
    }
    Some((0..=LARGEST).filter(|number| is_named[*number]).collect())
}

fn blkio(resources: &mut Resources, host: &Host, warnings: &mut Vec<String>) -> Result<(), EngineError> {
    let out_of_range = |weight: u16| weight != 0 && !(10..=1000).contains(&weight);
    if out_of_range(resources.blkio_weight)
        || resources.blkio_weight_device.iter().any(|entry| out_of_range(entry.weight))
    {
        return Err(EngineError::invalid("Range of blkio weight is from 10 to 1000"));
    }
    if resources.blkio_weight != 0 && !host.limits.blkio_weight {
        warnings.push(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".into(),
        );
        resources.blkio_weight = 0;
    }
    if !resources.blkio_weight_device.is_empty() && !host.limits.blkio_weight {
        warnings.push("Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.".into());
        resources.blkio_weight_device.clear();
    }
    Ok(())
}

fn cgroup_parent(resources: &Resources) -> Result<(), EngineError> {
    let parent = &resources.cgroup_parent;
    if parent.split('/').any(|part| part == "..") || parent.contains('\0') {
        return Err(EngineError::invalid(format!("invalid cgroup parent {parent:?}")));
    }
    if parent.ends_with(".slice") {
        return Err(EngineError::not_implemented(
            "HostConfig.CgroupParent with a systemd slice: the systemd cgroup driver is not built",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{parse_set, spec};
    use crate::host::Host;
    use crate::model::{ContainerSpec, NetworkMode, Resources, RestartPolicy, SecurityOption};

    fn refusal(mut wanted: ContainerSpec) -> String {
        spec(&mut wanted, &Host::for_tests()).unwrap_err().message().to_owned()
    }

    fn with(resources: Resources) -> ContainerSpec {
        ContainerSpec { resources, ..ContainerSpec::default() }
    }

    #[test]
    fn memory_gets_its_swap() {
        let mut wanted = with(Resources { memory_bytes: 64 << 20, ..Resources::default() });
        assert!(spec(&mut wanted, &Host::for_tests()).unwrap().is_empty());
        assert_eq!(wanted.resources.memory_swap_bytes, 128 << 20);
        let mut host = Host::for_tests();
        host.limits.swap = false;
        let mut wanted = with(Resources { memory_bytes: 64 << 20, ..Resources::default() });
        assert!(spec(&mut wanted, &host).unwrap()[0].contains("Memory limited without swap"));
    }

    #[test]
    fn wrong_limits_are_refused_in_dockers_words() {
        let cases = [
            (Resources { memory_bytes: 1024, ..Resources::default() }, "Minimum memory limit allowed is 6MB"),
            (
                Resources { memory_swap_bytes: 1 << 30, ..Resources::default() },
                "You should always set the Memory limit",
            ),
            (Resources { nano_cpus: 99_000_000_000, ..Resources::default() }, "range of CPUs is from 0.01 to 2.00"),
            (Resources { nano_cpus: 1, cpu_period_us: 1000, ..Resources::default() }, "Conflicting options: Nano CPUs"),
            (Resources { cpu_period_us: 1, ..Resources::default() }, "CPU cfs period cannot be less"),
            (
                Resources { cpuset_cpus: "0-999999999".into(), ..Resources::default() },
                "Invalid value 0-999999999 for cpuset cpus",
            ),
            (
                Resources { cpuset_cpus: "7".into(), ..Resources::default() },
                "Requested CPUs are not available - requested 7, available: 0-1",
            ),
            (Resources { blkio_weight: 5, ..Resources::default() }, "Range of blkio weight"),
            (Resources { cgroup_parent: "/a/../b".into(), ..Resources::default() }, "invalid cgroup parent"),
        ];
        for (resources, message) in cases {
            let refused = refusal(with(resources));
            assert!(refused.starts_with(message), "{refused}");
        }
    }

    #[test]
    fn what_is_not_built_is_named() {
        let sysctls = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        let cases = [
            (
                ContainerSpec {
                    network: NetworkMode::Container("web".into()),
                    publish_all_ports: true,
                    ..ContainerSpec::default()
                },
                "conflicting options: port publishing and the container type network mode",
            ),
            (ContainerSpec { links: vec!["a:".into()], ..ContainerSpec::default() }, "bad format for links: a:"),
            (
                ContainerSpec { auto_remove: true, restart: RestartPolicy::Always, ..ContainerSpec::default() },
                "can't create 'AutoRemove'",
            ),
            (
                ContainerSpec { sysctls: sysctls("kernel.core_pattern", "x"), ..ContainerSpec::default() },
                "sysctl \"kernel.core_pattern\"",
            ),
            (ContainerSpec { sysctls: sysctls("net.a", "1\nx"), ..ContainerSpec::default() }, "invalid sysctl"),
            (
                ContainerSpec { working_dir: "x".into(), ..ContainerSpec::default() },
                "the working directory 'x' is invalid",
            ),
            (
                ContainerSpec {
                    security: vec![SecurityOption::parse("apparmor=web").unwrap()],
                    ..ContainerSpec::default()
                },
                "security option apparmor=web",
            ),
        ];
        for (wanted, message) in cases {
            let refused = refusal(wanted);
            assert!(refused.starts_with(message), "{refused}");
        }
    }

    #[test]
    fn sets_are_bounded() {
        assert_eq!(parse_set("0-2,5"), Some(vec![0, 1, 2, 5]));
        for text in ["", "a", "3-1", "0-", "1,,2", "0-99999"] {
            assert_eq!(parse_set(text), None, "{text}");
        }
        assert_eq!(parse_set(&"1,".repeat(1 << 20)), None);
    }
}
