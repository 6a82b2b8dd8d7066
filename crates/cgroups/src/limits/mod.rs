//! Limits: from [`LinuxResources`] to writes, in an order that the kernel accepts.
//!
//! The plan is a value: [`plan`] turns the limits into writes for the version that each controller has on this machine, without
//! looking at any cgroup. Writes that depend on one another (memory and swap, quota and period) form a [`Batch`], whose writes
//! are tried in turn until all are accepted: raising needs another order than lowering, and only the kernel knows the current values.

mod convert;
mod v1;
mod v2;

use std::borrow::Cow;
use std::path::PathBuf;

use oci::runtime::LinuxResources;
use rustix::io::Errno;

use crate::controller::{Controller, Version};
use crate::devices::{Before, DeviceError};
use crate::directory::{Directory, FileError};
use crate::group::{Cgroup, Group};

pub(crate) use convert::cpu_weight_of_shares;

/// A limit that was asked for and has no meaning on this kernel; runc too goes on without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// Which field of the configuration.
    pub field: &'static str,
    /// Why it has no effect.
    pub reason: &'static str,
}

/// Why limits cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The machine has no such controller, or does not hand it down to this cgroup.
    #[error("{field} needs the cgroup controller {controller}, which is not available")]
    NoController {
        /// Which field of the configuration.
        field: &'static str,
        /// Which controller.
        controller: Controller,
    },
    /// The kernel has the controller, but not this knob.
    #[error("{field} is not supported by this kernel: there is no {}", path.display())]
    NoFile {
        /// Which field of the configuration.
        field: &'static str,
        /// Which file is missing.
        path: PathBuf,
    },
    /// The machine's version of cgroups has no such limit.
    #[error("{field} is not supported: {reason}")]
    Unsupported {
        /// Which field of the configuration.
        field: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// The value makes no sense.
    #[error("invalid {field}: {reason}")]
    Invalid {
        /// Which field of the configuration.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The memory limit is lower than what is used and cannot be freed.
    #[error("cannot set the memory limit to {limit}: {usage} bytes are in use")]
    MemoryInUse {
        /// The limit in bytes.
        limit: i64,
        /// The use in bytes.
        usage: u64,
    },
    /// A file cannot be read or written.
    #[error("cannot apply {field}")]
    File {
        /// Which field of the configuration.
        field: &'static str,
        /// What failed.
        source: FileError,
    },
    /// The device rules cannot be applied.
    #[error(transparent)]
    Devices(#[from] DeviceError),
    /// systemd, whose unit the cgroup is, refuses.
    #[error(transparent)]
    Systemd(#[from] crate::systemd::SystemdError),
}

/// Everything that is to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) batches: Vec<Batch>,
    pub(crate) ignored: Vec<Ignored>,
    /// Files of v2 as the configuration gives them, written last.
    pub(crate) unified: Vec<(String, String)>,
    /// A v2 memory limit that must be above the current use.
    pub(crate) memory_above_use: Option<i64>,
}

/// Writes to one controller that may depend on one another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) controller: Controller,
    pub(crate) writes: Vec<Write>,
}

/// One write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// Which field of the configuration, for messages.
    pub(crate) field: &'static str,
    pub(crate) file: Cow<'static, str>,
    pub(crate) value: String,
    pub(crate) missing: Missing,
}

/// What it means that the file does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The limit cannot be kept.
    Fails,
    /// There is nothing to limit.
    IsFine,
    /// Another file has the limit on this kernel, with its own value.
    Use(&'static str, u64),
}

impl Cgroup {
    /// Applies everything to a new cgroup: the device rules, starting from nothing allowed and followed by the devices that every
    /// container needs, then all limits.
    pub fn apply(&self, resources: &LinuxResources) -> Result<Vec<Ignored>, ApplyError> {
        self.apply_device_rules(&resources.devices, Before::New)?;
        self.apply_limits(resources)
    }

    /// Changes the limits that are given and leaves the others alone; the device rules only if there are any.
    pub fn update(&self, resources: &LinuxResources) -> Result<Vec<Ignored>, ApplyError> {
        self.update_unit(resources)?;
        if !resources.devices.is_empty() {
            self.apply_device_rules(&resources.devices, Before::InUse)?;
        }
        self.apply_limits(resources)
    }

