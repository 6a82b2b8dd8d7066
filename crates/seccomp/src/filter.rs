//! The finished filter.

use oci::runtime::{Arch, LinuxSeccomp, SeccompAction, SeccompFlag};

use crate::arch::native;
use crate::program::assemble;
use crate::rules::sections;

/// The kernel's limit (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;

const FLAG_TSYNC: u64 = 1;
const FLAG_LOG: u64 = 2;
const FLAG_SPEC_ALLOW: u64 = 4;
const FLAG_NEW_LISTENER: u64 = 8;
const FLAG_TSYNC_ESRCH: u64 = 16;
const FLAG_WAIT_KILLABLE_RECV: u64 = 32;

/// A program for `seccomp(2)` and the flags to load it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Classic BPF, eight bytes an instruction, in this machine's byte order.
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`, `NEW_LISTENER` among them where the filter notifies.
    pub flags: u64,
    /// Whether loading gives a descriptor for notifications.
    pub has_listener: bool,
}

/// Why a configuration cannot be made a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// There is no table of the architecture's calls.
    #[error("seccomp architecture {0:?} is not supported")]
    Architecture(Arch),
    /// One filter cannot serve machines of two byte orders.
    #[error("seccomp architecture {0:?} has another byte order than this machine")]
    ByteOrder(Arch),
    /// Calls have six arguments.
    #[error("seccomp rule for {name}: there is no argument {index}")]
    Argument {
        /// The first call of the rule.
        name: String,
        /// The argument's index.
        index: u32,
    },
    /// The kernel has no such error number.
    #[error("seccomp errnoRet {0} is out of range")]
    Errno(u32),
    /// The action has nothing to do with error numbers.
    #[error("seccomp errnoRet is not for the action {0:?}")]
    ErrnoWithout(SeccompAction),
    /// A default of asking would ask about the very calls that carry the question.
    #[error("SCMP_ACT_NOTIFY cannot be the default action")]
    NotifyDefault,
    /// The runtime itself has to write before the listener is there.
    #[error("SCMP_ACT_NOTIFY cannot be used for the write system call")]
    NotifyWrite,
    /// The kernel takes at most 4096 instructions.
    #[error("the seccomp filter has {0} instructions, the kernel takes {INSTRUCTIONS_MAX}")]
    TooLong(usize),
}

impl Filter {
    /// How many instructions the program has.
    pub fn instruction_count(&self) -> usize {
        self.program.len() / size_of::<u64>()
    }
}

/// Compiles a configuration for the machine that this program was built for.
pub fn compile(seccomp: &LinuxSeccomp) -> Result<Filter, CompileError> {
    compile_for(seccomp, native())
}

/// Compiles a configuration for a machine of another kind; the program's bytes are in this machine's order.
pub fn compile_for(seccomp: &LinuxSeccomp, native: Arch) -> Result<Filter, CompileError> {
    if seccomp.default_action == SeccompAction::Notify {
        return Err(CompileError::NotifyDefault);
    }
    let program = assemble(&sections(seccomp, native)?);
    if program.len() > INSTRUCTIONS_MAX {
        return Err(CompileError::TooLong(program.len()));
    }
    let has_listener = seccomp.syscalls.iter().any(|syscall| syscall.action == SeccompAction::Notify);
    let program = program.into_iter().flat_map(crate::program::Instruction::bytes).collect();
    Ok(Filter { program, flags: flags(&seccomp.flags, has_listener), has_listener })
}

fn flags(flags: &[SeccompFlag], has_listener: bool) -> u64 {
    let bits = flags.iter().fold(0, |bits, flag| {
        bits | match flag {
            SeccompFlag::Tsync => FLAG_TSYNC,
            SeccompFlag::Log => FLAG_LOG,
            SeccompFlag::SpecAllow => FLAG_SPEC_ALLOW,
            // The kernel refuses it where nobody listens.
            SeccompFlag::WaitKillableRecv if has_listener => FLAG_WAIT_KILLABLE_RECV,
            SeccompFlag::WaitKillableRecv => 0,
        }
    });
    // Without a word about flags, speculation is left alone, as in runc: the kernel's own default since 5.16.
    let bits = if flags.is_empty() { FLAG_SPEC_ALLOW } else { bits };
    match (has_listener, bits & FLAG_TSYNC != 0) {
        (false, _) => bits,
        (true, false) => bits | FLAG_NEW_LISTENER,
        // Together they need another way to say that a thread cannot follow.
        (true, true) => bits | FLAG_NEW_LISTENER | FLAG_TSYNC_ESRCH,
    }
}
