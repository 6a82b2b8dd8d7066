//! From a configuration to a decision for every system call number of every architecture.

use oci::runtime::{Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction, SeccompOperator};

use crate::arch::{Target, X32_BIT, row};
use crate::filter::CompileError;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const ERRNO_MAX: u32 = 4095;
const ARGUMENTS: u32 = 6;

/// What the kernel is told: an action and its datum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Verdict(pub(crate) u32);

impl Verdict {
    pub(crate) const KILL_THREAD: Self = Self(0);
    const ENOSYS: Self = Self(0x0005_0000 | ENOSYS);
}

/// The numbers from `first` up to the next range's first, and what happens to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range<'a> {
    pub(crate) first: u32,
    pub(crate) decision: Decision<'a>,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision<'a> {
    /// Always the same.
    Always(Verdict),
    /// The first case whose conditions all hold, or else the last verdict.
    Cases(Vec<Case<'a>>, Verdict),
}

/// Conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case<'a> {
    pub(crate) conditions: Conditions<'a>,
    pub(crate) verdict: Verdict,
    /// Whether arguments are compared with all 64 bits.
    pub(crate) is_wide: bool,
}

/// The conditions of a case: those of the configuration, possibly behind the number of a multiplexed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conditions<'a> {
    subcall: Option<u32>,
    arguments: &'a [LinuxSeccompArg],
}

/// The calls of all architectures that share a value of `seccomp_data.arch`.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    pub(crate) audit: u32,
    pub(crate) is_little_endian: bool,
    /// In order, the first one from 0.
    pub(crate) ranges: Vec<Range<'a>>,
}

/// A checked rule of the configuration.
struct Rule<'a> {
    rows: Vec<usize>,
    verdict: Verdict,
    /// Each is a case of its own.
    alternatives: Vec<&'a [LinuxSeccompArg]>,
}

/// One call of one architecture that a rule names.
struct Named<'a> {
    number: u32,
    conditions: Conditions<'a>,
    verdict: Verdict,
    is_wide: bool,
}

/// Works out the sections of a filter.
pub(crate) fn sections<'a>(seccomp: &'a LinuxSeccomp, native: Arch) -> Result<Vec<Section<'a>>, CompileError> {
    let default = verdict(seccomp.default_action, seccomp.default_errno_ret)?;
    let rules = checked_rules(seccomp, default)?;
    let last_known = is_strict(seccomp).then(|| named_rows(seccomp));
    let mut sections: Vec<Section<'a>> = Vec::new();
    for target in targets(seccomp, native)? {
        let newest = last_known.as_ref().and_then(|rows| rows.iter().filter_map(|row| target.number(*row)).max());
        let ranges = ranges(named(&rules, target), default, newest);
        match sections.iter_mut().find(|section| section.audit == target.audit) {
            Some(section) => section.merge(ranges, target),
            None => sections.push(Section::new(ranges, target, default, last_known.is_some())),
        }
    }
    Ok(sections)
}

impl<'a> Section<'a> {
    fn new(ranges: Vec<Range<'a>>, target: Target, default: Verdict, is_strict: bool) -> Self {
        let mut section = Self { audit: target.audit, is_little_endian: target.is_little_endian(), ranges };
        match target.arch {
            Arch::X86_64 if !is_strict => {
                // x32's calls are another architecture's, and -1 is what a tracer writes to skip a call.
                section.replace_from(X32_BIT, vec![always(X32_BIT, Verdict::KILL_THREAD), always(u32::MAX, default)]);
            }
            Arch::X32 => {
                let from_x32 = section.ranges.split_off(section.ranges.partition_point(|range| range.first < X32_BIT));
                section.ranges = vec![always(0, Verdict::KILL_THREAD)];
                section.replace_from(X32_BIT, from_x32);
            }
            _ => {}
        }
        section
    }

    /// Adds x32 to x86-64 or the other way round.
    fn merge(&mut self, mut ranges: Vec<Range<'a>>, target: Target) {
        let middle = ranges.partition_point(|range| range.first < X32_BIT);
        let upper = ranges.split_off(middle);
        match target.arch {
            Arch::X32 => self.replace_from(X32_BIT, starting_at(X32_BIT, upper, ranges.last())),
            _ => {
                let mine = self.ranges.split_off(self.ranges.partition_point(|range| range.first < X32_BIT));
                self.ranges = ranges;
                self.replace_from(X32_BIT, mine);
            }
        }
    }

    fn replace_from(&mut self, first: u32, ranges: Vec<Range<'a>>) {
        self.ranges.truncate(self.ranges.partition_point(|range| range.first < first));
        self.ranges.extend(ranges);
    }
}