    /// Sets the limits alone; whoever cannot set device rules (a user namespace) calls this.
    pub fn apply_limits(&self, resources: &LinuxResources) -> Result<Vec<Ignored>, ApplyError> {
        let resources = self.with_current_quota(resources)?;
        let plan = plan(&resources, &|controller| self.group_for(controller).map(|group| group.version))?;
        if let Some(limit) = plan.memory_above_use {
            self.refuse_below_use(limit)?;
        }
        self.give_realtime_to_ancestors(&resources)?;
        for batch in plan.batches {
            self.execute(batch)?;
        }
        self.write_unified(&plan.unified)?;
        Ok(plan.ignored)
    }

    /// v2 has quota and period in one file: a new period must not lift the quota that is there.
    fn with_current_quota<'a>(&self, resources: &'a LinuxResources) -> Result<Cow<'a, LinuxResources>, ApplyError> {
        let is_period_alone = resources.cpu.as_ref().is_some_and(|cpu| cpu.period.is_some() && cpu.quota.is_none());
        let group = self.group_for(Controller::Cpu).filter(|group| group.version == Version::V2 && is_period_alone);
        let Some(group) = group else { return Ok(Cow::Borrowed(resources)) };
        let current = group.directory.read_if_exists("cpu.max");
        let current = current.map_err(|source| ApplyError::File { field: "cpu.period", source })?.unwrap_or_default();
        let mut resources = resources.clone();
        if let Some(cpu) = &mut resources.cpu {
            cpu.quota = current.split_ascii_whitespace().next().and_then(|quota| quota.parse().ok());
        }
        Ok(Cow::Owned(resources))
    }

    /// v1: real-time tasks get at most what every ancestor has, and new ancestors have nothing.
    fn give_realtime_to_ancestors(&self, resources: &LinuxResources) -> Result<(), ApplyError> {
        let field = "cpu.realtimeRuntime";
        let Some(cpu) = &resources.cpu else { return Ok(()) };
        let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime > 0) else { return Ok(()) };
        let Some(group) = self.group_for(Controller::Cpu).filter(|group| group.version == Version::V1) else {
            return Ok(());
        };
        for ancestor in group.ancestors().map_err(|source| ApplyError::File { field, source })? {
            let current =
                ancestor.read_number(v1::REALTIME_RUNTIME).map_err(|source| ApplyError::File { field, source })?;
            if current < runtime.unsigned_abs() {
                write_in_any_order(&ancestor, v1::realtime(cpu))?;
            }
        }
        Ok(())
    }

    fn execute(&self, batch: Batch) -> Result<(), ApplyError> {
        let Some(group) = self.group_for(batch.controller) else { return Ok(()) };
        if group.version == Version::V2 {
            self.enable_for(group, &batch)?;
        }
        write_in_any_order(&group.directory, batch.writes)
    }

    /// In a hybrid layout the controllers of v2 are handed down only when a limit needs them.
    fn enable_for(&self, group: &Group, batch: &Batch) -> Result<(), ApplyError> {
        let field = batch.writes.first().map_or("limits", |write| write.field);
        if self.is_unified() {
            return Ok(());
        }
        group.enable([batch.controller].into_iter().collect()).map_err(|source| ApplyError::File { field, source })
    }

    fn refuse_below_use(&self, limit: i64) -> Result<(), ApplyError> {
        let field = "memory.checkBeforeUpdate";
        let Some(group) = self.group_for(Controller::Memory) else { return Ok(()) };
        let usage =
            group.directory.read_number("memory.current").map_err(|source| ApplyError::File { field, source })?;
        if limit >= 0 && limit.unsigned_abs() <= usage {
            return Err(ApplyError::MemoryInUse { limit, usage });
        }
        Ok(())
    }

    fn write_unified(&self, unified: &[(String, String)]) -> Result<(), ApplyError> {
        let Some(group) = self.v2_group() else { return Ok(()) };
        for (file, value) in unified {
            group.directory.write(file, value).map_err(|source| match source.is_missing() {
                true => ApplyError::NoFile { field: "unified", path: group.directory.path().join(file) },
                false => ApplyError::File { field: "unified", source },
            })?;
        }
        Ok(())
    }
}

