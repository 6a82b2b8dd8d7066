//! `GET /version` and `GET /info`.

use std::collections::BTreeMap;

use docker_api::ApiVersion;
use docker_api::system::{
    Commit, Component, DiskUsage, DiskUsageSummaries, Firewall, IndexConfig, Info, KindUsage, Platform, Plugins,
    RegistryConfig, Runtime, StorageBudget, Swarm, Version,
};
use engine::model::{RegistriesView, StorageState, SystemInfo};
use jiff::Timestamp;

use crate::identity::{DOCKER_VERSION, server_version};

/// Where names without a host are looked up.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// What they are called.
const HUB: &str = "docker.io";

/// The answer of `GET /version`.
pub(crate) fn version(info: &SystemInfo) -> Version {
    let arch = go_architecture(&info.architecture);
    let details = [
        ("ApiVersion", ApiVersion::NEWEST.to_string()),
        ("MinAPIVersion", ApiVersion::OLDEST.to_string()),
        ("Os", "linux".to_owned()),
        ("Arch", arch.to_owned()),
        ("KernelVersion", info.kernel_version.clone()),
        ("DockerVersion", DOCKER_VERSION.to_owned()),
        ("Experimental", "false".to_owned()),
    ];
    let details = details.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Version {
        platform: Platform { name: format!("Conex {}", info.version) },
        components: vec![Component { name: "Engine".to_owned(), version: server_version(&info.version), details }],
        version: server_version(&info.version),
        api_version: ApiVersion::NEWEST.to_string(),
        min_api_version: ApiVersion::OLDEST.to_string(),
        os: "linux".to_owned(),
        arch: arch.to_owned(),
        kernel_version: info.kernel_version.clone(),
        ..Version::default()
    }
}

/// Go's names of processors, which images use, too.
fn go_architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The answer of `GET /info`.
pub(crate) fn info(info: &SystemInfo, now: Timestamp) -> Info {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let [http_proxy, https_proxy, no_proxy] = info.proxies.clone();
    let limits = info.limits;
    Info {
        id: info.id.clone(),
        containers: count(info.running + info.paused + info.stopped),
        containers_running: count(info.running),
        containers_paused: count(info.paused),
        containers_stopped: count(info.stopped),
        images: count(info.images),
        driver: info.storage_driver.clone(),
        driver_status: info.storage_status.iter().map(|(key, value)| [key.clone(), value.clone()]).collect(),
        plugins: plugins(),
        memory_limit: limits.memory,
        swap_limit: limits.swap,
        kernel_memory_tcp: limits.kernel_memory_tcp,
        cpu_cfs_period: limits.cpu_quota,
        cpu_cfs_quota: limits.cpu_quota,
        cpu_shares: limits.cpu_shares,
        cpu_set: limits.cpuset,
        pids_limit: limits.pids,
        oom_kill_disable: limits.oom_kill_disable,
        ipv4_forwarding: info.ipv4_forwarding,
        n_fd: count(info.file_descriptors),
        n_goroutines: count(info.tasks),
        system_time: now.to_string(),
        logging_driver: info.log_driver.clone(),
        labels: info.labels.clone(),
        cgroup_driver: info.cgroup_driver.clone(),
        cgroup_version: info.cgroup_version.clone(),
        n_events_listener: count(info.event_listeners),
        kernel_version: info.kernel_version.clone(),
        operating_system: info.operating_system.clone(),
        os_version: info.os_version.clone(),
        os_type: "linux".to_owned(),
        architecture: info.architecture.clone(),
        index_server_address: DOCKER_HUB.to_owned(),
        registry_config: Some(registry_config(&info.registries)),
        ncpu: count(info.cpus),
        mem_total: i64::try_from(info.memory_bytes).unwrap_or(i64::MAX),
        docker_root_dir: info.root.display().to_string(),
        http_proxy,
        https_proxy,
        no_proxy,
        name: info.hostname.clone(),
        server_version: server_version(&info.version),
        runtimes: runtimes(info),
        default_runtime: info.default_runtime.clone(),
        swarm: Swarm { local_node_state: "inactive".to_owned(), ..Swarm::default() },
        // Containers outlive the daemon, always.
        live_restore_enabled: true,
        init_binary: "conex-runtime".to_owned(),
        containerd_commit: Commit::default(),
        runc_commit: Commit { id: info.version.clone(), expected: String::new() },
        init_commit: Commit { id: info.version.clone(), expected: String::new() },
        security_options: info.security_options.clone(),
        cdi_spec_dirs: Some(info.cdi_spec_dirs.iter().map(|folder| folder.display().to_string()).collect()),
        firewall_backend: Some(Firewall { driver: "nftables".to_owned(), info: Vec::new() }),
        warnings: Some(info.warnings.clone()),
        ..Info::default()
    }
}

