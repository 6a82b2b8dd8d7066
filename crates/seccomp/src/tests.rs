//! Filters against libseccomp's, against their meaning, and in the kernel.

use std::collections::BTreeSet;

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci::runtime::{Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction, SeccompFlag, SeccompOperator};
use proptest::prelude::*;

use crate::arch::{Target, X32_BIT};
use crate::filter::{CompileError, compile, compile_for};
use crate::interpreter::{Call, Outcome, Program};
use crate::profile::{Conditions, KernelVersion, Profile};
use crate::table::TABLE;

const X86_64: u32 = 0xc000_003e;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

/// Arguments that lie at, above and below the values that profiles ask for, in both halves.
const INTERESTING: [u64; 16] = [
    0,
    1,
    2,
    8,
    37,
    38,
    39,
    40,
    41,
    0x2_0000,
    0x2_0008,
    0x7e02_0000,
    0x1000_0000,
    0xffff_ffff,
    0x1_0000_0008,
    u64::MAX,
];

fn docker(capabilities: &[&str], arch: Arch) -> LinuxSeccomp {
    let capabilities: BTreeSet<_> = capabilities.iter().map(|name| (*name).to_owned()).collect();
    let conditions = Conditions { capabilities: &capabilities, arch, kernel: KernelVersion::new(6, 18) };
    Profile::docker_default().resolve(&conditions).unwrap()
}

fn rule(name: &str, action: SeccompAction, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    LinuxSyscall { names: vec![name.to_owned()], action, errno_ret: None, args }
}

fn argument(index: u32, op: SeccompOperator, value: u64, value_two: u64) -> LinuxSeccompArg {
    LinuxSeccompArg { index, value, value_two, op }
}

fn profile(default_action: SeccompAction, syscalls: Vec<LinuxSyscall>) -> LinuxSeccomp {
    LinuxSeccomp {
        default_action,
        default_errno_ret: None,
        architectures: Vec::new(),
        flags: Vec::new(),
        listener_path: String::new(),
        listener_metadata: String::new(),
        syscalls,
    }
}

fn program(seccomp: &LinuxSeccomp) -> Program {
    Program::decode(&compile_for(seccomp, Arch::X86_64).unwrap().program)
}

fn run(program: &Program, name: &str, arguments: [u64; 6]) -> Outcome {
    let number = crate::arch::number(Arch::X86_64, name).unwrap();
    program.run(Call { number, audit: X86_64, arguments }, true)
}

fn any_argument() -> impl Strategy<Value = LinuxSeccompArg> {
    use SeccompOperator::{Equal, GreaterOrEqual, GreaterThan, LessOrEqual, LessThan, MaskedEqual, NotEqual};
    let op = proptest::sample::select(vec![
        Equal,
        NotEqual,
        GreaterThan,
        GreaterOrEqual,
        LessThan,
        LessOrEqual,
        MaskedEqual,
    ]);
    let value = proptest::sample::select(INTERESTING.to_vec());
    (0..3_u32, op, value.clone(), value).prop_map(|(index, op, value, value_two)| argument(index, op, value, value_two))
}

fn any_action() -> impl Strategy<Value = SeccompAction> {
    use SeccompAction::{Allow, Errno, KillProcess, KillThread, Log, Trace, Trap};
    proptest::sample::select(vec![Allow, Errno, KillProcess, KillThread, Log, Trace, Trap])
}

/// Conditions on different arguments.
fn arguments_of_their_own() -> impl Strategy<Value = Vec<LinuxSeccompArg>> {
    proptest::collection::vec(any_argument(), 0..4).prop_map(|mut arguments| {
        let mut seen = BTreeSet::new();
        arguments.retain(|argument| seen.insert(argument.index));
        arguments
    })
}

mod meaning {
    //! What a filter does, by its words.

    use super::*;

