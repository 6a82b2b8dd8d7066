//! Properties of a process that are set with one call each: limits, scheduling, memory policy, execution domain.

use linux::resource::{Limit, limit_of, set_limit, set_limit_of};
use linux::scheduler::{SchedulerAttributes, affinity, set_affinity, set_io_priority, set_scheduler};
use oci::runtime::{
    IoPriority, IoPriorityClass, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain, MemoryPolicyFlag,
    MemoryPolicyMode, PosixRlimit, Process, RlimitType, Scheduler, SchedulerFlag, SchedulerPolicy,
};
use rustix::process::Pid;

use crate::error::{Context, Error, Result, Stage};

/// The largest CPU or node number that a list may name.
const MAX_NUMBER: usize = 8191;
/// The longest list that is read: every number by itself, and a few more.
const MAX_LIST_BYTES: usize = 64 << 10;

/// Refuses what can be seen to be wrong without trying.
pub(crate) fn check(process: &Process) -> Result<()> {
    for (index, limit) in process.rlimits.iter().enumerate() {
        if process.rlimits[..index].iter().any(|other| other.kind == limit.kind) {
            return Err(Error::new(Stage::Spec, format!("rlimit type {:?} is given twice", limit.kind)));
        }
    }
    if let Some(priority) = &process.io_priority
        && !(0..=7).contains(&priority.priority)
    {
        return Err(Error::new(
            Stage::Spec,
            format!("ioPriority.priority {} is not between 0 and 7", priority.priority),
        ));
    }
    let cpus = process.exec_cpu_affinity.as_ref();
    for list in cpus.iter().flat_map(|cpus| [&cpus.initial, &cpus.last]) {
        parse_list(list)?;
    }
    Ok(())
}

/// The kernel's number of a limit.
fn number_of(kind: RlimitType) -> u32 {
    match kind {
        RlimitType::Cpu => 0,
        RlimitType::Fsize => 1,
        RlimitType::Data => 2,
        RlimitType::Stack => 3,
        RlimitType::Core => 4,
        RlimitType::Rss => 5,
        RlimitType::Nproc => 6,
        RlimitType::Nofile => 7,
        RlimitType::Memlock => 8,
        RlimitType::As => 9,
        RlimitType::Locks => 10,
        RlimitType::Sigpending => 11,
        RlimitType::Msgqueue => 12,
        RlimitType::Nice => 13,
        RlimitType::Rtprio => 14,
        RlimitType::Rttime => 15,
    }
}

/// Sets the limit of processes, which the kernel looks at when the user changes.
pub(crate) fn set_limits_for_user(limits: &[PosixRlimit]) -> Result<()> {
    each_limit(limits.iter().filter(|limit| limit.kind == RlimitType::Nproc), set_limit)
}

/// Sets the other limits. They bind the runtime too, which may need more descriptors or memory than the program gets: to be called
/// when nothing more is opened.
pub(crate) fn set_other_limits(limits: &[PosixRlimit]) -> Result<()> {
    each_limit(limits.iter().filter(|limit| limit.kind != RlimitType::Nproc), set_limit)
}

/// Lets a process set these limits itself once it is in a user namespace, from which it cannot raise any.
pub(crate) fn allow_limits_of(pid: Pid, limits: &[PosixRlimit]) -> Result<()> {
    each_limit(limits.iter(), |number, wanted| match limit_of(pid, number)? {
        now if now.hard >= wanted.hard => Ok(()),
        now => set_limit_of(pid, number, Limit { hard: wanted.hard, ..now }),
    })
}

fn each_limit<'a>(
    mut limits: impl Iterator<Item = &'a PosixRlimit>,
    set: impl Fn(u32, Limit) -> linux::Result<()>,
) -> Result<()> {
    limits.try_for_each(|limit| {
        set(number_of(limit.kind), Limit { soft: limit.soft, hard: limit.hard }).context(Stage::Properties, || {
            format!("error setting rlimit {:?} to {}:{}", limit.kind, limit.soft, limit.hard)
        })
    })
}

/// Sets CPU and I/O scheduling of this process.
pub(crate) fn set_scheduling(process: &Process) -> Result<()> {
    if let Some(scheduler) = &process.scheduler {
        set_scheduler(&attributes_of(scheduler)?).context(Stage::Properties, || "error setting scheduler")?;
    }
    if let Some(priority) = &process.io_priority {
        set_io_priority(io_number(*priority)).context(Stage::Properties, || "failed to set io priority")?;
    }
    Ok(())
}

