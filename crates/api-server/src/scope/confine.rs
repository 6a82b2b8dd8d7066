//! What may be asked of things that are made through a socket with fewer rights.
//!
//! A container must not reach out: no path of the host, no namespace of it or of containers without the label, no device, no capability
//! and no confinement less than the usual. Whatever is not known to be harmless is refused.

use engine::Engine;
use engine::model::{
    BindSource, CgroupnsMode, ContainerSpec, EngineError, ExecSpec, IpcMode, LabelFilter, LogDriver, MountKind,
    NetworkMode, NetworkRequest, PidMode, Resources, SecurityMeaning, UsernsMode, UtsMode, VolumeRequest,
};

use super::{Scope, container, denied};
use crate::error::ApiResult;

/// Networks that every container may use.
const DEFAULT_NETWORKS: [&str; 3] = ["bridge", "default", "none"];

impl Scope {
    /// Checks and marks a container that is to be made.
    pub(crate) fn confine_container(&self, engine: &Engine, spec: &mut ContainerSpec) -> ApiResult<()> {
        if let Some(what) = escape(spec) {
            return Err(denied(format!("{what} is not allowed on this socket")));
        }
        self.confine_mounts(engine, spec)?;
        self.confine_networks(engine, spec)?;
        for link in &spec.links {
            self.check_container(engine, link.split(':').next().unwrap_or_default())?;
        }
        self.mark(&mut spec.labels);
        Ok(())
    }

    /// Checks a process that is to be run in a container.
    pub(crate) fn confine_exec(&self, exec: &ExecSpec) -> ApiResult<()> {
        if exec.privileged { Err(denied("privileged mode is not allowed on this socket")) } else { Ok(()) }
    }

    /// Checks and marks a network that is to be made.
    pub(crate) fn confine_network(&self, request: &mut NetworkRequest) -> ApiResult<()> {
        let is_usual = matches!(request.driver.as_str(), "" | "bridge");
        if !is_usual || !request.options.is_empty() || !request.config_from.is_empty() {
            return Err(denied(
                "a network with another driver, options or a configuration is not allowed on this socket",
            ));
        }
        self.mark(&mut request.labels);
        Ok(())
    }

    /// Checks and marks a volume that is to be made. Options are mounts of the host's.
    pub(crate) fn confine_volume(&self, engine: &Engine, request: &mut VolumeRequest) -> ApiResult<()> {
        let has_options = request.options.as_ref().is_some_and(|options| !options.is_empty());
        if has_options || !matches!(request.driver.as_str(), "" | "local") {
            return Err(denied("a volume with another driver or options is not allowed on this socket"));
        }
        // To make one that is there is to find it.
        if let Some(name) = &request.name
            && engine.volume(name.as_str()).is_ok()
        {
            self.check_volume(engine, name.as_str())?;
        }
        self.mark(request.labels.get_or_insert_default());
        Ok(())
    }

    /// Looks whether a container has the label; its full id.
    pub(crate) fn check_container(&self, engine: &Engine, name: &str) -> Result<String, EngineError> {
        match self.label() {
            Some(label) => container(engine, name, label),
            None => Ok(engine.container(name)?.id.to_string()),
        }
    }

    fn check_volume(&self, engine: &Engine, name: &str) -> Result<(), EngineError> {
        self.label().map_or(Ok(()), |label| super::volume(engine, name, label))
    }

    /// No path of the host; volumes that are there and have the label, or new ones without a name.
    fn confine_mounts(&self, engine: &Engine, spec: &mut ContainerSpec) -> ApiResult<()> {
        let host_path = || Err(denied("a mount of a path of the host is not allowed on this socket"));
        for bind in &spec.binds {
            match &bind.source {
                BindSource::Host(_) => return host_path(),
                BindSource::Volume(name) => self.check_named_volume(engine, name)?,
                BindSource::Anonymous => {}
            }
        }
        for mount in &spec.mounts {
            match &mount.kind {
                MountKind::Bind { .. } => return host_path(),
                // Options of a volume are mounts of the host's.
                MountKind::Volume { driver, driver_options, .. }
                    if !driver_options.is_empty() || !matches!(driver.as_str(), "" | "local") =>
                {
                    return host_path();
                }
                MountKind::Volume { name: Some(name), .. } => self.check_named_volume(engine, name)?,
                MountKind::Volume { .. } | MountKind::Tmpfs { .. } | MountKind::Image { .. } => {}
            }
        }
        for from in &mut spec.volumes_from {
            from.container = self.check_container(engine, &from.container)?;
        }
        Ok(())
    }