    #[test]
    fn the_default_profile_allows_and_refuses_as_docker_does() {
        let program = program(&docker(&[], Arch::X86_64));
        let verdict = |name, first| run(&program, name, [first, 0, 0, 0, 0, 0]).verdict;
        for name in ["read", "openat", "execve", "futex", "mmap", "statx", "close_range"] {
            assert_eq!(verdict(name, 0), ALLOW, "{name}");
        }
        for name in [
            "mount",
            "bpf",
            "unshare",
            "reboot",
            "keyctl",
            "init_module",
            "kexec_load",
            "userfaultfd",
            "io_uring_setup",
        ] {
            assert_eq!(verdict(name, 0), EPERM, "{name}");
        }
        assert_eq!(verdict("clone3", 0), ENOSYS);
        // Namespaces are refused, threads and processes are not.
        assert_eq!(verdict("clone", 0x11), ALLOW);
        assert_eq!(verdict("clone", 0x1000_0011), EPERM);
        assert_eq!(verdict("personality", 0xffff_ffff), ALLOW);
        assert_eq!(verdict("personality", 0x4_0000), EPERM);
        // AF_ALG and AF_VSOCK.
        for (family, expected) in
            [(1, ALLOW), (2, ALLOW), (37, ALLOW), (38, EPERM), (39, ALLOW), (40, EPERM), (41, ALLOW)]
        {
            assert_eq!(verdict("socket", family), expected, "{family}");
        }
    }

    #[test]
    fn capabilities_open_what_they_open() {
        let plain = program(&docker(&[], Arch::X86_64));
        let admin = program(&docker(&["CAP_SYS_ADMIN", "CAP_SYS_TIME"], Arch::X86_64));
        let both = |name, first| {
            let arguments = [first, 0, 0, 0, 0, 0];
            (run(&plain, name, arguments).verdict, run(&admin, name, arguments).verdict)
        };
        assert_eq!(both("mount", 0), (EPERM, ALLOW));
        assert_eq!(both("clone", 0x1000_0000), (EPERM, ALLOW));
        assert_eq!(both("clone3", 0), (ENOSYS, ALLOW));
        assert_eq!(both("clock_settime", 0), (EPERM, ALLOW));
        assert_eq!(both("reboot", 0), (EPERM, EPERM));
    }

    #[test]
    fn calls_newer_than_the_profile_do_not_exist() {
        let seccomp = profile(SeccompAction::Errno, vec![rule("openat2", SeccompAction::Allow, Vec::new())]);
        let program = program(&seccomp);
        let verdict = |number| program.run(Call { number, audit: X86_64, arguments: [0; 6] }, true).verdict;
        assert_eq!((verdict(436), verdict(437), verdict(438), verdict(10_000)), (EPERM, ALLOW, ENOSYS, ENOSYS));
        let open = Program::decode(
            &compile_for(
                &profile(SeccompAction::Allow, vec![rule("openat2", SeccompAction::Errno, Vec::new())]),
                Arch::X86_64,
            )
            .unwrap()
            .program,
        );
        assert_eq!(open.run(Call { number: 10_000, audit: X86_64, arguments: [0; 6] }, true).verdict, ALLOW);
        let asked = LinuxSeccomp { default_errno_ret: Some(38), ..seccomp };
        let asked = super::program(&asked);
        assert_eq!(asked.run(Call { number: 3, audit: X86_64, arguments: [0; 6] }, true).verdict, ENOSYS);
    }

    #[test]
    fn other_architectures_end_the_thread() {
        let program = program(&profile(SeccompAction::Allow, Vec::new()));
        assert_eq!(program.run(Call { number: 0, audit: X86_64, arguments: [0; 6] }, true).verdict, ALLOW);
        assert_eq!(program.run(Call { number: 3, audit: 0x4000_0003, arguments: [0; 6] }, true).verdict, 0);
        assert_eq!(program.run(Call { number: X32_BIT, audit: X86_64, arguments: [0; 6] }, true).verdict, 0, "x32");
        assert_eq!(
            program.run(Call { number: u32::MAX, audit: X86_64, arguments: [0; 6] }, true).verdict,
            ALLOW,
            "a skipped call"
        );
    }

    #[test]
    fn every_architecture_has_its_own_numbers() {
        for arch in [Arch::Aarch64, Arch::Riscv64, Arch::S390x, Arch::Ppc64le, Arch::Loongarch64, Arch::Mips64] {
            let target = Target::of(arch).unwrap();
            let mut seccomp = docker(&[], Arch::X86_64);
            seccomp.architectures = if arch == Arch::Aarch64 { vec![arch, Arch::Arm] } else { vec![arch] };
            let program = Program::decode(&compile_for(&seccomp, arch).unwrap().program);
            let verdict = |audit, number| {
                program.run(Call { number, audit, arguments: [0; 6] }, target.is_little_endian()).verdict
            };
            let number = |name| crate::arch::number(arch, name).unwrap();
            assert_eq!(verdict(target.audit, number("read")), ALLOW, "{arch:?}");
            assert_eq!(verdict(target.audit, number("mount")), EPERM, "{arch:?}");
            assert_eq!(verdict(target.audit, number("socket")), ALLOW, "{arch:?}");
            if arch == Arch::Aarch64 {
                assert_eq!(verdict(0x4000_0028, 3), ALLOW, "read on arm");
                assert_eq!(verdict(0x4000_0028, 21), EPERM, "mount on arm");
            }
        }
    }

