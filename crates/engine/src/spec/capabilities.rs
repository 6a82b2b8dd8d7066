//! Which capabilities a container's processes get.

use oci::runtime::LinuxCapabilities;

use super::defaults;
use crate::model::{Capability, ContainerSpec, ExecSpec};

/// The names that a container is granted, in the kernel's order, of those that this host has (`available`).
pub(crate) fn granted(spec: &ContainerSpec, available: &[String]) -> Vec<String> {
    if spec.privileged {
        return available.to_vec();
    }
    let names = |list: &[Capability]| -> Vec<String> {
        list.iter()
            .filter_map(|capability| match capability {
                Capability::One(name) => Some(name.clone()),
                Capability::All => None,
            })
            .collect()
    };
    let (added, dropped) = (names(&spec.cap_add), names(&spec.cap_drop));
    let (add_all, drop_all) = (spec.cap_add.contains(&Capability::All), spec.cap_drop.contains(&Capability::All));
    // Docker: `--cap-drop ALL` leaves what was added by name; `--cap-add ALL` gives all but what was dropped by name.
    let has = |name: &str| {
        let base = match (add_all, drop_all) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => defaults::CAPABILITIES.contains(&name),
        };
        (base && !dropped.iter().any(|other| other == name)) || added.iter().any(|other| other == name)
    };
    available.iter().filter(|name| has(name)).cloned().collect()
}

/// For the container's first process. Inheritable and ambient stay empty: they would let an unprivileged exec regain capabilities.
pub(super) fn container_capabilities(spec: &ContainerSpec, available: &[String]) -> LinuxCapabilities {
    sets(granted(spec, available))
}

/// For an exec, which `--privileged` gives everything.
pub(crate) fn exec_capabilities(container: &ContainerSpec, exec: &ExecSpec, available: &[String]) -> LinuxCapabilities {
    sets(if exec.privileged { available.to_vec() } else { granted(container, available) })
}

/// The kernel itself clears the permitted and effective sets when a user other than root executes a program, so the sets are the same
/// for all users; only the bounding set differs by what was granted.
fn sets(names: Vec<String>) -> LinuxCapabilities {
    LinuxCapabilities {
        bounding: names.clone(),
        effective: names.clone(),
        permitted: names,
        inheritable: Vec::new(),
        ambient: Vec::new(),
    }
}