impl<'a> Conditions<'a> {
    /// The conditions as arguments of the kernel's: the subcall stands in for whatever was asked of the first one.
    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = LinuxSeccompArg> + 'a {
        let subcall = self.subcall.map(|number| LinuxSeccompArg {
            index: 0,
            value: u64::from(number),
            value_two: 0,
            op: SeccompOperator::Equal,
        });
        let is_replaced = subcall.is_some();
        subcall
            .into_iter()
            .chain(self.arguments.iter().copied().filter(move |argument| !(is_replaced && argument.index == 0)))
    }

    fn is_empty(self) -> bool {
        self.subcall.is_none() && self.arguments.is_empty()
    }
}

/// The machine's own architecture and those of the configuration, each once.
fn targets(seccomp: &LinuxSeccomp, native: Arch) -> Result<Vec<Target>, CompileError> {
    let mut targets: Vec<Target> = Vec::with_capacity(3);
    for arch in std::iter::once(native).chain(seccomp.architectures.iter().copied()) {
        let target = Target::of(arch).ok_or(CompileError::Architecture(arch))?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    let order = targets.first().map(|target| target.is_little_endian());
    match targets.iter().find(|target| Some(target.is_little_endian()) != order) {
        Some(target) => Err(CompileError::ByteOrder(target.arch)),
        None => Ok(targets),
    }
}

fn checked_rules(seccomp: &LinuxSeccomp, default: Verdict) -> Result<Vec<Rule<'_>>, CompileError> {
    let mut rules = Vec::with_capacity(seccomp.syscalls.len());
    for syscall in &seccomp.syscalls {
        let verdict = verdict(syscall.action, syscall.errno_ret)?;
        check_notify(syscall)?;
        if let Some(argument) = syscall.args.iter().find(|argument| argument.index >= ARGUMENTS) {
            return Err(CompileError::Argument {
                name: syscall.names.first().cloned().unwrap_or_default(),
                index: argument.index,
            });
        }
        // libseccomp refuses rules that do what is done anyway, and so runc leaves them out.
        if verdict != default {
            let rows = syscall.names.iter().filter_map(|name| row(name)).collect();
            rules.push(Rule { rows, verdict, alternatives: alternatives(&syscall.args) });
        }
    }
    Ok(rules)
}

/// Conditions on different arguments must all hold; if one argument has several, any of all conditions is enough, as in runc.
fn alternatives(arguments: &[LinuxSeccompArg]) -> Vec<&[LinuxSeccompArg]> {
    let is_repeated = |(place, argument): (usize, &LinuxSeccompArg)| {
        arguments[..place].iter().any(|before| before.index == argument.index)
    };
    if arguments.iter().enumerate().any(is_repeated) { arguments.chunks(1).collect() } else { vec![arguments] }
}

/// The listener could not be told of anything if its own messages waited for it.
fn check_notify(syscall: &LinuxSyscall) -> Result<(), CompileError> {
    if syscall.action == SeccompAction::Notify && syscall.names.iter().any(|name| name == "write") {
        return Err(CompileError::NotifyWrite);
    }
    Ok(())
}

fn verdict(action: SeccompAction, errno: Option<u32>) -> Result<Verdict, CompileError> {
    let datum = match (action, errno) {
        (SeccompAction::Errno, Some(errno)) if errno > ERRNO_MAX => return Err(CompileError::Errno(errno)),
        (SeccompAction::Trace, Some(message)) if message > 0xffff => return Err(CompileError::Errno(message)),
        (SeccompAction::Errno | SeccompAction::Trace, errno) => errno.unwrap_or(EPERM),
        (_, Some(_)) => return Err(CompileError::ErrnoWithout(action)),
        (_, None) => 0,
    };
    let action = match action {
        SeccompAction::Kill | SeccompAction::KillThread => Verdict::KILL_THREAD.0,
        SeccompAction::KillProcess => 0x8000_0000,
        SeccompAction::Trap => 0x0003_0000,
        SeccompAction::Errno => 0x0005_0000,
        SeccompAction::Notify => 0x7fc0_0000,
        SeccompAction::Trace => 0x7ff0_0000,
        SeccompAction::Log => 0x7ffc_0000,
        SeccompAction::Allow => 0x7fff_0000,
    };
    Ok(Verdict(action | datum))
}

