//! What an engine is opened with.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use registry::Insecure;

use crate::model::{EngineError, LogConfig, RegistriesView, Ulimit};
use crate::runtimes::RuntimeOptions;
use crate::space::SpaceOptions;

/// The places, the name and the choices of one engine. Everything it owns hangs off `root`, `run` and `name`.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// What is kept: `/var/lib/conex`.
    pub root: PathBuf,
    /// What does not outlive the machine: `/run/conex`.
    pub run: PathBuf,
    /// From which come bridge names, the nft table and the cgroup parent: `conex`.
    pub name: String,
    /// How layers are kept.
    pub storage: StorageBackend,
    /// The networks.
    pub network: NetworkOptions,
    /// The `conex-runtime` executable.
    pub runtime: PathBuf,
    /// `--userns-remap`: whose subordinate ids containers get; none for the host's own.
    pub userns_remap: Option<String>,
    /// What may change while the engine runs.
    pub settings: Settings,
    /// What containers get that do not ask for something else.
    pub defaults: ContainerDefaults,
    /// What may stay on the disk.
    pub space: SpaceOptions,
    /// `--image-policy`: which images may come and run; none for all.
    pub image_policy: Option<PathBuf>,
    /// `--cdi-spec-dir`: folders of descriptions of devices, least important first.
    pub cdi_spec_dirs: Vec<PathBuf>,
}

/// What may change while the engine runs.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `--label`: what `info` tells of this engine.
    pub labels: Vec<String>,
    /// Other runtimes.
    pub runtimes: RuntimeOptions,
    /// How registries are reached.
    pub registries: RegistryOptions,
    /// `--default-shm-size`: of `/dev/shm`.
    pub shm_size_bytes: Option<u64>,
}

impl Settings {
    /// The size of `/dev/shm` where a container asks for none.
    pub fn shm_size_bytes(&self) -> u64 {
        self.shm_size_bytes.unwrap_or(crate::spec::DEFAULT_SHM_BYTES)
    }

    /// As the event of a reload tells them, by the names that they have in Docker's.
    pub(crate) fn told(&self, default_runtime: &str) -> BTreeMap<String, String> {
        let list = |texts: Vec<String>| serde_json::Value::from(texts).to_string();
        let registries = self.registries.view();
        let runtimes = self.runtimes.added.iter().map(|(name, path)| format!("{name}:{{{} []}}", path.display()));
        let insecure = registries.insecure_networks.iter().chain(&registries.insecure_hosts).cloned();
        [
            ("labels", list(self.labels.clone())),
            ("default-runtime", default_runtime.to_owned()),
            ("runtimes", runtimes.collect::<Vec<_>>().join(" ")),
            ("insecure-registries", list(insecure.collect())),
            ("registry-mirrors", list(registries.mirrors.into_iter().map(|(_, url)| url).collect())),
            ("default-shm-size", self.shm_size_bytes().to_string()),
            ("live-restore", "true".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

/// What containers get that do not ask for something else.
#[derive(Debug, Clone, Default)]
pub struct ContainerDefaults {
    /// `--log-driver` and `--log-opt`.
    pub log: LogConfig,
    /// `--default-ulimit`
    pub ulimits: Vec<Ulimit>,
    /// `--dns`
    pub dns: Vec<IpAddr>,
    /// `--dns-search`
    pub dns_search: Vec<String>,
    /// `--dns-opt`
    pub dns_options: Vec<String>,
}

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Those that need not prove who they are.
    pub insecure: Vec<registry::Insecure>,
    /// Servers that are asked before the registry itself.
    pub mirrors: Vec<registry::Mirror>,
    /// Folders of certificates, `HOST[:PORT]/*.{crt,cert,key}`.
    pub certificates: Vec<PathBuf>,
}

impl RegistryOptions {
    pub(crate) fn view(&self) -> RegistriesView {
        let of_kind = |wanted: fn(&Insecure) -> bool| {
            self.insecure.iter().filter(|insecure| wanted(insecure)).map(ToString::to_string).collect()
        };
        RegistriesView {
            insecure_networks: of_kind(|insecure| matches!(insecure, Insecure::Network { .. })),
            insecure_hosts: of_kind(|insecure| matches!(insecure, Insecure::Host(_))),
            // An address shows no secrets.
            mirrors: self.mirrors.iter().map(|mirror| (mirror.registry.clone(), mirror.url.to_string())).collect(),
        }
    }
}

/// How the default networks are made.
#[derive(Debug, Clone, Default)]
pub struct NetworkOptions {
    /// The default bridge's subnet; chosen when none.
    pub bridge_subnet: Option<String>,
    /// The default bridge's IPv6 subnet, `auto` for one of the engine's own; without IPv6 when none.
    pub bridge_subnet6: Option<String>,
    /// `--mtu`: the default bridge's largest packet; the host's when none.
    pub mtu: Option<u32>,
    /// `--default-address-pool`: where networks get their subnets from that are given none; Docker's when empty.
    pub address_pools: Vec<network::AddressPool>,
    /// Who reaches published ports.
    pub publish_policy: network::PublishPolicy,
}

/// How layers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StorageBackend {
    /// The best that this host can do.
    #[default]
    Automatic,
    /// File-backed EROFS (Linux 6.12).
    Erofs,
    /// EROFS over loop devices (Linux 6.4).
    ErofsLoop,
    /// Unpacked directories.
    Directories,
}

impl StorageBackend {
    /// Reads `auto`, `erofs`, `erofs-loop` or `directories`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        match text {
            "auto" => Ok(Self::Automatic),
            "erofs" => Ok(Self::Erofs),
            "erofs-loop" => Ok(Self::ErofsLoop),
            "directories" => Ok(Self::Directories),
            _ => Err(EngineError::invalid(format!(
                "unknown storage backend '{text}': use auto, erofs, erofs-loop or directories"
            ))),
        }
    }
}