/// v2's limit of swap alone, as [`convert::swap_max`] works it out.
pub(crate) fn swap_max_of(memory: &oci::runtime::LinuxMemory) -> Result<Option<i64>, ApplyError> {
    convert::swap_max(memory.limit, memory.swap)
}

/// Turns limits into writes; `version_of` says where a controller is, if it is anywhere.
pub(crate) fn plan(
    resources: &LinuxResources,
    version_of: &dyn Fn(Controller) -> Option<Version>,
) -> Result<Plan, ApplyError> {
    let mut planner = Planner { plan: Plan::default(), version_of };
    // runc's order: processors first, because nothing can enter a cgroup without one.
    if let Some(cpu) = &resources.cpu {
        planner.cpuset(cpu)?;
        planner.cpu(cpu)?;
    }
    if let Some(memory) = &resources.memory {
        planner.memory(memory)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        planner.pids(limit)?;
    }
    if let Some(block_io) = &resources.block_io {
        planner.block_io(block_io)?;
    }
    planner.hugepages(&resources.hugepage_limits)?;
    if let Some(network) = &resources.network {
        planner.network(network)?;
    }
    planner.rdma(&resources.rdma)?;
    planner.unified(&resources.unified)?;
    Ok(planner.plan)
}

/// Collects writes; the methods per controller are in `v1.rs`, `v2.rs` and below.
struct Planner<'a> {
    plan: Plan,
    version_of: &'a dyn Fn(Controller) -> Option<Version>,
}