    #[test]
    fn the_filter_is_short() {
        let seccomp = docker(&[], Arch::X86_64);
        let filter = compile_for(&seccomp, Arch::X86_64).unwrap();
        assert!(filter.instruction_count() < 700, "{}", filter.instruction_count());
        let program = program(&seccomp);
        for name in ["read", "write", "openat", "close", "futex", "epoll_wait", "clock_nanosleep"] {
            let outcome = run(&program, name, [0; 6]);
            assert!(outcome.verdict == ALLOW && outcome.steps <= 13, "{name}: {outcome:?}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let with = |seccomp: LinuxSeccomp| compile(&seccomp).unwrap_err();
        let allow = |args| profile(SeccompAction::Errno, vec![rule("read", SeccompAction::Allow, args)]);
        assert_eq!(
            with(allow(vec![argument(6, SeccompOperator::Equal, 0, 0)])),
            CompileError::Argument { name: "read".to_owned(), index: 6 }
        );
        let mut errno = profile(SeccompAction::Errno, Vec::new());
        errno.default_errno_ret = Some(4096);
        assert_eq!(with(errno), CompileError::Errno(4096));
        let mut allow_errno = profile(SeccompAction::Allow, Vec::new());
        allow_errno.default_errno_ret = Some(1);
        assert_eq!(with(allow_errno), CompileError::ErrnoWithout(SeccompAction::Allow));
        assert_eq!(with(profile(SeccompAction::Notify, Vec::new())), CompileError::NotifyDefault);
        assert_eq!(
            with(profile(SeccompAction::Allow, vec![rule("write", SeccompAction::Notify, Vec::new())])),
            CompileError::NotifyWrite
        );
        let foreign = LinuxSeccomp { architectures: vec![Arch::S390x], ..profile(SeccompAction::Allow, Vec::new()) };
        assert_eq!(compile_for(&foreign, Arch::X86_64), Err(CompileError::ByteOrder(Arch::S390x)));
        let unknown = LinuxSeccomp { architectures: vec![Arch::Parisc], ..profile(SeccompAction::Allow, Vec::new()) };
        assert_eq!(with(unknown), CompileError::Architecture(Arch::Parisc));
        let many = (0..3000)
            .map(|value| rule("read", SeccompAction::Errno, vec![argument(0, SeccompOperator::Equal, value, 0)]));
        assert!(matches!(with(profile(SeccompAction::Allow, many.collect())), CompileError::TooLong(_)));
    }

    #[test]
    fn long_programs_jump_as_far_as_they_must() {
        // One call with hundreds of cases lies between the branches of the tree.
        let mut rules: Vec<_> = (0..400)
            .map(|value| rule("poll", SeccompAction::Allow, vec![argument(1, SeccompOperator::Equal, value * 3, 0)]))
            .collect();
        rules.push(rule("read", SeccompAction::Allow, Vec::new()));
        rules.push(rule("statx", SeccompAction::Allow, Vec::new()));
        let program = program(&profile(SeccompAction::Errno, rules));
        for value in 0..1300 {
            let expected = if value % 3 == 0 && value < 1200 { ALLOW } else { EPERM };
            assert_eq!(run(&program, "poll", [0, value, 0, 0, 0, 0]).verdict, expected, "{value}");
        }
        assert_eq!((run(&program, "read", [0; 6]).verdict, run(&program, "statx", [0; 6]).verdict), (ALLOW, ALLOW));
        assert_eq!((run(&program, "write", [0; 6]).verdict, run(&program, "mount", [0; 6]).verdict), (EPERM, EPERM));
    }

    #[test]
    fn flags_follow_the_configuration() {
        let flags = |flags: &[SeccompFlag], action| {
            let seccomp = LinuxSeccomp {
                flags: flags.to_vec(),
                ..profile(SeccompAction::Allow, vec![rule("read", action, Vec::new())])
            };
            let filter = compile(&seccomp).unwrap();
            (filter.flags, filter.has_listener)
        };
        use SeccompFlag::{Log, SpecAllow, Tsync, WaitKillableRecv};
        assert_eq!(flags(&[], SeccompAction::Errno), (4, false));
        assert_eq!(flags(&[Log], SeccompAction::Errno), (2, false));
        assert_eq!(flags(&[Tsync, SpecAllow, WaitKillableRecv], SeccompAction::Errno), (5, false));
        assert_eq!(flags(&[WaitKillableRecv], SeccompAction::Notify), (8 | 32, true));
        assert_eq!(flags(&[Tsync], SeccompAction::Notify), (1 | 8 | 16, true));
    }
}

mod oracle {
    //! The same filter by libseccomp, as runc makes it.

    use super::*;

    fn action(action: SeccompAction, errno: Option<u32>) -> ScmpAction {
        let errno = errno.unwrap_or(1);
        match action {
            SeccompAction::Kill | SeccompAction::KillThread => ScmpAction::KillThread,
            SeccompAction::KillProcess => ScmpAction::KillProcess,
            SeccompAction::Trap => ScmpAction::Trap,
            SeccompAction::Errno => ScmpAction::Errno(errno.cast_signed()),
            SeccompAction::Trace => ScmpAction::Trace(errno.try_into().unwrap()),
            SeccompAction::Allow => ScmpAction::Allow,
            SeccompAction::Log => ScmpAction::Log,
            SeccompAction::Notify => ScmpAction::Notify,
        }
    }

    fn architecture(arch: Arch) -> ScmpArch {
        match arch {
            Arch::X86_64 => ScmpArch::X8664,
            Arch::X86 => ScmpArch::X86,
            Arch::X32 => ScmpArch::X32,
            Arch::Aarch64 => ScmpArch::Aarch64,
            Arch::Arm => ScmpArch::Arm,
            Arch::Riscv64 => ScmpArch::Riscv64,
            Arch::S390x => ScmpArch::S390X,
            Arch::Ppc64le => ScmpArch::Ppc64Le,
            Arch::Ppc64 => ScmpArch::Ppc64,
            Arch::Ppc => ScmpArch::Ppc,
            Arch::Mips => ScmpArch::Mips,
            Arch::Mips64 => ScmpArch::Mips64,
            other => panic!("{other:?} is not in the tests"),
        }
    }

    fn compare(argument: &LinuxSeccompArg) -> ScmpArgCompare {
        let operator = match argument.op {
            SeccompOperator::NotEqual => ScmpCompareOp::NotEqual,
            SeccompOperator::LessThan => ScmpCompareOp::Less,
            SeccompOperator::LessOrEqual => ScmpCompareOp::LessOrEqual,
            SeccompOperator::Equal => ScmpCompareOp::Equal,
            SeccompOperator::GreaterOrEqual => ScmpCompareOp::GreaterEqual,
            SeccompOperator::GreaterThan => ScmpCompareOp::Greater,
            SeccompOperator::MaskedEqual => ScmpCompareOp::MaskedEqual(argument.value),
        };
        let datum = if argument.op == SeccompOperator::MaskedEqual { argument.value_two } else { argument.value };
        ScmpArgCompare::new(argument.index, operator, datum)
    }

    /// libseccomp's program for a configuration, used as runc uses it.
    pub(super) fn by_libseccomp(seccomp: &LinuxSeccomp) -> Option<Program> {
        let default = action(seccomp.default_action, seccomp.default_errno_ret);
        let mut context = ScmpFilterContext::new(default).unwrap();
        for arch in &seccomp.architectures {
            context.add_arch(architecture(*arch)).unwrap();
        }
        for syscall in &seccomp.syscalls {
            let wanted = action(syscall.action, syscall.errno_ret);
            if wanted == default {
                continue;
            }
            for number in syscall.names.iter().filter_map(|name| ScmpSyscall::from_name(name).ok()) {
                let compares: Vec<_> = syscall.args.iter().map(compare).collect();
                let is_repeated =
                    syscall.args.iter().enumerate().any(|(place, argument)| {
                        syscall.args[..place].iter().any(|before| before.index == argument.index)
                    });
                if is_repeated {
                    compares
                        .iter()
                        .try_for_each(|one| context.add_rule_conditional(wanted, number, &[*one]).map(drop))
                        .ok()?;
                } else {
                    context.add_rule_conditional(wanted, number, &compares).ok()?;
                }
            }
        }
        let mut file = tempfile::tempfile().unwrap();
        context.export_bpf(&file).unwrap();
        let mut bytes = Vec::new();
        std::io::Seek::rewind(&mut file).unwrap();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        Some(Program::decode(&bytes))
    }

    /// Runs both programs for a call and compares.
    fn check(ours: &Program, theirs: &Program, call: Call) -> Result<(), String> {
        let (ours, theirs) = (ours.run(call, true).verdict, theirs.run(call, true).verdict);
        if ours == theirs { Ok(()) } else { Err(format!("{call:x?}: ours {ours:#x}, libseccomp's {theirs:#x}")) }
    }

    /// The numbers of a section that libseccomp knows: newer calls and the `ENOSYS` behind them are ours alone.
    fn numbers(arch: Arch) -> Vec<u32> {
        let known = |(name, _): &(&str, _)| {
            let number = ScmpSyscall::from_name_by_arch(name, architecture(arch)).ok()?.as_raw_syscall();
            u32::try_from(number).ok()
        };
        TABLE.iter().filter_map(known).collect()
    }

    fn audit(arch: Arch) -> u32 {
        Target::of(arch).unwrap().audit
    }

    #[test]
    fn numbers_agree() {
        let mut wrong = Vec::new();
        for arch in [
            Arch::X86_64,
            Arch::X86,
            Arch::X32,
            Arch::Aarch64,
            Arch::Arm,
            Arch::Riscv64,
            Arch::S390x,
            Arch::Ppc64le,
            Arch::Ppc,
            Arch::Mips64,
            Arch::Mips,
        ] {
            for (name, _) in &TABLE {
                let theirs =
                    ScmpSyscall::from_name_by_arch(name, architecture(arch)).ok().map(ScmpSyscall::as_raw_syscall);
                // Negative numbers are libseccomp's own, for calls that the architecture lacks.
                let theirs = theirs.and_then(|number| u32::try_from(number).ok());
                let ours = crate::arch::number(arch, name);
                // What only we know is newer than the library.
                if theirs.is_some() && theirs != ours {
                    wrong.push(format!("{arch:?} {name}: ours {ours:?}, libseccomp's {theirs:?}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn dockers_profile_is_the_same_for_every_call_and_interesting_arguments() {
        for capabilities in
            [&[][..], &["CAP_SYS_ADMIN"], &["CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_BPF", "CAP_DAC_READ_SEARCH"]]
        {
            let seccomp = docker(capabilities, Arch::X86_64);
            let (ours, theirs) = (program(&seccomp), by_libseccomp(&seccomp).unwrap());
            for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
                for number in numbers(arch) {
                    for (first, second) in
                        INTERESTING.iter().flat_map(|first| INTERESTING.iter().map(move |second| (*first, *second)))
                    {
                        // On x86 the kernel shows 32 bits an argument.
                        let cut = |value| if arch == Arch::X86 { value & 0xffff_ffff } else { value };
                        let call =
                            Call { number, audit: audit(arch), arguments: [cut(first), cut(second), 0, 0, 0, 0] };
                        check(&ours, &theirs, call).unwrap();
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// One rule a call, any conditions: here libseccomp's meaning is plain.
        #[test]
        fn single_rules_agree(
            default in any_action(),
            action in any_action(),
            args in arguments_of_their_own(),
            name in proptest::sample::select(vec!["clone", "socket", "read", "shmget", "bind", "ioctl"]),
            first in proptest::sample::select(INTERESTING.to_vec()),
            second in proptest::sample::select(INTERESTING.to_vec()),
            third in proptest::sample::select(INTERESTING.to_vec()),
        ) {
            let mut seccomp = profile(default, vec![rule(name, action, args)]);
            seccomp.architectures = vec![Arch::X86_64, Arch::X86, Arch::X32];
            // ENOSYS for new calls would show in numbers that the library does not know.
            let Some(theirs) = by_libseccomp(&seccomp) else { return Ok(()) };
            let ours = program(&seccomp);
            for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
                let cut = |value: u64| if arch == Arch::X86 { value & 0xffff_ffff } else { value };
                for called in [name, "socketcall", "ipc", "getpid"] {
                    let Some(number) = crate::arch::number(arch, called) else { continue };
                    if crate::arch::number(arch, name).is_some_and(|known| number > known) {
                        continue;
                    }
                    let call = Call { number, audit: audit(arch), arguments: [cut(first), cut(second), cut(third), 0, 0, 0] };
                    let same = check(&ours, &theirs, call);
                    prop_assert!(same.is_ok(), "{}", same.unwrap_err());
                }
            }
        }
    }
}

mod model {
    //! Filters against the plain meaning of their rules.
    //!
    //! libseccomp 2.5 cannot judge several rules for one call: it merges their trees and lets `2` pass for
    //! `x < 0 or x > 0x100000008`.

    use super::*;

    fn holds(argument: &LinuxSeccompArg, arguments: [u64; 6]) -> bool {
        let actual = arguments[argument.index as usize];
        match argument.op {
            SeccompOperator::NotEqual => actual != argument.value,
            SeccompOperator::LessThan => actual < argument.value,
            SeccompOperator::LessOrEqual => actual <= argument.value,
            SeccompOperator::Equal => actual == argument.value,
            SeccompOperator::GreaterOrEqual => actual >= argument.value,
            SeccompOperator::GreaterThan => actual > argument.value,
            SeccompOperator::MaskedEqual => actual & argument.value == argument.value_two & argument.value,
        }
    }

    fn applies(rule: &LinuxSyscall, arguments: [u64; 6]) -> bool {
        let indexes: BTreeSet<_> = rule.args.iter().map(|argument| argument.index).collect();
        match indexes.len() == rule.args.len() {
            true => rule.args.iter().all(|argument| holds(argument, arguments)),
            false => rule.args.iter().any(|argument| holds(argument, arguments)),
        }
    }

    /// A rule without conditions before all others, then the first that applies.
    fn expected(seccomp: &LinuxSeccomp, arguments: [u64; 6]) -> SeccompAction {
        let rules = || seccomp.syscalls.iter().filter(|rule| rule.action != seccomp.default_action);
        let unconditional = rules().find(|rule| rule.args.is_empty());
        let chosen = unconditional.or_else(|| rules().find(|rule| applies(rule, arguments)));
        chosen.map_or(seccomp.default_action, |rule| rule.action)
    }

    fn verdict(action: SeccompAction) -> u32 {
        match action {
            SeccompAction::Kill | SeccompAction::KillThread => 0,
            SeccompAction::KillProcess => 0x8000_0000,
            SeccompAction::Trap => 0x0003_0000,
            SeccompAction::Errno => EPERM,
            SeccompAction::Notify => 0x7fc0_0000,
            SeccompAction::Trace => 0x7ff0_0001,
            SeccompAction::Log => 0x7ffc_0000,
            SeccompAction::Allow => ALLOW,
        }
    }

    proptest! {
        #[test]
        fn any_rules_for_a_call(
            default in any_action(),
            rules in proptest::collection::vec((any_action(), proptest::collection::vec(any_argument(), 0..4)), 0..5),
            values in proptest::collection::vec(proptest::sample::select(INTERESTING.to_vec()), 3),
        ) {
            let rules = rules.into_iter().map(|(action, args)| rule("ioctl", action, args)).collect();
            let seccomp = profile(default, rules);
            let program = program(&seccomp);
            let arguments = [values[0], values[1], values[2], 0, 0, 0];
            prop_assert_eq!(run(&program, "ioctl", arguments).verdict, verdict(expected(&seccomp, arguments)));
            prop_assert_eq!(run(&program, "read", arguments).verdict, verdict(default));
        }

        #[test]
        fn any_set_of_calls(
            chosen in proptest::collection::btree_set(0..TABLE.len(), 1..80),
            action in any_action(),
            default in any_action(),
        ) {
            let rules = chosen.iter().map(|row| rule(TABLE[*row].0, action, Vec::new())).collect();
            let seccomp = LinuxSeccomp { default_errno_ret: (default == SeccompAction::Errno).then_some(38), ..profile(default, rules) };
            let is_strict = !matches!(default, SeccompAction::Allow | SeccompAction::Log | SeccompAction::Trace | SeccompAction::Errno);
            let default = if default == SeccompAction::Errno { ENOSYS } else { verdict(default) };
            let program = program(&seccomp);
            let newest = chosen.iter().filter_map(|row| crate::arch::number(Arch::X86_64, TABLE[*row].0)).max();
            for (row, (name, _)) in TABLE.iter().enumerate() {
                let Some(number) = crate::arch::number(Arch::X86_64, name) else { continue };
                let wanted = match (chosen.contains(&row), is_strict && Some(number) > newest && newest.is_some()) {
                    (true, _) => verdict(action),
                    (false, true) => ENOSYS,
                    (false, false) => default,
                };
                prop_assert_eq!(run(&program, name, [0; 6]).verdict, wanted, "{}", name);
            }
        }
    }
}

mod kernel {
    //! Filters at work.

    use linux::clone::{CloneArgs, Cloned};
    use rustix::io::Errno;

    use super::*;

    /// Loads a filter in a new process and gives what `probe` returns there as exit status, or the signal that ended it.
    fn in_child(seccomp: &LinuxSeccomp, probe: fn() -> i32) -> (Option<i32>, Option<i32>) {
        let filter = compile(seccomp).unwrap();
        match linux::clone::clone3(&CloneArgs::default()).unwrap() {
            Cloned::Child => {
                let is_loaded = linux::credentials::set_no_new_privileges().is_ok()
                    && linux::seccomp::load_filter(&filter.program, filter.flags).is_ok();
                linux::clone::exit_now(if is_loaded { probe() } else { 99 });
            }
            Cloned::Parent(child) => {
                let status = rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty())
                    .unwrap()
                    .unwrap()
                    .1;
                (status.exit_status(), status.terminating_signal())
            }
        }
    }

    fn errno_of(result: Result<impl Sized, Errno>) -> i32 {
        result.map_or_else(|errno| errno.raw_os_error(), |_| 0)
    }

    fn try_unshare() -> i32 {
        errno_of(linux::namespace::unshare(0x0400_0000))
    }

    fn try_clone() -> i32 {
        match linux::clone::clone3(&CloneArgs::default()) {
            Ok(Cloned::Child) => linux::clone::exit_now(0),
            other => errno_of(other),
        }
    }

    fn try_vsock() -> i32 {
        use rustix::net::{AddressFamily, SocketType, socket};
        errno_of(socket(AddressFamily::from_raw(40), SocketType::STREAM, None))
    }

    fn try_unix() -> i32 {
        use rustix::net::{AddressFamily, SocketType, socket};
        errno_of(socket(AddressFamily::UNIX, SocketType::STREAM, None))
    }

    #[test]
    fn dockers_profile_binds() {
        let seccomp = docker(&[], crate::native());
        assert_eq!(in_child(&seccomp, try_unix), (Some(0), None));
        assert_eq!(in_child(&seccomp, try_unshare), (Some(1), None), "EPERM");
        assert_eq!(in_child(&seccomp, try_clone), (Some(38), None), "ENOSYS, so that libc falls back to clone");
        assert_eq!(in_child(&seccomp, try_vsock), (Some(1), None), "EPERM");
    }

    #[test]
    fn actions_act() {
        let socket = |action| profile(SeccompAction::Allow, vec![rule("socket", action, Vec::new())]);
        assert_eq!(in_child(&socket(SeccompAction::Log), try_unix), (Some(0), None));
        assert_eq!(in_child(&socket(SeccompAction::KillProcess), try_unix), (None, Some(31)));
        assert_eq!(in_child(&socket(SeccompAction::KillThread), try_unix), (None, Some(31)));
        assert_eq!(in_child(&socket(SeccompAction::Trap), try_unix), (None, Some(31)));
        // Without a tracer the call does not exist.
        assert_eq!(in_child(&socket(SeccompAction::Trace), try_unix), (Some(38), None));
        let mut errno = socket(SeccompAction::Errno);
        errno.syscalls[0].errno_ret = Some(77);
        assert_eq!(in_child(&errno, try_unix), (Some(77), None));
    }

    #[test]
    fn a_listener_is_given() {
        fn load() -> i32 {
            0
        }
        let seccomp = profile(SeccompAction::Allow, vec![rule("mkdirat", SeccompAction::Notify, Vec::new())]);
        let filter = compile(&seccomp).unwrap();
        assert!(filter.has_listener);
        assert_eq!(in_child(&seccomp, load), (Some(0), None));
    }
}
