//! The controllers that Conex knows, and sets of them.

use std::fmt;

/// Which of the two interfaces of the kernel a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// One hierarchy a controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// A controller, or the named hierarchy that systemd tracks its units in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    /// `blkio` in v1, `io` in v2.
    Io,
    Devices,
    Freezer,
    Pids,
    Hugetlb,
    Rdma,
    Misc,
    NetCls,
    NetPrio,
    PerfEvent,
    /// `name=systemd`: no controller, but containers are tracked in it.
    Systemd,
}

impl Controller {
    /// All of them, in the order in which runc applies them.
    pub const ALL: [Self; 15] = [
        Self::Cpuset,
        Self::Devices,
        Self::Memory,
        Self::Cpu,
        Self::Cpuacct,
        Self::Pids,
        Self::Io,
        Self::Hugetlb,
        Self::NetCls,
        Self::NetPrio,
        Self::PerfEvent,
        Self::Freezer,
        Self::Rdma,
        Self::Misc,
        Self::Systemd,
    ];

    /// The name in v1's mount options and in `/proc/self/cgroup`.
    pub fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Io => "blkio",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Pids => "pids",
            Self::Hugetlb => "hugetlb",
            Self::Rdma => "rdma",
            Self::Misc => "misc",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::PerfEvent => "perf_event",
            Self::Systemd => "name=systemd",
        }
    }

    /// The name in v2's `cgroup.controllers`, where it has one.
    pub fn v2_name(self) -> Option<&'static str> {
        match self {
            Self::Io => Some("io"),
            Self::Cpu | Self::Cpuset | Self::Memory | Self::Pids | Self::Hugetlb | Self::Rdma | Self::Misc => {
                Some(self.v1_name())
            }
            // perf_event is always on; cpuacct, devices and freezer are part of the core or of eBPF; the rest is gone.
            Self::Cpuacct
            | Self::Devices
            | Self::Freezer
            | Self::NetCls
            | Self::NetPrio
            | Self::PerfEvent
            | Self::Systemd => None,
        }
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.v1_name())
    }
}

/// Some controllers.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ControllerSet(u32);

impl ControllerSet {
    /// What every v2 cgroup has without being given it: parts of the core, of eBPF or of perf.
    pub(crate) const V2_CORE: Self = Self(
        1 << Controller::Cpuacct as u32
            | 1 << Controller::Devices as u32
            | 1 << Controller::Freezer as u32
            | 1 << Controller::PerfEvent as u32,
    );

    /// Reads names that stand between commas (v1) and keeps those that are known.
    pub(crate) fn parse_v1(names: &str) -> Self {
        Self::from_names(names.split(','), |controller| Some(controller.v1_name()))
    }

    /// Reads names that stand between spaces (v2), keeps those that are known and adds [`ControllerSet::V2_CORE`].
    pub(crate) fn parse_v2(names: &str) -> Self {
        Self::from_names(names.split_ascii_whitespace(), Controller::v2_name).union(Self::V2_CORE)
    }

    /// Says whether a controller is in the set.
    pub fn contains(self, controller: Controller) -> bool {
        self.0 & controller.bit() != 0
    }

    /// Says whether all controllers of another set are in this one.
    pub fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Says whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The controllers of both sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The controllers of this set that are not in the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The controllers in the set.
    pub fn iter(self) -> impl Iterator<Item = Controller> {
        Controller::ALL.into_iter().filter(move |controller| self.contains(*controller))
    }

    fn from_names<'a>(names: impl Iterator<Item = &'a str>, name_of: fn(Controller) -> Option<&'static str>) -> Self {
        names
            .filter_map(|name| Controller::ALL.into_iter().find(|controller| name_of(*controller) == Some(name)))
            .collect()
    }
}

impl FromIterator<Controller> for ControllerSet {
    fn from_iter<I: IntoIterator<Item = Controller>>(controllers: I) -> Self {
        Self(controllers.into_iter().fold(0, |bits, controller| bits | controller.bit()))
    }
}

impl fmt::Debug for ControllerSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}
