//! systemd's driver: a transient scope, asked for over D-Bus.
//!
//! systemd owns the tree and makes the scope's cgroup; inside it everything is ours (`Delegate=yes`). Limits are given to systemd as
//! properties and written to the files too: the properties survive a `daemon-reload`, the files have what no property can say.

mod bus;
mod property;
mod wire;

use std::io;

use oci::runtime::LinuxResources;

use crate::controller::Version;
use crate::group::{Cgroup, CreateError, Group};
use crate::host::{Host, Layout};
use crate::path::CgroupPath;

use bus::Connection;
use property::{device_properties, parse_property, resource_properties};
use wire::{Property, Value};

const DEFAULT_SLICE: &str = "system.slice";
/// The same with a user's own systemd.
const DEFAULT_USER_SLICE: &str = "user.slice";

/// A unit in runc's form `slice:prefix:name`, with what the configuration's annotations say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemdUnit {
    /// The cgroup of a user's own systemd, without the first slash; empty for the machine's.
    below: String,
    slice: String,
    unit: String,
    extra: Vec<Property>,
}

/// Why systemd's driver cannot be used, or what systemd refuses.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// No systemd runs here.
    #[error("systemd is not running on this machine, or not for this user: use the cgroupfs driver")]
    NotRunning,
    /// The text is not `slice:prefix:name`.
    #[error("invalid systemd cgroup path {0:?}: slice:prefix:name expected")]
    Path(String),
    /// The slice's name is not well formed.
    #[error("invalid systemd slice {0:?}")]
    Slice(String),
    /// An annotation's value cannot be understood.
    #[error("invalid value {value:?} of the systemd property {name}")]
    Property {
        /// Which property.
        name: String,
        /// Its value.
        value: String,
    },
    /// The conversation breaks off.
    #[error("cannot talk to systemd")]
    Io(#[source] io::Error),
    /// The other end does not speak D-Bus.
    #[error("systemd's answer is not understood")]
    Protocol,
    /// systemd answers with an error.
    #[error("systemd refuses {method}: {text} ({error})")]
    Refused {
        /// What it was asked.
        method: String,
        /// The error's name.
        error: String,
        /// The error's text.
        text: String,
    },
    /// The unit's job does not end well.
    #[error("systemd's job for {unit} ended with {result}")]
    Job {
        /// Which unit.
        unit: String,
        /// The job's result.
        result: String,
    },
    /// The scope is there, but its cgroup cannot be used.
    #[error(transparent)]
    Create(#[from] CreateError),
}

impl SystemdUnit {
    /// Parses `slice:prefix:name`; without a slice the scope goes to `system.slice`.
    pub fn parse(text: &str) -> Result<Self, SystemdError> {
        let parts: Vec<_> = text.split(':').collect();
        let [slice, prefix, name] = parts[..] else { return Err(SystemdError::Path(text.to_owned())) };
        let is_plain = |part: &str| !part.contains(['/', '\0', '\n']) && part.len() < 200;
        if name.is_empty() || !is_plain(prefix) || !is_plain(name) {
            return Err(SystemdError::Path(text.to_owned()));
        }
        let is_root = rustix::process::geteuid().is_root();
        let slice = match slice {
            "" if is_root => DEFAULT_SLICE,
            "" => DEFAULT_USER_SLICE,
            slice => slice,
        };
        slice_path(slice)?;
        let unit = match (name.ends_with(".slice"), prefix.is_empty()) {
            (true, _) => name.to_owned(),
            (false, true) => format!("{name}.scope"),
            (false, false) => format!("{prefix}-{name}.scope"),
        };
        Ok(Self { below: String::new(), slice: slice.to_owned(), unit, extra: Vec::new() })
    }

    /// Asks a user's own systemd where its cgroups are; the machine's are at the root.
    pub fn located(mut self) -> Result<Self, SystemdError> {
        if !rustix::process::geteuid().is_root() {
            Connection::open()?.control_group()?.trim_matches('/').clone_into(&mut self.below);
        }
        Ok(self)
    }

    /// Adds a property from an annotation `org.systemd.property.NAME`; the value is GVariant text.
    pub fn with_property(mut self, name: &str, value: &str) -> Result<Self, SystemdError> {
        let property = parse_property(name, value);
        let property =
            property.ok_or_else(|| SystemdError::Property { name: name.to_owned(), value: value.to_owned() })?;
        self.extra.push(property);
        Ok(self)
    }

    /// The unit's name.
    pub fn name(&self) -> &str {
        &self.unit
    }

    /// Where systemd puts the unit's cgroup.
    pub fn cgroup_path(&self) -> Result<CgroupPath, SystemdError> {
        let path = format!("/{}{}/{}", self.below, slice_path(&self.slice)?, self.unit);
        CgroupPath::parse(&path).map_err(|_| SystemdError::Path(path))
    }

    fn properties(&self, version: Version, pid: i32, resources: &LinuxResources) -> Vec<Property> {
        let is_slice = self.unit.ends_with(".slice");
        let name = |name: &str| name.to_owned();
        let mut properties = vec![
            (name("Description"), Value::Text(format!("conex container {}", self.unit))),
            (name(if is_slice { "Wants" } else { "Slice" }), slice_value(&self.slice, is_slice)),
            (name("DefaultDependencies"), Value::Bool(false)),
        ];
        if !is_slice {
            properties.push((name("Delegate"), Value::Bool(true)));
            properties.push((name("PIDs"), Value::Pids(vec![pid.cast_unsigned()])));
        }
        for accounting in ["MemoryAccounting", "CPUAccounting", "TasksAccounting"] {
            properties.push((name(accounting), Value::Bool(true)));
        }
        properties
            .push((name(if version == Version::V1 { "BlockIOAccounting" } else { "IOAccounting" }), Value::Bool(true)));
        properties.extend(resource_properties(version, resources));
        properties.extend(device_properties(version, &resources.devices));
        properties.extend(self.extra.iter().cloned());
        properties
    }
}

impl Cgroup {
    /// Lets systemd make a scope for a process that is waiting, and completes it in the hierarchies that systemd leaves to others.
    ///
    /// The limits still have to be applied: what systemd gets here are only those it has properties for.
    pub fn create_systemd(
        host: &Host,
        unit: &SystemdUnit,
        pid: i32,
        resources: &LinuxResources,
    ) -> Result<Self, SystemdError> {
        let path = unit.cgroup_path()?;
        let mut connection = Connection::open()?;
        connection.start_transient_unit(&unit.unit, &unit.properties(limits_version(host), pid, resources))?;
        complete(host, &path, unit, pid).inspect_err(|_| {
            // The first error is the one to report.
            let _ = connection.stop_unit(&unit.unit);
        })
    }

    /// Tells systemd of changed limits, if the cgroup is a unit of systemd's.
    pub(crate) fn update_unit(&self, resources: &LinuxResources) -> Result<(), SystemdError> {
        let Some(unit) = self.systemd_unit() else { return Ok(()) };
        let version = if self.is_unified() { Version::V2 } else { Version::V1 };
        let mut properties = resource_properties(version, resources);
        if !resources.devices.is_empty() {
            properties.extend(device_properties(version, &resources.devices));
        }
        if properties.is_empty() {
            return Ok(());
        }
        Connection::open()?.set_unit_properties(unit, &properties)
    }
}

/// Stops a unit, whose cgroup goes with it.
pub(crate) fn stop_unit(unit: &str) -> Result<(), SystemdError> {
    match Connection::open() {
        Ok(mut connection) => connection.stop_unit(unit),
        // Without systemd there is no unit either.
        Err(SystemdError::NotRunning) => Ok(()),
        Err(error) => Err(error),
    }
}

/// v1: systemd makes the cgroup in its own hierarchy and in those that it was asked to account for; the others are ours to make.
fn complete(host: &Host, path: &CgroupPath, unit: &SystemdUnit, pid: i32) -> Result<Cgroup, SystemdError> {
    let groups = host
        .shared_hierarchies()
        .iter()
        .map(|hierarchy| Group::create_or_open(hierarchy, &hierarchy.resolve(path, host.layout()), host.layout()))
        .collect::<Result<Vec<_>, _>>()?;
    let cgroup = Cgroup::from_systemd(groups, unit.unit.clone());
    cgroup.add(pid).map_err(CreateError::File)?;
    Ok(cgroup)
}

fn limits_version(host: &Host) -> Version {
    if host.layout() == Layout::V2 { Version::V2 } else { Version::V1 }
}

fn slice_value(slice: &str, is_slice: bool) -> Value {
    if is_slice { Value::Texts(vec![slice.to_owned()]) } else { Value::Text(slice.to_owned()) }
}

/// Where a slice's cgroup is: `a-b.slice` lies in `a.slice`, and `-.slice` is the root.
fn slice_path(slice: &str) -> Result<String, SystemdError> {
    let invalid = || SystemdError::Slice(slice.to_owned());
    let name = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if name == "-" {
        return Ok(String::new());
    }
    let mut path = String::new();
    let mut ancestor = String::new();
    for component in name.split('-') {
        if component.is_empty() || component.contains(['/', '\0', '\n']) || component == ".." {
            return Err(invalid());
        }
        if !ancestor.is_empty() {
            ancestor.push('-');
        }
        ancestor.push_str(component);
        path.push_str(&format!("/{ancestor}.slice"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests;