/// Whether calls that the profile's author could not know are told apart from those that he refused.
///
/// A libc that tries a new call first falls back to an old one on `ENOSYS`, but not on `EPERM`. So calls above the highest number that
/// the profile names get `ENOSYS`, as in runc, unless unknown calls pass anyway.
fn is_strict(seccomp: &LinuxSeccomp) -> bool {
    let passes = matches!(
        seccomp.default_action,
        SeccompAction::Allow | SeccompAction::Log | SeccompAction::Trace | SeccompAction::Notify
    );
    !passes && seccomp.default_errno_ret != Some(ENOSYS)
}

/// Every call that the profile names, whatever it says about it: its author knew it.
fn named_rows(seccomp: &LinuxSeccomp) -> Vec<usize> {
    seccomp.syscalls.iter().flat_map(|syscall| &syscall.names).filter_map(|name| row(name)).collect()
}

/// All calls of an architecture that rules name, by number, in the order of the rules.
fn named<'a>(rules: &[Rule<'a>], target: Target) -> Vec<Named<'a>> {
    let mut named = Vec::with_capacity(512);
    for rule in rules {
        for row in &rule.rows {
            for arguments in &rule.alternatives {
                append(&mut named, target, *row, arguments, rule.verdict);
            }
        }
    }
    // Stable: rules for one number stay in their order.
    named.sort_by_key(|call: &Named<'_>| call.number);
    named
}

fn append<'a>(
    named: &mut Vec<Named<'a>>,
    target: Target,
    row: usize,
    arguments: &'a [LinuxSeccompArg],
    verdict: Verdict,
) {
    let is_wide = target.has_wide_arguments();
    if let Some(number) = target.number(row) {
        named.push(Named { number, conditions: Conditions { subcall: None, arguments }, verdict, is_wide });
    }
    if target.multiplexes
        && let Some((number, subcall)) = multiplexed(target, row)
    {
        named.push(Named { number, conditions: Conditions { subcall: Some(subcall), arguments }, verdict, is_wide });
    }
}

/// The number of `socketcall` or `ipc`, and which of their subcalls a call is.
fn multiplexed(target: Target, wanted: usize) -> Option<(u32, u32)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u32); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    let name = crate::table::TABLE[wanted].0;
    let (multiplexer, subcall) = match SOCKET.iter().position(|known| *known == name) {
        Some(place) => ("socketcall", place as u32 + 1),
        None => ("ipc", IPC.iter().find(|(known, _)| *known == name)?.1),
    };
    Some((target.number(row(multiplexer)?)?, subcall))
}

/// Turns calls in order of their numbers into ranges that cover all numbers.
fn ranges<'a>(named: Vec<Named<'a>>, default: Verdict, newest: Option<u32>) -> Vec<Range<'a>> {
    let mut ranges = vec![always(0, default)];
    let mut next = 0;
    for calls in named.chunk_by(|a, b| a.number == b.number) {
        let number = calls[0].number;
        if number > next {
            push(&mut ranges, always(next, default));
        }
        push(&mut ranges, Range { first: number, decision: decision(calls, default) });
        next = number + 1;
    }
    push(&mut ranges, always(next, default));
    if let Some(newest) = newest {
        push(&mut ranges, always(newest + 1, Verdict::ENOSYS));
    }
    ranges
}

/// A rule without conditions holds for all arguments, whatever the others say, as in libseccomp.
fn decision<'a>(calls: &[Named<'a>], default: Verdict) -> Decision<'a> {
    if let Some(call) = calls.iter().find(|call| call.conditions.is_empty()) {
        return Decision::Always(call.verdict);
    }
    let case = |call: &Named<'a>| Case { conditions: call.conditions, verdict: call.verdict, is_wide: call.is_wide };
    Decision::Cases(calls.iter().map(case).collect(), default)
}

/// Adds a range behind the others; equal neighbours become one, and a later range of the same start wins.
fn push<'a>(ranges: &mut Vec<Range<'a>>, range: Range<'a>) {
    if ranges.last().is_some_and(|last| last.first == range.first) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|last| last.decision != range.decision) {
        ranges.push(range);
    }
}

fn always<'a>(first: u32, verdict: Verdict) -> Range<'a> {
    Range { first, decision: Decision::Always(verdict) }
}

/// Makes ranges start at a number that lies in the middle of the one before them.
fn starting_at<'a>(first: u32, ranges: Vec<Range<'a>>, before: Option<&Range<'a>>) -> Vec<Range<'a>> {
    match before {
        Some(before) if ranges.first().is_none_or(|range| range.first > first) => {
            std::iter::once(Range { first, decision: before.decision.clone() }).chain(ranges).collect()
        }
        _ => ranges,
    }
}