fn plugins() -> Plugins {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Plugins {
        volume: names(&["local"]),
        network: names(&["bridge", "host", "null"]),
        authorization: None,
        log: names(&engine::model::LOG_DRIVERS),
    }
}

/// As in Docker the networks of this machine end the list, and Docker Hub's mirrors stand twice. Mirrors of other registries, which Docker
/// does not have, stand with these.
fn registry_config(registries: &RegistriesView) -> RegistryConfig {
    let index = |name: &str, secure: bool| IndexConfig {
        name: name.to_owned(),
        mirrors: mirrors_of(registries, name),
        secure,
        official: name == HUB,
    };
    let names = registries.mirrors.iter().map(|(name, _)| name.as_str());
    let mut index_configs: BTreeMap<String, IndexConfig> =
        names.chain([HUB]).map(|name| (name.to_owned(), index(name, true))).collect();
    let insecure = registries.insecure_hosts.iter().filter(|name| *name != HUB);
    index_configs.extend(insecure.map(|name| (name.clone(), index(name, false))));
    let own = ["::1/128", "127.0.0.0/8"].map(str::to_owned);
    let mirrors = Some(mirrors_of(registries, HUB)).filter(|mirrors| !mirrors.is_empty());
    RegistryConfig {
        insecure_registry_cidrs: registries.insecure_networks.iter().cloned().chain(own).collect(),
        index_configs,
        mirrors,
    }
}

fn mirrors_of(registries: &RegistriesView, name: &str) -> Vec<String> {
    let of_it = registries.mirrors.iter().filter(|(registry, _)| registry == name);
    // Docker ends each with a slash.
    of_it.map(|(_, url)| format!("{}/", url.trim_end_matches('/'))).collect()
}

fn runtimes(info: &SystemInfo) -> BTreeMap<String, Runtime> {
    let show = |view: &engine::model::RuntimeView| {
        (view.name.clone(), Runtime { path: view.path.display().to_string(), ..Runtime::default() })
    };
    info.runtimes.iter().map(show).collect()
}

/// The sums, with what is listed as their items.
pub(crate) fn with_items(lists: DiskUsage) -> DiskUsageSummaries {
    fn give<T>(usage: &mut Option<KindUsage<T>>, items: Option<Vec<T>>) {
        if let Some(usage) = usage {
            usage.items = items.unwrap_or_default();
        }
    }
    let mut sums = lists.summaries;
    give(&mut sums.image_usage, lists.images);
    give(&mut sums.container_usage, lists.containers);
    give(&mut sums.volume_usage, lists.volumes);
    give(&mut sums.build_cache_usage, lists.build_cache);
    sums
}

/// How the storage budget is kept.
pub(crate) fn storage_budget(state: &StorageState) -> StorageBudget {
    let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    StorageBudget {
        budget: state.budget.clone(),
        limit: size(state.limit_bytes),
        used: size(state.used_bytes),
        excess: size(state.excess_bytes),
        kept: state.kept.clone(),
    }
}

#[cfg(test)]
mod tests {
    use docker_api::image::Summary;
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_become_sums_and_items() {
        let image = |containers| Summary { containers, size: 10, ..Summary::default() };
        let mut lists = DiskUsage {
            layers_size: 15,
            images: Some(vec![image(0), image(2)]),
            build_cache: Some(vec![json!({"Size": 7, "Shared": false}), json!({"Size": 9, "Shared": true})]),
            ..DiskUsage::default()
        };
        lists.summaries = lists.sums(4);
        let images = lists.summaries.image_usage.clone().unwrap();
        assert_eq!((images.active_count, images.total_count), (1, 2));
        assert_eq!((images.reclaimable, images.total_size, images.items.len()), (4, 15, 0));
        let cache = lists.summaries.build_cache_usage.clone().unwrap();
        assert_eq!((cache.total_count, cache.total_size, cache.reclaimable), (2, 7, 7));
        assert_eq!(lists.summaries.volume_usage, None);
        let shown = serde_json::to_value(with_items(lists)).unwrap();
        assert_eq!(shown["ImageUsage"]["Items"].as_array().map(Vec::len), Some(2));
        assert!(shown.get("LayersSize").is_none() && shown.get("VolumeUsage").is_none());
    }
}
