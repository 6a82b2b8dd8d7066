//! The engine and its host.

use std::sync::Arc;

use crate::engine::{Engine, blocking};
use crate::model::{ContainerQuery, DiskUsage, EngineError, ImageQuery, Status, SystemInfo};

impl Engine {
    /// What `info` and `version` tell; never waits for a container.
    pub fn system_info(&self) -> SystemInfo {
        let inner = &self.inner;
        let host = &inner.host;
        let (mut running, mut paused, mut stopped) = (0, 0, 0);
        for handle in inner.index.all() {
            match handle.view().state.status {
                Status::Running | Status::Restarting => running += 1,
                Status::Paused => paused += 1,
                _ => stopped += 1,
            }
        }
        let (settings, runtimes) = (inner.current.settings(), inner.current.runtimes());
        let own = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let tasks = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        SystemInfo {
            id: inner.id.clone(),
            engine_name: inner.options.name.clone(),
            hostname: host.hostname.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            kernel_version: host.kernel.clone(),
            operating_system: host.operating_system.clone(),
            os_version: host.os_version.clone(),
            architecture: std::env::consts::ARCH.into(),
            cpus: host.cpus,
            memory_bytes: host.memory_bytes,
            root: inner.options.root.clone(),
            storage_driver: host.storage_driver.into(),
            storage_status: vec![("Layers".into(), "one file per layer, mounted once".into())],
            cgroup_driver: "cgroupfs".into(),
            cgroup_version: host.cgroup_version.to_string(),
            limits: host.limit_support(),
            security_options: self.security_options(),
            runtimes: runtimes.views(),
            default_runtime: runtimes.default_name().to_owned(),
            running,
            paused,
            stopped,
            images: inner.images.catalogue().images().count(),
            event_listeners: inner.bus.listeners(),
            ipv4_forwarding: std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
                .is_ok_and(|text| text.trim() == "1"),
            warnings: host
                .warnings
                .iter()
                .cloned()
                .chain(inner.networks.warnings().iter().map(|warning| format!("WARNING: {warning}")))
                .collect(),
            features: host.features.clone(),
            proxies: ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"].map(proxy),
            file_descriptors: own,
            tasks,
            registries: settings.registries.view(),
            labels: settings.labels.clone(),
            log_driver: inner.options.defaults.log.driver_name().to_owned(),
            cdi_spec_dirs: inner.options.cdi_spec_dirs.clone(),
        }
    }

    fn security_options(&self) -> Vec<String> {
        let host = &self.inner.host;
        let mut options = Vec::new();
        if host.apparmor {
            options.push("name=apparmor".to_owned());
        }
        if host.seccomp {
            options.push("name=seccomp,profile=builtin".to_owned());
        }
        if self.inner.remap.is_some() {
            options.push("name=userns".to_owned());
        }
        if host.cgroup_version == 2 {
            options.push("name=cgroupns".to_owned());
        }
        options
    }

    /// What uses the disk.
    pub async fn disk_usage(&self) -> Result<DiskUsage, EngineError> {
        let inner = Arc::clone(&self.inner);
        let layers = blocking(move || Ok(inner.images.usage())).await?;
        let images = self.images_with(&ImageQuery { all: true, ..ImageQuery::default() }, Some(&layers))?;
        let mut containers = Vec::new();
        for view in self.containers(&ContainerQuery { all: true, ..ContainerQuery::default() })? {
            // One that is removed meanwhile is not counted.
            if let Ok(sizes) = self.container_sizes(view.id.as_str()).await {
                containers.push((view, sizes));
            }
        }
        let (volumes, budget) = (self.volume_usage().await?, self.storage_state());
        Ok(DiskUsage {
            layers_bytes: layers.layers_bytes,
            reclaimable_layers_bytes: layers.reclaimable_bytes,
            images,
            containers,
            volumes,
            budget,
        })
    }
}

/// A proxy of the daemon's environment, in either spelling.
fn proxy(name: &str) -> String {
    std::env::var(name).or_else(|_| std::env::var(name.to_ascii_lowercase())).unwrap_or_default()
}