impl Planner<'_> {
    /// The version that a controller has here, or the error that it has none.
    fn version(&self, controller: Controller, field: &'static str) -> Result<Version, ApplyError> {
        (self.version_of)(controller).ok_or(ApplyError::NoController { field, controller })
    }

    fn push(&mut self, controller: Controller, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.plan.batches.push(Batch { controller, writes });
        }
    }

    fn ignore(&mut self, field: &'static str, reason: &'static str) {
        self.plan.ignored.push(Ignored { field, reason });
    }

    fn cpuset(&mut self, cpu: &oci::runtime::LinuxCpu) -> Result<(), ApplyError> {
        for (field, file, value) in [("cpu.cpus", "cpuset.cpus", &cpu.cpus), ("cpu.mems", "cpuset.mems", &cpu.mems)] {
            if !value.is_empty() {
                self.version(Controller::Cpuset, field)?;
                self.push(Controller::Cpuset, vec![Write::new(field, file, value.clone())]);
            }
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: &oci::runtime::LinuxCpu) -> Result<(), ApplyError> {
        let Some(field) = first_cpu_field(cpu) else { return Ok(()) };
        match self.version(Controller::Cpu, field)? {
            Version::V1 => self.push(Controller::Cpu, v1::cpu(cpu)),
            Version::V2 => {
                let writes = v2::cpu(cpu)?;
                self.push(Controller::Cpu, writes);
            }
        }
        Ok(())
    }

    fn memory(&mut self, memory: &oci::runtime::LinuxMemory) -> Result<(), ApplyError> {
        if *memory == oci::runtime::LinuxMemory::default() {
            return Ok(());
        }
        if memory.kernel.is_some_and(|limit| limit != 0) {
            self.ignore("memory.kernel", "kernels since 5.16 count kernel memory with the rest");
        }
        match self.version(Controller::Memory, "memory")? {
            Version::V1 => {
                let writes = v1::memory(memory)?;
                self.push(Controller::Memory, writes);
            }
            Version::V2 => self.memory_v2(memory)?,
        }
        Ok(())
    }

    fn memory_v2(&mut self, memory: &oci::runtime::LinuxMemory) -> Result<(), ApplyError> {
        const GONE: &str = "cgroup v2 has no such knob";
        for (is_set, field) in [
            (memory.kernel_tcp.is_some_and(|limit| limit != 0), "memory.kernelTCP"),
            (memory.swappiness.is_some(), "memory.swappiness"),
            (memory.disable_oom_killer == Some(true), "memory.disableOOMKiller"),
        ] {
            if is_set {
                self.ignore(field, GONE);
            }
        }
        if memory.check_before_update == Some(true) {
            self.plan.memory_above_use = memory.limit.filter(|limit| *limit > 0);
        }
        let writes = v2::memory(memory)?;
        self.push(Controller::Memory, writes);
        Ok(())
    }

    fn pids(&mut self, limit: i64) -> Result<(), ApplyError> {
        self.version(Controller::Pids, "pids.limit")?;
        let value = match limit {
            // The kernel takes 0 and then even the first fork fails; systemd takes no 0; runc writes 1, and so both agree.
            0 => "1".to_owned(),
            1.. => limit.to_string(),
            _ => "max".to_owned(),
        };
        self.push(Controller::Pids, vec![Write::new("pids.limit", "pids.max", value)]);
        Ok(())
    }

    fn block_io(&mut self, block_io: &oci::runtime::LinuxBlockIo) -> Result<(), ApplyError> {
        if *block_io == oci::runtime::LinuxBlockIo::default() {
            return Ok(());
        }
        let writes = match self.version(Controller::Io, "blockIO")? {
            Version::V1 => v1::block_io(block_io)?,
            Version::V2 => v2::block_io(block_io)?,
        };
        if block_io.leaf_weight.is_some() || block_io.weight_device.iter().any(|device| device.leaf_weight.is_some()) {
            return Err(ApplyError::Unsupported {
                field: "blockIO.leafWeight",
                reason: "Linux 5.0 removed it with the CFQ scheduler",
            });
        }
        // Throttles do not depend on one another.
        writes.into_iter().for_each(|write| self.push(Controller::Io, vec![write]));
        Ok(())
    }

    fn hugepages(&mut self, limits: &[oci::runtime::LinuxHugepageLimit]) -> Result<(), ApplyError> {
        for limit in limits {
            let field = "hugepageLimits";
            let end = match self.version(Controller::Hugetlb, field)? {
                Version::V1 => "limit_in_bytes",
                Version::V2 => "max",
            };
            let size = page_size(&limit.page_size)?;
            let value = limit.limit.to_string();
            let rsvd = Write::new(field, format!("hugetlb.{size}.rsvd.{end}"), value.clone()).fine_without_file();
            let writes = vec![Write::new(field, format!("hugetlb.{size}.{end}"), value), rsvd];
            self.push(Controller::Hugetlb, writes);
        }
        Ok(())
    }

    fn network(&mut self, network: &oci::runtime::LinuxNetwork) -> Result<(), ApplyError> {
        if let Some(class) = network.class_id {
            self.version(Controller::NetCls, "network.classID")?;
            self.push(Controller::NetCls, vec![Write::new("network.classID", "net_cls.classid", class.to_string())]);
        }
        for priority in &network.priorities {
            self.version(Controller::NetPrio, "network.priorities")?;
            let value = format!("{} {}", priority.name, priority.priority);
            self.push(Controller::NetPrio, vec![Write::new("network.priorities", "net_prio.ifpriomap", value)]);
        }
        Ok(())
    }

    fn rdma(&mut self, limits: &std::collections::BTreeMap<String, oci::runtime::LinuxRdma>) -> Result<(), ApplyError> {
        for (device, limit) in limits {
            self.version(Controller::Rdma, "rdma")?;
            let mut value = device.clone();
            for (key, number) in [("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects)] {
                if let Some(number) = number {
                    value.push_str(&format!(" {key}={number}"));
                }
            }
            self.push(Controller::Rdma, vec![Write::new("rdma", "rdma.max", value)]);
        }
        Ok(())
    }

    fn unified(&mut self, unified: &std::collections::BTreeMap<String, String>) -> Result<(), ApplyError> {
        if unified.is_empty() {
            return Ok(());
        }
        // In a hybrid layout v2 holds next to no controller: what runc says of v1 is true there too.
        if (self.version_of)(Controller::Devices) != Some(Version::V2) {
            return Err(ApplyError::Unsupported { field: "unified", reason: "the machine does not use cgroup v2" });
        }
        for (file, value) in unified {
            if file.is_empty() || file.contains('/') || matches!(file.as_str(), "." | "..") {
                return Err(ApplyError::Invalid { field: "unified", reason: format!("{file:?} is not a file's name") });
            }
            self.plan.unified.push((file.clone(), value.clone()));
        }
        Ok(())
    }
}

impl Write {
    fn new(field: &'static str, file: impl Into<Cow<'static, str>>, value: String) -> Self {
        Self { field, file: file.into(), value, missing: Missing::Fails }
    }

    fn fine_without_file(mut self) -> Self {
        self.missing = Missing::IsFine;
        self
    }

    fn or_use(mut self, file: &'static str, value: u64) -> Self {
        self.missing = Missing::Use(file, value);
        self
    }

    fn execute(&self, directory: &Directory) -> Result<(), FileError> {
        match (directory.write(&self.file, &self.value), self.missing) {
            (Err(error), Missing::IsFine) if error.is_missing() => Ok(()),
            (Err(error), Missing::Use(file, value)) if error.is_missing() => directory.write(file, &value.to_string()),
            (result, _) => result,
        }
    }

    fn error(&self, directory: &Directory, source: FileError) -> ApplyError {
        match source.errno() {
            Some(Errno::NOENT) => {
                ApplyError::NoFile { field: self.field, path: directory.path().join(self.file.as_ref()) }
            }
            Some(Errno::BUSY) if self.field == "memory.limit" => memory_in_use(directory, &self.value),
            _ => ApplyError::File { field: self.field, source },
        }
    }
}

/// Tries the writes until all are accepted, or none of those left is.
fn write_in_any_order(directory: &Directory, mut writes: Vec<Write>) -> Result<(), ApplyError> {
    loop {
        let before = writes.len();
        let mut refused = None;
        let mut left = Vec::new();
        for write in writes {
            match write.execute(directory) {
                Ok(()) => {}
                // The kernel's answer to a value that does not fit the others as they are now.
                Err(error) if error.errno() == Some(Errno::INVAL) && before > 1 => {
                    refused.get_or_insert_with(|| write.error(directory, error));
                    left.push(write);
                }
                Err(error) => return Err(write.error(directory, error)),
            }
        }
        match refused {
            None => return Ok(()),
            Some(error) if left.len() == before => return Err(error),
            Some(_) => writes = left,
        }
    }
}

fn memory_in_use(directory: &Directory, limit: &str) -> ApplyError {
    let usage = directory.read_number("memory.usage_in_bytes").unwrap_or(0);
    ApplyError::MemoryInUse { limit: limit.parse().unwrap_or(-1), usage }
}

/// The first field of `cpu` that needs the controller of that name.
fn first_cpu_field(cpu: &oci::runtime::LinuxCpu) -> Option<&'static str> {
    [
        (cpu.shares.is_some(), "cpu.shares"),
        (cpu.quota.is_some(), "cpu.quota"),
        (cpu.period.is_some(), "cpu.period"),
        (cpu.burst.is_some(), "cpu.burst"),
        (cpu.idle.is_some(), "cpu.idle"),
        (cpu.realtime_runtime.is_some(), "cpu.realtimeRuntime"),
        (cpu.realtime_period.is_some(), "cpu.realtimePeriod"),
    ]
    .into_iter()
    .find_map(|(is_set, field)| is_set.then_some(field))
}

/// A page size becomes part of a file's name: it is digits and a unit, and nothing else.
fn page_size(text: &str) -> Result<&str, ApplyError> {
    let unit = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    if unit.len() < text.len() && matches!(unit, "KB" | "MB" | "GB") {
        Ok(text)
    } else {
        let reason = format!("{text:?} is not a page size like 2MB");
        Err(ApplyError::Invalid { field: "hugepageLimits.pageSize", reason })
    }
}

#[cfg(test)]
mod tests;