fn attributes_of(scheduler: &Scheduler) -> Result<SchedulerAttributes> {
    let policy = match scheduler.policy {
        SchedulerPolicy::Other => 0,
        SchedulerPolicy::Fifo => 1,
        SchedulerPolicy::Rr => 2,
        SchedulerPolicy::Batch => 3,
        SchedulerPolicy::Iso => 4,
        SchedulerPolicy::Idle => 5,
        SchedulerPolicy::Deadline => 6,
    };
    let flag = |flag: &SchedulerFlag| match flag {
        SchedulerFlag::ResetOnFork => 0x01,
        SchedulerFlag::Reclaim => 0x02,
        SchedulerFlag::DlOverrun => 0x04,
        SchedulerFlag::KeepPolicy => 0x08,
        SchedulerFlag::KeepParams => 0x10,
        SchedulerFlag::UtilClampMin => 0x20,
        SchedulerFlag::UtilClampMax => 0x40,
    };
    let priority = u32::try_from(scheduler.priority)
        .map_err(|_| Error::new(Stage::Spec, format!("scheduler.priority {} is negative", scheduler.priority)))?;
    Ok(SchedulerAttributes {
        policy,
        flags: scheduler.flags.iter().map(flag).sum(),
        nice: scheduler.nice,
        priority,
        runtime_ns: scheduler.runtime,
        deadline_ns: scheduler.deadline,
        period_ns: scheduler.period,
    })
}

fn io_number(priority: IoPriority) -> i32 {
    let class = match priority.class {
        IoPriorityClass::Realtime => 1,
        IoPriorityClass::BestEffort => 2,
        IoPriorityClass::Idle => 3,
    };
    class << 13 | priority.priority
}

/// Sets the execution domain of this process.
pub(crate) fn set_personality(personality: &LinuxPersonality) -> Result<()> {
    if !personality.flags.is_empty() {
        return Err(Error::new(Stage::Spec, format!("personality flag {:?} is not supported", personality.flags[0])));
    }
    let domain = match personality.domain {
        LinuxPersonalityDomain::Linux => 0,
        LinuxPersonalityDomain::Linux32 => 8,
    };
    linux::exec::personality(domain).context(Stage::Properties, || "error setting personality").map(drop)
}

/// Sets the NUMA memory policy of this process.
pub(crate) fn set_memory_policy(policy: &LinuxMemoryPolicy) -> Result<()> {
    let mode = match policy.mode {
        MemoryPolicyMode::Default => 0,
        MemoryPolicyMode::Preferred => 1,
        MemoryPolicyMode::Bind => 2,
        MemoryPolicyMode::Interleave => 3,
        MemoryPolicyMode::Local => 4,
        MemoryPolicyMode::PreferredMany => 5,
        MemoryPolicyMode::WeightedInterleave => 6,
    };
    let flag = |flag: &MemoryPolicyFlag| match flag {
        MemoryPolicyFlag::NumaBalancing => 1 << 13,
        MemoryPolicyFlag::RelativeNodes => 1 << 14,
        MemoryPolicyFlag::StaticNodes => 1 << 15,
    };
    let flags: i32 = policy.flags.iter().map(flag).sum();
    let nodes = parse_list(&policy.nodes)?;
    linux::memory::set_mempolicy(mode | flags, &nodes).context(Stage::Properties, || "error setting memory policy")
}

/// Lets this process run on the CPUs of a list only; an empty list changes nothing.
pub(crate) fn set_cpus(list: &str) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    set_affinity(&parse_list(list)?).context(Stage::Properties, || format!("error setting CPU affinity {list:?}"))
}

/// As [`set_cpus`], and returns the CPUs from before; an empty list changes nothing and returns nothing.
pub(crate) fn exchange_cpus(list: &str) -> Result<Option<Vec<u64>>> {
    if list.is_empty() {
        return Ok(None);
    }
    let before = affinity().context(Stage::Properties, || "cannot read the own CPU affinity")?;
    set_cpus(list).map(|()| Some(before))
}

/// Undoes [`exchange_cpus`].
pub(crate) fn restore_cpus(before: &[u64]) -> Result<()> {
    set_affinity(before).context(Stage::Properties, || "cannot restore the own CPU affinity")
}

/// A list as `0-3,7` as a bit mask in words of 64.
fn parse_list(list: &str) -> Result<Vec<u64>> {
    if list.len() > MAX_LIST_BYTES {
        return Err(Error::new(Stage::Spec, format!("a list of numbers has {} bytes", list.len())));
    }
    let wrong = || Error::new(Stage::Spec, format!("{list:?} is not a list of numbers as 0-3,7"));
    let number =
        |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number <= MAX_NUMBER).ok_or_else(wrong);
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        for bit in first..=last {
            if mask.len() <= bit / 64 {
                mask.resize(bit / 64 + 1, 0);
            }
            mask[bit / 64] |= 1 << (bit % 64);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        assert_eq!(parse_list("").unwrap(), Vec::<u64>::new());
        assert_eq!(parse_list("0-2,7").unwrap(), [0b1000_0111]);
        assert_eq!(parse_list("64").unwrap(), [0, 1]);
        for list in ["3-1", "x", "0-", "-1", "0-999999999", "8192"] {
            assert!(parse_list(list).is_err(), "{list}");
        }
    }

    #[test]
    fn a_limit_is_given_once() {
        let limit = PosixRlimit { kind: RlimitType::Core, hard: 0, soft: 0 };
        let mut process = Process { rlimits: vec![limit], ..Process::default() };
        check(&process).unwrap();
        process.rlimits.push(limit);
        assert!(check(&process).is_err());
    }
}
