//! The engine and its host: version, info, disk use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::mount::is_zero;
use crate::{ApiVersion, container, image, volume};

/// The answer of `GET /version`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Version {
    pub platform: Platform,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Component>,
    pub version: String,
    pub api_version: String,
    #[serde(rename = "MinAPIVersion", skip_serializing_if = "String::is_empty")]
    pub min_api_version: String,
    pub git_commit: String,
    pub go_version: String,
    pub os: String,
    pub arch: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kernel_version: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub experimental: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub build_time: String,
}

/// The product.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Platform {
    pub name: String,
}

/// A part of the product.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Component {
    pub name: String,
    pub version: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// The answer of `GET /info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Info {
    #[serde(rename = "ID")]
    pub id: String,
    pub containers: i64,
    pub containers_running: i64,
    pub containers_paused: i64,
    pub containers_stopped: i64,
    pub images: i64,
    pub driver: String,
    pub driver_status: Vec<[String; 2]>,
    pub plugins: Plugins,
    pub memory_limit: bool,
    pub swap_limit: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kernel_memory: bool,
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "std::ops::Not::not")]
    pub kernel_memory_tcp: bool,
    pub cpu_cfs_period: bool,
    pub cpu_cfs_quota: bool,
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    pub pids_limit: bool,
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    /// Always false, and shown only before 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_nf_iptables: Option<bool>,
    /// Always false, and shown only before 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_nf_ip6tables: Option<bool>,
    pub debug: bool,
    pub n_fd: i64,
    pub oom_kill_disable: bool,
    pub n_goroutines: i64,
    pub system_time: String,
    pub logging_driver: String,
    pub cgroup_driver: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroup_version: String,
    pub n_events_listener: i64,
    pub kernel_version: String,
    pub operating_system: String,
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    #[serde(rename = "OSType")]
    pub os_type: String,
    pub architecture: String,
    pub index_server_address: String,
    pub registry_config: Option<RegistryConfig>,
    #[serde(rename = "NCPU")]
    pub ncpu: i64,
    pub mem_total: i64,
    pub generic_resources: Option<Vec<Value>>,
    pub docker_root_dir: String,
    pub http_proxy: String,
    pub https_proxy: String,
    pub no_proxy: String,
    pub name: String,
    pub labels: Vec<String>,
    pub experimental_build: bool,
    pub server_version: String,
    pub runtimes: BTreeMap<String, Runtime>,
    pub default_runtime: String,
    pub swarm: Swarm,
    pub live_restore_enabled: bool,
    pub isolation: String,
    pub init_binary: String,
    pub containerd_commit: Commit,
    pub runc_commit: Commit,
    pub init_commit: Commit,
    pub security_options: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub product_license: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_address_pools: Vec<AddressPool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall_backend: Option<Firewall>,
    #[serde(rename = "CDISpecDirs")]
    pub cdi_spec_dirs: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub discovered_devices: Vec<Value>,
    pub warnings: Option<Vec<String>>,
}

impl Info {
    /// Gives older versions what they expect.
    #[must_use]
    pub fn for_version(mut self, version: ApiVersion) -> Self {
        if version.before(25) {
            self.security_options.iter_mut().for_each(keep_only_the_name);
        }
        if version.before(44) {
            self.runtimes.values_mut().for_each(|runtime| runtime.status.clear());
        }
        if version.before(49) {
            self.firewall_backend = None;
            for commit in [&mut self.containerd_commit, &mut self.runc_commit, &mut self.init_commit] {
                commit.expected.clone_from(&commit.id);
            }
        }
        if version.before(50) {
            self.discovered_devices.clear();
            self.bridge_nf_iptables = Some(false);
            self.bridge_nf_ip6tables = Some(false);
        }
        self
    }
}

/// `name=seccomp,profile=builtin` becomes `seccomp`.
fn keep_only_the_name(option: &mut String) {
    let name = option.split(',').find_map(|part| part.strip_prefix("name=")).map(str::to_owned);
    if let Some(name) = name {
        *option = name;
    }
}

/// The names of drivers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Plugins {
    pub volume: Vec<String>,
    pub network: Vec<String>,
    pub authorization: Option<Vec<String>>,
    pub log: Vec<String>,
}

/// Which registries are spoken to, and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct RegistryConfig {
    #[serde(rename = "InsecureRegistryCIDRs")]
    pub insecure_registry_cidrs: Vec<String>,
    pub index_configs: BTreeMap<String, IndexConfig>,
    pub mirrors: Option<Vec<String>>,
}

/// One registry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct IndexConfig {
    pub name: String,
    pub mirrors: Vec<String>,
    pub secure: bool,
    pub official: bool,
}

/// A program that runs containers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "lowercase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Runtime {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    #[serde(rename = "runtimeArgs", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(rename = "runtimeType", skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<String, String>,
}

