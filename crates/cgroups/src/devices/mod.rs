//! Which devices a container may use.
//!
//! Rules come in order, a later one wins. v1 keeps a default and a list of exceptions, which `lists.rs` computes; v2 runs a program at
//! every access, which `program.rs` writes.

mod lists;
mod program;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use oci::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupType};
use rustix::io::Errno;

use crate::controller::{Controller, Version};
use crate::directory::{Directory, FileError, write_once};
use crate::group::Cgroup;

use lists::{Access, Lists};

/// Why device rules cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A rule is not well formed.
    #[error("invalid device rule {rule}: {reason}")]
    Invalid {
        /// The rule.
        rule: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// v1 cannot take single devices out of a whole range.
    #[error(
        "the device rule {rule} cannot be expressed in cgroup v1: an earlier rule allows or denies a range around it"
    )]
    Hole {
        /// The rule.
        rule: String,
    },
    /// The machine has no devices controller.
    #[error("device rules need the cgroup controller devices, which is not available")]
    Unavailable,
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The kernel does not take the program.
    #[error("cannot {action} the device program of {}", path.display())]
    Program {
        /// What was being done.
        action: &'static str,
        /// Which cgroup.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// The devices that every container may use, as runc has them: making nodes of any kind, and the harmless ones.
pub fn default_rules() -> Vec<LinuxDeviceCgroup> {
    use LinuxDeviceCgroupType::{Block, Character};
    [
        (Character, None, None, "m"),
        (Block, None, None, "m"),
        (Character, Some(1), Some(3), "rwm"), // null
        (Character, Some(1), Some(8), "rwm"), // random
        (Character, Some(1), Some(7), "rwm"), // full
        (Character, Some(5), Some(0), "rwm"), // tty
        (Character, Some(1), Some(5), "rwm"), // zero
        (Character, Some(1), Some(9), "rwm"), // urandom
        (Character, Some(136), None, "rwm"),  // pts/*
        (Character, Some(5), Some(2), "rwm"), // ptmx
    ]
    .into_iter()
    .map(|(kind, major, minor, access)| LinuxDeviceCgroup {
        allow: true,
        kind,
        major,
        minor,
        access: access.to_owned(),
    })
    .collect()
}

impl Cgroup {
    /// Allows exactly what the rules and [`default_rules`] allow, and denies everything else.
    pub(crate) fn apply_device_rules(&self, rules: &[LinuxDeviceCgroup], before: Before) -> Result<(), DeviceError> {
        let rules = rules.iter().chain(&default_rules()).map(Rule::parse).collect::<Result<Vec<_>, _>>()?;
        let group = self.group_for(Controller::Devices).ok_or(DeviceError::Unavailable)?;
        match group.version {
            Version::V1 => apply_v1(&group.directory, &rules, before),
            Version::V2 => apply_v2(&group.directory, &rules),
        }
    }
}

/// What the rules and [`default_rules`] allow, in the words of systemd's `DeviceAllow=`: a device or range, and letters. `None` where
/// everything is allowed, or all but some, for which systemd has no words.
pub(crate) fn systemd_allow_list(rules: &[LinuxDeviceCgroup]) -> Result<Option<Vec<(String, String)>>, DeviceError> {
    let rules = rules.iter().chain(&default_rules()).map(Rule::parse).collect::<Result<Vec<_>, _>>()?;
    Ok(Lists::of(&rules)?
        .allowed()
        .map(|allowed| allowed.map(|(devices, access)| (devices.in_systemds_words(), access.to_string())).collect()))
}

/// What is known about the rules that hold so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nobody is in the cgroup yet: everything may be taken away for a moment.
    New,
    /// Processes run, and what stays allowed must not be denied to them.
    InUse,
}

/// One rule, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) allow: bool,
    pub(crate) devices: Devices,
    pub(crate) access: Access,
}

/// The devices that a rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Devices {
    /// All of both kinds.
    All,
    /// Those of a kind with these numbers; `None` means any.
    Some { kind: Kind, major: Option<u32>, minor: Option<u32> },
}

/// The two kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Block,
    Character,
}