    /// A volume that is made by its first use would have no label: it has to be made before.
    fn check_named_volume(&self, engine: &Engine, name: &str) -> ApiResult<()> {
        if self.label().is_some() { self.check_volume(engine, name).map_err(Into::into) } else { Ok(()) }
    }

    fn confine_networks(&self, engine: &Engine, spec: &mut ContainerSpec) -> ApiResult<()> {
        let Some(label) = self.label().cloned() else { return Ok(()) };
        match &mut spec.network {
            NetworkMode::Named(name) => check_network(engine, name, &label)?,
            NetworkMode::Container(name) => *name = container(engine, name, &label)?,
            NetworkMode::Bridge | NetworkMode::None | NetworkMode::Host => {}
        }
        for name in spec.endpoints.keys() {
            check_network(engine, name, &label)?;
        }
        for mode in [joined_ipc(&mut spec.ipc), joined_pid(&mut spec.pid)].into_iter().flatten() {
            *mode = container(engine, mode, &label)?;
        }
        Ok(())
    }
}

fn check_network(engine: &Engine, name: &str, label: &LabelFilter) -> Result<(), EngineError> {
    if DEFAULT_NETWORKS.contains(&name) { Ok(()) } else { super::network(engine, name, label).map(drop) }
}

fn joined_ipc(mode: &mut IpcMode) -> Option<&mut String> {
    if let IpcMode::Container(name) = mode { Some(name) } else { None }
}

fn joined_pid(mode: &mut PidMode) -> Option<&mut String> {
    if let PidMode::Container(name) = mode { Some(name) } else { None }
}

/// The first thing that would reach out of the container.
fn escape(spec: &ContainerSpec) -> Option<&'static str> {
    let Resources { devices, device_cgroup_rules, cgroup_parent, .. } = &spec.resources;
    let loosens = |meaning: &SecurityMeaning| {
        !matches!(
            meaning,
            SecurityMeaning::NoNewPrivileges | SecurityMeaning::NewPrivilegesAllowed | SecurityMeaning::SeccompBuiltin
        )
    };
    let kept_here = matches!(spec.log.driver, LogDriver::JsonFile | LogDriver::Local | LogDriver::None);
    let refused = [
        ("privileged mode", spec.privileged),
        ("the host's network", spec.network == NetworkMode::Host || spec.endpoints.contains_key("host")),
        ("the host's IPC namespace", spec.ipc == IpcMode::Host),
        ("the host's PID namespace", spec.pid == PidMode::Host),
        ("the host's UTS namespace", spec.uts == UtsMode::Host),
        ("the host's user namespace", spec.userns == UsernsMode::Host),
        ("the host's cgroup namespace", spec.cgroupns == CgroupnsMode::Host),
        ("an additional capability", !spec.cap_add.is_empty()),
        ("a security option", spec.security.iter().any(|option| loosens(&option.meaning))),
        ("a device", !devices.is_empty() || !device_cgroup_rules.is_empty() || !spec.device_requests.is_empty()),
        ("a cgroup parent", !cgroup_parent.is_empty()),
        ("another runtime", !matches!(spec.runtime.as_str(), "" | "conex" | "runc")),
        ("a choice of masked paths", spec.masked_paths.is_some() || spec.readonly_paths.is_some()),
        ("a sysctl", !spec.sysctls.is_empty()),
        ("a lower OOM score", spec.oom_score_adj < 0),
        ("a volume driver", !matches!(spec.volume_driver.as_str(), "" | "local")),
        ("a log driver that sends elsewhere", !kept_here),
    ];
    refused.into_iter().find(|(_, is_so)| *is_so).map(|(what, _)| what)
}