/// Always inactive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Swarm {
    #[serde(rename = "NodeID")]
    pub node_id: String,
    pub node_addr: String,
    pub local_node_state: String,
    pub control_available: bool,
    pub error: String,
    pub remote_managers: Option<Vec<Value>>,
}

/// The source of a component.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Commit {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expected: String,
}

/// Where addresses of new networks come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct AddressPool {
    pub base: String,
    pub size: u8,
}

/// Who filters packets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Firewall {
    pub driver: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub info: Vec<[String; 2]>,
}

/// The answer of `GET /system/df`; a list is `null` where its type was not asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct DiskUsage {
    pub layers_size: i64,
    pub images: Option<Vec<image::Summary>>,
    pub containers: Option<Vec<container::Summary>>,
    pub volumes: Option<Vec<volume::Volume>>,
    pub build_cache: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "is_zero")]
    pub builder_size: i64,
    #[serde(flatten)]
    pub summaries: DiskUsageSummaries,
}

impl DiskUsage {
    /// The sums of what is listed; how much of the layers could go is known elsewhere.
    pub fn sums(&self, reclaimable_layers: i64) -> DiskUsageSummaries {
        let length = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let image_usage = self.images.as_ref().map(|images| KindUsage {
            active_count: length(images.iter().filter(|image| image.containers > 0).count()),
            total_count: length(images.len()),
            reclaimable: reclaimable_layers,
            total_size: self.layers_size,
            items: Vec::new(),
        });
        let is_active =
            |container: &&container::Summary| ["running", "paused", "restarting"].contains(&container.state.as_str());
        let container_usage = self.containers.as_ref().map(|containers| KindUsage {
            active_count: length(containers.iter().filter(is_active).count()),
            total_count: length(containers.len()),
            reclaimable: containers.iter().filter(|container| !is_active(container)).map(|c| c.size_rw).sum(),
            total_size: containers.iter().map(|container| container.size_rw).sum(),
            items: Vec::new(),
        });
        let volume_usage = self.volumes.as_ref().map(|volumes| {
            let data = || volumes.iter().filter_map(|volume| volume.usage_data.as_ref());
            KindUsage {
                active_count: length(data().filter(|usage| usage.ref_count > 0).count()),
                total_count: length(volumes.len()),
                reclaimable: data().filter(|usage| usage.ref_count == 0).map(|usage| usage.size.max(0)).sum(),
                total_size: data().map(|usage| usage.size.max(0)).sum(),
                items: Vec::new(),
            }
        });
        let build_cache_usage = self.build_cache.as_ref().map(|steps| {
            let is = |step: &Value, key: &str| step.get(key).and_then(Value::as_bool).unwrap_or_default();
            let size = |step: &Value| step.get("Size").and_then(Value::as_i64).unwrap_or_default();
            // What an image shares is counted there.
            let own = || steps.iter().filter(|step| !is(step, "Shared"));
            KindUsage {
                active_count: length(steps.iter().filter(|step| is(step, "InUse")).count()),
                total_count: length(steps.len()),
                reclaimable: own().filter(|step| !is(step, "InUse")).map(size).sum(),
                total_size: own().map(size).sum(),
                items: Vec::new(),
            }
        });
        DiskUsageSummaries { image_usage, container_usage, volume_usage, build_cache_usage, storage_budget: None }
    }
}

/// What 1.52 says in place of the lists, and what Conex adds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct DiskUsageSummaries {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_usage: Option<KindUsage<image::Summary>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_usage: Option<KindUsage<container::Summary>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_usage: Option<KindUsage<volume::Volume>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_cache_usage: Option<KindUsage<Value>>,
    /// Of Conex alone: how the storage budget is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_budget: Option<StorageBudget>,
}

/// What all objects of one kind take; the objects themselves where they were asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct KindUsage<T> {
    pub active_count: i64,
    pub total_count: i64,
    pub reclaimable: i64,
    pub total_size: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<T>,
}

/// How a storage budget is kept; of Conex alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct StorageBudget {
    /// As it was given: `80%`, or bytes.
    pub budget: String,
    /// What it comes to, in bytes.
    pub limit: i64,
    /// What is used of that.
    pub used: i64,
    /// What is used beyond it and may not go.
    pub excess: i64,
    /// Why it may not go.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kept: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_changes_with_the_version() {
        let info = Info {
            security_options: vec!["name=seccomp,profile=builtin".into()],
            firewall_backend: Some(Firewall::default()),
            runc_commit: Commit { id: "abc".into(), expected: String::new() },
            ..Info::default()
        };
        let oldest = info.clone().for_version(ApiVersion::OLDEST);
        assert_eq!(oldest.security_options, ["seccomp"]);
        assert_eq!((oldest.bridge_nf_iptables, oldest.runc_commit.expected.as_str()), (Some(false), "abc"));
        let newest = serde_json::to_string(&info.for_version(ApiVersion::NEWEST)).unwrap();
        assert!(newest.contains("FirewallBackend") && !newest.contains("BridgeNf"), "{newest}");
    }
}