impl Devices {
    /// Nodes by their numbers need not exist; whole ranges have the number of their driver.
    fn in_systemds_words(self) -> String {
        let Devices::Some { kind, major, minor } = self else { return "char-*".to_owned() };
        let word = if kind == Kind::Block { "block" } else { "char" };
        match (major, minor) {
            (Some(major), Some(minor)) => format!("/dev/{word}/{major}:{minor}"),
            (Some(major), None) => format!("{word}-{major}"),
            (None, _) => format!("{word}-*"),
        }
    }
}

impl Rule {
    fn parse(rule: &LinuxDeviceCgroup) -> Result<Self, DeviceError> {
        let invalid = |reason| DeviceError::Invalid { rule: describe(rule), reason };
        let number = |number: Option<i64>| match number {
            // runc and Docker write -1 for "any".
            None | Some(-1) => Ok(None),
            Some(number) => u32::try_from(number).map(Some).map_err(|_| invalid("a device number is out of range")),
        };
        let access = Access::parse(&rule.access).ok_or_else(|| invalid("access is made of r, w and m"))?;
        let (major, minor) = (number(rule.major)?, number(rule.minor)?);
        let devices = match rule.kind {
            LinuxDeviceCgroupType::All if major.is_none() && minor.is_none() => Devices::All,
            LinuxDeviceCgroupType::All => return Err(invalid("a rule for all kinds has no numbers")),
            LinuxDeviceCgroupType::Character => Devices::Some { kind: Kind::Character, major, minor },
            LinuxDeviceCgroupType::Block => Devices::Some { kind: Kind::Block, major, minor },
        };
        Ok(Self { allow: rule.allow, devices, access })
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        match self.devices {
            Devices::All => write!(formatter, "a *:* {}", self.access),
            Devices::Some { kind, major, minor } => {
                let letter = if kind == Kind::Block { 'b' } else { 'c' };
                write!(formatter, "{letter} {}:{} {}", number(major), number(minor), self.access)
            }
        }
    }
}

fn describe(rule: &LinuxDeviceCgroup) -> String {
    let number = |number: Option<i64>| number.map_or("*".to_owned(), |number| number.to_string());
    let verb = if rule.allow { "allow" } else { "deny" };
    format!("{verb} {:?} {}:{} {:?}", rule.kind, number(rule.major), number(rule.minor), rule.access)
}

fn apply_v1(directory: &Directory, rules: &[Rule], before: Before) -> Result<(), DeviceError> {
    let target = Lists::of(rules)?;
    let current = match before {
        Before::New => Lists::unknown(),
        Before::InUse => Lists::parse(&directory.read("devices.list")?),
    };
    let mut files: [Option<OwnedFd>; 2] = [None, None];
    for (verb, entry) in current.way_to(&target) {
        let file = verb.file();
        let place = &mut files[verb as usize];
        let written = match place {
            Some(fd) => write_once(fd.as_fd(), &entry),
            None => directory.open_for_write(file).and_then(|fd| write_once(place.insert(fd).as_fd(), &entry)),
        };
        written.map_err(|errno| directory.write_error(file, &entry, errno))?;
    }
    Ok(())
}

/// Puts the new program beside the old ones and only then takes those away, so that there is no moment without a filter.
fn apply_v2(directory: &Directory, rules: &[Rule]) -> Result<(), DeviceError> {
    let failed = |action| {
        move |errno: Errno| DeviceError::Program { action, path: directory.path().to_owned(), source: errno.into() }
    };
    let old = linux::bpf::device_programs(directory.as_fd()).map_err(failed("query"))?;
    let program = linux::bpf::load_device_program(&program::compile(rules)).map_err(failed("load"))?;
    match old.as_slice() {
        [only] => linux::bpf::attach_device_program(directory.as_fd(), program.as_fd(), Some(only.as_fd()))
            .map_err(failed("replace")),
        _ => {
            linux::bpf::attach_device_program(directory.as_fd(), program.as_fd(), None).map_err(failed("attach"))?;
            old.iter().try_for_each(|program| {
                linux::bpf::detach_device_program(directory.as_fd(), program.as_fd()).map_err(failed("detach"))
            })
        }
    }
}
