//! A place below a container's cgroup, as `exec --cgroup` names it.

use std::collections::BTreeMap;

use crate::controller::{Controller, Version};
use crate::directory::FileError;
use crate::group::{Cgroup, Entry, Group};

/// Where below a container's cgroup a process goes: one place in v2, in v1 one for each controller that is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubCgroup {
    unified: Option<String>,
    by_controller: BTreeMap<String, String>,
}

/// Why a text names no place below a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubCgroupError {
    /// A controller has no name.
    #[error("invalid --cgroup argument: {0} (empty <controller> prefix)")]
    NoName(String),
    /// A controller is named that does not exist.
    #[error("invalid --cgroup argument: {0:?} is not a cgroup controller")]
    Unknown(String),
    /// A controller is named twice.
    #[error("invalid --cgroup argument(s): controller {0} specified multiple times")]
    Twice(String),
    /// Several places, and not all of them say for which controller they are.
    #[error("invalid --cgroup argument: missing <controller>: prefix")]
    NoPrefix,
    /// The path leads out of the container's cgroup.
    #[error("invalid --cgroup argument: {0:?} leads out of the container's cgroup")]
    Outside(String),
}

/// Why a place below a cgroup cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The machine's version of cgroups wants the other form.
    #[error("--cgroup must be {expected} on this machine")]
    Form {
        /// What it must be.
        expected: &'static str,
    },
    /// The machine has no such controller.
    #[error("--cgroup names the controller {0}, which is not available")]
    NoController(String),
    /// It is not there.
    #[error(transparent)]
    File(#[from] FileError),
}

impl SubCgroup {
    /// Reads `PATH` (v2), or any number of `CONTROLLER[,CONTROLLER...]:PATH` (v1).
    pub fn parse(arguments: &[String]) -> Result<Self, SubCgroupError> {
        let mut parsed = Self::default();
        for argument in arguments {
            match argument.split_once(':') {
                Some((controllers, path)) => parsed.add(argument, controllers, &below(path)?)?,
                None if arguments.len() > 1 => return Err(SubCgroupError::NoPrefix),
                None => parsed.unified = Some(below(argument)?),
            }
        }
        Ok(parsed)
    }

    fn add(&mut self, argument: &str, controllers: &str, path: &str) -> Result<(), SubCgroupError> {
        for name in controllers.split(',') {
            if name.is_empty() {
                return Err(SubCgroupError::NoName(argument.to_owned()));
            }
            if Controller::ALL.into_iter().all(|controller| controller.v1_name() != name) {
                return Err(SubCgroupError::Unknown(name.to_owned()));
            }
            if self.by_controller.insert(name.to_owned(), path.to_owned()).is_some() {
                return Err(SubCgroupError::Twice(name.to_owned()));
            }
        }
        Ok(())
    }

    /// The path below this group's directory; empty for the directory itself.
    fn path_in(&self, group: &Group) -> &str {
        let named = group.controllers.iter().find_map(|controller| self.by_controller.get(controller.v1_name()));
        match group.version {
            Version::V1 => named.map_or("", String::as_str),
            Version::V2 => self.unified.as_deref().unwrap_or(""),
        }
    }
}

/// A path without a leading slash, `.` and doubled slashes.
fn below(text: &str) -> Result<String, SubCgroupError> {
    let components: Vec<&str> = text.split('/').filter(|component| !matches!(*component, "" | ".")).collect();
    if components.iter().any(|component| *component == ".." || component.contains('\0')) {
        return Err(SubCgroupError::Outside(text.to_owned()));
    }
    Ok(components.join("/"))
}

impl Cgroup {
    /// Opens the ways into cgroups below this one, which must exist.
    pub fn entry_below(&self, sub: &SubCgroup) -> Result<Entry, JoinError> {
        if self.is_unified() && !sub.by_controller.is_empty() {
            return Err(JoinError::Form { expected: "one path without a controller" });
        }
        if !self.is_unified() && sub.unified.is_some() {
            return Err(JoinError::Form { expected: "controller:path" });
        }
        let is_here = |name: &&String| {
            self.groups().iter().any(|group| group.controllers.iter().any(|controller| controller.v1_name() == **name))
        };
        if let Some(name) = sub.by_controller.keys().find(|name| !is_here(name)) {
            return Err(JoinError::NoController(name.clone()));
        }
        let mut entry = Entry { v2: None, procs: Vec::with_capacity(self.groups().len()) };
        for group in self.groups() {
            group.add_entry(sub.path_in(group), &mut entry)?;
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<SubCgroup, SubCgroupError> {
        SubCgroup::parse(&arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn both_forms_are_read() {
        assert_eq!(parse(&["/a//./b/"]).unwrap().unified.as_deref(), Some("a/b"));
        assert_eq!(parse(&["/"]).unwrap().unified.as_deref(), Some(""));
        let v1 = parse(&["cpu,cpuacct:/x", "memory:y"]).unwrap();
        let places: Vec<_> = v1.by_controller.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect();
        assert_eq!(places, [("cpu", "x"), ("cpuacct", "x"), ("memory", "y")]);
    }

    #[test]
    fn what_is_no_place_below_is_refused() {
        for arguments in [
            &["a/../b"][..],
            &["cpu:.."],
            &["a", "b"],
            &["cpu:a", "b"],
            &[":a"],
            &["cpu,:a"],
            &["nonsense:a"],
            &["cpu:a", "cpu:b"],
        ] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }
}
